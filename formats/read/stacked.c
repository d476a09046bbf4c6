#include "formats/read/stacked.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/block.h"
#include "formats/read/checkpoint_narrow.h"
#include "formats/read/tensor_values.h"
#include "host/base/str.h"

/* What a tensor behind "layers.N." holds of each expert: one or two parts. '*' is the expert's number. */
static const struct rule {
    unsigned of; /* families that have one of these (PARTS_) */
    const char *tensor;
    const char *parts[2]; /* the second NULL: there is one */
    const char *suffix;
    bool pairs;  /* a row of the first part, then one of the second, and so on; else all of the first come first */
    bool turned; /* rows of a part are columns of the tensor */
} rules[] = {
    {PARTS_EXPERTS_STACKED,
     "block_sparse_moe.input_linear.weight",
     {"block_sparse_moe.experts.*.w1", "block_sparse_moe.experts.*.w3"},
     ".weight",
     false,
     false},
    {PARTS_EXPERTS_STACKED,
     "block_sparse_moe.output_linear.weight",
     {"block_sparse_moe.experts.*.w2"},
     ".weight",
     false,
     false},
    {PARTS_EXPERTS,
     "mlp.experts.gate_up_proj",
     {"mlp.experts.*.gate_proj", "mlp.experts.*.up_proj"},
     ".weight",
     false,
     false},
    {PARTS_EXPERTS, "mlp.experts.down_proj", {"mlp.experts.*.down_proj"}, ".weight", false, false},
    {PARTS_GPT_OSS,
     "mlp.experts.gate_up_proj",
     {"mlp.experts.*.gate_proj", "mlp.experts.*.up_proj"},
     ".weight",
     true,
     true},
    {PARTS_GPT_OSS, "mlp.experts.down_proj", {"mlp.experts.*.down_proj"}, ".weight", false, true},
    {PARTS_GPT_OSS,
     "mlp.experts.gate_up_proj_blocks",
     {"mlp.experts.*.gate_proj", "mlp.experts.*.up_proj"},
     ".weight_packed",
     true,
     false},
    {PARTS_GPT_OSS,
     "mlp.experts.gate_up_proj_scales",
     {"mlp.experts.*.gate_proj", "mlp.experts.*.up_proj"},
     ".weight_scale",
     true,
     false},
    {PARTS_GPT_OSS, "mlp.experts.down_proj_blocks", {"mlp.experts.*.down_proj"}, ".weight_packed", false, false},
    {PARTS_GPT_OSS, "mlp.experts.down_proj_scales", {"mlp.experts.*.down_proj"}, ".weight_scale", false, false},
    {PARTS_GPT_OSS,
     "mlp.experts.gate_up_proj_bias",
     {"mlp.experts.*.gate_proj", "mlp.experts.*.up_proj"},
     ".bias",
     true,
     false},
    {PARTS_GPT_OSS, "mlp.experts.down_proj_bias", {"mlp.experts.*.down_proj"}, ".bias", false, false},
};

struct part {
    struct tensor
        tensor; /* first: what callers hold is a pointer to this. Its bytes are this part's share of the expert's */
    struct tensor whole; /* the expert's */
    const struct rule *rule;
    uint32_t which; /* part */
    uint8_t *own;   /* a bias put together */
    char name[120];
};

struct stacked {
    const struct safetensors *s;
    const struct model_config *config;
    struct part *parts;
    size_t n_parts;
    const struct tensor **list;
    size_t n;
    struct strmap by_name;
};

/* ---- opening ---- */

/* The rule of a tensor, and its layer; NULL: it is none of those. */
static const struct rule *rule_of(const struct model_config *c, const char *name, uint32_t *layer)
{
    const struct family *f = family_of(c);
    char front[48], *end;
    snprintf(front, sizeof front, "%slayers.", config_prefix(c));
    size_t n = strlen(front);
    if (!f || !c->experts.n || strncmp(name, front, n) != 0 || name[n] < '0' || name[n] > '9')
        return NULL;
    *layer = (uint32_t)strtoul(name + n, &end, 10);
    if (*end != '.' || *layer >= c->num_layers)
        return NULL;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (f->parts & rules[i].of && strcmp(end + 1, rules[i].tensor) == 0)
            return &rules[i];
    return NULL;
}

