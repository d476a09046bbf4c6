/* host/quant/method/cholesky.c and its block kernel against the inverse factor from its definition. */
#include "host/quant/method/cholesky.h"
#include "host/gpu/tiled.h"
#include "tests/quant_cases.h"
#include "tests/ref/ref_gptq.h"

/* A Hessian of n inputs seen on `tokens` tokens; few tokens or an outlier make it ill-conditioned. damp:
 * share of the mean diagonal. */
static float *hessian(uint32_t n, uint32_t tokens, float outlier, double damp, uint64_t seed)
{
    float *x = normals((size_t)tokens * n, 1, seed), *h = malloc((size_t)n * n * sizeof *h);
    double *exact = malloc((size_t)n * n * sizeof *exact), mean = 0;
    assert_non_null(h);
    for (uint32_t t = 0; t < tokens; t++)
        x[(size_t)t * n] *= outlier;
    ref_hessian(x, tokens, n, exact);
    for (uint32_t i = 0; i < n; i++)
        mean += exact[(size_t)i * n + i] / n;
    for (size_t i = 0; i < (size_t)n * n; i++)
        h[i] = (float)(exact[i] + (i % (n + 1) == 0 ? damp * mean : 0));
    free(x);
    free(exact);
    return h;
}

/* As the factor wants it: flipped, and above the diagonal what must not be read. */
static void flip_lower(float *h, uint32_t n)
{
    for (size_t a = 0, b = (size_t)n * n - 1; a < b; a++, b--) {
        float t = h[a];
        h[a] = h[b];
        h[b] = t;
    }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = i + 1; j < n; j++)
            h[(size_t)i * n + j] = NAN;
}

/* Errors of R are relative to the diagonal element of their column, which is what GPTQ divides by. f32 knows
 * the factor to eps times the condition, which for white data follows from n / tokens (Marchenko-Pastur); a
 * loud input does not change it, because scaling one input scales a row and a column. */
static void check_factor(uint32_t n, uint32_t tokens, float outlier, double damp)
{
    float *h = hessian(n, tokens, outlier, damp, n + tokens);
    double *exact = malloc((size_t)n * n * sizeof *exact), *u = malloc((size_t)n * n * sizeof *u);
    for (size_t i = 0; i < (size_t)n * n; i++)
        exact[i] = h[i];
    assert_true(ref_inverse_factor(exact, n, u));
    flip_lower(h, n);
    struct buffer br = buffer_make((size_t)n * n, h);
    struct err e = {0};
    bool ok = false;
    OK(cholesky_inverse_factor(cmd, arena, br.view, n, &ok, &e), e);
    assert_true(ok);
    float *r = buffer_read(&br);
    double worst = 0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j <= i; j++) {
            double expected = u[(size_t)j * n + i], scale = fabs(u[(size_t)j * n + j]);
            worst = fmax(worst, fabs(r[(size_t)i * n + j] - expected) / scale);
        }
    print_message("n %u tokens %u outlier %g damp %g: largest error %.2g\n", n, tokens, (double)outlier, damp, worst);
    double q = sqrt((double)n / tokens), smallest = q < 1 ? (1 - q) * (1 - q) : 0;
    assert_true(worst < 2e-7 * (20 + (1 + q) * (1 + q) / (smallest + damp)));
    free(h);
    free(exact);
    free(u);
    free(r);
    buffers_reset();
}

static void test_factor(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 2, 5, 63, 64, 65, 128, 172, 200, 384, 600};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        check_factor(sizes[i], 4 * sizes[i] + 3, 1, 0.01);
}

/* Fewer tokens than inputs: without damping the Hessian would be singular. An input a hundred times larger
 * than the others. */
static void test_ill_conditioned(void **state)
{
    (void)state;
    check_factor(200, 20, 1, 0.01);
    check_factor(384, 100, 1, 0.01);
    check_factor(130, 400, 100, 0.01);
}

static void test_not_positive(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, at;
        float pivot;
    } cases[] = {{1, 0, 0}, {5, 4, -1}, {130, 0, -1}, {130, 129, 0}, {200, 100, NAN}, {70, 3, INFINITY}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t n = cases[i].n;
        float *h = hessian(n, 3 * n, 1, 0.01, i);
        h[(size_t)cases[i].at * n + cases[i].at] = cases[i].pivot;
        flip_lower(h, n);
        struct buffer br = buffer_make((size_t)n * n, h);
        struct err e = {0};
        bool ok = true;
        OK(cholesky_inverse_factor(cmd, arena, br.view, n, &ok, &e), e);
        assert_false(ok);
        free(h);
        buffers_reset();
    }
}

/* The block kernel alone, in a larger matrix. */
static void test_block(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 3, 17, 64};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint32_t n = sizes[i], ld = n + 5;
        float *h = hessian(n, 3 * n, 1, 0.01, i), *a = normals((size_t)n * ld, 1, i);
        for (uint32_t r = 0; r < n; r++)
            memcpy(a + (size_t)r * ld, h + (size_t)r * n, n * sizeof *a);
        struct buffer ba = buffer_make((size_t)n * ld, a), bi = buffer_make((size_t)n * n, NULL);
        struct buffer bs = buffer_make(1, &(uint32_t){0});
        tiled_chol_block(cmd, &(struct chol_block_args){ba.view, bi.view, bs.view, n, ld});
        float *l = buffer_read(&ba), *inv = buffer_read(&bi);
        uint32_t *status = buffer_read(&bs);
        assert_int_equal(status[0], 0);
        for (uint32_t r = 0; r < n; r++) {
            for (uint32_t c = 0; c < ld; c++)
                if (c >= n)
                    assert_true(l[r * ld + c] == a[r * ld + c]);
                else if (c > r)
                    assert_true(l[r * ld + c] == 0 && inv[r * n + c] == 0);
            for (uint32_t c = 0; c <= r; c++) {
                double product = 0, unit = 0;
                for (uint32_t k = 0; k < n; k++) {
                    product += (double)l[r * ld + k] * l[c * ld + k];
                    unit += (double)l[r * ld + k] * inv[k * n + c];
                }
                near(product, h[r * n + c], 2e-6, sqrt((double)h[r * n + r] * h[c * n + c]));
                within(unit, r == c, 1e-5);
            }
        }
        free(h);
        free(a);
        free(l);
        free(inv);
        free(status);
        buffers_reset();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_block),
        cmocka_unit_test(test_factor),
        cmocka_unit_test(test_ill_conditioned),
        cmocka_unit_test(test_not_positive),
    };
    return device_done(cmocka_run_group_tests(tests, device_setup, NULL));
}
