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
expect 'nothing left to learn' 2 'no linear is left to learn: rows of 128 weights are not a multiple of 256, the block size of Q5_K, and its substitute Q5_1' \
    '--method rtn rounds.*Q4_0, Q5_0' -- "$gsq" quantize "$demo" --calib "$demo/calib.txt" -o "$tmp/o.gguf" --type Q5_K_S --dry-run
run "$gsq" quantize "$demo" --method rtn -o "$tmp/o.gguf" --type Q5_K_S --json
check 'rounding alone takes the types that stand in' test "$rc $(planned up_proj type) $(planned up_proj instead_of)" = '0 Q5_1 Q5_K'
check 'and says so once for each length of rows' grep -q 'q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj: rows of 128 .*: stored as Q5_1, rounded, not learned' "$tmp/err"
check 'of that many bits' within "$(field bits_per_weight "$tmp/out")" 6 1e-9

# --- as llama-quantize is called
said() { grep -q "$1" "$tmp/err"; }
rounds='no --calib and no --imatrix: weights are rounded to the nearest level, as llama-quantize does; --calib default'
cd "$tmp"
run "$gsq" quantize "$demo" f16.gguf F16
check 'IN OUT F16' test "$rc" -eq 0
run "$gsq" convert "$demo" -o converted.gguf --type F16
check 'is what convert writes' cmp f16.gguf converted.gguf
run "$gsq" quantize f16.gguf a.gguf q4_0 2
check 'IN OUT type THREADS' test "$rc" -eq 0
check 'says that it only rounds, and how to do better' said "$rounds"
run "$gsq" quantize f16.gguf -o b.gguf --type Q4_0 --method rtn
check 'the same file as by names' cmp a.gguf b.gguf
check 'where rounding was asked for nothing is said' test "$(grep -c "$rounds" err)" -eq 0
run "$gsq" quantize f16.gguf 2 -q
check 'a type by its number; OUT named after it, beside IN' cmp a.gguf ggml-model-Q4_0.gguf
check '-q does not hide what was done' said "$rounds"
run "$gsq" quantize "$demo" c.gguf Q4_0 --calib "$demo/calib.txt" --effort fast --steps 5 --samples 8 --ctx 64 --json
check "with a text it learns" test "$rc $(field method out)" = '0 gsq'
run "$gsq" imatrix "$demo" --calib "$demo/calib.txt" --samples 4 --ctx 64 -o im.gguf
run "$gsq" quantize --imatrix im.gguf "$demo" d.gguf Q4_0 --steps 5 --json
check 'with an importance matrix, too' test "$rc $(field method out)" = '0 gsq'
check 'of every weight' test "$(grep -c "$rounds" err)" -eq 0
run "$gsq" quantize --imatrix im.gguf --exclude-weights attn_ "$demo" e.gguf Q4_0 --steps 5 --json
check '--exclude-weights' test "$rc" -eq 0
check 'makes others of it' test "$(cmp -s d.gguf e.gguf; echo $?)" -eq 1
run "$gsq" quantize --imatrix im.gguf --include-weights ffn --include-weights token_embd "$demo" f.gguf Q4_0 --steps 5 --json
check '--include-weights of all the rest: the same' cmp e.gguf f.gguf
expect 'a name of no weight' 2 'no weight whose name holds "attn_x"' 'attn_v' -- "$gsq" quantize --imatrix im.gguf --include-weights attn_x "$demo" g.gguf Q4_0
expect 'both' 2 'cannot be used together' -- "$gsq" quantize --include-weights a --exclude-weights b "$demo" g.gguf Q4_0

run "$gsq" quantize f16.gguf q8.gguf Q8_0 -q
expect 'a quantized IN' 2 'q8.gguf is already quantized: Q8_0' '--allow-requantize' -- "$gsq" quantize q8.gguf g.gguf Q4_0
run "$gsq" quantize --allow-requantize q8.gguf g.gguf Q4_0 -q
check '--allow-requantize' test "$rc" -eq 0
run "$gsq" quantize q8.gguf copy.gguf COPY
check 'COPY' cmp q8.gguf copy.gguf
run "$gsq" quantize f16.gguf dry.gguf BF16 --dry-run --json
check 'a dry run of such says the size' test "$rc $(field out_bytes out)" = "0 $(stat -c %s f16.gguf)"
check 'and writes nothing' test ! -e dry.gguf
expect 'other types for single weights of such' 2 '--type F16 stores all weights in one type' '--tensor' -- "$gsq" quantize f16.gguf x.gguf F16 --pure
run "$gsq" quantize f16.gguf kv.gguf Q4_0 -q --override-kv general.name=str:Renamed --override-kv llama.context_length=int:99 \
    --override-kv tokenizer.ggml.add_bos_token=bool:false --override-kv my.key=float:0.5
