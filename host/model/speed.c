#include "host/model/speed.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/base/os.h"
#include "host/gpu/gpu_gemm.h"
#include "host/model/block_bwd.h"

/* A forward slice grows until both halves take this long, or is all that the run does at once: a GPU wants enough rows to
 * fill it. The passes backward then take slices to match. */
#define SLICE_SECONDS 40e-3
/* Where slices begin. A CPU needs some tens of milliseconds for these. */
#define SLICE_TOKENS 64u
#define SLICE_WIDTH  1024u /* of heads together, and of the feed-forward's middle; both widths of an expert */
/* Tokens of an expert, at most. */
#define EXPERT_TOKENS_CPU 256u
#define EXPERT_TOKENS_GPU 4096u
/* Weights read from the model's files for the speed of loading. */
#define LOAD_WEIGHTS (1u << 21)

/* A multiply-add: of a GPU, and of a CPU that is one. */
#define GUESS_GPU 2e-11
#define GUESS_CPU 2e-10

double speed_guess(const struct gpu *g)
{
    return g && gpu_info(g)->caps & GPU_CAP_CPU ? GUESS_CPU : GUESS_GPU;
}

double speed_trust(const struct speed *s)
{
    return s->measured ? 0.4 : 0;
}

/* ---- halves of a block ---- */

/* Without a sliding window: where blocks have one much shorter than ctx, attention is predicted as too slow.
 */
static bool make_block(struct speed_bench *b, struct gpu_arena *arena, const struct model *m, uint32_t layer,
                       struct block_weights *w, struct err *e)
{
    bool ok = block_weights_create(w, m, layer, block_common(model_block(m, 0)), arena, e);
    for (uint32_t i = 0; ok && i < w->shape.n; i++)
        gpu_fill(b->cmd, w->w[i], SPEED_FILL);
    for (int role = 0; ok && role < ROLE_COUNT; role++)
        if (w->fixed[role].size)
            gpu_fill(b->cmd, w->fixed[role], SPEED_FILL);
    return ok;
}

/* The layer of a size as a model of one block: its matrices, cut. */
struct one_block {
    struct model m;
    uint32_t first[2];
    struct block_matrix *matrices;
};

/* A matrix's size, where the width that makes it is cut. */
static uint32_t cut_size(uint32_t own, uint32_t of_model, uint32_t of_slice)
{
    return of_slice < of_model ? (uint32_t)min_u64(own, of_slice) : own;
}

static bool one_block(struct one_block *o, const struct speed_size *z, struct err *e)
{
    const struct block_shape b = block_common(model_block(&z->model, z->layer));
    *o = (struct one_block){.m = z->model, .first = {0, b.n}, .matrices = calloc(b.n + 1u, sizeof *o->matrices)};
    if (!o->matrices)
        return err_nomem(e, "a block's shape", b.n * sizeof *o->matrices);
    for (uint32_t i = 0; i < b.n; i++) {
        const struct block_matrix *of = &b.matrices[i];
        const struct block_part *p = of->part;
        o->matrices[i].part = p;
        o->matrices[i].rows = cut_size(of->rows, block_part_rows(p, z->model.cfg), block_part_rows(p, &z->config));
        o->matrices[i].cols = cut_size(of->cols, block_part_cols(p, z->model.cfg), block_part_cols(p, &z->config));
    }
    o->m.cfg = &z->config;
    o->m.shape = (struct model_shape){1, o->first, o->matrices};
    memset(o->m.has_bias, 0, sizeof o->m.has_bias);
    return true;
}

static bool has_half(const struct model *m, uint32_t layer, enum block_half half)
{
    return block_has_half(block_common(model_block(m, layer)), half);
}

/* Whether a piece goes through that half: nothing goes back through attention of some families. */
static bool goes_through(const struct model *m, uint32_t layer, enum block_half half, bool backward)
{
    return has_half(m, layer, half) && !(backward && half == HALF_ATTN && config_forward_only(m->cfg));
}

/* Gradients of what is trained of a half. */
static bool make_grads(struct speed_bench *b, struct gpu_arena *arena, struct block_shape shape, enum block_half half,
                       struct block_grads *grads, struct err *e)
{
    grads->w = calloc(shape.n + 1u, sizeof *grads->w);
    if (!grads->w)
        return err_nomem(e, "the list of gradients", shape.n * sizeof *grads->w);
    for (uint32_t i = 0; i < shape.n; i++) {
        const struct block_matrix *of = &shape.matrices[i];
        if (of->part->half != half || (of->part->turned && !b->train_qk))
            continue;
        if (!gpu_alloc(arena, (uint64_t)of->rows * of->cols * 4, &grads->w[i], e))
            return false;
    }
    return true;
}

