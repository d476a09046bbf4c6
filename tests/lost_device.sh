#!/usr/bin/env bash
# A device that its driver resets is opened again, and the run ends in the same bytes; one that is lost again and again, or has
# no memory left, ends it with a sentence, and nothing that was finished is lost. tests/fault_layer makes calls fail.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
layer=$build/fault_layer
[[ -e $layer/VkLayer_gsq_fault.json ]] || skip "$layer is not built"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"
"$build/make_big_block" "$tmp/model" --hidden 128 --intermediate 128 --heads 4 --kv 2 --layers 3
quantize=("$gsq" quantize "$tmp/model" --calib "$demo/calib.txt" --samples 8 --ctx 32 --steps 8 --epochs 1 --batch 4
    --scale-epochs 2 --bits 2 --group 64 --json --log-level debug)
export VK_ADD_LAYER_PATH=$layer VK_INSTANCE_LAYERS=VK_LAYER_GSQ_fault
export GSQ_FAULT_LOG=$tmp/err # where runs log
fault() { # FAULT COMMAND...
    GSQ_FAULT=$1 run "${@:2}"
}
# How often a run submits and waits depends on what it measures first, and so on the machine's speed and its other work. So a
# call is counted from a place in the log that the work after it follows for certain.
fault_after() { # TEXT FAULT COMMAND...
    GSQ_FAULT_AFTER=$1 GSQ_FAULT=$2 run "${@:3}"
}
calls() { # of a device, the first that went
    grep -m1 '^fault: vk' "$tmp/err" | grep -oE "$1 [0-9]+" | cut -d' ' -f2
}
events() { # how often a JSON event was told
    grep -c "^{\"event\":\"$1\"" "$tmp/out" || true
}

fault count "${quantize[@]}" -o "$tmp/a"
grep -q '^fault: vk' "$tmp/err" || skip 'the Vulkan loader takes no layer from VK_ADD_LAYER_PATH'
check 'an undisturbed run' test "$rc" -eq 0
submits=$(calls vkQueueSubmit2) waits=$(calls vkWaitSemaphores) allocations=$(calls vkAllocateMemory)
linears=$(events linear) stages=$(events stage)
check "it had $submits submissions, $waits waits, $allocations allocations" test "$submits" -gt 100 -a "$allocations" -gt 10

# One loss, in every part of a run. Validation watches the first.
planned='predicted time' begun='kernel gumbel_codes' # the first linear's end
lose_once() { # TEXT CALL:N
    out=$tmp/o$((++places))
    fault_after "$1" "$2" "${quantize[@]}" -o "$out"
    check "lost at $2 ${1:+after \"$1\"}: exit $rc, said" grep -q '^warning: .*the device was lost.* opened again' "$tmp/err"
    check 'the same bytes' diff -r "$tmp/a" "$out"
    check 'no work folder is left' test "$rc" -eq 0 -a ! -e "$out.work"
    check 'nothing is told twice' test "$(events plan) $(events linear) $(events stage)" = "1 $linears $stages"
    check 'the result counts it' test "$(field device_losses "$tmp/out") $(field blocks_resumed "$tmp/out")" = '1 0'
    export GSQ_VALIDATE=0
}
places=0
lose_once 'block 1: ' vkQueueSubmit2:30
lose_once '' vkQueueSubmit2:5 # measuring
lose_once "$planned" vkQueueSubmit2:1
lose_once "$planned" vkQueueSubmit2:30
lose_once 'block 2: ' vkQueueSubmit2:1
lose_once 'kernel kl_bwd' vkQueueSubmit2:1 # over scales
lose_once 'kernel kl_bwd' vkQueueSubmit2:10
GSQ_FAULT_REFUSE=2 fault_after 'block 1: ' vkWaitSemaphores:10 "${quantize[@]}" -o "$tmp/w"
check "lost while waiting, and twice refused: exit $rc" test "$(grep -c 'a device is refused' "$tmp/err")" -eq 2
check 'the same bytes' diff -r "$tmp/a" "$tmp/w"

