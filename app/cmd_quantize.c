/* gsq quantize. */
#include <math.h>
#include <string.h>

#include "app/app.h"
#include "app/helpers.h"
#include "app/progress_term.h"
#include "app/report_settings.h"
#include "host/base/clean.h"
#include "host/base/os.h"
#include "host/base/out_path.h"
#include "host/base/str.h"

struct run {
    const struct args *a;
    const struct gsq_quantize_options *o;
    struct progress_term term;
    struct helpers *helpers; /* of further devices, or NULL */
    struct err helpless;     /* why they could not be started */
};

/* ---- what the run tells ---- */

static bool on_progress(void *ctx, const struct gsq_progress *p)
{
    struct run *r = ctx;
    return progress_term_show(&r->term, p);
}

static void on_planned(void *ctx, const gsq_plan *plan)
{
    struct run *r = ctx;
    if (!r->a->dry_run && !helpers_start(&r->helpers, r->a, r->a->further, &r->helpless))
        os_request_stop();
    if (r->a->json) {
        char *json = gsq_plan_json(plan);
        cJSON *j = json_event("plan");
        json_take(j, json);
        json_emit(j);
        gsq_free(json);
    }
    if (r->a->dry_run || log_get_level() >= LOG_INFO) {
        FILE *f = r->a->dry_run ? app_out(r->a) : stderr;
        char *text = gsq_plan_text(plan);
        if (text)
            say_text(f, text);
        fflush(f);
        gsq_free(text);
    }
}

static void add_loss(cJSON *j, const char *name, double v)
{
    if (!isnan(v))
        cJSON_AddNumberToObject(j, name, v);
}

static void on_linear(void *ctx, const struct gsq_linear *l)
{
    const struct run *r = ctx;
    if (r->a->json) {
        cJSON *j = json_event("linear");
        cJSON_AddStringToObject(j, "module", l->module);
        add_loss(j, r->o->refine ? "loss_file" : "loss_rtn", l->loss_rtn);
        add_loss(j, "loss_gptq", l->loss_gptq);
        add_loss(j, "loss", l->loss);
        cJSON_AddNumberToObject(j, "rows_rolled_back", l->rows_rolled_back);
        cJSON_AddBoolToObject(j, "damp_raised", l->damp_raised);
        cJSON_AddBoolToObject(j, "diagonal_only", l->diagonal_only);
        cJSON_AddNumberToObject(j, "seconds", l->seconds);
        if (l->tokens >= 0) {
            cJSON_AddNumberToObject(j, "tokens", (double)l->tokens);
            cJSON_AddBoolToObject(j, "starved", l->starved);
        }
        json_emit(j);
        return;
    }
    char rtn[32] = "", gptq[32] = "";
    if (!isnan(l->loss_rtn))
        snprintf(rtn, sizeof rtn, "%s %.4g, ", r->o->refine ? "file" : "rtn", l->loss_rtn);
    if (!isnan(l->loss_gptq) && strcmp(r->o->method, "gsq") == 0)
        snprintf(gptq, sizeof gptq, "gptq %.4g, ", l->loss_gptq);
    if (isnan(l->loss))
        log_debug("%s: done, %.1f s", l->module, l->seconds);
    else
        log_debug("%s: loss %s%s%s %.4g, %.1f s", l->module, rtn, gptq, r->o->method, l->loss, l->seconds);
}

