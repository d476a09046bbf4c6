#!/usr/bin/env bash
# One full Llama-3.1-8B block (436 MB of bf16): RTN completes, host memory stays under 3 GiB beyond the mapped file, and
# GSQ on it is planned within 8 GiB of device memory.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"
make=$build/make_big_block
[[ -x $make ]] || skip "$make is not built"
free_kib=$(df -Pk "$tmp" | awk 'NR == 2 { print $4 }')
[[ $free_kib -gt 2000000 ]] || skip "2 GB of disk space are needed in $tmp"
unset GSQ_VALIDATE # the layers' own memory would be counted

"$make" "$tmp/block"
rc=0
"$gsq" quantize "$tmp/block" -o "$tmp/out8b" --method rtn --bits 2 --group 128 --json >"$tmp/out" 2>"$tmp/err" &
pid=$!
peak=0
while kill -0 "$pid" 2>/dev/null; do
    anon=$(awk '/^RssAnon/ { print $2 }' "/proc/$pid/status" 2>/dev/null || true)
    [[ ${anon:-0} -le $peak ]] || peak=$anon
    sleep 0.2
done
wait "$pid" || rc=$?
check 'RTN of one 8B block completes' test "$rc" -eq 0
[[ $rc -eq 0 ]] || { cat "$tmp/err"; done_testing; }
echo "$(field seconds "$tmp/out") s; host memory beyond mapped files: $(field host_peak_bytes "$tmp/out") bytes by its own count, $peak KiB seen from outside"
check 'host memory below 3 GiB, as reported' at_most "$(field host_peak_bytes "$tmp/out")" 3221225472
check 'host memory below 3 GiB, as seen' at_most "$peak" 3145728
run "$gsq" inspect "$tmp/out8b" --json
check "bits per weight: $(field bits_per_weight "$tmp/out")" within "$(field bits_per_weight "$tmp/out")" 2.13 0.02

run "$gsq" quantize "$tmp/block" -o "$tmp/planned" --method gsq --dry-run --mem-limit 8 --json
check 'GSQ is planned' test "$rc" -eq 0
python3 - "$tmp/out" <<'END' >"$tmp/plan"
import json, sys
print([json.loads(line)["device_bytes"] for line in open(sys.argv[1]) if '"event":"plan"' in line][0])
END
check "within 8 GiB: $(cat "$tmp/plan") bytes" at_most "$(cat "$tmp/plan")" 8589934592
check 'and nothing was written' test ! -e "$tmp/planned"
done_testing
