#include "host/eval/spread.h"

#include <math.h>
#include <stdlib.h>

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    if (isnan(x) || isnan(y))
        return (isnan(x) != 0) - (isnan(y) != 0);
    return (x > y) - (x < y);
}

void spread_sort(float *x, uint64_t n)
{
    qsort(x, n, sizeof *x, by_size);
}

static double at_rank(const float *sorted, uint64_t n, double rank)
{
    double r = fmin(fmax(rank, 0), (double)(n - 1));
    uint64_t i = (uint64_t)r, next = i + 1 < n ? i + 1 : i;
    double part = r - (double)i;
    return part > 0 ? (1 - part) * sorted[i] + part * sorted[next] : sorted[i];
}

struct quantile spread_quantile(const float *sorted, uint64_t n, double share)
{
    double rank = share * (double)(n - 1), off = 1.96 * sqrt((double)n * share * (1 - share));
    return (struct quantile){
        .share = share,
        .value = at_rank(sorted, n, rank),
        .low = at_rank(sorted, n, floor(rank - off)),
        .high = at_rank(sorted, n, ceil(rank + off)),
    };
}

void moments_add(struct moments *m, double x)
{
    m->sum += x;
    m->squares += x * x;
    m->n++;
}

double moments_mean(const struct moments *m)
{
    return m->sum / (double)m->n;
}

double moments_error(const struct moments *m)
{
    double mean = moments_mean(m), variance = m->squares / (double)m->n - mean * mean;
    return m->n > 1 ? sqrt(fmax(0, variance) / (double)(m->n - 1)) : 0;
}
