#include "formats/gguf/gguf_blocks.h"

#include <math.h>
#include <string.h>

#include "formats/gguf/gguf_codebooks.h"
#include "host/base/num.h"

/* Where a field of `bits` per weight lies: chunks of `run` bytes, each holding run weights at the lowest bits
 * of its bytes, then the next run weights above them, and so on. bits 0: no such field. */
struct field {
    uint16_t at;
    uint8_t run, bits;
};
enum { NOWHERE = 0xFFFF };
struct layout {
    int id, bias;
    struct field low, high; /* high: the bits above low's */
    uint16_t d_at, m_at;
};
/* The table of docs/formats.md 8, and ggml's format for the types that are only read. TQ1_0 packs trits: no fields. */
static const struct layout layouts[] = {
    {GGML_Q2_0, 1, {2, 1, 2}, {0}, 0, NOWHERE},
    {GGML_TQ2_0, 1, {0, 32, 2}, {0}, 64, NOWHERE},
    {GGML_TQ1_0, 1, {0}, {0}, 52, NOWHERE},
    {GGML_Q4_0, 8, {2, 16, 4}, {0}, 0, NOWHERE},
    {GGML_Q4_1, 0, {4, 16, 4}, {0}, 0, 2},
    {GGML_Q5_0, 16, {6, 16, 4}, {2, 1, 1}, 0, NOWHERE},
    {GGML_Q5_1, 0, {8, 16, 4}, {4, 1, 1}, 0, 2},
    {GGML_Q8_0, 128, {2, 1, 8}, {0}, 0, NOWHERE},
    {GGML_Q2_K, 0, {16, 32, 2}, {0}, 80, 82},
    {GGML_Q3_K, 4, {32, 32, 2}, {0, 32, 1}, 108, NOWHERE},
    {GGML_Q4_K, 0, {16, 32, 4}, {0}, 0, 2},
    {GGML_Q5_K, 0, {48, 32, 4}, {16, 32, 1}, 0, 2},
    {GGML_Q6_K, 32, {0, 64, 4}, {128, 32, 2}, 208, NOWHERE},
    {GGML_IQ4_NL, 0, {2, 16, 4}, {0}, 0, NOWHERE},
    {GGML_IQ4_XS, 0, {8, 16, 4}, {0}, 0, NOWHERE},
    {GGML_MXFP4, 0, {1, 16, 4}, {0}, NOWHERE, NOWHERE},
    {GGML_NVFP4, 0, {4, 8, 4}, {0}, NOWHERE, NOWHERE},
    {GGML_Q1_0, 0, {2, 1, 1}, {0}, 0, NOWHERE},
};
/* Of MXFP4 and NVFP4 the levels of E2M1 doubled, in its order. */
const int8_t *gguf_block_levels(const struct gguf_type *t)
{
    static const int8_t fp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    static const int8_t sign[2] = {-1, 1};
    return t->id == GGML_MXFP4 || t->id == GGML_NVFP4 ? fp4
           : t->id == GGML_Q1_0                       ? sign
           : t->codes                                 ? t->codes->levels
                                                      : NULL;
}

static const struct layout *layout_of(const struct gguf_type *t)
{
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        if (layouts[i].id == t->id)
            return &layouts[i];
    }
    return NULL; /* F32, F16, BF16 */
}

int gguf_block_bias(const struct gguf_type *t)
{
    return layout_of(t)->bias;
}

int gguf_block_code(const struct gguf_type *t, int level)
{
    const struct layout *l = layout_of(t);
    const int8_t *levels = gguf_block_levels(t);
    int n = t->id == GGML_TQ1_0 ? 3 : 1 << (l->low.bits + l->high.bits), q = levels ? 0 : level + l->bias;
    /* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): a table has a level for each code of so many bits */
    while (levels && q < n && levels[q] != level)
        q++;
    return q >= 0 && q < n ? q : -1;
}

/* ---- codes ---- */

/* ORs field f of n weights into q, `shift` bits up. */
static void field_load(const uint8_t *bytes, struct field f, unsigned shift, uint32_t n, uint8_t *q)
{
    unsigned mask = (1u << f.bits) - 1;
    const uint8_t *chunk = bytes + f.at;
    for (uint32_t e = 0; f.bits && e < n; chunk += f.run) {
        for (unsigned bit = 0; bit < 8; bit += f.bits, e += f.run) {
            for (uint32_t r = 0; r < f.run; r++)
                q[e + r] |= (uint8_t)((chunk[r] >> bit & mask) << shift);
        }
    }
}

