#include "host/quant/method/code_descent.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/tiled.h"

/* Columns that the host works on before the device brings all behind them up to date. */
#define BLOCK 64u

/* A tile of rows: what the device has of it, and the host. */
struct descent {
    struct gpu_cmd *cmd;
    struct gpu_view w, inputs;
    struct gpu_matrix outputs;
    struct qlinear *q;
    uint32_t row, n;
    struct gpu_view gradient, room;      /* [n, cols]: Ho D H; and what it is made from */
    struct gpu_view part, moves, pushed; /* [BLOCK, n], or [BLOCK, BLOCK] */
    float *weights, *ho, *h;             /* [n, cols]; [n, ld]; of the block's columns */
    float *of_block, *moved, *lift;      /* [BLOCK, n]: a column after the other; [n]: Ho times a column's moves */
};

/* Of one column: what each row's code becomes. */
static uint64_t descend_column(struct descent *x, uint32_t col, float h, float *gradient, float *moved)
{
    const struct quant_type *type = x->q->spec.type;
    const uint32_t n = x->n, ld = x->outputs.ld, group = col / x->q->spec.group;
    uint64_t changed = 0;
    memset(x->lift, 0, n * sizeof *x->lift);
    for (uint32_t r = 0; r < n; r++) {
        const float *ho = x->ho + (size_t)r * ld;
        int8_t *code = x->q->codes + (size_t)(x->row + r) * x->q->cols + col;
        const float scale = qlinear_scale(x->q, x->row + r, 0, group);
        const float to = (float)*code - gradient[r] / (ho[r] * h * scale);
        if (!isfinite(to))
            continue; /* its input is always 0, or its scale is */
        const int best = quant_type_nearest(type, to);
        const float t = (float)(best - *code) * scale;
        if (best == *code)
            continue;
        *code = (int8_t)best;
        moved[r] += t;
        for (uint32_t s = 0; s < n; s++) {
            x->lift[s] += ho[s] * t;
            gradient[s] += ho[s] * t * h;
        }
        changed++;
    }
    return changed;
}

/* The block's columns; moved gets what their weights moved by. */
static uint64_t descend_block(struct descent *x, uint32_t col, uint32_t width)
{
    uint64_t changed = 0;
    memset(x->moved, 0, (size_t)BLOCK * x->n * sizeof *x->moved);
    for (uint32_t c = 0; c < width; c++) {
        uint64_t of = descend_column(x, col + c, x->h[c * width + c], x->of_block + (size_t)c * x->n,
                                     x->moved + (size_t)c * x->n);
        changed += of;
        for (uint32_t k = c + 1; of && k < width; k++) {
            const float h = x->h[c * width + k];
            float *gradient = x->of_block + (size_t)k * x->n;
            for (uint32_t s = 0; s < x->n; s++)
                gradient[s] += x->lift[s] * h;
        }
    }
    return changed;
}

/* ---- a tile ---- */

/* The gradient of the codes as they are. */
static void find_gradient(struct descent *x)
{
    const uint32_t cols = x->q->cols, n = x->n;
    const uint64_t bytes = (uint64_t)n * cols * sizeof(float), from = (uint64_t)x->row * cols * sizeof(float);
    qlinear_dequant(x->q, x->row, n, x->weights);
    gpu_upload(x->cmd, x->room, x->weights, bytes);
    tiled_subtract(x->cmd, &(struct subtract_args){
                               .a = x->room, .b = gpu_slice(x->w, from, bytes), .d = x->gradient, .n = n * cols});
    gpu_gemm(x->cmd, &(struct gpu_product){.a = {x->gradient, cols},
                                           .b = {x->inputs, cols},
                                           .c = {x->room, cols},
                                           .m = n,
                                           .n = cols,
                                           .k = cols,
                                           .alpha = 1});
    output_hessian_times(x->cmd, x->outputs, x->row, n, x->room, x->gradient, cols, GEMM_EXACT);
}

