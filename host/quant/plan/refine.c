#include "host/quant/plan/refine.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arch/family.h"
#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_names.h"
#include "formats/gguf/gguf_type.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/quant/run/refine_record.h"

/* Bytes written between two looks at the progress. */
#define PIECE_BYTES (4u << 20)

/* ---- before the run ---- */

static bool differs(const struct checkpoint *file, const struct checkpoint *master, const char *what, uint64_t a,
                    uint64_t b, struct err *e)
{
    err_set(e, ERR_USER, "--refine %s: it has %" PRIu64 " %s, %s has %" PRIu64, checkpoint_dir(file), a, what,
            checkpoint_dir(master), b);
    return err_hint(e, "give the model that the GGUF was made from");
}

bool refine_check(const struct checkpoint *file, const struct checkpoint *master, struct err *e)
{
    const struct model_config *a = checkpoint_config(file), *b = checkpoint_config(master);
    const struct gguf *g = checkpoint_gguf(file);
    uint64_t parts = 1;
    if (!g) {
        err_set(e, ERR_USER, "--refine %s: that is not a GGUF file", checkpoint_dir(file));
        return err_hint(e, "gsq quantize MODEL -o OUT quantizes a folder");
    }
    if (gguf_get_u64(g, "split.count", &parts, e) == GGUF_BAD)
        return false;
    if (parts > 1) {
        err_set(e, ERR_USER, "--refine %s: it is split into %" PRIu64 " files", checkpoint_dir(file), parts);
        return err_hint(e, "merge them first: llama-gguf-split --merge");
    }
    const struct family *fa = family_of(a), *fb = family_of(b);
    const char *arch_a = fa ? fa->gguf : NULL, *arch_b = fb ? fb->gguf : NULL;
    if (!arch_a || !arch_b || strcmp(arch_a, arch_b) != 0) {
        err_set(e, ERR_USER, "--refine %s: its architecture is %s, that of %s is %s", checkpoint_dir(file),
                arch_a ? arch_a : "unknown", checkpoint_dir(master), arch_b ? arch_b : "unknown");
        return err_hint(e, "give the model that the GGUF was made from");
    }
    const struct {
        const char *what;
        uint32_t a, b;
    } facts[] = {
        {"blocks", a->num_layers, b->num_layers},
        {"hidden dimensions", a->hidden_size, b->hidden_size},
        {"feed-forward dimensions", a->intermediate_size, b->intermediate_size},
        {"heads", a->num_heads, b->num_heads},
        {"key heads", a->num_kv_heads, b->num_kv_heads},
        {"dimensions per head", a->head_dim, b->head_dim},
        {"tokens in its vocabulary", a->vocab_size, b->vocab_size},
    };
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        if (facts[i].a != facts[i].b)
            return differs(file, master, facts[i].what, facts[i].a, facts[i].b, e);
    return true;
}

bool refine_types(struct plan *p, struct rules *rules, struct err *e)
{
    const struct checkpoint *file = p->from.refined->ck;
    for (size_t i = 0; i < p->n_items; i++) {
        struct matrix *item = &p->items[i];
        struct weight_info info;
        if (!checkpoint_weight(file, item->module, &info, e))
            return false;
        item->coded = info.quantized && info.spec.type->learned && !rules_find(rules, item->module);
        item->spec = info.spec;
    }
    return true;
}

bool refine_size(struct plan *p)
{
    const struct checkpoint *file = p->from.refined->ck;
    const struct gguf *g = checkpoint_gguf(file);
    uint64_t bytes = 0, all = 0, weights = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        struct weight_info info;
        if (p->items[i].coded && checkpoint_weight(file, p->items[i].module, &info, NULL))
            bytes += info.bytes;
    }
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (t->n_dims < 2)
            continue;
        all += t->bytes;
        weights += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    }
    p->bpw = p->weights_quantized ? 8.0 * (double)bytes / (double)p->weights_quantized : 16;
    p->file_bpw = weights ? 8.0 * (double)all / (double)weights : 0;
    os_stat(checkpoint_dir(file), &p->out_bytes);
    return true;
}

/* ---- the file again ---- */

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
static const struct matrix *item_of(const struct plan *p, const char *tensor)
{
    char hf[128];
    size_t suffix = strlen(".weight");
    if (!gguf_name_to_hf(tensor, hf, sizeof hf) || strlen(hf) <= suffix)
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
        const struct matrix *item = weight ? item_of(p, t->name) : NULL;
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
