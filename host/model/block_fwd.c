#include "host/model/block_fwd.h"

#include <assert.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/tiled.h"
#include "host/model/block_steps.h"

/* ---- scratch ---- */

/* Queries of a head begin at a multiple of so many numbers, which any device can bind. */
#define QUERIES_UNIT 64u

/* The scratch matrices, in the order of allocation. */
enum {
    S_NORM,
    S_Q,
    S_K,
    S_V,
    S_ATTN,
    S_LSE,
    S_LSE_POSITIONS,
    S_GATE,
    S_UP,
    S_ACT,
    S_Q_RAW,
    S_K_RAW,
    S_ATTN_ADDED,
    S_FFN_ADDED,
    S_SHARE,
    S_SHARED,
    S_Q_A,
    S_KV_A,
    S_PE,
    S_KV,
    S_MIXED,
    S_CONV,
    S_Z,
    S_BETA,
    S_ALPHA,
    S_COUNT
};

/* Columns of each, of the widest block; 0: not needed. */
static void scratch_cols(const struct model *m, enum scratch_use use, uint32_t cols[S_COUNT])
{
    bool expert = use == SCRATCH_TRAIN_EXPERT, train = use != SCRATCH_FORWARD;
    bool attn = use != SCRATCH_TRAIN_FFN && !expert, ffn = use != SCRATCH_TRAIN_ATTN && !expert;
    bool raw = train && attn && family_has_role(m->family, ROLE_Q_NORM) && !m->cfg->no_qk_norm;
    uint32_t added = family_has_role(m->family, ROLE_ATTN_POST_NORM) ? m->cfg->hidden_size : 0;
    bool gated = ffn && m->family->parts & PARTS_SHARED_GATED && m->cfg->experts.shared_width;
    uint32_t q = attn ? model_shape_rows(&m->shape, m->cfg, ROLE_Q) : 0,
             k = attn ? model_shape_rows(&m->shape, m->cfg, ROLE_K) : 0;
    const struct mla_config *x = &m->cfg->mla;
    if (attn && x->kv_rank)
        q = k = m->cfg->num_heads * m->cfg->head_dim;
    const struct model_config *c = m->cfg;
    uint32_t values = attn ? config_delta_values(c) : 0, mixed = attn ? model_shape_rows(&m->shape, c, ROLE_Q_GATE) : 0;
    bool z = family_has_role(m->family, ROLE_DELTA_Z);
    if (mixed)
        q = c->num_heads * c->head_dim;
    if (values)
        mixed = (uint32_t)max_u64(mixed, model_shape_rows(&m->shape, c, ROLE_DELTA_MIXED));
    uint32_t middle = expert ? m->cfg->experts.width : ffn ? model_shape_rows(&m->shape, m->cfg, ROLE_GATE) : 0;
    cols[S_NORM] = m->cfg->hidden_size;
    cols[S_Q] = q;
    cols[S_ATTN] = (uint32_t)max_u64(q, values);
    cols[S_K] = cols[S_V] = k;
    if (c->mla.split && k) /* each head's queries begin where a view may */
        cols[S_K] += c->num_heads * QUERIES_UNIT;
    cols[S_LSE] = attn ? m->cfg->num_heads : 0;
    cols[S_LSE_POSITIONS] = attn && family_has_role(m->family, ROLE_SINKS) ? m->cfg->num_heads : 0;
    cols[S_GATE] = cols[S_UP] = middle;
    cols[S_ACT] = train ? middle : 0;
    cols[S_Q_RAW] = raw ? q : 0;
    cols[S_K_RAW] = raw ? k : 0;
    cols[S_ATTN_ADDED] = attn ? added : 0;
    cols[S_FFN_ADDED] = ffn && train ? added : 0;
    cols[S_Q_A] = attn ? x->q_rank : 0;
    cols[S_KV_A] = attn ? x->kv_rank : 0;
    cols[S_PE] = attn ? x->turned : 0;
    cols[S_KV] = attn ? m->cfg->num_heads * (x->nope + x->values) : 0;
    cols[S_MIXED] = mixed;
    cols[S_CONV] = values ? config_delta_mixed(c) : 0;
    cols[S_Z] = z ? values : 0;
    cols[S_BETA] = values ? c->delta.value_heads * (z ? 1 : 2) : 0;
    cols[S_ALPHA] = values && z ? c->delta.value_heads : 0;
    cols[S_SHARE] = gated ? 1 : 0;
    cols[S_SHARED] = gated ? m->cfg->hidden_size : 0;
}

