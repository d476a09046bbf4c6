/* gsq bench: every kernel's rate, and its share of what the device can do at all. The limits are measured
 * here, too: the bandwidth of a copy, and multiply-adds in registers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/bench_cases.h"
#include "host/base/os.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/kernels.h"

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

static void print_json(const struct measured *m, const char *variant, double seconds, double share)
{
    cJSON *o = json_event("bench");
    cJSON_AddStringToObject(o, "kernel", kernel_decls[m->c->kernel].name);
    cJSON_AddStringToObject(o, "variant", variant);
    cJSON_AddStringToObject(o, "shape", m->shape);
    cJSON_AddNumberToObject(o, "seconds", seconds);
    cJSON_AddNumberToObject(o, "gflops", m->work.flops / seconds * 1e-9);
    cJSON_AddNumberToObject(o, "gbytes_per_s", m->work.bytes / seconds * 1e-9);
    cJSON_AddNumberToObject(o, "share_of_limit", share);
    json_emit(o);
}

static void print_row(const struct measured *m, const char *variant, double seconds, double share)
{
    bool flops = m->work.flops > 0;
    printf("%-17s %-7s %-30s %10.3f ms  %9.2f %-7s %5.1f %%\n", kernel_decls[m->c->kernel].name, variant,
           m->shape, seconds * 1e3, (flops ? m->work.flops : m->work.bytes) / seconds * 1e-9,
           flops ? "GFLOP/s" : "GB/s", share * 100);
    fflush(stdout);
}

static bool run_all(const struct bench *b, struct gpu *g, const char *filter, bool json,
                    const struct limits *l, unsigned *n, struct err *e)
{
    for (size_t i = 0; i < n_bench_cases; i++) {
        struct measured m = {.b = b, .c = &bench_cases[i]};
        double seconds;
        if (filter && !strstr(kernel_decls[m.c->kernel].name, filter))
            continue;
        if (!measure(b->cmd, run_case, &m, &seconds, e))
            return err_context(e, "%s", kernel_decls[m.c->kernel].name);
        const char *variant = gpu_kernel_variant(g, m.c->kernel, e);
        double share = fmax(m.work.flops / l->flops, m.work.bytes / l->bytes) / seconds;
        (json ? print_json : print_row)(&m, variant ? variant : "", seconds, share);
        ++*n;
    }
    return true;
}

/* Kernels that nobody has written a case for. */
static void print_missing(void)
{
    const char *before = "no case yet: ";
    for (unsigned k = 0; k < KERNEL_COUNT; k++) {
        bool found = false;
        for (size_t i = 0; i < n_bench_cases; i++)
            found = found || bench_cases[i].kernel == k;
        if (found)
            continue;
        printf("%s%s", before, kernel_decls[k].name);
        before = ", ";
    }
    if (before[0] == ',')
        putchar('\n');
}

bool cmd_bench(struct gpu *g, const char *kernel_filter, bool json, struct err *e)
{
    const struct gpu_info *info = gpu_info(g);
    bool cpu = info->caps & GPU_CAP_CPU, ok = false;
    struct bench b = {.rows = cpu ? 512 : 4096, .cols = 2048, .cube = cpu ? 1024 : 2048};
    struct gpu_arena *arena = NULL;
    struct limits limits = {0};
    unsigned n = 0;
    if (!gpu_cmd_create(&b.cmd, g, e) || !gpu_arena_create(&arena, g, "bench", e) ||
        !make_buffers(&b, arena, e) || !measure_limits(&b, &limits, e))
        goto done;
    if (!json)
        printf("%s, %s\ncopies %.1f GB/s, multiply-adds %.1f GFLOP/s\n\n", info->name, info->driver,
               limits.bytes * 1e-9, limits.flops * 1e-9);
    if (!run_all(&b, g, kernel_filter, json, &limits, &n, e))
        goto done;
    if (n == 0) {
        err_set(e, ERR_USER, "no kernel has '%s' in its name", kernel_filter);
        err_hint(e, "`gsq devices` lists the kernels");
        goto done;
    }
    if (json) {
        cJSON *o = json_event("result");
        cJSON_AddStringToObject(o, "command", "bench");
        cJSON_AddStringToObject(o, "device", info->name);
        cJSON_AddStringToObject(o, "driver", info->driver);
        cJSON_AddNumberToObject(o, "copy_gbytes_per_s", limits.bytes * 1e-9);
        cJSON_AddNumberToObject(o, "fma_gflops", limits.flops * 1e-9);
        cJSON_AddNumberToObject(o, "cases", n);
        json_emit(o);
    } else if (!kernel_filter) {
        print_missing();
    }
    ok = true;
done:
    gpu_arena_destroy(&arena);
    gpu_cmd_destroy(&b.cmd);
    return ok;
}
