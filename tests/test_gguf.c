/* The GGUF container: the writer against golden bytes, the reader against every way a file can be wrong. */
#define _POSIX_C_SOURCE 200809L /* symlink */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if !defined(_WIN32)
#include <unistd.h>
#endif

#include <cmocka.h>

#include "formats/gguf.h"
#include "formats/gguf_type.h"
#include "host/base/num.h"
#include "host/base/os.h"

#define DIR "test_gguf.tmp"

/* Bytes of a file by hand: small numbers as u32 and u64, a string of one byte. */
#define Z3                         "\0\0\0"
#define Z7                         "\0\0\0\0\0\0\0"
#define U32(byte)                  byte Z3
#define U64(byte)                  byte Z7
#define STR1(c)                    U64("\1") c
#define HEAD(version, tensors, kv) "GGUF" U32(version) U64(tensors) U64(kv)
/* A key "k" of a type, and an array of an element type. */
#define KEY(type)         STR1("k") U32(type)
#define ARRAY(element, n) KEY("\x9") U32(element) U64(n)
/* A tensor of one dimension. */
#define TENSOR(name, ne0, type, offset) STR1(name) U32("\1") U64(ne0) U32(type) U64(offset)
#define ALIGN                           U64("\x11") "general.alignment"

static int fresh_dir(void **state)
{
    (void)state;
    struct err e = {0};
    os_remove_tree(DIR);
    return os_mkdirs(DIR, &e) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    os_remove_tree(DIR);
    return 0;
}

static void must(bool ok, const struct err *e)
{
    if (!ok)
        fail_msg("%s", e->msg);
}

static bool same(struct gguf_string s, const char *text)
{
    return s.size == strlen(text) && memcmp(s.text, text, s.size) == 0;
}

/* --- golden
 * -------------------------------------------------------------------------------------------------- */

static const char golden[] = HEAD("\3", "\2", "\3")                       /* 24 bytes */
    STR1("k") U32("\4") U32("\5")                                         /* k: u32 5; 17 */
    U64("\2") "s2" U32("\x8") U64("\2") "hi"                              /* s2: string "hi"; 24 */
    STR1("a") U32("\x9") U32("\5") U64("\2") "\xFF\xFF\xFF\xFF" U32("\7") /* a: i32 [-1, 7]; 33 */
    STR1("t") U32("\2") U64("\3") U64("\1") U32("\0") U64("\0")           /* t: F32 [3, 1]; 41 */
    U64("\3") "q.0" U32("\1") U64("\x20") U32("\x8") U64("\x20")          /* q.0: Q8_0 [32] at 32; 35 */
    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"                                /* 174 + 18 = 192 */
    "0123456789ab"                                                        /* 12 bytes of t */
    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"                            /* to 32 */
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh"                                  /* 34 bytes of q.0 */
    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";       /* to 64 */

static struct gguf_keys *golden_keys(void)
{
    struct gguf_keys *k = gguf_keys_create();
    assert_non_null(k);
    gguf_add_u32(k, "k", 5);
    gguf_add_string(k, "s2", "hi", 2);
    static const int32_t list[] = {-1, 7};
    gguf_add_array(k, "a", GGUF_I32, list, 2);
    return k;
}

static const struct gguf_tensor_plan golden_plan[] = {{"t", 2, {3, 1}, GGML_F32},
                                                      {"q.0", 1, {32}, GGML_Q8_0}};

static void check_golden(struct gguf *g, const char *path)
{
    assert_int_equal(gguf_kv_count(g), 3);
    assert_int_equal(gguf_alignment(g), 32);
    assert_true(same(gguf_kv_at(g, 1)->key, "s2"));
    assert_null(gguf_kv_at(g, 3));
    assert_ptr_equal(gguf_find(g, "a"), gguf_kv_at(g, 2));
    assert_null(gguf_find(g, "s"));
    assert_int_equal(gguf_tensor_count(g), 2);
    assert_null(gguf_tensor_at(g, 2));
    assert_null(gguf_tensor_find(g, "q"));
    const struct gguf_tensor *t = gguf_tensor_find(g, "t"), *q = gguf_tensor_find(g, "q.0");
    assert_ptr_equal(t, gguf_tensor_at(g, 0));
    assert_ptr_equal(q, gguf_tensor_at(g, 1));
    assert_string_equal(q->name, "q.0");
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->ne[0], 3);
    assert_int_equal(t->ne[1], 1);
    assert_int_equal(t->ne[3], 1);
    assert_int_equal(t->bytes, 12);
    assert_memory_equal(t->data, "0123456789ab", 12);
    assert_int_equal(q->type, GGML_Q8_0);
    assert_int_equal(q->bytes, 34);
    assert_memory_equal(q->data, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh", 34);
    assert_int_equal(gguf_data_offset(g, q), 192);
    assert_int_equal(gguf_data_offset(g, NULL), 192);
    assert_string_equal(gguf_path(g, q), path);
    gguf_drop(g, q);
}

static void writer_golden(void **state)
{
    (void)state;
    struct err e = {0};
    struct gguf_keys *k = golden_keys();
    struct gguf_writer *w;
    assert_int_equal(gguf_file_bytes(k, golden_plan, 2), sizeof golden - 1);
    must(gguf_writer_open(&w, DIR "/golden.gguf", k, golden_plan, 2, &e), &e);
    gguf_keys_destroy(&k);
    assert_null(k);
    must(gguf_writer_put(w, "01234", 5, &e), &e);
    must(gguf_writer_put(w, "56789abABC", 10, &e), &e); /* the end of one tensor, the start of the next */
    assert_int_equal(os_stat(DIR "/golden.gguf", NULL), OS_ABSENT); /* not before it is whole */
    must(gguf_writer_put(w, "DEFGHIJKLMNOPQRSTUVWXYZabcdefgh", 31, &e), &e);
    must(gguf_writer_close(&w, &e), &e);
    assert_null(w);
    assert_int_equal(os_stat(DIR "/golden.gguf.tmp", NULL), OS_ABSENT);

    char *bytes;
    size_t size;
    must(os_read_file(DIR "/golden.gguf", 1000, &bytes, &size, &e), &e);
    assert_int_equal(size, sizeof golden - 1);
    assert_memory_equal(bytes, golden, size);
    struct gguf *g;
    must(gguf_open(&g, DIR "/golden.gguf", &e), &e);
    assert_int_equal(gguf_version(g), 3);
    check_golden(g, DIR "/golden.gguf");
    gguf_close(&g);
    assert_null(g);

    bytes[4] = 2; /* version 2 has the same layout */
    must(gguf_parse(&g, (const uint8_t *)bytes, size, "memory", &e), &e);
    assert_int_equal(gguf_version(g), 2);
    check_golden(g, "memory");
    gguf_close(&g);
    free(bytes);
}

