/* The kernels of the forward pass: every variant that the device runs, on odd shapes, against double
 * precision. Buffers lie between guards, rows are padded with NaN: what is read or written outside the
 * operands shows. */
#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "tests/kernel_cases.h"
#include "tests/ref/ref_delta.h"
#include "tests/ref/ref_forward.h"

#define MATRIX(r, c)                                                                                                   \
    {                                                                                                                  \
        .rows = r, .cols = c                                                                                           \
    }

/* ---- data movement and single elements ---- */

static const struct kernel_shape unpack16_shapes[] = {
    {.n = 1}, {.n = 2, .kind = 1}, {.n = 7}, {.n = 8, .kind = 1}, {.n = 9}, {.n = 1001}, {.n = 1000, .kind = 1}};

static void compare_unpack16(struct kernel_test *t)
{
    const uint16_t *x = t->in[0];
    const float *got = kernel_out(t, 1);
    for (uint32_t i = 0; i < t->s.n; i++)
        expect(t, i, got[i], t->s.kind == HALVES_F16 ? f16_to_f32(x[i]) : bf16_to_f32(x[i]), 0);
}
CASES(unpack16, unpack16, unpack16_shapes, NULL, compare_unpack16)

static const struct kernel_shape transpose_shapes[] = {
    {.rows = 1, .cols = 1},
    {.rows = 1, .cols = 7, .ldd = 3},
    {.rows = 5, .cols = 1, .lds = 2},
    {.rows = 33, .cols = 31, .lds = 40},
    {.rows = 64, .cols = 172},
    {.rows = 100, .cols = 3, .ldd = 101},
    {.rows = 36, .cols = 68, .ldd = 40},
};

static void compare_transpose(struct kernel_test *t)
{
    const float *x = t->in[0], *y = kernel_out(t, 1);
    for (uint32_t r = 0; r < t->s.rows; r++)
        for (uint32_t c = 0; c < t->s.cols; c++)
            expect(t, (uint64_t)c * t->s.ldd + r, y[(size_t)c * t->s.ldd + r], x[(size_t)r * t->s.lds + c], 0);
}
CASES(transpose, transpose, transpose_shapes, NULL, compare_transpose)

static const struct kernel_shape element_shapes[] = {{.n = 1}, {.n = 3}, {.n = 64}, {.n = 172}, {.n = 1001}};
static const struct kernel_shape matrix_shapes[] = {MATRIX(1, 1), MATRIX(3, 5), MATRIX(7, 172), MATRIX(33, 64)};

static void compare_add(struct kernel_test *t)
{
    const float *y = t->in[0], *x = t->in[1], *got = kernel_out(t, 0);
    for (uint32_t i = 0; i < t->s.n; i++)
        expect(t, i, got[i], y[i] + x[i], 0);
}
CASES(add, add, element_shapes, NULL, compare_add)

static void compare_subtract(struct kernel_test *t)
{
    const float *a = t->in[0], *b = t->in[1], *got = kernel_out(t, 2);
    for (uint32_t i = 0; i < t->s.n; i++)
        expect(t, i, got[i], a[i] - b[i], 0);
    IN_PLACE(t, {2, 0});
    IN_PLACE(t, {2, 1});
}
CASES(subtract, subtract, element_shapes, NULL, compare_subtract)

static void compare_add_bias(struct kernel_test *t)
{
    const float *x = t->in[0], *b = t->in[1], *got = kernel_out(t, 2);
    for (uint32_t i = 0; i < t->s.rows * t->s.cols; i++)
        expect(t, i, got[i], (double)x[i] + b[i % t->s.cols], FLT_EPSILON * 8);
    IN_PLACE(t, {2, 0});
}
CASES(add_bias, add_bias, matrix_shapes, NULL, compare_add_bias)

/* Rows of a part of a matrix that begins at row0: each of another row, none twice. */
static const struct kernel_shape some_rows[] = {{.rows = 1, .cols = 1, .src_rows = 1},
                                                {.rows = 3, .cols = 5, .src_rows = 7, .at = 2, .row0 = 100},
                                                {.rows = 7, .cols = 172, .src_rows = 7, .row0 = 5},
                                                {.rows = 33, .cols = 64, .src_rows = 90, .at = 61}};

/* 11 has no factor in common with any number of source rows here. */
static void permute(struct kernel_test *t)
{
    uint32_t *index = t->in[1];
    for (uint32_t i = 0; i < t->s.at + t->s.rows; i++)
        index[i] = t->s.row0 + (i * 11 + 3) % t->s.src_rows;
    for (uint32_t i = t->s.at; i < t->s.at + t->s.rows; i++)
        for (uint32_t j = t->s.at; j < i; j++)
            assert_int_not_equal(index[i], index[j]);
}

static void compare_gather(struct kernel_test *t)
{
    const float *src = t->in[0], *got = kernel_out(t, 2);
    const uint32_t *index = t->in[1];
    for (uint32_t i = 0; i < t->s.rows * t->s.cols; i++) {
        uint32_t from = index[t->s.at + i / t->s.cols] - t->s.row0;
        expect(t, i, got[i], src[from * t->s.cols + i % t->s.cols], 0);
    }
}
CASES(gather_rows, gather_rows, some_rows, permute, compare_gather)

static void compare_scatter(struct kernel_test *t)
{
    const float *x = t->in[0], *weight = t->in[2], *y = t->in[3], *got = kernel_out(t, 3);
    const uint32_t *index = t->in[1];
    float *want = malloc((size_t)t->s.src_rows * t->s.cols * sizeof *want);
    assert_non_null(want);
    memcpy(want, y, (size_t)t->s.src_rows * t->s.cols * sizeof *want);
    for (uint32_t i = 0; i < t->s.rows * t->s.cols; i++) {
        uint32_t row = t->s.at + i / t->s.cols;
        volatile float product = weight[row] * x[i]; /* rounded, as the sum is */
        want[(index[row] - t->s.row0) * t->s.cols + i % t->s.cols] += product;
    }
    for (uint32_t i = 0; i < t->s.src_rows * t->s.cols; i++)
        expect(t, i, got[i], want[i], 0);
    free(want);
}
CASES(scatter_rows, scatter_rows, some_rows, permute, compare_scatter)

