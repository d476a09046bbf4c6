#include <math.h>
#include <stdio.h>

#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/queue.h"
#include "host/base/stop_point.h"
#include "host/model/end_to_end.h"
#include "host/quant/run/job_internal.h"
#include "host/quant/method/output_hessian.h"
#include "host/quant/method/quant_linear.h"
#include "host/quant/method/share.h"
#include "host/quant/method/tune_block.h"
#include "host/quant/method/tune_scales.h"
#include "host/quant/plan/planner.h"

/* Where nothing was measured, and for what the host does: any machine, in seconds. */
#define SECONDS_PER_STEP  2e-9 /* a weight's optimiser step */
#define SECONDS_PER_CHECK 1e-9 /* a weight looked at */
#define SECONDS_PER_STORE 4e-9 /* a weight's code to the work folder, and to the disk */
#define SECONDS_PER_BYTE  2e-9 /* of the result's file */
#define SECONDS_PER_PACK  5e-9 /* a weight's code read from the work folder and packed into a GGUF */
#define PASS_SECONDS      1e-3 /* a position of text that the model writes, beside its products */
#define BLOCK_SECONDS     0.02 /* what a block takes beside all that */

/* ---- pieces of a run ---- */

bool job_reads_windows(const struct job *j)
{
    return j->o->method != METHOD_RTN && !quantize_diagonal(j->o);
}

static double gemm_seconds(const struct job *j, double multiply_adds)
{
    return multiply_adds * (j->speed.model.gemm > 0 ? j->speed.model.gemm : speed_guess(j->m->gpu));
}

/* Of one window. */
static double half_forward(const struct job *j, uint32_t layer, enum block_half half)
{
    const struct block_shape b = model_block(j->m, layer);
    const struct speed_block *s = speed_block(&j->speed.model, j->m, layer);
    double weights = 0;
    if (s && s->forward[half] > 0)
        return s->forward[half];
    for (uint32_t i = 0; i < b.n; i++)
        if (b.matrices[i].part->half == half)
            weights += (double)b.matrices[i].rows * b.matrices[i].cols;
    return gemm_seconds(j, weights * j->plan.ctx);
}

/* Backward through it; without the gradient of its input. */
static double half_backward(const struct job *j, uint32_t layer, enum block_half half)
{
    const struct speed_block *s = speed_block(&j->speed.model, j->m, layer);
    return s && s->backward[half] > 0 ? s->backward[half] : 2 * half_forward(j, layer, half);
}

double job_half_work(const struct job *j, uint32_t layer, enum block_half half)
{
    return j->plan.samples * half_forward(j, layer, half);
}

/* Of the windows of a shared walk, those of the busiest rank. */
static double windows_share(const struct job *j)
{
    uint32_t most = 0;
    for (unsigned r = 0; r < j->ranks; r++) {
        const struct comm_part part =
            comm_part_of(j->plan.samples, (uint32_t)max_u64(1, j->plan.batch_windows), r, j->ranks);
        most = part.end - part.first > most ? part.end - part.first : most;
    }
    return (double)most / j->plan.samples;
}

double job_shared_half_work(const struct job *j, uint32_t layer, enum block_half half)
{
    return windows_share(j) * job_half_work(j, layer, half);
}

static double hessian_seconds(const struct job *j, double multiply_adds)
{
    return j->speed.hessian > 0 ? multiply_adds * j->speed.hessian : gemm_seconds(j, multiply_adds);
}

double job_hessian_work(const struct job *j, uint32_t layer, enum block_half half)
{
    double ops = 0;
    for (int in = 0; in < INPUT_COUNT; in++) {
        const uint32_t cols = block_input_cols(model_block(j->m, layer), half, (enum input)in),
                       pieces = block_input_pieces(model_block(j->m, layer), half, (enum input)in);
        ops += (pieces > 1 ? pieces * hessian_products(cols) : hessian_busiest(cols, j->ranks)) * j->plan.samples *
               j->plan.ctx;
    }
    if (plan_corrects(&j->plan, j->o, half, plan_block(&j->plan, layer)))
        ops += drift_products(model_block(j->m, layer), half, j->m->cfg->hidden_size) / j->ranks * j->plan.samples *
               j->plan.ctx;
    return job_half_work(j, layer, half) + hessian_seconds(j, ops);
}

