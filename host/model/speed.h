/* How long this device takes for blocks of a model: small slices of their kernels are measured, and what the whole would
 * record of each kernel is counted (gpu_cmd_count). Large shapes are never run. */
#ifndef MODEL_SPEED_H
#define MODEL_SPEED_H

#include "host/model/speed_bench.h"

/* Layers of one shape; seconds per window through half a block. */
struct speed_block {
    uint32_t layer; /* the first of them */
    double forward[HALF_COUNT];
    double backward[HALF_COUNT]; /* gradients of what is trained; 0: not measured */
    double experts;              /* forward through those that a token chooses */
};
/* One expert, as all of a model's are: seconds of a call, and besides of each of its tokens. */
struct speed_expert {
    double forward, forward_token;
    double backward, backward_token; /* gradients of its weights; 0: not measured */
};
/* Seconds. */
struct speed {
    bool measured;
    struct speed_block blocks[8];
    unsigned n_blocks;
    struct speed_expert expert; /* 0: there are none, or they were not measured */
    double gemm;                /* per multiply-add of a forward product */
    double load;                /* per weight, from the model's files to the device */
    double seconds;             /* that measuring took */
};
/* Of forward passes alone: blocks, gemm, load. `windows` at a time. */
bool speed_measure_forward(struct speed *s, struct model *m, uint32_t windows, struct err *e);
/* Its parts, for measuring more: blocks forward, of `all`; *slice: what was run in the end. Then backward, with
 * slices like that. Loading. */
bool speed_forward(struct speed_bench *b, struct speed *s, const struct speed_size *all, struct speed_size *slice,
                   struct err *e);
bool speed_backward(struct speed_bench *b, struct speed *s, const struct speed_size *all,
                    const struct speed_size *slice, struct err *e);
bool speed_load(struct speed_bench *b, struct speed *s, struct model *m, struct err *e);
/* Device memory that speed_backward takes. */
bool speed_backward_bytes(struct speed_bench *b, const struct speed_size *slice, uint64_t *bytes, struct err *e);
/* One expert over that many tokens at a time, forward and, where that is wanted, backward. */
bool speed_experts(struct speed_bench *b, struct speed *s, const struct speed_size *all, uint32_t tokens, bool backward,
                   struct err *e);
/* Device memory that this takes. */
bool speed_experts_bytes(struct speed_bench *b, const struct speed_size *all, uint32_t tokens, uint64_t *bytes,
                         struct err *e);
/* Takes from an arena that counts what that measures with at most, and gives it back; commands count, too. */
bool speed_count_forward(struct model *m, uint32_t windows, struct gpu_arena *counting, struct err *e);
/* NULL: not measured, or there were more shapes than fit. */
const struct speed_block *speed_block(const struct speed *s, const struct model *m, uint32_t layer);
/* Where nothing was measured: seconds of a multiply-add on such a device. */
double speed_guess(const struct gpu *g);
/* For eta_start: how far the measured speeds of kinds hold apart from each other; slices are slow or fast together,
 * mostly. Of what was guessed only ratios count. */
double speed_trust(const struct speed *s);

#endif
