/* One block of a run: what is gathered, quantized and trained, in which order.
 *
 *     attention:     teacher's output -> Hessians of q,k,v | o -> q,k,v,o -> trained together on that output
 *     feed-forward:  the same after the quantized attention, for gate,up | down
 *
 * The teacher is the 16-bit model on its own, 16-bit hidden states (not on the student's): what earlier
 * blocks lost is part of the error that later ones learn to take back. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/comm.h"
#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/stop_point.h"
#include "host/gpu/tiled.h"
#include "host/model/batch.h"
#include "host/quant/plan/refine.h"
#include "host/quant/run/job_internal.h"
#include "host/quant/method/drift.h"
#include "host/quant/method/quant_linear.h"
#include "host/quant/method/tune_block.h"

/* ---- forward passes ---- */

/* Adds windows [w0, w0+n) to a Hessian: the first samples - holdout windows teach, the others judge. */
static void gather(struct job *j, const struct hessian *h, struct gpu_view x, uint32_t w0, uint32_t n)
{
    uint32_t ctx = j->plan.ctx, teach = j->plan.samples - j->plan.holdout;
    uint32_t first = w0 >= teach ? 0 : (uint32_t)min_u64(n, teach - w0), second = n - first;
    uint64_t window = (uint64_t)ctx * h->n * 4;
    if (first)
        hessian_add(j->cmd, h, HESSIAN_TRAIN, gpu_slice(x, 0, first * window), first * ctx,
                    2.0f / ((float)teach * (float)ctx));
    if (second)
        hessian_add(j->cmd, h, HESSIAN_HELD, gpu_slice(x, first * window, second * window), second * ctx,
                    2.0f / ((float)j->plan.holdout * (float)ctx));
}

static void gather_pieces(struct job *j, const struct hessian *h, const struct batch *b, const struct walk *k)
{
    const uint64_t bytes = block_queries_bytes(j->m, k->n);
    block_queries(j->m, &b->s, k->n);
    for (uint32_t p = 0; p < h->pieces; p++) {
        const struct hessian piece = hessian_piece(h, p);
        gather(j, &piece, gpu_slice(block_input(&b->s, INPUT_QUERIES), p * bytes, bytes), k->at, k->n);
    }
}

/* What a half learns from: of each input at its number. */
struct half_sums {
    struct hessian h[INPUT_COUNT];
    struct drift drift[INPUT_COUNT]; /* sums are empty where none is made good */
    bool corrects;
};

/* Linears of a half in the order in which they are quantized: all by the same pass, or the last after the others, since it makes good what
 * these lose, too. */
enum turn { TURN_ALL, TURN_FIRST, TURN_LAST };

static bool has_turn(enum input in, enum turn turn)
{
    return turn == TURN_ALL || input_is_last(in) == (turn == TURN_LAST);
}

static void gather_hessians(struct job *j, struct half_sums *sums, enum turn turn, const struct batch *b,
                            const struct walk *k)
{
    for (int in = 0; in < INPUT_COUNT; in++) {
        const struct hessian *h = &sums->h[in];
        if (!h->n || !has_turn((enum input)in, turn))
            continue;
        if (h->pieces > 1)
            gather_pieces(j, h, b, k);
        else
            gather(j, h, block_input(&b->s, (enum input)in), k->at, k->n);
    }
}

/* What is lost in those windows of a batch that teach, at the linears that read `in`. */
static void gather_drift(struct job *j, const struct drift *d, enum input in, const struct batch *b,
                         const struct walk *k)
{
    const uint32_t teach = j->plan.samples - j->plan.holdout;
    if (!d->sum.size || k->at >= teach)
        return;
    const uint32_t tokens = (uint32_t)min_u64(k->n, teach - k->at) * j->plan.ctx;
    const float scale = d->last ? (float)config_factor(j->m->cfg->residual_scale) : 1;
    drift_add(j->cmd, d, b->lost, block_input(&b->s, in), tokens, 2.0f / ((float)teach * (float)j->plan.ctx * scale));
}

/* lost = teacher - student, of a batch. */
static void subtract(struct job *j, struct gpu_view teacher, struct gpu_view student, const struct batch *b,
                     const struct walk *k)
{
    tiled_subtract(j->cmd,
                   &(struct subtract_args){
                       .a = teacher, .b = student, .d = b->lost, .n = k->n * j->plan.ctx * j->m->cfg->hidden_size});
}

