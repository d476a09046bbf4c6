#include "formats/write/export_plan.h"

#include <stdlib.h>

#include "formats/write/gguf_plan.h"
#include "formats/write/hf_plan.h"
#include "formats/write/write_gguf.h"
#include "formats/write/write_hf.h"

/* One of them is there. */
struct export_plan {
    struct hf_plan *folder;
    struct gguf_plan *file;
};

bool export_plan_make(struct export_plan **out, const struct checkpoint *src, const struct matrix *list, size_t n,
                      const struct export_options *o, struct err *e)
{
    struct export_plan *p = *out = calloc(1, sizeof *p);
    if (!p)
        return err_nomem(e, "the export plan", sizeof *p);
    bool ok = o->format == EXPORT_GGUF ? gguf_plan_make(&p->file, src, list, n, o, e)
                                       : hf_plan_make(&p->folder, src, list, n, o, e);
    if (!ok)
        export_plan_free(out);
    return ok;
}

bool export_plan_size(struct export_plan *p, uint64_t *bytes, struct err *e)
{
    if (p->file)
        return gguf_plan_size(p->file, bytes, e);
    *bytes = hf_plan_bytes(p->folder);
    return true;
}

bool export_check_out(enum export_format f, const char *out, const struct checkpoint *src, bool force, struct err *e)
{
    return f == EXPORT_GGUF ? gguf_check_out(out, src, force, e) : hf_check_out(out, src, force, e);
}

bool export_plan_write(struct export_plan *p, const char *out, const struct export_source *source, struct err *e)
{
    return p->file ? gguf_plan_write(p->file, out, source, e) : hf_plan_write(p->folder, out, source, e);
}

void export_plan_free(struct export_plan **p)
{
    if (!*p)
        return;
    hf_plan_free(&(*p)->folder);
    gguf_plan_free(&(*p)->file);
    free(*p);
    *p = NULL;
}
