#include "arch/block.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
static const struct block_part parts[] = {
    /* role, names, kind, half, input, rows and columns, turned, of, without */
    {ROLE_ATTN_NORM, "input_layernorm", "attn_norm", PART_NORM, HALF_ATTN, INPUT_NONE, WIDTH_ONE, WIDTH_HIDDEN, false, PARTS_PRE_NORMS | PARTS_GEMMA_NORMS, 0},
    {ROLE_QKV, "self_attn.qkv_proj", "attn_qkv", PART_MATRIX, HALF_ATTN, INPUT_ATTN, WIDTH_QKV, WIDTH_HIDDEN, true, PARTS_FUSED_QKV, 0},
    {ROLE_Q, "self_attn.q_proj", "attn_q", PART_MATRIX, HALF_ATTN, INPUT_ATTN, WIDTH_HEADS, WIDTH_HIDDEN, true, 0, PARTS_FUSED_QKV | PARTS_MLA | PARTS_GATED_HEADS},
    {ROLE_Q_GATE, "self_attn.q_proj", "attn_q", PART_MATRIX, HALF_ATTN, INPUT_ATTN, WIDTH_TWO_HEADS, WIDTH_HIDDEN, false, PARTS_GATED_HEADS, 0},
    {ROLE_K, "self_attn.k_proj", "attn_k", PART_MATRIX, HALF_ATTN, INPUT_ATTN, WIDTH_KV_HEADS, WIDTH_HIDDEN, true, 0, PARTS_FUSED_QKV | PARTS_MLA},
    {ROLE_V, "self_attn.v_proj", "attn_v", PART_MATRIX, HALF_ATTN, INPUT_ATTN, WIDTH_KV_HEADS, WIDTH_HIDDEN, false, 0, PARTS_FUSED_QKV | PARTS_MLA},
    {ROLE_Q_NORM, "self_attn.q_norm", "attn_q_norm", PART_NORM, HALF_ATTN, INPUT_NONE, WIDTH_ONE, WIDTH_HEAD, false, PARTS_QK_NORM, 0},
    {ROLE_K_NORM, "self_attn.k_norm", "attn_k_norm", PART_NORM, HALF_ATTN, INPUT_NONE, WIDTH_ONE, WIDTH_HEAD, false, PARTS_QK_NORM, 0},
    {ROLE_Q_NORM, "self_attn.q_norm", "attn_q_norm", PART_NORM, HALF_ATTN, INPUT_NONE, WIDTH_ONE, WIDTH_HEADS, false, PARTS_QK_NORM_WHOLE, 0},
    {ROLE_K_NORM, "self_attn.k_norm", "attn_k_norm", PART_NORM, HALF_ATTN, INPUT_NONE, WIDTH_ONE, WIDTH_KV_HEADS, false, PARTS_QK_NORM_WHOLE, 0},
    {ROLE_SINKS, "self_attn.sinks", "attn_sinks.weight", PART_VECTOR, HALF_ATTN, INPUT_NONE, WIDTH_ONE, WIDTH_HEAD_COUNT, false, PARTS_GPT_OSS, 0},
    {ROLE_O, "self_attn.o_proj", "attn_output", PART_MATRIX, HALF_ATTN, INPUT_HEADS, WIDTH_HIDDEN, WIDTH_HEADS, false, 0, PARTS_MLA},
    {ROLE_Q_A, "self_attn.q_a_proj", "attn_q_a", PART_MATRIX, HALF_ATTN, INPUT_ATTN, WIDTH_Q_RANK, WIDTH_HIDDEN, false, PARTS_MLA, 0},
    {ROLE_Q_WHOLE, "self_attn.q_proj", "attn_q", PART_MATRIX, HALF_ATTN, INPUT_ATTN, WIDTH_HEADS, WIDTH_HIDDEN, false, PARTS_MLA, 0},
    {ROLE_Q_A_NORM, "self_attn.q_a_layernorm", "attn_q_a_norm", PART_NORM, HALF_ATTN, INPUT_NONE, WIDTH_ONE, WIDTH_Q_RANK, false, PARTS_MLA, 0},
    {ROLE_Q_B, "self_attn.q_b_proj", "attn_q_b", PART_MATRIX, HALF_ATTN, INPUT_Q_LATENT, WIDTH_HEADS, WIDTH_Q_RANK, false, PARTS_MLA, 0},
    {ROLE_KV_A, "self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa", PART_MATRIX, HALF_ATTN, INPUT_ATTN, WIDTH_KV_A, WIDTH_HIDDEN, false, PARTS_MLA, 0},
    {ROLE_KV_A_NORM, "self_attn.kv_a_layernorm", "attn_kv_a_norm", PART_NORM, HALF_ATTN, INPUT_NONE, WIDTH_ONE, WIDTH_KV_RANK, false, PARTS_MLA, 0},
    {ROLE_KV_B, "self_attn.kv_b_proj", "attn_kv_b", PART_MATRIX, HALF_ATTN, INPUT_KV_LATENT, WIDTH_KV_B, WIDTH_KV_RANK, false, PARTS_MLA, 0},
    {ROLE_K_B, "self_attn.kv_b_proj_k", "attn_k_b", PART_MATRIX, HALF_ATTN, INPUT_QUERIES, WIDTH_K_B, WIDTH_NOPE, false, PARTS_MLA, 0},
    {ROLE_V_B, "self_attn.kv_b_proj_v", "attn_v_b", PART_MATRIX, HALF_ATTN, INPUT_KV_LATENT, WIDTH_VALUES, WIDTH_KV_RANK, false, PARTS_MLA, 0},
    {ROLE_VALUES_O, "self_attn.o_proj", "attn_output", PART_MATRIX, HALF_ATTN, INPUT_HEADS, WIDTH_HIDDEN, WIDTH_VALUES, false, PARTS_MLA, 0},
    {ROLE_DELTA_MIXED, "linear_attn.in_proj_qkvz", "ssm_in", PART_MATRIX, HALF_ATTN, INPUT_ATTN, WIDTH_DELTA_ALL, WIDTH_HIDDEN, false, PARTS_DELTA_GROUPED, 0},
    {ROLE_DELTA_BETA, "linear_attn.in_proj_ba", "ssm_ba", PART_ROUTER, HALF_ATTN, INPUT_NONE, WIDTH_DELTA_TWO_HEADS, WIDTH_HIDDEN, false, PARTS_DELTA_GROUPED, 0},
    {ROLE_DELTA_MIXED, "linear_attn.in_proj_qkv", "attn_qkv", PART_MATRIX, HALF_ATTN, INPUT_ATTN, WIDTH_DELTA_MIXED, WIDTH_HIDDEN, false, PARTS_DELTA, 0},
    {ROLE_DELTA_Z, "linear_attn.in_proj_z", "attn_gate", PART_MATRIX, HALF_ATTN, INPUT_ATTN, WIDTH_DELTA_VALUES, WIDTH_HIDDEN, false, PARTS_DELTA, 0},
    {ROLE_DELTA_BETA, "linear_attn.in_proj_b", "ssm_beta", PART_ROUTER, HALF_ATTN, INPUT_NONE, WIDTH_DELTA_HEADS, WIDTH_HIDDEN, false, PARTS_DELTA, 0},
    {ROLE_DELTA_ALPHA, "linear_attn.in_proj_a", "ssm_alpha", PART_ROUTER, HALF_ATTN, INPUT_NONE, WIDTH_DELTA_HEADS, WIDTH_HIDDEN, false, PARTS_DELTA, 0},
    {ROLE_DELTA_CONV, "linear_attn.conv1d", "ssm_conv1d", PART_ROUTER, HALF_ATTN, INPUT_NONE, WIDTH_DELTA_MIXED, WIDTH_DELTA_TAPS, false, PARTS_ANY_DELTA, 0},
    {ROLE_DELTA_RATE, "linear_attn.A_log", "ssm_a", PART_VECTOR, HALF_ATTN, INPUT_NONE, WIDTH_ONE, WIDTH_DELTA_HEADS, false, PARTS_ANY_DELTA, 0},
    {ROLE_DELTA_BIAS, "linear_attn.dt_bias", "ssm_dt.bias", PART_VECTOR, HALF_ATTN, INPUT_NONE, WIDTH_ONE, WIDTH_DELTA_HEADS, false, PARTS_ANY_DELTA, 0},
    {ROLE_DELTA_NORM, "linear_attn.norm", "ssm_norm", PART_NORM, HALF_ATTN, INPUT_NONE, WIDTH_ONE, WIDTH_DELTA_VALUE, false, PARTS_ANY_DELTA, 0},
    {ROLE_DELTA_O, "linear_attn.out_proj", "ssm_out", PART_MATRIX, HALF_ATTN, INPUT_HEADS, WIDTH_HIDDEN, WIDTH_DELTA_VALUES, false, PARTS_ANY_DELTA, 0},
    {ROLE_FFN_NORM, "post_attention_layernorm", "ffn_norm", PART_NORM, HALF_FFN, INPUT_NONE, WIDTH_ONE, WIDTH_HIDDEN, false, PARTS_PRE_NORMS, PARTS_LATE_NAME},
    {ROLE_FFN_NORM, "post_attention_layernorm", "post_attention_norm", PART_NORM, HALF_FFN, INPUT_NONE, WIDTH_ONE, WIDTH_HIDDEN, false, PARTS_LATE_NAME, 0},
    {ROLE_FFN_NORM, "pre_feedforward_layernorm", "ffn_norm", PART_NORM, HALF_FFN, INPUT_NONE, WIDTH_ONE, WIDTH_HIDDEN, false, PARTS_GEMMA_NORMS, 0},
    {ROLE_ATTN_POST_NORM, "post_attention_layernorm", "post_attention_norm", PART_NORM, HALF_ATTN, INPUT_NONE, WIDTH_ONE, WIDTH_HIDDEN, false, PARTS_POST_NORMS | PARTS_GEMMA_NORMS, 0},
    {ROLE_ATTN_POST_NORM, "post_self_attn_layernorm", "post_attention_norm", PART_NORM, HALF_ATTN, INPUT_NONE, WIDTH_ONE, WIDTH_HIDDEN, false, PARTS_GLM_NORMS, 0},
    {ROLE_GATE_UP, "mlp.gate_up_proj", "ffn_up", PART_MATRIX, HALF_FFN, INPUT_FFN, WIDTH_TWO_MIDDLES, WIDTH_HIDDEN, false, PARTS_FUSED_GATE_UP, 0},
    {ROLE_GATE, "mlp.gate_proj", "ffn_gate", PART_MATRIX, HALF_FFN, INPUT_FFN, WIDTH_MIDDLE, WIDTH_HIDDEN, false, 0, PARTS_FUSED_GATE_UP},
    {ROLE_UP, "mlp.up_proj", "ffn_up", PART_MATRIX, HALF_FFN, INPUT_FFN, WIDTH_MIDDLE, WIDTH_HIDDEN, false, 0, PARTS_FUSED_GATE_UP},
    {ROLE_DOWN, "mlp.down_proj", "ffn_down", PART_MATRIX, HALF_FFN, INPUT_MIDDLE, WIDTH_HIDDEN, WIDTH_MIDDLE, false, 0, 0},
    {ROLE_FFN_POST_NORM, "post_mlp_layernorm", "post_ffw_norm", PART_NORM, HALF_FFN, INPUT_NONE, WIDTH_ONE, WIDTH_HIDDEN, false, PARTS_GLM_NORMS, 0},
    {ROLE_FFN_POST_NORM, "post_feedforward_layernorm", "post_ffw_norm", PART_NORM, HALF_FFN, INPUT_NONE, WIDTH_ONE, WIDTH_HIDDEN, false, PARTS_POST_NORMS | PARTS_GEMMA_NORMS, 0},
    {ROLE_ROUTER, "mlp.gate", "ffn_gate_inp", PART_ROUTER, HALF_EXPERTS, INPUT_NONE, WIDTH_EXPERTS, WIDTH_HIDDEN, false, PARTS_EXPERTS, 0},
    {ROLE_ROUTER, "mlp.router", "ffn_gate_inp", PART_ROUTER, HALF_EXPERTS, INPUT_NONE, WIDTH_EXPERTS, WIDTH_HIDDEN, false, PARTS_GPT_OSS, 0},
    {ROLE_ROUTER_BIAS, "mlp.router.bias", "ffn_gate_inp.bias", PART_VECTOR, HALF_EXPERTS, INPUT_NONE, WIDTH_ONE, WIDTH_EXPERTS, false, PARTS_GPT_OSS, 0},
    {ROLE_ROUTER, "block_sparse_moe.gate", "ffn_gate_inp", PART_ROUTER, HALF_EXPERTS, INPUT_NONE, WIDTH_EXPERTS, WIDTH_HIDDEN, false, PARTS_EXPERTS_BLOCK, 0},
    {ROLE_ROUTER, "block_sparse_moe.router.layer", "ffn_gate_inp", PART_ROUTER, HALF_EXPERTS, INPUT_NONE, WIDTH_EXPERTS, WIDTH_HIDDEN, false, PARTS_EXPERTS_STACKED, 0},
    {ROLE_ROUTER_BIAS, "mlp.gate.e_score_correction_bias", "exp_probs_b.bias", PART_VECTOR, HALF_EXPERTS, INPUT_NONE, WIDTH_ONE, WIDTH_EXPERTS, false, PARTS_EXPERTS_BIAS, 0},
    {ROLE_SHARED_GATE, "mlp.shared_expert_gate", "ffn_gate_inp_shexp", PART_ROUTER, HALF_FFN, INPUT_NONE, WIDTH_ONE, WIDTH_HIDDEN, false, PARTS_SHARED_GATED, 0},
    {ROLE_GATE, "mlp.shared_expert.gate_proj", "ffn_gate_shexp", PART_MATRIX, HALF_FFN, INPUT_FFN, WIDTH_SHARED, WIDTH_HIDDEN, false, PARTS_SHARED_GATED, 0},
    {ROLE_UP, "mlp.shared_expert.up_proj", "ffn_up_shexp", PART_MATRIX, HALF_FFN, INPUT_FFN, WIDTH_SHARED, WIDTH_HIDDEN, false, PARTS_SHARED_GATED, 0},
    {ROLE_DOWN, "mlp.shared_expert.down_proj", "ffn_down_shexp", PART_MATRIX, HALF_FFN, INPUT_MIDDLE, WIDTH_HIDDEN, WIDTH_SHARED, false, PARTS_SHARED_GATED, 0},
    {ROLE_GATE, "mlp.shared_experts.gate_proj", "ffn_gate_shexp", PART_MATRIX, HALF_FFN, INPUT_FFN, WIDTH_SHARED, WIDTH_HIDDEN, false, PARTS_SHARED_PLAIN, 0},
    {ROLE_UP, "mlp.shared_experts.up_proj", "ffn_up_shexp", PART_MATRIX, HALF_FFN, INPUT_FFN, WIDTH_SHARED, WIDTH_HIDDEN, false, PARTS_SHARED_PLAIN, 0},
    {ROLE_DOWN, "mlp.shared_experts.down_proj", "ffn_down_shexp", PART_MATRIX, HALF_FFN, INPUT_MIDDLE, WIDTH_HIDDEN, WIDTH_SHARED, false, PARTS_SHARED_PLAIN, 0},
    {ROLE_GATE_UP, "shared_mlp.input_linear", "ffn_up_shexp", PART_MATRIX, HALF_FFN, INPUT_FFN, WIDTH_TWO_SHARED, WIDTH_HIDDEN, false, PARTS_SHARED_FUSED, 0},
    {ROLE_DOWN, "shared_mlp.output_linear", "ffn_down_shexp", PART_MATRIX, HALF_FFN, INPUT_MIDDLE, WIDTH_HIDDEN, WIDTH_SHARED, false, PARTS_SHARED_FUSED, 0},
    {ROLE_GATE, "mlp.experts.*.gate_proj", "ffn_gate_exps", PART_MATRIX, HALF_EXPERTS, INPUT_NONE, WIDTH_EXPERT, WIDTH_HIDDEN, false, PARTS_EXPERTS | PARTS_GPT_OSS, 0},
    {ROLE_UP, "mlp.experts.*.up_proj", "ffn_up_exps", PART_MATRIX, HALF_EXPERTS, INPUT_NONE, WIDTH_EXPERT, WIDTH_HIDDEN, false, PARTS_EXPERTS | PARTS_GPT_OSS, 0},
    {ROLE_DOWN, "mlp.experts.*.down_proj", "ffn_down_exps", PART_MATRIX, HALF_EXPERTS, INPUT_NONE, WIDTH_HIDDEN, WIDTH_EXPERT, false, PARTS_EXPERTS | PARTS_GPT_OSS, 0},
    {ROLE_GATE, "block_sparse_moe.experts.*.w1", "ffn_gate_exps", PART_MATRIX, HALF_EXPERTS, INPUT_NONE, WIDTH_EXPERT, WIDTH_HIDDEN, false, PARTS_EXPERTS_BLOCK | PARTS_EXPERTS_STACKED, 0},
    {ROLE_UP, "block_sparse_moe.experts.*.w3", "ffn_up_exps", PART_MATRIX, HALF_EXPERTS, INPUT_NONE, WIDTH_EXPERT, WIDTH_HIDDEN, false, PARTS_EXPERTS_BLOCK | PARTS_EXPERTS_STACKED, 0},
    {ROLE_DOWN, "block_sparse_moe.experts.*.w2", "ffn_down_exps", PART_MATRIX, HALF_EXPERTS, INPUT_NONE, WIDTH_HIDDEN, WIDTH_EXPERT, false, PARTS_EXPERTS_BLOCK | PARTS_EXPERTS_STACKED, 0},
};
#define N_PARTS (sizeof parts / sizeof parts[0])
/* clang-format on */

