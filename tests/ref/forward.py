#!/usr/bin/env python3
"""The perplexity of a tiny model folder with experts, in double precision and in the plainest order: what config.json and the tensors say,
read by a second reader. forward.py FOLDER CTX IDS: ids of a text as JSON, [2045, 17, ...], cut into windows of CTX of which
the first position is not scored. Families of tests/lib/random_model.py. Standard library only, slow: some hundred tokens."""
import json
import math
import os
import struct
import sys
from operator import mul

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tensor_file

folder, ctx, ids = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
with open(os.path.join(folder, "config.json")) as f:
    c = json.load(f)
raw, read = tensor_file.load_folder(folder), {}
D, H, L = c["hidden_size"], c["num_attention_heads"], c["num_hidden_layers"]
KV, eps, kind = c["num_key_value_heads"], c["rms_norm_eps"], c["model_type"]
used = c["num_experts_per_tok"]
mla = c.get("kv_lora_rank")
dim = c["qk_nope_head_dim"] + c["qk_rope_head_dim"] if mla else c["head_dim"]
turned = c["qk_rope_head_dim"] if mla else int(dim * c.get("partial_rotary_factor", 1))
scaling = c.get("rope_scaling") or {}


def numbers(name):
    dtype, shape, data = raw[name]
    if dtype == "BF16":
        return shape, [struct.unpack("<f", b"\0\0" + data[i : i + 2])[0] for i in range(0, len(data), 2)]
    n = {"F32": "f", "F16": "e"}[dtype]
    return shape, struct.unpack("<%d%s" % (len(data) // struct.calcsize(n), n), data)


def vector(name):
    if name not in read:
        read[name] = numbers(name)[1] if name in raw else None
    return read[name]


def matrix(name):
    if name not in read:
        (rows, cols), v = numbers(name)
        read[name] = [v[r * cols : (r + 1) * cols] for r in range(rows)]
    return read[name]


def times(w, x, bias=None):
    y = [sum(map(mul, row, x)) for row in w]
    return [a + b for a, b in zip(y, bias)] if bias else y


def norm(x, w):
    r = 1 / math.sqrt(sum(v * v for v in x) / len(x) + eps)
    return [v * r * a for v, a in zip(x, w)]


def silu(v):
    return v / (1 + math.exp(-v))


def plus(a, b, by=1.0):
    return [x + by * y for x, y in zip(a, b)]


# ---- rotary embeddings

factor, original = scaling.get("factor", 1), scaling.get("original_max_position_embeddings")


def mscale(m):
    return 0.1 * m * math.log(factor) + 1


def frequency(i):
    f = c["rope_theta"] ** (-2 * i / turned)
    if not scaling:
        return f
    low, high = (
        turned * math.log(original / (n * 2 * math.pi)) / (2 * math.log(c["rope_theta"]))
        for n in (scaling["beta_fast"], scaling["beta_slow"])
    )
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, turned - 1)
    ramp = min(max((i - low) / max(0.001, high - low), 0), 1)
    return f / factor * ramp + f * (1 - ramp)


turn_by, scale = 1.0, dim**-0.5
if "mscale_all_dim" in scaling:
    turn_by = mscale(scaling["mscale"]) / mscale(scaling["mscale_all_dim"])
    scale *= mscale(scaling["mscale_all_dim"]) ** 2 if mla else 1
elif scaling:
    turn_by = mscale(1)
scale = c.get("attention_multiplier", scale)
frequencies = [frequency(i) for i in range(turned // 2)]


def rope(x, at):
    """The first `turned` numbers of a head: pairs side by side in latent attention, else halves."""
    y = list(x)
    for i, f in enumerate(frequencies):
        a, b = (2 * i, 2 * i + 1) if mla else (i, i + turned // 2)
        cos, sin = turn_by * math.cos(at * f), turn_by * math.sin(at * f)
        y[a], y[b] = x[a] * cos - x[b] * sin, x[a] * sin + x[b] * cos
    return y


# ---- the halves of a layer


def cut(x, n):
    return [x[i : i + n] for i in range(0, len(x), n)]


def latent_heads(p, x, at):
    nope, values = c["qk_nope_head_dim"], c["v_head_dim"]
    if c["q_lora_rank"]:
        q = norm(times(matrix(p + "q_a_proj.weight"), x), vector(p + "q_a_layernorm.weight"))
        q = times(matrix(p + "q_b_proj.weight"), q)
    else:
        q = times(matrix(p + "q_proj.weight"), x)
    both = times(matrix(p + "kv_a_proj_with_mqa.weight"), x)
    kv = times(matrix(p + "kv_b_proj.weight"), norm(both[:mla], vector(p + "kv_a_layernorm.weight")))
    pe = rope(both[mla:], at)
    q = [h[:nope] + rope(h[nope:], at) for h in cut(q, dim)]
    kv = cut(kv, nope + values)
    return q, [h[:nope] + pe for h in kv], [h[nope:] for h in kv]


def heads(p, x, at):
    q, k, v = (
        cut(times(matrix(f"{p}{n}_proj.weight"), x, vector(f"{p}{n}_proj.bias")), dim) for n in ("q", "k", "v")
    )
    if vector(p + "q_norm.weight"):
        q = [norm(h, vector(p + "q_norm.weight")) for h in q]
        k = [norm(h, vector(p + "k_norm.weight")) for h in k]
    return [rope(h, at) for h in q], [rope(h, at) for h in k], v


def attention(layer, xs):
    p = f"model.layers.{layer}.self_attn."
    made = [(latent_heads if mla else heads)(p, x, at) for at, x in enumerate(xs)]
    sinks = vector(p + "sinks")
    slides = "layer_types" in c and c["layer_types"][layer] == "sliding_attention"
    out = []
    for t, (q, _, _) in enumerate(made):
        y = []
        for h in range(H):
            g = h * len(made[0][1]) // H
            first = max(0, t - c["sliding_window"] + 1) if slides else 0
            s = [scale * sum(map(mul, q[h], made[j][1][g])) for j in range(first, t + 1)]
            top = max(s + ([sinks[h]] if sinks else []))
            e = [math.exp(v - top) for v in s]
            total = sum(e) + (math.exp(sinks[h] - top) if sinks else 0)
            for i in range(len(made[0][2][g])):
                y.append(sum(w * made[first + j][2][g][i] for j, w in enumerate(e)) / total)
        out.append(times(matrix(p + "o_proj.weight"), y, vector(p + "o_proj.bias")))
    return out


def best(scores, n):
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:n]


def route(p, x):
    """[(expert, weight)] of one token."""
    if kind == "gpt_oss":
        z = times(matrix(p + "router.weight"), x, vector(p + "router.bias"))
    elif kind.startswith("granitemoe"):
        z = times(matrix(p + "router.layer.weight"), x)
    else:
        z = times(matrix(p + "gate.weight"), x)
    top = max(z)
    if kind == "gpt_oss" or kind.startswith("granitemoe"):
        chosen = best(z, used)
        e = [math.exp(z[i] - top) for i in chosen]
        return [(i, v / sum(e)) for i, v in zip(chosen, e)]
    if kind == "glm4_moe":
        probability = [1 / (1 + math.exp(-v)) for v in z]
        scores = plus(probability, vector(p + "gate.e_score_correction_bias"))
    else:
        e = [math.exp(v - top) for v in z]
        scores = probability = [v / sum(e) for v in e]
    if c.get("topk_method") == "group_limited_greedy":
        n = len(z) // c["n_group"]
        kept = best([max(g) for g in cut(scores, n)], c["topk_group"])
        scores = [v if i // n in kept else -math.inf for i, v in enumerate(scores)]
    chosen = best(scores, used)
    total = sum(probability[i] for i in chosen) if c["norm_topk_prob"] else 1
    return [(i, probability[i] / total * c["routed_scaling_factor"]) for i in chosen]


def glu(gate, up, down, x):
    return times(down, [silu(a) * b for a, b in zip(times(gate, x), times(up, x))])


def stacked(name, expert):
    """One expert's matrix of a tensor [experts, rows, columns]."""
    at = (name, expert)
    if at not in read:
        (n, rows, cols), v = raw[name][1], numbers(name)[1] if name not in read else read[name]
        read[name] = v
        begin = expert * rows * cols
        read[at] = [v[begin + r * cols : begin + (r + 1) * cols] for r in range(rows)]
    return read[at]


def mxfp4(name, expert):
    """[rows, columns] of NAME_blocks [experts, rows, columns / 32, 16] and NAME_scales [experts, rows, columns / 32]."""
    at = (name, expert)
    if at not in read:
        values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
        (_, rows, groups, _), blocks = raw[name + "_blocks"][1:]
        scales, made = raw[name + "_scales"][2], []
        for r in range(rows):
            row = []
            for g in range(groups):
                i = (expert * rows + r) * groups + g
                for byte in blocks[16 * i : 16 * i + 16]:
                    for code in (byte & 15, byte >> 4):
                        row.append((-1 if code & 8 else 1) * values[code & 7] * 2.0 ** (scales[i] - 127))
            made.append(row)
        read[at] = made
    return read[at]


def oss_expert(p, expert, x):
    name, width = p + "experts.", len(vector(p + "experts.down_proj_bias")) // c["num_local_experts"]
    if name + "gate_up_proj_blocks" in raw:
        both, down = (mxfp4(name + n, expert) for n in ("gate_up_proj", "down_proj"))
    else:
        both, down = (list(zip(*stacked(name + n, expert))) for n in ("gate_up_proj", "down_proj"))
    rows = len(both)
    made = times(both, x, vector(name + "gate_up_proj_bias")[expert * rows : (expert + 1) * rows])
    gate, up = [min(v, 7) for v in made[0::2]], [min(max(v, -7), 7) for v in made[1::2]]
    act = [(u + 1) * g / (1 + math.exp(-1.702 * g)) for g, u in zip(gate, up)]
    return times(down, act, vector(name + "down_proj_bias")[expert * width : (expert + 1) * width])


def expert_of(p, expert, x):
    if kind == "gpt_oss":
        return oss_expert(p, expert, x)
    if kind.startswith("granitemoe"):
        both = stacked(p + "input_linear.weight", expert)
        half = len(both) // 2
        return glu(both[:half], both[half:], stacked(p + "output_linear.weight", expert), x)
    return glu(*(matrix(f"{p}experts.{expert}.{n}_proj.weight") for n in ("gate", "up", "down")), x)


def second_half(layer, x):
    block = "block_sparse_moe." if kind.startswith("granitemoe") else "mlp."
    p = f"model.layers.{layer}.{block}"
    if layer < c.get("first_k_dense_replace", 0):
        return glu(*(matrix(f"{p}{n}_proj.weight") for n in ("gate", "up", "down")), x)
    y = [0.0] * D
    for expert, weight in route(p, x):
        y = plus(y, expert_of(p, expert, x), weight)
    if c.get("n_shared_experts"):
        y = plus(y, glu(*(matrix(f"{p}shared_experts.{n}_proj.weight") for n in ("gate", "up", "down")), x))
    if c.get("shared_intermediate_size"):
        s = f"model.layers.{layer}.shared_mlp."
        both, half = matrix(s + "input_linear.weight"), c["shared_intermediate_size"]
        y = plus(y, glu(both[:half], both[half:], matrix(s + "output_linear.weight"), x))
    return y


# ---- the model

residual, lost, n = c.get("residual_multiplier", 1), 0.0, 0
for window in cut(ids, ctx):
    if len(window) < ctx:
        break
    embed = matrix("model.embed_tokens.weight")
    xs = [[v * c.get("embedding_multiplier", 1) for v in embed[i]] for i in window]
    for layer in range(L):
        p = f"model.layers.{layer}."
        normed = [norm(x, vector(p + "input_layernorm.weight")) for x in xs]
        xs = [plus(x, y, residual) for x, y in zip(xs, attention(layer, normed))]
        normed = [norm(x, vector(p + "post_attention_layernorm.weight")) for x in xs]
        xs = [plus(x, second_half(layer, y), residual) for x, y in zip(xs, normed)]
    for t in range(ctx - 1):
        z = times(matrix("lm_head.weight"), norm(xs[t], vector("model.norm.weight")))
        z = [v / c.get("logits_scaling", 1) for v in z]
        top = max(z)
        lost += top + math.log(sum(math.exp(v - top) for v in z)) - z[window[t + 1]]
        n += 1
print(f"{math.exp(lost / n):.9f} {n}")
