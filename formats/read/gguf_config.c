#include "formats/read/gguf_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/family.h"
#include "formats/gguf/gguf_names.h"
#include "formats/gguf/gguf_type.h"
#include "formats/read/value_heads.h"

/* By this share a factor of rope_freqs.weight may differ from llama3's: they were computed in f32. */
#define FACTOR_TOLERANCE 1e-5

struct reader {
    const struct gguf *g;
    const char *path;
    char arch[64];
    bool known; /* else nothing is an error: the architecture will be refused by whoever wants to compute */
    struct err *e;
};

static bool bad(const struct reader *r, const char *key, const char *what)
{
    err_set(r->e, ERR_USER, "%s: \"%s.%s\" %s", r->path, r->arch, key, what);
    return err_hint(r->e, "the file is damaged, or was made for another kind of model: convert the model again");
}

static const char *full_key(const struct reader *r, const char *key, char out[192])
{
    snprintf(out, 192, "%s.%s", r->arch, key);
    return out;
}

/* An integer; an array of one for each layer stands for it where all are equal. */
static enum gguf_got get_integer(const struct reader *r, const char *name, uint64_t *v)
{
    const struct gguf_kv *kv = gguf_find(r->g, name);
    if (!kv || kv->type != GGUF_ARRAY || kv->n == 0)
        return gguf_get_u64(r->g, name, v, r->known ? r->e : NULL);
    bool number = kv->element != GGUF_STRING && kv->element != GGUF_F32 && kv->element != GGUF_F64;
    for (uint64_t i = 0; number && i < kv->n; i++)
        if (gguf_integer(kv, i) < 0 || gguf_integer(kv, i) != gguf_integer(kv, 0)) {
            if (r->known) {
                err_set(r->e, ERR_USER, "%s: \"%s\" differs between layers (%lld, %lld)", r->path, name,
                        (long long)gguf_integer(kv, 0), (long long)gguf_integer(kv, i));
                err_hint(r->e, "gsq supports models whose layers all have the same shape");
            }
            return GGUF_BAD;
        }
    if (!number)
        return gguf_get_u64(r->g, name, v, r->known ? r->e : NULL);
    *v = (uint64_t)gguf_integer(kv, 0);
    return GGUF_OK;
}

/* An integer within [lo, hi]; an absent one is `fallback`, or an error if fallback < 0. */
static bool read_u32(const struct reader *r, const char *key, uint32_t lo, uint32_t hi, int64_t fallback, uint32_t *out)
{
    char name[192];
    uint64_t v;
    enum gguf_got got = get_integer(r, full_key(r, key, name), &v);
    *out = fallback < 0 ? 0 : (uint32_t)fallback;
    if (got == GGUF_ABSENT)
        return fallback >= 0 || !r->known || bad(r, key, "is missing");
    if (got == GGUF_BAD)
        return !r->known;
    if (v < lo || v > hi) {
        if (!r->known)
            return true;
        err_set(r->e, ERR_USER, "%s: \"%s\" must be from %u to %u", r->path, name, (unsigned)lo, (unsigned)hi);
        return err_hint(r->e, "the file is damaged: download or convert the model again");
    }
    *out = (uint32_t)v;
    return true;
}

/* A number within (0, 1e12); an absent one is `fallback`, or an error if fallback is 0. */
static bool read_positive(const struct reader *r, const char *key, double fallback, double *out)
{
    char name[192];
    double v;
    enum gguf_got got = gguf_get_f64(r->g, full_key(r, key, name), &v, r->known ? r->e : NULL);
    *out = fallback;
    if (got == GGUF_ABSENT)
        return fallback != 0 || !r->known || bad(r, key, "is missing");
    if (got == GGUF_BAD)
        return !r->known;
    if (!(v > 0 && v < 1e12))
        return !r->known || bad(r, key, "must be a positive number");
    *out = v;
    return true;
}

static bool is(struct gguf_string s, const char *text)
{
    return s.size == strlen(text) && memcmp(s.text, text, s.size) == 0;
}

