/* host/base: numbers against slow references over every pattern, errors, strings' neighbours in os.h. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "host/base/clean.h"
#include "host/base/comm.h"
#include "host/base/err.h"
#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/os_parts.h"

/* ---- numbers ---- */

/* Value of a sign-exponent-mantissa pattern of 16 bits, by the definition. */
static double slow_value(uint16_t h, int exp_bits)
{
    int man_bits = 15 - exp_bits, bias = (1 << (exp_bits - 1)) - 1;
    int e = h >> man_bits & ((1 << exp_bits) - 1), m = h & ((1 << man_bits) - 1);
    double sign = h & 0x8000 ? -1 : 1;
    if (e == (1 << exp_bits) - 1)
        return m ? NAN : sign * INFINITY;
    return sign * ldexp(e ? m + (1 << man_bits) : m, (e ? e : 1) - bias - man_bits);
}

/* Nearest pattern by bisection over the finite ones; ties to even; beyond the last by half a step: infinity.
 */
static uint16_t slow_round(double x, int exp_bits)
{
    uint16_t sign = signbit(x) ? 0x8000 : 0, inf = (uint16_t)(((1 << exp_bits) - 1) << (15 - exp_bits));
    double a = fabs(x);
    uint16_t lo = 0, hi = inf; /* value(lo) <= a < value(hi) */
    while (hi - lo > 1) {
        uint16_t mid = (uint16_t)((lo + hi) / 2);
        if (slow_value(mid, exp_bits) <= a)
            lo = mid;
        else
            hi = mid;
    }
    double step = lo ? slow_value(lo, exp_bits) - slow_value((uint16_t)(lo - 1), exp_bits) : slow_value(1, exp_bits);
    double below = a - slow_value(lo, exp_bits);
    double above = (hi == inf ? slow_value(lo, exp_bits) + step : slow_value(hi, exp_bits)) - a;
    bool up = below > above || (below == above && (lo & 1));
    return (uint16_t)(sign | (up ? hi : lo));
}

static void check_format(int exp_bits, float (*widen)(uint16_t), uint16_t (*narrow)(float))
{
    for (uint32_t h = 0; h < 65536; h++) {
        double want = slow_value((uint16_t)h, exp_bits);
        float got = widen((uint16_t)h);
        if (isnan(want)) {
            uint16_t back = narrow(got);
            assert_true(isnan(got));
            assert_true(isnan(slow_value(back, exp_bits)));
            assert_int_equal(back & 0x8000, h & 0x8000);
            continue;
        }
        assert_true((double)got == want && !signbit(got) == !signbit(want));
        assert_int_equal(narrow(got), h);
        if (isinf(want))
            continue;
        /* The tie to the next pattern, and its neighbours in f32. */
        uint16_t next = (uint16_t)(h + 1);
        double beyond = slow_value(next, exp_bits);
        if (isinf(beyond))
            beyond = 2 * want - slow_value((uint16_t)(h - 1), exp_bits);
        float tie = (float)((want + beyond) / 2);
        float near[] = {tie, nextafterf(tie, 0), nextafterf(tie, 2 * tie)};
        for (int i = 0; i < 3; i++)
            if (isfinite(near[i]))
                assert_int_equal(narrow(near[i]), slow_round((double)near[i], exp_bits));
    }
    assert_int_equal(narrow(INFINITY), narrow(widen(narrow(INFINITY))));
    assert_true(isinf(widen(narrow(3.4e38f))) || exp_bits == 8);
}

static void test_f16(void **state)
{
    (void)state;
    check_format(5, f16_to_f32, f32_to_f16);
    assert_int_equal(f32_to_f16(65519.996f), 0x7BFF);
    assert_int_equal(f32_to_f16(65520.0f), 0x7C00);
    assert_int_equal(f32_to_f16(1e-30f), 0);
    assert_int_equal(f32_to_f16(-1e-30f), 0x8000);
}

