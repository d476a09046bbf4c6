#include "host/model/acts.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/os.h"
#include "host/base/task.h"

/* Of host memory that the device sees, at a time. */
#define HOST_CHUNK_BYTES (UINT64_C(256) << 20)

/* Windows on their way to memory that the device does not see: it copies them into `room`, a thread copies them from there. */
struct behind {
    struct acts *a;
    struct gpu_arena *arena; /* of host memory; NULL: not needed yet */
    struct gpu_view room;
    uint64_t offset, bytes; /* in acts.host; bytes 0: nothing is on its way */
    struct task task;
};

struct acts {
    struct model *m;
    const struct stored_embedding *embedding;
    enum acts_tier tier;
    uint32_t n_windows;
    uint64_t window_bytes;
    /* Device, and host memory that the device sees: chunks of per_chunk windows, since one buffer may not hold them all. */
    struct gpu_arena *arena; /* NULL: they are in `host` */
    bool near;               /* kernels use them where they lie */
    struct gpu_view *chunks;
    uint32_t n_chunks, per_chunk;
    /* File, and host memory that the device does not see. */
    uint8_t *host;
    struct os_map map;
    struct behind behind[ACTS_BEHIND];
    unsigned next; /* of them: the one that is used next */
};

uint64_t acts_bytes(const struct model *m, uint32_t n_windows)
{
    return (uint64_t)n_windows * m->ctx * m->cfg->hidden_size * 4;
}

enum acts_tier acts_tier_for(const struct acts_options *o, uint64_t bytes)
{
    return bytes <= o->device_bytes ? ACTS_DEVICE : bytes <= o->host_bytes ? ACTS_HOST : ACTS_FILE;
}

struct acts_options acts_in(enum acts_tier tier, const char *spill_dir)
{
    return (struct acts_options){.device_bytes = tier == ACTS_DEVICE ? UINT64_MAX : 0,
                                 .host_bytes = tier == ACTS_HOST ? UINT64_MAX : 0,
                                 .spill_dir = spill_dir};
}

/* Chunks of the arena. */
static bool alloc_chunks(struct acts *a, struct gpu_arena *arena, uint64_t chunk_bytes, struct err *e)
{
    uint64_t most = gpu_info(a->m->gpu)->max_alloc;
    if (chunk_bytes)
        most = min_u64(most, chunk_bytes);
    a->per_chunk = (uint32_t)min_u64(a->n_windows, most / a->window_bytes);
    if (a->per_chunk == 0)
        return err_set(e, ERR_ENV, "a window of hidden states is larger than one buffer of this device");
    uint32_t n = (uint32_t)div_up(a->n_windows, a->per_chunk);
    a->chunks = calloc(n, sizeof *a->chunks);
    if (!a->chunks)
        return err_nomem(e, "the list of hidden states", n * sizeof *a->chunks);
    for (a->n_chunks = 0; a->n_chunks < n; a->n_chunks++) {
        uint64_t left = a->n_windows - (uint64_t)a->n_chunks * a->per_chunk;
        if (!gpu_alloc(arena, min_u64(left, a->per_chunk) * a->window_bytes, &a->chunks[a->n_chunks], e))
            return false;
    }
    return true;
}

bool acts_count(struct model *m, uint32_t n_windows, struct gpu_arena *counting, struct err *e)
{
    struct acts a = {.m = m, .n_windows = n_windows, .window_bytes = acts_bytes(m, 1)};
    bool ok = alloc_chunks(&a, counting, 0, e);
    free(a.chunks);
    return ok;
}

/* In host memory that the device sees, which takes no copy by the host; where there is not enough of it, in any. */
static bool create_on_host(struct acts *a, uint64_t chunk_bytes, uint64_t bytes, struct err *e)
{
    uint64_t most = chunk_bytes ? chunk_bytes : max_u64(HOST_CHUNK_BYTES, a->window_bytes);
    if (gpu_arena_create_host(&a->arena, a->m->gpu, "hidden states", NULL) && alloc_chunks(a, a->arena, most, NULL))
        return true;
    gpu_arena_destroy(&a->arena);
    free(a->chunks);
    a->chunks = NULL;
    a->host = malloc((size_t)bytes);
    return a->host || err_nomem(e, "hidden states", bytes);
}

