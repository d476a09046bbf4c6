#!/usr/bin/env bash
# The command line: help, unknown names, ranges, exit codes, and that --json is JSON and nothing else.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"
make=$build/make_big_block
[[ -x $make ]] || skip "$make is not built"
"$make" "$tmp/m" --hidden 128 --intermediate 256 --heads 4 --kv 2

is_json_lines() { # FILE LAST-EVENT: every line an object with an event, the last of this kind and the only such
    python3 -c 'import json, sys
events = [json.loads(line)["event"] for line in open(sys.argv[1])]
sys.exit(not (events and events[-1] == sys.argv[2] and events.count(sys.argv[2]) == 1))' "$1" "$2"
}

# Help.
commands=(quantize eval compare inspect convert imatrix devices bench)
run "$gsq" --help
check 'gsq --help' test "$rc" -eq 0
for c in "${commands[@]}"; do
    grep -qE "^  $c " "$tmp/out" || fail "gsq --help does not name $c"
done
for c in "${commands[@]}"; do
    run "$gsq" "$c" --help
    check "gsq $c --help" test "$rc" -eq 0
    for part in '^usage: gsq ' '^Examples:'; do
        grep -q "$part" "$tmp/out" || fail "help of $c has no $part"
    done
    [[ -z $(awk 'length($0) > 110' "$tmp/out") ]] || fail "help of $c is wider than 110 columns"
    cp "$tmp/out" "$tmp/$c.help"
    run "$gsq" help "$c"
    cmp -s "$tmp/out" "$tmp/$c.help" || fail "gsq help $c differs from gsq $c --help"
done
lines=$(wc -l <"$tmp/quantize.help")
check "the short help of quantize has $lines lines" test "$lines" -le 55
run "$gsq" quantize --help all
cp "$tmp/out" "$tmp/quantize.help"
check 'the long one has every option' test "$(grep -cE '^ {2}(-.,| {3}) --' "$tmp/quantize.help")" -ge 55
[[ -z $(awk 'length($0) > 110' "$tmp/out") ]] || fail "the long help is wider than 110 columns"
run "$gsq" help quantize all
cmp -s "$tmp/out" "$tmp/quantize.help" || fail "gsq help quantize all differs from gsq quantize --help all"
for name in -V version --version; do
    run "$gsq" "$name"
    check "gsq $name" grep -qE '^gsq [0-9]+\.[0-9]+\.[0-9]+' "$tmp/out"
done
run "$gsq" --version
check "$(cat "$tmp/out")" grep -qE '^gsq [0-9]+\.[0-9]+\.[0-9]+( \((v[0-9.]+(-[0-9]+-g[0-9a-f]{7,40})?|[0-9a-f]{7,40}|files\.[0-9a-f]{8})(-dirty\.[0-9a-f]{8})?\))?$' "$tmp/out"

# Names.
expect 'no command' 2 'no command' 'gsq --help' -- "$gsq"
expect 'unknown command' 2 'unknown command quantise' 'gsq quantize' -- "$gsq" quantise
expect 'misspelt option' 2 'unknown option --grup' '--group' -- "$gsq" quantize m -o x --grup 3
expect 'swapped letters' 2 'unknown option --staeps' '--steps' -- "$gsq" quantize m -o x --staeps=3
expect 'option of another command' 2 'unknown option --method' 'quantize' -- "$gsq" eval m --text x --method rtn
expect 'nothing near' 2 'unknown option --zzzzzzzz' 'gsq eval --help' -- "$gsq" eval m --zzzzzzzz
expect 'unknown letter' 2 'unknown option -x' '.' -- "$gsq" eval m -x
expect 'missing model' 2 'needs MODEL' 'usage' -- "$gsq" quantize -o x
expect 'missing output' 2 'needs --out' 'usage' -- "$gsq" quantize m
expect 'missing reference' 2 'needs REFERENCE' 'usage' -- "$gsq" compare m --text x
expect 'missing value' 2 '--out needs a value' '--out OUT' -- "$gsq" quantize m -o
expect 'one argument too many' 2 'unexpected argument b' 'usage' -- "$gsq" inspect a b
expect 'value for a flag' 2 'takes no value' -- "$gsq" inspect a --json=1

