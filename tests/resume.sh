#!/usr/bin/env bash
# A run that is interrupted ends in the same bytes as one that is not: at every point of its life, by a stop and by kill -9,
# for a folder and for a GGUF; and at a random moment, and by Ctrl-C. host/base/stop_point.h names the points.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"
make=$build/make_big_block
[[ -x $make ]] || skip "$make is not built"

"$make" "$tmp/model" --hidden 256 --intermediate 256 --heads 4 --kv 2 --layers 2
options=(--method gsq --calib "$demo/calib.txt" --samples 16 --ctx 64 --steps 24 --epochs 2 --batch 4 --scale-epochs 3 --json)
quantize=("$gsq" quantize "$tmp/model" "${options[@]}")
folder=(--bits 2 --group 64) gguf=(--type Q2_K)

run "${quantize[@]}" "${folder[@]}" -o "$tmp/a"
check 'an undisturbed run' test "$rc" -eq 0
[[ $rc -eq 0 ]] || { cat "$tmp/err"; done_testing; }
seconds=$(field seconds "$tmp/out")
check 'leaves no work folder' test ! -e "$tmp/a.work"
run "${quantize[@]}" "${gguf[@]}" -o "$tmp/a.gguf"
check 'one of a GGUF' test "$rc" -eq 0
run "${quantize[@]}" "${folder[@]}" --scale-epochs 0 -o "$tmp/s"
check 'the pass over scales changes the scales' test "$(cmp -s "$tmp/a/model.safetensors" "$tmp/s/model.safetensors"; echo $?)" -eq 1

# at HOW POINT OUT OPTION...: the run with this output, interrupted there; what it says into $tmp/err.
at() {
    local how=$1 point=$2 out=$3
    shift 3
    rc=0 # a shell of its own, whose word on the killed goes into the file too
    (GSQ_STOP_AT=$how:$point "${quantize[@]}" "$@" -o "$out" || exit) >"$tmp/out" 2>"$tmp/err" </dev/null || rc=$?
}
reached() { # POINT RC...: it was, and the exit code is one of these.
    local point=$1
    shift
    if grep -q "GSQ_STOP_AT: ${point%%:*}" "$tmp/err" && [[ " $* " == *" $rc "* ]]; then
        ok "$name, $point: exit $rc"
    else
        fail "$name, $point: exit $rc, $(tail -n 2 "$tmp/err" | tr '\n' ' ')"
    fi
}
# the_same OUT WANT: rerun, the result is there and is that of the undisturbed run.
the_same() {
    run "${quantize[@]}" "${@:3}" -o "$1"
    check "$name: the last run ends" test "$rc" -eq 0
    check "$name: the same bytes" diff -r "$2" "$1"
    check "$name: no work folder is left" test ! -e "$1.work"
}

# One run after the other, each on what the one before left; validation has watched the undisturbed ones.
export GSQ_VALIDATE=0
points=(check:2 manifest linear:3 step:5 half block linear:2 block scales:3 epoch export tensor:2)
for kind in folder gguf; do
    if [[ $kind == folder ]]; then
        end='' last=config.json of=("${folder[@]}")
    else
        end=.gguf of=("${gguf[@]}")
    fi
    # By kill -9, and on to the work folder's last file.
    name="$kind, kill" out=$tmp/k$end
    if [[ $kind == folder ]]; then whole=$out/$last; else whole=$out last=k.gguf; fi
    for point in rename:manifest.json "${points[@]}" "rename:$last"; do
        at kill "$point" "$out" "${of[@]}"
        reached "$point" 137
    done
    check "$name: no whole result before it has its name" test ! -e "$whole"
    for point in finished remove:2; do
        at kill "$point" "$out" "${of[@]}"
        reached "$point" 137
        check "$name, $point: the result is there, and the work folder" test -e "$out" -a -e "$out.work/manifest.json"
    done
    the_same "$out" "$tmp/a$end" "${of[@]}"
    check "$name: nothing was left to do" test "$(field finished_before "$tmp/out")" = True

    # Politely. Behind the last look at the flag a run ends by itself.
    name="$kind, stop" out=$tmp/p$end
    if [[ $kind == folder ]]; then whole=$out/$last; else whole=$out last=p.gguf; fi
    for point in "${points[@]}"; do
        at stop "$point" "$out" "${of[@]}"
        reached "$point" 130
    done
    check "$name: it says how to go on" grep -q 'stopped at a safe point; rerun the same command to resume' "$tmp/err"
    check "$name: no result yet" test ! -e "$whole"
    for point in "rename:$last" finished; do
        at stop "$point" "$out" "${of[@]}" --keep-work
        reached "$point" 0 130
        rm -rf "$out"
    done
    at stop remove "$out" "${of[@]}"
    reached remove 0 130
    the_same "$out" "$tmp/a$end" "${of[@]}"
done

