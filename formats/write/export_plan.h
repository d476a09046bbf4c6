/* An output: planned once, before any work; written from that plan. */
#ifndef FORMATS_EXPORT_PLAN_H
#define FORMATS_EXPORT_PLAN_H

#include "formats/write/export.h"

/* All that is found out about an output before its first byte: each tensor, its place, its type. What texts of the options
 * say is read again as it is written: the run is known later. */
struct export_plan;
/* list: every 2-D weight of the model, with what becomes of it (matrix.h); of a folder at least those that are coded. Every
 * refusal that waits neither for codes nor for values is made here. src, the list
 * and what the options point to outlive the plan. */
bool export_plan_make(struct export_plan **out, const struct checkpoint *src, const struct matrix *list, size_t n,
                      const struct export_options *o, struct err *e);
/* Before hours of work: bytes of the output, and what writing would find at the end of them (texts that cannot be read, values
 * that F16 cannot hold). */
bool export_plan_size(struct export_plan *p, uint64_t *bytes, struct err *e);
/* Whether it may be written there (preflight; export_plan_write checks again): refuses the source itself under any path, links,
 * and what gsq did not write, unless `force`. Creates nothing. */
bool export_check_out(enum export_format f, const char *out, const struct checkpoint *src, bool force, struct err *e);
/* Writes it. The place, the room on the disk and the files beside the weights are looked at again: they may be others by now.
 * Files appear under their final name only when whole. Same input, same bytes. */
bool export_plan_write(struct export_plan *p, const char *out, const struct export_source *source, struct err *e);
void export_plan_free(struct export_plan **p);

#endif
