#!/usr/bin/env bash
# Quality of every method at every bit width: one table of perplexity, KL divergence to the 16-bit model, top-1 agreement,
# bits per weight and seconds.
#
#   scripts/bench-quality.sh [MODEL CALIB-TEXT EVAL-TEXT GROUP]...     default: the models beside the repository and the bench
#                                                                      model (scripts/train-bench-model.sh), as far as they are there
#
# ROWS: file of measured rows, default build/quality.tsv; what is in it is not measured again, so an interrupted run goes
# on. BITS="ternary 2 3 4", METHODS="rtn gptq alone together paper" (what they are: scripts/lib/levels.sh), SAMPLES=128, CTX=256, WINDOWS=N (of
# the evaluation text; default all), GSQ=path of the binary. PRINT_ONLY=1: the table of what is there, nothing measured.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/result.sh
. scripts/lib/result.sh
# shellcheck source=scripts/lib/levels.sh
. scripts/lib/levels.sh
gsq=${GSQ:-build/release/gsq}
rows=${ROWS:-build/quality.tsv}
read -ra bit_widths <<<"${BITS:-ternary 2 3 4}"
read -ra methods <<<"${METHODS:-rtn gptq alone together paper}"
samples=${SAMPLES:-128} ctx=${CTX:-256}
windows=()
[[ -z ${WINDOWS:-} ]] || windows=(--windows "$WINDOWS")
[[ -x $gsq ]] || { echo "$gsq is not built: cmake --preset release && cmake --build build/release" >&2; exit 1; }
command -v python3 >/dev/null || { echo "python3 is needed to read JSON" >&2; exit 1; }
if [[ $# -eq 0 ]]; then
    shared=../shared
    [[ ! -d $shared/models ]] ||
        set -- "$shared/models/stories260K" "$shared/text/tinystories-calib.txt" "$shared/text/tinystories-eval.txt" 64 \
            "$shared/models/TinyStories-656K" "$shared/text/tinystories-calib.txt" "$shared/text/tinystories-eval.txt" 128 \
            "$shared/models/oak-2.9M" "$shared/text/wikitext2-test-calib.txt" "$shared/text/wikitext2-test-eval.txt" 64
    mapfile -t bench_model < <(bench_model)
    [[ ${#bench_model[@]} -eq 0 ]] || set -- "$@" "${bench_model[@]}" 128
    [[ $# -gt 0 ]] || { echo "no models in $shared, and no bench model: give MODEL CALIB-TEXT EVAL-TEXT GROUP" >&2; exit 77; }
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$(dirname "$rows")"
touch "$rows"

# One row: model, bits, method, perplexity, KL, top-1, bits per weight, seconds of the quantization.
measure() { # MODEL CALIB EVAL GROUP BITS METHOD
    local name how
    name=$(basename "$1")
    if grep -q "^$name	$5	$6	" "$rows"; then
        return
    fi
    how_of "$6"
    rm -rf "$tmp/out"
    "$gsq" quantize "$1" -o "$tmp/out" "${how[@]}" --bits "$5" --group "$4" --format compressed-tensors --calib "$2" \
        --samples "$samples" --ctx "$ctx" --json >"$tmp/quantize"
    "$gsq" compare "$tmp/out" "$1" --text "$3" --ctx "$ctx" "${windows[@]}" --json >"$tmp/compare"
    grep -q "^$name	16	-	" "$rows" ||
        printf '%s\t16\t-\t%.4f\t0\t1\t16\t0\n' "$name" "$(field reference_perplexity "$tmp/compare")" >>"$rows"
    printf '%s\t%s\t%s\t%.4f\t%.5f\t%.4f\t%.3f\t%.0f\n' "$name" "$5" "$6" "$(field perplexity "$tmp/compare")" \
        "$(field mean_kl "$tmp/compare")" "$(field top1_agreement "$tmp/compare")" \
        "$(field bits_per_weight "$tmp/quantize")" "$(field seconds "$tmp/quantize")" >>"$rows"
    tail -n 1 "$rows" >&2
}

models=("$@")
[[ -z ${PRINT_ONLY:-} ]] || models=()
for ((i = 0; i + 3 < ${#models[@]}; i += 4)); do
    for bits in "${bit_widths[@]}"; do
        for method in "${methods[@]}"; do
            measure "${models[@]:i:4}" "$bits" "$method"
        done
    done
done

echo "calibration: $samples windows of $ctx tokens; evaluation: ${WINDOWS:-all} windows of $ctx; $("$gsq" --version)"
echo "machine: $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1); $("$gsq" devices 2>/dev/null | sed -n 1p)"
echo "date: $(date -u +%Y-%m-%d)"
echo
awk -F'\t' 'BEGIN { printf "| model | bits | method | perplexity | KL to 16 bits | top-1 | bits per weight | seconds |\n"
                    printf "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |\n" }
    { printf "| %s | %s | %s | %.2f | %.4f | %.1f %% | %.3f | %d |\n", $1, $2, $3, $4, $5, 100 * $6, $7, $8 }' <(
    # By model as given, then bits, then method.
    awk -F'\t' -v bits="16 ${bit_widths[*]}" -v methods="- ${methods[*]}" '
        BEGIN { n = split(bits, b, " "); for (i = 1; i <= n; i++) rank_b[b[i]] = i
                n = split(methods, m, " "); for (i = 1; i <= n; i++) rank_m[m[i]] = i }
        { if (!($1 in rank)) rank[$1] = ++models
          if ($2 in rank_b && $3 in rank_m) printf "%d %d %d\t%s\n", rank[$1], rank_b[$2], rank_m[$3], $0 }' "$rows" |
        sort -n -k1,1 -k2,2 -k3,3 | cut -f2-)
