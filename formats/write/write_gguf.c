/* Writing a GGUF: the rows of its tensors, a tile at a time. */
#include "formats/write/write_gguf.h"

#include "arch/family.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf_names.h"
#include "formats/read/tensor_values.h"
#include "formats/write/gguf_export.h"
#include "formats/write/gguf_plan.h"
#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/out_path.h"
#include "host/base/pool.h"
#include "host/base/str.h"

/* Weights of a tile of rows; and the work of the part of it that one thread rounds at once, about a
 * millisecond, in units of gguf_round_cost. */
#define TILE (4u << 20)
#define PART (128u << 10)

/* ---- the rows ---- */

struct writing {
    const struct gguf_plan *plan;
    const struct export_source *source;
    struct gguf_writer *writer;
    uint64_t done;    /* work */
    uint64_t rounded; /* scales of the model's own codes, which f16 does not hold exactly */
    struct err *e;
};

/* extra: of the work in hand, beyond what is done. */
static bool go_on(const struct writing *w, uint64_t extra)
{
    return !w->source->progress || w->source->progress(w->source->ctx, w->done + extra, w->plan->work);
}

/* A part of an entry, and the work that was in it. */
static bool put(struct writing *w, const void *data, uint64_t size, uint64_t work)
{
    if (!gguf_writer_put(w->writer, data, (size_t)size, w->e))
        return false;
    w->done += work;
    return go_on(w, 0) || err_set(w->e, ERR_STOPPED, "stopped while writing");
}

/* Which row of the Hugging Face tensor lies in row r of the GGUF's. */
static uint32_t source_row(const struct writing *w, const struct gguf_entry *x, uint32_t r)
{
    uint32_t dim = checkpoint_config(w->plan->src)->head_dim;
    return x->heads ? r / dim * dim + gguf_row_to_hf(r % dim, dim) : r;
}

/* What the type cannot hold, or no type should. */
static bool check_values(const struct writing *w, const struct gguf_entry *x, const float *v, uint64_t n, struct err *e)
{
    float most = x->type->id == GGML_F16 ? F16_MOST : HUGE_VALF;
    const char *source = checkpoint_dir(w->plan->src);
    for (uint64_t i = 0; i < n; i++) {
        if (isfinite(v[i]) && fabsf(v[i]) <= most)
            continue;
        if (isfinite(v[i]))
            return gguf_too_large(w->plan->src, x->module, v[i], e);
        err_set(e, ERR_USER, "%s holds %s in %s", x->module, v[i] != v[i] ? "NaN" : "an infinity", source);
        return err_hint(e, "that model is damaged or its training diverged: download it again");
    }
    return true;
}

/* Rows [r0, r0 + n) of a matrix, rounded in parts of `part` rows by all threads. */
struct tile {
    const struct writing *w;
    const struct gguf_entry *x;
    const float *importance;
    uint32_t r0, n, part;
    float *rows;     /* [n, cols] */
    uint8_t *packed; /* [n] rows */
};

static bool round_part(void *ctx, uint64_t i, unsigned thread, struct err *e)
{
    const struct tile *t = ctx;
    const struct gguf_entry *x = t->x;
    uint64_t row_bytes = gguf_row_bytes(x->type, x->cols);
    uint32_t first = (uint32_t)i * t->part, n = (uint32_t)min_u64(t->part, t->n - first);
    float *rows = t->rows + (size_t)first * x->cols;
    (void)thread;
    if (!checkpoint_read_f32(t->w->plan->src, x->module, x->row0 + t->r0 + first, n, rows, e) ||
        !check_values(t->w, x, rows, (uint64_t)n * x->cols, e))
        return false;
    for (uint32_t r = 0; r < n; r++)
        gguf_round_row(x->type, rows + (size_t)(source_row(t->w, x, t->r0 + first + r) - t->r0 - first) * x->cols,
                       t->importance, x->cols, t->packed + (first + r) * row_bytes);
    return true;
}

static bool round_progress(void *ctx, uint64_t parts)
{
    const struct tile *t = ctx;
    uint64_t rows = min_u64(parts * t->part, t->n);
    return go_on(t->w, rows * t->x->cols * gguf_round_cost(t->x->type));
}

static bool write_rounded(struct writing *w, const struct gguf_entry *x)
{
    uint32_t dim = x->heads ? checkpoint_config(w->plan->src)->head_dim : 1;
    /* Permuted rows stay within their head: tiles and their parts are whole heads. */
    uint64_t step = max_u64(dim, TILE / x->cols / dim * dim), row_bytes = gguf_row_bytes(x->type, x->cols);
    step = min_u64(step, x->rows);
    struct tile t = {.w = w,
                     .x = x,
                     .importance =
                         w->source->importance && x->item ? w->source->importance(w->source->ctx, x->item) : NULL,
                     .part = (uint32_t)max_u64(dim, PART / gguf_round_cost(x->type) / x->cols / dim * dim),
                     .rows = malloc((size_t)(step * x->cols) * sizeof *t.rows),
                     .packed = malloc((size_t)(step * row_bytes))};
    bool ok = t.rows && t.packed ? true : err_nomem(w->e, x->module, step * (x->cols * 4 + row_bytes));
    for (; ok && t.r0 < x->rows; t.r0 += (uint32_t)step) {
        t.n = (uint32_t)min_u64(step, x->rows - t.r0);
        const struct pool_work work = {
            .n = div_up(t.n, t.part), .piece = round_part, .progress = round_progress, .ctx = &t};
        ok = pool_run(&work, w->e) &&
             put(w, t.packed, t.n * row_bytes, (uint64_t)t.n * x->cols * gguf_round_cost(x->type));
    }
    free(t.rows);
    free(t.packed);
    return ok;
}