static void on_stage(void *ctx, const struct gsq_stage *s)
{
    const struct run *r = ctx;
    if (r->a->json) {
        cJSON *j = json_event("stage");
        cJSON_AddStringToObject(j, "stage", s->name);
        if (s->block)
            cJSON_AddNumberToObject(j, "block", s->block);
        add_loss(j, "loss_start", s->loss_start);
        add_loss(j, "loss", s->loss);
        cJSON *losses = cJSON_AddArrayToObject(j, "losses");
        for (uint32_t i = 0; i < s->n_losses; i++)
            cJSON_AddItemToArray(losses, cJSON_CreateNumber((double)s->losses[i]));
        cJSON_AddNumberToObject(j, "steps", s->steps);
        cJSON_AddNumberToObject(j, "epochs", s->epochs);
        cJSON_AddNumberToObject(j, "best_epoch", s->best_epoch);
        cJSON_AddNumberToObject(j, "retries", s->retries);
        cJSON_AddNumberToObject(j, "seconds", s->seconds);
        json_emit(j);
        return;
    }
    char block[32] = "";
    if (s->block)
        snprintf(block, sizeof block, "block %u, ", (unsigned)s->block);
    log_debug("%s%s: held-out error %.4g -> %.4g (epoch %u of %u), %.1f s", block, s->name, s->loss_start, s->loss,
              (unsigned)s->best_epoch, (unsigned)s->epochs, s->seconds);
}

static void add_work(cJSON *j, const char *name, const struct gsq_work *w)
{
    cJSON *o = cJSON_AddObjectToObject(j, name);
    cJSON_AddNumberToObject(o, "dispatches", w->dispatches);
    cJSON_AddNumberToObject(o, "flop", w->flop);
    cJSON_AddNumberToObject(o, "bytes_read", w->bytes_read);
    cJSON_AddNumberToObject(o, "bytes_written", w->bytes_written);
}

static void add_bytes(cJSON *j, const char *name, const struct gsq_rank *k, const uint64_t *bytes)
{
    cJSON *o = cJSON_AddObjectToObject(j, name);
    for (uint32_t i = 0; i < k->n_kinds; i++)
        if (bytes[i])
            cJSON_AddNumberToObject(o, k->kinds[i], (double)bytes[i]);
}

static uint64_t sum_bytes(const struct gsq_rank *k, const uint64_t *bytes)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < k->n_kinds; i++)
        sum += bytes[i];
    return sum;
}

static void on_rank(void *ctx, const struct gsq_rank *k)
{
    const struct run *r = ctx;
    char sent[24], received[24];
    if (r->a->json) {
        cJSON *j = json_event("rank");
        cJSON_AddNumberToObject(j, "rank", k->rank);
        cJSON_AddNumberToObject(j, "ranks", k->ranks);
        add_work(j, "own", &k->own);
        add_work(j, "units", &k->units);
        add_work(j, "rows", &k->rows);
        add_work(j, "each", &k->each);
        add_work(j, "exchange", &k->exchange);
        add_bytes(j, "sent", k, k->sent);
        add_bytes(j, "received", k, k->received);
        if (k->planned_sent) {
            add_bytes(j, "planned_sent", k, k->planned_sent);
            add_bytes(j, "planned_received", k, k->planned_received);
        }
        json_emit(j);
        return;
    }
    const double dispatches =
        k->own.dispatches + k->units.dispatches + k->rows.dispatches + k->each.dispatches + k->exchange.dispatches;
    (k->ranks > 1 ? log_info : log_debug)(
        "rank %u: %.0f dispatches; %.4g TFLOP by itself, %.4g of what is shared out, %.4g for the exchange; %s sent, "
        "%s received",
        (unsigned)k->rank, dispatches, 1e-12 * (k->own.flop + k->each.flop), 1e-12 * (k->units.flop + k->rows.flop),
        1e-12 * k->exchange.flop, format_bytes(sum_bytes(k, k->sent), sent, sizeof sent),
        format_bytes(sum_bytes(k, k->received), received, sizeof received));
}

/* The evaluation is an operation of its own, with its own bar. */
static void on_written(void *ctx)
{
    struct run *r = ctx;
    progress_term_end(&r->term);
    os_last_words("stopped during the evaluation; the model is complete", r->a->json);
    progress_term_begin(&r->term, r->a);
}

/* ---- what came of it ---- */

static cJSON *result_json(const struct run *r)
{
    cJSON *j = json_event("result");
    cJSON_AddStringToObject(j, "command", "quantize");
    cJSON_AddStringToObject(j, "model", r->a->positional[0]);
    cJSON_AddStringToObject(j, "out", r->o->out);
    return j;
}

