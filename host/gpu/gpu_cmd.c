/* Recording, barriers, submissions and what they cost. Uploads and downloads: gpu_transfer.c. */
#include "host/gpu/cmd_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"

/* Predicted length at which work is submitted: Windows ends a job at 2 s, and a desktop should stay live. */
#define SUBMIT_NS 100e6
/* Submitted at this length already while the device has nothing to do. */
#define EARLY_NS 5e6
/* Part of a dispatch's time that does not depend on its work. */
#define DISPATCH_NS 10e3
#define TEXEL_BYTES 16
/* How long a wait may last before the poll callback is asked again. */
#define WAIT_SLICE_NS UINT64_C(50000000)
/* Before anything is measured: work per second of a slow device, taking the unit for a floating-point
 * operation. */
#define GUESS_CPU 2e9
#define GUESS_GPU 20e9

#define STAGE_COMPUTE  VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT
#define STAGE_TRANSFER VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT

/* ---- life ---- */

static bool create_slot(struct gpu *g, struct slot *s, struct err *e)
{
    VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT,
        .queueFamilyIndex = g->probe.queue_family,
    };
    VK(e, vkCreateCommandPool(g->device, &pool, NULL, &s->pool));
    VkCommandBufferAllocateInfo cb = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = s->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    VK(e, vkAllocateCommandBuffers(g->device, &cb, &s->cb));
    if (g->probe.info.timestamp_ns > 0) {
        VkQueryPoolCreateInfo queries = {
            .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
            .queryType = VK_QUERY_TYPE_TIMESTAMP,
            .queryCount = 2 + 2 * MAX_DISPATCHES,
        };
        VK(e, vkCreateQueryPool(g->device, &queries, NULL, &s->queries));
    }
    if (!(g->probe.info.caps & GPU_CAP_PUSH_DESCRIPTOR)) {
        VkDescriptorPoolSize sizes[] = {{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, MAX_DISPATCHES * 8},
                                        {VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER, MAX_DISPATCHES * 4}};
        VkDescriptorPoolCreateInfo sets = {
            .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
            .maxSets = MAX_DISPATCHES,
            .poolSizeCount = 2,
            .pPoolSizes = sizes,
        };
        VK(e, vkCreateDescriptorPool(g->device, &sets, NULL, &s->sets));
    }
    return true;
fail:
    return false;
}

bool gpu_cmd_create(struct gpu_cmd **out, struct gpu *g, struct err *e)
{
    struct gpu_cmd *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return err_nomem(e, "commands", sizeof *c);
    c->gpu = g;
    c->ns_per_byte = 0.2;
    VkSemaphoreTypeCreateInfo type = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
    };
    VkSemaphoreCreateInfo semaphore = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    VK(e, vkCreateSemaphore(g->device, &semaphore, NULL, &c->timeline));
    for (unsigned i = 0; i < SLOTS; i++)
        if (!create_slot(g, &c->slots[i], e))
            goto fail;
    *out = c;
    return true;
fail:
    gpu_cmd_destroy(&c);
    return false;
}

static void drop_texels(struct gpu *g, struct slot *s)
{
    while (s->n_texels > 0)
        vkDestroyBufferView(g->device, s->texels[--s->n_texels], NULL);
}

void gpu_cmd_destroy(struct gpu_cmd **cp)
{
    struct gpu_cmd *c = *cp;
    if (!c)
        return;
    struct gpu *g = c->gpu;
    if (c->submitted) {
        c->poll = NULL;
        cmd_wait(c, c->submitted);
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        vkDestroyCommandPool(g->device, c->slots[i].pool, NULL);
        vkDestroyQueryPool(g->device, c->slots[i].queries, NULL);
        vkDestroyDescriptorPool(g->device, c->slots[i].sets, NULL);
        drop_texels(g, &c->slots[i]);
        free(c->slots[i].texels);
    }
    vkDestroySemaphore(g->device, c->timeline, NULL);
    gpu_buffer_destroy(g, &c->upload);
    gpu_buffer_destroy(g, &c->readback);
    free(c);
    *cp = NULL;
}

