/* What linears make good: sums of drift and the weights that come of them, against double precision. */
#include "tests/device.h"

#include <math.h>

#include "host/quant/method/drift.h"
#include "host/quant/method/qmatrix.h"
#include "tests/ref/ref_gptq.h"

static struct err e;

static uint32_t seed;
static double uniform(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed / 4294967296.0 - 0.5;
}

/* Of the student, and what the 16-bit model has more than it, which hangs together with that. */
static void tokens_make(float *x, float *lost, uint32_t tokens, uint32_t n, uint32_t rows)
{
    for (uint32_t t = 0; t < tokens; t++) {
        double common = uniform();
        for (uint32_t c = 0; c < n; c++)
            x[(size_t)t * n + c] = (float)(uniform() + common * sin(0.7 * c));
        for (uint32_t r = 0; r < rows; r++)
            lost[(size_t)t * rows + r] = (float)(0.3 * x[(size_t)t * n + (r * 7u + 3u) % n] + 0.2 * uniform());
    }
}

static struct gpu_view upload(const float *x, size_t n)
{
    struct gpu_view v;
    OK(gpu_alloc(arena, n * sizeof *x, &v, &e), e);
    gpu_upload(cmd, v, x, n * sizeof *x);
    return v;
}

/* m[rows, n] = (2/tokens) sum lost x^T. */
static double *ref_sum(const float *lost, const float *x, uint32_t tokens, uint32_t rows, uint32_t n)
{
    double *m = calloc((size_t)rows * n, sizeof *m);
    assert_non_null(m);
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t r = 0; r < rows; r++)
            for (uint32_t c = 0; c < n; c++)
                m[(size_t)r * n + c] += 2.0 / tokens * lost[(size_t)t * rows + r] * x[(size_t)t * n + c];
    return m;
}

/* w[rows, n] + share * M H^-1, where of inputs M = W sum; U^T U = H^-1. */
static double *ref_weights(const float *w, const double *sum, bool last, uint32_t rows, uint32_t n, const double *u,
                           double share)
{
    double *to = calloc((size_t)rows * n, sizeof *to), *m = malloc(2 * n * sizeof *m), *y = m + n;
    assert_true(to && m);
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t c = 0; c < n; c++) {
            m[c] = last ? sum[(size_t)r * n + c] : 0;
            for (uint32_t k = 0; !last && k < n; k++)
                m[c] += w[(size_t)r * n + k] * sum[(size_t)k * n + c];
        }
        for (uint32_t i = 0; i < n; i++) { /* U M^T */
            y[i] = 0;
            for (uint32_t c = i; c < n; c++)
                y[i] += u[(size_t)i * n + c] * m[c];
        }
        for (uint32_t c = 0; c < n; c++) {
            to[(size_t)r * n + c] = w[(size_t)r * n + c];
            for (uint32_t i = 0; i <= c; i++)
                to[(size_t)r * n + c] += share * u[(size_t)i * n + c] * y[i];
        }
    }
    free(m);
    return to;
}

