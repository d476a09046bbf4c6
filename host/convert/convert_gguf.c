/* Any model as a GGUF: codes where a type holds them exactly, other weights in 16 or 32 bits. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/write/write_gguf.h"
#include "host/base/log.h"
#include "host/base/str.h"
#include "host/convert/convert.h"
#include "host/convert/convert_scales.h"

struct gguf_conversion {
    const struct checkpoint *ck;
    const struct convert_options *options;
    const struct gguf_type *type; /* --type; NULL: none */
    struct convert_clock clock;
    struct gguf_item *items;
    size_t n, cap;
    uint64_t rounded; /* scales that f16 does not hold exactly */
    unsigned refused; /* weights without a place */
    struct err *e;    /* why, of the first */
};

static bool plain(const struct gguf_type *t)
{
    return t->id == GGML_F32 || t->id == GGML_F16 || t->id == GGML_BF16;
}

/* Where codes of this kind are at home, exactly. NULL: nowhere. */
static const struct gguf_type *home(const struct quant_spec *spec, uint32_t cols)
{
    bool two = !spec->type->group && spec->type->lo == -2 && spec->type->hi == 1;
    const struct gguf_type *t = gguf_type_for(spec);
    if (two && spec->group % 256 == 0 && cols % 256 == 0)
        t = gguf_type_of(GGML_TQ2_0);
    if (t && t->id == GGML_TQ1_0 && cols % 256 != 0)
        t = gguf_type_of(GGML_Q2_0);
    return t && cols % t->block == 0 ? t : NULL;
}

/* Whether a type that was asked for holds such codes. */
static bool holds(const struct gguf_type *t, const struct quant_spec *spec, uint32_t cols)
{
    const struct quant_type *l = t->codes, *s = spec->type;
    if (!l || cols % t->block != 0)
        return false;
    return l == s || (!s->group && !l->super && s->lo >= l->lo && s->hi <= l->hi && spec->group % t->block == 0);
}

static const struct gguf_type *dense_type(enum dtype d)
{
    return gguf_type_of(d == DTYPE_F32 ? GGML_F32 : d == DTYPE_BF16 ? GGML_BF16 : GGML_F16);
}

/* False: the weight has no place. */
static bool choose(struct gguf_conversion *c, const char *module, const struct weight_info *w, struct gguf_item *item)
{
    *item = (struct gguf_item){.module = module, .type = c->type, .spec = w->spec};
    if (c->type && plain(c->type))
        return true;
    if (!w->quantized) {
        item->type = dense_type(w->dtype);
        return true;
    }
    item->coded = true;
    item->type = c->type ? c->type : home(&w->spec, w->cols);
    if (item->type && (!c->type || holds(c->type, &w->spec, w->cols)))
        return true;
    if (c->refused++)
        return false;
    err_set(c->e, ERR_USER, "%s: codes of type %s, one scale for %u of %u columns, have no exact place in %s", module,
            w->spec.type->name, (unsigned)w->spec.group, (unsigned)w->cols,
            c->type ? c->type->name : "any type of GGUF");
    return err_hint(c->e, "--type F16 stores the values that they stand for; gsq quantize makes other codes from "
                          "the original model");
}

static bool add_item(void *ctx, const char *module, uint32_t rows, uint32_t cols)
{
    struct gguf_conversion *c = ctx;
    struct weight_info w;
    (void)rows;
    (void)cols;
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 64;
        struct gguf_item *grown = realloc(c->items, cap * sizeof *grown);
        if (!grown)
            return err_nomem(c->e, "the list of weights", cap * sizeof *grown);
        c->items = grown;
        c->cap = cap;
    }
    char *name = str_dup(module);
    if (!name)
        return err_nomem(c->e, "the list of weights", strlen(module));
    bool known = checkpoint_weight(c->ck, name, &w, c->refused ? NULL : c->e);
    if (known && choose(c, name, &w, &c->items[c->n]))
        c->n++;
    else
        free(name);
    return known; /* all that have no place are counted */
}

