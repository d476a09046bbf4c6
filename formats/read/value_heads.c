#include "formats/read/value_heads.h"

#include <stdlib.h>
#include <string.h>

#include "arch/block.h"
#include "host/base/num.h"
#include "host/base/str.h"

/* What is small lies here in its new order: vectors, and the convolution, whose shape is not a matrix's. */
struct own {
    struct tensor tensor; /* first: what callers hold is a pointer to this */
    const struct tensor *of;
    uint8_t *bytes;
};

struct turned {
    const struct model_source *of;
    void *self;
    const struct model_config *config;
    struct own *own;
    size_t n;
    struct strmap by_name;
};

/* ---- the order ---- */

bool value_heads_differ(const struct model_config *c)
{
    const struct family *f = family_of(c);
    return f && f->parts & PARTS_DELTA && c->delta.value_heads > c->delta.key_heads;
}

/* Which head of the other order stands at place h of this one. */
static uint32_t head_from(const struct delta_config *x, bool to_tiled, uint32_t h)
{
    const uint32_t keys = x->key_heads, each = x->value_heads / keys;
    return to_tiled ? h % keys * each + h / keys : h % each * keys + h / each;
}

/* Where the heads lie in a part: `width` rows each from row `first` on, or columns; width 0: it has none of them. */
struct span {
    uint32_t first, width;
    bool columns;
};

static struct span span_of(const struct model_config *c, const char *module)
{
    const struct delta_config *x = &c->delta;
    const struct span none = {0};
    const char *prefix = config_prefix(c), *name = module + strlen(prefix);
    static const char layers[] = "layers.";
    if (strncmp(module, prefix, strlen(prefix)) != 0 || strncmp(name, layers, sizeof layers - 1) != 0 ||
        !(name = strchr(name + sizeof layers - 1, '.')))
        return none;
    const struct block_part *p = block_part_named(family_of(c), name + 1, strlen(name + 1), NULL);
    switch (p ? p->role : ROLE_COUNT) {
    case ROLE_DELTA_MIXED:
    case ROLE_DELTA_CONV:
        return (struct span){2 * x->key_heads * x->key_dim, x->value_dim, false};
    case ROLE_DELTA_Z:
        return (struct span){0, x->value_dim, false};
    case ROLE_DELTA_BETA:
    case ROLE_DELTA_ALPHA:
    case ROLE_DELTA_RATE:
    case ROLE_DELTA_BIAS:
        return (struct span){0, 1, false};
    case ROLE_DELTA_O:
        return (struct span){0, x->value_dim, true};
    default:
        return none;
    }
}

/* The place in the other order of row (or column) r, and how many follow it there as they do here. */
static uint32_t from_of(const struct model_config *c, const struct span *s, bool to_tiled, uint32_t r, uint32_t *run)
{
    if (r < s->first) {
        *run = s->first - r;
        return r;
    }
    uint32_t in = (r - s->first) % s->width;
    *run = s->width - in;
    return s->first + head_from(&c->delta, to_tiled, (r - s->first) / s->width) * s->width + in;
}

static void turn_columns(const struct model_config *c, const struct span *s, bool to_tiled, const float *src,
                         uint32_t cols, float *dst)
{
    for (uint32_t at = 0, run; at < cols; at += run) {
        uint32_t from = from_of(c, s, to_tiled, at, &run);
        memcpy(dst + at, src + from, run * sizeof *dst);
    }
}

bool value_heads_turn_columns(const struct model_config *c, const char *module, bool to_tiled, float *v, uint32_t cols,
                              struct err *e)
{
    const struct span s = span_of(c, module);
    if (!value_heads_differ(c) || !s.columns || cols != config_delta_values(c))
        return true;
    float *copy = malloc(cols * sizeof *copy);
    if (!copy)
        return err_nomem(e, module, cols * sizeof *copy);
    memcpy(copy, v, cols * sizeof *copy);
    turn_columns(c, &s, to_tiled, copy, cols, v);
    free(copy);
    return true;
}

/* ---- opening ---- */