static void field_store(uint8_t *bytes, struct field f, unsigned shift, uint32_t n, const uint8_t *q)
{
    unsigned mask = (1u << f.bits) - 1;
    uint8_t *chunk = bytes + f.at;
    for (uint32_t e = 0; f.bits && e < n; chunk += f.run) {
        memset(chunk, 0, f.run);
        for (unsigned bit = 0; bit < 8; bit += f.bits, e += f.run) {
            for (uint32_t r = 0; r < f.run; r++)
                chunk[r] |= (uint8_t)((q[e + r] >> shift & mask) << bit);
        }
    }
}

/* TQ1_0: five trits a byte in runs of 32 and 16 bytes, then four trits a byte. */
static const struct {
    uint8_t at, run, trits;
} trit_runs[] = {{0, 32, 5}, {32, 16, 5}, {48, 4, 4}};

/* A byte is a fraction of 256: times 3, the whole part is the next trit. */
static void trits_load(const uint8_t *bytes, uint8_t *q)
{
    for (size_t i = 0; i < 3; i++) {
        for (uint32_t r = 0; r < trit_runs[i].run; r++) {
            unsigned rest = bytes[trit_runs[i].at + r];
            for (uint32_t n = 0; n < trit_runs[i].trits; n++) {
                rest *= 3;
                q[n * trit_runs[i].run + r] = (uint8_t)(rest >> 8);
                rest &= 255;
            }
        }
        q += trit_runs[i].run * trit_runs[i].trits;
    }
}

static void trits_store(uint8_t *bytes, const uint8_t *q)
{
    for (size_t i = 0; i < 3; i++) {
        for (uint32_t r = 0; r < trit_runs[i].run; r++) {
            unsigned v = 0;
            for (uint32_t n = 0; n < 5; n++)
                v = v * 3 + (n < trit_runs[i].trits ? q[n * trit_runs[i].run + r] : 0);
            bytes[trit_runs[i].at + r] = (uint8_t)((v * 256 + 242) / 243);
        }
        q += trit_runs[i].run * trit_runs[i].trits;
    }
}

static void codes_load(const struct gguf_type *t, const struct layout *l, const uint8_t *bytes, uint8_t *q)
{
    if (t->id == GGML_TQ1_0) {
        trits_load(bytes, q);
        return;
    }
    memset(q, 0, t->block);
    field_load(bytes, l->low, 0, t->block, q);
    field_load(bytes, l->high, l->low.bits, t->block, q);
    for (uint32_t i = 0; t->id == GGML_Q8_0 && i < t->block; i++)
        q[i] ^= 128; /* two's complement to offset binary */
}

static void codes_store(const struct gguf_type *t, const struct layout *l, const uint8_t *q, uint8_t *bytes)
{
    if (t->id == GGML_TQ1_0) {
        trits_store(bytes, q);
        return;
    }
    field_store(bytes, l->low, 0, t->block, q);
    field_store(bytes, l->high, l->low.bits, t->block, q);
    for (uint32_t i = 0; t->id == GGML_Q8_0 && i < t->block; i++)
        bytes[l->low.at + i] ^= 128;
}

/* ---- the integers of super-blocks ---- */

static void integers_load(const struct gguf_type *t, const uint8_t *bytes, int16_t *scale, int16_t *offset)
{
    const uint8_t *s;
    switch (t->id) {
    case GGML_Q2_K:
        for (int k = 0; k < 16; k++) {
            scale[k] = bytes[k] & 15;
            offset[k] = bytes[k] >> 4;
        }
        break;
    case GGML_Q3_K:
        s = bytes + 96;
        for (int k = 0; k < 16; k++) {
            int low = k < 8 ? s[k] & 15 : s[k - 8] >> 4;
            scale[k] = (int16_t)((low | (s[8 + k % 4] >> 2 * (k / 4) & 3) << 4) - 32);
        }
        break;
    case GGML_Q4_K:
    case GGML_Q5_K:
        s = bytes + 4;
        for (int k = 0; k < 4; k++) {
            scale[k] = s[k] & 63;
            offset[k] = s[k + 4] & 63;
            scale[k + 4] = (int16_t)((s[k + 8] & 15) | s[k] >> 6 << 4);
            offset[k + 4] = (int16_t)(s[k + 8] >> 4 | s[k + 4] >> 6 << 4);
        }
        break;
    case GGML_Q6_K:
        for (int k = 0; k < 16; k++)
            scale[k] = (int16_t)((bytes[192 + k] ^ 128) - 128);
        break;
    case GGML_IQ4_XS:
        for (int k = 0; k < 8; k++)
            scale[k] = (int16_t)((bytes[4 + k / 2] >> k % 2 * 4 & 15) | (load_u16le(bytes + 2) >> 2 * k & 3) << 4) - 32;
        break;
    case GGML_NVFP4:
        for (int k = 0; k < 4; k++)
            scale[k] = bytes[k];
        break;
    default:
        break;
    }
}

