/* lib/report.html as cmake/embed_page.cmake put it into the program: a page that draws the run whose JSON stands in it. */
#ifndef LIB_REPORT_PAGE_H
#define LIB_REPORT_PAGE_H

#include <stddef.h>

/* Bytes of the page, and the offset in it at which the JSON of report_json goes. */
extern const char report_page[];
extern const size_t report_page_size, report_page_run;

#endif