double job_load_work(const struct job *j, const struct matrix *i)
{
    return (double)i->rows * i->cols * (j->speed.model.load > 0 ? j->speed.model.load : SECONDS_PER_CHECK);
}

/* Of a linear's rows, those of the busiest rank; 1 where one rank makes all of it. */
static double rows_share(const struct job *j, const struct matrix *i)
{
    const uint32_t pieces = i->pieces > 1 ? i->pieces : 1;
    return block_part_is_expert(i->part) || !job_reads_windows(j)
               ? 1
               : share_busiest(i->rows / pieces, quantize_linear_unit(job_has_outputs(j, i)), j->ranks);
}

double job_round_work(const struct job *j, const struct matrix *i)
{
    const struct speed_linear *l = speed_linear(&j->speed, i);
    double n = (double)i->rows * i->cols, k = i->cols;
    const bool hessian = plan_needs_hessian(j->o, i);
    const double factor = hessian ? gemm_seconds(j, k * k * k / 2) : 0; /* which each rank makes */
    if (!i->coded)
        return 0;
    const double all =
        l ? hessian ? l->gptq : l->rtn : n * SECONDS_PER_STEP + factor + (hessian ? gemm_seconds(j, n * k * 5) : 0);
    return rows_share(j, i) * fmax(0, all - factor) + fmin(all, factor);
}

double job_learn_work(const struct job *j, const struct matrix *i, uint32_t steps)
{
    const struct speed_linear *l = speed_linear(&j->speed, i);
    double n = (double)i->rows * i->cols;
    if (!i->coded || !plan_alone(j->o, i))
        return 0;
    double step = l ? l->step : n * SECONDS_PER_STEP + gemm_seconds(j, n * i->cols);
    if (j->plan.output_windows)
        step += gemm_seconds(j, n * output_hessian_cols(i->rows));
    return steps * step * rows_share(j, i);
}

double job_store_work(struct block_items b)
{
    double n = 0;
    for (uint32_t i = 0; i < b.n; i++)
        n += b.items[i].coded ? (double)b.items[i].rows * b.items[i].cols : 0;
    return BLOCK_SECONDS + n * SECONDS_PER_STORE;
}

struct tune_block_task job_tune_task(const struct job *j, uint32_t layer, enum block_half half)
{
    return (struct tune_block_task){.m = j->m,
                                    .o = j->o,
                                    .half = half,
                                    .block = plan_common(plan_block(&j->plan, layer)),
                                    .samples = j->plan.samples,
                                    .holdout = j->plan.holdout,
                                    .micro = (uint32_t)max_u64(1, j->plan.micro_windows),
                                    .shared = true};
}

double job_tune_work(const struct job *j, uint32_t layer, enum block_half half)
{
    const struct block_options *o = &j->o->block;
    const struct tune_block_task t = job_tune_task(j, layer, half);
    const struct block_items b = plan_block(&j->plan, layer);
    double judged, train = tune_block_busiest(&t, j->ranks, &judged);
    double steps = 0, forward = half_forward(j, layer, half);
    double backward = half_backward(j, layer, half);
    for (uint32_t i = 0; i < b.n; i++) {
        const struct matrix *item = &b.items[i];
        const struct speed_linear *l = speed_linear(&j->speed, item);
        if (item->part->half == half && plan_joint(j->o, item))
            steps += (l ? l->joint : (double)item->rows * item->cols * SECONDS_PER_STEP) *
                     (tune_block_parts(&t) ? share_busiest(item->rows, SHARE_ROWS, j->ranks) : 1);
    }
    if (steps == 0)
        return 0;
    const struct matrix *last = plan_metric(&j->plan, j->m, j->o, half, t.block);
    if (last) /* errors times the metric */
        forward += gemm_seconds(j, (double)last->rows * output_hessian_cols(last->rows) * j->plan.ctx);
    return o->epochs * (train * (forward + backward) + (j->plan.holdout ? judged : 0) * forward) +
           j->plan.block_steps * steps;
}

