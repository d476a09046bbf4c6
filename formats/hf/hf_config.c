/* config.json: the shape of the model. How it is quantized is read in hf_quant.c. */
#include "formats/hf/hf_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/family.h"
#include "formats/hf/hf_quant.h"
#include "formats/json.h"

/* What every reader below needs: the object, and how to speak of it. */
struct reader {
    const cJSON *o;
    const cJSON *outer; /* of a text part: the whole, which may say what that does not; NULL: o is the whole */
    const char *path;
    const char *where; /* "" or "rope_scaling." in front of a key */
    bool lenient;      /* a missing key is 0: gsq does not compute this model anyway */
    struct err *e;
};

/* A key of the model or, where its text part lacks it, of what that is part of. */
static const cJSON *get_either(const struct reader *r, const char *key)
{
    const cJSON *item = json_get(r->o, key);
    return item || !r->outer ? item : json_get(r->outer, key);
}

static bool bad(const struct reader *r, const char *key, const char *what)
{
    err_set(r->e, ERR_USER, "%s: \"%s%s\" %s", r->path, r->where, key, what);
    return err_hint(r->e, "check config.json against the one of the original model");
}

/* An integer within [lo, hi]; an absent one is `fallback`, or an error if fallback < 0. */
static bool read_u32(const struct reader *r, const char *key, uint32_t lo, uint32_t hi, int64_t fallback, uint32_t *out)
{
    const cJSON *item = json_get(r->o, key);
    uint64_t v;
    if (!item) {
        if (fallback < 0 && !r->lenient)
            return bad(r, key, "is missing");
        *out = fallback < 0 ? 0 : (uint32_t)fallback;
        return true;
    }
    if (!json_u64(item, &v) || v < lo || v > hi) {
        err_set(r->e, ERR_USER, "%s: \"%s%s\" must be a whole number from %u to %u", r->path, r->where, key, lo, hi);
        return err_hint(r->e, "check config.json against the one of the original model");
    }
    *out = (uint32_t)v;
    return true;
}

/* A number within (0, 1e12); an absent one is `fallback`, or an error if fallback is 0. */
static bool read_positive(const struct reader *r, const char *key, double fallback, double *out)
{
    const cJSON *item = json_get(r->o, key);
    if (!item && fallback == 0 && !r->lenient)
        return bad(r, key, "is missing");
    *out = item ? item->valuedouble : fallback;
    if (item && (!cJSON_IsNumber(item) || !(*out > 0 && *out < 1e12)))
        return bad(r, key, "must be a positive number");
    return true;
}

static bool read_bool(const struct reader *r, const char *key, bool fallback, bool *out)
{
    const cJSON *item = get_either(r, key);
    if (item && !cJSON_IsBool(item))
        return bad(r, key, "must be true or false");
    *out = item ? cJSON_IsTrue(item) : fallback;
    return true;
}

/* A string that fits; an absent one is "". */
static bool read_text(const struct reader *r, const char *key, char *out, size_t cap)
{
    const cJSON *item = json_get(r->o, key);
    out[0] = 0;
    if (!item)
        return true;
    if (!cJSON_IsString(item) || strlen(item->valuestring) >= cap)
        return bad(r, key, "must be a short string");
    memcpy(out, item->valuestring, strlen(item->valuestring) + 1);
    return true;
}

/* A token id: a number, the first of a list, or null. Some tools write -1 for none. */
static bool read_token(const struct reader *r, const char *key, int64_t *out)
{
    const cJSON *item = get_either(r, key);
    uint64_t v;
    if (cJSON_IsArray(item))
        item = item->child;
    *out = -1;
    if (!item || (cJSON_IsNumber(item) && item->valuedouble == -1))
        return true;
    if (!json_u64(item, &v) || v > INT32_MAX)
        return bad(r, key, "must be a token id, a list of them, or null");
    *out = (int64_t)v;
    return true;
}

static bool read_dtype(const struct reader *r, struct model_config *c)
{
    return read_text(r, json_get(r->o, "torch_dtype") ? "torch_dtype" : "dtype", c->torch_dtype, sizeof c->torch_dtype);
}

static bool read_architecture(const struct reader *r, struct model_config *c)
{
    const cJSON *list = json_get(r->o, "architectures");
    if (list && (!cJSON_IsArray(list) || (list->child && !cJSON_IsString(list->child))))
        return bad(r, "architectures", "must be a list of names");
    if (list && list->child) {
        if (strlen(list->child->valuestring) >= sizeof c->architecture)
            return bad(r, "architectures", "holds an impossibly long name");
        strcpy(c->architecture, list->child->valuestring);
    }
    return read_text(r, "model_type", c->model_type, sizeof c->model_type) && read_dtype(r, c);
}