static void compare_add_gated(struct kernel_test *t)
{
    const float *x = t->in[0], *z = t->in[1], *old = t->in[2], *got = kernel_out(t, 3);
    for (uint32_t i = 0; i < t->s.rows * t->s.cols; i++) {
        double product = x[i] / (1 + exp(-(double)z[i / t->s.cols]));
        expect(t, i, got[i], old[i] + product, 16 * FLT_EPSILON * (fabs(product) + fabs((double)old[i])));
    }
    IN_PLACE(t, {3, 2});
}
CASES(add_gated, add_gated, matrix_shapes, NULL, compare_add_gated)

static void compare_scale_rows(struct kernel_test *t)
{
    const float *x = t->in[0], *w = t->in[1], *got = kernel_out(t, 2);
    for (uint32_t i = 0; i < t->s.rows * t->s.cols; i++)
        expect(t, i, got[i], x[i] * w[i / t->s.cols], 0);
    IN_PLACE(t, {2, 0});
}
CASES(scale_rows, scale_rows, matrix_shapes, NULL, compare_scale_rows)

static void compare_swiglu(struct kernel_test *t)
{
    const float *gate = t->in[0], *up = t->in[1], *got = kernel_out(t, 2);
    for (uint32_t i = 0; i < t->s.n; i++) {
        double want = ref_swiglu(gate[i], up[i]);
        expect(t, i, got[i], want, fabs(want) * (16 + 2 * fabs(gate[i])) * FLT_EPSILON + 1e-12);
    }
    IN_PLACE(t, {2, 0});
    IN_PLACE(t, {2, 1});
}
CASES(swiglu_fwd, swiglu_fwd, element_shapes, NULL, compare_swiglu)

/* The exponent is off by its own size in f32. */
static double geglu_error(float gate)
{
    return (16 + 8 * fabs(gate) * (1 + 0.05 * gate * gate)) * FLT_EPSILON;
}

static void compare_geglu(struct kernel_test *t)
{
    const float *gate = t->in[0], *up = t->in[1], *got = kernel_out(t, 2);
    for (uint32_t i = 0; i < t->s.n; i++) {
        double want = ref_geglu(gate[i], up[i]);
        expect(t, i, got[i], want, fabs(want) * geglu_error(gate[i]) + 1e-12);
    }
    IN_PLACE(t, {2, 0});
    IN_PLACE(t, {2, 1});
}
CASES(geglu_fwd, geglu_fwd, element_shapes, NULL, compare_geglu)

static void compare_clamped(struct kernel_test *t)
{
    const float *gate = t->in[0], *up = t->in[1], *got = kernel_out(t, 2);
    for (uint32_t i = 0; i < t->s.n; i++) {
        double want = ref_clamped(gate[i], up[i]), size = ref_clamped(gate[i], fabs(up[i])); /* up + 1 may cancel */
        expect(t, i, got[i], want, fabs(size) * (16 + 4 * fabs(gate[i])) * FLT_EPSILON + 1e-12);
    }
    IN_PLACE(t, {2, 0});
    IN_PLACE(t, {2, 1});
}
CASES(clamped_fwd, clamped_fwd, element_shapes, kernel_at_limits, compare_clamped)

#define SINKS(r, h, d)                                                                                                 \
    {                                                                                                                  \
        .rows = r, .heads = h, .dim = d                                                                                \
    }
static const struct kernel_shape sink_shapes[] = {SINKS(1, 1, 2),  SINKS(5, 3, 8),    SINKS(33, 4, 64),
                                                  SINKS(7, 1, 30), SINKS(300, 2, 14), SINKS(65, 5, 128)};

/* Sinks far below and far above all scores: nothing changes, nothing is left. */
static void prepare_sinks(struct kernel_test *t)
{
    float *lse = t->in[1];
    for (uint32_t i = 0; i < t->s.rows * t->s.heads; i++)
        lse[i] = i % 11 == 2 ? -300 : i % 11 == 5 ? 300 : lse[i];
}

static void compare_sinks(struct kernel_test *t)
{
    const struct kernel_shape *s = &t->s;
    const float *x = t->in[0], *lse = t->in[1], *sinks = t->in[2], *got = kernel_out(t, 0), *sum = kernel_out(t, 3);
    for (uint32_t i = 0; i < s->rows * s->heads; i++) {
        double a = lse[i], b = sinks[i % s->heads], top = fmax(a, b), all = top + log(exp(a - top) + exp(b - top));
        expect(t, i, sum[i], all, 4 * FLT_EPSILON * (fabs(top) + 1));
        for (uint32_t d = 0; d < s->dim; d++) {
            double want = x[(size_t)i * s->dim + d] * exp(a - all);
            expect(t, (uint64_t)i * s->dim + d, got[(size_t)i * s->dim + d], want,
                   fabs(want) * FLT_EPSILON * (8 + 4 * (fabs(a) + fabs(b))) + 1e-30);
        }
    }
}
CASES(attn_sinks, attn_sinks, sink_shapes, prepare_sinks, compare_sinks)

#define ROPE(r, h, d, c)                                                                                               \
    {.rows = r, .heads = h, .dim = d, .ctx = c},                                                                       \
    {                                                                                                                  \
        .rows = r, .heads = h, .dim = d, .ctx = c, .turn = -1                                                          \
    }
static const struct kernel_shape rope_shapes[] = {ROPE(1, 1, 2, 1), ROPE(5, 3, 8, 5), ROPE(12, 2, 64, 6),
                                                  ROPE(7, 1, 30, 7), ROPE(3, 2, 256, 2)};

static void compare_rope(struct kernel_test *t)
{
    const float *x = t->in[0], *got = kernel_out(t, 2);
    double *want = malloc(t->b[0].n * sizeof *want);
    assert_non_null(want);
    for (uint64_t i = 0; i < t->b[0].n; i++)
        want[i] = x[i];
    ref_rope(want, t->in[1], t->s.rows, t->s.heads, t->s.dim, t->s.ctx, t->s.turn);
    for (uint64_t i = 0; i < t->b[0].n; i++)
        expect(t, i, got[i], want[i], FLT_EPSILON * 10);
    free(want);
    IN_PLACE(t, {2, 0});
}
CASES(rope_fwd, rope_fwd, rope_shapes, NULL, compare_rope)

