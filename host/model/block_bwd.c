#include "host/model/block_bwd.h"

#include <assert.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/tiled.h"
#include "host/model/block_steps.h"

/* ---- scratch ---- */

enum { B_DNORM, B_DATTN, B_DQ, B_DK, B_DV, B_DELTA, B_DADDED, B_COUNT };

/* Elements of each matrix; 0: not needed. */
static void scratch_sizes(const struct model *m, uint32_t windows, unsigned parts, uint64_t n[B_COUNT])
{
    uint64_t tokens = (uint64_t)windows * m->ctx, hidden = m->cfg->hidden_size;
    uint64_t q = model_shape_rows(&m->shape, m->cfg, ROLE_Q), kv = model_shape_rows(&m->shape, m->cfg, ROLE_K);
    bool attn = parts & (BWD_ATTN | BWD_QK), input = parts & BWD_INPUT;
    bool scores = parts & (BWD_QK | BWD_INPUT);
    for (int i = 0; i < B_COUNT; i++)
        n[i] = 0;
    if (input)
        n[B_DNORM] = tokens * hidden;
    if (family_has_role(m->family, ROLE_ATTN_POST_NORM) ||
        (parts & BWD_FFN && m->family->parts & PARTS_SHARED_GATED && m->cfg->experts.shared_width))
        n[B_DADDED] = tokens * hidden;
    if (attn) {
        n[B_DATTN] = tokens * q;
        n[B_DV] = tokens * kv;
        if (scores) {
            n[B_DQ] = tokens * q;
            n[B_DK] = tokens * kv;
            n[B_DELTA] = tokens * m->cfg->num_heads;
        }
    }
}

bool bwd_scratch_create(struct bwd_scratch *s, struct gpu_arena *arena, const struct model *m, uint32_t windows,
                        unsigned parts, struct err *e)
{
    *s = (struct bwd_scratch){.max_windows = windows};
    struct gpu_view *views[B_COUNT] = {&s->dnorm, &s->dattn, &s->dq, &s->dk, &s->dv, &s->delta, &s->dadded};
    uint64_t n[B_COUNT];
    scratch_sizes(m, windows, parts, n);
    for (int i = 0; i < B_COUNT; i++)
        if (n[i] && !gpu_alloc(arena, n[i] * 4, views[i], e))
            return err_context(e, "scratch for gradients of %u windows", windows);
    return true;
}

/* ---- single steps ---- */

/* dw[out, in] (+)= dy[rows, out]^T x[rows, in]. */
static void weight_grad(struct model *m, const struct block_weights *b, enum role role, struct gpu_view dy,
                        struct gpu_view x, const struct block_grads *grads, uint32_t rows)
{
    struct block_rows_at of = block_part_rows_at(m, b, role);
    uint32_t out = of.rows, in = of.cols;
    if (grads->outputs)
        grads->outputs(grads->ctx, of.at, of.row0, out, dy, rows);
    if (!grads->w || !grads->w[of.at].size)
        return;
    gpu_gemm(m->cmd, &(struct gpu_product){.a = {dy, out},
                                           .b = {x, in},
                                           .c = {block_rows(grads->w[of.at], of.row0, out, in), in},
                                           .m = out,
                                           .n = in,
                                           .k = rows,
                                           .alpha = block_alpha(m, role),
                                           .beta = grads->add ? 1.0f : 0.0f,
                                           .a_transposed = true,
                                           .b_transposed = true,
                                           .use = GEMM_STEERING});
}

/* dx[rows, in] = beta * dx + dy[rows, out] W[out, in]. */
static void input_grad(struct model *m, const struct block_weights *b, enum role role, struct gpu_view dy,
                       struct gpu_view dx, uint32_t rows, float beta)
{
    struct block_rows_at of = block_part_rows_at(m, b, role);
    uint32_t out = of.rows, in = of.cols;
    gpu_gemm(m->cmd, &(struct gpu_product){.a = {dy, out},
                                           .b = {block_rows(b->w[of.at], of.row0, out, in), in},
                                           .c = {dx, in},
                                           .m = rows,
                                           .n = in,
                                           .k = out,
                                           .alpha = block_alpha(m, role),
                                           .beta = beta,
                                           .b_transposed = true,
                                           .use = GEMM_STEERING});
}

static void rmsnorm_bwd(struct model *m, struct gpu_view x, struct gpu_view w, struct gpu_view dy, struct gpu_view dx,
                        uint32_t rows, uint32_t cols)
{
    tiled_rmsnorm_bwd(m->cmd,
                      &(struct rmsnorm_bwd_args){
                          .x = x, .w = w, .dy = dy, .dx = dx, .rows = rows, .cols = cols, .eps = m->cfg->rms_eps});
}

