/* formats/write/write_hf, experts of a layer as one tensor: bytes, what is refused, and reading them back. */
#include "formats/write/hf_linear.h"
#include "tests/export_checks.h"

#define DIR_ "tmp_write_experts"
#include "tests/scratch_dir.h"

#define BASE DIR_ "/base"
#define OUT  DIR_ "/out"

enum { WIDTH = 32, EXPERTS = 3, KIND_ROWS = 64 };

/* A Qwen3-MoE of one layer; gate_up: experts as transformers' two tensors, not one by one. */
static void experts_write(bool gate_up)
{
    static const char config[] =
        "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"model_type\":\"qwen3_moe\",\"hidden_size\":64,\"num_hidden_"
        "layers\":1,"
        "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":32,\"vocab_size\":96,\"intermediate_size\":"
        "64,"
        "\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0,\"hidden_act\":\"silu\",\"max_position_embeddings\":64,"
        "\"tie_word_embeddings\":false,\"torch_dtype\":\"float16\",\"num_experts\":3,\"num_experts_per_tok\":2,"
        "\"moe_intermediate_size\":32,\"norm_topk_prob\":true}";
    static const struct {
        const char *name;
        uint64_t rows, cols;
    } rest[] = {
        {"model.embed_tokens.weight", VOCAB, HIDDEN},
        {"lm_head.weight", VOCAB, HIDDEN},
        {"model.norm.weight", 0, HIDDEN},
        {"model.layers.0.input_layernorm.weight", 0, HIDDEN},
        {"model.layers.0.post_attention_layernorm.weight", 0, HIDDEN},
        {"model.layers.0.self_attn.q_norm.weight", 0, 32},
        {"model.layers.0.self_attn.k_norm.weight", 0, 32},
        {"model.layers.0.self_attn.q_proj.weight", 64, HIDDEN},
        {"model.layers.0.self_attn.k_proj.weight", 32, HIDDEN},
        {"model.layers.0.self_attn.v_proj.weight", 32, HIDDEN},
        {"model.layers.0.self_attn.o_proj.weight", HIDDEN, 64},
        {"model.layers.0.mlp.gate.weight", EXPERTS, HIDDEN},
    };
    struct raw_model m = {0};
    struct err e = {0};
    uint32_t seed = 7;
    os_remove_tree(BASE);
    assert_true(os_mkdirs(BASE, NULL));
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
        raw_weight(&m, rest[i].name, DTYPE_F16, rest[i].rows, rest[i].cols, &seed);
    for (unsigned k = 0; k < EXPERTS && !gate_up; k++) {
        char name[96];
        for (unsigned p = 0; p < 3; p++) {
            static const char *const parts[] = {"gate_proj", "up_proj", "down_proj"};
            snprintf(name, sizeof name, "model.layers.0.mlp.experts.%u.%s.weight", k, parts[p]);
            raw_weight(&m, name, DTYPE_F16, p < 2 ? WIDTH : HIDDEN, p < 2 ? HIDDEN : WIDTH, &seed);
        }
    }
    if (gate_up) {
        raw_weight(&m, "model.layers.0.mlp.experts.gate_up_proj", DTYPE_F16, EXPERTS * 2 * WIDTH, HIDDEN, &seed);
        raw_weight(&m, "model.layers.0.mlp.experts.down_proj", DTYPE_F16, EXPERTS * HIDDEN, WIDTH, &seed);
        for (size_t i = m.n - 2; i < m.n; i++) {
            m.items[i].n_dims = 3;
            m.items[i].shape[2] = m.items[i].shape[1];
            m.items[i].shape[1] = m.items[i].shape[0] / EXPERTS;
            m.items[i].shape[0] = EXPERTS;
        }
    }
    raw_write(&m, BASE, false);
    raw_free(&m);
    OK(os_write_file(BASE "/config.json", config, sizeof config - 1, &e), e);
}

/* Stored code (row + column + expert) mod 2^b, scale 0.5 * (expert + 1). */
static bool numbered(void *ctx, const struct matrix *item, struct qlinear *q, struct err *e)
{
    (void)ctx;
    if (!qlinear_init(q, item->rows, item->cols, item->spec, e))
        return false;
    uint32_t n = 1u << item->spec.type->bits;
    for (uint32_t r = 0; r < q->rows; r++)
        for (uint32_t k = 0; k < q->cols; k++)
            q->codes[r * q->cols + k] = (int8_t)((int)((r + k + item->expert) % n) - (int)n / 2);
    for (uint32_t i = 0; i < q->rows * q->groups; i++)
        q->scales[i] = 0.5f * (float)(item->expert + 1);
    return true;
}

