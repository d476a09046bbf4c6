#include "host/quant/tune_scales.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/model/block_bwd.h"
#include "host/model/head.h"
#include "host/quant/epochs.h"
#include "host/quant/qkernels.h"

/* Added to the root of Adam's second moment: below any gradient that means something. */
#define EPS 1e-15f
/* No block is loaded. */
#define NONE UINT32_MAX
#define PI   3.14159265358979323846
/* What a backward pass finds. */
#define PARTS (BWD_ATTN | BWD_QK | BWD_FFN | BWD_INPUT)

/* One quantized linear. */
struct entry {
    struct qmatrix q;      /* no scales; codes: no buffer where they do not stay on the device */
    struct gpu_view steps; /* [n] what learns: scales or, with super-blocks, d and -dmin of each */
    struct gpu_view units; /* [n, per] with super-blocks: the integers that make scales of them, which stay */
    struct gpu_view m, v;  /* [n] Adam's moments */
    struct gpu_view size;  /* [n] what the rate is relative to: |steps| at the start, less at more bits */
    uint32_t n;            /* 0: the linear is kept in 16 bits */
    uint32_t per;          /* scales that a step makes: 1, or the groups of a super-block */
    float *best;           /* [n * per] scales, rounded */
};

struct pass {
    const struct scales_task *t;
    struct model *m;
    uint32_t layers, micro;
    uint32_t train, judge0, judges;      /* windows that teach: 0 .. train-1; that judge */
    uint32_t batch, per_epoch, steps;    /* windows; steps */
    struct entry *entries;               /* [plan->n_items] */
    struct gpu_view codes[LINEAR_COUNT]; /* of one block, where they do not all stay */
    struct gpu_view temp;                /* scales of one linear, or their gradient */
    struct gpu_view temp_steps;          /* steps of one linear: rounded, or their gradient */
    struct block_weights w;              /* of the block that is loaded */
    struct gpu_view block_codes[LINEAR_COUNT];
    uint64_t widest; /* bytes of the widest linear's scales */
    uint32_t loaded; /* that block with its scales of the moment; NONE: none, or others */
    struct block_grads grads;
    struct block_scratch fwd;
    struct bwd_scratch bwd;
    struct head head;
    struct gpu_view x, h, dy;  /* [micro windows, ctx, hidden] */
    struct gpu_view logits[2]; /* [logit_rows, vocab]: student's, teacher's */
    uint32_t logit_rows;
    struct gpu_view kl, top1; /* [micro * ctx] */
    struct gpu_view sums;     /* [per_epoch + 1]: loss of each step, and what is measured */
    struct acts *kept;        /* [layers + 1][batch] windows: inputs of blocks, output of the last */
    uint32_t slots;           /* windows of kept */
    uint32_t *order, *ids;    /* [samples]; [micro * ctx] */
    float *host, *losses;     /* [widest entry]; [steps] */
    struct scales_state state;
    uint32_t step;           /* the one in work, for the hooks */
    float *const *grads_out; /* tune_scales_gradient: where gradients go instead of into Adam */
};

/* ---- sizes -----------------------------------------------------------------------------------------------
 */

uint32_t tune_scales_batch(const struct quantize_options *o, uint32_t train)
{
    return (uint32_t)min_u64(o->scales.batch, train);
}

uint32_t tune_scales_steps(const struct quantize_options *o, uint32_t train)
{
    return (uint32_t)div_up(train, tune_scales_batch(o, train));
}

uint32_t tune_scales_windows(const struct model *m, const struct quantize_options *o, uint32_t train)
{
    return (m->cfg->num_layers + 1) * tune_scales_batch(o, train);
}

static uint64_t scales_of(const struct plan_item *item)
{
    return item->keep ? 0 : (uint64_t)item->rows * quant_row_scales(&item->spec, item->cols);
}

static uint64_t steps_of(const struct plan_item *item)
{
    return item->keep ? 0 : (uint64_t)item->rows * quant_row_steps(&item->spec, item->cols);
}

static uint64_t code_bytes(const struct plan_item *item)
{
    return item->keep ? 0 : round_up(item->rows * div_up(item->cols, 4) * 4, GPU_ALLOC_ALIGN);
}

