/* formats/write/write_hf, the codes: bytes of every format, round trips, mixed precision, conversions. */
#include "formats/write/hf_linear.h"
#include "tests/export_checks.h"

#define DIR_ "tmp_write_hf_codes"
#include "tests/scratch_dir.h"

#define BASE DIR_ "/base"
#define OUT  DIR_ "/out"

/* ---- bytes ---- */

struct golden_tensor {
    const char *suffix;
    enum dtype dtype;
    uint64_t rows, cols; /* rows 0: a vector */
};

static const uint8_t *golden_find(const struct checkpoint *c, struct golden_tensor want)
{
    char name[128];
    snprintf(name, sizeof name, "model.layers.0.self_attn.q_proj%s", want.suffix);
    const struct tensor *t = checkpoint_tensor_find(c, name);
    if (!t)
        fail_msg("no %s", name);
    assert_int_equal(t->dtype, want.dtype);
    assert_int_equal(t->n_dims, want.rows ? 2 : 1);
    assert_int_equal(t->shape[0], want.rows ? want.rows : want.cols);
    if (want.rows)
        assert_int_equal(t->shape[1], want.cols);
    return t->data;
}

/* q_proj [64, 64] in two groups of 32: stored code (row + column) mod 2^b, scales 0.5, -0.25 in every row. */
static bool golden_linear(void *ctx, const struct matrix *item, struct qlinear *q, struct err *e)
{
    (void)ctx;
    if (!qlinear_init(q, item->rows, item->cols, item->spec, e))
        return false;
    int n = 1 << item->spec.type->bits;
    for (uint32_t r = 0; r < q->rows; r++) {
        for (uint32_t k = 0; k < q->cols; k++)
            q->codes[r * q->cols + k] = (int8_t)((int)(r + k) % n - n / 2);
        q->scales[r * 2] = 0.5f;
        q->scales[r * 2 + 1] = -0.25f;
    }
    return true;
}

static struct checkpoint *golden_write(enum export_format f, const char *type, enum scale_type scale,
                                       unsigned container)
{
    struct err e = {0};
    struct items x;
    struct checkpoint *c = open_ok(BASE);
    items_all(&x, type, 32, scale);
    OK(write_out(OUT, c, x.items, 1, &(struct export_options){.format = f, .container = container},
                 &(struct export_source){.linear = golden_linear}, &e),
       e);
    checkpoint_close(&c);
    return open_ok(OUT);
}

/* First words of rows 0 and 1 as docs/formats.md 1 packs them: row 1 starts one code further. */
static const struct golden_words {
    const char *type;
    unsigned bits;
    uint32_t row0[8], row1[8], zeros_v1[3], zeros_v2[3];
} golden_words[] = {
    {"2", 2, {0xE4E4E4E4, 0xE4E4E4E4}, {0x39393939, 0x39393939}, {0x55555555, 0x55555555}, {0xAAAAAAAA, 0xAAAAAAAA}},
    {"3",
     3,
     {0x88FAC688, 0xC688FAC6, 0xFAC688FA},
     {0xD11F58D1, 0x58D11F58, 0x1F58D11F},
     {0xDB6DB6DB, 0xB6DB6DB6, 0x6DB6DB6D},
     {0x24924924, 0x49249249, 0x92492492}},
    {"4",
     4,
     {0x76543210, 0xFEDCBA98, 0x76543210, 0xFEDCBA98},
     {0x87654321, 0x0FEDCBA9, 0x87654321, 0x0FEDCBA9},
     {0x77777777, 0x77777777, 0x77777777},
     {0x88888888, 0x88888888, 0x88888888}},
    {"8",
     8,
     {0x03020100, 0x07060504, 0x0B0A0908, 0x0F0E0D0C, 0x13121110, 0x17161514, 0x1B1A1918, 0x1F1E1D1C},
     {0x04030201, 0x08070605, 0x0C0B0A09, 0x100F0E0D, 0x14131211, 0x18171615, 0x1C1B1A19, 0x201F1E1D},
     {0x7F7F7F7F, 0x7F7F7F7F, 0x7F7F7F7F},
     {0x80808080, 0x80808080, 0x80808080}},
};