const struct block_part *block_part_at(size_t i)
{
    return i < N_PARTS ? &parts[i] : NULL;
}

const struct block_part *block_part_of(enum role role)
{
    size_t i = 0;
    while (parts[i].role != role)
        i++;
    return &parts[i];
}

static bool same(const char *s, size_t n, const char *other)
{
    return strlen(other) == n && memcmp(s, other, n) == 0;
}

/* Whether s is the name with a number for its '*'; a number has one spelling. */
static bool same_expert(const char *s, size_t n, const char *name, uint32_t *expert)
{
    enum { DIGITS = 6 };
    const char *star = strchr(name, '*');
    size_t before = star ? (size_t)(star - name) : 0, digits = 0;
    if (!star || n < before || memcmp(s, name, before) != 0)
        return false;
    *expert = 0;
    for (; before + digits < n && s[before + digits] >= '0' && s[before + digits] <= '9' && digits < DIGITS; digits++)
        *expert = *expert * 10 + (uint32_t)(s[before + digits] - '0');
    return digits && (digits == 1 || s[before] != '0') && same(s + before + digits, n - before - digits, star + 1);
}

const struct block_part *block_part_named(const struct family *f, const char *hf, size_t n, uint32_t *expert)
{
    uint32_t of;
    for (size_t i = 0; i < N_PARTS; i++) {
        of = 0;
        if ((f && !family_has(f, &parts[i])) || (!same(hf, n, parts[i].hf) && !same_expert(hf, n, parts[i].hf, &of)))
            continue;
        if (expert)
            *expert = of;
        return &parts[i];
    }
    return NULL;
}