/* Cut anywhere, the file is refused with one line and a hint. */
static void truncated(void **state)
{
    (void)state;
    for (size_t size = 0; size < sizeof golden - 1; size++) {
        uint8_t *bytes = malloc(size ? size : 1); /* its own allocation: a read past the end is seen */
        assert_non_null(bytes);
        memcpy(bytes, golden, size);
        struct err e = {0};
        struct gguf *g;
        if (gguf_parse(&g, bytes, size, "cut.gguf", &e))
            fail_msg("%zu bytes were accepted", size);
        assert_int_equal(e.kind, ERR_USER);
        assert_non_null(strstr(e.msg, "cut.gguf"));
        if (size >= 4 && !strstr(e.msg, "cut short") && !strstr(e.msg, "ends at byte") &&
            !strstr(e.msg, "but only") && !strstr(e.msg, "more than"))
            fail_msg("%zu bytes: %s", size, e.msg);
        assert_true(e.hint[0] != 0);
        assert_null(g);
        free(bytes);
    }
}

/* --- values
 * -------------------------------------------------------------------------------------------------- */

/* Keys of every type; what gguf_add_* does not offer goes through gguf_add_array or gguf_add_kv. */
static struct gguf_keys *every_value(void)
{
    static const uint8_t u8[] = {0, 255};
    static const int8_t i8[] = {-128, 127};
    static const uint16_t u16[] = {1, 65535};
    static const int16_t i16[] = {-32768, 2};
    static const uint32_t u32[] = {3, UINT32_MAX};
    static const int32_t i32[] = {INT32_MIN, 4};
    static const float f32[] = {-0.5f, 1e30f};
    static const uint8_t flags[] = {0, 1};
    static const uint64_t u64[] = {5, UINT64_MAX};
    static const int64_t i64[] = {INT64_MIN, 6};
    static const double f64[] = {0.1, -1e300};
    static const struct gguf_string strings[] = {{"one", 3}, {"", 0}, {"a\0b", 3}};
    const void *list[GGUF_VALUE_COUNT] = {u8, i8, u16, i16, u32, i32, f32, flags, NULL, NULL, u64, i64, f64};
    static const unsigned size[GGUF_VALUE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    struct gguf_keys *k = gguf_keys_create();
    assert_non_null(k);
    for (int t = 0; t < GGUF_VALUE_COUNT; t++) {
        char key[32];
        if (t == GGUF_STRING || t == GGUF_ARRAY)
            continue;
        snprintf(key, sizeof key, "array.%d", t);
        gguf_add_array(k, key, (enum gguf_value)t, list[t], 2);
        snprintf(key, sizeof key, "empty.%d", t);
        gguf_add_array(k, key, (enum gguf_value)t, NULL, 0);
        snprintf(key, sizeof key, "one.%d", t);
        struct gguf_kv kv = {{key, strlen(key)},
                             (enum gguf_value)t,
                             (enum gguf_value)t,
                             1,
                             (const uint8_t *)list[t] + size[t],
                             size[t]}; /* the second one */
        gguf_add_kv(k, &kv);
    }
    gguf_add_strings(k, "array.8", strings, 3);
    gguf_add_strings(k, "empty.8", NULL, 0);
    gguf_add_string(k, "one.8", "Z\xC3\xBCrich", 7);
    gguf_add_u32(k, "u32", 7);
    gguf_add_u64(k, "u64", UINT64_MAX);
    gguf_add_f32(k, "f32", 0.25f);
    gguf_add_f32(k, "nan", NAN);
    gguf_add_bool(k, "yes", true);
    gguf_add_bool(k, "no", false);
    return k;
}

static struct gguf *written(const char *path, struct gguf_keys *k)
{
    struct err e = {0};
    struct gguf_writer *w;
    struct gguf *g;
    uint64_t size, expected = gguf_file_bytes(k, NULL, 0);
    must(gguf_writer_open(&w, path, k, NULL, 0, &e), &e);
    must(gguf_writer_close(&w, &e), &e);
    assert_int_equal(os_stat(path, &size), OS_FILE);
    assert_int_equal(size, expected);
    must(gguf_open(&g, path, &e), &e);
    return g;
}

static void check_array(const struct gguf *g, int type, double a, double b)
{
    char key[32];
    snprintf(key, sizeof key, "array.%d", type);
    const struct gguf_kv *kv = gguf_find(g, key);
    assert_non_null(kv);
    assert_int_equal(kv->type, GGUF_ARRAY);
    assert_int_equal(kv->element, type);
    assert_int_equal(kv->n, 2);
    assert_true(gguf_number(kv, 0) == a && gguf_number(kv, 1) == b);
    assert_true(gguf_number(kv, 2) == 0 && gguf_integer(kv, 2) == 0);
    snprintf(key, sizeof key, "empty.%d", type);
    kv = gguf_find(g, key);
    assert_non_null(kv);
    assert_true(kv->type == GGUF_ARRAY && (int)kv->element == type && kv->n == 0 && kv->bytes == 0);
    snprintf(key, sizeof key, "one.%d", type);
    kv = gguf_find(g, key);
    assert_non_null(kv);
    assert_true((int)kv->type == type && kv->n == 1 && gguf_number(kv, 0) == b);
}

static void check_every_value(const struct gguf *g)
{
    static const double pairs[GGUF_VALUE_COUNT][2] = {{0, 255},
                                                      {-128, 127},
                                                      {1, 65535},
                                                      {-32768, 2},
                                                      {3, 4294967295.0},
                                                      {-2147483648.0, 4},
                                                      {-0.5, 1e30f},
                                                      {0, 1},
                                                      {0, 0},
                                                      {0, 0},
                                                      {5, 18446744073709551615.0},
                                                      {-9223372036854775808.0, 6},
                                                      {0.1, -1e300}};
    for (int t = 0; t < GGUF_VALUE_COUNT; t++)
        if (t != GGUF_STRING && t != GGUF_ARRAY)
            check_array(g, t, pairs[t][0], pairs[t][1]);
    const struct gguf_kv *kv = gguf_find(g, "array.8");
    assert_true(kv && kv->type == GGUF_ARRAY && kv->element == GGUF_STRING && kv->n == 3);
    const uint8_t *at = kv->data;
    assert_true(same(gguf_next_string(&at), "one"));
    assert_int_equal(gguf_next_string(&at).size, 0);
    struct gguf_string s = gguf_next_string(&at);
    assert_true(s.size == 3 && memcmp(s.text, "a\0b", 3) == 0);
    assert_ptr_equal(at, kv->data + kv->bytes);
    assert_true(gguf_number(kv, 0) == 0);
    /* Whole numbers: exact, held at int64's ends, floats toward zero. */
    assert_true(gguf_integer(gguf_find(g, "array.11"), 0) == INT64_MIN);
    assert_true(gguf_integer(gguf_find(g, "array.10"), 1) == INT64_MAX);
    assert_true(gguf_integer(gguf_find(g, "array.5"), 0) == INT32_MIN);
    assert_true(gguf_integer(gguf_find(g, "array.6"), 0) == 0);
    assert_true(gguf_integer(gguf_find(g, "array.6"), 1) == INT64_MAX);
    assert_true(gguf_integer(gguf_find(g, "array.12"), 1) == INT64_MIN);
    assert_true(gguf_integer(gguf_find(g, "nan"), 0) == 0);
}

static void check_getters(const struct gguf *g)
{
    struct err e = {0};
    uint64_t u;
    double d;
    bool b;
    struct gguf_string s;
    assert_true(gguf_get_u64(g, "u32", &u, &e) == GGUF_OK && u == 7);
    assert_true(gguf_get_u64(g, "u64", &u, &e) == GGUF_OK && u == UINT64_MAX);
    assert_true(gguf_get_u64(g, "one.1", &u, &e) == GGUF_OK && u == 127);
    assert_true(gguf_get_f64(g, "f32", &d, &e) == GGUF_OK && d == 0.25);
    assert_true(gguf_get_f64(g, "one.12", &d, &e) == GGUF_OK && d == -1e300);
    assert_true(gguf_get_f64(g, "u32", &d, &e) == GGUF_OK && d == 7);
    assert_true(gguf_get_bool(g, "yes", &b, &e) == GGUF_OK && b);
    assert_true(gguf_get_bool(g, "no", &b, &e) == GGUF_OK && !b);
    assert_true(gguf_get_string(g, "one.8", &s, &e) == GGUF_OK && same(s, "Z\xC3\xBCrich"));
    assert_int_equal(gguf_get_u64(g, "absent", &u, &e), GGUF_ABSENT);
    assert_int_equal(gguf_get_f64(g, "absent", &d, &e), GGUF_ABSENT);
    assert_int_equal(gguf_get_bool(g, "absent", &b, &e), GGUF_ABSENT);
    assert_int_equal(gguf_get_string(g, "absent", &s, &e), GGUF_ABSENT);
    assert_int_equal(e.kind, ERR_NONE);
    assert_int_equal(gguf_get_u64(g, "f32", &u, &e), GGUF_BAD);
    assert_non_null(strstr(e.msg, "f32 is of type f32; an integer is expected"));
    assert_int_equal(gguf_get_u64(g, "array.4", &u, &e), GGUF_BAD);
    assert_non_null(strstr(e.msg, "array.4 is of type u32 array"));
    assert_int_equal(gguf_get_u64(g, "yes", &u, &e), GGUF_BAD);
    assert_int_equal(gguf_get_f64(g, "yes", &d, &e), GGUF_BAD);
    assert_int_equal(gguf_get_f64(g, "nan", &d, &e), GGUF_BAD);
    assert_non_null(strstr(e.msg, "nan is not a finite number"));
    assert_int_equal(gguf_get_bool(g, "u32", &b, &e), GGUF_BAD);
    assert_int_equal(gguf_get_string(g, "array.8", &s, &e), GGUF_BAD);
    assert_non_null(strstr(e.msg, "array.8 is of type string array; a string is expected"));
    assert_non_null(strstr(e.msg, DIR));
}

static void values(void **state)
{
    (void)state;
    struct gguf_keys *k = every_value();
    struct gguf *g = written(DIR "/values.gguf", k);
    gguf_keys_destroy(&k);
    check_every_value(g);
    check_getters(g);

    /* Copied key by key, the file is the same. */
    struct gguf_keys *copy = gguf_keys_create();
    for (size_t i = 0; i < gguf_kv_count(g); i++)
        gguf_add_kv(copy, gguf_kv_at(g, i));
    struct gguf *g2 = written(DIR "/copy.gguf", copy);
    gguf_keys_destroy(&copy);
    check_every_value(g2);
    char *a, *b;
    size_t na, nb;
    struct err e = {0};
    must(os_read_file(DIR "/values.gguf", 1 << 20, &a, &na, &e), &e);
    must(os_read_file(DIR "/copy.gguf", 1 << 20, &b, &nb, &e), &e);
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    free(a);
    free(b);
    gguf_close(&g);
    gguf_close(&g2);
}

static void negative_key(void **state)
{
    (void)state;
    static const char file[] = HEAD("\3", "\0", "\1") KEY("\1") "\xFF"; /* i8 -1, no padding, no tensors */
    struct err e = {0};
    struct gguf *g;
    uint64_t u;
    must(gguf_parse(&g, (const uint8_t *)file, sizeof file - 1, "neg", &e), &e);
    assert_int_equal(gguf_get_u64(g, "k", &u, &e), GGUF_BAD);
    assert_non_null(strstr(e.msg, "neg: k is negative"));
    gguf_close(&g);
}

/* --- alignment
 * ------------------------------------------------------------------------------------------------ */

static void alignment(void **state)
{
    (void)state;
    static const uint32_t list[] = {8, 16, 64, 4096, 65536};
    static const struct gguf_tensor_plan plan[] = {
        {"a", 1, {3}, GGML_F16}, {"b", 4, {1, 2, 1, 2}, GGML_F32}, {"c", 0, {0}, GGML_F32}};
    char data[6 + 16 + 4];
    memset(data, 'x', sizeof data);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct err e = {0};
        struct gguf_keys *k = gguf_keys_create();
        struct gguf_writer *w;
        struct gguf *g;
        uint64_t size;
        gguf_add_u32(k, "general.alignment", list[i]);
        must(gguf_writer_open(&w, DIR "/a.gguf", k, plan, 3, &e), &e);
        must(gguf_writer_put(w, data, sizeof data, &e), &e);
        must(gguf_writer_close(&w, &e), &e);
        assert_int_equal(os_stat(DIR "/a.gguf", &size), OS_FILE);
        assert_int_equal(size, gguf_file_bytes(k, plan, 3));
        gguf_keys_destroy(&k);
        must(gguf_open(&g, DIR "/a.gguf", &e), &e);
        assert_int_equal(gguf_alignment(g), list[i]);
        assert_int_equal(gguf_data_offset(g, NULL) % list[i], 0);
        const struct gguf_tensor *a = gguf_tensor_at(g, 0), *b = gguf_tensor_at(g, 1),
                                 *c = gguf_tensor_at(g, 2);
        assert_int_equal(b->data - a->data, round_up(6, list[i]));
        assert_int_equal(c->data - b->data, round_up(16, list[i]));
        assert_int_equal(size, gguf_data_offset(g, c) + (uint64_t)(c->data - a->data) + list[i]);
        assert_memory_equal(b->data, data, 16);
        assert_int_equal(c->bytes, 4);
        gguf_close(&g);
    }
}