static bool is_small(const struct span *s, const struct tensor *t)
{
    return s->width && !s->columns && (t->n_dims == 1 || t->n_dims == 3);
}

/* The module of a tensor: its name, without ".weight" behind it. */
static const char *module_of(const struct tensor *t, char out[128])
{
    size_t n = strlen(t->name), suffix = str_ends(t->name, ".weight") ? strlen(".weight") : 0;
    n = min_u64(n - suffix, 127);
    memcpy(out, t->name, n);
    out[n] = 0;
    return out;
}

/* Rows that do not go with config.json are left alone: whoever loads them says so. */
static bool put_in_order(struct turned *m, struct own *x, const struct tensor *t, const struct span *s, struct err *e)
{
    const uint32_t rows = s->first + m->config->delta.value_heads * s->width;
    const uint64_t row = t->shape[0] ? t->bytes / t->shape[0] : 0;
    x->tensor = *t;
    x->of = t;
    if (t->shape[0] != rows || row * rows != t->bytes)
        return true;
    if (!(x->bytes = malloc((size_t)t->bytes + 1)))
        return err_nomem(e, t->name, t->bytes);
    for (uint32_t at = 0, run; at < rows; at += run) {
        uint32_t from = from_of(m->config, s, m->config->delta.tiled, at, &run);
        memcpy(x->bytes + at * row, t->data + from * row, (size_t)(run * row));
    }
    x->tensor.data = x->bytes;
    return true;
}

static bool list_small(struct turned *m, bool make, struct err *e)
{
    m->n = 0;
    for (size_t i = 0; i < m->of->count(m->self); i++) {
        const struct tensor *t = m->of->at(m->self, i);
        char module[128];
        bool added;
        const struct span s = span_of(m->config, module_of(t, module));
        if (!is_small(&s, t))
            continue;
        if (make && !put_in_order(m, &m->own[m->n], t, &s, e))
            return false;
        if (make && !strmap_add(&m->by_name, t->name, strlen(t->name), (uint32_t)m->n, &added))
            return err_nomem(e, "the list of tensors", strlen(t->name));
        m->n++;
    }
    return true;
}

static void turned_close(void *self)
{
    struct turned *m = self;
    for (size_t i = 0; m->own && i < m->n; i++)
        free(m->own[i].bytes);
    free(m->own);
    strmap_free(&m->by_name);
    m->of->close(m->self);
    free(m);
}

void *value_heads_open(const struct model_source *of, void *self, const struct model_config *c, struct err *e)
{
    struct turned *m = calloc(1, sizeof *m);
    if (!m) {
        err_nomem(e, "a model", sizeof *m);
        of->close(self);
        return NULL;
    }
    m->of = of;
    m->self = self;
    m->config = c;
    bool ok = list_small(m, false, e);
    size_t n = m->n;
    ok = ok && ((m->own = calloc(n + 1, sizeof *m->own)) || err_nomem(e, "the list of tensors", n * sizeof *m->own)) &&
         list_small(m, true, e);
    m->n = n;
    if (ok)
        return m;
    turned_close(m);
    return NULL;
}

/* ---- tensors ---- */

static const struct own *own_of(const struct turned *m, const char *name)
{
    uint32_t i;
    return strmap_find(&m->by_name, name, strlen(name), &i) ? &m->own[i] : NULL;
}

/* The source's own. */
static const struct tensor *inner(const struct turned *m, const struct tensor *t)
{
    const struct own *x = own_of(m, t->name);
    return x && t == &x->tensor ? x->of : t;
}

static const struct gguf *turned_file(const void *self)
{
    const struct turned *m = self;
    return m->of->file ? m->of->file(m->self) : NULL;
}

static size_t turned_count(const void *self)
{
    const struct turned *m = self;
    return m->of->count(m->self);
}

static const struct tensor *turned_at(const void *self, size_t i)
{
    const struct turned *m = self;
    const struct tensor *t = m->of->at(m->self, i);
    const struct own *x = own_of(m, t->name);
    return x ? &x->tensor : t;
}

static const struct tensor *turned_find(const void *self, const char *name)
{
    const struct turned *m = self;
    const struct own *x = own_of(m, name);
    return x ? &x->tensor : m->of->find(m->self, name);
}