const struct block_part *block_part_named_gguf(const struct family *f, const char *name, size_t n)
{
    const struct block_part *any = NULL;
    for (size_t i = 0; i < N_PARTS; i++) {
        if (!same(name, n, parts[i].gguf) || (f && !family_has(f, &parts[i])))
            continue;
        if (f || !parts[i].of)
            return &parts[i];
        any = any ? any : &parts[i];
    }
    return any;
}

const char *block_part_name(const struct model_config *c, const struct block_part *p, uint32_t layer, uint32_t expert,
                            char *out, size_t cap)
{
    const char *star = strchr(p->hf, '*');
    if (star)
        snprintf(out, cap, "%slayers.%" PRIu32 ".%.*s%" PRIu32 "%s", config_prefix(c), layer, (int)(star - p->hf),
                 p->hf, expert, star + 1);
    else
        snprintf(out, cap, "%slayers.%" PRIu32 ".%s", config_prefix(c), layer, p->hf);
    return out;
}

const char *block_matrix_name(const struct model_config *c, const struct block_matrix *m, uint32_t layer, char *out,
                              size_t cap)
{
    return block_part_name(c, m->part, layer, m->expert, out, cap);
}

const char *block_part_short_name(const struct block_part *p)
{
    const char *dot = strrchr(p->hf, '.');
    return dot ? dot + 1 : p->hf;
}

