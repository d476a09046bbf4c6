#include "host/gpu/gpu_statistics.h"

#include <stdlib.h>
#include <string.h>

#include "host/gpu/gpu_pipeline_internal.h"

bool gpu_has_statistics(const struct gpu *g)
{
    return g->statistics;
}

static double number_of(const VkPipelineExecutableStatisticKHR *s)
{
    switch (s->format) {
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR:
        return s->value.b32 != 0;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR:
        return (double)s->value.i64;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR:
        return (double)s->value.u64;
    default:
        return s->value.f64;
    }
}

/* The texts of a form, one after the other: Mesa's drivers show their own form of the shader and the machine's, which comes
 * last. NULL: none; free it. */
static char *assembly_of(struct gpu *g, const VkPipelineExecutableInfoKHR *which)
{
    VkPipelineExecutableInternalRepresentationKHR r[16] = {{0}};
    uint32_t n = sizeof r / sizeof *r;
    for (uint32_t i = 0; i < n; i++)
        r[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR;
    if (vkGetPipelineExecutableInternalRepresentationsKHR(g->device, which, &n, r) < 0 || !n)
        return NULL;
    VkPipelineExecutableInternalRepresentationKHR *last = &r[n - 1];
    char *text = last->isText ? calloc(last->dataSize + 1, 1) : NULL;
    last->pData = text;
    if (text && vkGetPipelineExecutableInternalRepresentationsKHR(g->device, which, &n, r) >= 0)
        return text;
    free(text);
    return NULL;
}

static void tell(struct gpu *g, const VkPipelineExecutableInfoKHR *which, struct gpu_compiled *c,
                 void (*fn)(void *ctx, const struct gpu_compiled *c), void *ctx)
{
    enum { MOST = 64 };
    VkPipelineExecutableStatisticKHR s[MOST] = {{0}};
    struct gpu_statistic out[MOST];
    uint32_t n = MOST;
    for (uint32_t i = 0; i < n; i++)
        s[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
    if (vkGetPipelineExecutableStatisticsKHR(g->device, which, &n, s) < 0)
        n = 0;
    for (uint32_t i = 0; i < n; i++)
        out[i] = (struct gpu_statistic){s[i].name, number_of(&s[i])};
    char *assembly = assembly_of(g, which);
    c->statistics = out;
    c->n_statistics = n;
    c->assembly = assembly;
    fn(ctx, c);
    free(assembly);
}

bool gpu_kernel_statistics(struct gpu *g, unsigned kernel, unsigned i,
                           void (*fn)(void *ctx, const struct gpu_compiled *c), void *ctx, struct err *e)
{
    VkPipelineExecutablePropertiesKHR forms[16] = {{0}};
    uint32_t n = sizeof forms / sizeof *forms;
    struct gpu_kernel *k = gpu_kernel_at(g, kernel, i);
    if (!gpu_kernel_make(g, k, e))
        return false;
    VkPipelineInfoKHR pipeline = {.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR, .pipeline = k->pipeline};
    for (uint32_t f = 0; f < n; f++)
        forms[f].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR;
    VK(e, vkGetPipelineExecutablePropertiesKHR(g->device, &pipeline, &n, forms));
    for (uint32_t f = 0; f < n; f++) {
        VkPipelineExecutableInfoKHR which = {
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, .pipeline = k->pipeline, .executableIndex = f};
        struct gpu_compiled c = {.kernel = kernel_decls[kernel].name,
                                 .variant = k->variant->name,
                                 .form = forms[f].name,
                                 .subgroup_size = forms[f].subgroupSize};
        tell(g, &which, &c, fn, ctx);
    }
    return true;
fail:
    return false;
}