/* ---- experts ---- */

static bool is_down(const struct matrix *i)
{
    return block_part_is_expert(i->part) && i->part->role == ROLE_DOWN;
}

/* Tokens of an expert that as many choose as any other. */
static double expert_tokens(const struct job *j)
{
    const struct expert_config *c = &j->m->cfg->experts;
    return (double)j->plan.samples * j->plan.ctx * c->used / c->n;
}

static double expert_products(const struct job *j)
{
    const struct model_config *c = j->m->cfg;
    return (double)EXPERT_MATRICES * c->hidden_size * c->experts.width;
}

/* So many passes of an expert over `tokens` in all. */
static double expert_forward(const struct job *j, double passes, double tokens)
{
    const struct speed_expert *x = &j->speed.model.expert;
    return x->forward_token > 0 ? passes * x->forward + tokens * x->forward_token
                                : gemm_seconds(j, tokens * expert_products(j));
}

static double expert_backward(const struct job *j, double passes, double tokens)
{
    const struct speed_expert *x = &j->speed.model.expert;
    return x->backward_token > 0 ? passes * x->backward + tokens * x->backward_token
                                 : 2 * expert_forward(j, passes, tokens);
}

double job_expert_forward_work(const struct job *j)
{
    return expert_forward(j, 1, expert_tokens(j));
}

double job_layer_hessian_work(const struct job *j, uint32_t layer)
{
    const struct block_items b = plan_block(&j->plan, layer);
    bool needs = false;
    for (uint32_t i = 0; i < b.n && !needs; i++)
        needs = is_down(&b.items[i]) && plan_needs_hessian(j->o, &b.items[i]);
    const double hidden = j->m->cfg->hidden_size, drift = plan_chained(&j->plan) ? hidden * hidden : 0;
    return !needs
               ? 0
               : hessian_seconds(j, (hessian_products(j->m->cfg->hidden_size) + drift) * j->plan.samples * j->plan.ctx);
}

double job_expert_hessian_work(const struct job *j, const struct matrix *down)
{
    if (!is_down(down) || !job_reads_windows(j) || !plan_needs_hessian(j->o, down))
        return 0;
    const struct model_config *c = j->m->cfg;
    double own = expert_tokens(j), most = experts_sample_tokens(j->m), ctx = j->plan.ctx;
    double sample = fmin(most, (j->plan.samples - j->plan.holdout) * ctx) + fmin(most, j->plan.holdout * ctx);
    double products = hessian_products(c->hidden_size) * own + hessian_products(c->experts.width) * (own + sample);
    double passes = 2.0 / EXPERT_MATRICES;
    if (plan_chained(&j->plan)) { /* and all of the 16-bit model's, down once more */
        passes += 1 + 1.0 / EXPERT_MATRICES;
        products += (double)c->hidden_size * (c->hidden_size * own + c->experts.width * (own + sample));
    }
    return expert_forward(j, 2, own + sample) * passes + hessian_seconds(j, products);
}

static struct expert_expected expected(const struct job *j)
{
    return tune_expert_expect(j->m, j->o, j->plan.samples, j->plan.holdout, j->plan.micro_windows);
}

