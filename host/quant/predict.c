#include "host/quant/predict.h"

#include "host/base/num.h"
#include "host/base/os.h"
#include "host/gpu/gpu_gemm.h"
#include "host/model/block_bwd.h"
#include "host/quant/gumbel.h"

/* Rows of the matrices that the products and optimiser steps are measured on. */
#define ROWS 256u

/* What is measured, in the order of struct speed. */
enum piece { ATTN_FWD, FFN_FWD, ATTN_BWD, FFN_BWD, GUMBEL, GEMM, PIECES };

struct bench {
    struct model *m;
    const struct quantize_options *o;
    uint32_t windows;
    struct block_weights w;
    struct block_scratch fwd;
    struct bwd_scratch bwd;
    struct block_grads grads;
    struct gpu_view x, y;
    struct gumbel_state s; /* of some rows of gate */
    struct gpu_view h;     /* [cols, cols] of that */
};

static bool prepare(struct bench *b, const struct plan *p, struct gpu_arena *arena, struct err *e)
{
    const struct model *m = b->m;
    const struct plan_item *item = NULL;
    uint64_t bytes = (uint64_t)b->windows * m->ctx * m->cfg->hidden_size * 4;
    unsigned parts = BWD_ATTN | BWD_FFN | (b->o->block.train_qk ? BWD_QK : 0);
    bool block = plan_block_objective(b->o);
    if (!model_load_block(b->m, 0, arena, &b->w, e) ||
        !block_scratch_create(&b->fwd, arena, m, b->windows, block ? SCRATCH_TRAIN : SCRATCH_FORWARD, e) ||
        !gpu_alloc(arena, bytes, &b->x, e) || !gpu_alloc(arena, bytes, &b->y, e))
        return false;
    gpu_fill(m->cmd, b->x, 0x3f800000u); /* ones: speed does not depend on values */
    if (block) {
        if (!bwd_scratch_create(&b->bwd, arena, m, b->windows, parts, e))
            return false;
        for (int id = 0; id < LINEAR_COUNT; id++)
            if (plan_joint(b->o, &p->items[id]) &&
                !gpu_alloc(arena, (uint64_t)m->rows[id] * m->cols[id] * 4, &b->grads.w[id], e))
                return false;
    }
    for (int id = 0; id < LINEAR_COUNT; id++)
        if (!p->items[id].keep && (!item || id == LINEAR_GATE))
            item = &p->items[id];
    if (!item || b->o->method != METHOD_GSQ)
        return true;
    struct qmatrix q;
    uint32_t rows = (uint32_t)min_u64(item->rows, ROWS);
    uint64_t n = (uint64_t)rows * item->cols * 4;
    if (!qmatrix_create(&q, arena, rows, item->cols, item->spec, e) ||
        !gumbel_create(&b->s, arena, &q, 0, rows, e) || !gpu_alloc(arena, n, &b->s.soft, e) ||
        !gpu_alloc(arena, n, &b->s.grad, e) ||
        !gpu_alloc(arena, (uint64_t)item->cols * item->cols * 4, &b->h, e))
        return false;
    b->s.o = &b->o->gumbel;
    b->s.w = b->s.grad;
    gpu_fill(m->cmd, q.codes, 0);
    gpu_fill(m->cmd, q.scales, 0x3f800000u);
    gpu_fill(m->cmd, b->s.grad, 0);
    gpu_fill(m->cmd, b->h, 0);
    gumbel_start(m->cmd, &b->s);
    return true;
}

/* Records one piece; returns the units it consists of, 0 where it is not part of the run. */
static double record(struct bench *b, enum piece piece)
{
    struct model *m = b->m;
    bool block = plan_block_objective(b->o);
    double weights = (double)b->s.rows * b->s.cols;
    switch (piece) {
    case ATTN_FWD:
        block_attn_fwd(m, &b->w, &b->fwd, b->x, b->y, b->windows);
        return b->windows;
    case FFN_FWD:
        block_ffn_fwd(m, &b->w, &b->fwd, b->x, b->y, b->windows);
        return b->windows;
    case ATTN_BWD:
        if (block)
            block_attn_bwd(m, &b->w, &b->fwd, &b->bwd, b->x, b->y, false, &b->grads, b->windows);
        return block ? b->windows : 0;
    case FFN_BWD:
        if (block)
            block_ffn_bwd(m, &b->w, &b->fwd, &b->bwd, b->x, b->y, false, &b->grads, b->windows);
        return block ? b->windows : 0;
    case GUMBEL:
        if (b->s.rows)
            gumbel_step(m->cmd, &b->s, 0);
        return weights;
    default:
        if (b->s.rows)
            gpu_gemm(m->cmd, (struct gpu_matrix){b->s.soft, b->s.cols}, (struct gpu_matrix){b->h, b->s.cols},
                     (struct gpu_matrix){b->s.grad, b->s.cols}, b->s.rows, b->s.cols, b->s.cols, 1, 0);
        return weights * b->s.cols;
    }
}

bool speed_measure(struct speed *s, struct model *m, const struct plan *p, const struct quantize_options *o,
                   struct err *e)
{
    double *out[PIECES] = {&s->attn_fwd, &s->ffn_fwd, &s->attn_bwd, &s->ffn_bwd, &s->gumbel, &s->gemm};
    struct gpu_arena *arena = NULL;
    struct bench b = {.m = m, .o = o};
    *s = (struct speed){0};
    b.windows = plan_block_objective(o) ? p->micro_windows : p->batch_windows;
    bool ok = gpu_arena_create(&arena, m->gpu, "measurement", e) && prepare(&b, p, arena, e);
    for (int round = 0; ok && round < 2; round++) /* the first one warms up */
        for (int piece = 0; ok && piece < PIECES; piece++) {
            ok = gpu_cmd_finish(m->cmd, e);
            uint64_t begin = os_now_ns();
            double units = ok ? record(&b, piece) : 0;
            ok = ok && gpu_cmd_finish(m->cmd, e);
            *out[piece] = units > 0 ? (double)(os_now_ns() - begin) * 1e-9 / units : 0;
        }
    gpu_cmd_finish(m->cmd, NULL);
    gpu_arena_destroy(&arena);
    return ok || err_context(e, "measuring the device's speed");
}
