/* GGUF files that are refused, every way one can be wrong; split models and their missing or foreign parts;
 * what the writer refuses and a full disk. */
#define _POSIX_C_SOURCE 200809L /* setrlimit */
#if !defined(_WIN32)
#include <signal.h>
#include <sys/resource.h>
#endif

#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_type.h"
#include "host/base/num.h"
#include "tests/gguf_bytes.h"

#define DIR_ "tmp_gguf_refused"
#include "tests/scratch_dir.h"

/* Cut anywhere before the padding of its last tensor, the file is refused with one line and a hint. */
static void truncated(void **state)
{
    (void)state;
    struct gguf *whole;
    struct err none = {0};
    OK(gguf_parse(&whole, (const uint8_t *)golden, sizeof golden - 1, "whole", &none), none);
    const struct gguf_tensor *last = gguf_tensor_at(whole, gguf_tensor_count(whole) - 1);
    size_t end = (size_t)(last->data - (const uint8_t *)golden) + (size_t)last->bytes;
    gguf_close(&whole);
    for (size_t size = 0; size < end; size++) {
        uint8_t *bytes = malloc(size ? size : 1); /* its own allocation: a read past the end is seen */
        assert_non_null(bytes);
        memcpy(bytes, golden, size);
        struct err e = {0};
        struct gguf *g;
        if (gguf_parse(&g, bytes, size, "cut.gguf", &e))
            fail_msg("%zu bytes were accepted", size);
        assert_int_equal(e.kind, ERR_USER);
        assert_non_null(strstr(e.msg, "cut.gguf"));
        if (size >= 4 && !strstr(e.msg, "cut short") && !strstr(e.msg, "ends at byte") && !strstr(e.msg, "but only") &&
            !strstr(e.msg, "more than"))
            fail_msg("%zu bytes: %s", size, e.msg);
        assert_true(e.hint[0] != 0);
        assert_null(g);
        free(bytes);
    }
}