/* --- what is refused
 * ------------------------------------------------------------------------------------------ */

#define RAW         (-1)
#define CASE(bytes) bytes, sizeof bytes - 1
static const struct {
    const char *header;
    size_t size;
    int n_data; /* bytes behind the header, padded to 32; RAW: the header is the file */
    const char *says;
} malformed[] = {
    {CASE(""), RAW, "is not a GGUF file"},
    {CASE("GGUX" U32("\3") U64("\0") U64("\0")), RAW, "is not a GGUF file"},
    {CASE("{\"a\":{}}"), RAW, "is not a GGUF file"},
    {CASE(HEAD("\0", "\0", "\0")), RAW, "is GGUF version 0; versions 2 and 3 are read"},
    {CASE(HEAD("\1", "\0", "\0")), RAW, "is GGUF version 1; versions 2 and 3 are read"},
    {CASE(HEAD("\4", "\0", "\0")), RAW, "is GGUF version 4; versions 2 and 3 are read"},
    {CASE("GGUF\0\0\0\3" U64("\0") U64("\0")), RAW, "big-endian"},
    /* counts: 2^60, 2^63, one more than fits */
    {CASE("GGUF" U32("\3") Z7 "\x10" U64("\0")), RAW, "announces 1152921504606846976 tensors, more than"},
    {CASE("GGUF" U32("\3") Z7 "\x80" U64("\0")), RAW, "announces 9223372036854775808 tensors, more than"},
    {CASE("GGUF" U32("\3") U64("\0") Z7 "\x10"), RAW, "announces 1152921504606846976 keys, more than"},
    {CASE(HEAD("\3", "\0", "\2") KEY("\0") "x"), RAW, "announces 2 keys, more than a file of 38 bytes"},
    {CASE(HEAD("\3", "\1", "\1") KEY("\4") "xxxx1234"), RAW, "announces 1 tensors, more than"},
    /* keys */
    {CASE(HEAD("\3", "\0", "\1") Z7 "\x10"
                                    "abcdefgh"),
     RAW, "key 0 announces a string of 1152921504606846976 bytes, but only 8 follow"},
    {CASE(HEAD("\3", "\0", "\1") U64("\0") U32("\4") "1234"), RAW, "key 0 has an empty name"},
    {CASE(HEAD("\3", "\0", "\1") STR1("\n") U32("\4") "1234"), RAW, "not plain UTF-8"},
    {CASE(HEAD("\3", "\0", "\1") STR1("\0") U32("\4") "1234"), RAW, "not plain UTF-8"},
    {CASE(HEAD("\3", "\0", "\1") STR1("\x7F") U32("\4") "1234"), RAW, "not plain UTF-8"},
    {CASE(HEAD("\3", "\0", "\1") STR1("\xFF") U32("\4") "1234"), RAW, "not plain UTF-8"},
    {CASE(HEAD("\3", "\0", "\2") KEY("\0") "x" KEY("\7") "\1"), RAW, "key \"k\" stands there twice"},
    {CASE(HEAD("\3", "\0", "\1") KEY("\xD") "12345678"), RAW, "key \"k\" has a value of the unknown type 13"},
    {CASE(HEAD("\3", "\0", "\1") KEY("\4") "123"), RAW, "ends within key \"k\": it is cut short"},
    {CASE(HEAD("\3", "\0", "\1") KEY("\x8") Z7 "\x40"
                                               "a"),
     RAW, "key \"k\" announces a string of 4611686018427387904 bytes, but only 1 follow"},
    {CASE(HEAD("\3", "\0", "\1") KEY("\7") "\2"), RAW, "a bool that is neither 0 nor 1"},
    {CASE(HEAD("\3", "\0", "\1") ARRAY("\7", "\2") "\1\3"), RAW, "a bool that is neither 0 nor 1"},
    {CASE(HEAD("\3", "\0", "\1") ARRAY("\x9", "\1") U32("\x9") U64("\0")), RAW, "is an array of arrays"},
    {CASE(HEAD("\3", "\0", "\1") ARRAY("\xE", "\1") "1"), RAW, "unknown type 14"},
    {CASE(HEAD("\3", "\0", "\1") KEY("\x9") U32("\4") Z7 "\x40"
                                                         "12345678"),
     RAW, "announces an array of 4611686018427387904 elements, more than the 8 bytes left hold"},
    {CASE(HEAD("\3", "\0", "\1") KEY("\x9") U32("\x8") U64("\2") U64("\0")), RAW,
     "announces an array of 2 elements, more than the 8 bytes left hold"},
    {CASE(HEAD("\3", "\0", "\1") ARRAY("\x8", "\2") STR1("x") "\x9" Z7), RAW,
     "key \"k\" announces a string of 9 bytes, but only 0 follow"},
    /* alignment */
    {CASE(HEAD("\3", "\0", "\1") ALIGN U32("\4") U32("\0")), 0, "general.alignment is 0, not a power of two"},
    {CASE(HEAD("\3", "\0", "\1") ALIGN U32("\4") U32("\4")), 0, "general.alignment is 4, not a power of two"},
    {CASE(HEAD("\3", "\0", "\1") ALIGN U32("\4") U32("\x18")), 0, "general.alignment is 24, not a power"},
    {CASE(HEAD("\3", "\0", "\1") ALIGN U32("\4") "\0\0\2\0"), 0, "general.alignment is 131072, not a power"},
    {CASE(HEAD("\3", "\0", "\1") ALIGN U32("\xA") U64("\x20")), 0, "general.alignment is of type u64; u32"},
    /* names of tensors */
    {CASE(HEAD("\3", "\1", "\0") U64("\0") U32("\1") U64("\1") U32("\0") U64("\0")), 32,
     "tensor 0 is not 1 to 63"},
    {CASE(HEAD("\3", "\1", "\0")
              U64("\x40") "0123456789012345678901234567890123456789012345678901234567890123" U32("\1")
                  U64("\1") U32("\0") U64("\0")),
     32, "tensor 0 is not 1 to 63 bytes"},
    {CASE(HEAD("\3", "\1", "\0") TENSOR("\0", "\1", "\0", "\0")), 32, "plain UTF-8 text"},
    {CASE(HEAD("\3", "\1", "\0") TENSOR("\x1B", "\1", "\0", "\0")), 32, "plain UTF-8 text"},
    {CASE(HEAD("\3", "\2", "\0") TENSOR("t", "\1", "\0", "\0") TENSOR("t", "\1", "\0", "\x20")), 64,
     "tensor \"t\": stands in the file twice"},
    /* shapes */
    {CASE(HEAD("\3", "\1", "\0") STR1("t") U32("\5") U64("\1") U64("\1") U64("\1") U64("\1") U64("\1")
              U32("\0") U64("\0")),
     32, "tensor \"t\": has more than 4 dimensions"},
    {CASE(HEAD("\3", "\1", "\0") STR1("t") "\0\0\0\x80" U64("\1") U32("\0") U64("\0")), 32,
     "more than 4 dim"},
    {CASE(HEAD("\3", "\1", "\0") TENSOR("t", "\0", "\0", "\0")), 32, "has a dimension of 0"},
    {CASE(HEAD("\3", "\1", "\0") STR1("t") U32("\1") Z7 "\x80" U32("\0") U64("\0")), 32, "impossibly large"},
    {CASE(HEAD("\3", "\1", "\0") STR1("t") U32("\2") "\0\0\0\0\1\0\0\0"
                                                     "\0\0\0\x80\0\0\0\0" U32("\0") U64("\0")),
     32, "tensor \"t\": the shape is impossibly large"},
    {CASE(HEAD("\3", "\1", "\0") STR1("t") U32("\2") "\0\0\0\0\1\0\0\0"
                                                     "\0\0\0\x40\0\0\0\0" U32("\0") U64("\0")),
     32, "tensor \"t\": the shape is impossibly large"}, /* 2^62 elements of 4 bytes */
    {CASE(HEAD("\3", "\1", "\0") STR1("t") U32("\1") Z7 "\x10" U32("\0") U64("\0")), 32, "ends at byte"},
    {CASE(HEAD("\3", "\1", "\0") TENSOR("t", "\x21", "\x8", "\0")), 64,
     "tensor \"t\": its rows of 33 weights are not whole blocks of 32 (Q8_0)"},
    {CASE(HEAD("\3", "\1", "\0") STR1("t") U32("\0") U32("\x8") U64("\0")), 64, "rows of 1 weights are not"},
    /* offsets */
    {CASE(HEAD("\3", "\2", "\0") TENSOR("t", "\x9", "\0", "\0") TENSOR("u", "\1", "\0", "\x20")), 96,
     "tensors \"t\" and \"u\" overlap"},
    {CASE(HEAD("\3", "\2", "\0") TENSOR("t", "\1", "\0", "\0") TENSOR("u", "\1", "\0", "\0")), 64,
     "tensors \"t\" and \"u\" overlap"},
    {CASE(HEAD("\3", "\2", "\0") TENSOR("t", "\1", "\0", "\0") TENSOR("u", "\1", "\0", "\x40")), 96,
     "a hole of 32 bytes before tensor \"u\""},
    {CASE(HEAD("\3", "\1", "\0") TENSOR("t", "\1", "\0", "\x20")), 64,
     "a hole of 32 bytes before tensor \"t\""},
    {CASE(HEAD("\3", "\1", "\0") TENSOR("t", "\x9", "\0", "\0")), 32,
     "ends at byte 128 with its padding, but the file holds only 96"},
    {CASE(HEAD("\3", "\1", "\0") TENSOR("t", "\1", "\0", "\0")), 4,
     "but the file holds only 68"}, /* no padding */
    {CASE(HEAD("\3", "\1", "\0") TENSOR("t", "\1", "\0", "\0")), RAW, "ends before the data of its tensors"},
    {CASE(HEAD("\3", "\1", "\0") TENSOR("t", "\1", "\0", "\0")), 33,
     "1 bytes at the end of the file belong to no"},
    {CASE(HEAD("\3", "\0", "\0")), 1, "1 bytes at the end of the file belong to no tensor"},
    /* unknown types: 200 */
    {CASE(HEAD("\3", "\2", "\0") TENSOR("t", "\1", "\xC8", "\0") TENSOR("u", "\1", "\0", "\x21")), 96,
     "tensor \"u\": begins at no multiple of the alignment"},
    {CASE(HEAD("\3", "\3", "\0") TENSOR("s", "\1", "\0", "\0") TENSOR("t", "\1", "\xC8", "\x20")
              TENSOR("u", "\1", "\0", "\0")),
     96, "tensors \"t\" and \"u\" overlap"},
    {CASE(HEAD("\3", "\2", "\0") TENSOR("t", "\1", "\xC8", "\0") STR1("u") U32("\1") U64("\1") U32("\0") Z7
          "\x10"),
     96, "tensor \"t\" ends at byte 1152921504606847072"},
    {CASE(HEAD("\3", "\2", "\0") TENSOR("t", "\1", "\xC8", "\0") STR1("u") U32("\1") U64("\1")
              U32("\0") "\xE0\xFF\xFF\xFF\xFF\xFF\xFF\xFF"),
     96, "tensor \"t\" ends at byte 18446744073709551615"},
    /* splits in memory */
    {CASE(HEAD("\3", "\0", "\1") U64("\xB") "split.count" U32("\2") "\2\0"), RAW,
     "is one part of a split model"},
    {CASE(HEAD("\3", "\0", "\1") U64("\xB") "split.count" U32("\3") "\xFF\xFF"), RAW,
     "split.count is negative"},
    {CASE(HEAD("\3", "\0", "\1") U64("\xB") "split.count" U32("\6") "1234"), RAW,
     "split.count is of type f32"},
    {CASE(HEAD("\3", "\0", "\1") U64("\xB") "split.count" U32("\4") "\0\0\1\0"), RAW,
     "no split model can have"},
    {CASE(HEAD("\3", "\0", "\2")
              U64("\xB") "split.count" U32("\2") "\2\0" U64("\x8") "split.no" U32("\0") "\2"),
     RAW, "no split model can have"},
};

