/* How each kernel is called, as data: lib/kernel_cases.def. `gsq bench` times its BENCH rows; the tests of kernels make the
 * same calls over odd shapes and compare with the references of tests/ref. A new kernel needs a CALL and a BENCH row. */
#ifndef LIB_KERNEL_CASES_H
#define LIB_KERNEL_CASES_H

#include <stdbool.h>
#include <stddef.h>

#include "host/gpu/kernel_args.h"

/* What a buffer holds before the call. */
enum kernel_fill {
    FILL_NOTHING,  /* it is written only */
    FILL_ZERO,     /* status words */
    FILL_RANDOM,   /* normal numbers times `size`; NaN between the `cols` of a row and the next row, ld on */
    FILL_POSITIVE, /* (a normal number times `size`)^2 and 0.01 */
    FILL_DIAGONAL, /* as FILL_RANDOM, and 0.5 to some 1 on the diagonal of rows ld apart */
    FILL_SCALES,   /* as FILL_RANDOM; with offsets: scales >= 0, offsets <= 0 */
    FILL_ANGLES,   /* cos, sin */
    FILL_BITS,     /* any 32 bits */
    FILL_BELOW,    /* integers below `cols` */
    FILL_HALVES,   /* two 16-bit numbers a word, all below 2 */
    FILL_CODES,    /* lo .. hi, four a word, the pads after `cols` 0 */
    FILL_AS,       /* the memory of buffer `as` */
};
struct kernel_buffer {
    uint64_t n; /* 4-byte elements */
    enum kernel_fill fill;
    float size;
    uint32_t cols, ld; /* 0: dense */
    bool written;
    unsigned as;
};
enum { KERNEL_BUFFERS = 10 };

/* The buffers of a call; fills in what the shape leaves 0 and a call of this kernel needs (strides, numbers of groups, ...).
 * Returns how many; 0: this kernel has no CALL row. */
unsigned kernel_case_buffers(unsigned kernel, struct kernel_shape *s, struct kernel_buffer b[KERNEL_BUFFERS]);
/* Elements [0, n) of it. state: of the random numbers. */
void kernel_case_fill(const struct kernel_buffer *b, const struct kernel_shape *s, uint64_t *state, void *out,
                      uint64_t n);
/* A buffer of an arena with what b says that it holds; long ones repeat themselves. */
bool kernel_case_buffer(struct gpu_cmd *cmd, struct gpu_arena *arena, const struct kernel_buffer *b,
                        const struct kernel_shape *s, struct gpu_view *view, struct err *e);
/* All buffers of a call so. */
bool kernel_case_make(struct gpu_cmd *cmd, struct gpu_arena *arena, unsigned kernel, struct kernel_shape *s,
                      struct gpu_view views[KERNEL_BUFFERS], struct err *e);
/* Records one call, tiled and in the grid of the variant in use. args: the arguments it had. */
void kernel_case_call(struct gpu_cmd *cmd, unsigned kernel, const struct kernel_shape *s, const struct gpu_view *views,
                      union kernel_args *args);

/* Normal numbers of unit variance (near enough) and uniform ones, reproducible. */
float kernel_case_normal(uint64_t *state);
uint32_t kernel_case_random(uint64_t *state);

/* ---- what candidates are tried on: TRIAL rows ---- */

/* Odd shapes that a candidate (TUNE in shaders/variants.cmake) is checked on before it is timed on the kernel's BENCH rows. */
enum kernel_rounding {
    ROUNDS_F32, /* operands are f32 all the way */
    ROUNDS_F16, /* operands may be rounded to 11 bits before they are multiplied, by variants for bf16 to 8 */
};
struct trial_case {
    unsigned kernel;
    enum kernel_rounding rounding;
    struct kernel_shape s;
};
extern const size_t n_trial_cases;
void trial_case(size_t i, struct trial_case *c);

/* ---- what gsq bench runs ---- */

/* Sizes that all rows share: tokens or output rows, and model width (smaller on a CPU); m = n = k of the product. */
struct bench_sizes {
    uint32_t rows, cols, cube;
};
struct bench_case {
    unsigned kernel;
    struct kernel_shape s;
    char shape[64];      /* in words */
    double flops, bytes; /* floating-point operations, and bytes that must move at least */
};
extern const size_t n_bench_cases; /* the first is peak_fma, multiply-adds alone: what the device can do at most */
void bench_case(size_t i, const struct bench_sizes *b, struct bench_case *c);

#endif
