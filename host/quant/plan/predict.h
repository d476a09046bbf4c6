/* How long this device takes for what a run consists of: small slices of its kernels are measured, about a
 * second in all on any device and for any model, and what the run would record of each kernel is counted
 * (gpu_cmd_count). Large shapes are never run. */
#ifndef QUANT_PREDICT_H
#define QUANT_PREDICT_H

#include "host/model/model.h"
#include "host/quant/plan/plan.h"

/* Layers of one shape; seconds per window through half a block. */
struct speed_block {
    uint32_t layer; /* the first of them */
    double forward[HALF_COUNT];
    double backward[HALF_COUNT]; /* gradients of what is trained; 0: not part of the run */
};
/* Linears of one shape and spec; seconds. 0: not part of the run. */
struct speed_linear {
    uint32_t rows, cols;
    struct quant_spec spec;
    double rtn;   /* to round it to nearest */
    double gptq;  /* the same, GPTQ, and its losses */
    double step;  /* one optimiser step on its Hessian */
    double joint; /* one optimiser step without the product that makes the gradient */
};
/* A type that a GGUF's tensors are rounded to as they are written. */
struct speed_rounding {
    const struct gguf_type *type;
    double seconds; /* per weight, with all threads */
};
/* Seconds. */
struct speed {
    bool measured;
    struct speed_block blocks[8];
    unsigned n_blocks;
    double gemm;    /* per multiply-add of a forward product */
    double hessian; /* per multiply-add of x^T x */
    double load;    /* per weight, from the model's files to the device */
    struct speed_linear linears[24];
    unsigned n_linears;
    struct speed_rounding roundings[8];
    unsigned n_roundings;
    double seconds; /* that measuring took */
};
/* Of a quantization run. What is not part of it stays 0. */
bool speed_measure(struct speed *s, struct model *m, const struct plan *p, const struct quantize_options *o,
                   struct err *e);
/* Of forward passes alone: blocks, gemm, load. `windows` at a time. */
bool speed_measure_forward(struct speed *s, struct model *m, uint32_t windows, struct err *e);
/* Takes from an arena that counts what that measures with at most, and gives it back; commands count, too. */
bool speed_count_forward(struct model *m, uint32_t windows, struct gpu_arena *counting, struct err *e);
/* Where nothing was measured: seconds of a multiply-add on such a device. */
double speed_guess(const struct gpu *g);
/* For eta_start: how far the measured speeds of kinds hold apart from each other; slices are slow or fast together,
 * mostly. Of what was guessed only ratios count. */
double speed_trust(const struct speed *s);
/* 0: there were more types than fit. */
double speed_rounding(const struct speed *s, const struct gguf_type *type);
/* NULL: not measured, or there were more shapes than fit. */
const struct speed_block *speed_block(const struct speed *s, const struct model *m, uint32_t layer);
const struct speed_linear *speed_linear(const struct speed *s, const struct matrix *item);

#endif
