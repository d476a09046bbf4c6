/* The calibration text that comes along with gsq (data/README.md says what is in it). */
#ifndef FORMATS_SHIPPED_TEXT_H
#define FORMATS_SHIPPED_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "host/base/err.h"

/* What a user calls it in place of a path. A file of that name is ./default. */
#define SHIPPED_TEXT "default"
/* With another text it gets another number: results and importance matrices name the text that made them. */
#define SHIPPED_TEXT_FILE "gsq-calibration-1.txt"

/* Whether a text is named that needs no path. NULL is none. */
bool shipped_text_meant(const char *name);
/* *path becomes the file that `name` stands for: name itself, or for "default" the file that comes along, in buf. It is
 * looked for in the folder that GSQ_DATA names and nowhere else if that is set (ERR_USER: not there); else in share/gsq
 * beside the program or library that gsq is in, one and two folders above, and where it is installed by default (ERR_ENV).
 */
bool shipped_text_path(const char **path, char *buf, size_t cap, const char *name, struct err *e);

#endif
