/* How folders hold all experts of a layer as one tensor [experts, rows, columns], as data: read by formats/read/stacked.h, written by
 * formats/write/hf_plan.h. */
#ifndef FORMATS_EXPERT_STACK_H
#define FORMATS_EXPERT_STACK_H

#include "arch/block.h"

/* Whose tensors they are. */
enum stack_way {
    STACK_HF,     /* transformers', in 16 bits */
    STACK_PACKED, /* transformers', as released in MXFP4: read only */
    STACK_MLX     /* mlx-lm's, in 16 bits or packed */
};
struct expert_stack {
    enum stack_way way;
    unsigned of, without; /* families that have one of these (PARTS_), and none of those */
    /* What follows "layers.N.": a tensor, or where suffix is NULL a module, whose tensors have the suffixes that the parts' have. */
    const char *tensor;
    const char *parts[2]; /* what it holds of each expert, whose number stands for '*'; the second NULL: there is one */
    const char *suffix;   /* of the parts' tensors: ".weight" */
    bool pairs;  /* a row of the first part, then one of the second, and so on; else all of the first come first */
    bool turned; /* rows of a part are columns of the tensor */
};
static inline uint32_t expert_stack_parts(const struct expert_stack *s)
{
    return s->parts[1] ? 2 : 1;
}

/* Of the tensor that is so called in a model's layers; *suffix: of its parts' tensors. NULL: it is none of those. */
const struct expert_stack *expert_stack_read(const struct model_config *c, const char *tensor, uint32_t *layer,
                                             const char **suffix);
/* What holds the tensors of that suffix (".weight", ".bias") of a part of a family's experts in one way. NULL: nothing does. */
const struct expert_stack *expert_stack_write(const struct family *f, enum stack_way way, const struct block_part *part,
                                              const char *suffix);
/* "model.layers.3.mlp.switch_mlp.gate_proj": the tensor, or the module, into out; returns out. */
const char *expert_stack_name(const struct expert_stack *s, const struct model_config *c, uint32_t layer, char *out,
                              size_t cap);
/* "model.layers.3.mlp.experts.7.gate_proj": a part of an expert. */
const char *expert_stack_part(const struct expert_stack *s, const struct model_config *c, uint32_t layer,
                              uint32_t expert, uint32_t which, char *out, size_t cap);
/* The part of a layer with experts that a module is, and whose. NULL: it is none, or of a layer behind the last. */
const struct block_part *expert_part_named(const struct model_config *c, const char *module, uint32_t *layer,
                                           uint32_t *expert);

#endif
