/* One call of a kernel: checked, bound, recorded. */
#include "host/gpu/gpu_cmd_internal.h"

#include <string.h>

#include "host/base/grow.h"
#include "host/base/os.h"

#define TEXEL_BYTES 16

/* Word i of "a b c". */
static int nth_word(const char *words, unsigned i, const char **start)
{
    while (i-- > 0 && strchr(words, ' '))
        words = strchr(words, ' ') + 1;
    *start = words;
    return (int)strcspn(words, " ");
}

static bool check_view(const struct gpu *g, const struct kernel_decl *d, unsigned i, struct gpu_view v, struct err *e)
{
    const struct gpu_info *info = &g->probe.info;
    const char *name, *what = NULL;
    int len = nth_word(d->buffers, i, &name);
    if (!v.buffer || v.size == 0)
        what = "is empty";
    else if (!v.buffer->vk && !v.buffer->parts)
        what = "is only counted";
    else if (v.offset > v.buffer->size || v.size > v.buffer->size - v.offset)
        what = "ends beyond its buffer";
    else if (v.offset % info->min_align != 0)
        what = "does not start where the device wants it";
    else if (v.size % 4 != 0)
        what = "is not whole words";
    else if (v.size > info->max_range)
        what = "is larger than the device can bind at once";
    else if (!gpu_in_part(v).size)
        what = "lies in two buffers";
    if (!what)
        return true;
    return err_set(e, ERR_BUG, "kernel %s: buffer %.*s %s (offset %llu, %llu bytes; alignment %u, at most %llu)",
                   d->name, len, name, what, (unsigned long long)v.offset, (unsigned long long)v.size, info->min_align,
                   (unsigned long long)info->max_range);
}

static bool check_call(const struct gpu *g, unsigned kernel, struct gpu_grid grid, const struct gpu_view *views,
                       unsigned n_views, unsigned push_bytes, struct err *e)
{
    const uint32_t *most = g->probe.info.max_groups;
    if (kernel >= KERNEL_COUNT)
        return err_set(e, ERR_BUG, "there is no kernel %u", kernel);
    const struct kernel_decl *d = &kernel_decls[kernel];
    if (n_views != d->n_buffers || push_bytes != d->push_bytes)
        return err_set(e, ERR_BUG, "kernel %s: called with %u buffers and %u bytes, wants %u and %u", d->name, n_views,
                       push_bytes, d->n_buffers, d->push_bytes);
    if (!grid.x || !grid.y || !grid.z || grid.x > most[0] || grid.y > most[1] || grid.z > most[2])
        return err_set(e, ERR_BUG, "kernel %s: a grid of %u x %u x %u; from 1 to %u x %u x %u is possible", d->name,
                       grid.x, grid.y, grid.z, most[0], most[1], most[2]);
    for (unsigned i = 0; i < n_views; i++)
        if (!check_view(g, d, i, views[i], e))
            return false;
    return true;
}

/* Bytes of a view as texels of 16 bytes. lavapipe compiles a shader anew when a bit changes that it takes
 * from the size (it reads bits 8 to 15 as the number of mip levels): there, the range goes on where they are
 * zero. */
static uint64_t texel_range(const struct gpu *g, uint64_t size)
{
    uint64_t range = round_up(size, TEXEL_BYTES);
    if ((g->probe.info.caps & GPU_CAP_CPU) && (range >> 8 & 0xff) == 0)
        range += 256;
    return range;
}

/* Lives as long as the submission. */
static bool make_texels(struct gpu_cmd *c, struct slot *s, const struct gpu_kernel *k, unsigned binding,
                        struct gpu_view v, VkBufferView *out, struct err *e)
{
    struct gpu *g = c->gpu;
    VkBufferViewCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO,
        .buffer = v.buffer->vk,
        .format = k->spirv.texels_u32 >> binding & 1 ? VK_FORMAT_R32G32B32A32_UINT : VK_FORMAT_R32G32B32A32_SFLOAT,
        .offset = v.offset,
        .range = texel_range(g, v.size),
    };
    if (info.range / TEXEL_BYTES > g->probe.max_texels)
        return err_set(e, ERR_BUG, "a texel buffer of %llu bytes; the device takes %llu",
                       (unsigned long long)info.range, (unsigned long long)g->probe.max_texels * TEXEL_BYTES);
    VkBufferView *texels = grow(s->texels, &s->cap_texels, s->n_texels, sizeof *texels, "texel buffers", e);
    if (!texels)
        return false;
    s->texels = texels;
    VK(e, vkCreateBufferView(g->device, &info, NULL, out));
    s->texels[s->n_texels++] = *out;
    return true;
fail:
    return false;
}

