/* Instance, choice of the device, its capabilities.
 *
 * volk's global pointers are used (volkLoadInstance): they are the loader's trampolines and so serve any
 * number of instances and devices. */
#include "host/gpu/gpu_probe.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/gpu/gpu_memory_internal.h"
#include "host/gpu/kernel_decl.h"

enum { MAX_DEVICES = 32 };

/* On a CPU device, buffers are up to this much longer than asked for: texel_range in gpu_dispatch.c, vk_size in
 * gpu_memory.c. */
enum { TEXEL_SLACK = 512 };

/* Drivers that announce what does not work. */
static const struct workaround {
    VkDriverId driver;
    uint32_t from, to; /* driver versions, both inclusive */
    uint32_t clear;    /* capability bits */
    const char *link;
} workarounds[] = {
    /* Crashes in cooperative matrix products on Windows. */
    {VK_DRIVER_ID_AMD_PROPRIETARY, 0, UINT32_MAX, GPU_CAP_COOPMAT,
     "https://github.com/ggml-org/llama.cpp/issues/17432"},
};

/* ---- instance ---- */

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT type,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    struct gpu *g = user;
    (void)severity;
    (void)type;
    atomic_fetch_add(&g->messages, 1);
    log_error("validation: %s", data->pMessage);
    return VK_FALSE;
}

/* Whether a list of extensions has this one. */
static bool has_extension(const VkExtensionProperties *list, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(list[i].extensionName, name) == 0)
            return true;
    return false;
}

static bool layer_installed(const char *name)
{
    uint32_t n = 0;
    VkLayerProperties *list = NULL;
    bool found = false;
    if (vkEnumerateInstanceLayerProperties(&n, NULL) == VK_SUCCESS && n && (list = calloc(n, sizeof *list)) &&
        vkEnumerateInstanceLayerProperties(&n, list) >= 0)
        for (uint32_t i = 0; i < n; i++)
            found = found || strcmp(list[i].layerName, name) == 0;
    free(list);
    return found;
}

#ifdef GSQ_SANITIZE
/* Drivers leak, and a driver that the loader has unloaded has no name to suppress that by: one instance
 * stays. */
static void keep_drivers_loaded(void)
{
    static VkInstance instance;
    VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO};
    if (!instance)
        vkCreateInstance(&info, NULL, &instance);
}
#endif

bool gpu_instance_create(struct gpu *g, bool validate, struct err *e)
{
    if (volkInitialize() != VK_SUCCESS) {
        err_set(e, ERR_ENV, "there is no Vulkan loader on this system");
        return err_hint(e, "Linux: apt install libvulkan1 mesa-vulkan-drivers; Windows: install the graphics driver");
    }
#ifdef GSQ_SANITIZE
    keep_drivers_loaded();
#endif
    const char *layer = "VK_LAYER_KHRONOS_validation";
    const char *extensions[2] = {0};
    uint32_t n_extensions = 0;
    if (validate && !layer_installed(layer)) {
        log_warn("validation was asked for, but %s is not installed", layer);
        validate = false;
    }
    VkApplicationInfo app = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pApplicationName = "gsq",
        .apiVersion = VK_API_VERSION_1_3,
    };
    VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pApplicationInfo = &app,
        .ppEnabledExtensionNames = extensions,
    };
    const VkValidationFeatureEnableEXT sync = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
    VkValidationFeaturesEXT features = {
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .enabledValidationFeatureCount = 1,
        .pEnabledValidationFeatures = &sync,
    };
    VkDebugUtilsMessengerCreateInfoEXT messenger = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .pNext = &features,
        .messageSeverity =
            VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = g,
    };
    if (validate) {
        info.enabledLayerCount = 1;
        info.ppEnabledLayerNames = &layer;
        extensions[n_extensions++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
        extensions[n_extensions++] = VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME;
        info.pNext = &messenger;
    }
    info.enabledExtensionCount = n_extensions;
    VK(e, vkCreateInstance(&info, NULL, &g->instance));
    volkLoadInstance(g->instance);
    messenger.pNext = NULL;
    if (validate) {
        g->destroy_messenger = vkDestroyDebugUtilsMessengerEXT;
        VK(e, vkCreateDebugUtilsMessengerEXT(g->instance, &messenger, NULL, &g->messenger));
    }
    return true;
fail:
    return false;
}

