#include "host/gpu/gpu_gemm.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "host/base/num.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/kernels.h"

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

/* `size` in equal steps of at most `most`, multiples of unit. */
static uint64_t even_steps(uint64_t size, uint64_t most, uint64_t unit)
{
    if (most >= size)
        return size;
    most = max_u64(most / unit, 1) * unit;
    return min_u64(min_u64(round_up(div_up(size, div_up(size, most)), unit), most), size);
}

_Static_assert(sizeof(struct gemm_half_args) == sizeof(struct gemm_args), "the two kernels take the same");

static void run(struct gpu_cmd *cmd, bool half, struct gpu_grid grid, const struct gemm_args *args)
{
    struct gemm_half_args same;
    if (!half) {
        run_gemm(cmd, grid, args);
        return;
    }
    memcpy(&same, args, sizeof same);
    run_gemm_half(cmd, grid, &same);
}

static void product(struct gpu_cmd *cmd, bool half, struct gpu_matrix a, struct gpu_matrix b, struct gpu_matrix c,
                    uint32_t m, uint32_t n, uint32_t k, float alpha, float beta)
{
    const unsigned kernel = half ? KERNEL_ID_gemm_half : KERNEL_ID_gemm;
    struct gpu *g = gpu_cmd_gpu(cmd);
    uint64_t range = gpu_info(g)->max_range;
    uint32_t tile_m = gpu_kernel_constant(g, kernel, NULL, SPEC_TILE, TILE_DEFAULT);
    uint32_t tile_n = gpu_kernel_constant(g, kernel, NULL, SPEC_TILE_N, TILE_DEFAULT);
    /* Pieces of whole tiles, so that only the matrix' own edge is ragged. */
    uint64_t unit_m = round_up(PIECE_UNIT, tile_m), unit_n = round_up(PIECE_UNIT, tile_n);
    assert(m && n && k && a.ld >= k && b.ld >= k && c.ld >= n);
    assert(unit_m % PIECE_UNIT == 0 && unit_n % PIECE_UNIT == 0);

    uint64_t cols_most = bindable(range, b.ld, n, k, unit_n);
    for (uint64_t row = 0, rows; row < m && !gpu_cmd_failed(cmd); row += rows) {
        uint64_t rows_most = min_u64(bindable(range, a.ld, m, k, unit_m), bindable(range, c.ld, m, n, unit_m));
        /* Elements of C per submission; pieces are square where the matrix allows, so that operands are
         * reread least. */
        double elements = fmax(gpu_cmd_work_limit(cmd, kernel, NULL) / (2.0 * k), 1);
        uint64_t side = (uint64_t)fmin(sqrt(elements), 1e9), area = (uint64_t)fmin(elements, 1e18);
        uint64_t cols = even_steps(n, min_u64(cols_most, max_u64(side, area / m)), unit_n);
        rows = even_steps(m - row, min_u64(rows_most, area / cols), unit_m);
        for (uint64_t col = 0; col < n; col += cols) {
            uint64_t nc = min_u64(cols, n - col);
            struct gpu_grid grid = gpu_rows(div_up(rows, tile_m) * div_up(nc, tile_n));
            grid.work = 2.0 * (double)rows * (double)nc * k;
            run(cmd, half, grid,
                &(struct gemm_args){
                    .a = part(a, row, 0, rows, k),
                    .b = part(b, col, 0, nc, k),
                    .old = part(c, row, col, rows, nc),
                    .c = part(c, row, col, rows, nc),
                    .m = (uint32_t)rows,
                    .n = (uint32_t)nc,
                    .k = k,
                    .lda = a.ld,
                    .ldb = b.ld,
                    .ldc = c.ld,
                    .alpha = alpha,
                    .beta = beta,
                });
        }
    }
}

void gpu_gemm(struct gpu_cmd *cmd, struct gpu_matrix a, struct gpu_matrix b, struct gpu_matrix c, uint32_t m,
              uint32_t n, uint32_t k, float alpha, float beta)
{
    product(cmd, false, a, b, c, m, n, k, alpha, beta);
}

void gpu_gemm_half(struct gpu_cmd *cmd, struct gpu_matrix a, struct gpu_matrix b, struct gpu_matrix c, uint32_t m,
                   uint32_t n, uint32_t k, float alpha, float beta)
{
    product(cmd, true, a, b, c, m, n, k, alpha, beta);
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

/* Squares of tiles whose views fit one binding. */
void gpu_transpose(struct gpu_cmd *cmd, struct gpu_view src, struct gpu_view dst, uint32_t rows, uint32_t cols)
{
    struct gpu *g = gpu_cmd_gpu(cmd);
    uint32_t tile_r = gpu_tile_rows(g, (uint64_t)cols * 4, rows), tile_c = gpu_tile_rows(g, (uint64_t)rows * 4, cols);
    for (uint32_t r = 0; r < rows; r += tile_r) {
        for (uint32_t c = 0; c < cols; c += tile_c) {
            uint32_t nr = (uint32_t)min_u64(tile_r, rows - r), nc = (uint32_t)min_u64(tile_c, cols - c);
            gpu_transpose_part(cmd, (struct gpu_matrix){part((struct gpu_matrix){src, cols}, r, c, nr, nc), cols},
                               (struct gpu_matrix){part((struct gpu_matrix){dst, rows}, c, r, nc, nr), rows}, nr, nc);
        }
    }
}
