/* The Hessians of linears' outputs, of the 16-bit model (docs/method.md 3):
 *
 *     Ho = E[g g^T], g the gradient of a token's loss by what the linear gives, its label drawn from the model's own prediction
 *
 * Together with the Hessian H of its inputs it says what an error D of the weights costs the model's output: tr(Ho D H D^T), to
 * second order, where inputs and gradients are independent. Only its tiles on the diagonal are found (hessian.h), so its size grows
 * with the outputs, not with their square. It is stored as it is used: mixed with the unit matrix, mean of the diagonal 1.
 *
 * One pass over a few windows, before anything is quantized: forward through all blocks, then back (host/model/end_to_end.h). */
#ifndef QUANT_OUTPUT_HESSIAN_H
#define QUANT_OUTPUT_HESSIAN_H

#include "host/base/comm.h"
#include "host/model/acts.h"
#include "host/quant/method/epochs.h"
#include "host/quant/plan.h"

struct output_store {
    void *ctx;
    /* Whether that layer's are wanted: they are not there. */
    bool (*wants)(void *ctx, uint32_t layer);
    /* Takes them, on every rank: of item number place of the layer [rows, output_hessian_cols(rows)], NULL where it has none. */
    bool (*save)(void *ctx, uint32_t layer, const float *const *tiles, struct err *e);
};

struct output_task {
    struct model *m;
    const struct quantize_options *o;
    const struct matrix *items; /* [n_items], from layer to layer */
    size_t n_items;
    const struct windows *windows;
    uint32_t train;  /* windows that may be used: the text's first */
    uint32_t n;      /* are used, spread over them; where that is more, some several times, with other labels */
    uint32_t micro;  /* on the device at a time */
    bool head_stays; /* on the device (head.h) */
    struct gpu_arena *block, *hess, *scratch;
    struct acts_options room; /* for the blocks' inputs */
    struct output_store store;
    bool shared; /* among ranks (end_to_end.h), where there are several */
    const struct tune_hooks *hooks;
};
/* Windows to use where `train` may be: enough tokens to tell a tile's directions apart; of few windows each several times. */
uint32_t output_hessian_windows(uint32_t train, uint32_t ctx);
/* What is stored for a linear, in bytes; 0: it has none. */
uint64_t output_hessian_bytes(const struct quantize_options *o, const struct matrix *item);
/* Allocates what the pass allocates of one layer in hess and scratch, which count, and frees it: for the plan. */
bool output_hessians_count(const struct output_task *t, uint32_t layer, struct err *e);
/* Of all layers that the store wants, from last to first. */
bool output_hessians(const struct output_task *t, struct err *e);
/* For tests. Sums over tokens, times `factor`, become what is stored. False: they say nothing (zero, or no numbers). */
bool output_hessian_settle(float *tiles, uint32_t n, double factor);

/* What ranks exchange for a shared pass over all layers. */
void output_hessians_expect(struct comm_expected *x, const struct output_task *t);

#endif
