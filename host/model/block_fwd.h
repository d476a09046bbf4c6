/* Forward pass of one transformer block over whole windows, in two halves, with the inputs of every linear
 * left in scratch, for gathering statistics. */
#ifndef MODEL_BLOCK_FWD_H
#define MODEL_BLOCK_FWD_H

#include "host/model/model.h"

/* Windows that grow by a position at a time, ctx being 1: what positions 0 .. at gave of a block, `at` being the one that comes. */
struct attn_past {
    struct gpu_view keys, values; /* [positions, windows, kv_heads, head_dim]; one binding holds them */
    uint32_t at;
};
/* Scratch for at most max_windows windows. T = windows * ctx. */
struct block_scratch {
    uint32_t max_windows;
    struct gpu_view norm; /* [T, hidden]: input of q, k, v after block_attn_fwd; of gate, up after block_ffn_fwd */
    struct gpu_view q_a, kv_a, pe,
        kv;                  /* of multi-head latent attention: [T, q_rank], [T, kv_rank], [T, turned], [T, heads *
                                          (nope + values)]; kv: then its output, [T, heads * values] */
    struct gpu_view q, k, v; /* [T, heads|kv * head_dim] */
    struct gpu_view mixed;   /* [T, rows of ROLE_DELTA_MIXED or ROLE_Q_GATE] */
    struct gpu_view conv, z, beta,
        alpha;             /* of the gated delta rule: [T, q and k and v] behind the convolution, [T, v], [T, heads] */
    struct gpu_view attn;  /* [T, heads * head_dim], or of the gated delta rule [T, v] */
    struct gpu_view heads; /* the input of o: attn, or of latent attention kv */
    struct gpu_view lse;   /* [T, heads] */
    struct gpu_view lse_positions;     /* the same without the sinks of a family that has them */
    struct gpu_view gate, up;          /* [T, intermediate] */
    struct gpu_view act;               /* [T, intermediate]: input of down */
    struct gpu_view added[HALF_COUNT]; /* [T, hidden]: what a half adds, before its norm, where the family has one */
    struct attn_past past;             /* set by the caller; empty: windows are whole */
    bool steering; /* for calibration or gradients, no loss that decides or is told: operands may be rounded to 11
                                 bits, in products (GEMM_STEERING) and attention */
    struct gpu_view share, shared; /* [T], [T, hidden] of a shared expert that is weighted */
    struct gpu_view q_raw, k_raw;  /* [T, heads|kv * head_dim] before the q/k norms, where a backward pass needs them */
};
/* Forward alone: act takes gate's memory, q and k are normed in place. For training they are kept apart;
 * of one half alone, or of an expert, what others fill is left out. */
enum scratch_use { SCRATCH_FORWARD, SCRATCH_TRAIN, SCRATCH_TRAIN_ATTN, SCRATCH_TRAIN_FFN, SCRATCH_TRAIN_EXPERT };
bool block_scratch_create(struct block_scratch *s, struct gpu_arena *arena, const struct model *m, uint32_t windows,
                          enum scratch_use use, struct err *e);
/* How many windows of forward scratch fit the given bytes (UINT64_MAX: any) and the view limit (each scratch matrix
 * within max_range), at least 1: counted. */
uint32_t block_scratch_windows(const struct model *m, uint64_t bytes, uint32_t at_most);

/* y[rows, cols] = x * w / rms(x), also in place; walks row tiles. */
void block_rmsnorm(struct model *m, struct gpu_view x, struct gpu_view w, struct gpu_view y, uint32_t rows,
                   uint32_t cols);

/* Where block_attn_inputs or block_ffn_inputs leaves an input of its half. Of pieces block_queries puts the inputs there first,
 * piece by piece, each at a multiple of block_queries_bytes; s->k is used up. */
struct gpu_view block_input(const struct block_scratch *s, enum input in);
void block_queries(struct model *m, const struct block_scratch *s, uint32_t windows);
uint64_t block_queries_bytes(const struct model *m, uint32_t windows);
/* The inputs of every linear of a half, left in scratch: norm and attn, or norm and act. x and h are only
 * read. */
void block_attn_inputs(struct model *m, const struct block_weights *b, const struct block_scratch *s, struct gpu_view x,
                       uint32_t windows);
/* Of these the first alone: s->norm, as the half leaves it. */
void block_half_norm(struct model *m, enum block_half half, const struct block_weights *b,
                     const struct block_scratch *s, struct gpu_view x, uint32_t windows);
void block_ffn_inputs(struct model *m, const struct block_weights *b, const struct block_scratch *s, struct gpu_view h,
                      uint32_t windows);
/* h[T, hidden] = x + o(attention(norm(x))), what is added normed where the family does. x and h may be the same view. */
void block_attn_fwd(struct model *m, const struct block_weights *b, const struct block_scratch *s, struct gpu_view x,
                    struct gpu_view h, uint32_t windows);
/* y[T, hidden] = h + down(silu(gate(norm(h))) * up(norm(h))). h and y may be the same view. */
void block_ffn_fwd(struct model *m, const struct block_weights *b, const struct block_scratch *s, struct gpu_view h,
                   struct gpu_view y, uint32_t windows);

/* What block_ffn_fwd leaves in s->added behind block_ffn_inputs, for a pass back. Nothing, where the family does not norm it. */
void block_ffn_added(struct model *m, const struct block_weights *b, const struct block_scratch *s, uint32_t windows);

/* The same by half. */
void block_half_inputs(struct model *m, enum block_half half, const struct block_weights *b,
                       const struct block_scratch *s, struct gpu_view x, uint32_t windows);
void block_half_fwd(struct model *m, enum block_half half, const struct block_weights *b, const struct block_scratch *s,
                    struct gpu_view x, struct gpu_view y, uint32_t windows);

#endif
