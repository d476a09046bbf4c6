/* Mixtures against the types that llama-quantize's rules give, written down here by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "formats/write/gguf_mixture.h"

/* A Llama of 32 blocks, whose four heads share a key. */
static const struct model_config large = {
    .num_layers = 32, .num_heads = 32, .num_kv_heads = 8, .hidden_size = 4096, .tie_word_embeddings = false};

static const char *type_in(const char *mixture, const struct model_config *c, const char *module, uint32_t cols)
{
    unsigned layer = 0;
    int used = 0;
    struct matrix x = {.embedding = strcmp(module, "model.embed_tokens") == 0, .head = strcmp(module, "lm_head") == 0};
    x.head |= x.embedding && c->tie_word_embeddings;
    if (sscanf(module, "model.layers.%u.%n", &layer, &used) == 1)
        x.part = block_part_named(NULL, module + used, strlen(module + used), NULL);
    x.layer = layer;
    assert_true(x.part || x.embedding || x.head);
    const struct gguf_type *wanted = gguf_mixture_type(mixture, c, &x), *t = gguf_type_fitting(wanted, cols);
    assert_int_equal(cols % t->block, 0);
    assert_int_equal(t != wanted, cols != 4096);
    return t->name;
}

static const char *of_layer(const char *mixture, const struct model_config *c, unsigned layer, const char *linear)
{
    char module[96];
    snprintf(module, sizeof module, "model.layers.%u.%s", layer, linear);
    return type_in(mixture, c, module, 4096);
}

/* One row: the type at some blocks of 32. */
struct expected {
    const char *mixture, *linear, *at[6]; /* blocks 0, 1, 3, 4, 6, 31 */
};