bool block_scratch_create(struct block_scratch *s, struct gpu_arena *arena, const struct model *m, uint32_t windows,
                          enum scratch_use use, struct err *e)
{
    *s = (struct block_scratch){.max_windows = windows};
    struct gpu_view *views[S_COUNT] = {&s->norm,
                                       &s->q,
                                       &s->k,
                                       &s->v,
                                       &s->attn,
                                       &s->lse,
                                       &s->lse_positions,
                                       &s->gate,
                                       &s->up,
                                       &s->act,
                                       &s->q_raw,
                                       &s->k_raw,
                                       &s->added[HALF_ATTN],
                                       &s->added[HALF_FFN],
                                       &s->share,
                                       &s->shared,
                                       &s->q_a,
                                       &s->kv_a,
                                       &s->pe,
                                       &s->kv,
                                       &s->mixed,
                                       &s->conv,
                                       &s->z,
                                       &s->beta,
                                       &s->alpha};
    uint32_t cols[S_COUNT];
    scratch_cols(m, use, cols);
    for (int i = 0; i < S_COUNT; i++) {
        if (cols[i] && !gpu_alloc(arena, (uint64_t)windows * m->ctx * cols[i] * 4, views[i], e))
            return err_context(e, "scratch for %u windows", windows);
    }
    s->heads = m->cfg->mla.kv_rank ? s->kv : s->attn;
    if (use == SCRATCH_FORWARD) {
        s->act = s->gate;
        s->added[HALF_FFN] = s->added[HALF_ATTN];
    }
    return true;
}

/* What scratch is counted for. */
struct room {
    const struct model *m;
    uint64_t bytes;
};

static bool scratch_fits(void *ctx, uint32_t windows)
{
    const struct room *r = ctx;
    struct gpu_count count = {.limit = r->bytes};
    struct gpu_arena *arena = NULL;
    struct block_scratch s;
    bool ok = gpu_arena_create_counting(&arena, r->m->gpu, &count, NULL) &&
              block_scratch_create(&s, arena, r->m, windows, SCRATCH_FORWARD, NULL);
    gpu_arena_destroy(&arena);
    return ok;
}

uint32_t block_scratch_windows(const struct model *m, uint64_t bytes, uint32_t at_most)
{
    struct room room = {m, bytes};
    uint32_t cols[S_COUNT];
    scratch_cols(m, SCRATCH_FORWARD, cols);
    uint64_t widest = 0;
    for (int i = 0; i < S_COUNT; i++)
        widest = max_u64(widest, cols[i]);
    uint64_t n = min_u64(at_most, gpu_info(m->gpu)->max_range / (widest * m->ctx * 4));
    return (uint32_t)max_u64(1, most_that_fits((uint32_t)n, scratch_fits, &room));
}

/* ---- single steps over [rows, cols], in row tiles that one binding holds ---- */

struct gpu_view block_rows(struct gpu_view v, uint64_t row0, uint64_t rows, uint64_t cols)
{
    return gpu_slice(v, row0 * cols * 4, rows * cols * 4);
}

struct block_rows_at block_part_rows_at(const struct model *m, const struct block_weights *b, enum role role)
{
    struct block_rows_at x = block_rows_at(b->shape, m->cfg, role);
    assert(x.at < b->shape.n);
    return x;
}

uint32_t block_rows_of(const struct model *m, const struct block_weights *b, enum role role)
{
    return block_part_rows_at(m, b, role).rows;
}

void block_rmsnorm(struct model *m, struct gpu_view x, struct gpu_view w, struct gpu_view y, uint32_t rows,
                   uint32_t cols)
{
    tiled_rmsnorm_fwd(
        m->cmd, &(struct rmsnorm_fwd_args){.x = x, .w = w, .y = y, .rows = rows, .cols = cols, .eps = m->cfg->rms_eps});
}

/* silu(gate) * up, or gelu(gate) * up, or silu's with limits. */
void block_glu(struct model *m, struct gpu_view gate, struct gpu_view up, struct gpu_view act, uint32_t rows,
               uint32_t cols)
{
    uint32_t tile = gpu_tile_rows(m->gpu, cols * 4ull, rows);
    for (uint32_t r = 0; r < rows; r += tile) {
        uint64_t n = min_u64(tile, rows - r);
        struct gpu_view g = block_rows(gate, r, n, cols), u = block_rows(up, r, n, cols);
        struct gpu_view to = block_rows(act, r, n, cols);
        if (m->family->clamped)
            run_clamped_fwd(m->cmd, gpu_items(m->cmd, KERNEL_ID_clamped_fwd, n * cols),
                            &(struct clamped_fwd_args){.gate = g, .up = u, .act = to, .n = (uint32_t)(n * cols)});
        else if (m->cfg->gelu)
            run_geglu_fwd(m->cmd, gpu_items(m->cmd, KERNEL_ID_geglu_fwd, n * cols),
                          &(struct geglu_fwd_args){.gate = g, .up = u, .act = to, .n = (uint32_t)(n * cols)});
        else
            run_swiglu_fwd(m->cmd, gpu_items(m->cmd, KERNEL_ID_swiglu_fwd, n * cols),
                           &(struct swiglu_fwd_args){.gate = g, .up = u, .act = to, .n = (uint32_t)(n * cols)});
    }
}