/* ---- what a device offers ---- */

static const char *kind_name(VkPhysicalDeviceType t)
{
    switch (t) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return "discrete GPU";
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return "integrated GPU";
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return "virtual GPU";
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return "CPU";
    default:
        return "other";
    }
}

/* A compute queue with timestamps, apart from graphics where there is one: the desktop stays live. */
static bool choose_queue(struct gpu_probe *p)
{
    VkQueueFamilyProperties families[16];
    uint32_t n = 16;
    vkGetPhysicalDeviceQueueFamilyProperties(p->physical, &n, families);
    int best = -1, best_score = -1;
    for (uint32_t i = 0; i < n; i++) {
        if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || families[i].queueCount == 0)
            continue;
        int score = 2 * (families[i].timestampValidBits > 0) + !(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT);
        if (score > best_score) {
            best_score = score;
            best = (int)i;
        }
    }
    if (best < 0)
        return false;
    p->queue_family = (uint32_t)best;
    p->timestamp_bits = families[best].timestampValidBits;
    return true;
}

#ifdef VK_KHR_cooperative_matrix
/* The largest tile, M, N, K, of a product of a type with f32 accumulation by a subgroup; 0: none. */
static void largest_tile(const VkCooperativeMatrixPropertiesKHR *shapes, uint32_t n, VkComponentTypeKHR type,
                         uint32_t tile[3])
{
    uint64_t best = 0;
    for (uint32_t i = 0; i < n; i++) {
        const VkCooperativeMatrixPropertiesKHR *s = &shapes[i];
        uint64_t volume = (uint64_t)s->MSize * s->NSize * s->KSize;
        if (s->AType == type && s->BType == type && s->CType == VK_COMPONENT_TYPE_FLOAT32_KHR &&
            s->ResultType == VK_COMPONENT_TYPE_FLOAT32_KHR && s->scope == VK_SCOPE_SUBGROUP_KHR &&
            !s->saturatingAccumulation && volume > best) {
            best = volume;
            tile[0] = s->MSize;
            tile[1] = s->NSize;
            tile[2] = s->KSize;
        }
    }
}

static void probe_coopmat(struct gpu_probe *p, bool bf16)
{
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR f = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR};
    VkPhysicalDeviceFeatures2 f2 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &f};
    vkGetPhysicalDeviceFeatures2(p->physical, &f2);
    if (!f.cooperativeMatrix || !p->v12.vulkanMemoryModel || !vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)
        return;
    VkCooperativeMatrixPropertiesKHR shapes[64];
    uint32_t n = 64;
    for (uint32_t i = 0; i < n; i++)
        shapes[i] = (VkCooperativeMatrixPropertiesKHR){.sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR};
    if (vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(p->physical, &n, shapes) < 0)
        return;
    largest_tile(shapes, n, VK_COMPONENT_TYPE_FLOAT16_KHR, p->coopmat);
#ifdef VK_KHR_shader_bfloat16
    VkPhysicalDeviceShaderBfloat16FeaturesKHR b = {.sType =
                                                       VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_BFLOAT16_FEATURES_KHR};
    f2.pNext = &b;
    if (bf16)
        vkGetPhysicalDeviceFeatures2(p->physical, &f2);
    if (b.shaderBFloat16Type && b.shaderBFloat16CooperativeMatrix)
        largest_tile(shapes, n, VK_COMPONENT_TYPE_BFLOAT16_KHR, p->coopmat_bf16);
#else
    (void)bf16;
#endif
}
#endif

