/* What a transformer block is made of, as data: a list of parts for each layer. Names, shapes and inputs are said here
 * and nowhere else.
 *
 * A block of a Llama-shaped model, of width hidden:
 *
 *     x += o(attention(rope(q_norm(q(n))), rope(k_norm(k(n))), v(n)))      n = attn_norm(x)
 *     x += down(silu(gate(m)) * up(m))                                     m = ffn_norm(x)
 *
 * Other families norm what a half adds (attn_post_norm, ffn_post_norm), with or without a norm of its input.
 *
 * Where attention is latent (MLA), q, k and v come through matrices of a low rank, and RoPE's part of k is one for all heads:
 *
 *     q = q_b(q_a_norm(q_a(n)))     c, k_rope = kv_a(n)     each head's k and v = kv_b(kv_a_norm(c))
 *
 * where some models have one matrix for q.
 *
 * Where a layer has the gated delta rule in place of attention, whose state S of each head begins with zeros:
 *
 *     q, k, v = silu(conv(mixed(n)))     z, b, a = z(n), beta(n), alpha(n)     q and k of length 1
 *     S = S * exp(rate softplus(a + bias));  S += k (sigmoid(b) (v - S^T k))^T     x += o(rms(S^T q / sqrt(dim)) * silu(z))
 *
 * Where the second half is a choice of experts, each of which is down(silu(gate) * up) of its own:
 *
 *     x += shared(m) + sum of weight_e * expert_e(m) over the experts e that the router chose for the token */
#ifndef ARCH_BLOCK_H
#define ARCH_BLOCK_H

#include "arch/family.h"

/* What a part does. */
enum role {
    ROLE_ATTN_NORM,
    ROLE_QKV,
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_Q_NORM,
    ROLE_K_NORM,
    ROLE_SINKS, /* a score of each head that no position has */
    ROLE_O,
    ROLE_ATTN_POST_NORM,
    ROLE_FFN_NORM,
    ROLE_GATE_UP,
    ROLE_GATE,
    ROLE_UP,
    ROLE_DOWN,
    ROLE_FFN_POST_NORM,
    ROLE_ROUTER,
    ROLE_ROUTER_BIAS,
    ROLE_SHARED_GATE,
    ROLE_Q_WHOLE, /* of latent attention: q as one matrix, in place of the next three */
    ROLE_Q_A,
    ROLE_Q_A_NORM,
    ROLE_Q_B,
    ROLE_KV_A,
    ROLE_KV_A_NORM,
    ROLE_KV_B,
    ROLE_K_B, /* the same as the two of a GGUF (mla_config.split): of each head k's part, transposed, and v's */
    ROLE_V_B,
    ROLE_VALUES_O,    /* o of heads whose v has a width of its own */
    ROLE_Q_GATE,      /* q, and the gate of what attention gives, head by head */
    ROLE_DELTA_MIXED, /* of the gated delta rule: q, k, v; where all lies by key head z too */
    ROLE_DELTA_Z,
    ROLE_DELTA_BETA, /* where all lies by key head, ALPHA too */
    ROLE_DELTA_ALPHA,
    ROLE_DELTA_CONV,
    ROLE_DELTA_RATE, /* on the device -exp(A_log) */
    ROLE_DELTA_BIAS,
    ROLE_DELTA_NORM,
    ROLE_DELTA_O,
    ROLE_COUNT
};
enum part_kind {
    PART_MATRIX,
    PART_NORM,
    PART_ROUTER, /* a matrix that decides, or a small one: it stays as it is, f32 in a GGUF */
    PART_VECTOR /* the same of a vector, whose Hugging Face name has no ".weight" behind it, and whose GGUF name is whole */
};
/* Halves of a block: what is added to x first, and what second. Experts belong to neither: they are gone through one by
 * one, each with its own tokens, and the second half of their layer is what all tokens go through: the shared expert. */
