/* Synthetic model folders for the tests of formats/: a Llama of two blocks with random weights. */
#ifndef TESTS_TINY_MODEL_H
#define TESTS_TINY_MODEL_H

#include "formats/write/export.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/str.h"
#include "tests/check.h"
#include "tests/write_out.h"

enum { HIDDEN = 64, INNER = 128, LAYERS = 2, VOCAB = 96 };
enum tied { UNTIED, TIED_EMBED, TIED_HEAD, TIED_BOTH };

struct tiny_options {
    enum dtype dtype;
    enum tied tied;
    bool bias;                /* on q, k, v */
    const char *torch_dtype;  /* NULL: what dtype is */
    const char *config_extra; /* more members, with a comma in front */
};

static inline uint32_t tiny_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* ---- tensors in memory ---- */

struct raw_tensor {
    char name[128];
    enum dtype dtype;
    uint32_t n_dims;
    uint64_t shape[3], bytes;
    uint8_t *data;
};
struct raw_model {
    struct raw_tensor items[64];
    size_t n;
};

static inline struct raw_tensor *raw_add(struct raw_model *m, const char *name, enum dtype dtype, uint64_t rows,
                                         uint64_t cols)
{
    struct raw_tensor *t = &m->items[m->n++];
    assert_true(m->n <= 64);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->dtype = dtype;
    t->n_dims = rows ? 2 : 1;
    t->shape[0] = rows ? rows : cols;
    t->shape[1] = rows ? cols : 0;
    t->bytes = (rows ? rows : 1) * cols * dtype_size(dtype);
    t->data = calloc(1, (size_t)t->bytes + 1);
    assert_non_null(t->data);
    return t;
}

static inline struct raw_tensor *raw_find(struct raw_model *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->items[i].name, name) == 0)
            return &m->items[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static inline void raw_drop(struct raw_model *m, const char *name)
{
    struct raw_tensor *t = raw_find(m, name);
    free(t->data);
    memmove(t, t + 1, (size_t)(&m->items[--m->n] - t) * sizeof *t);
}

static inline void raw_free(struct raw_model *m)
{
    for (size_t i = 0; i < m->n; i++)
        free(m->items[i].data);
    m->n = 0;
}

static inline void raw_set(struct raw_tensor *t, uint64_t i, float v)
{
    if (t->dtype == DTYPE_F32)
        memcpy(t->data + i * 4, &v, 4);
    else
        store_u16le(t->data + i * 2, t->dtype == DTYPE_F16 ? f32_to_f16(v) : f32_to_bf16(v));
}

static inline void raw_weight(struct raw_model *m, const char *name, enum dtype dtype, uint64_t rows, uint64_t cols,
                              uint32_t *seed)
{
    struct raw_tensor *t = raw_add(m, name, dtype, rows, cols);
    for (uint64_t i = 0; i < (rows ? rows : 1) * cols; i++)
        raw_set(t, i, (float)((int)(tiny_random(seed) % 2001) - 1000) / 4096.0f);
}

/* model.safetensors. odd: data at an odd address, as files of other writers may have it. */
static inline void raw_write(const struct raw_model *m, const char *dir, bool odd)
{
    struct err e = {0};
    struct strbuf b = {0};
    char path[512], zero[8] = {0};
    uint64_t at = 0;
    strbuf_add(&b, zero, 8);
    strbuf_puts(&b, "{");
    for (size_t i = 0; i < m->n; i++) {
        const struct raw_tensor *t = &m->items[i];
        strbuf_printf(&b, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%llu", i ? "," : "", t->name, dtype_name(t->dtype),
                      (unsigned long long)t->shape[0]);
        for (uint32_t d = 1; d < t->n_dims; d++)
            strbuf_printf(&b, ",%llu", (unsigned long long)t->shape[d]);
        strbuf_printf(&b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                      (unsigned long long)(at + t->bytes));
        at += t->bytes;
    }
    strbuf_puts(&b, "}");
    while ((b.size % 8 != 0) != odd)
        strbuf_puts(&b, " ");
    store_u64le(b.data, b.size - 8);
    for (size_t i = 0; i < m->n; i++)
        strbuf_add(&b, (const char *)m->items[i].data, (size_t)m->items[i].bytes);
    assert_false(b.failed);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    OK(os_write_file(path, b.data, b.size, &e), e);
    strbuf_free(&b);
}

static inline void raw_read(struct raw_model *m, const char *dir)
{
    struct err e = {0};
    struct safetensors *s;
    m->n = 0;
    OK(safetensors_open_dir(&s, dir, &e), e);
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const struct tensor *t = safetensors_at(s, i);
        struct raw_tensor *r = raw_add(m, t->name, t->dtype, t->n_dims == 2 ? t->shape[0] : 0, t->shape[t->n_dims - 1]);
        assert_int_equal(r->bytes, t->bytes);
        memcpy(r->data, t->data, (size_t)t->bytes);
    }
    safetensors_close(&s);
}

