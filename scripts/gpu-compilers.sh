#!/usr/bin/env bash
# What the real compilers of AMD, Intel and NVIDIA cards make of every kernel, on a machine without such cards
# (scripts/gpu-drivers.sh), as one table; against tests/gpu-budget.txt, so that a spill or a lost wave is red.
#
#   scripts/gpu-compilers.sh [CARD...]           the table, and the budget's verdict; exit 77: drivers cannot be had here
#   scripts/gpu-compilers.sh --write [CARD...]   writes tests/gpu-budget.txt anew instead of judging by it
#
# regs: vector registers of an invocation (AMD, NVIDIA), live at the most (Intel). waves: subgroups at a time, of a SIMD (AMD),
# of an SM (NVIDIA); Intel: invocations of a subgroup, which its compiler lowers where registers run out. matrix: instructions
# of matrix cores. cycles: the compiler's estimate; it knows nothing of memory. Machine code is left in build/gpu-compilers/CARD.
# A second table has the products' inner loops and the share of peak that their instructions allow (scripts/gpu-loops.py).
set -euo pipefail
cd "$(dirname "$0")/.."
budget=tests/gpu-budget.txt
out=${GSQ_COMPILERS_OUT:-build/gpu-compilers}
program=${GSQ_KERNEL_STATISTICS:-build/newest/kernel_statistics}
write=no
[[ ${1:-} != --write ]] || { write=yes && shift; }

