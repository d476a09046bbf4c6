/* Arguments of any kernel from its push constants by name: for what treats kernels alike (gsq bench, tests). */
#ifndef GPU_KERNEL_ARGS_H
#define GPU_KERNEL_ARGS_H

#include <stddef.h>

#include "host/gpu/kernels.h"

/* The push constants of all kernels. Kernels that call one the same mean the same. */
struct kernel_shape {
    uint32_t rows, cols, n, m, k, kind, turns, at;
    uint32_t lda, ldb, ldc, lds, ldd, ldw, ldr, ldh, ldi, ldo, in0, out0, row0, col0, col1, r0, count, nb, ldp, bits,
        src_rows;
    uint32_t windows, ctx, heads, kv_heads, dim, sliding, start, turned, adjacent, nope, values, rank, stride, taps,
        grouped, run;
    uint32_t group, groups, offsets, lo, hi, scale_type, weighted, difference, candidates, per_super, first, offset_hi;
    uint32_t levels, relative, seed, tensor, step, table0, table1, table2, table3;
    float cap, by, alpha, beta, eps, turn, scale, factor, power, centre, one, damp;
    float lr, beta1, beta2, correct1, correct2, decay;
    float tau, kappa, tau1, kappa1, init_noise, init_gap, origin, lr_logits, lr_scales, lr_offsets;
};

union kernel_args {
#define KERNEL(name, buffers, push) struct name##_args name;
#include "shaders/kernels.def"
#undef KERNEL
};

/* views: as many as the kernel has. */
void kernel_args_fill(unsigned kernel, const struct kernel_shape *s, const struct gpu_view *views,
                      union kernel_args *args);
/* "rows 3, cols 5, eps 1e-05": what a kernel takes of s; returns out. */
const char *kernel_shape_text(unsigned kernel, const struct kernel_shape *s, char *out, size_t cap);

#endif
