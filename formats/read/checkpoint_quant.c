#include "formats/read/checkpoint_quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/pack.h"
#include "host/base/num.h"

const struct tensor *module_tensor(const struct safetensors *s, const char *module, const char *suffix)
{
    char name[1024];
    int n = snprintf(name, sizeof name, "%s%s", module, suffix);
    return n > 0 && (size_t)n < sizeof name ? safetensors_find(s, name) : NULL;
}

bool packed_present(const struct safetensors *s, enum quant_method method, const char *module)
{
    const struct tensor *w = module_tensor(s, module, ".weight");
    switch (method) {
    case QUANT_GPTQ:
    case QUANT_GPTQ_V2:
        return module_tensor(s, module, ".qweight") != NULL;
    case QUANT_COMPRESSED_TENSORS:
        w = module_tensor(s, module, ".weight_packed");
        return w && w->dtype != DTYPE_U8; /* bytes are floating point (checkpoint_narrow.h) */
    case QUANT_MLX:
        return module_tensor(s, module, ".scales") != NULL;
    case QUANT_HUMMING:
        return module_tensor(s, module, ".weight_scale") != NULL ||
               (w && (w->dtype == DTYPE_I32 || w->dtype == DTYPE_U32));
    case QUANT_FP8:
    case QUANT_NONE:
        break;
    }
    return false;
}

bool packed_suffix(enum quant_method method, const char *suffix)
{
    static const char *const gptq[] = {".qweight", ".qzeros", ".scales", ".g_idx", NULL},
                             *const compressed[] = {".weight_packed", ".weight_scale", ".weight_shape",
                                                    ".weight",        ".input_scale",  NULL},
                             *const fp8[] = {".weight",      ".weight_scale_inv", ".weight_scale",
                                             ".input_scale", ".activation_scale", NULL},
                             *const mlx[] = {".weight", ".scales", ".biases", NULL},
                             *const humming[] = {".weight", ".weight_scale", NULL}, *const none[] = {NULL};
    const char *const *list = method == QUANT_GPTQ || method == QUANT_GPTQ_V2 ? gptq
                              : method == QUANT_COMPRESSED_TENSORS            ? compressed
                              : method == QUANT_MLX                           ? mlx
                              : method == QUANT_HUMMING                       ? humming
                              : method == QUANT_FP8                           ? fp8
                                                                              : none;
    for (; *list; list++) {
        if (strcmp(*list, suffix) == 0)
            return true;
    }
    return false;
}

/* ---- messages ---- */

static bool bad_file_hint(struct err *e)
{
    return err_hint(e, "the file does not match its config.json: download both again");
}

static bool bad_shape(const struct safetensors *s, const struct tensor *t, struct err *e, const char *want)
{
    char shape[128] = "";
    size_t at = 0;
    for (uint32_t i = 0; i < t->n_dims && at < sizeof shape - 24; i++)
        at += (size_t)snprintf(shape + at, sizeof shape - at, i ? ", %llu" : "%llu", (unsigned long long)t->shape[i]);
    err_set(e, ERR_USER, "%s in %s is [%s], expected %s", t->name, safetensors_path(s, t), shape, want);
    return bad_file_hint(e);
}

/* The companion MODULE+suffix of the codes. */
static bool need(const struct tensor **out, const struct packed_linear *p, const struct safetensors *s,
                 const char *suffix, struct err *e)
{
    *out = module_tensor(s, p->module, suffix);
    if (*out)
        return true;
    err_set(e, ERR_USER, "the tensor %s%s is missing, though %s has %s", p->module, suffix,
            safetensors_path(s, p->codes), p->codes->name);
    return err_hint(e, "a shard is missing or the download is not complete: download the model again");
}

static bool refuse_companion(const struct packed_linear *p, const struct safetensors *s, const char *suffix,
                             const char *what, struct err *e)
{
    const struct tensor *t = module_tensor(s, p->module, suffix);
    if (!t)
        return true;
    err_set(e, ERR_USER, "%s in %s: %s is not supported", t->name, safetensors_path(s, t), what);
    return err_hint(e, "only symmetric quantization with groups in order is read; start from the 16-bit model");
}