static void test_make_good(void **state)
{
    (void)state;
    static const struct {
        uint32_t rows, n, tokens;
        bool last;
        float share;
    } cases[] = {{24, 64, 300, false, 0.5f},
                 {33, 172, 700, true, 1},
                 {7, 5, 40, false, 1},
                 {DRIFT_ROWS + 36, 40, 200, false, 0.7f}, /* in two parts */
                 {DRIFT_ROWS + 4, 24, 60, true, 0.5f},
                 {16, HESSIAN_TILE + 70, 1300, true, 0.5f}, /* of two tiles */
                 {5, HESSIAN_TILE + 3, 1200, false, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const uint32_t rows = cases[i].rows, n = cases[i].n, tokens = cases[i].tokens;
        const bool last = cases[i].last;
        struct drift d = {.rows = last ? rows : n, .n = n, .last = last};
        struct hessian h;
        struct gpu_view square = {0};
        struct gptq_facts facts = {0};
        seed = 77 + (uint32_t)i;
        float *x = malloc((size_t)tokens * n * 4), *lost = malloc((size_t)tokens * d.rows * 4);
        float *w = malloc((size_t)rows * n * 4), *got = malloc(max_u64((uint64_t)rows, d.rows) * n * 4);
        double *exact = malloc((size_t)n * n * sizeof *exact), *u = malloc((size_t)n * n * sizeof *u), mean = 0;
        assert_true(x && lost && w && got && exact && u);
        tokens_make(x, lost, tokens, n, d.rows);
        for (size_t k = 0; k < (size_t)rows * n; k++)
            w[k] = (float)(0.1 * uniform());
        ref_hessian(x, tokens, n, exact);
        for (uint32_t c = 0; c < n; c++)
            mean += exact[(size_t)c * n + c] / n;
        for (uint32_t c = 0; c < n; c++)
            exact[(size_t)c * n + c] += 0.01 * mean;
        assert_true(ref_inverse_factor(exact, n, u));
        double *sum = ref_sum(lost, x, tokens, d.rows, n);
        double *to = ref_weights(w, sum, last, rows, n, u, cases[i].share);

        struct gpu_view dx = upload(x, (size_t)tokens * n), dl = upload(lost, (size_t)tokens * d.rows);
        struct gpu_view dw = upload(w, (size_t)rows * n);
        OK(hessian_create(&h, cmd, arena, n, false, &e) &&
               gpu_alloc_rows(arena, d.rows, n * 4ull, HESSIAN_TILE, &d.sum, &e) &&
               hessian_square_create(&square, arena, n, n, &e),
           e);
        gpu_fill(cmd, d.sum, 0);
        const uint32_t part = tokens / 3; /* in two batches */
        hessian_add(cmd, &h, HESSIAN_TRAIN, dx, tokens, 2.0f / tokens);
        drift_add(cmd, &d, dl, dx, part, 2.0f / tokens);
        float *behind = lost + (size_t)part * d.rows;
        struct gpu_view dl2 = upload(behind, (size_t)(tokens - part) * d.rows);
        struct gpu_view dx2 = upload(x + (size_t)part * n, (size_t)(tokens - part) * n);
        drift_add(cmd, &d, dl2, dx2, tokens - part, 2.0f / tokens);
        OK(gpu_download(cmd, d.sum, got, (uint64_t)d.rows * n * 4, &e), e);
        for (size_t k = 0; k < (size_t)d.rows * n; k++)
            assert_true(fabs(got[k] - sum[k]) <= 2e-6 + 1e-4 * fabs(sum[k]));

        gpu_mark mark = gpu_arena_mark(arena);
        OK(gptq_factor(cmd, &h, 0.01f, arena, square, &facts, &e), e);
        assert_false(facts.damp_raised || facts.diagonal_only);
        OK(drift_make_good(cmd, &d, dw, 0, rows, square, cases[i].share, arena, &e), e);
        assert_true(gpu_arena_mark(arena) == mark);
        OK(gpu_download(cmd, dw, got, (uint64_t)rows * n * 4, &e), e);
        double moved = 0, off = 0;
        for (size_t k = 0; k < (size_t)rows * n; k++) {
            moved = fmax(moved, fabs(to[k] - w[k]));
            off = fmax(off, fabs(to[k] - got[k]));
        }
        if (!(off <= 1e-3 * moved) || !(moved > 0.01))
            fail_msg("case %zu: %g off, of %g that weights move", i, off, moved);
        free(x);
        free(lost);
        free(w);
        free(got);
        free(exact);
        free(u);
        free(sum);
        free(to);
        gpu_arena_reset(arena, 0);
    }
}

/* Weights that make all of it good give what the 16-bit model's inputs would have given, but for what inputs do not tell. */
static void test_gives_back(void **state)
{
    (void)state;
    enum { ROWS = 8, N = 48, TOKENS = 800 };
    float *x = malloc(TOKENS * N * 4), *lost = malloc(TOKENS * N * 4), *w = malloc(ROWS * N * 4),
          *got = malloc(ROWS * N * 4);
    struct drift d = {.rows = N, .n = N};
    struct hessian h;
    struct gpu_view square = {0};
    struct gptq_facts facts = {0};
    double without = 0, with = 0;
    assert_true(x && lost && w && got);
    seed = 5;
    tokens_make(x, lost, TOKENS, N, N);
    for (int k = 0; k < ROWS * N; k++)
        w[k] = (float)uniform();
    struct gpu_view dx = upload(x, TOKENS * N), dl = upload(lost, TOKENS * N), dw = upload(w, ROWS * N);
    OK(hessian_create(&h, cmd, arena, N, false, &e) && gpu_alloc(arena, N * N * 4, &d.sum, &e) &&
           hessian_square_create(&square, arena, N, N, &e),
       e);
    gpu_fill(cmd, d.sum, 0);
    hessian_add(cmd, &h, HESSIAN_TRAIN, dx, TOKENS, 2.0f / TOKENS);
    drift_add(cmd, &d, dl, dx, TOKENS, 2.0f / TOKENS);
    OK(gptq_factor(cmd, &h, 1e-4f, arena, square, &facts, &e) &&
           drift_make_good(cmd, &d, dw, 0, ROWS, square, 1, arena, &e) && gpu_download(cmd, dw, got, ROWS * N * 4, &e),
       e);
    for (int t = 0; t < TOKENS; t++)
        for (int r = 0; r < ROWS; r++) {
            double want = 0, y = 0, plain = 0;
            for (int c = 0; c < N; c++) {
                want += (double)w[r * N + c] * (x[t * N + c] + lost[t * N + c]);
                plain += (double)w[r * N + c] * x[t * N + c];
                y += (double)got[r * N + c] * x[t * N + c];
            }
            without += (plain - want) * (plain - want);
            with += (y - want) * (y - want);
        }
    /* 0.2 of noise beside 0.3 of what inputs tell, whose variance is larger by that of what they share: 1/3 of it at most is left. */
    if (!(with < 0.34 * without))
        fail_msg("%g of %g is left", with, without);
    free(x);
    free(lost);
    free(w);
    free(got);
    gpu_arena_reset(arena, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_make_good),
        cmocka_unit_test(test_gives_back),
    };
    return device_done(cmocka_run_group_tests(tests, device_setup, NULL));
}