/* The gradient of the columns from `next` on, after the moves of `width` columns before them. */
static void push(struct descent *x, uint32_t next, uint32_t width)
{
    const uint32_t cols = x->q->cols, n = x->n;
    gpu_upload(x->cmd, x->moves, x->moved, (uint64_t)width * n * sizeof(float));
    gpu_gemm(x->cmd, &(struct gpu_product){.a = {x->moves, n},
                                           .b = gpu_matrix_from(x->outputs.view, x->outputs.ld, x->row, 0),
                                           .c = {x->pushed, n},
                                           .m = width,
                                           .n = n,
                                           .k = n,
                                           .alpha = 1});
    gpu_gemm(x->cmd, &(struct gpu_product){.a = {x->pushed, n},
                                           .b = gpu_matrix_from(x->inputs, cols, next - width, next),
                                           .c = gpu_matrix_from(x->gradient, cols, 0, next),
                                           .m = n,
                                           .n = cols - next,
                                           .k = width,
                                           .alpha = 1,
                                           .beta = 1,
                                           .a_transposed = true,
                                           .b_transposed = true});
}

static bool descend_tile(struct descent *x, uint64_t *changed, struct err *e)
{
    const uint32_t cols = x->q->cols, n = x->n, ld = x->outputs.ld;
    const uint64_t bytes = (uint64_t)n * ld * sizeof(float);
    *changed = 0;
    if (!gpu_download(x->cmd, gpu_slice(x->outputs.view, (uint64_t)x->row * ld * sizeof(float), bytes), x->ho, bytes,
                      e))
        return false;
    find_gradient(x);
    for (uint32_t col = 0, width; col < cols; col += width) {
        width = (uint32_t)min_u64(BLOCK, cols - col);
        gpu_copy_part(x->cmd, gpu_matrix_from(x->inputs, cols, col, col), (struct gpu_matrix){x->part, width}, width,
                      width);
        if (!gpu_download(x->cmd, x->part, x->h, (uint64_t)width * width * sizeof(float), e))
            return false;
        gpu_transpose_part(x->cmd, gpu_matrix_from(x->gradient, cols, 0, col), (struct gpu_matrix){x->part, n}, n,
                           width);
        if (!gpu_download(x->cmd, x->part, x->of_block, (uint64_t)width * n * sizeof(float), e))
            return false;
        uint64_t of = descend_block(x, col, width);
        if (of && col + width < cols)
            push(x, col + width, width);
        *changed += of;
    }
    return true;
}

/* ---- the whole ---- */

bool code_descent(struct gpu_cmd *cmd, struct gpu_view w, struct gpu_view inputs, struct gpu_matrix outputs,
                  struct gpu_arena *scratch, struct qlinear *q, uint32_t passes, uint64_t *moved, struct err *e)
{
    const uint32_t most = (uint32_t)min_u64(q->rows, HESSIAN_TILE);
    const uint64_t bytes = (uint64_t)most * q->cols * sizeof(float);
    const uint64_t block = BLOCK * max_u64(most, BLOCK) * sizeof(float);
    const size_t floats =
        (size_t)most * q->cols + (size_t)most * outputs.ld + BLOCK * BLOCK + 2u * BLOCK * (size_t)most + most;
    struct descent x = {.cmd = cmd, .w = w, .inputs = inputs, .outputs = outputs, .q = q};
    gpu_mark mark = gpu_arena_mark(scratch);
    bool ok = gpu_alloc(scratch, bytes, &x.gradient, e) && gpu_alloc(scratch, bytes, &x.room, e) &&
              gpu_alloc(scratch, block, &x.part, e) && gpu_alloc(scratch, block, &x.moves, e) &&
              gpu_alloc(scratch, block, &x.pushed, e);
    *moved = 0;
    if (ok && !gpu_cmd_counts(cmd)) {
        x.weights = malloc(floats * sizeof(float));
        ok = x.weights || err_nomem(e, "codes one by one", floats * sizeof(float));
        for (; ok && x.row < q->rows; x.row += x.n) {
            uint64_t changed = 1;
            x.n = (uint32_t)min_u64(most, q->rows - x.row);
            x.ho = x.weights + (size_t)most * q->cols;
            x.h = x.ho + (size_t)most * outputs.ld;
            x.of_block = x.h + BLOCK * BLOCK;
            x.moved = x.of_block + BLOCK * (size_t)most;
            x.lift = x.moved + BLOCK * (size_t)most;
            for (uint32_t pass = 0; ok && changed && pass < passes; pass++) {
                ok = descend_tile(&x, &changed, e);
                *moved += changed;
            }
        }
        free(x.weights);
    }
    gpu_arena_reset(scratch, mark);
    return ok;
}
