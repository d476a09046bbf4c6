/* The quantization kernels, every variant that the device can run, against tests/ref/ref_quant.c. */
#include "formats/quant_type.h"
#include "host/gpu/tiled.h"
#include "tests/kernel_cases.h"
#include "tests/quant_cases.h"
#include "tests/ref/ref_quant.h"

static const struct grid {
    int lo, hi;
    const int8_t *levels; /* NULL: all integers */
} grids[] = {{-1, 1, NULL},     {-2, 1, NULL},    {-4, 3, NULL}, {-8, 7, NULL},
             {-128, 127, NULL}, {-127, 113, iq4}, {-12, 12, fp4}};
enum { N_GRIDS = sizeof grids / sizeof grids[0], N_EVEN = N_GRIDS - 2 };

/* Of two neighbouring levels those of which x lies halfway between, but for a share of their distance. */
static bool is_tie(double x, int a, int b, struct grid g, double share)
{
    for (int c = a < b ? a + 1 : b + 1; g.levels && c < (a < b ? b : a); c++)
        if (ref_level(c, 1, g.lo, g.hi, g.levels) == c)
            return false;
    return (g.levels || abs(a - b) == 1) && fabs(x - 0.5 * (a + b)) < share * abs(a - b);
}

/* The shape and levels as what kernels take; rows of w lie `pad` apart. */
static struct kernel_shape case_of(struct shape s, struct grid g, uint32_t pad)
{
    struct kernel_shape k = {.rows = s.rows,
                             .cols = s.cols,
                             .group = s.group,
                             .ldw = s.cols + pad,
                             .lo = (uint32_t)g.lo,
                             .hi = (uint32_t)g.hi};
    set_table(&k, g.levels);
    return k;
}

/* Group k of row r of w. */
static const float *group_of(const struct kernel_test *t, uint32_t r, uint32_t k, uint32_t *n)
{
    uint32_t begin = k * t->s.group, left = t->s.cols - begin;
    *n = left < t->s.group ? left : t->s.group;
    return (const float *)t->in[0] + (size_t)r * t->s.ldw + begin;
}

/* What it costs, NULL where all cost the same. */
static const float *cost_of(const struct kernel_test *t, uint32_t k)
{
    return t->s.weighted ? (const float *)t->in[1] + k * t->s.group : NULL;
}

/* In two calls, as GPTQ asks. */
static void call_halves(struct kernel_test *t)
{
    t->s.col1 = t->s.cols / 2;
    kernel_call(t);
    t->s.col0 = t->s.col1;
    t->s.col1 = t->s.cols;
    kernel_call(t);
}

/* ---- scales and codes ---- */

/* The scale need not be the reference's own (candidates tie within rounding): it must be what is stored of a
 * candidate whose error is that of the best one, but for what the power's polynomial may confuse. */
static void check_scale(float s, const float *w, const float *cost, size_t n, struct grid g, unsigned type)
{
    double least = ref_best_scale(w, cost, n, g.lo, g.hi, g.levels, 80, 2.4, type, NULL);
    double error = ref_best_scale(w, cost, n, g.lo, g.hi, g.levels, 80, 2.4, type, &s);
    if (!isfinite(error))
        fail_msg("%.9g, type %u, group of %zu, is no candidate's scale", (double)s, type, n);
    /* Small groups are met exactly, up to the last bits of a candidate. */
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs(w[i]));
    within(error, least, 1e-4 * least + (double)n * pow(most * 1e-6, 2.4));
}

static void scale_search(unsigned kernel, const struct grid *of, unsigned n_grids)
{
    for (unsigned v = 0; variant_use(kernel, &v); v++)
        for (unsigned i = 0; i < N_SHAPES * n_grids; i++) {
            struct grid g = of[i % n_grids];
            struct kernel_shape s = case_of(shapes[i / n_grids], g, 3);
            struct kernel_test t;
            uint32_t n;
            s.candidates = 80, s.scale_type = g.levels == fp4 ? i / n_grids % 5 : i % 3, s.weighted = i % 2;
            kernel_begin(&t, kernel, s, i);
            for (uint32_t c = 0; c < s.group && c < s.cols && s.rows > 1; c++)
                ((float *)t.in[0])[c] = 0; /* a group of zeros */
            call_halves(&t);
            const float *scales = kernel_out(&t, 2);
            for (uint32_t r = 0; r < s.rows; r++)
                for (uint32_t k = 0; k < t.s.groups; k++) {
                    const float *w = group_of(&t, r, k, &n);
                    check_scale(scales[r * t.s.groups + k], w, cost_of(&t, k), n, g, s.scale_type);
                }
            kernel_end(&t);
        }
}

