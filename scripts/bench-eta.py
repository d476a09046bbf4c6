#!/usr/bin/env python3
"""How far predictions are from the truth: what the plan said of each run against what it took, and what was told as left at 2 s,
at 10 s, at half its time, at nine tenths and in the end, against what was left.

    scripts/bench-eta.py [BUILD] [OUT.md] [RUN]        (default: build/release, standard output, all)

RUN: a regular expression; only runs whose names it is found in. `quantize`: the eight whose plans should be within a quarter of the
truth, about six minutes on two idle cores; all: about twelve. Wants an idle machine: what else runs changes the speed in the middle,
which nobody can tell beforehand, so the table has what others took of the processors. 6 GB below $TMPDIR. Linux.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import time

here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
build = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "build/release"))
gsq = os.path.join(build, "gsq")
demo = os.path.join(here, "models/demo")
only = sys.argv[3] if len(sys.argv) > 3 else ""


def processors(pid):
    """Seconds of all processors that anything took, and that the process took, so far."""
    tick = os.sysconf("SC_CLK_TCK")
    with open("/proc/stat", encoding="ascii") as f:
        n = [int(x) for x in f.readline().split()[1:9]]
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            own = f.read().rsplit(")", 1)[1].split()
        own = int(own[11]) + int(own[12])
    except OSError:
        own = 0
    return (sum(n) - n[3] - n[4]) / tick, own / tick


def others(taken, begin, end):
    """What others took of the processors between two times, as a share."""
    within = [x for x in taken if begin <= x[0] <= end]
    if len(within) < 2 or within[-1][0] - within[0][0] < 1:
        return "?"
    (t, all_, own), (u, all_end, own_end) = within[0], within[-1]
    return f"{max(0.0, (all_end - all_) - (own_end - own)) / (u - t) / os.cpu_count():.0%}"


def run(arguments):
    """[(seconds, seconds left)], the plan's prediction and when it came, seconds in all, [(seconds, all's, own)]."""
    begin = time.monotonic()
    told, planned, last, taken = [], None, None, []
    with subprocess.Popen([gsq, *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as p:
        for line in p.stdout:
            event, now = json.loads(line), time.monotonic() - begin
            last = event
            if event["event"] == "progress":
                taken.append((now, *processors(p.pid)))
            if event["event"] == "plan":
                planned = (now, event["predicted_seconds"])
            if event["event"] == "progress" and "eta_seconds" in event:
                told.append((now, event["eta_seconds"]))
    total = time.monotonic() - begin
    if p.returncode or last["event"] != "result":
        sys.exit(f"gsq {' '.join(arguments)}: {last}")
    return told, planned, total, taken


def cell(told, total, at):
    """What a reader sees then: the last event's number less what has passed since."""
    before = [(t, left) for t, left in told if t <= at]
    if at >= total:
        return "-"
    if not before:
        return "nothing yet"
    left = max(0.0, before[-1][1] - (at - before[-1][0]))
    return f"{left:.0f} of {total - at:.0f} ({left / (total - at):.2f})"


def block(folder, *options):
    subprocess.run([os.path.join(build, "make_big_block"), folder, *options], check=True)
    return folder


