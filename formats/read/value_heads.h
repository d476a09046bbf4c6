/* Value heads of the gated delta rule in another order than a model's files have them. Where there are more of them than key heads, a
 * folder has those of one key head side by side: head g * r + j of r for each key head g. llama.cpp's GGUFs of Qwen3.5 have each key
 * head's j-th together: head j * key_heads + g ("tiled"). Codes that are made for a GGUF are learned in its order, because groups of the
 * output matrix's columns may reach over several heads. */
#ifndef FORMATS_VALUE_HEADS_H
#define FORMATS_VALUE_HEADS_H

#include "arch/config.h"
#include "formats/read/model_source.h"

/* Whether a model's GGUFs have another order than its folders. */
bool value_heads_differ(const struct model_config *c);
/* Numbers of one column of the output matrix each, as sums of an importance matrix are, from one order into the other. False:
 * ERR_ENV, no memory. module: whose they are; those of others stay. */
bool value_heads_turn_columns(const struct model_config *c, const char *module, bool to_tiled, float *v, uint32_t cols,
                              struct err *e);

/* Shows what `of` has in the order that c->delta.tiled says, which must not be its own. Owns `self`, also where it fails (NULL). */
void *value_heads_open(const struct model_source *of, void *self, const struct model_config *c, struct err *e);
extern const struct model_source value_heads_source;

#endif