void gpu_cmd_set_poll(struct gpu_cmd *c, bool (*poll)(void *ctx), void *ctx)
{
    c->poll = poll;
    c->poll_ctx = ctx;
}

void gpu_cmd_get_poll(const struct gpu_cmd *c, bool (**poll)(void *ctx), void **ctx)
{
    *poll = c->poll;
    *ctx = c->poll_ctx;
}

struct gpu *gpu_cmd_gpu(struct gpu_cmd *c)
{
    return c->gpu;
}

bool gpu_cmd_failed(const struct gpu_cmd *c)
{
    return c->failed;
}

bool cmd_fail(struct gpu_cmd *c, const struct err *e)
{
    if (!c->failed)
        c->err = *e;
    c->failed = true;
    return false;
}

/* ---- what a submission cost ---- */

static double guess_ns_per_work(const struct gpu *g)
{
    return 1e9 / (g->probe.info.caps & GPU_CAP_CPU ? GUESS_CPU : GUESS_GPU);
}

static double predict_ns(const struct gpu *g, const struct gpu_kernel *k, double work)
{
    return DISPATCH_NS + work * (k->ns_per_work > 0 ? k->ns_per_work : guess_ns_per_work(g));
}

/* The part of a measured time that grows with the work. */
static double ns_per_work(double ns, double dispatches, double work)
{
    return fmax(ns - dispatches * DISPATCH_NS, ns / 4) / work;
}

static void learn_profile(struct gpu_cmd *c, struct slot *s, const uint64_t *ticks, uint64_t mask)
{
    for (unsigned i = 0; i < s->n_dispatches; i++) {
        struct gpu_kernel *k = s->dispatches[i].kernel;
        struct gpu_profile *p = &c->profiles[k->variant->kernel];
        double ns = (double)((ticks[3 + 2 * i] - ticks[2 + 2 * i]) & mask) * c->gpu->probe.info.timestamp_ns;
        p->dispatches++;
        p->seconds += ns * 1e-9;
        p->work += s->dispatches[i].work;
        if (ns > 0)
            k->ns_per_work = ns_per_work(ns, 1, s->dispatches[i].work);
    }
}

/* Moves a rate towards what a submission says of it: halfway where it made up the whole of it. Several
 * submissions are predicted before the first is measured, so the measured rate counts, not a correction of
 * the present one. */
static double blend(double rate, double measured, double share)
{
    return rate * pow(measured / rate, share / 2);
}

/* Learns every kernel's rate from its predicted share of the submission. */
static void learn(struct gpu_cmd *c, struct slot *s)
{
    uint64_t ticks[2 + 2 * MAX_DISPATCHES];
    uint32_t n = s->profiled ? 2 + 2 * s->n_dispatches : 2;
    uint32_t bits = c->gpu->probe.timestamp_bits;
    uint64_t mask = bits >= 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    if (!s->queries || vkGetQueryPoolResults(c->gpu->device, s->queries, 0, n, n * sizeof *ticks, ticks, sizeof *ticks,
                                             VK_QUERY_RESULT_64_BIT) != VK_SUCCESS)
        return;
    if (s->profiled) {
        learn_profile(c, s, ticks, mask);
        return;
    }
    double ns = (double)((ticks[1] - ticks[0]) & mask) * c->gpu->probe.info.timestamp_ns;
    if (!(ns > 0) || !(s->predicted_ns > 0))
        return;
    double ratio = fmin(fmax(ns / s->predicted_ns, 1e-4), 1e4);
    for (unsigned i = 0; i < s->n_costs; i++) {
        struct gpu_kernel *k = s->costs[i].kernel;
        double rate = ns_per_work(s->costs[i].ns * ratio, s->costs[i].dispatches, s->costs[i].work);
        if (k->ns_per_work > 0)
            k->ns_per_work = blend(k->ns_per_work, rate, s->costs[i].ns / s->predicted_ns);
        else /* measured alone */
            k->ns_per_work = rate;
    }
    if (s->transfer_bytes > 0)
        c->ns_per_byte =
            blend(c->ns_per_byte, s->transfer_ns * ratio / s->transfer_bytes, s->transfer_ns / s->predicted_ns);
}

