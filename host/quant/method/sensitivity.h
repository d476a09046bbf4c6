/* What each matrix's error costs the model's output, for every type that it may take (docs/method.md 9).
 *
 * With D what a type changes in a matrix, H = E[x x^T] of what it reads and Ho = E[g g^T] of the gradients of what it gives, labels
 * drawn from the model itself (output_hessian.h), the divergence of the model's predictions is, to second order and where x and g are
 * independent,
 *
 *     KL = 1/2 tr(Ho D H D^T)      nats per token
 *
 * of a linear; D comes from GPTQ. Of the head, whose outputs' Hessian is diag(p) - p p^T, and of an embedding, whose inputs are the
 * tokens, the same with one of the two a diagonal:
 *
 *     head        KL = 1/2 sum_v E[p_v (1 - p_v)] D_v H D_v^T        D_v: a token's row; H of what the head reads
 *     embedding   KL = 1/2 sum_v f_v D_v G D_v^T                     f_v: how often a token comes; G of gradients there
 *
 * and D from rounding to nearest, as these are stored. All of it comes from one pass over a few windows: forward through all blocks, then
 * back (host/model/end_to_end.h), where each block's matrices are tried as its two kinds of Hessians are whole. */
#ifndef QUANT_SENSITIVITY_H
#define QUANT_SENSITIVITY_H

#include "host/model/acts.h"
#include "host/quant/method/epochs.h"
#include "host/quant/options.h"

struct sensitivity_task {
    struct model *m;
    const struct quantize_options *o;
    const struct matrix
        *matrices; /* [n]: the embedding, all linears from layer to layer, the head where it is stored */
    size_t n;
    const struct quant_spec *specs; /* [n_specs]: what is tried, as `group` and scales say */
    uint32_t n_specs;
    const bool *tries; /* [n, n_specs]: which of them, of which matrix */
    const struct windows *windows;
    uint32_t train;  /* windows that may be used: the text's first */
    uint32_t n_used; /* of these are used, spread over them */
    uint32_t micro;  /* on the device at a time */
    bool head_stays; /* on the device (head.h) */
    struct gpu_arena *block, *hess, *scratch;
    struct acts_options room; /* for the blocks' inputs */
    const struct tune_hooks *hooks;
};
/* Steps that the hook is told of. */
uint32_t sensitivity_steps(const struct sensitivity_task *t);
/* Does all that takes memory in the pass but the blocks' inputs, and frees it: arenas and commands count, and layers that are alike are
 * gone through once. */
bool sensitivity_count(const struct sensitivity_task *t, struct err *e);
/* costs[n, n_specs]: nats per token; of what is not tried it stays as it is. */
bool sensitivity_measure(const struct sensitivity_task *t, double *costs, struct err *e);

#endif
