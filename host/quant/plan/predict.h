/* How long this device takes for what a run consists of: small slices of its kernels are measured, about a
 * second in all on any device and for any model, and what the run would record of each kernel is counted
 * (gpu_cmd_count). Large shapes are never run. */
#ifndef QUANT_PREDICT_H
#define QUANT_PREDICT_H

#include "host/model/model.h"
#include "host/quant/plan/plan.h"

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
    double attn_fwd, ffn_fwd; /* per window, forward through half a block */
    double attn_bwd, ffn_bwd; /* per window, backward through it, gradients of what is trained */
    double gemm;              /* per multiply-add of a forward product */
    double hessian;           /* per multiply-add of x^T x */
    double load;              /* per weight, from the model's files to the device */
    struct speed_linear linears[24];
    unsigned n_linears;
    struct speed_rounding roundings[8];
    unsigned n_roundings;
    double seconds; /* that measuring took */
};
/* Of a quantization run. What is not part of it stays 0. */
bool speed_measure(struct speed *s, struct model *m, const struct plan *p, const struct quantize_options *o,
                   struct err *e);
/* Of forward passes alone: attn_fwd, ffn_fwd, gemm, load. `windows` at a time. */
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
/* NULL: there were more shapes than fit. */
const struct speed_linear *speed_linear(const struct speed *s, const struct matrix *item);

#endif