static void test_scale_search(void **state)
{
    (void)state;
    scale_search(KERNEL_ID_scale_search, grids, N_EVEN);
    scale_search(KERNEL_ID_scale_search_uneven, grids + N_EVEN, N_GRIDS - N_EVEN);
}

/* Weights so small or large that the scale leaves its type's range, and groups that are no group. */
static void test_scale_search_extremes(void **state)
{
    (void)state;
    static const float sizes[] = {1e-30f, 1e-9f, 3e-7f, 1.0f, 3e4f, 1e6f, 1e30f, 1e-40f};
    const struct grid g = {-2, 1, NULL};
    for (unsigned v = 0; variant_use(KERNEL_ID_scale_search, &v); v++)
        for (unsigned type = 0; type < 3; type++)
            for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
                struct kernel_shape s = case_of((struct shape){1, 24, 24}, g, 0);
                struct kernel_test t;
                s.candidates = 80, s.scale_type = type;
                kernel_begin(&t, KERNEL_ID_scale_search, s, i + 1);
                float *w = t.in[0];
                for (uint32_t c = 0; c < s.cols; c++)
                    w[c] = w[c] / t.b[0].size * sizes[i];
                kernel_call(&t);
                const float *scale = kernel_out(&t, 2);
                assert_true(isfinite(scale[0]));
                assert_true(ref_storable_scale(scale[0], type) == scale[0]);
                assert_true((scale[0] == 0) == (sizes[i] < 1e-38f));
                if (sizes[i] > 1e-8f && (sizes[i] < 1e5f || type != 1))
                    check_scale(scale[0], w, NULL, s.cols, g, type);
                kernel_end(&t);
            }
}

static void quantize_dequant(struct shape shape, struct grid g, uint32_t pad, bool offsets, uint64_t seed)
{
    struct kernel_shape s = case_of(shape, g, pad);
    struct kernel_test q, d;
    s.offsets = offsets;
    kernel_begin(&q, g.levels ? KERNEL_ID_quantize_uneven : KERNEL_ID_quantize, s, seed);
    kernel_begin(&d, KERNEL_ID_dequant, s, seed);
    float *scales = q.in[1];
    if (s.rows > 1)
        scales[0] = 0;
    for (uint64_t i = 0; i < q.b[1].n; i++) /* of any sign */
        scales[i] = i % 3 ? scales[i] : -scales[i];
    kernel_call(&q);
    const uint32_t *codes = kernel_out(&q, 2);
    check_pads(codes, shape);
    memcpy(d.in[0], codes, d.b[0].n * 4);
    memcpy(d.in[1], scales, d.b[1].n * 4);
    kernel_call(&d);
    const float *w = q.in[0], *back = kernel_out(&d, 2);
    for (uint32_t r = 0; r < s.rows; r++)
        for (uint32_t c = 0; c < s.cols; c++) {
            const float *of_group = scales + (size_t)r * (1 + s.offsets) * q.s.groups + c / s.group;
            float scale = of_group[0], offset = offsets ? of_group[q.s.groups] : 0, got = back[r * s.ldw + c];
            double x = (double)w[r * s.ldw + c] - offset;
            int code = code_at(codes, shape, r, c), ref = ref_level(x, scale, g.lo, g.hi, g.levels);
            if (code != ref) /* a tie, within the rounding of the quotient */
                assert_true(is_tie(x / scale, code, ref, g, 1e-4));
            if (offsets) /* whether the product is rounded first is the device's choice */
                within(got, (double)code * scale + offset, 1.2e-7 * (fabs((double)code * scale) + fabs(offset)));
            else
                assert_true(got == (float)code * scale);
        }
    kernel_end(&d);
    kernel_free(&q);
}

