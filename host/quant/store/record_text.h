/* Reports as texts in the metadata of the store's files, and back. */
#ifndef QUANT_RECORD_TEXT_H
#define QUANT_RECORD_TEXT_H

#include "host/quant/record.h"

#define LINEAR_REPORT_CAP 320
#define STAGE_REPORT_CAP  2560

void linear_report_print(const struct linear_report *r, char out[LINEAR_REPORT_CAP]);
/* Losses are NAN where the text is none; NULL: there is none. */
void linear_report_scan(const char *text, struct linear_report *r);
/* A training stage with both curves. False: it does not fit; it is none. */
bool stage_report_print(const struct stage_report *r, char *out, size_t cap);
bool stage_report_scan(const char *text, struct stage_report *r);

#endif
