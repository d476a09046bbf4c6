/* The sections of the report page, in the order they stand there (report_html.c puts the page together). */
#ifndef LIB_REPORT_PARTS_H
#define LIB_REPORT_PARTS_H

#include "lib/report_html.h"
#include "host/base/str.h"

/* Colour classes of the page: the linears of a block, then the methods. */
enum report_color {
    COLOR_LINEARS,
    COLOR_OTHER = COLOR_LINEARS + LINEAR_COUNT,
    COLOR_RTN,
    COLOR_GPTQ,
    COLOR_FINAL,
    COLOR_COUNT
};
enum { MANY_BLOCKS = 8 }; /* past it, blocks are folded */

/* LINEAR_COUNT for a module of another name. */
unsigned report_kind(const char *module);
/* The block's number, from 0. */
uint32_t report_layer(const char *module);
/* "q_proj", "other". */
const char *report_kind_name(unsigned kind);

/* A line that says which colour is what. */
void report_legend(struct strbuf *b, const unsigned *colors, const char *const *names, size_t n);

void report_linears(struct strbuf *b, const struct report_input *in);
void report_training(struct strbuf *b, const struct report_input *in);
void report_codes(struct strbuf *b, const struct report_input *in);

#endif
