#!/usr/bin/env python3
"""A model folder of a published shape whose weights are a hole in a file: it takes no disk space, and a dry run reads only its
headers.  sparse_model.py SHAPE FOLDER"""
import json, os, struct, sys

# hidden, feed-forward, layers, heads, kv heads, head size, vocabulary, tied, q/k norms
SHAPES = {
    "1B": (2048, 8192, 16, 32, 8, 64, 128256, True, False),  # Llama-3.2-1B
    "3B": (3072, 8192, 28, 24, 8, 128, 128256, True, False),  # Llama-3.2-3B
    "8B": (4096, 14336, 32, 32, 8, 128, 128256, False, False),  # Llama-3.1-8B
    "8B-152k": (4096, 12288, 36, 32, 8, 128, 151936, False, True),  # Qwen3-8B
    "14B": (5120, 17408, 40, 40, 8, 128, 151936, False, True),  # Qwen3-14B
    "32B": (5120, 25600, 64, 64, 8, 128, 151936, False, True),  # Qwen3-32B
    "70B": (8192, 28672, 80, 64, 8, 128, 128256, False, False),  # Llama-3.1-70B
}


def main(name, folder):
    hidden, ffn, layers, heads, kv, dim, vocab, tied, norms = SHAPES[name]
    tensors, at = {}, 0

    def add(tensor, *shape):
        nonlocal at
        size = 2
        for n in shape:
            size *= n
        tensors[tensor + ".weight"] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size

    add("model.embed_tokens", vocab, hidden)
    for i in range(layers):
        block = "model.layers.%d." % i
        for part, shape in (("self_attn.q_proj", (heads * dim, hidden)), ("self_attn.k_proj", (kv * dim, hidden)),
                            ("self_attn.v_proj", (kv * dim, hidden)), ("self_attn.o_proj", (hidden, heads * dim)),
                            ("mlp.gate_proj", (ffn, hidden)), ("mlp.up_proj", (ffn, hidden)),
                            ("mlp.down_proj", (hidden, ffn)), ("input_layernorm", (hidden,)),
                            ("post_attention_layernorm", (hidden,))):
            add(block + part, *shape)
        if norms:
            add(block + "self_attn.q_norm", dim)
            add(block + "self_attn.k_norm", dim)
    add("model.norm", hidden)
    if not tied:
        add("lm_head", vocab, hidden)
    family = "Qwen3" if norms else "Llama"
    config = {"architectures": [family + "ForCausalLM"], "model_type": family.lower(), "hidden_size": hidden,
              "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": heads,
              "num_key_value_heads": kv, "head_dim": dim, "vocab_size": vocab, "max_position_embeddings": 8192,
              "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "rope_scaling": None, "tie_word_embeddings": tied,
              "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "bos_token_id": 0, "eos_token_id": 1,
              "torch_dtype": "bfloat16"}
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    header = json.dumps(tensors).encode()
    header += b" " * (-len(header) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(header)) + header)
        f.truncate(8 + len(header) + at)


if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
    sys.exit("usage: sparse_model.py %s FOLDER" % "|".join(SHAPES))
main(sys.argv[1], sys.argv[2])
