/* gsq_quantize and gsq_plan_make: the run, then what is said of its result. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/write/gguf_mixture.h"
#include "host/base/comm.h"
#include "host/base/log.h"
#include "host/base/os.h"
#include "host/convert/convert.h"
#include "host/eval/eval.h"
#include "lib/lib_internal.h"
#include "lib/report_html.h"

struct run {
    struct gsq_quantize_callbacks cb;
    struct lib_progress progress;
    const struct lib_options *o;
    gsq_plan *plan;      /* a copy; NULL: there was no memory for it */
    struct windows eval; /* the --eval text, as the model reads it */
    /* A run that goes on after its device was lost tells nothing twice. */
    uint32_t linears, linears_told, stages, stages_told; /* of this attempt; of all */
    uint32_t losses;                                     /* of the device */
};

/* ---- what the run tells ---- */

static void on_planned(void *ctx, const struct plan *p)
{
    struct run *r = ctx;
    r->linears = r->stages = 0;
    if (r->plan)
        return;
    r->plan = lib_plan_copy(p, &r->o->q);
    if (r->plan && r->cb.planned)
        r->cb.planned(r->cb.ctx, r->plan);
}

static void on_linear(void *ctx, const struct linear_report *l)
{
    struct run *r = ctx;
    struct gsq_linear out = {
        .size = sizeof out,
        .module = l->module,
        .loss_rtn = l->loss_rtn,
        .loss_gptq = l->loss_gptq,
        .loss = l->loss_final,
        .seconds = l->seconds,
        .rows_rolled_back = l->rows_rolled_back,
        .damp_raised = l->damp_raised,
        .diagonal_only = l->diagonal_only,
        .tokens = l->expert.counted ? (int64_t)l->expert.tokens : -1,
        .starved = l->expert.starved,
    };
    if (r->linears++ < r->linears_told)
        return;
    r->linears_told = r->linears;
    if (r->cb.linear_done)
        r->cb.linear_done(r->cb.ctx, &out);
}

static void on_stage(void *ctx, const struct stage_report *s)
{
    struct run *r = ctx;
    struct gsq_stage out = {
        .size = sizeof out,
        .name = stage_name(s->stage),
        .block = s->stage == STAGE_SCALES ? 0 : s->layer + 1,
        .loss_start = s->trained.loss_start,
        .loss = s->trained.loss_final,
        .steps = s->trained.steps,
        .epochs = s->trained.epochs,
        .best_epoch = s->trained.best_epoch,
        .seconds = s->trained.seconds,
        .losses = s->hard,
        .n_losses = s->n_hard,
        .retries = s->trained.retries,
    };
    if (r->stages++ < r->stages_told)
        return;
    r->stages_told = r->stages;
    if (r->cb.stage_done)
        r->cb.stage_done(r->cb.ctx, &out);
}

static bool take_callbacks(struct run *r, const struct lib_options *o, const struct gsq_quantize_callbacks *from,
                           struct err *e)
{
    *r = (struct run){.o = o};
    if (!lib_take(&r->cb, sizeof r->cb, from, "gsq_quantize_callbacks", e))
        return false;
    r->progress = (struct lib_progress){r->cb.progress, r->cb.ctx};
    return true;
}

static struct gsq_work work_of(const struct gpu_traffic *t)
{
    return (struct gsq_work){t->calls, t->flop, t->read, t->written};
}

static void tell_ranks(const struct run *r, const struct quantize_result *q)
{
    for (uint32_t i = 0; r->cb.rank_done && i < q->n_ranks; i++) {
        const struct rank_work *w = &q->ranks[i];
        const struct gsq_rank out = {
            .size = sizeof out,
            .rank = i,
            .ranks = q->n_ranks,
            .own = work_of(&w->parts[GPU_PART_OWN]),
            .units = work_of(&w->parts[GPU_PART_UNITS]),
            .rows = work_of(&w->parts[GPU_PART_ROWS]),
            .each = work_of(&w->parts[GPU_PART_EACH]),
            .exchange = work_of(&w->parts[GPU_PART_EXCHANGE]),
            .n_kinds = COMM_KINDS,
            .kinds = comm_kind_names,
            .sent = w->bytes.sent,
            .received = w->bytes.received,
            .planned_sent = w->whole ? w->expected.sent : NULL,
            .planned_received = w->whole ? w->expected.received : NULL,
        };
        r->cb.rank_done(r->cb.ctx, &out);
    }
}

