/* A finished block to the work folder, by a thread of its own: counting, packing, writing and flushing take as long as they
 * take, and the next block's work is on the device meanwhile. */
#include "host/base/num.h"
#include "host/base/stop_point.h"
#include "host/quant/run/job_internal.h"

static void linear_reported(struct job *j, const struct linear_report *r)
{
    j->out->linears[j->out->n_linears++] = *r;
    if (j->cb->linear_done)
        j->cb->linear_done(j->cb->ctx, r);
}

void job_report_stage(struct job *j, const struct stage_report *r)
{
    if (!r->steps)
        return;
    j->out->stages[j->out->n_stages++] = *r;
    if (j->cb->stage_done)
        j->cb->stage_done(j->cb->ctx, r);
}

void job_report_block(struct job *j, struct block_items b, const struct block_result *r)
{
    for (uint32_t i = 0; i < b.n; i++)
        if (b.items[i].coded)
            linear_reported(j, &r->report[i]);
    for (int i = 0; i < HALF_COUNT; i++)
        job_report_stage(j, &r->stages[i]);
    j->out->blocks_done++;
}

/* The thread's. */
static bool write_block(void *ctx, struct err *e)
{
    struct job *j = ctx;
    struct block_writing *w = &j->writing;
    char name[64];
    for (uint32_t i = 0; i < w->result.n; i++)
        if (w->result.q[i].codes)
            w->result.report[i].stats = code_stats_of(&w->result.q[i], w->result.q[i].spec.type);
    if (!store_put_block(j->store, w->layer, plan_block(&j->plan, w->layer), w->result.q, w->result.report,
                         w->result.stages, e))
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
        job_report_block(j, plan_block(&j->plan, w->layer), &w->result);
    w->failed = !ok;
    block_result_free(&w->result);
    return ok;
}

bool job_store(struct job *j, uint32_t layer, struct block_result *r, struct err *e)
{
    if (!job_stored(j, true, e) || !store_forget_block(j->store, layer, e))
        return false;
    j->writing.layer = layer;
    j->writing.result = *r;
    *r = (struct block_result){0};
    task_begin(&j->writing.task, write_block, j);
    return true;
}
