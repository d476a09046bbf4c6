/* The method on one linear: Hessian, GPTQ against its double-precision reference, Gumbel-Softmax, the guard.
 */
#include <math.h>

#include "host/quant/method/code_descent.h"
#include "host/quant/method/gumbel.h"
#include "host/quant/method/output_hessian.h"
#include "host/quant/method/tune_expert.h"
#include "host/quant/method/quant_linear.h"
#include "tests/device.h"
#include "tests/ref/ref_gptq.h"

static struct err e;

/* A small generator of its own: tests must not depend on the C library's. */
static uint64_t rng_state;
static double uniform(void)
{
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(rng_state >> 11) / 9007199254740992.0;
}

static double normal(void)
{
    double u = uniform() + 1e-300;
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * uniform());
}

/* One linear with correlated inputs. */
struct problem {
    uint32_t rows, cols, tokens;
    float *w, *x, *held;
    double *h;
    struct gpu_view dw;
    struct hessian hessian;
    struct gpu_view outputs; /* tiles of the outputs' Hessian; empty: none */
};

/* Inputs with a few strong shared directions, as activations have them. */
static void inputs(float *x, uint32_t tokens, uint32_t cols)
{
    for (uint32_t t = 0; t < tokens; t++) {
        double a = normal(), b = normal();
        for (uint32_t j = 0; j < cols; j++)
            x[(size_t)t * cols + j] = (float)(normal() + 2 * a * sin(j * 0.7) + 1.5 * b * cos(j * 1.3));
    }
}

static void add_tokens(struct problem *p, enum hessian_sum sum, const float *x)
{
    struct gpu_view dx = {0};
    uint64_t bytes = (uint64_t)p->tokens * p->cols * 4;
    OK(gpu_alloc(arena, bytes, &dx, &e), e);
    gpu_upload(cmd, dx, x, bytes);
    hessian_add(cmd, &p->hessian, sum, dx, p->tokens, 2.0f / p->tokens);
}

static void problem_make(struct problem *p, uint32_t rows, uint32_t cols, bool with_held, bool dead)
{
    /* With fewer tokens a column the held-out loss does not tell what was learned from chance. */
    *p = (struct problem){.rows = rows, .cols = cols, .tokens = 8 * cols};
    rng_state = rows * 1000003u + cols;
    p->w = malloc((size_t)rows * cols * 4);
    p->x = malloc((size_t)p->tokens * cols * 4);
    p->held = malloc((size_t)p->tokens * cols * 4);
    p->h = malloc((size_t)cols * cols * sizeof(double));
    for (size_t i = 0; i < (size_t)rows * cols; i++)
        p->w[i] = (float)(0.05 * normal());
    inputs(p->x, p->tokens, cols);
    inputs(p->held, p->tokens, cols);
    for (uint32_t t = 0; dead && t < p->tokens; t++)
        p->x[(size_t)t * cols + 3] = p->x[(size_t)t * cols + cols - 1] = 0;
    ref_hessian(p->x, p->tokens, cols, p->h);
    OK(gpu_alloc(arena, (uint64_t)rows * cols * 4, &p->dw, &e), e);
    gpu_upload(cmd, p->dw, p->w, (uint64_t)rows * cols * 4);
    OK(hessian_create(&p->hessian, cmd, arena, cols, with_held, &e), e);
    add_tokens(p, HESSIAN_TRAIN, p->x);
    if (with_held)
        add_tokens(p, HESSIAN_HELD, p->held);
    OK(gpu_cmd_finish(cmd, &e), e);
}

static void problem_free(struct problem *p)
{
    free(p->w);
    free(p->x);
    free(p->held);
    free(p->h);
    gpu_arena_reset(arena, 0);
}

static void run(struct problem *p, const struct quantize_options *o, uint32_t group, uint64_t tune_bytes,
                struct qlinear *q, struct linear_report *report)
{
    struct matrix item = {.part = block_part_of(ROLE_O),
                          .module = "test",
                          .rows = p->rows,
                          .cols = p->cols,
                          .number = 5,
                          .coded = true,
                          .spec = {o->code_type, group, SCALE_F16}};
    gpu_upload(cmd, p->dw, p->w, (uint64_t)p->rows * p->cols * 4);
    struct linear_task t = {.cmd = cmd,
                            .options = o,
                            .item = &item,
                            .w = p->dw,
                            .hessian = &p->hessian,
                            .outputs = p->outputs,
                            .scratch = arena,
                            .tune_bytes = tune_bytes};
    OK(quantize_linear(&t, q, report, &e), e);
}

/* Of w alone, by the reference. */
static double norm_of(const struct problem *p, const float *w)
{
    int8_t *zero = calloc(p->cols, 1);
    float *none = calloc(p->cols, sizeof *none);
    double sum = 0;
    for (uint32_t r = 0; r < p->rows; r++)
        sum += ref_row_loss(w + (size_t)r * p->cols, zero, none, p->cols, 16, p->h);
    free(zero);
    free(none);
    return sum;
}

