/* The end of a run: what is in the store becomes a folder or a GGUF. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/base/os.h"
#include "host/model/batch.h"
#include "host/quant/run/job_internal.h"
#include "host/quant/plan/refine.h"

static bool pull(struct job *j, const char *module, struct qlinear *q, struct err *e)
{
    for (size_t i = 0; i < j->plan.n_items; i++)
        if (strcmp(j->plan.items[i].module, module) == 0)
            return store_read_final(j->store, &j->plan.items[i], q, e);
    return err_set(e, ERR_BUG, "the export asks for %s, which is not in the plan", module);
}

/* What is still to come when all is written: it must reach the disk. */
#define SYNC_SHARE 0.05

static bool progress(void *ctx, uint64_t done, uint64_t total)
{
    struct job *j = ctx;
    double part = total ? (double)done / (double)total : 1;
    struct progress_event ev = job_event(j, "export");
    ev.unit = "MB";
    ev.count = part * 1e-6 * (double)j->plan.out_bytes;
    return job_tell(j, part * (1 - SYNC_SHARE), ev, NULL);
}

/* ---- a folder ---- */

static bool pull_export(void *ctx, const struct export_item *x, struct qlinear *q, struct err *e)
{
    return pull(ctx, x->module, q, e);
}

static bool export_folder(struct job *j, struct err *e)
{
    struct export_item *x = calloc(j->plan.n_items, sizeof *x);
    if (!x)
        return err_nomem(e, "the export", j->plan.n_items * sizeof *x);
    size_t n = 0;
    for (size_t i = 0; i < j->plan.n_items; i++) {
        const struct matrix *item = &j->plan.items[i];
        if (item->coded)
            x[n++] = (struct export_item){item->module, item->rows, item->cols, item->spec};
    }
    struct export_options options = {
        .format = j->o->format, .container = j->o->container, .force = j->o->force, .run = j->plan.run};
    struct export_source source = {j, pull_export, progress};
    bool ok = write_hf(j->o->out_dir, j->ck, x, n, &options, &source, e);
    free(x);
    return ok;
}

/* ---- a GGUF ---- */

static bool pull_gguf(void *ctx, const struct gguf_item *x, struct qlinear *q, struct err *e)
{
    return pull(ctx, x->module, q, e);
}

/* Of the head: an embedding's columns are all read as often, and linears have codes. For what is not known
 * from the text, the importance matrix. */
static const float *importance(void *ctx, const char *module)
{
    const struct job *j = ctx;
    if (strcmp(module, checkpoint_head_module(j->ck)) == 0 && j->head_importance)
        return j->head_importance;
    const struct imatrix_entry *x = imatrix_find(&j->imatrix, module);
    return x ? x->sums : NULL;
}

static bool export_gguf(struct job *j, struct err *e)
{
    struct gguf_item *x = plan_gguf_items(&j->plan);
    if (!x)
        return err_nomem(e, "the export", j->plan.n_matrices * sizeof *x);
    struct gguf_options options = plan_gguf_options(&j->plan, j->o);
    struct gguf_source source = {j, pull_gguf, importance, progress};
    bool ok = write_gguf(j->o->out_dir, j->ck, x, j->plan.n_matrices, &options, &source, e);
    free(x);
    return ok;
}

static bool pull_refined(void *ctx, const char *module, struct qlinear *q, struct err *e)
{
    return pull(ctx, module, q, e);
}

static bool export_refined(struct job *j, struct err *e)
{
    struct refine_source source = {j, pull_refined, progress};
    return refine_write(j->o->out_dir, j->refined_ck, &j->plan, &source, e);
}

bool job_export(struct job *j, struct err *e)
{
    j->layer = j->plan.n_layers;
    j->detail[0] = 0;
    job_begin(j, WORK_EXPORT, j->export_work);
    bool ok = job_tell(j, 0, job_event(j, "export"), e) && (j->o->refine                  ? export_refined(j, e)
                                                            : j->o->format == EXPORT_GGUF ? export_gguf(j, e)
                                                                                          : export_folder(j, e));
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
