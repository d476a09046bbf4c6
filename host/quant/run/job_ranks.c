/* What several ranks (comm.h) share, exchange and hold in a run, told before it, for ranks that are there or not (--ranks). Each exchange
 * tells its bytes itself, beside the code that makes it (..._expect); this file says in which order a run makes them. Where all of a run
 * is made, what is counted is what is told here: tests/mpi.sh compares the two. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/quant/method/drift.h"
#include "host/quant/method/output_hessian.h"
#include "host/quant/method/quant_linear.h"
#include "host/quant/method/tune_scales.h"
#include "host/quant/plan/rehearse.h"
#include "host/quant/run/job_internal.h"

/* Of what is sent to find the link's speed, from each rank in turn. */
#define LINK_BYTES (UINT64_C(4) << 20)
/* A layout that is faster by less is not worth another command. */
#define WORTH 0.9

/* ---- what is exchanged ---- */

/* Linears, or experts, of which each rank makes one in turn. */
static void expect_made(const struct job *j, struct comm_expected *x, struct block_items b, uint32_t together)
{
    for (uint32_t i = 0; i < b.n; i++)
        if (b.items[i].coded)
            job_give_expect(x, &b.items[i], i / together % x->ranks);
        else if (job_reads_windows(j)) /* an expert that stays: how many tokens chose it */
            comm_expect_broadcast(x, COMM_CODES, sizeof(struct linear_report), i / together % x->ranks, 1);
}

/* Of a half, as it went. */
static const struct training_report *training_of(const struct quantize_result *went, uint32_t layer,
                                                 enum tune_stage stage)
{
    for (size_t i = 0; i < went->n_stages; i++)
        if (went->stages[i].stage == stage && went->stages[i].layer == layer)
            return &went->stages[i].trained;
    return NULL;
}

/* job_block.c: block_calibrated. */
static void expect_half(const struct job *j, struct comm_expected *x, uint32_t layer, enum block_half half,
                        const struct quantize_result *went)
{
    const struct block_items b = plan_block(&j->plan, layer);
    const struct block_shape shape = model_block(j->m, layer);
    const uint64_t window = j->plan.acts_bytes / j->plan.samples;
    const struct tune_block_task t = job_tune_task(j, layer, half);
    if (!block_has_half(block_common(shape), half))
        return;
    for (int in = 0; plan_gathers(j->o, half, b) && in < INPUT_COUNT; in++) {
        const uint32_t n = block_input_cols(shape, half, (enum input)in);
        if (n && block_input_pieces(shape, half, (enum input)in) <= 1)
            hessian_expect(x, n, j->plan.holdout > 0);
    }
    if (plan_corrects(&j->plan, j->o, half, b))
        drift_expect(x, j->m, layer, half);
    for (uint32_t i = 0; i < t.block.n; i++) {
        const struct matrix *item = &t.block.items[i];
        if (item->part->half == half && item->coded)
            quantize_linear_expect(x, &(struct linear_exchange){.options = j->o,
                                                                .item = item,
                                                                .hessian = plan_needs_hessian(j->o, item),
                                                                .held = j->plan.holdout > 0,
                                                                .outputs = job_has_outputs(j, item),
                                                                .start = j->refined != NULL});
    }
    if (plan_trains(j->o, half, t.block))
        tune_block_expect(x, &t, went ? training_of(went, layer, (enum tune_stage)half) : NULL);
    walk_expect(x, j->plan.samples, j->plan.batch_windows, window,
                1 + (plan_targets(&j->plan, j->o) && plan_chained(&j->plan)));
}

