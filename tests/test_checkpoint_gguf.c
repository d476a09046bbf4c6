/* A GGUF as a model: config from its metadata, tensors under Hugging Face names and in their order. */
#include "formats/hf/hf_config.h"
#include "formats/read/tensor_values.h"
#include "tests/gguf_model.h"

#include <math.h>

#include "arch/family.h"

#define DIR_ "tmp_checkpoint_gguf"
#include "tests/scratch_dir.h"

#define FILE_ DIR_ "/model.gguf"

#define Q  "model.layers.0.self_attn.q_proj"
#define K  "model.layers.0.self_attn.k_proj"
#define V  "model.layers.0.self_attn.v_proj"
#define UP "model.layers.0.mlp.up_proj"

/* Writes, frees and opens. */
static struct checkpoint *open_made(struct made_gguf *m)
{
    struct err e = {0};
    struct checkpoint *c;
    made_write(m, FILE_);
    made_free(m);
    OK(checkpoint_open(&c, FILE_, &e), e);
    return c;
}

static void expect_refused(struct made_gguf *m, const char *says)
{
    struct err e = {0};
    struct checkpoint *c;
    made_write(m, FILE_);
    made_free(m);
    FAILS(checkpoint_open(&c, FILE_, &e), e, ERR_USER, says);
    if (!strstr(e.msg, FILE_) || !e.hint[0])
        fail_msg("\"%s\" (%s) names no file or no remedy", e.msg, e.hint);
    for (const char *p = e.msg; *p; p++)
        assert_true((unsigned char)*p >= ' ');
    assert_null(c);
}

/* ---- config ---- */

static void test_config(void **state)
{
    (void)state;
    struct made_gguf m;
    struct err e = {0};
    made_model(&m, "llama", GGML_F16, GGML_F16);
    gguf_add_f32(m.keys, "llama.rope.freq_base", 500000.0f);
    gguf_add_u32(m.keys, "tokenizer.ggml.bos_token_id", 1);
    gguf_add_u32(m.keys, "tokenizer.ggml.eos_token_id", 2);
    struct checkpoint *c = open_made(&m);
    const struct model_config *cfg = checkpoint_config(c);
    assert_string_equal(checkpoint_dir(c), FILE_);
    assert_non_null(checkpoint_gguf(c));
    assert_string_equal(cfg->architecture, "LlamaForCausalLM");
    assert_string_equal(cfg->model_type, "llama");
    assert_string_equal(cfg->torch_dtype, "float16");
    assert_string_equal(cfg->hidden_act, "silu");
    assert_int_equal(cfg->hidden_size, G_HIDDEN);
    assert_int_equal(cfg->intermediate_size, G_INNER);
    assert_int_equal(cfg->num_layers, 1);
    assert_int_equal(cfg->num_heads, G_HEADS);
    assert_int_equal(cfg->num_kv_heads, G_KV);
    assert_int_equal(cfg->head_dim, G_DIM);
    assert_int_equal(cfg->vocab_size, G_VOCAB);
    assert_int_equal(cfg->max_position, 128);
    assert_int_equal(cfg->sliding_window, 0);
    assert_float_equal(cfg->rms_eps, 1e-5f, 0);
    assert_float_equal(cfg->rope_theta, 500000, 0);
    assert_int_equal(cfg->rope_scaling, ROPE_UNSCALED);
    assert_true(cfg->tie_word_embeddings);
    assert_int_equal(cfg->bos_id, 1);
    assert_int_equal(cfg->eos_id, 2);
    assert_string_equal(checkpoint_head_module(c), "model.embed_tokens");

    /* The text that stands for config.json says the same. */
    char *text;
    size_t size;
    struct model_config again;
    OK(checkpoint_config_text(c, &text, &size, &e), e);
    OK(hf_config_parse(&again, text, size, "config.json", &e), e);
    struct model_config copy = *cfg;
    assert_memory_equal(&again, &copy, sizeof again);
    config_free(&again);
    free(text);
    checkpoint_close(&c);
}

