/* Perl-style patterns (PCRE2), searched in names. They come from options and files: none hangs the program. */
#ifndef FORMATS_PATTERN_H
#define FORMATS_PATTERN_H

#include <stdbool.h>

#include "host/base/err.h"

struct pattern;
/* text stays where it is. ERR_USER where it is no regular expression. */
bool pattern_compile(struct pattern **out, const char *text, bool ignore_case, struct err *e);
/* Whether it is found in the name. ERR_USER where that takes too many steps. */
bool pattern_search(const struct pattern *p, const char *name, bool *found, struct err *e);
void pattern_free(struct pattern **p);

#endif
