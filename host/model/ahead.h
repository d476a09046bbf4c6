/* The weights of the block that is worked on next, read ahead: by a thread of its own into host memory that the device
 * reads where it is. What takes the time of a disk, of page faults and of decoding is over when the block begins. */
#ifndef MODEL_AHEAD_H
#define MODEL_AHEAD_H

#include "arch/block.h"
#include "formats/read/checkpoint_in.h"
#include "host/base/task.h"
#include "host/gpu/gpu_memory.h"

/* Zero-initialise. */
struct block_ahead {
    struct task task;
    const struct checkpoint *ck;
    uint32_t layer;
    struct block_shape shape;
    bool ready;              /* it is all there */
    struct gpu_arena *arena; /* of host memory */
    struct gpu_view *w;      /* [shape.n], by place: f16 or bf16 as stored, anything else as f32 */
    /* Is asked first, by the thread, and may refuse; NULL: nobody. */
    bool (*check)(void *ctx, uint32_t layer, struct err *e);
    void *ctx;
};
/* Bytes that a block takes so. */
uint64_t block_ahead_bytes(const struct checkpoint *ck, uint32_t layer, struct block_shape shape);
/* Begins to read a block. The device has ended what it did with the one before (gpu_cmd_finish). Where there is no memory to
 * spare for it nothing is begun. */
void block_ahead_begin(struct block_ahead *a, struct gpu *g, const struct checkpoint *ck, uint32_t layer,
                       struct block_shape shape);
/* Whether this block was begun. */
bool block_ahead_has(const struct block_ahead *a, uint32_t layer);
/* Waits for it. False: the check's error, or one of reading. */
bool block_ahead_wait(struct block_ahead *a, struct err *e);
void block_ahead_free(struct block_ahead *a);

#endif
