/* Any model as a GGUF: codes where a type holds them exactly, other weights in 16 or 32 bits. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/family.h"
#include "formats/write/export.h"
#include "formats/write/export_plan.h"
#include "formats/write/fate.h"
#include "formats/write/write_gguf.h"
#include "host/base/log.h"
#include "host/convert/convert.h"
#include "host/convert/convert_scales.h"

struct gguf_conversion {
    const struct checkpoint *ck;
    const struct convert_options *options;
    const struct gguf_type *type; /* --type; NULL: none */
    struct convert_clock clock;
    struct matrix *list;
    size_t n;
    uint64_t rounded; /* scales that f16 does not hold exactly */
};

/* f16 scales of a GGUF against those of the model. */
static bool check_scales(const struct gguf_conversion *c, struct err *e)
{
    struct scale_losses s = {0};
    for (size_t i = 0; i < c->n; i++) {
        const struct matrix *x = &c->list[i];
        bool f16 = !x->coded || x->spec.scale == SCALE_F16;
        if (!f16 && !convert_scales_one(&s, c->ck, x->module, e))
            return false;
    }
    convert_scales_end(&s);
    return true;
}

static bool pull_codes(void *ctx, const struct matrix *item, struct qlinear *q, struct err *e)
{
    struct gguf_conversion *c = ctx;
    return gguf_model_codes(c->ck, item, q, &c->rounded, e);
}

static bool report(void *ctx, uint64_t done, uint64_t total)
{
    struct gguf_conversion *c = ctx;
    return convert_tell(&c->clock, done, total, NULL);
}

static bool find_type(struct gguf_conversion *c, struct err *e)
{
    const char *name = c->options->type;
    if (!name)
        return true;
    c->type = gguf_type_named(name);
    if (c->type && (c->type->block == 1 || (c->type->codes && checkpoint_config(c->ck)->quant != QUANT_NONE)))
        return true;
    if (c->type)
        err_set(e, ERR_USER, "--type %s: convert does not quantize, and %s holds no codes", name,
                checkpoint_dir(c->ck));
    else
        err_set(e, ERR_USER, "--type %s is unknown", name);
    return err_hint(e, c->type ? "gsq quantize makes such a file" : "types of convert: F32, F16, BF16");
}

bool convert_to_gguf(const struct checkpoint *ck, const char *out, const struct convert_options *o,
                     const struct progress *progress, struct err *e)
{
    struct gguf_conversion c = {.ck = ck, .options = o};
    const struct fate_options fate = {.policy = FATE_GGUF, .exact = true};
    const struct export_options options = {
        .format = EXPORT_GGUF, .file_type = -1, .overrides = o->overrides, .n_overrides = o->n_overrides};
    const struct export_source source = {&c, pull_codes, report, NULL};
    struct export_plan *plan = NULL;
    convert_begin(&c.clock, progress);
    /* Of an unknown architecture the plan says that it is. */
    bool ok = find_type(&c, e) && (!family_of(checkpoint_config(ck)) || checkpoint_matrices(ck, &c.list, &c.n, e));
    for (size_t i = 0; ok && i < c.n; i++)
        c.list[i].wanted = c.type;
    ok = ok && fates_decide(c.list, c.n, &fate, e) && (o->size || check_scales(&c, e)) &&
         export_plan_make(&plan, ck, c.list, c.n, &options, e) &&
         (o->size ? export_plan_size(plan, o->size, e) : export_plan_write(plan, out, &source, e));
    if (ok && c.rounded)
        log_warn("%llu scales were rounded: GGUF stores them as 16-bit floats", (unsigned long long)c.rounded);
    export_plan_free(&plan);
    free(c.list);
    return ok;
}
