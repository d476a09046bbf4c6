/* Reading GGUF. Everything in a file is checked before any of it is believed. */
#include "formats/gguf/gguf.h"

#include <stdlib.h>
#include <string.h>

#include "formats/foreign.h"
#include "formats/gguf/gguf_parts.h"
#include "host/base/num.h"
#include "host/base/os.h"

#define MIN_KV     14u    /* a name of one byte and a value of one byte */
#define MIN_INFO   25u    /* a name of one byte, no dimensions */
#define MAX_SPLITS 65535u /* split.count is a u16 */

#define SPLIT_SUFFIX (sizeof "-00001-of-00003.gguf" - 1)

struct part {
    struct os_map map; /* empty: the bytes are the caller's */
    char *path;
    const uint8_t *bytes;
    uint64_t size;
    uint32_t version, alignment;
    uint64_t data_at;
    struct gguf_keyset keys;
    char (*names)[GGUF_MAX_NAME + 1]; /* of its tensors */
};

struct gguf {
    struct part *parts;
    uint32_t n_parts;
    struct gguf_tensor *tensors;
    size_t n;
    struct strmap map;
};

/* ---- one part ---- */

static bool bad_file(struct err *e, const char *path, const char *says)
{
    err_set(e, ERR_USER, "%s %s", path, says);
    return err_hint(e, GGUF_BROKEN);
}

static bool check_count(const struct gguf_cursor *c, uint64_t n, unsigned smallest, const char *what, struct err *e)
{
    if (n <= GGUF_MAX_COUNT && n <= (c->size - c->at) / smallest)
        return true;
    err_set(e, ERR_USER, "%s announces %llu %s, more than a file of %llu bytes can hold", c->path,
            (unsigned long long)n, what, (unsigned long long)c->size);
    return err_hint(e, GGUF_BROKEN);
}

static bool read_head(struct part *p, struct gguf_cursor *c, uint64_t *n_tensors, uint64_t *n_kv, struct err *e)
{
    if (c->size < 4 || memcmp(c->bytes, "GGUF", 4) != 0) {
        if (foreign_file(c->path, c->bytes, (size_t)min_u64(c->size, 512), e))
            return false;
        err_set(e, ERR_USER, "%s is not a GGUF file: it does not begin with \"GGUF\"", c->path);
        return err_hint(e, "name a .gguf file; files of the older GGML formats must be converted again");
    }
    c->at = 4;
    if (!gguf_read_u32(c, &p->version, "its head", e))
        return false;
    if (p->version != 2 && p->version != 3) {
        bool swapped = p->version != 0 && (p->version & 0xFFFFu) == 0;
        if (swapped)
            err_set(e, ERR_USER, "%s is a big-endian GGUF; only little-endian ones are read", c->path);
        else
            err_set(e, ERR_USER, "%s is GGUF version %u; versions 2 and 3 are read", c->path, p->version);
        return err_hint(e, "convert the model again with a current llama.cpp on a common machine");
    }
    return gguf_read_u64(c, n_tensors, "its head", e) && gguf_read_u64(c, n_kv, "its head", e) &&
           check_count(c, *n_kv, MIN_KV, "keys", e) && check_count(c, *n_tensors, MIN_INFO, "tensors", e);
}

static bool bad_tensor(struct err *e, const char *path, const char *name, const char *says)
{
    err_set(e, ERR_USER, "%s: tensor \"%s\": %s", path, name, says);
    return err_hint(e, GGUF_BROKEN);
}

const char *gguf_shape_bytes(uint32_t n_dims, const uint64_t *ne, const struct gguf_type *t, uint64_t *bytes)
{
    uint64_t elements = 1;
    *bytes = 0;
    if (n_dims > 4)
        return "has more than 4 dimensions";
    for (uint32_t i = 0; i < n_dims; i++) {
        if (ne[i] == 0)
            return "has a dimension of 0";
        if (!mul_u64(elements, ne[i], &elements) || elements > INT64_MAX)
            return "the shape is impossibly large";
    }
    if (!t)
        return NULL;
    if ((n_dims ? ne[0] : 1) % t->block != 0)
        return "its rows are not a multiple of its type's block size";
    if (!mul_u64(elements / t->block, t->bytes, bytes) || *bytes > INT64_MAX)
        return "the shape is impossibly large";
    return NULL;
}

