/* Buffers, for commands, and the limit. */
#ifndef GPU_MEMORY_INTERNAL_H
#define GPU_MEMORY_INTERNAL_H

#include "host/gpu/gpu_device_internal.h"
#include "host/gpu/gpu_memory.h"

/* A buffer with memory of its own. */
struct gpu_buffer {
    VkBuffer vk;
    VkDeviceMemory memory;
    uint64_t size;
    void *map;   /* where the host sees it; NULL: nowhere */
    bool cached; /* and reads it at its own speed */
    /* Of those that the host sees: whose submission touches them last. */
    const struct gpu_cmd *user;
    uint64_t last;
};
enum gpu_buffer_use { GPU_BUFFER_DEVICE, GPU_BUFFER_HOST, GPU_BUFFER_UPLOAD, GPU_BUFFER_READBACK };
bool gpu_buffer_create(struct gpu_buffer **out, struct gpu *g, uint64_t size, enum gpu_buffer_use use, struct err *e);
void gpu_buffer_destroy(struct gpu *g, struct gpu_buffer **b);
/* Whether the device's memory is the host's: all of it is seen, and what one writes the other reads. */
bool gpu_memory_unified(const struct gpu_probe *p, const VkPhysicalDeviceMemoryProperties *m);
/* What this run may use of the device's memory: o->mem_limit, or the budget less a reserve. */
uint64_t gpu_memory_limit(const struct gpu_probe *p, const VkPhysicalDeviceMemoryProperties *m, uint64_t asked);

#endif