#define ROPE_PART(r, h, d, t, a, c)                                                                                    \
    {.rows = r, .heads = h, .dim = d, .turned = t, .adjacent = a, .ctx = c},                                           \
    {                                                                                                                  \
        .rows = r, .heads = h, .dim = d, .turned = t, .adjacent = a, .ctx = c, .turn = -1                              \
    }
static const struct kernel_shape rope_part_shapes[] = {ROPE_PART(1, 1, 2, 2, 1, 1), ROPE_PART(5, 3, 8, 4, 0, 5),
                                                       ROPE_PART(12, 2, 64, 48, 1, 6), ROPE_PART(7, 1, 30, 22, 0, 7),
                                                       ROPE_PART(3, 2, 128, 96, 0, 2)};

static void compare_rope_part(struct kernel_test *t)
{
    const float *x = t->in[0], *got = kernel_out(t, 0);
    double *want = malloc(t->b[0].n * sizeof *want);
    assert_non_null(want);
    for (uint64_t i = 0; i < t->b[0].n; i++)
        want[i] = x[i];
    ref_rope_part(want, t->in[1], t->s.rows, t->s.heads, t->s.dim, t->s.turned, t->s.adjacent, t->s.ctx, t->s.turn);
    for (uint64_t i = 0; i < t->b[0].n; i++)
        expect(t, i, got[i], want[i], FLT_EPSILON * 10);
    free(want);
}
CASES(rope_part, rope_part, rope_part_shapes, NULL, compare_rope_part)

#define MLA(r, h, n, t, v, c)                                                                                          \
    {                                                                                                                  \
        .rows = r, .heads = h, .nope = n, .turned = t, .values = v, .ctx = c                                           \
    }
static const struct kernel_shape mla_shapes[] = {
    MLA(1, 1, 2, 2, 1, 1), MLA(6, 3, 4, 2, 5, 3),  MLA(5, 2, 32, 16, 32, 5),  MLA(3, 5, 6, 10, 16, 2),
    MLA(7, 1, 0, 8, 3, 7), MLA(4, 3, 10, 6, 9, 2), MLA(9, 7, 128, 64, 128, 9)};

static void compare_mla(struct kernel_test *t)
{
    const struct kernel_shape *s = &t->s;
    const float *q = t->in[3];
    const uint64_t n = t->b[3].n;
    double *want[3];
    for (int i = 0; i < 3; i++) {
        want[i] = malloc(n * sizeof *want[i]);
        assert_non_null(want[i]);
    }
    for (uint64_t i = 0; i < n; i++)
        want[0][i] = q[i];
    ref_mla_heads(t->in[0], t->in[1], t->in[2], s->rows, s->heads, s->nope, s->turned, s->values, s->ctx, want[0],
                  want[1], want[2]);
    for (unsigned b = 0; b < 3; b++) {
        const float *got = kernel_out(t, 3 + b);
        for (uint64_t i = 0; i < n; i++) {
            bool turned = b < 2 && i % (s->nope + s->turned) >= s->nope;
            expect(t, i, got[i], want[b][i], turned ? FLT_EPSILON * 10 : 0);
        }
        free(want[b]);
    }
}
CASES(mla_heads, mla_heads, mla_shapes, NULL, compare_mla)

#define JOIN(h, n, v, r)                                                                                               \
    {                                                                                                                  \
        .heads = h, .nope = n, .values = v, .rank = r                                                                  \
    }
static const struct kernel_shape join_shapes[] = {JOIN(1, 1, 1, 1), JOIN(3, 4, 5, 7), JOIN(2, 32, 48, 64),
                                                  JOIN(5, 6, 16, 33), JOIN(7, 128, 128, 512)};

static void compare_join(struct kernel_test *t)
{
    const struct kernel_shape *s = &t->s;
    const float *got = kernel_out(t, 2);
    double *want = malloc(t->b[2].n * sizeof *want);
    assert_non_null(want);
    ref_mla_join(t->in[0], t->in[1], s->heads, s->nope, s->values, s->rank, want);
    for (uint64_t i = 0; i < t->b[2].n; i++)
        expect(t, i, got[i], want[i], 0);
    free(want);
}
CASES(mla_join, mla_join, join_shapes, NULL, compare_join)

#define QUERIES(r, h, n, d, s)                                                                                         \
    {                                                                                                                  \
        .rows = r, .heads = h, .nope = n, .dim = d, .stride = s                                                        \
    }
static const struct kernel_shape queries_shapes[] = {QUERIES(1, 1, 1, 2, 1), QUERIES(6, 3, 4, 6, 64),
                                                     QUERIES(5, 2, 32, 48, 0), QUERIES(3, 5, 7, 17, 64),
                                                     QUERIES(9, 7, 128, 192, 1152)};

static void compare_queries(struct kernel_test *t)
{
    const struct kernel_shape *s = &t->s;
    const float *got = kernel_out(t, 1), *q = t->in[0];
    for (uint32_t h = 0; h < s->heads; h++)
        for (uint32_t r = 0; r < s->rows; r++)
            for (uint32_t i = 0; i < s->nope; i++)
                expect(t, h, got[h * s->stride + r * s->nope + i], q[(r * s->heads + h) * s->dim + i], 0);
}
CASES(mla_queries, mla_queries, queries_shapes, NULL, compare_queries)

/* ---- the gated delta rule ---- */

/* heads, keys: of v, of q and k. */
#define DELTA(c, h, k, d, v, g)                                                                                        \
    {                                                                                                                  \
        .windows = 2, .ctx = c, .heads = h, .kv_heads = k, .dim = d, .values = v, .grouped = g                         \
    }
static const struct kernel_shape conv_shapes[] = {
    {.rows = 1, .heads = 1, .dim = 1, .values = 1},
    {.rows = 10, .ctx = 5, .heads = 3, .dim = 5, .values = 7, .taps = 4},
    {.rows = 9, .ctx = 3, .heads = 2, .dim = 6, .values = 10, .taps = 4, .grouped = 1},
    {.rows = 7, .heads = 2, .dim = 16, .values = 33, .taps = 2, .grouped = 1},
    {.rows = 6, .ctx = 2, .heads = 1, .dim = 4, .values = 4, .taps = 7},
};

