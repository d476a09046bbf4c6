/* Reading safetensors. Everything in a header is checked before any of it is believed. */
#include "formats/hf/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "formats/foreign.h"
#include "formats/json.h"
#include "formats/side_file.h"
#include "host/base/grow.h"
#include "host/base/num.h"
#include "host/base/str.h"

/* Limits of the format's reference reader: bytes of a header; bytes of an index are ours. */
#define HEADER_MAX 100000000u
#define INDEX_MAX  100000000u
/* Shards of a folder without an index, and how many missing ones a message names. */
enum { MAX_LOOSE = 1000, NAMED_MISSING = 3 };

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [DTYPE_F32] = {"F32", 4},         [DTYPE_F16] = {"F16", 2},         [DTYPE_BF16] = {"BF16", 2},
    [DTYPE_F64] = {"F64", 8},         [DTYPE_I8] = {"I8", 1},           [DTYPE_U8] = {"U8", 1},
    [DTYPE_I16] = {"I16", 2},         [DTYPE_U16] = {"U16", 2},         [DTYPE_I32] = {"I32", 4},
    [DTYPE_U32] = {"U32", 4},         [DTYPE_I64] = {"I64", 8},         [DTYPE_U64] = {"U64", 8},
    [DTYPE_BOOL] = {"BOOL", 1},       [DTYPE_F8_E4M3] = {"F8_E4M3", 1}, [DTYPE_F8_E5M2] = {"F8_E5M2", 1},
    [DTYPE_F8_E8M0] = {"F8_E8M0", 1}, [DTYPE_C64] = {"C64", 8},         [DTYPE_OTHER] = {"other", 0},
};

const char *dtype_name(enum dtype t)
{
    return dtypes[t].name;
}

size_t dtype_size(enum dtype t)
{
    return dtypes[t].size;
}

static enum dtype dtype_parse(const char *name)
{
    for (int t = 0; t < DTYPE_OTHER; t++)
        if (strcmp(dtypes[t].name, name) == 0)
            return (enum dtype)t;
    return DTYPE_OTHER;
}

/* ---- the table ---- */

struct tensor_table {
    struct tensor *items; /* names are owned */
    size_t n, cap;
    struct strmap map;
    cJSON *metadata; /* __metadata__ of file 0 */
};

bool tensor_table_create(struct tensor_table **out, struct err *e)
{
    *out = calloc(1, sizeof **out);
    return *out ? true : err_nomem(e, "the tensor table", sizeof **out);
}

void tensor_table_destroy(struct tensor_table **t)
{
    if (!*t)
        return;
    for (size_t i = 0; i < (*t)->n; i++)
        free((char *)(*t)->items[i].name);
    free((*t)->items);
    strmap_free(&(*t)->map);
    cJSON_Delete((*t)->metadata);
    free(*t);
    *t = NULL;
}

size_t tensor_table_count(const struct tensor_table *t)
{
    return t->n;
}

const struct tensor *tensor_table_at(const struct tensor_table *t, size_t i)
{
    return i < t->n ? &t->items[i] : NULL;
}

const struct tensor *tensor_table_find(const struct tensor_table *t, const char *name)
{
    uint32_t i;
    return strmap_find(&t->map, name, strlen(name), &i) ? &t->items[i] : NULL;
}

/* ---- one header ---- */

/* A tensor while its place among the others is not yet checked. name still belongs to the JSON tree. */
struct entry {
    struct tensor t;
    uint64_t begin, end; /* relative to the end of the header */
};

#define BROKEN_FILE "download the file again; if that does not help, the program that wrote it is at fault"

static bool bad_tensor(struct err *e, const char *path, const char *name, const char *what)
{
    err_set(e, ERR_USER, "%s: tensor \"%.200s\": %s", path, name, what);
    return err_hint(e, BROKEN_FILE);
}

static bool bad_header(struct err *e, const char *path, const char *what)
{
    err_set(e, ERR_USER, "%s: the header %s", path, what);
    return err_hint(e, BROKEN_FILE);
}

