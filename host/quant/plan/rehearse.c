#include "host/quant/plan/rehearse.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/model/batch.h"
#include "host/model/experts.h"
#include "host/quant/method/output_hessian.h"
#include "host/quant/method/quant_linear.h"
#include "host/quant/method/sensitivity.h"
#include "host/quant/method/tune_block.h"
#include "host/quant/method/tune_expert.h"
#include "host/model/end_to_end.h"
#include "host/quant/method/tune_scales.h"
#include "host/quant/plan/allot.h"

/* The names of struct job. */
struct stand_in {
    struct rehearsal *out;
    const struct plan *plan;
    struct quantize_options o;
    struct model m;
    struct gpu_count count;
    struct gpu_arena *block, *hess, *scratch, *student, *teacher, *kept, *rows;
    struct experts experts;        /* in rows, from the first layer on that has them */
    struct experts taught;         /* beside them */
    struct gpu_arena *training[2]; /* inputs and targets of an expert in training, from the first that is on */
    bool trained;
    uint32_t layer; /* the one that is loaded */
    struct block_weights w;
    uint64_t base; /* bytes that models hold */
};

/* Steps of an optimiser take the memory of the first. */
#define STEPS 1u

static bool begin(struct stand_in *s, struct rehearsal *out, const struct plan *p, const struct model *m,
                  const struct quantize_options *o, uint64_t limit, struct err *e)
{
    *out = (struct rehearsal){0};
    *s = (struct stand_in){.out = out, .plan = p, .o = *o, .m = *m, .base = gpu_memory_used(m->gpu)};
    s->count = (struct gpu_count){.used = s->base, .peak = s->base, .limit = limit};
    s->o.gumbel.steps = STEPS;
    gpu_cmd_count(m->cmd, GPU_COUNT_MEMORY);
    struct gpu_arena **arenas[] = {&s->block, &s->hess, &s->scratch,     &s->student,    &s->teacher,
                                   &s->kept,  &s->rows, &s->training[0], &s->training[1]};
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof arenas / sizeof *arenas; i++)
        ok = gpu_arena_create_counting(arenas[i], m->gpu, &s->count, e);
    return ok;
}

static bool end(struct stand_in *s, bool ok)
{
    struct gpu_arena **arenas[] = {&s->block, &s->hess, &s->scratch,     &s->student,    &s->teacher,
                                   &s->kept,  &s->rows, &s->training[0], &s->training[1]};
    experts_free(&s->taught);
    experts_free(&s->experts);
    for (size_t i = 0; i < sizeof arenas / sizeof *arenas; i++)
        gpu_arena_destroy(arenas[i]);
    block_weights_free(&s->w);
    gpu_cmd_count(s->m.cmd, GPU_COUNT_NOTHING);
    gpu_cmd_profile_clear(s->m.cmd);
    return ok;
}

static bool reads_windows(const struct stand_in *s)
{
    return s->o.method != METHOD_RTN && !quantize_diagonal(&s->o);
}

static void add_line(struct rehearsal *r, const char *name, uint64_t bytes)
{
    if (bytes)
        r->lines[r->n_lines++] = (struct memory_line){name, bytes};
}

/* If the peak was in what was just done: what it was made of. Only the scratch came and went meanwhile. */
static void saw(struct stand_in *s, const char *what)
{
    struct rehearsal *r = s->out;
    uint64_t acts = gpu_arena_bytes(s->student) + gpu_arena_bytes(s->teacher) + gpu_arena_bytes(s->kept);
    uint64_t rows = gpu_arena_bytes(s->rows) + gpu_arena_bytes(s->training[0]) + gpu_arena_bytes(s->training[1]);
    uint64_t hess = gpu_arena_bytes(s->hess), block = reads_windows(s) ? gpu_arena_bytes(s->block) : 0;
    if (s->count.peak <= r->peak)
        return;
    r->peak = s->count.peak;
    r->n_lines = 0;
    add_line(r, "block weights (f32)", block);
    add_line(r, reads_windows(s) ? "Hessians" : "a Hessian", hess);
    add_line(r, what, r->peak - block - hess - acts - rows - s->base);
    add_line(r, "an expert, what experts read and give", rows);
    add_line(r, "activations of all windows", acts);
    add_line(r, "norms and tables", s->base);
}

/* ---- what a run does ---- */

