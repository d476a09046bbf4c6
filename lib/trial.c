#include "lib/trial.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/os.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/gpu_pipeline.h"
#include "lib/kernel_cases.h"

/* What an output holds before the call: a NaN. */
#define UNWRITTEN 0xffe5a5a5u
/* A call lasts so long, if the device is not too fast for the largest size, and is repeated until so long has passed. */
#define CALL_SECONDS 1e-3
#define ROW_SECONDS  8e-3
enum { REPEATS_LEAST = 3, REPEATS = 9 };
/* Of kernels that have no bound here: of the largest number of a result. */
#define SHARE_F32 1e-4
#define SHARE_F16 (1.0 / 64)
/* Of a product: two operands of 8 bits; two of 11, and as much again for sums of few products in f16. */
#define ROUNDED_BF16 (2 * 0x1.01p-8)
#define ROUNDED_F16  (4 * 0x1.001p-11)

/* ---- one call, with what it reads and writes on the host ---- */

struct call {
    struct trial_case c;
    unsigned n;
    struct kernel_buffer b[KERNEL_BUFFERS];
    void *in[KERNEL_BUFFERS], *out[KERNEL_BUFFERS];
};

static void call_free(struct call *c)
{
    for (unsigned i = 0; i < c->n; i++) {
        free(c->in[i]);
        free(c->out[i]);
    }
}

static bool call_make(struct call *c, const struct trial_case *t, struct err *e)
{
    uint64_t state = 1;
    *c = (struct call){.c = *t};
    c->n = kernel_case_buffers(t->kernel, &c->c.s, c->b);
    for (unsigned i = 0; i < c->n; i++) {
        const struct kernel_buffer *b = &c->b[i];
        if (b->fill == FILL_AS)
            continue;
        c->in[i] = malloc(b->n * 4);
        c->out[i] = malloc(b->n * 4);
        if (!c->in[i] || !c->out[i])
            return err_nomem(e, "the trial of a kernel", b->n * 4);
        if (b->fill != FILL_NOTHING)
            kernel_case_fill(b, &c->c.s, &state, c->in[i], b->n);
        for (uint64_t k = 0; b->fill == FILL_NOTHING && k < b->n; k++)
            ((uint32_t *)c->in[i])[k] = UNWRITTEN;
    }
    float *old = gpu_gemm_kernel(t->kernel, NULL, NULL) ? c->in[3] : NULL;
    for (uint64_t k = 0; old && c->c.s.beta == 0 && k < c->b[3].n; k++) /* then C is not read */
        old[k] = NAN;
    return true;
}

/* Into c->out what its buffers hold after the call. */
static bool call_run(struct call *c, struct gpu_cmd *cmd, struct gpu_arena *arena, struct err *e)
{
    struct gpu_view views[KERNEL_BUFFERS];
    union kernel_args args;
    gpu_arena_reset(arena, 0);
    for (unsigned i = 0; i < c->n; i++) {
        if (!c->in[i])
            continue;
        if (!gpu_alloc(arena, c->b[i].n * 4, &views[i], e))
            return false;
        gpu_upload(cmd, views[i], c->in[i], c->b[i].n * 4);
    }
    for (unsigned i = 0; i < c->n; i++)
        if (c->b[i].fill == FILL_AS)
            views[i] = views[c->b[i].as];
    kernel_case_call(cmd, c->c.kernel, &c->c.s, views, &args);
    for (unsigned i = 0; i < c->n; i++)
        if (c->in[i] && !gpu_download(cmd, views[i], c->out[i], c->b[i].n * 4, e))
            return false;
    return gpu_cmd_finish(cmd, e);
}

/* ---- right or wrong ---- */

static bool wrong(const struct call *c, uint64_t i, double got, double want, char why[TRIAL_WHY])
{
    char shape[96];
    kernel_shape_text(c->c.kernel, &c->c.s, shape, sizeof shape);
    snprintf(why, TRIAL_WHY, "wrong values: element %llu is %.4g, should be %.4g (%s)", (unsigned long long)i, got,
             want, shape);
    return false;
}

/* Outside of a matrix' rows, and what is only read. */
static void untouched(const struct call *c, char why[TRIAL_WHY])
{
    for (unsigned i = 0; i < c->n; i++) {
        const struct kernel_buffer *b = &c->b[i];
        const uint32_t *in = c->in[i], *out = c->out[i];
        for (uint64_t k = 0; in && k < b->n; k++)
            if (in[k] != out[k] && (!b->written || (b->ld && k % b->ld >= b->cols))) {
                snprintf(why, TRIAL_WHY, "writes where it should not: element %llu of buffer %u", (unsigned long long)k,
                         i);
                return;
            }
    }
}