bool family_has(const struct family *f, const struct block_part *p)
{
    unsigned parts_of = f ? f->parts : (unsigned)PARTS_PRE_NORMS;
    return (p->of == 0 || (parts_of & p->of) != 0) && (parts_of & p->without) == 0;
}

bool family_has_role(const struct family *f, enum role role)
{
    bool has = false;
    for (size_t i = 0; i < N_PARTS; i++)
        has = has || (parts[i].role == role && family_has(f, &parts[i]));
    return has;
}

bool block_has(const struct model_config *c, const struct family *f, uint32_t layer, const struct block_part *p)
{
    bool experts = config_has_experts(c, layer);
    if (!family_has(f, p) || (c->no_qk_norm && (p->role == ROLE_Q_NORM || p->role == ROLE_K_NORM)))
        return false;
    if (p->role == ROLE_Q_WHOLE || p->role == ROLE_Q_A || p->role == ROLE_Q_A_NORM || p->role == ROLE_Q_B)
        return (p->role == ROLE_Q_WHOLE) == !c->mla.q_rank;
    if (p->role == ROLE_KV_B || p->role == ROLE_K_B || p->role == ROLE_V_B)
        return (p->role != ROLE_KV_B) == c->mla.split;
    /* All of attention but its norms is another thing in layers with the gated delta rule. */
    if (f && f->parts & PARTS_ANY_DELTA && p->half == HALF_ATTN && p->role != ROLE_ATTN_NORM &&
        ((p->of & PARTS_ANY_DELTA) != 0) != config_has_delta(c, layer))
        return false;
    if (p->of & PARTS_ANY_SHARED)
        return experts && c->experts.shared_width;
    if (p->half == HALF_FFN && p->kind == PART_MATRIX) /* the whole of it */
        return !experts;
    return p->half != HALF_EXPERTS || experts;
}