/* Hidden states of all windows. */
static bool embed(struct stand_in *s, struct err *e)
{
    struct gpu_view staging;
    const struct plan *p = s->plan;
    bool ok =
        gpu_alloc(s->scratch, acts_bytes(&s->m, p->batch_windows), &staging, e) &&
        (p->student_acts != ACTS_DEVICE || acts_count(&s->m, p->samples, s->student, e)) &&
        (!plan_targets(p, &s->o) || p->teacher_acts != ACTS_DEVICE || acts_count(&s->m, p->samples, s->teacher, e));
    gpu_arena_reset(s->scratch, 0);
    saw(s, "a batch of windows");
    return ok;
}

static bool batch(struct stand_in *s, bool drift, struct err *e)
{
    struct batch b;
    bool ok = batch_create(&b, s->scratch, &s->m, s->plan->batch_windows, drift, e);
    gpu_arena_reset(s->scratch, 0);
    saw(s, "a batch of windows");
    return ok;
}

static bool linear(struct stand_in *s, const struct matrix *item, struct gpu_view w, const struct hessian *h,
                   const struct drift *drift, struct err *e)
{
    struct qlinear q = {0};
    struct linear_report report;
    struct linear_task t = {.cmd = s->m.cmd,
                            .options = &s->o,
                            .item = item,
                            .w = w,
                            .hessian = h,
                            .drift = drift,
                            .scratch = s->scratch,
                            .tune_bytes = s->plan->tune_bytes};
    gpu_mark mark = gpu_arena_mark(s->scratch);
    uint64_t outputs = s->plan->output_windows ? output_hessian_bytes(&s->o, item) : 0;
    bool ok = (!outputs || gpu_alloc_rows(s->scratch, item->rows, outputs / item->rows, HESSIAN_TILE, &t.outputs, e)) &&
              quantize_linear(&t, &q, &report, e);
    gpu_arena_reset(s->scratch, mark);
    qlinear_free(&q);
    saw(s, !h ? "one linear and its codes" : plan_alone(&s->o, item) ? "optimiser state" : "GPTQ's factor and errors");
    return ok;
}

/* What a half's linears learn from. */
static bool sums(struct stand_in *s, enum block_half half, struct block_items b, struct hessian h[INPUT_COUNT],
                 struct drift drift[INPUT_COUNT], struct err *e)
{
    return hessian_create_half(h, s->m.cmd, s->hess, model_block(&s->m, s->layer), half, s->plan->holdout > 0, e) &&
           (!plan_corrects(s->plan, &s->o, half, b) || drift_create_half(drift, &s->m, s->hess, &s->w, half, e));
}

/* One expert on its own output. near: also its inputs and targets, which last. */
static bool train_expert(struct stand_in *s, struct block_items expert, bool near, struct err *e)
{
    struct tune_expert_task t = {.o = &s->o,
                                 .items = expert,
                                 .samples = s->plan->samples,
                                 .holdout = s->plan->holdout,
                                 .micro = (uint32_t)max_u64(1, s->plan->micro_windows),
                                 .arena = s->scratch};
    bool ok = tune_expert_count(&t, &s->experts, near ? s->training : NULL, e);
    saw(s, "an expert in training");
    gpu_arena_trim(s->scratch);
    return ok;
}

/* The experts of a layer are alike: their room, and the first one's work: on each of its matrices, on all together. */
static bool experts(struct stand_in *s, struct block_items b, bool work, bool together, struct err *e)
{
    const struct model_config *c = s->m.cfg;
    const uint32_t n = c->experts.n * EXPERT_MATRICES, windows = (uint32_t)max_u64(1, s->plan->batch_windows);
    struct hessian layer, in, middle;
    struct expert_drift drift;
    struct gpu_view factor, diag;
    bool gathers = false, ok = true;
    for (uint32_t i = b.n - n; config_has_experts(c, s->layer) && i < b.n; i++)
        gathers = gathers || plan_needs_hessian(&s->o, &b.items[i]);
    const bool corrects = gathers && plan_chained(s->plan);
    if (!config_has_experts(c, s->layer))
        return true;
    if (!s->experts.m &&
        (!experts_create(&s->experts, s->rows, &s->m, s->plan->samples, windows, s->plan->experts_near, e) ||
         (plan_chained(s->plan) && !experts_create_beside(&s->taught, &s->experts, s->rows, e))))
        return false;
    ok = !gathers ||
         (hessian_create_experts(&layer, &in, &middle, &factor, &diag, s->m.cmd, s->hess, c, s->plan->holdout > 0, e) &&
          (!corrects || (drift_create_expert(&drift, s->hess, c, e) && batch(s, true, e))));
    for (uint32_t i = 0; ok && work && i < EXPERT_MATRICES; i++) {
        const struct matrix *item = &b.items[b.n - n + i];
        const bool last = i + 1 == EXPERT_MATRICES;
        if (item->coded)
            ok = linear(s, item, s->experts.w[i], plan_needs_hessian(&s->o, item) ? last ? &middle : &in : NULL,
                        corrects ? last ? &drift.out : &drift.in : NULL, e);
    }
    if (ok && together && plan_trains(&s->o, HALF_EXPERTS, b))
        ok = train_expert(s, plan_expert(b, 0), !s->trained && s->plan->experts_near, e);
    s->trained = s->trained || together;
    gpu_arena_reset(s->hess, 0);
    gpu_arena_trim(s->hess);
    gpu_arena_trim(s->scratch);
    return ok;
}

