#!/usr/bin/env python3
"""The report of scripts/bench-compilers.sh: BEFORE and AFTER are folders of scripts/gpu-compilers.sh, NAMES what they are called.

    scripts/bench-compilers.py BEFORE AFTER NAME_BEFORE NAME_AFTER CARD..."""
import os
import subprocess
import sys

COLUMNS = ("regs", "spilled", "local", "shared", "waves", "matrix", "cycles")  # of all.txt, after kernel, variant, card


def rows_of(folder):
    rows = {}
    with open(os.path.join(folder, "all.txt"), encoding="utf-8") as f:
        for line in f:
            kernel, variant, card, *rest = line.split()
            rows[kernel + "." + variant, card] = dict(zip(COLUMNS, rest))
    return rows


def loops(folder, cards, *options):
    tool = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gpu-loops.py")
    return subprocess.run([tool, folder, *cards, *options], check=True, capture_output=True, text=True).stdout


def steps_of(folder, cards):
    steps = {}
    for line in loops(folder, cards, "--rows").splitlines():
        kernel, variant, card, matrix, peak, *rest = line.split()
        steps[kernel + "." + variant, card] = (matrix, peak, rest)
    return steps


def driver_of(folder, card):
    with open(os.path.join(folder, card + ".txt"), encoding="utf-8") as f:
        return f.readline().strip("# \n")


def number(text):
    return int(text) if text.isdigit() else 0


def cell(row):
    if row is None:
        return "- | - | - | - | -"
    spilled = row["spilled"] + (" + %s B" % row["local"] if number(row["local"]) else "")
    return " | ".join((row["regs"], spilled, row["shared"], row["waves"], row["cycles"]))


def step_cell(step):
    if step is None:
        return "- | -"
    return " | ".join((step[0], " / ".join(["%s of %s" % (step[2][0], step[1])] + step[2][1:])))


def main():
    before_dir, after_dir, name_before, name_after = sys.argv[1:5]
    cards = sys.argv[5:]
    before, after = rows_of(before_dir), rows_of(after_dir)
    cards = [c for c in cards if any(key[1] == c for key in after)]
    print("# What the compilers of AMD, Intel and NVIDIA make of the kernels, before and after\n")
    print("Made by `scripts/bench-compilers.sh %s`, on a machine without any of these cards: Mesa's drivers compile, nothing is executed.\n" % name_before)
    print("Before: %s, the first commit that can be asked. After: %s.\n" % (name_before, name_after))
    print("| card | driver | variants | values spilled | bytes of local memory |")
    print("| --- | --- | --- | --- | --- |")
    for card in cards:
        old, new = ([r for (_, c), r in rows.items() if c == card] for rows in (before, after))
        sums = ["%d -> %d" % tuple(sum(number(r[what]) for r in rows) for rows in (old, new)) for what in ("spilled", "local")]
        print("| %s | %s | %d -> %d | %s | %s |" % (card, driver_of(after_dir, card), len(old), len(new), *sums))
    print("\n## The products' inner loops\n")
    print("Matrix instructions of a step, and the share of the card's peak that its instructions allow: a bound by the busiest unit and the")
    print("subgroups that it holds, no more (docs/kernels.md 5; no card has measured it).\n")
    print("| kernel.variant | card | before: matrix | share | after: matrix | share |")
    print("| --- | --- | --- | --- | --- | --- |")
    old, new = steps_of(before_dir, cards), steps_of(after_dir, cards)
    for name, card in sorted(set(old) | set(new), key=lambda key: (key[0], cards.index(key[1]))):
        print("| %s | %s | %s | %s |" % (name, card, step_cell(old.get((name, card))), step_cell(new.get((name, card)))))
    print("\nAfter, what a subgroup executes on one way through:\n")
    print("```\n%s```\n" % loops(after_dir, cards))
    print("## All kernels\n")
    print("Registers: vector ones of an invocation (AMD, NVIDIA), live at the most (Intel). Spilled: values, and bytes of local memory.")
    print("Shared: bytes of a workgroup (NVIDIA's driver does not say). Waves: of a SIMD (AMD), of an SM (NVIDIA); Intel: lanes of a subgroup.")
    print("Cycles: the compiler's own estimate, which knows no memory and takes each loop for a number of rounds of its own.")
    for card in cards:
        print("\n### %s\n" % card)
        print("| kernel.variant | before: registers | spilled | shared | waves | cycles | after: registers | spilled | shared | waves | cycles |")
        print("| --- " * 11 + "|")
        for name in sorted({n for n, c in list(before) + list(after) if c == card}):
            print("| %s | %s | %s |" % (name, cell(before.get((name, card))), cell(after.get((name, card)))))


if __name__ == "__main__":
    sys.exit(main())
