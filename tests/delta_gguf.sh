#!/usr/bin/env bash
# GGUFs of models with the gated delta rule against llama.cpp: value heads in its order where they are more than key heads (Qwen3.5 from 4B
# on), codes learned in that order and moved between it and a folder's; Qwen3-Next's matrix of q, k, v and z in the two tensors of
# llama.cpp's own converter; types as llama-quantize's, importance matrices both ways. Small random models.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "no python3"
llama=$build/llama_run
[[ -x $llama ]] || llama=
calib=$demo/calib.txt text=$demo/eval.txt
ctx=64
unset GSQ_VALIDATE # what runs here is watched in delta.sh

perplexity() { # MODEL
    must "$gsq" eval "$1" --protocol llama.cpp --text "$text" --ctx $ctx --windows 4 --json && field perplexity "$tmp/out"
}
divergence() { # MODEL OF
    must "$gsq" compare "$1" "$2" --text "$text" --ctx $ctx --windows 8 --json && field mean_kl "$tmp/out"
}
# gsq and llama.cpp on one file. Its kernels round what codes are multiplied with to 8 bits, so it gets the same values in F32.
theirs() { # NAME FILE
    [[ -n $llama ]] || return 0
    local ours
    ours=$(perplexity "$2") && must "$llama" dequant "$2" "$tmp/wide.gguf" && must "$llama" ppl "$tmp/wide.gguf" "$text" $ctx 4 || return 0
    got=$(number perplexity "$tmp/out")
    check "$1: perplexity $ours, in llama.cpp $got" within "$got" "$ours" 0.00001
}
quiet=(--steps 8 --calib "$calib" --ctx $ctx --samples 16)

# ---- value heads in another order
for family in qwen3_5_uneven qwen3_5_moe_uneven; do
    model=$tmp/$family f32=$tmp/$family.gguf
    must python3 "$here/tests/lib/random_model.py" $family "$demo" "$model" || continue
    want=$(perplexity "$model")
    must "$gsq" convert "$model" -o "$f32" --type F32 && theirs "$family" "$f32"
    p=$(perplexity "$f32")
    check "$family: perplexity $want, of its GGUF $p" within "$p" "$want" 0.000001
    must "$gsq" convert "$f32" -o "$model-back" --format hf
    check "$family: the matrices of the folder made of that are the model's" \
        python3 "$here/tests/lib/tensors.py" "$model" "$model-back" proj_qkv.weight proj_z.weight proj_a.weight proj_b.weight \
        conv1d.weight dt_bias out_proj.weight q_proj.weight
    # A_log went through an exponential.
    p=$(perplexity "$model-back")
    check "$family: and computes the same" within "$p" "$want" 0.000001
done
model=$tmp/qwen3_5_uneven
# Rows of out_proj are 8 heads of 32: blocks of 256 reach over all of them, blocks of 64 over two.
for type in TQ2_0 Q4_K_M; do
    must "$gsq" quantize "$model" -o "$tmp/$type.gguf" --type $type --method rtn && theirs "uneven heads, $type" "$tmp/$type.gguf"
done
must "$gsq" quantize "$model" -o "$tmp/rtn.gguf" --type Q2_K --method rtn
must "$gsq" quantize "$model" -o "$tmp/learned.gguf" --type Q2_K "${quiet[@]}" --samples 128 --effort fast && theirs 'uneven heads, Q2_K learned' "$tmp/learned.gguf"
rtn=$(divergence "$tmp/rtn.gguf" "$model") learned=$(divergence "$tmp/learned.gguf" "$model")
check "uneven heads, Q2_K: KL $learned, rounded $rtn" at_most "$learned" "$(awk -v r="$rtn" 'BEGIN { print 0.85 * r }')"
# Codes in groups that heads are made of move, both ways.
must "$gsq" quantize "$model" -o "$tmp/int4" --method rtn --bits 4 --group 32 --format compressed-tensors
must "$gsq" convert "$tmp/int4" -o "$tmp/int4.gguf"
kl=$(divergence "$tmp/int4.gguf" "$tmp/int4") # sums over heads go another way
check "codes of a folder in a GGUF: KL $kl" at_most "$kl" 1e-7
must "$gsq" convert "$tmp/int4.gguf" -o "$tmp/int4-back" --format compressed-tensors
check 'and in the folder of that, code for code' python3 "$here/tests/lib/tensors.py" "$tmp/int4" "$tmp/int4-back" .weight_packed .weight_scale
theirs 'codes of a folder' "$tmp/int4.gguf"
# What is coded in wider groups has no place but its values.
must "$gsq" convert "$tmp/learned.gguf" -o "$tmp/learned-hf" --format hf &&
    check 'K-quants as a folder of values' within "$(perplexity "$tmp/learned-hf")" "$(perplexity "$tmp/learned.gguf")" 0.001

