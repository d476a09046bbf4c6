#include "host/gpu/kernel_decl.h"

#define BUF(n)                      #n " "
#define KERNEL(name, buffers, push) {#name, name##_n_buffers, name##_push_bytes, buffers},
const struct kernel_decl kernel_decls[KERNEL_COUNT] = {
#include "shaders/kernels.def"
};
#undef KERNEL
#undef BUF
