#include "formats/write/fate.h"

#include <stdio.h>
#include <string.h>

#include "formats/write/gguf_mixture.h"
#include "formats/write/hf_linear.h"

/* ---- a folder ---- */

/* Linears that the format cannot hold, gathered so that one message says all of them. */
struct refusals {
    unsigned linears, kinds;
    bool of[ROLE_COUNT];
    char first[512]; /* why, of the first */
    char names[160]; /* of the kinds: "q_proj|up_proj" */
};

static void refuse(struct refusals *r, const struct matrix *x, const char *why)
{
    if (!r->linears++)
        snprintf(r->first, sizeof r->first, "%s", why);
    if (r->of[x->part->role])
        return;
    r->of[x->part->role] = true;
    size_t at = strlen(r->names);
    snprintf(r->names + at, sizeof r->names - at, "%s%s", r->kinds++ ? "|" : "", matrix_kind(x));
}

static bool refused(const struct refusals *r, const struct fate_options *o, struct err *e)
{
    if (r->kinds == 1)
        err_set(e, ERR_USER, "%s", r->first);
    else
        err_set(e, ERR_USER, "%s cannot hold %u linears of %u kinds; the first: %s", export_format_name(o->format),
                r->linears, r->kinds, r->first);
    return o->exact
               ? err_hint(e, "convert copies codes as they are: --format hf writes their values as 16-bit weights, gsq "
                             "quantize makes other codes from the original model")
               : err_hint(e, "--keep '%s' leaves such linears in 16 bits; other formats may take them", r->names);
}

/* Linears whose shapes and groups the format holds. A warning is said for the first of its kind. */
static bool in_folder(const struct matrix *list, size_t n, const struct fate_options *o, struct err *e)
{
    char why[512];
    bool said[ROLE_COUNT] = {false};
    struct refusals r = {0};
    for (const struct matrix *x = list; x < list + n; x++) {
        if (!x->coded)
            continue;
        enum export_verdict verdict = export_check(o->format, o->family, x, o->container, why, sizeof why);
        if (verdict == EXPORT_REFUSED && o->exact) {
            if (strncmp(why, "--container", strlen("--container")) == 0) /* of no linear */
                return err_set(e, ERR_USER, "%s", why);
            char *remedy = strstr(why, "; "); /* of who quantizes */
            if (remedy)
                *remedy = 0;
        }
        if (verdict == EXPORT_REFUSED)
            refuse(&r, x, why);
        if (verdict == EXPORT_WARN && !said[x->part->role]) {
            o->warn(o->ctx, why);
            said[x->part->role] = true;
        }
    }
    return !r.linears || refused(&r, o, e);
}

/* ---- a GGUF whose codes are made ---- */

/* A linear's codes are learned; all else is rounded as it is written. */
static bool fit(struct matrix *x, struct err *e)
{
    if (x->copied) {
        x->type = x->wanted;
        x->coded = false;
        return true;
    }
    x->type = gguf_type_fitting(x->wanted, x->cols);
    if (x->type != x->wanted)
        x->spec = gguf_type_spec(x->type, 0);
    x->coded = matrix_is_linear(x) && x->spec.type;
    if (x->coded || x->type->rounded)
        return true;
    err_set(e, ERR_USER, "%s cannot be stored as %s, a type only for linears of the blocks", x->module, x->type->name);
    return err_hint(e, "choose Q6_K, Q8_0, Q4_K, Q2_K or F16 for it, with --tensor '%s=Q6_K'", x->module);
}

static bool same_fallback(const struct matrix *a, const struct matrix *b)
{
    return a->type == b->type && a->wanted == b->wanted && a->cols == b->cols;
}

/* Whether one of the first n tensors fell back in the same way; kind NULL, or of this kind. */
static bool told_before(const struct matrix *list, size_t n, const struct matrix *t, const char *kind)
{
    for (size_t i = 0; i < n; i++)
        if (same_fallback(&list[i], t) && (!kind || strcmp(matrix_kind(&list[i]), kind) == 0))
            return true;
    return false;
}