/* The run, and again from its work folder where the device was lost; not twice with nothing finished in between. */
static bool run_job(struct run *r, gsq_device *device, struct quantize_result *out, struct err *e)
{
    struct job_callbacks cb = {
        .progress = lib_progress(&r->progress),
        .planned = on_planned,
        .linear_done = on_linear,
        .stage_done = on_stage,
        .ctx = r,
    };
    bool ok = !device || lib_device_ready(device, e);
    uint64_t begin = os_now_ns();
    uint32_t resumed = 0, kept = 0;
    double busy = 0;
    if (ok)
        ok = quantize_run(device ? device->cmd : NULL, &r->o->q, &cb, out, e);
    while (!ok && e->kind == ERR_ENV && device && lib_device_lost(device) && comm_size() == 1 &&
           (!r->losses || out->kept > kept)) {
        log_warn("%s; it is opened again, and the run goes on behind what it has finished", e->msg);
        if (!r->losses)
            resumed = out->blocks_resumed;
        kept = out->kept;
        busy += out->device_busy;
        r->losses++;
        *e = (struct err){0};
        ok = lib_device_ready(device, e) && quantize_run(device->cmd, &r->o->q, &cb, out, e);
    }
    if (r->losses) {
        out->blocks_resumed = resumed;
        out->device_busy += busy;
        out->seconds = (double)(os_now_ns() - begin) * 1e-9;
    }
    if (!ok && e->kind == ERR_STOPPED)
        snprintf(e->msg, sizeof e->msg, "stopped at a safe point; rerun the same command to resume");
    return ok;
}

/* ---- types without codes: F32, F16, BF16, COPY ---- */

/* llama-quantize makes such files, too; here it is the work of gsq_convert. bytes: of the file. */
static bool run_copy(struct run *r, uint64_t *bytes, struct err *e)
{
    const struct quantize_options *q = &r->o->q;
    struct convert_options c = {
        .format = EXPORT_GGUF,
        .type = strcmp(q->mixture, GGUF_COPY) == 0 ? NULL : q->mixture,
        .overrides = q->overrides,
        .n_overrides = q->n_overrides,
        .force = q->force,
        .size = q->dry_run ? bytes : NULL,
    };
    struct progress progress = lib_progress(&r->progress);
    if (q->calib || q->imatrix)
        log_warn("--type %s quantizes nothing: %s is not used", q->mixture,
                 q->calib ? "the calibration text" : "the importance matrix");
    if (!convert_run(q->model_dir, q->out_dir, &c, &progress, e))
        return false;
    if (!q->dry_run)
        os_stat(q->out_dir, bytes);
    return true;
}

/* ---- plans ---- */

static bool plan_copy(struct run *r, struct err *e)
{
    struct plan p = {0};
    if (!run_copy(r, &p.out_bytes, e))
        return false;
    r->plan = lib_plan_copy(&p, &r->o->q);
    return true;
}

bool gsq_plan_make(gsq_plan **out, gsq_device *device, const gsq_model *model,
                   const struct gsq_quantize_options *options, const struct gsq_quantize_callbacks *callbacks,
                   struct gsq_error *e)
{
    struct err why = {0};
    struct lib_options o;
    struct quantize_result result = {0};
    struct run r = {0};
    *out = NULL;
    bool ok = lib_options(&o, model, options, &why) && take_callbacks(&r, &o, callbacks, &why) &&
              lib_check(&o, model, true, &why) && lib_eval_text(&r.eval, &o, model, 1, NULL, &why) &&
              (!device || (o.q.method == METHOD_RTN && !o.q.calib && !o.q.imatrix) ||
               lib_device_choose(device, false, &why)) &&
              (lib_copies(&o) ? plan_copy(&r, &why) : run_job(&r, device, &result, &why));
    if (ok && !r.plan)
        ok = err_nomem(&why, "the plan", sizeof(gsq_plan));
    if (ok)
        *out = r.plan;
    else
        gsq_plan_free(&r.plan);
    quantize_result_free(&result);
    windows_free(&r.eval);
    lib_options_free(&o);
    return lib_result(ok, &why, e);
}

/* ---- after the export ---- */

