#include "host/quant/method/tune_block.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/base/os.h"
#include "host/gpu/tiled.h"
#include "host/model/walk.h"
#include "host/quant/method/epochs.h"
#include "host/quant/method/share.h"

/* See weigh_tokens: much less, and the loud tokens themselves become worse than at the start; much more, and
 * the others do (measured on a block with such tokens, test_tune_block.c). */
#define LOUDEST 8.0

/* A matrix of the block. */
struct member {
    bool trained;               /* what follows is of those that are */
    struct qmatrix q;           /* start codes; scales in training */
    struct gumbel_state *parts; /* [n_parts] of its rows, whose state one buffer holds */
    uint32_t n_parts;
    struct qmatrix best; /* of the best epoch, in host memory: written and read by the device alone */
    float *sum;          /* [own rows, cols]: of a step's chunks, in their order; NULL: not shared */
};

/* One half in training. */
struct half {
    const struct tune_block_task *t;
    uint32_t train;          /* windows that teach: 0 .. train-1 */
    uint32_t judge0, judges; /* windows that judge */
    uint32_t per_epoch;      /* steps */
    struct gumbel_options gumbel;
    struct member *members;    /* [t->block.n] */
    struct block_weights hard; /* the block, with rounded weights where grads.w has room between steps */
    struct block_grads grads;
    struct block_scratch fwd;
    struct bwd_scratch bwd;
    struct gpu_view x, target, y;      /* [micro windows, ctx, hidden] */
    struct gpu_view missed;            /* the same, where the task has a metric: y - target */
    struct gpu_view row_loss, weights; /* [micro * ctx]: of one token */
    float *token_weight;               /* [samples, ctx] */
    bool weighted;                     /* any of them is not 1 */
    struct gpu_view sums; /* [per_epoch + 2]: squared error of each step's batch; of the judges, weighted and not */
    bool parted;          /* steps have chunks that ranks can share */
    /* Of ranks that share the work; false, NULL and nothing else. */
    bool shared;
    uint32_t n_chunks;             /* of what is summed at a time, at most */
    struct gpu_view chunks;        /* [2 * n_chunks]: squared error of each, as in sums */
    float *chunk_errors;           /* [ranks, 2 * n_chunks] */
    float *room;                   /* share_room of the largest matrix */
    struct gpu_view codes, scales; /* of one linear, rounded */
    uint32_t *order;               /* [samples] windows, shuffled */
    double size_train, size_judge; /* what the half adds to its input, squared and weighted, per window */
    double unweighted_start;       /* the judges' unweighted squared error at the start */
};

static bool takes(const struct tune_block_task *t, const struct matrix *item)
{
    return item->part->half == t->half && plan_joint(t->o, item);
}

/* Windows that a step of the paper's run takes at least. From 4 bits on the start is close, and more steps of fewer
 * windows cost time without lowering perplexity (bench/results/quality-lavapipe.md). */
static uint32_t fewest(const struct quant_type *t)
{
    return t->hi - t->lo > 7 ? 4 : 1;
}

uint32_t tune_block_batch(const struct quantize_options *o, uint32_t train)
{
    uint64_t batch = o->block.batch;
    if (!batch)
        batch = max_u64(div_up((uint64_t)o->block.epochs * train, (uint64_t)GUMBEL_PAPER_STEPS), fewest(o->code_type));
    batch = min_u64(batch, train);
    return batch ? (uint32_t)batch : 1;
}

/* Groups of 16 or 32 with offsets start so close that codes which travel as far as others' end worse than
 * they began (bench/results/gguf-lavapipe.md). */
float tune_block_share(const struct quant_type *t)
{
    return t->super ? 0.4f : 1.0f;
}

struct gumbel_options tune_block_gumbel(const struct quantize_options *o, uint32_t train)
{
    struct gumbel_options g = o->gumbel;
    g.steps = o->block.epochs * (uint32_t)div_up(train, tune_block_batch(o, train));
    g.reach = o->block.reach;
    g.init_noise = o->block.init_noise;
    g.init_gap = o->block.init_gap;
    return g;
}

/* What the backward pass finds. */
static unsigned parts_of(const struct quantize_options *o, enum block_half half)
{
    return half != HALF_ATTN ? BWD_FFN : BWD_ATTN | (o->block.train_qk ? BWD_QK : 0);
}

static enum scratch_use scratch_of(enum block_half half)
{
    return half == HALF_ATTN ? SCRATCH_TRAIN_ATTN : half == HALF_FFN ? SCRATCH_TRAIN_FFN : SCRATCH_TRAIN_EXPERT;
}

/* Whose work follows (gpu_part_begin): where steps have but one chunk, every rank's. */
static enum gpu_part begin(const struct half *h, enum gpu_part part)
{
    return gpu_part_begin(h->t->m->cmd, h->parted ? part : GPU_PART_OWN);
}

