/* One 2-D weight of a model, and what becomes of it: decided once, then read by everything that computes, stores or writes. */
#ifndef FORMATS_MATRIX_H
#define FORMATS_MATRIX_H

#include "arch/block.h"
#include "formats/gguf/gguf_type.h"

#define MODULE_CAP 96
struct matrix {
    char module[MODULE_CAP];       /* Hugging Face name: "model.layers.0.self_attn.q_proj", "lm_head" */
    const struct block_part *part; /* what it is in its block; NULL: embedding or head */
    uint32_t layer, expert;
    uint32_t place;       /* among its layer's matrices (model_shape) */
    uint32_t number;      /* among those of all layers: keys its noise */
    bool embedding, head; /* what it is beside the blocks; a tied one is both */
    uint32_t rows, cols;
    uint32_t pieces;    /* of its rows, with a Hessian each (struct block_matrix); else 1 */
    uint64_t bytes;     /* in the model, with scales and zeros */
    const char *stored; /* what it is in the model: "F16", "Q4_K"; NULL: codes of a folder */
    /* What it is stored as, by GGUF's names, and what it would be if its rows were a multiple of that type's block. NULL in
     * a folder where it is coded, and where a folder is planned. */
    const struct gguf_type *type, *wanted;
    bool coded;                     /* as codes and scales; else it stays in 16 bits or, in a GGUF, is rounded */
    struct quant_spec spec;         /* if coded */
    const struct gguf_type *blocks; /* whose blocks the model has, where it has no codes (weight_info) */
    bool asked;                     /* a rule or an option of its own says what it becomes */
    bool
        copied; /* of a GGUF: not coded, but written as it is in the model, codes or blocks, or in a file that is refined */
};

/* Whether it is a linear: a matrix of a block. */
static inline bool matrix_is_linear(const struct matrix *x)
{
    return x->part != NULL;
}
/* Whether it takes fewer than 16 bits: coded, or rounded to a type of blocks. */
static inline bool matrix_quantized(const struct matrix *x)
{
    return x->coded || (x->type && x->type->block > 1);
}
/* "q_proj", "embed_tokens": the last word of its name. */
const char *matrix_kind(const struct matrix *x);

/* Those of one layer, by place. */
struct block_items {
    const struct matrix *items;
    uint32_t n;
};
/* Of a list of n that goes from layer to layer. */
struct block_items block_items_of(const struct matrix *items, size_t n, uint32_t layer);

#endif