float block_alpha(const struct model *m, enum role role)
{
    bool added = role == ROLE_O || role == ROLE_DOWN;
    return added ? (float)config_factor(m->cfg->residual_scale) : 1;
}

/* y[rows, out] = old + alpha x[rows, in] W^T + bias, of `out` rows of a matrix; old may be y or empty. */
static void linear_at(struct model *m, const struct block_weights *b, const struct block_scratch *s,
                      struct block_rows_at of, float alpha, struct gpu_view x, struct gpu_view old, struct gpu_view y,
                      uint32_t rows)
{
    uint32_t out = of.rows, in = of.cols;
    gpu_gemm(m->cmd, &(struct gpu_product){.a = {x, in},
                                           .b = {block_rows(b->w[of.at], of.row0, out, in), in},
                                           .c = {y, out},
                                           .m = rows,
                                           .n = out,
                                           .k = in,
                                           .alpha = alpha,
                                           .beta = old.size ? 1.0f : 0.0f,
                                           .old = old,
                                           .use = s->steering ? GEMM_STEERING : GEMM_EXACT});
    if (b->bias[of.at].size)
        block_add_bias(m, y, block_rows(b->bias[of.at], of.row0, out, 1), rows, out);
}

/* The same of a role's rows. */
static void linear(struct model *m, const struct block_weights *b, const struct block_scratch *s, enum role role,
                   struct gpu_view x, struct gpu_view old, struct gpu_view y, uint32_t rows)
{
    linear_at(m, b, s, block_part_rows_at(m, b, role), block_alpha(m, role), x, old, y, rows);
}

void block_add_bias(struct model *m, struct gpu_view y, struct gpu_view bias, uint32_t rows, uint32_t cols)
{
    if (bias.size)
        tiled_add_bias(m->cmd, &(struct add_bias_args){.x = y, .b = bias, .y = y, .rows = rows, .cols = cols});
}

void block_add(struct model *m, struct gpu_view y, struct gpu_view x, uint32_t rows, uint32_t cols)
{
    uint32_t tile = gpu_tile_rows(m->gpu, cols * 4ull, rows);
    for (uint32_t r = 0; r < rows; r += tile) {
        uint64_t n = min_u64(tile, rows - r);
        run_add(m->cmd, gpu_items(m->cmd, KERNEL_ID_add, n * cols),
                &(struct add_args){
                    .y = block_rows(y, r, n, cols), .x = block_rows(x, r, n, cols), .n = (uint32_t)(n * cols)});
    }
}

uint32_t block_window_tile(const struct model *m, uint32_t cols, uint32_t windows)
{
    const struct gpu_info *info = gpu_info(m->gpu);
    uint64_t bytes = (uint64_t)m->ctx * 4, fit = info->max_range / (bytes * cols), step = 1;
    if (fit >= windows)
        return windows;
    /* Every matrix of attention has a multiple of num_kv_heads columns. */
    while (step < fit && bytes * m->cfg->num_kv_heads * step % info->min_align)
        step++;
    assert(fit >= 1 && bytes * m->cfg->num_kv_heads * step % info->min_align == 0);
    return (uint32_t)(fit / step * step);
}

void block_rope(struct model *m, struct gpu_view table, struct gpu_view x, uint32_t heads, uint32_t windows, float turn)
{
    if (!table.size)
        return;
    uint32_t turned = config_rope_dim(m->cfg);
    uint32_t cols = heads * m->cfg->head_dim, tile = block_window_tile(m, cols, windows);
    for (uint32_t w = 0; w < windows; w += tile) {
        uint32_t n = (uint32_t)min_u64(tile, windows - w), rows = n * m->ctx, dim = m->cfg->head_dim;
        struct gpu_view at = block_rows(x, (uint64_t)w * m->ctx, rows, cols);
        if (turned < dim || m->family->adjacent_pairs)
            run_rope_part(m->cmd, gpu_items(m->cmd, KERNEL_ID_rope_part, (uint64_t)rows * heads * turned / 2),
                          &(struct rope_part_args){.x = at,
                                                   .table = table,
                                                   .rows = rows,
                                                   .heads = heads,
                                                   .dim = dim,
                                                   .turned = turned,
                                                   .adjacent = m->family->adjacent_pairs,
                                                   .ctx = m->ctx,
                                                   .turn = turn});
        else
            run_rope_fwd(m->cmd, gpu_items(m->cmd, KERNEL_ID_rope_fwd, (uint64_t)rows * cols / 2),
                         &(struct rope_fwd_args){.x = at,
                                                 .table = table,
                                                 .y = at,
                                                 .rows = rows,
                                                 .heads = heads,
                                                 .dim = dim,
                                                 .ctx = m->ctx,
                                                 .turn = turn});
    }
}

