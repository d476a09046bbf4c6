#!/usr/bin/env bash
# Types for a size: what is asked for is what comes, the printed rules give the same bytes, what was measured is not measured again,
# and what cannot be reached is refused before any work.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
m=$shared/models/stories260K
[[ -d $m ]] || skip "no $m"
text=$shared/text/tinystories-calib.txt
options=(--calib "$text" --ctx 64 --samples 16 --method gptq)
quantize=("$gsq" quantize -q "$m" "${options[@]}")

# choice FILE: what the plan in a run's JSON lines chose, as options, one a line.
choice() {
    python3 -c 'import json, sys
for line in open(sys.argv[1]):
    o = json.loads(line)
    if o["event"] == "plan":
        c = o["choice"]
for name in "type", "bits":
    if name in c:
        print("--" + name + "\n" + c[name])
for rule in c["tensor"]:
    print("--tensor\n" + rule)' "$1"
}
size() { stat -c %s "$1"; }

# ---- refused
out=$tmp/o.gguf
expect 'more bits than there are' 2 'bits per weight cannot be reached: with the largest' 'from .* to .* is possible' -- \
    "${quantize[@]}" -o "$out" --bpw 12
expect 'fewer' 2 'bits per weight cannot be reached: with the smallest' -- "${quantize[@]}" -o "$out" --bpw 1 --dry-run
expect 'a size that is too small' 2 'a size of 10.0 KiB cannot be reached' 'to [0-9]+ bytes' -- "${quantize[@]}" -o "$out" --size 10KiB --dry-run
expect 'two sizes' 2 'each say how large' -- "${quantize[@]}" -o "$out" --bpw 4 --size 1MiB
expect 'a type beside a size' 2 '--type cannot be used' -- "${quantize[@]}" -o "$out" --bpw 4 --type Q4_0
expect 'bits beside a size' 2 '--bits cannot be used' -- "${quantize[@]}" -o "$tmp/o" --bpw 4 --bits 4
expect 'a file of a type beside a folder' 2 'needs --format gguf' -- "${quantize[@]}" -o "$tmp/o" --type auto:Q4_0
expect 'no text' 2 'it needs one' '--calib default' -- "$gsq" quantize -q "$m" -o "$out" --bpw 4 --method gptq
expect 'rounding' 2 '--method rtn cannot be used' -- "$gsq" quantize -q "$m" -o "$out" --bpw 4 --method rtn
expect 'no size' 2 'expected a size' -- "${quantize[@]}" -o "$out" --size big
expect 'nothing left to choose' 2 'no type is left to choose' -- "${quantize[@]}" -o "$out" --bpw 4 --tensor '.=Q4_0' --dry-run
expect 'a model without a way back' 2 'the model has experts' '--type' -- "$gsq" quantize -q "$shared/models/qwen3moe-4m" -o "$out" \
    --calib "$text" --ctx 64 --samples 4 --bpw 4
must "${quantize[@]}" -o "$out" --bpw 6 --dry-run
check 'a plan says what is possible' grep -qE '^sizes possible +[0-9.]+ KiB to [0-9.]+ KiB' "$tmp/out"
check 'nothing was written' test ! -e "$out" -a ! -e "$out.work"

# ---- a file: its size, the same bytes by hand, one measurement
must "${quantize[@]}" -o "$out" --type auto:Q4_0 --json --report "$tmp/o.html"
cp "$tmp/out" "$tmp/auto.json"
must "${quantize[@]}" -o "$tmp/fixed.gguf" --type Q4_0 --keep-work
check "auto:Q4_0 has $(size "$out") bytes, Q4_0 $(size "$tmp/fixed.gguf")" test "$(size "$out")" -le "$(size "$tmp/fixed.gguf")"
check 'and nearly all of them' within "$(size "$out")" "$(size "$tmp/fixed.gguf")" 0.01
readarray -t rules < <(choice "$tmp/auto.json")
must "${quantize[@]}" -o "$tmp/byhand.gguf" "${rules[@]}"
check "the ${#rules[@]} words of the choice give the same bytes" cmp "$out" "$tmp/byhand.gguf"
check 'the report has them' grep -q '"predicted_kl"' "$tmp/o.html"
check 'the memory that was planned is what was used' test "$(field device_peak_bytes "$tmp/auto.json")" -eq \
    "$(python3 -c 'import json, sys