/* f16 scales of a GGUF against those of the model. */
static bool check_scales(const struct gguf_conversion *c, struct err *e)
{
    struct scale_losses s = {0};
    for (size_t i = 0; i < c->n; i++) {
        const struct gguf_item *x = &c->items[i];
        bool f16 = !x->coded || x->type->codes->super || x->spec.scale == SCALE_F16;
        if (!f16 && !convert_scales_one(&s, c->ck, x->module, e))
            return false;
    }
    convert_scales_end(&s);
    return true;
}

/* Of the plain types that a type holds, only those with its very levels are taken as they are. */
static bool pull_codes(void *ctx, const struct gguf_item *item, struct qlinear *q, struct err *e)
{
    struct gguf_conversion *c = ctx;
    const struct quant_type *l = item->type->codes;
    if (!checkpoint_read_codes(c->ck, item->module, q, e))
        return false;
    if (l->super)
        return true;
    for (size_t i = 0; i < (size_t)q->rows * q->groups; i++) {
        float s = scale_round(SCALE_F16, q->scales[i]);
        c->rounded += s != q->scales[i];
        q->scales[i] = s;
    }
    q->spec.scale = SCALE_F16;
    if (!q->spec.type->group && l->lo < q->spec.type->lo && l->bits == q->spec.type->bits)
        q->spec.type = quant_type_of_bits(l->bits); /* ternary codes among the four of two bits */
    return true;
}

static bool report(void *ctx, uint64_t done, uint64_t total)
{
    struct gguf_conversion *c = ctx;
    return convert_tell(&c->clock, done, total, NULL);
}

static bool find_type(struct gguf_conversion *c)
{
    const char *name = c->options->type;
    if (!name)
        return true;
    c->type = gguf_type_named(name);
    if (c->type && (plain(c->type) || (c->type->codes && checkpoint_config(c->ck)->quant != QUANT_NONE)))
        return true;
    if (c->type)
        err_set(c->e, ERR_USER, "--type %s: convert does not quantize, and %s holds no codes", name,
                checkpoint_dir(c->ck));
    else
        err_set(c->e, ERR_USER, "--type %s is unknown", name);
    return err_hint(c->e, c->type ? "gsq quantize makes such a file" : "types of convert: F32, F16, BF16");
}

bool convert_to_gguf(const struct checkpoint *ck, const char *out, const struct convert_options *o,
                     const struct progress *progress, struct err *e)
{
    struct err first = {0}; /* the walk below does not say why it stopped */
    struct gguf_conversion c = {.ck = ck, .options = o, .e = &first};
    convert_begin(&c.clock, progress);
    struct gguf_options options = {.file_type = -1, .overrides = o->overrides, .n_overrides = o->n_overrides};
    struct gguf_source source = {.ctx = &c, .linear = pull_codes, .progress = report};
    bool ok = find_type(&c) && gguf_weights_each(ck, add_item, &c) && !c.refused;
    if (!ok && c.refused > 1) {
        size_t at = strlen(first.msg);
        snprintf(first.msg + at, sizeof first.msg - at, "; nor have those of %u more weights", c.refused - 1);
    }
    if (!ok && first.kind == ERR_NONE)
        ok = true; /* a tensor is missing: write_gguf says which */
    else if (!ok && e)
        *e = first;
    if (ok && o->size)
        ok = (*o->size = write_gguf_size(ck, c.items, c.n, &options, e)) > 0;
    else
        ok = ok && check_scales(&c, e) && write_gguf(out, ck, c.items, c.n, &options, &source, e);
    if (ok && c.rounded)
        log_warn("%llu scales were rounded: GGUF stores them as 16-bit floats", (unsigned long long)c.rounded);
    for (size_t i = 0; i < c.n; i++)
        free((char *)c.items[i].module);
    free(c.items);
    return ok;
}
