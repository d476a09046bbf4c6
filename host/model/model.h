/* A model on the device: shapes, names, and one block at a time of its weights. Everything there is f32. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "arch/block.h"
#include "formats/read/checkpoint_in.h"
#include "formats/read/checkpoint_sum.h"
#include "host/gpu/gpu_cmd.h"
#include "host/model/ahead.h"

struct model {
    struct gpu *gpu;
    struct gpu_cmd *cmd;
    const struct checkpoint *ck;
    const struct model_config *cfg;
    const struct family *family;
    struct model_shape shape;
    uint32_t ctx;               /* window length this model was opened for */
    bool has_bias[ROLE_COUNT];  /* in any block */
    struct gpu_arena *arena;    /* what lives as long as the model */
    struct gpu_view rope_table; /* [ctx, rope_dim/2, 2] cos, sin */
    struct gpu_view rope_local; /* the same of layers that slide, where it is another; else empty */
    struct gpu_view rope_grown; /* the same of queries that grow within a window; else empty */
    struct gpu_view final_norm; /* [hidden] */
    struct gpu_view staging;    /* packed 16-bit weights on their way to f32 */
    struct block_ahead *ahead;  /* where a block is taken from that was read already; NULL: none is */
    void *host_tile;            /* a tile of rows that were dequantized or gathered on the host */
};

/* One block's parameters. A bias or norm that the model does not have is an empty view. */
struct block_weights {
    struct gpu_view rope, rope_q; /* table of its RoPE, that of queries; empty: it has none */
    uint32_t sliding;             /* positions a query sees in this block; 0: all before it */
    struct block_shape shape;     /* its matrices, without those of experts */
    struct gpu_view *w;           /* [shape.n], by place: [rows, cols] */
    struct gpu_view *bias;        /* [shape.n]: [rows] */
    struct gpu_view
        fixed[ROLE_COUNT]; /* norms [hidden] or [head_dim], routers [experts, hidden]; room for kv_b where it is two */
};
/* Room for the weights of a layer whose matrices have that shape, without contents; its window and RoPE. *out is zeroed, or from an earlier
 * call, whose lists are reused. Call block_weights_free in any case; it takes a zeroed struct too. */
bool block_weights_create(struct block_weights *out, const struct model *m, uint32_t layer, struct block_shape shape,
                          struct gpu_arena *arena, struct err *e);
/* Frees the lists; what they name is the arena's. */
void block_weights_free(struct block_weights *w);

/* Checks that every tensor the family needs is there with the right shape (all of them, before any work),
 * makes the RoPE table (with its scaling; computed in double) and loads the final norm. ctx
 * above the model's max_position is a warning. The checkpoint stays the caller's. */
bool model_open(struct model **out, struct gpu_cmd *cmd, const struct checkpoint *ck, uint32_t ctx, struct err *e);
/* The same checks without a device (gpu and cmd are NULL): shapes and names, nothing to compute with. */
bool model_describe(struct model **out, const struct checkpoint *ck, uint32_t ctx, struct err *e);
void model_close(struct model **m);
/* The matrices of a layer. */
struct block_shape model_block(const struct model *m, uint32_t layer);
/* Looks at every weight once: NaN or infinity is ERR_USER naming the module. sums (may be NULL) gets the checksums of
 * all tensors on the way. fn (may be NULL) is called with the share done, once per block; false stops with
  * ERR_STOPPED. Needs no device work. */
bool model_check_finite(const struct model *m, struct checkpoint_sums *sums, bool (*fn)(void *ctx, double done),
                        void *ctx, struct err *e);

/* Weights of a block's matrices that a token goes through: multiply-adds of its products, for each; those of the experts that
 * it chooses alone. */
double model_block_products(const struct model *m, uint32_t layer);
double model_expert_products(const struct model *m, uint32_t layer);
/* Bytes of the embedding or head in f32, [vocab, hidden]. */
uint64_t model_head_bytes(const struct model *m);
/* Streams block `layer` into the arena, from where it was read ahead if it was: raw 16-bit tensors go up and are widened by a kernel; quantized
 * linears are dequantized on the way. Does not wait. Mapped pages are given back to the system afterwards. *out as for
 * block_weights_create. */
bool model_load_block(struct model *m, uint32_t layer, struct gpu_arena *arena, struct block_weights *out,
                      struct err *e);
/* The same without the contents of its matrices: the caller fills them. */
bool model_load_block_frame(struct model *m, uint32_t layer, struct gpu_arena *arena, struct block_weights *out,
                            struct err *e);
/* Of that: norms, biases and what else is not quantized of a half, or of experts their router (HALF_EXPERTS). m may be another model of
 * the same shape than the one that *out was created for. */
bool model_load_half_frame(struct model *m, uint32_t layer, enum block_half half, struct block_weights *out,
                           struct err *e);
/* Rows [row0, row0 + rows) of any module into dst (f32). Walks tiles: dst may be larger than a bound view. A
 * dense tensor's pages are given back once its last row was read. */
bool model_load_matrix(struct model *m, const char *module, uint32_t row0, uint32_t rows, struct gpu_view dst,
                       struct err *e);
/* A module's bias [rows]; zeros where it has none. */
bool model_load_bias(struct model *m, const char *module, uint32_t rows, struct gpu_view dst, struct err *e);
/* Whether the file has a matrix in 16 bits; *kind: of shaders/limits.h. */
bool model_halves(const struct model *m, const char *module, uint32_t *kind);
/* Such a matrix as it is: rows * cols / 2 words. */
bool model_load_halves(struct model *m, const char *module, struct gpu_view dst, struct err *e);
struct stored_embedding;
/* Embedding rows of ids into dst[n, hidden]: gathered on the host, uploaded. stored: as an output will have them, all of these tokens
 * (stored_embedding.h); NULL: as the model has them. */
bool model_embed(struct model *m, const uint32_t *ids, size_t n, const struct stored_embedding *stored,
                 struct gpu_view dst, struct err *e);

#endif
