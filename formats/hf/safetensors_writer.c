/* Writing safetensors: the whole header first, then the data as a stream. */
#include <stdlib.h>
#include <string.h>

#include "formats/hf/safetensors.h"
#include "host/base/num.h"
#include "host/base/str.h"

struct safetensors_writer {
    struct os_out out;
    uint64_t planned, next;    /* bytes of the data section; where the next of them goes */
    uint64_t written, file_at; /* how many were put; where in the section the file stands */
    struct hash_stream *sum;   /* of the data so far; NULL: no checksum is wanted */
    struct strbuf header;      /* as written, to be summed in the end */
};

static bool add_tensor(struct strbuf *b, const struct tensor_plan *p, uint64_t *at, struct err *e)
{
    uint64_t end = dtype_size(p->dtype);
    if (end == 0 || p->n_dims > TENSOR_MAX_DIMS)
        return err_set(e, ERR_BUG, "tensor \"%.200s\" cannot be written: dtype or number of dimensions", p->name);
    strbuf_json(b, p->name);
    strbuf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(p->dtype));
    for (uint32_t i = 0; i < p->n_dims; i++) {
        strbuf_printf(b, "%s%llu", i ? "," : "", (unsigned long long)p->shape[i]);
        if (!mul_u64(end, p->shape[i], &end))
            return err_set(e, ERR_BUG, "tensor \"%.200s\" is impossibly large", p->name);
    }
    if (!add_u64(end, *at, &end))
        return err_set(e, ERR_BUG, "tensor \"%.200s\" is impossibly large", p->name);
    strbuf_printf(b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)*at, (unsigned long long)end);
    *at = end;
    return true;
}

static bool build_header(struct strbuf *b, const struct tensor_plan *plan, size_t n, const char *const (*metadata)[2],
                         size_t n_metadata, uint64_t *planned, struct err *e)
{
    static const char length[8];
    strbuf_add(b, length, sizeof length); /* filled in below */
    strbuf_puts(b, "{");
    if (n_metadata) {
        strbuf_puts(b, "\"__metadata__\":{");
        for (size_t i = 0; i < n_metadata; i++) {
            strbuf_puts(b, i ? "," : "");
            strbuf_json(b, metadata[i][0]);
            strbuf_puts(b, ":");
            strbuf_json(b, metadata[i][1]);
        }
        strbuf_puts(b, "}");
    }
    struct strmap names = {0};
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        bool added;
        if (!strmap_add(&names, plan[i].name, strlen(plan[i].name), 0, &added))
            ok = err_nomem(e, "a safetensors header", n);
        else if (!added)
            ok = err_set(e, ERR_BUG, "tensor \"%.200s\" is planned twice", plan[i].name);
        strbuf_puts(b, i || n_metadata ? "," : "");
        ok = ok && add_tensor(b, &plan[i], planned, e);
    }
    strmap_free(&names);
    strbuf_puts(b, "}");
    while (b->size % 8 != 0 && !b->failed)
        strbuf_puts(b, " ");
    if (!ok)
        return false;
    if (b->failed)
        return err_nomem(e, "a safetensors header", b->size);
    store_u64le(b->data, b->size - 8);
    return true;
}

bool safetensors_writer_open(struct safetensors_writer **out, const char *path, const struct tensor_plan *plan,
                             size_t n, const char *const (*metadata)[2], size_t n_metadata, struct err *e)
{
    struct safetensors_writer *w = *out = calloc(1, sizeof *w);
    if (!w)
        return err_nomem(e, "a safetensors writer", sizeof *w);
    bool summed = n_metadata && strcmp(metadata[0][0], SAFETENSORS_CHECKSUM) == 0;
    bool ok = build_header(&w->header, plan, n, metadata, n_metadata, &w->planned, e) &&
              (!summed || (w->sum = hash_stream_create()) || err_nomem(e, "a checksum", 0)) &&
              os_out_open(&w->out, path, e) && os_out_put(&w->out, w->header.data, w->header.size, e);
    if (!ok)
        safetensors_writer_abort(out);
    return ok;
}

static bool seek(struct safetensors_writer *w, uint64_t at, struct err *e)
{
    return w->file_at == at || os_out_seek(&w->out, w->header.size + at, e);
}

static bool put(struct safetensors_writer *w, uint64_t at, const void *data, size_t size, struct err *e)
{
    if (!seek(w, at, e) || !os_out_put(&w->out, data, size, e))
        return false;
    w->file_at = at + size;
    w->written += size;
    return true;
}

bool safetensors_writer_put(struct safetensors_writer *w, const void *data, size_t size, struct err *e)
{
    if (size > w->planned - w->next)
        return err_set(e, ERR_BUG, "%s: %llu bytes come after the last planned tensor", w->out.path,
                       (unsigned long long)(size - (w->planned - w->next)));
    if (!put(w, w->next, data, size, e))
        return false;
    if (w->sum)
        hash_stream_add(w->sum, data, size);
    w->next += size;
    return true;
}

bool safetensors_writer_leave(struct safetensors_writer *w, uint64_t size, uint64_t *at, struct err *e)
{
    if (w->sum || size > w->planned - w->next)
        return err_set(e, ERR_BUG, "%s: %llu bytes cannot be left for later", w->out.path, (unsigned long long)size);
    *at = w->next;
    w->next += size;
    return true;
}

bool safetensors_writer_put_at(struct safetensors_writer *w, uint64_t at, const void *data, size_t size, struct err *e)
{
    if (at > w->next || size > w->next - at)
        return err_set(e, ERR_BUG, "%s: bytes %llu to %llu were not left for later", w->out.path,
                       (unsigned long long)at, (unsigned long long)(at + size));
    return put(w, at, data, size, e);
}

/* Fills in the checksum, whose place is where the header begins. */
static bool put_checksum(struct safetensors_writer *w, struct err *e)
{
    char hex[33];
    const char *at = strstr(w->header.data + 8, SAFETENSORS_NO_SUM_YET);
    hash_hex(hash_bytes(w->header.data, w->header.size, hash_stream_end(w->sum)), hex);
    if (!at)
        return err_set(e, ERR_BUG, "%s: the header has no place for a checksum", w->out.path);
    return os_out_seek(&w->out, (uint64_t)(at - w->header.data), e) && os_out_put(&w->out, hex, sizeof hex - 1, e);
}

bool safetensors_writer_close(struct safetensors_writer **w, struct err *e)
{
    struct safetensors_writer *x = *w;
    bool ok = true;
    if (x->written != x->planned)
        ok = err_set(e, ERR_BUG, "%s: %llu bytes of %llu planned ones were written", x->out.path,
                     (unsigned long long)x->written, (unsigned long long)x->planned);
    ok = ok && (!x->sum || put_checksum(x, e)) && os_out_close(&x->out, e);
    safetensors_writer_abort(w);
    return ok;
}

void safetensors_writer_abort(struct safetensors_writer **w)
{
    if (!*w)
        return;
    os_out_abort(&(*w)->out);
    hash_stream_destroy(&(*w)->sum);
    strbuf_free(&(*w)->header);
    free(*w);
    *w = NULL;
}
