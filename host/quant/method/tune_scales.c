#include "host/quant/method/tune_scales.h"

#include <math.h>
#include <stdlib.h>

#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/model/end_to_end.h"
#include "host/quant/method/learned_scales.h"
#include "host/quant/method/share.h"

/* Windows that judge at a time, at most. */
enum { JUDGED_TOGETHER = 64 };

struct pass {
    const struct scales_task *t;
    struct learned_scales scales;
    struct end_to_end model;
    uint32_t train, judge0, judges;   /* windows that teach: 0 .. train-1; that judge */
    uint32_t batch, per_epoch, steps; /* windows; steps */
    struct gpu_view sums;             /* [per_epoch + 1]: loss of each step; of the judging windows */
    uint32_t *order;                  /* [train] */
    float *losses;                    /* [steps] */
    struct scales_state state;
    uint32_t step;           /* the one in work */
    bool rounded;            /* scales are judged */
    float *const *grads_out; /* tune_scales_gradient: where gradients go instead of into Adam */
};

uint32_t tune_scales_batch(const struct quantize_options *o, uint32_t train)
{
    return (uint32_t)min_u64(o->scales.batch, train);
}

uint32_t tune_scales_steps(const struct quantize_options *o, uint32_t train)
{
    return (uint32_t)div_up(train, tune_scales_batch(o, train));
}

/* ---- the blocks of the model ---- */

static const struct block_weights *load(void *ctx, uint32_t layer, struct err *e)
{
    struct pass *p = ctx;
    const struct stage_report *r = &p->state.report;
    double last = r->n_hard ? (double)r->hard[r->n_hard - 1] : NAN;
    if (!tune_tell(p->t->hooks, p->t->m->cmd, p->step, p->steps, last, e))
        return NULL;
    return learned_scales_block(&p->scales, layer, p->rounded, e);
}

static struct block_grads grads(void *ctx, uint32_t layer)
{
    struct pass *p = ctx;
    return learned_scales_grads(&p->scales, layer);
}

static bool sum_pieces(void *ctx, uint32_t layer, unsigned have, bool first, struct err *e)
{
    struct pass *p = ctx;
    return learned_scales_sum(&p->scales, layer, have, first, e);
}

static bool learn(void *ctx, uint32_t layer, struct err *e)
{
    struct pass *p = ctx;
    const struct scales_options *o = &p->t->o->scales;
    float rate = (float)(o->lr * p->state.rate * cosine_rate(p->step, p->steps, o->lr_end));
    return learned_scales_learn(&p->scales, layer, p->step, rate, p->grads_out, e);
}

/* One batch: its mean loss into sums[at], its gradients into the scales. */
static bool batch_run(struct pass *p, const uint32_t *list, uint32_t n, uint32_t at, struct err *e)
{
    struct end_to_end_loss to = {p->sums, at, 1.0f / ((float)n * (float)p->t->m->ctx)};
    p->scales.parted = p->t->shared && end_to_end_parts(p->t->m, p->t->micro, n);
    return end_to_end_step(&p->model, list, n, &to, e);
}

/* Mean divergence of the judging windows, scales rounded. */
static bool judge(struct pass *p, double *loss, struct err *e)
{
    struct gpu_view at = gpu_slice(p->sums, p->per_epoch * 4ull, 4);
    struct end_to_end_loss to = {p->sums, p->per_epoch, 1.0f / ((float)p->judges * (float)p->t->m->ctx)};
    float sum;
    uint32_t list[JUDGED_TOGETHER], slots = end_to_end_windows(p->t->m, p->batch);
    bool ok = true;
    gpu_fill(p->t->m->cmd, at, 0);
    p->rounded = true;
    for (uint32_t i = 0, n; ok && i < p->judges; i += n) {
        n = (uint32_t)min_u64(min_u64(slots, p->judges - i), JUDGED_TOGETHER);
        for (uint32_t k = 0; k < n; k++)
            list[k] = p->judge0 + i + k;
        ok = end_to_end_forward(&p->model, list, n, &to, e);
    }
    p->rounded = false;
    ok = ok && gpu_download(p->t->m->cmd, at, &sum, sizeof sum, e);
    if (ok)
        *loss = sum;
    return ok;
}

/* ---- training ---- */

/* Steps of one epoch; *mean: its training loss, NAN or infinite after a divergence. */
static bool epoch_run(struct pass *p, uint32_t epoch, double *mean, struct err *e)
{
    float *losses = p->losses + (size_t)epoch * p->per_epoch;
    epoch_shuffle(p->order, p->train, p->t->o->seed, STAGE_SCALES, epoch);
    gpu_fill(p->t->m->cmd, p->sums, 0);
    for (uint32_t i = 0, done = 0; i < p->per_epoch; i++) {
        uint32_t n = (p->train - done) / (p->per_epoch - i);
        p->step = epoch * p->per_epoch + i;
        if (!batch_run(p, p->order + done, n, i, e))
            return false;
        done += n;
    }
    if (!gpu_download(p->t->m->cmd, p->sums, losses, p->per_epoch * sizeof *losses, e))
        return false;
    *mean = 0;
    for (uint32_t i = 0; i < p->per_epoch; i++)
        *mean += losses[i] / p->per_epoch;
    return true;
}