static const char *turned_path(const void *self, const struct tensor *t)
{
    const struct turned *m = self;
    return m->of->path(m->self, inner(m, t));
}

static void turned_drop(const void *self, const struct tensor *t)
{
    const struct turned *m = self;
    m->of->drop(m->self, inner(m, t));
}

static bool turned_is_packed(const void *self, const char *module, const char *suffix)
{
    const struct turned *m = self;
    if (m->of->is_packed(m->self, module, suffix))
        return true;
    const bool weight = !suffix || strcmp(suffix, ".weight") == 0;
    const struct tensor *t =
        weight && span_of(m->config, module).width ? source_tensor(m->of, m->self, module, ".weight") : NULL;
    return t && !own_of(m, t->name);
}

static bool turned_config_text(const void *self, char **text, size_t *size, struct err *e)
{
    const struct turned *m = self;
    return m->of->config_text(m->self, text, size, e);
}

/* Whether groups of columns stay whole. */
static bool groups_move(const struct model_config *c, const struct quant_spec *spec)
{
    return !spec->type->super && spec->group && c->delta.value_dim % spec->group == 0;
}

static bool turned_weight(const void *self, const char *module, struct weight_info *out, struct err *e)
{
    const struct turned *m = self;
    if (!m->of->weight(m->self, module, out, e))
        return false;
    if (out->quantized && span_of(m->config, module).columns && !groups_move(m->config, &out->spec)) {
        out->quantized = false; /* its values alone */
        out->dtype = DTYPE_OTHER;
    }
    if (out->blocks && span_of(m->config, module).columns && m->config->delta.value_dim % out->blocks->block)
        out->blocks = NULL;
    return true;
}

static bool turned_read(const void *self, const char *module, uint32_t row0, uint32_t rows, float *dst, struct err *e)
{
    const struct turned *m = self;
    const struct model_config *c = m->config;
    const struct span s = span_of(c, module);
    const bool tiled = c->delta.tiled;
    struct weight_info w;
    if (!s.width)
        return m->of->read(m->self, module, row0, rows, dst, e);
    if (!m->of->weight(m->self, module, &w, e))
        return false;
    if (row0 > w.rows || rows > w.rows - row0)
        return err_set(e, ERR_BUG, "rows %u to %u of %s, which has %u", (unsigned)row0, (unsigned)(row0 + rows), module,
                       (unsigned)w.rows);
    if (!s.columns) {
        for (uint32_t r = row0, run; r < row0 + rows; r += run) {
            uint32_t from = from_of(c, &s, tiled, r, &run);
            run = (uint32_t)min_u64(run, row0 + rows - r);
            if (!m->of->read(m->self, module, from, run, dst + (size_t)(r - row0) * w.cols, e))
                return false;
        }
        return true;
    }
    float *row = malloc(w.cols * sizeof *row);
    bool ok = (row || err_nomem(e, module, w.cols * sizeof *row)) && m->of->read(m->self, module, row0, rows, dst, e);
    for (uint32_t r = 0; ok && r < rows; r++) {
        memcpy(row, dst + (size_t)r * w.cols, w.cols * sizeof *row);
        turn_columns(c, &s, tiled, row, w.cols, dst + (size_t)r * w.cols);
    }
    free(row);
    return ok;
}

/* dst <- src: n pieces of `size` bytes, which the span counts as rows or columns. */
static void turn_pieces(const struct turned *m, const struct span *s, uint32_t n, uint64_t size, const void *src,
                        void *dst)
{
    for (uint32_t at = 0, run; at < n; at += run) {
        uint32_t from = from_of(m->config, s, m->config->delta.tiled, at, &run);
        memcpy((uint8_t *)dst + at * size, (const uint8_t *)src + from * size, (size_t)(run * size));
    }
}

static bool turn_rows(const struct turned *m, const struct span *s, uint32_t rows, void *data, uint64_t bytes,
                      struct err *e)
{
    void *copy = data ? malloc((size_t)bytes + 1) : NULL;
    if (!data || !copy)
        return !data || err_nomem(e, "codes", bytes);
    memcpy(copy, data, (size_t)bytes);
    turn_pieces(m, s, rows, bytes / rows, copy, data);
    free(copy);
    return true;
}

