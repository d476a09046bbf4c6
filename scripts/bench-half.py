#!/usr/bin/env python3
"""What 16-bit operands do to a result: runs with every product and attention that steers on matrix cores, beside the same runs in
f32, both on the newest lavapipe (scripts/gpu-drivers.sh, preset newest). KL divergence from the 16-bit model over seeds.

    scripts/bench-half.py [--gsq FILE] [--rows FILE] [--shared FOLDER] [--print] [REGEX]

Adds each run as a row to FILE (default build/half.tsv) at once; what is in it is not measured again, so a run that was cut goes on
where it was. REGEX: only runs whose name it is found in ("demo 2 balanced coopmat 1": model, bits, set, variant, seed). --print:
nothing is measured; the page of what is there (bench/results/half-lavapipe.md, from half.tsv beside it).

Sets have numbers, not --effort, so that rows keep their meaning when levels move. FOLDER (default ../shared): models and texts
beside the repository; without it models/demo alone is measured. Some hours on two cores.
"""
import array
import json
import math
import os
import re
import shutil
import statistics
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import points as of_points  # noqa: E402
from points import here, place, result, version  # noqa: E402

CTX, EVAL_BYTES = 64, 60000
MODELS = {name: of_points.MODELS[name] for name in ("stories260K", "TinyStories-656K", "demo")}
LOUD = 2.0 ** 17  # on the last OF_GROUP channels behind every norm of a block: 131072, where others have 1
OF_GROUP = 16
for name in ("stories260K plain", "stories260K loud"):  # the same function, in groups of 16; loud: with those channels
    MODELS[name] = MODELS["stories260K"][:3] + (OF_GROUP,)
SETS = {  # windows, steps of each linear alone, epochs of the block objective, of the scales
    "fast": (128, 250, 0, 0),
    "balanced": (192, 125, 5, 1),
    "short": (32, 60, 5, 1),
}
VARIANTS = ("f32", "coopmat")
FIELDS = ("model", "bits", "set", "variant", "seed", "kl", "kl_error", "seconds", "version")
KEY = FIELDS[:5]


def points():
    """All of them, the cheap ones and the ones that decide first."""
    def runs(models, bits, name, seeds):
        for model in models:
            for seed in seeds:
                for variant in VARIANTS:
                    yield (model, bits, name, variant, seed)

    few, more = range(1, 4), range(4, 9)
    one, others = ("stories260K",), ("TinyStories-656K", "demo")
    yield from runs(one, 2, "fast", few)
    yield from runs(one, 2, "balanced", few)
    yield from runs(others, 2, "fast", few)
    yield from runs(one + others, 3, "fast", few)
    yield from runs(others, 2, "balanced", few)
    yield from runs(one, 2, "balanced", more)
    yield from runs(one, 3, "balanced", few)
    yield from runs(one, 2, "fast", more)
    yield from runs(one, 3, "fast", more)
    yield from runs(others, 3, "balanced", few)
    yield from runs(others[:1], 3, "balanced", range(4, 7))
    yield from runs(("stories260K plain", "stories260K loud"), 2, "short", few)
    yield from runs(one, 2, "short", range(1, 9))


def make_loud(source, out):
    """A copy of an F32 model whose norms' last channels are LOUD times as large, and what takes them as much smaller."""
    shutil.copytree(source, out)
    path = os.path.join(out, "model.safetensors")
    os.chmod(out, 0o755)
    os.chmod(path, 0o644)
    with open(path, "r+b") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        for name, t in json.loads(f.read(size)).items():
            taken = re.search(r"layers\.\d+\.(self_attn\.[qkv]_proj|mlp\.(gate|up)_proj|(input|post_attention)_layernorm)\.", name)
            if not taken:
                continue
            assert t["dtype"] == "F32"
            at, end = t["data_offsets"]
            cols = t["shape"][-1]
            f.seek(8 + size + at)
            v = array.array("f", f.read(end - at))
            for i in range(len(v)):
                if i % cols >= cols - OF_GROUP:
                    v[i] *= LOUD if taken[3] else 1 / LOUD
            f.seek(8 + size + at)
            f.write(v.tobytes())


