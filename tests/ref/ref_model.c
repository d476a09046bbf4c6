#include "tests/ref/ref_model.h"
#include "tests/ref/ref_forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

void ref_norm(const double *x, const float *w, double *y, uint32_t n, double eps)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    double r = 1 / sqrt(sum / n + eps);
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] * r * w[i];
}

/* y[rows, out] = x[rows, in] w^T + bias */
static void linear(const double *x, const float *w, const float *bias, double *y, uint64_t rows, uint32_t out,
                   uint32_t in)
{
    for (uint64_t r = 0; r < rows; r++) {
        for (uint32_t o = 0; o < out; o++) {
            double sum = bias ? bias[o] : 0;
            for (uint32_t i = 0; i < in; i++)
                sum += x[r * in + i] * w[(uint64_t)o * in + i];
            y[r * out + o] = sum;
        }
    }
}

static double factor(double v)
{
    return v > 0 ? v : 1;
}

double ref_rope_angle(const struct ref_config *c, uint32_t p, uint32_t i)
{
    uint32_t dim = c->rope_dim ? c->rope_dim : c->head_dim;
    double freq = 1 / pow(c->rope_theta, 2.0 * i / dim);
    if (c->factors)
        freq /= c->factors[i];
    if (c->rope_linear > 0)
        freq /= c->rope_linear;
    if (c->llama3.factor > 0) {
        /* As in the model's publication: by wavelength, in positions. */
        double wavelength = 2 * pi / freq;
        double longest = c->llama3.original / c->llama3.low, shortest = c->llama3.original / c->llama3.high;
        if (wavelength > longest) {
            freq /= c->llama3.factor;
        } else if (wavelength >= shortest) {
            double smooth = (c->llama3.original / wavelength - c->llama3.low) / (c->llama3.high - c->llama3.low);
            freq = (1 - smooth) * freq / c->llama3.factor + smooth * freq;
        }
    }
    if (c->yarn.factor > 0) {
        /* As in its publication: by how often the pair turns within the original context; the bounds of the blend
         * are the whole pairs around those of `fast` and `slow` turns. */
        double bound[2] = {c->yarn.fast, c->yarn.slow};
        for (int k = 0; k < 2; k++) {
            double wavelength = c->yarn.original / bound[k]; /* positions per turn */
            double pair = c->head_dim / 2.0 * log(wavelength / (2 * pi)) / log(c->rope_theta);
            bound[k] = k ? ceil(pair) : floor(pair);
        }
        bound[0] = bound[0] < 0 ? 0 : bound[0];
        bound[1] = bound[1] > c->head_dim - 1 ? c->head_dim - 1 : bound[1];
        double kept = 1 - (i - bound[0]) / fmax(bound[1] - bound[0], 0.001);
        kept = fmin(fmax(kept, 0), 1);
        freq *= kept + (1 - kept) / c->yarn.factor;
    }
    return p * freq;
}

static double turn_length(const struct ref_config *c)
{
    if (c->yarn.factor <= 0)
        return 1;
    return c->yarn.attention > 0 ? c->yarn.attention : 0.1 * log(c->yarn.factor) + 1;
}

/* One head of one position: norm if the model has it, then rotate-half. */
static void prepare_head(const struct ref_config *c, const struct ref_block *b, double *x, const float *norm,
                         uint32_t pos)
{
    uint32_t half = (c->rope_dim ? c->rope_dim : c->head_dim) / 2;
    bool local = c->local_theta > 0 && c->sliding && !b->full;
    if (norm && !b->whole_norm)
        ref_norm(x, norm, x, c->head_dim, c->eps);
    for (uint32_t i = 0; i < half && !b->no_rope; i++) {
        double a = local ? pos * pow(c->local_theta, -2.0 * i / c->head_dim) : ref_rope_angle(c, pos, i);
        double length = local ? 1 : turn_length(c);
        double *one = x + (c->adjacent ? 2 * i : i), *other = c->adjacent ? one + 1 : one + half;
        double lo = *one * length, hi = *other * length;
        *one = lo * cos(a) - hi * sin(a);
        *other = hi * cos(a) + lo * sin(a);
    }
}

