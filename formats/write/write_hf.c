/* Writing the folder that hf_plan.c planned: shards first, config.json last. */
#include "formats/write/write_hf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf.h"
#include "formats/read/tensor_values.h"
#include "formats/write/carried.h"
#include "formats/write/gguf_export.h"
#include "formats/write/hf_linear.h"
#include "formats/write/hf_plan.h"
#include "formats/side_file.h"
#include "formats/tokenizer/tokenizer.h"
#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/out_path.h"
#include "host/base/pool.h"

/* Elements converted at a time, and by one thread of these. */
#define CHUNK (1u << 22)
#define PART  (1u << 16)

struct writing {
    const struct hf_plan *plan;
    const struct export_source *source;
    struct safetensors_writer *writer;
    float *floats;   /* CHUNK of them */
    uint8_t *halves; /* CHUNK * 2 bytes */
    uint64_t done, rounded;
    struct err *e;
};

/* Progress of bytes that were put anywhere. */
static bool advance(struct writing *w, uint64_t n)
{
    w->done += n;
    return !w->source->progress || w->source->progress(w->source->ctx, w->done, w->plan->data_bytes) ||
           err_set(w->e, ERR_STOPPED, "stopped while writing");
}

static bool put(struct writing *w, const void *data, uint64_t size)
{
    const uint8_t *bytes = data;
    const uint64_t step = 16u << 20; /* progress and Ctrl-C stay alive within a large tensor */
    for (uint64_t at = 0; at < size;) {
        uint64_t n = min_u64(size - at, step);
        if (!safetensors_writer_put(w->writer, bytes + at, (size_t)n, w->e))
            return false;
        at += n;
        if (!advance(w, n))
            return false;
    }
    return true;
}

/* Elements on their way into a float type: a tensor's (module NULL), or rows of a module. */
struct conversion {
    struct writing *w;
    const struct tensor *tensor;
    const char *module;
    uint32_t cols;
    enum dtype dtype;
    uint64_t first, n, part; /* in elements; parts of a module are whole rows */
};

static bool to_16_bits(const struct conversion *c, const float *v, uint64_t n, uint8_t *out, struct err *e)
{
    bool f16 = c->dtype == DTYPE_F16;
    for (uint64_t i = 0; i < n; i++) {
        uint16_t h = f16 ? f32_to_f16(v[i]) : f32_to_bf16(v[i]);
        if (f16 && (h & 0x7FFF) == 0x7C00 && isfinite(v[i])) {
            err_set(e, ERR_USER, "%s holds %g, which fp16 cannot hold", c->module ? c->module : c->tensor->name,
                    (double)v[i]);
            return err_hint(e, "set torch_dtype to bfloat16 in the model's config.json");
        }
        store_u16le(out + i * 2, h);
    }
    return true;
}

static bool convert_part(void *ctx, uint64_t i, unsigned thread, struct err *e)
{
    const struct conversion *c = ctx;
    uint64_t at = i * c->part, n = min_u64(c->part, c->n - at);
    float *v = c->w->floats + at;
    (void)thread;
    bool ok = c->module ? checkpoint_read_f32(c->w->plan->src, c->module, (uint32_t)((c->first + at) / c->cols),
                                              (uint32_t)(n / c->cols), v, e)
                        : tensor_read_f32(c->tensor, c->first + at, n, v, e);
    return ok && (c->dtype == DTYPE_F32 || to_16_bits(c, v, n, c->w->halves + at * 2, e));
}

/* All elements, as many at a time as the buffers hold. */
static bool write_floats(struct conversion *c, uint64_t all)
{
    uint64_t step = c->module ? CHUNK / c->cols * c->cols : CHUNK;
    for (; c->first < all; c->first += step) {
        c->n = min_u64(step, all - c->first);
        const struct pool_work work = {.n = div_up(c->n, c->part), .piece = convert_part, .ctx = c};
        bool f32 = c->dtype == DTYPE_F32;
        if (!pool_run(&work, c->w->e) || !put(c->w, f32 ? (void *)c->w->floats : c->w->halves, c->n * (f32 ? 4 : 2)))
            return false;
    }
    return true;
}

static bool write_converted(struct writing *w, const struct tensor *t)
{
    struct conversion c = {.w = w, .tensor = t, .dtype = w->plan->dtype, .part = PART};
    return write_floats(&c, t->bytes / dtype_size(t->dtype));
}