static bool bind(struct gpu_cmd *c, struct slot *s, struct gpu_kernel *k, const struct gpu_view *views, unsigned n,
                 struct err *e)
{
    VkDescriptorBufferInfo buffers[SPIRV_MAX_BINDINGS];
    VkBufferView texels[SPIRV_MAX_BINDINGS];
    VkWriteDescriptorSet writes[SPIRV_MAX_BINDINGS];
    struct access accesses[SPIRV_MAX_BINDINGS];
    unsigned n_accesses = 0;
    for (unsigned i = 0; i < n; i++) {
        const struct gpu_view v = gpu_in_part(views[i]);
        buffers[i] = (VkDescriptorBufferInfo){v.buffer->vk, v.offset, v.size};
        writes[i] = (VkWriteDescriptorSet){
            .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
            .dstBinding = i,
            .descriptorCount = 1,
            .descriptorType = gpu_binding_type(k, i),
            .pBufferInfo = &buffers[i],
            .pTexelBufferView = &texels[i],
        };
        bool texel = k->spirv.texels >> i & 1;
        if (texel && !make_texels(c, s, k, i, v, &texels[i], e))
            return false;
        uint64_t size = texel ? texel_range(c->gpu, views[i].size) : views[i].size;
        if ((k->spirv.reads | k->spirv.writes) >> i & 1)
            accesses[n_accesses++] = (struct access){views[i].buffer, views[i].offset, views[i].offset + size,
                                                     STAGE_COMPUTE, k->spirv.writes >> i & 1};
    }
    cmd_access(c, accesses, n_accesses);
    if (c->bound != k)
        vkCmdBindPipeline(s->cb, VK_PIPELINE_BIND_POINT_COMPUTE, k->pipeline);
    c->bound = k;
    if (!s->sets) {
        vkCmdPushDescriptorSetKHR(s->cb, VK_PIPELINE_BIND_POINT_COMPUTE, k->layout, 0, n, writes);
        return true;
    }
    VkDescriptorSet set;
    VkDescriptorSetAllocateInfo alloc = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = s->sets,
        .descriptorSetCount = 1,
        .pSetLayouts = &k->set_layout,
    };
    VK(e, vkAllocateDescriptorSets(c->gpu->device, &alloc, &set));
    for (unsigned i = 0; i < n; i++)
        writes[i].dstSet = set;
    vkUpdateDescriptorSets(c->gpu->device, n, writes, 0, NULL);
    vkCmdBindDescriptorSets(s->cb, VK_PIPELINE_BIND_POINT_COMPUTE, k->layout, 0, 1, &set, 0, NULL);
    return true;
fail:
    return false;
}

void gpu_dispatch(struct gpu_cmd *c, unsigned kernel, struct gpu_grid grid, const struct gpu_view *views,
                  unsigned n_views, const void *push, unsigned push_bytes)
{
    struct err e = {0};
    struct gpu_kernel *k;
    double work = grid.work > 0 ? grid.work : (double)grid.x * grid.y * grid.z;
    if (c->failed)
        return;
    if (c->counting == GPU_COUNT_TRAFFIC && kernel < KERNEL_COUNT) {
        k = gpu_kernel_chosen(c->gpu, kernel, push);
        if (k && gpu_kernel_reflect(k, &e))
            c->watch(c->watch_ctx, c->part, kernel, k->spirv.reads, k->spirv.writes, views, push, work);
        else
            cmd_fail(c, &e);
        return;
    }
    if (c->counting && kernel < KERNEL_COUNT) {
        c->profiles[kernel].dispatches++;
        c->profiles[kernel].work += work;
        return;
    }
    if (!check_call(c->gpu, kernel, grid, views, n_views, push_bytes, &e) ||
        !(k = gpu_kernel_get(c->gpu, kernel, push, &e))) {
        cmd_fail(c, &e);
        return;
    }
    double ns = gpu_cost_predict(c->gpu, k, work);
    /* A kernel never measured runs alone once. */
    bool alone = !(k->ns_per_work > 0) && !c->profile, clock = c->gpu->probe.info.timestamp_ns > 0;
    struct slot *s = &c->slots[c->current];
    if (c->open && (alone || s->cost.predicted_ns + ns > c->gpu->submit_ns || gpu_cost_full(&s->cost)))
        gpu_cmd_flush(c);
    /* A device without a clock is measured by the host's, once, with nothing else under way. */
    if (alone && !clock && cmd_oldest(c) && !cmd_wait(c, c->submitted))
        return;
    s = cmd_open(c);
    if (!s)
        return;
    if (s->profiled && c->n_accesses) /* else dispatches overlap and each is timed with its neighbours */
        cmd_barrier(c, false);
    if (!bind(c, s, k, views, n_views, &e)) {
        err_context(&e, "kernel %s", kernel_decls[kernel].name);
        cmd_fail(c, &e);
        return;
    }
    if (push_bytes)
        vkCmdPushConstants(s->cb, k->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, push_bytes, push);
    if (s->profiled)
        cmd_timestamp(s, 2 + 2 * s->n_dispatches);
    vkCmdDispatch(s->cb, grid.x, grid.y, grid.z);
    if (s->profiled)
        cmd_timestamp(s, 3 + 2 * s->n_dispatches);
    if (c->watch)
        c->watch(c->watch_ctx, c->part, kernel, k->spirv.reads, k->spirv.writes, views, push, work);
    s->dispatches[s->n_dispatches].kernel = k;
    s->dispatches[s->n_dispatches++].work = work;
    gpu_cost_add(&s->cost, k, work, ns);
    uint64_t begin = os_now_ns();
    if (alone || cmd_long_enough(c, s))
        gpu_cmd_flush(c);
    /* The next one can be cut by what this one took. */
    if (alone && !c->failed && cmd_wait(c, c->submitted) && !clock)
        gpu_cost_learn_one(k, (double)(os_now_ns() - begin), work);
}
