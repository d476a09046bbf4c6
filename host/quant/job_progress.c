#include <math.h>
#include <stdio.h>

#include "host/base/num.h"
#include "host/base/os.h"
#include "host/quant/job_internal.h"
#include "host/quant/tune_block.h"

/* Before a measurement, and where none is made: any device, in seconds per operation. Only ratios count then.
 */
#define SECONDS_PER_OP 1e-11

/* A row-wise kernel of the scale search does about six operations a candidate; GPTQ and losses ten per weight
 * and input. */
enum { SEARCH_OPS = 6, GPTQ_OPS = 10, STEP_OPS = 200 };

static double gemm_seconds(const struct job *j, double multiply_adds)
{
    return multiply_adds * (j->speed.gemm > 0 ? j->speed.gemm : 2 * SECONDS_PER_OP);
}

static double half_forward(const struct job *j, const struct stage *s)
{
    double measured = s->half == STAGE_ATTN ? j->speed.attn_fwd : j->speed.ffn_fwd, weights = 0;
    if (measured > 0)
        return measured;
    for (int i = s->first; i < (int)s->end; i++)
        weights += (double)j->m->rows[i] * j->m->cols[i];
    return gemm_seconds(j, weights * j->plan.ctx);
}

double job_half_work(const struct job *j, const struct stage *s)
{
    return j->plan.samples * half_forward(j, s);
}

bool job_gathers(const struct job *j, const struct stage *s, const struct plan_item *items)
{
    bool any = false;
    for (int id = s->first; id < (int)s->end; id++)
        any = any || plan_needs_hessian(j->o, &items[id]);
    return any;
}

double job_hessian_work(const struct job *j, const struct stage *s)
{
    double a = j->m->cols[s->first], b = j->m->cols[s->wide];
    return gemm_seconds(j, (a * a + b * b) * j->plan.samples * j->plan.ctx);
}

static double step_seconds(const struct job *j, double weights)
{
    return weights * (j->speed.gumbel > 0 ? j->speed.gumbel : STEP_OPS * SECONDS_PER_OP);
}

double job_linear_work(const struct job *j, const struct plan_item *i)
{
    double n = (double)i->rows * i->cols, k = i->cols;
    if (i->keep)
        return 0;
    double seconds = step_seconds(j, n * 2 * j->o->scale_search.steps * SEARCH_OPS / STEP_OPS);
    if (plan_needs_hessian(j->o, i))
        seconds += gemm_seconds(j, n * k * GPTQ_OPS / 2 + k * k * k / 2); /* losses, GPTQ, Cholesky */
    if (plan_alone(j->o, i))
        seconds += j->o->gumbel.steps * (gemm_seconds(j, n * k) + step_seconds(j, n));
    return seconds;
}

double job_tune_work(const struct job *j, const struct plan_item *items, enum tune_stage half)
{
    const struct block_options *o = &j->o->block;
    const struct stage *s = &stages[half == STAGE_FFN];
    uint32_t train = j->plan.samples - j->plan.holdout;
    double weights = 0, forward = half_forward(j, s);
    double backward = half == STAGE_ATTN ? j->speed.attn_bwd : j->speed.ffn_bwd;
    for (int i = s->first; i < (int)s->end; i++)
        if (plan_joint(j->o, &items[i]))
            weights += (double)items[i].rows * items[i].cols;
    if (weights == 0)
        return 0;
    if (!(backward > 0))
        backward = 2 * forward;
    return o->epochs * (train * (forward + backward) + j->plan.holdout * forward) +
           j->plan.block_steps * step_seconds(j, weights);
}

double job_scales_work(const struct job *j)
{
    if (!plan_scales(j->o))
        return 0;
    const struct model_config *c = j->m->cfg;
    uint32_t train = j->plan.samples - j->plan.holdout, judges = j->plan.holdout ? j->plan.holdout : train;
    double forward = half_forward(j, &stages[0]) + half_forward(j, &stages[1]);
    double backward = j->speed.attn_bwd + j->speed.ffn_bwd;
    /* Measured without the gradient of the block's input, which is about two thirds of a forward pass. */
    backward = backward > 0 ? backward + forward * 2 / 3 : 2 * forward;
    double product = gemm_seconds(j, (double)c->vocab_size * c->hidden_size * j->plan.ctx);
    double teach = j->plan.n_layers * (2 * forward + backward) + 3 * product;
    double judge = j->plan.n_layers * forward + 2 * product;
    return j->o->scales.epochs * (train * teach + judges * judge) + judges * judge;
}

void job_plan_work(struct job *j)
{
    j->work_total = 0;
    for (uint32_t layer = 0; layer < j->plan.n_layers; layer++) {
        const struct plan_item *items = j->plan.items + (size_t)layer * LINEAR_COUNT;
        for (int i = 0; i < LINEAR_COUNT; i++)
            j->work_total += job_linear_work(j, &items[i]);
        if (j->o->method == METHOD_RTN)
            continue;
        for (int i = 0; i < 2; i++) {
            const struct stage *s = &stages[i];
            bool gathers = job_gathers(j, s, items);
            /* For its results; for its inputs; for the teacher. */
            j->work_total += (1 + gathers + plan_teacher(j->o)) * job_half_work(j, s);
            j->work_total += (gathers ? job_hessian_work(j, s) : 0) + job_tune_work(j, items, s->half);
        }
    }
    j->work_total += job_scales_work(j);
    if (j->speed.attn_fwd > 0)
        j->plan.predicted_seconds = j->work_total;
    double largest = job_tune_work(j, j->plan.items, STAGE_FFN);
    if (largest > 0 && j->speed.ffn_bwd > 0)
        j->plan.updates = j->plan.block_steps / largest;
}

bool job_tell(struct job *j, const char *phase, uint32_t step, uint32_t steps, double loss, double part,
              struct err *e)
{
    double done = j->work_done + part * j->piece_work, spent = (double)(os_now_ns() - j->begin) * 1e-9;
    bool in_block = j->layer < j->plan.n_layers;
    double mine = done - j->work_skipped, left = j->work_total - done;
    struct progress_event ev = {.phase = phase,
                                .detail = j->detail,
                                .block = in_block ? j->layer + 1 : 0,
                                .blocks = in_block ? j->plan.n_layers : 0,
                                .step = step,
                                .steps = steps,
                                .loss = loss,
                                .done = j->work_total > 0 ? done / j->work_total : 0,
                                .eta_seconds = mine > 0 && spent > 1 ? spent * left / mine : NAN};
    if (progress_report(&j->cb->progress, &ev))
        return true;
    if (in_block)
        err_set(e, ERR_STOPPED, "stopped in block %u of %u", j->layer + 1, j->plan.n_layers);
    else
        err_set(e, ERR_STOPPED, "stopped in the pass over scales");
    return err_hint(e, "finished blocks are kept in %s; repeat the command to go on", j->work_dir);
}

void job_detail(struct job *j, const char *what)
{
    snprintf(j->detail, sizeof j->detail, "block %u/%u %s", j->layer + 1, j->plan.n_layers, what);
}

void job_clock(struct job *j, enum run_phase phase, uint64_t *since)
{
    uint64_t now = os_now_ns();
    struct phase_report *p = &j->out->phases[phase];
    p->seconds += (double)(now - *since) * 1e-9;
    p->device_bytes = max_u64(p->device_bytes, gpu_memory_used(gpu_cmd_gpu(j->cmd)));
    *since = now;
}
