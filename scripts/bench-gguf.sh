#!/usr/bin/env bash
# Quality of GGUF files, gsq beside llama-quantize: one table of KL divergence to F16, top-1 agreement and perplexity, all
# measured by llama.cpp (tests/llama), with bits per weight and seconds. llama-quantize gets an importance matrix from the
# same calibration text. Where both wrote a type, their tensors must have the same types.
#
#   scripts/bench-gguf.sh [MODEL CALIB-TEXT EVAL-TEXT]...   default: oak-2.9M beside the repository and the bench model
#                                                           (scripts/train-bench-model.sh), as far as they are there
#
# ROWS: file of measured rows, default build/gguf.tsv; what is in it is not measured again, so an interrupted run goes on.
# TYPES="Q2_K Q2_K_S Q3_K_S Q3_K_M Q4_0 Q2_0 TQ2_0" (of both), THEIRS="IQ2_S IQ2_XXS" (of llama-quantize alone),
# SIZED=fast: an effort by which gsq makes a file as large as each of THEIRS, of types that it chooses; BPW="2.6 3.2": sizes likewise,
# METHODS="llama-quantize gptq alone together paper" (what they are: scripts/lib/levels.sh), SAMPLES=128, CTX=256, WINDOWS=150 (of the
# evaluation text; 0: all), ATTENTION= (a type that both give attention's matrices instead, Q8_0 for instance), GSQ=path of the binary, LLAMA=path of llama_run.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/levels.sh
. scripts/lib/levels.sh
gsq=${GSQ:-build/release/gsq} llama=${LLAMA:-build/release/llama_run}
rows=${ROWS:-build/gguf.tsv}
read -ra types <<<"${TYPES-Q2_K Q2_K_S Q3_K_S Q3_K_M Q4_0 Q2_0 TQ2_0}"
read -ra theirs <<<"${THEIRS-IQ2_S IQ2_XXS}"
read -ra methods <<<"${METHODS:-llama-quantize gptq alone together paper}"
sized=${SIZED:-}
read -ra bpws <<<"${BPW:-}"
attention=${ATTENTION:-}
ours=() theirs_too=()
if [[ -n $attention ]]; then
    ours=(--tensor "self_attn\\.=$attention") theirs_too=("--tensor-type=attn_=${attention,,}")
fi
samples=${SAMPLES:-128} ctx=${CTX:-256} windows=${WINDOWS:-150}
[[ -x $gsq ]] || { echo "$gsq is not built: cmake --preset release && cmake --build build/release" >&2; exit 1; }
[[ -x $llama ]] || { echo "$llama is not built: scripts/llama-cpp.sh, then cmake again" >&2; exit 77; }
command -v python3 >/dev/null || { echo "python3 is needed to read JSON" >&2; exit 1; }
if [[ $# -eq 0 ]]; then
    shared=../shared
    [[ ! -d $shared/models ]] ||
        set -- "$shared/models/oak-2.9M" "$shared/text/wikitext2-test-calib.txt" "$shared/text/wikitext2-test-eval.txt"
    mapfile -t bench_model < <(bench_model)
    set -- "$@" ${bench_model[@]+"${bench_model[@]}"}
    [[ $# -gt 0 ]] || { echo "no models in $shared, and no bench model: give MODEL CALIB-TEXT EVAL-TEXT" >&2; exit 77; }
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$(dirname "$rows")"
touch "$rows"

number() { # NAME: of llama_run's one line in $tmp/kl
    python3 -c 'import json, sys; print(json.load(open(sys.argv[2]))[sys.argv[1]])' "$1" "$tmp/kl"
}

# Made once, when a row needs it.
source_file() {
    [[ -e $tmp/f16.gguf ]] || "$gsq" convert "$model" -o "$tmp/f16.gguf" --format gguf --type F16 -q >&2
}
imatrix() {
    [[ -e $tmp/imatrix.gguf ]] ||
        "$gsq" imatrix "$model" --calib "$calib" --samples "$samples" --ctx "$ctx" -o "$tmp/imatrix.gguf" -q >&2
}
their_file() { # TYPE
    [[ -e $tmp/$1.gguf ]] || { imatrix && "$llama" quantize "$tmp/f16.gguf" "$tmp/$1.gguf" "$1" "$tmp/imatrix.gguf" "${theirs_too[@]}"; }
}

# One row: model, type, method, bits per weight of the blocks' matrices, KL, top-1, perplexity, seconds, bytes of the file.
measure() { # TYPE METHOD ["sized": types are gsq's choice]
    local type=$1 method=$2 how file=$tmp/out.gguf start what=(--type "$1")
    if grep -q "^$name	$type	$method	" "$rows"; then
        return
    fi
    source_file
    start=$SECONDS
    case $method in
    llama-quantize)
        imatrix
        start=$SECONDS
        file=$tmp/$type.gguf
        their_file "$type"
        ;;
    *) how_of "${method%,*}" ;;
    esac
    case ${3:-}$type in
    sized*bpw) what=(--bpw "${type% bpw}") ;;
    sized*)
        their_file "$type"
        what=(--size "$(stat -c %s "$tmp/$type.gguf")")
        ;;
    esac
    if [[ $method != llama-quantize ]]; then
        rm -rf "$file" "$file.work"
        "$gsq" quantize "$model" -o "$file" "${what[@]}" "${how[@]}" "${ours[@]}" --calib "$calib" --samples "$samples" \
            --ctx "$ctx" -q >&2
    fi
    local seconds=$((SECONDS - start))
    "$llama" types "$file" | sort >"$tmp/types"
    if [[ $method != llama-quantize && -z ${3:-} ]]; then
        their_file "$type"
        "$llama" types "$tmp/$type.gguf" | sort | diff "$tmp/types" - >&2 ||
            { echo "$type: gsq's tensors (<) have other types than llama-quantize's (>)" >&2; exit 1; }
    fi
    "$llama" kl "$file" "$tmp/f16.gguf" "$text" "$ctx" "$windows" >"$tmp/kl"
    grep -q "^$name	F16	-	" "$rows" ||
        printf '%s\tF16\t-\t16\t0\t1\t%.4f\t0\t%d\n' "$name" "$(number reference_perplexity)" \
            "$(stat -c %s "$tmp/f16.gguf")" >>"$rows"
    printf '%s\t%s\t%s\t%.3f\t%.5f\t%.4f\t%.4f\t%d\t%d\n' "$name" "$type" "$method" \
        "$(awk -F'\t' '/^blk/ && $2 != "f32" { w += $3; b += $4 } END { print 8 * b / w }' "$tmp/types")" \
        "$(number mean_kl)" "$(number top1_agreement)" "$(number perplexity)" "$seconds" "$(stat -c %s "$file")" >>"$rows"
    tail -n 1 "$rows" >&2
}