/* `rounded`: of sum |a||b|, where operands may be rounded. */
static bool product_right(const struct call *c, double rounded, char why[TRIAL_WHY])
{
    const struct kernel_shape *s = &c->c.s;
    const float *a = c->in[0], *b = c->in[1], *old = c->in[3], *got = c->out[3];
    const double unit = 0x1p-24;
    bool a_transposed, b_transposed;
    gpu_gemm_kernel(c->c.kernel, &a_transposed, &b_transposed);
    /* From a row, or column of B^T, to the next, and along k. */
    const uint64_t a_row = a_transposed ? 1 : s->lda, a_k = a_transposed ? s->lda : 1;
    const uint64_t b_col = b_transposed ? 1 : s->ldb, b_k = b_transposed ? s->ldb : 1;
    for (uint32_t row = 0; row < s->m; row++)
        for (uint32_t col = 0; col < s->n; col++) {
            double sum = 0, size = 0;
            uint64_t at = (uint64_t)row * s->ldc + col;
            for (uint32_t k = 0; k < s->k; k++) {
                double x = (double)a[row * a_row + k * a_k] * b[col * b_col + k * b_k];
                sum += x;
                size += fabs(x);
            }
            double before = s->beta != 0 ? (double)s->beta * old[at] : 0, want = s->alpha * sum + before;
            double allowed = ((s->k + 4) * unit + rounded) * (fabs((double)s->alpha) * size + fabs(before));
            if (!(fabs(got[at] - want) <= allowed))
                return wrong(c, at, got[at], want, why);
        }
    return true;
}

/* Against what the usual variant gave, which is not nothing. */
static bool like_usual(const struct call *c, const struct call *usual, char why[TRIAL_WHY])
{
    for (unsigned i = 0; i < c->n; i++) {
        const float *got = c->out[i], *want = usual->out[i];
        double most = 0;
        if (!got || !c->b[i].written)
            continue;
        for (uint64_t k = 0; k < c->b[i].n; k++)
            most = fmax(most, fabs((double)want[k]));
        if (!(most > 0) || !isfinite(most)) {
            snprintf(why, TRIAL_WHY, "the usual variant gives no results to compare with");
            return false;
        }
        double allowed = most * (c->c.rounding == ROUNDS_F16 ? SHARE_F16 : SHARE_F32);
        for (uint64_t k = 0; k < c->b[i].n; k++)
            if ((!c->b[i].ld || k % c->b[i].ld < c->b[i].cols) && !(fabs((double)got[k] - want[k]) <= allowed))
                return wrong(c, k, got[k], want[k], why);
    }
    return true;
}

/* Whether `variant`, which is forced, is what takes a call; NULL always is. */
static bool takes(struct gpu_cmd *cmd, unsigned kernel, const struct kernel_shape *s, const char *variant, bool *taken,
                  struct err *e)
{
    static const struct gpu_view none[KERNEL_BUFFERS];
    union kernel_args args;
    kernel_args_fill(kernel, s, none, &args);
    const char *in_use = gpu_kernel_variant(gpu_cmd_gpu(cmd), kernel, &args, e);
    *taken = in_use && (!variant || strcmp(in_use, variant) == 0);
    return in_use != NULL;
}

static bool check_row(struct gpu_cmd *cmd, struct gpu_arena *arena, const struct trial_case *t, const char *variant,
                      char why[TRIAL_WHY], struct err *e)
{
    struct gpu *g = gpu_cmd_gpu(cmd);
    struct call c, usual = {0};
    bool product = gpu_gemm_kernel(t->kernel, NULL, NULL);
    bool bf16 = variant && gpu_kernel_needs(g, t->kernel, variant, GPU_CAP_BF16);
    double rounded = t->rounding == ROUNDS_F32 ? 0 : bf16 ? ROUNDED_BF16 : ROUNDED_F16;
    bool ok = call_make(&c, t, e) && gpu_kernel_force(g, t->kernel, variant, e) && call_run(&c, cmd, arena, e);
    if (ok && !product)
        ok = call_make(&usual, t, e) && gpu_kernel_force(g, t->kernel, NULL, e) && call_run(&usual, cmd, arena, e);
    if (ok && (product ? product_right(&c, rounded, why) : like_usual(&c, &usual, why)))
        untouched(&c, why);
    call_free(&usual);
    call_free(&c);
    return ok;
}

