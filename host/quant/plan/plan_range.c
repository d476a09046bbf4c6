/* Whether the numbers that scales are stored in reach as far as the weights: f16 ends at 65504, and below
 * 6e-5 it has fewer and fewer digits. Judged by a few rows of each matrix, which tell a model that was scaled
 * as a whole. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/write/hf_linear.h"
#include "host/base/num.h"
#include "host/quant/plan/planner.h"

/* Rows of a matrix that are looked at; how much of the weights' norm may be lost without a word; matrices
 * that are named. */
enum { SAMPLE_ROWS = 8, NAMED = 6 };
/* Of a layer's experts every so many is looked at: one is like the other, and there may be hundreds. */
enum { EXPERT_STEP = 64 };
#define TOLERATED 0.01

struct sample {
    float *row, *other;
    uint8_t *packed;
};

/* What a group's scale becomes in the stored type, as the kernels do it; of super-blocks, whose d is stored. */
static float stored_scale(const struct quant_spec *s, enum export_format f, float v)
{
    bool half = s->scale == SCALE_F16;
    float most = (half ? 65504.0f : 3.38e38f) / export_scale_levels(f, s), least = half ? 0x1p-24f : 0x1p-126f;
    float parts = s->type->super ? (float)s->type->scale_hi : 1;
    float d = fabsf(v) / parts;
    if (d == 0)
        return 0;
    if (s->type->scale)
        return scale_round(s->type->scale, d);
    d = scale_round(s->scale, d > most ? most : d < least ? least : d) * parts;
    return v < 0 ? -d : d;
}

/* Sum of squares that rounding a row to codes and scales takes away. */
static double coded_error(const struct quant_spec *s, enum export_format f, const float *w, uint32_t cols)
{
    uint32_t group = s->group ? s->group : cols;
    int lo = s->type->lo, hi = s->type->hi;
    double sum = 0;
    for (uint32_t g = 0; g < cols; g += group) {
        uint32_t n = cols - g < group ? cols - g : group;
        float top = 0, bottom = 0;
        for (uint32_t i = 0; i < n; i++) {
            top = w[g + i] > top ? w[g + i] : top; /* NOLINT(clang-analyzer-core.Undefined*): a whole row is given */
            bottom = w[g + i] < bottom ? w[g + i] : bottom;
        }
        float offset = s->type->offset_hi ? bottom : 0;
        float span = s->type->offset_hi ? top - bottom : top > -bottom ? top : -bottom;
        int levels = s->type->offset_hi ? hi - lo : -lo > hi ? -lo : hi;
        float scale = stored_scale(s, f, span / (float)levels);
        for (uint32_t i = 0; i < n; i++) {
            float v = w[g + i] - offset, q = scale > 0 ? (float)quant_type_nearest(s->type, v / scale) : 0;
            double d = (double)v - (double)q * scale;
            sum += d * d;
        }
    }
    return sum;
}

static double rounded_error(const struct gguf_type *t, const float *w, uint32_t cols, struct sample *x)
{
    double sum = 0;
    gguf_round_row(t, w, NULL, cols, x->packed);
    float *back = x->other + cols;
    gguf_dequant(t, x->packed, cols, back);
    for (uint32_t i = 0; i < cols; i++)
        sum += ((double)w[i] - back[i]) * ((double)w[i] - back[i]);
    return sum;
}

struct loss {
    double with, without; /* relative errors: in the stored type, and if it reached everywhere */
};

