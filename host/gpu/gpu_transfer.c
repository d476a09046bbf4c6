/* Between host and device: the upload ring, readback, copies and fills. */
#include "host/gpu/gpu_cmd_internal.h"

#include <string.h>

/* Host memory for uploads in flight. A piece is at most a quarter, so that filling one overlaps with moving
 * another. */
#define UPLOAD_RING  (UINT64_C(32) << 20)
#define UPLOAD_PIECE (UPLOAD_RING / 4)
/* Two halves: one is being filled while the other is copied out. */
#define READBACK_HALF (UINT64_C(8) << 20)

static bool staging(struct gpu_cmd *c, struct gpu_buffer **b, uint64_t size, enum gpu_buffer_use use)
{
    struct err e = {0};
    if (*b || gpu_buffer_create(b, c->gpu, size, use, &e))
        return true;
    err_context(&e, "staging memory");
    return cmd_fail(c, &e);
}

/* Whether bytes [0, bytes) of the view exist. */
static bool in_view(struct gpu_cmd *c, const char *what, struct gpu_view v, uint64_t bytes)
{
    struct err e = {0};
    if (v.buffer && (v.buffer->vk || v.buffer->parts) && bytes <= v.size && v.offset <= v.buffer->size &&
        v.size <= v.buffer->size - v.offset)
        return true;
    err_set(&e, ERR_BUG, "%s of %llu bytes, but the view has %llu", what, (unsigned long long)bytes,
            (unsigned long long)v.size);
    return cmd_fail(c, &e);
}

static struct access touch(struct gpu_buffer *b, uint64_t offset, uint64_t bytes, bool write)
{
    return (struct access){b, offset, offset + bytes, STAGE_TRANSFER, write};
}

/* The view's first bytes, at most n, in the part in which they lie; how many. */
static uint64_t in_one_part(struct gpu_view *v, uint64_t n)
{
    v->size = min_u64(n, gpu_bytes_after(*v, 0));
    *v = gpu_in_part(*v);
    return v->size;
}

static void record_copy(struct gpu_cmd *c, struct slot *s, struct gpu_buffer *dst, uint64_t to, struct gpu_buffer *src,
                        uint64_t from, uint64_t bytes)
{
    const struct access accesses[] = {touch(src, from, bytes, false), touch(dst, to, bytes, true)};
    cmd_access(c, accesses, 2);
    for (uint64_t n; bytes; to += n, from += n, bytes -= n) {
        struct gpu_view a = {src, from, bytes}, b = {dst, to, bytes};
        n = in_one_part(&a, min_u64(bytes, gpu_bytes_after(b, 0)));
        n = in_one_part(&b, n);
        VkBufferCopy region = {a.offset, b.offset, n};
        vkCmdCopyBuffer(s->cb, a.buffer->vk, b.buffer->vk, 1, &region);
    }
}

/* Position in the ring of `bytes` that no submission reads; waits for the oldest ones if need be. */
static bool ring_take(struct gpu_cmd *c, uint64_t bytes, uint64_t *at)
{
    uint64_t head = c->upload_head;
    if (head % UPLOAD_RING + bytes > UPLOAD_RING) /* pieces are contiguous */
        head = round_up(head, UPLOAD_RING);
    while (head + bytes - c->upload_tail > UPLOAD_RING) {
        gpu_cmd_flush(c);
        uint64_t oldest = cmd_oldest(c);
        if (c->failed || (oldest && !cmd_wait(c, oldest)) || c->failed)
            return false;
        if (!oldest)
            c->upload_tail = c->upload_head;
    }
    c->upload_head = head + bytes;
    *at = head % UPLOAD_RING;
    return true;
}

void gpu_upload(struct gpu_cmd *c, struct gpu_view dst, const void *src, uint64_t bytes)
{
    if (c->failed || c->counting || bytes == 0 || !in_view(c, "upload", dst, bytes))
        return;
    if (dst.buffer->map && cmd_quiet(c, dst.buffer)) {
        memcpy((char *)dst.buffer->map + dst.offset, src, (size_t)bytes);
        return;
    }
    if (!staging(c, &c->upload, UPLOAD_RING, GPU_BUFFER_UPLOAD))
        return;
    for (uint64_t done = 0; done < bytes;) {
        uint64_t n = min_u64(bytes - done, UPLOAD_PIECE), at;
        if (!ring_take(c, round_up(n, 4), &at))
            return;
        memcpy((char *)c->upload->map + at, (const char *)src + done, (size_t)n);
        struct slot *s = cmd_open(c);
        if (!s)
            return;
        record_copy(c, s, dst.buffer, dst.offset + done, c->upload, at, n);
        cmd_count_transfer(c, n);
        if (n == UPLOAD_PIECE) /* it moves while the next one is filled */
            gpu_cmd_flush(c);
        done += n;
    }
}

