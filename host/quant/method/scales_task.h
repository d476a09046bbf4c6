/* The last pass over scales: its input, and what it needs of the store of codes and scales
 * (host/quant/store/store.h). */
#ifndef QUANT_SCALES_TASK_H
#define QUANT_SCALES_TASK_H

#include "formats/read/matrix.h"
#include "host/model/acts.h"
#include "host/quant/method/epochs.h"
#include "host/quant/options.h"

/* What is kept of a linear's scales, each [rows, scales of a row (quant_row_scales)]: the best so far and, until the pass is
 * done, those that learn and Adam's moments. */
enum scales_part { SCALES_BEST, SCALES_NOW, SCALES_M, SCALES_V, SCALES_PARTS };
struct scales_state {
    bool done;
    uint32_t epochs; /* finished, at this rate */
    float rate;      /* share of the rate asked for: 1, halved by each new start after a divergence */
    struct stage_report report;
    float *losses; /* [n_losses]: the training loss of each step; the caller's */
    uint32_t n_losses;
};
/* A part of item number `item`, good until the next call; NULL: failed. */
typedef const float *scales_pull(void *ctx, size_t item, enum scales_part part, struct err *e);

struct scales_store {
    void *ctx;
    /* Codes and scales of a linear: as its block left them or, last, with the scales of a pass that is done. The caller
     * frees them. */
    bool (*linear)(void *ctx, const struct matrix *item, bool last, struct qlinear *q, struct err *e);
    /* Where an earlier run stopped; state->losses: room for n_losses numbers. False: nothing that goes with the codes. */
    bool (*state)(void *ctx, struct scales_state *state);
    bool (*part)(void *ctx, const struct matrix *item, enum scales_part part, float *out, struct err *e);
    /* Replaces what was there. */
    bool (*save)(void *ctx, const struct scales_state *state, scales_pull *pull, void *pull_ctx, struct err *e);
};

struct scales_task {
    struct model *m;
    const struct quantize_options *o;
    const struct matrix *items; /* [n_items], from layer to layer */
    size_t n_items;
    uint32_t samples, holdout; /* windows; those that only judge */
    uint32_t micro;            /* windows on the device at a time */
    const struct windows *windows;
    struct acts *targets;              /* [samples] windows: the 16-bit model's hidden states after its last block */
    struct scales_store store;         /* codes and scales of all blocks; takes the result */
    struct gpu_arena *block, *scratch; /* of one block; of the whole pass */
    bool codes_stay;                   /* of all blocks, on the device; else they come and go with their block */
    bool head_stays;                   /* on the device (head.h) */
    bool shared;                       /* among ranks (end_to_end.h), where there are several */
    struct acts_options room;          /* for the blocks' inputs */
    const struct tune_hooks *hooks;
};

#endif
