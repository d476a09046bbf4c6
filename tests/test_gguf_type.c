/* GGUF's tensor types against values that ggml decoded, packing against the neutral form, rounding against
 * what it promises. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/gguf/gguf_type.h"
#include "host/base/num.h"

static uint32_t random_state = 12345;

static uint32_t random_u32(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

/* Of codebooks as many that each entry comes. */
enum { N_GOLDEN = 4096, N_WIDE = 1 << 18 };

/* Where blocks hold floats of 16 bits (F32: its upper half); -1: no more. */
static const struct {
    int id, at[2];
} floats_at[] = {{GGML_F32, {2, -1}},     {GGML_F16, {0, -1}},    {GGML_BF16, {0, -1}},   {GGML_Q2_0, {0, -1}},
                 {GGML_TQ2_0, {64, -1}},  {GGML_TQ1_0, {52, -1}}, {GGML_Q4_0, {0, -1}},   {GGML_Q4_1, {0, 2}},
                 {GGML_Q5_0, {0, -1}},    {GGML_Q5_1, {0, 2}},    {GGML_Q8_0, {0, -1}},   {GGML_Q2_K, {80, 82}},
                 {GGML_Q3_K, {108, -1}},  {GGML_Q4_K, {0, 2}},    {GGML_Q5_K, {0, 2}},    {GGML_Q6_K, {208, -1}},
                 {GGML_IQ4_NL, {0, -1}},  {GGML_IQ4_XS, {0, -1}}, {GGML_IQ1_S, {0, -1}},  {GGML_IQ1_M, {-1, -1}},
                 {GGML_IQ2_XXS, {0, -1}}, {GGML_IQ2_XS, {0, -1}}, {GGML_IQ2_S, {0, -1}},  {GGML_IQ3_XXS, {0, -1}},
                 {GGML_IQ3_S, {0, -1}},   {GGML_MXFP4, {-1, -1}}, {GGML_NVFP4, {-1, -1}}, {GGML_Q1_0, {0, -1}}};

/* n weights of random bytes in which every float is finite: the top bit of its exponent is 0. */
static void random_blocks(const struct gguf_type *t, uint64_t n, uint8_t *bytes)
{
    size_t row = 0;
    while (floats_at[row].id != t->id)
        row++;
    for (uint64_t i = 0; i < n; i += t->block, bytes += t->bytes) {
        for (uint32_t k = 0; k < t->bytes; k++)
            bytes[k] = (uint8_t)random_u32();
        for (int k = 0; k < 2 && floats_at[row].at[k] >= 0; k++)
            bytes[floats_at[row].at[k] + 1] &= 0xBF;
        if (t->id == GGML_MXFP4)
            bytes[0] &= 0x7F;
        if (t->id == GGML_IQ1_M) /* the top of its scale */
            bytes[55] &= 0xBF;
    }
}

/* Of n weights of random blocks as ggml 0.5.0 decodes them: weights 1, 85 and the last, and the hash
 * of all as little-endian floats (random_state = id + 1). */
