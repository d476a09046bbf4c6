/* gsq convert. */
#include "app/app.h"
#include "app/progress_term.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/quant/job.h"

bool cmd_convert(const struct args *a, struct err *e)
{
    struct progress_term term;
    uint64_t t0 = os_now_ns();
    struct progress progress = progress_term_begin(&term, a);
    bool ok = convert_run(a->positional[0], a->out, a->q.format, a->q.container, &progress, e);
    progress_term_end(&term);
    if (!ok)
        return false;
    double seconds = (double)(os_now_ns() - t0) * 1e-9;
    if (!a->json) {
        char time[24];
        printf("%s: %s, %s\n", a->out, export_format_name(a->q.format),
               format_seconds(seconds, time, sizeof time));
        return true;
    }
    cJSON *o = json_event("result");
    cJSON_AddStringToObject(o, "command", "convert");
    cJSON_AddStringToObject(o, "in", a->positional[0]);
    cJSON_AddStringToObject(o, "out", a->out);
    cJSON_AddStringToObject(o, "format", export_format_name(a->q.format));
    cJSON_AddNumberToObject(o, "seconds", seconds);
    json_emit(o);
    return true;
}