static void compare_conv(struct kernel_test *t)
{
    const struct kernel_shape *s = &t->s;
    const struct ref_delta d = {
        .heads = s->heads, .keys = s->heads, .dim = s->dim, .values = s->values, .grouped = s->grouped};
    const float *x = t->in[0], *w = t->in[1], *got = kernel_out(t, 2);
    double *wide = malloc(t->b[0].n * sizeof *wide);
    assert_non_null(wide);
    for (uint64_t i = 0; i < t->b[0].n; i++)
        wide[i] = x[i];
    for (uint32_t r = 0; r < s->rows; r++)
        for (uint32_t c = 0; c < s->cols; c++) {
            const double *window = wide + (size_t)(r / s->ctx * s->ctx) * s->lds;
            double want =
                ref_conv_silu(window + ref_delta_channel(&d, c), s->lds, w + (size_t)c * s->taps, s->taps, r % s->ctx);
            expect(t, (uint64_t)r * s->cols + c, got[(size_t)r * s->cols + c], want, FLT_EPSILON * 64);
        }
    free(wide);
}
CASES(conv_silu, conv_silu, conv_shapes, NULL, compare_conv)

static const struct kernel_shape l2norm_shapes[] = {{.rows = 1, .heads = 1, .dim = 1},
                                                    {.rows = 3, .heads = 2, .dim = 5, .cols = 13},
                                                    {.rows = 5, .heads = 3, .dim = 128, .cols = 500},
                                                    {.rows = 2, .heads = 1, .dim = 131}};

static void compare_l2norm(struct kernel_test *t)
{
    const float *x = t->in[0], *got = kernel_out(t, 0);
    double head[131];
    for (uint32_t i = 0; i < t->s.rows * t->s.cols; i++) {
        uint32_t c = i % t->s.cols, in = c % t->s.dim;
        bool normed = c < t->s.heads * t->s.dim;
        for (uint32_t k = 0; normed && in == 0 && k < t->s.dim; k++)
            head[k] = x[i + k];
        if (normed && in == 0)
            ref_l2norm(head, t->s.dim, t->s.eps);
        expect(t, i, got[i], normed ? head[in] : x[i], normed ? FLT_EPSILON * 16 : 0);
    }
}
CASES(l2norm, l2norm, l2norm_shapes, NULL, compare_l2norm)

static const struct kernel_shape delta_shapes[] = {
    DELTA(1, 1, 1, 1, 1, 0),
    DELTA(7, 3, 3, 5, 7, 0),
    DELTA(9, 4, 2, 8, 17, 1),
    DELTA(33, 6, 2, 20, 16, 1),
    DELTA(5, 2, 1, 128, 40, 0),
    DELTA(6, 2, 2, 131, 15, 0),
    DELTA(3, 4, 1, 256, 33, 1),
    DELTA(9, 6, 3, 8, 17, 0),
    {.windows = 2, .ctx = 9, .heads = 6, .kv_heads = 3, .dim = 8, .values = 17, .run = 1},
    {.windows = 1, .ctx = 5, .heads = 8, .kv_heads = 2, .dim = 128, .values = 12, .run = 1}};

/* Keys as long as in a model: longer ones make the state grow with every step. Heads forget. */
static void delta_lengths(struct kernel_test *t)
{
    const struct kernel_shape *s = &t->s;
    float *qkv = t->in[0], *rate = t->in[3];
    uint32_t width = 2 * s->kv_heads * s->dim + s->heads * s->values;
    for (uint32_t r = 0; r < s->windows * s->ctx; r++)
        for (uint32_t h = 0; h < 2 * s->kv_heads; h++) {
            float *x = qkv + (size_t)r * width + h * s->dim;
            double sum = 1e-6;
            for (uint32_t i = 0; i < s->dim; i++)
                sum += x[i] * x[i];
            for (uint32_t i = 0; i < s->dim; i++)
                x[i] /= (float)sqrt(sum);
        }
    for (uint32_t h = 0; h < s->heads; h++)
        rate[h] = -fabsf(rate[h]);
}

static void compare_delta(struct kernel_test *t)
{
    const struct kernel_shape *s = &t->s;
    const struct ref_delta d = {s->heads, s->kv_heads, s->dim, s->values, s->ctx, s->grouped};
    const float *rate = t->in[3], *bias = t->in[4], *got = kernel_out(t, 5);
    const uint32_t width = 2 * s->kv_heads * s->dim + s->heads * s->values, out = s->heads * s->values;
    double *wide[3], *want = malloc(t->b[5].n * sizeof *want), *state = malloc(sizeof *state * s->dim * s->values);
    assert_true(want && state);
    for (int b = 0; b < 3; b++) {
        wide[b] = malloc(t->b[b].n * sizeof *wide[b]);
        assert_non_null(wide[b]);
        for (uint64_t i = 0; i < t->b[b].n; i++)
            wide[b][i] = ((const float *)t->in[b])[i];
    }
    for (uint32_t w = 0; w < s->windows; w++)
        for (uint32_t h = 0; h < s->heads; h++) {
            uint32_t key = h / s->run % s->kv_heads;
            size_t row = (size_t)w * s->ctx;
            const double *q = wide[0] + row * width + key * s->dim;
            ref_delta_rule(
                &d, q, q + s->kv_heads * s->dim, wide[0] + row * width + 2 * s->kv_heads * s->dim + h * s->values,
                width, wide[1] + row * s->ldb + ref_delta_beta(&d, h), wide[2] + row * s->ldb + ref_delta_alpha(&d, h),
                s->ldb, rate[h], bias[h], state, want + row * out + h * s->values, out);
        }
    /* A sum over dim numbers in each step, whose errors later steps keep. */
    double largest = 0;
    for (uint64_t i = 0; i < t->b[5].n; i++)
        largest = fmax(largest, fabs(want[i]));
    for (uint64_t i = 0; i < t->b[5].n; i++)
        expect(t, i, got[i], want[i], FLT_EPSILON * 8 * (1 + log2(s->ctx)) * largest);
    for (int b = 0; b < 3; b++)
        free(wide[b]);
    free(want);
    free(state);
}
CASES(delta_rule, delta_rule, delta_shapes, delta_lengths, compare_delta)