/* Copies a piece into its half of the readback buffer and submits. */
static bool fetch_piece(struct gpu_cmd *c, struct gpu_view src, uint64_t from, uint64_t bytes, unsigned half)
{
    struct slot *s = cmd_open(c);
    if (!s)
        return false;
    record_copy(c, s, c->readback, half * READBACK_HALF, src.buffer, src.offset + from, bytes);
    cmd_barrier(c, true);
    cmd_count_transfer(c, bytes);
    gpu_cmd_flush(c);
    return !c->failed;
}

bool gpu_download(struct gpu_cmd *c, struct gpu_view src, void *dst, uint64_t bytes, struct err *e)
{
    if (c->counting) {
        memset(dst, 0, (size_t)bytes);
        return gpu_cmd_finish(c, e);
    }
    if (c->failed || bytes == 0 || !in_view(c, "download", src, bytes))
        return gpu_cmd_finish(c, e);
    if (src.buffer->map && src.buffer->cached) {
        gpu_cmd_flush(c);
        if (!c->failed && (!cmd_oldest(c) || cmd_wait(c, c->submitted)))
            memcpy(dst, (const char *)src.buffer->map + src.offset, (size_t)bytes);
        return gpu_cmd_finish(c, e);
    }
    if (!staging(c, &c->readback, 2 * READBACK_HALF, GPU_BUFFER_READBACK))
        return gpu_cmd_finish(c, e);
    uint64_t pieces = div_up(bytes, READBACK_HALF), value[2] = {0};
    for (uint64_t i = 0; i <= pieces; i++) {
        if (i < pieces) {
            uint64_t from = i * READBACK_HALF;
            if (!fetch_piece(c, src, from, min_u64(READBACK_HALF, bytes - from), (unsigned)(i & 1)))
                break;
            value[i & 1] = c->submitted;
        }
        if (i == 0)
            continue;
        uint64_t before = i - 1, from = before * READBACK_HALF;
        if (!cmd_wait(c, value[before & 1]))
            break;
        memcpy((char *)dst + from, (const char *)c->readback->map + (before & 1) * READBACK_HALF,
               (size_t)min_u64(READBACK_HALF, bytes - from));
    }
    return gpu_cmd_finish(c, e);
}

void gpu_copy(struct gpu_cmd *c, struct gpu_view dst, struct gpu_view src, uint64_t bytes)
{
    if (c->counting == GPU_COUNT_TRAFFIC) {
        const struct gpu_view both[] = {{src.buffer, src.offset, bytes}, {dst.buffer, dst.offset, bytes}};
        c->watch(c->watch_ctx, c->part, GPU_COPY_ID, 1, 2, both, NULL, 0);
    }
    if (c->failed || c->counting || bytes == 0 || !in_view(c, "copy", dst, bytes) || !in_view(c, "copy", src, bytes))
        return;
    if (dst.buffer == src.buffer && dst.offset < src.offset + bytes && src.offset < dst.offset + bytes) {
        struct err e = {0};
        err_set(&e, ERR_BUG, "copy: source and destination overlap");
        cmd_fail(c, &e);
        return;
    }
    struct slot *s = cmd_open(c);
    if (!s)
        return;
    record_copy(c, s, dst.buffer, dst.offset, src.buffer, src.offset, bytes);
    cmd_count_transfer(c, bytes);
}

void gpu_fill(struct gpu_cmd *c, struct gpu_view dst, uint32_t word)
{
    if (c->counting == GPU_COUNT_TRAFFIC)
        c->watch(c->watch_ctx, c->part, GPU_FILL_ID, 0, 1, &dst, NULL, 0);
    if (c->failed || c->counting || !in_view(c, "fill", dst, dst.size))
        return;
    if (dst.size == 0 || dst.size % 4 || dst.offset % 4) {
        struct err e = {0};
        err_set(&e, ERR_BUG, "fill: the view is empty or not whole words");
        cmd_fail(c, &e);
        return;
    }
    struct slot *s = cmd_open(c);
    if (!s)
        return;
    const struct access access = touch(dst.buffer, dst.offset, dst.size, true);
    cmd_access(c, &access, 1);
    for (uint64_t at = 0, n; at < dst.size; at += n) {
        struct gpu_view part = gpu_slice(dst, at, dst.size - at);
        n = in_one_part(&part, part.size);
        vkCmdFillBuffer(s->cb, part.buffer->vk, part.offset, n, word);
    }
    cmd_count_transfer(c, dst.size);
}