void gpu_cmd_profile_enable(struct gpu_cmd *c, bool on)
{
    gpu_cmd_flush(c);
    c->profile = on && c->gpu->probe.info.timestamp_ns > 0;
}

struct gpu_profile gpu_cmd_profile(const struct gpu_cmd *c, unsigned kernel)
{
    return c->profiles[kernel];
}

void gpu_cmd_profile_clear(struct gpu_cmd *c)
{
    memset(c->profiles, 0, sizeof c->profiles);
}

double gpu_cmd_products(const struct gpu_cmd *c)
{
    return c->products;
}

void gpu_cmd_count(struct gpu_cmd *c, enum gpu_counting what)
{
    gpu_cmd_flush(c);
    c->counting = what;
}

bool gpu_cmd_counts(const struct gpu_cmd *c)
{
    return c->counting != GPU_COUNT_NOTHING;
}

double gpu_cmd_work_limit(const struct gpu_cmd *c, unsigned kernel)
{
    const struct gpu_kernel *k = gpu_kernel_chosen(c->gpu, kernel, NULL);
    if (c->counting == GPU_COUNT_MEMORY)
        return 1e30;
    return SUBMIT_NS / (k && k->ns_per_work > 0 ? k->ns_per_work : guess_ns_per_work(c->gpu));
}

/* ---- submissions ---- */

uint64_t cmd_oldest(const struct gpu_cmd *c)
{
    uint64_t oldest = 0;
    for (unsigned i = 0; i < SLOTS; i++)
        if (c->slots[i].value && (!oldest || c->slots[i].value < oldest))
            oldest = c->slots[i].value;
    return oldest;
}

static bool device_error(struct gpu_cmd *c, const char *call, VkResult r)
{
    struct err e = {0};
    vk_error(&e, call, r);
    if (r == VK_ERROR_DEVICE_LOST) {
        c->gpu->lost = true;
        for (unsigned i = 0; i < SLOTS; i++)
            c->slots[i].value = 0;
    }
    return cmd_fail(c, &e);
}

bool cmd_wait(struct gpu_cmd *c, uint64_t value)
{
    VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
        .semaphoreCount = 1,
        .pSemaphores = &c->timeline,
        .pValues = &value,
    };
    if (c->gpu->lost)
        return device_error(c, "vkWaitSemaphores", VK_ERROR_DEVICE_LOST);
    for (;;) {
        if (c->poll && !c->failed && !c->poll(c->poll_ctx)) {
            struct err e = {0};
            err_set(&e, ERR_STOPPED, "stopped");
            cmd_fail(c, &e);
        }
        VkResult r = vkWaitSemaphores(c->gpu->device, &info, WAIT_SLICE_NS);
        if (r == VK_SUCCESS)
            break;
        if (r != VK_TIMEOUT)
            return device_error(c, "vkWaitSemaphores", r);
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *s = &c->slots[i];
        if (!s->value || s->value > value)
            continue;
        s->value = 0;
        for (unsigned k = 0; k < s->n_costs; k++)
            if (s->costs[k].kernel->variant->kernel == KERNEL_ID_gemm)
                c->products += s->costs[k].work;
        drop_texels(c->gpu, s);
        c->upload_tail = max_u64(c->upload_tail, s->upload_end);
        learn(c, s);
    }
    return true;
}

static void timestamp(struct slot *s, uint32_t query)
{
    if (s->queries)
        vkCmdWriteTimestamp2(s->cb, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT, s->queries, query);
}

