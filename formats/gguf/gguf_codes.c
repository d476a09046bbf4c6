/* Codes and scales in neutral form to blocks of GGUF, and back: exact. */
#include <math.h>

#include "formats/gguf/gguf_blocks.h"
#include "host/base/num.h"

/* code = down ? bias - q : q - bias, or levels[q]. Q2_0 and TQ2_0 count their codes down: their d is -s. */
struct coding {
    bool down;
    int bias, most; /* q is 0 to most */
    const int8_t *levels;
};

static struct coding coding_of(const struct gguf_type *t)
{
    /* Of Q8_0 one code more than its quantizers make: -128 is stored and decoded right. */
    return (struct coding){t->id == GGML_Q2_0 || t->id == GGML_TQ2_0, gguf_block_bias(t),
                           t->id == GGML_TQ1_0 ? 2 : (1 << t->codes->bits) - 1, gguf_block_levels(t)};
}

static inline int q_of(struct coding k, int code)
{
    int q = 0;
    if (!k.levels)
        return k.down ? k.bias - code : code + k.bias;
    while (q <= k.most && k.levels[q] != code)
        q++;
    return q;
}

static inline int code_of(struct coding k, int q)
{
    return k.levels ? k.levels[q] : k.down ? k.bias - q : q - k.bias;
}

static bool spec_fits(const struct gguf_type *t, const struct quant_spec *spec, uint64_t cols)
{
    const struct quant_type *k = t->codes, *given = spec->type;
    if (!k || cols % t->block)
        return false;
    if (k->super || given->super || k->offset_hi || given->offset_hi || k->levels || given->levels)
        return given == k && spec->group == k->group;
    struct coding coding = coding_of(t);
    int low = q_of(coding, given->lo), high = q_of(coding, given->hi);
    return low >= 0 && low <= coding.most && high >= 0 && high <= coding.most && spec->group &&
           (spec->group % t->block == 0 || spec->group >= cols);
}

/* The f16 d of a block, or its dmin; false: it is none. */
static bool half_of(float x, uint16_t *half)
{
    *half = f32_to_f16(x);
    return isfinite(x) && f16_to_f32(*half) == x;
}

/* One plane of a super-block, whose integers go to out. */
static bool put_plane(const struct qlinear *q, uint32_t row, uint32_t plane, uint64_t super, uint16_t *d, int16_t *out)
{
    const struct quant_type *k = q->spec.type;
    uint32_t planes = quant_type_planes(k), per = quant_super_groups(&q->spec);
    size_t at = ((size_t)row * planes + plane) * (q->groups / per) + super;
    int lo = plane ? 0 : k->scale_lo, hi = plane ? k->offset_hi : k->scale_hi;
    bool ok = half_of(plane ? 0 - q->scales[at] : q->scales[at], d);
    for (uint32_t i = 0; i < per; i++) {
        out[i] = q->integers[at * per + i];
        ok = ok && out[i] >= lo && out[i] <= hi;
    }
    return ok;
}

static bool put_scales(const struct gguf_type *t, const struct qlinear *q, uint32_t row, uint64_t col,
                       struct gguf_block *b, struct err *e)
{
    if (t->codes->super) {
        uint64_t super = col / t->block;
        if (put_plane(q, row, 0, super, &b->d, b->scale) &&
            (!t->codes->offset_hi || put_plane(q, row, 1, super, &b->m, b->offset)))
            return true;
        return err_set(e, ERR_BUG, "scales of columns %llu to %llu are not what %s can hold", (unsigned long long)col,
                       (unsigned long long)(col + t->block - 1), t->name);
    }
    uint64_t g = col / q->spec.group;
    for (uint32_t i = 0; t->codes->scale && i < t->block / t->codes->group; i++) {
        uint8_t byte;
        if (!gguf_scale_to_byte(t->codes->scale, q->scales[(size_t)row * q->groups + g + i], &byte))
            return err_set(e, ERR_BUG, "the scale of column %llu is not what %s can hold", (unsigned long long)col,
                           t->name);
        b->d = b->scale[i] = byte;
    }
    if (t->codes->scale)
        return true;
    float scale = q->scales[(size_t)row * q->groups + g];
    if (half_of(coding_of(t).down ? -scale : scale, &b->d))
        return true;
    err_set(e, ERR_USER, "the scale %g at column %llu is not a 16-bit float, as %s needs", (double)scale,
            (unsigned long long)(g * q->spec.group), t->name);
    return err_hint(e, "quantize with f16 scales, or to another type");
}