/* ---- one pass over windows ---- */

/* steering: for gradients alone, not for a loss that decides. */
static void forward(const struct half *h, const struct block_weights *w, uint32_t n, bool steering)
{
    struct block_scratch s = h->fwd;
    s.steering = steering;
    block_half_fwd(h->t->m, h->t->half, w, &s, h->x, h->y, n);
}

/* row_loss <- |a - b|^2 of each token of n windows, times its weight where `weighted`. difference: y <- the same times a - b. */
static void residual(const struct half *h, struct gpu_view a, struct gpu_view b, uint32_t n, bool weighted,
                     bool difference)
{
    tiled_residual(h->t->m->cmd, &(struct residual_args){.a = a,
                                                         .b = b,
                                                         .w = h->weights,
                                                         .d = h->y,
                                                         .out = h->row_loss,
                                                         .rows = n * h->t->m->ctx,
                                                         .cols = h->t->m->cfg->hidden_size,
                                                         .weighted = weighted,
                                                         .difference = difference});
}

/* row_loss <- what tokens of n windows lose by y in place of target: of d = y - target |d|^2, or d M d by the task's metric M; times the
 * token's weight where `weighted`. gradient: y <- the same times d, or M d, half the loss's gradient. */
static void token_losses(const struct half *h, uint32_t n, bool weighted, bool gradient)
{
    struct gpu_cmd *cmd = h->t->m->cmd;
    const uint32_t rows = n * h->t->m->ctx, cols = h->t->m->cfg->hidden_size;
    if (!h->t->metric.size) {
        residual(h, h->y, h->target, n, weighted, gradient);
        return;
    }
    tiled_subtract(cmd, &(struct subtract_args){.a = h->y, .b = h->target, .d = h->missed, .n = rows * cols});
    output_hessian_after(cmd, h->t->metric, h->missed, h->y, rows, cols, gradient ? GEMM_STEERING : GEMM_EXACT);
    tiled_row_dot(cmd,
                  &(struct row_dot_args){.a = h->missed, .b = h->y, .out = h->row_loss, .rows = rows, .cols = cols});
    if (weighted)
        tiled_scale_rows(cmd, &(struct scale_rows_args){
                                  .x = h->row_loss, .w = h->weights, .y = h->row_loss, .rows = rows, .cols = 1});
    if (weighted && gradient)
        tiled_scale_rows(cmd,
                         &(struct scale_rows_args){.x = h->y, .w = h->weights, .y = h->y, .rows = rows, .cols = cols});
}

/* The windows' inputs, targets and token weights. */
static bool fetch(struct half *h, const uint32_t *list, uint32_t n, struct err *e)
{
    uint64_t ctx = h->t->m->ctx;
    if (!acts_gather(h->t->inputs, list, n, h->x, e) || !acts_gather(h->t->targets, list, n, h->target, e))
        return false;
    for (uint32_t i = 0; h->weighted && i < n; i++)
        gpu_upload(h->t->m->cmd, gpu_slice(h->weights, i * ctx * 4, ctx * 4), h->token_weight + list[i] * ctx, ctx * 4);
    return true;
}

