#include "host/quant/plan/allot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/write/gguf_mixture.h"
#include "formats/write/hf_linear.h"
#include "formats/write/hf_plan.h"
#include "host/base/num.h"
#include "host/base/str.h"
#include "host/quant/plan/knapsack.h"
#include "host/quant/plan/planner.h"

/* Of a tensor in a GGUF. */
#define GGUF_ALIGN 32u
/* Bits in folders. */
static const unsigned folder_bits[] = {2, 3, 4, 8};

/* ---- sizes ---- */

/* Of a GGUF's type or, where it is NULL, as codes in a folder. */
static uint64_t stored_bytes(const struct matrix *x, const struct gguf_type *type, const struct quant_spec *spec)
{
    return type ? round_up(x->rows * gguf_row_bytes(type, x->cols), GGUF_ALIGN)
                : (uint64_t)ceil(quant_spec_bpw(spec, x->rows, x->cols) * (double)x->rows * x->cols / 8);
}

/* As type i is stored. */
static uint64_t bytes_of(const struct allotment *a, const struct matrix *x, uint32_t i)
{
    return stored_bytes(x, a->types[i], &a->specs[i]);
}

/* As the plan has it. */
static uint64_t bytes_now(const struct matrix *x)
{
    return x->type || x->coded ? stored_bytes(x, x->type, &x->spec) : 0;
}

/* ---- what may be chosen ---- */

static void list_types(struct allotment *a, const struct model *m, const struct quantize_options *o)
{
    const struct gguf_type *t;
    if (o->format != EXPORT_GGUF) {
        for (size_t i = 0; i < sizeof folder_bits / sizeof *folder_bits; i++)
            a->specs[a->n_types++] =
                (struct quant_spec){quant_type_of_bits(folder_bits[i]), o->group, export_scale_type(o->format, m->ck)};
        return;
    }
    for (size_t i = 0; (t = gguf_type_at(i)) && a->n_types < ALLOT_TYPES; i++) {
        if (!t->codes)
            continue;
        a->types[a->n_types] = t;
        a->specs[a->n_types++] = gguf_type_spec(t, 0);
    }
}

static bool may_take(const struct allotment *a, const struct model *m, const struct quantize_options *o,
                     const struct matrix *x, uint32_t i)
{
    struct matrix with = *x;
    char why[512];
    with.spec = a->specs[i];
    with.coded = true;
    if (a->types[i] && (x->cols % a->types[i]->block || (!matrix_is_linear(x) && !a->types[i]->rounded)))
        return false;
    if (matrix_is_linear(x) && !plan_check_group(&with, m->gpu ? gpu_info(m->gpu) : NULL, NULL))
        return false;
    return a->types[i] || export_check(o->format, m->family, &with, o->container, why, sizeof why) != EXPORT_REFUSED;
}

/* In which matrices of a layer have one type: the same number. Else each its own. */
static int fused(const struct matrix *x, bool gguf)
{
    enum { NONE, QKV, GATE_UP, EXPERTS };
    if (!x->part)
        return NONE;
    if (gguf)
        return block_part_is_expert(x->part) ? EXPERTS + (int)x->part->role : NONE;
    switch (x->part->role) {
    case ROLE_Q:
    case ROLE_K:
    case ROLE_V:
        return QKV;
    case ROLE_GATE:
    case ROLE_UP:
        return block_part_is_expert(x->part) ? EXPERTS + (int)ROLE_GATE : GATE_UP;
    case ROLE_DOWN:
        return block_part_is_expert(x->part) ? EXPERTS + (int)ROLE_DOWN : NONE;
    default:
        return NONE;
    }
}

