/* Model families: one row per architecture. What differs between Llama-shaped models is said here and nowhere
 * else. */
#ifndef MODEL_FAMILY_H
#define MODEL_FAMILY_H

#include "formats/hf_config.h"

struct family {
    const char *architecture; /* "LlamaForCausalLM" */
    const char *model_type;   /* "llama" */
    bool qk_norm;             /* RMSNorm over each head of q and k before RoPE */
    bool sliding_window;      /* config.sliding_window counts */
};

/* The row for this config (architecture first, else model_type). Unknown: ERR_USER that lists what is known; one that
 * gsq cannot compute for another reason: ERR_USER with that. */
const struct family *family_find(const struct model_config *c, struct err *e);
const struct family *family_at(size_t i); /* NULL past the end */

#endif