static void probe_pci(struct gpu_probe *p)
{
    VkPhysicalDevicePCIBusInfoPropertiesEXT pci = {.sType =
                                                       VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PCI_BUS_INFO_PROPERTIES_EXT};
    VkPhysicalDeviceProperties2 props = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &pci};
    vkGetPhysicalDeviceProperties2(p->physical, &props);
    const uint32_t at[4] = {pci.pciDomain, pci.pciBus, pci.pciDevice, pci.pciFunction};
    memcpy(p->pci, at, sizeof at);
}

static void probe_extensions(struct gpu_probe *p)
{
    uint32_t n = 0;
    VkExtensionProperties *list = NULL;
    if (vkEnumerateDeviceExtensionProperties(p->physical, NULL, &n, NULL) >= 0 && n &&
        (list = calloc(n, sizeof *list)) && vkEnumerateDeviceExtensionProperties(p->physical, NULL, &n, list) >= 0) {
        if (has_extension(list, n, VK_KHR_PUSH_DESCRIPTOR_EXTENSION_NAME))
            p->info.caps |= GPU_CAP_PUSH_DESCRIPTOR;
        if (has_extension(list, n, VK_EXT_PCI_BUS_INFO_EXTENSION_NAME))
            probe_pci(p);
        p->memory_budget = has_extension(list, n, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
        p->statistics = has_extension(list, n, VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME);
#ifdef VK_KHR_cooperative_matrix
        if (has_extension(list, n, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME))
            probe_coopmat(p, has_extension(list, n, "VK_KHR_shader_bfloat16"));
#endif
    }
    free(list);
}

/* Chains the feature structs behind p->features. The probe may have been copied since. */
void gpu_probe_features(struct gpu_probe *p)
{
    p->features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
    p->features.pNext = &p->v11;
    p->v11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
    p->v11.pNext = &p->v12;
    p->v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    p->v12.pNext = &p->v13;
    p->v13.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES;
    p->v13.pNext = NULL;
}

/* Asks for the features and keeps those that are of use. */
static void probe_features(struct gpu_probe *p)
{
    struct gpu_probe have = {0};
    gpu_probe_features(&have);
    vkGetPhysicalDeviceFeatures2(p->physical, &have.features);
    p->v11.storageBuffer16BitAccess = have.v11.storageBuffer16BitAccess;
    p->v12.storageBuffer8BitAccess = have.v12.storageBuffer8BitAccess;
    p->v12.shaderFloat16 = have.v12.shaderFloat16;
    p->v12.shaderInt8 = have.v12.shaderInt8;
    p->v12.timelineSemaphore = have.v12.timelineSemaphore;
    p->v12.scalarBlockLayout = have.v12.scalarBlockLayout;
    p->v12.vulkanMemoryModel = have.v12.vulkanMemoryModel;
    p->v12.vulkanMemoryModelDeviceScope = have.v12.vulkanMemoryModelDeviceScope;
    p->v13.subgroupSizeControl = have.v13.subgroupSizeControl;
    p->v13.computeFullSubgroups = have.v13.computeFullSubgroups;
    p->v13.synchronization2 = have.v13.synchronization2;
    p->v13.maintenance4 = have.v13.maintenance4;
    p->v13.shaderIntegerDotProduct = have.v13.shaderIntegerDotProduct;
}

static uint32_t probe_caps(const struct gpu_probe *p, const VkPhysicalDeviceVulkan11Properties *v11,
                           const VkPhysicalDeviceVulkan13Properties *v13, bool *fixed)
{
    const VkSubgroupFeatureFlags ops = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_ARITHMETIC_BIT |
                                       VK_SUBGROUP_FEATURE_SHUFFLE_BIT | VK_SUBGROUP_FEATURE_BALLOT_BIT;
    uint32_t caps = 0;
    if (p->type == VK_PHYSICAL_DEVICE_TYPE_CPU)
        caps |= GPU_CAP_CPU;
    /* SPIR-V 1.6 lets the size vary unless it is required or there is only one. */
    *fixed = p->v13.subgroupSizeControl && (v13->requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT) &&
             v11->subgroupSize >= v13->minSubgroupSize && v11->subgroupSize <= v13->maxSubgroupSize;
    bool known = *fixed || v13->minSubgroupSize == v13->maxSubgroupSize;
    if (known && p->v13.subgroupSizeControl && p->v13.computeFullSubgroups && v11->subgroupSize > 1 &&
        (v11->subgroupSupportedOperations & ops) == ops && (v11->subgroupSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT))
        caps |= GPU_CAP_SUBGROUP | (v11->subgroupSize == 8 ? GPU_CAP_LANES8 : 0);
    if (p->v11.storageBuffer16BitAccess && p->v12.shaderFloat16)
        caps |= GPU_CAP_F16;
    if (p->v12.storageBuffer8BitAccess && p->v12.shaderInt8)
        caps |= GPU_CAP_INT8;
    if (v13->minSubgroupSize >= 32 || (caps & GPU_CAP_CPU))
        caps |= GPU_CAP_REGISTERS;
    if (p->coopmat[0] && (caps & GPU_CAP_SUBGROUP) && (caps & GPU_CAP_F16))
        caps |= GPU_CAP_COOPMAT;
    if (p->coopmat_bf16[0] && (caps & GPU_CAP_COOPMAT))
        caps |= GPU_CAP_BF16;
    return caps;
}

static void probe_limits(struct gpu_probe *p, const VkPhysicalDeviceLimits *l,
                         const VkPhysicalDeviceVulkan11Properties *v11, const VkPhysicalDeviceVulkan13Properties *v13)
{
    struct gpu_info *i = &p->info;
    i->subgroup_size = v11->subgroupSize;
    i->max_invocations = l->maxComputeWorkGroupInvocations < l->maxComputeWorkGroupSize[0]
                             ? l->maxComputeWorkGroupInvocations
                             : l->maxComputeWorkGroupSize[0];
    p->max_subgroups = v13->maxComputeWorkgroupSubgroups;
    i->shared_bytes = l->maxComputeSharedMemorySize;
    memcpy(i->max_groups, l->maxComputeWorkGroupCount, sizeof i->max_groups);
    i->max_range = l->maxStorageBufferRange;
    p->max_texels = l->maxTexelBufferElements;
    i->max_alloc = min_u64(v13->maxBufferSize, v11->maxMemoryAllocationSize);
    if (p->type == VK_PHYSICAL_DEVICE_TYPE_CPU)
        i->max_alloc -= TEXEL_SLACK;
    i->min_align = (uint32_t)l->minStorageBufferOffsetAlignment;
    if (i->min_align < 4)
        i->min_align = 4;
    i->timestamp_ns = p->timestamp_bits ? l->timestampPeriod : 0;
}

static void apply_workarounds(struct gpu_probe *p, const VkPhysicalDeviceDriverProperties *d, uint32_t version)
{
    for (size_t i = 0; i < sizeof workarounds / sizeof *workarounds; i++) {
        const struct workaround *w = &workarounds[i];
        if (w->driver == d->driverID && version >= w->from && version <= w->to && (p->info.caps & w->clear)) {
            p->info.caps &= ~w->clear;
            log_debug("%s: a capability is not used: %s", p->info.name, w->link);
        }
    }
}

/* What is missing for this program, or NULL. */
static const char *missing(const struct gpu_probe *p, const VkPhysicalDeviceLimits *l, bool has_queue)
{
    unsigned buffers = 0;
    for (unsigned k = 0; k < KERNEL_COUNT; k++)
        if (kernel_decls[k].n_buffers > buffers)
            buffers = kernel_decls[k].n_buffers;
    if (!has_queue)
        return "it has no compute queue";
    if (!p->v12.timelineSemaphore || !p->v13.synchronization2 || !p->v13.maintenance4)
        return "it lacks a mandatory feature of Vulkan 1.3";
    if (l->maxPerStageDescriptorStorageBuffers < buffers)
        return "it binds too few buffers at once";
    if (p->info.min_align > 256)
        return "it wants buffers aligned to more than 256 bytes";
    return NULL;
}

static void probe_device(struct gpu_probe *p, VkPhysicalDevice physical, uint32_t index)
{
    VkPhysicalDeviceProperties base;
    vkGetPhysicalDeviceProperties(physical, &base);
    *p = (struct gpu_probe){
        .physical = physical, .type = base.deviceType, .vendor = base.vendorID, .device = base.deviceID};
    struct gpu_info *i = &p->info;
    memset(p->pci, 0xff, sizeof p->pci);
    i->index = index;
    i->kind = kind_name(base.deviceType);
    snprintf(i->name, sizeof i->name, "%s", base.deviceName);
    snprintf(i->api, sizeof i->api, "%u.%u.%u", VK_API_VERSION_MAJOR(base.apiVersion),
             VK_API_VERSION_MINOR(base.apiVersion), VK_API_VERSION_PATCH(base.apiVersion));
    i->driver_version = base.driverVersion;
    memcpy(p->cache_uuid, base.pipelineCacheUUID, VK_UUID_SIZE);
    if (base.apiVersion < VK_API_VERSION_1_3) {
        snprintf(p->why, sizeof p->why, "its driver speaks Vulkan %s, 1.3 is needed", i->api);
        return;
    }
    VkPhysicalDeviceVulkan13Properties v13 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_PROPERTIES};
    VkPhysicalDeviceDriverProperties driver = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES,
                                               .pNext = &v13};
    VkPhysicalDeviceVulkan11Properties v11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES,
                                              .pNext = &driver};
    VkPhysicalDeviceProperties2 props = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &v11};
    vkGetPhysicalDeviceProperties2(physical, &props);
    snprintf(i->driver, sizeof i->driver, "%.120s %.120s", driver.driverName, driver.driverInfo);
    bool has_queue = choose_queue(p);
    probe_limits(p, &base.limits, &v11, &v13);
    for (unsigned b = 0; b < VK_UUID_SIZE; b++)
        snprintf(i->driver_uuid_hex + 2 * b, 3, "%02x", v11.driverUUID[b]);
    probe_features(p);
    probe_extensions(p);
    i->caps |= probe_caps(p, &v11, &v13, &p->subgroup_size_fixed);
    p->subgroup_least = p->subgroup_size_fixed ? v13.minSubgroupSize : i->subgroup_size;
    p->subgroup_most = p->subgroup_size_fixed ? v13.maxSubgroupSize : i->subgroup_size;
    apply_workarounds(p, &driver, base.driverVersion);

    VkPhysicalDeviceMemoryProperties memory;
    vkGetPhysicalDeviceMemoryProperties(physical, &memory);
    for (uint32_t h = 0; h < memory.memoryHeapCount; h++)
        if (memory.memoryHeaps[h].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
            i->heap_bytes = max_u64(i->heap_bytes, memory.memoryHeaps[h].size);
    i->mem_limit = gpu_memory_limit(p, &memory, 0);
    const char *lack = missing(p, &base.limits, has_queue);
    p->usable = !lack;
    snprintf(p->why, sizeof p->why, "%s", lack ? lack : "");
}

