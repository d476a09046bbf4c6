/* One linear through the method: RTN, GPTQ, Gumbel-Softmax, and the guard. */
#ifndef QUANT_QUANT_LINEAR_H
#define QUANT_QUANT_LINEAR_H

#include "host/quant/plan.h"
#include "host/quant/record.h"
#include "host/quant/method/drift.h"
#include "host/quant/method/tune_hessian.h"

struct linear_task {
    struct gpu_cmd *cmd;
    const struct quantize_options *options;
    const struct matrix *item;
    struct gpu_view w;             /* [rows, cols]; on return what the stored codes and scales give */
    const struct hessian *hessian; /* of its inputs, of pieces as many; NULL for RTN */
    struct gpu_view
        outputs; /* tiles of its outputs' Hessian (hessian.h); empty: all outputs count alike, each for itself */
    const struct drift *drift;   /* what is lost before it; NULL: that is left alone */
    const struct qlinear *start; /* codes to begin with, whose scales stay; NULL: RTN, then GPTQ */
    struct gpu_arena *scratch;
    uint64_t tune_bytes; /* of the optimiser's state at a time */
    const struct tune_hooks *hooks;
    bool shared; /* each rank makes some rows (comm.h), and all have all of them afterwards: all come with this task */
};
/* With a drift the weights that codes and losses go by are those that make a share of it good (quantize_correction).
 *
 * Codes and scales into out (the caller frees them), what happened into report (its module and seconds too).
 *
 * With a start GPTQ keeps its scales, and counts only where it is better: row by row on the calibration
 * Hessian, as a whole on the held-out windows.
 *
 * Guard: a row keeps its start (GPTQ) where Gumbel-Softmax did not lower its loss on the calibration Hessian,
 * and the whole linear keeps its start where the loss on the held-out windows rose. With a Hessian of outputs, rows of a tile have
 * one loss, and keep their start together; from there codes go on one by one (code_descent.h). */
bool quantize_linear(const struct linear_task *t, struct qlinear *out, struct linear_report *report, struct err *e);

/* What ranks exchange for a shared one. */
struct linear_exchange {
    const struct quantize_options *options;
    const struct matrix *item;
    bool hessian, held, outputs,
        start; /* it has a Hessian, one of windows that judge, one of its outputs; codes to begin with */
};
void quantize_linear_expect(struct comm_expected *x, const struct linear_exchange *of);
/* Rows that one rank has together. */
uint32_t quantize_linear_unit(bool outputs);

#endif
