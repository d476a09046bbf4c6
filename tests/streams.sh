#!/usr/bin/env bash
# Streams that are closed, pipes nobody reads, signals, limits, and inputs that are no files or do not last.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"
make=$build/make_big_block
[[ -x $make ]] || skip "$make is not built"

# A closed stream: the next file that is opened must not become it.
"$gsq" convert "$demo" -o "$tmp/want.gguf" --type F16 >/dev/null 2>&1
for closed in 0 1 2 01 02 12 012; do
    rc=0
    (
        [[ $closed != *0* ]] || exec 0<&-
        [[ $closed != *1* ]] || exec 1>&-
        [[ $closed != *2* ]] || exec 2>&-
        exec "$gsq" convert "$demo" -o "$tmp/closed.gguf" --type F16
    ) >/dev/null 2>&1 || rc=$?
    check "streams $closed closed: exit $rc, the right bytes" cmp "$tmp/want.gguf" "$tmp/closed.gguf"
    [[ $rc -eq 0 ]] || fail "streams $closed closed: exit $rc"
    rm -f "$tmp/closed.gguf"
done
rc=0
"$gsq" quantize "$demo" -o "$tmp/q" --method rtn 0<&- 1>&- 2>&- || rc=$?
check "a folder with all three closed: exit $rc" test "$rc" -eq 0 -a -e "$tmp/q/config.json"
"$gsq" quantize "$demo" -o "$tmp/q2" --method rtn >/dev/null 2>&1
check 'has the right bytes' diff -r "$tmp/q" "$tmp/q2"

# A result that cannot be printed is an error.
if [[ -c /dev/full ]]; then
    rc=0
    "$gsq" inspect "$demo" >/dev/full 2>"$tmp/err" || rc=$?
    check "a full standard output: exit $rc, $(head -n 1 "$tmp/err")" test "$rc" -eq 3
fi

# A closed pipe ends the program at once.
(
    trap - PIPE
    rc=0
    "$gsq" bench --json 2>/dev/null || rc=$?
    echo "$rc" >"$tmp/pipe.rc"
) | head -n 1 >/dev/null
check "a closed pipe: exit $(cat "$tmp/pipe.rc")" test "$(cat "$tmp/pipe.rc")" -eq 141

# Signals: within a second, with an exit code that says which.
now() { date +%s%N; }
while read -r name want; do
    "$gsq" bench --json >"$tmp/out" 2>"$tmp/err" &
    pid=$!
    sleep 1
    t0=$(now)
    kill "-$name" "$pid"
    rc=0
    wait "$pid" || rc=$?
    ms=$((($(now) - t0) / 1000000))
    check "SIG$name in bench: exit $rc after $ms ms" test "$rc" -eq "$want" -a "$ms" -lt 3000
    check '  and says so' test "$(tail -n 1 "$tmp/err")" = stopped
    check '  to programs too' test "$(python3 -c 'import json, sys
e = [json.loads(x) for x in open(sys.argv[1])][-1]
print(e["event"], e["kind"], e["exit"])' "$tmp/out")" = "error stopped $want"
done <<<'INT 130
TERM 143
HUP 129'
nohup "$gsq" bench --json >"$tmp/out" 2>&1 &
pid=$!
sleep 1
kill -HUP "$pid"
sleep 1
check 'nohup goes on' kill -0 "$pid"
kill -TERM "$pid"
wait "$pid" || true

# A limit on the size of files.
(
    ulimit -f 100
    run "$gsq" convert "$demo" -o "$tmp/limit.gguf" --type F16
    check "a file past ulimit -f: exit $rc, $(head -n 1 "$tmp/err")" test "$rc" -eq 3
    check '  and its hint' grep -q '^hint: .*ulimit' "$tmp/err"
    check '  leaves nothing' test -z "$(find "$tmp" -name 'limit.gguf*')"
    [[ $bad -eq 0 ]]
) || fail 'a file past ulimit -f'