static bool parse_shape(struct entry *x, const cJSON *shape, const char *path, struct err *e)
{
    const char *name = x->t.name;
    if (!cJSON_IsArray(shape))
        return bad_tensor(e, path, name, "\"shape\" is missing or not an array");
    uint64_t elements = 1;
    const cJSON *item;
    cJSON_ArrayForEach(item, shape)
    {
        if (x->t.n_dims == TENSOR_MAX_DIMS)
            return bad_tensor(e, path, name, "has more than 8 dimensions");
        uint64_t d;
        if (!json_u64(item, &d))
            return bad_tensor(e, path, name, "a dimension is not a whole number from 0 to 2^53");
        if (!mul_u64(elements, d, &elements))
            return bad_tensor(e, path, name, "the shape is impossibly large");
        x->t.shape[x->t.n_dims++] = d;
    }
    uint64_t bytes;
    if (x->t.dtype == DTYPE_OTHER) /* size unknown (F4 is smaller than a byte): refused where it is needed */
        return true;
    if (!mul_u64(elements, dtype_size(x->t.dtype), &bytes))
        return bad_tensor(e, path, name, "the shape is impossibly large");
    if (bytes != x->t.bytes) {
        err_set(e, ERR_USER, "%s: tensor \"%.200s\": shape and dtype ask for %llu bytes, data_offsets give %llu", path,
                name, (unsigned long long)bytes, (unsigned long long)x->t.bytes);
        return err_hint(e, BROKEN_FILE);
    }
    return true;
}

static bool parse_offsets(struct entry *x, const cJSON *offsets, uint64_t data_size, const char *path, struct err *e)
{
    const char *name = x->t.name;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 || !json_u64(offsets->child, &x->begin) ||
        !json_u64(offsets->child->next, &x->end))
        return bad_tensor(e, path, name, "\"data_offsets\" are not two whole numbers from 0 to 2^53");
    if (x->begin > x->end)
        return bad_tensor(e, path, name, "ends before it begins");
    if (x->end > data_size) {
        err_set(e, ERR_USER, "%s: tensor \"%.200s\" ends at byte %llu of the data, but the file holds only %llu", path,
                name, (unsigned long long)x->end, (unsigned long long)data_size);
        return err_hint(e, "the file is cut short: download the file again");
    }
    x->t.bytes = x->end - x->begin;
    return true;
}

static bool parse_entry(struct entry *x, const cJSON *item, uint64_t data_size, const char *path, struct err *e)
{
    const char *name = item->string;
    x->t.name = name;
    if (!name[0])
        return bad_tensor(e, path, name, "the name is empty");
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20)
            return bad_header(e, path, "holds a tensor name with control characters");
    if (!cJSON_IsObject(item))
        return bad_tensor(e, path, name, "is not described by an object");
    const char *twice;
    if (json_duplicate(item, &twice))
        return bad_tensor(e, path, name, "a key of its description occurs twice");
    const cJSON *dtype = json_get(item, "dtype");
    if (!cJSON_IsString(dtype))
        return bad_tensor(e, path, name, "\"dtype\" is missing or not a string");
    x->t.dtype = dtype_parse(dtype->valuestring);
    snprintf(x->t.stored_dtype, sizeof x->t.stored_dtype, "%.15s", dtype->valuestring);
    return parse_offsets(x, json_get(item, "data_offsets"), data_size, path, e) &&
           parse_shape(x, json_get(item, "shape"), path, e);
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->t.name, y->t.name);
}

/* x is sorted: the tensors must tile [0, data_size) without overlap or hole. */
static bool check_tiling(const struct entry *x, size_t n, uint64_t data_size, const char *path, struct err *e)
{
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (x[i].begin < at) {
            err_set(e, ERR_USER, "%s: tensors \"%.200s\" and \"%.200s\" overlap", path, x[i - 1].t.name, x[i].t.name);
            return err_hint(e, BROKEN_FILE);
        }
        if (x[i].begin > at) {
            err_set(e, ERR_USER, "%s: there is a hole of %llu bytes before tensor \"%.200s\"", path,
                    (unsigned long long)(x[i].begin - at), x[i].t.name);
            return err_hint(e, BROKEN_FILE);
        }
        at = x[i].end;
    }
    if (at != data_size) {
        err_set(e, ERR_USER, "%s: %llu bytes at the end of the file belong to no tensor", path,
                (unsigned long long)(data_size - at));
        return err_hint(e, BROKEN_FILE);
    }
    return true;
}

