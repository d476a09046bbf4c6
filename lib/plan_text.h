/* The plan of a run, for people and as JSON. */
#ifndef LIB_PLAN_TEXT_H
#define LIB_PLAN_TEXT_H

#include <cjson/cJSON.h>

#include "host/base/str.h"
#include "host/quant/plan.h"

void plan_text(struct strbuf *f, const struct plan *p, const struct quantize_options *o);
/* Of types that were chosen: the options that name them, `between` each. */
void plan_choice_options(struct strbuf *f, const struct plan *p, const char *between);
/* Of a plan made by plan_fates: what becomes of the weights, bits per weight, the size of the result. */
void plan_fates_text(struct strbuf *f, const struct plan *p);
/* Adds the plan's figures to a JSON object. */
void plan_json(cJSON *j, const struct plan *p);

#endif
