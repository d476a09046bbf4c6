#!/usr/bin/env python3
"""A tiny model folder of a family with random weights, and the tokenizer of another model: family_folder.py NAME FOLDER
TOKENIZER-FOLDER [KEY=JSON ...].  NAME list: the names.  Weights are F16."""
import json, os, random, shutil, struct, sys

import tensor_file

LAYERS, HIDDEN, HEADS, KV, DIM, FFN = 4, 256, 4, 2, 64, 512
NAMES = {"text": ("model.", "lm_head"), "new": ("model.language_model.", "lm_head"),
         "old": ("language_model.model.", "language_model.lm_head")}


def base(architecture, model_type, **more):
    return dict(dict(architectures=[architecture], model_type=model_type, hidden_size=HIDDEN, intermediate_size=FFN,
                num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=DIM,
                max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act="silu",
                tie_word_embeddings=model_type.startswith("gemma"), torch_dtype="float16"), **more)


def longrope(original):
    return base("Phi3ForCausalLM", "phi3", sliding_window=None, original_max_position_embeddings=original,
                max_position_embeddings=1024, partial_rotary_factor=0.75, rope_scaling=dict(
                    type="longrope", short_factor=[1 + 0.05 * i for i in range(24)],
                    long_factor=[1 + 0.5 * i for i in range(24)]))


# configuration, norms of a block, q/k norms ("head", "whole"), fused matrices, how the tensors are called
FAMILIES = {
    "llama": dict(config=base("LlamaForCausalLM", "llama")),
    "mistral3": dict(config=base("Mistral3ForConditionalGeneration", "mistral", sliding_window=None), names="old"),
    "mistral3-new": dict(config=base("Mistral3ForConditionalGeneration", "mistral", sliding_window=None), names="new"),
    "ministral3": dict(config=base("Mistral3ForConditionalGeneration", "ministral3", sliding_window=None, rope_theta=None,
                                   rope_parameters=dict(rope_type="yarn", type="yarn", rope_theta=20000.0, factor=4.0,
                                                        original_max_position_embeddings=20, beta_fast=32.0, beta_slow=1.0, mscale=1.0,
                                                        mscale_all_dim=1.0, llama_4_scaling_beta=0.3)), names="new"),
    "smollm3": dict(config=base("SmolLM3ForCausalLM", "smollm3", no_rope_layers=[1, 1, 1, 0], use_sliding_window=False)),
    "granite": dict(config=base("GraniteForCausalLM", "granite", embedding_multiplier=4.0, attention_multiplier=0.1,
                                residual_multiplier=0.25, logits_scaling=3.0), embed=0.25),
    "olmo2": dict(config=base("Olmo2ForCausalLM", "olmo2"), norms="post", qk="whole"),
    "olmo3": dict(config=base("Olmo3ForCausalLM", "olmo3", sliding_window=16, rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=128, beta_fast=32, beta_slow=1)), norms="post",
        qk="whole"),
    "olmo3-new": dict(config=base("Olmo3ForCausalLM", "olmo3", sliding_window=16, rope_parameters=dict(
        full_attention=dict(rope_type="yarn", rope_theta=20000.0, factor=4.0, original_max_position_embeddings=128),
        sliding_attention=dict(rope_type="default", rope_theta=20000.0)),
        layer_types=["sliding_attention"] * 3 + ["full_attention"]), norms="post", qk="whole"),
    "gemma3": dict(config=base("Gemma3ForConditionalGeneration", "gemma3_text", sliding_window=16, rope_local_base_freq=5000.0,
                               rope_scaling=dict(rope_type="linear", factor=4.0), query_pre_attn_scalar=DIM,
                               num_hidden_layers=7, hidden_activation="gelu_pytorch_tanh"), norms="gemma", qk="head", mean=0.0,
                   embed=0.06, names="new", outer="gemma3"),
    "glm4": dict(config=base("Glm4ForCausalLM", "glm4", partial_rotary_factor=0.5, attention_bias=True), norms="glm",
                 fused=("gate_up",), bias=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    # Windows within the original context, and longer ones; llama.cpp looks for tokens of its own in models called phi-3.
    "longrope": dict(config=longrope(512), fused=("qkv", "gate_up")),
    "longrope-long": dict(config=longrope(32), fused=("qkv", "gate_up")),
    "phi4": dict(config=base("Phi3ForCausalLM", "phi3", sliding_window=None, original_max_position_embeddings=512),
                 fused=("qkv", "gate_up")),
    "gemma2": dict(config=base("Gemma2ForCausalLM", "gemma2", sliding_window=16, query_pre_attn_scalar=DIM,
                               attn_logit_softcapping=1.5, final_logit_softcapping=4.0,
                               hidden_activation="gelu_pytorch_tanh"), norms="gemma", mean=0.0, embed=0.06),
}
NORMS = {"glm": ("input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"),
         "gemma": ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
         "pre": ("input_layernorm", "post_attention_layernorm"), "post": ("post_attention_layernorm", "post_feedforward_layernorm")}