static bool run_half(struct speed_bench *b, struct gpu_arena *arena, const struct speed_size *z, bool backward,
                     struct err *e)
{
    assert(has_half(&z->model, z->layer, z->half));
    struct one_block o = {0};
    struct model *m = &o.m;
    struct block_weights w = {0};
    struct block_scratch fwd;
    struct bwd_scratch bwd;
    struct block_grads grads = {0};
    struct gpu_view x, y;
    uint64_t bytes = (uint64_t)z->windows * z->model.ctx * z->config.hidden_size * 4;
    unsigned qk = backward && b->train_qk ? BWD_QK : 0;
    unsigned parts = z->half == HALF_ATTN ? BWD_ATTN | qk : BWD_FFN;
    bool ok = one_block(&o, z, e) && make_block(b, arena, m, z->layer, &w, e) &&
              block_scratch_create(&fwd, arena, m, z->windows, backward ? SCRATCH_TRAIN : SCRATCH_FORWARD, e) &&
              gpu_alloc(arena, bytes, &x, e) && gpu_alloc(arena, bytes, &y, e) &&
              (!backward || (make_grads(b, arena, w.shape, z->half, &grads, e) &&
                             bwd_scratch_create(&bwd, arena, m, z->windows, parts, e)));
    if (ok) {
        fwd.steering = b->steering;
        gpu_fill(b->cmd, x, SPEED_FILL);
        gpu_fill(b->cmd, y, SPEED_FILL);
        if (backward) /* it reads what a forward pass leaves */
            block_half_fwd(m, z->half, &w, &fwd, x, y, z->windows);
    }
    ok = ok && speed_ready(b, e);
    while (ok && speed_again(b, &ok, e)) {
        if (backward)
            block_half_bwd(m, z->half, &w, &fwd, &bwd, x, y, false, &grads, z->windows);
        else
            block_half_fwd(m, z->half, &w, &fwd, x, y, z->windows);
    }
    block_weights_free(&w);
    free(grads.w);
    free(o.matrices);
    return ok;
}

static bool half_forward(struct speed_bench *b, struct gpu_arena *arena, const struct speed_size *z, struct err *e)
{
    return run_half(b, arena, z, false, e);
}

static bool half_backward(struct speed_bench *b, struct gpu_arena *arena, const struct speed_size *z, struct err *e)
{
    return run_half(b, arena, z, true, e);
}

/* ---- sizes of slices ---- */

/* A block of which heads and the feed-forward's middle are cut to about `width`, over windows of `tokens`. */
static struct speed_size cut(const struct speed_size *all, uint32_t tokens, uint32_t width, uint32_t windows)
{
    struct speed_size z = *all;
    struct model_config *c = &z.config;
    uint32_t share = c->num_heads / c->num_kv_heads;
    uint32_t kv = (uint32_t)max_u64(1, width / ((uint64_t)share * c->head_dim));
    c->num_kv_heads = (uint32_t)min_u64(c->num_kv_heads, kv);
    c->num_heads = c->num_kv_heads * share;
    c->intermediate_size = (uint32_t)min_u64(c->intermediate_size, width);
    z.model.ctx = (uint32_t)min_u64(z.model.ctx, tokens);
    z.windows = (uint32_t)min_u64(all->windows, windows);
    return z;
}

static bool is_whole(const struct speed_size *z, const struct speed_size *all)
{
    return z->model.ctx == all->model.ctx && z->windows == all->windows &&
           z->config.num_heads == all->config.num_heads && z->config.intermediate_size == all->config.intermediate_size;
}

/* Both halves, seconds together. */
static bool measure_halves(struct speed_bench *b, speed_piece run, const struct speed_size *slice,
                           struct speed_rates r[HALF_COUNT], double *seconds, struct err *e)
{
    struct speed_size z = *slice;
    *seconds = 0;
    for (int half = 0; half < HALF_COUNT; half++) {
        double took;
        z.half = (enum block_half)half;
        r[half] = (struct speed_rates){0};
        if (!goes_through(&z.model, z.layer, z.half, run == half_backward))
            continue;
        if (!speed_time(b, run, &z, &r[half], &took, e))
            return false;
        *seconds += took;
    }
    return true;
}

