/* The page of a finished run: one HTML file that needs nothing else. */
#ifndef LIB_REPORT_HTML_H
#define LIB_REPORT_HTML_H

#include "host/base/os.h"
#include "lib/report_json.h"

/* Can the report be written there? For before the run: its folder exists (or is out_dir, which the run
 * creates) and is writable, and what is there already is such a page, or `force`. With dry_run nothing is tried
 * out. */
bool report_html_check(const char *path, const char *out_dir, bool dry_run, bool force, struct err *e);
/* Of the page of a model with that many blocks, about. */
uint64_t report_html_bytes(uint32_t blocks);
/* One run at a time writes it: to be held from before the work until it is written. Of a page in out_dir, which may be
 * created for it (*made_dir: it was). ERR_ENV names the process that has it. */
bool report_html_lock(struct os_lock *l, const char *path, const char *out_dir, bool *made_dir, struct err *e);
/* Appears whole or not at all. */
bool report_html_write(const char *path, const struct report_input *in, struct err *e);

#endif