static void test_quantize_dequant(void **state)
{
    (void)state;
    static const uint32_t pads[] = {0, 1, 16};
    for (unsigned v = 0; variant_use(KERNEL_ID_dequant, &v); v++)
        for (unsigned i = 0; i < N_SHAPES * N_GRIDS; i++)
            for (unsigned k = 0; k < 6; k++)
                quantize_dequant(shapes[i / N_GRIDS], grids[i % N_GRIDS], pads[k % 3], k >= 3, i + 50);
}

/* Affine grids: the scale and offset found are about as good as the best of the reference's candidates. */
static void test_affine_search(void **state)
{
    (void)state;
    static const struct grid affine[] = {{0, 3, NULL}, {0, 15, NULL}, {0, 31, NULL}, {-2, 1, NULL}};
    /* Tiny, ordinary and huge weights; a shift that leaves whole groups on one side of 0. */
    static const float sizes[] = {0.02f, 1e-30f, 1e25f}, shifts[] = {0, 3, -3, 0.5f};
    for (unsigned v = 0; variant_use(KERNEL_ID_affine_search, &v); v++)
        for (unsigned i = 0; i < N_SHAPES * 4; i++) {
            struct shape shape = shapes[i / 4];
            struct grid g = affine[i % 4];
            struct kernel_test t;
            uint32_t n;
            if (shape.group > AFFINE_GROUP_MAX)
                shape.group = i % 2 ? 16 : 32;
            struct kernel_shape s = case_of(shape, g, 3);
            s.weighted = i / 2 % 2;
            kernel_begin(&t, KERNEL_ID_affine_search, s, i);
            float *w = t.in[0], size = sizes[i % 3], shift = shifts[i / 3 % 4] * size;
            for (uint64_t k = 0; k < t.b[0].n; k++) /* the first group is constant */
                w[k] = (k < s.group && k < s.cols && s.rows > 1 ? 0 : w[k] / t.b[0].size * size) + shift;
            call_halves(&t);
            const float *scales = kernel_out(&t, 2);
            for (uint32_t r = 0; r < s.rows; r++)
                for (uint32_t k = 0; k < t.s.groups; k++) {
                    const float *x = group_of(&t, r, k, &n), *c = cost_of(&t, k);
                    double scale = scales[r * 2 * t.s.groups + k], offset = scales[(r * 2 + 1) * t.s.groups + k];
                    assert_true(scale >= 0 && offset <= 0);
                    double error = ref_affine_error(x, c, n, scale, offset, g.lo, g.hi);
                    double least = ref_best_affine(x, c, n, g.lo, g.hi), most = 0;
                    for (uint32_t j = 0; j < n; j++)
                        most = fmax(most, fabs((double)x[j]));
                    /* Better is no fault: rounding may let a constant group be refitted. */
                    within(fmax(error, least), least, 1e-3 * least + n * 1e-11 * most * most);
                }
            kernel_end(&t);
        }
}

/* One plane of a super-block as the kernel left it: products of d and integers, those of the reference, and no f16 d of the
 * reference's search is better for v. */
static void check_plane(const double *v, const float *products, float d, const float *integers, uint32_t n, int lo,
                        int hi, double tolerance)
{
    float want;
    int of_want[16];
    assert_true(ref_super_scale(products, n, lo, hi, &want, of_want));
    assert_true(d == want && d == f16_to_f32(f32_to_f16(d)));
    for (uint32_t i = 0; i < n; i++)
        assert_true(integers[i] == (float)of_want[i] && products[i] == d * integers[i]);
    double error = ref_super_error(v, products, n), least = ref_best_super(v, n, lo, hi);
    within(error, least, 1e-3 * least + tolerance);
}

