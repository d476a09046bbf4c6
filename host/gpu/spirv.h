/* Just enough SPIR-V reflection to check a compute kernel against its row of kernels.def and to place
 * barriers. */
#ifndef GPU_SPIRV_H
#define GPU_SPIRV_H

#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"

enum { SPIRV_MAX_BINDINGS = 32 };

struct spirv_info {
    uint32_t n_buffers;  /* highest binding of set 0, plus one */
    uint32_t push_bytes; /* end of the last member of the push constant block; 0: no block */
    uint32_t reads;      /* bit i: binding i exists and is not `writeonly` */
    uint32_t writes;     /* bit i: binding i exists and is not `readonly` */
    uint32_t texels;     /* bit i: binding i is a uniform texel buffer, read as texels of four f32, */
    uint32_t texels_u32; /* or of four u32 */
};

/* Any bytes are safe to pass; what is not a compute module of this program's kind is ERR_BUG. Stateless. */
bool spirv_reflect(const uint32_t *words, size_t n_words, struct spirv_info *out, struct err *e);

#endif
