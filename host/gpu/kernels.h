/* shaders/kernels.def as C: argument structs and typed calls. */
#ifndef GPU_KERNELS_H
#define GPU_KERNELS_H

#include "host/gpu/gpu_cmd.h"
#include "host/gpu/kernel_decl.h"

/* struct gemm_args { struct gpu_view a, b, c; uint32_t m, ...; }; */
#define BUF(n) struct gpu_view n;
#define U32(n) uint32_t n;
#define F32(n) float n;
#define KERNEL(name, buffers, push)                                                                                    \
    struct name##_args {                                                                                               \
        buffers push                                                                                                   \
    };
#include "shaders/kernels.def"
#undef KERNEL
#undef BUF
#undef U32
#undef F32

/* void run_gemm(cmd, grid, &(struct gemm_args){...}) */
#define KERNEL(name, buffers, push)                                                                                    \
    void run_##name(struct gpu_cmd *cmd, struct gpu_grid grid, const struct name##_args *args);
#include "shaders/kernels.def"
#undef KERNEL

/* Grids. gpu_rows: one workgroup per row, folded over x and y. gpu_items: one invocation per item, or per as
 * many as the variant takes (SPEC_ITEMS), with the kernel's own workgroup size. */
struct gpu_grid gpu_rows(uint64_t rows);
struct gpu_grid gpu_items(struct gpu_cmd *cmd, unsigned kernel, uint64_t items);

#endif
