/* Strict reading of JSON with cJSON: whole text, valid UTF-8, exact integers, messages that name the file.
 * cJSON_GetObjectItem ignores case and valueint saturates: use these instead. */
#ifndef FORMATS_JSON_H
#define FORMATS_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "host/base/err.h"

/* Parses text (any bytes). NULL on failure: ERR_USER with path, line, and what to do. The caller
 * cJSON_Delete()s. */
cJSON *json_parse(const char *text, size_t size, const char *path, struct err *e);
/* The same, but NaN, Infinity and -Infinity are numbers, as Python's json module writes and reads them. For files that
 * Python writes: config.json. */
cJSON *json_parse_python(const char *text, size_t size, const char *path, struct err *e);
/* The next number of a valid text, outside strings, at or after `at`: its length in bytes, and *begin. 0: none. */
size_t json_next_number(const char *at, const char *end, const char **begin);
/* Member of an object; NULL if absent, if o is no object, or if it is null. */
const cJSON *json_get(const cJSON *o, const char *key);
/* True if an object holds the same key twice; *key is then that key. Out of memory counts as none. */
bool json_duplicate(const cJSON *o, const char **key);
/* True if item is a number that is exactly an integer within [0, 2^53). */
bool json_u64(const cJSON *item, uint64_t *out);
/* "a number", "a string" ... for messages. */
const char *json_type_name(const cJSON *item);

#ifdef __clang_analyzer__ /* sees a declaration alone: no item is of no type */
#define cJSON_IsString(item) ((item) && cJSON_IsString(item))
#define cJSON_IsArray(item)  ((item) && cJSON_IsArray(item))
#define cJSON_IsObject(item) ((item) && cJSON_IsObject(item))
#define cJSON_IsNumber(item) ((item) && cJSON_IsNumber(item))
#endif

#endif