double job_expert_work(const struct job *j, const struct matrix *down)
{
    const struct speed_linear *l = speed_linear(&j->speed, down);
    if (!is_down(down) || !plan_joint(j->o, down))
        return 0;
    const struct expert_expected x = expected(j);
    double step = EXPERT_MATRICES * (l ? l->joint : (double)down->rows * down->cols * SECONDS_PER_STEP);
    double passes = (double)x.steps * x.calls, taught = (double)x.train * EXPERT_WINDOW,
           judged = (double)x.held * EXPERT_WINDOW;
    return x.train ? expert_forward(j, 2, taught + 2 * judged) /* targets, the start's loss */ +
                         j->o->block.epochs * (expert_forward(j, passes + 1, taught + judged) +
                                               expert_backward(j, passes, taught) + x.steps * step)
                   : 0;
}

/* All blocks, of one window. */
static double blocks_forward(const struct job *j)
{
    double sum = 0;
    for (uint32_t layer = 0; layer < j->plan.n_layers; layer++)
        sum += half_forward(j, layer, HALF_ATTN) + half_forward(j, layer, HALF_FFN);
    return sum;
}

/* Of a batch of n windows there and back, the pieces of the busiest rank. */
static double pieces_share(const struct job *j, uint32_t micro, uint32_t n)
{
    unsigned last;
    micro = micro ? micro : 1;
    return end_to_end_parts(j->m, micro, n) ? end_to_end_rounds(micro, n, j->ranks, &last) / (double)div_up(n, micro)
                                            : 1;
}

double job_judge_work(const struct job *j)
{
    const struct model_config *c = j->m->cfg;
    uint32_t judges = j->plan.holdout ? j->plan.holdout : j->plan.samples;
    double product = gemm_seconds(j, (double)c->vocab_size * c->hidden_size * j->plan.ctx);
    return judges * (blocks_forward(j) + 2 * product) * pieces_share(j, j->plan.scale_micro, judges);
}

/* There and back again, of one window. */
static double model_both_ways(const struct job *j)
{
    const struct model_config *c = j->m->cfg;
    double forward = blocks_forward(j), backward = 0;
    for (uint32_t layer = 0; layer < j->plan.n_layers; layer++)
        backward += half_backward(j, layer, HALF_ATTN) + half_backward(j, layer, HALF_FFN);
    /* Measured without the gradient of the block's input, which is about two thirds of a forward pass. */
    if (j->speed.model.n_blocks)
        backward += forward * 2 / 3;
    return 2 * forward + backward + 3 * gemm_seconds(j, (double)c->vocab_size * c->hidden_size * j->plan.ctx);
}

double job_sample_work(const struct job *j)
{
    const struct sampling *s = &j->plan.sampling;
    const struct model_config *c = j->m->cfg;
    double pass = PASS_SECONDS, of_head = (double)c->vocab_size * c->hidden_size;
    if (!s->length)
        return 0;
    for (uint32_t layer = 0; layer < j->plan.n_layers; layer++) {
        const struct block_items b = plan_block(&j->plan, layer);
        double load = 0;
        for (uint32_t i = 0; i < b.n; i++)
            load += layer >= s->stay || b.items[i].expert ? job_load_work(j, &b.items[i]) : 0;
        pass +=
            load + gemm_seconds(j, s->lanes * (model_block_products(j->m, layer) + model_expert_products(j->m, layer)));
    }
    return sampling_passes(s) * (pass + gemm_seconds(j, s->lanes * of_head));
}

double job_output_work(const struct job *j)
{
    double sums = 0;
    if (!j->plan.output_windows)
        return 0;
    for (size_t i = 0; i < j->plan.n_items; i++)
        sums += (double)output_hessian_bytes(j->o, &j->plan.items[i]) / sizeof(float);
    return j->plan.output_windows * (model_both_ways(j) + gemm_seconds(j, sums * j->plan.ctx)) *
           pieces_share(j, j->plan.output_micro, j->plan.output_windows);
}

