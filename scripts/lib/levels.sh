# Sourced by benchmarks and tests/quality.sh: the rows of bench/results/quality.tsv and bench/results/gguf-lavapipe.md, by options of their own.
# What --effort means lies in quantize_set_effort alone, and moves; rows of other names keep their numbers. scripts/bench-levels.py measures levels.
# shellcheck shell=bash disable=SC2034

# Options of a row's method, in the array `how`.
how_of() { # METHOD
    case $1 in
    rtn | gptq) how=(--method "$1" --effort fast) ;;
    alone) how=(--effort fast --steps 500) ;;
    together) how=(--effort balanced --steps 500 --epochs 10 --scale-epochs 3) ;;
    quick | fast | balanced | best | paper) how=(--effort "$1") ;;
    *)
        echo "no row is called $1: rtn, gptq, alone, together or an effort" >&2
        exit 1
        ;;
    esac
}

# The bench model where scripts/train-bench-model.sh has made it: folder, calibration text, evaluation text, by the line.
bench_model() {
    local folder=${BENCH_MODEL:-build/bench-model}
    [[ ! -e $folder/PROVENANCE.md ]] || printf '%s\n' "$folder" "$folder/calib.txt" "$folder/eval.txt"
}