# ---- the two tensors of Qwen3-Next's matrix
next=$tmp/qwen3_next f32=$tmp/qwen3_next.gguf two=$tmp/two.gguf
must python3 "$here/tests/lib/random_model.py" qwen3_next "$demo" "$next"
want=$(perplexity "$next")
must "$gsq" convert "$next" -o "$f32" --type F32 && must python3 "$here/tests/lib/gguf_edit.py" mixed "$f32" "$two" && theirs 'two tensors' "$two"
check 'two tensors: the same perplexity' test "$(perplexity "$two")" = "$(perplexity "$f32")"
must "$gsq" convert "$two" -o "$tmp/two-hf" --format hf
check 'two tensors: the matrices of the model' python3 "$here/tests/lib/tensors.py" "$next" "$tmp/two-hf" proj_qkvz.weight proj_ba.weight out_proj.weight
must "$gsq" convert "$two" -o "$tmp/one.gguf"
if [[ -n $llama ]]; then
    check 'two tensors, by way of gsq: the GGUF of the model' "$llama" same "$tmp/one.gguf" "$f32"
    for type in Q4_0 Q4_K_M; do # of one type, of two
        must "$llama" quantize "$two" "$tmp/two-$type.gguf" $type && theirs "two tensors of $type by llama-quantize" "$tmp/two-$type.gguf"
    done
    must "$gsq" inspect "$tmp/two-Q4_K_M.gguf" && check 'two tensors of two types: inspected' grep -q 'in_proj_qkvz' "$tmp/out"
    must "$gsq" convert "$tmp/two-Q4_0.gguf" -o "$tmp/two-ct" --format compressed-tensors &&
        check 'two tensors of Q4_0 are codes of one matrix' grep -aq 'in_proj_qkvz.weight_packed' "$tmp/two-ct/model.safetensors"
    check 'with the same values, but for what folders have in 16 bits' within "$(perplexity "$tmp/two-ct")" "$(perplexity "$tmp/two-Q4_0.gguf")" 0.005
fi
python3 - "$here/tests/lib" "$two" "$tmp/half.gguf" <<'END'
import sys
sys.path.insert(0, sys.argv[1])
import gguf_edit
head, _, tensors = gguf_edit.load(sys.argv[2])
gguf_edit.save(sys.argv[3], head, {k: t for k, t in tensors.items() if k != "blk.1.attn_gate.weight"})
END
expect 'one tensor of two' 2 'blk.1.attn_qkv.weight in .* does not go with attn_gate' 'convert' -- "$gsq" eval "$tmp/half.gguf" --text "$text"

