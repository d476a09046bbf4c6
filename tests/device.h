/* The device that a test program runs on. There is one at a time. */
#ifndef TESTS_DEVICE_H
#define TESTS_DEVICE_H

#include "host/gpu/gpu_create.h"
#include "host/gpu/gpu_cmd.h"
#include "tests/check.h"

static struct gpu *gpu;
static struct gpu_cmd *cmd;
static struct gpu_arena *arena;

/* With validation, where its layer is installed. */
static inline void device_open(struct gpu_options o)
{
    struct err e = {0};
    o.validate = true;
    OK(gpu_create(&gpu, &o, &e), e);
    OK(gpu_cmd_create(&cmd, gpu, &e), e);
    OK(gpu_arena_create(&arena, gpu, "test", &e), e);
}

/* Returns how much was wrong, having printed it: validation messages, memory of arenas that tests left. */
static inline int device_close(void)
{
    gpu_cmd_destroy(&cmd);
    gpu_arena_destroy(&arena);
    unsigned messages = gpu_validation_messages(gpu);
    uint64_t held = gpu_memory_used(gpu);
    if (messages)
        print_error("%u validation messages\n", messages);
    if (held)
        print_error("%llu bytes of device memory were not given back\n", (unsigned long long)held);
    gpu_destroy(&gpu);
    return (messages != 0) + (held != 0);
}

static inline int device_setup(void **state)
{
    (void)state;
    device_open((struct gpu_options){0});
    return 0;
}

/* The other way to bind, sets from a pool, and to transfer, by staging buffers though there is one memory. */
static inline int device_setup_no_push(void **state)
{
    (void)state;
    device_open((struct gpu_options){.without = GPU_CAP_PUSH_DESCRIPTOR, .staging = true});
    return 0;
}

/* For main, behind a group that device_setup began: the failed tests and what was wrong with the device. Not
 * a teardown of the group: one that fails does not count for CMocka. */
static inline int device_done(int failed)
{
    return failed + (gpu ? device_close() : 0);
}

#endif
