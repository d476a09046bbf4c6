#!/usr/bin/env bash
# Several ranks at one run (host/base/comm.h): the same bytes for any number of them, by both engines; the work of one, shared out, and what
# the plan says between them; one rank's error is that of all;
# a killed rank ends the run, which another number of ranks takes up. GSQ_BINARY: built with Open MPI; GSQ_MPICH: with MPICH, if any, and
# GSQ_MPICH_RANKS="1 2 3" ranks of it (3).
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v mpirun.openmpi >/dev/null || skip 'no Open MPI'
command -v python3 >/dev/null || skip "python3 is needed to read JSON"
[[ -x ${build}/make_big_block ]] || skip 'GSQ_BUILD names no build with test programs'
# No dispatch is split by how long others took, so that they can be counted.
export GSQ_VALIDATE=0 LP_NUM_THREADS=1 GSQ_DEVICE_LIMITS=submit=1000000
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
run mpirun.openmpi -n 2 "$gsq" --version
grep -q 'built for one process' "$tmp/err" && skip "$gsq is built without MPI"
"$build/make_big_block" "$tmp/dense" --hidden 128 --intermediate 640 --heads 4 --kv 2 --layers 3 --vocab 512
engine=openmpi
ranks() { # N COMMAND...: by $engine
    local binary=$gsq
    [[ $engine != mpich ]] || binary=$GSQ_MPICH
    run timeout 120 "mpirun.$engine" -n "$1" "$binary" "${@:2}"
}
told() { # what gsq said, without what the launcher says of exit codes
    grep -E '^(error|hint): ' "$tmp/err"
}
text=(--calib "$demo/calib.txt" --ctx 32 --samples 24 --steps 8 --batch 4)
# equal NAME OPTION...: 1, 2 and 3 ranks. NAME.gguf is a file.
equal() {
    local name=$1 n
    shift
    for n in 1 2 3; do
        ranks "$n" quantize "$@" -o "$tmp/$n-$name" --link any --json
        [[ $rc -eq 0 ]] || fail "$name, $n ranks of $engine: exit $rc: $(told)"
        cp "$tmp/out" "$tmp/$name-$n.json"
    done
    local wrong
    wrong=$(python3 "$here/tests/lib/ranks.py" "$tmp/$name"-[123].json) || wrong=${wrong:-the counts cannot be read}
    check "$name: work of ranks and bytes between them are those of one rank and of the plan${wrong:+: $wrong}" test -z "$wrong"
    check "$name: 2 ranks give the bytes of one" diff -r "$tmp/1-$name" "$tmp/2-$name"
    check "$name: 3 ranks give the bytes of one" diff -r "$tmp/1-$name" "$tmp/3-$name"
    [[ -n ${GSQ_MPICH:-} ]] || return 0
    engine=mpich
    for n in ${GSQ_MPICH_RANKS:-3}; do
        ranks "$n" quantize "$@" -o "$tmp/mpich-$n-$name" --link any
        check "$name: $n ranks of MPICH give the same bytes: exit $rc" diff -r "$tmp/1-$name" "$tmp/mpich-$n-$name"
    done
    engine=openmpi
}
equal rtn "$tmp/dense" --method rtn --bits 3 --group 64
equal gptq "$tmp/dense" --method gptq --bits 2 --group 64 "${text[@]:0:6}"
# With Hessians of outputs; without, the linears of balanced below. Linears of 640 rows have two tiles of outputs, others one, and the pass for these two pieces of 4096 tokens: some ranks have none.
equal fast "$tmp/dense" --effort fast --output-hessian on --bits 2 --group 64 "${text[@]}"
equal balanced "$tmp/dense" --effort balanced --epochs 2 --scale-epochs 1 --bits 2 --group 64 "${text[@]}"
# Steps of several chunks (plan_memory.c: 2048 tokens, over scales 4096), which ranks share.
"$build/make_big_block" "$tmp/small" --hidden 64 --intermediate 192 --heads 2 --kv 1 --layers 1 --vocab 256
equal chunks "$tmp/small" --calib "$demo/calib.txt" --ctx 512 --samples 14 --holdout 4 --steps 8 --batch 10 --epochs 2 --scale-epochs 1 --scale-batch 10 --bits 2 --group 64
equal q4_0.gguf "$tmp/dense" --format gguf --type Q4_0 --epochs 1 --scale-epochs 1 "${text[@]}"
ranks 1 quantize "$tmp/dense" --format gguf --type Q2_0 --method rtn -o "$tmp/published.gguf"
equal refined.gguf "$tmp/dense" --refine "$tmp/published.gguf" --effort fast "${text[@]}"
if [[ -d $shared/models/dsv3-mla-3.9m ]]; then # rows in pieces
    equal latent.gguf "$shared/models/dsv3-mla-3.9m" --format gguf --type Q4_0 --effort fast --calib "$demo/calib.txt" --ctx 32 --samples 8 --steps 4