static bool check_2d(const struct safetensors *s, const struct tensor *t, uint64_t rows, uint64_t cols, struct err *e)
{
    char want[96];
    if (t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == cols)
        return true;
    snprintf(want, sizeof want, "[%llu, %llu]", (unsigned long long)rows, (unsigned long long)cols);
    return bad_shape(s, t, e, want);
}

static bool check_words(const struct safetensors *s, const struct tensor *t, struct err *e)
{
    if (t->dtype == DTYPE_I32 || t->dtype == DTYPE_U32)
        return true;
    err_set(e, ERR_USER, "%s in %s is %s, expected packed codes in I32", t->name, safetensors_path(s, t),
            dtype_name(t->dtype));
    return bad_file_hint(e);
}

static bool check_scales(struct packed_linear *p, const struct safetensors *s, const struct tensor *t, struct err *e)
{
    if (t->dtype == DTYPE_F16 || t->dtype == DTYPE_BF16 || t->dtype == DTYPE_F32) {
        p->spec.scale = t->dtype == DTYPE_F16 ? SCALE_F16 : t->dtype == DTYPE_BF16 ? SCALE_BF16 : SCALE_F32;
        return true;
    }
    err_set(e, ERR_USER, "%s in %s is %s, expected scales in F16, BF16 or F32", t->name, safetensors_path(s, t),
            dtype_name(t->dtype));
    return bad_file_hint(e);
}

/* ---- shapes ---- */

/* rows and cols, once known; the group and the number of groups follow. */
static bool set_size(struct packed_linear *p, const struct safetensors *s, uint64_t rows, uint64_t cols, struct err *e)
{
    if (rows == 0 || cols == 0 || rows > INT32_MAX || cols > INT32_MAX)
        return bad_shape(s, p->codes, e, "a matrix of usual size");
    p->rows = (uint32_t)rows;
    p->cols = (uint32_t)cols;
    if (p->spec.group == 0)
        p->spec.group = p->cols;
    p->groups = (uint32_t)div_up(cols, p->spec.group);
    return true;
}

/* Codes packed along rows: n words of a row hold n*32/bits codes, a whole number. */
static bool cols_of_words(const struct packed_linear *p, const struct safetensors *s, uint64_t words, uint64_t *cols,
                          struct err *e)
{
    unsigned bits = p->spec.type->bits;
    char want[96];
    if (words <= INT32_MAX && words * 32 % bits == 0) {
        *cols = words * 32 / bits;
        return true;
    }
    snprintf(want, sizeof want, "a whole number of %u-bit codes (bits from config.json)", bits);
    return bad_shape(s, p->codes, e, want);
}

static bool open_gptq(struct packed_linear *p, const struct safetensors *s, struct err *e)
{
    uint64_t cols = 0, bits = p->spec.type->bits;
    p->g_idx = module_tensor(s, p->module, ".g_idx");
    if (!need(&p->zeros, p, s, ".qzeros", e) || !need(&p->scales, p, s, ".scales", e))
        return false;
    if (p->codes->n_dims != 2)
        return bad_shape(s, p->codes, e, "two dimensions");
    if (!cols_of_words(p, s, p->codes->shape[0], &cols, e) || !set_size(p, s, p->codes->shape[1], cols, e))
        return false;
    if (p->rows * bits % 32 != 0)
        return bad_shape(s, p->codes, e, "a second dimension whose zero points fill whole words");
    if (!check_2d(s, p->zeros, p->groups, p->rows * bits / 32, e) || !check_words(s, p->zeros, e) ||
        !check_2d(s, p->scales, p->groups, p->rows, e))
        return false;
    if (!p->g_idx)
        return true;
    if (p->g_idx->n_dims != 1 || p->g_idx->shape[0] != cols) {
        char want[64];
        snprintf(want, sizeof want, "[%llu]", (unsigned long long)cols);
        return bad_shape(s, p->g_idx, e, want);
    }
    return check_words(s, p->g_idx, e);
}

