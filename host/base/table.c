#include "host/base/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/clean.h"

struct table {
    const char *align;
    size_t columns, n;
    char **cells;
};

struct table *table_create(const char *align)
{
    struct table *t = calloc(1, sizeof *t);
    if (t) {
        t->align = align;
        t->columns = strlen(align);
    }
    return t;
}

void table_cell(struct table *t, const char *fmt, ...)
{
    char text[512], clean[sizeof text * 2];
    if (!t)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    clean_text(clean, sizeof clean, text, strlen(text), false);
    char **cells = realloc(t->cells, (t->n + 1) * sizeof *cells);
    if (!cells)
        return;
    t->cells = cells;
    cells[t->n++] = str_dup(clean);
}

/* Columns that a UTF-8 text takes on a screen, near enough. */
static int screen_width(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

void table_add(struct table **table, struct strbuf *out, int indent)
{
    struct table *t = *table;
    *table = NULL;
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++) {
        size_t column = i % t->columns;
        int width = 0;
        for (size_t j = column; j < t->n; j += t->columns) {
            int w = screen_width(t->cells[j] ? t->cells[j] : "");
            width = w > width ? w : width;
        }
        const char *cell = t->cells[i] ? t->cells[i] : "";
        int pad = width - screen_width(cell);
        bool last = column + 1 == t->columns || i + 1 == t->n, right = t->align[column] == 'r';
        strbuf_printf(out, "%*s%*s", column == 0 ? indent : 2, "", right ? pad : 0, "");
        strbuf_puts(out, cell);
        strbuf_printf(out, "%*s%s", right || last ? 0 : pad, "", last ? "\n" : "");
    }
    for (size_t i = 0; i < t->n; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t);
}
