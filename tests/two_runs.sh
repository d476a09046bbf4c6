#!/usr/bin/env bash
# Two runs at once on one output, and on one work folder: one ends with its own bytes, the other says who is there.
# GSQ_ROUNDS: how often (default 1 of each kind).
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
rounds=${GSQ_ROUNDS:-1}
run_one() { # NAME SEED OUT [OPTION...]: its exit code into NAME.rc
    local name=$1 seed=$2 out=$3 rc=0
    shift 3
    "$gsq" quantize -q "$demo" -o "$out" --calib "$demo/calib.txt" --effort fast --steps 20 --samples 8 --ctx 64 \
        --seed "$seed" "$@" >"$tmp/$name.out" 2>"$tmp/$name.err" </dev/null || rc=$?
    echo "$rc" >"$tmp/$name.rc"
}
# The bytes of a result, without what depends on where it lies.
sum_of() {
    if [[ -d $1 ]]; then
        (cd "$1" && find . -type f -name '*.safetensors' -exec sha256sum {} + | sort) | sha256sum
    else
        sha256sum <"$1"
    fi
}

t0=$(date +%s%N)
for seed in 1 2; do
    run_one "want$seed" "$seed" "$tmp/want$seed"
    run_one "want$seed" "$seed" "$tmp/want$seed.gguf" --type Q2_K
    check "seed $seed alone: exit $(cat "$tmp/want$seed.rc")" test "$(cat "$tmp/want$seed.rc")" -eq 0
done
ms=$((($(date +%s%N) - t0) / 4000000)) # of one run alone
check 'the seeds differ' test "$(sum_of "$tmp/want1")" != "$(sum_of "$tmp/want2")"

met=0 lost=0
both() { # KIND OUT1 OUT2 END [OPTION...]: END is what their names end in
    local kind=$1 out1=$2 out2=$3 end=$4 delay winner loser pid
    shift 4
    delay=$((RANDOM % (ms * 6 / 10 + 1)))
    rm -rf "$out1" "$out2" "$tmp"/[12].*
    run_one 1 1 "$out1" "$@" &
    pid=$!
    sleep "$(awk -v d="$delay" 'BEGIN { print d / 1000 }')"
    run_one 2 2 "$out2" "$@"
    wait "$pid"
    winner=1 loser=2
    [[ $(cat "$tmp/1.rc") -eq 0 ]] || winner=2 loser=1
    local outs=("" "$out1" "$out2") what="$kind, $delay ms apart"
    if [[ $(cat "$tmp/1.rc") -eq 0 && $(cat "$tmp/2.rc") -eq 0 ]]; then # one after the other
        winner=2 loser=
    else
        met=$((met + 1))
        if [[ $(cat "$tmp/$winner.rc") -ne 0 || $(cat "$tmp/$loser.rc") -ne 3 ]] ||
            ! grep -qE '^error: another gsq is writing .*: process [0-9]+ on ' "$tmp/$loser.err" ||
            ! grep -q '^hint: wait until it is done' "$tmp/$loser.err"; then
            fail "$what: exits $(cat "$tmp/1.rc") and $(cat "$tmp/2.rc"): $(cat "$tmp"/[12].err | tr '\n' ' ')"
            return
        fi
        [[ $out1 -ef $out2 || ! -e ${outs[loser]} ]] || fail "$what: the loser left ${outs[loser]}"
    fi
    if [[ $(sum_of "${outs[winner]}") != "$(sum_of "$tmp/want$winner$end")" ]]; then
        fail "$what: not the bytes of run $winner"
    elif [[ -n $(find "$tmp" -name '*.gsq-*' -o -name '*.work') ]]; then
        fail "$what: left behind: $(find "$tmp" -name '*.gsq-*' -o -name '*.work')"
    else
        lost=$((lost + ${#loser}))
        ok "$what: run $winner wins${loser:+; run $loser: exit 3, $(head -n 1 "$tmp/$loser.err")}"
    fi
}
for ((i = 0; i < rounds; i++)); do
    both 'one folder' "$tmp/one" "$tmp/one/" ''
    both 'one GGUF' "$tmp/one.gguf" "$tmp/./one.gguf" .gguf --type Q2_K
    both 'one work folder' "$tmp/o1" "$tmp/o2" '' --work "$tmp/shared.work"
done
check "$met of $((3 * rounds)) met, one of each pair stopped" test "$met" -ge $((3 * rounds / 2)) -a "$lost" -eq "$met"

# A killed run leaves its lock, which nobody holds; the next one goes on.
run bash -c 'GSQ_STOP_AT=kill:linear:2 "$@" || exit' - "$gsq" quantize -q "$demo" -o "$tmp/one" --calib "$demo/calib.txt" \
    --effort fast --steps 200 --samples 8 --ctx 64 --work "$tmp/k.work"
check 'a killed run leaves its lock' test "$rc" -eq 137 -a -e "$tmp/k.work/run.gsq-lock"
rm -rf "$tmp/one"
run_one 1 1 "$tmp/one" --steps 200 --work "$tmp/k.work"
check "  and the next goes on: exit $(cat "$tmp/1.rc")" test "$(cat "$tmp/1.rc")" -eq 0 -a ! -e "$tmp/k.work"

# Convert takes the same lock as quantize.
if command -v flock >/dev/null; then
    expect 'convert where another writes' 3 'another gsq is writing' 'wait until' -- \
        flock "$tmp/held.gguf.gsq-lock" "$gsq" convert -q "$demo" -o "$tmp/held.gguf"
    expect 'imatrix where another writes' 3 'another gsq is writing' 'wait until' -- \
        flock "$tmp/held.gguf.gsq-lock" "$gsq" imatrix -q "$demo" --calib "$demo/calib.txt" --ctx 64 --samples 2 \
        -o "$tmp/held.gguf"
    check '  nothing was written' test ! -e "$tmp/held.gguf"
    # The page of a run is one of its outputs: no other run's page, nor its model.
    expect 'a report where another writes' 3 'report: another gsq is writing .*held.gguf' 'wait until' -- flock \
        "$tmp/held.gguf.gsq-lock" "$gsq" quantize -q "$demo" -o "$tmp/r" --method rtn --report "$tmp/held.gguf"
    mkdir "$tmp/pages"
    expect '  another way round' 3 'another gsq is writing .*pages/x.gguf' 'wait until' -- flock \
        "$tmp/pages/x.gguf.gsq-lock" "$gsq" quantize -q "$demo" -o "$tmp/pages/x.gguf" --method rtn
    check '  nothing was written' test ! -e "$tmp/held.gguf" -a ! -e "$tmp/r" -a -z "$(find "$tmp/pages" -name "*.gguf")"
    run_one 1 1 "$tmp/in" --report "$tmp/in/r.html"
    check "a report in the folder that a run makes: exit $(cat "$tmp/1.rc")" test "$(cat "$tmp/1.rc")" -eq 0 -a \
        -s "$tmp/in/r.html" -a -z "$(find "$tmp/in" -name '*.gsq-*')"
fi
done_testing
