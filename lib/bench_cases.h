/* What `gsq bench` runs: one row per kernel and shape. A new kernel needs one function and one row in
 * bench_cases.c. */
#ifndef LIB_BENCH_CASES_H
#define LIB_BENCH_CASES_H

#include <stddef.h>

#include "host/gpu/gpu_cmd.h"

/* What all cases share. The buffers hold random f32; each is rows * cols elements, the first two BENCH_WIDE
 * times that. */
enum { BENCH_BUFFERS = 8, BENCH_WIDE = 5 };
struct bench {
    struct gpu_cmd *cmd;
    uint32_t rows, cols; /* tokens or output rows, and model width: smaller on a CPU */
    uint32_t cube;       /* m = n = k of the matrix product */
    struct gpu_view buf[BENCH_BUFFERS];
};

/* How much a case did: floating-point operations and bytes that must move at least. */
struct bench_work {
    double flops, bytes;
    const char *variant; /* NULL: the kernel's */
};

struct bench_case {
    unsigned kernel;
    /* Describes the shape in words and records the work once. */
    struct bench_work (*run)(const struct bench *b, char *shape, size_t cap);
};
extern const struct bench_case bench_cases[];
extern const size_t n_bench_cases;

/* Multiply-adds without memory, for the limit itself: returns their flops. */
double bench_peak_flops(const struct bench *b);

#endif