/* Scales of super-blocks, of every type that has them; what is projected stays when it is projected again. */
static void project_scales(const struct quant_type *t, uint32_t supers, uint32_t rows, float size, uint64_t seed)
{
    uint32_t per = t->super / t->group, groups = supers * per, planes = quant_type_planes(t);
    struct kernel_test c;
    kernel_begin(&c, KERNEL_ID_project_scales,
                 (struct kernel_shape){.rows = rows,
                                       .groups = groups,
                                       .offsets = planes - 1,
                                       .per_super = per,
                                       .lo = (uint32_t)t->scale_lo,
                                       .hi = (uint32_t)t->scale_hi,
                                       .offset_hi = (uint32_t)t->offset_hi,
                                       .centre = 0.5f * (float)(t->lo + t->hi)},
                 seed);
    float *v = c.in[0], *once[3];
    for (size_t i = 0; i < c.b[0].n; i++) { /* some scales 0, some offsets too; a super-block of zeros */
        bool zero = planes == 2 ? seed % 2 && i % 7 == 3 : false;
        v[i] = zero || (i < per && rows > 1) ? 0 : v[i] * (size / c.b[0].size);
    }
    c.s.count = 1;
    kernel_call(&c); /* the first, then the others, as GPTQ asks */
    c.s.first = 1;
    c.s.count = supers - 1;
    if (c.s.count)
        kernel_call(&c);
    for (unsigned i = 0; i < 3; i++)
        once[i] = buffer_read(&c.device[i]);
    c.s.first = 0;
    c.s.count = supers;
    kernel_call(&c);
    for (unsigned i = 0; i < 3; i++)
        assert_memory_equal(once[i], kernel_out(&c, i), c.b[i].n * sizeof *once[i]);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t k = 0; k < supers; k++) {
            size_t at = (size_t)r * planes * groups + k * per, block = (size_t)r * planes * supers + k;
            const float *was = v + at, *is = once[0] + at, *d = once[1] + block, *integers = once[2] + at;
            float negated[16];
            double target[16];
            for (uint32_t i = 0; i < per; i++)
                target[i] = was[i];
            check_plane(target, is, d[0], integers, per, t->scale_lo, t->scale_hi, 1e-12 * size * size);
            for (uint32_t i = 0; planes > 1 && i < per; i++) {
                double moved = (double)was[groups + i] + c.s.centre * ((double)was[i] - is[i]);
                target[i] = fmax(-moved, 0);
                negated[i] = -is[groups + i];
            }
            if (planes > 1)
                check_plane(target, negated, -d[supers], integers + groups, per, 0, t->offset_hi, 1e-10 * size * size);
        }
    for (unsigned i = 0; i < 3; i++)
        free(once[i]);
    kernel_end(&c);
}

static void test_project_scales(void **state)
{
    (void)state;
    const struct quant_type *t;
    unsigned types = 0;
    for (unsigned v = 0; variant_use(KERNEL_ID_project_scales, &v); v++)
        for (size_t i = 0; (t = quant_type_at(i)); i++) {
            if (!t->super)
                continue;
            types++;
            project_scales(t, 1, 1, 0.02f, 1);
            project_scales(t, 3, 70, 0.02f, i);
            project_scales(t, 2, 33, 1e-4f, i + 1); /* steps are subnormal halves */
            project_scales(t, 2, 5, 50, i + 2);
        }
    assert_true(types >= 5);
}

/* The segment's decisions are followed, not predicted: given the kernel's codes, every error must be what the
 * recurrence makes of them, and every code the nearest level of the weight that it saw. */
#define SEGMENT(r, c, first, n, g)                                                                                     \
    {.rows = r, .cols = c, .col0 = first, .count = n, .group = g},                                                     \
    {                                                                                                                  \
        .rows = r, .cols = c, .col0 = first, .count = n, .group = g, .offsets = 1                                      \
    }
static const struct kernel_shape segments[] = {
    SEGMENT(1, 4, 0, 4, 4),         SEGMENT(9, 7, 4, 3, 4),       SEGMENT(33, 172, 128, 44, 64),
    SEGMENT(5, 260, 128, 128, 128), SEGMENT(40, 200, 64, 64, 64), SEGMENT(129, 131, 100, 31, 200),
    SEGMENT(70, 256, 128, 128, 16), SEGMENT(9, 160, 32, 128, 32), SEGMENT(3, 77, 16, 61, 8)};

