/* gsq quantize. */
#include <math.h>
#include <string.h>

#include "app/app.h"
#include "app/plan_print.h"
#include "app/progress_term.h"
#include "host/base/num.h"
#include "host/quant/job.h"

struct run {
    const struct args *args;
    const struct quantize_options *o;
};

/* What can be said without opening anything. */
static bool check_options(const struct quantize_options *o, struct err *e)
{
    if (o->method != METHOD_RTN && !o->calib && !o->dry_run) {
        err_set(e, ERR_USER, "--method %s needs a calibration text", method_name(o->method));
        return err_hint(e, "add --calib FILE (text like what the model will read), or use --method rtn");
    }
    if (o->container && o->format != EXPORT_COMPRESSED_TENSORS) {
        err_set(e, ERR_USER, "--container belongs to --format compressed-tensors");
        return err_hint(e, "leave it out for --format %s", export_format_name(o->format));
    }
    return true;
}

static void on_planned(void *ctx, const struct plan *p)
{
    const struct run *r = ctx;
    if (r->args->json) {
        cJSON *j = json_event("plan");
        plan_json(j, p);
        json_emit(j);
    }
    if (r->o->dry_run || log_get_level() >= LOG_INFO)
        plan_print(r->o->dry_run ? app_out(r->args) : stderr, p, r->o);
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
        add_loss(j, "loss_rtn", l->loss_rtn);
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
        snprintf(rtn, sizeof rtn, "rtn %.4g, ", l->loss_rtn);
    if (!isnan(l->loss_gptq) && r->o->method == METHOD_GSQ)
        snprintf(gptq, sizeof gptq, "gptq %.4g, ", l->loss_gptq);
    if (isnan(l->loss_final))
        log_debug("%s: done, %.1f s", l->module, l->seconds);
    else
        log_debug("%s: loss %s%s%s %.4g, %.1f s", l->module, rtn, gptq, method_name(r->o->method),
                  l->loss_final, l->seconds);
}

static void tell_result(const struct args *a, const struct quantize_options *o,
                        const struct quantize_result *r, const char *device)
{
    char size[24], time[24], dev[24], host[24];
    if (!a->json) {
        printf("%s: %s, %s, %.3f bits per weight, %s\n", o->out_dir, export_format_name(o->format),
               method_name(o->method), r->bpw, format_bytes(r->out_bytes, size, sizeof size));
        if (!isnan(r->mean_loss))
            printf("  mean loss   %.5g (relative error of the linears' outputs, squared)\n", r->mean_loss);
        printf("  blocks      %u", (unsigned)r->blocks_done);
        if (r->blocks_resumed)
            printf(", %u of them from an earlier run", (unsigned)r->blocks_resumed);
        printf("\n  time        %s on %s\n", format_seconds(r->seconds, time, sizeof time), device);
        printf("  peak memory %s on the device, %s on the host beyond mapped files\n",
               format_bytes(r->device_peak, dev, sizeof dev), format_bytes(r->host_peak, host, sizeof host));
        return;
    }
    cJSON *j = json_event("result");
    cJSON_AddStringToObject(j, "command", "quantize");
    cJSON_AddStringToObject(j, "model", o->model_dir);
    cJSON_AddStringToObject(j, "out", o->out_dir);
    cJSON_AddStringToObject(j, "format", export_format_name(o->format));
    cJSON_AddStringToObject(j, "method", method_name(o->method));
    cJSON_AddStringToObject(j, "device", device);
    cJSON_AddNumberToObject(j, "bits_per_weight", r->bpw);
    cJSON_AddNumberToObject(j, "out_bytes", (double)r->out_bytes);
    cJSON_AddNumberToObject(j, "seconds", r->seconds);
    add_loss(j, "mean_loss", r->mean_loss);
    cJSON_AddNumberToObject(j, "blocks", r->blocks_done);
    cJSON_AddNumberToObject(j, "blocks_resumed", r->blocks_resumed);
    cJSON_AddNumberToObject(j, "device_peak_bytes", (double)r->device_peak);
    cJSON_AddNumberToObject(j, "host_peak_bytes", (double)r->host_peak);
    cJSON_AddNumberToObject(j, "reach", r->reach);
    json_emit(j);
}

static void tell_dry_run(const struct args *a, const struct quantize_options *o)
{
    if (!a->json) {
        printf("dry run: nothing was written\n");
        return;
    }
    cJSON *j = json_event("result");
    cJSON_AddStringToObject(j, "command", "quantize");
    cJSON_AddStringToObject(j, "model", o->model_dir);
    cJSON_AddStringToObject(j, "out", o->out_dir);
    cJSON_AddBoolToObject(j, "dry_run", true);
    json_emit(j);
}

bool cmd_quantize(const struct args *a, struct err *e)
{
    struct quantize_options o = a->q;
    struct app_gpu g;
    struct progress_term term;
    o.model_dir = a->positional[0];
    o.out_dir = a->out;
    if (!check_options(&o, e) || !app_gpu_open(&g, a, e))
        return false;
    struct run run = {.args = a, .o = &o};
    struct job_callbacks cb = {
        .progress = progress_term_begin(&term, a),
        .planned = on_planned,
        .linear_done = on_linear,
        .ctx = &run,
    };
    struct quantize_result result = {0};
    bool ok = quantize_run(g.cmd, &o, &cb, &result, e);
    progress_term_end(&term);
    if (ok && o.dry_run)
        tell_dry_run(a, &o);
    else if (ok)
        tell_result(a, &o, &result, gpu_info(g.gpu)->name);
    else if (e->kind == ERR_STOPPED)
        snprintf(e->msg, sizeof e->msg, "stopped at a safe point; rerun the same command to resume");
    quantize_result_free(&result);
    return app_gpu_close(&g, ok, e);
}
