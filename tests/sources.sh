#!/usr/bin/env bash
# Models that were released in fewer than 16 bits (FP8, MXFP4, INT4) are what an independent decoder says they are: to eval,
# compare, quantize and convert.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to make the folders"
[[ -e $demo/model.safetensors ]] || skip "$demo is not here"
python3 "$here/tests/lib/narrow_folders.py" "$demo" "$tmp/m"
text=(--text "$demo/eval.txt" --ctx 64 --windows 16)
same() { # A B SUFFIX...
    python3 "$here/tests/lib/tensors.py" "$@"
}
ended() { # NAME
    check "$1" test "$rc" -eq 0
    [[ $rc -eq 0 ]] || cat "$tmp/err"
}

for form in fp8-block fp8-odd-block fp8-whole fp8-rows mxfp4 int4 int4-text-part; do
    a=$tmp/m/$form b=$tmp/m/$form-f32
    run "$gsq" compare "$a" "$b" "${text[@]}" --json
    check "$form: the same logits as its decoded values (KL $(field mean_kl "$tmp/out"))" \
        test "$rc $(field mean_kl "$tmp/out")" = '0 0'
    again=(--method rtn --bits 3 --group 32 --format compressed-tensors -q)
    [[ $form != int4* ]] || again+=(--allow-requantize)
    run "$gsq" quantize "$a" -o "$tmp/q" "${again[@]}"
    ended "$form: quantized"
    run "$gsq" quantize "$b" -o "$tmp/r" "${again[@]}"
    check "$form: to the codes of its values" same "$tmp/q" "$tmp/r" .weight_packed .weight_scale
    check "$form: nothing of the source's packing is left" \
        bash -c '! grep -aqE "weight_scale_inv|F8_E4M3" "$1"/model.safetensors' - "$tmp/q"
    check "$form: its config.json says the new packing alone" \
        test "$(grep -c '"quant_method"' "$tmp/q/config.json")" = 1
    rm -rf "$tmp/q" "$tmp/r"
    run "$gsq" inspect "$a"
    ended "$form: inspect, $(grep -iE '^(quantized|weights)' "$tmp/out" | head -n 1)"
done

# Kept matrices are written in 16 bits.
for form in fp8-block mxfp4; do
    for side in "" -f32; do
        run "$gsq" quantize "$tmp/m/$form$side" -o "$tmp/k$side" --method rtn --bits 4 --keep 'self_attn' --format gptq -q
        ended "$form$side: attention kept"
        run "$gsq" convert "$tmp/m/$form$side" -o "$tmp/g$side.gguf" --type F32 -q
        ended "$form$side: as a GGUF"
    done
    check "$form: as its values in 16 bits" same "$tmp/k" "$tmp/k-f32" .weight .qweight .scales
    run "$gsq" compare "$tmp/g.gguf" "$tmp/g-f32.gguf" "${text[@]}" --json
    check "$form: the same GGUF" test "$(field mean_kl "$tmp/out")" = 0
    rm -rf "$tmp/k" "$tmp/k-f32" "$tmp"/g*.gguf
done

# INT4 in groups of 32 is Q4_0, code for code.
run "$gsq" convert "$tmp/m/int4" -o "$tmp/int4.gguf" -q
ended 'int4: converted to GGUF'
run "$gsq" compare "$tmp/int4.gguf" "$tmp/m/int4-f32" "${text[@]}" --json
check "int4: as Q4_0 without a loss (KL $(field mean_kl "$tmp/out"))" test "$(field mean_kl "$tmp/out")" = 0
run "$gsq" inspect "$tmp/int4.gguf"
check 'int4: in Q4_0' grep -q 'Q4_0' "$tmp/out"
# What is kept beside new codes stays what it is in the model.
run "$gsq" quantize "$tmp/m/int4" -o "$tmp/kept.gguf" --type Q8_0 --method rtn --allow-requantize --keep 'layers\.0\.' -q
ended 'int4: quantized but for a block'
same_block() { # GGUF OTHER BLOCK: its matrices, bytes and all
    python3 - "$here/tests/lib" "$@" <<'END'
import sys
sys.path.insert(0, sys.argv[1])
from gguf_file import places
def matrices(path):
    data = open(path, "rb").read()
    at = {name: place for name, (n, place) in places(data).items()}
    ends = sorted(at.values()) + [len(data)]
    return {name: data[begin:ends[ends.index(begin) + 1]] for name, begin in at.items()
            if name.startswith(sys.argv[4]) and "norm" not in name}
a, b = matrices(sys.argv[2]), matrices(sys.argv[3])
sys.exit(len(a) != 7 or a != b)
END
}
check 'int4: the codes of that block are as they were' same_block "$tmp/kept.gguf" "$tmp/int4.gguf" blk.0.
run same_block "$tmp/kept.gguf" "$tmp/int4.gguf" blk.1.
check 'int4: those of another block are not' test "$rc" -eq 1
done_testing
