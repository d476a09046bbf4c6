/* One block of a GGUF tensor type taken apart. Private to gguf_blocks.c and gguf_round.c. */
#ifndef FORMATS_GGUF_BLOCKS_H
#define FORMATS_GGUF_BLOCKS_H

#include "formats/gguf/gguf_type.h"

/* Of the types with a layout (not F32, F16, BF16). */
struct gguf_block {
    uint8_t q[256];                /* codes as stored, unsigned */
    uint16_t d, m;                 /* f16 bits; d of MXFP4 is its exponent byte; m is dmin, or m of Q4_1, Q5_1 */
    int16_t scale[16], offset[16]; /* the integers of a super-block */
};
/* bytes: t->bytes of them, any alignment. Storing sets every bit. */
void gguf_block_load(const struct gguf_type *t, const uint8_t *bytes, struct gguf_block *b);
void gguf_block_store(const struct gguf_type *t, const struct gguf_block *b, uint8_t *bytes);
/* What the stored code of t lies above the number it stands for: value = (q - bias) * scale. */
int gguf_block_bias(const struct gguf_type *t);
/* That number where the stored codes are those of a table, [1 << bits]: value = levels[q] * scale. NULL: there is none. */
const int8_t *gguf_block_levels(const struct gguf_type *t);
/* A scale in a byte, of MXFP4 and NVFP4 (quant_type_scale), and back: half of what the byte says, as levels are doubled. False: it is
 * none. */
bool gguf_scale_to_byte(enum scale_type t, float scale, uint8_t *byte);
float gguf_scale_of_byte(enum scale_type t, uint8_t byte);
/* The stored code of a level, of whichever kind; -1: it is none. */
int gguf_block_code(const struct gguf_type *t, int level);

#endif
