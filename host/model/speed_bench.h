/* Pieces of work that are timed at a small size and counted at their full one. */
#ifndef MODEL_SPEED_BENCH_H
#define MODEL_SPEED_BENCH_H

#include "formats/read/matrix.h"
#include "host/gpu/kernels.h"
#include "host/model/model.h"

/* 0.01. The speed of products and activations does not depend on values, as long as they are ordinary. */
#define SPEED_FILL 0x3c23d70au

/* A device that is busy elsewhere, or whose clock stands still, is not waited for longer than so many budgets. */
#define SPEED_WAIT_MOST 5

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
    bool steering;       /* forward passes are a calibration's (struct block_scratch) */
    struct gpu_cmd *cmd;
    struct gpu_arena *arena, *counting;
    struct gpu_count memory; /* that the counting arena counts */
    uint64_t since;          /* when measuring began */
    uint64_t budget_ns;      /* of device time for each piece; 0: it is recorded once, with what makes it ready */
    /* Of the piece in work (speed_again). */
    bool timed, warm;
    uint32_t recorded,
        count_down; /* repetitions since the clock began, and of them those still to come before it is read */
    uint64_t begin;
};
bool speed_begin(struct speed_bench *b, struct model *m, struct err *e);
/* ok: all was measured. *seconds: that it took. */
bool speed_end(struct speed_bench *b, bool ok, double *seconds, struct err *e);

/* Something that is recorded, at any size. The arena is for it alone. */
typedef bool (*speed_piece)(struct speed_bench *b, struct gpu_arena *arena, const struct speed_size *z, struct err *e);
/* For pieces: operands are ready. Then `while (ok && speed_again(b, &ok, e))` around what is measured: true, until it was
 * recorded often enough; *ok false: it failed. It must do the same each time. */
bool speed_ready(struct speed_bench *b, struct err *e);
bool speed_again(struct speed_bench *b, bool *ok, struct err *e);
/* Measures a piece at a small size: once to warm up (pipelines, memory never touched, clocks), then until the budget is used.
 * *seconds: what one repetition took. */
bool speed_time(struct speed_bench *b, speed_piece run, const struct speed_size *z, struct speed_rates *r,
                double *seconds, struct err *e);
/* Seconds of a piece at any size, by counting. */
bool speed_predict(struct speed_bench *b, speed_piece run, const struct speed_size *z, const struct speed_rates *r,
                   double *seconds, struct err *e);

struct speed_size speed_size_whole(const struct model *m, uint32_t windows);
#endif
