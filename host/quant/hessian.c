#include "host/quant/hessian.h"

#include "host/gpu/gpu_gemm.h"

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

void hessian_add(struct gpu_cmd *cmd, struct gpu_view sum, struct gpu_view x, uint32_t tokens, uint32_t n,
                 float factor, struct gpu_view transposed)
{
    /* The one matrix product is A B^T, so x^T x takes x^T twice. */
    gpu_transpose(cmd, x, transposed, tokens, n);
    struct gpu_matrix xt = {transposed, tokens};
    gpu_gemm(cmd, xt, xt, (struct gpu_matrix){sum, n}, n, n, tokens, factor, 1.0f);
}