/* All patterns, by the formats' own words: sign, exponent with its bias, fraction. */
static void test_narrow(void **state)
{
    (void)state;
    for (unsigned v = 0; v < 256; v++) {
        int exponent = (int)(v >> 3 & 15), fraction = (int)(v & 7);
        double e4m3 = exponent ? ldexp(8 + fraction, exponent - 7 - 3) : ldexp(fraction, -6 - 3),
               e2m1 = (v >> 1 & 3) ? ldexp(2 + (v & 1), (int)(v >> 1 & 3) - 1 - 1) : ldexp(v & 1, -1);
        float got = e4m3_to_f32((uint8_t)v), nibble = e2m1_to_f32((uint8_t)v), power = e8m0_to_f32((uint8_t)v);
        if ((v & 0x7F) == 0x7F)
            assert_true(isnan(got));
        else
            assert_true((double)got == (v & 128 ? -e4m3 : e4m3) && !signbit(got) == !(v & 128));
        assert_true((double)nibble == (v & 8 ? -e2m1 : e2m1) && !signbit(nibble) == !(v & 8));
        assert_true(v == 255 ? isnan(power) : (double)power == ldexp(1, (int)v - 127));
    }
    assert_float_equal(e4m3_to_f32(0x7E), 448, 0);
    assert_float_equal(e4m3_to_f32(0x01), 0x1p-9, 0);
    assert_float_equal(e2m1_to_f32(0x0F), -6, 0);
}

static void test_bf16(void **state)
{
    (void)state;
    check_format(8, bf16_to_f32, f32_to_bf16);
}

static void test_integers(void **state)
{
    (void)state;
    uint64_t v = 7;
    assert_true(mul_u64(UINT64_MAX / 3, 3, &v) && v == UINT64_MAX / 3 * 3);
    assert_false(mul_u64(UINT64_C(1) << 63, 2, &v));
    assert_true(mul_u64(0, UINT64_MAX, &v) && v == 0);
    assert_true(add_u64(UINT64_MAX - 1, 1, &v) && v == UINT64_MAX);
    assert_false(add_u64(UINT64_MAX, 1, &v));
    assert_int_equal(div_up(7, 3), 3);
    assert_int_equal(div_up(6, 3), 2);
    assert_true(div_up(UINT64_MAX, 2) == UINT64_C(1) << 63);
    assert_int_equal(round_up(65, 64), 128);
    unsigned char raw[9];
    store_u64le(raw + 1, UINT64_C(0x0123456789ABCDEF));
    assert_int_equal(raw[1], 0xEF);
    assert_true(load_u64le(raw + 1) == UINT64_C(0x0123456789ABCDEF));
    assert_int_equal(load_u32le(raw + 1), 0x89ABCDEF);
    assert_int_equal(load_u16le(raw + 2), 0xABCD);
}

static void test_texts_of_numbers(void **state)
{
    (void)state;
    char s[32];
    assert_string_equal(format_bytes(0, s, sizeof s), "0 B");
    assert_string_equal(format_bytes(UINT64_C(3) << 29, s, sizeof s), "1.50 GiB");
    assert_true(strlen(format_bytes(UINT64_MAX, s, sizeof s)) < 24);
    assert_string_equal(format_seconds(12, s, sizeof s), "12 s");
    assert_string_equal(format_seconds(245, s, sizeof s), "4:05");
    assert_string_equal(format_seconds(3723, s, sizeof s), "1:02:03");
    struct hash128 zero = {0}, a = hash_bytes("ab", 2, zero), b = hash_bytes("ba", 2, zero);
    char ha[33], hb[33];
    hash_hex(a, ha);
    hash_hex(b, hb);
    assert_int_equal(strlen(ha), 32);
    assert_string_not_equal(ha, hb);
    hash_hex(hash_bytes("ab", 2, zero), hb);
    assert_string_equal(ha, hb);
}

struct sizes {
    uint32_t room, asked;
};

static bool fits(void *ctx, uint32_t n)
{
    struct sizes *s = ctx;
    s->asked++;
    return n <= s->room;
}

static void test_most_that_fits(void **state)
{
    (void)state;
    for (uint32_t most = 0; most < 40; most++)
        for (uint32_t room = 0; room < 45; room++) {
            struct sizes s = {.room = room};
            assert_int_equal(most_that_fits(most, fits, &s), room < most ? room : most);
        }
    struct sizes large = {.room = 3000000000};
    assert_int_equal(most_that_fits(UINT32_MAX, fits, &large), 3000000000);
    assert_true(large.asked < 40);
}

/* ---- errors and the log ---- */

