#!/usr/bin/env bash
# Without a text the model writes its own calibration: what is said of it, the same bytes again and after an interruption, within the
# plan; with an importance matrix or a text it does not; a model that cannot write takes the text that comes with gsq.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"

quantize=("$gsq" quantize "$demo" --bits 2 --group 64 --samples 6 --ctx 64 --effort fast --steps 4)
run "${quantize[@]}" -o "$tmp/a" --keep-work
check 'without a text' test "$rc" -eq 0
check 'which is said, with what is better' grep -q 'no text: the model writes the 384 tokens .* a text like .*--calib FILE' "$tmp/err"
check 'the tokens are kept' test -e "$tmp/a.work/sampled.safetensors"
run "${quantize[@]}" -o "$tmp/b" --calib self --json
check 'asked for by name' test "$rc" -eq 0
check 'the same bytes' diff -r "$tmp/a" "$tmp/b"
check 'each segment begins with the BOS, and none is like another' python3 - "$tmp/a.work/sampled.safetensors" <<'END'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", data[:8])[0]
begin, end = json.loads(data[8 : 8 + n])["ids"]["data_offsets"]
ids = struct.unpack(f"<{(end - begin) // 4}I", data[8 + n + begin : 8 + n + end])
segments = {ids[i : i + 64] for i in range(0, len(ids), 64)}
sys.exit(not (len(ids) == 384 and len(segments) == 6 and {s[0] for s in segments} == {766} and max(ids) < 768))
END

export GSQ_VALIDATE=0 # it has watched the run above
# An interruption while it writes, behind that, and in a linear; what is written is not written again.
for point in stop:sample:9 kill:linear:2; do
    rc=0
    (GSQ_STOP_AT=$point "${quantize[@]}" -o "$tmp/s" || exit) >"$tmp/out" 2>"$tmp/err" </dev/null || rc=$?
    check "$point: it was" grep -q GSQ_STOP_AT "$tmp/err"
    check "$point: exit $rc" test "$rc" -ne 0
    run "${quantize[@]}" -o "$tmp/s" --json
    check "$point: the next run ends" test "$rc" -eq 0
    check "$point: in the same bytes" diff -r "$tmp/a" "$tmp/s"
    wrote=$(grep -c '"phase":"sample"' "$tmp/out" || true)
    if [[ $point == kill:linear* ]]; then check "$point: without writing again" test "$wrote" -eq 0; fi
    rm -r "$tmp/s"
done

# The plan: how it is written, how long it takes, and the memory of that where it is the most.
run "${quantize[@]}" -o "$tmp/p" --dry-run
check 'a dry run' test "$rc" -eq 0
check 'says how it is written' grep -q 'written by the model, in segments of 64 tokens, 6 of 6 at a time, ' "$tmp/out"
check 'and predicts' grep -q '^predicted time .* from a short measurement' "$tmp/out"
for limit in 2 0.05; do
    run "${quantize[@]}" -o "$tmp/m" --force --method gptq --samples 64 --keep-work --json --mem-limit $limit
    check "within $limit GiB" test "$rc" -eq 0
    check "$limit GiB: what was planned" python3 -c '
import json, sys
events = [json.loads(line) for line in open(sys.argv[1])]
plan, end = next(e for e in events if e["event"] == "plan"), events[-1]
memory = sum(plan["device_memory"].values())
print(plan["device_bytes"], memory, end["device_peak_bytes"], plan["device_limit"])
sys.exit(not (memory == plan["device_bytes"] <= plan["device_limit"] and
              0.98 * plan["device_bytes"] <= end["device_peak_bytes"] <= plan["device_bytes"]))' "$tmp/out"
    tail -c 16384 "$tmp/m.work/sampled.safetensors" >"$tmp/at$limit" # its ids
    rm -r "$tmp/m.work"
done
check 'in any memory the same text' cmp "$tmp/at2" "$tmp/at0.05"

run "$gsq" imatrix "$demo" --calib "$demo/calib.txt" --samples 2 --ctx 64 -o "$tmp/im.gguf"
run "${quantize[@]}" -o "$tmp/i" --imatrix "$tmp/im.gguf"
check 'an importance matrix is enough' bash -c '[[ $0 -eq 0 ]] && ! grep -q "model writes" "$1"' "$rc" "$tmp/err"
run "${quantize[@]}" -o "$tmp/r" --method rtn
check 'and rounding needs none' bash -c '[[ $0 -eq 0 ]] && ! grep -q "model writes" "$1"' "$rc" "$tmp/err"
done_testing
