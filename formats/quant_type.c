#include "formats/quant_type.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"

static const int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113},
                    fp4_levels[16] = {-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12, 12};

/* Ternary takes two bits on disk. 5 to 7 bits exist in checkpoints of others: read, converted and rounded to,
 * not learned. Q2_0 and TQ2_0 hold 1 - c with the scale negated (docs/formats.md 8). */
const struct quant_type quant_types[QUANT_TYPES] = {
    {"ternary", -1, 1, 2, true, 0, 0, 0, 0, 0, NULL, 0},
    {"2", -2, 1, 2, true, 0, 0, 0, 0, 0, NULL, 0},
    {"3", -4, 3, 3, true, 0, 0, 0, 0, 0, NULL, 0},
    {"4", -8, 7, 4, true, 0, 0, 0, 0, 0, NULL, 0},
    {"8", -128, 127, 8, false, 0, 0, 0, 0, 0, NULL, 0},
    {"5", -16, 15, 5, false, 0, 0, 0, 0, 0, NULL, 0},
    {"6", -32, 31, 6, false, 0, 0, 0, 0, 0, NULL, 0},
    {"7", -64, 63, 7, false, 0, 0, 0, 0, 0, NULL, 0},
    [QUANT_Q2_0] = {"Q2_0", -2, 1, 2, true, 64, 0, 0, 0, 0, NULL, 0},
    [QUANT_TQ2_0] = {"TQ2_0", -2, 1, 2, true, 256, 0, 0, 0, 0, NULL, 0},
    [QUANT_TQ1_0] = {"TQ1_0", -1, 1, 2, true, 256, 0, 0, 0, 0, NULL, 0},
    [QUANT_Q4_0] = {"Q4_0", -8, 7, 4, true, 32, 0, 0, 0, 0, NULL, 0},
    [QUANT_Q5_0] = {"Q5_0", -16, 15, 5, true, 32, 0, 0, 0, 0, NULL, 0},
    [QUANT_Q8_0] = {"Q8_0", -127, 127, 8, false, 32, 0, 0, 0, 0, NULL, 0},
    [QUANT_Q2_K] = {"Q2_K", 0, 3, 2, true, 16, 256, 0, 15, 15, NULL, 0},
    [QUANT_Q3_K] = {"Q3_K", -4, 3, 3, true, 16, 256, -32, 31, 0, NULL, 0},
    [QUANT_Q4_K] = {"Q4_K", 0, 15, 4, true, 32, 256, 0, 63, 63, NULL, 0},
    [QUANT_Q5_K] = {"Q5_K", 0, 31, 5, true, 32, 256, 0, 63, 63, NULL, 0},
    [QUANT_Q6_K] = {"Q6_K", -32, 31, 6, true, 16, 256, -128, 127, 0, NULL, 0},
    [QUANT_IQ4_NL] = {"IQ4_NL", -127, 113, 4, true, 32, 0, 0, 0, 0, iq4_levels, 0},
    [QUANT_IQ4_XS] = {"IQ4_XS", -127, 113, 4, true, 32, 256, -32, 31, 0, iq4_levels, 0},
    [QUANT_MXFP4] = {"MXFP4", -12, 12, 4, true, 32, 0, 0, 0, 0, fp4_levels, SCALE_E8M0},
    [QUANT_NVFP4] = {"NVFP4", -12, 12, 4, true, 16, 0, 0, 0, 0, fp4_levels, SCALE_E4M3},
};

unsigned quant_type_planes(const struct quant_type *t)
{
    return t->offset_hi ? 2 : 1;
}

unsigned quant_type_levels(const struct quant_type *t)
{
    unsigned n = t->levels ? 1u << t->bits : (unsigned)(t->hi - t->lo + 1);
    while (t->levels && n > 1 && t->levels[n - 2] == t->levels[n - 1])
        n--;
    return n;
}

int quant_type_level(const struct quant_type *t, unsigned k)
{
    return t->levels ? t->levels[k] : t->lo + (int)k;
}

