/* What the files of host/gpu share. Nothing above this folder includes it (tests of this folder may). */
#ifndef GPU_INTERNAL_H
#define GPU_INTERNAL_H

#include <volk.h>

#include "host/base/num.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/kernel_table.h"
#include "host/gpu/spirv.h"

#include <stdatomic.h>

/* Calls Vulkan; on failure fills e with a sentence naming the call and jumps to `fail`. */
#define VK(e, call)                                                                                                    \
    do {                                                                                                               \
        VkResult vk_result_ = (call);                                                                                  \
        if (vk_result_ < 0) {                                                                                          \
            vk_error((e), #call, vk_result_);                                                                          \
            goto fail;                                                                                                 \
        }                                                                                                              \
    } while (0)

/* "vkCreateDevice: the device is out of memory", ERR_ENV, with a hint. call: the text of the call; its
 * arguments are left out. Always returns false. */
bool vk_error(struct err *e, const char *call, VkResult r);
const char *vk_result_text(VkResult r);

/* One physical device, as gpu_create and gpu_list see it. */
struct gpu_probe {
    VkPhysicalDevice physical;
    struct gpu_info info;
    bool usable;
    char why[256]; /* not usable: the reason */
    VkPhysicalDeviceType type;
    uint32_t vendor, device;
    uint8_t cache_uuid[VK_UUID_SIZE];
    uint32_t queue_family, timestamp_bits;
    uint32_t max_texels;                /* of one uniform texel buffer */
    uint32_t max_subgroups;             /* of one workgroup */
    bool memory_budget;                 /* VK_EXT_memory_budget */
    bool subgroup_size_fixed;           /* the size can be required at pipeline creation */
    uint32_t coopmat[3];                /* M, N, K of the f16 x f16 + f32 product; 0: none */
    VkPhysicalDeviceFeatures2 features; /* those to switch on; the chain below hangs on it */
    VkPhysicalDeviceVulkan11Features v11;
    VkPhysicalDeviceVulkan12Features v12;
    VkPhysicalDeviceVulkan13Features v13;
};

/* One row of kernel_variants on this device. */
struct gpu_kernel {
    const struct kernel_variant *variant;
    bool usable;
    uint32_t local_size;
    struct spirv_info spirv;
    VkPipeline pipeline; /* null until first used */
    VkPipelineLayout layout;
    VkDescriptorSetLayout set_layout;
    double ns_per_work; /* measured; 0: not yet */
};

struct gpu {
    struct gpu_probe probe;
    VkInstance instance;
    VkDebugUtilsMessengerEXT messenger;
    PFN_vkDestroyDebugUtilsMessengerEXT destroy_messenger; /* an instance without validation clears the global one */
    atomic_uint messages;                                  /* of validation */
    VkDevice device;
    VkQueue queue;
    VkPhysicalDeviceMemoryProperties memory;
    struct gpu_count held; /* by arenas */
    uint64_t chunk_bytes;
    /* gpu_pipeline.c */
    struct gpu_kernel *kernels; /* one per row of kernel_variants */
    unsigned n_kernels;
    /* Index into kernels, -1: none. What gpu_create chose, and what is in use (gpu_kernel_force); for the calls that it is
     * made for, a variant with a WHERE goes first. */
    struct gpu_choice {
        int any, where;
    } first_choice[KERNEL_COUNT], chosen[KERNEL_COUNT];
    VkPipelineCache cache;
    char cache_path[4096]; /* "" : not kept */
    struct hash128 cache_hash;
    bool lost;
};

/* On a CPU device, buffers are up to this much longer than asked for: see texel_range and vk_size. */
enum { TEXEL_SLACK = 512 };

/* gpu_pipeline.c */
bool gpu_pipelines_init(struct gpu *g, const struct gpu_options *o, struct err *e);
void gpu_pipelines_destroy(struct gpu *g);
/* The variant chosen for a call with these push constants, ready to be bound; NULL and e on failure. Valid until
 * gpu_destroy. push NULL: any call. */
struct gpu_kernel *gpu_kernel_get(struct gpu *g, unsigned kernel, const void *push, struct err *e);
/* The same without creating its pipeline; NULL if there is none. */
struct gpu_kernel *gpu_kernel_chosen(struct gpu *g, unsigned kernel, const void *push);

/* A storage buffer, or a uniform texel buffer where the shader declares the binding so. */
VkDescriptorType gpu_binding_type(const struct gpu_kernel *k, unsigned binding);

/* gpu_memory.c. A buffer with memory of its own. */
struct gpu_buffer {
    VkBuffer vk;
    VkDeviceMemory memory;
    uint64_t size;
    void *map; /* staging buffers */
};
enum gpu_buffer_use { GPU_BUFFER_DEVICE, GPU_BUFFER_UPLOAD, GPU_BUFFER_READBACK };
bool gpu_buffer_create(struct gpu_buffer **out, struct gpu *g, uint64_t size, enum gpu_buffer_use use, struct err *e);
void gpu_buffer_destroy(struct gpu *g, struct gpu_buffer **b);
/* What this run may use of the device's memory: o->mem_limit, or the budget less a reserve. */
uint64_t gpu_memory_limit(const struct gpu_probe *p, const VkPhysicalDeviceMemoryProperties *m, uint64_t asked);

#endif
