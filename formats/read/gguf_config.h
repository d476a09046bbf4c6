/* The metadata of a GGUF as the config of a model. */
#ifndef FORMATS_GGUF_CONFIG_H
#define FORMATS_GGUF_CONFIG_H

#include "arch/config.h"
#include "formats/gguf/gguf.h"

/* Metadata that are missing, out of range or of a kind that gsq does not compute (partial rotary embeddings, yarn) are
 * ERR_USER naming the key. An architecture that gsq does not know is not refused here: *c names it, and holds what there
 * is. Freed by config_free, also after a failure. */
bool gguf_config_read(struct model_config *c, const struct gguf *g, const char *path, struct err *e);

#endif
