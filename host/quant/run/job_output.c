/* The pass that finds Hessians of outputs as a part of a run. */
#include <stdio.h>

#include "host/base/log.h"
#include "host/base/os.h"
#include "host/base/stop_point.h"
#include "host/quant/method/output_hessian.h"
#include "host/quant/run/job_internal.h"

static bool on_step(void *ctx, uint32_t step, uint32_t steps, double loss)
{
    struct job *j = ctx;
    snprintf(j->detail, sizeof j->detail, "output gradients, %s", step < steps / 2 ? "forward" : "back");
    return job_tell_step(j, "calibrate", (double)step / steps, step, steps, loss);
}

/* Of a block that is not finished, and has none. */
static bool wants(void *ctx, uint32_t layer)
{
    struct job *j = ctx;
    return !store_has_block(j->store, layer) && !store_has_outputs(j->store, layer);
}

static bool save(void *ctx, uint32_t layer, const float *const *tiles, struct err *e)
{
    struct job *j = ctx;
    stop_point("outputs", NULL);
    return store_write_outputs(j->store, layer, plan_block(&j->plan, layer), tiles, e);
}

static bool look_outputs(void *ctx, uint32_t i, bool *there, struct err *e)
{
    struct job *j = ctx;
    bool any = false;
    (void)i, (void)e;
    for (uint32_t layer = 0; layer < j->plan.n_layers; layer++)
        any = wants(j, layer) || any;
    *there = !any;
    return true;
}

static bool make_outputs(void *ctx, uint32_t i, struct err *e)
{
    struct job *j = ctx;
    const struct plan *p = &j->plan;
    (void)i;
    uint64_t clock = os_now_ns();
    struct tune_hooks hooks = {on_step, j};
    struct output_task t = {.m = j->m,
                            .o = j->o,
                            .items = p->items,
                            .n_items = p->n_items,
                            .windows = &j->windows,
                            .train = p->samples - p->holdout,
                            .n = p->output_windows,
                            .micro = p->output_micro,
                            .head_stays = p->output_head_stays,
                            .block = j->block,
                            .hess = j->hess,
                            .scratch = j->scratch,
                            .room = acts_in(p->output_acts, j->work_dir),
                            .store = {j, wants, save},
                            .shared = true,
                            .hooks = &hooks};
    job_begin(j, WORK_OUTPUT, job_output_work(j));
    return job_end_way_back(j, output_hessians(&t, e), "the pass for Hessians of outputs", &clock, e);
}

bool job_outputs(struct job *j, struct err *e)
{
    const struct job_units pass = {.n = 1,
                                   .what = "Hessians of outputs from another process",
                                   .only = "outputs",
                                   .look = look_outputs,
                                   .make = make_outputs,
                                   .ctx = j};
    if (!j->plan.output_windows)
        return true;
    bool ok = job_each_unit(j, &pass, e);
    eta_close(&j->eta, WORK_OUTPUT);
    return ok;
}

bool job_has_outputs(const struct job *j, const struct matrix *item)
{
    return j->plan.output_windows && output_hessian_bytes(j->o, item);
}

bool job_load_outputs(struct job *j, const struct matrix *item, struct gpu_view *tiles, struct err *e)
{
    const uint64_t bytes = job_has_outputs(j, item) ? output_hessian_bytes(j->o, item) : 0;
    const float *from;
    *tiles = (struct gpu_view){0};
    if (!bytes)
        return true;
    if (!store_outputs(j->store, item, &from, e))
        return false;
    if (!from) /* its gradients say nothing, or cannot be told apart */
        return true;
    if (!gpu_alloc_rows(j->scratch, item->rows, bytes / item->rows, HESSIAN_TILE, tiles, e))
        return false;
    gpu_upload(j->cmd, *tiles, from, bytes);
    return true;
}