static bool append(struct tensor_table *t, const struct entry *x, size_t n, const uint8_t *data, uint32_t file,
                   const char *path, struct err *e)
{
    if (t->cap - t->n < n) {
        size_t cap = t->cap + n;
        struct tensor *grown = realloc(t->items, cap * sizeof *grown);
        if (!grown)
            return err_nomem(e, "the tensor table", cap * sizeof *grown);
        t->items = grown;
        t->cap = cap;
    }
    if (!strmap_reserve(&t->map, t->n + n))
        return err_nomem(e, "the tensor table", (t->n + n) * sizeof(struct strmap_slot));
    for (size_t i = 0; i < n; i++) {
        const char *name = str_dup(x[i].t.name);
        if (!name)
            return err_nomem(e, "a tensor's name", strlen(x[i].t.name) + 1);
        uint32_t before;
        if (strmap_find(&t->map, name, strlen(name), &before)) {
            free((char *)name);
            return bad_tensor(e, path, x[i].t.name,
                              t->items[before].file == file ? "occurs twice in the file"
                                                            : "is also in another file of the model");
        }
        struct tensor *to = &t->items[t->n];
        *to = x[i].t;
        to->name = name;
        to->file = file;
        to->data = data ? data + x[i].begin : NULL;
        bool added;
        strmap_add(&t->map, name, strlen(name), (uint32_t)t->n, &added); /* room was reserved */
        t->n++;
    }
    return true;
}

static bool check_metadata(const cJSON *metadata, const char *path, struct err *e)
{
    const char *twice;
    if (!cJSON_IsObject(metadata))
        return bad_header(e, path, "has a __metadata__ that is not an object");
    for (const cJSON *item = metadata->child; item; item = item->next)
        if (!cJSON_IsString(item))
            return bad_header(e, path, "has a __metadata__ value that is not a string");
    if (json_duplicate(metadata, &twice))
        return bad_header(e, path, "has the same __metadata__ key twice");
    return true;
}

static bool parse_root(struct tensor_table *t, cJSON *root, const uint8_t *data, uint64_t data_size, uint32_t file,
                       const char *path, struct err *e)
{
    size_t n = 0, n_metadata = 0;
    for (const cJSON *item = root->child; item; item = item->next) {
        if (strcmp(item->string, "__metadata__") != 0) {
            n++;
            continue;
        }
        if (n_metadata++)
            return bad_header(e, path, "has __metadata__ twice");
        if (!check_metadata(item, path, e))
            return false;
    }
    struct entry *x = calloc(n ? n : 1, sizeof *x);
    if (!x)
        return err_nomem(e, "the tensor table", n * sizeof *x);
    bool ok = true;
    size_t i = 0;
    for (const cJSON *item = root->child; item && ok; item = item->next)
        if (strcmp(item->string, "__metadata__") != 0)
            ok = parse_entry(&x[i++], item, data_size, path, e);
    if (ok) {
        qsort(x, n, sizeof *x, compare_entries);
        ok = append(t, x, n, data, file, path, e) && check_tiling(x, n, data_size, path, e);
    }
    free(x);
    if (ok && file == 0 && n_metadata && !t->metadata)
        t->metadata = cJSON_DetachItemFromObjectCaseSensitive(root, "__metadata__");
    return ok;
}

bool safetensors_parse_header(struct tensor_table *t, const char *header, size_t size, const uint8_t *data,
                              uint64_t data_size, uint32_t file, const char *path, struct err *e)
{
    if (size > HEADER_MAX)
        return bad_header(e, path, "is longer than 100 MB");
    if (size == 0 || header[0] != '{')
        return bad_header(e, path, "does not begin with '{'");
    /* cJSON ends a string at an escaped NUL; two names could then look like one. */
    for (const char *p = header; size - (size_t)(p - header) >= 6; p++) {
        p = memchr(p, '\\', size - (size_t)(p - header) - 5);
        if (!p)
            break;
        if (memcmp(p, "\\u0000", 6) == 0)
            return bad_header(e, path, "holds a NUL character");
    }
    cJSON *root = json_parse(header, size, path, e);
    if (!root)
        return err_context(e, "safetensors header");
    bool ok = parse_root(t, root, data, data_size, file, path, e);
    cJSON_Delete(root);
    return ok;
}

