#!/usr/bin/env bash
# Where results may go: never onto an input, never without --force onto what somebody else wrote, never through links
# or into devices; and what killed runs left half written goes.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
quantize=("$gsq" quantize -q --method rtn)
m=$tmp/model
cp -r "$demo" "$m"
sums() { find "$1" -type f -exec sha256sum {} + | sort; }
before=$(sums "$m")

# Inputs, under any name.
ln "$m/calib.txt" "$tmp/hard.gguf"
cp "$m/calib.txt" "$tmp/text.gguf"
expect 'the report onto a file of the model' 2 'config.json would overwrite an input' 'never overwritten' -- \
    "${quantize[@]}" "$m" -o "$tmp/o" --report "$m/config.json" --force
expect 'the report onto the text of --eval' 2 'eval.txt would overwrite an input' -- \
    "${quantize[@]}" "$m" -o "$tmp/o" --eval "$m/eval.txt" --report "$tmp/../$(basename "$tmp")/model/eval.txt" --force
expect 'the report onto a file of the result' 2 'in the folder of the result' 'ends in .html' -- \
    "${quantize[@]}" "$m" -o "$tmp/o" --report "$tmp/o/config.json"
expect 'an importance matrix onto its text' 2 'would overwrite an input' 'never overwritten' -- \
    "$gsq" imatrix "$m" --calib "$tmp/text.gguf" -o "$tmp/text.gguf" --ctx 64 --force
expect 'a GGUF onto a hard link of a text' 2 'would overwrite an input' -- "$gsq" quantize -q "$m" -o "$tmp/hard.gguf" \
    --effort fast --ctx 64 --samples 4 --calib "$m/calib.txt" --type Q4_0 --force
expect 'a folder onto the model' 2 "would overwrite an input|is the model's own folder" -- "${quantize[@]}" "$m" -o "$m/" --force
expect 'the work folder is the model' 2 'would overwrite an input' -- "${quantize[@]}" "$m" -o "$tmp/o" --work "$m/."
cp -r "$m" "$tmp/mine"
mkdir "$tmp/mine/additional_chat_templates"
echo '{{ x }}' >"$tmp/mine/additional_chat_templates/x.jinja"
expect 'the report onto a named chat template' 2 'x.jinja would overwrite an input' -- "${quantize[@]}" "$tmp/mine" -o "$tmp/o" \
    --report "$tmp/mine/additional_chat_templates/x.jinja" --force
for seed in 1 2; do
    run "${quantize[@]}" "$tmp/mine" -o "$tmp/mine/result" --seed "$seed"
    check "a result in a folder in the model's, seed $seed: exit $rc" test "$rc" -eq 0
done
echo 'attn_v=q8_0' >"$tmp/types.gguf"
cp "$tmp/types.gguf" "$tmp/types"
expect 'the report onto a list of types' 2 'types.gguf would overwrite an input' 'never overwritten' -- "${quantize[@]}" "$m" -o \
    "$tmp/o.gguf" --type Q4_0 --tensor-type-file "$tmp/types.gguf" --report "$tmp/./types.gguf" --force
expect 'a GGUF onto a list of types' 2 'types.gguf would overwrite an input' -- \
    "${quantize[@]}" "$m" -o "$tmp/types.gguf" --type Q4_0 --tensor-type-file "$tmp/types.gguf" --force
expect 'a copy onto a text that it does not read' 2 'text.gguf would overwrite an input' -- \
    "$gsq" quantize -q "$m" -o "$tmp/text.gguf" --type F16 --calib "$tmp/text.gguf" --force
check 'both are as they were' test "$(cat "$tmp/types.gguf")" = "$(cat "$tmp/types")" -a \
    "$(cat "$tmp/text.gguf")" = "$(cat "$m/calib.txt")"
run "$gsq" convert -q "$m" -o "$tmp/own.gguf" --type F16
expect 'a GGUF onto itself' 2 'would overwrite an input|is the model itself' -- \
    "${quantize[@]}" "$tmp/own.gguf" -o "$tmp/../$(basename "$tmp")/own.gguf" --type Q8_0 --force
check 'the model is as it was' test "$(sums "$m")" = "$before"

# What somebody else wrote.
head -c 5000 /dev/urandom >"$tmp/theirs.gguf"
printf '<html>mine</html>' >"$tmp/theirs.html"
mkdir "$tmp/theirs"
cp "$m/config.json" "$m/model.safetensors" "$tmp/theirs"
theirs=$(sha256sum "$tmp/theirs.gguf" "$tmp/theirs.html" "$tmp/theirs/"*)
while read -r -a a; do
    expect "onto somebody's: ${a[0]} ${a[1]##*/}" 2 'gsq did not write' '--force' -- "$gsq" "${a[0]}" -q "$m" "${a[@]:1}"
