#!/usr/bin/env python3
"""narrow_folders.py MODEL OUT: the linears of a 16-bit model folder in every form that models are released in with fewer bits,
each as OUT/FORM beside OUT/FORM-f32, which holds the values that the form's definition gives them. Encoder and decoder are
written from the formats' definitions and share nothing with gsq. Standard library only."""
import json
import math
import os
import shutil
import struct
import sys

import tensor_file

E4M3 = [math.ldexp(f, -9) if not e else math.ldexp(8 + f, e - 10) for e in range(16) for f in range(8)][:127]
E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def bf16(x):
    """Cut, not rounded: any 16-bit scale will do."""
    return struct.unpack("<f", struct.pack("<I", struct.unpack("<I", struct.pack("<f", x))[0] & 0xFFFF0000))[0]


def nearest(table, x):
    """The code of |x| among the magnitudes of a table, with its sign as the bit above."""
    lo, hi = 0, len(table) - 1
    while hi - lo > 1:
        mid = (lo + hi) // 2
        lo, hi = (mid, hi) if table[mid] <= abs(x) else (lo, mid)
    code = lo if abs(abs(x) - table[lo]) <= abs(table[hi] - abs(x)) else hi
    return code + ((len(table) + 1) // 2 * 2 if x < 0 else 0)


def save(folder, source, tensors, quantization, inner):
    """inner: as the text part of a model that reads more than text."""
    os.makedirs(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(os.path.join(source, name), folder)
    config = json.load(open(os.path.join(source, "config.json")))
    if quantization:
        config["quantization_config"] = quantization
    if inner:
        tensors = {"language_model." + name: t for name, t in tensors.items()}
        tensors["vision_tower.patch_conv.weight"] = ("BF16", [2, 2], bytes(8))
        del config["architectures"]
        config = {
            "architectures": ["Mistral3ForConditionalGeneration"],
            "model_type": "mistral3",
            "tie_word_embeddings": True,
            "text_config": dict(config, model_type="mistral"),
        }
    json.dump(config, open(os.path.join(folder, "config.json"), "w"))
    tensor_file.save(os.path.join(folder, "model.safetensors"), tensors)


def fp8(w, rows, cols, name, block_rows, block_cols, suffix, dtype):
    """E4M3, a scale for each block."""
    n, m = -(-rows // block_rows), -(-cols // block_cols)
    peak = [0.0] * (n * m)
    for r in range(rows):
        for c in range(cols):
            b = r // block_rows * m + c // block_cols
            peak[b] = max(peak[b], abs(w[r * cols + c]))
    scales = [(f32 if dtype == "F32" else bf16)(max(p, 1e-6) / 400) for p in peak]
    codes, values = bytearray(), []
    for r in range(rows):
        for c in range(cols):
            s = scales[r // block_rows * m + c // block_cols]
            code = nearest(E4M3, w[r * cols + c] / s)
            codes.append(code)
            values.append(f32((-1 if code & 128 else 1) * E4M3[code & 127] * s))
    pack = struct.pack("<%df" % len(scales), *scales)
    if dtype == "BF16":
        pack = b"".join(pack[i + 2 : i + 4] for i in range(0, len(pack), 4))
    shape = [n, m] if n * m > 1 else [1]
    return {name + ".weight": ("F8_E4M3", [rows, cols], bytes(codes)), name + suffix: (dtype, shape, pack)}, values


def mxfp4(w, rows, cols, name):
    """E2M1, two to a byte, a power of two for each 32 of a row."""
    codes, scales, values = bytearray(), bytearray(), []
    for at in range(0, rows * cols, 32):
        group = w[at : at + 32]
        e = max(-127, math.frexp(max(abs(x) for x in group) / 6 or 1e-9)[1])
        scales.append(e + 127)
        nibbles = [nearest(E2M1, x / 2.0**e) for x in group]
        codes += bytes(nibbles[i] | nibbles[i + 1] << 4 for i in range(0, 32, 2))
        values += [(-1 if q & 8 else 1) * E2M1[q & 7] * 2.0**e for q in nibbles]
    return {
        name + ".weight_packed": ("U8", [rows, cols // 2], bytes(codes)),
        name + ".weight_scale": ("U8", [rows, cols // 32], bytes(scales)),
    }, values


def int4(w, rows, cols, name):
    """Codes of four bits with 8 added, the first in the lowest bits of a word; a bfloat16 scale for each 32 of a row."""
    words, scales, values = [], b"", []
    for at in range(0, rows * cols, 32):
        group = w[at : at + 32]
        s = bf16(max(max(abs(x) for x in group), 1e-6) / 7)
        codes = [max(-7, min(7, round(x / s))) for x in group]
        words += [sum((q + 8) << 4 * i for i, q in enumerate(codes[j : j + 8])) for j in range(0, 32, 8)]
        scales += struct.pack("<f", s)[2:]
        values += [f32(q * s) for q in codes]
    return {
        name + ".weight_packed": ("I32", [rows, cols // 8], struct.pack("<%dI" % len(words), *words)),
        name + ".weight_scale": ("BF16", [rows, cols // 32], scales),
        name + ".weight_shape": ("I64", [2], struct.pack("<2q", rows, cols)),
    }, values


def tensors_config(form, weights):
    group = {"targets": ["Linear"], "input_activations": None, "weights": weights}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
    }


FORMS = {
    "fp8-block": (
        lambda *w: fp8(*w, 128, 128, ".weight_scale_inv", "F32"),
        {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    ),
    "fp8-odd-block": (
        lambda *w: fp8(*w, 48, 40, ".weight_scale_inv", "BF16"),
        {"quant_method": "fp8", "weight_block_size": [48, 40], "modules_to_not_convert": ["lm_head"]},
    ),
    "fp8-whole": (lambda *w: fp8(*w, 1 << 20, 1 << 20, ".weight_scale_inv", "BF16"), {"quant_method": "fp8"}),
    "fp8-rows": (
        lambda *w: fp8(*w, 1, 1 << 20, ".weight_scale", "BF16"),
        tensors_config("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}),
    ),
    "mxfp4": (
        mxfp4,
        tensors_config("mxfp4-pack-quantized", {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}),
    ),
    "int4": (
        int4,
        tensors_config("pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}),
    ),
}

FORMS["int4-text-part"] = FORMS["int4"]

source, out = sys.argv[1:]
model = tensor_file.load(os.path.join(source, "model.safetensors"))
for form, (encode, quantization) in FORMS.items():
    packed, plain = {}, {}
    for name, (dtype, shape, data) in model.items():
        if not name.endswith("_proj.weight"):
            packed[name] = plain[name] = (dtype, shape, data)
            continue
        assert dtype == "F16"
        weights = struct.unpack("<%de" % (len(data) // 2), data)
        parts, values = encode(weights, *shape, name[: -len(".weight")])
        packed.update(parts)
        plain[name] = ("F32", shape, struct.pack("<%df" % len(values), *values))
    save(os.path.join(out, form), source, packed, quantization, "text-part" in form)
    save(os.path.join(out, form + "-f32"), source, plain, None, "text-part" in form)
