#!/usr/bin/env bash
# Several processes at one run through its work folder (host/base/queue.h): the same bytes for any number of them, whichever is killed, and when;
# what cannot be joined is refused. GSQ_QUEUE_KILLS: how many are killed (default 10).
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
[[ -x ${build}/make_big_block ]] || skip 'GSQ_BUILD names no build with test programs'
export GSQ_VALIDATE=0 LP_NUM_THREADS=1
"$build/make_big_block" "$tmp/dense" --hidden 64 --intermediate 192 --heads 2 --kv 1 --layers 3 --vocab 256
text=(--calib "$demo/calib.txt" --ctx 32 --samples 16 --steps 8 --batch 4)

# start ID OPTION...: in the background; its pid into $pid, its exit code into $tmp/ID.rc.
start() {
    local id=$1
    shift
    "$gsq" quantize --join --log-level debug "$@" >"$tmp/$id.out" 2>"$tmp/$id.err" </dev/null &
    pid=$!
}
# finish ID PID: its exit code into $rc.
finish() {
    rc=0
    wait "$2" || rc=$?
}
said() { # ID: what it says at the end
    tail -n 2 "$tmp/$1.err" | tr '\n' ' '
}
left() { # OUT: nothing but the result
    check "$1: no work folder is left" test ! -e "$tmp/$1.work"
}
# equal NAME OPTION...: by 1, 2 and 3 processes. NAME.gguf is a file.
equal() {
    local name=$1 n i pids wrote
    shift
    for n in 1 2 3; do
        pids=()
        for ((i = 0; i < n; i++)); do
            start "$i" "$@" -o "$tmp/$n-$name"
            pids+=("$pid")
        done
        wrote=0
        for ((i = 0; i < n; i++)); do
            finish "$i" "${pids[i]}"
            [[ $rc -eq 0 ]] || fail "$name, process $i of $n: exit $rc: $(said "$i")"
            wrote=$((wrote + $(grep -c "bits per weight, [0-9]" "$tmp/$i.out" || true)))
        done
        check "$name, $n processes: one writes the result" test "$wrote" -eq 1
        left "$n-$name"
    done
    check "$name: 2 processes give the bytes of one" diff -r "$tmp/1-$name" "$tmp/2-$name"
    check "$name: 3 processes give the bytes of one" diff -r "$tmp/1-$name" "$tmp/3-$name"
}
equal rtn "$tmp/dense" --method rtn --bits 3 --group 64
equal gptq "$tmp/dense" --method gptq --bits 2 --group 64 "${text[@]:0:6}"
equal fast "$tmp/dense" --effort fast --bits 2 --group 64 "${text[@]}"
balanced=("$tmp/dense" --effort balanced --epochs 2 --scale-epochs 2 --bits 2 --group 64 "${text[@]}")
equal balanced "${balanced[@]}"
equal q4_0.gguf "$tmp/dense" --format gguf --type Q4_0 --epochs 1 --scale-epochs 1 "${text[@]}"

if [[ -d $shared/models/TinyStories-656K-moe-8x ]]; then
    equal experts.gguf "$shared/models/TinyStories-656K-moe-8x" --format gguf --type Q4_0 --epochs 1 --calib "$demo/calib.txt" --ctx 32 \
        --samples 8 --steps 4 --batch 4
fi

# ---- what each has made ----
"$build/make_big_block" "$tmp/larger" --hidden 128 --intermediate 640 --heads 4 --kv 2 --layers 3 --vocab 512
fast=("$tmp/larger" --effort fast --output-hessian off --bits 2 --group 64 "${text[@]:0:6}" --steps 40)
start 0 "${fast[@]}" -o "$tmp/shared" --json
first=$pid
until [[ -e $tmp/shared.work/manifest.json ]]; do sleep 0.05; done
start 1 "${fast[@]}" -o "$tmp/shared" --json
expect 'another gsq without --join' 3 'another gsq is writing' '--join' -- "$gsq" quantize -q "${fast[@]}" -o "$tmp/shared"
expect 'another seed' 2 'belongs to another run: its seed is' 'repeat the earlier' -- \
    "$gsq" quantize -q --join "${fast[@]}" -o "$tmp/shared" --seed 5
finish 1 "$pid"
check "one that joins a run: exit $rc" grep -q '"helped":true' "$tmp/1.out"
finish 0 "$first"
check "  and the one that began it: exit $rc, it tells of 2 processes" grep -q '"event":"progress".*"processes":2' "$tmp/0.out"
made=("$(field linears_made "$tmp/0.out")" "$(field linears_made "$tmp/1.out")")
check "  ${made[0]} and ${made[1]} of 21 linears made" test "${made[0]}" -lt 21 -a "${made[1]}" -gt 0 -a $((made[0] + made[1])) -ge 21
left shared