# With Hessians of outputs, which are found before the first block.
name='outputs' out=$tmp/o
outputs=(--effort fast --samples 16 --ctx 64 --steps 24 --epochs 0 --scale-epochs 0 --output-hessian on)
run "${quantize[@]}" "${folder[@]}" "${outputs[@]}" -o "$tmp/ao"
check "$name: an undisturbed run" test "$rc" -eq 0
for point in outputs:2 linear:3 block; do
    at kill "$point" "$out" "${folder[@]}" "${outputs[@]}"
    reached "$point" 137
done
check "$name: they are in the work folder" test -e "$out.work/outputs-0000.safetensors" -a -e "$out.work/outputs-0001.safetensors"
printf x | dd of="$out.work/outputs-0001.safetensors" bs=1 seek=4000 conv=notrunc status=none
the_same "$out" "$tmp/ao" "${folder[@]}" "${outputs[@]}"
check "$name: a damaged file is made again: $(grep outputs-0001 "$tmp/err" | head -n 1)" grep -q 'outputs-0001.*made again' "$tmp/err"
check "$name: they count" test "$(cmp -s "$tmp/ao/model.safetensors" "$tmp/s/model.safetensors"; echo $?)" -eq 1

# At a random moment.
name='a random moment'
pause=$(awk -v t="$seconds" -v r="$RANDOM" 'BEGIN { printf "%.2f", t * r / 32767 }')
"${quantize[@]}" "${folder[@]}" -o "$tmp/c" >"$tmp/c.out" 2>&1 &
pid=$!
sleep "$pause"
kill -9 "$pid" 2>/dev/null || true
rc=0
wait "$pid" 2>/dev/null || rc=$?
echo "kill -9 after $pause of $seconds s: exit $rc, phase $(sed -nE 's/.*"phase":"([a-z]+)".*/\1/p' "$tmp/c.out" | tail -n 1)"
the_same "$tmp/c" "$tmp/a" "${folder[@]}"

# A block that cannot be written, while the next one is worked on: it ends the run, and what was there is kept.
name='no room for a block'
small=("${folder[@]}" --output-hessian off) # of which only blocks are written
mkdir "$tmp/mnt"
if mount -t tmpfs -o size=1m gsq-test "$tmp/mnt" 2>/dev/null; then
    mounts+=("$tmp/mnt")
    at stop block "$tmp/f" "${small[@]}" --work "$tmp/mnt/work"
    reached block 130
    check "$name: the first one is there" test -e "$tmp/mnt/work/block-0000.safetensors"
    cp "$tmp/mnt/work/block-0000.safetensors" "$tmp/block"
    # The room is gone after the plan has asked for it.
    "${quantize[@]}" "${small[@]}" --work "$tmp/mnt/work" -o "$tmp/f" >"$tmp/out" 2>"$tmp/err" &
    pid=$!
    while kill -0 "$pid" 2>/dev/null && ! grep -q '"phase":"quantize".*block 2/2' "$tmp/out"; do sleep 0.02; done
    head -c 2000000 /dev/zero >"$tmp/mnt/filler" 2>/dev/null || true
    rc=0
    wait "$pid" || rc=$?
    check "$name: exit $rc, $(tail -n 2 "$tmp/err" | head -n 1)" test "$rc" -eq 3
    check '  names block and file' grep -q 'model.layers.1: cannot write .*block-0001.safetensors: No space left' "$tmp/err"
    check '  and how to go on' grep -q 'free some space' "$tmp/err"
    check '  the first one is as it was' cmp -s "$tmp/mnt/work/block-0000.safetensors" "$tmp/block"
    rm "$tmp/mnt/filler"
    run "${quantize[@]}" "${small[@]}" -o "$tmp/as"
    the_same "$tmp/f" "$tmp/as" "${small[@]}" --work "$tmp/mnt/work"
else
    echo 'left out: a full disk (no permission to mount a tmpfs)'
fi

# Ctrl-C, when the first block is there.
name=Ctrl-C
"${quantize[@]}" "${folder[@]}" -o "$tmp/d" >"$tmp/d.out" 2>"$tmp/d.err" &
pid=$!
while [[ ! -e $tmp/d.work/block-0000.safetensors ]] && kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
kill -INT "$pid"
rc=0
wait "$pid" || rc=$?
check "Ctrl-C: exit code $rc" test "$rc" -eq 130
check "says: $(grep stopped "$tmp/d.err" || true)" grep -q 'stopped at a safe point; rerun the same command to resume' "$tmp/d.err"
check 'no model yet' test ! -e "$tmp/d/config.json"
expect 'another seed is refused' 2 'seed' '.' -- "${quantize[@]}" "${folder[@]}" --seed 2 -o "$tmp/d"
run "${quantize[@]}" "${folder[@]}" -o "$tmp/d"
check "the rerun resumes: $(field blocks_resumed "$tmp/out") blocks were there" test "$(field blocks_resumed "$tmp/out")" -gt 0
check 'and has the same bytes' diff -r "$tmp/a" "$tmp/d"

# Another seed means other bytes: the comparisons above can fail.
run "${quantize[@]}" "${folder[@]}" --seed 2 -o "$tmp/e"
check 'another seed gives other codes' test "$(cmp -s "$tmp/a/model.safetensors" "$tmp/e/model.safetensors"; echo $?)" -eq 1
done_testing