static void test_err(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(os_exit_code(&e), 0);
    assert_false(err_set(&e, ERR_USER, "no %s", "such file"));
    assert_int_equal(os_exit_code(&e), 2);
    assert_false(err_hint(&e, "look at %d", 7));
    assert_false(err_context(&e, "block %d", 12));
    assert_string_equal(e.msg, "block 12: no such file");
    assert_string_equal(e.hint, "look at 7");
    /* A path or tensor that is named already is not named again; the beginning of another name and a word are no names. */
    err_set(&e, ERR_USER, "the tensors of a/model have no name (b.bin)");
    assert_false(err_context(&e, "%s", "a/model"));
    assert_false(err_context(&e, "%s", "b.bin"));
    assert_string_equal(e.msg, "the tensors of a/model have no name (b.bin)");
    assert_false(err_context(&e, "%s", "a/mod"));
    assert_false(err_context(&e, "%s", "name"));
    assert_string_equal(e.msg, "name: a/mod: the tensors of a/model have no name (b.bin)");
    /* A part of a module names it; another module's beginning does not, nor a file beside a path. */
    err_set(&e, ERR_ENV, "model.layers.1.mlp.gate_proj: lost");
    assert_false(err_context(&e, "%s", "model.layers.1"));
    assert_false(err_context(&e, "%s", "layers.1"));
    assert_string_equal(e.msg, "layers.1: model.layers.1.mlp.gate_proj: lost");
    err_set(&e, ERR_ENV, "a/model.safetensors");
    assert_false(err_context(&e, "%s", "a/model"));
    assert_string_equal(e.msg, "a/model: a/model.safetensors");
    /* What another process has told is whole. */
    e.told = true;
    assert_false(err_context(&e, "%s", "here"));
    assert_string_equal(e.msg, "a/model: a/model.safetensors");
    assert_false(err_set(&e, ERR_ENV, "x") || err_context(&e, "here"));
    assert_string_equal(e.msg, "here: x");
    err_set(&e, ERR_ENV, "x");
    assert_string_equal(e.hint, "");
    assert_int_equal(os_exit_code(&e), 3);
    err_nomem(&e, "a thing", 99);
    assert_non_null(strstr(e.msg, "99 bytes for a thing"));
    err_set(&e, ERR_BUG, "x");
    assert_int_equal(os_exit_code(&e), 4);
    err_set(&e, ERR_STOPPED, "x");
    assert_int_equal(os_exit_code(&e), 130);
    assert_false(err_set(NULL, ERR_USER, "nobody listens"));

    /* Messages longer than the room are cut, never overrun; the context stays. */
    char *huge = malloc(5000);
    assert_non_null(huge);
    memset(huge, 'x', 4999);
    huge[4999] = 0;
    err_set(&e, ERR_USER, "%s", huge);
    err_context(&e, "front");
    assert_memory_equal(e.msg, "front: xxx", 10);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
    err_context(&e, "%s", huge);
    assert_true(strlen(e.msg) < sizeof e.msg);
    free(huge);
}

static void test_log(void **state)
{
    (void)state;
    enum log_level l = LOG_INFO;
    assert_true(log_level_parse("debug", &l) && l == LOG_DEBUG);
    assert_true(log_level_parse("error", &l) && l == LOG_ERROR);
    assert_false(log_level_parse("loud", &l));
}

/* ---- the operating system ---- */

#define DIR_NAME "test_base.tmp"

static int fresh_dir(void **state)
{
    (void)state;
    struct err e;
    return os_remove_tree(DIR_NAME) && os_mkdirs(DIR_NAME "/a/b", &e) ? 0 : -1;
}

static int drop_dir(void **state)
{
    (void)state;
    return os_remove_tree(DIR_NAME) ? 0 : -1;
}

