/* The matrix product, and what prepares its operands, over views of any size. */
#ifndef GPU_GEMM_H
#define GPU_GEMM_H

#include "host/gpu/gpu_cmd.h"

/* Row-major; ld = row stride in elements. The view starts where the device can bind it (256 bytes serve any
 * device), holds all rows, and may be larger than gpu_info.max_range. */
struct gpu_matrix {
    struct gpu_view view;
    uint32_t ld;
};

/* C[m,n] = alpha * A[m,k] B[n,k]^T + beta * C; C is not read where beta is 0. Cut into pieces of rows and
 * columns where a view exceeds what can be bound, or the work a submission; an element's sum does not depend
 * on the cut.
 *
 * What it asks of the shaders: constants 2 and 3 are the rows and columns of C that one WORKGROUP computes; the
 * workgroups 0 .. tiles-1 have one tile each, in an order that the shader chooses. */
void gpu_gemm(struct gpu_cmd *cmd, struct gpu_matrix a, struct gpu_matrix b, struct gpu_matrix c, uint32_t m,
              uint32_t n, uint32_t k, float alpha, float beta);

/* The same for gradients and whatever else only steers: a and b may be rounded to 11 bits, sums are f32. */
void gpu_gemm_half(struct gpu_cmd *cmd, struct gpu_matrix a, struct gpu_matrix b, struct gpu_matrix c, uint32_t m,
                   uint32_t n, uint32_t k, float alpha, float beta);

/* dst[cols, rows] = src[rows, cols]^T, both dense; they must not overlap. For products that want the other
 * operand's transpose: A B takes B^T. */
void gpu_transpose(struct gpu_cmd *cmd, struct gpu_view src, struct gpu_view dst, uint32_t rows, uint32_t cols);
/* The same of parts of matrices, which may be parts of one; a row's stride times rows or cols is what one binding holds. */
void gpu_transpose_part(struct gpu_cmd *cmd, struct gpu_matrix src, struct gpu_matrix dst, uint32_t rows,
                        uint32_t cols);

#endif
