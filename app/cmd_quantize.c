/* gsq quantize. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/progress_term.h"
#include "app/report_settings.h"
#include "formats/shipped_text.h"
#include "formats/tokenizer.h"
#include "host/base/clean.h"
#include "host/base/num.h"
#include "host/base/out_path.h"
#include "host/quant/convert.h"
#include "host/quant/eval.h"
#include "host/quant/job.h"
#include "host/quant/progress.h"
#include "lib/plan_text.h"
#include "lib/report_html.h"

struct run {
    const struct args *args;
    const struct quantize_options *o;
    struct plan plan; /* a copy: the run frees its own */
    bool planned;
};

/* What the run tells, for the bar. */
static bool on_progress(void *ctx, const struct progress_event *ev)
{
    struct gsq_progress out = {.size = sizeof out, .phase = ev->phase, .detail = ev->detail, .block = ev->block,
                               .blocks = ev->blocks, .step = ev->step, .steps = ev->steps, .loss = ev->loss,
                               .done = ev->done, .eta_seconds = ev->eta_seconds,
                               .elapsed_seconds = ev->elapsed_seconds, .unit = ev->unit, .count = ev->count};
    return progress_term_show(ctx, &out);
}

static struct progress watch(struct progress_term *term, const struct args *a)
{
    progress_term_begin(term, a);
    return (struct progress){on_progress, term};
}

/* A refined file's types are its own. */
static bool check_refine(const struct args *a, const struct quantize_options *o, struct err *e)
{
    bool types = o->mixture || a->bits_given || o->group || o->pure || o->embedding_type || o->head_type ||
                 o->keep_head;
    for (size_t i = 0; i < o->n_rules; i++)
        types = types || o->rules[i].type || o->rules[i].gguf;
    if (!types)
        return true;
    err_set(e, ERR_USER,
            "--refine keeps the types of its file: --type, --bits, --group and --tensor have no say");
    return err_hint(e, "leave them out; --keep REGEX keeps codes as they are");
}

/* Never silently: what rounds at once is not what gsq is for. */
static void tell_rounding(const struct args *a)
{
    if (a->rounds_like_llama)
        log_warn("no --calib and no --imatrix: weights are rounded to the nearest level, as llama-quantize does; "
                 "add --calib default, or a text of your own, to learn them, which takes longer and keeps much more of the model");
}

/* What can be said without opening anything. */
static bool check_options(const struct args *a, struct quantize_options *o, struct err *e)
{
    if (o->refine && !check_refine(a, o, e))
        return false;
    if (o->method != METHOD_RTN && !o->calib && !o->imatrix && !o->refine && !o->dry_run) {
        err_set(e, ERR_USER, "--method %s needs a calibration text", method_name(o->method));
        return err_hint(e, "add --calib default (the text that comes with gsq) or --calib FILE (text like what the model will "
                           "read), or use --method rtn");
    }
    if (o->container && o->format != EXPORT_COMPRESSED_TENSORS) {
        err_set(e, ERR_USER, "--container belongs to --format compressed-tensors");
        return err_hint(e, "leave it out for --format %s", export_format_name(o->format));
    }
    if (o->mixture && a->bits_given) {
        err_set(e, ERR_USER, "--bits and --type both say what the linears become");
        return err_hint(e, "leave one of them out; --type names all types of a GGUF");
    }
    if (a->windows && !a->eval) {
        err_set(e, ERR_USER, "--windows belongs to --eval");
        return err_hint(e, "add --eval FILE; calibration windows are --samples");
    }
    return quantize_settle(o, e);
}

