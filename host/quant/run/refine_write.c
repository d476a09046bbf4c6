#include "host/quant/run/refine_write.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_names.h"
#include "formats/gguf/gguf_type.h"
#include "formats/read/checkpoint_in.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/str.h"
#include "host/quant/run/refine_record.h"

/* Bytes written between two looks at the progress. */
#define PIECE_BYTES (4u << 20)

struct copying {
    const struct checkpoint *file, *master;
    struct strmap items;
    const struct export_source *source;
    struct os_map map;
    struct os_out out;
    uint64_t at;                 /* bytes written */
    struct hash_stream *written; /* of these */
};

static bool put(struct copying *c, const void *data, uint64_t size, struct err *e)
{
    const uint8_t *from = data;
    for (uint64_t done = 0, n; done < size; done += n) {
        n = min_u64(PIECE_BYTES, size - done);
        if (!os_out_put(&c->out, from + done, (size_t)n, e))
            return false;
        hash_stream_add(c->written, from + done, (size_t)n);
        c->at += n;
        if (c->source->progress && !c->source->progress(c->source->ctx, c->at, c->map.size))
            return err_set(e, ERR_STOPPED, "stopped while writing");
    }
    return true;
}

/* The file's own bytes, up to offset `end`. */
static bool copy_to(struct copying *c, uint64_t end, struct err *e)
{
    if (end < c->at || end > c->map.size)
        return err_set(e, ERR_BUG, "tensors of %s are out of order", checkpoint_dir(c->file));
    return put(c, c->map.data + c->at, end - c->at, e);
}

/* Which rows of a matrix in two tensors one of them has; all 0: the matrix is one tensor. */
struct piece {
    enum gguf_mixed mixed;
    enum gguf_shared shared;
};

/* The Hugging Face row that is row r of n. */
static uint32_t row_of(const struct model_config *c, const char *module, struct piece part, uint32_t r, uint32_t n)
{
    if (part.mixed)
        return gguf_mixed_row_to_hf(c, part.mixed, r);
    if (part.shared)
        return part.shared == SHARED_UP ? n + r : r;
    return gguf_permuted_heads(c, module) ? gguf_row_to_hf(r, c->head_dim) : r;
}

/* n rows of a matrix, of which `rows` are the file's: all, or those of a part. */
static bool put_codes(struct copying *c, const struct matrix *item, const char *module, struct piece part, uint32_t n,
                      const uint8_t *rows, struct err *e)
{
    const struct model_config *cfg = checkpoint_config(c->file);
    uint64_t row_bytes = gguf_row_bytes(item->type, item->cols), bytes = row_bytes * n;
    struct qlinear q = {0};
    uint8_t *out = malloc((size_t)bytes);
    bool ok = out ? c->source->linear(c->source->ctx, item, &q, e) : err_nomem(e, "a tensor's rows", bytes);
    for (uint32_t r = 0; ok && r < n; r++) {
        uint32_t from = row_of(cfg, module, part, r, n);
        gguf_replace_codes(item->type, rows + r * row_bytes, q.codes + (size_t)from * q.cols, q.cols,
                           out + r * row_bytes);
    }
    ok = ok && put(c, out, bytes, e);
    qlinear_free(&q);
    free(out);
    return ok;
}

/* By module, those that are learned. */
static bool list_items(struct copying *c, const struct plan *p, struct err *e)
{
    bool added, ok = strmap_reserve(&c->items, p->n_items);
    for (size_t i = 0; ok && i < p->n_items; i++)
        ok = !p->items[i].coded ||
             strmap_add(&c->items, p->items[i].module, strlen(p->items[i].module), (uint32_t)i, &added);
    return ok || err_nomem(e, "the list of linears", p->n_items * sizeof *c->items.slots);
}

/* The linear that a tensor holds, or a part of it, of experts that one's; module: what it is called in the file. NULL: it stays. */
static const struct matrix *item_of(const struct copying *c, const struct plan *p, const char *tensor, uint32_t expert,
                                    char module[128], struct piece *part)
{
    const struct model_config *cfg = checkpoint_config(c->file);
    const char *own = config_prefix(cfg), *prefix = config_prefix(checkpoint_config(c->master));
    char name[160];
    uint32_t i;
    part->mixed = gguf_name_to_mixed(cfg, tensor, module, 128);
    part->shared = part->mixed ? SHARED_NONE : gguf_name_to_shared(cfg, tensor, module, 128);
    if (!part->mixed && !part->shared) {
        if (!str_ends(tensor, ".weight") || !gguf_name_to_hf(cfg, tensor, expert, module, 128))
            return NULL;
        module[strlen(module) - strlen(".weight")] = '\0';
    }
    if (strncmp(module, own, strlen(own)) != 0)
        return NULL;
    int n = snprintf(name, sizeof name, "%s%s", prefix, module + strlen(own));
    return n > 0 && strmap_find(&c->items, name, (size_t)n, &i) ? &p->items[i] : NULL;
}

/* A tensor, which of experts is one matrix for each, one behind the other. */
static bool write_tensor(struct copying *c, const struct plan *p, const struct gguf_tensor *t, uint64_t at,
                         struct err *e)
{
    const bool experts = gguf_name_of_experts(t->name);
    const uint32_t n = experts ? checkpoint_config(c->file)->experts.n : 1;
    const uint64_t bytes = t->bytes / n;
    char module[128];
    for (uint32_t i = 0; i < n; i++) {
        struct piece part;
        const struct matrix *item = item_of(c, p, t->name, i, module, &part);
        if (!item)
            continue;
        const uint32_t rows = part.mixed || part.shared ? (uint32_t)t->ne[1] : item->rows;
        if (bytes * n != t->bytes || bytes != rows * gguf_row_bytes(item->type, item->cols))
            return err_set(e, ERR_BUG, "%s has %" PRIu64 " bytes", t->name, t->bytes);
        if (!copy_to(c, at + i * bytes, e) || !put_codes(c, item, module, part, rows, t->data + i * bytes, e))
            return false;
    }
    return true;
}

static bool write_all(struct copying *c, const struct plan *p, struct err *e)
{
    const struct gguf *g = checkpoint_gguf(c->file);
    uint64_t at = gguf_data_offset(g, gguf_tensor_at(g, 0));
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (!write_tensor(c, p, t, at, e))
            return false;
        at += round_up(t->bytes, gguf_alignment(g));
    }
    return copy_to(c, c->map.size, e);
}

bool refine_write(const char *path, const struct checkpoint *file, const struct checkpoint *master,
                  const struct plan *p, const struct export_source *source, struct err *e)
{
    struct copying c = {.file = file, .master = master, .source = source, .written = hash_stream_create()};
    bool ok = (c.written || err_nomem(e, "a hash", 4096)) && list_items(&c, p, e) &&
              os_map_file(&c.map, checkpoint_dir(file), e) && os_out_open(&c.out, path, e) && write_all(&c, p, e) &&
              os_out_close(&c.out, e);
    if (ok)
        refine_record(c.at, hash_stream_end(c.written), p->run);
    else
        os_out_abort(&c.out);
    hash_stream_destroy(&c.written);
    strmap_free(&c.items);
    os_unmap(&c.map);
    return ok;
}
