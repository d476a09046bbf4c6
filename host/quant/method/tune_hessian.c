#include "host/quant/method/tune_hessian.h"

#include <math.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/tiled.h"
#include "host/quant/method/gumbel.h"

/* The caller hears from the loop this often. */
#define HOOK_STEPS 20u

/* Tiles are so many rows, or a multiple: slices stay aligned, tiles of outputs' Hessians whole. */
static uint32_t unit(bool outputs)
{
    return outputs ? HESSIAN_TILE : 64u;
}

/* Rows [row, row + rows) in training. */
struct tile {
    struct gumbel_state s;
    uint32_t row;          /* of q */
    struct gpu_view inner; /* (W~ - W) H, where outputs have a Hessian */
};

static bool create_tile(struct tile *t, struct gpu_arena *arena, const struct qmatrix *q, uint32_t row, uint32_t rows,
                        bool outputs, struct err *e)
{
    uint64_t bytes = (uint64_t)rows * q->cols * 4;
    *t = (struct tile){.row = row};
    return gumbel_create(&t->s, arena, q, row, rows, e) && gpu_alloc(arena, bytes, &t->s.soft, e) &&
           gpu_alloc(arena, bytes, &t->s.grad, e) && (!outputs || gpu_alloc(arena, bytes, &t->inner, e));
}

static bool count_tile(struct gpu *g, const struct qmatrix *q, uint32_t rows, bool outputs, struct gpu_count *count)
{
    struct gpu_arena *arena = NULL;
    struct tile t;
    bool ok = gpu_arena_create_counting(&arena, g, count, NULL) && create_tile(&t, arena, q, 0, rows, outputs, NULL);
    gpu_arena_destroy(&arena);
    return ok;
}

uint64_t tune_hessian_bytes(struct gpu *g, const struct qmatrix *q, uint32_t rows, bool outputs)
{
    struct gpu_count count = {.limit = UINT64_MAX};
    count_tile(g, q, rows, outputs, &count);
    return count.peak;
}

/* For the search of the largest tile. */
struct room {
    struct gpu *gpu;
    const struct qmatrix *q;
    uint64_t bytes;
    bool outputs;
};

static bool units_fit(void *ctx, uint32_t units)
{
    const struct room *r = ctx;
    struct gpu_count count = {.limit = r->bytes};
    uint32_t rows = (uint32_t)min_u64((uint64_t)units * unit(r->outputs), r->q->rows);
    return count_tile(r->gpu, r->q, rows, r->outputs, &count);
}

/* Trains some rows; their codes and scales are replaced in place at the end. */
static bool tune_rows(struct gpu_cmd *cmd, const struct tile *t, const struct tune_hessians *h, uint32_t steps_before,
                      uint32_t steps_total, const struct tune_hooks *hooks, struct err *e)
{
    const struct gumbel_state *s = &t->s;
    const uint32_t cols = s->q.cols, rows = s->q.rows;
    gumbel_start(cmd, s);
    for (uint32_t step = 0; step < s->o->steps && !gpu_cmd_failed(cmd); step++) {
        /* dL/dW~ = 2 Ho (W~ - W) H, both symmetric. */
        gpu_gemm(cmd, &(struct gpu_product){.a = {s->soft, cols},
                                            .b = {h->inputs, cols},
                                            .c = {h->outputs.view.size ? t->inner : s->grad, cols},
                                            .m = rows,
                                            .n = cols,
                                            .k = cols,
                                            .alpha = 2,
                                            .use = GEMM_STEERING});
        if (h->outputs.view.size)
            output_hessian_times(cmd, h->outputs, t->row, rows, t->inner, s->grad, cols, GEMM_STEERING);
        gumbel_step(cmd, s, step);
        if (step % HOOK_STEPS == 0 && !tune_tell(hooks, cmd, steps_before + step, steps_total, NAN, e))
            return false;
    }
    gumbel_codes(cmd, s, s->q.codes);
    if (s->o->lr_scales > 0)
        qmatrix_round_scales(cmd, &s->q);
    return gpu_cmd_finish(cmd, e);
}

bool tune_hessian(struct gpu_cmd *cmd, struct qmatrix *q, struct gpu_view w, const struct tune_hessians *h,
                  struct gpu_arena *arena, uint64_t budget, const struct gumbel_options *o, struct tune_key key,
                  const struct tune_hooks *hooks, struct err *e)
{
    /* As many rows at a time as the budget takes. */
    const bool outputs = h->outputs.view.size > 0;
    struct room room = {gpu_cmd_gpu(cmd), q, budget, outputs};
    uint64_t row_w = (uint64_t)q->cols * 4;
    uint64_t fit = most_that_fits((uint32_t)div_up(q->rows, unit(outputs)), units_fit, &room);
    uint32_t step = (uint32_t)min_u64(q->rows, max_u64(fit, 1) * unit(outputs));
    uint32_t total = (uint32_t)div_up(q->rows, step) * o->steps, done = 0;
    for (uint32_t row = 0; row < q->rows; row += step, done += o->steps) {
        gpu_mark mark = gpu_arena_mark(arena);
        struct tile t;
        uint32_t rows = (uint32_t)min_u64(step, q->rows - row);
        bool ok = create_tile(&t, arena, q, row, rows, outputs, e);
        if (ok) {
            t.s.o = o;
            t.s.seed = (uint32_t)(key.seed ^ key.seed >> 32);
            t.s.tensor = key.tensor;
            t.s.row0 = key.row0 + row;
            t.s.origin = 1;
            t.s.w = gpu_slice(w, row * row_w, rows * row_w);
            ok = tune_rows(cmd, &t, h, done, total, hooks, e);
        }
        gpu_arena_reset(arena, mark);
        if (!ok)
            return false;
    }
    return true;
}
