#include "formats/read/checkpoint_narrow.h"

#include <string.h>

#include "formats/read/checkpoint_quant.h"
#include "formats/read/tensor_values.h"

enum { FP4_GROUP = 32 }; /* of the MX formats */

bool narrow_present(const struct safetensors *s, enum quant_method method, const char *module)
{
    const struct tensor *w = module_tensor(s, module, ".weight");
    if (method == QUANT_FP8 || method == QUANT_COMPRESSED_TENSORS)
        if (w && w->dtype == DTYPE_F8_E4M3)
            return true;
    w = method == QUANT_COMPRESSED_TENSORS ? module_tensor(s, module, ".weight_packed") : NULL;
    return w && w->dtype == DTYPE_U8;
}

/* ---- shapes ---- */

static bool bad_scales(const struct narrow_linear *w, const struct safetensors *s, const char *want, struct err *e)
{
    err_set(e, ERR_USER, "%s in %s does not fit the %u x %u weights of %s: %s", w->scales->name,
            safetensors_path(s, w->scales), (unsigned)w->rows, (unsigned)w->cols, w->module, want);
    return err_hint(e, "the file does not match its config.json: download both again");
}

static uint64_t dim(const struct tensor *t, uint32_t i)
{
    return i < t->n_dims ? t->shape[i] : 1;
}

static bool open_fp4(struct narrow_linear *w, const struct safetensors *s, struct err *e)
{
    w->block_rows = 1;
    w->block_cols = FP4_GROUP;
    if (w->scales->dtype != DTYPE_U8 && w->scales->dtype != DTYPE_F8_E8M0)
        return bad_scales(w, s, "exponents in U8 are expected", e);
    return (w->scales->n_dims == 2 && dim(w->scales, 0) == w->rows &&
            dim(w->scales, 1) == div_up(w->cols, FP4_GROUP)) ||
           bad_scales(w, s, "one scale for every 32 columns of a row is expected", e);
}

/* One scale for all weights, for each row or for each block of config.json's size. */
static bool open_fp8(struct narrow_linear *w, const struct safetensors *s, const struct quant_rule *rule, struct err *e)
{
    uint64_t n = dim(w->scales, 0), m = dim(w->scales, 1);
    w->block_rows = w->rows;
    w->block_cols = w->cols;
    if (!dtype_is_float(w->scales->dtype) || w->scales->n_dims > 2)
        return bad_scales(w, s, "scales in F32, F16 or BF16 are expected", e);
    if (n == 1 && m == 1)
        return true;
    if (rule && rule->block_rows && rule->group) {
        w->block_rows = rule->block_rows;
        w->block_cols = rule->group;
        return (n == div_up(w->rows, w->block_rows) && m == div_up(w->cols, w->block_cols)) ||
               bad_scales(w, s, "one scale for every block of config.json's size is expected", e);
    }
    w->block_rows = 1;
    return (n == w->rows && m == 1) || bad_scales(w, s, "one scale, or one for every row, is expected", e);
}

bool narrow_open(struct narrow_linear *w, const struct safetensors *s, const struct quant_rule *rule,
                 const char *module, struct err *e)
{
    const struct tensor *packed = module_tensor(s, module, ".weight_packed"),
                        *inverse = module_tensor(s, module, ".weight_scale_inv");
    *w = (struct narrow_linear){.module = module, .fp4 = packed != NULL, .row_step = 1};
    w->values = packed ? packed : module_tensor(s, module, ".weight");
    w->scales = inverse ? inverse : module_tensor(s, module, ".weight_scale");
    uint64_t rows = dim(w->values, 0), cols = dim(w->values, 1) * (w->fp4 ? 2 : 1);
    if (!w->scales) {
        err_set(e, ERR_USER,
                "the scales of %s in %s are missing: there is neither %s.weight_scale_inv nor .weight_scale",
                w->values->name, safetensors_path(s, w->values), module);
        return err_hint(e, "a shard is missing or the download is not complete: download the model again");
    }
    if (w->values->n_dims != 2 || !rows || !cols || rows > INT32_MAX || cols > INT32_MAX) {
        err_set(e, ERR_USER, "%s in %s is no matrix of usual size", w->values->name, safetensors_path(s, w->values));
        return err_hint(e, "the model may be of an architecture that is not supported");
    }
    w->rows = (uint32_t)rows;
    w->cols = (uint32_t)cols;
    return w->fp4 ? open_fp4(w, s, e) : open_fp8(w, s, rule, e);
}

struct narrow_linear narrow_fp4(const char *module, const struct tensor *values, const struct tensor *scales,
                                uint32_t rows, uint32_t cols)
{
    return (struct narrow_linear){.module = module,
                                  .values = values,
                                  .scales = scales,
                                  .fp4 = true,
                                  .rows = rows,
                                  .cols = cols,
                                  .row_step = 1,
                                  .block_rows = 1,
                                  .block_cols = FP4_GROUP};
}

