#include "host/quant/plan/counts.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/tiled.h"
#include "host/model/acts.h"
#include "host/model/block_bwd.h"
#include "host/model/head.h"
#include "host/quant/method/gumbel.h"
#include "host/quant/method/hessian.h"
#include "host/quant/method/quant_linear.h"

const char *const count_piece_names[COUNT_PIECES] = {
    [COUNT_HESSIAN_STEP] = "Hessian objective, a step",
    [COUNT_ATTN_WINDOW] = "attention half, a window",
    [COUNT_ATTN_STEP] = "attention half, a step",
    [COUNT_FFN_WINDOW] = "feed-forward half, a window",
    [COUNT_FFN_STEP] = "feed-forward half, a step",
    [COUNT_FORWARD] = "forward, a window",
    [COUNT_INPUTS] = "inputs of the linears, a window",
    [COUNT_JUDGED] = "a window that judges",
    [COUNT_SUMS] = "Hessian sums, a window",
    [COUNT_START] = "start of the linears",
    [COUNT_SCALES_WINDOW] = "pass over scales, a window",
    [COUNT_SCALES_JUDGED] = "pass over scales, a window that judges",
    [COUNT_SCALES_STEP] = "pass over scales, a step",
};

struct counting {
    struct model *m;
    const struct quantize_options *o;
    struct gpu_arena *arena;
    struct block_shape shape;
    struct quant_spec spec;
    count_fn *fn;
    void *ctx;
    struct gpu_traffic traffic[GPU_RECORD_KINDS];
};

/* Operands were made, and what that took does not count. */
static void begin(struct counting *c)
{
    memset(c->traffic, 0, sizeof c->traffic);
}

/* What was recorded since is `times` of the piece. */
static bool end(struct counting *c, enum count_piece piece, double times)
{
    struct gpu_traffic *t = c->traffic;
    for (unsigned kind = 0; kind < GPU_RECORD_KINDS; kind++) {
        if (!(t[kind].calls > 0))
            continue;
        t[kind].calls /= times;
        t[kind].flop /= times;
        t[kind].read /= times;
        t[kind].written /= times;
        c->fn(c->ctx, piece, kind, &t[kind]);
    }
    begin(c);
    gpu_arena_reset(c->arena, 0);
    return true;
}

/* ---- linears ---- */

struct linear {
    struct qmatrix q;
    struct gumbel_state s;
    struct gpu_view w, square;
    struct hessian h;
};

static bool make_linear(struct counting *c, const struct block_matrix *of, struct linear *l, struct err *e)
{
    uint64_t bytes = (uint64_t)of->rows * of->cols * 4, square = (uint64_t)of->cols * of->cols * 4;
    if (!qmatrix_create(&l->q, c->arena, of->rows, of->cols, c->spec, e) || !gpu_alloc(c->arena, bytes, &l->w, e) ||
        !gpu_alloc(c->arena, square, &l->square, e) || !gpu_alloc(c->arena, square, &l->h.train, e) ||
        !gumbel_create(&l->s, c->arena, &l->q, 0, of->rows, e) || !gpu_alloc(c->arena, bytes, &l->s.soft, e) ||
        !gpu_alloc(c->arena, bytes, &l->s.grad, e))
        return false;
    l->h.n = of->cols;
    l->s.o = &c->o->gumbel;
    l->s.w = l->w;
    return true;
}

static bool hessian_step(struct counting *c, struct err *e)
{
    for (uint32_t i = 0; i < c->shape.n; i++) {
        const struct block_matrix *of = &c->shape.matrices[i];
        struct linear l = {0};
        if (!make_linear(c, of, &l, e))
            return false;
        l.s.origin = 1;
        gpu_gemm(c->m->cmd, &(struct gpu_product){.a = {l.s.soft, of->cols},
                                                  .b = {l.square, of->cols},
                                                  .c = {l.s.grad, of->cols},
                                                  .m = of->rows,
                                                  .n = of->cols,
                                                  .k = of->cols,
                                                  .alpha = 1,
                                                  .use = GEMM_STEERING});
        gumbel_step(c->m->cmd, &l.s, 0);
        gpu_arena_reset(c->arena, 0);
    }
    return end(c, COUNT_HESSIAN_STEP, 1);
}