/* Multi-head latent attention; newer files have a head_dim too, of RoPE's part alone. */
static bool read_mla(const struct reader *r, struct model_config *c)
{
    struct mla_config *x = &c->mla;
    bool interleaved;
    if (!read_u32(r, "q_lora_rank", 1, 1u << 20, 0, &x->q_rank) ||
        !read_u32(r, "kv_lora_rank", 1, 1u << 20, -1, &x->kv_rank) ||
        !read_u32(r, "qk_nope_head_dim", 1, 1u << 12, -1, &x->nope) ||
        !read_u32(r, "qk_rope_head_dim", 1, 1u << 12, -1, &x->turned) ||
        !read_u32(r, "v_head_dim", 1, 1u << 12, -1, &x->values) || !read_bool(r, "rope_interleave", true, &interleaved))
        return false;
    if (x->turned % 2)
        return bad(r, "qk_rope_head_dim", "must be even (rotary embeddings rotate pairs)");
    if (x->nope % 2)
        return bad(r, "qk_nope_head_dim", "must be even");
    if (x->values > x->nope + x->turned)
        config_unsupported(c, "gsq computes values that are at most as wide as keys",
                           "%s: \"v_head_dim\" is more than qk_nope_head_dim + qk_rope_head_dim", r->path);
    if (!interleaved)
        config_unsupported(c, "gsq turns pairs side by side in this architecture",
                           "%s: \"rope_interleave\" is false, which gsq does not compute", r->path);
    c->head_dim = x->nope + x->turned;
    c->num_kv_heads = c->num_heads; /* of what attention reads once each head has its own */
    return true;
}

static bool read_shape(const struct reader *r, struct model_config *c)
{
    const struct family *f = family_of(c);
    for (const struct config_number *x = config_numbers; x < config_numbers + CONFIG_NUMBERS; x++) {
        uint32_t usual = f ? family_usual(f, x->at) : 0;
        if (!read_u32(r, x->hf, x->lo, x->hi, usual ? usual : x->fallback, (uint32_t *)(void *)((char *)c + x->at)))
            return false;
    }
    if (f && f->parts & PARTS_MLA && !read_mla(r, c))
        return false;
    char what[128];
    const struct config_number *odd = config_settle_shape(c, false, what);
    return !odd || r->lenient || bad(r, odd->hf, what);
}

/* ---- windows ---- */

/* Whether a list of kinds of layers is one of full and sliding ones; fills c->slides. */
static bool read_layer_types(const struct reader *r, struct model_config *c)
{
    const cJSON *list = json_get(r->o, "layer_types"), *item;
    uint32_t n = 0;
    if (!cJSON_IsArray(list) || (uint32_t)cJSON_GetArraySize(list) != c->num_layers)
        return bad(r, "layer_types", "must be a list with one kind for each layer");
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsString(item))
            return bad(r, "layer_types", "must be a list of names");
        c->slides[n++] = strcmp(item->valuestring, "sliding_attention") == 0;
        if (!c->slides[n - 1] && strcmp(item->valuestring, "full_attention") != 0)
            config_unsupported(c, "gsq supports full_attention and sliding_attention",
                               "%s: gsq does not support layers of the kind \"%.60s\"", r->path, item->valuestring);
    }
    return true;
}

/* What is capped by tanh in some models: null and 0 are none. */
static bool read_cap(const struct reader *r, const char *key, double usual, double *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(r->o, key);
    *out = item ? 0 : usual;
    bool none = !item || cJSON_IsNull(item) || (cJSON_IsNumber(item) && item->valuedouble == 0);
    return none || read_positive(r, key, 1, out);
}

/* The factors of a family that has them. */
static bool read_multipliers(const struct reader *r, struct model_config *c)
{
    const struct family *f = family_of(c);
    double query = 0;
    if (f && f->embedding_root)
        c->embedding_scale = sqrt(c->hidden_size);
    if (f && f->usual_query_scale) {
        if (!read_positive(r, "query_pre_attn_scalar", f->usual_query_scale, &query))
            return false;
        c->attention_scale = 1 / sqrt(query);
    }
    if (f && (!read_cap(r, "attn_logit_softcapping", f->usual_score_cap, &c->score_cap) ||
              !read_cap(r, "final_logit_softcapping", f->usual_logit_cap, &c->logit_cap)))
        return false;
    bool normed = !f || !f->qk_norm_said;
    if (!normed && !read_bool(r, "use_qk_norm", false, &normed))
        return false;
    c->no_qk_norm = !normed;
    return !f || !f->multipliers ||
           (read_positive(r, "embedding_multiplier", 1, &c->embedding_scale) &&
            read_positive(r, "attention_multiplier", 1, &c->attention_scale) &&
            read_positive(r, "residual_multiplier", 1, &c->residual_scale) &&
            read_positive(r, "logits_scaling", 1, &c->logit_divisor));
}