static void print_result(const struct run *run, const struct gsq_quantize_result *r, const char *device)
{
    char size[24], time[24], dev[24], host[24];
    say(stdout, "%s: %s%s%s, %s, %.3f bits per weight, %s\n", run->o->out, r->format, r->type ? " " : "",
        r->type ? r->type : "", r->method, r->bits_per_weight, format_bytes(r->out_bytes, size, sizeof size));
    if (r->file_bits_per_weight > 0)
        say(stdout, "  all tensors %.3f bits per weight, embeddings and head included\n", r->file_bits_per_weight);
    if (!isnan(r->mean_loss))
        say(stdout, "  mean loss   %.5g (squared relative error of the linears' outputs)\n", r->mean_loss);
    if (!isnan(r->stage_loss))
        say(stdout,
            "  held-out    %.5g -> %.5g by training halves of blocks together (squared relative error of their "
            "outputs)\n",
            r->stage_loss_start, r->stage_loss);
    say(stdout, "  blocks      %u", (unsigned)r->blocks);
    if (r->blocks_resumed)
        say(stdout, ", %u of them from an earlier run", (unsigned)r->blocks_resumed);
    say(stdout, "\n  time        %s on %s\n", format_seconds(r->seconds, time, sizeof time), device);
    say(stdout, "  peak memory %s on the device, %s on the host beyond mapped files\n",
        format_bytes(r->device_peak, dev, sizeof dev), format_bytes(r->host_peak, host, sizeof host));
    if (isnan(r->perplexity))
        return;
    say(stdout, "  perplexity  %.5f +/- %.5f, of the 16-bit model %.5f +/- %.5f (%u windows of %u tokens)\n",
        r->perplexity, r->perplexity_error, r->reference_perplexity, r->reference_perplexity_error,
        (unsigned)r->eval_windows, (unsigned)r->eval_context);
    say(stdout,
        "  divergence  %.6f +/- %.6f nats per token (KL), the same most likely token %.2f +/- %.2f %% of the "
        "time\n",
        r->mean_kl, r->mean_kl_error, 100 * r->top1, 100 * r->top1_error);
}

static void tell_result(const struct run *run, const struct gsq_quantize_result *r, const char *device)
{
    if (!run->a->json) {
        print_result(run, r, device);
        return;
    }
    cJSON *j = result_json(run);
    cJSON_AddStringToObject(j, "format", r->format);
    if (r->type)
        cJSON_AddStringToObject(j, "type", r->type);
    cJSON_AddStringToObject(j, "method", r->method);
    cJSON_AddStringToObject(j, "device", device);
    cJSON_AddNumberToObject(j, "bits_per_weight", r->bits_per_weight);
    if (r->file_bits_per_weight > 0)
        cJSON_AddNumberToObject(j, "file_bits_per_weight", r->file_bits_per_weight);
    cJSON_AddNumberToObject(j, "out_bytes", (double)r->out_bytes);
    cJSON_AddNumberToObject(j, "seconds", r->seconds);
    add_loss(j, "mean_loss", r->mean_loss);
    add_loss(j, "stage_loss_start", r->stage_loss_start);
    add_loss(j, "stage_loss", r->stage_loss);
    cJSON_AddNumberToObject(j, "predicted_seconds", r->predicted_seconds);
    cJSON_AddNumberToObject(j, "blocks", r->blocks);
    cJSON_AddNumberToObject(j, "blocks_resumed", r->blocks_resumed);
    cJSON_AddNumberToObject(j, "linears_made", r->made);
    if (r->device_losses)
        cJSON_AddNumberToObject(j, "device_losses", r->device_losses);
    cJSON_AddNumberToObject(j, "device_peak_bytes", (double)r->device_peak);
    cJSON_AddNumberToObject(j, "host_peak_bytes", (double)r->host_peak);
    cJSON_AddNumberToObject(j, "device_busy_seconds", r->device_busy);
    cJSON_AddNumberToObject(j, "reach", r->reach);
    if (!isnan(r->perplexity)) {
        cJSON_AddNumberToObject(j, "perplexity", r->perplexity);
        cJSON_AddNumberToObject(j, "perplexity_error", r->perplexity_error);
        cJSON_AddNumberToObject(j, "reference_perplexity", r->reference_perplexity);
        cJSON_AddNumberToObject(j, "reference_perplexity_error", r->reference_perplexity_error);
        cJSON_AddNumberToObject(j, "mean_kl", r->mean_kl);
        cJSON_AddNumberToObject(j, "mean_kl_error", r->mean_kl_error);
        cJSON_AddNumberToObject(j, "top1_agreement", r->top1);
        cJSON_AddNumberToObject(j, "top1_agreement_error", r->top1_error);
        cJSON_AddNumberToObject(j, "eval_windows", r->eval_windows);
        cJSON_AddNumberToObject(j, "eval_ctx", r->eval_context);
    }
    json_emit(j);
}