/* Of the block objective: soft weights themselves. */
static bool half_step(struct counting *c, enum block_half half, enum count_piece piece, struct err *e)
{
    for (uint32_t i = 0; i < c->shape.n; i++) {
        const struct block_matrix *of = &c->shape.matrices[i];
        struct linear l = {0};
        if (of->part->half != half || (of->part->turned && !c->o->block.train_qk))
            continue;
        if (!make_linear(c, of, &l, e))
            return false;
        l.s.w = l.s.grad;
        gumbel_step(c->m->cmd, &l.s, 0);
        gpu_arena_reset(c->arena, 0);
    }
    return end(c, piece, 1);
}

static bool starts(struct counting *c, struct err *e)
{
    enum { LOSSES = 6 }; /* of the weights, the start, GPTQ's result and what was learned; held out, of the last two */
    for (uint32_t i = 0; i < c->shape.n; i++) {
        const struct block_matrix *of = &c->shape.matrices[i];
        struct linear l = {0};
        struct gptq_facts facts;
        double *loss = calloc(of->rows, sizeof *loss);
        bool ok = (loss || err_nomem(e, "row losses", of->rows * sizeof *loss)) && make_linear(c, of, &l, e);
        if (ok) {
            quantize_rtn(c->m->cmd, &l.q, l.w, &c->o->scale_search);
            ok = quantize_gptq(c->m->cmd, &l.q, l.w, &l.h, l.square, c->arena, c->o->damp, &c->o->scale_search, &facts,
                               e);
        }
        for (int k = 0; ok && k < LOSSES; k++) {
            hessian_square(c->m->cmd, &l.h, HESSIAN_TRAIN, l.square);
            ok = hessian_loss(c->m->cmd, &l.q, l.w, of->rows, of->cols, l.square, c->arena, loss, e);
        }
        free(loss);
        gpu_arena_reset(c->arena, 0);
        if (!ok)
            return false;
    }
    return end(c, COUNT_START, 1);
}

/* ---- windows ---- */

struct half_block {
    struct block_weights w;
    struct block_grads grads;
    struct block_scratch fwd;
    struct bwd_scratch bwd;
    struct gpu_view x, y, target, row_loss, sums;
};

static void free_half(struct half_block *b)
{
    block_weights_free(&b->w);
    free(b->grads.w);
}

static bool make_half(struct counting *c, struct half_block *b, unsigned parts, struct err *e)
{
    struct model *m = c->m;
    uint64_t bytes = acts_bytes(m, COUNT_WINDOWS);
    *b = (struct half_block){.grads.w = calloc(c->shape.n + 1u, sizeof *b->grads.w)};
    bool ok = (b->grads.w || err_nomem(e, "the list of gradients", c->shape.n * sizeof *b->grads.w)) &&
              block_weights_create(&b->w, m, 0, c->shape, c->arena, e) &&
              block_scratch_create(&b->fwd, c->arena, m, COUNT_WINDOWS, parts ? SCRATCH_TRAIN : SCRATCH_FORWARD, e) &&
              (!parts || bwd_scratch_create(&b->bwd, c->arena, m, COUNT_WINDOWS, parts, e)) &&
              gpu_alloc(c->arena, bytes, &b->x, e) && gpu_alloc(c->arena, bytes, &b->y, e) &&
              gpu_alloc(c->arena, bytes, &b->target, e) &&
              gpu_alloc(c->arena, (uint64_t)COUNT_WINDOWS * m->ctx * 4, &b->row_loss, e) &&
              gpu_alloc(c->arena, 4, &b->sums, e);
    b->fwd.steering = true;
    for (uint32_t i = 0; ok && i < c->shape.n; i++) {
        const struct block_matrix *of = &c->shape.matrices[i];
        unsigned part = of->part->half == HALF_FFN ? BWD_FFN : of->part->turned ? BWD_QK : BWD_ATTN;
        if (parts & part)
            ok = gpu_alloc(c->arena, (uint64_t)of->rows * of->cols * 4, &b->grads.w[i], e);
    }
    return ok;
}

/* Inputs and targets. */
static void gathered(const struct counting *c, const struct half_block *b)
{
    gpu_copy(c->m->cmd, b->x, b->target, b->x.size);
    gpu_copy(c->m->cmd, b->target, b->x, b->x.size);
}

