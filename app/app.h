/* What the commands share: one function each, the device, and where text goes. */
#ifndef APP_APP_H
#define APP_APP_H

#include <cjson/cJSON.h>

#include "app/args.h"
#include "host/base/num.h"
#include "lib/gsq.h"

bool cmd_quantize(const struct args *a, struct err *e);
bool cmd_eval(const struct args *a, struct err *e);
bool cmd_compare(const struct args *a, struct err *e);
bool cmd_inspect(const struct args *a, struct err *e);
bool cmd_convert(const struct args *a, struct err *e);
bool cmd_imatrix(const struct args *a, struct err *e);
bool cmd_devices(const struct args *a, struct err *e);
bool cmd_bench(const struct args *a, struct err *e);

/* Results for people: stdout, or stderr when stdout carries JSON. */
FILE *app_out(const struct args *a);

/* The device the options name. */
bool app_device_open(gsq_device **out, const struct args *a, struct err *e);
/* Of what was opened, if any. ok: what the command would return. Turns success into ERR_BUG if the validation layer
 * complained. */
bool app_device_close(gsq_device **device, bool ok, struct err *e);
/* The library's error as the program's; returns ok. */
bool app_result(bool ok, const struct gsq_error *from, struct err *e);

/* {"event": NAME}, the first of a run with schema and version, to be filled as docs/json.md says; NULL when out of memory (cJSON takes NULL everywhere). */
cJSON *json_event(const char *name);
/* Moves the fields of an object that the library printed to the end of o. */
void json_take(cJSON *o, const char *object);
/* One line on stdout; deletes o. */
void json_emit(cJSON *o);

#endif