# Options of every command in front of it, and those of some commands.
run "$gsq" --json -q inspect "$tmp/m"
check 'gsq --json -q inspect' is_json_lines "$tmp/out" result
run "$gsq" -q devices
check 'gsq -q devices' test "$rc" -eq 0
expect 'a device in front of what needs none' 2 'gsq inspect has no option --device' 'quantize, eval' -- "$gsq" --device 0 inspect m
expect 'a device for what needs none' 2 'unknown option --device' 'quantize, eval' -- "$gsq" convert m -o x --device 0
expect 'an option in front of its command' 2 'unknown option --method' 'after it: gsq COMMAND' -- "$gsq" --method rtn quantize m -o x
for c in inspect convert; do
    check "help of $c lists no device" test "$(grep -c -e '--device\|--mem-limit\|--variant\|--seed' "$tmp/$c.help")" -eq 0
done

# Values. Every option with a number refuses a word and an absurd number.
numbers=0
while read -r option arg; do
    for value in word 1e99; do
        [[ $arg == A:B ]] && value=$value:1
        run "$gsq" quantize m -o x "$option" "$value"
        if [[ $rc -ne 2 ]] || ! grep -qE "^error: .*$option" "$tmp/err"; then
            fail "$option $value: exit $rc, $(head -n 1 "$tmp/err")"
        fi
    done
    numbers=$((numbers + 1))
done < <(sed -nE 's/^ *(-., )?(--[a-z0-9-]+) (N|X|A:B|GiB|BITS)( .*)?$/\2 \3/p' "$tmp/quantize.help")
check "$numbers options with numbers check them" test "$numbers" -ge 20
expect 'bits' 2 '--bits.*"9"' 'ternary' -- "$gsq" quantize m -o x --bits 9
expect 'method' 2 '--method fast' 'rtn, gptq, gsq' -- "$gsq" quantize m -o x --method fast
expect 'format' 2 '--format awq' 'compressed-tensors' -- "$gsq" quantize m -o x --format awq
expect 'rule without bits' 2 "--tensor down: " 'down_proj=3' -- "$gsq" quantize m -o x --tensor down
expect 'rule with a bad group' 2 "--tensor" 'g64' -- "$gsq" quantize m -o x --tensor down=3,64
expect 'protocol' 2 '--protocol ollama is unknown' 'llama.cpp' -- "$gsq" eval m --text x --protocol ollama
expect 'log level' 2 'log-level' 'debug' -- "$gsq" inspect m --log-level loud
expect 'report in no folder' 2 "--report $tmp/none/r.html" 'create it' -- \
    "$gsq" quantize "$tmp/m" -o x --method rtn --report "$tmp/none/r.html"
expect 'report that is a folder' 2 'is a folder' 'name of a file' -- \
    "$gsq" quantize "$tmp/m" -o x --method rtn --report "$tmp"
expect 'no text to evaluate on' 2 "--eval $tmp/none.txt" 'text file' -- \
    "$gsq" quantize "$tmp/m" -o x --method rtn --eval "$tmp/none.txt"
echo short >"$tmp/short"
expect 'text shorter than a window' 2 "--eval: .*short" '.' -- \
    "$gsq" quantize "$tmp/m" -o x --method rtn --eval "$tmp/short" --ctx 64
{ yes 'once upon a time' 2>/dev/null || true; } | head -c 4000000 >"$tmp/late"
printf '\377\376' >>"$tmp/late"
expect 'a text with bad bytes at its end is refused before the work' 2 "--eval: .*late" '.' -- \
    "$gsq" quantize "$tmp/m" -o "$tmp/none" --method rtn --eval "$tmp/late" --ctx 64
check '  nothing was written' test ! -e "$tmp/none"
expect 'windows of nothing' 2 '--windows needs --eval' '--samples' -- \
    "$gsq" quantize "$tmp/m" -o x --method rtn --windows 3
