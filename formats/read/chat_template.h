/* The chat template that a model comes with. */
#ifndef FORMATS_CHAT_TEMPLATE_H
#define FORMATS_CHAT_TEMPLATE_H

#include "formats/json.h"
#include "formats/read/checkpoint_in.h"

/* Its text: of a GGUF from the metadata; of a folder chat_template.jinja, or what tokenizer_config.json has (of several the one that is
 * called "default"). The caller frees it. NULL: there is none, or it cannot be read. */
char *chat_template_read(const struct checkpoint *ck);
/* Of tokenizer_config.json's "chat_template", a string, or a list where one is named "default". NULL: there is none. */
const char *chat_template_default(const cJSON *item);

#endif