static uint32_t width(enum width w, const struct model_config *c)
{
    switch (w) {
    case WIDTH_HIDDEN:
        return c->hidden_size;
    case WIDTH_HEAD:
        return c->head_dim;
    case WIDTH_HEAD_COUNT:
        return c->num_heads;
    case WIDTH_HEADS:
        return c->num_heads * c->head_dim;
    case WIDTH_KV_HEADS:
        return c->num_kv_heads * c->head_dim;
    case WIDTH_QKV:
        return (c->num_heads + 2 * c->num_kv_heads) * c->head_dim;
    case WIDTH_MIDDLE:
        return c->intermediate_size;
    case WIDTH_TWO_MIDDLES:
        return 2 * c->intermediate_size;
    case WIDTH_EXPERT:
        return c->experts.width;
    case WIDTH_SHARED:
        return c->experts.shared_width;
    case WIDTH_TWO_SHARED:
        return 2 * c->experts.shared_width;
    case WIDTH_EXPERTS:
        return c->experts.n;
    case WIDTH_Q_RANK:
        return c->mla.q_rank;
    case WIDTH_KV_RANK:
        return c->mla.kv_rank;
    case WIDTH_KV_A:
        return c->mla.kv_rank + c->mla.turned;
    case WIDTH_KV_B:
        return c->num_heads * (c->mla.nope + c->mla.values);
    case WIDTH_K_B:
        return c->num_heads * c->mla.kv_rank;
    case WIDTH_NOPE:
        return c->mla.nope;
    case WIDTH_VALUES:
        return c->num_heads * c->mla.values;
    case WIDTH_TWO_HEADS:
        return 2 * c->num_heads * c->head_dim;
    case WIDTH_DELTA_MIXED:
        return config_delta_mixed(c);
    case WIDTH_DELTA_ALL:
        return config_delta_mixed(c) + config_delta_values(c);
    case WIDTH_DELTA_VALUES:
        return config_delta_values(c);
    case WIDTH_DELTA_VALUE:
        return c->delta.value_dim;
    case WIDTH_DELTA_HEADS:
        return c->delta.value_heads;
    case WIDTH_DELTA_TWO_HEADS:
        return 2 * c->delta.value_heads;
    case WIDTH_DELTA_TAPS:
        return c->delta.taps;
    case WIDTH_ONE:
        break;
    }
    return 1;
}