check '--override-kv' test "$rc" -eq 0
python3 - kv.gguf >kv <<'END'
import struct, sys
data, at = open(sys.argv[1], 'rb').read(), 24
def take(f):
    global at
    v = struct.unpack_from('<' + f, data, at); at += struct.calcsize('<' + f)
    return v[0]
def text():
    global at
    n = take('Q'); at += n
    return data[at - n:at].decode()
sizes = dict(enumerate('BbHhIif?'))
sizes.update({10: 'Q', 11: 'q', 12: 'd'})
def value(t):
    if t == 8: return text()
    if t == 9:
        e, n = take('I'), take('Q')
        return [value(e) for _ in range(n)]
    return take(sizes[t])
seen = {}
for _ in range(struct.unpack_from('<Q', data, 16)[0]):
    key = text(); t = take('I'); v = value(t)
    assert key not in seen, key
    seen[key] = v
print(*(seen[k] for k in ('general.name', 'llama.context_length', 'tokenizer.ggml.add_bos_token', 'my.key')))
END
check "the keys have them: $(cat kv)" test "$(cat kv)" = 'Renamed 99 False 0.5'
run "$gsq" inspect kv.gguf
check 'and gsq reads them' grep -q '^positions  *99,' out
expect 'one without a type' 2 '--override-kv general.name=x: expected KEY=TYPE:VALUE' 'bool:false' -- "$gsq" quantize f16.gguf x.gguf Q4_0 --override-kv general.name=x
expect 'one that tensors decide' 2 'follows from them' -- "$gsq" quantize f16.gguf x.gguf Q4_0 --override-kv general.alignment=int:8
printf 'attn_v=q8_0\nFFN_DOWN=q5_0 token_embd=q4_0' >types.txt
run "$gsq" quantize f16.gguf x.gguf Q4_0 --tensor-type-file types.txt --dry-run --json
check "--tensor-type-file, in any case: $(planned v_proj type) $(planned down_proj type) $(planned embed_tokens type)" \
    test "$(planned v_proj type) $(planned down_proj type) $(planned embed_tokens type) $(planned k_proj type)" = 'Q8_0 Q5_0 Q4_0 Q4_0'
for option in keep-split 'prune-layers 1,2' 'target-bpw 3.2' 'target-size 1g' state-file; do
    # shellcheck disable=SC2086 # an option and its value
    expect "--$option" 2 "--${option%% *} is an option of llama-quantize that gsq does not have: " '.' -- "$gsq" quantize --$option f16.gguf x.gguf Q4_0
done
expect '--keep-split says what cuts a file' 2 'writes one file' 'leave it out; llama-gguf-split --split ' -- \
    "$gsq" quantize --keep-split f16.gguf x.gguf Q4_0
expect 'its options for a folder' 2 '--pure needs --format gguf, but the format is gptq' 'OUT\.gguf' -- "$gsq" quantize --pure "$demo" folder --method rtn
expect 'threads' 2 'unexpected argument nine: expected a number of threads' 'THREADS' -- "$gsq" quantize f16.gguf x.gguf Q4_0 nine
expect 'two outputs' 2 '-o x.gguf is the output already' -- "$gsq" quantize f16.gguf y.gguf Q4_0 -o x.gguf
expect 'two types' 2 '--type Q4_0 is the type already' -- "$gsq" quantize f16.gguf y.gguf Q4_1 --type Q4_0
expect 'no such type' 2 '--type Q4_9 is unknown' 'Q4_K_M.*COPY' -- "$gsq" quantize f16.gguf y.gguf Q4_9
check 'none of these wrote' test ! -e x.gguf -a ! -e y.gguf

# --- every type of llama-quantize is what the documentation says
try() { # TYPE [OPTION...]: exit code of a dry run
    local type=$1
    shift
    run "$gsq" quantize "$demo" -o t.gguf --type "$type" --dry-run --effort fast --samples 2 --ctx 32 "$@"
}
types=0
while IFS='|' read -r _ name number fate nearest _; do
    read -r name number fate nearest <<<"$name $number $fate $nearest"
    spellings=("$name" "${name,,}")
    [[ $number == - ]] || spellings+=("$number")
    for spelling in "${spellings[@]}"; do
        try "$spelling" --method rtn
        want=0
        [[ $fate != refused ]] || want=2
        [[ $rc -eq $want ]] || fail "$spelling is $fate: exit $rc, $(tail -n 2 err)"
    done
    [[ $fate != refused && $fate != rounded ]] || { try "$name"; grep -q "^hint: .*$nearest (" err || fail "$name: nearest is $nearest"; }
    types=$((types + 1))
