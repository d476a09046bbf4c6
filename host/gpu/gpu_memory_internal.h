/* Buffers, for commands, and the limit. */
#ifndef GPU_MEMORY_INTERNAL_H
#define GPU_MEMORY_INTERNAL_H

#include "host/gpu/gpu_device_internal.h"
#include "host/gpu/gpu_memory.h"

/* A buffer with memory of its own, or several in a row, none of which the device allows to be as large as that. */
struct gpu_buffer {
    VkBuffer vk; /* NULL: it is in parts, or only counted */
    struct gpu_buffer **parts;
    uint64_t part_bytes; /* of each but the last; 0: one buffer */
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
/* One in parts, for the device alone. */
bool gpu_buffer_create_parts(struct gpu_buffer **out, struct gpu *g, uint64_t size, uint64_t part_bytes, struct err *e);
void gpu_buffer_destroy(struct gpu *g, struct gpu_buffer **b);
/* The view in the part in which it lies; of a buffer that has none, as it is. size 0: it lies in more than one. */
struct gpu_view gpu_in_part(struct gpu_view v);
/* Whether the device's memory is the host's: all of it is seen, and what one writes the other reads. */
bool gpu_memory_unified(const struct gpu_probe *p, const VkPhysicalDeviceMemoryProperties *m);
/* What this run may use of the device's memory: o->mem_limit, or the budget less a reserve. */
uint64_t gpu_memory_limit(const struct gpu_probe *p, const VkPhysicalDeviceMemoryProperties *m, uint64_t asked);

#endif