/* Layers without RoPE: a list, in which 1 is with it, or every so many. */
static bool read_no_rope(const struct reader *r, struct model_config *c)
{
    const struct family *f = family_of(c);
    const cJSON *list = json_get(r->o, "no_rope_layers"), *item;
    uint32_t step, n = 0;
    if (!f || !f->usual_rope_step || !c->num_layers)
        return true;
    if (!read_u32(r, "no_rope_layer_interval", 1, UINT32_MAX, f->usual_rope_step, &step))
        return false;
    if (list && (!cJSON_IsArray(list) || (uint32_t)cJSON_GetArraySize(list) != c->num_layers))
        return bad(r, "no_rope_layers", "must be a list with one number for each layer");
    if (!(c->no_rope = calloc(c->num_layers, sizeof *c->no_rope)))
        return err_nomem(r->e, "the kinds of layers", c->num_layers);
    for (; !list && n < c->num_layers; n++)
        c->no_rope[n] = (n + 1) % step == 0;
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsNumber(item))
            return bad(r, "no_rope_layers", "must be a list of numbers");
        c->no_rope[n++] = item->valuedouble == 0;
    }
    return true;
}

/* Which layers slide: transformers' rules. In Qwen2 and Qwen3 none, unless use_sliding_window says so, and then
 * those from max_window_layers on; a list of kinds decides where there is one. */
static bool read_windows(const struct reader *r, struct model_config *c)
{
    const struct family *f = family_of(c);
    bool list = json_get(r->o, "layer_types") != NULL, use;
    /* Their classes' values for an absent key; null is none. */
    bool absent = !cJSON_GetObjectItemCaseSensitive(r->o, "sliding_window");
    uint32_t usual = absent && f ? f->usual_window : 0, full = f ? f->usual_full_layers : 0, first;
    uint32_t step = f ? f->usual_full_step : 0;
    if (!read_u32(r, "sliding_window", 1, UINT32_MAX, usual, &c->sliding_window) ||
        !read_bool(r, "use_sliding_window", !full || list, &use) ||
        !read_u32(r, "max_window_layers", 0, UINT32_MAX, full, &first) ||
        (step && !read_u32(r, "sliding_window_pattern", 1, UINT32_MAX, step, &step)))
        return false;
    if (!use)
        c->sliding_window = 0;
    if (!c->sliding_window || !c->num_layers || (!list && !full && !step))
        return true;
    c->slides = calloc(c->num_layers, sizeof *c->slides);
    if (!c->slides)
        return err_nomem(r->e, "the kinds of layers", c->num_layers);
    for (uint32_t i = 0; i < c->num_layers && !list; i++)
        c->slides[i] = step ? (i + 1) % step != 0 : i >= first;
    if (list && !read_layer_types(r, c))
        return false;
    config_settle_slides(c);
    return true;
}

/* ---- the gated delta rule ---- */

/* Which layers have it: a list of kinds says, or all but every n-th. */
static bool read_delta_layers(const struct reader *r, struct model_config *c)
{
    const cJSON *list = json_get(r->o, "layer_types"), *item;
    uint32_t step, n = 0;
    if (!read_u32(r, "full_attention_interval", 1, UINT32_MAX, 4, &step))
        return false;
    if (list && (!cJSON_IsArray(list) || (uint32_t)cJSON_GetArraySize(list) != c->num_layers))
        return bad(r, "layer_types", "must be a list with one kind for each layer");
    if (!(c->delta.layers = calloc(c->num_layers + 1u, sizeof *c->delta.layers)))
        return err_nomem(r->e, "the kinds of layers", c->num_layers);
    for (; !list && n < c->num_layers; n++)
        c->delta.layers[n] = (n + 1) % step != 0;
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsString(item))
            return bad(r, "layer_types", "must be a list of names");
        c->delta.layers[n++] = strcmp(item->valuestring, "linear_attention") == 0;
        if (!c->delta.layers[n - 1] && strcmp(item->valuestring, "full_attention") != 0)
            config_unsupported(c, "in this family gsq supports full_attention and linear_attention",
                               "%s: gsq does not support layers of the kind \"%.60s\"", r->path, item->valuestring);
    }
    return true;
}