double job_measure_work(const struct job *j)
{
    const struct allotment *a = j->o->allotment;
    double tries = 0, sums = 0;
    if (!j->plan.measure_windows || !a || a->measured)
        return 0;
    for (size_t i = 0; i < a->n; i++) {
        const struct matrix *x = &a->matrices[i];
        double n = (double)x->rows * x->cols, k = x->cols;
        double each =
            gemm_seconds(j, matrix_is_linear(x) ? n * k * 6 + k * k * k / 2 : n * k * (x->embedding + x->head));
        for (uint32_t t = 0; t < a->n_types; t++)
            tries += a->tries[i * a->n_types + t] ? each + n * SECONDS_PER_STEP : 0;
        sums += matrix_is_linear(x) ? n + (double)x->rows * output_hessian_cols(x->rows) : k * k;
    }
    return j->plan.measure_windows * (model_both_ways(j) + gemm_seconds(j, sums * j->plan.ctx)) + tries;
}

double job_scales_work(const struct job *j)
{
    if (!plan_scales(j->o))
        return 0;
    uint32_t train = j->plan.samples - j->plan.holdout;
    const double share = pieces_share(j, j->plan.scale_micro, tune_scales_batch(j->o, train));
    return j->o->scales.epochs * (train * share * model_both_ways(j) + job_judge_work(j)) + job_judge_work(j);
}

/* ---- the whole run ---- */

/* Steps that a linear is expected to learn alone in. */
static uint32_t lone_steps(const struct job *j, const struct matrix *i)
{
    return block_part_is_expert(i->part) && plan_joint(j->o, i) ? quantize_lone_steps(j->o) : j->o->gumbel.steps;
}

/* Of linears of which each is made by one rank, what the busiest makes: of experts as many in a row as there are ranks, or of all linears
 * where each learns without a text; 1 where every rank makes all. */
static double made_share(const struct job *j, struct block_items b)
{
    double all = 0, most = 0;
    if (block_part_is_expert(b.items[0].part) && job_reads_windows(j))
        return (double)div_up(j->m->cfg->experts.n, j->ranks) / j->m->cfg->experts.n;
    if (job_reads_windows(j))
        return 1;
    for (uint32_t i = 0; i < b.n; i += j->ranks) {
        double round = 0;
        for (uint32_t k = i; k < b.n && k < i + j->ranks; k++) {
            const double n = (double)b.items[k].rows * b.items[k].cols;
            round = fmax(round, n);
            all += n;
        }
        most += round;
    }
    return most / all;
}

/* What others have made is loaded once more, for the way through it. */
static double load_share(const struct job *j, double share)
{
    return share < 1 && job_reads_windows(j) ? share + 1 : share;
}

/* A part of a block, by kinds of work. */
static void part_work(const struct job *j, struct block_items b, bool windows, double by_kind[ETA_KINDS])
{
    const double share = made_share(j, b);
    for (uint32_t i = 0; i < b.n; i++) {
        if (windows || b.items[i].coded)
            by_kind[WORK_LOAD] += job_load_work(j, &b.items[i]) * load_share(j, share);
        by_kind[WORK_ROUND] += share * job_round_work(j, &b.items[i]);
        by_kind[WORK_LEARN] += share * job_learn_work(j, &b.items[i], lone_steps(j, &b.items[i]));
        by_kind[WORK_HESSIAN] += share * job_expert_hessian_work(j, &b.items[i]);
        by_kind[WORK_TRAIN] += share * job_expert_work(j, &b.items[i]);
    }
    by_kind[WORK_STORE] += job_store_work(b);
}

void job_skip_linear(struct job *j, const struct matrix *i)
{
    eta_skip(&j->eta, WORK_ROUND, job_round_work(j, i));
    eta_skip(&j->eta, WORK_LEARN, job_learn_work(j, i, lone_steps(j, i)));
    j->found = true;
}

void job_skip_part(struct job *j, struct block_items part)
{
    double skip[ETA_KINDS] = {0};
    part_work(j, part, false, skip);
    for (unsigned i = 0; i < ETA_KINDS; i++)
        eta_skip(&j->eta, i, skip[i]);
    j->found = true;
}

