#include "host/quant/job.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/model/block_fwd.h"
#include "host/model/calib.h"
#include "host/quant/identity.h"
#include "host/quant/quant_linear.h"
#include "host/quant/store.h"

/* Longest window chosen by default. */
#define CTX_DEFAULT 2048u

/* A block is quantized in two stages; the Hessians of a stage are all taken before its first linear is
 * quantized, behind everything quantized earlier (METHOD.md 3). */
struct stage {
    enum linear_id first, end;
    enum linear_id wide; /* the linear with an input of its own; the others share the stage's first input */
};
static const struct stage stages[2] = {{LINEAR_Q, LINEAR_GATE, LINEAR_O},
                                       {LINEAR_GATE, LINEAR_COUNT, LINEAR_DOWN}};

struct job {
    struct gpu_cmd *cmd;
    const struct quantize_options *o;
    const struct job_callbacks *cb;
    struct checkpoint *ck;
    struct model *m;
    struct plan plan;
    struct store *store;
    struct windows windows;
    struct acts *acts;
    struct gpu_arena *block, *hess, *scratch; /* by lifetime: one block; one stage; one linear or one batch */
    struct quantize_result *out;
    char work_dir[4096];

    /* progress: work in floating-point operations, which is close to time on one device */
    uint64_t begin;
    double work_total, work_done, work_skipped, linear_work;
    char detail[128];
    uint32_t layer;
};

/* --- progress
 * ---------------------------------------------------------------------------------------------------- */

static double forward_work(const struct job *j)
{
    double weights = 0;
    for (int i = 0; i < LINEAR_COUNT; i++)
        weights += (double)j->m->rows[i] * j->m->cols[i];
    return 2 * weights * j->plan.samples * j->plan.ctx;
}

static double hessian_work(const struct job *j, const struct stage *s)
{
    double a = j->m->cols[s->first], b = j->m->cols[s->wide];
    return 2 * (a * a + b * b) * j->plan.samples * j->plan.ctx;
}

static double linear_work(const struct job *j, const struct plan_item *i)
{
    double n = (double)i->rows * i->cols, k = i->cols;
    if (i->keep)
        return 0;
    double work = n * 2 * j->o->scale_search.steps * 6; /* scale search: about six operations a candidate */
    if (j->o->method != METHOD_RTN)
        work += n * k * 10 + k * k * k; /* losses, GPTQ, Cholesky */
    if (j->o->method == METHOD_GSQ)
        work += j->o->gumbel.steps * (2 * n * k + 200 * n); /* gradient and the fused step */
    return work;
}

static void plan_work(struct job *j)
{
    double block = 0;
    for (int i = 0; i < LINEAR_COUNT; i++)
        block += linear_work(j, &j->plan.items[i]);
    if (j->o->method != METHOD_RTN)
        block += 2 * forward_work(j) + hessian_work(j, &stages[0]) + hessian_work(j, &stages[1]);
    j->work_total = block * j->plan.n_layers;
}

/* Reports; false (ERR_STOPPED) when the user wants to stop. part: of the current linear, 0..1. */
static bool tell(struct job *j, const char *phase, uint32_t step, uint32_t steps, double loss, double part,
                 struct err *e)
{
    double done = j->work_done + part * j->linear_work, spent = (double)(os_now_ns() - j->begin) * 1e-9;
    double mine = done - j->work_skipped, left = j->work_total - done;
    struct progress_event ev = {.phase = phase,
                                .detail = j->detail,
                                .block = j->layer + 1,
                                .blocks = j->plan.n_layers,
                                .step = step,
                                .steps = steps,
                                .loss = loss,
                                .done = j->work_total > 0 ? done / j->work_total : 0,
                                .eta_seconds = mine > 0 && spent > 1 ? spent * left / mine : NAN};
    if (progress_report(&j->cb->progress, &ev))
        return true;
    err_set(e, ERR_STOPPED, "stopped in block %u of %u", j->layer + 1, j->plan.n_layers);
    return err_hint(e, "finished blocks are kept in %s; repeat the command to go on", j->work_dir);
}

static void detail(struct job *j, const char *what)
{
    snprintf(j->detail, sizeof j->detail, "block %u/%u %s", j->layer + 1, j->plan.n_layers, what);
}