/* A window of both halves at full size, of one layer. */
static bool predict_halves(struct speed_bench *b, speed_piece run, const struct speed_size *all, uint32_t layer,
                           const struct speed_rates r[HALF_COUNT], double seconds[HALF_COUNT], struct err *e)
{
    struct speed_size z = *all;
    z.layer = layer;
    for (int half = 0; half < HALF_COUNT; half++) {
        z.half = (enum block_half)half;
        seconds[half] = 0;
        if (!goes_through(&z.model, layer, z.half, run == half_backward))
            continue;
        if (!speed_predict(b, run, &z, &r[half], &seconds[half], e))
            return false;
        seconds[half] /= all->windows;
    }
    return true;
}

const struct speed_block *speed_block(const struct speed *s, const struct model *m, uint32_t layer)
{
    for (unsigned i = 0; i < s->n_blocks; i++)
        if (block_shape_same(model_block(m, s->blocks[i].layer), model_block(m, layer)))
            return &s->blocks[i];
    return NULL;
}

/* Forward slices of the first layer, each twice as much work as the one before, until they are long enough; of other
 * layers only the counts are others. */
bool speed_forward(struct speed_bench *b, struct speed *s, const struct speed_size *all, struct speed_size *slice,
                   struct err *e)
{
    enum { MOST = sizeof s->blocks / sizeof *s->blocks };
    const struct model *m = &all->model;
    struct speed_rates rates[HALF_COUNT];
    double took;
    uint32_t tokens = SLICE_TOKENS, width = SLICE_WIDTH, windows = 1;
    const uint64_t budget = b->budget_ns;
    b->budget_ns = 0;
    *slice = cut(all, 16, SLICE_WIDTH / 4, 1); /* builds the pipelines */
    bool ok = measure_halves(b, half_forward, slice, rates, &took, e);
    while (ok) {
        *slice = cut(all, tokens, width, windows);
        ok = measure_halves(b, half_forward, slice, rates, &took, e);
        if (took >= SLICE_SECONDS || is_whole(slice, all))
            break;
        if (tokens < m->ctx)
            tokens *= 2;
        else if (width < all->config.num_heads * all->config.head_dim || width < all->config.intermediate_size)
            width *= 2;
        else
            windows *= 2;
    }
    b->budget_ns = budget;
    ok = ok && measure_halves(b, half_forward, slice, rates, &took, e);
    for (uint32_t layer = 0; ok && layer < m->shape.layers && s->n_blocks < MOST; layer++) {
        struct speed_block *of = &s->blocks[s->n_blocks];
        if (speed_block(s, m, layer))
            continue;
        *of = (struct speed_block){.layer = layer};
        ok = predict_halves(b, half_forward, all, layer, rates, of->forward, e);
        s->n_blocks++;
    }
    const enum block_half measured = has_half(m, all->layer, HALF_FFN) ? HALF_FFN : HALF_ATTN;
    for (unsigned k = 0; k < KERNEL_COUNT; k++) /* which of them it is depends on what the pass is for */
        if (gpu_gemm_kernel(k, NULL, NULL))
            s->gemm = fmax(s->gemm, 2 * rates[measured].kernel[k]); /* its work is counted in operations */
    for (unsigned i = 0; i < s->n_blocks; i++)
        s->blocks[i].experts = model_expert_products(m, s->blocks[i].layer) * m->ctx * s->gemm;
    return ok;
}

bool speed_backward(struct speed_bench *b, struct speed *s, const struct speed_size *all,
                    const struct speed_size *slice, struct err *e)
{
    struct speed_rates rates[HALF_COUNT];
    double took;
    bool ok = measure_halves(b, half_backward, slice, rates, &took, e);
    for (unsigned i = 0; ok && i < s->n_blocks; i++)
        ok = predict_halves(b, half_backward, all, s->blocks[i].layer, rates, s->blocks[i].backward, e);
    return ok;
}

/* ---- an expert ---- */