/* A block. */
static void block_work(const struct job *j, uint32_t layer, double by_kind[ETA_KINDS])
{
    const struct block_items b = plan_block(&j->plan, layer);
    bool windows = job_reads_windows(j);
    for (uint32_t part = 0; part < store_parts(b); part++)
        part_work(j, store_part(b, part), windows, by_kind);
    if (windows && config_has_experts(j->m->cfg, layer)) {
        by_kind[WORK_FORWARD] += (1 + plan_chained(&j->plan)) * j->m->cfg->experts.n * job_expert_forward_work(j);
        by_kind[WORK_HESSIAN] += job_layer_hessian_work(j, layer);
    }
    for (int i = 0; windows && i < HALF_COUNT; i++) {
        enum block_half half = (enum block_half)i;
        /* For its results, and for the teacher. */
        const double shared = job_shared_half_work(j, layer, half);
        by_kind[WORK_FORWARD] += shared;
        if (plan_targets(&j->plan, j->o))
            by_kind[WORK_FORWARD] += plan_chained(&j->plan) ? shared : job_half_work(j, layer, half);
        if (plan_gathers(j->o, half, b))
            by_kind[WORK_HESSIAN] += job_hessian_work(j, layer, half);
        by_kind[WORK_TRAIN] += job_tune_work(j, layer, half);
    }
}

/* A block that is only walked through. */
static void replay_work(const struct job *j, uint32_t layer, double by_kind[ETA_KINDS])
{
    const struct block_items b = plan_block(&j->plan, layer);
    for (uint32_t i = 0; i < b.n; i++)
        by_kind[WORK_LOAD] += job_load_work(j, &b.items[i]);
    if (j->acts && config_has_experts(j->m->cfg, layer))
        by_kind[WORK_FORWARD] += (1 + plan_chained(&j->plan)) * j->m->cfg->experts.n * job_expert_forward_work(j);
    for (int i = 0; i < HALF_COUNT; i++)
        by_kind[WORK_FORWARD] +=
            ((j->acts != NULL) + (j->targets != NULL)) * job_shared_half_work(j, layer, (enum block_half)i);
}

/* What comes before the blocks and after them. */
static void other_work(const struct job *j, double by_kind[ETA_KINDS])
{
    by_kind[WORK_CHECK] += (double)j->plan.weights * SECONDS_PER_CHECK;
    by_kind[WORK_SAMPLE] += job_sample_work(j);
    by_kind[WORK_MEASURE] += job_measure_work(j);
    by_kind[WORK_OUTPUT] += job_output_work(j);
    by_kind[WORK_SCALES] += job_scales_work(j);
    by_kind[WORK_EXPORT] += j->export_work;
}

static double export_work(const struct job *j)
{
    double seconds = 0.05 + (double)j->plan.out_bytes * SECONDS_PER_BYTE;
    for (size_t i = 0; plan_typed(&j->plan) && i < j->plan.n_matrices; i++) {
        const struct matrix *t = &j->plan.matrices[i];
        double rate = t->coded || t->copied ? SECONDS_PER_PACK : speed_rounding(&j->speed, t->type);
        seconds += (double)t->rows * t->cols * (rate > 0 ? rate : SECONDS_PER_PACK);
    }
    return seconds;
}

void job_work_by_kind(const struct job *j, double by_kind[ETA_KINDS])
{
    for (int i = 0; i < ETA_KINDS; i++)
        by_kind[i] = 0;
    for (uint32_t layer = 0; layer < j->plan.n_layers; layer++)
        block_work(j, layer, by_kind);
    other_work(j, by_kind);
}

double job_whole_work(const struct job *j)
{
    double by_kind[ETA_KINDS], sum = 0;
    job_work_by_kind(j, by_kind);
    for (int i = 0; i < ETA_KINDS; i++)
        sum += by_kind[i];
    return sum;
}

