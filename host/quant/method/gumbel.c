#include "host/quant/method/gumbel.h"

#include <math.h>

#include "host/base/num.h"
#include "host/gpu/tiled.h"
#include "host/quant/method/epochs.h"

/* From 3 bits on a weight chooses among the start code and two codes on either side (docs/method.md 2). */
static bool relative_levels(const struct quant_type *t)
{
    return quant_type_levels(t) > GUMBEL_LEVELS;
}

static uint32_t level_count(const struct quant_type *t)
{
    return relative_levels(t) ? GUMBEL_LEVELS : quant_type_levels(t);
}

double gumbel_rate(const struct gumbel_options *o, uint32_t t)
{
    return o->reach * GUMBEL_PAPER_STEPS / o->steps * cosine_rate(t, o->steps, o->lr_end);
}

double gumbel_reach(const struct gumbel_options *o)
{
    /* The cosine's mean is that of its ends. */
    double mean = o->steps > 1 ? 0.5 * (1 + (double)o->lr_end) : 1;
    return mean * o->reach * GUMBEL_PAPER_STEPS * o->lr_logits;
}

/* What a logit's integer counts: the least in which every logit of a run stays within its bits. Logits are counted from the start
 * code's, so two move; the start's noise is two normal numbers, of which none is above 6. */
static float logit_unit(const struct gumbel_state *s)
{
    const struct gumbel_options *o = s->o;
    uint32_t levels = level_count(s->q.spec.type);
    uint32_t farthest = relative_levels(s->q.spec.type) ? GUMBEL_LEVELS / 2 : levels - 1;
    double most = o->init_noise * (12 + 0.5 * farthest * farthest * o->init_gap) + 2 * gumbel_reach(o);
    return (float)(most / ((1 << (GUMBEL_LOGIT_BITS(levels) - 1)) - 1));
}

/* Temperature and logit factor of step t, linear in t. Past the last step they stay. */
static void schedule(const struct gumbel_options *o, uint32_t t, float *tau, float *kappa)
{
    float f = o->steps > 1 ? (float)(t < o->steps ? t : o->steps - 1) / (float)(o->steps - 1) : 1.0f;
    *tau = o->tau0 + (o->tau1 - o->tau0) * f;
    *kappa = o->kappa0 + (o->kappa1 - o->kappa0) * f;
}

/* Bytes of a row's logits and momenta. */
static uint64_t state_bytes(const struct qmatrix *q)
{
    return q->cols * GUMBEL_WORDS(level_count(q->spec.type)) * 4ull;
}

uint32_t gumbel_rows(const struct gpu *g, const struct qmatrix *q)
{
    uint64_t most = (gpu_info(g)->max_alloc - GPU_ALLOC_ALIGN) / state_bytes(q);
    return most >= q->rows ? q->rows : (uint32_t)max_u64(64, most / 64 * 64);
}

bool gumbel_create(struct gumbel_state *s, struct gpu_arena *arena, const struct qmatrix *q, uint32_t row0,
                   uint32_t rows, struct err *e)
{
    *s = (struct gumbel_state){.q = qmatrix_rows(q, row0, rows), .row0 = row0, .rate = 1};
    return gpu_alloc(arena, rows * state_bytes(q), &s->state, e) && gpu_alloc(arena, s->q.scales.size, &s->smom, e);
}

/* Arguments that both kernels of the optimiser take. */
#define GUMBEL_STATE(s)                                                                                                \
    QMATRIX_GROUPS(&(s)->q), .state = (s)->state, .scales = (s)->q.scales, .smom = (s)->smom, .codes = (s)->q.codes,   \
                             .w = (s)->w, .diff = (s)->soft, .ldc = (s)->q.ldc,                                        \
                             .levels = level_count((s)->q.spec.type), .relative = relative_levels((s)->q.spec.type),   \
                             .seed = (s)->seed, .tensor = (s)->tensor, .row0 = (s)->row0, .origin = (s)->origin,       \
                             .offsets = quant_offsets(&(s)->q.spec)

