#!/usr/bin/env bash
# One full Llama-3.1-8B block is trained on its outputs within 8 GiB of device memory: 3 steps for each half, 4 windows of
# 128 tokens. The planned and the measured device memory are the same within 2 %.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"
make=$build/make_big_block
[[ -x $make ]] || skip "$make is not built"
free_kib=$(df -Pk "$tmp" | awk 'NR == 2 { print $4 }')
[[ $free_kib -gt 2000000 ]] || skip "2 GB of disk space are needed in $tmp"
free_kib=$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)
[[ $free_kib -gt 12000000 ]] || skip "12 GB of memory are needed"
unset GSQ_VALIDATE # the layers' own memory would be counted

"$make" "$tmp/block"
run "$gsq" quantize "$tmp/block" -o "$tmp/out8b" --bits 2 --group 128 --calib "$demo/calib.txt" --samples 4 --ctx 128 \
    --start rtn --epochs 3 --batch 4 --block-reach 0.02 --scale-epochs 0 --mem-limit 8 --json
check 'it completes' test "$rc" -eq 0
[[ $rc -eq 0 ]] || { tail -n 5 "$tmp/err"; done_testing; }
python3 - "$tmp/out" <<'END' >"$tmp/facts"
import json, sys
events = [json.loads(line) for line in open(sys.argv[1])]
plan = next(e for e in events if e["event"] == "plan")
result = events[-1]
stages = [e for e in events if e["event"] == "stage"]
print(plan["device_bytes"], result["device_peak_bytes"], plan["predicted_seconds"], result["seconds"])
for s in stages:
    print(s["stage"], s["steps"], s["loss_start"], s["loss"], s["retries"], sep="|")
END
read -r planned measured predicted seconds < <(head -n 1 "$tmp/facts")
echo "device memory: planned $planned bytes, measured $measured; time: predicted $predicted s, $seconds s"
check 'both within 2 %' within "$measured" "$planned" 0.02
check 'within 8 GiB' at_most "$measured" 8589934592
check 'two halves were trained' test "$(grep -c '|' "$tmp/facts")" -eq 2
while IFS='|' read -r stage steps start loss retries; do
    echo "$stage: $steps steps, held-out error $start -> $loss, $retries retries"
    check "$stage: 3 steps" test "$steps" -eq 3
    check "$stage: not worse than its start" at_most "$loss" "$start"
done < <(grep '|' "$tmp/facts")
done_testing
