#include "host/gpu/gpu_memory_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/grow.h"
#include "host/base/log.h"
#include "host/base/comm.h"
#include "host/base/os.h"

/* Small allocations share chunks of this size (less where little memory is allowed); a request larger than a
 * quarter of it gets a buffer of its own, so that no large tail is lost. */
#define CHUNK_BYTES (UINT64_C(32) << 20)
#define CHUNK_MIN   (UINT64_C(1) << 20)
/* A free buffer is given to a smaller request if it is at most this much larger; otherwise only in need. */
#define SNUG(want, have) ((have) - (want) <= (want) / 4)
/* What is left to others: filling the last of a card's memory can freeze the desktop. */
#define RESERVE_BYTES (UINT64_C(512) << 20)
#define RESERVE_PART  20 /* or this part of the heap, if it is more */
/* Devices that share the host's memory may have this part of what is free. */
#define HOST_PERCENT 70

/* ---- one buffer ---- */

/* unified: what the device uses is wanted where the host sees it. Memory that is not cached is read by the host at a
 * hundredth of its speed, so what is read there is cached wherever there is such a type. */
static int find_type(const VkPhysicalDeviceMemoryProperties *m, uint32_t allowed, enum gpu_buffer_use use, bool unified)
{
    const VkMemoryPropertyFlags local = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
                                visible = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
                                coherent = VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
                                cached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    int best = -1;
    uint64_t best_score = 0;
    for (uint32_t i = 0; i < m->memoryTypeCount; i++) {
        VkMemoryPropertyFlags f = m->memoryTypes[i].propertyFlags;
        /* Types beyond the basic flags want features switched on. */
        if (!(allowed >> i & 1) || (f & ~(local | visible | coherent | cached)))
            continue;
        if (use != GPU_BUFFER_DEVICE && (f & (visible | coherent)) != (visible | coherent))
            continue;
        uint64_t score = 1 + (m->memoryHeaps[m->memoryTypes[i].heapIndex].size >> 20) * 4;
        const uint64_t more = UINT64_C(1) << 50;
        if (use == GPU_BUFFER_DEVICE && !unified)
            score += (f & local ? more : 0) + (f & visible ? 0 : 2);
        else if (unified && (use == GPU_BUFFER_DEVICE || use == GPU_BUFFER_HOST))
            score +=
                (f & local ? 4 * more : 0) + ((f & visible) && (f & coherent) ? 2 * more : 0) + (f & cached ? more : 0);
        else if (use == GPU_BUFFER_UPLOAD)
            score += (f & local ? 0 : more) + (f & cached ? 0 : 2);
        else
            score += (f & cached ? 2 * more : 0) + (f & local ? 0 : more);
        if (score > best_score) {
            best_score = score;
            best = (int)i;
        }
    }
    return best;
}

bool gpu_memory_unified(const struct gpu_probe *p, const VkPhysicalDeviceMemoryProperties *m)
{
    const VkMemoryPropertyFlags all = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                      VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    uint64_t seen = 0, largest = 0;
    if (p->type != VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU && p->type != VK_PHYSICAL_DEVICE_TYPE_CPU)
        return false;
    for (uint32_t i = 0; i < m->memoryTypeCount; i++) {
        const VkMemoryHeap *heap = &m->memoryHeaps[m->memoryTypes[i].heapIndex];
        if (heap->flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
            largest = max_u64(largest, heap->size);
        if ((m->memoryTypes[i].propertyFlags & all) == all)
            seen = max_u64(seen, heap->size);
    }
    return seen && seen == largest;
}

/* What Vulkan is asked for. On a CPU device, texel buffers may go on past the end (texel_range in
 * gpu_dispatch.c), and no size is a power of two: lavapipe compiles every shader again for those. */
static uint64_t vk_size(const struct gpu *g, uint64_t size, enum gpu_buffer_use use)
{
    if (use == GPU_BUFFER_UPLOAD || use == GPU_BUFFER_READBACK || !(g->probe.info.caps & GPU_CAP_CPU))
        return size;
    size += 256;
    return size & (size - 1) ? size : size + 256;
}

bool gpu_buffer_create(struct gpu_buffer **out, struct gpu *g, uint64_t size, enum gpu_buffer_use use, struct err *e)
{
    struct gpu_buffer *b = calloc(1, sizeof *b);
    *out = NULL;
    if (!b)
        return err_nomem(e, "a device buffer", sizeof *b);
    b->size = size;
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = vk_size(g, size, use),
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT |
                 VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    };
    VK(e, vkCreateBuffer(g->device, &info, NULL, &b->vk));
    VkMemoryRequirements need;
    vkGetBufferMemoryRequirements(g->device, b->vk, &need);
    int type = find_type(&g->memory, need.memoryTypeBits, use, g->unified);
    if (type < 0) {
        err_set(e, ERR_ENV, "%s has no memory for a buffer of use %d", g->probe.info.name, (int)use);
        goto fail;
    }
    VkMemoryAllocateInfo alloc = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = need.size,
        .memoryTypeIndex = (uint32_t)type,
    };
    VK(e, vkAllocateMemory(g->device, &alloc, NULL, &b->memory));
    VK(e, vkBindBufferMemory(g->device, b->vk, b->memory, 0));
    VkMemoryPropertyFlags flags = g->memory.memoryTypes[type].propertyFlags;
    bool seen = (flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT) && (flags & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT);
    b->cached = flags & VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    if (use != GPU_BUFFER_DEVICE || (g->unified && seen))
        VK(e, vkMapMemory(g->device, b->memory, 0, VK_WHOLE_SIZE, 0, &b->map));
    *out = b;
    return true;