static void record_barrier(struct slot *s, VkPipelineStageFlags2 src, VkAccessFlags2 src_access,
                           VkPipelineStageFlags2 dst, VkAccessFlags2 dst_access)
{
    VkMemoryBarrier2 barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
        .srcStageMask = src,
        .srcAccessMask = src_access,
        .dstStageMask = dst,
        .dstAccessMask = dst_access,
    };
    VkDependencyInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
        .memoryBarrierCount = 1,
        .pMemoryBarriers = &barrier,
    };
    vkCmdPipelineBarrier2(s->cb, &info);
}

struct slot *cmd_open(struct gpu_cmd *c)
{
    struct slot *s = &c->slots[c->current];
    struct err e = {0};
    if (c->failed)
        return NULL;
    if (c->open)
        return s;
    if (s->value && (!cmd_wait(c, s->value) || c->failed))
        return NULL;
    VK(&e, vkResetCommandPool(c->gpu->device, s->pool, 0));
    drop_texels(c->gpu, s); /* of work that was dropped after an error */
    if (s->sets)
        VK(&e, vkResetDescriptorPool(c->gpu->device, s->sets, 0));
    VkCommandBufferBeginInfo begin = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT,
    };
    VK(&e, vkBeginCommandBuffer(s->cb, &begin));
    c->open = true;
    c->bound = NULL;
    s->profiled = c->profile;
    s->predicted_ns = s->transfer_ns = s->transfer_bytes = 0;
    s->n_dispatches = s->n_costs = 0;
    if (s->queries)
        vkCmdResetQueryPool(s->cb, s->queries, 0, s->profiled ? 2 + 2 * MAX_DISPATCHES : 2);
    timestamp(s, 0);
    if (c->full_barrier) {
        record_barrier(s, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT, VK_ACCESS_2_MEMORY_WRITE_BIT,
                       VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                       VK_ACCESS_2_MEMORY_READ_BIT | VK_ACCESS_2_MEMORY_WRITE_BIT);
        c->full_barrier = false;
        c->n_accesses = 0;
    }
    return s;
fail:
    cmd_fail(c, &e);
    return NULL;
}

void gpu_cmd_flush(struct gpu_cmd *c)
{
    struct slot *s = &c->slots[c->current];
    struct err e = {0};
    if (!c->open || c->failed)
        return;
    timestamp(s, 1);
    c->open = false;
    VK(&e, vkEndCommandBuffer(s->cb));
    VkCommandBufferSubmitInfo cb = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO, .commandBuffer = s->cb};
    VkSemaphoreSubmitInfo signal = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
        .semaphore = c->timeline,
        .value = c->submitted + 1,
        .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
    };
    VkSubmitInfo2 submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
        .commandBufferInfoCount = 1,
        .pCommandBufferInfos = &cb,
        .signalSemaphoreInfoCount = 1,
        .pSignalSemaphoreInfos = &signal,
    };
    VkResult r = vkQueueSubmit2(c->gpu->queue, 1, &submit, VK_NULL_HANDLE);
    if (r < 0) {
        c->full_barrier = true;
        device_error(c, "vkQueueSubmit2", r);
        return;
    }
    s->value = ++c->submitted;
    s->upload_end = c->upload_head;
    c->current = (c->current + 1) % SLOTS;
    return;
fail:
    c->full_barrier = true;
    cmd_fail(c, &e);
}

bool gpu_cmd_finish(struct gpu_cmd *c, struct err *e)
{
    gpu_cmd_flush(c);
    if (c->open) { /* after an error: what is recorded is dropped, with the barriers in it */
        c->open = false;
        c->full_barrier = true;
    }
    if (cmd_oldest(c))
        cmd_wait(c, c->submitted);
    c->upload_tail = c->upload_head;
    bool ok = !c->failed;
    if (!ok && e)
        *e = c->err;
    c->failed = false;
    return ok;
}

/* ---- barriers ---- */

