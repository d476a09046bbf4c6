#!/usr/bin/env python3
"""What gsq writes, as hashes: to see that a change of the code changes no byte of any result.

    scripts/same-bytes.py [BUILD] [MODELS] [RUN] > before.txt      (default: build/release, ../shared/models, all)
    (change the code, build)
    scripts/same-bytes.py > after.txt; diff before.txt after.txt

A line for each run: its name, the hash of all tensors (name, type, shape, bytes), the hash of whatever else is in the files,
without the version of gsq. RUN: a regular expression; only runs whose names it is found in. On lavapipe about five minutes on
two cores. Models that are not there are left out, and said so.
"""
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
build = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "build/release"))
models = os.path.abspath(sys.argv[2] if len(sys.argv) > 2 else os.path.join(here, "../shared/models"))
only = sys.argv[3] if len(sys.argv) > 3 else ""
gsq = os.path.join(build, "gsq")
calib = os.path.join(here, "models/demo/calib.txt")
few = ["--calib", calib, "--samples", "8", "--ctx", "64"]
efforts = {
    "rtn": ["--method", "rtn"],
    "gptq": ["--method", "gptq", *few],
    "fast": ["--effort", "fast", "--steps", "20", *few],
    "balanced": ["--steps", "20", "--epochs", "2", "--scale-epochs", "1", *few],
}
formats = ["gptq", "gptq_v2", "compressed-tensors", "mlx", "humming"]
# A type of each kind of block; which types a model's widths allow differs.
types = ["Q2_K", "Q3_K_M", "Q4_K_M", "Q2_0", "TQ1_0", "TQ2_0", "Q4_0", "Q6_K"]


def safetensors(data, tensors):
    n = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:8 + n])
    rest = header.pop("__metadata__", {})
    for name, t in sorted(header.items()):
        begin, end = t["data_offsets"]
        tensors.update(f"{name} {t['dtype']} {t['shape']}\n".encode())
        tensors.update(data[8 + n + begin:8 + n + end])
    return json.dumps(rest, sort_keys=True).encode()


def gguf(data, tensors):
    """Hashes the section of the data with the list of tensors; returns the keys' bytes."""
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    at = 24
    n_tensors, n_keys = struct.unpack_from("<QQ", data, 8)

    def text(at):
        n = struct.unpack_from("<Q", data, at)[0]
        return at + 8 + n

    def value(kind, at):
        if kind == 8:
            return text(at)
        if kind != 9:
            return at + sizes[kind]
        element, n = struct.unpack_from("<IQ", data, at)
        at += 12
        if element in sizes:
            return at + n * sizes[element]
        for _ in range(n):
            at = value(element, at)
        return at

    for _ in range(n_keys):
        at = text(at)
        at = value(struct.unpack_from("<I", data, at)[0], at + 4)
    tensors.update(data[at:])
    return data[24:at] + struct.pack("<Q", n_tensors)


def hashes(path):
    tensors, rest = hashlib.sha256(), hashlib.sha256()
    files = [path] if os.path.isfile(path) else [os.path.join(path, f) for f in sorted(os.listdir(path))]
    for f in files:
        with open(f, "rb") as stream:
            data = stream.read()
        kind = safetensors if f.endswith(".safetensors") else gguf if f.endswith(".gguf") else None
        other = kind(data, tensors) if kind else data
        rest.update(os.path.basename(f).encode() + re.sub(rb"gsq[: ]\d+\.\d+\.\d+[0-9A-Za-z.+-]*", b"gsq", other))
    return tensors.hexdigest()[:32], rest.hexdigest()[:16]


def run(name, folder, arguments, out):
    out = os.path.join(folder, out)
    if not re.search(only, name):
        return out
    p = subprocess.run([gsq, *arguments, "-o", out, "--quiet"], cwd=folder, capture_output=True, text=True, check=False)
    if p.returncode:
        print(f"{name}: refused: {p.stderr.splitlines()[0] if p.stderr else p.returncode}".replace(folder, "."), flush=True)
    else:
        print(name, *hashes(out), flush=True)
    return out


def report(folder):
    for model in ("stories260K", "TinyStories-656K", "oak-2.9M"):
        if not os.path.isdir(os.path.join(models, model)):
            print(f"{model}: not there")
            continue
        os.symlink(os.path.join(models, model), os.path.join(folder, model))
        small = model != "oak-2.9M"
        # Its feed-forward is 172 wide, which GPTQ's words do not divide.
        fits = ["--format", "compressed-tensors"] if model == "stories260K" else []
        for effort, how in efforts.items():
            for bits in ("2", "3", "4", "ternary"):
                if small or bits == "2":
                    run(f"{model} {effort} {bits}", folder,
                        ["quantize", model, *how, "--bits", bits, "--group", "32", *fits], "out")
                    shutil.rmtree(os.path.join(folder, "out"), ignore_errors=True)
        # Nor 64 its 32 keys.
        fits = ["--keep", "mlp|k_proj|v_proj"] if fits else []
        for name in formats:
            bits = "4" if name == "compressed-tensors" else "2"
            run(f"{model} format {name}", folder,
                ["quantize", model, *efforts["gptq"], "--format", name, "--bits", bits, "--group", "32", *fits], "out-" + name)
        for name in types:
            effort = "balanced" if name == "Q2_K" or small else "gptq"
            run(f"{model} {effort} {name}", folder, ["quantize", model, *efforts[effort], "--type", name], name + ".gguf")
        run(f"{model} imatrix", folder, ["imatrix", model, *few], "im.gguf")
        run(f"{model} rtn by imatrix", folder, ["quantize", model, "--method", "rtn", "--imatrix", "im.gguf", "--type", "Q2_0"],
            "by-im.gguf")
        if os.path.exists(os.path.join(folder, "Q2_0.gguf")):
            run(f"{model} refine", folder, ["quantize", model, "--refine", "Q2_0.gguf", *efforts["fast"]], "refined.gguf")
            run(f"{model} convert gguf to gptq", folder, ["convert", "Q2_0.gguf", "--format", "gptq"], "converted")
        if os.path.exists(os.path.join(folder, "out-gptq")):
            run(f"{model} convert gptq to hf", folder, ["convert", "out-gptq", "--format", "hf"], "hf")
            run(f"{model} convert gptq to gguf", folder, ["convert", "out-gptq", "--format", "gguf"], "from-gptq.gguf")
        for left in os.listdir(folder):
            path = os.path.join(folder, left)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)


with tempfile.TemporaryDirectory() as where:
    report(where)