print([o for o in map(json.loads, open(sys.argv[1])) if o["event"] == "plan"][-1]["device_bytes"])' "$tmp/auto.json")"
kl() { "$gsq" compare "$1" "$m" --text "$shared/text/tinystories-eval.txt" --ctx 64 --windows 48 --json 2>/dev/null >"$tmp/kl" && field mean_kl "$tmp/kl"; }
auto=$(kl "$out") fixed=$(kl "$tmp/fixed.gguf")
check "KL of auto:Q4_0 is $auto, of Q4_0 $fixed" awk -v a="$auto" -v b="$fixed" 'BEGIN { exit !(a < 0.9 * b) }'
predicted=$(python3 -c 'import json, sys
print([o for o in map(json.loads, open(sys.argv[1])) if o["event"] == "plan"][-1]["choice"]["predicted_kl"])' "$tmp/auto.json")
check "predicted $predicted, within a half of what it is" within "$predicted" "$auto" 0.5

run env GSQ_STOP_AT=stop:costs "${quantize[@]}" -o "$tmp/again.gguf" --type auto:Q4_0
check "stopped behind the measurement: $rc" test -e "$tmp/again.gguf.work/costs.json" -a ! -e "$tmp/again.gguf"
before=$(stat -c %y "$tmp/again.gguf.work/costs.json")
run env GSQ_STOP_AT=stop:linear:3 "${quantize[@]}" -o "$tmp/again.gguf" --type auto:Q4_0
check 'what was measured is not measured again' test "$(stat -c %y "$tmp/again.gguf.work/costs.json")" = "$before"
must "${quantize[@]}" -o "$tmp/again.gguf" --type auto:Q4_0
check 'and goes on to the same bytes' cmp "$out" "$tmp/again.gguf"
check 'the work folder is gone' test ! -e "$tmp/again.gguf.work"

# ---- what rules say stays
must "${quantize[@]}" -o "$tmp/kept.gguf" --size "$(size "$out")" --tensor 'layers\.0\.self_attn\.v_proj=Q8_0' --keep 'layers\.1\.mlp\.up' --json
check 'a matrix with a type of its own keeps it, within the size' test "$(size "$tmp/kept.gguf")" -le "$(size "$out")"
must "$gsq" inspect "$tmp/kept.gguf" --tensors
check 'v_proj is Q8_0' grep -qE 'layers\.0\.self_attn\.v_proj.*Q8_0|blk\.0\.attn_v.*Q8_0' "$tmp/out"
check 'up_proj is kept' grep -qE 'layers\.1\.mlp\.up_proj.*F16|blk\.1\.ffn_up.*F16' "$tmp/out"

# ---- a folder: what kernels fuse is alike
folder=("${quantize[@]}" --format compressed-tensors --group 32)
must "${folder[@]}" -o "$tmp/folder" --bpw 3.6 --json
cp "$tmp/out" "$tmp/folder.json"
readarray -t rules < <(choice "$tmp/folder.json")
check "q, k and v, gate and up are alike: ${rules[*]}" python3 -c 'import re, sys
types = {}
for rule in sys.argv[4::2]:
    pattern, bits = rule.rsplit("=", 1)
    for layer in range(5):
        for name in "self_attn.q self_attn.k self_attn.v self_attn.o mlp.gate mlp.up mlp.down".split():
            full = "model.layers.%d.%s_proj" % (layer, name)
            if re.search(pattern, full):
                assert full not in types, full
                types[full] = bits
assert len(types) == 35 and len(set(types.values())) > 1, types
for layer in range(5):
    for alike in ("self_attn.q", "self_attn.k", "self_attn.v"), ("mlp.gate", "mlp.up"):
        assert len({types["model.layers.%d.%s_proj" % (layer, x)] for x in alike}) == 1, (layer, alike)' "${rules[@]}"
bits=$(field bits_per_weight "$tmp/folder.json")
check "a folder of $bits bits per weight" awk -v b="$bits" 'BEGIN { exit !(b <= 3.6 && b > 3.58) }'
must "${folder[@]}" -o "$tmp/folder-byhand" "${rules[@]}"
check 'its rules give the same bytes' cmp "$tmp/folder/model.safetensors" "$tmp/folder-byhand/model.safetensors"
done_testing