static void test_families(void **state)
{
    (void)state;
    static const struct {
        const char *arch, *window, *architecture;
    } cases[] = {{"llama", NULL, "LlamaForCausalLM"},
                 {"llama", "llama.attention.sliding_window", "MistralForCausalLM"},
                 {"qwen2", NULL, "Qwen2ForCausalLM"},
                 {"qwen2", "qwen2.attention.sliding_window", "Qwen2ForCausalLM"},
                 {"qwen3", NULL, "Qwen3ForCausalLM"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct made_gguf m;
        struct err e = {0};
        made_model(&m, cases[i].arch, GGML_BF16, GGML_BF16);
        if (cases[i].window)
            gguf_add_u32(m.keys, cases[i].window, 48);
        made_add(&m, "output.weight", GGML_F32, G_VOCAB, G_HIDDEN);
        struct checkpoint *c = open_made(&m);
        const struct model_config *cfg = checkpoint_config(c);
        assert_string_equal(cfg->architecture, cases[i].architecture);
        assert_int_equal(cfg->sliding_window, cases[i].window ? 48 : 0);
        assert_string_equal(cfg->torch_dtype, "bfloat16");
        assert_false(cfg->tie_word_embeddings);
        assert_int_equal(cfg->bos_id, -1);
        assert_float_equal(cfg->rope_theta, 10000, 0);
        assert_non_null(family_find(cfg, &e));
        assert_string_equal(checkpoint_head_module(c), "lm_head");
        checkpoint_close(&c);
    }
}

/* Transformers goes by these keys; gsq, and the families without them, by the tensors. */
static void test_biases(void **state)
{
    (void)state;
    static const struct {
        const char *arch, *tensor, *says;
    } cases[] = {{"llama", "blk.0.attn_q.bias", "\"attention_bias\": true"},
                 {"llama", "blk.0.ffn_up.bias", "\"mlp_bias\": true"},
                 {"qwen2", "blk.0.attn_q.bias", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct made_gguf m;
        struct err e = {0};
        char *text;
        size_t size;
        made_model(&m, cases[i].arch, GGML_F16, GGML_F16);
        made_add(&m, cases[i].tensor, GGML_F32, 0, strstr(cases[i].tensor, "ffn") ? G_INNER : G_HEADS * G_DIM);
        struct checkpoint *c = open_made(&m);
        OK(checkpoint_config_text(c, &text, &size, &e), e);
        const char *found = strstr(text, "_bias\"");
        assert_int_equal(found != NULL, cases[i].says != NULL);
        assert_true(!found || strstr(text, cases[i].says));
        free(text);
        checkpoint_close(&c);
    }
}

/* Scalings and windows: from a GGUF's keys, and again from the config.json made of them. */
static void test_scaled(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct made_gguf m;
        struct err e = {0};
        struct model_config again;
        char *text;
        size_t size;
        made_model(&m, i < 3 ? "llama" : "qwen2", GGML_F16, GGML_F16);
        if (i == 0) {
            gguf_add_string(m.keys, "llama.rope.scaling.type", "yarn", 4);
            gguf_add_f32(m.keys, "llama.rope.scaling.factor", 4);
            gguf_add_f32(m.keys, "llama.rope.scaling.attn_factor", 0.5f);
            gguf_add_f32(m.keys, "llama.rope.scaling.yarn_beta_fast", 16);
            gguf_add_u32(m.keys, "llama.rope.scaling.original_context_length", 64);
        } else if (i == 1) { /* factors that are no llama3 scaling, and a factor of cos and sin */
            float *f = (float *)(void *)made_add(&m, "rope_freqs.weight", GGML_F32, 0, G_DIM / 2)->data;
            for (int k = 0; k < G_DIM / 2; k++)
                f[k] = (float)(1 + k * k);
            gguf_add_f32(m.keys, "llama.rope.scaling.attn_factor", 1.25f);
        } else if (i == 2) {
            gguf_add_string(m.keys, "llama.rope.scaling.type", "longrope", 8);
        } else {
            const uint8_t list[] = {1};
            gguf_add_u32(m.keys, "qwen2.attention.sliding_window", 48);
            if (i == 3)
                gguf_add_array(m.keys, "qwen2.attention.sliding_window_pattern", GGUF_BOOL, list, 1);
            else
                gguf_add_u32(m.keys, "qwen2.attention.sliding_window_pattern", 1); /* every layer is full */
        }
        struct checkpoint *c = open_made(&m);
        const struct model_config *cfg = checkpoint_config(c);
        if (i == 2) {
            FAILS(family_find(cfg, &e), e, ERR_USER, "\"longrope\"");
            checkpoint_close(&c);
            continue;
        }
        assert_int_equal(cfg->rope_scaling, i == 0 ? ROPE_YARN : i == 1 ? ROPE_FACTORS : ROPE_UNSCALED);
        assert_int_equal(config_window(cfg, 0), i == 3 ? 48 : 0);
        OK(checkpoint_config_text(c, &text, &size, &e), e);
        OK(hf_config_parse(&again, text, size, "config.json", &e), e);
        assert_true(fabs(rope_attention(cfg) - (i == 0 ? 0.5 * 1.138629436111989 : i == 1 ? 1.25 : 1)) < 1e-12);
        assert_true(rope_attention(&again) == rope_attention(cfg));
        for (uint32_t k = 0; k < G_DIM / 2; k++)
            assert_true(rope_frequency(&again, k) == rope_frequency(cfg, k));
        assert_int_equal(config_window(&again, 0), config_window(cfg, 0));
        free(text);
        config_free(&again);
        checkpoint_close(&c);
    }
}

/* Unknown architectures open, for inspect; who computes refuses them by name. */
static void test_unknown_family(void **state)
{
    (void)state;
    struct err e = {0};
    struct made_gguf m = {.keys = gguf_keys_create(), .seed = 1};
    gguf_add_string(m.keys, "general.architecture", "mamba", 5);
    made_add(&m, "token_embd.weight", GGML_F16, G_VOCAB, G_HIDDEN);
    struct checkpoint *c = open_made(&m);
    FAILS(family_find(checkpoint_config(c), &e), e, ERR_USER, "architecture mamba is not supported");
    assert_int_equal(checkpoint_tensor_count(c), 1);
    checkpoint_close(&c);

    /* A family that is known without experts. */
    made_model(&m, "qwen2", GGML_F16, GGML_F16);
    gguf_add_u32(m.keys, "qwen2.expert_count", 8);
    c = open_made(&m);
    FAILS(family_find(checkpoint_config(c), &e), e, ERR_USER, "qwen2 with experts");
    checkpoint_close(&c);
}

static void add_f64(struct gguf_keys *k, const char *key, double v)
{
    const struct gguf_kv kv = {.key = {key, strlen(key)},
                               .type = GGUF_F64,
                               .element = GGUF_F64,
                               .n = 1,
                               .data = (const uint8_t *)&v,
                               .bytes = sizeof v};
    gguf_add_kv(k, &kv);
}

static void test_refused_metadata(void **state)
{
    (void)state;
    struct made_gguf m;
    static const struct {
        const char *key;
        uint32_t v;
        const char *says;
    } numbers[] = {{"general.architecture2", 0, NULL},
                   {"qwen2.embedding_length", 0, "\"qwen2.embedding_length\" must be from 1"},
                   {"qwen2.block_count", 10001, "block_count"},
                   {"qwen2.attention.head_count_kv", 3, "must divide"},
                   {"qwen2.attention.key_length", 7, "even"},
                   /* These open, for inspect. */
                   {"qwen2.attention.value_length", 32, "value_length"},
                   {"qwen2.rope.dimension_count", 31, "whole heads"}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        /* Later keys would be duplicates: these files hold the one and lack nothing else that comes before.
         */
        static const char *const keys[] = {"embedding_length",       "feed_forward_length",     "block_count",
                                           "attention.head_count",   "attention.head_count_kv", "attention.key_length",
                                           "attention.value_length", "rope.dimension_count"};
        static const uint32_t values[] = {G_HIDDEN, G_INNER, 1, G_HEADS, G_KV, G_DIM, G_DIM, G_DIM};
        m = (struct made_gguf){.keys = gguf_keys_create(), .seed = 1};
        gguf_add_string(m.keys, "general.architecture", "qwen2", 5);
        gguf_add_f32(m.keys, "qwen2.attention.layer_norm_rms_epsilon", 1e-6f);
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
            char key[64];
            snprintf(key, sizeof key, "qwen2.%s", keys[k]);
            gguf_add_u32(m.keys, key, strcmp(key, numbers[i].key) == 0 ? numbers[i].v : values[k]);
        }
        made_add(&m, "token_embd.weight", GGML_F16, G_VOCAB, G_HIDDEN);
        if (i >= 5) {
            struct checkpoint *c = open_made(&m);
            struct err e = {0};
            FAILS(family_find(checkpoint_config(c), &e), e, ERR_USER, numbers[i].says);
            checkpoint_close(&c);
        } else if (numbers[i].says) {
            expect_refused(&m, numbers[i].says);
        } else {
            struct checkpoint *c = open_made(&m);
            checkpoint_close(&c);
        }
    }
    m = (struct made_gguf){.keys = gguf_keys_create(), .seed = 1};
    gguf_add_string(m.keys, "general.architecture", "llama", 5);
    expect_refused(&m, "\"llama.embedding_length\" is missing");
    m = (struct made_gguf){.keys = gguf_keys_create(), .seed = 1};
    gguf_add_string(m.keys, "general.type", "imatrix", 7);
    expect_refused(&m, "its general.type is \"imatrix\"");
    m = (struct made_gguf){.keys = gguf_keys_create(), .seed = 1};
    expect_refused(&m, "\"general.architecture\" is missing");
    made_model(&m, "llama", GGML_F16, GGML_F16);
    gguf_add_string(m.keys, "llama.rope.scaling.type", "yarn", 4);
    expect_refused(&m, "rope.scaling.factor\" is missing");
    made_model(&m, "llama", GGML_F16, GGML_F16);
    const uint32_t unequal[] = {1, 2};
    gguf_add_array(m.keys, "llama.rope.scaling.original_context_length", GGUF_U32, unequal, 2);
    gguf_add_string(m.keys, "llama.rope.scaling.type", "yarn", 4);
    gguf_add_f32(m.keys, "llama.rope.scaling.factor", 4);
    expect_refused(&m, "differs between layers (1, 2)");
    made_model(&m, "llama", GGML_F16, GGML_F16);
    gguf_add_string(m.keys, "llama.rope.freq_base", "x", 1);
    expect_refused(&m, "llama.rope.freq_base");
    made_model(&m, "llama", GGML_F16, GGML_F16);
    made_add(&m, "rope_freqs.weight", GGML_F32, 0, 31);
    expect_refused(&m, "not a vector of 32 floats");
    made_model(&m, "llama", GGML_F16, GGML_F16);
    memset(made_add(&m, "rope_freqs.weight", GGML_F32, 0, 32)->data, 0, 128);
    expect_refused(&m, "rope_freqs.weight holds 0");
    made_model(&m, "llama", GGML_F16, GGML_F16);
    made_add(&m, "model.norm.weight", GGML_F32, 0, G_HIDDEN);
    expect_refused(&m, "model.norm.weight twice");
    /* Times the linear factor they leave the range of floats. */
    static const double ends[] = {1e10, 1e-60};
    for (int i = 0; i < 2; i++) {
        made_model(&m, "llama", GGML_F16, GGML_F16);
        gguf_add_string(m.keys, "llama.rope.scaling.type", "linear", 6);
        add_f64(m.keys, "llama.rope.scaling.factor", ends[i]);
        float *factors = (float *)(void *)made_add(&m, "rope_freqs.weight", GGML_F32, 0, G_DIM / 2)->data;
        for (int k = 0; k < G_DIM / 2; k++)
            factors[k] = 1e30f;
        expect_refused(&m, i ? "rope_freqs.weight holds 0" : "rope_freqs.weight holds inf");
    }
}