bool acts_create(struct acts **out, struct model *m, uint32_t n_windows, const struct acts_options *o, struct err *e)
{
    *out = NULL;
    struct acts *a = calloc(1, sizeof *a);
    if (!a)
        return err_nomem(e, "hidden states", sizeof *a);
    a->m = m;
    a->embedding = o->embedding;
    a->n_windows = n_windows;
    a->window_bytes = acts_bytes(m, 1);
    uint64_t bytes = acts_bytes(m, n_windows);
    a->tier = acts_tier_for(o, bytes);
    bool ok = true;
    if (a->tier == ACTS_DEVICE) {
        ok = gpu_arena_create(&a->arena, m->gpu, "hidden states", e) && alloc_chunks(a, a->arena, o->chunk_bytes, e);
    } else if (a->tier == ACTS_HOST) {
        ok = create_on_host(a, o->chunk_bytes, bytes, e);
    } else {
        ok = os_map_scratch(&a->map, o->spill_dir ? o->spill_dir : ".", bytes, e);
        a->host = (uint8_t *)a->map.data; /* a scratch map is writable */
    }
    a->near = a->arena && (a->tier == ACTS_DEVICE || gpu_unified(m->gpu));
    if (!ok) {
        acts_destroy(&a);
        return err_context(e, "room for the hidden states of %" PRIu32 " windows", n_windows);
    }
    *out = a;
    return true;
}

void acts_destroy(struct acts **a)
{
    if (!*a)
        return;
    if ((*a)->arena || (*a)->behind[0].arena)
        gpu_cmd_finish((*a)->m->cmd, NULL); /* recorded work may still use it */
    for (unsigned i = 0; i < ACTS_BEHIND; i++) {
        task_wait(&(*a)->behind[i].task, NULL);
        gpu_arena_destroy(&(*a)->behind[i].arena);
    }
    gpu_arena_destroy(&(*a)->arena);
    free((*a)->chunks);
    if ((*a)->tier == ACTS_FILE)
        os_unmap(&(*a)->map);
    else
        free((*a)->host);
    free(*a);
    *a = NULL;
}

enum acts_tier acts_where(const struct acts *a)
{
    return a->tier;
}

/* The part of chunk storage that holds window w and at most n - 1 after it; *got says how many. */
static struct gpu_view device_part(const struct acts *a, uint32_t w, uint32_t n, uint32_t *got)
{
    uint32_t chunk = w / a->per_chunk, first = w % a->per_chunk;
    *got = (uint32_t)min_u64(n, a->per_chunk - first);
    return gpu_slice(a->chunks[chunk], first * a->window_bytes, *got * a->window_bytes);
}

/* Whether windows [w0, w0+n) can be bound where they lie. */
static bool in_place(const struct acts *a, uint32_t w0, uint32_t n, struct gpu_view *out)
{
    uint32_t got;
    *out = device_part(a, w0, n, &got);
    return a->near && got == n && out->offset % gpu_info(a->m->gpu)->min_align == 0;
}

static void copy_parts(struct acts *a, uint32_t w0, uint32_t n, struct gpu_view other, bool to_acts)
{
    for (uint32_t i = 0, got; i < n; i += got) {
        struct gpu_view mine = device_part(a, w0 + i, n - i, &got);
        struct gpu_view theirs = gpu_slice(other, i * a->window_bytes, mine.size);
        if (to_acts)
            gpu_copy(a->m->cmd, mine, theirs, mine.size);
        else
            gpu_copy(a->m->cmd, theirs, mine, mine.size);
    }
}

