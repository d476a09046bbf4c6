/* What a transformer block is made of, as data: a list of parts for each layer. Names, shapes and inputs are said here
 * and nowhere else.
 *
 * A block of a Llama-shaped model, of width hidden:
 *
 *     x += o(attention(rope(q_norm(q(n))), rope(k_norm(k(n))), v(n)))      n = attn_norm(x)
 *     x += down(silu(gate(m)) * up(m))                                     m = ffn_norm(x) */
#ifndef ARCH_BLOCK_H
#define ARCH_BLOCK_H

#include "arch/family.h"

/* What a part does. */
enum role {
    ROLE_ATTN_NORM,
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_Q_NORM,
    ROLE_K_NORM,
    ROLE_O,
    ROLE_FFN_NORM,
    ROLE_GATE,
    ROLE_UP,
    ROLE_DOWN,
    ROLE_COUNT
};
enum part_kind { PART_MATRIX, PART_NORM };
/* Halves of a block: what is added to x first, and what second. */
enum block_half { HALF_ATTN, HALF_FFN, HALF_COUNT };
/* What a matrix reads: parts with the same input have the same Hessian. */
enum input {
    INPUT_ATTN,   /* the normed x of q, k and v */
    INPUT_HEADS,  /* attention's output, all heads */
    INPUT_FFN,    /* the normed x of gate and up */
    INPUT_MIDDLE, /* silu(gate) * up */
    INPUT_COUNT,
    INPUT_NONE = INPUT_COUNT /* of a norm */
};
/* Rows and columns, in words of a config. */
enum width { WIDTH_ONE, WIDTH_HIDDEN, WIDTH_HEAD, WIDTH_HEADS, WIDTH_KV_HEADS, WIDTH_MIDDLE };

struct block_part {
    enum role role;
    const char *hf;   /* behind "model.layers.N." */
    const char *gguf; /* behind "blk.N." */
    enum part_kind kind;
    enum block_half half;
    enum input input;
    enum width rows, cols;
    bool turned; /* RoPE turns its output: rows may be permuted in a GGUF, by heads of head_dim rows */
};

/* Every part that any family has, in the order of a file; NULL past the end. */
const struct block_part *block_part_at(size_t i);
const struct block_part *block_part_of(enum role role);
/* How many matrices a layer has. */
uint32_t block_matrices(const struct model_config *c, uint32_t layer);
/* The i-th matrix of a block, in the order in which they are quantized; NULL past the end. */
const struct block_part *block_matrix(size_t i);
/* By what stands behind the block's number, n bytes; NULL: none is called so. */
const struct block_part *block_part_named(const char *hf, size_t n);
const struct block_part *block_part_named_gguf(const char *name, size_t n);
/* "model.layers.3.self_attn.q_proj" into out (at least 96 bytes); returns out. */
const char *block_part_name(const struct block_part *p, uint32_t layer, char *out, size_t cap);
/* "q_proj": the last word of its name. */
const char *block_part_short_name(const struct block_part *p);
/* Whether blocks of this family have it. f NULL: of an unknown family, whose blocks have what all have. */
bool family_has(const struct family *f, const struct block_part *p);
/* Numbers in an input: columns of the matrices that read it. */
uint32_t input_width(enum input in, const struct model_config *c);
/* Rows and columns; a norm is one row. */
uint32_t block_part_rows(const struct block_part *p, const struct model_config *c);
uint32_t block_part_cols(const struct block_part *p, const struct model_config *c);

#endif
