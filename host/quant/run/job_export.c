/* The end of a run: what is in the store becomes a folder or a GGUF. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/write/export_plan.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/stop_point.h"
#include "host/model/batch.h"
#include "host/quant/run/job_internal.h"
#include "host/quant/plan/refine.h"
#include "host/quant/run/refine_write.h"

static bool pull(void *ctx, const struct matrix *x, struct qlinear *q, struct err *e)
{
    struct job *j = ctx;
    return store_read_final(j->store, x, q, e);
}

/* What is still to come when all is written: it must reach the disk. */
#define SYNC_SHARE 0.05

static bool progress(void *ctx, uint64_t done, uint64_t total)
{
    struct job *j = ctx;
    stop_point("tensor", NULL);
    double part = total ? (double)done / (double)total : 1;
    struct progress_event ev = job_event(j, "export");
    ev.unit = "MB";
    ev.count = part * 1e-6 * (double)j->plan.out_bytes;
    return job_tell(j, part * (1 - SYNC_SHARE), ev, NULL);
}

/* Of the head: an embedding's columns are all read as often, and linears have codes. For what is not known
 * from the text, the importance matrix. */
static const float *importance(void *ctx, const struct matrix *item)
{
    const struct job *j = ctx;
    if (strcmp(item->module, checkpoint_head_module(j->ck)) == 0 && j->head_importance)
        return j->head_importance;
    const struct imatrix_entry *x = imatrix_find(&j->imatrix, item->module);
    return x ? x->sums : NULL;
}

bool job_export(struct job *j, struct err *e)
{
    j->layer = j->plan.n_layers;
    j->detail[0] = 0;
    stop_point("export", NULL);
    job_begin(j, WORK_EXPORT, j->export_work);
    const struct export_source source = {j, pull, progress, importance};
    bool ok = job_tell(j, 0, job_event(j, "export"), e) &&
              (j->o->refine ? refine_write(j->o->out_dir, j->refined_ck, j->ck, &j->plan, &source, e)
                            : export_plan_write(j->plan.output, j->o->out_dir, &source, e));
    job_end(j);
    return ok;
}

/* ---- what the head reads ---- */

static bool wants_importance(const struct job *j)
{
    return j->o->format == EXPORT_GGUF && j->o->method != METHOD_RTN && !j->o->refine && !quantize_diagonal(j->o);
}

/* Reads it, once. */
bool job_importance_ahead(struct job *j)
{
    uint32_t n = j->m->cfg->hidden_size;
    if (!wants_importance(j) || j->head_importance)
        return false;
    j->head_importance = malloc(n * sizeof *j->head_importance);
    if (j->head_importance && store_read_importance(j->store, &j->plan, j->head_importance, n))
        return false;
    free(j->head_importance);
    j->head_importance = NULL;
    return true;
}

bool job_head_importance(struct job *j, struct err *e)
{
    uint32_t n = j->m->cfg->hidden_size;
    if (!job_importance_ahead(j))
        return true;
    j->head_importance = malloc(n * sizeof *j->head_importance);
    if (!j->head_importance)
        return err_nomem(e, "the head's importance", n * sizeof *j->head_importance);
    job_detail(j, "what the head reads");
    job_begin(j, WORK_FORWARD, 0);
    struct walk k = job_walk(j, j->acts, j->plan.samples - j->plan.holdout); /* the windows that teach */
    bool ok = norm_squares(&k, j->m, j->scratch, j->head_importance, e);
    job_end(j);
    return ok && store_write_importance(j->store, &j->plan, j->head_importance, n, e);
}
