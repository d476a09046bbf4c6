#!/usr/bin/env bash
# The plan's device memory is what a run takes at most, within 2 %, with all memory and with little: RTN, GPTQ, both
# objectives, an importance matrix alone, GGUF. Then evaluation and the importance matrix keep to a limit as well.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"
text=("--calib" "$demo/calib.txt" --samples 12 --ctx 128)
folder=(--bits 2 --group 32)

planned() { # NAME OPTION...
    local name=$1 peak plan limit
    shift
    rm -rf "$tmp/m" "$tmp/m.gguf"
    run "$gsq" quantize "$demo" "$@" --json
    [[ $rc -eq 0 ]] || { fail "$name: exit $rc: $(tail -n 1 "$tmp/out")" && return; }
    read -r plan limit peak sum < <(python3 -c '
import json, sys
events = [json.loads(line) for line in open(sys.argv[1])]
plan = next(e for e in events if e["event"] == "plan")
print(plan["device_bytes"], plan["device_limit"], events[-1]["device_peak_bytes"], sum(plan["device_memory"].values()))' "$tmp/out")
    check "$name: planned $plan bytes, measured $peak" within "$peak" "$plan" 0.02
    check "$name: within its limit" at_most "$peak" "$limit"
    check "$name: its lines are all of it" test "$sum" -eq "$plan"
}

for limit in 4 0.05; do
    planned "rtn, $limit GiB" "${folder[@]}" -o "$tmp/m" --method rtn --mem-limit $limit
    planned "gptq, $limit GiB" "${folder[@]}" -o "$tmp/m" "${text[@]}" --method gptq --mem-limit $limit
    planned "fast, $limit GiB" "${folder[@]}" -o "$tmp/m" "${text[@]}" --effort fast --steps 4 --mem-limit $limit
    planned "fast with Hessians of outputs, $limit GiB" "${folder[@]}" -o "$tmp/m" "${text[@]}" --effort fast --steps 4 \
        --output-hessian on --mem-limit $limit
    planned "balanced, $limit GiB" "${folder[@]}" -o "$tmp/m" "${text[@]}" --steps 4 --epochs 1 --scale-epochs 1 \
        --mem-limit $limit
done
run "$gsq" imatrix "$demo" -o "$tmp/im.gguf" "${text[@]}" --mem-limit 0.04
check 'an importance matrix in little memory' test "$rc" -eq 0
for limit in 0.0205 0.0225 0.03; do
    run "$gsq" eval "$demo" --text "$demo/eval.txt" --windows 24 --ctx 128 --mem-limit $limit --json
    check "an evaluation within $limit GiB" test "$rc" -eq 0
done
planned 'a GGUF' -o "$tmp/m.gguf" "${text[@]}" --type Q4_0 --steps 4 --epochs 1 --scale-epochs 0 --mem-limit 0.07
planned 'an importance matrix alone' -o "$tmp/m.gguf" --type Q4_0 --imatrix "$tmp/im.gguf" --steps 4 --mem-limit 0.05

# Ten times the windows that device and host have room for: 39 MB of activations beside 4 and 1.
planned '10 times as long a text as memory holds' "${folder[@]}" -o "$tmp/m" --calib "$demo/calib.txt" --ctx 64 --samples 1199 \
    --effort fast --steps 4 --mem-limit 0.0255 --host-limit 0.001
check 'its activations are in a file' grep -q '"activations":"file"' "$tmp/out"

# Activations that the device does not take, 4 GiB here of student and 16-bit model, go to host memory where there is as much free again, and to a file
# only beyond what may be used.
place() { # WHERE OPTION...
    run "$gsq" quantize "$demo" -o "$tmp/p" --dry-run --samples 2048 --ctx 2048 --effort fast --mem-limit 0.5 "${@:2}" --json
    check "4 GiB of activations: ${*:2} $1" test "$(python3 -c 'import json, sys
print(next(e for e in map(json.loads, open(sys.argv[1])) if e["event"] == "plan")["activations"])' "$tmp/out")" = "$1"
}
place file --host-limit 3
place host --host-limit 5
if [[ $(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo) -ge 12 && ! -e /sys/fs/cgroup/memory.max ]]; then
    place host
fi

# Too little is refused in a sentence that says how much there has to be, and so much is enough.
expect 'too little' 3 'need .* of device memory, .* may be used' 'mem-limit' -- \
    "$gsq" quantize "$demo" -o "$tmp/m" "${folder[@]}" "${text[@]}" --steps 4 --epochs 1 --mem-limit 0.02
need=$(sed -n 's/^error: .* need \([0-9.]*\) MiB of device memory.*/\1/p' "$tmp/err")
planned "what it says there has to be, $need MiB" "${folder[@]}" -o "$tmp/m" "${text[@]}" --steps 4 --epochs 1 \
    --mem-limit "$(awk -v m="$need" 'BEGIN { print m / 1024 }')"
done_testing
