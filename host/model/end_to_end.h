/* The whole model end to end: a batch of windows through all blocks to the divergence of its logits from a teacher's, and
 * back to the gradients of the blocks' weights. Blocks are loaded one at a time, by the caller's functions.
 *
 *     forward    block by block, each block's input kept
 *     head       logits of both models in tiles of rows; loss, gradient of the hidden states
 *     backward   blocks from last to first: forward again, then its weights' gradients
 *
 * Every position of a window counts, the last one too: no next token is needed.
 *
 * Without a teacher the loss is that of labels drawn from the model's own predictions: what its gradients' squares are on
 * average is the curvature of the divergence at this model (the Fisher information).
 *
 * Of several ranks (comm.h) each takes some pieces of a batch, `micro` windows, there and back: nothing of a window is of use to
 * another. What is a sum over windows, gradients of weights, the caller brings together piece by piece, in their order. */
#ifndef MODEL_END_TO_END_H
#define MODEL_END_TO_END_H

#include "host/base/comm.h"
#include "host/model/acts.h"
#include "host/model/block_bwd.h"
#include "host/model/head.h"

struct end_to_end_blocks {
    void *ctx;
    /* A block's weights, until the next is asked for; NULL: failed. */
    const struct block_weights *(*load)(void *ctx, uint32_t layer, struct err *e);
    /* Of the block that is loaded: where gradients are added, all zero. */
    struct block_grads (*grads)(void *ctx, uint32_t layer);
    /* Shared: each of the ranks 0 .. have - 1 has those of one piece, which are to be added to what there is of the pieces before, or are
     * the first. The next piece's take their place. */
    bool (*sum)(void *ctx, uint32_t layer, unsigned have, bool first, struct err *e);
    /* They are whole. */
    bool (*learn)(void *ctx, uint32_t layer, struct err *e);
    /* Are told on the way back, window by window, and record what is done with it; NULL: nobody is. Of the block that is loaded: what
     * its matrices read, in s (block_input). */
    void (*inputs)(void *ctx, enum block_half half, const struct block_scratch *s, uint32_t windows);
    /* Without a teacher: what the head reads, normed, and the gradient of what it gives, [rows, vocab]. */
    void (*head)(void *ctx, struct gpu_view x, struct gpu_view dlogits, uint32_t rows);
    /* The gradient of the first block's input. */
    void (*embedding)(void *ctx, struct gpu_view dx, uint32_t windows);
};

struct end_to_end {
    struct model *m;
    struct end_to_end_blocks blocks;
    const struct windows *windows;
    struct acts *targets; /* of all windows: the teacher's hidden states after its last block; NULL: there is none */
    uint32_t seed;        /* of the labels, where there is none */
    uint32_t micro, batch;
    bool shared;       /* among ranks, where a batch is more than one piece */
    struct acts *kept; /* [layers + 1][batch] windows: inputs of blocks, output of the last */
    struct block_scratch fwd;
    struct bwd_scratch bwd;
    struct head head;
    struct gpu_view x, h, dy;  /* [micro windows, ctx, hidden] */
    struct gpu_view logits[2]; /* [logit_rows, vocab]: student's, teacher's */
    uint32_t logit_rows;
    struct gpu_view kl, top1; /* [micro * ctx] */
};
/* Windows of blocks' inputs that a batch keeps. */
uint32_t end_to_end_windows(const struct model *m, uint32_t batch);
/* All device memory but these; micro: windows at a time; head_stays: of head.h. The arena may count. */
bool end_to_end_alloc(struct end_to_end *w, struct gpu_arena *arena, struct model *m, uint32_t micro, bool head_stays,
                      struct err *e);
/* The rest. Blocks, windows and targets are the caller's to set. */
bool end_to_end_create(struct end_to_end *w, uint32_t batch, const struct acts_options *room, struct err *e);
void end_to_end_free(struct end_to_end *w);
/* Where a loss is added: sums[at] += factor * the divergence, summed over all positions. */
struct end_to_end_loss {
    struct gpu_view sums;
    uint32_t at;
    float factor;
};
/* The loss of windows list[0..n); n: at most end_to_end_windows. */
bool end_to_end_forward(struct end_to_end *w, const uint32_t *list, uint32_t n, const struct end_to_end_loss *to,
                        struct err *e);
/* The same, then the way back: each block, from last to first, gets its gradients and learns. n: at most a batch. Without a
 * teacher a loss is not told: to->factor alone counts, each position's gradient times that. */
bool end_to_end_step(struct end_to_end *w, const uint32_t *list, uint32_t n, const struct end_to_end_loss *to,
                     struct err *e);
/* Window i of n that are spread over the first `train` of a text. */
static inline uint32_t end_to_end_spread(uint32_t i, uint32_t n, uint32_t train)
{
    return (uint32_t)((uint64_t)i * train / n);
}
/* end_to_end_create, then one step without a teacher over n such windows. Blocks and windows are set. */
bool end_to_end_sampled(struct end_to_end *w, uint32_t n, uint32_t train, uint64_t seed,
                        const struct acts_options *room, struct err *e);

/* Whether a batch of n windows is in several pieces, which ranks can share. */
bool end_to_end_parts(const struct model *m, uint32_t micro, uint32_t n);
/* What ranks exchange of such a batch beside what the caller sums: losses, of one with a teacher. rounds: how often it sums in a block,
 * and of how many ranks' pieces the last time. */
void end_to_end_expect(struct comm_expected *x, const struct model *m, uint32_t micro, uint32_t n, uint64_t times);
uint32_t end_to_end_rounds(uint32_t micro, uint32_t n, unsigned ranks, unsigned *last);
#endif
