#include "tests/ref/ref_quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"

/* By trying all that there are. */
static float byte_scale(float s, unsigned scale_type)
{
    double best = 0, v = s > 0 ? s : 0;
    for (int e = -126; e <= 124 && scale_type == 3; e++)
        if (best < v && (best = ldexp(1, e)) >= v)
            break;
    for (unsigned b = 1; b < 0x7F && scale_type == 4; b++) {
        double x = b < 8 ? ldexp(b, -10) : ldexp(8 + b % 8, (int)(b / 8) - 11);
        /* Halfway the even one. */
        if (b == 1 || fabs(x - v) < fabs(best - v) || (fabs(x - v) == fabs(best - v) && b % 2 == 0))
            best = x;
    }
    return s == 0 ? 0 : (float)(scale_type == 3 && best == 0 ? ldexp(1, -126) : best);
}

float ref_storable_scale(float s, unsigned scale_type)
{
    if (scale_type > 2)
        return byte_scale(s, scale_type);
    static const float least[] = {1.17549435e-38f, 5.9604644775390625e-8f, 1.17549435e-38f};
    static const float most[] = {3.40282347e38f, 65504.0f, 3.38953139e38f};
    float a = fabsf(s);
    if (a == 0)
        return 0;
    a = a < least[scale_type] ? least[scale_type] : a > most[scale_type] ? most[scale_type] : a;
    if (scale_type == 1)
        a = f16_to_f32(f32_to_f16(a));
    if (scale_type == 2)
        a = bf16_to_f32(f32_to_bf16(a));
    return s < 0 ? -a : a;
}

int ref_level(double w, double s, int lo, int hi, const int8_t *levels)
{
    double x = s == 0 ? 0 : w / s, r = nearbyint(x);
    int best = levels ? levels[0] : 0;
    for (int k = 1; levels && k < 16; k++)
        if (fabs(levels[k] - x) < fabs(best - x))
            best = levels[k];
    return levels ? best : r < lo ? lo : r > hi ? hi : (int)r;
}

double ref_scale_error(const float *w, const float *cost, size_t n, double s, int lo, int hi, const int8_t *levels,
                       double power)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (cost ? cost[i] : 1) * pow(fabs(s * ref_level(w[i], s, lo, hi, levels) - w[i]), power);
    return sum;
}

double ref_best_scale(const float *w, const float *cost, size_t n, int lo, int hi, const int8_t *levels,
                      unsigned candidates, double power, unsigned scale_type, const float *stored)
{
    /* A candidate computed in single precision may be rounded to the next number. */
    static const double ulp[] = {1e-6, 1.0 / 1023, 1.0 / 127, 0, 0};
    float most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(w[i]));
    double base = most / (0.5 * (hi - lo)), best = INFINITY;
    if (base < 1.17549435e-38)
        return !stored || *stored == 0 ? 0 : INFINITY;
    for (unsigned i = 0; i < candidates; i++)
        for (int sign = 1; sign >= -1; sign -= 2) {
            float s = (float)(sign * base * (1 - 0.01 * i));
            if (scale_type > 2) /* what is stored is far from it, and counts */
                s = ref_storable_scale(s, scale_type);
            double off = stored ? fabs((double)ref_storable_scale(s, scale_type) - *stored) : 0;
            if (off <= ulp[scale_type] * fabs(s))
                best = fmin(best, ref_scale_error(w, cost, n, s, lo, hi, levels, power));
        }
    return best;
}

double ref_affine_error(const float *w, const float *cost, size_t n, double s, double o, int lo, int hi)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double d = s * ref_level(w[i] - o, s, lo, hi, NULL) + o - w[i];
        sum += (cost ? cost[i] : 1) * d * d;
    }
    return sum;
}

