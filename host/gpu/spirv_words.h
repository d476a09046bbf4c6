/* The words of a SPIR-V module: its header, its instructions one after the other, and the enumerants of the specification that
 * are needed here. Shared by what reads modules (spirv.c, spirv_shared.c) and what changes them (spirv_barriers.c). */
#ifndef GPU_SPIRV_WORDS_H
#define GPU_SPIRV_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SPIRV_MAGIC = 0x07230203,
    SPIRV_HEADER = 5,        /* words, */
    SPIRV_BOUND = 3,         /* of which this says how many ids there are */
    SPIRV_MAX_IDS = 1 << 20, /* the specification allows 4M; ours have hundreds */

    OP_MEMORY_MODEL = 14,
    OP_ENTRY_POINT = 15,
    OP_TYPE_BOOL = 20,
    OP_TYPE_INT = 21,
    OP_TYPE_FLOAT = 22,
    OP_TYPE_VECTOR = 23,
    OP_TYPE_IMAGE = 25,
    OP_TYPE_ARRAY = 28,
    OP_TYPE_STRUCT = 30,
    OP_TYPE_POINTER = 32,
    OP_CONSTANT_TRUE = 41,
    OP_CONSTANT_FALSE = 42,
    OP_CONSTANT = 43,
    OP_CONSTANT_COMPOSITE = 44,
    OP_SPEC_CONSTANT_TRUE = 48,
    OP_SPEC_CONSTANT_FALSE = 49,
    OP_SPEC_CONSTANT = 50,
    OP_SPEC_CONSTANT_COMPOSITE = 51,
    OP_SPEC_CONSTANT_OP = 52,
    OP_VARIABLE = 59,
    OP_LOAD = 61,
    OP_STORE = 62,
    OP_ACCESS_CHAIN = 65,
    OP_IN_BOUNDS_ACCESS_CHAIN = 66,
    OP_DECORATE = 71,
    OP_MEMBER_DECORATE = 72,
    OP_CONTROL_BARRIER = 224,
    OP_MEMORY_BARRIER = 225,
    OP_COOPMAT_LOAD = 4457,
    OP_COOPMAT_STORE = 4458,

    CLASS_UNIFORM_CONSTANT = 0,
    CLASS_UNIFORM = 2,
    CLASS_WORKGROUP = 4,
    CLASS_PUSH_CONSTANT = 9,
    CLASS_STORAGE_BUFFER = 12,
};

struct spirv_instruction {
    const uint32_t *words; /* [len], the first holds op and len */
    uint32_t op, len;
};

/* Whether a header is there, of a module with no more ids than SPIRV_MAX_IDS. */
static inline bool spirv_is_module(const uint32_t *words, size_t n_words)
{
    return n_words >= SPIRV_HEADER && words[0] == SPIRV_MAGIC && words[SPIRV_BOUND] <= SPIRV_MAX_IDS;
}

/* The instruction at *at, the first at SPIRV_HEADER, and *at moved behind it. False at the end, where *at is n_words, and at one
 * that is cut short. */
static inline bool spirv_next(const uint32_t *words, size_t n_words, size_t *at, struct spirv_instruction *x)
{
    if (*at >= n_words)
        return false;
    const uint32_t *w = words + *at;
    *x = (struct spirv_instruction){w, w[0] & 0xffff, w[0] >> 16};
    if (x->len == 0 || x->len > n_words - *at)
        return false;
    *at += x->len;
    return true;
}

#endif