static bool read_architecture(struct reader *r, struct model_config *c)
{
    struct gguf_string name, type;
    enum gguf_got got = gguf_get_name(r->g, "general.type", &type, r->e);
    if (got == GGUF_BAD)
        return false;
    if (got == GGUF_OK && !is(type, "model")) {
        err_set(r->e, ERR_USER, "%s holds no model: its general.type is \"%.*s\"", r->path,
                (int)(type.size < 60 ? type.size : 60), type.text);
        return err_hint(r->e, "name the GGUF of the model itself");
    }
    got = gguf_get_name(r->g, "general.architecture", &name, r->e);
    if (got == GGUF_BAD)
        return false;
    if (got == GGUF_ABSENT || name.size == 0 || name.size >= sizeof r->arch) {
        err_set(r->e, ERR_USER, "%s: \"general.architecture\" is %s", r->path,
                got == GGUF_ABSENT ? "missing" : "not a name");
        return err_hint(r->e, "the file is not a model, or is damaged: download or convert the model again");
    }
    memcpy(r->arch, name.text, name.size);
    r->arch[name.size] = 0;
    uint32_t window, experts, gating, shared;
    if (!read_u32(r, "attention.sliding_window", 0, UINT32_MAX, 0, &window) ||
        !read_u32(r, "expert_count", 0, UINT32_MAX, 0, &experts) ||
        !read_u32(r, "expert_gating_func", 0, UINT32_MAX, 0, &gating) ||
        !read_u32(r, "expert_shared_feed_forward_length", 0, UINT32_MAX, 0, &shared))
        return false;
    const struct family *f = family_of_gguf(r->arch, window > 0, experts > 0, gating, shared > 0);
    r->known = f;
    if (r->known) {
        snprintf(c->architecture, sizeof c->architecture, "%s", f->architecture);
        snprintf(c->model_type, sizeof c->model_type, "%s", f->model_type);
        return true;
    }
    snprintf(c->architecture, sizeof c->architecture, "%s%s", r->arch, experts ? " with experts" : "");
    snprintf(c->model_type, sizeof c->model_type, "%.31s", r->arch);
    if (!family_of(c))
        return true;
    /* Not among GGUF names, but it would be taken for the family of that name: refuse it here. */
    err_set(r->e, ERR_USER, "%s: \"general.architecture\" is \"%s\", which is a Hugging Face name", r->path, r->arch);
    return err_hint(r->e, "the file is damaged: convert the model again");
}

/* Multi-head latent attention: what a file calls lengths of keys and values are those of what is kept for all heads, and
 * key_length_mla is a head's; files from before that split have a head's alone. */
static bool read_latent(const struct reader *r, struct model_config *c)
{
    struct mla_config *x = &c->mla;
    uint32_t key, own;
    if (!read_u32(r, "attention.key_length", 1, 1u << 16, -1, &key) ||
        !read_u32(r, "attention.key_length_mla", 1, LATENT_NOPE_MAX, 0, &own) ||
        !read_u32(r, own ? "attention.value_length_mla" : "attention.value_length", 1, LATENT_NOPE_MAX, -1,
                  &x->values) ||
        !read_u32(r, "attention.kv_lora_rank", 1, 1u << 20, -1, &x->kv_rank) ||
        !read_u32(r, "attention.q_lora_rank", 0, 1u << 20, 0, &x->q_rank) ||
        !read_u32(r, "rope.dimension_count", 2, LATENT_NOPE_MAX, -1, &x->turned))
        return false;
    c->head_dim = own ? own : key;
    c->num_kv_heads = c->num_heads; /* of what attention reads once each head has its own */
    if (x->turned % 2 || c->head_dim <= x->turned || c->head_dim % 2 || c->head_dim > LATENT_NOPE_MAX)
        return bad(r, "rope.dimension_count", "does not go with the size of a head");
    x->nope = c->head_dim - x->turned;
    c->rope_dim = x->turned;
    if (x->values > c->head_dim)
        config_unsupported(c, "gsq computes values that are at most as wide as keys", "%s: values are wider than keys",
                           r->path);
    return true;
}

