"""Decodes exported folders the way their consumers document it, sharing nothing with gsq, and compares every weight with
reference.safetensors. Standard library only. Usage: consumer_decode.py FOLDER..."""
import json
import os
import re
import struct
import sys


def load(path):
    """{name: (dtype, shape, bytes)} of a safetensors file, and its metadata."""
    with open(path, "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(size).decode("utf-8"))
        data = f.read()
    metadata = header.pop("__metadata__", {})
    tensors, end = {}, 0
    for name, info in header.items():
        begin, stop = info["data_offsets"]
        assert begin == end, f"{name}: a hole or an overlap"
        end = stop
        tensors[name] = (info["dtype"], info["shape"], data[begin:stop])
    assert end == len(data), "bytes after the last tensor"
    return tensors, metadata


def load_folder(folder):
    index = os.path.join(folder, "model.safetensors.index.json")
    if not os.path.exists(index):
        return load(os.path.join(folder, "model.safetensors"))
    tensors, metadata = {}, {}
    with open(index, encoding="utf-8") as f:
        text = json.load(f)
    total = 0
    for shard in sorted(set(text["weight_map"].values())):
        part, metadata = load(os.path.join(folder, shard))
        assert all(text["weight_map"][name] == shard for name in part)
        total += sum(len(t[2]) for t in part.values())
        tensors.update(part)
    assert total == text["metadata"]["total_size"] and set(tensors) == set(text["weight_map"])
    return tensors, metadata


def numbers(tensor):
    dtype, shape, data = tensor
    count = 1
    for n in shape:
        count *= n
    if dtype == "BF16":
        return [struct.unpack("<f", struct.pack("<I", h << 16))[0] for h in struct.unpack(f"<{count}H", data)]
    return list(struct.unpack("<%d%s" % (count, {"F16": "e", "F32": "f", "I32": "i", "U32": "I", "I64": "q"}[dtype]), data))


def words(tensor):
    assert tensor[0] in ("I32", "U32"), tensor[0]
    return list(struct.unpack("<%dI" % (len(tensor[2]) // 4), tensor[2]))


def unpack(stream, bits, count):
    """Dense little-endian: one integer, cut into pieces."""
    value = int.from_bytes(struct.pack("<%dI" % len(stream), *stream), "little")
    codes = [(value >> (i * bits)) & ((1 << bits) - 1) for i in range(count)]
    assert value >> (count * bits) == 0, "tail bits are not zero"
    return codes


def unpack3(stream):
    """The 3-bit layout as AutoGPTQ's kernels spell it out: 10 codes, one over the seam, 10, one over the seam, 10."""
    codes = []
    for a, b, c in zip(stream[0::3], stream[1::3], stream[2::3]):
        codes += [(a >> (3 * i)) & 7 for i in range(10)]
        codes.append((a >> 30) | ((b & 1) << 2))
        codes += [(b >> (3 * i + 1)) & 7 for i in range(10)]
        codes.append((b >> 31) | ((c & 3) << 1))
        codes += [(c >> (3 * i + 2)) & 7 for i in range(10)]
    return codes


def first_match(dynamic, name):
    """GPTQModel and vLLM: rules in order, re.match; "-:" skips, "+:" (or nothing) overrides."""
    for pattern, value in dynamic.items():
        if pattern.startswith("-:"):
            if re.match(pattern[2:], name):
                return False
        elif re.match(pattern[2:] if pattern.startswith("+:") else pattern, name):
            return value
    return None


def gptq(folder, config, tensors, module):
    q = config["quantization_config"]
    with open(os.path.join(folder, "quantize_config.json"), encoding="utf-8") as f:
        assert json.load(f) == q, "quantize_config.json differs"
    assert q["quant_method"] == "gptq" and q["sym"] is True and q["desc_act"] is False and q["pack_dtype"] == "int32"
    rule = first_match(q.get("dynamic", {}), module)
    packed = module + ".qweight" in tensors
    if module == "lm_head" and not q["lm_head"]:
        rule = False
    assert packed == (rule is not False), f"{module}: packed {packed}, rule {rule}"
    if not packed:
        return None
    own = dict(q, **(rule or {}))
    bits, group = own["bits"], own["group_size"]
    rows, n = tensors[module + ".qweight"][1]
    k = rows * 32 // bits
    group = k if group == -1 else group
    groups = -(-k // group)
    qweight, qzeros = words(tensors[module + ".qweight"]), words(tensors[module + ".qzeros"])
    scales, g_idx = numbers(tensors[module + ".scales"]), numbers(tensors[module + ".g_idx"])
    assert tensors[module + ".scales"][0:2] == ("F16", [groups, n])
    assert tensors[module + ".qzeros"][1] == [groups, n * bits // 32] and g_idx == [i // group for i in range(k)]
    width = n * bits // 32
    zeros = [unpack(qzeros[g * width:(g + 1) * width], bits, n) for g in range(groups)]
    add = {"gptq": 1, "gptq_v2": 0}[q["checkpoint_format"]]
    weight = []
    for row in range(n):
        column = qweight[row::n]
        codes = unpack(column, bits, k)
        if bits == 3:
            assert codes == unpack3(column)
        weight += [scales[g * n + row] * (c - zeros[g][row] - add) for c, g in zip(codes, g_idx)]
    return weight


def named(targets, name):
    return any(re.match(t[3:], name) if t.startswith("re:") else t == name for t in targets)


def compressed_tensors(folder, config, tensors, module):
    q = config["quantization_config"]
    assert q["quant_method"] == "compressed-tensors" and q["format"] == "pack-quantized"
    assert q["quantization_status"] == "compressed"
    packed = module + ".weight_packed" in tensors
    assert packed == (not named(q["ignore"], module)), f"{module}: packed {packed}, ignore {q['ignore']}"
    if not packed:
        return None
    groups = list(q["config_groups"].values())
    chosen = [g for g in groups if named(g["targets"], module)] or [g for g in groups if "Linear" in g["targets"]]
    assert len(chosen) == 1, f"{module}: {len(chosen)} groups match"
    w = chosen[0]["weights"]
    assert w["type"] == "int" and w["symmetric"] is True and w["dynamic"] is False
    bits = w["num_bits"]
    n, k = numbers(tensors[module + ".weight_shape"])
    group = w["group_size"] if w["strategy"] == "group" else k
    per_row, groups = -(-k * bits // 32), -(-k // group)
    assert tensors[module + ".weight_packed"][0:2] == ("I32", [n, per_row])
    assert tensors[module + ".weight_scale"][1] == [n, groups]
    stream, scales = words(tensors[module + ".weight_packed"]), numbers(tensors[module + ".weight_scale"])
    weight = []
    for row in range(n):
        codes = unpack(stream[row * per_row:(row + 1) * per_row], bits, k)
        weight += [(c - (1 << (bits - 1))) * scales[row * groups + i // group] for i, c in enumerate(codes)]
    return weight


def humming(folder, config, tensors, module):
    q = config["quantization_config"]
    assert q["quant_method"] == "humming" and q["has_zero_point"] is False and q["is_fp_zero_point"] is False
    rule = first_match(q.get("dynamic", {}), module)
    # vLLM looks for an ignored name anywhere in the module's name, and never quantizes the head.
    skip = rule is False or any(i in module for i in q["ignore"]) or "lm_head" in module
    packed = module + ".weight_scale" in tensors
    assert packed == (not skip), f"{module}: packed {packed}, rule {rule}"
    if not packed:
        return None
    own = dict(q, **(rule or {}))
    bits, group = int(own["b_dtype"][len("uint"):]), own["group_size"]
    n, per_row = tensors[module + ".weight"][1]
    k = per_row * 32 // bits
    group = group or k
    stream, scales = words(tensors[module + ".weight"]), numbers(tensors[module + ".weight_scale"])
    assert tensors[module + ".weight_scale"][1] == [n, k // group]
    weight = []
    for row in range(n):
        codes = unpack(stream[row * per_row:(row + 1) * per_row], bits, k)
        weight += [(c - (1 << (bits - 1))) * scales[row * (k // group) + i // group] for i, c in enumerate(codes)]
    return weight


def mlx(folder, config, tensors, module):
    q = config["quantization"]
    assert q == config["quantization_config"]
    packed = module + ".scales" in tensors
    rule = q.get(module, packed)  # mlx-lm: the module's own entry, else whether .scales is there
    assert packed == (rule is not False), f"{module}: packed {packed}, rule {rule}"
    if not packed:
        return None
    own = rule if isinstance(rule, dict) else q
    bits, group = own["bits"], own["group_size"]
    n, per_row = tensors[module + ".weight"][1]
    k = per_row * 32 // bits
    assert tensors[module + ".weight"][0] == "U32" and group in (32, 64, 128) and k % group == 0
    stream = words(tensors[module + ".weight"])
    scales, biases = numbers(tensors[module + ".scales"]), numbers(tensors[module + ".biases"])
    assert tensors[module + ".scales"][0:2] == tensors[module + ".biases"][0:2]
    assert tensors[module + ".scales"][1] == [n, k // group]
    weight = []
    for row in range(n):
        codes = unpack(stream[row * per_row:(row + 1) * per_row], bits, k)
        for i, c in enumerate(codes):
            at = row * (k // group) + i // group
            weight.append(c * scales[at] + biases[at])
    return weight


DECODERS = {"gptq": gptq, "gptq_v2": gptq, "compressed-tensors": compressed_tensors, "humming": humming, "mlx": mlx}


def check(folder):
    tensors, metadata = load_folder(folder)
    reference, info = load(os.path.join(folder, "reference.bin"))
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    decode = DECODERS[info["format"]]
    assert metadata["format"] == ("mlx" if info["format"] == "mlx" else "pt")
    compared = 0
    for name, want in reference.items():
        weight = decode(folder, config, tensors, name)
        assert weight is not None, f"{name} is not quantized"
        want = numbers(want)
        assert len(weight) == len(want), f"{name}: {len(weight)} values, expected {len(want)}"
        for i, (a, b) in enumerate(zip(weight, want)):
            assert a == b, f"{name}: element {i} is {a}, expected {b}"
        compared += len(want)
    for name in tensors:
        module, _, suffix = name.rpartition(".")
        if suffix == "weight" and module not in reference and len(tensors[name][1]) == 2 and module != "model.embed_tokens":
            assert decode(folder, config, tensors, module) is None, f"{module} should be in 16 bits"
    print(f"ok {folder}: {len(reference)} linears, {compared} weights equal")


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: consumer_decode.py FOLDER...")
    for folder in sys.argv[1:]:
        try:
            check(folder)
        except Exception as error:
            sys.exit(f"{folder}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
