#include "tests/ref/ref_gptq.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"

void ref_hessian(const float *x, uint32_t tokens, uint32_t n, double *h)
{
    memset(h, 0, (size_t)n * n * sizeof *h);
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < n; j++)
                h[(size_t)i * n + j] += 2.0 * x[(size_t)t * n + i] * x[(size_t)t * n + j] / tokens;
}

bool ref_inverse_factor(const double *h, uint32_t n, double *u)
{
    double *a = malloc((size_t)n * 2 * n * sizeof *a);
    bool ok = a != NULL;
    for (uint32_t i = 0; ok && i < n; i++) {
        for (uint32_t j = 0; j < n; j++) {
            a[(size_t)i * 2 * n + j] = h[(size_t)i * n + j];
            a[(size_t)i * 2 * n + n + j] = i == j;
        }
    }
    /* Gauss-Jordan without pivoting: enough for a positive definite matrix. */
    for (uint32_t p = 0; ok && p < n; p++) {
        double pivot = a[(size_t)p * 2 * n + p];
        ok = pivot > 0;
        for (uint32_t j = 0; ok && j < 2 * n; j++)
            a[(size_t)p * 2 * n + j] /= pivot;
        for (uint32_t i = 0; ok && i < n; i++) {
            double f = a[(size_t)i * 2 * n + p];
            if (i == p || f == 0)
                continue;
            for (uint32_t j = 0; j < 2 * n; j++)
                a[(size_t)i * 2 * n + j] -= f * a[(size_t)p * 2 * n + j];
        }
    }
    /* H^-1 = L L^T, U = L^T. */
    memset(u, 0, (size_t)n * n * sizeof *u);
    for (uint32_t i = 0; ok && i < n; i++) {
        for (uint32_t j = 0; ok && j <= i; j++) {
            double s = a[(size_t)i * 2 * n + n + j];
            for (uint32_t k = 0; k < j; k++)
                s -= u[(size_t)k * n + i] * u[(size_t)k * n + j];
            ok = i != j || s > 0;
            u[(size_t)j * n + i] = i == j ? sqrt(s) : s / u[(size_t)j * n + j];
        }
    }
    free(a);
    return ok;
}

static double clamp_round(double v, int lo, int hi)
{
    double c = nearbyint(v);
    return c < lo ? lo : c > hi ? hi : c;
}

double ref_scale_search(const double *w, const double *cost, uint32_t n, int lo, int hi, uint32_t candidates,
                        double power)
{
    double most = 0, best = INFINITY, scale = 0;
    for (uint32_t i = 0; i < n; i++)
        most = fmax(most, fabs(w[i]));
    if (most == 0)
        return 0;
    for (uint32_t i = 0; i < candidates; i++) {
        for (int sign = 1; sign >= -1; sign -= 2) {
            double s = sign * (1 - i / 100.0) * most / ((hi - lo) / 2.0), sum = 0;
            for (uint32_t j = 0; j < n; j++)
                sum += cost[j] * pow(fabs(s * clamp_round(w[j] / s, lo, hi) - w[j]), power);
            if (sum < best) {
                best = sum;
                scale = f16_to_f32(f32_to_f16((float)s));
            }
        }
    }
    return scale;
}

bool ref_gptq(const float *w, uint32_t rows, uint32_t cols, const double *h, uint32_t group, int lo, int hi,
              double damp, int8_t *codes, float *scales)
{
    size_t square = (size_t)cols * cols;
    double *damped = malloc(square * sizeof *damped), *u = malloc(square * sizeof *u),
           *row = malloc(cols * sizeof *row), *cost = malloc(cols * sizeof *cost);
    double mean = 0;
    uint32_t groups = (cols + group - 1) / group;
    bool ok = damped && u && row && cost;
    for (uint32_t i = 0; ok && i < cols; i++)
        mean += (h[(size_t)i * cols + i] == 0 ? 1 : h[(size_t)i * cols + i]) / cols;
    if (ok)
        memcpy(damped, h, square * sizeof *damped);
    for (uint32_t i = 0; ok && i < cols; i++) {
        double *d = &damped[(size_t)i * cols + i];
        *d = (*d == 0 ? 1 : *d) + damp * mean;
    }
    ok = ok && ref_inverse_factor(damped, cols, u);
    for (uint32_t j = 0; ok && j < cols; j++)
        cost[j] = 1 / (u[(size_t)j * cols + j] * u[(size_t)j * cols + j]);
    for (uint32_t r = 0; ok && r < rows; r++) {
        for (uint32_t j = 0; j < cols; j++)
            row[j] = h[(size_t)j * cols + j] == 0 ? 0 : w[(size_t)r * cols + j];
        for (uint32_t j = 0; j < cols; j++) {
            float *s = &scales[(size_t)r * groups + j / group];
            if (j % group == 0)
                *s = (float)ref_scale_search(row + j, cost + j, cols - j < group ? cols - j : group, lo, hi, 80, 2.4);
            double c = *s == 0 ? 0 : clamp_round(row[j] / *s, lo, hi);
            double err = (row[j] - c * *s) / u[(size_t)j * cols + j];
            codes[(size_t)r * cols + j] = (int8_t)c;
            for (uint32_t k = j + 1; k < cols; k++)
                row[k] -= err * u[(size_t)j * cols + k];
        }
    }
    free(damped);
    free(u);
    free(row);
    free(cost);
    return ok;
}

double ref_row_loss(const float *w, const int8_t *codes, const float *scales, uint32_t cols, uint32_t group,
                    const double *h)
{
    double loss = 0;
    double *d = malloc(cols * sizeof *d);
    for (uint32_t j = 0; d && j < cols; j++)
        d[j] = (double)codes[j] * scales[j / group] - w[j];
    for (uint32_t i = 0; d && i < cols; i++)
        for (uint32_t j = 0; j < cols; j++)
            loss += d[i] * h[(size_t)i * cols + j] * d[j];
    free(d);
    return loss;
}
