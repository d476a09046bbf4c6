#include "host/gpu/progress.h"

#include <stddef.h>

#include "host/gpu/gpu_cmd.h"

static bool on_poll(void *ctx)
{
    struct progress_watch *w = ctx;
    return progress_tick(w) && (!w->poll || w->poll(w->poll_ctx));
}

static double products(const void *cmd)
{
    return gpu_cmd_products(cmd);
}

void progress_watch_begin(struct progress_watch *w, const struct progress *to, struct eta *eta, struct gpu_cmd *cmd)
{
    progress_begin(w, to, eta);
    if (!cmd)
        return;
    w->device = cmd;
    w->meter = products;
    gpu_cmd_get_poll(cmd, &w->poll, &w->poll_ctx);
    gpu_cmd_set_poll(cmd, on_poll, w);
}

void progress_watch_end(struct progress_watch *w)
{
    if (w->device)
        gpu_cmd_set_poll(w->device, w->poll, w->poll_ctx);
    w->device = NULL;
    w->meter = NULL;
}