static void test_files(void **state)
{
    (void)state;
    struct err e = {0};
    const char *path = DIR_NAME "/a/na\xC3\xAFve \xE6\x97\xA5\xE6\x9C\xAC.txt"; /* UTF-8 everywhere */
    uint64_t size = 0;
    assert_int_equal(os_stat(path, NULL), OS_ABSENT);
    assert_true(os_write_file(path, "hello", 5, &e));
    assert_true(os_write_file(path, "hello again", 11, &e)); /* replaces */
    assert_int_equal(os_stat(path, &size), OS_FILE);
    assert_int_equal(size, 11);
    assert_int_equal(os_stat(DIR_NAME "/a", NULL), OS_DIR);

    char *data;
    size_t n;
    assert_true(os_read_file(path, 100, &data, &n, &e));
    assert_int_equal(n, 11);
    assert_string_equal(data, "hello again");
    free(data);
    assert_false(os_read_file(path, 10, &data, &n, &e));
    assert_int_equal(e.kind, ERR_USER);
    assert_false(os_read_file(DIR_NAME "/none", 10, &data, &n, &e));
    assert_int_equal(e.kind, ERR_USER);
    assert_non_null(strstr(e.msg, "none"));
    assert_string_not_equal(e.hint, "");

    struct os_map m;
    assert_true(os_map_file(&m, path, &e));
    assert_int_equal(m.size, 11);
    assert_memory_equal(m.data, "hello again", 11);
    os_map_drop(&m, 0, 11);
    os_unmap(&m);
    assert_null(m.data);
    assert_true(os_write_file(DIR_NAME "/empty", "", 0, &e));
    assert_true(os_map_file(&m, DIR_NAME "/empty", &e));
    assert_true(m.data == NULL && m.size == 0);
    os_unmap(&m);
    assert_false(os_map_file(&m, DIR_NAME, &e));

    FILE *f = os_fopen(path, "ab");
    assert_non_null(f);
    assert_int_equal(fputs("!", f) >= 0, 1);
    assert_true(os_sync_file(f, path, &e));
    fclose(f);
    assert_int_equal(os_stat(path, &size), OS_FILE);
    assert_int_equal(size, 12);
    assert_true(os_rename(path, DIR_NAME "/empty", &e)); /* over an existing file */
    assert_int_equal(os_stat(path, NULL), OS_ABSENT);
    assert_false(os_rename(path, DIR_NAME "/x", &e));
    assert_true(os_remove(DIR_NAME "/empty"));
    assert_true(os_remove(DIR_NAME "/empty")); /* gone is gone */
    assert_false(os_write_file(DIR_NAME "/no/such/folder", "x", 1, &e));
    assert_true(os_mkdirs(DIR_NAME "/a/b", &e)); /* there already */
    assert_true(os_write_file(DIR_NAME "/plain", "x", 1, &e));
    assert_false(os_mkdirs(DIR_NAME "/plain/sub", &e));
    assert_false(os_mkdirs("", &e));
}

struct names {
    char text[256];
    unsigned n;
};

static bool collect(void *ctx, const char *name, struct err *e)
{
    struct names *names = ctx;
    strcat(strcat(names->text, name), " ");
    return ++names->n < 4 || err_set(e, ERR_USER, "enough");
}

static void test_folders(void **state)
{
    (void)state;
    struct err e = {0};
    static const char *const files[] = {"c", "a", "b\xC3\xA9"};
    for (int i = 0; i < 3; i++) {
        char path[256];
        assert_true(os_path_join(path, sizeof path, DIR_NAME "/a/b", files[i], &e));
        assert_true(os_write_file(path, "x", 1, &e));
    }
    struct names names = {0};
    assert_true(os_list(DIR_NAME "/a/b", collect, &names, &e));
    assert_string_equal(names.text, "a b\xC3\xA9 c ");
    names.n = 1;
    assert_false(os_list(DIR_NAME "/a/b", collect, &names, &e));
    assert_string_equal(e.msg, "enough");
    assert_false(os_list(DIR_NAME "/none", collect, &names, &e));
    uint64_t here = 0, below = 0, bytes = 0;
    assert_true(os_disk_free(DIR_NAME, &bytes, &here) && bytes > 0);
    bytes = 0;
    assert_true(os_disk_free(DIR_NAME "/not/there/yet", &bytes, &below) && bytes > 0);
    assert_true(here != 0 && here == below);
    assert_true(os_disk_free(DIR_NAME, &bytes, NULL));
    char small[8];
    assert_true(os_path_join(small, sizeof small, "abc", "def", &e));
    assert_string_equal(small, "abc/def");
    assert_false(os_path_join(small, sizeof small, "abcd", "def", &e));
    assert_true(os_path_join(small, sizeof small, "a/", "b", &e));
    assert_string_equal(small, "a/b");
}

