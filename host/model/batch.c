#include "host/model/batch.h"

#include <stdlib.h>

#include "host/base/comm.h"
#include "host/base/num.h"
#include "host/gpu/tiled.h"

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

bool batch_create(struct batch *b, struct gpu_arena *arena, const struct model *m, uint32_t windows, bool drift,
                  struct err *e)
{
    const uint64_t bytes = acts_bytes(m, windows);
    b->teacher = b->lost = (struct gpu_view){0};
    if (!block_scratch_create(&b->s, arena, m, windows, SCRATCH_FORWARD, e) ||
        !gpu_alloc(arena, bytes, &b->hidden, e) ||
        (drift && (!gpu_alloc(arena, bytes, &b->teacher, e) || !gpu_alloc(arena, bytes, &b->lost, e))))
        return false;
    b->s.steering = true;
    return true;
}

/* ---- of dealt batches ---- */

bool dealt_sums_begin(struct dealt_sums *s, uint32_t cols, const struct walk *k, struct err *e)
{
    const uint32_t batches = (uint32_t)div_up(k->windows, k->batch), rounds = (uint32_t)div_up(batches, comm_size());
    const size_t n = (size_t)comm_size() * rounds * cols;
    *s = (struct dealt_sums){.all = calloc(n + 1, sizeof *s->all), .cols = cols, .batches = batches, .rounds = rounds};
    return s->all || err_nomem(e, "sums of batches", n * sizeof *s->all);
}

static float *sums_of(const struct dealt_sums *s, uint32_t batch)
{
    return s->all + ((size_t)(batch % comm_size()) * s->rounds + batch / comm_size()) * s->cols;
}

bool dealt_sums_take(struct dealt_sums *s, const struct walk *k, struct gpu_view sums, uint32_t col, uint32_t n,
                     struct err *e)
{
    const struct gpu_view from = gpu_slice(sums, 0, n * sizeof(float));
    if (!gpu_download(k->cmd, from, sums_of(s, k->number) + col, from.size, e))
        return false;
    gpu_fill(k->cmd, from, 0);
    return true;
}

bool dealt_sums_end(struct dealt_sums *s, float *sums, struct err *e)
{
    if (!comm_gather(COMM_SCORES, s->all, comm_size(), 1, (uint64_t)s->rounds * s->cols * sizeof *s->all, e))
        return false;
    for (uint32_t c = 0; c < s->cols; c++)
        sums[c] = 0;
    for (uint32_t i = 0; i < s->batches; i++)
        for (uint32_t c = 0; c < s->cols; c++)
            sums[c] += sums_of(s, i)[c];
    return true;
}

void dealt_sums_free(struct dealt_sums *s)
{
    free(s->all);
    *s = (struct dealt_sums){0};
}

bool norm_batch_create(struct norm_batch *b, struct gpu_arena *arena, const struct model *m, uint32_t windows,
                       struct err *e)
{
    uint64_t bytes = acts_bytes(m, windows);
    return gpu_alloc(arena, bytes, &b->hidden, e) && gpu_alloc(arena, bytes, &b->normed, e) &&
           gpu_alloc(arena, m->cfg->hidden_size * sizeof(float), &b->sums, e);
}

bool norm_squares(struct walk *k, struct model *m, struct gpu_arena *arena, float *sums, struct err *e)
{
    gpu_mark mark = gpu_arena_mark(arena);
    uint32_t hidden = m->cfg->hidden_size;
    struct norm_batch b;
    struct dealt_sums dealt = {0};
    bool ok = norm_batch_create(&b, arena, m, k->batch, e) && (!k->deal || dealt_sums_begin(&dealt, hidden, k, e));
    if (ok) {
        k->staging = b.hidden;
        gpu_fill(m->cmd, b.sums, 0);
        while (ok && walk_next(k, e)) {
            uint32_t rows = k->n * m->ctx;
            block_rmsnorm(m, k->x, m->final_norm, b.normed, rows, hidden);
            tiled_col_sumsq(m->cmd,
                            &(struct col_sumsq_args){.x = b.normed, .sums = b.sums, .rows = rows, .cols = hidden});
            ok = !k->deal || dealt_sums_take(&dealt, k, b.sums, 0, hidden, e);
        }
        ok = ok && k->ended &&
             (k->deal ? dealt_sums_end(&dealt, sums, e) : gpu_download(m->cmd, b.sums, sums, hidden * sizeof *sums, e));
    }
    dealt_sums_free(&dealt);
    ok = walk_end(k, ok ? e : NULL) && ok;
    gpu_arena_reset(arena, mark);
    return ok;
}