def report(out, tmp):
    text = os.path.join(tmp, "text")
    with open(text, "w", encoding="utf-8") as f:
        f.write("".join(open(os.path.join(demo, n), encoding="utf-8").read() for n in ("calib.txt", "eval.txt")) * 20)
    one = block(os.path.join(tmp, "one"))  # one block of an 8B model
    two = block(os.path.join(tmp, "two"), "--layers", "2", "--vocab", "128256")
    middle = block(os.path.join(tmp, "middle"), "--hidden", "512", "--intermediate", "1408", "--heads", "8", "--kv", "4",
                   "--layers", "4", "--vocab", "32000")
    calib = ["--calib", os.path.join(demo, "calib.txt")]
    o = os.path.join(tmp, "out")
    small = ["quantize", demo, "-o", o, *calib, "--ctx", "256"]
    wide = ["quantize", middle, "--calib", text, "--ctx", "256"]
    cases = [
        ("quantize, `--method gptq`, of models/demo", [*small, "--method", "gptq"]),
        ("quantize, `--effort fast --steps 500`, of models/demo", [*small, "--effort", "fast", "--steps", "500"]),
        ("quantize, `--effort balanced`, of models/demo", small),
        ("quantize, `--effort quick`, 3 bits, of 4 blocks of 512 with 32000 tokens",
         [*wide, "-o", o, "--effort", "quick", "--bits", "3", "--samples", "32"]),
        ("quantize, `--method gptq --type Q4_K`, of the same",
         [*wide, "-o", o + ".gguf", "--method", "gptq", "--type", "Q4_K", "--samples", "48"]),
        ("quantize, `--effort balanced --type Q2_K`, of the same, 16 windows",
         [*wide, "-o", o + ".gguf", "--type", "Q2_K", "--samples", "16", "--steps", "50", "--epochs", "2", "--scale-epochs", "1"]),
        ("quantize, `--method rtn`, of 2 blocks of an 8B model",
         ["quantize", two, "-o", o, "--method", "rtn", "--mem-limit", "8"]),
        ("quantize, `--method rtn --type Q4_K`, of the same with 128256 tokens",
         ["quantize", two, "-o", o + ".gguf", "--method", "rtn", "--type", "Q4_K", "--mem-limit", "8"]),
        ("eval of a block of an 8B model", ["eval", one, "--text", text, "--ctx", "1024", "--windows", "12"]),
        ("compare of a block of an 8B model with itself",
         ["compare", one, one, "--text", text, "--ctx", "512", "--windows", "8"]),
        ("imatrix of a block of an 8B model", ["imatrix", one, "--calib", text, "-o", o + ".dat", "--ctx", "512", "--samples",
                                               "16"]),
        ("convert of 2 blocks of an 8B model", ["convert", two, "-o", o + ".gguf"]),
    ]
    device = subprocess.run([gsq, "devices"], capture_output=True, text=True, check=True).stdout
    used = re.search(r"^used: (.*)$", device, re.M)
    load = os.getloadavg()
    out.write("# ETA against truth\n\nSeconds left as told, of those that were left, and their ratio, by scripts/bench-eta.py on "
              f"{used.group(1) if used else 'this device'}; {os.cpu_count()} cores. Load before the first run: {load[0]:.1f}, "
              f"{load[1]:.1f}, {load[2]:.1f} (1, 5, 15 minutes).\n\n")
    close, planned_runs = 0, 0
    out.write("| run | s in all | plan said | at 2 s | at 10 s | half | 90 % | end (98 %) | others' share of the processors, 1st and 2nd "
              "half |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
    for name, arguments in cases:
        if not re.search(only, name):
            continue
        for path in (o, o + ".gguf", o + ".dat"):
            subprocess.run(["rm", "-rf", path, path + ".work"], check=True)
        told, planned, total, taken = run(arguments)
        at = [cell(told, total, t) for t in (2, 10, total / 2, 0.9 * total, 0.98 * total)]
        plan = f"{planned[1]:.0f} ({planned[1] / total:.2f}) at {planned[0]:.1f} s" if planned else ""
        planned_runs += planned is not None
        close += planned is not None and abs(planned[1] / total - 1) <= 0.25
        out.write(f"| {name} | {total:.0f} | {plan} | " + " | ".join(at) +
                  f" | {others(taken, 0, total / 2)}, {others(taken, total / 2, total)} |\n")
        out.flush()
    out.write(f"\nWithin a quarter of the truth: {close} of {planned_runs} plans.\n")
    out.write("\nSeconds of `gsq quantize MODEL --dry-run`, with a calibration text:\n\n| model | fast | balanced | rtn |\n"
              "| --- | ---: | ---: | ---: |\n")
    for name, model, options in (("models/demo", demo, []), ("2 blocks of an 8B model", two, ["--ctx", "2048"])):
        row = []
        for effort in (["--effort", "fast"], ["--effort", "balanced"], ["--method", "rtn"]):
            _, _, total, _ = run(["quantize", model, "-o", o, *calib, *options, "--samples", "4", "--mem-limit", "12", "--dry-run",
                               *effort])
            row.append(f"{total:.1f}")
        out.write(f"| {name} | " + " | ".join(row) + " |\n")


with tempfile.TemporaryDirectory() as folder:
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w", encoding="utf-8") as stream:
            report(stream, folder)
    else:
        report(sys.stdout, folder)
