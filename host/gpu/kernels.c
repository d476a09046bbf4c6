#include "host/gpu/kernels.h"

#include "host/base/num.h"
#include "host/gpu/gpu_cmd_internal.h"

/* The argument struct is the views, then the push constants: run_NAME hands both out of it as they lie there.
 */
#define KERNEL(name, buffers, push)                                                                                    \
    _Static_assert(name##_push_bytes <= 128, #name ": more than 128 bytes of push constants");                         \
    _Static_assert(sizeof(struct name##_args) ==                                                                       \
                       (name##_n_buffers * sizeof(struct gpu_view) + name##_push_bytes + 7) / 8 * 8,                   \
                   #name ": padding in the argument struct");
#include "shaders/kernels.def"
#undef KERNEL

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

/* ---- grids ---- */

/* Folded over x and y: Vulkan promises 65535 workgroups in each. */
static struct gpu_grid fold(uint64_t groups)
{
    const uint64_t most = 65535;
    uint64_t y = div_up(groups, most);
    return (struct gpu_grid){
        .x = (uint32_t)min_u64(div_up(groups, max_u64(y, 1)), UINT32_MAX),
        .y = (uint32_t)min_u64(y, UINT32_MAX),
        .z = 1,
        .work = (double)groups,
    };
}

struct gpu_grid gpu_rows(uint64_t rows)
{
    return fold(rows);
}

struct gpu_grid gpu_items(struct gpu_cmd *cmd, unsigned kernel, uint64_t items)
{
    uint32_t local = gpu_kernel_local_size(cmd->gpu, kernel),
             per = gpu_kernel_constant(cmd->gpu, kernel, NULL, SPEC_ITEMS, 1);
    if (items > UINT32_MAX) {
        struct err e = {0};
        err_set(&e, ERR_BUG, "kernel %s: %llu items; a shader counts to 2^32", kernel_decls[kernel].name,
                (unsigned long long)items);
        cmd_fail(cmd, &e);
    }
    struct gpu_grid grid = fold(div_up(items, (uint64_t)max_u64(local, 1) * per));
    grid.work = (double)items;
    return grid;
}
