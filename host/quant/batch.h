/* Device memory of what goes over all windows in batches. */
#ifndef QUANT_BATCH_H
#define QUANT_BATCH_H

#include "host/model/block_fwd.h"

/* Of a forward pass through half a block, with or without Hessians. T = windows * ctx. */
struct batch {
    struct block_scratch s;
    struct gpu_view hidden;     /* [T, hidden]: staging for activations that live elsewhere */
    struct gpu_view transposed; /* [widest input, T] */
};
bool batch_create(struct batch *b, struct gpu_arena *arena, const struct model *m, uint32_t windows,
                  struct err *e);

/* Of sums of squares behind the final norm. */
struct norm_batch {
    struct gpu_view hidden, normed; /* [T, hidden] */
    struct gpu_view sums;           /* [hidden] */
};
bool norm_batch_create(struct norm_batch *b, struct gpu_arena *arena, const struct model *m, uint32_t windows,
                       struct err *e);

#endif
