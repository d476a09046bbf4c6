/* What the tests of the quantization kernels share: shapes, random matrices, codes in words. */
#ifndef TESTS_QUANT_CASES_H
#define TESTS_QUANT_CASES_H

#include "host/base/num.h"
#include "tests/kernel_buffers.h"

/* Shapes: short last groups, groups that do not divide, columns that do not fill a word, one of everything.
 */
static const struct shape {
    uint32_t rows, cols, group;
} shapes[] = {{1, 1, 1},     {3, 5, 4},     {2, 64, 64},   {7, 172, 64},
              {70, 130, 32}, {5, 300, 300}, {130, 96, 10}, {9, 192, 48}};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static inline float *normals(size_t n, float scale, uint64_t seed)
{
    float *v = malloc(n * sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < n; i++)
        v[i] = scale * kernel_case_normal(&seed);
    return v;
}

static inline uint32_t groups_of(struct shape s)
{
    return (uint32_t)div_up(s.cols, s.group);
}

static inline uint32_t words_of(struct shape s)
{
    return (uint32_t)div_up(s.cols, 4);
}

static inline int code_at(const uint32_t *codes, struct shape s, uint32_t row, uint32_t col)
{
    return (int8_t)(codes[row * words_of(s) + col / 4] >> 8 * (col % 4));
}

/* The lanes of a row's last word that are no column hold 0. */
static inline void check_pads(const uint32_t *codes, struct shape s)
{
    for (uint32_t r = 0; r < s.rows; r++)
        for (uint32_t c = s.cols; c < words_of(s) * 4; c++)
            assert_int_equal(code_at(codes, s, r, c), 0);
}

/* Levels of IQ4_NL and of E2M1, doubled, as tables of kernels. */
static const int8_t iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113},
                    fp4[16] = {-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12, 12};

static inline void set_table(struct kernel_shape *s, const int8_t *levels)
{
    uint32_t words[4] = {0};
    for (unsigned k = 0; levels && k < 16; k++)
        words[k / 4] |= (uint32_t)(uint8_t)levels[k] << k % 4 * 8;
    s->table0 = words[0], s->table1 = words[1], s->table2 = words[2], s->table3 = words[3];
}

/* Random codes in [lo, hi], or of a table, pads 0. */
static inline uint32_t *random_codes(struct shape s, int lo, int hi, const int8_t *levels, uint64_t seed)
{
    uint32_t *codes = calloc((size_t)s.rows * words_of(s), 4);
    assert_non_null(codes);
    for (uint32_t r = 0; r < s.rows; r++)
        for (uint32_t c = 0; c < s.cols; c++) {
            uint32_t pick = kernel_case_random(&seed);
            int code = levels ? levels[pick % 16] : lo + (int)(pick % (uint32_t)(hi - lo + 1));
            codes[r * words_of(s) + c / 4] |= (uint32_t)(uint8_t)code << 8 * (c % 4);
        }
    return codes;
}

/* |a - b| within an error of `relative` to the larger of b and `floor`. */
static inline void near(double a, double b, double relative, double floor)
{
    if (!(fabs(a - b) <= relative * fmax(fabs(b), floor))) {
        print_error("%.9g, expected %.9g (tolerance %g, floor %g)\n", a, b, relative, floor);
        fail();
    }
}

/* |a - b| <= tolerance. */
static inline void within(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) {
        print_error("%.9g, expected %.9g (tolerance %g)\n", a, b, tolerance);
        fail();
    }
}

#endif
