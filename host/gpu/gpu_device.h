/* The Vulkan device: capabilities, limits. Only host/gpu includes volk.h; above it, everything is these types. */
#ifndef GPU_DEVICE_H
#define GPU_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "host/base/err.h"

/* Capability bits, computed once in gpu_probe.c; a kernel variant NEEDS some of them
 * (shaders/variants.cmake). */
enum gpu_cap {
    GPU_CAP_CPU = 1 << 0,      /* the device is a CPU: wide register tiles and no barriers win */
    GPU_CAP_SUBGROUP = 1 << 1, /* arithmetic, shuffle and ballot; full subgroups of a known size */
    GPU_CAP_F16 = 1 << 2,      /* 16-bit storage and arithmetic */
    GPU_CAP_INT8 = 1 << 3,
    GPU_CAP_COOPMAT = 1 << 4, /* KHR_cooperative_matrix, f16 x f16 + f32 */
    GPU_CAP_PUSH_DESCRIPTOR = 1 << 5,
    GPU_CAP_LANES8 = 1 << 6, /* SUBGROUP, and a subgroup is 8 invocations (lavapipe with AVX) */
    /* A compiler has 128 registers and more for each invocation. Vulkan does not tell: it is so where no subgroup is smaller
     * than 32 (AMD, NVIDIA); Intel's come down to 8 or 16 because their registers are few. On a CPU the stack serves. */
    GPU_CAP_REGISTERS = 1 << 7,
    GPU_CAP_BF16 = 1 << 8, /* cooperative matrices of VK_KHR_shader_bfloat16, bf16 x bf16 + f32 */
};

/* Their names, in words of the user; `bit` 0 ends the list. */
struct gpu_cap_name {
    uint32_t bit;
    const char *name;
};
extern const struct gpu_cap_name gpu_cap_names[];

struct gpu;

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
    bool as_if;          /* limits are those of another device (GSQ_DEVICE_LIMITS) */
    double timestamp_ns; /* per tick; 0: no timestamps */
    char driver_uuid_hex[33];
    uint32_t driver_version; /* in the vendor's own counting */
};

/* What arenas hold, now and at most so far, of what they may. Whole chunks count, and what an arena keeps for later. */
struct gpu_count {
    uint64_t used, peak, limit; /* bytes */
    struct gpu_arena *arenas;   /* all of them, linked */
};

const struct gpu_info *gpu_info(const struct gpu *g);
/* Whether the driver has reset the device, or it went away: nothing works with it any more but gpu_reopen (gpu_create.h). */
bool gpu_lost(const struct gpu *g);
/* Validation messages so far (tests assert 0). */
unsigned gpu_validation_messages(const struct gpu *g);
#endif
