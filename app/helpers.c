#include "app/helpers.h"

#include "app/command_line.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/comm.h"
#include "host/base/log.h"
#include "host/base/os.h"
#include "host/base/os_child.h"

/* In a helper's environment: its device. */
#define HELPER "GSQ_HELPER"

struct helper {
    char device[16];
    struct os_child child;
    struct os_thread *thread;
    struct err err; /* kind ERR_NONE: none */
    int code;
};

struct helpers {
    struct helper each[HELPERS_MOST];
    unsigned n;
};

/* ---- the list ---- */

/* Numbers alone: a device's name may have commas. */
static bool is_list(const char *device)
{
    return device && strchr(device, ',') && strspn(device, "0123456789,") == strlen(device);
}

static const char *first_of(struct args *a, const char *list)
{
    const size_t n = strcspn(list, ",");
    char *first = malloc(n + 1);
    if (!first)
        return NULL;
    memcpy(first, list, n);
    first[n] = 0;
    return args_own(a, first);
}

bool helpers_settle(struct args *a, const char **further, struct err *e)
{
    const char *own = os_getenv(HELPER), *list = a->device ? a->device : os_getenv("GSQ_DEVICE");
    *further = NULL;
    if (own && *own) {
        a->device = own;
        a->q.join = a->json = a->quiet = true;
        a->q.eval = a->q.report = NULL; /* of the result, which another process writes */
        return os_child_obey(e);
    }
    if (!is_list(list) || comm_size() > 1 || a->command == CMD_NONE)
        return true; /* ranks take theirs by their number (gpu_probe.h) */
    if (a->command != CMD_QUANTIZE) {
        err_set(e, ERR_USER, "%s uses one device, not %s", command_name(a->command), list);
        return err_hint(e, "several are for quantize, or one for each rank of an mpirun");
    }
    *further = strchr(list, ',') + 1;
    return (a->device = first_of(a, list)) != NULL || err_nomem(e, "a device's number", strlen(list));
}

/* ---- helpers ---- */

/* The error that ended it, of its last lines. */
static void take_error(struct helper *h, const char *line)
{
    cJSON *o = cJSON_Parse(line);
    const char *event = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, "event"));
    const char *kind = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, "kind"));
    const char *message = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, "message"));
    const char *hint = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, "hint"));
    for (int i = ERR_USER; event && kind && message && strcmp(event, "error") == 0 && i <= ERR_STOPPED; i++)
        if (strcmp(err_kind_name((enum err_kind)i), kind) == 0) {
            err_set(&h->err, (enum err_kind)i, "device %s: %s", h->device, message);
            if (hint && hint[0])
                err_hint(&h->err, "%s", hint);
        }
    cJSON_Delete(o);
}

static void watch(void *ctx)
{
    struct helper *h = ctx;
    enum { CAP = 1 << 16 };
    char *text = malloc(CAP + 1);
    size_t n = 0, got;
    char spare[4096];
    while ((got = text ? os_child_read(&h->child, text + n, CAP - n) : os_child_read(&h->child, spare, sizeof spare))) {
        n += text ? got : 0;
        for (char *end; text && (text[n] = 0, end = strchr(text, '\n'));) {
            *end = 0;
            take_error(h, text);
            n -= (size_t)(end + 1 - text);
            memmove(text, end + 1, n);
        }
        if (n == CAP) /* no line of an error is so long */
            n = 0;
    }
    free(text);
    h->code = os_child_wait(&h->child);
    if (h->err.kind != ERR_NONE)
        os_request_stop();
}

bool helpers_start(struct helpers **out, const struct args *a, const char *further, struct err *e)
{
    struct helpers *all = *out = further ? calloc(1, sizeof *all) : NULL;
    bool ok = all || !further || err_nomem(e, "helpers", sizeof *all);
    for (const char *at = further; ok && at && *at;) {
        struct helper *h = &all->each[all->n];
        const size_t n = strcspn(at, ",");
        if (all->n == HELPERS_MOST)
            return err_set(e, ERR_USER, "--device takes at most %d devices", HELPERS_MOST + 1);
        snprintf(h->device, sizeof h->device, "%.*s", (int)n, at);
        at += n + (at[n] == ',');
        os_setenv(HELPER, h->device, true);
        ok = os_child_start(&h->child, a->argv, e);
        os_setenv(HELPER, "", true);
        if (!ok)
            break;
        all->n++;
        ok = os_thread_start(&h->thread, watch, h, e);
    }
    return ok;
}

bool helpers_end(struct helpers **h, bool ok, struct err *e)
{
    struct helpers *all = *h;
    const bool stopped = !ok && e->kind == ERR_STOPPED;
    for (unsigned i = 0; all && i < all->n; i++)
        os_child_end(&all->each[i].child);
    for (unsigned i = 0; all && i < all->n; i++) {
        struct helper *x = &all->each[i];
        if (x->thread)
            os_thread_join(&x->thread);
        if (x->code >= 128 && x->err.kind == ERR_NONE)
            log_warn("the process on device %s was killed; the others went on", x->device);
        if (stopped && x->err.kind != ERR_NONE && x->err.kind != ERR_STOPPED && e->kind == ERR_STOPPED)
            *e = x->err;
    }
    free(all);
    *h = NULL;
    return ok;
}
