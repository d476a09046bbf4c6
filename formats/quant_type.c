#include "formats/quant_type.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"

/* Ternary takes two bits on disk. 5 to 7 bits exist in checkpoints of others: read, converted and rounded to,
 * not learned. */
static const struct quant_type types[] = {
    {"ternary", -1, 1, 2, true}, {"2", -2, 1, 2, true},    {"3", -4, 3, 3, true},    {"4", -8, 7, 4, true},
    {"8", -128, 127, 8, false},  {"5", -16, 15, 5, false}, {"6", -32, 31, 6, false}, {"7", -64, 63, 7, false},
};

const struct quant_type *quant_type_at(size_t i)
{
    return i < sizeof types / sizeof types[0] ? &types[i] : NULL;
}

const struct quant_type *quant_type_find(const char *name)
{
    for (size_t i = 0; quant_type_at(i); i++) {
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    }
    return NULL;
}

const struct quant_type *quant_type_of_bits(unsigned bits)
{
    for (size_t i = 0; quant_type_at(i); i++) {
        if (types[i].bits == bits && types[i].hi - types[i].lo + 1 == 1 << bits)
            return &types[i];
    }
    return NULL;
}

double quant_spec_bpw(const struct quant_spec *s, uint64_t rows, uint64_t cols)
{
    if (!rows || !cols)
        return 0;
    uint64_t groups = s->group ? div_up(cols, s->group) : 1;
    return s->type->bits + 16.0 * (double)groups / (double)cols;
}

const char *scale_type_name(enum scale_type t)
{
    return t == SCALE_F16 ? "f16" : t == SCALE_BF16 ? "bf16" : "f32";
}

float scale_round(enum scale_type t, float v)
{
    switch (t) {
    case SCALE_F16:
        return f16_to_f32(f32_to_f16(v));
    case SCALE_BF16:
        return bf16_to_f32(f32_to_bf16(v));
    case SCALE_F32:
        break;
    }
    return v;
}

bool qlinear_init(struct qlinear *q, uint32_t rows, uint32_t cols, struct quant_spec spec, struct err *e)
{
    *q = (struct qlinear){.rows = rows, .cols = cols, .spec = spec};
    if (q->spec.group == 0)
        q->spec.group = cols; /* one group per row */
    if (!rows || !cols || !spec.type)
        return err_set(e, ERR_BUG, "a quantized matrix of %u x %u%s", (unsigned)rows, (unsigned)cols,
                       spec.type ? "" : " without a type");
    q->groups = (uint32_t)div_up(cols, q->spec.group);
    uint64_t n = (uint64_t)rows * cols, n_scales = (uint64_t)rows * q->groups, scale_bytes;
    if (n > SIZE_MAX || !mul_u64(n_scales, sizeof *q->scales, &scale_bytes) || scale_bytes > SIZE_MAX)
        return err_nomem(e, "a quantized matrix", n);
    q->codes = calloc((size_t)n, sizeof *q->codes);
    q->scales = calloc((size_t)n_scales, sizeof *q->scales);
    if (!q->codes || !q->scales) {
        qlinear_free(q);
        return err_nomem(e, "a quantized matrix", n + scale_bytes);
    }
    return true;
}

void qlinear_free(struct qlinear *q)
{
    free(q->codes);
    free(q->scales);
    *q = (struct qlinear){0};
}

void qlinear_dequant(const struct qlinear *q, uint32_t row0, uint32_t rows, float *dst)
{
    for (uint32_t r = 0; r < rows; r++) {
        const int8_t *codes = q->codes + (size_t)(row0 + r) * q->cols;
        const float *scales = q->scales + (size_t)(row0 + r) * q->groups;
        float *out = dst + (size_t)r * q->cols;
        for (uint32_t g = 0; g < q->groups; g++) {
            uint32_t c = g * q->spec.group;
            uint32_t end = q->cols - c < q->spec.group ? q->cols : c + q->spec.group;
            for (; c < end; c++)
                out[c] = (float)codes[c] * scales[g];
        }
    }
}
