/* The command line's options as rows of the report page. */
#ifndef APP_REPORT_SETTINGS_H
#define APP_REPORT_SETTINGS_H

#include "app/args.h"
#include "lib/gsq.h"

/* Every option of quantize that says something of the result and has a value, by section. [*n], to be freed by
 * report_settings_free. False: out of memory. */
bool report_settings(const struct args *a, struct gsq_setting **out, size_t *n, struct err *e);
void report_settings_free(struct gsq_setting **settings, size_t n);

#endif