static void add_loss(const struct half *h, struct gpu_view sums, uint32_t n, uint32_t at)
{
    run_reduce_sum(
        h->t->m->cmd, gpu_rows(1),
        &(struct reduce_sum_args){.x = h->row_loss, .result = sums, .n = n * h->t->m->ctx, .at = at, .factor = 1});
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Token weights, from what the half adds to each token's input, squared. A token counts at most LOUDEST times
 * as much as a whole window of tokens like the median one: a few tokens with huge activations would otherwise
 * be all that the half learns. Ordinary tokens are left alone. The weighted sums are the sizes that losses
 * are relative to. */
static bool weigh_tokens(struct half *h, struct err *e)
{
    struct model *m = h->t->m;
    size_t ctx = m->ctx, n = h->t->samples * ctx;
    float *size = h->token_weight, *sorted = malloc(n * sizeof *sorted);
    if (!sorted)
        return err_nomem(e, "the sizes of tokens", n * sizeof *sorted);
    struct walk k = {.windows = h->t->samples, .batch = h->t->micro};
    while (walk_next(&k, e)) {
        if (!fetch(h, h->order + k.at, k.n, e))
            break;
        residual(h, h->target, h->x, k.n, false, false);
        if (!gpu_download(m->cmd, h->row_loss, size + k.at * ctx, k.n * ctx * 4, e))
            break;
    }
    if (k.ended) {
        memcpy(sorted, size, n * sizeof *sorted);
        qsort(sorted, n, sizeof *sorted, compare_floats);
        double most = LOUDEST * (double)ctx * fmax(sorted[n / 2], 1e-30), train = 0, judged = 0;
        for (size_t i = 0; i < n; i++) {
            double w = size[i] > most ? most / size[i] : 1, mine = size[i] * w;
            h->weighted = h->weighted || w < 1;
            size[i] = (float)w;
            if (i / ctx < h->train)
                train += mine;
            if (i / ctx >= h->judge0 && i / ctx < (size_t)h->judge0 + h->judges)
                judged += mine;
        }
        h->size_train = fmax(train / h->train, 1e-30);
        h->size_judge = fmax(judged / h->judges, 1e-30);
    }
    free(sorted);
    return k.ended;
}

/* Squared error of windows that judge, weighted to sums[at], as it is to sums[at + 1]. */
static bool judge_chunk(struct half *h, const struct block_weights *w, const uint32_t *list, uint32_t n,
                        struct gpu_view sums, uint32_t at, struct err *e)
{
    if (!fetch(h, list, n, e))
        return false;
    const enum gpu_part before = begin(h, GPU_PART_UNITS);
    forward(h, w, n, false);
    token_losses(h, n, false, false);
    add_loss(h, sums, n, at + 1);
    if (h->weighted)
        tiled_scale_rows(h->t->m->cmd,
                         &(struct scale_rows_args){
                             .x = h->row_loss, .w = h->weights, .y = h->row_loss, .rows = n * h->t->m->ctx, .cols = 1});
    add_loss(h, sums, n, at);
    gpu_part_end(h->t->m->cmd, before);
    return true;
}

/* Gradients of windows into grads, added where `add`, and their squared error into sums[at]. */
static bool chunk(struct half *h, const uint32_t *list, uint32_t n, bool add, struct gpu_view sums, uint32_t at,
                  struct err *e)
{
    if (!fetch(h, list, n, e))
        return false;
    const enum gpu_part before = begin(h, GPU_PART_UNITS);
    forward(h, h->t->w, n, true);
    /* Lion's sign is blind to the factor 2. */
    token_losses(h, n, h->weighted, true);
    add_loss(h, sums, n, at);
    h->grads.add = add;
    block_half_bwd(h->t->m, h->t->half, h->t->w, &h->fwd, &h->bwd, h->x, h->y, false, &h->grads, n);
    gpu_part_end(h->t->m->cmd, before);
    return true;
}

/* ---- shared among ranks: chunks are made by one rank each, and added in their order by all that need the sum ---- */

/* The chunks' errors as their ranks have found them: n of them, `each` in a row. sums[each]. */
static bool sum_chunks(struct half *h, uint32_t n, uint32_t each, float *sums, struct err *e)
{
    const uint32_t room = 2 * h->n_chunks, ranks = comm_size();
    float *mine = h->chunk_errors + (size_t)comm_rank() * room;
    if (!gpu_download(h->t->m->cmd, h->chunks, mine, room * sizeof *mine, e) ||
        !comm_gather(COMM_LOSSES, h->chunk_errors, ranks, 1, room * sizeof *mine, e))
        return false;
    for (uint32_t k = 0; k < each; k++)
        sums[k] = 0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < each; k++)
            sums[k] += h->chunk_errors[(size_t)(i % ranks) * room + (size_t)i * each + k];
    return true;
}

/* Gradients that `have` ranks have made, one chunk each, to the rows' owners. */
static bool sum_gradients(struct half *h, unsigned have, bool first, struct err *e)
{
    bool ok = true;
    for (uint32_t i = 0; ok && i < h->t->block.n; i++) {
        const struct matrix *item = &h->t->block.items[i];
        if (h->members[i].trained)
            ok = share_sum(COMM_GRADIENTS, h->t->m->cmd, h->grads.w[i], item->rows, item->cols, have, first, h->room,
                           h->members[i].sum, e);
    }
    return ok;
}

static bool accumulate_shared(struct half *h, const uint32_t *list, uint32_t n, float *loss, struct err *e)
{
    struct gpu_cmd *cmd = h->t->m->cmd;
    const uint32_t ranks = comm_size();
    struct walk k = {.windows = n, .batch = h->t->micro, .even = true};
    uint32_t at = 0;
    gpu_fill(cmd, h->chunks, 0);
    for (; walk_next(&k, e); at++) {
        if (at % ranks == comm_rank() && !chunk(h, list + k.at, k.n, false, h->chunks, at, e))
            return false;
        if ((at % ranks == ranks - 1 || k.at + k.n == n) && !sum_gradients(h, at % ranks + 1, at < ranks, e))
            return false;
    }
    for (uint32_t i = 0; i < h->t->block.n; i++) {
        const struct member *of = &h->members[i];
        const struct comm_part own = share_rows(h->t->block.items[i].rows);
        const uint64_t row = h->t->block.items[i].cols * 4ull;
        if (of->trained && own.end > own.first)
            gpu_upload(cmd, gpu_slice(h->grads.w[i], own.first * row, (own.end - own.first) * row), of->sum,
                       (own.end - own.first) * row);
    }
    return k.ended && sum_chunks(h, at, 1, loss, e);
}

