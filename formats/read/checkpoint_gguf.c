#include "formats/read/checkpoint_gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/family.h"
#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_names.h"
#include "formats/gguf/gguf_type.h"
#include "formats/hf/hf_config.h"
#include "formats/read/gguf_config.h"
#include "formats/read/tensor_values.h"
#include "host/base/num.h"
#include "host/base/str.h"

/* Names of unknown types are numbers: "type 99". */
#define NAME_MAX_BYTES 96
#define OTHER_SUFFIX   ".values"
#define SCALE_SUFFIX   ".scale"
#define INPUT_SUFFIX   ".input_scale"

struct entry {
    struct tensor tensor; /* first: what callers hold is a pointer to this */
    const struct gguf_tensor *stored;
    const struct gguf_type *type; /* NULL: unknown */
    bool part;                    /* one of several experts in the stored tensor */
    const struct entry
        *values;  /* of a matrix in two tensors, whose first this is: the second. v of latent attention's kv_b, z of
                                     Qwen3-Next's q, k, v and z, up of a shared expert's gate and up */
    float scale;  /* what all values are multiplied by: NAME.scale beside NAME.weight. 1 where there is none */
    uint32_t dim; /* rows are permuted within heads of so many; 0: they are not */
    uint8_t *own; /* the bytes in Hugging Face order: permuted biases */
    char name[NAME_MAX_BYTES];
};

struct gguf_model {
    char *path;
    const struct model_config *config;
    struct gguf *file;
    struct entry *entries;
    size_t n;
    struct strmap by_name;
};

static const struct entry *entry_of(const struct tensor *t)
{
    return (const struct entry *)(const void *)t;
}

static enum dtype dtype_of(uint32_t type)
{
    return type == GGML_F32 ? DTYPE_F32 : type == GGML_F16 ? DTYPE_F16 : type == GGML_BF16 ? DTYPE_BF16 : DTYPE_OTHER;
}

/* ---- opening ---- */

/* Biases are small: they are put in order at once. */
static bool order_bias(struct entry *x, struct err *e)
{
    size_t size = x->type->bytes, n = (size_t)x->tensor.shape[0];
    x->own = malloc(n * size);
    if (!x->own)
        return err_nomem(e, x->name, n * size);
    for (size_t r = 0; r < n; r++)
        memcpy(x->own + r * size, x->stored->data + gguf_row_of((uint32_t)r, x->dim) * size, size);
    x->tensor.data = x->own;
    x->dim = 0;
    return true;
}

/* How many experts a tensor holds; 0: it is not one of those. Each is a matrix of its own to who reads the model. */
static uint64_t experts_of(const struct gguf_tensor *t)
{
    uint32_t dims = str_ends(t->name, ".bias") ? 2 : 3;
    uint64_t n = t->ne[dims - 1];
    bool split = t->n_dims == dims && n <= CONFIG_EXPERTS_MAX && gguf_type_of(t->type) && gguf_name_of_experts(t->name);
    return split && t->bytes % n == 0 ? n : 0;
}

static void fill_expert(struct entry *x, const struct gguf_tensor *t, uint32_t expert, const struct model_config *c)
{
    bool bias = t->n_dims == 2;
    uint64_t bytes = t->bytes / t->ne[t->n_dims - 1];
    x->stored = t;
    x->type = gguf_type_of(t->type);
    x->part = true;
    if (!gguf_name_to_hf(c, t->name, expert, x->name, sizeof x->name))
        snprintf(x->name, sizeof x->name, "%.80s.%u", t->name, (unsigned)expert);
    x->tensor = (struct tensor){.name = x->name,
                                .dtype = dtype_of(t->type),
                                .n_dims = bias ? 1 : 2,
                                .shape = {bias ? t->ne[0] : t->ne[1], bias ? 0 : t->ne[0]},
                                .data = t->data + expert * bytes,
                                .bytes = bytes,
                                .file = t->file};
    snprintf(x->tensor.stored_dtype, sizeof x->tensor.stored_dtype, "%.15s", x->type->name);
}

