#!/usr/bin/env python3
"""sparse_model.py NAME FOLDER [--layers N] [--dense N] [--experts N] [--vocab N] [--values N]: a model folder of full size whose
weights are holes. Headers, index and config.json are as released; data take no room on disk and read as zeros. NAME: a dense shape
(1B, 3B, 8B, 8B-152k, 14B, 32B, 70B), qwen3-30b-a3b, deepseek-v3 or kimi-k2.5. --layers, of which the first --dense have no
experts, --experts, --vocab: other numbers. --values N, of kimi-k2.5: what all tokens go through and the first N experts of each layer
have random values (the same in every run), and every token chooses these N. Standard library only."""
import json
import os
import random
import re
import struct
import sys

SHARD = 5_000_000_000
SIZE = {"BF16": 2, "F32": 4, "I32": 4, "F8_E4M3": 1}


SIGNED = bytes([0x3C] * 128 + [0xBC] * 128)


def values(name, dtype, size, experts):
    """Random ones of a tensor: weights of 1/128 to 1/32 and either sign; scales that give INT4 the same. b"": it stays a hole."""
    expert = re.search(r"\.experts\.(\d+)\.", name)
    rand = random.Random(name).randbytes
    if "norm" in name:
        return b"\x80\x3f" * (size // 2)
    if name.endswith("e_score_correction_bias"):
        return struct.pack("<%df" % (size // 4), *[float(i < experts) for i in range(size // 4)])
    if (expert and int(expert[1]) >= experts) or name.endswith("weight_shape") or not name.startswith("language_model."):
        return b""
    if dtype == "I32":
        return rand(size)
    value = bytearray(size)
    value[0::2] = rand(size // 2)
    value[1::2] = b"\x3b" * (size // 2) if name.endswith("weight_scale") else rand(size // 2).translate(SIGNED)
    return bytes(value)


class Folder:
    """Tensors in the order given, in shards that a header begins; what has values lies together behind the hole."""

    def __init__(self, path, experts=0):
        self.path, self.shards, self.values, self.at, self.experts = path, [[]], [[]], 0, experts

    def add(self, name, dtype, *shape):
        size = SIZE[dtype]
        for n in shape:
            size *= n
        if self.at and self.at + size > SHARD:
            self.shards.append([])
            self.values.append([])
            self.at = 0
        self.shards[-1].append((name, dtype, shape, self.at, self.at + size))
        self.at += size

    def pair(self, name, a, b):
        """Two integers, in the shard of what was added last."""
        self.values[-1].append((name, struct.pack("<2i", a, b)))

    def close(self):
        names, total = {}, 0
        for i, shard in enumerate(self.shards):
            file = "model-%05d-of-%05d.safetensors" % (i + 1, len(self.shards))
            data = b""
            end = shard[-1][4]
            for n, value in self.values[i]:
                at = end + len(data)
                shard.append((n, "I32", (2,), at, at + len(value)))
                data += value
            header = {n: {"dtype": d, "shape": s, "data_offsets": [a, b]} for n, d, s, a, b in shard}
            text = json.dumps(header, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            with open(os.path.join(self.path, file), "wb") as f:
                f.write(struct.pack("<Q", len(text)) + text)
                f.seek(8 + len(text) + end)
                f.write(data)
                for n, d, _, a, b in shard if self.experts else []:
                    value = values(n, d, b - a, self.experts)
                    if value:
                        f.seek(8 + len(text) + a)
                        f.write(value)
                f.truncate(8 + len(text) + shard[-1][4])
            total += shard[-1][4]
            names.update((n, file) for n, *_ in shard)
        with open(os.path.join(self.path, "model.safetensors.index.json"), "w") as f:
            json.dump({"metadata": {"total_size": total}, "weight_map": names}, f)


def bf16(f, name, rows, cols):
    f.add(name + ".weight", "BF16", rows, cols)


def fp8(f, name, rows, cols):
    f.add(name + ".weight", "F8_E4M3", rows, cols)
    f.add(name + ".weight_scale_inv", "F32", -(-rows // 128), -(-cols // 128))


def int4(f, name, rows, cols):
    f.add(name + ".weight_packed", "I32", rows, cols // 8)
    f.add(name + ".weight_scale", "BF16", rows, cols // 32)
    f.pair(name + ".weight_shape", rows, cols)


def ffn(f, name, hidden, width, linear):
    linear(f, name + ".gate_proj", width, hidden)
    linear(f, name + ".up_proj", width, hidden)
    linear(f, name + ".down_proj", hidden, width)


def llama(f, c):
    """Llama's and Qwen3's shape, with experts or without."""
    d, hidden = c["head_dim"], c["hidden_size"]
    f.add("model.embed_tokens.weight", "BF16", c["vocab_size"], hidden)
    for layer in range(c["num_hidden_layers"]):
        p = "model.layers.%d." % layer
        for name, heads in (("q", "num_attention_heads"), ("k", "num_key_value_heads"), ("v", "num_key_value_heads")):
            bf16(f, p + "self_attn.%s_proj" % name, c[heads] * d, hidden)
        bf16(f, p + "self_attn.o_proj", hidden, c["num_attention_heads"] * d)
        if c["model_type"].startswith("qwen3"):
            f.add(p + "self_attn.q_norm.weight", "BF16", d)
            f.add(p + "self_attn.k_norm.weight", "BF16", d)
        f.add(p + "input_layernorm.weight", "BF16", hidden)
        f.add(p + "post_attention_layernorm.weight", "BF16", hidden)
        if "num_experts" not in c:
            ffn(f, p + "mlp", hidden, c["intermediate_size"], bf16)
            continue
        bf16(f, p + "mlp.gate", c["num_experts"], hidden)
        for e in range(c["num_experts"]):
            ffn(f, p + "mlp.experts.%d" % e, hidden, c["moe_intermediate_size"], bf16)
    f.add("model.norm.weight", "BF16", hidden)
    if not c["tie_word_embeddings"]:
        bf16(f, "lm_head", c["vocab_size"], hidden)


def mla(f, c, prefix, head, dense, expert):
    """DeepSeek-V3's shape; dense: how what is no expert is stored."""
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    qk, rope, v = c["qk_nope_head_dim"] + c["qk_rope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    rq, rkv = c["q_lora_rank"], c["kv_lora_rank"]
    f.add(prefix + "embed_tokens.weight", "BF16", c["vocab_size"], hidden)
    for layer in range(c["num_hidden_layers"]):
        p = prefix + "layers.%d." % layer
        dense(f, p + "self_attn.q_a_proj", rq, hidden)
        dense(f, p + "self_attn.q_b_proj", heads * qk, rq)
        dense(f, p + "self_attn.kv_a_proj_with_mqa", rkv + rope, hidden)
        dense(f, p + "self_attn.kv_b_proj", heads * (c["qk_nope_head_dim"] + v), rkv)
        dense(f, p + "self_attn.o_proj", hidden, heads * v)
        for name, n in (("self_attn.q_a_layernorm", rq), ("self_attn.kv_a_layernorm", rkv), ("input_layernorm", hidden)):
            f.add(p + name + ".weight", "BF16", n)
        f.add(p + "post_attention_layernorm.weight", "BF16", hidden)
        if layer < c["first_k_dense_replace"]:
            ffn(f, p + "mlp", hidden, c["intermediate_size"], dense)
            continue
        bf16(f, p + "mlp.gate", c["n_routed_experts"], hidden)
        f.add(p + "mlp.gate.e_score_correction_bias", "F32", c["n_routed_experts"])
        ffn(f, p + "mlp.shared_experts", hidden, c["n_shared_experts"] * c["moe_intermediate_size"], dense)
        for e in range(c["n_routed_experts"]):
            ffn(f, p + "mlp.experts.%d" % e, hidden, c["moe_intermediate_size"], expert)
    f.add(prefix + "norm.weight", "BF16", hidden)
    bf16(f, head, c["vocab_size"], hidden)


# hidden, feed-forward, layers, heads, kv heads, head size, vocabulary, tied, family
DENSE = {
    "1B": (2048, 8192, 16, 32, 8, 64, 128256, True, "Llama"),  # Llama-3.2-1B
    "3B": (3072, 8192, 28, 24, 8, 128, 128256, True, "Llama"),  # Llama-3.2-3B
    "8B": (4096, 14336, 32, 32, 8, 128, 128256, False, "Llama"),  # Llama-3.1-8B
    "8B-152k": (4096, 12288, 36, 32, 8, 128, 151936, False, "Qwen3"),  # Qwen3-8B
    "14B": (5120, 17408, 40, 40, 8, 128, 151936, False, "Qwen3"),  # Qwen3-14B
    "32B": (5120, 25600, 64, 64, 8, 128, 151936, False, "Qwen3"),  # Qwen3-32B
    "70B": (8192, 28672, 80, 64, 8, 128, 128256, False, "Llama"),  # Llama-3.1-70B
}


def dense(name):
    hidden, width, layers, heads, kv, d, vocab, tied, family = DENSE[name]
    return {
        "architectures": [family + "ForCausalLM"], "model_type": family.lower(), "torch_dtype": "bfloat16", "hidden_size": hidden,
        "intermediate_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
        "head_dim": d, "vocab_size": vocab, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "rope_scaling": None, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": tied,
        "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip


QWEN3 = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "torch_dtype": "bfloat16", "hidden_size": 2048,
    "intermediate_size": 6144, "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "vocab_size": 151936, "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "rope_scaling": None, "hidden_act": "silu", "attention_bias": False,
    "use_sliding_window": False, "sliding_window": None, "max_window_layers": 48, "tie_word_embeddings": False,
    "bos_token_id": 151643, "eos_token_id": 151645,
}  # fmt: skip
DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "torch_dtype": "bfloat16", "hidden_size": 7168,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 128,
    "num_key_value_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 3,
    "moe_layer_freq": 1, "n_group": 8, "topk_group": 4, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
    "norm_topk_prob": True, "routed_scaling_factor": 2.5, "vocab_size": 129280, "max_position_embeddings": 163840,
    "rms_norm_eps": 1e-06, "rope_theta": 10000, "hidden_act": "silu", "attention_bias": False, "tie_word_embeddings": False,
    "num_nextn_predict_layers": 1, "bos_token_id": 0, "eos_token_id": 1,
    "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
                     "mscale": 1.0, "mscale_all_dim": 1.0},
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
}  # fmt: skip
KIMI = dict(
    DEEPSEEK, architectures=["DeepseekV3ForCausalLM"], model_type="kimi_k2", num_attention_heads=64, num_key_value_heads=64,
    n_routed_experts=384, first_k_dense_replace=1, n_group=1, topk_group=1, routed_scaling_factor=2.827, vocab_size=163840,
    max_position_embeddings=262144, rms_norm_eps=1e-05, rope_theta=50000.0, num_nextn_predict_layers=0, bos_token_id=163584,
    eos_token_id=163585,
    rope_scaling={"type": "yarn", "factor": 64.0, "original_max_position_embeddings": 4096, "beta_fast": 32.0, "beta_slow": 1.0,
                  "mscale": 1.0, "mscale_all_dim": 1.0},
    quantization_config={
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "kv_cache_scheme": None,
        "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"],
        "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": None, "output_activations": None, "weights": {
            "num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "dynamic": False,
            "actorder": None}}}})  # fmt: skip

EXPERTS = {"qwen3-30b-a3b": QWEN3, "deepseek-v3": DEEPSEEK, "kimi-k2.5": KIMI}
if len(sys.argv) < 3 or sys.argv[1] not in [*DENSE, *EXPERTS]:
    sys.exit("usage: sparse_model.py %s FOLDER [--layers N] [--dense N] [--experts N] [--vocab N] [--values N]" % "|".join([*DENSE, *EXPERTS]))
args = dict(zip(sys.argv[3::2], map(int, sys.argv[4::2])))
name, path = sys.argv[1:3]
os.makedirs(path)
config = dict(EXPERTS[name]) if name in EXPERTS else dense(name)
config["num_hidden_layers"] = args.get("--layers", config["num_hidden_layers"])
if "--dense" in args:
    config["first_k_dense_replace"] = args["--dense"]
if "--vocab" in args:
    config.update(vocab_size=args["--vocab"], bos_token_id=0, eos_token_id=1)
if "--experts" in args:
    config["num_experts" if "num_experts" in config else "n_routed_experts"] = args["--experts"]
folder = Folder(path, args.get("--values", 0))
if name == "deepseek-v3":
    mla(folder, config, "model.", "lm_head", fp8, fp8)
elif name == "kimi-k2.5":
    mla(folder, config, "language_model.model.", "language_model.lm_head", bf16, int4)
    for i in range(27):  # what carries over
        bf16(folder, "vision_tower.encoder.blocks.%d.wqkv" % i, 3456, 1152)
    bf16(folder, "mm_projector.proj.0", 4608, 4608)
    config = {"architectures": ["KimiK25ForConditionalGeneration"], "model_type": "kimi_k25", "dtype": "bfloat16",
              "text_config": config, "tie_word_embeddings": False}  # fmt: skip
else:
    llama(folder, config)
folder.close()
with open(os.path.join(path, "config.json"), "w") as f:
    json.dump(config, f, indent=1)
