#!/usr/bin/env python3
"""How long a run takes on 1, 2, 4 ... ranks over links of several speeds, as a table (Markdown).

    scripts/predict-ranks.py MODEL ... [--gsq BINARY] [--card NAME] [--effort E] [--memory GIB]

MODEL: a shape of tests/lib/sparse_model.py (70B, kimi-k2.5), whose headers alone are made. What ranks send, hold and share is the program's
own plan (gsq quantize --dry-run --ranks N); what a run computes are its own counts (gsq bench --counts); how fast a card is, is the table in
scripts/predict-cards.py: assumed, nothing was measured on it. bench/results/ranks.md is this script's output.

    seconds(N) = sum over kinds of work of seconds(1, kind) * share(N, kind) + bytes waited for / link + bytes by way of devices * 2 / bus

share: of the busiest rank. Bytes waited for go one after the other until every rank has all; those of states, Hessians, gradients and
weights come from one device and go to others over each machine's bus.
"""
import argparse
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
spec = importlib.util.spec_from_file_location("predict_cards", os.path.join(HERE, "predict-cards.py"))
cards = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cards)

RANKS = (1, 2, 4, 8)
LINKS = {"PCIe, 25 GB/s": 25e9, "100 Gb/s": 12.5e9, "25 Gb/s": 3.125e9}
BUS = 25e9  # bytes a second between a card and its host
BY_DEVICE = ("hidden states", "Hessians", "gradients", "weights")
OPTIONS = {"kimi-k2.5": ["--ctx", "1024", "--allow-requantize"]}


