/* formats/read/checkpoint_in: dense and packed modules, and a clear refusal for everything that does not fit. */
#include "formats/read/tensor_values.h"
#include "host/base/pool.h"
#include "tests/tiny_model.h"

#include <math.h>

#define DIR_ "tmp_checkpoint"
#include "tests/scratch_dir.h"

#define BASE  DIR_ "/base"
#define QUANT DIR_ "/quant"
#define BAD   DIR_ "/bad"

static void test_dense(void **state)
{
    (void)state;
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (int d = 0; d < 3; d++) {
        for (int odd = 0; odd < 2; odd++) {
            struct tiny_options o = {.dtype = dtypes[d], .bias = true};
            struct raw_model m;
            struct err e = {0};
            os_remove_tree(BASE);
            tiny_config(BASE, &o);
            tiny_tensors(&m, &o);
            raw_write(&m, BASE, odd);
            struct checkpoint *c = open_ok(BASE);
            assert_string_equal(checkpoint_dir(c), BASE);
            assert_int_equal(checkpoint_config(c)->hidden_size, HIDDEN);
            struct weight_info w;
            const char *module = "model.layers.1.mlp.up_proj";
            assert_true(checkpoint_has_module(c, module));
            assert_false(checkpoint_has_module(c, "model.layers.2.mlp.up_proj"));
            OK(checkpoint_weight(c, module, &w, &e), e);
            assert_false(w.quantized);
            assert_int_equal(w.rows, INNER);
            assert_int_equal(w.cols, HIDDEN);
            assert_int_equal(w.dtype, dtypes[d]);
            float rows[3 * HIDDEN];
            OK(checkpoint_read_f32(c, module, 5, 3, rows, &e), e);
            struct raw_tensor *t = raw_find(&m, "model.layers.1.mlp.up_proj.weight");
            for (int i = 0; i < 3 * HIDDEN; i++) {
                float want;
                const uint8_t *at = t->data + (5 * HIDDEN + (size_t)i) * dtype_size(t->dtype);
                if (t->dtype == DTYPE_F32)
                    memcpy(&want, at, 4);
                else
                    want = t->dtype == DTYPE_F16 ? f16_to_f32(load_u16le(at)) : bf16_to_f32(load_u16le(at));
                assert_float_equal(rows[i], want, 0);
            }
            OK(checkpoint_weight(c, "model.norm", &w, &e), e);
            assert_int_equal(w.rows, 1);
            assert_int_equal(w.cols, HIDDEN);
            assert_non_null(checkpoint_bias(c, "model.layers.0.self_attn.q_proj"));
            assert_null(checkpoint_bias(c, module));
            assert_non_null(checkpoint_dense(c, module));
            OK(checkpoint_check_finite(c, module, &e), e);
            FAILS(checkpoint_read_f32(c, module, INNER - 1, 2, rows, &e), e, ERR_BUG, "up_proj.weight");
            struct qlinear q;
            FAILS(checkpoint_read_codes(c, module, &q, &e), e, ERR_USER, "not quantized");
            checkpoint_close(&c);
            assert_null(c);
            raw_free(&m);
        }
    }
}

/* Every 16-bit pattern, at an odd address, is what base/num.h says. */
static void test_all_halves(void **state)
{
    (void)state;
    static uint8_t data[2 * 65536 + 1];
    static float got[65536];
    struct err e = {0};
    for (uint32_t i = 0; i < 65536; i++)
        store_u16le(data + 1 + i * 2, (uint16_t)i);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        const struct tensor t = {.name = "t",
                                 .dtype = bf16 ? DTYPE_BF16 : DTYPE_F16,
                                 .n_dims = 1,
                                 .shape = {65536},
                                 .data = data + 1,
                                 .bytes = 131072};
        OK(tensor_read_f32(&t, 0, 65536, got, &e), e);
        for (uint32_t i = 0; i < 65536; i++) {
            float want = bf16 ? bf16_to_f32((uint16_t)i) : f16_to_f32((uint16_t)i);
            if (memcmp(&got[i], &want, 4) != 0 && !(want != want && got[i] != got[i]))
                fail_msg("%04X is %g, not %g", (unsigned)i, (double)got[i], (double)want);
        }
    }
}

