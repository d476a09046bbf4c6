#include "host/model/walk.h"

#include <stdlib.h>

#include "host/base/num.h"
#include "host/base/os.h"
#include "host/gpu/gpu_share.h"

/* The batch in work is all recorded. */
static bool leave(struct walk *w, struct err *e)
{
    if (w->keep && !acts_put(w->acts, w->first + w->at, w->n, w->x, e))
        return false;
    w->at += w->n;
    if (!w->watch)
        return true;
    gpu_cmd_flush(w->cmd);
    const double part =
        (double)(w->at - w->start) / (w->end - w->start); /* of all ranks', as far as this one can tell */
    eta_part(w->watch->eta, part, os_now_ns());
    w->event.unit = "windows";
    w->event.count = (uint32_t)(part * w->windows);
    return progress_report(w->watch, &w->event, e);
}

static bool is_shared(const struct walk *w)
{
    return w->share && w->keep && comm_size() > 1;
}

static void begin(struct walk *w)
{
    struct comm_part mine = {0, w->windows};
    if (is_shared(w))
        mine = comm_part(w->windows, w->batch, comm_rank()); /* batches are what they would be on one rank */
    w->begun = true;
    w->at = w->start = mine.first;
    w->end = mine.end;
}

bool walk_next(struct walk *w, struct err *e)
{
    if (!w->begun)
        begin(w);
    if (w->n && !leave(w, e))
        return false;
    for (w->n = 0;; w->at += w->n) {
        uint32_t left = w->end - w->at;
        w->ended = left == 0;
        w->n = (uint32_t)min_u64(left, w->batch);
        if (w->ended)
            return false;
        if (w->even)
            w->n = left / (uint32_t)div_up(left, w->batch);
        w->number = w->batches++;
        if (!w->deal || w->number % comm_size() == comm_rank())
            break;
    }
    return !w->acts || acts_get(w->acts, w->first + w->at, w->n, w->staging, &w->x, e);
}

/* The windows of a rank from there to all others. */
static bool spread(const struct walk *w, unsigned rank, void *room, struct err *e)
{
    const struct comm_part part = comm_part(w->windows, w->batch, rank);
    const uint64_t window = w->staging.size / w->batch;
    for (uint32_t at = part.first, n; at < part.end; at += n) {
        n = (uint32_t)min_u64(part.end - at, w->batch);
        struct gpu_view x = gpu_slice(w->staging, 0, n * window);
        if ((rank == comm_rank() && !acts_get(w->acts, w->first + at, n, w->staging, &x, e)) ||
            !gpu_share(COMM_STATES, w->cmd, x, rank, room, e) ||
            (rank != comm_rank() && !acts_put(w->acts, w->first + at, n, x, e)))
            return false;
    }
    return true;
}

static bool exchange(const struct walk *w, struct err *e)
{
    void *room = malloc((size_t)w->staging.size);
    bool ok = room || err_nomem(e, "hidden states on their way between ranks", w->staging.size);
    for (unsigned r = 0; ok && r < comm_size(); r++)
        ok = spread(w, r, room, e);
    ok = gpu_cmd_finish(w->cmd, ok ? e : NULL) && ok;
    free(room);
    return ok;
}

bool walk_end(const struct walk *w, struct err *e)
{
    bool ok = gpu_cmd_finish(w->cmd, w->ended ? e : NULL) && w->ended;
    return ok && (!is_shared(w) || exchange(w, e));
}

void walk_expect(struct comm_expected *x, uint32_t windows, uint32_t batch, uint64_t window, uint64_t times)
{
    comm_expect_gather(x, COMM_STATES, windows, batch, window, times);
}
