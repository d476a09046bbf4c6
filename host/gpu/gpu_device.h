/* The Vulkan device: choice, capabilities, limits. Only host/gpu includes volk.h; above it, everything is
 * these types. */
#ifndef GPU_DEVICE_H
#define GPU_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "host/base/err.h"

/* Capability bits, computed once in gpu_device.c; a kernel variant NEEDS some of them
 * (shaders/variants.cmake). */
enum gpu_cap {
    GPU_CAP_CPU = 1 << 0,      /* the device is a CPU: wide register tiles and no barriers win */
    GPU_CAP_SUBGROUP = 1 << 1, /* arithmetic, shuffle and ballot; full subgroups of a known size */
    GPU_CAP_F16 = 1 << 2,      /* 16-bit storage and arithmetic */
    GPU_CAP_INT8 = 1 << 3,
    GPU_CAP_COOPMAT = 1 << 4, /* KHR_cooperative_matrix, f16 x f16 + f32 */
    GPU_CAP_PUSH_DESCRIPTOR = 1 << 5,
    GPU_CAP_LANES8 = 1 << 6, /* SUBGROUP, and a subgroup is 8 invocations (lavapipe with AVX) */
};

struct gpu;

struct gpu_options {
    /* Number or part of a name; NULL: $GSQ_DEVICE, else the best (discrete, integrated, virtual, CPU). */
    const char *device;
    const char *variant;   /* wherever a kernel has this variant and the device can run it; NULL: best first */
    uint64_t mem_limit;    /* device bytes; 0: what the device reports as its budget, less a reserve */
    const char *cache_dir; /* pipeline cache; NULL: none */
    unsigned threads;      /* for a CPU device: how many threads it may use; 0: all */
    uint32_t without;      /* enum gpu_cap bits to do without, though the device has them (tests) */
    /* Validation and synchronization validation, where the layer is installed; also on where $GSQ_VALIDATE
     * is 1. Messages are logged as errors and counted. */
    bool validate;
};

struct gpu_info {
    char name[256], driver[256], api[32];
    const char *kind; /* "discrete GPU", "integrated GPU", "virtual GPU", "CPU", "other" */
    uint32_t index;
    uint32_t caps; /* enum gpu_cap bits */
    uint32_t subgroup_size, max_invocations, shared_bytes, max_groups[3];
    uint64_t max_range;  /* of one bound view (maxStorageBufferRange) */
    uint64_t max_alloc;  /* of one buffer */
    uint32_t min_align;  /* of a view's offset */
    uint64_t heap_bytes; /* of device memory */
    uint64_t mem_limit;  /* what this run may use */
    double timestamp_ns; /* per tick; 0: no timestamps */
    char driver_uuid_hex[33];
};

/* No loader, no device, a number or name that matches none, Vulkan below 1.3: ERR_ENV (or ERR_USER for the
 * choice) with a hint what to install. */
bool gpu_create(struct gpu **out, const struct gpu_options *o, struct err *e);
/* Waits for the device. Logs an error where validation said anything. */
void gpu_destroy(struct gpu **g);
const struct gpu_info *gpu_info(const struct gpu *g);
/* Validation messages so far (tests assert 0). */
unsigned gpu_validation_messages(const struct gpu *g);
/* Every device that Vulkan shows, also unusable ones (usable = false, why says what is missing). */
bool gpu_list(bool (*fn)(void *ctx, const struct gpu_info *info, bool usable, const char *why), void *ctx,
              struct err *e);

#endif
