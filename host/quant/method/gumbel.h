/* Gumbel-Softmax over the levels of a linear's weights (docs/method.md 2): the optimiser's state and its fused
 * step. The loss, and so the gradients, are the caller's: tune_hessian.c, tune_block.c. */
#ifndef QUANT_GUMBEL_H
#define QUANT_GUMBEL_H

#include "host/quant/method/qmatrix.h"

/* Schedules and rates of docs/method.md belong to a run of this many steps, the paper's. */
#define GUMBEL_PAPER_STEPS 1280.0

/* Some rows of a linear in training. */
struct gumbel_state {
    const struct gumbel_options *o;
    struct qmatrix q;      /* start codes, read; scales, learned in place */
    uint32_t row0;         /* of these rows in the whole matrix: keys the noise */
    uint32_t seed, tensor; /* key the noise */
    float rate;            /* factor on both learning rates: 1, less after a divergence */
    float origin;          /* soft holds (soft weights - origin * w) */
    struct gpu_view w;     /* [rows, cols], read where origin is not 0 */
    struct gpu_view grad;  /* [rows, cols]: dLoss/d(soft weights), the caller's before each step */
    struct gpu_view soft;  /* [rows, cols]: of the step to come */
    struct gpu_view state; /* [rows, GUMBEL_WORDS(levels), cols]: logits and momenta (shaders/gumbel.glsl) */
    struct gpu_view smom;  /* [rows, planes, groups] */
};

/* Rows of q at a time whose state one buffer of the device holds: a multiple of 64 unless it is all of them. */
uint32_t gumbel_rows(const struct gpu *g, const struct qmatrix *q);
/* Rows [row0, row0 + rows) of q (qmatrix_rows), their state from the arena. The caller sets o, seed, tensor, w, grad, soft and origin. */
bool gumbel_create(struct gumbel_state *s, struct gpu_arena *arena, const struct qmatrix *q, uint32_t row0,
                   uint32_t rows, struct err *e);
/* Start logits from the start codes, and the soft weights of step 0. */
void gumbel_start(struct gpu_cmd *cmd, const struct gumbel_state *s);
/* One Lion step from grad; then the soft weights of step + 1. */
void gumbel_step(struct gpu_cmd *cmd, const struct gumbel_state *s, uint32_t step);
/* The likeliest level of each weight into codes [rows, ldc]; may be s->q.codes at the end of training. */
void gumbel_codes(struct gpu_cmd *cmd, const struct gumbel_state *s, struct gpu_view codes);

/* Learning rate factor at step t of n: cosine from 1 to lr_end (docs/method.md 2), times 1280/n and
 * the reach option. */
double gumbel_rate(const struct gumbel_options *o, uint32_t t);
/* Sum of the logits' learning rates over a run: how far a logit can move. */
double gumbel_reach(const struct gumbel_options *o);

#endif
