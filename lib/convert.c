#include "host/convert/convert.h"

#include <string.h>

#include "host/base/str.h"
#include "lib/lib_internal.h"

void gsq_convert_options_init_sized(struct gsq_convert_options *o, size_t size)
{
    struct gsq_convert_options defaults = {.size = size};
    memcpy(o, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

static bool find_format(const struct gsq_convert_options *o, enum export_format *out, struct err *e)
{
    char names[128];
    *out = EXPORT_GGUF;
    if (!o->format && str_ends_nocase(o->out, ".gguf"))
        return true;
    if (!o->format) {
        err_set(e, ERR_USER, "a conversion needs --format: %s does not end in .gguf", o->out);
        return err_hint(e, "formats: %s", export_format_names(names, sizeof names));
    }
    *out = export_format_parse(o->format);
    if (*out != EXPORT_NONE)
        return true;
    err_set(e, ERR_USER, "--format %s is unknown", o->format);
    return err_hint(e, "formats: %s", export_format_names(names, sizeof names));
}

bool gsq_convert(const gsq_model *model, const struct gsq_convert_options *options, struct gsq_error *e)
{
    struct err why = {0};
    struct gsq_convert_options a = {0};
    struct convert_options o = {0};
    bool ok = lib_take(&a, sizeof a, options, "gsq_convert_options", &why);
    if (ok && !a.out)
        ok = err_set(&why, ERR_USER, "gsq_convert_options.out is not set: where should the model go?");
    ok = ok && find_format(&a, &o.format, &why);
    o.container = a.container;
    o.force = a.force;
    o.type = a.type;
    struct lib_progress p = {a.progress, a.ctx};
    struct progress progress = lib_progress(&p);
    ok = ok && convert_run(model->path, a.out, &o, &progress, &why);
    return lib_result(ok, &why, e);
}
