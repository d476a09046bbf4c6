#!/usr/bin/env bash
# gsq quantize into GGUF: every type, fallbacks, single tensors, the same bytes again and after a kill.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"

perplexity() { # MODEL TEXT [WINDOWS]
    "$gsq" eval "$1" --text "$2" --ctx 128 --windows "${3:-4}" --json 2>/dev/null >"$tmp/eval" && field perplexity "$tmp/eval"
}
# planned TENSOR FIELD: of the last run's plan.
planned() {
    python3 -c 'import json, sys
for line in open(sys.argv[1]):
    o = json.loads(line)
    if o["event"] == "plan":
        print(" ".join("%s" % t.get(sys.argv[3], "-") for t in o["tensors"] if t["tensor"] == sys.argv[2]))' "$tmp/out" "$1" "$2"
}
same() { cmp -s "$1" "$2"; }

# --- the model at hand: rows of 128 and 384
few=(--calib "$demo/calib.txt" --samples 16 --ctx 64 --effort fast --steps 10 --json)
quantize=("$gsq" quantize "$demo" "${few[@]}")
reference=$(perplexity "$demo" "$demo/eval.txt")

run "${quantize[@]}" -o "$tmp/a.gguf" --type Q2_0
check 'Q2_0' test "$rc" -eq 0
[[ $rc -eq 0 ]] || { cat "$tmp/err"; done_testing; }
check "the plan names types: $(planned embed_tokens type), $(planned down_proj type)" \
    test "$(planned embed_tokens type) $(planned embed_tokens instead_of) $(planned down_proj type)" = 'Q8_0 Q6_K Q2_0'
check 'bits per weight of the linears' within "$(field bits_per_weight "$tmp/out")" 2.25 1e-9
check "of the whole file: $(field file_bits_per_weight "$tmp/out")" at_most 2.26 "$(field file_bits_per_weight "$tmp/out")"
check 'the size it said' test "$(field out_bytes "$tmp/out")" = "$(stat -c %s "$tmp/a.gguf")"
check 'the embedding stands in' grep -q 'embed_tokens: rows of 128 weights are not a multiple of 256, the block size of Q6_K: stored as Q8_0' "$tmp/err"
check 'no work folder is left' test ! -e "$tmp/a.gguf.work"
got=$(perplexity "$tmp/a.gguf" "$demo/eval.txt")
check "perplexity $got, of the 16-bit model $reference" at_most "$got" "$(awk -v p="$reference" 'BEGIN { print 3 * p }')"
run "$gsq" inspect "$tmp/a.gguf"
check 'inspect tells the type' grep -qE 'down_proj +128 x 384 +3 matrices +Q2_0' "$tmp/out"

run "${quantize[@]}" -o "$tmp/b.gguf" --bits 2 --group 64
check 'bits and group of Q2_0 are Q2_0, byte for byte' same "$tmp/a.gguf" "$tmp/b.gguf"
run "${quantize[@]}" -o "$tmp/b.gguf" --bits 2 --group 128
check 'scales of 128 take as much room' test "$(stat -c %s "$tmp/a.gguf")" = "$(stat -c %s "$tmp/b.gguf")"
check 'and are others' test "$(same "$tmp/a.gguf" "$tmp/b.gguf"; echo $?)" -ne 0
run "${quantize[@]}" -o "$tmp/b.gguf" --bits ternary --group 64
check "three levels have a home: $(planned up_proj type)" test "$rc $(planned up_proj type)" = '0 Q2_0'

run "${quantize[@]}" --dry-run -o "$tmp/c.gguf" --type Q2_K
check 'Q2_K has no room in such rows' test "$(planned up_proj type) $(planned up_proj instead_of)" = 'Q4_0 Q2_K'
check 'says so' grep -q 'up_proj: rows of 128 weights are not a multiple of 256, the block size of Q2_K: stored as Q4_0' "$tmp/err"
check 'a dry run writes nothing' test ! -e "$tmp/c.gguf"
run "$gsq" inspect "$demo" --type Q2_K
check 'inspect says so before the run' grep -qE 'up_proj +384 x 128 +3 matrices +Q4_0 +4.5 bits +instead of Q2_K' "$tmp/out"