/* Everything remembered against everything to come. */
static void barrier(struct gpu_cmd *c, bool to_host)
{
    VkPipelineStageFlags2 src = 0;
    VkAccessFlags2 src_access = 0;
    for (unsigned i = 0; i < c->n_accesses; i++) {
        src |= c->accesses[i].stage;
        if (c->accesses[i].write)
            src_access |= c->accesses[i].stage == STAGE_COMPUTE ? VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT
                                                                : VK_ACCESS_2_TRANSFER_WRITE_BIT;
    }
    record_barrier(&c->slots[c->current], src, src_access,
                   STAGE_COMPUTE | STAGE_TRANSFER | (to_host ? VK_PIPELINE_STAGE_2_HOST_BIT : 0),
                   VK_ACCESS_2_SHADER_READ_BIT | VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT | VK_ACCESS_2_TRANSFER_READ_BIT |
                       VK_ACCESS_2_TRANSFER_WRITE_BIT | (to_host ? VK_ACCESS_2_HOST_READ_BIT : 0));
    c->n_accesses = 0;
}

void cmd_barrier_to_host(struct gpu_cmd *c)
{
    barrier(c, true);
}

static bool conflict(const struct access *a, const struct access *b)
{
    return a->buffer == b->buffer && a->begin < b->end && b->begin < a->end && (a->write || b->write);
}

void cmd_access(struct gpu_cmd *c, const struct access *list, unsigned n)
{
    bool wait = c->n_accesses + n > MAX_ACCESSES;
    for (unsigned i = 0; i < c->n_accesses && !wait; i++)
        for (unsigned j = 0; j < n && !wait; j++)
            wait = conflict(&c->accesses[i], &list[j]);
    if (wait && c->n_accesses)
        barrier(c, false);
    for (unsigned j = 0; j < n; j++)
        c->accesses[c->n_accesses++] = list[j];
}

/* Whether the device has ended all that was submitted. */
static bool idle(const struct gpu_cmd *c)
{
    uint64_t done = 0;
    return vkGetSemaphoreCounterValue(c->gpu->device, c->timeline, &done) == VK_SUCCESS && done >= c->submitted;
}

static bool long_enough(const struct gpu_cmd *c, const struct slot *s)
{
    return s->n_dispatches == MAX_DISPATCHES || s->predicted_ns > SUBMIT_NS || (s->predicted_ns > EARLY_NS && idle(c));
}

void cmd_count_transfer(struct gpu_cmd *c, uint64_t bytes)
{
    struct slot *s = &c->slots[c->current];
    s->transfer_bytes += (double)bytes;
    s->transfer_ns += (double)bytes * c->ns_per_byte;
    s->predicted_ns += (double)bytes * c->ns_per_byte;
    if (long_enough(c, s))
        gpu_cmd_flush(c);
}

/* ---- dispatches ---- */

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
    else if (!v.buffer->vk)
        what = "is only counted";
    else if (v.offset > v.buffer->size || v.size > v.buffer->size - v.offset)
        what = "ends beyond its buffer";
    else if (v.offset % info->min_align != 0)
        what = "does not start where the device wants it";
    else if (v.size % 4 != 0)
        what = "is not whole words";
    else if (v.size > info->max_range)
        what = "is larger than the device can bind at once";
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
    if (s->n_texels == s->cap_texels) {
        unsigned cap = s->cap_texels ? 2 * s->cap_texels : 64;
        VkBufferView *more = realloc(s->texels, cap * sizeof *more);
        if (!more)
            return err_nomem(e, "texel buffers", cap * sizeof *more);
        s->texels = more;
        s->cap_texels = cap;
    }
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
        buffers[i] = (VkDescriptorBufferInfo){views[i].buffer->vk, views[i].offset, views[i].size};
        writes[i] = (VkWriteDescriptorSet){
            .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
            .dstBinding = i,
            .descriptorCount = 1,
            .descriptorType = gpu_binding_type(k, i),
            .pBufferInfo = &buffers[i],
            .pTexelBufferView = &texels[i],
        };
        bool texel = k->spirv.texels >> i & 1;
        if (texel && !make_texels(c, s, k, i, views[i], &texels[i], e))
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