/* A batch to the inputs of a half's linears, and these to their sums. Teacher: of what comes in for the first linears, of what the half
 * gives for the last. */
static bool gather_batch(struct job *j, enum block_half half, const struct block_weights *w, struct half_sums *sums,
                         enum turn turn, struct batch *b, const struct walk *k, struct err *e)
{
    struct gpu_view teacher;
    if (turn != TURN_ALL && !acts_get(j->targets, k->at, k->n, b->teacher, &teacher, e))
        return false;
    if (turn == TURN_FIRST) {
        const struct gpu_view norm = gpu_slice(b->s.norm, 0, acts_bytes(j->m, k->n));
        block_half_norm(j->m, half, w, &b->s, teacher, k->n);
        gpu_copy(j->cmd, b->lost, norm, norm.size);
        block_half_norm(j->m, half, w, &b->s, k->x, k->n);
        subtract(j, b->lost, norm, b, k);
    } else if (turn == TURN_LAST) {
        block_half_fwd(j->m, half, w, &b->s, k->x, b->lost, k->n);
        subtract(j, teacher, b->lost, b, k);
    } else {
        block_half_inputs(j->m, half, w, &b->s, k->x, k->n);
    }
    gather_hessians(j, sums, turn, b, k);
    for (int in = 0; in < INPUT_COUNT; in++)
        if (has_turn((enum input)in, turn))
            gather_drift(j, &sums->drift[in], (enum input)in, b, k);
    return true;
}

/* Multiply-adds of all products of a half: of those linears that a pass goes through, and of sums that it gathers. */
static double half_products(const struct job *j, enum block_half half, bool last)
{
    const struct block_shape b = model_block(j->m, j->layer);
    double each = 0;
    for (uint32_t i = 0; i < b.n; i++) {
        const struct block_part *p = b.matrices[i].part;
        if (p->half == half && (last || !input_is_last(p->input)))
            each += (double)b.matrices[i].rows * b.matrices[i].cols;
    }
    return each * j->plan.samples * j->plan.ctx;
}

static double sums_products(const struct job *j, const struct half_sums *sums, enum turn turn)
{
    double each = 0;
    for (int in = 0; in < INPUT_COUNT; in++) {
        const struct hessian *h = &sums->h[in];
        if (!h->n || !has_turn((enum input)in, turn))
            continue;
        each += hessian_products(h->n) * (double)max_u64(1, h->pieces);
        if (sums->drift[in].sum.size)
            each += (double)sums->drift[in].rows * sums->drift[in].n;
    }
    return each * j->plan.samples * j->plan.ctx;
}

/* A pass through half a block over all windows of `acts`, which become the half's output. */
static bool run_pass(struct job *j, enum block_half half, struct acts *acts, const struct block_weights *w,
                     struct err *e)
{
    gpu_mark mark = gpu_arena_mark(j->scratch);
    struct batch b;
    job_begin(j, WORK_FORWARD, job_shared_half_work(j, j->layer, half));
    progress_meter(&j->watch, half_products(j, half, true));
    struct walk k = job_walk(j, acts, j->plan.samples);
    k.keep = k.share = true;
    const enum gpu_part before = gpu_part_begin(j->cmd, GPU_PART_UNITS);
    if (batch_create(&b, j->scratch, j->m, k.batch, false, e)) {
        k.staging = b.hidden;
        while (walk_next(&k, e))
            block_half_fwd(j->m, half, w, &b.s, k.x, k.x, k.n);
    }
    bool ok = walk_end(&k, e);
    gpu_part_end(j->cmd, before);
    job_end(j);
    gpu_arena_reset(j->scratch, mark);
    return ok;
}

