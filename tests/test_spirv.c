/* What is read from the kernels' SPIR-V, and what is changed in it. No device is opened. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "host/gpu/gpu_device.h"
#include "host/gpu/kernel_table.h"
#include "host/gpu/kernels.h"
#include "host/gpu/spirv.h"
#include "host/gpu/spirv_barriers.h"
#include "host/gpu/spirv_shared.h"

/* Cut or with bits flipped, it is refused or read, and nothing else happens. */
static void damage(const struct kernel_variant *v)
{
    struct err e = {0};
    struct spirv_info info;
    uint32_t shared, random = 1, *changed;
    size_t n_changed;
    for (size_t n = 0; n < v->n_words; n++) {
        uint32_t *cut = malloc(n * 4 + 1);
        memcpy(cut, v->words, n * 4);
        spirv_reflect(cut, n, &info, &e);
        spirv_shared_bytes(cut, n, NULL, 0, &shared, &e);
        spirv_share_by_barriers(cut, n, &changed, &n_changed, &e);
        free(changed);
        free(cut);
    }
    uint32_t *bad = malloc(v->n_words * 4ull);
    for (unsigned round = 0; round < 20000; round++) {
        memcpy(bad, v->words, v->n_words * 4ull);
        for (unsigned flips = 1 + round % 4; flips > 0; flips--) {
            random = random * 1664525 + 1013904223;
            bad[(random >> 8) % v->n_words] ^= UINT32_C(1) << (random & 31);
        }
        spirv_reflect(bad, v->n_words, &info, &e);
        spirv_shared_bytes(bad, v->n_words, NULL, 0, &shared, &e);
        spirv_share_by_barriers(bad, v->n_words, &changed, &n_changed, &e);
        free(changed);
    }
    free(bad);
}

/* Every embedded module fits its declaration; cut or flipped ones never crash. */
static void test_spirv(void **state)
{
    (void)state;
    struct err e = {0};
    struct spirv_info info;
    for (const struct kernel_variant *v = kernel_variants; v->kernel < KERNEL_COUNT; v++) {
        const struct kernel_decl *d = &kernel_decls[v->kernel];
        assert_true(spirv_reflect(v->words, v->n_words, &info, &e));
        if (info.n_buffers != d->n_buffers || info.push_bytes != d->push_bytes)
            fail_msg("%s %s: %u buffers, %u bytes; kernels.def has %u, %u", d->name, v->name, info.n_buffers,
                     info.push_bytes, d->n_buffers, d->push_bytes);
        assert_true(info.writes != 0); /* a kernel without output */
    }
    const struct kernel_variant *v = kernel_variants;
    while (v->kernel != KERNEL_ID_subtract)
        v++;
    assert_true(spirv_reflect(v->words, v->n_words, &info, &e));
    assert_int_equal(info.writes, 4);
    assert_int_equal(info.reads, 3);
    damage(v);
    while (v->kernel != KERNEL_ID_transpose || (v->needs & GPU_CAP_CPU)) /* one with shared memory */
        v++;
    damage(v);
    assert_false(spirv_reflect(NULL, 0, &info, &e));
}

/* A module of one shared and one private number, words of the specification: each is stored, and after a barrier loaded. Ids: 1
 * the type of numbers, 2 and 3 pointers to shared and private ones, 4 the scope, 5 the semantics (which is also what is stored), 6
 * the shared number, 7 the private one. */
#define OP(op, len) ((len) << 16 | (op))
#define BEFORE_BARRIER(n_ids)                                                                                          \
    0x07230203, 0x10600, 0, n_ids, 0, OP(14, 3), 0, 3, OP(21, 4), 1, 32, 0, OP(32, 4), 2, 4, 1, OP(32, 4), 3, 6, 1,    \
        OP(43, 4), 1, 4, 2, OP(43, 4), 1, 5, 0x108
#define VARIABLES OP(59, 4), 2, 6, 4, OP(59, 4), 3, 7, 6

/* Accesses of shared memory are plain, the barrier makes known, the number beside it is as it was; other memory keeps its own. */
static void test_share_by_barriers(void **state)
{
    (void)state;
    static const uint32_t before[] = {
        BEFORE_BARRIER(12), VARIABLES, OP(62, 6), 6,    5,          0x2a, 4, 4, // aligned to 4, available, not private
        OP(62, 5),          7,         5,         0x28, 4,                      // private memory
        OP(224, 4),         4,         4,         5,    OP(61, 6),  1,    8, 6, 0x30, 4, // visible, not private
        OP(61, 4),          1,         9,         6,    OP(225, 3), 4,    5,
    };
    static const uint32_t after[] = {
        BEFORE_BARRIER(13),
        OP(43, 4),
        1,
        12,
        0x6108,
        VARIABLES,
        OP(62, 5),
        6,
        5,
        0x22,
        4,
        OP(62, 5),
        7,
        5,
        0x28,
        4,
        OP(224, 4),
        4,
        4,
        12,
        OP(61, 5),
        1,
        8,
        6,
        0x20,
        OP(61, 4),
        1,
        9,
        6,
        OP(225, 3),
        4,
        12,
    };
    struct err e = {0};
    uint32_t *out, other[sizeof before / sizeof *before];
    size_t n, n_before = sizeof before / sizeof *before;
    assert_true(spirv_share_by_barriers(before, n_before, &out, &n, &e));
    assert_int_equal(n, sizeof after / sizeof *after);
    assert_memory_equal(out, after, sizeof after);
    free(out);
    /* The classic memory model, and a barrier that only acquires, stay as they are. */
    const struct {
        size_t at;
        uint32_t was, is;
    } kept[] = {{7, 3, 1}, {27, 0x108, 0x102}};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        memcpy(other, before, sizeof before);
        assert_int_equal(other[kept[i].at], kept[i].was);
        other[kept[i].at] = kept[i].is;
        assert_true(spirv_share_by_barriers(other, n_before, &out, &n, &e));
        assert_null(out);
    }
    /* No kernel that is built is left with such an access. */
    for (const struct kernel_variant *v = kernel_variants; v->kernel < KERNEL_COUNT; v++) {
        assert_true(spirv_share_by_barriers(v->words, v->n_words, &out, &n, &e));
        if ((v->needs & GPU_CAP_COOPMAT) && !out)
            fail_msg("%s %s is as it was", kernel_decls[v->kernel].name, v->name);
        if (out) {
            uint32_t *again;
            assert_true(spirv_share_by_barriers(out, n, &again, &n, &e));
            assert_null(again);
        }
        free(out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spirv),
        cmocka_unit_test(test_share_by_barriers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