/* One query of one head: all of the window's keys and values of its group. */
static void attend(const struct ref_config *c, uint32_t sliding, const float *sink, const double *q, const double *k,
                   const double *v, double *out, uint32_t pos, double *p)
{
    uint32_t stride = c->kv_heads * c->head_dim, first = 0;
    if (sliding && pos + 1 > sliding)
        first = pos + 1 - sliding;
    double top = -INFINITY, sum = 0;
    for (uint32_t j = first; j <= pos; j++) {
        double s = 0;
        for (uint32_t d = 0; d < c->head_dim; d++)
            s += q[d] * k[(uint64_t)j * stride + d];
        p[j] = c->attention_scale > 0 ? s * c->attention_scale : s / sqrt(c->head_dim);
        p[j] = ref_softcap(p[j], c->score_cap);
        top = fmax(top, p[j]);
    }
    top = sink ? fmax(top, (double)*sink) : top;
    for (uint32_t j = first; j <= pos; j++)
        sum += p[j] = exp(p[j] - top);
    sum += sink ? exp((double)*sink - top) : 0;
    for (uint32_t d = 0; d < c->head_dim; d++) {
        double o = 0;
        for (uint32_t j = first; j <= pos; j++)
            o += p[j] / sum * v[(uint64_t)j * stride + d];
        out[d] = o;
    }
}

static void attention(const struct ref_config *c, const struct ref_block *b, uint32_t windows, double *q, double *k,
                      const double *v, double *out, double *p)
{
    uint32_t dim = c->head_dim, group = c->heads / c->kv_heads;
    for (uint64_t t = 0; t < (uint64_t)windows * c->ctx; t++) {
        if (b->q_norm && b->whole_norm) {
            ref_norm(q + t * c->heads * dim, b->q_norm, q + t * c->heads * dim, c->heads * dim, c->eps);
            ref_norm(k + t * c->kv_heads * dim, b->k_norm, k + t * c->kv_heads * dim, c->kv_heads * dim, c->eps);
        }
        for (uint32_t h = 0; h < c->heads; h++)
            prepare_head(c, b, q + (t * c->heads + h) * dim, b->q_norm, (uint32_t)(t % c->ctx));
        for (uint32_t h = 0; h < c->kv_heads; h++)
            prepare_head(c, b, k + (t * c->kv_heads + h) * dim, b->k_norm, (uint32_t)(t % c->ctx));
    }
    for (uint64_t t = 0; t < (uint64_t)windows * c->ctx; t++) {
        uint64_t window = t / c->ctx * c->ctx;
        for (uint32_t h = 0; h < c->heads; h++) {
            uint64_t kv = (window * c->kv_heads + h / group) * dim;
            attend(c, b->full ? 0 : c->sliding, b->sinks ? b->sinks + h : NULL, q + (t * c->heads + h) * dim, k + kv,
                   v + kv, out + (t * c->heads + h) * dim, (uint32_t)(t % c->ctx), p);
        }
    }
}

/* q from rows of q and gate, head by head; the gate behind it. */
static void split_gate(const struct ref_config *c, const double *both, double *q, double *gate, uint64_t rows)
{
    for (uint64_t i = 0; i < rows * c->heads * c->head_dim; i++) {
        uint64_t at = i / c->head_dim * 2 * c->head_dim + i % c->head_dim;
        q[i] = both[at];
        gate[i] = both[at + c->head_dim];
    }
}

