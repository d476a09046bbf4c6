/* GPTQ: columns left to right, each column's rounding error spread over the columns after it (docs/method.md 1;
 * Frantar et al., arXiv 2210.17323). The blocks of columns are the groups themselves (at most 128 columns),
 * so that every scale is searched on fully updated columns. Where groups share a super-block their scales are
 * searched together, when its first column's turn comes. */
#include <math.h>
#include <stdlib.h>

#include "host/base/log.h"
#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/tiled.h"
#include "host/quant/method/cholesky.h"
#include "host/quant/method/qmatrix.h"

/* The damping grows tenfold until the Cholesky succeeds; beyond this share of the mean diagonal nothing of H
 * is left. */
#define DAMP_MAX 100.0f

/* Columns whose scales are searched at once. */
static uint32_t search_columns(const struct quant_spec *spec)
{
    return spec->type->super ? spec->type->super : spec->group;
}

/* The same, where its diagonal is known. */
static bool factor(struct gpu_cmd *cmd, const struct hessian *h, const float *diag, float damp,
                   struct gpu_arena *scratch, struct gpu_view r, struct gptq_facts *facts, struct err *e)
{
    const uint32_t n = h->n;
    double mean = 0;
    for (uint32_t i = 0; i < n; i++)
        mean += diag[i] == 0 ? 1.0 : diag[i];
    mean /= n;

    bool done = false, ok = true;
    for (float share = damp; ok && !done && share <= DAMP_MAX; share = share > 0 ? share * 10 : 0.01f) {
        float add = (float)(share * mean);
        /* What H has above its diagonal comes below; the rest is not read. */
        tiled_flip(cmd, &(struct flip_args){.in = h->train, .out = r, .n = n, .ldi = n, .ldo = n});
        tiled_damp_diagonal(cmd,
                            &(struct damp_diagonal_args){.h = r, .n = n, .ldh = n, .one = 1.0f + add, .damp = add});
        ok = cholesky_inverse_factor(cmd, scratch, r, n, &done, e);
        facts->damp_raised = share != damp;
    }
    if (ok && !done) {
        /* Not positive at any damping (infinite or absurd inputs): the diagonal alone. Without off-diagonal
         * terms its factor spreads no error, whatever its values are. */
        facts->diagonal_only = true;
        gpu_fill(cmd, r, 0);
        tiled_damp_diagonal(cmd, &(struct damp_diagonal_args){.h = r, .n = n, .ldh = n, .one = 1.0f, .damp = 0.0f});
    }
    return ok;
}

/* *host: h's diagonal, which the caller frees. */
static bool read_diagonal(struct gpu_cmd *cmd, const struct hessian *h, struct gpu_view diag, float **host,
                          struct err *e)
{
    const uint64_t bytes = h->n * sizeof **host;
    *host = malloc(bytes);
    if (!*host)
        return err_nomem(e, "a Hessian's diagonal", bytes);
    tiled_diagonal(cmd, &(struct diagonal_args){.h = h->train, .diag = diag, .n = h->n, .ldh = h->n});
    return gpu_download(cmd, diag, *host, bytes, e);
}

bool gptq_factor(struct gpu_cmd *cmd, const struct hessian *h, float damp, struct gpu_arena *scratch,
                 struct gpu_view square, struct gptq_facts *facts, struct err *e)
{
    gpu_mark mark = gpu_arena_mark(scratch);
    struct gpu_view diag;
    float *host = NULL;
    *facts = (struct gptq_facts){0};
    const enum gpu_part before = gpu_part_begin(cmd, GPU_PART_EACH);
    bool ok = gpu_alloc(scratch, h->n * sizeof *host, &diag, e) && read_diagonal(cmd, h, diag, &host, e) &&
              factor(cmd, h, host, damp, scratch, square, facts, e);
    gpu_part_end(cmd, before);
    free(host);
    gpu_arena_reset(scratch, mark);
    return ok;
}

/* What an error in a column costs once the columns after it have made up for it, as a share of the largest such
 * cost: 1 / U_jj^2, which GPTQ minimises. The scale of a group is searched with it. diag: scratch on the
 * host, [n]. */
