#include <stdlib.h>
#include <string.h>

#include "host/base/comm.h"
#include "host/base/log.h"
#include "host/base/os.h"
#include "host/gpu/gpu_create.h"
#include "lib/choose.h"
#include "lib/lib_internal.h"

void gsq_device_options_init_sized(struct gsq_device_options *o, size_t size)
{
    struct gsq_device_options defaults = {.size = size};
    memcpy(o, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

bool gsq_device_open(gsq_device **out, const struct gsq_device_options *o, struct gsq_error *e)
{
    struct err why = {0};
    struct gsq_device_options a = {0};
    *out = NULL;
    gsq_device *d = calloc(1, sizeof *d);
    bool ok = d ? lib_take(&a, sizeof a, o, "gsq_device_options", &why) : err_nomem(&why, "a device", sizeof *d);
    if (ok && a.cache_dir && strlen(a.cache_dir) < sizeof d->cache_dir)
        snprintf(d->cache_dir, sizeof d->cache_dir, "%s", a.cache_dir);
    else if (ok && (a.cache_dir || !os_cache_dir(d->cache_dir, sizeof d->cache_dir)))
        d->cache_dir[0] = 0;
    struct gpu_options g = {
        .device = a.device,
        .variant = a.variant,
        .mem_limit = a.memory_limit,
        .cache_dir = d && d->cache_dir[0] ? d->cache_dir : NULL,
        .threads = a.threads,
    };
    ok = ok && gpu_create(&d->gpu, &g, &why) && gpu_cmd_create(&d->cmd, d->gpu, &why) &&
         lib_choose(d, CHOOSE_REMEMBERED, &why);
    if (ok) {
        gpu_cmd_set_poll(d->cmd, lib_go_on, NULL);
        *out = d;
    } else {
        gsq_device_close(&d);
    }
    return lib_result(ok, &why, e);
}

/* Of a driver that was reset. */
enum { REOPEN_TRIES = 30, REOPEN_WAIT_MS = 1000 };

bool lib_device_lost(const gsq_device *d)
{
    return d && (!d->cmd || gpu_lost(d->gpu));
}

bool lib_device_again(const gsq_device *d, unsigned *tries, struct err *e)
{
    if (e->kind != ERR_ENV || !lib_device_lost(d) || *tries || comm_size() > 1) /* other ranks have gone on */
        return false;
    log_warn("%s; it is opened again, and all is done once more", e->msg);
    *e = (struct err){0};
    ++*tries;
    return true;
}

bool lib_device_ready(gsq_device *d, struct err *e)
{
    if (!lib_device_lost(d))
        return true;
    if (d->cmd)
        gpu_cmd_destroy(&d->cmd);
    for (int tries = 0; !d->cmd; tries++) {
        struct err why = {0};
        if (!gpu_lost(d->gpu) || gpu_reopen(d->gpu, &why))
            gpu_cmd_create(&d->cmd, d->gpu, &why);
        if (!d->cmd && !lib_go_on(NULL))
            return err_set(e, ERR_STOPPED, "stopped");
        if (!d->cmd && tries == REOPEN_TRIES) {
            *e = why;
            return err_context(e, "the device was lost and cannot be opened again");
        }
        if (!d->cmd)
            os_sleep_ms(REOPEN_WAIT_MS);
    }
    gpu_cmd_set_poll(d->cmd, lib_go_on, NULL);
    return true;
}

/* More in one start than any device has bad variants. */
enum { TRIAL_LOSSES = 8 };

bool lib_device_choose(gsq_device *d, bool again, struct err *e)
{
    bool ok = lib_device_ready(d, e) && lib_choose(d, again ? CHOOSE_AGAIN : CHOOSE_MEASURED, e);
    for (int losses = 0; !ok && e->kind == ERR_ENV && lib_device_lost(d) && losses < TRIAL_LOSSES; losses++) {
        log_warn("%s; it is opened again, and that variant is not used (gsq bench --choose tries it again)", e->msg);
        *e = (struct err){0};
        ok = lib_device_ready(d, e) && lib_choose(d, CHOOSE_MEASURED, e);
    }
    return ok;
}

void gsq_device_close(gsq_device **device)
{
    gsq_device *d = *device;
    *device = NULL;
    if (!d)
        return;
    if (d->cmd)
        gpu_cmd_destroy(&d->cmd);
    if (d->gpu)
        gpu_destroy(&d->gpu);
    free(d);
}

void gsq_device_get_info(const gsq_device *device, struct gsq_device_info *info)
{
    const struct gpu_info *g = gpu_info(device->gpu);
    struct gsq_device_info out = {
        .name = g->name,
        .driver = g->driver,
        .kind = g->kind,
        .index = g->index,
        .memory_bytes = g->heap_bytes,
        .memory_limit = g->mem_limit,
        .memory_peak = gpu_memory_peak(device->gpu),
        .validation_messages = gpu_validation_messages(device->gpu),
    };
    lib_give(info, &out, sizeof out);
}