static bool write_unpacked(struct writing *w, const char *module, enum dtype dtype)
{
    struct weight_info info;
    if (!checkpoint_weight(w->plan->src, module, &info, w->e))
        return false;
    struct conversion c = {.w = w, .module = module, .cols = info.cols, .dtype = dtype};
    c.part = max_u64(1, PART / info.cols) * info.cols;
    if (info.cols > CHUNK) {
        err_set(w->e, ERR_USER, "%s has rows of %u elements", module, (unsigned)info.cols);
        return err_hint(w->e, "gsq writes rows of at most %u", CHUNK);
    }
    return write_floats(&c, (uint64_t)info.rows * info.cols);
}

static bool write_linear(struct writing *w, const struct matrix *item)
{
    const struct export_options *o = &w->plan->options;
    struct linear_tensor layout[LINEAR_TENSORS];
    struct qlinear q = {0};
    unsigned n = linear_layout(o->format, o->container, item, layout);
    bool ok = w->source->linear(w->source->ctx, item, &q, w->e);
    for (unsigned i = 0; i < n && ok; i++) {
        void *bytes = malloc((size_t)layout[i].bytes);
        ok = bytes ? true : err_nomem(w->e, item->module, layout[i].bytes);
        ok = ok && linear_encode(o->format, o->container, item, &q, i, bytes, &w->rounded, w->e) &&
             put(w, bytes, layout[i].bytes);
        free(bytes);
    }
    qlinear_free(&q);
    return ok;
}

/* Codes of one expert after the other, each of their tensors into its place in that of all. */
static bool write_experts(struct writing *w, const struct export_entry *x)
{
    const struct export_options *o = &w->plan->options;
    const uint32_t experts = checkpoint_config(w->plan->src)->experts.n;
    struct linear_tensor layout[LINEAR_TENSORS];
    uint64_t at[LINEAR_TENSORS];
    unsigned n = linear_layout(o->format, o->container, &w->plan->items[x->items[0]], layout);
    bool ok = true;
    for (unsigned i = 0; i < n && ok; i++)
        ok = safetensors_writer_leave(w->writer, layout[i].bytes * experts, &at[i], w->e);
    for (uint32_t k = 0; k < experts && ok; k++) {
        const struct matrix *item = &w->plan->items[x->items[k]];
        struct qlinear q = {0};
        ok = w->source->linear(w->source->ctx, item, &q, w->e);
        for (unsigned i = 0; i < n && ok; i++) {
            void *bytes = malloc((size_t)layout[i].bytes);
            ok = bytes ? true : err_nomem(w->e, item->module, layout[i].bytes);
            ok = ok && linear_encode(o->format, o->container, item, &q, i, bytes, &w->rounded, w->e) &&
                 safetensors_writer_put_at(w->writer, at[i] + k * layout[i].bytes, bytes, (size_t)layout[i].bytes,
                                           w->e) &&
                 advance(w, layout[i].bytes);
            free(bytes);
        }
        qlinear_free(&q);
    }
    return ok;
}

/* How many floats of a stack's expert are at hand at a time; ERR_USER: its rows are too long for that. */
static bool check_row(const struct writing *w, uint64_t n, const char *module)
{
    if (n <= CHUNK)
        return true;
    err_set(w->e, ERR_USER, "%s has rows of %llu elements", module, (unsigned long long)n);
    return err_hint(w->e, "gsq writes rows of at most %u", CHUNK);
}

/* The first n of w->floats, as the type asks for. */
static bool put_floats(struct writing *w, uint64_t n, enum dtype dtype, const char *module)
{
    const struct conversion c = {.w = w, .module = module, .dtype = dtype};
    if (dtype == DTYPE_F32)
        return put(w, w->floats, n * 4);
    return to_16_bits(&c, w->floats, n, w->halves, w->e) && put(w, w->halves, n * 2);
}

