/* gsq bench. */
#include <string.h>

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

/* ---- what quantizing would compute and move ---- */

struct counting {
    const struct args *a;
    char piece[64];   /* the one that is printed */
    char layers[200]; /* and of which */
    double flop, read, written;
    double step_bytes[2], step_weights[2]; /* of gumbel_step, on the Hessian objective and on the block objective */
};

static void end_piece(struct counting *c)
{
    if (c->piece[0])
        say(stdout, "  %-38s %12s %12.3f %12.3f %12.3f\n", "together", "", c->flop * 1e-9, c->read * 1e-9,
            c->written * 1e-9);
    c->flop = c->read = c->written = 0;
}

/* A head above the pieces of layers of one make. */
static void count_layers(struct counting *c, const struct gsq_count_row *r)
{
    char layers[sizeof c->layers];
    if (r->layer_kind)
        snprintf(layers, sizeof layers, "%u block%s of %s: %.1f M weights in linears%s", (unsigned)r->layers,
                 r->layers == 1 ? "" : "s", r->layer_kind, (r->layer_weights + r->layer_expert_weights) * 1e-6,
                 r->layer_expert_weights > 0 ? ", those of experts included" : "");
    else
        snprintf(layers, sizeof layers, "the whole model");
    if (strcmp(c->layers, layers) == 0)
        return;
    end_piece(c);
    c->piece[0] = 0;
    memcpy(c->layers, layers, sizeof layers);
    say(stdout, "\n%s\n", layers);
}

static void count_row(void *ctx, const struct gsq_count_row *r)
{
    struct counting *c = ctx;
    if (strcmp(r->kernel, "gumbel_step") == 0) {
        const bool together = strncmp(r->piece, "Hessian", 7) != 0;
        c->step_bytes[together] += r->bytes_read + r->written;
        c->step_weights[together] += r->step_weights;
    }
    if (c->a->json) {
        cJSON *o = json_event("count");
        cJSON_AddStringToObject(o, "piece", r->piece);
        cJSON_AddStringToObject(o, "kernel", r->kernel);
        cJSON_AddNumberToObject(o, "calls", r->calls);
        cJSON_AddNumberToObject(o, "flop", r->flop);
        cJSON_AddNumberToObject(o, "bytes_read", r->bytes_read);
        cJSON_AddNumberToObject(o, "bytes_written", r->written);
        if (r->layer_kind) {
            cJSON_AddStringToObject(o, "layers", r->layer_kind);
            cJSON_AddNumberToObject(o, "block", r->first_layer + 1.0);
            cJSON_AddNumberToObject(o, "blocks", r->layers);
            cJSON_AddNumberToObject(o, "weights", r->layer_weights);
            cJSON_AddNumberToObject(o, "expert_weights", r->layer_expert_weights);
        }
        json_emit(o);
        return;
    }
    count_layers(c, r);
    if (strcmp(c->piece, r->piece) != 0) {
        end_piece(c);
        snprintf(c->piece, sizeof c->piece, "%s", r->piece);
        say(stdout, "\n%-40s %12s %12s %12s %12s\n", r->piece, "calls", "GFLOP", "GB read", "GB written");
    }
    say(stdout, "  %-38s %12.4g %12.3f %12.3f %12.3f\n", r->kernel, r->calls, r->flop * 1e-9, r->bytes_read * 1e-9,
        r->written * 1e-9);
    c->flop += r->flop;
    c->read += r->bytes_read;
    c->written += r->written;
}

static void efforts_json(void)
{
    const char *name;
    for (size_t i = 0; (name = gsq_name_at(GSQ_NAME_EFFORT, i)); i++) {
        struct gsq_quantize_options q;
        gsq_quantize_options_init(&q);
        gsq_quantize_options_set_effort(&q, name);
        cJSON *o = json_event("effort");
        cJSON_AddStringToObject(o, "effort", name);
        cJSON_AddNumberToObject(o, "samples", q.samples);
        cJSON_AddNumberToObject(o, "steps", q.steps);
        cJSON_AddNumberToObject(o, "epochs", q.epochs);
        cJSON_AddNumberToObject(o, "batch", q.batch);
        cJSON_AddNumberToObject(o, "scale_epochs", q.scale_epochs);
        cJSON_AddNumberToObject(o, "scale_batch", q.scale_batch);
        json_emit(o);
    }
}

static void tell_counts(struct counting *c, const struct gsq_count_result *r)
{
    double hessian = c->step_bytes[0] / c->step_weights[0], together = c->step_bytes[1] / c->step_weights[1];
    if (!c->a->json) {
        end_piece(c);
        say(stdout,
            "\nthe model has %u blocks; windows of %u tokens, %u at once\n"
            "bytes of an optimiser step for each weight: %.1f alone, %.1f together\n",
            (unsigned)r->layers, (unsigned)r->context, (unsigned)r->windows_at_once, hessian, together);
        return;
    }
    efforts_json();
    cJSON *o = json_event("result");
    cJSON_AddStringToObject(o, "command", "bench");
    cJSON_AddStringToObject(o, "model", c->a->counts);
    cJSON_AddNumberToObject(o, "layers", r->layers);
    cJSON_AddNumberToObject(o, "ctx", r->context);
    cJSON_AddNumberToObject(o, "windows_at_once", r->windows_at_once);
    cJSON_AddNumberToObject(o, "block_weights", r->block_weights);
    if (r->experts) {
        cJSON_AddNumberToObject(o, "experts", r->experts);
        cJSON_AddNumberToObject(o, "experts_used", r->experts_used);
    }
    cJSON_AddNumberToObject(o, "step_bytes_alone", hessian);
    cJSON_AddNumberToObject(o, "step_bytes_together", together);
    json_emit(o);
}

static bool counts(const struct args *a, gsq_device *device, struct err *e)
{
    struct gsq_error why;
    struct counting c = {.a = a};
    struct gsq_count_result r = {.size = sizeof r};
    struct gsq_count_options o;
    gsq_model *model = NULL;
    gsq_count_options_init(&o);
    o.bits = a->q.bits;
    o.group = a->q.group;
    o.context = a->ctx;
    o.row = count_row;
    o.ctx = &c;
    bool ok = app_result(gsq_model_open(&model, a->counts, &why) && gsq_count(device, model, &o, &r, &why), &why, e);
    if (ok)
        tell_counts(&c, &r);
    gsq_model_close(&model);
    return ok;
}

/* ---- the command ---- */

/* Which variants are used, and why: a text for people, or an object. */
static bool choose(gsq_device *device, const struct args *a, char **choice, struct err *e)
{
    struct gsq_error why;
    bool ok = gsq_device_choose(device, a->choose, &why);
    *choice = !ok ? NULL : a->json ? gsq_choice_json(device, &why) : gsq_choice_text(device, &why);
    return app_result(*choice != NULL, &why, e) && *choice;
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
    if (a->counts)
        return app_device_close(&device, counts(a, device, e), e);
    bool ok = choose(device, a, &choice, e);
    if (ok && a->choose)
        tell_choice(a, &d, choice);
    else
        ok = ok && bench(device, a, &d, choice, e);
    gsq_free(choice);
    return app_device_close(&device, ok, e);
}
