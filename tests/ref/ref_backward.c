#include "tests/ref/ref_backward.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include "tests/ref/ref_quant.h"

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

struct ref_swiglu_bwd ref_geglu_bwd(double gate, double up, double dact)
{
    double root = sqrt(2 / 3.14159265358979323846), t = root * (gate + 0.044715 * gate * gate * gate);
    double h = 0.5 * (1 + tanh(t)), slope = 0.5 / (cosh(t) * cosh(t)) * root * (1 + 3 * 0.044715 * gate * gate);
    return (struct ref_swiglu_bwd){
        .dgate = dact * up * (h + gate * slope),
        .dup = dact * gate * h,
        .gate_mag = fabs(dact * up) * (h + fabs(gate * slope)),
        .up_mag = fabs(dact * gate) * h,
    };
}

struct ref_swiglu_bwd ref_clamped_bwd(double gate, double up, double dact)
{
    double g = fmin(gate, 7), u = fmin(fmax(up, -7), 7), sigma = 1 / (1 + exp(-1.702 * g));
    bool free_g = gate < 7, free_u = fabs(up) < 7;
    return (struct ref_swiglu_bwd){
        .dgate = free_g ? dact * (u + 1) * sigma * (1 + 1.702 * g * (1 - sigma)) : 0,
        .dup = free_u ? dact * g * sigma : 0,
        .gate_mag = fabs(dact * (u + 1)) * sigma * (1 + 1.702 * fabs(g)),
        .up_mag = fabs(dact * g) * sigma,
    };
}

void ref_kl_bwd(const float *ref, const float *logits, uint32_t cols, double factor, double *dlogits, double *mag)
{
    double p = ref_logsumexp(ref, cols), q = ref_logsumexp(logits, cols);
    for (uint32_t c = 0; c < cols; c++) {
        dlogits[c] = factor * (exp(logits[c] - q) - exp(ref[c] - p));
        mag[c] = fabs(factor) * (exp(logits[c] - q) + exp(ref[c] - p));
    }
}

uint32_t ref_sampled_label(const float *logits, uint32_t cols, uint32_t row, uint32_t step, uint32_t seed, double *lead)
{
    uint32_t label = 0, bits[REF_LEVELS];
    double best = -INFINITY, next = -INFINITY;
    for (uint32_t c = 0; c < cols; c++) {
        ref_noise_words((uint64_t)c << 32 | row, 0, step, seed, bits);
        double noisy = logits[c] - log(-log1p(-ref_uniform(bits[0])));
        if (noisy > best) {
            next = best;
            best = noisy;
            label = c;
        } else if (noisy > next) {
            next = noisy;
        }
    }
    *lead = best - next;
    return label;
}

void ref_nll_bwd(const float *logits, uint32_t label, uint32_t cols, double factor, double *dlogits, double *mag)
{
    double p = ref_logsumexp(logits, cols);
    for (uint32_t c = 0; c < cols; c++) {
        dlogits[c] = factor * (exp(logits[c] - p) - (c == label));
        mag[c] = fabs(factor) * (exp(logits[c] - p) + (c == label));
    }
}

void ref_adam_step(struct ref_adam *s, double grad, double size, const struct ref_adam_rates *r)
{
    s->m = r->beta1 * s->m + (1 - r->beta1) * grad;
    s->v = r->beta2 * s->v + (1 - r->beta2) * grad * grad;
    double towards = s->m * r->correct1 / (sqrt(s->v * r->correct2) + r->eps);
    s->param -= r->lr * (size * towards + r->decay * s->param);
}

/* ---- ref_attn_bwd: attention ---- */

/* One query and one of the keys that it sees; qi and kj are where their heads' rows start. */
static void attn_bwd_pair(const struct ref_attn *p, const float *q, const float *k, const float *v, const float *dout,
                          struct ref_attn_bwd *g, size_t row, size_t qi, size_t kj, double delta_mag)
{
    double s = 0, s_mag = fabs(g->lse[row]), dp = 0, dp_mag = delta_mag;
    for (uint32_t d = 0; d < p->dim; d++) {
        double sd = p->scale * q[qi + d] * k[kj + d], dd = (double)dout[qi + d] * v[kj + d];
        s += sd;
        s_mag += fabs(sd);
        dp += dd;
        dp_mag += fabs(dd);
    }
    s = ref_softcap(s, p->cap);
    double slope = p->cap > 0 ? 1 - s * s / (p->cap * p->cap) : 1;
    double w = exp(s - g->lse[row]), ds = p->scale * w * (dp - g->delta[row]) * slope;
    double w_mag = w * (1 + s_mag), ds_mag = p->scale * w_mag * dp_mag;
    for (uint32_t d = 0; d < p->dim; d++) {
        g->dq[qi + d] += ds * k[kj + d];
        g->dk[kj + d] += ds * q[qi + d];
        g->dv[kj + d] += w * dout[qi + d];
        g->mag_q[qi + d] += ds_mag * fabs((double)k[kj + d]);
        g->mag_k[kj + d] += ds_mag * fabs((double)q[qi + d]);
        g->mag_v[kj + d] += w_mag * fabs((double)dout[qi + d]);
    }
}

bool ref_attn_bwd(const struct ref_attn *p, const float *q, const float *k, const float *v, const float *dout,
                  struct ref_attn_bwd *g)
{
    size_t t = (size_t)p->windows * p->ctx, n = t * p->heads, nq = n * p->dim, nk = t * p->kv_heads * p->dim;
    double *at = calloc(2 * n + 2 * nq + 4 * nk, sizeof *at);
    if (!at)
        return false;
    g->lse = at;
    g->delta = g->lse + n;
    g->dq = g->delta + n;
    g->mag_q = g->dq + nq;
    g->dk = g->mag_q + nq;
    g->mag_k = g->dk + nk;
    g->dv = g->mag_k + nk;
    g->mag_v = g->dv + nk;
    for (size_t row = 0; row < n; row++) {
        uint32_t head = (uint32_t)(row % p->heads), kv_head = head / (p->heads / p->kv_heads);
        uint32_t window = (uint32_t)(row / p->heads / p->ctx), pos = (uint32_t)(row / p->heads % p->ctx);
        uint32_t first = p->sliding && pos + 1 > p->sliding ? pos + 1 - p->sliding : 0;
        size_t qi = row * p->dim;
        double out[256], mag, delta_mag = 0;
        ref_attn_row(p, q, k, v, window, pos, head, out, &g->lse[row], &mag);
        for (uint32_t d = 0; d < p->dim; d++) {
            g->delta[row] += dout[qi + d] * out[d];
            delta_mag += fabs(dout[qi + d] * out[d]);
        }
        for (uint32_t j = first; j <= pos; j++) {
            size_t kj = (((size_t)window * p->ctx + j) * p->kv_heads + kv_head) * p->dim;
            attn_bwd_pair(p, q, k, v, dout, g, row, qi, kj, delta_mag);
        }
    }
    return true;
}

void ref_attn_bwd_free(struct ref_attn_bwd *g)
{
    free(g->lse);
    *g = (struct ref_attn_bwd){0};
}
