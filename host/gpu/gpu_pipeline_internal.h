/* Pipelines, for commands. */
#ifndef GPU_PIPELINE_INTERNAL_H
#define GPU_PIPELINE_INTERNAL_H

#include "host/gpu/gpu_device_internal.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/kernel_table.h"
#include "host/gpu/spirv.h"

/* One row of kernel_variants on this device. */
struct gpu_kernel {
    const struct kernel_variant *variant;
    bool usable;
    uint32_t local_size, subgroup_size;
    uint32_t shared_bytes; /* shared memory of a workgroup */
    bool reflected;
    struct spirv_info spirv;
    VkPipeline pipeline; /* null until first used */
    VkPipelineLayout layout;
    VkDescriptorSetLayout set_layout;
    double ns_per_work; /* measured; 0: not yet */
};

/* Chooses a variant of each kernel. variant, cache_dir: as in gpu_options. */
bool gpu_pipelines_init(struct gpu *g, const char *variant, const char *cache_dir, struct err *e);
void gpu_pipelines_destroy(struct gpu *g);
/* All that is of the device; what was chosen and measured stays. Then for a new device. */
void gpu_pipelines_drop(struct gpu *g);
bool gpu_pipelines_renew(struct gpu *g, struct err *e);
/* The variant chosen for a call with these push constants, ready to be bound; NULL and e on failure. Valid until
 * gpu_destroy. push NULL: any call. */
struct gpu_kernel *gpu_kernel_get(struct gpu *g, unsigned kernel, const void *push, struct err *e);
/* What its shader declares is read into k->spirv and compared with kernels.def, if that is not done. */
bool gpu_kernel_reflect(struct gpu_kernel *k, struct err *e);
/* Its pipeline is made, if that is not done. */
bool gpu_kernel_make(struct gpu *g, struct gpu_kernel *k, struct err *e);
/* Variant i of a kernel, in preference order; NULL past the end. */
struct gpu_kernel *gpu_kernel_at(const struct gpu *g, unsigned kernel, unsigned i);
/* The push constants of an argument struct, which lie behind its views; NULL of NULL. */
const void *gpu_kernel_push(unsigned kernel, const void *args);
/* The same as gpu_kernel_get without creating its pipeline; NULL if there is none. */
struct gpu_kernel *gpu_kernel_chosen(struct gpu *g, unsigned kernel, const void *push);

/* Adds name, SPIR-V and constants of a variant to a hash. */
struct hash128 gpu_kernel_hash(const struct gpu_kernel *k, struct hash128 h);

/* A storage buffer, or a uniform texel buffer where the shader declares the binding so. */
VkDescriptorType gpu_binding_type(const struct gpu_kernel *k, unsigned binding);

#endif
