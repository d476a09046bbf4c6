/* A finished run as JSON: what the report page (report.html) draws. */
#ifndef LIB_REPORT_JSON_H
#define LIB_REPORT_JSON_H

#include "host/base/str.h"
#include "lib/report_html.h"

/* Adds the run to b: one object. Figures have the names of docs/json.md, and what was not measured is null or left out. Texts
 * are cleaned (clean.h), with their lines. It may stand in a <script> of HTML: <, > and & are \u escapes, as are all characters
 * that JavaScript takes for line ends. False: out of memory. */
bool report_json(struct strbuf *b, const struct report_input *in, struct err *e);

#endif
