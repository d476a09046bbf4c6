#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Evaluates models/demo in fp32, as it is and after 2-bit round-to-nearest.

The figures are an independent reference for the C and Vulkan code, which
shares nothing with this file. --write stores them in expected.json; without
it they are compared with what is stored there.
"""

import argparse
import json
import math
import os
import pathlib
import sys

if "MALLOC_MMAP_THRESHOLD_" not in os.environ:  # see train.py
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(1 << 32)
    os.environ["MALLOC_TRIM_THRESHOLD_"] = str(1 << 34)
    os.execv(sys.executable, [sys.executable] + sys.argv)

import torch  # noqa: E402

import bpe  # noqa: E402
import model  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONTEXT = 256


def round_to_nearest(w, group=128, lo=-2, hi=1):
    """Each row's groups of consecutive columns become s * {lo..hi}. The
    levels are not symmetric, so the sign of s matters and both are tried;
    shrinking s trades clipped outliers for a finer grid."""
    rows = w.reshape(-1, group)
    base = rows.abs().amax(1, keepdim=True) / ((hi - lo) / 2)
    base = base.clamp(min=1e-12)
    best = torch.full_like(base, float("inf"))
    out = torch.zeros_like(rows)
    for i in range(80):
        for sign in (1, -1):
            s = sign * (1 - i / 100) * base
            candidate = s * torch.clamp(torch.round(rows / s), lo, hi)
            error = (candidate - rows).abs().pow(2.4).sum(1, keepdim=True)
            better = error < best
            best = torch.where(better, error, best)
            out = torch.where(better, candidate, out)
    return out.reshape(w.shape)


def perplexity(weights, ids):
    """Over non-overlapping windows; the first token of each is given."""
    count = len(ids) // CONTEXT
    rows = torch.tensor(ids[:count * CONTEXT]).view(count, CONTEXT)
    net = model.Llama(weights)
    total = 0.0
    with torch.no_grad():
        for row in rows:
            total += net.loss(row[None]).item()
    return math.exp(total / count), count


def measure(folder):
    tokenizer = bpe.Tokenizer.load(folder / "tokenizer.json")
    weights = model.load_safetensors(folder / "model.safetensors")
    ids = {}
    for name in ("calib", "eval"):
        text = (folder / f"{name}.txt").read_text(encoding="utf-8")
        ids[name] = [tokenizer.bos] + tokenizer.encode(text)
    ppl, windows = perplexity(weights, ids["eval"])
    rounded = dict(weights)
    for name in model.linear_names():
        rounded[name] = round_to_nearest(weights[name])
    rtn, _ = perplexity(rounded, ids["eval"])
    return {
        "eval_tokens": len(ids["eval"]),
        "calib_tokens": len(ids["calib"]),
        "eval_ids_sha256": bpe.digest(ids["eval"]),
        "calib_ids_sha256": bpe.digest(ids["calib"]),
        "windows": windows,
        "ppl_ctx256": round(ppl, 5),
        "rtn_2bit_g128": round(rtn, 4),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=pathlib.Path,
                        default=ROOT / "models" / "demo")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    got = measure(args.model)
    print(json.dumps(got, indent=2))
    path = args.model / "expected.json"
    if args.write:
        model.write_json(path, got)
        return 0
    want = json.loads(path.read_text(encoding="utf-8"))
    bad = [key for key, value in want.items()
           if (abs(got[key] / value - 1) > 1e-3 if isinstance(value, float)
               else got[key] != value)]
    for key in bad:
        print(f"{key}: {got[key]}, stored {want[key]}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
