#include "host/quant/tune_hessian.h"

#include <math.h>

#include "host/base/num.h"
#include "host/gpu/gpu_gemm.h"
#include "host/quant/qkernels.h"

/* From 3 bits on a weight chooses among the start code and two codes on either side (METHOD.md 2). */
#define SHIFT_LEVELS 5u
/* Schedules and rates of METHOD.md belong to a run of this many steps. */
#define PAPER_STEPS 1280.0
/* The caller hears from the loop this often. */
#define HOOK_STEPS 20u

static const double pi = 3.14159265358979323846;

static bool relative_levels(const struct quant_type *t)
{
    return (uint32_t)(t->hi - t->lo + 1) > SHIFT_LEVELS;
}

static uint32_t level_count(const struct quant_type *t)
{
    return relative_levels(t) ? SHIFT_LEVELS : (uint32_t)(t->hi - t->lo + 1);
}

uint32_t tune_bytes_per_weight(const struct quant_type *t)
{
    /* logits and momenta per level; difference and gradient */
    return 4 * (2 * level_count(t) + 2);
}

double tune_rate(const struct gumbel_options *o, uint32_t t)
{
    double f = o->steps > 1 ? (double)t / (o->steps - 1) : 0;
    double cosine = o->lr_end + (1 - o->lr_end) * 0.5 * (1 + cos(pi * f));
    return o->reach * PAPER_STEPS / o->steps * cosine;
}

double tune_reach(const struct gumbel_options *o)
{
    double sum = 0;
    for (uint32_t t = 0; t < o->steps; t++)
        sum += tune_rate(o, t) * o->lr_logits;
    return sum;
}

/* Temperature and logit factor of step t, linear in t. Past the last step they stay. */
static void schedule(const struct gumbel_options *o, uint32_t t, float *tau, float *kappa)
{
    float f = o->steps > 1 ? (float)(t < o->steps ? t : o->steps - 1) / (float)(o->steps - 1) : 1.0f;
    *tau = o->tau0 + (o->tau1 - o->tau0) * f;
    *kappa = o->kappa0 + (o->kappa1 - o->kappa0) * f;
}

/* Optimiser state of one tile of rows. */
struct tile {
    uint32_t row0, rows;
    struct gpu_view logits, mom, smom, diff, grad; /* scratch */
    struct gpu_view codes, scales, w;              /* slices of the matrix */
};

static bool tile_alloc(struct tile *t, struct gpu_arena *arena, const struct qmatrix *q, struct err *e)
{
    uint64_t n = (uint64_t)t->rows * q->cols * 4;
    uint32_t levels = level_count(q->spec.type);
    return gpu_alloc(arena, n * levels, &t->logits, e) && gpu_alloc(arena, n * levels, &t->mom, e) &&
           gpu_alloc(arena, n, &t->diff, e) && gpu_alloc(arena, n, &t->grad, e) &&
           gpu_alloc(arena, (uint64_t)t->rows * q->groups * 4, &t->smom, e);
}

static void tile_init(struct gpu_cmd *cmd, const struct tile *t, const struct qmatrix *q,
                      const struct gumbel_options *o, uint32_t seed, uint32_t tensor)
{
    float tau, kappa;
    schedule(o, 0, &tau, &kappa);
    q_gumbel_init(cmd, &(struct gumbel_init_args){.logits = t->logits,
                                                  .mom = t->mom,
                                                  .scales = t->scales,
                                                  .smom = t->smom,
                                                  .codes = t->codes,
                                                  .w = t->w,
                                                  .diff = t->diff,
                                                  .rows = t->rows,
                                                  .cols = q->cols,
                                                  .group = q->spec.group,
                                                  .groups = q->groups,
                                                  .ldc = q->ldc,
                                                  .levels = level_count(q->spec.type),
                                                  .relative = relative_levels(q->spec.type),
                                                  .lo = (uint32_t)q->spec.type->lo,
                                                  .hi = (uint32_t)q->spec.type->hi,
                                                  .seed = seed,
                                                  .tensor = tensor,
                                                  .row0 = t->row0,
                                                  .tau = tau,
                                                  .kappa = kappa,
                                                  .init_noise = o->init_noise,
                                                  .init_gap = o->init_gap,
                                                  .origin = 1});
}

