/* The block objective (docs/method.md 3): the linears of one half of a block, or of an expert (tune_expert.h), trained together by
 * Gumbel-Softmax, so that the half's output comes close to a target.
 *
 *     inputs (student) --> half with soft weights --> output ~ targets (teacher)
 *                             ^ resampled once per step; gradients over a batch of shuffled windows
 *
 * Held-out windows judge the hard (rounded) weights after each epoch; the best epoch's, or the start's, are
 * kept. */
#ifndef QUANT_TUNE_BLOCK_H
#define QUANT_TUNE_BLOCK_H

#include "host/base/comm.h"
#include "host/model/block_bwd.h"
#include "host/model/acts.h"
#include "host/quant/method/gumbel.h"
#include "host/quant/plan.h"
#include "host/quant/record.h"
#include "host/quant/method/tune_hessian.h"

struct tune_block_task {
    struct model *m;
    const struct quantize_options *o;
    enum block_half half;          /* or HALF_EXPERTS: one expert, which adds to what it reads */
    struct block_items block;      /* without experts, or one's */
    struct block_weights *w;       /* dequantized from stored codes; what is trained is replaced by the result */
    struct acts *inputs, *targets; /* [samples] windows: of the half's input, and what its output should be */
    /* [hidden, output_hessian_cols]: the Hessian of what the half adds (output_hessian.h), by which the loss counts its errors; empty: all
     * count alike. */
    struct gpu_view metric;
    uint32_t samples, holdout; /* the last `holdout` windows only judge; 0: all train and judge */
    uint32_t micro;            /* windows on the device at a time: a chunk of a step */
    bool
        shared; /* ranks (comm.h), where there are several, make chunks of a step, and train some rows each; all come with this task */
    unsigned as_if_ranks; /* tune_block_count: for one of so many that share it */
    struct gpu_arena *arena;
    struct gpu_arena *kept; /* of host memory, for the best epoch's codes and scales; NULL: one of the call's own */
    const struct tune_hooks *hooks;
};

/* Windows per optimiser step, of `train`. */
uint32_t tune_block_batch(const struct quantize_options *o, uint32_t train);
/* Factor on the reach (how far logits and scales can move) for a type: 0.4 with super-blocks, else 1. */
float tune_block_share(const struct quant_type *t);
/* Schedule of a half that learns from `train` windows. */
struct gumbel_options tune_block_gumbel(const struct quantize_options *o, uint32_t train);
/* q[block.n]: start codes and scales, replaced by the result (never one that is judged worse). r: what happened;
 * r->steps is 0 where no linear of the half is trained and nothing is done. */
bool tune_block(const struct tune_block_task *t, struct qlinear *q, struct stage_report *r, struct err *e);
/* Allocates what tune_block allocates in an arena that counts, and frees it: for the plan. The task's inputs, targets
 * and hooks are not needed. */
bool tune_block_count(const struct tune_block_task *t, struct err *e);
/* Bytes of host memory that each of so many ranks takes for what it exchanges. */
uint64_t tune_block_room(const struct tune_block_task *t, unsigned ranks);
/* What ranks exchange for a shared task. went NULL: where the result is better than the start and nothing diverges; else as it went, by its
 * report. */
void tune_block_expect(struct comm_expected *x, const struct tune_block_task *t, const struct training_report *went);
/* Whether a shared task's steps have chunks to share at all; and of its windows, those that the busiest of so many ranks goes through in
 * an epoch: to train, and to judge. */
bool tune_block_parts(const struct tune_block_task *t);
double tune_block_busiest(const struct tune_block_task *t, unsigned ranks, double *judged);

#endif