/* Weighted least squares for the levels that (s, o) gives, o <= 0. */
static void affine_refit(const float *w, const float *cost, size_t n, int lo, int hi, double *s, double *o)
{
    double k1 = 0, c1 = 0, w1 = 0, cc = 0, cw = 0;
    for (size_t i = 0; i < n; i++) {
        double k = cost ? cost[i] : 1, c = ref_level(w[i] - *o, *s, lo, hi, NULL);
        k1 += k;
        c1 += k * c;
        w1 += k * w[i];
        cc += k * c * c;
        cw += k * c * w[i];
    }
    double det = k1 * cc - c1 * c1;
    if (det <= 1e-6 * k1 * k1)
        return;
    double scale = (k1 * cw - c1 * w1) / det, offset = (w1 - scale * c1) / k1;
    if (offset > 0) {
        scale = cw / cc;
        offset = 0;
    }
    if (scale > 0) {
        *s = scale;
        *o = offset;
    }
}

double ref_best_affine(const float *w, const float *cost, size_t n, int lo, int hi)
{
    double least = 0, most = -INFINITY, best = INFINITY;
    for (size_t i = 0; i < n; i++) {
        least = fmin(least, w[i]);
        most = fmax(most, w[i]);
    }
    double span = most - least;
    if (span < 1.17549435e-38)
        return ref_affine_error(w, cost, n, 0, least, lo, hi);
    for (int below = 0; below < 8; below++)
        for (int above = 0; above < 8; above++) {
            double s = span * (1 - 0.07 * (below + above)) / (hi - lo);
            double o = fmin(least + 0.07 * below * span - lo * s, 0);
            affine_refit(w, cost, n, lo, hi, &s, &o);
            best = fmin(best, ref_affine_error(w, cost, n, s, o, lo, hi));
        }
    return best;
}

double ref_super_error(const double *v, const float *stored, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (v[i] - stored[i]) * (v[i] - stored[i]);
    return sum;
}

/* By d; *next: the best d for the integers of this. */
static double error_by(const double *v, size_t n, double d, int lo, int hi, double *next)
{
    double sum = 0, kv = 0, kk = 0;
    for (size_t i = 0; i < n; i++) {
        double k = ref_level(v[i], d, lo, hi, NULL);
        sum += (v[i] - d * k) * (v[i] - d * k);
        kv += k * v[i];
        kk += k * k;
    }
    *next = kk > 0 ? kv / kk : d;
    return sum;
}

double ref_best_super(const double *v, size_t n, int lo, int hi)
{
    double largest = 0, best = INFINITY, next, more;
    for (size_t i = 0; i < n; i++)
        largest = fabs(v[i]) > fabs(largest) ? v[i] : largest;
    for (int k = lo; largest != 0 && k <= hi; k++) {
        if (k == 0)
            continue;
        best = fmin(best, error_by(v, n, ref_storable_scale((float)(largest / k), 1), lo, hi, &next));
        best = fmin(best, error_by(v, n, ref_storable_scale((float)next, 1), lo, hi, &more));
    }
    return largest == 0 ? 0 : best;
}

bool ref_super_scale(const float *scales, size_t n, int lo, int hi, float *d, int *integers)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        integers[i] = 0;
        largest = fabs((double)scales[i]) > fabs(largest) ? scales[i] : largest;
    }
    *d = 0;
    for (int k = hi > -lo ? hi : -lo; largest != 0 && k > 0; k--)
        for (int sign = 1; sign >= -1; sign -= 2) {
            size_t i = 0;
            if (sign * k < lo || sign * k > hi)
                continue;
            *d = ref_storable_scale((float)(largest / (sign * k)), 1);
            for (; i < n; i++) {
                double ratio = scales[i] / (double)*d;
                if (ratio != rint(ratio) || ratio < lo || ratio > hi)
                    break;
                integers[i] = (int)ratio;
            }
            if (i == n)
                return true;
        }
    return largest == 0;
}