bool gguf_model_codes(const struct checkpoint *ck, const struct matrix *x, struct qlinear *q, uint64_t *rounded,
                      struct err *e)
{
    const struct quant_type *l = x->type->codes;
    if (!checkpoint_read_codes(ck, x->module, q, e))
        return false;
    if (l->super || l->scale)
        return true;
    for (size_t i = 0; i < (size_t)q->rows * q->groups; i++) {
        float s = scale_round(SCALE_F16, q->scales[i]);
        if (!isfinite(s)) {
            gguf_too_large(ck, x->module, q->scales[i], e);
            qlinear_free(q);
            return false;
        }
        *rounded += s != q->scales[i];
        q->scales[i] = s;
    }
    q->spec.scale = SCALE_F16;
    if (!q->spec.type->group && l->lo < q->spec.type->lo && l->bits == q->spec.type->bits)
        q->spec.type = quant_type_of_bits(l->bits); /* ternary codes among the four of two bits */
    return true;
}

static bool write_coded(struct writing *w, const struct gguf_entry *x)
{
    uint64_t row_bytes = gguf_row_bytes(x->type, x->cols);
    uint64_t step = min_u64(x->rows, max_u64(1, TILE / row_bytes));
    uint8_t *packed = malloc((size_t)(step * row_bytes));
    struct qlinear q = {0};
    if (!packed)
        return err_nomem(w->e, x->module, step * row_bytes);
    bool ok = x->item->copied ? gguf_model_codes(w->plan->src, x->item, &q, &w->rounded, w->e)
                              : w->source->linear(w->source->ctx, x->item, &q, w->e);
    if (ok && (q.rows != x->item->rows || q.cols != x->cols))
        ok = err_set(w->e, ERR_BUG, "%s: codes of %u x %u for a matrix of %u x %u", x->module, (unsigned)q.rows,
                     (unsigned)q.cols, (unsigned)x->item->rows, (unsigned)x->cols);
    for (uint32_t r0 = 0; ok && r0 < x->rows; r0 += (uint32_t)step) {
        uint32_t n = (uint32_t)min_u64(step, x->rows - r0);
        for (uint32_t r = 0; ok && r < n; r++) {
            uint32_t from = x->row0 + source_row(w, x, r0 + r);
            ok = gguf_pack_row(x->type, &q, from, packed + r * row_bytes, w->e) ||
                 err_context(w->e, "%s, row %u", x->module, (unsigned)from);
        }
        ok = ok && put(w, packed, n * row_bytes, (uint64_t)n * x->cols);
    }
    qlinear_free(&q);
    free(packed);
    return ok;
}

/* Blocks of a type that the model has too. */
static bool write_blocks(struct writing *w, const struct gguf_entry *x)
{
    uint64_t row_bytes = gguf_row_bytes(x->type, x->cols);
    uint64_t step =
        x->heads ? 1 : min_u64(x->rows, max_u64(1, TILE / row_bytes)); /* rows that stand as they do there */
    uint8_t *rows = malloc((size_t)(step * row_bytes));
    bool ok = rows ? true : err_nomem(w->e, x->module, step * row_bytes);
    for (uint32_t r0 = 0; ok && r0 < x->rows; r0 += (uint32_t)step) {
        uint32_t n = (uint32_t)min_u64(step, x->rows - r0);
        ok = checkpoint_read_blocks(w->plan->src, x->module, x->row0 + source_row(w, x, r0), n, rows, w->e) &&
             put(w, rows, n * row_bytes, (uint64_t)n * x->cols);
    }
    free(rows);
    return ok;
}

/* Those of a GGUF as they are (gguf_config.c checked them): no config says them to the last bit. */
static void rope_freqs(const struct writing *w, const struct gguf_entry *x, float *v)
{
    const struct gguf *source = checkpoint_gguf(w->plan->src);
    const struct gguf_tensor *t = source ? gguf_tensor_find(source, x->name) : NULL;
    const struct model_config *c = checkpoint_config(w->plan->src);
    if (!t && strstr(x->name, "long"))
        memcpy(v, c->rope_factors_long, x->cols * sizeof *v);
    else if (!t)
        gguf_rope_freqs(checkpoint_config(w->plan->src), v);
    else
        gguf_dequant(gguf_type_of(t->type), t->data, x->cols, v);
}

