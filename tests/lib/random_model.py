#!/usr/bin/env python3
"""A folder of a small model with random weights, of a family with experts: random_model.py FAMILY TOKENIZER_FOLDER OUT [KEY=VALUE...]

Weights are F32, so that a GGUF of it holds the same numbers. KEY=VALUE changes config.json."""
import json
import os
import random
import shutil
import struct
import sys

import tensor_file

family, tokenizer, out = sys.argv[1:4]
D, LAYERS, HEADS, KV, DIM, VOCAB, EXPERTS, WIDTH, SHARED = 64, 3, 4, 2, 16, 2048, 6, 32, 48
random.seed(family)
config = dict(hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=DIM,
              vocab_size=VOCAB, intermediate_size=WIDTH, rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act='silu',
              max_position_embeddings=512, tie_word_embeddings=False, torch_dtype='float32', num_experts_per_tok=2,
              bos_token_id=2045, eos_token_id=2046)
mlp, names, bias, shared, qk_norm = 'mlp', ('gate_proj', 'up_proj', 'down_proj'), False, False, None
if family == 'mixtral':
    config.update(architectures=['MixtralForCausalLM'], model_type='mixtral', num_local_experts=EXPERTS, sliding_window=None)
    mlp, names = 'block_sparse_moe', ('w1', 'w3', 'w2')
elif family == 'qwen2_moe':
    config.update(architectures=['Qwen2MoeForCausalLM'], model_type='qwen2_moe', num_experts=EXPERTS,
                  moe_intermediate_size=WIDTH, shared_expert_intermediate_size=SHARED, norm_topk_prob=False)
    bias = shared = True
elif family == 'qwen3_moe':
    config.update(architectures=['Qwen3MoeForCausalLM'], model_type='qwen3_moe', num_experts=EXPERTS,
                  moe_intermediate_size=WIDTH, norm_topk_prob=True)
    qk_norm = (DIM, DIM)
elif family == 'olmoe':
    KV = HEADS
    config.update(num_key_value_heads=KV, architectures=['OlmoeForCausalLM'], model_type='olmoe', num_experts=EXPERTS, norm_topk_prob=False, clip_qkv=None)
    qk_norm = (HEADS * DIM, KV * DIM)
else:
    sys.exit(f'no family {family}')
for pair in sys.argv[4:]:
    key, value = pair.split('=', 1)
    config[key] = json.loads(value)

tensors = {}


def add(name, shape, spread, middle=0.0):
    n = 1
    for s in shape:
        n *= s
    tensors[name] = ('F32', shape, struct.pack(f'<{n}f', *[middle + random.gauss(0, spread) for _ in range(n)]))


add('model.embed_tokens.weight', (VOCAB, D), 1)
add('lm_head.weight', (VOCAB, D), 0.2)
add('model.norm.weight', (D,), 0.1, 1)
for layer in range(LAYERS):
    p = f'model.layers.{layer}.'
    add(p + 'input_layernorm.weight', (D,), 0.1, 1)
    add(p + 'post_attention_layernorm.weight', (D,), 0.1, 1)
    for name, rows, cols in (('q', HEADS * DIM, D), ('k', KV * DIM, D), ('v', KV * DIM, D), ('o', D, HEADS * DIM)):
        add(f'{p}self_attn.{name}_proj.weight', (rows, cols), 0.15)
        if bias and name != 'o':
            add(f'{p}self_attn.{name}_proj.bias', (rows,), 0.1)
    if qk_norm:
        add(p + 'self_attn.q_norm.weight', (qk_norm[0],), 0.1, 1)
        add(p + 'self_attn.k_norm.weight', (qk_norm[1],), 0.1, 1)
    add(f'{p}{mlp}.gate.weight', (EXPERTS, D), 0.3)
    for e in range(EXPERTS):
        for name, rows, cols in zip(names, (WIDTH, WIDTH, D), (D, D, WIDTH)):
            add(f'{p}{mlp}.experts.{e}.{name}.weight', (rows, cols), 0.2)
    if shared:
        for name, rows, cols in zip(names, (SHARED, SHARED, D), (D, D, SHARED)):
            add(f'{p}mlp.shared_expert.{name}.weight', (rows, cols), 0.2)
        add(p + 'mlp.shared_expert_gate.weight', (1, D), 0.3)

os.makedirs(out, exist_ok=True)
shutil.copy(os.path.join(tokenizer, 'tokenizer.json'), out)
with open(os.path.join(out, 'config.json'), 'w') as f:
    json.dump(config, f, indent=1)
tensor_file.save(os.path.join(out, 'model.safetensors'), tensors)
