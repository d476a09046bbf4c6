#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "formats/read/checkpoint_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/read/checkpoint_gguf.h"
#include "formats/read/checkpoint_quant.h"
#include "formats/foreign.h"
#include "formats/side_file.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/pool.h"
#include "host/base/str.h"

#define CONFIG_MAX (64u << 20)

/* Steps of one match: rules come from a file, and a hostile one must not hang the program. */
#define MATCH_LIMIT 1000000

/* Elements tested at a time for NaN, and by one thread at once. */
#define FINITE_BLOCK 2048
#define FINITE_PART  (1u << 20)

struct checkpoint {
    char *dir;
    struct model_config config;
    bool has_config;
    struct safetensors *tensors; /* of a folder; else: */
    struct gguf_model *gguf;
    pcre2_code **rules; /* compiled config.rules; NULL where a rule has no pattern */
    pcre2_match_context *limits;
};

/* ---- opening ---- */

static bool compile_rules(struct checkpoint *c, struct err *e)
{
    c->limits = pcre2_match_context_create(NULL);
    c->rules = calloc(c->config.n_rules + 1, sizeof *c->rules);
    if (!c->limits || !c->rules)
        return err_nomem(e, "the rules of config.json", c->config.n_rules * sizeof *c->rules);
    pcre2_set_match_limit(c->limits, MATCH_LIMIT);
    for (size_t i = 0; i < c->config.n_rules; i++) {
        const char *pattern = c->config.rules[i].regex;
        int code;
        PCRE2_SIZE at;
        if (!pattern)
            continue;
        c->rules[i] = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &at, NULL);
        if (c->rules[i])
            continue;
        PCRE2_UCHAR why[128] = "";
        pcre2_get_error_message(code, why, sizeof why);
        err_set(e, ERR_USER, "%s/config.json: the pattern \"%.300s\" is no regular expression: %s (at %llu)", c->dir,
                pattern, (const char *)why, (unsigned long long)at);
        return err_hint(e, "correct quantization_config in that file");
    }
    return true;
}

/* What is called so must be one; under other names the magic number tells. */
static bool is_gguf(const char *path)
{
    char magic[4] = "";
    if (str_ends_nocase(path, ".gguf"))
        return true;
    FILE *f = os_fopen(path, "rb");
    bool found = f && fread(magic, 1, 4, f) == 4 && memcmp(magic, "GGUF", 4) == 0;
    if (f)
        fclose(f);
    return found;
}

static bool check_path(const char *path, struct err *e)
{
    enum os_kind kind = os_stat(path, NULL);
    if (kind == OS_DIR || (kind == OS_FILE && is_gguf(path)))
        return true;
    if (kind == OS_ABSENT) {
        err_set(e, ERR_USER, "there is no file or folder %s", path);
        return err_hint(e, "MODEL is a folder with config.json and safetensors, a GGUF file, or the name of a model "
                           "in the Hugging Face cache (org/name); check the spelling of the path");
    }
    if (kind == OS_OTHER) {
        err_set(e, ERR_USER, "%s is neither a folder nor a regular file", path);
        return err_hint(e, "a model cannot be read from a pipe or device: name a folder or a GGUF file");
    }
    char begin[64];
    FILE *f = os_fopen(path, "rb");
    size_t n = f ? fread(begin, 1, sizeof begin, f) : 0;
    if (f)
        fclose(f);
    if (foreign_file(path, begin, n, e))
        return false;
    err_set(e, ERR_USER, "%s is a file, not a model folder, and not a GGUF", path);
    return err_hint(e, "name the folder that holds config.json, or a GGUF file");
}

