/* A GGUF as a model: its metadata as a config, its tensors under Hugging Face names, rows in Hugging Face
 * order. */
#ifndef FORMATS_CHECKPOINT_GGUF_H
#define FORMATS_CHECKPOINT_GGUF_H

#include "arch/config.h"
#include "formats/read/model_source.h"

extern const struct model_source gguf_source;
/* Fills *config (gguf_config.h), which must stay where it is (freed by config_free, also after a failure). NULL and *e on
 * failure. */
void *gguf_source_open(const char *path, struct model_config *config, struct err *e);

#endif
