#!/usr/bin/env bash
# gsq's matrix product beside OpenBLAS's sgemm on one thread, both f32, 1024 cubed. They run in turns, so that whatever
# else the machine does falls on both; the figure is the median of the rounds' ratios.
#
#     scripts/bench-gemm.sh [path to gsq] [rounds]
set -euo pipefail
cd "$(dirname "$0")/.."
gsq=${1:-build/release/gsq}
rounds=${2:-7}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc -O2 -std=c11 -o "$work/sgemm" tests/bench_sgemm.c -lopenblas

for ((i = 1; i <= rounds; i++)); do
    blas=$(OPENBLAS_NUM_THREADS=1 "$work/sgemm")
    ours=$("$gsq" bench --kernel gemm --json |
        sed -n 's/.*"kernel":"gemm",.*"shape":"1024 x 1024 x 1024".*"gflops":\([0-9.e+]*\).*/\1/p')
    echo "$i $blas $ours"
done | awk '
    { ratio[NR] = $3 / $2; printf "round %d: sgemm %7.2f GFLOP/s, gsq %7.2f GFLOP/s, ratio %.3f\n", $1, $2, $3, ratio[NR] }
    END {
        for (i = 1; i <= NR; i++)
            for (j = i + 1; j <= NR; j++)
                if (ratio[j] < ratio[i]) { t = ratio[i]; ratio[i] = ratio[j]; ratio[j] = t }
        printf "median ratio %.3f\n", NR % 2 ? ratio[(NR + 1) / 2] : (ratio[NR / 2] + ratio[NR / 2 + 1]) / 2
    }'
