/* WORK/costs.json: what types cost (method/sensitivity.h), which a run that was stopped need not measure again. It is there before the
 * manifest is: what a run is, its types too, follows from it. */
#ifndef QUANT_STORE_COSTS_H
#define QUANT_STORE_COSTS_H

#include <stdbool.h>
#include <stddef.h>

#include "host/base/err.h"

#define STORE_COSTS "costs.json"
/* False: there is none, or none of that run with so many numbers. run: what they depend on, as a text. */
bool store_read_costs(const char *dir, const char *run, double *costs, size_t n);
bool store_write_costs(const char *dir, const char *run, const double *costs, size_t n, struct err *e);

#endif
