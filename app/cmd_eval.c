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
    cJSON_AddStringToObject(o, a->tasks ? "tasks" : "text", a->tasks ? a->tasks : a->text);
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

static void say_quantile(const struct gsq_quantile *q)
{
    char name[24];
    snprintf(name, sizeof name, q->share == .5 ? "median" : "%g %% are below", 100 * q->share);
    say(stdout, "  %-19s %.6f (%.6f to %.6f)\n", name, q->value, q->low, q->high);
}

static void add_quantiles(cJSON *j, const struct gsq_eval_result *r)
{
    cJSON *list = cJSON_AddArrayToObject(j, "kl_quantiles");
    for (int i = 0; i < GSQ_QUANTILES; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddNumberToObject(o, "share", r->kl_quantiles[i].share);
        cJSON_AddNumberToObject(o, "kl", r->kl_quantiles[i].value);
        cJSON_AddNumberToObject(o, "low", r->kl_quantiles[i].low);
        cJSON_AddNumberToObject(o, "high", r->kl_quantiles[i].high);
        cJSON_AddItemToArray(list, o);
    }
}

static void tell_compare(const struct args *a, const char *device, const struct gsq_eval_options *o,
                         const struct gsq_eval_result *r)
{
    if (!a->json) {
        char time[24];
        say(stdout, "%s against the reference %s\n", a->positional[0], a->positional[1]);
        say(stdout, "mean KL divergence    %.6f +/- %.6f nats\n", r->mean_kl, r->mean_kl_error);
        for (int i = 0; i < GSQ_QUANTILES; i++)
            if (r->kl_quantiles[i].share >= .5)
                say_quantile(&r->kl_quantiles[i]);
        say(stdout, "  maximum             %.6f\n", r->kl_most);
        say(stdout, "top-1 agreement       %.2f +/- %.2f %%\n", 100 * r->top1, 100 * r->top1_error);
        say(stdout, "change of p           %.3f +/- %.3f %% in the mean, %.3f +/- %.3f %% root mean square\n",
            100 * r->p_change, 100 * r->p_change_error, 100 * r->p_change_rms, 100 * r->p_change_rms_error);
        say(stdout, "perplexity            %.5f +/- %.5f\n", r->perplexity, r->perplexity_error);
        say(stdout, "reference perplexity  %.5f +/- %.5f\n", r->reference_perplexity, r->reference_perplexity_error);
        say(stdout, "  ratio               %.5f +/- %.5f, correlation %.2f %%\n", r->perplexity_ratio,
            r->perplexity_ratio_error, 100 * r->correlation);
        say(stdout, "                      %u windows of %u tokens%s, %s on %s\n", (unsigned)r->windows,
            (unsigned)r->context, protocol_note(o), format_seconds(r->seconds, time, sizeof time), device);
        return;
    }
    cJSON *j = result_json(a, device);
    cJSON_AddNumberToObject(j, "mean_kl", r->mean_kl);
    cJSON_AddNumberToObject(j, "mean_kl_error", r->mean_kl_error);
    add_quantiles(j, r);
    cJSON_AddNumberToObject(j, "kl_max", r->kl_most);
    cJSON_AddNumberToObject(j, "top1_agreement", r->top1);
    cJSON_AddNumberToObject(j, "top1_agreement_error", r->top1_error);
    cJSON_AddNumberToObject(j, "perplexity", r->perplexity);
    cJSON_AddNumberToObject(j, "perplexity_error", r->perplexity_error);
    cJSON_AddNumberToObject(j, "reference_perplexity", r->reference_perplexity);
    cJSON_AddNumberToObject(j, "reference_perplexity_error", r->reference_perplexity_error);
    cJSON_AddNumberToObject(j, "perplexity_ratio", r->perplexity_ratio);
    cJSON_AddNumberToObject(j, "perplexity_ratio_error", r->perplexity_ratio_error);
    cJSON_AddNumberToObject(j, "correlation", r->correlation);
    cJSON_AddNumberToObject(j, "p_change", r->p_change);
    cJSON_AddNumberToObject(j, "p_change_error", r->p_change_error);
    cJSON_AddNumberToObject(j, "p_change_rms", r->p_change_rms);
    cJSON_AddNumberToObject(j, "p_change_rms_error", r->p_change_rms_error);
    add_windows(j, r, o);
    cJSON_AddNumberToObject(j, "seconds", r->seconds);
    json_emit(j);
}