static void reader_refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        size_t header = malformed[i].size, size = header;
        if (malformed[i].n_data >= 0)
            size = round_up(header, 32) + (size_t)malformed[i].n_data;
        uint8_t *bytes = calloc(1, size ? size : 1);
        assert_non_null(bytes);
        memcpy(bytes, malformed[i].header, header);
        struct err e = {0};
        struct gguf *g;
        bool ok = gguf_parse(&g, bytes, size, "bad.gguf", &e);
        if (ok || !strstr(e.msg, malformed[i].says) || strncmp(e.msg, "bad.gguf", 8) != 0 ||
            strchr(e.msg, '\n'))
            fail_msg("case %zu: expected \"%s\", got \"%s\"", i, malformed[i].says, ok ? "nothing" : e.msg);
        assert_int_equal(e.kind, ERR_USER);
        assert_true(e.hint[0] != 0);
        assert_null(g);
        free(bytes);
    }
}

static void files_refused(void **state)
{
    (void)state;
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    struct err e = {0};
    struct gguf *g;
    assert_false(gguf_open(&g, DIR "/absent.gguf", &e));
    assert_non_null(strstr(e.msg, DIR "/absent.gguf"));
    assert_false(gguf_open(&g, DIR, &e));
    assert_int_equal(e.kind, ERR_USER);
    must(os_write_file(DIR "/lfs.gguf", lfs, sizeof lfs - 1, &e), &e);
    assert_false(gguf_open(&g, DIR "/lfs.gguf", &e));
    assert_non_null(strstr(e.msg, "is a Git LFS pointer"));
    must(os_write_file(DIR "/empty.gguf", "", 0, &e), &e);
    assert_false(gguf_open(&g, DIR "/empty.gguf", &e));
    assert_non_null(strstr(e.msg, "is not a GGUF file"));
    assert_null(g);
}

