/* The kernels of the forward pass: every variant that the device runs, on odd shapes, against double
 * precision. Buffers lie between guards, rows are padded with NaN: what is read or written outside the
 * operands shows. */
#include <float.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "tests/kernel_buffers.h"
#include "tests/ref/ref_forward.h"

static uint64_t random_state = 1;

/* [rows, cols] normal numbers times `size`, rows of stride ld padded with NaN; as long as a view needs. */
static float *random_matrix(uint32_t rows, uint32_t cols, uint32_t ld, float size)
{
    size_t n = (size_t)(rows - 1) * ld + cols;
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = i % ld < cols ? size * test_normal(&random_state) : NAN;
    return x;
}

static struct gpu_grid tiles(unsigned kernel, uint32_t rows, uint32_t cols)
{
    uint32_t side = gpu_kernel_constant(gpu, kernel, 2, 0);
    assert_true(side > 0);
    return gpu_rows(div_up(rows, side) * div_up(cols, side));
}

/* ---- data movement and single elements
 * ------------------------------------------------------------------------- */

static void transpose(void)
{
    static const uint32_t shapes[][4] = {{1, 1, 1, 1},     {1, 7, 7, 3},       {5, 1, 2, 5},
                                         {33, 31, 40, 33}, {64, 172, 172, 64}, {100, 3, 3, 101},
                                         {36, 68, 68, 40}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        uint32_t rows = shapes[s][0], cols = shapes[s][1], lds = shapes[s][2], ldd = shapes[s][3];
        char shape[64];
        snprintf(shape, sizeof shape, "%ux%u", rows, cols);
        float *x = random_matrix(rows, cols, lds, 1);
        struct buffer src = buffer_make((size_t)(rows - 1) * lds + cols, x);
        struct buffer dst = buffer_make((size_t)(cols - 1) * ldd + rows, NULL);
        run_transpose(
            cmd, tiles(KERNEL_ID_transpose, rows, cols),
            &(struct transpose_args){
                .src = src.view, .dst = dst.view, .rows = rows, .cols = cols, .lds = lds, .ldd = ldd});
        float *y = buffer_read(&dst);
        for (size_t i = 0; i < dst.words; i++) {
            uint32_t r = (uint32_t)(i % ldd), c = (uint32_t)(i / ldd), word;
            memcpy(&word, &y[i], 4);
            if (r < rows)
                check(KERNEL_ID_transpose, shape, i, y[i], x[(size_t)r * lds + c], 0);
            else
                assert_int_equal(word, BUFFER_PATTERN);
        }
        free(x);
        free(y);
        buffers_reset();
    }
}

static void add_bias(void)
{
    static const uint32_t shapes[][2] = {{1, 1}, {3, 5}, {7, 172}, {33, 64}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        uint32_t rows = shapes[s][0], cols = shapes[s][1];
        size_t n = (size_t)rows * cols;
        char shape[64];
        snprintf(shape, sizeof shape, "%ux%u", rows, cols);
        float *y0 = random_matrix(rows, cols, cols, 1), *b0 = random_matrix(1, cols, cols, 1);
        struct buffer y = buffer_make(n, y0), b = buffer_make(cols, b0);
        run_add_bias(
            cmd, gpu_items(cmd, KERNEL_ID_add_bias, n),
            &(struct add_bias_args){.x = y.view, .b = b.view, .y = y.view, .rows = rows, .cols = cols});
        float *got = buffer_read(&y);
        for (size_t i = 0; i < n; i++)
            check(KERNEL_ID_add_bias, shape, i, got[i], (double)y0[i] + b0[i % cols], FLT_EPSILON * 8);
        free(y0);
        free(b0);
        free(got);
        buffers_reset();
    }
}

static void swiglu(void)
{
    static const uint32_t sizes[] = {1, 3, 64, 172, 1001};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint32_t n = sizes[s];
        char shape[64];
        snprintf(shape, sizeof shape, "%u", n);
        float *g0 = random_matrix(1, n, n, 10), *u0 = random_matrix(1, n, n, 1);
        struct buffer g = buffer_make(n, g0), u = buffer_make(n, u0), act = buffer_make(n, NULL);
        struct gpu_grid grid = gpu_items(cmd, KERNEL_ID_swiglu_fwd, n);
        run_swiglu_fwd(cmd, grid,
                       &(struct swiglu_fwd_args){.gate = g.view, .up = u.view, .act = act.view, .n = n});
        /* In place as well. */
        run_swiglu_fwd(cmd, grid,
                       &(struct swiglu_fwd_args){.gate = g.view, .up = u.view, .act = g.view, .n = n});
        float *got = buffer_read(&act), *same = buffer_read(&g);
        for (size_t i = 0; i < n; i++) {
            double want = ref_swiglu(g0[i], u0[i]);
            check(KERNEL_ID_swiglu_fwd, shape, i, got[i], want,
                  fabs(want) * (16 + 2 * fabs(g0[i])) * FLT_EPSILON + 1e-12);
            check(KERNEL_ID_swiglu_fwd, "in place", i, same[i], got[i], 0);
        }
        free(g0);
        free(u0);
        free(got);
        free(same);
        buffers_reset();
    }
}

