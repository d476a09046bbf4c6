/* Work on all cores: a list of pieces, each done once, by whichever thread is free. What a piece is and where
 * its result goes depend on its index alone, so results are the same bytes with any number of threads. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "host/base/err.h"

/* How many threads pool_run may use in all; 0 (from the start): as many as the machine has cores. Set it
 * before any work begins. */
void pool_set_threads(unsigned n);
unsigned pool_threads(void);

struct pool_work {
    uint64_t n; /* pieces */
    /* Does piece i. thread, below pool_threads(), names the one who does it: for buffers of its own. */
    bool (*piece)(void *ctx, uint64_t i, unsigned thread, struct err *e);
    /* Called on the calling thread alone, after each of its pieces and at least every 100 ms while it waits
     * for others: pieces should be shorter than that. False stops (ERR_STOPPED). May be NULL. */
    bool (*progress)(void *ctx, uint64_t done);
    void *ctx; /* of both */
};
/* True when all pieces are done. After a failure no further piece is begun; the error is that of the failed
 * piece with the lowest index, whatever the timing. The calling thread works along as thread 0. A piece must
 * not call pool_run. */
bool pool_run(const struct pool_work *w, struct err *e);

#endif