static void test_tied(void **state)
{
    (void)state;
    static const struct {
        enum tied tied;
        const char *embedding, *head;
    } cases[] = {{UNTIED, "model.embed_tokens", "lm_head"},
                 {TIED_EMBED, "model.embed_tokens", "model.embed_tokens"},
                 {TIED_HEAD, "lm_head", "lm_head"},
                 {TIED_BOTH, "model.embed_tokens", "lm_head"}};
    for (size_t i = 0; i < 4; i++) {
        tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16, .tied = cases[i].tied});
        struct checkpoint *c = open_ok(BASE);
        assert_string_equal(checkpoint_embedding_module(c), cases[i].embedding);
        assert_string_equal(checkpoint_head_module(c), cases[i].head);
        checkpoint_close(&c);
    }
    /* Untied and without a head: the name stays, and using it says what is missing. */
    struct raw_model m;
    struct tiny_options o = {.dtype = DTYPE_F16, .tied = UNTIED};
    struct weight_info w;
    struct err e;
    tiny_config(BASE, &o);
    tiny_tensors(&m, &o);
    raw_drop(&m, "lm_head.weight");
    raw_write(&m, BASE, false);
    raw_free(&m);
    struct checkpoint *c = open_ok(BASE);
    FAILS(checkpoint_weight(c, checkpoint_head_module(c), &w, &e), e, ERR_USER, "lm_head.weight is missing");
    assert_true(e.hint[0]);
    checkpoint_close(&c);
}

static void test_open_errors(void **state)
{
    (void)state;
    struct checkpoint *c;
    struct err e;
    FAILS(checkpoint_open(&c, DIR_ "/nowhere", &e), e, ERR_USER, "there is no file or folder");
    assert_null(c);
    write_text_file(DIR_, "x.gguf", "GGUF");
    FAILS(checkpoint_open(&c, DIR_ "/x.gguf", &e), e, ERR_USER, "cut short");
    write_text_file(DIR_, "x.safetensors", "");
    FAILS(checkpoint_open(&c, DIR_ "/x.safetensors", &e), e, ERR_USER, "not a model folder");
    os_remove_tree(BAD);
    write_text_file(BAD, "other.txt", "");
    FAILS(checkpoint_open(&c, BAD, &e), e, ERR_USER, "no config.json");
    write_text_file(BAD, "config.json", "{");
    FAILS(checkpoint_open(&c, BAD, &e), e, ERR_USER, "config.json");
    tiny_config(BAD, &(struct tiny_options){.dtype = DTYPE_F16});
    FAILS(checkpoint_open(&c, BAD, &e), e, ERR_USER, "safetensors");
    struct tiny_options o = {.dtype = DTYPE_F16,
                             .config_extra = ",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,"
                                             "\"group_size\":32,\"dynamic\":{\"+:model.(\":{\"bits\":2}}}"};
    tiny_write(BAD, &o);
    FAILS(checkpoint_open(&c, BAD, &e), e, ERR_USER, "is not a regular expression");
    o.config_extra = ",\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4}";
    tiny_write(BAD, &o);
    /* It opens, for inspect; who computes is told the reason. */
    OK(checkpoint_open(&c, BAD, &e), e);
    FAILS(config_supported(checkpoint_config(c), &e), e, ERR_USER, "awq");
    checkpoint_close(&c);
}

