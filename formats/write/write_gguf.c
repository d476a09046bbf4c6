/* Writing a GGUF: the plan of its tensors, then their rows, a tile at a time. */
#include "formats/write/write_gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/block.h"
#include "formats/write/gguf_export.h"
#include "formats/gguf/gguf_names.h"
#include "formats/read/tensor_values.h"
#include "host/base/num.h"
#include "host/base/out_path.h"
#include "host/base/pool.h"
#include "host/base/str.h"

/* Weights of a tile of rows; and the work of the part of it that one thread rounds at once, about a
 * millisecond, in units of gguf_round_cost. */
#define TILE (4u << 20)
#define PART (128u << 10)

/* The largest number of that type. */
#define F16_MOST 65504.0f

#define UNSUPPORTED "the model may be of an architecture that is not supported"

struct entry {
    char name[64];   /* in the GGUF */
    char module[96]; /* Hugging Face, "" for rope_freqs */
    bool bias;
    uint32_t n_dims, rows, cols;
    const struct gguf_type *type;
    const struct gguf_item *item; /* 2-D weights */
    uint32_t heads;               /* whose rows are permuted; 0: none */
    uint64_t bytes;
};

struct gguf_plan {
    const struct checkpoint *src;
    const struct gguf_item *items;
    size_t n_items;
    struct strmap by_module;
    struct entry *entries;
    size_t n, cap;
    struct gguf_tensor_plan *tensors; /* [n], made last */
    struct gguf_keys *keys;
    uint64_t work; /* of all tensors, as gguf_source's progress counts it */
    struct err *e;
};

/* ---- the tensors of a model ---- */

bool gguf_weights_each(const struct checkpoint *src,
                       bool (*fn)(void *ctx, const char *module, uint32_t rows, uint32_t cols), void *ctx)
{
    const struct model_config *c = checkpoint_config(src);
    const struct block_part *part;
    struct weight_info w;
    char module[96];
    const char *embedding = checkpoint_embedding_module(src), *head = checkpoint_head_module(src);
    if (!checkpoint_weight(src, embedding, &w, NULL) || !fn(ctx, embedding, w.rows, w.cols))
        return false;
    for (uint32_t l = 0; l < c->num_layers; l++)
        for (size_t i = 0; (part = block_part_at(i)); i++) {
            if (part->kind != PART_MATRIX)
                continue;
            block_part_name(part, l, module, sizeof module);
            if (!checkpoint_weight(src, module, &w, NULL) || !fn(ctx, module, w.rows, w.cols))
                return false;
        }
    return c->tie_word_embeddings || (checkpoint_weight(src, head, &w, NULL) && fn(ctx, head, w.rows, w.cols));
}

/* ---- the plan ---- */

static struct entry *add_entry(struct gguf_plan *p, const char *module, const char *name)
{
    if (p->n == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 64;
        struct entry *grown = realloc(p->entries, cap * sizeof *grown);
        if (!grown) {
            err_nomem(p->e, "the list of tensors", cap * sizeof *grown);
            return NULL;
        }
        p->entries = grown;
        p->cap = cap;
    }
    struct entry *x = &p->entries[p->n++];
    *x = (struct entry){.n_dims = 1, .rows = 1, .type = gguf_type_of(GGML_F32)};
    snprintf(x->module, sizeof x->module, "%s", module);
    snprintf(x->name, sizeof x->name, "%s", name);
    return x;
}

/* "model.norm" and ".weight" -> "output_norm.weight". */
static bool name_of(struct gguf_plan *p, const char *module, const char *suffix, char out[64])
{
    char hf[128];
    snprintf(hf, sizeof hf, "%s%s", module, suffix);
    return gguf_name_of(hf, out, 64) || err_set(p->e, ERR_BUG, "%s has no name in a GGUF", hf);
}