/* The same over the student's, which stay: what linears of that turn learn from is gathered. */
static bool gather_pass(struct job *j, enum block_half half, const struct block_weights *w, struct half_sums *sums,
                        enum turn turn, struct err *e)
{
    gpu_mark mark = gpu_arena_mark(j->scratch);
    struct batch b;
    bool ok = true;
    job_begin(j, WORK_HESSIAN, job_hessian_work(j, j->layer, half) / (turn == TURN_ALL ? 1 : 2));
    progress_meter(&j->watch,
                   sums_products(j, sums, turn) + (turn == TURN_FIRST ? 0 : half_products(j, half, turn == TURN_LAST)));
    struct walk k = job_walk(j, j->acts, j->plan.samples);
    for (int in = 0; in < INPUT_COUNT; in++) {
        sums->h[in].shared = has_turn((enum input)in, turn) && sums->h[in].n && sums->h[in].pieces <= 1;
        sums->drift[in].shared = has_turn((enum input)in, turn) && sums->drift[in].sum.size;
    }
    if (batch_create(&b, j->scratch, j->m, k.batch, turn != TURN_ALL, e)) {
        k.staging = b.hidden;
        while (ok && walk_next(&k, e))
            ok = gather_batch(j, half, w, sums, turn, &b, &k, e);
    }
    ok = walk_end(&k, ok ? e : NULL) && ok;
    for (int in = 0; in < INPUT_COUNT; in++)
        ok = ok && (!sums->h[in].shared || hessian_exchange(j->cmd, &sums->h[in], e)) &&
             (!sums->drift[in].shared || drift_exchange(j->cmd, &sums->drift[in], e));
    job_end(j);
    gpu_arena_reset(j->scratch, mark);
    return ok;
}

/* What a half of a model with experts should give: its 16-bit weights on the student's own input. A second chain of the whole
 * 16-bit model would take every expert once more. */
static bool student_targets(struct job *j, enum block_half half, const struct block_weights *w, struct err *e)
{
    gpu_mark mark = gpu_arena_mark(j->scratch);
    struct walk k = job_walk(j, j->acts, j->plan.samples);
    struct batch b;
    bool ok = true;
    job_begin(j, WORK_FORWARD, job_half_work(j, j->layer, half));
    if (batch_create(&b, j->scratch, j->m, k.batch, false, e)) {
        k.staging = b.hidden;
        while (ok && walk_next(&k, e)) { /* where windows are used in place, staging is free */
            block_half_fwd(j->m, half, w, &b.s, k.x, b.hidden, k.n);
            ok = acts_put(j->targets, k.at, k.n, b.hidden, e);
        }
    }
    ok = walk_end(&k, ok ? e : NULL) && ok;
    job_end(j);
    gpu_arena_reset(j->scratch, mark);
    return ok;
}

/* ---- linears ---- */

bool block_result_make(struct block_result *r, uint32_t n, struct err *e)
{
    *r = (struct block_result){.n = n, .q = calloc(n + 1u, sizeof *r->q), .report = calloc(n + 1u, sizeof *r->report)};
    return (r->q && r->report) || err_nomem(e, "a block's result", n * (sizeof *r->q + sizeof *r->report));
}

void block_result_free(struct block_result *r)
{
    for (uint32_t i = 0; r->q && i < r->n; i++)
        qlinear_free(&r->q[i]);
    free(r->q);
    free(r->report);
    *r = (struct block_result){0};
}

/* One linear alone: what came before its first step is not learning. */
struct linear_watch {
    struct job *j;
    const struct matrix *item;
    uint32_t steps;
    bool heard;
};

static bool on_step(void *ctx, uint32_t step, uint32_t steps, double loss)
{
    struct linear_watch *w = ctx;
    if (!w->heard) {
        job_end(w->j);
        job_begin(w->j, WORK_LEARN, job_learn_work(w->j, w->item, w->steps));
    }
    w->heard = true;
    return job_tell_step(w->j, "quantize", (double)step / steps, step, steps, loss);
}

/* Begins a piece of work whose progress is told in parts. */
static bool begin_piece(struct job *j, const char *phase, const char *what, enum work kind, double seconds,
                        struct err *e)
{
    job_detail(j, what);
    job_begin(j, kind, seconds);
    return job_stored(j, false, e) && job_tell(j, 0, job_event(j, phase), e);
}