void block_rmsnorm_bwd(struct model *m, struct gpu_view x, struct gpu_view w, struct gpu_view dy, uint32_t rows,
                       uint32_t cols)
{
    rmsnorm_bwd(m, x, w, dy, dy, rows, cols);
}

/* Of a shared expert that is weighted: sigmoid(share) * dy. */
static struct gpu_view shared_bwd(struct model *m, const struct block_scratch *s, const struct bwd_scratch *bs,
                                  struct gpu_view dy, uint32_t rows)
{
    uint32_t hidden = m->cfg->hidden_size, tile = gpu_tile_rows(m->gpu, hidden * 4ull, rows);
    gpu_fill(m->cmd, gpu_slice(bs->dadded, 0, (uint64_t)rows * hidden * 4), 0);
    for (uint32_t r = 0; r < rows; r += tile) {
        uint64_t n = min_u64(tile, rows - r);
        struct gpu_view d = block_rows(bs->dadded, r, n, hidden);
        run_add_gated(m->cmd, gpu_items(m->cmd, KERNEL_ID_add_gated, n * hidden),
                      &(struct add_gated_args){.x = block_rows(dy, r, n, hidden),
                                               .z = block_rows(s->share, r, n, 1),
                                               .old = d,
                                               .y = d,
                                               .rows = (uint32_t)n,
                                               .cols = hidden});
    }
    return bs->dadded;
}

/* The gradient of what a half's last matrix gives, from that of the half's output. */
static struct gpu_view added_bwd(struct model *m, const struct block_weights *b, const struct block_scratch *s,
                                 const struct bwd_scratch *bs, enum block_half half, struct gpu_view dy, uint32_t rows)
{
    struct gpu_view w = b->fixed[half == HALF_ATTN ? ROLE_ATTN_POST_NORM : ROLE_FFN_POST_NORM];
    if (half == HALF_FFN && b->fixed[ROLE_SHARED_GATE].size)
        return shared_bwd(m, s, bs, dy, rows);
    if (!w.size)
        return dy;
    rmsnorm_bwd(m, s->added[half], w, dy, bs->dadded, rows, m->cfg->hidden_size);
    return bs->dadded;
}

/* dy += the gradient of x by way of the half's input, whose own is dnorm. */
static void input_bwd(struct model *m, struct gpu_view x, struct gpu_view w, struct gpu_view dnorm, struct gpu_view dy,
                      uint32_t rows)
{
    if (w.size)
        block_rmsnorm_bwd(m, x, w, dnorm, rows, m->cfg->hidden_size);
    block_add(m, dy, dnorm, rows, m->cfg->hidden_size);
}

/* dx, in place, of norm_heads in block_fwd.c. */
static void norm_heads_bwd(struct model *m, struct gpu_view x, struct gpu_view w, struct gpu_view dx, uint64_t rows,
                           uint32_t cols)
{
    uint32_t width = (uint32_t)(w.size / 4);
    block_rmsnorm_bwd(m, x, w, dx, (uint32_t)(rows * cols / width), width);
}

/* gate and up give way to their gradients: dact becomes that of gate, up its own. */
static void glu_bwd(struct model *m, struct gpu_view gate, struct gpu_view up, struct gpu_view dact, uint32_t rows,
                    uint32_t cols)
{
    uint32_t tile = gpu_tile_rows(m->gpu, cols * 4ull, rows);
    for (uint32_t r = 0; r < rows; r += tile) {
        uint64_t n = min_u64(tile, rows - r);
        struct gpu_view g = block_rows(gate, r, n, cols), u = block_rows(up, r, n, cols);
        struct gpu_view d = block_rows(dact, r, n, cols);
        uint32_t count = (uint32_t)(n * cols);
        if (m->family->clamped)
            run_clamped_bwd(
                m->cmd, gpu_items(m->cmd, KERNEL_ID_clamped_bwd, count),
                &(struct clamped_bwd_args){.gate = g, .up = u, .dact = d, .dgate = d, .dup = u, .n = count});
        else if (m->cfg->gelu)
            run_geglu_bwd(m->cmd, gpu_items(m->cmd, KERNEL_ID_geglu_bwd, count),
                          &(struct geglu_bwd_args){.gate = g, .up = u, .dact = d, .dgate = d, .dup = u, .n = count});
        else
            run_swiglu_bwd(m->cmd, gpu_items(m->cmd, KERNEL_ID_swiglu_bwd, count),
                           &(struct swiglu_bwd_args){.gate = g, .up = u, .dact = d, .dgate = d, .dup = u, .n = count});
    }
}

