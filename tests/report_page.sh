#!/usr/bin/env bash
# The report page of a run: it holds what --json said, draws it, and stands alone. Where there is node, its script is run on the
# pages of tests/test_report.c too: many blocks, nothing measured, values that are hard to draw, hostile names.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"

run "$gsq" quantize "$demo" -o "$tmp/o" --calib default --effort balanced --samples 8 --ctx 64 --steps 20 --epochs 2 \
    --report "$tmp/run.html" --eval "$demo/eval.txt" --windows 4 --json
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
frame=$(sha256sum <"$tmp/run.html.frame")
check 'and else what was built in' test "$frame" = "$(sed 's/@RUN@//' "$here/lib/report.html" | sha256sum)"

if command -v node >/dev/null; then
    run env -C "$tmp" GSQ_KEEP_REPORTS=1 "$build/test_report"
    check 'pages of every shape' test "$rc" -eq 0
    pages=$tmp/test_report.tmp
    check 'are drawn' node "$here/tests/lib/report_draw.mjs" "$tmp/run.html" \
        "$pages/"{whole,small,refined,bare,empty,odd,hostile}.html
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
