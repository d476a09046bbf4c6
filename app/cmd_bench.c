/* gsq bench. */
#include "app/app.h"
#include "host/base/clean.h"

static void json_row(void *ctx, const struct gsq_bench_row *r)
{
    (void)ctx;
    cJSON *o = json_event("bench");
    cJSON_AddStringToObject(o, "kernel", r->kernel);
    cJSON_AddStringToObject(o, "variant", r->variant);
    cJSON_AddStringToObject(o, "shape", r->shape);
    cJSON_AddNumberToObject(o, "seconds", r->seconds);
    cJSON_AddNumberToObject(o, "gflops", r->gflops);
    cJSON_AddNumberToObject(o, "gbytes_per_s", r->gbytes_per_s);
    cJSON_AddNumberToObject(o, "share_of_limit", r->share_of_limit);
    json_emit(o);
}

static void print_row(void *ctx, const struct gsq_bench_row *r)
{
    bool flops = r->gflops > 0;
    (void)ctx;
    say(stdout, "%-17s %-7s %-30s %10.3f ms  %9.2f %-7s %5.1f %%\n", r->kernel, r->variant, r->shape, r->seconds * 1e3,
        flops ? r->gflops : r->gbytes_per_s, flops ? "GFLOP/s" : "GB/s", r->share_of_limit * 100);
    fflush(stdout);
}

static void print_limits(void *ctx, const struct gsq_bench_result *l)
{
    const struct gsq_device_info *d = ctx;
    say(stdout, "%s, %s\ncopies %.1f GB/s, multiply-adds %.1f GFLOP/s\n\n", d->name, d->driver, l->copy_gbytes_per_s,
        l->fma_gflops);
}

static void tell(const struct args *a, const struct gsq_device_info *d, const struct gsq_bench_result *r)
{
    if (!a->json) {
        if (!a->kernel && r->kernels_without_case[0])
            say(stdout, "no case yet: %s\n", r->kernels_without_case);
        return;
    }
    cJSON *o = json_event("result");
    cJSON_AddStringToObject(o, "command", "bench");
    cJSON_AddStringToObject(o, "device", d->name);
    cJSON_AddStringToObject(o, "driver", d->driver);
    cJSON_AddNumberToObject(o, "copy_gbytes_per_s", r->copy_gbytes_per_s);
    cJSON_AddNumberToObject(o, "fma_gflops", r->fma_gflops);
    cJSON_AddNumberToObject(o, "cases", r->cases);
    json_emit(o);
}

bool cmd_bench(const struct args *a, struct err *e)
{
    struct gsq_error why;
    struct gsq_device_info d = {.size = sizeof d};
    struct gsq_bench_result r = {.size = sizeof r};
    struct gsq_bench_options o;
    gsq_device *device = NULL;
    gsq_bench_options_init(&o);
    o.kernel = a->kernel;
    o.row = a->json ? json_row : print_row;
    o.limits = a->json ? NULL : print_limits;
    o.ctx = &d;
    if (!app_device_open(&device, a, e))
        return false;
    gsq_device_get_info(device, &d);
    bool ok = app_result(gsq_bench(device, &o, &r, &why), &why, e);
    if (ok)
        tell(a, &d, &r);
    return app_device_close(&device, ok, e);
}
