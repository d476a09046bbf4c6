/* Which candidates (TUNE in shaders/variants.cmake) a device uses, as a text: "gemm=wide gemm_half=coopmat,small". Of several
 * the first that is made for a call is used. Kernels that use none are not in it. */
#ifndef GPU_CHOICE_H
#define GPU_CHOICE_H

#include "host/base/num.h"
#include "host/gpu/gpu_device.h"

enum { GPU_CHOICE_TEXT = 400 };

/* Empty where nothing was chosen: on CPU devices, with gpu_options.variant, or where nothing is better. */
void gpu_choice_text(const struct gpu *g, char out[GPU_CHOICE_TEXT]);
/* From now on these are used, of all kernels. False, with nothing changed, where a kernel or variant is not there or the device
 * cannot run it (ERR_USER). */
bool gpu_choice_take(struct gpu *g, const char *text, struct err *e);
/* Whether there is something to choose: candidates of some kernel, on a device that is no CPU and was not opened for a variant
 * by name. Without a kernel: KERNEL_COUNT. */
bool gpu_choice_open(const struct gpu *g, unsigned kernel);
/* Hash of what there is to choose from: name and SPIR-V of every variant, of kernels with candidates, that the device can run,
 * and its capabilities. */
struct hash128 gpu_choice_hash(const struct gpu *g);

#endif
