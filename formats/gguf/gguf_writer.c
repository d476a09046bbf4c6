/* Writing GGUF version 3: the whole header first, then the data as a stream. */
#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf_parts.h"
#include "host/base/num.h"
#include "host/base/os.h"

#define HEAD_BYTES 24u /* magic, version, two counts */

struct gguf_keys {
    struct strbuf bytes; /* as they will lie in the file */
    uint64_t n;
};

struct gguf_keys *gguf_keys_create(void)
{
    return calloc(1, sizeof(struct gguf_keys));
}

void gguf_keys_destroy(struct gguf_keys **k)
{
    if (*k)
        strbuf_free(&(*k)->bytes);
    free(*k);
    *k = NULL;
}

const struct strbuf *gguf_keys_bytes(const struct gguf_keys *k)
{
    return &k->bytes;
}

/* ---- keys; k may be NULL, as gguf_keys_create leaves it when out of memory ---- */

static void put_u32(struct strbuf *b, uint32_t v)
{
    char bytes[4];
    store_u32le(bytes, v);
    strbuf_add(b, bytes, sizeof bytes);
}

static void put_u64(struct strbuf *b, uint64_t v)
{
    char bytes[8];
    store_u64le(bytes, v);
    strbuf_add(b, bytes, sizeof bytes);
}

static void put_string(struct strbuf *b, const char *text, size_t size)
{
    put_u64(b, size);
    strbuf_add(b, text, size);
}

static void put_zeros(struct strbuf *b, uint64_t n)
{
    static const char zeros[64];
    for (; n; n -= min_u64(n, sizeof zeros))
        strbuf_add(b, zeros, (size_t)min_u64(n, sizeof zeros));
}

static void put_key(struct gguf_keys *k, const char *key, size_t size, enum gguf_value type)
{
    put_string(&k->bytes, key, size);
    put_u32(&k->bytes, type);
    k->n++;
}

void gguf_add_u32(struct gguf_keys *k, const char *key, uint32_t v)
{
    if (!k)
        return;
    put_key(k, key, strlen(key), GGUF_U32);
    put_u32(&k->bytes, v);
}

void gguf_add_u64(struct gguf_keys *k, const char *key, uint64_t v)
{
    if (!k)
        return;
    put_key(k, key, strlen(key), GGUF_U64);
    put_u64(&k->bytes, v);
}

void gguf_add_f32(struct gguf_keys *k, const char *key, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    if (!k)
        return;
    put_key(k, key, strlen(key), GGUF_F32);
    put_u32(&k->bytes, bits);
}

void gguf_add_bool(struct gguf_keys *k, const char *key, bool v)
{
    if (!k)
        return;
    put_key(k, key, strlen(key), GGUF_BOOL);
    strbuf_add(&k->bytes, v ? "\1" : "\0", 1);
}

void gguf_add_string(struct gguf_keys *k, const char *key, const char *text, size_t size)
{
    if (!k)
        return;
    put_key(k, key, strlen(key), GGUF_STRING);
    put_string(&k->bytes, text, size);
}

static void put_array(struct gguf_keys *k, enum gguf_value element, uint64_t n, const void *data, uint64_t bytes)
{
    put_u32(&k->bytes, element);
    put_u64(&k->bytes, n);
    strbuf_add(&k->bytes, data, (size_t)bytes);
}

void gguf_add_array(struct gguf_keys *k, const char *key, enum gguf_value element, const void *values, uint64_t n)
{
    uint64_t bytes;
    if (!k)
        return;
    put_key(k, key, strlen(key), GGUF_ARRAY);
    if (mul_u64(n, gguf_value_size(element), &bytes) && bytes <= SIZE_MAX)
        put_array(k, element, n, values, bytes);
    else
        k->bytes.failed = true;
}

void gguf_add_strings(struct gguf_keys *k, const char *key, const struct gguf_string *list, uint64_t n)
{
    if (!k)
        return;
    put_key(k, key, strlen(key), GGUF_ARRAY);
    put_array(k, GGUF_STRING, n, "", 0);
    for (uint64_t i = 0; i < n; i++)
        put_string(&k->bytes, list[i].text, list[i].size);
}

void gguf_add_kv(struct gguf_keys *k, const struct gguf_kv *kv)
{
    if (!k)
        return;
    put_key(k, kv->key.text, kv->key.size, kv->type);
    if (kv->type == GGUF_ARRAY)
        put_array(k, kv->element, kv->n, kv->data, kv->bytes);
    else
        strbuf_add(&k->bytes, (const char *)kv->data, (size_t)kv->bytes);
}

