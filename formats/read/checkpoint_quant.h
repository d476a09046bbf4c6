/* Inside checkpoint_in: how each quantization method stores a linear, and its codes and scales row by row. */
#ifndef FORMATS_CHECKPOINT_QUANT_H
#define FORMATS_CHECKPOINT_QUANT_H

#include "arch/config.h"
#include "formats/quant_type.h"
#include "formats/hf/safetensors.h"

/* The tensors of one packed linear, checked against each other and against config.json. */
struct packed_linear {
    const char *module;
    enum quant_method method;
    const struct tensor *codes, *scales;
    const struct tensor *zeros, *g_idx; /* gptq; g_idx may be NULL (in order) */
    const struct tensor *biases;        /* mlx */
    const struct tensor *shape;         /* compressed-tensors: still to be compared with rows and cols; or NULL */
    uint32_t rows, cols, groups;
    struct quant_spec spec;
    uint64_t bytes;
};

/* Whether the module is stored packed in this method (decided by the names of its tensors). */
bool packed_present(const struct safetensors *s, enum quant_method method, const char *module);
/* Whether MODULE + suffix (".qweight") is one of the tensors of a linear packed in this method, as codes or as narrow
 * floating point. */
bool packed_suffix(enum quant_method method, const char *suffix);
/* rule: what config.json says about the module. Shapes, dtypes and companions are checked, not yet the data.
 */
bool packed_open(struct packed_linear *p, const struct safetensors *s, enum quant_method method,
                 const struct quant_rule *rule, const char *module, struct err *e);
/* Rows [row0, row0 + rows): codes [rows, cols] and scales [rows, groups]. Refuses a g_idx out of order, zero
 * points other than the symmetric one, and mlx biases other than -2^(bits-1) * scale. */
bool packed_rows(const struct packed_linear *p, const struct safetensors *s, uint32_t row0, uint32_t rows,
                 int8_t *codes, float *scales, struct err *e);

/* Whether what the file says of its shape is what its tensors have; packed_rows asks it too. */
bool packed_check_shape(const struct packed_linear *p, const struct safetensors *s, struct err *e);

/* MODULE + suffix among the tensors; NULL if absent (or the name does not fit). */
const struct tensor *module_tensor(const struct safetensors *s, const char *module, const char *suffix);

#endif
