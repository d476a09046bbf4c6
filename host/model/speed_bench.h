/* Pieces of work that are timed at a small size and counted at their full one. */
#ifndef MODEL_SPEED_BENCH_H
#define MODEL_SPEED_BENCH_H

#include "formats/read/matrix.h"
#include "host/gpu/kernels.h"
#include "host/model/model.h"

/* 0.01. The speed of products and activations does not depend on values, as long as they are ordinary. */
#define SPEED_FILL 0x3c23d70au

/* Seconds per unit of each kernel's work, and for each dispatch beside that. */
struct speed_rates {
    double kernel[KERNEL_COUNT], dispatch;
};

/* Sizes of a piece: of a block's, or of a linear's. */
struct speed_size {
    struct model model; /* shapes and ctx; of a slice, a copy with a smaller ctx */
    struct model_config config;
    uint32_t layer; /* of a block */
    enum block_half half;
    uint32_t windows;
    const struct matrix *item;
    uint32_t rows, cols; /* of the item */
    uint32_t inner;      /* columns of the Hessian that a step's product takes */
};

struct speed_bench {
    const void *options; /* for pieces that need some */
    bool train_qk;       /* backward passes have gradients of what is turned, too */
    struct gpu_cmd *cmd;
    struct gpu_arena *arena, *counting;
    struct gpu_count count;
    uint64_t since; /* when measuring began */
    uint64_t begin; /* of the run that is timed: recorded pieces set it when their operands are ready */
};
bool speed_begin(struct speed_bench *b, struct model *m, struct err *e);
/* ok: all was measured. *seconds: that it took. */
bool speed_end(struct speed_bench *b, bool ok, double *seconds, struct err *e);

/* Something that is recorded, at any size. The arena is for it alone. */
typedef bool (*speed_piece)(struct speed_bench *b, struct gpu_arena *arena, const struct speed_size *z, struct err *e);
/* For pieces: operands are ready, the clock begins. */
bool speed_ready(struct speed_bench *b, struct err *e);
/* Runs a piece at a small size; *seconds: what it took. */
bool speed_time(struct speed_bench *b, speed_piece run, const struct speed_size *z, struct speed_rates *r,
                double *seconds, struct err *e);
/* Seconds of a piece at any size, by counting. */
bool speed_predict(struct speed_bench *b, speed_piece run, const struct speed_size *z, const struct speed_rates *r,
                   double *seconds, struct err *e);

struct speed_size speed_size_whole(const struct model *m, uint32_t windows);
#endif
