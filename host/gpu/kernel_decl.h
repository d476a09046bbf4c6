/* shaders/kernels.def as C: which kernels there are, and what the host expects of each. */
#ifndef GPU_KERNEL_DECL_H
#define GPU_KERNEL_DECL_H

#include "shaders/limits.h" // IWYU pragma: export

/* enum kernel_id { KERNEL_ID_gemm, ... } */
enum kernel_id {
#define KERNEL(name, buffers, push) KERNEL_ID_##name,
#include "shaders/kernels.def"
#undef KERNEL
    KERNEL_COUNT
};

/* gemm_n_buffers, gemm_push_bytes */
#define BUF(n) +1
#define U32(n) +4
#define F32(n) +4
enum {
#define KERNEL(name, buffers, push) name##_n_buffers = 0 buffers, name##_push_bytes = 0 push,
#include "shaders/kernels.def"
#undef KERNEL
};
#undef BUF
#undef U32
#undef F32

/* What the host expects of each kernel's SPIR-V. */
struct kernel_decl {
    const char *name;
    unsigned n_buffers, push_bytes;
    const char *buffers; /* "a b c": for messages */
};
extern const struct kernel_decl kernel_decls[KERNEL_COUNT];

#endif