bool job_quantize_linear(struct job *j, const struct quantize_options *o, const struct matrix *item, struct gpu_view w,
                         const struct hessian *h, const struct drift *drift, bool shared, struct block_result *r,
                         struct err *e)
{
    struct linear_watch watch = {.j = j, .item = item, .steps = o->gumbel.steps};
    struct tune_hooks hooks = {on_step, &watch};
    if (!begin_piece(j, "quantize", block_part_short_name(item->part), WORK_ROUND, job_round_work(j, item), e))
        return false;
    struct qlinear start = {0};
    char own[MODULE_CAP];
    if (j->refined && !checkpoint_read_codes(j->refined_ck, refine_module(j->refined_ck, j->ck, item, own), &start, e))
        return false;
    struct linear_task t = {.cmd = j->cmd,
                            .start = j->refined ? &start : NULL,
                            .options = o,
                            .item = item,
                            .w = w,
                            .hessian = h,
                            .drift = drift,
                            .scratch = j->scratch,
                            .tune_bytes = j->plan.tune_bytes,
                            .hooks = &hooks,
                            .shared = shared};
    struct linear_report *report = &r->report[item->place];
    gpu_mark mark = gpu_arena_mark(j->scratch);
    bool ok = job_load_outputs(j, item, &t.outputs, e) && quantize_linear(&t, &r->q[item->place], report, e);
    gpu_arena_reset(j->scratch, mark);
    qlinear_free(&start);
    if (!ok)
        return e->kind != ERR_STOPPED && err_context(e, "%s", item->module);
    if (report->diagonal_only)
        log_warn("%s: its Hessian is not positive definite at any damping; quantized without error feedback",
                 item->module);
    else if (report->damp_raised)
        log_warn("%s: its Hessian needed more damping than %g", item->module, (double)j->o->damp);
    job_end(j);
    j->out->made++;
    stop_point("linear", NULL);
    return true;
}

bool job_kept_matrix(struct job *j, const struct matrix *item, struct gpu_view w, struct err *e)
{
    char own[MODULE_CAP];
    return j->refined
               ? model_load_matrix(j->refined, refine_module(j->refined_ck, j->ck, item, own), 0, item->rows, w, e)
               : model_load_matrix(j->m, item->module, 0, item->rows, w, e);
}

bool job_student_frame(struct job *j, enum block_half half, struct block_weights *w, struct err *e)
{
    return !j->refined || model_load_half_frame(j->refined, j->layer, half, w, e);
}

/* What processes share of half a block. */
struct half_work {
    struct job *j;
    enum block_half half;
    struct block_items block, items; /* all of the block's, the half's */
    struct block_weights *w;
    struct block_result *r;
    struct half_sums sums;
    enum turn turn;
    bool stored; /* the block's file is there: another process has finished it */
};

static struct block_items half_items(struct block_items b, enum block_half half)
{
    uint32_t first = 0, n = 0;
    while (first < b.n && b.items[first].part->half != half)
        first++;
    while (first + n < b.n && b.items[first + n].part->half == half)
        n++;
    return (struct block_items){b.items + first, n};
}

static bool look_stored(struct half_work *x)
{
    struct job *j = x->j;
    if (!x->stored && j->queue)
        x->stored = store_look(j->store, j->layer, 0, store_part(x->block, 0));
    return x->stored;
}

static const char *linear_unit(void *ctx, uint32_t i, char out[UNIT_NAME_CAP])
{
    const struct half_work *x = ctx;
    return store_unit_linear(&x->items.items[i], out);
}

static bool look_linear(void *ctx, uint32_t i, bool *there, struct err *e)
{
    struct half_work *x = ctx;
    struct job *j = x->j;
    const struct matrix *item = &x->items.items[i];
    const uint32_t at = item->place;
    char unit[UNIT_NAME_CAP];
    *there = !has_turn(item->part->input, x->turn) || look_stored(x) || (!item->coded && !j->refined);
    if (*there || !j->queue || !item->coded ||
        !store_get_unit(j->store, store_unit_linear(item, unit), (struct block_items){item, 1}, &x->r->q[at],
                        &x->r->report[at], NULL))
        return true;
    *there = true;
    job_skip_linear(j, item);
    return job_dequant(j, item, &x->r->q[at], x->w->w[at], e);
}

