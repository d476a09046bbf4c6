#include "host/quant/record.h"

#include <math.h>

const char *stage_name(enum tune_stage s)
{
    static const char *const names[STAGE_COUNT] = {"attention", "feed-forward", "scales end to end", "experts"};
    return names[s];
}

const char *phase_name(enum run_phase p)
{
    static const char *const names[PHASE_COUNT] = {"calibration", "single linears", "block objective",
                                                   "scales end to end", "export"};
    return names[p];
}

struct code_stats code_stats_of(const struct qlinear *q, const struct quant_type *type)
{
    struct code_stats s = {.lo = type->levels ? 0 : type->lo};
    if (quant_type_levels(type) <= CODE_BINS)
        s.bins = quant_type_levels(type);
    for (size_t i = 0; s.bins && i < (size_t)q->rows * q->cols; i++) {
        unsigned k = quant_type_number(type, q->codes[i]);
        if (k < s.bins)
            s.codes[k]++;
    }
    for (size_t i = 0; i < (size_t)q->rows * q->groups; i++) {
        float scale = qlinear_scale(q, (uint32_t)(i / q->groups), 0, (uint32_t)(i % q->groups)), size = fabsf(scale);
        s.negative += scale < 0;
        if (size == 0) {
            s.zero++;
            continue;
        }
        double bin = floor((log2(size) - SCALE_LOW) * 2);
        s.scales[!(bin >= 0) ? 0 : bin >= SCALE_BINS ? SCALE_BINS - 1 : (int)bin]++; /* NaN: the first */
    }
    return s;
}