static void attention_sinks(struct model *m, const struct block_weights *b, struct gpu_view out, struct gpu_view lse,
                            struct gpu_view sum, uint32_t rows)
{
    const struct model_config *c = m->cfg;
    const struct gpu_view sinks = b->fixed[ROLE_SINKS];
    if (sinks.size)
        run_attn_sinks(m->cmd, gpu_items(m->cmd, KERNEL_ID_attn_sinks, (uint64_t)rows * c->num_heads * c->head_dim),
                       &(struct attn_sinks_args){.out = out,
                                                 .lse = lse,
                                                 .sinks = sinks,
                                                 .sum = sum,
                                                 .rows = rows,
                                                 .heads = c->num_heads,
                                                 .dim = c->head_dim});
}

/* Of windows that grow. */
static void attention_step(struct model *m, const struct block_weights *b, const struct block_scratch *s,
                           uint32_t windows)
{
    const struct model_config *c = m->cfg;
    const struct attn_past *past = &s->past;
    const uint64_t row = (uint64_t)windows * c->num_kv_heads * c->head_dim * 4, seen = (past->at + 1) * row;
    struct gpu_view out = block_rows(s->attn, 0, windows, c->num_heads * c->head_dim),
                    lse = block_rows(b->fixed[ROLE_SINKS].size ? s->lse_positions : s->lse, 0, windows, c->num_heads);
    struct gpu_grid grid = gpu_rows((uint64_t)windows * c->num_heads);
    assert(m->ctx == 1 && past->at < ATTN_STEP_MAX);
    gpu_copy(m->cmd, gpu_slice(past->keys, past->at * row, row), s->k, row);
    gpu_copy(m->cmd, gpu_slice(past->values, past->at * row, row), s->v, row);
    grid.work = (double)windows * c->num_heads * c->head_dim * (past->at + 1);
    run_attn_step(m->cmd, grid,
                  &(struct attn_step_args){.q = block_rows(s->q, 0, windows, c->num_heads * c->head_dim),
                                           .keys = gpu_slice(past->keys, 0, seen),
                                           .values = gpu_slice(past->values, 0, seen),
                                           .out = out,
                                           .lse = lse,
                                           .windows = windows,
                                           .at = past->at,
                                           .heads = c->num_heads,
                                           .kv_heads = c->num_kv_heads,
                                           .dim = c->head_dim,
                                           .sliding = b->sliding,
                                           .scale = (float)config_attention_scale(c),
                                           .cap = (float)c->score_cap});
    attention_sinks(m, b, out, lse, block_rows(s->lse, 0, windows, c->num_heads), windows);
}

static void attention(struct model *m, const struct block_weights *b, const struct block_scratch *s, uint32_t windows)
{
    const struct model_config *c = m->cfg;
    if (s->past.keys.size) {
        attention_step(m, b, s, windows);
        return;
    }
    uint32_t q = c->num_heads * c->head_dim, kv = c->num_kv_heads * c->head_dim;
    uint32_t tile = block_window_tile(m, q, windows);
    const bool sinks = b->fixed[ROLE_SINKS].size > 0;
    for (uint32_t w = 0; w < windows; w += tile) {
        uint32_t n = (uint32_t)min_u64(tile, windows - w);
        uint64_t row = (uint64_t)w * m->ctx, rows = (uint64_t)n * m->ctx;
        struct attn_fwd_args a = {.q = block_rows(s->q, row, rows, q),
                                  .k = block_rows(s->k, row, rows, kv),
                                  .v = block_rows(s->v, row, rows, kv),
                                  .out = block_rows(s->attn, row, rows, q),
                                  .lse = block_rows(sinks ? s->lse_positions : s->lse, row, rows, c->num_heads),
                                  .windows = n,
                                  .ctx = m->ctx,
                                  .heads = c->num_heads,
                                  .kv_heads = c->num_kv_heads,
                                  .dim = c->head_dim,
                                  .sliding = b->sliding,
                                  .scale = (float)config_attention_scale(c)};
        (s->steering ? tiled_attn_fwd_steering : tiled_attn_fwd_capped)(m->cmd, &a, (float)c->score_cap);
        attention_sinks(m, b, a.out, a.lse, block_rows(s->lse, row, rows, c->num_heads), (uint32_t)rows);
    }
}

struct gpu_view block_input(const struct block_scratch *s, enum input in)
{
    const struct gpu_view at[INPUT_COUNT] = {
        [INPUT_ATTN] = s->norm,   [INPUT_Q_LATENT] = s->q_a, [INPUT_KV_LATENT] = s->kv_a, [INPUT_QUERIES] = s->k,
        [INPUT_HEADS] = s->heads, [INPUT_FFN] = s->norm,     [INPUT_MIDDLE] = s->act};
    return at[in];
}

static uint32_t queries_stride(const struct model *m, uint32_t windows)
{
    return (uint32_t)round_up((uint64_t)windows * m->ctx * m->cfg->mla.nope, QUERIES_UNIT);
}

