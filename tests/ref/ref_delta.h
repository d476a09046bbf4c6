/* The gated delta rule in plain C and double precision, step by step. */
#ifndef REF_DELTA_H
#define REF_DELTA_H

#include <stdbool.h>
#include <stdint.h>

/* Heads of q and k, `dim` wide, and of v, `values` wide, heads / keys of them for each of those. */
struct ref_delta {
    uint32_t heads, keys, dim, values;
    uint32_t ctx; /* rows of a window */
    bool
        grouped; /* projections lie by key head: [q | k | v of its heads | z of its heads], [b of its heads | a of its heads] */
};
/* Where channel c of [q | k | v], column c of z, and b and a of a head are in a row of such projections; without groups of
 * [q | k | v], of z, of b and of a. */
uint32_t ref_delta_channel(const struct ref_delta *d, uint32_t c);
uint32_t ref_delta_gate(const struct ref_delta *d, uint32_t c);
uint32_t ref_delta_beta(const struct ref_delta *d, uint32_t head);
uint32_t ref_delta_alpha(const struct ref_delta *d, uint32_t head);

double ref_silu(double x);
double ref_sigmoid(double x);
/* silu of a causal convolution over one window of ctx rows: x[ctx] with a stride, w[taps]; y of position pos. */
double ref_conv_silu(const double *x, uint32_t stride, const float *w, uint32_t taps, uint32_t pos);
/* x[n] /= sqrt(sum of squares + eps) */
void ref_l2norm(double *x, uint32_t n, double eps);
/* One head of one window: q, k [ctx, dim], v [ctx, values], b, a [ctx] with strides; out[ctx, values] with stride out_stride. state has
 * room for dim * values. */
void ref_delta_rule(const struct ref_delta *d, const double *q, const double *k, const double *v, uint32_t stride,
                    const double *b, const double *a, uint32_t stride_ab, double rate, double bias, double *state,
                    double *out, uint32_t out_stride);

#endif