static bool read_shape(const struct reader *r, struct model_config *c)
{
    uint32_t value_length, turned;
    for (const struct config_number *x = config_numbers; x < config_numbers + CONFIG_NUMBERS; x++)
        if (x->gguf && !read_u32(r, x->gguf, x->lo, x->hi, x->fallback, (uint32_t *)(void *)((char *)c + x->at)))
            return false;
    if (!r->known) {
        c->num_kv_heads = c->num_kv_heads ? c->num_kv_heads : c->num_heads;
        return true;
    }
    const struct family *f = family_of(c);
    bool latent = f && f->parts & PARTS_MLA;
    if (latent && !read_latent(r, c))
        return false;
    char what[128];
    if (!read_u32(r, "nextn_predict_layers", 0, c->num_layers - 1, 0, &c->next_token_layers))
        return false;
    c->num_layers -= c->next_token_layers;
    const struct config_number *odd = config_settle_shape(c, true, what);
    if (odd)
        return bad(r, odd->gguf, what);
    if (latent)
        return true;
    if (!read_u32(r, "attention.value_length", 1, 1u << 16, c->head_dim, &value_length) ||
        !read_u32(r, "rope.dimension_count", 1, 1u << 16, c->head_dim, &turned))
        return false;
    if (value_length != c->head_dim)
        config_unsupported(c, "gsq supports heads of one size", "%s: attention.value_length differs from key_length",
                           r->path);
    c->rope_dim = turned;
    if (turned > c->head_dim || turned % 2 || (turned < c->head_dim && f && f->permuted_rows))
        config_unsupported(c, "gsq supports rotary embeddings over whole heads",
                           "%s: rope.dimension_count is not the size of a head: gsq rotates whole heads only", r->path);
    return true;
}

/* Those that guess further tokens are blocks too. */
static bool is_list_of_blocks(const struct gguf_kv *kv, const struct model_config *c)
{
    return kv->type == GGUF_ARRAY && kv->element != GGUF_STRING && kv->n == c->num_layers + c->next_token_layers;
}

/* ---- the gated delta rule ---- */

static bool read_delta(const struct reader *r, struct model_config *c)
{
    const struct family *f = family_of(c);
    struct delta_config *x = &c->delta;
    uint32_t inner, step;
    char name[192];
    if (!r->known || !(f->parts & PARTS_ANY_DELTA))
        return true;
    if (!read_u32(r, "ssm.conv_kernel", 1, 64, -1, &x->taps) ||
        !read_u32(r, "ssm.state_size", 1, 1u << 12, -1, &x->key_dim) ||
        !read_u32(r, "ssm.group_count", 1, 1u << 12, -1, &x->key_heads) ||
        !read_u32(r, "ssm.time_step_rank", 1, 1u << 12, -1, &x->value_heads) ||
        !read_u32(r, "ssm.inner_size", 1, 1u << 24, -1, &inner) ||
        !read_u32(r, "full_attention_interval", 1, UINT32_MAX, 4, &step))
        return false;
    x->value_dim = inner / x->value_heads;
    if (inner % x->value_heads || x->value_heads % x->key_heads)
        return bad(r, "ssm.time_step_rank", "does not go with the other sizes of the gated delta rule");
    if (x->key_dim != x->value_dim)
        return bad(r, "ssm.inner_size", "is not ssm.state_size for each of ssm.time_step_rank heads");
    x->tiled = value_heads_differ(c);
    const struct gguf_kv *kv = gguf_find(r->g, full_key(r, "attention.recurrent_layers", name));
    bool list = kv && is_list_of_blocks(kv, c);
    if (kv && !list)
        return bad(r, "attention.recurrent_layers", "is not a list with one value for each block");
    if (!(x->layers = calloc(c->num_layers + 1u, sizeof *x->layers)))
        return err_nomem(r->e, "the kinds of layers", c->num_layers);
    for (uint32_t i = 0; i < c->num_layers; i++)
        x->layers[i] = list ? gguf_integer(kv, i) != 0 : (i + 1) % step != 0;
    return true;
}

/* ---- experts ---- */

