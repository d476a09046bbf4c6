"""What scripts measure point by point over small models (bench-levels.py, bench-half.py): models, runs, and a file of rows to which
each point is added at once, so that an interrupted run goes on where it was."""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODELS = {  # folder, calibration text, evaluation text, group; a - stands for the folder beside the repository
    "demo": ("models/demo", "models/demo/calib.txt", "models/demo/eval.txt", 128),
    "stories260K": ("-models/stories260K", "-text/tinystories-calib.txt", "-text/tinystories-eval.txt", 64),
    "TinyStories-656K": ("-models/TinyStories-656K", "-text/tinystories-calib.txt", "-text/tinystories-eval.txt", 128),
    "oak-2.9M": ("-models/oak-2.9M", "-text/wikitext2-test-calib.txt", "-text/wikitext2-test-eval.txt", 64),
}


def place(path, shared):
    return os.path.join(shared, path[1:]) if path[0] == "-" else os.path.join(here, path)


def result(command):
    """The last event of a command of gsq."""
    command = [*map(str, command), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        out, err = p.communicate()
    last = json.loads(out.splitlines()[-1]) if out else {}
    if p.returncode or last.get("event") != "result":
        sys.exit(f"{' '.join(command)}: {last or err}")
    return last


def version(gsq):
    return subprocess.run([gsq, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def read(path, fields, n_key):
    rows = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            for line in f:
                row = dict(zip(fields, line.rstrip("\n").split("\t")))
                rows[tuple(row[k] for k in fields[:n_key])] = row
    return rows


def main(build, name, fields, n_key, models, points, measure, report):
    """The command line. A point is the first n_key of the fields, the model first; measure(gsq, point, shared, folder) gives all of
    them; report(file, rows) prints what there is."""
    a = argparse.ArgumentParser()
    a.add_argument("--gsq", default=os.path.join(here, "build", build, "gsq"))
    a.add_argument("--rows", default=os.path.join(here, "build", name + ".tsv"))
    a.add_argument("--shared", default=os.path.join(os.path.dirname(here), "shared"))
    a.add_argument("--print", action="store_true", dest="print_only")
    a.add_argument("only", nargs="?", default="")
    o = a.parse_args()
    rows = read(o.rows, fields, n_key)
    for point in [] if o.print_only else points():
        key = tuple(map(str, point))
        if key in rows or not re.search(o.only, " ".join(key)) or not os.path.isdir(place(models[point[0]][0], o.shared)):
            continue
        with tempfile.TemporaryDirectory() as tmp:
            row = measure(o.gsq, point, o.shared, tmp)
        rows[key] = {k: str(v) for k, v in row.items()}
        with open(o.rows, "a", encoding="utf-8") as f:
            f.write("\t".join(rows[key][k] for k in fields) + "\n")
        print(" ".join(key), row["kl"], row["seconds"], "s", file=sys.stderr)
    report(sys.stdout, rows)