static bool on_step(void *ctx, uint32_t step, uint32_t steps, double loss)
{
    return tell(ctx, "quantize", step, steps, loss, (double)step / steps, NULL);
}

/* --- forward passes
 * ---------------------------------------------------------------------------------------------- */

/* One batch's device memory. */
struct batch {
    struct block_scratch s;
    struct gpu_view hidden;     /* [T, hidden]: staging for activations that live elsewhere */
    struct gpu_view transposed; /* [widest input, T] */
};

static bool batch_create(struct job *j, struct batch *b, struct err *e)
{
    const struct model *m = j->m;
    uint64_t tokens = (uint64_t)j->plan.batch_windows * j->plan.ctx, wide = 0;
    for (int i = 0; i < LINEAR_COUNT; i++)
        wide = max_u64(wide, m->cols[i]);
    return block_scratch_create(&b->s, j->scratch, m, j->plan.batch_windows, e) &&
           gpu_alloc(j->scratch, tokens * m->cfg->hidden_size * 4, &b->hidden, e) &&
           gpu_alloc(j->scratch, tokens * wide * 4, &b->transposed, e);
}

/* Adds windows [w0, w0+n) to a Hessian: the first samples - holdout windows teach, the others judge. */
static void gather(struct job *j, const struct hessian *h, struct gpu_view x, uint32_t w0, uint32_t n,
                   struct gpu_view transposed)
{
    uint32_t ctx = j->plan.ctx, teach = j->plan.samples - j->plan.holdout;
    uint32_t first = w0 >= teach ? 0 : (uint32_t)min_u64(n, teach - w0), second = n - first;
    uint64_t window = (uint64_t)ctx * h->n * 4;
    if (first)
        hessian_add(j->cmd, h->train, gpu_slice(x, 0, first * window), first * ctx, h->n,
                    2.0f / ((float)teach * (float)ctx), transposed);
    if (second)
        hessian_add(j->cmd, h->held, gpu_slice(x, first * window, second * window), second * ctx, h->n,
                    2.0f / ((float)j->plan.holdout * (float)ctx), transposed);
}

/* Which halves of the block a pass runs, and what it gathers. */
enum pass {
    PASS_ATTN_INPUTS, /* attention, Hessians of stage 0; activations stay */
    PASS_FFN_INPUTS,  /* attention (quantized, result kept), feed-forward, Hessians of stage 1 */
    PASS_FFN,         /* feed-forward (quantized), result kept */
    PASS_BLOCK,       /* the whole block, result kept: resuming */
};

static bool run_pass(struct job *j, enum pass pass, const struct block_weights *w, const struct hessian h[2],
                     struct err *e)
{
    struct model *m = j->m;
    gpu_mark mark = gpu_arena_mark(j->scratch);
    struct batch b;
    bool ok = batch_create(j, &b, e);
    double share = (pass == PASS_BLOCK ? 2 : 1) * forward_work(j) / 2, before = j->work_done;
    for (uint32_t w0 = 0; ok && w0 < j->plan.samples; w0 += j->plan.batch_windows) {
        uint32_t n = (uint32_t)min_u64(j->plan.batch_windows, j->plan.samples - w0);
        struct gpu_view x;
        ok = acts_get(j->acts, w0, n, b.hidden, &x, e);
        if (!ok)
            break;
        if (pass == PASS_ATTN_INPUTS) {
            block_attn_inputs(m, w, &b.s, x, n);
            gather(j, &h[0], b.s.norm, w0, n, b.transposed);
            gather(j, &h[1], b.s.attn, w0, n, b.transposed);
        } else {
            if (pass != PASS_FFN)
                block_attn_fwd(m, w, &b.s, x, x, n);
            if (pass == PASS_FFN_INPUTS) {
                block_ffn_inputs(m, w, &b.s, x, n);
                gather(j, &h[0], b.s.norm, w0, n, b.transposed);
                gather(j, &h[1], b.s.act, w0, n, b.transposed);
            } else {
                block_ffn_fwd(m, w, &b.s, x, x, n);
            }
            ok = acts_put(j->acts, w0, n, x, e);
        }
        gpu_cmd_flush(j->cmd);
        j->work_done = before + share * (w0 + n) / j->plan.samples;
        ok = ok && tell(j, pass == PASS_BLOCK ? "resume" : "calibrate", 0, 0, NAN, 0, e);
    }
    /* Nothing of the scratch may be in use when it is given back. */
    ok = gpu_cmd_finish(j->cmd, ok ? e : NULL) && ok;
    gpu_arena_reset(j->scratch, mark);
    return ok;
}