static void group_units(struct allotment *a, bool gguf)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct matrix *x = &a->matrices[i];
        bool any = false;
        for (uint32_t k = 0; k < a->n_types; k++)
            any = any || a->tries[i * a->n_types + k];
        a->unit[i] = ALLOT_FIXED;
        if (!any)
            continue;
        int kind = fused(x, gguf);
        for (size_t k = i; kind && a->unit[i] == ALLOT_FIXED && k-- > 0;)
            if (a->unit[k] != ALLOT_FIXED && a->matrices[k].layer == x->layer && fused(&a->matrices[k], gguf) == kind)
                a->unit[i] = a->unit[k];
        if (a->unit[i] == ALLOT_FIXED)
            a->unit[i] = a->n_units++;
    }
}

/* A unit takes what all of it can. */
static void narrow_units(struct allotment *a)
{
    for (uint32_t t = 0; t < a->n_types; t++)
        for (size_t i = 0; i < a->n; i++)
            for (size_t k = 0; k < a->n && a->unit[i] != ALLOT_FIXED; k++)
                if (a->unit[k] == a->unit[i] && !a->tries[k * a->n_types + t])
                    a->tries[i * a->n_types + t] = false;
}

/* So many bits say a quarter of the error each. */
static void guess(struct allotment *a)
{
    for (size_t i = 0; i < a->n; i++)
        for (uint32_t t = 0; t < a->n_types; t++) {
            const struct matrix *x = &a->matrices[i];
            double weights = (double)x->rows * x->cols;
            a->costs[i * a->n_types + t] = weights * pow(4, -8 * (double)bytes_of(a, x, t) / weights);
        }
}

static uint64_t unit_bytes(const struct allotment *a, uint32_t unit, uint32_t type)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < a->n; i++)
        if (a->unit[i] == unit)
            bytes += bytes_of(a, &a->matrices[i], type);
    return bytes;
}

static bool unit_takes(const struct allotment *a, uint32_t unit, uint32_t type)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->unit[i] == unit)
            return a->tries[i * a->n_types + type];
    return false;
}

/* Weights that --bpw speaks of. */
static double counted(const struct allotment *a, bool gguf)
{
    double weights = 0;
    for (size_t i = 0; i < a->n; i++)
        if (gguf || (matrix_is_linear(&a->matrices[i]) && matrix_quantized(&a->matrices[i])))
            weights += (double)a->matrices[i].rows * a->matrices[i].cols;
    return weights;
}

/* Bytes of these that are not chosen, and the rest of the output. */
static void find_limits(struct allotment *a, const struct plan *p, const struct quantize_options *o, uint64_t like)
{
    uint64_t now = 0, held = 0, small = 0, large = 0;
    for (size_t i = 0; i < a->n; i++)
        *(a->unit[i] == ALLOT_FIXED ? &held : &now) += bytes_now(&a->matrices[i]);
    for (uint32_t u = 0; u < a->n_units; u++) {
        uint64_t least = UINT64_MAX, most = 0;
        for (uint32_t t = 0; t < a->n_types; t++) {
            if (!unit_takes(a, u, t))
                continue;
            least = min_u64(least, unit_bytes(a, u, t));
            most = max_u64(most, unit_bytes(a, u, t));
        }
        small += most ? least : 0;
        large += most;
    }
    a->fixed = p->out_bytes > now ? p->out_bytes - now : 0;
    a->small = a->fixed + small;
    a->large = a->fixed + large;
    a->asked = o->target.bytes ? o->target.bytes : like;
    if (o->target.bpw > 0) {
        double bytes = o->target.bpw / 8 * counted(a, o->format == EXPORT_GGUF);
        a->asked = a->fixed - held + (uint64_t)fmin(fmax(bytes, 0), 1e18);
    }
}

/* What --bpw would say of such an output. */
static double bits_of(const struct allotment *a, const struct quantize_options *o, uint64_t out)
{
    uint64_t held = 0;
    for (size_t i = 0; i < a->n; i++)
        held += a->unit[i] == ALLOT_FIXED ? bytes_now(&a->matrices[i]) : 0;
    return 8 * (double)(out - a->fixed + held) / counted(a, o->format == EXPORT_GGUF);
}

