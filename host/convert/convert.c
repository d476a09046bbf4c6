/* A quantized folder in another format, with the codes it has. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/write/export.h"
#include "formats/write/export_plan.h"
#include "formats/write/hf_linear.h"
#include "formats/write/hf_plan.h"
#include "host/base/log.h"
#include "host/base/out_path.h"
#include "host/convert/convert.h"
#include "host/convert/convert_scales.h"
#include "formats/write/fate.h"

struct conversion {
    struct checkpoint *ck;
    struct convert_clock clock;
    struct matrix *list;
    size_t n;
};

static bool pull_linear(void *ctx, const struct matrix *item, struct qlinear *q, struct err *e)
{
    struct conversion *c = ctx;
    if (!checkpoint_read_codes(c->ck, item->module, q, e))
        return false;
    /* Scales may change their 16-bit type; codes never change. */
    q->spec.type = item->spec.type;
    for (size_t i = 0; i < (size_t)q->rows * q->groups * quant_type_planes(q->spec.type); i++)
        q->scales[i] = scale_round(item->spec.scale, q->scales[i]);
    q->spec.scale = item->spec.scale;
    return true;
}

static bool report(void *ctx, uint64_t done, uint64_t total)
{
    struct conversion *c = ctx;
    return convert_tell(&c->clock, done, total, "MB");
}

void convert_begin(struct convert_clock *c, const struct progress *p)
{
    eta_start(&c->eta, os_now_ns(), 0);
    progress_begin(&c->watch, p, &c->eta);
}

/* Of the time, what is still to come when all is written: it must reach the disk. */
#define SYNC_SHARE 0.15

bool convert_tell(struct convert_clock *c, uint64_t done, uint64_t total, const char *unit)
{
    struct eta *t = &c->eta;
    if (!t->open && total) {
        eta_expect(t, 0, 1e-9 * (double)total);
        eta_begin(t, 0, 1e-9 * (double)total, t->begin);
    }
    eta_part(t, (total ? (double)done / (double)total : 1) * (1 - SYNC_SHARE), os_now_ns());
    struct progress_event ev = {.phase = "export", .loss = NAN, .unit = unit, .count = 1e-6 * (double)done};
    return progress_report(&c->watch, &ev, NULL);
}

static void warn(void *ctx, const char *line)
{
    (void)ctx;
    log_warn("%s", line);
}

/* Every quantized linear of the model, with the scale type that the format wants. */
static bool collect(struct conversion *c, enum export_format format, unsigned container, struct err *e)
{
    /* These formats say what their scales are: f16, or the model's own dtype. Elsewhere scales stay as they
     * are. */
    bool fixed = export_sets_scales(format);
    enum scale_type scale = export_scale_type(format, c->ck);
    const struct fate_options o = {.policy = FATE_FOLDER,
                                   .exact = true,
                                   .family = family_of(checkpoint_config(c->ck)),
                                   .format = format,
                                   .container = container,
                                   .warn = warn};
    unsigned left = 0, coded = 0;
    if (!checkpoint_matrices(c->ck, &c->list, &c->n, e))
        return false;
    for (struct matrix *x = c->list; x < c->list + c->n; x++) {
        bool linear = matrix_is_linear(x) && x->coded;
        const struct quant_type *plain = linear ? quant_type_plain(x->spec.type) : NULL;
        x->spec.type = plain;
        x->coded = plain;
        coded += x->coded;
        left += linear && !x->coded;
        if (fixed)
            x->spec.scale = scale;
    }
    if (!fates_decide(c->list, c->n, &o, e))
        return false;
    if (left && coded)
        log_warn("%u linears are of GGUF types whose codes %s cannot hold: they become 16-bit weights", left,
                 export_format_name(format));
    if (coded)
        return convert_scales(c->ck, c->list, c->n, format, e);
    if (left) {
        err_set(e, ERR_USER, "%s cannot hold the codes of %s, whose GGUF types have scales of scales or uneven levels",
                export_format_name(format), checkpoint_dir(c->ck));
        return err_hint(e, "--format hf writes their values as 16-bit weights");
    }
    err_set(e, ERR_USER, "%s is not quantized: there are no codes to re-pack", checkpoint_dir(c->ck));
    return err_hint(e, "gsq quantize makes a quantized model from it");
}

static bool repack(struct conversion *c, const char *out, const struct convert_options *o, struct err *e)
{
    const struct export_options options = {.format = o->format, .container = o->container, .force = o->force};
    const struct export_source source = {c, pull_linear, report, NULL};
    struct export_plan *plan = NULL;
    bool ok = (o->format == EXPORT_HF || collect(c, o->format, o->container, e)) &&
              export_plan_make(&plan, c->ck, c->list, c->n, &options, e) && export_plan_write(plan, out, &source, e);
    export_plan_free(&plan);
    free(c->list);
    return ok;
}

/* Before the work: may it be written, and does nobody else? */
static bool check_out(const struct checkpoint *ck, const char *out, const struct convert_options *o,
                      struct os_lock *lock, struct err *e)
{
    const char *const inputs[] = {checkpoint_dir(ck)};
    bool file = o->format == EXPORT_GGUF;
    if (!export_check_out(o->format, out, ck, o->force, e) || !out_not_input("the output", out, inputs, 1, e))
        return false;
    if (o->size)
        return true;
    if (!(file ? out_lock_file(lock, out, e) : out_lock_folder(lock, out, e)))
        return false;
    out_tell_replaced(out, false);
    return true;
}

bool convert_run(const char *in, const char *out_path, const struct convert_options *o, const struct progress *progress,
                 struct err *e)
{
    struct conversion c = {0};
    struct os_lock lock = {0};
    char out[4096];
    convert_begin(&c.clock, progress);
    int n = snprintf(out, sizeof out, "%s", out_path);
    if (n < 0 || (size_t)n >= sizeof out)
        return err_set(e, ERR_USER, "the path is too long: %.200s", out_path);
    out_trim(out);
    bool made = os_stat(out, NULL) == OS_ABSENT;
    bool ok = checkpoint_open(&c.ck, in, e) && checkpoint_set_tiled(c.ck, o->format == EXPORT_GGUF, e) &&
              config_supported(checkpoint_config(c.ck), e) && check_out(c.ck, out, o, &lock, e);
    if (ok && o->format == EXPORT_GGUF)
        checkpoint_split_latent(c.ck);
    ok = ok && (o->format == EXPORT_GGUF ? convert_to_gguf(c.ck, out, o, progress, e) : repack(&c, out, o, e));
    checkpoint_close(&c.ck);
    os_unlock(&lock);
    if (!ok && made && o->format != EXPORT_GGUF)
        os_remove_dir(out); /* where nothing came into it */
    return ok;
}
