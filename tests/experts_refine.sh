#!/usr/bin/env bash
# Refining a GGUF of a model with experts: codes of its 3-D tensors are learned anew, expert by expert, and no other byte changes; types
# that are not learned stay, and the plan says so; a run that was killed within a layer ends in the same bytes. Files of
# llama-quantize where it is there, else of our own.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
[[ -d $shared/models/qwen3moe-4m ]] || skip "no models in $shared"
command -v python3 >/dev/null || skip "no python3"
llama=$build/llama_run
[[ -x $llama ]] || llama=
unset GSQ_VALIDATE
text=$shared/text/tinystories-eval.txt
calib=(--calib "$shared/text/tinystories-calib.txt" --ctx 128 --samples 16)

divergence() { # MODEL REFERENCE: mean KL
    run "$gsq" compare "$1" "$2" --text "$text" --ctx 128 --windows 24 --json
    field mean_kl "$tmp/out"
}
start_file() { # MODEL TYPE: $tmp/MODEL-TYPE.gguf, with an importance matrix
    local source=$shared/models/$1 file=$tmp/$1-$2.gguf
    if [[ -n $llama ]]; then
        [[ -e $tmp/$1.imatrix ]] || must "$gsq" imatrix "$source" -o "$tmp/$1.imatrix" "${calib[@]}" -q
        [[ -e $tmp/$1-f16.gguf ]] || must "$gsq" convert "$source" -o "$tmp/$1-f16.gguf" --type F16 -q
        must "$llama" quantize "$tmp/$1-f16.gguf" "$file" "$2" "$tmp/$1.imatrix"
    else
        must "$gsq" quantize "$source" -o "$file" --method rtn --type "$2" -q
    fi
}
# refined MODEL TYPE SHARE OPTION...: its divergence against the file's own, at most that share.
refined() {
    local source=$shared/models/$1 file=$tmp/$1-$2.gguf out=$tmp/$1-$2-refined.gguf before after
    must "$gsq" quantize "$source" --refine "$file" -o "$out" --force -q "${calib[@]}" "${@:4}" || return 0
    check "$1, $2: only codes changed" python3 "$here/tests/lib/gguf_codes.py" "$file" "$out"
    before=$(divergence "$file" "$source")
    after=$(divergence "$out" "$source")
    check "$1, $2: KL of the file $before, refined $after" at_most "$after" "$(awk -v b="$before" -v s="$3" 'BEGIN { print s * b }')"
    [[ -z $llama ]] || must "$llama" validate "$out"
}

start_file qwen3moe-4m Q2_K
refined qwen3moe-4m Q2_K 0.7 --effort fast --steps 20
start_file dsv3-mla-3.9m Q2_K # of its latent attention kv_b stays as it is
refined dsv3-mla-3.9m Q2_K 0.85 --method gptq
# Each expert on its own output, in two runs that end as one.
start_file qwen3moe-4m Q3_K_S
balanced=(--effort balanced --steps 8 --epochs 2)
refined qwen3moe-4m Q3_K_S 0.85 "${balanced[@]}"
again=("$gsq" quantize "$shared/models/qwen3moe-4m" --refine "$tmp/qwen3moe-4m-Q3_K_S.gguf" -o "$tmp/again.gguf" -q "${calib[@]}" "${balanced[@]}")
for at in kill:block:2 kill:step:60; do
    rm -rf "$tmp/again.gguf" "$tmp/again.gguf.work"
    GSQ_STOP_AT=$at run "${again[@]}"
    check "$at: it ended there" test "$rc" -ge 130
    must "${again[@]}"
    check "$at: the same bytes" cmp "$tmp/again.gguf" "$tmp/qwen3moe-4m-Q3_K_S-refined.gguf"
done

# ---- what is not learned
must "$gsq" quantize "$shared/models/dsv3-mla-3.9m" -o "$tmp/mixed.gguf" --method rtn --type Q2_K --tensor 'experts.*down=Q8_0' \
    --tensor 'layers\.1\.mlp\.experts.*up=Q8_0' -q
mixed=("$gsq" quantize "$shared/models/dsv3-mla-3.9m" --refine "$tmp/mixed.gguf" "${calib[@]}" --method gptq)
must "${mixed[@]}" -o "$tmp/plan.gguf" --dry-run
check 'the plan: codes learned of one type' grep -qE 'gate_proj .* Q2_K .* codes learned anew' "$tmp/out"
check 'and others as they are' grep -qE 'down_proj .* Q8_0 .* as it is' "$tmp/out"
check 'also of experts in one layer' grep -qE 'up_proj .* Q8_0 .* as it is' "$tmp/out"
must "${mixed[@]}" -o "$tmp/mixed-refined.gguf" -q
check 'kept types: only codes of the others changed' python3 "$here/tests/lib/gguf_codes.py" "$tmp/mixed.gguf" "$tmp/mixed-refined.gguf"
GSQ_STOP_AT=kill:block:2 run "${mixed[@]}" -o "$tmp/mixed-again.gguf" -q
must "${mixed[@]}" -o "$tmp/mixed-again.gguf" -q
check 'kept types: killed and gone on, the same bytes' cmp "$tmp/mixed-again.gguf" "$tmp/mixed-refined.gguf"
must "${mixed[@]}" -o "$tmp/kept.gguf" -q --keep 'layers\.2\.'
check '--keep leaves a layer as it is' python3 "$here/tests/lib/gguf_codes.py" "$tmp/mixed-refined.gguf" "$tmp/kept.gguf"
cp -r "$shared/models/qwen3moe-4m" "$tmp/other"
chmod -R u+w "$tmp/other"
sed -i 's/"num_experts_per_tok": 2/"num_experts_per_tok": 1/' "$tmp/other/config.json"
expect 'the file of another model' 2 'it has 2 experts for each token' 'made from' -- \
    "$gsq" quantize "$tmp/other" --refine "$tmp/qwen3moe-4m-Q2_K.gguf" -o "$tmp/x.gguf" "${calib[@]}"
done_testing