/* A pattern that would take forever is an error, not a hang. */
static void test_hostile_rule(void **state)
{
    (void)state;
    struct raw_model m;
    struct weight_info w;
    struct err e;
    struct tiny_options o = {.dtype = DTYPE_F16,
                             .config_extra = ",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,"
                                             "\"group_size\":32,\"dynamic\":{\"+:(a+)+$\":{\"bits\":2}}}"};
    os_remove_tree(BAD);
    tiny_config(BAD, &o);
    tiny_tensors(&m, &o);
    raw_add(&m, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab.qweight", DTYPE_I32, 4, 32);
    raw_write(&m, BAD, false);
    raw_free(&m);
    struct checkpoint *c = open_ok(BAD);
    FAILS(checkpoint_weight(c, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", &w, &e), e, ERR_USER,
          "match limit exceeded");
    checkpoint_close(&c);
}

static void test_dense_errors(void **state)
{
    (void)state;
    struct tiny_options o = {.dtype = DTYPE_F32};
    struct raw_model m;
    struct weight_info w;
    struct err e;
    os_remove_tree(BAD);
    tiny_config(BAD, &o);
    tiny_tensors(&m, &o);
    raw_find(&m, "model.layers.0.mlp.up_proj.weight")->dtype = DTYPE_I32;
    raw_set(raw_find(&m, "model.norm.weight"), 3, -INFINITY);
    raw_set(raw_find(&m, "model.layers.1.mlp.up_proj.weight"), 4000, NAN);
    raw_write(&m, BAD, true);
    struct checkpoint *c = open_ok(BAD);
    FAILS(checkpoint_weight(c, "model.layers.0.mlp.up_proj", &w, &e), e, ERR_USER, "is I32, expected F32");
    FAILS(checkpoint_weight(c, "model.layers.7.mlp.up_proj", &w, &e), e, ERR_USER, "layers.7.mlp.up_proj.weight is");
    FAILS(checkpoint_check_finite(c, "model.norm", &e), e, ERR_USER, "holds an infinity at element 3");
    assert_non_null(strstr(e.msg, "model.safetensors"));
    FAILS(checkpoint_check_finite(c, "model.layers.1.mlp.up_proj", &e), e, ERR_USER, "holds NaN at element 4000");
    assert_true(e.hint[0]);
    OK(checkpoint_check_finite(c, "model.layers.1.mlp.down_proj", &e), e);
    checkpoint_close(&c);
    raw_free(&m);
    /* Threads share a large tensor: the first element is named all the same. */
    o.dtype = DTYPE_F16;
    tiny_config(BAD, &o);
    tiny_tensors(&m, &o);
    raw_drop(&m, "model.norm.weight");
    raw_weight(&m, "model.norm.weight", DTYPE_F16, 0, 4u << 20, &(uint32_t){1});
    raw_set(raw_find(&m, "model.norm.weight"), (3u << 20) + 5, NAN);
    raw_set(raw_find(&m, "model.norm.weight"), (4u << 20) - 1, INFINITY);
    raw_write(&m, BAD, true);
    raw_free(&m);
    c = open_ok(BAD);
    for (unsigned threads = 1; threads <= 5; threads += 2) {
        pool_set_threads(threads);
        FAILS(checkpoint_check_finite(c, "model.norm", &e), e, ERR_USER, "holds NaN at element 3145733");
    }
    pool_set_threads(0);
    checkpoint_close(&c);
    /* The same in 16 bits, at the end of a block and past it. */
    static const enum dtype halves[] = {DTYPE_F16, DTYPE_BF16};
    for (int i = 0; i < 2; i++) {
        o.dtype = halves[i];
        tiny_config(BAD, &o);
        tiny_tensors(&m, &o);
        raw_set(raw_find(&m, "model.layers.1.mlp.up_proj.weight"), INNER * HIDDEN - 1, NAN);
        raw_write(&m, BAD, true);
        raw_free(&m);
        c = open_ok(BAD);
        FAILS(checkpoint_check_finite(c, "model.layers.1.mlp.up_proj", &e), e, ERR_USER, "NaN at element 8191");
        checkpoint_close(&c);
    }
}

/* ---- packed: a good folder, damaged in one place ---- */

#define UP "model.layers.1.mlp.up_proj"

struct damage {
    enum export_format format;
    const char *suffix;
    enum { DROP, DTYPE, SHAPE, FLIP, ADD, TRANSPOSE } what;
    const char *part; /* of the message */
    uint32_t value;   /* FLIP: xor into the last two bytes */
};

static void apply(struct raw_model *m, const struct damage *d)
{
    char name[128];
    snprintf(name, sizeof name, UP "%s", d->suffix);
    if (d->what == ADD) {
        raw_add(m, name, DTYPE_I32, 1, 1);
        return;
    }
    struct raw_tensor *t = raw_find(m, name);
    switch (d->what) {
    case DROP:
        raw_drop(m, name);
        break;
    case DTYPE:
        t->dtype = t->dtype == DTYPE_F16 || t->dtype == DTYPE_BF16 ? DTYPE_I16
                   : t->dtype == DTYPE_I64                         ? DTYPE_U64
                                                                   : DTYPE_F32;
        break;
    case SHAPE: /* half the rows, or the elements */
        t->shape[0] /= 2;
        t->bytes /= 2;
        break;
    case TRANSPOSE: {
        uint64_t s = t->shape[0];
        t->shape[0] = t->shape[1];
        t->shape[1] = s;
        break;
    }
    case FLIP:
        store_u16le(t->data + t->bytes - 2, (uint16_t)(load_u16le(t->data + t->bytes - 2) ^ d->value));
        break;
    case ADD:
        break;
    }
}

static void test_packed_errors(void **state)
{
    (void)state;
    static const struct damage cases[] = {
        {EXPORT_GPTQ, ".qzeros", DROP, "up_proj.qzeros is missing", 0},
        {EXPORT_GPTQ, ".scales", DROP, "up_proj.scales is missing", 0},
        {EXPORT_GPTQ, ".qweight", DTYPE, "qweight in", 0},
        {EXPORT_GPTQ, ".scales", DTYPE, "is I16, expected scales", 0},
        {EXPORT_GPTQ, ".qweight", SHAPE, "expected [", 0},
        {EXPORT_GPTQ, ".qweight", TRANSPOSE, "expected", 0},
        {EXPORT_GPTQ, ".scales", SHAPE, "scales in", 0},
        {EXPORT_GPTQ, ".qzeros", SHAPE, "qzeros in", 0},
        {EXPORT_GPTQ, ".g_idx", SHAPE, "g_idx in", 0},
        {EXPORT_GPTQ, ".g_idx", FLIP, "column 63 belongs to group", 1},
        {EXPORT_GPTQ, ".qzeros", FLIP, "not the symmetric ones", 0x4000},
        {EXPORT_GPTQ_V2, ".qzeros", FLIP, "not the symmetric ones", 0x8000},
        {EXPORT_COMPRESSED_TENSORS, ".weight_scale", DROP, "weight_scale is missing", 0},
        {EXPORT_COMPRESSED_TENSORS, ".weight_shape", DROP, "weight_shape is missing", 0},
        {EXPORT_COMPRESSED_TENSORS, ".weight_shape", DTYPE, "expected two integers", 0},
        {EXPORT_COMPRESSED_TENSORS, ".weight_shape", FLIP, "weight_shape in", 0xFF},
        {EXPORT_COMPRESSED_TENSORS, ".weight_packed", SHAPE, "weight_scale in", 0},
        {EXPORT_COMPRESSED_TENSORS, ".weight_scale", SHAPE, "weight_scale in", 0},
        {EXPORT_COMPRESSED_TENSORS, ".weight_zero_point", ADD, "a zero point is not supported", 0},
        {EXPORT_COMPRESSED_TENSORS, ".weight_g_idx", ADD, "activation order is not supported", 0},
        {EXPORT_MLX, ".weight", DROP, "up_proj.weight is missing", 0},
        {EXPORT_MLX, ".biases", DROP, "up_proj.biases is missing", 0},
        {EXPORT_MLX, ".biases", DTYPE, "biases in", 0},
        {EXPORT_MLX, ".biases", FLIP, "row 127, group 1 has the offset", 0x0100},
        {EXPORT_MLX, ".biases", SHAPE, "biases in", 0},
        {EXPORT_HUMMING, ".weight_scale", DROP, "weight_scale is missing", 0},
        {EXPORT_HUMMING, ".weight", SHAPE, "weight_scale in", 0},
        {EXPORT_HUMMING, ".zero_point", ADD, "a zero point is not supported", 0},
    };
    struct items x;
    struct err e = {0};
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_BF16});
    items_all(&x, "4", 32, SCALE_F16);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct damage *d = &cases[i];
        struct raw_model m;
        struct weight_info w;
        struct qlinear q;
        os_remove_tree(QUANT); /* tampered with: no longer a folder of gsq */
        OK(write_random(QUANT, BASE, &x, &(struct export_options){.format = d->format}, &e), e);
        struct checkpoint *c = open_ok(QUANT);
        OK(checkpoint_read_codes(c, UP, &q, &e), e);
        qlinear_free(&q);
        checkpoint_close(&c);
        raw_read(&m, QUANT);
        apply(&m, d);
        raw_write(&m, QUANT, true);
        raw_free(&m);
        c = open_ok(QUANT);
        if (d->what == FLIP)
            OK(checkpoint_weight(c, UP, &w, &e), e);
        else
            FAILS(checkpoint_weight(c, UP, &w, &e), e, ERR_USER, d->part);
        if (strcmp(d->suffix, ".weight_shape") == 0) /* found before any work */
            FAILS(checkpoint_check_finite(c, UP, &e), e, ERR_USER, d->part);
        FAILS(checkpoint_read_codes(c, UP, &q, &e), e, ERR_USER, d->part);
        assert_null(q.codes);
        assert_true(e.hint[0]);
        assert_non_null(strstr(e.msg, UP));
        float row[HIDDEN];
        FAILS(checkpoint_read_f32(c, UP, INNER - 1, 1, row, &e), e, ERR_USER, d->part);
        checkpoint_close(&c);
    }
}