/* gradient: y <- half of it. */
static void squared_error(const struct counting *c, const struct half_block *b, bool gradient)
{
    uint32_t rows = COUNT_WINDOWS * c->m->ctx;
    tiled_residual(c->m->cmd, &(struct residual_args){.a = b->y,
                                                      .b = b->target,
                                                      .w = b->row_loss,
                                                      .d = b->y,
                                                      .out = b->row_loss,
                                                      .rows = rows,
                                                      .cols = c->m->cfg->hidden_size,
                                                      .difference = gradient});
    run_reduce_sum(c->m->cmd, gpu_rows(1),
                   &(struct reduce_sum_args){.x = b->row_loss, .result = b->sums, .n = rows, .factor = 1});
}

static bool half_window(struct counting *c, enum block_half half, enum count_piece piece, struct err *e)
{
    struct half_block b;
    struct model *m = c->m;
    bool ok = make_half(c, &b, half == HALF_FFN ? BWD_FFN : BWD_ATTN | (c->o->block.train_qk ? BWD_QK : 0), e);
    if (ok) {
        begin(c);
        gathered(c, &b);
        block_half_fwd(m, half, &b.w, &b.fwd, b.x, b.y, COUNT_WINDOWS);
        squared_error(c, &b, true);
        block_half_bwd(m, half, &b.w, &b.fwd, &b.bwd, b.x, b.y, false, &b.grads, COUNT_WINDOWS);
        end(c, piece, COUNT_WINDOWS);
    }
    free_half(&b);
    gpu_arena_reset(c->arena, 0);
    return ok;
}

static bool forward(struct counting *c, struct err *e)
{
    struct half_block b;
    bool ok = make_half(c, &b, 0, e);
    if (ok) {
        begin(c);
        for (int half = 0; half < HALF_COUNT; half++)
            block_half_fwd(c->m, (enum block_half)half, &b.w, &b.fwd, b.x, b.x, COUNT_WINDOWS);
        end(c, COUNT_FORWARD, COUNT_WINDOWS);
    }
    free_half(&b);
    gpu_arena_reset(c->arena, 0);
    return ok;
}

/* What the Hessians are summed over: no half's last product is wanted. */
static bool inputs(struct counting *c, struct err *e)
{
    struct half_block b;
    bool ok = make_half(c, &b, 0, e);
    if (ok) {
        begin(c);
        for (int half = 0; half < HALF_COUNT; half++)
            block_half_inputs(c->m, (enum block_half)half, &b.w, &b.fwd, b.x, COUNT_WINDOWS);
        end(c, COUNT_INPUTS, COUNT_WINDOWS);
    }
    free_half(&b);
    gpu_arena_reset(c->arena, 0);
    return ok;
}

/* A loss that decides: both halves, exact. */
static bool judged(struct counting *c, struct err *e)
{
    struct half_block b;
    bool ok = make_half(c, &b, 0, e);
    if (ok) {
        begin(c);
        b.fwd.steering = false;
        for (int half = 0; half < HALF_COUNT; half++) {
            gathered(c, &b);
            block_half_fwd(c->m, (enum block_half)half, &b.w, &b.fwd, b.x, b.y, COUNT_WINDOWS);
            squared_error(c, &b, false);
        }
        end(c, COUNT_JUDGED, COUNT_WINDOWS);
    }
    free_half(&b);
    gpu_arena_reset(c->arena, 0);
    return ok;
}

static bool sums(struct counting *c, struct err *e)
{
    uint32_t tokens = COUNT_WINDOWS * c->m->ctx;
    for (int half = 0; half < HALF_COUNT; half++)
        for (int in = 0; in < INPUT_COUNT; in++) {
            uint32_t cols = block_input_cols(c->shape, (enum block_half)half, (enum input)in);
            uint64_t bytes = (uint64_t)tokens * cols * 4;
            struct hessian h = {.n = cols};
            struct gpu_view x;
            if (!cols)
                continue;
            if (!gpu_alloc(c->arena, (uint64_t)cols * cols * 4, &h.train, e) || !gpu_alloc(c->arena, bytes, &x, e))
                return false;
            hessian_add(c->m->cmd, &h, HESSIAN_TRAIN, x, tokens, 1);
            gpu_arena_reset(c->arena, 0);
        }
    return end(c, COUNT_SUMS, COUNT_WINDOWS);
}

