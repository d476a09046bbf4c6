#!/usr/bin/env bash
# Bad input, one line each: what the program says, what it advises, and the exit code.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to damage files"
make=$build/make_big_block
[[ -x $make ]] || skip "$make is not built"

"$make" "$tmp/good" --hidden 128 --intermediate 256 --heads 4 --kv 2 --layers 2
head -c 60000 <(while :; do echo "The fox is quick and the dog is lazy, and both of them like the garden."; done) >"$tmp/text" || true
quantize=("$gsq" quantize -q)
out=(-o "$tmp/result")

damaged() { # FLAW: a fresh damaged copy
    rm -rf "$tmp/bad" "$tmp/result" "$tmp/result.work"
    cp -r "$tmp/good" "$tmp/bad"
    python3 "$here/tests/lib/damage.py" "$tmp/bad" "$1"
}

damaged header-size
expect 'header length 2^63' 2 '9223372036854775808' 'safetensors' -- "${quantize[@]}" "$tmp/bad" "${out[@]}" --method rtn
damaged truncated-shard
expect 'truncated shard' 2 'model-00002-of-00002.safetensors.*holds only' 'cut short' -- \
    "${quantize[@]}" "$tmp/bad" "${out[@]}" --method rtn
damaged overlap
expect 'overlapping offsets' 2 'overlap' 'download' -- "${quantize[@]}" "$tmp/bad" "${out[@]}" --method rtn
damaged missing
expect 'missing tensor' 2 'model.layers.1.mlp.up_proj.weight is missing' 'all shards' -- \
    "${quantize[@]}" "$tmp/bad" "${out[@]}" --method rtn
expect 'missing tensor of the reference' 2 "^error: the tensor model.layers.1.mlp.up_proj.weight is missing in $tmp/bad\$" -- \
    "$gsq" compare "$tmp/good" "$tmp/bad" --text "$tmp/text" --ctx 64 --windows 1
damaged nan
expect 'NaN weight' 2 'model.layers.0.mlp.gate_proj.weight.* NaN' 'damaged' -- \
    "${quantize[@]}" "$tmp/bad" "${out[@]}" --method rtn
# What lies there in place of a model is named, and what to do.
while IFS='|' read -r flaw message hint; do
    damaged "$flaw"
    expect "$flaw" 2 "$message" "$hint" -- "$gsq" eval "$tmp/bad" --text "$tmp/text" --ctx 64
done <<'END'
loose-missing|holds 1 of 2 shards; model-00002-of-00002.safetensors is missing|download
index-one|the shard .*model-00002-of-00002.safetensors is missing: .*index.json names it|download
index-none|none of the 2 shards is there: .*model-00001-of-00002.safetensors, model-00002-of-00002|download
lfs-config.json|config.json is a Git LFS pointer|git lfs pull
lfs-tokenizer.json|tokenizer.json is a Git LFS pointer|git lfs pull
lfs-model.safetensors|model.safetensors is a Git LFS pointer|git lfs pull
lfs-model.safetensors.index.json|index.json is a Git LFS pointer|git lfs pull
page-config.json|config.json is a web page|download the file again
page-model.safetensors|model.safetensors is a web page|download the file again
only-pytorch_model.bin|has no model.safetensors; it holds PyTorch files: pytorch_model.bin|save_pretrained
only-model.pth|holds PyTorch files: model.pth|save_pretrained
only-last.ckpt|holds PyTorch files: last.ckpt|save_pretrained
only-consolidated.safetensors|maker's own layout: consolidated.safetensors|Hugging Face's layout
only-consolidated.00.pth|maker's own layout: consolidated.00.pth|Hugging Face's layout
only-adapter_model.safetensors|holds an adapter|merge
only-M-Q4_K_M.gguf|holds a GGUF file: M-Q4_K_M.gguf|name the file itself
only-tf_model.h5|another framework: tf_model.h5|safetensors
only-other.safetensors|safetensors under other names: other.safetensors|model-00001-of
prefix-model.language_model.|named model.language_model.layers.0|its language model alone
prefix-language_model.model.|with the prefix "language_model.model."|its language model alone
prefix-|with the prefix "" where gsq expects "model."|AutoModelForCausalLM
no-head|has no lm_head.weight.*does not say that the head is the embedding|"tie_word_embeddings": true
no-embedding|has lm_head.weight, but no model.embed_tokens.weight|"tie_word_embeddings": true
END
damaged prefix-model.language_model.
run "$gsq" inspect "$tmp/bad"
check 'inspect shows such a model, and why it cannot be quantized' grep -q 'refuse this model: the tensors of' "$tmp/out"
rm -rf "$tmp/bad"
mkdir "$tmp/bad"
expect 'an empty folder' 2 'has no config.json' 'Hugging Face folder' -- "$gsq" inspect "$tmp/bad"
touch "$tmp/bad/consolidated.00.pth" "$tmp/bad/params.json"
expect "a folder in Meta's layout" 2 "maker's own layout: consolidated.00.pth and 1 more" "Hugging Face's layout" -- \
    "$gsq" inspect "$tmp/bad"
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n' >"$tmp/p.gguf"
expect 'a GGUF that is a pointer' 2 'p.gguf is a Git LFS pointer' 'git lfs pull' -- "$gsq" inspect "$tmp/p.gguf"
printf 'PK\3\4....' >"$tmp/p.bin"
expect 'a PyTorch file as the model' 2 "p.bin is a zip archive: PyTorch's" 'save_pretrained' -- "$gsq" inspect "$tmp/p.bin"