static bool read_delta(const struct reader *r, struct model_config *c)
{
    const struct family *f = family_of(c);
    struct delta_config *x = &c->delta;
    char gate[32];
    bool gated;
    if (!f || !(f->parts & PARTS_ANY_DELTA))
        return true;
    if (!read_u32(r, "linear_num_key_heads", 1, 1u << 12, 16, &x->key_heads) ||
        !read_u32(r, "linear_num_value_heads", 1, 1u << 12, 32, &x->value_heads) ||
        !read_u32(r, "linear_key_head_dim", 1, 1u << 12, 128, &x->key_dim) ||
        !read_u32(r, "linear_value_head_dim", 1, 1u << 12, 128, &x->value_dim) ||
        !read_u32(r, "linear_conv_kernel_dim", 1, 64, 4, &x->taps) || !read_bool(r, "attn_output_gate", true, &gated) ||
        !read_text(r, "output_gate_type", gate, sizeof gate))
        return false;
    if (x->value_heads % x->key_heads)
        return bad(r, "linear_num_key_heads", "must divide linear_num_value_heads");
    if (!gated)
        config_unsupported(c, "gsq supports models whose q_proj has a gate for each head",
                           "%s: \"attn_output_gate\" is false, which gsq does not compute", r->path);
    if (gate[0] && strcmp(gate, "swish") != 0 && strcmp(gate, "silu") != 0)
        config_unsupported(c, "gsq supports swish (also called silu)",
                           "%s: gsq does not support the \"output_gate_type\" %s", r->path, gate);
    return read_delta_layers(r, c);
}

/* ---- experts ---- */

/* Layers that have none although their number says so. */
static bool read_dense_layers(const struct reader *r, struct model_config *c)
{
    const cJSON *list = json_get(r->o, "mlp_only_layers"), *item;
    uint64_t layer;
    if (!list || (cJSON_IsArray(list) && !list->child))
        return true;
    c->experts.dense = calloc(c->num_layers + 1u, sizeof *c->experts.dense);
    if (!c->experts.dense)
        return err_nomem(r->e, "the kinds of layers", c->num_layers);
    if (!cJSON_IsArray(list))
        return bad(r, "mlp_only_layers", "must be a list of layers");
    cJSON_ArrayForEach(item, list)
    {
        if (!json_u64(item, &layer))
            return bad(r, "mlp_only_layers", "must be a list of layers");
        if (layer < c->num_layers)
            c->experts.dense[layer] = true;
    }
    return true;
}

/* How many experts every token goes through, as the width of one. */
static bool read_shared(const struct reader *r, const struct family *f, struct expert_config *x)
{
    uint32_t n;
    if (f->parts & PARTS_SHARED_GATED)
        return read_u32(r, "shared_expert_intermediate_size", 0, 1u << 24, 0, &x->shared_width);
    if (f->parts & PARTS_SHARED_FUSED)
        return read_u32(r, "shared_intermediate_size", 0, 1u << 24, 0, &x->shared_width);
    if (!(f->parts & PARTS_SHARED_PLAIN))
        return true;
    if (!read_u32(r, "n_shared_experts", 0, 64, 0, &n))
        return false;
    x->shared_width = n * x->width;
    return true;
}

static bool read_router(const struct reader *r, const struct family *f, struct expert_config *x)
{
    char scoring[32], method[32];
    double scale;
    if (!read_text(r, "scoring_func", scoring, sizeof scoring) || !read_text(r, "topk_method", method, sizeof method) ||
        !read_bool(r, "norm_topk_prob", f->renormalise, &x->renormalise) ||
        !read_positive(r, "routed_scaling_factor", 1, &scale) || !read_u32(r, "n_group", 1, x->n, 1, &x->groups) ||
        !read_u32(r, "topk_group", 1, x->groups, x->groups, &x->groups_used))
        return false;
    x->gating = f->gating;
    x->scale = (float)scale;
    bool sigmoid = x->gating == GATING_SIGMOID, greedy = strcmp(method, "greedy") == 0;
    bool limited = x->gating == GATING_SOFTMAX && strcmp(method, "group_limited_greedy") == 0;
    if (x->gating == GATING_SOFTMAX && !limited) /* DeepSeek-V2's configs name groups that are not used */
        x->groups = x->groups_used = 1;
    if (scoring[0] && strcmp(scoring, sigmoid ? "sigmoid" : "softmax") != 0)
        return bad(r, "scoring_func", "is not what this architecture computes");
    if (method[0] && !limited && !(sigmoid ? strcmp(method, "noaux_tc") == 0 : greedy))
        return bad(r, "topk_method", "is none that gsq computes");
    bool groups;
    const char *odd = config_experts_odd(x, &groups);
    return !odd || bad(r, groups ? "n_group" : "num_experts_per_tok", odd);
}