/* What Hugging Face calls a model of ours is no architecture of a GGUF: the shape behind such a name was
 * never checked. */
static void test_names(void **state)
{
    (void)state;
    struct made_gguf m;
    made_model(&m, "LlamaForCausalLM", GGML_F16, GGML_F16);
    expect_refused(&m, "\"general.architecture\" is \"LlamaForCausalLM\"");
    /* Messages show these. */
    static const char *const keys[] = {"general.type", "llama.rope.scaling.type"};
    for (int i = 0; i < 2; i++) {
        made_model(&m, "llama", GGML_F16, GGML_F16);
        gguf_add_string(m.keys, keys[i], "\033[2J", 4);
        expect_refused(&m, keys[i]);
    }
    m = (struct made_gguf){.keys = gguf_keys_create(), .seed = 1};
    gguf_add_string(m.keys, "general.architecture", "\033[2J", 4);
    expect_refused(&m, "general.architecture is not plain UTF-8 text");
}

/* ---- RoPE ---- */

/* As converters compute them, in f32. */
static void llama3_factors(float factor, float low, float high, float context, float *out)
{
    for (int i = 0; i < G_DIM / 2; i++) {
        float freq = 1.0f / powf(10000.0f, (float)(2 * i) / G_DIM), wavelen = 6.2831853f / freq;
        float smooth = (context / wavelen - low) / (high - low);
        out[i] = wavelen < context / high ? 1 : wavelen > context / low ? factor : 1 / ((1 - smooth) / factor + smooth);
    }
}

