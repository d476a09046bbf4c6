/* What is lost before a linear: how far its inputs, or what its half gives, have drifted from the 16-bit model's. A linear that starts
 * on its own makes a share of it good, as far as its inputs tell it (docs/method.md 3).
 *
 * With inputs x of the student and y' - y the drift of what the linear gives, the weights that undo it best are
 * W + M H^-1, M = (2/n) sum (y' - y) x^T, H = (2/n) sum x x^T (Li et al., GPTAQ, arXiv 2504.02692, for y' = W x'). Of the first
 * linears of a half y' - y = W (x' - x), so one sum of x' - x serves all of them. Of the last one y' - y is the difference of what the half
 * gives: there the drift of the residual stream and of the linears before it come in. */
#ifndef QUANT_DRIFT_H
#define QUANT_DRIFT_H

#include "host/base/comm.h"
#include "host/quant/method/hessian.h"

struct drift {
    struct gpu_view sum; /* [rows, n]; empty: nothing is made good */
    uint32_t rows, n;
    bool last; /* of what the half gives, whose rows it has; else of inputs, and rows is n */
    bool
        shared; /* each rank sums some rows, HESSIAN_TILE at a time, of all tokens; drift_exchange brings them together */
};
/* Zeroed; of each input of a half that plan_corrects says has one. With post norms, or a shared expert that is weighted, the last linear has
 * none: what it gives is not what the half adds. */
bool drift_create_half(struct drift d[INPUT_COUNT], struct model *m, struct gpu_arena *arena,
                       const struct block_weights *w, enum block_half half, struct err *e);
/* Of one expert after the other: of what gate and up read, of all that its layer reads, of what the expert gives; and gate and up
 * of 16 bits, when the expert has them no more. */
struct expert_drift {
    struct drift in, layer, out;
    struct gpu_view gate, up;
};
bool drift_create_expert(struct expert_drift *d, struct gpu_arena *arena, const struct model_config *c, struct err *e);
/* sum += factor * lost^T x for lost[tokens, rows] and x[tokens, n]. factor as of hessian_add. */
void drift_add(struct gpu_cmd *cmd, const struct drift *d, struct gpu_view lost, struct gpu_view x, uint32_t tokens,
               float factor);
/* Of a shared one, when all is added: every rank has all rows then. Waits for the device. */
bool drift_exchange(struct gpu_cmd *cmd, struct drift *d, struct err *e);
/* What that sends, of those of a half that drift_create_half makes. */
void drift_expect(struct comm_expected *x, const struct model *m, uint32_t layer, enum block_half half);
/* Multiply-adds that a half's take for each token. */
double drift_products(struct block_shape block, enum block_half half, uint32_t hidden);
/* w[rows, cols] += share * M H^-1 for the linear's rows [row0, row0 + rows). factor: GPTQ's of H (gptq_factor), in whose square of tiles on the diagonal what is above
 * the diagonal becomes 0. Scratch: DRIFT_ROWS rows twice, and a tile; given back. */
#define DRIFT_ROWS 2048u
bool drift_make_good(struct gpu_cmd *cmd, const struct drift *d, struct gpu_view w, uint32_t row0, uint32_t rows,
                     struct gpu_view factor, float share, struct gpu_arena *scratch, struct err *e);

#endif