def plan_of(args, folder, out, ranks):
    """Of the plan; a disk that is too small is said behind it."""
    env = dict(os.environ, GSQ_DEVICE_LIMITS=f"memory={args.memory * 1024}")
    command = [args.gsq, "quantize", folder, "-o", out, "--bits", "2", "--effort", args.effort, "--calib", "default", "--dry-run", "--json",
               "--ranks", str(ranks), "--link", "25Gb/s", *OPTIONS.get(os.path.basename(folder), [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    plans = [e for e in map(json.loads, done.stdout.splitlines()) if e["event"] == "plan"]
    if not plans:
        sys.exit(f"{' '.join(command)}: {done.stdout[-600:]}{done.stderr[-600:]}")
    return plans[0]


def kinds_of(pieces, effort, result, plan, time):
    """Seconds on one rank by the names of plan.ranks.layouts[].shares."""
    samples, epochs = plan["samples"], effort["epochs"]
    holdout = max(1, min(16, samples // 8))
    train = samples - holdout
    batch = effort["batch"] or max(1, math.ceil(epochs * train / 1280))
    out = dict.fromkeys(("forward", "hessian", "round", "learn", "train", "scales", "outputs"), 0.0)
    model = {name: time(rows) for (block, name), rows in pieces.items() if not block}
    for kind in sorted({block for block, _ in pieces if block}):
        t = {name: time(rows) for (block, name), rows in pieces.items() if block == kind}
        n = next(rows for (block, _), rows in pieces.items() if block == kind)[0]["blocks"]
        experts = "experts, a window" in t
        out["forward"] += n * samples * (cards.forwards(t, epochs) * t["forward, a window"] + t.get("experts, a window", 0))
        out["hessian"] += n * samples * cards.sums_seconds(t)
        out["round"] += n * cards.start_seconds(t, result.get("experts", 0) * experts)
        out["learn"] += n * effort["steps"] * (t.get("Hessian objective, a step", 0) +
                                               experts * result.get("experts", 0) * t.get("Hessian objective of an expert, a step", 0))
        for half in ("attention half", "feed-forward half"):
            if half + ", a step" in t:
                out["train"] += n * epochs * (train * t[half + ", a window"] + math.ceil(train / batch) * t[half + ", a step"])
        if epochs:
            out["train"] += n * (epochs + 1) * holdout * t["a window that judges"]
    if model:
        out["outputs"] = plan.get("output_windows", 0) * model["pass over scales, a window"]
        if effort["scale_epochs"]:
            each = train * model["pass over scales, a window"] + math.ceil(train / effort["scale_batch"]) * model["pass over scales, a step"]
            judged = holdout * model["pass over scales, a window that judges"]
            out["scales"] = effort["scale_epochs"] * each + (effort["scale_epochs"] + 1) * judged
    return out


def gib(n):
    return f"{n / 2**30:,.1f} GiB" if n < 2**40 else f"{n / 2**40:,.2f} TiB"


def total(counts, names=None):
    return sum(n for name, n in counts.items() if names is None or name in names)


def table_of(args, name, folder):
    pieces, efforts, result = cards.counted(argparse.Namespace(gsq=args.gsq, bits="2", group=128, ctx=int(OPTIONS.get(name, [0, 2048])[1])), folder)
    effort = efforts[args.effort]
    plans = {n: plan_of(args, folder, os.path.join(args.work, "out"), n) for n in RANKS[1:]}
    first = plans[RANKS[1]]
    seconds = kinds_of(pieces, effort, result, first, lambda rows: cards.seconds(rows, args.card, True))
    print(f"## {name}, `--effort {args.effort}`, {first['samples']} windows of {first['ctx']} tokens\n")
    cards.table(["kind of work", "one rank", *(f"share on {n}" for n in RANKS[1:])],
                [[kind, cards.duration(s), *(f"{plans[n]['ranks']['layouts'][-1]['shares'][kind]:.3f}" for n in RANKS[1:])]
                 for kind, s in seconds.items() if s])
    rows = []
    for n in RANKS:
        if n == 1:
            rows.append(["1", gib(first["device_bytes"]), "0", "0", *[cards.duration(sum(seconds.values()))] * len(LINKS)])
            continue
        r = plans[n]["ranks"]
        shares = r["layouts"][-1]["shares"]
        work = sum(s * shares[kind] for kind, s in seconds.items() if s)
        bus = 2 * total(r["waits"], BY_DEVICE) / BUS
        got = max(total(x["received"]) for x in r["rank"])
        times = [cards.duration(work + bus + total(r["waits"]) / speed) for speed in LINKS.values()]
        rows.append([str(n), gib(r["device_bytes"]), gib(got), gib(total(r["waits"])), *times])
    cards.table(["ranks", "device memory of each", "most received", "waited for", *LINKS], rows)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", nargs="+")
    p.add_argument("--gsq", default="build/release/gsq")
    p.add_argument("--card", default="RX 7800 XT", choices=cards.CARDS)
    p.add_argument("--effort", default="fast")
    p.add_argument("--memory", type=int, default=24, help="GiB of the card")
    args = p.parse_args()
    bandwidth, f32, f16 = cards.CARDS[args.card][:3]
    version = subprocess.run([args.gsq, "--version"], stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
    print("# Ranks that are not there\n")
    print(f"By `scripts/predict-ranks.py {' '.join(args.models)} --effort {args.effort} --memory {args.memory}`, {version}. Assumed: cards as fast as an "
          f"{args.card} by its maker's figures ({bandwidth} GB/s, {f32} TFLOP/s, {f16} of 16 bits; shares of them in scripts/predict-cards.py) with "
          f"{args.memory} GiB, {BUS * 1e-9:.0f} GB/s between card and host, broadcasts at the link's full speed. Nothing was measured on such cards.\n")
    with tempfile.TemporaryDirectory() as args.work:
        for name in args.models:
            folder = os.path.join(args.work, name)
            subprocess.run([sys.executable, os.path.join(ROOT, "tests/lib/sparse_model.py"), name, folder], check=True)
            shutil.copy(os.path.join(ROOT, "models/demo/tokenizer.json"), folder)
            table_of(args, name, folder)
            shutil.rmtree(folder)


main()