static struct checkpoint *with_factors(const float *factors)
{
    struct made_gguf m;
    made_model(&m, "llama", GGML_F16, GGML_F16);
    memcpy(made_add(&m, "rope_freqs.weight", GGML_F32, 0, G_DIM / 2)->data, factors, G_DIM / 2 * 4);
    return open_made(&m);
}

static void check_frequencies(const struct model_config *cfg, const float *factors)
{
    for (uint32_t i = 0; i < G_DIM / 2; i++) {
        double want = pow(10000, -2.0 * i / G_DIM) / (double)factors[i];
        if (fabs(rope_frequency(cfg, i) - want) > 1e-5 * want)
            fail_msg("pair %u turns %g, not %g", (unsigned)i, rope_frequency(cfg, i), want);
    }
}

static void test_rope(void **state)
{
    (void)state;
    float factors[G_DIM / 2];
    static const struct {
        float factor, low, high, context;
    } known[] = {{8, 1, 4, 8192}, {32, 1, 4, 8192}, {4, 2, 6, 8192}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        llama3_factors(known[i].factor, known[i].low, known[i].high, known[i].context, factors);
        struct checkpoint *c = with_factors(factors);
        const struct model_config *cfg = checkpoint_config(c);
        assert_int_equal(cfg->rope_scaling, ROPE_LLAMA3);
        assert_float_equal(cfg->rope_factor, known[i].factor, 0);
        assert_float_equal(cfg->rope_low_freq, known[i].low, 1e-3);
        assert_float_equal(cfg->rope_high_freq, known[i].high, 1e-3);
        assert_int_equal(cfg->rope_original_context, 8192);
        check_frequencies(cfg, factors);
        checkpoint_close(&c);
    }
    for (int i = 0; i < G_DIM / 2; i++)
        factors[i] = 1 + 0.1f * (float)((i * 7) % 5);
    struct checkpoint *c = with_factors(factors);
    assert_int_equal(checkpoint_config(c)->rope_scaling, ROPE_FACTORS);
    check_frequencies(checkpoint_config(c), factors);
    char *text;
    size_t size;
    struct err e = {0};
    OK(checkpoint_config_text(c, &text, &size, &e), e);
    assert_non_null(strstr(text, "\"longrope\""));
    assert_non_null(strstr(text, "\"long_factor\": [1.0, 1.2, 1.4, 1.1, 1.3, 1.0"));
    free(text);
    checkpoint_close(&c);
    for (int i = 0; i < G_DIM / 2; i++)
        factors[i] = 1;
    c = with_factors(factors);
    assert_int_equal(checkpoint_config(c)->rope_scaling, ROPE_UNSCALED);
    checkpoint_close(&c);

    struct made_gguf m;
    made_model(&m, "llama", GGML_F16, GGML_F16);
    gguf_add_string(m.keys, "llama.rope.scaling.type", "linear", 6);
    gguf_add_f32(m.keys, "llama.rope.scaling.factor", 2.5f);
    c = open_made(&m);
    assert_int_equal(checkpoint_config(c)->rope_scaling, ROPE_LINEAR);
    assert_float_equal(rope_frequency(checkpoint_config(c), 0), 0.4, 1e-9);
    checkpoint_close(&c);
}