/* An expert whose rows are columns, number by number of its parts in turns: it is read whole, and turned some columns at a time. */
static bool write_turned(struct writing *w, const struct export_entry *x, uint32_t expert, enum dtype dtype)
{
    enum { COLUMNS = 16 };
    const struct checkpoint *src = w->plan->src;
    const uint32_t of = expert_stack_parts(x->stack);
    struct weight_info info = {0};
    char module[128];
    float *v = NULL;
    bool ok = true;
    for (uint32_t p = 0; p < of && ok; p++) {
        expert_stack_part(x->stack, checkpoint_config(src), x->layer, expert, p, module, sizeof module);
        ok = checkpoint_weight(src, module, &info, w->e) && check_row(w, (uint64_t)info.rows * of, module);
        uint64_t numbers = (uint64_t)info.rows * info.cols;
        if (ok && !v && !(v = malloc((size_t)numbers * of * sizeof *v)))
            ok = err_nomem(w->e, module, numbers * of * 4);
        ok = ok && checkpoint_read_f32(src, module, 0, info.rows, v + p * numbers, w->e);
        checkpoint_drop_module(src, module);
    }
    const uint64_t line = (uint64_t)info.rows * of;
    const uint32_t most = ok ? (uint32_t)min_u64(COLUMNS, CHUNK / line) : 0;
    for (uint32_t col = 0, n; ok && col < info.cols; col += n) {
        n = (uint32_t)min_u64(most, info.cols - col);
        for (uint64_t i = 0; i < line; i++)
            for (uint32_t k = 0; k < n; k++)
                w->floats[k * line + i] = v[(i % of * info.rows + i / of) * info.cols + col + k];
        ok = put_floats(w, line * n, dtype, module);
    }
    free(v);
    return ok;
}

static bool write_biases(struct writing *w, const struct export_entry *x, uint32_t expert, enum dtype dtype)
{
    const struct checkpoint *src = w->plan->src;
    const uint32_t of = expert_stack_parts(x->stack);
    const struct tensor *t[2] = {NULL};
    char module[128];
    for (uint32_t p = 0; p < of; p++) {
        expert_stack_part(x->stack, checkpoint_config(src), x->layer, expert, p, module, sizeof module);
        t[p] = checkpoint_bias(src, module);
    }
    const uint64_t n = t[0]->bytes / dtype_size(t[0]->dtype) * of;
    bool ok = check_row(w, n, module);
    for (uint64_t i = 0; i < n && ok; i++)
        ok = tensor_read_f32(t[i % of], i / of, 1, w->floats + i, w->e);
    return ok && put_floats(w, n, dtype, module);
}

static bool write_stack(struct writing *w, const struct export_entry *x)
{
    const struct checkpoint *src = w->plan->src;
    const enum dtype dtype = w->plan->tensors[x->first].dtype;
    const uint32_t of = expert_stack_parts(x->stack);
    char module[128];
    bool ok = true;
    for (uint32_t k = 0; k < checkpoint_config(src)->experts.n && ok; k++) {
        if (x->biases || x->stack->turned) {
            ok = x->biases ? write_biases(w, x, k, dtype) : write_turned(w, x, k, dtype);
            continue;
        }
        for (uint32_t p = 0; p < of && ok; p++) {
            expert_stack_part(x->stack, checkpoint_config(src), x->layer, k, p, module, sizeof module);
            ok = write_unpacked(w, module, dtype);
            checkpoint_drop_module(src, module);
        }
    }
    return ok;
}

static bool write_entry(struct writing *w, const struct export_entry *x)
{
    switch (x->kind) {
    case ENTRY_COPY:
        if (!put(w, x->tensor->data, x->tensor->bytes))
            return false;
        break;
    case ENTRY_CONVERT:
        if (!write_converted(w, x->tensor))
            return false;
        break;
    case ENTRY_DENSE:
        return write_unpacked(w, x->module, w->plan->tensors[x->first].dtype);
    case ENTRY_LINEAR:
        return write_linear(w, &w->plan->items[x->item]);
    case ENTRY_EXPERTS:
        return write_experts(w, x);
    case ENTRY_STACK:
        return write_stack(w, x);
    }
    checkpoint_drop(w->plan->src, x->tensor);
    return true;
}

static bool write_shard(struct writing *w, const char *dir, const struct export_shard *s)
{
    const struct hf_plan *p = w->plan;
    const struct export_entry *first = &p->entries[s->first], *last = first + s->n - 1;
    char path[4096];
    if (!os_path_join(path, sizeof path, dir, s->name, w->e) ||
        !safetensors_writer_open(&w->writer, path, p->tensors + first->first, last->first + last->n - first->first,
                                 p->metadata, p->n_metadata, w->e))
        return false;
    bool ok = true;
    for (size_t i = 0; i < s->n && ok; i++)
        ok = write_entry(w, first + i);
    if (ok)
        return safetensors_writer_close(&w->writer, w->e);
    safetensors_writer_abort(&w->writer);
    return false;
}

