#include "tests/ref/ref_forward.h"

#include <math.h>
#include <stddef.h>

void ref_gemm(uint32_t m, uint32_t n, uint32_t k, const float *a, uint32_t lda, const float *b, uint32_t ldb,
              const float *c, uint32_t ldc, double alpha, double beta, double *out, double *mag)
{
    for (uint32_t i = 0; i < m; i++)
        for (uint32_t j = 0; j < n; j++) {
            double sum = 0, abs = 0;
            for (uint32_t l = 0; l < k; l++) {
                double p = (double)a[(size_t)i * lda + l] * b[(size_t)j * ldb + l];
                sum += p;
                abs += fabs(p);
            }
            double old = beta == 0 ? 0 : beta * c[(size_t)i * ldc + j];
            out[(size_t)i * n + j] = alpha * sum + old;
            mag[(size_t)i * n + j] = fabs(alpha) * abs + fabs(old);
        }
}

void ref_rmsnorm(const float *x, const float *w, uint32_t cols, double eps, double *y)
{
    double sum = 0;
    for (uint32_t c = 0; c < cols; c++)
        sum += (double)x[c] * x[c];
    double r = 1 / sqrt(sum / cols + eps);
    for (uint32_t c = 0; c < cols; c++)
        y[c] = x[c] * r * w[c];
}

void ref_rope_part(double *x, const float *table, uint32_t rows, uint32_t heads, uint32_t dim, uint32_t turned,
                   bool adjacent, uint32_t ctx, double turn)
{
    for (uint32_t r = 0; r < rows * heads; r++)
        for (uint32_t i = 0; i < turned / 2; i++) {
            double *a = x + (size_t)r * dim + (adjacent ? 2 * i : i), *b = adjacent ? a + 1 : a + turned / 2;
            const float *t = table + ((size_t)(r / heads % ctx) * (turned / 2) + i) * 2;
            double lo = *a, hi = *b;
            *a = lo * t[0] - hi * turn * t[1];
            *b = hi * t[0] + lo * turn * t[1];
        }
}

void ref_mla_heads(const float *kv, const float *pe, const float *table, uint32_t rows, uint32_t heads, uint32_t nope,
                   uint32_t turned, uint32_t values, uint32_t ctx, double *q, double *k, double *v)
{
    const uint32_t dim = nope + turned;
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t h = 0; h < heads; h++) {
            const float *of = kv + ((size_t)r * heads + h) * (nope + values), *shared = pe + (size_t)r * turned;
            const float *angles = table + (size_t)(r % ctx) * turned;
            double *qh = q + ((size_t)r * heads + h) * dim, *kh = k + (qh - q), *vh = v + (qh - q);
            for (uint32_t i = 0; i < dim; i++) {
                kh[i] = i < nope ? of[i] : shared[i - nope];
                vh[i] = i < values ? of[nope + i] : 0;
            }
            ref_rope_part(qh + nope, angles, 1, 1, turned, turned, true, 1, 1);
            ref_rope_part(kh + nope, angles, 1, 1, turned, turned, true, 1, 1);
        }
}

void ref_mla_join(const float *k, const float *v, uint32_t heads, uint32_t nope, uint32_t values, uint32_t rank,
                  double *kv)
{
    for (uint32_t h = 0; h < heads; h++) {
        double *of = kv + (size_t)h * (nope + values) * rank;
        for (uint32_t r = 0; r < rank; r++)
            for (uint32_t i = 0; i < nope; i++)
                of[(size_t)i * rank + r] = k[((size_t)h * rank + r) * nope + i];
        for (size_t i = 0; i < (size_t)values * rank; i++)
            of[(size_t)nope * rank + i] = v[(size_t)h * values * rank + i];
    }
}

void ref_rope(double *x, const float *table, uint32_t rows, uint32_t heads, uint32_t dim, uint32_t ctx, double turn)
{
    uint32_t half = dim / 2;
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t h = 0; h < heads; h++)
            for (uint32_t i = 0; i < half; i++) {
                double *p = x + ((size_t)r * heads + h) * dim + i;
                const float *t = table + ((size_t)(r % ctx) * half + i) * 2;
                double lo = p[0], hi = p[half], si = turn * t[1];
                p[0] = lo * t[0] - hi * si;
                p[half] = hi * t[0] + lo * si;
            }
}

double ref_softcap(double x, double cap)
{
    return cap > 0 ? cap * tanh(x / cap) : x;
}

void ref_attn_row(const struct ref_attn *p, const float *q, const float *k, const float *v, uint32_t window,
                  uint32_t pos, uint32_t head, double *out, double *lse, double *mag)
{
    uint32_t kv = head / (p->heads / p->kv_heads);
    uint32_t first = p->sliding && pos + 1 > p->sliding ? pos + 1 - p->sliding : 0;
    const float *qr = q + (((size_t)window * p->ctx + pos) * p->heads + head) * p->dim;
    double top = -INFINITY, sum = 0;
    *mag = 0;
    for (uint32_t d = 0; d < p->dim; d++)
        out[d] = 0;
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t j = first; j <= pos; j++) {
            size_t at = (((size_t)window * p->ctx + j) * p->kv_heads + kv) * p->dim;
            double s = 0;
            for (uint32_t d = 0; d < p->dim; d++)
                s += (double)qr[d] * k[at + d];
            s = ref_softcap(s * p->scale, p->cap);
            if (pass == 0) {
                top = fmax(top, s);
                continue;
            }
            double w = exp(s - top);
            sum += w;
            for (uint32_t d = 0; d < p->dim; d++) {
                out[d] += w * v[at + d];
                *mag = fmax(*mag, fabs((double)v[at + d]));
            }
        }
    for (uint32_t d = 0; d < p->dim; d++)
        out[d] /= sum;
    *lse = top + log(sum);
}

double ref_swiglu(double gate, double up)
{
    return gate / (1 + exp(-gate)) * up;
}

double ref_geglu(double gate, double up)
{
    double t = sqrt(2 / 3.14159265358979323846) * (gate + 0.044715 * gate * gate * gate);
    return 0.5 * gate * (1 + tanh(t)) * up;
}

double ref_clamped(double gate, double up)
{
    double g = fmin(gate, 7), u = fmin(fmax(up, -7), 7);
    return g / (1 + exp(-1.702 * g)) * (u + 1);
}

double ref_logsumexp(const float *x, uint32_t n)
{
    double top = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        top = fmax(top, x[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp(x[i] - top);
    return top + log(sum);
}

double ref_nll(const float *logits, uint32_t n, uint32_t target)
{
    return ref_logsumexp(logits, n) - logits[target];
}

double ref_kl(const float *ref, const float *logits, uint32_t n)
{
    double p = ref_logsumexp(ref, n), q = ref_logsumexp(logits, n), sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += exp(ref[i] - p) * ((ref[i] - p) - (logits[i] - q));
    return sum;
}

uint32_t ref_argmax(const float *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}
