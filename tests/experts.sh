#!/usr/bin/env bash
# Models with experts: a trained one against an independent program's perplexity, the same and small random ones of each family
# in llama.cpp, there and back through GGUF, quantized to every format.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
model=$shared/models/qwen3moe-4m
[[ -d $model ]] || skip "no models in $shared"
command -v python3 >/dev/null || skip "no python3"
llama=$build/llama_run
text=$shared/text/wikitext2-test-eval.txt
stories=$shared/text/tinystories-eval.txt
ctx=256
unset GSQ_VALIDATE

perplexity() { # MODEL WINDOWS [OPTION...]
    must "$gsq" eval "$1" --text "$text" --ctx $ctx --windows "$2" "${@:3}" --json && field perplexity "$tmp/out"
}

# ---- as it is
must "$gsq" eval "$model" --text "$stories" --ctx $ctx --json
want=$(python3 -c 'import json, sys
print(json.load(open(sys.argv[1]))["experts"]["qwen3moe-4m"]["ppl_ctx256_tinystories_eval"])' "$shared/oracle/expected.json")
p=$(field perplexity "$tmp/out")
check "16 bits: perplexity $p, an independent program's is $want" within "$p" "$want" 0.0002
# Multi-head latent attention, a sigmoid router with groups, a shared expert, a first layer without experts.
latent=$shared/models/dsv3-mla-3.9m
latent_want=$(python3 -c 'import json, sys
print(json.load(open(sys.argv[1]))["experts"]["dsv3-mla-3.9m"]["ppl_ctx256_tinystories_eval"])' "$shared/oracle/expected.json")
must "$gsq" eval "$latent" --text "$stories" --ctx $ctx --json
p=$(field perplexity "$tmp/out")
check "latent attention: perplexity $p, an independent program's is $latent_want" within "$p" "$latent_want" 0.0002
must "$gsq" inspect "$model" && check 'inspect names the family' grep -q 'Qwen3MoeForCausalLM' "$tmp/out"

# ---- there and back
must "$gsq" convert "$model" -o "$tmp/f16.gguf" --type F16
must "$gsq" convert "$tmp/f16.gguf" -o "$tmp/back" --format hf
source=$(perplexity "$model" 8)
check 'its GGUF computes the same' test "$(perplexity "$tmp/f16.gguf" 8)" = "$source"
check 'so does the folder made of that' test "$(perplexity "$tmp/back" 8)" = "$source"
# Little memory: weights one expert at a time, hidden states and what experts read on the host.
p=$(GSQ_DEVICE_LIMITS=memory=48 perplexity "$model" 8)
check "in 48 MiB: perplexity $p" test "$p" = "$source"
# Bindings that hold a part of the tokens only.
p=$(GSQ_DEVICE_LIMITS=range=4 perplexity "$model" 24)
whole=$(perplexity "$model" 24)
check "in bindings of 4 MiB: perplexity $p" within "$p" "$whole" 0.000001

# ---- rounded: every format, read back
for format in gptq gptq_v2 compressed-tensors humming; do
    must "$gsq" quantize "$model" -o "$tmp/$format" --method rtn --bits 4 --format "$format" || continue
    p=$(perplexity "$tmp/$format" 8)
    [[ $format == gptq ]] && first=$p
    check "$format, 4 bits: perplexity $p, $source in 16 bits" within "$p" "$source" 0.05
    check "$format holds what gptq does" within "$p" "$first" 0.000001
done

p16=$(perplexity "$latent" 8)
must "$gsq" quantize "$latent" -o "$tmp/latent4" --method rtn --bits 4
p=$(perplexity "$tmp/latent4" 8)
check "latent attention, 4 bits: perplexity $p, $p16 in 16 bits" within "$p" "$p16" 0.02
p=$(GSQ_DEVICE_LIMITS=range=4 perplexity "$latent" 24)
whole=$(perplexity "$latent" 24)
check "latent attention in bindings of 4 MiB: perplexity $p" within "$p" "$whole" 0.000001
# Its kv_b goes into a GGUF as two tensors, and comes back as one matrix.
must "$gsq" convert "$latent" -o "$tmp/latent-f16.gguf" --type F16
must "$gsq" convert "$tmp/latent-f16.gguf" -o "$tmp/latent-back" --format hf
check 'the GGUF of latent attention computes the same' test "$(perplexity "$tmp/latent-f16.gguf" 8)" = "$p16"
check 'so does the folder made of that' test "$(perplexity "$tmp/latent-back" 8)" = "$p16"
same_tensors() { # FOLDER OTHER
    python3 - "$@" <<'END'
import json, struct, sys
def load(folder):
    raw = open(folder + "/model.safetensors", "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    return {k: (t["dtype"], t["shape"], raw[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]])
            for k, t in json.loads(raw[8:8 + n]).items() if "self_attn" in k and "norm" not in k}
a, b = load(sys.argv[1]), load(sys.argv[2])
assert len(a) == 15 and a == b, [k for k in set(a) | set(b) if a.get(k) != b.get(k)]
END
}
check 'with the same matrices of attention' same_tensors "$latent" "$tmp/latent-back"
python3 - "$latent" "$tmp/unscaled" <<'END'
import json, os, sys
os.mkdir(sys.argv[2])
for name in os.listdir(sys.argv[1]):
    if name != "config.json":
        os.symlink(os.path.join(sys.argv[1], name), os.path.join(sys.argv[2], name))
c = json.load(open(sys.argv[1] + "/config.json"))
c["rope_scaling"]["mscale_all_dim"] = 0.5
json.dump(c, open(sys.argv[2] + "/config.json", "w"))
END
expect 'scores that llama.cpp scales otherwise' 2 "llama.cpp scales latent attention otherwise" 'folder' -- "$gsq" convert "$tmp/unscaled" -o "$tmp/l.gguf" --type F32
# What an inference server takes as codes is what is codes: the router, its gates and attention are not, nor are kept layers.
for format in gptq compressed-tensors; do
    check "$format: a server's names" python3 "$here/tests/lib/server_match.py" "$tmp/$format"
    must "$gsq" quantize "$latent" -o "$tmp/latent-$format" --method rtn --bits 4 --format $format --keep 'layers\.1\.mlp\.experts' &&
        check "$format: a server's names, of latent attention and a layer that is kept" \
            python3 "$here/tests/lib/server_match.py" "$tmp/latent-$format" 1
    must python3 "$here/tests/lib/random_model.py" qwen2_moe "$model" "$tmp/shared" hidden_size=64 &&
        must "$gsq" quantize "$tmp/shared" -o "$tmp/shared-$format" --method rtn --bits 4 --group 32 --format $format &&
        check "$format: a server's names, with the gate of a shared expert" python3 "$here/tests/lib/server_match.py" "$tmp/shared-$format"
done
# A layer behind the last one, which predicts further tokens: it is carried over, and counts for nothing.
python3 - "$latent" "$tmp/mtp" <<'END'
import json, shutil, struct, sys
shutil.copytree(sys.argv[1], sys.argv[2])
raw = open(sys.argv[1] + "/model.safetensors", "rb").read()
n = struct.unpack("<Q", raw[:8])[0]
header, data = json.loads(raw[8:8 + n]), raw[8 + n:]
for name, t in list(header.items()):
    if name.startswith("model.layers.2.self_attn."):
        begin, end = t["data_offsets"]
        header[name.replace(".2.", ".3.", 1)] = dict(t, data_offsets=[len(data), len(data) + end - begin])
        data += data[begin:end]
text = json.dumps(header)
text += " " * (-len(text) % 8)
open(sys.argv[2] + "/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text.encode() + data)
END
check 'a layer behind the last counts for nothing' test "$(perplexity "$tmp/mtp" 8)" = "$p16"
must "$gsq" quantize "$tmp/mtp" -o "$tmp/mtp4" --method rtn --bits 4
check 'and is in the output' grep -aq 'model.layers.3.self_attn.kv_b_proj.weight' "$tmp/mtp4/model.safetensors"

# ---- learned: better than rounded, also where two windows are all that there is; stopped and resumed to the same bytes
calib=$shared/text/wikitext2-test-calib.txt
learn=("$gsq" quantize "$model" --method gptq --bits 2 --group 64 --calib "$calib" --ctx "$ctx")
divergence() { # MODEL
    must "$gsq" compare "$1" "$model" --text "$text" --ctx $ctx --windows 8 --json && field mean_kl "$tmp/out"
}
must "$gsq" quantize "$model" -o "$tmp/rtn2" --method rtn --bits 2 --group 64
must "${learn[@]}" -o "$tmp/gptq2" --samples 16
good=("${learn[@]}" --correction 0.5) # what was lost before an expert made good, for which the 16-bit model's tokens go through it, too
must "${good[@]}" -o "$tmp/good2" --samples 16
must "${good[@]}" -o "$tmp/few" --samples 2 --report "$tmp/few.html" --json
check 'experts with few tokens are named' grep -q 'experts saw few tokens' "$tmp/err"
check 'each with its tokens in --json, and what is usual on the page' python3 - "$tmp/few.html" "$tmp/out" 512 <<'END'
import json, re, statistics, sys
run = json.loads(re.search(r'id="run">(.*?)</script>', open(sys.argv[1], encoding="utf-8").read(), re.S).group(1))
linears = [e for e in map(json.loads, open(sys.argv[2])) if e["event"] == "linear"]
groups = {g["module"]: g for g in run["expert_linears"]}
columns = next(g["cols"] for g in groups.values() if g["module"].endswith("gate_proj"))
seen, by_role = {}, {}
for l in linears:
    block, expert, role = re.search(r"layers\.(\d+)\.mlp\.experts\.(\d+)\.(\w+)", l["module"]).groups()
    assert seen.setdefault((int(block) + 1, int(expert)), l["tokens"]) == l["tokens"]
    assert l["starved"] == (l["tokens"] < columns // 4), l
    by_role.setdefault(re.sub(r"experts\.\d+", "experts.*", l["module"]), []).append((l["loss"], int(expert), l["tokens"]))
assert by_role.keys() == groups.keys() and not run["linears"]
for module, of in by_role.items():
    g, losses = groups[module], sorted(x[0] for x in of)
    assert g["linears"] == len(of) and min(abs(g["loss"] - x) for x in (losses[(len(of) - 1) // 2], losses[len(of) // 2])) < 1e-14, g
    assert [(w["expert"], w["tokens"]) for w in g["worst"]] == [x[1:] for x in sorted(of, key=lambda x: -x[0])[:5]], g
layers = {x["block"]: x for x in run["experts"]}
for block, x in layers.items():
    tokens = {expert: n for (b, expert), n in seen.items() if b == block}
    few = {e: n for e, n in tokens.items() if n < columns // 4}
    assert sum(tokens.values()) == 2 * int(sys.argv[3]), tokens  # two experts of each token
    assert (x["starved"], x["tokens_least"], x["tokens_most"]) == (len(few), min(tokens.values()), max(tokens.values())), x
    assert {w["expert"]: w["tokens"] for w in x["fewest"]} == few, x
assert sum(x["starved"] for x in layers.values()) > 0
END
rtn=$(divergence "$tmp/rtn2") gptq=$(divergence "$tmp/gptq2") few=$(divergence "$tmp/few") made_good=$(divergence "$tmp/good2")
check "16 windows: KL $gptq, rounded to nearest $rtn" at_most "$gptq" "$(awk -v r="$rtn" 'BEGIN { print 0.4 * r }')"
check "16 windows, what was lost made good: KL $made_good, $gptq without" at_most "$made_good" "$(awk -v g="$gptq" 'BEGIN { print 0.95 * g }')"
check "2 windows: KL $few" at_most "$few" "$(awk -v r="$rtn" 'BEGIN { print 0.45 * r }')"
# What steps learn from so few tokens holds on others; no expert can be trained, so that balanced is fast, but that what was lost stays so.
alone=("$gsq" quantize "$model" --bits 2 --group 64 --calib "$calib" --ctx 128 --samples 2 --keep 'layers\.1\.')
must "${alone[@]}" -o "$tmp/few-gptq" --method gptq
must "${alone[@]}" -o "$tmp/few-fast" --effort fast --steps 60
must "${alone[@]}" -o "$tmp/few-lone" --effort fast --steps 60 --correction 0
must "${alone[@]}" -o "$tmp/few-balanced" --effort balanced --steps 60
gptq=$(divergence "$tmp/few-gptq") fast=$(divergence "$tmp/few-fast")
check "2 windows of 128: KL $fast, by GPTQ $gptq" at_most "$fast" "$(awk -v g="$gptq" 'BEGIN { print 0.95 * g }')"
check '2 windows: where nothing can judge, experts learn alone' python3 - "$tmp/few-lone" "$tmp/few-balanced" <<'END'
import struct, sys
def data(folder): # without the header, which names the run
    raw = open(folder + "/model.safetensors", "rb").read()
    return raw[8 + struct.unpack("<Q", raw[:8])[0]:]
assert data(sys.argv[1]) == data(sys.argv[2])
END
must "$gsq" quantize "$latent" -o "$tmp/latent2r" --method rtn --bits 2 --group 64
latent_learn=("$gsq" quantize "$latent" --method gptq --correction 0.5 --bits 2 --group 64 --calib "$calib" --ctx "$ctx" --samples 8)
must "${latent_learn[@]}" -o "$tmp/latent2"
latent_kl() { # MODEL
    must "$gsq" compare "$1" "$latent" --text "$text" --ctx $ctx --windows 8 --json && field mean_kl "$tmp/out"
}
rtn=$(latent_kl "$tmp/latent2r") gptq=$(latent_kl "$tmp/latent2")
check "latent attention: KL $gptq, rounded to nearest $rtn" at_most "$gptq" "$(awk -v r="$rtn" 'BEGIN { print 0.6 * r }')"
# Its matrices of attention too, on what each reads: better than rounded in a folder (read back), and as a GGUF has them (kv_b as
# two, by Hessians of heads); rows of 80, 192 and 256.
coded=(--bits 3 --group 64 --format compressed-tensors --tensor 'self_attn\.=3' --keep 'mlp\.')
must "$gsq" quantize "$latent" -o "$tmp/mla3r" --method rtn "${coded[@]}"
mla=("$gsq" quantize "$latent" --effort fast --steps 40 --calib "$calib" --ctx "$ctx" --samples 8 "${coded[@]}")
must "${mla[@]}" -o "$tmp/mla3"
check 'five matrices of attention in each of three layers are codes' test "$(grep -ao 'self_attn[a-z_.]*weight_packed' "$tmp/mla3/model.safetensors" | wc -l)" -eq 15
check 'latent attention in codes: names of a server' python3 "$here/tests/lib/server_match.py" "$tmp/mla3" 1 2
rtn=$(latent_kl "$tmp/mla3r") fast=$(latent_kl "$tmp/mla3")
check "attention in 3 bits: KL $fast, rounded to nearest $rtn" at_most "$fast" "$(awk -v r="$rtn" 'BEGIN { print 0.5 * r }')"
file=("$gsq" quantize "$latent" --type Q2_K --method gptq --calib "$calib" --ctx "$ctx" --samples 8)
must "${file[@]}" -o "$tmp/mla.gguf"
must "$gsq" quantize "$latent" -o "$tmp/mla-r.gguf" --method rtn --type Q2_K
rtn=$(latent_kl "$tmp/mla-r.gguf") gptq=$(latent_kl "$tmp/mla.gguf")
check "Q2_K: KL $gptq, rounded to nearest $rtn" at_most "$gptq" "$(awk -v r="$rtn" 'BEGIN { print 0.62 * r }')"
# Ended between files of a layer and within an expert, and a file lost: the rest is made again. The 12 experts of a layer are in
# three files, beside what all tokens go through; 8 in two.
again() { # NAME AT OPTION...: a run that is stopped there and gone on with
    local name=$1
    rm -rf "$tmp/again" "$tmp/again.work"
    GSQ_STOP_AT=$2 run "${@:3}" -o "$tmp/again"
    check "$name: it ended there" test "$rc" -ge 130
    [[ -z $lost ]] || rm "$tmp/again.work/$lost"
    must "${@:3}" -o "$tmp/again"
    check "$name: what is there is not made again" grep -q "$told" "$tmp/err"
}
lost='' told='1 of 3 blocks are done already'
again 'in latent attention' kill:linear:8 "${mla[@]}"
check 'in latent attention: the same bytes' cmp "$tmp/mla3/model.safetensors" "$tmp/again/model.safetensors"
told='block 2: 3 of its 4 files are there already'
again 'latent attention, killed between experts' kill:block:4 "${latent_learn[@]}"
check 'latent attention, killed between experts: the same bytes' cmp "$tmp/latent2/model.safetensors" "$tmp/again/model.safetensors"
told='block 1: 2 of its 3 files are there already'
for at in kill:block:2 kill:linear:14 stop:linear:14; do
    again "$at" "$at" "${good[@]}" --samples 2
    check "$at: the same bytes" cmp "$tmp/again/model.safetensors" "$tmp/few/model.safetensors"
done
lost=block-0000-part-0001.safetensors told='block 1: 2 of its 3 files are there already'
again 'a file in the middle lost' kill:block:5 "${good[@]}" --samples 2
check 'a file in the middle lost: the same bytes' cmp "$tmp/again/model.safetensors" "$tmp/few/model.safetensors"
# What all tokens go through is coded too.
lost='' told='block 1: 1 of its 3 files are there already'
must "${good[@]}" --samples 2 --tensor 'q_proj=4' -o "$tmp/q4"
again 'attention in 4 bits' kill:block:1 "${good[@]}" --samples 2 --tensor 'q_proj=4'
check 'attention in 4 bits: the same bytes' cmp "$tmp/again/model.safetensors" "$tmp/q4/model.safetensors"
told='block 2: 1 of its 3 files are there already'
again 'rounded' kill:block:4 "$gsq" quantize "$model" --method rtn --bits 2 --group 64
check 'rounded: the same bytes' cmp "$tmp/again/model.safetensors" "$tmp/rtn2/model.safetensors"

# ---- llama.cpp
if [[ ! -x $llama ]]; then
    echo "llama.cpp is not installed (scripts/llama-cpp.sh): not compared"
    done_testing
fi
same() { # NAME FILE TOLERANCE [WINDOWS]
    must "$llama" ppl "$2" "$text" $ctx "${4:-8}" || return 0
    local theirs ours
    theirs=$(number perplexity "$tmp/out")
    ours=$(perplexity "$2" "${4:-8}" --protocol llama.cpp)
    check "$1: perplexity $ours in gsq, $theirs in llama.cpp" within "$ours" "$theirs" "$3"
}
must "$gsq" convert "$model" -o "$tmp/f32.gguf" --type F32
same 'qwen3moe-4m, F32' "$tmp/f32.gguf" 0.00001 16
same 'qwen3moe-4m, F16' "$tmp/f16.gguf" 0.0005
must "$gsq" convert "$latent" -o "$tmp/latent-f32.gguf" --type F32
same 'dsv3-mla-3.9m, F32' "$tmp/latent-f32.gguf" 0.00001 16
same 'dsv3-mla-3.9m, F16' "$tmp/latent-f16.gguf" 0.0005
# Tensor by tensor the types of llama-quantize.
mixture() { # NAME MODEL F16 TYPE
    must "$gsq" quantize "$2" -o "$tmp/$4.gguf" --method rtn --type "$4" || return 0
    must "$llama" validate "$tmp/$4.gguf"
    must "$llama" quantize "$3" "$tmp/theirs.gguf" "$4" - || return 0
    "$llama" types "$tmp/$4.gguf" | sort >"$tmp/ours"
    "$llama" types "$tmp/theirs.gguf" | sort >"$tmp/theirs"
    check "$1, $4: the tensor types of llama-quantize" diff "$tmp/ours" "$tmp/theirs"
    must "$llama" dequant "$tmp/$4.gguf" "$tmp/twin.gguf" || return 0
    must "$gsq" convert "$tmp/$4.gguf" -o "$tmp/own.gguf" --format gguf --type F32 || return 0
    check "$1, $4: gsq dequantizes it as ggml does" "$llama" same "$tmp/own.gguf" "$tmp/twin.gguf"
}
for type in Q2_K Q3_K_M Q4_K_M Q2_0 TQ2_0 IQ4_XS MXFP4_MOE; do
    mixture qwen3moe-4m "$model" "$tmp/f16.gguf" $type
done
for type in Q2_K Q3_K_M Q4_K_M Q5_K_M Q8_0 Q2_0 TQ2_0 IQ4_NL MXFP4_MOE; do
    mixture dsv3-mla-3.9m "$latent" "$tmp/latent-f16.gguf" $type
done
# ---- importance matrices: of each expert what its own tokens were
importance() { # NAME MODEL F32 PATTERN
    must "$gsq" imatrix "$2" --calib "$calib" --samples 1 --ctx $ctx -o "$tmp/ours.gguf" || return 0
    must "$llama" imatrix "$3" "$calib" $ctx 1 "$tmp/theirs.gguf" || return 0
    check "$1: sums as llama.cpp has them" python3 "$here/tests/lib/imatrix_same.py" "$tmp/ours.gguf" "$tmp/theirs.gguf" "$4"
    must "$llama" quantize "$3" "$tmp/theirs2.gguf" Q2_K_S "$tmp/ours.gguf" || return 0
    local by_sums=("$gsq" quantize "$2" --type Q2_K_S --imatrix "$tmp/theirs.gguf" --effort fast --steps 4)
    must "${by_sums[@]}" -o "$tmp/ours2.gguf" || return 0
    GSQ_STOP_AT=kill:block:2 run "${by_sums[@]}" -o "$tmp/killed.gguf"
    must "${by_sums[@]}" -o "$tmp/killed.gguf" || return 0
    check "$1: killed behind its second file and gone on with, the same bytes" cmp "$tmp/ours2.gguf" "$tmp/killed.gguf"
    rm -rf "$tmp/ours2.gguf.work" "$tmp/killed.gguf"*
    "$llama" types "$tmp/ours2.gguf" | sort >"$tmp/ours"
    "$llama" types "$tmp/theirs2.gguf" | sort >"$tmp/theirs"
    check "$1, Q2_K_S: the tensor types of llama-quantize" diff "$tmp/ours" "$tmp/theirs"
}
importance qwen3moe-4m "$model" "$tmp/f32.gguf" 'ffn_gate_inp\.'
importance dsv3-mla-3.9m "$latent" "$tmp/latent-f32.gguf" 'attn_[kv]_b|ffn_gate_inp\.'
idle() { # OUT FIRST: experts from that one on saw no token
    python3 - "$here/tests/lib" "$tmp/ours.gguf" "$@" <<'END'
import sys
lib, path, out, first = sys.argv[1:]
sys.path.insert(0, lib)
from gguf_file import places
data = bytearray(open(path, "rb").read())
n, at = places(data)["blk.1.ffn_up_exps.weight.counts"]
data[at + 4 * int(first):at + 4 * n] = bytes(4 * (n - int(first)))
open(out, "wb").write(data)
END
}
must idle "$tmp/idle.gguf" 3 && must "$gsq" quantize "$latent" -o "$tmp/idle" --bits 2 --imatrix "$tmp/idle.gguf" --dry-run
must idle "$tmp/idle.gguf" 0 &&
    expect 'sums of no expert' 2 'ffn_up_exps.weight.in_sum2 was summed over 0 tokens' -- "$gsq" quantize "$latent" -o "$tmp/idle" --bits 2 --imatrix "$tmp/idle.gguf" --dry-run

for family in mixtral qwen2_moe qwen3_moe olmoe; do
    must python3 "$here/tests/lib/random_model.py" $family "$model" "$tmp/$family" || continue
    must "$gsq" convert "$tmp/$family" -o "$tmp/$family.gguf" --type F32 || continue
    same "$family, random weights" "$tmp/$family.gguf" 0.00001
    check "$family: the folder computes the same" test "$(perplexity "$tmp/$family" 4)" = "$(perplexity "$tmp/$family.gguf" 4)"
done

# ---- what llama.cpp would compute otherwise is not written
must python3 "$here/tests/lib/random_model.py" qwen3_moe "$model" "$tmp/unsaid" norm_topk_prob=false
expect 'weights that are not divided by their sum' 2 'norm_topk_prob' 'folder' -- "$gsq" convert "$tmp/unsaid" -o "$tmp/u.gguf" --type F32
# ---- full size: headers are all that is read, and each kind of matrix is one line. The disk of this machine may be too small: that
# is said behind the plan.
plan_of() { # NAME OPTION...: its dry run on a device of 8 GiB
    [[ -d $tmp/$1 ]] || python3 "$here/tests/lib/sparse_model.py" "$1" "$tmp/$1"
    GSQ_DEVICE_LIMITS=memory=8192 run "$gsq" quantize "$tmp/$1" -o "$tmp/full" --bits 2 --dry-run "${@:2}"
    grep -q '^error: not enough disk space' "$tmp/err" && rc=0
    cat "$tmp/out" "$tmp/err" >"$tmp/plan"
}
for name in 8B qwen3-30b-a3b; do
    plan_of "$name"
    check "$name: a dry run tells of seven kinds of matrices" test "$rc $(grep -c ' matrices ' "$tmp/plan")" = '0 7'
done
# 70,000 linears; a layer's experts go to the work folder four at a time. ctx: what one binding of a CPU device holds.
for row in 'kimi-k2.5 23040' 'deepseek-v3 14848'; do
    read -r name matrices <<<"$row"
    for method in gptq rtn; do
        text=()
        if [[ $method == gptq ]]; then # what the model would write itself wants more than 8 GiB
            [[ -d $tmp/$name ]] || python3 "$here/tests/lib/sparse_model.py" "$name" "$tmp/$name"
            cp "$demo/tokenizer.json" "$tmp/$name/"
            text=(--calib "$demo/calib.txt")
        fi
        plan_of "$name" --method $method --ctx 1024 --samples 64 --allow-requantize ${text[@]+"${text[@]}"}
        check "$name, $method: accepted" test "$rc" -eq 0
        check "$name, $method: each kind of expert is one line" test "$(grep -cE "_proj +[0-9]+ x [0-9]+ +$matrices matrices +2 bits" "$tmp/plan")" -eq 3
        check "$name, $method: what all tokens go through stays in 16 bits" grep -qE 'gate_proj .* 16 bits' "$tmp/plan"
        for line in disk 'host memory' 'device memory'; do
            check "$name, $method: it says what it needs: $line" grep -q "^$line " "$tmp/plan"
        done
    done
done
done_testing