static void integers_store(const struct gguf_type *t, const int16_t *scale, const int16_t *offset, uint8_t *bytes)
{
    uint8_t *s;
    switch (t->id) {
    case GGML_Q2_K:
        for (int k = 0; k < 16; k++)
            bytes[k] = (uint8_t)(scale[k] | offset[k] << 4);
        break;
    case GGML_Q3_K:
        s = bytes + 96;
        memset(s, 0, 12);
        for (int k = 0; k < 16; k++) {
            unsigned v = (unsigned)(scale[k] + 32);
            s[k % 8] |= (uint8_t)((v & 15) << (k < 8 ? 0 : 4));
            s[8 + k % 4] |= (uint8_t)(v >> 4 << 2 * (k / 4));
        }
        break;
    case GGML_Q4_K:
    case GGML_Q5_K:
        s = bytes + 4;
        for (int k = 0; k < 4; k++) {
            s[k] = (uint8_t)(scale[k] | scale[k + 4] >> 4 << 6);
            s[k + 4] = (uint8_t)(offset[k] | offset[k + 4] >> 4 << 6);
            s[k + 8] = (uint8_t)((scale[k + 4] & 15) | (offset[k + 4] & 15) << 4);
        }
        break;
    case GGML_Q6_K:
        for (int k = 0; k < 16; k++)
            bytes[192 + k] = (uint8_t)scale[k];
        break;
    case GGML_IQ4_XS: {
        uint16_t high = 0;
        memset(bytes + 4, 0, 4);
        for (int k = 0; k < 8; k++) {
            unsigned v = (unsigned)(scale[k] + 32);
            bytes[4 + k / 2] |= (uint8_t)((v & 15) << k % 2 * 4);
            high |= (uint16_t)(v >> 4 << 2 * k);
        }
        store_u16le(bytes + 2, high);
        break;
    }
    case GGML_NVFP4:
        for (int k = 0; k < 4; k++)
            bytes[k] = (uint8_t)scale[k];
        break;
    default:
        break;
    }
}

/* ---- blocks ---- */

void gguf_block_load(const struct gguf_type *t, const uint8_t *bytes, struct gguf_block *b)
{
    const struct layout *l = layout_of(t);
    codes_load(t, l, bytes, b->q);
    b->d = l->d_at == NOWHERE ? bytes[0] : load_u16le(bytes + l->d_at);
    b->m = l->m_at == NOWHERE ? 0 : load_u16le(bytes + l->m_at);
    integers_load(t, bytes, b->scale, b->offset);
}

void gguf_block_store(const struct gguf_type *t, const struct gguf_block *b, uint8_t *bytes)
{
    const struct layout *l = layout_of(t);
    codes_store(t, l, b->q, bytes);
    if (t->id == GGML_MXFP4)
        bytes[0] = (uint8_t)b->d;
    else if (l->d_at != NOWHERE)
        store_u16le(bytes + l->d_at, b->d);
    if (l->m_at != NOWHERE)
        store_u16le(bytes + l->m_at, b->m);
    integers_store(t, b->scale, b->offset, bytes);
}

/* Half of what an E4M3 byte without a sign says; 0 where that is no number, as ggml has it. */
static float e4m3_half(unsigned v)
{
    unsigned e = v >> 3 & 15, m = v & 7;
    if ((v & 255) == 0x7F)
        return 0;
    return ldexpf(e ? 8.0f + (float)m : (float)m, (int)(e ? e : 1) - 11);
}

/* 2^(e - 128): half of E8M0's value, as MXFP4's levels are doubled. The two lowest are subnormal. */
static float e8m0_half(unsigned e)
{
    return ldexpf(1.0f, (int)e - 128);
}

float gguf_scale_of_byte(enum scale_type t, uint8_t byte)
{
    return t == SCALE_E8M0 ? e8m0_half(byte) : e4m3_half(byte);
}