# ---- types and importance matrices
[[ -n $llama ]] || done_testing
must python3 "$here/tests/lib/random_model.py" qwen3_5_moe "$demo" "$tmp/qwen3_5_moe" && must "$gsq" convert "$tmp/qwen3_5_moe" -o "$tmp/qwen3_5_moe.gguf" --type F32
# The matrices of b and a are small and stay as they are; llama-quantize rounds them too.
types() { # NAME OURS THEIRS
    "$llama" types "$2" | grep -vE 'ssm_(ba|beta|alpha)\.' | sort >"$tmp/ours"
    "$llama" types "$3" | grep -vE 'ssm_(ba|beta|alpha)\.' | sort >"$tmp/theirs"
    check "$1: the tensor types of llama-quantize" diff "$tmp/ours" "$tmp/theirs"
    check "$1: b and a are F32" test "$("$llama" types "$2" | grep -E 'ssm_(ba|beta|alpha)\.' | cut -f2 | sort -u)" = f32
}
mixtures() { # FAMILY TYPE...
    local family=$1 type
    for type in "${@:2}"; do
        must "$gsq" quantize "$tmp/$family" -o "$tmp/mine.gguf" --force --method rtn --type $type &&
            must "$llama" quantize "$tmp/$family.gguf" "$tmp/yours.gguf" $type && types "$family, $type" "$tmp/mine.gguf" "$tmp/yours.gguf"
    done
    theirs "$family, $type by llama-quantize" "$tmp/yours.gguf"
}
mixtures qwen3_next Q3_K_M Q5_K_M Q4_K_M
mixtures qwen3_5_moe Q2_K Q4_K_M
mixtures qwen3_5_uneven Q3_K_M Q4_K_M
for family in qwen3_next qwen3_5_moe_uneven; do
    must "$gsq" imatrix "$tmp/$family" --calib "$calib" --samples 1 --ctx $ctx -o "$tmp/sums.gguf" --force
    must "$gsq" imatrix "$tmp/$family.gguf" --calib "$calib" --samples 1 --ctx $ctx -o "$tmp/sums2.gguf" --force
    must "$llama" imatrix "$tmp/$family.gguf" "$calib" $ctx 1 "$tmp/llamas.gguf" || continue
    check "$family: sums as llama.cpp has them" python3 "$here/tests/lib/imatrix_same.py" "$tmp/sums.gguf" "$tmp/llamas.gguf" 'ffn_gate_inp|ssm_(ba|beta|alpha)\.'
    check "$family: sums of its GGUF too" python3 "$here/tests/lib/imatrix_same.py" "$tmp/sums2.gguf" "$tmp/sums.gguf"
    must "$llama" quantize "$tmp/$family.gguf" "$tmp/yours.gguf" Q2_K_S "$tmp/sums.gguf"
    must "$gsq" quantize "$tmp/$family" -o "$tmp/mine.gguf" --force --type Q2_K_S --imatrix "$tmp/llamas.gguf" --effort fast --steps 4 &&
        types "$family, Q2_K_S by sums" "$tmp/mine.gguf" "$tmp/yours.gguf"
done
# In a folder columns are in its order: sums that came in llama.cpp's give what the model's own give.
for sums in sums llamas; do
    must "$gsq" quantize "$tmp/qwen3_5_moe_uneven" -o "$tmp/by-$sums" --bits 2 --group 32 --method gptq --tensor 'out_proj=2' --imatrix "$tmp/$sums.gguf"
done
by=$(divergence "$tmp/by-sums" "$tmp/qwen3_5_moe_uneven") from=$(divergence "$tmp/by-llamas" "$tmp/qwen3_5_moe_uneven")
check "a folder by sums of llama.cpp: KL $from, by gsq's $by" within "$from" "$by" 0.001
# Of the two tensors.
must "$gsq" imatrix "$next" --calib "$calib" --samples 1 --ctx $ctx -o "$tmp/sums.gguf" --force && must "$llama" imatrix "$two" "$calib" $ctx 1 "$tmp/llamas.gguf" &&
    check 'sums under the names of two tensors' python3 "$here/tests/lib/imatrix_same.py" "$tmp/sums.gguf" "$tmp/llamas.gguf" 'ffn_gate_inp|ssm_ba\.'
must "$gsq" quantize "$next" -o "$tmp/mine.gguf" --force --type Q2_K_S --imatrix "$tmp/llamas.gguf" --effort fast --steps 4 &&
    check 'which gsq takes' test -s "$tmp/mine.gguf"
done_testing