done <<END
quantize -o $tmp/theirs.gguf --method rtn
quantize -o $tmp/theirs --method rtn
convert -o $tmp/theirs.gguf
convert -o $tmp/theirs --format hf
imatrix -o $tmp/theirs.gguf --calib $m/calib.txt --ctx 64 --samples 2
quantize --report $tmp/theirs.html -o $tmp/o --method rtn
END
check 'nothing of it changed' test "$(sha256sum "$tmp/theirs.gguf" "$tmp/theirs.html" "$tmp/theirs/"*)" = "$theirs"
check 'nor was anything left' test -z "$(find "$tmp" -name '*.gsq-*')"
for f in theirs.gguf theirs; do
    run "${quantize[@]}" "$m" -o "$tmp/$f" --force
    check "--force writes $f: exit $rc" test "$rc" -eq 0
    run "${quantize[@]}" "$m" -o "$tmp/$f" --seed 2
    check '  and then it is of gsq: written again without' test "$rc" -eq 0
done
# An earlier result makes way for another in one line; the same command of quantize finds its own.
while read -r -a a; do
    run "$gsq" "${a[0]}" "$m" "${a[@]:1}"
    check "${a[*]:0:3}: exit $rc, nothing was there" test "$rc" -eq 0 -a -z "$(grep 'which is replaced' "$tmp/err")"
    run "$gsq" "${a[0]}" "$m" "${a[@]:1}" --quiet
    check '  and once more, quietly' test "$rc" -eq 0 -a ! -s "$tmp/err"
    run "$gsq" "${a[0]}" "$m" "${a[@]:1}" --bits 3
    [[ ${a[0]} = quantize ]] || run "$gsq" "${a[0]}" "$m" "${a[@]:1}"
    check "  and aloud: exit $rc" test "$rc" -eq 0 -a "$(grep -c "${a[2]} holds .*, which is replaced" "$tmp/err")" -eq 1
done <<END
convert -o $tmp/twice.gguf
convert -o $tmp/twice --format hf
imatrix -o $tmp/matrix.gguf --calib $m/calib.txt --ctx 64 --samples 2
quantize -o $tmp/twice-q --method rtn
END
head -c 5000 /dev/urandom >"$tmp/copy.gguf"
expect "a copy onto somebody's" 2 'gsq did not write' '--force' -- "$gsq" quantize "$m" "$tmp/copy.gguf" F16
run "$gsq" quantize "$m" "$tmp/copy.gguf" F16 --force
check '--force writes it' test "$rc $(head -c 4 "$tmp/copy.gguf")" = '0 GGUF'
check '  as a GGUF' test "$(head -c 4 "$tmp/theirs.gguf")" = GGUF

# Links, devices, pipes.
echo keep >"$tmp/target"
ln -s target "$tmp/link.gguf"
ln -s nowhere "$tmp/dangling.gguf"
mkdir "$tmp/real"
ln -s real "$tmp/linked"
mkfifo "$tmp/pipe.gguf"
mknod "$tmp/null.gguf" c 1 3 2>/dev/null || echo 'left out: a device of our own (no permission)'
while read -r path want; do
    [[ -e $path || -L $path ]] || continue
    expect "-o ${path##*/}" 2 "$want" -- timeout 20 "${quantize[@]}" "$m" -o "$path" --force
done <<END
$tmp/link.gguf is a link
$tmp/dangling.gguf is a link
$tmp/linked is a link
$tmp/pipe.gguf is a device or a pipe
$tmp/null.gguf is a device or a pipe
/dev/null is a device or a pipe
END
expect '--report to a device' 2 'is a device or a pipe' -- "${quantize[@]}" "$m" -o "$tmp/o" --report /dev/null
check 'all are what they were' test "$(cat "$tmp/target")" = keep -a -L "$tmp/link.gguf" -a ! -e "$tmp/nowhere" \
    -a -p "$tmp/pipe.gguf" -a -c /dev/null -a -z "$(ls "$tmp/real")"

# Half-written files of a process that is gone go; what a link with such a name leads to does not change.
mkdir "$tmp/stale"
: >"$tmp/stale/x.gguf.4194304-1.gsq-tmp"
: >"$tmp/stale/y.gguf.4194304-1.gsq-tmp"
ln -s ../target "$tmp/stale/x.gguf.4194305-1.gsq-tmp"
run "${quantize[@]}" "$m" -o "$tmp/stale/x.gguf"
check "temporary names of others: exit $rc" test "$rc" -eq 0
check '  what is left of this output goes, of another stays' test "$(cd "$tmp/stale" && echo *4194304*)" = y.gguf.4194304-1.gsq-tmp
check '  a link leads where it led' test "$(cat "$tmp/target")" = keep