/* config.json that says something else than the file. */
static void test_packed_config(void **state)
{
    (void)state;
    static const struct {
        enum export_format format;
        const char *extra, *part;
    } cases[] = {
        {EXPORT_GPTQ, "{\"quant_method\":\"gptq\",\"bits\":8,\"group_size\":32}", "expected"},
        {EXPORT_GPTQ, "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":64}", "expected"},
        {EXPORT_GPTQ, "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"dynamic\":{\"-:.*up_proj\":{}}}",
         "not quantized"},
        {EXPORT_GPTQ_V2, "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32}", "checkpoint_format"},
        {EXPORT_HUMMING, "{\"quant_method\":\"humming\",\"b_dtype\":\"uint3\",\"group_size\":32}", "whole number"},
        {EXPORT_HUMMING, "{\"quant_method\":\"humming\",\"b_dtype\":\"uint8\",\"group_size\":32}", "weight_scale"},
    };
    struct items x;
    struct err e = {0};
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16});
    items_all(&x, "4", 32, SCALE_F16);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char extra[512];
        struct qlinear q;
        os_remove_tree(QUANT);
        OK(write_random(QUANT, BASE, &x, &(struct export_options){.format = cases[i].format}, &e), e);
        snprintf(extra, sizeof extra, ",\"quantization_config\":%s", cases[i].extra);
        tiny_config(QUANT, &(struct tiny_options){.dtype = DTYPE_F16, .config_extra = extra});
        struct checkpoint *c = open_ok(QUANT);
        FAILS(checkpoint_read_codes(c, UP, &q, &e), e, ERR_USER, "");
        if (!strstr(e.msg, cases[i].part) && !strstr(e.hint, cases[i].part))
            fail_msg("\"%s\" (%s) has no \"%s\"", e.msg, e.hint, cases[i].part);
        checkpoint_close(&c);
    }
}