bool gpu_probe_all(struct gpu *g, struct gpu_probe **out, uint32_t *n, struct err *e)
{
    VkPhysicalDevice devices[MAX_DEVICES];
    *out = NULL;
    *n = MAX_DEVICES;
    VkResult r = vkEnumeratePhysicalDevices(g->instance, n, devices);
    if (r == VK_ERROR_INITIALIZATION_FAILED || (r >= 0 && *n == 0)) {
        err_set(e, ERR_ENV, "there is no Vulkan device");
        return err_hint(e, "install a Vulkan driver (Debian: apt install mesa-vulkan-drivers, which also has "
                           "one for the CPU)");
    }
    if (r < 0)
        return vk_error(e, "vkEnumeratePhysicalDevices", r);
    *out = calloc(*n, sizeof **out);
    if (!*out)
        return err_nomem(e, "the list of devices", *n * sizeof **out);
    for (uint32_t i = 0; i < *n; i++)
        probe_device(&(*out)[i], devices[i], i);
    return true;
}

/* ---- choice ---- */

static int rank(VkPhysicalDeviceType t)
{
    switch (t) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return 0;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return 1;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return 2;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return 3;
    default:
        return 4;
    }
}

/* Case-insensitive strstr, ASCII. */
static bool contains(const char *text, const char *part)
{
    for (; *text; text++) {
        size_t i = 0;
        while (part[i] && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i]))
            i++;
        if (!part[i])
            return true;
    }
    return false;
}