# Names.
run "${quantize[@]}" "$m" -o "$tmp/BIG.GGUF"
check "-o BIG.GGUF is a file: exit $rc" test "$rc" -eq 0 -a -f "$tmp/BIG.GGUF"
check '  and has the right bytes' cmp -s "$tmp/BIG.GGUF" "$tmp/stale/x.gguf"
run "${quantize[@]}" "$m" -o "$tmp/slash//" --keep-work
check "-o slash// keeps its work beside it: exit $rc" test "$rc" -eq 0 -a -d "$tmp/slash.work" -a ! -e "$tmp/slash/.work"
run "${quantize[@]}" "$m" -o "$tmp/slash"
check "  and the same command again leaves it: exit $rc" test "$rc" -eq 0 -a -d "$tmp/slash.work"
run "${quantize[@]}" "$m" -o "$tmp/slash2/." --keep-work
check "-o slash2/. too: exit $rc" test "$rc" -eq 0 -a -d "$tmp/slash2.work"
mkdir "$tmp/here"
(cd "$tmp/here" && run "${quantize[@]}" "$m" -o . --keep-work && echo "$rc" >"$tmp/rc")
check "-o . too: exit $(cat "$tmp/rc")" test "$(cat "$tmp/rc")" -eq 0 -a -d "$tmp/here.work" -a -e "$tmp/here/config.json"

# Links in a model's folder: to files of it and of their name they are followed, to others they are left out.
l=$tmp/links
cp -r "$m" "$l"
echo secret >"$tmp/secret"
mkdir "$tmp/lent"
mv "$l/generation_config.json" "$tmp/lent"
ln -s ../lent/generation_config.json "$l/generation_config.json"
ln -s ../secret "$l/added_tokens.json"
ln -s tokenizer.json "$l/tokenizer_alias.json"
for format in gptq hf; do
    rm -rf "$tmp/o"
    if [[ $format = hf ]]; then
        run "$gsq" convert "$l" -o "$tmp/o" --format hf
    else
        run "${quantize[@]}" "$l" -o "$tmp/o"
    fi
    check "$format of a folder with links: exit $rc" test "$rc" -eq 0
    check '  no file of another place is in it' test ! -e "$tmp/o/added_tokens.json"
    check '  its own are' cmp -s "$l/tokenizer.json" "$tmp/o/tokenizer_alias.json"
    check '  and a lent one' cmp -s "$tmp/lent/generation_config.json" "$tmp/o/generation_config.json"
done
check '  which is said' grep -q 'added_tokens.json is left out: it is a link to .*secret' "$tmp/err"

# Two file systems: each is asked for what comes onto it.
mkdir "$tmp/mnt"
if mount -t tmpfs -o size=700k gsq-test "$tmp/mnt" 2>/dev/null; then
    mounts+=("$tmp/mnt")
    rm -rf "$tmp/o" "$tmp/o.work"
    run "${quantize[@]}" "$m" -o "$tmp/o" --work "$tmp/mnt/work" --format gptq
    check "a small disk holds the work of a large one: exit $rc" test "$rc" -eq 0
    mount -o remount,size=64k "$tmp/mnt"
    expect 'the disk of the work folder' 3 'are needed for the work folder .*mnt/work,' '--work' -- \
        "${quantize[@]}" "$m" -o "$tmp/o" --work "$tmp/mnt/work" --seed 2
    expect 'the disk of the output' 3 'are needed for the output .*mnt/o,' '-o' -- \
        "${quantize[@]}" "$m" -o "$tmp/mnt/o" --work "$tmp/work"
    expect 'a conversion asks too' 3 'are needed for the output .*mnt/c.gguf,' '-o' -- "$gsq" convert "$m" -o "$tmp/mnt/c.gguf"
    expect '  and to a folder' 3 'are needed for the output .*mnt/c,' '-o' -- \
        "$gsq" convert "$m" -o "$tmp/mnt/c" --format hf
    check '  nothing was written' test -z "$(find "$tmp/mnt" -name 'c*')"
    mount -o remount,size=8k "$tmp/mnt"
    head -c 4096 /dev/zero >"$tmp/mnt/full"
    expect 'a matrix asks before the work' 3 'are needed for the output .*mnt/i.gguf, 4.00 KiB are free' '-o' -- \
        "$gsq" imatrix "$m" --calib "$m/calib.txt" --ctx 64 -o "$tmp/mnt/i.gguf"
    head -c 8192 /dev/zero >"$tmp/mnt/full" 2>/dev/null || true
    expect '  and of a disk without a byte' 3 'are needed for the output .*mnt/i.gguf, 0 B are free' '-o' -- \
        "$gsq" imatrix "$m" --calib "$m/calib.txt" --ctx 64 -o "$tmp/mnt/i.gguf"
    expect '  a report too' 3 'are needed for the report .*mnt/r.html, 0 B are free' '--report' -- \
        "${quantize[@]}" "$m" -o "$tmp/late" --report "$tmp/mnt/r.html"
    check '  nothing was written' test ! -e "$tmp/late" -a "$(ls "$tmp/mnt")" = full
else
    echo 'left out: two file systems (no permission to mount a tmpfs)'
fi
done_testing
