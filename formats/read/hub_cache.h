/* Models that were downloaded from the Hugging Face hub, by their names there ("org/name"). */
#ifndef FORMATS_HUB_CACHE_H
#define FORMATS_HUB_CACHE_H

#include <stdbool.h>
#include <stddef.h>

#include "host/base/err.h"

/* Where MODEL lies. What is there as a file or folder is itself. Else "org/name" or "org/name@revision" (a branch, tag
 * or commit; default main) is looked for in the caches: $HF_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub,
 * ~/.cache/huggingface/hub (%USERPROFILE%\.cache\... on Windows). out is the snapshot's folder, or the one GGUF file in
 * it. Any other name is copied as it is, and opening it says what is wrong. ERR_USER for a model that is not
 * in the caches (with the command that downloads it), is there in other revisions only, or in part. */
bool hub_locate(const char *model, char *out, size_t cap, struct err *e);
/* "name" of a path within such a snapshot (.../models--org--name/snapshots/...); false: it is none. */
bool hub_name_of(const char *path, char *out, size_t cap);

#endif