uint64_t block_queries_bytes(const struct model *m, uint32_t windows)
{
    return queries_stride(m, windows) * 4ull;
}

void block_queries(struct model *m, const struct block_scratch *s, uint32_t windows)
{
    const struct model_config *c = m->cfg;
    uint32_t rows = windows * m->ctx;
    run_mla_queries(m->cmd, gpu_items(m->cmd, KERNEL_ID_mla_queries, (uint64_t)rows * c->num_heads * c->mla.nope),
                    &(struct mla_queries_args){.q = block_rows(s->q, 0, rows, c->num_heads * c->head_dim),
                                               .x = gpu_slice(s->k, 0, c->num_heads * block_queries_bytes(m, windows)),
                                               .rows = rows,
                                               .heads = c->num_heads,
                                               .nope = c->mla.nope,
                                               .dim = c->head_dim,
                                               .stride = queries_stride(m, windows)});
}

/* ---- the two halves ---- */

/* What the matrices of a half read: x as it is where the family norms no inputs. */
static void norm_input(struct model *m, struct gpu_view x, struct gpu_view w, struct gpu_view y, uint32_t rows)
{
    if (w.size)
        block_rmsnorm(m, x, w, y, rows, m->cfg->hidden_size);
    else
        gpu_copy(m->cmd, y, x, (uint64_t)rows * m->cfg->hidden_size * 4);
}

/* The norm of all heads of a row, or of each. */
static void norm_heads(struct model *m, struct gpu_view x, struct gpu_view w, struct gpu_view y, uint64_t rows,
                       uint32_t cols)
{
    uint32_t width = (uint32_t)(w.size / 4);
    block_rmsnorm(m, x, w, y, (uint32_t)(rows * cols / width), width);
}

/* y = x + what the half adds, which `role` makes of `in`: the end of both halves. y may be x. */
static void add_half(struct model *m, const struct block_weights *b, const struct block_scratch *s, enum role role,
                     struct gpu_view in, struct gpu_view x, struct gpu_view y, uint32_t rows)
{
    enum block_half half = role == ROLE_DOWN ? HALF_FFN : HALF_ATTN;
    struct gpu_view w = b->fixed[half == HALF_ATTN ? ROLE_ATTN_POST_NORM : ROLE_FFN_POST_NORM], none = {0};
    uint32_t hidden = m->cfg->hidden_size;
    if (!w.size) {
        linear(m, b, s, role, in, x, y, rows);
        return;
    }
    struct gpu_view added = s->added[half];
    bool same = y.buffer == x.buffer && y.offset == x.offset;
    linear(m, b, s, role, in, none, added, rows);
    block_rmsnorm(m, added, w, same ? added : y, rows, hidden);
    block_add(m, y, same ? added : x, rows, hidden);
}

void block_half_norm(struct model *m, enum block_half half, const struct block_weights *b,
                     const struct block_scratch *s, struct gpu_view x, uint32_t windows)
{
    norm_input(m, x, b->fixed[half == HALF_ATTN ? ROLE_ATTN_NORM : ROLE_FFN_NORM], s->norm, windows * m->ctx);
}

/* y[rows, w's rows] = old + x[rows, cols] W^T, of rows [row0, row0 + n) of a matrix that is kept; old may be y or empty. */
static void kept(struct model *m, struct gpu_view w, uint32_t row0, uint32_t n, struct gpu_view x, uint32_t cols,
                 struct gpu_view old, struct gpu_view y, uint32_t rows)
{
    gpu_gemm(m->cmd, &(struct gpu_product){.a = {x, cols},
                                           .b = {block_rows(w, row0, n, cols), cols},
                                           .c = {y, n},
                                           .m = rows,
                                           .n = n,
                                           .k = cols,
                                           .alpha = 1,
                                           .beta = old.size ? 1.0f : 0.0f,
                                           .old = old,
                                           .use = GEMM_EXACT});
}

/* kv_b as one matrix, where it is two. */
static void join_latent(struct model *m, const struct block_weights *b)
{
    const struct model_config *c = m->cfg;
    const struct gpu_view to = b->fixed[ROLE_KV_B];
    run_mla_join(m->cmd, gpu_items(m->cmd, KERNEL_ID_mla_join, to.size / 4),
                 &(struct mla_join_args){.k = b->w[block_part_rows_at(m, b, ROLE_K_B).at],
                                         .v = b->w[block_part_rows_at(m, b, ROLE_V_B).at],
                                         .kv = to,
                                         .heads = c->num_heads,
                                         .nope = c->mla.nope,
                                         .values = c->mla.values,
                                         .rank = c->mla.kv_rank});
}

