#include "formats/read/stacked.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hf/expert_stack.h"
#include "formats/read/checkpoint_narrow.h"
#include "formats/read/checkpoint_quant.h"
#include "formats/read/tensor_values.h"

struct part {
    struct tensor
        tensor; /* first: what callers hold is a pointer to this. Its bytes are this part's share of the expert's */
    struct tensor whole; /* the expert's */
    const struct expert_stack *rule;
    uint32_t layer, which; /* part */
    uint8_t *own;          /* a bias put together */
    char name[120];
};
#define SUFFIX 16 /* bytes that hold any suffix */

struct stacked {
    struct safetensors *s;
    const struct model_config *config;
    struct part *parts;
    size_t n_parts;
    const struct tensor **list;
    size_t n;
};

/* ---- opening ---- */

/* Rows of all parts of an expert, and numbers of one. */
static void shape_of(const struct expert_stack *r, const struct tensor *t, uint64_t *rows, uint64_t *cols)
{
    *cols = 1;
    for (uint32_t i = 2; i < t->n_dims; i++)
        *cols *= t->shape[i];
    *rows = r->turned ? *cols : t->shape[1];
    *cols = r->turned ? t->shape[1] : *cols;
}

static bool check_shape(const struct stacked *x, const struct tensor *t, const struct expert_stack *r,
                        const char *suffix, struct err *e)
{
    uint32_t dims = strcmp(suffix, ".bias") == 0 ? 2 : strcmp(suffix, ".weight_packed") == 0 ? 4 : 3;
    bool bytes = strncmp(suffix, ".weight_", 8) == 0, words = r->way == STACK_MLX && t->dtype == DTYPE_U32,
         right = bytes ? t->dtype == DTYPE_U8 : words || dtype_is_float(t->dtype);
    uint64_t rows, cols;
    if (t->n_dims == dims && t->shape[0] == x->config->experts.n && right) {
        shape_of(r, t, &rows, &cols);
        if (rows && cols && rows <= INT32_MAX && cols <= INT32_MAX && rows % expert_stack_parts(r) == 0)
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

static bool fill(struct stacked *x, struct part *p, const struct tensor *t, const struct expert_stack *r,
                 const char *suffix, uint32_t i, struct err *e)
{
    uint32_t of = expert_stack_parts(r), expert = i / of;
    uint64_t bytes = t->bytes / x->config->experts.n, rows, cols;
    shape_of(r, t, &rows, &cols);
    p->rule = r;
    p->which = i % of;
    expert_stack_part(r, x->config, p->layer, expert, p->which, p->name, sizeof p->name - SUFFIX);
    strcat(p->name, suffix);
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
    if (!safetensors_find(x->s, p->name))
        return safetensors_add_view(x->s, &p->tensor, e);
    err_set(e, ERR_USER, "%s holds %s twice, in %s too", safetensors_path(x->s, t), p->name, t->name);
    return err_hint(e, "remove one of them from the folder");
}

/* Counts what a tensor becomes, and lists it where there is room. */
static bool add(struct stacked *x, const struct tensor *t, bool make, struct err *e)
{
    uint32_t layer = 0;
    const char *suffix;
    const struct expert_stack *r = expert_stack_read(x->config, t->name, &layer, &suffix);
    if (!r) {
        if (make)
            x->list[x->n] = t;
        x->n++;
        return true;
    }
    if (!check_shape(x, t, r, suffix, e))
        return false;
    for (uint32_t i = 0; i < x->config->experts.n * expert_stack_parts(r); i++, x->n_parts++, x->n++) {
        if (!make)
            continue;
        struct part *p = &x->parts[x->n_parts];
        p->layer = layer;
        if (!fill(x, p, t, r, suffix, i, e))
            return false;
        x->list[x->n] = &p->tensor;
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

bool stacked_make(struct stacked **out, struct safetensors *s, const struct model_config *c, struct err *e)
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

/* The part whose tensor it is; NULL: it is none of ours. */
static const struct part *part_of(const struct stacked *x, const struct tensor *t)
{
    uintptr_t at = (uintptr_t)t, first = (uintptr_t)x->parts;
    bool ours = t && at >= first && at < first + x->n_parts * sizeof *x->parts;
    return ours ? (const struct part *)(const void *)t : NULL;
}

static const struct part *part_named(const struct stacked *x, const char *module, const char *suffix)
{
    return part_of(x, module_tensor(x->s, module, suffix));
}

void stacked_drop(const struct stacked *x, const struct tensor *t)
{
    const struct part *p = part_of(x, t);
    if (!p || !p->own)
        safetensors_drop(x->s, t);
}

const char *stacked_module(const struct stacked *x, const char *module, char *out, size_t cap)
{
    const struct part *p = part_named(x, module, ".weight");
    return p && !p->rule->suffix ? expert_stack_name(p->rule, x->config, p->layer, out, cap) : module;
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
    out->row_step = whole ? expert_stack_parts(p->rule) : 1;
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
    uint32_t step = expert_stack_parts(p->rule), cols = (uint32_t)p->tensor.shape[1];
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
