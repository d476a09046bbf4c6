/* Keys and values of a GGUF: reading them strictly, finding them, their numbers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf_parts.h"
#include "host/base/num.h"

#define DEFAULT_ALIGNMENT 32u
#define MIN_ALIGNMENT     8u
#define MAX_ALIGNMENT     65536u
#define MAX_KEY           65535u /* bytes */

/* size 0: it is in the value. */
static const struct {
    const char *name;
    uint32_t size;
} values[GGUF_VALUE_COUNT] = {
    [GGUF_U8] = {"u8", 1},         [GGUF_I8] = {"i8", 1},       [GGUF_U16] = {"u16", 2}, [GGUF_I16] = {"i16", 2},
    [GGUF_U32] = {"u32", 4},       [GGUF_I32] = {"i32", 4},     [GGUF_F32] = {"f32", 4}, [GGUF_BOOL] = {"bool", 1},
    [GGUF_STRING] = {"string", 0}, [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8}, [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

uint32_t gguf_value_size(enum gguf_value t)
{
    return values[t].size;
}

/* ---- cursor ---- */

static bool take(struct gguf_cursor *c, uint64_t n, const uint8_t **out, const char *what, struct err *e)
{
    if (n > c->size - c->at) {
        err_set(e, ERR_USER, "%s ends within %s: it is cut short", c->path, what);
        return err_hint(e, "download the file again");
    }
    *out = c->bytes + c->at;
    c->at += n;
    return true;
}

bool gguf_read_u32(struct gguf_cursor *c, uint32_t *out, const char *what, struct err *e)
{
    const uint8_t *p;
    if (!take(c, 4, &p, what, e))
        return false;
    *out = load_u32le(p);
    return true;
}

bool gguf_read_u64(struct gguf_cursor *c, uint64_t *out, const char *what, struct err *e)
{
    const uint8_t *p;
    if (!take(c, 8, &p, what, e))
        return false;
    *out = load_u64le(p);
    return true;
}

bool gguf_read_string(struct gguf_cursor *c, struct gguf_string *out, const char *what, struct err *e)
{
    uint64_t size;
    if (!gguf_read_u64(c, &size, what, e))
        return false;
    if (size > c->size - c->at) {
        err_set(e, ERR_USER, "%s: %s announces a string of %llu bytes, but only %llu follow", c->path, what,
                (unsigned long long)size, (unsigned long long)(c->size - c->at));
        return err_hint(e, GGUF_BROKEN);
    }
    *out = (struct gguf_string){(const char *)c->bytes + c->at, (size_t)size};
    c->at += size;
    return true;
}

bool gguf_plain_name(struct gguf_string s)
{
    for (size_t i = 0; i < s.size; i++)
        if ((unsigned char)s.text[i] < 0x20 || s.text[i] == 0x7F)
            return false;
    size_t bad;
    return utf8_valid(s.text, s.size, &bad);
}

/* ---- reading ---- */

static bool bad_value(struct err *e, const char *path, const char *what, const char *says)
{
    err_set(e, ERR_USER, "%s: %s %s", path, what, says);
    return err_hint(e, GGUF_BROKEN);
}

static bool read_type(struct gguf_cursor *c, enum gguf_value *out, const char *what, struct err *e)
{
    uint32_t type;
    if (!gguf_read_u32(c, &type, what, e))
        return false;
    if (type >= GGUF_VALUE_COUNT) {
        err_set(e, ERR_USER, "%s: %s has a value of the unknown type %u", c->path, what, type);
        return err_hint(e, GGUF_BROKEN);
    }
    *out = (enum gguf_value)type;
    return true;
}

static bool check_bools(const struct gguf_kv *kv, const char *path, const char *what, struct err *e)
{
    for (uint64_t i = 0; i < kv->n; i++)
        if (kv->data[i] > 1)
            return bad_value(e, path, what, "holds a bool that is neither 0 nor 1");
    return true;
}

/* The element type and the length of an array. */
static bool read_array_head(struct gguf_cursor *c, struct gguf_kv *kv, const char *what, struct err *e)
{
    if (!read_type(c, &kv->element, what, e) || !gguf_read_u64(c, &kv->n, what, e))
        return false;
    if (kv->element == GGUF_ARRAY)
        return bad_value(e, c->path, what, "is an array of arrays, which GGUF readers do not support");
    /* A string is 8 bytes at least. */
    uint64_t smallest = kv->element == GGUF_STRING ? 8 : values[kv->element].size;
    if (kv->n > (c->size - c->at) / smallest) {
        err_set(e, ERR_USER, "%s: %s announces an array of %llu elements, more than the %llu bytes left hold", c->path,
                what, (unsigned long long)kv->n, (unsigned long long)(c->size - c->at));
        return err_hint(e, GGUF_BROKEN);
    }
    return true;
}

static bool read_value(struct gguf_cursor *c, struct gguf_kv *kv, const char *what, struct err *e)
{
    kv->n = 1;
    if (!read_type(c, &kv->type, what, e))
        return false;
    kv->element = kv->type;
    if (kv->type == GGUF_ARRAY && !read_array_head(c, kv, what, e))
        return false;
    uint64_t begin = c->at;
    const uint8_t *end;
    struct gguf_string s;
    kv->data = c->bytes + begin;
    if (kv->element == GGUF_STRING) {
        for (uint64_t i = 0; i < kv->n; i++)
            if (!gguf_read_string(c, &s, what, e))
                return false;
    } else if (!take(c, kv->n * values[kv->element].size, &end, what, e)) { /* n: checked against the size */
        return false;
    }
    kv->bytes = c->at - begin;
    return kv->element != GGUF_BOOL || check_bools(kv, c->path, what, e);
}

static bool read_kv(struct gguf_cursor *c, struct gguf_kv *kv, uint64_t number, struct err *e)
{
    char what[256];
    snprintf(what, sizeof what, "key %llu", (unsigned long long)number);
    if (!gguf_read_string(c, &kv->key, what, e))
        return false;
    if (kv->key.size == 0)
        return bad_value(e, c->path, what, "has an empty name");
    if (kv->key.size > MAX_KEY)
        return bad_value(e, c->path, what, "has a name longer than 65535 bytes");
    if (!gguf_plain_name(kv->key))
        return bad_value(e, c->path, what, "has a name that is not plain UTF-8 text");
    snprintf(what, sizeof what, "key \"%.*s\"", (int)min_u64(kv->key.size, 200), kv->key.text);
    return read_value(c, kv, what, e);
}

bool gguf_keyset_read(struct gguf_keyset *s, struct gguf_cursor *c, uint64_t n, struct err *e)
{
    *s = (struct gguf_keyset){.items = calloc(n ? (size_t)n : 1, sizeof *s->items)};
    if (!s->items || !strmap_reserve(&s->map, (size_t)n))
        return err_nomem(e, "the keys of a GGUF", n * sizeof *s->items);
    for (; s->n < n; s->n++) {
        struct gguf_kv *kv = &s->items[s->n];
        if (!read_kv(c, kv, s->n, e))
            return false;
        bool added;
        strmap_add(&s->map, kv->key.text, kv->key.size, (uint32_t)s->n, &added); /* room was reserved */
        if (!added) {
            err_set(e, ERR_USER, "%s: key \"%.*s\" occurs twice", c->path, (int)min_u64(kv->key.size, 200),
                    kv->key.text);
            return err_hint(e, GGUF_BROKEN);
        }
    }
    return true;
}

void gguf_keyset_free(struct gguf_keyset *s)
{
    free(s->items);
    strmap_free(&s->map);
    *s = (struct gguf_keyset){0};
}

const struct gguf_kv *gguf_keyset_find(const struct gguf_keyset *s, const char *key)
{
    uint32_t i;
    return strmap_find(&s->map, key, strlen(key), &i) ? &s->items[i] : NULL;
}

/* ---- numbers ---- */

static bool is_integer(enum gguf_value t)
{
    return t <= GGUF_I32 || t == GGUF_U64 || t == GGUF_I64;
}

static double load_f32(const uint8_t *p)
{
    uint32_t bits = load_u32le(p);
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static double load_f64(const uint8_t *p)
{
    uint64_t bits = load_u64le(p);
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

/* Rounds toward zero; what int64 cannot hold becomes its nearest end, NaN 0. */
static int64_t to_i64(double d)
{
    if (d != d)
        return 0;
    return d >= 9223372036854775808.0 ? INT64_MAX : d < -9223372036854775808.0 ? INT64_MIN : (int64_t)d;
}

int64_t gguf_integer(const struct gguf_kv *kv, uint64_t i)
{
    if (i >= kv->n || kv->element == GGUF_STRING)
        return 0;
    const uint8_t *p = kv->data + i * values[kv->element].size;
    switch (kv->element) {
    case GGUF_U8:
    case GGUF_BOOL:
        return *p;
    case GGUF_I8:
        return (int8_t)*p;
    case GGUF_U16:
        return load_u16le(p);
    case GGUF_I16:
        return (int16_t)load_u16le(p);
    case GGUF_U32:
        return load_u32le(p);
    case GGUF_I32:
        return (int32_t)load_u32le(p);
    case GGUF_U64:
        return (int64_t)min_u64(load_u64le(p), INT64_MAX);
    case GGUF_I64:
        return (int64_t)load_u64le(p);
    case GGUF_F32:
        return to_i64(load_f32(p));
    default:
        return to_i64(load_f64(p));
    }
}

double gguf_number(const struct gguf_kv *kv, uint64_t i)
{
    if (i < kv->n) {
        if (kv->element == GGUF_F32)
            return load_f32(kv->data + i * 4);
        if (kv->element == GGUF_F64)
            return load_f64(kv->data + i * 8);
        if (kv->element == GGUF_U64)
            return (double)load_u64le(kv->data + i * 8);
    }
    return (double)gguf_integer(kv, i);
}

struct gguf_string gguf_next_string(const uint8_t **at)
{
    struct gguf_string s = {(const char *)*at + 8, (size_t)load_u64le(*at)};
    *at += 8 + s.size;
    return s;
}

/* ---- values of a type ---- */

static enum gguf_got bad_key(struct err *e, const char *path, const char *key, const char *says)
{
    err_set(e, ERR_USER, "%s: %s %s", path, key, says);
    err_hint(e, GGUF_BROKEN);
    return GGUF_BAD;
}

static enum gguf_got wrong_type(struct err *e, const char *path, const struct gguf_kv *kv, const char *key,
                                const char *wanted)
{
    err_set(e, ERR_USER, "%s: %s is of type %s%s; %s is expected", path, key, values[kv->element].name,
            kv->type == GGUF_ARRAY ? " array" : "", wanted);
    err_hint(e, GGUF_BROKEN);
    return GGUF_BAD;
}

enum gguf_got gguf_keyset_u64(const struct gguf_keyset *s, const char *path, const char *key, uint64_t *out,
                              struct err *e)
{
    const struct gguf_kv *kv = gguf_keyset_find(s, key);
    if (!kv)
        return GGUF_ABSENT;
    if (!is_integer(kv->type))
        return wrong_type(e, path, kv, key, "an integer");
    if (kv->type == GGUF_U64) {
        *out = load_u64le(kv->data);
        return GGUF_OK;
    }
    int64_t v = gguf_integer(kv, 0);
    if (v < 0)
        return bad_key(e, path, key, "is negative");
    *out = (uint64_t)v;
    return GGUF_OK;
}

bool gguf_keyset_alignment(const struct gguf_keyset *s, const char *path, uint32_t *out, struct err *e)
{
    static const char key[] = "general.alignment";
    uint64_t v = DEFAULT_ALIGNMENT;
    const struct gguf_kv *kv = gguf_keyset_find(s, key);
    if (kv && kv->type != GGUF_U32)
        return wrong_type(e, path, kv, key, "u32") == GGUF_OK;
    if (kv)
        v = load_u32le(kv->data);
    if (v < MIN_ALIGNMENT || v > MAX_ALIGNMENT || (v & (v - 1)) != 0) {
        err_set(e, ERR_USER, "%s: %s is %llu, not a power of two from 8 to 65536", path, key, (unsigned long long)v);
        return err_hint(e, GGUF_BROKEN);
    }
    *out = (uint32_t)v;
    return true;
}

enum gguf_got gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct err *e)
{
    return gguf_keyset_u64(gguf_keyset_of(g), gguf_path(g, NULL), key, out, e);
}

enum gguf_got gguf_get_f64(const struct gguf *g, const char *key, double *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv)
        return GGUF_ABSENT;
    if (!is_integer(kv->type) && kv->type != GGUF_F32 && kv->type != GGUF_F64)
        return wrong_type(e, gguf_path(g, NULL), kv, key, "a number");
    double v = gguf_number(kv, 0);
    if (!isfinite(v))
        return bad_key(e, gguf_path(g, NULL), key, "is not a finite number");
    *out = v;
    return GGUF_OK;
}

enum gguf_got gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv)
        return GGUF_ABSENT;
    if (kv->type != GGUF_BOOL)
        return wrong_type(e, gguf_path(g, NULL), kv, key, "bool");
    *out = kv->data[0] != 0;
    return GGUF_OK;
}

enum gguf_got gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv)
        return GGUF_ABSENT;
    if (kv->type != GGUF_STRING)
        return wrong_type(e, gguf_path(g, NULL), kv, key, "a string");
    const uint8_t *at = kv->data;
    *out = gguf_next_string(&at);
    return GGUF_OK;
}

enum gguf_got gguf_get_name(const struct gguf *g, const char *key, struct gguf_string *out, struct err *e)
{
    enum gguf_got got = gguf_get_string(g, key, out, e);
    if (got == GGUF_OK && !gguf_plain_name(*out))
        return bad_key(e, gguf_path(g, NULL), key, "is not plain UTF-8 text");
    return got;
}