fail:
    gpu_buffer_destroy(g, &b);
    return false;
}

static uint64_t part_count(const struct gpu_buffer *b)
{
    return div_up(b->size, b->part_bytes);
}

bool gpu_buffer_create_parts(struct gpu_buffer **out, struct gpu *g, uint64_t size, uint64_t part_bytes, struct err *e)
{
    struct gpu_buffer *b = calloc(1, sizeof *b);
    *out = NULL;
    if (!b)
        return err_nomem(e, "a device buffer", sizeof *b);
    b->size = size;
    b->part_bytes = part_bytes;
    uint64_t n = part_count(b);
    b->parts = calloc((size_t)n, sizeof(struct gpu_buffer *));
    bool ok = b->parts || err_nomem(e, "a device buffer", n * sizeof(struct gpu_buffer *));
    for (uint64_t i = 0; ok && i < n; i++)
        ok = gpu_buffer_create(&b->parts[i], g, min_u64(part_bytes, size - i * part_bytes), GPU_BUFFER_DEVICE, e);
    if (!ok)
        gpu_buffer_destroy(g, &b);
    *out = b;
    return ok;
}

struct gpu_view gpu_in_part(struct gpu_view v)
{
    if (!v.buffer || !v.buffer->parts)
        return v;
    uint64_t part = v.offset / v.buffer->part_bytes, at = v.offset % v.buffer->part_bytes;
    bool whole = v.offset < v.buffer->size && v.size <= v.buffer->parts[part]->size - at;
    return whole ? (struct gpu_view){v.buffer->parts[part], at, v.size} : (struct gpu_view){0};
}

void gpu_buffer_destroy(struct gpu *g, struct gpu_buffer **b)
{
    if (!*b)
        return;
    for (uint64_t i = 0; (*b)->parts && i < part_count(*b); i++)
        gpu_buffer_destroy(g, &(*b)->parts[i]);
    free((*b)->parts);
    vkDestroyBuffer(g->device, (*b)->vk, NULL);
    vkFreeMemory(g->device, (*b)->memory, NULL);
    free(*b);
    *b = NULL;
}

/* ---- how much may be used ---- */

uint64_t gpu_memory_limit(const struct gpu_probe *p, const VkPhysicalDeviceMemoryProperties *m, uint64_t asked)
{
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 m2 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    if (p->memory_budget) {
        m2.pNext = &budget;
        vkGetPhysicalDeviceMemoryProperties2(p->physical, &m2);
    }
    uint64_t best = 0, whole = 0; /* what is free less a reserve; all there is */
    for (uint32_t h = 0; h < m->memoryHeapCount; h++) {
        if (!(m->memoryHeaps[h].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT))
            continue;
        uint64_t size = m->memoryHeaps[h].size, room = size;
        /* The budget is what this process may use; what it uses already (nothing of ours yet) is not free. */
        if (p->memory_budget && budget.heapBudget[h])
            room = budget.heapBudget[h] - min_u64(budget.heapUsage[h], budget.heapBudget[h]);
        uint64_t reserve = max_u64(size / RESERVE_PART, RESERVE_BYTES);
        room = room > 2 * reserve ? room - reserve : room / 2;
        best = max_u64(best, room);
        whole = max_u64(whole, size);
    }
    if (p->type == VK_PHYSICAL_DEVICE_TYPE_CPU || p->type == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU) {
        uint64_t host = comm_memory_available() / 100 * HOST_PERCENT;
        if (host)
            best = min_u64(best, host);
        /* The heap that a CPU device shows is a number of its driver's: it gives what the host has. */
        if (p->type == VK_PHYSICAL_DEVICE_TYPE_CPU && os_memory_total()) {
            whole = os_memory_total();
            best = asked && host ? host : best;
        }
    }
    if (asked <= whole)
        return asked ? asked : best;
    char a[24], b[24], c[24];
    log_warn("--mem-limit %s is more than the %s that %s has: %s are used", format_bytes(asked, a, sizeof a),
             format_bytes(whole, b, sizeof b), p->info.name, format_bytes(best, c, sizeof c));
    return best;
}