/* The arguments that the three kernels share. */
#define ATTENTION_ARGS(kernel)                                                                                         \
    (struct kernel##_args)                                                                                             \
    {                                                                                                                  \
        .q = block_rows(s->q, row, rows, q), .k = block_rows(s->k, row, rows, kv),                                     \
        .dout = block_rows(bs->dattn, row, rows, q), .lse = block_rows(s->lse, row, rows, heads), .windows = n,        \
        .ctx = m->ctx, .heads = heads, .kv_heads = kv_heads, .dim = c->head_dim, .sliding = b->sliding,                \
        .scale = (float)config_attention_scale(c)                                                                      \
    }

/* Whether the gradient of a weight is wanted, or of what it gives. */
static bool wants(const struct model *m, const struct block_weights *b, const struct block_grads *grads, enum role role)
{
    return grads->outputs || (grads->w && grads->w[block_part_rows_at(m, b, role).at].size > 0);
}

/* From the gradient of attn in bs->dattn to those of v and, where `scores`, of the turned q and k. */
static void attention_bwd(struct model *m, const struct block_weights *b, const struct block_scratch *s,
                          const struct bwd_scratch *bs, bool scores, uint32_t windows)
{
    const struct model_config *c = m->cfg;
    uint32_t q = block_rows_of(m, b, ROLE_Q), kv = block_rows_of(m, b, ROLE_K), heads = c->num_heads,
             kv_heads = c->num_kv_heads;
    const float cap = (float)c->score_cap;
    uint32_t tile = block_window_tile(m, q, windows);
    for (uint32_t w = 0; w < windows; w += tile) {
        uint32_t n = (uint32_t)min_u64(tile, windows - w);
        uint64_t row = (uint64_t)w * m->ctx, rows = (uint64_t)n * m->ctx;
        if (!scores) {
            struct attn_bwd_v_args v = ATTENTION_ARGS(attn_bwd_v);
            v.dv = block_rows(bs->dv, row, rows, kv);
            tiled_attn_bwd_v_capped(m->cmd, &v, cap);
            continue;
        }
        struct attn_bwd_q_args dq = ATTENTION_ARGS(attn_bwd_q);
        struct attn_bwd_kv_args dkv = ATTENTION_ARGS(attn_bwd_kv);
        dq.v = dkv.v = block_rows(s->v, row, rows, kv);
        dq.delta = dkv.delta = block_rows(bs->delta, row, rows, heads);
        dq.dq = block_rows(bs->dq, row, rows, q);
        dkv.dk = block_rows(bs->dk, row, rows, kv);
        dkv.dv = block_rows(bs->dv, row, rows, kv);
        tiled_row_dot(m->cmd, &(struct row_dot_args){.a = dq.dout,
                                                     .b = block_rows(s->attn, row, rows, q),
                                                     .out = dq.delta,
                                                     .rows = (uint32_t)(rows * heads),
                                                     .cols = c->head_dim});
        tiled_attn_bwd_q_capped(m->cmd, &dq, cap);
        tiled_attn_bwd_kv_capped(m->cmd, &dkv, cap);
    }
}

/* ---- the two halves ---- */

/* Gradients of matrices that the half's passes do not go through: zero. */
static void clear_others(struct model *m, const struct block_weights *b, enum block_half half,
                         const struct block_grads *grads)
{
    static const enum role through[] = {ROLE_Q, ROLE_K, ROLE_V, ROLE_O, ROLE_GATE, ROLE_UP, ROLE_DOWN};
    for (uint32_t i = 0; grads->w && !grads->add && i < b->shape.n; i++) {
        bool found = false;
        for (size_t k = 0; k < sizeof through / sizeof *through; k++)
            found = found || block_rows_at(b->shape, m->cfg, through[k]).at == i;
        if (!found && b->shape.matrices[i].part->half == half && grads->w[i].size)
            gpu_fill(m->cmd, grads->w[i], 0);
    }
}

void block_attn_bwd(struct model *m, const struct block_weights *b, const struct block_scratch *s,
                    const struct bwd_scratch *bs, struct gpu_view x, struct gpu_view dy, bool want_input,
                    const struct block_grads *grads, uint32_t windows)
{
    const struct model_config *c = m->cfg;
    uint32_t rows = windows * m->ctx;
    bool scores = want_input || wants(m, b, grads, ROLE_Q) || wants(m, b, grads, ROLE_K);
    assert(windows <= s->max_windows && windows <= bs->max_windows);
    clear_others(m, b, HALF_ATTN, grads);
    struct gpu_view dout = added_bwd(m, b, s, bs, HALF_ATTN, dy, rows);
    if (wants(m, b, grads, ROLE_O))
        weight_grad(m, b, ROLE_O, dout, s->attn, grads, rows);
    if (!scores && !wants(m, b, grads, ROLE_V))
        return;
    input_grad(m, b, ROLE_O, dout, bs->dattn, rows, 0);
    attention_bwd(m, b, s, bs, scores, windows);
    if (scores) {
        block_rope(m, b->rope_q, bs->dq, c->num_heads, windows, -1);
        block_rope(m, b->rope, bs->dk, c->num_kv_heads, windows, -1);
        if (b->fixed[ROLE_Q_NORM].size) {
            norm_heads_bwd(m, s->q_raw, b->fixed[ROLE_Q_NORM], bs->dq, rows, c->num_heads * c->head_dim);
            norm_heads_bwd(m, s->k_raw, b->fixed[ROLE_K_NORM], bs->dk, rows, c->num_kv_heads * c->head_dim);
        }
    }
    if (wants(m, b, grads, ROLE_Q) || wants(m, b, grads, ROLE_K) || wants(m, b, grads, ROLE_V)) {
        weight_grad(m, b, ROLE_Q, bs->dq, s->norm, grads, rows);
        weight_grad(m, b, ROLE_K, bs->dk, s->norm, grads, rows);
        weight_grad(m, b, ROLE_V, bs->dv, s->norm, grads, rows);
    }
    if (want_input) {
        input_grad(m, b, ROLE_Q, bs->dq, bs->dnorm, rows, 0);
        input_grad(m, b, ROLE_K, bs->dk, bs->dnorm, rows, 1);
        input_grad(m, b, ROLE_V, bs->dv, bs->dnorm, rows, 1);
        input_bwd(m, x, b->fixed[ROLE_ATTN_NORM], bs->dnorm, dy, rows);
    }
}

void block_ffn_bwd(struct model *m, const struct block_weights *b, const struct block_scratch *s,
                   const struct bwd_scratch *bs, struct gpu_view h, struct gpu_view dy, bool want_input,
                   const struct block_grads *grads, uint32_t windows)
{
    uint32_t rows = windows * m->ctx;
    assert(windows <= s->max_windows && windows <= bs->max_windows);
    assert(!want_input || !b->fixed[ROLE_SHARED_GATE].size); /* the share has an input, too */
    clear_others(m, b, HALF_FFN, grads);
    struct gpu_view dout = added_bwd(m, b, s, bs, HALF_FFN, dy, rows);
    if (wants(m, b, grads, ROLE_DOWN))
        weight_grad(m, b, ROLE_DOWN, dout, s->act, grads, rows);
    if (!want_input && !wants(m, b, grads, ROLE_GATE) && !wants(m, b, grads, ROLE_UP))
        return;
    struct gpu_view dact = s->act; /* which is used up, or not needed */
    input_grad(m, b, ROLE_DOWN, dout, dact, rows, 0);
    glu_bwd(m, s->gate, s->up, dact, rows, block_rows_of(m, b, ROLE_GATE));
    if (wants(m, b, grads, ROLE_GATE) || wants(m, b, grads, ROLE_UP)) {
        weight_grad(m, b, ROLE_GATE, dact, s->norm, grads, rows);
        weight_grad(m, b, ROLE_UP, s->up, s->norm, grads, rows);
    }
    if (want_input) {
        input_grad(m, b, ROLE_GATE, dact, bs->dnorm, rows, 0);
        input_grad(m, b, ROLE_UP, s->up, bs->dnorm, rows, 1);
        input_bwd(m, h, b->fixed[ROLE_FFN_NORM], bs->dnorm, dy, rows);
    }
}

void block_half_bwd(struct model *m, enum block_half half, const struct block_weights *b, const struct block_scratch *s,
                    const struct bwd_scratch *bs, struct gpu_view x, struct gpu_view dy, bool want_input,
                    const struct block_grads *grads, uint32_t windows)
{
    (half == HALF_ATTN ? block_attn_bwd : block_ffn_bwd)(m, b, s, bs, x, dy, want_input, grads, windows);
}
