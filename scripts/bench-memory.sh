#!/usr/bin/env bash
# What model fits what card: the least device memory of published shapes at several efforts, by dry runs for a device that is
# not there, and the largest model for each amount. Then, of models that are an eighth as wide and so take a 64th, a run within
# exactly the least that a dry run accepts, and one with a MiB less, which is refused. Writes bench/results/memory.md.
#
#   scripts/bench-memory.sh [BUILD]       build/release; 5 minutes on two idle cores
# shellcheck disable=SC2016 # Markdown
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/release}
gsq=$build/gsq
out=bench/results/memory.md
efforts=(quick fast balanced)
models=(1B 3B 8B 8B-152k 14B 32B 70B)
limits=(4 6 8 12 16 24)
tmp=$(mktemp -d "${TMPDIR:-/tmp}/gsq-memory.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

# accepted MIB MODEL OPTION...: whether a dry run does. Disks are not what is asked for here.
accepted() {
    local mib=$1
    shift
    GSQ_DEVICE_LIMITS="memory=$mib,alloc=4096,range=4095" "$gsq" quantize "$@" --dry-run >"$tmp/out" 2>&1 </dev/null ||
        grep -q '^error: not enough disk space' "$tmp/out"
}

# least LOW HIGH STEP MODEL OPTION...: the smallest accepted number of MiB, a multiple of STEP; HIGH + STEP: none.
least() {
    local low=$(($1 / $3)) high=$(($2 / $3 + 1)) step=$3
    shift 3
    while [[ $((high - low)) -gt 1 ]]; do
        local middle=$(((low + high) / 2))
        if accepted $((middle * step)) "$@"; then high=$middle; else low=$middle; fi
    done
    echo $((high * step))
}

declare -A need
for model in "${models[@]}"; do
    python3 tests/lib/sparse_model.py "$model" "$tmp/$model"
    for effort in "${efforts[@]}"; do
        need[$model,$effort]=$(least 256 49152 32 "$tmp/$model" -o "$tmp/o" --effort "$effort")
        echo "$model $effort: ${need[$model,$effort]} MiB" >&2
    done
done

# largest LIMIT EFFORT: of the models.
largest() {
    local best=none model
    for model in "${models[@]}"; do
        [[ $model == 8B-152k || ${need[$model,$2]} -gt $(($1 * 1024)) ]] || best=$model
    done
    [[ $best == none ]] || accepted $(($1 * 1024)) "$tmp/$best" -o "$tmp/o" --effort "$2" || best="$best, refused at $1 GiB"
    echo "$best"
}

row() { # CELL...
    printf '|'
    printf ' %s |' "$@"
    echo
}
head_of() { # CELL...
    row "$@"
    printf '|%s' "$(printf ' --- |%.0s' "$@")"
    echo
}
gib() { awk -v m="$1" 'BEGIN { printf "%.2f", m / 1024 }'; }

scaled() { # NAME EFFORT HIDDEN FEED-FORWARD HEADS KV
    local dir=$tmp/small-$1 mib size=(--effort "$2" --bits 2 --samples 6 --ctx 64)
    [[ -d $dir ]] || "$build/make_big_block" "$dir" --hidden "$3" --intermediate "$4" --heads "$5" --kv "$6" --layers 2 --vocab 2048
    [[ $2 != balanced ]] || size+=(--epochs 1 --scale-epochs 1)
    mib=$(least 16 512 1 "$dir" -o "$tmp/r" "${size[@]}" --steps 2)
    local run=("$gsq" quantize "$dir" -o "$tmp/r" "${size[@]}" --calib models/demo/calib.txt --json)
    local above=fails below=runs peak=-
    GSQ_DEVICE_LIMITS=memory=$mib "${run[@]}" --steps 2 >"$tmp/json" 2>"$tmp/err" </dev/null && above=completes
    peak=$(sed -n 's/.*"device_peak_bytes":\([0-9]*\).*/\1/p' "$tmp/json" | tail -n 1)
    rm -rf "$tmp/r" "$tmp/r.work"
    GSQ_DEVICE_LIMITS=memory=$((mib - 1)) "${run[@]}" --steps 2 >"$tmp/json" 2>"$tmp/err" </dev/null || below="refused before it begins"
    [[ ! -e $tmp/r.work ]] || below="fails late"
    rm -rf "$tmp/r" "$tmp/r.work"
    row "$1" "$2" "$mib MiB" "$above, $(gib $((peak / 1024))) MiB used" "$below"
}

{
    echo '# Models and memory'
    echo
    echo 'By `scripts/bench-memory.sh`. Device memory that may be used: a card has less than its name says,'
    echo 'by what the desktop takes and a reserve of 512 MiB or a twentieth. 2 bits in groups of 128, windows of 2048 tokens, 128 of'
    echo 'them (`quick` 64); buffers up to 4 GiB. Nothing was computed for the first two tables: they are dry runs for a device that is not there.'
    echo
    echo 'The largest model within'
    echo
    head_of memory "${efforts[@]}"
    for limit in "${limits[@]}"; do
        cells=("$limit GiB")
        for effort in "${efforts[@]}"; do cells+=("$(largest "$limit" "$effort")"); done
        row "${cells[@]}"
    done
    echo
    echo 'The least in which a dry run accepts a model, GiB (`8B-152k`: Qwen3-8B, whose head is the larger one)'
    echo
    head_of model "${efforts[@]}"
    for model in "${models[@]}"; do
        cells=("$model")
        for effort in "${efforts[@]}"; do cells+=("$(gib "${need[$model,$effort]}")"); done
        row "${cells[@]}"
    done
    echo
    echo 'Runs on lavapipe, of models with an eighth of the width (2 blocks, 6 windows of 64 tokens): within the least that a dry run'
    echo 'accepts, and within a MiB less'
    echo
    head_of "shape of" effort "least accepted" "a run within it" "with a MiB less"
    scaled 3B quick 384 1024 3 1
    scaled 8B fast 512 1792 4 1
    scaled 14B balanced 640 2176 5 1
} >"$tmp/memory.md"
mkdir -p bench/results
mv "$tmp/memory.md" "$out"
cat "$out"