/* Names of 63 bytes are taken; tensors of unknown types too, with the bytes that the offsets leave. */
static void reader_accepts(void **state)
{
    (void)state;
    static const char header[] =
        HEAD("\2", "\4", "\0") TENSOR("a", "\1", "\xC8", "\0") TENSOR("b", "\1", "\xC9", "\x40")
            U64("\x3F") "012345678901234567890123456789012345678901234567890123456789012" U32("\0") U32("\0")
                U64("\x40") TENSOR("c", "\5", "\xCA", "\x60");
    uint8_t file[((sizeof header - 1) + 31) / 32 * 32 + 96 + 7] = {0};
    struct err e = {0};
    struct gguf *g;
    memcpy(file, header, sizeof header - 1);
    must(gguf_parse(&g, file, sizeof file, "good", &e), &e);
    assert_int_equal(gguf_tensor_count(g), 4);
    assert_int_equal(gguf_tensor_at(g, 0)->bytes, 64);
    assert_int_equal(gguf_tensor_at(g, 1)->bytes, 0);
    assert_int_equal(gguf_tensor_at(g, 2)->bytes, 4);
    assert_int_equal(strlen(gguf_tensor_at(g, 2)->name), 63);
    assert_int_equal(gguf_tensor_at(g, 3)->bytes, 7); /* the rest, padded or not */
    assert_int_equal(gguf_tensor_at(g, 3)->ne[0], 5);
    assert_ptr_equal(gguf_tensor_at(g, 3)->data, file + sizeof file - 7);
    gguf_close(&g);
}