bool trial_check(struct gpu_cmd *cmd, struct gpu_arena *arena, unsigned kernel, const char *variant,
                 char why[TRIAL_WHY], struct err *e)
{
    struct gpu *g = gpu_cmd_gpu(cmd);
    unsigned rows = 0;
    why[0] = 0;
    bool ok = true;
    for (size_t i = 0; ok && !why[0] && i < n_trial_cases; i++) {
        struct trial_case t;
        bool taken = false;
        struct err made = {0};
        trial_case(i, &t);
        if (t.kernel != kernel)
            continue;
        ok = gpu_kernel_force(g, kernel, variant, e);
        if (ok && !takes(cmd, kernel, &t.s, variant, &taken, &made)) {
            ok = !gpu_lost(g) || err_set(e, made.kind, "%s", made.msg);
            snprintf(why, TRIAL_WHY, "cannot be compiled: %.120s", made.msg);
        } else if (ok && taken) {
            rows++;
            ok = check_row(cmd, arena, &t, variant, why, e);
        }
    }
    if (ok && !rows && !why[0])
        snprintf(why, TRIAL_WHY, "there is nothing to try it on");
    gpu_kernel_force(g, kernel, NULL, NULL);
    gpu_arena_reset(arena, 0);
    return ok;
}

/* ---- time ---- */

struct timed {
    struct gpu_cmd *cmd;
    struct bench_case c;
    struct gpu_view views[KERNEL_BUFFERS];
};

/* Of one call. variant NULL: the usual one. */
static bool time_call(struct timed *t, const char *variant, double *seconds, struct err *e)
{
    union kernel_args args;
    gpu_cmd_profile_clear(t->cmd);
    if (!gpu_kernel_force(gpu_cmd_gpu(t->cmd), t->c.kernel, variant, e))
        return false;
    uint64_t start = os_now_ns();
    kernel_case_call(t->cmd, t->c.kernel, &t->c.s, t->views, &args);
    if (!gpu_cmd_finish(t->cmd, e))
        return false;
    *seconds = gpu_cmd_profile(t->cmd, t->c.kernel).seconds;
    if (gpu_info(gpu_cmd_gpu(t->cmd))->timestamp_ns == 0)
        *seconds = (double)(os_now_ns() - start) * 1e-9;
    return true;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, unsigned n)
{
    qsort(x, n, sizeof *x, by_size);
    return x[n / 2];
}

/* Row i of `gsq bench` at a size at which the usual variant takes a while, its buffers in the arena; the device is awake then.
 * A size for which there is no memory is too large. */
static bool grow_row(struct timed *t, struct gpu_arena *arena, size_t i, struct err *e)
{
    static const struct bench_sizes sizes[] = {
        {.rows = 128, .cols = 512, .cube = 256},
        {.rows = 256, .cols = 1024, .cube = 512},
        {.rows = 1024, .cols = 2048, .cube = 1024},
        {.rows = 2048, .cols = 2048, .cube = 2048},
    };
    double seconds = 0;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes && seconds < CALL_SECONDS; k++) {
        struct timed larger = {.cmd = t->cmd};
        bench_case(i, &sizes[k], &larger.c);
        gpu_mark mark = gpu_arena_mark(arena);
        struct err room = {0};
        if (!kernel_case_make(t->cmd, arena, larger.c.kernel, &larger.c.s, larger.views, k ? &room : e)) {
            gpu_arena_reset(arena, mark);
            return k > 0 && (room.kind == ERR_ENV || err_set(e, room.kind, "%s", room.msg));
        }
        *t = larger;
        for (int warm = 0; warm < 2; warm++) /* the first one is where a pipeline is made */
            if (!time_call(t, NULL, &seconds, e))
                return false;
    }
    return true;
}

bool trial_time(struct gpu_cmd *cmd, struct gpu_arena *arena, unsigned kernel, const char *variant, double *us,
                double *usual_us, struct err *e)
{
    struct gpu *g = gpu_cmd_gpu(cmd);
    bool ok = true;
    *us = *usual_us = 0;
    gpu_cmd_profile_enable(cmd, true);
    for (size_t i = 0; ok && i < n_bench_cases; i++) {
        struct timed t = {.cmd = cmd};
        double usual[REPEATS], its[REPEATS], warm, spent = 0;
        bool taken;
        unsigned n = 0;
        bench_case(i, &(struct bench_sizes){128, 512, 256}, &t.c);
        if (t.c.kernel != kernel)
            continue;
        gpu_arena_reset(arena, 0);
        ok = gpu_kernel_force(g, kernel, variant, e) && takes(cmd, kernel, &t.c.s, variant, &taken, e);
        if (!ok || !taken)
            continue;
        ok = grow_row(&t, arena, i, e) && time_call(&t, variant, &warm, e);
        for (; ok && n < REPEATS && (n < REPEATS_LEAST || spent < ROW_SECONDS); n += ok) {
            ok = time_call(&t, NULL, &usual[n], e) && time_call(&t, variant, &its[n], e);
            spent += ok ? usual[n] + its[n] : 0;
        }
        *us += ok ? median(its, n) * 1e6 : 0;
        *usual_us += ok ? median(usual, n) * 1e6 : 0;
    }
    gpu_cmd_profile_enable(cmd, false);
    gpu_kernel_force(g, kernel, NULL, NULL);
    gpu_arena_reset(arena, 0);
    return ok;
}
