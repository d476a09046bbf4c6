#include "host/convert/convert_scales.h"

#include <math.h>
#include <stdio.h>

#include "host/base/log.h"

/* Matrices that are named; how much of the weights' norm may be lost without a word. */
enum { NAMED = 6 };
#define TOLERATED 0.01

/* Relative error of the weights when their scales become f16; infinite where one has no place there. */
static bool measure(const struct checkpoint *ck, const char *module, double *out, struct err *e)
{
    struct qlinear q = {0};
    double norm = 0, lost = 0;
    if (!checkpoint_read_codes(ck, module, &q, e))
        return false;
    uint32_t group = q.spec.group ? q.spec.group : q.cols;
    for (uint32_t row = 0; row < q.rows; row++) {
        for (uint32_t g = 0; g < q.groups; g++) {
            const int8_t *codes = q.codes + (size_t)row * q.cols + (size_t)g * group;
            uint32_t n = q.cols - g * group < group ? q.cols - g * group : group;
            double s = q.scales[(size_t)row * q.groups + g], d = s - scale_round(SCALE_F16, (float)s), squares = 0;
            for (uint32_t i = 0; i < n; i++)
                squares += (double)codes[i] * codes[i];
            norm += s * s * squares;
            lost += d != 0 ? d * d * squares : 0;
        }
    }
    *out = !isfinite(lost) || !isfinite(norm) ? INFINITY : norm > 0 ? sqrt(lost / norm) : 0;
    qlinear_free(&q);
    return true;
}

static bool no_place(const char *module, struct err *e)
{
    err_set(e, ERR_USER, "%s has scales above 65504, the largest f16 number", module);
    return err_hint(e, "compressed-tensors, mlx and humming store bf16 scales; --format hf writes the codes' values as "
                       "16-bit weights");
}

bool convert_scales_one(struct scale_losses *s, const struct checkpoint *ck, const char *module, struct err *e)
{
    double loss;
    if (!measure(ck, module, &loss, e))
        return false;
    if (!isfinite(loss))
        return no_place(module, e);
    if (loss > TOLERATED && s->found++ < NAMED)
        log_warn("%s: its scales exceed the range of f16; the relative error of its weights becomes %.2g", module,
                 loss);
    return true;
}

void convert_scales_end(const struct scale_losses *s)
{
    if (s->found > NAMED)
        log_warn("and so do those of %u more", s->found - NAMED);
}

/* Whether they become f16, and were something else. */
static bool narrows(const struct checkpoint *ck, const struct matrix *x, enum export_format f)
{
    struct weight_info w;
    bool f16 = x->spec.scale == SCALE_F16 || (f == EXPORT_HUMMING && x->spec.scale == SCALE_F32);
    return x->coded && f16 && checkpoint_weight(ck, x->module, &w, NULL) && w.quantized && w.spec.scale != SCALE_F16;
}

bool convert_scales(const struct checkpoint *ck, struct matrix *items, size_t n, enum export_format f, struct err *e)
{
    struct scale_losses s = {0};
    for (size_t i = 0; i < n; i++) {
        double loss;
        if (!narrows(ck, &items[i], f))
            continue;
        if (!export_has_bf16_scales(f)) {
            if (!convert_scales_one(&s, ck, items[i].module, e))
                return false;
            continue;
        }
        if (!measure(ck, items[i].module, &loss, e))
            return false;
        if (loss <= TOLERATED)
            continue;
        for (size_t k = 0; k < n; k++)
            if (items[k].spec.scale == SCALE_F16 || f == EXPORT_HUMMING)
                items[k].spec.scale = SCALE_BF16;
        log_warn("scales and 16-bit tensors are stored as bf16: f16 does not hold the scales of %s", items[i].module);
        return true;
    }
    convert_scales_end(&s);
    return true;
}
