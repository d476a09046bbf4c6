/* What every function of libgsq needs: errors, the log, the stop flag, sized structs. */
#include <stdlib.h>
#include <string.h>

#include "host/base/clean.h"
#include "host/base/log.h"
#include "host/base/os.h"
#include "host/base/pool.h"
#include "host/base/version.h"
#include "lib/lib_internal.h"

const char *gsq_version(void)
{
    return version_text();
}

void gsq_free(char *text)
{
    free(text);
}

bool lib_result(bool ok, const struct err *from, struct gsq_error *e)
{
    static const enum gsq_error_kind kinds[] = {
        [ERR_NONE] = GSQ_ERROR_BUG, [ERR_USER] = GSQ_ERROR_USER,       [ERR_ENV] = GSQ_ERROR_ENVIRONMENT,
        [ERR_BUG] = GSQ_ERROR_BUG,  [ERR_STOPPED] = GSQ_ERROR_STOPPED,
    };
    if (!e)
        return ok;
    *e = (struct gsq_error){0};
    if (ok)
        return true;
    e->kind = kinds[from->kind];
    snprintf(e->message, sizeof e->message, "%s", from->msg[0] ? from->msg : "failed without saying why");
    snprintf(e->hint, sizeof e->hint, "%s", from->hint);
    return false;
}

char *lib_text(bool ok, struct strbuf *text, struct err *from, struct gsq_error *e)
{
    if (ok && (text->failed || !text->data))
        ok = err_nomem(from, "a text", text->size);
    /* Names of files are in it. JSON was cleaned in its own way, which this leaves as it is. */
    if (ok) {
        size_t cap = text->size * CLEAN_GROWTH + 1;
        char *clean = malloc(cap);
        if (clean) {
            text->size = clean_text(clean, cap, text->data, text->size, true);
            free(text->data);
            text->data = clean;
            text->cap = cap;
        } else {
            ok = err_nomem(from, "a text", cap);
        }
    }
    if (!lib_result(ok, from, e)) {
        strbuf_free(text);
        return NULL;
    }
    return text->data;
}

char *lib_json(bool ok, cJSON *o, struct err *from, struct gsq_error *e)
{
    char *printed = ok && o ? cJSON_PrintUnformatted(o) : NULL;
    struct strbuf text = {0};
    char *clean = printed ? clean_json(printed) : NULL;
    if (clean)
        strbuf_puts(&text, clean);
    free(clean);
    cJSON_free(printed);
    cJSON_Delete(o);
    return lib_text(ok, &text, from, e);
}

/* ---- log and stop ---- */

static gsq_log_fn *log_fn;
static void *log_ctx;

static void to_caller(void *ctx, enum log_level level, const char *line)
{
    (void)ctx;
    log_fn(log_ctx, (enum gsq_log_level)level, line);
}

void gsq_set_log(enum gsq_log_level level, gsq_log_fn *fn, void *ctx)
{
    log_fn = fn;
    log_ctx = ctx;
    log_set_level((enum log_level)level);
    log_set_sink(fn ? to_caller : NULL, NULL);
}

void gsq_set_threads(uint32_t threads)
{
    pool_set_threads(threads);
}

void gsq_request_stop(void)
{
    os_request_stop();
}

void gsq_clear_stop(void)
{
    os_clear_stop();
}

bool lib_go_on(void *ctx)
{
    (void)ctx;
    return !os_stop_requested();
}

/* ---- sized structs ---- */

bool lib_take(void *into, size_t into_size, const void *from, const char *what, struct err *e)
{
    size_t size;
    if (!from)
        return true;
    memcpy(&size, from, sizeof size);
    if (size < sizeof size) {
        err_set(e, ERR_USER, "%s: the struct's size is not set", what);
        return err_hint(e, "call the struct's init function first");
    }
    memcpy(into, from, size < into_size ? size : into_size);
    return true;
}

void lib_give(void *to, const void *from, size_t from_size)
{
    size_t size;
    if (!to)
        return;
    memcpy(&size, to, sizeof size);
    size_t n = size < from_size ? size : from_size;
    if (n > sizeof size)
        memcpy((char *)to + sizeof size, (const char *)from + sizeof size, n - sizeof size);
}

/* ---- progress, defaults ---- */

static bool on_progress(void *ctx, const struct progress_event *ev)
{
    const struct lib_progress *p = ctx;
    struct gsq_progress out = {
        .size = sizeof out,
        .phase = ev->phase,
        .detail = ev->detail,
        .block = ev->block,
        .blocks = ev->blocks,
        .step = ev->step,
        .steps = ev->steps,
        .loss = ev->loss,
        .done = ev->done,
        .eta_seconds = ev->eta_seconds,
        .elapsed_seconds = ev->elapsed_seconds,
        .unit = ev->unit,
        .count = ev->count,
        .processes = ev->processes,
    };
    return !os_stop_requested() && (!p->fn || p->fn(p->ctx, &out));
}

struct progress lib_progress(struct lib_progress *p)
{
    return (struct progress){.fn = on_progress, .ctx = p};
}

const char *lib_spill_dir(const char *asked)
{
    static const char *const names[] = {"TMPDIR", "TEMP", "TMP"};
    if (asked)
        return asked;
    for (int i = 0; i < 3; i++) {
        const char *dir = os_getenv(names[i]);
        if (dir && os_stat(dir, NULL) == OS_DIR)
            return dir;
    }
    return os_stat("/tmp", NULL) == OS_DIR ? "/tmp" : ".";
}
