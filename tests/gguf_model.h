/* Small GGUFs for tests: a model of one block with random weights, any tensor in any type. */
#ifndef TESTS_GGUF_MODEL_H
#define TESTS_GGUF_MODEL_H

#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_type.h"
#include "tests/tiny_model.h"

enum { G_HIDDEN = 256, G_INNER = 512, G_HEADS = 4, G_KV = 2, G_DIM = 64, G_VOCAB = 40 };

struct made_tensor {
    char name[64];
    uint32_t type, n_dims;
    uint64_t ne[2];
    uint32_t matrices; /* of ne[0] by ne[1] / matrices each; 0: it is one */
    uint8_t *data;
    uint64_t bytes;
};
struct made_gguf {
    struct gguf_keys *keys;
    struct made_tensor tensors[32];
    size_t n;
    uint32_t seed;
};

/* Random blocks of a type; the scales are small and finite. */
static inline void random_blocks(const struct gguf_type *type, uint64_t blocks, uint8_t *dst, uint32_t *seed)
{
    static const struct {
        int id, at[2];
    } halves[] = {{GGML_Q2_0, {0, -1}},    {GGML_TQ2_0, {64, -1}},  {GGML_TQ1_0, {52, -1}}, {GGML_Q2_K, {80, 82}},
                  {GGML_Q3_K, {108, -1}},  {GGML_Q4_0, {0, -1}},    {GGML_Q4_1, {0, 2}},    {GGML_Q5_0, {0, -1}},
                  {GGML_Q5_1, {0, 2}},     {GGML_Q4_K, {0, 2}},     {GGML_Q5_K, {0, 2}},    {GGML_Q6_K, {208, -1}},
                  {GGML_IQ4_NL, {0, -1}},  {GGML_Q8_0, {0, -1}},    {GGML_F32, {-1, -1}},   {GGML_F16, {-1, -1}},
                  {GGML_MXFP4, {-1, -1}},  {GGML_NVFP4, {-1, -1}},  {GGML_Q1_0, {0, -1}},   {GGML_IQ4_XS, {0, -1}},
                  {GGML_IQ1_S, {0, -1}},   {GGML_IQ2_XXS, {0, -1}}, {GGML_IQ2_XS, {0, -1}}, {GGML_IQ2_S, {0, -1}},
                  {GGML_IQ3_XXS, {0, -1}}, {GGML_IQ3_S, {0, -1}}};
    for (uint64_t b = 0; b < blocks; b++, dst += type->bytes) {
        float v = (float)((int)(tiny_random(seed) % 2001) - 1000) / 4096.0f;
        if (type->id == GGML_F32) {
            memcpy(dst, &v, 4);
            continue;
        }
        if (type->id == GGML_F16 || type->id == GGML_BF16) {
            store_u16le(dst, type->id == GGML_F16 ? f32_to_f16(v) : f32_to_bf16(v));
            continue;
        }
        for (uint32_t i = 0; i < type->bytes; i++)
            dst[i] = (uint8_t)tiny_random(seed);
        if (type->id == GGML_TQ1_0) /* only the bytes that five trits make */
            for (uint32_t i = 0; i < 52; i++)
                dst[i] = (uint8_t)((dst[i] % (i < 48 ? 243 : 81) * (i < 48 ? 1 : 3) * 256 + 242) / 243);
        if (type->id == GGML_IQ1_M) /* its scale's exponent */
            dst[55] = (uint8_t)((dst[55] & 15) | 0x20);
        if (type->id == GGML_MXFP4)
            dst[0] = (uint8_t)(120 + dst[0] % 8);
        for (size_t k = 0; k < sizeof halves / sizeof halves[0]; k++)
            for (int i = 0; i < 2 && halves[k].id == type->id; i++)
                if (halves[k].at[i] >= 0)
                    store_u16le(dst + halves[k].at[i],
                                f32_to_f16((float)((int)(tiny_random(seed) % 201) - 100) / 8192.0f));
    }
}

