/* One linear in each export format: what it becomes, whether it fits, and the bytes. docs/formats.md
 * has the layouts. */
#include "formats/write/hf_linear.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hf/expert_stack.h"
#include "formats/pack.h"
#include "host/base/num.h"

static bool is_gptq(enum export_format f)
{
    return f == EXPORT_GPTQ || f == EXPORT_GPTQ_V2;
}

unsigned storage_bits(enum export_format f, unsigned container, const struct quant_spec *spec)
{
    bool wider = f == EXPORT_COMPRESSED_TENSORS && container > spec->type->bits;
    return wider ? container : spec->type->bits;
}

static uint32_t group_of(const struct matrix *item)
{
    return item->spec.group ? item->spec.group : item->cols;
}

/* ---- whether it fits ---- */

static bool bits_fit(enum export_format f, unsigned bits)
{
    switch (f) {
    case EXPORT_GPTQ:
    case EXPORT_GPTQ_V2:
        return bits == 2 || bits == 3 || bits == 4 || bits == 8;
    case EXPORT_MLX:
        return (bits >= 2 && bits <= 6) || bits == 8;
    case EXPORT_COMPRESSED_TENSORS:
    case EXPORT_HUMMING:
        return bits >= 2 && bits <= 8;
    case EXPORT_GGUF:
    case EXPORT_HF:
    case EXPORT_NONE:
        break;
    }
    return false;
}

static bool power_of_two(uint32_t v)
{
    return v && (v & (v - 1)) == 0;
}

static bool is_embedding(const char *module)
{
    size_t n = strlen(module), m = strlen("embed_tokens");
    return n >= m && strcmp(module + n - m, "embed_tokens") == 0;
}

#define KEEP "--keep 'REGEX' leaves it in 16 bits"

/* What the programs that read a format lack for experts of a family; NULL: nothing. */
static const char *experts_unread(enum export_format f, const struct family *family, const struct block_part *part)
{
    if (f == EXPORT_MLX && !expert_stack_write(family, STACK_MLX, part, ".weight"))
        return family->parts & PARTS_ANY_DELTA ? "mlx-lm has other norms and convolutions in folders with such experts"
                                               : "mlx-lm has no models of this family";
    if ((is_gptq(f) || f == EXPORT_HUMMING) && family->parts & PARTS_GPT_OSS)
        return "no program reads codes of experts with biases in this format, as compressed-tensors and mlx have them";
    return NULL;
}

enum export_verdict export_check(enum export_format f, const struct family *family, const struct matrix *item,
                                 unsigned container, char *why, size_t cap)
{
    unsigned n = item->rows, k = item->cols, bits = item->spec.type->bits, g = group_of(item);
    const char *m = item->module, *fmt = export_format_name(f);
    bool short_group = g < k && k % g != 0, expert = family && item->part && block_part_is_expert(item->part);
    const char *unread = expert ? experts_unread(f, family, item->part) : NULL;
    if (cap)
        why[0] = 0;
    if (!export_is_packed(f))
        snprintf(why, cap,
                 "no export format is chosen; --format takes gptq, gptq_v2, compressed-tensors, mlx, humming");
    else if (container && (container != 4 || f != EXPORT_COMPRESSED_TENSORS))
        snprintf(why, cap, "--container %u does not go with %s: only --container 4 with compressed-tensors does",
                 container, fmt);
    else if (unread)
        snprintf(why, cap, "%s: %s; " KEEP, m, unread);
    else if (!bits_fit(f, bits))
        snprintf(why, cap, "%s: %s has no %u-bit codes; it takes %s bits, or " KEEP, m, fmt, bits,
                 is_gptq(f) ? "2, 3, 4 and 8" : "2 to 6 and 8");
    else if (is_gptq(f) && (k % 32 || n % 32))
        snprintf(why, cap, "%s is %u x %u: %s packs 32 values into whole words, so both must be multiples of 32; " KEEP,
                 m, n, k, fmt);
    else if (f == EXPORT_HUMMING && (n % 64 || k % 32))
        snprintf(why, cap, "%s is %u x %u: humming needs outputs in multiples of 64 and inputs of 32; " KEEP, m, n, k);
    else if (f == EXPORT_HUMMING && g < k && !power_of_two(g))
        snprintf(why, cap,
                 "%s: humming needs a group that is a power of two, not %u; choose --group 32, 64 or 128, "
                 "or " KEEP,
                 m, g);
    else if (f == EXPORT_HUMMING && short_group)
        snprintf(why, cap,
                 "%s has %u inputs, not a multiple of the group %u, as humming needs it; choose a smaller "
                 "--group, or " KEEP,
                 m, k, g);
    else if (f == EXPORT_HUMMING && strcmp(m, "lm_head") == 0)
        snprintf(why, cap, "lm_head: humming's loader always reads it in 16 bits; --keep 'lm_head' leaves it so");
    else if (f != EXPORT_MLX && is_embedding(m))
        snprintf(why, cap, "%s: only MLX has quantized embeddings; " KEEP, m);
    else if (f == EXPORT_MLX && g != 32 && g != 64 && g != 128)
        snprintf(why, cap, "%s: MLX knows groups of 32, 64 and 128, not %u; choose one of them with --group, or " KEEP,
                 m, g);
    else if (f == EXPORT_MLX && k % g)
        snprintf(why, cap,
                 "%s has %u inputs, not a multiple of the group %u, as MLX needs it; choose a smaller --group, "
                 "or " KEEP,
                 m, k, g);
    else if (short_group && is_gptq(f)) {
        snprintf(why, cap,
                 "%s has %u inputs, not a multiple of the group %u: GPTQModel's Torch kernel loads the short "
                 "last group, exllama, Marlin and vLLM do not",
                 m, k, g);
        return EXPORT_WARN;
    } else if (short_group) {
        snprintf(why, cap,
                 "%s has %u inputs, not a multiple of the group %u: the compressed-tensors library decompresses "
                 "the short last group, vLLM's kernels do not load it",
                 m, k, g);
        return EXPORT_WARN;
    } else if (expert && f == EXPORT_COMPRESSED_TENSORS && family->parts & PARTS_GPT_OSS) {
        snprintf(why, cap,
                 "%s: named as llm-compressor names experts of gpt-oss; vLLM's loader does not read their codes yet",
                 m);
        return EXPORT_WARN;
    } else {
        return EXPORT_OK;
    }
    return EXPORT_REFUSED;
}

