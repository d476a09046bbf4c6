/* How fast this device does what a run consists of: a measurement of a few seconds, before hours of work. */
#ifndef QUANT_PREDICT_H
#define QUANT_PREDICT_H

#include "host/model/model.h"
#include "host/quant/plan.h"

/* Seconds. All zero: not measured. */
struct speed {
    double attn_fwd, ffn_fwd; /* per window, forward through half a block */
    double attn_bwd, ffn_bwd; /* per window, backward through it, gradients of what is trained */
    double gumbel;            /* per weight, one optimiser step */
    double gemm;              /* per multiply-add of a matrix product of the Hessian's shape */
};
/* Runs each piece on the model's own shapes (its first block's weights), twice; the second time counts. Takes
 * its memory from arenas made for it, within the plan's. */
bool speed_measure(struct speed *s, struct model *m, const struct plan *p, const struct quantize_options *o,
                   struct err *e);

#endif