/* What each rank has of matrices in training to all; of: the half's weights, or hard ones. */
static bool share_members(const struct half *h, const struct gpu_view *of, struct err *e)
{
    bool ok = true;
    for (uint32_t i = 0; ok && h->shared && i < h->t->block.n; i++)
        if (h->members[i].trained)
            ok = share_weights(h->t->m->cmd, of[i], h->t->block.items[i].rows, h->t->block.items[i].cols, h->room, e);
    return ok;
}

/* ---- one pass, whoever makes it ---- */

/* Squared error of w on the judging windows: relative with weighted tokens, and the unweighted sum. */
static bool judge(struct half *h, const struct block_weights *w, double *loss, double *unweighted, struct err *e)
{
    struct gpu_cmd *cmd = h->t->m->cmd;
    const unsigned ranks = h->shared ? comm_size() : 1, rank = h->shared ? comm_rank() : 0;
    const struct gpu_view both = gpu_slice(h->sums, h->per_epoch * 4ull, 2 * sizeof(float));
    float sums[2];
    uint32_t at = 0;
    gpu_fill(cmd, h->shared ? h->chunks : both, 0);
    struct walk k = {.windows = h->judges, .batch = h->t->micro};
    for (; walk_next(&k, e); at++) /* windows that judge keep their place in `order`, or are all of them */
        if (at % ranks == rank && !judge_chunk(h, w, h->order + h->judge0 + k.at, k.n, h->shared ? h->chunks : h->sums,
                                               h->shared ? 2 * at : h->per_epoch, e))
            return false;
    if (!(h->shared ? sum_chunks(h, at, 2, sums, e) : gpu_download(cmd, both, sums, sizeof sums, e)))
        return false;
    *loss = sums[0] / (h->judges * h->size_judge);
    *unweighted = sums[1];
    return true;
}

/* Gradients of one batch into grads, its squared error into sums[at], or of ranks into *loss. */
static bool accumulate(struct half *h, const uint32_t *list, uint32_t n, uint32_t at, float *loss, struct err *e)
{
    struct walk k = {.windows = n, .batch = h->t->micro, .even = true};
    if (h->shared)
        return accumulate_shared(h, list, n, loss, e);
    while (walk_next(&k, e))
        if (!chunk(h, list + k.at, k.n, k.at > 0, h->sums, at, e))
            return false;
    return k.ended;
}

/* ---- hard weights ---- */

/* Rounded codes and scales of a linear in training, as the file would hold them; good until the next call. */
static struct qmatrix harden(const struct half *h, const struct member *of)
{
    struct gpu_cmd *cmd = h->t->m->cmd;
    struct qmatrix q = of->q;
    gpu_copy(cmd, h->scales, q.scales, q.scales.size);
    q.codes = gpu_slice(h->codes, 0, q.codes.size);
    q.scales = h->scales;
    const enum gpu_part before = begin(h, GPU_PART_ROWS);
    for (uint32_t i = 0; i < of->n_parts; i++) {
        const struct gumbel_state *s = &of->parts[i];
        uint64_t row_bytes = q.ldc * 4ull;
        gumbel_codes(cmd, s, gpu_slice(q.codes, s->row0 * row_bytes, s->q.rows * row_bytes));
    }
    gpu_part_end(cmd, before);
    if (h->gumbel.lr_scales > 0)
        qmatrix_round_scales(cmd, &q);
    return q;
}

/* h->hard: the block with all weights in training rounded. */
static bool harden_all(const struct half *h, struct err *e)
{
    for (uint32_t i = 0; i < h->t->block.n; i++) {
        if (!h->members[i].trained)
            continue;
        struct qmatrix q = harden(h, &h->members[i]);
        qmatrix_dequant(h->t->m->cmd, &q, h->hard.w[i]);
    }
    return share_members(h, h->hard.w, e);
}

/* What training has now becomes the best. Nothing waits for it. */
static void keep_best(const struct half *h)
{
    for (uint32_t i = 0; i < h->t->block.n; i++) {
        const struct member *of = &h->members[i];
        if (!of->trained)
            continue;
        struct qmatrix q = harden(h, of);
        qmatrix_copy(h->t->m->cmd, &of->best, &q);
    }
}

/* ---- training ---- */

static bool start(struct half *h, const struct qlinear *q, float rate, struct err *e)
{
    struct gpu_cmd *cmd = h->t->m->cmd;
    for (uint32_t i = 0; i < h->t->block.n; i++) {
        struct member *of = &h->members[i];
        if (!of->trained)
            continue;
        if (!qmatrix_upload(cmd, &of->q, &q[i], e))
            return false;
        const enum gpu_part before = begin(h, GPU_PART_ROWS);
        for (uint32_t k = 0; k < of->n_parts; k++) {
            of->parts[k].rate = rate * tune_block_share(h->t->block.items[i].spec.type);
            gumbel_start(cmd, &of->parts[k]);
        }
        gpu_part_end(cmd, before);
    }
    return share_members(h, h->t->w->w, e);
}