/* Norms, biases and rope_freqs: one vector of F32. */
static bool write_vector(struct writing *w, const struct gguf_entry *x)
{
    float *v = malloc((size_t)x->cols * 2 * sizeof *v);
    if (!v)
        return err_nomem(w->e, x->name, (uint64_t)x->cols * 8);
    float *ordered = v + x->cols;
    bool ok = true;
    if (!x->module[0])
        rope_freqs(w, x, v);
    else if (x->whole)
        ok = tensor_read_f32(checkpoint_tensor_find(w->plan->src, x->module), 0, x->cols, v, w->e);
    else if (x->bias)
        ok = tensor_read_f32(checkpoint_bias(w->plan->src, x->module), 0, x->cols, v, w->e);
    else
        ok = checkpoint_read_f32(w->plan->src, x->module, 0, 1, v, w->e);
    const struct family *f = family_of(checkpoint_config(w->plan->src));
    for (uint32_t i = 0; ok && x->module[0] && !x->bias && !x->whole && family_adds_one(f, x->module) && i < x->cols;
         i++)
        v[i] += 1; /* the other vectors are norms */
    for (uint32_t i = 0; ok && x->whole && str_ends(x->module, ".A_log") && i < x->cols; i++)
        v[i] = (float)-exp((double)v[i]);
    ok = ok && check_values(w, x, v, x->cols, w->e);
    for (uint32_t i = 0; ok && i < x->cols; i++)
        ordered[i] = v[source_row(w, x, i)];
    if (ok)
        gguf_round_row(x->type, ordered, NULL, x->cols, v);
    ok = ok && put(w, v, x->bytes, x->cols);
    free(v);
    return ok;
}

static bool write_entry(struct writing *w, const struct gguf_entry *x)
{
    bool ok = x->item && x->item->copied && x->item->blocks    ? write_blocks(w, x)
              : x->item && (x->item->coded || x->item->copied) ? write_coded(w, x)
              : x->n_dims > 1                                  ? write_rounded(w, x)
                                                               : write_vector(w, x);
    if (ok && x->module[0])
        checkpoint_drop_module(w->plan->src, x->module);
    return ok;
}

/* Each expert's matrix as an entry of its own, one behind the other. */
static bool write_experts(struct writing *w, const struct gguf_entry *x)
{
    bool ok = true;
    for (uint32_t i = 0; ok && i < x->experts; i++) {
        struct gguf_entry one = *x;
        one.item = gguf_entry_item(x, i);
        one.n_dims = x->bias ? 1 : 2;
        one.experts = 0;
        one.bytes = x->bytes / x->experts;
        snprintf(one.module, sizeof one.module, "%s", one.item->module);
        if (x->bias)
            one.item = NULL; /* a vector beside it */
        ok = write_entry(w, &one) || err_context(w->e, "%s", one.module);
    }
    return ok;
}

/* ---- the file ---- */

/* The model's own files; not only those with a tensor: the first part of a split file may hold none. */
static bool check_not_source(const char *path, const struct checkpoint *src, struct err *e)
{
    const struct gguf *g = checkpoint_gguf(src);
    bool own = g && out_same(path, gguf_path(g, NULL));
    uint32_t file = UINT32_MAX;
    for (size_t i = 0; !own && i < checkpoint_tensor_count(src); i++) {
        const struct tensor *t = checkpoint_tensor_at(src, i);
        if (t->file != file) /* they come file by file */
            own = out_same(path, checkpoint_tensor_path(src, t));
        file = t->file;
    }
    if (!own)
        return true;
    err_set(e, ERR_USER, "%s is the model itself", path);
    return err_hint(e, "choose another file with -o");
}

bool gguf_check_out(const char *path, const struct checkpoint *src, bool force, struct err *e)
{
    enum os_kind kind = os_stat(path, NULL);
    if (kind == OS_FILE && !check_not_source(path, src, e))
        return false;
    return out_file_check(path, e) && (kind != OS_FILE || force || gguf_is_ours(path) || out_foreign(path, e));
}

bool gguf_plan_write(struct gguf_plan *p, const char *path, const struct export_source *source, struct err *e)
{
    struct writing w = {.plan = p, .source = source, .e = e};
    bool ok = gguf_check_out(path, p->src, true, e) && gguf_plan_keys(p, false, e) &&
              out_fits("the output", path, gguf_file_bytes(p->keys, p->tensors, p->n), "-o", e);
    ok = ok && gguf_writer_open(&w.writer, path, p->keys, p->tensors, p->n, e);
    if (!ok)
        return false;
    for (size_t i = 0; ok && i < p->n; i++)
        ok = (p->entries[i].experts ? write_experts : write_entry)(&w, &p->entries[i]) ||
             err_context(e, "%s", p->entries[i].name) || err_context(e, "%s", path);
    if (w.rounded)
        log_warn("%llu scales of codes that stay were rounded: GGUF stores them as 16-bit floats",
                 (unsigned long long)w.rounded);
    if (ok)
        return gguf_writer_close(&w.writer, e);
    gguf_writer_abort(&w.writer);
    return false;
}
