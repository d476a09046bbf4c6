#!/usr/bin/env bash
# What a card does: the device tests, each kernel's speed, PyTorch's product, copy and optimiser step beside it where there is
# PyTorch, and real quantizations. A page in bench/results; less than 12 minutes on a GPU.
#
#   scripts/bench-gpu.sh [--build DIR] [--name NAME] [--model FOLDER]... [--small]     at home, after a build
#   scripts/bench-gpu.sh --prepare FOLDER [--build DIR]     programs, libraries, demo and this script, for a bare machine:
#   FOLDER/scripts/bench-gpu.sh                             there, where nothing can be installed. Results: FOLDER/bench/results
#
# --small: short runs, to see that all of it works. --model: also quantizes this one (--effort quick). $GSQ_DEVICE chooses.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$top/build/release name='' prepare='' small=no models=()
tests=(test_gpu test_kernels_forward test_kernels_backward test_kernels_quant test_cholesky test_gumbel test_block_bwd test_scales)
while [[ $# -gt 0 ]]; do
    case $1 in
    --build) build=$2 ;;
    --name) name=$2 ;;
    --model) models+=("$2") ;;
    --prepare) prepare=$2 ;;
    --small)
        small=yes
        shift
        continue
        ;;
    *)
        sed -n '2,11s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
    esac
    shift 2
done
[[ -x $build/gsq ]] || { echo "$build/gsq is missing: cmake --preset release && cmake --build build/release" >&2; exit 1; }

if [[ -n $prepare ]]; then
    mkdir -p "$prepare"/{build/release/lib,build/release/share,scripts,models,bench/results}
    cp "$build/gsq" "$prepare/build/release/"
    for t in "${tests[@]}"; do cp "$build/$t" "$prepare/build/release/"; done
    cp -r "$build/share/." "$prepare/build/release/share/"
    cp -r "$top/models/demo" "$prepare/models/"
    cp "$top/scripts/bench-gpu.sh" "$top/scripts/gsq_step_torch.py" "$prepare/scripts/"
    # All that they load but the C library, and the Vulkan loader; not the driver, which is the machine's.
    ldd "$build/gsq" "$build/test_gpu" | awk '/=> \// { print $3 }' | sort -u | grep -vE '/lib(c|m|pthread|dl|rt)\.so' |
        xargs -I{} cp -L {} "$prepare/build/release/lib/"
    loader=$(ldconfig -p | awk '/libvulkan\.so\.1 .*x86-64/ { print $NF; exit }')
    cp -L "$loader" "$prepare/build/release/lib/libvulkan.so.1"
    du -sh "$prepare"
    exit
fi

# A prepared folder brings libraries; the machine's own come first where it has them.
if [[ -d $build/lib ]]; then
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$build/lib
    # Containers have NVIDIA's driver without the file that tells the loader of it.
    if ! compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null && ! compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null &&
        ldconfig -p | grep -q libGLX_nvidia.so.0; then
        printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "libGLX_nvidia.so.0", "api_version": "1.3.0"}}\n' \
            >"$build/nvidia_icd.json"
        export VK_DRIVER_FILES=$build/nvidia_icd.json VK_ICD_FILENAMES=$build/nvidia_icd.json
    fi
fi
export GSQ_SOURCE=$top GSQ_BINARY=$build/gsq
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
gsq=$build/gsq
"$gsq" devices >"$tmp/devices" || { cat "$tmp/devices"; exit 3; }
"$gsq" bench --kernel peak_fma --json >"$tmp/device.json"
device=$(grep -oE '"device":"[^"]*"' "$tmp/device.json" | head -n 1 | cut -d'"' -f4)
[[ -n $name ]] || name=gpu-$(tr -cs 'A-Za-z0-9.' '-' <<<"${device,,}" | sed 's/-*$//')
out=$top/bench/results/${name}.md
mkdir -p "$(dirname "$out")"
begin=$SECONDS bad=0
stage() { echo "$(date +%T) $*" >&2; }
fence() { printf '\n```\n'; cat; printf '```\n\n'; }