/* Hours of work must not end at a text that cannot be read, or that is shorter than a window. */
static bool check_eval_text(const struct args *a, const struct quantize_options *o, struct err *e)
{
    struct checkpoint *ck = NULL;
    struct tokenizer *t = NULL;
    struct windows w = {0};
    uint64_t size = 0;
    if (os_stat(a->eval, &size) != OS_FILE || size == 0) {
        err_set(e, ERR_USER, "--eval %s: %s", a->eval,
                size ? "not a file" : "there is no such text, or it is empty");
        return err_hint(e,
                        "give a text file (UTF-8) like what the model will read, not used for calibration");
    }
    if (!checkpoint_open(&ck, o->model_dir, e))
        return false;
    const struct model_config *c = checkpoint_config(ck);
    uint32_t ctx = o->ctx ? o->ctx : app_default_ctx(c);
    bool ok = tokenizer_load(&t, o->model_dir, e) &&
              (windows_load(&w, t, a->eval, ctx, 1, c->vocab_size, NULL, e) || err_context(e, "--eval"));
    windows_free(&w);
    tokenizer_destroy(&t);
    checkpoint_close(&ck);
    return ok;
}

static bool check_files(const struct args *a, const struct quantize_options *o, struct err *e)
{
    const char *folder = o->format == EXPORT_GGUF ? NULL : o->out_dir;
    char text[4096];
    const char *calib = o->calib;
    if (o->method != METHOD_RTN && !shipped_text_path(&calib, text, sizeof text, calib, e))
        return false;
    const char *const inputs[] = {o->model_dir, calib, o->imatrix, o->refine, a->eval};
    const size_t n = sizeof inputs / sizeof *inputs;
    if (!out_not_input("the output", o->out_dir, inputs, n, e) ||
        (a->report && !out_not_input("--report", a->report, inputs, n, e)))
        return false;
    if (a->report && out_same(a->report, o->out_dir)) {
        err_set(e, ERR_USER, "--report %s is the output of the run too", a->report);
        return err_hint(e, "give the report a name of its own");
    }
    return (!a->report || report_html_check(a->report, folder, o->dry_run, o->force, e)) &&
           (!a->eval || check_eval_text(a, o, e));
}

static void *copy_array(const void *from, size_t *n, size_t size)
{
    void *to = calloc(*n ? *n : 1, size);
    if (to && *n)
        memcpy(to, from, *n * size);
    else
        *n = 0;
    return to;
}

static void copy_plan(struct run *r, const struct plan *p)
{
    r->plan = *p;
    r->plan.items = copy_array(p->items, &r->plan.n_items, sizeof *p->items);
    r->plan.tensors = copy_array(p->tensors, &r->plan.n_tensors, sizeof *p->tensors);
    r->planned = true;
}

static void on_planned(void *ctx, const struct plan *p)
{
    struct run *r = ctx;
    copy_plan(r, p);
    if (r->args->json) {
        cJSON *j = json_event("plan");
        plan_json(j, p);
        json_emit(j);
    }
    if (r->o->dry_run || log_get_level() >= LOG_INFO) {
        struct strbuf text = {0};
        plan_text(&text, p, r->o);
        app_print(r->o->dry_run ? app_out(r->args) : stderr, &text);
    }
}

static void add_loss(cJSON *j, const char *name, double v)
{
    if (!isnan(v))
        cJSON_AddNumberToObject(j, name, v);
}

static void on_linear(void *ctx, const struct linear_report *l)
{
    const struct run *r = ctx;
    if (r->args->json) {
        cJSON *j = json_event("linear");
        cJSON_AddStringToObject(j, "module", l->module);
        add_loss(j, r->o->refine ? "loss_file" : "loss_rtn", l->loss_rtn);
        add_loss(j, "loss_gptq", l->loss_gptq);
        add_loss(j, "loss", l->loss_final);
        cJSON_AddNumberToObject(j, "rows_rolled_back", l->rows_rolled_back);
        cJSON_AddBoolToObject(j, "damp_raised", l->damp_raised);
        cJSON_AddBoolToObject(j, "diagonal_only", l->diagonal_only);
        cJSON_AddNumberToObject(j, "seconds", l->seconds);
        json_emit(j);
        return;
    }
    char rtn[32] = "", gptq[32] = "";
    if (!isnan(l->loss_rtn))
        snprintf(rtn, sizeof rtn, "%s %.4g, ", r->o->refine ? "file" : "rtn", l->loss_rtn);
    if (!isnan(l->loss_gptq) && r->o->method == METHOD_GSQ)
        snprintf(gptq, sizeof gptq, "gptq %.4g, ", l->loss_gptq);
    if (isnan(l->loss_final))
        log_debug("%s: done, %.1f s", l->module, l->seconds);
    else
        log_debug("%s: loss %s%s%s %.4g, %.1f s", l->module, rtn, gptq, method_name(r->o->method),
                  l->loss_final, l->seconds);
}

