"""Every event and field of JSON lines against docs/json.md.

    json_check.py DOC FILE...          the lines of these files use only what the document lists, and every event of it occurs
    json_check.py --names DOC NAMES    every name of this file (one a line) occurs in the document
"""
import json
import re
import sys

# Objects whose keys are names of things.
FREE = {"plan.device_memory", "plan.ranks.waits", "plan.ranks.layouts[].shares", "plan.ranks.rank[].sent", "plan.ranks.rank[].received",
        "rank.sent", "rank.received", "rank.planned_sent", "rank.planned_received", "result of devices.kernels", "result of devices.choice", "result of bench.choice"}


def read_document(path):
    sections, current = {}, None
    first = set()
    for line in open(path, encoding="utf-8"):
        head = re.match(r"#+ `(.*)`$", line)
        if head:
            current = set()
            for name in head.group(1).split("`, `"):  # of one make
                current = sections.setdefault(name, current)
        elif line.startswith("## "):
            current = set()  # of something else
        elif line.startswith("|"):
            names = re.findall(r"`([^`]+)`", line.split("|")[1])
            (first if current is None else current).update(names)
    return sections, first


def walk(path, value, sections, bad, seen):
    if isinstance(value, list):
        for item in value:
            walk(path + "[]", item, sections, bad, seen)
    elif isinstance(value, dict) and path not in FREE:
        star = path.rsplit(".", 1)[0] + ".*"
        if path not in sections and star in sections:
            path = star
        children = path + ".*" in sections
        seen.add(path)
        for key, item in value.items():
            if path not in sections and not children:
                bad.add(path)
            elif not children and key not in sections[path]:
                bad.add(f"{path}: {key}")
            walk(f"{path}.{key}", item, sections, bad, seen)


def main():
    if sys.argv[1] == "--names":
        text = open(sys.argv[2], encoding="utf-8").read()
        bad = [n for n in open(sys.argv[3]).read().split() if f"`{n}`" not in text]
        print("\n".join("not in the document: " + n for n in bad))
        return 1 if bad else 0
    sections, first = read_document(sys.argv[1])
    bad, seen = set(), set()
    for path in sys.argv[2:]:
        for number, line in enumerate(open(path, encoding="utf-8")):
            o = json.loads(line)
            name = o["event"]
            if number == 0 and (o.pop("schema", None) != 1 or not o.pop("version", None)):
                bad.add(f"{path}: the first line has no schema and version")
            del o["event"]
            walk(f"result of {o['command']}" if name == "result" else name, o, sections, bad, seen)
    bad |= {f"never seen: {s}" for s in sections if s not in seen}
    bad |= {f"{n} is not described" for n in ("schema", "version") if n not in first}
    print("\n".join(sorted(bad)))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