/* Hessians, then the linears of a half. */
static bool linears(struct stand_in *s, enum block_half half, struct block_items b, struct err *e)
{
    struct hessian h[INPUT_COUNT];
    struct drift drift[INPUT_COUNT];
    const bool corrects = plan_corrects(s->plan, &s->o, half, b);
    bool ok = !plan_gathers(&s->o, half, b) || (sums(s, half, b, h, drift, e) && batch(s, corrects, e));
    for (uint32_t i = 0; ok && i < b.n; i++)
        if (b.items[i].part->half == half && b.items[i].coded)
            ok = linear(s, &b.items[i], s->w.w[i],
                        plan_needs_hessian(&s->o, &b.items[i]) ? &h[b.items[i].part->input] : NULL,
                        corrects ? &drift[b.items[i].part->input] : NULL, e);
    gpu_arena_reset(s->hess, 0);
    gpu_arena_trim(s->hess);
    gpu_arena_trim(s->scratch);
    return ok;
}

static bool train(struct stand_in *s, enum block_half half, struct block_items b, struct err *e)
{
    struct tune_block_task t = {.m = &s->m,
                                .o = &s->o,
                                .half = half,
                                .block = plan_common(b),
                                .w = &s->w,
                                .samples = s->plan->samples,
                                .holdout = s->plan->holdout,
                                .micro = s->plan->micro_windows,
                                .shared = s->plan->as_if_ranks > 1,
                                .as_if_ranks = s->plan->as_if_ranks,
                                .arena = s->scratch};
    const struct matrix *last = plan_metric(s->plan, &s->m, &s->o, half, b);
    const gpu_mark mark = gpu_arena_mark(s->scratch);
    bool ok =
        (!last || output_hessian_create(&t.metric, s->m.cmd, s->scratch, last->rows, e)) && tune_block_count(&t, e);
    gpu_arena_reset(s->scratch, mark);
    saw(s, "half a block in training");
    gpu_arena_trim(s->scratch);
    return ok;
}

static bool load_block(struct stand_in *s, uint32_t layer, struct err *e)
{
    gpu_arena_reset(s->block, 0);
    s->layer = layer;
    return model_load_block(&s->m, layer, s->block, &s->w, e);
}

static bool block_calibrated(struct stand_in *s, uint32_t layer, struct block_items b, struct err *e)
{
    bool teacher = plan_targets(s->plan, &s->o);
    bool ok = load_block(s, layer, e);
    for (int i = 0; ok && i < HALF_COUNT; i++) {
        enum block_half half = (enum block_half)i;
        if (!block_has_half(s->w.shape, half))
            continue;
        ok = (!teacher || batch(s, false, e)) && linears(s, half, b, e) &&
             (!plan_trains(&s->o, half, plan_common(b)) || train(s, half, b, e)) && batch(s, false, e);
    }
    return ok && experts(s, b, true, true, e) && batch(s, false, e);
}

/* RTN, or an importance matrix alone: one linear at a time, and the work on it. Of experts the first stands for all. */
static bool block_alone(struct stand_in *s, struct block_items b, bool work, struct err *e)
{
    bool ok = true;
    for (uint32_t i = 0; ok && i < b.n; i++) {
        const struct matrix *item = &b.items[i];
        struct gpu_view w, diag;
        struct hessian h;
        bool diagonal = quantize_diagonal(&s->o) && s->o.method != METHOD_RTN && plan_has_importance(item);
        if (!item->coded || item->expert)
            continue;
        ok = gpu_alloc(s->block, (uint64_t)item->rows * item->cols * 4, &w, e) &&
             (!diagonal || hessian_create_diagonal(&h, &diag, s->m.cmd, s->hess, item->cols, e)) &&
             (!work || linear(s, item, w, diagonal ? &h : NULL, NULL, e));
        gpu_arena_reset(s->block, 0);
        gpu_arena_reset(s->hess, 0);
    }
    return ok;
}