static void on_stage(void *ctx, const struct stage_report *s)
{
    const struct run *r = ctx;
    if (r->args->json) {
        cJSON *j = json_event("stage");
        cJSON_AddStringToObject(j, "stage", stage_name(s->stage));
        if (s->stage != STAGE_SCALES)
            cJSON_AddNumberToObject(j, "block", s->layer + 1);
        add_loss(j, "loss_start", s->loss_start);
        add_loss(j, "loss", s->loss_final);
        cJSON *hard = cJSON_AddArrayToObject(j, "losses");
        for (uint32_t i = 0; i < s->n_hard; i++)
            cJSON_AddItemToArray(hard, cJSON_CreateNumber((double)s->hard[i]));
        cJSON_AddNumberToObject(j, "steps", s->steps);
        cJSON_AddNumberToObject(j, "epochs", s->epochs);
        cJSON_AddNumberToObject(j, "best_epoch", s->best_epoch);
        cJSON_AddNumberToObject(j, "retries", s->retries);
        cJSON_AddNumberToObject(j, "seconds", s->seconds);
        json_emit(j);
        return;
    }
    log_debug("block %u, %s: held-out error %.4g -> %.4g (epoch %u of %u), %.1f s", s->layer + 1,
              stage_name(s->stage), s->loss_start, s->loss_final, s->best_epoch, s->epochs, s->seconds);
}

/* Means over the training stages of a kind, before and after. */
static bool stage_means(const struct quantize_result *r, double *start, double *final)
{
    size_t n = 0;
    *start = *final = 0;
    for (size_t i = 0; i < r->n_stages; i++) {
        if (r->stages[i].stage == STAGE_SCALES)
            continue;
        *start += r->stages[i].loss_start;
        *final += r->stages[i].loss_final;
        n++;
    }
    if (n) {
        *start /= (double)n;
        *final /= (double)n;
    }
    return n > 0;
}