static void code(struct matrix *list, size_t n, const char *type)
{
    for (size_t i = 0; i < n; i++) {
        list[i].coded = list[i].part && block_part_is_expert(list[i].part);
        list[i].spec = (struct quant_spec){quant_type_find(type), 32, SCALE_F16};
    }
}

static const uint8_t *stack(const struct safetensors *s, const char *name, enum dtype dtype, uint64_t rows,
                            uint64_t cols)
{
    char full[96];
    snprintf(full, sizeof full, "model.layers.0.mlp.switch_mlp.%s", name);
    const struct tensor *t = safetensors_find(s, full);
    if (!t)
        fail_msg("no %s", full);
    assert_int_equal(t->dtype, dtype);
    assert_int_equal(t->n_dims, 3);
    assert_int_equal(t->shape[0], EXPERTS);
    assert_int_equal(t->shape[1], rows);
    assert_int_equal(t->shape[2], cols);
    return t->data;
}

/* mlx-lm's switch_mlp: codes, scales and -2^(b-1) times those of all experts, from either kind of model. */
static void test_mlx(void **state)
{
    (void)state;
    for (int gate_up = 0; gate_up < 2; gate_up++) {
        struct err e = {0};
        struct matrix *list;
        struct safetensors *s;
        size_t n;
        experts_write(gate_up);
        struct checkpoint *c = open_ok(BASE);
        OK(checkpoint_matrices(c, &list, &n, &e), e);
        code(list, n, "4");
        OK(write_out(OUT, c, list, n, &(struct export_options){.format = EXPORT_MLX, .force = true},
                     &(struct export_source){.linear = numbered}, &e),
           e);
        OK(safetensors_open_dir(&s, OUT, &e), e);
        static const uint32_t first[EXPERTS] = {0x76543210, 0x87654321, 0x98765432};
        static const uint16_t scales[EXPERTS] = {0x3800, 0x3C00, 0x3E00}, biases[EXPERTS] = {0xC400, 0xC800, 0xCA00};
        const uint8_t *gate = stack(s, "gate_proj.weight", DTYPE_U32, WIDTH, 8),
                      *down = stack(s, "down_proj.weight", DTYPE_U32, HIDDEN, 4),
                      *scale = stack(s, "up_proj.scales", DTYPE_F16, WIDTH, 2),
                      *bias = stack(s, "up_proj.biases", DTYPE_F16, WIDTH, 2);
        for (unsigned k = 0; k < EXPERTS; k++) {
            assert_int_equal(load_u32le(gate + (size_t)k * WIDTH * 8 * 4), first[k]);
            assert_int_equal(load_u32le(gate + ((size_t)k * WIDTH + 1) * 8 * 4), k < 2 ? first[k + 1] : 0xA9876543);
            assert_int_equal(load_u32le(down + (size_t)k * HIDDEN * 4 * 4), first[k]);
            for (unsigned i = 0; i < WIDTH * 2; i++) {
                assert_int_equal(load_u16le(scale + ((size_t)k * WIDTH * 2 + i) * 2), scales[k]);
                assert_int_equal(load_u16le(bias + ((size_t)k * WIDTH * 2 + i) * 2), biases[k]);
            }
        }
        for (size_t i = 0; i < safetensors_count(s); i++)
            assert_null(strstr(safetensors_at(s, i)->name, ".experts."));
        safetensors_close(&s);
        struct checkpoint *back = open_ok(OUT);
        for (size_t i = 0; i < n; i++) {
            struct qlinear want, got;
            if (!list[i].coded)
                continue;
            OK(numbered(NULL, &list[i], &want, &e), e);
            OK(checkpoint_read_codes(back, list[i].module, &got, &e), e);
            assert_same_codes(&got, &want, list[i].module);
            qlinear_free(&want);
            qlinear_free(&got);
        }
        checkpoint_close(&back);
        checkpoint_close(&c);
        free(list);
    }
}