static double total_loss(const struct problem *p, const struct qlinear *q)
{
    size_t n = (size_t)p->rows * p->cols;
    float *d = malloc(n * sizeof *d);
    assert_non_null(d);
    qlinear_dequant(q, 0, q->rows, d);
    for (size_t i = 0; i < n; i++)
        d[i] -= p->w[i];
    double loss = norm_of(p, d);
    free(d);
    return loss;
}

static double weight_norm(const struct problem *p)
{
    return norm_of(p, p->w);
}

/* Both sums, whole, of one tile and of several. */
static void test_hessian(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {5, 64, 172, HESSIAN_TILE + 3, 2 * HESSIAN_TILE + 130};
    for (int i = 0; i < 5; i++) {
        uint32_t n = sizes[i], tokens = i < 3 ? 4 * n : 30;
        struct problem p = {.cols = n, .tokens = tokens};
        struct gpu_view square;
        float *x = malloc((size_t)tokens * n * 4), *h = malloc((size_t)n * n * 4);
        double *exact = malloc((size_t)n * n * sizeof *exact);
        OK(hessian_create(&p.hessian, cmd, arena, n, true, &e) && gpu_alloc(arena, (uint64_t)n * n * 4, &square, &e),
           e);
        rng_state = n;
        for (int sum = HESSIAN_HELD; sum >= HESSIAN_TRAIN; sum--) {
            inputs(x, tokens, n);
            ref_hessian(x, tokens, n, exact);
            add_tokens(&p, (enum hessian_sum)sum, x);
            if (sum == HESSIAN_TRAIN) /* the other sum is there as well */
                hessian_square(cmd, &p.hessian, HESSIAN_HELD, square);
            hessian_square(cmd, &p.hessian, (enum hessian_sum)sum, square);
            OK(gpu_download(cmd, square, h, (uint64_t)n * n * 4, &e), e);
            for (size_t k = 0; k < (size_t)n * n; k++)
                assert_true(fabs(h[k] - exact[k]) <= 1e-5 * tokens / 64.0 + 1e-5 * fabs(exact[k]));
            for (size_t r = 0; r < n; r++)
                for (size_t c = 0; c < r; c++)
                    assert_true(h[r * n + c] == h[c * n + r]);
        }
        free(x);
        free(h);
        free(exact);
        gpu_arena_reset(arena, 0);
    }
}

