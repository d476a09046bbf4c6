#include "host/model/end_to_end.h"

#include <stdlib.h>

#include "host/base/comm.h"
#include "host/base/num.h"
#include "host/gpu/tiled.h"
#include "host/model/walk.h"

/* Of the device's memory, what the logits of one model may take beside a head that comes from the host. */
#define LOGITS_PART 32

/* ---- set-up ---- */

uint32_t end_to_end_windows(const struct model *m, uint32_t batch)
{
    return (m->cfg->num_layers + 1) * batch;
}

bool end_to_end_alloc(struct end_to_end *w, struct gpu_arena *arena, struct model *m, uint32_t micro, bool stays,
                      struct err *e)
{
    uint64_t bytes = micro * acts_bytes(m, 1), tokens = (uint64_t)micro * m->ctx, row = m->cfg->vocab_size * 4ull;
    *w = (struct end_to_end){.m = m, .micro = micro};
    /* What one binding holds. */
    w->logit_rows =
        gpu_tile_rows(m->gpu, row, head_logit_rows(m, stays, gpu_info(m->gpu)->mem_limit / LOGITS_PART, tokens));
    return block_scratch_create(&w->fwd, arena, m, micro, SCRATCH_TRAIN, e) &&
           bwd_scratch_create(&w->bwd, arena, m, micro, BWD_ATTN | BWD_QK | BWD_FFN | BWD_INPUT, e) &&
           head_create(&w->head, arena, m, stays, e) && gpu_alloc(arena, bytes, &w->x, e) &&
           gpu_alloc(arena, bytes, &w->h, e) && gpu_alloc(arena, bytes, &w->dy, e) &&
           gpu_alloc(arena, w->logit_rows * row, &w->logits[0], e) &&
           gpu_alloc(arena, w->logit_rows * row, &w->logits[1], e) && gpu_alloc(arena, tokens * 4, &w->kl, e) &&
           gpu_alloc(arena, tokens * 4, &w->top1, e);
}

bool end_to_end_create(struct end_to_end *w, uint32_t batch, const struct acts_options *room, struct err *e)
{
    w->batch = batch;
    return acts_create(&w->kept, w->m, end_to_end_windows(w->m, batch), room, e);
}

void end_to_end_free(struct end_to_end *w)
{
    acts_destroy(&w->kept);
}

/* ---- shared: pieces of a batch go to the ranks in turn ---- */

/* A loss of a piece in the scratch of the way back, which the head does not use: where a view may begin. */
#define LOSS_STEP 256u

static uint32_t pieces_of(const struct end_to_end *w, uint32_t n)
{
    return (uint32_t)div_up(n, w->micro);
}

/* Whether a batch of n windows is shared. */
static bool is_dealt(const struct end_to_end *w, uint32_t n)
{
    return w->shared && comm_size() > 1 && end_to_end_parts(w->m, w->micro, n);
}

bool end_to_end_parts(const struct model *m, uint32_t micro, uint32_t n)
{
    const uint64_t pieces = div_up(n, micro), room = (uint64_t)micro * m->ctx * m->cfg->hidden_size * sizeof(float);
    return pieces > 1 && pieces * LOSS_STEP <= room;
}

uint32_t end_to_end_rounds(uint32_t micro, uint32_t n, unsigned ranks, unsigned *last)
{
    const uint32_t pieces = (uint32_t)div_up(n, micro), rounds = (uint32_t)div_up(pieces, ranks);
    *last = pieces - (rounds - 1) * ranks;
    return rounds;
}

void end_to_end_expect(struct comm_expected *x, const struct model *m, uint32_t micro, uint32_t n, uint64_t times)
{
    unsigned last;
    if (end_to_end_parts(m, micro, n))
        comm_expect_gather(x, COMM_LOSSES, x->ranks, 1, end_to_end_rounds(micro, n, x->ranks, &last) * sizeof(float),
                           times);
}

/* Whose work pieces are. */
static enum gpu_part begin(const struct end_to_end *w, uint32_t n)
{
    const bool parts = w->shared && end_to_end_parts(w->m, w->micro, n);
    return gpu_part_begin(w->m->cmd, parts ? GPU_PART_UNITS : GPU_PART_OWN);
}

/* The next of the pieces' gradients, one of each rank that has one, to the caller. */
static bool sum_round(struct end_to_end *w, uint32_t layer, uint32_t n, uint32_t *round, struct err *e)
{
    const uint32_t ranks = comm_size(), before = *round * ranks, left = pieces_of(w, n) - before;
    return w->blocks.sum(w->blocks.ctx, layer, (unsigned)min_u64(ranks, left), (*round)++ == 0, e);
}

