/* What lies beside the weights and goes with them. */
#ifndef FORMATS_CARRIED_H
#define FORMATS_CARRIED_H

#include <stdbool.h>

#include "host/base/err.h"

/* Keys of a GGUF that the files of a Hugging Face folder cannot express lie beside them, in a GGUF without
 * tensors. */
#define GGUF_CARRIED "metadata.gguf"

/* Files carried over byte for byte: tokenizer, chat templates, generation settings. name: as it is from the folder. */
bool export_carries(const char *name);
/* Of these, what os_list does not come to: "additional_chat_templates/NAME.jinja", in sorted order. */
#define EXPORT_TEMPLATES "additional_chat_templates"
bool export_list_templates(const char *dir, bool (*fn)(void *ctx, const char *name, struct err *e), void *ctx,
                           struct err *e);
/* Before the work: whether each of these in DIR is a regular file (side_file_there). True where DIR is no folder. */
bool export_check_carried(const char *dir, struct err *e);

#endif