/* Steps of one epoch; *mean: training loss, relative, NAN or infinite after a divergence. */
static bool epoch_run(struct half *h, uint32_t epoch, struct stage_report *r, float *soft, double *mean, struct err *e)
{
    struct gpu_cmd *cmd = h->t->m->cmd;
    epoch_shuffle(h->order, h->train, h->t->o->seed, (uint64_t)r->layer << 8 | (unsigned)r->stage, epoch);
    gpu_fill(cmd, h->sums, 0);
    for (uint32_t i = 0, done = 0; i < h->per_epoch; i++) {
        uint32_t n = (h->train - done) / (h->per_epoch - i), step = epoch * h->per_epoch + i;
        if (!accumulate(h, h->order + done, n, i, &soft[i], e))
            return false;
        uint32_t next = (uint32_t)min_u64(n, h->train - done - n);
        acts_fetch(h->t->inputs, h->order + done + n, next);
        acts_fetch(h->t->targets, h->order + done + n, next);
        const enum gpu_part before = begin(h, GPU_PART_ROWS);
        for (uint32_t k = 0; k < h->t->block.n; k++)
            for (uint32_t part = 0; part < h->members[k].n_parts; part++)
                gumbel_step(cmd, &h->members[k].parts[part], step);
        gpu_part_end(cmd, before);
        if (!share_members(h, h->t->w->w, e))
            return false;
        done += n;
        double last = r->n_hard ? (double)r->hard[r->n_hard - 1] : NAN;
        if (!tune_tell(h->t->hooks, cmd, step, h->gumbel.steps, last, e))
            return false;
    }
    if (!h->shared && !gpu_download(cmd, h->sums, soft, h->per_epoch * sizeof *soft, e))
        return false;
    *mean = 0;
    for (uint32_t i = 0, done = 0; i < h->per_epoch; i++) {
        uint32_t n = (h->train - done) / (h->per_epoch - i);
        soft[i] = (float)(soft[i] / (n * h->size_train));
        *mean += soft[i] / h->per_epoch;
        done += n;
    }
    return true;
}

/* All epochs at one rate. *diverged: soft or hard loss left all bounds; what was best before that is kept all
 * the same. */
static bool attempt(struct half *h, const struct qlinear *q, float rate, struct stage_report *r, float *soft,
                    bool *diverged, struct err *e)
{
    *diverged = false;
    r->n_hard = r->n_soft = 0;
    r->hard[r->n_hard++] = (float)r->trained.loss_start;
    if (!start(h, q, rate, e))
        return false;
    for (uint32_t epoch = 0; epoch < h->t->o->block.epochs; epoch++) {
        double mean, hard, unweighted;
        r->trained.ran++;
        if (!epoch_run(h, epoch, r, soft + (size_t)epoch * h->per_epoch, &mean, e))
            return false;
        if (!harden_all(h, e) || !judge(h, &h->hard, &hard, &unweighted, e))
            return false;
        if (r->n_hard < CURVE_EPOCHS)
            r->hard[r->n_hard++] = (float)hard;
        r->n_soft = epoch_curve(soft, (epoch + 1) * h->per_epoch, r->soft);
        *diverged = !isfinite(mean) || !isfinite(hard) || hard > EPOCH_DIVERGED * r->trained.loss_start;
        if (*diverged)
            return true;
        /* Huge tokens weigh less, but they must not lose either. */
        if (hard < r->trained.loss_final && (!h->weighted || unweighted <= h->unweighted_start)) {
            r->trained.loss_final = hard;
            r->trained.best_epoch = epoch + 1;
            keep_best(h);
        }
    }
    return true;
}

/* ---- a half ---- */

/* Of a matrix, the rows that are trained as one. */
static struct gpu_view rows_of(struct gpu_view v, const struct gumbel_state *s)
{
    return gpu_slice(v, (uint64_t)s->row0 * s->q.cols * 4, (uint64_t)s->q.rows * s->q.cols * 4);
}