/* To what `to` has, piece by piece as on one rank, their losses, of which this one has its own. */
static bool sum_losses(struct end_to_end *w, uint32_t n, const struct end_to_end_loss *to, struct err *e)
{
    enum { STEP = LOSS_STEP / sizeof(float) };
    struct gpu_cmd *cmd = w->m->cmd;
    const uint32_t pieces = pieces_of(w, n), ranks = comm_size(), rounds = (uint32_t)div_up(pieces, ranks);
    const uint64_t bytes = (uint64_t)pieces * LOSS_STEP;
    const struct gpu_view at = gpu_slice(w->bwd.dnorm, 0, bytes);
    float *host = calloc((size_t)pieces * STEP + (size_t)ranks * rounds, sizeof *host);
    if (!host)
        return err_nomem(e, "losses between ranks", bytes);
    float *all = host + (size_t)pieces * STEP;
    bool ok = gpu_download(cmd, at, host, bytes, e);
    for (uint32_t p = comm_rank(); p < pieces; p += ranks)
        all[comm_rank() * rounds + p / ranks] = host[p * STEP];
    ok = ok && comm_gather(COMM_LOSSES, all, ranks, 1, rounds * sizeof *all, e);
    for (uint32_t p = 0; p < pieces; p++)
        host[p * STEP] = all[p % ranks * rounds + p / ranks];
    if (ok)
        gpu_upload(cmd, at, host, bytes);
    const enum gpu_part before = gpu_part_begin(cmd, GPU_PART_EXCHANGE);
    for (uint32_t p = 0; ok && p < pieces; p++)
        run_reduce_sum(cmd, gpu_rows(1),
                       &(struct reduce_sum_args){.x = gpu_slice(at, (uint64_t)p * LOSS_STEP, sizeof(float)),
                                                 .result = to->sums,
                                                 .n = 1,
                                                 .at = to->at,
                                                 .factor = to->factor});
    gpu_part_end(cmd, before);
    free(host);
    return ok;
}

/* ---- windows through the model ---- */

/* Over slots from .. from+n-1, in even batches: x is what they hold. */
static struct walk walk_slots(const struct end_to_end *w, uint32_t from, uint32_t n)
{
    return (struct walk){.cmd = w->m->cmd,
                         .acts = w->kept,
                         .first = from,
                         .windows = n,
                         .batch = w->micro,
                         .even = true,
                         .deal = is_dealt(w, n),
                         .staging = w->x};
}

/* Slots from .. from+n-1 through a block into slots to .. */
static bool block_forward(struct end_to_end *w, const struct block_weights *b, uint32_t from, uint32_t to, uint32_t n,
                          struct err *e)
{
    struct walk k = walk_slots(w, from, n);
    const enum gpu_part before = begin(w, n);
    while (walk_next(&k, e)) {
        block_attn_fwd(w->m, b, &w->fwd, k.x, w->h, k.n);
        block_ffn_fwd(w->m, b, &w->fwd, w->h, w->h, k.n);
        if (!acts_put(w->kept, to + k.at, k.n, w->h, e))
            return false;
    }
    gpu_part_end(w->m->cmd, before);
    return k.ended;
}

/* Logits of `count` windows whose student's hidden states are x; their teacher's lie in w->h. With a gradient
 * w->dy becomes the loss's by x. */
static bool head_piece(struct end_to_end *w, struct gpu_view x, uint32_t count, bool gradient,
                       const struct end_to_end_loss *to, struct err *e)
{
    struct model *m = w->m;
    uint32_t tokens = count * m->ctx, hidden = m->cfg->hidden_size, vocab = m->cfg->vocab_size;
    block_rmsnorm(m, x, m->final_norm, w->fwd.norm, tokens, hidden);
    block_rmsnorm(m, w->h, m->final_norm, w->h, tokens, hidden);
    for (uint32_t r = 0; r < tokens; r += w->logit_rows) {
        uint32_t rows = (uint32_t)min_u64(w->logit_rows, tokens - r);
        uint64_t at = (uint64_t)r * hidden * 4, bytes = (uint64_t)rows * hidden * 4;
        struct gpu_grid grid = gpu_rows(rows);
        grid.work = (double)rows * vocab;
        if (!head_logits(&w->head, gpu_slice(w->fwd.norm, at, bytes), rows, gradient, w->logits[0], e) ||
            !head_logits(&w->head, gpu_slice(w->h, at, bytes), rows, gradient, w->logits[1], e))
            return false;
        run_kl(m->cmd, grid,
               &(struct kl_args){.ref = w->logits[1],
                                 .logits = w->logits[0],
                                 .out = gpu_slice(w->kl, r * 4ull, rows * 4ull),
                                 .top1 = gpu_slice(w->top1, r * 4ull, rows * 4ull),
                                 .rows = rows,
                                 .cols = vocab});
        if (!gradient)
            continue;
        /* The student's are needed once more where they are capped. */
        struct gpu_view dlogits = w->logits[m->cfg->logit_cap > 0];
        run_kl_bwd(m->cmd, grid,
                   &(struct kl_bwd_args){.ref = w->logits[1],
                                         .logits = w->logits[0],
                                         .dlogits = dlogits,
                                         .rows = rows,
                                         .cols = vocab,
                                         .factor = to->factor});
        if (!head_bwd(&w->head, head_uncap(&w->head, w->logits[0], dlogits, rows), rows, gpu_slice(w->dy, at, bytes),
                      e))
            return false;
    }
    run_reduce_sum(
        m->cmd, gpu_rows(1),
        &(struct reduce_sum_args){.x = w->kl, .result = to->sums, .n = tokens, .at = to->at, .factor = to->factor});
    if (gradient)
        block_rmsnorm_bwd(m, x, m->final_norm, w->dy, tokens, hidden);
    return true;
}