static bool check_limits(const struct allotment *a, const struct quantize_options *o, struct err *e)
{
    char asked[24], small[24], large[24];
    if (!a->n_units) {
        err_set(e, ERR_USER, "no type is left to choose: every weight has one by a rule or an option, or is kept");
        return err_hint(e, "leave out --size, --bpw or auto:, or some of the rules");
    }
    if (a->asked >= a->small && a->asked <= a->large)
        return true;
    bool less = a->asked < a->small;
    if (o->target.bpw > 0) {
        err_set(e, ERR_USER, "%g bits per weight cannot be reached: with the %s types there are, it is %.3f",
                o->target.bpw, less ? "smallest" : "largest", bits_of(a, o, less ? a->small : a->large));
        return err_hint(e, "--bpw from %.3f to %.3f is possible", bits_of(a, o, a->small) + 0.0005,
                        bits_of(a, o, a->large) - 0.0005);
    }
    err_set(e, ERR_USER, "a size of %s cannot be reached: with the %s types there are, the output has %s",
            format_bytes(a->asked, asked, sizeof asked), less ? "smallest" : "largest",
            format_bytes(less ? a->small : a->large, small, sizeof small));
    return err_hint(e, "sizes from %s to %s are possible: %llu to %llu bytes",
                    format_bytes(a->small, small, sizeof small), format_bytes(a->large, large, sizeof large),
                    (unsigned long long)a->small, (unsigned long long)a->large);
}

bool allot_make(struct allotment *a, const struct plan *p, const struct model *m, const struct quantize_options *o,
                uint64_t like, struct err *e)
{
    const bool gguf = o->format == EXPORT_GGUF;
    *a = (struct allotment){.n = p->n_matrices};
    list_types(a, m, o);
    a->matrices = calloc(a->n + 1, sizeof *a->matrices);
    a->tries = calloc(a->n * a->n_types + 1, sizeof *a->tries);
    a->unit = calloc(a->n + 1, sizeof *a->unit);
    a->costs = calloc(a->n * a->n_types + 1, sizeof *a->costs);
    a->picked = calloc(a->n + 1, sizeof *a->picked);
    if (!a->matrices || !a->tries || !a->unit || !a->costs || !a->picked)
        return err_nomem(e, "a choice of types", a->n * a->n_types * sizeof *a->costs);
    memcpy(a->matrices, p->matrices, a->n * sizeof *a->matrices);
    for (size_t i = 0; i < a->n; i++) {
        const struct matrix *x = &a->matrices[i];
        bool open = !x->asked && !x->copied && (gguf || (matrix_is_linear(x) && x->coded));
        for (uint32_t t = 0; open && t < a->n_types; t++)
            a->tries[i * a->n_types + t] = may_take(a, m, o, x, t);
    }
    group_units(a, gguf);
    narrow_units(a);
    guess(a);
    find_limits(a, p, o, like);
    return check_limits(a, o, e);
}

static void free_choice(struct allotment *a)
{
    for (size_t i = 0; i < a->n_rules; i++)
        free(a->patterns[i]);
    free(a->patterns);
    free(a->rules);
    free(a->text);
    a->patterns = NULL;
    a->rules = NULL;
    a->text = NULL;
    a->n_rules = 0;
}

void allot_free(struct allotment *a)
{
    free_choice(a);
    free(a->matrices);
    free(a->tries);
    free(a->unit);
    free(a->costs);
    free(a->picked);
    *a = (struct allotment){0};
}

/* ---- the choice ---- */

/* What of GPTQ's divergence is left when codes have learned, alone or together with others: means of three models at 2, 3 and 4 bits
 * (bench/results/quality-lavapipe.md). */
static double left_by_learning(const struct quantize_options *o, const struct quant_type *t)
{
    static const double left[2][3] = {{0.73, 0.82, 0.82}, {0.44, 0.49, 0.52}};
    if (o->method != METHOD_GSQ || !t->learned)
        return 1;
    return left[plan_block_objective(o)][t->bits <= 2 ? 0 : t->bits == 3 ? 1 : 2];
}

