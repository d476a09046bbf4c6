/* The matrix product, over views of any size. */
#ifndef GPU_GEMM_H
#define GPU_GEMM_H

#include "host/gpu/gpu_cmd.h"

/* Row-major; ld = row stride in elements. The view starts where the device can bind it (256 bytes serve any
 * device), holds all rows, and may be larger than gpu_info.max_range. */
struct gpu_matrix {
    struct gpu_view view;
    uint32_t ld;
};
/* From that row and column on, to the end of the view. */
struct gpu_matrix gpu_matrix_from(struct gpu_view v, uint32_t ld, uint64_t row, uint64_t col);

/* What a product is for: exact ones have f32 operands (losses, GPTQ, factors, what is evaluated); operands of those that
 * only steer (gradients, forward passes of calibration and training, Hessians to learn from) may be rounded to 11 bits, sums
 * being f32. */
enum gemm_use { GEMM_EXACT, GEMM_STEERING };

struct gpu_product {
    struct gpu_matrix a, b, c; /* [m, k], [n, k], [m, n] */
    uint32_t m, n, k;
    float alpha, beta;
    struct gpu_view old;             /* what beta is a factor of, strides as c's; empty: c itself */
    bool a_transposed, b_transposed; /* it lies as [k, m], as [k, n]. Of a alone: there is no kernel */
    enum gemm_use use;
};

/* C[m,n] = alpha * A[m,k] B[n,k]^T + beta * old, which is not read where beta is 0. Cut into pieces of rows and
 * columns where a view exceeds what can be bound, or the work a submission; an element's sum does not depend
 * on that cut. A transposed operand that cannot be bound whole is cut along k, too, and then the sum is one of partial sums.
 *
 * What it asks of the shaders: constants SPEC_TILE and SPEC_TILE_N are the rows and columns of C that one WORKGROUP
 * computes; the workgroups 0 .. tiles-1 have one tile each, in an order that the shader chooses. */
void gpu_gemm(struct gpu_cmd *cmd, const struct gpu_product *p);
/* c[m, n] += alpha * a^T b for a[k, m] and b[k, n]: a sum over k tokens. */
void gpu_gemm_add(struct gpu_cmd *cmd, struct gpu_matrix a, struct gpu_matrix b, struct gpu_matrix c, uint32_t m,
                  uint32_t n, uint32_t k, float alpha, enum gemm_use use);
/* Whether a kernel is a product, and which operands it takes transposed (the pointers may be NULL). */
bool gpu_gemm_kernel(unsigned kernel, bool *a_transposed, bool *b_transposed);

/* dst[rows, cols] = src[rows, cols]; they must not overlap. */
void gpu_copy_part(struct gpu_cmd *cmd, struct gpu_matrix src, struct gpu_matrix dst, uint32_t rows, uint32_t cols);
/* dst[cols, rows] = src[rows, cols]^T; they must not overlap, but may be parts of one matrix. A row's stride times rows or
 * cols is what one binding holds. */
void gpu_transpose_part(struct gpu_cmd *cmd, struct gpu_matrix src, struct gpu_matrix dst, uint32_t rows,
                        uint32_t cols);

#endif
