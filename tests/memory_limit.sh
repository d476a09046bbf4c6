#!/usr/bin/env bash
# What a dry run accepts runs, to the MiB: of several shapes, methods and a GGUF's type the smallest limit that is accepted is
# looked for. A run within exactly that completes; one with a MiB less is refused before it begins. The same where one buffer
# may hold little.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
make=$build/make_big_block
[[ -x $make ]] || skip "$make is not built"
unset GSQ_VALIDATE # it makes every start slow; tests/memory.sh runs the same with it

# within MIB OPTION...: a run with so much.
within_mib() {
    local mib=$1
    shift
    rm -rf "$tmp/m" "$tmp/m.gguf" "$tmp/m.work" "$tmp/m.gguf.work"
    GSQ_DEVICE_LIMITS="memory=$mib${alloc:+,alloc=$alloc}" run "$gsq" quantize "$@" "${size[@]}"
}

least() { # NAME OPTION...
    local name=$1 mib peak
    shift
    local low=16
    mib=272
    while [[ $((mib - low)) -gt 1 ]]; do
        within_mib $(((mib + low) / 2)) "$@" "${text[@]}" --dry-run
        if [[ $rc -eq 0 ]]; then mib=$(((mib + low) / 2)); else low=$(((mib + low) / 2)); fi
    done
    within_mib "$((mib - 1))" "$@" "${text[@]}"
    check "$name: $((mib - 1)) MiB are refused" test "$rc" -eq 3
    check "$name: before there is anything" test ! -e "$tmp/m.work" -a ! -e "$tmp/m" -a ! -e "$tmp/m.gguf.work"
    within_mib "$mib" "$@" "${text[@]}" --json
    check "$name: $mib MiB are enough" test "$rc" -eq 0
    [[ $rc -eq 0 ]] || { tail -n 3 "$tmp/err" && return; }
    peak=$(field device_peak_bytes "$tmp/out")
    check "$name: $peak bytes were used" at_most "$peak" $((mib << 20))
}

"$make" "$tmp/wide" --hidden 512 --intermediate 1536 --heads 8 --kv 2 --layers 2 --vocab 1024
"$make" "$tmp/words" --hidden 256 --intermediate 512 --heads 4 --kv 4 --layers 3 --vocab 12000
size=(--samples 6 --ctx 64 --steps 2)
text=(--calib "$demo/calib.txt")
fast=(-o "$tmp/m" --effort fast --bits 2 --group 64)
balanced=(-o "$tmp/m" --effort balanced --epochs 1 --scale-epochs 1 --bits 2 --group 64)
gguf=(-o "$tmp/m.gguf" --effort balanced --epochs 1 --scale-epochs 1)
alloc=
least "wide, fast" "$tmp/wide" "${fast[@]}"
least "wide, balanced" "$tmp/wide" "${balanced[@]}"
least "wide, Q2_K" "$tmp/wide" "${gguf[@]}" --type Q2_K
least "demo, balanced" "$demo" "${balanced[@]}"
least "many words, Q4_0" "$tmp/words" "${gguf[@]}" --type Q4_0

# Small buffers: a linear's logits and momenta of 12 MiB lie in two or three, its Hessian of 9 MiB in one, two or three.
alloc=4
least "wide, small buffers" "$tmp/wide" "${balanced[@]}" --bits 3
for alloc in '' 7 4; do # with Hessians of outputs 512 rows learn in one buffer, or without these
    within_mib 400 "$tmp/wide" "${balanced[@]}" --output-hessian off --bits 3 "${text[@]}"
    sha256sum <"$tmp/m/model.safetensors" >"$tmp/sum$alloc" || true
done
for alloc in 7 4; do
    check "the same bytes with buffers of $alloc MiB" cmp -s "$tmp/sum" "$tmp/sum$alloc"
done
alloc=2
within_mib 400 "$tmp/wide" "${fast[@]}" --dry-run
check 'a buffer that is too large for the device is refused' test "$rc" -eq 3
check 'in a sentence' grep -q '^error: .*one buffer of this device holds at most 2' "$tmp/err"

expect 'a limit that is none' 2 'is no limit' 'MIB' -- env GSQ_DEVICE_LIMITS=memory=100,alloc=x "$gsq" devices
expect 'a limit of something else' 2 '"disk=7" is no limit' -- env GSQ_DEVICE_LIMITS=disk=7 "$gsq" quantize "$demo" -o "$tmp/m" \
    --method rtn --dry-run
done_testing
