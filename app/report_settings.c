#include "app/report_settings.h"

#include <stdlib.h>
#include <string.h>

#include "app/option_table.h"

/* Not settings of the result: how the program talks. */
static bool is_setting(const struct option *o)
{
    return o->help && (o->commands & 1u << CMD_QUANTIZE) && !(o->section == SECTION_COMMON && o->type == OPT_FLAG);
}

/* "--bits"; NULL: out of memory. */
static char *dashed(const char *name)
{
    struct strbuf b = {0};
    strbuf_puts(&b, "--");
    strbuf_puts(&b, name);
    return b.data;
}

/* Adds a row unless the option has no value. */
static bool add(struct gsq_setting *s, size_t *n, const struct option *o, const struct args *a,
                const struct args *defaults)
{
    struct strbuf value = {0}, usual = {0};
    option_value(o, a, &value);
    option_value(o, defaults, &usual);
    bool ok = !value.failed && !usual.failed, any = ok && value.data && value.data[0];
    if (any) {
        s[*n] = (struct gsq_setting){
            .section = option_section_title(o->section),
            .name = dashed(o->name),
            .value = value.data,
            .help = o->help,
            .set = !usual.data || strcmp(usual.data, value.data) != 0,
            .used = option_used(o, a),
        };
        ok = s[(*n)++].name != NULL;
    } else {
        strbuf_free(&value);
    }
    strbuf_free(&usual);
    return ok;
}

bool report_settings(const struct args *a, struct gsq_setting **out, size_t *n, struct err *e)
{
    struct args defaults;
    size_t most = 0;
    args_defaults(&defaults);
    for (const struct option *o = options; o->name; o++)
        most++;
    struct gsq_setting *s = calloc(most, sizeof *s);
    bool ok = s != NULL;
    *n = 0;
    for (int section = 0; ok && section < SECTION_COUNT; section++)
        for (const struct option *o = options; ok && o->name; o++)
            if ((int)o->section == section && is_setting(o))
                ok = add(s, n, o, a, &defaults);
    args_free(&defaults);
    *out = s;
    if (ok)
        return true;
    report_settings_free(out, *n);
    return err_nomem(e, "the report's settings", most * sizeof *s);
}

void report_settings_free(struct gsq_setting **settings, size_t n)
{
    struct gsq_setting *s = *settings;
    *settings = NULL;
    for (size_t i = 0; s && i < n; i++) {
        free((char *)(uintptr_t)s[i].name);
        free((char *)(uintptr_t)s[i].value);
    }
    free(s);
}
