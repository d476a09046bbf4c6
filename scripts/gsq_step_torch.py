#!/usr/bin/env python3
"""What PyTorch takes for a product, a copy, and an optimiser step on the Hessian objective: beside `gsq bench`.

    scripts/gsq_step_torch.py [--rows N] [--cols K] [--cube M]

The step is docs/method.md, section 2, in plain operations: loss D H D^T of D = w~ - W, logits of four levels, Lion on logits and
scales. Prints "name<TAB>seconds" a line. The CPU where there is no GPU.
"""
import argparse
import sys
import time

import torch

LEVELS = torch.tensor([-2.0, -1.0, 0.0, 1.0])


def best(run, device, batches=5, seconds=0.2):
    """Least mean of some batches."""
    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize()
    run()
    wait()
    n, least = 1, float("inf")
    while batches:
        begin = time.perf_counter()
        for _ in range(n):
            run()
        wait()
        took = time.perf_counter() - begin
        if took < seconds / 2:
            n *= 2
            continue
        least = min(least, took / n)
        batches -= 1
    return least


class Step:
    def __init__(self, rows, cols, group, device):
        self.w = torch.randn(rows, cols, device=device) * 0.02
        x = torch.randn(2 * cols, cols, device=device)
        self.h = x.T @ x / cols
        self.group, self.levels = group, LEVELS.to(device).view(4, 1, 1)
        self.scales = torch.full((rows, cols // group), 0.015, device=device)
        start = torch.clamp(torch.round(self.w / self.wide(self.scales)), -2, 1)
        gap = -((start - self.levels) ** 2) / 2
        self.logits = 0.01 * (torch.randn(4, rows, cols, device=device) + 6 * (gap - gap.mean(0)))
        self.mom, self.smom = torch.zeros_like(self.logits), torch.zeros_like(self.scales)

    def wide(self, scales):
        return scales.repeat_interleave(self.group, 1)

    def __call__(self, tau=1.0, kappa=200.0, rate=1e-3, rate_scales=5e-4):
        noise = -torch.log(-torch.log(torch.rand_like(self.logits).clamp_(1e-9, 1 - 1e-7)))
        p = torch.softmax((kappa * self.logits + noise) / tau, 0)
        mean = (p * self.levels).sum(0)
        s = self.wide(self.scales)
        grad = 2 * (s * mean - self.w) @ self.h
        of_logits = (kappa / tau) * p * (s * grad) * (self.levels - mean)
        of_scales = (grad * mean).view(*self.scales.shape, self.group).sum(2)
        for value, mom, g, lr, decay in ((self.logits, self.mom, of_logits, rate, 1.0), (self.scales, self.smom, of_scales, rate_scales, 0.0)):
            value.mul_(1 - lr * decay).sub_(lr * torch.sign(0.9 * mom + 0.1 * g))
            mom.mul_(0.95).add_(g, alpha=0.05)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=int, default=4096)
    p.add_argument("--cols", type=int, default=2048)
    p.add_argument("--cube", type=int, default=2048)
    a = p.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"# PyTorch {torch.__version__} on {name}")
    with torch.no_grad():
        for label, kind, tf32 in (("product f32", torch.float32, False), ("product tf32", torch.float32, True),
                                  ("product f16", torch.float16, False), ("product bf16", torch.bfloat16, False)):
            if device.type == "cpu" and label not in ("product f32",):
                continue
            torch.backends.cuda.matmul.allow_tf32 = tf32
            x, y = (torch.randn(a.cube, a.cube, device=device).to(kind) for _ in range(2))
            print(f"{label}\t{best(lambda x=x, y=y: x @ y.T, device):.6g}", flush=True)
        torch.backends.cuda.matmul.allow_tf32 = True  # the step's product as well as PyTorch does it
        x, y = (torch.randn(8 * a.rows, a.cols, device=device) for _ in range(2))
        print(f"copy of {x.numel() * 4} bytes\t{best(lambda: y.copy_(x), device):.6g}", flush=True)
        print(f"optimiser step\t{best(Step(a.rows, a.cols, 128, device), device):.6g}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