/* All grids in turn. */
static void set_grid(struct kernel_test *t, struct grid g)
{
    t->s.lo = (uint32_t)g.lo;
    t->s.hi = (uint32_t)g.hi;
    set_table(&t->s, g.levels);
}

static void prepare_segment(struct kernel_test *t)
{
    static unsigned calls;
    set_grid(t, grids[calls++ / 2 % N_EVEN]);
}

static void prepare_uneven_segment(struct kernel_test *t)
{
    static unsigned calls;
    set_grid(t, grids[N_EVEN + calls++ / 2 % (N_GRIDS - N_EVEN)]);
}

static void compare_segment(struct kernel_test *t)
{
    const struct kernel_shape *s = &t->s;
    const struct shape shape = {s->rows, s->cols, s->group};
    const float *w = t->in[0], *r = t->in[1], *scales = t->in[2], *err = kernel_out(t, 4);
    const uint32_t *codes = kernel_out(t, 3);
    const struct grid g = {(int)s->lo, (int)s->hi, !s->table0 ? NULL : (int)s->hi == 12 ? fp4 : iq4};
    for (uint32_t row = 0; row < s->rows; row++) {
        double past[SEGMENT_MAX];
        for (uint32_t j = 0; j < s->count; j++) {
            uint32_t col = s->col0 + j;
            const float *r_row = r + (size_t)col * s->ldr + s->col0;
            const float *of_group = scales + (size_t)row * (1 + s->offsets) * s->groups + col / s->group;
            double scale = of_group[0], x = w[row * s->ldw + col] - (s->offsets ? (double)of_group[s->groups] : 0);
            for (uint32_t i = 0; i < j; i++)
                x -= past[i] * r_row[i];
            int code = code_at(codes, shape, row, col), ref = ref_level(x, scale, g.lo, g.hi, g.levels);
            if (code != ref)
                assert_true(is_tie(x / scale, code, ref, g, 1e-3));
            past[j] = (x - scale * code) / r_row[j];
            near(err[row * s->count + j], past[j], 1e-4, 1);
        }
        /* Words outside the segment keep the pattern; lanes behind its end are 0. */
        for (uint32_t word = 0; word < s->ldc; word++)
            if (word * 4 + 4 <= s->col0 || word * 4 >= s->col0 + s->count)
                assert_int_equal(codes[row * s->ldc + word], BUFFER_PATTERN);
        for (uint32_t c = s->col0 + s->count; c % 4 != 0; c++)
            assert_int_equal(code_at(codes, shape, row, c), 0);
    }
}
CASES(gptq_segment, gptq_segment, segments, prepare_segment, compare_segment)
CASES(gptq_segment_uneven, gptq_segment_uneven, segments, prepare_uneven_segment, compare_segment)

/* ---- small ones ---- */

static void prepare_diagonal(struct kernel_test *t)
{
    for (uint32_t i = 5; i < t->s.n; i += 61)
        ((float *)t->in[0])[i * t->s.ldh + i] = 0;
    t->s.damp = 0.5f;
    t->s.one = 7;
}

static void compare_diagonal(struct kernel_test *t)
{
    const float *h = t->in[0], *diag = kernel_out(t, 1);
    for (uint32_t i = 0; i < t->s.n; i++)
        expect(t, i, diag[i], h[i * t->s.ldh + i], 0);
}

static void compare_damp(struct kernel_test *t)
{
    const float *h = t->in[0], *got = kernel_out(t, 0);
    for (uint32_t i = 0; i < t->s.n; i++)
        for (uint32_t j = 0; j < t->s.n; j++) {
            float was = h[i * t->s.ldh + j];
            expect(t, i, got[i * t->s.ldh + j], i != j ? was : was == 0 ? 7 : was + 0.5f, 0);
        }
}
static const struct kernel_shape squares[] = {{.n = 1}, {.n = 67}, {.n = 67, .ldh = 70}};
CASES(diagonal, diagonal, squares, prepare_diagonal, compare_diagonal)
CASES(damp_diagonal, damp_diagonal, squares, prepare_diagonal, compare_damp)

