#include "host/model/batch.h"

#include "host/base/num.h"
#include "host/model/acts.h"

/* On a CPU device a batch's activations should stay near its caches; a GPU wants enough rows to fill it. Results do not
 * depend on it. */
#define FORWARD_TOKENS_CPU 4096u
#define FORWARD_TOKENS_GPU 8192u

uint32_t batch_windows(const struct model *m, uint32_t tokens, uint64_t bytes, uint32_t windows)
{
    return block_scratch_windows(m, bytes, (uint32_t)min_u64(windows, max_u64(1, tokens / m->ctx)));
}

uint32_t batch_windows_forward(const struct model *m, uint32_t windows)
{
    const struct gpu_info *info = gpu_info(m->gpu);
    uint64_t used = gpu_memory_used(m->gpu), left = info->mem_limit > used ? info->mem_limit - used : 0;
    uint32_t tokens = info->caps & GPU_CAP_CPU ? FORWARD_TOKENS_CPU : FORWARD_TOKENS_GPU;
    return batch_windows(m, tokens, left / 4, windows);
}

bool batch_create(struct batch *b, struct gpu_arena *arena, const struct model *m, uint32_t windows, struct err *e)
{
    uint64_t tokens = (uint64_t)windows * m->ctx, wide = 0;
    for (int i = 0; i < LINEAR_COUNT; i++)
        wide = max_u64(wide, m->cols[i]);
    return block_scratch_create(&b->s, arena, m, windows, SCRATCH_FORWARD, e) &&
           gpu_alloc(arena, acts_bytes(m, windows), &b->hidden, e) &&
           gpu_alloc(arena, tokens * wide * 4, &b->transposed, e);
}

bool norm_batch_create(struct norm_batch *b, struct gpu_arena *arena, const struct model *m, uint32_t windows,
                       struct err *e)
{
    uint64_t bytes = acts_bytes(m, windows);
    return gpu_alloc(arena, bytes, &b->hidden, e) && gpu_alloc(arena, bytes, &b->normed, e) &&
           gpu_alloc(arena, m->cfg->hidden_size * sizeof(float), &b->sums, e);
}
