/* gsq eval and gsq compare. */
#include <string.h>

#include "app/app.h"
#include "app/command_line.h"
#include "app/progress_term.h"
#include "host/base/clean.h"

static cJSON *result_json(const struct args *a, const char *device)
{
    cJSON *o = json_event("result");
    cJSON_AddStringToObject(o, "command", command_name(a->command));
    cJSON_AddStringToObject(o, "model", a->positional[0]);
    if (a->positional[1])
        cJSON_AddStringToObject(o, "reference", a->positional[1]);
    cJSON_AddStringToObject(o, "text", a->text);
    cJSON_AddStringToObject(o, "device", device);
    return o;
}

static void add_windows(cJSON *j, const struct gsq_eval_result *r, const struct gsq_eval_options *o)
{
    cJSON_AddNumberToObject(j, "tokens", (double)r->tokens);
    cJSON_AddNumberToObject(j, "windows", r->windows);
    cJSON_AddNumberToObject(j, "ctx", r->context);
    cJSON_AddNumberToObject(j, "scored", (double)r->scored);
    cJSON_AddStringToObject(j, "protocol", o->protocol ? o->protocol : "gsq");
    cJSON_AddStringToObject(j, "token_hash", r->token_hash);
}

static const char *protocol_note(const struct gsq_eval_options *o)
{
    return o->protocol && strcmp(o->protocol, "llama.cpp") == 0 ? " by llama.cpp's protocol" : "";
}

static void tell_eval(const struct args *a, const char *device, const struct gsq_eval_options *o,
                      const struct gsq_eval_result *r)
{
    char time[24];
    if (!a->json) {
        say(stdout, "perplexity  %.5f +/- %.5f\n", r->perplexity, r->perplexity_error);
        char all[48] = "";
        if (!o->windows)
            snprintf(all, sizeof all, ", %llu tokens in the text", (unsigned long long)r->tokens);
        say(stdout, "            %s%u windows of %u tokens%s%s, %s on %s\n", o->windows ? "the first " : "",
            (unsigned)r->windows, (unsigned)r->context, protocol_note(o), all,
            format_seconds(r->seconds, time, sizeof time), device);
        return;
    }
    cJSON *j = result_json(a, device);
    cJSON_AddNumberToObject(j, "perplexity", r->perplexity);
    cJSON_AddNumberToObject(j, "perplexity_error", r->perplexity_error);
    cJSON_AddNumberToObject(j, "mean_nll", r->mean_nll);
    cJSON_AddNumberToObject(j, "mean_nll_error", r->mean_nll_error);
    add_windows(j, r, o);
    cJSON_AddNumberToObject(j, "seconds", r->seconds);
    json_emit(j);
}

static void tell_compare(const struct args *a, const char *device, const struct gsq_eval_options *o,
                         const struct gsq_eval_result *r)
{
    if (!a->json) {
        char time[24];
        say(stdout, "%s against the reference %s\n", a->positional[0], a->positional[1]);
        say(stdout, "mean KL divergence    %.6f +/- %.6f nats\n", r->mean_kl, r->mean_kl_error);
        say(stdout, "top-1 agreement       %.2f +/- %.2f %%\n", 100 * r->top1, 100 * r->top1_error);
        say(stdout, "perplexity            %.5f +/- %.5f\n", r->perplexity, r->perplexity_error);
        say(stdout, "reference perplexity  %.5f +/- %.5f\n", r->reference_perplexity, r->reference_perplexity_error);
        say(stdout, "                      %u windows of %u tokens%s, %s on %s\n", (unsigned)r->windows,
            (unsigned)r->context, protocol_note(o), format_seconds(r->seconds, time, sizeof time), device);
        return;
    }
    cJSON *j = result_json(a, device);
    cJSON_AddNumberToObject(j, "mean_kl", r->mean_kl);
    cJSON_AddNumberToObject(j, "mean_kl_error", r->mean_kl_error);
    cJSON_AddNumberToObject(j, "top1_agreement", r->top1);
    cJSON_AddNumberToObject(j, "top1_agreement_error", r->top1_error);
    cJSON_AddNumberToObject(j, "perplexity", r->perplexity);
    cJSON_AddNumberToObject(j, "perplexity_error", r->perplexity_error);
    cJSON_AddNumberToObject(j, "reference_perplexity", r->reference_perplexity);
    cJSON_AddNumberToObject(j, "reference_perplexity_error", r->reference_perplexity_error);
    add_windows(j, r, o);
    cJSON_AddNumberToObject(j, "seconds", r->seconds);
    json_emit(j);
}

/* Both commands: eval has no reference. */
static bool evaluate(const struct args *a, struct err *e)
{
    struct gsq_error why;
    struct gsq_device_info d = {.size = sizeof d};
    struct gsq_eval_options o;
    struct gsq_eval_result r = {.size = sizeof r};
    struct progress_term term;
    gsq_device *device = NULL;
    gsq_model *model = NULL, *reference = NULL;
    const char *against = a->positional[1];
    gsq_eval_options_init(&o);
    o.text = a->text;
    o.context = a->ctx;
    o.windows = a->windows;
    o.protocol = a->protocol;
    o.spill = a->spill;
    o.progress = progress_term_show;
    o.ctx = &term;
    bool ok = app_result(gsq_model_open(&model, a->positional[0], &why) &&
                             (!against || gsq_model_open(&reference, against, &why)),
                         &why, e) &&
              app_device_open(&device, a, e);
    if (ok) {
        gsq_device_get_info(device, &d);
        progress_term_begin(&term, a);
        ok = against ? gsq_compare(device, model, reference, &o, &r, &why) : gsq_eval(device, model, &o, &r, &why);
        progress_term_end(&term);
        if (app_result(ok, &why, e))
            (against ? tell_compare : tell_eval)(a, d.name, &o, &r);
        ok = app_device_close(&device, ok, e);
    }
    gsq_model_close(&reference);
    gsq_model_close(&model);
    return ok;
}

bool cmd_eval(const struct args *a, struct err *e)
{
    return evaluate(a, e);
}

bool cmd_compare(const struct args *a, struct err *e)
{
    return evaluate(a, e);
}
