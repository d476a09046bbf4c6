/* One linear being quantized, on the device: weights, codes and scales, and what is done to them. */
#ifndef QUANT_QMATRIX_H
#define QUANT_QMATRIX_H

#include "formats/quant_type.h"
#include "host/quant/method/hessian.h"
#include "host/quant/options.h"

/* Codes and scales of a [rows, cols] matrix on the device. */
struct qmatrix {
    uint32_t rows, cols, groups, ldc; /* ldc: words of a row of codes (four int8 each) */
    struct quant_spec spec;
    struct gpu_view codes;       /* [rows, ldc] words */
    struct gpu_view scales;      /* [rows, planes, groups] f32: of the groups, with super-blocks multiplied out */
    struct gpu_view d, integers; /* with super-blocks what the scales are products of, as in struct qlinear: f32
                                    [rows, planes, super-blocks], and f32 [rows, planes, groups] */
};
/* Of a kernel's arguments those that say how q's groups lie and what codes there are. */
#define QMATRIX_GROUPS(q)                                                                                              \
    .rows = (q)->rows, .cols = (q)->cols, .group = (q)->spec.group, .groups = (q)->groups,                             \
    .lo = (uint32_t)(q)->spec.type->lo, .hi = (uint32_t)(q)->spec.type->hi
/* The levels as kernels take them, into words; NULL where codes are all integers lo .. hi. */
const uint32_t *quant_table(const struct quant_type *t, uint32_t words[TABLE_LEVELS / 4]);
/* 1 where groups have offsets: what kernels ask. */
uint32_t quant_offsets(const struct quant_spec *spec);
bool qmatrix_create(struct qmatrix *q, struct gpu_arena *arena, uint32_t rows, uint32_t cols, struct quant_spec spec,
                    struct err *e);
/* Rows [row0, row0 + rows) of q; row0 is a multiple of 64 or 0. */
struct qmatrix qmatrix_rows(const struct qmatrix *q, uint32_t row0, uint32_t rows);
/* Host copy; q->spec etc. are taken over. Waits for the device. With commands that count it is of this
 * shape, without contents, and nothing is uploaded. */
bool qmatrix_download(struct gpu_cmd *cmd, const struct qmatrix *q, struct qlinear *out, struct err *e);
/* to's codes and scales become those of `from`, which has its shape and may have larger views. */
void qmatrix_copy(struct gpu_cmd *cmd, const struct qmatrix *to, const struct qmatrix *from);
bool qmatrix_upload_codes(struct gpu_cmd *cmd, const struct qmatrix *q, const struct qlinear *in, struct err *e);
bool qmatrix_upload(struct gpu_cmd *cmd, const struct qmatrix *q, const struct qlinear *in, struct err *e);
/* Scales and offsets as they will be stored, in place: rounded, or d times integers where the type has super-blocks.
 * What is rounded already stays. */
void qmatrix_round_scales(struct gpu_cmd *cmd, const struct qmatrix *q);
/* Scales, and offsets where the type has them, of the groups that start in columns [col0, col1) of w [rows,
 * cols], as they will be stored. Of super-blocks whole ones. weights [cols]: what errors in a column count;
 * empty: all the same. */
void qmatrix_search(struct gpu_cmd *cmd, const struct qmatrix *q, struct gpu_view w, struct gpu_view weights,
                    uint32_t col0, uint32_t col1, const struct scale_search_options *o);
/* w[rows, cols] <- codes * scales + offsets. */
void qmatrix_dequant(struct gpu_cmd *cmd, const struct qmatrix *q, struct gpu_view w);

/* RTN: scale search per group, then rounding. */
void quantize_rtn(struct gpu_cmd *cmd, const struct qmatrix *q, struct gpu_view w,
                  const struct scale_search_options *o);

struct gptq_facts {
    bool damp_raised;   /* the Cholesky needed more damping than asked for */
    bool diagonal_only; /* it failed at every damping: no error feedback */
};
/* square[n, n] <- R, H^-1 = R R^T, as cholesky_inverse_factor leaves it: of h->train (left as it is) with its dead inputs set to 1 and damping added;
 * raised until it works. */
bool gptq_factor(struct gpu_cmd *cmd, const struct hessian *h, float damp, struct gpu_arena *scratch,
                 struct gpu_view square, struct gptq_facts *facts, struct err *e);
/* GPTQ with the Hessian h->train (left as it is). o NULL: scales stay those of q. w[rows, cols] is read;
 * where an input is dead (h_ii = 0) its column of w is set to 0. square: [cols, cols] floats that are
 * overwritten. Scratch comes from the arena and is given back. */
bool quantize_gptq(struct gpu_cmd *cmd, const struct qmatrix *q, struct gpu_view w, const struct hessian *h,
                   struct gpu_view square, struct gpu_arena *scratch, float damp, const struct scale_search_options *o,
                   struct gptq_facts *facts, struct err *e);

/* loss[row] = (D H D^T)_row,row for D = codes*scales + offsets - w (or D = -w where q is NULL), into host
 * doubles [rows]. h: the whole square. outputs: tiles of these rows' Hessian Ho (output_hessian_rows), then it is (D H D^T Ho)_row,row,
 * whose sum over a tile's rows is the tile's loss; empty: Ho is the unit matrix. Scratch: as many rows at a time as take
 * LOSS_BYTES, twice, with outputs three times. */
#define LOSS_BYTES (UINT64_C(64) << 20)
bool hessian_loss(struct gpu_cmd *cmd, const struct qmatrix *q, struct gpu_view w, uint32_t rows, uint32_t cols,
                  struct gpu_view h, struct gpu_matrix outputs, struct gpu_arena *scratch, double *loss, struct err *e);

#endif
