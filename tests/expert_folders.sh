#!/usr/bin/env bash
# Folders of each family with experts: one run's codes in every format that has a place for them evaluate alike and come back unchanged;
# stacked ones (MLX) are decoded by a program of their own; folders in 16 bits have the names that transformers' have.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed"
head -c 400 "$demo/eval.txt" >"$tmp/few.txt"

perplexity() { # MODEL
    must "$gsq" eval "$1" --text "$tmp/few.txt" --ctx 32 --json && field perplexity "$tmp/out"
}
same() { # A B SUFFIX...
    python3 "$here/tests/lib/tensors.py" "$@"
}
to() { # FORMAT FROM OUT
    must "$gsq" convert "$2" -o "$3" --format "$1" --force -q
}
same_names() { # FROM BACK: every tensor has its name, shape and type, but for layers behind the last and what a GGUF's exponents round
    python3 - "$here/tests/lib" "$@" <<'END'
import json, os, sys
sys.path.insert(0, sys.argv[1])
import tensor_file
layers = json.load(open(os.path.join(sys.argv[2], "config.json")))["num_hidden_layers"]
a, b = ({k: t for k, t in tensor_file.load_folder(f).items() if f".layers.{layers}." not in k} for f in sys.argv[2:4])
odd = sorted(a.keys() ^ b.keys()) or [k for k in a if a[k][:2] != b[k][:2]]
odd = odd or [k for k in a if a[k][2] != b[k][2] and not k.endswith((".A_log", "norm.weight"))]
sys.exit(f"{odd[:3]} differ" if odd else 0)
END
}

# What stays of a family's linears by default, and what --keep and --tensor say: a layer's experts in 16 bits, one part of other bits, and
# matrices of these small models whose columns are no whole groups.
for family in mixtral qwen2_moe qwen3_moe olmoe granitemoe granitemoeshared glm4_moe deepseek_v2_lite qwen3_next qwen3_5_moe gpt_oss; do
    model=$tmp/$family one=$tmp/$family-ct
    python3 "$here/tests/lib/random_model.py" $family "$demo" "$model"
    must "$gsq" quantize "$model" -o "$one" --method rtn --bits 2 --group 32 --format compressed-tensors \
        --tensor 'down_proj|w2=4' --keep 'layers\.1\..*experts\.|shared_expert|mlp\.(gate|up|down)_proj|shared_mlp\.out' || continue
    first=$(perplexity "$one")
    case $family in
        qwen3_next | granitemoeshared)
            expect "$family, mlx" 2 'mlx-lm has (other norms and convolutions|no models of this family)' -- "$gsq" convert "$one" -o "$tmp/x" --format mlx
            ;;
        *)
            to mlx "$one" "$tmp/mlx" || continue
            p=$(perplexity "$tmp/mlx")
            check "$family: MLX evaluates to $p, compressed-tensors to $first" test "$p" = "$first"
            [[ $family = qwen3_5_moe ]] || # which mlx-lm renames before it looks for modules
                check "$family: MLX decoded by another program" python3 "$here/tests/consumer_experts.py" "$tmp/mlx" "$one"
            to compressed-tensors "$tmp/mlx" "$tmp/back" &&
                check "$family: compressed-tensors -> MLX -> compressed-tensors keeps every byte" \
                    same "$one" "$tmp/back" .weight_packed .weight_scale .weight_shape .weight .bias .experts.gate_up_proj .experts.down_proj
            ;;
    esac
    if [[ $family = gpt_oss ]]; then
        expect "$family, gptq" 2 'no program reads codes of experts with biases in this format' -- "$gsq" convert "$one" -o "$tmp/x" --format gptq
    else
        to gptq "$one" "$tmp/gptq" && to compressed-tensors "$tmp/gptq" "$tmp/back" &&
            check "$family: by way of gptq every code is the same" same "$one" "$tmp/back" .weight_packed .weight_shape
    fi
    must "$gsq" convert "$model" -o "$tmp/$family.gguf" --type F32 --force -q || continue
    to hf "$tmp/$family.gguf" "$tmp/hf" && check "$family: a GGUF's folder has transformers' tensors" same_names "$model" "$tmp/hf"
done
done_testing
