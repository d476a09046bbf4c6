#include "host/quant/method/tune_scales.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/gpu/tiled.h"
#include "host/quant/method/epochs.h"
#include "host/quant/method/scales_pass.h"

/* Added to the root of Adam's second moment: below any gradient that means something. */
#define EPS 1e-15f
#define PI  3.14159265358979323846

/* ---- a block ---- */

static bool tell(const struct pass *p, struct err *e)
{
    const struct tune_hooks *hooks = p->t->hooks;
    const struct stage_report *r = &p->state.report;
    double loss = r->n_hard ? (double)r->hard[r->n_hard - 1] : NAN;
    if (!hooks || !hooks->step || hooks->step(hooks->ctx, p->step, p->steps, loss))
        return true;
    gpu_cmd_finish(p->m->cmd, NULL);
    return err_set(e, ERR_STOPPED, "stopped while tuning");
}

/* Block `layer` into p->w, with its scales as they are, or rounded. What was loaded before is gone. */
static bool load(struct pass *p, uint32_t layer, bool rounded, struct err *e)
{
    struct gpu_cmd *cmd = p->m->cmd;
    const struct block_items b = plan_block(p->t->plan, layer);
    if (!tell(p, e))
        return false;
    if (p->loaded == layer && !rounded)
        return true;
    p->loaded = NONE;
    if (!gpu_cmd_finish(cmd, e)) /* it takes the same memory */
        return false;
    gpu_arena_reset(p->t->block, 0);
    if (!model_load_block_frame(p->m, layer, p->t->block, &p->w, e))
        return false;
    for (uint32_t i = 0; i < b.n; i++) {
        const struct entry *x = &p->entries[b.items[i].number];
        struct place *at = &p->places[i];
        struct qmatrix q = x->q;
        if (!x->n) {
            if (!model_load_matrix(p->m, b.items[i].module, 0, b.items[i].rows, p->w.w[i], e))
                return false;
            continue;
        }
        if (!q.codes.size) {
            q.codes = at->room;
            if (!pass_upload_codes(p, b.items[i].number, q.codes, e))
                return false;
        }
        at->codes = q.codes;
        q.scales = pass_scales(p, x, rounded);
        qmatrix_dequant(cmd, &q, p->w.w[i]);
    }
    p->loaded = rounded ? NONE : layer;
    return true;
}

/* Rate of step t (0-based), relative to the size of a scale. */
static float rate(const struct pass *p, uint32_t t)
{
    const struct scales_options *o = &p->t->o->scales;
    double f = p->steps > 1 ? (double)t / (p->steps - 1) : 0;
    return (float)(o->lr * p->state.rate * (o->lr_end + (1 - o->lr_end) * 0.5 * (1 + cos(PI * f))));
}

/* From the gradients of the loaded block's weights to those of its scales, and a step on them. */
static bool learn(struct pass *p, uint32_t layer, struct err *e)
{
    const struct scales_options *o = &p->t->o->scales;
    struct gpu_cmd *cmd = p->m->cmd;
    const struct block_items b = plan_block(p->t->plan, layer);
    for (uint32_t i = 0; i < b.n; i++) {
        size_t item = b.items[i].number;
        const struct entry *x = &p->entries[item];
        if (!x->n)
            continue;
        struct gpu_view dscales = gpu_slice(p->temp, 0, (uint64_t)x->n * x->per * 4), dstored = dscales;
        gpu_fill(cmd, dscales, 0);
        tiled_scale_grad(cmd, &(struct scale_grad_args){.grad = p->places[i].grad,
                                                        .codes = p->places[i].codes,
                                                        .dscales = dscales,
                                                        .rows = x->q.rows,
                                                        .cols = x->q.cols,
                                                        .group = x->q.spec.group,
                                                        .groups = x->q.groups,
                                                        .ldc = x->q.ldc,
                                                        .offsets = quant_offsets(&x->q.spec)});
        if (x->per > 1) {
            dstored = gpu_slice(p->temp_stored, 0, x->n * 4ull);
            tiled_row_dot(cmd, &(struct row_dot_args){
                                   .a = dscales, .b = x->integers, .out = dstored, .rows = x->n, .cols = x->per});
        }
        if (p->grads_out) {
            if (!gpu_download(cmd, dstored, p->grads_out[item], x->n * 4ull, e))
                return false;
            continue;
        }
        double t = p->step + 1.0;
        tiled_adam_step(cmd, &(struct adam_step_args){.param = x->scales,
                                                      .m = x->m,
                                                      .v = x->v,
                                                      .grad = dstored,
                                                      .size = x->size,
                                                      .n = x->n,
                                                      .lr = rate(p, p->step),
                                                      .beta1 = o->beta1,
                                                      .beta2 = o->beta2,
                                                      .correct1 = (float)(1 / (1 - pow(o->beta1, t))),
                                                      .correct2 = (float)(1 / (1 - pow(o->beta2, t))),
                                                      .eps = EPS,
                                                      .decay = 0});
        p->loaded = NONE;
    }
    return true;
}