/* Name, shape, type, offset. data and bytes wait for place(). */
static bool read_info(struct gguf_cursor *c, struct gguf_tensor *t, char *name, uint64_t *offset, uint64_t number,
                      struct err *e)
{
    char what[128];
    snprintf(what, sizeof what, "tensor %llu", (unsigned long long)number);
    struct gguf_string s;
    if (!gguf_read_string(c, &s, what, e))
        return false;
    if (s.size == 0 || s.size > GGUF_MAX_NAME || !gguf_plain_name(s)) {
        err_set(e, ERR_USER, "%s: the name of %s is not 1 to 63 bytes of plain UTF-8 text", c->path, what);
        return err_hint(e, GGUF_BROKEN);
    }
    memcpy(name, s.text, s.size); /* zeroed before */
    t->name = name;
    snprintf(what, sizeof what, "tensor \"%s\"", name);
    if (!gguf_read_u32(c, &t->n_dims, what, e))
        return false;
    for (uint32_t i = 0; i < 4; i++)
        t->ne[i] = 1;
    for (uint32_t i = 0; i < t->n_dims && i < 4; i++)
        if (!gguf_read_u64(c, &t->ne[i], what, e))
            return false;
    const char *wrong = gguf_shape_bytes(t->n_dims, t->ne, NULL, &t->bytes);
    if (wrong)
        return bad_tensor(e, c->path, name, wrong);
    if (!gguf_read_u32(c, &t->type, what, e) || !gguf_read_u64(c, offset, what, e))
        return false;
    const struct gguf_type *type = gguf_type_of(t->type);
    if (type && t->ne[0] % type->block != 0) {
        err_set(e, ERR_USER,
                "%s: tensor \"%s\": its rows of %llu weights are not a multiple of %u, the block size of %s", c->path,
                name, (unsigned long long)t->ne[0], type->block, type->name);
        return err_hint(e, GGUF_BROKEN);
    }
    wrong = gguf_shape_bytes(t->n_dims, t->ne, type, &t->bytes);
    return wrong ? bad_tensor(e, c->path, name, wrong) : true;
}

static bool add_name(struct gguf *g, size_t i, const char *path, struct err *e)
{
    const struct gguf_tensor *t = &g->tensors[i];
    uint32_t before;
    if (strmap_find(&g->map, t->name, strlen(t->name), &before))
        return bad_tensor(e, path, t->name,
                          g->tensors[before].file == t->file ? "occurs twice in the file"
                                                             : "is also in another part of the model");
    bool added;
    strmap_add(&g->map, t->name, strlen(t->name), (uint32_t)i, &added); /* room was reserved */
    return true;
}

static bool misplaced(const struct gguf_tensor *t, bool first, uint64_t offset, uint64_t expected, const char *path,
                      struct err *e)
{
    if (offset < expected && !first)
        err_set(e, ERR_USER, "%s: tensors \"%s\" and \"%s\" overlap", path, t[-1].name, t->name);
    else
        err_set(e, ERR_USER, "%s: there is a hole of %llu bytes before tensor \"%s\"", path,
                (unsigned long long)(offset - expected), t->name);
    return err_hint(e, GGUF_BROKEN);
}

/* It takes `size` bytes from byte `at` of the data on. */
static bool cut_short(const struct part *p, const struct gguf_tensor *t, uint64_t at, uint64_t size, struct err *e)
{
    uint64_t end;
    if (!add_u64(p->data_at + at, size, &end)) /* hostile offsets */
        end = UINT64_MAX;
    err_set(e, ERR_USER, "%s: tensor \"%s\" ends at byte %llu with its padding, but the file holds only %llu", p->path,
            t->name, (unsigned long long)end, (unsigned long long)p->size);
    return err_hint(e, "the file is cut short: download the file again");
}

/* Each tensor must begin where the padded one before it ends. The last one may lack its padding, and what follows
 * it is nobody's: llama.cpp looks at neither. */
static bool place(const struct part *p, struct gguf_tensor *t, const uint64_t *offsets, size_t n, struct err *e)
{
    uint64_t at = 0, room = p->size - min_u64(p->size, p->data_at);
    for (size_t i = 0; i < n; i++) {
        if (offsets[i] != at)
            return misplaced(&t[i], i == 0, offsets[i], at, p->path, e);
        if (!gguf_type_of(t[i].type)) { /* its size is what the offsets leave; the next one tells if wrong */
            uint64_t end = i + 1 < n ? offsets[i + 1] : max_u64(room, at);
            t[i].bytes = end - min_u64(at, end);
            if (end % p->alignment != 0 && i + 1 < n)
                return bad_tensor(e, p->path, t[i + 1].name, "does not begin at a multiple of the alignment");
        }
        uint64_t padded = t[i].bytes;
        if (gguf_type_of(t[i].type))
            padded = round_up(padded, p->alignment); /* below 2^63 + 65536 */
        if ((i + 1 < n ? padded : t[i].bytes) > room - at)
            return cut_short(p, &t[i], at, padded, e);
        t[i].data = p->bytes + p->data_at + at;
        at += padded;
    }
    return true;
}