/* What out_proj reads, from the normed x: out[t, heads * values]. */
static bool delta_mixer(const struct ref_config *c, const struct ref_block *b, uint32_t windows, const double *x,
                        double *out)
{
    struct ref_delta d = c->delta;
    d.ctx = c->ctx;
    uint64_t t = (uint64_t)windows * c->ctx;
    uint32_t keys = d.keys * d.dim, values = d.heads * d.values, cols = 2 * keys + values,
             width = cols + (d.grouped ? values : 0), ldb = d.heads * (d.grouped ? 2 : 1);
    double *all = malloc(sizeof(double) * (t * (width + cols + values + 2ull * ldb) + (uint64_t)d.dim * d.values));
    if (!all)
        return false;
    double *mixed = all, *conv = mixed + t * width, *z = conv + t * cols, *beta = z + t * values,
           *alpha = beta + t * ldb, *state = alpha + t * ldb;
    linear(x, b->mixed, NULL, mixed, t, width, c->hidden);
    linear(x, b->beta, NULL, beta, t, ldb, c->hidden);
    if (d.grouped)
        memcpy(alpha, beta, sizeof(double) * t * ldb);
    else
        linear(x, b->alpha, NULL, alpha, t, ldb, c->hidden);
    if (!d.grouped)
        linear(x, b->z, NULL, z, t, values, c->hidden);
    for (uint64_t r = 0; r < t; r++) {
        const double *window = mixed + r / c->ctx * c->ctx * width;
        for (uint32_t i = 0; i < cols; i++)
            conv[r * cols + i] =
                ref_conv_silu(window + ref_delta_channel(&d, i), width, b->conv + (uint64_t)i * c->delta_taps,
                              c->delta_taps, (uint32_t)(r % c->ctx));
        for (uint32_t i = 0; i < values && d.grouped; i++)
            z[r * values + i] = mixed[r * width + ref_delta_gate(&d, i)];
        for (uint32_t h = 0; h < 2 * d.keys; h++)
            ref_l2norm(conv + r * cols + h * d.dim, d.dim, 1e-6);
    }
    for (uint32_t w = 0; w < windows; w++)
        for (uint32_t h = 0; h < d.heads; h++) {
            uint64_t row = (uint64_t)w * c->ctx;
            const double *q = conv + row * cols + h / (d.heads / d.keys) * d.dim;
            ref_delta_rule(&d, q, q + keys, conv + row * cols + 2 * keys + h * d.values, cols,
                           beta + row * ldb + ref_delta_beta(&d, h), alpha + row * ldb + ref_delta_alpha(&d, h), ldb,
                           -exp(b->a_log[h]), b->dt_bias[h], state, out + row * values + h * d.values, values);
        }
    for (uint64_t r = 0; r < t * d.heads; r++) {
        double *o = out + r * d.values;
        ref_norm(o, b->delta_norm, o, d.values, c->eps);
        for (uint32_t i = 0; i < d.values; i++)
            o[i] *= ref_silu(z[r * d.values + i]);
    }
    free(all);
    return true;
}

static void add_squares(double *const *sums, int input, const double *x, uint64_t rows, uint64_t cols)
{
    for (uint64_t i = 0; sums && i < rows * cols; i++)
        sums[input][i % cols] += x[i] * x[i];
}

/* What a half reads. */
static void norm_input(const struct ref_config *c, const double *x, const float *w, double *y, uint64_t rows)
{
    for (uint64_t r = 0; r < rows; r++)
        if (w)
            ref_norm(x + r * c->hidden, w, y + r * c->hidden, c->hidden, c->eps);
        else
            memcpy(y + r * c->hidden, x + r * c->hidden, sizeof *x * c->hidden);
}

/* x += what a half adds. */
static void add_half(const struct ref_config *c, double *added, const float *w, double *x, uint64_t rows)
{
    for (uint64_t r = 0; r < rows; r++) {
        double *a = added + r * c->hidden;
        for (uint32_t i = 0; i < c->hidden; i++)
            a[i] *= factor(c->residual_scale);
        if (w)
            ref_norm(a, w, a, c->hidden, c->eps);
        for (uint32_t i = 0; i < c->hidden; i++)
            x[r * c->hidden + i] += a[i];
    }
}

