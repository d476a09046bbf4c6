/* Plans, as the caller keeps them. */
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/base/str.h"
#include "lib/lib_internal.h"
#include "lib/plan_text.h"

static void *copy_array(const void *from, size_t n, size_t size)
{
    void *to = calloc(n ? n : 1, size);
    if (to && n)
        memcpy(to, from, n * size);
    return to;
}

gsq_plan *lib_plan_copy(const struct plan *p, const struct quantize_options *o)
{
    gsq_plan *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->plan = *p;
    c->options = *o;
    c->plan.from = (struct plan_sources){0};
    c->plan.output = NULL;
    c->plan.matrices = copy_array(p->matrices, p->n_matrices, sizeof *p->matrices);
    c->plan.items = c->plan.matrices ? c->plan.matrices + (p->items - p->matrices) : NULL;
    c->plan.choice.rules = p->choice.rules ? str_dup(p->choice.rules) : NULL;
    c->options.allotment = NULL;
    if (p->choice.rules && plan_typed(p))
        c->options.mixture = p->choice.main;
    if (p->choice.rules) {
        c->options.code_type = p->choice.spec.type;
        c->options.group = p->choice.spec.group;
    }
    c->model = str_dup(o->model_dir);
    c->out = str_dup(o->out_dir);
    c->options.model_dir = c->model;
    c->options.out_dir = c->out;
    c->options.work_dir = c->options.calib = c->options.imatrix = c->options.refine = c->options.accept = NULL;
    c->options.more_calib = NULL;
    c->options.n_more_calib = 0;
    c->options.importance_names = NULL;
    c->options.overrides = NULL;
    c->options.rules = NULL;
    c->options.n_rules = 0;
    if (!c->plan.matrices || !c->model || !c->out || (p->choice.rules && !c->plan.choice.rules))
        gsq_plan_free(&c);
    return c;
}

void gsq_plan_free(gsq_plan **plan)
{
    gsq_plan *p = *plan;
    *plan = NULL;
    if (!p)
        return;
    free(p->plan.matrices);
    free(p->plan.choice.rules);
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
    char size[24];
    if (plan->plan.n_layers)
        plan_text(&text, &plan->plan, &plan->options);
    else
        strbuf_printf(&text, "plan: %s -> %s, a copy as %s, %s\n", plan->model, plan->out, plan->options.mixture,
                      format_bytes(plan->plan.out_bytes, size, sizeof size));
    return lib_text(true, &text, &why, NULL);
}

char *gsq_plan_json(const gsq_plan *plan)
{
    struct err why = {0};
    cJSON *o = cJSON_CreateObject();
    plan_json(o, &plan->plan);
    return lib_json(true, o, &why, NULL);
}