/* True where it is absent; *out is then left alone. */
static bool read_bool(const struct reader *r, const char *key, bool *out)
{
    char name[192];
    const struct gguf_kv *kv = gguf_find(r->g, full_key(r, key, name));
    if (!kv)
        return true;
    if (kv->type != GGUF_BOOL)
        return bad(r, key, "is not true or false");
    *out = gguf_integer(kv, 0) != 0;
    return true;
}

static bool read_experts(const struct reader *r, struct model_config *c)
{
    const struct family *f = family_of(c);
    struct expert_config *x = &c->experts;
    uint32_t gating, shared;
    double scale;
    if (!r->known || !f->gating)
        return true;
    if (!read_u32(r, "expert_count", 1, CONFIG_EXPERTS_MAX, -1, &x->n) ||
        !read_u32(r, "expert_used_count", 1, x->n, -1, &x->used) ||
        !read_u32(r, "expert_feed_forward_length", 1, 1u << 24, c->intermediate_size, &x->width) ||
        !read_u32(r, "expert_gating_func", GATING_SOFTMAX, GATING_CHOSEN, f->gating, &gating) ||
        !read_u32(r, "leading_dense_block_count", 0, c->num_layers, 0, &x->first_dense) ||
        !read_u32(r, "expert_group_count", 1, x->n, 1, &x->groups) ||
        !read_u32(r, "expert_group_used_count", 1, x->groups, x->groups, &x->groups_used) ||
        !read_u32(r, "expert_shared_count", 0, 64, 0, &shared) ||
        !read_u32(r, "expert_shared_feed_forward_length", 0, 1u << 24, (int64_t)shared * x->width, &x->shared_width) ||
        !read_positive(r, "expert_weights_scale", 1, &scale))
        return false;
    x->gating = (enum gating)gating;
    x->scale = (float)scale;
    x->step = 1;
    x->renormalise = f->gguf_renormalise;
    if (!(f->parts & PARTS_ANY_SHARED))
        x->shared_width = 0;
    bool groups;
    const char *odd = config_experts_odd(x, &groups);
    if (odd)
        return bad(r, groups ? "expert_group_count" : "expert_used_count", odd);
    return read_bool(r, "expert_weights_norm", &x->renormalise);
}

/* ---- RoPE ---- */

static double unscaled_frequency(const struct model_config *c, uint32_t pair)
{
    return pow(c->rope_theta, -2.0 * pair / config_rope_dim(c));
}

/* Whether the llama3 scaling of *c gives these factors. */
static bool factors_match(const struct model_config *c, const float *factors)
{
    for (uint32_t i = 0; i < config_rope_dim(c) / 2; i++) {
        double want = unscaled_frequency(c, i) / rope_frequency(c, i);
        if (!(fabs((double)factors[i] - want) <= FACTOR_TOLERANCE * want))
            return false;
    }
    return true;
}

/* From two factors of the blend follow low_freq and high_freq, once the context is known: only their ratio to
 * it is in the factors. */
static bool solve_llama3(struct model_config *c, const float *factors)
{
    const double pi = 3.14159265358979323846;
    double turns[2], smooth[2];
    uint32_t n = 0;
    for (uint32_t i = 0; i < config_rope_dim(c) / 2; i++) {
        double f = (double)factors[i];
        if (f <= 1 || f >= c->rope_factor)
            continue;
        turns[n > 0] = c->rope_original_context * unscaled_frequency(c, i) / (2 * pi);
        smooth[n > 0] = (1 / f - 1 / c->rope_factor) / (1 - 1 / c->rope_factor);
        n++;
    }
    if (n < 2 || smooth[0] == smooth[1])
        return false;
    double width = (turns[0] - turns[1]) / (smooth[0] - smooth[1]), low = turns[0] - smooth[0] * width;
    if (!(low > 0 && low < 1e12 && width > 0 && width < 1e12))
        return false;
    c->rope_low_freq = low;
    c->rope_high_freq = low + width;
    return factors_match(c, factors);
}