static const struct kernel_shape norm_gated_shapes[] = {
    {.rows = 1, .heads = 1, .kv_heads = 1, .dim = 1, .values = 1},
    {.rows = 3, .heads = 3, .kv_heads = 1, .dim = 4, .values = 5},
    {.rows = 4, .heads = 6, .kv_heads = 2, .dim = 7, .values = 9, .grouped = 1},
    {.rows = 2, .heads = 4, .kv_heads = 4, .dim = 16, .values = 131, .grouped = 1},
};

static void compare_norm_gated(struct kernel_test *t)
{
    const struct kernel_shape *s = &t->s;
    const struct ref_delta d = {
        .heads = s->heads, .keys = s->kv_heads, .dim = s->dim, .values = s->values, .grouped = s->grouped};
    const float *x = t->in[0], *w = t->in[1], *z = t->in[2], *got = kernel_out(t, 3);
    double head[131];
    for (uint32_t i = 0; i < s->rows * s->heads * s->values; i++) {
        uint32_t row = i / (s->heads * s->values), c = i % (s->heads * s->values);
        if (i % s->values == 0)
            ref_rmsnorm(x + i, w, s->values, s->eps, head);
        double g = ref_silu(z[(size_t)row * s->lds + ref_delta_gate(&d, c)]), want = head[i % s->values] * g;
        expect(t, i, got[i], want, FLT_EPSILON * 32 * (fabs(want) + 1e-3));
    }
    IN_PLACE(t, {3, 0});
}
CASES(norm_gated, norm_gated, norm_gated_shapes, NULL, compare_norm_gated)

static const struct kernel_shape gate_shapes[] = {
    {.rows = 1, .dim = 1}, {.rows = 3, .dim = 5}, {.rows = 9, .dim = 172}};

static void compare_gate_heads(struct kernel_test *t)
{
    const float *x = t->in[0], *g = t->in[1], *got = kernel_out(t, 2);
    for (uint32_t i = 0; i < t->s.rows * t->s.dim; i++) {
        double gate = g[(i / t->s.dim * 2 + 1) * t->s.dim + i % t->s.dim];
        expect(t, i, got[i], x[i] * ref_sigmoid(gate), FLT_EPSILON * 16);
    }
    IN_PLACE(t, {2, 0});
}
CASES(gate_heads, gate_heads, gate_shapes, NULL, compare_gate_heads)

/* ---- the matrix product ---- */

/* How A and B lie: NT [m, k], [n, k]; NN [m, k], [k, n]; TN [k, m], [k, n]. */
#define PRODUCT(m_, n_, k_, lda_, ldb_, pad_c, alpha_, beta_)                                                          \
    {                                                                                                                  \
        .m = m_, .n = n_, .k = k_, .lda = lda_, .ldb = ldb_, .ldc = (n_) + (pad_c), .alpha = alpha_, .beta = beta_     \
    }
#define NT(m, n, k, pad_a, pad_b, pad_c, alpha, beta) PRODUCT(m, n, k, (k) + (pad_a), (k) + (pad_b), pad_c, alpha, beta)
#define NN(m, n, k, pad_a, pad_b, pad_c, alpha, beta) PRODUCT(m, n, k, (k) + (pad_a), (n) + (pad_b), pad_c, alpha, beta)
#define TN(m, n, k, pad_a, pad_b, pad_c, alpha, beta) PRODUCT(m, n, k, (m) + (pad_a), (n) + (pad_b), pad_c, alpha, beta)
#define SHAPES(S)                                                                                                      \
    {                                                                                                                  \
        S(1, 1, 1, 0, 0, 0, 1, 0), S(1, 1, 4, 0, 0, 0, 1, 0), S(3, 5, 7, 0, 0, 0, 2, 1), S(5, 3, 172, 0, 0, 0, 1, 0),  \
            S(16, 32, 16, 0, 0, 0, 1, 0), S(64, 64, 64, 0, 0, 0, 1, -1), S(65, 33, 20, 0, 0, 3, 1, 0),                 \
            S(17, 129, 61, 3, 3, 0, 0.5f, 2), S(130, 70, 36, 4, 12, 1, 1, 1), S(33, 66, 100, 1, 0, 0, 1, 0),           \
            S(31, 40, 97, 0, 7, 0, 1, 0.5f), S(1, 300, 64, 0, 0, 0, 1, 0), S(300, 1, 64, 0, 0, 0, 1, 0),               \
            S(64, 64, 15, 1, 1, 0, 1, 0), S(9, 9, 3, 1, 1, 7, -1, 1), S(200, 180, 300, 4, 0, 4, 1, 1),                 \
            S(126, 130, 65, 2, 2, 0, 1, 0), S(132, 268, 48, 0, 4, 0, 1, 1),                                            \
    }
static const struct kernel_shape nt_shapes[] = SHAPES(NT), nn_shapes[] = SHAPES(NN), tn_shapes[] = SHAPES(TN);

static void prepare_gemm(struct kernel_test *t)
{
    float *c = t->in[3];
    for (uint64_t i = 0; t->s.beta == 0 && i < t->b[3].n; i++) /* then C is not read */
        c[i] = NAN;
}

/* Whether the variant in use begins with this. */
static bool variant_is(const struct kernel_test *t, const char *start)
{
    const char *variant = gpu_kernel_variant(gpu, t->kernel, NULL, &(struct err){0});
    assert_non_null(variant);
    return strncmp(variant, start, strlen(start)) == 0;
}

/* Rows of an operand (as [rows, k]) of quite different sizes. */
static void scale_rows_of(struct kernel_test *t, unsigned buffer, uint32_t ld, bool transposed)
{
    static const float sizes[] = {1, 131072, 1e-9f, 1, 1e5f, 0, 1};
    float *x = t->in[buffer];
    for (uint64_t i = 0; i < t->b[buffer].n; i++)
        x[i] *= sizes[(transposed ? i % ld : i / ld) % (sizeof sizes / sizeof sizes[0])];
}

/* Activations with outliers times gradients: neither fits f16 as it is. Variants with a scale for each row have them in rows and
 * columns, too. */
