/* Matrices that no buffer of the device may hold, and so lie in several: copies and fills go across, products and kernels
 * over rows give the bits that they give in one. */
#include <string.h>

#include "host/base/os.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/kernels.h"
#include "host/gpu/tiled.h"
#include "tests/device.h"

/* Rows of 2400 bytes: 436 are a MiB, 384 of these whole units; in even parts 600 rows are 320 and 280. */
enum { SIDE = 600, UNIT = 64, CUT = 320, M = 5, NUMBERS = SIDE * SIDE };
#define BYTES     ((uint64_t)NUMBERS * 4)
#define ROW_BYTES ((uint64_t)SIDE * 4)

static float numbers[NUMBERS];

static void make_numbers(void)
{
    uint32_t random = 1;
    for (size_t i = 0; i < NUMBERS; i++)
        numbers[i] = (float)((random = random * 1664525 + 1013904223) >> 16) / 32768.0f - 1;
}

static struct gpu_view square(bool filled)
{
    struct gpu_view v;
    struct err e = {0};
    OK(gpu_alloc_rows(arena, SIDE, ROW_BYTES, UNIT, &v, &e), e);
    assert_int_equal(v.size, BYTES);
    if (filled)
        gpu_upload(cmd, v, numbers, BYTES);
    return v;
}

static struct gpu_view whole(uint64_t bytes)
{
    struct gpu_view v;
    struct err e = {0};
    OK(gpu_alloc(arena, bytes, &v, &e), e);
    gpu_upload(cmd, v, numbers, bytes);
    return v;
}

static struct gpu_matrix at(struct gpu_view v, uint32_t row, uint32_t col)
{
    uint64_t offset = row * ROW_BYTES + col * 4;
    return (struct gpu_matrix){gpu_slice(v, offset, v.size - offset), SIDE};
}

/* What is done with matrices in parts, each kind once: results[i] is its result. */
enum { SUM, PANEL, THIN, FLIPPED, COPIED, DIAGONAL, FILLED, RESULTS };
static void compute(float *results[RESULTS])
{
    struct err e = {0};
    struct gpu_view from = square(true), panel = square(true), sum = square(true), flipped = square(false),
                    copied = square(true), filled = square(true), a = whole(M * ROW_BYTES), thin = whole(M * ROW_BYTES),
                    diagonal = whole(ROW_BYTES);
    /* Rows of C; those of A and C; those of B. */
    gpu_gemm(cmd, &(struct gpu_product){.a = {a, SIDE},
                                        .b = {a, SIDE},
                                        .c = {sum, SIDE},
                                        .m = SIDE,
                                        .n = SIDE,
                                        .k = M,
                                        .alpha = 1,
                                        .beta = 1,
                                        .a_transposed = true,
                                        .b_transposed = true});
    gpu_gemm(cmd, &(struct gpu_product){.a = at(panel, 64, 0),
                                        .b = at(panel, 64, 0),
                                        .c = at(panel, 64, 64),
                                        .m = SIDE - 64,
                                        .n = 64,
                                        .k = 64,
                                        .alpha = -1,
                                        .beta = 1});
    gpu_gemm(cmd, &(struct gpu_product){.a = {a, SIDE},
                                        .b = at(from, 64, 0),
                                        .c = {gpu_slice(thin, 256, thin.size - 256), SIDE},
                                        .m = M,
                                        .n = SIDE - 64,
                                        .k = SIDE,
                                        .alpha = 1});
    tiled_flip(cmd, &(struct flip_args){.in = from, .out = flipped, .n = SIDE, .ldi = SIDE, .ldo = SIDE});
    gpu_copy_part(cmd, at(from, 128, 64), at(copied, 0, 0), SIDE - 128, 100); /* other rows are at the cut of either */
    gpu_copy(cmd, gpu_slice(copied, (CUT - 2) * ROW_BYTES, 5 * ROW_BYTES), gpu_slice(from, 12, BYTES - 12),
             5 * ROW_BYTES);
    gpu_copy(cmd, gpu_slice(copied, 40, 9 * ROW_BYTES), gpu_slice(from, (CUT - 3) * ROW_BYTES + 4, 9 * ROW_BYTES),
             9 * ROW_BYTES);
    tiled_diagonal(cmd, &(struct diagonal_args){.h = from, .diag = diagonal, .n = SIDE, .ldh = SIDE});
    gpu_fill(cmd, gpu_slice(filled, (CUT - 1) * ROW_BYTES, 2 * ROW_BYTES), 0x3f800000);
    const struct gpu_view views[RESULTS] = {sum, panel, thin, flipped, copied, diagonal, filled};
    for (int i = 0; i < RESULTS; i++) {
        results[i] = calloc(NUMBERS, 4);
        assert_non_null(results[i]);
        OK(gpu_download(cmd, views[i], results[i], views[i].size, &e), e);
    }
}