/* Gate, up and down with whatever widths the size has, one window after its norm, as training sees it. */
static bool run_expert(struct speed_bench *b, struct gpu_arena *arena, const struct speed_size *z, bool backward,
                       struct err *e)
{
    const struct block_shape own = block_expert(model_block(&z->model, z->layer), 0);
    struct block_matrix matrices[EXPERT_MATRICES];
    struct gpu_view x, y, w[EXPERT_MATRICES], bias[EXPERT_MATRICES] = {0}, grad[EXPERT_MATRICES];
    struct model m = z->model;
    struct block_weights block = {.shape = {matrices, EXPERT_MATRICES}, .w = w, .bias = bias};
    struct block_grads grads = {.w = grad};
    struct block_scratch fwd;
    struct bwd_scratch bwd;
    uint64_t bytes = (uint64_t)z->windows * m.ctx * z->config.hidden_size * 4;
    bool ok = gpu_alloc(arena, bytes, &x, e) && gpu_alloc(arena, bytes, &y, e);
    m.cfg = &z->config;
    memset(m.has_bias, 0, sizeof m.has_bias);
    for (uint32_t i = 0; ok && i < EXPERT_MATRICES; i++) {
        matrices[i] = own.matrices[i];
        matrices[i].rows = block_part_rows(matrices[i].part, m.cfg);
        matrices[i].cols = block_part_cols(matrices[i].part, m.cfg);
        uint64_t size = (uint64_t)matrices[i].rows * matrices[i].cols * 4;
        ok = gpu_alloc(arena, size, &w[i], e) && (!backward || gpu_alloc(arena, size, &grad[i], e));
        if (ok)
            gpu_fill(b->cmd, w[i], SPEED_FILL);
    }
    ok = ok && block_scratch_create(&fwd, arena, &m, z->windows, SCRATCH_TRAIN_EXPERT, e) &&
         (!backward || bwd_scratch_create(&bwd, arena, &m, z->windows, BWD_FFN, e));
    if (ok) {
        fwd.steering = b->steering;
        gpu_fill(b->cmd, x, SPEED_FILL);
        gpu_fill(b->cmd, y, SPEED_FILL);
        if (backward) /* it reads what a forward pass leaves */
            block_half_fwd(&m, HALF_EXPERTS, &block, &fwd, x, y, z->windows);
    }
    ok = ok && speed_ready(b, e);
    while (ok && speed_again(b, &ok, e)) {
        if (backward)
            block_half_bwd(&m, HALF_EXPERTS, &block, &fwd, &bwd, x, y, false, &grads, z->windows);
        else
            block_half_fwd(&m, HALF_EXPERTS, &block, &fwd, x, y, z->windows);
    }
    return ok;
}

static bool expert_forward(struct speed_bench *b, struct gpu_arena *arena, const struct speed_size *z, struct err *e)
{
    return run_expert(b, arena, z, false, e);
}

static bool expert_backward(struct speed_bench *b, struct gpu_arena *arena, const struct speed_size *z, struct err *e)
{
    return run_expert(b, arena, z, true, e);
}

/* The first layer that has experts; its expert with widths cut to `width`, over `tokens`. */
static struct speed_size expert_size(const struct speed_size *all, uint32_t tokens, uint32_t width)
{
    struct speed_size z = *all;
    while (!config_has_experts(z.model.cfg, z.layer))
        z.layer++;
    z.config.hidden_size = (uint32_t)min_u64(z.config.hidden_size, width);
    z.config.experts.width = (uint32_t)min_u64(z.config.experts.width, width);
    z.model.ctx = tokens;
    z.windows = 1;
    return z;
}

static struct speed_size expert_slice(const struct speed_size *all, uint32_t tokens)
{
    bool cpu = gpu_info(all->model.gpu)->caps & GPU_CAP_CPU;
    return expert_size(all, (uint32_t)min_u64(tokens, cpu ? EXPERT_TOKENS_CPU : EXPERT_TOKENS_GPU), SLICE_WIDTH);
}

/* Measures a slice; what a call of the whole takes, and besides each token. */
static bool measure_expert(struct speed_bench *b, speed_piece run, const struct speed_size *all, uint32_t tokens,
                           double *call, double *token, struct err *e)
{
    const uint32_t few = 64, many = 128;
    struct speed_size z = expert_slice(all, tokens);
    struct speed_rates r;
    double took, one, two;
    if (!speed_time(b, run, &z, &r, &took, e))
        return false;
    z = expert_size(all, few, UINT32_MAX);
    if (!speed_predict(b, run, &z, &r, &one, e))
        return false;
    z.model.ctx = many;
    if (!speed_predict(b, run, &z, &r, &two, e))
        return false;
    *token = (two - one) / (many - few);
    *call = fmax(0, one - few * *token);
    return true;
}

