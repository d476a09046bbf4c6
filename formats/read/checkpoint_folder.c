#include "formats/read/checkpoint_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/foreign.h"
#include "formats/hf/hf_config.h"
#include "formats/pattern.h"
#include "formats/read/checkpoint_narrow.h"
#include "formats/read/checkpoint_quant.h"
#include "formats/read/stacked.h"
#include "formats/read/tensor_values.h"
#include "formats/side_file.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/str.h"

#define CONFIG_MAX (64u << 20)

struct folder {
    char *dir;
    struct model_config *config;
    struct safetensors *tensors;
    struct stacked *stacked; /* NULL: no tensor holds several experts */
    struct pattern **rules;  /* of config->rules; NULL where a rule has none */
};

/* ---- opening ---- */

static bool compile_rules(struct folder *f, struct err *e)
{
    const struct model_config *c = f->config;
    if (!(f->rules = calloc(c->n_rules + 1, sizeof *f->rules)))
        return err_nomem(e, "the rules of config.json", c->n_rules * sizeof *f->rules);
    for (size_t i = 0; i < c->n_rules; i++)
        if (c->rules[i].regex && !pattern_compile(&f->rules[i], c->rules[i].regex, false, e))
            return err_context(e, "%s/config.json", f->dir);
    return true;
}

/* Where config.json says nothing of packed tensors, as of AutoGPTQ's first models, quantize_config.json does. */
static bool read_quantize_config(struct folder *f, struct err *e)
{
    char path[4096], *text = NULL;
    size_t size = 0;
    bool packed = false, there;
    for (size_t i = 0; i < safetensors_count(f->tensors) && !packed; i++)
        packed = str_ends(safetensors_at(f->tensors, i)->name, ".qweight");
    if (!packed || f->config->quant != QUANT_NONE || f->config->unsupported[0])
        return true;
    if (!os_path_join(path, sizeof path, f->dir, "quantize_config.json", e) || !side_file_there(path, &there, e))
        return false;
    if (there) {
        bool ok =
            os_read_file(path, CONFIG_MAX, &text, &size, e) && hf_config_add_quant(f->config, text, size, path, e);
        free(text);
        return ok;
    }
    snprintf(f->config->unsupported, sizeof f->config->unsupported,
             "its tensors are packed, and neither config.json nor a quantize_config.json says how");
    snprintf(f->config->unsupported_hint, sizeof f->config->unsupported_hint,
             "download config.json again, or quantize_config.json if the model has one");
    return true;
}

/* How the tensors of the text part are called. Where a model is all text, its names are not looked for: those of another
 * kind are refused by whoever wants them. */
static void find_names(struct folder *f)
{
    struct model_config *c = f->config;
    const struct config_names *n;
    char norm[80];
    for (size_t i = 0; c->wrapper[0] && (n = config_names_at(i)); i++) {
        snprintf(norm, sizeof norm, "%snorm.weight", n->prefix);
        if (!safetensors_find(f->tensors, norm))
            continue;
        snprintf(c->prefix, sizeof c->prefix, "%s", n->prefix);
        snprintf(c->head, sizeof c->head, "%s", n->head);
        if (c->tie_unsaid)
            c->tie_word_embeddings =
                !module_tensor(f->tensors, c->head, ".weight") && !packed_present(f->tensors, c->quant, c->head);
    }
}

static bool open_folder(struct folder *f, struct err *e)
{
    char path[4096], *text = NULL;
    size_t size = 0;
    bool there, ok = os_path_join(path, sizeof path, f->dir, "config.json", e) && side_file_there(path, &there, e);
    if (ok && !there)
        ok = foreign_folder(f->dir, "config.json", e);
    ok = ok && os_read_file(path, CONFIG_MAX, &text, &size, e) && hf_config_parse(f->config, text, size, path, e);
    free(text);
    if (!ok || !safetensors_open_dir(&f->tensors, f->dir, e))
        return false;
    find_names(f);
    return read_quantize_config(f, e) && compile_rules(f, e) && stacked_make(&f->stacked, f->tensors, f->config, e);
}

static void folder_close(void *self)
{
    struct folder *f = self;
    for (size_t i = 0; f->rules && i < f->config->n_rules; i++)
        pattern_free(&f->rules[i]);
    free(f->rules);
    if (f->tensors)
        safetensors_close(&f->tensors);
    stacked_free(&f->stacked);
    free(f->dir);
    free(f);
}