/* ---- windows through the model ---- */

/* Even pieces of n windows, each of at most micro; *done moves on. */
static uint32_t next_piece(const struct pass *p, uint32_t n, uint32_t *done)
{
    uint32_t pieces = (uint32_t)div_up(n - *done, p->micro);
    uint32_t count = pieces ? (n - *done) / pieces : 0;
    *done += count;
    return count;
}

/* The embedded tokens of windows list[0..n) into slots 0 .. n-1. */
static bool embed(struct pass *p, const uint32_t *list, uint32_t n, struct err *e)
{
    uint32_t ctx = p->m->ctx;
    for (uint32_t at = 0, done = 0, count; (count = next_piece(p, n, &done)) > 0; at = done) {
        for (uint32_t i = 0; i < count; i++)
            memcpy(p->ids + (size_t)i * ctx, p->t->windows->ids + (size_t)list[at + i] * ctx, ctx * sizeof *p->ids);
        if (!model_embed(p->m, p->ids, (size_t)count * ctx, p->x, e) || !acts_put(p->kept, at, count, p->x, e))
            return false;
    }
    return true;
}

/* Slots from .. from+n-1 through the loaded block into slots to .. */
static bool block_forward(struct pass *p, uint32_t from, uint32_t to, uint32_t n, struct err *e)
{
    for (uint32_t at = 0, done = 0, count; (count = next_piece(p, n, &done)) > 0; at = done) {
        struct gpu_view x;
        if (!acts_get(p->kept, from + at, count, p->x, &x, e))
            return false;
        block_attn_fwd(p->m, &p->w, &p->fwd, x, p->h, count);
        block_ffn_fwd(p->m, &p->w, &p->fwd, p->h, p->h, count);
        if (!acts_put(p->kept, to + at, count, p->h, e))
            return false;
    }
    return true;
}

/* Logits of `count` windows whose student's hidden states are x; their teacher's lie in p->h. Adds factor
 * times the divergence to sums[sum]; where p->dy is wanted, it becomes the gradient of x, times the same. */
static bool head_piece(struct pass *p, struct gpu_view x, uint32_t count, bool gradient, float factor, uint32_t sum,
                       struct err *e)
{
    struct model *m = p->m;
    uint32_t tokens = count * m->ctx, hidden = m->cfg->hidden_size, vocab = m->cfg->vocab_size;
    block_rmsnorm(m, x, m->final_norm, p->fwd.norm, tokens, hidden);
    block_rmsnorm(m, p->h, m->final_norm, p->h, tokens, hidden);
    for (uint32_t r = 0; r < tokens; r += p->logit_rows) {
        uint32_t rows = (uint32_t)min_u64(p->logit_rows, tokens - r);
        uint64_t at = (uint64_t)r * hidden * 4, bytes = (uint64_t)rows * hidden * 4;
        struct gpu_grid grid = gpu_rows(rows);
        grid.work = (double)rows * vocab;
        if (!head_logits(&p->head, gpu_slice(p->fwd.norm, at, bytes), rows, p->logits[0], e) ||
            !head_logits(&p->head, gpu_slice(p->h, at, bytes), rows, p->logits[1], e))
            return false;
        run_kl(m->cmd, grid,
               &(struct kl_args){.ref = p->logits[1],
                                 .logits = p->logits[0],
                                 .out = gpu_slice(p->kl, r * 4ull, rows * 4ull),
                                 .top1 = gpu_slice(p->top1, r * 4ull, rows * 4ull),
                                 .rows = rows,
                                 .cols = vocab});
        if (!gradient)
            continue;
        run_kl_bwd(m->cmd, grid,
                   &(struct kl_bwd_args){.ref = p->logits[1],
                                         .logits = p->logits[0],
                                         .dlogits = p->logits[0],
                                         .rows = rows,
                                         .cols = vocab,
                                         .factor = factor});
        if (!head_bwd(&p->head, p->logits[0], rows, gpu_slice(p->dy, at, bytes), e))
            return false;
    }
    run_reduce_sum(m->cmd, gpu_rows(1),
                   &(struct reduce_sum_args){.x = p->kl, .result = p->sums, .n = tokens, .at = sum, .factor = factor});
    if (gradient)
        block_rmsnorm_bwd(m, x, m->final_norm, p->dy, tokens, hidden);
    return true;
}

