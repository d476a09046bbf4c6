/* The last pass over scales: codes stay, and the scales of all quantized linears learn end to end. Where
 * super-blocks make scales of d and dmin, these learn, and their integers stay.
 *
 *     loss = mean over tokens of KL(16-bit model || quantized model)
 *
 * Every position of a window counts, the last one too: no next token is needed. One step is a batch of
 * shuffled windows:
 *
 *     forward    block by block, each block's input kept; weights = codes from the store * the scales of the moment
 *     head       logits of both models in tiles of rows; loss, gradient of the hidden states
 *     backward   blocks from last to first: forward again, gradients of weights and of scales, a step of Adam on scales
 *
 * Adam's rate is relative to the size that a scale had at the start. Held-out windows judge the rounded
 * scales after each epoch; the best epoch's, or the start's, are kept. After each epoch all that the next one
 * needs goes to the store. */
#ifndef QUANT_TUNE_SCALES_H
#define QUANT_TUNE_SCALES_H

#include "host/model/acts.h"
#include "host/quant/run/store.h"
#include "host/quant/method/tune_hessian.h"

struct scales_task {
    struct model *m;
    const struct quantize_options *o;
    const struct plan *plan; /* items, samples, holdout, scale_micro */
    const struct windows *windows;
    struct acts *targets;              /* [samples] windows: the 16-bit model's hidden states behind its last block */
    struct store *store;               /* codes and scales of all blocks; takes the result */
    struct gpu_arena *block, *scratch; /* of one block; of the whole pass */
    bool codes_stay;                   /* of all blocks, on the device; else they come and go with their block */
    struct acts_options room;          /* for the blocks' inputs */
    const struct tune_hooks *hooks;
};

/* Windows of a step that learns from `train` in all; steps of an epoch. */
uint32_t tune_scales_batch(const struct quantize_options *o, uint32_t train);
uint32_t tune_scales_steps(const struct quantize_options *o, uint32_t train);
/* Windows of blocks' inputs that a step keeps. */
uint32_t tune_scales_windows(const struct model *m, const struct quantize_options *o, uint32_t train);
/* Takes from `scratch`, which counts, what the pass takes there, and gives it back: for whoever plans. Windows, targets
 * and store are not wanted. */
bool tune_scales_count(const struct scales_task *t, struct err *e);

/* The whole pass, from where the store says it is, to the store. r: what happened. */
bool tune_scales(const struct scales_task *t, struct stage_report *r, struct err *e);
/* One batch at the start scales, nothing learned: its loss, and into grads[item] ([rows, groups] each, with
 * super-blocks [rows, planes, super-blocks] of d and -dmin; NULL where an item is kept) the loss's gradient.
 * For tests. */
bool tune_scales_gradient(const struct scales_task *t, const uint32_t *list, uint32_t n, double *loss,
                          float *const *grads, struct err *e);

#endif