enum block_half { HALF_ATTN, HALF_FFN, HALF_COUNT, HALF_EXPERTS = HALF_COUNT };
/* What a matrix reads: parts with the same input have the same Hessian. */
enum input {
    INPUT_ATTN,      /* the normed x of q, k and v */
    INPUT_Q_LATENT,  /* what q_a gives, normed */
    INPUT_KV_LATENT, /* what kv_a gives without RoPE's part, normed */
    INPUT_QUERIES,   /* q of each head without RoPE's part: pieces of a matrix have inputs of their own */
    INPUT_HEADS,     /* attention's output, all heads */
    INPUT_FFN,       /* the normed x of gate and up */
    INPUT_MIDDLE,    /* silu(gate) * up */
    INPUT_COUNT,
    INPUT_NONE = INPUT_COUNT /* of a norm, or the same as another's: an expert's are those of its tokens */
};
/* Rows and columns, in words of a config. */
enum width {
    WIDTH_ONE,
    WIDTH_HIDDEN,
    WIDTH_HEAD,
    WIDTH_HEAD_COUNT,
    WIDTH_HEADS,
    WIDTH_KV_HEADS,
    WIDTH_QKV,
    WIDTH_MIDDLE,
    WIDTH_TWO_MIDDLES,
    WIDTH_EXPERT,
    WIDTH_SHARED,
    WIDTH_TWO_SHARED,
    WIDTH_EXPERTS,
    WIDTH_Q_RANK, /* of multi-head latent attention */
    WIDTH_KV_RANK,
    WIDTH_KV_A, /* kv_rank and RoPE's part of k */
    WIDTH_KV_B, /* of all heads: k without that part, and v */
    WIDTH_K_B,  /* kv_rank for each head */
    WIDTH_NOPE,
    WIDTH_VALUES, /* v of all heads */
    WIDTH_TWO_HEADS,
    WIDTH_DELTA_MIXED, /* of the gated delta rule: q, k and v */
    WIDTH_DELTA_ALL,   /* and z */
    WIDTH_DELTA_VALUES,
    WIDTH_DELTA_VALUE,
    WIDTH_DELTA_HEADS,
    WIDTH_DELTA_TWO_HEADS,
    WIDTH_DELTA_TAPS
};

struct block_part {
    enum role role;
    const char *hf;   /* what follows "layers.N."; an expert's number stands for '*' */
    const char *gguf; /* what follows "blk.N."; all experts of a layer are one tensor */
    enum part_kind kind;
    enum block_half half;
    enum input input;
    enum width rows, cols;
    bool turned;      /* RoPE turns its output: rows may be permuted in a GGUF, by heads of head_dim rows */
    unsigned of;      /* families whose parts have one of these (PARTS_) have it; 0: all do */
    unsigned without; /* but those that have one of these */
};
static inline bool block_part_is_expert(const struct block_part *p)
{
    return p->half == HALF_EXPERTS && p->kind == PART_MATRIX;
}
/* One of two matrices that are one in a folder: kv_b. */
static inline bool block_part_is_split(const struct block_part *p)
{
    return p->role == ROLE_K_B || p->role == ROLE_V_B;
}

/* Every part that any family has, in the order of a file; NULL past the end. Some have the same role, or the same name. */
const struct block_part *block_part_at(size_t i);
/* The first with that role: what most families have, in layers without experts. */
const struct block_part *block_part_of(enum role role);
/* The part of that name in a family: the n bytes that follow the block's number. *expert (may be NULL): whose it is, or 0. NULL:
 * there is none. f NULL: the first that any family has. */
const struct block_part *block_part_named(const struct family *f, const char *hf, size_t n, uint32_t *expert);
/* The same by its name in a GGUF; of experts all of a layer have one. f NULL: the part that all have, or the first that any
 * family has. */
const struct block_part *block_part_named_gguf(const struct family *f, const char *name, size_t n);
/* "model.layers.3.self_attn.q_proj" into out (at least 96 bytes); returns out. Of an expert that one's. */
const char *block_part_name(const struct model_config *c, const struct block_part *p, uint32_t layer, uint32_t expert,
                            char *out, size_t cap);