fi
if [[ -d $shared/models/qwen3moe-4m ]]; then
    equal experts.gguf "$shared/models/qwen3moe-4m" --format gguf --type Q2_K_S --epochs 1 "${text[@]}"
fi

for n in 1 2 3; do # three batches
    ranks "$n" imatrix "$tmp/dense" --calib "$demo/calib.txt" --ctx 512 --samples 18 -o "$tmp/imatrix-$n.gguf"
    check "imatrix, $n ranks: exit $rc, the bytes of one" cmp "$tmp/imatrix-1.gguf" "$tmp/imatrix-$n.gguf"
done
for n in 1 2 3; do
    ranks "$n" compare "$tmp/1-balanced" "$tmp/dense" --text "$demo/eval.txt" --ctx 32 --windows 20 --json
    sed -i 's/"seconds":[^,}]*//' "$tmp/out"
    cp "$tmp/out" "$tmp/compare-$n"
    check "compare, $n ranks: exit $rc, the result once" test "$rc" -eq 0 -a "$(grep -c '"event":"result"' "$tmp/out")" -eq 1
done
result() { grep '"event":"result"' "$1"; }
check 'compare: 2 ranks give the figures of one' test "$(result "$tmp/compare-2")" = "$(result "$tmp/compare-1")"
check 'compare: 3 ranks give the figures of one' test "$(result "$tmp/compare-3")" = "$(result "$tmp/compare-1")"

# ---- a link that costs more than it gives ----
ranks 3 quantize "$tmp/dense" --effort fast --bits 2 --group 64 "${text[@]}" -o "$tmp/slow" --link 2Mb/s
check "a slow link: exit $rc: $(told | head -n 1)" test "$rc" -eq 2 -a "$(told | grep -c '^error: 3 ranks over a link of 0.00025 GB/s would take ')" -eq 1
check "it names the faster layout: $(told | tail -n 1)" grep -q 'mpirun -n 1; ' "$tmp/err"
check 'and nothing is begun' test ! -e "$tmp/slow" -a ! -e "$tmp/slow.work"

# ---- one rank's error is that of all ----
long=(quantize "$tmp/dense" --link any --effort balanced --epochs 4 --scale-epochs 2 --bits 2 --group 64 "${text[@]}")
rank1() { # VARIABLES...: set for rank 1 alone
    # shellcheck disable=SC2016 # for the script
    printf '#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" != 1 ] || export %s\nexec "%s" "$@"\n' "$*" "$gsq" >"$tmp/gsq1"
    chmod +x "$tmp/gsq1"
}
layer=$build/fault_layer
rank1 "VK_ADD_LAYER_PATH=$layer" VK_INSTANCE_LAYERS=VK_LAYER_GSQ_fault GSQ_FAULT=vkQueueSubmit2:400
run timeout 60 mpirun.openmpi -n 3 "$tmp/gsq1" "${long[@]}" -o "$tmp/lost"
check "a device lost on rank 1: exit $rc, said by all as one: $(told | head -n 1)" test "$rc" -eq 3 -a "$(told | grep -c 'the device was lost')" -eq 1
check 'with where rank 1 was, and not where others were' grep -Eq '^error: ([^:]*: )?vkQueueSubmit2: the device was lost' "$tmp/err"
ranks 2 "${long[@]}" -o "$tmp/lost"
check "what was finished is kept, and 2 ranks go on: exit $rc" test "$rc" -eq 0
ranks 1 "${long[@]}" -o "$tmp/whole"
check 'the same bytes' diff -r "$tmp/whole" "$tmp/lost"
rank1 GSQ_STOP_AT=stop:step:5
run timeout 60 mpirun.openmpi -n 2 "$tmp/gsq1" "${long[@]}" -o "$tmp/stopped"
check "a stop heard by rank 1: exit $rc" test "$rc" -ge 128
# Its activations, beyond what device and host have room for, find no room in the work folder either: no file of rank 1 may grow.
# shellcheck disable=SC2016 # for the script
printf '#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" != 1 ] || { trap "" XFSZ; ulimit -f 0; }\nexec "%s" "$@"\n' "$gsq" >"$tmp/gsq1"
run timeout 60 mpirun.openmpi -n 2 "$tmp/gsq1" quantize "$demo" -o "$tmp/unwritten" --link any --effort fast --bits 2 --group 64 --calib "$demo/calib.txt" --ctx 64 \
    --samples 1199 --steps 4 --mem-limit 0.06 --host-limit 0.001
