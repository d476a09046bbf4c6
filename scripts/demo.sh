#!/usr/bin/env bash
# Installs what is missing, builds gsq, and quantizes the bundled model (models/demo) to 2 bits by three methods on the
# best Vulkan device there is. Ends in a table of what was measured here and now.
#
#   scripts/demo.sh [gsq options, such as --device 1]
set -euo pipefail
cd "$(dirname "$0")/.."
model=models/demo
out=build/demo
gsq=build/release/gsq

scripts/setup.sh
echo "building (log: build/release.log)"
mkdir -p build
# Without the tests, which want more packages. The preset turns them on again for scripts/test.sh.
if ! { cmake --preset release -DGSQ_TESTS=OFF && cmake --build build/release --target gsq; } >build/release.log 2>&1; then
    tail -n 40 build/release.log
    echo "error: the build failed"
    exit 1
fi
rm -rf "$out"
mkdir -p "$out"
started=$SECONDS

field() { # NAME: a field of the result line on stdin
    sed -nE '/"event":"result"/s/.*"'"$1"'":("([^"]*)"|([-0-9.e+]+)).*/\2\3/p'
}

measure() { # LABEL FOLDER BITS: one row of the table
    local size ppl
    size=$(cat "$2"/*.safetensors | wc -c)
    ppl=$("$gsq" eval "$2" --text "$model/eval.txt" --ctx 256 --json "${options[@]}" 2>>"$out/log" | field perplexity)
    printf '%-8s  %15.3f  %9.0f KiB  %10.3f\n' "$1" "$3" "$(awk "BEGIN { print $size / 1024 }")" "$ppl" >>"$out/table"
}

options=("$@" --log-level error)
echo "measuring the 16-bit model"
measure '16 bits' "$model" 16
for method in rtn gptq gsq; do
    echo "quantizing by $method: 2 bits, group 128"
    "$gsq" quantize "$model" -o "$out/$method" --method "$method" --effort fast --bits 2 --group 128 --calib "$model/calib.txt" \
        --ctx 256 --samples 64 --steps 300 "${options[@]}" | tee "$out/said"
    measure "$method" "$out/$method" "$(sed -nE 's/.* ([0-9.]+) bits per weight.*/\1/p' "$out/said")"
done

printf '\n%-8s  %15s  %13s  %10s\n' method 'bits per weight' 'file size' perplexity
cat "$out/table"
cat <<END

Bits per weight: of the blocks' linears, scales included; embeddings and norms stay in 16 bits.
Perplexity: on $model/eval.txt, which no method saw. The models are in $out/.
The demo's own work took $((SECONDS - started)) s.
END