/* All that a rank sends and gets, of a run that has nothing yet. went: of one that is over. */
static void expect_run(const struct job *j, struct comm_expected *x, const struct quantize_result *went)
{
    comm_expect_broadcast(x, COMM_SETTINGS, JOB_MEMORY_TEXT, 0, 1);
    comm_expect_broadcast(x, COMM_SETTINGS, JOB_KERNELS_TEXT, 0, 1);
    if (j->plan.output_windows)
        output_hessians_expect(x, &(struct output_task){.m = j->m,
                                                        .o = j->o,
                                                        .items = j->plan.items,
                                                        .n_items = j->plan.n_items,
                                                        .n = j->plan.output_windows,
                                                        .micro = (uint32_t)max_u64(1, j->plan.output_micro)});
    if (plan_scales(j->o)) {
        const struct scales_task t = {.m = j->m,
                                      .o = j->o,
                                      .items = j->plan.items,
                                      .n_items = j->plan.n_items,
                                      .samples = j->plan.samples,
                                      .holdout = j->plan.holdout,
                                      .micro = (uint32_t)max_u64(1, j->plan.scale_micro)};
        tune_scales_expect(x, &t, went ? training_of(went, 0, STAGE_SCALES) : NULL);
    }
    for (uint32_t layer = 0; layer < j->plan.n_layers; layer++) {
        struct block_items b = plan_block(&j->plan, layer);
        const uint32_t common = plan_common(b).n;
        if (!job_reads_windows(j)) {
            expect_made(j, x, b, 1);
            continue;
        }
        for (int half = 0; half < HALF_COUNT; half++)
            expect_half(j, x, layer, (enum block_half)half, went);
        expect_made(j, x, (struct block_items){b.items + common, b.n - common}, EXPERT_MATRICES);
    }
}

struct comm_bytes job_exchanged(const struct job *j)
{
    struct comm_expected x = {.rank = comm_rank(), .ranks = comm_size()};
    expect_run(j, &x, j->out);
    return x.bytes;
}

/* ---- what that takes ---- */

/* Between host and device: down from where it was made, up to where it is needed. */
static double device_way(const struct job *j, const struct comm_expected *x)
{
    const uint64_t bytes =
        x->waits[COMM_STATES] + x->waits[COMM_HESSIANS] + x->waits[COMM_GRADIENTS] + x->waits[COMM_WEIGHTS];
    return 2 * (double)bytes * gpu_cmd_transfer_seconds(j->cmd);
}

static uint64_t all_waits(const struct comm_expected *x)
{
    uint64_t sum = 0;
    for (int k = 0; k < COMM_KINDS; k++)
        sum += x->waits[k];
    return sum;
}

static struct plan_layout layout(const struct job *j, unsigned ranks)
{
    struct comm_expected x = {.ranks = ranks};
    struct plan_layout out = {.ranks = ranks};
    struct job other = *j;
    other.ranks = ranks;
    expect_run(&other, &x, NULL);
    double alone[ETA_KINDS], shared[ETA_KINDS];
    job_work_by_kind(&other, shared);
    other.ranks = 1;
    job_work_by_kind(&other, alone);
    other.ranks = ranks;
    out.kinds = job_work_names;
    out.n_kinds = ETA_KINDS;
    for (int i = 0; i < ETA_KINDS; i++)
        out.shares[i] = alone[i] > 0 ? shared[i] / alone[i] : 0;
    if (j->speed.model.measured && (ranks == 1 || j->plan.ranks.link > 0)) {
        out.exchange = ranks > 1 ? (double)all_waits(&x) / j->plan.ranks.link + device_way(j, &x) : 0;
        out.seconds = job_whole_work(&other) + out.exchange;
    }
    return out;
}

/* Memory of a rank: sizes are those that one rank would choose, so that results are the same bytes. */
static void plan_memory_of_rank(struct job *j)
{
    struct plan_ranks *r = &j->plan.ranks;
    struct plan as_if = j->plan;
    struct rehearsal held;
    uint64_t room = 0;
    as_if.as_if_ranks = r->n;
    r->device_bytes = j->plan.device_bytes;
    if (rehearse(&held, &as_if, j->m, j->o, j->plan.device_limit, NULL))
        r->device_bytes = min_u64(r->device_bytes, held.peak);
    for (uint32_t layer = 0; job_reads_windows(j) && layer < j->plan.n_layers; layer++)
        for (int half = 0; half < HALF_COUNT; half++) {
            const struct tune_block_task t = job_tune_task(j, layer, (enum block_half)half);
            room = max_u64(room, plan_trains(j->o, t.half, t.block) ? tune_block_room(&t, r->n) : 0);
        }
    r->host_bytes =
        j->plan.host_bytes + max_u64(room, j->plan.acts_bytes / max_u64(1, j->plan.samples) * j->plan.batch_windows);
}