check "a full disk on rank 1: exit $rc: $(told | head -n 1)" test "$rc" -eq 3 -a \
    "$(told | grep -Ec "^error: ([^:]*: )?room for the hidden states of [0-9]* windows: cannot reserve scratch space in $tmp/unwritten.work: ")" -eq 1
"$build/make_big_block" "$tmp/nan" --hidden 128 --intermediate 640 --heads 4 --kv 2 --layers 3 --vocab 512
python3 "$here/tests/lib/damage.py" "$tmp/nan" nan
ranks 3 quantize "$tmp/nan" -o "$tmp/never" --link any --effort fast --bits 2 --group 64 "${text[@]}"
check "a weight that is NaN: exit $rc: $(told | head -n 1)" test "$rc" -eq 2 -a \
    "$(told | grep -c "^error: model.layers.0.mlp.gate_proj.weight in $tmp/nan/model.safetensors holds NaN at element ")" -eq 1
if mount -t tmpfs -o size=256k none "$(mkdir -p "$tmp/full" && echo "$tmp/full")" 2>/dev/null; then
    mounts+=("$tmp/full")
    ranks 3 "${long[@]}" -o "$tmp/never" --work "$tmp/full/work"
    check "a full disk: exit $rc: $(told | head -n 1)" test "$rc" -eq 3 -a "$(told | grep -c '^error: ')" -eq 1
fi

# ---- kill -9 of a rank, and another number goes on ----
# A run that got to its end before it was hit is compared, and begun anew.
kills=${GSQ_MPI_KILLS:-4} hit=0
RANDOM=7
for ((i = 0; i < 4 * kills && hit < kills; i++)); do
    n=$((RANDOM % 3 + 1))
    timeout 240 mpirun.openmpi -n "$n" "$gsq" "${long[@]}" -o "$tmp/killed" >"$tmp/out" 2>"$tmp/err" &
    launcher=$!
    sleep "$((RANDOM % 3 + 1)).$((RANDOM % 10))"
    mapfile -t all < <(pgrep -f -- "$gsq ${long[0]} .*$tmp/killed" | while read -r p; do [[ $(ps -o comm= -p "$p") != gsq* ]] || echo "$p"; done)
    victim=none
    if ((${#all[@]})); then
        victim=${all[RANDOM % ${#all[@]}]}
        kill -9 "$victim" 2>/dev/null || victim=none
    fi
    begin=$SECONDS rc=0
    wait "$launcher" || rc=$?
    for lock in "$tmp/killed/.gsq-lock" "$tmp/killed.work/run.gsq-lock"; do # the launcher ends before those that it ends are gone
        [[ ! -e $lock ]] || flock -w 30 "$lock" true
    done
    if [[ $victim != none && $rc -ne 0 ]]; then
        hit=$((hit + 1))
        check "rank of $n ranks killed ($victim): the launcher ends with $rc in $((SECONDS - begin)) s, and none hangs" test "$((SECONDS - begin))" -le 60
    else
        check "$n ranks were at their end before a kill: exit $rc" diff -r "$tmp/whole" "$tmp/killed"
        rm -rf "$tmp/killed"
    fi
done
check "$hit of $kills kills hit a run" test "$hit" -eq "$kills"
ranks 2 "${long[@]}" -o "$tmp/killed"
check "then 2 ranks finish: exit $rc" diff -r "$tmp/whole" "$tmp/killed"
check 'no work folder is left' test ! -e "$tmp/killed.work"

# Without MPI inside it is not started twice.
run mpirun.openmpi -n 2 "$build/gsq" eval "$tmp/dense" --text "$demo/eval.txt"
check "a gsq without MPI says so: $(told | head -n 1)" grep -q 'built for one process' "$tmp/err"
if [[ -n ${GSQ_MPICH:-} ]]; then
    run mpirun.openmpi -n 2 "$GSQ_MPICH" eval "$tmp/dense" --text "$demo/eval.txt"
    check "one with another MPI says so: $(told | head -n 1)" grep -q 'built with another MPI' "$tmp/err"
fi
done_testing
