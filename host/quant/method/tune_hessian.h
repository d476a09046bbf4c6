/* Gumbel-Softmax on one linear against its Hessian: L = tr((W~ - W) H (W~ - W)^T), or with the
 * Hessian Ho of its outputs tr(Ho (W~ - W) H (W~ - W)^T) (docs/method.md 2, 3). */
#ifndef QUANT_TUNE_HESSIAN_H
#define QUANT_TUNE_HESSIAN_H

#include "host/quant/method/epochs.h"
#include "host/quant/method/qmatrix.h"

/* What is learned from. */
struct tune_hessians {
    struct gpu_view inputs;    /* [cols, cols] */
    struct gpu_matrix outputs; /* tiles of q's rows (output_hessian_rows); empty: the unit matrix */
};

/* What the noise of a weight is keyed by, beside step and column. */
struct tune_key {
    uint64_t seed;
    uint32_t tensor; /* a number unique to this linear */
    uint32_t row0;   /* of q in the whole linear */
};

/* From the codes and scales in q to better ones, in place. Row tiles are independent, of outputs' tiles whole ones, so memory is
 * bounded by `budget` bytes of the arena. */
bool tune_hessian(struct gpu_cmd *cmd, struct qmatrix *q, struct gpu_view w, const struct tune_hessians *h,
                  struct gpu_arena *arena, uint64_t budget, const struct gumbel_options *o, struct tune_key key,
                  const struct tune_hooks *hooks, struct err *e);
/* Bytes that `rows` rows of such a linear take in training, in an arena of their own; outputs: with their Hessian. */
uint64_t tune_hessian_bytes(struct gpu *g, const struct qmatrix *q, uint32_t rows, bool outputs);

#endif