/* The start's scales, and no moments. */
static bool restart(struct pass *p, struct err *e)
{
    return learned_scales_start(&p->scales, !p->state.report.trained.best_epoch, e);
}

/* Back to the start, at half the rate; false where that was done often enough. */
static bool retry(struct pass *p)
{
    struct scales_state *s = &p->state;
    if (s->report.trained.retries >= EPOCH_RETRIES)
        return false;
    s->report.trained.retries++;
    s->rate /= 2;
    s->epochs = 0;
    s->report.n_hard = 1;
    s->report.n_soft = 0;
    log_warn("the pass over scales diverged and starts again at %g of its rate", (double)s->rate);
    return true;
}

static bool save(struct pass *p, uint64_t begin, double before, struct err *e)
{
    p->state.report.trained.seconds = before + (double)(os_now_ns() - begin) * 1e-9;
    p->state.losses = p->losses;
    p->state.n_losses = p->state.epochs * p->per_epoch;
    return p->t->store.save(p->t->store.ctx, &p->state, learned_scales_pull, &p->scales, e);
}

static bool one_epoch(struct pass *p, bool *diverged, struct err *e)
{
    struct stage_report *r = &p->state.report;
    uint32_t epoch = p->state.epochs;
    double mean, hard;
    r->trained.ran++;
    if (!epoch_run(p, epoch, &mean, e) || !judge(p, &hard, e))
        return false;
    if (r->n_hard < CURVE_EPOCHS)
        r->hard[r->n_hard++] = (float)hard;
    r->n_soft = epoch_curve(p->losses, (epoch + 1) * p->per_epoch, r->soft);
    *diverged = !isfinite(mean) || !isfinite(hard) || hard > EPOCH_DIVERGED * r->trained.loss_start;
    if (*diverged)
        return true;
    p->state.epochs++;
    if (!(hard < r->trained.loss_final))
        return true;
    r->trained.loss_final = hard;
    r->trained.best_epoch = epoch + 1;
    return learned_scales_keep_best(&p->scales, e);
}

static bool train(struct pass *p, uint64_t begin, struct err *e)
{
    struct scales_state *s = &p->state;
    struct stage_report *r = &s->report;
    bool resumed = s->epochs > 0;
    double before = resumed ? r->trained.seconds : 0;
    if (!restart(p, e) || (resumed && !learned_scales_take_up(&p->scales, e)))
        return false;
    if (!resumed) {
        if (!judge(p, &r->trained.loss_start, e))
            return false;
        r->trained.loss_final = r->trained.loss_start;
        r->hard[r->n_hard++] = (float)r->trained.loss_start;
    }
    while (s->epochs < r->trained.epochs) {
        bool diverged;
        p->step = s->epochs * p->per_epoch;
        if (!one_epoch(p, &diverged, e))
            return false;
        if (diverged && !retry(p))
            break;
        if (diverged ? !restart(p, e) : s->epochs < r->trained.epochs && !save(p, begin, before, e))
            return false;
    }
    s->done = true;
    return save(p, begin, before, e);
}

/* ---- set-up ---- */

/* All that lies on the device but the blocks' inputs and the block that is loaded. */
static bool pass_alloc(struct pass *p, const struct scales_task *t, struct err *e)
{
    *p = (struct pass){.t = t, .train = t->samples - t->holdout};
    p->per_epoch = tune_scales_steps(t->o, p->train);
    return learned_scales_alloc(&p->scales, t, e) &&
           end_to_end_alloc(&p->model, t->scratch, t->m, t->micro, t->head_stays, e) &&
           gpu_alloc(t->scratch, (p->per_epoch + 1) * 4ull, &p->sums, e);
}

static bool pass_create(struct pass *p, const struct scales_task *t, struct err *e)
{
    if (!pass_alloc(p, t, e))
        return false;
    p->judge0 = t->holdout ? p->train : 0;
    p->judges = t->holdout ? t->holdout : p->train;
    p->batch = tune_scales_batch(t->o, p->train);
    p->steps = p->per_epoch * t->o->scales.epochs;
    p->state.rate = 1;
    p->state.report = (struct stage_report){
        .stage = STAGE_SCALES,
        .trained = {.loss_start = NAN, .loss_final = NAN, .steps = p->steps, .epochs = t->o->scales.epochs}};
    p->order = malloc(p->train * sizeof *p->order);
    p->losses = malloc((p->steps + 1ull) * sizeof *p->losses);
    if (!p->order || !p->losses)
        return err_nomem(e, "the order of windows", ((uint64_t)p->train + p->steps) * 4);
    p->model.blocks =
        (struct end_to_end_blocks){.ctx = p, .load = load, .grads = grads, .sum = sum_pieces, .learn = learn};
    p->model.shared = t->shared;
    p->model.windows = t->windows;
    p->model.targets = t->targets;
    return learned_scales_create(&p->scales, e) && end_to_end_create(&p->model, p->batch, &t->room, e);
}