void *folder_source_open(const char *dir, struct model_config *config, struct err *e)
{
    struct folder *f = calloc(1, sizeof *f);
    if (!f || !(f->dir = str_dup(dir))) {
        free(f);
        err_nomem(e, "a model", sizeof *f);
        return NULL;
    }
    f->config = config;
    if (open_folder(f, e))
        return f;
    folder_close(f);
    return NULL;
}

/* ---- tensors ---- */

static size_t folder_count(const void *self)
{
    const struct folder *f = self;
    return f->stacked ? stacked_count(f->stacked) : safetensors_count(f->tensors);
}

static const struct tensor *folder_at(const void *self, size_t i)
{
    const struct folder *f = self;
    return f->stacked ? stacked_at(f->stacked, i) : safetensors_at(f->tensors, i);
}

static const struct tensor *folder_find(const void *self, const char *name)
{
    return safetensors_find(((const struct folder *)self)->tensors, name);
}

static const char *folder_path(const void *self, const struct tensor *t)
{
    return safetensors_path(((const struct folder *)self)->tensors, t);
}

static void folder_drop(const void *self, const struct tensor *t)
{
    const struct folder *f = self;
    if (f->stacked)
        stacked_drop(f->stacked, t);
    else
        safetensors_drop(f->tensors, t);
}

static bool folder_is_packed(const void *self, const char *module, const char *suffix)
{
    const struct folder *f = self;
    enum quant_method method = f->config->quant;
    if (f->stacked && stacked_is_packed(f->stacked, module, suffix))
        return true;
    return (!suffix || packed_suffix(method, suffix)) &&
           (packed_present(f->tensors, method, module) || narrow_present(f->tensors, method, module));
}

static bool folder_config_text(const void *self, char **text, size_t *size, struct err *e)
{
    const struct folder *f = self;
    char path[4096];
    return os_path_join(path, sizeof path, f->dir, "config.json", e) && os_read_file(path, CONFIG_MAX, text, size, e);
}

/* ---- modules ---- */

/* The first rule that speaks of the module; *rule is NULL if none does. */
static bool find_rule(const struct folder *f, const char *module, const struct quant_rule **rule, struct err *e)
{
    char name[160];
    const char *known = f->stacked ? stacked_module(f->stacked, module, name, sizeof name) : module;
    *rule = NULL;
    for (size_t i = 0; i < f->config->n_rules && !*rule; i++) {
        bool found = true;
        if (f->rules[i] && !pattern_search(f->rules[i], known, &found, e))
            return err_context(e, "%s/config.json", f->dir);
        *rule = found ? &f->config->rules[i] : NULL;
    }
    return true;
}

static bool open_packed(struct packed_linear *p, const struct folder *f, const char *module, struct err *e)
{
    const struct quant_rule *rule;
    return find_rule(f, module, &rule, e) && packed_open(p, f->tensors, f->config->quant, rule, module, e);
}

static bool is_stacked(const struct folder *f, const char *module)
{
    return f->stacked && stacked_is_packed(f->stacked, module, NULL);
}

static bool is_narrow(const struct folder *f, const char *module)
{
    return narrow_present(f->tensors, f->config->quant, module);
}

static bool open_narrow(struct narrow_linear *w, const struct folder *f, const char *module, struct err *e)
{
    const struct quant_rule *rule;
    return find_rule(f, module, &rule, e) && narrow_open(w, f->tensors, rule, module, e);
}

static bool dense_weight(const struct folder *f, const char *module, struct weight_info *out, struct err *e)
{
    const struct tensor *t = source_weight(&folder_source, f, module, f->dir, e);
    if (!t)
        return false;
    const char *path = safetensors_path(f->tensors, t);
    if (!dtype_is_float(t->dtype)) {
        err_set(e, ERR_USER, "%s in %s is %s, expected F32, F16 or BF16", t->name, path,
                t->stored_dtype[0] ? t->stored_dtype : dtype_name(t->dtype));
        return err_hint(e, "start from the 16-bit model");
    }
    bool ok = source_shape(t, t->name, path, out, e);
    out->stored = dtype_name(t->dtype);
    return ok;
}