/* Without a teacher: w->dy becomes the gradient, by x, of the loss of labels that the model draws. at: the piece's first window, in
 * the batch. */
static bool head_sampled(struct end_to_end *w, struct gpu_view x, uint32_t at, uint32_t count, float factor,
                         struct err *e)
{
    struct model *m = w->m;
    uint32_t tokens = count * m->ctx, hidden = m->cfg->hidden_size, vocab = m->cfg->vocab_size;
    block_rmsnorm(m, x, m->final_norm, w->fwd.norm, tokens, hidden);
    for (uint32_t r = 0; r < tokens; r += w->logit_rows) {
        uint32_t rows = (uint32_t)min_u64(w->logit_rows, tokens - r);
        uint64_t from = (uint64_t)r * hidden * 4, bytes = (uint64_t)rows * hidden * 4;
        struct gpu_view dlogits = w->logits[m->cfg->logit_cap > 0];
        struct gpu_grid grid = gpu_rows(rows);
        grid.work = (double)rows * vocab;
        if (!head_logits(&w->head, gpu_slice(w->fwd.norm, from, bytes), rows, true, w->logits[0], e))
            return false;
        run_sampled_bwd(m->cmd, grid,
                        &(struct sampled_bwd_args){.logits = w->logits[0],
                                                   .dlogits = dlogits,
                                                   .rows = rows,
                                                   .cols = vocab,
                                                   .factor = factor,
                                                   .row0 = at * m->ctx + r,
                                                   .seed = w->seed});
        dlogits = head_uncap(&w->head, w->logits[0], dlogits, rows);
        if (w->blocks.head)
            w->blocks.head(w->blocks.ctx, gpu_slice(w->fwd.norm, from, bytes), dlogits, rows);
        if (!head_bwd(&w->head, dlogits, rows, gpu_slice(w->dy, from, bytes), e))
            return false;
    }
    block_rmsnorm_bwd(m, x, m->final_norm, w->dy, tokens, hidden);
    return true;
}

/* The head over slots from .. from+n-1, which hold the last block's output of windows list[0..n). With a
 * gradient, that takes their place. */
static bool head_forward(struct end_to_end *w, const uint32_t *list, uint32_t from, uint32_t n, bool gradient,
                         const struct end_to_end_loss *to, struct err *e)
{
    struct walk k = walk_slots(w, from, n);
    struct end_to_end_loss own = *to;
    const enum gpu_part before = begin(w, n);
    if (k.deal && w->targets) {
        own = (struct end_to_end_loss){.sums = w->bwd.dnorm, .factor = 1};
        gpu_fill(w->m->cmd, gpu_slice(own.sums, 0, (uint64_t)pieces_of(w, n) * LOSS_STEP), 0);
    }
    while (walk_next(&k, e)) {
        own.at = k.deal ? k.number * (LOSS_STEP / (uint32_t)sizeof(float)) : to->at;
        if (!(w->targets
                  ? acts_gather(w->targets, list + k.at, k.n, w->h, e) && head_piece(w, k.x, k.n, gradient, &own, e)
                  : head_sampled(w, k.x, k.at, k.n, to->factor, e)) ||
            (gradient && !acts_put(w->kept, from + k.at, k.n, w->dy, e)))
            return false;
    }
    gpu_part_end(w->m->cmd, before);
    return k.ended && (!k.deal || !w->targets || sum_losses(w, n, to, e));
}

