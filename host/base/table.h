/* A table of text, columns as wide as their widest cell. */
#ifndef BASE_TABLE_H
#define BASE_TABLE_H

#include "host/base/str.h"

struct table;
/* align: one letter per column, 'l' or 'r'. NULL when out of memory; the calls below then do nothing. */
struct table *table_create(const char *align);
/* The next cell, row by row. */
void table_cell(struct table *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Adds the table to a text with this many spaces in front of each line, and frees it. */
void table_add(struct table **t, struct strbuf *out, int indent);

#endif
