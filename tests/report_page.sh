#!/usr/bin/env bash
# The report page of a run: it holds what --json said and what lies in the work folder and the result, draws it, and stands alone. Where there is node, its script is run on the
# pages of tests/test_report.c too: many blocks, nothing measured, values that are hard to draw, hostile names.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"

run "$gsq" quantize "$demo" -o "$tmp/o" --calib default --effort balanced --samples 8 --ctx 64 --steps 20 --epochs 2 \
    --report "$tmp/run.html" --eval "$demo/eval.txt" --windows 4 --json --keep-work
check 'a run with a report' test "$rc" -eq 0
check 'its page holds what --json said' python3 - "$tmp/run.html" "$tmp/out" <<'END'
import json, re, sys
page = open(sys.argv[1], encoding="utf-8").read()
before, text, after = re.fullmatch(r'(.*<script type="application/json" id="run">)(.*?)(</script>.*)', page, re.S).groups()
assert not re.search("[<>&\u2028\u2029]", text)
run = json.loads(text)
events = [json.loads(line) for line in open(sys.argv[2])]
of = lambda kind: [{k: v for k, v in e.items() if k not in ("event", "schema", "version")} for e in events if e["event"] == kind]
about = lambda a, b: a == b or (isinstance(a, float) and abs(a - b) <= 1e-14 * abs(b))
def same(a, b, where):
    if isinstance(b, dict):
        for k in b:
            same(a[k], b[k], where + "." + k)
    elif isinstance(b, list):
        assert len(a) == len(b), where
        for i in range(len(b)):
            same(a[i], b[i], "%s[%d]" % (where, i))
    else:
        assert about(a, b), "%s: %r is not %r" % (where, a, b)
(result,), (plan,) = of("result"), of("plan")
for only_here in ("command", "stage_loss_start", "stage_loss"):
    result.pop(only_here)
same(run["result"], result, "result")
same(run["plan"], plan, "plan")
assert len(of("linear")) == 21 and len(of("stage")) == 7
for kind in ("linear", "stage"):
    same(run[kind + "s"], of(kind), kind + "s")
assert sum(sum(l["codes"]["counts"]) for l in run["linears"]) == plan["weights_quantized"]
assert sum(sum(l["scales"]["counts"]) + l["scales"]["zero"] for l in run["linears"]) == plan["weights_quantized"] // 128
assert run["result"]["source_bytes"] > 2 * plan["weights"] and {p["phase"] for p in run["phases"]} > {"calibration", "export"}
open(sys.argv[1] + ".frame", "w").write(before + after)
END
check 'each number of it is that of the stored blocks, and of the files' python3 - "$tmp/run.html" "$tmp/o" "$demo" <<'END'
import array, collections, glob, json, math, os, re, sys
page, out, model = sys.argv[1:]
run = json.loads(re.search(r'id="run">(.*?)</script>', open(page, encoding="utf-8").read(), re.S).group(1))
result, linears, stages = run["result"], {l["module"]: l for l in run["linears"]}, run["stages"]
near = lambda a, b, share=1e-12: abs(a - b) <= share * abs(b)

def tensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    facts = header.pop("__metadata__", {})
    return facts, {k: (v["shape"], data[slice(*v["data_offsets"])]) for k, v in header.items()}

seen = 0
for path in sorted(glob.glob(out + ".work/block-*.safetensors")):
    facts, stored = tensors(path)
    for name in [n for n in stored if n.endswith(".codes")]:
        module, (rows, words), seen = name[:-6], stored[name][0], seen + 1
        line, want = linears[module], facts[module].split()
        assert line["rows"] == rows, module
        losses = dict(zip(("loss_rtn", "loss_gptq", "loss"), map(float, want)))
        for key, loss in losses.items():
            assert math.isnan(loss) and key not in line or near(line[key], loss), (module, key)
        assert [line["rows_rolled_back"], line["damp_raised"], line["diagonal_only"]] == [int(x) for x in want[3:6]], module
        assert near(line["seconds"], float(want[6]), 1e-3) or abs(line["seconds"] - float(want[6])) < 1e-5, module
        bits = words * 32 // line["cols"]
        found = collections.Counter()
        for word in array.array("I", stored[name][1]):
            found.update(word >> at & (1 << bits) - 1 for at in range(0, 32, bits))
        first = line["codes"]["first"]
        want = {first + i: n for i, n in enumerate(line["codes"]["counts"]) if n}
        assert {code - (1 << bits - 1): n for code, n in found.items()} == want, (module, want, found)
        scales = array.array("f", stored[module + ".scales"][1])
        bins = collections.Counter(math.floor((math.log2(abs(s)) + 20) * 2) for s in scales if s)
        drawn = line["scales"]
        first = round((drawn["log2_first"] + 20) * 2)
        assert {first + i: n for i, n in enumerate(drawn["counts"]) if n} == bins, module
        assert drawn["zero"] == sum(s == 0 for s in scales) and drawn["negative"] == sum(s < 0 for s in scales), module
assert seen == len(linears) == 21
assert near(result["mean_loss"], sum(l["loss"] for l in linears.values()) / len(linears))
for s in stages:
    assert len(s["losses"]) == s["epochs"] + 1 and near(s["losses"][s["best_epoch"]], s["loss"], 1e-6), s
    assert near(s["losses"][0], s["loss_start"], 1e-6) and s["loss"] <= s["loss_start"] and s["seconds"] > 0, s
assert result["source_bytes"] == sum(len(data) for _, data in tensors(model + "/model.safetensors")[1].values())
assert result["out_bytes"] == sum(map(os.path.getsize, glob.glob(out + "/*")))
weights = sum(l["rows"] * l["cols"] for l in linears.values())
assert weights == run["plan"]["weights_quantized"]
assert 0 < sum(p["seconds"] for p in run["phases"]) <= result["seconds"] * 1.001
assert max(p["device_bytes"] for p in run["phases"]) == result["device_peak_bytes"]
END
frame=$(sha256sum <"$tmp/run.html.frame")
check 'and else what was built in' test "$frame" = "$(sed 's/@RUN@//' "$here/lib/report.html" | sha256sum)"

if command -v node >/dev/null; then
    run env -C "$tmp" GSQ_KEEP_REPORTS=1 "$build/test_report"
    check 'pages of every shape' test "$rc" -eq 0
    pages=$tmp/test_report.tmp
    check 'are drawn' node "$here/tests/lib/report_draw.mjs" "$tmp/run.html" \
        "$pages/"{whole,small,refined,experts,bare,empty,odd,hostile}.html
    # The checker sees what it is there for.
    for fault in 's/e\.append(/e.setAttribute("onclick", "x"); e.append(/' 's/e\.append(/e.innerHTML = "x"; e.append(/' \
        's/const known = .*/const known = v => true;/' 's/"start kept"/""/g' 's/" rows rolled back"/" rows"/'; do
        for page in whole odd; do
            sed "$fault" "$pages/$page.html" >"$tmp/$page.html"
        done
        cmp -s "$pages/whole.html" "$tmp/whole.html" && fail "$fault changes nothing"
        run node "$here/tests/lib/report_draw.mjs" "$tmp/whole.html" "$tmp/odd.html"
        check "a fault is seen: $fault" test "$rc" -eq 1
    done
else
    echo "node is not installed: what the page draws was not looked at"
fi
done_testing
