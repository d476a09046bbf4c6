#include "host/model/speed_bench.h"

#include <math.h>

#include "host/base/os.h"

/* What a dispatch takes beside its kernel, at most: in a slice, the waiting for it is in there, too. */
#define DISPATCH_MOST 20e-6

struct speed_size speed_size_whole(const struct model *m, uint32_t windows)
{
    return (struct speed_size){.model = *m, .config = *m->cfg, .windows = windows};
}

bool speed_begin(struct speed_bench *b, struct model *m, struct err *e)
{
    b->cmd = m->cmd;
    b->since = os_now_ns();
    b->count = (struct gpu_count){.limit = UINT64_MAX};
    return gpu_arena_create(&b->arena, m->gpu, "measurement", e) &&
           gpu_arena_create_counting(&b->counting, m->gpu, &b->count, e);
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
    if (!gpu_cmd_finish(b->cmd, e))
        return false;
    gpu_cmd_profile_clear(b->cmd);
    b->begin = os_now_ns();
    return true;
}

bool speed_time(struct speed_bench *b, speed_piece run, const struct speed_size *z, struct speed_rates *r,
                double *seconds, struct err *e)
{
    struct gpu_cmd *cmd = b->cmd;
    *r = (struct speed_rates){0};
    gpu_cmd_profile_enable(cmd, true);
    bool ok = run(b, b->arena, z, e);
    ok = gpu_cmd_finish(cmd, ok ? e : NULL) && ok;
    *seconds = (double)(os_now_ns() - b->begin) * 1e-9;
    gpu_cmd_profile_enable(cmd, false);
    gpu_arena_reset(b->arena, 0);
    gpu_arena_trim(b->arena); /* no piece is to take more than what it stands for */
    double in_kernels = 0, dispatches = 0, work = 0;
    for (unsigned k = 0; k < KERNEL_COUNT; k++) {
        struct gpu_profile p = gpu_cmd_profile(cmd, k);
        r->kernel[k] = p.work > 0 ? p.seconds / p.work : 0;
        in_kernels += p.seconds;
        dispatches += (double)p.dispatches;
        work += p.work;
    }
    if (in_kernels > 0 && dispatches > 0)
        r->dispatch = fmin(fmax(0, (*seconds - in_kernels) / dispatches), DISPATCH_MOST);
    else /* a device without timestamps: products are nearly all of it */
        r->kernel[KERNEL_ID_gemm] = r->kernel[KERNEL_ID_gemm_half] = *seconds / (work > 0 ? work : 1);
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
