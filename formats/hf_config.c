/* config.json: the shape of the model. How it is quantized is read in hf_quant.c. */
#include "formats/hf_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hf_quant.h"
#include "formats/json.h"

/* What every reader below needs: the object, and how to speak of it. */
struct reader {
    const cJSON *o;
    const char *path;
    const char *where; /* "" or "rope_scaling." in front of a key */
    struct err *e;
};

static bool bad(const struct reader *r, const char *key, const char *what)
{
    err_set(r->e, ERR_USER, "%s: \"%s%s\" %s", r->path, r->where, key, what);
    return err_hint(r->e, "check config.json against the one of the original model");
}

/* An integer within [lo, hi]; an absent one is `fallback`, or an error if fallback < 0. */
static bool read_u32(const struct reader *r, const char *key, uint32_t lo, uint32_t hi, int64_t fallback,
                     uint32_t *out)
{
    const cJSON *item = json_get(r->o, key);
    uint64_t v;
    if (!item) {
        if (fallback < 0)
            return bad(r, key, "is missing");
        *out = (uint32_t)fallback;
        return true;
    }
    if (!json_u64(item, &v) || v < lo || v > hi) {
        err_set(r->e, ERR_USER, "%s: \"%s%s\" must be a whole number from %u to %u", r->path, r->where, key,
                lo, hi);
        return err_hint(r->e, "check config.json against the one of the original model");
    }
    *out = (uint32_t)v;
    return true;
}

/* A number within (0, 1e12); an absent one is `fallback`, or an error if fallback is 0. */
static bool read_positive(const struct reader *r, const char *key, double fallback, double *out)
{
    const cJSON *item = json_get(r->o, key);
    if (!item && fallback == 0)
        return bad(r, key, "is missing");
    *out = item ? item->valuedouble : fallback;
    if (item && (!cJSON_IsNumber(item) || !(*out > 0 && *out < 1e12)))
        return bad(r, key, "must be a positive number");
    return true;
}