/* Where config.json says nothing of packed tensors, as of AutoGPTQ's first models, quantize_config.json does. */
static bool read_quantize_config(struct checkpoint *c, struct err *e)
{
    static const char suffix[] = ".qweight";
    char path[4096], *text = NULL;
    size_t size = 0;
    bool packed = false, there;
    for (size_t i = 0; i < safetensors_count(c->tensors) && !packed; i++) {
        const char *name = safetensors_at(c->tensors, i)->name;
        size_t n = strlen(name);
        packed = n >= sizeof suffix && strcmp(name + n - (sizeof suffix - 1), suffix) == 0;
    }
    if (!packed || c->config.quant != QUANT_NONE || c->config.unsupported[0])
        return true;
    if (!os_path_join(path, sizeof path, c->dir, "quantize_config.json", e) || !side_file_there(path, &there, e))
        return false;
    if (there) {
        bool ok =
            os_read_file(path, CONFIG_MAX, &text, &size, e) && hf_config_add_quant(&c->config, text, size, path, e);
        free(text);
        return ok;
    }
    snprintf(c->config.unsupported, sizeof c->config.unsupported,
             "its tensors are packed, and neither config.json nor a quantize_config.json says how");
    snprintf(c->config.unsupported_hint, sizeof c->config.unsupported_hint,
             "download config.json again, or quantize_config.json if the model has one");
    return true;
}

static bool open_folder(struct checkpoint *c, struct err *e)
{
    char path[4096], *text = NULL;
    const char *dir = c->dir;
    size_t size = 0;
    bool there, ok = os_path_join(path, sizeof path, dir, "config.json", e) && side_file_there(path, &there, e);
    if (ok && !there)
        ok = foreign_folder(dir, "config.json", e);
    ok = ok && os_read_file(path, CONFIG_MAX, &text, &size, e);
    ok = ok && (c->has_config = hf_config_parse(&c->config, text, size, path, e));
    free(text);
    return ok && safetensors_open_dir(&c->tensors, dir, e) && read_quantize_config(c, e) && compile_rules(c, e);
}

bool checkpoint_open(struct checkpoint **out, const char *path, struct err *e)
{
    *out = NULL;
    if (!check_path(path, e))
        return false;
    struct checkpoint *c = *out = calloc(1, sizeof *c);
    if (!c || !(c->dir = str_dup(path))) {
        checkpoint_close(out);
        return err_nomem(e, "a model", sizeof *c);
    }
    c->has_config = os_stat(path, NULL) == OS_FILE;
    bool ok = c->has_config ? gguf_model_open(&c->gguf, path, &c->config, e) : open_folder(c, e);
    if (!ok)
        checkpoint_close(out);
    return ok;
}

void checkpoint_close(struct checkpoint **out)
{
    struct checkpoint *c = *out;
    if (!c)
        return;
    for (size_t i = 0; c->rules && i < c->config.n_rules; i++)
        pcre2_code_free(c->rules[i]);
    free(c->rules);
    pcre2_match_context_free(c->limits);
    if (c->tensors)
        safetensors_close(&c->tensors);
    gguf_model_close(&c->gguf);
    if (c->has_config)
        hf_config_free(&c->config);
    free(c->dir);
    free(c);
    *out = NULL;
}

const struct model_config *checkpoint_config(const struct checkpoint *c)
{
    return &c->config;
}

const char *checkpoint_dir(const struct checkpoint *c)
{
    return c->dir;
}

const struct gguf *checkpoint_gguf(const struct checkpoint *c)
{
    return c->gguf ? gguf_model_file(c->gguf) : NULL;
}

size_t checkpoint_tensor_count(const struct checkpoint *c)
{
    return c->gguf ? gguf_model_count(c->gguf) : safetensors_count(c->tensors);
}

const struct tensor *checkpoint_tensor_at(const struct checkpoint *c, size_t i)
{
    return c->gguf ? gguf_model_at(c->gguf, i) : safetensors_at(c->tensors, i);
}

const struct tensor *checkpoint_tensor_find(const struct checkpoint *c, const char *name)
{
    return c->gguf ? gguf_model_find(c->gguf, name) : safetensors_find(c->tensors, name);
}

