/* A text that a model writes itself: calibration where there is none.
 *
 * It comes in segments of at most 256 tokens, each of which begins anew with the BOS; every further token is drawn from the model's
 * prediction, by noise from a counter: the first with odds to the power of a sixth, so that texts begin in many ways. Segments advance together, `lanes` of them, by a token in each pass over the blocks,
 * for which these are loaded once, but for those that find room and stay; keys and values of what a segment has so far are kept. So
 * a model may be of any size, and the passes are
 *
 *     (tokens of a segment - 1) * segments / lanes
 */
#ifndef MODEL_SAMPLING_H
#define MODEL_SAMPLING_H

#include "host/model/model.h"

/* Of it and its order, for what is made of such a text. */
#define SAMPLING_REVISION 1

struct sampling {
    uint32_t length, segments; /* tokens of a segment; 0: nothing is sampled */
    uint32_t lanes;            /* segments at a time */
    uint32_t stay;             /* blocks, the first ones, that stay on the device */
    bool far;                  /* keys and values are in host memory, which the device reads */
    bool head_stays;
    uint64_t device_bytes;             /* at the widest moment, what models hold included */
    uint64_t past_bytes, weight_bytes; /* of that: keys and values; weights */
    uint64_t host_bytes;
};
/* Whether gsq can: not where a state goes from position to position (the gated delta rule). */
bool sampling_can(const struct model_config *c);
/* Sizes for windows of ctx tokens, so many tokens in all, within bytes of device memory (what is in use included) and of host memory.
 * Commands count meanwhile. False: it does not fit. */
bool sampling_size(struct sampling *s, struct model *m, uint64_t tokens, uint64_t limit, uint64_t host, struct err *e);
uint32_t sampling_passes(const struct sampling *s);

/* Every hook may be NULL. */
struct sampling_hooks {
    void *ctx;
    /* After each pass; false stops (ERR_STOPPED). */
    bool (*passed)(void *ctx, uint32_t pass, uint32_t passes);
    /* The first `segments` of them are there. */
    bool (*save)(void *ctx, const uint32_t *ids, uint32_t segments, struct err *e);
};
/* ids[segments, length], of which the first `done` are there already. start: the token that each begins with; -1: one drawn from the
 * vocabulary. */
bool sampling_run(const struct sampling *s, struct model *m, int64_t start, uint32_t seed, uint32_t *ids, uint32_t done,
                  const struct sampling_hooks *hooks, struct err *e);

#endif