static void test_parts(void **state)
{
    (void)state;
    float *one[RESULTS], *parts[RESULTS];
    struct err e = {0};
    make_numbers();
    device_open((struct gpu_options){0});
    compute(one);
    assert_int_equal(device_close(), 0);

    os_setenv("GSQ_DEVICE_LIMITS", "alloc=1", true);
    device_open((struct gpu_options){0});
    struct gpu_view v = square(false);
    assert_int_equal(gpu_bytes_after(v, 0), CUT * ROW_BYTES);
    assert_int_equal(gpu_bytes_after(v, (CUT - 1) * ROW_BYTES + 4), ROW_BYTES - 4);
    assert_int_equal(gpu_bytes_before(v, BYTES), (SIDE - CUT) * ROW_BYTES);
    assert_int_equal(gpu_bytes_before(v, CUT * ROW_BYTES), CUT * ROW_BYTES);
    assert_int_equal(gpu_memory_used(gpu), BYTES);
    compute(parts);
    for (int i = 0; i < RESULTS; i++) {
        if (memcmp(one[i], parts[i], BYTES) != 0)
            fail_msg("result %d differs in parts", i);
        free(one[i]);
        free(parts[i]);
    }
    /* Nothing can be bound across, and a buffer in parts is not given out as one. */
    struct gpu_view across = gpu_slice(v, CUT * ROW_BYTES - 256, 512);
    run_add(cmd, gpu_items(cmd, KERNEL_ID_add, 128), &(struct add_args){.y = across, .x = across, .n = 128});
    assert_false(gpu_cmd_finish(cmd, &e));
    assert_int_equal(e.kind, ERR_BUG);
    assert_non_null(strstr(e.msg, "lies in two buffers"));
    gpu_arena_reset(arena, 0);
    assert_true(whole(CUT * ROW_BYTES).buffer != v.buffer);
    assert_false(gpu_alloc_rows(arena, 64, 1 << 20, UNIT, &v, &e)); /* a unit of rows is larger than a buffer */
    assert_int_equal(e.kind, ERR_ENV);
    assert_int_equal(device_close(), 0);
    os_setenv("GSQ_DEVICE_LIMITS", "", true);
}

/* A counting arena takes the same. */
static void test_counted(void **state)
{
    (void)state;
    struct err e = {0};
    struct gpu_arena *like = NULL;
    struct gpu_count count = {.limit = 4 * BYTES};
    struct gpu_view v = {0}, w = {0};
    os_setenv("GSQ_DEVICE_LIMITS", "alloc=1", true);
    device_open((struct gpu_options){0});
    OK(gpu_arena_create_counting(&like, gpu, &count, &e) && gpu_alloc_rows(like, SIDE, ROW_BYTES, UNIT, &v, &e) &&
           gpu_alloc_rows(like, SIDE, ROW_BYTES, UNIT, &w, &e),
       e);
    assert_int_equal(count.peak, 2 * BYTES);
    assert_int_equal(gpu_bytes_after(w, 0), CUT * ROW_BYTES);
    gpu_arena_destroy(&like);
    assert_int_equal(device_close(), 0);
    os_setenv("GSQ_DEVICE_LIMITS", "", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_parts), cmocka_unit_test(test_counted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
