#include "host/gpu/gpu_create.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/comm.h"
#include "host/base/log.h"
#include "host/base/os.h"
#include "host/gpu/gpu_cost.h"
#include "host/gpu/gpu_memory_internal.h"
#include "host/gpu/gpu_pipeline_internal.h"
#include "host/gpu/gpu_probe.h"

static bool device_create(struct gpu *g, struct err *e)
{
    struct gpu_probe *p = &g->probe;
    const char *extensions[6];
    uint32_t n = 0;
    const float priority = 1;
    VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = p->queue_family,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    if (p->info.caps & GPU_CAP_PUSH_DESCRIPTOR)
        extensions[n++] = VK_KHR_PUSH_DESCRIPTOR_EXTENSION_NAME;
    if (p->memory_budget)
        extensions[n++] = VK_EXT_MEMORY_BUDGET_EXTENSION_NAME;
    gpu_probe_features(p);
#ifdef VK_KHR_cooperative_matrix
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR coopmat = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR, .cooperativeMatrix = VK_TRUE};
    if (p->info.caps & GPU_CAP_COOPMAT) {
        extensions[n++] = VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME;
        p->v13.pNext = &coopmat;
    }
#endif
#ifdef VK_KHR_shader_bfloat16
    VkPhysicalDeviceShaderBfloat16FeaturesKHR bf16 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_BFLOAT16_FEATURES_KHR,
        .pNext = p->v13.pNext,
        .shaderBFloat16Type = VK_TRUE,
        .shaderBFloat16CooperativeMatrix = VK_TRUE,
    };
    if ((p->info.caps & GPU_CAP_COOPMAT) && (p->info.caps & GPU_CAP_BF16)) {
        extensions[n++] = VK_KHR_SHADER_BFLOAT16_EXTENSION_NAME;
        p->v13.pNext = &bf16;
    }
#endif
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR statistics = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR,
        .pNext = p->v13.pNext,
        .pipelineExecutableInfo = VK_TRUE,
    };
    if (g->statistics) {
        extensions[n++] = VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME;
        p->v13.pNext = &statistics;
    }
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &p->features,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = n,
        .ppEnabledExtensionNames = extensions,
    };
    VkResult r = vkCreateDevice(p->physical, &info, NULL, &g->device);
    p->v13.pNext = NULL;
    if (r < 0) {
        vk_error(e, "vkCreateDevice", r);
        return err_context(e, "%s", p->info.name);
    }
    vkGetDeviceQueue(g->device, p->queue_family, 0, &g->queue);
    vkGetPhysicalDeviceMemoryProperties(p->physical, &g->memory);
    return true;
}

/* A device that is not there: the plan for it, and its limits in tests. Each word of $GSQ_DEVICE_LIMITS is NAME=MIB, or submit=MS: with
 * so much time that nothing is ever split, dispatches are the same in each run. */
static bool fake_limits(struct gpu *g, const char *text, struct err *e)
{
    struct gpu_info *i = &g->probe.info;
    const struct {
        const char *name;
        uint64_t *bytes;
    } limits[] = {{"memory=", &i->mem_limit}, {"alloc=", &i->max_alloc}, {"range=", &i->max_range}};
    i->as_if = text && *text;
    g->submit_ns = SUBMIT_NS;
    while (text && *text) {
        size_t known = 0, n = strcspn(text, ",");
        for (size_t k = 0; k < sizeof limits / sizeof *limits; k++) {
            const size_t name = strlen(limits[k].name);
            char *end;
            if (strncmp(text, limits[k].name, name) != 0)
                continue;
            double mib = strtod(text + name, &end);
            if (end != text + n || !(mib >= 1 && mib < 1e9))
                break;
            *limits[k].bytes = (uint64_t)(mib * 1048576.0) / GPU_ALLOC_ALIGN * GPU_ALLOC_ALIGN;
            known = 1;
        }
        if (strncmp(text, "submit=", 7) == 0) {
            char *end;
            g->submit_ns = strtod(text + 7, &end) * 1e6;
            known = end == text + n && g->submit_ns >= 1e6;
        }
        if (!known) {
            err_set(e, ERR_USER, "GSQ_DEVICE_LIMITS: \"%.*s\" is no limit", (int)n, text);
            return err_hint(e, "memory=MIB, alloc=MIB (of one buffer), range=MIB (of one binding) and submit=MS (of "
                               "work given to it at a time), "
                               "between commas");
        }
        text += n + (text[n] == ',');
    }
    g->held.limit = i->mem_limit;
    return true;
}

