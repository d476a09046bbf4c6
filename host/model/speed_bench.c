#include "host/model/speed_bench.h"

#include <math.h>

#include "host/base/os.h"
#include "host/gpu/gpu_gemm.h"

/* What a dispatch takes beside its kernel, at most: in a slice, the waiting for it is in there, too. A CPU's threads meet
 * before and after each. */
#define DISPATCH_MOST_GPU 20e-6
#define DISPATCH_MOST_CPU 100e-6
/* Device time for each piece. A GPU has to reach its clocks, and its dispatches are short; a CPU that is one is at its
 * speed after one repetition, and whoever waits for the plan waits for it. */
#define BUDGET_GPU_NS 200000000ull
#define BUDGET_CPU_NS 15000000ull
/* Of the budget, and at least one repetition: before that is measured. */
#define WARM_SHARE 0.25
/* Repetitions that are recorded before the clock is read. */
#define AT_ONCE 64u

struct speed_size speed_size_whole(const struct model *m, uint32_t windows)
{
    return (struct speed_size){.model = *m, .config = *m->cfg, .windows = windows};
}

static uint64_t speed_budget(const struct model *m)
{
    return gpu_info(m->gpu)->caps & GPU_CAP_CPU ? BUDGET_CPU_NS : BUDGET_GPU_NS;
}

bool speed_begin(struct speed_bench *b, struct model *m, struct err *e)
{
    b->cmd = m->cmd;
    b->since = os_now_ns();
    b->budget_ns = speed_budget(m);
    b->memory = (struct gpu_count){.limit = UINT64_MAX};
    return gpu_arena_create(&b->arena, m->gpu, "measurement", e) &&
           gpu_arena_create_counting(&b->counting, m->gpu, &b->memory, e);
}

bool speed_end(struct speed_bench *b, bool ok, double *seconds, struct err *e)
{
    gpu_cmd_profile_enable(b->cmd, false);
    gpu_cmd_finish(b->cmd, NULL);
    gpu_cmd_profile_clear(b->cmd);
    gpu_arena_destroy(&b->arena);
    gpu_arena_destroy(&b->counting);
    *seconds = (double)(os_now_ns() - b->since) * 1e-9;
    if (!ok && e && e->kind == ERR_STOPPED)
        return false;
    return ok || err_context(e, "measuring the device's speed");
}

bool speed_ready(struct speed_bench *b, struct err *e)
{
    b->warm = false;
    b->recorded = b->count_down = 0;
    if (!gpu_cmd_finish(b->cmd, e))
        return false;
    if (!b->timed) /* what makes the operands ready is not the piece */
        gpu_cmd_profile_clear(b->cmd);
    return true;
}

/* Device time since the clock began; of a device without timestamps, time. */
static double spent(const struct speed_bench *b)
{
    double seconds = 0;
    for (unsigned k = 0; k < KERNEL_COUNT; k++)
        seconds += gpu_cmd_profile(b->cmd, k).seconds;
    return seconds > 0 ? seconds : (double)(os_now_ns() - b->begin) * 1e-9;
}

static void begin_clock(struct speed_bench *b)
{
    gpu_cmd_profile_clear(b->cmd);
    b->recorded = 0;
    b->begin = os_now_ns();
}

bool speed_again(struct speed_bench *b, bool *ok, struct err *e)
{
    const double share = b->warm ? 1 : WARM_SHARE, budget = (double)b->budget_ns * 1e-9 * share;
    if (!b->timed && b->recorded)
        return false;
    if (b->timed && !b->recorded && !b->warm) {
        begin_clock(b);
    } else if (b->timed && !b->count_down) {
        if (!(*ok = gpu_cmd_finish(b->cmd, e)))
            return false;
        double took = spent(b), each = took / b->recorded;
        bool enough = took >= budget || (double)(os_now_ns() - b->begin) * 1e-9 >= SPEED_WAIT_MOST * budget;
        if (enough && (b->warm || !b->budget_ns))
            return false;
        if (enough) {
            b->warm = true;
            begin_clock(b);
        }
        b->count_down = enough ? 1 : (uint32_t)fmin(fmax((budget - took) / each, 1), AT_ONCE);
    }
    b->count_down -= b->count_down > 0;
    b->recorded++;
    return true;
}

bool speed_time(struct speed_bench *b, speed_piece run, const struct speed_size *z, struct speed_rates *r,
                double *seconds, struct err *e)
{
    struct gpu_cmd *cmd = b->cmd;
    *r = (struct speed_rates){0};
    b->timed = true;
    gpu_cmd_profile_enable(cmd, true);
    bool ok = run(b, b->arena, z, e);
    ok = gpu_cmd_finish(cmd, ok ? e : NULL) && ok;
    *seconds = (double)(os_now_ns() - b->begin) * 1e-9 / fmax(1, b->recorded);
    gpu_cmd_profile_enable(cmd, false);
    b->timed = false;
    gpu_arena_reset(b->arena, 0);
    gpu_arena_trim(b->arena); /* no piece is to take more than what it stands for */
    const double most = gpu_info(gpu_cmd_gpu(cmd))->caps & GPU_CAP_CPU ? DISPATCH_MOST_CPU : DISPATCH_MOST_GPU;
    double in_kernels = 0, dispatches = 0, work = 0;
    for (unsigned k = 0; k < KERNEL_COUNT; k++) {
        struct gpu_profile p = gpu_cmd_profile(cmd, k);
        r->kernel[k] = p.work > 0 ? p.seconds / p.work : 0;
        in_kernels += p.seconds / fmax(1, b->recorded);
        dispatches += (double)p.dispatches / fmax(1, b->recorded);
        work += p.work / fmax(1, b->recorded);
    }
    if (in_kernels > 0 && dispatches > 0)
        r->dispatch = fmin(fmax(0, (*seconds - in_kernels) / dispatches), most);
    else /* a device without timestamps: products are nearly all of it */
        for (unsigned k = 0; k < KERNEL_COUNT; k++)
            if (gpu_gemm_kernel(k, NULL, NULL))
                r->kernel[k] = *seconds / (work > 0 ? work : 1);
    return ok;
}

bool speed_predict(struct speed_bench *b, speed_piece run, const struct speed_size *z, const struct speed_rates *r,
                   double *seconds, struct err *e)
{
    gpu_cmd_count(b->cmd, GPU_COUNT_WORK);
    gpu_cmd_profile_clear(b->cmd);
    bool ok = run(b, b->counting, z, e);
    gpu_cmd_count(b->cmd, GPU_COUNT_NOTHING);
    gpu_arena_reset(b->counting, 0);
    *seconds = 0;
    for (unsigned k = 0; k < KERNEL_COUNT; k++) {
        struct gpu_profile p = gpu_cmd_profile(b->cmd, k);
        *seconds += p.work * r->kernel[k] + (double)p.dispatches * r->dispatch;
    }
    return ok;
}
