/* A folder of config.json and safetensors as a model: 16 bits, or packed in any export format of ours. */
#ifndef FORMATS_CHECKPOINT_FOLDER_H
#define FORMATS_CHECKPOINT_FOLDER_H

#include "arch/config.h"
#include "formats/read/model_source.h"

extern const struct model_source folder_source;
/* Fills *config, which must stay where it is (freed by config_free, also after a failure). NULL and *e on failure. */
void *folder_source_open(const char *dir, struct model_config *config, struct err *e);

#endif
