#!/usr/bin/env bash
# What real compilers make of every kernel, at COMMIT and now, as bench/results/compilers.md has it. Some ten minutes.
#
#   scripts/bench-compilers.sh [COMMIT] >bench/results/compilers.md
#
# The earlier kernels are built in a work tree of their own under build/, and read with today's scripts and drivers. COMMIT, unless
# given: the first that has tools/kernel_statistics.c.
set -euo pipefail
cd "$(dirname "$0")/.."
commit=${1:-$(git log --diff-filter=A --format=%h -1 -- tools/kernel_statistics.c)}
old=$PWD/build/compilers-before
scripts/gpu-drivers.sh >&2 || exit $?
drivers=$(realpath "${GSQ_GPU_DRIVERS:-build/gpu-drivers}")

[[ -d $old ]] || git worktree add -q --detach "$old" "$commit" >&2
git -C "$old" checkout -q --detach "$commit" >&2
mkdir -p "$old/build"
ln -sfn "$drivers" "$old/build/gpu-drivers"
preset=newest # where there is none, there are no variants that want its shader compiler
grep -q '"newest"' "$old/CMakePresets.json" || preset=release
(cd "$old" && cmake --preset "$preset" && cmake --build "build/$preset" --target kernel_statistics) >&2

# Their verdicts by today's budget do not matter here.
GSQ_KERNEL_STATISTICS=$old/build/$preset/kernel_statistics GSQ_COMPILERS_OUT=build/gpu-compilers-before scripts/gpu-compilers.sh >&2 || true
scripts/gpu-compilers.sh >&2 || true
mapfile -t cards < <(scripts/gpu-drivers.sh cards | sed '/ lvp /d; s/ .*//')
scripts/bench-compilers.py build/gpu-compilers-before build/gpu-compilers "$commit" "$(git describe --always --dirty)" "${cards[@]}"
