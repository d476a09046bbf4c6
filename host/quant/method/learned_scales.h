/* The scales of all quantized linears as they learn, on the device, and the blocks that they and the codes make. With
 * super-blocks d and -dmin learn, and the integers stay. */
#ifndef QUANT_LEARNED_SCALES_H
#define QUANT_LEARNED_SCALES_H

#include "host/model/block_bwd.h"
#include "host/quant/method/qmatrix.h"
#include "host/quant/method/scales_task.h"

/* One quantized linear. */
struct scales_entry {
    struct qmatrix q;         /* no scales, no codes */
    struct gpu_view packed;   /* codes in their bits, where they stay on the device (unpack_codes) */
    struct gpu_view scales;   /* [n] what learns: scales as they are stored, with super-blocks d and -dmin of each */
    struct gpu_view integers; /* [n, per] with super-blocks: what d and -dmin are multiplied by, which stays */
    struct gpu_view m, v;     /* [n] Adam's moments */
    struct gpu_view size;     /* [n] what the rate is relative to: |scales| at the start, less at more bits */
    uint32_t n;               /* 0: the linear is kept in 16 bits */
    uint32_t per;             /* groups of a super-block, or 1 */
    float *best;              /* [n] scales, rounded */
};

/* What the matrices at one place of their blocks share. */
struct scales_place {
    uint64_t code_bytes, grad_bytes; /* of the largest */
    struct gpu_view room;            /* for codes of the block that is loaded */
    struct gpu_view grad;            /* [rows, cols] of the weights */
    struct gpu_view codes;           /* those: as many as the matrix has */
    float *sum;                      /* shared: gradients of this rank's rows, of the pieces so far */
};

struct learned_scales {
    const struct scales_task *t;
    struct scales_entry *entries; /* [n_items] */
    struct scales_place *places;  /* [most] */
    uint32_t most;                /* matrices of a block */
    struct gpu_view temp;         /* scales of one linear's groups, or their gradient */
    struct gpu_view temp_stored;  /* one linear's scales as they are stored: rounded, or their gradient */
    struct gpu_view *grads;       /* [most] of the weights of the block in work */
    struct block_weights w;       /* of the block that is loaded */
    uint32_t loaded;              /* that block with its scales of the moment; UINT32_MAX: none, or others */
    uint64_t widest;              /* bytes of the widest linear's groups' scales */
    float *host;                  /* [widest] */
    float *room;                  /* shared: share_room of the largest */
    bool parted;                  /* the step's windows are in pieces that ranks can share (end_to_end.h) */
    bool summed;                  /* the places have sums */
};

/* What lies on the device; the task's arena may count. */
bool learned_scales_alloc(struct learned_scales *s, const struct scales_task *t, struct err *e);
/* The rest. */
bool learned_scales_create(struct learned_scales *s, struct err *e);
void learned_scales_free(struct learned_scales *s);
/* Scales of the store and no moments. best: they are the best so far, too. */
bool learned_scales_start(struct learned_scales *s, bool best, struct err *e);
/* What an earlier run left after its last finished epoch. */
bool learned_scales_take_up(struct learned_scales *s, struct err *e);
/* For the store (scales_pull); ctx: the scales. */
const float *learned_scales_pull(void *ctx, size_t item, enum scales_part part, struct err *e);
/* Rounded, they become the best so far. */
bool learned_scales_keep_best(struct learned_scales *s, struct err *e);
/* Weights of a block by its scales as they are, or rounded, until the next is asked for; NULL: failed. */
const struct block_weights *learned_scales_block(struct learned_scales *s, uint32_t layer, bool rounded, struct err *e);
/* Of the block that is loaded: where gradients of its weights are added, all zero. */
struct block_grads learned_scales_grads(struct learned_scales *s, uint32_t layer);
/* end_to_end_blocks' sum: of gradients by the weights, each rank has its rows' (share.h). */
bool learned_scales_sum(struct learned_scales *s, uint32_t layer, unsigned have, bool first, struct err *e);
/* From these to the gradients of its scales, and a step of Adam on them: step t, from 0. out: gradients of item i go to
 * out[i] instead. */
bool learned_scales_learn(struct learned_scales *s, uint32_t layer, uint32_t t, float rate, float *const *out,
                          struct err *e);

#endif
