#!/usr/bin/env python3
"""What steps, windows and epochs buy: KL divergence from the 16-bit model over the options that --effort sets.

    scripts/bench-levels.py [--gsq FILE] [--rows FILE] [--shared FOLDER] [--print] [REGEX]

Measures point after point, the ones that decide first, and adds each as a row to FILE (default build/levels.tsv); what is in it
is not measured again, so an interrupted run goes on where it was. Every option is given by its number, never by --effort, so that
rows keep their meaning when levels move. REGEX: only points whose name it is found in ("demo 2 .* 128 125 0 0": model, bits,
method, windows, steps, epochs, scale epochs, batch, seed). --print: nothing is measured; the table of what is there.

FOLDER (default ../shared): models and texts beside the repository; without it models/demo alone is measured. Windows have 128
tokens, so that 128 of them are to these models' widths what 128 of 2048 are to an 8B model's. Seconds are told only where the
machine is idle. Some hours on two cores; wants `nice -n 19` on a machine that others use.
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import points as of_points  # noqa: E402
from points import MODELS, place, result, version  # noqa: E402

CTX, EVALUATED = 128, 200
FIELDS = ("model", "bits", "method", "windows", "steps", "epochs", "scale_epochs", "batch", "seed", "kl", "kl_error", "perplexity",
          "mean_loss", "seconds", "version")
KEY = FIELDS[:9]
SMALL = ("demo", "stories260K", "TinyStories-656K")
# (windows, steps, epochs, scale epochs, batch). What the levels were before this was measured, and what they are
# (quantize_set_effort); paper is too long to measure.
OLD = {"fast": (128, 500, 0, 0, 4), "balanced": (128, 500, 10, 3, 4)}
NEW = {"quick": (64, 125, 0, 0, 4), "fast": (128, 250, 0, 0, 4), "balanced": (192, 125, 5, 1, 4), "best": (512, 125, 10, 2, 4)}


def pflop(windows, steps, epochs, scale_epochs, _):
    """Of a run over Llama-3.1-8B, windows of 2048 tokens, by the counts of docs/method.md 8."""
    held = min(16, windows // 8)
    passes = 0.123 * windows / 128 * (2 if epochs or scale_epochs else 1)
    block = steps * 2.989e-3 + 0.067 * windows / 128 + passes + epochs * ((windows - held) * 2.251e-3 + held * 0.96e-3)
    return 32 * block + scale_epochs * 13.3 * windows / 128


def points():
    """All of them, the ones that decide first: (model, bits, method, windows, steps, epochs, scale epochs, batch, seed)."""
    def gsq(models, bits, sets, seeds=(1,)):
        for windows, steps, epochs, scales, batch in sets:
            for seed in seeds:
                for model in models:
                    yield (model, bits, "gsq", windows, steps, epochs, scales, batch, seed)

    alone = [(128, n, 0, 0, 4) for n in (125, 250, 500, 60)] + [(64, n, 0, 0, 4) for n in (60, 125, 250)]
    together = [OLD["balanced"], NEW["balanced"], (128, 125, 10, 3, 4), (128, 125, 6, 3, 4), (128, 125, 10, 1, 4), (256, 125, 5, 1, 4),
                (192, 125, 5, 1, 4), (256, 125, 3, 1, 4), (128, 125, 6, 1, 4), (128, 125, 6, 0, 4), (128, 125, 3, 1, 4)]
    for model in SMALL:
        yield (model, 2, "gptq", 128, 0, 0, 0, 4, 1)
    yield from gsq(SMALL, 2, alone)
    yield from gsq(SMALL, 2, together)
    yield ("oak-2.9M", 2, "gptq", 128, 0, 0, 0, 4, 1)
    yield from gsq(("oak-2.9M",), 2, [(128, 125, 0, 0, 4), (64, 125, 0, 0, 4), (128, 250, 0, 0, 4)])
    for model in SMALL:
        yield (model, 3, "gptq", 128, 0, 0, 0, 4, 1)
    yield from gsq(SMALL, 3, alone[:3] + [(64, 125, 0, 0, 4)])
    yield from gsq(SMALL, 3, [OLD["balanced"], NEW["balanced"]])
    yield from gsq(SMALL, 2, [OLD["balanced"], NEW["balanced"]], (2,))
    yield from gsq(("oak-2.9M",), 2, [(128, 500, 0, 0, 4), NEW["balanced"], OLD["balanced"]])
    yield from gsq(SMALL, 2, alone[:3] + [(64, 125, 0, 0, 4)], (2, 3))
    yield from gsq(SMALL, 2, [NEW["best"], (512, 125, 3, 1, 4), (512, 125, 0, 0, 4), (512, 500, 0, 0, 4), (128, 60, 6, 1, 4),
                              (128, 500, 6, 1, 4), (128, 125, 1, 1, 4), (128, 125, 20, 3, 4), (128, 125, 3, 3, 4)])
    yield from gsq(SMALL, 3, [(128, 125, 3, 1, 4), (128, 125, 10, 3, 4), (128, 60, 0, 0, 4), NEW["best"]])
    yield ("oak-2.9M", 3, "gptq", 128, 0, 0, 0, 4, 1)
    yield from gsq(("oak-2.9M",), 3, [(128, n, 0, 0, 4) for n in (125, 250, 500)] + [OLD["balanced"], NEW["balanced"]])
    yield from gsq(SMALL, 2, [(512, 500, 20, 5, 0)])


def measure(gsq, point, shared, tmp):
    p = dict(zip(KEY, point))
    model, calib, text, group = MODELS[p["model"]]
    out = os.path.join(tmp, "out")
    how = ["--method", p["method"], "--samples", p["windows"], "--ctx", CTX, "--steps", max(1, p["steps"]), "--epochs", p["epochs"],
           "--scale-epochs", p["scale_epochs"], "--batch", p["batch"], "--seed", p["seed"], "--bits", p["bits"], "--group", group]
    subprocess.run(["rm", "-rf", out, out + ".work"], check=True)
    made = result([gsq, "quantize", place(model, shared), "-o", out, "--calib", place(calib, shared), "--format",
                   "compressed-tensors", *map(str, how)])
    told = result([gsq, "compare", out, place(model, shared), "--text", place(text, shared), "--ctx", str(CTX), "--windows",
                   str(EVALUATED)])
    p.update(kl=f"{told['mean_kl']:.5f}", kl_error=f"{told['mean_kl_error']:.5f}", perplexity=f"{told['perplexity']:.4f}",
             mean_loss=f"{made.get('mean_loss', 0):.5f}", seconds=f"{made['seconds']:.0f}", version=version(gsq))
    return p


# ---- the table ----

def kl(rows, model, bits, method, *numbers):
    """KL of all seeds of a point, as numbers."""
    want = tuple(map(str, (model, bits, method, *numbers)))
    return [float(r["kl"]) for k, r in rows.items() if k[:8] == want]


def cell(values):
    if not values:
        return "-"
    mean = sum(values) / len(values)
    return f"{mean:.4f}" + (f" ({len(values)} seeds, +-{(max(values) - min(values)) / 2:.4f})" if len(values) > 1 else "")


def gain(rows, model, bits, point):
    """What a point of the Hessian objective gains over GPTQ, as a share of what 500 steps on 128 windows gain."""
    mean = lambda v: sum(v) / len(v) if v else None
    start, end = mean(kl(rows, model, bits, "gptq", 128, 0, 0, 0, 4)), mean(kl(rows, model, bits, "gsq", 128, 500, 0, 0, 4))
    here_ = mean(kl(rows, model, bits, "gsq", *point))
    return f" = {(start - here_) / (start - end):.0%}" if None not in (start, end, here_) and start != end else ""


def table(out, rows, heading, bits, points_of, head, shares=False):
    models = [m for m in MODELS if any(k[0] == m and k[1] == str(bits) for k in rows)]
    lines = []
    for name, point in points_of:
        cells = [cell(kl(rows, m, bits, *point)) + (gain(rows, m, bits, point[1:]) if shares and point[0] == "gsq" else "")
                 for m in models]
        if any(c[0] != "-" for c in cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |\n")
    if lines:
        out.write(f"\n{heading}\n\n| {head} | " + " | ".join(models) + " |\n| --- |" + " ---: |" * len(models) + "\n" + "".join(lines))


def report(out, rows):
    versions = sorted({r["version"] for r in rows.values()})
    out.write(f"# Steps, windows and epochs against quality\n\nWritten by `scripts/bench-levels.py`, {', '.join(versions)}, on llvmpipe: "
              f"KL divergence from the 16-bit model, in nats, on the\nfirst {EVALUATED} windows of {CTX} tokens of the evaluation text. "
              "Groups of 128 weights (demo, TinyStories-656K) and 64. A run's\nseed moves KL by about 3 %; where several were run the mean "
              "stands, and half of what lies between them. `levels.tsv` has\nevery run; `--rows bench/results/levels.tsv` goes on with what is missing (-).\n")
    levels(out, rows)
    for bits in (2, 3):
        alone = [("GPTQ alone, 128 windows", ("gptq", 128, 0, 0, 0, 4))]
        alone += [(f"{w} windows, {n} steps", ("gsq", w, n, 0, 0, 4)) for w in (64, 128, 512) for n in (60, 125, 250, 500)]
        table(out, rows, f"## Each linear alone, {bits} bits\n\nWindows and optimiser steps of the Hessian objective, and the share of "
              "what 500 steps on 128 windows gain over GPTQ.", bits, alone, "set", True)
        together = sorted({tuple(map(int, k[3:8])) for k in rows if k[2] == "gsq" and k[1] == str(bits) and int(k[5]) > 0})
        table(out, rows, f"## Halves of blocks together, {bits} bits\n\nWindows, steps of each linear alone before, epochs of the block "
              "objective (4 windows a step) and of the pass over scales.", bits,
              [(f"{w} windows, {n} steps, {e} epochs, {s} of scales" + ("" if b else ", 1280 steps"), ("gsq", w, n, e, s, b))
               for w, n, e, s, b in together], "set")


def levels(out, rows):
    """Old and new levels side by side."""
    points_of = [("quick", NEW["quick"]), ("fast", NEW["fast"]), ("fast, as it was", OLD["fast"]), ("balanced", NEW["balanced"]),
                 ("balanced, as it was", OLD["balanced"]), ("best", NEW["best"])]
    columns = [(m, b) for b in (2, 3) for m in MODELS if kl(rows, m, b, "gsq", *OLD["fast"])]
    out.write("\n## Levels\n\nPFLOP: what such a run over an 8B model computes (128 windows: of 2048 tokens), counted.\n\n| level | sets | PFLOP | "
              + " | ".join(f"{m}, {b} bits" for m, b in columns) + " |\n| --- | --- | ---: |" + " ---: |" * len(columns) + "\n")
    for name, p in points_of:
        out.write(f"| {name} | {p[0]} windows, {p[1]} steps" + (f", {p[2]} and {p[3]} epochs" if p[2] else "") + f" | {pflop(*p):.0f} | " +
                  " | ".join(cell(kl(rows, m, b, "gsq", *p)) for m, b in columns) + " |\n")


of_points.main("release", "levels", FIELDS, len(KEY), MODELS, points, measure, report)
