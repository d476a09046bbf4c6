#!/usr/bin/env bash
# Families with experts that no trained test model is of: tiny random ones against a forward pass in double precision that reads
# config.json for itself (tests/ref/forward.py), and through their GGUF against llama.cpp (tests/llama). Each is quantized, and layers that
# guess further tokens are carried over.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed"
llama=$build/llama_run
[[ -x $llama ]] || llama=
text=$demo/eval.txt
head -c 400 "$text" >"$tmp/few.txt"

perplexity() { # MODEL [OPTION...]
    must "$gsq" eval "$1" --text "$tmp/few.txt" --ctx 32 "${@:2}" --json && got=$(field perplexity "$tmp/out")
}
divergence() { # MODEL FROM
    must "$gsq" compare "$1" "$2" --text "$text" --ctx 64 --windows 4 --json && field mean_kl "$tmp/out"
}
theirs() { # NAME FILE: llama.cpp and gsq on the same windows
    [[ -n $llama ]] || return 0
    must "$gsq" eval "$2" --protocol llama.cpp --text "$text" --ctx 64 --windows 4 --json || return 0
    local ours
    ours=$(field perplexity "$tmp/out")
    must "$llama" ppl "$2" "$text" 64 4 && got=$(number perplexity "$tmp/out") &&
        check "$1: perplexity $ours, in llama.cpp $got" within "$got" "$ours" 0.00001
}

make() { # NAME [KEY=VALUE]: folder and want, its perplexity in double precision
    local ids
    folder=$tmp/$1
    rm -rf "${folder:?}"
    python3 "$here/tests/lib/random_model.py" "$1" "$demo" "$folder" ${2:+"$2"}
    ids=$("$build/dump_tokens" "$folder" "$tmp/few.txt" | python3 -c 'import json, sys; print(json.loads(sys.stdin.readline())["ids"])')
    want=$(python3 "$here/tests/ref/forward.py" "$folder" 32 "$ids" | cut -d" " -f1)
    perplexity "$folder" && check "$1: perplexity $got, in double precision $want" within "$got" "$want" 0.000001
}
learn() { # NAME [FORMAT]: its folder is made
    must "$gsq" quantize "$folder" -o "$folder-rtn" --method rtn --bits 2 --group 32 --format compressed-tensors
    must "$gsq" quantize "$folder" -o "$folder-2" --format "${2:-gptq}" --bits 2 --group 32 --effort fast --steps 4 --calib "$text" --samples 8 --ctx 64
    rounded=$(divergence "$folder-rtn" "$folder") && learned=$(divergence "$folder-2" "$folder") &&
        check "$1: 2 bits, KL $learned, rounded to nearest $rounded" at_most "$learned" "$(awk -v r="$rounded" 'BEGIN { print 0.85 * r }')"
}
through_gguf() { # NAME: the same
    local file=$tmp/$1.gguf
    must "$gsq" convert "$folder" -o "$file" --type F32 || return 0
    perplexity "$file" && check "$1: its GGUF $got" within "$got" "$want" 0.000001
    theirs "$1" "$file"
    must "$gsq" convert "$file" -o "$folder-back" --format hf && perplexity "$folder-back" &&
        check "$1: the folder of that $got" within "$got" "$want" 0.000001
    must "$gsq" quantize "$folder" -o "$file" --force --type Q4_0 --method rtn || return 0
    # Its kernels round what they multiply to 8 bits, which random weights feel: the same weights in F32.
    [[ -n $llama ]] && must "$llama" dequant "$file" "$tmp/wide.gguf" || return 0
    must "$gsq" convert "$file" -o "$tmp/own.gguf" --format gguf --type F32 &&
        check "$1: gsq dequantizes Q4_0 as ggml does" "$llama" same "$tmp/own.gguf" "$tmp/wide.gguf"
    theirs "$1, Q4_0" "$tmp/wide.gguf"
}
for name in gpt_oss deepseek_v2_lite; do
    make $name
done
make deepseek_v2 && learn deepseek_v2
make glm4_moe_norm && through_gguf glm4_moe_norm
for name in glm4_moe granitemoe granitemoeshared; do
    make $name && learn $name && through_gguf $name