static void list_into(char *out, size_t cap, const struct gpu_probe *p, uint32_t n)
{
    size_t at = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < n && at + 1 < cap; i++) {
        int len = snprintf(out + at, cap - at, "%s%u: %s", i ? ", " : "", i, p[i].info.name);
        at += len > 0 ? (size_t)len : 0;
    }
}

/* Whether a comes before b on the bus, or else in the loader's order. */
static bool is_before(const struct gpu_probe *a, const struct gpu_probe *b)
{
    for (size_t i = 0; i < sizeof a->pci / sizeof *a->pci; i++)
        if (a->pci[i] != b->pci[i])
            return a->pci[i] < b->pci[i];
    return a->info.index < b->info.index;
}

/* The one with so many of its kind before it, counted round. */
static const struct gpu_probe *of_kind(const struct gpu_probe *p, uint32_t n, VkPhysicalDeviceType type,
                                       unsigned process)
{
    uint32_t all = 0;
    for (uint32_t i = 0; i < n; i++)
        all += p[i].usable && p[i].type == type;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t before = 0;
        for (uint32_t k = 0; k < n; k++)
            before += p[k].usable && p[k].type == type && is_before(&p[k], &p[i]);
        if (p[i].usable && p[i].type == type && before == process % all)
            return &p[i];
    }
    return NULL;
}

