#!/usr/bin/env bash
# --effort: what each level sets, and what the plan says that each would take here.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"

plan=("$gsq" quantize "$demo" -o "$tmp/o" --ctx 64 --dry-run)
text=(--calib "$demo/calib.txt")
says() { # WHAT PYTHON: of p, the plan, and x, its efforts by name
    check "$1" python3 -c 'import json, sys
p = [o for o in map(json.loads, open(sys.argv[1])) if o["event"] == "plan"][0]
x = {o["effort"]: o for o in p.get("efforts", [])}
chosen = [o["effort"] for o in x.values() if o["chosen"]]
sets = lambda e: (e["samples"], e["steps"], e["epochs"], e["scale_epochs"])
sys.exit(not eval(sys.argv[2]))' "$tmp/out" "$2"
}

run "${plan[@]}" "${text[@]}" --json
says 'five efforts' 'list(x) == ["quick", "fast", "balanced", "best", "paper"]'
says 'balanced is what is done where none is asked for' 'chosen == ["balanced"] and x["balanced"]["seconds"] == p["predicted_seconds"]'
says 'each takes longer than the one before' 'sorted(x, key=lambda e: x[e]["seconds"]) == list(x) and x["quick"]["seconds"] > 0'
says 'quick and fast are without epochs' '[e for e in x if x[e]["epochs"] + x[e]["scale_epochs"] == 0] == ["quick", "fast"]'
says 'a text that is too short for the last' 'x["paper"]["samples"] == 4096 and x["quick"]["samples"] == 64'
run "${plan[@]}" "${text[@]}" --effort quick
check 'the one that is chosen, for people' grep -qE '^> quick +[0-9:]+( s)? +64 windows, [0-9]+ steps$' "$tmp/out"
check 'the others' test "$(grep -cE '^  (fast|balanced|best|paper) +[0-9:]+( s)? +[0-9]+ windows, ' "$tmp/out")" -eq 4

# Numbers of its own make it none of them; the comparison stays.
run "${plan[@]}" "${text[@]}" --steps 7 --json
says 'its own numbers' 'not chosen and len(x) == 5 and x["balanced"]["steps"] != 7'
# No more windows than the text has: what it holds was asked for by none, and is what best and paper get.
run "${plan[@]}" "${text[@]}" --ctx 256 --effort best --json
says 'a short text: all of it, in more epochs' 'chosen == ["best"] and x["best"]["samples"] == x["paper"]["samples"] == p["samples"] < 448 and 5 < x["best"]["epochs"] <= 20 and 2 < x["balanced"]["epochs"] <= 8'
run "${plan[@]}" "${text[@]}" --ctx 256 --samples 2000 --json
says 'more windows than there are, by hand' 'not chosen and p["samples"] < 2000 and 2 < x["balanced"]["epochs"] <= 8'

# Memory that is enough for quick: what its refusal names.
run "${plan[@]}" "${text[@]}" --effort quick --ctx 512 --mem-limit 0.017
need=$(sed -n 's/^error: .* need \([0-9.]*\) MiB of device memory.*/\1/p' "$tmp/err")
run "${plan[@]}" "${text[@]}" --effort quick --ctx 512 --json --mem-limit "$(awk "BEGIN { print (${need:-23} + 0.05) / 1024 }")"
says 'what does not fit is said' 'x["quick"]["seconds"] > 0 and "device memory" in x["balanced"]["refused"] and "seconds" not in x["balanced"]'

# Where there is nothing to compare.
run "${plan[@]}" "${text[@]}" --method gptq --json
says 'gptq has none' 'not x and p["predicted_seconds"] > 0'
run "${plan[@]}" --json
says 'a plan without a text has them' 'len(x) == 5 and 0 < x["quick"]["seconds"] < x["balanced"]["seconds"]'
done_testing
