#!/usr/bin/env bash
# GGUF files in llama.cpp itself (tests/llama): it loads every type of file that gsq writes, finds its rows valid, has the
# perplexity that its weights have in F32, and gsq agrees with it on that; both read the same tokens; gsq dequantizes what
# llama-quantize wrote as ggml does. @huggingface/gguf reads every header.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
llama=$build/llama_run
[[ -x $llama ]] || skip "$llama is not built: scripts/llama-cpp.sh, then cmake again"
oak=$shared/models/oak-2.9M
[[ -d $oak ]] || skip "no models in $shared"
for tool in python3 node; do
    command -v "$tool" >/dev/null || skip "no $tool"
done
packages=$(sed -n 's/^GSQ_LLAMA_CPP:PATH=//p' "$build/CMakeCache.txt")
text=$shared/text/wikitext2-test-eval.txt
calib=$shared/text/wikitext2-test-calib.txt
files=()
ctx=256 windows=${WINDOWS:-8}
export GSQ_VALIDATE=0 # what runs here is watched in other tests

# The same tokens. TinyStories-656K has no tokens for single bytes: there llama.cpp reads the texts only
# because they need none.
for model in stories260K TinyStories-656K oak-2.9M; do
    must "$gsq" convert "$shared/models/$model" -o "$tmp/$model.gguf" --format gguf --type F16 || continue
    for file in "$shared"/text/*-eval.txt; do
        [[ $model == oak-2.9M || $file == *tinystories* ]] || continue
        head -c 100000 "$file" | sed '$d' >"$tmp/part.txt" # all of it is read: windows would end the reading early
        must "$gsq" eval "$shared/models/$model" --text "$tmp/part.txt" --ctx 64 --json || continue
        cp "$tmp/out" "$tmp/gsq"
        must "$llama" tokens "$tmp/$model.gguf" "$tmp/part.txt" || continue
        check "$model reads $(basename "$file") as llama.cpp does" \
            test "$(field tokens "$tmp/gsq") $(field token_hash "$tmp/gsq")" = "$(number tokens "$tmp/out") $(number token_hash "$tmp/out")"
    done
    files+=("$tmp/$model.gguf")
done
f16=$tmp/oak-2.9M.gguf

# One file of a type: loads, is valid, computes what its weights say.
try_file() { # NAME FILE
    local name=$1 file=$2 own twin ours
    must "$llama" validate "$file" || return 0
    must "$llama" dequant "$file" "$tmp/twin.gguf" || return 0
    must "$llama" ppl "$file" "$text" "$ctx" "$windows" || return 0
    own=$(number perplexity "$tmp/out")
    must "$llama" ppl "$tmp/twin.gguf" "$text" "$ctx" "$windows" || return 0
    twin=$(number perplexity "$tmp/out")
    check "$name: perplexity $own in llama.cpp, $twin with the same weights in F32" within "$own" "$twin" 0.006
    must "$gsq" eval "$tmp/twin.gguf" --protocol llama.cpp --text "$text" --ctx "$ctx" --windows "$windows" --json || return 0
    ours=$(field perplexity "$tmp/out")
    check "$name: perplexity $ours in gsq" within "$ours" "$twin" 0.0005
    must "$gsq" convert "$file" -o "$tmp/ours.gguf" --format gguf --type F32 || return 0
    check "$name: gsq dequantizes it as ggml does" "$llama" same "$tmp/ours.gguf" "$tmp/twin.gguf"
}

for type in F32 F16 BF16; do
    must "$gsq" convert "$oak" -o "$tmp/$type.gguf" --format gguf --type "$type" || continue
    try_file "$type" "$tmp/$type.gguf"
    files+=("$tmp/$type.gguf")
done
# What this gsq quantizes to.
types=(Q2_0 TQ2_0 TQ1_0 Q4_0 Q4_1 Q5_1 Q8_0 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ4_NL IQ4_XS MXFP4_MOE)
"$gsq" quantize --help | grep -q -e '--type T' || types=()
for type in ${types[@]+"${types[@]}"}; do
    must "$gsq" quantize "$oak" -o "$tmp/$type.gguf" --method rtn --type "$type" || continue
    try_file "$type" "$tmp/$type.gguf"
    files+=("$tmp/$type.gguf")
    [[ $type == Q2_0 || $type == TQ2_0 ]] || continue
    must "$llama" codes "$tmp/$type.gguf" || continue
    check "$type: $(number threes "$tmp/out") of $(number weights "$tmp/out") codes are 3" \
        test "$(number threes "$tmp/out")" -gt 0
done
check 'every header in @huggingface/gguf' node "$here/tests/llama/lint_gguf.mjs" "$packages" "${files[@]}"

# A stretched context: yarn's keys, there and back.
cp -r "$oak" "$tmp/yarn"
for more in '"factor": 4.0, "original_max_position_embeddings": 64' \
    '"factor": 8.0, "original_max_position_embeddings": 32, "attention_factor": 1.4'; do
    python3 - "$oak/config.json" "$tmp/yarn/config.json" "$more" <<'END'
import json, sys
config = json.load(open(sys.argv[1]))
config["rope_scaling"] = json.loads('{"rope_type": "yarn", %s}' % sys.argv[3])
json.dump(config, open(sys.argv[2], "w"))
END
    rm -rf "$tmp/yarn.gguf" "$tmp/yarn.back"
    must "$gsq" convert "$tmp/yarn" -o "$tmp/yarn.gguf" --type F32 || continue
    must "$gsq" convert "$tmp/yarn.gguf" -o "$tmp/yarn.back" --format hf || continue
    must "$llama" ppl "$tmp/yarn.gguf" "$text" "$ctx" "$windows" || continue
    theirs=$(number perplexity "$tmp/out")
    for model in "$tmp/yarn" "$tmp/yarn.gguf" "$tmp/yarn.back"; do
        must "$gsq" eval "$model" --protocol llama.cpp --text "$text" --ctx "$ctx" --windows "$windows" --json || continue
        ours=$(field perplexity "$tmp/out")
        check "yarn, $more: perplexity $ours in gsq, $theirs in llama.cpp" within "$ours" "$theirs" 0.00001
    done
done

# Tensor types as llama-quantize chooses them, with an importance matrix of ours; and its files read by gsq.
must "$gsq" imatrix "$oak" --calib "$calib" --samples 4 --ctx "$ctx" -o "$tmp/imatrix.gguf"
for type in ${types[@]+"${types[@]}"}; do
    must "$llama" quantize "$f16" "$tmp/theirs.gguf" "$type" "$tmp/imatrix.gguf" || continue
    "$llama" types "$tmp/theirs.gguf" | sort >"$tmp/theirs"
    "$llama" types "$tmp/$type.gguf" | sort >"$tmp/ours"
    check "$type: the tensor types of llama-quantize" diff "$tmp/ours" "$tmp/theirs"
done
# Its options, one command line for both: the same types. Tied and untied.
cp -r "$oak" "$tmp/untied"
python3 - "$tmp/untied" <<'END'
import glob, json, struct, sys
path = glob.glob(sys.argv[1] + '/*.safetensors')[0]
data = open(path, 'rb').read()
n = struct.unpack('<Q', data[:8])[0]
header, body = json.loads(data[8:8 + n]), data[8 + n:]
begin, end = header['model.embed_tokens.weight']['data_offsets']
header['lm_head.weight'] = dict(header['model.embed_tokens.weight'], data_offsets=[len(body), len(body) + end - begin])
text = json.dumps(header).encode()
open(path, 'wb').write(struct.pack('<Q', len(text)) + text + body + body[begin:end])
config = json.load(open(sys.argv[1] + '/config.json'))
config['tie_word_embeddings'] = False
json.dump(config, open(sys.argv[1] + '/config.json', 'w'))
END
must "$gsq" convert "$tmp/untied" -o "$tmp/untied.gguf" --type F16
options() { # NAME IN TYPE OPTION=VALUE...
    local name=$1 in=$2 type=$3
    shift 3
    must "$llama" quantize "$in" "$tmp/theirs.gguf" "$type" - "$@" || return 0
    must "$gsq" quantize "$@" "$in" "$tmp/ours.gguf" "$type" 2 || return 0
    "$llama" types "$tmp/theirs.gguf" | sort >"$tmp/theirs"
    "$llama" types "$tmp/ours.gguf" | sort >"$tmp/ours"
    check "$name: the tensor types of llama-quantize" diff "$tmp/ours" "$tmp/theirs"
}
for in in "$f16" "$tmp/untied.gguf"; do
    base=$(basename "$in" .gguf)
    options "$base, no option" "$in" Q4_0
    options "$base, --pure" "$in" Q5_0 --pure
    options "$base, --leave-output-tensor" "$in" Q4_1 --leave-output-tensor
    options "$base, embedding and head" "$in" Q4_0 --token-embedding-type=q8_0 --output-tensor-type=q5_1
    options "$base, head alone" "$in" Q4_0 --output-tensor-type=q5_1
    options "$base, one kind" "$in" Q4_0 --tensor-type=attn_v=q8_0
    options "$base, the first that matches" "$in" Q4_0 '--tensor-type=blk\.1\.ffn_down=q5_1' --tensor-type=ffn_=q5_0 --tensor-type=attn_output=f16
    options "$base, head by its name" "$in" Q4_0 '--tensor-type=output\.weight$=q8_0' --tensor-type=token_embd=q5_0
done
must "$llama" quantize "$f16" "$tmp/q8.gguf" Q8_0
options 'of a quantized model' "$tmp/q8.gguf" Q3_K_M --allow-requantize

for type in Q4_1 Q5_0 Q5_1 Q5_K_M Q6_K IQ4_NL IQ4_XS TQ1_0 TQ2_0 Q2_0 Q2_K Q3_K_M Q4_K_M; do
    must "$llama" quantize "$f16" "$tmp/theirs.gguf" "$type" "$tmp/imatrix.gguf" || continue
    must "$llama" dequant "$tmp/theirs.gguf" "$tmp/twin.gguf" || continue
    must "$gsq" convert "$tmp/theirs.gguf" -o "$tmp/ours.gguf" --format gguf --type F32 || continue
    check "llama-quantize's $type: gsq dequantizes it as ggml does" "$llama" same "$tmp/ours.gguf" "$tmp/twin.gguf"
done

# Types that llama-quantize gives single tensors.
for type in mxfp4 nvfp4 q1_0; do
    must "$llama" quantize "$f16" "$tmp/theirs.gguf" Q8_0 - "--tensor-type=blk=$type" || continue
    must "$llama" dequant "$tmp/theirs.gguf" "$tmp/twin.gguf" || continue
    must "$gsq" convert "$tmp/theirs.gguf" -o "$tmp/ours.gguf" --format gguf --type F32 || continue
    check "llama-quantize's $type: gsq dequantizes it as ggml does" "$llama" same "$tmp/ours.gguf" "$tmp/twin.gguf"
    must "$gsq" convert "$tmp/theirs.gguf" -o "$tmp/ours.gguf" || continue
    check "and keeps it in a GGUF" "$llama" same "$tmp/ours.gguf" "$tmp/theirs.gguf"
    [[ $type != q1_0 ]] || continue
    must "$gsq" quantize "$oak" -o "$tmp/own-$type.gguf" --method rtn --type Q6_K --tensor "proj=$type" && try_file "$type of gsq" "$tmp/own-$type.gguf" &&
        check "$type of gsq is what its linears are" test "$("$llama" types "$tmp/own-$type.gguf" | grep -c "	$type	")" = 28
    [[ $type == nvfp4 ]] || continue
    # As NVIDIA's models have it, each matrix with a factor beside it.
    must python3 "$here/tests/lib/gguf_edit.py" scales "$tmp/theirs.gguf" "$tmp/scaled.gguf" && must "$llama" dequant "$tmp/scaled.gguf" "$tmp/twin.gguf" &&
        must "$llama" ppl "$tmp/twin.gguf" "$text" "$ctx" "$windows" || continue
    twin=$(number perplexity "$tmp/out")
    must "$gsq" eval "$tmp/scaled.gguf" --protocol llama.cpp --text "$text" --ctx "$ctx" --windows "$windows" --json || continue
    check "NVFP4 with factors: perplexity $(field perplexity "$tmp/out"), in llama.cpp $twin" within "$(field perplexity "$tmp/out")" "$twin" 0.0005
    must "$gsq" convert "$tmp/scaled.gguf" -o "$tmp/ours.gguf" --type F32 && must "$gsq" eval "$tmp/ours.gguf" --protocol llama.cpp --text "$text" --ctx "$ctx" --windows "$windows" --json &&
        check 'which its values as F32 hold' within "$(field perplexity "$tmp/out")" "$twin" 0.0005
done
# Codebooks: read everywhere, kept in a GGUF, learned nowhere.
for type in IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_M IQ3_XXS IQ3_S; do
    must "$llama" quantize "$f16" "$tmp/theirs.gguf" "$type" "$tmp/imatrix.gguf" || continue
    must "$llama" dequant "$tmp/theirs.gguf" "$tmp/twin.gguf" || continue
    must "$gsq" convert "$tmp/theirs.gguf" -o "$tmp/ours.gguf" --format gguf --type F32 || continue
    check "llama-quantize's $type: gsq dequantizes it as ggml does" "$llama" same "$tmp/ours.gguf" "$tmp/twin.gguf"
    must "$gsq" convert "$tmp/theirs.gguf" -o "$tmp/ours.gguf" || continue
    check "and keeps it in a GGUF" "$llama" same "$tmp/ours.gguf" "$tmp/theirs.gguf"
    [[ $type == IQ3_XXS || $type == IQ1_M ]] || continue
    must "$llama" ppl "$tmp/twin.gguf" "$text" "$ctx" "$windows" || continue
    twin=$(number perplexity "$tmp/out")
    must "$gsq" eval "$tmp/theirs.gguf" --protocol llama.cpp --text "$text" --ctx "$ctx" --windows "$windows" --json || continue
    check "$type: perplexity $(field perplexity "$tmp/out"), in llama.cpp $twin" within "$(field perplexity "$tmp/out")" "$twin" 0.0005
    must "$gsq" compare "$tmp/theirs.gguf" "$oak" --text "$text" --ctx 64 --windows 2 --json &&
        check "$type: compare reads it" test "$(field mean_kl "$tmp/out")" != 0
    must "$gsq" inspect "$tmp/theirs.gguf"
    check "$type: inspect names it" grep -q "$type" "$tmp/out"
    refine=("$gsq" quantize "$oak" --refine "$tmp/theirs.gguf" --calib "$calib" --samples 8 --ctx 64 -o "$tmp/refined.gguf" --dry-run)
    if [[ $type == IQ1_M ]]; then # some of its tensors are of other types
        must "${refine[@]}" && check "$type: --refine leaves what is not learned" grep -q "IQ1_M .* as it is" "$tmp/out"
    else
        expect "$type: --refine" 2 'has no linear of a type whose codes can be learned \(IQ' 'Q2_K.*IQ4_NL' -- "${refine[@]}"
    fi
done

# KL divergence: the same weights on both sides, in F32.
must "$llama" quantize "$f16" "$tmp/theirs.gguf" Q2_K_S "$tmp/imatrix.gguf"
if must "$llama" dequant "$tmp/theirs.gguf" "$tmp/twin.gguf" &&
    must "$llama" kl "$tmp/twin.gguf" "$tmp/F32.gguf" "$text" "$ctx" "$windows"; then
    theirs=$(number mean_kl "$tmp/out") top=$(number top1_agreement "$tmp/out")
    must "$gsq" compare "$tmp/theirs.gguf" "$oak" --protocol llama.cpp --text "$text" --ctx "$ctx" --windows "$windows" --json
    check "KL divergence $(field mean_kl "$tmp/out"), $theirs in llama.cpp" within "$(field mean_kl "$tmp/out")" "$theirs" 0.001
    check "top-1 agreement $(field top1_agreement "$tmp/out"), $top in llama.cpp" within "$(field top1_agreement "$tmp/out")" "$top" 0.004
fi
done_testing