static void prepare_dead(struct kernel_test *t)
{
    for (uint32_t i = 5; i < t->s.cols; i += 61)
        ((float *)t->in[1])[i] = 0;
}

static void compare_dead(struct kernel_test *t)
{
    const float *w = t->in[0], *diag = t->in[1], *got = kernel_out(t, 0);
    for (uint32_t i = 0; i < t->s.rows; i++)
        for (uint32_t j = 0; j < t->s.cols; j++)
            expect(t, i, got[i * t->s.ldw + j], diag[j] == 0 ? 0 : w[i * t->s.ldw + j], 0);
}
static const struct kernel_shape dead_shapes[] = {{.rows = 5, .cols = 67, .ldw = 69}, {.rows = 1, .cols = 6}};
CASES(zero_dead, zero_dead, dead_shapes, prepare_dead, compare_dead)

static const struct kernel_shape packed_shapes[] = {
    {.rows = 3, .cols = 64, .bits = 2, .lo = (uint32_t)-2},   {.rows = 5, .cols = 67, .bits = 3, .lo = (uint32_t)-4},
    {.rows = 1, .cols = 1, .bits = 2, .lo = (uint32_t)-1},    {.rows = 7, .cols = 33, .bits = 5},
    {.rows = 2, .cols = 30, .bits = 8, .lo = (uint32_t)-128}, {.rows = 70, .cols = 36, .bits = 6, .lo = (uint32_t)-32}};

static void compare_unpack_codes(struct kernel_test *t)
{
    const uint32_t *packed = t->in[0], *got = kernel_out(t, 1);
    for (uint32_t r = 0; r < t->s.rows; r++)
        for (uint32_t c = 0; c < t->s.ldc * 4; c++) {
            uint32_t code = 0;
            for (uint32_t i = 0; i < t->s.bits && c < t->s.cols; i++) {
                uint32_t bit = c * t->s.bits + i;
                code |= (packed[r * t->s.ldp + bit / 32] >> bit % 32 & 1) << i;
            }
            uint32_t number = t->kernel == KERNEL_ID_unpack_codes_uneven ? (uint32_t)iq4[code % 16] : code + t->s.lo;
            code = c < t->s.cols ? number & 255u : 0;
            expect(t, r, got[r * t->s.ldc + c / 4] >> (c % 4 * 8) & 255u, code, 0);
        }
}
CASES(unpack_codes, unpack_codes, packed_shapes, NULL, compare_unpack_codes)
static const struct kernel_shape packed_levels[] = {
    {.rows = 3, .cols = 64, .bits = 4}, {.rows = 5, .cols = 67, .bits = 4}, {.rows = 1, .cols = 1, .bits = 4}};
CASES(unpack_codes_uneven, unpack_codes_uneven, packed_levels, NULL, compare_unpack_codes)

static const struct kernel_shape flip_shapes[] = {
    {.n = 1}, {.n = 5, .ldi = 8}, {.n = 64}, {.n = 172, .ldo = 175}, {.n = 300, .ldi = 303}};

static void compare_flip(struct kernel_test *t)
{
    const float *a = t->in[0], *got = kernel_out(t, 1);
    uint32_t n = t->s.n;
    for (uint32_t r = 0; r < n; r++)
        for (uint32_t c = 0; c < n; c++)
            expect(t, r, got[r * t->s.ldo + c], a[(n - 1 - r) * t->s.ldi + n - 1 - c], 0);
}
CASES(flip, flip, flip_shapes, NULL, compare_flip)

#define MATRIX(r, c)                                                                                                   \
    {                                                                                                                  \
        .rows = r, .cols = c                                                                                           \
    }
static const struct kernel_shape matrices[] = {MATRIX(1, 1),    MATRIX(3, 5),   MATRIX(2, 64),   MATRIX(7, 172),
                                               MATRIX(70, 130), MATRIX(5, 300), MATRIX(130, 96), MATRIX(9, 192)};