static void tell_dry_run(const struct run *r)
{
    if (!r->a->json) {
        say(stdout, "dry run: nothing was written\n");
        return;
    }
    cJSON *j = result_json(r);
    cJSON_AddBoolToObject(j, "dry_run", true);
    json_emit(j);
}

/* The same command was there before. */
static void tell_finished(const struct run *run, const struct gsq_quantize_result *r)
{
    if (!run->a->json) {
        say(stdout, "%s is already finished: the same command wrote it. Nothing was done; --force writes it again\n",
            run->o->out);
        return;
    }
    cJSON *j = result_json(run);
    cJSON_AddBoolToObject(j, "finished_before", true);
    cJSON_AddNumberToObject(j, "out_bytes", (double)r->out_bytes);
    json_emit(j);
}

/* Another process of the same run has written it. */
static void tell_helped(const struct run *run, const struct gsq_quantize_result *r)
{
    if (!run->a->json) {
        say(stdout, "%s is finished: another process of this run wrote it; this one quantized %u linears\n",
            run->o->out, (unsigned)r->made);
        return;
    }
    cJSON *j = result_json(run);
    cJSON_AddBoolToObject(j, "helped", true);
    cJSON_AddNumberToObject(j, "linears_made", r->made);
    json_emit(j);
}

static void tell_copy(const struct run *run, uint64_t bytes)
{
    char size[24];
    if (!run->a->json) {
        say(stdout, "%s: gguf %s, %s\n", run->o->out, run->o->type, format_bytes(bytes, size, sizeof size));
        if (run->a->dry_run)
            say(stdout, "dry run: nothing was written\n");
        return;
    }
    cJSON *j = result_json(run);
    cJSON_AddStringToObject(j, "format", "gguf");
    cJSON_AddStringToObject(j, "type", run->o->type);
    cJSON_AddNumberToObject(j, "out_bytes", (double)bytes);
    cJSON_AddBoolToObject(j, "dry_run", run->a->dry_run);
    json_emit(j);
}

/* ---- the command ---- */

/* Never silently: what rounds at once is not what gsq is for. */
static void tell_rounding(const struct args *a)
{
    if (a->rounds_like_llama)
        log_warn(
            "no --calib and no --imatrix: weights are rounded to the nearest level, as llama-quantize does; --calib "
            "default, or a text of your own, learns them, which takes longer and keeps much more of the model");
}

/* A type without codes: nothing to compute on a device, and little to say. */
static bool is_copy(const struct gsq_quantize_options *o)
{
    return o->type && !o->eval && !o->report && gsq_name_find(GSQ_NAME_COPY_TYPE, o->type, "", NULL);
}

/* A plan can be made where there is no device at all; of one that was named by the user its absence is an
 * error. */
static bool open_device(gsq_device **device, const struct args *a, struct err *e)
{
    if (app_device_open(device, a, e))
        return true;
    if (!a->dry_run || a->device || e->kind != ERR_ENV)
        return false;
    log_warn("%s: device memory and time are not planned", e->msg);
    *e = (struct err){0};
    return true;
}

