/* Inside host/model: the steps that block_fwd.c and block_bwd.c share. */
#ifndef MODEL_BLOCK_STEPS_H
#define MODEL_BLOCK_STEPS_H

#include "host/model/model.h"

/* Rows [row0, row0 + rows) of a dense matrix of `cols` columns. */
struct gpu_view block_rows(struct gpu_view v, uint64_t row0, uint64_t rows, uint64_t cols);
/* How many windows of a matrix of `cols` columns one binding holds, such that tiles of so many start aligned.
 */
uint32_t block_window_tile(const struct model *m, uint32_t cols, uint32_t windows);
/* act[rows, cols] = silu(gate) * up, or gelu(gate) * up; act may be gate. */
void block_glu(struct model *m, struct gpu_view gate, struct gpu_view up, struct gpu_view act, uint32_t rows,
               uint32_t cols);
/* Where the rows of that role are, which the block has; how many outputs they have. */
struct block_rows_at block_part_rows_at(const struct model *m, const struct block_weights *b, enum role role);
uint32_t block_rows_of(const struct model *m, const struct block_weights *b, enum role role);
/* x[windows * ctx, heads, head_dim] turned in place by a table of block_weights, or left where that is empty; turn -1: back,
 * which is the backward pass. */
void block_rope(struct model *m, struct gpu_view table, struct gpu_view x, uint32_t heads, uint32_t windows,
                float turn);
/* y[rows, cols] += x. */
void block_add(struct model *m, struct gpu_view y, struct gpu_view x, uint32_t rows, uint32_t cols);
/* y[rows, cols] += bias [cols] in each row; an empty one is none. */
void block_add_bias(struct model *m, struct gpu_view y, struct gpu_view bias, uint32_t rows, uint32_t cols);
/* What the product with that role's matrix is multiplied by. */
float block_alpha(const struct model *m, enum role role);

#endif