def measure(gsq, point, shared, tmp):
    p = dict(zip(KEY, point))
    model, calib, text, group = MODELS[p["model"]]
    windows, steps, epochs, scales = SETS[p["set"]]
    with open(place(text, shared), "rb") as source, open(os.path.join(tmp, "eval.txt"), "wb") as f:
        f.write(source.read(EVAL_BYTES))
    folder = place(model, shared)
    if p["model"].endswith(" loud"):
        folder = os.path.join(tmp, "model")
        make_loud(place(model, shared), folder)
    command = [os.path.join(here, "scripts/gpu-drivers.sh"), "run", "lavapipe", gsq, "quantize", folder, "-o",
               os.path.join(tmp, "out"), "--calib", place(calib, shared), "--eval", os.path.join(tmp, "eval.txt"), "--format",
               "compressed-tensors", "--ctx", CTX, "--bits", p["bits"], "--group", group, "--seed", p["seed"], "--samples", windows,
               "--steps", steps, "--epochs", epochs, "--scale-epochs", scales, "--batch", 4]
    if " " in p["model"]:  # the rate of scales is absolute: too much for those of a hundred thousandth
        command += ["--lr-scales", "0"]
    command += [] if p["variant"] == "f32" else ["--variant", p["variant"]]
    last = result(command)
    p.update(kl=f"{last['mean_kl']:.6f}", kl_error=f"{last['mean_kl_error']:.6f}", seconds=f"{last['seconds']:.0f}", version=version(gsq))
    return p


# ---- the page ----

def column(values, digits):
    return f"{statistics.mean(values):.{digits}f}" + (f" +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def line(rows, name, model, bits):
    """Means, standard deviations, the difference, and that by its standard error; None where a column has no run."""
    by_seed = [{int(k[4]): float(r["kl"]) for k, r in rows.items() if k[:4] == (model, bits, name, v)} for v in VARIANTS]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if not seeds:
        return None
    f32, half = ([of[s] for s in seeds] for of in by_seed)
    digits = 4 if statistics.mean(f32) >= 0.1 else 5
    apart = statistics.mean(half) - statistics.mean(f32)
    error = math.sqrt((statistics.variance(f32) + statistics.variance(half)) / len(seeds)) if len(seeds) > 1 else 0
    return (f"| {name} | {model} | {bits} | {len(seeds)} | {column(f32, digits)} | {column(half, digits)} | "
            f"{apart / statistics.mean(f32):+.1%} | {f'{apart / error:+.1f}' if error else '-'} |\n")


def report(out, rows):
    versions = sorted({r["version"] for r in rows.values()})
    out.write("# Operands of 16 bits beside f32\n\n"
              f"Written by `scripts/bench-half.py`, {', '.join(versions)}, on the newest lavapipe, both columns; `half.tsv` has every run.\n"
              "KL divergence from the 16-bit model, mean and standard deviation over seeds. coopmat: gradients, forward passes of\n"
              "calibration and training, attention in them and Hessian sums to learn from on matrix cores. The last two columns: the difference\n"
              "of the means, and the same divided by its standard error (differences within 2 are what seeds do).\n\n")
    for name, (windows, steps, epochs, scales) in SETS.items():
        out.write(f"- {name}: {windows} windows of {CTX} tokens, {steps} steps" +
                  (f", {epochs} epochs of the block objective and {scales} of the scales\n" if epochs else "\n"))
    if any(" " in k[0] for k in rows):
        out.write(f"- stories260K loud: groups of {OF_GROUP}; behind every norm of a block the last {OF_GROUP} channels are {LOUD:.0f} times as large, and the\n"
                  "  weights that take them as much smaller: the same function as plain. Codes alone learn (`--lr-scales 0`)\n")
    out.write("\n| set | model | bits | seeds | f32 | coopmat | coopmat - f32 | in standard errors |\n| --- | --- | ---: | ---: | --- | --- | ---: | ---: |\n")
    for name in SETS:
        for bits in ("2", "3"):
            for model in MODELS:
                out.write(line(rows, name, model, bits) or "")


of_points.main("newest", "half", FIELDS, len(KEY), MODELS, points, measure, report)