/* Pages of the spill file leave our memory; the system writes them out in its own time. */
static void drop_pages(const struct acts *a, uint64_t offset, uint64_t size)
{
    if (a->tier == ACTS_FILE)
        os_map_drop(&a->map, offset, size);
}

/* ---- to memory that the device does not see ---- */

static bool write_behind(void *ctx, struct err *e)
{
    (void)e;
    const struct behind *b = ctx;
    memcpy(b->a->host + b->offset, gpu_host(b->room), (size_t)b->bytes);
    drop_pages(b->a, b->offset, b->bytes);
    return true;
}

/* Threads begin with what the device has brought. */
static void move_on(struct acts *a)
{
    for (unsigned i = 0; i < ACTS_BEHIND; i++) {
        struct behind *b = &a->behind[i];
        if (b->bytes && !task_begun(&b->task) && gpu_quiet(a->m->cmd, b->room))
            task_begin(&b->task, write_behind, b);
    }
}

/* Waits until it is there. */
static bool settle(struct behind *b, struct err *e)
{
    struct gpu_cmd *cmd = b->a->m->cmd;
    bool ok = true;
    if (b->bytes && !task_begun(&b->task)) {
        ok = gpu_wait_quiet(cmd, b->room);
        if (ok)
            task_begin(&b->task, write_behind, b);
        else
            gpu_cmd_finish(cmd, e);
    }
    ok = task_wait(&b->task, ok ? e : NULL) && ok;
    b->bytes = 0;
    return ok;
}

/* Waits for what is on its way to these bytes. */
static bool arrived(struct acts *a, uint64_t offset, uint64_t bytes, struct err *e)
{
    move_on(a);
    for (unsigned i = 0; i < ACTS_BEHIND; i++) {
        struct behind *b = &a->behind[i];
        if (b->bytes && b->offset < offset + bytes && offset < b->offset + b->bytes && !settle(b, e))
            return false;
    }
    return true;
}

/* Room for so many bytes, in one that nothing is in. */
static bool make_room(struct behind *b, uint64_t bytes)
{
    if (b->room.size >= bytes)
        return true;
    if (b->arena || gpu_arena_create_host(&b->arena, b->a->m->gpu, "hidden states", NULL)) {
        gpu_arena_reset(b->arena, 0);
        return gpu_alloc(b->arena, bytes, &b->room, NULL);
    }
    return false;
}

/* From the device; by way of `room`, and where there is none, waiting for it. */
static bool to_host(struct acts *a, uint64_t offset, uint64_t bytes, struct gpu_view view, struct err *e)
{
    struct behind *b = &a->behind[a->next];
    b->a = a;
    if (!arrived(a, offset, bytes, e) || !settle(b, e))
        return false;
    if (!make_room(b, bytes)) {
        if (!gpu_download(a->m->cmd, view, a->host + offset, bytes, e))
            return false;
        drop_pages(a, offset, bytes);
        return true;
    }
    gpu_copy(a->m->cmd, b->room, view, bytes);
    gpu_cmd_flush(a->m->cmd);
    b->offset = offset;
    b->bytes = bytes;
    a->next = (a->next + 1) % ACTS_BEHIND;
    return true;
}

static bool to_device(struct acts *a, uint64_t offset, uint64_t bytes, struct gpu_view view, struct err *e)
{
    if (!arrived(a, offset, bytes, e))
        return false;
    gpu_upload(a->m->cmd, view, a->host + offset, bytes);
    drop_pages(a, offset, bytes);
    return true;
}

/* ---- windows ---- */