static const struct {
    int id;
    uint32_t n;
    float values[3];
    const char *hash;
} golden[] = {
    {GGML_F32, N_GOLDEN, {0x1.bb82dap-64f, 0x1.ed15aep-116f, 0x1.5094ecp-126f}, "720c5e1dd3929e5a60a7c4ca416112e9"},
    {GGML_F16, N_GOLDEN, {0x1.83p-7f, -0x1.8ap-14f, -0x1.384p-7f}, "e93efecc97b680c1451605d1b89b7bdf"},
    {GGML_BF16, N_GOLDEN, {0x1.7cp-69f, 0x1.64p-47f, 0x1.dep-63f}, "d915fc5116c7205116378cc84c70c382"},
    {GGML_Q2_0, N_GOLDEN, {-0x1.45cp+0f, 0x1.2b8p-12f, 0x1.4ap-14f}, "cea1122fb11e24c5420a0df65df31f61"},
    {GGML_TQ2_0, N_GOLDEN, {0x1.264p-11f, 0x1.264p-11f, -0x1.48p-15f}, "ce1db6e73a0dcdcb3d9bd3a5ff6e6781"},
    {GGML_TQ1_0, N_GOLDEN, {0x1.e18p+0f, -0x1.e18p+0f, 0x1.654p-14f}, "880c8835a0fde6b6e9445f7208491e24"},
    {GGML_Q4_0, N_GOLDEN, {0x1.c94p+0f, -0x1.edcp-4f, 0x1.de4p-1f}, "dd86e1d2f0cc6fd25828026679a41ba0"},
    {GGML_Q4_1, N_GOLDEN, {-0x1.4fcbp-3f, 0x1.df2fcp-4f, -0x1.b626p-1f}, "debc922b9c590716abf8b9570e940d5b"},
    {GGML_Q5_0, N_GOLDEN, {0x1.6f4p+1f, -0x1.2a8p-7f, -0x1.aap-5f}, "0e402493a546ea8d2e8271a8edcc2f6b"},
    {GGML_Q5_1, N_GOLDEN, {0x1.5558p-7f, -0x1.4240dp-4f, 0x1.0b0ep-6f}, "8a40f94e1dd7127a4cf0c04787821e8e"},
    {GGML_Q8_0, N_GOLDEN, {0x1.c0578p+2f, 0x1.5c3p+2f, -0x1.8aecp-7f}, "8ea5a29dfeecd8efd3590f6a9e6e9041"},
    {GGML_Q2_K, N_GOLDEN, {-0x1.09e74p-2f, -0x1.a8d58p-2f, 0x1.6f325p+0f}, "a04adb16a8a55e29a1f2b0683553b5ad"},
    {GGML_Q3_K, N_GOLDEN, {-0x0p+0f, 0x1.0a7p+0f, 0x1.6c5p-12f}, "b4af3163e5cc99c640bc60606c6caad3"},
    {GGML_Q4_K, N_GOLDEN, {-0x1.47e78p+0f, -0x1.7252p+0f, -0x1.582ep-4f}, "b0fca76409a71e54ca5f4ffb2eb80181"},
    {GGML_Q5_K, N_GOLDEN, {0x1.9d93p+7f, 0x1.b632p+7f, -0x1.606b6p-3f}, "a57e012d753c878df42e483e55fbc547"},
    {GGML_Q6_K, N_GOLDEN, {0x1.6fe9p+0f, 0x1.d28d8p+2f, 0x1.2d278p+2f}, "da71738539de5896ebc491cc11d657b1"},
    {GGML_IQ4_NL, N_GOLDEN, {0x1.1396p-8f, 0x1.6643p+4f, -0x1.e84p-10f}, "610b9b4ca57076f6c46828a2ed477a20"},
    {GGML_IQ4_XS, N_GOLDEN, {0x1.5497p-1f, -0x1.9c4bp-1f, -0x1.e0d1p+7f}, "66e50e603e5a5db238b6e46fe941d63b"},
    {GGML_IQ1_S, N_WIDE, {-0x1.e488p-4f, 0x1.0a7ep-2f, -0x1.c698p-14f}, "c3eaf4ee01e2b0cc35d455f20e6a3fe1"},
    {GGML_IQ1_M, N_WIDE, {0x1.f1c4p-12f, -0x1.225dp-10f, -0x1.32cp-9f}, "4c09a458315549a316dc355665efde2f"},
    {GGML_IQ2_XXS, N_WIDE, {-0x1.b2d8p-7f, -0x1.18a3cp-5f, 0x1.33d64p+5f}, "8c0e099dfca70d924a2b637304c45f0a"},
    {GGML_IQ2_XS, N_WIDE, {-0x1.806p-1f, 0x1.5c8p+0f, 0x1.705cp-2f}, "7755e11db3746732bafabc7c93c25ea3"},
    {GGML_IQ2_S, N_WIDE, {0x1.6214p+2f, -0x1.4e858p+5f, -0x1.8a5p-7f}, "5c58902e2bf9aea2ffc7a3679d1a0635"},
    {GGML_IQ3_XXS, N_WIDE, {0x1.74d5p-6f, -0x1.36b18p-5f, 0x1.bdap+2f}, "de13f2a27974ed40abe960ecbcd9d4fd"},
    {GGML_IQ3_S, N_WIDE, {-0x1.34cp-5f, 0x1.4903p+1f, 0x1.1a972p-2f}, "a17d86d73e08a58da078b2442b16bd92"},
    {GGML_MXFP4, N_GOLDEN, {-0x1p-24f, 0x0p+0f, 0x1p-94f}, "b4526c43670cd85a2e746772cec4d1e7"},
    {GGML_NVFP4, N_GOLDEN, {-0x1.6p+4f, 0x0p+0f, 0x1.8p+1f}, "6edecf7bffaf6b76c908762edb4c59a2"},
    {GGML_Q1_0, N_GOLDEN, {0x1.2c4p-8f, 0x1.2c4p-8f, 0x1.b2p-5f}, "494a185655ed581ac169a83e55899f3c"},
};