/* ---- layout ---- */

static struct linear_tensor matrix(const char *suffix, enum dtype dtype, uint64_t rows, uint64_t cols)
{
    return (struct linear_tensor){suffix, dtype, 2, {rows, cols}, rows * cols * dtype_size(dtype)};
}

static struct linear_tensor vector(const char *suffix, enum dtype dtype, uint64_t n)
{
    return (struct linear_tensor){suffix, dtype, 1, {n, 0}, n * dtype_size(dtype)};
}

/* GPTQ's scales are fp16, and humming's loader knows no fp32 ones. */
static enum scale_type stored_scale(enum export_format f, const struct matrix *item)
{
    if (is_gptq(f) || (f == EXPORT_HUMMING && item->spec.scale == SCALE_F32))
        return SCALE_F16;
    return item->spec.scale;
}

unsigned linear_layout(enum export_format f, unsigned container, const struct matrix *item,
                       struct linear_tensor out[LINEAR_TENSORS])
{
    uint64_t n = item->rows, k = item->cols, groups = div_up(k, group_of(item));
    uint64_t bits = storage_bits(f, container, &item->spec), words = div_up(k * bits, 32);
    enum scale_type st = stored_scale(f, item);
    enum dtype scale = st == SCALE_F16 ? DTYPE_F16 : st == SCALE_BF16 ? DTYPE_BF16 : DTYPE_F32;
    switch (f) {
    case EXPORT_GPTQ:
    case EXPORT_GPTQ_V2:
        out[0] = vector(".g_idx", DTYPE_I32, k);
        out[1] = matrix(".qweight", DTYPE_I32, words, n);
        out[2] = matrix(".qzeros", DTYPE_I32, groups, n * bits / 32);
        out[3] = matrix(".scales", scale, groups, n);
        return 4;
    case EXPORT_COMPRESSED_TENSORS:
        out[0] = matrix(".weight_packed", DTYPE_I32, n, words);
        out[1] = matrix(".weight_scale", scale, n, groups);
        out[2] = vector(".weight_shape", DTYPE_I64, 2);
        return 3;
    case EXPORT_MLX:
        out[0] = matrix(".biases", scale, n, groups);
        out[1] = matrix(".scales", scale, n, groups);
        out[2] = matrix(".weight", DTYPE_U32, n, words);
        return 3;
    case EXPORT_HUMMING:
        out[0] = matrix(".weight", DTYPE_I32, n, words);
        out[1] = matrix(".weight_scale", scale, n, groups);
        return 2;
    case EXPORT_GGUF:
    case EXPORT_HF:
    case EXPORT_NONE:
        break;
    }
    return 0;
}

/* ---- bytes ---- */

static void encode_rows(const struct qlinear *q, unsigned bits, uint32_t *dst)
{
    size_t words = (size_t)div_up((uint64_t)q->cols * bits, 32);
    for (uint32_t r = 0; r < q->rows; r++)
        pack_codes(q->codes + (size_t)r * q->cols, q->cols, 1, bits, dst + r * words);
}

/* [K words, N]: a tile of rows is packed first, then laid down in runs. */
static bool encode_columns(const struct qlinear *q, unsigned bits, uint32_t *dst, struct err *e)
{
    enum { TILE = 16 };
    size_t words = (size_t)q->cols * bits / 32;
    uint32_t *tile = malloc(words * TILE * sizeof *tile);
    if (!tile)
        return err_nomem(e, "packing a linear", words * TILE * sizeof *tile);
    for (uint32_t r = 0; r < q->rows; r += TILE) {
        uint32_t n = q->rows - r < TILE ? q->rows - r : TILE;
        for (uint32_t t = 0; t < n; t++)
            pack_codes(q->codes + (size_t)(r + t) * q->cols, q->cols, 1, bits, tile + t * words);
        for (size_t w = 0; w < words; w++) {
            for (uint32_t t = 0; t < n; t++)
                dst[w * q->rows + r + t] = tile[t * words + w];
        }
    }
    free(tile);
    return true;
}