/* --- one block
 * --------------------------------------------------------------------------------------------------- */

struct block_result {
    struct qlinear q[LINEAR_COUNT];
    struct linear_report report[LINEAR_COUNT];
};

static void block_result_free(struct block_result *r)
{
    for (int i = 0; i < LINEAR_COUNT; i++)
        qlinear_free(&r->q[i]);
}

static bool quantize_one(struct job *j, struct plan_item *item, struct gpu_view w, const struct hessian *h,
                         struct block_result *r, struct err *e)
{
    struct tune_hooks hooks = {on_step, j};
    detail(j, linear_short_name(item->id));
    j->linear_work = linear_work(j, item);
    if (!tell(j, "quantize", 0, 0, NAN, 0, e))
        return false;
    struct linear_task t = {.cmd = j->cmd,
                            .options = j->o,
                            .item = item,
                            .w = w,
                            .hessian = h,
                            .scratch = j->scratch,
                            .tune_bytes = j->plan.tune_bytes,
                            .tensor = item->layer * LINEAR_COUNT + (uint32_t)item->id,
                            .hooks = &hooks};
    if (!quantize_linear(&t, &r->q[item->id], &r->report[item->id], e)) {
        if (e->kind == ERR_STOPPED)
            return err_hint(e, "finished blocks are kept in %s; repeat the command to go on", j->work_dir);
        return err_context(e, "%s", item->module);
    }
    const struct linear_report *report = &r->report[item->id];
    if (report->diagonal_only)
        log_warn("%s: its Hessian is not positive at any damping; quantized without error feedback",
                 item->module);
    else if (report->damp_raised)
        log_warn("%s: its Hessian needed more damping than %g", item->module, (double)j->o->damp);
    j->work_done += j->linear_work;
    j->linear_work = 0;
    return true;
}

static bool stage_hessians(struct job *j, const struct stage *s, struct hessian h[2], struct err *e)
{
    bool held = j->plan.holdout > 0;
    return hessian_create(&h[0], j->cmd, j->hess, j->m->cols[s->first], held, e) &&
           hessian_create(&h[1], j->cmd, j->hess, j->m->cols[s->wide], held, e);
}

/* GPTQ and GSQ: gather, quantize, go on behind the quantized weights; twice. */
static bool block_calibrated(struct job *j, uint32_t layer, struct block_result *r, struct err *e)
{
    struct block_weights w;
    struct plan_item *items = j->plan.items + (size_t)layer * LINEAR_COUNT;
    detail(j, "loading");
    if (!model_load_block(j->m, layer, j->block, &w, e))
        return false;
    for (int s = 0; s < 2; s++) {
        struct hessian h[2];
        detail(j, s == 0 ? "attention inputs" : "feed-forward inputs");
        bool ok = stage_hessians(j, &stages[s], h, e) &&
                  run_pass(j, s == 0 ? PASS_ATTN_INPUTS : PASS_FFN_INPUTS, &w, h, e);
        if (ok)
            j->work_done += hessian_work(j, &stages[s]);
        for (int id = stages[s].first; ok && id < (int)stages[s].end; id++)
            if (!items[id].keep)
                ok = quantize_one(j, &items[id], w.w[id], &h[id == (int)stages[s].wide], r, e);
        gpu_arena_reset(j->hess, 0);
        if (!ok)
            return false;
    }
    detail(j, "outputs");
    return run_pass(j, PASS_FFN, &w, NULL, e);
}

