/* An output, planned and written at once. */
#ifndef TESTS_WRITE_OUT_H
#define TESTS_WRITE_OUT_H

#include "formats/write/export.h"
#include "formats/write/export_plan.h"

static inline bool write_out(const char *out, const struct checkpoint *c, const struct matrix *list, size_t n,
                             const struct export_options *o, const struct export_source *source, struct err *e)
{
    struct export_plan *p = NULL;
    bool ok = export_check_out(o->format, out, c, o->force || o->format == EXPORT_GGUF, e) &&
              export_plan_make(&p, c, list, n, o, e) && export_plan_write(p, out, source, e);
    export_plan_free(&p);
    return ok;
}

/* 0: it cannot be written. */
static inline uint64_t size_out(const struct checkpoint *c, const struct matrix *list, size_t n,
                                const struct export_options *o, struct err *e)
{
    struct export_plan *p = NULL;
    uint64_t size = 0;
    bool ok = export_plan_make(&p, c, list, n, o, e) && export_plan_size(p, &size, e);
    export_plan_free(&p);
    return ok ? size : 0;
}

#endif
