#include "tests/ref/ref_delta.h"

#include <math.h>
#include <string.h>

static uint32_t share(const struct ref_delta *d)
{
    return d->heads / d->keys;
}

static uint32_t span(const struct ref_delta *d)
{
    return 2 * d->dim + 2 * share(d) * d->values;
}

uint32_t ref_delta_channel(const struct ref_delta *d, uint32_t c)
{
    uint32_t keys = d->keys * d->dim, each = share(d) * d->values;
    if (!d->grouped)
        return c;
    if (c < keys)
        return c / d->dim * span(d) + c % d->dim;
    if (c < 2 * keys)
        return (c - keys) / d->dim * span(d) + d->dim + (c - keys) % d->dim;
    c -= 2 * keys;
    return c / each * span(d) + 2 * d->dim + c % each;
}

uint32_t ref_delta_gate(const struct ref_delta *d, uint32_t c)
{
    uint32_t each = share(d) * d->values;
    return d->grouped ? c / each * span(d) + 2 * d->dim + each + c % each : c;
}

uint32_t ref_delta_beta(const struct ref_delta *d, uint32_t head)
{
    return d->grouped ? head / share(d) * 2 * share(d) + head % share(d) : head;
}

uint32_t ref_delta_alpha(const struct ref_delta *d, uint32_t head)
{
    return d->grouped ? ref_delta_beta(d, head) + share(d) : head;
}

double ref_sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

double ref_silu(double x)
{
    return x * ref_sigmoid(x);
}

double ref_conv_silu(const double *x, uint32_t stride, const float *w, uint32_t taps, uint32_t pos)
{
    double sum = 0;
    for (uint32_t back = 0; back < taps && back <= pos; back++)
        sum += w[taps - 1 - back] * x[(uint64_t)(pos - back) * stride];
    return ref_silu(sum);
}

void ref_l2norm(double *x, uint32_t n, double eps)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    for (uint32_t i = 0; i < n; i++)
        x[i] /= sqrt(sum + eps);
}

void ref_delta_rule(const struct ref_delta *d, const double *q, const double *k, const double *v, uint32_t stride,
                    const double *b, const double *a, uint32_t stride_ab, double rate, double bias, double *state,
                    double *out, uint32_t out_stride)
{
    memset(state, 0, sizeof *state * d->dim * d->values);
    for (uint32_t t = 0; t < d->ctx; t++) {
        const double *qt = q + (uint64_t)t * stride, *kt = k + (uint64_t)t * stride, *vt = v + (uint64_t)t * stride;
        double decay = exp(rate * log1p(exp(a[(uint64_t)t * stride_ab] + bias)));
        double beta = ref_sigmoid(b[(uint64_t)t * stride_ab]);
        for (uint32_t j = 0; j < d->values; j++) {
            double knows = 0, gives = 0;
            for (uint32_t i = 0; i < d->dim; i++) {
                state[i * d->values + j] *= decay;
                knows += state[i * d->values + j] * kt[i];
            }
            for (uint32_t i = 0; i < d->dim; i++) {
                state[i * d->values + j] += kt[i] * beta * (vt[j] - knows);
                gives += state[i * d->values + j] * qt[i] / sqrt(d->dim);
            }
            out[(uint64_t)t * out_stride + j] = gives;
        }
    }
}