static void rope_turn(float turn)
{
    static const uint32_t shapes[][4] = {
        {1, 1, 2, 1}, {5, 3, 8, 5}, {12, 2, 64, 6}, {7, 1, 30, 7}, {3, 2, 256, 2}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        uint32_t rows = shapes[s][0], heads = shapes[s][1], dim = shapes[s][2], ctx = shapes[s][3];
        size_t n = (size_t)rows * heads * dim;
        char shape[64];
        snprintf(shape, sizeof shape, "rows %u heads %u dim %u turn %g", rows, heads, dim, turn);
        float *x0 = random_matrix(1, (uint32_t)n, (uint32_t)n, 1);
        float *t0 = malloc((size_t)ctx * dim * sizeof *t0);
        double *want = malloc(n * sizeof *want);
        assert_true(t0 && want);
        for (uint32_t i = 0; i < ctx * dim / 2; i++) {
            double angle = 0.37 * i;
            t0[2 * i] = (float)cos(angle);
            t0[2 * i + 1] = (float)sin(angle);
        }
        for (size_t i = 0; i < n; i++)
            want[i] = x0[i];
        ref_rope(want, t0, rows, heads, dim, ctx, turn);
        struct buffer x = buffer_make(n, x0), t = buffer_make((size_t)ctx * dim, t0);
        run_rope_fwd(cmd, gpu_items(cmd, KERNEL_ID_rope_fwd, n / 2),
                     &(struct rope_fwd_args){.x = x.view,
                                             .table = t.view,
                                             .y = x.view,
                                             .rows = rows,
                                             .heads = heads,
                                             .dim = dim,
                                             .ctx = ctx,
                                             .turn = turn});
        float *got = buffer_read(&x);
        for (size_t i = 0; i < n; i++)
            check(KERNEL_ID_rope_fwd, shape, i, got[i], want[i], FLT_EPSILON * 10);
        free(x0);
        free(t0);
        free(want);
        free(got);
        buffers_reset();
    }
}

static void rope(void)
{
    rope_turn(1);
    rope_turn(-1);
}

/* ---- the matrix product
 * ---------------------------------------------------------------------------------------- */

struct gemm_shape {
    uint32_t m, n, k, pad_a, pad_b, pad_c;
    float alpha, beta;
};

static void gemm_case(const struct gemm_shape *s, bool whole)
{
    uint32_t lda = s->k + s->pad_a, ldb = s->k + s->pad_b, ldc = s->n + s->pad_c;
    char shape[96];
    snprintf(shape, sizeof shape, "%ux%ux%u, lda %u ldb %u ldc %u", s->m, s->n, s->k, lda, ldb, ldc);
    float *a0 = random_matrix(s->m, s->k, lda, 1), *b0 = random_matrix(s->n, s->k, ldb, 1);
    float *c0 = random_matrix(s->m, s->n, ldc, 1);
    size_t n_c = (size_t)(s->m - 1) * ldc + s->n;
    if (s->beta == 0) /* then C is not read */
        for (size_t i = 0; i < n_c; i++)
            c0[i] = NAN;
    struct buffer a = buffer_make((size_t)(s->m - 1) * lda + s->k, a0),
                  b = buffer_make((size_t)(s->n - 1) * ldb + s->k, b0);
    struct buffer c = buffer_make(n_c, c0);
    if (whole)
        gpu_gemm(cmd, (struct gpu_matrix){a.view, lda}, (struct gpu_matrix){b.view, ldb},
                 (struct gpu_matrix){c.view, ldc}, s->m, s->n, s->k, s->alpha, s->beta);
    else
        run_gemm(cmd,
                 gpu_rows(div_up(s->m, gpu_kernel_constant(gpu, KERNEL_ID_gemm, 2, 0)) *
                          div_up(s->n, gpu_kernel_constant(gpu, KERNEL_ID_gemm, 3, 0))),
                 &(struct gemm_args){.a = a.view,
                                     .b = b.view,
                                     .old = c.view,
                                     .c = c.view,
                                     .m = s->m,
                                     .n = s->n,
                                     .k = s->k,
                                     .lda = lda,
                                     .ldb = ldb,
                                     .ldc = ldc,
                                     .alpha = s->alpha,
                                     .beta = s->beta});
    double *want = malloc((size_t)s->m * s->n * sizeof *want),
           *mag = malloc((size_t)s->m * s->n * sizeof *mag);
    assert_true(want && mag);
    ref_gemm(s->m, s->n, s->k, a0, lda, b0, ldb, c0, ldc, s->alpha, s->beta, want, mag);
    float *got = buffer_read(&c);
    for (size_t i = 0; i < n_c; i++) {
        size_t row = i / ldc, col = i % ldc;
        if (col < s->n)
            check(KERNEL_ID_gemm, shape, i, got[i], want[row * s->n + col],
                  (s->k + 4) * (FLT_EPSILON / 2) * mag[row * s->n + col]);
        else
            assert_memory_equal(&got[i], &c0[i], 4);
    }
    free(a0);
    free(b0);
    free(c0);
    free(want);
    free(mag);
    free(got);
    buffers_reset();
}

