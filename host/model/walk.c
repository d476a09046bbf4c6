#include "host/model/walk.h"

#include "host/base/num.h"
#include "host/base/os.h"
#include "host/gpu/gpu_cmd.h"

/* The batch in work is all recorded. */
static bool leave(struct walk *w, struct err *e)
{
    if (w->keep && !acts_put(w->acts, w->first + w->at, w->n, w->x, e))
        return false;
    w->at += w->n;
    if (!w->watch)
        return true;
    gpu_cmd_flush(w->cmd);
    eta_part(w->watch->eta, (double)w->at / w->windows, os_now_ns());
    w->event.unit = "windows";
    w->event.count = w->at;
    return progress_report(w->watch, &w->event, e);
}

bool walk_next(struct walk *w, struct err *e)
{
    if (w->n && !leave(w, e))
        return false;
    uint32_t left = w->windows - w->at;
    w->ended = left == 0;
    w->n = (uint32_t)min_u64(left, w->batch);
    if (w->ended)
        return false;
    if (w->even)
        w->n = left / (uint32_t)div_up(left, w->batch);
    return !w->acts || acts_get(w->acts, w->first + w->at, w->n, w->staging, &w->x, e);
}

bool walk_end(const struct walk *w, struct err *e)
{
    return gpu_cmd_finish(w->cmd, w->ended ? e : NULL) && w->ended;
}
