/* Kernel variants by measurement (lib/choose.h), with candidates of this test's own: one that is right and fast where subgroups have
 * 8 invocations, one that is the usual variant again, some that compute wrong values, and one that no pipeline can be made of. */
#define kernel_variants built_variants
#include "shaders/kernel_table.c"
#undef kernel_variants

#define DIR_ "test_choice.tmp"
#include <cjson/cJSON.h>

#include "host/base/log.h"
#include "host/gpu/gpu_choice.h"
#include "host/gpu/gpu_pipeline.h"
#include "lib/choose.h"
#include "lib/kernel_cases.h"
#include "lib/lib_internal.h"
#include "tests/scratch_dir.h"

/* ---- the table of this program, in place of the built one ---- */

enum { ROWS_MOST = 400, OWN = 6 };
struct kernel_variant kernel_variants[ROWS_MOST];
static uint32_t wrong_product[sizeof words_gemm_half_base / 4], wrong_attention[sizeof words_attn_fwd_base / 4];

/* Every sum becomes a difference. */
static void make_wrong(uint32_t *words, const uint32_t *right, size_t n)
{
    enum { HEADER = 5, OP_FADD = 129, OP_FSUB = 131 };
    unsigned changed = 0;
    memcpy(words, right, n * sizeof *words);
    for (size_t i = HEADER; i < n; i += words[i] >> 16)
        if ((words[i] & 0xffff) == OP_FADD) {
            words[i] = (words[i] & 0xffff0000) | OP_FSUB;
            changed++;
        }
    assert_true(changed > 0);
}

static const struct kernel_variant *built(enum kernel_id kernel, const char *name)
{
    const struct kernel_variant *v = built_variants;
    while (v->kernel < KERNEL_COUNT && (v->kernel != kernel || strcmp(v->name, name) != 0))
        v++;
    assert_true(v->kernel < KERNEL_COUNT);
    return v;
}

static struct kernel_variant candidate(const struct kernel_variant *of, const char *name, uint32_t needs)
{
    struct kernel_variant v = *of;
    v.name = name;
    v.needs = needs;
    v.tune = true;
    return v;
}

/* Candidates of a kernel, as the next rows. */
static void add_candidates(enum kernel_id kernel, unsigned *n)
{
    struct kernel_variant wrong, broken;
    if (kernel == KERNEL_ID_gemm_half) {
        wrong = broken = candidate(built(kernel, "base"), "wrong", 0);
        wrong.words = wrong_product;
        broken.name = "broken";
        broken.words = words_add_base;
        broken.n_words = sizeof words_add_base / 4;
        kernel_variants[(*n)++] = wrong;
        kernel_variants[(*n)++] = broken;
    }
    if (kernel == KERNEL_ID_attn_fwd) {
        wrong = candidate(built(kernel, "base"), "wrong", 0);
        wrong.words = wrong_attention;
        kernel_variants[(*n)++] = wrong;
        kernel_variants[(*n)++] = candidate(built(kernel, "base"), "same", 0);
    }
    if (kernel == KERNEL_ID_gemm || kernel == KERNEL_ID_gemm_half)
        kernel_variants[(*n)++] = candidate(built(kernel, "cpu"), "lanes", GPU_CAP_LANES8);
}

/* The lines without TUNE, and the candidates. */
static int make_table(void **state)
{
    unsigned n = 0;
    make_wrong(wrong_product, words_gemm_half_base, sizeof wrong_product / 4);
    make_wrong(wrong_attention, words_attn_fwd_base, sizeof wrong_attention / 4);
    for (const struct kernel_variant *v = built_variants; v->kernel < KERNEL_COUNT; v++) {
        assert_true(n + OWN + 1 < ROWS_MOST);
        if (v == built_variants || v->kernel != v[-1].kernel)
            add_candidates(v->kernel, &n);
        if (!v->tune)
            kernel_variants[n++] = *v;
    }
    kernel_variants[n] = (struct kernel_variant){.kernel = KERNEL_COUNT, .name = ""};
    return make_dir(state);
}

/* ---- a device that is no CPU ---- */

static gsq_device *device;
static char said[4096]; /* warnings */

static void listen(void *ctx, enum log_level level, const char *line)
{
    (void)ctx;
    size_t n = strlen(said);
    if (level <= LOG_WARN)
        snprintf(said + n, sizeof said - n, "%s\n", line);
}

static void open_device(const char *cache, const char *variant)
{
    struct gsq_error e = {0};
    struct gsq_device_options o;
    gsq_device_options_init(&o);
    o.cache_dir = cache;
    o.variant = variant;
    os_setenv("GSQ_WITHOUT", "cpu", true);
    said[0] = 0;
    log_set_sink(listen, NULL);
    if (!gsq_device_open(&device, &o, &e))
        fail_msg("%s", e.message);
}

static void close_device(void)
{
    struct gsq_device_info info = {.size = sizeof info};
    gsq_device_get_info(device, &info);
    gsq_device_close(&device);
    log_set_sink(NULL, NULL);
    assert_int_equal(info.validation_messages, 0);
}

