#!/usr/bin/env bash
# --json: every event and field that a command writes is in docs/json.md, the first line has schema and version, -q silences
# progress alone, and the ETA is there from the plan on.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"
doc=$here/docs/json.md

files=()
lines() { # NAME ARG...
    local name=$1
    shift
    run "$gsq" "$@" --json
    cp "$tmp/out" "$tmp/$name.json"
    files+=("$tmp/$name.json")
    check "gsq $*: exit $rc" test "$rc" -eq "${want:-0}"
}
calib=(--calib "$demo/calib.txt" --samples 8 --ctx 64)
lines q quantize "$demo" -o "$tmp/q" "${calib[@]}" --steps 5 --epochs 1 --scale-epochs 1 --eval "$demo/eval.txt" --windows 2
lines gguf quantize "$demo" -o "$tmp/q.gguf" --type Q2_K --method rtn
lines refine quantize "$demo" --refine "$tmp/q.gguf" -o "$tmp/r.gguf" "${calib[@]}" --effort fast --steps 5
lines f16 quantize "$demo" -o "$tmp/f16.gguf" --type F16
lines dry quantize "$demo" -o "$tmp/dry" --dry-run --ranks 3 --link 25Gb/s
lines eval eval "$demo" --text "$demo/eval.txt" --ctx 64 --windows 2
echo '{"question": "Once upon", "choices": ["a time", "zzz"], "answer": 0}' >"$tmp/tasks.jsonl"
lines tasks eval "$demo" --tasks "$tmp/tasks.jsonl"
lines compare compare "$tmp/q" "$demo" --text "$demo/eval.txt" --ctx 64 --windows 2
lines inspect inspect "$demo" --tensors
lines coded inspect "$tmp/q.gguf"
lines convert convert "$tmp/q" -o "$tmp/mlx" --format mlx
lines imatrix imatrix "$demo" --calib "$demo/calib.txt" --samples 4 --ctx 64 -o "$tmp/i.gguf"
lines devices devices
lines bench bench --kernel swiglu_fwd
lines choose bench --choose
lines counts bench --counts "$demo" --ctx 64
want=2 lines error quantize "$tmp/none" -o "$tmp/x" --method rtn
run python3 "$here/tests/lib/json_check.py" "$doc" "${files[@]}"
check "all of it is documented $(cat "$tmp/out" "$tmp/err")" test "$rc" -eq 0
# Fields that no run above has.
cat "$here"/app/*.c "$here"/lib/*.c | grep -oE '(cJSON_Add[A-Za-z]*ToObject\([^"]*|add(_loss|_text|_curve)?\([a-z]+, )"[a-z0-9_]+"' |
    grep -oE '"[a-z0-9_]+"$' | tr -d '"' | sort -u >"$tmp/names"
check "$(wc -l <"$tmp/names") names in the sources" test "$(wc -l <"$tmp/names")" -gt 100
run python3 "$here/tests/lib/json_check.py" --names "$doc" "$tmp/names"
check "these, too $(cat "$tmp/out" "$tmp/err")" test "$rc" -eq 0

# From the plan on, what is left is known, and it ends near nothing.
run python3 - "$tmp/q.json" <<'EOF'
import json, sys
planned, etas, shares = False, [], []
for line in open(sys.argv[1]):
    o = json.loads(line)
    planned |= o["event"] == "plan"
    if o["event"] == "progress" and planned and o["phase"] != "tokenize":
        if o["phase"] == "compare":
            break
        etas.append(o["eta_seconds"])
        shares.append(o["done"])
assert len(etas) > 3 and all(0 <= e < 3600 for e in etas), etas
assert shares == sorted(shares) and all(0 <= s <= 1 for s in shares), shares
EOF
check "an ETA from the plan on $(cat "$tmp/err")" test "$rc" -eq 0
run "$gsq" quantize "$demo" -o "$tmp/quiet" --method rtn --json -q
check '-q leaves plan and result' test "$(grep -c '"event":"plan"' "$tmp/out") $(grep -c '"event":"result"' "$tmp/out")" = '1 1'
check '-q silences progress' test "$(grep -c '"event":"progress"' "$tmp/out")" -eq 0
check 'and RTN has a prediction' grep -qE '"predicted_seconds":[0-9.]*[1-9]' "$tmp/out"
run "$gsq" quantize "$tmp/none" -o "$tmp/quiet" --method rtn --json -q
check '-q leaves errors' grep -q '"event":"error"' "$tmp/out"
done_testing