/* ---- tensors ---- */

/* Row of the file that holds row r of the model, as docs/formats.md 7 says it. */
static uint32_t stored_row(uint32_t r, bool permuted)
{
    uint32_t head = r / G_DIM, p = r % G_DIM / (G_DIM / 2), j = r % (G_DIM / 2);
    return permuted ? head * G_DIM + 2 * j + p : r;
}

/* Weights of the module against the bytes that were written. */
static void check_rows(const struct checkpoint *c, struct made_gguf *m, const char *module, const char *name,
                       bool permuted)
{
    struct made_tensor *x = made_find(m, name);
    const struct gguf_type *type = gguf_type_of(x->type);
    static float got[G_INNER * G_INNER], want[G_INNER];
    struct weight_info w;
    struct err e = {0};
    OK(checkpoint_weight(c, module, &w, &e), e);
    assert_int_equal(w.rows, x->ne[1]);
    assert_int_equal(w.cols, x->ne[0]);
    assert_int_equal(w.bytes, x->bytes);
    assert_string_equal(w.stored, type->name);
    assert_int_equal(w.quantized, type->codes != NULL);
    OK(checkpoint_read_f32(c, module, 0, w.rows, got, &e), e);
    for (uint32_t r = 0; r < w.rows; r++) {
        gguf_dequant(type, x->data + stored_row(r, permuted) * gguf_row_bytes(type, w.cols), w.cols, want);
        if (memcmp(want, got + (size_t)r * w.cols, w.cols * sizeof *want) != 0)
            fail_msg("row %u of %s as %s differs", (unsigned)r, module, type->name);
    }
    /* From the middle, too. */
    OK(checkpoint_read_f32(c, module, 3, 2, want, &e), e);
    assert_memory_equal(want, got + (size_t)3 * w.cols, 2 * w.cols * sizeof *want);
    FAILS(checkpoint_read_f32(c, module, w.rows - 1, 2, want, &e), e, ERR_BUG, module);
    const struct tensor *dense = checkpoint_dense(c, module);
    assert_int_equal(dense != NULL, type->block == 1 && !permuted);
    assert_int_equal(checkpoint_is_packed(c, module, ".weight"), dense == NULL);
    struct qlinear q;
    /* Blocks with two zeros, of which codes are one, too. */
    bool stay = type->block > 1 && (!type->codes || type->codes->scale);
    assert_ptr_equal(w.blocks, stay ? type : NULL);
    const size_t row_bytes = gguf_row_bytes(type, w.cols);
    for (uint32_t r = 0; w.blocks && r < w.rows; r++) {
        uint8_t blocks[4096];
        assert_true(row_bytes <= sizeof blocks);
        OK(checkpoint_read_blocks(c, module, r, 1, blocks, &e), e);
        assert_memory_equal(blocks, x->data + stored_row(r, permuted) * row_bytes, row_bytes);
    }
    if (!type->codes) {
        FAILS(checkpoint_read_codes(c, module, &q, &e), e, ERR_USER, "not quantized");
        return;
    }
    OK(checkpoint_read_codes(c, module, &q, &e), e);
    assert_ptr_equal(q.spec.type, type->codes);
    assert_int_equal(q.spec.group, type->codes->group);
    for (uint32_t r = 0; r < w.rows; r++) {
        qlinear_dequant(&q, r, 1, want);
        for (uint32_t i = 0; i < w.cols; i++)
            assert_float_equal(want[i], got[(size_t)r * w.cols + i], 1e-6 * (1 + fabs((double)want[i])));
    }
    qlinear_free(&q);
}

