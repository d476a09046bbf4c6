/* Blocks of GGUF whose values come from a codebook of whole vectors: IQ1, IQ2 and IQ3 in all their kinds. They are read, not
 * written. Private to gguf_blocks.c. */
#ifndef FORMATS_GGUF_CODEBOOKS_H
#define FORMATS_GGUF_CODEBOOKS_H

#include "formats/gguf/gguf_type.h"

/* Whether t is one of those. */
bool gguf_codebook_type(const struct gguf_type *t);
/* The values of one block, to the last bit what ggml makes of them. */
void gguf_codebook_dequant(const struct gguf_type *t, const uint8_t *bytes, float *dst);
/* The scale of a whole block, which must be finite. */
float gguf_codebook_scale(const struct gguf_type *t, const uint8_t *bytes);

#endif
