/* The plan of a run, for people and as JSON. */
#ifndef APP_PLAN_PRINT_H
#define APP_PLAN_PRINT_H

#include <stdio.h>

#include <cjson/cJSON.h>

#include "host/quant/plan.h"

void plan_print(FILE *f, const struct plan *p, const struct quantize_options *o);
/* Adds the plan's figures to a JSON object. */
void plan_json(cJSON *j, const struct plan *p);

#endif