static void tell_tasks(const struct args *a, const char *device, const struct gsq_tasks_result *r)
{
    if (!a->json) {
        char time[24];
        say(stdout, "accuracy              %.2f +/- %.2f %%\n", 100 * r->accuracy, 100 * r->accuracy_error);
        say(stdout, "  by length           %.2f +/- %.2f %%\n", 100 * r->accuracy_by_length,
            100 * r->accuracy_by_length_error);
        say(stdout, "  guessing            %.2f %%\n", 100 * r->chance);
        say(stdout, "-ln p                 %.5f a token of the right choices\n", r->mean_nll);
        say(stdout, "                      %u questions, %llu tokens, %s on %s\n", (unsigned)r->questions,
            (unsigned long long)r->tokens, format_seconds(r->seconds, time, sizeof time), device);
        if (r->cut)
            say(stderr,
                "warning: %u questions are longer than the context and lost their beginning: a larger --ctx has them "
                "whole\n",
                (unsigned)r->cut);
        return;
    }
    cJSON *j = result_json(a, device);
    cJSON_AddNumberToObject(j, "accuracy", r->accuracy);
    cJSON_AddNumberToObject(j, "accuracy_error", r->accuracy_error);
    cJSON_AddNumberToObject(j, "accuracy_by_length", r->accuracy_by_length);
    cJSON_AddNumberToObject(j, "accuracy_by_length_error", r->accuracy_by_length_error);
    cJSON_AddNumberToObject(j, "chance", r->chance);
    cJSON_AddNumberToObject(j, "mean_nll", r->mean_nll);
    cJSON_AddNumberToObject(j, "questions", r->questions);
    cJSON_AddNumberToObject(j, "cut", r->cut);
    cJSON_AddNumberToObject(j, "ctx", r->context);
    cJSON_AddNumberToObject(j, "tokens", (double)r->tokens);
    cJSON_AddNumberToObject(j, "seconds", r->seconds);
    json_emit(j);
}

static bool ask(const struct args *a, gsq_device *device, const char *name, const gsq_model *model, struct err *e)
{
    struct gsq_error why;
    struct gsq_tasks_options o;
    struct gsq_tasks_result r = {.size = sizeof r};
    struct progress_term term;
    gsq_tasks_options_init(&o);
    o.questions = a->tasks;
    o.at_most = a->questions;
    o.context = a->ctx;
    o.spill = a->spill;
    o.progress = progress_term_show;
    o.ctx = &term;
    progress_term_begin(&term, a);
    bool ok = gsq_eval_tasks(device, model, &o, &r, &why);
    progress_term_end(&term);
    if (app_result(ok, &why, e))
        tell_tasks(a, name, &r);
    return ok;
}

/* reference NULL: the model alone. */
static bool read_text(const struct args *a, gsq_device *device, const char *name, const gsq_model *model,
                      const gsq_model *reference, struct err *e)
{
    struct gsq_error why;
    struct gsq_eval_options o;
    struct gsq_eval_result r = {.size = sizeof r};
    struct progress_term term;
    gsq_eval_options_init(&o);
    o.text = a->text;
    o.context = a->ctx;
    o.windows = a->windows;
    o.protocol = a->protocol;
    o.spill = a->spill;
    o.progress = progress_term_show;
    o.ctx = &term;
    progress_term_begin(&term, a);
    bool ok = reference ? gsq_compare(device, model, reference, &o, &r, &why) : gsq_eval(device, model, &o, &r, &why);
    progress_term_end(&term);
    if (app_result(ok, &why, e))
        (reference ? tell_compare : tell_eval)(a, name, &o, &r);
    return ok;
}

/* Both commands: eval has no reference. */
static bool evaluate(const struct args *a, struct err *e)
{
    struct gsq_error why;
    struct gsq_device_info d = {.size = sizeof d};
    gsq_device *device = NULL;
    gsq_model *model = NULL, *reference = NULL;
    const char *against = a->positional[1];
    if (a->tasks && (a->protocol || a->windows))
        return err_set(e, ERR_USER, "--%s goes with --text, not with --tasks", a->protocol ? "protocol" : "windows");
    bool ok = app_result(gsq_model_open(&model, a->positional[0], &why) &&
                             (!against || gsq_model_open(&reference, against, &why)),
                         &why, e) &&
              app_device_open(&device, a, e);
    if (ok) {
        gsq_device_get_info(device, &d);
        ok = a->tasks ? ask(a, device, d.name, model, e) : read_text(a, device, d.name, model, reference, e);
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
