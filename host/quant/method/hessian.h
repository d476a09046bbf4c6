/* Second moments of a linear's inputs: H = (2/n) sum x x^T (docs/method.md 1). */
#ifndef QUANT_HESSIAN_H
#define QUANT_HESSIAN_H

#include "host/model/model.h"

/* Two sums over disjoint windows: one to learn from, one that only judges (the guard). */
struct hessian {
    struct gpu_view train, held; /* [n, n] each; held is empty where no window is held out */
    uint32_t n;
};
/* Zeroed. */
bool hessian_create(struct hessian *h, struct gpu_cmd *cmd, struct gpu_arena *arena, uint32_t n, bool with_held,
                    struct err *e);
/* Of each input that matrices of half a block read, at its number; n 0: none reads it. */
bool hessian_create_half(struct hessian h[INPUT_COUNT], struct gpu_cmd *cmd, struct gpu_arena *arena,
                         struct block_shape block, enum block_half half, bool with_held, struct err *e);
/* One without held windows, and diag[n] beside it, for what its diagonal becomes. */
bool hessian_create_diagonal(struct hessian *h, struct gpu_view *diag, struct gpu_cmd *cmd, struct gpu_arena *arena,
                             uint32_t n, struct err *e);
/* sum[n, n] += factor * x^T x for x[tokens, n]. transposed: scratch of n * tokens floats. factor is 2 /
 * (tokens of the whole sum), so that no last scaling pass is needed. */
void hessian_add(struct gpu_cmd *cmd, struct gpu_view sum, struct gpu_view x, uint32_t tokens, uint32_t n, float factor,
                 struct gpu_view transposed);

#endif
