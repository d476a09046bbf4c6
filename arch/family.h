/* Model families: one row of data for each. What differs between Llama-shaped models is said here and nowhere else. */
#ifndef ARCH_FAMILY_H
#define ARCH_FAMILY_H

#include "arch/config.h"

/* Rows of block.c's table that only some families have, and the names they have there. */
enum {
    PARTS_PRE_NORMS = 1 << 0,     /* of the inputs of both halves: input_layernorm, post_attention_layernorm */
    PARTS_POST_NORMS = 1 << 1,    /* of their outputs: post_attention_layernorm, post_feedforward_layernorm */
    PARTS_QK_NORM = 1 << 2,       /* over each head of q and k before RoPE */
    PARTS_QK_NORM_WHOLE = 1 << 3, /* over all heads of q, all of k */
};

struct family {
    const char *name;           /* "Llama", for people */
    const char *architecture;   /* config.json: "LlamaForCausalLM" */
    const char *model_type;     /* "llama" */
    const char *gguf;           /* general.architecture of a GGUF */
    bool permuted_rows;         /* a GGUF has the rows of q and k in another order (gguf_row_of) */
    unsigned parts;             /* PARTS_ */
    bool multipliers;           /* config.json has factors of embedding, attention, halves and logits */
    uint32_t usual_rope_step;   /* every so many layers one is without RoPE, where no list says which; 0: all have it */
    bool local_rope;            /* RoPE of layers that slide is unscaled, and may have a base of its own */
    bool llama_slides;          /* llama.cpp computes sliding windows of this architecture */
    bool sliding_window;        /* config.sliding_window counts */
    uint32_t usual_window;      /* of a config.json without sliding_window; 0: none */
    uint32_t usual_full_step;   /* all layers slide but every n-th, where no list says which; 0: see below */
    uint32_t usual_full_layers; /* not 0: layers slide only where use_sliding_window says so, and then those from
                                   max_window_layers on, of which this is the usual number */
};

/* NULL past the end. */
const struct family *family_at(size_t i);
/* The row of a config: by its architecture where it names one, else by its model_type. NULL: unknown. */
const struct family *family_of(const struct model_config *c);
/* The row of a GGUF's general.architecture; sliding: its metadata have a sliding window, which tells Mistral from
 * Llama. NULL: unknown. */
const struct family *family_of_gguf(const char *architecture, bool sliding);
/* The same as family_of for what is to be computed. Unknown: ERR_USER that lists what is known; one that gsq cannot
 * compute for another reason: ERR_USER with that. */
const struct family *family_find(const struct model_config *c, struct err *e);
/* "Llama, Mistral, Qwen2 and Qwen3"; returns out. */
const char *family_names(char *out, size_t cap);

#endif