static bool little_endian(void)
{
    uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return first == 1;
}

static void test_golden(void **state)
{
    (void)state;
    static float values[N_WIDE];
    static uint8_t bytes[N_WIDE + 1];
    size_t i = 0;
    for (; gguf_type_at(i); i++) {
        const struct gguf_type *t = gguf_type_at(i);
        const uint32_t n = golden[i].n;
        assert_int_equal(t->id, golden[i].id);
        uint8_t *odd = bytes + 1; /* any alignment */
        random_state = (uint32_t)t->id + 1;
        random_blocks(t, n, odd);
        assert_true(gguf_row_bytes(t, n) <= sizeof bytes - 1);
        assert_true(gguf_row_valid(t, odd, n));
        gguf_dequant(t, odd, n, values);
        assert_true(values[1] == golden[i].values[0]);
        assert_true(values[85] == golden[i].values[1]);
        assert_true(values[n - 1] == golden[i].values[2]);
        char hex[33];
        hash_hex(hash_bytes(values, n * sizeof *values, (struct hash128){0, 0}), hex);
        if (little_endian())
            assert_string_equal(hex, golden[i].hash);
    }
    assert_int_equal(i, sizeof golden / sizeof golden[0]);
}

static void test_table(void **state)
{
    (void)state;
    assert_ptr_equal(gguf_type_named("q4_k"), gguf_type_of(GGML_Q4_K));
    assert_ptr_equal(gguf_type_named("IQ4_NL"), gguf_type_of(GGML_IQ4_NL));
    assert_null(gguf_type_named("Q4_"));
    assert_null(gguf_type_named("Q4_KS"));
    assert_null(gguf_type_named(""));
    for (uint32_t id = 0; id <= GGML_Q2_0; id++) { /* ggml's all have names, also those that are not read */
        char name[24];
        assert_true(strncmp(gguf_type_name(id, name), "type ", 5) != 0);
    }
    assert_null(gguf_type_of(UINT32_MAX));
    assert_null(gguf_type_of(4));
    assert_int_equal(gguf_row_bytes(gguf_type_of(GGML_Q2_K), 1024), 336);
    static const struct {
        const char *type;
        uint32_t group;
        int id;
    } stored[] = {{"2", 64, GGML_Q2_0},         {"2", 128, GGML_Q2_0},       {"2", 32, GGML_NONE},
                  {"ternary", 256, GGML_TQ1_0}, {"ternary", 128, GGML_Q2_0}, {"ternary", 96, GGML_NONE},
                  {"4", 32, GGML_Q4_0},         {"4", 128, GGML_Q4_0},       {"3", 64, GGML_NONE},
                  {"5", 32, GGML_Q5_0},         {"8", 32, GGML_Q8_0},        {"Q2_K", 16, GGML_Q2_K},
                  {"TQ2_0", 256, GGML_TQ2_0},   {"Q6_K", 16, GGML_Q6_K},     {"IQ4_NL", 32, GGML_IQ4_NL},
                  {"IQ4_XS", 32, GGML_IQ4_XS}};
    for (size_t i = 0; i < sizeof stored / sizeof stored[0]; i++) {
        struct quant_spec spec = {quant_type_find(stored[i].type), stored[i].group, SCALE_F16};
        const struct gguf_type *t = gguf_type_for(&spec);
        assert_int_equal(t ? t->id : GGML_NONE, stored[i].id);
    }
}