static void gemm(void)
{
    static const struct gemm_shape shapes[] = {
        {1, 1, 1, 0, 0, 0, 1, 0},     {1, 1, 4, 0, 0, 0, 1, 0},        {3, 5, 7, 0, 0, 0, 2, 1},
        {5, 3, 172, 0, 0, 0, 1, 0},   {16, 32, 16, 0, 0, 0, 1, 0},     {64, 64, 64, 0, 0, 0, 1, -1},
        {65, 33, 20, 0, 0, 3, 1, 0},  {17, 129, 61, 3, 3, 0, 0.5f, 2}, {130, 70, 36, 4, 12, 1, 1, 1},
        {33, 66, 100, 1, 0, 0, 1, 0}, {31, 40, 97, 0, 7, 0, 1, 0.5f},  {1, 300, 64, 0, 0, 0, 1, 0},
        {300, 1, 64, 0, 0, 0, 1, 0},  {64, 64, 15, 1, 1, 0, 1, 0},     {9, 9, 3, 1, 1, 7, -1, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        gemm_case(&shapes[i], false);
    gemm_case(&(struct gemm_shape){200, 180, 300, 4, 0, 4, 1, 1}, true);
}

/* ---- rows
 * ------------------------------------------------------------------------------------------------------ */

static void rmsnorm(void)
{
    static const uint32_t shapes[][2] = {{1, 1}, {3, 3}, {9, 5}, {40, 8}, {17, 172}, {2, 1000}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        uint32_t rows = shapes[s][0], cols = shapes[s][1];
        size_t n = (size_t)rows * cols;
        char shape[64];
        snprintf(shape, sizeof shape, "%ux%u", rows, cols);
        float *x0 = random_matrix(rows, cols, cols, 3), *w0 = random_matrix(1, cols, cols, 1), eps = 1e-5f;
        double *want = malloc(n * sizeof *want);
        assert_non_null(want);
        for (uint32_t r = 0; r < rows; r++)
            ref_rmsnorm(x0 + (size_t)r * cols, w0, cols, eps, want + (size_t)r * cols);
        struct buffer x = buffer_make(n, x0), w = buffer_make(cols, w0), y = buffer_make(n, NULL);
        run_rmsnorm_fwd(cmd, gpu_rows(rows),
                        &(struct rmsnorm_fwd_args){
                            .x = x.view, .w = w.view, .y = y.view, .rows = rows, .cols = cols, .eps = eps});
        run_rmsnorm_fwd(cmd, gpu_rows(rows),
                        &(struct rmsnorm_fwd_args){
                            .x = x.view, .w = w.view, .y = x.view, .rows = rows, .cols = cols, .eps = eps});
        float *got = buffer_read(&y), *same = buffer_read(&x);
        for (size_t i = 0; i < n; i++) {
            check(KERNEL_ID_rmsnorm_fwd, shape, i, got[i], want[i],
                  fabs(want[i]) * (cols + 16) * FLT_EPSILON / 2);
            check(KERNEL_ID_rmsnorm_fwd, "in place", i, same[i], got[i], 0);
        }
        free(x0);
        free(w0);
        free(want);
        free(got);
        free(same);
        buffers_reset();
    }
}

static const uint32_t logit_shapes[][2] = {{1, 1}, {9, 3}, {17, 5}, {3, 8}, {2, 172}, {5, 1001}};

/* Absolute: a sum of cols terms at most 1, each exp good to 3 + 2|x| ulp (Vulkan's bound), and a logarithm.
 */
static double logit_tolerance(uint32_t cols, double range)
{
    return (cols + 4 * range + 32) * FLT_EPSILON;
}

static void nll(void)
{
    for (size_t s = 0; s < sizeof logit_shapes / sizeof *logit_shapes; s++) {
        uint32_t rows = logit_shapes[s][0], cols = logit_shapes[s][1];
        char shape[64];
        snprintf(shape, sizeof shape, "%ux%u", rows, cols);
        float *x0 = random_matrix(rows, cols, cols, 8);
        uint32_t *t0 = malloc(rows * sizeof *t0);
        assert_non_null(t0);
        for (uint32_t r = 0; r < rows; r++) {
            t0[r] = test_random(&random_state) % cols;
            for (uint32_t c = 0; c < cols; c++)
                x0[(size_t)r * cols + c] += 100; /* only differences count */
        }
        struct buffer x = buffer_make((size_t)rows * cols, x0), t = buffer_make(rows, t0),
                      out = buffer_make(rows, NULL);
        run_nll(cmd, gpu_rows(rows),
                &(struct nll_args){
                    .logits = x.view, .target = t.view, .out = out.view, .rows = rows, .cols = cols});
        float *got = buffer_read(&out);
        for (uint32_t r = 0; r < rows; r++)
            check(KERNEL_ID_nll, shape, r, got[r], ref_nll(x0 + (size_t)r * cols, cols, t0[r]),
                  logit_tolerance(cols, 60));
        free(x0);
        free(t0);
        free(got);
        buffers_reset();
    }
}

static void kl(void)
{
    for (size_t s = 0; s < sizeof logit_shapes / sizeof *logit_shapes; s++) {
        uint32_t rows = logit_shapes[s][0], cols = logit_shapes[s][1];
        size_t n = (size_t)rows * cols;
        char shape[64];
        snprintf(shape, sizeof shape, "%ux%u", rows, cols);
        float *p0 = random_matrix(rows, cols, cols, 3), *q0 = random_matrix(rows, cols, cols, 1);
        for (size_t i = 0; i < n; i++) {
            p0[i] = roundf(p0[i] * 4) / 4; /* ties */
            q0[i] += p0[i];
        }
        for (uint32_t c = 0; c < cols; c++) /* row 0 is equal: 0, and the first of equals on both sides */
            q0[c] = p0[c];
        struct buffer p = buffer_make(n, p0), q = buffer_make(n, q0);
        struct buffer out = buffer_make(rows, NULL), top = buffer_make(rows, NULL);
        run_kl(cmd, gpu_rows(rows),
               &(struct kl_args){.ref = p.view,
                                 .logits = q.view,
                                 .out = out.view,
                                 .top1 = top.view,
                                 .rows = rows,
                                 .cols = cols});
        float *got = buffer_read(&out), *agree = buffer_read(&top);
        for (uint32_t r = 0; r < rows; r++) {
            const float *pr = p0 + (size_t)r * cols, *qr = q0 + (size_t)r * cols;
            check(KERNEL_ID_kl, shape, r, got[r], ref_kl(pr, qr, cols), 20 * logit_tolerance(cols, 30));
            check(KERNEL_ID_kl, "top1", r, agree[r], ref_argmax(pr, cols) == ref_argmax(qr, cols), 0);
        }
        free(p0);
        free(q0);
        free(got);
        free(agree);
        buffers_reset();
    }
}

/* ---- attention
 * ------------------------------------------------------------------------------------------------- */

static void attn(void)
{
    static const struct ref_attn shapes[] = {
        {1, 1, 1, 1, 2, 0, 0.7},     {2, 5, 2, 1, 8, 0, 0.35},     {1, 33, 4, 2, 64, 0, 0.125},
        {1, 70, 2, 2, 128, 7, 0.09}, {1, 40, 3, 1, 256, 0, 0.06},  {2, 67, 2, 1, 30, 16, 0.2},
        {1, 100, 1, 1, 96, 1, 0.1},  {1, 65, 2, 1, 250, 64, 0.06}, {3, 64, 1, 1, 10, 33, 0.3},
        {1, 1, 1, 1, 4, 0, 0.7},     {1, 33, 4, 2, 16, 0, 0.25},   {1, 70, 2, 2, 12, 7, 0.3},
        {3, 64, 1, 1, 8, 33, 0.35},
    };
    const unsigned kernel = KERNEL_ID_attn_fwd;
    unsigned taken = 0;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const struct ref_attn *p = &shapes[s];
        if (!variant_takes(kernel, &(struct attn_fwd_args){.dim = p->dim}))
            continue;
        taken++;
        uint32_t rows = p->windows * p->ctx, nq = rows * p->heads * p->dim, nk = rows * p->kv_heads * p->dim;
        char shape[96];
        snprintf(shape, sizeof shape, "windows %u ctx %u heads %u/%u dim %u sliding %u", p->windows, p->ctx,
                 p->heads, p->kv_heads, p->dim, p->sliding);
        float *q0 = random_matrix(1, nq, nq, 2), *k0 = random_matrix(1, nk, nk, 1),
              *v0 = random_matrix(1, nk, nk, 1);
        struct buffer q = buffer_make(nq, q0), k = buffer_make(nk, k0), v = buffer_make(nk, v0),
                      out = buffer_make(nq, NULL), lse = buffer_make((size_t)rows * p->heads, NULL);
        struct attn_fwd_args a = {q.view, k.view,   v.view,      out.view, lse.view,   p->windows,
                                  p->ctx, p->heads, p->kv_heads, p->dim,   p->sliding, (float)p->scale};
        run_attn_fwd(cmd, gpu_tiles(cmd, kernel, &a, (uint64_t)p->windows * p->heads, p->ctx), &a);
        float *got = buffer_read(&out), *got_lse = buffer_read(&lse);
        for (uint32_t r = 0; r < rows; r++)
            for (uint32_t h = 0; h < p->heads; h++) {
                double want[256], want_lse, mag;
                ref_attn_row(p, q0, k0, v0, r / p->ctx, r % p->ctx, h, want, &want_lse, &mag);
                /* A score is a sum of dim products of about 2. */
                check(kernel, "log sum exp", (size_t)r * p->heads + h, got_lse[r * p->heads + h], want_lse,
                      (p->scale * 16 * p->dim + p->ctx + 32) * FLT_EPSILON);
                for (uint32_t d = 0; d < p->dim; d++) {
                    size_t i = ((size_t)r * p->heads + h) * p->dim + d;
                    check(kernel, shape, i, got[i], want[d], mag * (4 * p->dim + p->ctx + 64) * FLT_EPSILON);
                }
            }
        free(q0);
        free(k0);
        free(v0);
        free(got);
        free(got_lse);
        buffers_reset();
    }
    assert_true(taken > 0);
}

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
            assert_string_equal(
                gpu_kernel_variant(gpu, kernel, &(struct attn_fwd_args){.dim = others[i]}, &e), general);
        OK(gpu_kernel_force(gpu, kernel, NULL, &e), e);
    }
    OK(gpu_kernel_force(gpu, kernel, "base", &e), e);
    assert_string_equal(gpu_kernel_variant(gpu, kernel, &(struct attn_fwd_args){.dim = 16}, &e), "base");
    OK(gpu_kernel_force(gpu, kernel, NULL, &e), e);
}

