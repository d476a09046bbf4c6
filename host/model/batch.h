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
    struct gpu_view teacher,
        lost; /* the same for the 16-bit model's, and how far they are from the student's; empty without a drift */
};
/* drift: for what is lost before a linear, too (drift.h). */
bool batch_create(struct batch *b, struct gpu_arena *arena, const struct model *m, uint32_t windows, bool drift,
                  struct err *e);

/* Sums over the windows of a walk whose batches are dealt to ranks (walk.h): what each batch gives alone, added in their order, as
 * where one rank has them all. */
struct dealt_sums {
    float *all; /* [ranks, rounds, cols] */
    uint32_t cols, batches, rounds;
};
bool dealt_sums_begin(struct dealt_sums *s, uint32_t cols, const struct walk *k, struct err *e);
/* What the walk's batch gives columns [col, col + n): sums, which become 0. */
bool dealt_sums_take(struct dealt_sums *s, const struct walk *k, struct gpu_view sums, uint32_t col, uint32_t n,
                     struct err *e);
/* The whole on all ranks: sums[cols]. */
bool dealt_sums_end(struct dealt_sums *s, float *sums, struct err *e);
void dealt_sums_free(struct dealt_sums *s);

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
