/* A whole quantization run: plan, walk the blocks, store each, export. A rerun with the same work folder resumes. */
#ifndef QUANT_JOB_H
#define QUANT_JOB_H

#include "host/quant/plan.h"
#include "host/base/comm.h"
#include "host/gpu/gpu_traffic.h"
#include "host/gpu/progress.h"
#include "host/quant/record.h"

/* What a rank did of a run, from the check of the weights on. */
struct rank_work {
    struct gpu_traffic parts[GPU_PARTS]; /* on its device */
    struct comm_bytes bytes;             /* to and from other ranks */
    struct comm_bytes
        expected; /* these as the plan has them, of the training that there was; of a run that found nothing done */
    bool whole;   /* this was one */
};

struct quantize_result {
    struct linear_report *linears;
    size_t n_linears;
    struct stage_report *stages; /* of the block objective, in the order they ran */
    size_t n_stages;
    struct phase_report phases[PHASE_COUNT];
    uint32_t blocks_done, blocks_resumed;
    bool finished; /* the output was there already, made by the same command; nothing was done */
    bool helped;   /* this process joined a run, and another one wrote the output */
    uint32_t made; /* linears that this process has quantized */
    double seconds, bpw, mean_loss;
    double file_bpw; /* plan.h */
    uint64_t out_bytes, device_peak, host_peak;
    double device_busy;       /* seconds that the device was at work; 0 where it has no clock */
    double reach;             /* of the Hessian objective */
    double predicted_seconds; /* what the plan said; 0 where nothing was measured */
    struct rank_work *ranks;  /* [n_ranks], of rank 0; none where nothing was done */
    uint32_t n_ranks;
    uint32_t kept; /* finished parts of blocks and epochs of the pass over scales: what a rerun takes up */
};

struct job_callbacks {
    struct progress progress;
    /* Called once the plan is made, before any work (the app prints it). May be NULL. */
    void (*planned)(void *ctx, const struct plan *p);
    /* Called for each finished linear. May be NULL. */
    void (*linear_done)(void *ctx, const struct linear_report *r);
    /* Called for each finished training stage. May be NULL. */
    void (*stage_done)(void *ctx, const struct stage_report *r);
    void *ctx;
};

/* With o->dry_run: plans, calls planned, returns true; cmd may be NULL then, and device memory and time are not
 * planned. On failure everything finished stays in the work folder. */
bool quantize_run(struct gpu_cmd *cmd, const struct quantize_options *o, const struct job_callbacks *cb,
                  struct quantize_result *out, struct err *e);
void quantize_result_free(struct quantize_result *r);

#endif
