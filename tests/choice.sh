#!/usr/bin/env bash
# Kernel variants by measurement, seen from outside: what is tried when, a driver that dies meanwhile, several processes at once, and a
# run that is resumed with the variants it began with. On lavapipe taken for a GPU (GSQ_WITHOUT=cpu); where this build has no
# candidates that the device can run, with build/newest on the newest one (scripts/gpu-drivers.sh).
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"
export XDG_CACHE_HOME=$tmp/cache GSQ_WITHOUT=cpu
# choice KEY: of the first kernel with candidates: name, variant, or of its first candidate: candidate, state.
choice() {
    run "$gsq" devices --json
    python3 -c 'import json, sys
kernels = json.load(open(sys.argv[1]))["choice"]
for name, k in kernels.items():
    c = k["candidates"][0]
    print({"name": name, "variant": k["variant"], "candidate": c["variant"], "state": c["state"]}[sys.argv[2]])
    break' "$tmp/out" "$1"
}
drivers=${GSQ_GPU_DRIVERS:-$here/build/gpu-drivers}
if [[ -z $(choice name) && -f $drivers/ready && -x $here/build/newest/gsq ]]; then
    printf '#!/bin/sh\nexec "%s" run lavapipe "%s" "$@"\n' "$here/scripts/gpu-drivers.sh" "$here/build/newest/gsq" >"$tmp/gsq"
    chmod +x "$tmp/gsq"
    gsq=$tmp/gsq
    export GSQ_VALIDATE=0
fi
kernel=$(choice name) variant=$(choice candidate)
[[ -n $kernel ]] || skip "no kernel has candidates here"
file() { find "$tmp/cache" -name 'variants-*.json' 2>/dev/null; }

# ---- what measures
check "$kernel has the candidate $variant, not tried" test "$(choice state)" = new
run "$gsq" quantize "$demo" -o "$tmp/dry" --method rtn --dry-run
check 'a dry run that reads no text tries nothing' test "$rc" -eq 0 -a -z "$(file)"
run env GSQ_WITHOUT= "$gsq" bench --choose
check 'nor does a CPU device' test "$rc" -eq 0 -a -z "$(file)"
check 'which says so' grep -q 'nothing to choose' "$tmp/out"
eval_once=(eval "$demo" --text "$demo/eval.txt" --ctx 32 --windows 1)
run "$gsq" "${eval_once[@]}" --variant base
check 'nor a variant by name' test "$rc" -eq 0 -a -z "$(file)"

# only: what is remembered is that one candidate is new, and that others, which would take minutes here, are of no use.
only() {
    rm -f "$tmp/cache/gsq/"variants-*.json
    run env GSQ_STOP_AT="stop:trial:$kernel.$variant" "$gsq" bench --choose
    [[ $rc -eq 130 ]] || return 1
    python3 -c 'import json, sys
o = json.load(open(sys.argv[1]))
for name, k in o["kernels"].items():
    for c in k:
        c["state"] = "new" if [name, c["variant"]] == sys.argv[2:] else "refused"
json.dump(o, open(sys.argv[1], "w"))' "$(file)" "$kernel" "$variant"
}
check 'a stop in a trial' only
check 'is not the fault of a driver' test "$(choice state)" = new

# ---- a driver that dies
run env GSQ_STOP_AT="kill:trial:$kernel.$variant" "$gsq" "${eval_once[@]}"
check "killed in the trial: exit $rc" test "$rc" -eq 137
check 'the file says what was tried' grep -q "\"trying\":.*\"$kernel.$variant\"" "$(file)"
run "$gsq" "${eval_once[@]}"
check 'the next start works' test "$rc" -eq 0
check 'and says what it does not use' test "$(grep -c "variant $kernel.$variant is not used .* the driver died" "$tmp/err")" -eq 1
check 'it is excluded' test "$(choice state) $(choice variant)" = 'excluded base'
run "$gsq" devices
check 'gsq devices says why' grep -qE "^$kernel +base .*$variant excluded: the driver died while trying it" "$tmp/out"
run "$gsq" "${eval_once[@]}"
check 'said once' test "$rc" -eq 0 -a "$(grep -c 'is not used' "$tmp/err")" -eq 0
run env GSQ_STOP_AT=stop:trial:2 "$gsq" bench --choose
check 'bench --choose tries it again' test "$(choice state)" = measured