static const struct plan_layout *best_layout(const struct plan_ranks *r)
{
    const struct plan_layout *best = &r->layouts[r->n_layouts - 1];
    for (unsigned i = 0; i < r->n_layouts; i++)
        if (r->layouts[i].seconds > 0 && r->layouts[i].seconds < WORTH * best->seconds)
            best = &r->layouts[i];
    return best;
}

/* Where the link costs more than it gives, fewer ranks are to be started; a dry run says so and goes on. */
static bool check_link(const struct job *j, struct err *e)
{
    const struct plan_ranks *r = &j->plan.ranks;
    const struct plan_layout *best = best_layout(r), *these = &r->layouts[r->n_layouts - 1];
    char a[24], b[24], fewer[24];
    if (best == these || isinf(j->o->link))
        return true;
    snprintf(fewer, sizeof fewer, "%u of them", (unsigned)best->ranks);
    err_set(e, ERR_USER, "%u ranks over a link of %.3g GB/s would take %s, %s %s", (unsigned)these->ranks,
            r->link * 1e-9, format_seconds(these->seconds, a, sizeof a), best->ranks > 1 ? fewer : "one alone",
            format_seconds(best->seconds, b, sizeof b));
    if (!j->o->dry_run)
        return err_hint(e, "start fewer: mpirun -n %u; or with --link any as many all the same", (unsigned)best->ranks);
    log_warn("%s", e->msg);
    *e = (struct err){0};
    return true;
}

bool job_plan_ranks(struct job *j, struct err *e)
{
    struct plan_ranks *r = &j->plan.ranks;
    const unsigned n = j->o->dry_run && j->o->ranks ? j->o->ranks : j->ranks;
    bool ok = true;
    if (n < 2 || n > PLAN_RANKS_MOST || !j->cmd)
        return true;
    r->n = n;
    r->measured = !(j->o->link > 0) || isinf(j->o->link);
    r->link = r->measured ? j->link : j->o->link;
    for (unsigned rank = 0; rank < n; rank++) {
        struct comm_expected x = {.rank = rank, .ranks = n};
        expect_run(j, &x, NULL);
        r->bytes[rank] = x.bytes;
        memcpy(r->waits, x.waits, sizeof r->waits);
    }
    for (unsigned ranks = 1; ranks < n && r->n_layouts < PLAN_LAYOUTS - 1; ranks *= 2)
        r->layouts[r->n_layouts++] = layout(j, ranks);
    r->layouts[r->n_layouts++] = layout(j, n);
    if (r->layouts[r->n_layouts - 1].seconds > 0) {
        j->plan.predicted_seconds = r->layouts[r->n_layouts - 1].seconds;
        ok = check_link(j, e);
    }
    plan_memory_of_rank(j);
    return comm_agree(ok, e);
}

/* ---- the link ---- */

bool job_link(struct job *j, struct err *e)
{
    if (comm_size() == 1)
        return true;
    void *data = calloc(1, LINK_BYTES);
    bool ok = data || err_nomem(e, "what is sent to measure the link", LINK_BYTES);
    uint64_t begin = 0;
    for (int round = 0; ok && round < 2; round++) { /* the first makes connections */
        begin = os_now_ns();
        for (unsigned r = 0; ok && r < comm_size(); r++)
            ok = comm_broadcast(COMM_SETTINGS, data, LINK_BYTES, r, e);
    }
    ok = ok && comm_agree(true, e); /* all have all */
    j->link = (double)LINK_BYTES * comm_size() / ((double)(os_now_ns() - begin) * 1e-9);
    j->work.bytes = comm_counted();
    free(data);
    return ok;
}