bool gguf_scale_to_byte(enum scale_type t, float scale, uint8_t *byte)
{
    int e;
    if (!(scale >= 0 && isfinite(scale)))
        return false;
    float m = frexpf(scale, &e); /* [0.5, 1) */
    *byte = 0;
    if (t == SCALE_E8M0 && scale > 0)
        *byte = (uint8_t)(e + 127);
    else if (scale > 0) /* 2^-7 is the least normal half */
        *byte = (uint8_t)(e < -6 ? ldexpf(scale, 10) : ldexpf(m, 4) - 8 + (float)((e + 7) * 8));
    return scale == 0 || gguf_scale_of_byte(t, *byte) == scale;
}

static void block_dequant(const struct gguf_type *t, const struct layout *l, const struct gguf_block *b, float *dst)
{
    const int8_t *level = gguf_block_levels(t);
    const struct quant_type *codes = t->codes; /* NULL: Q1_0, whose block has one scale */
    for (uint32_t i = 0; level && i < t->block; i++) {
        const int scale = codes ? b->scale[i / codes->group] : 0;
        float s = t->id == GGML_NVFP4   ? e4m3_half((unsigned)scale)
                  : t->id == GGML_MXFP4 ? e8m0_half(b->d)
                                        : f16_to_f32(b->d);
        if (codes && codes->super)
            s *= (float)scale;
        dst[i] = s * (float)level[b->q[i]];
    }
    if (level)
        return;
    const struct quant_type *k = t->codes;
    float d = f16_to_f32(b->d), m = l->m_at == NOWHERE ? 0 : f16_to_f32(b->m);
    uint32_t group = k ? k->group : t->block;
    for (uint32_t i = 0; i < t->block; i += group) {
        bool super = k && k->super;
        float s = super ? d * (float)b->scale[i / group] : d;     /* NOLINT(bugprone-integer-division): an index */
        float o = super ? -(m * (float)b->offset[i / group]) : m; /* NOLINT(bugprone-integer-division): an index */
        if (l->m_at == NOWHERE) {                                 /* no sum: the sign of a zero stays */
            for (uint32_t c = i; c < i + group; c++)
                dst[c] = (float)((int)b->q[c] - l->bias) * s;
        } else {
            for (uint32_t c = i; c < i + group; c++)
                dst[c] = (float)b->q[c] * s + o;
        }
    }
}

void gguf_dequant(const struct gguf_type *t, const void *src, uint64_t n, float *dst)
{
    const uint8_t *bytes = src;
    const struct layout *l = layout_of(t);
    struct gguf_block b;
    for (uint64_t i = 0; gguf_codebook_type(t) && i < n; i += t->block)
        gguf_codebook_dequant(t, bytes + i / t->block * t->bytes, dst + i);
    for (uint64_t i = 0; l && i < n; i += t->block, bytes += t->bytes) {
        gguf_block_load(t, bytes, &b);
        block_dequant(t, l, &b, dst + i);
    }
    for (uint64_t i = 0; t->id == GGML_F32 && i < n; i++) {
        uint32_t u = load_u32le(bytes + 4 * i);
        memcpy(dst + i, &u, sizeof u);
    }
    for (uint64_t i = 0; t->id == GGML_F16 && i < n; i++)
        dst[i] = f16_to_f32(load_u16le(bytes + 2 * i));
    for (uint64_t i = 0; t->id == GGML_BF16 && i < n; i++)
        dst[i] = bf16_to_f32(load_u16le(bytes + 2 * i));
}

bool gguf_row_valid(const struct gguf_type *t, const void *src, uint64_t n)
{
    const uint8_t *bytes = src;
    const struct layout *l = layout_of(t);
    for (uint64_t i = 0; i < n; i += t->block, bytes += t->bytes) {
        bool good;
        if (t->id == GGML_MXFP4) {
            good = bytes[0] != 255;
        } else if (gguf_codebook_type(t)) {
            good = isfinite(gguf_codebook_scale(t, bytes));
        } else if (t->id == GGML_NVFP4) {
            good = true; /* every byte is a scale */
        } else if (l) {
            good = isfinite(f16_to_f32(load_u16le(bytes + l->d_at))) &&
                   (l->m_at == NOWHERE || isfinite(f16_to_f32(load_u16le(bytes + l->m_at))));
        } else {
            float v = NAN;
            gguf_dequant(t, bytes, 1, &v);
            good = isfinite(v);
        }
        if (!good)
            return false;
    }
    return true;
}