/* Norms of a family that multiplies by 1 + w: a GGUF holds the sum, a folder w. */
static bool take_one_off(struct entry *x, const struct gguf_tensor *t, const struct model_config *c, struct err *e)
{
    const struct family *f = family_of(c);
    uint64_t n = x->tensor.n_dims == 1 ? x->tensor.shape[0] : 0;
    if (!family_adds_one(f, x->name) || !n || !x->type || x->type->block > 1 || !str_ends(x->name, "norm.weight"))
        return true;
    float *w = malloc((size_t)n * sizeof *w);
    if (!w)
        return err_nomem(e, x->name, n * sizeof *w);
    gguf_dequant(x->type, t->data, (uint32_t)n, w);
    for (uint64_t i = 0; i < n; i++)
        w[i] -= 1;
    x->own = (uint8_t *)w;
    x->tensor.data = x->own;
    x->tensor.bytes = n * sizeof *w;
    x->tensor.dtype = DTYPE_F32;
    return true;
}

/* -exp(A_log), of which a folder holds A_log. */
static bool take_logarithm(struct entry *x, const struct gguf_tensor *t, struct err *e)
{
    uint64_t n = x->tensor.n_dims == 1 ? x->tensor.shape[0] : 0;
    if (!n || !x->type || x->type->block > 1 || !str_ends(x->name, ".A_log"))
        return true;
    float *v = malloc((size_t)n * sizeof *v);
    if (!v)
        return err_nomem(e, x->name, n * sizeof *v);
    gguf_dequant(x->type, t->data, (uint32_t)n, v);
    for (uint64_t i = 0; i < n; i++)
        v[i] = (float)log(-(double)v[i]); /* NaN where it is not negative, which whoever computes refuses */
    x->own = (uint8_t *)v;
    x->tensor.data = x->own;
    x->tensor.bytes = n * sizeof *v;
    x->tensor.dtype = DTYPE_F32;
    return true;
}

/* Of a matrix in two tensors: its module (80 bytes), and whether the tensor is its first. */
static bool is_of_two(const struct model_config *c, const char *name, char module[80], bool *first)
{
    enum gguf_latent part = gguf_name_to_latent(c, name, module, 80);
    enum gguf_mixed mixed = part ? MIXED_NONE : gguf_name_to_mixed(c, name, module, 80);
    enum gguf_shared shared = part || mixed ? SHARED_NONE : gguf_name_to_shared(c, name, module, 80);
    *first = part == LATENT_KEYS || mixed == MIXED_QKV || shared == SHARED_GATE;
    return part || mixed || shared;
}

/* The second is no weight of its own: MODULE.values beside MODULE.weight. */
static bool name_of_two(struct entry *x, const struct gguf_tensor *t, const struct model_config *c)
{
    char module[80];
    bool first;
    if (!is_of_two(c, t->name, module, &first))
        return false;
    snprintf(x->name, sizeof x->name, "%s%s", module, first ? ".weight" : OTHER_SUFFIX);
    return true;
}

/* Factors of a weight's values, and of what goes into the product, which says how those are rounded to 4 bits: MODULE.scale. */
static bool name_scale(struct entry *x, const struct gguf_tensor *t, const struct model_config *c)
{
    const char *suffix = str_ends(t->name, SCALE_SUFFIX)   ? SCALE_SUFFIX
                         : str_ends(t->name, INPUT_SUFFIX) ? INPUT_SUFFIX
                                                           : NULL;
    char weight[128], hf[96];
    size_t n = suffix ? strlen(t->name) - strlen(suffix) : 0, weight_n = strlen(".weight");
    if (!suffix || n + weight_n >= sizeof weight)
        return false;
    snprintf(weight, sizeof weight, "%.*s.weight", (int)n, t->name);
    if (!gguf_name_to_hf(c, weight, 0, hf, sizeof hf) || !str_ends(hf, ".weight"))
        return false;
    snprintf(x->name, sizeof x->name, "%.*s%s", (int)(strlen(hf) - weight_n), hf, suffix);
    return true;
}

/* The number that a tensor's values are multiplied by beside their own scales; of n experts each has one. */
static bool find_scale(struct gguf_model *m, struct entry *x, uint32_t expert, uint64_t n, struct err *e)
{
    char name[128];
    size_t stem = strlen(x->stored->name) - strlen(".weight");
    x->scale = 1;
    if (!str_ends(x->stored->name, ".weight") || stem + strlen(SCALE_SUFFIX) >= sizeof name)
        return true;
    snprintf(name, sizeof name, "%.*s" SCALE_SUFFIX, (int)stem, x->stored->name);
    const struct gguf_tensor *t = gguf_tensor_find(m->file, name);
    if (!t)
        return true;
    if (t->type == GGML_F32 && t->bytes == n * sizeof x->scale) {
        memcpy(&x->scale, t->data + expert * sizeof x->scale, sizeof x->scale);
        if (isfinite(x->scale))
            return true;
    }
    err_set(e, ERR_USER, "%s in %s is not one finite F32 for each matrix of %s", name, gguf_path(m->file, t),
            x->stored->name);
    return err_hint(e, "the file is damaged: download or make it again");
}

