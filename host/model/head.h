/* The head: logits of hidden states after the final norm, and the way back. Its matrix lies on the device
 * whole where it takes at most a quarter of what may be used, else it is streamed in tiles of vocabulary
 * rows, once per call. */
#ifndef MODEL_HEAD_H
#define MODEL_HEAD_H

#include "host/model/model.h"

struct head {
    struct model *m;
    struct gpu_view w; /* [rows, hidden] */
    uint32_t rows;     /* of the vocabulary that w holds at a time; all of it: resident */
};
bool head_is_resident(const struct model *m);
bool head_create(struct head *h, struct gpu_arena *arena, struct model *m, struct err *e);
/* Rows of logits to hold at once, of `rows`, for each of `sides` models: a multiple of 64 unless it is all of
 * them. With a streamed head, more rows mean fewer passes over it. */
uint32_t head_logit_rows(const struct model *m, bool resident, unsigned sides, uint64_t rows);
/* logits[rows, vocab] = x[rows, hidden] head^T; x is normed. */
bool head_logits(const struct head *h, struct gpu_view x, uint32_t rows, struct gpu_view logits, struct err *e);
/* dx[rows, hidden] = dlogits[rows, vocab] head. */
bool head_bwd(const struct head *h, struct gpu_view dlogits, uint32_t rows, struct gpu_view dx, struct err *e);

#endif