/* k without RoPE's part and v of all heads, from the normed latent. */
static void latent_keys_values(struct model *m, const struct block_weights *b, const struct block_scratch *s,
                               uint32_t rows)
{
    const struct gpu_view none = {0};
    const struct model_config *c = m->cfg;
    uint32_t out = c->num_heads * (c->mla.nope + c->mla.values), in = c->mla.kv_rank;
    if (!c->mla.split) {
        linear(m, b, s, ROLE_KV_B, s->kv_a, none, s->kv, rows);
        return;
    }
    join_latent(m, b);
    gpu_gemm(m->cmd, &(struct gpu_product){.a = {s->kv_a, in},
                                           .b = {b->fixed[ROLE_KV_B], in},
                                           .c = {s->kv, out},
                                           .m = rows,
                                           .n = out,
                                           .k = in,
                                           .alpha = 1,
                                           .use = s->steering ? GEMM_STEERING : GEMM_EXACT});
}

/* q, k and v of all heads, each head_dim wide, from the normed x. A batch's matrices are within one binding each. */
static void latent_heads(struct model *m, const struct block_weights *b, const struct block_scratch *s, uint32_t rows)
{
    const struct model_config *c = m->cfg;
    const struct mla_config *x = &c->mla;
    const struct gpu_view none = {0};
    uint32_t heads = c->num_heads, width = heads * c->head_dim, kv = heads * (x->nope + x->values);
    struct block_rows_at latent = block_part_rows_at(m, b, ROLE_KV_A), turned = latent;
    latent.rows = turned.row0 = x->kv_rank;
    turned.rows = x->turned;
    if (x->q_rank) {
        linear(m, b, s, ROLE_Q_A, s->norm, none, s->q_a, rows);
        block_rmsnorm(m, s->q_a, b->fixed[ROLE_Q_A_NORM], s->q_a, rows, x->q_rank);
        linear(m, b, s, ROLE_Q_B, s->q_a, none, s->q, rows);
    } else {
        linear(m, b, s, ROLE_Q_WHOLE, s->norm, none, s->q, rows);
    }
    linear_at(m, b, s, latent, 1, s->norm, none, s->kv_a, rows);
    linear_at(m, b, s, turned, 1, s->norm, none, s->pe, rows);
    block_rmsnorm(m, s->kv_a, b->fixed[ROLE_KV_A_NORM], s->kv_a, rows, x->kv_rank);
    latent_keys_values(m, b, s, rows);
    run_mla_heads(m->cmd, gpu_items(m->cmd, KERNEL_ID_mla_heads, (uint64_t)rows * width / 2),
                  &(struct mla_heads_args){.kv = block_rows(s->kv, 0, rows, kv),
                                           .pe = block_rows(s->pe, 0, rows, x->turned),
                                           .table = b->rope,
                                           .q = block_rows(s->q, 0, rows, width),
                                           .k = block_rows(s->k, 0, rows, width),
                                           .v = block_rows(s->v, 0, rows, width),
                                           .rows = rows,
                                           .heads = heads,
                                           .nope = x->nope,
                                           .turned = x->turned,
                                           .values = x->values,
                                           .ctx = m->ctx});
}

/* What attention gives, without the zeros behind each head's values. */
static void latent_values(struct model *m, const struct block_scratch *s, uint32_t rows)
{
    const struct model_config *c = m->cfg;
    uint32_t values = c->mla.values, heads = c->num_heads;
    tiled_copy_rect(m->cmd, &(struct copy_rect_args){.src = block_rows(s->attn, 0, rows, heads * c->head_dim),
                                                     .dst = block_rows(s->heads, 0, rows, heads * values),
                                                     .rows = rows * heads,
                                                     .cols = values,
                                                     .lds = c->head_dim,
                                                     .ldd = values});
}

