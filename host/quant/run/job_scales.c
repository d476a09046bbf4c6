/* The last pass over scales as a part of a run. */
#include <stdio.h>

#include "host/base/os.h"
#include "host/base/stop_point.h"
#include "host/quant/run/job_internal.h"
#include "host/quant/method/tune_scales.h"

/* What the hooks know. */
struct watch {
    struct job *j;
    double work;  /* of the pass after its first judging, in seconds as predicted */
    double first; /* share of it that was done before */
    bool heard;
};

static bool on_step(void *ctx, uint32_t step, uint32_t steps, double loss)
{
    struct watch *w = ctx;
    struct job *j = w->j;
    stop_point("scales", NULL);
    uint32_t epochs = j->o->scales.epochs;
    double part = (double)step / steps;
    if (!w->heard) { /* the start is judged; epochs that an earlier run finished take no time */
        job_end(j);
        eta_skip(&j->eta, WORK_SCALES, part * w->work);
        job_begin(j, WORK_SCALES, (1 - part) * w->work);
        w->first = part;
    }
    w->heard = true;
    snprintf(j->detail, sizeof j->detail, "epoch %u/%u", step / (steps / epochs) + 1, epochs);
    part = w->first < 1 ? (part - w->first) / (1 - w->first) : 1;
    return job_tell_step(j, "scales", part, step, steps, loss);
}

bool job_scales_ahead(struct job *j)
{
    struct scales_state state = {0};
    return plan_scales(j->o) && (!store_read_scales(j->store, &j->plan, &state) || !state.done);
}

bool job_scales(struct job *j, struct stage_report *r, struct err *e)
{
    struct scales_state state = {0};
    *r = (struct stage_report){0};
    if (!plan_scales(j->o))
        return true;
    if (!job_scales_ahead(j)) {
        store_read_scales(j->store, &j->plan, &state);
        *r = state.report;
        return true;
    }
    uint64_t clock = os_now_ns();
    struct watch watch = {.j = j, .work = job_scales_work(j) - job_judge_work(j)};
    struct tune_hooks hooks = {on_step, &watch};
    j->layer = j->plan.n_layers;
    job_begin(j, WORK_SCALES, job_judge_work(j));
    /* The student's hidden states have served. */
    acts_destroy(&j->acts);
    gpu_arena_trim(j->hess);
    gpu_arena_trim(j->scratch);
    struct acts_options room = acts_in(j->plan.kept_acts, j->work_dir);
    room.embedding = stored_embedding_of(&j->embedding);
    struct scales_task t = {.m = j->m,
                            .o = j->o,
                            .items = j->plan.items,
                            .n_items = j->plan.n_items,
                            .samples = j->plan.samples,
                            .holdout = j->plan.holdout,
                            .micro = j->plan.scale_micro,
                            .windows = &j->windows,
                            .targets = j->targets,
                            .store = store_for_scales(j->store, &j->plan),
                            .block = j->block,
                            .scratch = j->scratch,
                            .codes_stay = j->plan.codes_stay,
                            .head_stays = j->plan.head_stays,
                            .shared = true,
                            .room = room,
                            .hooks = &hooks};
    bool ok = tune_scales(&t, r, e);
    job_clock(j, PHASE_SCALES, &clock);
    job_end(j);
    return ok || (e->kind != ERR_STOPPED && err_context(e, "the pass over scales"));
}
