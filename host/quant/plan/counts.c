#include "host/quant/plan/counts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/tiled.h"
#include "host/model/acts.h"
#include "host/model/block_bwd.h"
#include "host/model/head.h"
#include "host/quant/method/drift.h"
#include "host/quant/method/gumbel.h"
#include "host/quant/method/hessian.h"
#include "host/model/experts.h"
#include "host/quant/method/quant_linear.h"
#include "host/quant/method/tune_expert.h"
#include "host/quant/plan.h"

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
    [COUNT_DRIFT] = "drift of the linears, a window",
    [COUNT_GOOD] = "correction of the linears",
    [COUNT_EXPERTS_FORWARD] = "experts, a window",
    [COUNT_EXPERTS_SUMS] = "Hessian sums of experts, a window",
    [COUNT_EXPERT_START] = "start of an expert",
    [COUNT_EXPERTS_DRIFT] = "drift of experts, a window",
    [COUNT_EXPERT_GOOD] = "correction of an expert",
    [COUNT_EXPERT_HESSIAN_STEP] = "Hessian objective of an expert, a step",
    [COUNT_EXPERT_WINDOW] = "an expert, 32 of its tokens",
    [COUNT_EXPERT_JUDGED] = "an expert, 32 tokens that judge",
    [COUNT_EXPERT_STEP] = "an expert, a step",
    [COUNT_SCALES_WINDOW] = "pass over scales, a window",
    [COUNT_SCALES_JUDGED] = "pass over scales, a window that judges",
    [COUNT_SCALES_STEP] = "pass over scales, a step",
};

_Static_assert(EXPERT_WINDOW == 32, "names of pieces");

struct counting {
    struct model *m;
    const struct quantize_options *o;
    struct gpu_arena *arena;
    struct count_kind kind;   /* the layers that are counted */
    struct block_shape shape; /* their matrices without those of experts */
    struct quant_spec spec;
    count_fn *fn;
    void *ctx;
    double stepped;
    struct gpu_traffic traffic[GPU_RECORD_KINDS];
};

/* Operands were made, and what that took does not count. */
static void begin(struct counting *c)
{
    memset(c->traffic, 0, sizeof c->traffic);
    c->stepped = 0;
}

static void multiply(struct counting *c, double by)
{
    for (struct gpu_traffic *t = c->traffic; t < c->traffic + GPU_RECORD_KINDS; t++)
        *t = (struct gpu_traffic){t->calls * by, t->flop * by, t->read * by, t->written * by};
}

static void take_kind(struct counting *c, const struct count_kind *kind)
{
    c->kind = *kind;
    c->shape = block_common(model_block(c->m, kind->first));
}

