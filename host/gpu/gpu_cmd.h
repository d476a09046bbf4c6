/* Recording and running work.
 *
 *     struct gpu_cmd *cmd;              // usually one
 *     gpu_upload(cmd, x, host, bytes);
 *     run_add(cmd, gpu_items(cmd, KERNEL_ID_add, n), &(struct add_args){.y = y, .x = x, .n = n});
 *     gpu_download(cmd, y, host, bytes, e); // runs all recorded so far and waits
 *     if (!gpu_cmd_finish(cmd, e)) ...  // the first error of anything recorded since the last finish
 *
 * Recording never returns an error: errors are kept and come out of gpu_cmd_finish (and gpu_download). Barriers are
  * placed from what each kernel reads and writes. Work is cut into submissions of
 * about 100 ms by measured cost, so that a desktop stays responsive and Windows does not kill the job. A kernel that
  * was never measured first runs alone.
 *
 * One thread uses a device. Several gpu_cmd share its queue; gpu_cmd_finish comes between one's writes and another's
  * reads. Staging takes 48 MiB of host memory, at the first transfers. */
#ifndef GPU_CMD_H
#define GPU_CMD_H

#include "host/gpu/gpu_memory.h"
#include "host/gpu/kernel_decl.h"

struct gpu_cmd;

/* Number of workgroups, and how much work they do, in any unit proportional to time for this kernel, such as
 * multiply-adds (0: the number of workgroups). Submissions are cut by the work. */
struct gpu_grid {
    uint32_t x, y, z;
    double work;
};

bool gpu_cmd_create(struct gpu_cmd **out, struct gpu *g, struct err *e);
void gpu_cmd_destroy(struct gpu_cmd **c);
/* Called between submissions while waiting; false makes the pending gpu_cmd_finish fail with ERR_STOPPED. May
 * be NULL. */
void gpu_cmd_set_poll(struct gpu_cmd *c, bool (*poll)(void *ctx), void *ctx);
/* What is called now. */
void gpu_cmd_get_poll(const struct gpu_cmd *c, bool (**poll)(void *ctx), void **ctx);
struct gpu *gpu_cmd_gpu(struct gpu_cmd *c);

/* Host memory to device, through the upload ring; src may be reused at once. Any size. */
void gpu_upload(struct gpu_cmd *c, struct gpu_view dst, const void *src, uint64_t bytes);
/* Device to host; runs everything recorded and waits. */
bool gpu_download(struct gpu_cmd *c, struct gpu_view src, void *dst, uint64_t bytes, struct err *e);
void gpu_copy(struct gpu_cmd *c, struct gpu_view dst, struct gpu_view src, uint64_t bytes);
/* Every 4-byte word of the view <- word. */
void gpu_fill(struct gpu_cmd *c, struct gpu_view dst, uint32_t word);
/* Of a view that the host sees (gpu_host): whether all recorded work that touches it has ended. Waits for that, and for nothing
 * that was recorded later; false: an error is pending. */
bool gpu_quiet(struct gpu_cmd *c, struct gpu_view v);
bool gpu_wait_quiet(struct gpu_cmd *c, struct gpu_view v);
/* Submits what is recorded, without waiting. */
void gpu_cmd_flush(struct gpu_cmd *c);
/* Submits and waits for everything; returns the first error since the last call. A lost device is ERR_ENV. */
bool gpu_cmd_finish(struct gpu_cmd *c, struct err *e);
/* True once an error is pending (long host loops may stop early). */
bool gpu_cmd_failed(const struct gpu_cmd *c);

/* Measured so far, for bench, the ETA and the report. */
struct gpu_profile {
    uint64_t dispatches;
    double seconds, work;
};
/* Per kernel id; timing of single dispatches is on only after gpu_cmd_profile_enable. */
void gpu_cmd_profile_enable(struct gpu_cmd *c, bool on);
struct gpu_profile gpu_cmd_profile(const struct gpu_cmd *c, unsigned kernel);
void gpu_cmd_profile_clear(struct gpu_cmd *c);
/* Floating-point operations of the matrix products that the device has finished so far: progress within what was
 * recorded. */