unsigned quant_type_number(const struct quant_type *t, int code)
{
    unsigned k = 0;
    if (code < t->lo || code > t->hi)
        return UINT_MAX;
    if (!t->levels)
        return (unsigned)(code - t->lo);
    while (t->levels[k] < code)
        k++;
    return t->levels[k] == code ? k : UINT_MAX;
}

int quant_type_nearest(const struct quant_type *t, float x)
{
    if (!t->levels)
        return x <= (float)t->lo ? t->lo : x >= (float)t->hi ? t->hi : (int)rintf(x);
    unsigned k = 0;
    while (k + 1 < quant_type_levels(t) && 2 * x > (float)t->levels[k] + (float)t->levels[k + 1])
        k++;
    return t->levels[k];
}

uint32_t quant_row_groups(const struct quant_spec *spec, uint32_t cols)
{
    return quant_type_planes(spec->type) * (uint32_t)div_up(cols, spec->group);
}

uint32_t quant_super_groups(const struct quant_spec *spec)
{
    return spec->type->super ? spec->type->super / spec->group : 1;
}

uint32_t quant_row_scales(const struct quant_spec *spec, uint32_t cols)
{
    return quant_row_groups(spec, cols) / quant_super_groups(spec);
}

const struct quant_type *quant_type_at(size_t i)
{
    return i < QUANT_TYPES ? &quant_types[i] : NULL;
}

const struct quant_type *quant_type_find(const char *name)
{
    for (size_t i = 0; quant_type_at(i); i++) {
        if (strcmp(quant_types[i].name, name) == 0)
            return &quant_types[i];
    }
    return NULL;
}

const struct quant_type *quant_type_of_bits(unsigned bits)
{
    for (size_t i = 0; quant_type_at(i); i++) {
        if (!quant_types[i].group && quant_types[i].bits == bits &&
            quant_types[i].hi - quant_types[i].lo + 1 == 1 << bits)
            return &quant_types[i];
    }
    return NULL;
}

const struct quant_type *quant_type_plain(const struct quant_type *t)
{
    const struct quant_type *p;
    if (!t->group)
        return t;
    for (size_t i = 0; !t->super && (p = quant_type_at(i)); i++)
        if (!p->group && p->bits == t->bits && p->lo <= t->lo && p->hi >= t->hi)
            return p;
    return NULL;
}

double quant_spec_bpw(const struct quant_spec *s, uint64_t rows, uint64_t cols)
{
    if (!rows || !cols)
        return 0;
    /* Of a type with super-blocks: one f16 (or two) of each, and the integers. */
    if (s->type->super) {
        unsigned planes = quant_type_planes(s->type), width = 0;
        while ((s->type->scale_hi - s->type->scale_lo) >> width)
            width++;
        return s->type->bits + planes * (16.0 / s->type->super + (double)width / s->group);
    }
    uint64_t groups = s->group ? div_up(cols, s->group) : 1;
    return s->type->bits + (s->type->scale ? 8.0 : 16.0) * (double)groups / (double)cols;
}

enum scale_type quant_type_scale(const struct quant_type *t)
{
    return t->scale ? t->scale : SCALE_F16;
}

const char *scale_type_name(enum scale_type t)
{
    static const char *const names[] = {"f32", "f16", "bf16", "e8m0", "e4m3"};
    return names[t];
}

/* Of which 12 times as much is a number, too. */
static float to_power(float v)
{
    int e;
    float m = frexpf(fminf(fmaxf(v, 0x1p-126f), 0x1p124f), &e);
    return ldexpf(1, m == 0.5f ? e - 1 : e);
}

static float to_e4m3(float v)
{
    int e;
    v = fminf(fmaxf(v, 0x1p-10f), 224);
    frexpf(v, &e);
    e = (e < -6 ? -6 : e) - 4; /* the last bit's */
    return ldexpf(rintf(ldexpf(v, -e)), e);
}