/* What gsq writes beside rope_freqs.weight. */
static bool read_own_llama3(const struct reader *r, struct model_config *c)
{
    static const char *const keys[] = {"gsq.rope.llama3.factor", "gsq.rope.llama3.low_freq_factor",
                                       "gsq.rope.llama3.high_freq_factor", "gsq.rope.llama3.original_context_length"};
    double v[4];
    for (int i = 0; i < 4; i++)
        if (gguf_get_f64(r->g, keys[i], &v[i], NULL) != GGUF_OK || !(v[i] > 0 && v[i] < 1e9))
            return false;
    c->rope_factor = v[0];
    c->rope_low_freq = v[1];
    c->rope_high_freq = v[2];
    c->rope_original_context = (uint32_t)v[3];
    return v[2] > v[1] && c->rope_original_context > 0;
}

/* rope_freqs.weight, times the linear factor: llama3's fields if they say the same, else the factors
 * themselves. */
static bool take_factors(const struct reader *r, struct model_config *c, float *factors)
{
    uint32_t n = config_rope_dim(c) / 2, context;
    bool any = false;
    if (!read_u32(r, "rope.scaling.original_context_length", 1, UINT32_MAX, 8192, &context))
        return false;
    struct model_config probe = *c;
    probe.rope_scaling = ROPE_LLAMA3;
    probe.rope_factor = 0;
    for (uint32_t i = 0; i < n; i++) {
        any |= factors[i] != 1;
        probe.rope_factor = fmax(probe.rope_factor, (double)factors[i]);
    }
    if (!any) {
        c->rope_scaling = ROPE_UNSCALED;
        return true;
    }
    struct model_config own = probe;
    if (read_own_llama3(r, &own) && factors_match(&own, factors)) {
        *c = own;
        return true;
    }
    const uint32_t contexts[2] = {context, 8192};
    for (int i = 0; i < 4; i++) {
        probe.rope_original_context = contexts[i % 2];
        probe.rope_low_freq = 1; /* Llama 3.1, 3.2 and 3.3 */
        probe.rope_high_freq = 4;
        if (i < 2 ? factors_match(&probe, factors) : solve_llama3(&probe, factors)) {
            *c = probe;
            return true;
        }
    }
    c->rope_scaling = ROPE_FACTORS;
    c->rope_factor = 0;
    c->rope_factors = malloc(n * sizeof *factors);
    if (!c->rope_factors)
        return err_nomem(r->e, "rope_freqs.weight", n * sizeof *factors);
    memcpy(c->rope_factors, factors, n * sizeof *factors);
    return true;
}

/* A tensor of a positive number for each pair, times `linear`; *out NULL: there is none. */
static bool load_factors(const struct reader *r, const struct model_config *c, const char *name, double linear,
                         float **out)
{
    const struct gguf_tensor *t = gguf_tensor_find(r->g, name);
    uint32_t n = config_rope_dim(c) / 2;
    *out = NULL;
    if (!t)
        return true;
    const struct gguf_type *type = gguf_type_of(t->type);
    if (!type || type->block != 1 || t->ne[0] != n || t->ne[1] != 1 || t->ne[2] != 1 || t->ne[3] != 1) {
        err_set(r->e, ERR_USER, "%s: %s is not a vector of %u floats", gguf_path(r->g, t), name, (unsigned)n);
        return err_hint(r->e, "the file is damaged, or was made for another kind of model: convert the model again");
    }
    float *factors = *out = malloc(n * sizeof *factors);
    if (!factors)
        return err_nomem(r->e, name, n * sizeof *factors);
    gguf_dequant(type, t->data, n, factors);
    for (uint32_t i = 0; i < n; i++) {
        factors[i] *= (float)linear;
        if (factors[i] > 0 && isfinite(factors[i]))
            continue;
        err_set(r->e, ERR_USER, "%s: %s holds %g at element %u", gguf_path(r->g, t), name, (double)factors[i],
                (unsigned)i);
        return err_hint(r->e, "the file is damaged: download or convert the model again");
    }
    return true;
}

