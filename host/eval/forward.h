/* Models over one text, forward: what evaluation and importance matrices are made of. Weights are streamed, a block at a
 * time; hidden states of all windows are where there is room for them.
 *
 *     forward_begin       the text as windows
 *     forward_models      on the device: what holds for all their blocks
 *     forward_open        hidden states and sizes, by what the device has left; a measurement where the whole takes long
 *     forward_blocks      one model, block by block; in each
 *         forward_block       its weights, and a walk over the windows begins
 *         forward_second_half
 *         forward_block_end   the layer's experts, if it has any
 *     forward_close
 */
#ifndef EVAL_FORWARD_H
#define EVAL_FORWARD_H

#include "host/model/experts.h"
#include "host/model/speed.h"
#include "host/model/walk.h"

struct forward_side {
    const char *label; /* "" or "reference ": in front of what is told of it */
    const struct checkpoint *ck;
    struct model *m;
    struct acts *acts;
    double seconds; /* in its blocks */
};

struct forward {
    /* Set by the caller. */
    struct gpu_cmd *cmd;
    const char *phase, *text; /* text: file */
    const char *const *texts; /* in its place calibration texts (windows_load_texts); n_texts 0: none */
    size_t n_texts;
    const struct windows *given; /* NULL: those of the text */
    uint32_t ctx, at_most;       /* tokens of a window; windows, 0: all */
    const char *spill_dir;       /* for hidden states that fit nowhere else */
    const struct progress *progress;
    struct forward_side side[2];
    int sides;
    bool
        deal; /* batches go to the ranks in turn (walk.h), and each has hidden states of its own alone; not with experts */
    /* Takes from the arenas what logits after the last block take, also of a copy of f whose arenas count. NULL: there
     * are none. */
    bool (*alloc_head)(const struct forward *f, struct err *e);
    /* As long as it is open. */
    struct windows w;
    uint32_t batch; /* windows */
    struct gpu_arena *scratch, *weights;
    struct block_scratch s;  /* in forward_blocks: of a batch */
    struct gpu_view staging; /* [batch * ctx, hidden] */
    struct block_weights b;  /* in a block */
    struct experts experts;  /* in forward_blocks, of a model that has them */
    bool experts_near;       /* what they read and give is on the device */
    uint64_t start_ns;
    struct eta eta;
    struct progress_watch watch;
    struct speed speed;
    char detail[64];
};

bool forward_begin(struct forward *f, struct err *e);
bool forward_models(struct forward *f, struct err *e);
bool forward_open(struct forward *f, struct err *e);
/* In any case, also after a failure. */
void forward_close(struct forward *f);

/* Embeddings, then each block by `block`, which must walk through it; memory is given back after the last. */
typedef bool forward_block_fn(void *ctx, struct forward *f, struct forward_side *s, uint32_t layer, struct err *e);
bool forward_blocks(struct forward *f, struct forward_side *s, forward_block_fn *block, void *ctx, struct err *e);
bool forward_block(struct forward *f, struct forward_side *s, uint32_t layer, struct walk *k, struct err *e);
bool forward_block_end(struct forward *f, const struct walk *k, struct err *e);
/* The second half of a block, in the walk that goes through the first: k->x becomes its output, or what it is without experts.
 * seen (may be NULL) hears that the half's inputs are in f->s. forward_block_end adds the experts. */
void forward_second_half(struct forward *f, struct forward_side *s, uint32_t layer, const struct walk *k,
                         void (*seen)(void *ctx, const struct walk *k), void *ctx);

/* A walk over all windows after the last block, with progress. acts NULL: of several. */
struct walk forward_walk(struct forward *f, struct acts *acts, const char *detail);
/* Tells without a walk. */
bool forward_tell(struct forward *f, const char *detail, struct err *e);
/* The logits of all sides: a piece of work. */
void forward_head_begin(struct forward *f);
void forward_head_end(struct forward *f);

#endif