/* The gated delta rule on the normed x: what its o reads, into s->attn. A batch's matrices are within one binding each. */
static void delta_heads(struct model *m, const struct block_weights *b, const struct block_scratch *s, uint32_t windows)
{
    const struct model_config *c = m->cfg;
    const struct delta_config *x = &c->delta;
    const struct gpu_view none = {0};
    uint32_t rows = windows * m->ctx, heads = x->value_heads, values = config_delta_values(c),
             cols = config_delta_mixed(c), share = heads / x->key_heads, width = block_rows_of(m, b, ROLE_DELTA_MIXED),
             ldb;
    bool grouped = !b->fixed[ROLE_DELTA_ALPHA].size; /* z and alpha are in the matrices of q, k, v and of beta */
    ldb = grouped ? 2 * heads : heads;
    linear(m, b, s, ROLE_DELTA_MIXED, s->norm, none, s->mixed, rows);
    kept(m, b->fixed[ROLE_DELTA_BETA], 0, ldb, s->norm, c->hidden_size, none, s->beta, rows);
    if (!grouped) {
        linear(m, b, s, ROLE_DELTA_Z, s->norm, none, s->z, rows);
        kept(m, b->fixed[ROLE_DELTA_ALPHA], 0, heads, s->norm, c->hidden_size, none, s->alpha, rows);
    }
    struct gpu_view conv = block_rows(s->conv, 0, rows, cols), out = block_rows(s->attn, 0, rows, values);
    struct gpu_view mixed = block_rows(s->mixed, 0, rows, width), beta = block_rows(s->beta, 0, rows, ldb);
    run_conv_silu(m->cmd, gpu_items(m->cmd, KERNEL_ID_conv_silu, (uint64_t)rows * cols),
                  &(struct conv_silu_args){.x = mixed,
                                           .w = b->fixed[ROLE_DELTA_CONV],
                                           .y = conv,
                                           .rows = rows,
                                           .cols = cols,
                                           .lds = width,
                                           .ctx = m->ctx,
                                           .taps = x->taps,
                                           .heads = x->key_heads,
                                           .dim = x->key_dim,
                                           .values = share * x->value_dim,
                                           .grouped = grouped});
    run_l2norm(m->cmd, gpu_rows(2ull * rows * x->key_heads),
               &(struct l2norm_args){
                   .x = conv, .rows = rows, .cols = cols, .heads = 2 * x->key_heads, .dim = x->key_dim, .eps = 1e-6f});
    run_delta_rule(m->cmd, gpu_rows((uint64_t)windows * heads * div_up(x->value_dim, DELTA_COLUMNS)),
                   &(struct delta_rule_args){.qkv = conv,
                                             .b = beta,
                                             .a = grouped ? beta : block_rows(s->alpha, 0, rows, heads),
                                             .rate = b->fixed[ROLE_DELTA_RATE],
                                             .bias = b->fixed[ROLE_DELTA_BIAS],
                                             .out = out,
                                             .windows = windows,
                                             .ctx = m->ctx,
                                             .heads = heads,
                                             .kv_heads = x->key_heads,
                                             .dim = x->key_dim,
                                             .values = x->value_dim,
                                             .ldb = ldb,
                                             .grouped = grouped,
                                             .run = x->tiled ? 1 : share});
    run_norm_gated(m->cmd, gpu_rows((uint64_t)rows * heads),
                   &(struct norm_gated_args){.x = out,
                                             .w = b->fixed[ROLE_DELTA_NORM],
                                             .z = grouped ? mixed : block_rows(s->z, 0, rows, values),
                                             .y = out,
                                             .rows = rows,
                                             .heads = heads,
                                             .kv_heads = x->key_heads,
                                             .dim = x->key_dim,
                                             .values = x->value_dim,
                                             .lds = grouped ? width : values,
                                             .grouped = grouped,
                                             .eps = c->rms_eps});
}

static bool has_role(const struct block_weights *b, enum role role)
{
    return block_place(b->shape, role) < b->shape.n;
}

/* q out of rows of q and gate, head by head. */
static void gated_queries(struct model *m, const struct block_weights *b, const struct block_scratch *s, uint32_t rows)
{
    const struct gpu_view none = {0};
    uint32_t heads = m->cfg->num_heads, dim = m->cfg->head_dim;
    linear(m, b, s, ROLE_Q_GATE, s->norm, none, s->mixed, rows);
    tiled_copy_rect(m->cmd, &(struct copy_rect_args){.src = block_rows(s->mixed, 0, rows, 2 * heads * dim),
                                                     .dst = block_rows(s->q, 0, rows, heads * dim),
                                                     .rows = rows * heads,
                                                     .cols = dim,
                                                     .lds = 2 * dim,
                                                     .ldd = dim});
}

/* What attention gives times sigmoid(gate). */
static void gate_output(struct model *m, const struct block_scratch *s, uint32_t rows)
{
    uint32_t heads = m->cfg->num_heads, dim = m->cfg->head_dim;
    struct gpu_view at = block_rows(s->attn, 0, rows, heads * dim);
    run_gate_heads(
        m->cmd, gpu_items(m->cmd, KERNEL_ID_gate_heads, (uint64_t)rows * heads * dim),
        &(struct gate_heads_args){
            .x = at, .g = block_rows(s->mixed, 0, rows, 2 * heads * dim), .y = at, .rows = rows * heads, .dim = dim});
}

void block_attn_inputs(struct model *m, const struct block_weights *b, const struct block_scratch *s, struct gpu_view x,
                       uint32_t windows)
{
    const struct model_config *c = m->cfg;
    const struct gpu_view none = {0};
    uint32_t rows = windows * m->ctx;
    assert(windows <= s->max_windows);
    block_half_norm(m, HALF_ATTN, b, s, x, windows);
    if (c->mla.kv_rank) {
        latent_heads(m, b, s, rows);
        attention(m, b, s, windows);
        latent_values(m, s, rows);
        return;
    }
    if (has_role(b, ROLE_DELTA_O)) {
        delta_heads(m, b, s, windows);
        return;
    }
    bool gated = has_role(b, ROLE_Q_GATE);
    struct gpu_view q = s->q_raw.size ? s->q_raw : s->q, k = s->k_raw.size ? s->k_raw : s->k;
    if (gated)
        gated_queries(m, b, s, rows);
    else
        linear(m, b, s, ROLE_Q, s->norm, none, q, rows);
    linear(m, b, s, ROLE_K, s->norm, none, k, rows);
    linear(m, b, s, ROLE_V, s->norm, none, s->v, rows);
    if (b->fixed[ROLE_Q_NORM].size) {
        norm_heads(m, q, b->fixed[ROLE_Q_NORM], s->q, rows, c->num_heads * c->head_dim);
        norm_heads(m, k, b->fixed[ROLE_K_NORM], s->k, rows, c->num_kv_heads * c->head_dim);
    }
    block_rope(m, b->rope_q, s->q, c->num_heads, windows, 1);
    block_rope(m, b->rope, s->k, c->num_kv_heads, windows, 1);
    attention(m, b, s, windows);
    if (gated)
        gate_output(m, s, rows);
}

