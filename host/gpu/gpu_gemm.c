#include "host/gpu/gpu_gemm.h"

#include <assert.h>
#include <math.h>

#include "host/base/num.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/kernels.h"
#include "host/gpu/tiled.h"

/* Pieces start at multiples of this many rows and columns: with 4-byte elements every offset is a multiple of
 * 256. */
#define PIECE_UNIT 64
_Static_assert(PIECE_UNIT * 4 % GPU_ALLOC_ALIGN == 0, "pieces start aligned");

enum { TILE_DEFAULT = 64 };

/* Bytes from the first to the last element of rows x cols. */
static uint64_t extent(uint32_t ld, uint64_t rows, uint64_t cols)
{
    return ((rows - 1) * ld + cols) * 4;
}

static struct gpu_view part(struct gpu_matrix x, uint64_t row, uint64_t col, uint64_t rows, uint64_t cols)
{
    return gpu_slice(x.view, (row * x.ld + col) * 4, extent(x.ld, rows, cols));
}

/* Most rows of stride ld that fit the range, a multiple of unit unless it is all of them. */
static uint64_t bindable(uint64_t range, uint32_t ld, uint64_t rows, uint64_t cols, uint64_t unit)
{
    if (extent(ld, rows, cols) <= range)
        return rows;
    uint64_t fit = (range / 4 - cols) / ld + 1;
    assert(fit >= unit); /* a row of more than a 64th of the range: no model has it */
    return fit / unit * unit;
}

/* Most rows of x from `row` on, of `rows`, with `cols` columns from `col` on, that lie in one buffer. */
static uint64_t together(struct gpu_matrix x, uint64_t row, uint64_t col, uint64_t rows, uint64_t cols)
{
    uint64_t after = gpu_bytes_after(x.view, (row * x.ld + col) * 4) / 4;
    return min_u64(rows, (after - cols) / x.ld + 1);
}

/* `size` in equal steps of at most `most`, multiples of unit. */
static uint64_t even_steps(uint64_t size, uint64_t most, uint64_t unit)
{
    if (most >= size)
        return size;
    most = max_u64(most / unit, 1) * unit;
    return min_u64(min_u64(round_up(div_up(size, div_up(size, most)), unit), most), size);
}

/* By use, and by how many operands are transposed: B, then A too. They take the same arguments. */
enum { FORMS = 3 };
static const unsigned kernels[2][FORMS] = {
    [GEMM_EXACT] = {KERNEL_ID_gemm, KERNEL_ID_gemm_nn, KERNEL_ID_gemm_tn},
    [GEMM_STEERING] = {KERNEL_ID_gemm_half, KERNEL_ID_gemm_half_nn, KERNEL_ID_gemm_half_tn},
};
_Static_assert(sizeof(struct gemm_args) == sizeof(struct gemm_half_tn_args), "the kernels take the same");

bool gpu_gemm_kernel(unsigned kernel, bool *a_transposed, bool *b_transposed)
{
    for (int use = 0; use < 2; use++)
        for (int form = 0; form < FORMS; form++) {
            if (kernels[use][form] != kernel)
                continue;
            if (a_transposed)
                *a_transposed = form == 2;
            if (b_transposed)
                *b_transposed = form >= 1;
            return true;
        }
    return false;
}

/* Of an operand: its rows from `row` on, `count` along k from `at` on. */
static struct gpu_view operand(struct gpu_matrix x, bool transposed, uint64_t row, uint64_t rows, uint64_t at,
                               uint64_t count)
{
    return transposed ? part(x, at, row, count, rows) : part(x, row, at, rows, count);
}

/* Most of k in one piece. */
static uint64_t bindable_k(const struct gpu_product *p, uint64_t range)
{
    uint64_t a = p->a_transposed ? bindable(range, p->a.ld, p->k, p->m, PIECE_UNIT) : p->k;
    uint64_t b = p->b_transposed ? bindable(range, p->b.ld, p->k, p->n, PIECE_UNIT) : p->k;
    return even_steps(p->k, min_u64(a, b), PIECE_UNIT);
}

/* rows x cols of C, over all of k. */
static void piece(struct gpu_cmd *cmd, unsigned kernel, const struct gpu_product *p, uint64_t row, uint64_t rows,
                  uint64_t col, uint64_t cols, uint64_t k_step, uint64_t tiles)
{
    for (uint64_t at = 0; at < p->k; at += k_step) {
        uint64_t k = min_u64(k_step, p->k - at);
        struct gpu_matrix old = p->old.size && !at ? (struct gpu_matrix){p->old, p->c.ld} : p->c;
        struct gpu_grid grid = gpu_rows(tiles);
        grid.work = 2.0 * (double)rows * (double)cols * (double)k;
        struct gemm_args args = {
            .a = operand(p->a, p->a_transposed, row, rows, at, k),
            .b = operand(p->b, p->b_transposed, col, cols, at, k),
            .old = part(old, row, col, rows, cols),
            .c = part(p->c, row, col, rows, cols),
            .m = (uint32_t)rows,
            .n = (uint32_t)cols,
            .k = (uint32_t)k,
            .lda = p->a.ld,
            .ldb = p->b.ld,
            .ldc = p->c.ld,
            .alpha = p->alpha,
            .beta = at ? 1 : p->beta,
        };
        gpu_dispatch(cmd, kernel, grid, &args.a, gemm_n_buffers, &args.m, gemm_push_bytes);
    }
}