def values(n, scale, add, rng):
    """n numbers in F16, of 256 different ones that lie as a normal distribution does."""
    table = [struct.pack("<e", add + scale * rng.gauss(0, 1)) for _ in range(256)]
    raw, out = rng.randbytes(n), bytearray(2 * n)
    out[0::2] = raw.translate(bytes(t[0] for t in table))
    out[1::2] = raw.translate(bytes(t[1] for t in table))
    return bytes(out)


def tensors(f, vocab):
    """name, shape, spread, mean."""
    c, prefix, head = f["config"], *NAMES[f.get("names", "text")]
    norms, mean, out = dict.fromkeys(NORMS[f.get("norms", "pre")], HIDDEN), f.get("mean", 1.0), []
    out.append((prefix + "embed_tokens.weight", (vocab, HIDDEN), f.get("embed", 1.0), 0))
    for i in range(c["num_hidden_layers"]):
        block = "%slayers.%d." % (prefix, i)
        qkv = {"self_attn.q_proj": HEADS * DIM, "self_attn.k_proj": KV * DIM, "self_attn.v_proj": KV * DIM}
        up = {"mlp.gate_proj": FFN, "mlp.up_proj": FFN}
        fused = f.get("fused", "")
        if "qkv" in fused:
            qkv = {"self_attn.qkv_proj": (HEADS + 2 * KV) * DIM}
        if "gate_up" in fused:
            up = {"mlp.gate_up_proj": 2 * FFN}
        for name, rows in list(qkv.items()) + list(up.items()):
            out.append((block + name + ".weight", (rows, HIDDEN), HIDDEN**-0.5, 0))
            if name in f.get("bias", ()):
                out.append((block + name + ".bias", (rows,), 0.1, 0))
        out.append((block + "self_attn.o_proj.weight", (HIDDEN, HEADS * DIM), HIDDEN**-0.5, 0))
        out.append((block + "mlp.down_proj.weight", (HIDDEN, FFN), FFN**-0.5, 0))
        for name, n in norms.items():
            out.append((block + name + ".weight", (n,), 0.2, mean))
        if "qk" in f:
            heads = {"head": (DIM, DIM), "whole": (HEADS * DIM, KV * DIM)}[f["qk"]]
            for name, n in zip("qk", heads):
                out.append((block + "self_attn.%s_norm.weight" % name, (n,), 0.2, mean))
    out.append((prefix + "norm.weight", (HIDDEN,), 0.2, mean))
    if not c["tie_word_embeddings"]:
        out.append((head + ".weight", (vocab, HIDDEN), 2 * HIDDEN**-0.5, 0))
    if f.get("names", "text") != "text":
        out.append(("vision_tower.layers.0.attention.q_proj.weight", (32, 48), 0.1, 0))
        out.append(("vision_tower.patch_conv.weight", (8, 3, 2, 2), 0.1, 0))
        out.append(("multi_modal_projector.linear_1.weight", (40, 32), 0.1, 0))
    return out


def main(name, folder, tokenizer, *keys):
    f = FAMILIES[name]
    c = f["config"]
    for key in keys:
        c[key.split("=", 1)[0]] = json.loads(key.split("=", 1)[1])
    theirs = json.load(open(os.path.join(tokenizer, "config.json")))
    c.update({k: theirs[k] for k in ("vocab_size", "bos_token_id", "eos_token_id")})
    os.makedirs(folder, exist_ok=True)
    if f.get("names", "text") != "text":
        outer = {k: c.pop(k) for k in ("architectures", "torch_dtype")}
        json.dump({"image_size": 32}, open(os.path.join(folder, "preprocessor_config.json"), "w"))
        c = dict(outer, model_type=f.get("outer", "mistral3"), image_token_index=10, text_config=c,
                 vision_config={"hidden_size": 48, "model_type": "pixtral"})
    json.dump(c, open(os.path.join(folder, "config.json"), "w"), indent=1)
    for file in os.listdir(tokenizer):
        if file.startswith("tokenizer") or file == "generation_config.json":
            shutil.copy(os.path.join(tokenizer, file), folder)
    rng, whole = random.Random(name), {}
    for tensor, shape, spread, mean in tensors(f, theirs["vocab_size"]):
        n = 1
        for k in shape:
            n *= k
        wide = tensor.startswith("vision") and len(shape) == 2  # F32, which only the text part is not left in
        raw = values(n, spread, mean, rng)
        raw = b"".join(struct.pack("<f", *struct.unpack_from("<e", raw, 2 * i)) for i in range(n)) if wide else raw
        whole[tensor] = ("F32" if wide else "F16", shape, raw)
    tensor_file.save(os.path.join(folder, "model.safetensors"), whole)


if __name__ == "__main__":
    if sys.argv[1] == "list":
        print(" ".join(FAMILIES))
    else:
        main(*sys.argv[1:])