/* What MODULE.weight_shape says. */
static void read_shape(const struct tensor *t, uint64_t *rows, uint64_t *cols)
{
    bool wide = t->dtype == DTYPE_I64;
    *rows = wide ? load_u64le(t->data) : load_u32le(t->data);
    *cols = wide ? load_u64le(t->data + 8) : load_u32le(t->data + 4);
}

static bool open_compressed(struct packed_linear *p, const struct safetensors *s, struct err *e)
{
    const struct tensor *shape;
    if (!refuse_companion(p, s, ".weight_zero_point", "a zero point", e) ||
        !refuse_companion(p, s, ".weight_g_idx", "activation order", e) ||
        !need(&p->scales, p, s, ".weight_scale", e) || !need(&shape, p, s, ".weight_shape", e))
        return false;
    p->bytes += shape->bytes;
    if (shape->n_dims != 1 || shape->shape[0] != 2 || (shape->dtype != DTYPE_I64 && shape->dtype != DTYPE_I32))
        return bad_shape(s, shape, e, "two integers");
    if (p->codes->n_dims != 2)
        return bad_shape(s, p->codes, e, "two dimensions");
    /* Whole groups in whole words leave no other shape. Looking into each of a large model's 70,000 would read its files all
     * over, and so it is left to whoever reads the codes. */
    uint64_t rows = p->codes->shape[0], cols = 0, bits = p->codes->shape[1] * 32;
    bool whole = p->spec.group && bits % p->spec.type->bits == 0 && bits / p->spec.type->bits % p->spec.group == 0 &&
                 p->spec.group * p->spec.type->bits % 32 == 0;
    if (whole && p->codes->shape[1] <= INT32_MAX)
        cols = bits / p->spec.type->bits;
    else
        read_shape(shape, &rows, &cols);
    p->shape = whole ? shape : NULL;
    return set_size(p, s, rows, cols, e) && check_2d(s, p->codes, p->rows, div_up(cols * p->spec.type->bits, 32), e) &&
           check_2d(s, p->scales, p->rows, p->groups, e);
}

static bool open_rows(struct packed_linear *p, const struct safetensors *s, struct err *e)
{
    uint64_t cols = 0;
    bool mlx = p->method == QUANT_MLX;
    if (!need(&p->scales, p, s, mlx ? ".scales" : ".weight_scale", e) ||
        (mlx && !need(&p->biases, p, s, ".biases", e)) || !refuse_companion(p, s, ".zero_point", "a zero point", e) ||
        !refuse_companion(p, s, ".global_scale", "a global scale", e))
        return false;
    if (p->codes->n_dims != 2)
        return bad_shape(s, p->codes, e, "two dimensions");
    if (!cols_of_words(p, s, p->codes->shape[1], &cols, e) || !set_size(p, s, p->codes->shape[0], cols, e) ||
        !check_2d(s, p->scales, p->rows, p->groups, e))
        return false;
    if (mlx && p->biases->dtype != p->scales->dtype) {
        err_set(e, ERR_USER, "%s in %s is %s, its scales are %s", p->biases->name, safetensors_path(s, p->biases),
                dtype_name(p->biases->dtype), dtype_name(p->scales->dtype));
        return bad_file_hint(e);
    }
    return !mlx || check_2d(s, p->biases, p->rows, p->groups, e);
}

