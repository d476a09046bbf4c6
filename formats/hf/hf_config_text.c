/* A model_config as the text of a config.json. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/family.h"
#include "formats/hf/hf_config.h"
#include "host/base/str.h"

/* The shortest spelling that reads back as the same f32, or the same f64 where v is no f32. */
static void put_number(struct strbuf *b, const char *key, double v)
{
    char text[40];
    bool single = (double)(float)v == v;
    if (v == floor(v) && fabs(v) < 1e15) {
        strbuf_printf(b, "%s%.1f", key, v);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (single ? strtof(text, NULL) == (float)v : strtod(text, NULL) == v)
            break;
    }
    strbuf_printf(b, "%s%s%s", key, text, strpbrk(text, ".e") ? "" : ".0");
}

static void put_string(struct strbuf *b, const char *key, const char *value)
{
    strbuf_puts(b, key);
    strbuf_json(b, value);
}

static void put_factors(struct strbuf *b, const char *key, const struct model_config *c, const float *factors)
{
    strbuf_printf(b, ", \"%s\": [", key);
    for (uint32_t i = 0; i < config_rope_dim(c) / 2; i++)
        put_number(b, i ? ", " : "", (double)factors[i]);
    strbuf_puts(b, "]");
}

/* What scales the scores of latent attention is said by two numbers of which the quotient scales cos and sin. */
static void put_latent_scale(struct strbuf *b, const struct model_config *c)
{
    double m = sqrt(config_attention_scale(c) * sqrt(c->head_dim)) - 1;
    if (!c->mla.kv_rank || c->rope_factor <= 1 || !(c->attention_scale > 0))
        return;
    double all = rint(1e6 * m / (0.1 * log(c->rope_factor))) / 1e6;
    put_number(b, ", \"mscale\": ", all);
    put_number(b, ", \"mscale_all_dim\": ", all);
}

static void put_rope(struct strbuf *b, const struct model_config *c)
{
    put_number(b, ",\n  \"rope_theta\": ", c->rope_theta);
    if (config_rope_dim(c) < c->head_dim && !c->mla.kv_rank)
        put_number(b, ",\n  \"partial_rotary_factor\": ", (double)c->rope_dim / c->head_dim);
    strbuf_puts(b, ",\n  \"rope_scaling\": ");
    switch (c->rope_scaling) {
    case ROPE_UNSCALED:
        strbuf_puts(b, "null");
        return;
    case ROPE_LINEAR:
        put_number(b, "{\"rope_type\": \"linear\", \"factor\": ", c->rope_factor);
        break;
    case ROPE_LLAMA3:
        put_number(b, "{\"rope_type\": \"llama3\", \"factor\": ", c->rope_factor);
        put_number(b, ", \"low_freq_factor\": ", c->rope_low_freq);
        put_number(b, ", \"high_freq_factor\": ", c->rope_high_freq);
        strbuf_printf(b, ", \"original_max_position_embeddings\": %u", (unsigned)c->rope_original_context);
        break;
    case ROPE_YARN:
        put_number(b, "{\"rope_type\": \"yarn\", \"factor\": ", c->rope_factor);
        strbuf_printf(b, ", \"original_max_position_embeddings\": %u", (unsigned)c->rope_original_context);
        put_number(b, ", \"attention_factor\": ", rope_attention(c));
        put_number(b, ", \"beta_fast\": ", c->rope_beta_fast);
        put_number(b, ", \"beta_slow\": ", c->rope_beta_slow);
        put_latent_scale(b, c);
        strbuf_puts(b, c->rope_unrounded ? ", \"truncate\": false" : "");
        if (c->query_growth > 0)
            put_number(b, ", \"llama_4_scaling_beta\": ", c->query_growth);
        break;
    case ROPE_FACTORS: /* what transformers calls the same */
        put_number(b, "{\"rope_type\": \"longrope\", \"attention_factor\": ", rope_attention(c));
        strbuf_printf(b, ", \"original_max_position_embeddings\": %u",
                      (unsigned)(c->rope_factors_long ? c->rope_original_context : c->max_position));
        put_factors(b, "short_factor", c, c->rope_factors);
        put_factors(b, "long_factor", c, c->rope_factors_long ? c->rope_factors_long : c->rope_factors);
        break;
    }
    strbuf_puts(b, "}");
}

/* Older readers of Qwen's configs know max_window_layers, newer ones layer_types: where the first layers are full and the
 * others slide, both are said. */