static void test_scratch(void **state)
{
    (void)state;
    struct err e = {0};
    struct os_map m;
    assert_true(os_map_scratch(&m, DIR_NAME, 3 << 20, &e));
    assert_int_equal(m.size, 3 << 20);
    uint8_t *bytes = (uint8_t *)(uintptr_t)m.data;
    assert_int_equal(bytes[(3 << 20) - 1], 0);
    memset(bytes, 0xA5, 3 << 20);
    assert_int_equal(bytes[12345], 0xA5);
    os_unmap(&m);
    assert_true(os_remove_tree(DIR_NAME)); /* nothing is left that holds it */
    assert_int_equal(os_stat(DIR_NAME, NULL), OS_ABSENT);
    assert_true(os_mkdirs(DIR_NAME, &e));
    assert_false(os_map_scratch(&m, DIR_NAME "/none", 4096, &e));
}

static void test_self(void **state)
{
    (void)state;
    char path[4096], small[8];
    assert_true(os_self_path(path, sizeof path));
    assert_int_equal(os_stat(path, NULL), OS_FILE);
    assert_int_equal(strncmp(os_base_name(path), "test_base", 9), 0);
    assert_false(os_self_path(small, sizeof small));
}

static void test_machine(void **state)
{
    (void)state;
    uint64_t t0 = os_now_ns();
    os_sleep_ms(20);
    uint64_t t1 = os_now_ns();
    assert_true(t1 - t0 >= 15u * 1000 * 1000 && t1 - t0 < UINT64_C(60) * 1000 * 1000 * 1000);
    assert_true(os_cpu_count() >= 1);
    assert_true(os_memory_total() > 0);
    assert_true(os_memory_available() <= os_memory_total());
    assert_true(os_peak_rss() > 0);
    assert_true(os_terminal_columns() > 0);
    char cache[1024];
    if (os_cache_dir(cache, sizeof cache))
        assert_non_null(strstr(cache, "gsq"));
    assert_null(os_getenv("GSQ_TEST_UNSET"));
    os_setenv("GSQ_TEST_UNSET", "1", false);
    os_setenv("GSQ_TEST_UNSET", "2", false);
    assert_string_equal(os_getenv("GSQ_TEST_UNSET"), "1");
    os_setenv("GSQ_TEST_UNSET", "2", true);
    assert_string_equal(os_getenv("GSQ_TEST_UNSET"), "2");
}

/* Text of files for people: what is odd is spelled out. */
static void test_clean(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain \xC3\xA4 \xE6\xA8\xA1 \xF0\x9F\x98\x80", "plain \xC3\xA4 \xE6\xA8\xA1 \xF0\x9F\x98\x80"},
        {"\x1b[31mred", "\\x1b[31mred"},
        {"\xC2\x9B"
         "2J\x7f",
         "\\x9b2J\\x7f"},
        {"a\xE2\x80\xAE"
         "b\xE2\x81\xA6",
         "a\\u202eb\\u2066"},
        {"\xFF\xFEx\xC0\x80y", "\\xff\\xfex\\xc0\\x80y"},
        {"line\nand\ttab\r", "line\\x0aand\\x09tab\\x0d"},
        {"cut \xE6\xA8", "cut "},
        {"\xF3\xA0\x81\x81", "\\ue0041"},
        {"", ""},
    };
    char out[128];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n = clean_text(out, sizeof out, cases[i].in, strlen(cases[i].in), false);
        assert_string_equal(out, cases[i].out);
        assert_int_equal(n, strlen(out));
        /* Clean text stays as it is. */
        clean_text(out, sizeof out, cases[i].out, strlen(cases[i].out), false);
        assert_string_equal(out, cases[i].out);
        assert_in_range(n, 0, CLEAN_GROWTH * strlen(cases[i].in));
    }
    clean_text(out, sizeof out, "a\n\tb\r", 5, true);
    assert_string_equal(out, "a\n\tb\\x0d");
    assert_int_equal(clean_text(out, 6, "ab\x1b\x1b", 4, false), 2); /* whole spellings only */
    assert_string_equal(out, "ab");
    char *json = clean_json("{\"a\":\"\xFF\xC2\x9B\xE2\x80\xAE\xC3\xA4\xF3\xA0\x81\x81\\u001b\"}");
    assert_string_equal(json, "{\"a\":\"\xEF\xBF\xBD\\u009b\\u202e\xC3\xA4\\udb40\\udc41\\u001b\"}");
    free(json);
    struct err e;
    err_set(&e, ERR_USER, "no %s\x1b", "\xC2\x9B");
    err_context(&e, "%s", "\x07");
    assert_string_equal(e.msg, "\\x07: no \\x9b\\x1b");
}