float scale_round(enum scale_type t, float v)
{
    switch (t) {
    case SCALE_F16:
        return f16_to_f32(f32_to_f16(v));
    case SCALE_BF16:
        return bf16_to_f32(f32_to_bf16(v));
    case SCALE_E8M0:
        return v == 0 ? 0 : to_power(v);
    case SCALE_E4M3:
        return v == 0 ? 0 : to_e4m3(v);
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
    uint64_t n = (uint64_t)rows * cols, scale_bytes;
    uint64_t n_scales = (uint64_t)rows * quant_row_scales(&q->spec, cols);
    uint64_t n_groups = (uint64_t)rows * quant_row_groups(&q->spec, cols);
    if (spec.type->super && (cols % spec.type->super || spec.group != spec.type->group))
        return err_set(e, ERR_BUG, "%u columns in groups of %u are no super-blocks of %s", (unsigned)cols,
                       (unsigned)spec.group, spec.type->name);
    if (n > SIZE_MAX || !mul_u64(n_scales, sizeof *q->scales, &scale_bytes) || scale_bytes > SIZE_MAX)
        return err_nomem(e, "a quantized matrix", n);
    q->codes = calloc((size_t)n, sizeof *q->codes);
    q->scales = calloc((size_t)n_scales, sizeof *q->scales);
    q->integers = spec.type->super ? calloc((size_t)n_groups, sizeof *q->integers) : NULL;
    if (!q->codes || !q->scales || (spec.type->super && !q->integers)) {
        qlinear_free(q);
        return err_nomem(e, "a quantized matrix", n + scale_bytes);
    }
    return true;
}

float qlinear_scale(const struct qlinear *q, uint32_t row, uint32_t plane, uint32_t g)
{
    size_t i = ((size_t)row * quant_type_planes(q->spec.type) + plane) * q->groups + g;
    if (!q->integers)
        return q->scales[i];
    return q->integers[i] ? q->scales[i / quant_super_groups(&q->spec)] * (float)q->integers[i] : 0;
}

static void copy_row(struct qlinear *q, uint32_t to, const struct qlinear *from, uint32_t row)
{
    size_t scales = quant_row_scales(&q->spec, q->cols), groups = quant_row_groups(&q->spec, q->cols);
    memcpy(q->codes + (size_t)to * q->cols, from->codes + (size_t)row * q->cols, q->cols);
    memcpy(q->scales + to * scales, from->scales + row * scales, scales * sizeof *q->scales);
    if (q->integers)
        memcpy(q->integers + to * groups, from->integers + row * groups, groups);
}

void qlinear_copy_row(struct qlinear *q, const struct qlinear *from, uint32_t row)
{
    copy_row(q, row, from, row);
}

void qlinear_copy_rows(struct qlinear *q, uint32_t row0, const struct qlinear *from)
{
    for (uint32_t r = 0; r < from->rows; r++)
        copy_row(q, row0 + r, from, r);
}

struct qlinear qlinear_rows(const struct qlinear *q, uint32_t row0, uint32_t rows)
{
    struct qlinear part = *q;
    part.rows = rows;
    part.codes += (size_t)row0 * q->cols;
    part.scales += (size_t)row0 * quant_row_scales(&q->spec, q->cols);
    if (part.integers)
        part.integers += (size_t)row0 * quant_row_groups(&q->spec, q->cols);
    return part;
}

void qlinear_free(struct qlinear *q)
{
    free(q->codes);
    free(q->scales);
    free(q->integers);
    *q = (struct qlinear){0};
}

void qlinear_dequant(const struct qlinear *q, uint32_t row0, uint32_t rows, float *dst)
{
    bool offsets = quant_type_planes(q->spec.type) > 1;
    for (uint32_t r = row0; r < row0 + rows; r++, dst += q->cols) {
        const int8_t *codes = q->codes + (size_t)r * q->cols;
        for (uint32_t g = 0; g < q->groups; g++) {
            float scale = qlinear_scale(q, r, 0, g), offset = offsets ? qlinear_scale(q, r, 1, g) : 0;
            uint32_t c = g * q->spec.group;
            uint32_t end = q->cols - c < q->spec.group ? q->cols : c + q->spec.group;
            for (; c < end; c++)
                dst[c] = (float)codes[c] * scale + offset;
        }
    }
}
