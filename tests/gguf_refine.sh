#!/usr/bin/env bash
# Refining a GGUF changes its codes and no other byte, and brings it nearer to its model; importance matrices: written,
# taken by llama-quantize, and enough to learn from without a text.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to compare files"
[[ -e $demo/model.safetensors ]] || skip "there is no model in $demo"
calib=(--calib "$demo/calib.txt" --samples 24 --ctx 64)
oak=$shared/models/oak-2.9M

divergence() { # MODEL REFERENCE TEXT: mean KL
    run "$gsq" compare "$1" "$2" --text "$3" --ctx 64 --windows 24 --json
    field mean_kl "$tmp/out"
}
# refined NAME MODEL PUBLIC TEXT OPTION...: against the file's own divergence, by at least a tenth.
refined() {
    local name=$1 model=$2 public=$3 text=$4 before after
    run "$gsq" quantize "$model" --refine "$public" -o "$tmp/$name-refined.gguf" -q "${@:5}"
    check "$name: refined ($(tail -n 1 "$tmp/err"))" test "$rc" -eq 0
    check "$name: only codes changed" python3 "$here/tests/lib/gguf_codes.py" "$public" "$tmp/$name-refined.gguf"
    before=$(divergence "$public" "$model" "$text")
    after=$(divergence "$tmp/$name-refined.gguf" "$model" "$text")
    check "$name: divergence $before -> $after" at_most "$after" "$(awk "BEGIN { print 0.9 * $before }")"
}

# Files of our own making.
for t in Q2_0 Q4_0; do
    run "$gsq" quantize "$demo" -o "$tmp/$t.gguf" --method rtn --type $t -q
    check "$t: made by rounding" test "$rc" -eq 0
done
refined Q2_0 "$demo" "$tmp/Q2_0.gguf" "$demo/eval.txt" "${calib[@]}" --effort fast --steps 60
refined Q4_0 "$demo" "$tmp/Q4_0.gguf" "$demo/eval.txt" "${calib[@]}" --method gptq
# On the outputs of half blocks; and in two runs, which end as one.
balanced=(--effort balanced --steps 20 --epochs 2 --batch 8)
refined Q2_0 "$demo" "$tmp/Q2_0.gguf" "$demo/eval.txt" "${calib[@]}" "${balanced[@]}" --keep-work --work "$tmp/work"
rm -f "$tmp"/work/block-000[1-9]* "$tmp/Q2_0-again.gguf"
run "$gsq" quantize "$demo" --refine "$tmp/Q2_0.gguf" -o "$tmp/Q2_0-again.gguf" -q "${calib[@]}" "${balanced[@]}" \
    --work "$tmp/work"
check 'resumed: the same file' cmp "$tmp/Q2_0-refined.gguf" "$tmp/Q2_0-again.gguf"
# Finished: the same command says so and stops, also of a stranger's file, which gsq may then replace too; another command
# and another file make it anew, as does the one that made the refined file before.
export XDG_CACHE_HOME=$tmp/cache
sed 's/general.quantized_by/general.quantized_as/' "$tmp/Q2_0.gguf" >"$tmp/stranger.gguf"
check 'a file that gsq knows no more' bash -c "! cmp -s '$tmp/Q2_0.gguf' '$tmp/stranger.gguf'"
for public in Q2_0 stranger; do
    again=("$gsq" quantize "$demo" --refine "$tmp/$public.gguf" "${calib[@]}" --method gptq -q --json)
    run "${again[@]}" -o "$tmp/$public-once.gguf"
    check "$public: refined in $(field blocks "$tmp/out") blocks" test "$rc $(field blocks "$tmp/out")" = '0 3'
    cp "$tmp/$public-once.gguf" "$tmp/$public-other.gguf"
    run "${again[@]}" -o "$tmp/$public-once.gguf"
    check "$public: repeated, finished before" test "$rc $(field finished_before "$tmp/out")" = '0 True'
    check "$public: no work folder stays" test ! -e "$tmp/$public-once.gguf.work"
    run "${again[@]}" -o "$tmp/$public-once.gguf" --force
    check "$public: --force, anew" test "$rc $(field blocks "$tmp/out")" = '0 3'
    check "$public: to the same bytes" cmp "$tmp/$public-once.gguf" "$tmp/$public-other.gguf"
    run "${again[@]}" -o "$tmp/$public-once.gguf" --damp 0.02
    check "$public: another command, anew" test "$rc $(field blocks "$tmp/out")" = '0 3'
done
run "$gsq" quantize "$demo" -o "$tmp/Q2_0-other.gguf" --method rtn --type Q2_0 -q --json
check 'what made the file before it was refined: anew' test "$rc $(field blocks "$tmp/out")" = '0 3'
check 'as it was' cmp "$tmp/Q2_0.gguf" "$tmp/Q2_0-other.gguf"
printf 'x' | dd of="$tmp/stranger-other.gguf" bs=1 seek=200000 conv=notrunc status=none
expect 'a refined file that was changed' 2 'gsq did not write it' '--force' -- "${again[@]}" -o "$tmp/stranger-other.gguf"
unset XDG_CACHE_HOME
# --keep leaves a tensor as it is.
run "$gsq" quantize "$demo" --refine "$tmp/Q2_0.gguf" -o "$tmp/kept.gguf" -q "${calib[@]}" --method gptq --keep '.'
check 'everything kept: refused' test "$rc" -eq 2