/* Slices of rows are the same as the whole, from data at odd addresses too; NaN scales are found. */
static void test_packed_rows(void **state)
{
    (void)state;
    struct items x;
    struct err e = {0};
    static float whole[INNER * HIDDEN], part[INNER * HIDDEN], want[INNER * HIDDEN];
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16});
    for (int f = 0; export_is_packed((enum export_format)f); f++) {
        items_all(&x, "3", 32, SCALE_BF16);
        struct raw_model m;
        os_remove_tree(QUANT);
        OK(write_random(QUANT, BASE, &x, &(struct export_options){.format = (enum export_format)f}, &e), e);
        raw_read(&m, QUANT);
        raw_write(&m, QUANT, true);
        struct checkpoint *c = open_ok(QUANT);
        struct qlinear q;
        struct weight_info w;
        OK(random_linear(NULL, &x.items[12], &q, &e), e);
        qlinear_dequant(&q, 0, INNER, want);
        qlinear_free(&q);
        OK(checkpoint_read_f32(c, UP, 0, INNER, whole, &e), e);
        assert_memory_equal(whole, want, sizeof want);
        for (uint32_t r = 0; r < INNER; r += 17) {
            uint32_t n = INNER - r < 17 ? INNER - r : 17;
            OK(checkpoint_read_f32(c, UP, r, n, part, &e), e);
            assert_memory_equal(part, whole + r * HIDDEN, n * HIDDEN * sizeof *part);
        }
        OK(checkpoint_weight(c, UP, &w, &e), e);
        assert_true(w.quantized);
        assert_int_equal(w.spec.group, 32);
        assert_int_equal(w.spec.type->bits, 3);
        assert_null(checkpoint_dense(c, UP));
        FAILS(checkpoint_read_f32(c, UP, INNER, 1, part, &e), e, ERR_BUG, UP);
        OK(checkpoint_check_finite(c, UP, &e), e);
        checkpoint_close(&c);
        const char *scales =
            f == EXPORT_GPTQ || f == EXPORT_GPTQ_V2 || f == EXPORT_MLX ? UP ".scales" : UP ".weight_scale";
        raw_set(raw_find(&m, scales), 5, NAN);
        raw_write(&m, QUANT, false);
        raw_free(&m);
        c = open_ok(QUANT);
        FAILS(checkpoint_check_finite(c, UP, &e), e, ERR_USER, "holds NaN at element 5");
        checkpoint_close(&c);
    }
}