static void tell_result(const struct args *a, const struct quantize_options *o,
                        const struct quantize_result *r, const char *device, const struct report_eval *v)
{
    char size[24], time[24], dev[24], host[24];
    double start, final;
    if (!a->json) {
        say(stdout, "%s: %s%s%s, %s, %.3f bits per weight, %s\n", o->out_dir, export_format_name(o->format),
               o->mixture ? " " : "", o->mixture ? o->mixture : "", method_name(o->method), r->bpw,
               format_bytes(r->out_bytes, size, sizeof size));
        if (r->file_bpw > 0)
            say(stdout, "  all tensors %.3f bits per weight, embeddings and head included\n", r->file_bpw);
        if (!isnan(r->mean_loss))
            say(stdout, "  mean loss   %.5g (relative error of the linears' outputs, squared)\n", r->mean_loss);
        if (stage_means(r, &start, &final))
            say(stdout, "  held-out    %.5g -> %.5g by training together (the same of halves of blocks)\n", start,
                   final);
        say(stdout, "  blocks      %u", (unsigned)r->blocks_done);
        if (r->blocks_resumed)
            say(stdout, ", %u of them from an earlier run", (unsigned)r->blocks_resumed);
        say(stdout, "\n  time        %s on %s\n", format_seconds(r->seconds, time, sizeof time), device);
        say(stdout, "  peak memory %s on the device, %s on the host beyond mapped files\n",
               format_bytes(r->device_peak, dev, sizeof dev), format_bytes(r->host_peak, host, sizeof host));
        if (v->measured) {
            say(stdout, "  perplexity  %.5f +/- %.5f, of the 16-bit model %.5f +/- %.5f (%u windows of %u tokens)\n",
                   v->ppl_model, v->ppl_model_error, v->ppl_reference, v->ppl_reference_error,
                   (unsigned)v->windows, (unsigned)v->ctx);
            say(stdout, "  divergence  %.6f +/- %.6f nats per token (KL), the same most likely token %.2f +/- %.2f %% of "
                   "the time\n",
                   v->mean_kl, v->kl_error, 100 * v->top1, 100 * v->top1_error);
        }
        return;
    }
    cJSON *j = json_event("result");
    cJSON_AddStringToObject(j, "command", "quantize");
    cJSON_AddStringToObject(j, "model", o->model_dir);
    cJSON_AddStringToObject(j, "out", o->out_dir);
    cJSON_AddStringToObject(j, "format", export_format_name(o->format));
    if (o->mixture)
        cJSON_AddStringToObject(j, "type", o->mixture);
    cJSON_AddStringToObject(j, "method", method_name(o->method));
    cJSON_AddStringToObject(j, "device", device);
    cJSON_AddNumberToObject(j, "bits_per_weight", r->bpw);
    if (r->file_bpw > 0)
        cJSON_AddNumberToObject(j, "file_bits_per_weight", r->file_bpw);
    cJSON_AddNumberToObject(j, "out_bytes", (double)r->out_bytes);
    cJSON_AddNumberToObject(j, "seconds", r->seconds);
    add_loss(j, "mean_loss", r->mean_loss);
    if (stage_means(r, &start, &final)) {
        cJSON_AddNumberToObject(j, "stage_loss_start", start);
        cJSON_AddNumberToObject(j, "stage_loss", final);
    }
    cJSON_AddNumberToObject(j, "predicted_seconds", r->predicted_seconds);
    cJSON_AddNumberToObject(j, "blocks", r->blocks_done);
    cJSON_AddNumberToObject(j, "blocks_resumed", r->blocks_resumed);
    cJSON_AddNumberToObject(j, "device_peak_bytes", (double)r->device_peak);
    cJSON_AddNumberToObject(j, "host_peak_bytes", (double)r->host_peak);
    cJSON_AddNumberToObject(j, "reach", r->reach);
    if (v->measured) {
        cJSON_AddNumberToObject(j, "perplexity", v->ppl_model);
        cJSON_AddNumberToObject(j, "perplexity_error", v->ppl_model_error);
        cJSON_AddNumberToObject(j, "reference_perplexity", v->ppl_reference);
        cJSON_AddNumberToObject(j, "reference_perplexity_error", v->ppl_reference_error);
        cJSON_AddNumberToObject(j, "mean_kl", v->mean_kl);
        cJSON_AddNumberToObject(j, "mean_kl_error", v->kl_error);
        cJSON_AddNumberToObject(j, "top1_agreement", v->top1);
        cJSON_AddNumberToObject(j, "top1_agreement_error", v->top1_error);
        cJSON_AddNumberToObject(j, "eval_windows", v->windows);
        cJSON_AddNumberToObject(j, "eval_ctx", v->ctx);
    }
    json_emit(j);
}

static void tell_dry_run(const struct args *a, const struct quantize_options *o)
{
    if (!a->json) {
        say(stdout, "dry run: nothing was written\n");
        return;
    }
    cJSON *j = json_event("result");
    cJSON_AddStringToObject(j, "command", "quantize");
    cJSON_AddStringToObject(j, "model", o->model_dir);
    cJSON_AddStringToObject(j, "out", o->out_dir);
    cJSON_AddBoolToObject(j, "dry_run", true);
    json_emit(j);
}

/* The same command was there before. */
static void tell_finished(const struct args *a, const struct quantize_options *o, const struct quantize_result *r)
{
    if (a->eval || a->report)
        log_warn("--eval and --report belong to a run; gsq compare measures a model that is there");
    if (!a->json) {
        say(stdout, "%s is finished already: the same command made it. Nothing was done; --force makes it anew\n",
            o->out_dir);
        return;
    }
    cJSON *j = json_event("result");
    cJSON_AddStringToObject(j, "command", "quantize");
    cJSON_AddStringToObject(j, "model", o->model_dir);
    cJSON_AddStringToObject(j, "out", o->out_dir);
    cJSON_AddBoolToObject(j, "finished_before", true);
    cJSON_AddNumberToObject(j, "out_bytes", (double)r->out_bytes);
    json_emit(j);
}

