#!/usr/bin/env python3
"""What quantizing a model computes and moves, and how long cards would take for it: `gsq bench --counts` as tables (Markdown).

    scripts/predict-cards.py [--gsq BINARY] [--model FOLDER] [--bits B] [--group N] [--ctx N]

Without --model the shape of Llama-3.1-8B, whose headers alone are made (tests/lib/sparse_model.py). The counts are the program's own; the
times follow from them by the table of cards below: nothing here was measured on those cards. bench/results/counts-8b.md is
this script's output.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

SPARSE_MODEL = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests/lib/sparse_model.py")
# GB/s and TFLOP/s as the makers give them (Arc A770: f32 as clpeak measures it, 16 bits by packed multiply-adds, because its
# drivers gain nothing from cooperative matrices). Shares: what is assumed to be reached. Exact products (gemm) and, without
# matrix cores, all of them: f32 peak times `exact`; gemm_half: 16-bit peak times `half`; attention likewise.
CARDS = {
    # name: bandwidth, f32 peak, 16-bit peak, exact, half, attention of f32 peak, attention of 16-bit peak
    "RX 7800 XT": (624, 37.3, 74.6, 0.32, 0.45, 0.095, 0.24),
    "RTX 4070": (504, 29.1, 58.3, 0.55, 0.60, 0.14, 0.40),
    "Arc B580": (456, 13.7, 116, 0.40, 0.24, 0.09, 0.09),
    "Arc A770": (560, 13.8, 27.6, 0.43, 0.40, 0.09, 0.22),
}
BANDWIDTH = 0.70  # of the memory's, by kernels that move more than they compute
DISPATCH = 5e-6  # seconds beside each


def counted(args, model):
    command = [args.gsq, "bench", "--counts", model, "--json", "--bits", args.bits, "--group", str(args.group), "--ctx", str(args.ctx)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    pieces = {}  # by the first block of a kind (0: of the model) and name
    for e in events:
        if e["event"] == "count":
            pieces.setdefault((e.get("block", 0), e["piece"]), []).append(e)
    return pieces, {e["effort"]: e for e in events if e["event"] == "effort"}, next(e for e in events if e["event"] == "result")


def total(rows, field):
    return sum(r[field] for r in rows)


def seconds(rows, card, matrix_cores):
    """Of a piece: each kernel by what limits it."""
    bandwidth, f32, f16, exact, half, attention32, attention16 = CARDS[card]
    sums = 0
    for r in rows:
        kernel, flop = r["kernel"], r["flop"]
        moved = (r["bytes_read"] + r["bytes_written"]) / (bandwidth * 1e9 * BANDWIDTH)
        if kernel.startswith("gemm_half") and matrix_cores:
            rate = f16 * half
        elif kernel.startswith("gemm"):
            rate = f32 * exact
        elif kernel.startswith("attn_"):
            rate = f16 * attention16 if matrix_cores else f32 * attention32
        else:
            rate = f32 * 0.25
        sums += max(flop / (rate * 1e12), moved) + r["calls"] * DISPATCH
    return sums


def sums_seconds(t):
    """A window to the sums that a layer's linears and experts learn from; where what was lost before them is made good, as far as halves' outputs."""
    drift = t.get("drift of the linears, a window")
    way = t["inputs of the linears, a window" if drift is None else "forward, a window"]
    return sum(t.get(name, 0) for name in ("Hessian sums, a window", "Hessian sums of experts, a window", "drift of experts, a window")) + way + (drift or 0)


def start_seconds(t, experts):
    """Of a layer's linears and so many experts: what each starts from."""
    return (t.get("start of the linears", 0) + t.get("correction of the linears", 0) +
            experts * (t.get("start of an expert", 0) + t.get("correction of an expert", 0)))


def forwards(t, epochs):
    """Ways of a window through a layer for what comes out: of the student, and of the 16-bit model where that is wanted."""
    return 2 if epochs or "drift of the linears, a window" in t else 1


def experts_seconds(t, effort, result, train, holdout):
    """The experts of a layer, each of which the same share of tokens chose; t: seconds of pieces."""
    n, used, ctx, epochs = result["experts"], result["experts_used"], result["ctx"], effort["epochs"]
    samples = train + holdout
    layer = samples * t["experts, a window"] + n * effort["steps"] * t["Hessian objective of an expert, a step"]
    if epochs:
        steps = math.ceil(train / (effort["batch"] or max(1, math.ceil(epochs * train / 1280))))
        own, judging = (w * ctx * used / n / 32 for w in (train, holdout))
        layer += n * epochs * (own * t["an expert, 32 of its tokens"] + min(steps, own) * t["an expert, a step"])
        layer += n * (epochs + 1) * judging * t["an expert, 32 tokens that judge"]
    return layer


