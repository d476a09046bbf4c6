/* The way over the windows of a text, a batch at a time: all that computes on hidden states uses it.
 *
 *     struct walk k = {.cmd = cmd, .acts = acts, .windows = n, .batch = batch, .staging = room, .keep = true};
 *     while (walk_next(&k, e))
 *         block_attn_fwd(m, &b, &scratch, k.x, k.x, k.n);
 *     ok = walk_end(&k, e);
 */
#ifndef MODEL_WALK_H
#define MODEL_WALK_H

#include "host/base/comm.h"
#include "host/gpu/progress.h"
#include "host/model/acts.h"

struct walk {
    struct gpu_cmd *cmd;
    struct acts *acts;       /* NULL: windows are only counted */
    uint32_t first, windows; /* first: in acts, of the walk's window 0 */
    uint32_t batch;          /* windows at a time, at most */
    bool even;               /* batches are alike in size; else all are full but the last */
    struct gpu_view staging; /* for a batch, as acts_get wants it */
    bool keep;               /* what x became is stored */
    bool share; /* with keep: each rank goes over some batches, and at the end all have what all became (comm.h) */
    bool
        deal; /* batches go to the ranks in turn, and this one goes over its own: hidden states of others' are not asked for */
    /* Hears of each batch by `event`, whose unit and count are filled in, and has the piece in work move on; NULL: nobody
     * does. */
    struct progress_watch *watch;
    struct progress_event event;
    /* The batch: windows at .. at + n - 1, and which one it is of those of all ranks. */
    uint32_t at, n, number;
    struct gpu_view x;   /* [n, ctx, hidden] */
    bool begun, ended;   /* ended: all were gone over */
    uint32_t batches;    /* so many have been come to */
    uint32_t start, end; /* of this rank's windows */
};
/* The next batch, when the work on the one before has been recorded. False: there is none, or e says why not; a stop
 * (ERR_STOPPED) comes within a batch. */
bool walk_next(struct walk *w, struct err *e);
/* Waits for the device: nothing that was recorded uses memory any more. True where the walk went to its end; e is left as
 * it is where it was not. Of a shared walk: true where it did so on all ranks. */
bool walk_end(const struct walk *w, struct err *e);
/* What ranks exchange at the end of so many shared walks (comm.h); window: bytes of one's hidden states. */
void walk_expect(struct comm_expected *x, uint32_t windows, uint32_t batch, uint64_t window, uint64_t times);

#endif