static double cost_of(const struct allotment *a, const struct quantize_options *o, size_t i, uint32_t t)
{
    double left = matrix_is_linear(&a->matrices[i]) ? left_by_learning(o, a->specs[t].type) : 1;
    return a->costs[i * a->n_types + t] * left;
}

/* Of a unit, all types that it takes, in the table's order. */
static uint32_t choices_of(const struct allotment *a, const struct quantize_options *o, uint32_t unit,
                           struct knapsack_choice *out, uint32_t *types)
{
    uint32_t n = 0;
    for (uint32_t t = 0; t < a->n_types; t++) {
        if (!unit_takes(a, unit, t))
            continue;
        out[n] = (struct knapsack_choice){unit_bytes(a, unit, t), 0};
        for (size_t i = 0; i < a->n; i++)
            out[n].cost += a->unit[i] == unit ? cost_of(a, o, i, t) : 0;
        types[n++] = t;
    }
    return n;
}

/* The name of a module as a pattern: its layer's number is left to `layers`, an expert's is any. */
static void put_pattern(struct strbuf *f, const struct matrix *x, const char *layers)
{
    const char *name = x->part ? x->part->hf : x->module;
    strbuf_printf(f, "%s%s%s", x->part ? "layers\\." : "^", layers, x->part ? "\\." : "");
    for (; *name; name++)
        if (*name == '*')
            strbuf_puts(f, "[0-9]+");
        else
            strbuf_printf(f, "%s%c", *name == '.' ? "\\" : "", *name);
    strbuf_puts(f, "$");
}

/* "[0-9]+" where all layers that have such a part take this type; else "(0|3|4)". */
static void put_layers(struct strbuf *f, const struct allotment *a, const struct matrix *of, uint32_t type)
{
    struct strbuf list = {0};
    unsigned with = 0, without = 0;
    uint32_t last = UINT32_MAX;
    for (size_t i = 0; i < a->n; i++) {
        const struct matrix *x = &a->matrices[i];
        if (x->part != of->part || x->layer == last)
            continue;
        last = x->layer;
        if (a->unit[i] == ALLOT_FIXED || a->picked[a->unit[i]] != type) {
            without++;
            continue;
        }
        strbuf_printf(&list, "%s%u", with++ ? "|" : "", (unsigned)x->layer);
    }
    if (!without)
        strbuf_puts(f, "[0-9]+");
    else
        strbuf_printf(f, with > 1 ? "(%s)" : "%s", list.data ? list.data : "");
    strbuf_free(&list);
}

/* Whether an earlier matrix has the same rule. */
static bool said(const struct allotment *a, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (a->unit[k] != ALLOT_FIXED && a->matrices[k].part && a->matrices[k].part == a->matrices[i].part &&
            a->picked[a->unit[k]] == a->picked[a->unit[i]])
            return true;
    return false;
}

static bool make_rules(struct allotment *a, struct err *e)
{
    struct strbuf text = {0};
    bool ok = true;
    free_choice(a);
    a->rules = calloc(a->n + 1, sizeof *a->rules);
    a->patterns = calloc(a->n + 1, sizeof *a->patterns);
    for (size_t i = 0; a->rules && a->patterns && i < a->n; i++) {
        if (a->unit[i] == ALLOT_FIXED || said(a, i))
            continue;
        uint32_t type = a->picked[a->unit[i]];
        struct strbuf layers = {0}, pattern = {0};
        if (a->matrices[i].part)
            put_layers(&layers, a, &a->matrices[i], type);
        put_pattern(&pattern, &a->matrices[i], layers.data ? layers.data : "");
        ok = ok && !pattern.failed && !layers.failed;
        strbuf_printf(&text, "%s=%s\n", pattern.data ? pattern.data : "",
                      a->types[type] ? a->types[type]->name : a->specs[type].type->name);
        a->patterns[a->n_rules] = pattern.data;
        a->rules[a->n_rules++] = (struct tensor_rule){
            .regex = pattern.data, .type = a->types[type] ? NULL : a->specs[type].type, .gguf = a->types[type]};
        strbuf_free(&layers);
    }
    a->text = text.data;
    return (ok && a->rules && a->patterns && !text.failed) || err_nomem(e, "a choice of types", a->n);
}