done
# A matrix that a GGUF has as two tensors is both in importance matrices, which come back as they were.
must "$gsq" imatrix "$folder" --calib "$text" --samples 2 --ctx 64 -o "$tmp/imatrix.gguf" &&
    check 'granitemoeshared: an importance matrix names both' grep -q 'blk.1.ffn_gate_shexp.weight.in_sum2' "$tmp/imatrix.gguf" &&
    must "$gsq" quantize "$folder" -o "$tmp/important.gguf" --type Q4_0 --method rtn --imatrix "$tmp/imatrix.gguf" &&
    perplexity "$tmp/important.gguf" && check "granitemoeshared, Q4_0 by it: perplexity $got" within "$got" "$want" 0.2
# So it is where a file is refined.
must "$gsq" quantize "$folder" -o "$tmp/q2.gguf" --type Q2_0 --method rtn &&
    must "$gsq" quantize "$folder" --refine "$tmp/q2.gguf" -o "$tmp/refined.gguf" --effort fast --steps 30 --calib "$text" --samples 32 --ctx 64 &&
    check 'granitemoeshared: refined, only codes changed' python3 "$here/tests/lib/gguf_codes.py" "$tmp/q2.gguf" "$tmp/refined.gguf" &&
    rounded=$(divergence "$tmp/q2.gguf" "$folder") && learned=$(divergence "$tmp/refined.gguf" "$folder") &&
    check "granitemoeshared: KL of the file $rounded, refined $learned" at_most "$learned" "$(awk -v r="$rounded" 'BEGIN { print 0.97 * r }')"
# llama.cpp blends yarn between whole pairs.
blend='rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1}'
make gpt_oss "$blend" && through_gguf gpt_oss
# Experts with biases, which a run that goes on in the middle of a layer reads again.
whole=("$gsq" quantize "$tmp/gpt_oss" --bits 2 --group 32 --format compressed-tensors --method gptq --calib "$text" --samples 8 --ctx 64)
must "${whole[@]}" -o "$tmp/oss-whole"
GSQ_STOP_AT=kill:block:2 run "${whole[@]}" -o "$tmp/oss-again"
check 'gpt_oss: it ended there' test "$rc" -ge 130
must "${whole[@]}" -o "$tmp/oss-again"
check 'gpt_oss: killed and gone on, the same bytes' cmp "$tmp/oss-again/model.safetensors" "$tmp/oss-whole/model.safetensors"
make gpt_oss_mxfp4 "$blend" && learn gpt_oss_mxfp4 mlx && through_gguf gpt_oss_mxfp4
# MXFP4 against values that its definition gives, decoded by another program; kept matrices are those in 16 bits.
python3 "$here/tests/lib/decode_mxfp4.py" "$tmp/gpt_oss_mxfp4" "$tmp/decoded"
check 'MXFP4: the same logits as its decoded values' test "$(divergence "$tmp/gpt_oss_mxfp4" "$tmp/decoded")" = 0
for way in '' --keep=down_proj; do
    for from in gpt_oss_mxfp4 decoded; do
        must "$gsq" quantize "$tmp/$from" -o "$tmp/$from-codes" --force --method rtn --bits 3 --group 32 --format compressed-tensors $way
    done
    check "MXFP4 ${way:-all}: the codes of its values" python3 "$here/tests/lib/tensors.py" "$tmp/gpt_oss_mxfp4-codes" "$tmp/decoded-codes" .weight_packed .weight_scale .weight .bias
done
# In a GGUF those that stay are what they were released as.
mx=$tmp/gpt_oss_mxfp4.gguf
must "$gsq" convert "$tmp/gpt_oss_mxfp4" -o "$mx" --force
check 'MXFP4 in a GGUF: the same logits' test "$(divergence "$mx" "$tmp/decoded")" = 0
must "$gsq" convert "$mx" -o "$tmp/again.gguf" --force && must "$gsq" convert "$mx" -o "$tmp/own.gguf" --type F32 --force
must "$gsq" quantize "$tmp/gpt_oss_mxfp4" -o "$tmp/mx8.gguf" --type Q8_0 --method rtn --keep experts
if [[ -n $llama ]]; then
    check 'MXFP4 in a GGUF: all experts' test "$("$llama" types "$mx" | grep '_exps.weight' | cut -f2 | sort | uniq -c | tr -s ' ')" = ' 9 mxfp4'
    must "$llama" dequant "$mx" "$tmp/wide.gguf" && check 'MXFP4 in a GGUF: what ggml makes of it' "$llama" same "$tmp/own.gguf" "$tmp/wide.gguf"
    theirs 'MXFP4 in a GGUF' "$tmp/wide.gguf"
    check 'MXFP4 from GGUF to GGUF' "$llama" same "$mx" "$tmp/again.gguf"
    # As llama-quantize's MXFP4_MOE, by which llama.cpp's files of gpt-oss were made: the rest Q8_0.
    must "$llama" quantize "$mx" "$tmp/moe.gguf" MXFP4_MOE - --allow-requantize
    "$llama" types "$tmp/moe.gguf" | sort >"$tmp/theirs" && "$llama" types "$tmp/mx8.gguf" | sort >"$tmp/ours"
    check 'MXFP4 that stays, the rest Q8_0: the types of MXFP4_MOE' diff "$tmp/ours" "$tmp/theirs"
    must "$llama" dequant "$tmp/moe.gguf" "$tmp/wide.gguf" && must "$gsq" convert "$tmp/moe.gguf" -o "$tmp/own.gguf" --type F32 --force &&
        check "llama-quantize's MXFP4_MOE: gsq reads it as ggml does" "$llama" same "$tmp/own.gguf" "$tmp/wide.gguf"