static bool make_linear(void *ctx, uint32_t i, struct err *e)
{
    struct half_work *x = ctx;
    struct job *j = x->j;
    const struct matrix *item = &x->items.items[i];
    const struct half_sums *sums = &x->sums;
    const enum input in = item->part->input;
    const uint32_t at = item->place;
    char unit[UNIT_NAME_CAP];
    if (!item->coded)
        return job_kept_matrix(j, item, x->w->w[at], e);
    return job_quantize_linear(j, j->o, item, x->w->w[at], plan_needs_hessian(j->o, item) ? &sums->h[in] : NULL,
                               sums->corrects ? &sums->drift[in] : NULL, true, x->r, e) &&
           (!job_shared(j) || store_put_unit(j->store, store_unit_linear(item, unit), (struct block_items){item, 1},
                                             &x->r->q[at], &x->r->report[at], NULL, e));
}

/* Those whose turn it is, here or in another process. */
static bool turn_linears(struct half_work *x, enum turn turn, struct err *e)
{
    const struct job_units linears = {.n = x->items.n,
                                      .what = "linears of another process",
                                      .name = linear_unit,
                                      .look = look_linear,
                                      .make = make_linear,
                                      .ctx = x};
    x->turn = turn;
    return job_each_unit(x->j, &linears, e);
}

static bool half_teacher(struct job *j, enum block_half half, const struct block_weights *w, struct err *e)
{
    job_detail(j, "teacher");
    return plan_chained(&j->plan) ? run_pass(j, half, j->targets, w, e) : student_targets(j, half, w, e);
}

/* What the half should give where something learns from that, then its linears one by one. */
static bool half_linears(struct half_work *x, uint64_t *clock, struct err *e)
{
    struct job *j = x->j;
    const enum block_half half = x->half;
    const struct block_items b = x->block;
    struct block_weights *w = x->w;
    struct half_sums *sums = &x->sums;
    const char *inputs = half == HALF_ATTN ? "attention inputs" : "feed-forward inputs";
    const bool teacher = j->targets && (plan_chained(&j->plan) || plan_trains(j->o, half, plan_common(b)));
    sums->corrects = plan_corrects(&j->plan, j->o, half, b);
    const enum turn first = sums->corrects ? TURN_FIRST : TURN_ALL;
    bool ok = true;
    if (teacher && !sums->corrects)
        ok = half_teacher(j, half, w, e);
    if (ok && plan_gathers(j->o, half, b)) {
        job_detail(j, inputs);
        ok = hessian_create_half(sums->h, j->cmd, j->hess, model_block(j->m, j->layer), half, j->plan.holdout > 0, e) &&
             (!sums->corrects || drift_create_half(sums->drift, j->m, j->hess, w, half, e)) &&
             gather_pass(j, half, w, sums, first, e);
    }
    /* While its weights have 16 bits still. */
    if (ok && teacher && sums->corrects)
        ok = half_teacher(j, half, w, e);
    job_clock(j, PHASE_CALIBRATE, clock);
    ok = ok && job_student_frame(j, half, w, e) && turn_linears(x, first, e);
    job_clock(j, PHASE_LINEARS, clock);
    if (ok && sums->corrects && !x->stored) {
        job_detail(j, inputs);
        ok = gather_pass(j, half, w, sums, TURN_LAST, e);
        job_clock(j, PHASE_CALIBRATE, clock);
        ok = ok && turn_linears(x, TURN_LAST, e);
        job_clock(j, PHASE_LINEARS, clock);
    }
    gpu_arena_reset(j->hess, 0);
    gpu_arena_trim(j->hess);
    gpu_arena_trim(j->scratch);
    return ok;
}

static bool half_train(struct job *j, enum block_half half, struct block_weights *w, struct block_result *r,
                       uint64_t *clock, struct err *e)
{
    struct tune_hooks hooks = {job_on_tune_step, j};
    struct stage_report *report = &r->stages[half];
    const char *name = stage_name((enum tune_stage)half);
    if (!begin_piece(j, "train", name, WORK_TRAIN, job_tune_work(j, j->layer, half), e))
        return false;
    struct tune_block_task t = job_tune_task(j, j->layer, half);
    t.w = w;
    t.inputs = j->acts;
    t.targets = j->targets;
    t.arena = j->scratch;
    t.kept = j->kept;
    t.hooks = &hooks;
    const struct matrix *last = plan_metric(&j->plan, j->m, j->o, half, t.block);
    const gpu_mark mark = gpu_arena_mark(j->scratch);
    if ((last && !job_load_outputs(j, last, &t.metric, e)) || !tune_block(&t, r->q, report, e))
        return e->kind != ERR_STOPPED && err_context(e, "%s", name);
    gpu_arena_reset(j->scratch, mark);
    job_tell_retries(j, name, report);
    job_end(j);
    gpu_arena_trim(j->scratch);
    job_clock(j, PHASE_BLOCKS, clock);
    stop_point("half", NULL);
    return true;
}