uint64_t gpu_memory_used(const struct gpu *g)
{
    return g->held.used;
}

uint64_t gpu_memory_peak(const struct gpu *g)
{
    return g->held.peak;
}

void gpu_memory_peak_again(struct gpu *g)
{
    g->held.peak = g->held.used;
}

/* ---- arenas ---- */

/* Two stacks: small allocations bump through shared chunks of one size, large ones take whole buffers. A mark
 * holds both heights: large count in the upper 24 bits, bytes of the small stack below. */
struct stack {
    struct gpu_buffer **buffers;
    size_t n, cap; /* held */
};

struct gpu_arena {
    struct gpu *gpu;
    char name[32];
    struct stack small, large;
    uint64_t small_top;      /* chunk index * chunk_bytes + offset */
    size_t large_top;        /* large buffers in use; those after are free, in any order */
    struct gpu_count *count; /* the device's or the host's; of an arena that counts, its own */
    struct gpu_arena *next;  /* of the same count */
};

#define MARK_SHIFT 40
#define MARK_MASK  ((UINT64_C(1) << MARK_SHIFT) - 1)

static bool create_arena(struct gpu_arena **out, struct gpu *g, const char *name, struct gpu_count *count,
                         struct err *e)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return err_nomem(e, "an arena", sizeof **out);
    (*out)->gpu = g;
    (*out)->count = count;
    (*out)->next = count->arenas;
    count->arenas = *out;
    snprintf((*out)->name, sizeof(*out)->name, "%s", name);
    if (!g->chunk_bytes) {
        uint64_t most = min_u64(g->probe.info.mem_limit / 64, g->probe.info.max_alloc);
        g->chunk_bytes = CHUNK_BYTES;
        while (g->chunk_bytes > CHUNK_MIN && g->chunk_bytes > most)
            g->chunk_bytes /= 2;
    }
    return true;
}

bool gpu_arena_create(struct gpu_arena **out, struct gpu *g, const char *name, struct err *e)
{
    return create_arena(out, g, name, &g->held, e);
}

bool gpu_arena_create_host(struct gpu_arena **out, struct gpu *g, const char *name, struct err *e)
{
    g->host.limit = UINT64_MAX - 1; /* buffers have one all the same */
    return create_arena(out, g, name, &g->host, e);
}

bool gpu_arena_create_counting(struct gpu_arena **out, struct gpu *g, struct gpu_count *count, struct err *e)
{
    return create_arena(out, g, "counting", count, e);
}

static bool of_host(const struct gpu_arena *a)
{
    return a->count == &a->gpu->host;
}

static bool counts(const struct gpu_arena *a)
{
    return a->count != &a->gpu->held && !of_host(a);
}

static void drop_last(struct gpu_arena *a, struct stack *s)
{
    struct gpu_buffer **b = &s->buffers[--s->n];
    a->count->used -= (*b)->size;
    gpu_buffer_destroy(a->gpu, b);
}

void gpu_arena_trim(struct gpu_arena *a)
{
    uint64_t chunks = div_up(a->small_top, a->gpu->chunk_bytes);
    while (a->small.n > chunks)
        drop_last(a, &a->small);
    while (a->large.n > a->large_top)
        drop_last(a, &a->large);
}

void gpu_arena_destroy(struct gpu_arena **a)
{
    if (!*a)
        return;
    gpu_arena_reset(*a, 0);
    gpu_arena_trim(*a);
    struct gpu_arena **link = &(*a)->count->arenas;
    while (*link != *a)
        link = &(*link)->next;
    *link = (*a)->next;
    free((*a)->small.buffers);
    free((*a)->large.buffers);
    free(*a);
    *a = NULL;
}