scripts/gpu-drivers.sh || exit $?
cards=("$@")
[[ ${#cards[@]} -gt 0 ]] || mapfile -t cards < <(scripts/gpu-drivers.sh cards | sed '/ lvp /d; s/ .*//')
if [[ -z ${GSQ_KERNEL_STATISTICS:-} ]]; then # built with the newer shader compiler: all variants
    cmake --preset newest >build/newest.log 2>&1 && cmake --build build/newest --target kernel_statistics >>build/newest.log 2>&1 ||
        { tail -20 build/newest.log && exit 1; }
fi

# kernel variant card regs spills scratch shared waves matrix cycles
rows_of() { # CARD
    local card=$1 raw=$out/$1.txt kernel variant words line
    rm -rf "${out:?}/$card"
    mkdir -p "$out/$card"
    if ! scripts/gpu-drivers.sh run "$card" "$program" "$out/$card" >"$raw" 2>"$out/$card.log"; then
        tail -2 "$out/$card.log" >&2
        return 1
    fi
    while read -r kernel variant _ line; do
        words=$(grep -cE 'v_(s?wmmac?|mfma)_|^ *(\([^)]*\) )?dpas|[hi]mma' "$out/$card/$kernel.$variant".*.txt 2>/dev/null | awk -F: '{n += $NF} END {print n + 0}')
        echo "$kernel $variant $card $words $line"
    done < <(grep -v '^#' "$raw") | awk '
    {
        split("", v)
        for (i = 5; i <= NF; i++) {
            n = index($i, "=")
            v[substr($i, 1, n - 1)] = substr($i, n + 1)
        }
        if ("VGPRs" in v)
            print $1, $2, $3, v["VGPRs"], v["Spilled_VGPRs"] + v["Spilled_SGPRs"], v["Scratch_size"], v["LDS_size"], v["Subgroups_per_SIMD"], $4, v["Inverse_Throughput"]
        else if ("Number_of_GPRs" in v)
            print $1, $2, $3, v["Number_of_GPRs"], v["Spills_to_memory"] + v["Fills_from_memory"], v["SLM_size"], "-", v["Max_warps/SM"], $4, v["Static_cycle_count"]
        else
            print $1, $2, $3, v["Max_live_registers"], v["Spill_Count"] + v["Fill_Count"], v["Scratch_Memory_Size"], v["Workgroup_Memory_Size"], v["subgroup"], $4, v["Cycle_Count"]
    }'
}

mkdir -p "$out"
: >"$out/all.txt"
missing=()
for card in "${cards[@]}"; do
    rows_of "$card" >>"$out/all.txt" || missing+=("$card")
done
[[ ${#missing[@]} -eq 0 ]] || echo "gpu-compilers: no figures for ${missing[*]}"
[[ -s $out/all.txt ]] || exit 77

echo 'for each card: registers/waves; s: values spilled, l: bytes of local memory, m: matrix instructions'
awk -v cards="${cards[*]}" '
    BEGIN { n = split(cards, card, " "); printf "%-24s", "kernel.variant"; for (i = 1; i <= n; i++) printf " %-15s", card[i]; print "" }
    !(($1 "." $2) in seen) { seen[$1 "." $2] = 1; order[++m] = $1 "." $2 }
    { t = $4 "/" $8; if ($5) t = t " s" $5; if ($6) t = t " l" $6; if ($9) t = t " m" $9; cell[$1 "." $2, $3] = t }
    END { for (k = 1; k <= m; k++) { printf "%-24s", order[k]; for (i = 1; i <= n; i++) printf " %-15s", cell[order[k], card[i]]; print "" } }
' "$out/all.txt"

echo
scripts/gpu-loops.py "$out" "${cards[@]}"
scripts/gpu-loops.py --rows "$out" "${cards[@]}" | sed 's/^/step /' >"$out/steps.txt"

if [[ $write == yes ]]; then
    {
        echo "# Made by scripts/gpu-compilers.sh --write. A row is red where spills or local memory (scratch) grow or waves fall."
        echo "# kernel variant card registers spilled local-bytes waves matrix"
        awk '{print $1, $2, $3, $4, $5, $6, $8, $9}' "$out/all.txt"
        echo "# The inner loops of products: red where the share of peak falls by 0.01 or no matrix instruction is left."
        echo "# step kernel variant card matrix peak share"
        cat "$out/steps.txt"
    } >"$budget"
    echo "gpu-compilers: $budget is written"
    exit 0
fi
awk -v cards=" ${cards[*]} " '
    FNR == NR && $1 == "step" { matrix_step[$2, $3, $4] = $5; share[$2, $3, $4] = $7; next }
    FNR == NR { if ($1 != "#") { spilled[$1, $2, $3] = $5; local[$1, $2, $3] = $6; waves[$1, $2, $3] = $7; matrix[$1, $2, $3] = $8 } next }
    $1 == "step" {
        key = $2 SUBSEP $3 SUBSEP $4
        name = $2 "." $3 " on " $4
        if (!(key in share)) { print "no budget: step of " name " (scripts/gpu-compilers.sh --write)"; bad++ }
        else if ($7 < share[key] - 0.01) { print "share of peak: " name ": " $7 ", budget " share[key]; bad++ }
        if (!$5 && matrix_step[key]) { print "matrix instructions: none in the inner loop of " name; bad++ }
        good++
        next
    }
    !(($1, $2, $3) in waves) { print "no budget: " $1 "." $2 " on " $3 " (scripts/gpu-compilers.sh --write)"; bad++; next }
    {
        key = $1 SUBSEP $2 SUBSEP $3
        if ($5 > spilled[key]) { print "spills: " $1 "." $2 " on " $3 ": " $5 " values, budget " spilled[key]; bad++ }
        if ($6 > local[key]) { print "local memory: " $1 "." $2 " on " $3 ": " $6 " bytes, budget " local[key]; bad++ }
        if ($8 < waves[key]) { print "waves: " $1 "." $2 " on " $3 ": " $8 ", budget " waves[key]; bad++ }
        if (!$9 && matrix[key]) { print "matrix instructions: none in " $1 "." $2 " on " $3; bad++ }
        good++
    }
    END { printf "gpu-compilers: %d rows, %d over budget\n", good, bad; exit bad > 0 }
' "$budget" "$out/all.txt" "$out/steps.txt"
