/* Device buffers for kernel tests: each lies between two guards, so that a write outside is found. */
#ifndef TESTS_GPU_FIXTURE_H
#define TESTS_GPU_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/kernels.h"

struct fixture {
    struct gpu *g;
    struct gpu_arena *arena;
    struct gpu_cmd *cmd;
};

enum { FIXTURE_GUARD = 64 };        /* words; 256 bytes keep the view aligned */
#define FIXTURE_PATTERN 0xffe5a5a5u /* a NaN: reading it shows, too */

struct buffer {
    struct fixture *f;
    struct gpu_view whole, view;
    size_t words;
};

#define MUST(call, e)                                                                                        \
    do {                                                                                                     \
        if (!(call)) {                                                                                       \
            print_error("%s: %s\n", #call, (e)->msg);                                                        \
            fail();                                                                                          \
        }                                                                                                    \
    } while (0)

static inline void fixture_open(struct fixture *f)
{
    struct err e = {0};
    MUST(gpu_create(&f->g, &(struct gpu_options){.validate = true}, &e), &e);
    MUST(gpu_arena_create(&f->arena, f->g, "test", &e), &e);
    MUST(gpu_cmd_create(&f->cmd, f->g, &e), &e);
}

static inline void fixture_close(struct fixture *f)
{
    gpu_cmd_destroy(&f->cmd);
    gpu_arena_destroy(&f->arena);
    assert_int_equal(gpu_validation_messages(f->g), 0);
    gpu_destroy(&f->g);
}

/* Runs what is recorded and frees all buffers. */
static inline void fixture_reset(struct fixture *f)
{
    struct err e = {0};
    MUST(gpu_cmd_finish(f->cmd, &e), &e);
    gpu_arena_reset(f->arena, 0);
}

/* data NULL: filled with the guard's pattern. */
static inline struct buffer buffer_make(struct fixture *f, size_t words, const void *data)
{
    struct err e = {0};
    struct buffer b = {.f = f, .words = words};
    MUST(gpu_alloc(f->arena, (words + 2 * FIXTURE_GUARD) * 4, &b.whole, &e), &e);
    b.view = gpu_slice(b.whole, FIXTURE_GUARD * 4, words * 4);
    gpu_fill(f->cmd, b.whole, FIXTURE_PATTERN);
    if (data)
        gpu_upload(f->cmd, b.view, data, words * 4);
    return b;
}

/* Contents in malloc'ed memory; checks the guards. */
static inline void *buffer_read(const struct buffer *b)
{
    struct err e = {0};
    size_t all = b->words + 2 * FIXTURE_GUARD;
    uint32_t *host = malloc(all * 4);
    assert_non_null(host);
    MUST(gpu_download(b->f->cmd, gpu_slice(b->whole, 0, all * 4), host, all * 4, &e), &e);
    for (size_t i = 0; i < FIXTURE_GUARD; i++) {
        assert_int_equal(host[i], FIXTURE_PATTERN);
        assert_int_equal(host[all - 1 - i], FIXTURE_PATTERN);
    }
    memmove(host, host + FIXTURE_GUARD, b->words * 4);
    return host;
}

/* Makes `kernel` use its variant i; false past the last. Variants that the device cannot run are passed over:
 * *i moves. */
static inline bool fixture_variant(struct fixture *f, unsigned kernel, unsigned *i)
{
    const char *name;
    bool usable;
    for (; gpu_kernel_variant_at(f->g, kernel, *i, &name, &usable); ++*i) {
        struct err e = {0};
        if (!usable)
            continue;
        MUST(gpu_kernel_force(f->g, kernel, name, &e), &e);
        return true;
    }
    return false;
}

/* The generator of test data: reproducible, its state in the caller's hands. */
static inline uint32_t test_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Sum of four uniforms: near enough to normal, unit variance. */
static inline float test_normal(uint64_t *state)
{
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)test_random(state) / 2147483648.0f - 0.5f;
    return sum * 1.7320508f;
}

#endif
