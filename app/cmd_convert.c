/* gsq convert. */
#include "app/app.h"
#include "app/progress_term.h"
#include "host/base/clean.h"
#include "host/base/os.h"

bool cmd_convert(const struct args *a, struct err *e)
{
    struct gsq_error why;
    struct gsq_convert_options o;
    struct progress_term term;
    gsq_model *model = NULL;
    uint64_t t0 = os_now_ns();
    gsq_convert_options_init(&o);
    o.out = a->out;
    o.format = a->convert_format;
    o.type = a->convert_type;
    o.container = a->q.container;
    o.force = a->q.force;
    o.progress = progress_term_show;
    o.ctx = &term;
    progress_term_begin(&term, a);
    bool ok = gsq_model_open(&model, a->positional[0], &why) && gsq_convert(model, &o, &why);
    progress_term_end(&term);
    gsq_model_close(&model);
    if (!app_result(ok, &why, e))
        return false;
    double seconds = (double)(os_now_ns() - t0) * 1e-9;
    const char *format = o.format ? o.format : "gguf";
    if (!a->json) {
        char time[24];
        say(stdout, "%s: %s, %s\n", a->out, format, format_seconds(seconds, time, sizeof time));
        return true;
    }
    cJSON *result = json_event("result");
    cJSON_AddStringToObject(result, "command", "convert");
    cJSON_AddStringToObject(result, "in", a->positional[0]);
    cJSON_AddStringToObject(result, "out", a->out);
    cJSON_AddStringToObject(result, "format", format);
    cJSON_AddNumberToObject(result, "seconds", seconds);
    json_emit(result);
    return true;
}