/* Rows of logits at a time: what one binding holds. */
static uint32_t logit_rows(const struct model *m, uint32_t micro)
{
    uint64_t tokens = (uint64_t)micro * m->ctx;
    return gpu_tile_rows(m->gpu, m->cfg->vocab_size * 4ull,
                         head_logit_rows(m, head_is_resident(m), 2, tokens));
}

/* ---- a block ---------------------------------------------------------------------------------------------
 */

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

static bool upload_codes(struct pass *p, size_t item, struct gpu_view codes, struct err *e)
{
    struct qlinear q = {0};
    struct qmatrix to = p->entries[item].q;
    to.codes = codes;
    to.scales = p->temp; /* those of the store are not wanted */
    bool ok = store_read_linear(p->t->store, &p->t->plan->items[item], &q, NULL, e) &&
              qmatrix_upload(p->m->cmd, &to, &q, e);
    qlinear_free(&q);
    return ok;
}

/* The scales of one linear as they are, or rounded; good until the next call, or until p->temp is used. */
static struct gpu_view scales_now(const struct pass *p, const struct entry *x, bool rounded)
{
    struct gpu_cmd *cmd = p->m->cmd;
    struct gpu_view steps = x->steps;
    if (rounded) {
        uint32_t type = (uint32_t)(x->per > 1 ? SCALE_F16 : x->q.spec.scale);
        steps = gpu_slice(p->temp_steps, 0, x->n * 4ull);
        gpu_copy(cmd, steps, x->steps, x->n * 4ull);
        q_round_scales(cmd, &(struct round_scales_args){.scales = steps, .n = x->n, .scale_type = type});
    }
    if (x->per == 1)
        return steps;
    struct gpu_view scales = gpu_slice(p->temp, 0, (uint64_t)x->n * x->per * 4);
    q_scale_rows(
        cmd, &(struct scale_rows_args){.x = x->units, .w = steps, .y = scales, .rows = x->n, .cols = x->per});
    return scales;
}