/* Capabilities by names with commas between them. */
static bool caps_of(const char *list, uint32_t *caps, struct err *e)
{
    *caps = 0;
    for (const char *at = list; at && *at; at += strcspn(at, ",") + (at[strcspn(at, ",")] != 0)) {
        const struct gpu_cap_name *c = gpu_cap_names;
        size_t n = strcspn(at, ",");
        while (c->bit && (strlen(c->name) != n || memcmp(c->name, at, n) != 0))
            c++;
        if (!c->bit) {
            err_set(e, ERR_USER, "GSQ_WITHOUT: there is no capability '%.*s'", (int)n, at);
            return err_hint(e, "`gsq devices` lists those of each device");
        }
        *caps |= c->bit;
    }
    return true;
}

bool gpu_create(struct gpu **out, const struct gpu_options *o, struct err *e)
{
    struct gpu_probe *probes = NULL;
    uint32_t n = 0;
    *out = NULL;
    struct gpu *g = calloc(1, sizeof *g);
    if (!g)
        return err_nomem(e, "the device", sizeof *g);
    if (o->threads) {
        /* lavapipe reads it when its device is made. */
        char threads[16];
        snprintf(threads, sizeof threads, "%u", o->threads);
        os_setenv("LP_NUM_THREADS", threads, false);
    }
    uint32_t without;
    if (!caps_of(os_getenv("GSQ_WITHOUT"), &without, e))
        goto fail;
    const char *env = os_getenv("GSQ_VALIDATE");
    if (!gpu_instance_create(g, o->validate || (env && strcmp(env, "1") == 0), e) || !gpu_probe_all(g, &probes, &n, e))
        goto fail;
    const char *want = o->device ? o->device : os_getenv("GSQ_DEVICE");
    const struct gpu_probe *p = gpu_probe_choose(probes, n, want, comm_local_rank(), comm_local_size(), e);
    if (!p)
        goto fail;
    g->probe = *p;
    g->probe.info.caps &= ~(o->without | without);
    if (o->max_shared && o->max_shared < g->probe.info.shared_bytes)
        g->probe.info.shared_bytes = o->max_shared;
    g->statistics = o->statistics && g->probe.statistics;
    if (!device_create(g, e))
        goto fail;
    const char *staging = os_getenv("GSQ_STAGING");
    g->unified = !o->staging && !(staging && strcmp(staging, "1") == 0) && gpu_memory_unified(&g->probe, &g->memory);
    g->probe.info.mem_limit = gpu_memory_limit(&g->probe, &g->memory, o->mem_limit);
    if (!fake_limits(g, os_getenv("GSQ_DEVICE_LIMITS"), e) || !gpu_pipelines_init(g, o->variant, o->cache_dir, e))
        goto fail;
    log_debug("device %u: %s, %s, Vulkan %s", g->probe.info.index, g->probe.info.name, g->probe.info.driver,
              g->probe.info.api);
    free(probes);
    *out = g;
    return true;
fail:
    free(probes);
    gpu_destroy(&g);
    return false;
}

bool gpu_reopen(struct gpu *g, struct err *e)
{
    assert(!g->held.arenas && !g->host.arenas);
    if (g->device) {
        vkDeviceWaitIdle(g->device);
        gpu_pipelines_drop(g);
        vkDestroyDevice(g->device, NULL);
    }
    g->device = VK_NULL_HANDLE;
    g->lost = true; /* until all is there */
    if (!device_create(g, e) || !gpu_pipelines_renew(g, e))
        return false;
    g->lost = false;
    return true;
}

void gpu_destroy(struct gpu **gp)
{
    struct gpu *g = *gp;
    if (!g)
        return;
    if (g->device) {
        vkDeviceWaitIdle(g->device);
        gpu_pipelines_destroy(g);
        assert((g->held.used == 0 && g->host.used == 0) || g->lost); /* an arena outlives its device */
        vkDestroyDevice(g->device, NULL);
    } else {
        gpu_pipelines_destroy(g); /* it could not be opened again */
    }
    if (g->messenger)
        g->destroy_messenger(g->instance, g->messenger, NULL);
    if (g->instance)
        vkDestroyInstance(g->instance, NULL);
    unsigned messages = atomic_load(&g->messages);
    if (messages)
        log_error("Vulkan's validation layer reported %u messages: a bug of gsq or of the driver", messages);
    free(g);
    *gp = NULL;
}

bool gpu_list(bool (*fn)(void *ctx, const struct gpu_info *info, bool usable, const char *why), void *ctx,
              struct err *e)
{
    struct gpu_probe *probes = NULL;
    uint32_t n = 0;
    struct gpu *g = calloc(1, sizeof *g);
    if (!g)
        return err_nomem(e, "the list of devices", sizeof *g);
    bool ok = gpu_instance_create(g, false, e) && gpu_probe_all(g, &probes, &n, e);
    for (uint32_t i = 0; ok && i < n; i++)
        if (!fn(ctx, &probes[i].info, probes[i].usable, probes[i].why))
            break;
    free(probes);
    gpu_destroy(&g);
    return ok;
}