/* ---- the pass over scales ---- */

/* end_to_end.c's: forward, forward again and backward through a block. */
static void block_both_ways(struct counting *c, const struct half_block *b)
{
    struct model *m = c->m;
    block_attn_fwd(m, &b->w, &b->fwd, b->x, b->y, COUNT_WINDOWS);
    block_ffn_fwd(m, &b->w, &b->fwd, b->y, b->y, COUNT_WINDOWS);
    gpu_copy(m->cmd, b->target, b->y, b->y.size);
    block_attn_fwd(m, &b->w, &b->fwd, b->x, b->y, COUNT_WINDOWS);
    block_ffn_inputs(m, &b->w, &b->fwd, b->y, COUNT_WINDOWS);
    block_ffn_bwd(m, &b->w, &b->fwd, &b->bwd, b->y, b->target, true, &b->grads, COUNT_WINDOWS);
    block_attn_norm(m, &b->w, &b->fwd, b->x, COUNT_WINDOWS);
    block_attn_bwd(m, &b->w, &b->fwd, &b->bwd, b->x, b->target, true, &b->grads, COUNT_WINDOWS);
    gpu_copy(m->cmd, b->x, b->target, b->y.size);
}

/* Its head, where that and all logits fit. gradient: and back. */
static bool head_piece(struct counting *c, const struct half_block *b, bool gradient, struct err *e)
{
    struct model *m = c->m;
    uint32_t tokens = COUNT_WINDOWS * m->ctx, hidden = m->cfg->hidden_size, vocab = m->cfg->vocab_size;
    struct head h = {.m = m, .rows = vocab};
    struct gpu_view logits[2], top1;
    /* A binding's worth of rows at a time. */
    uint32_t most = gpu_tile_rows(m->gpu, vocab * 4ull, tokens);
    if (!gpu_alloc(c->arena, model_head_bytes(m), &h.w, e) ||
        !gpu_alloc(c->arena, most * vocab * 4ull, &logits[0], e) ||
        !gpu_alloc(c->arena, most * vocab * 4ull, &logits[1], e) || !gpu_alloc(c->arena, tokens * 4ull, &top1, e))
        return false;
    for (int side = 0; side < 2; side++)
        block_rmsnorm(m, b->x, m->final_norm, b->fwd.norm, tokens, hidden);
    for (uint32_t r = 0; r < tokens; r += most) {
        uint32_t rows = (uint32_t)min_u64(most, tokens - r);
        struct gpu_view x = gpu_slice(b->fwd.norm, 0, (uint64_t)rows * hidden * 4);
        struct gpu_grid grid = gpu_rows(rows);
        grid.work = (double)rows * vocab;
        for (int side = 0; side < 2; side++)
            if (!head_logits(&h, x, rows, gradient, logits[side], e))
                return false;
        uint64_t of_rows = (uint64_t)rows * vocab * 4;
        const struct gpu_view a = gpu_slice(logits[0], 0, of_rows), ref = gpu_slice(logits[1], 0, of_rows);
        run_kl(m->cmd, grid,
               &(struct kl_args){.ref = ref, .logits = a, .out = top1, .top1 = top1, .rows = rows, .cols = vocab});
        if (!gradient)
            continue;
        run_kl_bwd(m->cmd, grid,
                   &(struct kl_bwd_args){.ref = ref, .logits = a, .dlogits = a, .rows = rows, .cols = vocab});
        if (!head_bwd(&h, a, rows, gpu_slice(b->y, 0, x.size), e))
            return false;
    }
    if (gradient)
        block_rmsnorm_bwd(m, b->x, m->final_norm, b->y, tokens, hidden);
    return true;
}

static bool scales_window(struct counting *c, struct err *e)
{
    struct half_block b;
    bool ok = make_half(c, &b, BWD_ATTN | BWD_QK | BWD_FFN | BWD_INPUT, e);
    if (ok) {
        begin(c);
        for (uint32_t layer = 0; layer < c->m->cfg->num_layers; layer++)
            block_both_ways(c, &b);
        ok = head_piece(c, &b, true, e);
        end(c, COUNT_SCALES_WINDOW, COUNT_WINDOWS);
    }
    free_half(&b);
    gpu_arena_reset(c->arena, 0);
    return ok;
}

