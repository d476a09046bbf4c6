#!/usr/bin/env python3
"""Compares tensors of two model folders byte for byte: tensors.py A B SUFFIX... Exits 1 on a difference."""
import json
import os
import struct
import sys


def load(folder, suffixes):
    found = {}
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".safetensors"):
            continue
        raw = open(os.path.join(folder, name), "rb").read()
        (n,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + n])
        for key, t in header.items():
            if key != "__metadata__" and any(key.endswith(s) for s in suffixes):
                a, b = t["data_offsets"]
                found[key] = (t["dtype"], t["shape"], raw[8 + n + a : 8 + n + b])
    return found


a, b = (load(folder, sys.argv[3:]) for folder in sys.argv[1:3])
if not a or a.keys() != b.keys():
    sys.exit("different tensors: %d and %d" % (len(a), len(b)))
for key in a:
    if a[key] != b[key]:
        sys.exit("%s differs" % key)
