#include "host/gpu/gpu_device_internal.h"

#include <string.h>

const struct gpu_cap_name gpu_cap_names[] = {
    {GPU_CAP_CPU, "cpu"},
    {GPU_CAP_SUBGROUP, "subgroup"},
    {GPU_CAP_LANES8, "lanes8"},
    {GPU_CAP_F16, "f16"},
    {GPU_CAP_INT8, "int8"},
    {GPU_CAP_COOPMAT, "coopmat"},
    {GPU_CAP_BF16, "bf16"},
    {GPU_CAP_REGISTERS, "registers"},
    {GPU_CAP_PUSH_DESCRIPTOR, "push_descriptor"},
    {0, NULL},
};

const struct gpu_info *gpu_info(const struct gpu *g)
{
    return &g->probe.info;
}

bool gpu_lost(const struct gpu *g)
{
    return g->lost;
}

unsigned gpu_validation_messages(const struct gpu *g)
{
    return atomic_load(&g->messages);
}

const char *vk_result_text(VkResult r)
{
    switch (r) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
        return "out of host memory";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
        return "the device is out of memory";
    case VK_ERROR_INITIALIZATION_FAILED:
        return "the driver could not start";
    case VK_ERROR_DEVICE_LOST:
        return "the device was lost (the driver reset it, or it was unplugged)";
    case VK_ERROR_LAYER_NOT_PRESENT:
        return "a layer is not installed";
    case VK_ERROR_EXTENSION_NOT_PRESENT:
        return "an extension is missing";
    case VK_ERROR_FEATURE_NOT_PRESENT:
        return "a feature is missing";
    case VK_ERROR_INCOMPATIBLE_DRIVER:
        return "there is no Vulkan driver, or it is too old";
    case VK_ERROR_TOO_MANY_OBJECTS:
        return "too many objects";
    case VK_ERROR_FRAGMENTATION:
    case VK_ERROR_FRAGMENTED_POOL:
        return "a pool is fragmented";
    case VK_ERROR_OUT_OF_POOL_MEMORY:
        return "a pool is used up";
    default:
        return "it failed";
    }
}

bool vk_error(struct err *e, const char *call, VkResult r)
{
    int n = (int)strcspn(call, "(");
    err_set(e, ERR_ENV, "%.*s: %s (VkResult %d)", n, call, vk_result_text(r), (int)r);
    if (r == VK_ERROR_DEVICE_LOST)
        return err_hint(e,
                        "rerun the same command (what quantize has finished is kept); if it happens again, update the "
                        "driver");
    if (r == VK_ERROR_OUT_OF_HOST_MEMORY)
        return err_hint(e, "close other programs, or lower --ctx or --samples");
    if (r == VK_ERROR_OUT_OF_DEVICE_MEMORY)
        return err_hint(e, "close other programs that use the GPU, or lower --mem-limit, --ctx or --samples");
    if (r == VK_ERROR_INCOMPATIBLE_DRIVER || r == VK_ERROR_INITIALIZATION_FAILED)
        return err_hint(e, "install or update the Vulkan driver (Debian: apt install mesa-vulkan-drivers)");
    return err_hint(e, "update the graphics driver; `gsq devices` shows what it offers");
}