static bool learned(const struct gguf_type *t)
{
    return t->codes && t->codes->learned;
}

/* Once for each type and length of rows: "q_proj, k_proj: rows of ...". */
static void tell_fallbacks(const struct matrix *list, size_t all, const struct fate_options *o)
{
    for (size_t i = 0; i < all; i++) {
        const struct matrix *t = &list[i];
        char line[400] = "";
        size_t n = 0;
        if (t->type == t->wanted || told_before(list, i, t, NULL))
            continue;
        for (size_t k = i; k < all && n < sizeof line; k++) {
            const char *kind = matrix_kind(&list[k]);
            if (same_fallback(&list[k], t) && !told_before(list, k, t, kind))
                n += (size_t)snprintf(line + n, sizeof line - n, "%s%s", n ? ", " : "", kind);
        }
        if (n < sizeof line)
            snprintf(line + n, sizeof line - n,
                     ": rows of %u weights are not a multiple of %u, the block size of %s: stored as %s%s",
                     (unsigned)t->cols, (unsigned)t->wanted->block, t->wanted->name, t->type->name,
                     learned(t->wanted) && !learned(t->type) ? ", rounded, not learned" : "");
        o->warn(o->ctx, line);
    }
}

static bool in_gguf(struct matrix *list, size_t n, const struct fate_options *o, struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (!fit(&list[i], e))
            return false;
    tell_fallbacks(list, n, o);
    return true;
}

/* ---- a GGUF of codes that are there ---- */

const struct gguf_type *fate_home(const struct quant_spec *spec, uint32_t cols)
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
    return l == s ||
           (!s->group && !l->super && !l->levels && s->lo >= l->lo && s->hi <= l->hi && spec->group % t->block == 0);
}

/* False: no type holds its codes. */
static bool place(struct matrix *x)
{
    bool values = x->wanted && x->wanted->block == 1;
    /* Rows of their codes are none of the model's kv_b. */
    bool split = x->part && block_part_is_split(x->part);
    if (x->blocks && (!x->wanted || x->wanted == x->blocks)) {
        x->type = x->blocks;
        x->coded = false;
        x->copied = true;
        return true;
    }
    if (values || split || !x->coded) {
        x->coded = false;
        x->type = values ? x->wanted : x->type && x->type->block == 1 ? x->type : gguf_type_of(GGML_F16);
        return true;
    }
    x->type = x->wanted ? x->wanted : fate_home(&x->spec, x->cols);
    return x->type && (!x->wanted || holds(x->wanted, &x->spec, x->cols));
}

static bool without_place(const struct matrix *x, unsigned more, struct err *e)
{
    char others[64] = "";
    if (more)
        snprintf(others, sizeof others, "; nor can those of %u more weights", more);
    err_set(e, ERR_USER, "%s: codes of type %s with one scale for %u of %u columns cannot be stored exactly as %s%s",
            x->module, x->spec.type->name, (unsigned)x->spec.group, (unsigned)x->cols,
            x->wanted ? x->wanted->name : "any type of GGUF", others);
    return err_hint(e, "--type F16 stores their values; gsq quantize makes other codes from the original model");
}

static bool exactly_in_gguf(struct matrix *list, size_t n, struct err *e)
{
    const struct matrix *first = NULL;
    unsigned homeless = 0;
    for (size_t i = 0; i < n; i++)
        if (!place(&list[i]) && !homeless++)
            first = &list[i];
    return !first || without_place(first, homeless - 1, e);
}

/* ---- all ---- */

bool fates_decide(struct matrix *list, size_t n, const struct fate_options *o, struct err *e)
{
    if (o->policy == FATE_FOLDER)
        return in_folder(list, n, o, e);
    if (o->policy == FATE_GGUF)
        return o->exact ? exactly_in_gguf(list, n, e) : in_gguf(list, n, o, e);
    for (size_t i = 0; i < n; i++) {
        list[i].coded = list[i].coded && list[i].spec.type->learned;
        list[i].copied = !list[i].coded;
    }
    return true;
}
