/* How long this device takes for what a run consists of: blocks (speed.h), and in the same way what becomes of one linear;
 * a second or two in all on any device and for any model. */
#ifndef QUANT_PREDICT_H
#define QUANT_PREDICT_H

#include "host/model/speed.h"
#include "host/quant/plan.h"

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
struct run_speed {
    struct speed model;
    double hessian; /* seconds per multiply-add of x^T x */
    struct speed_linear linears[24];
    unsigned n_linears;
    struct speed_rounding roundings[8];
    unsigned n_roundings;
};
/* Of a quantization run. What is not part of it stays 0. */
bool speed_measure(struct run_speed *s, struct model *m, const struct plan *p, const struct quantize_options *o,
                   struct err *e);
/* 0: there were more types than fit. */
double speed_rounding(const struct run_speed *s, const struct gguf_type *type);
/* NULL: not measured, or there were more shapes than fit. */
const struct speed_linear *speed_linear(const struct run_speed *s, const struct matrix *item);

#endif
