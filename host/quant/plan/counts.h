/* What a run's pieces compute and move on the device, counted on the run's own code with commands that count: for any
 * model's shapes, without its weights, memory or time. */
#ifndef QUANT_COUNTS_H
#define QUANT_COUNTS_H

#include "host/gpu/gpu_traffic.h"
#include "host/model/model.h"
#include "host/quant/options.h"

/* Of a layer unless it says model; a window is one of m->ctx tokens. */
enum count_piece {
    COUNT_HESSIAN_STEP, /* an optimiser step on the Hessian objective, of all linears but those of experts */
    COUNT_ATTN_WINDOW,  /* block objective: gradients of a window, by half; where something goes back through it */
    COUNT_ATTN_STEP,    /* and the optimiser's step */
    COUNT_FFN_WINDOW,
    COUNT_FFN_STEP,
    COUNT_FORWARD, /* a window through both halves, what all tokens go through */
    COUNT_INPUTS,  /* as far as the inputs of the last linears */
    COUNT_JUDGED,  /* a held-out window through both halves and its loss: exact products */
    COUNT_SUMS,    /* a window's share of the Hessians, beside the way there */
    COUNT_START,   /* RTN, GPTQ and losses of all linears */
    COUNT_DRIFT, /* what a window has lost before the linears, where that is made good: the sums go by windows through both halves then */
    COUNT_GOOD,  /* and weights that make it good, of all linears */
    /* Of a layer's experts, of which a window's tokens choose some; or of one. */
    COUNT_EXPERTS_FORWARD,     /* a window routed, through those that its tokens choose, and added up */
    COUNT_EXPERTS_SUMS,        /* a window's share of their Hessians, and the way there */
    COUNT_EXPERT_START,        /* of one: its pooled Hessians, RTN, GPTQ and losses of its linears */
    COUNT_EXPERTS_DRIFT,       /* what a window has lost before them, where that is made good */
    COUNT_EXPERT_GOOD,         /* and weights of one that make it good */
    COUNT_EXPERT_HESSIAN_STEP, /* and a step on its Hessians */
    COUNT_EXPERT_WINDOW,       /* block objective of one: gradients of EXPERT_WINDOW of its tokens */
    COUNT_EXPERT_JUDGED,       /* as many that judge */
    COUNT_EXPERT_STEP,
    COUNT_SCALES_WINDOW, /* pass over scales: gradients of a window, of the whole model; where there is one */
    COUNT_SCALES_JUDGED, /* a held-out window's loss: exact products */
    COUNT_SCALES_STEP,   /* weights from codes and scales, twice, and a step on the scales, of the whole model */
    COUNT_PIECES
};
extern const char *const count_piece_names[COUNT_PIECES];
/* Windows that go through half a block at a time, and so many tokens through an expert: what does not depend on their number is shared
 * by so many. */
#define COUNT_WINDOWS 4u

/* Layers of one make: of the same parts and window. */
struct count_kind {
    uint32_t first, layers;
    double weights, expert_weights; /* of a layer's linears without experts; of all its experts */
    char name[96];                  /* "gated delta rule, 128 experts of which 8 are used" */
};
/* What one kernel, copy or fill has in a piece. */
struct count_row {
    enum count_piece piece;
    const struct count_kind *of; /* NULL: the model */
    unsigned record;             /* gpu_traffic.h */
    struct gpu_traffic traffic;
    double stepped; /* weights that a step of the piece is of; 0: it has none */
};
typedef void count_fn(void *ctx, const struct count_row *row);
/* Calls fn for all that each piece of each kind of layer has, then for those of the model. o: settled, a plain type. On a CPU
 * device the kernels are counted that a GPU would run. */
bool count_pieces(struct model *m, const struct quantize_options *o, count_fn *fn, void *ctx, struct err *e);

#endif
