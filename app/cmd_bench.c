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

static cJSON *result_json(const struct gsq_device_info *d, const char *choice)
{
    cJSON *o = json_event("result");
    cJSON_AddStringToObject(o, "command", "bench");
    cJSON_AddStringToObject(o, "device", d->name);
    cJSON_AddStringToObject(o, "driver", d->driver);
    cJSON_AddItemToObject(o, "choice", cJSON_Parse(choice));
    return o;
}

static void tell(const struct args *a, const struct gsq_device_info *d, const struct gsq_bench_result *r,
                 const char *choice)
{
    if (!a->json) {
        if (!a->kernel && r->kernels_without_case[0])
            say(stdout, "no case yet: %s\n", r->kernels_without_case);
        return;
    }
    cJSON *o = result_json(d, choice);
    cJSON_AddNumberToObject(o, "copy_gbytes_per_s", r->copy_gbytes_per_s);
    cJSON_AddNumberToObject(o, "fma_gflops", r->fma_gflops);
    cJSON_AddNumberToObject(o, "cases", r->cases);
    json_emit(o);
}

/* Which variants are used, and why: a text for people, or an object. */
static bool choose(gsq_device *device, const struct args *a, char **choice, struct err *e)
{
    struct gsq_error why;
    bool ok = gsq_device_choose(device, a->choose, &why);
    *choice = !ok ? NULL : a->json ? gsq_choice_json(device, &why) : gsq_choice_text(device, &why);
    return app_result(*choice != NULL, &why, e);
}

static void tell_choice(const struct args *a, const struct gsq_device_info *d, const char *choice)
{
    if (a->json)
        json_emit(result_json(d, choice));
    else if (choice[0])
        say_text(stdout, choice);
    else
        say(stdout, "%s: there is nothing to choose\n", d->name);
}

static bool bench(gsq_device *device, const struct args *a, struct gsq_device_info *d, const char *choice,
                  struct err *e)
{
    struct gsq_error why;
    struct gsq_bench_result r = {.size = sizeof r};
    struct gsq_bench_options o;
    gsq_bench_options_init(&o);
    o.kernel = a->kernel;
    o.row = a->json ? json_row : print_row;
    o.limits = a->json ? NULL : print_limits;
    o.ctx = d;
    if (!a->json && choice[0]) {
        say_text(stdout, choice);
        say(stdout, "\n");
    }
    bool ok = app_result(gsq_bench(device, &o, &r, &why), &why, e);
    if (ok)
        tell(a, d, &r, choice);
    return ok;
}

bool cmd_bench(const struct args *a, struct err *e)
{
    struct gsq_device_info d = {.size = sizeof d};
    gsq_device *device = NULL;
    char *choice = NULL;
    if (!app_device_open(&device, a, e))
        return false;
    gsq_device_get_info(device, &d);
    bool ok = choose(device, a, &choice, e);
    if (ok && a->choose)
        tell_choice(a, &d, choice);
    else
        ok = ok && bench(device, a, &d, choice, e);
    gsq_free(choice);
    return app_device_close(&device, ok, e);
}