static void prepare_gemm_half(struct kernel_test *t)
{
    float *a = t->in[0], *b = t->in[1];
    bool ta, tb;
    prepare_gemm(t);
    for (uint64_t i = 0; i < t->b[0].n; i++)
        a[i] *= i % 37 == 5 ? 1e5f : 1;
    for (uint64_t i = 0; i < t->b[1].n; i++)
        b[i] *= 1e-9f;
    assert_true(gpu_gemm_kernel(t->kernel, &ta, &tb));
    if (variant_is(t, "packed") || variant_is(t, "coopmat_large")) {
        scale_rows_of(t, 0, t->s.lda, ta);
        scale_rows_of(t, 1, t->s.ldb, tb);
    }
}

/* An operand as [rows, k], dense. */
static float *by_rows(const float *x, uint32_t rows, uint32_t k, uint32_t ld, bool transposed)
{
    float *out = malloc((size_t)rows * k * sizeof *out);
    assert_non_null(out);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t i = 0; i < k; i++)
            out[(size_t)r * k + i] = transposed ? x[(size_t)i * ld + r] : x[(size_t)r * ld + i];
    return out;
}

/* `rounded`: of an operand, relative, before it is multiplied. */
static void compare_product(struct kernel_test *t, double rounded)
{
    const struct kernel_shape *s = &t->s;
    const float *got = kernel_out(t, 3);
    bool ta, tb;
    assert_true(gpu_gemm_kernel(t->kernel, &ta, &tb));
    float *a = by_rows(t->in[0], s->m, s->k, s->lda, ta), *b = by_rows(t->in[1], s->n, s->k, s->ldb, tb);
    double *want = malloc((size_t)s->m * s->n * sizeof *want), *mag = malloc((size_t)s->m * s->n * sizeof *mag);
    assert_true(want && mag);
    ref_gemm(s->m, s->n, s->k, a, s->k, b, s->k, t->in[3], s->ldc, s->alpha, s->beta, want, mag);
    for (size_t i = 0; i < (size_t)s->m * s->n; i++)
        expect(t, i, got[i / s->n * s->ldc + i % s->n], want[i],
               ((s->k + 4) * (FLT_EPSILON / 2) + 2 * rounded) * mag[i]);
    free(want);
    free(mag);
    free(a);
    free(b);
}

static void compare_gemm(struct kernel_test *t)
{
    compare_product(t, 0);
}
CASES(gemm, gemm, nt_shapes, prepare_gemm, compare_gemm)
CASES(gemm_nn, gemm_nn, nn_shapes, prepare_gemm, compare_gemm)
CASES(gemm_tn, gemm_tn, tn_shapes, prepare_gemm, compare_gemm)

/* Only the variants for matrix cores and packed products may round, to f16's 11 bits: half of their last one, and a half of that
 * again for what is scaled to the lower end of its range. Packed products are summed in f16, too, 16 at a time: where the first of
 * them is an outlier, each of 15 sums rounds by up to 2^-11 of it, by 2^-11 sqrt(15 / 3) in the mean, three times as much at the most. */
static void compare_gemm_half(struct kernel_test *t)
{
    compare_product(t, variant_is(t, "coopmat") ? 0x1.001p-11 : variant_is(t, "packed") ? 4 * 0x1.001p-11 : 0);
}
CASES(gemm_half, gemm_half, nt_shapes, prepare_gemm_half, compare_gemm_half)
CASES(gemm_half_nn, gemm_half_nn, nn_shapes, prepare_gemm_half, compare_gemm_half)
CASES(gemm_half_tn, gemm_half_tn, tn_shapes, prepare_gemm_half, compare_gemm_half)

/* ---- rows ---- */

static const struct kernel_shape row_shapes[] = {MATRIX(1, 1),  MATRIX(3, 3),    MATRIX(9, 5),
                                                 MATRIX(40, 8), MATRIX(17, 172), MATRIX(2, 1000)};

static void compare_rmsnorm(struct kernel_test *t)
{
    const float *x = t->in[0], *w = t->in[1], *got = kernel_out(t, 2);
    uint32_t cols = t->s.cols;
    double want[1000];
    for (uint64_t i = 0; i < t->b[0].n; i++) {
        if (i % cols == 0)
            ref_rmsnorm(x + i, w, cols, t->s.eps, want);
        expect(t, i, got[i], want[i % cols], fabs(want[i % cols]) * (cols + 16) * FLT_EPSILON / 2);
    }
    IN_PLACE(t, {2, 0});
}
CASES(rmsnorm_fwd, rmsnorm_fwd, row_shapes, NULL, compare_rmsnorm)

static const struct kernel_shape logit_shapes[] = {MATRIX(1, 1), MATRIX(9, 3),   MATRIX(17, 5),
                                                   MATRIX(3, 8), MATRIX(2, 172), MATRIX(5, 1001)};

/* Absolute: a sum of cols terms at most 1, each exp good to 3 + 2|x| ulp (Vulkan's bound), and a logarithm. */
static double logit_tolerance(uint32_t cols, double range)
{
    return (cols + 4 * range + 32) * FLT_EPSILON;
}

static void prepare_nll(struct kernel_test *t)
{
    float *x = t->in[0];
    for (uint64_t i = 0; i < t->b[0].n; i++)
        x[i] += 100; /* only differences count */
}

static void compare_nll(struct kernel_test *t)
{
    const float *x = t->in[0], *got = kernel_out(t, 2);
    const uint32_t *target = t->in[1], cols = t->s.cols;
    for (uint32_t r = 0; r < t->s.rows; r++)
        expect(t, r, got[r], ref_nll(x + (size_t)r * cols, cols, target[r]), logit_tolerance(cols, 60));
}
CASES(nll, nll, logit_shapes, prepare_nll, compare_nll)

static void prepare_kl(struct kernel_test *t)
{
    float *p = t->in[0], *q = t->in[1];
    for (uint64_t i = 0; i < t->b[0].n; i++) {
        p[i] = roundf(p[i] * 4) / 4; /* ties */
        q[i] = q[i] / 3 + p[i];
    }
    /* row 0 is equal: 0, and the first of equals on both sides */
    memcpy(q, p, t->s.cols * sizeof *q);
}

