#!/usr/bin/env bash
# Families whose layers have the gated delta rule in place of attention (Qwen3-Next, Qwen3.5), by small random models: their GGUFs in
# llama.cpp, quantized to folder formats, learned better than rounded, stopped and resumed to the same bytes; what predicts further tokens and what is not
# of the text is carried over. The forward pass itself is compared with the reference in test_model.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "no python3"
llama=$build/llama_run
[[ -x $llama ]] || llama=
calib=$demo/calib.txt text=$demo/eval.txt
ctx=64

perplexity() { # MODEL [OPTION...]
    must "$gsq" eval "$1" --protocol llama.cpp --text "$text" --ctx $ctx --windows 4 "${@:2}" --json && field perplexity "$tmp/out"
}
divergence() { # MODEL OF
    must "$gsq" compare "$1" "$2" --text "$text" --ctx $ctx --windows 32 --json && field mean_kl "$tmp/out"
}
# The same model as a GGUF, in gsq and in llama.cpp, and as a folder again.
through_gguf() { # FAMILY PERPLEXITY
    local f32=$tmp/$1.gguf
    must "$gsq" convert "$tmp/$1" -o "$f32" --type F32 || return 0
    check "$1: perplexity $2, of its GGUF too" within "$(perplexity "$f32")" "$2" 0.000001
    must "$gsq" convert "$f32" -o "$tmp/$1-back" --format hf || return 0
    check "$1: and of the folder of that" within "$(perplexity "$tmp/$1-back")" "$2" 0.000001
    must "$gsq" quantize "$tmp/$1" -o "$tmp/$1-q4.gguf" --type Q4_0 --method rtn || return 0
    p=$(perplexity "$tmp/$1-q4.gguf")
    check "$1: Q4_0, perplexity $p" within "$p" "$2" 0.3
    [[ -n $llama ]] || return 0
    must "$llama" ppl "$f32" "$text" "$ctx" 4 && p=$(number perplexity "$tmp/out") &&
        check "$1: in llama.cpp $p" within "$p" "$2" 0.0001
    must "$llama" validate "$tmp/$1-q4.gguf"
}
learn=(--calib "$calib" --ctx "$ctx" --samples 32)

for family in qwen3_next qwen3_5; do
    model=$tmp/$family
    must python3 "$here/tests/lib/random_model.py" $family "$demo" "$model" || continue
    source=$(perplexity "$model")
    check "$family: perplexity $source in bindings of 1 MiB" within "$(GSQ_DEVICE_LIMITS=range=1 perplexity "$model")" "$source" 0.000001
    for format in gptq compressed-tensors; do
        must "$gsq" quantize "$model" -o "$tmp/$format" --force --method rtn --bits 4 --group 32 --format "$format" || continue
        p=$(perplexity "$tmp/$format")
        [[ $format == gptq ]] && first=$p
        check "$family: $format holds what gptq does, perplexity $p" within "$p" "$first" 0.000001
    done
    # Of a model with experts they alone are quantized where nothing else is asked for.
    all=()
    [[ $family == qwen3_5 ]] || all=(--tensor 'self_attn|linear_attn=4')
    must "$gsq" quantize "$model" -o "$tmp/rtn" --force --method rtn --bits 4 --group 32 "${all[@]}"
    must "$gsq" quantize "$model" -o "$tmp/gptq4" --force --method gptq --bits 4 --group 32 "${learn[@]}" "${all[@]}"
    check "$family: linears of these layers are in the output" grep -aq 'linear_attn.in_proj_qkvz\?.qweight' "$tmp/gptq4/model.safetensors"
    check "$family: small matrices are as they were" grep -aq 'linear_attn.in_proj_ba\?.weight' "$tmp/gptq4/model.safetensors"
    rtn=$(divergence "$tmp/rtn" "$model") gptq=$(divergence "$tmp/gptq4" "$model")
    check "$family: KL $gptq, rounded to nearest $rtn" at_most "$gptq" "$(awk -v r="$rtn" 'BEGIN { print 0.97 * r }')"
    fast=("$gsq" quantize "$model" --bits 4 --group 32 --effort balanced --steps 20 "${learn[@]}" "${all[@]}")
    must "${fast[@]}" -o "$tmp/fast" --force
    check "$family: balanced says what is not done" grep -q 'linears of attention learn alone' "$tmp/err"
    fast_kl=$(divergence "$tmp/fast" "$model")
    check "$family: KL $fast_kl where linears learn" at_most "$fast_kl" "$(awk -v r="$gptq" 'BEGIN { print 1.03 * r }')"
    GSQ_STOP_AT=kill:block:2 run "${fast[@]}" -o "$tmp/again-$family"
    must "${fast[@]}" -o "$tmp/again-$family"
    check "$family: killed and gone on, the same bytes" cmp "$tmp/again-$family/model.safetensors" "$tmp/fast/model.safetensors"
    must "$gsq" quantize "$model" -o "$tmp/plan" --bits 4 --group 32 --dry-run
    check "$family: a dry run tells of its matrices" grep -q 'in_proj_qkv' "$tmp/out"
done

for family in qwen3_next qwen3_5 qwen3_5_moe; do
    [[ -d $tmp/$family ]] || must python3 "$here/tests/lib/random_model.py" $family "$demo" "$tmp/$family" || continue
    through_gguf $family "$(perplexity "$tmp/$family")"
