/* What a run's pieces compute and move on the device, counted on the run's own code with commands that count: for any
 * model's shapes, without its weights, memory or time. */
#ifndef QUANT_COUNTS_H
#define QUANT_COUNTS_H

#include "host/gpu/gpu_traffic.h"
#include "host/model/model.h"
#include "host/quant/options.h"

/* Of the first block unless it says model; a window is one of m->ctx tokens. */
enum count_piece {
    COUNT_HESSIAN_STEP, /* an optimiser step on the Hessian objective, of all linears */
    COUNT_ATTN_WINDOW,  /* block objective: gradients of a window, by half */
    COUNT_ATTN_STEP,    /* and the optimiser's step */
    COUNT_FFN_WINDOW,
    COUNT_FFN_STEP,
    COUNT_FORWARD,       /* a window through both halves */
    COUNT_INPUTS,        /* as far as the inputs of the last linears */
    COUNT_JUDGED,        /* a held-out window through both halves and its loss: exact products */
    COUNT_SUMS,          /* a window's share of the Hessians, beside the way there */
    COUNT_START,         /* RTN, GPTQ and losses of all linears */
    COUNT_SCALES_WINDOW, /* pass over scales: gradients of a window, of the whole model */
    COUNT_SCALES_JUDGED, /* a held-out window's loss: exact products */
    COUNT_SCALES_STEP,   /* weights from codes and scales, twice, and a step on the scales, of the whole model */
    COUNT_PIECES
};
extern const char *const count_piece_names[COUNT_PIECES];
/* Windows that go through half a block at a time: what does not depend on their number is shared by so many. */
#define COUNT_WINDOWS 4u

typedef void count_fn(void *ctx, enum count_piece piece, unsigned kind, const struct gpu_traffic *t);
/* Calls fn for each kind (gpu_traffic.h) that a piece has. o: settled, a plain type. On a CPU device the kernels are counted that
 * a GPU would run. */
bool count_pieces(struct model *m, const struct quantize_options *o, count_fn *fn, void *ctx, struct err *e);

#endif