static void test_golden_gptq(void **state)
{
    (void)state;
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_BF16});
    for (size_t i = 0; i < 4; i++) {
        for (int v2 = 0; v2 < 2; v2++) {
            const struct golden_words *g = &golden_words[i];
            /* Asked for bf16, gptq stores fp16 all the same. */
            struct checkpoint *c = golden_write(v2 ? EXPORT_GPTQ_V2 : EXPORT_GPTQ, g->type, SCALE_BF16, 0);
            const uint8_t *w = golden_find(c, (struct golden_tensor){".qweight", DTYPE_I32, 2 * g->bits, 64});
            for (unsigned k = 0; k < g->bits; k++) {
                assert_int_equal(load_u32le(w + (k * 64 + 0) * 4), g->row0[k]);
                assert_int_equal(load_u32le(w + (k * 64 + 1) * 4), g->row1[k]);
                assert_int_equal(load_u32le(w + (k * 64 + 32) * 4),
                                 g->bits == 8 ? g->row0[k] + 0x20202020 : g->row0[k]);
            }
            const uint8_t *z = golden_find(c, (struct golden_tensor){".qzeros", DTYPE_I32, 2, 2 * g->bits});
            for (unsigned k = 0; k < 4 * g->bits; k++)
                assert_int_equal(load_u32le(z + k * 4), (v2 ? g->zeros_v2 : g->zeros_v1)[g->bits == 3 ? k % 3 : 0]);
            const uint8_t *scales = golden_find(c, (struct golden_tensor){".scales", DTYPE_F16, 2, 64});
            for (int n = 0; n < 64; n++) {
                assert_int_equal(load_u16le(scales + n * 2), 0x3800);
                assert_int_equal(load_u16le(scales + (64 + n) * 2), 0xB400);
            }
            const uint8_t *idx = golden_find(c, (struct golden_tensor){".g_idx", DTYPE_I32, 0, 64});
            for (int k = 0; k < 64; k++)
                assert_int_equal(load_u32le(idx + k * 4), k / 32);
            checkpoint_close(&c);
        }
    }
}

static void check_rows(const uint8_t *w, const struct golden_words *g)
{
    for (unsigned k = 0; k < g->bits; k++) {
        assert_int_equal(load_u32le(w + k * 4), g->row0[k]);
        assert_int_equal(load_u32le(w + (2 * g->bits + k) * 4), g->row1[k]);
    }
}

static void check_halves(const uint8_t *p, uint16_t even, uint16_t odd)
{
    for (int i = 0; i < 128; i++)
        assert_int_equal(load_u16le(p + i * 2), i % 2 ? odd : even);
}

static void test_golden_rows(void **state)
{
    (void)state;
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_BF16});
    for (size_t i = 0; i < 4; i++) {
        const struct golden_words *g = &golden_words[i];
        struct checkpoint *c = golden_write(EXPORT_COMPRESSED_TENSORS, g->type, SCALE_BF16, 0);
        check_rows(golden_find(c, (struct golden_tensor){".weight_packed", DTYPE_I32, 64, 2 * g->bits}), g);
        check_halves(golden_find(c, (struct golden_tensor){".weight_scale", DTYPE_BF16, 64, 2}), 0x3F00, 0xBE80);
        static const uint8_t shape[16] = {64, 0, 0, 0, 0, 0, 0, 0, 64};
        assert_memory_equal(golden_find(c, (struct golden_tensor){".weight_shape", DTYPE_I64, 0, 2}), shape, 16);
        assert_null(checkpoint_tensor_find(c, "model.layers.0.self_attn.q_proj.weight"));
        checkpoint_close(&c);

        c = golden_write(EXPORT_HUMMING, g->type, SCALE_F16, 0);
        check_rows(golden_find(c, (struct golden_tensor){".weight", DTYPE_I32, 64, 2 * g->bits}), g);
        check_halves(golden_find(c, (struct golden_tensor){".weight_scale", DTYPE_F16, 64, 2}), 0x3800, 0xB400);
        checkpoint_close(&c);

        c = golden_write(EXPORT_MLX, g->type, SCALE_BF16, 0);
        check_rows(golden_find(c, (struct golden_tensor){".weight", DTYPE_U32, 64, 2 * g->bits}), g);
        check_halves(golden_find(c, (struct golden_tensor){".scales", DTYPE_BF16, 64, 2}), 0x3F00, 0xBE80);
        /* -2^(b-1) * (0.5, -0.25): the exponent moves by b-1, which is 0x80 a step in bf16. */
        uint16_t shift = (uint16_t)(0x80 * (g->bits - 1));
        check_halves(golden_find(c, (struct golden_tensor){".biases", DTYPE_BF16, 64, 2}), (uint16_t)(0xBF00 + shift),
                     (uint16_t)(0x3E80 + shift));
        checkpoint_close(&c);
    }
    /* 2 bits in words of 4: codes -2..1 become 6..9. */
    struct checkpoint *c = golden_write(EXPORT_COMPRESSED_TENSORS, "2", SCALE_BF16, 4);
    const uint8_t *w = golden_find(c, (struct golden_tensor){".weight_packed", DTYPE_I32, 64, 8});
    assert_int_equal(load_u32le(w), 0x98769876);
    assert_int_equal(load_u32le(w + 32), 0x69876987);
    assert_config_has(OUT, "\"num_bits\":4");
    checkpoint_close(&c);
}