/* Memory does not tell these layers apart. */
static bool same_layer(struct block_items x, struct block_items y)
{
    bool same = x.n == y.n;
    for (uint32_t i = 0; same && i < x.n; i++) {
        const struct matrix *a = &x.items[i], *b = &y.items[i];
        same = a->part == b->part && a->rows == b->rows && a->cols == b->cols && a->coded == b->coded &&
               (!a->coded || (a->spec.type == b->spec.type && a->spec.group == b->spec.group));
    }
    return same;
}

/* The next layer from `layer` on that is unlike all before; false: there is none. */
static bool next_layer(const struct plan *p, uint32_t *layer, struct block_items *out)
{
    for (; *layer < p->n_layers; ++*layer) {
        bool known = false;
        *out = plan_block(p, *layer);
        for (uint32_t i = 0; i < *layer && !known; i++)
            known = same_layer(plan_block(p, i), *out);
        if (!known)
            return true;
    }
    return false;
}

static bool blocks(struct stand_in *s, struct err *e)
{
    struct block_items b;
    bool ok = true;
    for (uint32_t layer = 0; ok && next_layer(s->plan, &layer, &b); layer++)
        ok = reads_windows(s) ? block_calibrated(s, layer, b, e) : block_alone(s, b, true, e);
    return ok;
}

static bool head_importance(struct stand_in *s, struct err *e)
{
    struct norm_batch b;
    bool ok = norm_batch_create(&b, s->scratch, &s->m, s->plan->batch_windows, e);
    gpu_arena_reset(s->scratch, 0);
    saw(s, "a batch of windows");
    return ok;
}

static bool scales(struct stand_in *s, struct err *e)
{
    struct scales_task t = {.m = &s->m,
                            .o = &s->o,
                            .items = s->plan->items,
                            .n_items = s->plan->n_items,
                            .samples = s->plan->samples,
                            .holdout = s->plan->holdout,
                            .micro = s->plan->scale_micro,
                            .block = s->block,
                            .scratch = s->scratch,
                            .codes_stay = s->plan->codes_stay,
                            .head_stays = s->plan->head_stays};
    uint32_t windows = end_to_end_windows(&s->m, tune_scales_batch(&s->o, s->plan->samples - s->plan->holdout));
    gpu_arena_reset(s->student, 0);
    gpu_arena_trim(s->student);
    gpu_arena_trim(s->scratch);
    bool ok = s->plan->kept_acts != ACTS_DEVICE || acts_count(&s->m, windows, s->kept, e);
    /* Each block in turn, while the rest is there: what one leaves behind is the arena's. */
    for (uint32_t layer = 0; ok && layer < s->plan->n_layers; layer++)
        if (model_shape_is_new(&s->m.shape, layer))
            ok = load_block(s, layer, e);
    ok = ok && tune_scales_count(&t, e);
    saw(s, "the pass over scales");
    return ok;
}

/* The first pass of a run. What it keeps of the blocks' inputs takes the student's place. */
static bool outputs(struct stand_in *s, struct err *e)
{
    const struct plan *p = s->plan;
    struct output_task t = {.m = &s->m,
                            .o = &s->o,
                            .items = p->items,
                            .n_items = p->n_items,
                            .n = p->output_windows,
                            .micro = (uint32_t)max_u64(1, p->output_micro),
                            .head_stays = p->output_head_stays,
                            .block = s->block,
                            .hess = s->hess,
                            .scratch = s->scratch};
    bool ok =
        p->output_acts != ACTS_DEVICE || acts_count(&s->m, end_to_end_windows(&s->m, p->output_windows), s->student, e);
    struct block_items b;
    for (uint32_t layer = 0; ok && next_layer(p, &layer, &b); layer++)
        ok = load_block(s, layer, e) && output_hessians_count(&t, layer, e);
    saw(s, "the pass that finds Hessians of outputs");
    gpu_arena_reset(s->student, 0);
    gpu_arena_trim(s->student);
    gpu_arena_trim(s->hess);
    gpu_arena_trim(s->scratch);
    gpu_arena_reset(s->block, 0);
    gpu_arena_trim(s->block);
    return ok;
}