/* ---- what is refused ---- */

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
    {CASE(HEAD("\3", "\0", "\2") KEY("\0") "x" KEY("\7") "\1"), RAW, "key \"k\" occurs twice"},
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
    {CASE(HEAD("\3", "\1", "\0") U64("\0") U32("\1") U64("\1") U32("\0") U64("\0")), 32, "tensor 0 is not 1 to 63"},
    {CASE(HEAD("\3", "\1", "\0") U64("\x40") "0123456789012345678901234567890123456789012345678901234567890123" U32(
         "\1") U64("\1") U32("\0") U64("\0")),
     32, "tensor 0 is not 1 to 63 bytes"},
    {CASE(HEAD("\3", "\1", "\0") TENSOR("\0", "\1", "\0", "\0")), 32, "plain UTF-8 text"},
    {CASE(HEAD("\3", "\1", "\0") TENSOR("\x1B", "\1", "\0", "\0")), 32, "plain UTF-8 text"},
    {CASE(HEAD("\3", "\2", "\0") TENSOR("t", "\1", "\0", "\0") TENSOR("t", "\1", "\0", "\x20")), 64,
     "tensor \"t\": occurs twice in the file"},
    /* shapes */
    {CASE(HEAD("\3", "\1", "\0") STR1("t") U32("\5") U64("\1") U64("\1") U64("\1") U64("\1") U64("\1") U32("\0")
              U64("\0")),
     32, "tensor \"t\": has more than 4 dimensions"},
    {CASE(HEAD("\3", "\1", "\0") STR1("t") "\0\0\0\x80" U64("\1") U32("\0") U64("\0")), 32, "more than 4 dim"},
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
     "tensor \"t\": its rows of 33 weights are not a multiple of 32, the block size of Q8_0"},
    {CASE(HEAD("\3", "\1", "\0") STR1("t") U32("\0") U32("\x8") U64("\0")), 64, "rows of 1 weights are not"},
    /* offsets */
    {CASE(HEAD("\3", "\2", "\0") TENSOR("t", "\x9", "\0", "\0") TENSOR("u", "\1", "\0", "\x20")), 96,
     "tensors \"t\" and \"u\" overlap"},
    {CASE(HEAD("\3", "\2", "\0") TENSOR("t", "\1", "\0", "\0") TENSOR("u", "\1", "\0", "\0")), 64,
     "tensors \"t\" and \"u\" overlap"},
    {CASE(HEAD("\3", "\2", "\0") TENSOR("t", "\1", "\0", "\0") TENSOR("u", "\1", "\0", "\x40")), 96,
     "a hole of 32 bytes before tensor \"u\""},
    {CASE(HEAD("\3", "\1", "\0") TENSOR("t", "\1", "\0", "\x20")), 64, "a hole of 32 bytes before tensor \"t\""},
    {CASE(HEAD("\3", "\1", "\0") TENSOR("t", "\x9", "\0", "\0")), 32,
     "ends at byte 128 with its padding, but the file holds only 96"},
    {CASE(HEAD("\3", "\1", "\0") TENSOR("t", "\1", "\0", "\0")), 3, "but the file holds only 67"},
    {CASE(HEAD("\3", "\1", "\0") TENSOR("t", "\1", "\0", "\0")), RAW, "ends before the data of its tensors"},
    /* unknown types: 200 */
    {CASE(HEAD("\3", "\2", "\0") TENSOR("t", "\1", "\xC8", "\0") TENSOR("u", "\1", "\0", "\x21")), 96,
     "tensor \"u\": does not begin at a multiple of the alignment"},
    {CASE(HEAD("\3", "\3", "\0") TENSOR("s", "\1", "\0", "\0") TENSOR("t", "\1", "\xC8", "\x20")
              TENSOR("u", "\1", "\0", "\0")),
     96, "tensors \"t\" and \"u\" overlap"},
    {CASE(HEAD("\3", "\2", "\0") TENSOR("t", "\1", "\xC8", "\0") STR1("u") U32("\1") U64("\1") U32("\0") Z7 "\x10"), 96,
     "tensor \"t\" ends at byte 1152921504606847072"},
    {CASE(HEAD("\3", "\2", "\0") TENSOR("t", "\1", "\xC8", "\0") STR1("u") U32("\1") U64("\1")
              U32("\0") "\xE0\xFF\xFF\xFF\xFF\xFF\xFF\xFF"),
     96, "tensor \"t\" ends at byte 18446744073709551615"},
    /* splits in memory */
    {CASE(HEAD("\3", "\0", "\1") U64("\xB") "split.count" U32("\2") "\2\0"), RAW, "is one part of a split model"},
    {CASE(HEAD("\3", "\0", "\1") U64("\xB") "split.count" U32("\3") "\xFF\xFF"), RAW, "split.count is negative"},
    {CASE(HEAD("\3", "\0", "\1") U64("\xB") "split.count" U32("\6") "1234"), RAW, "split.count is of type f32"},
    {CASE(HEAD("\3", "\0", "\1") U64("\xB") "split.count" U32("\4") "\0\0\1\0"), RAW,
     "has an impossible split.no or split.count"},
    {CASE(HEAD("\3", "\0", "\2") U64("\xB") "split.count" U32("\2") "\2\0" U64("\x8") "split.no" U32("\0") "\2"), RAW,
     "has an impossible split.no or split.count"},
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
        if (ok || !strstr(e.msg, malformed[i].says) || strncmp(e.msg, "bad.gguf", 8) != 0 || strchr(e.msg, '\n'))
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
    assert_false(gguf_open(&g, DIR_ "/absent.gguf", &e));
    assert_non_null(strstr(e.msg, DIR_ "/absent.gguf"));
    assert_false(gguf_open(&g, DIR_, &e));
    assert_int_equal(e.kind, ERR_USER);
    OK(os_write_file(DIR_ "/lfs.gguf", lfs, sizeof lfs - 1, &e), e);
    assert_false(gguf_open(&g, DIR_ "/lfs.gguf", &e));
    assert_non_null(strstr(e.msg, "is a Git LFS pointer"));
    OK(os_write_file(DIR_ "/empty.gguf", "", 0, &e), e);
    assert_false(gguf_open(&g, DIR_ "/empty.gguf", &e));
    assert_non_null(strstr(e.msg, "is not a GGUF file"));
    assert_null(g);
}

/* ---- split files ---- */

/* Part `no` of `count` with one F32 tensor [n] filled with `fill`; total 0: no split.tensors.count. */
static void write_part(const char *path, unsigned no, unsigned count, uint32_t total, const char *name, uint64_t n,
                       char fill)
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
    OK(gguf_writer_open(&w, path, k, &plan, 1, &e), e);
    OK(gguf_writer_put(w, data, n * 4, &e), e);
    OK(gguf_writer_close(&w, &e), e);
    gguf_keys_destroy(&k);
}

#define PART(n) DIR_ "/m-0000" n "-of-00003.gguf"

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
        OK(gguf_open(&g, parts[i], &e), e);
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
    refuse_split(PART("1"), "tensor \"a\": is also in another part of the model");
    write_part(PART("3"), 1, 3, 3, "c", 1, 'c');
    refuse_split(PART("1"), "holds part 2 of 3, not part 3 of 3");
    write_part(PART("3"), 2, 4, 3, "c", 1, 'c');
    refuse_split(PART("2"), "holds part 3 of 4, not part 3 of 3");
    refuse_split(PART("3"), "is part 3 of 4 of a split model, but its name does not end in -00003-of-00004.gguf");
    assert_true(os_remove(PART("3")));
    refuse_split(PART("2"), "part 3 of 3 is missing: " PART("3"));
    write_part(PART("3"), 2, 3, 3, "c", 1, 'c');
    write_part(PART("1"), 0, 3, 4, "a", 3, 'a');
    refuse_split(PART("3"), "split.tensors.count is 4, but its 3 parts hold 3 tensors");
    write_part(PART("1"), 0, 3, 0, "a", 3, 'a');
    refuse_split(PART("3"), "has no split.tensors.count");
    write_part(DIR_ "/other.gguf", 0, 3, 3, "a", 3, 'a');
    refuse_split(DIR_ "/other.gguf", "name does not end in -00001-of-00003.gguf");
    write_part(DIR_ "/x.gguf", 0, 3, 3, "a", 3, 'a');
    refuse_split(DIR_ "/x.gguf", "name does not end in");
    write_part(DIR_ "/single.gguf", 0, 1, 1, "a", 3, 'a'); /* "split" into one */
    OK(gguf_open(&g, DIR_ "/single.gguf", &e), e);
    gguf_close(&g);
}

