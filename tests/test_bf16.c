/* The products in bf16 (variants with bf16 in their names), which no driver here can run: as f16. The same shaders, with the
 * one type in place of the other, give what f16 gives; numbers of the trial's rows fit it. */
#define kernel_variants built_variants
#include "shaders/kernel_table.c"
#undef kernel_variants

#include "host/gpu/gpu_gemm.h"
#include "host/gpu/gpu_pipeline.h"
#include "lib/trial.h"
#include "tests/device.h"

enum { ROWS_MOST = 500, SHADERS_MOST = 16 };
struct kernel_variant kernel_variants[ROWS_MOST];
static uint32_t *shaders[SHADERS_MOST];
static unsigned n_shaders;

/* Without the words of SPV_KHR_bfloat16; returns how many are left. */
static uint32_t as_f16(const uint32_t *words, uint32_t n, uint32_t *out)
{
    enum { HEADER = 5, OP_EXTENSION = 10, OP_CAPABILITY = 17, OP_TYPE_FLOAT = 22 };
    enum { BF16_TYPE = 5116, BF16_DOT = 5117, BF16_MATRIX = 5118 };
    static const char extension[] = "SPV_KHR_bfloat16";
    uint32_t left = HEADER, types = 0;
    memcpy(out, words, HEADER * 4);
    for (uint32_t i = HEADER, size; i < n; i += size) {
        uint32_t op = words[i] & 0xffff;
        size = words[i] >> 16;
        assert_true(size > 0 && size <= n - i);
        if ((op == OP_CAPABILITY && words[i + 1] >= BF16_TYPE && words[i + 1] <= BF16_MATRIX) ||
            (op == OP_EXTENSION && memcmp(&words[i + 1], extension, sizeof extension) == 0))
            continue;
        memcpy(out + left, words + i, (size_t)size * 4);
        if (op == OP_TYPE_FLOAT && size == 4) {
            out[left] = 3u << 16 | OP_TYPE_FLOAT;
            left += 3;
            types++;
        } else {
            left += size;
        }
    }
    assert_int_equal(types, 1);
    return left;
}

static int make_table(void **state)
{
    unsigned n = 0;
    for (const struct kernel_variant *v = built_variants; v->kernel < KERNEL_COUNT; v++) {
        assert_true(n + 1 < ROWS_MOST);
        kernel_variants[n++] = *v;
        if (!(v->needs & GPU_CAP_BF16))
            continue;
        assert_true(n_shaders < SHADERS_MOST);
        uint32_t *words = shaders[n_shaders++] = malloc((size_t)v->n_words * 4);
        assert_non_null(words);
        kernel_variants[n - 1].n_words = as_f16(v->words, v->n_words, words);
        kernel_variants[n - 1].words = words;
        kernel_variants[n - 1].needs &= ~(uint32_t)GPU_CAP_BF16;
    }
    kernel_variants[n] = (struct kernel_variant){.kernel = KERNEL_COUNT, .name = ""};
    return device_setup(state);
}

static void test_products(void **state)
{
    (void)state;
    unsigned tried = 0;
    for (const struct kernel_variant *v = built_variants; v->kernel < KERNEL_COUNT; v++) {
        char why[TRIAL_WHY];
        struct err e = {0};
        if (!(v->needs & GPU_CAP_BF16) || !gpu_kernel_usable(gpu, v->kernel, v->name, &e))
            continue;
        OK(trial_check(cmd, arena, v->kernel, v->name, why, &e), e);
        if (why[0])
            fail_msg("%s.%s: %s", kernel_decls[v->kernel].name, v->name, why);
        tried++;
    }
    print_message("%u of %u shaders tried\n", tried, n_shaders);
    if (!n_shaders)
        print_message("the shader compiler does not know bf16: nothing is tried\n");
    if (!tried)
        skip();
    assert_int_equal(tried, n_shaders);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_products)};
    int failed = device_done(cmocka_run_group_tests(tests, make_table, NULL));
    for (unsigned i = 0; i < n_shaders; i++)
        free(shaders[i]);
    return failed;
}