void block_attn_fwd(struct model *m, const struct block_weights *b, const struct block_scratch *s, struct gpu_view x,
                    struct gpu_view h, uint32_t windows)
{
    uint32_t rows = windows * m->ctx;
    block_attn_inputs(m, b, s, x, windows);
    enum role role = m->cfg->mla.kv_rank ? ROLE_VALUES_O : has_role(b, ROLE_DELTA_O) ? ROLE_DELTA_O : ROLE_O;
    add_half(m, b, s, role, s->heads, x, h, rows);
}

void block_ffn_inputs(struct model *m, const struct block_weights *b, const struct block_scratch *s, struct gpu_view h,
                      uint32_t windows)
{
    const struct gpu_view none = {0};
    uint32_t rows = windows * m->ctx;
    assert(windows <= s->max_windows);
    block_half_norm(m, HALF_FFN, b, s, h, windows);
    linear(m, b, s, ROLE_GATE, s->norm, none, s->gate, rows);
    linear(m, b, s, ROLE_UP, s->norm, none, s->up, rows);
    block_glu(m, s->gate, s->up, s->act, rows, block_rows_of(m, b, ROLE_GATE));
}

/* y = h + sigmoid(share) * down(act): a shared expert that is weighted. */
static void gated_down(struct model *m, const struct block_weights *b, const struct block_scratch *s, struct gpu_view h,
                       struct gpu_view y, uint32_t rows)
{
    const struct gpu_view none = {0};
    uint32_t hidden = m->cfg->hidden_size, tile = gpu_tile_rows(m->gpu, hidden * 4ull, rows);
    gpu_gemm(m->cmd, &(struct gpu_product){.a = {s->norm, hidden},
                                           .b = {b->fixed[ROLE_SHARED_GATE], hidden},
                                           .c = {s->share, 1},
                                           .m = rows,
                                           .n = 1,
                                           .k = hidden,
                                           .alpha = 1,
                                           .use = GEMM_EXACT});
    linear(m, b, s, ROLE_DOWN, s->act, none, s->shared, rows);
    for (uint32_t r = 0; r < rows; r += tile) {
        uint64_t n = min_u64(tile, rows - r);
        run_add_gated(m->cmd, gpu_items(m->cmd, KERNEL_ID_add_gated, n * hidden),
                      &(struct add_gated_args){.x = block_rows(s->shared, r, n, hidden),
                                               .z = block_rows(s->share, r, n, 1),
                                               .old = block_rows(h, r, n, hidden),
                                               .y = block_rows(y, r, n, hidden),
                                               .rows = (uint32_t)n,
                                               .cols = hidden});
    }
}

void block_ffn_added(struct model *m, const struct block_weights *b, const struct block_scratch *s, uint32_t windows)
{
    const struct gpu_view none = {0};
    if (b->fixed[ROLE_FFN_POST_NORM].size)
        linear(m, b, s, ROLE_DOWN, s->act, none, s->added[HALF_FFN], windows * m->ctx);
}

void block_ffn_fwd(struct model *m, const struct block_weights *b, const struct block_scratch *s, struct gpu_view h,
                   struct gpu_view y, uint32_t windows)
{
    uint32_t rows = windows * m->ctx;
    block_ffn_inputs(m, b, s, h, windows);
    if (b->fixed[ROLE_SHARED_GATE].size)
        gated_down(m, b, s, h, y, rows);
    else
        add_half(m, b, s, ROLE_DOWN, s->act, h, y, rows);
}

void block_half_inputs(struct model *m, enum block_half half, const struct block_weights *b,
                       const struct block_scratch *s, struct gpu_view x, uint32_t windows)
{
    (half == HALF_ATTN ? block_attn_inputs : block_ffn_inputs)(m, b, s, x, windows);
}

void block_half_fwd(struct model *m, enum block_half half, const struct block_weights *b, const struct block_scratch *s,
                    struct gpu_view x, struct gpu_view y, uint32_t windows)
{
    (half == HALF_ATTN ? block_attn_fwd : block_ffn_fwd)(m, b, s, x, y, windows);
}