/* --eval: the result against its source. */
static bool evaluate(struct app_gpu *g, const struct run *run, struct report_eval *out, struct err *e)
{
    const struct args *a = run->args;
    struct checkpoint *model = NULL, *reference = NULL;
    struct compare_result r = {0};
    struct progress_term term;
    struct eval_options o = {
        .text = a->eval,
        .ctx = run->plan.ctx,
        .windows = a->windows,
        .spill_dir = app_spill_dir(a),
        .progress = watch(&term, a),
    };
    bool ok = checkpoint_open(&model, run->o->out_dir, e) &&
              checkpoint_open(&reference, run->o->model_dir, e) &&
              eval_compare(g->cmd, model, reference, &o, &r, e);
    progress_term_end(&term);
    checkpoint_close(&reference);
    checkpoint_close(&model);
    if (ok)
        *out = (struct report_eval){.measured = true,
                                    .text = a->eval,
                                    .ppl_reference = r.reference.perplexity,
                                    .ppl_model = r.model.perplexity,
                                    .mean_kl = r.mean_kl,
                                    .top1 = r.top1,
                                    .windows = r.model.windows,
                                    .ctx = o.ctx,
                                    .ppl_reference_error = r.reference.perplexity_error,
                                    .ppl_model_error = r.model.perplexity_error,
                                    .kl_error = r.kl_error,
                                    .top1_error = r.top1_error};
    return ok;
}

/* After the export: evaluation, report, result. What fails here leaves the model complete; the first failure
 * is the command's, but the rest is still done. */
static bool finish(struct app_gpu *g, const struct run *run, const struct quantize_result *result,
                   struct err *e)
{
    const struct args *a = run->args;
    struct report_eval eval = {0};
    struct err late = {0};
    const char *device = gpu_info(g->gpu)->name;
    os_last_words("stopped during the evaluation; the model is complete", a->json);
    bool evaluated = !a->eval || evaluate(g, run, &eval, e);
    if (!evaluated && e->kind == ERR_STOPPED) {
        err_set(e, ERR_STOPPED, "stopped during the evaluation; %s is complete", run->o->out_dir);
        err_hint(e, "gsq compare %s %s --text %s --ctx %u", run->o->out_dir, run->o->model_dir, a->eval,
                 (unsigned)run->plan.ctx);
    } else if (!evaluated) {
        err_context(e, "%s is complete, but could not be evaluated", run->o->out_dir);
    }
    struct gsq_setting *settings = NULL;
    size_t n_settings = 0;
    bool reported = !a->report || report_settings(a, &settings, &n_settings, &late);
    struct report_input in = {.settings = settings,
                              .n_settings = n_settings,
                              .o = run->o,
                              .plan = run->planned ? &run->plan : NULL,
                              .result = result,
                              .device = device,
                              .eval = eval};
    struct strbuf line = {0};
    args_command_line(a, &line);
    if (!line.failed)
        in.command = line.data;
    reported = reported && (!a->report || report_html_write(a->report, &in, &late));
    strbuf_free(&line);
    report_settings_free(&settings, n_settings);
    tell_result(a, run->o, result, device, &eval);
    if (a->report && reported)
        log_info("report: %s", a->report);
    if (evaluated && !reported) {
        *e = late;
        err_context(e, "%s is complete, but its report is not", run->o->out_dir);
    }
    return evaluated && reported;
}

/* ---- types without codes: F32, F16, BF16, COPY ----------------------------------------------------------- */

