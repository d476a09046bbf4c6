"""Experts of a layer as mlx-lm loads them against those of a compressed-tensors folder of the same codes, each decoded the way its
consumer documents it and sharing nothing with gsq. Standard library only. Usage: consumer_experts.py MLX COMPRESSED_TENSORS

Names are those of mlx-lm's models (mlx_lm/models/MODEL_TYPE.py), which loads strictly: a tensor that its model does not have is an error."""
import json
import os
import sys

from consumer_decode import compressed_tensors, load_folder, mlx, numbers

BLOCK = ("block_sparse_moe.switch_mlp", "block_sparse_moe.experts.%d", {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"})
PLAIN = ("mlp.switch_mlp", "mlp.experts.%d", {})
NAMES = {"mixtral": BLOCK, "granitemoe": BLOCK, "gpt_oss": ("mlp.experts", "mlp.experts.%d", {})}


def main():
    ours, other = sys.argv[1:3]
    with open(os.path.join(ours, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    with open(os.path.join(other, "config.json"), encoding="utf-8") as f:
        other_config = json.load(f)
    tensors, metadata = load_folder(ours)
    singles, _ = load_folder(other)
    assert metadata["format"] == "mlx"
    stack, single, renamed = NAMES.get(config["model_type"], PLAIN)
    n = next(config[k] for k in ("num_experts", "num_local_experts", "n_routed_experts") if k in config)
    compared, kept = 0, 0
    for layer in range(config["num_hidden_layers"]):
        for part in ("gate_proj", "up_proj", "down_proj"):
            module = f"model.layers.{layer}.{stack}.{part}"
            if layer < config.get("first_k_dense_replace", 0):
                assert module + ".weight" not in tensors
                continue
            all_shapes = {k: t for k, t in tensors.items() if k.rpartition(".")[0] == module}
            assert all(t[1][0] == n for t in all_shapes.values()), f"{module}: not {n} experts"
            for expert in range(n):
                # One expert's share of each tensor, as a slice along the first axis gives it.
                one = {k: (t[0], t[1][1:], t[2][len(t[2]) // n * expert:len(t[2]) // n * (expert + 1)]) for k, t in all_shapes.items()}
                name = f"model.layers.{layer}.{single % expert}.{renamed.get(part, part)}"
                got, want = mlx(ours, config, one, module), compressed_tensors(other, other_config, singles, name)
                if want is None:  # in 16 bits: as one tensor where the family has it so, as transformers does
                    assert got is None, f"{module} should be in 16 bits"
                    kept += 1
                    if name + ".weight" in singles:
                        assert one[module + ".weight"] == singles[name + ".weight"], f"{module}, expert {expert}"
                else:
                    assert got == want, f"{module}, expert {expert} differs"
                    compared += len(want)
                if name + ".bias" in singles:
                    assert one[module + ".bias"] == singles[name + ".bias"], f"{module}.bias, expert {expert}"
    # Nothing is left of single experts, but in layers that guess further tokens, which mlx-lm drops.
    for name in tensors:
        words = name.split(".")
        inside = "layers" in words and int(words[words.index("layers") + 1]) < config["num_hidden_layers"]
        assert not inside or "experts" not in words or not words[words.index("experts") + 1].isdigit(), name
    behind = {k for k in singles if ".experts." not in k and ".weight_" not in k and not k.endswith(("input_linear.weight", "output_linear.weight"))}
    assert behind and all(k in tensors and numbers(tensors[k]) == numbers(singles[k]) for k in behind if k.endswith(("norm.weight", "gate.weight")))
    assert compared, "no codes of experts"
    print(f"ok {ours}: {compared} weights equal, {kept} matrices in 16 bits")


main()