bool packed_open(struct packed_linear *p, const struct safetensors *s, enum quant_method method,
                 const struct quant_rule *rule, const char *module, struct err *e)
{
    *p = (struct packed_linear){.module = module, .method = method};
    bool gptq = method == QUANT_GPTQ || method == QUANT_GPTQ_V2;
    const char *suffix = gptq ? ".qweight" : method == QUANT_COMPRESSED_TENSORS ? ".weight_packed" : ".weight";
    p->codes = module_tensor(s, module, suffix);
    if (!p->codes) {
        err_set(e, ERR_USER, "the tensor %s%s is missing, though its scales are there", module, suffix);
        return err_hint(e, "a shard is missing or the download is not complete: download the model again");
    }
    if (!rule || rule->skip || rule->floats) {
        err_set(e, ERR_USER, "%s in %s holds packed codes, but config.json says that this linear is %s", p->codes->name,
                safetensors_path(s, p->codes), rule && rule->floats ? "of floating point" : "not quantized");
        return bad_file_hint(e);
    }
    p->spec.type = quant_type_of_bits(rule->bits);
    p->spec.group = rule->group;
    if (!p->spec.type)
        return err_set(e, ERR_USER, "config.json: %s in %u bits is not supported (2 to 8 are)", module, rule->bits);
    if (!check_words(s, p->codes, e))
        return false;
    bool ok = gptq                                 ? open_gptq(p, s, e)
              : method == QUANT_COMPRESSED_TENSORS ? open_compressed(p, s, e)
                                                   : open_rows(p, s, e);
    if (!ok || !check_scales(p, s, p->scales, e))
        return false;
    const struct tensor *all[] = {p->codes, p->scales, p->zeros, p->g_idx, p->biases};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        p->bytes += all[i] ? all[i]->bytes : 0;
    return true;
}

/* ---- data ---- */

static bool check_order(const struct packed_linear *p, const struct safetensors *s, struct err *e)
{
    for (uint32_t i = 0; p->g_idx && i < p->cols; i++) {
        uint32_t group = load_u32le(p->g_idx->data + (size_t)i * 4);
        if (group == i / p->spec.group)
            continue;
        err_set(e, ERR_USER, "%s in %s: column %u belongs to group %d, expected %u: activation order is not supported",
                p->g_idx->name, safetensors_path(s, p->g_idx), (unsigned)i, (int)(int32_t)group,
                (unsigned)(i / p->spec.group));
        return err_hint(e, "quantize with desc_act false, or start from the 16-bit model");
    }
    return true;
}

/* The zero points of rows [row0, row0+rows): whole words against the pattern that repeats every `bits` words.
 */
static bool check_zeros(const struct packed_linear *p, const struct safetensors *s, uint32_t row0, uint32_t rows,
                        struct err *e)
{
    unsigned bits = p->spec.type->bits;
    uint32_t z = (UINT32_C(1) << (bits - 1)) - (p->method == QUANT_GPTQ), values[32], pattern[8];
    for (int i = 0; i < 32; i++)
        values[i] = z;
    pack_unsigned(values, 32, bits, pattern);
    size_t per_group = (size_t)p->rows * bits / 32;
    size_t first = (size_t)row0 * bits / 32, end = (size_t)div_up(((uint64_t)row0 + rows) * bits, 32);
    for (uint32_t g = 0; g < p->groups; g++) {
        for (size_t w = first; w < end; w++) {
            uint32_t word = load_u32le(p->zeros->data + (g * per_group + w) * 4);
            if (word == pattern[w % bits])
                continue;
            err_set(e, ERR_USER,
                    "%s in %s: the zero points of group %u are not the symmetric ones (word %08X, expected %08X)",
                    p->zeros->name, safetensors_path(s, p->zeros), (unsigned)g, (unsigned)word,
                    (unsigned)pattern[w % bits]);
            return err_hint(e, "asymmetric GPTQ is not read; if checkpoint_format in config.json is wrong (gptq "
                               "stores z-1, gptq_v2 z), correct it");
        }
    }
    return true;
}

bool packed_check_shape(const struct packed_linear *p, const struct safetensors *s, struct err *e)
{
    uint64_t rows, cols;
    if (!p->shape)
        return true;
    read_shape(p->shape, &rows, &cols);
    if (rows == p->rows && cols == p->cols)
        return true;
    err_set(e, ERR_USER, "%s in %s says %llu x %llu, its codes are of %u x %u", p->shape->name,
            safetensors_path(s, p->shape), (unsigned long long)rows, (unsigned long long)cols, (unsigned)p->rows,
            (unsigned)p->cols);
    return bad_file_hint(e);
}