static bool forward(const struct ref_config *c, const struct ref_block *b, uint32_t windows, const double *x, double *h,
                    double *y, double *const *sums)
{
    uint64_t t = (uint64_t)windows * c->ctx, qn = (uint64_t)c->heads * c->head_dim,
             kn = (uint64_t)c->kv_heads * c->head_dim;
    uint64_t hid = c->hidden, inter = c->intermediate;
    uint64_t an = b->mixed ? (uint64_t)c->delta.heads * c->delta.values : qn;
    double *all = malloc(sizeof(double) * (t * (3 * hid + 4 * qn + an + 2 * kn + 2 * inter) + c->ctx));
    if (!all)
        return false;
    double *norm = all, *mid = norm + t * hid, *q = mid + t * hid, *both = q + t * qn, *gates = both + 2 * t * qn,
           *attn = gates + t * qn, *k = attn + t * an, *v = k + t * kn;
    double *gate = v + t * kn, *up = gate + t * inter, *added = up + t * inter, *p = added + t * hid;
    norm_input(c, x, b->attn_norm, norm, t);
    add_squares(sums, REF_IN_ATTN, norm, t, hid);
    if (b->mixed) {
        if (!delta_mixer(c, b, windows, norm, attn)) {
            free(all);
            return false;
        }
    } else {
        linear(norm, b->w[REF_Q], b->bias[REF_Q], c->gated ? both : q, t, (uint32_t)qn * (c->gated ? 2 : 1), c->hidden);
        if (c->gated)
            split_gate(c, both, q, gates, t);
        linear(norm, b->w[REF_K], b->bias[REF_K], k, t, (uint32_t)kn, c->hidden);
        linear(norm, b->w[REF_V], b->bias[REF_V], v, t, (uint32_t)kn, c->hidden);
        attention(c, b, windows, q, k, v, attn, p);
        for (uint64_t i = 0; c->gated && i < t * qn; i++)
            attn[i] *= ref_sigmoid(gates[i]);
    }
    add_squares(sums, REF_IN_O, attn, t, an);
    memcpy(mid, x, sizeof(double) * t * hid);
    linear(attn, b->mixed ? b->delta_out : b->w[REF_O], b->mixed ? NULL : b->bias[REF_O], added, t, c->hidden,
           (uint32_t)an);
    add_half(c, added, b->attn_post_norm, mid, t);
    if (h)
        memcpy(h, mid, sizeof(double) * t * hid);
    norm_input(c, mid, b->ffn_norm, norm, t);
    add_squares(sums, REF_IN_FFN, norm, t, hid);
    linear(norm, b->w[REF_GATE], b->bias[REF_GATE], gate, t, c->intermediate, c->hidden);
    linear(norm, b->w[REF_UP], b->bias[REF_UP], up, t, c->intermediate, c->hidden);
    for (uint64_t i = 0; i < t * inter; i++)
        gate[i] = (c->gelu ? ref_geglu(gate[i], 1) : ref_swiglu(gate[i], 1)) * up[i];
    add_squares(sums, REF_IN_DOWN, gate, t, inter);
    linear(gate, b->w[REF_DOWN], b->bias[REF_DOWN], added, t, c->hidden, c->intermediate);
    add_half(c, added, b->ffn_post_norm, mid, t);
    if (y)
        memcpy(y, mid, sizeof(double) * t * hid);
    free(all);
    return true;
}

bool ref_block_forward(const struct ref_config *c, const struct ref_block *b, uint32_t windows, const double *x,
                       double *h, double *y)
{
    return forward(c, b, windows, x, h, y, NULL);
}

bool ref_block_inputs(const struct ref_config *c, const struct ref_block *b, uint32_t windows, const double *x,
                      double *y, double *const sums[REF_INPUTS])
{
    return forward(c, b, windows, x, NULL, y, sums);
}

void ref_log_probs(const struct ref_config *c, const float *final_norm, const float *head, const double *x, double *out)
{
    double sum = 0, top = -INFINITY, all = 0;
    for (uint32_t i = 0; i < c->hidden; i++)
        sum += x[i] * x[i];
    double r = 1 / sqrt(sum / c->hidden + c->eps);
    for (uint32_t v = 0; v < c->vocab; v++) {
        out[v] = 0;
        for (uint32_t i = 0; i < c->hidden; i++)
            out[v] += x[i] * r * final_norm[i] * head[(uint64_t)v * c->hidden + i] / factor(c->logit_divisor);
        out[v] = ref_softcap(out[v], c->logit_cap);
        top = fmax(top, out[v]);
    }
    for (uint32_t v = 0; v < c->vocab; v++)
        all += exp(out[v] - top);
    for (uint32_t v = 0; v < c->vocab; v++)
        out[v] -= top + log(all);
}
