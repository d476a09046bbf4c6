#!/usr/bin/env python3
"""What ranks did of a run (`quantize --json`), held against each other: of 1, 2, 3 ... ranks, one file each.

What each does by itself is the same on all, and on one; what is shared out sums to that of one: in whole units to its dispatches too, of
rows to its floating-point operations (each rank calls the kernels, and those with rows make what all rows need). Nothing is made of an exchange where there is one rank. What is sent is
what is received, and both are what the plan has said, byte by byte; where training went otherwise than it takes, of that training.
"""
import json
import sys

FIELDS = ("dispatches", "flop", "bytes_written")


def same(a, b):
    return abs(a - b) <= 1e-9 * max(abs(a), abs(b))


def events(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.startswith("{")]


def main():
    wrong = []
    shared = 0

    def expect(good, what):
        if not good:
            wrong.append(what)
    one = None
    for n, path in enumerate(sys.argv[1:], 1):
        all_events = events(path)
        ranks = [e for e in all_events if e["event"] == "rank"]
        plan = next(e for e in all_events if e["event"] == "plan").get("ranks")
        expect([(r["rank"], r["ranks"]) for r in ranks] == [(i, n) for i in range(n)], f"{n} ranks: told of {len(ranks)}")
        # A plan takes it that each training gains and none diverges.
        as_planned = all(e["best_epoch"] and not e["retries"] for e in all_events if e["event"] == "stage" and e.get("block"))
        one = one or ranks[0]
        for field in FIELDS:
            for r in ranks:
                expect(same(r["own"][field], one["own"][field]),
                       f"{n} ranks: by itself rank {r['rank']} has {r['own'][field]} {field}, one alone {one['own'][field]}")
            units, rows = (sum(r[part][field] for r in ranks) for part in ("units", "rows"))
            expect(same(units, one["units"][field]), f"{n} ranks: units shared out have {units} {field} in all, {one['units'][field]} on one")
            if field == "flop":
                expect(same(rows, one["rows"][field]), f"{n} ranks: rows shared out have {rows} {field} in all, {one['rows'][field]} on one")
            last, rest = ranks[-1]["each"][field], [r["each"][field] for r in ranks[:-1]]  # the last one always has rows
            expect(same(last, one["each"][field]) and all(x <= last * (1 + 1e-9) for x in rest),
                   f"{n} ranks: with rows they have {[*rest, last]} {field} beside, one {one['each'][field]}")
        shared += one["units"]["flop"] + one["rows"]["flop"]
        if n == 1:
            expect(not any(one["exchange"].values()) and not one["sent"] and not one["received"], "one rank exchanges nothing")
            continue
        for kind in {k for r in ranks for k in [*r["sent"], *r["received"]]}:
            sent, received = (sum(r[way].get(kind, 0) for r in ranks) for way in ("sent", "received"))
            expect(sent == received, f"{n} ranks: {sent} bytes of {kind} sent, {received} received")
        for r, said in zip(ranks, plan["rank"]):
            for way in ("sent", "received"):
                planned = r["planned_" + way]
                expect(r[way] == planned, f"rank {r['rank']} of {n}: {way} {r[way]}, by the plan {planned}")
                if as_planned:
                    expect(r[way] == said[way], f"rank {r['rank']} of {n}: {way} {r[way]}, planned {said[way]}")
    expect(shared > 0, "nothing is shared out")
    print("\n".join(wrong[:8]))
    sys.exit(bool(wrong))


main()