static void test_types(void **state)
{
    (void)state;
    const struct gguf_type *type;
    for (size_t i = 0; (type = gguf_type_at(i)); i++) {
        for (int qwen = 0; qwen < 2; qwen++) {
            struct made_gguf m;
            struct err e = {0};
            struct checkpoint *c;
            made_model(&m, qwen ? "qwen2" : "llama", (uint32_t)type->id, (uint32_t)type->id);
            made_write(&m, FILE_);
            OK(checkpoint_open(&c, FILE_, &e), e);
            check_rows(c, &m, Q, "blk.0.attn_q.weight", !qwen);
            check_rows(c, &m, K, "blk.0.attn_k.weight", !qwen);
            check_rows(c, &m, V, "blk.0.attn_v.weight", false);
            check_rows(c, &m, UP, "blk.0.ffn_up.weight", false);
            check_rows(c, &m, "model.embed_tokens", "token_embd.weight", false);
            OK(checkpoint_check_finite(c, Q, &e), e);
            OK(checkpoint_check_finite(c, "model.embed_tokens", &e), e);
            const struct tensor *t = checkpoint_tensor_find(c, UP ".weight");
            assert_non_null(t);
            assert_string_equal(t->stored_dtype, type->name);
            assert_int_equal(t->shape[0], G_INNER);
            assert_int_equal(t->shape[1], G_HIDDEN);
            assert_string_equal(checkpoint_tensor_path(c, t), FILE_);
            checkpoint_drop(c, t);
            checkpoint_drop_module(c, UP);
            assert_int_equal(checkpoint_tensor_count(c), m.n);
            assert_string_equal(checkpoint_tensor_at(c, 0)->name, "model.embed_tokens.weight");
            checkpoint_close(&c);
            made_free(&m);
        }
    }
}

static void test_vectors(void **state)
{
    (void)state;
    for (int qwen = 0; qwen < 2; qwen++) {
        struct made_gguf m;
        struct err e = {0};
        struct checkpoint *c;
        float bias[G_HEADS * G_DIM], norm[G_HIDDEN];
        made_model(&m, qwen ? "qwen2" : "llama", GGML_F16, GGML_F16);
        made_add(&m, "blk.0.attn_q.bias", GGML_F32, 0, G_HEADS * G_DIM);
        made_add(&m, "blk.0.attn_v.bias", GGML_F16, 0, G_KV * G_DIM);
        made_write(&m, FILE_);
        OK(checkpoint_open(&c, FILE_, &e), e);
        const struct tensor *t = checkpoint_bias(c, Q);
        assert_non_null(t);
        assert_int_equal(t->n_dims, 1);
        OK(tensor_read_f32(t, 0, G_HEADS * G_DIM, bias, &e), e);
        for (uint32_t r = 0; r < G_HEADS * G_DIM; r++)
            assert_memory_equal(&bias[r], made_find(&m, "blk.0.attn_q.bias")->data + stored_row(r, !qwen) * 4, 4);
        assert_memory_equal(checkpoint_bias(c, V)->data, made_find(&m, "blk.0.attn_v.bias")->data, G_KV * G_DIM * 2);
        assert_null(checkpoint_bias(c, K));
        OK(checkpoint_read_f32(c, "model.norm", 0, 1, norm, &e), e);
        assert_memory_equal(norm, made_find(&m, "output_norm.weight")->data, sizeof norm);
        checkpoint_close(&c);
        made_free(&m);
    }
}

