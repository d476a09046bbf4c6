/* Files and folders that are not what they are taken for: what lies there instead, and what to do. */
#ifndef FORMATS_FOREIGN_H
#define FORMATS_FOREIGN_H

#include <stddef.h>

#include "host/base/err.h"

/* Where the first n bytes of a file show what it is in place of what was expected (a Git LFS pointer, a web page, a
 * compressed or PyTorch file), sets ERR_USER that says so, and a hint; returns true then. */
bool foreign_file(const char *path, const void *bytes, size_t n, struct err *e);
/* Sets ERR_USER for a folder without `wanted` ("config.json"; "model.safetensors"): names what else lies there. Always
 * returns false. */
bool foreign_folder(const char *dir, const char *wanted, struct err *e);

#endif