static bool alloc_member(struct half *h, uint32_t i, struct err *e)
{
    const struct tune_block_task *t = h->t;
    const struct matrix *item = &t->block.items[i];
    struct member *of = &h->members[i];
    uint64_t bytes = (uint64_t)item->rows * item->cols * 4;
    if (!qmatrix_create(&of->q, t->arena, item->rows, item->cols, item->spec, e))
        return false;
    struct comm_part own = h->shared ? share_rows(item->rows) : (struct comm_part){0, item->rows};
    if (h->parted && t->as_if_ranks > 1)
        own.end = (uint32_t)(share_busiest(item->rows, SHARE_ROWS, t->as_if_ranks) * item->rows + 0.5);
    uint32_t most = gumbel_rows(t->m->gpu, &of->q);
    of->parts = calloc(div_up(item->rows, most), sizeof *of->parts);
    of->sum = h->shared ? malloc((own.end - own.first) * bytes / item->rows + 1) : NULL;
    if (!of->parts || (h->shared && !of->sum))
        return err_nomem(e, "half a block", div_up(item->rows, most) * sizeof *of->parts);
    for (uint32_t row = own.first; row < own.end; row += most)
        if (!gumbel_create(&of->parts[of->n_parts++], t->arena, &of->q, row, (uint32_t)min_u64(most, own.end - row), e))
            return false;
    if (!gpu_alloc(t->arena, bytes, &h->grads.w[i], e))
        return false;
    for (struct gumbel_state *s = of->parts; s < of->parts + of->n_parts; s++) {
        s->o = &h->gumbel;
        s->seed = (uint32_t)(t->o->seed ^ t->o->seed >> 32) ^ 0x5851f42du; /* other noise than the start's tuning had */
        s->tensor = item->number;
        s->soft = rows_of(t->w->w[i], s);
        s->grad = s->w = rows_of(h->grads.w[i], s); /* w is not used: soft weights, no difference */
    }
    h->hard.w[i] = h->grads.w[i];
    return true;
}

static bool half_create(struct half *h, const struct tune_block_task *t, struct err *e)
{
    uint64_t window = (uint64_t)t->m->ctx * t->m->cfg->hidden_size * 4, codes = 0, scales = 0, room = 0;
    *h = (struct half){.t = t, .train = t->samples - t->holdout, .hard = *t->w};
    h->grads.w = calloc(t->block.n + 1u, sizeof *h->grads.w);
    h->hard.w = malloc((t->block.n + 1u) * sizeof *h->hard.w);
    h->gumbel = tune_block_gumbel(t->o, h->train);
    h->judge0 = t->holdout ? h->train : 0;
    h->judges = t->holdout ? t->holdout : h->train;
    h->per_epoch = (uint32_t)div_up(h->train, tune_block_batch(t->o, h->train));
    h->n_chunks = (uint32_t)div_up(max_u64(tune_block_batch(t->o, h->train), h->judges), t->micro);
    h->parted = tune_block_parts(t);
    h->shared = h->parted && comm_size() > 1 && !gpu_cmd_counts(t->m->cmd);
    h->members = calloc(t->block.n + 1u, sizeof *h->members);
    if (!h->members || !h->grads.w || !h->hard.w)
        return err_nomem(e, "half a block", t->block.n * sizeof *h->members);
    memcpy(h->hard.w, t->w->w, t->block.n * sizeof *h->hard.w);
    h->order = malloc(t->samples * sizeof *h->order);
    if (!h->order)
        return err_nomem(e, "the order of windows", t->samples * sizeof *h->order);
    for (uint32_t i = 0; i < t->samples; i++)
        h->order[i] = i;
    h->token_weight = malloc((size_t)t->samples * t->m->ctx * sizeof *h->token_weight);
    if (!h->token_weight)
        return err_nomem(e, "the weights of tokens", (uint64_t)t->samples * t->m->ctx * sizeof *h->token_weight);
    for (uint32_t i = 0; i < t->block.n; i++) {
        struct member *of = &h->members[i];
        of->trained = takes(t, &t->block.items[i]);
        if (!of->trained)
            continue;
        if (!alloc_member(h, i, e))
            return false;
        codes = max_u64(codes, of->q.codes.size);
        scales = max_u64(scales, of->q.scales.size);
        room = max_u64(room, share_room(of->q.rows, of->q.cols));
    }
    if (h->shared) {
        h->room = malloc(room * sizeof *h->room);
        h->chunk_errors = malloc((size_t)comm_size() * 2 * h->n_chunks * sizeof *h->chunk_errors);
        if (!h->room || !h->chunk_errors)
            return err_nomem(e, "gradients between ranks", room * sizeof *h->room);
        if (!gpu_alloc(t->arena, 2 * h->n_chunks * sizeof(float), &h->chunks, e))
            return false;
    }
    return gpu_alloc(t->arena, codes, &h->codes, e) && gpu_alloc(t->arena, scales, &h->scales, e) &&
           block_scratch_create(&h->fwd, t->arena, t->m, t->micro, scratch_of(t->half), e) &&
           bwd_scratch_create(&h->bwd, t->arena, t->m, t->micro, parts_of(t->o, t->half), e) &&
           gpu_alloc(t->arena, t->micro * window, &h->x, e) && gpu_alloc(t->arena, t->micro * window, &h->target, e) &&
           gpu_alloc(t->arena, t->micro * window, &h->y, e) &&
           (!t->metric.size || gpu_alloc(t->arena, t->micro * window, &h->missed, e)) &&
           gpu_alloc(t->arena, t->micro * t->m->ctx * 4ull, &h->row_loss, e) &&
           gpu_alloc(t->arena, t->micro * t->m->ctx * 4ull, &h->weights, e) &&
           gpu_alloc(t->arena, (h->per_epoch + 2) * 4ull, &h->sums, e);
}