{
    # shellcheck disable=SC2016 # Markdown
    printf '# %s\n\nBy `scripts/bench-gpu.sh`, %s, %s.\n' "$device" "$("$gsq" --version | head -n 1)" "$(date -u +%F)"
    head -n 6 "$tmp/devices" | fence

    stage 'device tests'
    printf '## Tests on the device\n\n| program | result | seconds |\n| --- | --- | ---: |\n'
    [[ $small == no ]] || tests=(test_gumbel)
    for t in "${tests[@]}"; do
        at=$SECONDS rc=0
        (cd "$tmp" && timeout 240 "$build/$t") >"$tmp/$t.log" 2>&1 || rc=$?
        [[ $rc -eq 0 ]] || bad=1
        printf '| %s | %s | %d |\n' "$t" "$([[ $rc -eq 0 ]] && echo passed || echo "FAILED ($rc)")" $((SECONDS - at))
        [[ $rc -eq 0 ]] || { cp "$tmp/$t.log" "$top/bench/results/$name-$t.log" && echo "see $name-$t.log" >&2; }
    done

    stage 'kernels'
    printf '\n## Kernels\n'
    only=()
    [[ $small == no ]] || only=(--kernel gumbel_step)
    "$gsq" bench "${only[@]}" | fence
    "$gsq" bench --kernel gemm_half --json >"$tmp/products.json"
    "$gsq" bench --kernel gumbel_step --json >"$tmp/step.json"

    stage 'PyTorch'
    printf '## Beside PyTorch\n\n'
    sizes=(--rows 4096 --cols 2048 --cube 2048)
    ! grep -q '"shape":"512 x 2048' "$tmp/step.json" || sizes=(--rows 512 --cols 2048 --cube 1024)
    if python3 -c 'import torch' 2>/dev/null; then
        timeout 150 python3 "$top/scripts/gsq_step_torch.py" "${sizes[@]}" >"$tmp/torch" || echo 'PyTorch failed' >>"$tmp/torch"
        fence <"$tmp/torch"
    else
        printf 'PyTorch is not installed here: left out.\n\n'
    fi
    # The step is of twice as many multiply-adds as the cube's product.
    if command -v python3 >/dev/null; then
        python3 - "$tmp/products.json" "$tmp/step.json" "$tmp/torch" <<'PY'
import json, os, sys
rows = [json.loads(line) for f in sys.argv[1:3] for line in open(f)]
took = {r["kernel"]: r["seconds"] for r in rows if r["event"] == "bench"}
torch = {}
if os.path.exists(sys.argv[3]):
    torch = dict(line.rstrip("\n").split("\t") for line in open(sys.argv[3]) if "\t" in line)
step = took["gumbel_step"] + 2 * took["gemm_half"]
print(f"gsq: product {took['gemm_half'] * 1e3:.4g} ms, optimiser step (that kernel and the product for its gradient) {step * 1e3:.4g} ms")
if "optimiser step" in torch:
    print(f"\nPyTorch takes {float(torch['optimiser step']) / step:.3g} times as long for the step")
for kind in ("bf16", "f16", "tf32", "f32"):
    if f"product {kind}" in torch:
        print(f"\nthe product reaches {float(torch[f'product {kind}']) / took['gemm_half']:.3g} of PyTorch's in {kind}")
PY
    fi

    printf '\n## Quantizations\n\n| model | options | seconds | of these the device at work | predicted | perplexity, of 16 bits | KL |\n| --- | --- | ---: | ---: | ---: | ---: | ---: |\n'
    options=(--effort fast --ctx 256)
    [[ $small == no ]] || options=(--effort fast --ctx 64 --samples 8 --steps 20)
    for model in "$top/models/demo" ${models[@]+"${models[@]}"}; do
        stage "$model"
        [[ $model == "$top/models/demo" ]] || options=(--effort quick)
        text=$top/models/demo/calib.txt eval=$top/models/demo/eval.txt
        [[ $model == "$top/models/demo" ]] || text=default
        if timeout 400 "$gsq" quantize "$model" -o "$tmp/q" --force --calib "$text" --eval "$eval" --windows 40 "${options[@]}" --json \
            >"$tmp/q.json" 2>"$tmp/q.err"; then
            grep '"event":"result"' "$tmp/q.json" | tail -n 1 >"$tmp/result"
            number() { grep -oE "\"$1\":[0-9.e+-]+" "$tmp/result" | head -n 1 | cut -d: -f2 | awk '{ printf "%.4g", $1 }'; }
            printf '| %s | %s | %s | %s | %s | %s, %s | %s |\n' "$(basename "$model")" "${options[*]}" "$(number seconds)" \
                "$(number device_busy_seconds)" "$(number predicted_seconds)" "$(number perplexity)" "$(number reference_perplexity)" "$(number mean_kl)"
        else
            bad=1
            printf '| %s | %s | FAILED: %s | | | | |\n' "$(basename "$model")" "${options[*]}" "$(grep -m1 '^error' "$tmp/q.err" || echo timeout)"
        fi
        rm -rf "$tmp/q" "$tmp/q.work"
    done
    printf '\nAll of it took %d s.\n' $((SECONDS - begin))
} >"$tmp/out.md"
cp "$tmp/out.md" "$out"
echo "$out" >&2
exit "$bad"