def run_seconds(pieces, effort, result, time):
    """A whole run; time: of a piece's rows."""
    samples, epochs = effort["samples"], effort["epochs"]
    holdout = max(1, min(16, samples // 8))
    train = samples - holdout
    batch = effort["batch"] or max(1, math.ceil(epochs * train / 1280))
    all_layers, model = 0, {name: time(rows) for (block, name), rows in pieces.items() if not block}
    for kind in sorted({block for block, _ in pieces if block}):
        t = {name: time(rows) for (block, name), rows in pieces.items() if block == kind}
        blocks = next(rows for (block, _), rows in pieces.items() if block == kind)[0]["blocks"]
        layer = samples * (sums_seconds(t) + forwards(t, epochs) * t["forward, a window"])
        layer += start_seconds(t, result.get("experts", 0) * ("experts, a window" in t)) + effort["steps"] * t.get("Hessian objective, a step", 0)
        for half in ("attention half", "feed-forward half"):
            if half + ", a step" in t:
                layer += epochs * train * t[half + ", a window"] + epochs * math.ceil(train / batch) * t[half + ", a step"]
        layer += (epochs + (epochs > 0)) * holdout * t["a window that judges"]
        if "experts, a window" in t:
            layer += experts_seconds(t, effort, result, train, holdout)
        all_layers += blocks * layer
    if not effort["scale_epochs"] or not model:
        return all_layers
    scales = train * model["pass over scales, a window"]
    scales += math.ceil(train / effort["scale_batch"]) * model["pass over scales, a step"]
    judging = (effort["scale_epochs"] + 1) * holdout * model["pass over scales, a window that judges"]
    return all_layers + effort["scale_epochs"] * scales + judging


def duration(s):
    return f"{s / 60:.0f} min" if s < 5400 else f"{s / 3600:.1f} h"


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("| --- |" + " ---: |" * (len(head) - 1))
    for r in rows:
        print("| " + " | ".join(r) + " |")
    print()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--gsq", default="build/release/gsq")
    p.add_argument("--model")
    p.add_argument("--bits", default="2")
    p.add_argument("--group", type=int, default=128)
    p.add_argument("--ctx", type=int, default=2048)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or os.path.join(folder, "8B")
        if not args.model:
            subprocess.run([sys.executable, SPARSE_MODEL, "8B", model], check=True)
        pieces, efforts, result = counted(args, model)
    version = subprocess.run([args.gsq, "--version"], stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
    weights, layers = result["block_weights"], result["layers"]
    kinds = {block: rows[0] for (block, _), rows in pieces.items() if block}
    made = "; ".join(f"{k['blocks']} block{'s' * (k['blocks'] > 1)} like block {b} ({k['layers']}), {(k['weights'] + k['expert_weights']) / 1e6:,.1f} M "
                     "weights in linears" for b, k in kinds.items())
    of = f"{layers} blocks of {weights / 1e6:.1f} M weights in linears" if len(kinds) == 1 and not result.get("experts") else made

    def called(key):
        return key[1] if len(kinds) == 1 or not key[0] else f"{key[1]}, block {key[0]}"
    print(f"# What quantizing {os.path.basename(args.model.rstrip('/')) if args.model else 'Llama-3.1-8B'} computes and moves\n")
    print(f"By `scripts/predict-cards.py`, {version}: {args.bits} bits, groups of {args.group}, windows of {result['ctx']} tokens, "
          f"{result['windows_at_once']} at once; {of}. Counted by the program "
          "on its own code, each operand of a kernel once; no GPU ran.\n")
    print(f"**Bytes of an optimiser step for each weight: {result['step_bytes_alone']:.1f} alone (Hessian objective), "
          f"{result['step_bytes_together']:.1f} in the block objective.**\n")
    products = {r["kernel"] for k in pieces.values() for r in k if r["kernel"].startswith("gemm")}
    half = {k for k in products if k.startswith("gemm_half")}
    rows = []
    for name, kernels in pieces.items():
        rest = [r for r in kernels if r["kernel"] not in products]
        moved = total(rest, "bytes_read") + total(rest, "bytes_written")
        rows.append([called(name)] + [f"{total([r for r in kernels if r['kernel'] in k], 'flop') / 1e9:,.1f}" for k in (products - half, half)] +
                    [f"{total([r for r in kernels if r['kernel'].startswith('attn_')], 'flop') / 1e9:,.1f}",
                     f"{(total(kernels, 'bytes_read') + total(kernels, 'bytes_written') - moved) / 1e9:,.2f}",
                     f"{moved / 1e9:,.2f}", f"{total(kernels, 'calls'):,.0f}"])
    table(["piece", "exact products, GFLOP", "16-bit products, GFLOP", "attention, GFLOP", "products, GB", "the rest, GB", "dispatches"], rows)
    print("The Hessian objective, the halves and their steps, forward, sums and start are of one block, the pass over scales of the whole "
          "model. " + ("What is of an expert is of one, the rest of experts of all that a window's tokens choose. " if result.get("experts") else "") +
          "\"The rest\" by kernel, GB:\n")
    for name, kernels in pieces.items():
        rest = sorted((r for r in kernels if r["kernel"] not in products), key=lambda r: -(r["bytes_read"] + r["bytes_written"]))
        print(f"- {called(name)}: " + ", ".join(f"{r['kernel']} {(r['bytes_read'] + r['bytes_written']) / 1e9:.3g}" for r in rest[:7]))
    print("\n## Predicted times\n")
    print("ms of a piece, with matrix cores (16-bit products and attention at the assumed shares) and in brackets with f32 kernels "
          "alone:\n")
    table(["piece"] + list(CARDS), [[called(name)] + [f"{seconds(k, c, True) * 1e3:,.1f} ({seconds(k, c, False) * 1e3:,.1f})" for c in CARDS]
                                    for name, k in pieces.items()])
    print("Whole runs, without reading, packing and waiting for files:\n")
    table(["effort"] + list(CARDS), [[e] + ["{} ({})".format(*(duration(run_seconds(pieces, x, result, lambda k, c=c, m=m: seconds(k, c, m)))
                                                               for m in (True, False))) for c in CARDS] for e, x in efforts.items()])
    print("Cards: bandwidth GB/s, f32 and 16-bit TFLOP/s; assumed shares of exact and 16-bit products and of attention (f32, 16 bits); "
          f"{BANDWIDTH:.0%} of the bandwidth for what moves more than it computes:\n")
    table(["card", "GB/s", "f32", "16-bit", "exact", "half", "attention, f32", "attention, 16-bit"],
          [[c] + [f"{v:g}" for v in row] for c, row in CARDS.items()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