/* ---- round trips ---- */

static void test_round_trips(void **state)
{
    (void)state;
    static const char *const types[] = {"ternary", "2", "3", "4", "5", "6", "7", "8"};
    static const enum tied tied[] = {UNTIED, TIED_EMBED, TIED_HEAD, TIED_BOTH};
    unsigned done = 0;
    for (int f = 0; export_is_packed((enum export_format)f); f++) {
        for (size_t t = 0; t < 8; t++) {
            struct tiny_options o = {.dtype = (enum dtype)(t % 3), .tied = tied[(t + (size_t)f) % 4], .bias = t % 2};
            enum scale_type scale = f < 2 || t % 2 ? SCALE_F16 : SCALE_BF16;
            /* The model's 16-bit type is also that of its scales: loaders convert them to it. */
            enum dtype out = o.dtype == DTYPE_BF16 || scale == SCALE_BF16 ? DTYPE_BF16 : DTYPE_F16;
            struct items x;
            struct err e = {0};
            char why[256];
            tiny_write(BASE, &o);
            items_all(&x, types[t], t % 2 ? 32 : 64, scale);
            const struct export_options eo = {.format = (enum export_format)f};
            if (export_check(eo.format, NULL, &x.items[0], 0, why, sizeof why) == EXPORT_REFUSED) {
                FAILS(write_random(OUT, BASE, &x, &eo, &e), e, ERR_USER, "bit codes");
                continue;
            }
            struct checkpoint *c = open_ok(BASE);
            uint64_t predicted = size_out(c, x.items, x.n, &eo, NULL);
            checkpoint_close(&c);
            os_remove_tree(OUT);
            OK(write_random(OUT, BASE, &x, &eo, &e), e);
            check_codes(OUT, &x);
            check_rest(BASE, OUT, &x, o.dtype == DTYPE_F16 ? DTYPE_F16 : out); /* copied as they are */
            assert_config_has(OUT, out == DTYPE_F16 ? "\"torch_dtype\":\"float16\"" : "\"torch_dtype\":\"bfloat16\"");
            assert_config_has(OUT, "\"unknown_key\":[1,2.5,{\"a\\\"7\":null},-0.50e+1]");
            assert_config_has(OUT, "\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,");
            uint64_t actual = 0, size;
            static const char *const files[] = {"config.json", "quantize_config.json", "model.safetensors"};
            for (int i = 0; i < 3; i++) {
                char path[256];
                snprintf(path, sizeof path, OUT "/%s", files[i]);
                if (os_stat(path, &size) == OS_FILE)
                    actual += size;
            }
            assert_int_equal(predicted, actual);
            done++;
        }
    }
    assert_true(done > 30);
}

/* Groups of 48 in rows of 64 and 128: the last one is short. */
static void test_short_group(void **state)
{
    (void)state;
    static const enum export_format formats[] = {EXPORT_GPTQ, EXPORT_GPTQ_V2, EXPORT_COMPRESSED_TENSORS};
    struct items x;
    struct err e = {0};
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16});
    for (int i = 0; i < 3; i++) {
        items_all(&x, "3", 48, SCALE_F16);
        OK(write_random(OUT, BASE, &x, &(struct export_options){.format = formats[i]}, &e), e);
        check_codes(OUT, &x);
        items_all(&x, "2", 256, SCALE_F16); /* wider than any row */
        OK(write_random(OUT, BASE, &x, &(struct export_options){.format = formats[i]}, &e), e);
        check_codes(OUT, &x);
        assert_config_has(OUT, "\"group_size\":256");
    }
    /* One group per row, said as such. */
    for (int f = 0; export_is_packed((enum export_format)f); f++) {
        if (f == EXPORT_MLX)
            continue;
        items_all(&x, "4", 0, SCALE_F16);
        OK(write_random(OUT, BASE, &x, &(struct export_options){.format = (enum export_format)f}, &e), e);
        check_codes(OUT, &x);
        assert_config_has(OUT, f == EXPORT_COMPRESSED_TENSORS ? "\"strategy\":\"channel\",\"group_size\":null"
                               : f == EXPORT_HUMMING          ? "\"group_size\":0"
                                                              : "\"group_size\":-1");
    }
}

