/* A linear as tensors of a block's file: codes u32 [rows, ceil(cols*bits/32)], scales f32 and, with super-blocks, integers i8
 * (store.h). */
#ifndef QUANT_STORE_LINEAR_H
#define QUANT_STORE_LINEAR_H

#include "formats/hf/safetensors.h"
#include "formats/read/matrix.h"

#define TENSOR_NAME_CAP 128

enum { LINEAR_TENSORS_MAX = 3 };
unsigned linear_tensors(const struct matrix *item);
/* One of them as a file plans it, its name in that. */
struct tensor_plan linear_tensor(const struct matrix *item, unsigned which, char name[TENSOR_NAME_CAP]);
/* Of all of them; 0 for what is not coded. */
uint64_t linear_bytes(const struct matrix *item);
/* Whether codes and scales are what a linear of that type can have. */
bool linear_sane(const struct qlinear *q, const struct matrix *item);
/* Writes them, in their order. */
bool linear_put(struct safetensors_writer *w, const struct matrix *item, const struct qlinear *q, struct err *e);
/* Whether a file has its codes. */
bool linear_there(const struct safetensors *f, const struct matrix *item);
/* Reads and checks them; the caller frees *out. ERR_ENV; name, dir: of the file, for messages. */
bool linear_get(const struct safetensors *f, const char *name, const char *dir, const struct matrix *item,
                struct qlinear *out, struct err *e);

#endif
