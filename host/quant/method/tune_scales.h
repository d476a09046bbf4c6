/* The last pass over scales: codes stay, and the scales of all quantized linears learn end to end. Where
 * super-blocks make scales of d and dmin, these learn, and their integers stay.
 *
 *     loss = mean over tokens of KL(16-bit model || quantized model)
 *
 * One step is a batch of shuffled windows through the whole model and back (host/model/end_to_end.h), then a step of Adam on
 * each block's scales (learned_scales.h) as its gradients are found.
 *
 * Adam's rate is relative to the size that a scale had at the start. Held-out windows judge the rounded
 * scales after each epoch; the best epoch's, or the start's, are kept. After each epoch all that the next one
 * needs goes to the store. */
#ifndef QUANT_TUNE_SCALES_H
#define QUANT_TUNE_SCALES_H

#include "host/base/comm.h"
#include "host/quant/method/scales_task.h"

/* Windows of a step that learns from `train` in all; steps of an epoch. */
uint32_t tune_scales_batch(const struct quantize_options *o, uint32_t train);
uint32_t tune_scales_steps(const struct quantize_options *o, uint32_t train);
/* Allocates what the pass allocates in `scratch`, which counts, and frees it: for the plan. Windows, targets and store
 * are not needed. */
bool tune_scales_count(const struct scales_task *t, struct err *e);

/* The whole pass, from where the store says it is, to the store. r: what happened. */
bool tune_scales(const struct scales_task *t, struct stage_report *r, struct err *e);
/* One batch at the start scales, nothing learned: its loss, and into grads[item] ([rows, groups] each, with
 * super-blocks [rows, planes, super-blocks] of d and -dmin; NULL where an item is kept) the loss's gradient.
 * For tests. */
bool tune_scales_gradient(const struct scales_task *t, const uint32_t *list, uint32_t n, double *loss,
                          float *const *grads, struct err *e);

/* What ranks exchange for a shared pass; went: as of tune_block_expect. */
void tune_scales_expect(struct comm_expected *x, const struct scales_task *t, const struct training_report *went);

#endif