static void compare_kl(struct kernel_test *t)
{
    const float *got = kernel_out(t, 2), *agree = kernel_out(t, 3);
    uint32_t cols = t->s.cols;
    for (uint32_t r = 0; r < t->s.rows; r++) {
        const float *p = (const float *)t->in[0] + (size_t)r * cols, *q = (const float *)t->in[1] + (size_t)r * cols;
        expect(t, r, got[r], ref_kl(p, q, cols), 20 * logit_tolerance(cols, 30));
        expect(t, r, agree[r], ref_argmax(p, cols) == ref_argmax(q, cols), 0);
    }
}
CASES(kl, kl, logit_shapes, prepare_kl, compare_kl)

/* ---- attention ---- */

#define ATTN(w, c, h, kv, d, slide, scale_)                                                                            \
    {                                                                                                                  \
        .windows = w, .ctx = c, .heads = h, .kv_heads = kv, .dim = d, .sliding = slide, .scale = scale_                \
    }
static const struct kernel_shape attn_shapes[] = {
    ATTN(1, 1, 1, 1, 2, 0, 0.7f),     ATTN(2, 5, 2, 1, 8, 0, 0.35f),     ATTN(1, 33, 4, 2, 64, 0, 0.125f),
    ATTN(1, 70, 2, 2, 128, 7, 0.09f), ATTN(1, 40, 3, 1, 256, 0, 0.06f),  ATTN(2, 67, 2, 1, 30, 16, 0.2f),
    ATTN(1, 100, 1, 1, 96, 1, 0.1f),  ATTN(1, 65, 2, 1, 250, 64, 0.06f), ATTN(3, 64, 1, 1, 10, 33, 0.3f),
    ATTN(1, 1, 1, 1, 4, 0, 0.7f),     ATTN(1, 33, 4, 2, 16, 0, 0.25f),   ATTN(1, 70, 2, 2, 12, 7, 0.3f),
    ATTN(3, 64, 1, 1, 8, 33, 0.35f),  ATTN(1, 130, 4, 2, 64, 0, 0.12f),  ATTN(2, 97, 2, 1, 128, 40, 0.09f),
};

/* The largest sum of |scale q k| of a query and its keys: what rounding an operand does to a score is in proportion. */
static double score_size(const struct ref_attn *p, const float *q, const float *k, uint32_t row, uint32_t head)
{
    uint32_t window = row / p->ctx, kv = head / (p->heads / p->kv_heads);
    const float *qr = q + ((size_t)row * p->heads + head) * p->dim;
    double most = 0;
    for (uint32_t j = 0; j <= row % p->ctx; j++) {
        const float *kr = k + (((size_t)window * p->ctx + j) * p->kv_heads + kv) * p->dim;
        double sum = 0;
        for (uint32_t d = 0; d < p->dim; d++)
            sum += fabs(p->scale * qr[d] * kr[d]);
        most = fmax(most, sum);
    }
    return most;
}

static void compare_attn(struct kernel_test *t)
{
    const struct kernel_shape *s = &t->s;
    const struct ref_attn p = {s->windows, s->ctx, s->heads, s->kv_heads, s->dim, s->sliding, s->scale, s->cap};
    const float *out = kernel_out(t, 3), *lse = kernel_out(t, 4);
    bool rounded = variant_in_use && strcmp(variant_in_use, "coopmat") == 0;
    for (size_t i = 0; i < t->b[4].n; i++) { /* row and head */
        double want[256], want_lse, mag;
        uint32_t row = (uint32_t)(i / s->heads), dim = s->dim;
        ref_attn_row(&p, t->in[0], t->in[1], t->in[2], row / s->ctx, row % s->ctx, (uint32_t)(i % s->heads), want,
                     &want_lse, &mag);
        /* On matrix cores q, k, v and the weights are rounded; a score's error moves all weights against each other. */
        const double u = 0x1.02p-11;
        double score = rounded ? 2 * u * score_size(&p, t->in[0], t->in[1], row, (uint32_t)(i % s->heads)) : 0;
        /* A score is a sum of dim products of about 2. */
        check(t->kernel, "log sum exp", i, lse[i], want_lse, (p.scale * 16 * dim + s->ctx + 32) * FLT_EPSILON + score);
        for (uint32_t d = 0; d < dim; d++)
            expect(t, i * dim + d, out[i * dim + d], want[d],
                   mag * ((4 * dim + s->ctx + 64) * FLT_EPSILON + (rounded ? 2 * score + 2 * u : 0)));
    }
}
CASES(attn_fwd, attn_fwd, attn_shapes, NULL, compare_attn)
CASES(attn_cap_fwd, attn_cap_fwd, attn_shapes, NULL, compare_attn)

#define STEP(w, at_, h, kv, d, slide, scale_, cap_)                                                                    \
    {                                                                                                                  \
        .windows = w, .at = at_, .heads = h, .kv_heads = kv, .dim = d, .sliding = slide, .scale = scale_, .cap = cap_  \
    }
static const struct kernel_shape step_shapes[] = {
    STEP(1, 0, 1, 1, 2, 0, 0.7f, 0),     STEP(3, 4, 2, 1, 8, 0, 0.35f, 0),     STEP(5, 32, 4, 2, 64, 0, 0.125f, 2),
    STEP(2, 69, 2, 2, 128, 7, 0.09f, 0), STEP(1, 39, 3, 1, 256, 0, 0.06f, 0),  STEP(2, 66, 2, 1, 30, 16, 0.2f, 0),
    STEP(1, 99, 1, 1, 96, 1, 0.1f, 0),   STEP(2, 511, 2, 1, 250, 0, 0.06f, 3), STEP(300, 17, 2, 1, 16, 5, 0.2f, 0),
};

