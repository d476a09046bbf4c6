#!/usr/bin/env bash
# What inspect says of a format is what quantize --dry-run decides: the same refusal, the same first warning, the same types.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"

# verdict and reason of a format in the last line of inspect's JSON
said() { # FORMAT
    python3 -c '
import json, sys
f = json.loads(open(sys.argv[1]).read().splitlines()[-1])["formats"][sys.argv[2]]
print(f["verdict"], f.get("why", ""))' "$tmp/inspected" "$1"
}

decided() { # of the last run
    if [[ $rc -ne 0 ]]; then
        echo "refused $(sed -n 's/^error: //p' "$tmp/err" | head -1)"
    elif grep -q '^warning: ' "$tmp/err"; then
        echo "warning $(sed -n 's/^warning: //p' "$tmp/err" | head -1)"
    else
        echo "ok "
    fi
}

seen=
for options in '--bits 2' '--bits 3 --group 96' '--bits 5 --group 64'; do
    # shellcheck disable=SC2086 # several options
    run "$gsq" inspect "$demo" $options --json
    cp "$tmp/out" "$tmp/inspected"
    for format in gptq compressed-tensors mlx humming gguf; do
        out=$tmp/dry
        [[ $format != gguf ]] || out=$tmp/dry.gguf
        # shellcheck disable=SC2086
        run "$gsq" quantize "$demo" -o "$out" $options --format "$format" --method rtn --dry-run
        said "$format" >"$tmp/said"
        decided >"$tmp/decided"
        check "$options, $format: $(<"$tmp/decided")" cmp -s "$tmp/said" "$tmp/decided"
        seen+=" $(cut -d' ' -f1 "$tmp/decided")"
    done
done
for verdict in ok warning refused; do
    check "some format is $verdict" grep -qw "$verdict" <<<"$seen"
done

# Every line of the table of types, and what all of it comes to.
types() { # FILE
    sed -n '/^tensors$/,/^all tensors/p' "$1"
}
for type in Q2_K Q4_0 TQ1_0 Q8_0; do
    run "$gsq" inspect "$demo" --type "$type"
    types "$tmp/out" >"$tmp/said"
    run "$gsq" quantize "$demo" -o "$tmp/dry.gguf" --type "$type" --method rtn --dry-run
    types "$tmp/out" >"$tmp/decided"
    check "$type: $(grep -c 'matri' "$tmp/decided") lines of types" cmp -s "$tmp/said" "$tmp/decided"
    check "$type has types for all" test "$(grep -c 'matri' "$tmp/said")" -eq 8
done
done_testing