static void choose(bool again)
{
    struct gsq_error e = {0};
    if (!gsq_device_choose(device, again, &e))
        fail_msg("%s", e.message);
}

static const struct candidate *of(const char *name)
{
    const struct candidate *c = choice_find(&device->choice, name);
    assert_non_null(c);
    return c;
}

static bool has_lanes(void)
{
    return gpu_info(device->gpu)->caps & GPU_CAP_LANES8;
}

static const char *used(unsigned kernel)
{
    struct err e = {0};
    const char *v = gpu_kernel_variant(device->gpu, kernel, NULL, &e);
    assert_non_null(v);
    return v;
}

/* The one file that remembers, malloc'ed, and its name. */
static bool note_json(void *ctx, const char *name, struct err *e)
{
    (void)e;
    if (strncmp(name, "variants-", 9) == 0 && strstr(name, ".json"))
        snprintf(ctx, 256, "%s/%s", DIR_, name);
    return true;
}
static char *remembered(char path[256])
{
    struct err e = {0};
    char *text;
    size_t n;
    path[0] = 0;
    OK(os_list(DIR_, note_json, path, &e), e);
    OK(os_read_file(path, 1 << 20, &text, &n, &e), e);
    return text;
}

/* The file with `was` in the place of `is`, once. */
static void edit(const char *was, const char *is)
{
    struct err e = {0};
    char path[256], *text = remembered(path), *at = strstr(text, was), *out = malloc(strlen(text) + strlen(is) + 1);
    assert_true(at && out);
    sprintf(out, "%.*s%s%s", (int)(at - text), text, is, at + strlen(was));
    OK(os_write_file(path, out, strlen(out), &e), e);
    free(out);
    free(text);
}

/* ---- tests ---- */

static void test_chosen(void **state)
{
    (void)state;
    open_device(DIR_, NULL);
    assert_int_equal(of("gemm_half.wrong")->state, CANDIDATE_NEW);
    assert_string_equal(used(KERNEL_ID_gemm_half), "base");
    choose(false);
    assert_int_equal(of("gemm_half.wrong")->state, CANDIDATE_REFUSED);
    assert_non_null(strstr(of("gemm_half.wrong")->why, "wrong values"));
    assert_int_equal(of("gemm_half.broken")->state, CANDIDATE_REFUSED);
    assert_non_null(strstr(of("gemm_half.broken")->why, "cannot be compiled"));
    assert_int_equal(of("attn_fwd.wrong")->state, CANDIDATE_REFUSED);
    assert_non_null(strstr(of("attn_fwd.wrong")->why, "wrong values"));
    assert_int_equal(of("attn_fwd.same")->state, CANDIDATE_MEASURED);
    if (has_lanes()) { /* five times as fast: no noise reaches that */
        assert_int_equal(of("gemm_half.lanes")->state, CANDIDATE_MEASURED);
        assert_string_equal(used(KERNEL_ID_gemm), "lanes");
        assert_string_equal(used(KERNEL_ID_gemm_half), "lanes");
    } else {
        assert_string_equal(used(KERNEL_ID_gemm_half), "base");
    }
    assert_string_equal(said, "");
    assert_int_equal(gpu_memory_peak(device->gpu), 0); /* of a run, trials do not count */
    close_device();
}

static void test_remembered(void **state)
{
    (void)state;
    char path[256], *before = remembered(path);
    open_device(DIR_, NULL);
    struct choice first = device->choice;
    assert_true(choice_complete(&first));
    choose(false); /* measures nothing: two measurements are never the same */
    assert_memory_equal(&first, &device->choice, sizeof first);
    if (has_lanes())
        assert_string_equal(used(KERNEL_ID_gemm_half), "lanes");
    close_device();
    char *after = remembered(path);
    assert_string_equal(before, after);
    free(after);
    free(before);
    assert_true(only_whole_files());
}

/* Another driver, another set of shaders, and a damaged file. */
static void test_not_of_this_device(void **state)
{
    (void)state;
    static const char *const changes[][2] = {
        {"driver version ", "driver version 1"}, {"shaders ", "shaders 0"}, {"{", "no JSON"}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        edit(changes[i][0], changes[i][1]);
        open_device(DIR_, NULL);
        assert_int_equal(of("gemm_half.wrong")->state, CANDIDATE_NEW);
        if (i == 2) {
            choose(false);
            assert_int_equal(of("gemm_half.wrong")->state, CANDIDATE_REFUSED);
        }
        close_device();
    }
}

static void test_driver_died(void **state)
{
    (void)state;
    const char *name = "gemm_half.broken";
    edit("\"trying\":\t\"\"", "\"trying\":\t\"gemm_half.broken\"");
    open_device(DIR_, NULL);
    choose(false);
    assert_int_equal(of(name)->state, CANDIDATE_EXCLUDED);
    assert_non_null(strstr(said, "the driver died while it was tried"));
    assert_non_null(strstr(said, name));
    close_device();
    open_device(DIR_, NULL); /* said once, remembered */
    choose(false);
    assert_int_equal(of(name)->state, CANDIDATE_EXCLUDED);
    assert_string_equal(said, "");
    char *text = gsq_kernels_text(device, NULL);
    assert_non_null(text);
    assert_non_null(strstr(text, "broken excluded: the driver died while trying it"));
    gsq_free(text);
    choose(true);
    assert_int_equal(of(name)->state, CANDIDATE_REFUSED);
    close_device();
}