/* The last position of windows of at + 1. */
static void compare_step(struct kernel_test *t)
{
    const struct kernel_shape *s = &t->s;
    const uint32_t ctx = s->at + 1, kv = s->kv_heads * s->dim, width = s->heads * s->dim;
    const struct ref_attn p = {s->windows, ctx, s->heads, s->kv_heads, s->dim, s->sliding, s->scale, s->cap};
    const float *q = t->in[0], *out = kernel_out(t, 3), *lse = kernel_out(t, 4);
    float *whole_q = calloc((size_t)s->windows * ctx * width, sizeof *whole_q), *by_window[2];
    assert_non_null(whole_q);
    for (uint32_t w = 0; w < s->windows; w++)
        memcpy(whole_q + ((size_t)w * ctx + s->at) * width, q + (size_t)w * width, width * sizeof *q);
    for (int i = 0; i < 2; i++) {
        const float *by_position = t->in[1 + i];
        by_window[i] = malloc((size_t)s->windows * ctx * kv * sizeof *by_window[i]);
        assert_non_null(by_window[i]);
        for (uint32_t w = 0; w < s->windows; w++)
            for (uint32_t j = 0; j < ctx; j++)
                memcpy(by_window[i] + ((size_t)w * ctx + j) * kv, by_position + ((size_t)j * s->windows + w) * kv,
                       kv * sizeof **by_window);
    }
    for (size_t i = 0; i < t->b[4].n; i++) { /* window and head */
        double want[256], want_lse, mag;
        uint32_t dim = s->dim;
        ref_attn_row(&p, whole_q, by_window[0], by_window[1], (uint32_t)(i / s->heads), s->at, (uint32_t)(i % s->heads),
                     want, &want_lse, &mag);
        check(t->kernel, "log sum exp", i, lse[i], want_lse, (p.scale * 16 * dim + ctx + 32) * FLT_EPSILON);
        for (uint32_t d = 0; d < dim; d++)
            expect(t, i * dim + d, out[i * dim + d], want[d], mag * ((4 * dim + ctx + 64) * FLT_EPSILON));
    }
    free(whole_q);
    free(by_window[0]);
    free(by_window[1]);
}
CASES(attn_step, attn_step, step_shapes, NULL, compare_step)

static void compare_softcap(struct kernel_test *t)
{
    const float *x = t->in[0], *got = kernel_out(t, 0);
    for (uint32_t i = 0; i < t->s.n; i++)
        expect(t, i, got[i], ref_softcap(x[i], t->s.cap), 8 * FLT_EPSILON * (fabs(x[i]) + t->s.cap));
}
CASES(softcap, softcap, element_shapes, NULL, compare_softcap)

/* f16 holds no v of this size. */
static void prepare_attn_half(struct kernel_test *t)
{
    float *v = t->in[2];
    for (uint64_t i = 0; t->s.dim >= 64 && i < t->b[2].n; i++)
        v[i] *= i % 37 == 5 ? 1e5f : 1;
}
CASES(attn_fwd_half, attn_fwd_half, attn_shapes, prepare_attn_half, compare_attn)
CASES(attn_cap_fwd_half, attn_cap_fwd_half, attn_shapes, prepare_attn_half, compare_attn)

/* On a CPU device small heads have a variant of their own; `--variant` and gpu_kernel_force can leave it out. */
static void test_attn_choice(void **state)
{
    (void)state;
    struct err e = {0};
    const unsigned kernel = KERNEL_ID_attn_fwd;
    static const uint32_t small[] = {4, 8, 12, 16}, others[] = {2, 6, 10, 18, 20, 24, 64, 256};
    const char *general = gpu_kernel_variant(gpu, kernel, NULL, &e);
    bool cpu = gpu_kernel_force(gpu, kernel, "small", &e);
    assert_string_not_equal(general, "small");
    for (unsigned forced = 0; forced < 2; forced++) {
        for (size_t i = 0; i < sizeof small / sizeof *small; i++)
            assert_string_equal(gpu_kernel_variant(gpu, kernel, &(struct attn_fwd_args){.dim = small[i]}, &e),
                                cpu ? "small" : general);
        for (size_t i = 0; i < sizeof others / sizeof *others; i++)
            assert_string_equal(gpu_kernel_variant(gpu, kernel, &(struct attn_fwd_args){.dim = others[i]}, &e),
                                general);
        OK(gpu_kernel_force(gpu, kernel, NULL, &e), e);
    }
    OK(gpu_kernel_force(gpu, kernel, "base", &e), e);
    assert_string_equal(gpu_kernel_variant(gpu, kernel, &(struct attn_fwd_args){.dim = 16}, &e), "base");
    OK(gpu_kernel_force(gpu, kernel, NULL, &e), e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unpack16),
        cmocka_unit_test(test_transpose),
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_subtract),
        cmocka_unit_test(test_add_bias),
        cmocka_unit_test(test_scale_rows),
        cmocka_unit_test(test_gather_rows),
        cmocka_unit_test(test_scatter_rows),
        cmocka_unit_test(test_add_gated),
        cmocka_unit_test(test_swiglu_fwd),
        cmocka_unit_test(test_geglu_fwd),
        cmocka_unit_test(test_rope_fwd),
        cmocka_unit_test(test_rope_part),
        cmocka_unit_test(test_mla_heads),
        cmocka_unit_test(test_mla_join),
        cmocka_unit_test(test_mla_queries),
        cmocka_unit_test(test_conv_silu),
        cmocka_unit_test(test_l2norm),
        cmocka_unit_test(test_delta_rule),
        cmocka_unit_test(test_norm_gated),
        cmocka_unit_test(test_gate_heads),
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_gemm_nn),
        cmocka_unit_test(test_gemm_half),
        cmocka_unit_test(test_gemm_tn),
        cmocka_unit_test(test_gemm_half_nn),
        cmocka_unit_test(test_gemm_half_tn),
        cmocka_unit_test(test_rmsnorm_fwd),
        cmocka_unit_test(test_nll),
        cmocka_unit_test(test_kl),
        cmocka_unit_test(test_attn_fwd),
        cmocka_unit_test(test_attn_fwd_half),
        cmocka_unit_test(test_attn_cap_fwd_half),
        cmocka_unit_test(test_attn_choice),
        cmocka_unit_test(test_attn_cap_fwd),
        cmocka_unit_test(test_softcap),
        cmocka_unit_test(test_clamped_fwd),
        cmocka_unit_test(test_attn_sinks),
        cmocka_unit_test(test_attn_step),
    };
    const struct CMUnitTest no_push[] = {
        cmocka_unit_test(test_transpose),
        cmocka_unit_test(test_gemm_tn),
        cmocka_unit_test(test_gemm_half_nn),
        cmocka_unit_test(test_nll),
    };
    int failed = device_done(cmocka_run_group_tests_name("forward", tests, device_setup, NULL));
    return failed + device_done(cmocka_run_group_tests_name("forward without push descriptors", no_push,
                                                            device_setup_no_push, NULL));
}