/* RTN: weights alone, one linear at a time. */
static bool block_rtn(struct job *j, uint32_t layer, struct block_result *r, struct err *e)
{
    struct plan_item *items = j->plan.items + (size_t)layer * LINEAR_COUNT;
    for (int id = 0; id < LINEAR_COUNT; id++) {
        struct gpu_view w;
        if (items[id].keep)
            continue;
        bool ok = gpu_alloc(j->block, (uint64_t)items[id].rows * items[id].cols * 4, &w, e) &&
                  model_load_matrix(j->m, items[id].module, 0, items[id].rows, w, e) &&
                  quantize_one(j, &items[id], w, NULL, r, e);
        gpu_arena_reset(j->block, 0);
        if (!ok)
            return false;
    }
    return true;
}

/* A block finished in an earlier run: its stored weights carry the activations on. */
static bool block_resume(struct job *j, uint32_t layer, struct err *e)
{
    struct plan_item *items = j->plan.items + (size_t)layer * LINEAR_COUNT;
    struct block_weights w;
    detail(j, "replaying");
    if (!model_load_block(j->m, layer, j->block, &w, e))
        return false;
    for (int id = 0; id < LINEAR_COUNT; id++) {
        if (items[id].keep)
            continue;
        gpu_mark mark = gpu_arena_mark(j->scratch);
        struct qlinear q = {0};
        struct qmatrix dq;
        bool ok = store_read_linear(j->store, &items[id], &q, NULL, e) &&
                  qmatrix_create(&dq, j->scratch, items[id].rows, items[id].cols, items[id].spec, e) &&
                  qmatrix_upload(j->cmd, &dq, &q, e);
        if (ok) {
            qmatrix_dequant(j->cmd, &dq, w.w[id]);
            ok = gpu_cmd_finish(j->cmd, e);
        }
        qlinear_free(&q);
        gpu_arena_reset(j->scratch, mark);
        if (!ok)
            return false;
    }
    return run_pass(j, PASS_BLOCK, &w, NULL, e);
}

static void block_reported(struct job *j, const struct linear_report *r)
{
    j->out->linears[j->out->n_linears++] = *r;
    if (j->cb->linear_done)
        j->cb->linear_done(j->cb->ctx, r);
}

static bool walk_blocks(struct job *j, struct err *e)
{
    uint32_t done = store_blocks_done(j->store, j->plan.n_layers);
    double per_block = j->work_total / j->plan.n_layers;
    j->out->blocks_resumed = done;
    if (done)
        log_info("%u of %u blocks are done already", done, j->plan.n_layers);
    for (uint32_t layer = 0; layer < j->plan.n_layers; layer++) {
        struct plan_item *items = j->plan.items + (size_t)layer * LINEAR_COUNT;
        struct block_result r = {0};
        bool ok = true, replay = layer < done;
        j->layer = layer;
        if (!replay)
            ok = j->o->method == METHOD_RTN ? block_rtn(j, layer, &r, e) : block_calibrated(j, layer, &r, e);
        else if (j->o->method != METHOD_RTN && done < j->plan.n_layers)
            ok = block_resume(j, layer, e);
        gpu_arena_reset(j->block, 0);
        ok = ok && (replay || store_write_block(j->store, layer, items, r.q, r.report, LINEAR_COUNT, e));
        for (int id = 0; ok && id < LINEAR_COUNT; id++) {
            struct qlinear q = {0};
            if (items[id].keep)
                continue;
            if (replay)
                ok = store_read_linear(j->store, &items[id], &q, &r.report[id], e);
            qlinear_free(&q);
            if (ok)
                block_reported(j, &r.report[id]);
        }
        block_result_free(&r);
        if (!ok)
            return e->kind == ERR_STOPPED ? false : err_context(e, "block %u", layer + 1);
        j->work_done = per_block * (layer + 1);
        if (replay)
            j->work_skipped = j->work_done;
        j->out->blocks_done++;
    }
    return true;
}

/* --- export
 * ------------------------------------------------------------------------------------------------------ */

static bool pull_linear(void *ctx, const struct export_item *x, struct qlinear *q, struct err *e)
{
    struct job *j = ctx;
    for (size_t i = 0; i < j->plan.n_items; i++)
        if (strcmp(j->plan.items[i].module, x->module) == 0)
            return store_read_linear(j->store, &j->plan.items[i], q, NULL, e);
    return err_set(e, ERR_BUG, "the export asks for %s, which is not in the plan", x->module);
}