uint32_t block_part_rows(const struct block_part *p, const struct model_config *c)
{
    return width(p->rows, c);
}

uint32_t block_part_cols(const struct block_part *p, const struct model_config *c)
{
    return width(p->cols, c);
}

bool input_is_last(enum input in)
{
    return in == INPUT_HEADS || in == INPUT_MIDDLE;
}

/* ---- the matrices of a layer ---- */

const struct block_part *block_part_in(const struct model_config *c, uint32_t layer, uint32_t i)
{
    const struct family *f = family_of(c);
    for (size_t k = 0; k < N_PARTS; k++)
        if (block_has(c, f, layer, &parts[k]) && i-- == 0)
            return &parts[k];
    return NULL;
}

/* A layer's matrices, those of experts last, into out where it is not NULL; returns how many. */
static uint32_t list_layer(const struct model_config *c, const struct family *f, uint32_t layer,
                           struct block_matrix *out)
{
    const struct block_part *expert[EXPERT_MATRICES] = {NULL};
    uint32_t n = 0, of_expert = 0;
    for (const struct block_part *p = parts; p < parts + N_PARTS; p++) {
        if (p->kind != PART_MATRIX || !block_has(c, f, layer, p))
            continue;
        if (block_part_is_expert(p)) {
            expert[of_expert++] = p;
            continue;
        }
        if (out)
            out[n] = (struct block_matrix){.part = p,
                                           .rows = block_part_rows(p, c),
                                           .cols = block_part_cols(p, c),
                                           .pieces = p->input == INPUT_QUERIES ? c->num_heads : 1};
        n++;
    }
    for (uint32_t e = 0; of_expert && e < c->experts.n; e++)
        for (uint32_t i = 0; i < of_expert; i++, n++)
            if (out)
                out[n] = (struct block_matrix){.part = expert[i],
                                               .rows = block_part_rows(expert[i], c),
                                               .cols = block_part_cols(expert[i], c),
                                               .expert = e,
                                               .pieces = 1};
    return n;
}