/* Permuted rows are rows of heads of head_dim. */
static bool find_heads(struct gguf_plan *p, struct entry *x, uint32_t rows)
{
    const struct model_config *c = checkpoint_config(p->src);
    x->heads = gguf_permuted_heads(c, x->module);
    if (!x->heads || (uint64_t)x->heads * c->head_dim == rows)
        return true;
    err_set(p->e, ERR_USER, "%s of %s has %u rows, not %u heads of %u", x->module, checkpoint_dir(p->src),
            (unsigned)rows, (unsigned)x->heads, (unsigned)c->head_dim);
    return err_hint(p->e, "check config.json against the one of the original model");
}

static bool plan_vector(struct gguf_plan *p, const char *module)
{
    struct weight_info w;
    char name[64];
    if (!checkpoint_weight(p->src, module, &w, p->e) || !name_of(p, module, ".weight", name))
        return false;
    if (w.rows != 1) {
        err_set(p->e, ERR_USER, "%s.weight of %s is a matrix, expected a vector", module, checkpoint_dir(p->src));
        return err_hint(p->e, UNSUPPORTED);
    }
    struct entry *x = add_entry(p, module, name);
    if (x)
        x->cols = w.cols;
    return x != NULL;
}

static bool plan_bias(struct gguf_plan *p, const char *module, uint32_t rows)
{
    const struct tensor *t = checkpoint_bias(p->src, module);
    char name[64];
    if (!t)
        return true;
    if (t->n_dims != 1 || t->shape[0] != rows) {
        err_set(p->e, ERR_USER, "%s.bias of %s does not have one value for each of %u rows", module,
                checkpoint_dir(p->src), (unsigned)rows);
        return err_hint(p->e, UNSUPPORTED);
    }
    if (!name_of(p, module, ".bias", name))
        return false;
    struct entry *x = add_entry(p, module, name);
    if (!x)
        return false;
    x->bias = true;
    x->cols = rows;
    return find_heads(p, x, rows);
}

/* fixed: NULL, or what it is called whatever its module is: embedding and head. */
static bool plan_matrix(struct gguf_plan *p, const char *module, const char *fixed)
{
    struct weight_info w;
    uint32_t index;
    char name[64];
    if (!checkpoint_weight(p->src, module, &w, p->e))
        return false;
    if (!strmap_find(&p->by_module, module, strlen(module), &index))
        return err_set(p->e, ERR_BUG, "no type was chosen for %s", module);
    const struct gguf_item *item = &p->items[index];
    if (fixed)
        snprintf(name, sizeof name, "%s", fixed);
    else if (!name_of(p, module, ".weight", name))
        return false;
    if (w.cols % item->type->block != 0) {
        err_set(p->e, ERR_USER, "%s: its %u columns are not a multiple of %u, the block of %s", module,
                (unsigned)w.cols, (unsigned)item->type->block, item->type->name);
        return err_hint(p->e, "choose another type for it with --tensor");
    }
    if (!item->coded && !item->type->rounded) {
        err_set(p->e, ERR_USER, "%s: weights cannot be rounded to %s", module, item->type->name);
        return err_hint(p->e, "choose another type for it with --tensor");
    }
    struct entry *x = add_entry(p, module, name);
    if (!x)
        return false;
    x->n_dims = 2;
    x->rows = w.rows;
    x->cols = w.cols;
    x->type = item->type;
    x->item = item;
    /* llama.cpp knows biases within blocks only. */
    return find_heads(p, x, w.rows) && (fixed || plan_bias(p, module, w.rows));
}

static bool plan_model(struct gguf_plan *p)
{
    const struct model_config *c = checkpoint_config(p->src);
    const struct family *f = family_of(c);
    const struct block_part *part;
    char module[96], known[128];
    if (!f) {
        err_set(p->e, ERR_USER, "%s: the architecture %s has no counterpart among GGUF's that gsq writes",
                checkpoint_dir(p->src), c->architecture[0] ? c->architecture : c->model_type);
        return err_hint(p->e, "gsq writes GGUFs of %s models", family_names(known, sizeof known));
    }
    if (!config_supported(c, p->e) || !plan_matrix(p, checkpoint_embedding_module(p->src), "token_embd.weight"))
        return false;
    for (uint32_t l = 0; l < c->num_layers; l++)
        for (size_t i = 0; (part = block_part_at(i)); i++) {
            block_part_name(part, l, module, sizeof module);
            if (!family_has(f, part))
                continue;
            if (!(part->kind == PART_MATRIX ? plan_matrix(p, module, NULL) : plan_vector(p, module)))
                return false;
        }
    if (!plan_vector(p, "model.norm") ||
        (!c->tie_word_embeddings && !plan_matrix(p, checkpoint_head_module(p->src), "output.weight")))
        return false;
    const struct gguf *source = checkpoint_gguf(p->src);
    if (source ? !gguf_tensor_find(source, "rope_freqs.weight")
               : c->rope_scaling != ROPE_LLAMA3 && c->rope_scaling != ROPE_FACTORS)
        return true;
    struct entry *x = add_entry(p, "", "rope_freqs.weight");
    if (x)
        x->cols = c->head_dim / 2;
    return x != NULL;
}

