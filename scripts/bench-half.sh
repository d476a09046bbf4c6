#!/usr/bin/env bash
# What 16-bit operands do to a result: runs with every product and attention that steers on matrix cores, on the newest lavapipe
# (scripts/gpu-drivers.sh, preset newest), beside the same runs in f32. KL divergence of three seeds each.
#
#   scripts/bench-half.sh [SHARED] >bench/results/half-lavapipe.md      (../shared: its models too; about 20 minutes on two cores)
set -euo pipefail
cd "$(dirname "$0")/.."
shared=${1:-../shared}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

kl() { # VARIANT MODEL CALIB EVAL BITS SEED
    local variant=$1 model=$2 calib=$3 eval=$4 bits=$5 seed=$6 how=(build/release/gsq)
    local options=(--samples 32 --steps 60 --epochs 5 --scale-epochs 1 --ctx 64 --format compressed-tensors)
    [[ $variant == f32 ]] || how=(scripts/gpu-drivers.sh run lavapipe build/newest/gsq)
    [[ $variant == f32 ]] || options+=(--variant "$variant")
    "${how[@]}" quantize "$model" -o "$tmp/out" --force --calib "$calib" --eval "$eval" --bits "$bits" --seed "$seed" \
        "${options[@]}" >"$tmp/log" 2>&1 || { cat "$tmp/log" >&2; return 1; }
    sed -nE 's/.*divergence +([0-9.]+) .*/\1/p' "$tmp/log"
    rm -rf "$tmp/out"
}

row() { # NAME MODEL CALIB EVAL BITS
    local name=$1 bits=$5 variant seed cells=
    for variant in f32 coopmat; do
        cells+=' |'
        for seed in 1 2 3; do
            cells+=" $(kl "$variant" "$2" "$3" "$4" "$bits" "$seed")"
        done
    done
    echo "| $name, $bits bits$cells |"
}

cat <<END
# Operands of 16 bits beside f32

KL divergence of seeds 1, 2 and 3: \`--samples 32 --steps 60 --epochs 5 --scale-epochs 1 --ctx 64\`, by \`scripts/bench-half.sh\`. coopmat: gradients,
forward passes of calibration and training, attention in them and Hessian sums on matrix cores, executed by the newest lavapipe; f32 ran on Debian 12's.

| model | f32 | coopmat |
| --- | --- | --- |
END
[[ ! -d $shared ]] || head -c 60000 "$shared/text/tinystories-eval.txt" >"$tmp/eval.txt"
for bits in 2 3; do
    row demo models/demo models/demo/calib.txt models/demo/eval.txt "$bits"
    for model in stories260K TinyStories-656K; do
        [[ ! -d $shared/models/$model ]] ||
            row "$model" "$shared/models/$model" "$shared/text/tinystories-calib.txt" "$tmp/eval.txt" "$bits"
    done
done
