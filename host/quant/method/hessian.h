/* Second moments of a linear's inputs: H = (2/n) sum x x^T (docs/method.md 1). */
#ifndef QUANT_HESSIAN_H
#define QUANT_HESSIAN_H

#include "host/base/comm.h"
#include "host/gpu/gpu_gemm.h"
#include "host/model/model.h"

/* Rows and columns of the tiles that sums are kept in. */
#define HESSIAN_TILE 512u
/* Of the tile of n rows that begins at row i. */
static inline uint32_t hessian_tile_rows(uint32_t n, uint32_t i)
{
    return n - i < HESSIAN_TILE ? n - i : HESSIAN_TILE;
}

/* Two sums over disjoint windows: one to learn from, one that only judges (the guard). Both are symmetric, so each is summed
 * and kept as a triangle of tiles, and they share one square:
 *
 *     train   in its tiles on and above the diagonal
 *     held    in those below, and its own tiles on the diagonal beside it
 */
struct hessian {
    struct gpu_view train; /* [n, n] */
    /* [n, min(n, HESSIAN_TILE)]: a tile's rows after the other's, each as wide as the first; empty where no window is held out */
    struct gpu_view held;
    uint32_t n;
    uint32_t pieces; /* so many of them, one behind the other (hessian_piece); 0 or 1: it is one */
    bool shared;     /* each rank sums some rows of tiles, of all tokens; hessian_exchange brings them together */
};
enum hessian_sum { HESSIAN_TRAIN, HESSIAN_HELD };
/* One of several. */
struct hessian hessian_piece(const struct hessian *h, uint32_t i);
/* Zeroed. */
bool hessian_create(struct hessian *h, struct gpu_cmd *cmd, struct gpu_arena *arena, uint32_t n, bool with_held,
                    struct err *e);
/* Of each input that matrices of half a block read, at its number; n 0: none reads it. Of pieces as many as there are. */
bool hessian_create_half(struct hessian h[INPUT_COUNT], struct gpu_cmd *cmd, struct gpu_arena *arena,
                         struct block_shape block, enum block_half half, bool with_held, struct err *e);
/* One without held windows, and diag[n] beside it, for what its diagonal becomes. */
bool hessian_create_diagonal(struct hessian *h, struct gpu_view *diag, struct gpu_cmd *cmd, struct gpu_arena *arena,
                             uint32_t n, struct err *e);
/* Of all tokens of a layer with experts, of one expert's inputs, of what its down reads; *factor: room for a number for each row
 * of a tile; *diag: for the diagonal of any of them. */
bool hessian_create_experts(struct hessian *layer, struct hessian *in, struct hessian *middle, struct gpu_view *factor,
                            struct gpu_view *diag, struct gpu_cmd *cmd, struct gpu_arena *arena,
                            const struct model_config *c, bool with_held, struct err *e);
/* A sum's tiles += factor * x^T x for x[tokens, n]. factor is 2 /
 * (tokens of the whole sum), so that no last scaling pass is needed. */
void hessian_add(struct gpu_cmd *cmd, const struct hessian *h, enum hessian_sum sum, struct gpu_view x, uint32_t tokens,
                 float factor);
/* Of a shared one, when all is added: every rank has all rows of tiles then. Waits for the device. */
bool hessian_exchange(struct gpu_cmd *cmd, struct hessian *h, struct err *e);
/* What that is of one of n inputs, held: with windows that judge. */
void hessian_expect(struct comm_expected *x, uint32_t n, bool held);
/* The diagonal of the sum to learn from *= 1 + share; the one that judges stays. diag [n] and factor [1] are scratch. */
void hessian_raise_diagonal(struct gpu_cmd *cmd, const struct hessian *h, float share, struct gpu_view diag,
                            struct gpu_view factor);
/* Multiply-adds that hessian_add takes for each token; of a shared one, those of the busiest of so many ranks. */
double hessian_products(uint32_t n);
double hessian_busiest(uint32_t n, unsigned ranks);
/* ---- of outputs ----
 * Ho = E[g g^T] of the gradients g of what a linear gives (output_hessian.h), in its tiles on the diagonal alone: what lies beyond
 * counts as 0. [n, output_hessian_cols(n)]: a tile's rows after the other's, each as wide as the first. */
uint32_t output_hessian_cols(uint32_t n);
/* Zeroed. */
bool output_hessian_create(struct gpu_view *tiles, struct gpu_cmd *cmd, struct gpu_arena *arena, uint32_t n,
                           struct err *e);
/* Those of rows [row0, row0 + rows) += factor * g^T g for g[tokens, rows]. row0 is a multiple of 64. */
void output_hessian_add(struct gpu_cmd *cmd, struct gpu_view tiles, uint32_t n, uint32_t row0, uint32_t rows,
                        struct gpu_view g, uint32_t tokens, float factor);
/* y[rows, n] = x[rows, n] Ho. x and y are different. */
void output_hessian_after(struct gpu_cmd *cmd, struct gpu_view tiles, struct gpu_view x, struct gpu_view y,
                          uint32_t rows, uint32_t n, enum gemm_use use);
/* The tiles of rows [row0, row0 + rows), which are whole ones, row0 a multiple of HESSIAN_TILE. Of no tiles: none. */
struct gpu_matrix output_hessian_rows(struct gpu_view tiles, uint32_t n, uint32_t row0, uint32_t rows);
/* y[rows, cols] = rows [row0, row0 + rows) of Ho, times x, which has those rows alone: the tiles must be whole, row0 a multiple of
 * HESSIAN_TILE. x and y are different. */
void output_hessian_times(struct gpu_cmd *cmd, struct gpu_matrix tiles, uint32_t row0, uint32_t rows, struct gpu_view x,
                          struct gpu_view y, uint32_t cols, enum gemm_use use);

/* Room for a whole one, or for GPTQ's factor: no group of so many columns, or segment of one, lies in two buffers. */
bool hessian_square_create(struct gpu_view *square, struct gpu_arena *arena, uint32_t n, uint32_t group, struct err *e);
/* square[n, n] <- a whole sum. */
void hessian_square(struct gpu_cmd *cmd, const struct hessian *h, enum hessian_sum sum, struct gpu_view square);

#endif