bool gguf_keys_remove(struct gguf_keys **k, const char *key, struct err *e)
{
    struct gguf_keys *from = *k, *to = gguf_keys_create();
    size_t n = strlen(key);
    if (!from || !to || from->bytes.failed) {
        gguf_keys_destroy(&to);
        return err_nomem(e, "the keys of a GGUF", n);
    }
    struct gguf_cursor c = {.bytes = (const uint8_t *)from->bytes.data, .size = from->bytes.size, .path = key};
    struct gguf_keyset set;
    bool ok = gguf_keyset_read(&set, &c, from->n, e);
    for (size_t i = 0; ok && i < set.n; i++)
        if (set.items[i].key.size != n || memcmp(set.items[i].key.text, key, n) != 0)
            gguf_add_kv(to, &set.items[i]);
    gguf_keyset_free(&set);
    gguf_keys_destroy(ok ? k : &to);
    if (ok)
        *k = to;
    return ok;
}

/* ---- layout ---- */

struct layout {
    uint32_t alignment;
    uint64_t data_at, end;
};

/* The reader's checks on our own keys; what it says is then a mistake of the caller. */
static bool check_keys(const struct gguf_keys *k, const char *path, uint32_t *alignment, struct err *e)
{
    if (!k || k->bytes.failed)
        return err_nomem(e, "the keys of a GGUF", k ? k->bytes.size : 0);
    struct gguf_cursor c = {.bytes = (const uint8_t *)k->bytes.data, .size = k->bytes.size, .path = path};
    struct gguf_keyset set;
    bool ok = gguf_keyset_read(&set, &c, k->n, e) && gguf_keyset_alignment(&set, path, alignment, e);
    gguf_keyset_free(&set);
    if (!ok && e && e->kind == ERR_USER) {
        e->kind = ERR_BUG;
        e->hint[0] = 0;
    }
    return ok;
}

static bool bad_plan(struct err *e, const char *path, const struct gguf_tensor_plan *p, const char *says)
{
    return err_set(e, ERR_BUG, "%s: tensor \"%.200s\": %s", path, p->name, says);
}

/* Checks a tensor of the plan, moves *end past it. */
static bool lay_tensor(const struct gguf_tensor_plan *p, const char *path, uint32_t alignment, uint64_t *end,
                       struct err *e)
{
    size_t len = strlen(p->name);
    uint64_t bytes;
    const struct gguf_type *t = gguf_type_of(p->type);
    if (len == 0 || len > GGUF_MAX_NAME || !gguf_plain_name((struct gguf_string){p->name, len}))
        return bad_plan(e, path, p, "the name is not 1 to 63 bytes of plain UTF-8 text");
    const char *wrong = t ? gguf_shape_bytes(p->n_dims, p->ne, t, &bytes) : "is of an unknown type";
    if (wrong)
        return bad_plan(e, path, p, wrong);
    if (!add_u64(*end, round_up(bytes, alignment), end) || *end > INT64_MAX)
        return bad_plan(e, path, p, "the file would be impossibly large");
    return true;
}

static bool lay_out(const struct gguf_keys *k, const char *path, const struct gguf_tensor_plan *plan, size_t n,
                    struct layout *l, struct err *e)
{
    if (!check_keys(k, path, &l->alignment, e))
        return false;
    struct strmap names = {0};
    bool ok = strmap_reserve(&names, n) || err_nomem(e, "the header of a GGUF", n);
    l->data_at = HEAD_BYTES + k->bytes.size;
    l->end = 0;
    for (size_t i = 0; i < n && ok; i++) {
        bool added;
        ok = lay_tensor(&plan[i], path, l->alignment, &l->end, e);
        if (ok && !strmap_add(&names, plan[i].name, strlen(plan[i].name), 0, &added))
            ok = err_nomem(e, "the header of a GGUF", n);
        else if (ok && !added)
            ok = bad_plan(e, path, &plan[i], "is planned twice");
        if (ok)
            l->data_at += 8 + strlen(plan[i].name) + 4 + 8 * (uint64_t)plan[i].n_dims + 4 + 8;
    }
    strmap_free(&names);
    l->data_at = round_up(l->data_at, l->alignment);
    l->end += l->data_at;
    return ok;
}

uint64_t gguf_file_bytes(const struct gguf_keys *k, const struct gguf_tensor_plan *plan, size_t n)
{
    struct layout l;
    return lay_out(k, "", plan, n, &l, NULL) ? l.end : 0;
}