static bool fill(struct entry *x, const struct gguf_tensor *t, const struct model_config *c, struct err *e)
{
    struct tensor *out = &x->tensor;
    x->stored = t;
    x->type = gguf_type_of(t->type);
    if (!name_of_two(x, t, c) && !name_scale(x, t, c) && !gguf_name_to_hf(c, t->name, 0, x->name, sizeof x->name))
        snprintf(x->name, sizeof x->name, "%s", t->name);
    *out = (struct tensor){.name = x->name,
                           .dtype = dtype_of(t->type),
                           .n_dims = t->n_dims,
                           .data = t->data,
                           .bytes = t->bytes,
                           .file = t->file};
    for (uint32_t i = 0; i < t->n_dims; i++)
        out->shape[i] = t->ne[t->n_dims - 1 - i];
    if (out->n_dims == 2 && str_ends(x->name, ".linear_attn.conv1d.weight")) { /* [channels, 1, taps] in a folder */
        out->n_dims = 3;
        out->shape[2] = out->shape[1];
        out->shape[1] = 1;
    }
    if (out->n_dims == 1 && str_ends(x->name, ".shared_expert_gate.weight")) { /* a matrix of one row in a folder */
        out->n_dims = 2;
        out->shape[1] = out->shape[0];
        out->shape[0] = 1;
    }
    char name[24];
    snprintf(out->stored_dtype, sizeof out->stored_dtype, "%.15s", gguf_type_name(t->type, name));
    /* A shape that does not fit the heads is refused by whoever opens the model, with a better sentence. */
    bool fits = c->head_dim && x->type && out->n_dims >= 1 && out->n_dims <= 2 && out->shape[0] <= INT32_MAX &&
                out->shape[0] % c->head_dim == 0;
    if (!fits || !gguf_permuted_heads(c, x->name))
        return take_one_off(x, t, c, e) && take_logarithm(x, t, e);
    x->dim = c->head_dim;
    return out->n_dims > 1 || x->type->block > 1 || order_bias(x, e);
}

static bool has_shape(const struct gguf_tensor *t, uint64_t cols, uint64_t rows, uint64_t heads)
{
    return t->ne[0] == cols && t->ne[1] == rows && t->ne[2] == heads && t->ne[3] == 1;
}

/* Whether the matrix in two tensors is a shared expert's gate and up. */
static bool shares_fused(const struct model_config *c)
{
    const struct family *f = family_of(c);
    return f && f->parts & PARTS_SHARED_FUSED;
}

/* Whether both have the shapes that the metadata say. */
static bool two_fit(const struct model_config *c, const struct gguf_tensor *a, const struct gguf_tensor *b)
{
    const struct mla_config *x = &c->mla;
    if (shares_fused(c))
        return has_shape(a, c->hidden_size, c->experts.shared_width, 1) &&
               has_shape(b, c->hidden_size, c->experts.shared_width, 1);
    if (!x->kv_rank)
        return has_shape(a, c->hidden_size, config_delta_mixed(c), 1) &&
               has_shape(b, c->hidden_size, config_delta_values(c), 1);
    return has_shape(a, x->nope, x->kv_rank, c->num_heads) && has_shape(b, x->kv_rank, x->values, c->num_heads);
}

/* Joins the two tensors of a matrix. */
static bool join_two(struct gguf_model *m, struct err *e)
{
    char module[80], name[96];
    uint32_t i;
    bool first;
    for (struct entry *k = m->entries; k < m->entries + m->n; k++) {
        if (!is_of_two(m->config, k->stored->name, module, &first) || !first)
            continue;
        snprintf(name, sizeof name, "%s" OTHER_SUFFIX, module);
        if (strmap_find(&m->by_name, name, strlen(name), &i) && two_fit(m->config, k->stored, m->entries[i].stored)) {
            k->values = &m->entries[i];
            continue;
        }
        err_set(e, ERR_USER, "%s in %s does not go with %s and the shapes of its metadata", k->stored->name,
                gguf_path(m->file, k->stored),
                shares_fused(m->config)  ? "ffn_up_shexp"
                : m->config->mla.kv_rank ? "attn_v_b"
                                         : "attn_gate");
        return err_hint(e, "the file is damaged: convert the model again");
    }
    return true;
}