/* Factors for short windows and for long ones. */
static bool read_factor_lists(const struct reader *r, struct model_config *c)
{
    if (!load_factors(r, c, "rope_factors_short.weight", 1, &c->rope_factors) ||
        !load_factors(r, c, "rope_factors_long.weight", 1, &c->rope_factors_long))
        return false;
    if (!c->rope_factors != !c->rope_factors_long)
        return bad(r, "rope.scaling.factor", "is told by one of two tensors of factors, and the other is missing");
    if (c->rope_factors)
        c->rope_scaling = ROPE_FACTORS;
    return read_u32(r, "rope.scaling.original_context_length", 1, UINT32_MAX,
                    c->max_position ? (int64_t)c->max_position : 1, &c->rope_original_context);
}

static bool read_factors(const struct reader *r, struct model_config *c)
{
    const struct family *f = family_of(c);
    float *factors;
    if (f && f->factor_lists)
        return read_factor_lists(r, c);
    double linear = c->rope_scaling == ROPE_LINEAR ? c->rope_factor : 1;
    bool ok = load_factors(r, c, "rope_freqs.weight", linear, &factors);
    ok = ok && (!factors || take_factors(r, c, factors));
    free(factors);
    return ok;
}

/* Under latent attention scores are scaled in place of cos and sin: by the square of 0.1 mscale_all_dim ln(factor) + 1,
 * of which the file has 0.1 mscale_all_dim. Without it llama.cpp scales all three. */
static bool read_latent_yarn(const struct reader *r, struct model_config *c, double *attention)
{
    char name[192];
    double log_multiplier = 0;
    if (gguf_get_f64(r->g, full_key(r, "rope.scaling.yarn_log_multiplier", name), &log_multiplier, r->e) == GGUF_BAD)
        return false;
    double all = rint(log_multiplier * 1e7) / 1e6; /* it is an f32 */
    if (all == 0)
        *attention *= rope_yarn_attention(c->rope_factor);
    if (all != 0 || c->rope_factor > 1)
        c->attention_scale = pow(*attention * (0.1 * all * log(fmax(c->rope_factor, 1)) + 1), 2) / sqrt(c->head_dim);
    return c->attention_scale >= 0 || bad(r, "rope.scaling.yarn_log_multiplier", "is out of range");
}

/* llama.cpp's keys. The factor of cos and sin is 0.1 ln(factor) + 1 times attn_factor. */
static bool read_yarn(const struct reader *r, struct model_config *c)
{
    double attention;
    c->rope_scaling = ROPE_YARN;
    const struct family *f = family_of(c);
    double all = 0;
    if (!read_positive(r, "rope.scaling.factor", 0, &c->rope_factor) ||
        !read_u32(r, "rope.scaling.original_context_length", 1, UINT32_MAX,
                  c->max_position ? (int64_t)c->max_position : -1, &c->rope_original_context) ||
        (f->query_growth && !read_positive(r, "rope.scaling.yarn_log_multiplier", 1e-30, &all)) ||
        !read_positive(r, "rope.scaling.yarn_beta_fast", 32, &c->rope_beta_fast) ||
        !read_positive(r, "rope.scaling.yarn_beta_slow", 1, &c->rope_beta_slow) ||
        !read_positive(r, "rope.scaling.attn_factor", 1, &attention))
        return false;
    if (c->rope_theta <= 1)
        return bad(r, "rope.freq_base", "must be above 1 for yarn");
    if (!c->mla.kv_rank)
        attention *= rope_yarn_attention(c->rope_factor);
    else if (!read_latent_yarn(r, c, &attention))
        return false;
    c->rope_attention = attention;
    if (all > 0) /* config.json's mscale_all_dim, beside an mscale of 1 */
        c->rope_attention /= all * (rope_yarn_attention(c->rope_factor) - 1) + 1;
    if (gguf_tensor_find(r->g, "rope_freqs.weight"))
        config_unsupported(c, "use the model's Hugging Face folder", "%s: yarn with a tensor of factors", r->path);
    return true;
}

