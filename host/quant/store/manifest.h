/* WORK/manifest.json: which run a work folder belongs to, as names and values, and what was accepted since.
 *
 *     {"xxh3": checksum of this text (formats/hf/safetensors.h's rule: zeros in its place), "format": "gsq work
 * folder 3", "version": the gsq that began it, "run": {NAME: VALUE ...}, "accepted": [{"field", "was", "now",
 * "version"} ...]}
 *
 * Fields are of two kinds. Most say what is asked for: another value is another run. Those of manifest_place_fields()
  * say what computes it: with another value the finished blocks still belong to this run, but the bytes of the rest
 * differ. The user may accept that by name. */
#ifndef QUANT_MANIFEST_H
#define QUANT_MANIFEST_H

#include "host/base/err.h"
#include "host/base/num.h"

struct store_field {
    const char *name, *value;
};

/* The field with the version of the code (host/base/version.h). */
#define MANIFEST_VERSION "version"
/* "version, gsq, device, driver, kernels, ...": NULL ends the list. */
const char *const *manifest_place_fields(void);
/* Whether every name of a list "device,kernels" is one of those; ERR_USER naming the first that is not. NULL
 * is an empty list. */
bool manifest_accept_check(const char *list, struct err *e);

struct manifest;
void manifest_free(struct manifest **m);
/* Of these fields; text NULL: out of memory. */
struct manifest *manifest_make(const struct store_field *fields, size_t n, struct err *e);
/* From a text. NULL: ERR_ENV where the text is damaged, ERR_USER where an earlier gsq wrote it, in another format.
 * path: for messages. */
struct manifest *manifest_parse(const char *text, size_t size, const char *path, struct err *e);
/* As it stands in the file. */
const char *manifest_text(const struct manifest *m);
/* Value of a field; NULL: there is none. */
const char *manifest_value(const struct manifest *m, const char *name);
/* Of the fields that say what is asked for: the same in every part of a run. */
struct hash128 manifest_run(const struct manifest *m);

/* Compares the folder's manifest with this run's fields: all of both. ERR_USER naming what differs, if it is
 * another run, or if something differs that `accept` does not name. Otherwise *m is brought up to date where
 * something was accepted, which *changed tells (and a warning says). */
bool manifest_settle(struct manifest **m, const struct store_field *fields, size_t n, const char *accept,
                     const char *path, bool *changed, struct err *e);

#endif