/* "q_proj": the last word of its name. */
const char *block_part_short_name(const struct block_part *p);
/* Whether any blocks of this family have it. f NULL: of an unknown family, whose blocks have what Llama's have. */
bool family_has(const struct family *f, const struct block_part *p);
/* Whether they have a part with that role. */
bool family_has_role(const struct family *f, enum role role);
/* Whether that layer has it. */
bool block_has(const struct model_config *c, const struct family *f, uint32_t layer, const struct block_part *p);
/* Whether it is what the last matrix of a half reads: whoever gathers inputs needs none of its products. */
bool input_is_last(enum input in);
/* Rows and columns; a norm is one row. */
uint32_t block_part_rows(const struct block_part *p, const struct model_config *c);
uint32_t block_part_cols(const struct block_part *p, const struct model_config *c);

/* ---- the matrices of a layer ---- */

struct block_matrix {
    const struct block_part *part;
    uint32_t rows, cols;
    uint32_t expert; /* whose, of a part of experts */
    uint32_t pieces; /* of its rows, equal ones, each with an input and a Hessian of its own; else 1 */
};
const char *block_matrix_name(const struct model_config *c, const struct block_matrix *m, uint32_t layer, char *out,
                              size_t cap);
/* Of one layer, by place: the order in which they are quantized. Layers may have any number of them, of any shape. Those that
 * all tokens go through come first, then expert 0's gate, up and down, expert 1's, and so on. */
struct block_shape {
    const struct block_matrix *matrices;
    uint32_t n;
};
/* Of all layers. */
struct model_shape {
    uint32_t layers;
    uint32_t *first; /* [layers + 1]: how many matrices come before a layer's own */
    struct block_matrix *matrices;
};

/* What a layer is made of: its i-th part in the order of a file, norms and matrices, those of experts once; NULL past the
 * end. All lists come from here. */
const struct block_part *block_part_in(const struct model_config *c, uint32_t layer, uint32_t i);
/* How many matrices a layer has. */
uint32_t block_matrices(const struct model_config *c, uint32_t layer);
/* model_shape_free in any case. */
bool model_shape_make(struct model_shape *s, const struct model_config *c, struct err *e);
void model_shape_free(struct model_shape *s);
struct block_shape model_shape_of(const struct model_shape *s, uint32_t layer);
/* What all tokens go through: a layer without its experts. How many experts the rest are. */
struct block_shape block_common(struct block_shape b);
uint32_t block_experts(struct block_shape b);
/* Whether a half computes anything: attention always does, also where it has no matrices of this list. */
bool block_has_half(struct block_shape b, enum block_half half);
/* Gate, up and down of an expert. */
enum { EXPERT_MATRICES = 3 };
struct block_shape block_expert(struct block_shape b, uint32_t expert);
/* Whether two layers have the same matrices; whether no earlier layer has the same as this one. */
bool block_shape_same(struct block_shape a, struct block_shape b);
bool model_shape_is_new(const struct model_shape *s, uint32_t layer);
/* The first place with that role; b.n: there is none. */
uint32_t block_place(struct block_shape b, enum role role);
/* Where a role's rows are: in a matrix of their own, or in one with the rows of others. at b.n: there are none; a layer's experts
 * have none, one expert by itself (block_expert) has. */
struct block_rows_at {
    uint32_t at, row0, rows, cols;
};
struct block_rows_at block_rows_at(struct block_shape b, const struct model_config *c, enum role role);
/* Columns of the matrices of a half that read an input; 0: none does. For how many pieces there is one. */
uint32_t block_input_cols(struct block_shape b, enum block_half half, enum input in);
uint32_t block_input_pieces(struct block_shape b, enum block_half half, enum input in);
/* The most rows that role has in any layer, alone or beside others; 0: none has them; without those of experts. Columns of the widest that reads an input. */
uint32_t model_shape_rows(const struct model_shape *s, const struct model_config *c, enum role role);
uint32_t model_shape_input(const struct model_shape *s, enum input in);

#endif
