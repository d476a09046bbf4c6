#!/usr/bin/env bash
# A bit that flips on the disk is noticed or harmless: in every file of a work folder, and in the model between a stop and
# the resumed run. FLIPS is how many of each (200 where it matters, less by default), FLIPS_SEED which.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to flip bits"
n=${FLIPS:-24} seed=${FLIPS_SEED:-1}
export GSQ_VALIDATE=0 # hundreds of short runs of what other tests run watched

# Two runs: by rounding, all blocks done but the export; and a trained one with everything that a work folder can hold, or
# stopped behind its second block.
rtn=("$gsq" quantize "$demo" --method rtn -q)
gsq_run=("$gsq" quantize "$demo" --type Q2_K --calib "$demo/calib.txt" --samples 4 --ctx 32 --steps 4 --epochs 1 --batch 4
    --scale-epochs 1 -q)
run "${rtn[@]}" -o "$tmp/rtn" --keep-work
check 'a run by rounding' test "$rc" -eq 0
run "${gsq_run[@]}" -o "$tmp/gsq.gguf" --keep-work
check 'a trained run' test "$rc" -eq 0
[[ $bad -eq 0 ]] || { cat "$tmp/err"; done_testing; }
cp -r "$tmp/gsq.gguf.work" "$tmp/stopped"
rm "$tmp/stopped/block-0002.safetensors" "$tmp/stopped/scales.safetensors" "$tmp/stopped/head-importance.safetensors"
cp -r "$tmp/rtn.work" "$tmp/rtn-stopped"
rm "$tmp/rtn-stopped/block-0002.safetensors"
run "${gsq_run[@]}" -o "$tmp/again.gguf" --work "$tmp/stopped"
check 'stopped and resumed: the same bytes' cmp "$tmp/gsq.gguf" "$tmp/again.gguf"
cp -r "$tmp/gsq.gguf.work" "$tmp/stopped"
rm "$tmp/stopped/block-0002.safetensors" "$tmp/stopped/scales.safetensors" "$tmp/stopped/head-importance.safetensors"

flips=$here/tests/lib/flips.py
check "$((n / 2)) flips in the work folder of the first" \
    python3 "$flips" "$((n / 2))" "$((seed + 0))" work "$tmp/rtn:$tmp/rtn.work" "$tmp/rtn:$tmp/rtn-stopped" -- "${rtn[@]}"
check "$((n - n / 2)) in that of the second" \
    python3 "$flips" "$((n - n / 2))" "$((seed + 1))" work "$tmp/gsq.gguf:$tmp/gsq.gguf.work" "$tmp/gsq.gguf:$tmp/stopped" -- "${gsq_run[@]}"
check "$((n / 2)) flips in the model of the first" \
    python3 "$flips" "$((n / 2))" "$((seed + 2))" model "$tmp/rtn:$tmp/rtn.work" "$tmp/rtn:$tmp/rtn-stopped" -- "${rtn[@]}"
check "$((n - n / 2)) in that of the second" \
    python3 "$flips" "$((n - n / 2))" "$((seed + 3))" model "$tmp/gsq.gguf:$tmp/gsq.gguf.work" "$tmp/gsq.gguf:$tmp/stopped" -- "${gsq_run[@]}"
done_testing
