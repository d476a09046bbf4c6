/* Backward pass of one transformer block over whole windows, in the two halves of block_fwd.h: from the
 * gradient of a half's output to those of its weights and of its input. Activations are what the forward pass
 * left in a scratch made for training; the T x T scores of attention are computed again, never stored. */
#ifndef MODEL_BLOCK_BWD_H
#define MODEL_BLOCK_BWD_H

#include "host/model/block_fwd.h"

/* What a backward pass has to find; adds up. */
enum {
    BWD_ATTN = 1,  /* gradients of v, o */
    BWD_QK = 2,    /* of q, k */
    BWD_FFN = 4,   /* of gate, up, down */
    BWD_INPUT = 8, /* of the half's input */
};

/* Gradients of weights, by place, [rows, cols] as the weights. An empty view is not computed. */
struct block_grads {
    struct gpu_view *w;
    bool add; /* what a pass finds is added to what they hold; else they need hold nothing */
    /* Is told of the gradient dy[tokens, rows] of what rows [row0, row0 + rows) of a matrix give, and records what is done with
     * it. w may be NULL then. NULL: it is for the weights alone. */
    void (*outputs)(void *ctx, uint32_t place, uint32_t row0, uint32_t rows, struct gpu_view dy, uint32_t tokens);
    void *ctx;
};

/* Scratch for at most max_windows windows. T = windows * ctx. */
struct bwd_scratch {
    uint32_t max_windows;
    struct gpu_view dnorm;      /* [T, hidden]: gradient of a norm's output */
    struct gpu_view dattn;      /* [T, heads * head_dim]: gradient of attn */
    struct gpu_view dq, dk, dv; /* [T, heads|kv * head_dim] */
    struct gpu_view delta;      /* [T, heads]: dout . out of each head */
    struct gpu_view dadded;     /* [T, hidden]: gradient of what a half adds, before its norm */
};
/* parts: BWD_ values that passes with this scratch may find. */
bool bwd_scratch_create(struct bwd_scratch *s, struct gpu_arena *arena, const struct model *m, uint32_t windows,
                        unsigned parts, struct err *e);

/* dy[rows, cols] is turned from the gradient of block_rmsnorm's y into that of its x; walks row tiles. */
void block_rmsnorm_bwd(struct model *m, struct gpu_view x, struct gpu_view w, struct gpu_view dy, uint32_t rows,
                       uint32_t cols);

/* After block_attn_fwd of the same x (it must not have been overwritten) and windows, s->norm being what that left
 * (block_attn_norm). dy[T, hidden] is dLoss/dh; where want_input, it is turned into dLoss/dx. */
void block_attn_bwd(struct model *m, const struct block_weights *b, const struct block_scratch *s,
                    const struct bwd_scratch *bs, struct gpu_view x, struct gpu_view dy, bool want_input,
                    const struct block_grads *grads, uint32_t windows);
/* After block_ffn_fwd of the same h; s->gate, s->up, s->act are used up: act holds
 * its own gradient, then gate's. Where a shared expert is weighted, want_input is false. */
void block_ffn_bwd(struct model *m, const struct block_weights *b, const struct block_scratch *s,
                   const struct bwd_scratch *bs, struct gpu_view h, struct gpu_view dy, bool want_input,
                   const struct block_grads *grads, uint32_t windows);
/* The same by half. */
void block_half_bwd(struct model *m, enum block_half half, const struct block_weights *b, const struct block_scratch *s,
                    const struct bwd_scratch *bs, struct gpu_view x, struct gpu_view dy, bool want_input,
                    const struct block_grads *grads, uint32_t windows);

#endif
