/* Inside the pass over scales: what it holds, made and read in scales_pass.c, worked with in tune_scales.c. */
#ifndef QUANT_SCALES_PASS_H
#define QUANT_SCALES_PASS_H

#include "host/model/block_bwd.h"
#include "host/model/head.h"
#include "host/quant/method/tune_scales.h"

/* No block is loaded. */
#define NONE UINT32_MAX

/* One quantized linear. */
struct entry {
    struct qmatrix q;         /* no scales; codes: no buffer where they do not stay on the device */
    struct gpu_view scales;   /* [n] what learns: scales as they are stored, with super-blocks d and -dmin of each */
    struct gpu_view integers; /* [n, per] with super-blocks: what d and -dmin are multiplied by, which stays */
    struct gpu_view m, v;     /* [n] Adam's moments */
    struct gpu_view size;     /* [n] what the rate is relative to: |scales| at the start, less at more bits */
    uint32_t n;               /* 0: the linear is kept in 16 bits */
    uint32_t per;             /* groups of a super-block, or 1 */
    float *best;              /* [n] scales, rounded */
};

/* What the matrices at one place of their blocks share. */
struct place {
    uint64_t code_bytes, grad_bytes; /* of the largest */
    struct gpu_view room;            /* for codes, where they do not all stay */
    struct gpu_view grad;            /* [rows, cols] of the weights */
    struct gpu_view codes;           /* of the block that is loaded */
};

struct pass {
    const struct scales_task *t;
    struct model *m;
    uint32_t layers, micro;
    uint32_t train, judge0, judges;   /* windows that teach: 0 .. train-1; that judge */
    uint32_t batch, per_epoch, steps; /* windows; steps */
    struct entry *entries;            /* [plan->n_items] */
    struct place *places;             /* [most] */
    uint32_t most;                    /* matrices of a block */
    struct gpu_view temp;             /* scales of one linear's groups, or their gradient */
    struct gpu_view temp_stored;      /* one linear's scales as they are stored: rounded, or their gradient */
    struct gpu_view *grads;           /* [most] of the weights of the block in work */
    struct block_weights w;           /* of the block that is loaded */
    uint64_t widest;                  /* bytes of the widest linear's scales */
    uint32_t loaded;                  /* that block with its scales of the moment; NONE: none, or others */
    struct block_scratch fwd;
    struct bwd_scratch bwd;
    struct head head;
    struct gpu_view x, h, dy;  /* [micro windows, ctx, hidden] */
    struct gpu_view logits[2]; /* [logit_rows, vocab]: student's, teacher's */
    uint32_t logit_rows;
    struct gpu_view kl, top1; /* [micro * ctx] */
    struct gpu_view sums;     /* [per_epoch + 1]: loss of each step, and what is measured */
    struct acts *kept;        /* [layers + 1][batch] windows: inputs of blocks, output of the last */
    uint32_t slots;           /* windows of kept */
    uint32_t *order, *ids;    /* [samples]; [micro * ctx] */
    float *host, *losses;     /* [widest entry]; [steps] */
    struct scales_state state;
    uint32_t step;           /* the one in work, for the hooks */
    float *const *grads_out; /* tune_scales_gradient: where gradients go instead of into Adam */
};

/* All of it, on device and host. pass_destroy: true with ok, unless the device failed late. */
bool pass_create(struct pass *p, const struct scales_task *t, struct err *e);
bool pass_destroy(struct pass *p, bool ok, struct err *e);
/* Codes of an item from the store. */
bool pass_upload_codes(struct pass *p, size_t item, struct gpu_view codes, struct err *e);
/* The scales of one linear's groups as they are, or rounded; good until the next call, or until p->temp is used. */
struct gpu_view pass_scales(const struct pass *p, const struct entry *x, bool rounded);
/* Scales of the store and no moments. */
bool pass_start(struct pass *p, struct err *e);
/* What an earlier run left behind its last finished epoch. */
bool pass_take_up(struct pass *p, struct err *e);
/* For the store: what it asks of a pass, ctx. */
const float *pass_pull(void *ctx, size_t item, enum scales_part part, struct err *e);
/* Rounded scales become the best so far. */
bool pass_keep_best(struct pass *p, struct err *e);

#endif