const char *checkpoint_tensor_path(const struct checkpoint *c, const struct tensor *t)
{
    return c->gguf ? gguf_model_path(c->gguf, t) : safetensors_path(c->tensors, t);
}

void checkpoint_drop(const struct checkpoint *c, const struct tensor *t)
{
    if (c->gguf)
        gguf_model_drop(c->gguf, t);
    else
        safetensors_drop(c->tensors, t);
}

/* MODULE + suffix; NULL if absent. */
static const struct tensor *part(const struct checkpoint *c, const char *module, const char *suffix)
{
    return c->gguf ? gguf_model_tensor(c->gguf, module, suffix) : module_tensor(c->tensors, module, suffix);
}

void checkpoint_drop_module(const struct checkpoint *c, const char *module)
{
    static const char *const parts[] = {".weight", ".bias",          ".qweight",      ".qzeros", ".scales",
                                        ".g_idx",  ".weight_packed", ".weight_scale", ".biases"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const struct tensor *t = part(c, module, parts[i]);
        if (t)
            checkpoint_drop(c, t);
    }
}

bool checkpoint_is_packed(const struct checkpoint *c, const char *module, const char *suffix)
{
    const struct tensor *t;
    if (c->gguf)
        return strcmp(suffix, ".weight") == 0 && (t = part(c, module, suffix)) && !gguf_model_is_plain(t);
    return packed_suffix(c->config.quant, suffix) && packed_present(c->tensors, c->config.quant, module);
}

bool checkpoint_config_text(const struct checkpoint *c, char **text, size_t *size, struct err *e)
{
    char path[4096];
    if (c->gguf)
        return hf_config_text(&c->config, text, size, e);
    return os_path_join(path, sizeof path, c->dir, "config.json", e) && os_read_file(path, CONFIG_MAX, text, size, e);
}

/* ---- modules ---- */

/* The first rule that speaks of the module; *rule is NULL if none does. */
static bool find_rule(const struct checkpoint *c, const char *module, const struct quant_rule **rule, struct err *e)
{
    *rule = NULL;
    for (size_t i = 0; i < c->config.n_rules && !*rule; i++) {
        if (!c->rules[i]) {
            *rule = &c->config.rules[i];
            break;
        }
        pcre2_match_data *m = pcre2_match_data_create(1, NULL);
        if (!m)
            return err_nomem(e, "matching a rule", 64);
        int rc = pcre2_match(c->rules[i], (PCRE2_SPTR)module, strlen(module), 0, 0, m, c->limits);
        pcre2_match_data_free(m);
        if (rc >= 0)
            *rule = &c->config.rules[i];
        else if (rc != PCRE2_ERROR_NOMATCH)
            return err_set(e, ERR_USER, "%s/config.json: the pattern \"%.300s\" takes too long to match (error %d)",
                           c->dir, c->config.rules[i].regex, rc);
    }
    return true;
}

/* In several tensors, as the quantized formats of Hugging Face folders have it. */
static bool is_packed(const struct checkpoint *c, const char *module)
{
    return !c->gguf && packed_present(c->tensors, c->config.quant, module);
}

static bool open_packed(struct packed_linear *p, const struct checkpoint *c, const char *module, struct err *e)
{
    const struct quant_rule *rule;
    return find_rule(c, module, &rule, e) && packed_open(p, c->tensors, c->config.quant, rule, module, e);
}

bool checkpoint_has_module(const struct checkpoint *c, const char *module)
{
    return is_packed(c, module) || part(c, module, ".weight");
}

/* Known to be there when only the other one is: tied models store either name. */
static const char *const embedding = "model.embed_tokens", *const head = "lm_head";

const char *checkpoint_embedding_module(const struct checkpoint *c)
{
    bool swap = !checkpoint_has_module(c, embedding) && c->config.tie_word_embeddings && checkpoint_has_module(c, head);
    return swap ? head : embedding;
}