/* What the work folder has of a finished block. */
static bool half_stored(struct job *j, enum block_half half, struct block_items b, struct block_weights *w,
                        struct err *e)
{
    bool ok = job_student_frame(j, half, w, e);
    for (uint32_t i = 0; ok && i < w->shape.n; i++) {
        const struct matrix *item = &b.items[i];
        if (item->part->half != half)
            continue;
        if (!item->coded && j->refined)
            ok = job_kept_matrix(j, item, w->w[i], e);
        if (item->coded)
            ok = job_stored_linear(j, item, w->w[i], e);
    }
    return ok;
}

/* Codes of the half that another process has trained, to r. */
static bool get_half(const struct half_work *x)
{
    const uint32_t first = x->items.items[0].place;
    char unit[UNIT_NAME_CAP];
    return x->j->queue && store_get_unit(x->j->store, store_unit_half(x->j->layer, x->half, unit), x->items,
                                         x->r->q + first, x->r->report + first, x->r->stages);
}

/* What they give, to the device. */
static bool load_half(const struct half_work *x, struct err *e)
{
    struct job *j = x->j;
    bool ok = job_student_frame(j, x->half, x->w, e);
    eta_skip(&j->eta, WORK_TRAIN, job_tune_work(j, j->layer, x->half));
    j->found = true;
    for (uint32_t i = 0; ok && i < x->items.n; i++) {
        const struct matrix *item = &x->items.items[i];
        const struct gpu_view w = x->w->w[item->place];
        ok = item->coded ? job_dequant(j, item, &x->r->q[item->place], w, e)
                         : !j->refined || job_kept_matrix(j, item, w, e);
    }
    return ok;
}

struct half_training {
    struct half_work *x;
    uint64_t *clock;
};

static const char *training_unit(void *ctx, uint32_t i, char out[UNIT_NAME_CAP])
{
    const struct half_training *t = ctx;
    (void)i;
    return store_unit_half(t->x->j->layer, t->x->half, out);
}

static bool look_half(void *ctx, uint32_t i, bool *there, struct err *e)
{
    struct half_work *x = ((struct half_training *)ctx)->x;
    (void)i;
    *there = look_stored(x);
    if (*there || !get_half(x))
        return true;
    *there = true;
    return load_half(x, e);
}

static bool make_half(void *ctx, uint32_t i, struct err *e)
{
    const struct half_training *t = ctx;
    const struct half_work *x = t->x;
    struct job *j = x->j;
    const uint32_t first = x->items.items[0].place;
    char unit[UNIT_NAME_CAP];
    (void)i;
    return half_train(j, x->half, x->w, x->r, t->clock, e) &&
           (!job_shared(j) || store_put_unit(j->store, store_unit_half(j->layer, x->half, unit), x->items,
                                             x->r->q + first, x->r->report + first, x->r->stages, e));
}

/* Half a block becomes what its file will hold, here or in another process, and the targets what it should give. *stored: the block's file is
 * there; another process may write it meanwhile. */
static bool work_half(struct job *j, enum block_half half, struct block_items b, struct block_weights *w,
                      struct block_result *r, bool *stored, uint64_t *clock, struct err *e)
{
    struct half_work x = {
        .j = j, .half = half, .block = b, .items = half_items(b, half), .w = w, .r = r, .stored = *stored};
    struct half_training t = {&x, clock};
    const struct job_units train = {.n = 1,
                                    .what = "another process, which trains this half",
                                    .name = training_unit,
                                    .look = look_half,
                                    .make = make_half,
                                    .ctx = &t};
    const bool trains = plan_trains(j->o, half, plan_common(b));
    const bool made = look_stored(&x) || (trains && get_half(&x));
    bool ok;
    if (made)
        ok = (!plan_chained(&j->plan) || !j->targets || half_teacher(j, half, w, e)) && (x.stored || load_half(&x, e));
    else
        ok = half_linears(&x, clock, e) && (!trains || x.stored || job_each_unit(j, &train, e));
    *stored = x.stored;
    return ok && (!x.stored || half_stored(j, half, b, w, e));
}

