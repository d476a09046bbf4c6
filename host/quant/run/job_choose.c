/* Types for a size (--size, --bpw, --type auto:): chosen from a first guess for the plan, then from what is measured. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/base/os.h"
#include "host/base/stop_point.h"
#include "host/base/str.h"
#include "host/base/version.h"
#include "host/quant/method/sensitivity.h"
#include "host/quant/plan/planner.h"
#include "host/quant/run/job_internal.h"
#include "host/quant/store/store_costs.h"

/* Plans whose choice is found to be too large: each is smaller by what the one before was too large. */
#define TRIES 16

static void say_nothing(void *ctx, const char *line)
{
    (void)ctx;
    (void)line;
}
static const struct plan_listener quiet = {.warn = say_nothing};

static struct plan_sources sources(struct job *j)
{
    return (struct plan_sources){NULL, j->o->imatrix ? &j->imatrix : NULL};
}

/* Bytes of the output that a mixture makes; 0: none is named. */
static bool bytes_like(struct job *j, const struct quantize_options *o, uint64_t *bytes, struct err *e)
{
    struct quantize_options like = *o;
    struct plan p = {0};
    *bytes = 0;
    if (!o->target.like)
        return true;
    like.settled = false;
    like.mixture = o->target.like;
    like.group = 0;
    like.target = (struct size_target){0};
    bool ok = quantize_settle(&like, e) && plan_fates(&p, j->m, &like, sources(j), &quiet, e);
    *bytes = p.out_bytes;
    plan_free(&p);
    return ok || err_context(e, "--type auto:%s", o->target.like);
}

/* By the costs that there are; o becomes a run with these types. */
static bool choose(struct job *j, struct quantize_options *o, struct err *e)
{
    uint64_t most = j->allot.asked;
    for (int i = 0; i < TRIES; i++) {
        struct plan p = {0};
        bool ok = allot_choose(&j->allot, o, most, e) && allot_apply(&j->allot, j->own, j->n_own, o, &j->rules, e) &&
                  plan_fates(&p, j->m, o, sources(j), &quiet, e);
        uint64_t excess = ok ? allot_excess(&j->allot, &p, o) : 0;
        plan_free(&p);
        if (!ok || !excess)
            return ok;
        most -= excess < most ? excess : most;
    }
    return err_set(e, ERR_USER, "no choice of types is as small as was asked for");
}

bool job_choose_begin(struct job *j, struct quantize_options *o, struct err *e)
{
    struct plan p = {0};
    uint64_t like;
    if (!size_target_set(&o->target))
        return true;
    j->own = o->rules;
    j->n_own = o->n_rules;
    bool ok = plan_can_choose(j->m, e) && bytes_like(j, o, &like, e) &&
              plan_fates(&p, j->m, o, sources(j), &quiet, e) && allot_make(&j->allot, &p, j->m, o, like, e) &&
              choose(j, o, e);
    plan_free(&p);
    if (ok)
        o->allotment = &j->allot;
    return ok;
}

void job_choose_tell(struct job *j)
{
    const struct allotment *a = &j->allot;
    if (!j->o->allotment)
        return;
    j->plan.choice = (struct plan_choice){.rules = str_dup(a->text),
                                          .main = j->o->format == EXPORT_GGUF ? j->o->mixture : j->o->code_type->name,
                                          .spec = {j->o->code_type, j->o->group, SCALE_F16},
                                          .cost = a->cost,
                                          .measured = a->measured,
                                          .small = a->small,
                                          .large = a->large};
}

void job_choose_end(struct job *j)
{
    allot_free(&j->allot);
    free(j->rules);
    j->rules = NULL;
}

/* ---- measuring ---- */

static bool on_step(void *ctx, uint32_t step, uint32_t steps, double loss)
{
    struct job *j = ctx;
    snprintf(j->detail, sizeof j->detail, "what types cost, %s", step < j->plan.n_layers ? "forward" : "back");
    return job_tell_step(j, "calibrate", (double)step / steps, step, steps, loss);
}

static bool measure(struct job *j, struct err *e)
{
    const struct plan *p = &j->plan;
    struct allotment *a = &j->allot;
    uint64_t clock = os_now_ns();
    struct tune_hooks hooks = {on_step, j};
    struct sensitivity_task t = {.m = j->m,
                                 .o = j->o,
                                 .matrices = a->matrices,
                                 .n = a->n,
                                 .specs = a->specs,
                                 .n_specs = a->n_types,
                                 .tries = a->tries,
                                 .windows = &j->windows,
                                 .train = p->samples - p->holdout,
                                 .n_used = p->measure_windows,
                                 .micro = p->measure_micro,
                                 .head_stays = p->measure_head_stays,
                                 .block = j->block,
                                 .hess = j->hess,
                                 .scratch = j->scratch,
                                 .room = acts_in(p->measure_acts, j->work_dir),
                                 .hooks = &hooks};
    job_begin(j, WORK_MEASURE, job_measure_work(j));
    return job_end_way_back(j, sensitivity_measure(&t, a->costs, e), "measuring what types cost", &clock, e);
}

bool job_choose_measured(struct job *j, struct quantize_options *o, struct err *e)
{
    struct allotment *a = &j->allot;
    char run[128];
    /* The plan of the guess is the same whenever the command is: what it is measures are of. */
    snprintf(run, sizeof run, "%s %s", j->plan.run, version_text());
    if (!store_read_costs(j->work_dir, run, a->costs, a->n * a->n_types)) {
        if (!measure(j, e) || !store_write_costs(j->work_dir, run, a->costs, a->n * a->n_types, e))
            return false;
        stop_point("costs", NULL);
    }
    a->measured = true;
    if (!choose(j, o, e))
        return false;
    plan_free(&j->plan);
    j->id.n = 0; /* it is another run by its types */
    return plan_make(&j->plan, j->m, o, sources(j), e);
}