/* Of families whose layers have experts; each names their number in its own way. */
static bool read_experts(const struct reader *r, struct model_config *c)
{
    static const char *const counts[] = {"num_experts", "num_local_experts", "n_routed_experts"};
    const struct family *f = family_of(c);
    struct expert_config *x = &c->experts;
    const char *count = counts[0];
    uint32_t freq;
    if (!f || !f->gating)
        return true;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (json_get(r->o, counts[i]))
            count = counts[i];
    bool own = json_get(r->o, "moe_intermediate_size") != NULL;
    if (!read_u32(r, count, 1, CONFIG_EXPERTS_MAX, -1, &x->n) ||
        !read_u32(r, "num_experts_per_tok", 1, x->n, -1, &x->used) ||
        !read_u32(r, own ? "moe_intermediate_size" : "intermediate_size", 1, 1u << 24, -1, &x->width) ||
        !read_u32(r, "first_k_dense_replace", 0, c->num_layers, 0, &x->first_dense) ||
        !read_u32(r, "decoder_sparse_step", 1, 10000, 1, &x->step) ||
        !read_u32(r, "moe_layer_freq", 1, 1, 1, &freq) || /* another name for 1 */
        !read_u32(r, "num_nextn_predict_layers", 0, 10000, 0, &c->next_token_layers))
        return false;
    double limit;
    if (f->clamped && !read_positive(r, "swiglu_limit", 7, &limit))
        return false;
    if (f->clamped && limit != 7)
        config_unsupported(c, "gsq computes a limit of 7", "%s: \"swiglu_limit\" is not 7", r->path);
    if (json_get(r->o, "clip_qkv"))
        config_unsupported(c, "gsq supports models that do not clip them",
                           "%s: \"clip_qkv\" limits queries, keys and values, which gsq does not", r->path);
    return read_dense_layers(r, c) && read_shared(r, f, x) && read_router(r, f, x);
}

static bool read_details(const struct reader *r, struct model_config *c)
{
    const struct family *f = family_of(c);
    double eps;
    if (!read_positive(r, "rms_norm_eps", f ? f->usual_eps : 0, &eps) ||
        !read_bool(r, "tie_word_embeddings", strncmp(c->model_type, "gemma", 5) == 0, &c->tie_word_embeddings) ||
        !read_token(r, "bos_token_id", &c->bos_id) || !read_token(r, "eos_token_id", &c->eos_id))
        return false;
    if (eps >= 1)
        return bad(r, "rms_norm_eps", "must be below 1");
    c->rms_eps = (float)eps;
    c->tie_unsaid = !get_either(r, "tie_word_embeddings");
    bool newer = json_get(r->o, "hidden_activation") || (f && f->gelu) || !json_get(r->o, "hidden_act");
    const char *key = newer ? "hidden_activation" : "hidden_act";
    if (!read_text(r, key, c->hidden_act, sizeof c->hidden_act))
        return false;
    if (!c->hidden_act[0])
        strcpy(c->hidden_act, f && f->gelu ? "gelu_pytorch_tanh" : "silu");
    c->gelu = f && f->gelu && strcmp(c->hidden_act, "gelu_pytorch_tanh") == 0;
    if (!c->gelu && strcmp(c->hidden_act, "silu") != 0 && strcmp(c->hidden_act, "swish") != 0)
        config_unsupported(c, "gsq supports silu (also called swish), and gelu_pytorch_tanh in Gemma",
                           "%s: gsq does not support the activation \"%s\"", r->path, c->hidden_act);
    return true;
}

/* ---- RoPE ---- */

static bool read_llama3(const struct reader *r, struct model_config *c)
{
    c->rope_scaling = ROPE_LLAMA3;
    if (!read_positive(r, "factor", 0, &c->rope_factor) || !read_positive(r, "low_freq_factor", 0, &c->rope_low_freq) ||
        !read_positive(r, "high_freq_factor", 0, &c->rope_high_freq) ||
        !read_u32(r, "original_max_position_embeddings", 1, UINT32_MAX, -1, &c->rope_original_context))
        return false;
    if (c->rope_high_freq <= c->rope_low_freq)
        return bad(r, "high_freq_factor", "must be above low_freq_factor");
    return true;
}

/* The context before it was stretched; where it is not said, the model's. */
static bool read_original(const struct reader *r, struct model_config *c)
{
    int64_t usual = c->rope_original_context ? (int64_t)c->rope_original_context /* said outside */
                    : c->max_position        ? (int64_t)c->max_position
                                             : -1;
    return read_u32(r, "original_max_position_embeddings", 1, UINT32_MAX, usual, &c->rope_original_context);
}

