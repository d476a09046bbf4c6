#include "host/quant/method/drift.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/gpu/gpu_share.h"

/* With which what the last linear gives is not what the half adds. */
static bool changes_last(enum role role, enum block_half half)
{
    return half == HALF_ATTN ? role == ROLE_ATTN_POST_NORM : role == ROLE_FFN_POST_NORM || role == ROLE_SHARED_GATE;
}

/* Of an input that matrices of half a block read; n 0: none does. */
static struct drift shape_of(struct block_shape block, enum block_half half, int in, uint32_t hidden)
{
    const bool last = input_is_last((enum input)in);
    const uint32_t n = block_input_cols(block, half, (enum input)in);
    return (struct drift){.rows = last ? hidden : n, .n = n, .last = last};
}

bool drift_create_half(struct drift d[INPUT_COUNT], struct model *m, struct gpu_arena *arena,
                       const struct block_weights *w, enum block_half half, struct err *e)
{
    bool ok = true, changed = false;
    for (int role = 0; role < ROLE_COUNT; role++)
        changed = changed || (w->fixed[role].size && changes_last((enum role)role, half));
    for (int in = 0; in < INPUT_COUNT; in++) {
        d[in] = shape_of(w->shape, half, in, m->cfg->hidden_size);
        if (ok && d[in].n && !(d[in].last && changed)) {
            ok = gpu_alloc_rows(arena, d[in].rows, d[in].n * sizeof(float), HESSIAN_TILE, &d[in].sum, e);
            if (ok)
                gpu_fill(m->cmd, d[in].sum, 0);
        }
    }
    return ok;
}

bool drift_create_expert(struct expert_drift *d, struct gpu_arena *arena, const struct model_config *c, struct err *e)
{
    const uint32_t hidden = c->hidden_size, width = c->experts.width;
    const uint64_t w = (uint64_t)hidden * width * sizeof(float);
    d->in = d->layer = (struct drift){.rows = hidden, .n = hidden};
    d->out = (struct drift){.rows = hidden, .n = width, .last = true};
    return gpu_alloc_rows(arena, hidden, hidden * sizeof(float), HESSIAN_TILE, &d->in.sum, e) &&
           gpu_alloc_rows(arena, hidden, hidden * sizeof(float), HESSIAN_TILE, &d->layer.sum, e) &&
           gpu_alloc_rows(arena, hidden, width * sizeof(float), HESSIAN_TILE, &d->out.sum, e) &&
           gpu_alloc(arena, w, &d->gate, e) && gpu_alloc(arena, w, &d->up, e);
}

/* Which rank sums the rows from i on. */
static unsigned owner(uint32_t i, unsigned ranks)
{
    return i / HESSIAN_TILE % ranks;
}

void drift_add(struct gpu_cmd *cmd, const struct drift *d, struct gpu_view lost, struct gpu_view x, uint32_t tokens,
               float factor)
{
    for (uint32_t i = 0; i < d->rows; i += HESSIAN_TILE) {
        if (d->shared && owner(i, comm_size()) != comm_rank())
            continue;
        const enum gpu_part before = gpu_part_begin(cmd, d->shared ? GPU_PART_UNITS : GPU_PART_OWN);
        gpu_gemm_add(cmd, gpu_matrix_from(lost, d->rows, 0, i), (struct gpu_matrix){x, d->n},
                     gpu_matrix_from(d->sum, d->n, i, 0), hessian_tile_rows(d->rows, i), d->n, tokens, factor,
                     GEMM_STEERING);
        gpu_part_end(cmd, before);
    }
}

bool drift_exchange(struct gpu_cmd *cmd, struct drift *d, struct err *e)
{
    const uint64_t row = d->n * sizeof(float);
    d->shared = false;
    if (comm_size() == 1)
        return true;
    void *room = malloc(HESSIAN_TILE * row);
    bool ok = room || err_nomem(e, "rows of drift between ranks", HESSIAN_TILE * row);
    for (uint32_t i = 0; ok && i < d->rows; i += HESSIAN_TILE)
        ok = gpu_share(COMM_HESSIANS, cmd, gpu_slice(d->sum, i * row, hessian_tile_rows(d->rows, i) * row),
                       owner(i, comm_size()), room, e);
    ok = gpu_cmd_finish(cmd, ok ? e : NULL) && ok;
    free(room);
    return ok;
}

void drift_expect(struct comm_expected *x, const struct model *m, uint32_t layer, enum block_half half)
{
    const struct block_part *p;
    bool changed = false;
    for (uint32_t i = 0; (p = block_part_in(m->cfg, layer, i)); i++)
        changed = changed || changes_last(p->role, half);
    for (int in = 0; in < INPUT_COUNT; in++) {
        const struct drift d = shape_of(model_block(m, layer), half, in, m->cfg->hidden_size);
        for (uint32_t i = 0; d.n && !(d.last && changed) && i < d.rows; i += HESSIAN_TILE)
            comm_expect_broadcast(x, COMM_HESSIANS, hessian_tile_rows(d.rows, i) * (uint64_t)d.n * sizeof(float),
                                  owner(i, x->ranks), 1);
    }
}

double drift_products(struct block_shape block, enum block_half half, uint32_t hidden)
{
    double sum = 0;
    for (int in = 0; in < INPUT_COUNT; in++) {
        const struct drift d = shape_of(block, half, in, hidden);
        sum += (double)d.rows * d.n;
    }
    return sum;
}