void gumbel_start(struct gpu_cmd *cmd, const struct gumbel_state *s)
{
    float tau, kappa, unit = logit_unit(s);
    uint32_t table[TABLE_LEVELS / 4];
    schedule(s->o, 0, &tau, &kappa);
    tiled_gumbel_init_levels(cmd,
                             &(struct gumbel_init_args){GUMBEL_STATE(s), .tau = tau, .kappa = kappa * unit,
                                                        .init_noise = s->o->init_noise / unit,
                                                        .init_gap = s->o->init_gap},
                             quant_table(s->q.spec.type, table));
}

/* Rate of offsets, as a share of the scales'. */
#define OFFSET_RATE 1.5
/* Rates are those of four levels. With more a scale moves the outer ones further, and they lie closer: GGUF's
 * types learn at a rate that is as much less. */
static double scale_rate(const struct quant_type *t)
{
    if (t->scale == SCALE_E8M0)
        return 0; /* between powers of two there is nothing */
    return t->group && t->hi - t->lo > 3 ? 3.0 / (t->hi - t->lo) : 1.0;
}

/* The step at which scales become what will be stored and stay so; types without super-blocks, whose scales are floats of 16 bits,
 * lose little when they are rounded in the end. */
static uint32_t frozen_from(const struct gumbel_state *s)
{
    return (s->q.spec.type->super || s->q.spec.type->scale) && s->o->lr_scales > 0
               ? (uint32_t)ceil((double)s->o->freeze * s->o->steps)
               : UINT32_MAX;
}

void gumbel_step(struct gpu_cmd *cmd, const struct gumbel_state *s, uint32_t step)
{
    float tau, kappa, tau1, kappa1, unit = logit_unit(s);
    uint32_t table[TABLE_LEVELS / 4];
    schedule(s->o, step, &tau, &kappa);
    schedule(s->o, step + 1, &tau1, &kappa1);
    double rate = gumbel_rate(s->o, step) * s->rate, lr_scales = rate * s->o->lr_scales * scale_rate(s->q.spec.type);
    uint32_t frozen = frozen_from(s);
    if (step >= frozen)
        lr_scales = 0;
    /* The soft weights of this step are still those of the scales before: one gradient in hundreds. */
    if (step == frozen)
        qmatrix_round_scales(cmd, &s->q);
    tiled_gumbel_step_levels(
        cmd,
        &(struct gumbel_step_args){GUMBEL_STATE(s), .grad = s->grad, .step = step, .tau = tau, .kappa = kappa * unit,
                                   .tau1 = tau1, .kappa1 = kappa1 * unit,
                                   .lr_logits = (float)(rate * s->o->lr_logits / unit), .lr_scales = (float)lr_scales,
                                   .lr_offsets = (float)(lr_scales * OFFSET_RATE), .beta1 = s->o->beta1,
                                   .beta2 = s->o->beta2, .decay = s->o->decay * unit},
        quant_table(s->q.spec.type, table));
}

void gumbel_codes(struct gpu_cmd *cmd, const struct gumbel_state *s, struct gpu_view codes)
{
    uint32_t table[TABLE_LEVELS / 4];
    tiled_gumbel_codes_levels(cmd,
                              &(struct gumbel_codes_args){.state = s->state,
                                                          .codes = s->q.codes,
                                                          .codes_out = codes,
                                                          .rows = s->q.rows,
                                                          .cols = s->q.cols,
                                                          .ldc = s->q.ldc,
                                                          .levels = level_count(s->q.spec.type),
                                                          .relative = relative_levels(s->q.spec.type),
                                                          .lo = (uint32_t)s->q.spec.type->lo,
                                                          .hi = (uint32_t)s->q.spec.type->hi},
                              quant_table(s->q.spec.type, table));
}
