#!/usr/bin/env python3
"""What each method makes of the experts of small trained models: KL divergence from the 16-bit model at 2 and 3 bits and as Q2_K.

    scripts/bench-experts.py [--gsq FILE] [--rows FILE] [--shared FOLDER] [--print] [REGEX]

Measures point after point, short ones first, and adds each as a row to FILE (default build/experts.tsv); what is in it is not
measured again, so an interrupted run goes on where it was. REGEX: only points whose name it is found in ("qwen3moe-4m 2 fast 1":
model, bits or type, method or effort, seed). --print: nothing is measured; the table of what is there.

"fast on 2" is `fast` on 2 windows of calibration. At 2 and 3 bits nothing but routed experts is quantized, as is the default; Q2_K is a mixture for all tensors. FOLDER (default ../shared): models and texts beside the repository.
Wants `nice -n 15` on a machine that others use.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import points as of_points  # noqa: E402
from points import place, result, version  # noqa: E402

CTX, EVALUATED = 128, 100
FIELDS = ("model", "kind", "method", "seed", "kl", "kl_error", "perplexity", "mean_loss", "stage_start", "stage", "seconds", "version")
KEY = FIELDS[:4]
TEXTS = ("-text/wikitext2-test-calib.txt", "-text/wikitext2-test-eval.txt")
STORIES = ("-text/tinystories-calib.txt", "-text/tinystories-eval.txt")
MODELS = {  # folder, texts, group of 2 and 3 bits; in Q2_K what is narrower than 256 takes another type
    "qwen3moe-4m": ("-models/qwen3moe-4m", *TEXTS, 64),
    "dsv3-mla-3.9m": ("-models/dsv3-mla-3.9m", *TEXTS, 64),
    "TinyStories-656K-moe-8x": ("-models/TinyStories-656K-moe-8x", *STORIES, 64),
}
TRAINED = ("qwen3moe-4m", "dsv3-mla-3.9m")
HOW = {
    "RTN": ("--method", "rtn"),
    "GPTQ": ("--method", "gptq", "--samples", "192"),
    "fast": ("--effort", "fast"),
    "balanced": ("--effort", "balanced"),
}
FEW = ("2", "16")  # windows of calibration
SEEDS = ("1", "2", "3")


def arguments(method):
    name, _, windows = method.partition(" on ")
    return HOW[name] + (("--samples", windows) if windows else ())


def seeds(method):
    """RTN and GPTQ have no noise."""
    return SEEDS if method.split()[0] in ("fast", "balanced") else SEEDS[:1]


def points():
    for method in HOW:
        for kind in ("2", "3", "Q2_K"):
            for model in TRAINED:
                yield (model, kind, method, 1)
        yield ("TinyStories-656K-moe-8x", "2", method, 1)
    for model in TRAINED:
        for windows in FEW:
            for method in list(HOW)[1:]:
                for seed in seeds(method):
                    yield (model, "2", f"{method} on {windows}", seed)
    # Where methods are close.
    for model in TRAINED:
        for method in ("fast", "balanced"):
            for seed in SEEDS[1:]:
                yield (model, "3", method, seed)


def measure(gsq, point, shared, tmp):
    p = dict(zip(KEY, point))
    model, calib, text, group = MODELS[p["model"]]
    how = list(arguments(p["method"])) + ["--seed", p["seed"], "--ctx", CTX]
    if p["method"] != "RTN":
        how += ["--calib", place(calib, shared)]
    if p["kind"] == "Q2_K":
        out = os.path.join(tmp, "out.gguf")
        how += ["--type", "Q2_K"]
    else:
        out = os.path.join(tmp, "out")
        how += ["--bits", p["kind"], "--group", group, "--format", "compressed-tensors"]
    made = result([gsq, "quantize", place(model, shared), "-o", out, *how])
    told = result([gsq, "compare", out, place(model, shared), "--text", place(text, shared), "--ctx", CTX, "--windows", EVALUATED])
    number = lambda name: f"{made[name]:.5f}" if made.get(name) is not None else "-"
    p.update(kl=f"{told['mean_kl']:.5f}", kl_error=f"{told['mean_kl_error']:.5f}", perplexity=f"{told['perplexity']:.4f}",
             mean_loss=number("mean_loss"), stage_start=number("stage_loss_start"), stage=number("stage_loss"),
             seconds=f"{made['seconds']:.0f}", version=version(gsq))
    return p


def cell(rows, model, kind, method):
    """What each seed gave, and the error of the first."""
    found = [r for r in (rows.get((model, kind, method, seed)) for seed in SEEDS) if r]
    return ", ".join(f"{float(r['kl']):.5f}" for r in found) + f" +- {float(found[0]['kl_error']):.5f}" if found else "-"


def report(out, rows):
    versions = sorted({r["version"] for r in rows.values()})
    out.write(f"# Models with experts\n\nWritten by `scripts/bench-experts.py`, {', '.join(versions)}, on llvmpipe, two cores: KL divergence from "
              f"the 16-bit model, in nats, on\nthe first {EVALUATED} windows of {CTX} tokens of the evaluation text, with its standard error. "
              "At 2 and 3 bits, in groups\nof 64, routed experts alone are quantized; Q2_K is llama-quantize's mixture for all tensors. Where there are several figures they are of seeds 1, 2 and 3. `experts.tsv` has every row; `--rows bench/results/experts.tsv` goes on with "
              "what is missing (-).\n\nEach row is\n\n    gsq quantize MODEL -o OUT [--bits 2 --group 64 --format compressed-tensors | --type Q2_K] --ctx 128 --seed SEED "
              "[--calib TEXT METHOD]\n    gsq compare OUT MODEL --text TEXT --ctx 128 --windows 100\n\nwith METHOD as the table says, and the calibration and evaluation parts of WikiText-2 "
              "(TinyStories for TinyStories-656K-moe-8x).\n\n")
    columns = [(m, k) for m in MODELS for k in ("2", "3", "Q2_K") if any(r[0] == m and r[1] == k for r in rows)]
    out.write("| method | " + " | ".join(f"{m}, {k + ' bits' if k in '23' else k}" for m, k in columns) + " |\n| --- |" + " ---: |" * len(columns) + "\n")
    for method, how in HOW.items():
        cells = []
        for m, k in columns:
            cells.append(cell(rows, m, k, method))
        out.write(f"| {method}: `{' '.join(how)}` | " + " | ".join(cells) + " |\n")
    out.write("\n## On few windows, at 2 bits\n\nSeeds 1, 2 and 3, on the same 100 windows. On 2, none held out, there are 64 and 85 tokens\nfor an expert, whose matrices have 256 columns, or 128; on 16, two held out, 448 and 597 to learn from.\n\n")
    columns = [(m, w) for m in TRAINED for w in FEW]
    out.write("| method | " + " | ".join(f"{m}, {w} windows" for m, w in columns) + " |\n| --- |" + " ---: |" * len(columns) + "\n")
    for method in list(HOW)[1:]:
        out.write(f"| {method} | " + " | ".join(cell(rows, m, "2", f"{method} on {w}") for m, w in columns) + " |\n")


if __name__ == "__main__":
    of_points.main("release", "experts", FIELDS, 4, MODELS, points, measure, report)