static float scale_at(const struct tensor *t, size_t i)
{
    float f;
    if (t->dtype == DTYPE_F16)
        return f16_to_f32(load_u16le(t->data + i * 2));
    if (t->dtype == DTYPE_BF16)
        return bf16_to_f32(load_u16le(t->data + i * 2));
    uint32_t u = load_u32le(t->data + i * 4);
    memcpy(&f, &u, sizeof f);
    return f;
}

static bool check_biases(const struct packed_linear *p, const struct safetensors *s, uint32_t row0, uint32_t rows,
                         const float *scales, struct err *e)
{
    float zero = (float)(1 << (p->spec.type->bits - 1));
    for (size_t i = 0; i < (size_t)rows * p->groups; i++) {
        float bias = scale_at(p->biases, (size_t)row0 * p->groups + i);
        if (bias == scale_round(p->spec.scale, -zero * scales[i]))
            continue;
        err_set(e, ERR_USER,
                "%s in %s: row %u, group %u has the offset %g, a symmetric grid needs %g (-%g times its scale)",
                p->biases->name, safetensors_path(s, p->biases), (unsigned)(row0 + i / p->groups),
                (unsigned)(i % p->groups), (double)bias, (double)(-zero * scales[i]), (double)zero);
        return err_hint(e, "only symmetric MLX models are read (those that gsq writes); start from the 16-bit model");
    }
    return true;
}

/* The words lie as [K words, N]: a tile of rows is gathered first, so that memory is read in runs. */
static void unpack_gptq(const struct packed_linear *p, uint32_t row0, uint32_t rows, int8_t *codes, uint32_t *words)
{
    enum { TILE = 16 };
    size_t n_words = (size_t)p->cols * p->spec.type->bits / 32;
    for (uint32_t r = 0; r < rows; r += TILE) {
        uint32_t tile = rows - r < TILE ? rows - r : TILE;
        for (size_t w = 0; w < n_words; w++) {
            const uint8_t *from = p->codes->data + (w * p->rows + row0 + r) * 4;
            for (uint32_t t = 0; t < tile; t++)
                words[t * n_words + w] = load_u32le(from + (size_t)t * 4);
        }
        for (uint32_t t = 0; t < tile; t++)
            unpack_codes(words + t * n_words, p->cols, p->spec.type->bits, codes + (size_t)(r + t) * p->cols, 1);
    }
}

bool packed_rows(const struct packed_linear *p, const struct safetensors *s, uint32_t row0, uint32_t rows,
                 int8_t *codes, float *scales, struct err *e)
{
    bool gptq = p->method == QUANT_GPTQ || p->method == QUANT_GPTQ_V2;
    size_t n_words = (size_t)div_up((uint64_t)p->cols * p->spec.type->bits, 32);
    if (row0 > p->rows || rows > p->rows - row0)
        return err_set(e, ERR_BUG, "rows %u to %u of %s, which has %u", (unsigned)row0, (unsigned)(row0 + rows),
                       p->module, (unsigned)p->rows);
    if (gptq && (!check_order(p, s, e) || !check_zeros(p, s, row0, rows, e)))
        return false;
    if (!packed_check_shape(p, s, e))
        return false;
    /* Mapped data may lie at any address: words are copied before they are unpacked. */
    size_t bytes = n_words * 4 * (gptq ? 16 : 1);
    uint32_t *words = malloc(bytes);
    if (!words)
        return err_nomem(e, "unpacking a row", bytes);
    if (gptq) {
        unpack_gptq(p, row0, rows, codes, words);
    } else {
        for (uint32_t r = 0; r < rows; r++) {
            memcpy(words, p->codes->data + (row0 + r) * n_words * 4, n_words * 4);
            unpack_codes(words, p->cols, p->spec.type->bits, codes + (size_t)r * p->cols, 1);
        }
    }
    free(words);
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t g = 0; g < p->groups; g++) {
            size_t at = gptq ? (size_t)g * p->rows + row0 + r : (size_t)(row0 + r) * p->groups + g;
            scales[(size_t)r * p->groups + g] = scale_at(p->scales, at);
        }
    }
    return p->method != QUANT_MLX || check_biases(p, s, row0, rows, scales, e);
}