/* A process's own number of a list "0,1"; what is no list as it is. */
static const char *of_list(const char *want, unsigned process, char own[16])
{
    if (!want || !strchr(want, ',') || strspn(want, "0123456789,") != strlen(want))
        return want;
    unsigned all = 1;
    for (const char *c = want; *c; c++)
        all += *c == ',';
    for (unsigned skip = process % all; skip; skip--)
        want = strchr(want, ',') + 1;
    snprintf(own, 16, "%.*s", (int)strcspn(want, ","), want);
    return own;
}

const struct gpu_probe *gpu_probe_choose(const struct gpu_probe *p, uint32_t n, const char *want, unsigned process,
                                         unsigned processes, struct err *e)
{
    const struct gpu_probe *best = NULL, *unusable = NULL;
    char own[16];
    want = of_list(want, process, own);
    bool any = !want || !*want;
    bool number = !any && strspn(want, "0123456789") == strlen(want) && strlen(want) < 10;
    for (uint32_t i = 0; i < n; i++) {
        if (!any && !(number ? strtoul(want, NULL, 10) == i : contains(p[i].info.name, want)))
            continue;
        if (!p[i].usable)
            unusable = unusable ? unusable : &p[i];
        else if (!best || rank(p[i].type) < rank(best->type))
            best = &p[i];
    }
    if (best)
        return any && processes > 1 ? of_kind(p, n, best->type, process) : best;
    char names[400];
    list_into(names, sizeof names, p, n);
    if (unusable) {
        err_set(e, ERR_ENV, "device %u, %s, cannot be used: %s", unusable->info.index, unusable->info.name,
                unusable->why);
        err_hint(e, "update its driver, or choose another device: %s", names);
    } else {
        err_set(e, ERR_USER, "no device has the number or name '%s'", want);
        err_hint(e, "--device or $GSQ_DEVICE takes a number or a part of a name: %s", names);
    }
    return NULL;
}