/* Which layers slide: all, or by a list of truth values, or all but every n-th. */
static bool read_windows(const struct reader *r, struct model_config *c)
{
    const struct family *f = family_of(c);
    uint64_t usual = f && r->known ? f->usual_full_step : 0;
    char name[192];
    const struct gguf_kv *kv = gguf_find(r->g, full_key(r, "attention.sliding_window_pattern", name));
    if (!read_u32(r, "attention.sliding_window", 0, UINT32_MAX, 0, &c->sliding_window))
        return false;
    if (!r->known || !c->sliding_window || (!kv && !usual))
        return true;
    uint64_t every = !kv ? usual : kv->type == GGUF_ARRAY ? 0 : (uint64_t)gguf_integer(kv, 0);
    bool list = kv && is_list_of_blocks(kv, c);
    if (kv && !list && (kv->type == GGUF_ARRAY || kv->type == GGUF_STRING || gguf_integer(kv, 0) < 0))
        return bad(r, "attention.sliding_window_pattern", "is not a list with one value for each block");
    c->slides = calloc(c->num_layers, sizeof *c->slides);
    if (!c->slides)
        return err_nomem(r->e, "the kinds of layers", c->num_layers);
    for (uint32_t i = 0; i < c->num_layers; i++)
        c->slides[i] = list ? gguf_integer(kv, i) != 0 : every == 0 || i % every < every - 1;
    config_settle_slides(c);
    return true;
}

static bool read_rope(const struct reader *r, struct model_config *c)
{
    char name[192];
    struct gguf_string type;
    double old_factor;
    if (!read_positive(r, "rope.freq_base", 10000, &c->rope_theta))
        return false;
    enum gguf_got got = gguf_get_name(r->g, full_key(r, "rope.scaling.type", name), &type, r->known ? r->e : NULL);
    if (got == GGUF_BAD || !r->known)
        return !r->known;
    if (got == GGUF_ABSENT && !read_positive(r, "rope.scale_linear", 1, &old_factor)) /* before scaling.type */
        return false;
    if (got == GGUF_ABSENT && old_factor != 1) {
        c->rope_scaling = ROPE_LINEAR;
        c->rope_factor = old_factor;
    } else if (got == GGUF_OK && is(type, "linear")) {
        c->rope_scaling = ROPE_LINEAR;
        if (!read_positive(r, "rope.scaling.factor", 0, &c->rope_factor))
            return false;
    } else if (got == GGUF_OK && is(type, "yarn")) {
        return read_yarn(r, c);
    } else if (got == GGUF_OK && !is(type, "none")) {
        config_unsupported(c, "gsq supports none, linear, yarn, and the factors of rope_freqs.weight",
                           "%s: gsq does not support the RoPE scaling \"%.*s\"", r->path,
                           (int)(type.size < 60 ? type.size : 60), type.text);
    }
    /* Without a type it counts too: llama.cpp multiplies by it always. */
    if (!read_positive(r, "rope.scaling.attn_factor", 1, &c->rope_attention))
        return false;
    if (c->rope_attention == 1)
        c->rope_attention = 0;
    return read_factors(r, c);
}

/* ---- the rest ---- */

/* A family's factors, and its layers without RoPE, of which llama.cpp knows one pattern. */
static bool read_family(const struct reader *r, struct model_config *c)
{
    const struct family *f = r->known ? family_of(c) : NULL;
    if (f && f->embedding_root)
        c->embedding_scale = sqrt(c->hidden_size);
    if (f && f->usual_query_scale)
        c->attention_scale = family_llama_scale(f, c);
    if (f && f->usual_score_cap > 0 && !read_positive(r, "attn_logit_softcapping", f->usual_score_cap, &c->score_cap))
        return false;
    double logits;
    if (f &&
        (!read_positive(r, "final_logit_softcapping", f->usual_logit_cap > 0 ? f->usual_logit_cap : 1e11, &logits)))
        return false;
    if (f && logits < 1e11)
        c->logit_cap = logits;
    if (f && f->gelu) {
        c->gelu = true;
        strcpy(c->hidden_act, "gelu_pytorch_tanh");
    }
    if (f && f->multipliers &&
        !(read_positive(r, "embedding_scale", 1, &c->embedding_scale) &&
          read_positive(r, "attention.scale", 1 / sqrt(c->head_dim), &c->attention_scale) &&
          read_positive(r, "residual_scale", 1, &c->residual_scale) &&
          read_positive(r, "logit_scale", 1, &c->logit_divisor)))
        return false;
    if (f && f->local_rope &&
        !read_positive(r, "rope.freq_base_swa", f->usual_local_theta > 0 ? f->usual_local_theta : c->rope_theta,
                       &c->rope_local_theta))
        return false;
    double growth = 0;
    if (f && f->query_growth && !read_positive(r, "attention.temperature_scale", 1e-30, &growth))
        return false;
    c->query_growth = growth > 1e-30 ? growth : 0;
    if (f && f->qk_norm_said)
        c->no_qk_norm = !gguf_tensor_find(r->g, "blk.0.attn_q_norm.weight");
    if (!f || !f->usual_rope_step)
        return true;
    if (!(c->no_rope = calloc(c->num_layers, sizeof *c->no_rope)))
        return err_nomem(r->e, "the kinds of layers", c->num_layers);
    for (uint32_t i = 0; i < c->num_layers; i++)
        c->no_rope[i] = (i + 1) % f->usual_rope_step == 0;
    return true;
}

