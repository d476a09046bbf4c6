#!/usr/bin/env python3
"""Damages a model folder in one named way, for tests/bad_input.sh: damage.py DIR FLAW."""
import json
import os
import struct
import sys

DIR, FLAW = sys.argv[1:3]
PATH = os.path.join(DIR, "model.safetensors")


def read():
    raw = open(PATH, "rb").read()
    (n,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + n]), bytearray(raw[8 + n :])


def write(header, data, path=PATH):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + data)


def tensors(header):
    return {k: v for k, v in header.items() if k != "__metadata__"}


def shard():
    """Two shards and an index in place of the one file."""
    header, data = read()
    names = sorted(tensors(header), key=lambda k: header[k]["data_offsets"])
    index = {"metadata": {"total_size": len(data)}, "weight_map": {}}
    for i, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :])):
        file = "model-%05d-of-00002.safetensors" % (i + 1)
        new, blob = {}, b""
        for k in part:
            a, b = header[k]["data_offsets"]
            new[k] = dict(header[k], data_offsets=[len(blob), len(blob) + b - a])
            blob += data[a:b]
            index["weight_map"][k] = file
        write(new, blob, os.path.join(DIR, file))
    os.remove(PATH)
    json.dump(index, open(os.path.join(DIR, "model.safetensors.index.json"), "w"))


def config(**changes):
    path = os.path.join(DIR, "config.json")
    c = json.load(open(path))
    c.update(changes)
    json.dump(c, open(path, "w"))


if FLAW == "header-size":
    with open(PATH, "r+b") as f:
        f.write(struct.pack("<Q", 1 << 63))
elif FLAW == "sharded":
    shard()
elif FLAW == "truncated-shard":
    shard()
    last = os.path.join(DIR, "model-00002-of-00002.safetensors")
    os.truncate(last, os.path.getsize(last) - 100)
elif FLAW == "overlap":
    header, data = read()
    names = sorted(tensors(header), key=lambda k: header[k]["data_offsets"])
    a, b = header[names[1]]["data_offsets"]
    header[names[1]]["data_offsets"] = [a - 2, b - 2]
    write(header, data)
elif FLAW == "missing":
    header, data = read()
    names = sorted(tensors(header), key=lambda k: header[k]["data_offsets"])
    last = max(k for k in names if "mlp.up_proj" in k)
    a, b = header.pop(last)["data_offsets"]
    del data[a:b]
    for k in tensors(header):
        x, y = header[k]["data_offsets"]
        if x >= b:
            header[k]["data_offsets"] = [x - (b - a), y - (b - a)]
    write(header, data)
elif FLAW == "nan":
    header, data = read()
    t = header["model.layers.0.mlp.gate_proj.weight"]
    assert t["dtype"] == "BF16"
    at = t["data_offsets"][0] + 2 * 77
    data[at : at + 2] = struct.pack("<H", 0x7FC0)
    write(header, data)
elif FLAW.startswith("times-"):  # one linear of a model in float16, far beyond or below the others, as F32
    header, data = read()
    t = header["model.layers.0.mlp.gate_proj.weight"]
    a, b = t["data_offsets"]
    n = (b - a) // 2
    words = struct.unpack("<%dH" % n, data[a:b])
    values = struct.unpack("<%df" % n, struct.pack("<%dI" % n, *(x << 16 for x in words)))
    t.update(dtype="F32", data_offsets=[len(data), len(data) + 4 * n])
    data += struct.pack("<%df" % n, *(float(FLAW[6:]) * x for x in values))
    kept = sorted(tensors(header).values(), key=lambda k: k["data_offsets"])
    blob = b""
    for k in kept:
        x = data[k["data_offsets"][0] : k["data_offsets"][1]]
        k["data_offsets"] = [len(blob), len(blob) + len(x)]
        blob += x
    write(header, blob)
    config(torch_dtype="float16")
elif FLAW in ("F8_E4M3", "F4"):  # a tensor of that type beside the model's own
    header, data = read()
    n = 64 if FLAW == "F4" else 128
    header["model.layers.0.self_attn.k_scale"] = {
        "dtype": FLAW,
        "shape": [8, 16],
        "data_offsets": [len(data), len(data) + n],
    }
    write(header, data + bytes(i * 7 % 256 for i in range(n)))
elif FLAW == "loose":  # whole shards, no index
    shard()
    os.remove(os.path.join(DIR, "model.safetensors.index.json"))
elif FLAW == "loose-missing":
    shard()
    os.remove(os.path.join(DIR, "model.safetensors.index.json"))
    os.remove(os.path.join(DIR, "model-00002-of-00002.safetensors"))
elif FLAW in ("index-one", "index-none"):  # an index that names what is not there
    shard()
    os.remove(os.path.join(DIR, "model-00002-of-00002.safetensors"))
    if FLAW == "index-none":
        os.remove(os.path.join(DIR, "model-00001-of-00002.safetensors"))
elif FLAW.startswith("lfs-"):
    shard() if "index" in FLAW else None
    open(os.path.join(DIR, FLAW[4:]), "w").write(
        "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 9085657\n" % ("b" * 64)
    )
elif FLAW.startswith("page-"):
    open(os.path.join(DIR, FLAW[5:]), "w").write("\n<!DOCTYPE html><html><body>Access denied</body></html>")
elif FLAW.startswith("only-"):  # only a file of another kind in place of the safetensors
    os.remove(PATH)
    open(os.path.join(DIR, FLAW[5:]), "wb").write(b"PK\3\4" + bytes(100))
elif FLAW.startswith("prefix-"):
    header, data = read()
    write({(FLAW[7:] + k[6:] if k.startswith("model.") else k): v for k, v in header.items()}, data)
elif FLAW in ("no-head", "no-embedding"):
    header, data = read()
    config(tie_word_embeddings=False)
    a, b = ("lm_head.weight", "model.embed_tokens.weight")
    if FLAW == "no-embedding":
        a, b = b, a
    one = header.pop(b) if b in header else header.pop(a)
    header.pop(a, None)
    t = bytes(data[one["data_offsets"][0] : one["data_offsets"][1]])
    names = sorted(tensors(header), key=lambda k: header[k]["data_offsets"])
    new, blob = {}, b""
    for k in names + [b]:
        x = t if k == b else bytes(data[header[k]["data_offsets"][0] : header[k]["data_offsets"][1]])
        new[k] = dict(one if k == b else header[k], data_offsets=[len(blob), len(blob) + len(x)])
        blob += x
    write(new, blob)
elif FLAW == "architecture":
    config(architectures=["GPTNeoXForCausalLM"], model_type="gpt_neox")
else:
    sys.exit("no flaw named " + FLAW)
