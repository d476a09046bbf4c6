/* Device memory of what goes over all windows in batches. */
#ifndef MODEL_BATCH_H
#define MODEL_BATCH_H

#include "host/model/block_fwd.h"
#include "host/model/walk.h"

/* How many windows go through at once: about `tokens` tokens, at most `windows`, at least 1, with at most `bytes` of
 * scratch. */
uint32_t batch_windows(const struct model *m, uint32_t tokens, uint64_t bytes, uint32_t windows);
/* The same for passes that only go forward: as many as this device wants, in a quarter of what is left of its memory. */
uint32_t batch_windows_forward(const struct model *m, uint32_t windows);

/* Of a calibration's forward pass through half a block, with or without Hessians; it steers. T = windows * ctx. */
struct batch {
    struct block_scratch s;
    struct gpu_view hidden; /* [T, hidden]: staging for activations that live elsewhere */
};
bool batch_create(struct batch *b, struct gpu_arena *arena, const struct model *m, uint32_t windows, struct err *e);

/* Of sums of squares after the final norm. */
struct norm_batch {
    struct gpu_view hidden, normed; /* [T, hidden] */
    struct gpu_view sums;           /* [hidden] */
};
bool norm_batch_create(struct norm_batch *b, struct gpu_arena *arena, const struct model *m, uint32_t windows,
                       struct err *e);
/* sums[hidden]: over the windows of the walk, whose staging is not set yet. */
bool norm_squares(struct walk *k, struct model *m, struct gpu_arena *arena, float *sums, struct err *e);

#endif