static bool export_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct job *j = ctx;
    struct progress_event ev = {.phase = "export", .loss = NAN, .eta_seconds = NAN};
    ev.done = total ? (double)done / (double)total : 1;
    return progress_report(&j->cb->progress, &ev);
}

static bool export_all(struct job *j, struct err *e)
{
    struct export_item *x = calloc(j->plan.n_items, sizeof *x);
    if (!x)
        return err_nomem(e, "the export", j->plan.n_items * sizeof *x);
    size_t n = 0;
    for (size_t i = 0; i < j->plan.n_items; i++) {
        const struct plan_item *item = &j->plan.items[i];
        if (!item->keep)
            x[n++] = (struct export_item){item->module, item->rows, item->cols, item->spec};
    }
    struct export_options options = {.format = j->o->format, .container = j->o->container};
    struct export_source source = {j, pull_linear, export_progress};
    bool ok = write_hf(j->o->out_dir, j->ck, x, n, &options, &source, e);
    free(x);
    return ok;
}

/* --- the run
 * ----------------------------------------------------------------------------------------------------- */

/* An output folder that holds a model of somebody else's is never written over. */
static bool check_out_dir(const struct quantize_options *o, const struct checkpoint *src, struct err *e)
{
    char probe[4096];
    if (os_stat(o->out_dir, NULL) == OS_FILE) {
        err_set(e, ERR_USER, "the output %s is a file, not a folder", o->out_dir);
        return err_hint(e, "give a new folder with -o");
    }
    /* A dry run creates nothing, but judges a folder that is there. */
    if ((!o->dry_run || os_stat(o->out_dir, NULL) == OS_DIR) && !export_check_folder(o->out_dir, src, e))
        return false;
    /* Hours of work must not end at a folder that cannot be written. */
    if (o->dry_run)
        return true;
    if (!os_path_join(probe, sizeof probe, o->out_dir, ".gsq-probe", e))
        return false;
    FILE *f = os_fopen(probe, "wb");
    if (!f) {
        err_set(e, ERR_USER, "the output folder %s is not writable", o->out_dir);
        return err_hint(e, "check its permissions, or give another folder with -o");
    }
    fclose(f);
    os_remove(probe);
    return true;
}

static bool load_calibration(struct job *j, struct quantize_options *o, uint32_t ctx, struct err *e)
{
    if (o->method == METHOD_RTN || (o->dry_run && !o->calib))
        return true;
    if (!o->calib) {
        err_set(e, ERR_USER, "--method %s needs a calibration text", method_name(o->method));
        return err_hint(
            e, "give a text file like what the model will read with --calib; --method rtn needs none");
    }
    struct tokenizer *t = NULL;
    bool ok = tokenizer_load(&t, o->model_dir, e) && windows_load(&j->windows, t, o->calib, ctx, o->samples,
                                                                  checkpoint_config(j->ck)->vocab_size, e);
    tokenizer_destroy(&t);
    if (ok && j->windows.n < o->samples) {
        log_warn("%s holds %u windows of %u tokens, %u were asked for", o->calib, j->windows.n, ctx,
                 o->samples);
        o->samples = j->windows.n;
    }
    return ok;
}

static bool open_store(struct job *j, struct err *e)
{
    struct identity id;
    bool ok = identity_make(&id, j->o, j->ck, j->cmd, &j->plan, &j->windows, e) &&
              store_open(&j->store, j->work_dir, id.fields, id.n, e);
    return ok;
}

