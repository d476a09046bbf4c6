#!/usr/bin/env bash
# Kimi-K2.5 at its full size on this machine: dry runs of the whole model and of DeepSeek-V3, one layer of 384 experts rounded, and two
# experts of such a layer by GPTQ and by three steps of training. Folders are sparse (tests/lib/sparse_model.py): headers and shapes as
# released, a vocabulary of 2048.
#
#   scripts/bench-kimi.sh [MODEL-WITH-TOKENIZER [TEXT]] >bench/results/kimi-lavapipe.md
#
# A tokenizer of at most 2048 tokens. WORK=build/kimi: folders and results; a run that was ended is gone on with, a finished one is not
# repeated; PRINT_ONLY=1: none is begun. 10 GB of disk; EXPERTS=384, fewer for a look. Hours on two cores that are busy otherwise. GSQ=path of the binary.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/result.sh
. scripts/lib/result.sh
gsq=${GSQ:-build/release/gsq} work=${WORK:-build/kimi} experts=${EXPERTS:-384}
tokenizer=${1:-../shared/models/dsv3-mla-3.9m} text=${2:-../shared/text/wikitext2-test-calib.txt}
[[ -f $tokenizer/tokenizer.json && -f $text ]] || { echo "no tokenizer in $tokenizer, or no $text" >&2; exit 77; }
mkdir -p "$work"
common=(--bits 2 --allow-requantize)

make() { # NAME MODEL OPTION...
    [[ -d $work/$1 ]] || python3 tests/lib/sparse_model.py "$2" "$work/$1" "${@:3}"
    cp "$tokenizer/tokenizer.json" "$work/$1/"
}

# The plan as it is printed; a disk that is too small is told behind it.
plan() { # NAME OPTION...
    local TIMEFORMAT='%R s, of which %U + %S s of the CPU'
    { time GSQ_DEVICE_LIMITS=memory=8192 "$gsq" quantize "$work/$1" -o "$work/planned" "${common[@]}" --dry-run "${@:2}" >"$work/plan" 2>&1 </dev/null; } 2>"$work/time" ||
        grep -q '^error: not enough disk space' "$work/plan"
    echo "\`$1 ${*:2}\`: $(cat "$work/time")"
    echo
    sed -n -e '/^linears/,$p' "$work/plan" | sed "s|$work/||; s/^/    /"
    echo
}

# One row: what was asked for, seconds, host and device memory.
row() { # NAME MODEL OPTION...
    local out=$work/$1.json
    if [[ -n ${PRINT_ONLY:-} ]] && { [[ ! -s $out ]] || ! field seconds "$out" | grep -q .; }; then
        echo "| $1 | not run | | |"
        return
    fi
    if [[ ! -s $out ]] || ! field seconds "$out" | grep -q .; then
        "$gsq" quantize "$work/$2" -o "$work/$1.out" "${common[@]}" --mem-limit 2 --json "${@:3}" >"$out" </dev/null
    fi
    rm -rf "$work/$1.out"
    printf '| %s | %.0f s | %.0f MiB | %.0f MiB |\n' "$1" "$(field seconds "$out")" \
        "$(($(field device_peak_bytes "$out") >> 20))" "$(($(field host_peak_bytes "$out") >> 20))"
}

make kimi-k2.5 kimi-k2.5
make deepseek-v3 deepseek-v3
make layer kimi-k2.5 --layers 1 --dense 0 --vocab 2048 --experts "$experts" --values 2
make two kimi-k2.5 --layers 1 --dense 0 --vocab 2048 --experts 8 --values 2
two=(--keep '\.experts\.([2-9]|[0-9]{2,})\.' --calib "$text" --samples 2 --ctx 256)

echo "# Kimi-K2.5 at its full size"
echo
echo "machine: $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GiB; $("$gsq" devices 2>/dev/null | sed -n 1p)"
echo "load: $(cut -d' ' -f1 /proc/loadavg); gsq: $("$gsq" --version); date: $(date -u +%Y-%m-%d); \`scripts/bench-kimi.sh\`"
echo
echo "## Dry runs of whole models, on a device of 8 GiB"
echo
plan kimi-k2.5 --method rtn
plan kimi-k2.5 --method gptq --ctx 1024 --samples 64
plan deepseek-v3 --method gptq --ctx 1024 --samples 64
echo "## One layer, at most 2 GiB of device memory"
echo
echo "Experts of 3 x 7168 x 2048 in INT4, attention and shared expert in 16 bits as released. rounded: $experts experts, of which two"
echo "have values and the others are zeros, rounded in a tenth of the time (bench/results/starved-lavapipe.md). The two others: of a"
echo "layer with 8, every token's first two, which alone are quantized; what is kept is written in 16 bits. Host memory is the process's"
echo "largest anonymous memory, what is beyond mapped files; what a CPU device's memory was touched of is in it."
echo
echo "| run | time | device memory | host memory |"
echo "| --- | ---: | ---: | ---: |"
row rounded layer --method rtn
row gptq two --method gptq "${two[@]}"
row 'three steps' two --effort quick --steps 3 "${two[@]}"