static bool train(struct half *h, struct qlinear *q, struct stage_report *r, struct err *e)
{
    bool diverged = true;
    if (!weigh_tokens(h, e))
        return false;
    if (!judge(h, h->t->w, &r->trained.loss_start, &h->unweighted_start, e))
        return false;
    r->trained.loss_final = r->trained.loss_start;
    float *soft = calloc(h->gumbel.steps, sizeof *soft);
    if (!soft)
        return err_nomem(e, "the training curve", h->gumbel.steps * sizeof *soft);
    float rate = 1;
    bool ok = attempt(h, q, rate, r, soft, &diverged, e);
    while (ok && diverged && r->trained.retries < EPOCH_RETRIES) {
        r->trained.retries++;
        rate /= 2;
        ok = attempt(h, q, rate, r, soft, &diverged, e);
    }
    free(soft);
    return ok;
}

/* The result: best codes where an epoch was better than the start, and their weights for what follows. */
static bool settle(struct half *h, struct qlinear *q, const struct stage_report *r, struct err *e)
{
    for (uint32_t i = 0; i < h->t->block.n; i++) {
        struct member *of = &h->members[i];
        if (!of->trained)
            continue;
        if (r->trained.best_epoch) {
            qmatrix_copy(h->t->m->cmd, &of->q, &of->best);
            qlinear_free(&q[i]);
        }
        if (r->trained.best_epoch &&
            (!qmatrix_download(h->t->m->cmd, &of->q, &q[i], e) || (h->shared && !share_codes(&q[i], SHARE_ROWS, e))))
            return false;
        const enum gpu_part before =
            gpu_part_begin(h->t->m->cmd, r->trained.best_epoch ? GPU_PART_EXCHANGE : GPU_PART_OWN);
        if ((h->shared || !r->trained.best_epoch) && !qmatrix_upload(h->t->m->cmd, &of->q, &q[i], e))
            return false;
        gpu_part_end(h->t->m->cmd, before);
        qmatrix_dequant(h->t->m->cmd, &of->q, h->t->w->w[i]);
    }
    return true;
}

/* Room for the best epoch. */
static bool kept_create(struct half *h, struct gpu_arena *kept, struct err *e)
{
    bool ok = true;
    for (uint32_t i = 0; ok && i < h->t->block.n; i++) {
        struct member *of = &h->members[i];
        if (of->trained)
            ok = qmatrix_create(&of->best, kept, of->q.rows, of->q.cols, of->q.spec, e);
    }
    return ok;
}

static bool trains(const struct tune_block_task *t)
{
    bool any = false;
    for (uint32_t i = 0; i < t->block.n; i++)
        any = any || takes(t, &t->block.items[i]);
    return any && t->o->block.epochs;
}

static void half_free(struct half *h)
{
    for (uint32_t i = 0; h->members && i < h->t->block.n; i++) {
        free(h->members[i].parts);
        free(h->members[i].sum);
    }
    free(h->room);
    free(h->chunk_errors);
    free(h->members);
    free(h->grads.w);
    free(h->hard.w);
    free(h->order);
    free(h->token_weight);
}

/* ---- what ranks exchange ---- */

/* The schedule of an epoch (epoch_run, judge). */
struct epoch_plan {
    uint32_t train, judges, per_epoch, n_chunks;
};

static struct epoch_plan epoch_plan(const struct tune_block_task *t)
{
    const uint32_t train = t->samples - t->holdout, batch = tune_block_batch(t->o, train),
                   judges = t->holdout ? t->holdout : train;
    return (struct epoch_plan){.train = train,
                               .judges = judges,
                               .per_epoch = (uint32_t)div_up(train, batch),
                               .n_chunks = (uint32_t)div_up(max_u64(batch, judges), t->micro)};
}

/* Windows of a step, with so many done before. */
static uint32_t step_windows(const struct epoch_plan *p, uint32_t step, uint32_t done)
{
    return (p->train - done) / (p->per_epoch - step);
}

bool tune_block_parts(const struct tune_block_task *t)
{
    return t->shared && tune_block_batch(t->o, t->samples - t->holdout) > t->micro;
}

double tune_block_busiest(const struct tune_block_task *t, unsigned ranks, double *judged)
{
    const struct epoch_plan p = epoch_plan(t);
    double train = 0;
    for (uint32_t i = 0, done = 0, n; i < p.per_epoch; i++, done += n) {
        n = step_windows(&p, i, done);
        const double chunks = (double)div_up(n, t->micro);
        train += tune_block_parts(t) ? n * (double)div_up((uint64_t)chunks, ranks) / chunks : n;
    }
    const double chunks = (double)div_up(p.judges, t->micro);
    *judged = tune_block_parts(t) ? p.judges * (double)div_up((uint64_t)chunks, ranks) / chunks : p.judges;
    return train;
}

