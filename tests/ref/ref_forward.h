/* The kernels of the forward pass in plain C and double precision, from their definitions in
 * shaders/kernels.def. */
#ifndef REF_FORWARD_H
#define REF_FORWARD_H

#include <stdbool.h>
#include <stdint.h>

/* out[m,n] = alpha * a[m,k] b[n,k]^T + beta * c[m,n]; c has row stride ldc and is not read where beta is 0.
 * mag[m,n]: the same with absolute values, which rounding errors are proportional to. */
void ref_gemm(uint32_t m, uint32_t n, uint32_t k, const float *a, uint32_t lda, const float *b, uint32_t ldb,
              const float *c, uint32_t ldc, double alpha, double beta, double *out, double *mag);
/* y[cols] of one row. */
void ref_rmsnorm(const float *x, const float *w, uint32_t cols, double eps, double *y);
/* In place on x[rows, heads, dim]; turn 1 forward, -1 back. */
/* The same of the first `turned` dimensions of each head, by pairs side by side or half of that apart. */
void ref_rope_part(double *x, const float *table, uint32_t rows, uint32_t heads, uint32_t dim, uint32_t turned,
                   bool adjacent, uint32_t ctx, double turn);
/* mla_heads of shaders/kernels.def: q in place, k and v written. */
void ref_mla_heads(const float *kv, const float *pe, const float *table, uint32_t rows, uint32_t heads, uint32_t nope,
                   uint32_t turned, uint32_t values, uint32_t ctx, double *q, double *k, double *v);
/* mla_join of shaders/kernels.def. */
void ref_mla_join(const float *k, const float *v, uint32_t heads, uint32_t nope, uint32_t values, uint32_t rank,
                  double *kv);
void ref_rope(double *x, const float *table, uint32_t rows, uint32_t heads, uint32_t dim, uint32_t ctx, double turn);
struct ref_attn {
    uint32_t windows, ctx, heads, kv_heads, dim, sliding;
    double scale;
    double cap; /* of scores: cap * tanh(score / cap); 0: none */
};
double ref_softcap(double x, double cap);
/* One query: out[dim], its log sum exp, and mag, the largest |v| it could see. */
void ref_attn_row(const struct ref_attn *p, const float *q, const float *k, const float *v, uint32_t window,
                  uint32_t pos, uint32_t head, double *out, double *lse, double *mag);
double ref_swiglu(double gate, double up);
/* 0.5 gate (1 + tanh(sqrt(2 / pi) (gate + 0.044715 gate^3))) up */
double ref_geglu(double gate, double up);
/* g / (1 + exp(-1.702 g)) * (u + 1): gate at most 7, up within -7 and 7 */
double ref_clamped(double gate, double up);
double ref_logsumexp(const float *x, uint32_t n);
double ref_nll(const float *logits, uint32_t n, uint32_t target);
double ref_kl(const float *ref, const float *logits, uint32_t n);
/* The first of the largest. */
uint32_t ref_argmax(const float *x, uint32_t n);

#endif
