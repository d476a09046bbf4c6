#include "host/quant/method/epochs.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

bool tune_tell(const struct tune_hooks *hooks, struct gpu_cmd *cmd, uint32_t step, uint32_t steps, double loss,
               struct err *e)
{
    if (!hooks || !hooks->step || hooks->step(hooks->ctx, step, steps, loss))
        return true;
    gpu_cmd_finish(cmd, NULL);
    return err_set(e, ERR_STOPPED, "stopped while tuning");
}

double cosine_rate(uint32_t t, uint32_t steps, float end)
{
    double f = steps > 1 ? (double)t / (steps - 1) : 0;
    return end + (1 - end) * 0.5 * (1 + cos(pi * f));
}

/* splitmix64 (Vigna). */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void epoch_shuffle(uint32_t *order, uint32_t n, uint64_t seed, uint64_t who, uint32_t epoch)
{
    uint64_t state = seed ^ (who << 24 | epoch);
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = (uint32_t)(next_random(&state) % i), swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
}

uint32_t epoch_curve(const float *x, uint32_t n, float out[CURVE_POINTS])
{
    uint32_t points = n < CURVE_POINTS ? n : CURVE_POINTS;
    for (uint32_t p = 0; p < points; p++) {
        uint32_t a = (uint32_t)((uint64_t)p * n / points), b = (uint32_t)((uint64_t)(p + 1) * n / points);
        double sum = 0;
        for (uint32_t i = a; i < b; i++)
            sum += x[i];
        out[p] = (float)(sum / (b - a));
    }
    return points;
}