static uint32_t parts_of(const struct rule *r)
{
    return r->parts[1] ? 2 : 1;
}

/* Rows of all parts of an expert, and numbers of one. */
static void shape_of(const struct rule *r, const struct tensor *t, uint64_t *rows, uint64_t *cols)
{
    *cols = 1;
    for (uint32_t i = 2; i < t->n_dims; i++)
        *cols *= t->shape[i];
    *rows = r->turned ? *cols : t->shape[1];
    *cols = r->turned ? t->shape[1] : *cols;
}

static bool check_shape(const struct stacked *x, const struct tensor *t, const struct rule *r, struct err *e)
{
    uint32_t dims = strcmp(r->suffix, ".bias") == 0 ? 2 : strcmp(r->suffix, ".weight_packed") == 0 ? 4 : 3;
    bool bytes = strncmp(r->suffix, ".weight_", 8) == 0,
         right = bytes ? t->dtype == DTYPE_U8 : dtype_is_float(t->dtype);
    uint64_t rows, cols;
    if (t->n_dims == dims && t->shape[0] == x->config->experts.n && right) {
        shape_of(r, t, &rows, &cols);
        if (rows && cols && rows <= INT32_MAX && cols <= INT32_MAX && rows % parts_of(r) == 0)
            return true;
    }
    err_set(e, ERR_USER, "%s in %s is not one tensor of %u experts' matrices", t->name, safetensors_path(x->s, t),
            (unsigned)x->config->experts.n);
    return err_hint(e, "the file does not match its config.json: download both again");
}

/* Biases are small: those of pairs are put together at once. */
static bool gather_bias(struct part *p, uint64_t n, struct err *e)
{
    size_t size = dtype_size(p->tensor.dtype);
    if (!(p->own = malloc((size_t)n * size)))
        return err_nomem(e, p->name, n * size);
    for (uint64_t i = 0; i < n; i++)
        memcpy(p->own + i * size, p->whole.data + (2 * i + p->which) * size, size);
    p->tensor.data = p->own;
    return true;
}

static bool fill(struct stacked *x, struct part *p, const struct tensor *t, const struct rule *r, uint32_t layer,
                 uint32_t i, struct err *e)
{
    uint32_t of = parts_of(r), expert = i / of;
    const char *hf = r->parts[i % of], *star = strchr(hf, '*');
    uint64_t bytes = t->bytes / x->config->experts.n, rows, cols;
    bool added;
    shape_of(r, t, &rows, &cols);
    p->rule = r;
    p->which = i % of;
    snprintf(p->name, sizeof p->name, "%slayers.%" PRIu32 ".%.*s%" PRIu32 "%s%s", config_prefix(x->config), layer,
             (int)(star - hf), hf, expert, star + 1, r->suffix);
    p->whole = (struct tensor){
        .name = p->name, .dtype = t->dtype, .data = t->data + expert * bytes, .bytes = bytes, .file = t->file};
    p->tensor = p->whole;
    p->tensor.n_dims = t->n_dims > 2 ? 2 : 1;
    p->tensor.shape[0] = rows / of;
    p->tensor.shape[1] = t->n_dims > 2 ? cols : 0;
    p->tensor.bytes = bytes / of;
    p->tensor.data += p->which * p->tensor.bytes;
    memcpy(p->tensor.stored_dtype, t->stored_dtype, sizeof t->stored_dtype);
    if (t->n_dims == 2 && r->pairs && !gather_bias(p, rows / of, e))
        return false;
    if (!strmap_add(&x->by_name, p->name, strlen(p->name), (uint32_t)(p - x->parts), &added))
        return err_nomem(e, "the list of tensors", x->n * sizeof *x->list);
    if (added && !safetensors_find(x->s, p->name))
        return true;
    err_set(e, ERR_USER, "%s holds %s twice, in %s too", safetensors_path(x->s, t), p->name, t->name);
    return err_hint(e, "remove one of them from the folder");
}