/* Every f16 scale of every type in turn: infinity and NaN are found, the largest finite number is fine. */
static void test_valid(void **state)
{
    (void)state;
    static uint8_t bytes[1024 * 4];
    for (size_t i = 0; gguf_type_at(i); i++) {
        const struct gguf_type *t = gguf_type_at(i);
        for (int k = 0; k < 2; k++) {
            random_blocks(t, 1024, bytes);
            uint8_t *last = bytes + gguf_row_bytes(t, 1024) - t->bytes;
            if (t->id == GGML_IQ1_M) {
                for (unsigned d = 0x7BFF; d <= 0x7C00; d++) {
                    for (unsigned j = 0; j < 4; j++)
                        last[49 + 2 * j] = (uint8_t)((last[49 + 2 * j] & 15) | (d >> 4 * j & 15) << 4);
                    assert_int_equal(gguf_row_valid(t, bytes, 1024), d == 0x7BFF);
                }
                continue;
            }
            if (t->id == GGML_MXFP4) {
                last[0] = 254;
                assert_true(gguf_row_valid(t, bytes, 1024));
                last[0] = 255;
                assert_false(gguf_row_valid(t, bytes, 1024));
                continue;
            }
            if (floats_at[i].at[k] < 0)
                continue;
            bool wide = t->id == GGML_F32 || t->id == GGML_BF16;
            store_u16le(last + floats_at[i].at[k], wide ? 0x7F7F : 0xFBFF);
            assert_true(gguf_row_valid(t, bytes, 1024));
            store_u16le(last + floats_at[i].at[k], wide ? 0xFF80 : 0x7C00);
            assert_false(gguf_row_valid(t, bytes, 1024));
            store_u16le(last + floats_at[i].at[k], wide ? 0x7FC1 : 0xFE00);
            assert_false(gguf_row_valid(t, bytes, 1024));
        }
    }
}

/* ---- packing ---- */

static int random_in(int lo, int hi)
{
    return lo + (int)(random_u32() % (uint32_t)(hi - lo + 1));
}

static int random_code(const struct quant_type *t)
{
    return quant_type_level(t, random_u32() % quant_type_levels(t));
}

static uint16_t random_f16(void)
{
    static const uint16_t odd[] = {0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x7BFF, 0xFBFF, 0x3C00};
    if (random_u32() % 4 == 0)
        return odd[random_u32() % (sizeof odd / sizeof odd[0])];
    return (uint16_t)(random_u32() & 0xBFFF);
}

/* A [rows, cols] matrix whose scales its own type can store. */
static void random_matrix(struct qlinear *q, uint32_t rows, uint32_t cols, struct quant_spec spec)
{
    const struct quant_type *k = spec.type;
    assert_true(qlinear_init(q, rows, cols, spec, NULL));
    for (size_t i = 0; i < (size_t)rows * cols; i++)
        q->codes[i] = (int8_t)random_code(k);
    for (size_t i = 0; i < (size_t)rows * quant_row_scales(&spec, cols); i++)
        q->scales[i] = k->scale
                           ? scale_round(k->scale, fabsf(f16_to_f32(random_f16())) + (k->scale == SCALE_E8M0) * 1e-9f)
                           : f16_to_f32(random_f16());
    for (size_t i = 0; k->super && i < (size_t)rows * quant_row_groups(&spec, cols); i++) {
        bool offset = i / q->groups % quant_type_planes(k) == 1;
        q->integers[i] = (int8_t)random_in(offset ? 0 : k->scale_lo, offset ? k->offset_hi : k->scale_hi);
    }
}

/* The scale of group g of a row as it is multiplied with codes, offsets behind them. */
static float scale_at(const struct qlinear *q, uint32_t r, uint32_t g)
{
    return qlinear_scale(q, r, g / q->groups, g % q->groups);
}

enum { PACK_ROWS = 60, PACK_COLS = 768 };

