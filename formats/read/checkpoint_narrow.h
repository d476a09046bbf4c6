/* Inside checkpoint_in: weights that a folder holds as floating point of fewer than 16 bits, scaled: FP8 in blocks, in
 * rows or whole (DeepSeek-V3, Kimi-K2, FP8 folders of Qwen3, compressed-tensors float-quantized), MXFP4 (compressed-tensors
 * mxfp4-pack-quantized). Models are released in them, and what they say is the model: they are read as f32, and are no
 * codes of ours. */
#ifndef FORMATS_CHECKPOINT_NARROW_H
#define FORMATS_CHECKPOINT_NARROW_H

#include "arch/config.h"
#include "formats/gguf/gguf_type.h"
#include "formats/hf/safetensors.h"

struct narrow_linear {
    const char *module;
    const struct tensor *values, *scales;
    bool fp4; /* two E2M1 values a byte, the first in the low half, and E8M0 scales; else E4M3 */
    uint32_t rows, cols;
    uint32_t row_first, row_step;    /* row r is the row_first + r * row_step-th of both tensors */
    uint32_t block_rows, block_cols; /* weights that share a scale; at the ends there may be fewer */
};

/* One of MXFP4 with [rows, cols] among the rows of its tensors, [.., cols / 2] and [.., cols / 32]. */
struct narrow_linear narrow_fp4(const char *module, const struct tensor *values, const struct tensor *scales,
                                uint32_t rows, uint32_t cols);
/* Whether the module's weight is such a one, by the type of its tensor. */
bool narrow_present(const struct safetensors *s, enum quant_method method, const char *module);
/* rule: what config.json says of the module. Shapes and types are checked, not yet the data. */
bool narrow_open(struct narrow_linear *w, const struct safetensors *s, const struct quant_rule *rule,
                 const char *module, struct err *e);
uint64_t narrow_bytes(const struct narrow_linear *w);
/* "F8_E4M3", "F4_E2M1". */
const char *narrow_type_name(const struct narrow_linear *w);
/* The type of GGUF that holds it to the last bit; NULL: none. Rows in its blocks, whose first sixteen values are in low halves. */
const struct gguf_type *narrow_blocks_type(const struct narrow_linear *w);
bool narrow_blocks(const struct narrow_linear *w, uint32_t row0, uint32_t rows, uint8_t *dst, struct err *e);
/* Rows [row0, row0 + rows) as f32 into dst [rows, cols]: value times scale, rounded once. */
bool narrow_rows(const struct narrow_linear *w, uint32_t row0, uint32_t rows, float *dst, struct err *e);
/* NaN among the values, NaN and infinities among the scales: ERR_USER naming tensor, file, element. */
bool narrow_check_finite(const struct narrow_linear *w, const struct safetensors *s, struct err *e);

#endif
