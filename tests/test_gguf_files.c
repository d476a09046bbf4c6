/* Well-formed GGUF files, written and read: golden bytes, every type of value, alignments. */
#include <math.h>

#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_type.h"
#include "host/base/num.h"
#include "tests/gguf_bytes.h"

#define DIR_ "tmp_gguf_files"
#include "tests/scratch_dir.h"

static bool same(struct gguf_string s, const char *text)
{
    return s.size == strlen(text) && memcmp(s.text, text, s.size) == 0;
}

/* ---- golden ---- */

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

static const struct gguf_tensor_plan golden_plan[] = {{"t", 2, {3, 1}, GGML_F32}, {"q.0", 1, {32}, GGML_Q8_0}};

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
    OK(gguf_writer_open(&w, DIR_ "/golden.gguf", k, golden_plan, 2, &e), e);
    gguf_keys_destroy(&k);
    assert_null(k);
    OK(gguf_writer_put(w, "01234", 5, &e), e);
    OK(gguf_writer_put(w, "56789abABC", 10, &e), e);                 /* the end of one tensor, the start of the next */
    assert_int_equal(os_stat(DIR_ "/golden.gguf", NULL), OS_ABSENT); /* not before it is whole */
    OK(gguf_writer_put(w, "DEFGHIJKLMNOPQRSTUVWXYZabcdefgh", 31, &e), e);
    OK(gguf_writer_close(&w, &e), e);
    assert_null(w);
    assert_true(only_whole_files());

    char *bytes;
    size_t size;
    OK(os_read_file(DIR_ "/golden.gguf", 1000, &bytes, &size, &e), e);
    assert_int_equal(size, sizeof golden - 1);
    assert_memory_equal(bytes, golden, size);
    struct gguf *g;
    OK(gguf_open(&g, DIR_ "/golden.gguf", &e), e);
    assert_int_equal(gguf_version(g), 3);
    check_golden(g, DIR_ "/golden.gguf");
    gguf_close(&g);
    assert_null(g);

    bytes[4] = 2; /* version 2 has the same layout */
    OK(gguf_parse(&g, (const uint8_t *)bytes, size, "memory", &e), e);
    assert_int_equal(gguf_version(g), 2);
    check_golden(g, "memory");
    gguf_close(&g);
    free(bytes);
}

/* ---- values ---- */

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
    OK(gguf_writer_open(&w, path, k, NULL, 0, &e), e);
    OK(gguf_writer_close(&w, &e), e);
    assert_int_equal(os_stat(path, &size), OS_FILE);
    assert_int_equal(size, expected);
    OK(gguf_open(&g, path, &e), e);
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
    static const double pairs[GGUF_VALUE_COUNT][2] = {
        {0, 255},      {-128, 127}, {1, 65535}, {-32768, 2}, {3, 4294967295.0},           {-2147483648.0, 4},
        {-0.5, 1e30f}, {0, 1},      {0, 0},     {0, 0},      {5, 18446744073709551615.0}, {-9223372036854775808.0, 6},
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
    assert_non_null(strstr(e.msg, DIR_));
}

static void values(void **state)
{
    (void)state;
    struct gguf_keys *k = every_value();
    struct gguf *g = written(DIR_ "/values.gguf", k);
    gguf_keys_destroy(&k);
    check_every_value(g);
    check_getters(g);

    /* Copied key by key, the file is the same. */
    struct gguf_keys *copy = gguf_keys_create();
    for (size_t i = 0; i < gguf_kv_count(g); i++)
        gguf_add_kv(copy, gguf_kv_at(g, i));
    struct gguf *g2 = written(DIR_ "/copy.gguf", copy);
    gguf_keys_destroy(&copy);
    check_every_value(g2);
    char *a, *b;
    size_t na, nb;
    struct err e = {0};
    OK(os_read_file(DIR_ "/values.gguf", 1 << 20, &a, &na, &e), e);
    OK(os_read_file(DIR_ "/copy.gguf", 1 << 20, &b, &nb, &e), e);
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
    OK(gguf_parse(&g, (const uint8_t *)file, sizeof file - 1, "neg", &e), e);
    assert_int_equal(gguf_get_u64(g, "k", &u, &e), GGUF_BAD);
    assert_non_null(strstr(e.msg, "neg: k is negative"));
    gguf_close(&g);
}

/* ---- alignment ---- */

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
        OK(gguf_writer_open(&w, DIR_ "/a.gguf", k, plan, 3, &e), e);
        OK(gguf_writer_put(w, data, sizeof data, &e), e);
        OK(gguf_writer_close(&w, &e), e);
        assert_int_equal(os_stat(DIR_ "/a.gguf", &size), OS_FILE);
        assert_int_equal(size, gguf_file_bytes(k, plan, 3));
        gguf_keys_destroy(&k);
        OK(gguf_open(&g, DIR_ "/a.gguf", &e), e);
        assert_int_equal(gguf_alignment(g), list[i]);
        assert_int_equal(gguf_data_offset(g, NULL) % list[i], 0);
        const struct gguf_tensor *a = gguf_tensor_at(g, 0), *b = gguf_tensor_at(g, 1), *c = gguf_tensor_at(g, 2);
        assert_int_equal(b->data - a->data, round_up(6, list[i]));
        assert_int_equal(c->data - b->data, round_up(16, list[i]));
        assert_int_equal(size, gguf_data_offset(g, c) + (uint64_t)(c->data - a->data) + list[i]);
        assert_memory_equal(b->data, data, 16);
        assert_int_equal(c->bytes, 4);
        gguf_close(&g);
    }
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
    OK(gguf_parse(&g, file, sizeof file, "good", &e), e);
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

/* As llama.cpp: the last tensor may lack its padding, and bytes behind it are nobody's. */
static void reader_accepts_tails(void **state)
{
    (void)state;
    static const char header[] = HEAD("\3", "\1", "\0") TENSOR("t", "\1", "\0", "\0");
    const size_t data_at = (sizeof header - 1 + 31) / 32 * 32, tails[] = {4, 5, 31, 32, 33, 132};
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        uint8_t file[256] = {0};
        struct err e = {0};
        struct gguf *g;
        memcpy(file, header, sizeof header - 1);
        file[data_at] = 7;
        OK(gguf_parse(&g, file, data_at + tails[i], "good", &e), e);
        assert_int_equal(gguf_tensor_at(g, 0)->bytes, 4);
        assert_int_equal(gguf_tensor_at(g, 0)->data[0], 7);
        gguf_close(&g);
    }
    static const char none[] = HEAD("\3", "\0", "\0");
    uint8_t file[64] = {0};
    struct err e = {0};
    struct gguf *g;
    memcpy(file, none, sizeof none - 1);
    OK(gguf_parse(&g, file, sizeof file, "good", &e), e);
    gguf_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writer_golden, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(values, make_dir, remove_dir),
        cmocka_unit_test(negative_key),
        cmocka_unit_test_setup_teardown(alignment, make_dir, remove_dir),
        cmocka_unit_test(reader_accepts),
        cmocka_unit_test(reader_accepts_tails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
