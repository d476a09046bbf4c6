/* A finished part of a block to the work folder (store_part.h), by a thread of its own: counting, packing, writing and flushing
 * take as long as they take, and the next part's work is on the device meanwhile. */
#include <string.h>

#include "host/base/num.h"
#include "host/base/queue.h"
#include "host/base/stop_point.h"
#include "host/quant/run/job_internal.h"

/* Experts of a layer are told of as one stage: counts and seconds added up, losses as means. */
static void expert_trained(struct job *j, const struct expert_report *x)
{
    struct stage_report *s = &j->experts_report;
    if (!j->trained++)
        *s = (struct stage_report){.stage = STAGE_EXPERTS, .n_hard = 2};
    struct training_report *all = &s->trained;
    const struct training_report *one = &x->trained;
    all->steps += one->steps;
    all->epochs = one->epochs;
    all->best_epoch = one->best_epoch > all->best_epoch ? one->best_epoch : all->best_epoch;
    all->retries += one->retries;
    all->seconds += one->seconds;
    all->loss_start += (one->loss_start - all->loss_start) / j->trained;
    all->loss_final += (one->loss_final - all->loss_final) / j->trained;
}

static void experts_reported(struct job *j, uint32_t layer)
{
    struct stage_report *s = &j->experts_report;
    s->layer = layer;
    s->hard[0] = (float)s->trained.loss_start;
    s->hard[1] = (float)s->trained.loss_final;
    if (j->trained)
        job_report_stage(j, s);
    j->trained = 0;
}

static void linear_reported(struct job *j, const struct linear_report *r)
{
    if (r->expert.trained.steps)
        expert_trained(j, &r->expert);
    j->out->linears[j->out->n_linears++] = *r;
    if (j->cb->linear_done)
        j->cb->linear_done(j->cb->ctx, r);
}

void job_report_stage(struct job *j, const struct stage_report *r)
{
    if (!r->trained.steps)
        return;
    j->out->stages[j->out->n_stages++] = *r;
    if (j->cb->stage_done)
        j->cb->stage_done(j->cb->ctx, r);
}

/* stages: of part 0; NULL: none. */
static void report_part(struct job *j, uint32_t layer, struct block_items part, const struct linear_report *reports,
                        const struct stage_report *stages)
{
    for (uint32_t i = 0; i < part.n; i++)
        if (part.items[i].coded)
            linear_reported(j, &reports[i]);
    for (int i = 0; stages && i < HALF_COUNT; i++)
        job_report_stage(j, &stages[i]);
    const struct block_items b = plan_block(&j->plan, layer);
    const bool last = !part.n || part.items + part.n == b.items + b.n;
    if (last)
        experts_reported(j, layer);
    j->out->blocks_done += last;
}

/* By whichever process comes first, where there are others. What was kept of the block's steps for them has served then. */
static bool put_part(struct job *j, struct err *e)
{
    const struct block_writing *w = &j->writing;
    const bool shared = job_shared(j);
    char unit[UNIT_NAME_CAP];
    enum queue_turn turn = QUEUE_MINE;
    snprintf(unit, sizeof unit, "block-%04u-part-%04u-store", w->layer, w->result.part);
    while (shared && (turn = queue_take(j->queue, unit, e)) == QUEUE_BUSY)
        os_sleep_ms(QUEUE_WAIT_MS);
    bool ok = turn == QUEUE_MINE &&
              ((shared && store_part_written(j->store, w->layer, w->result.part)) ||
               store_put_part(j->store, w->layer, w->items, w->result.q, w->result.report, w->result.stages, e));
    if (ok && j->queue && w->result.part == 0)
        store_drop_units(j->store, w->layer, w->items);
    queue_give_back(j->queue, unit);
    return ok;
}

/* The thread's. */
static bool write_part(void *ctx, struct err *e)
{
    struct job *j = ctx;
    struct block_writing *w = &j->writing;
    char name[64];
    for (uint32_t i = 0; i < w->result.n; i++)
        if (w->result.q[i].codes)
            w->result.report[i].stats = code_stats_of(&w->result.q[i], w->result.q[i].spec.type);
    if (!put_part(j, e))
        return err_context(e, "%s", config_layer_name(j->m->cfg, w->layer, name, sizeof name));
    stop_point("block", NULL);
    return true;
}

bool job_stored(struct job *j, bool wait, struct err *e)
{
    struct block_writing *w = &j->writing;
    if (!task_begun(&w->task) || (!wait && !task_ended(&w->task)))
        return true;
    bool ok = task_wait(&w->task, e);
    if (ok)
        report_part(j, w->layer, w->items, w->result.report, w->result.part ? NULL : w->result.stages);
    w->failed = !ok;
    block_result_free(&w->result);
    return ok;
}

/* What a part became, out of what its block did. */
static bool take_part(struct block_result *to, struct block_result *r, struct block_items part, struct err *e)
{
    size_t first = part.n ? part.items[0].place : 0;
    if (!block_result_make(to, part.n, e))
        return false;
    memcpy(to->q, r->q + first, part.n * sizeof *to->q);
    memset(r->q + first, 0, part.n * sizeof *r->q);
    memcpy(to->report, r->report + first, part.n * sizeof *to->report);
    memcpy(to->stages, r->stages, sizeof to->stages);
    to->part = r->part;
    return true;
}

static bool store_part_of_result(struct job *j, uint32_t layer, struct block_items part, struct block_result *r,
                                 struct err *e)
{
    if (!job_stored(j, true, e) || !store_forget_part(j->store, layer, r->part, e) ||
        !take_part(&j->writing.result, r, part, e))
        return false;
    j->writing.layer = layer;
    j->writing.items = part;
    task_begin(&j->writing.task, write_part, j);
    return true;
}

bool job_report_stored(struct job *j, uint32_t layer, uint32_t part, struct err *e)
{
    const struct block_items b = store_part(plan_block(&j->plan, layer), part);
    struct block_result r = {0};
    bool ok = job_stored(j, true, e) && block_result_make(&r, b.n, e);
    for (uint32_t i = 0; ok && i < b.n; i++) {
        struct qlinear q = {0};
        ok = !b.items[i].coded || store_read_linear(j->store, &b.items[i], &q, &r.report[i], e);
        qlinear_free(&q);
    }
    if (ok) {
        if (part == 0)
            store_read_stages(j->store, layer, r.stages);
        report_part(j, layer, b, r.report, r.stages);
    }
    block_result_free(&r);
    return ok;
}

bool job_end_part(struct job *j, uint32_t layer, struct block_result *r, struct err *e)
{
    const struct block_items b = plan_block(&j->plan, layer), part = store_part(b, r->part);
    if (r->part >= store_parts(b)) /* all are told of */
        return true;
    if (store_has_part(j->store, layer, r->part)) {
        bool ok = job_report_stored(j, layer, r->part, e);
        r->part++;
        return ok;
    }
    job_begin(j, WORK_STORE, job_store_work(part));
    bool ok = store_part_of_result(j, layer, part, r, e);
    job_end(j);
    r->part++;
    return ok;
}
