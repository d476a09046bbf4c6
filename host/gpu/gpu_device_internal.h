/* What the files of host/gpu share. Nothing above this folder includes it (tests of this folder may). */
#ifndef GPU_DEVICE_INTERNAL_H
#define GPU_DEVICE_INTERNAL_H

#include <volk.h>

#include "host/base/num.h"
#include "host/gpu/gpu_device.h"

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

/* One physical device (gpu_probe.h). */
struct gpu_probe {
    VkPhysicalDevice physical;
    struct gpu_info info;
    bool usable;
    char why[256]; /* not usable: the reason */
    VkPhysicalDeviceType type;
    uint32_t vendor, device;
    uint8_t cache_uuid[VK_UUID_SIZE];
    uint32_t pci[4]; /* domain, bus, device, function; ~0: not told */
    uint32_t queue_family, timestamp_bits;
    uint32_t max_texels;      /* of one uniform texel buffer */
    uint32_t max_subgroups;   /* of one workgroup */
    bool memory_budget;       /* VK_EXT_memory_budget */
    bool statistics;          /* VK_KHR_pipeline_executable_properties */
    bool subgroup_size_fixed; /* the size can be required at pipeline creation */
    uint32_t subgroup_least;  /* the smallest that can be, and the largest */
    uint32_t subgroup_most;
    uint32_t coopmat[3], coopmat_bf16[3]; /* M, N, K of f16 x f16 + f32, and of bf16 x bf16 + f32; 0: none */
    VkPhysicalDeviceFeatures2 features;   /* those to switch on; the chain below hangs on it */
    VkPhysicalDeviceVulkan11Features v11;
    VkPhysicalDeviceVulkan12Features v12;
    VkPhysicalDeviceVulkan13Features v13;
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
    double submit_ns;      /* predicted length at which work is submitted: SUBMIT_NS (gpu_cost.h) */
    struct gpu_count held; /* by arenas */
    struct gpu_count host; /* by those of host memory */
    bool unified;          /* the host sees all of the device's memory, and uses it so */
    uint64_t chunk_bytes;
    struct gpu_pipelines *pipelines; /* gpu_pipeline.c */
    bool lost;
    bool statistics; /* asked for, and to be had */
};

#endif
