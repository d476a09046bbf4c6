/* Submissions and barriers. Dispatches: gpu_dispatch.c; uploads and downloads: gpu_transfer.c. */
#include "host/gpu/gpu_cmd_internal.h"

#include <stdlib.h>
#include <string.h>

/* Submitted at this length already while the device has nothing to do. */
#define EARLY_NS 5e6
/* How long a wait may last before the poll callback is asked again. */
#define WAIT_SLICE_NS UINT64_C(50000000)

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
        uint32_t most = 0; /* buffers of a kernel: a submission may be of that one alone */
        for (unsigned k = 0; k < KERNEL_COUNT; k++)
            most = kernel_decls[k].n_buffers > most ? kernel_decls[k].n_buffers : most;
        VkDescriptorPoolSize sizes[] = {{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, MAX_DISPATCHES * most},
                                        {VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER, MAX_DISPATCHES * most}};
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

/* ---- what submissions took ---- */

/* Adds a submission's time, less what the one before it took of the same: they may overlap. */
static void count_busy(struct gpu_cmd *c, uint64_t begin, uint64_t end, uint64_t mask, double tick_ns)
{
    bool later = !c->busy_tick || ((begin - c->busy_tick) & mask) <= mask / 2;
    uint64_t from = later ? begin : c->busy_tick, ticks = (end - from) & mask;
    if (ticks > mask / 2)
        return;
    c->busy_ns += (double)ticks * tick_ns;
    c->busy_tick = end;
}

/* Reads the submission's times, for its kernels' rates and, in profiles, for each dispatch. */
static void learn(struct gpu_cmd *c, struct slot *s)
{
    uint64_t ticks[2 + 2 * MAX_DISPATCHES];
    uint32_t n = s->profiled ? 2 + 2 * s->n_dispatches : 2;
    uint32_t bits = c->gpu->probe.timestamp_bits;
    uint64_t mask = bits >= 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    double tick_ns = c->gpu->probe.info.timestamp_ns;
    if (!s->queries || vkGetQueryPoolResults(c->gpu->device, s->queries, 0, n, n * sizeof *ticks, ticks, sizeof *ticks,
                                             VK_QUERY_RESULT_64_BIT) != VK_SUCCESS)
        return;
    count_busy(c, ticks[0], ticks[1], mask, tick_ns);
    if (!s->profiled)
        gpu_cost_learn(&s->cost, (double)((ticks[1] - ticks[0]) & mask) * tick_ns, &c->ns_per_byte);
    for (unsigned i = 0; s->profiled && i < s->n_dispatches; i++) {
        struct gpu_kernel *k = s->dispatches[i].kernel;
        struct gpu_profile *p = &c->profiles[k->variant->kernel];
        double ns = (double)((ticks[3 + 2 * i] - ticks[2 + 2 * i]) & mask) * tick_ns;
        p->dispatches++;
        p->seconds += ns * 1e-9;
        p->work += s->dispatches[i].work;
        gpu_cost_learn_one(k, ns, s->dispatches[i].work);
    }
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

double gpu_cmd_busy(const struct gpu_cmd *c)
{
    return c->busy_ns * 1e-9;
}

double gpu_cmd_transfer_seconds(const struct gpu_cmd *c)
{
    return c->ns_per_byte * 1e-9;
}

void gpu_cmd_count(struct gpu_cmd *c, enum gpu_counting what)
{
    struct gpu_info *info = &c->gpu->probe.info;
    gpu_cmd_flush(c);
    if (c->counting == GPU_COUNT_TRAFFIC)
        info->max_range = c->own_range;
    if (what == GPU_COUNT_TRAFFIC) {
        c->own_range = info->max_range;
        info->max_range = UINT32_MAX;
    }
    c->counting = what;
}

void gpu_cmd_watch(struct gpu_cmd *c, gpu_watch_fn *fn, void *ctx)
{
    c->watch = fn;
    c->watch_ctx = ctx;
    c->part = GPU_PART_OWN;
}

enum gpu_part gpu_part_begin(struct gpu_cmd *c, enum gpu_part part)
{
    const enum gpu_part before = c->part;
    if (before == (part == GPU_PART_EACH ? GPU_PART_ROWS : GPU_PART_OWN))
        c->part = part;
    return before;
}

void gpu_part_end(struct gpu_cmd *c, enum gpu_part before)
{
    c->part = before;
}

bool gpu_cmd_counts(const struct gpu_cmd *c)
{
    return c->counting != GPU_COUNT_NOTHING;
}

double gpu_cmd_work_limit(const struct gpu_cmd *c, unsigned kernel, const void *args)
{
    if (c->counting == GPU_COUNT_MEMORY || c->counting == GPU_COUNT_TRAFFIC)
        return 1e30;
    return c->gpu->submit_ns /
           gpu_cost_ns_per_work(c->gpu, gpu_kernel_chosen(c->gpu, kernel, gpu_kernel_push(kernel, args)));
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
    for (uint64_t oldest; (oldest = cmd_oldest(c)) && oldest <= value;) {
        unsigned i = 0;
        while (c->slots[i].value != oldest)
            i++;
        struct slot *s = &c->slots[i];
        s->value = 0;
        for (unsigned k = KERNEL_ID_gemm; k <= KERNEL_ID_gemm_half_tn;
             k++) /* rows of kernels.def that follow each other */
            c->products += gpu_cost_work(&s->cost, k);
        drop_texels(c->gpu, s);
        c->upload_tail = max_u64(c->upload_tail, s->upload_end);
        learn(c, s);
    }
    return true;
}

void cmd_timestamp(struct slot *s, uint32_t query)
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
    s->to_host = false;
    gpu_cost_clear(&s->cost);
    s->n_dispatches = 0;
    if (s->queries)
        vkCmdResetQueryPool(s->cb, s->queries, 0, s->profiled ? 2 + 2 * MAX_DISPATCHES : 2);
    cmd_timestamp(s, 0);
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
    if (s->to_host)
        record_barrier(s, STAGE_COMPUTE | STAGE_TRANSFER,
                       VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT | VK_ACCESS_2_TRANSFER_WRITE_BIT,
                       VK_PIPELINE_STAGE_2_HOST_BIT, VK_ACCESS_2_HOST_READ_BIT);
    cmd_timestamp(s, 1);
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

void cmd_barrier(struct gpu_cmd *c, bool to_host)
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
        cmd_barrier(c, false);
    for (unsigned j = 0; j < n; j++) {
        struct gpu_buffer *b = list[j].buffer;
        c->accesses[c->n_accesses++] = list[j];
        if (!b->map)
            continue;
        b->user = c;
        b->last = c->submitted + 1;
        c->slots[c->current].to_host |= list[j].write;
    }
}

