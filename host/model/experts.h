/* The experts of a layer, over the tokens of many windows: each expert is loaded once and goes through the tokens that chose it.
 *
 *     experts_begin               after attention, batch by batch: the normed inputs and the router's logits
 *     experts_take
 *     experts_sort                who goes where: by expert, tokens in ascending order
 *     for each expert
 *         experts_load            its weights, where the caller has no others
 *         experts_run             gather, gate, up, down; y[token] += weight * output
 *     experts_add                 batch by batch: the sums to the hidden states
 *
 * The order of the experts is the order of a token's sum; product and sum are rounded each, so that it does not matter who
 * computed the outputs. */
#ifndef MODEL_EXPERTS_H
#define MODEL_EXPERTS_H

#include "host/model/block_fwd.h"

struct experts {
    struct model *m;
    uint32_t layer, tokens, most; /* tokens that were taken, of at most */
    bool near;                    /* x and y are on the device, else in host memory that it reaches */
    bool beside;                  /* experts_create_beside */
    struct gpu_arena *host;
    /* [n_chunks], each of per_chunk tokens, since one binding may not hold them all. */
    uint32_t per_chunk, n_chunks;
    struct gpu_view *x, *y; /* [tokens, hidden]: what experts read; sums of what they give */
    struct gpu_view *lost;  /* [tokens, hidden] of one beside another: what the other's hidden states have lost */
    struct gpu_view *z;     /* [tokens, experts], host memory */
    struct gpu_view z_batch;
    struct gpu_view index, weight; /* [tokens * used], by expert: u32 and f32 */
    /* Of one expert: its weights, and a tile of its tokens. */
    struct gpu_view w[EXPERT_MATRICES];
    struct gpu_view bias[EXPERT_MATRICES]; /* empty: the family's have none */
    uint32_t tile;
    struct gpu_view in, gate, up, out;
    /* Hears what one has read: `rows` of x->in and, for down, of x->gate. NULL: nobody does. */
    void (*seen)(void *ctx, struct experts *x, uint32_t expert, uint32_t rows);
    void *seen_ctx;
    uint32_t sample; /* entries behind those of the experts: tokens that stand for all (experts_sample) */
    /* The same lists on the host. Expert i has entries start[i] .. start[i + 1] - 1. */
    uint32_t *start, *rows;
    float *share;
    uint16_t *ids;
    float *weights;
};

/* Room for that many windows, taken `batch` at a time, from the arena, which is reset by the caller; near: also for x and y,
 * else they are in host memory. *x is zeroed before; experts_free in any case. */
bool experts_create(struct experts *x, struct gpu_arena *arena, struct model *m, uint32_t windows, uint32_t batch,
                    bool near, struct err *e);
/* A second one beside `first`: the same windows on other hidden states. Rows, routes, sums, biases and x->out are its own; logits, weights
 * and the other tiles are those of `first`, which is freed after it. So one is taken and sorted after the other, and what is
 * loaded into one is there for both, but for biases. */
bool experts_create_beside(struct experts *x, const struct experts *first, struct gpu_arena *arena, struct err *e);
/* The device has ended its work with it (gpu_cmd_finish). */
void experts_free(struct experts *x);

void experts_begin(struct experts *x, uint32_t layer);
/* The next windows' hidden states h, in front of the second half; s->norm is written. */
void experts_take(struct experts *x, const struct block_weights *b, const struct block_scratch *s, struct gpu_view h,
                  uint32_t windows);
/* Waits for the device. */
bool experts_sort(struct experts *x, struct err *e);
/* How many tokens stand for all of a layer's where not all are needed. */
uint32_t experts_sample_tokens(const struct model *m);
/* Behind all experts' entries: at most so many tokens of each part, first .. end - 1 and end .. the last, evenly spaced; *split:
 * where those of the second begin. Returns the first entry; the end is that and x->sample. */
uint32_t experts_sample(struct experts *x, uint32_t end, uint32_t *split);
/* Inputs of tokens first .. end - 1 into `to`, at most a tile; returns how many. */
uint32_t experts_inputs(struct experts *x, uint32_t first, uint32_t end, struct gpu_view to);
/* Tokens that chose an expert. */
uint32_t experts_tokens(const struct experts *x, uint32_t expert);
bool experts_load(struct experts *x, uint32_t expert, struct err *e);
/* Its biases alone, where the family's have some, from a model of the same shape. */
bool experts_load_biases(struct experts *x, struct model *from, uint32_t expert, struct err *e);
/* Inputs of entries at .. of an expert into x->in, as many as a tile and a chunk hold, at most up to `end`; returns how many. */
uint32_t experts_gather(struct experts *x, uint32_t at, uint32_t end);
/* Of the same entries, `rows` as experts_gather has counted them, what is theirs in `chunks`, x or lost of this one or of one beside it,
 * into to[rows, hidden]. */
void experts_gather_from(struct experts *x, const struct gpu_view *chunks, uint32_t at, uint32_t rows,
                         struct gpu_view to);
/* Of a token, the sum of its experts' weights: the mean over all tokens. */
double experts_mean_weight(const struct experts *x);
/* x->gate <- silu(gate in) * up in of so many tokens, then x->out <- down of it. */
void experts_middle(struct experts *x, const struct gpu_view w[EXPERT_MATRICES], uint32_t rows, bool steering);
void experts_down(struct experts *x, const struct gpu_view w[EXPERT_MATRICES], uint32_t rows, bool steering);
void experts_run(struct experts *x, uint32_t expert, const struct gpu_view w[EXPERT_MATRICES], bool steering);
/* h[windows from number `first` on] += y; s->norm is written. */
void experts_add(struct experts *x, const struct block_scratch *s, struct gpu_view h, uint32_t first, uint32_t windows);
/* lost[windows from number `first` on, hidden], of one beside another. */
void experts_put_lost(struct experts *x, struct gpu_view lost, uint32_t first, uint32_t windows);
/* All experts as they are in the model. */
bool experts_all(struct experts *x, bool steering, struct err *e);

#endif