uint64_t gpu_arena_bytes(const struct gpu_arena *a)
{
    uint64_t bytes = a->small.n * a->gpu->chunk_bytes;
    for (size_t i = 0; i < a->large.n; i++)
        bytes += a->large.buffers[i]->size;
    return bytes;
}

/* Whether `bytes` more stay within the limit. */
static bool fits(const struct gpu_count *c, uint64_t bytes)
{
    return c->used <= c->limit && bytes <= c->limit - c->used;
}

static bool no_room(struct gpu_arena *a, uint64_t bytes, const char *why, struct err *e)
{
    char want[24], used[24], limit[24];
    format_bytes(bytes, want, sizeof want);
    if (of_host(a)) {
        err_set(e, ERR_ENV, "not enough host memory that the device sees for %s more: %s", want, why);
        return err_hint(e, "close other programs, or use a smaller --ctx or fewer --samples");
    }
    format_bytes(a->count->used, used, sizeof used);
    format_bytes(a->count->limit, limit, sizeof limit);
    err_set(e, ERR_ENV, "not enough device memory for %s more: %s (%s of %s in use)", want, why, used, limit);
    return err_hint(e, "raise --mem-limit if the device has more, or use a smaller --ctx or fewer --samples");
}

/* part_bytes: of one in parts. */
static bool create_buffer(struct gpu_arena *a, struct gpu_buffer **out, uint64_t bytes, uint64_t part_bytes,
                          struct err *e)
{
    if (!counts(a) && part_bytes)
        return gpu_buffer_create_parts(out, a->gpu, bytes, part_bytes, e);
    if (!counts(a))
        return gpu_buffer_create(out, a->gpu, bytes, of_host(a) ? GPU_BUFFER_HOST : GPU_BUFFER_DEVICE, e);
    *out = calloc(1, sizeof **out);
    if (!*out)
        return err_nomem(e, "a buffer that is counted", sizeof **out);
    (*out)->size = bytes;
    (*out)->part_bytes = part_bytes;
    return true;
}

/* A new buffer on top of the stack's held ones. */
static bool push_buffer(struct gpu_arena *a, struct stack *s, uint64_t bytes, uint64_t part_bytes, struct err *e)
{
    struct gpu_count *c = a->count;
    if (!fits(c, bytes))
        gpu_arena_trim(a);
    for (struct gpu_arena *other = c->arenas; other && !fits(c, bytes); other = other->next)
        gpu_arena_trim(other);
    if (!fits(c, bytes))
        return no_room(a, bytes, "the limit is reached", e);
    struct gpu_buffer **p = grow(s->buffers, &s->cap, s->n, sizeof *p, "an arena", e);
    if (!p)
        return false;
    s->buffers = p;
    struct err why = {0};
    if (!create_buffer(a, &s->buffers[s->n], bytes, part_bytes, &why)) {
        for (struct gpu_arena *other = c->arenas; other; other = other->next)
            gpu_arena_trim(other);
        if (!create_buffer(a, &s->buffers[s->n], bytes, part_bytes, &why)) {
            no_room(a, bytes, why.msg, e); /* others have it */
            return err_hint(e, "%s", why.hint);
        }
    }
    s->n++;
    c->used += bytes;
    c->peak = max_u64(c->peak, c->used);
    return true;
}

static bool alloc_large(struct gpu_arena *a, uint64_t bytes, uint64_t part_bytes, struct gpu_view *out, struct err *e)
{
    struct stack *s = &a->large;
    size_t best = s->n;
    for (size_t i = a->large_top; i < s->n; i++)
        if (s->buffers[i]->part_bytes == part_bytes && s->buffers[i]->size >= bytes &&
            (best == s->n || s->buffers[i]->size < s->buffers[best]->size))
            best = i;
    bool found = best < s->n && (SNUG(bytes, s->buffers[best]->size) || !fits(a->count, bytes));
    if (!found) {
        if (!push_buffer(a, s, bytes, part_bytes, e))
            return false;
        best = s->n - 1;
    }
    struct gpu_buffer *b = s->buffers[best];
    s->buffers[best] = s->buffers[a->large_top];
    s->buffers[a->large_top++] = b;
    *out = (struct gpu_view){b, 0, bytes};
    return true;
}

static bool alloc_small(struct gpu_arena *a, uint64_t bytes, struct gpu_view *out, struct err *e)
{
    uint64_t chunk = a->gpu->chunk_bytes, at = a->small_top;
    if (at % chunk + bytes > chunk)
        at = round_up(at, chunk);
    if (at / chunk >= a->small.n && !push_buffer(a, &a->small, chunk, 0, e))
        return false;
    a->small_top = at + bytes;
    *out = (struct gpu_view){a->small.buffers[at / chunk], at % chunk, bytes};
    return true;
}

