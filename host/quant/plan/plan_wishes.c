/* What is asked of each matrix: by --bits and --type, by --tensor and --keep, by options for embedding and head, by the file that
 * is refined. fates_decide says what comes of it. */
#include <stdlib.h>
#include <string.h>

#include "formats/write/fate.h"
#include "formats/write/gguf_mixture.h"
#include "formats/write/hf_plan.h"
#include "host/quant/plan/plan_rules.h"
#include "host/quant/plan/planner.h"
#include "host/quant/plan/refine.h"

/* ---- a folder ---- */

/* A type with the run's choices, where it leaves any: those of GGUF have their own group, and scales in f16. */
static struct quant_spec spec_of(const struct quant_type *t, uint32_t group, enum scale_type scale)
{
    if (!t->group)
        return (struct quant_spec){t, group, scale};
    return (struct quant_spec){t, t->group, quant_type_scale(t)};
}

/* experts_only: of a model with experts these are nearly all weights; the rest stays in 16 bits where no rule speaks of it. */
static void wish_codes(struct matrix *x, const struct quantize_options *o, enum scale_type scale,
                       const struct tensor_rule *rule, bool experts_only)
{
    bool other = rule && rule->type;
    x->type = x->wanted = NULL;
    x->coded = rule ? other : !experts_only || block_part_is_expert(x->part);
    x->spec = spec_of(other ? rule->type : o->code_type, other && rule->group ? rule->group : o->group, scale);
}

/* ---- a GGUF ---- */

/* What llama-quantize's options say of embedding and head; NULL: nothing. */
static const struct gguf_type *exception(const struct matrix *x, const struct quantize_options *o)
{
    if (x->embedding && o->embedding_type)
        return o->embedding_type;
    if (x->head && !x->embedding && o->keep_head) /* blocks are rounded again to the same */
        return x->type && x->type->rounded ? x->type : gguf_type_of(GGML_F16);
    return x->head ? o->head_type : NULL;
}

/* What a folder has as codes that a GGUF can hold is kept as that, not as 16 bits: models are released in INT4, and in MXFP4. NULL:
 * neither. */
static const struct gguf_type *own_type(const struct matrix *x)
{
    const bool codes = matrix_is_linear(x) && !block_part_is_split(x->part) && x->coded && !x->stored;
    return x->blocks ? x->blocks : codes ? fate_home(&x->spec, x->cols) : NULL;
}

/* Of the mixture's own type the group is that of the run. */
static void wish_type(struct matrix *x, const struct model_config *c, const struct quantize_options *o,
                      const struct tensor_rule *rule)
{
    const struct gguf_type *base = gguf_mixture_base(o->mixture), *special = exception(x, o);
    if (special) {
        x->wanted = special;
        x->spec = gguf_type_spec(special, 0);
    } else if (!rule) {
        x->wanted = o->pure ? base : gguf_mixture_type(o->mixture, c, x);
        x->spec = x->wanted == base && o->code_type->group != o->group
                      ? (struct quant_spec){o->code_type, o->group, SCALE_F16}
                      : gguf_type_spec(x->wanted, 0);
    } else if (rule->type) {
        x->wanted = gguf_type_home(rule->type, rule->group, &x->spec);
    } else if (!rule->gguf && own_type(x)) {
        x->wanted = own_type(x);
        x->copied = true;
    } else {
        x->wanted = rule->gguf ? rule->gguf : gguf_type_of(GGML_F16);
        x->spec = gguf_type_spec(x->wanted, rule->group);
    }
}

/* ---- a refined file ---- */

static bool wish_own(struct matrix *x, const struct checkpoint *file, const struct checkpoint *master, bool keep,
                     struct err *e)
{
    struct matrix own = *x;
    refine_module(file, master, x, own.module);
    if (!checkpoint_matrix(file, &own, e))
        return false;
    x->type = x->wanted = own.type;
    x->spec = own.spec;
    x->coded = matrix_is_linear(x) && own.coded && !keep;
    return true;
}

/* ---- rules ---- */

/* Embedding and head, under both names that a tied matrix has. */
struct ends {
    char embedding[64];
    const char *name[2];
};

static void find_ends(struct ends *x, const struct model_config *c)
{
    x->name[0] = config_part_name(c, "embed_tokens", x->embedding, sizeof x->embedding);
    x->name[1] = config_head_name(c);
}

/* Those for one matrix. A tied one has two names; it is stored in the model under one of them. */
static const struct tensor_rule *rule_of(const struct rules *rules, const struct ends *ends, const struct matrix *x)
{
    const struct tensor_rule *rule = rules_find(rules, x->module), *other;
    if (!x->embedding || !x->head)
        return rule;
    other = rules_find(rules, ends->name[strcmp(x->module, ends->name[0]) == 0]);
    return !rule || (other && other > rule) ? other : rule;
}

/* In a GGUF rules are for every 2-D weight, a tied one under both its names, else for the linears of the blocks. */
static bool compile(struct rules *rules, const char **names, const struct model_config *config, const struct ends *ends,
                    const struct plan *p, const struct quantize_options *o, bool all, struct err *e)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_matrices; i++)
        if (matrix_is_linear(&p->matrices[i]))
            names[n++] = p->matrices[i].module;
    memcpy(names + n, ends->name, sizeof ends->name);
    const struct rule_names known = {.config = config,
                                     .modules = names,
                                     .n = n + (all ? 2 : 0),
                                     .fixed = ends->name,
                                     .n_fixed = all ? 0 : 2,
                                     .alias = all && p->matrices[0].head ? ends->name[1] : NULL};
    return rules_compile(rules, o, &known, e);
}

bool plan_wishes(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    bool all = o->format == EXPORT_GGUF && !o->refine;
    const enum scale_type scale = export_scale_type(o->format, m->ck);
    struct rules rules = {0};
    struct ends ends;
    find_ends(&ends, m->cfg);
    const char **names = calloc(p->n_matrices + 2, sizeof *names);
    bool ok = names ? compile(&rules, names, m->cfg, &ends, p, o, all, e)
                    : err_nomem(e, "the plan", p->n_matrices * sizeof *names);
    for (struct matrix *x = p->matrices; ok && x < p->matrices + p->n_matrices; x++) {
        const struct tensor_rule *rule = matrix_is_linear(x) || all ? rule_of(&rules, &ends, x) : NULL;
        x->asked = rule || (all && exception(x, o));
        if (all) {
            wish_type(x, m->cfg, o, rule);
        } else if (o->refine) {
            ok = wish_own(x, p->from.refined->ck, m->ck, rule, e);
        } else if (!matrix_is_linear(x)) {
            x->type = x->wanted = NULL;
            x->coded = false;
        } else {
            wish_codes(x, o, scale, rule, m->cfg->experts.n > 0);
        }
    }
    rules_free(&rules);
    free(names);
    return ok;
}