done < <(grep -E '^\| [A-Z0-9_]+ \| +[-0-9]+ \|' "$here/docs/llama-quantize.md")
check "$types types as documented" test "$types" -eq 39

# --- inspect says what the plan says, and a plan needs no device
run "$gsq" quantize "$demo" -o x.gguf --type Q2_K --method rtn --dry-run
sed -n '/^tensors$/,/^all tensors/p' out >plan
run "$gsq" inspect "$demo" --type Q2_K
sed -n '/^tensors$/,/^all tensors/p' out >inspected
check 'inspect --type prints the table of the plan' cmp plan inspected
check 'embeddings included' grep -qE '^  embed_tokens .*Q8_0 .*instead of Q6_K' inspected
check 'and not that they stay in 16 bits' test "$(grep -c 'stay in 16 bits' out)" -eq 0
run "$gsq" inspect "$demo" --type Q5_K_S
check 'what the plan would refuse' grep -q 'gsq quantize --method gsq would refuse this: no linear is left to learn' out
run "$gsq" inspect "$demo" --bits 3 --group 48
check 'a group that no kernel takes' grep -qE 'mlx +does not take this model: .*groups of 32, 64 and 128' out
expect 'bits that no method has' 2 'there is no quantization type "9"' 'types: 2, 3, 4 or ternary; with --method rtn or gptq also 5 to 8' -- \
    "$gsq" quantize "$demo" -o o --bits 9
expect 'what the format lacks is said before what is not learned' 2 'gptq has no 5-bit codes' '.' -- "$gsq" quantize "$demo" -o o --bits 5 --calib "$demo/calib.txt" --dry-run
expect 'not learned' 2 '8 bits are not learned' '--method gptq or rtn' -- "$gsq" quantize "$demo" -o o --bits 8 --calib "$demo/calib.txt" --dry-run
none=(env VK_ICD_FILENAMES=/nowhere.json VK_DRIVER_FILES=/nowhere.json)
run "${none[@]}" "$gsq" quantize "$demo" -o x.gguf --type Q4_0 --calib "$demo/calib.txt" --dry-run
check 'a dry run without a Vulkan device' test "$rc" -eq 0
check 'prints the plan' grep -q '^all tensors  *5.071 bits per weight' out
check 'says what it does not know' grep -q '^device memory  *not planned' out
check 'and why' said 'device memory and time are not planned'
expect 'a run without one' 3 'Vulkan' '.' -- "${none[@]}" "$gsq" quantize "$demo" -o x.gguf --type Q4_0 --method rtn
expect 'a device that was named' 3 'Vulkan' '.' -- "${none[@]}" "$gsq" quantize "$demo" -o x.gguf --type Q4_0 --method rtn --dry-run --device 0