static bool read_token(const struct reader *r, const char *key, int64_t *out)
{
    uint64_t id;
    enum gguf_got got = gguf_get_u64(r->g, key, &id, r->e);
    *out = got == GGUF_OK && id < INT32_MAX ? (int64_t)id : -1;
    return got != GGUF_BAD;
}

/* What most of the float matrices are; fp16 where there are none. */
static const char *float_type(const struct gguf *g)
{
    uint64_t bytes[3] = {0, 0, 0}; /* F16, BF16, F32: the first of equals */
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        int which = t->type == GGML_F16 ? 0 : t->type == GGML_BF16 ? 1 : t->type == GGML_F32 ? 2 : -1;
        if (which >= 0 && t->n_dims > 1)
            bytes[which] += t->bytes;
    }
    if (bytes[1] > bytes[0] && bytes[1] >= bytes[2])
        return "bfloat16";
    return bytes[2] > bytes[0] ? "float32" : "float16";
}

static bool read_vocabulary(const struct reader *r, struct model_config *c)
{
    const struct gguf_tensor *embedding = gguf_tensor_find(r->g, "token_embd.weight");
    if (embedding && (embedding->ne[1] == 0 || embedding->ne[1] > 1u << 28)) {
        err_set(r->e, ERR_USER, "%s: token_embd.weight has %llu rows, which is not a possible vocabulary size",
                gguf_path(r->g, embedding), (unsigned long long)embedding->ne[1]);
        return err_hint(r->e, "the file is damaged: download or convert the model again");
    }
    c->vocab_size = embedding ? (uint32_t)embedding->ne[1] : 0;
    c->tie_word_embeddings = gguf_tensor_find(r->g, "output.weight") == NULL;
    return read_token(r, "tokenizer.ggml.bos_token_id", &c->bos_id) &&
           read_token(r, "tokenizer.ggml.eos_token_id", &c->eos_id);
}

static void read_biases(const struct reader *r, struct model_config *c)
{
    const struct family *f = family_of(c);
    c->attention_bias = !(f && f->always_bias) && gguf_tensor_find(r->g, "blk.0.attn_q.bias") != NULL;
    c->mlp_bias = gguf_tensor_find(r->g, "blk.0.ffn_up.bias") != NULL;
}

bool gguf_config_read(struct model_config *c, const struct gguf *g, const char *path, struct err *e)
{
    struct reader r = {.g = g, .path = path, .e = e};
    double eps;
    *c = (struct model_config){.bos_id = -1, .eos_id = -1, .hidden_act = "silu"};
    if (!read_architecture(&r, c) || !read_shape(&r, c) || !read_vocabulary(&r, c) ||
        !read_positive(&r, "attention.layer_norm_rms_epsilon", 0, &eps) || !read_windows(&r, c))
        return false;
    if (r.known && eps >= 1)
        return bad(&r, "attention.layer_norm_rms_epsilon", "must be below 1");
    c->rms_eps = (float)eps;
    strcpy(c->torch_dtype, float_type(g));
    read_biases(&r, c);
    return read_delta(&r, c) && read_experts(&r, c) && read_rope(&r, c) && read_family(&r, c);
}