static bool run_all(struct job *j, struct err *e)
{
    const struct quantize_options *o = j->o;
    if (!model_check_finite(j->m, NULL, NULL, e))
        return false;
    if (!open_store(j, e))
        return false;
    if (!gpu_arena_create(&j->block, gpu_cmd_gpu(j->cmd), "block", e) ||
        !gpu_arena_create(&j->hess, gpu_cmd_gpu(j->cmd), "hessian", e) ||
        !gpu_arena_create(&j->scratch, gpu_cmd_gpu(j->cmd), "scratch", e))
        return false;
    uint32_t layers = j->plan.n_layers;
    if (o->method != METHOD_RTN && store_blocks_done(j->store, layers) < layers) {
        struct acts_options tiers = {.device_bytes = j->plan.acts_device_bytes,
                                     .host_bytes = j->plan.acts_host_bytes,
                                     .spill_dir = j->work_dir};
        gpu_mark mark = gpu_arena_mark(j->scratch);
        struct gpu_view staging;
        uint64_t bytes = (uint64_t)j->plan.batch_windows * j->plan.ctx * j->m->cfg->hidden_size * 4;
        if (!acts_create(&j->acts, j->m, j->plan.samples, &tiers, e) ||
            !gpu_alloc(j->scratch, bytes, &staging, e) ||
            !acts_embed(j->acts, &j->windows, j->plan.batch_windows, staging, e) ||
            !gpu_cmd_finish(j->cmd, e))
            return false;
        gpu_arena_reset(j->scratch, mark);
    }
    if (!walk_blocks(j, e) || !export_all(j, e))
        return false;
    if (!o->keep_work)
        store_remove(&j->store);
    return true;
}

static void summarize(struct job *j)
{
    struct quantize_result *out = j->out;
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < out->n_linears; i++) {
        if (isfinite(out->linears[i].loss_final)) {
            sum += out->linears[i].loss_final;
            n++;
        }
    }
    out->mean_loss = n ? sum / (double)n : NAN;
    out->bpw = j->plan.bpw;
    out->out_bytes = j->plan.out_bytes;
    out->reach = j->plan.reach;
    out->seconds = (double)(os_now_ns() - j->begin) * 1e-9;
    out->device_peak = gpu_memory_peak(gpu_cmd_gpu(j->cmd));
    out->host_peak = os_peak_anon();
}

bool quantize_run(struct gpu_cmd *cmd, const struct quantize_options *options, const struct job_callbacks *cb,
                  struct quantize_result *out, struct err *e)
{
    static const struct job_callbacks no_callbacks;
    struct quantize_options o = *options;
    struct job j = {.cmd = cmd, .o = &o, .cb = cb ? cb : &no_callbacks, .out = out, .begin = os_now_ns()};
    *out = (struct quantize_result){0};
    bool ok = checkpoint_open(&j.ck, o.model_dir, e) && check_out_dir(&o, j.ck, e);
    if (ok) {
        const struct model_config *c = checkpoint_config(j.ck);
        uint32_t ctx = o.ctx                                              ? o.ctx
                       : c->max_position && c->max_position < CTX_DEFAULT ? c->max_position
                                                                          : CTX_DEFAULT;
        int n = o.work_dir ? snprintf(j.work_dir, sizeof j.work_dir, "%s", o.work_dir)
                           : snprintf(j.work_dir, sizeof j.work_dir, "%s.work", o.out_dir);
        ok = (n > 0 && (size_t)n < sizeof j.work_dir) ||
             err_set(e, ERR_USER, "the path is too long: %.200s", o.out_dir);
        o.work_dir = j.work_dir;
        ok = ok && load_calibration(&j, &o, ctx, e) && model_open(&j.m, cmd, j.ck, ctx, e) &&
             plan_make(&j.plan, j.m, &o, e);
    }
    if (ok) {
        plan_work(&j);
        if (j.cb->planned)
            j.cb->planned(j.cb->ctx, &j.plan);
        out->linears = calloc(j.plan.n_items, sizeof *out->linears);
        ok = out->linears ? o.dry_run || run_all(&j, e)
                          : err_nomem(e, "the report", j.plan.n_items * sizeof *out->linears);
        summarize(&j);
    }
    gpu_cmd_finish(cmd, NULL);
    acts_destroy(&j.acts);
    gpu_arena_destroy(&j.scratch);
    gpu_arena_destroy(&j.hess);
    gpu_arena_destroy(&j.block);
    store_close(&j.store);
    plan_free(&j.plan);
    model_close(&j.m);
    windows_free(&j.windows);
    checkpoint_close(&j.ck);
    if (!ok)
        quantize_result_free(out);
    return ok;
}

void quantize_result_free(struct quantize_result *r)
{
    free(r->linears);
    r->linears = NULL;
    r->n_linears = 0;
}
