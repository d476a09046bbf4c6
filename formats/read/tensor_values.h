/* The values of float tensors. */
#ifndef FORMATS_TENSOR_VALUES_H
#define FORMATS_TENSOR_VALUES_H

#include "formats/hf/safetensors.h"

/* F32, F16, BF16. */
bool dtype_is_float(enum dtype t);
/* F16, BF16. */
bool dtype_is_half(enum dtype t);
/* Any float tensor (F32, F16, BF16) as f32: n elements from element `first`. */
bool tensor_read_f32(const struct tensor *t, uint64_t first, uint64_t n, float *dst, struct err *e);
/* NaN and infinities: ERR_USER naming tensor, file, element. True for NULL and for other types. path: of its file. */
bool tensor_check_finite(const struct tensor *t, const char *path, struct err *e);

#endif