/* Of one buffer; of an arena that counts without a limit, any. */
static uint64_t most_bytes(const struct gpu_arena *a)
{
    return a->count->limit == UINT64_MAX ? UINT64_MAX
                                         : a->gpu->probe.info.max_alloc / GPU_ALLOC_ALIGN * GPU_ALLOC_ALIGN;
}

bool gpu_alloc(struct gpu_arena *a, uint64_t bytes, struct gpu_view *out, struct err *e)
{
    const struct gpu *g = a->gpu;
    *out = (struct gpu_view){0};
    if (bytes > most_bytes(a)) {
        char limit[24], why[96];
        snprintf(why, sizeof why, "one buffer of this device holds at most %s",
                 format_bytes(g->probe.info.max_alloc, limit, sizeof limit));
        no_room(a, bytes, why, e);
        return err_hint(e, "use a device that allows larger buffers: gsq devices shows what each allows");
    }
    uint64_t room = round_up(max_u64(bytes, 1), GPU_ALLOC_ALIGN);
    bool ok = room > g->chunk_bytes / 4 ? alloc_large(a, room, 0, out, e) : alloc_small(a, room, out, e);
    out->size = ok ? round_up(max_u64(bytes, 1), 4) : 0;
    return ok;
}

bool gpu_alloc_rows(struct gpu_arena *a, uint32_t rows, uint64_t row_bytes, uint32_t unit, struct gpu_view *out,
                    struct err *e)
{
    assert(unit * row_bytes % GPU_ALLOC_ALIGN == 0);
    uint64_t bytes = rows * row_bytes, most = most_bytes(a);
    uint64_t fit = most / row_bytes / unit * unit;
    if (bytes <= most || !fit || of_host(a))
        return gpu_alloc(a, bytes, out, e);
    uint64_t each = round_up(div_up(rows, div_up(rows, fit)), unit); /* alike, so that no small one is left */
    *out = (struct gpu_view){0};
    bool ok = alloc_large(a, round_up(bytes, GPU_ALLOC_ALIGN), each * row_bytes, out, e);
    out->size = ok ? bytes : 0;
    return ok;
}

gpu_mark gpu_arena_mark(const struct gpu_arena *a)
{
    assert(a->small_top <= MARK_MASK && a->large_top < UINT64_C(1) << (64 - MARK_SHIFT));
    return (uint64_t)a->large_top << MARK_SHIFT | a->small_top;
}

void gpu_arena_reset(struct gpu_arena *a, gpu_mark mark)
{
    uint64_t small = mark & MARK_MASK, large = mark >> MARK_SHIFT;
    assert(small <= a->small_top && large <= a->large_top);
    a->small_top = small;
    a->large_top = (size_t)large;
}

/* ---- views ---- */

void *gpu_host(struct gpu_view v)
{
    return v.buffer && v.buffer->map ? (char *)v.buffer->map + v.offset : NULL;
}

bool gpu_unified(const struct gpu *g)
{
    return g->unified;
}

struct gpu_view gpu_slice(struct gpu_view v, uint64_t offset, uint64_t size)
{
    assert(offset <= v.size && size <= v.size - offset && offset % 4 == 0);
    return (struct gpu_view){v.buffer, v.offset + offset, size};
}

uint64_t gpu_bytes_after(struct gpu_view v, uint64_t offset)
{
    uint64_t part = v.buffer ? v.buffer->part_bytes : 0;
    return part ? part - (v.offset + offset) % part : UINT64_MAX;
}

uint64_t gpu_bytes_before(struct gpu_view v, uint64_t offset)
{
    uint64_t part = v.buffer ? v.buffer->part_bytes : 0;
    return part ? (v.offset + offset - 1) % part + 1 : UINT64_MAX;
}

uint32_t gpu_tile_rows(const struct gpu *g, uint64_t row_bytes, uint32_t rows)
{
    assert(row_bytes > 0 && row_bytes <= g->probe.info.max_range);
    uint64_t most = g->probe.info.max_range / row_bytes;
    if (most >= rows)
        return rows;
    /* 64 rows of whole words are a multiple of GPU_ALLOC_ALIGN; where a range holds fewer, as many as stay
     * aligned. */
    uint64_t unit = 64;
    while (unit > most)
        unit /= 2;
    assert(unit * row_bytes % GPU_ALLOC_ALIGN == 0);
    return (uint32_t)(most / unit * unit);
}
