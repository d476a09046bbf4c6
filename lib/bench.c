/* Every kernel's rate, and its share of what the device can do at all. The limits are measured
 * here, too: the bandwidth of a copy, and multiply-adds in registers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/os.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/kernels.h"
#include "lib/bench_cases.h"
#include "lib/lib_internal.h"

/* One measurement lasts about this long, and the best of so many counts: others use the machine as well. */
#define BATCH_SECONDS 0.05
enum { BATCHES = 7 };

/* Best seconds per call of run(ctx), which records work. */
static bool measure(struct gpu_cmd *cmd, void (*run)(void *ctx), void *ctx, double *seconds, struct err *e)
{
    *seconds = INFINITY;
    unsigned calls = 1;
    run(ctx); /* makes the pipeline, and the submissions' lengths are learnt */
    if (!gpu_cmd_finish(cmd, e))
        return false;
    for (int batch = 0; batch < BATCHES;) {
        uint64_t start = os_now_ns();
        for (unsigned i = 0; i < calls; i++)
            run(ctx);
        if (!gpu_cmd_finish(cmd, e))
            return false;
        double t = (double)(os_now_ns() - start) * 1e-9;
        if (t < BATCH_SECONDS / 2 && calls < 100000) {
            calls *= t < BATCH_SECONDS / 20 ? 10 : 2;
            continue;
        }
        *seconds = fmin(*seconds, t / calls);
        batch++;
    }
    return true;
}

struct measured {
    const struct bench *b;
    const struct bench_case *c; /* NULL: a limit */
    struct bench_work work;
    char shape[64];
};

static void run_case(void *ctx)
{
    struct measured *m = ctx;
    m->work = m->c->run(m->b, m->shape, sizeof m->shape);
}

static void run_peak(void *ctx)
{
    struct measured *m = ctx;
    m->work.flops = bench_peak_flops(m->b);
}

static void run_copy(void *ctx)
{
    struct measured *m = ctx;
    gpu_copy(m->b->cmd, m->b->buf[0], m->b->buf[1], m->b->buf[0].size);
    m->work.bytes = 2.0 * (double)m->b->buf[0].size;
}

struct limits {
    double flops, bytes; /* per second */
};

static bool measure_limits(const struct bench *b, struct limits *l, struct err *e)
{
    double seconds;
    struct measured m = {.b = b};
    if (!measure(b->cmd, run_peak, &m, &seconds, e))
        return false;
    l->flops = m.work.flops / seconds;
    if (!measure(b->cmd, run_copy, &m, &seconds, e))
        return false;
    l->bytes = m.work.bytes / seconds;
    return true;
}

/* Random numbers in every buffer: in [-1, 1), none a subnormal or NaN. */
static bool make_buffers(struct bench *b, struct gpu_arena *arena, struct err *e)
{
    uint64_t n = (uint64_t)b->rows * b->cols, state = 1;
    float *x = malloc(n * sizeof *x);
    if (!x)
        return err_nomem(e, "the bench", n * sizeof *x);
    for (uint64_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(state >> 40) / 8388608.0f - 1;
    }
    bool ok = true;
    for (int i = 0; ok && i < BENCH_BUFFERS; i++) {
        unsigned times = i < 2 ? BENCH_WIDE : 1;
        ok = gpu_alloc(arena, n * times * sizeof *x, &b->buf[i], e);
        for (unsigned t = 0; ok && t < times; t++)
            gpu_upload(b->cmd, gpu_slice(b->buf[i], t * n * sizeof *x, n * sizeof *x), x, n * sizeof *x);
    }
    ok = ok && gpu_cmd_finish(b->cmd, e);
    free(x);
    return ok;
}

static bool run_all(const struct bench *b, struct gpu *g, const struct gsq_bench_options *o,
                    const struct limits *l, unsigned *n, struct err *e)
{
    for (size_t i = 0; i < n_bench_cases; i++) {
        struct measured m = {.b = b, .c = &bench_cases[i]};
        double seconds;
        if (o->kernel && !strstr(kernel_decls[m.c->kernel].name, o->kernel))
            continue;
        if (!measure(b->cmd, run_case, &m, &seconds, e))
            return e->kind != ERR_STOPPED && err_context(e, "%s", kernel_decls[m.c->kernel].name);
        const char *variant = m.work.variant ? m.work.variant : gpu_kernel_variant(g, m.c->kernel, NULL, e);
        struct gsq_bench_row row = {
            .size = sizeof row,
            .kernel = kernel_decls[m.c->kernel].name,
            .variant = variant ? variant : "",
            .shape = m.shape,
            .seconds = seconds,
            .gflops = m.work.flops / seconds * 1e-9,
            .gbytes_per_s = m.work.bytes / seconds * 1e-9,
            .share_of_limit = fmax(m.work.flops / l->flops, m.work.bytes / l->bytes) / seconds,
        };
        if (o->row)
            o->row(o->ctx, &row);
        ++*n;
    }
    return true;
}

/* Kernels that nobody has written a case for: "name, name". */
static void list_missing(char *out, size_t cap)
{
    size_t n = 0;
    out[0] = 0;
    for (unsigned k = 0; k < KERNEL_COUNT && n < cap; k++) {
        bool found = false;
        for (size_t i = 0; i < n_bench_cases; i++)
            found = found || bench_cases[i].kernel == k;
        if (!found)
            n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? ", " : "", kernel_decls[k].name);
    }
}

static bool bench(struct gpu *g, const struct gsq_bench_options *o, struct gsq_bench_result *out, struct err *e)
{
    bool cpu = gpu_info(g)->caps & GPU_CAP_CPU, ok = false;
    struct bench b = {.rows = cpu ? 512 : 4096, .cols = 2048, .cube = cpu ? 1024 : 2048};
    struct gpu_arena *arena = NULL;
    struct limits limits = {0};
    unsigned n = 0;
    if (!gpu_cmd_create(&b.cmd, g, e) || !gpu_arena_create(&arena, g, "bench", e))
        goto done;
    gpu_cmd_set_poll(b.cmd, lib_go_on, NULL);
    if (!make_buffers(&b, arena, e) || !measure_limits(&b, &limits, e))
        goto done;
    out->copy_gbytes_per_s = limits.bytes * 1e-9;
    out->fma_gflops = limits.flops * 1e-9;
    if (o->limits)
        o->limits(o->ctx, out);
    if (!run_all(&b, g, o, &limits, &n, e))
        goto done;
    out->cases = n;
    ok = n > 0;
    if (!ok) {
        err_set(e, ERR_USER, "no kernel has '%s' in its name", o->kernel);
        err_hint(e, "`gsq devices` lists the kernels");
    }
done:
    gpu_arena_destroy(&arena);
    gpu_cmd_destroy(&b.cmd);
    return ok;
}

void gsq_bench_options_init_sized(struct gsq_bench_options *o, size_t size)
{
    struct gsq_bench_options defaults = {.size = size};
    memcpy(o, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

bool gsq_bench(gsq_device *device, const struct gsq_bench_options *options, struct gsq_bench_result *result,
               struct gsq_error *e)
{
    struct err why = {0};
    struct gsq_bench_options o = {0};
    struct gsq_bench_result out = {.size = sizeof out};
    bool ok = lib_take(&o, sizeof o, options, "gsq_bench_options", &why) && bench(device->gpu, &o, &out, &why);
    list_missing(out.kernels_without_case, sizeof out.kernels_without_case);
    lib_give(result, &out, sizeof out);
    return lib_result(ok, &why, e);
}