/* ---- a block ---- */

/* Its weights to the device. */
static bool load_block(struct job *j, uint32_t layer, const char *what, struct block_weights *w, struct err *e)
{
    const struct block_items b = plan_block(&j->plan, layer);
    double seconds = 0;
    for (uint32_t i = 0; i < b.n; i++)
        seconds += job_load_work(j, &b.items[i]);
    bool ok = begin_piece(j, "calibrate", what, WORK_LOAD, seconds, e) && model_load_block(j->m, layer, j->block, w, e);
    job_end(j);
    return ok;
}

/* One linear's. */
static bool load_linear(struct job *j, const struct matrix *item, struct gpu_view *w, struct err *e)
{
    job_begin(j, WORK_LOAD, job_load_work(j, item));
    bool ok = gpu_alloc(j->block, (uint64_t)item->rows * item->cols * 4, w, e) &&
              model_load_matrix(j->m, item->module, 0, item->rows, *w, e);
    job_end(j);
    return ok;
}

/* GPTQ and GSQ: half by half, each on what was quantized before it. */
static bool block_calibrated(struct job *j, uint32_t layer, struct block_result *r, struct err *e)
{
    struct block_weights *w = &j->weights;
    const struct block_items b = plan_block(&j->plan, layer);
    uint64_t clock = os_now_ns();
    if (!load_block(j, layer, "loading", w, e))
        return false;
    const bool experts = config_has_experts(j->m->cfg, layer);
    bool stored = store_has_part(j->store, layer, 0);
    for (int i = 0; i < HALF_COUNT; i++) {
        enum block_half half = (enum block_half)i;
        const bool routes = half == HALF_FFN && experts, has = block_has_half(w->shape, half);
        if ((routes && !job_experts_teach(j, layer, w, e)) ||
            (has && !work_half(j, half, b, w, r, &stored, &clock, e)) || (routes && !job_experts_take(j, layer, w, e)))
            return false;
        if (!has)
            continue;
        job_detail(j, "outputs");
        if (!run_pass(j, half, j->acts, w, e))
            return false;
        job_clock(j, PHASE_CALIBRATE, &clock);
        /* The device has its own copy of this block now. */
        if (j->m->ahead && layer + 1 < j->plan.n_layers)
            block_ahead_begin(&j->ahead, j->m->gpu, j->ck, layer + 1, block_common(model_block(j->m, layer + 1)));
    }
    return !experts || (job_end_part(j, layer, r, e) && job_experts(j, layer, r, &clock, e));
}

/* A matrix with 2 * the mean squares of an input on its diagonal: the Hessian of inputs that are not
 * correlated. The floor keeps columns that the text of the sums never saw near their values; sums that say
 * nothing make all columns alike. */
static bool diagonal_hessian(struct job *j, const struct matrix *item, struct hessian *h, struct err *e)
{
    const struct imatrix_entry *x = imatrix_find(&j->imatrix, item->module);
    struct gpu_view diag;
    uint32_t n = item->cols;
    float *mean = malloc(n * sizeof *mean);
    if (!mean)
        return err_nomem(e, "a Hessian's diagonal", n * sizeof *mean);
    bool ok = hessian_create_diagonal(h, &diag, j->cmd, j->hess, n, e);
    double even = 0;
    for (uint32_t c = 0; c < n; c++)
        even += (double)x->sums[c] / x->count / n;
    for (uint32_t c = 0; c < n; c++)
        mean[c] = even > 1e-30 ? (float)(2 * fmax((double)x->sums[c] / x->count, 1e-6 * even)) : 1.0f;
    if (ok) {
        gpu_upload(j->cmd, diag, mean, n * 4ull);
        /* The unit matrix, then its rows scaled. */
        tiled_damp_diagonal(j->cmd, &(struct damp_diagonal_args){.h = h->train, .n = n, .ldh = n, .one = 1});
        tiled_scale_rows(j->cmd,
                         &(struct scale_rows_args){.x = h->train, .w = diag, .y = h->train, .rows = n, .cols = n});
    }
    free(mean);
    return ok;
}

