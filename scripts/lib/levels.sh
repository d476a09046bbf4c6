# Sourced by benchmarks and tests/quality.sh: what the rows of bench/results/quality.tsv and bench/results/gguf-lavapipe.md are. Theirs are the
# numbers that fast, balanced and best had when they were measured; rows keep them while the levels of --effort move.
# scripts/bench-levels.py measures those.
# shellcheck shell=bash disable=SC2034

# Options of a row's method, in the array `how`.
how_of() { # METHOD
    case $1 in
    rtn | gptq) how=(--method "$1" --effort fast) ;;
    fast) how=(--effort fast --steps 500) ;;
    balanced) how=(--effort balanced --steps 500 --epochs 10 --scale-epochs 3) ;;
    best) how=(--effort paper) ;;
    *)
        echo "no row is called $1: rtn, gptq, fast, balanced or best" >&2
        exit 1
        ;;
    esac
}
