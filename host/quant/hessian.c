#include "host/quant/hessian.h"

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/kernels.h"

uint64_t hessian_bytes(uint32_t n, bool with_held)
{
    return (with_held ? 2 : 1) * (uint64_t)n * n * sizeof(float);
}

bool hessian_create(struct hessian *h, struct gpu_cmd *cmd, struct gpu_arena *arena, uint32_t n,
                    bool with_held, struct err *e)
{
    uint64_t bytes = hessian_bytes(n, false);
    *h = (struct hessian){.n = n};
    if (!gpu_alloc(arena, bytes, &h->train, e))
        return false;
    gpu_fill(cmd, h->train, 0);
    if (with_held) {
        if (!gpu_alloc(arena, bytes, &h->held, e))
            return false;
        gpu_fill(cmd, h->held, 0);
    }
    return true;
}

/* dst[cols, rows] = src[rows, cols]^T, both dense. Squares of tiles whose views fit one binding. */
static void transpose(struct gpu_cmd *cmd, struct gpu_view src, struct gpu_view dst, uint32_t rows,
                      uint32_t cols)
{
    struct gpu *g = gpu_cmd_gpu(cmd);
    uint32_t tile_r = gpu_tile_rows(g, (uint64_t)cols * 4, rows),
             tile_c = gpu_tile_rows(g, (uint64_t)rows * 4, cols);
    for (uint32_t r = 0; r < rows; r += tile_r) {
        for (uint32_t c = 0; c < cols; c += tile_c) {
            uint32_t nr = (uint32_t)min_u64(tile_r, rows - r), nc = (uint32_t)min_u64(tile_c, cols - c);
            uint64_t from = ((uint64_t)r * cols + c) * 4, from_size = ((uint64_t)(nr - 1) * cols + nc) * 4;
            uint64_t to = ((uint64_t)c * rows + r) * 4, to_size = ((uint64_t)(nc - 1) * rows + nr) * 4;
            uint32_t side = gpu_kernel_constant(g, KERNEL_ID_transpose, 2, 32);
            run_transpose(cmd, gpu_rows(div_up(nr, side) * div_up(nc, side)),
                          &(struct transpose_args){.src = gpu_slice(src, from, from_size),
                                                   .dst = gpu_slice(dst, to, to_size),
                                                   .rows = nr,
                                                   .cols = nc,
                                                   .lds = cols,
                                                   .ldd = rows});
        }
    }
}

void hessian_add(struct gpu_cmd *cmd, struct gpu_view sum, struct gpu_view x, uint32_t tokens, uint32_t n,
                 float factor, struct gpu_view transposed)
{
    /* The one matrix product is A B^T, so x^T x takes x^T twice. */
    transpose(cmd, x, transposed, tokens, n);
    struct gpu_matrix xt = {transposed, tokens};
    gpu_gemm(cmd, xt, xt, (struct gpu_matrix){sum, n}, n, n, tokens, factor, 1.0f);
}
