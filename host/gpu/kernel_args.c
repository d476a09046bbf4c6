#include "host/gpu/kernel_args.h"

#include <stdio.h>
#include <string.h>

#define BUF(x)
#define U32(x) a.x = s->x;
#define F32(x) a.x = s->x;
#define KERNEL(name, buffers, push)                                                                                    \
    static void fill_##name(const struct kernel_shape *s, const struct gpu_view *views, void *args)                    \
    {                                                                                                                  \
        struct name##_args a;                                                                                          \
        memcpy(&a, views, kernel_decls[KERNEL_ID_##name].n_buffers * sizeof *views);                                   \
        push memcpy(args, &a, sizeof a);                                                                               \
    }
#include "shaders/kernels.def"
#undef KERNEL
#undef U32
#undef F32

#define U32(x) print(out, cap, &n, #x, s->x);
#define F32(x) print(out, cap, &n, #x, (double)s->x);
#define KERNEL(name, buffers, push)                                                                                    \
    static void print_##name(const struct kernel_shape *s, char *out, size_t cap)                                      \
    {                                                                                                                  \
        size_t n = 0;                                                                                                  \
        push                                                                                                           \
    }
static void print(char *out, size_t cap, size_t *n, const char *name, double value)
{
    if (*n < cap)
        *n += (size_t)snprintf(out + *n, cap - *n, "%s%s %g", *n ? ", " : "", name, value);
}
#include "shaders/kernels.def"
#undef KERNEL
#undef U32
#undef F32
#undef BUF

void kernel_args_fill(unsigned kernel, const struct kernel_shape *s, const struct gpu_view *views,
                      union kernel_args *args)
{
    switch (kernel) {
#define KERNEL(name, buffers, push)                                                                                    \
    case KERNEL_ID_##name:                                                                                             \
        fill_##name(s, views, args);                                                                                   \
        break;
#include "shaders/kernels.def"
#undef KERNEL
    }
}

const char *kernel_shape_text(unsigned kernel, const struct kernel_shape *s, char *out, size_t cap)
{
    switch (kernel) {
#define KERNEL(name, buffers, push)                                                                                    \
    case KERNEL_ID_##name:                                                                                             \
        print_##name(s, out, cap);                                                                                     \
        break;
#include "shaders/kernels.def"
#undef KERNEL
    }
    return out;
}