#define TEST(name, function)                                                                                 \
    static void test_##name(void **state)                                                                    \
    {                                                                                                        \
        (void)state;                                                                                         \
        each_variant(KERNEL_ID_##name, function);                                                            \
    }
TEST(transpose, transpose)
TEST(add_bias, add_bias)
TEST(swiglu_fwd, swiglu)
TEST(rope_fwd, rope)
TEST(gemm, gemm)
TEST(rmsnorm_fwd, rmsnorm)
TEST(nll, nll)
TEST(kl, kl)
TEST(attn_fwd, attn)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transpose),  cmocka_unit_test(test_add_bias),
        cmocka_unit_test(test_swiglu_fwd), cmocka_unit_test(test_rope_fwd),
        cmocka_unit_test(test_gemm),       cmocka_unit_test(test_rmsnorm_fwd),
        cmocka_unit_test(test_nll),        cmocka_unit_test(test_kl),
        cmocka_unit_test(test_attn_fwd),   cmocka_unit_test(test_attn_choice),
    };
    const struct CMUnitTest no_push[] = {
        cmocka_unit_test(test_transpose),
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_nll),
    };
    int failed = device_done(cmocka_run_group_tests_name("forward", tests, device_setup, NULL));
    return failed + device_done(cmocka_run_group_tests_name("forward without push descriptors", no_push,
                                                            device_setup_no_push, NULL));
}
