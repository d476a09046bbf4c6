/* GPTQ in double precision, from its definition: the references of host/quant/method/gptq.c and hessian_loss. */
#ifndef REF_GPTQ_H
#define REF_GPTQ_H

#include <stdbool.h>
#include <stdint.h>

/* h[n, n] = (2/tokens) sum x x^T over x[tokens, n]. */
void ref_hessian(const float *x, uint32_t tokens, uint32_t n, double *h);
/* U upper with H^-1 = U^T U, by inverting H (Gauss-Jordan) and factoring the inverse; false if not positive.
 */
bool ref_inverse_factor(const double *h, uint32_t n, double *u);
/* Scale of one group by docs/method.md 1, rounded to f16 at the end; errors count by cost[n]. */
double ref_scale_search(const double *w, const double *cost, uint32_t n, int lo, int hi, uint32_t candidates,
                        double power);
/* GPTQ of w[rows, cols]: codes [rows, cols], scales [rows, groups]. damp: share of the mean diagonal. */
bool ref_gptq(const float *w, uint32_t rows, uint32_t cols, const double *h, uint32_t group, int lo, int hi,
              double damp, int8_t *codes, float *scales);
/* (D H D^T)_row,row of D = codes * scales - w. */
double ref_row_loss(const float *w, const int8_t *codes, const float *scales, uint32_t cols, uint32_t group,
                    const double *h);

#endif