static void count_cost(struct slot *s, struct gpu_kernel *k, double work, double ns)
{
    unsigned i = 0;
    while (i < s->n_costs && s->costs[i].kernel != k)
        i++;
    if (i == s->n_costs) {
        s->costs[i].kernel = k;
        s->costs[i].dispatches = 0;
        s->costs[i].work = s->costs[i].ns = 0;
        s->n_costs++;
    }
    s->costs[i].dispatches++;
    s->costs[i].work += work;
    s->costs[i].ns += ns;
    s->predicted_ns += ns;
}

void gpu_dispatch(struct gpu_cmd *c, unsigned kernel, struct gpu_grid grid, const struct gpu_view *views,
                  unsigned n_views, const void *push, unsigned push_bytes)
{
    struct err e = {0};
    struct gpu_kernel *k;
    double work = grid.work > 0 ? grid.work : (double)grid.x * grid.y * grid.z;
    if (c->failed)
        return;
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
    double ns = predict_ns(c->gpu, k, work);
    /* A kernel never measured runs alone once. */
    bool alone = !(k->ns_per_work > 0) && c->gpu->probe.info.timestamp_ns > 0 && !c->profile;
    struct slot *s = &c->slots[c->current];
    if (c->open && (alone || s->predicted_ns + ns > SUBMIT_NS || s->n_costs == MAX_COSTS))
        gpu_cmd_flush(c);
    s = cmd_open(c);
    if (!s)
        return;
    if (s->profiled && c->n_accesses) /* else dispatches overlap and each is timed with its neighbours */
        barrier(c, false);
    if (!bind(c, s, k, views, n_views, &e)) {
        err_context(&e, "kernel %s", kernel_decls[kernel].name);
        cmd_fail(c, &e);
        return;
    }
    if (push_bytes)
        vkCmdPushConstants(s->cb, k->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, push_bytes, push);
    if (s->profiled)
        timestamp(s, 2 + 2 * s->n_dispatches);
    vkCmdDispatch(s->cb, grid.x, grid.y, grid.z);
    if (s->profiled)
        timestamp(s, 3 + 2 * s->n_dispatches);
    s->dispatches[s->n_dispatches].kernel = k;
    s->dispatches[s->n_dispatches++].work = work;
    count_cost(s, k, work, ns);
    if (alone || long_enough(c, s))
        gpu_cmd_flush(c);
    if (alone && !c->failed) /* the next one can be cut by what this one took */
        cmd_wait(c, c->submitted);
}

/* ---- grids ---- */

/* Folded over x and y: Vulkan promises 65535 workgroups in each. */
static struct gpu_grid fold(uint64_t groups)
{
    const uint64_t most = 65535;
    uint64_t y = div_up(groups, most);
    return (struct gpu_grid){
        .x = (uint32_t)min_u64(div_up(groups, max_u64(y, 1)), UINT32_MAX),
        .y = (uint32_t)min_u64(y, UINT32_MAX),
        .z = 1,
        .work = (double)groups,
    };
}

struct gpu_grid gpu_rows(uint64_t rows)
{
    return fold(rows);
}

struct gpu_grid gpu_items(struct gpu_cmd *cmd, unsigned kernel, uint64_t items)
{
    uint32_t local = gpu_kernel_local_size(cmd->gpu, kernel),
             per = gpu_kernel_constant(cmd->gpu, kernel, SPEC_ITEMS, 1);
    if (items > UINT32_MAX) {
        struct err e = {0};
        err_set(&e, ERR_BUG, "kernel %s: %llu items; a shader counts to 2^32", kernel_decls[kernel].name,
                (unsigned long long)items);
        cmd_fail(cmd, &e);
    }
    struct gpu_grid grid = fold(div_up(items, (uint64_t)max_u64(local, 1) * per));
    grid.work = (double)items;
    return grid;
}
