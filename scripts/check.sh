#!/usr/bin/env bash
# What to run before a commit: a few minutes from a clean clone, most of which is the first build.
#
#     scripts/check.sh            format, shell scripts, build, lint, quick tests
#     scripts/check.sh format     only these: format shell build lint quick
#
# format changes nothing: `git ls-files '*.c' '*.h' | xargs clang-format -i` does. A tool that is not installed is said,
# and its part skipped. scripts/test.sh is everything.
set -euo pipefail
cd "$(dirname "$0")/.."
parts=("$@")
[[ ${#parts[@]} -gt 0 ]] || parts=(format shell build lint quick)
failed=()
started=$SECONDS

part_format() {
    local version
    if ! command -v clang-format >/dev/null; then
        echo "skipped: wants clang-format (Debian: clang-format)"
        return 0
    fi
    version=$(clang-format --version | sed -E 's/.*version ([0-9]+).*/\1/')
    if [[ $version != 14 ]]; then
        echo "skipped: the tree is laid out by clang-format 14 (Debian 12), this one is $version and would differ in places"
        return 0
    fi
    git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror && return 0
    echo "these files are not laid out as .clang-format says: git ls-files '*.c' '*.h' | xargs clang-format -i"
    return 1
}

part_shell() {
    if ! command -v shellcheck >/dev/null; then
        echo "skipped: wants shellcheck"
        return 0
    fi
    shellcheck -x -S warning scripts/*.sh scripts/lib/*.sh tests/*.sh tests/lib/*.sh
}

part_build() {
    mkdir -p build
    cmake --preset release >build/check.log 2>&1 && cmake --build build/release >>build/check.log 2>&1 && return 0
    tail -n 40 build/check.log
    echo "the whole output is in build/check.log; scripts/setup.sh --test installs what is missing"
    return 1
}

# Static analysis: the first time a minute and a half on two cores, then of what has changed.
part_lint() {
    cmake --preset release >build/lint.log 2>&1 || { cat build/lint.log; return 1; }
    scripts/lint.py
}

part_quick() {
    local from=$SECONDS
    ctest --test-dir build/release -L quick -j "$(nproc)" --output-on-failure || return 1
    echo "quick tests: $((SECONDS - from)) s"
}

for part in "${parts[@]}"; do
    declare -F "part_$part" >/dev/null || { echo "no part named $part: format shell build lint quick"; exit 2; }
    echo "=== $part"
    if ! "part_$part"; then
        failed+=("$part")
        [[ $part != build ]] || break
    fi
done
if [[ ${#failed[@]} -gt 0 ]]; then
    echo "check: failed: ${failed[*]}"
    exit 1
fi
echo "check: good, $((SECONDS - started)) s"