static void put(const char *path, const char *text)
{
    struct err e;
    assert_true(os_write_file(path, text, strlen(text), &e));
}

/* Limits of containers: the tightest of the group and those above, and what counts as used below it. */
static void test_cgroup(void **state)
{
    (void)state;
    uint64_t limit, used;
    const char *self = DIR_NAME "/self", *root = DIR_NAME "/cg";
    struct err e;
    os_cgroup_memory(DIR_NAME "/none", root, &limit, &used);
    assert_true(limit == UINT64_MAX && used == 0);
    assert_true(os_mkdirs(DIR_NAME "/cg/a/b", &e) && os_mkdirs(DIR_NAME "/cg/memory/docker/x", &e));
    put(self, "0::/a/b\n");
    put(DIR_NAME "/cg/a/b/memory.max", "max\n");
    put(DIR_NAME "/cg/a/memory.max", "2000000\n");
    put(DIR_NAME "/cg/a/memory.current", "1500000\n");
    put(DIR_NAME "/cg/a/memory.stat", "anon 7\ninactive_file 400000\n");
    os_cgroup_memory(self, root, &limit, &used);
    assert_true(limit == 2000000 && used == 1100000);
    put(DIR_NAME "/cg/a/b/memory.max", "1000\n");
    os_cgroup_memory(self, root, &limit, &used);
    assert_true(limit == 1000 && used == 0);
    /* Version 1, in a container that does not see its group's path: what is mounted is its own. */
    put(self, "5:cpu,cpuacct:/x\n4:memory:/docker/elsewhere\n");
    put(DIR_NAME "/cg/memory/memory.limit_in_bytes", "3000000\n");
    put(DIR_NAME "/cg/memory/memory.usage_in_bytes", "100\n");
    os_cgroup_memory(self, root, &limit, &used);
    assert_true(limit == 3000000 && used == 100);
    /* No limit is a number that no machine has. */
    put(DIR_NAME "/cg/memory/memory.limit_in_bytes", "9223372036854771712\n");
    os_cgroup_memory(self, root, &limit, &used);
    assert_true(limit >= UINT64_C(9223372036854771712));
    assert_true(os_memory_total() > 0 && os_memory_total() < UINT64_C(1) << 50);
}

/* One process, whether MPI is built in or not: it leads, agrees with itself, and makes the whole. */
static void test_comm(void **state)
{
    struct err e = {0};
    uint32_t data[3] = {1, 2, 3}, all[3] = {0};
    (void)state;
    assert_true(comm_leads());
    assert_int_equal(comm_size(), 1);
    assert_true(comm_agree(true, &e));
    err_set(&e, ERR_USER, "its own");
    assert_false(comm_agree(false, &e));
    assert_string_equal(e.msg, "its own");
    assert_true(comm_gather(COMM_STATES, data, 3, 1, sizeof *data, NULL) &&
                comm_broadcast(COMM_SETTINGS, data, sizeof data, 0, NULL));
    assert_true(comm_scatter(COMM_GRADIENTS, data, 3, 1, sizeof *data, 1, all, NULL));
    const struct comm_bytes counted = comm_counted(), none = {0}; /* one process sends nothing */
    assert_memory_equal(&counted, &none, sizeof none);
    assert_memory_equal(all, data, sizeof data);
    for (uint32_t unit = 1; unit < 9; unit++) {
        struct comm_part part = comm_part(7, unit, 0);
        assert_int_equal(part.first, 0);
        assert_int_equal(part.end, 7);
    }
}

static void test_stop(void **state)
{
    (void)state;
    os_catch_stop();
    assert_false(os_stop_requested());
    os_request_stop();
    assert_true(os_stop_requested());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_narrow),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_texts_of_numbers),
        cmocka_unit_test(test_most_that_fits),
        cmocka_unit_test(test_err),
        cmocka_unit_test(test_log),
        cmocka_unit_test_setup_teardown(test_files, fresh_dir, drop_dir),
        cmocka_unit_test_setup_teardown(test_folders, fresh_dir, drop_dir),
        cmocka_unit_test_setup_teardown(test_scratch, fresh_dir, drop_dir),
        cmocka_unit_test(test_machine),
        cmocka_unit_test(test_clean),
        cmocka_unit_test(test_self),
        cmocka_unit_test_setup_teardown(test_cgroup, fresh_dir, drop_dir),
        cmocka_unit_test(test_comm),
        cmocka_unit_test(test_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
