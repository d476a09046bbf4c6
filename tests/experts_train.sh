#!/usr/bin/env bash
# The block objective in a model with experts: each expert on its own output, attention and a weighted shared expert as halves. What
# is learned is never worse on held-out tokens, the plan knows the memory, and a run that was killed ends in the same bytes. Then linears alone,
# which make good what was lost before them.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
source=$shared/models/qwen3moe-4m
[[ -d $source ]] || skip "no models in $shared"
command -v python3 >/dev/null || skip "no python3"
must python3 "$here/tests/lib/random_model.py" qwen2_moe "$source" "$tmp/model"
learn=("$gsq" quantize "$tmp/model" --bits 2 --group 16 --format compressed-tensors --calib "$shared/text/tinystories-calib.txt"
    --ctx 64 --samples 24 --steps 10)

# ---- all of a layer
whole=("${learn[@]}" --tensor 'self_attn|shared_expert\.|experts=2' --samples 32 --batch 1 --epochs 6)
must "${whole[@]}" -o "$tmp/whole" --report "$tmp/whole.html" --keep-work
check 'halves and experts of each layer are trained, and held-out losses fall' python3 - "$tmp/whole.html" <<'END'
import json, re, sys
run = json.loads(re.search(r'id="run">(.*?)</script>', open(sys.argv[1], encoding="utf-8").read(), re.S).group(1))
stages = run["stages"]
assert [(s["block"], s["stage"]) for s in stages] == [(b, s) for b in (1, 2, 3) for s in ("attention", "feed-forward", "experts")]
assert all(s["loss"] <= s["loss_start"] for s in stages), stages
for kind in ("attention", "feed-forward", "experts"):
    gained = [1 - s["loss"] / s["loss_start"] for s in stages if s["stage"] == kind]
    assert max(gained) > 0.02, (kind, gained)
assert run["result"]["device_peak_bytes"] <= run["plan"]["device_bytes"], (run["result"], run["plan"])
END

# ---- experts alone, as is the default: nothing is carried along for halves
few=("${learn[@]}" --batch 2 --epochs 2)
must "${few[@]}" -o "$tmp/few" --report "$tmp/few.html"
check 'experts alone' python3 - "$tmp/few.html" "$tmp/whole.html" <<'END'
import json, re, sys
few, whole = (json.loads(re.search(r'id="run">(.*?)</script>', open(f, encoding="utf-8").read(), re.S).group(1)) for f in sys.argv[1:])
assert {s["stage"] for s in few["stages"]} == {"experts"}
assert few["plan"]["host_bytes"] <= whole["plan"]["host_bytes"]
assert few["result"]["device_peak_bytes"] <= few["plan"]["device_bytes"] < whole["plan"]["device_bytes"]
END
for at in kill:block:1 kill:step:90; do
    rm -rf "$tmp/again" "$tmp/again.work"
    GSQ_STOP_AT=$at run "${few[@]}" -o "$tmp/again"
    check "$at: it ended there" test "$rc" -ge 130
    must "${few[@]}" -o "$tmp/again"
    check "$at: the same bytes" cmp "$tmp/again/model.safetensors" "$tmp/few/model.safetensors"
done

# ---- linears alone: the plan knows what the 16-bit model's tokens take, also where the host holds what experts read
alone=("${learn[@]}" --effort fast --tensor 'self_attn|shared_expert\.|experts=2')
for limit in 4 0.03; do
    rm -rf "$tmp/alone"
    must "${alone[@]}" -o "$tmp/alone" --report "$tmp/alone.html" --mem-limit $limit
    check "linears alone, $limit GiB: planned is measured" python3 - "$tmp/alone.html" <<'END'
import json, re, sys
run = json.loads(re.search(r'id="run">(.*?)</script>', open(sys.argv[1], encoding="utf-8").read(), re.S).group(1))
peak, plan = run["result"]["device_peak_bytes"], run["plan"]["device_bytes"]
assert 0.98 * plan <= peak <= plan, (peak, plan)
END
    [[ $limit == 4 ]] && mv "$tmp/alone" "$tmp/alone-whole"
done
GSQ_STOP_AT=kill:linear:20 run "${alone[@]}" -o "$tmp/again" --mem-limit 4
check 'linears alone: it ended there' test "$rc" -ge 130
must "${alone[@]}" -o "$tmp/again" --mem-limit 4
check 'linears alone: the same bytes' cmp "$tmp/again/model.safetensors" "$tmp/alone-whole/model.safetensors"

run "${few[@]}" --scale-epochs 2 -o "$tmp/plan" --dry-run
check 'the plan says that scales are not trained' grep -q 'all scales *not trained end to end' "$tmp/out"
done_testing