# Pipes under the names of files.
mkfifo "$tmp/pipe.gguf"
expect 'a pipe as a model' 2 'pipe.gguf is neither' -- timeout 20 "$gsq" inspect "$tmp/pipe.gguf"
expect 'a pipe as a text' 2 'pipe.gguf is not a regular file' -- timeout 20 "$gsq" eval "$demo" --text "$tmp/pipe.gguf"
for name in config.json tokenizer.json tokenizer_config.json model.safetensors model.safetensors.index.json; do
    rm -rf "$tmp/pipes"
    cp -r "$demo" "$tmp/pipes"
    rm -f "$tmp/pipes/$name"
    mkfifo "$tmp/pipes/$name"
    run timeout 20 "$gsq" eval "$tmp/pipes" --text "$demo/eval.txt" --ctx 64 --windows 1
    # Where another file can stand in for it, it does.
    check "a pipe as $name: exit $rc, $(grep -m1 ^error "$tmp/err")" test "$rc" -eq 2 -o "$rc" -eq 0
done
pipe() { # NAME MESSAGE COMMAND...: the model in $tmp/pipes is refused for the file of that name.
    local name=$1 want=${2:-is not a regular file}
    shift 2
    rm -rf "$tmp/piped"
    expect "$name ${want#is }: gsq $1" 2 "pipes/$name $want" -- timeout 20 "$gsq" "$@"
}
for name in model.safetensors model.safetensors.index.json; do
    rm -rf "$tmp/pipes"
    cp -r "$demo" "$tmp/pipes"
    rm -f "$tmp/pipes/$name"
    mkfifo "$tmp/pipes/$name"
    pipe "$name" '' inspect "$tmp/pipes"
done
for name in tokenizer.json generation_config.json chat_template.jinja additional_chat_templates/x.jinja; do
    rm -rf "$tmp/pipes"
    cp -r "$demo" "$tmp/pipes"
    mkdir -p "$tmp/pipes/additional_chat_templates"
    rm -f "$tmp/pipes/$name"
    mkfifo "$tmp/pipes/$name"
    pipe "$name" '' quantize -q "$tmp/pipes" -o "$tmp/piped" --method rtn
    pipe "$name" '' quantize -q "$tmp/pipes" -o "$tmp/piped.gguf" --method rtn
    pipe "$name" '' convert "$tmp/pipes" -o "$tmp/piped" --format hf
    pipe "$name" '' convert "$tmp/pipes" -o "$tmp/piped.gguf"
    check '  nothing was written' test ! -e "$tmp/piped" -a ! -e "$tmp/piped.gguf"
    rm "$tmp/pipes/$name"
    ln -s nowhere "$tmp/pipes/$name"
    pipe "$name" 'is a broken link' quantize -q "$tmp/pipes" -o "$tmp/piped" --method rtn
done
rm -rf "$tmp/pipes"
cp -r "$demo" "$tmp/pipes"
rm "$tmp/pipes/model.safetensors"
ln -s nowhere "$tmp/pipes/model.safetensors"
pipe model.safetensors 'is a broken link' inspect "$tmp/pipes"

# A model that is cut short while it is read.
"$make" "$tmp/m" --hidden 128 --intermediate 256 --heads 4 --kv 2 --layers 12
"$gsq" quantize "$tmp/m" -o "$tmp/cut" --method gsq --effort fast --calib "$demo/calib.txt" --samples 8 --ctx 64 --steps 100 --json \
    >"$tmp/out" 2>"$tmp/err" &
pid=$!
for ((i = 0; i < 600; i++)); do
    ! grep -qs '"event":"linear"' "$tmp/out" || break
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
done
cp "$tmp/m/model.safetensors" "$tmp/whole"
truncate -s 20000 "$tmp/m/model.safetensors"
rc=0
wait "$pid" || rc=$?
check "a model cut short: exit $rc, $(grep -m1 ^error "$tmp/err")" test "$rc" -eq 3
check '  names the file' grep -q "^error: $tmp/m/model.safetensors was cut short" "$tmp/err"
check '  to programs too' python3 -c 'import json, sys
e = [json.loads(x) for x in open(sys.argv[1])][-1]
sys.exit(not (e["event"] == "error" and e["exit"] == 3 and "model.safetensors was cut" in e["message"]))' "$tmp/out"
cat "$tmp/whole" >"$tmp/m/model.safetensors"
done_testing