static void compare_copy(struct kernel_test *t)
{
    const float *a = t->in[0], *got = kernel_out(t, 1);
    for (uint32_t r = 0; r < t->s.rows; r++)
        for (uint32_t c = 0; c < t->s.cols; c++)
            expect(t, r, got[r * t->s.ldd + c], a[r * t->s.lds + c], 0);
}
static const struct kernel_shape rectangles[] = {{.rows = 1, .cols = 1},
                                                 {.rows = 3, .cols = 5, .lds = 8},
                                                 {.rows = 70, .cols = 130, .ldd = 133},
                                                 {.rows = 9, .cols = 192, .lds = 195, .ldd = 200}};
CASES(copy_rect, copy_rect, rectangles, NULL, compare_copy)

static void compare_row_dot(struct kernel_test *t)
{
    const float *a = t->in[0], *b = t->in[1], *dot = kernel_out(t, 2);
    for (uint32_t r = 0; r < t->s.rows; r++) {
        double sum = 0, size_of_sum = 0;
        for (uint32_t i = r * t->s.cols; i < (r + 1) * t->s.cols; i++) {
            sum += (double)a[i] * b[i];
            size_of_sum += fabs((double)a[i] * b[i]);
        }
        near(dot[r], sum, 1e-6, size_of_sum);
    }
}
CASES(row_dot, row_dot, matrices, NULL, compare_row_dot)

#define RESIDUAL(r, c, by_token, difference_too)                                                                       \
    {                                                                                                                  \
        .rows = r, .cols = c, .weighted = by_token, .difference = difference_too                                       \
    }
static const struct kernel_shape residuals[] = {RESIDUAL(1, 1, 1, 1),   RESIDUAL(3, 5, 1, 1),
                                                RESIDUAL(7, 172, 0, 1), RESIDUAL(33, 64, 1, 1),
                                                RESIDUAL(9, 129, 1, 0), RESIDUAL(5, 1028, 0, 0)};

static void compare_residual(struct kernel_test *t)
{
    const float *a = t->in[0], *b = t->in[1], *w = t->in[2], *d = kernel_out(t, 3), *loss = kernel_out(t, 4);
    const uint32_t untouched = BUFFER_PATTERN;
    for (uint32_t r = 0; r < t->s.rows; r++) {
        double sum = 0, weight = t->s.weighted ? w[r] : 1;
        for (uint32_t i = r * t->s.cols; i < (r + 1) * t->s.cols; i++) {
            double v = (double)a[i] - b[i];
            sum += weight * v * v;
            if (t->s.difference)
                expect(t, i, d[i], weight * v, fabs(weight * v) * 2 * FLT_EPSILON);
            else
                assert_memory_equal(&d[i], &untouched, 4);
        }
        near(loss[r], sum, 1e-6, sum);
    }
    if (t->s.difference)
        IN_PLACE(t, {3, 0});
}
CASES(residual, residual, residuals, NULL, compare_residual)

static const struct kernel_shape columns[] = {MATRIX(1, 1),     MATRIX(1, 7),    MATRIX(3, 4),     MATRIX(5, 33),
                                              MATRIX(129, 64),  MATRIX(64, 65),  MATRIX(1000, 10), MATRIX(70001, 3),
                                              MATRIX(70001, 8), MATRIX(17, 1000)};

static void prepare_col_sumsq(struct kernel_test *t)
{
    float *x = t->in[0];
    for (uint64_t k = 0; t->s.rows > 1000 && k < t->b[0].n; k++)
        x[k] = 0.3f; /* equal numbers: what additions lose does not cancel */
}

static void compare_col_sumsq(struct kernel_test *t)
{
    const float *start = t->in[1], *got = kernel_out(t, 1);
    double want[1000] = {0};
    ref_col_sumsq(t->in[0], t->s.rows, t->s.cols, want);
    for (uint32_t c = 0; c < t->s.cols; c++)
        near(got[c], start[c] + want[c], 5e-7, want[c] + fabs(start[c]));
}
CASES(col_sumsq, col_sumsq, columns, prepare_col_sumsq, compare_col_sumsq)

