#include "lib/choose.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/base/os.h"
#include "host/base/stop_point.h"
#include "host/gpu/gpu_choice.h"
#include "lib/lib_internal.h"

enum {
    FILE_MOST = 1 << 20,
    WAIT_MS = 50,
    WAITS = 400, /* for another process that is choosing: 20 s */
};

/* ---- the file ---- */

/* One for each device and driver, apart from the version of it. False: nothing is to be remembered. */
static bool file_path(const gsq_device *d, char *out, size_t cap)
{
    const struct gpu_info *i = gpu_info(d->gpu);
    char hex[33];
    hash_hex(hash_bytes(i->name, strlen(i->name), hash_bytes(i->driver_uuid_hex, 32, (struct hash128){0})), hex);
    int n = d->cache_dir[0] ? snprintf(out, cap, "%s/variants-%.16s.json", d->cache_dir, hex) : -1;
    return n > 0 && (size_t)n < cap;
}

static bool load(struct choice *c, const struct gpu *g, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    bool ok = os_stat(path, NULL) == OS_FILE && os_read_file(path, FILE_MOST, &text, &size, NULL) &&
              choice_read(c, g, text, size);
    free(text);
    if (!ok)
        choice_begin(c, g);
    return ok;
}

struct choosing {
    gsq_device *d;
    struct choice *c;
    char path[4096]; /* "": not kept */
    struct gpu_cmd *cmd;
    struct gpu_arena *arena;
};

/* What cannot be kept is not kept. */
static void keep(struct choosing *x)
{
    struct err e = {0};
    char *text = x->path[0] ? choice_text(x->c, x->d->gpu) : NULL;
    if (text && !os_write_file(x->path, text, strlen(text), &e)) {
        log_debug("the choice of kernel variants is not kept: %s", e.msg);
        x->path[0] = 0;
    }
    free(text);
}

/* ---- trials ---- */

static void close_trials(struct choosing *x)
{
    gpu_arena_destroy(&x->arena);
    gpu_cmd_destroy(&x->cmd);
    gpu_memory_peak_again(x->d->gpu);
}

static bool open_trials(struct choosing *x, struct err *e)
{
    if (!gpu_cmd_create(&x->cmd, x->d->gpu, e) || !gpu_arena_create(&x->arena, x->d->gpu, "trial", e))
        return false;
    gpu_cmd_set_poll(x->cmd, lib_go_on, NULL);
    return true;
}

/* True, unless the device is lost or a stop was asked for: what failed is a fault of the variant. */
static bool failed(struct choosing *x, struct candidate *c, const char *name, struct err *e)
{
    if (e->kind == ERR_STOPPED)
        return false;
    if (gpu_lost(x->d->gpu)) {
        c->state = CANDIDATE_EXCLUDED;
        return err_context(e, "while variant %s was tried", name);
    }
    c->state = CANDIDATE_REFUSED;
    snprintf(c->why, sizeof c->why, "cannot be run: %.120s", e->msg);
    *e = (struct err){0};
    return true;
}

static bool try_candidate(struct choosing *x, unsigned kernel, struct candidate *c, struct err *e)
{
    char name[sizeof x->c->trying];
    snprintf(name, sizeof name, "%s.%s", kernel_decls[kernel].name, c->name);
    memcpy(x->c->trying, name, sizeof name);
    keep(x);
    bool ok = trial_check(x->cmd, x->arena, kernel, c->name, c->why, e);
    stop_point("trial", name);
    if (ok && c->why[0])
        c->state = CANDIDATE_REFUSED;
    else if (ok && (ok = trial_time(x->cmd, x->arena, kernel, c->name, &c->us, &c->usual_us, e)))
        c->state = CANDIDATE_MEASURED;
    /* A stop while the device hangs ends the process at its deadline, with the trial in the file: what was begun ends first. */
    if (!ok && e->kind == ERR_STOPPED)
        gpu_cmd_destroy(&x->cmd);
    ok = ok || failed(x, c, name, e);
    x->c->trying[0] = 0;
    keep(x);
    if (c->state == CANDIDATE_REFUSED)
        log_debug("variant %s is not used: %s", name, c->why);
    return ok;
}

