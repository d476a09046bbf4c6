/* The head: logits of hidden states after the final norm, and the way back. A small matrix lies on the device whole. A large
 * one is worked on in tiles of vocabulary rows: it stays on the device as the file has it, in 16 bits mostly, and a tile is
 * widened when its turn comes; or tiles come from the host, once per call. Results are the same. */
#ifndef MODEL_HEAD_H
#define MODEL_HEAD_H

#include "host/model/model.h"

struct head {
    struct model *m;
    struct gpu_view w;    /* [rows, hidden] */
    uint32_t rows;        /* of the vocabulary that w holds at a time */
    struct gpu_view kept; /* all of a large one: halves, or f32 */
    bool halves;
    uint32_t kind; /* of the halves: HALVES_F16, HALVES_BF16 */
    bool loaded;   /* w holds something */
};
/* Whether it is one tile. */
bool head_is_small(const struct model *m);
/* Whether it is small or may well stay: it takes a quarter of the device's memory at most. */
bool head_stays(const struct model *m);
/* stays: a large one does, if a buffer holds it. */
bool head_create(struct head *h, struct gpu_arena *arena, struct model *m, bool stays, struct err *e);
/* Rows of logits to hold at once, of `rows`: a multiple of 64 unless it is all of them. room: bytes of them beside a large
 * head that does not stay; there more rows mean fewer passes over it. */
uint32_t head_logit_rows(const struct model *m, bool stays, uint64_t room, uint64_t rows);
/* logits[rows, vocab] = x[rows, hidden] head^T; x is normed. steering: for gradients alone, not for a loss that decides. */
bool head_logits(struct head *h, struct gpu_view x, uint32_t rows, bool steering, struct gpu_view logits,
                 struct err *e);
/* Where logits are capped, dlogits becomes the gradient of what was before the cap, logits being what head_logits gave. */
struct gpu_view head_uncap(struct head *h, struct gpu_view logits, struct gpu_view dlogits, uint32_t rows);
/* dx[rows, hidden] = dlogits[rows, vocab] head. */
bool head_bwd(struct head *h, struct gpu_view dlogits, uint32_t rows, struct gpu_view dx, struct err *e);

#endif