/* ---- multi-head latent attention ---- */

enum { L_RANK = 64, L_NOPE = 32, L_TURNED = 16, L_VALUES = 48, L_ROWS = G_HEADS * (L_NOPE + L_VALUES) };
#define KV_B "model.layers.0.self_attn.kv_b_proj"

/* split: k and v of each head as tensors of their own, which are then told from a head's size by keys of their own. */
static void made_latent(struct made_gguf *m, bool split)
{
    static const char *const drop[] = {"attn_q", "attn_k", "attn_v", "attn_output"};
    static const struct {
        const char *key;
        uint32_t v;
    } numbers[] = {{"context_length", 128},
                   {"embedding_length", G_HIDDEN},
                   {"block_count", 1},
                   {"feed_forward_length", G_INNER},
                   {"attention.head_count", G_HEADS},
                   {"attention.q_lora_rank", 64},
                   {"attention.kv_lora_rank", L_RANK},
                   {"rope.dimension_count", L_TURNED},
                   {"leading_dense_block_count", 1},
                   {"expert_count", 4},
                   {"expert_used_count", 2},
                   {"expert_feed_forward_length", 64}};
    char key[96];
    made_model(m, "deepseek2", GGML_F16, GGML_F16);
    gguf_keys_destroy(&m->keys);
    m->keys = gguf_keys_create();
    gguf_add_string(m->keys, "general.architecture", "deepseek2", 9);
    gguf_add_f32(m->keys, "deepseek2.attention.layer_norm_rms_epsilon", 1e-5f);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(key, sizeof key, "deepseek2.%s", numbers[i].key);
        gguf_add_u32(m->keys, key, numbers[i].v);
    }
    gguf_add_u32(m->keys, "deepseek2.attention.head_count_kv", split ? 1 : G_HEADS);
    gguf_add_u32(m->keys, "deepseek2.attention.key_length", split ? L_RANK + L_TURNED : L_NOPE + L_TURNED);
    gguf_add_u32(m->keys, "deepseek2.attention.value_length", split ? L_RANK : L_VALUES);
    for (size_t i = 0; i < sizeof drop / sizeof *drop; i++) {
        snprintf(key, sizeof key, "blk.0.%s.weight", drop[i]);
        made_drop(m, key);
    }
    if (!split) {
        made_add(m, "blk.0.attn_kv_b.weight", GGML_F32, L_ROWS, L_RANK);
        return;
    }
    gguf_add_u32(m->keys, "deepseek2.attention.key_length_mla", L_NOPE + L_TURNED);
    gguf_add_u32(m->keys, "deepseek2.attention.value_length_mla", L_VALUES);
    made_add(m, "blk.0.attn_v_b.weight", GGML_Q8_0, G_HEADS * L_VALUES, L_RANK)->matrices = G_HEADS;
    made_add(m, "blk.0.attn_k_b.weight", GGML_F32, G_HEADS * L_RANK, L_NOPE)->matrices = G_HEADS;
}

