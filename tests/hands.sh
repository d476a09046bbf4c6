#!/usr/bin/env bash
# What hands that know llama-quantize and Hugging Face expect of the command line.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"

# planned TENSOR FIELD: of the last run's plan.
planned() {
    python3 -c 'import json, sys
for line in open(sys.argv[1]):
    o = json.loads(line)
    if o["event"] == "plan":
        print(" ".join("%s" % t.get(sys.argv[3], "-") for t in o.get("tensors", []) if t["tensor"] == sys.argv[2]))' "$tmp/out" "$1" "$2"
}
# Of a folder: "up_proj down_proj", the linears that a pattern left in 16 bits.
kept() {
    python3 -c 'import json, sys
for line in open(sys.argv[1]):
    o = json.loads(line)
    if o["event"] == "plan":
        print(" ".join("%s:%d" % (l["linear"], l["count"]) for l in o["linears"] if l["keep"]))' "$tmp/out"
}
plan=("$gsq" quantize "$demo" --method rtn --dry-run --json)

# --- patterns: names of llama.cpp and of Hugging Face, and those that match nothing
for pattern in 'ffn_down' 'blk\.\d+\.ffn_down' '^blk\.\d+\.ffn_down\.weight$' 'mlp.down_proj$' 'down_proj.weight$'; do
    run "${plan[@]}" -o "$tmp/o" --keep "$pattern"
    check "--keep '$pattern' keeps every down_proj and no more" test "$rc $(kept)" = '0 down_proj:3'
done
run "${plan[@]}" -o "$tmp/o" --keep 'blk\.1\.attn_(q|k)'
check 'one block by its number in llama.cpp' test "$(kept)" = 'q_proj:1 k_proj:1'
run "${plan[@]}" -o "$tmp/o" --keep '^(?!.*ffn_down)'
check 'all but one, in names of llama.cpp' test "$(kept)" = 'q_proj:3 k_proj:3 v_proj:3 o_proj:3 gate_proj:3 up_proj:3'
run "${plan[@]}" -o "$tmp/o" --keep '^(?!.*down_proj)'
check 'and in those of Hugging Face' test "$(kept)" = 'q_proj:3 k_proj:3 v_proj:3 o_proj:3 gate_proj:3 up_proj:3'
run "${plan[@]}" -o "$tmp/o" --keep lm_head
check '--keep of what stays in 16 bits anyhow' test "$rc" -eq 0
run "${plan[@]}" -o "$tmp/o.gguf" --type Q4_0 --tensor 'token_embd=Q5_0' --tensor 'blk.*attn_v=Q8_0'
check "types by llama.cpp's names: $(planned embed_tokens type), $(planned v_proj type)" \
    test "$(planned embed_tokens type) $(planned v_proj type) $(planned k_proj type)" = 'Q5_0 Q8_0 Q4_0'
expect 'a misspelt pattern' 2 "the pattern 'v_porj' matches no weight" 'did you mean v_proj\?' -- "${plan[@]}" -o "$tmp/o" --keep v_porj
expect "misspelt in llama.cpp's names" 2 "the pattern 'ffn_dwon' matches no weight" 'did you mean ffn_down\?' -- "${plan[@]}" -o "$tmp/o" --tensor ffn_dwon=4
expect 'a block that is not there' 2 "the pattern 'layers\\\\.7\\\\.' matches no weight" 'named like model\.layers\.1' -- "${plan[@]}" -o "$tmp/o" --keep 'layers\.7\.'
expect 'the head of a folder' 2 "'lm_head' matches the embedding or the head alone" 'OUT\.gguf' -- "${plan[@]}" -o "$tmp/o" --tensor lm_head=4
expect 'a pattern without an end' 2 "cannot be searched in model.layers.0.*: match limit exceeded" 'repetitions' -- \
    "${plan[@]}" -o "$tmp/o" --keep '(a+)+$|((.*)*)*x'
check 'all before any work' test ! -e "$tmp/o.work"

# --- rows that types do not divide
expect 'nothing left to learn' 2 'no linear is left to learn: rows of 128 weights are not a multiple of 256, the block of Q5_K, and Q5_1' \
    '--method rtn rounds.*Q4_0, Q5_0' -- "$gsq" quantize "$demo" --calib "$demo/calib.txt" -o "$tmp/o.gguf" --type Q5_K_S --dry-run
run "$gsq" quantize "$demo" --method rtn -o "$tmp/o.gguf" --type Q5_K_S --json
check 'rounding alone takes the types that stand in' test "$rc $(planned up_proj type) $(planned up_proj instead_of)" = '0 Q5_1 Q5_K'
check 'and says so once for each length of rows' grep -q 'q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj: rows of 128 .*: stored as Q5_1, rounded, not learned' "$tmp/err"
check 'of that many bits' within "$(field bits_per_weight "$tmp/out")" 6 1e-9
done_testing