/* True with ok, unless the device failed late. */
static bool pass_destroy(struct pass *p, bool ok, struct err *e)
{
    /* Nothing of the arenas may be in use when they are given back. */
    ok = gpu_cmd_finish(p->t->m->cmd, ok ? e : NULL) && ok;
    end_to_end_free(&p->model);
    gpu_arena_reset(p->t->block, 0);
    gpu_arena_reset(p->t->scratch, 0);
    learned_scales_free(&p->scales);
    free(p->losses);
    free(p->order);
    return ok;
}

bool tune_scales_count(const struct scales_task *t, struct err *e)
{
    struct pass p;
    bool ok = pass_alloc(&p, t, e);
    gpu_arena_reset(t->scratch, 0);
    learned_scales_free(&p.scales);
    return ok;
}

/* ---- what ranks exchange ---- */

static void expect_judging(struct comm_expected *x, const struct scales_task *t, uint64_t times)
{
    const uint32_t train = t->samples - t->holdout, judges = t->holdout ? t->holdout : train,
                   slots = end_to_end_windows(t->m, tune_scales_batch(t->o, train));
    for (uint32_t i = 0, n; i < judges; i += n) {
        n = (uint32_t)min_u64(min_u64(slots, judges - i), JUDGED_TOGETHER);
        end_to_end_expect(x, t->m, t->micro, n, times);
    }
}

/* Of a step: gradients of all linears to those that have their rows, and of their scales to all. */
static void expect_step(struct comm_expected *x, const struct scales_task *t, uint32_t n, uint64_t times)
{
    unsigned last;
    const uint32_t rounds = end_to_end_rounds(t->micro, n, x->ranks, &last);
    end_to_end_expect(x, t->m, t->micro, n, times);
    for (size_t i = 0; end_to_end_parts(t->m, t->micro, n) && i < t->n_items; i++) {
        const struct matrix *item = &t->items[i];
        if (!item->coded)
            continue;
        share_sum_expect(x, COMM_GRADIENTS, item->rows, item->cols, x->ranks, times * (rounds - 1));
        share_sum_expect(x, COMM_GRADIENTS, item->rows, item->cols, last, times);
        comm_expect_gather(x, COMM_GRADIENTS, item->rows, SHARE_ROWS,
                           quant_row_scales(&item->spec, item->cols) * sizeof(float), times);
    }
}

void tune_scales_expect(struct comm_expected *x, const struct scales_task *t, const struct training_report *went)
{
    const uint32_t train = t->samples - t->holdout, steps = tune_scales_steps(t->o, train),
                   epochs = went ? went->ran : t->o->scales.epochs;
    for (uint32_t i = 0, done = 0, n; x->ranks > 1 && i < steps; i++, done += n) {
        n = (train - done) / (steps - i);
        expect_step(x, t, n, epochs);
    }
    expect_judging(x, t, 1 + (uint64_t)epochs);
}

/* ---- the whole ---- */

bool tune_scales(const struct scales_task *t, struct stage_report *r, struct err *e)
{
    uint64_t begin = os_now_ns();
    struct pass p;
    bool ok = pass_create(&p, t, e);
    if (ok) {
        struct scales_state was = {.losses = p.losses, .n_losses = p.steps};
        if (t->store.state(t->store.ctx, &was) && !was.done && was.report.trained.steps == p.steps) {
            p.state = was;
            log_info("the pass over scales continues after epoch %u", was.epochs);
        }
        ok = train(&p, begin, e);
    }
    *r = p.state.report;
    return pass_destroy(&p, ok, e);
}

bool tune_scales_gradient(const struct scales_task *t, const uint32_t *list, uint32_t n, double *loss,
                          float *const *grads_out, struct err *e)
{
    struct pass p;
    float sum = 0;
    bool ok = pass_create(&p, t, e) && restart(&p, e);
    if (ok) {
        p.grads_out = grads_out;
        gpu_fill(t->m->cmd, p.sums, 0);
        ok = batch_run(&p, list, n, 0, e) && gpu_download(t->m->cmd, gpu_slice(p.sums, 0, 4), &sum, 4, e);
    }
    *loss = sum;
    return pass_destroy(&p, ok, e);
}