# Refusals.
refine=("$gsq" quantize "$demo" -o "$tmp/x.gguf" "${calib[@]}" --refine)
expect 'refine a folder' 2 'not a GGUF' 'folder' -- "${refine[@]}" "$demo"
expect 'refine with a type' 2 'keeps the types' '--keep' -- "${refine[@]}" "$tmp/Q2_0.gguf" --type Q2_K
expect 'refine with other bits' 2 'keeps the types' '--keep' -- "${refine[@]}" "$tmp/Q2_0.gguf" --tensor 'q_proj=4'
expect 'refine by rounding' 2 'activations' 'calib' -- "${refine[@]}" "$tmp/Q2_0.gguf" --method rtn
expect 'refine into a folder' 2 'writes a GGUF' 'OUT.gguf' -- \
    "$gsq" quantize "$demo" -o "$tmp/x" "${calib[@]}" --refine "$tmp/Q2_0.gguf"
expect 'refine onto itself' 2 '.' -- \
    "$gsq" quantize "$demo" -o "$tmp/Q2_0.gguf" "${calib[@]}" --refine "$tmp/Q2_0.gguf"
"$build/make_big_block" "$tmp/other" --hidden 128 --intermediate 256 --heads 4 --kv 2
expect 'refine the file of another model' 2 'Q2_0.gguf: it has' 'made from' -- \
    "$gsq" quantize "$tmp/other" -o "$tmp/x.gguf" "${calib[@]}" --refine "$tmp/Q2_0.gguf"

# Importance matrices.
run "$gsq" imatrix "$demo" -o "$tmp/imatrix.gguf" "${calib[@]}" -q
check 'imatrix: written' test "$rc" -eq 0
run "$gsq" quantize "$demo" -o "$tmp/diagonal.gguf" --imatrix "$tmp/imatrix.gguf" --type Q2_0 --steps 60 -q
check "imatrix: quantized without a text ($(tail -n 1 "$tmp/err"))" test "$rc" -eq 0
rounded=$(divergence "$tmp/Q2_0.gguf" "$demo" "$demo/eval.txt")
diagonal=$(divergence "$tmp/diagonal.gguf" "$demo" "$demo/eval.txt")
check "imatrix: divergence $diagonal, rounded $rounded" at_most "$diagonal" "$rounded"
# Columns that its text never fed, some or all, are rounded, not thrown away.
for every in 2 1; do
    python3 "$here/tests/lib/imatrix_same.py" --zero $every "$tmp/imatrix.gguf" "$tmp/zeros.gguf"
    run "$gsq" quantize "$demo" -o "$tmp/zeros-$every.gguf" --imatrix "$tmp/zeros.gguf" --type Q2_0 --method gptq -q
    zeros=$(divergence "$tmp/zeros-$every.gguf" "$demo" "$demo/eval.txt")
    check "imatrix, every sum of $every zero: divergence $zeros, rounded $rounded" \
        at_most "$zeros" "$(awk "BEGIN { print 1.5 * $rounded }")"
done
expect 'imatrix onto the model' 2 'is the model itself' '-o' -- \
    "$gsq" imatrix "$tmp/Q2_0.gguf" -o "$tmp/Q2_0.gguf" "${calib[@]}"
expect 'imatrix into no folder' 2 'no folder' '-o' -- "$gsq" imatrix "$demo" -o "$tmp/none/i.gguf" "${calib[@]}"
expect 'imatrix of another model' 2 'imatrix.gguf' 'imatrix' -- \
    "$gsq" quantize "$tmp/other" -o "$tmp/x.gguf" --imatrix "$tmp/imatrix.gguf" --type Q2_0
expect 'imatrix that is a model' 2 'not an importance matrix' 'gsq imatrix' -- \
    "$gsq" quantize "$demo" -o "$tmp/x.gguf" --imatrix "$tmp/Q2_0.gguf" --type Q2_0

# A file of llama-quantize, made with our importance matrix, and our sums against those of llama.cpp.
if [[ -x $build/llama_run && -d $oak ]]; then
    text=$shared/text/wikitext2-test-calib.txt
    calib=(--calib "$text" --samples 16 --ctx 128)
    run "$gsq" convert "$oak" -o "$tmp/f16.gguf" --format gguf --type F16 -q
    run "$gsq" imatrix "$oak" -o "$tmp/oak.gguf" "${calib[@]}" -q
    run "$build/llama_run" quantize "$tmp/f16.gguf" "$tmp/Q2_K.gguf" Q2_K "$tmp/oak.gguf"
    check 'llama-quantize takes our importance matrix' test "$rc" -eq 0
    refined Q2_K "$oak" "$tmp/Q2_K.gguf" "$shared/text/wikitext2-test-eval.txt" "${calib[@]}" --method gptq
    run "$build/llama_run" validate "$tmp/Q2_K-refined.gguf"
    check 'the refined file is valid for ggml' test "$rc" -eq 0
    # One window: llama.cpp begins each with a BOS, we the text alone. In F32, as gsq computes.
    run "$gsq" convert "$oak" -o "$tmp/f32.gguf" --format gguf --type F32 -q
    run "$gsq" imatrix "$oak" -o "$tmp/ours.gguf" --calib "$text" --samples 1 --ctx 128 -q
    run "$build/llama_run" imatrix "$tmp/f32.gguf" "$text" 128 1 "$tmp/theirs.gguf"
    check 'sums as llama.cpp has them' python3 "$here/tests/lib/imatrix_same.py" "$tmp/ours.gguf" "$tmp/theirs.gguf"
else
    echo "skipped: llama-quantize ($build/llama_run or $oak is not there)"
fi
done_testing