static void tile_step(struct gpu_cmd *cmd, const struct tile *t, const struct qmatrix *q,
                      const struct gumbel_options *o, uint32_t seed, uint32_t tensor, uint32_t step)
{
    float tau, kappa, tau1, kappa1;
    schedule(o, step, &tau, &kappa);
    schedule(o, step + 1, &tau1, &kappa1);
    double rate = tune_rate(o, step);
    q_gumbel_step(cmd, &(struct gumbel_step_args){.logits = t->logits,
                                                  .mom = t->mom,
                                                  .scales = t->scales,
                                                  .smom = t->smom,
                                                  .codes = t->codes,
                                                  .w = t->w,
                                                  .grad = t->grad,
                                                  .diff = t->diff,
                                                  .rows = t->rows,
                                                  .cols = q->cols,
                                                  .group = q->spec.group,
                                                  .groups = q->groups,
                                                  .ldc = q->ldc,
                                                  .levels = level_count(q->spec.type),
                                                  .relative = relative_levels(q->spec.type),
                                                  .lo = (uint32_t)q->spec.type->lo,
                                                  .hi = (uint32_t)q->spec.type->hi,
                                                  .seed = seed,
                                                  .tensor = tensor,
                                                  .row0 = t->row0,
                                                  .step = step,
                                                  .tau = tau,
                                                  .kappa = kappa,
                                                  .tau1 = tau1,
                                                  .kappa1 = kappa1,
                                                  .lr_logits = (float)(rate * o->lr_logits),
                                                  .lr_scales = (float)(rate * o->lr_scales),
                                                  .beta1 = o->beta1,
                                                  .beta2 = o->beta2,
                                                  .decay = o->decay,
                                                  .origin = 1});
}

/* Trains one tile; its codes and scales are replaced in place at the end. */
static bool tune_tile(struct gpu_cmd *cmd, const struct tile *t, const struct qmatrix *q, struct gpu_view h,
                      const struct gumbel_options *o, uint64_t seed, uint32_t tensor, uint32_t steps_before,
                      uint32_t steps_total, const struct tune_hooks *hooks, struct err *e)
{
    const uint32_t cols = q->cols;
    uint32_t seed32 = (uint32_t)(seed ^ seed >> 32);
    tile_init(cmd, t, q, o, seed32, tensor);
    for (uint32_t step = 0; step < o->steps && !gpu_cmd_failed(cmd); step++) {
        /* dL/dW~ = 2 (W~ - W) H, and H is symmetric. */
        gpu_gemm(cmd, (struct gpu_matrix){t->diff, cols}, (struct gpu_matrix){h, cols},
                 (struct gpu_matrix){t->grad, cols}, t->rows, cols, cols, 2.0f, 0.0f);
        tile_step(cmd, t, q, o, seed32, tensor, step);
        if (hooks && hooks->step && step % HOOK_STEPS == 0 &&
            !hooks->step(hooks->ctx, steps_before + step, steps_total, NAN)) {
            gpu_cmd_finish(cmd, NULL);
            return err_set(e, ERR_STOPPED, "stopped while tuning");
        }
    }
    q_gumbel_codes(cmd, &(struct gumbel_codes_args){.logits = t->logits,
                                                    .codes = t->codes,
                                                    .codes_out = t->codes,
                                                    .rows = t->rows,
                                                    .cols = cols,
                                                    .ldc = q->ldc,
                                                    .levels = level_count(q->spec.type),
                                                    .relative = relative_levels(q->spec.type),
                                                    .lo = (uint32_t)q->spec.type->lo,
                                                    .hi = (uint32_t)q->spec.type->hi});
    q_round_scales(cmd, &(struct round_scales_args){.scales = t->scales,
                                                    .n = t->rows * q->groups,
                                                    .scale_type = (uint32_t)q->spec.scale});
    return gpu_cmd_finish(cmd, e);
}

bool tune_hessian(struct gpu_cmd *cmd, struct qmatrix *q, struct gpu_view w, struct gpu_view h,
                  struct gpu_arena *arena, uint64_t budget, const struct gumbel_options *o, uint64_t seed,
                  uint32_t tensor, const struct tune_hooks *hooks, struct err *e)
{
    /* Rows of L are independent: as many at a time as the budget takes, in multiples of 64 so that slices
     * stay aligned. */
    uint64_t per_row = (uint64_t)q->cols * tune_bytes_per_weight(q->spec.type) + (uint64_t)q->groups * 4;
    uint64_t fit = budget / per_row / 64 * 64;
    uint32_t step = (uint32_t)min_u64(q->rows, max_u64(fit, 64));
    uint32_t total = (uint32_t)div_up(q->rows, step) * o->steps, done = 0;
    for (uint32_t row = 0; row < q->rows; row += step, done += o->steps) {
        gpu_mark mark = gpu_arena_mark(arena);
        struct tile t = {.row0 = row, .rows = (uint32_t)min_u64(step, q->rows - row)};
        uint64_t row_codes = (uint64_t)q->ldc * 4, row_scales = (uint64_t)q->groups * 4,
                 row_w = (uint64_t)q->cols * 4;
        t.codes = gpu_slice(q->codes, row * row_codes, t.rows * row_codes);
        t.scales = gpu_slice(q->scales, row * row_scales, t.rows * row_scales);
        t.w = gpu_slice(w, row * row_w, t.rows * row_w);
        bool ok =
            tile_alloc(&t, arena, q, e) && tune_tile(cmd, &t, q, h, o, seed, tensor, done, total, hooks, e);
        gpu_arena_reset(arena, mark);
        if (!ok)
            return false;
    }
    return true;
}
