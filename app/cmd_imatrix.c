/* gsq imatrix. */
#include "app/app.h"
#include "app/command_line.h"
#include "app/progress_term.h"
#include "host/base/clean.h"

static void tell(const struct args *a, const char *device, const struct gsq_imatrix_result *r)
{
    if (!a->json) {
        char time[24];
        say(stdout, "%s: %llu weights, %u windows of %u tokens, %s on %s\n", a->out, (unsigned long long)r->entries,
            (unsigned)r->windows, (unsigned)r->context, format_seconds(r->seconds, time, sizeof time), device);
        return;
    }
    cJSON *j = json_event("result");
    cJSON_AddStringToObject(j, "command", command_name(a->command));
    cJSON_AddStringToObject(j, "model", a->positional[0]);
    cJSON_AddStringToObject(j, "calib", a->q.calib);
    cJSON *more = a->q.n_more_calib ? cJSON_AddArrayToObject(j, "more_calib") : NULL;
    for (size_t i = 0; more && i < a->q.n_more_calib; i++)
        cJSON_AddItemToArray(more, cJSON_CreateString(a->q.more_calib[i]));
    cJSON_AddStringToObject(j, "out", a->out);
    cJSON_AddStringToObject(j, "device", device);
    cJSON_AddNumberToObject(j, "entries", (double)r->entries);
    cJSON_AddNumberToObject(j, "tokens", (double)r->tokens);
    cJSON_AddNumberToObject(j, "windows", r->windows);
    cJSON_AddNumberToObject(j, "ctx", r->context);
    cJSON_AddNumberToObject(j, "seconds", r->seconds);
    json_emit(j);
}

bool cmd_imatrix(const struct args *a, struct err *e)
{
    struct gsq_error why;
    struct gsq_device_info d = {.size = sizeof d};
    struct gsq_imatrix_options o;
    struct gsq_imatrix_result r = {.size = sizeof r};
    struct progress_term term;
    gsq_device *device = NULL;
    gsq_model *model = NULL;
    gsq_imatrix_options_init(&o);
    o.out = a->out;
    o.calib = a->q.calib;
    o.more_calib = a->q.more_calib;
    o.n_more_calib = a->q.n_more_calib;
    o.samples = a->q.samples;
    o.context = a->q.context;
    o.spill = a->spill;
    o.force = a->q.force;
    o.progress = progress_term_show;
    o.ctx = &term;
    if (!app_result(gsq_model_open(&model, a->positional[0], &why), &why, e))
        return false;
    bool ok = app_device_open(&device, a, e);
    if (ok) {
        gsq_device_get_info(device, &d);
        progress_term_begin(&term, a);
        ok = gsq_imatrix(device, model, &o, &r, &why);
        progress_term_end(&term);
        if (app_result(ok, &why, e))
            tell(a, d.name, &r);
        ok = app_device_close(&device, ok, e);
    }
    gsq_model_close(&model);
    return ok;
}
