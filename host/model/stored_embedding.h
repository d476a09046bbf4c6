/* An embedding as an output will store it: a student's hidden states begin with what is left of it then. */
#ifndef MODEL_STORED_EMBEDDING_H
#define MODEL_STORED_EMBEDDING_H

#include "formats/read/checkpoint_in.h"

/* How a matrix is rounded: gguf_round_row. */
struct rounding {
    const struct gguf_type *type;
    const float *importance; /* of its columns, or NULL */
};

/* Rows of the tokens of a text, each rounded once. */
struct stored_embedding {
    struct rounding as;
    uint32_t cols, n;
    uint32_t *place; /* [vocabulary]: in rows, from 1; 0: that token is not in the text */
    uint32_t *ids;   /* [n] */
    uint8_t *rows;   /* [n] of as.type's bytes */
};
/* Host memory for a text of so many tokens, at most. */
uint64_t stored_embedding_bytes(const struct model_config *c, const struct gguf_type *type, uint64_t tokens);
/* Reads and rounds the rows of these n tokens, which are finite. go_on: asked again and again meanwhile; false stops
 * (ERR_STOPPED). May be NULL. ERR_USER: a token outside the vocabulary. Frees what it made when it fails. */
bool stored_embedding_create(struct stored_embedding *s, const struct checkpoint *ck, const uint32_t *ids, size_t n,
                             struct rounding as, bool (*go_on)(void *ctx), void *ctx, struct err *e);
void stored_embedding_free(struct stored_embedding *s);
/* Itself, or NULL where it was not created. */
static inline const struct stored_embedding *stored_embedding_of(const struct stored_embedding *s)
{
    return s->place ? s : NULL;
}
/* A token of the text's, as f32. */
void stored_embedding_row(const struct stored_embedding *s, uint32_t id, float *row);

#endif
