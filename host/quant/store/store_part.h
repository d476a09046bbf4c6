/* Which file of the work folder holds which linears of a block. Without experts a block is one file. Else its part 0 holds what
 * all tokens go through, each further part a few experts: of small ones PART_EXPERTS, of large ones as many as have
 * PART_WEIGHTS weights, at least one. So a file is written every few experts, and what is in memory of a layer is bounded. The
 * rule looks at the model alone. */
#ifndef QUANT_STORE_PART_H
#define QUANT_STORE_PART_H

#include "formats/read/matrix.h"

enum { PART_EXPERTS = 4 };
#define PART_WEIGHTS (1ull << 28)

uint32_t store_part_of(const struct matrix *item);
/* Of a block. */
uint32_t store_parts(struct block_items b);
struct block_items store_part(struct block_items b, uint32_t part);
/* Whether it has a file: part 0, and what has something coded. */
bool store_part_has_file(struct block_items part);
/* How many of a block have one. */
uint32_t store_files(struct block_items b);
/* "block-0007.safetensors", "block-0007-part-0003.safetensors" */
#define PART_NAME_CAP 48
const char *store_part_name(uint32_t layer, uint32_t part, char out[PART_NAME_CAP]);

#endif