static bool read_yarn(const struct reader *r, struct model_config *c)
{
    double stretched, m, m_all;
    bool rounded;
    c->rope_scaling = ROPE_YARN;
    if (!read_original(r, c))
        return false;
    stretched = c->max_position > c->rope_original_context ? (double)c->max_position / c->rope_original_context : 0;
    if (!read_positive(r, "factor", stretched, &c->rope_factor) ||
        !read_positive(r, "beta_fast", 32, &c->rope_beta_fast) ||
        !read_positive(r, "beta_slow", 1, &c->rope_beta_slow) || !read_bool(r, "truncate", true, &rounded))
        return false;
    if (c->rope_beta_fast < c->rope_beta_slow)
        return bad(r, "beta_fast", "must not be below beta_slow");
    if (c->rope_theta <= 1)
        return bad(r, "rope_theta", "must be above 1 for yarn");
    c->rope_unrounded = !rounded;
    double usual = rope_yarn_attention(c->rope_factor);
    const cJSON *a = json_get(r->o, "mscale"), *b = json_get(r->o, "mscale_all_dim");
    m = cJSON_IsNumber(a) ? a->valuedouble : 0;
    m_all = cJSON_IsNumber(b) ? b->valuedouble : 0;
    if (m != 0 && m_all != 0 && c->rope_factor > 1)
        usual = (0.1 * m * log(c->rope_factor) + 1) / (0.1 * m_all * log(c->rope_factor) + 1);
    if (c->mla.kv_rank && m_all != 0 && c->rope_factor > 1) /* which scales scores in place of cos and sin */
        c->attention_scale = pow(0.1 * m_all * log(c->rope_factor) + 1, 2) / sqrt(c->head_dim);
    if (!(usual > 0 && usual < 1e12))
        return bad(r, "mscale", "must be a positive number");
    return read_positive(r, "attention_factor", usual, &c->rope_attention);
}

static bool read_factors(const struct reader *r, const char *key, uint32_t n, float **out)
{
    const cJSON *list = json_get(r->o, key), *item;
    uint32_t i = 0;
    if (!cJSON_IsArray(list) || (uint32_t)cJSON_GetArraySize(list) != n)
        return bad(r, key, "must be a list with a number for each pair that is turned");
    if (!(*out = malloc((n + 1) * sizeof **out)))
        return err_nomem(r->e, "the factors of longrope", n * sizeof **out);
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsNumber(item) || !(item->valuedouble > 0 && item->valuedouble < 1e12))
            return bad(r, key, "must hold positive numbers");
        (*out)[i++] = (float)item->valuedouble;
    }
    return true;
}

/* A factor for each pair: one list for short and one for long windows, which are alike in some families. */
static bool read_longrope(const struct reader *r, struct model_config *c)
{
    const struct family *f = family_of(c);
    const cJSON *one = json_get(r->o, "short_factor"), *other = json_get(r->o, "long_factor");
    uint32_t n = config_rope_dim(c) / 2;
    bool two = f && f->factor_lists;
    if (!read_original(r, c))
        return false;
    if (!two && (!cJSON_IsArray(one) || (uint32_t)cJSON_GetArraySize(one) != n || !cJSON_Compare(one, other, true))) {
        config_unsupported(c, "gsq supports default, linear, llama3, yarn, and longrope with one list for all windows",
                           "%s: gsq does not support longrope with two lists of factors", r->path);
        return true;
    }
    c->rope_scaling = ROPE_FACTORS;
    if (!read_factors(r, "short_factor", n, &c->rope_factors) ||
        (two && !read_factors(r, "long_factor", n, &c->rope_factors_long)))
        return false;
    double ratio = c->max_position > c->rope_original_context ? (double)c->max_position / c->rope_original_context : 1;
    double usual = ratio > 1 && c->rope_original_context > 1 ? sqrt(1 + log(ratio) / log(c->rope_original_context)) : 1;
    return read_positive(r, "attention_factor", usual, &c->rope_attention);
}

static bool read_scaling(const struct reader *r, struct model_config *c, const char *type)
{
    if (!type[0] || strcmp(type, "default") == 0)
        return true;
    if (strcmp(type, "linear") == 0) {
        c->rope_scaling = ROPE_LINEAR;
        return read_positive(r, "factor", 0, &c->rope_factor);
    }
    if (strcmp(type, "llama3") == 0)
        return read_llama3(r, c);
    if (strcmp(type, "yarn") == 0)
        return read_yarn(r, c);
    if (strcmp(type, "longrope") == 0 || strcmp(type, "su") == 0)
        return read_longrope(r, c);
    config_unsupported(c, "gsq supports default, linear, llama3, yarn, and longrope with one list for all windows",
                       "%s: gsq does not support the RoPE scaling \"%s\"", r->path, type);
    return true;
}

