/* What a driver's compiler made of a kernel: registers, spills, instructions, as the driver names them
 * (VK_KHR_pipeline_executable_properties). For developers: tools/kernel_statistics.c. */
#ifndef GPU_STATISTICS_H
#define GPU_STATISTICS_H

#include "host/gpu/gpu_pipeline.h"

struct gpu_statistic {
    const char *name; /* "VGPRs", "Spill count" ...: each driver's own */
    double value;
};
/* Of one compiled form of a kernel; a driver may make several (of other subgroup sizes). */
struct gpu_compiled {
    const char *kernel, *variant, *form; /* "CS", "SIMD16 compute" */
    uint32_t subgroup_size;
    const struct gpu_statistic *statistics;
    uint32_t n_statistics;
    const char *assembly; /* NULL: the driver shows none */
};

/* Whether the driver tells. The device was made with gpu_options.statistics. */
bool gpu_has_statistics(const struct gpu *g);
/* Compiles variant i of this kernel, which the device can run (gpu_kernel_variant_at), and calls fn for each of its forms;
 * what it is given is good until it returns. Failures as of gpu_kernel_variant. */
bool gpu_kernel_statistics(struct gpu *g, unsigned kernel, unsigned i,
                           void (*fn)(void *ctx, const struct gpu_compiled *c), void *ctx, struct err *e);

#endif