/* The head over slots from .. from+n-1, which hold the last block's output of windows list[0..n). With a
 * gradient, that takes their place. */
static bool head_forward(struct pass *p, const uint32_t *list, uint32_t from, uint32_t n, bool gradient, float factor,
                         uint32_t sum, struct err *e)
{
    for (uint32_t at = 0, done = 0, count; (count = next_piece(p, n, &done)) > 0; at = done) {
        struct gpu_view x;
        if (!acts_get(p->kept, from + at, count, p->x, &x, e) ||
            !acts_gather(p->t->targets, list + at, count, p->h, e) ||
            !head_piece(p, x, count, gradient, factor, sum, e) ||
            (gradient && !acts_put(p->kept, from + at, count, p->dy, e)))
            return false;
    }
    return true;
}

/* The loaded block's gradients: slots from .. hold its inputs, slots to .. the gradient of its output, which
 * becomes that of its input. */
static bool block_backward(struct pass *p, uint32_t layer, uint32_t from, uint32_t to, uint32_t n, struct err *e)
{
    struct model *m = p->m;
    struct block_grads grads = {p->grads};
    const struct block_items b = plan_block(p->t->plan, layer);
    for (uint32_t i = 0; i < b.n; i++) {
        bool learns = p->entries[b.items[i].number].n > 0;
        grads.w[i] = learns ? p->places[i].grad : (struct gpu_view){0};
        if (learns)
            gpu_fill(m->cmd, grads.w[i], 0);
    }
    for (uint32_t at = 0, done = 0, count; (count = next_piece(p, n, &done)) > 0; at = done) {
        struct gpu_view x, dy;
        if (!acts_get(p->kept, from + at, count, p->x, &x, e) || !acts_get(p->kept, to + at, count, p->dy, &dy, e))
            return false;
        block_attn_fwd(m, &p->w, &p->fwd, x, p->h, count);
        block_ffn_inputs(m, &p->w, &p->fwd, p->h, count);
        block_ffn_bwd(m, &p->w, &p->fwd, &p->bwd, p->h, dy, true, &grads, count);
        block_attn_bwd(m, &p->w, &p->fwd, &p->bwd, x, dy, layer > 0, &grads, count);
        if (layer && !acts_put(p->kept, to + at, count, dy, e))
            return false;
    }
    return true;
}

/* One batch: its loss into sums[sum], its gradients into the scales. */
static bool batch_run(struct pass *p, const uint32_t *list, uint32_t n, uint32_t sum, struct err *e)
{
    uint32_t last = p->layers * p->batch;
    if (!embed(p, list, n, e))
        return false;
    for (uint32_t layer = 0; layer < p->layers; layer++)
        if (!load(p, layer, false, e) || !block_forward(p, layer * p->batch, (layer + 1) * p->batch, n, e))
            return false;
    if (!head_forward(p, list, last, n, true, 1.0f / ((float)n * (float)p->m->ctx), sum, e))
        return false;
    for (uint32_t layer = p->layers; layer-- > 0;)
        if (!load(p, layer, false, e) || !block_backward(p, layer, layer * p->batch, last, n, e) || !learn(p, layer, e))
            return false;
    return true;
}

/* Mean divergence of the judging windows, scales rounded. */
static bool judge(struct pass *p, double *loss, struct err *e)
{
    struct gpu_view at = gpu_slice(p->sums, p->per_epoch * 4ull, 4);
    float sum, factor = 1.0f / ((float)p->judges * (float)p->m->ctx);
    uint32_t list[64];
    gpu_fill(p->m->cmd, at, 0);
    for (uint32_t i = 0; i < p->judges;) {
        uint32_t n = (uint32_t)min_u64(min_u64(p->slots, p->judges - i), 64);
        for (uint32_t k = 0; k < n; k++)
            list[k] = p->judge0 + i + k;
        if (!embed(p, list, n, e))
            return false;
        for (uint32_t layer = 0; layer < p->layers; layer++)
            if (!load(p, layer, true, e) || !block_forward(p, 0, 0, n, e))
                return false;
        if (!head_forward(p, list, 0, n, false, factor, p->per_epoch, e))
            return false;
        i += n;
    }
    if (!gpu_download(p->m->cmd, at, &sum, sizeof sum, e))
        return false;
    *loss = sum;
    return true;
}

/* ---- training ---- */