/* ---- mixed precision ---- */

static void test_mixed(void **state)
{
    (void)state;
    struct items x;
    struct err e = {0};
    mixed(&x);
    for (int f = 0; export_is_packed((enum export_format)f); f++) {
        tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16, .bias = true, .tied = f % 2 ? UNTIED : TIED_EMBED});
        OK(write_random(OUT, BASE, &x, &(struct export_options){.format = (enum export_format)f}, &e), e);
        check_codes(OUT, &x);
        check_rest(BASE, OUT, &x, DTYPE_F16);
        struct checkpoint *c = open_ok(OUT);
        struct weight_info w;
        OK(checkpoint_weight(c, "model.layers.0.self_attn.q_proj", &w, &e), e);
        assert_false(w.quantized);
        checkpoint_close(&c);
    }
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16});
    OK(write_random(OUT, BASE, &x, &(struct export_options){.format = EXPORT_GPTQ}, &e), e);
    assert_config_has(OUT,
                      "\"quantization_config\":{\"bits\":2,\"group_size\":32,\"desc_act\":false,\"sym\":true,\"lm_"
                      "head\":false,"
                      "\"quant_method\":\"gptq\",\"checkpoint_format\":\"gptq\",\"pack_dtype\":\"int32\",\"dynamic\":{"
                      "\"+:^model\\\\.layers\\\\.[0-9]+\\\\.mlp\\\\.down_proj$\":{\"bits\":4,\"group_size\":64},"
                      "\"+:^model\\\\.layers\\\\.1\\\\.self_attn\\\\.k_proj$\":{\"bits\":3,\"group_size\":32},"
                      "\"-:^model\\\\.layers\\\\.0\\\\.self_attn\\\\.q_proj$\":{},"
                      "\"-:^model\\\\.layers\\\\.[0-9]+\\\\.mlp\\\\.gate_proj$\":{},"
                      "\"-:^model\\\\.layers\\\\.[0-9]+\\\\.mlp\\\\.gate_up_proj$\":{},"
                      "\"-:^model\\\\.layers\\\\.[0-9]+\\\\.mlp\\\\.up_proj$\":{}},\"meta\":{\"quantizer\":[\"gsq:");
    OK(write_random(OUT, BASE, &x, &(struct export_options){.format = EXPORT_COMPRESSED_TENSORS}, &e), e);
    assert_config_has(OUT,
                      "\"targets\":[\"re:^model\\\\.layers\\\\.[0-9]+\\\\.mlp\\\\.down_proj$\"],\"weights\":{"
                      "\"num_bits\":4,\"type\":\"int\",\"symmetric\":true,\"strategy\":\"group\",\"group_size\":64,"
                      "\"dynamic\":false,\"actorder\":null},\"input_activations\":null}");
    assert_config_has(OUT, "\"targets\":[\"model.layers.1.self_attn.k_proj\"]");
    assert_config_has(OUT, "\"ignore\":[\"model.layers.0.self_attn.q_proj\",");
    assert_config_has(OUT, "\"lm_head\"]");
    OK(write_random(OUT, BASE, &x, &(struct export_options){.format = EXPORT_MLX}, &e), e);
    assert_config_has(OUT, "\"quantization\":{\"group_size\":32,\"bits\":2,\"model.layers.0.mlp.down_proj\":{"
                           "\"group_size\":64,\"bits\":4},");
    assert_config_has(OUT, "\"model.layers.0.self_attn.q_proj\":false,");
    OK(write_random(OUT, BASE, &x, &(struct export_options){.format = EXPORT_HUMMING}, &e), e);
    assert_config_has(OUT, "\"+:^model\\\\.layers\\\\.[0-9]+\\\\.mlp\\\\.down_proj$\":{\"b_dtype\":\"uint4\","
                           "\"group_size\":64}");
    assert_config_has(OUT, "\"ignore\":[\"lm_head\"]");
}

