#!/usr/bin/env bash
# The five export formats of one run hold the same codes, evaluate alike, and convert into each other without a change.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to compare tensors"
make=$build/make_big_block
[[ -x $make ]] || skip "$make is not built"
model=$demo
if [[ ! -e $model/model.safetensors ]]; then
    model=$tmp/model
    "$make" "$model" --hidden 128 --intermediate 256 --heads 4 --kv 2 --layers 2
fi
layers=$(sed -nE 's/.*"num_hidden_layers": *([0-9]+).*/\1/p' "$model/config.json")
dtype=BF16
! grep -q '"torch_dtype": *"float16"' "$model/config.json" || dtype=F16
formats=(gptq gptq_v2 compressed-tensors mlx humming)

same() { # A B SUFFIX...
    python3 "$here/tests/lib/tensors.py" "$@"
}
convert() { # IN OUT FORMAT [OPTION...]
    run "$gsq" convert "$1" -o "$2" --format "$3" "${@:4}" -q
    [[ $rc -eq 0 ]] || cat "$tmp/err"
    return "$rc"
}
perplexity() { # FOLDER
    run "$gsq" eval "$1" --text "$demo/eval.txt" --ctx 64 --windows 32 --json
    field perplexity "$tmp/out"
}

for bits in 2 3 4; do
    one=$tmp/$bits
    mkdir "$one"
    run "$gsq" quantize "$model" -o "$one/gptq" --method gptq --bits $bits --group 64 --calib "$demo/calib.txt" \
        --samples 16 --ctx 64 -q
    check "$bits bits: quantized" test "$rc" -eq 0
    first=$(perplexity "$one/gptq")
    for f in "${formats[@]:1}"; do
        convert "$one/gptq" "$one/$f" "$f" && convert "$one/$f" "$one/$f-back" gptq || true
        check "$bits bits: gptq -> $f -> gptq keeps every code" same "$one/gptq" "$one/$f-back" .qweight .qzeros .g_idx
        p=$(perplexity "$one/$f")
        # gptq and gptq_v2 keep fp16 scales; what the others were given is the model's bf16, or fp16 kept as it is.
        limit=0.005
        [[ $f == gptq_v2 ]] && limit=0.0001
        check "$bits bits: $f evaluates to $p, gptq to $first" within "$p" "$first" "$limit"
    done
    a=$(perplexity "$one/compressed-tensors")
    for f in mlx humming; do
        check "$bits bits: $f like compressed-tensors" within "$(perplexity "$one/$f")" "$a" 0.0001
    done
    # The long way round.
    from=$one/gptq
    for f in mlx humming compressed-tensors gptq_v2 gptq; do
        convert "$from" "$one/chain-$f" "$f" || true
        from=$one/chain-$f
    done
    check "$bits bits: a chain of five keeps every code" same "$one/gptq" "$from" .qweight .qzeros .g_idx
done

# 2-bit codes in 4-bit fields: the same values.
convert "$tmp/2/gptq" "$tmp/wide" compressed-tensors --container 4 || true
convert "$tmp/2/gptq" "$tmp/narrow" compressed-tensors || true
check '--container 4 evaluates the same' within "$(perplexity "$tmp/wide")" "$(perplexity "$tmp/narrow")" 0.0001
check '--container 4 says 4 bits' grep -q '"num_bits": *4' "$tmp/wide/config.json"

# One work folder, several exports: nothing is quantized again.
options=(--method gptq --bits 2 --group 64 --calib "$demo/calib.txt" --samples 16 --ctx 64 --keep-work --json)
run "$gsq" quantize "$model" -o "$tmp/w1" --work "$tmp/work" --format mlx "${options[@]}"
check 'quantized to mlx' test "$rc" -eq 0
for f in humming compressed-tensors; do
    run "$gsq" quantize "$model" -o "$tmp/w-$f" --work "$tmp/work" --format "$f" "${options[@]}"
    check "the same work folder to $f: $(field blocks_resumed "$tmp/out") blocks were there" \
        test "$(field blocks_resumed "$tmp/out")" -eq "$layers"
    convert "$tmp/w1" "$tmp/w1-$f" "$f" || true
    check "and it is what convert makes of mlx" same "$tmp/w-$f" "$tmp/w1-$f" .weight .weight_packed .weight_scale .bias
done

# Mixed precision, and linears that stay.
run "$gsq" quantize "$model" -o "$tmp/mixed" --method rtn --bits 2 --group 64 --format compressed-tensors \
    --tensor 'down_proj=4,g32' --tensor 'v_proj=8' --keep 'layers\.1\.self_attn\.q_proj' -q
check 'mixed precision' test "$rc" -eq 0
run "$gsq" inspect "$tmp/mixed" --json
python3 - "$tmp/out" <<'END' >"$tmp/kinds"
import json, sys
r = [json.loads(line) for line in open(sys.argv[1])][-1]
print(sorted({(x["linear"], x.get("type", x.get("dtype")), x.get("group", 0)) for x in r["linears"]}))
END
for want in "('down_proj', '4', 32)" "('v_proj', '8', 64)" "('q_proj', '$dtype', 0)" "('q_proj', '2', 64)"; do
    check "inspect reads back $want" grep -qF "$want" "$tmp/kinds"
done
mixed=$(perplexity "$tmp/mixed")
convert "$tmp/mixed" "$tmp/mixed-gptq" gptq || true
check "mixed precision as gptq evaluates alike ($mixed)" within "$(perplexity "$tmp/mixed-gptq")" "$mixed" 0.005
expect 'converting to the same folder' 2 "is the model's own folder" '-o' -- "$gsq" convert "$tmp/w1" -o "$tmp/w1" --format mlx
expect 'converting what is not quantized' 2 'not quantized' 'quantize' -- "$gsq" convert "$model" -o "$tmp/x" --format mlx
done_testing