/* The usual base of layers that slide, once that of the others is known. */
static double local_theta(const struct family *f, const struct model_config *c)
{
    return f->usual_local_theta > 0 ? f->usual_local_theta : c->rope_theta;
}

/* rope_parameters of models whose layers that slide have another RoPE: an object for each kind. */
static bool read_rope_by_kind(const struct reader *top, const cJSON *o, struct model_config *c)
{
    struct reader full = *top, local = *top;
    char type[32];
    full.o = json_get(o, "full_attention");
    full.where = "rope_parameters.full_attention.";
    local.o = json_get(o, "sliding_attention");
    local.where = "rope_parameters.sliding_attention.";
    if (!cJSON_IsObject(full.o) || !cJSON_IsObject(local.o))
        return bad(top, "rope_parameters", "must have full_attention and sliding_attention");
    if (!read_positive(&local, "rope_theta", local_theta(family_of(c), c), &c->rope_local_theta) ||
        !read_positive(&full, "rope_theta", c->rope_theta, &c->rope_theta) ||
        !read_text(&local, "rope_type", type, sizeof type))
        return false;
    if (type[0] && strcmp(type, "default") != 0)
        config_unsupported(c, "gsq supports unscaled rotary embeddings in layers that slide",
                           "%s: gsq does not support the RoPE scaling \"%s\" in layers that slide", top->path, type);
    return read_text(&full, "rope_type", type, sizeof type) && read_scaling(&full, c, type);
}

/* rope_scaling, or rope_parameters of newer files, which hold rope_theta too. */
static bool read_rope(const struct reader *top, struct model_config *c)
{
    const char *name = json_get(top->o, "rope_parameters") ? "rope_parameters" : "rope_scaling";
    const cJSON *o = json_get(top->o, name);
    char where[32], type[32];
    snprintf(where, sizeof where, "%s%s.", top->where, name);
    struct reader r = *top;
    r.o = o;
    r.where = where;
    if (o && !cJSON_IsObject(o))
        return bad(top, name, "must be an object or null");
    double fraction;
    const struct family *f = family_of(c);
    if (!read_positive(top, "rope_theta", f && f->usual_theta > 0 ? f->usual_theta : 10000, &c->rope_theta))
        return false;
    for (const cJSON *item = o ? o->child : NULL; item; item = item->next)
        if (cJSON_IsObject(item)) {
            if (f && f->local_rope)
                return read_rope_by_kind(top, o, c);
            config_unsupported(c, "gsq supports models with the same rotary embedding in all layers",
                               "%s: \"%s%.60s\" is set per kind of layer, which gsq does not support", top->path, where,
                               item->string);
            return true;
        }
    if (f && f->local_rope && !read_positive(top, "rope_local_base_freq", local_theta(f, c), &c->rope_local_theta))
        return false;
    if (!read_positive(&r, "rope_theta", c->rope_theta, &c->rope_theta) ||
        !read_positive(top, "partial_rotary_factor", f && f->usual_rope_share > 0 ? f->usual_rope_share : 1,
                       &fraction) ||
        !read_positive(&r, "partial_rotary_factor", fraction, &fraction))
        return false;
    c->rope_dim = c->mla.kv_rank ? c->mla.turned : (uint32_t)(c->head_dim * fraction);
    if (c->rope_dim == 0 || c->rope_dim > c->head_dim || c->rope_dim % 2)
        return bad(top, "partial_rotary_factor", "must give an even number of dimensions");
    if (c->rope_dim < c->head_dim && f && f->permuted_rows)
        config_unsupported(c, "gsq supports rotary embeddings over whole heads in this family",
                           "%s: \"partial_rotary_factor\" is not 1: gsq rotates whole heads only", top->path);
    if (!read_u32(top, "original_max_position_embeddings", 0, UINT32_MAX, 0, &c->rope_original_context))
        return false;
    if (!read_text(&r, json_get(o, "rope_type") ? "rope_type" : "type", type, sizeof type))
        return false;
    if (f && f->query_growth && !read_cap(&r, "llama_4_scaling_beta", 0, &c->query_growth))
        return false;
    if (!type[0] && o && json_get(o, "factor"))
        return bad(&r, "rope_type", "is missing");
    return read_scaling(&r, c, type);
}

/* ---- the whole ---- */

/* How it is quantized. A way that gsq does not read is shown, and refused by whoever wants the weights. */
static bool read_quant(struct model_config *c, const cJSON *root, const char *path, struct err *e)
{
    struct err why = {0};
    if (hf_quant_parse(c, root, path, &why))
        return true;
    for (size_t i = 0; i < c->n_rules; i++)
        free(c->rules[i].regex);
    free(c->rules);
    c->rules = NULL;
    c->n_rules = 0;
    c->quant = QUANT_NONE;
    if (why.kind == ERR_USER)
        config_unsupported(c, why.hint, "%s", why.msg);
    else if (e)
        *e = why;
    return why.kind == ERR_USER;
}