/* --- split files
 * ---------------------------------------------------------------------------------------------- */

/* Part `no` of `count` with one F32 tensor [n] filled with `fill`; total 0: no split.tensors.count. */
static void write_part(const char *path, unsigned no, unsigned count, uint32_t total, const char *name,
                       uint64_t n, char fill)
{
    struct err e = {0};
    struct gguf_keys *k = gguf_keys_create();
    struct gguf_tensor_plan plan = {name, 1, {n}, GGML_F32};
    struct gguf_writer *w;
    char data[256];
    uint8_t u16[2];
    struct gguf_kv kv = {{"split.no", 8}, GGUF_U16, GGUF_U16, 1, u16, 2};
    assert_true(n * 4 <= sizeof data);
    memset(data, fill, sizeof data);
    store_u16le(u16, (uint16_t)no);
    gguf_add_kv(k, &kv);
    store_u16le(u16, (uint16_t)count);
    kv.key = (struct gguf_string){"split.count", 11};
    gguf_add_kv(k, &kv);
    if (total)
        gguf_add_u32(k, "split.tensors.count", total);
    if (no == 1)
        gguf_add_u32(k, "general.alignment", 64);
    must(gguf_writer_open(&w, path, k, &plan, 1, &e), &e);
    must(gguf_writer_put(w, data, n * 4, &e), &e);
    must(gguf_writer_close(&w, &e), &e);
    gguf_keys_destroy(&k);
}

