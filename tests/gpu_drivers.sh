#!/usr/bin/env bash
# The program's host side on the drivers of real cards, without them (scripts/gpu-drivers.sh): the device is opened, every call
# made, a file written. Nothing is computed there, so no number is looked at. And on the newest lavapipe, which does compute,
# the same command gives the same codes as on this system's. Skipped where the drivers were not prepared.
set -euo pipefail
cd "${GSQ_SOURCE:-$(dirname "$0")/..}"
gsq=$(realpath "${GSQ_BINARY:-build/release/gsq}")
drivers=${GSQ_GPU_DRIVERS:-$PWD/build/gpu-drivers}
[[ -f $drivers/ready ]] || { echo "skipped: scripts/gpu-drivers.sh was not run"; exit 77; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
text=$PWD/data/gsq-calibration-1.txt
options=(--bits 2 --effort balanced --calib "$text" --steps 4 --samples 4 --ctx 64)
bad=0

while read -r card driver _ name; do
    [[ $driver != lvp ]] || continue
    rc=0
    scripts/gpu-drivers.sh run "$card" "$gsq" quantize models/demo "${options[@]}" -o "$tmp/$card" >"$tmp/log" 2>&1 || rc=$?
    if [[ $rc -eq 77 ]]; then
        echo "$card: not there"
    elif [[ $rc -ne 0 || ! -s $tmp/$card/model.safetensors ]]; then
        echo "$card ($name): exit $rc"
        tail -5 "$tmp/log"
        bad=$((bad + 1))
    else
        echo "$card ($name): $(sed -n 's/^ *time .* on //p' "$tmp/log")"
    fi
done < <(scripts/gpu-drivers.sh cards)

scripts/gpu-drivers.sh run lavapipe "$gsq" quantize models/demo --bits 4 --method rtn -o "$tmp/new" >"$tmp/log" 2>&1 || bad=$((bad + 1))
"$gsq" quantize models/demo --bits 4 --method rtn --device llvmpipe -o "$tmp/old" >>"$tmp/log" 2>&1
cmp "$tmp/new/model.safetensors" "$tmp/old/model.safetensors" || bad=$((bad + 1))
echo "$bad faults"
[[ $bad -eq 0 ]]
