/* What happened in a run, as plain data: for the printed table, --json, the store and --report. */
#ifndef QUANT_RECORD_H
#define QUANT_RECORD_H

#include "arch/block.h"
#include "formats/quant_type.h"

enum {
    CODE_BINS = 16,    /* codes of at most 4 bits are counted one by one */
    SCALE_BINS = 48,   /* of half an octave each */
    SCALE_LOW = -20,   /* log2 of the first scale bin's lower end */
    CURVE_POINTS = 64, /* of a training curve; longer ones are averaged down to it */
    CURVE_EPOCHS = 64, /* hard losses kept: the start's, and one per epoch */
};

/* How often a linear's codes and scale sizes occur. */
struct code_stats {
    int lo;        /* code of the first bin; of a table its number, 0 */
    uint32_t bins; /* as many as there are codes, or 0 where those are more than CODE_BINS */
    uint64_t codes[CODE_BINS];
    uint64_t scales[SCALE_BINS]; /* by log2 |s|, the ends take what lies beyond */
    uint64_t negative, zero;     /* of the scales */
};
struct code_stats code_stats_of(const struct qlinear *q, const struct quant_type *type);

/* What training together did: of half a block, an expert, all scales. Losses are of rounded weights on what is held out. */
struct training_report {
    double loss_start, loss_final;
    uint32_t steps, epochs,
        best_epoch;   /* steps 0: it was not done; best_epoch 0: nothing was better than the start, which was kept */
    uint32_t retries; /* after a divergence, each at half the rate of the one before */
    uint32_t ran;     /* epochs, those of attempts that diverged included; of this process alone, it is not stored */
    double seconds;
};

/* Of an expert, where text was read. */
struct expert_report {
    bool counted;                   /* else the rest is 0 */
    bool starved;                   /* fewer tokens than a quarter of what it reads: its Hessians lean on the layer's */
    uint32_t tokens;                /* that chose it */
    struct training_report trained; /* of its last matrix, for all: together, on its own output (tune_expert.h) */
};

/* What became of one linear. Losses are tr(D H D^T) / tr(W H W^T) on the calibration Hessian: relative
 * squared error of its output. */
struct linear_report {
    char module[96];
    /* loss_rtn: of the file's own codes where one is refined. */
    double loss_rtn, loss_gptq, loss_final; /* NAN where that was not measured */
    uint32_t rows_rolled_back;              /* rows where the start was better (guard) */
    bool damp_raised, diagonal_only;        /* what the Cholesky needed */
    double seconds;
    struct code_stats stats;
    struct expert_report expert; /* whose it is */
};

/* What was trained together: half a block, an expert, or all scales. */
enum tune_stage {
    STAGE_ATTN = HALF_ATTN,
    STAGE_FFN = HALF_FFN,
    STAGE_SCALES = HALF_COUNT,
    STAGE_EXPERTS, /* of a layer, one after the other: means over those that were trained */
    STAGE_COUNT
};
const char *stage_name(enum tune_stage s); /* "attention", "feed-forward", "scales end to end", "experts" */

/* One training stage of the block objective, or the last pass over scales. Losses are of hard (rounded)
 * weights on held-out windows. Of a block's half: squared error of its output over the squared size of what
 * the half adds to its input, tokens with huge activations limited in both (tune_block.c). Of the scales: KL
 * divergence to the 16-bit model, nats per token. */
struct stage_report {
    enum tune_stage stage;
    uint32_t layer; /* 0 for STAGE_SCALES */
    struct training_report trained;
    uint32_t n_soft, n_hard;
    float soft[CURVE_POINTS]; /* training loss with soft weights, in order of steps */
    float hard[CURVE_EPOCHS]; /* loss_start, then after each epoch */
};

/* Parts of a run that take time. */
enum run_phase { PHASE_CALIBRATE, PHASE_LINEARS, PHASE_BLOCKS, PHASE_SCALES, PHASE_EXPORT, PHASE_COUNT };
const char *phase_name(enum run_phase p);
struct phase_report {
    double seconds, device_busy; /* of these the device was at work */
    uint64_t device_bytes; /* most device memory held at its ends, or within it where the run never held more before */
};

#endif