# ---- kill -9 of one, and another comes ----
kills=${GSQ_QUEUE_KILLS:-10}
RANDOM=11
declare -A at_work=()
for ((i = 0; i < 2; i++)); do
    start "k$i" "${balanced[@]}" -o "$tmp/killed"
    at_work[$pid]=k$i
done
done_kills=0
for ((i = 2; i < kills + 2; i++)); do
    sleep "$((RANDOM % 2)).$((RANDOM % 10))$((RANDOM % 10))"
    pids=("${!at_work[@]}")
    victim=${pids[RANDOM % ${#pids[@]}]}
    if kill -9 "$victim" 2>/dev/null; then
        done_kills=$((done_kills + 1))
    fi
    wait "$victim" 2>/dev/null || true
    unset "at_work[$victim]"
    start "k$i" "${balanced[@]}" -o "$tmp/killed"
    at_work[$pid]=k$i
done
for victim in "${!at_work[@]}"; do
    finish "${at_work[$victim]}" "$victim"
    [[ $rc -eq 0 ]] || fail "a process that was not killed: exit $rc: $(said "${at_work[$victim]}")"
done
check "$done_kills of $kills processes killed: the same bytes" diff -r "$tmp/1-balanced" "$tmp/killed"
left killed

# ---- they come and go as the run ends ----
for ((i = 0; i < 20; i++)); do
    rm -rf "$tmp/short" "$tmp/short.work"
    pids=()
    for ((k = 0; k < 5; k++)); do
        start "s$k" "$tmp/dense" --method rtn --bits 3 --group 64 -o "$tmp/short"
        pids+=("$pid")
        sleep "0.0$((RANDOM % 10))"
    done
    for k in 0 1; do
        kill -9 "${pids[k]}" 2>/dev/null || true
        wait "${pids[k]}" 2>/dev/null || true
    done
    for k in 2 3 4; do
        finish "s$k" "${pids[k]}"
        [[ $rc -eq 0 ]] || fail "a short run, process $k: exit $rc: $(said "s$k")"
    done
done
check 'runs of a fifth of a second, each by 5 processes of which 2 are killed: the same bytes' diff -r "$tmp/1-rtn" "$tmp/short"

# ---- one that is halted with a unit in hand is not waited for ----
export GSQ_QUEUE_SECONDS=2
start 0 "${fast[@]}" -o "$tmp/halted"
first=$pid
until [[ -e $tmp/halted.work/manifest.json ]]; do sleep 0.05; done
start 1 "${fast[@]}" -o "$tmp/halted"
until grep -q -- "-$pid-" "$tmp"/halted.work/lease-block-* 2>/dev/null || ! kill -0 "$first"; do sleep 0.02; done
kill -STOP "$pid"
finish 0 "$first"
check "one is halted, and the other finishes: exit $rc" diff -r "$tmp/shared" "$tmp/halted"
kill -CONT "$pid"
finish 1 "$pid"
check "  which the halted one finds out: exit $rc: $(cat "$tmp/1.out")" test "$rc" -eq 0
left halted
unset GSQ_QUEUE_SECONDS

# ---- a list of devices: gsq starts the others itself ----
helper_of() { pgrep -P "$1" || true; }
gone() { # PID: within five seconds
    local i
    for ((i = 0; i < 50; i++)); do
        [[ -n $1 && -e /proc/$1 && $(ps -o stat= -p "$1") != Z* ]] || return 0
        sleep 0.1
    done
    return 1
}
list=("$gsq" quantize "${fast[@]}" --device 0,0 --json)
run "${list[@]}" -o "$tmp/list"
check "two devices: exit $rc, one result" test "$rc" -eq 0 -a "$(grep -c '"event":"result"' "$tmp/out")" -eq 1
check "  $(field linears_made "$tmp/out") of 21 linears made by the first" test "$(field linears_made "$tmp/out")" -lt 21
check '  the same bytes' diff -r "$tmp/shared" "$tmp/list"
left list
run "$gsq" quantize -q "${fast[@]}" --device 0,9 -o "$tmp/never"
check "one of them is not there: exit $rc: $(grep '^error' "$tmp/err")" grep -q "^error: device 9: no device has the number or name '9'" "$tmp/err"
check '  its exit code is that of all' test "$rc" -eq 2
expect 'a list where one device is used' 2 'eval uses one device' 'several are for quantize' -- "$gsq" eval "$tmp/dense" --text "$demo/eval.txt" --device 0,0
for signal in INT KILL; do
    "${list[@]}" -o "$tmp/list-$signal" >"$tmp/0.out" 2>"$tmp/0.err" </dev/null &
    first=$!
    until compgen -G "$tmp/list-$signal.work/lease-block-*" >/dev/null; do sleep 0.05; done
    helper=$(helper_of "$first")
    kill "-$signal" "$first"
    finish 0 "$first"
    check "SIG$signal: exit $rc, and the helper ($helper) ends" gone "$helper"
    check '  it was there' test -n "$helper" -a "$rc" -ge 128
done
done_testing