static bool compare(const struct run *r, gsq_device *device, const gsq_model *model, struct report_eval *out,
                    struct err *e)
{
    struct checkpoint *made = NULL;
    struct compare_result c = {0};
    struct lib_progress progress = r->progress;
    struct eval_options o = {
        .text = r->o->asked.eval,
        .ctx = r->eval.ctx,
        .windows = r->o->asked.eval_windows,
        .reference = &r->eval,
        .spill_dir = lib_spill_dir(NULL),
        .progress = lib_progress(&progress),
    };
    bool ok = checkpoint_open(&made, r->o->q.out_dir, e) && lib_compare(device, made, model->ck, &o, &c, e);
    checkpoint_close(&made);
    if (ok)
        *out = (struct report_eval){.measured = true,
                                    .text = o.text,
                                    .ppl_reference = c.reference.perplexity,
                                    .ppl_model = c.model.perplexity,
                                    .mean_kl = c.mean_kl,
                                    .top1 = c.top1,
                                    .windows = c.model.windows,
                                    .ctx = o.ctx,
                                    .ppl_reference_error = c.reference.perplexity_error,
                                    .ppl_model_error = c.model.perplexity_error,
                                    .kl_error = c.kl_error,
                                    .top1_error = c.top1_error};
    return ok;
}

static bool evaluate(const struct run *r, gsq_device *device, const gsq_model *model, struct report_eval *out,
                     struct err *e)
{
    const struct quantize_options *q = &r->o->q;
    if (compare(r, device, model, out, e))
        return true;
    if (e->kind != ERR_STOPPED)
        return err_context(e, "%s is complete, but could not be evaluated", q->out_dir);
    err_set(e, ERR_STOPPED, "stopped during the evaluation; %s is complete", q->out_dir);
    return err_hint(e, "gsq compare %s %s --text %s --ctx %u", q->out_dir, q->model_dir, r->o->asked.eval,
                    (unsigned)r->eval.ctx);
}

/* Means over the training stages of halves of blocks, and of a block's experts, before and after; NAN: there were none. */
static void stage_means(const struct quantize_result *r, double *start, double *final)
{
    size_t n = 0;
    double before = 0, after = 0;
    for (size_t i = 0; i < r->n_stages; i++) {
        if (r->stages[i].stage == STAGE_SCALES)
            continue;
        before += r->stages[i].trained.loss_start;
        after += r->stages[i].trained.loss_final;
        n++;
    }
    *start = n ? before / (double)n : NAN;
    *final = n ? after / (double)n : NAN;
}

static void give(struct gsq_quantize_result *result, const struct run *r, const struct quantize_result *q,
                 const struct report_eval *v, bool reported)
{
    const struct quantize_options *o = &r->o->q;
    struct gsq_quantize_result out = {
        .seconds = q->seconds,
        .bits_per_weight = q->bpw,
        .file_bits_per_weight = q->file_bpw,
        .mean_loss = q->mean_loss,
        .out_bytes = q->out_bytes,
        .device_peak = q->device_peak,
        .host_peak = q->host_peak,
        .device_busy = q->device_busy,
        .blocks = q->blocks_done,
        .blocks_resumed = q->blocks_resumed,
        .method = method_name(o->method),
        .format = export_format_name(o->format),
        .type = r->plan ? r->plan->options.mixture : o->mixture,
        .written = true,
        .finished_before = q->finished,
        .helped = q->helped,
        .made = q->made,
        .reported = reported,
        .predicted_seconds = q->predicted_seconds,
        .reach = q->reach,
        .perplexity = v->measured ? v->ppl_model : NAN,
        .reference_perplexity = v->measured ? v->ppl_reference : NAN,
        .mean_kl = v->measured ? v->mean_kl : NAN,
        .top1 = v->measured ? v->top1 : NAN,
        .perplexity_error = v->measured ? v->ppl_model_error : NAN,
        .reference_perplexity_error = v->measured ? v->ppl_reference_error : NAN,
        .mean_kl_error = v->measured ? v->kl_error : NAN,
        .top1_error = v->measured ? v->top1_error : NAN,
        .eval_windows = v->windows,
        .eval_context = v->ctx,
        .device_losses = r->losses,
    };
    stage_means(q, &out.stage_loss_start, &out.stage_loss);
    lib_give(result, &out, sizeof out);
}

