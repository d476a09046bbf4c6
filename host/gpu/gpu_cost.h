/* What work is expected to take, by what earlier work took. The rate of each kernel is in struct gpu_kernel. */
#ifndef GPU_COST_H
#define GPU_COST_H

#include "host/gpu/gpu_pipeline_internal.h"

/* Predicted length at which work is submitted: Windows ends a job at 2 s, and a desktop should stay live. */
#define SUBMIT_NS 100e6

/* Of one submission. */
struct gpu_cost {
    double predicted_ns, transfer_ns, transfer_bytes;
    unsigned n; /* different kernels */
    struct {
        struct gpu_kernel *kernel;
        unsigned dispatches;
        double work, ns;
    } kernels[64];
};

/* Of a kernel, NULL for any; before it is measured, of a slow device. */
double gpu_cost_ns_per_work(const struct gpu *g, const struct gpu_kernel *k);
/* Nanoseconds of one dispatch. */
double gpu_cost_predict(const struct gpu *g, const struct gpu_kernel *k, double work);

void gpu_cost_clear(struct gpu_cost *c);
/* Whether another kernel has no room. */
bool gpu_cost_full(const struct gpu_cost *c);
void gpu_cost_add(struct gpu_cost *c, struct gpu_kernel *k, double work, double ns);
void gpu_cost_add_transfer(struct gpu_cost *c, double bytes, double ns_per_byte);
/* The work of one kernel, all its variants. */
double gpu_cost_work(const struct gpu_cost *c, unsigned kernel);

/* The submission took so long: every kernel's rate, and that of transfers, by its predicted share. */
void gpu_cost_learn(const struct gpu_cost *c, double ns, double *ns_per_byte);
/* One dispatch took so long. */
void gpu_cost_learn_one(struct gpu_kernel *k, double ns, double work);

#endif
