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
delta, plus_one, fused = None, False, False
mlp, names, bias, shared, qk_norm = 'mlp', ('gate_proj', 'up_proj', 'down_proj'), False, False, None
router, stacked, plain, rank, behind, oss = 'gate', False, False, None, False, family.startswith('gpt_oss')
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
elif family in ('glm4_moe', 'glm4_moe_norm'):
    config.update(architectures=['Glm4MoeForCausalLM'], model_type='glm4_moe', n_routed_experts=EXPERTS, intermediate_size=SHARED,
                  moe_intermediate_size=WIDTH, n_shared_experts=1, first_k_dense_replace=1, n_group=1, topk_group=1,
                  norm_topk_prob=True, routed_scaling_factor=1.5, partial_rotary_factor=0.5, attention_bias=True,
                  use_qk_norm=family == 'glm4_moe_norm', num_nextn_predict_layers=1)
    bias = plain = behind = True
    qk_norm = (DIM, DIM) if config['use_qk_norm'] else None
elif family in ('granitemoe', 'granitemoeshared'):
    config.update(architectures=['GraniteMoeForCausalLM' if family == 'granitemoe' else 'GraniteMoeSharedForCausalLM'],
                  model_type=family, num_local_experts=EXPERTS,
                  embedding_multiplier=3.0, attention_multiplier=0.2, residual_multiplier=0.4, logits_scaling=2.5)
    mlp, router, stacked = 'block_sparse_moe', 'router.layer', True
    if family == 'granitemoeshared':
        config['shared_intermediate_size'] = SHARED = 96
elif oss:
    config.update(architectures=['GptOssForCausalLM'], model_type='gpt_oss', num_local_experts=EXPERTS, attention_bias=True,
                  sliding_window=12, layer_types=['sliding_attention', 'full_attention', 'sliding_attention'], swiglu_limit=7.0,
                  rope_scaling=dict(rope_type='yarn', factor=4.0, original_max_position_embeddings=64, beta_fast=32.0, beta_slow=1.0,
                                    truncate=False))
    if family == 'gpt_oss_mxfp4':
        config['quantization_config'] = dict(quant_method='mxfp4', modules_to_not_convert=['model.layers.*.self_attn', 'lm_head'])
    router, bias = 'router', True
elif family in ('deepseek_v2', 'deepseek_v2_lite'):
    config.update(architectures=['DeepseekV2ForCausalLM'], model_type='deepseek_v2', n_routed_experts=EXPERTS, n_shared_experts=2,
                  intermediate_size=SHARED, moe_intermediate_size=WIDTH, first_k_dense_replace=1, norm_topk_prob=False,
                  n_group=3, topk_group=2, topk_method='group_limited_greedy', scoring_func='softmax', routed_scaling_factor=1.75,
                  q_lora_rank=24, kv_lora_rank=32, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10,
                  rope_scaling=dict(type='yarn', factor=4.0, original_max_position_embeddings=64, beta_fast=32, beta_slow=1,
                                    mscale=0.707, mscale_all_dim=0.707))
    del config['head_dim']
    if family == 'deepseek_v2_lite':
        config.update(q_lora_rank=None, n_group=1, topk_group=1, topk_method='greedy')
    plain, rank = True, (config['q_lora_rank'], 32, 12, 8, 10)