uint32_t ref_noise_words(uint64_t element, uint32_t tensor, uint32_t step, uint32_t seed, uint32_t bits[REF_LEVELS])
{
    uint32_t v[4] = {(uint32_t)element, (uint32_t)(element >> 32) ^ (tensor * 0x9e3779b9u), step, seed};
    for (int i = 0; i < 4; i++)
        v[i] = v[i] * 1664525u + 1013904223u;
    for (int round = 0; round < 2; round++) {
        v[0] += v[1] * v[3];
        v[1] += v[2] * v[0];
        v[2] += v[0] * v[1];
        v[3] += v[1] * v[2];
        for (int i = 0; i < 4 && round == 0; i++)
            v[i] ^= v[i] >> 16;
    }
    uint32_t rest = (v[0] & 511) | (v[1] & 511) << 9 | (v[2] & 511) << 18 | v[3] << 27;
    rest = (rest ^ rest >> 16) * 0x85ebca6bu;
    rest = (rest ^ rest >> 13) * 0xc2b2ae35u;
    for (int i = 0; i < 4; i++)
        bits[i] = v[i];
    rest ^= rest >> 16;
    bits[4] = rest;
    rest = (rest ^ rest >> 15) * 0x2c1b3c6du;
    return rest ^ rest >> 12;
}

double ref_uniform(uint32_t bits)
{
    return ((bits >> 9) + 0.5) / 8388608.0;
}

bool ref_level_value(const struct ref_gumbel *g, unsigned k, int c0, int *d)
{
    if (g->table) {
        int place = (int)k - 2;
        for (int i = 0; i < 16 && g->table[i] < c0; i++)
            place++;
        *d = place < 0 || place > 15 ? 0 : g->table[place];
        return k < g->levels && place >= 0 && place < 16 && (place == 0 || g->table[place - 1] != *d);
    }
    *d = g->relative ? c0 - 2 + (int)k : g->lo + (int)k;
    return k < g->levels && *d >= g->lo && *d <= g->hi;
}

/* The start code's place among the levels. */
static unsigned start_level(const struct ref_gumbel *g, int c0)
{
    return g->relative ? 2u : (unsigned)(c0 - g->lo);
}

/* Levels between level k and the start code's. */
static double away(const struct ref_gumbel *g, unsigned k, int c0)
{
    return (double)k - start_level(g, c0);
}

static unsigned plane_of(const struct ref_gumbel *g, unsigned k, int c0)
{
    return k < start_level(g, c0) ? k : k - 1;
}

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

unsigned ref_state_words(const struct ref_gumbel *g)
{
    return g->levels > 4 ? 3 : g->levels - 1;
}

unsigned ref_logit_bits(const struct ref_gumbel *g)
{
    return g->levels > 4 ? 12 : 14;
}

/* Bits of an f32 that are left of a momentum. */
static uint32_t momentum_mask(const struct ref_gumbel *g)
{
    return g->levels > 4 ? 0xfff00000u : 0xffffc000u;
}

bool ref_level_stored(const struct ref_gumbel *g, unsigned k, int c0, const uint32_t *state, size_t stride, int *logit,
                      float *momentum)
{
    unsigned plane = plane_of(g, k, c0), bits = ref_logit_bits(g);
    if (k == start_level(g, c0))
        return false;
    uint32_t word = plane < 3 ? state[plane * stride] : 0;
    if (plane == 3) { /* a byte of each word, between its logit and its momentum */
        uint32_t bytes =
            (state[0] >> 12 & 255) | (state[stride] >> 12 & 255) << 8 | (state[2 * stride] >> 12 & 255) << 16;
        word = (bytes & 0xfff) | (bytes >> 12) << 20;
    }
    int low = (int)(word & ((1u << bits) - 1));
    *logit = low >= 1 << (bits - 1) ? low - (1 << bits) : low;
    *momentum = float_of(word & momentum_mask(g));
    return true;
}

void ref_load_state(const struct ref_gumbel *g, int c0, const uint32_t *state, size_t stride, double l[REF_LEVELS],
                    double m[REF_LEVELS])
{
    double others = 0;
    int d;
    for (unsigned k = 0; k < REF_LEVELS; k++) {
        int logit = 0;
        float momentum = 0;
        if (ref_level_value(g, k, c0, &d))
            ref_level_stored(g, k, c0, state, stride, &logit, &momentum);
        l[k] = logit;
        m[k] = momentum;
        others += momentum;
    }
    m[start_level(g, c0)] = -others;
}