# The student reads the embedding that the file will have: codes are those of a model that has it.
student() { # MODEL OUT EMBEDDING
    run "$gsq" quantize "$1" -o "$tmp/$2.gguf" --type Q2_0 --tensor "embed_tokens=$3" --method "${4:-gptq}" --calib "$demo/calib.txt" --samples 16 --ctx 64
}
student "$demo" stored Q4_0 rtn
student "$demo" coarse Q4_0
student "$demo" fine F32
run "$gsq" convert "$tmp/stored.gguf" -o "$tmp/values.gguf" --type F32
mkdir "$tmp/rounded"
cp "$demo"/*.json "$tmp/rounded/"
PYTHONPATH=$here/tests/lib python3 -c 'import sys, gguf_edit, tensor_file
model = tensor_file.load_folder(sys.argv[1])
name = "model.embed_tokens.weight"
model[name] = ("F32", model[name][1], gguf_edit.load(sys.argv[2])[-1]["token_embd.weight"][2])
tensor_file.save(sys.argv[3] + "/model.safetensors", model)' "$demo" "$tmp/values.gguf" "$tmp/rounded"
student "$tmp/rounded" rounded F32
linears() { # NAME NAME: whether their linears are the same
    local x
    for x in "$1" "$2"; do
        "$gsq" convert "$tmp/$x.gguf" -o "$tmp/$x-values.gguf" --type F32 -q --force >/dev/null
    done
    PYTHONPATH=$here/tests/lib python3 -c 'import sys, gguf_edit
a, b = ({k: v for k, v in gguf_edit.load(p)[-1].items() if k.startswith("blk.")} for p in sys.argv[1:])
sys.exit(a != b or not a)' "$tmp/$1-values.gguf" "$tmp/$2-values.gguf"
}
check 'linears are made for the embedding of the file' linears coarse rounded
linears coarse fine || rc=$?
check 'and not for another' test "$rc" -eq 1

# Single tensors, the embedding by either of its names.
run "${quantize[@]}" -o "$tmp/d.gguf" --type Q2_0 --tensor embed_tokens=Q4_0 --tensor 'lm_head=F16' --keep 'layers\.0\.' --tensor 'v_proj=8' --tensor 'up_proj=q5_1'
check 'single tensors have their own types' test "$rc" -eq 0
check "$(planned embed_tokens type), $(planned v_proj type), $(planned gate_proj type), $(planned up_proj type)" \
    test "$(planned embed_tokens type)|$(planned v_proj type)|$(planned gate_proj type)|$(planned up_proj type)" = 'F16|Q8_0|F16 Q2_0|Q5_1'
got=$(perplexity "$tmp/d.gguf" "$demo/eval.txt")
check "perplexity $got" at_most "$got" "$(awk -v p="$reference" 'BEGIN { print 3 * p }')"
expect 'an embedding has no codes' 2 'model.embed_tokens cannot be stored as Q2_0' "--tensor 'model.embed_tokens=Q6_K'" -- \
    "${quantize[@]}" -o "$tmp/e.gguf" --type Q2_0 --tensor embed_tokens=Q2_0
expect 'a type that is not learned' 2 'Q8_0 is not learned by gsq' '--method gptq' -- "${quantize[@]}" -o "$tmp/e.gguf" --type Q8_0
run "${quantize[@]}" -o "$tmp/e.gguf" --type Q8_0 --method gptq --eval "$demo/eval.txt" --windows 4 --report "$tmp/e.html"
check "which GPTQ makes: KL $(field mean_kl "$tmp/out")" at_most "$(field mean_kl "$tmp/out")" 0.01
check 'with a report' test "$(page_field "$tmp/e.html" result type) $(page_field "$tmp/e.html" result method)" = 'Q8_0 gptq'
run "$gsq" quantize "$demo" --method rtn --type Q4_0 -o "$tmp/f.gguf" --json
check 'rounding alone' test "$rc" -eq 0
mkdir "$tmp/folder.gguf"
expect 'a folder in its place' 2 'folder.gguf' '.' -- "${quantize[@]}" -o "$tmp/folder.gguf" --type Q2_0
expect 'no folder for it' 2 'nowhere' '.' -- "${quantize[@]}" -o "$tmp/nowhere/x.gguf" --type Q2_0

# --- interrupted
slow=("${quantize[@]}" --steps 60 --type Q2_0)
run "${slow[@]}" -o "$tmp/g.gguf"
check 'an undisturbed run' test "$rc" -eq 0
run bash -c 'GSQ_STOP_AT=kill:linear:9 "$@" || exit' - "${slow[@]}" -o "$tmp/h.gguf" # seven a block
check 'killed in block 2: no file' test "$rc" -eq 137 -a ! -e "$tmp/h.gguf"
expect 'other types are refused' 2 'mixture is Q2_0|types is' 'another --work' -- "${quantize[@]}" --steps 60 --type Q4_0 -o "$tmp/h.gguf"
run "${slow[@]}" -o "$tmp/h.gguf" --keep-work
check "it resumed: $(field blocks_resumed "$tmp/out") blocks were there" test "$(field blocks_resumed "$tmp/out")" -gt 0
check 'and has the same bytes' same "$tmp/g.gguf" "$tmp/h.gguf"
# As if killed between the last block and the head.
rm "$tmp/h.gguf" "$tmp/h.gguf.work/head-importance.safetensors"
run "${slow[@]}" -o "$tmp/h.gguf"
check 'without what the head reads it is taken again' test "$rc $(field blocks_resumed "$tmp/out")" = '0 3'
check 'with the same bytes' same "$tmp/g.gguf" "$tmp/h.gguf"
check 'and leaves no work folder' test ! -e "$tmp/h.gguf.work"

# --- every type, where rows divide by 256
oak=$shared/models/oak-2.9M
if [[ ! -d $oak ]]; then
    echo "$oak is not there: its types are not tried"
    done_testing
fi
text=$shared/text/wikitext2-test
reference=$(perplexity "$oak" "$text-eval.txt" 32)
for type in Q2_K Q2_K_S Q3_K_S Q3_K_M Q4_K_S Q4_K_M Q2_0 TQ2_0 TQ1_0 Q4_0; do
    run "$gsq" quantize "$oak" -o "$tmp/$type.gguf" --type "$type" --calib "$text-calib.txt" --samples 16 --ctx 64 --effort fast --steps 8 --json
    [[ $rc -eq 0 ]] || { fail "$type: $(tail -n 2 "$tmp/err")"; continue; }
    bits=$(field file_bits_per_weight "$tmp/out")
    got=$(perplexity "$tmp/$type.gguf" "$text-eval.txt" 32)
    share=1.18
    [[ $type != TQ* ]] || share=1.35 # one scale for 256 weights
    check "$type: $bits bits, perplexity $got, of the 16-bit model $reference" \
        at_most "$got" "$(awk -v p="$reference" -v s="$share" 'BEGIN { print p * s }')"
    check "$type: nothing fell back" test "$(grep -c 'stored as' "$tmp/err" || true)" -eq 0
done
done_testing
