/* Codes and scales in neutral form to blocks of GGUF, and back: exact. */
#include <math.h>

#include "formats/gguf/gguf_blocks.h"
#include "host/base/num.h"

/* code = down ? bias - q : q - bias. Q2_0 and TQ2_0 count their codes down: their d is -s. */
struct coding {
    bool down;
    int bias, most; /* q is 0 to most */
};

static struct coding coding_of(const struct gguf_type *t)
{
    /* Of Q8_0 one code more than its quantizers make: -128 is stored and decoded right. */
    return (struct coding){t->id == GGML_Q2_0 || t->id == GGML_TQ2_0, gguf_block_bias(t),
                           t->id == GGML_TQ1_0 ? 2 : (1 << t->codes->bits) - 1};
}

static inline int q_of(struct coding k, int code)
{
    return k.down ? k.bias - code : code + k.bias;
}

static bool spec_fits(const struct gguf_type *t, const struct quant_spec *spec, uint64_t cols)
{
    const struct quant_type *k = t->codes, *given = spec->type;
    if (!k || cols % t->block)
        return false;
    if (k->super || given->super || k->offset_hi || given->offset_hi)
        return given == k && spec->group == k->group;
    struct coding coding = coding_of(t);
    int low = q_of(coding, given->lo), high = q_of(coding, given->hi);
    return low >= 0 && low <= coding.most && high >= 0 && high <= coding.most && spec->group &&
           (spec->group % t->block == 0 || spec->group >= cols);
}

/* d and the integers of one plane of a super-block. */
static bool solve_plane(const struct gguf_type *t, const float *scales, int lo, int hi, const char *what,
                        uint64_t first, uint16_t *d, int16_t *integers, struct err *e)
{
    uint32_t n = t->block / t->codes->group;
    if (quant_super_solve(scales, n, lo, hi, d, integers))
        return true;
    return err_set(e, ERR_BUG,
                   "%s of columns %llu to %llu are not one f16 number times integers in [%d, %d], as %s needs", what,
                   (unsigned long long)first, (unsigned long long)(first + t->block - 1), lo, hi, t->name);
}

static bool block_scales(const struct gguf_type *t, const struct quant_spec *spec, const float *scales, uint64_t groups,
                         uint64_t first, struct gguf_block *b, struct err *e)
{
    const struct quant_type *k = t->codes;
    uint64_t g = first / spec->group;
    if (k->super) {
        if (!solve_plane(t, scales + g, k->scale_lo, k->scale_hi, "scales", first, &b->d, b->scale, e))
            return false;
        if (!k->offset_hi)
            return true;
        float down[16];
        for (uint32_t i = 0; i < t->block / k->group; i++)
            down[i] = -scales[groups + g + i];
        return solve_plane(t, down, 0, k->offset_hi, "offsets", first, &b->m, b->offset, e);
    }
    float d = coding_of(t).down ? -scales[g] : scales[g];
    b->d = f32_to_f16(d);
    if (isfinite(d) && f16_to_f32(b->d) == d)
        return true;
    err_set(e, ERR_USER, "scale %g of columns %llu on is not a 16-bit float, which is what %s stores",
            (double)scales[g], (unsigned long long)(g * spec->group), t->name);
    return err_hint(e, "quantize with f16 scales, or to another type");
}

bool gguf_pack_row(const struct gguf_type *t, const struct quant_spec *spec, const int8_t *codes, const float *scales,
                   uint64_t cols, void *dst, struct err *e)
{
    if (!spec_fits(t, spec, cols))
        return err_set(e, ERR_BUG, "codes of type %s, group %u, %llu columns cannot be stored as %s", spec->type->name,
                       (unsigned)spec->group, (unsigned long long)cols, t->name);
    struct coding coding = coding_of(t);
    uint8_t *bytes = dst;
    struct gguf_block b;
    for (uint64_t c = 0; c < cols; c += t->block, bytes += t->bytes) {
        if (!block_scales(t, spec, scales, div_up(cols, spec->group), c, &b, e))
            return false;
        for (uint32_t i = 0; i < t->block; i++) {
            int q = q_of(coding, codes[c + i]);
            if (q < 0 || q > coding.most)
                return err_set(e, ERR_BUG, "code %d in column %llu is none of %s", codes[c + i],
                               (unsigned long long)(c + i), t->name);
            b.q[i] = (uint8_t)q;
        }
        gguf_block_store(t, &b, bytes);
    }
    return true;
}

void gguf_unpack_row(const struct gguf_type *t, const void *src, uint64_t cols, int8_t *codes, float *scales)
{
    const struct quant_type *k = t->codes;
    struct coding coding = coding_of(t);
    const uint8_t *bytes = src;
    uint64_t groups = cols / k->group;
    struct gguf_block b;
    for (uint64_t c = 0; c < cols; c += t->block, bytes += t->bytes) {
        gguf_block_load(t, bytes, &b);
        for (uint32_t i = 0; i < t->block; i++)
            codes[c + i] = (int8_t)(coding.down ? coding.bias - b.q[i] : b.q[i] - coding.bias);
        float d = f16_to_f32(b.d);
        for (uint32_t i = 0; i < t->block / k->group; i++) {
            uint64_t g = c / k->group + i;
            scales[g] = k->super ? d * (float)b.scale[i] : coding.down ? -d : d;
            if (k->offset_hi)
                scales[groups + g] = -(f16_to_f32(b.m) * (float)b.offset[i]);
        }
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
