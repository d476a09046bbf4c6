/* One candidate (TUNE in shaders/variants.cmake) on the device: is it right, and how long does it take beside the variant that
 * is used without it? The kernel's TRIAL and BENCH rows of kernel_cases.def say on what. */
#ifndef LIB_TRIAL_H
#define LIB_TRIAL_H

#include "host/gpu/gpu_cmd.h"

enum { TRIAL_WHY = 160 };

/* Makes the pipeline and compares the results of the TRIAL rows that the variant is made for: of products with a sum in double
 * precision on the host, of other kernels with the usual variant's, within what the arithmetic allows. why: "" if it is right,
 * else what was wrong. variant NULL: the usual one, of a product. False: the device failed, or a stop was asked for. */
bool trial_check(struct gpu_cmd *cmd, struct gpu_arena *arena, unsigned kernel, const char *variant,
                 char why[TRIAL_WHY], struct err *e);

/* Microseconds of the variant, and of the usual one on the same: medians, summed over the BENCH rows that it is made for, by the
 * device's own clock. Both 0 where nothing could be timed. */
bool trial_time(struct gpu_cmd *cmd, struct gpu_arena *arena, unsigned kernel, const char *variant, double *us,
                double *usual_us, struct err *e);

#endif