static void model_close(void *self)
{
    struct gguf_model *m = self;
    for (size_t i = 0; m->entries && i < m->n; i++)
        free(m->entries[i].own);
    free(m->entries);
    strmap_free(&m->by_name);
    if (m->file)
        gguf_close(&m->file);
    free(m->path);
    free(m);
}

void *gguf_source_open(const char *path, struct model_config *config, struct err *e)
{
    *config = (struct model_config){0};
    struct gguf_model *m = calloc(1, sizeof *m);
    if (!m || !(m->path = str_dup(path))) {
        free(m);
        err_nomem(e, "a model", sizeof *m);
        return NULL;
    }
    m->config = config;
    bool ok = gguf_open(&m->file, path, e) && gguf_config_read(config, m->file, path, e);
    if (ok) {
        for (size_t i = 0; i < gguf_tensor_count(m->file); i++)
            m->n += (size_t)max_u64(1, experts_of(gguf_tensor_at(m->file, i)));
        m->entries = calloc(m->n + 1, sizeof *m->entries);
        if (!m->entries || !strmap_reserve(&m->by_name, m->n))
            ok = err_nomem(e, "the list of tensors", m->n * sizeof *m->entries);
    }
    for (size_t i = 0, of = 0, expert = 0; ok && i < m->n; i++) {
        struct entry *x = &m->entries[i];
        const struct gguf_tensor *t = gguf_tensor_at(m->file, of);
        uint64_t experts = experts_of(t);
        bool added = true;
        if (experts)
            fill_expert(x, t, (uint32_t)expert, config);
        else
            ok = fill(x, t, config, e);
        ok = ok && find_scale(m, x, experts ? (uint32_t)expert : 0, max_u64(1, experts), e);
        if (++expert >= experts) {
            expert = 0;
            of++;
        }
        if (ok && !strmap_add(&m->by_name, x->name, strlen(x->name), (uint32_t)i, &added))
            ok = err_nomem(e, "the list of tensors", m->n * sizeof *m->entries);
        if (ok && !added) {
            ok = err_set(e, ERR_USER, "%s holds %s twice, under the names of GGUF and of Hugging Face", path, x->name);
            err_hint(e, "convert the model again");
        }
    }
    if (ok && join_two(m, e))
        return m;
    model_close(m);
    return NULL;
}

/* ---- tensors ---- */

static const struct gguf *model_file(const void *self)
{
    return ((const struct gguf_model *)self)->file;
}

static size_t model_count(const void *self)
{
    return ((const struct gguf_model *)self)->n;
}

static const struct tensor *model_at(const void *self, size_t i)
{
    return &((const struct gguf_model *)self)->entries[i].tensor;
}

static const struct tensor *model_find(const void *self, const char *name)
{
    const struct gguf_model *m = self;
    uint32_t i;
    return strmap_find(&m->by_name, name, strlen(name), &i) ? &m->entries[i].tensor : NULL;
}

static const char *model_path(const void *self, const struct tensor *t)
{
    return gguf_path(model_file(self), entry_of(t)->stored);
}

static void model_drop(const void *self, const struct tensor *t)
{
    const struct entry *x = entry_of(t);
    if (x->part)
        gguf_drop_part(model_file(self), x->stored, (uint64_t)(t->data - x->stored->data), t->bytes);
    else
        gguf_drop(model_file(self), x->stored);
}

static bool is_scaled(const struct entry *x)
{
    return x->scale != 1 || (x->values && x->values->scale != 1);
}

/* Whether the bytes are floats in Hugging Face order. */
static bool floats_in_order(const struct tensor *t)
{
    return t->dtype != DTYPE_OTHER && entry_of(t)->dim == 0 && !entry_of(t)->values && !is_scaled(entry_of(t));
}

static bool model_is_packed(const void *self, const char *module, const char *suffix)
{
    const struct tensor *t = source_tensor(&gguf_source, self, module, ".weight");
    bool own =
        !suffix || strcmp(suffix, ".weight") == 0 || (t && entry_of(t)->values && strcmp(suffix, OTHER_SUFFIX) == 0);
    bool scale = suffix && (strcmp(suffix, SCALE_SUFFIX) == 0 || strcmp(suffix, INPUT_SUFFIX) == 0);
    return t && (scale || (own && !floats_in_order(t)));
}

