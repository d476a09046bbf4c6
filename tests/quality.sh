#!/usr/bin/env bash
# Real models against an independent prototype's perplexities (../shared/oracle/expected.json): unquantized within 0.02 %, RTN
# within 1 %, GPTQ at most 8 % above, GSQ at most 3 % above by the Hessian objective (alone) and at least 3 % below by the
# block objective (together; scripts/lib/levels.sh has both). And against gsq's own divergences (bench/results/quality.tsv), on both sides: within 4 %, RTN within
# 0.5 %. QUALITY_CASES: a regex to choose cases.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source=scripts/lib/levels.sh
. "$here/scripts/lib/levels.sh"
oracle=$shared/oracle/expected.json
[[ -e $oracle ]] || skip "the models and figures of ../shared are not there"
command -v python3 >/dev/null || skip "python3 is needed to read JSON"
unset GSQ_VALIDATE # hours of it would test nothing new

expected() { # PATH.TO.NUMBER with / between keys
    python3 -c 'import json, sys
o = json.load(open(sys.argv[1]))
for key in sys.argv[2].split("/"):
    o = o[key]
print(o)' "$oracle" "$1"
}
recorded() { # MODEL BITS METHOD: divergence from the 16-bit model
    awk -F '\t' -v m="$1" -v b="$2" -v how="$3" '$1 == m && $2 == b && $3 == how { print $5 }' "$here/bench/results/quality.tsv"
}
perplexity() { # FOLDER TEXT
    run "$gsq" eval "$1" --text "$shared/text/$2-eval.txt" --ctx 256 --json
    [[ $rc -eq 0 ]] || cat "$tmp/err" >&2
    field perplexity "$tmp/out"
}
wanted() {
    [[ $1 =~ ${QUALITY_CASES:-.} ]]
}

for m in stories260K:tinystories TinyStories-656K:tinystories oak-2.9M:wikitext2-test; do
    model=${m%:*} text=${m#*:}
    wanted "$model 16" || continue
    p=$(perplexity "$shared/models/$model" "$text")
    want=$(expected "models/$model/ppl_ctx256")
    check "$model, 16 bits: $p, expected $want" within "$p" "$want" 0.0002
    check "$model: tokens" test "$(field tokens "$tmp/out")" -eq "$(expected "models/$model/eval_tokens")"
done

for case in 'TinyStories-656K 2 128' 'TinyStories-656K 3 128' 'stories260K 2 64'; do
    read -r model bits group <<<"$case"
    for method in rtn gptq alone together; do
        wanted "$case $method" || continue
        out=$tmp/$model-$bits-$method
        begin=$SECONDS
        how_of "$method"
        run "$gsq" quantize "$shared/models/$model" -o "$out" "${how[@]}" --bits "$bits" --group "$group" \
            --format compressed-tensors --calib "$shared/text/tinystories-calib.txt" --samples 128 --ctx 256 --json
        [[ $rc -eq 0 ]] || { cat "$tmp/err"; fail "$case $method"; continue; }
        took=$((SECONDS - begin))
        run "$gsq" compare "$out" "$shared/models/$model" --text "$shared/text/tinystories-eval.txt" --ctx 256 --json
        [[ $rc -eq 0 ]] || { cat "$tmp/err"; fail "$case $method"; continue; }
        p=$(field perplexity "$tmp/out") kl=$(field mean_kl "$tmp/out") was=$(recorded "$model" "$bits" "$method")
        check "$case $method: divergence $kl, recorded $was" within "$kl" "$was" "$([[ $method == rtn ]] && echo 0.005 || echo 0.04)"
        key="quantized/perplexity/$model $bits bits g$group"
        case $method in
        rtn)
            want=$(expected "$key/rtn")
            check "$case rtn: $p, prototype $want ($took s)" within "$p" "$want" 0.01
            ;;
        gptq)
            want=$(expected "$key/gptq")
            check "$case gptq: $p, prototype $want ($took s)" at_most "$p" "$(awk "BEGIN { print $want * 1.08 }")"
            ;;
        alone)
            want=$(expected "$key/gsq_hessian")
            check "$case alone: $p, prototype $want ($took s)" at_most "$p" "$(awk "BEGIN { print $want * 1.03 }")"
            ;;
        together)
            want=$(expected "$key/gsq_block")
            check "$case together: $p, prototype $want ($took s)" at_most "$p" "$(awk "BEGIN { print $want * 0.97 }")"
            ;;
        esac
    done
done
done_testing