/* Whether a tensor of the source went into an entry, or need not: tables that follow from config.json, the
 * second copy of a tied matrix. names: of modules, and which entry is the weight of each. */
static bool is_planned(const struct gguf_plan *p, const struct strmap *names, const char *name)
{
    const char *dot = strrchr(name, '.');
    size_t n = dot ? (size_t)(dot - name) : strlen(name);
    char module[96];
    uint32_t at;
    if (!dot || n >= sizeof module)
        return false;
    memcpy(module, name, n);
    module[n] = 0;
    if (strcmp(dot, ".inv_freq") == 0 || strcmp(name, "rope_freqs.weight") == 0 ||
        (checkpoint_config(p->src)->tie_word_embeddings && strcmp(module, "lm_head") == 0))
        return true;
    if (!strmap_find(names, module, n, &at))
        return false;
    if (strcmp(dot, ".bias") == 0) /* an entry of its own, behind that of the weight */
        return at + 1 < p->n && p->entries[at + 1].bias && strcmp(p->entries[at + 1].module, module) == 0;
    return strcmp(dot, ".weight") == 0 || checkpoint_is_packed(p->src, module, dot);
}

/* A tensor that this code does not know would silently be missing from the result. */
static bool check_complete(struct gguf_plan *p)
{
    struct strmap names = {0};
    bool ok = true, added;
    for (size_t i = 0; ok && i < p->n; i++)
        if (!strmap_add(&names, p->entries[i].module, strlen(p->entries[i].module), (uint32_t)i, &added))
            ok = err_nomem(p->e, "the list of tensors", p->n);
    for (size_t i = 0; ok && i < checkpoint_tensor_count(p->src); i++) {
        const struct tensor *t = checkpoint_tensor_at(p->src, i);
        if (is_planned(p, &names, t->name))
            continue;
        err_set(p->e, ERR_USER, "%s in %s has no place in a GGUF of this architecture", t->name,
                checkpoint_tensor_path(p->src, t));
        ok = err_hint(p->e, UNSUPPORTED);
    }
    strmap_free(&names);
    return ok;
}

static uint64_t entry_work(const struct entry *x)
{
    bool rounded = x->n_dims == 2 && !x->item->coded;
    return (uint64_t)x->rows * x->cols * (rounded ? gguf_round_cost(x->type) : 1);
}

static bool plan_tensors(struct gguf_plan *p)
{
    p->tensors = calloc(p->n, sizeof *p->tensors);
    if (!p->tensors)
        return err_nomem(p->e, "the list of tensors", p->n * sizeof *p->tensors);
    for (size_t i = 0; i < p->n; i++) {
        struct entry *x = &p->entries[i];
        x->bytes = gguf_row_bytes(x->type, x->cols) * x->rows;
        p->work += entry_work(x);
        p->tensors[i] = (struct gguf_tensor_plan){
            .name = x->name, .n_dims = x->n_dims, .ne = {x->cols, x->rows, 1, 1}, .type = (uint32_t)x->type->id};
    }
    return true;
}

