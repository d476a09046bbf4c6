/* A run's device memory: the run's own code that creates things, in the run's order, on arenas that count. Nothing is
 * allocated, computed or read; layers that are alike are gone through once. */
#ifndef QUANT_REHEARSE_H
#define QUANT_REHEARSE_H

#include "host/quant/plan.h"

/* What needs memory at a time, beside what lasts. */
enum run_part {
    PART_FIXED,   /* what is held beside the work on a linear: weights and Hessians */
    PART_LINEAR,  /* one linear, with its Hessian */
    PART_BATCH,   /* windows on their way through half a block */
    PART_HALF,    /* half a block in training */
    PART_SCALES,  /* the pass over scales */
    PART_OUTPUT,  /* the pass that finds Hessians of outputs */
    PART_MEASURE, /* the pass that measures what types cost */
    PART_COUNT
};

struct rehearsal {
    uint64_t peak;               /* device bytes at the widest moment */
    struct memory_line lines[6]; /* which are these */
    size_t n_lines;
};

/* The whole run with the sizes and places that the plan has, within `limit` bytes, what models hold included
 * (UINT64_MAX: none). False: it does not fit, and e is that of the allocation. */
bool rehearse(struct rehearsal *r, const struct plan *p, const struct model *m, const struct quantize_options *o,
              uint64_t limit, struct err *e);
/* One part alone, beside what lasts meanwhile; true where the run does not have it. */
bool rehearse_part(struct rehearsal *r, const struct plan *p, const struct model *m, const struct quantize_options *o,
                   enum run_part part, uint64_t limit, struct err *e);

#endif