static void put_windows(struct strbuf *b, const struct model_config *c)
{
    const struct family *f = family_of(c);
    if (!c->sliding_window) {
        if (strcmp(c->model_type, "mistral") == 0)
            strbuf_puts(b, ",\n  \"sliding_window\": null");
        return;
    }
    bool steps = f && f->usual_full_step; /* a list says it */
    uint32_t first = 0, next;
    while (c->slides && !c->slides[first])
        first++;
    for (next = first; c->slides && next < c->num_layers && c->slides[next];)
        next++;
    strbuf_printf(b, ",\n  \"sliding_window\": %u", (unsigned)c->sliding_window);
    if (!steps)
        strbuf_puts(b, ",\n  \"use_sliding_window\": true");
    if (!steps && (!c->slides || next == c->num_layers))
        strbuf_printf(b, ",\n  \"max_window_layers\": %u", (unsigned)first);
    if (!c->slides && !steps)
        return;
    strbuf_puts(b, ",\n  \"layer_types\": [");
    for (uint32_t i = 0; i < c->num_layers; i++)
        strbuf_printf(b, "%s\"%s_attention\"", i ? ", " : "", !c->slides || c->slides[i] ? "sliding" : "full");
    strbuf_puts(b, "]");
}

static void put_multipliers(struct strbuf *b, const struct model_config *c)
{
    const struct family *f = family_of(c);
    if (f && f->usual_query_scale)
        put_number(b, ",\n  \"query_pre_attn_scalar\": ", pow(config_attention_scale(c), -2));
    if (c->score_cap > 0)
        put_number(b, ",\n  \"attn_logit_softcapping\": ", c->score_cap);
    if (c->logit_cap > 0)
        put_number(b, ",\n  \"final_logit_softcapping\": ", c->logit_cap);
    if (f && f->usual_local_theta > 0)
        put_number(b, ",\n  \"rope_local_base_freq\": ", c->rope_local_theta);
    if (!f || !f->multipliers)
        return;
    put_number(b, ",\n  \"embedding_multiplier\": ", config_factor(c->embedding_scale));
    put_number(b, ",\n  \"attention_multiplier\": ", config_attention_scale(c));
    put_number(b, ",\n  \"residual_multiplier\": ", config_factor(c->residual_scale));
    put_number(b, ",\n  \"logits_scaling\": ", config_factor(c->logit_divisor));
}

static void put_no_rope(struct strbuf *b, const struct model_config *c)
{
    if (!c->no_rope)
        return;
    strbuf_puts(b, ",\n  \"no_rope_layers\": [");
    for (uint32_t i = 0; i < c->num_layers; i++)
        strbuf_printf(b, "%s%d", i ? ", " : "", !c->no_rope[i]);
    strbuf_puts(b, "]");
}

static void put_experts(struct strbuf *b, const struct model_config *c)
{
    const struct expert_config *x = &c->experts;
    const struct family *f = family_of(c);
    bool block = f && f->parts & (PARTS_EXPERTS_BLOCK | PARTS_EXPERTS_STACKED | PARTS_GPT_OSS),
         plain = f && f->parts & PARTS_SHARED_PLAIN;
    if (f && f->qk_norm_said)
        strbuf_printf(b, ",\n  \"use_qk_norm\": %s", c->no_qk_norm ? "false" : "true");
    if (!x->n)
        return;
    if (c->next_token_layers)
        strbuf_printf(b, ",\n  \"num_nextn_predict_layers\": %u", (unsigned)c->next_token_layers);
    strbuf_printf(b, ",\n  \"%s\": %u,\n  \"num_experts_per_tok\": %u",
                  block   ? "num_local_experts"
                  : plain ? "n_routed_experts"
                          : "num_experts",
                  (unsigned)x->n, (unsigned)x->used);
    if (block && f->parts & PARTS_SHARED_FUSED)
        strbuf_printf(b, ",\n  \"shared_intermediate_size\": %u", (unsigned)x->shared_width);
    if (block)
        return;
    strbuf_printf(b, ",\n  \"moe_intermediate_size\": %u,\n  \"norm_topk_prob\": %s", (unsigned)x->width,
                  x->renormalise ? "true" : "false");
    if (plain) {
        strbuf_printf(
            b,
            ",\n  \"n_shared_experts\": %u,\n  \"first_k_dense_replace\": %u,\n  \"moe_layer_freq\": 1,\n"
            "  \"n_group\": %u,\n  \"topk_group\": %u,\n  \"scoring_func\": \"%s\",\n  \"topk_method\": \"%s\"",
            (unsigned)(x->shared_width / x->width), (unsigned)x->first_dense, (unsigned)x->groups,
            (unsigned)x->groups_used, x->gating == GATING_SIGMOID ? "sigmoid" : "softmax",
            x->gating == GATING_SIGMOID ? "noaux_tc"
            : x->groups > 1             ? "group_limited_greedy"
                                        : "greedy");
        put_number(b, ",\n  \"routed_scaling_factor\": ", (double)x->scale);
    } else if (x->shared_width) {
        strbuf_printf(b, ",\n  \"shared_expert_intermediate_size\": %u", (unsigned)x->shared_width);
    }
}