static bool column_weights(struct gpu_cmd *cmd, struct gpu_view r, uint32_t n, float *diag, struct gpu_view weights,
                           struct err *e)
{
    float most = 0;
    tiled_diagonal(cmd, &(struct diagonal_args){.h = r, .diag = weights, .n = n, .ldh = n});
    if (!gpu_download(cmd, weights, diag, (uint64_t)n * 4, e))
        return false;
    for (uint32_t i = 0; i < n; i++) {
        diag[i] = 1 / (diag[i] * diag[i]);
        most = fmaxf(most, diag[i]);
    }
    for (uint32_t i = 0; i < n; i++)
        diag[i] /= most;
    gpu_upload(cmd, weights, diag, (uint64_t)n * 4);
    return true;
}

bool quantize_gptq(struct gpu_cmd *cmd, const struct qmatrix *q, struct gpu_view w, const struct hessian *h,
                   struct gpu_view square, struct gpu_arena *scratch, float damp, const struct scale_search_options *o,
                   struct gptq_facts *facts, struct err *e)
{
    const uint32_t rows = q->rows, cols = q->cols;
    gpu_mark mark = gpu_arena_mark(scratch);
    struct gpu_view diag, weights, work, err, r = square;
    uint32_t table[TABLE_LEVELS / 4];
    float *host = NULL;
    *facts = (struct gptq_facts){0};
    const enum gpu_part before = gpu_part_begin(cmd, GPU_PART_EACH);
    bool ok = gpu_alloc(scratch, (uint64_t)cols * 4, &diag, e) && gpu_alloc(scratch, (uint64_t)cols * 4, &weights, e) &&
              read_diagonal(cmd, h, diag, &host, e);
    ok = ok && factor(cmd, h, host, damp, scratch, r, facts, e) && column_weights(cmd, r, cols, host, weights, e);
    gpu_part_end(cmd, before);
    ok = ok && gpu_alloc(scratch, (uint64_t)rows * cols * 4, &work, e) &&
         gpu_alloc(scratch, (uint64_t)rows * min_u64(search_columns(&q->spec), SEGMENT_MAX) * 4, &err, e);
    free(host);
    if (!ok)
        goto out;

    tiled_zero_dead(cmd, &(struct zero_dead_args){.w = w, .diag = diag, .rows = rows, .cols = cols, .ldw = cols});
    gpu_copy(cmd, work, w, (uint64_t)rows * cols * 4);
    for (uint32_t first = 0, end; first < cols; first = end) {
        end = (uint32_t)min_u64(cols, (uint64_t)first + search_columns(&q->spec));
        if (o)
            qmatrix_search(cmd, q, work, weights, first, end, o);
        for (uint32_t c = first; c < end; c += SEGMENT_MAX) {
            uint32_t count = (uint32_t)min_u64(SEGMENT_MAX, end - c), behind = c + count;
            tiled_gptq_segment_levels(cmd,
                                      &(struct gptq_segment_args){.rows = rows,
                                                                  .group = q->spec.group,
                                                                  .groups = q->groups,
                                                                  .lo = (uint32_t)q->spec.type->lo,
                                                                  .hi = (uint32_t)q->spec.type->hi,
                                                                  .w = work,
                                                                  .r = r,
                                                                  .scales = q->scales,
                                                                  .codes = q->codes,
                                                                  .err = err,
                                                                  .ldw = cols,
                                                                  .ldr = cols,
                                                                  .col0 = c,
                                                                  .count = count,
                                                                  .ldc = q->ldc,
                                                                  .offsets = quant_offsets(&q->spec)},
                                      quant_table(q->spec.type, table));
            if (behind == cols)
                break;
            /* W[:, behind:] -= Err U[c:behind, behind:], with R = U^T: rows `behind` on, columns c on. */
            uint64_t r_at = ((uint64_t)behind * cols + c) * 4, w_at = (uint64_t)behind * 4;
            struct gpu_matrix a = {gpu_slice(err, 0, (uint64_t)rows * count * 4), count};
            struct gpu_matrix b = {gpu_slice(r, r_at, (uint64_t)cols * cols * 4 - r_at), cols};
            struct gpu_matrix to = {gpu_slice(work, w_at, (uint64_t)rows * cols * 4 - w_at), cols};
            gpu_gemm(cmd,
                     &(struct gpu_product){
                         .a = a, .b = b, .c = to, .m = rows, .n = cols - behind, .k = count, .alpha = -1, .beta = 1});
        }
    }
    ok = gpu_cmd_finish(cmd, e);
out:
    gpu_arena_reset(scratch, mark);
    return ok;
}
