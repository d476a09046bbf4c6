/* Bit streams of formats/pack.c against the published vectors, and the table of quantization types. */
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/pack.h"
#include "formats/quant_type.h"

static uint32_t random_state = 12345;

static uint32_t random_u32(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

/* Code i = i mod 2^b as docs/formats.md 1 writes it down. */
static void test_golden(void **state)
{
    (void)state;
    static const struct {
        unsigned bits, n_words;
        uint32_t words[8];
    } golden[] = {
        {2, 2, {0xE4E4E4E4, 0xE4E4E4E4}},
        {3, 3, {0x88FAC688, 0xC688FAC6, 0xFAC688FA}},
        {4, 4, {0x76543210, 0xFEDCBA98, 0x76543210, 0xFEDCBA98}},
        {8, 8, {0x03020100, 0x07060504, 0x0B0A0908, 0x0F0E0D0C, 0x13121110, 0x17161514, 0x1B1A1918, 0x1F1E1D1C}},
    };
    for (size_t t = 0; t < sizeof golden / sizeof golden[0]; t++) {
        unsigned bits = golden[t].bits;
        int8_t codes[32], back[32];
        uint32_t values[32], values_back[32], words[8];
        for (int i = 0; i < 32; i++) {
            values[i] = (uint32_t)i & ((1u << bits) - 1);
            codes[i] = (int8_t)((int)values[i] - (1 << (bits - 1)));
        }
        memset(words, 0xAA, sizeof words);
        pack_codes(codes, 32, 1, bits, words);
        assert_memory_equal(words, golden[t].words, golden[t].n_words * sizeof words[0]);
        for (size_t w = golden[t].n_words; w < 8; w++)
            assert_int_equal(words[w], 0xAAAAAAAA);
        memset(words, 0xAA, sizeof words);
        pack_unsigned(values, 32, bits, words);
        assert_memory_equal(words, golden[t].words, golden[t].n_words * sizeof words[0]);
        unpack_codes(words, 32, bits, back, 1);
        assert_memory_equal(back, codes, sizeof codes);
        unpack_unsigned(words, 32, bits, values_back);
        assert_memory_equal(values_back, values, sizeof values);
    }
}

/* qzeros: 32 equal values z-1 (v1) and z (v2), z = 2^(b-1). */
static void test_golden_zeros(void **state)
{
    (void)state;
    static const struct {
        unsigned bits;
        uint32_t v1[3], v2[3];
    } golden[] = {
        {2, {0x55555555, 0x55555555, 0}, {0xAAAAAAAA, 0xAAAAAAAA, 0}},
        {3, {0xDB6DB6DB, 0xB6DB6DB6, 0x6DB6DB6D}, {0x24924924, 0x49249249, 0x92492492}},
        {4, {0x77777777, 0x77777777, 0x77777777}, {0x88888888, 0x88888888, 0x88888888}},
        {8, {0x7F7F7F7F, 0x7F7F7F7F, 0x7F7F7F7F}, {0x80808080, 0x80808080, 0x80808080}},
    };
    for (size_t t = 0; t < sizeof golden / sizeof golden[0]; t++) {
        unsigned bits = golden[t].bits, n = bits < 3 ? bits : 3;
        uint32_t values[32], words[8];
        for (int v2 = 0; v2 < 2; v2++) {
            for (int i = 0; i < 32; i++)
                values[i] = (1u << (bits - 1)) - !v2;
            pack_unsigned(values, 32, bits, words);
            assert_memory_equal(words, v2 ? golden[t].v2 : golden[t].v1, n * sizeof words[0]);
        }
    }
}

/* Any bits, any length, any stride: exact round trip, ceil(n*b/32) words touched, tail bits zero. The words
 * are also read bit by bit, which shares nothing with the packer. */
static void test_round_trip(void **state)
{
    (void)state;
    enum { MAX = 200, STRIDE = 5 };
    static int8_t codes[MAX * STRIDE], back[MAX * STRIDE];
    uint32_t words[MAX / 4 + 2], values[MAX], values_back[MAX];
    for (unsigned bits = 2; bits <= 8; bits++) {
        for (size_t n = 0; n <= MAX; n += n < 70 ? 1 : 13) {
            size_t stride = 1 + n % STRIDE, n_words = (n * bits + 31) / 32;
            for (size_t i = 0; i < sizeof codes; i++)
                codes[i] = (int8_t)((int)(random_u32() & ((1u << bits) - 1)) - (1 << (bits - 1)));
            memset(words, 0xFF, sizeof words);
            pack_codes(codes, n, stride, bits, words);
            assert_int_equal(words[n_words], 0xFFFFFFFF);
            for (size_t i = 0; i < n_words * 32; i++) {
                uint32_t bit = words[i / 32] >> (i % 32) & 1, want = 0;
                if (i < n * bits)
                    want = (uint32_t)(codes[i / bits * stride] + (1 << (bits - 1))) >> (i % bits) & 1;
                assert_int_equal(bit, want);
            }
            memset(back, 99, sizeof back);
            unpack_codes(words, n, bits, back, stride);
            for (size_t i = 0; i < sizeof back; i++) {
                bool hit = i % stride == 0 && i / stride < n;
                assert_int_equal(back[i], hit ? codes[i] : 99);
            }
            for (size_t i = 0; i < n; i++)
                values[i] = (uint32_t)(codes[i * stride] + (1 << (bits - 1)));
            uint32_t other[MAX / 4 + 2];
            memset(other, 0xFF, sizeof other);
            pack_unsigned(values, n, bits, other);
            assert_memory_equal(other, words, sizeof words);
            unpack_unsigned(words, n, bits, values_back);
            if (n)
                assert_memory_equal(values_back, values, n * sizeof values[0]);
        }
    }
}

static void test_types(void **state)
{
    (void)state;
    const struct quant_type *ternary = quant_type_find("ternary"), *two = quant_type_find("2");
    assert_non_null(ternary);
    assert_int_equal(ternary->lo, -1);
    assert_int_equal(ternary->hi, 1);
    assert_int_equal(ternary->bits, 2);
    assert_true(ternary->learned);
    assert_ptr_equal(quant_type_of_bits(2), two);
    assert_false(quant_type_of_bits(8)->learned);
    assert_null(quant_type_find("16"));
    assert_null(quant_type_of_bits(1));
    assert_null(quant_type_of_bits(9));
    for (size_t i = 0; quant_type_at(i); i++) {
        const struct quant_type *t = quant_type_at(i);
        assert_ptr_equal(quant_type_find(t->name), t);
        int zero = t->offset_hi ? 0 : 1 << (t->bits - 1); /* stored = c + zero */
        assert_true(t->levels || (t->lo >= -zero && t->hi + zero < 1 << t->bits));
        unsigned n = quant_type_levels(t);
        assert_true(n > 1 && n <= 1u << t->bits);
        assert_int_equal(quant_type_level(t, 0), t->lo);
        assert_int_equal(quant_type_level(t, n - 1), t->hi);
        for (unsigned k = 0; k < n; k++) {
            int level = quant_type_level(t, k), below = k ? quant_type_level(t, k - 1) : level;
            float middle = 0.5f * (float)(below + level);
            assert_int_equal(quant_type_number(t, level), k);
            assert_int_equal(quant_type_nearest(t, (float)level), level);
            assert_int_equal(quant_type_nearest(t, middle + 0.25f), level);
            assert_int_equal(quant_type_nearest(t, middle - 0.25f), below);
            assert_true(k == 0 || below < level);
            for (int gap = below + 1; gap < level; gap++)
                assert_int_equal(quant_type_number(t, gap), UINT_MAX);
        }
        assert_int_equal(quant_type_number(t, t->lo - 1), UINT_MAX);
        assert_int_equal(quant_type_number(t, t->hi + 1), UINT_MAX);
        assert_int_equal(quant_type_nearest(t, -1e9f), t->lo);
        assert_int_equal(quant_type_nearest(t, 1e9f), t->hi);
    }
    struct quant_spec s = {two, 128, SCALE_F16};
    assert_float_equal(quant_spec_bpw(&s, 64, 256), 2.125, 0);
    s.group = 96; /* a short last group counts as one */
    assert_float_equal(quant_spec_bpw(&s, 64, 256), 2 + 16.0 * 3 / 256, 0);
    assert_string_equal(scale_type_name(SCALE_BF16), "bf16");
    assert_float_equal(scale_round(SCALE_F16, 1.0f + 0x1p-11f), 1.0f, 0); /* half way: to even */
    assert_float_equal(scale_round(SCALE_F16, 1.0f + 0x1.8p-10f), 1.0f + 0x1p-9f, 0);
    assert_float_equal(scale_round(SCALE_BF16, 1.0f + 0x1p-8f), 1.0f, 0);
    assert_float_equal(scale_round(SCALE_F32, 1.0f + 0x1p-23f), 1.0f + 0x1p-23f, 0);
}

static void test_qlinear(void **state)
{
    (void)state;
    struct err e = {0};
    struct qlinear q;
    assert_true(qlinear_init(&q, 2, 10, (struct quant_spec){quant_type_find("4"), 4, SCALE_F16}, &e));
    assert_int_equal(q.groups, 3);
    for (int i = 0; i < 20; i++)
        q.codes[i] = (int8_t)(i % 16 - 8);
    for (int i = 0; i < 6; i++)
        q.scales[i] = (float)(i + 1) * (i % 2 ? -0.5f : 0.5f);
    float w[10];
    qlinear_dequant(&q, 1, 1, w);
    for (int c = 0; c < 10; c++)
        assert_float_equal(w[c], (float)q.codes[10 + c] * q.scales[3 + c / 4], 0);
    qlinear_free(&q);
    assert_null(q.codes);
    assert_true(qlinear_init(&q, 3, 10, (struct quant_spec){quant_type_find("2"), 0, SCALE_F16}, &e));
    assert_int_equal(q.groups, 1);
    assert_int_equal(q.spec.group, 10);
    qlinear_free(&q);
    assert_false(qlinear_init(&q, 0, 10, (struct quant_spec){quant_type_find("2"), 4, SCALE_F16}, &e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden), cmocka_unit_test(test_golden_zeros), cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_types),  cmocka_unit_test(test_qlinear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
