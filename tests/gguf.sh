#!/usr/bin/env bash
# Hugging Face folder -> GGUF -> folder -> GGUF is byte-identical, both evaluate alike, and codes go from format to format
# without a change. llama.cpp reads the same tokens, where it is installed.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed to read results"
llama=$build/llama_run
models=("$demo")
[[ -e $demo/model.safetensors ]] || skip "models/demo is not here"
for m in stories260K TinyStories-656K oak-2.9M; do
    if [[ -e $shared/models/$m ]]; then models+=("$shared/models/$m"); else echo "without $m: no ../shared"; fi
done

convert() { # IN OUT [OPTION...]
    run "$gsq" convert "$1" -o "$2" "${@:3}" -q
    [[ $rc -eq 0 ]] || cat "$tmp/err"
    return "$rc"
}
perplexity() { # MODEL TEXT CTX WINDOWS
    run "$gsq" eval "$1" --text "$2" --ctx "$3" --windows "$4" --json
    [[ $rc -eq 0 ]] || cat "$tmp/err" >&2
    field perplexity "$tmp/out"
}

for m in "${models[@]}"; do
    name=$(basename "$m")
    text=$demo/eval.txt ctx=64
    case $name in
    oak*) text=$shared/text/wikitext2-test-eval.txt ctx=256 ;;
    stories* | Tiny*) text=$shared/text/tinystories-eval.txt ctx=256 ;;
    esac
    for type in F16 BF16 F32; do
        convert "$m" "$tmp/$name-$type.gguf" --type $type && convert "$tmp/$name-$type.gguf" "$tmp/hf" --format hf &&
            convert "$tmp/hf" "$tmp/again.gguf" || true
        check "$name, $type: GGUF -> folder -> GGUF is byte-identical" cmp "$tmp/$name-$type.gguf" "$tmp/again.gguf"
    done
    convert "$m" "$tmp/$name.gguf" || true
    hf=$(perplexity "$m" "$text" $ctx 20) gguf=$(perplexity "$tmp/$name.gguf" "$text" $ctx 20)
    check "$name: perplexity $gguf of the GGUF, $hf of the folder" within "$gguf" "$hf" 0.0001
    if [[ -x $llama && $name != demo ]]; then
        "$llama" tokens "$tmp/$name.gguf" "$text" "$tmp/ids" >"$tmp/out"
        want=$(python3 -c 'import json, sys
print(json.load(open(sys.argv[1]))["models"][sys.argv[2]]["eval_sha256_u32le"])' "$shared/oracle/expected.json" "$name")
        check "$name: llama.cpp cuts the text into the same tokens" test "$(sha256sum <"$tmp/ids" | cut -d' ' -f1)" = "$want"
        "$llama" validate "$tmp/$name.gguf" >"$tmp/out" 2>&1 && ok "$name: llama.cpp finds the file valid" ||
            fail "$name: $(tail -n 2 "$tmp/out" | tr '\n' ' ')"
    fi
done
[[ -x $llama ]] || echo "without llama.cpp: scripts/llama-cpp.sh did not install it"

# Codes of every grid at home: Q2_0 (groups of 64 and 128), Q4_0, TQ2_0 (rows of 256 only).
grid() { # MODEL BITS GROUP TYPE TEXT
    local out=$tmp/$2-$3
    run "$gsq" quantize "$1" -o "$out" --method rtn --bits "$2" --group "$3" --format compressed-tensors -q
    check "$2 bits, group $3: quantized" test "$rc" -eq 0
    convert "$out" "$out.gguf" || true
    run "$gsq" inspect "$out.gguf" --json
    check "$2 bits, group $3: the codes are $4" grep -q "\"$4\"" "$tmp/out"
    local a b
    a=$(perplexity "$out" "$5" 64 16) b=$(perplexity "$out.gguf" "$5" 64 16)
    check "$2 bits, group $3: $b as $4, $a as compressed-tensors" within "$b" "$a" 0.00001
    convert "$out.gguf" "$out-back" --format compressed-tensors || true
    # A group of 128 comes back as two of 64.
    [[ $3 -gt 64 ]] || check "$2 bits, group $3: back from $4 with every code and scale" \
        python3 "$here/tests/lib/tensors.py" "$out" "$out-back" .weight_packed .weight_scale
}
grid "$demo" 2 64 Q2_0 "$demo/eval.txt"
grid "$demo" 2 128 Q2_0 "$demo/eval.txt"
grid "$demo" 4 32 Q4_0 "$demo/eval.txt"
if [[ -e $shared/models/oak-2.9M ]]; then
    grid "$shared/models/oak-2.9M" 2 256 TQ2_0 "$shared/text/wikitext2-test-eval.txt"
    grid "$shared/models/oak-2.9M" ternary 64 Q2_0 "$shared/text/wikitext2-test-eval.txt"
fi

convert "$tmp/2-64" "$tmp/wide.gguf" --type F16 || true
check '--type F16 stores the values that codes stand for' within \
    "$(perplexity "$tmp/wide.gguf" "$demo/eval.txt" 64 16)" "$(perplexity "$tmp/2-64" "$demo/eval.txt" 64 16)" 0.001
run "$gsq" quantize "$demo" -o "$tmp/3" --method rtn --bits 3 --group 64 -q
expect 'three bits have no home' 2 'stored exactly as any type' 'type F16' -- "$gsq" convert "$tmp/3" -o "$tmp/x.gguf"
expect 'codes and a type that does not hold them' 2 'stored exactly as TQ2_0' -- \
    "$gsq" convert "$tmp/2-64" -o "$tmp/x.gguf" --type TQ2_0
expect 'a type that would have to be quantized to' 2 'does not quantize' 'gsq quantize' -- \
    "$gsq" convert "$demo" -o "$tmp/x.gguf" --type Q4_K
expect 'no such type' 2 'type Q9_Z is unknown' 'F16' -- "$gsq" convert "$demo" -o "$tmp/x.gguf" --type Q9_Z
expect 'neither --format nor a name that says it' 2 'needs --format' 'gguf, hf' -- "$gsq" convert "$demo" -o "$tmp/x"
expect 'a folder that is not there' 2 'there is no folder' -- "$gsq" convert "$demo" -o "$tmp/no/x.gguf"
expect 'onto itself' 2 'is the model itself' -- "$gsq" convert "$tmp/demo.gguf" -o "$tmp/demo.gguf"
expect 'onto itself under another path' 2 'is the model itself' -- "$gsq" convert "$tmp/demo.gguf" -o "$tmp/../$(basename "$tmp")/demo.gguf"
check 'nothing was left behind' test -z "$(find "$tmp" -name '*.gsq-*')"
done_testing
