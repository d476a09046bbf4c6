/* How much shared memory a compute kernel takes, read from its SPIR-V. */
#ifndef GPU_SPIRV_SHARED_H
#define GPU_SPIRV_SHARED_H

#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"

/* Value of a specialization constant. */
struct spirv_constant {
    uint32_t id, value;
};

/* Bytes of all its shared variables, with these constants and the module's own defaults for the others; what no 32 bits hold is
 * UINT32_MAX. Arrays may be as long as constants and operations of them say. Any words are safe to pass; an array whose
 * length is computed otherwise is ERR_BUG. */
bool spirv_shared_bytes(const uint32_t *words, size_t n_words, const struct spirv_constant *constants, size_t n,
                        uint32_t *bytes, struct err *e);

#endif