/* Of a linear that is not stored: its codes to its place in r. */
static bool make_alone(struct job *j, const struct matrix *item, struct block_result *r, struct err *e)
{
    const bool weighed = quantize_diagonal(j->o) && plan_has_importance(item);
    struct gpu_view w;
    struct hessian h;
    const enum gpu_part before = gpu_part_begin(j->cmd, GPU_PART_UNITS);
    bool ok = load_linear(j, item, &w, e) && (!weighed || diagonal_hessian(j, item, &h, e)) &&
              job_quantize_linear(j, j->o, item, w, weighed ? &h : NULL, NULL, false, r, e);
    gpu_part_end(j->cmd, before);
    ok = gpu_cmd_finish(j->cmd, ok ? e : NULL) && ok;
    gpu_arena_reset(j->block, 0);
    gpu_arena_reset(j->hess, 0);
    return ok;
}

/* RTN, weights alone, or an importance matrix and no text: one linear at a time, of as many in a row as there are ranks each one. */
static bool block_one_by_one(struct job *j, uint32_t layer, struct block_result *r, struct err *e)
{
    const struct block_items b = plan_block(&j->plan, layer);
    const uint32_t ranks = comm_size();
    uint64_t clock = os_now_ns();
    bool ok = true;
    for (uint32_t i = 0; ok && i < b.n; i++) {
        const struct matrix *item = &b.items[i], *mine = item + comm_rank();
        if (store_part_of(item) != r->part)
            ok = job_end_part(j, layer, r, e);
        if (ok && i % ranks == 0 && mine < b.items + b.n && mine->coded &&
            !store_has_part(j->store, layer, store_part_of(mine)))
            ok = make_alone(j, mine, r, e);
        if (ok && item->coded && !store_has_part(j->store, layer, r->part))
            ok = job_give(j, item, i % ranks, r, e);
        job_clock(j, PHASE_LINEARS, &clock);
    }
    return ok;
}

bool job_alone(const struct job *j)
{
    return j->o->method == METHOD_RTN || quantize_diagonal(j->o);
}

bool job_block(struct job *j, uint32_t layer, struct block_result *r, struct err *e)
{
    bool ok = job_alone(j) ? block_one_by_one(j, layer, r, e) : block_calibrated(j, layer, r, e);
    gpu_arena_reset(j->block, 0);
    return ok;
}

bool job_stored_linear(struct job *j, const struct matrix *item, struct gpu_view w, struct err *e)
{
    struct qlinear q = {0};
    bool ok = store_read_linear(j->store, item, &q, NULL, e) && job_dequant(j, item, &q, w, e);
    qlinear_free(&q);
    return ok;
}

bool job_block_resume(struct job *j, uint32_t layer, struct err *e)
{
    const struct block_items b = plan_block(&j->plan, layer);
    const bool experts = config_has_experts(j->m->cfg, layer);
    struct block_weights *w = &j->weights;
    uint64_t clock = os_now_ns();
    bool ok = load_block(j, layer, "replaying", w, e);
    for (int i = 0; ok && j->targets && plan_chained(&j->plan) && i < HALF_COUNT; i++)
        ok = (i != HALF_FFN || !experts || job_experts_teach(j, layer, w, e)) &&
             (!block_has_half(w->shape, (enum block_half)i) || run_pass(j, (enum block_half)i, j->targets, w, e));
    for (int i = 0; ok && j->acts && i < HALF_COUNT; i++) {
        enum block_half half = (enum block_half)i;
        ok = half_stored(j, half, b, w, e) && (half != HALF_FFN || !experts || job_experts_take(j, layer, w, e)) &&
             (!block_has_half(w->shape, half) || run_pass(j, half, j->acts, w, e));
    }
    ok = ok && (!j->acts || !experts || job_experts(j, layer, NULL, &clock, e));
    gpu_arena_reset(j->block, 0);
    job_clock(j, PHASE_CALIBRATE, &clock);
    return ok;
}