static bool model_config_text(const void *self, char **text, size_t *size, struct err *e)
{
    return hf_config_text(((const struct gguf_model *)self)->config, text, size, e);
}

static bool is_latent(const struct gguf_model *m)
{
    return m->config->mla.kv_rank != 0;
}

static bool model_weight(const void *self, const char *module, struct weight_info *out, struct err *e)
{
    const struct gguf_model *m = self;
    const struct tensor *t = source_weight(&gguf_source, m, module, m->path, e);
    if (!t)
        return false;
    const struct entry *x = entry_of(t), *unread = !x->type ? x : x->values && !x->values->type ? x->values : NULL;
    const char *path = model_path(m, t);
    if (unread) {
        char name[24];
        err_set(e, ERR_USER, "%s in %s is stored as %s, which gsq does not read", unread->stored->name, path,
                gguf_type_name(unread->stored->type, name));
        return err_hint(e, "use another quantization of the model, or its 16-bit GGUF");
    }
    const struct entry *v = x->values;
    if (v && is_latent(m)) {
        const struct mla_config *l = &m->config->mla;
        *out = (struct weight_info){.rows = m->config->num_heads * (l->nope + l->values),
                                    .cols = l->kv_rank,
                                    .dtype = x->type == v->type ? t->dtype : DTYPE_OTHER,
                                    .stored = v->type->name,
                                    .bytes = t->bytes + v->tensor.bytes};
        return true;
    }
    if (!source_shape(t, x->stored->name, path, out, e))
        return false;
    out->stored = x->type->name;
    const bool one = (!v || x->type == v->type) && !is_scaled(x); /* else its values alone */
    /* MXFP4 and NVFP4 have two zeros, of which codes are one. */
    out->blocks = one && (!x->type->codes || x->type->codes->scale) && x->type->block > 1 ? x->type : NULL;
    if (!one)
        out->dtype = DTYPE_OTHER;
    if (v) {
        out->rows += (uint32_t)v->tensor.shape[0];
        out->bytes += v->tensor.bytes;
    }
    if (x->type->codes && one) {
        const struct quant_type *type = x->type->codes;
        out->quantized = true;
        out->dtype = DTYPE_F16;
        out->spec = (struct quant_spec){type, type->group, quant_type_scale(type)};
    }
    return true;
}

/* Where row r of the Hugging Face matrix lies, and whose it is. */
static const uint8_t *row_at(const struct gguf_model *m, const struct entry *x, uint32_t r, uint64_t cols,
                             const struct entry **of)
{
    if (x->values && shares_fused(m->config)) {
        const uint32_t rows = (uint32_t)x->stored->ne[1];
        x = r < rows ? x : x->values;
        r %= rows;
    } else if (x->values) {
        enum gguf_mixed part;
        r = gguf_mixed_row(m->config, r, &part);
        x = part == MIXED_GATE ? x->values : x;
    }
    *of = x;
    return x->tensor.data + (x->dim ? gguf_row_of(r, x->dim) : r) * gguf_row_bytes(x->type, cols);
}

static void dequant(const struct entry *x, const uint8_t *src, uint64_t n, float *dst)
{
    gguf_dequant(x->type, src, n, dst);
    for (uint64_t i = 0; x->scale != 1 && i < n; i++)
        dst[i] *= x->scale;
}

/* Rows of kv_b: within each head `nope` of k, which lie in columns, then those of v. */
static void read_latent(const struct entry *x, const struct mla_config *l, uint32_t row0, uint32_t rows, float *dst)
{
    const struct entry *v = x->values;
    uint64_t k_bytes = gguf_row_bytes(x->type, l->nope), v_bytes = gguf_row_bytes(v->type, l->kv_rank);
    float row[LATENT_NOPE_MAX];
    for (uint32_t r = row0; r < row0 + rows;) {
        uint32_t head = r / (l->nope + l->values), in = r % (l->nope + l->values);
        float *to = dst + (uint64_t)(r - row0) * l->kv_rank;
        if (in >= l->nope) {
            dequant(v, v->tensor.data + ((uint64_t)head * l->values + in - l->nope) * v_bytes, l->kv_rank, to);
            r++;
            continue;
        }
        uint32_t n = (uint32_t)min_u64(l->nope - in, row0 + rows - r);
        for (uint32_t j = 0; j < l->kv_rank; j++) {
            dequant(x, x->tensor.data + ((uint64_t)head * l->kv_rank + j) * k_bytes, l->nope, row);
            for (uint32_t i = 0; i < n; i++)
                to[(uint64_t)i * l->kv_rank + j] = row[in + i];
        }
        r += n;
    }
}