static void check_packed(const struct gguf_type *t, struct quant_spec spec)
{
    static uint8_t bytes[PACK_COLS * 2];
    static float values[PACK_COLS], want[PACK_COLS];
    struct qlinear q, back;
    random_matrix(&q, PACK_ROWS, PACK_COLS, spec);
    assert_true(
        qlinear_init(&back, PACK_ROWS, PACK_COLS, (struct quant_spec){t->codes, t->codes->group, SCALE_F16}, NULL));
    for (uint32_t r = 0; r < PACK_ROWS; r++) {
        struct err e = {0};
        memset(bytes, (int)random_u32(), sizeof bytes);
        assert_true(gguf_pack_row(t, &q, r, bytes, &e));
        assert_true(gguf_row_valid(t, bytes, PACK_COLS));
        gguf_dequant(t, bytes, PACK_COLS, values);
        qlinear_dequant(&q, r, 1, want);
        for (size_t i = 0; i < PACK_COLS; i++)
            assert_true(values[i] == want[i]);
        /* And back, where nothing was repeated. */
        gguf_unpack_row(t, bytes, &back, r);
        assert_memory_equal(back.codes + (size_t)r * PACK_COLS, q.codes + (size_t)r * PACK_COLS, PACK_COLS);
        uint32_t per = spec.group / t->codes->group;
        for (uint32_t g = 0; g < quant_row_groups(&back.spec, PACK_COLS); g++)
            assert_true(scale_at(&back, r, g) == scale_at(&q, r, g / per));
    }
    /* Not the products alone: d and integers are what they were. */
    for (size_t i = 0; q.integers && i < PACK_ROWS * quant_row_scales(&spec, PACK_COLS); i++)
        assert_true(back.scales[i] == q.scales[i]);
    if (q.integers)
        assert_memory_equal(back.integers, q.integers, PACK_ROWS * quant_row_groups(&spec, PACK_COLS));
    qlinear_free(&back);
    qlinear_free(&q);
}

static void test_pack(void **state)
{
    (void)state;
    for (size_t i = 0; gguf_type_at(i); i++) {
        const struct gguf_type *t = gguf_type_at(i);
        if (t->codes)
            check_packed(t, (struct quant_spec){t->codes, t->codes->group, SCALE_F16});
    }
    static const struct {
        const char *type;
        uint32_t group;
        int id;
    } plain[] = {{"2", 64, GGML_Q2_0},         {"2", 128, GGML_Q2_0},        {"2", 768, GGML_Q2_0},
                 {"ternary", 64, GGML_Q2_0},   {"ternary", 256, GGML_TQ1_0}, {"ternary", 256, GGML_TQ2_0},
                 {"ternary", 768, GGML_TQ1_0}, {"2", 256, GGML_TQ2_0},       {"4", 32, GGML_Q4_0},
                 {"4", 128, GGML_Q4_0},        {"5", 64, GGML_Q5_0},         {"8", 128, GGML_Q8_0}};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        check_packed(gguf_type_of((uint32_t)plain[i].id),
                     (struct quant_spec){quant_type_find(plain[i].type), plain[i].group, SCALE_F16});
}

/* A short last group. */
static void test_pack_short(void **state)
{
    (void)state;
    struct qlinear q;
    const struct gguf_type *t = gguf_type_of(GGML_Q2_0);
    uint8_t bytes[54];
    float values[192], want[192];
    random_matrix(&q, 1, 192, (struct quant_spec){quant_type_find("2"), 128, SCALE_F16});
    assert_true(gguf_pack_row(t, &q, 0, bytes, NULL));
    gguf_dequant(t, bytes, 192, values);
    qlinear_dequant(&q, 0, 1, want);
    for (size_t i = 0; i < 192; i++)
        assert_true(values[i] == want[i]);
    qlinear_free(&q);
}