static bool folder_weight(const void *self, const char *module, struct weight_info *out, struct err *e)
{
    const struct folder *f = self;
    struct narrow_linear narrow;
    struct packed_linear p;
    if (is_stacked(f, module))
        return stacked_weight(f->stacked, module, out, e);
    if (is_narrow(f, module)) {
        if (!open_narrow(&narrow, f, module, e))
            return false;
        *out = (struct weight_info){.rows = narrow.rows,
                                    .cols = narrow.cols,
                                    .dtype = DTYPE_OTHER,
                                    .stored = narrow_type_name(&narrow),
                                    .blocks = narrow_blocks_type(&narrow),
                                    .bytes = narrow_bytes(&narrow)};
        return true;
    }
    if (!folder_is_packed(f, module, NULL))
        return dense_weight(f, module, out, e);
    if (!open_packed(&p, f, module, e))
        return false;
    *out = (struct weight_info){
        .quantized = true, .rows = p.rows, .cols = p.cols, .dtype = p.scales->dtype, .spec = p.spec, .bytes = p.bytes};
    return true;
}

static bool folder_read(const void *self, const char *module, uint32_t row0, uint32_t rows, float *dst, struct err *e)
{
    const struct folder *f = self;
    struct weight_info w;
    struct narrow_linear narrow;
    struct packed_linear p;
    if (is_stacked(f, module))
        return stacked_read(f->stacked, module, row0, rows, dst, e);
    if (is_narrow(f, module))
        return open_narrow(&narrow, f, module, e) && narrow_rows(&narrow, row0, rows, dst, e);
    if (!folder_is_packed(f, module, NULL))
        return dense_weight(f, module, &w, e) &&
               tensor_read_f32(source_tensor(&folder_source, f, module, ".weight"), (uint64_t)row0 * w.cols,
                               (uint64_t)rows * w.cols, dst, e);
    if (!open_packed(&p, f, module, e))
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
        ok = packed_rows(&p, f->tensors, row0 + r, n, q.codes, q.scales, e);
        if (ok)
            qlinear_dequant(&q, 0, n, dst + (size_t)r * p.cols);
    }
    qlinear_free(&q);
    return ok;
}

static bool folder_codes(const void *self, const char *module, struct qlinear *q, struct err *e)
{
    const struct folder *f = self;
    struct packed_linear p;
    return open_packed(&p, f, module, e) && packed_rows(&p, f->tensors, 0, p.rows, q->codes, q->scales, e);
}

static bool folder_blocks(const void *self, const char *module, uint32_t row0, uint32_t rows, uint8_t *dst,
                          struct err *e)
{
    const struct folder *f = self;
    struct narrow_linear narrow;
    if (is_stacked(f, module))
        return stacked_blocks(f->stacked, module, row0, rows, dst, e);
    return open_narrow(&narrow, f, module, e) && narrow_blocks(&narrow, row0, rows, dst, e);
}

static bool folder_check_finite(const void *self, const char *module, struct err *e)
{
    const struct folder *f = self;
    const struct tensor *t = source_tensor(&folder_source, f, module, ".weight");
    struct narrow_linear narrow;
    struct packed_linear p;
    if (is_stacked(f, module))
        return stacked_check_finite(f->stacked, module, e);
    if (is_narrow(f, module))
        return open_narrow(&narrow, f, module, e) && narrow_check_finite(&narrow, f->tensors, e);
    if (!folder_is_packed(f, module, NULL))
        return !t || tensor_check_finite(t, folder_path(f, t), e);
    return open_packed(&p, f, module, e) && packed_check_shape(&p, f->tensors, e) &&
           tensor_check_finite(p.scales, folder_path(f, p.scales), e) &&
           (!p.biases || tensor_check_finite(p.biases, folder_path(f, p.biases), e));
}

const struct model_source folder_source = {
    .close = folder_close,
    .count = folder_count,
    .at = folder_at,
    .find = folder_find,
    .path = folder_path,
    .drop = folder_drop,
    .is_packed = folder_is_packed,
    .config_text = folder_config_text,
    .weight = folder_weight,
    .read = folder_read,
    .codes = folder_codes,
    .blocks = folder_blocks,
    .check_finite = folder_check_finite,
};
