/* Calls of lib/kernel_cases.def on a device: buffers between guards with what the table says that they hold, every variant over
 * every shape, and what holds of any kernel: nothing is written outside of what the table says is written.
 *
 *     static void check_add(struct kernel_test *t) { const float *y = t->in[0], *got = kernel_out(t, 0); ... }
 *     each_case(KERNEL_ID_add, shapes, n, NULL, check_add);
 */
#ifndef TESTS_KERNEL_CASES_H
#define TESTS_KERNEL_CASES_H

#include <float.h>

#include "tests/kernel_buffers.h"

struct kernel_test {
    unsigned kernel, n_buffers;
    struct kernel_shape s; /* settled: strides and numbers of groups are filled in */
    struct kernel_buffer b[KERNEL_BUFFERS];
    void *in[KERNEL_BUFFERS];  /* before the first call; NULL: nothing. May be changed until then */
    void *out[KERNEL_BUFFERS]; /* of kernel_out */
    struct buffer device[KERNEL_BUFFERS];
    struct gpu_view views[KERNEL_BUFFERS];
    union kernel_args args;
    char text[256];
};

static inline void kernel_begin(struct kernel_test *t, unsigned kernel, struct kernel_shape s, uint64_t seed)
{
    *t = (struct kernel_test){.kernel = kernel, .s = s};
    t->n_buffers = kernel_case_buffers(kernel, &t->s, t->b);
    assert_true(t->n_buffers > 0);
    kernel_shape_text(kernel, &t->s, t->text, sizeof t->text);
    for (unsigned i = 0; i < t->n_buffers; i++)
        if (t->b[i].fill != FILL_AS && t->b[i].fill != FILL_NOTHING) {
            t->in[i] = malloc(t->b[i].n * 4);
            assert_non_null(t->in[i]);
            kernel_case_fill(&t->b[i], &t->s, &seed, t->in[i], t->b[i].n);
        }
}

static inline void kernel_upload(struct kernel_test *t)
{
    for (unsigned i = 0; i < t->n_buffers; i++)
        if (t->b[i].fill != FILL_AS) {
            t->device[i] = buffer_make(t->b[i].n, t->in[i]);
            t->views[i] = t->device[i].view;
        }
    for (unsigned i = 0; i < t->n_buffers; i++)
        if (t->b[i].fill == FILL_AS)
            t->views[i] = t->views[t->b[i].as];
}

/* May be called again, with another t->s, on what the call before left. */
static inline void kernel_call(struct kernel_test *t)
{
    if (!t->views[0].size)
        kernel_upload(t);
    kernel_case_call(cmd, t->kernel, &t->s, t->views, &t->args);
}

/* What buffer i holds now, for the first time it is asked. */
static inline const void *kernel_out(struct kernel_test *t, unsigned i)
{
    if (!t->out[i])
        t->out[i] = buffer_read(&t->device[i]);
    return t->out[i];
}

/* The same call with output of_pair[0] in the memory of input of_pair[1], for each pair: the result is the same, to the bit. */
#define IN_PLACE(t, ...)                                                                                               \
    kernel_in_place(t, (const unsigned[][2]){__VA_ARGS__},                                                             \
                    sizeof((const unsigned[][2]){__VA_ARGS__}) / sizeof(unsigned[2]))
static inline void kernel_in_place(const struct kernel_test *t, const unsigned (*pairs)[2], size_t n)
{
    struct kernel_test same = *t;
    kernel_upload(&same);
    for (size_t i = 0; i < n; i++)
        same.views[pairs[i][0]] = same.views[pairs[i][1]];
    kernel_call(&same);
    for (size_t i = 0; i < n; i++) {
        float *got = buffer_read(&same.device[pairs[i][1]]);
        const float *want = t->out[pairs[i][0]];
        assert_non_null(want);
        for (uint64_t k = 0; k < t->b[pairs[i][0]].n; k++)
            check(t->kernel, "in place", k, got[k], want[k], 0);
        free(got);
    }
}

static inline void kernel_free(struct kernel_test *t)
{
    for (unsigned i = 0; i < t->n_buffers; i++) {
        free(t->in[i]);
        free(t->out[i]);
    }
}

/* Frees all, having seen that what is only read, and what lies between the rows, is as it was. */
static inline void kernel_end(struct kernel_test *t)
{
    const uint32_t pattern = BUFFER_PATTERN;
    for (unsigned i = 0; i < t->n_buffers; i++) {
        const struct kernel_buffer *b = &t->b[i];
        if (b->fill == FILL_AS)
            continue;
        const uint32_t *now = kernel_out(t, i), *before = t->in[i];
        if (!b->written)
            assert_memory_equal(now, before, b->n * 4);
        for (uint64_t k = 0; b->ld && k < b->n; k++)
            if (k % b->ld >= b->cols)
                assert_int_equal(now[k], before ? before[k] : pattern);
    }
    kernel_free(t);
    buffers_reset();
}

/* prepare may be NULL. Each variant takes at least one of the shapes. */
static inline void each_case(unsigned kernel, const struct kernel_shape *shapes, size_t n,
                             void (*prepare)(struct kernel_test *t), void (*compare)(struct kernel_test *t))
{
    static const struct gpu_view none[KERNEL_BUFFERS];
    unsigned variants = 0;
    for (unsigned v = 0; variant_use(kernel, &v); v++, variants++) {
        unsigned taken = 0;
        for (size_t i = 0; i < n; i++) {
            struct kernel_test t;
            union kernel_args args;
            kernel_args_fill(kernel, &shapes[i], none, &args);
            if (!variant_takes(kernel, &args))
                continue;
            taken++;
            kernel_begin(&t, kernel, shapes[i], i + 1);
            if (prepare)
                prepare(&t);
            kernel_call(&t);
            compare(&t);
            kernel_end(&t);
        }
        assert_true(taken > 0);
    }
    assert_true(variants > 0);
}
/* static void test_NAME(void **state): all variants of the kernel over these shapes. */
#define CASES(name, kernel, shapes, prepare, compare)                                                                  \
    static void test_##name(void **state)                                                                              \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        each_case(KERNEL_ID_##kernel, shapes, sizeof(shapes) / sizeof *(shapes), prepare, compare);                    \
    }

/* Element i of the kernel's result. */
static inline void expect(const struct kernel_test *t, uint64_t i, double got, double want, double tolerance)
{
    check(t->kernel, t->text, i, got, want, tolerance);
}

/* Some values of gate and up, the first two inputs, are at the limits of clamped units or beyond, on both sides. */
static inline void kernel_at_limits(struct kernel_test *t)
{
    static const float at[] = {7, -7, 7.5f, -7.5f, 40, -40};
    float *gate = t->in[0], *up = t->in[1];
    for (uint32_t i = 0; i < t->s.n; i++) {
        gate[i] = i % 7 == 3 ? at[i / 7 % 6] : gate[i];
        up[i] = i % 5 == 1 ? at[i / 5 % 6] : up[i];
    }
}

#endif