/* What an expert's training is predicted by: never more steps in an epoch than a half's, nor than it has windows. */
static void test_expected_experts(void **state)
{
    (void)state;
    static const struct {
        uint32_t samples, holdout, ctx, experts, used, batch;
        struct expert_expected want; /* windows that teach, that judge; steps of an epoch */
    } cases[] = {
        {24, 3, 64, 6, 2, 2, {14, 2, 7, 1}},
        {32, 4, 64, 6, 2, 1, {18, 2, 18, 1}},
        {192, 16, 128, 8, 2, 4, {176, 16, 44, 1}},
        {192, 16, 2048, 128, 8, 4, {704, 64, 44, 1}},
        {2, 0, 128, 8, 2, 4, {0}},
        {8, 1, 64, 8, 2, 4, {0}},
        {24, 3, 64, 24, 2, 4, {0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model_config config = {.hidden_size = 64,
                                      .experts = {.n = cases[i].experts, .used = cases[i].used, .width = 32}};
        const struct model m = {.cfg = &config, .gpu = gpu, .ctx = cases[i].ctx};
        struct quantize_options o;
        quantize_defaults(&o);
        o.block.batch = cases[i].batch;
        struct expert_expected is = tune_expert_expect(&m, &o, cases[i].samples, cases[i].holdout, 4);
        assert_memory_equal(&is, &cases[i].want, sizeof is);
    }
}

/* The diagonal of the sum to learn from is raised; nothing else of it changes, nor anything of the sum that judges. */
static void test_raised_diagonal(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {5, 64, 172, HESSIAN_TILE + 3, 2 * HESSIAN_TILE + 130};
    const float share = 0.375f;
    for (int i = 0; i < 5; i++) {
        uint32_t n = sizes[i], tokens = 30;
        uint64_t bytes = (uint64_t)n * n * 4;
        struct problem p = {.cols = n, .tokens = tokens};
        struct gpu_view square, diag, factor;
        float *x = malloc((size_t)tokens * n * 4), *was[2], *is = malloc(bytes);
        OK(hessian_create(&p.hessian, cmd, arena, n, true, &e) && gpu_alloc(arena, bytes, &square, &e) &&
               gpu_alloc(arena, n * 4ull, &diag, &e) && gpu_alloc(arena, 4, &factor, &e),
           e);
        rng_state = n;
        for (int sum = HESSIAN_TRAIN; sum <= HESSIAN_HELD; sum++) {
            inputs(x, tokens, n);
            add_tokens(&p, (enum hessian_sum)sum, x);
        }
        for (int sum = HESSIAN_TRAIN; sum <= HESSIAN_HELD; sum++) {
            was[sum] = malloc(bytes);
            hessian_square(cmd, &p.hessian, (enum hessian_sum)sum, square);
            OK(gpu_download(cmd, square, was[sum], bytes, &e), e);
        }
        hessian_raise_diagonal(cmd, &p.hessian, share, diag, factor);
        for (int sum = HESSIAN_TRAIN; sum <= HESSIAN_HELD; sum++) {
            hessian_square(cmd, &p.hessian, (enum hessian_sum)sum, square);
            OK(gpu_download(cmd, square, is, bytes, &e), e);
            for (size_t k = 0; k < (size_t)n * n; k++)
                assert_true(is[k] == was[sum][k] * (sum == HESSIAN_TRAIN && k % (n + 1) == 0 ? 1 + share : 1));
            free(was[sum]);
        }
        free(x);
        free(is);
        gpu_arena_reset(arena, 0);
    }
}

/* ---- Hessians of outputs ---- */

/* Element (r, c) of tiles as they are stored; 0 beyond them. */
static double tile_element(const float *tiles, uint32_t n, uint32_t r, uint32_t c)
{
    return r / HESSIAN_TILE == c / HESSIAN_TILE ? tiles[(size_t)r * output_hessian_cols(n) + c % HESSIAN_TILE] : 0;
}

/* Gradients of two parts of a matrix's outputs, which know nothing of each other: their sums, what is stored, and products with it;
 * of one tile, of several, of parts that end within one. */
static void test_output_hessian(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {5, 64, 172, HESSIAN_TILE, HESSIAN_TILE + 3, 2 * HESSIAN_TILE + 130};
    enum { TOKENS = 40, COLS = 12 };
    for (int i = 0; i < 6; i++) {
        const uint32_t n = sizes[i], ld = output_hessian_cols(n), first = n > 64 ? (n - 1) / 64 * 64 : n;
        const uint32_t begin[2] = {0, first}, size[2] = {first, n - first};
        float *g[2], *tiles = malloc((size_t)n * ld * 4), *x = malloc((size_t)n * COLS * 4);
        float *y = malloc((size_t)n * COLS * 4);
        struct gpu_view sums = {0}, dg = {0}, dx = {0}, dy = {0};
        rng_state = n;
        OK(gpu_alloc_rows(arena, n, ld * 4ull, HESSIAN_TILE, &sums, &e), e);
        gpu_fill(cmd, sums, 0);
        for (int part = 0; part < 2; part++) {
            uint64_t bytes = (uint64_t)TOKENS * size[part] * 4;
            g[part] = malloc(bytes + 4);
            if (!size[part])
                continue;
            inputs(g[part], TOKENS, size[part]);
            OK(gpu_alloc(arena, bytes, &dg, &e), e);
            gpu_upload(cmd, dg, g[part], bytes);
            output_hessian_add(cmd, sums, n, begin[part], size[part], dg, TOKENS, 0.5f);
        }
        OK(gpu_download(cmd, sums, tiles, (uint64_t)n * ld * 4, &e), e);
        double mean = 0;
        for (uint32_t r = 0; r < n; r++)
            for (uint32_t c = r / HESSIAN_TILE * HESSIAN_TILE; c < n && c / HESSIAN_TILE == r / HESSIAN_TILE; c++) {
                int a = r >= first, b = c >= first;
                double want = 0, mag = 0;
                for (uint32_t t = 0; a == b && t < TOKENS; t++) {
                    double term =
                        0.5 * g[a][(size_t)t * size[a] + r - begin[a]] * g[a][(size_t)t * size[a] + c - begin[a]];
                    want += term;
                    mag += fabs(term);
                }
                mean += r == c ? want / n : 0;
                assert_true(fabs(tile_element(tiles, n, r, c) - want) <= 1e-5 * mag);
                assert_true(tile_element(tiles, n, r, c) == tile_element(tiles, n, c, r));
            }
        /* As it is stored: the mean of the diagonal is 1, some of it the unit matrix. */
        double before[2] = {tiles[0], n > 1 ? tiles[1] : 0}, diagonal = 0;
        assert_true(output_hessian_settle(tiles, n, 3));
        for (uint32_t r = 0; r < n; r++)
            diagonal += tile_element(tiles, n, r, r) / n;
        assert_true(fabs(diagonal - 1) < 1e-5);
        double unit = tiles[0] - before[0] / before[1] * tiles[1];
        assert_true(n == 1 || (unit > 0.01 && unit < 0.9));
        assert_true(fabs(tiles[1] - (1 - unit) * before[1] / mean) <= 1e-3 * fabs(before[1] / mean));

        for (uint32_t k = 0; k < n * COLS; k++)
            x[k] = (float)normal();
        OK(gpu_alloc(arena, (uint64_t)n * COLS * 4, &dx, &e) && gpu_alloc(arena, (uint64_t)n * COLS * 4, &dy, &e), e);
        gpu_upload(cmd, sums, tiles, (uint64_t)n * ld * 4);
        gpu_upload(cmd, dx, x, (uint64_t)n * COLS * 4);
        for (uint32_t row = 0, rows; row < n; row += rows) { /* all, or all but the last tiles, then those */
            rows = row == 0 && n > 2 * HESSIAN_TILE ? HESSIAN_TILE : n - row;
            uint64_t at = (uint64_t)row * COLS * 4, bytes = (uint64_t)rows * COLS * 4;
            output_hessian_times(cmd, (struct gpu_matrix){sums, ld}, row, rows, gpu_slice(dx, at, bytes),
                                 gpu_slice(dy, at, bytes), COLS, GEMM_EXACT);
        }
        OK(gpu_download(cmd, dy, y, (uint64_t)n * COLS * 4, &e), e);
        for (uint32_t r = 0; r < n; r++)
            for (uint32_t c = 0; c < COLS; c++) {
                double want = 0, mag = 0;
                for (uint32_t k = 0; k < n; k++) {
                    double term = tile_element(tiles, n, r, k) * x[(size_t)k * COLS + c];
                    want += term;
                    mag += fabs(term);
                }
                assert_true(fabs(y[(size_t)r * COLS + c] - want) <= 1e-5 * mag);
            }
        /* The same x as rows. */
        output_hessian_after(cmd, sums, dx, dy, COLS, n, GEMM_EXACT);
        OK(gpu_download(cmd, dy, y, (uint64_t)n * COLS * 4, &e), e);
        for (uint32_t r = 0; r < COLS; r++)
            for (uint32_t c = 0; c < n; c++) {
                double want = 0, mag = 0;
                for (uint32_t k = 0; k < n; k++) {
                    double term = x[(size_t)r * n + k] * (double)tile_element(tiles, n, k, c);
                    want += term;
                    mag += fabs(term);
                }
                assert_true(fabs(y[(size_t)r * n + c] - want) <= 1e-5 * mag);
            }
        /* Nothing was learned of outputs whose gradients are all 0, or no numbers. */
        memset(tiles, 0, (size_t)n * ld * 4);
        assert_false(output_hessian_settle(tiles, n, 1));
        tiles[0] = NAN;
        assert_false(output_hessian_settle(tiles, n, 1));
        for (int part = 0; part < 2; part++)
            free(g[part]);
        free(tiles);
        free(x);
        free(y);
        gpu_arena_reset(arena, 0);
    }
}

/* tr(Ho D H D^T) of D = what q gives - w, or of w alone (q NULL), in double. */
static double loss_both(const struct problem *p, const float *tiles, const struct qlinear *q)
{
    const uint32_t rows = p->rows, cols = p->cols;
    float *d = malloc((size_t)rows * cols * 4);
    double *dh = calloc((size_t)rows * cols, sizeof *dh), loss = 0;
    assert_true(d && dh);
    if (q)
        qlinear_dequant(q, 0, rows, d);
    for (size_t i = 0; i < (size_t)rows * cols; i++)
        d[i] = q ? d[i] - p->w[i] : p->w[i];
    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < cols; k++)
            for (size_t c = 0; c < cols; c++)
                dh[r * cols + c] += d[r * cols + k] * p->h[k * cols + c];
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t s = 0; s < rows; s++) {
            double dot = 0, ho = tile_element(tiles, rows, r, s);
            for (size_t c = 0; ho != 0 && c < cols; c++)
                dot += d[r * cols + c] * dh[s * cols + c];
            loss += ho * dot;
        }
    free(d);
    free(dh);
    return loss;
}