# What an export cannot take is refused before the first block, by the dry run and by inspect too.
damaged F4
for more in --dry-run ''; do
    # shellcheck disable=SC2086
    expect "a tensor of type F4 ${more:-run}" 2 'k_scale.* stored as F4.*cannot be carried' 'original' -- \
        "${quantize[@]}" "$tmp/bad" "${out[@]}" --method rtn $more
done
check 'and no block was begun' test ! -e "$tmp/result.work"
run "$gsq" inspect "$tmp/bad"
check 'inspect says so' grep -qE 'gptq .*does not take this model: .*k_scale.*F4' "$tmp/out"
damaged F8_E4M3
expect 'a tensor of type F8 has no place in a GGUF' 2 'k_scale.*no place in a GGUF' -- \
    "${quantize[@]}" "$tmp/bad" -o "$tmp/bad.out.gguf" --method rtn --type Q4_0 --dry-run
run "${quantize[@]}" "$tmp/bad" "${out[@]}" --method rtn
check 'and is carried along in a folder' test "$rc" -eq 0
check 'byte for byte' python3 - "$tmp/bad" "$tmp/result" <<'END'
import json, struct, sys
def tensor(d):
    raw = open(d + "/model.safetensors", "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    t = json.loads(raw[8 : 8 + n])["model.layers.0.self_attn.k_scale"]
    a, b = t.pop("data_offsets")
    return t, raw[8 + n + a : 8 + n + b]
assert tensor(sys.argv[1]) == tensor(sys.argv[2]) and len(tensor(sys.argv[1])[1]) == 128
END

# MLX stores the lowest level beside the scale: a run does not end at one that f16 cannot hold.
for times in '1.2e6 scales were rounded' '2e6 stored as bf16'; do
    damaged "times-${times%% *}"
    for bits in 3 4 8; do
        run "${quantize[@]}" "$tmp/bad" -o "$tmp/result" --method rtn --bits "$bits" --format mlx
        check "weights times ${times%% *}, mlx, $bits bits: exit $rc" test "$rc" -eq 0
        check "  ${times#* }" grep -q "${times#* }" "$tmp/err"
        run "$gsq" inspect "$tmp/result"
        check '  and is read back' test "$rc" -eq 0
    done
done

# Scales that f16 does not hold: said with what it costs; stored as bf16 where the format has it.
for times in 1e9 1e-9; do
    damaged "times-$times"
    for to in "$tmp/result:--bits 4 --format gptq" "$tmp/result.gguf:--type Q4_0" "$tmp/result.gguf:--type Q4_1"; do
        # shellcheck disable=SC2086
        run "${quantize[@]}" "$tmp/bad" -o "${to%%:*}" --method rtn ${to#*:} --dry-run
        check "weights times $times, ${to#*:}: warned of" grep -qE \
            'warning: model.layers.0.mlp.gate_proj: its scales exceed the range of f16; .* about (1|0\.9)[0-9]* \(0\.[01]' "$tmp/err"
    done
    run "${quantize[@]}" "$tmp/bad" -o "$tmp/result" --method rtn --bits 4 --format compressed-tensors
    check "weights times $times, compressed-tensors: bf16, and said" grep -q 'stored as bf16: f16 does not hold' "$tmp/err"
    check "and the weights are there" python3 - "$tmp/bad" "$tmp/result" <<'END'
import json, struct, sys
def tensor(d, name):
    raw = open(d + "/model.safetensors", "rb").read()
    (n,) = struct.unpack("<Q", raw[:8])
    t = json.loads(raw[8 : 8 + n])[name]
    a, b = t["data_offsets"]
    return t["dtype"], t["shape"], raw[8 + n + a : 8 + n + b]
name = "model.layers.0.mlp.gate_proj.weight"
dtype, (rows, cols), raw = tensor(sys.argv[1], name)
assert dtype == "F32"
want = struct.unpack("<%df" % (rows * cols), raw)
dtype, (_, groups), raw = tensor(sys.argv[2], name + "_scale")
assert dtype == "BF16" and json.load(open(sys.argv[2] + "/config.json"))["torch_dtype"] == "bfloat16"
scales = [struct.unpack("<f", b"\0\0" + raw[i : i + 2])[0] for i in range(0, len(raw), 2)]
codes = tensor(sys.argv[2], name + "_packed")[2]
norm = lost = 0
for i, w in enumerate(want):
    q = (codes[i // 2] >> i % 2 * 4 & 15) - 8
    s = scales[i // cols * groups + i % cols * groups // cols]
    norm, lost = norm + w * w, lost + (w - q * s) ** 2
assert 0.01 < (lost / norm) ** 0.5 < 0.15, (lost / norm) ** 0.5
END
    # A conversion of such scales to f16, where there is no bf16; and of a model that says it is f16, to where there is.
    for to in gptq gguf; do
        if [[ $times == 1e9 ]]; then
            expect "scales times $times converted to $to" 2 'gate_proj has scales above 65504' 'store bf16 scales' -- \
                "$gsq" convert -q "$tmp/result" -o "$tmp/result2${to/#gguf/.gguf}" --format $to
        else
            run "$gsq" convert -q "$tmp/result" -o "$tmp/result2${to/#gguf/.gguf}" --format $to
            check "scales times $times converted to $to: warned of" grep -qE \
                'warning: model.layers.0.mlp.gate_proj: its scales exceed the range of f16; .* becomes 1$' "$tmp/err"
        fi
    done
    sed -i 's/"bfloat16"/"float16"/' "$tmp/result/config.json"
    run "$gsq" convert -q "$tmp/result" -o "$tmp/result3" --format compressed-tensors
    check "scales times $times of a float16 model: bf16, and said" grep -q 'stored as bf16: f16 does not hold' "$tmp/err"
    check "and the same codes and scales" python3 - "$tmp/result/model.safetensors" "$tmp/result3/model.safetensors" <<'END'
import struct, sys
def data(path):
    raw = open(path, "rb").read()
    return raw[8 + struct.unpack("<Q", raw[:8])[0] :]
assert data(sys.argv[1]) == data(sys.argv[2])
END
    rm -rf "$tmp/result"*
done

damaged architecture
expect 'unknown architecture' 2 'GPTNeoXForCausalLM is not supported' 'Llama, ' -- \
    "${quantize[@]}" "$tmp/bad" "${out[@]}" --method rtn
run "$gsq" inspect "$tmp/bad"
check 'inspect of an unknown architecture still tells' grep -q 'not supported' "$tmp/out"

# A good model in two shards is no error.
damaged sharded
run "${quantize[@]}" "$tmp/bad" "${out[@]}" --method rtn
check 'two whole shards are read' test "$rc" -eq 0
cp "$tmp/result/model.safetensors" "$tmp/sharded.safetensors"
damaged loose
run "${quantize[@]}" "$tmp/bad" "${out[@]}" --method rtn
check 'and so are two without an index' test "$rc" -eq 0
check 'to the same bytes' cmp "$tmp/result/model.safetensors" "$tmp/sharded.safetensors"

# Packed weights whose description lies in quantize_config.json alone, without the method's name, as older files have it.
run "${quantize[@]}" "$tmp/good" -o "$tmp/old" --method rtn --bits 4
run "$gsq" eval "$tmp/old" --text "$demo/eval.txt" --ctx 64 --windows 2 -q
cp "$tmp/out" "$tmp/old.eval"
python3 -c 'import json, sys
folder = sys.argv[1]
c = json.load(open(folder + "/config.json")); del c["quantization_config"]; json.dump(c, open(folder + "/config.json", "w"))
q = json.load(open(folder + "/quantize_config.json")); del q["quant_method"]; json.dump(q, open(folder + "/quantize_config.json", "w"))' "$tmp/old"
run "$gsq" eval "$tmp/old" --text "$demo/eval.txt" --ctx 64 --windows 2 -q
check "quantize_config.json alone: $(head -n 1 "$tmp/out")" test "$(head -n 1 "$tmp/out")" = "$(head -n 1 "$tmp/old.eval")" -a -s "$tmp/out"
rm "$tmp/old/quantize_config.json"
expect 'neither of the two' 2 'packed, and neither config.json nor' 'download' -- "$gsq" eval "$tmp/old" --text "$demo/eval.txt"
run "$gsq" inspect "$tmp/old"
check 'inspect shows it all the same' test "$rc" -eq 0

# Shapes against the gptq format, of all kinds at once.
"$make" "$tmp/k3" --hidden 80 --intermediate 176 --heads 2 --kv 2
expect 'gptq with seven kinds' 2 'gptq cannot hold 7 linears of 7 kinds; the first: model.layers.0.self_attn.q_proj is 80 x 80' \
    "keep 'q_proj.k_proj.v_proj.o_proj.gate_proj.up_proj.down_proj'" -- "${quantize[@]}" "$tmp/k3" -o "$tmp/k3q" --method rtn
# Codes that a conversion finds no place for: all of them, and no option of quantize.
"${quantize[@]}" "$tmp/good" "${out[@]}" --method rtn --bits 3 --group 16 --format compressed-tensors >/dev/null
expect 'mlx with groups of 16' 2 'mlx cannot hold 14 linears of 7 kinds; the first: model.layers.0.self_attn.q_proj: MLX .* not 16$' \
    'format hf writes their values' -- "$gsq" convert -q "$tmp/result" -o "$tmp/converted" --format mlx
expect 'and a GGUF' 2 'cannot be stored exactly as any type of GGUF; nor can those of 13 more weights' 'type F16' -- \
    "$gsq" convert -q "$tmp/result" -o "$tmp/converted.gguf"
expect 'a container that mlx has not' 2 '^error: --container 4 does not go with mlx' -- \
    "$gsq" convert -q "$tmp/result" -o "$tmp/converted" --format mlx --container 4
rm -rf "$tmp/result"*
"$make" "$tmp/k" --hidden 128 --intermediate 240 --heads 4 --kv 2
rm -rf "$tmp/result"*
expect 'gptq with K % 32 != 0' 2 'down_proj.*240' "keep 'down_proj'" -- \
    "${quantize[@]}" "$tmp/k" "${out[@]}" --method rtn --group 16 --keep 'gate|up'
run "${quantize[@]}" "$tmp/k" "${out[@]}" --method rtn --keep 'mlp'
check '--keep leaves such linears in 16 bits' test "$rc" -eq 0
rm -rf "$tmp/result"*
"$make" "$tmp/n" --hidden 128 --intermediate 256 --heads 8 --kv 1
expect 'gptq with N % 32 != 0' 2 'k_proj.*16' "keep 'k_proj.v_proj'" -- "${quantize[@]}" "$tmp/n" "${out[@]}" --method rtn
"$make" "$tmp/short" --hidden 128 --intermediate 192 --heads 4 --kv 2
run "${quantize[@]}" "$tmp/short" "${out[@]}" --method rtn
check "a short last group passes (exit $rc)" test "$rc" -eq 0
check "and is warned of: $(grep -m1 '^warning' "$tmp/err" || true)" grep -qE 'warning: .*down_proj.*192.*load' "$tmp/err"
rm -rf "$tmp/result"*

# Calibration.
expect 'calibration file not there' 2 'no/such/text' 'spelling' -- \
    "${quantize[@]}" "$tmp/good" "${out[@]}" --method gptq --calib "$tmp/no/such/text"
expect 'calibration file is a folder' 2 'not a regular file' -- \
    "${quantize[@]}" "$tmp/good" "${out[@]}" --method gptq --calib "$tmp"
head -c 100 "$tmp/text" >"$tmp/tiny"
expect 'calibration shorter than one window' 2 'tiny.* (window|token)' '.' -- \
    "${quantize[@]}" "$tmp/good" "${out[@]}" --method gptq --calib "$tmp/tiny" --ctx 256
expect 'a text beside the one that the model writes' 2 '--calib self is in place of a text' -- \
    "${quantize[@]}" "$tmp/good" "${out[@]}" --calib self --calib "$tmp/text"
expect 'text of eval not there' 2 'no/such/text' 'spelling' -- "$gsq" eval "$tmp/good" --text "$tmp/no/such/text" --ctx 64

# Where the result goes.
echo file >"$tmp/file"
expect 'output folder is a file' 2 "$tmp/file" -- "${quantize[@]}" "$tmp/good" -o "$tmp/file" --method rtn
expect 'output below a file' 2 "$tmp/file" -- "${quantize[@]}" "$tmp/good" -o "$tmp/file/sub" --method rtn
mkdir "$tmp/mnt"
if mount -t tmpfs -o size=8m gsq-test "$tmp/mnt" 2>/dev/null; then
    mounts+=("$tmp/mnt")
    mount -o remount,ro "$tmp/mnt"
    expect 'output folder not writable' 2 'Read-only' 'permissions' -- \
        "${quantize[@]}" "$tmp/good" -o "$tmp/mnt/out" --method rtn
    mount -o remount,rw,size=64k "$tmp/mnt"
    expect 'disk too small' 3 'not enough disk space' 'free some space' -- \
        "${quantize[@]}" "$tmp/good" -o "$tmp/mnt/out" --method rtn
    mount -o remount,size=100k "$tmp/mnt"
    head -c 200000 /dev/zero >"$tmp/mnt/filler" 2>/dev/null || true
    expect 'disk full' 3 'not enough|No space left' 'free some space' -- \
        "${quantize[@]}" "$tmp/good" -o "$tmp/mnt/out" --work "$tmp/work" --method rtn
    check 'a full disk leaves no half model' test ! -e "$tmp/mnt/out/config.json"
else
    echo 'left out: read-only folder and full disk (no permission to mount a tmpfs)'
fi

# The machine. An empty file in place of the loader is what dlopen finds first.
mkdir "$tmp/lib"
: >"$tmp/lib/libvulkan.so.1"
: >"$tmp/lib/libvulkan.so"
expect 'no Vulkan loader' 3 'no Vulkan loader' 'libvulkan1' -- \
    env "LD_LIBRARY_PATH=$tmp/lib" "${quantize[@]}" "$tmp/good" "${out[@]}" --method rtn
expect 'no device' 3 'no Vulkan (driver|device)' 'mesa-vulkan-drivers' -- \
    env "VK_ICD_FILENAMES=$tmp/none.json" "VK_DRIVER_FILES=$tmp/none.json" \
    "${quantize[@]}" "$tmp/good" "${out[@]}" --method rtn
expect 'a device that is not there' 2 "no device.*'77'" '0: ' -- "$gsq" devices --device 77
expect 'not enough device memory' 3 'device memory' 'mem-limit' -- \
    "${quantize[@]}" "$tmp/good" "${out[@]}" --method gptq --calib "$tmp/text" --ctx 64 --mem-limit 0.01
# GGUF files.
while IFS='|' read -r flaw message hint; do
    python3 "$here/tests/lib/damage_gguf.py" "$tmp/bad.gguf" "$flaw"
    expect "GGUF: $flaw" 2 "bad.gguf.*$message" "$hint" -- "$gsq" inspect "$tmp/bad.gguf"
done <<'END'
magic|does not begin with|older GGML
version|version 7; versions 2 and 3|convert
truncated-header|more than a file of 70 bytes|download
truncated-data|"b.weight" ends at byte 416.* holds only 356|cut short
overlap|"a.weight" and "b.weight" overlap|download
tensors|1152921504606846976 tensors|download
nested|"general.list" is an array of arrays|download
block|"a.weight".*rows of 33 .*multiple of 32|download
string|string of 4611686018427387904 bytes|download
array|array of 2305843009213693952 elements|download
none|"llama.embedding_length" is missing|convert
END
run "$gsq" convert -q "$demo" -o "$tmp/t99.gguf" --type F16
python3 - "$tmp/t99.gguf" <<'END'
import sys
d = bytearray(open(sys.argv[1], "rb").read())
name = b"blk.0.attn_q.weight"
d[d.index(name) + len(name) + 4 + 2 * 8] = 99
open(sys.argv[1], "wb").write(d)
END
expect 'GGUF: a type of tomorrow' 2 'blk.0.attn_q.weight in .*t99.gguf is stored as type 99, which gsq does not read' 'another' -- \
    "${quantize[@]}" "$tmp/t99.gguf" "${out[@]}" --method rtn

done_testing
