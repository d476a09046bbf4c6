/* One 2-D weight of a model, and what becomes of it: decided once, then read by everything that computes, stores or writes. */
#ifndef FORMATS_MATRIX_H
#define FORMATS_MATRIX_H

#include "arch/block.h"
#include "formats/quant_type.h"

struct matrix {
    char module[96];               /* Hugging Face name: "model.layers.0.self_attn.q_proj" */
    const struct block_part *part; /* what it is in its block */
    uint32_t layer;
    uint32_t place; /* among its layer's matrices (block_matrix) */
    uint32_t rows, cols;
    bool coded;             /* codes are made for it; else it stays in 16 bits or, in a GGUF, is rounded */
    bool rounded;           /* not coded, and rounded to a type of blocks as the GGUF is written */
    struct quant_spec spec; /* if coded */
};

#endif
