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
#include "host/quant/run/refine_record.h"

/* Bytes written between two looks at the progress. */
#define PIECE_BYTES (4u << 20)

struct copying {
    const struct checkpoint *file;
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

static bool put_codes(struct copying *c, const struct matrix *item, const struct gguf_tensor *t, struct err *e)
{
    const struct model_config *cfg = checkpoint_config(c->file);
    const struct gguf_type *type = gguf_type_of(t->type);
    uint32_t heads = gguf_permuted_heads(cfg, item->module);
    uint64_t row_bytes = gguf_row_bytes(type, item->cols);
    struct qlinear q = {0};
    if (t->bytes != row_bytes * item->rows)
        return err_set(e, ERR_BUG, "%s has %" PRIu64 " bytes", t->name, t->bytes);
    uint8_t *rows = malloc((size_t)t->bytes);
    bool ok = rows ? c->source->linear(c->source->ctx, item, &q, e) : err_nomem(e, "a tensor's rows", t->bytes);
    for (uint32_t r = 0; ok && r < item->rows; r++) {
        uint32_t from = heads ? gguf_row_to_hf(r, cfg->head_dim) : r;
        gguf_replace_codes(type, t->data + r * row_bytes, q.codes + (size_t)from * q.cols, q.cols,
                           rows + r * row_bytes);
    }
    ok = ok && put(c, rows, t->bytes, e);
    qlinear_free(&q);
    free(rows);
    return ok;
}

/* The linear whose codes lie in that tensor; NULL: it stays. */
static const struct matrix *item_of(const struct plan *p, const struct model_config *cfg, const char *tensor)
{
    char hf[128];
    size_t suffix = strlen(".weight");
    if (!gguf_name_to_hf(cfg, tensor, 0, hf, sizeof hf) || strlen(hf) <= suffix)
        return NULL;
    hf[strlen(hf) - suffix] = '\0';
    for (size_t i = 0; i < p->n_items; i++)
        if (p->items[i].coded && strcmp(p->items[i].module, hf) == 0)
            return &p->items[i];
    return NULL;
}

static bool write_all(struct copying *c, const struct plan *p, struct err *e)
{
    const struct gguf *g = checkpoint_gguf(c->file);
    uint64_t at = gguf_data_offset(g, gguf_tensor_at(g, 0));
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        size_t n = strlen(t->name), k = strlen(".weight");
        bool weight = n > k && strcmp(t->name + n - k, ".weight") == 0;
        const struct matrix *item = weight ? item_of(p, checkpoint_config(c->file), t->name) : NULL;
        if (item && (!copy_to(c, at, e) || !put_codes(c, item, t, e)))
            return false;
        at += round_up(t->bytes, gguf_alignment(g));
    }
    return copy_to(c, c->map.size, e);
}

bool refine_write(const char *path, const struct checkpoint *file, const struct plan *p,
                  const struct export_source *source, struct err *e)
{
    struct copying c = {.file = file, .source = source, .written = hash_stream_create()};
    bool ok = (c.written || err_nomem(e, "a hash", 4096)) && os_map_file(&c.map, checkpoint_dir(file), e) &&
              os_out_open(&c.out, path, e) && write_all(&c, p, e) && os_out_close(&c.out, e);
    if (ok)
        refine_record(c.at, hash_stream_end(c.written), p->run);
    else
        os_out_abort(&c.out);
    hash_stream_destroy(&c.written);
    os_unmap(&c.map);
    return ok;
}