static void encode_zeros(const struct qlinear *q, enum export_format f, unsigned bits, uint32_t *dst)
{
    uint32_t values[32], pattern[8];
    for (int i = 0; i < 32; i++)
        values[i] = (UINT32_C(1) << (bits - 1)) - (f == EXPORT_GPTQ);
    pack_unsigned(values, 32, bits, pattern);
    size_t words = (size_t)q->rows * bits / 32;
    for (size_t i = 0; i < words * q->groups; i++)
        dst[i] = pattern[i % words % bits];
}

float export_scale_levels(enum export_format f, const struct quant_spec *spec)
{
    return f == EXPORT_MLX ? (float)(1u << (spec->type->bits - 1)) : 1;
}

/* A scale of which `levels` times as much can be stored, too. It is limited where f16 holds the highest level and not
 * the lowest, or is left by a quarter at most; what is further out has no place. */
static float limit_scale(float s, enum scale_type type, float levels)
{
    float most = 65504.0f / levels, size = fabsf(s);
    bool near = size > most && (size <= 1.25f * most || size * (levels - 1) <= 65504.0f);
    return type == SCALE_F16 && near ? copysignf(most, s) : s;
}

/* factor * scale in the stored type: [rows, groups], or its transpose. levels: of export_scale_levels. */
static bool encode_scales(const struct qlinear *q, const struct matrix *item, enum scale_type type, float factor,
                          float levels, bool transposed, void *dst, uint64_t *rounded, struct err *e)
{
    for (uint32_t r = 0; r < q->rows; r++) {
        for (uint32_t g = 0; g < q->groups; g++) {
            float s = q->scales[(size_t)r * q->groups + g];
            float v = factor * (levels > 1 ? limit_scale(s, type, levels) : s), stored = scale_round(type, v);
            size_t at = transposed ? (size_t)g * q->rows + r : (size_t)r * q->groups + g;
            if (!isfinite(stored)) {
                err_set(e, ERR_USER, "%s: the scale of row %u, group %u needs %g, which %s cannot hold", item->module,
                        (unsigned)r, (unsigned)g, (double)v, scale_type_name(type));
                return err_hint(e, "such weights are out of the usual range; --keep 'REGEX' leaves it in 16 bits");
            }
            *rounded += stored != factor * s;
            if (type == SCALE_F16)
                store_u16le((uint8_t *)dst + at * 2, f32_to_f16(v));
            else if (type == SCALE_BF16)
                store_u16le((uint8_t *)dst + at * 2, f32_to_bf16(v));
            else
                memcpy((uint8_t *)dst + at * 4, &v, 4);
        }
    }
    return true;
}

static bool encode_gptq(enum export_format f, const struct matrix *item, const struct qlinear *q, unsigned which,
                        void *dst, uint64_t *rounded, struct err *e)
{
    unsigned bits = item->spec.type->bits;
    switch (which) {
    case 0:
        for (uint32_t i = 0; i < q->cols; i++)
            store_u32le((uint8_t *)dst + (size_t)i * 4, i / group_of(item));
        return true;
    case 1:
        return encode_columns(q, bits, dst, e);
    case 2:
        encode_zeros(q, f, bits, dst);
        return true;
    default:
        return encode_scales(q, item, SCALE_F16, 1, 1, true, dst, rounded, e);
    }
}

bool linear_encode(enum export_format f, unsigned container, const struct matrix *item, const struct qlinear *q,
                   unsigned which, void *dst, uint64_t *rounded, struct err *e)
{
    unsigned bits = storage_bits(f, container, &item->spec);
    enum scale_type scale = stored_scale(f, item);
    if (q->rows != item->rows || q->cols != item->cols || q->groups != div_up(item->cols, group_of(item)) ||
        !q->spec.type || q->spec.type->bits > item->spec.type->bits)
        return err_set(e, ERR_BUG, "%s: %u x %u codes in %u groups came for %u x %u", item->module, (unsigned)q->rows,
                       (unsigned)q->cols, (unsigned)q->groups, (unsigned)item->rows, (unsigned)item->cols);
    if (is_gptq(f))
        return encode_gptq(f, item, q, which, dst, rounded, e);
    if (f == EXPORT_COMPRESSED_TENSORS && which == 2) {
        store_u64le(dst, q->rows);
        store_u64le((uint8_t *)dst + 8, q->cols);
        return true;
    }
    if (which == (f == EXPORT_MLX ? 2u : 0u)) {
        encode_rows(q, bits, dst);
        return true;
    }
    /* MLX: w = stored * scale + bias, so the bias takes the place of the zero point. */
    float levels = export_scale_levels(f, &item->spec), factor = f == EXPORT_MLX && which == 0 ? -levels : 1;
    return encode_scales(q, item, scale, factor, levels, false, dst, rounded, e);
}