/* ---- the index of a sharded model ---- */

void safetensors_index_free(struct safetensors_index *x)
{
    for (size_t i = 0; i < x->n_files; i++)
        free(x->files[i]);
    for (size_t i = 0; i < x->n_entries; i++)
        free(x->entries[i].name);
    free(x->files);
    free(x->entries);
    *x = (struct safetensors_index){0};
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool bad_index(struct err *e, const char *path, const char *name, const char *what)
{
    err_set(e, ERR_USER, "%s: \"%.200s\" %s", path, name, what);
    return err_hint(e, "download the file again");
}

/* A shard is a plain file name: an index from the network must not reach outside its folder. */
static bool check_shard_name(const char *file, const char *path, struct err *e)
{
    if (!file[0] || strchr(file, '/') || strchr(file, '\\') || strchr(file, ':') || strstr(file, ".."))
        return bad_index(e, path, file, "is not a file name without a folder (shards lie in the model's own folder)");
    for (const char *c = file; *c; c++)
        if ((unsigned char)*c < 0x20)
            return bad_index(e, path, "weight_map", "holds a file name with control characters");
    return true;
}

static bool index_fill(struct safetensors_index *x, const cJSON *map, const char *path, struct err *e)
{
    size_t n = (size_t)cJSON_GetArraySize(map);
    if (n == 0)
        return bad_index(e, path, "weight_map", "is empty");
    x->files = calloc(n, sizeof *x->files);
    x->entries = calloc(n, sizeof *x->entries);
    if (!x->files || !x->entries)
        return err_nomem(e, "the index of the shards", n * sizeof *x->entries);
    const char *twice;
    if (json_duplicate(map, &twice))
        return bad_index(e, path, twice, "occurs twice in the weight_map");
    struct strmap seen = {0};
    bool ok = true;
    for (const cJSON *item = map->child; item && ok; item = item->next) {
        if (!cJSON_IsString(item)) {
            ok = bad_index(e, path, item->string, "is not mapped to a file name");
            break;
        }
        ok = check_shard_name(item->valuestring, path, e);
        bool added = false;
        if (ok && !strmap_add(&seen, item->valuestring, strlen(item->valuestring), 0, &added))
            ok = err_nomem(e, "the index of the shards", n);
        if (ok && added && !(x->files[x->n_files++] = str_dup(item->valuestring)))
            ok = err_nomem(e, "the index of the shards", n);
        if (ok && !(x->entries[x->n_entries++].name = str_dup(item->string)))
            ok = err_nomem(e, "the index of the shards", n);
    }
    strmap_free(&seen);
    if (!ok)
        return false;
    qsort(x->files, x->n_files, sizeof *x->files, compare_names);
    size_t i = 0;
    for (const cJSON *item = map->child; item; item = item->next) {
        char *const *at = bsearch(&item->valuestring, x->files, x->n_files, sizeof *x->files, compare_names);
        x->entries[i++].file = (uint32_t)(at - x->files);
    }
    return true;
}

bool safetensors_index_parse(struct safetensors_index *out, const char *text, size_t size, const char *path,
                             struct err *e)
{
    *out = (struct safetensors_index){0};
    cJSON *root = json_parse(text, size, path, e);
    if (!root)
        return false;
    const cJSON *map = json_get(root, "weight_map");
    bool ok = false;
    if (!cJSON_IsObject(map))
        bad_index(e, path, "weight_map", "is missing or not an object");
    else
        ok = index_fill(out, map, path, e);
    cJSON_Delete(root);
    if (!ok)
        safetensors_index_free(out);
    return ok;
}

/* ---- files and folders ---- */

struct safetensors {
    struct tensor_table *table;
    struct shard {
        struct os_map map;
        char *path;
    } * shards;
    uint32_t n_shards, cap;
    struct strmap view_of; /* by name, into views */
    const struct tensor **views;
    size_t n_views, cap_views;
};

static bool create(struct safetensors **out, size_t n_shards, struct err *e)
{
    struct safetensors *s = calloc(1, sizeof *s);
    if (s)
        s->shards = calloc(n_shards, sizeof *s->shards);
    *out = s;
    if (!s || !s->shards)
        return err_nomem(e, "the list of shards", n_shards * sizeof *s->shards);
    s->cap = (uint32_t)n_shards;
    return tensor_table_create(&s->table, e);
}

static bool add_file(struct safetensors *s, const char *path, struct err *e)
{
    struct shard *shard = &s->shards[s->n_shards];
    if (!os_map_model(&shard->map, path, e))
        return false;
    s->n_shards++;
    shard->path = str_dup(path);
    if (!shard->path)
        return err_nomem(e, "a path", strlen(path));
    uint64_t file_size = shard->map.size;
    if (foreign_file(path, shard->map.data, (size_t)min_u64(file_size, 512), e))
        return false;
    if (file_size < 8) {
        err_set(e, ERR_USER, "%s has %llu bytes: too short for a safetensors file", path,
                (unsigned long long)file_size);
        return err_hint(e, "download the file again");
    }
    uint64_t header = load_u64le(shard->map.data);
    if (header > HEADER_MAX || header > file_size - 8) {
        err_set(e, ERR_USER, "%s: the first 8 bytes announce a header of %llu bytes (%s)", path,
                (unsigned long long)header,
                header > HEADER_MAX ? "at most 100 MB are allowed" : "more than the file holds");
        return err_hint(e, "it is not a safetensors file, or it is cut short: download the file again");
    }
    const uint8_t *data = shard->map.data + 8 + header;
    return safetensors_parse_header(s->table, (const char *)shard->map.data + 8, (size_t)header, data,
                                    file_size - 8 - header, s->n_shards - 1, path, e);
}

bool safetensors_open_file(struct safetensors **out, const char *path, struct err *e)
{
    if (create(out, 1, e) && add_file(*out, path, e))
        return true;
    safetensors_close(out);
    return false;
}

/* Every tensor of the index must be in the file that the index names. */
static bool check_index(const struct safetensors *s, const struct safetensors_index *x, const char *index_path,
                        struct err *e)
{
    for (size_t i = 0; i < x->n_entries; i++) {
        const char *shard = x->files[x->entries[i].file];
        const struct tensor *t = safetensors_find(s, x->entries[i].name);
        if (t && t->file == x->entries[i].file)
            continue;
        err_set(e, ERR_USER, "%s: tensor \"%.200s\" should be in %.200s, but %s%.200s", index_path, x->entries[i].name,
                shard, t ? "it is in " : "it is in none of the files", t ? x->files[t->file] : "");
        return err_hint(e, "the index and the files do not belong together: download the model again");
    }
    return true;
}

/* Every file that the index names; the missing ones are named together. */
static bool check_present(const struct safetensors_index *x, const char *dir, const char *index_path, struct err *e)
{
    char path[4096], list[512] = "", first[256] = "";
    size_t missing = 0, n = 0;
    for (size_t i = 0; i < x->n_files; i++) {
        if (!os_path_join(path, sizeof path, dir, x->files[i], e))
            return false;
        if (os_stat(path, NULL) != OS_ABSENT)
            continue;
        if (!missing++)
            snprintf(first, sizeof first, "%.255s", path);
        if (missing > 1 && missing <= NAMED_MISSING)
            n += (size_t)snprintf(list + n, sizeof list - n, ", %.100s", x->files[i]);
    }
    if (!missing)
        return true;
    if (missing > NAMED_MISSING)
        snprintf(list + n, sizeof list - n, " and %zu more", missing - NAMED_MISSING);
    if (missing == x->n_files && missing > 1) /* of another model, or nothing but it was downloaded */
        err_set(e, ERR_USER, "none of the %zu shards is there: %s%s, which %s names", missing, first, list, index_path);
    else
        err_set(e, ERR_USER, "the shard%s %s%s %s missing: %s names %s", missing > 1 ? "s" : "", first, list,
                missing > 1 ? "are" : "is", index_path, missing > 1 ? "them" : "it");
    return err_hint(e, "download %s into the model's folder", missing > 1 ? "them" : "it");
}

/* Shards that come without their index: PREFIX-00001-of-0000N.safetensors. */
struct loose {
    char prefix[64];
    unsigned count, found, others;
    bool seen[MAX_LOOSE];
};

static bool find_loose(void *ctx, const char *name, struct err *e)
{
    struct loose *l = ctx;
    unsigned i, n;
    int end = 0;
    (void)e;
    for (const char *p = name; *p; p++) {
        size_t front = (size_t)(p - name);
        if (sscanf(p, "-%5u-of-%5u.safetensors%n", &i, &n, &end) != 2 || !end || p[end])
            continue;
        bool model = front == 5 || front == 17;
        if (!model || (memcmp(name, "model.safetensors", front) != 0) || n == 0 || n > MAX_LOOSE || i == 0 || i > n)
            return true;
        if (l->count && (l->count != n || strncmp(l->prefix, name, front) != 0 || l->prefix[front])) {
            l->others++;
            return true;
        }
        snprintf(l->prefix, sizeof l->prefix, "%.*s", (int)front, name);
        l->count = n;
        l->found += !l->seen[i - 1];
        l->seen[i - 1] = true;
        return true;
    }
    return true;
}

static bool open_loose(struct safetensors **out, const char *dir, const struct loose *l, struct err *e)
{
    char path[4096], name[128], missing[512] = "";
    size_t n = 0, left = 0;
    for (unsigned i = 0; i < l->count; i++) {
        snprintf(name, sizeof name, "%s-%05u-of-%05u.safetensors", l->prefix, i + 1, l->count);
        if (l->seen[i])
            continue;
        if (left++ < NAMED_MISSING)
            n += (size_t)snprintf(missing + n, sizeof missing - n, "%s%s", left > 1 ? ", " : "", name);
    }
    if (left > NAMED_MISSING)
        snprintf(missing + n, sizeof missing - n, " and %zu more", left - NAMED_MISSING);
    if (left) {
        err_set(e, ERR_USER, "%s holds %u of %u shards; %s %s missing", dir, l->found, l->count, missing,
                left > 1 ? "are" : "is");
        return err_hint(e, "download what is missing into the model's folder");
    }
    bool ok = create(out, l->count, e);
    for (unsigned i = 0; i < l->count && ok; i++) {
        snprintf(name, sizeof name, "%s-%05u-of-%05u.safetensors", l->prefix, i + 1, l->count);
        ok = os_path_join(path, sizeof path, dir, name, e) && add_file(*out, path, e);
    }
    if (!ok)
        safetensors_close(out);
    return ok;
}

static bool open_sharded(struct safetensors **out, const char *dir, const char *index_path, struct err *e)
{
    char *text = NULL;
    size_t size;
    struct safetensors_index x;
    if (!os_read_file(index_path, INDEX_MAX, &text, &size, e))
        return false;
    bool ok = safetensors_index_parse(&x, text, size, index_path, e);
    free(text);
    if (!ok)
        return false;
    ok = create(out, x.n_files, e) && check_present(&x, dir, index_path, e);
    for (size_t i = 0; i < x.n_files && ok; i++) {
        char path[4096];
        ok = os_path_join(path, sizeof path, dir, x.files[i], e) && add_file(*out, path, e);
    }
    ok = ok && check_index(*out, &x, index_path, e);
    safetensors_index_free(&x);
    if (!ok)
        safetensors_close(out);
    return ok;
}

bool safetensors_open_dir(struct safetensors **out, const char *dir, struct err *e)
{
    *out = NULL;
    bool there;
    char path[4096];
    if (os_stat(dir, NULL) != OS_DIR)
        return err_set(e, ERR_USER, "%s is not a folder", dir);
    if (!os_path_join(path, sizeof path, dir, "model.safetensors.index.json", e))
        return false;
    if (!side_file_there(path, &there, e))
        return false;
    if (there)
        return open_sharded(out, dir, path, e);
    if (!os_path_join(path, sizeof path, dir, "model.safetensors", e) || !side_file_there(path, &there, e))
        return false;
    if (there)
        return safetensors_open_file(out, path, e);
    struct loose loose = {0};
    if (!os_list(dir, find_loose, &loose, e))
        return false;
    if (loose.count && !loose.others)
        return open_loose(out, dir, &loose, e);
    if (!loose.count)
        return foreign_folder(dir, "model.safetensors", e);
    err_set(e, ERR_USER, "%s holds shards of more than one model, and no model.safetensors.index.json", dir);
    return err_hint(e, "download the index, or remove what does not belong to the model");
}

void safetensors_close(struct safetensors **s)
{
    if (!*s)
        return;
    for (uint32_t i = 0; i < (*s)->n_shards; i++) {
        os_unmap(&(*s)->shards[i].map);
        free((*s)->shards[i].path);
    }
    free((*s)->shards);
    strmap_free(&(*s)->view_of);
    free((*s)->views);
    tensor_table_destroy(&(*s)->table);
    free(*s);
    *s = NULL;
}

bool safetensors_add_view(struct safetensors *s, const struct tensor *view, struct err *e)
{
    bool added = true;
    const struct tensor **grown = grow(s->views, &s->cap_views, s->n_views, sizeof *grown, "parts of tensors", e);
    if (!grown)
        return false;
    s->views = grown;
    if (!strmap_add(&s->view_of, view->name, strlen(view->name), (uint32_t)s->n_views, &added))
        return err_nomem(e, "parts of tensors", s->n_views * sizeof *s->views);
    if (!added || tensor_table_find(s->table, view->name))
        return err_set(e, ERR_BUG, "%s is there already", view->name);
    s->views[s->n_views++] = view;
    return true;
}

const struct tensor *safetensors_find(const struct safetensors *s, const char *name)
{
    const struct tensor *t = tensor_table_find(s->table, name);
    uint32_t i;
    return !t && s->n_views && strmap_find(&s->view_of, name, strlen(name), &i) ? s->views[i] : t;
}

size_t safetensors_count(const struct safetensors *s)
{
    return s->table->n;
}

const struct tensor *safetensors_at(const struct safetensors *s, size_t i)
{
    return tensor_table_at(s->table, i);
}

const char *safetensors_metadata(const struct safetensors *s, const char *key)
{
    const cJSON *item = json_get(s->table->metadata, key);
    return item ? item->valuestring : NULL;
}

const char *safetensors_path(const struct safetensors *s, const struct tensor *t)
{
    return s->shards[t->file].path;
}

void safetensors_drop(const struct safetensors *s, const struct tensor *t)
{
    const struct os_map *map = &s->shards[t->file].map;
    os_map_drop(map, (uint64_t)(t->data - map->data), t->bytes);
}

bool safetensors_verify(const struct safetensors *s, struct hash128 *data, struct err *e)
{
    static const char before[] = "{\"__metadata__\":{\"" SAFETENSORS_CHECKSUM "\":\"";
    enum { AT = 8 + sizeof before - 1, DIGITS = sizeof SAFETENSORS_NO_SUM_YET - 1 };
    const struct os_map *map = &s->shards[0].map;
    size_t header = 8 + (size_t)load_u64le(map->data);
    char hex[DIGITS + 1];
    if (header < AT + DIGITS || memcmp(map->data + 8, before, sizeof before - 1) != 0)
        return err_set(e, ERR_ENV, "%s has no checksum", s->shards[0].path);
    char *text = malloc(header);
    if (!text)
        return err_nomem(e, "a header", header);
    memcpy(text, map->data, header);
    memcpy(text + AT, SAFETENSORS_NO_SUM_YET, DIGITS);
    struct hash128 sum = hash_bytes(map->data + header, (size_t)(map->size - header), (struct hash128){0});
    if (data)
        *data = sum;
    hash_hex(hash_bytes(text, header, sum), hex);
    free(text);
    return memcmp(hex, map->data + AT, DIGITS) == 0 ||
           err_set(e, ERR_ENV, "%s is damaged: its checksum does not match", s->shards[0].path);
}