/* ---- narrow floating point ---- */

/* UP, [INNER, HIDDEN], as bytes of its own. */
struct narrow_case {
    const char *quantization; /* of config.json */
    const char *scale;        /* name of the scales */
    enum dtype dtype;         /* of the scales */
    uint64_t rows, cols;      /* of the scales; rows 0: one dimension */
    uint32_t block_rows, block_cols;
};
#define FP8(more) ", \"quantization_config\": {\"quant_method\": \"fp8\", \"fmt\": \"e4m3\"" more "}"
#define FLOATS(format, weights)                                                                                        \
    ", \"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": \"" format "\", "               \
    "\"config_groups\": {\"g\": {\"targets\": [\"Linear\"], \"input_activations\": {\"num_bits\": 8}, \"weights\": "   \
    "{" weights "}}}}"
static const struct narrow_case narrow_cases[] = {
    {FP8(", \"weight_block_size\": [48, 40], \"activation_scheme\": \"dynamic\""), ".weight_scale_inv", DTYPE_F32, 3, 2,
     48, 40},
    {FP8(", \"weight_block_size\": [128, 128]"), ".weight_scale_inv", DTYPE_BF16, 1, 1, 128, 128},
    {FP8(""), ".weight_scale_inv", DTYPE_BF16, 0, 1, INNER, HIDDEN},
    {FLOATS("float-quantized", "\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"channel\""), ".weight_scale",
     DTYPE_F16, INNER, 1, 1, HIDDEN},
    {FLOATS("float-quantized",
            "\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"block\", \"block_structure\": [16, 16]"),
     ".weight_scale", DTYPE_BF16, 8, 4, 16, 16},
    {FLOATS("mxfp4-pack-quantized",
            "\"num_bits\": 4, \"type\": \"float\", \"strategy\": \"group\", \"group_size\": 32"),
     ".weight_scale", DTYPE_U8, INNER, 2, 1, 32},
};