done
# Attention is learned on Hessians, feed-forward halves and experts on what they give.
trained() { # FAMILY STAGES [OPTION...]
    must "$gsq" quantize "$tmp/$1" -o "$tmp/$1-trained" --bits 2 --group 16 --format compressed-tensors --correction 0 "${learn[@]}" --steps 10 --batch 1 --epochs 6 --report "$tmp/$1.html" "${@:3}" || return 0
    cat "$tmp/out" "$tmp/err" >"$tmp/said"
    check "$1: the plan says who learns alone" grep -q 'linears of attention learn alone: nothing goes back' "$tmp/said"
    check "$1: trained are $2" python3 - "$tmp/$1.html" "$2" <<'END'
import json, re, sys
run = json.loads(re.search(r'id="run">(.*?)</script>', open(sys.argv[1], encoding="utf-8").read(), re.S).group(1))
stages, kinds = run["stages"], sys.argv[2].split(",")
assert [(s["block"], s["stage"]) for s in stages] == [(b, k) for b in (1, 2, 3, 4) for k in kinds], stages
for kind in kinds:
    gained = [1 - s["loss"] / s["loss_start"] for s in stages if s["stage"] == kind]
    assert min(gained) >= 0 and max(gained) > 0.02, (kind, gained)
assert run["result"]["device_peak_bytes"] <= run["plan"]["device_bytes"], (run["result"], run["plan"])
END
}
trained qwen3_5 feed-forward
trained qwen3_5_moe feed-forward,experts --tensor 'self_attn|linear_attn|shared_expert\.|experts=2'
# Experts of a layer in one tensor: the folder written has one by one.
must "$gsq" quantize "$tmp/qwen3_5_moe" -o "$tmp/moe4" --method rtn --bits 4 --group 32
check 'experts of one tensor are quantized' grep -aq 'mlp.experts.5.down_proj.qweight' "$tmp/moe4/model.safetensors"

# ---- as released: text_config, other parts, layers that predict further tokens
python3 - "$here/tests/lib" "$tmp/qwen3_5" "$tmp/released" <<'END'
import json, shutil, sys
sys.path.insert(0, sys.argv[1])
import tensor_file
source, out = sys.argv[2:]
shutil.copytree(source, out)
tensors = {}
for name, tensor in tensor_file.load(source + "/model.safetensors").items():
    tensors[name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name] = tensor
    if name.startswith("model.layers.3."):
        tensors[name.replace("model.layers.3.", "mtp.layers.0.")] = tensor
tensors["model.visual.blocks.0.attn.qkv.weight"] = ("F32", (2, 3), bytes(24))
tensor_file.save(out + "/model.safetensors", tensors)
config = json.load(open(source + "/config.json"))
config.pop("architectures")
json.dump(dict(architectures=["Qwen3_5ForConditionalGeneration"], model_type="qwen3_5", text_config=config,
               tie_word_embeddings=False, vision_config=dict(model_type="qwen3_5")), open(out + "/config.json", "w"))
END
source=$(perplexity "$tmp/qwen3_5")
check 'as released: the same perplexity' test "$(perplexity "$tmp/released")" = "$source"
must "$gsq" quantize "$tmp/released" -o "$tmp/released4" --method rtn --bits 4 --group 32
must "$gsq" convert "$tmp/released" -o "$tmp/released.gguf" --type F32
check 'as released: of its GGUF too' within "$(perplexity "$tmp/released.gguf")" "$source" 0.000001
# A GGUF of it is refined, whose names have no prefix.
must "$gsq" quantize "$tmp/released" -o "$tmp/released-q4.gguf" --type Q4_0 --method rtn
must "$gsq" quantize "$tmp/released" --refine "$tmp/released-q4.gguf" -o "$tmp/refined.gguf" "${learn[@]}" --method gptq
check 'as released: its GGUF refined, only codes changed' python3 "$here/tests/lib/gguf_codes.py" "$tmp/released-q4.gguf" "$tmp/refined.gguf"
rounded=$(divergence "$tmp/released-q4.gguf" "$tmp/released") refined=$(divergence "$tmp/refined.gguf" "$tmp/released")
check "as released: KL of the file $rounded, refined $refined" at_most "$refined" "$(awk -v r="$rounded" 'BEGIN { print 0.97 * r }')"
for name in mtp.layers.0.self_attn.q_proj.weight model.visual.blocks.0.attn.qkv.weight; do
    check "as released: $name is in the output" grep -aq "$name" "$tmp/released4/model.safetensors"
done

# ---- refused by what is not computed
refused() { # KEY=VALUE MESSAGE
    must python3 "$here/tests/lib/random_model.py" qwen3_5 "$demo" "$tmp/odd" "$1"
    expect "$1" 2 "$2" -- "$gsq" eval "$tmp/odd" --text "$text"
}
refused 'attn_output_gate=false' '"attn_output_gate" is false'
refused 'layer_types=["linear_attention", "sliding_attention", "linear_attention", "full_attention"]' 'layers of the kind "sliding_attention"'
refused 'linear_num_value_heads=3' '"linear_num_key_heads" must divide'
refused 'linear_num_value_heads=8' 'in_proj_b.weight in .* is'
done_testing
