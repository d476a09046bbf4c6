#include "host/gpu/kernels.h"

#include "host/base/num.h"

#define BUF(n) +1
#define U32(n) +4
#define F32(n) +4
/* The argument struct is the views, then the push constants: run_NAME hands both out of it as they lie there.
 */
#define KERNEL(name, buffers, push)                                                                                    \
    _Static_assert((0 push) <= 128, #name ": more than 128 bytes of push constants");                                  \
    _Static_assert(sizeof(struct name##_args) == ((0 buffers) * sizeof(struct gpu_view) + (0 push) + 7) / 8 * 8,       \
                   #name ": padding in the argument struct");
#include "shaders/kernels.def"
#undef KERNEL

enum {
#define KERNEL(name, buffers, push) name##_n_buffers = 0 buffers, name##_push_bytes = 0 push,
#include "shaders/kernels.def"
#undef KERNEL
};
#undef BUF
#undef U32
#undef F32

#define BUF(n)                      #n " "
#define KERNEL(name, buffers, push) {#name, name##_n_buffers, name##_push_bytes, buffers},
const struct kernel_decl kernel_decls[KERNEL_COUNT] = {
#include "shaders/kernels.def"
};
#undef KERNEL
#undef BUF

#define BUF(n) args->n,
#define KERNEL(name, buffers, push)                                                                                    \
    void run_##name(struct gpu_cmd *cmd, struct gpu_grid grid, const struct name##_args *args)                         \
    {                                                                                                                  \
        const struct gpu_view views[] = {buffers};                                                                     \
        gpu_dispatch(cmd, KERNEL_ID_##name, grid, views, name##_n_buffers, (const char *)args + sizeof views,          \
                     name##_push_bytes);                                                                               \
    }
#include "shaders/kernels.def"
#undef KERNEL
#undef BUF