static bool run_plan(struct run *r, gsq_device *device, const gsq_model *model, const struct gsq_quantize_callbacks *cb,
                     struct err *e)
{
    struct gsq_error why;
    struct gsq_plan_info info = {.size = sizeof info};
    gsq_plan *plan = NULL;
    progress_term_begin(&r->term, r->a);
    bool ok = gsq_plan_make(&plan, device, model, r->o, cb, &why);
    progress_term_end(&r->term);
    if (!app_result(ok, &why, e))
        return false;
    gsq_plan_get_info(plan, &info);
    if (is_copy(r->o))
        tell_copy(r, info.out_bytes);
    else
        tell_dry_run(r);
    gsq_plan_free(&plan);
    return true;
}

static bool run_all(struct run *r, gsq_device *device, const gsq_model *model, const struct gsq_quantize_callbacks *cb,
                    struct err *e)
{
    struct gsq_error why;
    struct gsq_quantize_result result = {.size = sizeof result};
    struct gsq_device_info d = {.size = sizeof d};
    if (device)
        gsq_device_get_info(device, &d);
    progress_term_begin(&r->term, r->a);
    bool ok = gsq_quantize(device, model, r->o, cb, &result, &why);
    progress_term_end(&r->term);
    if (result.written && is_copy(r->o))
        tell_copy(r, result.out_bytes);
    else if (result.helped)
        tell_helped(r, &result);
    else if (result.finished_before)
        tell_finished(r, &result);
    else if (result.written) /* what came after it may have failed */
        tell_result(r, &result, d.name);
    if (result.reported)
        log_info("report: %s", r->o->report);
    ok = helpers_end(&r->helpers, app_result(ok, &why, e), e);
    if (!ok && r->helpless.kind != ERR_NONE)
        *e = r->helpless;
    return ok;
}

/* The library knows the files that it reads itself; these were read with the command line. */
static bool spare_inputs(const struct args *a, const char *report, struct err *e)
{
    return out_not_input("the output", a->out, a->inputs, a->n_inputs, e) &&
           (!report || out_not_input("--report", report, a->inputs, a->n_inputs, e));
}

static bool run(struct run *r, struct err *e)
{
    struct gsq_error why;
    const struct args *a = r->a;
    const struct gsq_quantize_callbacks cb = {
        .size = sizeof cb,
        .ctx = r,
        .planned = on_planned,
        .progress = on_progress,
        .linear_done = on_linear,
        .stage_done = on_stage,
        .written = on_written,
        .rank_done = on_rank,
    };
    gsq_device *device = NULL;
    gsq_model *model = NULL;
    bool ok =
        app_result(gsq_quantize_check(NULL, r->o, a->dry_run, &why) && gsq_model_open(&model, a->positional[0], &why) &&
                       gsq_quantize_check(model, r->o, a->dry_run, &why),
                   &why, e) &&
        (is_copy(r->o) || open_device(&device, a, e));
    if (ok) {
        tell_rounding(a);
        ok = (a->dry_run ? run_plan : run_all)(r, device, model, &cb, e);
    }
    gsq_model_close(&model);
    return app_device_close(&device, ok, e);
}

bool cmd_quantize(const struct args *a, struct err *e)
{
    struct gsq_quantize_options o = a->q;
    struct run r = {.a = a, .o = &o};
    struct gsq_setting *settings = NULL;
    struct strbuf line = {0};
    o.out = a->out;
    if (!spare_inputs(a, o.report, e))
        return false;
    if (o.report && !report_settings(a, &settings, &o.n_settings, e))
        return false;
    o.settings = settings;
    args_command_line(a, &line);
    o.command = line.failed ? NULL : line.data;
    bool ok = run(&r, e);
    strbuf_free(&line);
    report_settings_free(&settings, o.n_settings);
    return ok;
}