/* ---- the file ---- */

struct gguf_writer {
    struct os_out out;
    uint32_t alignment;
    size_t n, at;    /* tensors; the one being written */
    uint64_t left;   /* bytes of it that are to come */
    uint64_t *bytes; /* of each, without padding */
};

static uint64_t plan_bytes(const struct gguf_tensor_plan *p)
{
    uint64_t bytes;
    gguf_shape_bytes(p->n_dims, p->ne, gguf_type_of(p->type), &bytes); /* lay_out found it good */
    return bytes;
}

static bool write_header(struct gguf_writer *w, const struct gguf_keys *k, const struct gguf_tensor_plan *plan,
                         const struct layout *l, struct err *e)
{
    struct strbuf b = {0};
    strbuf_add(&b, "GGUF\3\0\0\0", 8);
    put_u64(&b, w->n);
    put_u64(&b, k->n);
    if (k->n)
        strbuf_add(&b, k->bytes.data, k->bytes.size);
    uint64_t offset = 0;
    for (size_t i = 0; i < w->n; i++) {
        put_string(&b, plan[i].name, strlen(plan[i].name));
        put_u32(&b, plan[i].n_dims);
        for (uint32_t d = 0; d < plan[i].n_dims; d++)
            put_u64(&b, plan[i].ne[d]);
        put_u32(&b, plan[i].type);
        put_u64(&b, offset);
        w->bytes[i] = plan_bytes(&plan[i]);
        offset += round_up(w->bytes[i], l->alignment);
    }
    put_zeros(&b, b.failed ? 0 : l->data_at - b.size);
    bool ok = b.failed ? err_nomem(e, "the header of a GGUF", b.size) : os_out_put(&w->out, b.data, b.size, e);
    strbuf_free(&b);
    return ok;
}

bool gguf_writer_open(struct gguf_writer **out, const char *path, const struct gguf_keys *keys,
                      const struct gguf_tensor_plan *plan, size_t n, struct err *e)
{
    struct layout l;
    *out = NULL;
    if (!lay_out(keys, path, plan, n, &l, e))
        return false;
    struct gguf_writer *w = *out = calloc(1, sizeof *w);
    if (w)
        w->bytes = calloc(n ? n : 1, sizeof *w->bytes);
    bool ok = w && w->bytes ? true : err_nomem(e, "a GGUF writer", n * sizeof *w->bytes);
    if (ok) {
        w->n = n;
        w->alignment = l.alignment;
        ok = os_out_open(&w->out, path, e) && write_header(w, keys, plan, &l, e);
        w->left = n ? w->bytes[0] : 0;
    }
    if (!ok)
        gguf_writer_abort(out);
    return ok;
}

static bool next_tensor(struct gguf_writer *w, struct err *e)
{
    static const char zeros[4096];
    uint64_t pad = round_up(w->bytes[w->at], w->alignment) - w->bytes[w->at];
    for (; pad; pad -= min_u64(pad, sizeof zeros))
        if (!os_out_put(&w->out, zeros, (size_t)min_u64(pad, sizeof zeros), e))
            return false;
    w->at++;
    w->left = w->at < w->n ? w->bytes[w->at] : 0;
    return true;
}

bool gguf_writer_put(struct gguf_writer *w, const void *data, size_t size, struct err *e)
{
    const char *from = data;
    while (size) {
        size_t part = (size_t)min_u64(size, w->left);
        if (part == 0) /* no tensor is empty */
            return err_set(e, ERR_BUG, "%s: %llu bytes come after the last planned tensor", w->out.path,
                           (unsigned long long)size);
        if (!os_out_put(&w->out, from, part, e))
            return false;
        from += part;
        size -= part;
        w->left -= part;
        if (w->left == 0 && !next_tensor(w, e))
            return false;
    }
    return true;
}

bool gguf_writer_close(struct gguf_writer **w, struct err *e)
{
    struct gguf_writer *x = *w;
    bool ok = true;
    if (x->at != x->n)
        ok = err_set(e, ERR_BUG, "%s: the data of tensor %llu of %llu is missing", x->out.path,
                     (unsigned long long)x->at + 1, (unsigned long long)x->n);
    ok = ok && os_out_close(&x->out, e);
    gguf_writer_abort(w);
    return ok;
}

void gguf_writer_abort(struct gguf_writer **w)
{
    if (!*w)
        return;
    os_out_abort(&(*w)->out);
    free((*w)->bytes);
    free(*w);
    *w = NULL;
}
