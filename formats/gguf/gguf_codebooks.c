/* ggml's layouts, docs/formats.md 8. A block has 256 values in runs of 32, each run 4 vectors of 8; IQ3's vectors are pairs of 4. */
#include "formats/gguf/gguf_codebooks.h"

#include "formats/gguf/gguf_codebook_grids.h"
#include "host/base/num.h"

enum { RUNS = 8, VECTORS = 4, LENGTH = 8 };

static const float levels2[4] = {8, 25, 43, 0}, levels3_xxs[8] = {4, 12, 20, 28, 36, 44, 52, 62},
                   levels3[8] = {1, 3, 5, 7, 9, 11, 13, 15};
/* Added to the levels -1, 0 and 1 of IQ1, or taken away. */
#define IQ1_DELTA 0.125f

bool gguf_codebook_type(const struct gguf_type *t)
{
    switch (t->id) {
    case GGML_IQ1_S:
    case GGML_IQ1_M:
    case GGML_IQ2_XXS:
    case GGML_IQ2_XS:
    case GGML_IQ2_S:
    case GGML_IQ3_XXS:
    case GGML_IQ3_S:
        return true;
    default:
        return false;
    }
}

float gguf_codebook_scale(const struct gguf_type *t, const uint8_t *bytes)
{
    if (t->id != GGML_IQ1_M)
        return f16_to_f32(load_u16le(bytes));
    unsigned d = 0; /* in the upper four bits of four words */
    for (unsigned i = 0; i < 4; i++)
        d |= (unsigned)load_u16le(bytes + 48 + 2 * i) >> 12 << 4 * i;
    return f16_to_f32((uint16_t)d);
}

/* Seven signs, of which the eighth makes the number of negative ones even. */
static unsigned signs_of(unsigned seven)
{
    unsigned parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    return seven | ((parity ^ parity >> 1) & 1) << 7;
}

/* n values of an entry with `bits` each, negative where a sign is set. */
static void put(unsigned entry, unsigned bits, const float *levels, unsigned n, float scale, unsigned signs, float *dst)
{
    for (unsigned j = 0; j < n; j++) {
        float v = scale * levels[entry >> bits * j & ((1u << bits) - 1)];
        dst[j] = signs >> j & 1 ? -v : v;
    }
}

static void put_iq1(unsigned entry, float scale, bool minus, float *dst)
{
    float delta = minus ? -IQ1_DELTA : IQ1_DELTA;
    for (unsigned j = 0; j < LENGTH; j++)
        dst[j] = scale * ((float)((int)(entry >> 2 * j & 3) - 1) + delta);
}

static void iq1_s(const uint8_t *b, float d, unsigned run, float *dst)
{
    const uint8_t *qs = b + 2 + run * VECTORS;
    unsigned high = load_u16le(b + 34 + 2 * run);
    float scale = d * (float)(2 * (high >> 12 & 7) + 1);
    for (unsigned k = 0; k < VECTORS; k++)
        put_iq1(grid_iq1[qs[k] | (high >> 3 * k & 7) << 8], scale, high >> 15, dst + k * LENGTH);
}

static void iq1_m(const uint8_t *b, float d, unsigned run, float *dst)
{
    const uint8_t *qs = b + run * VECTORS, *high = b + 32 + 2 * run;
    unsigned scales = load_u16le(b + 48 + run / 2 * 2) >> run % 2 * 6;
    for (unsigned k = 0; k < VECTORS; k++) {
        unsigned h = high[k / 2] >> k % 2 * 4;
        float scale = d * (float)(2 * (scales >> k / 2 * 3 & 7) + 1);
        put_iq1(grid_iq1[qs[k] | (h & 7) << 8], scale, h >> 3 & 1, dst + k * LENGTH);
    }
}

static void iq2_xxs(const uint8_t *b, float d, unsigned run, float *dst)
{
    const uint8_t *qs = b + 2 + run * 8;
    uint32_t rest = load_u32le(qs + 4);
    float scale = d * (0.5f + (float)(rest >> 28)) * 0.25f;
    for (unsigned k = 0; k < VECTORS; k++)
        put(grid_iq2_xxs[qs[k]], 2, levels2, LENGTH, scale, signs_of(rest >> 7 * k & 127), dst + k * LENGTH);
}

/* Of IQ2_XS and IQ2_S: each half of a run has its own. */
static float iq2_scale(float d, unsigned nibbles, unsigned k)
{
    return d * (0.5f + (float)(nibbles >> k / 2 * 4 & 15)) * 0.25f;
}

static void iq2_xs(const uint8_t *b, float d, unsigned run, float *dst)
{
    for (unsigned k = 0; k < VECTORS; k++) {
        unsigned q = load_u16le(b + 2 + run * 8 + 2 * k);
        put(grid_iq2_xs[q & 511], 2, levels2, LENGTH, iq2_scale(d, b[66 + run], k), signs_of(q >> 9), dst + k * LENGTH);
    }
}

static void iq2_s(const uint8_t *b, float d, unsigned run, float *dst)
{
    const uint8_t *qs = b + 2 + run * VECTORS;
    for (unsigned k = 0; k < VECTORS; k++)
        put(grid_iq2_s[qs[k] | (b[66 + run] >> 2 * k & 3) << 8], 2, levels2, LENGTH, iq2_scale(d, b[74 + run], k),
            qs[32 + k], dst + k * LENGTH);
}

static void iq3_xxs(const uint8_t *b, float d, unsigned run, float *dst)
{
    const uint8_t *qs = b + 2 + run * 8;
    uint32_t rest = load_u32le(b + 66 + 4 * run);
    float scale = d * (0.5f + (float)(rest >> 28)) * 0.5f;
    for (unsigned k = 0; k < 2 * VECTORS; k++)
        put(grid_iq3_xxs[qs[k]], 3, levels3_xxs, 4, scale, signs_of(rest >> 7 * (k / 2) & 127) >> k % 2 * 4,
            dst + k * 4);
}

static void iq3_s(const uint8_t *b, float d, unsigned run, float *dst)
{
    const uint8_t *qs = b + 2 + run * 8, *signs = b + 74 + run * VECTORS;
    float scale = d * (float)(1 + 2 * (b[106 + run / 2] >> run % 2 * 4 & 15));
    for (unsigned k = 0; k < 2 * VECTORS; k++)
        put(grid_iq3_s[qs[k] | (b[66 + run] >> k & 1) << 8], 3, levels3, 4, scale, signs[k / 2] >> k % 2 * 4,
            dst + k * 4);
}

void gguf_codebook_dequant(const struct gguf_type *t, const uint8_t *bytes, float *dst)
{
    void (*run_of)(const uint8_t *, float, unsigned, float *) = t->id == GGML_IQ1_S     ? iq1_s
                                                                : t->id == GGML_IQ1_M   ? iq1_m
                                                                : t->id == GGML_IQ2_XXS ? iq2_xxs
                                                                : t->id == GGML_IQ2_XS  ? iq2_xs
                                                                : t->id == GGML_IQ2_S   ? iq2_s
                                                                : t->id == GGML_IQ3_XXS ? iq3_xxs
                                                                                        : iq3_s;
    float d = gguf_codebook_scale(t, bytes);
    for (unsigned run = 0; run < RUNS; run++)
        run_of(bytes, d, run, dst + run * VECTORS * LENGTH);
}