static void test_linears(void **state)
{
    (void)state;
    static const unsigned layers[6] = {0, 1, 3, 4, 6, 31};
    static const struct expected rows[] = {
        {"Q2_K", "self_attn.q_proj", {"Q2_K", "Q2_K", "Q2_K", "Q2_K", "Q2_K", "Q2_K"}},
        {"Q2_K", "self_attn.v_proj", {"Q4_K", "Q4_K", "Q4_K", "Q4_K", "Q4_K", "Q4_K"}},
        {"Q2_K", "self_attn.o_proj", {"Q3_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K"}},
        {"Q2_K", "mlp.down_proj", {"Q3_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K"}},
        {"Q2_K", "mlp.up_proj", {"Q2_K", "Q2_K", "Q2_K", "Q2_K", "Q2_K", "Q2_K"}},
        {"Q2_K_S", "self_attn.v_proj", {"Q4_K", "Q4_K", "Q4_K", "Q4_K", "Q4_K", "Q4_K"}},
        {"Q2_K_S", "self_attn.o_proj", {"Q2_K", "Q2_K", "Q2_K", "Q2_K", "Q2_K", "Q2_K"}},
        {"Q2_K_S", "mlp.down_proj", {"Q4_K", "Q4_K", "Q4_K", "Q2_K", "Q2_K", "Q2_K"}},
        {"Q3_K_S", "self_attn.v_proj", {"Q3_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K"}},
        {"Q3_K_S", "mlp.down_proj", {"Q3_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K"}},
        {"Q3_K_M", "self_attn.v_proj", {"Q5_K", "Q5_K", "Q4_K", "Q4_K", "Q4_K", "Q4_K"}},
        {"Q3_K_M", "self_attn.o_proj", {"Q4_K", "Q4_K", "Q4_K", "Q4_K", "Q4_K", "Q4_K"}},
        {"Q3_K_M", "self_attn.k_proj", {"Q3_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K"}},
        {"Q3_K_M", "mlp.down_proj", {"Q5_K", "Q5_K", "Q4_K", "Q4_K", "Q4_K", "Q4_K"}},
        {"Q3_K_L", "self_attn.v_proj", {"Q5_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K"}},
        {"Q3_K_L", "self_attn.o_proj", {"Q5_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K"}},
        {"Q3_K_L", "mlp.down_proj", {"Q5_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K"}},
        {"Q3_K_L", "mlp.gate_proj", {"Q3_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K"}},
        {"Q4_1", "mlp.down_proj", {"Q4_1", "Q4_1", "Q4_1", "Q4_1", "Q4_1", "Q4_1"}},
        {"Q5_1", "self_attn.v_proj", {"Q5_1", "Q5_1", "Q5_1", "Q5_1", "Q5_1", "Q5_1"}},
        {"Q4_K_S", "self_attn.v_proj", {"Q5_K", "Q5_K", "Q5_K", "Q4_K", "Q4_K", "Q4_K"}},
        {"Q4_K_S", "mlp.down_proj", {"Q5_K", "Q5_K", "Q5_K", "Q4_K", "Q4_K", "Q4_K"}},
        {"Q4_K_M", "self_attn.v_proj", {"Q6_K", "Q6_K", "Q6_K", "Q4_K", "Q6_K", "Q6_K"}},
        {"Q4_K_M", "mlp.down_proj", {"Q6_K", "Q6_K", "Q6_K", "Q4_K", "Q6_K", "Q6_K"}},
        {"Q4_K_M", "self_attn.o_proj", {"Q4_K", "Q4_K", "Q4_K", "Q4_K", "Q4_K", "Q4_K"}},
        {"Q5_K_M", "mlp.down_proj", {"Q6_K", "Q6_K", "Q6_K", "Q5_K", "Q6_K", "Q6_K"}},
        {"Q5_K_S", "mlp.down_proj", {"Q5_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K"}},
        {"Q4_0", "mlp.down_proj", {"Q4_0", "Q4_0", "Q4_0", "Q4_0", "Q4_0", "Q4_0"}},
        {"IQ4_NL", "self_attn.v_proj", {"Q5_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K"}},
        {"IQ4_XS", "self_attn.v_proj", {"Q5_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K"}},
        {"IQ4_NL", "mlp.down_proj", {"IQ4_NL", "IQ4_NL", "IQ4_NL", "IQ4_NL", "IQ4_NL", "IQ4_NL"}},
        {"MXFP4_MOE", "mlp.up_proj", {"Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0"}},
        {"MXFP4_MOE", "mlp.experts.3.up_proj", {"MXFP4", "MXFP4", "MXFP4", "MXFP4", "MXFP4", "MXFP4"}},
        {"NVFP4", "self_attn.v_proj", {"NVFP4", "NVFP4", "NVFP4", "NVFP4", "NVFP4", "NVFP4"}},
        {"IQ4_XS", "self_attn.o_proj", {"IQ4_XS", "IQ4_XS", "IQ4_XS", "IQ4_XS", "IQ4_XS", "IQ4_XS"}},
        {"Q2_0", "self_attn.v_proj", {"Q2_0", "Q2_0", "Q2_0", "Q2_0", "Q2_0", "Q2_0"}},
        {"TQ2_0", "mlp.down_proj", {"TQ2_0", "TQ2_0", "TQ2_0", "TQ2_0", "TQ2_0", "TQ2_0"}},
        {"TQ1_0", "mlp.gate_proj", {"TQ1_0", "TQ1_0", "TQ1_0", "TQ1_0", "TQ1_0", "TQ1_0"}},
        {"Q8_0", "mlp.gate_proj", {"Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0"}},
        {"BF16", "mlp.gate_proj", {"BF16", "BF16", "BF16", "BF16", "BF16", "BF16"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int k = 0; k < 6; k++) {
            const char *got = of_layer(rows[i].mixture, &large, layers[k], rows[i].linear);
            if (strcmp(got, rows[i].at[k]) != 0)
                fail_msg("%s: %s of block %u is %s, expected %s", rows[i].mixture, rows[i].linear, layers[k], got,
                         rows[i].at[k]);
        }
}

/* Few heads to a key, and the 70B shape. */
static void test_heads(void **state)
{
    (void)state;
    struct model_config c = large;
    c.num_kv_heads = 16;
    assert_string_equal(of_layer("Q2_K", &c, 0, "self_attn.v_proj"), "Q3_K");
    assert_string_equal(of_layer("Q2_K_S", &c, 0, "self_attn.v_proj"), "Q2_K");
    assert_string_equal(of_layer("IQ4_NL", &c, 0, "self_attn.v_proj"), "IQ4_NL");
    c = large;
    c.num_layers = 80;
    assert_string_equal(of_layer("Q2_K", &c, 40, "self_attn.v_proj"), "Q5_K");
    assert_string_equal(of_layer("Q3_K_S", &c, 40, "self_attn.v_proj"), "Q5_K");
    assert_string_equal(of_layer("Q3_K_M", &c, 4, "mlp.down_proj"), "Q5_K");
    assert_string_equal(of_layer("Q3_K_M", &c, 5, "mlp.down_proj"), "Q4_K");
    assert_string_equal(of_layer("Q2_K", &c, 40, "self_attn.k_proj"), "Q2_K");
}

static void test_embeddings(void **state)
{
    (void)state;
    struct model_config tied = large;
    tied.tie_word_embeddings = true;
    static const struct {
        const char *mixture, *embedding, *head, *shared;
    } rows[] = {
        {"Q2_K", "Q2_K", "Q6_K", "Q6_K"},     {"Q2_K_S", "Q2_K", "Q6_K", "Q6_K"},
        {"Q3_K_M", "Q3_K", "Q6_K", "Q6_K"},   {"Q4_K_M", "Q4_K", "Q6_K", "Q6_K"},
        {"Q3_K_L", "Q3_K", "Q6_K", "Q6_K"},   {"Q4_1", "Q4_1", "Q6_K", "Q6_K"},
        {"Q4_0", "Q4_0", "Q6_K", "Q6_K"},     {"Q2_0", "Q4_K", "Q6_K", "Q6_K"},
        {"TQ2_0", "Q4_K", "Q6_K", "Q6_K"},    {"TQ1_0", "Q4_K", "Q6_K", "Q6_K"},
        {"Q8_0", "Q8_0", "Q8_0", "Q8_0"},     {"F16", "F16", "F16", "F16"},
        {"F32", "F32", "F32", "F32"},         {"MXFP4_MOE", "Q8_0", "Q8_0", "Q8_0"},
        {"IQ4_NL", "IQ4_NL", "Q6_K", "Q6_K"}, {"IQ4_XS", "IQ4_XS", "Q6_K", "Q6_K"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_string_equal(type_in(rows[i].mixture, &large, "model.embed_tokens", 4096), rows[i].embedding);
        assert_string_equal(type_in(rows[i].mixture, &large, "lm_head", 4096), rows[i].head);
        assert_string_equal(type_in(rows[i].mixture, &tied, "model.embed_tokens", 4096), rows[i].shared);
    }
}

static void test_fallbacks(void **state)
{
    (void)state;
    static const struct {
        const char *mixture, *linear;
        uint32_t cols;
        const char *type;
    } rows[] = {
        {"Q2_K", "mlp.up_proj", 384, "Q4_0"},        {"Q3_K_S", "mlp.up_proj", 32, "Q4_0"},
        {"Q2_0", "mlp.up_proj", 96, "Q4_0"},         {"TQ2_0", "mlp.up_proj", 192, "Q4_0"},
        {"TQ1_0", "mlp.up_proj", 192, "Q4_0"},       {"Q2_K", "self_attn.v_proj", 128, "Q5_0"},
        {"Q3_K_M", "self_attn.v_proj", 128, "Q5_1"}, {"Q6_K", "mlp.up_proj", 128, "Q8_0"},
        {"Q2_K", "mlp.up_proj", 172, "F16"},         {"Q4_K_M", "mlp.down_proj", 172, "F16"},
        {"Q4_0", "mlp.up_proj", 172, "F16"},         {"Q8_0", "mlp.up_proj", 172, "F16"},
        {"IQ4_XS", "mlp.up_proj", 96, "IQ4_NL"},     {"IQ4_NL", "mlp.up_proj", 172, "F16"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char module[96];
        snprintf(module, sizeof module, "model.layers.0.%s", rows[i].linear);
        assert_string_equal(type_in(rows[i].mixture, &large, module, rows[i].cols), rows[i].type);
    }
    assert_string_equal(type_in("Q2_K", &large, "lm_head", 64), "Q8_0");
    assert_string_equal(type_in("Q2_K", &large, "lm_head", 172), "F16");
}

static void test_names(void **state)
{
    (void)state;
    assert_null(gguf_mixture_type("Q9_K", &large, &(struct matrix){.head = true}));
    assert_null(gguf_mixture_base("Q2"));
    assert_null(gguf_mixture_named(""));
    assert_int_equal(gguf_mixture_file_type("IQ2_XXS"), 19);
    assert_int_equal(gguf_mixture_file_type("mxfp4"), 38);
    assert_int_equal(gguf_mixture_file_type("Q9_K"), -1);
    assert_string_equal(gguf_mixture_named("q3_k"), "Q3_K_M");
    assert_string_equal(gguf_mixture_named("tq2_0"), "TQ2_0");
    assert_string_equal(gguf_mixture_base("Q2_K_S")->name, "Q2_K");
    size_t n = 0;
    for (; gguf_mixture_at(n); n++) {
        assert_ptr_equal(gguf_mixture_named(gguf_mixture_at(n)), gguf_mixture_at(n));
        assert_true(gguf_mixture_file_type(gguf_mixture_at(n)) >= 0);
        assert_non_null(gguf_mixture_base(gguf_mixture_at(n)));
    }
    assert_int_equal(n, 25);
    static const struct {
        const char *name;
        int number;
    } types[] = {{"F32", 0},     {"F16", 1},     {"Q4_0", 2},    {"Q8_0", 7},    {"Q2_K", 10},
                 {"Q3_K_S", 11}, {"Q3_K_M", 12}, {"Q4_K_S", 14}, {"Q4_K_M", 15}, {"Q6_K", 18},
                 {"Q2_K_S", 21}, {"BF16", 32},   {"TQ1_0", 36},  {"TQ2_0", 37},  {"Q2_0", 41}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        assert_int_equal(gguf_mixture_file_type(types[i].name), types[i].number);
}

/* Every name and number that llama-quantize takes, in any case: gsq's own, or refused with what it learns instead. */
static void test_llama_quantize(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int number;
        const char *mixture, *nearest; /* one of them */
    } rows[] = {
        /* clang-format off */
        {"Q1_0", 40, NULL, "TQ1_0 (1.69"},     {"Q2_0", 41, "Q2_0", NULL},
        {"Q4_0", 2, "Q4_0", NULL},             {"Q4_1", 3, "Q4_1", NULL},
        {"MXFP4_MOE", 38, "MXFP4_MOE", NULL}, {"Q5_0", 8, "Q5_0", NULL},
        {"Q5_1", 9, "Q5_1", NULL},             {"IQ2_XXS", 19, NULL, "Q2_0 (2.25"},
        {"IQ2_XS", 20, NULL, "Q2_0 (2.25"},    {"IQ2_S", 28, NULL, "Q2_K_S (2.63"},
        {"IQ2_M", 29, NULL, "Q2_K_S (2.63"},   {"IQ1_S", 24, NULL, "TQ1_0 (1.69"},
        {"IQ1_M", 31, NULL, "TQ1_0 (1.69"},    {"TQ1_0", 36, "TQ1_0", NULL},
        {"TQ2_0", 37, "TQ2_0", NULL},          {"Q2_K", 10, "Q2_K", NULL},
        {"Q2_K_S", 21, "Q2_K_S", NULL},        {"IQ3_XXS", 23, NULL, "Q2_K (2.94"},
        {"IQ3_S", 26, NULL, "Q3_K_S (3.44"},   {"IQ3_M", 27, NULL, "Q3_K_M (3.88"},
        {"Q3_K", 12, "Q3_K_M", NULL},          {"IQ3_XS", 22, NULL, "Q3_K_S (3.44"},
        {"Q3_K_S", 11, "Q3_K_S", NULL},        {"Q3_K_M", 12, "Q3_K_M", NULL},
        {"Q3_K_L", 13, "Q3_K_L", NULL},        {"IQ4_NL", 25, "IQ4_NL", NULL},
        {"IQ4_XS", 30, "IQ4_XS", NULL},   {"Q4_K", 15, "Q4_K_M", NULL},
        {"Q4_K_S", 14, "Q4_K_S", NULL},        {"Q4_K_M", 15, "Q4_K_M", NULL},
        {"Q5_K", 17, "Q5_K_M", NULL},          {"Q5_K_S", 16, "Q5_K_S", NULL},
        {"Q5_K_M", 17, "Q5_K_M", NULL},        {"Q6_K", 18, "Q6_K", NULL},
        {"Q8_0", 7, "Q8_0", NULL},             {"F16", 1, "F16", NULL},
        {"BF16", 32, "BF16", NULL},            {"F32", 0, "F32", NULL},
        {"COPY", -1, "COPY", NULL},
        /* clang-format on */
    };
    assert_int_equal(sizeof rows / sizeof rows[0], 39);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char lower[16], number[16];
        size_t n = 0;
        for (; rows[i].name[n]; n++)
            lower[n] = rows[i].name[n] >= 'A' ? (char)(rows[i].name[n] | 0x20) : rows[i].name[n];
        lower[n] = 0;
        for (size_t k = 0; lower[k]; k++)
            if (rows[i].name[k] == '_')
                lower[k] = '_';
        snprintf(number, sizeof number, "%d", rows[i].number);
        const char *spellings[3] = {rows[i].name, lower, number}, *got;
        for (int k = 0; k < (rows[i].number < 0 ? 2 : 3); k++) {
            struct err e = {0};
            bool ok = gguf_mixture_read(spellings[k], &got, &e);
            assert_true(gguf_mixture_is_name(spellings[k]));
            assert_int_equal(ok, rows[i].mixture != NULL);
            if (ok) {
                assert_string_equal(got, rows[i].mixture);
                continue;
            }
            assert_int_equal(e.kind, ERR_USER);
            assert_non_null(strstr(e.msg, rows[i].name));
            assert_non_null(strstr(e.msg, "bits per weight"));
            assert_non_null(strstr(e.hint, rows[i].nearest));
        }
    }
    static const char *const none[] = {"", "Q9_K", "10x", "-1", "4", "1000", "Q2", "model.gguf"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        assert_false(gguf_mixture_is_name(none[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linears),   cmocka_unit_test(test_heads), cmocka_unit_test(test_embeddings),
        cmocka_unit_test(test_fallbacks), cmocka_unit_test(test_names), cmocka_unit_test(test_llama_quantize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
