#include "host/model/head.h"

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/kernels.h"

/* Rows of a large head that are worked on at a time, in bytes, at most: the same wherever it lies, so that sums over tiles
 * are. */
#define TILE_BYTES (64ull << 20)
/* Logits held at once beside a head of one tile, one that is kept on the device, and one that comes from the host. */
#define LOGITS_BYTES          (64ull << 20)
#define LOGITS_BYTES_KEPT     (128ull << 20)
#define LOGITS_BYTES_STREAMED (1ull << 30)

static uint32_t tile_rows(const struct model *m)
{
    uint64_t bytes = min_u64(TILE_BYTES, gpu_info(m->gpu)->mem_limit / 16);
    uint64_t rows = bytes / (m->cfg->hidden_size * 4ull) / 64 * 64;
    return (uint32_t)min_u64(m->cfg->vocab_size, max_u64(64, rows));
}

/* What a head of several tiles takes on the device, as the file has it. 0: it has one, or no buffer holds it. */
static uint64_t kept_bytes(const struct model *m, bool halves)
{
    const struct gpu_info *info = gpu_info(m->gpu);
    uint64_t bytes = model_head_bytes(m) / (halves ? 2 : 1);
    bool fits = bytes <= info->max_alloc / GPU_ALLOC_ALIGN * GPU_ALLOC_ALIGN;
    return fits && tile_rows(m) < m->cfg->vocab_size ? bytes : 0;
}

static bool in_halves(const struct model *m, uint32_t *kind)
{
    return model_halves(m, checkpoint_head_module(m->ck), kind) && m->cfg->hidden_size % 2 == 0;
}

bool head_is_small(const struct model *m)
{
    return tile_rows(m) == m->cfg->vocab_size;
}

bool head_stays(const struct model *m)
{
    uint32_t kind;
    uint64_t bytes = kept_bytes(m, in_halves(m, &kind));
    return head_is_small(m) || (bytes && bytes <= gpu_info(m->gpu)->mem_limit / 4);
}

/* Vocabulary rows [v, v + n) as w. */
static bool load(struct head *h, uint32_t v, uint32_t n, struct err *e)
{
    struct model *m = h->m;
    uint64_t count = (uint64_t)n * m->cfg->hidden_size, at = (uint64_t)v * m->cfg->hidden_size;
    if (h->rows == m->cfg->vocab_size && h->loaded)
        return true;
    if (!h->kept.size) {
        if (!model_load_matrix(m, checkpoint_head_module(m->ck), v, n, h->w, e))
            return false;
    } else if (h->halves) {
        run_unpack16(m->cmd, gpu_items(m->cmd, KERNEL_ID_unpack16, div_up(count, 2)),
                     &(struct unpack16_args){.src = gpu_slice(h->kept, at * 2, count * 2),
                                             .dst = gpu_slice(h->w, 0, count * 4),
                                             .n = (uint32_t)count,
                                             .kind = h->kind});
    } else {
        h->w = gpu_slice(h->kept, at * 4, count * 4);
    }
    h->loaded = true;
    return true;
}

bool head_create(struct head *h, struct gpu_arena *arena, struct model *m, bool stays, struct err *e)
{
    const char *module = checkpoint_head_module(m->ck);
    *h = (struct head){.m = m, .rows = tile_rows(m)};
    h->halves = in_halves(m, &h->kind);
    uint64_t bytes = (uint64_t)h->rows * m->cfg->hidden_size * 4, kept = stays ? kept_bytes(m, h->halves) : 0;
    bool ok = !kept || (gpu_alloc(arena, kept, &h->kept, e) &&
                        (h->halves ? model_load_halves(m, module, h->kept, e)
                                   : model_load_matrix(m, module, 0, m->cfg->vocab_size, h->kept, e)));
    return ok && ((kept && !h->halves) || gpu_alloc(arena, bytes, &h->w, e)) &&
           (h->rows < m->cfg->vocab_size || load(h, 0, h->rows, e));
}