/* ---- solving ---- */

/* What lies above the diagonal is undefined, and products read whole tiles. */
static bool clear_above(struct gpu_cmd *cmd, struct gpu_view factor, uint32_t n, struct gpu_view tile, struct err *e)
{
    const uint64_t bytes = (uint64_t)HESSIAN_TILE * HESSIAN_TILE * sizeof(float);
    float *host = malloc(bytes);
    bool ok = host || err_nomem(e, "a tile of GPTQ's factor", bytes);
    for (uint32_t i = 0; ok && i < n; i += HESSIAN_TILE) {
        const uint32_t t = hessian_tile_rows(n, i);
        const uint64_t size = (uint64_t)t * t * sizeof(float);
        const struct gpu_matrix packed = {tile, t};
        gpu_copy_part(cmd, gpu_matrix_from(factor, n, i, i), packed, t, t);
        ok = gpu_download(cmd, tile, host, size, e);
        for (uint32_t r = 0; ok && r < t; r++)
            memset(host + (size_t)r * t + r + 1, 0, (t - r - 1) * sizeof *host);
        if (ok) {
            gpu_upload(cmd, tile, host, size);
            gpu_copy_part(cmd, packed, gpu_matrix_from(factor, n, i, i), t, t);
        }
    }
    free(host);
    return ok;
}

/* y[rows, cols] = x[rows, first .. n - 1] B, for rows first .. n - 1 and columns col .. of b[n, n], tile by tile of b's rows: a transposed operand
 * that lies in two buffers is a sum for each, and so a result does not depend on where they end. */
static void times_tiles(struct gpu_cmd *cmd, struct gpu_view x, struct gpu_view b, uint32_t first, uint32_t col,
                        struct gpu_view y, uint32_t rows, uint32_t cols, uint32_t n)
{
    for (uint32_t k = first; k < n; k += HESSIAN_TILE)
        gpu_gemm(cmd, &(struct gpu_product){.a = gpu_matrix_from(x, n, 0, k),
                                            .b = gpu_matrix_from(b, n, k, col),
                                            .c = gpu_matrix_from(y, n, 0, col),
                                            .m = rows,
                                            .n = cols,
                                            .k = hessian_tile_rows(n, k),
                                            .alpha = 1,
                                            .beta = k > first ? 1 : 0,
                                            .b_transposed = true});
}

/* y[rows, n] = x R, for R with zeros above its diagonal: of each tile of columns from its first row on. */
static void times_factor(struct gpu_cmd *cmd, struct gpu_view x, struct gpu_view r, struct gpu_view y, uint32_t rows,
                         uint32_t n)
{
    for (uint32_t i = 0; i < n; i += HESSIAN_TILE)
        times_tiles(cmd, x, r, i, i, y, rows, hessian_tile_rows(n, i), n);
}

/* w[rows, n] += alpha x R^T. */
static void add_times_transposed(struct gpu_cmd *cmd, struct gpu_view x, struct gpu_view r, struct gpu_view w,
                                 uint32_t rows, uint32_t n, float alpha)
{
    for (uint32_t i = 0; i < n; i += HESSIAN_TILE)
        gpu_gemm(cmd, &(struct gpu_product){.a = {x, n},
                                            .b = gpu_matrix_from(r, n, i, 0),
                                            .c = gpu_matrix_from(w, n, 0, i),
                                            .m = rows,
                                            .n = hessian_tile_rows(n, i),
                                            .k = i + hessian_tile_rows(n, i),
                                            .alpha = alpha,
                                            .beta = 1});
}

bool drift_make_good(struct gpu_cmd *cmd, const struct drift *d, struct gpu_view w, uint32_t row0, uint32_t rows,
                     struct gpu_view factor, float share, struct gpu_arena *scratch, struct err *e)
{
    const uint32_t n = d->n, most = (uint32_t)min_u64(rows, DRIFT_ROWS);
    const uint64_t row = n * sizeof(float), bytes = most * row;
    gpu_mark mark = gpu_arena_mark(scratch);
    struct gpu_view room, y, tile;
    const enum gpu_part before = gpu_part_begin(cmd, GPU_PART_EACH);
    bool ok = gpu_alloc(scratch, bytes, &y, e) && (d->last || gpu_alloc(scratch, bytes, &room, e)) &&
              gpu_alloc(scratch, (uint64_t)HESSIAN_TILE * HESSIAN_TILE * sizeof(float), &tile, e) &&
              clear_above(cmd, factor, n, tile, e);
    gpu_part_end(cmd, before);
    for (uint32_t r = 0, some; ok && r < rows; r += some) {
        some = (uint32_t)min_u64(most, rows - r);
        const struct gpu_view part = gpu_slice(w, r * row, some * row);
        const struct gpu_view m = d->last ? gpu_slice(d->sum, (row0 + r) * row, some * row) : room;
        if (!d->last)
            times_tiles(cmd, part, d->sum, 0, 0, m, some, n, n);
        times_factor(cmd, m, factor, y, some, n);
        add_times_transposed(cmd, y, factor, part, some, n, share);
    }
    ok = gpu_cmd_finish(cmd, ok ? e : NULL) && ok;
    gpu_arena_reset(scratch, mark);
    return ok;
}