uint64_t narrow_bytes(const struct narrow_linear *w)
{
    return w->values->bytes + w->scales->bytes;
}

const char *narrow_type_name(const struct narrow_linear *w)
{
    return w->fp4 ? "F4_E2M1" : "F8_E4M3"; /* no names of GGUF's */
}

/* ---- values ---- */

static bool scale_of(const struct narrow_linear *w, uint64_t at, float *scale, struct err *e)
{
    if (!w->fp4)
        return tensor_read_f32(w->scales, at, 1, scale, e);
    *scale = e8m0_to_f32(w->scales->data[at]);
    return true;
}

static void decode(const struct narrow_linear *w, const float table[256], uint64_t at, uint32_t n, float scale,
                   float *dst)
{
    const uint8_t *from = w->values->data;
    if (w->fp4)
        for (uint32_t i = 0; i < n; i++)
            dst[i] = table[from[(at + i) / 2] >> 4 * ((at + i) % 2) & 15] * scale;
    else
        for (uint32_t i = 0; i < n; i++)
            dst[i] = table[from[at + i]] * scale;
}

bool narrow_rows(const struct narrow_linear *w, uint32_t row0, uint32_t rows, float *dst, struct err *e)
{
    uint32_t blocks = (uint32_t)div_up(w->cols, w->block_cols);
    float table[256];
    if (row0 > w->rows || rows > w->rows - row0)
        return err_set(e, ERR_BUG, "rows %u to %u of %s, which has %u", (unsigned)row0, (unsigned)(row0 + rows),
                       w->module, (unsigned)w->rows);
    for (unsigned i = 0; i < 256; i++)
        table[i] = w->fp4 ? e2m1_to_f32((uint8_t)(i & 15)) : e4m3_to_f32((uint8_t)i);
    for (uint32_t r = 0; r < rows; r++) {
        uint64_t at = w->row_first + (uint64_t)(row0 + r) * w->row_step;
        for (uint32_t b = 0; b < blocks; b++) {
            uint32_t c = b * w->block_cols, n = (uint32_t)min_u64(w->block_cols, w->cols - c);
            float scale;
            if (!scale_of(w, at / w->block_rows * blocks + b, &scale, e))
                return false;
            decode(w, table, at * w->cols + c, n, scale, dst + (size_t)r * w->cols + c);
        }
    }
    return true;
}

const struct gguf_type *narrow_blocks_type(const struct narrow_linear *w)
{
    return w->fp4 && w->cols % FP4_GROUP == 0 ? gguf_type_of(GGML_MXFP4) : NULL;
}

bool narrow_blocks(const struct narrow_linear *w, uint32_t row0, uint32_t rows, uint8_t *dst, struct err *e)
{
    enum { HALF = FP4_GROUP / 2 };
    if (!narrow_blocks_type(w) || row0 > w->rows || rows > w->rows - row0)
        return err_set(e, ERR_BUG, "blocks of rows %u to %u of %s", (unsigned)row0, (unsigned)(row0 + rows), w->module);
    for (uint32_t r = 0; r < rows; r++) {
        uint64_t at = (w->row_first + (uint64_t)(row0 + r) * w->row_step) * (w->cols / FP4_GROUP);
        for (uint32_t b = 0; b < w->cols / FP4_GROUP; b++, at++, dst += 1 + HALF) {
            const uint8_t *from = w->values->data + at * HALF;
            dst[0] = w->scales->data[at];
            for (uint32_t i = 0; i < HALF; i++) {
                uint8_t low = from[i / 2], high = from[HALF / 2 + i / 2];
                unsigned shift = 4 * (i % 2);
                dst[1 + i] = (uint8_t)((low >> shift & 15) | (high >> shift & 15) << 4);
            }
        }
    }
    return true;
}

static bool not_finite(const struct safetensors *s, const struct tensor *t, uint64_t at, struct err *e)
{
    err_set(e, ERR_USER, "%s in %s holds NaN at element %llu", t->name, safetensors_path(s, t), (unsigned long long)at);
    return err_hint(e, "the file is damaged: download it again, or take another model");
}

bool narrow_check_finite(const struct narrow_linear *w, const struct safetensors *s, struct err *e)
{
    if (w->fp4) {
        const uint8_t *found = memchr(w->scales->data, 0xFF, (size_t)w->scales->bytes);
        return !found || not_finite(s, w->scales, (uint64_t)(found - w->scales->data), e);
    }
    for (uint64_t i = 0; i < w->values->bytes; i++)
        if ((w->values->data[i] & 0x7F) == 0x7F)
            return not_finite(s, w->values, i, e);
    return tensor_check_finite(w->scales, safetensors_path(s, w->scales), e);
}