const char *checkpoint_head_module(const struct checkpoint *c)
{
    bool swap = !checkpoint_has_module(c, head) && c->config.tie_word_embeddings;
    return swap ? embedding : head;
}

static bool is_float(enum dtype t)
{
    return t == DTYPE_F32 || t == DTYPE_F16 || t == DTYPE_BF16;
}

static bool dense_info(const struct checkpoint *c, const char *module, struct weight_info *out, struct err *e)
{
    const struct tensor *t = part(c, module, ".weight");
    if (!t) {
        err_set(e, ERR_USER, "the tensor %s.weight is missing from %s", module, c->dir);
        return err_hint(e, "a shard is missing, the download is not complete, or the architecture is another one");
    }
    if (c->gguf)
        return gguf_model_weight(t, checkpoint_tensor_path(c, t), out, e);
    if (!is_float(t->dtype)) {
        err_set(e, ERR_USER, "%s in %s is %s, expected F32, F16 or BF16", t->name, checkpoint_tensor_path(c, t),
                t->stored_dtype[0] ? t->stored_dtype : dtype_name(t->dtype));
        return err_hint(e, "start from the 16-bit model");
    }
    uint64_t rows = t->n_dims == 2 ? t->shape[0] : 1, cols = t->n_dims ? t->shape[t->n_dims - 1] : 0;
    if (t->n_dims < 1 || t->n_dims > 2 || !rows || !cols || rows > INT32_MAX || cols > INT32_MAX) {
        err_set(e, ERR_USER, "%s in %s has %u dimensions or an odd size; a vector or a matrix is expected", t->name,
                safetensors_path(c->tensors, t), (unsigned)t->n_dims);
        return err_hint(e, "the model may be of an architecture that is not supported");
    }
    *out = (struct weight_info){.rows = (uint32_t)rows,
                                .cols = (uint32_t)cols,
                                .dtype = t->dtype,
                                .stored = dtype_name(t->dtype),
                                .bytes = t->bytes};
    return true;
}

bool checkpoint_weight(const struct checkpoint *c, const char *module, struct weight_info *out, struct err *e)
{
    struct packed_linear p;
    if (!is_packed(c, module))
        return dense_info(c, module, out, e);
    if (!open_packed(&p, c, module, e))
        return false;
    *out = (struct weight_info){
        .quantized = true, .rows = p.rows, .cols = p.cols, .dtype = p.scales->dtype, .spec = p.spec, .bytes = p.bytes};
    return true;
}

const struct tensor *checkpoint_dense(const struct checkpoint *c, const char *module)
{
    const struct tensor *t = is_packed(c, module) ? NULL : part(c, module, ".weight");
    return t && c->gguf && !gguf_model_is_plain(t) ? NULL : t;
}

const struct tensor *checkpoint_stored(const struct checkpoint *c, const char *module)
{
    return part(c, module, ".weight");
}

const struct tensor *checkpoint_bias(const struct checkpoint *c, const char *module)
{
    return part(c, module, ".bias");
}

/* ---- values ---- */

/* 16-bit floats in blocks of one length, padded at the end: such loops vectorize. The same results as
 * base/num.h. */
static void halves_to_f32(const uint8_t *from, uint64_t n, bool bf16, float *dst)
{
    enum { BLOCK = 1024 };
    uint16_t half[BLOCK] = {0};
    uint32_t bits[BLOCK];
    float value[BLOCK];
    for (uint64_t at = 0; at < n; at += BLOCK) {
        size_t count = (size_t)min_u64(n - at, BLOCK);
        memcpy(half, from + at * 2, count * 2);
        if (bf16) {
            for (size_t i = 0; i < BLOCK; i++)
                bits[i] = (uint32_t)half[i] << 16;
            memcpy(dst + at, bits, count * 4);
            continue;
        }
        /* The exponent's bias differs by 112: subnormals come right out of the multiplication, infinities
         * after it. */
        for (size_t i = 0; i < BLOCK; i++)
            bits[i] = (half[i] & 0x7FFFu) << 13;
        memcpy(value, bits, sizeof value);
        for (size_t i = 0; i < BLOCK; i++)
            value[i] *= 0x1p112f;
        memcpy(bits, value, sizeof bits);
        for (size_t i = 0; i < BLOCK; i++) {
            uint32_t all_ones = ((half[i] & 0x7C00u) + 0x0400u) >> 15;
            bits[i] |= (half[i] & 0x8000u) << 16 | (all_ones * 0x7F800000u);
        }
        memcpy(dst + at, bits, count * 4);
    }
}

