#include "host/base/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/base/os.h"

/* A meter tells of no more than that, because what is not a product comes after the last one, too. */
#define METER_MOST 0.99
/* Longest silence while the device works. */
#define TICK_NS 1000000000ull

static void read_meter(struct progress_watch *w, uint64_t now)
{
    if (!(w->meter_total > 0) || !w->eta->open)
        return;
    double share = (w->meter(w->device) - w->meter_from) / w->meter_total;
    if (share > w->eta->part)
        eta_part(w->eta, fmin(share, METER_MOST), now);
}

static bool tell(struct progress_watch *w, uint64_t now)
{
    w->told_ns = now;
    read_meter(w, now);
    w->last.done = eta_share(w->eta, now);
    w->last.eta_seconds = eta_left(w->eta, now);
    w->last.elapsed_seconds = eta_elapsed(w->eta, now);
    return !w->to || !w->to->fn || w->to->fn(w->to->ctx, &w->last);
}

bool progress_tick(struct progress_watch *w)
{
    uint64_t now = os_now_ns();
    return !w->last.phase || now - w->told_ns < TICK_NS || tell(w, now);
}

void progress_begin(struct progress_watch *w, const struct progress *to, struct eta *eta)
{
    *w = (struct progress_watch){.to = to, .eta = eta};
}

void progress_meter(struct progress_watch *w, double multiply_adds)
{
    w->meter_from = w->meter ? w->meter(w->device) : 0;
    w->meter_total = w->meter ? 2 * multiply_adds : 0;
}

bool progress_report(struct progress_watch *w, const struct progress_event *ev, struct err *e)
{
    w->last = *ev;
    snprintf(w->phase, sizeof w->phase, "%s", ev->phase);
    w->last.phase = w->phase;
    if (ev->detail) {
        snprintf(w->detail, sizeof w->detail, "%s", ev->detail);
        w->last.detail = w->detail;
    }
    return tell(w, os_now_ns()) || err_set(e, ERR_STOPPED, "stopped");
}