static bool write_shards(struct writing *w, const char *dir)
{
    w->floats = malloc(CHUNK * sizeof *w->floats);
    w->halves = malloc(CHUNK * 2);
    bool ok = w->floats && w->halves ? true : err_nomem(w->e, "conversion buffers", CHUNK * 6);
    for (size_t i = 0; i < w->plan->n_shards && ok; i++)
        ok = write_shard(w, dir, &w->plan->shards[i]);
    free(w->floats);
    free(w->halves);
    return ok;
}

/* ---- the folder ---- */

struct folder {
    const char *dir;
    const struct checkpoint *src;
};

/* "model.safetensors", "model-00001-of-00003.safetensors". */
static bool is_weights(const char *name)
{
    unsigned i, n;
    int end = 0;
    return strcmp(name, "model.safetensors") == 0 ||
           (sscanf(name, "model-%5u-of-%5u.safetensors%n", &i, &n, &end) == 2 && end && !name[end]);
}

/* All that an export writes, but for weights. */
static bool is_beside(const char *name)
{
    return strcmp(name, "config.json") == 0 || strcmp(name, "quantize_config.json") == 0 ||
           strcmp(name, GGUF_CARRIED) == 0 || strcmp(name, "model.safetensors.index.json") == 0 || export_carries(name);
}

/* What an earlier export left would be loaded instead of ours, or beside it. Not so code, which config.json has to name. */
static bool remove_earlier(void *ctx, const char *name, struct err *e)
{
    char path[4096];
    if ((!is_weights(name) && !is_beside(name)) || str_ends(name, ".py"))
        return true;
    if (!os_path_join(path, sizeof path, ctx, name, e))
        return false;
    return os_remove(path) ? true : err_set(e, ERR_USER, "cannot remove %s, left from an earlier export", path);
}

static bool remove_templates(const char *dir, struct err *e)
{
    char path[4096];
    if (!os_path_join(path, sizeof path, dir, EXPORT_TEMPLATES, e))
        return false;
    bool ok = export_list_templates(dir, remove_earlier, (void *)(uintptr_t)dir, e);
    os_remove_dir(path); /* where nothing is left in it */
    return ok;
}

struct owner {
    const char *dir;
    size_t weights, ours, beside;
    bool lock;
};

static bool look_at(void *ctx, const char *name, struct err *e)
{
    struct owner *o = ctx;
    struct safetensors *s = NULL;
    char path[4096];
    o->lock |= strcmp(name, OUT_LOCK_NAME) == 0;
    o->beside += is_beside(name);
    if (!is_weights(name))
        return true;
    o->weights++;
    if (!os_path_join(path, sizeof path, o->dir, name, e))
        return false;
    const char *by = safetensors_open_file(&s, path, NULL) ? safetensors_metadata(s, "quantizer") : NULL;
    o->ours += by && strncmp(by, "gsq:", 4) == 0;
    if (s)
        safetensors_close(&s);
    return true;
}

/* Only what gsq wrote itself is replaced without a word: its weights say so, and where an export was killed
 * before there were any, its lock. */
static bool check_not_foreign(const char *dir, struct err *e)
{
    struct owner o = {.dir = dir};
    if (os_stat(dir, NULL) == OS_ABSENT)
        return true;
    if (!os_list(dir, look_at, &o, e))
        return false;
    if (o.weights ? o.ours == o.weights : !o.beside || o.lock)
        return true;
    err_set(e, ERR_USER, "the output folder %s already holds a model that gsq did not write", dir);
    return err_hint(e, "choose another folder with -o, or overwrite it with --force");
}

bool hf_check_out(const char *out_dir, const struct checkpoint *src, bool force, struct err *e)
{
    if (!out_folder_check(out_dir, e))
        return false;
    if (out_same(out_dir, checkpoint_dir(src))) {
        err_set(e, ERR_USER, "the output folder %s is the model's own folder", out_dir);
        return err_hint(e, "choose another folder with -o");
    }
    char path[4096];
    if (!os_path_join(path, sizeof path, out_dir, EXPORT_TEMPLATES, e))
        return false;
    if (os_is_link(path)) {
        err_set(e, ERR_USER, "%s is a link, and gsq neither writes nor removes anything through a link", path);
        return err_hint(e, "remove the link, or choose another folder with -o");
    }
    return force || check_not_foreign(out_dir, e);
}

