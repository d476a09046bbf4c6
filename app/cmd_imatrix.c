/* gsq imatrix. */
#include <string.h>

#include "app/app.h"
#include "app/progress_term.h"
#include "host/base/clean.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/quant/imatrix.h"

static void tell(const struct args *a, const struct app_gpu *g, const struct imatrix *m,
                 const struct imatrix_result *r)
{
    if (!a->json) {
        char time[24];
        say(stdout, "%s: %zu weights, %u windows of %u tokens, %s on %s\n", a->out, m->n, (unsigned)r->windows,
               (unsigned)m->chunk_size, format_seconds(r->seconds, time, sizeof time),
               gpu_info(g->gpu)->name);
        return;
    }
    cJSON *j = json_event("result");
    cJSON_AddStringToObject(j, "command", command_name(a->command));
    cJSON_AddStringToObject(j, "model", a->positional[0]);
    cJSON_AddStringToObject(j, "calib", a->q.calib);
    cJSON_AddStringToObject(j, "out", a->out);
    cJSON_AddStringToObject(j, "device", gpu_info(g->gpu)->name);
    cJSON_AddNumberToObject(j, "entries", (double)m->n);
    cJSON_AddNumberToObject(j, "tokens", (double)r->tokens);
    cJSON_AddNumberToObject(j, "windows", r->windows);
    cJSON_AddNumberToObject(j, "ctx", m->chunk_size);
    cJSON_AddNumberToObject(j, "seconds", r->seconds);
    json_emit(j);
}

static bool collect(const struct args *a, const struct checkpoint *ck, struct err *e)
{
    struct app_gpu g;
    struct progress_term term;
    struct imatrix m;
    struct imatrix_result r = {0};
    if (!app_gpu_open(&g, a, e))
        return false;
    struct imatrix_options o = {
        .text = a->q.calib,
        .ctx = a->q.ctx ? a->q.ctx : app_default_ctx(checkpoint_config(ck)),
        .windows = a->q.samples,
        .spill_dir = app_spill_dir(a),
        .progress = progress_term_begin(&term, a),
    };
    bool ok = imatrix_collect(g.cmd, ck, &o, &m, &r, e);
    progress_term_end(&term);
    if (ok && r.windows < o.windows)
        log_warn("%s holds %u windows of %u tokens, %u were asked for", o.text, (unsigned)r.windows,
                 (unsigned)o.ctx, (unsigned)o.windows);
    ok = ok && imatrix_write(&m, a->out, e);
    if (ok)
        tell(a, &g, &m, &r);
    imatrix_free(&m);
    return app_gpu_close(&g, ok, e);
}

bool cmd_imatrix(const struct args *a, struct err *e)
{
    struct checkpoint *ck = NULL;
    struct os_lock lock = {0};
    bool ok = checkpoint_open(&ck, a->positional[0], e) &&
              imatrix_lock_out(&lock, a->out, ck, a->q.calib, a->q.force, e) && collect(a, ck, e);
    checkpoint_close(&ck);
    os_unlock(&lock);
    return ok;
}