/* The model with UP in that form, and what it says. */
static void narrow_model(struct raw_model *m, const struct narrow_case *x, float want[INNER * HIDDEN])
{
    const struct tiny_options o = {.dtype = DTYPE_BF16, .config_extra = x->quantization};
    bool fp4 = x->dtype == DTYPE_U8;
    char name[128];
    uint32_t seed = 11;
    os_remove_tree(QUANT);
    tiny_config(QUANT, &o);
    tiny_tensors(m, &o);
    raw_drop(m, UP ".weight");
    struct raw_tensor *w = raw_add(m, fp4 ? UP ".weight_packed" : UP ".weight", fp4 ? DTYPE_U8 : DTYPE_F8_E4M3, INNER,
                                   fp4 ? HIDDEN / 2 : HIDDEN);
    snprintf(name, sizeof name, UP "%s", x->scale);
    struct raw_tensor *s = raw_add(m, name, x->dtype, x->rows, x->cols);
    for (uint64_t i = 0; i < s->bytes / dtype_size(s->dtype); i++) {
        if (fp4)
            s->data[i] = (uint8_t)(120 + tiny_random(&seed) % 16);
        else
            raw_set(s, i, (float)(1 + tiny_random(&seed) % 255) / 256.0f);
    }
    for (uint64_t i = 0; i < w->bytes; i++) {
        w->data[i] = (uint8_t)tiny_random(&seed);
        if (!fp4 && (w->data[i] & 0x7F) == 0x7F)
            w->data[i] = 0;
    }
    uint32_t blocks = (HIDDEN + x->block_cols - 1) / x->block_cols;
    for (uint32_t r = 0; r < INNER; r++)
        for (uint32_t c = 0; c < HIDDEN; c++) {
            size_t at = (size_t)r * HIDDEN + c, of = r / x->block_rows * blocks + c / x->block_cols;
            const uint8_t *scale = s->data + of * dtype_size(s->dtype);
            float f, v = fp4 ? e2m1_to_f32(w->data[at / 2] >> (at % 2 ? 4 : 0)) : e4m3_to_f32(w->data[at]);
            if (x->dtype == DTYPE_F32)
                memcpy(&f, scale, 4);
            else
                f = fp4                     ? ldexpf(1, *scale - 127)
                    : x->dtype == DTYPE_F16 ? f16_to_f32(load_u16le(scale))
                                            : bf16_to_f32(load_u16le(scale));
            want[at] = v * f;
        }
}