bool gguf_pack_row(const struct gguf_type *t, const struct qlinear *q, uint32_t row, void *dst, struct err *e)
{
    if (!spec_fits(t, &q->spec, q->cols))
        return err_set(e, ERR_BUG, "codes of type %s, group %u, %u columns cannot be stored as %s", q->spec.type->name,
                       (unsigned)q->spec.group, (unsigned)q->cols, t->name);
    struct coding coding = coding_of(t);
    const struct quant_type *k = t->codes;
    const int8_t *codes = q->codes + (size_t)row * q->cols;
    uint8_t *bytes = dst;
    struct gguf_block b;
    for (uint32_t c = 0; c < q->cols; c += t->block, bytes += t->bytes) {
        if (!put_scales(t, q, row, c, &b, e))
            return false;
        /* The least power of two is no zero. */
        bool zero = k->scale == SCALE_E8M0 && q->scales[(size_t)row * q->groups + c / k->group] == 0;
        for (uint32_t i = 0; i < t->block; i++) {
            int code = q_of(coding, zero ? 0 : codes[c + i]);
            if (code < 0 || code > coding.most)
                return err_set(e, ERR_BUG, "code %d in column %u is none of %s", codes[c + i], (unsigned)(c + i),
                               t->name);
            b.q[i] = (uint8_t)code;
        }
        gguf_block_store(t, &b, bytes);
    }
    return true;
}

void gguf_unpack_row(const struct gguf_type *t, const void *src, struct qlinear *q, uint32_t row)
{
    const struct quant_type *k = t->codes;
    struct coding coding = coding_of(t);
    const uint8_t *bytes = src;
    uint32_t per = quant_super_groups(&q->spec), planes = quant_type_planes(k), supers = q->groups / per;
    int8_t *codes = q->codes + (size_t)row * q->cols;
    float *scales = q->scales + (size_t)row * planes * supers;
    struct gguf_block b;
    for (uint32_t c = 0; c < q->cols; c += t->block, bytes += t->bytes) {
        gguf_block_load(t, bytes, &b);
        for (uint32_t i = 0; i < t->block; i++)
            codes[c + i] = (int8_t)code_of(coding, b.q[i]);
        for (uint32_t i = 0; k->scale && i < t->block / k->group; i++)
            scales[c / k->group + i] =
                gguf_scale_of_byte(k->scale, (uint8_t)(k->scale == SCALE_E8M0 ? b.d : b.scale[i]));
        if (k->scale)
            continue;
        float d = f16_to_f32(b.d);
        if (!k->super) {
            for (uint32_t g = c / k->group; g < (c + t->block) / k->group; g++)
                scales[g] = coding.down ? -d : d;
            continue;
        }
        int8_t *integers = q->integers + (size_t)row * planes * q->groups + c / k->group;
        scales[c / k->super] = d;
        if (planes > 1)
            scales[supers + c / k->super] = -f16_to_f32(b.m);
        for (uint32_t i = 0; i < planes * per; i++)
            integers[i < per ? i : q->groups + i - per] = (int8_t)(i < per ? b.scale[i] : b.offset[i - per]);
    }
}

void gguf_replace_codes(const struct gguf_type *t, const void *src, const int8_t *codes, uint64_t cols, void *dst)
{
    struct coding coding = coding_of(t);
    const uint8_t *from = src;
    uint8_t *to = dst;
    struct gguf_block b;
    for (uint64_t c = 0; c < cols; c += t->block, from += t->bytes, to += t->bytes) {
        gguf_block_load(t, from, &b);
        for (uint32_t i = 0; i < t->block; i++)
            b.q[i] = (uint8_t)q_of(coding, codes[c + i]);
        gguf_block_store(t, &b, to);
    }
}