static bool grow_tables(struct gguf *g, struct part *p, size_t n, struct err *e)
{
    size_t all = g->n + n;
    p->names = calloc(n ? n : 1, sizeof *p->names);
    struct gguf_tensor *grown = realloc(g->tensors, (all ? all : 1) * sizeof *grown);
    if (grown)
        g->tensors = grown;
    if (!p->names || !grown || all > UINT32_MAX / 2 || !strmap_reserve(&g->map, all))
        return err_nomem(e, "the tensors of a GGUF", all * (sizeof *grown + sizeof *p->names));
    return true;
}

static bool read_infos(struct gguf *g, struct part *p, struct gguf_cursor *c, uint64_t *offsets, size_t n,
                       struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        struct gguf_tensor *t = &g->tensors[g->n + i];
        *t = (struct gguf_tensor){.file = (uint32_t)(p - g->parts)};
        if (!read_info(c, t, p->names[i], &offsets[i], i, e) || !add_name(g, g->n + i, p->path, e))
            return false;
    }
    p->data_at = round_up(c->at, p->alignment);
    if (n && p->data_at > p->size)
        return bad_file(e, p->path, "ends before the data of its tensors: it is cut short");
    if (!place(p, g->tensors + g->n, offsets, n, e))
        return false;
    g->n += n;
    return true;
}

/* p->path, bytes and size are set. */
static bool read_part(struct gguf *g, struct part *p, struct err *e)
{
    struct gguf_cursor c = {.bytes = p->bytes, .size = p->size, .path = p->path};
    uint64_t n, n_kv;
    if (!read_head(p, &c, &n, &n_kv, e) || !gguf_keyset_read(&p->keys, &c, n_kv, e) ||
        !gguf_keyset_alignment(&p->keys, p->path, &p->alignment, e) || !check_count(&c, n, MIN_INFO, "tensors", e) ||
        !grow_tables(g, p, (size_t)n, e))
        return false;
    uint64_t *offsets = calloc(n ? (size_t)n : 1, sizeof *offsets);
    if (!offsets)
        return err_nomem(e, "the tensors of a GGUF", n * sizeof *offsets);
    bool ok = read_infos(g, p, &c, offsets, (size_t)n, e);
    free(offsets);
    return ok;
}

/* ---- opening ---- */

static bool create(struct gguf **out, size_t n_parts, struct err *e)
{
    struct gguf *g = *out = calloc(1, sizeof *g);
    if (g)
        g->parts = calloc(n_parts, sizeof *g->parts);
    return g && g->parts ? true : err_nomem(e, "the parts of a GGUF", n_parts * sizeof *g->parts);
}

static struct part *add_part(struct gguf *g, const char *path, struct err *e)
{
    struct part *p = &g->parts[g->n_parts++];
    p->path = str_dup(path);
    if (!p->path)
        err_nomem(e, "a path", strlen(path));
    return p->path ? p : NULL;
}

static bool add_file(struct gguf *g, const char *path, struct err *e)
{
    struct part *p = add_part(g, path, e);
    if (!p || !os_map_model(&p->map, path, e))
        return false;
    p->bytes = p->map.data;
    p->size = p->map.size;
    return read_part(g, p, e);
}

/* Number (from 0) and count of the parts; count 1 for a file that is whole. */
static bool split_of(const struct part *p, uint64_t *no, uint64_t *count, struct err *e)
{
    *no = 0;
    *count = 1;
    if (gguf_keyset_u64(&p->keys, p->path, "split.count", count, e) == GGUF_BAD ||
        gguf_keyset_u64(&p->keys, p->path, "split.no", no, e) == GGUF_BAD)
        return false;
    if (*count <= 1)
        *count = 1;
    else if (*count > MAX_SPLITS || *no >= *count)
        return bad_file(e, p->path, "has an impossible split.no or split.count");
    return true;
}

static bool check_split(const struct gguf *g, uint64_t count, struct err *e)
{
    uint64_t tensors;
    const struct part *first = &g->parts[0];
    switch (gguf_keyset_u64(&first->keys, first->path, "split.tensors.count", &tensors, e)) {
    case GGUF_BAD:
        return false;
    case GGUF_ABSENT:
        return bad_file(e, first->path, "is split but has no split.tensors.count");
    case GGUF_OK:
        break;
    }
    if (tensors == g->n)
        return true;
    err_set(e, ERR_USER, "%s: split.tensors.count is %llu, but its %llu parts hold %llu tensors", first->path,
            (unsigned long long)tensors, (unsigned long long)count, (unsigned long long)g->n);
    return err_hint(e, "the parts do not belong together: download the model again");
}