/* Of this plane: its parts lie a quarter of the range apart. */
static uint32_t plane_noise(const struct ref_gumbel *g, unsigned k, int c0, uint32_t rounding)
{
    return rounding + plane_of(g, k, c0) * 0x40004000u;
}

int ref_stored_logit(const struct ref_gumbel *g, unsigned k, int c0, double logit, uint32_t rounding)
{
    double up = ((plane_noise(g, k, c0, rounding) & 0xffff) + 0.5) / 65536, most = (1 << (ref_logit_bits(g) - 1)) - 1;
    return (int)fmax(-most, fmin(most, floor(logit + up)));
}

float ref_stored_momentum(const struct ref_gumbel *g, unsigned k, int c0, double momentum, uint32_t rounding)
{
    float f = (float)momentum;
    uint32_t bits, mask = momentum_mask(g), kept = g->levels > 4 ? 12 : 18;
    memcpy(&bits, &f, sizeof bits);
    return float_of((bits + (plane_noise(g, k, c0, rounding) >> kept)) & mask);
}

static void normal_pair(uint32_t a, uint32_t b, double out[2])
{
    double radius = sqrt(-2 * log(ref_uniform(a))), angle = 2 * 3.14159265358979323846 * (ref_uniform(b) - 0.5);
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

void ref_gumbel_init(const struct ref_gumbel *g, int c0, uint64_t element, double init_noise, double init_gap,
                     double logits[REF_LEVELS])
{
    uint32_t bits[REF_LEVELS];
    double normal[REF_LEVELS + 1];
    ref_noise_words(element, g->tensor, REF_NOISE_INIT_A, g->seed, bits);
    normal_pair(bits[0], bits[1], normal);
    normal_pair(bits[2], bits[3], normal + 2);
    ref_noise_words(element, g->tensor, REF_NOISE_INIT_B, g->seed, bits);
    normal_pair(bits[0], bits[1], normal + 4);
    int d;
    for (unsigned k = 0; k < REF_LEVELS; k++)
        logits[k] =
            ref_level_value(g, k, c0, &d)
                ? init_noise * (normal[k] - normal[start_level(g, c0)] - init_gap * 0.5 * pow(away(g, k, c0), 2))
                : 0;
}

double ref_gumbel_soft(const struct ref_gumbel *g, int c0, uint64_t element, uint32_t step, const double *logits,
                       double tau, double kappa, double p[REF_LEVELS])
{
    uint32_t bits[REF_LEVELS];
    ref_noise_words(element, g->tensor, step, g->seed, bits);
    double most = -INFINITY, sum = 0, mean = 0;
    int d;
    for (unsigned k = 0; k < REF_LEVELS; k++) {
        /* u = 1 - v */
        p[k] = (kappa * logits[k] - log(-log1p(-ref_uniform(bits[k])))) / tau;
        if (ref_level_value(g, k, c0, &d))
            most = fmax(most, p[k]);
    }
    for (unsigned k = 0; k < REF_LEVELS; k++) {
        p[k] = ref_level_value(g, k, c0, &d) ? exp(p[k] - most) : 0;
        sum += p[k];
    }
    for (unsigned k = 0; k < REF_LEVELS; k++) {
        p[k] /= sum;
        ref_level_value(g, k, c0, &d);
        mean += p[k] * d;
    }
    return mean;
}

int ref_gumbel_code(const struct ref_gumbel *g, int c0, const double logits[REF_LEVELS])
{
    int best = 0, d;
    double most = 0;
    bool found = false;
    for (unsigned k = 0; k < REF_LEVELS; k++)
        if (ref_level_value(g, k, c0, &d)) {
            double l = logits[k];
            if (!found || l > most || (l == most && abs(d - c0) < abs(best - c0))) {
                found = true;
                most = l;
                best = d;
            }
        }
    return best;
}

void ref_col_sumsq(const float *x, size_t rows, size_t cols, double *sums)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++)
            sums[c] += (double)x[r * cols + c] * x[r * cols + c];
}