/* What was recorded since is `times` of the piece. */
static bool end(struct counting *c, enum count_piece piece, double times)
{
    multiply(c, 1 / times);
    for (unsigned i = 0; i < GPU_RECORD_KINDS; i++)
        if (c->traffic[i].calls > 0)
            c->fn(c->ctx, &(struct count_row){.piece = piece,
                                              .of = piece < COUNT_SCALES_WINDOW ? &c->kind : NULL,
                                              .record = i,
                                              .traffic = c->traffic[i],
                                              .stepped = c->stepped});
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

static double weights_of(const struct block_matrix *x)
{
    return (double)x->rows * x->cols;
}

static bool hessian_step(struct counting *c, struct block_shape shape, enum count_piece piece, struct err *e)
{
    begin(c);
    for (uint32_t i = 0; i < shape.n; i++) {
        const struct block_matrix *of = &shape.matrices[i];
        struct linear l = {0};
        if (!make_linear(c, of, &l, e))
            return false;
        c->stepped += weights_of(of);
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
    return end(c, piece, 1);
}

/* Of the block objective: soft weights themselves. */
static bool half_step(struct counting *c, struct block_shape shape, enum block_half half, enum count_piece piece,
                      struct err *e)
{
    begin(c);
    for (uint32_t i = 0; i < shape.n; i++) {
        const struct block_matrix *of = &shape.matrices[i];
        struct linear l = {0};
        if (of->part->half != half || (of->part->turned && !c->o->block.train_qk))
            continue;
        if (!make_linear(c, of, &l, e))
            return false;
        c->stepped += weights_of(of);
        l.s.w = l.s.grad;
        gumbel_step(c->m->cmd, &l.s, 0);
        gpu_arena_reset(c->arena, 0);
    }
    return end(c, piece, 1);
}

static bool start_linears(struct counting *c, struct block_shape shape, struct err *e)
{
    enum { LOSSES = 6 }; /* of the weights, the start, GPTQ's result and what was learned; held out, of the last two */
    for (uint32_t i = 0; i < shape.n; i++) {
        const struct block_matrix *of = &shape.matrices[i];
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
            ok = hessian_loss(c->m->cmd, &l.q, l.w, of->rows, of->cols, l.square, (struct gpu_matrix){0}, c->arena,
                              loss, e);
        }
        free(loss);
        gpu_arena_reset(c->arena, 0);
        if (!ok)
            return false;
    }
    return true;
}

/* As plan_corrects has it. */
static bool half_corrects(struct block_shape shape, enum block_half half)
{
    bool all = block_has_half(shape, half);
    for (uint32_t i = 0; i < shape.n; i++)
        all = all && (shape.matrices[i].part->half != half || plan_corrects_input(shape.matrices[i].part->input));
    return all;
}

/* Each makes its own good. */
static bool make_good(struct counting *c, struct block_shape shape, enum count_piece piece, struct err *e)
{
    const uint32_t hidden = c->m->cfg->hidden_size;
    begin(c);
    for (uint32_t i = 0; i < shape.n; i++) {
        const struct block_matrix *of = &shape.matrices[i];
        const bool last = input_is_last(of->part->input);
        struct linear l = {0};
        struct gptq_facts facts;
        struct drift d = {.rows = last ? hidden : of->cols, .n = of->cols, .last = last};
        if (!block_part_is_expert(of->part) && !half_corrects(shape, of->part->half))
            continue;
        if (!make_linear(c, of, &l, e) || !gpu_alloc_rows(c->arena, d.rows, d.n * 4ull, HESSIAN_TILE, &d.sum, e) ||
            !gptq_factor(c->m->cmd, &l.h, c->o->damp, c->arena, l.square, &facts, e) ||
            !drift_make_good(c->m->cmd, &d, l.w, 0, of->rows, l.square,
                             quantize_correction(c->o, block_part_is_expert(of->part)), c->arena, e))
            return false;
        gpu_arena_reset(c->arena, 0);
    }
    return end(c, piece, 1);
}

static bool starts(struct counting *c, struct err *e)
{
    begin(c);
    return start_linears(c, c->shape, e) && end(c, COUNT_START, 1);
}

/* ---- windows ---- */

struct half_block {
    struct model *m;
    uint32_t windows;
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

/* What goes through m's windows: a half, or an expert. */
struct passing {
    struct model *m;
    struct block_shape shape;
    uint32_t layer, windows;
    enum scratch_use use;
    unsigned parts; /* of gradients; 0: forward alone */
};

static struct passing whole_block(const struct counting *c, unsigned parts)
{
    return (struct passing){c->m, c->shape, c->kind.first, COUNT_WINDOWS, parts ? SCRATCH_TRAIN : SCRATCH_FORWARD,
                            parts};
}

static bool make_half(struct counting *c, const struct passing *p, struct half_block *b, struct err *e)
{
    struct model *m = p->m;
    uint64_t bytes = acts_bytes(m, p->windows);
    *b = (struct half_block){.windows = p->windows, .m = m, .grads.w = calloc(p->shape.n + 1u, sizeof *b->grads.w)};
    bool ok = (b->grads.w || err_nomem(e, "the list of gradients", p->shape.n * sizeof *b->grads.w)) &&
              block_weights_create(&b->w, m, p->layer, p->shape, c->arena, e) &&
              block_scratch_create(&b->fwd, c->arena, m, p->windows, p->use, e) &&
              (!p->parts || bwd_scratch_create(&b->bwd, c->arena, m, p->windows, p->parts, e)) &&
              gpu_alloc(c->arena, bytes, &b->x, e) && gpu_alloc(c->arena, bytes, &b->y, e) &&
              gpu_alloc(c->arena, bytes, &b->target, e) &&
              gpu_alloc(c->arena, (uint64_t)p->windows * m->ctx * 4, &b->row_loss, e) &&
              gpu_alloc(c->arena, 4, &b->sums, e);
    b->fwd.steering = true;
    for (uint32_t i = 0; ok && i < p->shape.n; i++) {
        const struct block_matrix *of = &p->shape.matrices[i];
        unsigned part = of->part->half != HALF_ATTN ? BWD_FFN : of->part->turned ? BWD_QK : BWD_ATTN;
        if (p->parts & part)
            ok = gpu_alloc(c->arena, (uint64_t)of->rows * of->cols * 4, &b->grads.w[i], e);
    }
    return ok;
}

/* Inputs and targets. */
static void gathered(const struct half_block *b)
{
    gpu_copy(b->m->cmd, b->x, b->target, b->x.size);
    gpu_copy(b->m->cmd, b->target, b->x, b->x.size);
}

/* gradient: y <- half of it. */
static void squared_error(const struct half_block *b, bool gradient)
{
    uint32_t rows = b->windows * b->m->ctx;
    tiled_residual(b->m->cmd, &(struct residual_args){.a = b->y,
                                                      .b = b->target,
                                                      .w = b->row_loss,
                                                      .d = b->y,
                                                      .out = b->row_loss,
                                                      .rows = rows,
                                                      .cols = b->m->cfg->hidden_size,
                                                      .difference = gradient});
    run_reduce_sum(b->m->cmd, gpu_rows(1),
                   &(struct reduce_sum_args){.x = b->row_loss, .result = b->sums, .n = rows, .factor = 1});
}

/* Gradients of windows: a half's, or an expert's. */
static void both_ways(struct half_block *b, enum block_half half)
{
    gathered(b);
    block_half_fwd(b->m, half, &b->w, &b->fwd, b->x, b->y, b->windows);
    squared_error(b, true);
    block_half_bwd(b->m, half, &b->w, &b->fwd, &b->bwd, b->x, b->y, false, &b->grads, b->windows);
}

/* A loss that decides: exact. */
static void judge(struct half_block *b, enum block_half half)
{
    b->fwd.steering = false;
    gathered(b);
    block_half_fwd(b->m, half, &b->w, &b->fwd, b->x, b->y, b->windows);
    squared_error(b, false);
}

/* Windows through a half, by both_ways or judge. An expert's inputs are normed already, as tune_expert.c has it. */
static bool through_half(struct counting *c, const struct passing *p, enum block_half half, enum count_piece piece,
                         void (*run)(struct half_block *b, enum block_half half), struct err *e)
{
    struct half_block b;
    bool ok = make_half(c, p, &b, e);
    if (half == HALF_EXPERTS)
        memset(b.w.fixed, 0, sizeof b.w.fixed);
    if (ok) {
        begin(c);
        run(&b, half);
        end(c, piece, p->windows);
    }
    free_half(&b);
    gpu_arena_reset(c->arena, 0);
    return ok;
}

static bool half_window(struct counting *c, enum block_half half, enum count_piece piece, struct err *e)
{
    const struct passing p =
        whole_block(c, half == HALF_FFN ? BWD_FFN : BWD_ATTN | (c->o->block.train_qk ? BWD_QK : 0));
    return through_half(c, &p, half, piece, both_ways, e);
}

/* Gradients and step of each half that something goes back through. */
static bool halves(struct counting *c, struct err *e)
{
    const bool attn = !config_forward_only(c->m->cfg), ffn = block_has_half(c->shape, HALF_FFN);
    return (!attn || (half_window(c, HALF_ATTN, COUNT_ATTN_WINDOW, e) &&
                      half_step(c, c->shape, HALF_ATTN, COUNT_ATTN_STEP, e))) &&
           (!ffn ||
            (half_window(c, HALF_FFN, COUNT_FFN_WINDOW, e) && half_step(c, c->shape, HALF_FFN, COUNT_FFN_STEP, e)));
}

/* All windows through both halves, in one of three ways: for their outputs; as far as the Hessians are summed over, where no half's last
 * product is wanted; judged. */
static bool forward(struct counting *c, enum count_piece piece, struct err *e)
{
    const struct passing p = whole_block(c, 0);
    struct half_block b;
    bool ok = make_half(c, &p, &b, e);
    if (ok) {
        begin(c);
        for (int i = 0; i < HALF_COUNT; i++) {
            enum block_half half = (enum block_half)i;
            if (!block_has_half(c->shape, half))
                continue;
            if (piece == COUNT_FORWARD)
                block_half_fwd(c->m, half, &b.w, &b.fwd, b.x, b.x, COUNT_WINDOWS);
            else if (piece == COUNT_INPUTS)
                block_half_inputs(c->m, half, &b.w, &b.fwd, b.x, COUNT_WINDOWS);
            else
                judge(&b, half);
        }
        end(c, piece, COUNT_WINDOWS);
    }
    free_half(&b);
    gpu_arena_reset(c->arena, 0);
    return ok;
}

static bool sums(struct counting *c, struct err *e)
{
    begin(c);
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

static void subtract(struct counting *c, struct gpu_view from, struct gpu_view what, uint32_t tokens)
{
    tiled_subtract(c->m->cmd,
                   &(struct subtract_args){.a = from, .b = what, .d = from, .n = tokens * c->m->cfg->hidden_size});
}

/* As job_block.c's passes have it: of what comes in to each half, normed, and of what the half gives. */
static bool drift_sums(struct counting *c, struct err *e)
{
    const struct passing p = whole_block(c, 0);
    const uint32_t tokens = COUNT_WINDOWS * c->m->ctx;
    struct drift d[HALF_COUNT][INPUT_COUNT] = {0};
    struct half_block b;
    bool ok = make_half(c, &p, &b, e);
    for (int half = 0; ok && half < HALF_COUNT; half++)
        ok = !half_corrects(c->shape, (enum block_half)half) ||
             drift_create_half(d[half], c->m, c->arena, &b.w, (enum block_half)half, e);
    begin(c);
    for (int half = 0; ok && half < HALF_COUNT; half++) {
        if (!half_corrects(c->shape, (enum block_half)half))
            continue;
        block_half_norm(c->m, (enum block_half)half, &b.w, &b.fwd, b.x, COUNT_WINDOWS);
        gpu_copy(c->m->cmd, b.y, b.fwd.norm, b.y.size);
        block_half_norm(c->m, (enum block_half)half, &b.w, &b.fwd, b.x, COUNT_WINDOWS);
        subtract(c, b.y, b.x, tokens);
        subtract(c, b.y, b.x, tokens);
        for (int in = 0; ok && in < INPUT_COUNT; in++) {
            const gpu_mark mark = gpu_arena_mark(c->arena);
            struct gpu_view x;
            if (!d[half][in].sum.size)
                continue;
            ok = gpu_alloc(c->arena, (uint64_t)tokens * d[half][in].n * 4, &x, e);
            if (ok)
                drift_add(c->m->cmd, &d[half][in], b.y, x, tokens, 1);
            gpu_arena_reset(c->arena, mark);
        }
    }
    if (ok)
        end(c, COUNT_DRIFT, COUNT_WINDOWS);
    free_half(&b);
    gpu_arena_reset(c->arena, 0);
    return ok;
}

/* ---- experts ---- */

/* Room as a run has it, and an expert that a tile of tokens chose. */
static bool make_experts(struct counting *c, struct experts *x, struct half_block *b, struct err *e)
{
    const struct passing p = whole_block(c, 0);
    if (!make_half(c, &p, b, e) || !experts_create(x, c->arena, c->m, COUNT_WINDOWS, COUNT_WINDOWS, true, e))
        return false;
    experts_begin(x, c->kind.first);
    for (uint32_t i = 0; i < x->tile; i++)
        x->rows[i] = i;
    x->start[0] = 0;
    x->start[1] = x->tile;
    return true;
}

/* Of what was recorded for a tile of entries: that of all windows. */
static void all_windows(struct counting *c, const struct experts *x)
{
    multiply(c, (double)COUNT_WINDOWS * c->m->ctx * c->m->cfg->experts.used / x->tile);
}

static bool experts_forward(struct counting *c, struct err *e)
{
    struct experts x = {0};
    struct half_block b;
    bool ok = make_experts(c, &x, &b, e);
    if (ok) {
        begin(c);
        experts_run(&x, 0, x.w, true);
        all_windows(c, &x);
        experts_take(&x, &b.w, &b.fwd, b.x, COUNT_WINDOWS);
        gpu_copy(c->m->cmd, b.y, b.fwd.norm,
                 b.y.size); /* to what experts read, which is not taken where commands count */
        experts_add(&x, &b.fwd, b.x, 0, COUNT_WINDOWS);
        end(c, COUNT_EXPERTS_FORWARD, COUNT_WINDOWS);
    }
    experts_free(&x);
    free_half(&b);
    gpu_arena_reset(c->arena, 0);
    return ok;
}

static bool experts_sums(struct counting *c, struct err *e)
{
    struct experts x = {0};
    struct half_block b;
    struct hessian layer, in, middle;
    struct gpu_view factor, diag;
    struct gpu_cmd *cmd = c->m->cmd;
    bool ok = make_experts(c, &x, &b, e) &&
              hessian_create_experts(&layer, &in, &middle, &factor, &diag, cmd, c->arena, c->m->cfg, false, e);
    if (ok) {
        begin(c);
        for (uint32_t at = 0, n; at < x.tile; at += n) {
            n = experts_gather(&x, at, x.tile);
            hessian_add(cmd, &in, HESSIAN_TRAIN, x.in, n, 1);
            experts_middle(&x, x.w, n, true);
            hessian_add(cmd, &middle, HESSIAN_TRAIN, x.gate, n, 1);
        }
        all_windows(c, &x);
        for (uint32_t at = 0, n, all = COUNT_WINDOWS * c->m->ctx; at < all; at += n) {
            n = experts_inputs(&x, at, all, x.in);
            hessian_add(cmd, &layer, HESSIAN_TRAIN, x.in, n, 1);
        }
        end(c, COUNT_EXPERTS_SUMS, COUNT_WINDOWS);
    }
    experts_free(&x);
    free_half(&b);
    gpu_arena_reset(c->arena, 0);
    return ok;
}

/* As job_experts.c has it: of a tile of tokens that chose an expert what comes in, what the expert of 16 bits and this one give of it; of all
 * what comes in to the layer. */
static bool experts_drift(struct counting *c, struct err *e)
{
    struct experts x = {0};
    struct half_block b;
    struct expert_drift d;
    struct gpu_cmd *cmd = c->m->cmd;
    bool ok = make_experts(c, &x, &b, e) && drift_create_expert(&d, c->arena, c->m->cfg, e);
    if (ok) {
        begin(c);
        for (uint32_t at = 0, n; at < x.tile; at += n) {
            n = experts_gather(&x, at, x.tile);
            experts_gather_from(&x, x.x, at, n, x.out);
            subtract(c, x.out, x.in, n);
            drift_add(cmd, &d.in, x.out, x.in, n, 1);
            experts_gather_from(&x, x.x, at, n, x.in);
            experts_middle(&x, x.w, n, true);
            experts_down(&x, x.w, n, true);
            experts_gather_from(&x, x.x, at, n, x.in);
            experts_down(&x, x.w, n, true); /* this one's middle is its Hessian's, too */
            subtract(c, x.out, x.in, n);
            drift_add(cmd, &d.out, x.out, x.gate, n, 1);
        }
        all_windows(c, &x);
        for (uint32_t at = 0, n, all = COUNT_WINDOWS * c->m->ctx; at < all; at += n) {
            n = experts_inputs(&x, at, all, x.out);
            subtract(c, x.out, x.in, n);
            drift_add(cmd, &d.layer, x.out, x.in, n, 1);
        }
        end(c, COUNT_EXPERTS_DRIFT, COUNT_WINDOWS);
    }
    experts_free(&x);
    free_half(&b);
    gpu_arena_reset(c->arena, 0);
    return ok;
}

/* On its own output. */
static bool one_expert(struct counting *c, struct block_shape expert, struct err *e)
{
    struct expert_training t = {0};
    tune_expert_model(&t, c->m);
    const uint32_t windows = (uint32_t)max_u64(1, (uint64_t)COUNT_WINDOWS * c->m->ctx / EXPERT_WINDOW);
    const struct passing p = {&t.m, expert, c->kind.first, windows, SCRATCH_TRAIN_EXPERT, BWD_FFN};
    return through_half(c, &p, HALF_EXPERTS, COUNT_EXPERT_WINDOW, both_ways, e) &&
           through_half(c, &p, HALF_EXPERTS, COUNT_EXPERT_JUDGED, judge, e) &&
           half_step(c, expert, HALF_EXPERTS, COUNT_EXPERT_STEP, e);
}

/* The layer's Hessian scaled, the middle of tokens that stand for all, and diagonals raised, as job_experts.c pools them with an expert's
 * own. */
static bool pooled(struct counting *c, struct err *e)
{
    struct experts x = {0};
    struct half_block b;
    struct hessian layer, in, middle;
    struct gpu_view factor, diag;
    struct gpu_cmd *cmd = c->m->cmd;
    const uint32_t hidden = c->m->cfg->hidden_size;
    bool ok = make_experts(c, &x, &b, e) &&
              hessian_create_experts(&layer, &in, &middle, &factor, &diag, cmd, c->arena, c->m->cfg, false, e);
    begin(c);
    if (ok) {
        gpu_fill(cmd, middle.train, 0);
        gpu_fill(cmd, factor, 0);
        for (uint32_t r = 0; r < hidden; r += HESSIAN_TILE) {
            uint32_t rows = (uint32_t)min_u64(HESSIAN_TILE, hidden - r);
            uint64_t at = (uint64_t)r * hidden * 4, bytes = (uint64_t)rows * hidden * 4;
            tiled_scale_rows(cmd, &(struct scale_rows_args){.x = gpu_slice(layer.train, at, bytes),
                                                            .w = factor,
                                                            .y = gpu_slice(in.train, at, bytes),
                                                            .rows = rows,
                                                            .cols = hidden});
        }
        for (uint32_t at = 0, n, all = experts_sample_tokens(c->m); at < all; at += n) {
            n = experts_gather(&x, 0, (uint32_t)min_u64(x.tile, all - at));
            experts_middle(&x, x.w, n, true);
            hessian_add(cmd, &middle, HESSIAN_TRAIN, x.gate, n, 1);
        }
        hessian_raise_diagonal(cmd, &in, 0, diag, factor);
        hessian_raise_diagonal(cmd, &middle, 0, diag, factor);
    }
    experts_free(&x);
    free_half(&b);
    gpu_arena_reset(c->arena, 0);
    return ok;
}

static bool corrects(const struct counting *c)
{
    return quantize_correction(c->o, false) > 0;
}

static bool experts(struct counting *c, struct err *e)
{
    const struct block_shape all = model_block(c->m, c->kind.first);
    if (!block_experts(all))
        return true;
    const struct block_shape one = block_expert(all, 0);
    return experts_forward(c, e) && experts_sums(c, e) && pooled(c, e) && start_linears(c, one, e) &&
           end(c, COUNT_EXPERT_START, 1) &&
           (!corrects(c) || (experts_drift(c, e) && make_good(c, one, COUNT_EXPERT_GOOD, e))) &&
           hessian_step(c, one, COUNT_EXPERT_HESSIAN_STEP, e) && one_expert(c, one, e);
}

/* ---- the pass over scales ---- */

/* end_to_end.c's: forward, forward again and backward through a block. */
static void block_both_ways(const struct half_block *b)
{
    struct model *m = b->m;
    block_attn_fwd(m, &b->w, &b->fwd, b->x, b->y, COUNT_WINDOWS);
    block_ffn_fwd(m, &b->w, &b->fwd, b->y, b->y, COUNT_WINDOWS);
    gpu_copy(m->cmd, b->target, b->y, b->y.size);
    block_attn_fwd(m, &b->w, &b->fwd, b->x, b->y, COUNT_WINDOWS);
    block_ffn_inputs(m, &b->w, &b->fwd, b->y, COUNT_WINDOWS);
    block_ffn_bwd(m, &b->w, &b->fwd, &b->bwd, b->y, b->target, true, &b->grads, COUNT_WINDOWS);
    block_half_norm(m, HALF_ATTN, &b->w, &b->fwd, b->x, COUNT_WINDOWS);
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

/* Gradients of windows, or their loss: through all layers, then the head. */
static bool scales_windows(struct counting *c, const struct count_kind *kinds, unsigned n, bool gradient, struct err *e)
{
    struct half_block b = {0};
    bool ok = true;
    begin(c);
    for (unsigned k = 0; ok && k < n; k++) {
        free_half(&b);
        gpu_arena_reset(c->arena, 0);
        take_kind(c, &kinds[k]);
        const struct passing p = whole_block(c, gradient ? BWD_ATTN | BWD_QK | BWD_FFN | BWD_INPUT : 0);
        ok = make_half(c, &p, &b, e);
        b.fwd.steering = gradient;
        for (uint32_t layer = 0; ok && layer < kinds[k].layers; layer++) {
            if (gradient)
                block_both_ways(&b);
            for (int half = 0; !gradient && half < HALF_COUNT; half++)
                block_half_fwd(c->m, (enum block_half)half, &b.w, &b.fwd, b.x, b.x, COUNT_WINDOWS);
        }
    }
    ok = ok && head_piece(c, &b, gradient, e) &&
         end(c, gradient ? COUNT_SCALES_WINDOW : COUNT_SCALES_JUDGED, COUNT_WINDOWS);
    free_half(&b);
    gpu_arena_reset(c->arena, 0);
    return ok;
}

static bool scales_of(struct counting *c, const struct block_matrix *of, struct err *e)
{
    struct gpu_cmd *cmd = c->m->cmd;
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
    tiled_adam_step(
        cmd, &(struct adam_step_args){.param = s, .m = s, .v = s, .grad = s, .size = s, .n = (uint32_t)(s.size / 4)});
    gpu_arena_reset(c->arena, 0);
    return true;
}

static bool scales_step(struct counting *c, const struct count_kind *kinds, unsigned n, struct err *e)
{
    begin(c);
    for (unsigned k = 0; k < n; k++) {
        take_kind(c, &kinds[k]);
        for (uint32_t i = 0; i < c->shape.n * kinds[k].layers; i++)
            if (!scales_of(c, &c->shape.matrices[i % c->shape.n], e))
                return false;
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

/* As block_weights_create has it. */
static uint32_t sliding(const struct model *m, uint32_t layer)
{
    const uint32_t window = m->family->sliding_window ? config_window(m->cfg, layer) : 0;
    return window < m->ctx ? window : 0;
}

static bool alike(const struct model *m, uint32_t a, uint32_t b)
{
    return block_shape_same(model_block(m, a), model_block(m, b)) && sliding(m, a) == sliding(m, b) &&
           config_has_rope(m->cfg, a) == config_has_rope(m->cfg, b);
}

static void name_kind(const struct model *m, struct count_kind *k)
{
    const struct expert_config *x = &m->cfg->experts;
    const bool shared = block_has_half(block_common(model_block(m, k->first)), HALF_FFN);
    const char *what = config_has_delta(m->cfg, k->first) ? "gated delta rule"
                       : m->cfg->mla.kv_rank              ? "latent attention"
                                                          : "attention";
    int n = snprintf(k->name, sizeof k->name, "%s", what);
    if (sliding(m, k->first) && !config_has_delta(m->cfg, k->first))
        n += snprintf(k->name + n, sizeof k->name - (size_t)n, " over %u tokens", (unsigned)sliding(m, k->first));
    if (config_has_experts(m->cfg, k->first))
        snprintf(k->name + n, sizeof k->name - (size_t)n, ", %u experts of which %u are used%s", (unsigned)x->n,
                 (unsigned)x->used, shared ? ", a shared one" : "");
    else
        snprintf(k->name + n, sizeof k->name - (size_t)n, ", feed-forward");
}

/* *out [*n], which the caller frees. */
static bool list_kinds(const struct model *m, struct count_kind **out, unsigned *n, struct err *e)
{
    struct count_kind *list = *out = calloc(m->cfg->num_layers, sizeof *list);
    *n = 0;
    if (!list)
        return err_nomem(e, "kinds of layers", m->cfg->num_layers * sizeof *list);
    for (uint32_t layer = 0; layer < m->cfg->num_layers; layer++) {
        unsigned k = 0;
        while (k < *n && !alike(m, list[k].first, layer))
            k++;
        if (k == *n) {
            const struct block_shape b = model_block(m, layer);
            list[(*n)++].first = layer;
            for (uint32_t i = 0; i < b.n; i++)
                *(block_part_is_expert(b.matrices[i].part) ? &list[k].expert_weights : &list[k].weights) +=
                    weights_of(&b.matrices[i]);
            name_kind(m, &list[k]);
        }
        list[k].layers++;
    }
    return true;
}

static bool one_kind(struct counting *c, struct err *e)
{
    return hessian_step(c, c->shape, COUNT_HESSIAN_STEP, e) && halves(c, e) && forward(c, COUNT_FORWARD, e) &&
           forward(c, COUNT_INPUTS, e) && forward(c, COUNT_JUDGED, e) && sums(c, e) && starts(c, e) &&
           (!corrects(c) || (drift_sums(c, e) && make_good(c, c->shape, COUNT_GOOD, e))) && experts(c, e);
}

bool count_pieces(struct model *m, const struct quantize_options *o, count_fn *fn, void *ctx, struct err *e)
{
    struct gpu_count memory = {.limit = UINT64_MAX};
    struct counting c = {.m = m, .o = o, .fn = fn, .ctx = ctx};
    struct count_kind *kinds;
    unsigned n;
    c.spec = (struct quant_spec){.type = o->code_type, .group = o->group, .scale = SCALE_F16};
    if (!list_kinds(m, &kinds, &n, e) || !gpu_arena_create_counting(&c.arena, m->gpu, &memory, e)) {
        free(kinds);
        return false;
    }
    take_base(m->gpu, true);
    gpu_cmd_watch(m->cmd, gpu_traffic_watch, c.traffic);
    gpu_cmd_count(m->cmd, GPU_COUNT_TRAFFIC);
    bool ok = true;
    for (unsigned k = 0; ok && k < n; k++) {
        take_kind(&c, &kinds[k]);
        ok = one_kind(&c, e);
    }
    /* Where nothing goes back through the whole model, or each step would load all experts, there is no such pass. */
    if (!m->cfg->experts.n && !config_forward_only(m->cfg))
        ok = ok && scales_windows(&c, kinds, n, true, e) && scales_windows(&c, kinds, n, false, e) &&
             scales_step(&c, kinds, n, e);
    ok = gpu_cmd_finish(m->cmd, ok ? e : NULL) && ok;
    gpu_cmd_count(m->cmd, GPU_COUNT_NOTHING);
    gpu_cmd_watch(m->cmd, NULL, NULL);
    take_base(m->gpu, false);
    gpu_arena_destroy(&c.arena);
    free(kinds);
    return ok;
}