uint32_t head_logit_rows(const struct model *m, bool stays, uint64_t room, uint64_t rows)
{
    uint64_t limit = head_is_small(m) ? LOGITS_BYTES : stays ? LOGITS_BYTES_KEPT : min_u64(LOGITS_BYTES_STREAMED, room);
    return (uint32_t)min_u64(rows, max_u64(64, limit / (m->cfg->vocab_size * 4ull) / 64 * 64));
}

/* Columns [v, v + n) of the logits. */
static struct gpu_matrix columns(struct gpu_view logits, uint32_t vocab, uint32_t rows, uint32_t v, uint32_t n)
{
    uint64_t bytes = ((uint64_t)(rows - 1) * vocab + n) * 4;
    return (struct gpu_matrix){gpu_slice(logits, v * 4ull, bytes), vocab};
}

/* Of the product that gives the logits, and of the one back. */
static float logit_factor(const struct head *h)
{
    return (float)(1 / config_factor(h->m->cfg->logit_divisor));
}

bool head_logits(struct head *h, struct gpu_view x, uint32_t rows, bool steering, struct gpu_view logits, struct err *e)
{
    uint32_t hidden = h->m->cfg->hidden_size, vocab = h->m->cfg->vocab_size;
    for (uint32_t v = 0; v < vocab; v += h->rows) {
        uint32_t n = (uint32_t)min_u64(h->rows, vocab - v);
        if (!load(h, v, n, e))
            return false;
        gpu_gemm(h->m->cmd, &(struct gpu_product){.a = {x, hidden},
                                                  .b = {h->w, hidden},
                                                  .c = columns(logits, vocab, rows, v, n),
                                                  .m = rows,
                                                  .n = n,
                                                  .k = hidden,
                                                  .alpha = logit_factor(h),
                                                  .use = steering ? GEMM_STEERING : GEMM_EXACT});
    }
    const float cap = (float)h->m->cfg->logit_cap;
    uint32_t tile = gpu_tile_rows(h->m->gpu, vocab * 4ull, rows);
    for (uint32_t r = 0; cap > 0 && r < rows; r += tile) {
        uint64_t n = min_u64(tile, rows - r) * vocab;
        run_softcap(h->m->cmd, gpu_items(h->m->cmd, KERNEL_ID_softcap, n),
                    &(struct softcap_args){
                        .x = gpu_slice(logits, (uint64_t)r * vocab * 4, n * 4), .n = (uint32_t)n, .cap = cap});
    }
    return true;
}

struct gpu_view head_uncap(struct head *h, struct gpu_view logits, struct gpu_view dlogits, uint32_t rows)
{
    const float cap = (float)h->m->cfg->logit_cap;
    uint32_t vocab = h->m->cfg->vocab_size, tile = gpu_tile_rows(h->m->gpu, vocab * 4ull, rows);
    for (uint32_t r = 0; cap > 0 && r < rows; r += tile) {
        uint64_t at = (uint64_t)r * vocab * 4, n = min_u64(tile, rows - r) * vocab;
        run_softcap_bwd(
            h->m->cmd, gpu_items(h->m->cmd, KERNEL_ID_softcap_bwd, n),
            &(struct softcap_bwd_args){
                .dy = gpu_slice(dlogits, at, n * 4), .y = gpu_slice(logits, at, n * 4), .n = (uint32_t)n, .cap = cap});
    }
    return dlogits;
}

bool head_bwd(struct head *h, struct gpu_view dlogits, uint32_t rows, struct gpu_view dx, struct err *e)
{
    uint32_t hidden = h->m->cfg->hidden_size, vocab = h->m->cfg->vocab_size;
    for (uint32_t v = 0; v < vocab; v += h->rows) {
        uint32_t n = (uint32_t)min_u64(h->rows, vocab - v);
        if (!load(h, v, n, e))
            return false;
        gpu_gemm(h->m->cmd, &(struct gpu_product){.a = columns(dlogits, vocab, rows, v, n),
                                                  .b = {h->w, hidden},
                                                  .c = {dx, hidden},
                                                  .m = rows,
                                                  .n = hidden,
                                                  .k = n,
                                                  .alpha = logit_factor(h),
                                                  .beta = v ? 1.0f : 0.0f,
                                                  .b_transposed = true,
                                                  .use = GEMM_STEERING});
    }
    return true;
}