# Each device is lost behind the first block that it finishes: a run goes on as long as it gets on.
GSQ_FAULT_LOG=$tmp/out fault_after '"stage":"feed-forward"' vkQueueSubmit2:10:always "${quantize[@]}" -o "$tmp/m"
check "every device lost behind its first block: exit $rc, $(grep -c 'is lost' "$tmp/err") of them" \
    test "$rc" -eq 0 -a "$(grep -c 'is lost' "$tmp/err")" -eq 3
check 'the same bytes' diff -r "$tmp/a" "$tmp/m"
expect "every device lost before that" 3 'the device was lost' 'rerun the same command' -- \
    env GSQ_FAULT_AFTER="$begun" GSQ_FAULT=vkQueueSubmit2:10:always "${quantize[@]}" -o "$tmp/n"
check 'after two' test "$(grep -c 'is lost' "$tmp/err")" -eq 2
check 'nothing was written' test ! -e "$tmp/n"
fault count "${quantize[@]}" -o "$tmp/n"
check 'the rerun ends in the same bytes' diff -r "$tmp/a" "$tmp/n"

# Other commands begin again, once.
text=("$tmp/text" --ctx 64)
sum_of() {
    if [[ -e $1 ]]; then sha256sum <"$1"; fi
}
result() {
    grep '"event":"result"' "$tmp/out" | sed -E 's/"seconds":[^,}]*//'
}
head -c 15000 "$demo/calib.txt" >"$tmp/text"
while read -r -a words; do
    place=("${words[@]:0:2}") words=("${words[@]:2}")
    rm -f "$tmp/i.gguf"
    fault count "$gsq" "${words[@]}" --json
    was=$(sum_of "$tmp/i.gguf") said=$(result)
    rm -f "$tmp/i.gguf"
    fault_after "kernel ${place[0]}," "vkQueueSubmit2:${place[1]}" "$gsq" "${words[@]}" --json --log-level debug
    check "${words[0]}, lost at submission ${place[1]} after kernel ${place[0]}" grep -q 'the device is lost' "$tmp/err"
    check "exit $rc, the same result" test "$rc" -eq 0 -a "$(result)" = "$said" -a "$(sum_of "$tmp/i.gguf")" = "$was"
    rm -f "$tmp/i.gguf"
    expect "${words[0]}, lost each time" 3 'the device was lost' 'update the driver' -- \
        env GSQ_FAULT=vkWaitSemaphores:6:always "$gsq" "${words[@]}"
    check 'nothing is written' test ! -e "$tmp/i.gguf"
done <<EOF
nll 1 eval $demo --text ${text[*]}
kl 1 compare $tmp/a $tmp/model --text ${text[*]}
col_sumsq 8 imatrix $demo --calib ${text[*]} -o $tmp/i.gguf
EOF

# Memory that is not there: from the n-th allocation on. Each run takes up what the ones before finished, and so needs less.
for ((n = 1;; n += 1 + allocations / 12)); do
    fault "vkAllocateMemory:$n:always" "${quantize[@]}" -o "$tmp/v"
    [[ $rc -ne 0 ]] || break
    check "no memory from allocation $n on: exit $rc, $(grep '^error: ' "$tmp/err")" \
        grep -q '^error: .*vkAllocateMemory: the device is out of memory' "$tmp/err"
    check 'and what to do' grep -q '^hint: close other programs' "$tmp/err"
    check 'an exit code of 3, and no result' test "$rc" -eq 3 -a ! -e "$tmp/v"
done
check "with $((n - 1)) the run ends; $(field blocks_resumed "$tmp/out") blocks were there" test "$n" -gt 20
check 'and ends in the same bytes' diff -r "$tmp/a" "$tmp/v"
# One that fails once is asked for again, when arenas have given back what they keep; staging memory is not.
for ((n = 2; n <= allocations; n += 1 + allocations / 5)); do
    fault "vkAllocateMemory:$n" "${quantize[@]}" -o "$tmp/u"
    [[ $rc -eq 0 ]] || check "allocation $n fails once" grep -q '^error: .*staging memory.*out of memory' "$tmp/err"
done
run "${quantize[@]}" -o "$tmp/u"
check 'allocations that fail once: the same bytes' diff -r "$tmp/a" "$tmp/u"
done_testing