uint64_t tune_block_room(const struct tune_block_task *t, unsigned ranks)
{
    uint64_t room = 0, sums = 0;
    for (uint32_t i = 0; i < t->block.n && tune_block_parts(t) && ranks > 1; i++) {
        const struct matrix *item = &t->block.items[i];
        const double own = share_busiest(item->rows, SHARE_ROWS, ranks) * item->rows * item->cols * sizeof(float);
        if (!takes(t, item))
            continue;
        room = max_u64(room, (uint64_t)item->rows * item->cols * sizeof(float) + (uint64_t)(own * ranks));
        sums += (uint64_t)own;
    }
    return room + sums;
}

/* Each matrix in training: its gradients of `have` chunks at a time, or its weights, or its codes. */
static void expect_members(struct comm_expected *x, const struct tune_block_task *t, enum comm_kind what, unsigned have,
                           uint64_t times)
{
    for (uint32_t i = 0; i < t->block.n; i++) {
        const struct matrix *item = &t->block.items[i];
        if (!takes(t, item))
            continue;
        if (what == COMM_GRADIENTS)
            share_sum_expect(x, COMM_GRADIENTS, item->rows, item->cols, have, times);
        else if (what == COMM_WEIGHTS)
            share_weights_expect(x, item->rows, item->cols, times);
        else
            share_codes_expect(x, item->rows, SHARE_ROWS, item->cols, &item->spec);
    }
}

void tune_block_expect(struct comm_expected *x, const struct tune_block_task *t, const struct training_report *went)
{
    const struct epoch_plan p = epoch_plan(t);
    const uint32_t epochs = went ? went->ran : t->o->block.epochs, attempts = 1 + (went ? went->retries : 0);
    if (!trains(t) || !tune_block_parts(t) || x->ranks == 1)
        return;
    for (uint32_t i = 0, done = 0, n; i < p.per_epoch; i++, done += n) {
        n = step_windows(&p, i, done);
        const uint32_t chunks = (uint32_t)div_up(n, t->micro);
        expect_members(x, t, COMM_GRADIENTS, x->ranks, (uint64_t)epochs * (chunks / x->ranks));
        if (chunks % x->ranks)
            expect_members(x, t, COMM_GRADIENTS, chunks % x->ranks, epochs);
    }
    /* The starts', each step's, and hard ones of each epoch; errors of steps, and of judging the start and each epoch. */
    expect_members(x, t, COMM_WEIGHTS, 0, attempts + (uint64_t)epochs * (p.per_epoch + 1));
    comm_expect_gather(x, COMM_LOSSES, x->ranks, 1, 2ull * p.n_chunks * sizeof(float),
                       1 + (uint64_t)epochs * (p.per_epoch + 1));
    if (!went || went->best_epoch)
        expect_members(x, t, COMM_CODES, 0, 1);
}

bool tune_block_count(const struct tune_block_task *t, struct err *e)
{
    gpu_mark mark = gpu_arena_mark(t->arena);
    struct half h = {0};
    bool ok = !trains(t) || half_create(&h, t, e);
    gpu_arena_reset(t->arena, mark);
    half_free(&h);
    return ok;
}

bool tune_block(const struct tune_block_task *t, struct qlinear *q, struct stage_report *r, struct err *e)
{
    uint64_t begin = os_now_ns();
    gpu_mark mark = gpu_arena_mark(t->arena);
    struct half h = {0};
    *r = (struct stage_report){.stage = t->half == HALF_EXPERTS ? STAGE_EXPERTS : (enum tune_stage)t->half,
                               .trained = {.loss_start = NAN, .loss_final = NAN}};
    r->layer = t->block.n ? t->block.items[0].layer : 0;
    if (!trains(t))
        return true;
    struct gpu_arena *own = NULL, *kept = t->kept;
    bool ok = half_create(&h, t, e) && (kept || gpu_arena_create_host(&own, t->m->gpu, "best epoch", e));
    kept = kept ? kept : own;
    ok = ok && kept_create(&h, kept, e);
    if (ok) {
        r->trained.steps = h.gumbel.steps;
        r->trained.epochs = t->o->block.epochs;
        ok = train(&h, q, r, e) && settle(&h, q, r, e);
    }
    /* Nothing of the arena may be in use when it is given back. */
    ok = gpu_cmd_finish(t->m->cmd, ok ? e : NULL) && ok;
    gpu_arena_reset(t->arena, mark);
    if (kept)
        gpu_arena_reset(kept, 0);
    gpu_arena_destroy(&own);
    half_free(&h);
    r->trained.seconds = (double)(os_now_ns() - begin) * 1e-9;
    return ok;
}