double gpu_cmd_products(const struct gpu_cmd *c);
/* Seconds that the device has worked on what it has finished so far, by its own clock; 0 where it has none. What is
 * missing to the time that has passed it was idle, or at work for others. */
double gpu_cmd_busy(const struct gpu_cmd *c);
/* Seconds for a byte between host and device, as measured so far. */
double gpu_cmd_transfer_seconds(const struct gpu_cmd *c);
/* While something is counted, nothing is recorded: dispatches, with the work they would do, are added to the profiles,
 * transfers are dropped, and downloads give zeros. Views may come from gpu_arena_create_counting. So a run of any size
  * can be planned without its time or memory. */
enum gpu_counting {
    GPU_COUNT_NOTHING,
    GPU_COUNT_WORK,
    GPU_COUNT_MEMORY, /* of the arenas alone: no work is split, which is quicker */
    /* What is recorded is told to gpu_cmd_watch's function, of work that is not split and, whatever this device binds, on one
     * that binds 4 GiB. */
    GPU_COUNT_TRAFFIC,
};
void gpu_cmd_count(struct gpu_cmd *c, enum gpu_counting what);
/* Whose work is recorded, where ranks share a run (comm.h); of one rank it is told apart in the same way. */
enum gpu_part {
    GPU_PART_OWN,   /* each rank does all of it by itself */
    GPU_PART_UNITS, /* shared out in units that one rank makes whole: windows, chunks, tiles, linears, experts */
    GPU_PART_ROWS,  /* shared out by rows of a linear: each rank calls the same kernels, on fewer rows */
    GPU_PART_EACH, /* for these, whole on each rank that has rows: a Hessian, GPTQ's factor; only within the part before */
    GPU_PART_EXCHANGE, /* made of what others have sent: one rank has none */
    GPU_PARTS
};
/* What is recorded from here on is of that part; within another, but for GPU_PART_EACH, it stays that one's. Returns what gpu_part_end goes back to. */
enum gpu_part gpu_part_begin(struct gpu_cmd *c, enum gpu_part part);
void gpu_part_end(struct gpu_cmd *c, enum gpu_part before);
/* Called for what GPU_COUNT_TRAFFIC counts (gpu_traffic.h): a dispatch, or a fill or a copy, whose numbers are those behind the
 * kernels'; and, where nothing is counted, for each dispatch that is recorded. reads, writes: bit i: view i is read, written. push: of a dispatch. */
enum { GPU_FILL_ID = KERNEL_COUNT, GPU_COPY_ID, GPU_RECORD_KINDS };
typedef void gpu_watch_fn(void *ctx, enum gpu_part part, unsigned kind, uint32_t reads, uint32_t writes,
                          const struct gpu_view *views, const void *push, double work);
void gpu_cmd_watch(struct gpu_cmd *c, gpu_watch_fn *fn, void *ctx);
/* Whether anything is counted: long work of the host whose result is not needed can then be left out. */
bool gpu_cmd_counts(const struct gpu_cmd *c);
/* How much work of this kernel fits a submission of 100 ms: measured, or before the first measurement a guess
 * (cautious where the unit is a floating-point operation). args: the call's struct NAME_args, for which there may be a variant
 * of its own; NULL: any call. Callers split larger dispatches by rows. */
double gpu_cmd_work_limit(const struct gpu_cmd *c, unsigned kernel, const void *args);

/* What the generated run_NAME functions call. views: one per BUF; push: the push constants. A view larger
 * than gpu_info.max_range, misaligned or empty is ERR_BUG naming kernel and buffer. */
void gpu_dispatch(struct gpu_cmd *c, unsigned kernel, struct gpu_grid grid, const struct gpu_view *views,
                  unsigned n_views, const void *push, unsigned push_bytes);

#endif