bool allot_choose(struct allotment *a, const struct quantize_options *o, uint64_t most, struct err *e)
{
    const uint64_t room = most > a->fixed ? most - a->fixed : 0;
    struct knapsack_unit *units = calloc(a->n_units, sizeof *units);
    struct knapsack_choice *choices = calloc((size_t)a->n_units * a->n_types, sizeof *choices);
    uint32_t *types = calloc((size_t)a->n_units * a->n_types, sizeof *types);
    bool ok = (units && choices && types) || err_nomem(e, "a choice of types", a->n_units * sizeof *choices);
    for (uint32_t u = 0; ok && u < a->n_units; u++) {
        units[u].choices = choices + (size_t)u * a->n_types;
        units[u].n = choices_of(a, o, u, choices + (size_t)u * a->n_types, types + (size_t)u * a->n_types);
    }
    struct err why = {0};
    if (ok && !knapsack_solve(units, a->n_units, room, a->picked, &why)) {
        *e = why;
        ok = why.kind == ERR_NONE && err_set(e, ERR_USER, "no choice of types is as small as was asked for");
    }
    a->cost = 0;
    for (uint32_t u = 0; ok && u < a->n_units; u++) {
        a->cost += units[u].choices[a->picked[u]].cost;
        a->picked[u] = types[(size_t)u * a->n_types + a->picked[u]];
    }
    free(units);
    free(choices);
    free(types);
    return ok && make_rules(a, e);
}

uint64_t allot_excess(const struct allotment *a, const struct plan *p, const struct quantize_options *o)
{
    if (o->target.bpw > 0) {
        const bool gguf = o->format == EXPORT_GGUF;
        double bits = (gguf ? p->file_bpw : p->bpw) - o->target.bpw;
        return bits > 1e-12 ? (uint64_t)ceil(bits * counted(a, gguf) / 8) : 0;
    }
    return p->out_bytes > a->asked ? p->out_bytes - a->asked : 0;
}

/* The learned type of most weights of linears; -1: none is learned. */
static int main_type(const struct allotment *a)
{
    double weights[ALLOT_TYPES] = {0};
    int best = -1;
    for (size_t i = 0; i < a->n; i++)
        if (matrix_is_linear(&a->matrices[i]) && a->unit[i] != ALLOT_FIXED)
            weights[a->picked[a->unit[i]]] += (double)a->matrices[i].rows * a->matrices[i].cols;
    for (uint32_t t = 0; t < a->n_types; t++)
        if (a->specs[t].type->learned && weights[t] > 0 && (best < 0 || weights[t] > weights[best]))
            best = (int)t;
    return best;
}

/* The plainest mixture of that type. */
static const char *mixture_of(const struct gguf_type *t)
{
    const char *name, *last = NULL;
    for (size_t i = 0; (name = gguf_mixture_at(i)); i++)
        if (gguf_mixture_base(name) == t)
            last = name;
    return last;
}

bool allot_apply(const struct allotment *a, const struct tensor_rule *own, size_t n_own, struct quantize_options *o,
                 struct tensor_rule **list, struct err *e)
{
    const int main = main_type(a);
    free(*list);
    *list = calloc(a->n_rules + n_own + 1, sizeof **list);
    if (!*list)
        return err_nomem(e, "tensor rules", (a->n_rules + n_own) * sizeof **list);
    memcpy(*list, a->rules, a->n_rules * sizeof **list);
    if (n_own)
        memcpy(*list + a->n_rules, own, n_own * sizeof **list);
    o->rules = *list;
    o->n_rules = a->n_rules + n_own;
    if (main < 0 || (a->types[main] && !mixture_of(a->types[main])))
        return true;
    o->code_type = a->specs[main].type;
    if (a->types[main]) {
        o->mixture = mixture_of(a->types[main]);
        o->group = o->code_type->group;
    }
    return true;
}