/* type: what rounds the matrix as it is written; NULL: codes and scales by spec, in this format. */
static bool measure(const struct checkpoint *ck, const char *module, uint32_t rows, uint32_t cols,
                    const struct gguf_type *type, const struct quant_spec *spec, enum export_format f, struct loss *out,
                    struct err *e)
{
    struct sample x = {0};
    double norm = 0, with = 0, without = 0;
    x.row = malloc(cols * sizeof(float));
    x.other = malloc(2 * (size_t)cols * sizeof(float));
    x.packed = type ? malloc((size_t)gguf_row_bytes(type, cols)) : NULL;
    bool ok = (x.row && x.other && (!type || x.packed)) || err_nomem(e, module, cols * 12ull);
    uint32_t n = rows < SAMPLE_ROWS ? rows : SAMPLE_ROWS;
    for (uint32_t k = 0; ok && k < n; k++) {
        ok = checkpoint_read_f32(ck, module, (uint32_t)((uint64_t)rows * k / n), 1, x.row, e);
        float top = 0;
        for (uint32_t i = 0; ok && i < cols; i++)
            top = fabsf(x.row[i]) > top ? fabsf(x.row[i]) : top;
        if (!ok || !(top > 0) || !isfinite(top)) /* what is not finite is refused elsewhere */
            continue;
        int exponent;
        (void)frexpf(top, &exponent);
        double unit = 0;
        for (uint32_t i = 0; i < cols; i++) {
            x.other[i] = ldexpf(x.row[i], -exponent);
            unit += (double)x.other[i] * x.other[i];
        }
        double exact = type ? rounded_error(type, x.other, cols, &x) : coded_error(spec, f, x.other, cols);
        double real = type ? rounded_error(type, x.row, cols, &x) : coded_error(spec, f, x.row, cols);
        norm += ldexp(unit, 2 * exponent);
        without += ldexp(exact, 2 * exponent);
        with += real;
    }
    *out = norm > 0 ? (struct loss){sqrt(with / norm), sqrt(without / norm)} : (struct loss){0, 0};
    free(x.row);
    free(x.other);
    free(x.packed);
    return ok;
}

static bool matters(const struct loss *l)
{
    return l->with > l->without + TOLERATED;
}

static void warn_loss(const struct plan_listener *l, const char *module, const char *type, const struct loss *x)
{
    char line[320];
    snprintf(line, sizeof line,
             "%s: its scales exceed the range of %s; the relative error of its weights is about %.2g (%.2g in "
             "range)",
             module, type, x->with, x->without);
    l->warn(l->ctx, line);
}

/* Scales that f16 does not hold: bf16 for all, where the format has it. Not of weights that are f16
 * themselves: they lose digits. */
static bool choose_bf16(struct plan *p, const struct model *m, const struct quantize_options *o,
                        const struct plan_listener *l, struct err *e)
{
    struct loss f16, bf16;
    char line[256];
    for (size_t i = 0; export_has_bf16_scales(o->format) && i < p->n_items; i++) {
        struct matrix *item = &p->items[i];
        struct weight_info w;
        if (!item->coded || item->spec.scale != SCALE_F16 || item->expert % EXPERT_STEP)
            continue;
        struct quant_spec other = item->spec;
        other.scale = SCALE_BF16;
        if (!checkpoint_weight(m->ck, item->module, &w, e))
            return false;
        if (w.dtype == DTYPE_F16)
            continue;
        if (!measure(m->ck, item->module, item->rows, item->cols, NULL, &item->spec, o->format, &f16, e) ||
            !measure(m->ck, item->module, item->rows, item->cols, NULL, &other, o->format, &bf16, e))
            return false;
        if (!matters(&f16) || matters(&bf16))
            continue;
        for (size_t k = 0; k < p->n_items; k++)
            if (p->items[k].spec.scale == SCALE_F16)
                p->items[k].spec.scale = SCALE_BF16;
        snprintf(line, sizeof line, "scales and 16-bit tensors are stored as bf16: f16 does not hold the scales of %s",
                 item->module);
        l->warn(l->ctx, line);
        return true;
    }
    return true;
}

static bool judge(const struct model *m, const char *module, uint32_t rows, uint32_t cols, const struct gguf_type *type,
                  const struct quant_spec *spec, enum export_format f, unsigned *found, const struct plan_listener *l,
                  struct err *e)
{
    struct loss x;
    if (!measure(m->ck, module, rows, cols, type, spec, f, &x, e))
        return false;
    if (!matters(&x))
        return true;
    if ((*found)++ < NAMED)
        warn_loss(l, module, type ? "f16" : scale_type_name(spec->scale), &x);
    return true;
}

bool plan_range(struct plan *p, const struct model *m, const struct quantize_options *o, const struct plan_listener *l,
                struct err *e)
{
    unsigned found = 0;
    char line[96];
    if (o->refine) /* its scales are there already */
        return true;
    bool ok = choose_bf16(p, m, o, l, e);
    for (size_t i = 0; ok && i < p->n_matrices; i++) {
        const struct matrix *x = &p->matrices[i];
        if (matrix_quantized(x) && x->expert % EXPERT_STEP == 0)
            ok = judge(m, x->module, x->rows, x->cols, x->coded ? NULL : x->type, &x->spec, o->format, &found, l, e);
    }
    if (ok && found > NAMED) {
        snprintf(line, sizeof line, "and so are those of %u more", found - NAMED);
        l->warn(l->ctx, line);
    }
    return ok;
}