bool cmd_quiet(struct gpu_cmd *c, const struct gpu_buffer *b)
{
    if (b->user == c && b->last > c->done)
        vkGetSemaphoreCounterValue(c->gpu->device, c->timeline, &c->done);
    return !b->user || (b->user == c && b->last <= c->done);
}

bool gpu_quiet(struct gpu_cmd *c, struct gpu_view v)
{
    return cmd_quiet(c, v.buffer);
}

bool gpu_wait_quiet(struct gpu_cmd *c, struct gpu_view v)
{
    gpu_cmd_flush(c);
    if (!c->failed && !cmd_quiet(c, v.buffer)) /* what was dropped after an error has no submission */
        cmd_wait(c, min_u64(v.buffer->last, c->submitted));
    return !c->failed;
}

/* Whether the device has ended all that was submitted. */
static bool idle(const struct gpu_cmd *c)
{
    uint64_t done = 0;
    return vkGetSemaphoreCounterValue(c->gpu->device, c->timeline, &done) == VK_SUCCESS && done >= c->submitted;
}

bool cmd_long_enough(const struct gpu_cmd *c, const struct slot *s)
{
    return s->n_dispatches == MAX_DISPATCHES || s->cost.predicted_ns > c->gpu->submit_ns ||
           (s->cost.predicted_ns > EARLY_NS && idle(c));
}

void cmd_count_transfer(struct gpu_cmd *c, uint64_t bytes)
{
    struct slot *s = &c->slots[c->current];
    gpu_cost_add_transfer(&s->cost, (double)bytes, c->ns_per_byte);
    if (cmd_long_enough(c, s))
        gpu_cmd_flush(c);
}