check 'all of that before any work' test ! -e x
expect 'container without its format' 2 'container' 'gptq' -- "$gsq" quantize "$tmp/m" -o x --method rtn --container 4
# What later versions will do is refused by name.
expect 'effort' 2 '--effort better is unknown' 'balanced' -- "$gsq" quantize m -o x --effort better
expect 'gguf into a folder' 2 '--format gguf writes one file, whose name ends in .gguf; -o is x' 'x\.gguf' -- "$gsq" quantize m -o x --format gguf
expect 'a folder format into a file' 2 '--format mlx writes a folder' 'leave --format out' -- "$gsq" quantize m -o x.gguf --format mlx
expect 'type of a folder' 2 '--type Q2_K needs --format gguf, but the format is gptq' 'OUT\.gguf' -- "$gsq" quantize m -o x --type Q2_K --method rtn
expect 'unknown type' 2 '--type Q7_K is unknown' 'types: F32, .*Q2_K, Q2_K_S, Q2_0, TQ2_0, TQ1_0' -- "$gsq" quantize m -o x.gguf --type Q7_K
expect 'type and bits' 2 '--bits and --type cannot be used together' 'leave one of them out' -- "$gsq" quantize m -o x.gguf --type q2_k --bits 2 --method rtn
expect 'type that llama-quantize alone writes' 2 'IQ3_XXS \(3.06 bits per weight\) cannot be written by gsq: its values come from a codebook' 'Q2_K \(2.94' -- "$gsq" quantize m -o x.gguf --type iq3_xxs --method rtn
expect 'one of its tensor types' 2 '--tensor: IQ3_S.*codebook' 'Q3_K_S' -- "$gsq" quantize m -o x.gguf --tensor up=iq3_s
expect 'a mixture for one tensor' 2 '--tensor: Q4_K_M is a mixture' 'Q4_K' -- "$gsq" quantize m -o x.gguf --tensor up=Q4_K_M
expect 'type that is rounded to' 2 '--type Q4_1: gsq can round to Q4_1, but not learn it' 'rtn.*Q4_K_S' -- "$gsq" quantize m -o x.gguf --type Q4_1 --calib t
expect 'type as bits' 2 '--bits Q2_K is a GGUF type' '--type Q2_K -o OUT\.gguf' -- "$gsq" quantize m -o x.gguf --bits Q2_K
expect 'bits without a type' 2 '--bits: no type of GGUF stores codes of type 3' '--type: .*Q3_K_S' -- "$gsq" quantize m -o x.gguf --bits 3 --method rtn
expect 'group without a type' 2 'stores codes of type 2 in groups of 48' '--type' -- "$gsq" quantize m -o x.gguf --bits 2 --group 48 --method rtn
expect 'group of a super-block' 2 '--group: a group of 64 does not go with Q2_K, whose groups are 16' 'leave the group out' -- "$gsq" quantize m -o x.gguf --type Q2_K --group 64 --method rtn
expect 'group of a type' 2 'a group of 96 does not go with Q2_0, whose groups are multiples of 64' '.' -- "$gsq" quantize m -o x.gguf --type Q2_0 --group 96 --method rtn
expect 'tensor type in a folder' 2 "--tensor 'up=Q4_K': Q4_K is a GGUF type, but the format is gptq" "'up=4'" -- "$gsq" quantize m -o x --tensor up=Q4_K --method rtn
expect 'tensor type that is only read' 2 '--tensor: Q1_0.*gsq writes no codes of one bit' 'TQ1_0' -- "$gsq" quantize m -o x.gguf --tensor up=q1_0
expect 'tensor bits without a type' 2 "--tensor 'up=3': no type of GGUF" '--type' -- "$gsq" quantize m -o x.gguf --type Q2_0 --tensor up=3 --method rtn
expect 'group of a tensor type' 2 "--tensor 'up=F16': F16 has no groups" 'leave' -- "$gsq" quantize m -o x.gguf --type Q2_0 --tensor up=F16,g64 --method rtn

# JSON.
run "$gsq" quantize m -o x --grup 3 --json
check 'an error in JSON mode' is_json_lines "$tmp/out" error
check 'is told to people too' grep -q '^error: unknown option --grup' "$tmp/err"
run "$gsq" inspect "$tmp/m" --json
check 'inspect --json' is_json_lines "$tmp/out" result
check 'keeps stderr empty' test ! -s "$tmp/err"
check 'counts parameters' test "$(field parameters "$tmp/out")" -eq "$((256 * 128 + 128 * 128 * 2 + 64 * 128 * 2 + 256 * 128 * 3 + 3 * 128))"
run "$gsq" devices --json
check 'devices --json' is_json_lines "$tmp/out" result
run "$gsq" quantize "$tmp/m" -o "$tmp/q" --method rtn --json
check 'quantize --json' is_json_lines "$tmp/out" result
for key in out format method bits_per_weight out_bytes seconds blocks blocks_resumed device_peak_bytes host_peak_bytes device_busy_seconds reach; do
    [[ -n $(field "$key" "$tmp/out") ]] || fail "the result of quantize has no $key"
