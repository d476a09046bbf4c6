#include "arch/config.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(member) offsetof(struct model_config, member)
const struct config_number config_numbers[CONFIG_NUMBERS] = {
    {AT(hidden_size), "hidden_size", "embedding_length", 1, 1u << 20, -1},
    {AT(intermediate_size), "intermediate_size", "feed_forward_length", 1, 1u << 24, -1},
    {AT(num_layers), "num_hidden_layers", "block_count", 1, 10000, -1},
    {AT(num_heads), "num_attention_heads", "attention.head_count", 1, 1u << 16, -1},
    {AT(num_kv_heads), "num_key_value_heads", "attention.head_count_kv", 1, 1u << 16, 0},
    {AT(vocab_size), "vocab_size", NULL, 1, 1u << 28, -1},
    {AT(max_position), "max_position_embeddings", "context_length", 0, UINT32_MAX, 0},
    {AT(head_dim), "head_dim", "attention.key_length", 1, 1u << 16, 0},
};

/* ---- names ---- */

static const struct config_names names[] = {
    {"model.", "lm_head"},
    {"model.language_model.", "lm_head"},
    {"language_model.model.", "language_model.lm_head"},
};

const struct config_names *config_names_at(size_t i)
{
    return i < sizeof names / sizeof names[0] ? &names[i] : NULL;
}

const char *config_prefix(const struct model_config *c)
{
    return c->prefix[0] ? c->prefix : names[0].prefix;
}

const char *config_head_name(const struct model_config *c)
{
    return c->head[0] ? c->head : names[0].head;
}

const char *config_layer_name(const struct model_config *c, uint32_t layer, char *out, size_t cap)
{
    snprintf(out, cap, "%slayers.%" PRIu32, config_prefix(c), layer);
    return out;
}

const char *config_part_name(const struct model_config *c, const char *part, char *out, size_t cap)
{
    snprintf(out, cap, "%s%s", config_prefix(c), part);
    return out;
}

static bool starts(const char *s, const char *with)
{
    return strncmp(s, with, strlen(with)) == 0;
}

/* Whether a tensor is of a layer that guesses further tokens; under a GGUF's name too, where it has no other. */
static bool is_behind(const struct model_config *c, const char *name)
{
    char front[48];
    snprintf(front, sizeof front, "%slayers.", config_prefix(c));
    size_t n = starts(name, front) ? strlen(front) : starts(name, "blk.") ? 4 : 0;
    if (!c->next_token_layers || !n || name[n] < '0' || name[n] > '9')
        return false;
    return strtoul(name + n, NULL, 10) >= c->num_layers;
}

bool config_is_text(const struct model_config *c, const char *name)
{
    if (c->delta.value_heads && starts(name, "mtp."))
        return false;
    bool inside = !c->wrapper[0] || starts(name, config_prefix(c)) || starts(name, config_head_name(c));
    return inside && !is_behind(c, name);
}

/* ---- shapes ---- */

static const struct config_number *number_at(size_t at)
{
    const struct config_number *x = config_numbers;
    while (x->at != at)
        x++;
    return x;
}

const struct config_number *config_settle_shape(struct model_config *c, bool gguf, char what[128])
{
    const struct config_number *hidden = number_at(AT(hidden_size)), *heads = number_at(AT(num_heads));
    const char *heads_key = gguf ? heads->gguf : heads->hf;
    if (!c->num_kv_heads)
        c->num_kv_heads = c->num_heads;
    if (c->num_kv_heads && c->num_heads % c->num_kv_heads != 0) {
        snprintf(what, 128, "must divide %s", heads_key);
        return number_at(AT(num_kv_heads));
    }
    if (!c->head_dim && c->num_heads) {
        if (c->hidden_size % c->num_heads != 0) {
            snprintf(what, 128, "is missing, and %s does not divide %s", heads_key, gguf ? hidden->gguf : hidden->hf);
            return number_at(AT(head_dim));
        }
        c->head_dim = c->hidden_size / c->num_heads;
    }
    if (c->head_dim % 2 == 0)
        return NULL;
    snprintf(what, 128, "must be even (rotary embeddings rotate pairs)");
    return number_at(AT(head_dim));
}

void config_unsupported(struct model_config *c, const char *hint, const char *fmt, ...)
{
    va_list ap;
    if (c->unsupported[0])
        return;
    va_start(ap, fmt);
    vsnprintf(c->unsupported, sizeof c->unsupported, fmt, ap);
    va_end(ap);
    snprintf(c->unsupported_hint, sizeof c->unsupported_hint, "%s", hint);
}

bool config_supported(const struct model_config *c, struct err *e)
{
    if (!c->unsupported[0])
        return true;
    err_set(e, ERR_USER, "%s", c->unsupported);
    return err_hint(e, "%s", c->unsupported_hint);
}

void config_settle_slides(struct model_config *c)
{
    uint32_t sliding = 0;
    for (uint32_t i = 0; i < c->num_layers; i++)
        sliding += c->slides[i];
    if (sliding && sliding < c->num_layers)
        return;
    if (!sliding)
        c->sliding_window = 0;
    free(c->slides);
    c->slides = NULL;
}

uint32_t config_window(const struct model_config *c, uint32_t layer)
{
    return c->slides && !c->slides[layer] ? 0 : c->sliding_window;
}

bool config_has_rope(const struct model_config *c, uint32_t layer)
{
    return !c->no_rope || !c->no_rope[layer];
}

bool config_rope_is_local(const struct model_config *c, uint32_t layer)
{
    return c->rope_local_theta > 0 && config_window(c, layer) > 0;
}

bool config_has_delta(const struct model_config *c, uint32_t layer)
{
    return c->delta.layers && c->delta.layers[layer];
}

bool config_forward_only(const struct model_config *c)
{
    return c->mla.kv_rank || c->delta.value_heads;
}

uint32_t config_delta_values(const struct model_config *c)
{
    return c->delta.value_heads * c->delta.value_dim;
}

uint32_t config_delta_mixed(const struct model_config *c)
{
    return 2 * c->delta.key_heads * c->delta.key_dim + config_delta_values(c);
}

uint32_t config_rope_dim(const struct model_config *c)
{
    return c->rope_dim ? c->rope_dim : c->head_dim;
}

double config_attention_scale(const struct model_config *c)
{
    return c->attention_scale > 0 ? c->attention_scale : 1 / sqrt(c->head_dim);
}

double config_factor(double v)
{
    return v > 0 ? v : 1;
}

const char *config_experts_odd(const struct expert_config *x, bool *groups)
{
    *groups = x->n % x->groups != 0;
    if (*groups)
        return "must divide the number of experts";
    return x->used > x->n / x->groups * x->groups_used ? "is more than there are experts to choose from" : NULL;
}

bool config_has_experts(const struct model_config *c, uint32_t layer)
{
    const struct expert_config *x = &c->experts;
    return x->n && layer >= x->first_dense && (x->step < 2 || (layer + 1) % x->step == 0) &&
           !(x->dense && x->dense[layer]);
}

void config_free(struct model_config *c)
{
    free(c->experts.dense);
    free(c->delta.layers);
    free(c->rope_factors);
    free(c->rope_factors_long);
    free(c->no_rope);
    free(c->slides);
    for (size_t i = 0; i < c->n_rules; i++)
        free(c->rules[i].regex);
    free(c->rules);
    *c = (struct model_config){0};
}