/* Steps of one epoch; *mean: its training loss, NAN or infinite after a divergence. */
static bool epoch_run(struct pass *p, uint32_t epoch, double *mean, struct err *e)
{
    float *losses = p->losses + (size_t)epoch * p->per_epoch;
    epoch_shuffle(p->order, p->train, p->t->o->seed, STAGE_SCALES, epoch);
    gpu_fill(p->m->cmd, p->sums, 0);
    for (uint32_t i = 0, done = 0; i < p->per_epoch; i++) {
        uint32_t n = (p->train - done) / (p->per_epoch - i);
        p->step = epoch * p->per_epoch + i;
        if (!batch_run(p, p->order + done, n, i, e))
            return false;
        done += n;
    }
    if (!gpu_download(p->m->cmd, p->sums, losses, p->per_epoch * sizeof *losses, e))
        return false;
    *mean = 0;
    for (uint32_t i = 0; i < p->per_epoch; i++)
        *mean += losses[i] / p->per_epoch;
    return true;
}

/* Back to the start, at half the rate; false where that was done often enough. */
static bool retry(struct pass *p)
{
    struct scales_state *s = &p->state;
    if (s->report.retries >= EPOCH_RETRIES)
        return false;
    s->report.retries++;
    s->rate /= 2;
    s->epochs = 0;
    s->report.n_hard = 1;
    s->report.n_soft = 0;
    log_warn("the pass over scales diverged; it starts again at %g of its rate", (double)s->rate);
    return true;
}

static bool save(struct pass *p, uint64_t begin, double before, struct err *e)
{
    p->state.report.seconds = before + (double)(os_now_ns() - begin) * 1e-9;
    p->state.losses = p->losses;
    p->state.n_losses = p->state.epochs * p->per_epoch;
    return store_write_scales(p->t->store, p->t->plan, &p->state, pass_pull, p, e);
}

static bool one_epoch(struct pass *p, bool *diverged, struct err *e)
{
    struct stage_report *r = &p->state.report;
    uint32_t epoch = p->state.epochs;
    double mean, hard;
    if (!epoch_run(p, epoch, &mean, e) || !judge(p, &hard, e))
        return false;
    if (r->n_hard < CURVE_EPOCHS)
        r->hard[r->n_hard++] = (float)hard;
    r->n_soft = epoch_curve(p->losses, (epoch + 1) * p->per_epoch, r->soft);
    *diverged = !isfinite(mean) || !isfinite(hard) || hard > EPOCH_DIVERGED * r->loss_start;
    if (*diverged)
        return true;
    p->state.epochs++;
    if (!(hard < r->loss_final))
        return true;
    r->loss_final = hard;
    r->best_epoch = epoch + 1;
    return pass_keep_best(p, e);
}

static bool train(struct pass *p, uint64_t begin, struct err *e)
{
    struct scales_state *s = &p->state;
    struct stage_report *r = &s->report;
    bool resumed = s->epochs > 0;
    double before = resumed ? r->seconds : 0;
    if (!pass_start(p, e) || (resumed && !pass_take_up(p, e)))
        return false;
    if (!resumed) {
        if (!judge(p, &r->loss_start, e))
            return false;
        r->loss_final = r->loss_start;
        r->hard[r->n_hard++] = (float)r->loss_start;
    }
    while (s->epochs < r->epochs) {
        bool diverged;
        p->step = s->epochs * p->per_epoch;
        if (!one_epoch(p, &diverged, e))
            return false;
        if (diverged && !retry(p))
            break;
        if (diverged ? !pass_start(p, e) : s->epochs < r->epochs && !save(p, begin, before, e))
            return false;
    }
    s->done = true;
    return save(p, begin, before, e);
}

/* ---- the whole ---- */

bool tune_scales(const struct scales_task *t, struct stage_report *r, struct err *e)
{
    uint64_t begin = os_now_ns();
    struct pass p;
    bool ok = pass_create(&p, t, e);
    if (ok) {
        struct scales_state was = {.losses = p.losses, .n_losses = p.steps};
        if (store_read_scales(t->store, t->plan, &was) && !was.done && was.report.steps == p.steps) {
            p.state = was;
            log_info("the pass over scales goes on behind epoch %u", was.epochs);
        }
        ok = train(&p, begin, e);
    }
    *r = p.state.report;
    return pass_destroy(&p, ok, e);
}

bool tune_scales_gradient(const struct scales_task *t, const uint32_t *list, uint32_t n, double *loss,
                          float *const *grads, struct err *e)
{
    struct pass p;
    float sum = 0;
    bool ok = pass_create(&p, t, e) && pass_start(&p, e);
    if (ok) {
        p.grads_out = grads;
        gpu_fill(p.m->cmd, p.sums, 0);
        ok = batch_run(&p, list, n, 0, e) && gpu_download(p.m->cmd, gpu_slice(p.sums, 0, 4), &sum, 4, e);
    }
    *loss = sum;
    return pass_destroy(&p, ok, e);
}
