#include "host/quant/method/hessian.h"

#include "host/gpu/gpu_gemm.h"

bool hessian_create(struct hessian *h, struct gpu_cmd *cmd, struct gpu_arena *arena, uint32_t n, bool with_held,
                    struct err *e)
{
    uint64_t bytes = (uint64_t)n * n * sizeof(float);
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

bool hessian_create_half(struct hessian h[INPUT_COUNT], struct gpu_cmd *cmd, struct gpu_arena *arena,
                         struct block_shape block, enum block_half half, bool with_held, struct err *e)
{
    bool ok = true;
    for (int in = 0; in < INPUT_COUNT; in++) {
        uint32_t cols = block_input_cols(block, half, (enum input)in);
        h[in] = (struct hessian){0};
        ok = ok && (!cols || hessian_create(&h[in], cmd, arena, cols, with_held, e));
    }
    return ok;
}

bool hessian_create_diagonal(struct hessian *h, struct gpu_view *diag, struct gpu_cmd *cmd, struct gpu_arena *arena,
                             uint32_t n, struct err *e)
{
    return hessian_create(h, cmd, arena, n, false, e) && gpu_alloc(arena, n * 4ull, diag, e);
}

void hessian_add(struct gpu_cmd *cmd, struct gpu_view sum, struct gpu_view x, uint32_t tokens, uint32_t n, float factor,
                 struct gpu_view transposed)
{
    /* The one matrix product is A B^T, so x^T x takes x^T twice. */
    gpu_transpose(cmd, x, transposed, tokens, n);
    struct gpu_matrix xt = {transposed, tokens};
    gpu_gemm(cmd, xt, xt, (struct gpu_matrix){sum, n}, n, n, tokens, factor, 1.0f);
}