bench() { # MODEL CALIB-TEXT EVAL-TEXT: these are what `measure` sees
    local model=$1 calib=$2 text=$3 name type method
    name=$(basename "$1")
    rm -f "$tmp"/*.gguf
    for method in "${methods[@]}"; do
        for type in "${types[@]}"; do
            measure "$type" "$method"
        done
    done
    for type in ${theirs[@]+"${theirs[@]}"}; do
        measure "$type" llama-quantize
        [[ -z $sized ]] || measure "$type" "$sized, same size" sized
    done
    for type in ${bpws[@]+"${bpws[@]}"}; do
        measure "$type bpw" "$sized, same size" sized
    done
}

models=("$@")
for ((i = 0; i + 2 < ${#models[@]}; i += 3)); do
    bench "${models[@]:i:3}"
done

echo "calibration: $samples windows of $ctx tokens; evaluation: $windows windows of $ctx by llama-perplexity's protocol in"
echo "$("$llama" version) on the CPU; $("$gsq" --version)"
[[ -z $attention ]] || echo "attention's matrices are $attention in both"
echo "machine: $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1); $("$gsq" devices 2>/dev/null | sed -n 1p)"
echo "date: $(date -u +%Y-%m-%d)"
[[ ${#models[@]} -ne 3 ]] || echo
# By type as given, then method; KL also as a share of llama-quantize's for the same type.
table() { # NAME of a model
    awk -F'\t' -v model="$1" -v types="F16:${types[*]/%/:}${theirs[*]/%/:}${bpws[*]/%/ bpw:}" -v methods="-:${methods[*]/%/:}$sized, same size" '
        BEGIN { gsub(": ", ":", types); gsub(": ", ":", methods); n = split(types, t, ":"); m = split(methods, h, ":")
                printf "| type | method | bits per weight | KL to F16 | of llama-quantize | top-1 | perplexity | file KiB | seconds |\n"
                printf "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n" }
        $1 == model { row[$2, $3] = $0; kl[$2, $3] = $5 }
        END { for (i = 1; i <= n; i++) for (k = 1; k <= m; k++) if ((t[i], h[k]) in row) {
                  split(row[t[i], h[k]], c, "\t")
                  base = (t[i], "llama-quantize") in kl ? kl[t[i], "llama-quantize"] : 0
                  printf "| %s | %s | %.3f | %.4f | %s | %.1f %% | %.2f | %.0f | %d |\n", c[2], (c[3] ~ /^[fb]/ ? "gsq " : "") c[3], c[4], c[5],
                      (base > 0 ? sprintf("%.2f", c[5] / base) : ""), 100 * c[6], c[7], c[9] / 1024, c[8] } }' "$rows"
}
for ((i = 0; i + 2 < ${#models[@]}; i += 3)); do
    name=$(basename "${models[i]}")
    [[ ${#models[@]} -eq 3 ]] || printf '\n%s\n\n' "$name"
    table "$name"
done
