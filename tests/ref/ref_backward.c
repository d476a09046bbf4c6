#include "tests/ref/ref_backward.h"

#include <math.h>

void ref_rmsnorm_bwd(const float *x, const float *w, const float *dy, uint32_t cols, double eps, double *dx,
                     double *mag)
{
    double square = 0, product = 0, product_mag = 0;
    for (uint32_t c = 0; c < cols; c++) {
        double p = (double)w[c] * dy[c] * x[c];
        square += (double)x[c] * x[c];
        product += p;
        product_mag += fabs(p);
    }
    double r = 1 / sqrt(square / cols + eps);
    for (uint32_t c = 0; c < cols; c++) {
        double along = x[c] * r * r * r / cols;
        dx[c] = r * w[c] * dy[c] - along * product;
        mag[c] = fabs(r * w[c] * dy[c]) + fabs(along) * product_mag;
    }
}

struct ref_swiglu_bwd ref_swiglu_bwd(double gate, double up, double dact)
{
    double sigma = 1 / (1 + exp(-gate));
    return (struct ref_swiglu_bwd){
        .dgate = dact * up * sigma * (1 + gate * (1 - sigma)),
        .dup = dact * gate * sigma,
        .gate_mag = fabs(dact * up) * sigma * (1 + fabs(gate)),
        .up_mag = fabs(dact * gate) * sigma,
    };
}

void ref_kl_bwd(const float *ref, const float *logits, uint32_t cols, double factor, double *dlogits,
                double *mag)
{
    double p = ref_logsumexp(ref, cols), q = ref_logsumexp(logits, cols);
    for (uint32_t c = 0; c < cols; c++) {
        dlogits[c] = factor * (exp(logits[c] - q) - exp(ref[c] - p));
        mag[c] = fabs(factor) * (exp(logits[c] - q) + exp(ref[c] - p));
    }
}

void ref_adam_step(struct ref_adam *s, double grad, double size, const struct ref_adam_rates *r)
{
    s->m = r->beta1 * s->m + (1 - r->beta1) * grad;
    s->v = r->beta2 * s->v + (1 - r->beta2) * grad * grad;
    double towards = s->m * r->correct1 / (sqrt(s->v * r->correct2) + r->eps);
    s->param -= r->lr * (size * towards + r->decay * s->param);
}
