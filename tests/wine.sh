#!/usr/bin/env bash
# The Windows build under wine, on lavapipe through winevulkan: the tests that need no device, `gsq devices`, and the
# demo's quantization, whose result must be that of the Linux build.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
export LC_ALL=C.UTF-8 # wine turns names into bytes by the locale, and a bare system has none
windows=${GSQ_MINGW:-$here/build/mingw}
[[ -x $windows/gsq.exe ]] || skip "no Windows build (cmake --preset mingw)"
for tool in wine xvfb-run python3; do
    command -v "$tool" >/dev/null || skip "$tool is not installed"
done
unset GSQ_VALIDATE # there is no layer on the other side
export WINEPREFIX=$tmp/prefix WINEDEBUG=-all WINEDLLOVERRIDES='mscoree,mshtml='

# winevulkan wants a display. xvfb-run's own last words on stderr are of no interest.
wine_run() {
    rc=0
    xvfb-run -a wine "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || rc=$?
    tr -d '\r' <"$tmp/out" >"$tmp/out.unix"
    mv "$tmp/out.unix" "$tmp/out"
}

wine_run cmd /c exit
wine_run "$windows/gsq.exe" --version
if [[ $rc -ne 0 ]] || ! grep -q '^gsq ' "$tmp/out"; then
    tail -n 5 "$tmp/err"
    skip "wine does not run programs here"
fi
ok "$(cat "$tmp/out") under $(wine --version)"

cd "$tmp"
for test in "$windows"/test_*.exe; do
    wine_run "$test"
    if [[ $rc -ne 0 ]]; then
        grep -E 'ERROR|FAILED|error' "$tmp/out" "$tmp/err" | head -n 20 || true
    fi
    check "$(basename "$test")" test "$rc" -eq 0
done

wine_run "$windows/gsq.exe" devices
check 'devices' test "$rc" -eq 0
grep -m1 '^used: ' "$tmp/out" || true
wine_run "$windows/gsq.exe" quantize model -o out --grup 2
check 'a user error is exit code 2 here too' test "$rc" -eq 2
mkdir "$tmp/na\`ive 日本"
wine_run "$windows/gsq.exe" inspect "$tmp/na\`ive 日本"
check 'a folder with a name beyond ASCII' grep -q '日本' "$tmp/err"

# The demo's quantization by both builds.
model=$demo
if [[ ! -e $model/model.safetensors ]]; then
    model=$tmp/model
    "$build/make_big_block" "$model" --hidden 128 --intermediate 256 --heads 4 --kv 2 --layers 2
fi
text=$demo/calib.txt
options=(--method gsq --effort fast --bits 2 --group 128 --calib "$text" --samples 16 --ctx 64 --steps 30 --json)
run "$gsq" quantize "$model" -o "$tmp/linux" "${options[@]}"
check 'quantized by the Linux build' test "$rc" -eq 0
wine_run "$windows/gsq.exe" quantize "$model" -o "$tmp/windows" "${options[@]}"
check 'quantized by the Windows build' test "$rc" -eq 0
[[ $rc -eq 0 ]] || { tail -n 5 "$tmp/err" "$tmp/out"; done_testing; }
wine_run "$windows/gsq.exe" quantize "$model" -o "$tmp/plan" --calib default --effort fast --samples 4 --ctx 64 --dry-run
check 'the text that comes along is found' test "$rc" -eq 0
check 'the same files' diff <(cd "$tmp/linux" && ls) <(cd "$tmp/windows" && ls)
cat >"$tmp/compare.py" <<'END'
import json, struct, sys


def codes(path):
    raw = open(path, "rb").read()
    (n,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + n])
    return {k: raw[8 + n + v["data_offsets"][0] : 8 + n + v["data_offsets"][1]]
            for k, v in header.items() if k.endswith(".qweight")}


a, b = codes(sys.argv[1]), codes(sys.argv[2])
total = sum(len(x) for x in a.values())
different = sum(x != y for k in a for x, y in zip(a[k], b[k]))
print("%d of %d bytes of codes differ" % (different, total))
# The C libraries round exp and cos differently in the last place; a close call may fall to the other side.
sys.exit(a.keys() != b.keys() or total == 0 or different > total / 50)
END
check 'the same codes, or nearly' python3 "$tmp/compare.py" "$tmp/linux/model.safetensors" "$tmp/windows/model.safetensors"
cmp -s "$tmp/linux/model.safetensors" "$tmp/windows/model.safetensors" && echo 'the two files are identical'
run "$gsq" eval "$tmp/linux" --text "$demo/eval.txt" --ctx 64 --windows 16 --json
a=$(field perplexity "$tmp/out")
wine_run "$windows/gsq.exe" eval "$tmp/windows" --text "$demo/eval.txt" --ctx 64 --windows 16 --json
b=$(field perplexity "$tmp/out")
check "perplexities agree: $a and $b" within "$a" "$b" 0.005
done_testing
