/* gsq convert. */
#include "app/app.h"
#include "app/progress_term.h"
#include "host/base/clean.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/str.h"
#include "host/quant/convert.h"

/* --format, or what the name of the output says. */
static bool find_format(const struct args *a, enum export_format *out, struct err *e)
{
    const char *formats = "formats: gguf, hf, gptq, gptq_v2, compressed-tensors, mlx, humming";
    if (a->convert_format) {
        *out = export_format_parse(a->convert_format);
        if (*out != EXPORT_NONE)
            return true;
        err_set(e, ERR_USER, "--format %s is unknown", a->convert_format);
        return err_hint(e, "%s", formats);
    }
    *out = EXPORT_GGUF;
    if (str_ends_nocase(a->out, ".gguf"))
        return true;
    err_set(e, ERR_USER, "gsq convert needs --format (-o does not end in .gguf)");
    return err_hint(e, "%s", formats);
}

bool cmd_convert(const struct args *a, struct err *e)
{
    struct convert_options o = {.container = a->q.container, .type = a->convert_type, .force = a->q.force};
    if (!find_format(a, &o.format, e))
        return false;
    struct progress_term term;
    uint64_t t0 = os_now_ns();
    struct progress progress = progress_term_begin(&term, a);
    bool ok = convert_run(a->positional[0], a->out, &o, &progress, e);
    progress_term_end(&term);
    if (!ok)
        return false;
    double seconds = (double)(os_now_ns() - t0) * 1e-9;
    if (!a->json) {
        char time[24];
        say(stdout, "%s: %s, %s\n", a->out, export_format_name(o.format),
               format_seconds(seconds, time, sizeof time));
        return true;
    }
    cJSON *result = json_event("result");
    cJSON_AddStringToObject(result, "command", "convert");
    cJSON_AddStringToObject(result, "in", a->positional[0]);
    cJSON_AddStringToObject(result, "out", a->out);
    cJSON_AddStringToObject(result, "format", export_format_name(o.format));
    cJSON_AddNumberToObject(result, "seconds", seconds);
    json_emit(result);
    return true;
}