static inline void write_text_file(const char *dir, const char *name, const char *text)
{
    struct err e = {0};
    char path[512];
    OK(os_mkdirs(dir, &e), e);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    OK(os_write_file(path, text, strlen(text), &e), e);
}

static inline void assert_same_file(const char *a, const char *b, const char *name)
{
    struct err e = {0};
    char pa[512], pb[512], *ta, *tb;
    size_t na, nb;
    snprintf(pa, sizeof pa, "%s/%s", a, name);
    snprintf(pb, sizeof pb, "%s/%s", b, name);
    OK(os_read_file(pa, 1u << 30, &ta, &na, &e), e);
    OK(os_read_file(pb, 1u << 30, &tb, &nb, &e), e);
    if (na != nb || memcmp(ta, tb, na) != 0)
        fail_msg("%s and %s differ", pa, pb);
    free(ta);
    free(tb);
}

/* ---- the model ---- */

static inline void tiny_config(const char *dir, const struct tiny_options *o)
{
    char text[2048];
    const char *dtype = o->torch_dtype          ? o->torch_dtype
                        : o->dtype == DTYPE_F32 ? "float32"
                        : o->dtype == DTYPE_F16 ? "float16"
                                                : "bfloat16";
    snprintf(text, sizeof text,
             "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"torch_dtype\": \"%s\", "
             "\"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d, "
             "\"num_attention_heads\": 4, \"num_key_value_heads\": 4, \"vocab_size\": %d, "
             "\"max_position_embeddings\": 128, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, "
             "\"hidden_act\": \"silu\", \"tie_word_embeddings\": %s, \"bos_token_id\": 1, \"eos_token_id\": 2, "
             "\"initializer_range\": 0.02, \"unknown_key\": [1, 2.5, {\"a\\\"7\": null}, -0.50e+1]%s}",
             dtype, HIDDEN, INNER, LAYERS, VOCAB, o->tied ? "true" : "false", o->config_extra ? o->config_extra : "");
    write_text_file(dir, "config.json", text);
}

static inline void tiny_tensors(struct raw_model *m, const struct tiny_options *o)
{
    static const struct {
        const char *name;
        int rows, cols;
        bool bias;
    } linears[] = {
        {"self_attn.q_proj", HIDDEN, HIDDEN, true}, {"self_attn.k_proj", HIDDEN, HIDDEN, true},
        {"self_attn.v_proj", HIDDEN, HIDDEN, true}, {"self_attn.o_proj", HIDDEN, HIDDEN, false},
        {"mlp.gate_proj", INNER, HIDDEN, false},    {"mlp.up_proj", INNER, HIDDEN, false},
        {"mlp.down_proj", HIDDEN, INNER, false},
    };
    uint32_t seed = 7;
    char name[128];
    m->n = 0;
    if (o->tied != TIED_HEAD)
        raw_weight(m, "model.embed_tokens.weight", o->dtype, VOCAB, HIDDEN, &seed);
    for (int l = 0; l < LAYERS; l++) {
        for (size_t i = 0; i < sizeof linears / sizeof linears[0]; i++) {
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, linears[i].name);
            raw_weight(m, name, o->dtype, (uint64_t)linears[i].rows, (uint64_t)linears[i].cols, &seed);
            snprintf(name, sizeof name, "model.layers.%d.%s.bias", l, linears[i].name);
            if (o->bias && linears[i].bias)
                raw_weight(m, name, o->dtype, 0, (uint64_t)linears[i].rows, &seed);
        }
        snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", l);
        raw_weight(m, name, o->dtype, 0, HIDDEN, &seed);
        snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", l);
        raw_weight(m, name, o->dtype, 0, HIDDEN, &seed);
    }
    raw_weight(m, "model.norm.weight", o->dtype, 0, HIDDEN, &seed);
    if (o->tied != TIED_EMBED)
        raw_weight(m, "lm_head.weight", o->dtype, VOCAB, HIDDEN, &seed);
}