static bool read_bool(const struct reader *r, const char *key, bool fallback, bool *out)
{
    const cJSON *item = json_get(r->o, key);
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
    const cJSON *item = json_get(r->o, key);
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
    return read_text(r, json_get(r->o, "torch_dtype") ? "torch_dtype" : "dtype", c->torch_dtype,
                     sizeof c->torch_dtype);
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

static bool read_shape(const struct reader *r, struct model_config *c)
{
    if (!json_get(r->o, "hidden_size") && json_get(r->o, "text_config"))
        return bad(r, "text_config", "says that this model reads more than text; gsq takes text models only");
    if (!read_u32(r, "hidden_size", 1, 1u << 20, -1, &c->hidden_size) ||
        !read_u32(r, "intermediate_size", 1, 1u << 24, -1, &c->intermediate_size) ||
        !read_u32(r, "num_hidden_layers", 1, 10000, -1, &c->num_layers) ||
        !read_u32(r, "num_attention_heads", 1, 1u << 16, -1, &c->num_heads) ||
        !read_u32(r, "num_key_value_heads", 1, 1u << 16, c->num_heads, &c->num_kv_heads) ||
        !read_u32(r, "vocab_size", 1, 1u << 28, -1, &c->vocab_size) ||
        !read_u32(r, "max_position_embeddings", 0, UINT32_MAX, 0, &c->max_position) ||
        !read_u32(r, "head_dim", 1, 1u << 16, 0, &c->head_dim))
        return false;
    if (c->num_heads % c->num_kv_heads != 0)
        return bad(r, "num_key_value_heads", "must divide num_attention_heads");
    if (c->head_dim == 0) {
        if (c->hidden_size % c->num_heads != 0)
            return bad(r, "head_dim", "is missing, and num_attention_heads does not divide hidden_size");
        c->head_dim = c->hidden_size / c->num_heads;
    }
    if (c->head_dim % 2 != 0)
        return bad(r, "head_dim", "must be even (rotary embeddings turn pairs)");
    return true;
}

static bool read_details(const struct reader *r, struct model_config *c)
{
    double eps;
    bool use_window = true;
    if (!read_positive(r, "rms_norm_eps", 0, &eps) ||
        !read_bool(r, "tie_word_embeddings", strncmp(c->model_type, "gemma", 5) == 0,
                   &c->tie_word_embeddings) ||
        !read_u32(r, "sliding_window", 1, UINT32_MAX, 0, &c->sliding_window) ||
        !read_bool(r, "use_sliding_window", true, &use_window) ||
        !read_token(r, "bos_token_id", &c->bos_id) || !read_token(r, "eos_token_id", &c->eos_id))
        return false;
    if (eps >= 1)
        return bad(r, "rms_norm_eps", "must be below 1");
    c->rms_eps = (float)eps;
    if (!use_window)
        c->sliding_window = 0;
    const char *key = json_get(r->o, "hidden_act") ? "hidden_act" : "hidden_activation";
    if (!read_text(r, key, c->hidden_act, sizeof c->hidden_act))
        return false;
    if (!c->hidden_act[0])
        strcpy(c->hidden_act, "silu");
    if (strcmp(c->hidden_act, "silu") != 0 && strcmp(c->hidden_act, "swish") != 0) {
        err_set(r->e, ERR_USER, "%s: the activation \"%s\" is not one that gsq knows", r->path,
                c->hidden_act);
        return err_hint(r->e, "gsq takes models with silu (also called swish)");
    }
    return true;
}

/* rope_scaling, or rope_parameters of newer files, which hold rope_theta too. */
static bool read_rope(const struct reader *top, struct model_config *c)
{
    const char *name = json_get(top->o, "rope_parameters") ? "rope_parameters" : "rope_scaling";
    const cJSON *o = json_get(top->o, name);
    char where[32], type[32];
    snprintf(where, sizeof where, "%s.", name);
    const struct reader r = {.o = o, .path = top->path, .where = where, .e = top->e};
    if (o && !cJSON_IsObject(o))
        return bad(top, name, "must be an object or null");
    double fraction;
    if (!read_positive(top, "rope_theta", 10000, &c->rope_theta) ||
        !read_positive(&r, "rope_theta", c->rope_theta, &c->rope_theta) ||
        !read_positive(top, "partial_rotary_factor", 1, &fraction) ||
        !read_positive(&r, "partial_rotary_factor", fraction, &fraction))
        return false;
    if (fraction != 1)
        return bad(top, "partial_rotary_factor", "is not 1: gsq turns whole heads only");
    for (const cJSON *item = o ? o->child : NULL; item; item = item->next)
        if (cJSON_IsObject(item))
            return bad(&r, item->string, "is set per kind of layer, which gsq does not read");
    if (!read_text(&r, json_get(o, "rope_type") ? "rope_type" : "type", type, sizeof type))
        return false;
    if (!type[0] && o && json_get(o, "factor"))
        return bad(&r, "rope_type", "is missing");
    if (!type[0] || strcmp(type, "default") == 0)
        return true;
    if (strcmp(type, "linear") == 0) {
        c->rope_scaling = ROPE_LINEAR;
        return read_positive(&r, "factor", 0, &c->rope_factor);
    }
    if (strcmp(type, "llama3") == 0) {
        c->rope_scaling = ROPE_LLAMA3;
        if (!read_positive(&r, "factor", 0, &c->rope_factor) ||
            !read_positive(&r, "low_freq_factor", 0, &c->rope_low_freq) ||
            !read_positive(&r, "high_freq_factor", 0, &c->rope_high_freq) ||
            !read_u32(&r, "original_max_position_embeddings", 1, UINT32_MAX, -1, &c->rope_original_context))
            return false;
        if (c->rope_high_freq <= c->rope_low_freq)
            return bad(&r, "high_freq_factor", "must be above low_freq_factor");
        return true;
    }
    err_set(top->e, ERR_USER, "%s: the RoPE scaling \"%s\" is not one that gsq knows", top->path, type);
    return err_hint(top->e, "gsq reads default, linear and llama3");
}

bool hf_config_parse(struct model_config *out, const char *text, size_t size, const char *path, struct err *e)
{
    *out = (struct model_config){0};
    cJSON *root = json_parse(text, size, path, e);
    if (!root)
        return false;
    const struct reader r = {.o = root, .path = path, .where = "", .e = e};
    bool ok = true;
    const char *twice;
    if (!cJSON_IsObject(root))
        ok = err_set(e, ERR_USER, "%s does not hold an object", path);
    else if (json_duplicate(root, &twice))
        ok = bad(&r, twice, "stands in the file twice");
    ok = ok && read_architecture(&r, out) && read_shape(&r, out) && read_details(&r, out) &&
         read_rope(&r, out) && hf_quant_parse(out, root, path, e);
    cJSON_Delete(root);
    if (!ok)
        hf_config_free(out);
    return ok;
}

double rope_frequency(const struct model_config *c, uint32_t pair)
{
    const double pi = 3.14159265358979323846;
    double f = pow(c->rope_theta, -2.0 * pair / c->head_dim);
    if (c->rope_scaling == ROPE_FACTORS)
        return f / (double)c->rope_factors[pair];
    if (c->rope_scaling == ROPE_LINEAR)
        return f / c->rope_factor;
    if (c->rope_scaling != ROPE_LLAMA3)
        return f;
    /* Llama 3.1: slow turns are stretched, fast ones kept, a linear blend between. */
    double turns = c->rope_original_context * f / (2 * pi);
    if (turns < c->rope_low_freq)
        return f / c->rope_factor;
    if (turns > c->rope_high_freq)
        return f;
    double smooth = (turns - c->rope_low_freq) / (c->rope_high_freq - c->rope_low_freq);
    return (1 - smooth) * f / c->rope_factor + smooth * f;
}

void hf_config_free(struct model_config *c)
{
    free(c->rope_factors);
    for (size_t i = 0; i < c->n_rules; i++)
        free(c->rules[i].regex);
    free(c->rules);
    *c = (struct model_config){0};
}