/* A part of the file with a value that cannot be right: shown without it, and refused by whoever computes. */
static bool read_part(const struct reader *from, struct model_config *c,
                      bool (*read)(const struct reader *r, struct model_config *c))
{
    struct err why = {0};
    struct reader r = *from;
    r.e = &why;
    if (read(&r, c))
        return true;
    if (why.kind == ERR_USER)
        config_unsupported(c, why.hint, "%s", why.msg);
    else if (from->e)
        *from->e = why;
    return why.kind == ERR_USER;
}

/* What the whole is called is its wrapper's name; the text's family is found by its model_type alone, for some name the
 * wrapper's architecture there too. */
static bool read_text_part(const struct reader *r, struct model_config *c)
{
    const char *whole = c->architecture[0] ? c->architecture : c->model_type;
    snprintf(c->wrapper, sizeof c->wrapper, "%s", whole[0] ? whole : "a model without a name");
    c->architecture[0] = 0;
    char dtype[sizeof c->torch_dtype];
    memcpy(dtype, c->torch_dtype, sizeof dtype);
    if (!read_text(r, "model_type", c->model_type, sizeof c->model_type) || !read_dtype(r, c))
        return false;
    if (dtype[0])
        memcpy(c->torch_dtype, dtype, sizeof dtype);
    const char *lacks = family_lacks(c);
    if (!family_of(c))
        config_unsupported(
            c,
            "gsq quantizes the text part of models that read more than text, where it is of a family that "
            "it supports",
            "%s: gsq does not support the text part \"%s\" of %s%s%s", r->path, c->model_type, c->wrapper,
            lacks ? ": in it, " : "", lacks ? lacks : "");
    return true;
}

bool hf_config_parse(struct model_config *out, const char *text, size_t size, const char *path, struct err *e)
{
    *out = (struct model_config){.bos_id = -1, .eos_id = -1};
    cJSON *root = json_parse_python(text, size, path, e);
    if (!root)
        return false;
    struct reader r = {.o = root, .path = path, .where = "", .e = e};
    bool ok = true;
    const char *twice;
    if (!cJSON_IsObject(root)) {
        ok = err_set(e, ERR_USER, "%s does not hold an object", path);
        err_hint(e, "check config.json against the one of the original model");
    } else if (json_duplicate(root, &twice)) {
        ok = bad(&r, twice, "occurs twice in the file");
    }
    /* What has a shape is a model, whatever is wrong with its names. */
    ok = ok && (json_get(root, "hidden_size") ? read_part(&r, out, read_architecture) : read_architecture(&r, out));
    /* Models that read more than text keep the text's part apart. */
    const cJSON *part = ok && !json_get(root, "hidden_size") ? json_get(root, "text_config") : NULL;
    if (cJSON_IsObject(part)) {
        r = (struct reader){.o = part, .outer = root, .path = path, .where = "text_config.", .e = e};
        ok = read_part(&r, out, read_text_part);
    }
    bool named = out->architecture[0] || out->model_type[0] || out->wrapper[0];
    r.lenient = named && !family_of(out);
    ok = ok && (r.lenient ? read_part(&r, out, read_shape) : read_shape(&r, out)) && read_part(&r, out, read_details) &&
         read_part(&r, out, read_multipliers) && read_part(&r, out, read_no_rope) && read_part(&r, out, read_windows) &&
         read_part(&r, out, read_delta) && read_part(&r, out, read_experts) && read_part(&r, out, read_rope) &&
         read_quant(out, json_get(r.o, "quantization_config") ? r.o : root, path, e);
    cJSON_Delete(root);
    if (!ok)
        config_free(out);
    return ok;
}

bool hf_config_add_quant(struct model_config *c, const char *text, size_t size, const char *path, struct err *e)
{
    cJSON *o = json_parse_python(text, size, path, e), *root = o ? cJSON_CreateObject() : NULL;
    if (!root || !cJSON_AddItemToObject(root, "quantization_config", o)) {
        cJSON_Delete(o);
        cJSON_Delete(root);
        return o ? err_nomem(e, path, size) : false;
    }
    bool named =
        !cJSON_IsObject(o) || json_get(o, "quant_method") || cJSON_AddStringToObject(o, "quant_method", "gptq");
    bool ok = named ? read_quant(c, root, path, e) : err_nomem(e, path, size);
    cJSON_Delete(root);
    return ok;
}