/* A cache folder that cannot be: measured, and not remembered. */
static void test_nowhere(void **state)
{
    (void)state;
    struct err e = {0};
    OK(os_write_file(DIR_ "/a file", "x", 1, &e), e);
    open_device(DIR_ "/a file/cache", NULL);
    choose(false);
    assert_int_equal(of("gemm_half.wrong")->state, CANDIDATE_REFUSED);
    struct choice first = device->choice;
    choose(false); /* once in a process */
    assert_memory_equal(&first, &device->choice, sizeof first);
    close_device();
}

/* --variant measures nothing, and uses nothing that was measured. */
static void test_by_name(void **state)
{
    (void)state;
    char text[GPU_CHOICE_TEXT];
    open_device(DIR_, "wrong");
    choose(true);
    assert_string_equal(used(KERNEL_ID_gemm_half), "wrong");
    assert_string_equal(used(KERNEL_ID_gemm), "base");
    gpu_choice_text(device->gpu, text);
    assert_string_equal(text, "");
    close_device();
}

/* A choice as a text, which the manifest of a run holds. */
static void test_text(void **state)
{
    (void)state;
    char text[GPU_CHOICE_TEXT];
    struct err e = {0};
    open_device("", NULL);
    uint64_t plain = gpu_kernels_identity(device->gpu);
    OK(gpu_choice_take(device->gpu, "gemm_half=wrong,broken", &e), e);
    assert_string_equal(used(KERNEL_ID_gemm_half), "wrong");
    assert_true(gpu_kernels_identity(device->gpu) != plain);
    gpu_choice_text(device->gpu, text);
    assert_string_equal(text, "gemm_half=wrong,broken");
    FAILS(gpu_choice_take(device->gpu, "gemm_half=broken gemm=gone", &e), e, ERR_USER,
          "kernel gemm has no variant gone");
    FAILS(gpu_choice_take(device->gpu, "gemm=cpu", &e), e, ERR_USER, "cannot run variant cpu of kernel gemm");
    FAILS(gpu_choice_take(device->gpu, "gone=base", &e), e, ERR_USER, "no kernel gone");
    gpu_choice_text(device->gpu, text);
    assert_string_equal(text, "gemm_half=wrong,broken");
    OK(gpu_choice_take(device->gpu, "", &e), e);
    assert_true(gpu_kernels_identity(device->gpu) == plain);
    close_device();
}

static void test_rank(void **state)
{
    (void)state;
    const char *names[GPU_PREFER_MAX];
    struct choice c = {.kernels[KERNEL_ID_gemm] = {
                           7,
                           {{"slow", CANDIDATE_MEASURED, 11, 10, ""},
                            {"fast", CANDIDATE_MEASURED, 5, 10, ""},
                            {"same", CANDIDATE_MEASURED, 9.9, 10, ""},
                            {"dead", CANDIDATE_EXCLUDED, 1, 10, ""},
                            {"fastest", CANDIDATE_MEASURED, 40, 100, ""}, /* of other calls */
                            {"untimed", CANDIDATE_MEASURED, 0, 0, ""},
                            {"faster", CANDIDATE_MEASURED, 9, 10, ""}},
                       }};
    assert_int_equal(choice_rank(&c, KERNEL_ID_gemm, names), 3);
    assert_string_equal(names[0], "fastest");
    assert_string_equal(names[1], "fast");
    assert_string_equal(names[2], "faster");
    assert_int_equal(choice_rank(&c, KERNEL_ID_gemm_half, names), 0);
}

/* Whatever has candidates can be tried. */
static void test_rows(void **state)
{
    (void)state;
    for (const struct kernel_variant *v = built_variants; v->kernel < KERNEL_COUNT; v++) {
        unsigned trials = 0, times = 0;
        for (size_t i = 0; i < n_trial_cases; i++) {
            struct trial_case t;
            trial_case(i, &t);
            trials += t.kernel == v->kernel;
        }
        for (size_t i = 0; i < n_bench_cases; i++) {
            struct bench_case b;
            bench_case(i, &(struct bench_sizes){64, 64, 64}, &b);
            times += b.kernel == v->kernel;
        }
        if (v->tune && (!trials || !times))
            fail_msg("kernel %s has the candidate %s and no TRIAL or BENCH row", kernel_decls[v->kernel].name, v->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chosen),
        cmocka_unit_test(test_remembered),
        cmocka_unit_test(test_not_of_this_device),
        cmocka_unit_test(test_driver_died),
        cmocka_unit_test(test_nowhere),
        cmocka_unit_test(test_by_name),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_rank),
        cmocka_unit_test(test_rows),
    };
    return cmocka_run_group_tests(tests, make_table, remove_dir);
}