bool tensor_read_f32(const struct tensor *t, uint64_t first, uint64_t n, float *dst, struct err *e)
{
    uint64_t end, size = dtype_size(t->dtype);
    if (!is_float(t->dtype))
        return err_set(e, ERR_USER, "%s is %s, expected F32, F16 or BF16", t->name, dtype_name(t->dtype));
    if (!add_u64(first, n, &end) || end > t->bytes / size)
        return err_set(e, ERR_BUG, "elements %llu to %llu of %s, which has %llu", (unsigned long long)first,
                       (unsigned long long)(first + n), t->name, (unsigned long long)(t->bytes / size));
    const uint8_t *from = t->data + first * size;
    if (n == 0)
        return true;
    if (t->dtype == DTYPE_F32)
        memcpy(dst, from, (size_t)n * 4);
    else
        halves_to_f32(from, n, t->dtype == DTYPE_BF16, dst);
    return true;
}

bool checkpoint_read_f32(const struct checkpoint *c, const char *module, uint32_t row0, uint32_t rows, float *dst,
                         struct err *e)
{
    struct weight_info w;
    struct packed_linear p;
    if (c->gguf)
        return dense_info(c, module, &w, e) && gguf_model_read(part(c, module, ".weight"), row0, rows, dst, e);
    if (!is_packed(c, module))
        return dense_info(c, module, &w, e) &&
               tensor_read_f32(module_tensor(c->tensors, module, ".weight"), (uint64_t)row0 * w.cols,
                               (uint64_t)rows * w.cols, dst, e);
    if (!open_packed(&p, c, module, e))
        return false;
    /* In slices, so that a whole output head does not need its codes in memory beside the result. */
    uint32_t slice = (uint32_t)max_u64(16, (1u << 22) / p.cols);
    struct qlinear q;
    if (rows == 0)
        return true;
    if (!qlinear_init(&q, rows < slice ? rows : slice, p.cols, p.spec, e))
        return false;
    bool ok = true;
    for (uint32_t r = 0; r < rows && ok; r += slice) {
        uint32_t n = rows - r < slice ? rows - r : slice;
        ok = packed_rows(&p, c->tensors, row0 + r, n, q.codes, q.scales, e);
        if (ok)
            qlinear_dequant(&q, 0, n, dst + (size_t)r * p.cols);
    }
    qlinear_free(&q);
    return ok;
}

bool checkpoint_read_codes(const struct checkpoint *c, const char *module, struct qlinear *q, struct err *e)
{
    struct packed_linear p;
    struct weight_info w;
    *q = (struct qlinear){0};
    if (c->gguf && !dense_info(c, module, &w, e))
        return false;
    if (c->gguf && w.quantized)
        return gguf_model_codes(part(c, module, ".weight"), &w, q, e);
    if (!is_packed(c, module))
        return err_set(e, ERR_USER, "%s of %s is not quantized", module, c->dir);
    if (!open_packed(&p, c, module, e) || !qlinear_init(q, p.rows, p.cols, p.spec, e))
        return false;
    if (packed_rows(&p, c->tensors, 0, p.rows, q->codes, q->scales, e))
        return true;
    qlinear_free(q);
    return false;
}

/* ---- finite ---- */

