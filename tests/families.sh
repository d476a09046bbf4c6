#!/usr/bin/env bash
# Every family with tiny random weights: gsq's perplexity of the folder, of its F32 and F16 GGUF, and llama.cpp's of that
# (tests/llama) are one; a run of 2 bits and of Q2_K goes from end to end, and what it wrote is a model again. What is
# not of a model's text part is carried over as it is.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed"
llama=$build/llama_run
[[ -x $llama ]] || llama=
calib=$demo/calib.txt text=$demo/eval.txt
ctx=64 windows=4

perplexity() { # MODEL
    must "$gsq" eval "$1" --protocol llama.cpp --text "$text" --ctx "$ctx" --windows "$windows" --json &&
        got=$(field perplexity "$tmp/out")
}

try_family() { # NAME
    local name=$1 folder=$tmp/$1 f32=$tmp/$1-f32.gguf f16=$tmp/$1-f16.gguf want
    python3 "$here/tests/lib/family_folder.py" "$name" "$folder" "$demo"
    perplexity "$folder" || return 0
    want=$got
    must "$gsq" convert "$folder" -o "$f32" --format gguf --type F32 || return 0
    must "$gsq" convert "$folder" -o "$f16" --format gguf --type F16 || return 0
    perplexity "$f32" && check "$name: perplexity $want, of its F32 GGUF $got" within "$got" "$want" 1e-6
    perplexity "$f16" && check "$name: of its F16 GGUF $got" within "$got" "$want" 1e-6
    if [[ -n $llama ]] && must "$llama" ppl "$f32" "$text" "$ctx" "$windows"; then
        got=$(number perplexity "$tmp/out")
        check "$name: in llama.cpp $got" within "$got" "$want" 0.0005
    fi
    must "$gsq" convert "$f16" -o "$tmp/$name-back" --format hf || return 0
    perplexity "$tmp/$name-back" && check "$name: of the folder of that $got" within "$got" "$want" 1e-6
    must "$gsq" quantize "$folder" -o "$tmp/$name-gptq" --format gptq --bits 2 --group 64 --effort balanced --steps 4 \
        --epochs 1 --calib "$calib" --samples 8 --ctx 64 --json || return 0
    perplexity "$tmp/$name-gptq" && check "$name: 2 bits, perplexity $got" at_most "$got" "$(awk -v p="$want" 'BEGIN { print 3 * p }')"
    must "$gsq" quantize "$folder" -o "$tmp/$name.gguf" --type Q2_K --effort fast --steps 4 --calib "$calib" --samples 8 \
        --ctx 64 --json || return 0
    perplexity "$tmp/$name.gguf" || return 0
    check "$name: Q2_K, perplexity $got" at_most "$got" "$(awk -v p="$want" 'BEGIN { print 2 * p }')"
    want=$got
    # Its kernels round what they multiply to 8 bits, which random weights feel: the same weights in F32.
    if [[ -n $llama ]] && must "$llama" dequant "$tmp/$name.gguf" "$f32" && must "$llama" ppl "$f32" "$text" "$ctx" "$windows"; then
        got=$(number perplexity "$tmp/out")
        check "$name: Q2_K, its weights in llama.cpp $got" within "$got" "$want" 0.0005
    fi
    rm -rf "${tmp:?}/$name.gguf" "$f32" "$f16"
}

# FAMILIES='granite olmo2' tries these alone.
for name in ${FAMILIES:-$(python3 "$here/tests/lib/family_folder.py" list)}; do
    try_family "$name"
done

[[ -z ${FAMILIES:-} ]] || done_testing

# What the source has beside its text part is in the output, bytes and all, and the configuration is whole.
carried() { # FOLDER OTHER
    python3 - "$@" <<'END'
import json, struct, sys
def load(folder):
    raw = open(folder + "/model.safetensors", "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    return {k: (t["dtype"], t["shape"], raw[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]])
            for k, t in json.loads(raw[8:8 + n]).items() if k[0] in "vm" and not k.startswith("model.")}
a, b = load(sys.argv[1]), load(sys.argv[2])
c, d = (json.load(open(f + "/config.json")) for f in sys.argv[1:3])
q = d.pop("quantization_config")
assert len(a) == 3 and a == b, "other parts differ"
assert c == d, "config.json differs"
assert open(sys.argv[2] + "/preprocessor_config.json").read(), "a file is missing"
skipped = json.dumps(q)
assert "vision_tower" in skipped and "multi_modal_projector" in skipped, "the other parts are not named: " + skipped
END
}
for name in mistral3 mistral3-new; do
    check "$name: the vision tower is carried over" carried "$tmp/$name" "$tmp/$name-gptq"
    for format in compressed-tensors humming; do
        must "$gsq" convert "$tmp/$name-gptq" -o "$tmp/$name-$format" --format "$format" || continue
        check "$name: $format too" carried "$tmp/$name" "$tmp/$name-$format"
        perplexity "$tmp/$name-gptq" && want=$got && perplexity "$tmp/$name-$format" &&
            check "$name: perplexity $got from $format" within "$got" "$want" 1e-6
    done
done
# What cannot be computed is refused by what is missing, and looked at all the same.
unbuilt() { # NAME ARCHITECTURE MODEL_TYPE REASON [KEY=JSON...]
    local name=$1 reason=$4
    python3 "$here/tests/lib/family_folder.py" llama "$tmp/$name" "$demo" "architectures=[\"$2\"]" "model_type=\"$3\"" "${@:5}"
    expect "$name" 2 "$2 is not supported: in it, $reason" -- "$gsq" quantize "$tmp/$name" -o "$tmp/refused" --bits 2 --dry-run
    run "$gsq" inspect "$tmp/$name"
    check "$name is looked at" test "$rc" -eq 0
}
unbuilt v32 DeepseekV32ForCausalLM deepseek_v32 'an indexer chooses' \
    'rope_scaling={"type": "yarn", "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096}'
unbuilt llama4 Llama4ForCausalLM llama4 'attention is in chunks' 'rope_scaling={"rope_type": "odd"}'
unbuilt mamba NemotronHForCausalLM nemotron_h 'layers have state spaces'
unbuilt kimi3 KimiK3ForConditionalGeneration kimi_k3 'layers have Kimi Delta'
unbuilt gemma4 Gemma4ForCausalLM gemma4_text 'layers have heads of two sizes'

run "$gsq" convert "$tmp/mistral3" -o "$tmp/part.gguf" --format gguf
check 'a GGUF of the text part says so' grep -q 'holds the text part of this model; 3 tensors of other parts are left out' "$tmp/err"
run "$gsq" quantize "$tmp/mistral3" -o "$tmp/kept" --format gptq --bits 4 --method rtn --keep 'language_model\.model\.layers\.0\.'
check 'names are those of the folder' test "$rc" -eq 0
done_testing
