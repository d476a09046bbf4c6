#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the demo model and its tokenizer and writes models/demo.

Needs Debian's python3-torch; about half an hour on one core. See
models/demo/README.md.
"""

import argparse
import math
import os
import pathlib
import random
import sys
import time

# glibc gives large blocks back to the kernel after every operation, and
# clearing the new pages costs more than the arithmetic. The variables are
# read when a process starts, hence the second start.
if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(1 << 32)
    os.environ["MALLOC_TRIM_THRESHOLD_"] = str(1 << 34)
    # Matrices this small are slower on several threads than on one.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.execv(sys.executable, [sys.executable] + sys.argv)

import torch  # noqa: E402

import bpe  # noqa: E402
import generate_text  # noqa: E402
import model  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONTEXT = 256
TOKENIZER_BYTES = 2_000_000


def windows(docs, stream, starts, rng, batch, bos):
    """A batch of CONTEXT + 1 ids. Most windows start anywhere, as those of
    the evaluation do; some are BOS and the beginning of a document, as a
    prompt is."""
    rows = []
    for _ in range(batch):
        if rng.random() < 0.2:
            at = rng.choice(starts[:-docs])
            rows.append(torch.cat([bos, stream[at:at + CONTEXT]]))
        else:
            at = rng.randrange(len(stream) - CONTEXT - 1)
            rows.append(stream[at:at + CONTEXT + 1])
    return torch.stack(rows)


def learning_rate(step, steps, peak):
    """Linear warm-up, the first part of a long cosine, and a straight line
    to zero. The line settles the weights in a few hundred steps; following
    the cosine to its end takes much longer and gains little."""
    warm, horizon, settle = 100, 7500, 700
    if step < warm:
        return peak * (step + 1) / warm
    rate = peak * 0.5 * (1 + math.cos(math.pi * (step - warm)
                                      / (horizon - warm)))
    return rate * min(1.0, (steps - step) / settle)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=pathlib.Path,
                        default=ROOT / "models" / "demo")
    parser.add_argument("--steps", type=int, default=4400)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--bytes", type=int, default=30_000_000,
                        help="size of the training text")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    rng = random.Random(1)

    text = generate_text.text(generate_text.SEEDS["train"], args.bytes)
    tokenizer = bpe.Tokenizer(bpe.train(text[:TOKENIZER_BYTES],
                                        model.CONFIG["vocab_size"]))
    ids, starts = [], []
    for doc in text.split("\n\n")[:-1]:
        starts.append(len(ids))
        ids += tokenizer.encode(doc + "\n\n")
    stream = torch.tensor(ids)
    held = tokenizer.encode(
        (ROOT / "models" / "demo" / "eval.txt").read_text(encoding="utf-8"))
    held = torch.tensor(held[:64 * (CONTEXT + 1)]).view(64, CONTEXT + 1)
    # Documents too close to the end to fill a window.
    docs = 1 + sum(s > len(ids) - CONTEXT for s in starts)
    print(f"{len(text)} characters, {len(ids)} tokens, "
          f"{len(starts)} documents", flush=True)

    weights = model.init_weights()
    net = model.Llama(weights)
    print(sum(w.numel() for w in weights.values()), "parameters")
    optimizer = torch.optim.AdamW(
        [{"params": [w for w in weights.values() if w.dim() > 1],
          "weight_decay": args.decay},
         {"params": [w for w in weights.values() if w.dim() == 1],
          "weight_decay": 0.0}],
        lr=args.lr, betas=(0.9, 0.95), eps=1e-8)
    bos = torch.tensor([tokenizer.bos])

    began, running = time.time(), None
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr)
        loss = net.loss(windows(docs, stream, starts, rng, args.batch, bos))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step()
        value = loss.item()
        running = value if running is None else 0.98 * running + 0.02 * value
        if step % 100 == 0 or step == args.steps - 1:
            line = f"step {step:5d}  loss {running:.4f}"
            if step % 500 == 0 or step == args.steps - 1:
                with torch.no_grad():
                    line += f"  held out {net.loss(held).item():.4f}"
            print(f"{line}  {time.time() - began:.0f} s", flush=True)

    args.out.mkdir(parents=True, exist_ok=True)
    model.save_model(args.out, weights, tokenizer)


if __name__ == "__main__":
    main()
