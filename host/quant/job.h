/* A whole quantization run: plan, walk the blocks, checkpoint each, export. Rerun with the same work folder
 * to resume. */
#ifndef QUANT_JOB_H
#define QUANT_JOB_H

#include "host/quant/plan.h"
#include "host/quant/progress.h"

/* What became of one linear (for the table, --json and the report). Losses are tr(D H D^T) / tr(W H W^T) on
 * the calibration Hessian: relative reconstruction error. */
struct linear_report {
    char module[96];
    double loss_rtn, loss_gptq, loss_final; /* NAN where that stage did not run */
    uint32_t rows_rolled_back;              /* rows where the start was better (guard) */
    bool damp_raised, diagonal_only;        /* what the Cholesky needed */
    double seconds;
};

struct quantize_result {
    struct linear_report *linears;
    size_t n_linears;
    uint32_t blocks_done, blocks_resumed;
    double seconds, bpw, mean_loss;
    uint64_t out_bytes, device_peak, host_peak;
    double reach;
};

struct job_callbacks {
    struct progress progress;
    /* Called once the plan is made, before any work (the app prints it). May be NULL. */
    void (*planned)(void *ctx, const struct plan *p);
    /* Called for each finished linear. May be NULL. */
    void (*linear_done)(void *ctx, const struct linear_report *r);
    void *ctx;
};

/* With o->dry_run: plans, calls planned, returns true. On failure everything finished stays in the work
 * folder. */
bool quantize_run(struct gpu_cmd *cmd, const struct quantize_options *o, const struct job_callbacks *cb,
                  struct quantize_result *out, struct err *e);
void quantize_result_free(struct quantize_result *r);

/* gsq convert: the codes of a quantized folder re-packed in another format, never requantized. */
bool convert_run(const char *in_dir, const char *out_dir, enum export_format format, unsigned container,
                 const struct progress *progress, struct err *e);

#endif