/* rows 0: a vector. */
static inline struct made_tensor *made_add(struct made_gguf *m, const char *name, uint32_t type, uint64_t rows,
                                           uint64_t cols)
{
    const struct gguf_type *t = gguf_type_of(type);
    struct made_tensor *x = &m->tensors[m->n++];
    assert_true(m->n <= 32);
    assert_non_null(t);
    snprintf(x->name, sizeof x->name, "%s", name);
    x->type = type;
    x->n_dims = rows ? 2 : 1;
    x->ne[0] = cols;
    x->ne[1] = rows ? rows : 1;
    x->bytes = gguf_row_bytes(t, cols) * x->ne[1];
    x->data = malloc((size_t)x->bytes);
    assert_non_null(x->data);
    random_blocks(t, x->ne[1] * cols / t->block, x->data, &m->seed);
    return x;
}

static inline struct made_tensor *made_find(struct made_gguf *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->tensors[i].name, name) == 0)
            return &m->tensors[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static inline void made_drop(struct made_gguf *m, const char *name)
{
    struct made_tensor *x = made_find(m, name);
    free(x->data);
    memmove(x, x + 1, (size_t)(&m->tensors[--m->n] - x) * sizeof *x);
}

/* Keys of an architecture, and all tensors: matrices of `type`, the embedding of `embedding`. */
static inline void made_model(struct made_gguf *m, const char *arch, uint32_t type, uint32_t embedding)
{
    static const struct {
        const char *key;
        uint32_t v;
    } numbers[] = {
        {"context_length", 128},          {"embedding_length", G_HIDDEN},    {"block_count", 1},
        {"feed_forward_length", G_INNER}, {"attention.head_count", G_HEADS}, {"attention.head_count_kv", G_KV},
        {"attention.key_length", G_DIM},  {"attention.value_length", G_DIM}, {"rope.dimension_count", G_DIM}};
    static const struct {
        const char *name;
        uint32_t rows, cols;
    } matrices[] = {{"attn_q", G_HEADS * G_DIM, G_HIDDEN}, {"attn_k", G_KV * G_DIM, G_HIDDEN},
                    {"attn_v", G_KV * G_DIM, G_HIDDEN},    {"attn_output", G_HIDDEN, G_HEADS * G_DIM},
                    {"ffn_gate", G_INNER, G_HIDDEN},       {"ffn_up", G_INNER, G_HIDDEN},
                    {"ffn_down", G_HIDDEN, G_INNER}};
    char key[128];
    *m = (struct made_gguf){.keys = gguf_keys_create(), .seed = 7};
    assert_non_null(m->keys);
    gguf_add_string(m->keys, "general.architecture", arch, strlen(arch));
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, numbers[i].key);
        gguf_add_u32(m->keys, key, numbers[i].v);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    gguf_add_f32(m->keys, key, 1e-5f);
    made_add(m, "token_embd.weight", embedding, G_VOCAB, G_HIDDEN);
    made_add(m, "output_norm.weight", GGML_F32, 0, G_HIDDEN);
    made_add(m, "blk.0.attn_norm.weight", GGML_F32, 0, G_HIDDEN);
    made_add(m, "blk.0.ffn_norm.weight", GGML_F32, 0, G_HIDDEN);
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
        snprintf(key, sizeof key, "blk.0.%s.weight", matrices[i].name);
        made_add(m, key, type, matrices[i].rows, matrices[i].cols);
    }
}

static inline void made_write(const struct made_gguf *m, const char *path)
{
    struct gguf_tensor_plan plan[32];
    struct gguf_writer *w;
    struct err e = {0};
    for (size_t i = 0; i < m->n; i++) {
        const struct made_tensor *x = &m->tensors[i];
        uint64_t n = x->matrices ? x->matrices : 1;
        plan[i] = (struct gguf_tensor_plan){x->name, n > 1 ? 3 : x->n_dims, {x->ne[0], x->ne[1] / n, n, 1}, x->type};
    }
    OK(gguf_writer_open(&w, path, m->keys, plan, m->n, &e), e);
    for (size_t i = 0; i < m->n; i++)
        OK(gguf_writer_put(w, m->tensors[i].data, (size_t)m->tensors[i].bytes, &e), e);
    OK(gguf_writer_close(&w, &e), e);
}

static inline void made_free(struct made_gguf *m)
{
    for (size_t i = 0; i < m->n; i++)
        free(m->tensors[i].data);
    gguf_keys_destroy(&m->keys);
}

#endif