static void test_pack_refuses(void **state)
{
    (void)state;
    uint8_t bytes[512];
    struct err e = {0};
    const struct gguf_type *q4 = gguf_type_of(GGML_Q4_0), *q4k = gguf_type_of(GGML_Q4_K);
    static const float bad[] = {0.1f, 1e6f, 1e-9f, INFINITY, NAN, 65535.0f};
    struct qlinear four, k, odd, none;
    assert_true(qlinear_init(&four, 1, 256, (struct quant_spec){quant_type_find("4"), 32, SCALE_F32}, NULL));
    assert_true(qlinear_init(&odd, 1, 250, four.spec, NULL));
    assert_true(qlinear_init(&k, 1, 256, (struct quant_spec){q4k->codes, 32, SCALE_F32}, NULL));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        four.scales[3] = bad[i];
        assert_false(gguf_pack_row(q4, &four, 0, bytes, &e));
        assert_int_equal(e.kind, ERR_USER);
    }
    four.scales[3] = 0;
    assert_true(gguf_pack_row(q4, &four, 0, bytes, &e));
    four.codes[200] = 8;
    assert_false(gguf_pack_row(q4, &four, 0, bytes, &e));
    assert_int_equal(e.kind, ERR_BUG);
    four.codes[200] = 0;
    assert_false(gguf_pack_row(q4, &odd, 0, bytes, &e));   /* no multiple of the block */
    assert_false(gguf_pack_row(q4k, &four, 0, bytes, &e)); /* not that type's scales */
    assert_false(gguf_pack_row(gguf_type_of(GGML_Q2_0), &four, 0, bytes, &e));
    assert_false(gguf_pack_row(gguf_type_of(GGML_Q4_1), &four, 0, bytes, &e));
    /* d and dmin that are no f16, integers that 6 bits do not hold. */
    for (size_t i = 0; i < 2 * (sizeof bad / sizeof bad[0]); i++) {
        k.scales[i % 2] = bad[i / 2];
        assert_false(gguf_pack_row(q4k, &k, 0, bytes, &e));
        assert_int_equal(e.kind, ERR_BUG);
        k.scales[i % 2] = 0.5f;
    }
    for (int i = 0; i < 16; i += 5) {
        k.integers[i] = 63;
        assert_true(gguf_pack_row(q4k, &k, 0, bytes, &e));
        k.integers[i] = 64;
        assert_false(gguf_pack_row(q4k, &k, 0, bytes, &e));
        k.integers[i] = -1;
        assert_false(gguf_pack_row(q4k, &k, 0, bytes, &e));
        k.integers[i] = 0;
    }
    /* No super-blocks in such rows. */
    assert_false(qlinear_init(&none, 1, 250, k.spec, &e));
    assert_int_equal(e.kind, ERR_BUG);
    qlinear_free(&four);
    qlinear_free(&odd);
    qlinear_free(&k);
}

/* Any bytes at all (d and integers that gsq would not have chosen, scales that are no number): codes change,
 * every other bit stays. */
static void test_replace(void **state)
{
    (void)state;
    enum { N = 1024 };
    static uint8_t bytes[N * 2], changed[N * 2], again[N * 2];
    static int8_t others[N];
    for (size_t i = 0; gguf_type_at(i); i++) {
        const struct gguf_type *t = gguf_type_at(i);
        struct qlinear q, back;
        if (!t->codes)
            continue;
        struct quant_spec spec = {t->codes, t->codes->group, SCALE_F16};
        assert_true(qlinear_init(&q, 1, N, spec, NULL) && qlinear_init(&back, 1, N, spec, NULL));
        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] = (uint8_t)random_u32();
        if (t->id == GGML_TQ1_0 ||
            t->codes->scale) { /* trits have several bytes each, E2M1 two zeros: take those that packing makes */
            gguf_unpack_row(t, bytes, &q, 0);
            gguf_replace_codes(t, bytes, q.codes, N, again);
            memcpy(bytes, again, sizeof bytes);
        }
        gguf_unpack_row(t, bytes, &q, 0);
        gguf_replace_codes(t, bytes, q.codes, N, changed);
        assert_memory_equal(bytes, changed, gguf_row_bytes(t, N));
        for (size_t c = 0; c < N; c++)
            others[c] = (int8_t)random_code(t->codes);
        gguf_replace_codes(t, bytes, others, N, changed);
        gguf_unpack_row(t, changed, &back, 0);
        assert_memory_equal(back.codes, others, N);
        assert_memory_equal(q.scales, back.scales, quant_row_scales(&spec, N) * sizeof *q.scales);
        if (q.integers)
            assert_memory_equal(q.integers, back.integers, quant_row_groups(&spec, N));
        gguf_replace_codes(t, changed, q.codes, N, again);
        assert_memory_equal(bytes, again, gguf_row_bytes(t, N));
        qlinear_free(&q);
        qlinear_free(&back);
    }
}

/* ---- rounding ---- */

enum { ROUND_ROWS = 4, ROUND_COLS = 2048 };