static bool same_numbers(const struct quantize_options *a, const struct quantize_options *b)
{
    return a->effort == b->effort && a->samples == b->samples && a->gumbel.steps == b->gumbel.steps &&
           a->block.epochs == b->block.epochs && a->block.batch == b->block.batch &&
           a->scales.epochs == b->scales.epochs;
}

/* The same run at each effort: planned and counted, with the speeds that are known. */
static void predict_efforts(struct job *j, uint32_t windows)
{
    struct quantize_options o = *j->o;
    struct job other = *j;
    bool learns = o.method == METHOD_GSQ && !quantize_diagonal(&o) && j->speed.model.measured && !j->m->cfg->experts.n;
    other.o = &o;
    j->plan.n_efforts = learns ? EFFORT_COUNT : 0;
    for (unsigned i = 0; i < j->plan.n_efforts; i++) {
        struct plan_effort *x = &j->plan.efforts[i];
        struct err e = {0};
        quantize_set_effort(&o, (enum effort)i);
        quantize_fit_context(&o, j->plan.ctx);
        quantize_fit_text(&o, j->plan.ctx, windows);
        *x = (struct plan_effort){.samples = o.samples,
                                  .steps = o.gumbel.steps,
                                  .epochs = o.block.epochs,
                                  .scale_epochs = o.scales.epochs,
                                  .chosen = same_numbers(&o, j->o)};
        if (x->chosen)
            x->seconds = j->plan.predicted_seconds;
        else if (plan_vary(&other.plan, &j->plan, j->m, &o, &e))
            x->seconds = job_whole_work(&other);
        else
            snprintf(x->why, sizeof x->why, "%s", e.msg);
    }
}

void job_predict(struct job *j, uint32_t windows)
{
    j->export_work = export_work(j);
    j->plan.predicted_seconds = j->speed.model.measured ? job_whole_work(j) : 0;
    j->plan.sample_seconds = j->speed.model.measured ? job_sample_work(j) : 0;
    predict_efforts(j, windows);
    double largest = 0;
    for (uint32_t layer = 0; layer < j->plan.n_layers; layer++)
        largest = fmax(largest, job_tune_work(j, layer, HALF_FFN));
    if (largest > 0 && j->speed.model.n_blocks)
        j->plan.updates = j->plan.block_steps / largest;
}

void job_expect(struct job *j, bool replay)
{
    double all[ETA_KINDS] = {0}, skip[ETA_KINDS] = {0}, again[ETA_KINDS] = {0};
    for (uint32_t layer = 0; layer < j->plan.n_layers; layer++) {
        block_work(j, layer, all);
        bool done = j->store && store_has_block(j->store, layer);
        if (done)
            block_work(j, layer, skip);
        if (done && replay)
            replay_work(j, layer, again);
        /* Of a block that was left in the middle, all is gone through again, but what is there is not learned. */
        const struct block_items b = plan_block(&j->plan, layer);
        for (uint32_t part = 0; j->store && !done && part < store_parts(b); part++)
            if (store_has_part(j->store, layer, part))
                part_work(j, store_part(b, part), false, skip);
    }
    other_work(j, all);
    eta_start(&j->eta, os_now_ns(), speed_trust(&j->speed.model));
    j->eta.begin = j->begin;
    for (unsigned i = 0; i < ETA_KINDS; i++) {
        eta_expect(&j->eta, i, all[i] + again[i]);
        eta_skip(&j->eta, i, skip[i]);
    }
}

const char *const job_work_names[ETA_KINDS] = {
    [WORK_CHECK] = "check",   [WORK_SAMPLE] = "sample",   [WORK_MEASURE] = "measure", [WORK_OUTPUT] = "outputs",
    [WORK_LOAD] = "load",     [WORK_FORWARD] = "forward", [WORK_HESSIAN] = "hessian", [WORK_ROUND] = "round",
    [WORK_LEARN] = "learn",   [WORK_TRAIN] = "train",     [WORK_SCALES] = "scales",   [WORK_STORE] = "store",
    [WORK_EXPORT] = "export",
};

