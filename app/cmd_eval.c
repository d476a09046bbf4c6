/* gsq eval and gsq compare. */
#include <string.h>

#include "app/app.h"
#include "app/progress_term.h"
#include "host/base/clean.h"
#include "host/base/num.h"
#include "host/quant/eval.h"

static cJSON *result_json(const struct args *a, const struct gpu_info *device)
{
    cJSON *o = json_event("result");
    cJSON_AddStringToObject(o, "command", command_name(a->command));
    cJSON_AddStringToObject(o, "model", a->positional[0]);
    if (a->positional[1])
        cJSON_AddStringToObject(o, "reference", a->positional[1]);
    cJSON_AddStringToObject(o, "text", a->text);
    cJSON_AddStringToObject(o, "device", device->name);
    return o;
}

static void add_windows(cJSON *j, const struct eval_result *r, const struct eval_options *o)
{
    cJSON_AddNumberToObject(j, "tokens", (double)r->tokens);
    cJSON_AddNumberToObject(j, "windows", r->windows);
    cJSON_AddNumberToObject(j, "ctx", o->ctx);
    cJSON_AddNumberToObject(j, "scored", (double)r->scored);
    cJSON_AddStringToObject(j, "protocol", eval_protocol_name(o->protocol));
    cJSON_AddStringToObject(j, "token_hash", r->token_hash);
}

static const char *protocol_note(const struct eval_options *o)
{
    return o->protocol == EVAL_LLAMA ? " by llama.cpp's protocol" : "";
}

static void tell_eval(const struct args *a, const struct app_gpu *g, const struct eval_options *o,
                      const struct eval_result *r)
{
    char time[24];
    if (!a->json) {
        say(stdout, "perplexity  %.5f +/- %.5f\n", r->perplexity, r->perplexity_error);
        char all[48] = "";
        if (!o->windows)
            snprintf(all, sizeof all, ", %llu tokens in the text", (unsigned long long)r->tokens);
        say(stdout, "            %s%u windows of %u tokens%s%s, %s on %s\n", o->windows ? "the first " : "",
               (unsigned)r->windows, (unsigned)o->ctx, protocol_note(o), all,
               format_seconds(r->seconds, time, sizeof time), gpu_info(g->gpu)->name);
        return;
    }
    cJSON *j = result_json(a, gpu_info(g->gpu));
    cJSON_AddNumberToObject(j, "perplexity", r->perplexity);
    cJSON_AddNumberToObject(j, "perplexity_error", r->perplexity_error);
    cJSON_AddNumberToObject(j, "mean_nll", r->mean_nll);
    cJSON_AddNumberToObject(j, "mean_nll_error", r->nll_error);
    add_windows(j, r, o);
    cJSON_AddNumberToObject(j, "seconds", r->seconds);
    json_emit(j);
}

static void tell_compare(const struct args *a, const struct app_gpu *g, const struct eval_options *o,
                         const struct compare_result *r)
{
    double seconds = r->model.seconds + r->reference.seconds;
    if (!a->json) {
        char time[24];
        say(stdout, "mean KL divergence    %.6f +/- %.6f nats\n", r->mean_kl, r->kl_error);
        say(stdout, "top-1 agreement       %.2f +/- %.2f %%\n", 100 * r->top1, 100 * r->top1_error);
        say(stdout, "perplexity            %.5f +/- %.5f\n", r->model.perplexity, r->model.perplexity_error);
        say(stdout, "reference perplexity  %.5f +/- %.5f\n", r->reference.perplexity,
               r->reference.perplexity_error);
        say(stdout, "                      %u windows of %u tokens%s, %s on %s\n", (unsigned)r->model.windows,
               (unsigned)o->ctx, protocol_note(o), format_seconds(seconds, time, sizeof time),
               gpu_info(g->gpu)->name);
        return;
    }
    cJSON *j = result_json(a, gpu_info(g->gpu));
    cJSON_AddNumberToObject(j, "mean_kl", r->mean_kl);
    cJSON_AddNumberToObject(j, "mean_kl_error", r->kl_error);
    cJSON_AddNumberToObject(j, "top1_agreement", r->top1);
    cJSON_AddNumberToObject(j, "top1_agreement_error", r->top1_error);
    cJSON_AddNumberToObject(j, "perplexity", r->model.perplexity);
    cJSON_AddNumberToObject(j, "perplexity_error", r->model.perplexity_error);
    cJSON_AddNumberToObject(j, "reference_perplexity", r->reference.perplexity);
    cJSON_AddNumberToObject(j, "reference_perplexity_error", r->reference.perplexity_error);
    add_windows(j, &r->model, o);
    cJSON_AddNumberToObject(j, "seconds", seconds);
    json_emit(j);
}

/* Both commands: reference is NULL for eval. */
static bool evaluate(const struct args *a, const struct checkpoint *model, const struct checkpoint *reference,
                     struct err *e)
{
    struct app_gpu g;
    struct progress_term term;
    if (!app_gpu_open(&g, a, e))
        return false;
    struct eval_options o = {
        .text = a->text,
        .ctx = a->ctx ? a->ctx : app_default_ctx(checkpoint_config(model)),
        .windows = a->windows,
        .protocol = a->protocol,
        .spill_dir = app_spill_dir(a),
        .progress = progress_term_begin(&term, a),
    };
    bool ok;
    if (reference) {
        struct compare_result r = {0};
        ok = eval_compare(g.cmd, model, reference, &o, &r, e);
        progress_term_end(&term);
        if (ok)
            tell_compare(a, &g, &o, &r);
    } else {
        struct eval_result r = {0};
        ok = eval_perplexity(g.cmd, model, &o, &r, e);
        progress_term_end(&term);
        if (ok)
            tell_eval(a, &g, &o, &r);
    }
    return app_gpu_close(&g, ok, e);
}

bool cmd_eval(const struct args *a, struct err *e)
{
    struct checkpoint *model = NULL;
    bool ok = checkpoint_open(&model, a->positional[0], e) && evaluate(a, model, NULL, e);
    checkpoint_close(&model);
    return ok;
}

bool cmd_compare(const struct args *a, struct err *e)
{
    struct checkpoint *model = NULL, *reference = NULL;
    bool ok = checkpoint_open(&model, a->positional[0], e) &&
              checkpoint_open(&reference, a->positional[1], e) && evaluate(a, model, reference, e);
    checkpoint_close(&reference);
    checkpoint_close(&model);
    return ok;
}