static bool model_read(const void *self, const char *module, uint32_t row0, uint32_t rows, float *dst, struct err *e)
{
    struct weight_info w;
    if (!model_weight(self, module, &w, e))
        return false;
    const struct tensor *t = source_tensor(&gguf_source, self, module, ".weight");
    const struct entry *x = entry_of(t);
    if (row0 > w.rows || rows > w.rows - row0)
        return err_set(e, ERR_BUG, "rows %u to %u of %s, which has %u", (unsigned)row0, (unsigned)(row0 + rows),
                       t->name, (unsigned)w.rows);
    if (x->values && is_latent(self)) {
        read_latent(x, &((const struct gguf_model *)self)->config->mla, row0, rows, dst);
        return true;
    }
    if (floats_in_order(t))
        return tensor_read_f32(t, (uint64_t)row0 * w.cols, (uint64_t)rows * w.cols, dst, e);
    for (uint32_t r = 0; r < rows; r++) {
        const struct entry *of;
        const uint8_t *row = row_at(self, x, row0 + r, w.cols, &of);
        dequant(of, row, w.cols, dst + (uint64_t)r * w.cols);
    }
    return true;
}

static bool model_codes(const void *self, const char *module, struct qlinear *q, struct err *e)
{
    const struct entry *x = entry_of(source_tensor(&gguf_source, self, module, ".weight"));
    (void)e;
    for (uint32_t r = 0; r < q->rows; r++) {
        const struct entry *of;
        const uint8_t *row = row_at(self, x, r, q->cols, &of);
        gguf_unpack_row(x->type, row, q, r);
    }
    return true;
}

static bool model_blocks(const void *self, const char *module, uint32_t row0, uint32_t rows, uint8_t *dst,
                         struct err *e)
{
    const struct tensor *t = source_tensor(&gguf_source, self, module, ".weight");
    const struct entry *x = entry_of(t);
    const uint64_t cols = x->stored->ne[0], bytes = gguf_row_bytes(x->type, cols);
    (void)e;
    for (uint32_t r = 0; r < rows; r++) {
        const struct entry *of;
        memcpy(dst + r * bytes, row_at(self, x, row0 + r, cols, &of), (size_t)bytes);
    }
    return true;
}

/* Also the scales of blocks. */
static bool check_finite(const void *self, const struct tensor *t, struct err *e)
{
    const struct entry *x = entry_of(t);
    const char *path = model_path(self, t);
    uint64_t cols = t->n_dims ? t->shape[t->n_dims - 1] : 0;
    if (t->dtype != DTYPE_OTHER || !x->type || cols == 0)
        return tensor_check_finite(t, path, e);
    uint64_t bytes = gguf_row_bytes(x->type, cols), rows = t->bytes / bytes;
    for (uint64_t r = 0; r < rows; r++) {
        if (gguf_row_valid(x->type, t->data + r * bytes, cols))
            continue;
        err_set(e, ERR_USER, "%s in %s has a scale in row %llu that is NaN or infinite", x->stored->name, path,
                (unsigned long long)r);
        return err_hint(e, "the file is damaged: download or make it again");
    }
    return true;
}

static bool model_check_finite(const void *self, const char *module, struct err *e)
{
    const struct tensor *t = source_tensor(&gguf_source, self, module, ".weight");
    const struct entry *v = t ? entry_of(t)->values : NULL;
    return !t || (check_finite(self, t, e) && (!v || check_finite(self, &v->tensor, e)));
}

const struct model_source gguf_source = {
    .close = model_close,
    .file = model_file,
    .count = model_count,
    .at = model_at,
    .find = model_find,
    .path = model_path,
    .drop = model_drop,
    .is_packed = model_is_packed,
    .config_text = model_config_text,
    .weight = model_weight,
    .read = model_read,
    .codes = model_codes,
    .blocks = model_blocks,
    .check_finite = model_check_finite,
};