static bool scales_judged(struct counting *c, struct err *e)
{
    struct half_block b;
    bool ok = make_half(c, &b, 0, e);
    if (ok) {
        begin(c);
        b.fwd.steering = false;
        for (uint32_t layer = 0; layer < c->m->cfg->num_layers; layer++)
            for (int half = 0; half < HALF_COUNT; half++)
                block_half_fwd(c->m, (enum block_half)half, &b.w, &b.fwd, b.x, b.x, COUNT_WINDOWS);
        ok = head_piece(c, &b, false, e);
        end(c, COUNT_SCALES_JUDGED, COUNT_WINDOWS);
    }
    free_half(&b);
    gpu_arena_reset(c->arena, 0);
    return ok;
}

static bool scales_step(struct counting *c, struct err *e)
{
    struct gpu_cmd *cmd = c->m->cmd;
    for (uint32_t k = 0; k < c->shape.n * c->m->cfg->num_layers; k++) {
        const struct block_matrix *of = &c->shape.matrices[k % c->shape.n];
        struct linear l = {0};
        if (!make_linear(c, of, &l, e))
            return false;
        struct gpu_view s = l.q.scales;
        qmatrix_dequant(cmd, &l.q, l.w);
        qmatrix_dequant(cmd, &l.q, l.w);
        gpu_fill(cmd, s, 0);
        tiled_scale_grad(cmd, &(struct scale_grad_args){.grad = l.w,
                                                        .codes = l.q.codes,
                                                        .dscales = s,
                                                        .rows = of->rows,
                                                        .cols = of->cols,
                                                        .group = c->spec.group,
                                                        .groups = l.q.groups,
                                                        .ldc = l.q.ldc,
                                                        .offsets = quant_offsets(&c->spec)});
        tiled_adam_step(cmd, &(struct adam_step_args){
                                 .param = s, .m = s, .v = s, .grad = s, .size = s, .n = (uint32_t)(s.size / 4)});
        gpu_arena_reset(c->arena, 0);
    }
    return end(c, COUNT_SCALES_STEP, 1);
}

/* ---- the whole ---- */

/* A CPU device's own variants read what a GPU's do not. */
static void take_base(struct gpu *g, bool on)
{
    for (unsigned k = 0; k < KERNEL_COUNT && gpu_info(g)->caps & GPU_CAP_CPU; k++)
        gpu_kernel_force(g, k, on ? "base" : NULL, NULL);
}

bool count_pieces(struct model *m, const struct quantize_options *o, count_fn *fn, void *ctx, struct err *e)
{
    struct gpu_count memory = {.limit = UINT64_MAX};
    struct counting c = {.m = m, .o = o, .shape = model_block(m, 0), .fn = fn, .ctx = ctx};
    c.spec = (struct quant_spec){.type = o->code_type, .group = o->group, .scale = SCALE_F16};
    if (!gpu_arena_create_counting(&c.arena, m->gpu, &memory, e))
        return false;
    take_base(m->gpu, true);
    gpu_cmd_watch(m->cmd, gpu_traffic_watch, c.traffic);
    gpu_cmd_count(m->cmd, GPU_COUNT_TRAFFIC);
    bool ok = hessian_step(&c, e) && half_window(&c, HALF_ATTN, COUNT_ATTN_WINDOW, e) &&
              half_step(&c, HALF_ATTN, COUNT_ATTN_STEP, e) && half_window(&c, HALF_FFN, COUNT_FFN_WINDOW, e) &&
              half_step(&c, HALF_FFN, COUNT_FFN_STEP, e) && forward(&c, e) && inputs(&c, e) && judged(&c, e) &&
              sums(&c, e) && starts(&c, e) && scales_window(&c, e) && scales_judged(&c, e) && scales_step(&c, e);
    ok = gpu_cmd_finish(m->cmd, ok ? e : NULL) && ok;
    gpu_cmd_count(m->cmd, GPU_COUNT_NOTHING);
    gpu_cmd_watch(m->cmd, NULL, NULL);
    take_base(m->gpu, false);
    gpu_arena_destroy(&c.arena);
    return ok;
}