/* Block `layer` into p->w, with its scales as they are, or rounded. What was loaded before is gone. */
static bool load(struct pass *p, uint32_t layer, bool rounded, struct err *e)
{
    struct gpu_cmd *cmd = p->m->cmd;
    size_t first = (size_t)layer * LINEAR_COUNT;
    unsigned kept = 0;
    if (!tell(p, e))
        return false;
    if (p->loaded == layer && !rounded)
        return true;
    for (int id = 0; id < LINEAR_COUNT; id++)
        if (!p->entries[first + (size_t)id].n)
            kept |= 1u << id;
    p->loaded = NONE;
    if (!gpu_cmd_finish(cmd, e)) /* it takes the same memory */
        return false;
    gpu_arena_reset(p->t->block, 0);
    if (!model_load_block_some(p->m, layer, kept, p->t->block, &p->w, e))
        return false;
    for (int id = 0; id < LINEAR_COUNT; id++) {
        const struct entry *x = &p->entries[first + (size_t)id];
        struct qmatrix q = x->q;
        if (!x->n)
            continue;
        if (!q.codes.size) {
            q.codes = p->codes[id];
            if (!upload_codes(p, first + (size_t)id, q.codes, e))
                return false;
        }
        p->block_codes[id] = q.codes;
        q.scales = scales_now(p, x, rounded);
        qmatrix_dequant(cmd, &q, p->w.w[id]);
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
    for (int id = 0; id < LINEAR_COUNT; id++) {
        size_t item = (size_t)layer * LINEAR_COUNT + (size_t)id;
        const struct entry *x = &p->entries[item];
        if (!x->n)
            continue;
        struct gpu_view dscales = gpu_slice(p->temp, 0, (uint64_t)x->n * x->per * 4), dsteps = dscales;
        gpu_fill(cmd, dscales, 0);
        q_scale_grad(cmd, &(struct scale_grad_args){.grad = p->grads.w[id],
                                                    .codes = p->block_codes[id],
                                                    .dscales = dscales,
                                                    .rows = x->q.rows,
                                                    .cols = x->q.cols,
                                                    .group = x->q.spec.group,
                                                    .groups = x->q.groups,
                                                    .ldc = x->q.ldc,
                                                    .offsets = quant_offsets(&x->q.spec)});
        if (x->per > 1) {
            dsteps = gpu_slice(p->temp_steps, 0, x->n * 4ull);
            q_row_dot(cmd, &(struct row_dot_args){
                               .a = dscales, .b = x->units, .out = dsteps, .rows = x->n, .cols = x->per});
        }
        if (p->grads_out) {
            if (!gpu_download(cmd, dsteps, p->grads_out[item], x->n * 4ull, e))
                return false;
            continue;
        }
        double t = p->step + 1.0;
        q_adam_step(cmd, &(struct adam_step_args){.param = x->steps,
                                                  .m = x->m,
                                                  .v = x->v,
                                                  .grad = dsteps,
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

/* ---- windows through the model ---------------------------------------------------------------------------
 */

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
            memcpy(p->ids + (size_t)i * ctx, p->t->windows->ids + (size_t)list[at + i] * ctx,
                   ctx * sizeof *p->ids);
        if (!model_embed(p->m, p->ids, (size_t)count * ctx, p->x, e) ||
            !acts_put(p->kept, at, count, p->x, e))
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
static bool head_piece(struct pass *p, struct gpu_view x, uint32_t count, bool gradient, float factor,
                       uint32_t sum, struct err *e)
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
    run_reduce_sum(
        m->cmd, gpu_rows(1),
        &(struct reduce_sum_args){.x = p->kl, .result = p->sums, .n = tokens, .at = sum, .factor = factor});
    if (gradient)
        block_rmsnorm_bwd(m, x, m->final_norm, p->dy, tokens, hidden);
    return true;
}

/* The head over slots from .. from+n-1, which hold the last block's output of windows list[0..n). With a
 * gradient, that takes their place. */
static bool head_forward(struct pass *p, const uint32_t *list, uint32_t from, uint32_t n, bool gradient,
                         float factor, uint32_t sum, struct err *e)
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
static bool block_backward(struct pass *p, uint32_t layer, uint32_t from, uint32_t to, uint32_t n,
                           struct err *e)
{
    struct model *m = p->m;
    struct block_grads grads = {0};
    for (int id = 0; id < LINEAR_COUNT; id++) {
        if (!p->entries[(size_t)layer * LINEAR_COUNT + (size_t)id].n)
            continue;
        grads.w[id] = p->grads.w[id];
        gpu_fill(m->cmd, grads.w[id], 0);
    }
    for (uint32_t at = 0, done = 0, count; (count = next_piece(p, n, &done)) > 0; at = done) {
        struct gpu_view x, dy;
        if (!acts_get(p->kept, from + at, count, p->x, &x, e) ||
            !acts_get(p->kept, to + at, count, p->dy, &dy, e))
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
        if (!load(p, layer, false, e) || !block_backward(p, layer, layer * p->batch, last, n, e) ||
            !learn(p, layer, e))
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

/* ---- scales to and from the host -------------------------------------------------------------------------
 */

/* Of the rate, with super-blocks: d moves all their groups at once. */
#define SUPER_RATE 0.2f

/* The rate is that of 2 bits, whose largest code is 2. Where codes are larger a scale moves the weights
 * further. */
static float finest_step(const struct quant_type *t)
{
    int largest = -t->lo > t->hi ? -t->lo : t->hi;
    float step = largest > 2 ? 2.0f / (float)largest : 1.0f;
    return t->super ? SUPER_RATE * step : step;
}

/* p->host <- d and -dmin of each super-block; scales <- their integers. */
static bool split_scales(struct pass *p, const struct entry *x, float *scales, const char *module,
                         struct err *e)
{
    const struct quant_type *t = x->q.spec.type;
    uint32_t planes = quant_type_planes(t), supers = x->q.groups / x->per;
    for (uint32_t k = 0; k < x->n; k++) {
        bool offset = k / supers % planes == 1;
        float *of_block = scales + (size_t)k * x->per;
        int16_t integers[16];
        uint16_t d;
        for (uint32_t i = 0; offset && i < x->per; i++)
            of_block[i] = -of_block[i];
        if (!quant_super_solve(of_block, x->per, offset ? 0 : t->scale_lo,
                               offset ? t->offset_hi : t->scale_hi, &d, integers))
            return err_set(e, ERR_BUG, "%s: scales that %s cannot hold", module, t->name);
        for (uint32_t i = 0; i < x->per; i++)
            of_block[i] = integers[i];
        p->host[k] = offset ? -f16_to_f32(d) : f16_to_f32(d);
    }
    return true;
}

/* One linear's start: scales of the store (the last ones, where a done pass is judged), no moments. */
static bool start_linear(struct pass *p, size_t item, struct err *e)
{
    struct gpu_cmd *cmd = p->m->cmd;
    struct entry *x = &p->entries[item];
    const struct plan_item *of = &p->t->plan->items[item];
    struct qlinear q = {0};
    bool ok = store_read_final(p->t->store, of, &q, e);
    if (ok && !p->state.report.best_epoch)
        memcpy(x->best, q.scales, (size_t)x->n * x->per * sizeof *x->best);
    if (ok && x->per > 1) {
        ok = split_scales(p, x, q.scales, of->module, e);
        if (ok)
            gpu_upload(cmd, x->units, q.scales, (uint64_t)x->n * x->per * 4);
    } else if (ok) {
        memcpy(p->host, q.scales, x->n * sizeof *p->host);
    }
    if (ok) {
        float unit = finest_step(q.spec.type);
        gpu_upload(cmd, x->steps, p->host, x->n * 4ull);
        for (uint32_t k = 0; k < x->n; k++)
            p->host[k] = unit * fabsf(p->host[k]);
        gpu_upload(cmd, x->size, p->host, x->n * 4ull);
        gpu_fill(cmd, x->m, 0);
        gpu_fill(cmd, x->v, 0);
    }
    qlinear_free(&q);
    return ok;
}

static bool start(struct pass *p, struct err *e)
{
    p->loaded = NONE;
    for (size_t i = 0; i < p->t->plan->n_items; i++)
        if (p->entries[i].n && !start_linear(p, i, e))
            return false;
    return true;
}

static struct gpu_view part_of(const struct entry *x, enum scales_part part)
{
    return part == SCALES_NOW ? x->steps : part == SCALES_M ? x->m : x->v;
}

static const float *pull(void *ctx, size_t item, enum scales_part part, struct err *e)
{
    struct pass *p = ctx;
    const struct entry *x = &p->entries[item];
    if (part == SCALES_BEST)
        return x->best;
    return gpu_download(p->m->cmd, part_of(x, part), p->host, x->n * 4ull, e) ? p->host : NULL;
}

/* What an earlier run left behind its last finished epoch. */
static bool take_up(struct pass *p, struct err *e)
{
    for (size_t i = 0; i < p->t->plan->n_items; i++) {
        struct entry *x = &p->entries[i];
        const struct plan_item *item = &p->t->plan->items[i];
        if (!x->n)
            continue;
        if (!store_read_scales_part(p->t->store, item, SCALES_BEST, x->best, e))
            return false;
        for (int part = SCALES_NOW; part < SCALES_PARTS; part++) {
            if (!store_read_scales_part(p->t->store, item, (enum scales_part)part, p->host, e))
                return false;
            gpu_upload(p->m->cmd, part_of(x, (enum scales_part)part), p->host, x->n * 4ull);
        }
    }
    return true;
}

static bool keep_best(struct pass *p, struct err *e)
{
    for (size_t i = 0; i < p->t->plan->n_items; i++) {
        const struct entry *x = &p->entries[i];
        if (x->n && !gpu_download(p->m->cmd, scales_now(p, x, true), x->best, (uint64_t)x->n * x->per * 4, e))
            return false;
    }
    return true;
}

/* ---- training --------------------------------------------------------------------------------------------
 */

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
    return store_write_scales(p->t->store, p->t->plan, &p->state, pull, p, e);
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
    return keep_best(p, e);
}

static bool train(struct pass *p, uint64_t begin, struct err *e)
{
    struct scales_state *s = &p->state;
    struct stage_report *r = &s->report;
    bool resumed = s->epochs > 0;
    double before = resumed ? r->seconds : 0;
    if (!start(p, e) || (resumed && !take_up(p, e)))
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
        if (diverged ? !start(p, e) : s->epochs < r->epochs && !save(p, begin, before, e))
            return false;
    }
    s->done = true;
    return save(p, begin, before, e);
}

/* ---- set-up ----------------------------------------------------------------------------------------------
 */

static void describe_entry(struct entry *x, const struct plan_item *item)
{
    if (item->keep)
        return;
    x->n = (uint32_t)steps_of(item);
    x->per = item->spec.type->super ? item->spec.type->super / item->spec.group : 1;
    x->q = (struct qmatrix){.rows = item->rows,
                            .cols = item->cols,
                            .groups = (uint32_t)div_up(item->cols, item->spec.group),
                            .ldc = (uint32_t)div_up(item->cols, 4),
                            .spec = item->spec};
}

/* What an entry has on the device. */
static bool alloc_entry(struct entry *x, const struct plan_item *item, bool codes, struct gpu_arena *arena,
                        struct err *e)
{
    uint64_t bytes = x->n * 4ull;
    return !x->n || (gpu_alloc(arena, bytes, &x->steps, e) && gpu_alloc(arena, bytes, &x->m, e) &&
                     gpu_alloc(arena, bytes, &x->v, e) && gpu_alloc(arena, bytes, &x->size, e) &&
                     (x->per == 1 || gpu_alloc(arena, scales_of(item) * 4, &x->units, e)) &&
                     (!codes || gpu_alloc(arena, code_bytes(item), &x->q.codes, e)));
}

static bool alloc_entries(struct pass *p, struct err *e)
{
    const struct plan *plan = p->t->plan;
    struct gpu_arena *arena = p->t->scratch;
    bool stay = p->t->codes_stay;
    uint64_t widest = 4, codes[LINEAR_COUNT] = {0}, grads[LINEAR_COUNT] = {0};
    p->entries = calloc(plan->n_items, sizeof *p->entries);
    if (!p->entries)
        return err_nomem(e, "the scales", plan->n_items * sizeof *p->entries);
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct plan_item *item = &plan->items[i];
        describe_entry(&p->entries[i], item);
        widest = max_u64(widest, scales_of(item) * 4);
        codes[item->id] = max_u64(codes[item->id], code_bytes(item));
        if (!item->keep)
            grads[item->id] = (uint64_t)item->rows * item->cols * 4;
    }
    p->widest = widest;
    bool ok = gpu_alloc(arena, widest, &p->temp, e) && gpu_alloc(arena, widest, &p->temp_steps, e);
    for (int id = 0; ok && id < LINEAR_COUNT; id++)
        ok = (!grads[id] || gpu_alloc(arena, grads[id], &p->grads.w[id], e)) &&
             (stay || !codes[id] || gpu_alloc(arena, codes[id], &p->codes[id], e));
    for (size_t i = 0; ok && i < plan->n_items; i++)
        ok = alloc_entry(&p->entries[i], &plan->items[i], stay, arena, e);
    return ok;
}

/* What entries have on the host; codes that stay on the device go there. */
static bool fill_entries(struct pass *p, struct err *e)
{
    bool ok = true;
    p->host = malloc((size_t)p->widest);
    if (!p->host)
        return err_nomem(e, "the scales of one linear", p->widest);
    for (size_t i = 0; ok && i < p->t->plan->n_items; i++) {
        struct entry *x = &p->entries[i];
        uint64_t bytes = (uint64_t)x->n * x->per * 4;
        if (!x->n)
            continue;
        x->best = malloc((size_t)bytes);
        ok = (x->best || err_nomem(e, "scales", bytes)) &&
             (!p->t->codes_stay || upload_codes(p, i, x->q.codes, e));
    }
    return ok;
}

/* All that lies on the device but the blocks' inputs and the block that is loaded. */
static bool create_device(struct pass *p, const struct scales_task *t, struct err *e)
{
    struct model *m = t->m;
    const struct plan *plan = t->plan;
    uint64_t window = acts_bytes(m, 1), tokens = (uint64_t)plan->scale_micro * m->ctx;
    *p = (struct pass){.t = t, .m = m, .layers = plan->n_layers, .micro = plan->scale_micro, .loaded = NONE};
    p->train = plan->samples - plan->holdout;
    p->per_epoch = tune_scales_steps(t->o, p->train);
    p->logit_rows = logit_rows(m, p->micro);
    uint64_t logits = (uint64_t)p->logit_rows * m->cfg->vocab_size * 4;
    return alloc_entries(p, e) &&
           block_scratch_create(&p->fwd, t->scratch, m, p->micro, SCRATCH_TRAIN, e) &&
           bwd_scratch_create(&p->bwd, t->scratch, m, p->micro, PARTS, e) &&
           head_create(&p->head, t->scratch, m, HEAD_TRAIN, e) &&
           gpu_alloc(t->scratch, p->micro * window, &p->x, e) &&
           gpu_alloc(t->scratch, p->micro * window, &p->h, e) &&
           gpu_alloc(t->scratch, p->micro * window, &p->dy, e) &&
           gpu_alloc(t->scratch, logits, &p->logits[0], e) &&
           gpu_alloc(t->scratch, logits, &p->logits[1], e) && gpu_alloc(t->scratch, tokens * 4, &p->kl, e) &&
           gpu_alloc(t->scratch, tokens * 4, &p->top1, e) &&
           gpu_alloc(t->scratch, (p->per_epoch + 1) * 4ull, &p->sums, e);
}

static bool create(struct pass *p, const struct scales_task *t, struct err *e)
{
    const struct plan *plan = t->plan;
    uint64_t tokens = (uint64_t)plan->scale_micro * t->m->ctx;
    if (!create_device(p, t, e))
        return false;
    p->judge0 = plan->holdout ? p->train : 0;
    p->judges = plan->holdout ? plan->holdout : p->train;
    p->batch = tune_scales_batch(t->o, p->train);
    p->steps = p->per_epoch * t->o->scales.epochs;
    p->slots = tune_scales_windows(t->m, t->o, p->train);
    p->state.rate = 1;
    p->state.report = (struct stage_report){.stage = STAGE_SCALES,
                                            .loss_start = NAN,
                                            .loss_final = NAN,
                                            .steps = p->steps,
                                            .epochs = t->o->scales.epochs};
    p->order = malloc(p->train * sizeof *p->order);
    p->ids = malloc(tokens * sizeof *p->ids);
    p->losses = malloc((p->steps + 1ull) * sizeof *p->losses);
    if (!p->order || !p->ids || !p->losses)
        return err_nomem(e, "the order of windows", (p->train + tokens + p->steps) * 4);
    return fill_entries(p, e) && acts_create(&p->kept, p->m, p->slots, &t->room, e);
}

bool tune_scales_count(const struct scales_task *t, struct err *e)
{
    struct pass p;
    bool ok = create_device(&p, t, e);
    gpu_arena_reset(t->scratch, 0);
    free(p.entries);
    return ok;
}

/* True with ok, unless the device failed late. */
static bool destroy(struct pass *p, bool ok, struct err *e)
{
    /* Nothing of the arenas may be in use when they are given back. */
    ok = gpu_cmd_finish(p->m->cmd, ok ? e : NULL) && ok;
    acts_destroy(&p->kept);
    gpu_arena_reset(p->t->block, 0);
    gpu_arena_reset(p->t->scratch, 0);
    for (size_t i = 0; p->entries && i < p->t->plan->n_items; i++)
        free(p->entries[i].best);
    free(p->entries);
    free(p->host);
    free(p->losses);
    free(p->order);
    free(p->ids);
    return ok;
}

bool tune_scales(const struct scales_task *t, struct stage_report *r, struct err *e)
{
    uint64_t begin = os_now_ns();
    struct pass p;
    bool ok = create(&p, t, e);
    if (ok) {
        struct scales_state was = {.losses = p.losses, .n_losses = p.steps};
        if (store_read_scales(t->store, t->plan, &was) && !was.done && was.report.steps == p.steps) {
            p.state = was;
            log_info("the pass over scales goes on behind epoch %u", was.epochs);
        }
        ok = train(&p, begin, e);
    }
    *r = p.state.report;
    return destroy(&p, ok, e);
}

bool tune_scales_gradient(const struct scales_task *t, const uint32_t *list, uint32_t n, double *loss,
                          float *const *grads, struct err *e)
{
    struct pass p;
    float sum = 0;
    bool ok = create(&p, t, e) && start(&p, e);
    if (ok) {
        p.grads_out = grads;
        gpu_fill(p.m->cmd, p.sums, 0);
        ok = batch_run(&p, list, n, 0, e) && gpu_download(p.m->cmd, gpu_slice(p.sums, 0, 4), &sum, 4, e);
    }
    *loss = sum;
    return destroy(&p, ok, e);
}