/* k and v of all heads are one matrix again, k's part turned back, from whichever row on; so are those of older files. */
static void test_latent(void **state)
{
    (void)state;
    static float want[L_ROWS * L_RANK], got[L_ROWS * L_RANK];
    struct made_gguf m;
    struct err e = {0};
    struct checkpoint *c;
    struct weight_info w;
    const struct gguf_type *q8 = gguf_type_of(GGML_Q8_0);
    made_latent(&m, true);
    made_write(&m, FILE_);
    OK(checkpoint_open(&c, FILE_, &e), e);
    const struct model_config *cfg = checkpoint_config(c);
    OK(config_supported(cfg, &e), e);
    assert_int_equal(cfg->head_dim, L_NOPE + L_TURNED);
    assert_int_equal(cfg->num_kv_heads, G_HEADS);
    assert_int_equal(cfg->mla.nope, L_NOPE);
    assert_int_equal(cfg->mla.values, L_VALUES);
    for (uint32_t h = 0; h < G_HEADS; h++) {
        float *head = want + (size_t)h * (L_NOPE + L_VALUES) * L_RANK;
        const uint8_t *k = made_find(&m, "blk.0.attn_k_b.weight")->data;
        for (uint32_t i = 0; i < L_NOPE; i++)
            for (uint32_t j = 0; j < L_RANK; j++)
                memcpy(head + i * L_RANK + j, k + (((size_t)h * L_RANK + j) * L_NOPE + i) * 4, 4);
        for (uint32_t i = 0; i < L_VALUES; i++)
            gguf_dequant(q8,
                         made_find(&m, "blk.0.attn_v_b.weight")->data + ((size_t)h * L_VALUES + i) * L_RANK / 32 * 34,
                         L_RANK, head + (L_NOPE + i) * L_RANK);
    }
    OK(checkpoint_weight(c, KV_B, &w, &e), e);
    assert_int_equal(w.rows, L_ROWS);
    assert_int_equal(w.cols, L_RANK);
    assert_false(w.quantized);
    assert_true(checkpoint_is_packed(c, KV_B, ".weight"));
    assert_null(checkpoint_dense(c, KV_B));
    static const uint32_t starts[] = {0, 1, L_NOPE - 1, L_NOPE, L_NOPE + 7, L_NOPE + L_VALUES + 5};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        for (uint32_t n = 1; starts[i] + n <= L_ROWS; n += 37) {
            OK(checkpoint_read_f32(c, KV_B, starts[i], n, got, &e), e);
            assert_memory_equal(got, want + starts[i] * L_RANK, n * L_RANK * sizeof *got);
        }
    OK(checkpoint_check_finite(c, KV_B, &e), e);
    checkpoint_close(&c);
    store_u16le(made_find(&m, "blk.0.attn_v_b.weight")->data, 0x7C00);
    c = open_made(&m);
    FAILS(checkpoint_check_finite(c, KV_B, &e), e, ERR_USER, "attn_v_b.weight in " FILE_);
    checkpoint_close(&c);

    made_latent(&m, true);
    made_drop(&m, "blk.0.attn_v_b.weight");
    expect_refused(&m, "blk.0.attn_k_b.weight in");
    made_latent(&m, true);
    made_find(&m, "blk.0.attn_k_b.weight")->matrices = 2 * G_HEADS;
    expect_refused(&m, "blk.0.attn_k_b.weight in");

    made_latent(&m, false);
    made_write(&m, FILE_);
    OK(checkpoint_open(&c, FILE_, &e), e);
    assert_int_equal(checkpoint_config(c)->mla.nope, L_NOPE);
    assert_int_equal(checkpoint_config(c)->mla.values, L_VALUES);
    OK(checkpoint_read_f32(c, KV_B, 0, L_ROWS, got, &e), e);
    assert_memory_equal(got, made_find(&m, "blk.0.attn_kv_b.weight")->data, sizeof got);
    checkpoint_close(&c);
    made_free(&m);
}

static void test_not_finite(void **state)
{
    (void)state;
    struct made_gguf m;
    struct err e = {0};
    made_model(&m, "llama", GGML_Q4_0, GGML_F16);
    /* d of the first block of row 2 */
    store_u16le(made_find(&m, "blk.0.ffn_up.weight")->data + 2 * (G_HIDDEN / 32) * 18, 0x7C00);
    store_u16le(made_find(&m, "token_embd.weight")->data + 5 * 2, 0x7E00);
    struct checkpoint *c = open_made(&m);
    FAILS(checkpoint_check_finite(c, UP, &e), e, ERR_USER, "blk.0.ffn_up.weight in " FILE_ " has a scale in row 2");
    FAILS(checkpoint_check_finite(c, "model.embed_tokens", &e), e, ERR_USER, "holds NaN at element 5");
    OK(checkpoint_check_finite(c, Q, &e), e);
    checkpoint_close(&c);
}

static void test_missing(void **state)
{
    (void)state;
    struct made_gguf m;
    struct weight_info w;
    struct err e = {0};
    made_model(&m, "llama", GGML_F16, GGML_F16);
    made_drop(&m, "blk.0.ffn_up.weight");
    struct checkpoint *c = open_made(&m);
    assert_false(checkpoint_has_module(c, UP));
    assert_true(checkpoint_has_module(c, Q));
    FAILS(checkpoint_weight(c, UP, &w, &e), e, ERR_USER, UP ".weight is missing from " FILE_);
    checkpoint_close(&c);
    OK(os_write_file(FILE_, "GGUF", 4, &e), e);
    FAILS(checkpoint_open(&c, FILE_, &e), e, ERR_USER, FILE_);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),  cmocka_unit_test(test_families),       cmocka_unit_test(test_biases),
        cmocka_unit_test(test_scaled),  cmocka_unit_test(test_unknown_family), cmocka_unit_test(test_refused_metadata),
        cmocka_unit_test(test_names),   cmocka_unit_test(test_rope),           cmocka_unit_test(test_types),
        cmocka_unit_test(test_vectors), cmocka_unit_test(test_not_finite),     cmocka_unit_test(test_missing),
        cmocka_unit_test(test_latent),
    };
    return cmocka_run_group_tests_name("checkpoint_gguf", tests, make_dir, remove_dir);
}
