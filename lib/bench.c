/* Every kernel's rate, and its share of what the device can do at all. The limits are measured
 * here, too: the bandwidth of a copy, and multiply-adds in registers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/base/os.h"
#include "host/gpu/gpu_pipeline.h"
#include "lib/kernel_cases.h"
#include "lib/lib_internal.h"

/* One measurement lasts about this long, and the best of so many counts: others use the machine as well. */
#define BATCH_SECONDS 0.05
enum { BATCHES = 7 };
/* The copy that measures the bandwidth: so many matrices of the rows below. */
enum { COPIED_MATRICES = 5 };

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
    struct gpu_cmd *cmd;
    struct bench_case c;
    struct gpu_view views[KERNEL_BUFFERS];
    union kernel_args args;
};

static void run_case(void *ctx)
{
    struct measured *m = ctx;
    kernel_case_call(m->cmd, m->c.kernel, &m->c.s, m->views, &m->args);
}

static void run_copy(void *ctx)
{
    struct measured *m = ctx;
    gpu_copy(m->cmd, m->views[0], m->views[1], m->views[0].size);
}

/* The buffers of m->c in the arena, in place of those before. */
static bool make_case(struct measured *m, struct gpu_arena *arena, struct err *e)
{
    gpu_arena_reset(arena, 0);
    return kernel_case_make(m->cmd, arena, m->c.kernel, &m->c.s, m->views, e);
}

struct limits {
    double flops, bytes; /* per second */
};

static bool measure_limits(struct gpu_cmd *cmd, struct gpu_arena *arena, const struct bench_sizes *sizes,
                           struct limits *l, struct err *e)
{
    double seconds;
    struct measured m = {.cmd = cmd};
    bench_case(0, sizes, &m.c);
    if (!make_case(&m, arena, e) || !measure(cmd, run_case, &m, &seconds, e))
        return false;
    l->flops = m.c.flops / seconds;
    struct kernel_buffer copied = {.n = COPIED_MATRICES * (uint64_t)sizes->rows * sizes->cols};
    if (!kernel_case_buffer(cmd, arena, &copied, &m.c.s, &m.views[0], e) ||
        !kernel_case_buffer(cmd, arena, &copied, &m.c.s, &m.views[1], e) || !measure(cmd, run_copy, &m, &seconds, e))
        return false;
    l->bytes = 2.0 * (double)m.views[0].size / seconds;
    return true;
}

static bool run_all(struct gpu_cmd *cmd, struct gpu_arena *arena, const struct bench_sizes *sizes,
                    const struct gsq_bench_options *o, const struct limits *l, unsigned *n, struct err *e)
{
    for (size_t i = 0; i < n_bench_cases; i++) {
        struct measured m = {.cmd = cmd};
        double seconds;
        bench_case(i, sizes, &m.c);
        const char *name = kernel_decls[m.c.kernel].name;
        if (o->kernel && !strstr(name, o->kernel))
            continue;
        if (!make_case(&m, arena, e) || !measure(cmd, run_case, &m, &seconds, e))
            return e->kind != ERR_STOPPED && err_context(e, "%s", name);
        const char *variant = gpu_kernel_variant(gpu_cmd_gpu(cmd), m.c.kernel, &m.args, e);
        struct gsq_bench_row row = {
            .size = sizeof row,
            .kernel = name,
            .variant = variant ? variant : "",
            .shape = m.c.shape,
            .seconds = seconds,
            .gflops = m.c.flops / seconds * 1e-9,
            .gbytes_per_s = m.c.bytes / seconds * 1e-9,
            .share_of_limit = fmax(m.c.flops / l->flops, m.c.bytes / l->bytes) / seconds,
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
        for (size_t i = 0; i < n_bench_cases; i++) {
            struct bench_case c;
            bench_case(i, &(struct bench_sizes){64, 64, 64}, &c);
            found = found || c.kernel == k;
        }
        if (!found)
            n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? ", " : "", kernel_decls[k].name);
    }
}

static bool bench(struct gpu *g, const struct gsq_bench_options *o, struct gsq_bench_result *out, struct err *e)
{
    bool cpu = gpu_info(g)->caps & GPU_CAP_CPU, ok = false;
    const struct bench_sizes sizes = {.rows = cpu ? 512 : 4096, .cols = 2048, .cube = cpu ? 1024 : 2048};
    struct gpu_cmd *cmd = NULL;
    struct gpu_arena *arena = NULL;
    struct limits limits = {0};
    unsigned n = 0;
    if (!gpu_cmd_create(&cmd, g, e) || !gpu_arena_create(&arena, g, "bench", e))
        goto done;
    gpu_cmd_set_poll(cmd, lib_go_on, NULL);
    if (!measure_limits(cmd, arena, &sizes, &limits, e))
        goto done;
    out->copy_gbytes_per_s = limits.bytes * 1e-9;
    out->fma_gflops = limits.flops * 1e-9;
    if (o->limits)
        o->limits(o->ctx, out);
    if (!run_all(cmd, arena, &sizes, o, &limits, &n, e))
        goto done;
    out->cases = n;
    ok = n > 0;
    if (!ok) {
        err_set(e, ERR_USER, "no kernel has '%s' in its name", o->kernel);
        err_hint(e, "`gsq devices` lists the kernels");
    }
done:
    gpu_arena_destroy(&arena);
    gpu_cmd_destroy(&cmd);
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
    bool ok = lib_take(&o, sizeof o, options, "gsq_bench_options", &why) && lib_device_ready(device, &why) &&
              bench(device->gpu, &o, &out, &why);
    list_missing(out.kernels_without_case, sizeof out.kernels_without_case);
    lib_give(result, &out, sizeof out);
    return lib_result(ok, &why, e);
}