/* Tiles of a Hessian of outputs on the device, and in tiles[rows, output_hessian_cols(rows)]. */
static void outputs_make(struct problem *p, float *tiles)
{
    const uint32_t rows = p->rows, ld = output_hessian_cols(rows), tokens = 4 * rows;
    float *g = malloc((size_t)tokens * rows * 4);
    struct gpu_view dg = {0};
    inputs(g, tokens, rows);
    OK(gpu_alloc(arena, (uint64_t)tokens * rows * 4, &dg, &e) &&
           gpu_alloc_rows(arena, rows, ld * 4ull, HESSIAN_TILE, &p->outputs, &e),
       e);
    gpu_upload(cmd, dg, g, (uint64_t)tokens * rows * 4);
    gpu_fill(cmd, p->outputs, 0);
    output_hessian_add(cmd, p->outputs, rows, 0, rows, dg, tokens, 1.0f / tokens);
    OK(gpu_download(cmd, p->outputs, tiles, (uint64_t)rows * ld * 4, &e), e);
    assert_true(output_hessian_settle(tiles, rows, 1));
    gpu_upload(cmd, p->outputs, tiles, (uint64_t)rows * ld * 4);
    free(g);
}

/* By how much the loss falls at most, relative to `loss`, where one code becomes another: in double. */
static double best_exchange(const struct problem *p, const float *tiles, const struct qlinear *q, double loss)
{
    const uint32_t rows = p->rows, cols = p->cols;
    const struct quant_type *type = q->spec.type;
    float *d = malloc((size_t)rows * cols * 4);
    double *hd = calloc((size_t)rows * cols, sizeof *hd), best = 0;
    qlinear_dequant(q, 0, rows, d);
    for (size_t i = 0; i < (size_t)rows * cols; i++)
        d[i] -= p->w[i];
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t s = r / HESSIAN_TILE * HESSIAN_TILE; s < rows && s / HESSIAN_TILE == r / HESSIAN_TILE; s++)
            for (uint32_t c = 0; c < cols; c++)
                hd[(size_t)r * cols + c] += tile_element(tiles, rows, r, s) * d[(size_t)s * cols + c];
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < cols; c++) {
            double g = 0, ho = tile_element(tiles, rows, r, r), h = p->h[(size_t)c * cols + c];
            for (uint32_t k = 0; k < cols; k++)
                g += hd[(size_t)r * cols + k] * p->h[(size_t)k * cols + c];
            for (int code = type->lo; code <= type->hi; code++) {
                double t = (double)qlinear_scale(q, r, 0, c / q->spec.group) * (code - q->codes[(size_t)r * cols + c]);
                best = fmax(best, -(2 * t * g + t * t * ho * h) / loss);
            }
        }
    free(d);
    free(hd);
    return best;
}