static void put_latent(struct strbuf *b, const struct mla_config *x)
{
    if (!x->kv_rank)
        return;
    if (x->q_rank)
        strbuf_printf(b, ",\n  \"q_lora_rank\": %u", (unsigned)x->q_rank);
    else
        strbuf_puts(b, ",\n  \"q_lora_rank\": null");
    strbuf_printf(b,
                  ",\n  \"kv_lora_rank\": %u,\n  \"qk_nope_head_dim\": %u,\n  \"qk_rope_head_dim\": %u,\n"
                  "  \"v_head_dim\": %u",
                  (unsigned)x->kv_rank, (unsigned)x->nope, (unsigned)x->turned, (unsigned)x->values);
}

static void put_delta(struct strbuf *b, const struct model_config *c)
{
    const struct delta_config *x = &c->delta;
    if (!x->value_heads)
        return;
    strbuf_printf(
        b,
        ",\n  \"linear_num_key_heads\": %u,\n  \"linear_num_value_heads\": %u,\n  \"linear_key_head_dim\": %u,\n"
        "  \"linear_value_head_dim\": %u,\n  \"linear_conv_kernel_dim\": %u,\n  \"layer_types\": [",
        (unsigned)x->key_heads, (unsigned)x->value_heads, (unsigned)x->key_dim, (unsigned)x->value_dim,
        (unsigned)x->taps);
    for (uint32_t i = 0; i < c->num_layers; i++)
        strbuf_printf(b, "%s\"%s_attention\"", i ? ", " : "", x->layers[i] ? "linear" : "full");
    strbuf_puts(b, "]");
}

bool hf_config_text(const struct model_config *c, char **text, size_t *size, struct err *e)
{
    struct strbuf b = {0};
    strbuf_puts(&b, "{");
    if (c->architecture[0]) {
        put_string(&b, "\n  \"architectures\": [", c->architecture);
        strbuf_puts(&b, "],");
    }
    put_string(&b, "\n  \"model_type\": ", c->model_type);
    strbuf_printf(&b,
                  ",\n  \"hidden_size\": %u,\n  \"intermediate_size\": %u,\n  \"num_hidden_layers\": %u,\n"
                  "  \"num_attention_heads\": %u,\n  \"num_key_value_heads\": %u",
                  (unsigned)c->hidden_size, (unsigned)c->intermediate_size, (unsigned)c->num_layers,
                  (unsigned)c->num_heads, (unsigned)c->num_kv_heads);
    if (!c->mla.kv_rank)
        strbuf_printf(&b, ",\n  \"head_dim\": %u", (unsigned)c->head_dim);
    put_latent(&b, &c->mla);
    put_delta(&b, c);
    strbuf_printf(&b, ",\n  \"vocab_size\": %u", (unsigned)c->vocab_size);
    if (c->max_position)
        strbuf_printf(&b, ",\n  \"max_position_embeddings\": %u", (unsigned)c->max_position);
    put_number(&b, ",\n  \"rms_norm_eps\": ", (double)c->rms_eps);
    put_rope(&b, c);
    put_windows(&b, c);
    put_multipliers(&b, c);
    put_no_rope(&b, c);
    put_experts(&b, c);
    put_string(&b, c->gelu ? ",\n  \"hidden_activation\": " : ",\n  \"hidden_act\": ", c->hidden_act);
    strbuf_printf(&b, ",\n  \"tie_word_embeddings\": %s", c->tie_word_embeddings ? "true" : "false");
    if (c->attention_bias)
        strbuf_puts(&b, ",\n  \"attention_bias\": true");
    if (c->mlp_bias)
        strbuf_puts(&b, ",\n  \"mlp_bias\": true");
    if (c->bos_id >= 0)
        strbuf_printf(&b, ",\n  \"bos_token_id\": %lld", (long long)c->bos_id);
    if (c->eos_id >= 0)
        strbuf_printf(&b, ",\n  \"eos_token_id\": %lld", (long long)c->eos_id);
    if (c->torch_dtype[0])
        put_string(&b, ",\n  \"torch_dtype\": ", c->torch_dtype);
    strbuf_puts(&b, "\n}\n");
    if (b.failed)
        return err_nomem(e, "config.json", b.size);
    *text = b.data;
    *size = b.size;
    return true;
}