/* The type of the most weights, as general.file_type numbers it. */
static int commonest_file_type(const struct gguf_plan *p)
{
    static const int map[][2] = {
        {GGML_F32, 0},     {GGML_F16, 1},   {GGML_Q4_0, 2},   {GGML_Q4_1, 3},   {GGML_Q8_0, 7},   {GGML_Q5_0, 8},
        {GGML_Q5_1, 9},    {GGML_Q2_K, 10}, {GGML_Q3_K, 12},  {GGML_Q4_K, 15},  {GGML_Q5_K, 17},  {GGML_Q6_K, 18},
        {GGML_IQ4_NL, 25}, {GGML_BF16, 32}, {GGML_TQ1_0, 36}, {GGML_TQ2_0, 37}, {GGML_MXFP4, 38}, {GGML_Q2_0, 41}};
    enum { N = sizeof map / sizeof map[0] };
    uint64_t weights[N] = {0};
    size_t best = 0;
    for (size_t i = 0; i < p->n; i++)
        for (size_t j = 0; j < N; j++)
            if (p->entries[i].item && p->entries[i].type->id == map[j][0])
                weights[j] += (uint64_t)p->entries[i].rows * p->entries[i].cols;
    for (size_t j = 0; j < N; j++)
        if (weights[j] > weights[best])
            best = j;
    return map[best][1];
}

static bool plan_keys(struct gguf_plan *p, const struct gguf_options *o, bool quiet)
{
    struct gguf_facts facts = {.file_type = o->file_type,
                               .vocab = p->entries[0].rows,
                               .metadata = o->metadata,
                               .n_metadata = o->n_metadata,
                               .quiet = quiet};
    if (facts.file_type < 0)
        facts.file_type = commonest_file_type(p);
    for (size_t i = 0; i < p->n; i++) {
        int id = p->entries[i].type->id;
        facts.quantized |= id != GGML_F32 && id != GGML_F16 && id != GGML_BF16;
    }
    const struct gguf *source = checkpoint_gguf(p->src);
    bool ok = source ? gguf_export_copied_keys(&p->keys, source, &facts, p->e)
                     : gguf_export_keys(&p->keys, checkpoint_dir(p->src), checkpoint_config(p->src), &facts, p->e);
    ok = ok && gguf_keys_override(&p->keys, o->overrides, o->n_overrides, p->e);
    if (ok)
        gguf_keys_seal(p->keys, p->tensors, p->n);
    return ok;
}

static bool plan_make(struct gguf_plan *p, const struct checkpoint *src, const struct gguf_item *items, size_t n,
                      const struct gguf_options *o, bool quiet, struct err *e)
{
    *p = (struct gguf_plan){.src = src, .items = items, .n_items = n, .e = e};
    bool added;
    if (!strmap_reserve(&p->by_module, n))
        return err_nomem(e, "the list of tensors", n);
    for (size_t i = 0; i < n; i++)
        if (!strmap_add(&p->by_module, items[i].module, strlen(items[i].module), (uint32_t)i, &added))
            return err_nomem(e, "the list of tensors", n);
    return plan_model(p) && check_complete(p) && plan_tensors(p) && plan_keys(p, o, quiet);
}

static void plan_free(struct gguf_plan *p)
{
    strmap_free(&p->by_module);
    free(p->entries);
    free(p->tensors);
    gguf_keys_destroy(&p->keys);
}

static bool too_large(const struct checkpoint *src, const char *module, float v, struct err *e)
{
    err_set(e, ERR_USER, "%s holds %g, which F16 cannot hold (read from %s)", module, (double)v, checkpoint_dir(src));
    return err_hint(e, "choose BF16 or F32 for it");
}

/* Values that the 16-bit types of the file cannot hold, where the source's own type could have them: hours
 * of work would end at one. */
static bool check_range(const struct gguf_plan *p)
{
    float block[1024];
    for (size_t i = 0; i < p->n; i++) {
        const struct entry *x = &p->entries[i];
        const struct tensor *t =
            x->item && !x->item->coded && x->type->id == GGML_F16 ? checkpoint_stored(p->src, x->module) : NULL;
        uint64_t n = t && (t->dtype == DTYPE_F32 || t->dtype == DTYPE_BF16) ? t->bytes / dtype_size(t->dtype) : 0;
        for (uint64_t at = 0; at < n; at += 1024) {
            uint64_t count = min_u64(n - at, 1024);
            if (!tensor_read_f32(t, at, count, block, p->e))
                return false;
            float most = 0;
            for (uint64_t j = 0; j < count; j++)
                most = isfinite(block[j]) && fabsf(block[j]) > most ? fabsf(block[j]) : most;
            if (most > F16_MOST)
                return too_large(p->src, x->module, most, p->e);
        }
    }
    return true;
}