static void test_container(void **state)
{
    (void)state;
    static const char *const types[] = {"ternary", "2", "3", "4", "8"};
    struct err e = {0};
    struct items x;
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_BF16});
    const struct export_options o = {.format = EXPORT_COMPRESSED_TENSORS, .container = 4};
    for (int t = 0; t < 5; t++) {
        items_all(&x, types[t], 32, SCALE_BF16);
        OK(write_random(OUT, BASE, &x, &o, &e), e);
        check_codes(OUT, &x);
        assert_config_has(OUT, t < 4 ? "\"num_bits\":4" : "\"num_bits\":8");
    }
    /* 2 and 3 bits both become 4: one group of config says it all. */
    mixed(&x);
    OK(write_random(OUT, BASE, &x, &o, &e), e);
    check_codes(OUT, &x);
}

/* The head and, in MLX, the embedding can be items too. */
static void test_head(void **state)
{
    (void)state;
    struct err e = {0};
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16});
    for (int f = 0; export_is_packed((enum export_format)f); f++) {
        struct items x;
        items_all(&x, "4", 32, SCALE_F16);
        x.items[x.n] = (struct matrix){.module = "lm_head",
                                       .rows = VOCAB,
                                       .cols = HIDDEN,
                                       .coded = true,
                                       .spec = {quant_type_find("8"), 64, SCALE_F16}};
        x.n++;
        if (f == EXPORT_HUMMING) {
            x.items[14].rows = 128;
            FAILS(write_random(OUT, BASE, &x, &(struct export_options){.format = EXPORT_HUMMING}, &e), e, ERR_USER,
                  "lm_head: humming");
            continue;
        }
        if (f == EXPORT_MLX) {
            x.items[x.n] = (struct matrix){.module = "model.embed_tokens",
                                           .rows = VOCAB,
                                           .cols = HIDDEN,
                                           .coded = true,
                                           .spec = {quant_type_find("6"), 64, SCALE_F16}};
            x.n++;
        }
        OK(write_random(OUT, BASE, &x, &(struct export_options){.format = (enum export_format)f}, &e), e);
        check_codes(OUT, &x);
        /* Converted without them, they come back in 16 bits. */
        struct checkpoint *c = open_ok(OUT), *d;
        const struct export_source source = {.ctx = c, .linear = checkpoint_linear};
        OK(write_out(DIR_ "/dense", c, x.items, 14, &(struct export_options){.format = EXPORT_GPTQ}, &source, &e), e);
        d = open_ok(DIR_ "/dense");
        static float a[VOCAB * HIDDEN], b[VOCAB * HIDDEN];
        for (size_t i = 14; i < x.n; i++) {
            struct weight_info w;
            OK(checkpoint_weight(d, x.items[i].module, &w, &e), e);
            assert_false(w.quantized);
            assert_int_equal(w.dtype, DTYPE_F16);
            OK(checkpoint_read_f32(c, x.items[i].module, 0, VOCAB, a, &e), e);
            OK(checkpoint_read_f32(d, x.items[i].module, 0, VOCAB, b, &e), e);
            for (int k = 0; k < VOCAB * HIDDEN; k++)
                assert_float_equal(b[k], scale_round(SCALE_F16, a[k]), 0);
        }
        checkpoint_close(&d);
        checkpoint_close(&c);
    }
}

/* ---- conversions ---- */

static void convert(const char *from, const char *to, enum export_format f, const struct items *x)
{
    struct err e = {0};
    struct checkpoint *c = open_ok(from);
    const struct export_source source = {.ctx = c, .linear = checkpoint_linear};
    os_remove_tree(to);
    OK(write_out(to, c, x->items, x->n, &(struct export_options){.format = f}, &source, &e), e);
    checkpoint_close(&c);
}