#define PART(n) DIR "/m-0000" n "-of-00003.gguf"

static void refuse_split(const char *path, const char *says)
{
    struct err e = {0};
    struct gguf *g;
    bool ok = gguf_open(&g, path, &e);
    if (ok || !strstr(e.msg, says))
        fail_msg("expected \"%s\", got \"%s\"", says, ok ? "nothing" : e.msg);
    assert_int_equal(e.kind, ERR_USER);
    assert_true(e.hint[0] != 0);
    assert_null(g);
}

static void split(void **state)
{
    (void)state;
    static const char *const parts[] = {PART("1"), PART("2"), PART("3")};
    struct err e = {0};
    struct gguf *g;
    write_part(PART("1"), 0, 3, 3, "a", 3, 'a');
    write_part(PART("2"), 1, 3, 3, "b", 5, 'b');
    write_part(PART("3"), 2, 3, 3, "c", 1, 'c');
    for (int i = 0; i < 3; i++) {
        must(gguf_open(&g, parts[i], &e), &e);
        assert_int_equal(gguf_tensor_count(g), 3);
        assert_int_equal(gguf_kv_count(g), 3);
        const struct gguf_tensor *b = gguf_tensor_find(g, "b");
        assert_ptr_equal(b, gguf_tensor_at(g, 1));
        assert_int_equal(b->file, 1);
        assert_int_equal(b->bytes, 20);
        assert_memory_equal(b->data, "bbbbbbbbbbbbbbbbbbbb", 20);
        assert_string_equal(gguf_path(g, b), PART("2"));
        assert_string_equal(gguf_path(g, NULL), PART("1"));
        assert_int_equal(gguf_data_offset(g, b) % 64, 0);
        assert_memory_equal(gguf_tensor_find(g, "c")->data, "cccc", 4);
        gguf_drop(g, b);
        gguf_close(&g);
    }
    write_part(PART("3"), 2, 3, 3, "a", 1, 'c');
    refuse_split(PART("1"), "tensor \"a\": stands in another part of the model already");
    write_part(PART("3"), 1, 3, 3, "c", 1, 'c');
    refuse_split(PART("1"), "holds part 2 of 3, not part 3 of 3");
    write_part(PART("3"), 2, 4, 3, "c", 1, 'c');
    refuse_split(PART("2"), "holds part 3 of 4, not part 3 of 3");
    refuse_split(PART("3"),
                 "is part 3 of 4 of a split model, but its name does not end in -00003-of-00004.gguf");
    assert_true(os_remove(PART("3")));
    refuse_split(PART("2"), "part 3 of 3 is missing: " PART("3"));
    write_part(PART("3"), 2, 3, 3, "c", 1, 'c');
    write_part(PART("1"), 0, 3, 4, "a", 3, 'a');
    refuse_split(PART("3"), "split.tensors.count is 4, but its 3 parts hold 3 tensors");
    write_part(PART("1"), 0, 3, 0, "a", 3, 'a');
    refuse_split(PART("3"), "has no split.tensors.count");
    write_part(DIR "/other.gguf", 0, 3, 3, "a", 3, 'a');
    refuse_split(DIR "/other.gguf", "name does not end in -00001-of-00003.gguf");
    write_part(DIR "/x.gguf", 0, 3, 3, "a", 3, 'a');
    refuse_split(DIR "/x.gguf", "name does not end in");
    write_part(DIR "/single.gguf", 0, 1, 1, "a", 3, 'a'); /* "split" into one */
    must(gguf_open(&g, DIR "/single.gguf", &e), &e);
    gguf_close(&g);
}

/* --- what the writer refuses
 * ---------------------------------------------------------------------------------- */

static void refuse_plan(const struct gguf_keys *k, const struct gguf_tensor_plan *plan, size_t n,
                        const char *says)
{
    struct err e = {0};
    struct gguf_writer *w;
    bool ok = gguf_writer_open(&w, DIR "/w", k, plan, n, &e);
    if (ok || !strstr(e.msg, says))
        fail_msg("expected \"%s\", got \"%s\"", says, ok ? "nothing" : e.msg);
    assert_null(w);
    assert_int_equal(os_stat(DIR "/w.tmp", NULL), OS_ABSENT);
    assert_int_equal(gguf_file_bytes(k, plan, n), 0);
}