/* The pass before all others, by which types are chosen. */
static bool measure(struct stand_in *s, struct err *e)
{
    const struct plan *p = s->plan;
    const struct allotment *a = s->o.allotment;
    struct sensitivity_task t = {.m = &s->m,
                                 .o = &s->o,
                                 .matrices = a->matrices,
                                 .n = a->n,
                                 .specs = a->specs,
                                 .n_specs = a->n_types,
                                 .tries = a->tries,
                                 .n_used = p->measure_windows,
                                 .micro = (uint32_t)max_u64(1, p->measure_micro),
                                 .head_stays = p->measure_head_stays,
                                 .block = s->block,
                                 .hess = s->hess,
                                 .scratch = s->scratch};
    bool ok = (p->measure_acts != ACTS_DEVICE ||
               acts_count(&s->m, end_to_end_windows(&s->m, p->measure_windows), s->student, e)) &&
              sensitivity_count(&t, e);
    saw(s, "the pass that measures what types cost");
    gpu_arena_reset(s->student, 0);
    gpu_arena_trim(s->student);
    gpu_arena_trim(s->block);
    gpu_arena_trim(s->hess);
    gpu_arena_trim(s->scratch);
    return ok;
}

/* ---- the whole, and its parts ---- */

bool rehearse(struct rehearsal *r, const struct plan *p, const struct model *m, const struct quantize_options *o,
              uint64_t limit, struct err *e)
{
    struct stand_in s;
    bool ok = begin(&s, r, p, m, o, limit, e);
    bool windows = reads_windows(&s);
    ok = ok && (!p->measure_windows || measure(&s, e)) && (!p->output_windows || outputs(&s, e)) &&
         (!windows || embed(&s, e)) && blocks(&s, e) &&
         (!windows || o->format != EXPORT_GGUF || o->refine || head_importance(&s, e)) &&
         (!plan_scales(o) || scales(&s, e));
    return end(&s, ok);
}

/* A half's share of a part, in a block that is loaded. */
static bool half_part(struct stand_in *s, enum run_part part, enum block_half half, struct block_items b, struct err *e)
{
    struct hessian h[INPUT_COUNT];
    struct drift drift[INPUT_COUNT];
    if (part == PART_HALF)
        return train(s, half, b, e);
    if (part == PART_LINEAR)
        return linears(s, half, b, e);
    bool ok = (!plan_gathers(&s->o, half, b) || sums(s, half, b, h, drift, e)) &&
              (part == PART_FIXED || batch(s, plan_corrects(s->plan, &s->o, half, b), e));
    gpu_arena_reset(s->hess, 0);
    gpu_arena_trim(s->hess);
    return ok;
}

static bool part_of_layer(struct stand_in *s, enum run_part part, uint32_t layer, struct block_items b, struct err *e)
{
    if (!reads_windows(s))
        return part > PART_LINEAR || block_alone(s, b, part == PART_LINEAR, e);
    bool ok = load_block(s, layer, e);
    for (int i = 0; ok && i < HALF_COUNT; i++)
        ok = !block_has_half(s->w.shape, (enum block_half)i) || half_part(s, part, (enum block_half)i, b, e);
    return ok && (part > PART_HALF || experts(s, b, part == PART_LINEAR, part == PART_HALF, e));
}

bool rehearse_part(struct rehearsal *r, const struct plan *p, const struct model *m, const struct quantize_options *o,
                   enum run_part part, uint64_t limit, struct err *e)
{
    struct stand_in s;
    struct block_items b;
    bool ok = begin(&s, r, p, m, o, limit, e);
    bool has = part == PART_SCALES    ? plan_scales(o)
               : part == PART_OUTPUT  ? p->output_windows > 0
               : part == PART_MEASURE ? p->measure_windows > 0
               : part == PART_HALF    ? plan_block_objective(o)
                                      : true;
    if (has && part == PART_SCALES)
        ok = ok && (p->teacher_acts != ACTS_DEVICE || acts_count(&s.m, p->samples, s.teacher, e)) && scales(&s, e);
    else if (has && part == PART_OUTPUT)
        ok = ok && outputs(&s, e);
    else if (has && part == PART_MEASURE)
        ok = ok && measure(&s, e);
    else
        for (uint32_t layer = 0; has && ok && next_layer(p, &layer, &b); layer++)
            ok = part_of_layer(&s, part, layer, b, e);
    r->peak = s.count.peak;
    return end(&s, ok);
}