elif family in ('qwen3_next', 'qwen3_5', 'qwen3_5_moe', 'qwen3_5_uneven', 'qwen3_5_moe_uneven'):
    # Three layers of four have the gated delta rule; k heads of q and k, v heads of v.
    LAYERS, plus_one, qk_norm = 4, True, (DIM, DIM)
    delta = dict(k=4, v=4, dim=32, taps=4)
    if family != 'qwen3_5' and family != 'qwen3_5_moe':
        delta.update(k=2, v=4 if family == 'qwen3_next' else 8)
    config.update(num_hidden_layers=LAYERS, full_attention_interval=4, partial_rotary_factor=0.25, linear_num_key_heads=delta['k'],
                  linear_num_value_heads=delta['v'], linear_key_head_dim=delta['dim'], linear_value_head_dim=delta['dim'],
                  linear_conv_kernel_dim=delta['taps'])
    if family == 'qwen3_next':
        config.update(architectures=['Qwen3NextForCausalLM'], model_type='qwen3_next', num_experts=EXPERTS,
                      moe_intermediate_size=WIDTH, shared_expert_intermediate_size=SHARED, norm_topk_prob=True)
        shared = True
    else:
        moe = 'moe' in family
        config.update(architectures=['Qwen3_5MoeForCausalLM' if moe else 'Qwen3_5ForCausalLM'],
                      model_type='qwen3_5_moe_text' if moe else 'qwen3_5_text')
        config['rope_parameters'] = dict(rope_type='default', rope_theta=config.pop('rope_theta'), mrope_interleaved=True,
                                         mrope_section=[1, 1, 0], partial_rotary_factor=config.pop('partial_rotary_factor'))
        config['layer_types'] = ['full_attention' if i % 4 == 3 else 'linear_attention' for i in range(LAYERS)]
        del config['full_attention_interval']
        if moe:
            config.update(num_experts=EXPERTS, moe_intermediate_size=WIDTH, shared_expert_intermediate_size=SHARED)
            del config['intermediate_size']
            shared = fused = True
        else:
            WIDTH, EXPERTS = 128, 0
            config['intermediate_size'] = WIDTH
            del config['num_experts_per_tok']
else:
    sys.exit(f'no family {family}')
for pair in sys.argv[4:]:
    key, value = pair.split('=', 1)
    config[key] = json.loads(value)

LAYERS, tensors = max(LAYERS, config['num_hidden_layers']), {}


def add(name, shape, spread, middle=0.0):
    n = 1
    for s in shape:
        n *= s
    tensors[name] = ('F32', shape, struct.pack(f'<{n}f', *[middle + random.gauss(0, spread) for _ in range(n)]))


add('model.embed_tokens.weight', (VOCAB, D), 1)
add('lm_head.weight', (VOCAB, D), 0.2)
mean = 0 if plus_one else 1
add('model.norm.weight', (D,), 0.1, mean)


def delta_rule(p):
    """Attention's place in a layer with the gated delta rule."""
    keys, values, heads = delta['k'] * delta['dim'], delta['v'] * delta['dim'], delta['v']
    matrices = (('qkvz', 2 * keys + 2 * values), ('ba', 2 * heads)) if family == 'qwen3_next' else (
        ('qkv', 2 * keys + values), ('z', values), ('b', heads), ('a', heads))
    for name, rows in matrices:
        add(f'{p}in_proj_{name}.weight', (rows, D), 0.15)
    add(p + 'conv1d.weight', (2 * keys + values, 1, delta['taps']), 0.5)
    add(p + 'A_log', (heads,), 0.5, 0.5)
    add(p + 'dt_bias', (heads,), 0.5, -1)
    add(p + 'norm.weight', (delta['dim'],), 0.1, 1)
    add(p + 'out_proj.weight', (D, values), 0.15)


def latent(p, q, kv, nope, turned, values):
    if q:
        add(p + 'self_attn.q_a_proj.weight', (q, D), 0.15)
        add(p + 'self_attn.q_a_layernorm.weight', (q,), 0.1, 1)
        add(p + 'self_attn.q_b_proj.weight', (HEADS * (nope + turned), q), 0.2)
    else:
        add(p + 'self_attn.q_proj.weight', (HEADS * (nope + turned), D), 0.15)
    add(p + 'self_attn.kv_a_proj_with_mqa.weight', (kv + turned, D), 0.15)
    add(p + 'self_attn.kv_a_layernorm.weight', (kv,), 0.1, 1)
    add(p + 'self_attn.kv_b_proj.weight', (HEADS * (nope + values), kv), 0.2)
    add(p + 'self_attn.o_proj.weight', (D, HEADS * values), 0.15)


