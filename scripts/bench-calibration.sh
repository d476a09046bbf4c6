#!/usr/bin/env bash
# What the calibration text is worth: 2 bits, learned on one like what the model was trained on, on one that the model writes itself,
# on the text that comes with gsq, on that of another of the models, and rounded without any; KL divergence from the 16-bit model on a
# text that none of them saw.
#
#   scripts/bench-calibration.sh [MODEL CALIB-TEXT EVAL-TEXT GROUP]...     default: the models beside the repository
#
# ROWS: file of measured rows, default build/calibration.tsv; what is in it is not measured again. SEEDS="1 2", SAMPLES=32,
# CTX=256, WINDOWS=128 (of the evaluation text), EFFORT=fast, GSQ=path of the binary. PRINT_ONLY=1: the table of what is there.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/result.sh
. scripts/lib/result.sh
gsq=${GSQ:-build/release/gsq}
rows=${ROWS:-build/calibration.tsv}
read -ra seeds <<<"${SEEDS:-1 2}"
samples=${SAMPLES:-32} ctx=${CTX:-256} windows=${WINDOWS:-128} effort=${EFFORT:-fast}
if [[ $# -eq 0 ]]; then
    shared=../shared
    [[ -d $shared/models || -n ${PRINT_ONLY:-} ]] || { echo "no models in $shared: give MODEL CALIB-TEXT EVAL-TEXT GROUP" >&2; exit 77; }
    set -- "$shared/models/stories260K" "$shared/text/tinystories-calib.txt" "$shared/text/tinystories-eval.txt" 64 \
        "$shared/models/TinyStories-656K" "$shared/text/tinystories-calib.txt" "$shared/text/tinystories-eval.txt" 128 \
        "$shared/models/oak-2.9M" "$shared/text/wikitext2-test-calib.txt" "$shared/text/wikitext2-test-eval.txt" 64
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$(dirname "$rows")"
touch "$rows"

# One row: model, text, seed, KL, its standard error, perplexity, that of 16 bits, top-1.
measure() { # MODEL EVAL GROUP NAME SEED OPTION...
    local name model=$1 text=$2 group=$3 what=$4 seed=$5
    shift 5
    name=$(basename "$model")
    if grep -q "^$name	$what	$seed	" "$rows"; then
        return
    fi
    rm -rf "$tmp/out" "$tmp/out.work"
    "$gsq" quantize "$model" -o "$tmp/out" --bits 2 --group "$group" --format compressed-tensors "$@" --json >"$tmp/quantize"
    "$gsq" compare "$tmp/out" "$model" --text "$text" --ctx "$ctx" --windows "$windows" --json >"$tmp/compare"
    printf '%s\t%s\t%s\t%.4f\t%.4f\t%.2f\t%.2f\t%.4f\n' "$name" "$what" "$seed" "$(field mean_kl "$tmp/compare")" \
        "$(field mean_kl_error "$tmp/compare")" "$(field perplexity "$tmp/compare")" \
        "$(field reference_perplexity "$tmp/compare")" "$(field top1_agreement "$tmp/compare")" >>"$rows"
    tail -n 1 "$rows" >&2
}

models=("$@")
[[ -z ${PRINT_ONLY:-} ]] || models=()
learn=(--effort "$effort" --samples "$samples" --ctx "$ctx")
for seed in "${seeds[@]}"; do
    for ((i = 0; i + 3 < ${#models[@]}; i += 4)); do
        model=${models[i]} own=${models[i + 1]} text=${models[i + 2]} group=${models[i + 3]}
        measure "$model" "$text" "$group" 'none (rtn)' - --method rtn
        measure "$model" "$text" "$group" default "$seed" --calib default --seed "$seed" "${learn[@]}"
        measure "$model" "$text" "$group" fitting "$seed" --calib "$own" --seed "$seed" "${learn[@]}"
        measure "$model" "$text" "$group" self "$seed" --calib self --seed "$seed" "${learn[@]}"
        for ((k = 1; k < ${#models[@]}; k += 4)); do
            [[ ${models[k]} != "$own" ]] || continue
            measure "$model" "$text" "$group" "$(basename "${models[k]}" .txt)" "$seed" --calib "${models[k]}" --seed "$seed" "${learn[@]}"
            break
        done
    done
done

echo "calibration: --effort $effort, $samples windows of $ctx tokens; evaluation: $windows windows of $ctx; $("$gsq" --version)"
echo "machine: $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1); $("$gsq" devices 2>/dev/null | sed -n 1p)"
echo "date: $(date -u +%Y-%m-%d)"
echo
sort -t '	' -k1,1 -k2,2r -k3,3 "$rows" | awk -F'\t' 'BEGIN {
    printf "| model | text | seed | KL to 16 bits | perplexity | at 16 bits | top-1 |\n"
    printf "| --- | --- | --- | ---: | ---: | ---: | ---: |\n" }
    { printf "| %s | %s | %s | %.3f +- %.3f | %.2f | %.2f | %.1f %% |\n", $1, $2, $3, $4, $5, $6, $7, 100 * $8 }'
