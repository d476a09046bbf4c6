/* Files beside a model's weights, which results take over as they are. */
#ifndef FORMATS_SIDE_FILE_H
#define FORMATS_SIDE_FILE_H

#include "host/base/os.h"

/* A file that a model may lack: *there says whether it has it. ERR_USER: what has its name is no regular file (a pipe, a
 * folder, a link that leads nowhere), which nobody left out on purpose. */
bool side_file_there(const char *path, bool *there, struct err *e);
/* Whether DIR/NAME is a file to be taken over; its path into `path` (4096 bytes). name: "tokenizer.json",
 * "FOLDER/FILE". Links, of the file or of FOLDER, are followed within DIR, into the blobs of a hub's cache, and to files of
 * the same name (a tokenizer lent by another model). A link to anything else is not a file of the model: a downloaded folder would otherwise bring any file of
 * this machine into the result. With `warn` that is said. */
bool side_file(const char *dir, const char *name, bool warn, char *path, uint64_t *size_or_null);

#endif