static inline void tiny_write(const char *dir, const struct tiny_options *o)
{
    struct raw_model m;
    os_remove_tree(dir);
    tiny_config(dir, o);
    tiny_tensors(&m, o);
    raw_write(&m, dir, false);
    raw_free(&m);
}

/* ---- items and codes ---- */

struct items {
    struct matrix items[16];
    size_t n;
};

/* All 14 linears in one type; the caller changes some, or drops the last ones. */
static inline void items_all(struct items *x, const char *type, uint32_t group, enum scale_type scale)
{
    static const char *const names[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                        "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
    x->n = 0;
    for (int l = 0; l < LAYERS; l++) {
        for (int i = 0; i < 7; i++, x->n++) {
            x->items[x->n] = (struct matrix){.coded = true,
                                             .rows = i == 4 || i == 5 ? INNER : HIDDEN,
                                             .cols = i == 6 ? INNER : HIDDEN,
                                             .spec = {quant_type_find(type), group, scale}};
            snprintf(x->items[x->n].module, sizeof x->items[0].module, "model.layers.%d.%s", l, names[i]);
        }
    }
}

/* Codes over the whole range and scales of both signs and zero, from the module's name. */
static inline bool random_linear(void *ctx, const struct matrix *item, struct qlinear *q, struct err *e)
{
    uint32_t seed = 99;
    (void)ctx;
    for (const char *s = item->module; *s; s++)
        seed = seed * 31 + (uint8_t)*s;
    if (!qlinear_init(q, item->rows, item->cols, item->spec, e))
        return false;
    int lo = item->spec.type->lo, n = item->spec.type->hi - lo + 1;
    for (size_t i = 0; i < (size_t)q->rows * q->cols; i++)
        q->codes[i] = (int8_t)(lo + (int)(tiny_random(&seed) % (unsigned)n));
    for (size_t i = 0; i < (size_t)q->rows * q->groups; i++)
        q->scales[i] = scale_round(item->spec.scale, (float)((int)(tiny_random(&seed) % 4001) - 2000) / 65536.0f);
    return true;
}

/* The codes of another checkpoint, as `convert` takes them. */
static inline bool checkpoint_linear(void *ctx, const struct matrix *item, struct qlinear *q, struct err *e)
{
    return checkpoint_read_codes(ctx, item->module, q, e);
}

/* Writes random codes of these items. */
static inline bool write_random(const char *out, const char *src, const struct items *x, const struct export_options *o,
                                struct err *e)
{
    struct checkpoint *c;
    const struct export_source source = {.linear = random_linear};
    OK(checkpoint_open(&c, src, e), *e);
    bool ok = write_out(out, c, x->items, x->n, o, &source, e);
    checkpoint_close(&c);
    return ok;
}

static inline struct checkpoint *open_ok(const char *dir)
{
    struct err e = {0};
    struct checkpoint *c;
    OK(checkpoint_open(&c, dir, &e), e);
    return c;
}

static inline void assert_same_codes(const struct qlinear *a, const struct qlinear *b, const char *name)
{
    if (a->rows != b->rows || a->cols != b->cols || a->groups != b->groups)
        fail_msg("%s: shapes differ", name);
    if (memcmp(a->codes, b->codes, (size_t)a->rows * a->cols) != 0)
        fail_msg("%s: codes differ", name);
    for (size_t i = 0; i < (size_t)a->rows * a->groups; i++)
        if (a->scales[i] != b->scales[i])
            fail_msg("%s: scale %zu is %g, not %g", name, i, (double)a->scales[i], (double)b->scales[i]);
}

#endif