for layer in range(LAYERS + behind):
    p = f'model.layers.{layer}.'
    add(p + 'input_layernorm.weight', (D,), 0.1, mean)
    add(p + 'post_attention_layernorm.weight', (D,), 0.1, mean)
    if rank:
        latent(p, *rank)
    rule = delta and layer % 4 != 3
    if rule:
        delta_rule(p + 'linear_attn.')
    for name, rows, cols in () if rank or rule else (('q', (2 if delta else 1) * HEADS * DIM, D), ('k', KV * DIM, D), ('v', KV * DIM, D), ('o', D, HEADS * DIM)):
        add(f'{p}self_attn.{name}_proj.weight', (rows, cols), 0.15)
        if bias and (name != 'o' or oss):
            add(f'{p}self_attn.{name}_proj.bias', (rows,), 0.1)
    if qk_norm and not rule:
        add(p + 'self_attn.q_norm.weight', (qk_norm[0],), 0.1, mean)
        add(p + 'self_attn.k_norm.weight', (qk_norm[1],), 0.1, mean)
    if layer == LAYERS:
        add(p + 'eh_proj.weight', (D, 2 * D), 0.1)
        add(p + 'enorm.weight', (D,), 0.1, 1)
    dense = layer < config.get('first_k_dense_replace', 0) or not EXPERTS
    width = SHARED if EXPERTS else WIDTH
    for name, rows, cols in zip(names, (width, width, D), (D, D, width)) if dense else ():
        add(f'{p}mlp.{name}.weight', (rows, cols), 0.2)
    if dense:
        continue
    add(f'{p}{mlp}.{router}.weight', (EXPERTS, D), 0.3)
    if 'glm4' in family:
        add(p + 'mlp.gate.e_score_correction_bias', (EXPERTS,), 0.2)
    if oss:
        add(p + 'self_attn.sinks', (HEADS,), 1.5)
        add(p + 'mlp.router.bias', (EXPERTS,), 0.5)
        add(p + 'mlp.experts.gate_up_proj_bias', (EXPERTS, 2 * WIDTH), 1)
        add(p + 'mlp.experts.down_proj_bias', (EXPERTS, D), 0.3)
    for name, rows, cols in (('gate_up_proj', 2 * WIDTH, D), ('down_proj', D, WIDTH)) if oss else ():
        if family == 'gpt_oss_mxfp4':
            n = EXPERTS * rows * cols
            tensors[f'{p}mlp.experts.{name}_blocks'] = ('U8', (EXPERTS, rows, cols // 32, 16), random.randbytes(n // 2))
            tensors[f'{p}mlp.experts.{name}_scales'] = (
                'U8', (EXPERTS, rows, cols // 32), bytes(random.randrange(123, 126) for _ in range(n // 32)))
        else: # columns are rows
            add(f'{p}mlp.experts.{name}', (EXPERTS, cols, rows), 0.3)
    if stacked:
        add(f'{p}{mlp}.input_linear.weight', (EXPERTS, 2 * WIDTH, D), 0.2)
        add(f'{p}{mlp}.output_linear.weight', (EXPERTS, D, WIDTH), 0.2)
    if family == 'granitemoeshared':
        add(f'{p}shared_mlp.input_linear.weight', (2 * SHARED, D), 0.2)
        add(f'{p}shared_mlp.output_linear.weight', (D, SHARED), 0.2)
    if fused:
        add(f'{p}{mlp}.experts.gate_up_proj', (EXPERTS, 2 * WIDTH, D), 0.2)
        add(f'{p}{mlp}.experts.down_proj', (EXPERTS, D, WIDTH), 0.2)
    for e in () if stacked or fused or oss else range(EXPERTS):
        for name, rows, cols in zip(names, (WIDTH, WIDTH, D), (D, D, WIDTH)):
            add(f'{p}{mlp}.experts.{e}.{name}.weight', (rows, cols), 0.2)
    if plain:
        wide = config['n_shared_experts'] * WIDTH
        for name, rows, cols in zip(names, (wide, wide, D), (D, D, wide)):
            add(f'{p}mlp.shared_experts.{name}.weight', (rows, cols), 0.2)
    if shared:
        for name, rows, cols in zip(names, (SHARED, SHARED, D), (D, D, SHARED)):
            add(f'{p}mlp.shared_expert.{name}.weight', (rows, cols), 0.2)
        add(p + 'mlp.shared_expert_gate.weight', (1, D), 0.3)

os.makedirs(out, exist_ok=True)
shutil.copy(os.path.join(tokenizer, 'tokenizer.json'), out)
with open(os.path.join(out, 'config.json'), 'w') as f:
    json.dump(config, f, indent=1)
tensor_file.save(os.path.join(out, 'model.safetensors'), tensors)