/* About normal, with outliers, and an importance that spans a factor of 50. */
static void random_row(float *w, float *importance)
{
    for (size_t i = 0; i < ROUND_COLS; i++) {
        float sum = -4;
        for (int k = 0; k < 8; k++)
            sum += (float)random_u32() / 16777216.0f;
        w[i] = random_u32() % 64 ? sum * 0.02f : sum * 0.06f;
        importance[i] = 0.02f / (0.02f + (float)random_u32() / 16777216.0f);
    }
}

/* What ggml 0.5.0's quantizer leaves of ROUND_ROWS rows (random_state = id + 1): the sum of squares without
 * and with the importance. */
static const struct {
    int id;
    double error[2];
} ggml_errors[] = {
    {GGML_Q4_0, {2.2782e-02, 1.5986e-03}},   {GGML_Q4_1, {1.6425e-02, 8.7063e-04}},
    {GGML_Q5_0, {6.2726e-03, 4.1604e-04}},   {GGML_Q5_1, {3.9024e-03, 2.0427e-04}},
    {GGML_Q8_0, {8.0678e-05, 6.3043e-06}},   {GGML_Q2_K, {2.2873e-01, 1.1285e-02}},
    {GGML_Q3_K, {6.6626e-02, 4.2952e-03}},   {GGML_Q4_K, {1.3591e-02, 8.6322e-04}},
    {GGML_Q5_K, {3.7519e-03, 2.4682e-04}},   {GGML_Q6_K, {9.2746e-04, 6.0405e-05}},
    {GGML_IQ4_NL, {1.7957e-02, 1.1834e-03}}, {GGML_IQ4_XS, {1.8000e-02, 1.2397e-03}},
};

static double weighted_error(const struct gguf_type *t, const float *w, const float *importance, size_t n,
                             const uint8_t *bytes)
{
    static float back[ROUND_COLS];
    double sum = 0;
    gguf_dequant(t, bytes, n, back);
    for (size_t i = 0; i < n; i++) {
        double e = (double)w[i] - (double)back[i];
        sum += e * e * (importance ? (double)importance[i] : 1);
    }
    return sum;
}

static void test_round_beside_ggml(void **state)
{
    (void)state;
    static float w[ROUND_COLS], importance[ROUND_COLS];
    static uint8_t bytes[ROUND_COLS * 2], plain[ROUND_COLS * 2];
    for (size_t i = 0; i < sizeof ggml_errors / sizeof ggml_errors[0]; i++) {
        const struct gguf_type *t = gguf_type_of((uint32_t)ggml_errors[i].id);
        double error[2] = {0, 0}, unguided = 0;
        random_state = (uint32_t)t->id + 1;
        for (int r = 0; r < ROUND_ROWS; r++) {
            random_row(w, importance);
            gguf_round_row(t, w, NULL, ROUND_COLS, plain);
            gguf_round_row(t, w, importance, ROUND_COLS, bytes);
            assert_true(gguf_row_valid(t, plain, ROUND_COLS) && gguf_row_valid(t, bytes, ROUND_COLS));
            error[0] += weighted_error(t, w, NULL, ROUND_COLS, plain);
            error[1] += weighted_error(t, w, importance, ROUND_COLS, bytes);
            unguided += weighted_error(t, w, importance, ROUND_COLS, plain);
        }
        for (int k = 0; k < 2; k++) {
            if (!(error[k] < ggml_errors[i].error[k]))
                fail_msg("%s: error %g, ggml's is %g", t->name, error[k], ggml_errors[i].error[k]);
        }
        assert_true(error[1] < unguided);
    }
}

static void test_round_floats(void **state)
{
    (void)state;
    static const float w[] = {0.0f, -0.0f, 1.0f, -2.5f, 1e-9f, 1e-40f, 3e38f, -FLT_MAX, 65519.0f, 1.0f / 3};
    enum { N = sizeof w / sizeof w[0] };
    uint8_t bytes[N * 4];
    float back[N];
    gguf_round_row(gguf_type_of(GGML_F32), w, NULL, N, bytes);
    gguf_dequant(gguf_type_of(GGML_F32), bytes, N, back);
    assert_memory_equal(w, back, sizeof w);
    gguf_round_row(gguf_type_of(GGML_F16), w, NULL, N, bytes);
    gguf_dequant(gguf_type_of(GGML_F16), bytes, N, back);
    assert_true(back[3] == -2.5f && back[4] == 0 && back[6] == 65504.0f && back[7] == -65504.0f);
    assert_true(back[8] == 65504.0f && back[9] == f16_to_f32(0x3555));
    gguf_round_row(gguf_type_of(GGML_BF16), w, NULL, N, bytes);
    gguf_dequant(gguf_type_of(GGML_BF16), bytes, N, back);
    assert_true(back[3] == -2.5f && back[7] == bf16_to_f32(0xFF7F) && back[9] == bf16_to_f32(0x3EAB));
    assert_true(gguf_row_valid(gguf_type_of(GGML_BF16), bytes, N));
}