static void test_chain(void **state)
{
    (void)state;
    for (int is_mixed = 0; is_mixed < 2; is_mixed++) {
        struct items x;
        struct err e = {0};
        items_all(&x, "3", 32, SCALE_F16);
        if (is_mixed)
            mixed(&x);
        tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_BF16, .bias = true});
        OK(write_random(DIR_ "/a", BASE, &x, &(struct export_options){.format = EXPORT_GPTQ}, &e), e);
        convert(DIR_ "/a", DIR_ "/b", EXPORT_COMPRESSED_TENSORS, &x);
        convert(DIR_ "/b", DIR_ "/c", EXPORT_MLX, &x);
        convert(DIR_ "/c", DIR_ "/d", EXPORT_HUMMING, &x);
        convert(DIR_ "/d", DIR_ "/e", EXPORT_GPTQ_V2, &x);
        convert(DIR_ "/e", DIR_ "/f", EXPORT_GPTQ, &x);
        assert_same_file(DIR_ "/a", DIR_ "/f", "model.safetensors");
        assert_same_file(DIR_ "/a", DIR_ "/f", "config.json");
        assert_same_file(DIR_ "/a", DIR_ "/f", "quantize_config.json");
        assert_int_equal(os_stat(DIR_ "/b/quantize_config.json", NULL), OS_ABSENT);
        check_codes(DIR_ "/e", &x);
    }
}

/* ---- for consumers.sh ---- */

/* Folders under dir, each with reference.bin: the weights in F32, straight from the codes. */
static void write_reference(const char *dir, const struct items *x, enum export_format f)
{
    const char *const metadata[][2] = {{"format", export_format_name(f)}};
    struct tensor_plan plan[16];
    struct safetensors_writer *w;
    struct err e = {0};
    char path[600];
    for (size_t i = 0; i < x->n; i++)
        plan[i] = (struct tensor_plan){x->items[i].module, DTYPE_F32, 2, {x->items[i].rows, x->items[i].cols}};
    snprintf(path, sizeof path, "%s/reference.bin", dir);
    OK(safetensors_writer_open(&w, path, plan, x->n, metadata, 1, &e), e);
    for (size_t i = 0; i < x->n; i++) {
        static float weights[INNER * INNER];
        struct qlinear q;
        OK(random_linear(NULL, &x->items[i], &q, &e), e);
        qlinear_dequant(&q, 0, q.rows, weights);
        OK(safetensors_writer_put(w, weights, (size_t)q.rows * q.cols * 4, &e), e);
        qlinear_free(&q);
    }
    OK(safetensors_writer_close(&w, &e), e);
}

static void write_consumer(const char *dir, const char *name, const struct items *x, struct export_options o)
{
    char src[256], out[512];
    struct err e = {0};
    snprintf(src, sizeof src, "%s-src", dir);
    snprintf(out, sizeof out, "%s/%s-%s", dir, export_format_name(o.format), name);
    OK(write_random(out, src, x, &o, &e), e);
    write_reference(out, x, o.format);
}

static int write_consumers(const char *dir)
{
    static const char *const types[] = {"ternary", "2", "3", "4", "8"};
    char src[256];
    struct items x;
    snprintf(src, sizeof src, "%s-src", dir);
    tiny_write(src, &(struct tiny_options){.dtype = DTYPE_BF16, .bias = true});
    for (int f = 0; export_is_packed((enum export_format)f); f++) {
        struct export_options o = {.format = (enum export_format)f};
        for (int t = 0; t < 5; t++) {
            items_all(&x, types[t], 32, t % 2 ? SCALE_F16 : f < 2 ? SCALE_F16 : SCALE_BF16);
            write_consumer(dir, types[t], &x, o);
        }
        mixed(&x);
        write_consumer(dir, "mixed", &x, o);
        o.shard_bytes = 20000;
        write_consumer(dir, "shards", &x, o);
        o.shard_bytes = 0;
        if (f <= EXPORT_COMPRESSED_TENSORS) {
            items_all(&x, "3", 48, SCALE_F16);
            write_consumer(dir, "short", &x, o);
        }
        if (f != EXPORT_MLX) {
            items_all(&x, "4", 0, SCALE_F16);
            write_consumer(dir, "rows", &x, o);
        }
    }
    mixed(&x);
    write_consumer(dir, "container", &x, (struct export_options){.format = EXPORT_COMPRESSED_TENSORS, .container = 4});
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--consumers") == 0)
        return write_consumers(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_gptq), cmocka_unit_test(test_golden_rows), cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_short_group), cmocka_unit_test(test_mixed),       cmocka_unit_test(test_container),
        cmocka_unit_test(test_head),        cmocka_unit_test(test_chain),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