static void prepare_scales(struct kernel_test *t)
{
    static const float special[] = {0,       65504,   65519.9f, 65520,   1e6f,     -1e6f, 5e-8f, 1e-9f,
                                    -1e-20f, 3.4e38f, 6e-5f,    6.2e-5f, 2.98e-8f, -0.0f, 1,     -2.0009766f};
    float *v = t->in[0];
    for (uint32_t i = 0; i < t->s.n; i++)
        v[i] = i < sizeof special / sizeof *special ? special[i] : v[i] * powf(10, (float)(i % 12) - 8);
}

static void compare_scales(struct kernel_test *t)
{
    const float *v = t->in[0], *got = kernel_out(t, 0);
    for (uint32_t i = 0; i < t->s.n; i++)
        expect(t, i, got[i], ref_storable_scale(v[i], t->s.scale_type), 0);
}
static const struct kernel_shape scale_types[] = {{.n = 1000, .scale_type = STORED_F32},
                                                  {.n = 1000, .scale_type = STORED_F16},
                                                  {.n = 1001, .scale_type = STORED_BF16},
                                                  {.n = 1000, .scale_type = STORED_E8M0},
                                                  {.n = 3000, .scale_type = STORED_E4M3}};
CASES(round_scales, round_scales, scale_types, prepare_scales, compare_scales)

/* A matrix larger than one binding: h[n, n] beyond 128 MiB, walked in tiles. */
static void test_row_tiles(void **state)
{
    (void)state;
    enum { N = 5821 };
    uint64_t words = (uint64_t)N * N;
    if (words * 4 <= gpu_info(gpu)->max_range)
        skip();
    struct err e = {0};
    struct gpu_view h, r;
    OK(gpu_alloc(arena, words * 4, &h, &e) && gpu_alloc(arena, words * 4, &r, &e), e);
    float *ramp = malloc(N * 4);
    for (uint32_t i = 0; i < N; i++)
        ramp[i] = (float)i;
    gpu_fill(cmd, h, 0);
    struct buffer bd = buffer_make(N, ramp), be = buffer_make(N, NULL);
    tiled_copy_rect(cmd, &(struct copy_rect_args){bd.view, h, N, 1, 1, N}); /* column 0: the row's number */
    tiled_damp_diagonal(cmd, &(struct damp_diagonal_args){.h = h, .n = N, .ldh = N, .one = 7, .damp = 0.5f});
    tiled_flip(cmd, &(struct flip_args){.in = h, .out = r, .n = N, .ldi = N, .ldo = N});
    tiled_diagonal(cmd, &(struct diagonal_args){.h = r, .diag = be.view, .n = N, .ldh = N});
    float *diag = buffer_read(&be), corner[2];
    for (uint32_t i = 0; i < N; i++)
        assert_true(diag[i] == 7);
    for (uint32_t i = 0; i < N - 1; i += 97) {
        OK(gpu_download(cmd, gpu_slice(r, ((uint64_t)i * N + N - 2) * 4, 8), corner, 8, &e), e);
        assert_true(corner[1] == (float)(N - 1 - i));
    }
    free(diag);
    free(ramp);
    buffers_reset();
    gpu_arena_trim(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scale_search),
        cmocka_unit_test(test_scale_search_extremes),
        cmocka_unit_test(test_unpack_codes),
        cmocka_unit_test(test_quantize_dequant),
        cmocka_unit_test(test_gptq_segment),
        cmocka_unit_test(test_gptq_segment_uneven),
        cmocka_unit_test(test_unpack_codes_uneven),
        cmocka_unit_test(test_affine_search),
        cmocka_unit_test(test_project_scales),
        cmocka_unit_test(test_diagonal),
        cmocka_unit_test(test_damp_diagonal),
        cmocka_unit_test(test_zero_dead),
        cmocka_unit_test(test_flip),
        cmocka_unit_test(test_copy_rect),
        cmocka_unit_test(test_row_dot),
        cmocka_unit_test(test_residual),
        cmocka_unit_test(test_round_scales),
        cmocka_unit_test(test_row_tiles),
        cmocka_unit_test(test_col_sumsq),
    };
    return device_done(cmocka_run_group_tests(tests, device_setup, NULL));
}