/* Rows that upset a search: never worse than storing zeros, never a scale that is no number. */
static void test_round_odd(void **state)
{
    (void)state;
    enum { N = 512, KINDS = 11 };
    static float w[N], importance[N], back[N];
    static uint8_t bytes[N * 2];
    for (size_t i = 0; gguf_type_at(i); i++) {
        const struct gguf_type *t = gguf_type_at(i);
        if (!t->rounded || t->block == 1)
            continue;
        for (int kind = 0; kind < KINDS; kind++) {
            double nothing = 0;
            for (size_t c = 0; c < N; c++) {
                float u = (float)random_u32() / 8388608.0f - 1;
                w[c] = kind == 0   ? 0
                       : kind == 1 ? u * 1e-30f
                       : kind == 2 ? u * 1e-6f /* scales are subnormal in f16 */
                       : kind == 3 ? u * 1e30f
                       : kind == 4 ? (u < 0 ? -FLT_MAX : FLT_MAX)
                       : kind == 5 ? (c == 77 ? -3 : 0)
                       : kind == 6 ? 0.75f
                       : kind == 7 ? 2 + 0.1f * u
                       : kind == 8 ? -2 - 0.1f * u
                                   : u;
                importance[c] = kind == 9 ? (c % 256 < 40 ? 0 : 1) : kind == 10 ? FLT_MAX * (u * u) : 1;
                nothing += (double)w[c] * (double)w[c] * (double)importance[c];
            }
            memset(bytes, 0x7F, sizeof bytes);
            gguf_round_row(t, w, importance, N, bytes);
            assert_true(gguf_row_valid(t, bytes, N));
            double error = weighted_error(t, w, importance, N, bytes);
            if (!(error <= nothing))
                fail_msg("%s, kind %d: error %g, zeros %g", t->name, kind, error, nothing);
            gguf_dequant(t, bytes, N, back);
            for (size_t c = 0; kind == 0 && c < N; c++)
                assert_true(back[c] == 0);
            for (size_t c = 0; (kind == 3 || kind == 4) && (kind == 4 || t->id != GGML_MXFP4) && c < N; c++)
                assert_true(back[c] * w[c] > 0 && fabsf(back[c]) > (t->id == GGML_NVFP4 ? 2.6e3f : 6e4f));
            if (kind >= 5 && kind <= 8)
                assert_true(error < 0.01 * nothing);
            /* Columns without importance are still rounded, not thrown away. */
            for (size_t c = 0; kind == 9 && c < N; c++)
                assert_true(fabsf(back[c] - w[c]) < 0.8f);
        }
        /* Importance that says nothing is none. */
        static uint8_t same[N * 2];
        for (size_t c = 0; c < N; c++)
            importance[c] = 0;
        gguf_round_row(t, w, importance, N, bytes);
        gguf_round_row(t, w, NULL, N, same);
        assert_memory_equal(bytes, same, gguf_row_bytes(t, N));
        for (size_t c = 0; c < N; c++)
            importance[c] = 3.5f;
        gguf_round_row(t, w, importance, N, bytes);
        assert_memory_equal(bytes, same, gguf_row_bytes(t, N));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),       cmocka_unit_test(test_table),
        cmocka_unit_test(test_valid),        cmocka_unit_test(test_pack),
        cmocka_unit_test(test_pack_short),   cmocka_unit_test(test_pack_refuses),
        cmocka_unit_test(test_replace),      cmocka_unit_test(test_round_beside_ggml),
        cmocka_unit_test(test_round_floats), cmocka_unit_test(test_round_odd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
