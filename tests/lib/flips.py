"""Flips one bit at a time in a work folder, or in a model between stop and resume, and repeats the command: every flip must
be refused, or mended with a warning, or change nothing. Prints a table; exit 1 where one is silent or ends in a crash.

usage: flips.py N SEED work|model STATE... -- GSQ quantize MODEL OPTIONS...

STATE is REFERENCE:WORK: a finished output (file or folder) and a work folder from which the command ends in it."""
import os
import random
import re
import shutil
import subprocess
import sys

n, seed, what = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
split = sys.argv.index("--")
states = [a.split(":") for a in sys.argv[4:split]]
command = sys.argv[split + 1:]
model = command[2]
scratch = os.path.join(os.path.dirname(os.path.abspath(states[0][1])), "flips")
rng = random.Random(seed)


def files_below(folder):
    return sorted(f for f in os.listdir(folder) if os.path.isfile(os.path.join(folder, f)) and os.path.getsize(os.path.join(folder, f)))


def tree(path):
    if os.path.isfile(path):
        return open(path, "rb").read()
    return {f: open(os.path.join(path, f), "rb").read() for f in files_below(path)}


def flip(path):
    """Half of the flips among the first bytes, where headers are."""
    data = bytearray(open(path, "rb").read())
    end = min(len(data), 2000) if rng.random() < 0.5 else len(data)
    at, bit = rng.randrange(end), rng.randrange(8)
    data[at] ^= 1 << bit
    with open(path, "wb") as f:
        f.write(data)
    return f"byte {at} of {len(data)}, bit {bit}"


def case(state):
    """What becomes of one flip: (file, outcome, details)."""
    reference, work = state
    shutil.rmtree(scratch, ignore_errors=True)
    os.makedirs(scratch)
    here = os.path.join(scratch, "work")
    shutil.copytree(work, here)
    out = os.path.join(scratch, "out" + os.path.splitext(reference)[1])
    line = list(command)
    folder = here
    if what == "model":
        # Under its own name, which goes into a GGUF.
        folder = line[2] = os.path.join(scratch, os.path.basename(model))
        os.makedirs(folder)
        for f in files_below(model):
            if f.endswith((".json", ".safetensors")) and f != "expected.json":
                shutil.copy(os.path.join(model, f), folder)
    # The weights as often as all else together.
    names = files_below(folder)
    weights = [f for f in names if what == "model" and f.endswith(".safetensors")]
    name = rng.choice(weights if weights and rng.random() < 0.5 else names)
    where = flip(os.path.join(folder, name))
    r = subprocess.run(line + ["-o", out, "--work", here], capture_output=True, text=True, errors="replace", timeout=300)
    kind = "block" if name.startswith("block-") else name
    said = " ".join(x for x in r.stderr.split("\n") if x.startswith(("error", "hint", "warning")))
    if r.returncode in (2, 3) and "error: " in r.stderr:
        return kind, "refused", f"{name}, {where}: {said[:300]}"
    if r.returncode != 0:
        return kind, "CRASHED", f"{name}, {where}: exit {r.returncode}: {said[-500:]}"
    if tree(out) != tree(reference):
        return kind, "SILENT", f"{name}, {where}: other bytes; {said[-500:]}"
    mended = re.search(r"warning: .*(made anew|made again|done again|is used|nothing is lost)", r.stderr)
    return kind, "mended" if mended else "same bytes", f"{name}, {where}: {said[:300]}"


outcomes = ["refused", "mended", "same bytes", "SILENT", "CRASHED"]
counts, bad = {}, 0
for i in range(n):
    kind, outcome, details = case(states[i % len(states)])
    counts.setdefault(kind, dict.fromkeys(outcomes, 0))[outcome] += 1
    if outcome.isupper():
        bad += 1
        print(f"{outcome}: {details}")
    elif os.environ.get("FLIPS_VERBOSE"):
        print(f"{outcome}: {details}")
print(f"{'':<28}" + "".join(f"{o:>12}" for o in outcomes))
for kind in sorted(counts):
    print(f"{kind:<28}" + "".join(f"{counts[kind][o]:>12}" for o in outcomes))
print(f"{n} bits flipped in a {'work folder' if what == 'work' else 'model between stop and resume'}: {bad} unnoticed with other bytes, or crashed")
sys.exit(bad != 0)
