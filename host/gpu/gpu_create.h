/* Which devices there are, and one of them made ready. */
#ifndef GPU_CREATE_H
#define GPU_CREATE_H

#include "host/gpu/gpu_device.h"

struct gpu_options {
    /* Number or part of a name; NULL: $GSQ_DEVICE, else the best (discrete, integrated, virtual, CPU). */
    const char *device;
    const char *variant;   /* wherever a kernel has this variant and the device can run it; NULL: best first */
    uint64_t mem_limit;    /* device bytes; 0: what the device reports as its budget, less a reserve */
    const char *cache_dir; /* pipeline cache; NULL: none */
    unsigned threads;      /* for a CPU device: how many threads it may use; 0: all */
    /* enum gpu_cap bits to do without, though the device has them; and those that $GSQ_WITHOUT names: "coopmat,f16" */
    uint32_t without;
    uint32_t max_shared; /* bytes of shared memory to do with, though the device has more (tests); 0: what it has */
    /* Validation and synchronization validation, where the layer is installed; also on where $GSQ_VALIDATE
     * is 1. Messages are logged as errors and counted. */
    bool validate;
    /* Transfers go by way of staging buffers though host and device have one memory, as they go to a card; also on where
     * $GSQ_STAGING is 1 (tests). */
    bool staging;
    bool statistics; /* pipelines tell what their compiler made of them (gpu_statistics.h); they take longer to make */
};

/* No loader, no device, a number or name that matches none, Vulkan below 1.3: ERR_ENV (or ERR_USER for the
 * choice) with a hint what to install. */
bool gpu_create(struct gpu **out, const struct gpu_options *o, struct err *e);
/* A lost device anew, in its place: gpu_info, the chosen variants and the measured rates stay. Its commands and arenas are
 * destroyed before. A driver that was reset may refuse for some seconds: try again. */
bool gpu_reopen(struct gpu *g, struct err *e);
/* Waits for the device. Logs an error where validation said anything. */
void gpu_destroy(struct gpu **g);
/* Every device that Vulkan shows, also unusable ones (usable = false, why says what is missing). */
bool gpu_list(bool (*fn)(void *ctx, const struct gpu_info *info, bool usable, const char *why), void *ctx,
              struct err *e);

#endif