uint64_t write_gguf_size(const struct checkpoint *src, const struct gguf_item *items, size_t n,
                         const struct gguf_options *o, struct err *e)
{
    struct gguf_plan p;
    uint64_t bytes =
        plan_make(&p, src, items, n, o, true, e) && check_range(&p) ? gguf_file_bytes(p.keys, p.tensors, p.n) : 0;
    plan_free(&p);
    return bytes;
}

/* ---- the rows ---- */

struct writing {
    const struct gguf_plan *plan;
    const struct gguf_source *source;
    struct gguf_writer *writer;
    uint64_t done; /* work */
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
static uint32_t source_row(const struct writing *w, const struct entry *x, uint32_t r)
{
    uint32_t dim = checkpoint_config(w->plan->src)->head_dim;
    return x->heads ? r / dim * dim + gguf_row_to_hf(r % dim, dim) : r;
}

/* What the type cannot hold, or no type should. */
static bool check_values(const struct writing *w, const struct entry *x, const float *v, uint64_t n, struct err *e)
{
    float most = x->type->id == GGML_F16 ? F16_MOST : HUGE_VALF;
    const char *source = checkpoint_dir(w->plan->src);
    for (uint64_t i = 0; i < n; i++) {
        if (isfinite(v[i]) && fabsf(v[i]) <= most)
            continue;
        if (isfinite(v[i]))
            return too_large(w->plan->src, x->module, v[i], e);
        err_set(e, ERR_USER, "%s holds %s in %s", x->module, v[i] != v[i] ? "NaN" : "an infinity", source);
        return err_hint(e, "that model is damaged or its training diverged: download it again");
    }
    return true;
}

/* Rows [r0, r0 + n) of a matrix, rounded in parts of `part` rows by all threads. */
struct tile {
    const struct writing *w;
    const struct entry *x;
    const float *importance;
    uint32_t r0, n, part;
    float *rows;     /* [n, cols] */
    uint8_t *packed; /* [n] rows */
};

static bool round_part(void *ctx, uint64_t i, unsigned thread, struct err *e)
{
    const struct tile *t = ctx;
    const struct entry *x = t->x;
    uint64_t row_bytes = gguf_row_bytes(x->type, x->cols);
    uint32_t first = (uint32_t)i * t->part, n = (uint32_t)min_u64(t->part, t->n - first);
    float *rows = t->rows + (size_t)first * x->cols;
    (void)thread;
    if (!checkpoint_read_f32(t->w->plan->src, x->module, t->r0 + first, n, rows, e) ||
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

static bool write_rounded(struct writing *w, const struct entry *x)
{
    uint32_t dim = x->heads ? checkpoint_config(w->plan->src)->head_dim : 1;
    /* Permuted rows stay within their head: tiles and their parts are whole heads. */
    uint64_t step = max_u64(dim, TILE / x->cols / dim * dim), row_bytes = gguf_row_bytes(x->type, x->cols);
    step = min_u64(step, x->rows);
    struct tile t = {.w = w,
                     .x = x,
                     .importance = w->source->importance ? w->source->importance(w->source->ctx, x->module) : NULL,
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

static bool write_coded(struct writing *w, const struct entry *x)
{
    uint64_t row_bytes = gguf_row_bytes(x->type, x->cols);
    uint64_t step = min_u64(x->rows, max_u64(1, TILE / row_bytes));
    uint8_t *packed = malloc((size_t)(step * row_bytes));
    struct qlinear q = {0};
    if (!packed)
        return err_nomem(w->e, x->module, step * row_bytes);
    bool ok = w->source->linear(w->source->ctx, x->item, &q, w->e);
    if (ok && (q.rows != x->rows || q.cols != x->cols))
        ok = err_set(w->e, ERR_BUG, "%s: codes of %u x %u for a matrix of %u x %u", x->module, (unsigned)q.rows,
                     (unsigned)q.cols, (unsigned)x->rows, (unsigned)x->cols);
    for (uint32_t r0 = 0; ok && r0 < x->rows; r0 += (uint32_t)step) {
        uint32_t n = (uint32_t)min_u64(step, x->rows - r0);
        for (uint32_t r = 0; ok && r < n; r++) {
            uint32_t from = source_row(w, x, r0 + r);
            ok = gguf_pack_row(x->type, &q, from, packed + r * row_bytes, w->e) ||
                 err_context(w->e, "%s, row %u", x->module, (unsigned)from);
        }
        ok = ok && put(w, packed, n * row_bytes, (uint64_t)n * x->cols);
    }
    qlinear_free(&q);
    free(packed);
    return ok;
}

/* Those of a GGUF as they are (gguf_config.c checked them): no config says them to the last bit. */
static void rope_freqs(const struct writing *w, const struct entry *x, float *v)
{
    const struct gguf *source = checkpoint_gguf(w->plan->src);
    const struct gguf_tensor *t = source ? gguf_tensor_find(source, x->name) : NULL;
    if (!t)
        gguf_rope_freqs(checkpoint_config(w->plan->src), v);
    else
        gguf_dequant(gguf_type_of(t->type), t->data, x->cols, v);
}

/* Norms, biases and rope_freqs: one vector of F32. */
static bool write_vector(struct writing *w, const struct entry *x)
{
    float *v = malloc((size_t)x->cols * 2 * sizeof *v), *ordered = v + x->cols;
    if (!v)
        return err_nomem(w->e, x->name, (uint64_t)x->cols * 8);
    bool ok = true;
    if (!x->module[0])
        rope_freqs(w, x, v);
    else if (x->bias)
        ok = tensor_read_f32(checkpoint_bias(w->plan->src, x->module), 0, x->cols, v, w->e);
    else
        ok = checkpoint_read_f32(w->plan->src, x->module, 0, 1, v, w->e);
    ok = ok && check_values(w, x, v, x->cols, w->e);
    for (uint32_t i = 0; ok && i < x->cols; i++)
        ordered[i] = v[source_row(w, x, i)];
    if (ok)
        gguf_round_row(x->type, ordered, NULL, x->cols, v);
    ok = ok && put(w, v, x->bytes, x->cols);
    free(v);
    return ok;
}

static bool write_entry(struct writing *w, const struct entry *x)
{
    bool ok = x->item && x->item->coded ? write_coded(w, x) : x->n_dims == 2 ? write_rounded(w, x) : write_vector(w, x);
    if (ok && x->module[0])
        checkpoint_drop_module(w->plan->src, x->module);
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

bool write_gguf_check(const char *path, const struct checkpoint *src, bool force, struct err *e)
{
    enum os_kind kind = os_stat(path, NULL);
    if (kind == OS_FILE && !check_not_source(path, src, e))
        return false;
    return out_file_check(path, e) && (kind != OS_FILE || force || gguf_is_ours(path) || out_foreign(path, e));
}

bool write_gguf(const char *path, const struct checkpoint *src, const struct gguf_item *items, size_t n,
                const struct gguf_options *o, const struct gguf_source *source, struct err *e)
{
    struct gguf_plan p = {0};
    struct writing w = {.plan = &p, .source = source, .e = e};
    bool ok = write_gguf_check(path, src, true, e) && plan_make(&p, src, items, n, o, false, e) &&
              out_fits("the output", path, gguf_file_bytes(p.keys, p.tensors, p.n), "-o", e);
    ok = ok && gguf_writer_open(&w.writer, path, p.keys, p.tensors, p.n, e);
    if (ok) {
        for (size_t i = 0; ok && i < p.n; i++)
            ok =
                write_entry(&w, &p.entries[i]) || err_context(e, "%s", p.entries[i].name) || err_context(e, "%s", path);
        if (ok)
            ok = gguf_writer_close(&w.writer, e);
        else
            gguf_writer_abort(&w.writer);
    }
    plan_free(&p);
    return ok;
}