# ---- a driver that resets the device
layer=$build/fault_layer
fault() { # FAULT
    run env VK_ADD_LAYER_PATH="$layer" VK_INSTANCE_LAYERS=VK_LAYER_GSQ_fault GSQ_VALIDATE=0 GSQ_FAULT="$1" GSQ_FAULT_LOG="$tmp/err" \
        "$gsq" "${eval_once[@]}" --log-level debug
}
layered=
if [[ -e $layer/VkLayer_gsq_fault.json ]] && only; then
    fault count
    layered=$(grep -m1 '^fault: vk' "$tmp/err" || true)
fi
if [[ -n $layered ]] && only; then
    # How often a trial submits depends on the machine's speed.
    GSQ_FAULT_AFTER="kernel $kernel, variant $variant: pipeline made" fault vkQueueSubmit2:2
    check "lost in the trial: opened again" test "$rc" -eq 0
    check 'which is said' grep -q "^warning: while variant $kernel.$variant was tried: .* opened again, and that variant is not used" "$tmp/err"
    check 'and that variant is left out' test "$(choice state)" = excluded
fi

# ---- several at once
only
pids=() failed=0
for i in 1 2 3; do
    "$gsq" "${eval_once[@]}" >"$tmp/at_once.$i" 2>&1 &
    pids+=($!)
done
for i in "${pids[@]}"; do wait "$i" || failed=$((failed + 1)); done
check 'three processes at once' test "$failed" -eq 0
check 'of which one measured' test "$(cat "$tmp"/at_once.* | grep -c 'choosing kernel variants for')" -eq 1
check 'and none took another for dead' test "$(choice state)" = measured

# ---- a resumed run. What was measured is as it is wanted here
times() { # US USUAL_US
    python3 -c 'import json, sys
o = json.load(open(sys.argv[1]))
for k in o["kernels"].values():
    for c in k:
        if c["state"] == "measured":
            c["us"], c["usual_us"] = float(sys.argv[2]), float(sys.argv[3])
json.dump(o, open(sys.argv[1], "w"))' "$(file)" "$1" "$2"
}
export GSQ_VALIDATE=0
quantize=(quantize "$demo" --calib "$demo/calib.txt" --samples 8 --ctx 32 --steps 10 --epochs 1 --scale-epochs 0)
times 10 100
check "$variant is in use" test "$(choice variant)" = "$variant"
run "$gsq" "${quantize[@]}" -o "$tmp/whole" --keep-work
check 'the manifest names it' grep -qE "\"kernels\":[[:space:]]*\"[0-9a-f]{16} .*$kernel=$variant" "$tmp/whole.work/manifest.json"
begin() { # with the variant in use
    rm -rf "$tmp/half" "$tmp/half.work"
    times 10 100
    run env GSQ_STOP_AT=kill:block "$gsq" "${quantize[@]}" -o "$tmp/half"
    [[ $rc -eq 137 && -f $tmp/half.work/manifest.json ]]
}
check 'killed after a block' begin
times 100 10
check "another run would use base" test "$(choice variant)" = base
run "$gsq" "${quantize[@]}" -o "$tmp/half"
check "resumed with $variant: the same bytes $(tail -n 1 "$tmp/err")" cmp "$tmp/whole/model.safetensors" "$tmp/half/model.safetensors"
check 'killed once more' begin
check 'nothing is remembered' only
run "$gsq" "${quantize[@]}" -o "$tmp/half"
check 'resumed where all is measured anew: the same bytes' cmp "$tmp/whole/model.safetensors" "$tmp/half/model.safetensors"
check 'killed once more' begin
expect 'another variant by name' 2 'kernels was [0-9a-f]+ .*'"$kernel=$variant" accept -- "$gsq" "${quantize[@]}" -o "$tmp/half" --variant base
case $variant in
wide) needs=registers ;;
*) needs=coopmat ;;
esac
expect 'a device without it' 2 "cannot run variant $variant of kernel $kernel" 'accept kernels' -- \
    env GSQ_WITHOUT="cpu,$needs" "$gsq" "${quantize[@]}" -o "$tmp/half"
run env GSQ_WITHOUT="cpu,$needs" "$gsq" "${quantize[@]}" -o "$tmp/half" --accept kernels
check 'unless that is accepted' test "$rc" -eq 0
expect 'a capability that is none' 2 "no capability 'cpuu'" 'gsq devices' -- env GSQ_WITHOUT=f16,cpuu "$gsq" devices
done_testing