fi
# llama.cpp chooses experts from no groups, or by two of each, and knows V2-Lite by its number of layers.
expect 'groups by their best' 2 'llama.cpp chooses groups of experts by two of each' 'folder' -- "$gsq" convert "$tmp/deepseek_v2" -o "$tmp/groups.gguf"
python3 "$here/tests/lib/random_model.py" deepseek_v2 "$demo" "$tmp/greedy" 'topk_method="greedy"'
python3 "$here/tests/lib/random_model.py" deepseek_v2_lite "$demo" "$tmp/lite" num_hidden_layers=27
for name in greedy lite; do
    must "$gsq" convert "$tmp/$name" -o "$tmp/$name.gguf" --type F32 || continue
    theirs "deepseek_v2, $name" "$tmp/$name.gguf"
    perplexity "$tmp/$name" && want=$got
    must "$gsq" convert "$tmp/$name.gguf" -o "$tmp/$name-back" --format hf && perplexity "$tmp/$name-back" &&
        check "deepseek_v2, $name: perplexity $want, by way of a GGUF $got" within "$got" "$want" 0.000001
done

# ---- a layer behind the last
check 'a layer that guesses further tokens is carried over' python3 - "$here/tests/lib" "$tmp/glm4_moe" "$tmp/glm4_moe-rtn" <<'END'
import sys
sys.path.insert(0, sys.argv[1])
import tensor_file
a, b = ({k: t for k, t in tensor_file.load_folder(f).items() if ".layers.3." in k} for f in sys.argv[2:])
sys.exit(len(a) < 30 or a != b)
END
# Of a GGUF that counts one such layer; what is made of it counts none.
must "$gsq" quantize "$tmp/glm4_moe" -o "$tmp/behind.gguf" --type F32 --method rtn --override-kv glm4moe.nextn_predict_layers=int:1
python3 "$here/tests/lib/random_model.py" glm4_moe "$demo" "$tmp/two" num_hidden_layers=2
perplexity "$tmp/two" && two=$got
perplexity "$tmp/behind.gguf" && check "a GGUF with such a layer: perplexity $got" test "$got" = "$two"
must "$gsq" convert "$tmp/behind.gguf" -o "$tmp/without.gguf" --format gguf --type F32
check 'it is left out, with a word' grep -q 'what guesses further tokens behind them are left out' "$tmp/err"
perplexity "$tmp/without.gguf" && check "without it: perplexity $got" test "$got" = "$two"
theirs 'without it' "$tmp/without.gguf"
must "$gsq" convert "$tmp/behind.gguf" -o "$tmp/behind" --format hf && must "$gsq" convert "$tmp/behind" -o "$tmp/again.gguf" --type F32
perplexity "$tmp/again.gguf" && check "by way of a folder: perplexity $got" test "$got" = "$two"
theirs 'by way of a folder' "$tmp/again.gguf"
python3 "$here/tests/lib/random_model.py" granitemoe "$demo" "$tmp/five" num_local_experts=5
expect 'experts of another number' 2 "is not one tensor of 5 experts' matrices" -- "$gsq" eval "$tmp/five" --text "$tmp/few.txt"
python3 "$here/tests/lib/random_model.py" gpt_oss "$demo" "$tmp/limit" swiglu_limit=5.0
expect 'another limit' 2 '"swiglu_limit" is not 7' -- "$gsq" eval "$tmp/limit" --text "$tmp/few.txt" --ctx 32
done_testing
