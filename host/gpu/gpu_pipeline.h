/* Kernels as pipelines: the embedded SPIR-V, its variants, and what the device would use. */
#ifndef GPU_PIPELINE_H
#define GPU_PIPELINE_H

#include "host/gpu/gpu_device.h"

/* The variant this device uses for a kernel ("base", "sg", ...), and its workgroup size (1-D, x). Creates the
 * pipeline on first use; NULL and e on failure (a reflection mismatch is ERR_BUG naming kernel, variant and
 * both numbers). args: a call's struct NAME_args, for which there may be a variant of its own (WHERE in
 * variants.cmake); NULL: any call. */
const char *gpu_kernel_variant(struct gpu *g, unsigned kernel, const void *args, struct err *e);
uint32_t gpu_kernel_local_size(struct gpu *g, unsigned kernel);
/* Value of a specialization constant that the chosen variant was built with (SPEC_ of
 * shaders/limits.h), or `otherwise` where the variant has no such constant. */
uint32_t gpu_kernel_constant(struct gpu *g, unsigned kernel, const void *args, uint32_t id, uint32_t otherwise);
/* Variant i of a kernel, in preference order: name, and whether this device can run it. False past the end.
 */
bool gpu_kernel_variant_at(const struct gpu *g, unsigned kernel, unsigned i, const char **name, bool *usable);
/* Whether that variant is a candidate (TUNE in variants.cmake) that the device can run: not used unless gpu_kernel_prefer, gpu_kernel_force
 * or gpu_options.variant says so. */
bool gpu_kernel_candidate(const struct gpu *g, unsigned kernel, unsigned i);
/* From now on these variants of a kernel are used, the first that is made for the call, and for other calls what is used
 * without them; n 0: none. False, with nothing changed, if there is none of a name or the device cannot run it (ERR_USER). */
enum { GPU_PREFER_MAX = 8 };
bool gpu_kernel_prefer(struct gpu *g, unsigned kernel, const char *const *variants, unsigned n, struct err *e);
/* How many are preferred now, by gpu_options.variant or gpu_kernel_prefer, and their names, best first. */
unsigned gpu_kernel_preferred(const struct gpu *g, unsigned kernel, const char *names[GPU_PREFER_MAX]);
/* Whether there is a variant of that name that the device can run; ERR_USER says what is missing. */
bool gpu_kernel_usable(const struct gpu *g, unsigned kernel, const char *variant, struct err *e);
/* Whether there is such a variant, that the device can run, and it needs this capability (enum gpu_cap). */
bool gpu_kernel_needs(const struct gpu *g, unsigned kernel, const char *variant, uint32_t cap);
/* Whether the device was opened for a variant by name. */
bool gpu_kernels_forced(const struct gpu *g);
/* Bytes of shared memory that a workgroup of it takes; 0 past the end. A variant that takes more than the device has is not
 * usable. */
uint32_t gpu_kernel_shared_bytes(const struct gpu *g, unsigned kernel, unsigned i);
/* From now on use this variant for this kernel (tests, bench), one with a WHERE for the calls that it is made for;
 * NULL: as at first. False if there is none or the device cannot. */
bool gpu_kernel_force(struct gpu *g, unsigned kernel, const char *variant, struct err *e);
/* Hash of all chosen variant names and SPIR-V: part of a run's identity. */
uint64_t gpu_kernels_identity(struct gpu *g);

#endif