uint32_t block_matrices(const struct model_config *c, uint32_t layer)
{
    return list_layer(c, family_of(c), layer, NULL);
}

bool model_shape_make(struct model_shape *s, const struct model_config *c, struct err *e)
{
    const struct family *f = family_of(c);
    *s = (struct model_shape){.layers = c->num_layers};
    s->first = calloc(s->layers + 1u, sizeof *s->first);
    if (!s->first)
        return err_nomem(e, "the shapes of a model", (s->layers + 1u) * sizeof *s->first);
    for (uint32_t layer = 0; layer < s->layers; layer++)
        s->first[layer + 1] = s->first[layer] + list_layer(c, f, layer, NULL);
    size_t n = s->first[s->layers];
    s->matrices = calloc(n ? n : 1, sizeof *s->matrices);
    if (!s->matrices)
        return err_nomem(e, "the shapes of a model", n * sizeof *s->matrices);
    for (uint32_t layer = 0; layer < s->layers; layer++)
        list_layer(c, f, layer, s->matrices + s->first[layer]);
    return true;
}

void model_shape_free(struct model_shape *s)
{
    free(s->first);
    free(s->matrices);
    *s = (struct model_shape){0};
}

struct block_shape model_shape_of(const struct model_shape *s, uint32_t layer)
{
    uint32_t first = s->first[layer];
    return (struct block_shape){s->matrices + first, s->first[layer + 1] - first};
}

struct block_shape block_common(struct block_shape b)
{
    b.n -= block_experts(b) * EXPERT_MATRICES;
    return b;
}