bool speed_experts(struct speed_bench *b, struct speed *s, const struct speed_size *all, uint32_t tokens, bool backward,
                   struct err *e)
{
    struct speed_expert *x = &s->expert;
    return measure_expert(b, expert_forward, all, tokens, &x->forward, &x->forward_token, e) &&
           (!backward || measure_expert(b, expert_backward, all, tokens, &x->backward, &x->backward_token, e));
}

bool speed_experts_bytes(struct speed_bench *b, const struct speed_size *all, uint32_t tokens, uint64_t *bytes,
                         struct err *e)
{
    struct speed_size z = expert_slice(all, tokens);
    gpu_arena_trim(b->counting);
    b->memory.peak = b->memory.used;
    gpu_cmd_count(b->cmd, GPU_COUNT_MEMORY);
    bool ok = expert_backward(b, b->counting, &z, e);
    gpu_arena_reset(b->counting, 0);
    gpu_arena_trim(b->counting);
    gpu_cmd_count(b->cmd, GPU_COUNT_NOTHING);
    *bytes = b->memory.peak;
    return ok;
}

/* ---- memory of passes backward, loading ---- */

bool speed_backward_bytes(struct speed_bench *b, const struct speed_size *slice, uint64_t *bytes, struct err *e)
{
    struct speed_size z = *slice;
    bool ok = true;
    gpu_arena_trim(b->counting);
    b->memory.peak = b->memory.used;
    gpu_cmd_count(b->cmd, GPU_COUNT_MEMORY);
    for (int half = 0; ok && half < HALF_COUNT; half++) {
        z.half = (enum block_half)half;
        ok = !goes_through(&z.model, z.layer, z.half, true) || half_backward(b, b->counting, &z, e);
        gpu_arena_reset(b->counting, 0);
        gpu_arena_trim(b->counting);
    }
    gpu_cmd_count(b->cmd, GPU_COUNT_NOTHING);
    *bytes = b->memory.peak;
    return ok;
}

/* Reading the first rows of a block's largest matrix: the files' speed, and what becomes of them on the way. */
bool speed_load(struct speed_bench *b, struct speed *s, struct model *m, struct err *e)
{
    const struct block_shape shape = model_block(m, 0);
    const struct block_matrix *of = shape.matrices;
    char module[96];
    struct gpu_view dst;
    for (uint32_t i = 1; i < shape.n; i++)
        if ((uint64_t)shape.matrices[i].rows * shape.matrices[i].cols > (uint64_t)of->rows * of->cols)
            of = &shape.matrices[i];
    block_matrix_name(m->cfg, of, 0, module, sizeof module);
    uint32_t rows = (uint32_t)min_u64(of->rows, max_u64(1, LOAD_WEIGHTS / of->cols));
    bool ok = gpu_alloc(b->arena, (uint64_t)rows * of->cols * 4, &dst, e) && speed_ready(b, e);
    uint64_t begin = os_now_ns();
    ok = ok && model_load_matrix(m, module, 0, rows, dst, e) && gpu_cmd_finish(b->cmd, e);
    s->load = (double)(os_now_ns() - begin) * 1e-9 / ((double)rows * of->cols);
    gpu_arena_reset(b->arena, 0);
    return ok;
}

/* ---- the whole ---- */

bool speed_measure_forward(struct speed *s, struct model *m, uint32_t windows, struct err *e)
{
    struct speed_bench b = {0};
    struct speed_size all = speed_size_whole(m, windows), slice;
    *s = (struct speed){0};
    bool ok = speed_begin(&b, m, e) && speed_forward(&b, s, &all, &slice, e) && speed_load(&b, s, m, e);
    s->measured = ok;
    return speed_end(&b, ok, &s->seconds, e);
}

bool speed_count_forward(struct model *m, uint32_t windows, struct gpu_arena *counting, struct err *e)
{
    struct speed_bench b = {.cmd = m->cmd};
    struct speed_size all = speed_size_whole(m, windows);
    bool ok = true;
    for (int half = 0; ok && half < HALF_COUNT; half++) {
        all.half = (enum block_half)half;
        ok = !has_half(m, all.layer, all.half) || half_forward(&b, counting, &all, e);
        gpu_arena_reset(counting, 0);
    }
    return ok;
}
