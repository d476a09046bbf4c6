#!/usr/bin/env bash
# A run that is interrupted ends in the same bytes as one that is not: kill -9 at three random moments, and Ctrl-C.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"
make=$build/make_big_block
[[ -x $make ]] || skip "$make is not built"

"$make" "$tmp/model" --hidden 128 --intermediate 256 --heads 4 --kv 2 --layers 6
options=(--method gsq --bits 2 --group 64 --calib "$demo/calib.txt" --samples 32 --ctx 64 --steps 40 --epochs 3 --batch 4 --scale-epochs 0 --json)
quantize=("$gsq" quantize "$tmp/model" "${options[@]}")

run "${quantize[@]}" -o "$tmp/a"
check 'an undisturbed run' test "$rc" -eq 0
[[ $rc -eq 0 ]] || { cat "$tmp/err"; done_testing; }
seconds=$(field seconds "$tmp/out")
echo "it took $seconds s"
run "${quantize[@]}" -o "$tmp/b"
check 'a second one has the same bytes' diff -r "$tmp/a" "$tmp/b"
check 'and leaves no work folder' test ! -e "$tmp/b.work"

# Waits until the run with this output is in block N or later, or is over.
in_block() { # FILE N PID
    local at
    while kill -0 "$3" 2>/dev/null; do
        # The file may not be there yet: the run that writes it has only just been started.
        at=$(sed -nE 's/.*"block":([0-9]+).*/\1/p' "$1" 2>/dev/null | tail -n 1) || at=0
        [[ ${at:-0} -lt $2 ]] || return 0
        sleep 0.05
    done
}

# Stops the run in the training of a half of block N or later, or waits until it is over. It is looked at while it stands
# still: a half may train for less than the second between two lines of progress.
stop_in_training() { # FILE N PID
    local last
    while kill -STOP "$3" 2>/dev/null; do
        last=$(grep -s '"phase"' "$1" | tail -n 1) || true
        if [[ $last =~ '"phase":"train"'.*'"block":'([0-9]+) && ${BASH_REMATCH[1]} -ge $2 ]]; then
            return 0
        fi
        kill -CONT "$3" 2>/dev/null || true
        sleep 0.1
    done
}

# Three kills: while block 2 or a later one trains, then at a random moment of the third and fourth block or soon after.
killed=0
for i in 1 2 3; do
    pause=$(awk -v t="$seconds" -v r="$RANDOM" 'BEGIN { printf "%.2f", t / 6 * r / 32767 }')
    "${quantize[@]}" -o "$tmp/c" >"$tmp/c.$i" 2>&1 &
    pid=$!
    if [[ $i -eq 1 ]]; then
        stop_in_training "$tmp/c.$i" 2 "$pid"
    else
        in_block "$tmp/c.$i" "$((i + 1))" "$pid"
        sleep "$pause"
    fi
    kill -9 "$pid" 2>/dev/null || true
    rc=0
    wait "$pid" 2>/dev/null || rc=$?
    [[ $rc -ne 137 ]] || killed=$((killed + 1))
    echo "kill -9 in block $(sed -nE 's/.*"block":([0-9]+).*/\1/p' "$tmp/c.$i" | tail -n 1)," \
        "phase $(sed -nE 's/.*"phase":"([a-z]+)".*/\1/p' "$tmp/c.$i" | tail -n 1)"
    [[ $i -ne 1 ]] || check 'the first one while it trained' grep -q '"phase":"train"' <<<"$(grep '"phase"' "$tmp/c.$i" | tail -n 1)"
done
check 'three runs were killed' test "$killed" -eq 3
run "${quantize[@]}" -o "$tmp/c"
check 'the fourth finishes' test "$rc" -eq 0
check "it resumed: $(field blocks_resumed "$tmp/out") of $(field blocks "$tmp/out") blocks were there" \
    test "$(field blocks_resumed "$tmp/out")" -gt 0
check 'and has the same bytes' diff -r "$tmp/a" "$tmp/c"
check 'and leaves no work folder' test ! -e "$tmp/c.work"

# Ctrl-C.
"${quantize[@]}" -o "$tmp/d" >"$tmp/d.out" 2>"$tmp/d.err" &
pid=$!
in_block "$tmp/d.out" 2 "$pid"
kill -INT "$pid"
rc=0
wait "$pid" || rc=$?
check "Ctrl-C: exit code $rc" test "$rc" -eq 130
check "says: $(grep stopped "$tmp/d.err" || true)" grep -q 'stopped at a safe point; rerun the same command to resume' "$tmp/d.err"
check 'no model yet' test ! -e "$tmp/d/config.json"
expect 'another seed is refused' 2 'seed' '.' -- "${quantize[@]}" --seed 2 -o "$tmp/d"
run "${quantize[@]}" -o "$tmp/d"
check 'the rerun resumes' test "$(field blocks_resumed "$tmp/out")" -gt 0
check 'and has the same bytes' diff -r "$tmp/a" "$tmp/d"

# The last pass over scales: killed in it, it goes on behind its last finished epoch.
scales=("${quantize[@]}" --scale-epochs 3)
run "${scales[@]}" -o "$tmp/f"
check 'a run with a pass over scales' test "$rc" -eq 0
check 'which changes the scales' test "$(cmp -s "$tmp/a/model.safetensors" "$tmp/f/model.safetensors"; echo $?)" -eq 1
check 'and leaves no work folder' test ! -e "$tmp/f.work"
killed=0
for epoch in 1 2; do
    "${scales[@]}" -o "$tmp/g" >"$tmp/g.$epoch" 2>&1 &
    pid=$!
    # The first is killed when its first epoch is stored, the second wherever it is in the next one.
    while kill -0 "$pid" 2>/dev/null; do
        if [[ $epoch -eq 1 && -e $tmp/g.work/scales.safetensors ]] ||
            { [[ $epoch -eq 2 ]] && grep -qs '"phase":"scales"' "$tmp/g.$epoch"; }; then
            break
        fi
        sleep 0.05
    done
    kill -9 "$pid" 2>/dev/null || true
    rc=0
    wait "$pid" 2>/dev/null || rc=$?
    [[ $rc -ne 137 ]] || killed=$((killed + 1))
    check "killed in the pass, time $epoch" grep -q '"phase":"scales"' "$tmp/g.$epoch"
done
check 'two runs were killed' test "$killed" -eq 2
run "${scales[@]}" -o "$tmp/g"
check 'the third finishes' test "$rc" -eq 0
check 'it went on behind the first epoch' grep -q 'continues after epoch [12]' "$tmp/err"
check 'and has the same bytes' diff -r "$tmp/f" "$tmp/g"

# Another seed means other bytes: the comparison above can fail.
run "${quantize[@]}" --seed 2 -o "$tmp/e"
check 'another seed gives other codes' test "$(cmp -s "$tmp/a/model.safetensors" "$tmp/e/model.safetensors"; echo $?)" -eq 1
done_testing