static bool try_all(struct choosing *x, struct err *e)
{
    char why[TRIAL_WHY];
    log_info("choosing kernel variants for %s, once for this device and driver", gpu_info(x->d->gpu)->name);
    bool ok = open_trials(x, e) && trial_check(x->cmd, x->arena, KERNEL_ID_gemm, NULL, why, e);
    if (ok && why[0]) {
        log_warn("kernel gemm, as it is used without a choice, gives %s: no other variant is tried", why);
        close_trials(x);
        return true;
    }
    for (unsigned k = 0; ok && k < KERNEL_COUNT; k++)
        for (unsigned i = 0; ok && i < x->c->kernels[k].n; i++)
            if (x->c->kernels[k].c[i].state == CANDIDATE_NEW)
                ok = try_candidate(x, k, &x->c->kernels[k].c[i], e);
    close_trials(x);
    return ok;
}

/* A trial that nobody is at any more. */
static void exclude_dead(struct choosing *x)
{
    struct candidate *c = x->c->trying[0] ? choice_find(x->c, x->c->trying) : NULL;
    if (c) {
        c->state = CANDIDATE_EXCLUDED;
        log_warn("variant %s is not used on %s: the driver died while it was tried (gsq bench --choose tries it again)",
                 x->c->trying, gpu_info(x->d->gpu)->name);
    }
    if (x->c->trying[0]) {
        x->c->trying[0] = 0;
        keep(x);
    }
}

/* Under the lock, or where there is none to be had. */
static bool measure(struct choosing *x, bool again, struct err *e)
{
    gsq_device *d = x->d;
    if (again)
        choice_begin(x->c, d->gpu);
    else if (x->path[0]) /* else what this process knows */
        load(x->c, d->gpu, x->path);
    exclude_dead(x);
    /* What is used without candidates is what they are compared with. */
    struct choice none = {0};
    if (choice_complete(x->c))
        return true;
    if (!choice_apply(&none, d->gpu, e) || !try_all(x, e))
        return false;
    return true;
}

static bool measure_locked(struct choosing *x, bool again, struct err *e)
{
    char lock_path[4096 + 8], holder[128];
    struct os_lock lock = {0};
    enum os_locked got = OS_LOCK_FAILED;
    struct err why = {0};
    if (x->path[0] && !os_mkdirs(x->d->cache_dir, &why))
        x->path[0] = 0;
    snprintf(lock_path, sizeof lock_path, "%s.lock", x->path);
    for (int waits = 0; x->path[0] && (got = os_lock(&lock, lock_path, holder, &why)) == OS_LOCK_BUSY; waits++) {
        if (!lib_go_on(NULL))
            return err_set(e, ERR_STOPPED, "stopped");
        if (waits == WAITS) {
            log_info("another process is choosing kernel variants: this one goes on with what is known");
            load(x->c, x->d->gpu, x->path);
            return true;
        }
        os_sleep_ms(WAIT_MS);
    }
    if (got == OS_LOCK_FAILED)
        x->path[0] = 0;
    bool ok = measure(x, again, e);
    os_unlock(&lock);
    return ok;
}

bool lib_choose(gsq_device *d, enum choose_how how, struct err *e)
{
    struct choosing x = {.d = d, .c = &d->choice};
    bool ok = true;
    if (!gpu_choice_open(d->gpu, KERNEL_COUNT))
        return true;
    if (!file_path(d, x.path, sizeof x.path))
        x.path[0] = 0;
    /* What this process has measured stays its choice. */
    if (!d->chosen)
        d->chosen =
            x.path[0] && load(&d->choice, d->gpu, x.path) && choice_complete(&d->choice) && !d->choice.trying[0];
    if (!x.path[0] && how == CHOOSE_REMEMBERED)
        choice_begin(&d->choice, d->gpu);
    if (how == CHOOSE_AGAIN || (how == CHOOSE_MEASURED && !d->chosen)) {
        ok = measure_locked(&x, how == CHOOSE_AGAIN, e);
        d->chosen = ok;
    }
    return choice_apply(&d->choice, d->gpu, ok ? e : NULL) && ok;
}
