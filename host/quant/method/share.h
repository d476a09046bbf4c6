/* Rows of matrices shared out among ranks (comm.h), by way of host memory: gradients to the rank that has the rows, weights and codes from
 * it to all. One rank: nothing is to be done, and no function here is called. */
#ifndef QUANT_SHARE_H
#define QUANT_SHARE_H

#include "formats/quant_type.h"
#include "host/gpu/gpu_share.h"

/* Rows of a unit, unless more belong together: they begin where views may. */
#define SHARE_ROWS 64u

/* Rows [first, end) that this rank has. */
struct comm_part share_rows(uint32_t rows);
/* Floats of host memory that share_sum and share_weights need as room. */
uint64_t share_room(uint32_t rows, uint32_t cols);
/* sum[own rows, cols] += x[rows, cols] of ranks 0 .. have - 1, one after the other; first: sum begins with rank 0's. */
bool share_sum(enum comm_kind kind, struct gpu_cmd *cmd, struct gpu_view x, uint32_t rows, uint32_t cols, unsigned have,
               bool first, float *room, float *sum, struct err *e);
/* Each rank's own rows of w[rows, cols] to all ranks. */
bool share_weights(struct gpu_cmd *cmd, struct gpu_view w, uint32_t rows, uint32_t cols, float *room, struct err *e);
/* The same of codes and scales; rows are parted in units of so many (comm_part). */
bool share_codes(struct qlinear *q, uint32_t unit, struct err *e);
/* What ranks exchange by these (comm_expect_*); of codes, what a row of them has. */
void share_sum_expect(struct comm_expected *x, enum comm_kind kind, uint32_t rows, uint32_t cols, unsigned have,
                      uint64_t times);
void share_weights_expect(struct comm_expected *x, uint32_t rows, uint32_t cols, uint64_t times);
void share_codes_expect(struct comm_expected *x, uint32_t rows, uint32_t unit, uint32_t cols,
                        const struct quant_spec *spec);
uint64_t share_code_bytes(uint32_t cols, const struct quant_spec *spec);
/* The rows that the busiest of so many ranks has, as a share of all. */
double share_busiest(uint32_t rows, uint32_t unit, unsigned ranks);

#endif