bool export_run(const char *out_dir, char run[33])
{
    struct checkpoint *ck = NULL;
    struct safetensors *s = NULL;
    bool ok = os_stat(out_dir, NULL) == OS_DIR && checkpoint_open(&ck, out_dir, NULL) &&
              safetensors_open_dir(&s, out_dir, NULL);
    const char *of = ok ? safetensors_metadata(s, "run") : NULL;
    ok = of && strlen(of) == 32;
    if (ok)
        memcpy(run, of, 33);
    if (s)
        safetensors_close(&s);
    if (ck)
        checkpoint_close(&ck);
    return ok;
}

static bool copy_carried(void *ctx, const char *name, struct err *e)
{
    const struct folder *f = ctx;
    char from[4096], to[4096], dir[4096];
    if (!export_carries(name) || !side_file(checkpoint_dir(f->src), name, true, from, NULL))
        return true;
    if (!os_path_join(to, sizeof to, f->dir, name, e))
        return false;
    os_path_split(to, dir, sizeof dir);
    out_trim(dir);
    if (strchr(name, '/') && !os_mkdirs(dir, e))
        return false;
    struct os_map m;
    if (!os_map_file(&m, from, e))
        return false;
    bool ok = os_write_file(to, m.data ? (const void *)m.data : "", (size_t)m.size, e);
    os_unmap(&m);
    return ok;
}

/* The metadata of a GGUF: the tokenizer in the files that others look for, and what neither they nor
 * config.json can express for whoever makes a GGUF of the folder again. */
static bool carry_metadata(const char *dir, const struct checkpoint *src, struct err *e)
{
    const struct gguf *g = checkpoint_gguf(src);
    struct strbuf tokenizer = {0}, config = {0};
    struct err why = {0};
    char path[4096];
    bool ok = true;
    if (!tokenizer_json_from_gguf(&tokenizer, &config, g, checkpoint_dir(src), &why))
        log_warn("no tokenizer.json is written: %s", why.msg);
    else
        ok = os_path_join(path, sizeof path, dir, "tokenizer.json", e) &&
             os_write_file(path, tokenizer.data, tokenizer.size, e) &&
             os_path_join(path, sizeof path, dir, "tokenizer_config.json", e) &&
             os_write_file(path, config.data, config.size, e);
    strbuf_free(&tokenizer);
    strbuf_free(&config);
    struct weight_info w;
    ok = ok && checkpoint_weight(src, checkpoint_embedding_module(src), &w, e) &&
         gguf_write_carried(g, dir, checkpoint_config(src), w.rows, e);
    return ok;
}

static bool write_text(const char *dir, const char *name, const struct strbuf *text, struct err *e)
{
    char path[4096];
    return text->size == 0 ||
           (os_path_join(path, sizeof path, dir, name, e) && os_write_file(path, text->data, text->size, e));
}

static bool remove_config(const char *dir, struct err *e)
{
    return remove_earlier((void *)(uintptr_t)dir, "config.json", e);
}

/* config.json goes first and comes last: in between, nobody takes the folder for a whole model. */
static bool prepare_folder(const char *dir, const struct checkpoint *src, bool force, struct err *e)
{
    return hf_check_out(dir, src, force, e) && os_mkdirs(dir, e) && remove_config(dir, e) &&
           os_list(dir, remove_earlier, (void *)(uintptr_t)dir, e) && remove_templates(dir, e);
}

bool hf_plan_write(const struct hf_plan *p, const char *out_dir, const struct export_source *source, struct err *e)
{
    struct writing w = {.plan = p, .source = source, .e = e};
    struct folder f = {out_dir, p->src};
    const char *from = checkpoint_dir(p->src);
    uint64_t bytes = 0;
    for (size_t i = 0; i < p->n_shards; i++)
        bytes += p->shards[i].bytes;
    bool ok = export_check_carried(from, e) && out_fits("the output", out_dir, bytes, "-o", e) &&
              prepare_folder(out_dir, p->src, p->options.force, e) && write_shards(&w, out_dir) &&
              (checkpoint_gguf(p->src)
                   ? carry_metadata(out_dir, p->src, e)
                   : os_list(from, copy_carried, &f, e) && export_list_templates(from, copy_carried, &f, e)) &&
              write_text(out_dir, "model.safetensors.index.json", &p->index, e) &&
              write_text(out_dir, "quantize_config.json", &p->quantize_config, e) &&
              write_text(out_dir, "config.json", &p->config, e);
    if (ok && w.rounded)
        log_warn("%llu scales were rounded: %s stores them in fewer bits than the source",
                 (unsigned long long)w.rounded, export_format_name(p->options.format));
    return ok;
}
