/* What gpu_cmd.c (submissions, barriers), gpu_dispatch.c and gpu_transfer.c share. */
#ifndef GPU_CMD_INTERNAL_H
#define GPU_CMD_INTERNAL_H

#include "host/gpu/gpu_cmd.h"
#include "host/gpu/gpu_cost.h"
#include "host/gpu/gpu_memory_internal.h"

#define STAGE_COMPUTE  VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT
#define STAGE_TRANSFER VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT

enum {
    SLOTS = 3,             /* submissions being recorded or in flight: one records while two keep the device busy */
    MAX_DISPATCHES = 1024, /* of one submission: bounds queries and descriptor sets */
    MAX_ACCESSES = 256,    /* remembered since the last barrier; one more forces a barrier */
};

/* A range of a buffer that was read or written since the last barrier. */
struct access {
    struct gpu_buffer *buffer;
    uint64_t begin, end;
    VkPipelineStageFlags2 stage; /* compute or transfer */
    bool write;
};

/* One command buffer with what it needs, reused when its submission has ended. */
struct slot {
    VkCommandPool pool;
    VkCommandBuffer cb;
    VkQueryPool queries;   /* 0 and 1: start and end; then start and end of each dispatch, in profiles */
    VkDescriptorPool sets; /* where push descriptors are missing */
    VkBufferView *texels;  /* the texel buffers it reads */
    size_t n_texels, cap_texels;
    uint64_t value;      /* the timeline's when it has ended; 0: not in flight */
    uint64_t upload_end; /* ring position up to which it reads */
    struct gpu_cost cost;
    unsigned n_dispatches;
    bool profiled;
    bool to_host; /* it writes what the host sees */
    struct {
        struct gpu_kernel *kernel;
        double work;
    } dispatches[MAX_DISPATCHES];
};

struct gpu_cmd {
    struct gpu *gpu;
    VkSemaphore timeline;
    uint64_t submitted; /* last value given out */
    uint64_t done;      /* the timeline's, when it was last asked */
    struct slot slots[SLOTS];
    unsigned current;
    bool open; /* slots[current] is being recorded */
    struct gpu_kernel *bound;
    struct access accesses[MAX_ACCESSES];
    unsigned n_accesses;
    bool full_barrier; /* recorded work was dropped, and its barriers with it */
    /* staging; made on first use */
    struct gpu_buffer *upload, *readback;
    uint64_t upload_head, upload_tail; /* ever growing; position modulo the ring's size */
    double ns_per_byte;                /* of transfers, measured */
    bool (*poll)(void *ctx);
    void *poll_ctx;
    bool failed;
    struct err err; /* the first one since the last finish */
    bool profile;
    enum gpu_counting counting;
    uint64_t own_range; /* the device's max_range, while GPU_COUNT_TRAFFIC has put another in its place */
    gpu_watch_fn *watch;
    void *watch_ctx;
    enum gpu_part part;
    double products;
    double busy_ns;     /* of the device, by what has ended */
    uint64_t busy_tick; /* up to here it counts */
    struct gpu_profile profiles[KERNEL_COUNT];
};

/* Keeps e if it is the first error. Always returns false. */
bool cmd_fail(struct gpu_cmd *c, const struct err *e);
/* The slot being recorded, begun if need be; NULL after an error. */
struct slot *cmd_open(struct gpu_cmd *c);
/* Declares what the next command touches; places a barrier if it must wait for an earlier one. */
void cmd_access(struct gpu_cmd *c, const struct access *list, unsigned n);
/* A barrier now: everything before against everything after, and perhaps the host. */
void cmd_barrier(struct gpu_cmd *c, bool to_host);
/* Waits for a submission and takes its measurements. False if the device failed. */
bool cmd_wait(struct gpu_cmd *c, uint64_t value);
/* Whether nothing that was recorded and has not ended touches the buffer, which the host sees. */
bool cmd_quiet(struct gpu_cmd *c, const struct gpu_buffer *b);
/* The oldest submission in flight; 0: none. */
uint64_t cmd_oldest(const struct gpu_cmd *c);
/* Writes the time into this query, where there are any. */
void cmd_timestamp(struct slot *s, uint32_t query);
/* Whether the submission is to be ended here. */
bool cmd_long_enough(const struct gpu_cmd *c, const struct slot *s);
/* Counts a transfer towards the submission's length; submits when it is long enough. */
void cmd_count_transfer(struct gpu_cmd *c, uint64_t bytes);

#endif