# --- names of the Hugging Face hub
unset HF_HUB_CACHE HUGGINGFACE_HUB_CACHE HF_HOME XDG_CACHE_HOME
export HOME=$tmp/home
mkdir "$HOME"
hub() { # FOLDER NAME COMMIT: puts the demo model there, as the hub's own program lays it out
    local at=$1/models--$2
    mkdir -p "$at/refs" "$at/blobs" "$at/snapshots/$3"
    echo -n "$3" >"$at/refs/main"
    for file in "$demo"/*.json "$demo"/*.safetensors; do
        cp "$file" "$at/blobs/blob-$(basename "$file")"
        ln -s "../../blobs/blob-$(basename "$file")" "$at/snapshots/$3/$(basename "$file")"
    done
}
commit=0123456789abcdef0123456789abcdef01234567
hub "$tmp/hub" acme--tiny "$commit"
for place in HF_HUB_CACHE=hub HF_HOME=a XDG_CACHE_HOME=b; do
    case $place in
        HF_HOME*) mkdir a && cp -r hub a/hub ;;
        XDG*) mkdir -p b/huggingface && cp -r hub b/huggingface/hub ;;
    esac
    run env "${place%=*}=$tmp/${place#*=}" "$gsq" inspect acme/tiny
    check "a name found by ${place%=*}" grep -q "^model  *$tmp/${place#*=}.*/snapshots/$commit\$" out
done
mkdir -p "$HOME/.cache/huggingface"
mv hub "$HOME/.cache/huggingface/hub"
cache=$HOME/.cache/huggingface/hub
run "$gsq" inspect acme/tiny
check 'and by HOME' test "$rc" -eq 0
for revision in main "$commit" 0123456; do
    run "$gsq" inspect "acme/tiny@$revision"
    check "revision $revision" test "$rc" -eq 0
done
run "$gsq" quantize acme/tiny n.gguf Q4_0 -q
check 'quantize by name' test "$rc" -eq 0
check 'the file is named after the model, not the commit' grep -q 'general.name.\{12\}tiny' <(tr '\0' '.' <n.gguf | head -c 4000)
run "$gsq" quantize acme/tiny Q4_0 -q
check 'no output goes into the cache' cmp n.gguf ggml-model-Q4_0.gguf
run "$gsq" compare n.gguf acme/tiny --text "$demo/eval.txt" --ctx 64 --windows 2
check 'REFERENCE by name' test "$rc" -eq 0
expect 'a revision that is not there' 2 'acme/tiny is in the Hugging Face cache, but not its revision v2; there is: main' \
    'hf download acme/tiny --revision v2' -- "$gsq" inspect acme/tiny@v2
expect 'a name that is nowhere' 2 "there is no file or folder acme/huge, nor a model of that name in the Hugging Face cache \\($cache\\)" \
    'hf download acme/huge --local-dir huge \(older: huggingface-cli' -- "$gsq" inspect acme/huge
expect 'nor as a reference' 2 'acme/huge' 'hf download' -- "$gsq" compare n.gguf acme/huge --text "$demo/eval.txt"
expect 'a path is no name' 2 'no.*\./acme/huge' '.' -- "$gsq" inspect ./acme/huge
mkdir -p acme
cp -r "$demo" acme/tiny
run "$gsq" inspect acme/tiny
check 'a folder that is there wins' grep -q '^model  *acme/tiny$' out
rm -r acme "$cache/models--acme--tiny/snapshots/$commit"/*.safetensors
touch "$cache/models--acme--tiny/blobs/aaaa.incomplete"
expect 'a download that was cut short' 2 'acme/tiny is not complete: .* has no \*.safetensors, and files in blobs are still .incomplete' \
    'hf download acme/tiny finishes it' -- "$gsq" inspect acme/tiny
files=$cache/models--acme--tiny-GGUF/snapshots/$commit
mkdir -p "$files" "$files/../../refs"
echo "$commit" >"$files/../../refs/main"
cp n.gguf "$files/tiny-Q4_0.gguf"
run "$gsq" inspect acme/tiny-GGUF
check 'a repository of one GGUF file' grep -q '^model .*/tiny-Q4_0.gguf$' out
cp n.gguf "$files/tiny-Q8_0.gguf"
expect 'of several' 2 'holds 2 GGUF files: tiny-Q4_0.gguf, tiny-Q8_0.gguf' 'by its path' -- "$gsq" inspect acme/tiny-GGUF
# A finished command repeated says so and stops; other options, other tensors or a part that is missing make it anew.
for out in "done" done.gguf; do
    again=("$gsq" quantize "$demo" --method rtn -q --json --format gptq)
    [[ $out == "done" ]] || again=("$gsq" quantize "$demo" --type Q8_0 --method rtn -q --json)
    run "${again[@]}" -o "$tmp/$out"
    check "$out: made" test "$rc" -eq 0
    cp -r "$tmp/$out" "$tmp/$out.first"
    run "${again[@]}" -o "$tmp/$out"
    check 'repeated: finished before' test "$rc $(field finished_before "$tmp/out")" = '0 True'
    run "${again[@]}" -o "$tmp/$out/"
    check 'with a slash behind it' test "$rc $(field finished_before "$tmp/out")" = '0 True'
    run "${again[@]}" -o "$tmp/$out" --force
    check '--force: anew' test "$rc $(field blocks "$tmp/out")" = '0 3'
    check 'with the same bytes' diff -r "$tmp/$out" "$tmp/$out.first"
    run "${again[@]}" -o "$tmp/$out" --keep 'layers.0.mlp'
    check 'another command: anew' test "$rc $(field blocks "$tmp/out")" = '0 3'
    check 'with other bytes' test "$(diff -r "$tmp/$out" "$tmp/$out.first" >/dev/null; echo $?)" -eq 1
done
mv "$tmp/done.gguf.first" "$tmp/other.gguf"
run "${again[@]}" -o "$tmp/other.gguf"
check 'under another name it is still the same' test "$rc $(field finished_before "$tmp/out")" = '0 True'
run "${again[@]}" --override-kv general.name=str:other -o "$tmp/other.gguf"
check 'another key in a GGUF: anew' test "$rc $(field blocks "$tmp/out")" = '0 3'
run "$gsq" quantize "$demo" --method rtn -q --json --format gptq -o "$tmp/done.first"
rm "$tmp/done.first/config.json"
run "$gsq" quantize "$demo" --method rtn -q --json --format gptq -o "$tmp/done.first"
check 'a folder without its config.json: anew' test "$rc $(field blocks "$tmp/out")" = '0 3'
done_testing