void gpu_gemm(struct gpu_cmd *cmd, const struct gpu_product *p)
{
    assert(p->b_transposed || !p->a_transposed);
    const unsigned kernel = kernels[p->use][p->a_transposed + p->b_transposed];
    struct gpu *g = gpu_cmd_gpu(cmd);
    uint64_t range = gpu_info(g)->max_range;
    uint32_t tile_m = gpu_kernel_constant(g, kernel, NULL, SPEC_TILE, TILE_DEFAULT);
    uint32_t tile_n = gpu_kernel_constant(g, kernel, NULL, SPEC_TILE_N, TILE_DEFAULT);
    /* Pieces of whole tiles, so that only the matrix' own edge is ragged. */
    uint64_t unit_m = round_up(PIECE_UNIT, tile_m), unit_n = round_up(PIECE_UNIT, tile_n);
    const uint32_t m = p->m, n = p->n, k = p->k;
    assert(m && n && k && p->a.ld >= (p->a_transposed ? m : k) && p->b.ld >= (p->b_transposed ? n : k) && p->c.ld >= n);
    assert(unit_m % PIECE_UNIT == 0 && unit_n % PIECE_UNIT == 0);

    uint64_t cols_most = p->b_transposed ? n : bindable(range, p->b.ld, n, k, unit_n);
    uint64_t a_rows = p->a_transposed ? m : bindable(range, p->a.ld, m, k, unit_m);
    uint64_t rows_most = min_u64(a_rows, bindable(range, p->c.ld, m, n, unit_m));
    uint64_t k_step = bindable_k(p, range);
    for (uint64_t row = 0, rows; row < m && !gpu_cmd_failed(cmd); row += rows) {
        /* Elements of C per submission; pieces are square where the matrix allows, so that operands are
         * reread least. */
        double elements = fmax(gpu_cmd_work_limit(cmd, kernel, NULL) / (2.0 * (double)k_step), 1);
        uint64_t side = (uint64_t)fmin(sqrt(elements), 1e9), area = (uint64_t)fmin(elements, 1e18);
        uint64_t cols = even_steps(n, min_u64(cols_most, max_u64(side, area / m)), unit_n);
        rows = even_steps(m - row, min_u64(rows_most, area / cols), unit_m);
        rows = together(p->c, row, 0, rows, n);
        rows = p->a_transposed ? rows : together(p->a, row, 0, rows, k);
        for (uint64_t col = 0, nc; col < n; col += nc) {
            nc = min_u64(cols, n - col);
            nc = p->b_transposed ? nc : together(p->b, col, 0, nc, k);
            piece(cmd, kernel, p, row, rows, col, nc, k_step, div_up(rows, tile_m) * div_up(nc, tile_n));
        }
    }
}

struct gpu_matrix gpu_matrix_from(struct gpu_view v, uint32_t ld, uint64_t row, uint64_t col)
{
    const uint64_t at = (row * ld + col) * sizeof(float);
    return (struct gpu_matrix){gpu_slice(v, at, v.size - at), ld};
}

void gpu_gemm_add(struct gpu_cmd *cmd, struct gpu_matrix a, struct gpu_matrix b, struct gpu_matrix c, uint32_t m,
                  uint32_t n, uint32_t k, float alpha, enum gemm_use use)
{
    gpu_gemm(cmd, &(struct gpu_product){.a = a,
                                        .b = b,
                                        .c = c,
                                        .m = m,
                                        .n = n,
                                        .k = k,
                                        .alpha = alpha,
                                        .beta = 1,
                                        .a_transposed = true,
                                        .b_transposed = true,
                                        .use = use});
}

void gpu_copy_part(struct gpu_cmd *cmd, struct gpu_matrix src, struct gpu_matrix dst, uint32_t rows, uint32_t cols)
{
    tiled_copy_rect(cmd,
                    &(struct copy_rect_args){
                        .src = src.view, .dst = dst.view, .rows = rows, .cols = cols, .lds = src.ld, .ldd = dst.ld});
}

void gpu_transpose_part(struct gpu_cmd *cmd, struct gpu_matrix src, struct gpu_matrix dst, uint32_t rows, uint32_t cols)
{
    uint32_t side = gpu_kernel_constant(gpu_cmd_gpu(cmd), KERNEL_ID_transpose, NULL, SPEC_TILE, 32);
    run_transpose(cmd, gpu_rows(div_up(rows, side) * div_up(cols, side)),
                  &(struct transpose_args){.src = part(src, 0, 0, rows, cols),
                                           .dst = part(dst, 0, 0, cols, rows),
                                           .rows = rows,
                                           .cols = cols,
                                           .lds = src.ld,
                                           .ldd = dst.ld});
}