static void tell_conversion(const struct args *a, const struct quantize_options *o, uint64_t bytes)
{
    char size[24];
    if (!a->json) {
        say(stdout, "%s: gguf %s, %s\n", o->out_dir, o->mixture, format_bytes(bytes, size, sizeof size));
        if (o->dry_run)
            say(stdout, "dry run: nothing was written\n");
        return;
    }
    cJSON *j = json_event("result");
    cJSON_AddStringToObject(j, "command", "quantize");
    cJSON_AddStringToObject(j, "model", o->model_dir);
    cJSON_AddStringToObject(j, "out", o->out_dir);
    cJSON_AddStringToObject(j, "format", "gguf");
    cJSON_AddStringToObject(j, "type", o->mixture);
    cJSON_AddNumberToObject(j, "out_bytes", (double)bytes);
    cJSON_AddBoolToObject(j, "dry_run", o->dry_run);
    json_emit(j);
}

/* llama-quantize makes such files, too; here it is the work of gsq convert, and needs no device. */
static bool convert(const struct args *a, const struct quantize_options *o, struct err *e)
{
    struct progress_term term;
    uint64_t bytes = 0;
    struct convert_options c = {.format = EXPORT_GGUF,
                                .type = strcmp(o->mixture, GGUF_COPY) == 0 ? NULL : o->mixture,
                                .overrides = o->overrides,
                                .n_overrides = o->n_overrides,
                                .size = o->dry_run ? &bytes : NULL};
    if (o->n_rules || o->pure || o->embedding_type || o->head_type || o->keep_head || o->group || o->refine) {
        err_set(e, ERR_USER, "--type %s stores every weight alike: no option gives single ones another type",
                o->mixture);
        return err_hint(e, "a type such as Q8_0 takes --tensor and --keep");
    }
    if (o->calib || o->imatrix)
        log_warn("--type %s rounds no weight to few bits: %s is not read", o->mixture,
                 o->calib ? "the calibration text" : "the importance matrix");
    struct progress progress = watch(&term, a);
    bool ok = convert_run(o->model_dir, o->out_dir, &c, &progress, e);
    progress_term_end(&term);
    if (ok && !o->dry_run)
        os_stat(o->out_dir, &bytes);
    if (ok)
        tell_conversion(a, o, bytes);
    return ok;
}

/* A plan can be made where there is no device at all; of one that was named by the user its absence is an error. */
static bool open_device(struct app_gpu *g, const struct args *a, const struct quantize_options *o, struct err *e)
{
    if (app_gpu_open(g, a, e))
        return true;
    if (!o->dry_run || a->device || e->kind != ERR_ENV)
        return false;
    log_warn("%s: the plan says nothing of device memory and time", e->msg);
    *e = (struct err){0};
    *g = (struct app_gpu){0};
    return true;
}

bool cmd_quantize(const struct args *a, struct err *e)
{
    struct quantize_options o = a->q;
    struct app_gpu g;
    struct progress_term term;
    o.model_dir = a->positional[0];
    o.out_dir = a->out;
    if (o.format == EXPORT_GGUF && quantize_copies(&o) && !a->report && !a->eval)
        return convert(a, &o, e);
    if (!check_options(a, &o, e) || !check_files(a, &o, e) || !open_device(&g, a, &o, e))
        return false;
    tell_rounding(a);
    struct run run = {.args = a, .o = &o};
    struct job_callbacks cb = {
        .progress = watch(&term, a),
        .planned = on_planned,
        .linear_done = on_linear,
        .stage_done = on_stage,
        .ctx = &run,
    };
    struct quantize_result result = {0};
    bool ok = quantize_run(g.cmd, &o, &cb, &result, e);
    progress_term_end(&term);
    if (ok && o.dry_run)
        tell_dry_run(a, &o);
    else if (ok && result.finished)
        tell_finished(a, &o, &result);
    else if (ok)
        ok = finish(&g, &run, &result, e);
    else if (e->kind == ERR_STOPPED)
        snprintf(e->msg, sizeof e->msg, "stopped at a safe point; rerun the same command to resume");
    quantize_result_free(&result);
    free(run.plan.items);
    free(run.plan.tensors);
    return app_gpu_close(&g, ok, e);
}
