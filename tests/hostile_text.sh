#!/usr/bin/env bash
# Models whose names and strings are made to be shown: escape sequences, C1 controls, characters that turn the line around,
# bytes that are no UTF-8. None of them reaches a terminal, a log or a page as it is; JSON stays valid and means the same.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to write such models"
text=$demo/eval.txt

python3 - "$demo" "$tmp" <<'END'
import json, os, shutil, struct, sys

demo, tmp = sys.argv[1:3]
nasty = "\x1b[31m\x9b2J\x07\x08\x7f\u202ed\u2066e\u2069\u200f\ufeff\u2028\U000e0041\r\n"
st = open(demo + "/model.safetensors", "rb").read()
n = struct.unpack("<Q", st[:8])[0]
header, data = json.loads(st[8 : 8 + n]), st[8 + n :]
config = json.load(open(demo + "/config.json"))
printable = "".join(c for c in nasty if ord(c) >= 0x20)


def model(name, change=None, tensor=None, dtype="U8", drop=None, tokenizer=None):
    d = os.fsencode(tmp + "/") + b"m\x1b[1m\xc2\x9b\xe2\x80\xae\xff\xfe" + name.encode()
    shutil.copytree(os.fsencode(demo), d)
    json.dump({**config, **(change or {})}, open(d + b"/config.json", "w"))
    h, blob = dict(header), data
    if tensor:
        h[tensor] = {"dtype": dtype, "shape": [4], "data_offsets": [len(blob), len(blob) + 4]}
        blob += bytes(4)
    if drop:
        h[drop + printable] = h.pop(drop)
    text = json.dumps(h, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    open(d + b"/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + blob)
    if tokenizer:
        t = json.load(open(d + b"/tokenizer.json"))
        tokenizer(t)
        json.dump(t, open(d + b"/tokenizer.json", "w"))
    open(tmp + "/models", "ab").write(d + b"\0")


model("plain")
model("tensor", tensor="extra." + printable)
model("dtype", tensor="extra", dtype="U8" + nasty[:9])
model("arch", {"architectures": ["X" + nasty], "model_type": "y" + nasty[:12]})
model("rope", {"rope_scaling": {"rope_type": "r" + nasty[:14], "factor": 2}})
model("act", {"hidden_act": "a" + nasty[:12]})
model("key", {"rope_parameters": {"k" + nasty: {}}})
model("quant", {"quantization_config": {"quant_method": "q" + nasty}})
model("kinds", {"layer_types": [nasty] * config["num_hidden_layers"], "sliding_window": 8})
model("missing", drop="model.norm.weight")
model("token", tokenizer=lambda t: t["model"].update(type="B" + nasty))
model("step", tokenizer=lambda t: t.update(normalizer={"type": "N" + nasty}))
END

check_streams() { # FILE...: what people read, and the files that claim to be JSON lines (ending in .json)
    python3 - "$@" <<'END'
import json, sys, unicodedata
for path in sys.argv[1:]:
    raw = open(path, "rb").read()
    text = raw.decode("utf-8")  # strictly
    for c in text:
        odd = (ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 or c in "\u061c\u200b\u200e\u200f\u2028\u2029\ufeff"
        odd |= 0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069 or 0xE0000 <= ord(c) < 0xE1000
        assert not odd, "%s holds %r in %r" % (path, c, text)
    if path.endswith(".json"):
        for line in text.splitlines():
            json.loads(line)
END
}

count=0
while IFS= read -r -d '' model; do
    for command in 'inspect' 'inspect --tensors' 'eval --ctx 64 --windows 1' 'quantize --method rtn --dry-run' 'convert --type F16' \
        'quantize --method rtn --type Q4_0 --dry-run'; do
        read -ra words <<<"$command"
        more=()
        case $command in
        eval*) more=(--text "$text") ;;
        convert* | *Q4_0*) more=(-o "$model.gguf") ;;
        quantize*) more=(-o "$model.out") ;;
        esac
        for json in '' --json; do
            out=$tmp/out${json:+.json}
            rc=0
            # shellcheck disable=SC2086
            "$gsq" "${words[@]}" "$model" ${more[@]+"${more[@]}"} $json >"$out" 2>"$tmp/err" || rc=$?
            if ((rc > 3)) || ! check_streams "$out" "$tmp/err"; then
                check "${model##*/} with $command $json (exit $rc)" false
            fi
            count=$((count + 1))
            rm -rf "$model.gguf" "$model.out"
        done
    done
done <"$tmp/models"
check "$count commands on hostile models print clean text" test "$count" -gt 100

# What is shown is the spelling, not nothing.
model=$(find "$tmp" -maxdepth 1 -name '*arch' -print -quit)
run "$gsq" inspect "$model"
check 'an escape is shown as text' grep -qF 'X\x1b[31m\x9b2J' "$tmp/out"
check 'and a mark that turns the line' grep -qF '\u202ed\u2066e\u2069' "$tmp/out"
# A program gets the very characters.
"$gsq" inspect "$model" --json >"$tmp/out.json"
check 'JSON means the same' python3 - "$tmp/out.json" <<'END'
import json, sys
assert json.loads(open(sys.argv[1]).readlines()[-1])["architecture"].startswith("X\x1b[31m\x9b2J\x07\x08\x7f\u202ed")
END
# The page of a run.
plain=$(find "$tmp" -maxdepth 1 -name '*tensor' -print -quit)
run "$gsq" quantize "$plain" -o "$plain.out" --method rtn --report "$tmp/report.html" -q
check 'a run on such a folder' test "$rc" -eq 0
check 'its page is clean' check_streams "$tmp/report.html" "$tmp/out" "$tmp/err"
done_testing