/* An exponent of all ones carries into the sign's place when its lowest bit is added. */
#define CARRY16(h, ones) ((uint16_t)(((h) & (ones)) + (0x8000u - (ones))))
#define CARRY32(u)       (((u)&0x7F800000u) + 0x00800000u)

/* Whether a block, padded with zeros, holds such an element. */
static bool block_not_finite(const struct tensor *t, uint64_t at, uint32_t count)
{
    uint32_t ones = t->dtype == DTYPE_F16 ? 0x7C00 : 0x7F80, bad = 0;
    if (t->dtype == DTYPE_F32) {
        uint32_t full[FINITE_BLOCK] = {0};
        memcpy(full, t->data + at * 4, (size_t)count * 4);
        for (uint32_t i = 0; i < FINITE_BLOCK; i++)
            bad |= CARRY32(full[i]);
        return bad >> 31;
    }
    uint16_t half[FINITE_BLOCK] = {0}, bad16 = 0;
    memcpy(half, t->data + at * 2, (size_t)count * 2);
    for (uint32_t i = 0; i < FINITE_BLOCK; i++)
        bad16 |= CARRY16(half[i], ones);
    return bad16 >> 15;
}

/* Index of the first NaN or infinity of elements [first, n), or n. */
static uint64_t first_not_finite(const struct tensor *t, uint64_t first, uint64_t n)
{
    uint32_t ones = t->dtype == DTYPE_F16 ? 0x7C00 : 0x7F80;
    for (uint64_t at = first; at < n; at += FINITE_BLOCK) {
        uint32_t count = (uint32_t)min_u64(n - at, FINITE_BLOCK);
        if (!block_not_finite(t, at, count))
            continue;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t carry = t->dtype == DTYPE_F32 ? CARRY32(load_u32le(t->data + (at + i) * 4)) >> 31
                                                   : CARRY16(load_u16le(t->data + (at + i) * 2), ones) >> 15;
            if (carry)
                return at + i;
        }
    }
    return n;
}

struct finite_scan {
    const struct checkpoint *c;
    const struct tensor *t;
    uint64_t n;
};

static bool scan_part(void *ctx, uint64_t i, unsigned thread, struct err *e)
{
    const struct finite_scan *s = ctx;
    uint64_t end = min_u64(s->n, (i + 1) * FINITE_PART), at = first_not_finite(s->t, i * FINITE_PART, end);
    float v;
    (void)thread;
    if (at == end || !tensor_read_f32(s->t, at, 1, &v, e))
        return at == end;
    err_set(e, ERR_USER, "%s in %s holds %s at element %llu", s->t->name, checkpoint_tensor_path(s->c, s->t),
            v != v ? "NaN" : "an infinity", (unsigned long long)at);
    return err_hint(e, "the file is damaged or its training diverged: download it again, or take another model");
}

static bool not_stopped(void *ctx, uint64_t parts)
{
    (void)ctx, (void)parts;
    return !os_stop_requested();
}

static bool tensor_finite(const struct checkpoint *c, const struct tensor *t, struct err *e)
{
    if (!t || !is_float(t->dtype))
        return true;
    struct finite_scan s = {c, t, t->bytes / dtype_size(t->dtype)};
    const struct pool_work work = {
        .n = div_up(s.n, FINITE_PART), .piece = scan_part, .progress = not_stopped, .ctx = &s};
    return pool_run(&work, e);
}

bool checkpoint_check_finite(const struct checkpoint *c, const char *module, struct err *e)
{
    struct packed_linear p;
    if (!tensor_finite(c, checkpoint_bias(c, module), e))
        return false;
    const struct tensor *t = part(c, module, ".weight");
    if (c->gguf && t && !gguf_model_finite(t, checkpoint_tensor_path(c, t), e))
        return false;
    if (!is_packed(c, module))
        return tensor_finite(c, t, e);
    return open_packed(&p, c, module, e) && tensor_finite(c, p.scales, e) && tensor_finite(c, p.biases, e);
}