/* Counts what a tensor becomes, and lists it where there is room. */
static bool add(struct stacked *x, const struct tensor *t, bool make, struct err *e)
{
    uint32_t layer = 0;
    const struct rule *r = rule_of(x->config, t->name, &layer);
    if (!r) {
        if (make)
            x->list[x->n] = t;
        x->n++;
        return true;
    }
    if (!check_shape(x, t, r, e))
        return false;
    for (uint32_t i = 0; i < x->config->experts.n * parts_of(r); i++, x->n_parts++, x->n++) {
        if (!make)
            continue;
        if (!fill(x, &x->parts[x->n_parts], t, r, layer, i, e))
            return false;
        x->list[x->n] = &x->parts[x->n_parts].tensor;
    }
    return true;
}

static bool list(struct stacked *x, bool make, struct err *e)
{
    bool ok = true;
    x->n = x->n_parts = 0;
    for (size_t i = 0; ok && i < safetensors_count(x->s); i++)
        ok = add(x, safetensors_at(x->s, i), make, e);
    return ok;
}

bool stacked_make(struct stacked **out, const struct safetensors *s, const struct model_config *c, struct err *e)
{
    struct stacked *x = *out = calloc(1, sizeof *x);
    if (!x)
        return err_nomem(e, "the list of tensors", sizeof *x);
    x->s = s;
    x->config = c;
    bool ok = list(x, false, e);
    if (ok && x->n_parts) {
        x->parts = calloc(x->n_parts, sizeof *x->parts);
        x->list = calloc(x->n, sizeof *x->list);
        if (!x->parts || !x->list)
            ok = err_nomem(e, "the list of tensors", x->n_parts * sizeof *x->parts);
        ok = ok && list(x, true, e);
    }
    if (!ok || !x->n_parts)
        stacked_free(out);
    return ok;
}

void stacked_free(struct stacked **out)
{
    struct stacked *x = *out;
    *out = NULL;
    if (!x)
        return;
    for (size_t i = 0; x->parts && i < x->n_parts; i++)
        free(x->parts[i].own);
    strmap_free(&x->by_name);
    free(x->list);
    free(x->parts);
    free(x);
}

/* ---- tensors ---- */

size_t stacked_count(const struct stacked *x)
{
    return x->n;
}

const struct tensor *stacked_at(const struct stacked *x, size_t i)
{
    return x->list[i];
}

static const struct part *part_named(const struct stacked *x, const char *module, const char *suffix)
{
    char name[160];
    uint32_t i;
    int n = snprintf(name, sizeof name, "%s%s", module, suffix);
    return n > 0 && (size_t)n < sizeof name && strmap_find(&x->by_name, name, (size_t)n, &i) ? &x->parts[i] : NULL;
}

const struct tensor *stacked_find(const struct stacked *x, const char *name)
{
    const struct part *p = part_named(x, name, "");
    return p ? &p->tensor : safetensors_find(x->s, name);
}

void stacked_drop(const struct stacked *x, const struct tensor *t)
{
    const struct part *p = part_named(x, t->name, "");
    if (!p || !p->own)
        safetensors_drop(x->s, t);
}

/* ---- matrices ---- */

/* What holds the weight of a module that is no tensor by itself; NULL: there is none. */
static const struct part *matrix_of(const struct stacked *x, const char *module)
{
    const struct part *p = part_named(x, module, ".weight_packed");
    p = p ? p : part_named(x, module, ".weight");
    return p && (p->rule->turned || p->tensor.dtype == DTYPE_U8) ? p : NULL;
}

bool stacked_is_packed(const struct stacked *x, const char *module, const char *suffix)
{
    bool known = !suffix || strcmp(suffix, ".weight") == 0 || strcmp(suffix, ".weight_packed") == 0 ||
                 strcmp(suffix, ".weight_scale") == 0;
    return known && matrix_of(x, module);
}