/* Codes one by one: passes make the loss less, scales stay, and in the end no other code is better anywhere. */
static void test_code_descent(void **state)
{
    (void)state;
    static const struct {
        uint32_t rows, cols, group;
        const char *type;
        bool dead;
    } cases[] = {{130, 128, 128, "2", false},
                 {70, 172, 64, "3", true},
                 {HESSIAN_TILE + 68, 64, 32, "ternary", false},
                 {66, 256, 16, "Q2_K", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct problem p;
        struct quantize_options o;
        struct qlinear q;
        struct linear_report report;
        uint64_t moved = 1, all = 0;
        problem_make(&p, cases[i].rows, cases[i].cols, false, cases[i].dead);
        float *tiles = malloc((size_t)p.rows * output_hessian_cols(p.rows) * 4);
        outputs_make(&p, tiles);
        quantize_defaults(&o);
        o.method = METHOD_GPTQ;
        o.code_type = quant_type_find(cases[i].type);
        run(&p, &o, cases[i].group, 1 << 20, &q, &report);
        for (uint32_t r = 0; cases[i].dead && r < p.rows; r++) /* as the method has them */
            p.w[r * p.cols + 3] = p.w[r * p.cols + p.cols - 1] = 0;
        gpu_upload(cmd, p.dw, p.w, (uint64_t)p.rows * p.cols * 4);
        struct gpu_view square;
        OK(gpu_alloc(arena, (uint64_t)p.cols * p.cols * 4, &square, &e), e);
        hessian_square(cmd, &p.hessian, HESSIAN_TRAIN, square);
        const size_t n_scales = (size_t)p.rows * quant_row_scales(&q.spec, p.cols);
        float *scales = malloc(n_scales * sizeof *scales);
        memcpy(scales, q.scales, n_scales * sizeof *scales);
        const double start = loss_both(&p, tiles, &q), far = best_exchange(&p, tiles, &q, start);
        double loss = start;
        for (uint32_t round = 0; moved && round < 25; round++) {
            OK(code_descent(cmd, p.dw, square, output_hessian_rows(p.outputs, p.rows, 0, p.rows), arena, &q, 8, &moved,
                            &e),
               e);
            double next = loss_both(&p, tiles, &q);
            assert_true(next < loss || (!moved && next == loss));
            loss = next;
            all += moved;
        }
        double left = best_exchange(&p, tiles, &q, loss);
        print_message(
            "%s: %.3g of gptq's loss, %.3g of the codes moved; the best exchange %.2g of the loss, then %.2g\n",
            cases[i].type, loss / start, (double)all / p.rows / p.cols, far, left);
        assert_int_equal(moved, 0);
        assert_true(loss < 0.95 * start && far > 1e-5 && left < 1e-7);
        assert_memory_equal(q.scales, scales, n_scales * sizeof *scales);
        for (size_t k = 0; k < (size_t)p.rows * p.cols; k++)
            assert_true(q.codes[k] >= q.spec.type->lo && q.codes[k] <= q.spec.type->hi);
        free(scales);
        free(tiles);
        qlinear_free(&q);
        problem_free(&p);
    }
}

/* What is learned with the outputs' Hessian, too, is better by both than what is learned without; losses are told by both; row tiles
 * do not change a bit; and a tile's rows go back to their start together, from where codes go on. */
static void test_both_hessians(void **state)
{
    (void)state;
    static const struct {
        uint32_t rows, cols, group;
        const char *type;
    } cases[] = {{130, 128, 128, "2"}, {70, 172, 64, "3"}, {HESSIAN_TILE + 68, 64, 32, "ternary"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct problem p;
        struct quantize_options o;
        struct qlinear q, tiled, plain;
        struct linear_report report, again;
        problem_make(&p, cases[i].rows, cases[i].cols, true, false);
        const uint32_t rows = p.rows;
        float *tiles = malloc((size_t)rows * output_hessian_cols(rows) * 4);
        outputs_make(&p, tiles);
        const struct gpu_view outputs = p.outputs;
        p.outputs = (struct gpu_view){0};
        quantize_defaults(&o);
        o.code_type = quant_type_find(cases[i].type);
        o.gumbel.steps = 480;
        run(&p, &o, cases[i].group, 1 << 28, &plain, &report);
        p.outputs = outputs;
        run(&p, &o, cases[i].group, 1 << 28, &q, &report);
        double with = loss_both(&p, tiles, &q), without = loss_both(&p, tiles, &plain),
               norm = loss_both(&p, tiles, NULL);
        print_message("case %zu: %.4g with both, %.4g with the inputs' alone, gptq %.4g\n", i, with / norm,
                      without / norm, report.loss_gptq);
        assert_true(with < 0.98 * without);
        assert_true(fabs(report.loss_final - with / norm) <= 1e-3 * with / norm);
        assert_true(report.loss_final < report.loss_gptq);
        assert_int_equal(report.rows_rolled_back, 0);
        run(&p, &o, cases[i].group, 1, &tiled, &again);
        assert_memory_equal(q.codes, tiled.codes, (size_t)rows * p.cols);
        assert_memory_equal(q.scales, tiled.scales, (size_t)rows * q.groups * 4);
        qlinear_free(&tiled);
        /* Nothing that random codes have is better: all rows go back, and from there codes still find some gain. */
        o.gumbel.steps = 2;
        o.gumbel.reach = 1000;
        o.gumbel.lr_scales = 1;
        run(&p, &o, cases[i].group, 1 << 28, &tiled, &again);
        assert_int_equal(again.rows_rolled_back, rows);
        assert_true(again.loss_final < 0.97 * again.loss_gptq);
        assert_true(fabs(again.loss_final - loss_both(&p, tiles, &tiled) / norm) <= 1e-3 * again.loss_final);
        qlinear_free(&tiled);
        qlinear_free(&q);
        qlinear_free(&plain);
        free(tiles);
        problem_free(&p);
    }
}

/* Same method, single against double precision: nearly all codes equal, and a loss as good. */
static void test_gptq(void **state)
{
    (void)state;
    static const struct {
        uint32_t rows, cols, group;
        const char *type;
    } cases[] = {{40, 128, 128, "2"}, {33, 172, 64, "2"},       {16, 96, 32, "3"},
                 {7, 384, 256, "4"},  {24, 160, 64, "ternary"}, {9, 64, 16, "8"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct problem p;
        struct quantize_options o;
        struct qlinear q;
        struct linear_report report;
        problem_make(&p, cases[i].rows, cases[i].cols, false, i == 1);
        quantize_defaults(&o);
        o.method = METHOD_GPTQ;
        o.code_type = quant_type_find(cases[i].type);
        run(&p, &o, cases[i].group, 1 << 20, &q, &report);

        struct qlinear ref;
        OK(qlinear_init(&ref, p.rows, p.cols, q.spec, &e), e);
        assert_true(ref_gptq(p.w, p.rows, p.cols, p.h, cases[i].group, o.code_type->lo, o.code_type->hi, 0.01,
                             ref.codes, ref.scales));
        size_t equal = 0, n = (size_t)p.rows * p.cols;
        for (size_t k = 0; k < n; k++)
            equal += q.codes[k] == ref.codes[k];
        /* At 8 bits many scales are nearly as good, and codes depend on which one is taken. */
        if (o.code_type->bits < 8 && equal < n * 95 / 100)
            fail_msg("case %zu: only %zu of %zu codes as in the reference", i, equal, n);
        double loss = total_loss(&p, &q), ref_loss = total_loss(&p, &ref), norm = weight_norm(&p);
        assert_true(loss <= 1.03 * ref_loss);
        /* The reported losses are those of the stored codes. */
        assert_true(fabs(report.loss_gptq - loss / norm) <= 1e-3 * loss / norm);
        assert_true(report.loss_gptq < report.loss_rtn);
        assert_false(report.damp_raised || report.diagonal_only);
        qlinear_free(&ref);
        qlinear_free(&q);
        problem_free(&p);
    }
}

static void test_gsq(void **state)
{
    (void)state;
    static const struct {
        uint32_t rows, cols, group;
        const char *type;
    } cases[] = {{130, 128, 128, "2"}, {70, 172, 64, "3"}, {65, 96, 32, "ternary"}, {64, 128, 64, "4"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct problem p;
        struct quantize_options o;
        struct qlinear whole, tiles;
        struct linear_report report, again;
        problem_make(&p, cases[i].rows, cases[i].cols, true, false);
        quantize_defaults(&o);
        o.code_type = quant_type_find(cases[i].type);
        o.gumbel.steps = 480; /* 120 leave the logits no time to settle */
        run(&p, &o, cases[i].group, 1 << 28, &whole, &report);
        /* Better than its start, by what it says and by the reference's count. */
        if (!(report.loss_final < 0.97 * report.loss_gptq))
            fail_msg("case %zu: loss %g from gptq's %g, rtn's %g, %u rows rolled back", i, report.loss_final,
                     report.loss_gptq, report.loss_rtn, report.rows_rolled_back);
        double loss = total_loss(&p, &whole) / weight_norm(&p);
        assert_true(fabs(report.loss_final - loss) <= 1e-3 * loss);
        for (size_t k = 0; k < (size_t)p.rows * p.cols; k++)
            assert_true(whole.codes[k] >= o.code_type->lo && whole.codes[k] <= o.code_type->hi);
        for (size_t k = 0; k < (size_t)p.rows * whole.groups; k++)
            assert_true(whole.scales[k] == scale_round(SCALE_F16, whole.scales[k]));
        /* Tiles of rows do not change a bit. */
        run(&p, &o, cases[i].group, 1, &tiles, &again);
        assert_memory_equal(whole.codes, tiles.codes, (size_t)p.rows * p.cols);
        assert_memory_equal(whole.scales, tiles.scales, (size_t)p.rows * whole.groups * 4);
        qlinear_free(&whole);
        qlinear_free(&tiles);
        problem_free(&p);
    }
}

/* What is stored of scales and offsets is what a file of the type can hold. */
static void check_stored(const struct qlinear *q)
{
    const struct quant_type *t = q->spec.type;
    for (size_t i = 0; i < (size_t)q->rows * q->cols; i++)
        assert_true(q->codes[i] >= t->lo && q->codes[i] <= t->hi);
    for (size_t i = 0; i < (size_t)q->rows * quant_row_scales(&q->spec, q->cols); i++)
        assert_true(q->scales[i] == scale_round(SCALE_F16, q->scales[i]));
    for (size_t i = 0; t->super && i < (size_t)q->rows * quant_row_groups(&q->spec, q->cols); i++) {
        bool offset = i / q->groups % quant_type_planes(t) == 1;
        assert_true(q->integers[i] >= (offset ? 0 : t->scale_lo));
        assert_true(q->integers[i] <= (offset ? t->offset_hi : t->scale_hi));
    }
}

/* Every type that brings its own geometry: RTN, GPTQ and Gumbel-Softmax, each better than the one before, and
 * each of them something that a file can hold. */
static void test_types(void **state)
{
    (void)state;
    const struct quant_type *type;
    for (size_t i = 0; (type = quant_type_at(i)); i++) {
        struct problem p;
        struct quantize_options o;
        struct qlinear q, tiles;
        struct linear_report report;
        if (!type->group)
            continue;
        problem_make(&p, 70, 256, true, i % 2 == 0);
        quantize_defaults(&o);
        o.gumbel.steps = 500; /* an effort's fewer steps are for what a block's objective follows */
        o.method = METHOD_GPTQ;
        o.code_type = type;
        run(&p, &o, type->group, 1 << 28, &q, &report);
        double loss = total_loss(&p, &q), norm = weight_norm(&p), start = report.loss_gptq;
        assert_true(fabs(start - loss / norm) <= 1e-3 * loss / norm);
        check_stored(&q);
        if (!(start < report.loss_rtn))
            fail_msg("%s: GPTQ's loss %g, RTN's %g", type->name, start, report.loss_rtn);
        print_message("%s: rtn %.5g, gptq %.5g", type->name, report.loss_rtn, start);
        qlinear_free(&q);
        if (type->learned) {
            o.method = METHOD_GSQ;
            run(&p, &o, type->group, 1 << 28, &q, &report);
            loss = total_loss(&p, &q);
            print_message(", gsq %.5g (%u rows rolled back)", report.loss_final, report.rows_rolled_back);
            assert_true(fabs(report.loss_final - loss / norm) <= 1e-3 * loss / norm);
            check_stored(&q);
            assert_true(type->bits > 4 ? report.loss_final <= start : report.loss_final < 0.98 * start);
            run(&p, &o, type->group, 1, &tiles, &report);
            assert_memory_equal(q.codes, tiles.codes, (size_t)p.rows * p.cols);
            assert_memory_equal(q.scales, tiles.scales, p.rows * quant_row_scales(&q.spec, q.cols) * sizeof *q.scales);
            if (type->super)
                assert_memory_equal(q.integers, tiles.integers, p.rows * quant_row_groups(&q.spec, q.cols));
            qlinear_free(&q);
            qlinear_free(&tiles);
        }
        print_message("\n");
        problem_free(&p);
    }
}

/* Held-out inputs that contradict the training ones: the guard must keep the start. */
static void test_guard(void **state)
{
    (void)state;
    struct problem p;
    struct quantize_options o;
    struct qlinear gptq, gsq;
    struct linear_report first, second;
    problem_make(&p, 32, 64, true, false);
    quantize_defaults(&o);
    o.gumbel.steps = 150;
    o.method = METHOD_GPTQ;
    run(&p, &o, 64, 1 << 28, &gptq, &first);

    /* Held-out inputs on which the start makes no error: the projection away from the rows of its difference.
     * Whatever tuning changes is worse there. */
    double basis[32][64];
    float *h = calloc(64 * 64, 4);
    assert_non_null(h);
    for (int i = 0; i < 64; i++)
        h[i * 64 + i] = 1;
    for (int r = 0; r < 32; r++) {
        double norm = 0;
        for (int c = 0; c < 64; c++)
            basis[r][c] = (double)gptq.codes[r * 64 + c] * gptq.scales[r] - p.w[r * 64 + c];
        for (int before = 0; before < r; before++) {
            double along = 0;
            for (int c = 0; c < 64; c++)
                along += basis[before][c] * basis[r][c];
            for (int c = 0; c < 64; c++)
                basis[r][c] -= along * basis[before][c];
        }
        for (int c = 0; c < 64; c++)
            norm += basis[r][c] * basis[r][c];
        for (int c = 0; c < 64; c++)
            basis[r][c] /= sqrt(norm);
        for (int i = 0; i < 64 * 64; i++)
            h[i] -= (float)(basis[r][i / 64] * basis[r][i % 64]);
    }
    gpu_upload(cmd, p.hessian.held, h, 64 * 64 * 4);
    free(h);
    o.method = METHOD_GSQ;
    run(&p, &o, 64, 1 << 28, &gsq, &second);
    assert_int_equal(second.rows_rolled_back, 32);
    assert_memory_equal(gptq.codes, gsq.codes, 32 * 64);
    assert_memory_equal(gptq.scales, gsq.scales, 32 * 4);
    assert_true(fabs(second.loss_final - second.loss_gptq) <= 1e-6 * second.loss_gptq);
    qlinear_free(&gptq);
    qlinear_free(&gsq);
    problem_free(&p);
}

/* A Hessian that no damping makes positive: no error feedback, said so, and the result is RTN's. */
static void test_hopeless_hessian(void **state)
{
    (void)state;
    struct problem p;
    struct quantize_options o;
    struct qlinear q, rtn;
    struct linear_report report;
    problem_make(&p, 8, 64, false, false);
    float *h = malloc(64 * 64 * 4);
    for (int i = 0; i < 64 * 64; i++)
        h[i] = i % 65 == 0 ? 1.0f : 1e6f * (float)((i * 7) % 5);
    gpu_upload(cmd, p.hessian.train, h, 64 * 64 * 4);
    free(h);
    quantize_defaults(&o);
    o.method = METHOD_GPTQ;
    run(&p, &o, 32, 1 << 20, &q, &report);
    assert_true(report.diagonal_only);
    struct matrix item = {.part = block_part_of(ROLE_O),
                          .module = "test",
                          .rows = 8,
                          .cols = 64,
                          .coded = true,
                          .spec = {o.code_type, 32, SCALE_F16}};
    gpu_upload(cmd, p.dw, p.w, 8 * 64 * 4);
    o.method = METHOD_RTN;
    struct linear_task t = {.cmd = cmd, .options = &o, .item = &item, .w = p.dw, .scratch = arena};
    OK(quantize_linear(&t, &rtn, &report, &e), e);
    assert_memory_equal(q.codes, rtn.codes, 8 * 64);
    qlinear_free(&q);
    qlinear_free(&rtn);
    problem_free(&p);
}

static void test_reach(void **state)
{
    (void)state;
    struct quantize_options o;
    quantize_defaults(&o);
    /* The paper's schedule: 1280 steps, 1e-4, cosine to a tenth: about 0.07 (docs/method.md 2). */
    o.gumbel.steps = 1280;
    o.gumbel.reach = 1;
    double paper = gumbel_reach(&o.gumbel);
    assert_true(paper > 0.069 && paper < 0.072);
    /* Fewer steps keep it. */
    o.gumbel.steps = 160;
    assert_true(fabs(gumbel_reach(&o.gumbel) - paper) < 0.001);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reach),
        cmocka_unit_test(test_hessian),
        cmocka_unit_test(test_raised_diagonal),
        cmocka_unit_test(test_expected_experts),
        cmocka_unit_test(test_output_hessian),
        cmocka_unit_test(test_code_descent),
        cmocka_unit_test(test_both_hessians),
        cmocka_unit_test(test_gptq),
        cmocka_unit_test(test_gsq),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_guard),
        cmocka_unit_test(test_hopeless_hessian),
    };
    return device_done(cmocka_run_group_tests_name("quant", tests, device_setup, NULL));
}