/* Parts of other bits, and parts that stay, by the names of stacks. */
static void test_mixed(void **state)
{
    (void)state;
    struct err e = {0};
    struct matrix *list;
    size_t n;
    experts_write(false);
    struct checkpoint *c = open_ok(BASE);
    OK(checkpoint_matrices(c, &list, &n, &e), e);
    code(list, n, "2");
    for (size_t i = 0; i < n; i++) {
        if (list[i].coded && strcmp(matrix_kind(&list[i]), "down_proj") == 0)
            list[i].spec.type = quant_type_find("8");
        if (list[i].coded && strcmp(matrix_kind(&list[i]), "up_proj") == 0)
            list[i].coded = false;
    }
    const struct export_options o = {.format = EXPORT_MLX, .force = true};
    const struct export_source source = {.linear = numbered};
    OK(write_out(OUT, c, list, n, &o, &source, &e), e);
    assert_config_has(OUT, "\"model.layers.0.mlp.switch_mlp.down_proj\":{\"group_size\":32,\"bits\":8}");
    assert_config_has(OUT, "\"model.layers.0.mlp.switch_mlp.up_proj\":false");
    struct checkpoint *back = open_ok(OUT);
    for (size_t i = 0; i < n; i++) {
        struct weight_info w;
        OK(checkpoint_weight(back, list[i].module, &w, &e), e);
        assert_int_equal(w.quantized, list[i].coded);
        float want[HIDDEN], got[HIDDEN];
        OK(checkpoint_read_f32(back, list[i].module, 1, 1, got, &e), e);
        OK(checkpoint_read_f32(c, list[i].module, 1, 1, want, &e), e);
        if (!list[i].coded)
            assert_memory_equal(got, want, w.cols * sizeof *got);
        else
            assert_int_equal(w.spec.type->bits, strcmp(matrix_kind(&list[i]), "down_proj") == 0 ? 8 : 2);
    }
    checkpoint_close(&back);
    /* One expert otherwise than the others: of other bits, or kept. */
    for (size_t i = 0; i < n; i++)
        if (list[i].expert == 1)
            list[i].spec.type = quant_type_find("4");
    FAILS(write_out(OUT, c, list, n, &o, &source, &e), e, ERR_USER, "must be stored alike");
    for (size_t i = 0; i < n; i++) {
        list[i].spec.type = quant_type_find("2");
        list[i].coded = list[i].coded && list[i].expert != 2;
    }
    FAILS(write_out(OUT, c, list, n, &o, &source, &e), e, ERR_USER, "must be stored alike");
    checkpoint_close(&c);
    free(list);
}

/* What no program that reads a format has for a family's experts. */
static void test_unread(void **state)
{
    (void)state;
    static const struct {
        const char *architecture;
        enum export_format format;
        enum export_verdict verdict;
        const char *part;
    } cases[] = {
        {"GptOssForCausalLM", EXPORT_GPTQ, EXPORT_REFUSED, "experts with biases"},
        {"GptOssForCausalLM", EXPORT_HUMMING, EXPORT_REFUSED, "experts with biases"},
        {"GptOssForCausalLM", EXPORT_COMPRESSED_TENSORS, EXPORT_WARN, "llm-compressor"},
        {"GptOssForCausalLM", EXPORT_MLX, EXPORT_OK, ""},
        {"Qwen3NextForCausalLM", EXPORT_MLX, EXPORT_REFUSED, "norms and convolutions"},
        {"Qwen3NextForCausalLM", EXPORT_GPTQ, EXPORT_OK, ""},
        {"Qwen3_5MoeForCausalLM", EXPORT_MLX, EXPORT_OK, ""},
        {"MixtralForCausalLM", EXPORT_MLX, EXPORT_OK, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char why[256] = "x";
        struct model_config config = {0};
        snprintf(config.architecture, sizeof config.architecture, "%s", cases[i].architecture);
        const struct family *f = family_of(&config);
        const char *name =
            strstr(cases[i].architecture, "Mixtral") ? "block_sparse_moe.experts.0.w1" : "mlp.experts.0.gate_proj";
        struct matrix item = {.module = "x",
                              .part = block_part_named(f, name, strlen(name), NULL),
                              .rows = KIND_ROWS,
                              .cols = 64,
                              .coded = true,
                              .spec = {quant_type_find("4"), 32, SCALE_F16}};
        assert_non_null(item.part);
        enum export_verdict v = export_check(cases[i].format, f, &item, 0, why, sizeof why);
        if (v != cases[i].verdict || !strstr(why, cases[i].part) || (v == EXPORT_OK) != !why[0])
            fail_msg("case %zu: %d, %s", i, (int)v, why);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mlx),
        cmocka_unit_test(test_mixed),
        cmocka_unit_test(test_unread),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