static void writer_refuses(void **state)
{
    (void)state;
    static const struct gguf_tensor_plan one[] = {{"a", 1, {3}, GGML_F32}};
    static const struct {
        struct gguf_tensor_plan plan[2];
        const char *says;
    } bad[] = {
        {{{"a", 1, {3}, GGML_F32}, {"a", 1, {3}, GGML_F32}}, "planned twice"},
        {{{"", 1, {3}, GGML_F32}}, "1 to 63 bytes"},
        {{{"0123456789012345678901234567890123456789012345678901234567890123", 1, {3}, GGML_F32}}, "1 to 63"},
        {{{"a", 1, {3}, 200}}, "unknown type"},
        {{{"a", 5, {3}, GGML_F32}}, "more than 4"},
        {{{"a", 1, {33}, GGML_Q8_0}}, "whole blocks"},
        {{{"a", 2, {3, 0}, GGML_F32}}, "dimension of 0"},
        {{{"a", 1, {UINT64_MAX}, GGML_F32}}, "impossibly large"},
        {{{"a", 1, {(uint64_t)1 << 60}, GGML_F32}, {"b", 1, {(uint64_t)1 << 60}, GGML_F32}},
         "impossibly large"},
    };
    struct err e = {0};
    struct gguf_writer *w;
    struct gguf_keys *k = gguf_keys_create();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuse_plan(k, bad[i].plan, bad[i].plan[1].name ? 2 : 1, bad[i].says);
    refuse_plan(NULL, one, 1, "out of host memory");
    gguf_add_u32(NULL, "k", 1);
    must(gguf_writer_open(&w, DIR "/w", k, one, 1, &e), &e);
    must(gguf_writer_put(w, "12345678", 8, &e), &e);
    assert_false(gguf_writer_put(w, "12345", 5, &e)); /* too much */
    assert_int_equal(e.kind, ERR_BUG);
    gguf_writer_abort(&w);
    must(gguf_writer_open(&w, DIR "/w", k, one, 1, &e), &e);
    must(gguf_writer_put(w, "12345678", 8, &e), &e);
    assert_false(gguf_writer_close(&w, &e)); /* too little */
    assert_non_null(strstr(e.msg, "tensor 1 of 1 is missing"));
    assert_int_equal(e.kind, ERR_BUG);
    assert_null(w);
    assert_int_equal(os_stat(DIR "/w", NULL), OS_ABSENT);
    assert_int_equal(os_stat(DIR "/w.tmp", NULL), OS_ABSENT);
    assert_false(gguf_writer_open(&w, DIR "/absent/w", k, one, 1, &e));
    assert_int_equal(e.kind, ERR_USER);
    assert_non_null(strstr(e.msg, DIR "/absent/w.tmp"));

    gguf_add_u32(k, "k", 1);
    gguf_add_f32(k, "k", 1);
    refuse_plan(k, one, 1, "key \"k\" stands there twice");
    assert_false(gguf_writer_open(&w, DIR "/w", k, one, 1, &e));
    assert_int_equal(e.kind, ERR_BUG);
    gguf_keys_destroy(&k);
    k = gguf_keys_create();
    gguf_add_u32(k, "general.alignment", 33);
    refuse_plan(k, one, 1, "not a power of two");
    gguf_keys_destroy(&k);
    k = gguf_keys_create();
    gguf_add_string(k, "", "x", 1);
    refuse_plan(k, one, 1, "empty name");
    gguf_keys_destroy(&k);
}

/* PATH.tmp on a device that is always full: an error of the environment, and nothing left behind. */
static void disk_full(void **state)
{
    (void)state;
#if defined(_WIN32)
    skip();
#else
    if (os_stat("/dev/full", NULL) != OS_OTHER) {
        print_message("skipped: no /dev/full\n");
        skip();
    }
    static const struct gguf_tensor_plan plan[] = {{"a", 2, {1024, 1024}, GGML_F32}};
    static const size_t amounts[] = {0, 100, 1024 * 1024}; /* found when put, or when closed */
    static char data[1024 * 1024 * 4];
    struct gguf_keys *k = gguf_keys_create();
    for (size_t i = 0; i < 3; i++) {
        struct err e = {0};
        struct gguf_writer *w;
        assert_int_equal(symlink("/dev/full", DIR "/w.tmp"), 0);
        bool ok = gguf_writer_open(&w, DIR "/w", k, plan, amounts[i] ? 1 : 0, &e);
        for (size_t at = 0; ok && amounts[i] && at < sizeof data; at += amounts[i])
            ok = gguf_writer_put(w, data + at, (size_t)min_u64(amounts[i], sizeof data - at), &e);
        if (ok)
            ok = gguf_writer_close(&w, &e);
        else
            gguf_writer_abort(&w);
        assert_false(ok);
        assert_int_equal(e.kind, ERR_ENV);
        assert_non_null(strstr(e.msg, "cannot write " DIR "/w.tmp"));
        assert_non_null(strstr(e.hint, "free some space"));
        assert_int_equal(os_stat(DIR "/w", NULL), OS_ABSENT);
        assert_int_equal(os_stat(DIR "/w.tmp", NULL), OS_ABSENT);
    }
    gguf_keys_destroy(&k);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writer_golden, fresh_dir, remove_dir),
        cmocka_unit_test(truncated),
        cmocka_unit_test_setup_teardown(values, fresh_dir, remove_dir),
        cmocka_unit_test(negative_key),
        cmocka_unit_test_setup_teardown(alignment, fresh_dir, remove_dir),
        cmocka_unit_test(reader_refuses),
        cmocka_unit_test_setup_teardown(files_refused, fresh_dir, remove_dir),
        cmocka_unit_test(reader_accepts),
        cmocka_unit_test_setup_teardown(split, fresh_dir, remove_dir),
        cmocka_unit_test_setup_teardown(writer_refuses, fresh_dir, remove_dir),
        cmocka_unit_test_setup_teardown(disk_full, fresh_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