/* A block's gradients: slots from .. hold its inputs, slots to .. the gradient of its output, which
 * becomes that of its input. */
static bool block_backward(struct end_to_end *w, const struct block_weights *b, uint32_t layer, uint32_t from,
                           uint32_t to, uint32_t n, struct err *e)
{
    struct model *m = w->m;
    const struct end_to_end_blocks *blocks = &w->blocks;
    struct block_grads grads = blocks->grads(blocks->ctx, layer);
    const bool want_input = layer > 0 || blocks->embedding;
    struct walk k = walk_slots(w, from, n);
    uint32_t round = 0;
    const enum gpu_part before = begin(w, n);
    while (walk_next(&k, e)) {
        struct gpu_view dy;
        if (!acts_get(w->kept, to + k.at, k.n, w->dy, &dy, e))
            return false;
        grads.add = !k.deal && k.at > 0;
        block_attn_fwd(m, b, &w->fwd, k.x, w->h, k.n);
        block_ffn_inputs(m, b, &w->fwd, w->h, k.n);
        if (blocks->inputs)
            blocks->inputs(blocks->ctx, HALF_FFN, &w->fwd, k.n);
        block_ffn_added(m, b, &w->fwd, k.n);
        block_ffn_bwd(m, b, &w->fwd, &w->bwd, w->h, dy, true, &grads, k.n);
        block_half_norm(m, HALF_ATTN, b, &w->fwd, k.x, k.n);
        if (blocks->inputs)
            blocks->inputs(blocks->ctx, HALF_ATTN, &w->fwd, k.n);
        block_attn_bwd(m, b, &w->fwd, &w->bwd, k.x, dy, want_input, &grads, k.n);
        if (layer && !acts_put(w->kept, to + k.at, k.n, dy, e))
            return false;
        if (!layer && blocks->embedding)
            blocks->embedding(blocks->ctx, dy, k.n);
        if (k.deal && !sum_round(w, layer, n, &round, e))
            return false;
    }
    while (k.ended && k.deal && round * comm_size() < pieces_of(w, n)) /* others have one more */
        if (!sum_round(w, layer, n, &round, e))
            return false;
    gpu_part_end(w->m->cmd, before);
    return k.ended;
}

/* ---- the whole ---- */

bool end_to_end_forward(struct end_to_end *w, const uint32_t *list, uint32_t n, const struct end_to_end_loss *to,
                        struct err *e)
{
    w->fwd.steering = false;
    if (!acts_embed(w->kept, w->windows, list, n, w->x, e))
        return false;
    for (uint32_t layer = 0; layer < w->m->cfg->num_layers; layer++) {
        const struct block_weights *b = w->blocks.load(w->blocks.ctx, layer, e);
        if (!b || !block_forward(w, b, 0, 0, n, e))
            return false;
    }
    return head_forward(w, list, 0, n, false, to, e);
}

bool end_to_end_step(struct end_to_end *w, const uint32_t *list, uint32_t n, const struct end_to_end_loss *to,
                     struct err *e)
{
    const struct end_to_end_blocks *blocks = &w->blocks;
    uint32_t layers = w->m->cfg->num_layers, last = layers * w->batch;
    w->fwd.steering = true;
    if (!acts_embed(w->kept, w->windows, list, n, w->x, e))
        return false;
    for (uint32_t layer = 0; layer < layers; layer++) {
        const struct block_weights *b = blocks->load(blocks->ctx, layer, e);
        if (!b || !block_forward(w, b, layer * w->batch, (layer + 1) * w->batch, n, e))
            return false;
    }
    if (!head_forward(w, list, last, n, true, to, e))
        return false;
    for (uint32_t layer = layers; layer-- > 0;) {
        const struct block_weights *b = blocks->load(blocks->ctx, layer, e);
        if (!b || !block_backward(w, b, layer, layer * w->batch, last, n, e) || !blocks->learn(blocks->ctx, layer, e))
            return false;
    }
    return true;
}

bool end_to_end_sampled(struct end_to_end *w, uint32_t n, uint32_t train, uint64_t seed,
                        const struct acts_options *room, struct err *e)
{
    uint32_t *list = malloc(n * sizeof *list);
    bool ok = (list || err_nomem(e, "the list of windows", n * sizeof *list)) && end_to_end_create(w, n, room, e);
    for (uint32_t i = 0; ok && i < n; i++)
        list[i] = end_to_end_spread(i, n, train);
    w->seed = (uint32_t)(seed ^ seed >> 32);
    ok = ok && end_to_end_step(w, list, n, &(struct end_to_end_loss){.factor = 1}, e);
    free(list);
    return ok;
}
