/* Shared memory that is made visible by barriers, not by every access. */
#ifndef GPU_SPIRV_BARRIERS_H
#define GPU_SPIRV_BARRIERS_H

#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"

/* Under Vulkan's memory model, which cooperative matrices want, glslang has every load of shared memory make what others wrote
 * visible, and every store available. Drivers put a fence before each: 44 in a step of the product on Arc, where two
 * barriers do. Here such accesses become plain ones, and the barriers that order shared memory make available and visible. So a
 * shader may count on what a barrier is between, and on nothing else.
 *
 * *out: n_out words, the caller frees them; NULL where there is nothing to change. Any words are safe to pass: what is not
 * understood is not changed. Fails without memory alone. */
bool spirv_share_by_barriers(const uint32_t *words, size_t n_words, uint32_t **out, size_t *n_out, struct err *e);

#endif
