/* Device memory: views and arenas. */
#ifndef GPU_MEMORY_H
#define GPU_MEMORY_H

#include "host/gpu/gpu_device.h"

struct gpu_buffer;

/* A range of device memory, by value. size 0 = no buffer. */
struct gpu_view {
    struct gpu_buffer *buffer;
    uint64_t offset, size; /* bytes */
};

/* Bump allocation in chunks; freed as a whole. Arenas are named by lifetime ("model", "block", "tune",
 * "scratch"). */
struct gpu_arena;
bool gpu_arena_create(struct gpu_arena **out, struct gpu *g, const char *name, struct err *e);
/* An arena that counts: it does all that a real one does, but with the numbers of `count` and no memory. The plan runs
 * the allocating code on it, with commands that count too (gpu_cmd_count), and so knows what a run takes. Several
  * arenas may share a count. limit UINT64_MAX: no limit, also on the size of a buffer. */
bool gpu_arena_create_counting(struct gpu_arena **out, struct gpu *g, struct gpu_count *count, struct err *e);
/* An arena of host memory that the device reads and writes where it is: what moves between the two, or is kept off the
 * device, needs no copy on the way. Its views go wherever others go, in copies and kernels. It does not count towards the
 * device's limit. */
bool gpu_arena_create_host(struct gpu_arena **out, struct gpu *g, const char *name, struct err *e);
/* A view's memory as the host sees it; NULL: it does not. The caller makes sure (gpu_cmd_finish) that no recorded or
 * submitted work touches what is written here, or writes what is read here. */
void *gpu_host(struct gpu_view v);
/* Whether host and device have one memory (integrated GPUs, CPU devices): arenas of host memory are then as near to the
 * device as others, and transfers are copies by the host. */
bool gpu_unified(const struct gpu *g);
void gpu_arena_destroy(struct gpu_arena **a);
/* A view takes a multiple of this many bytes of its arena. */
#define GPU_ALLOC_ALIGN 256u
/* A view of `bytes` (rounded up to whole words), aligned to GPU_ALLOC_ALIGN.
 * Larger than one buffer may be, or over the memory limit: ERR_ENV that names the arena, the amount asked
 * for, what is in use and the remedy. Contents are undefined. A view may be larger than gpu_info.max_range;
 * bind it in slices then. */
bool gpu_alloc(struct gpu_arena *a, uint64_t bytes, struct gpu_view *out, struct err *e);
/* A matrix of that many rows. Where one buffer may not hold it, several do, each but the last a multiple of `unit` rows (which
 * take a multiple of GPU_ALLOC_ALIGN bytes). What is bound of it lies in one of them: gpu_gemm and the functions of tiled.h cut
 * rows there, as they do where a binding ends, copies and fills go across. The host does not see it. */
bool gpu_alloc_rows(struct gpu_arena *a, uint32_t rows, uint64_t row_bytes, uint32_t unit, struct gpu_view *out,
                    struct err *e);
/* Bytes from v's `offset` to the end of the buffer that holds it, and from the beginning of the one that holds the byte before it. */
uint64_t gpu_bytes_after(struct gpu_view v, uint64_t offset);
uint64_t gpu_bytes_before(struct gpu_view v, uint64_t offset);
/* Everything allocated after the mark is free again; the memory stays with the arena, which gives it back
 * when it or another one needs room. The caller makes sure that no recorded or submitted work still uses it
 * (gpu_cmd_finish). mark 0 = everything. */
typedef uint64_t gpu_mark;
gpu_mark gpu_arena_mark(const struct gpu_arena *a);
void gpu_arena_reset(struct gpu_arena *a, gpu_mark mark);
/* Gives unused chunks back to the device (between phases of different shape). */
void gpu_arena_trim(struct gpu_arena *a);
/* Bytes that this arena holds. */
uint64_t gpu_arena_bytes(const struct gpu_arena *a);
/* Bytes of device memory held by all arenas that do not count, now and at most so far. */
uint64_t gpu_memory_used(const struct gpu *g);
uint64_t gpu_memory_peak(const struct gpu *g);
/* What was held before does not count as the peak any more. */
void gpu_memory_peak_again(struct gpu *g);

/* [offset, offset+size) of v; asserts that it lies inside and that offset % 4 == 0. */
struct gpu_view gpu_slice(struct gpu_view v, uint64_t offset, uint64_t size);
/* How many rows of row_bytes (whole words) one bound view can hold, at most `rows`, such that tiles start
 * aligned: a multiple of 64 rows unless it is all of them. */
uint32_t gpu_tile_rows(const struct gpu *g, uint64_t row_bytes, uint32_t rows);

#endif