/* Of all its tensors, as they are stored. */
static uint64_t checkpoint_bytes(struct checkpoint *ck)
{
    uint64_t n = 0;
    for (size_t i = 0; i < checkpoint_tensor_count(ck); i++)
        n += checkpoint_tensor_at(ck, i)->bytes;
    return n;
}

/* What fails here leaves the model complete; the first failure is the call's, but the rest is still done. */
static bool finish(const struct run *r, gsq_device *device, const gsq_model *model, const struct quantize_result *q,
                   struct gsq_quantize_result *result, struct err *e)
{
    const struct gsq_quantize_options *asked = &r->o->asked;
    struct report_eval eval = {0};
    struct err late = {0};
    tell_ranks(r, q);
    if (r->cb.written)
        r->cb.written(r->cb.ctx);
    bool evaluated = !asked->eval || evaluate(r, device, model, &eval, e);
    struct quantize_options shown = r->o->q;
    if (r->plan && r->plan->plan.choice.rules) { /* types were chosen */
        shown.mixture = r->plan->options.mixture;
        shown.code_type = r->plan->options.code_type;
        shown.group = r->plan->options.group;
    }
    struct report_input in = {.settings = asked->settings,
                              .n_settings = asked->n_settings,
                              .o = &shown,
                              .plan = r->plan ? &r->plan->plan : NULL,
                              .result = q,
                              .source_bytes = checkpoint_bytes(model->ck),
                              .device = gpu_info(device->gpu)->name,
                              .command = asked->command,
                              .eval = eval};
    bool reported = !asked->report || report_html_write(asked->report, &in, &late);
    give(result, r, q, &eval, asked->report && reported);
    if (evaluated && !reported) {
        *e = late;
        err_context(e, "%s is complete, but its report is not", r->o->q.out_dir);
    }
    return evaluated && reported;
}

/* ---- the whole ---- */

static bool quantize_copy(struct run *r, struct gsq_quantize_result *result, struct err *e)
{
    struct quantize_result q = {.mean_loss = NAN};
    if (!run_copy(r, &q.out_bytes, e))
        return false;
    give(result, r, &q, &(struct report_eval){0}, false);
    return true;
}

static bool quantize(struct run *r, gsq_device *device, const gsq_model *model, struct gsq_quantize_result *result,
                     struct err *e)
{
    struct quantize_result q = {0};
    if (!device)
        return err_set(e, ERR_USER, "gsq_quantize needs a device: --type %s has codes to learn or to round",
                       r->o->q.mixture ? r->o->q.mixture : r->o->q.code_type->name);
    const char *report = r->o->asked.report, *folder = r->o->q.format == EXPORT_GGUF ? NULL : r->o->q.out_dir;
    struct os_lock lock = {0};
    bool made = false;
    const struct progress progress = lib_progress(&r->progress);
    /* One that joins writes none, unless it comes to write the model. */
    bool ok = (!report || r->o->asked.join || report_html_lock(&lock, report, folder, &made, e)) &&
              lib_eval_text(&r->eval, r->o, model, r->o->asked.eval_windows, &progress, e) &&
              lib_device_choose(device, false, e) && run_job(r, device, &q, e);
    if (ok && q.helped) {
        give(result, r, &q, &(struct report_eval){0}, false);
    } else if (ok && q.finished) {
        if (r->o->asked.eval || report)
            log_warn(
                "--eval and --report are ignored, because nothing was run; gsq compare measures the finished model");
        give(result, r, &q, &(struct report_eval){0}, false);
    } else if (ok) {
        ok = finish(r, device, model, &q, result, e);
    }
    os_unlock(&lock);
    if (!ok && made)
        os_remove_dir(folder); /* where nothing came into it */
    quantize_result_free(&q);
    return ok;
}

bool gsq_quantize(gsq_device *device, const gsq_model *model, const struct gsq_quantize_options *options,
                  const struct gsq_quantize_callbacks *callbacks, struct gsq_quantize_result *result,
                  struct gsq_error *e)
{
    struct err why = {0};
    struct lib_options o;
    struct run r = {0};
    bool ok = lib_options(&o, model, options, &why) && take_callbacks(&r, &o, callbacks, &why) &&
              lib_check(&o, model, false, &why) &&
              (lib_copies(&o) ? quantize_copy(&r, result, &why) : quantize(&r, device, model, result, &why));
    gsq_plan_free(&r.plan);
    windows_free(&r.eval);
    lib_options_free(&o);
    return lib_result(ok, &why, e);
}
