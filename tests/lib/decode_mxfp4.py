#!/usr/bin/env python3
"""decode_mxfp4.py FOLDER OUT: a gpt-oss folder with its experts in MXFP4 as one that holds their values in F32, a matrix for each expert. Written
from the format's definition, shares nothing with gsq. Standard library only."""
import json
import os
import shutil
import struct
import sys

import tensor_file

source, out = sys.argv[1:3]
os.makedirs(out)
shutil.copy(os.path.join(source, "tokenizer.json"), out)
with open(os.path.join(source, "config.json")) as f:
    config = json.load(f)
del config["quantization_config"]
with open(os.path.join(out, "config.json"), "w") as f:
    json.dump(config, f)
VALUES = [s * v for s in (1, -1) for v in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)]
tensors, made = tensor_file.load_folder(source), {}


def put(name, rows):
    made[name] = ("F32", (len(rows), len(rows[0])), b"".join(struct.pack(f"<{len(r)}f", *r) for r in rows))


def decode(name):
    """[expert][row][column]"""
    _, (experts, rows, groups, _), blocks = tensors[name + "_blocks"]
    scales, at, all_rows = tensors[name + "_scales"][2], 0, []
    for _ in range(experts * rows):
        row = []
        for _ in range(groups):
            scale = 2.0 ** (scales[at // 16] - 127)
            for byte in blocks[at : at + 16]:
                row += [VALUES[byte % 16] * scale, VALUES[byte // 16] * scale]
            at += 16
        all_rows.append(row)
    return [all_rows[e * rows : (e + 1) * rows] for e in range(experts)]


for name, t in tensors.items():
    front = name.rsplit(".", 1)[0]
    if name.endswith("gate_up_proj_blocks"):
        for e, rows in enumerate(decode(name[: -len("_blocks")])):
            put(f"{front}.{e}.gate_proj.weight", rows[0::2])
            put(f"{front}.{e}.up_proj.weight", rows[1::2])
    elif name.endswith("down_proj_blocks"):
        for e, rows in enumerate(decode(name[: -len("_blocks")])):
            put(f"{front}.{e}.down_proj.weight", rows)
    elif not name.endswith("_scales"):
        made[name] = t
tensor_file.save(os.path.join(out, "model.safetensors"), made)
