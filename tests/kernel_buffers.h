/* What the tests of kernels share: device buffers that each lie between two guards, so that a write outside
 * is found, every variant of a kernel in turn, random numbers. */
#ifndef TESTS_KERNEL_BUFFERS_H
#define TESTS_KERNEL_BUFFERS_H

#include <math.h>

#include "host/gpu/gpu_pipeline.h"
#include "lib/kernel_cases.h"
#include "tests/device.h"

enum { BUFFER_GUARD = 64 };        /* words; 256 bytes keep the view aligned */
#define BUFFER_PATTERN 0xffe5a5a5u /* a NaN: reading it shows, too */

struct buffer {
    struct gpu_view whole, view;
    size_t words;
};

/* Runs what is recorded and frees all buffers. */
static inline void buffers_reset(void)
{
    struct err e = {0};
    OK(gpu_cmd_finish(cmd, &e), e);
    gpu_arena_reset(arena, 0);
}

/* data NULL: filled with the guard's pattern. */
static inline struct buffer buffer_make(size_t words, const void *data)
{
    struct err e = {0};
    struct buffer b = {.words = words};
    OK(gpu_alloc(arena, (words + 2 * BUFFER_GUARD) * 4, &b.whole, &e), e);
    b.view = gpu_slice(b.whole, BUFFER_GUARD * 4, words * 4);
    gpu_fill(cmd, b.whole, BUFFER_PATTERN);
    if (data)
        gpu_upload(cmd, b.view, data, words * 4);
    return b;
}

/* Contents in malloc'ed memory; checks the guards. */
static inline void *buffer_read(const struct buffer *b)
{
    struct err e = {0};
    size_t all = b->words + 2 * BUFFER_GUARD;
    uint32_t *host = malloc(all * 4);
    assert_non_null(host);
    OK(gpu_download(cmd, gpu_slice(b->whole, 0, all * 4), host, all * 4, &e), e);
    for (size_t i = 0; i < BUFFER_GUARD; i++) {
        assert_int_equal(host[i], BUFFER_PATTERN);
        assert_int_equal(host[all - 1 - i], BUFFER_PATTERN);
    }
    memmove(host, host + BUFFER_GUARD, b->words * 4);
    return host;
}

static const char *variant_in_use; /* of variant_use; NULL: the device's choice */

/* Makes `kernel` use its variant i; false past the last, and all is as at first. Variants that the device cannot run are
 * passed over: *i moves. One that is made for some calls only is used for those. */
static inline bool variant_use(unsigned kernel, unsigned *i)
{
    const char *name;
    bool usable;
    for (; gpu_kernel_variant_at(gpu, kernel, *i, &name, &usable); ++*i) {
        struct err e = {0};
        if (!usable)
            continue;
        OK(gpu_kernel_force(gpu, kernel, name, &e), e);
        variant_in_use = name;
        return true;
    }
    assert_true(gpu_kernel_force(gpu, kernel, NULL, NULL));
    variant_in_use = NULL;
    return false;
}

/* Whether that variant is the one that takes a call with these arguments. */
static inline bool variant_takes(unsigned kernel, const void *args)
{
    struct err e = {0};
    return !variant_in_use || strcmp(gpu_kernel_variant(gpu, kernel, args, &e), variant_in_use) == 0;
}

/* got[i] against want[i] within tolerance; NaN is never within. */
static inline void check(unsigned kernel, const char *shape, size_t i, double got, double want, double tolerance)
{
    struct err e = {0};
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s.%s, %s, element %zu: %.9g, should be %.9g +- %.2g", kernel_decls[kernel].name,
                 gpu_kernel_variant(gpu, kernel, NULL, &e), shape, i, got, want, tolerance);
}

#endif
