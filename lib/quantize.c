#include <stdlib.h>
#include <string.h>

#include "host/base/os.h"
#include "host/base/str.h"
#include "lib/lib_internal.h"
#include "lib/plan_text.h"

/* ---- plans ------------------------------------------------------------------------------------------------------ */

static void *copy_array(const void *from, size_t n, size_t size)
{
    void *to = calloc(n ? n : 1, size);
    if (to && n)
        memcpy(to, from, n * size);
    return to;
}

static gsq_plan *copy_plan(const struct plan *p, const struct quantize_options *o)
{
    gsq_plan *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->plan = *p;
    c->options = *o;
    c->plan.from = (struct plan_sources){0};
    c->plan.items = copy_array(p->items, p->n_items, sizeof *p->items);
    c->plan.tensors = p->tensors ? copy_array(p->tensors, p->n_tensors, sizeof *p->tensors) : NULL;
    c->model = str_dup(o->model_dir);
    c->out = str_dup(o->out_dir);
    c->options.model_dir = c->model;
    c->options.out_dir = c->out;
    c->options.rules = NULL;
    c->options.n_rules = 0;
    if (!c->plan.items || (p->tensors && !c->plan.tensors) || !c->model || !c->out)
        gsq_plan_free(&c);
    return c;
}

void gsq_plan_free(gsq_plan **plan)
{
    gsq_plan *p = *plan;
    *plan = NULL;
    if (!p)
        return;
    free(p->plan.items);
    free(p->plan.tensors);
    free(p->model);
    free(p->out);
    free(p);
}

void gsq_plan_get_info(const gsq_plan *plan, struct gsq_plan_info *info)
{
    const struct plan *p = &plan->plan;
    struct gsq_plan_info out = {
        .bits_per_weight = p->bpw,
        .file_bits_per_weight = p->file_bpw,
        .weights = p->weights,
        .weights_quantized = p->weights_quantized,
        .out_bytes = p->out_bytes,
        .work_bytes = p->work_bytes,
        .disk_free = p->disk_free,
        .device_bytes = p->device_bytes,
        .device_limit = p->device_limit,
        .host_bytes = p->host_bytes,
        .predicted_seconds = p->predicted_seconds,
    };
    lib_give(info, &out, sizeof out);
}

char *gsq_plan_text(const gsq_plan *plan)
{
    struct err why = {0};
    struct strbuf text = {0};
    plan_text(&text, &plan->plan, &plan->options);
    return lib_text(true, &text, &why, NULL);
}

char *gsq_plan_json(const gsq_plan *plan)
{
    struct err why = {0};
    cJSON *o = cJSON_CreateObject();
    plan_json(o, &plan->plan);
    return lib_json(true, o, &why, NULL);
}

/* ---- runs ------------------------------------------------------------------------------------------------------- */

struct run {
    struct gsq_quantize_callbacks cb;
    struct lib_progress progress;
    const struct quantize_options *options;
    gsq_plan **keep; /* gsq_plan_make's result */
    bool no_memory;
};

static void on_planned(void *ctx, const struct plan *p)
{
    struct run *r = ctx;
    if (!r->keep && !r->cb.planned)
        return;
    gsq_plan *copy = copy_plan(p, r->options);
    r->no_memory = !copy;
    if (copy && r->cb.planned)
        r->cb.planned(r->cb.ctx, copy);
    if (r->keep)
        *r->keep = copy;
    else
        gsq_plan_free(&copy);
}

static void on_linear(void *ctx, const struct linear_report *l)
{
    const struct run *r = ctx;
    struct gsq_linear out = {
        .size = sizeof out,
        .module = l->module,
        .loss_rtn = l->loss_rtn,
        .loss_gptq = l->loss_gptq,
        .loss = l->loss_final,
        .seconds = l->seconds,
    };
    if (r->cb.linear_done)
        r->cb.linear_done(r->cb.ctx, &out);
}

static void on_stage(void *ctx, const struct stage_report *s)
{
    const struct run *r = ctx;
    struct gsq_stage out = {
        .size = sizeof out,
        .name = stage_name(s->stage),
        .block = s->stage == STAGE_SCALES ? 0 : s->layer + 1,
        .loss_start = s->loss_start,
        .loss = s->loss_final,
        .steps = s->steps,
        .epochs = s->epochs,
        .best_epoch = s->best_epoch,
        .seconds = s->seconds,
    };
    if (r->cb.stage_done)
        r->cb.stage_done(r->cb.ctx, &out);
}

static bool run(struct run *r, gsq_device *device, struct lib_options *o, struct quantize_result *out, struct err *e)
{
    r->options = &o->q;
    r->progress = (struct lib_progress){r->cb.progress, r->cb.ctx};
    struct job_callbacks cb = {
        .progress = lib_progress(&r->progress),
        .planned = on_planned,
        .linear_done = on_linear,
        .stage_done = on_stage,
        .ctx = r,
    };
    return quantize_settle(&o->q, e) && quantize_run(device ? device->cmd : NULL, &o->q, &cb, out, e);
}

bool gsq_plan_make(gsq_plan **out, gsq_device *device, const gsq_model *model,
                   const struct gsq_quantize_options *options, struct gsq_error *e)
{
    struct err why = {0};
    struct lib_options o;
    struct quantize_result result = {0};
    struct run r = {.keep = out};
    *out = NULL;
    bool ok = lib_options(&o, model, options, &why);
    o.q.dry_run = true;
    ok = ok && run(&r, device, &o, &result, &why);
    if (ok && r.no_memory)
        ok = err_nomem(&why, "the plan", sizeof(gsq_plan));
    if (!ok)
        gsq_plan_free(out);
    quantize_result_free(&result);
    lib_options_free(&o);
    return lib_result(ok, &why, e);
}

bool gsq_quantize(gsq_device *device, const gsq_model *model, const struct gsq_quantize_options *options,
                  const struct gsq_quantize_callbacks *callbacks, struct gsq_quantize_result *result,
                  struct gsq_error *e)
{
    struct err why = {0};
    struct lib_options o;
    struct quantize_result q = {0};
    struct run r = {0};
    bool ok = lib_options(&o, model, options, &why) &&
              lib_take(&r.cb, sizeof r.cb, callbacks, "gsq_quantize_callbacks", &why) && run(&r, device, &o, &q, &why);
    if (ok) {
        struct gsq_quantize_result out = {
            .seconds = q.seconds,
            .bits_per_weight = q.bpw,
            .file_bits_per_weight = q.file_bpw,
            .mean_loss = q.mean_loss,
            .out_bytes = q.out_bytes,
            .device_peak = q.device_peak,
            .host_peak = q.host_peak,
            .blocks = q.blocks_done,
            .blocks_resumed = q.blocks_resumed,
        };
        lib_give(result, &out, sizeof out);
    }
    quantize_result_free(&q);
    lib_options_free(&o);
    return lib_result(ok, &why, e);
}
