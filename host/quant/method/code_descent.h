/* Codes one by one to where no other code is better, where rows share a loss (docs/method.md 3).
 *
 * Of tr(Ho D H D^T) all that a code depends on is known exactly: with G = Ho D H a code that moves the weight at (r, c) by t changes
 * the loss by 2 t G_rc + t^2 Ho_rr H_cc. Column by column, and in a column row by row, each code becomes the one that makes this least,
 * the others being as they are by then (cyclic coordinate descent). Scales stay. The loss never rises. */
#ifndef QUANT_CODE_DESCENT_H
#define QUANT_CODE_DESCENT_H

#include "host/quant/method/qmatrix.h"

/* q's codes, in place, in `passes` passes over its columns; moved: how many codes changed, of all passes. w [rows, cols]; inputs: the
 * whole square H; outputs: the tiles of Ho (output_hessian_rows), of which each is worked on alone. Scratch: twice a tile's rows and little
 * more. */
bool code_descent(struct gpu_cmd *cmd, struct gpu_view w, struct gpu_view inputs, struct gpu_matrix outputs,
                  struct gpu_arena *scratch, struct qlinear *q, uint32_t passes, uint64_t *moved, struct err *e);

#endif
