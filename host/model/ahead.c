#include "host/model/ahead.h"

#include <stdlib.h>
#include <string.h>

#include "formats/read/tensor_values.h"
#include "host/base/comm.h"
#include "host/base/os.h"

/* So much of the memory that is free is left to others. */
#define SPARE_TIMES 4

static const struct tensor *stored(const struct checkpoint *ck, uint32_t layer, const struct block_matrix *x,
                                   char name[96])
{
    return checkpoint_dense(ck, block_matrix_name(checkpoint_config(ck), x, layer, name, 96));
}

static uint64_t matrix_bytes(const struct checkpoint *ck, uint32_t layer, const struct block_matrix *x)
{
    char name[96];
    const struct tensor *t = stored(ck, layer, x, name);
    return (uint64_t)x->rows * x->cols * (t && dtype_is_half(t->dtype) ? 2 : 4);
}

uint64_t block_ahead_bytes(const struct checkpoint *ck, uint32_t layer, struct block_shape shape)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < shape.n; i++)
        bytes += matrix_bytes(ck, layer, &shape.matrices[i]);
    return bytes;
}

/* The thread's. */
static bool read_block(void *ctx, struct err *e)
{
    struct block_ahead *a = ctx;
    if (a->check && !a->check(a->ctx, a->layer, e))
        return false;
    for (uint32_t i = 0; i < a->shape.n; i++) {
        const struct block_matrix *x = &a->shape.matrices[i];
        char name[96];
        const struct tensor *t = stored(a->ck, a->layer, x, name);
        void *to = gpu_host(a->w[i]);
        if (t && dtype_is_float(t->dtype)) /* it goes to the device as it is stored */
            memcpy(to, t->data, (size_t)matrix_bytes(a->ck, a->layer, x));
        else if (!checkpoint_read_f32(a->ck, name, 0, x->rows, to, e))
            return false;
        checkpoint_drop_module(a->ck, name);
    }
    return true;
}

static bool alloc(struct block_ahead *a, struct gpu *g)
{
    if (!a->arena && !gpu_arena_create_host(&a->arena, g, "next block", NULL))
        return false;
    gpu_arena_reset(a->arena, 0);
    free(a->w);
    a->w = calloc(a->shape.n + 1u, sizeof *a->w);
    for (uint32_t i = 0; a->w && i < a->shape.n; i++)
        if (!gpu_alloc(a->arena, matrix_bytes(a->ck, a->layer, &a->shape.matrices[i]), &a->w[i], NULL))
            return false;
    return a->w != NULL;
}

void block_ahead_begin(struct block_ahead *a, struct gpu *g, const struct checkpoint *ck, uint32_t layer,
                       struct block_shape shape)
{
    uint64_t room = comm_memory_available();
    if (task_begun(&a->task) || (a->ready && a->layer == layer))
        return;
    a->ready = false;
    a->ck = ck;
    a->layer = layer;
    a->shape = shape;
    if ((!room || room / SPARE_TIMES > block_ahead_bytes(ck, layer, shape)) && alloc(a, g))
        task_begin(&a->task, read_block, a);
}

bool block_ahead_has(const struct block_ahead *a, uint32_t layer)
{
    return a->layer == layer && (task_begun(&a->task) || a->ready);
}

bool block_ahead_wait(struct block_ahead *a, struct err *e)
{
    if (task_begun(&a->task))
        a->ready = task_wait(&a->task, e);
    return a->ready;
}

void block_ahead_free(struct block_ahead *a)
{
    if (task_begun(&a->task))
        task_wait(&a->task, NULL);
    gpu_arena_destroy(&a->arena);
    free(a->w);
    *a = (struct block_ahead){0};
}
