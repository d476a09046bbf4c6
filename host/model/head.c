#include "host/model/head.h"

#include <assert.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"

/* Rows of a streamed head that are on the device at once, in bytes, at most. */
#define TILE_BYTES (64ull << 20)
/* Logits held at once beside a resident head, and beside a streamed one. */
#define LOGITS_BYTES          (64ull << 20)
#define LOGITS_BYTES_STREAMED (1ull << 30)

bool head_is_resident(const struct model *m)
{
    return model_head_bytes(m) <= gpu_info(m->gpu)->mem_limit / 4;
}

static uint32_t tile_rows(const struct model *m)
{
    uint32_t vocab = m->cfg->vocab_size;
    if (head_is_resident(m))
        return vocab;
    uint64_t bytes = min_u64(TILE_BYTES, gpu_info(m->gpu)->mem_limit / 16);
    uint64_t rows = bytes / (m->cfg->hidden_size * 4ull) / 64 * 64;
    return (uint32_t)min_u64(vocab, max_u64(64, rows));
}

/* Vocabulary rows [v, v + n) into w. */
static bool load(const struct head *h, uint32_t v, uint32_t n, struct err *e)
{
    return model_load_matrix(h->m, checkpoint_head_module(h->m->ck), v, n, h->w, e);
}

bool head_create(struct head *h, struct gpu_arena *arena, struct model *m, struct err *e)
{
    *h = (struct head){.m = m, .rows = tile_rows(m)};
    uint64_t bytes = (uint64_t)h->rows * m->cfg->hidden_size * 4;
    return gpu_alloc(arena, bytes, &h->w, e) && (h->rows < m->cfg->vocab_size || load(h, 0, h->rows, e));
}

uint32_t head_logit_rows(const struct model *m, bool resident, unsigned sides, uint64_t rows)
{
    uint64_t limit = resident ? LOGITS_BYTES : min_u64(LOGITS_BYTES_STREAMED, gpu_info(m->gpu)->mem_limit / 4 / sides);
    return (uint32_t)min_u64(rows, max_u64(64, limit / (m->cfg->vocab_size * 4ull) / 64 * 64));
}

/* Columns [v, v + n) of the logits. */
static struct gpu_matrix columns(struct gpu_view logits, uint32_t vocab, uint32_t rows, uint32_t v, uint32_t n)
{
    uint64_t bytes = ((uint64_t)(rows - 1) * vocab + n) * 4;
    return (struct gpu_matrix){gpu_slice(logits, v * 4ull, bytes), vocab};
}

bool head_logits(const struct head *h, struct gpu_view x, uint32_t rows, struct gpu_view logits, struct err *e)
{
    uint32_t hidden = h->m->cfg->hidden_size, vocab = h->m->cfg->vocab_size;
    for (uint32_t v = 0; v < vocab; v += h->rows) {
        uint32_t n = (uint32_t)min_u64(h->rows, vocab - v);
        if (h->rows < vocab && !load(h, v, n, e))
            return false;
        gpu_gemm(h->m->cmd, &(struct gpu_product){.a = {x, hidden},
                                                  .b = {h->w, hidden},
                                                  .c = columns(logits, vocab, rows, v, n),
                                                  .m = rows,
                                                  .n = n,
                                                  .k = hidden,
                                                  .alpha = 1});
    }
    return true;
}

bool head_bwd(const struct head *h, struct gpu_view dlogits, uint32_t rows, struct gpu_view dx, struct err *e)
{
    uint32_t hidden = h->m->cfg->hidden_size, vocab = h->m->cfg->vocab_size;
    for (uint32_t v = 0; v < vocab; v += h->rows) {
        uint32_t n = (uint32_t)min_u64(h->rows, vocab - v);
        if (h->rows < vocab && !load(h, v, n, e))
            return false;
        gpu_gemm(h->m->cmd, &(struct gpu_product){.a = columns(dlogits, vocab, rows, v, n),
                                                  .b = {h->w, hidden},
                                                  .c = {dx, hidden},
                                                  .m = rows,
                                                  .n = hidden,
                                                  .k = n,
                                                  .alpha = 1,
                                                  .beta = v ? 1.0f : 0.0f,
                                                  .b_transposed = true,
                                                  .use = GEMM_STEERING});
    }
    return true;
}