static void test_narrow(void **state)
{
    (void)state;
    static float want[INNER * HIDDEN], got[INNER * HIDDEN];
    for (size_t i = 0; i < sizeof narrow_cases / sizeof *narrow_cases; i++) {
        const struct narrow_case *x = &narrow_cases[i];
        struct raw_model m;
        struct err e = {0};
        struct weight_info w;
        struct qlinear q;
        narrow_model(&m, x, want);
        raw_write(&m, QUANT, i % 2);
        struct checkpoint *c = open_ok(QUANT);
        OK(checkpoint_weight(c, UP, &w, &e), e);
        assert_false(w.quantized);
        assert_string_equal(w.stored, x->dtype == DTYPE_U8 ? "F4_E2M1" : "F8_E4M3");
        assert_int_equal(w.rows, INNER);
        assert_int_equal(w.cols, HIDDEN);
        assert_null(checkpoint_dense(c, UP));
        assert_true(checkpoint_is_packed(c, UP, x->scale));
        assert_non_null(checkpoint_dense(c, "model.layers.0.mlp.gate_proj"));
        OK(checkpoint_read_f32(c, UP, 0, INNER, got, &e), e);
        assert_memory_equal(got, want, sizeof want);
        OK(checkpoint_read_f32(c, UP, 31, 50, got, &e), e);
        assert_memory_equal(got, want + 31 * HIDDEN, 50 * HIDDEN * sizeof *got);
        FAILS(checkpoint_read_f32(c, UP, INNER, 1, got, &e), e, ERR_BUG, UP);
        FAILS(checkpoint_read_codes(c, UP, &q, &e), e, ERR_USER, "not quantized");
        OK(checkpoint_check_finite(c, UP, &e), e);
        checkpoint_close(&c);

        /* NaN, scales that do not fit, scales that are missing. */
        char name[128];
        snprintf(name, sizeof name, UP "%s", x->scale);
        struct raw_tensor *s = raw_find(&m, name);
        if (x->dtype == DTYPE_U8) {
            s->data[7] = 0xFF;
        } else {
            raw_find(&m, UP ".weight")->data[7] = 0xFF;
        }
        raw_write(&m, QUANT, false);
        c = open_ok(QUANT);
        FAILS(checkpoint_check_finite(c, UP, &e), e, ERR_USER, "holds NaN at element 7");
        checkpoint_close(&c);
        s->shape[s->n_dims - 1]++;
        s->bytes = (s->n_dims == 2 ? s->shape[0] * s->shape[1] : s->shape[0]) * dtype_size(s->dtype);
        free(s->data);
        s->data = calloc(1, s->bytes);
        raw_write(&m, QUANT, false);
        c = open_ok(QUANT);
        FAILS(checkpoint_weight(c, UP, &w, &e), e, ERR_USER, "does not fit the 128 x 64 weights");
        checkpoint_close(&c);
        raw_drop(&m, name);
        raw_write(&m, QUANT, false);
        raw_free(&m);
        c = open_ok(QUANT);
        FAILS(checkpoint_weight(c, UP, &w, &e), e, ERR_USER, "are missing");
        checkpoint_close(&c);
    }
}

/* Values by hand: two rows of one block, and the half of a byte that is first. */
static void test_narrow_bytes(void **state)
{
    (void)state;
    static const uint8_t fp8[4] = {0x38, 0xC0, 0x01, 0x7E}, fp4[4] = {0x21, 0xF7, 0x80, 0x0C};
    static const float fp8_values[4] = {1, -2, 0x1p-9f, 448}, fp4_values[8] = {0.5f, 1, 6, -6, 0, -0.0f, -2, 0};
    static float want[INNER * HIDDEN], got[HIDDEN];
    for (size_t i = 1; i < 6; i += 4) {
        const struct narrow_case *x = &narrow_cases[i];
        bool four = x->dtype == DTYPE_U8;
        struct raw_model m;
        struct err e = {0};
        narrow_model(&m, x, want);
        memcpy(raw_find(&m, four ? UP ".weight_packed" : UP ".weight")->data, four ? fp4 : fp8, 4);
        struct raw_tensor *s = raw_find(&m, four ? UP ".weight_scale" : UP ".weight_scale_inv");
        s->data[0] = four ? 129 : 0x40; /* 4; the bfloat16 3.0 is 0x4040 */
        if (!four)
            s->data[1] = 0x40;
        raw_write(&m, QUANT, false);
        raw_free(&m);
        struct checkpoint *c = open_ok(QUANT);
        OK(checkpoint_read_f32(c, UP, 0, 1, got, &e), e);
        for (int k = 0; k < (four ? 8 : 4); k++)
            assert_float_equal(got[k], four ? 4 * fp4_values[k] : 3 * fp8_values[k], 0);
        checkpoint_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),         cmocka_unit_test(test_all_halves),    cmocka_unit_test(test_tied),
        cmocka_unit_test(test_open_errors),   cmocka_unit_test(test_hostile_rule),  cmocka_unit_test(test_dense_errors),
        cmocka_unit_test(test_packed_errors), cmocka_unit_test(test_packed_config), cmocka_unit_test(test_packed_rows),
        cmocka_unit_test(test_narrow),        cmocka_unit_test(test_narrow_bytes),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
