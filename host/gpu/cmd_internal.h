/* What gpu_cmd.c (submissions, barriers, dispatches) and gpu_transfer.c share. */
#ifndef GPU_CMD_INTERNAL_H
#define GPU_CMD_INTERNAL_H

#include "host/gpu/gpu_cmd.h"
#include "host/gpu/gpu_internal.h"

enum {
    SLOTS = 3,             /* submissions being recorded or in flight: one records while two keep the device busy */
    MAX_DISPATCHES = 1024, /* of one submission: bounds queries and descriptor sets */
    MAX_COSTS = 64,        /* different kernels in one submission */
    MAX_ACCESSES = 256,    /* remembered since the last barrier; one more forces a barrier */
};

/* A range of a buffer that was read or written since the last barrier. */
struct access {
    const struct gpu_buffer *buffer;
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
    unsigned n_texels, cap_texels;
    uint64_t value;      /* the timeline's when it has ended; 0: not in flight */
    uint64_t upload_end; /* ring position up to which it reads */
    double predicted_ns, transfer_ns, transfer_bytes;
    unsigned n_dispatches, n_costs;
    struct {
        struct gpu_kernel *kernel;
        unsigned dispatches;
        double work, ns;
    } costs[MAX_COSTS];
    bool profiled;
    struct {
        struct gpu_kernel *kernel;
        double work;
    } dispatches[MAX_DISPATCHES];
};

struct gpu_cmd {
    struct gpu *gpu;
    VkSemaphore timeline;
    uint64_t submitted; /* last value given out */
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
    double products;
    struct gpu_profile profiles[KERNEL_COUNT];
};

/* Keeps e if it is the first error. Always returns false. */
bool cmd_fail(struct gpu_cmd *c, const struct err *e);
/* The slot being recorded, begun if need be; NULL after an error. */
struct slot *cmd_open(struct gpu_cmd *c);
/* Declares what the next command touches; places a barrier if it must wait for an earlier one. */
void cmd_access(struct gpu_cmd *c, const struct access *list, unsigned n);
/* A barrier now: everything before against everything behind, and the host. */
void cmd_barrier_to_host(struct gpu_cmd *c);
/* Waits for a submission and takes its measurements. False if the device failed. */
bool cmd_wait(struct gpu_cmd *c, uint64_t value);
/* The oldest submission in flight; 0: none. */
uint64_t cmd_oldest(const struct gpu_cmd *c);
/* Counts a transfer towards the submission's length; submits when it is long enough. */
void cmd_count_transfer(struct gpu_cmd *c, uint64_t bytes);

#endif