/* The file at PATH is part `no` of `count`: opens all of them in order. */
static bool open_split(struct gguf **out, const char *path, uint64_t no, uint64_t count, struct err *e)
{
    char suffix[64], name[4096];
    size_t len = strlen(path);
    snprintf(suffix, sizeof suffix, "-%05u-of-%05u.gguf", (unsigned)no + 1, (unsigned)count);
    if (len < SPLIT_SUFFIX || len >= sizeof name || strcmp(path + len - SPLIT_SUFFIX, suffix) != 0) {
        err_set(e, ERR_USER, "%s is part %u of %u of a split model, but its name does not end in %s", path,
                (unsigned)no + 1, (unsigned)count, suffix);
        return err_hint(e, "give the parts their names back, all in one folder");
    }
    if (!create(out, (size_t)count, e))
        return false;
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%.*s-%05u-of-%05u.gguf", (int)(len - SPLIT_SUFFIX), path, i + 1, (unsigned)count);
        if (os_stat(name, NULL) == OS_ABSENT) {
            err_set(e, ERR_USER, "part %u of %u is missing: %s", i + 1, (unsigned)count, name);
            return err_hint(e, "download it into the folder of the others");
        }
        uint64_t its_no, its_count;
        if (!add_file(*out, name, e) || !split_of(&(*out)->parts[i], &its_no, &its_count, e))
            return false;
        if (its_no == i && its_count == count)
            continue;
        err_set(e, ERR_USER, "%s holds part %llu of %llu, not part %u of %u", name, (unsigned long long)its_no + 1,
                (unsigned long long)its_count, i + 1, (unsigned)count);
        return err_hint(e, "download the parts again, each under its own name");
    }
    return check_split(*out, count, e);
}

bool gguf_open(struct gguf **out, const char *path, struct err *e)
{
    uint64_t no = 0, count = 1;
    bool ok = create(out, 1, e) && add_file(*out, path, e) && split_of((*out)->parts, &no, &count, e);
    if (ok && count > 1) {
        gguf_close(out);
        ok = open_split(out, path, no, count, e);
    }
    if (!ok)
        gguf_close(out);
    return ok;
}

bool gguf_parse(struct gguf **out, const uint8_t *bytes, size_t size, const char *path, struct err *e)
{
    uint64_t no, count;
    bool ok = create(out, 1, e);
    struct part *p = ok ? add_part(*out, path, e) : NULL;
    ok = p != NULL;
    if (ok) {
        p->bytes = bytes;
        p->size = size;
        ok = read_part(*out, p, e) && split_of(p, &no, &count, e);
    }
    if (ok && count > 1) {
        ok = err_set(e, ERR_USER, "%s is one part of a split model", path);
        err_hint(e, "open it as a file, with the other parts beside it");
    }
    if (!ok)
        gguf_close(out);
    return ok;
}

void gguf_close(struct gguf **g)
{
    if (!*g)
        return;
    for (uint32_t i = 0; i < (*g)->n_parts; i++) {
        struct part *p = &(*g)->parts[i];
        gguf_keyset_free(&p->keys);
        free(p->names);
        free(p->path);
        os_unmap(&p->map);
    }
    free((*g)->parts);
    free((*g)->tensors);
    strmap_free(&(*g)->map);
    free(*g);
    *g = NULL;
}

/* ---- looking ---- */

static const struct part *part_of(const struct gguf *g, const struct gguf_tensor *t)
{
    return &g->parts[t ? t->file : 0];
}

const struct gguf_keyset *gguf_keyset_of(const struct gguf *g)
{
    return &g->parts[0].keys;
}

size_t gguf_kv_count(const struct gguf *g)
{
    return g->parts[0].keys.n;
}

const struct gguf_kv *gguf_kv_at(const struct gguf *g, size_t i)
{
    return i < g->parts[0].keys.n ? &g->parts[0].keys.items[i] : NULL;
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key)
{
    return gguf_keyset_find(&g->parts[0].keys, key);
}

size_t gguf_tensor_count(const struct gguf *g)
{
    return g->n;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i)
{
    return i < g->n ? &g->tensors[i] : NULL;
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name)
{
    uint32_t i;
    return strmap_find(&g->map, name, strlen(name), &i) ? &g->tensors[i] : NULL;
}

const char *gguf_path(const struct gguf *g, const struct gguf_tensor *t)
{
    return part_of(g, t)->path;
}

void gguf_drop(const struct gguf *g, const struct gguf_tensor *t)
{
    gguf_drop_part(g, t, 0, t->bytes);
}

void gguf_drop_part(const struct gguf *g, const struct gguf_tensor *t, uint64_t at, uint64_t bytes)
{
    const struct part *p = part_of(g, t);
    os_map_drop(&p->map, (uint64_t)(t->data - p->bytes) + at, bytes);
}

uint32_t gguf_version(const struct gguf *g)
{
    return g->parts[0].version;
}

uint32_t gguf_alignment(const struct gguf *g)
{
    return g->parts[0].alignment;
}

uint64_t gguf_data_offset(const struct gguf *g, const struct gguf_tensor *t)
{
    return part_of(g, t)->data_at;
}
