/* The embedded SPIR-V. The table is generated from shaders/variants.cmake; only host/gpu and its tests use
 * it. */
#ifndef GPU_KERNEL_TABLE_H
#define GPU_KERNEL_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "host/gpu/kernel_decl.h"

/* local_size of a variant whose workgroup is one subgroup of the device. */
#define KERNEL_WG_SUBGROUP 0

enum { KERNEL_SPEC_MAX = 12 };

/* Of the sizes that a device's subgroups can have. */
enum kernel_subgroup_size { KERNEL_SUBGROUP_USUAL, KERNEL_SUBGROUP_SMALLEST, KERNEL_SUBGROUP_LARGEST };

struct kernel_variant {
    enum kernel_id kernel;
    const char *name;
    uint32_t needs; /* enum gpu_cap bits */
    const uint32_t *words;
    uint32_t n_words;
    uint32_t local_size; /* or KERNEL_WG_SUBGROUP */
    bool tune;           /* taken only where it was measured to be the fastest, or asked for by name */
    enum kernel_subgroup_size subgroup_size;
    /* most > 0: only for calls whose push constant is a multiple of `step` and at most `most`. */
    struct {
        uint32_t at; /* in the kernel's argument struct */
        uint32_t step, most;
    } where;
    uint32_t n_spec;
    struct {
        uint32_t id, value;
    } spec[KERNEL_SPEC_MAX];
};

/* Best first for each kernel; ends with a row of kernel KERNEL_COUNT. */
extern const struct kernel_variant kernel_variants[];

#endif