done
check 'writes the model' test -e "$tmp/q/config.json"
run "$gsq" quantize "$tmp/m" -o "$tmp/q2" --method gsq --dry-run --json
check 'a plan counts host memory' test "$(python3 -c 'import json, sys
print(next(o["host_bytes"] for o in map(json.loads, open(sys.argv[1])) if o["event"] == "plan"))' "$tmp/out")" -gt 40000000
check 'dry run --json' is_json_lines "$tmp/out" result
check 'without a text it predicts, too' python3 -c 'import json, sys
e = [json.loads(line) for line in open(sys.argv[1])]
assert [x["predicted_seconds"] > 0 for x in e if x["event"] == "plan"] == [True]' "$tmp/out"
check 'writes nothing' test ! -e "$tmp/q2"
run "$gsq" quantize "$tmp/m" -o "$tmp/q2" --method gsq --dry-run
check 'dry run for people' grep -q 'device memory' "$tmp/out"
check 'and says where the text comes from' grep -q '^ *written by the model' "$tmp/out"
run "$gsq" quantize "$tmp/m" -o "$tmp/q3" --method rtn -q
check '-q is quiet on stderr' test ! -s "$tmp/err"
run "$gsq" inspect "$tmp/q3"
check 'inspect of a quantized folder' grep -q '^quantized .*gptq' "$tmp/out"
seq 1 400 >"$tmp/text"
run "$gsq" eval "$tmp/q3" --text "$tmp/text" --ctx 64 --windows 2 --json
check 'eval --json' is_json_lines "$tmp/out" result
for key in perplexity tokens windows ctx protocol token_hash seconds model device; do
    [[ -n $(field "$key" "$tmp/out") ]] || fail "the result of eval has no $key"
done
run "$gsq" eval "$tmp/q3" --text "$tmp/text" --ctx 64 --windows 2 --json --protocol llama.cpp
check 'eval --protocol llama.cpp' test "$(field protocol "$tmp/out") $(field scored "$tmp/out")" = 'llama.cpp 62'
run "$gsq" compare "$tmp/q3" "$tmp/m" --text "$tmp/text" --ctx 64 --windows 2 --json
check 'compare --json' is_json_lines "$tmp/out" result
cp "$tmp/out" "$tmp/compared"
for key in mean_kl top1_agreement perplexity reference_perplexity; do
    [[ -n $(field "$key" "$tmp/out") ]] || fail "the result of compare has no $key"
done
run "$gsq" quantize "$tmp/m" -o "$tmp/q4" --method rtn --json --eval "$tmp/text" --ctx 64 --windows 2 --report "$tmp/r.html"
check 'quantize --eval --report' is_json_lines "$tmp/out" result
for key in mean_kl top1_agreement perplexity reference_perplexity; do
    want=$(field "$key" "$tmp/compared")
    check "evaluates as gsq compare does: $key" within "$(field "$key" "$tmp/out")" "$want" 1e-6
done
check 'the report is a page' grep -q '</html>' "$tmp/r.html"
check 'of this run' test "$(page_field "$tmp/r.html" result out)" = "$tmp/q4"
cp "$tmp/r.html" "$tmp/first.html"
# Its command line repeats the run, odd characters and all.
mkdir "$tmp/it's <odd> & \$HOME"
run "$gsq" quantize "$tmp/m" -o "$tmp/it's <odd> & \$HOME/q" --method rtn --report "$tmp/r.html"
line=$(page_field "$tmp/r.html" command_line)
rm -r "$tmp/it's <odd> & \$HOME/q" "$tmp/r.html"
run bash -c "$line"
check "the report's command line runs: $line" test -e "$tmp/it's <odd> & \$HOME/q/config.json" -a -e "$tmp/r.html"
run "$gsq" eval "$tmp/m" --text "$tmp/text" --ctx 64 --windows 2
check "an error bar: $(head -n 1 "$tmp/out")" grep -qE '^perplexity +[0-9.]+ \+/- [0-9.]+$' "$tmp/out"
# A reader that goes away is an error, not a silent success.
rc=0
"$gsq" inspect "$tmp/m" >/dev/full 2>"$tmp/err" || rc=$?
check 'stdout that cannot be written' test "$rc" -eq 3
run "$gsq" quantize "$tmp/m" -o "$tmp/q3" --method rtn --mem-limit 1000000 --dry-run
check "a limit beyond the machine: $(grep -m1 mem-limit "$tmp/err")" grep -q '^warning: --mem-limit .* is more than the .* are used' "$tmp/err"
run "$gsq" quantize "$tmp/m" -o "$tmp/q3" --method rtn --mem-limit 0.5 --dry-run
check 'one within it is taken as it is' grep -q 'device memory .* of 512 MiB' "$tmp/out"
done_testing