void job_judge_prediction(const struct job *j)
{
    for (unsigned i = 0; i < ETA_KINDS; i++) {
        const struct eta_kind *k = &j->eta.kind[i];
        if (k->spent > 0)
            log_debug("time by kind: %-8s %9.2f s, predicted %9.2f s", job_work_names[i], k->spent, k->done);
    }
}

/* ---- telling ---- */

void job_begin(struct job *j, enum work kind, double seconds)
{
    eta_begin(&j->eta, kind, seconds, os_now_ns());
    progress_meter(&j->watch, 0);
}

void job_end(struct job *j)
{
    eta_end(&j->eta, os_now_ns());
}

bool job_end_way_back(struct job *j, bool ok, const char *what, uint64_t *clock, struct err *e)
{
    job_end(j);
    gpu_arena_trim(j->block);
    gpu_arena_trim(j->hess);
    gpu_arena_trim(j->scratch);
    job_clock(j, PHASE_CALIBRATE, clock);
    j->detail[0] = 0;
    return ok || (e->kind != ERR_STOPPED && err_context(e, "%s", what));
}

struct progress_event job_event(const struct job *j, const char *phase)
{
    bool in_block = j->layer < j->plan.n_layers;
    return (struct progress_event){.phase = phase,
                                   .detail = j->detail[0] ? j->detail : NULL,
                                   .block = in_block ? j->layer + 1 : 0,
                                   .blocks = in_block ? j->plan.n_layers : 0,
                                   .loss = NAN,
                                   .processes = queue_processes(j->queue)};
}

struct walk job_walk(struct job *j, struct acts *acts, uint32_t windows)
{
    return (struct walk){.cmd = j->cmd,
                         .acts = acts,
                         .windows = windows,
                         .batch = j->plan.batch_windows,
                         .watch = &j->watch,
                         .event = job_event(j, "calibrate")};
}

bool job_tell(struct job *j, double part, struct progress_event ev, struct err *e)
{
    eta_part(&j->eta, part, os_now_ns());
    return progress_report(&j->watch, &ev, e);
}

bool job_tell_step(struct job *j, const char *phase, double part, uint32_t step, uint32_t steps, double loss)
{
    struct progress_event ev = job_event(j, phase);
    ev.step = step;
    ev.steps = steps;
    ev.loss = loss;
    ev.unit = "steps";
    ev.count = step;
    return job_tell(j, part, ev, NULL);
}

bool job_on_tune_step(void *ctx, uint32_t step, uint32_t steps, double loss)
{
    stop_point("step", NULL);
    return job_tell_step(ctx, "train", (double)step / steps, step, steps, loss);
}

void job_tell_retries(const struct job *j, const char *what, const struct stage_report *r)
{
    if (r->trained.retries)
        log_warn("block %u, %s: training diverged and was repeated %u times, each at half the rate", j->layer + 1, what,
                 r->trained.retries);
}

void job_detail(struct job *j, const char *what)
{
    snprintf(j->detail, sizeof j->detail, "block %u/%u %s", j->layer + 1, j->plan.n_layers, what);
}

void job_clock(struct job *j, enum run_phase phase, uint64_t *since)
{
    uint64_t now = os_now_ns();
    struct phase_report *p = &j->out->phases[phase];
    double busy = gpu_cmd_busy(j->cmd);
    p->seconds += (double)(now - *since) * 1e-9;
    p->device_busy += busy - j->busy;
    j->busy = busy;
    const uint64_t peak = gpu_memory_peak(gpu_cmd_gpu(j->cmd));
    p->device_bytes = max_u64(p->device_bytes, peak > j->device_peak ? peak : gpu_memory_used(gpu_cmd_gpu(j->cmd)));
    j->device_peak = max_u64(j->device_peak, peak);
    j->host_peak = max_u64(j->host_peak, os_peak_anon());
    *since = now;
}