/* ---- what the writer refuses ---- */

static void refuse_plan(const struct gguf_keys *k, const struct gguf_tensor_plan *plan, size_t n, const char *says)
{
    struct err e = {0};
    struct gguf_writer *w;
    bool ok = gguf_writer_open(&w, DIR_ "/w", k, plan, n, &e);
    if (ok || !strstr(e.msg, says))
        fail_msg("expected \"%s\", got \"%s\"", says, ok ? "nothing" : e.msg);
    assert_null(w);
    assert_true(only_whole_files());
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
        {{{"a", 1, {33}, GGML_Q8_0}}, "block size"},
        {{{"a", 2, {3, 0}, GGML_F32}}, "dimension of 0"},
        {{{"a", 1, {UINT64_MAX}, GGML_F32}}, "impossibly large"},
        {{{"a", 1, {(uint64_t)1 << 60}, GGML_F32}, {"b", 1, {(uint64_t)1 << 60}, GGML_F32}}, "impossibly large"},
    };
    struct err e = {0};
    struct gguf_writer *w;
    struct gguf_keys *k = gguf_keys_create();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuse_plan(k, bad[i].plan, bad[i].plan[1].name ? 2 : 1, bad[i].says);
    refuse_plan(NULL, one, 1, "out of host memory");
    gguf_add_u32(NULL, "k", 1);
    OK(gguf_writer_open(&w, DIR_ "/w", k, one, 1, &e), e);
    OK(gguf_writer_put(w, "12345678", 8, &e), e);
    assert_false(gguf_writer_put(w, "12345", 5, &e)); /* too much */
    assert_int_equal(e.kind, ERR_BUG);
    gguf_writer_abort(&w);
    OK(gguf_writer_open(&w, DIR_ "/w", k, one, 1, &e), e);
    OK(gguf_writer_put(w, "12345678", 8, &e), e);
    assert_false(gguf_writer_close(&w, &e)); /* too little */
    assert_non_null(strstr(e.msg, "tensor 1 of 1 is missing"));
    assert_int_equal(e.kind, ERR_BUG);
    assert_null(w);
    assert_int_equal(os_stat(DIR_ "/w", NULL), OS_ABSENT);
    assert_true(only_whole_files());
    assert_false(gguf_writer_open(&w, DIR_ "/absent/w", k, one, 1, &e));
    assert_int_equal(e.kind, ERR_USER);
    assert_non_null(strstr(e.msg, DIR_ "/absent/w"));

    gguf_add_u32(k, "k", 1);
    gguf_add_f32(k, "k", 1);
    refuse_plan(k, one, 1, "key \"k\" occurs twice");
    assert_false(gguf_writer_open(&w, DIR_ "/w", k, one, 1, &e));
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

/* Files that may not grow: an error of the environment, and nothing left behind. */
static void disk_full(void **state)
{
    (void)state;
#if defined(_WIN32)
    skip();
#else
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    static const struct gguf_tensor_plan plan[] = {{"a", 2, {1024, 1024}, GGML_F32}};
    static const size_t amounts[] = {0, 100, 1024 * 1024}; /* found when put, or when closed */
    static char data[1024 * 1024 * 4];
    struct gguf_keys *k = gguf_keys_create();
    for (size_t i = 0; i < 3; i++) {
        struct err e = {0};
        struct gguf_writer *w;
        small = (struct rlimit){16 << i, before.rlim_max};
        signal(SIGXFSZ, SIG_IGN);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        bool ok = gguf_writer_open(&w, DIR_ "/w", k, plan, amounts[i] ? 1 : 0, &e);
        for (size_t at = 0; ok && amounts[i] && at < sizeof data; at += amounts[i])
            ok = gguf_writer_put(w, data + at, (size_t)min_u64(amounts[i], sizeof data - at), &e);
        if (ok)
            ok = gguf_writer_close(&w, &e);
        else
            gguf_writer_abort(&w);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_false(ok);
        assert_int_equal(e.kind, ERR_ENV);
        assert_non_null(strstr(e.msg, "cannot write " DIR_ "/w"));
        assert_non_null(strstr(e.hint, "ulimit"));
        assert_int_equal(os_stat(DIR_ "/w", NULL), OS_ABSENT);
        assert_true(only_whole_files());
    }
    gguf_keys_destroy(&k);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncated),
        cmocka_unit_test(reader_refuses),
        cmocka_unit_test_setup_teardown(files_refused, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(split, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(writer_refuses, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(disk_full, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
