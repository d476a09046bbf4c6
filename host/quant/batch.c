#include "host/quant/batch.h"

#include "host/base/num.h"
#include "host/model/calib.h"

bool batch_create(struct batch *b, struct gpu_arena *arena, const struct model *m, uint32_t windows,
                  struct err *e)
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