/* of, scales: both tensors as they are, or both with all of their expert. */
static bool open_fp4(const struct stacked *x, const struct part *p, const char *module, bool whole,
                     struct narrow_linear *out, struct err *e)
{
    const struct part *scales = part_named(x, module, ".weight_scale");
    uint64_t rows = p->tensor.shape[0], bytes = p->tensor.shape[1];
    if (!scales || scales->tensor.shape[0] != rows || scales->tensor.shape[1] * 16 != bytes) {
        err_set(e, ERR_USER, "%s in %s has no scales, one for every 32 columns of a row", p->name,
                safetensors_path(x->s, &p->tensor));
        return err_hint(e, "a shard is missing or the download is not complete: download the model again");
    }
    *out = narrow_fp4(module, whole ? &p->whole : &p->tensor, whole ? &scales->whole : &scales->tensor, (uint32_t)rows,
                      (uint32_t)bytes * 2);
    out->row_first = whole ? p->which : 0;
    out->row_step = whole ? parts_of(p->rule) : 1;
    return true;
}

bool stacked_weight(const struct stacked *x, const char *module, struct weight_info *out, struct err *e)
{
    const struct part *p = matrix_of(x, module);
    struct narrow_linear w;
    if (p->rule->turned) {
        bool ok = source_shape(&p->tensor, p->name, safetensors_path(x->s, &p->tensor), out, e);
        out->stored = dtype_name(p->tensor.dtype);
        out->dtype = DTYPE_OTHER; /* not to be taken as it is */
        return ok;
    }
    if (!open_fp4(x, p, module, true, &w, e))
        return false;
    *out = (struct weight_info){.rows = w.rows,
                                .cols = w.cols,
                                .dtype = DTYPE_OTHER,
                                .stored = narrow_type_name(&w),
                                .blocks = narrow_blocks_type(&w),
                                .bytes = p->tensor.bytes + p->tensor.bytes / 16};
    return true;
}

/* Rows that are columns: `step` numbers for each in every row of the tensor. */
static bool read_turned(const struct part *p, uint32_t row0, uint32_t rows, float *dst, struct err *e)
{
    uint32_t step = parts_of(p->rule), cols = (uint32_t)p->tensor.shape[1];
    uint64_t stride = p->tensor.shape[0] * step;
    float *line = malloc(((size_t)rows * step + 1) * sizeof *line);
    bool ok = line || err_nomem(e, p->name, (uint64_t)rows * step * 4);
    for (uint32_t c = 0; ok && c < cols; c++) {
        ok = tensor_read_f32(&p->whole, c * stride + (uint64_t)row0 * step, (uint64_t)rows * step, line, e);
        for (uint32_t r = 0; ok && r < rows; r++)
            dst[(size_t)r * cols + c] = line[(size_t)r * step + p->which];
    }
    free(line);
    return ok;
}

bool stacked_read(const struct stacked *x, const char *module, uint32_t row0, uint32_t rows, float *dst, struct err *e)
{
    const struct part *p = matrix_of(x, module);
    struct narrow_linear w;
    if (row0 > p->tensor.shape[0] || rows > p->tensor.shape[0] - row0)
        return err_set(e, ERR_BUG, "rows %u to %u of %s", (unsigned)row0, (unsigned)(row0 + rows), p->name);
    if (p->rule->turned)
        return read_turned(p, row0, rows, dst, e);
    return open_fp4(x, p, module, true, &w, e) && narrow_rows(&w, row0, rows, dst, e);
}

bool stacked_blocks(const struct stacked *x, const char *module, uint32_t row0, uint32_t rows, uint8_t *dst,
                    struct err *e)
{
    struct narrow_linear w;
    return open_fp4(x, matrix_of(x, module), module, true, &w, e) && narrow_blocks(&w, row0, rows, dst, e);
}

bool stacked_check_finite(const struct stacked *x, const char *module, struct err *e)
{
    const struct part *p = matrix_of(x, module);
    struct narrow_linear w;
    if (p->rule->turned)
        return tensor_check_finite(&p->tensor, safetensors_path(x->s, &p->tensor), e);
    return open_fp4(x, p, module, false, &w, e) && narrow_check_finite(&w, x->s, e);
}
