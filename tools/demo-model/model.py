# SPDX-License-Identifier: Apache-2.0
"""The demo model in PyTorch: a small Llama, and its files.

Written for Debian's python3-torch (1.13, CPU). Linears work on 2-D inputs
because only those reach the fast matrix product there.
"""

import json
import struct

import torch
import torch.nn.functional as F

import bpe

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 768,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "bos_token_id": 766,
    "eos_token_id": 767,
    "initializer_range": 0.02,
    "pretraining_tp": 1,
    "torch_dtype": "float16",
    "use_cache": True,
}

LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
           "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
           "mlp.down_proj")


def linear_names(config=CONFIG):
    """The tensors that are quantized."""
    return [f"model.layers.{i}.{name}.weight"
            for i in range(config["num_hidden_layers"]) for name in LINEARS]


def shapes(config=CONFIG):
    """Tensor name -> shape, in file order."""
    d, ff = config["hidden_size"], config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    linear = dict(zip(LINEARS, ((q, d), (kv, d), (kv, d), (d, q), (ff, d),
                                (ff, d), (d, ff))))
    out = {"model.embed_tokens.weight": (config["vocab_size"], d)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        out[layer + "input_layernorm.weight"] = (d,)
        for name in LINEARS[:4]:
            out[f"{layer}{name}.weight"] = linear[name]
        out[layer + "post_attention_layernorm.weight"] = (d,)
        for name in LINEARS[4:]:
            out[f"{layer}{name}.weight"] = linear[name]
    out["model.norm.weight"] = (d,)
    return out


def init_weights(config=CONFIG):
    weights = {}
    depth = config["num_hidden_layers"]
    for name, shape in shapes(config).items():
        if len(shape) == 1:
            w = torch.ones(shape)
        elif "embed" in name:
            w = torch.randn(shape) * 0.02
        else:
            # Variance-preserving; what is added to the residual stream
            # starts smaller the more such additions there are.
            w = torch.randn(shape) * shape[1] ** -0.5
            if "o_proj" in name or "down_proj" in name:
                w *= (2 * depth) ** -0.5
        weights[name] = w.requires_grad_()
    return weights


class Attention(torch.autograd.Function):
    """Causal softmax attention with a hand-written backward pass. Autograd's
    is correct too, but it copies the big matrices, which costs more than
    the products.

    q is [n, r*t, d]: the r query heads that share a key head lie below each
    other, so that k and v, [n, t, d], need not be repeated."""

    @staticmethod
    def forward(ctx, q, k, v, mask):
        ctx.scale = q.shape[2] ** -0.5
        p = torch.bmm(q * ctx.scale, k.transpose(1, 2))
        p = torch.softmax(p.add_(mask), dim=2)
        ctx.save_for_backward(q, k, v, p)
        return torch.bmm(p, v)

    @staticmethod
    def backward(ctx, grad):
        q, k, v, p = ctx.saved_tensors
        grad = grad.contiguous()
        dv = torch.bmm(p.transpose(1, 2), grad)
        dp = torch.bmm(grad, v.transpose(1, 2))
        ds = torch._softmax_backward_data(dp, p, 2, torch.float32)
        dq = torch.bmm(ds, k) * ctx.scale
        dk = torch.bmm(ds.transpose(1, 2), q) * ctx.scale
        return dq, dk, dv, None


class Llama:
    """Forward pass over a dict of weights under Hugging Face's names."""

    def __init__(self, weights, config=CONFIG):
        self.w = weights
        self.config = config
        self.tables = {}

    def rope_and_mask(self, t):
        if t not in self.tables:
            c = self.config
            half = c["head_dim"] // 2
            freq = c["rope_theta"] ** -(torch.arange(half).double() / half)
            angle = torch.arange(t).double()[:, None] * freq[None, :]
            angle = torch.cat([angle, angle], dim=1).float()
            mask = torch.full((t, t), float("-inf")).triu(1)
            groups = c["num_attention_heads"] // c["num_key_value_heads"]
            device = self.w["model.norm.weight"].device
            self.tables[t] = (angle.cos()[None, :, None, :].to(device),
                              angle.sin()[None, :, None, :].to(device),
                              mask.repeat(groups, 1).to(device))
        return self.tables[t]

    def norm(self, x, name):
        scale = torch.rsqrt(x.pow(2).mean(1, keepdim=True)
                            + self.config["rms_norm_eps"])
        return x * scale * self.w[name]

    def attention(self, x, layer, b, t):
        c, w = self.config, self.w
        heads, kv, d = (c["num_attention_heads"], c["num_key_value_heads"],
                        c["head_dim"])
        cos, sin, mask = self.rope_and_mask(t)

        def project(name, count):
            y = x @ w[f"{layer}self_attn.{name}.weight"].t()
            return y.view(b, t, count, d)

        def rope(y):
            lo, hi = y.chunk(2, dim=3)
            return y * cos + torch.cat([-hi, lo], dim=3) * sin

        q = rope(project("q_proj", heads))
        k = rope(project("k_proj", kv))
        v = project("v_proj", kv)
        # Query head h uses key head h // (heads / kv).
        q = q.permute(0, 2, 1, 3).reshape(b * kv, heads // kv * t, d)
        k = k.permute(0, 2, 1, 3).reshape(b * kv, t, d)
        v = v.permute(0, 2, 1, 3).reshape(b * kv, t, d)
        o = Attention.apply(q, k, v, mask)
        o = o.view(b, heads, t, d).permute(0, 2, 1, 3).reshape(b * t, -1)
        return o @ w[layer + "self_attn.o_proj.weight"].t()

    def mlp(self, x, layer):
        gate = x @ self.w[layer + "mlp.gate_proj.weight"].t()
        up = x @ self.w[layer + "mlp.up_proj.weight"].t()
        return ((F.silu(gate) * up)
                @ self.w[layer + "mlp.down_proj.weight"].t())

    def logits(self, ids):
        """ids [b, t] -> logits [b * t, vocab]."""
        b, t = ids.shape
        embed = self.w["model.embed_tokens.weight"]
        x = F.embedding(ids.reshape(-1), embed)
        for i in range(self.config["num_hidden_layers"]):
            layer = f"model.layers.{i}."
            h = self.norm(x, layer + "input_layernorm.weight")
            x = x + self.attention(h, layer, b, t)
            h = self.norm(x, layer + "post_attention_layernorm.weight")
            x = x + self.mlp(h, layer)
        return self.norm(x, "model.norm.weight") @ embed.t()

    def loss(self, ids):
        """Mean negative log-likelihood of ids[:, 1:]."""
        logits = self.logits(ids[:, :-1])
        return F.cross_entropy(logits, ids[:, 1:].reshape(-1))


# --------------------------------------------------------------------------
# Files

def save_safetensors(path, weights, config=CONFIG):
    header = {"__metadata__": {"format": "pt"}}
    data = b""
    for name in shapes(config):
        raw = weights[name].detach().half().cpu().numpy().tobytes()
        header[name] = {"dtype": "F16", "shape": list(weights[name].shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def load_safetensors(path):
    """The tensors in fp32."""
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(size))
        data = bytearray(f.read())
    header.pop("__metadata__", None)
    out = {}
    for name, entry in header.items():
        assert entry["dtype"] == "F16"
        lo, hi = entry["data_offsets"]
        flat = torch.frombuffer(data, dtype=torch.float16,
                                count=(hi - lo) // 2, offset=lo)
        out[name] = flat.reshape(entry["shape"]).float()
    return out


def write_json(path, value, indent=2):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=indent, ensure_ascii=False)
        f.write("\n")


def save_model(folder, weights, tokenizer, config=CONFIG):
    assert tokenizer.bos == config["bos_token_id"]
    assert tokenizer.eos + 1 == config["vocab_size"]
    save_safetensors(folder / "model.safetensors", weights, config)
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer.json", tokenizer.to_json(), indent=1)
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bpe.BOS,
        "eos_token": bpe.EOS,
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config["max_position_embeddings"],
    })
    write_json(folder / "generation_config.json", {
        "_from_model_config": True,
        "bos_token_id": config["bos_token_id"],
        "eos_token_id": config["eos_token_id"],
    })
