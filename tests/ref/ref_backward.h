/* The kernels of the backward pass in plain C and double precision, from their definitions in
 * shaders/kernels.def. */
#ifndef REF_BACKWARD_H
#define REF_BACKWARD_H

#include <stdbool.h>

#include "tests/ref/ref_forward.h"

/* ---- rows and elements. mag: the same with absolute values, which rounding errors are proportional to ---- */

/* dx[cols] of one row. */
void ref_rmsnorm_bwd(const float *x, const float *w, const float *dy, uint32_t cols, double eps, double *dx,
                     double *mag);
struct ref_swiglu_bwd {
    double dgate, dup, gate_mag, up_mag;
};
struct ref_swiglu_bwd ref_swiglu_bwd(double gate, double up, double dact);
struct ref_swiglu_bwd ref_geglu_bwd(double gate, double up, double dact);
struct ref_swiglu_bwd ref_clamped_bwd(double gate, double up, double dact);
/* dlogits[cols] of one row. */
void ref_kl_bwd(const float *ref, const float *logits, uint32_t cols, double factor, double *dlogits, double *mag);
/* The label that a row's noise draws at a step from softmax(logits), by its definition; *lead: how far its noisy logit lies before the next. */
uint32_t ref_sampled_label(const float *logits, uint32_t cols, uint32_t row, uint32_t step, uint32_t seed,
                           double *lead);
/* dlogits[cols] of one row: of the NLL of a label. */
void ref_nll_bwd(const float *logits, uint32_t label, uint32_t cols, double factor, double *dlogits, double *mag);
struct ref_adam {
    double param, m, v;
};
struct ref_adam_rates {
    double lr, beta1, beta2, correct1, correct2, eps, decay;
};
void ref_adam_step(struct ref_adam *state, double grad, double size, const struct ref_adam_rates *r);

/* ---- ref_attn_bwd: attention ---- */

/* T = windows * ctx. mag_*: sums of the absolute values of the terms, each weighted with how much the
 * rounding of its score is amplified; rounding errors are proportional to them. */
struct ref_attn_bwd {
    double *lse, *delta; /* [T, heads] */
    double *dq, *mag_q;  /* [T, heads, dim] */
    double *dk, *mag_k;  /* [T, kv_heads, dim] */
    double *dv, *mag_v;  /* [T, kv_heads, dim] */
};
/* All of it is one allocation, behind lse. False: no memory. */
bool ref_attn_bwd(const struct ref_attn *p, const float *q, const float *k, const float *v, const float *dout,
                  struct ref_attn_bwd *g);
void ref_attn_bwd_free(struct ref_attn_bwd *g);

#endif