bool acts_get(struct acts *a, uint32_t w0, uint32_t n, struct gpu_view staging, struct gpu_view *out, struct err *e)
{
    assert((uint64_t)w0 + n <= a->n_windows && n > 0);
    uint64_t offset = w0 * a->window_bytes, bytes = n * a->window_bytes;
    if (a->arena && in_place(a, w0, n, out))
        return true;
    if (staging.size < bytes)
        return err_set(e, ERR_BUG, "the staging view holds %" PRIu64 " bytes of %" PRIu64, staging.size, bytes);
    *out = gpu_slice(staging, 0, bytes);
    if (a->arena) {
        copy_parts(a, w0, n, *out, false);
        return true;
    }
    if (!to_device(a, offset, bytes, *out, e))
        return false;
    if (a->tier == ACTS_FILE)
        os_map_fetch(&a->map, offset + bytes, min_u64(bytes, a->map.size - offset - bytes));
    return true;
}

void acts_fetch(const struct acts *a, const uint32_t *list, uint32_t n)
{
    for (uint32_t i = 0; a->tier == ACTS_FILE && i < n; i++)
        os_map_fetch(&a->map, list[i] * a->window_bytes, a->window_bytes);
}

bool acts_gather(struct acts *a, const uint32_t *list, uint32_t n, struct gpu_view staging, struct err *e)
{
    if (staging.size < n * a->window_bytes)
        return err_set(e, ERR_BUG, "the staging view holds %" PRIu64 " bytes, not %" PRIu32 " windows", staging.size,
                       n);
    for (uint32_t i = 0; i < n; i++) {
        struct gpu_view to = gpu_slice(staging, i * a->window_bytes, a->window_bytes);
        uint64_t offset = list[i] * a->window_bytes;
        assert(list[i] < a->n_windows);
        if (a->arena) {
            uint32_t got;
            gpu_copy(a->m->cmd, to, device_part(a, list[i], 1, &got), a->window_bytes);
        } else if (!to_device(a, offset, a->window_bytes, to, e)) {
            return false;
        }
    }
    return true;
}

bool acts_put(struct acts *a, uint32_t w0, uint32_t n, struct gpu_view view, struct err *e)
{
    assert((uint64_t)w0 + n <= a->n_windows && n > 0);
    uint64_t offset = w0 * a->window_bytes, bytes = n * a->window_bytes;
    if (a->arena) {
        struct gpu_view mine;
        if (!in_place(a, w0, n, &mine) || mine.buffer != view.buffer || mine.offset != view.offset)
            copy_parts(a, w0, n, view, true);
        return true;
    }
    return to_host(a, offset, bytes, gpu_slice(view, 0, bytes), e);
}

/* Ids of windows list[0 .. n-1], one after the other. */
static void gather_ids(uint32_t *to, const struct windows *w, const uint32_t *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        memcpy(to + (size_t)i * w->ctx, w->ids + (size_t)list[i] * w->ctx, w->ctx * sizeof *to);
}

bool acts_embed(struct acts *a, const struct windows *w, const uint32_t *list, uint32_t n, struct gpu_view staging,
                struct err *e)
{
    assert(n <= a->n_windows && (list || n <= w->n) && w->ctx == a->m->ctx);
    uint32_t batch = (uint32_t)min_u64(n, staging.size / a->window_bytes);
    if (n && batch == 0)
        return err_set(e, ERR_BUG, "the staging view is too small for a window");
    uint64_t bytes = (uint64_t)batch * w->ctx * sizeof *w->ids;
    uint32_t *gathered = list ? malloc((size_t)bytes) : NULL;
    bool ok = !list || gathered || err_nomem(e, "the tokens of a batch", bytes);
    for (uint32_t at = 0, count; ok && at < n; at += count) {
        const uint32_t *ids = list ? gathered : w->ids + (size_t)at * w->ctx;
        struct gpu_view dst;
        count = (uint32_t)min_u64(batch, n - at);
        if (list)
            gather_ids(gathered, w, list + at, count);
        if (!a->arena || !in_place(a, at, count, &dst))
            dst = gpu_slice(staging, 0, count * a->window_bytes);
        ok = model_embed(a->m, ids, (size_t)count * w->ctx, a->embedding, dst, e) && acts_put(a, at, count, dst, e);
    }
    free(gathered);
    return ok;
}