static bool turned_codes(const void *self, const char *module, struct qlinear *q, struct err *e)
{
    const struct turned *m = self;
    const struct span s = span_of(m->config, module);
    const uint64_t planes = quant_type_planes(q->spec.type);
    if (!m->of->codes(m->self, module, q, e))
        return false;
    if (!s.width)
        return true;
    if (!s.columns)
        return turn_rows(m, &s, q->rows, q->codes, (uint64_t)q->rows * q->cols, e) &&
               turn_rows(m, &s, q->rows, q->scales,
                         (uint64_t)q->rows * quant_row_scales(&q->spec, q->cols) * sizeof *q->scales, e) &&
               turn_rows(m, &s, q->rows, q->integers, q->rows * planes * q->groups, e);
    /* Groups of a head stay together (groups_move). */
    const struct span of_groups = {0, s.width / q->spec.group, true};
    const size_t scales = planes * q->groups;
    int8_t *codes = malloc(q->cols);
    float *row = malloc((scales + 1) * sizeof *row);
    bool ok = (codes && row) || err_nomem(e, "codes", q->cols);
    for (uint32_t r = 0; ok && r < q->rows; r++) {
        memcpy(codes, q->codes + (size_t)r * q->cols, q->cols);
        turn_pieces(m, &s, q->cols, 1, codes, q->codes + (size_t)r * q->cols);
        memcpy(row, q->scales + r * scales, scales * sizeof *row);
        for (size_t p = 0; p < planes; p++)
            turn_pieces(m, &of_groups, q->groups, sizeof *row, row + p * q->groups,
                        q->scales + r * scales + p * q->groups);
    }
    free(codes);
    free(row);
    return ok;
}

static bool turned_blocks(const void *self, const char *module, uint32_t row0, uint32_t rows, uint8_t *dst,
                          struct err *e)
{
    const struct turned *m = self;
    const struct span s = span_of(m->config, module);
    struct weight_info w;
    if (!s.width)
        return m->of->blocks(m->self, module, row0, rows, dst, e);
    if (!turned_weight(self, module, &w, e))
        return false;
    if (!w.blocks)
        return err_set(e, ERR_BUG, "%s has no blocks", module);
    const uint64_t bytes = gguf_row_bytes(w.blocks, w.cols);
    if (!s.columns) {
        for (uint32_t r = row0, run; r < row0 + rows; r += run) {
            uint32_t from = from_of(m->config, &s, m->config->delta.tiled, r, &run);
            run = (uint32_t)min_u64(run, row0 + rows - r);
            if (!m->of->blocks(m->self, module, from, run, dst + (r - row0) * bytes, e))
                return false;
        }
        return true;
    }
    const struct span of_blocks = {0, s.width / w.blocks->block, true};
    uint8_t *row = malloc((size_t)bytes);
    bool ok = (row || err_nomem(e, module, bytes)) && m->of->blocks(m->self, module, row0, rows, dst, e);
    for (uint32_t r = 0; ok && r < rows; r++) {
        memcpy(row, dst + r * bytes, (size_t)bytes);
        turn_pieces(m, &of_blocks, w.cols / w.blocks->block, w.blocks->bytes, row, dst + r * bytes);
    }
    free(row);
    return ok;
}

static bool turned_check_finite(const void *self, const char *module, struct err *e)
{
    const struct turned *m = self;
    return m->of->check_finite(m->self, module, e);
}

const struct model_source value_heads_source = {
    .close = turned_close,
    .file = turned_file,
    .count = turned_count,
    .at = turned_at,
    .find = turned_find,
    .path = turned_path,
    .drop = turned_drop,
    .is_packed = turned_is_packed,
    .config_text = turned_config_text,
    .weight = turned_weight,
    .read = turned_read,
    .codes = turned_codes,
    .blocks = turned_blocks,
    .check_finite = turned_check_finite,
};