uint32_t block_experts(struct block_shape b)
{
    bool has = b.n && block_part_is_expert(b.matrices[b.n - 1].part);
    return has ? b.matrices[b.n - 1].expert + 1 : 0;
}

bool block_has_half(struct block_shape b, enum block_half half)
{
    uint32_t i = 0;
    while (i < b.n && b.matrices[i].part->half != half)
        i++;
    return half == HALF_ATTN || i < b.n;
}

struct block_shape block_expert(struct block_shape b, uint32_t expert)
{
    uint32_t common = b.n - block_experts(b) * EXPERT_MATRICES;
    return (struct block_shape){b.matrices + common + (size_t)expert * EXPERT_MATRICES, EXPERT_MATRICES};
}

bool block_shape_same(struct block_shape a, struct block_shape b)
{
    bool same = a.n == b.n;
    for (uint32_t i = 0; same && i < a.n; i++)
        same = a.matrices[i].part == b.matrices[i].part && a.matrices[i].rows == b.matrices[i].rows &&
               a.matrices[i].cols == b.matrices[i].cols;
    return same;
}

bool model_shape_is_new(const struct model_shape *s, uint32_t layer)
{
    bool new = true;
    for (uint32_t i = 0; new &&i < layer; i++)
        new = !block_shape_same(model_shape_of(s, i), model_shape_of(s, layer));
    return new;
}

uint32_t block_place(struct block_shape b, enum role role)
{
    uint32_t i = 0;
    while (i < b.n && b.matrices[i].part->role != role)
        i++;
    return i;
}

struct block_rows_at block_rows_at(struct block_shape b, const struct model_config *c, enum role role)
{
    uint32_t q = c->num_heads * c->head_dim, kv = c->num_kv_heads * c->head_dim, at = block_place(b, role);
    bool up = role == ROLE_UP, attn = role == ROLE_Q || role == ROLE_K || role == ROLE_V;
    if (at < b.n && b.matrices[at].part->half == HALF_EXPERTS && b.n > EXPERT_MATRICES)
        at = b.n; /* one of many; those of the half itself come first */
    struct block_rows_at x = {.at = at};
    if (at < b.n) {
        x.rows = b.matrices[at].rows;
    } else if (attn || up || role == ROLE_GATE) {
        x.at = block_place(b, attn ? ROLE_QKV : ROLE_GATE_UP);
        uint32_t half = x.at < b.n ? b.matrices[x.at].rows / 2 : 0;
        x.row0 = role == ROLE_K ? q : role == ROLE_V ? q + kv : up ? half : 0;
        x.rows = role == ROLE_Q ? q : attn ? kv : half;
    }
    if (x.at < b.n)
        x.cols = b.matrices[x.at].cols;
    else
        x = (struct block_rows_at){.at = b.n};
    return x;
}

/* The place of the first matrix of a half that reads it; b.n: none does. */
static uint32_t reader(struct block_shape b, enum block_half half, enum input in)
{
    uint32_t i = 0;
    while (i < b.n && !(b.matrices[i].part->half == half && b.matrices[i].part->input == in))
        i++;
    return i;
}

uint32_t block_input_cols(struct block_shape b, enum block_half half, enum input in)
{
    uint32_t at = reader(b, half, in);
    return at < b.n ? b.matrices[at].cols : 0;
}

uint32_t block_input_pieces(struct block_shape b, enum block_half half, enum input in)
{
    uint32_t at = reader(b, half, in);
    return at < b.n ? b.matrices[at].pieces : 0;
}

uint32_t model_shape_rows(const struct model_shape *s, const struct model_config *c, enum role role)
{
    uint32_t widest = 0;
    for (uint32_t layer = 0; layer < s->layers; layer++) {
        struct block_rows_at x = block_rows_at(model_shape_of(s, layer), c, role);
        widest = x.rows > widest ? x.rows : widest;
    }
    return widest;
}

uint32_t model_shape_input(const struct model_shape *s, enum input in)
{
    uint32_t widest = 0;
    for (uint32_t i = 0; i < s->first[s->layers]; i++)
        if (s->matrices[i].part->input == in && s->matrices[i].cols > widest)
            widest = s->matrices[i].cols;
    return widest;
}
