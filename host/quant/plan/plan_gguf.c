/* Types of a GGUF's tensors: the mixture's, other ones by --tensor and --keep, and what stands in where rows
 * do not divide. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/write/gguf_mixture.h"
#include "host/quant/plan/planner.h"
#include "host/quant/plan/plan_rules.h"
#include "host/quant/plan/planner.h"

/* The type that a weight has in the model; blocks are rounded again to the same. */
static const struct gguf_type *own_type(const struct checkpoint *ck, const char *module)
{
    struct weight_info w;
    const struct gguf_type *t = NULL;
    if (checkpoint_weight(ck, module, &w, NULL) && w.stored)
        t = gguf_type_named(w.stored);
    return t && t->rounded ? t : gguf_type_of(GGML_F16);
}

/* What llama-quantize's options say of embedding and head; NULL: nothing. */
static const struct gguf_type *exception(const char *module, const struct checkpoint *ck,
                                         const struct quantize_options *o)
{
    bool tied = strcmp(checkpoint_embedding_module(ck), checkpoint_head_module(ck)) == 0;
    bool embedding = strcmp(module, checkpoint_embedding_module(ck)) == 0;
    bool head = strcmp(module, checkpoint_head_module(ck)) == 0;
    if (embedding && o->embedding_type)
        return o->embedding_type;
    if (head && !tied && o->keep_head)
        return own_type(ck, module);
    if (head && o->head_type)
        return o->head_type;
    return NULL;
}

/* Type and spec as the options want them; of the mixture's own type those of the run. */
static void want(struct matrix *t, const struct checkpoint *ck, const struct quantize_options *o,
                 const struct tensor_rule *rule)
{
    const struct gguf_type *base = gguf_mixture_base(o->mixture), *special = exception(t->module, ck, o);
    bool fell_back;
    if (special) {
        t->wanted = special;
        t->spec = quantize_gguf_spec(special, 0);
    } else if (!rule) {
        t->wanted = o->pure ? base : gguf_mixture_type(o->mixture, checkpoint_config(ck), t->module, 0, &fell_back);
        t->spec = t->wanted == base && o->code_type->group != o->group
                      ? (struct quant_spec){o->code_type, o->group, SCALE_F16}
                      : quantize_gguf_spec(t->wanted, 0);
    } else if (rule->type) {
        t->wanted = quantize_gguf_home(rule->type, rule->group, &t->spec);
    } else {
        t->wanted = rule->gguf ? rule->gguf : gguf_type_of(GGML_F16);
        t->spec = quantize_gguf_spec(t->wanted, rule->group);
    }
}

/* A linear's codes are learned; all else is rounded as it is written. */
static bool decide(struct matrix *t, struct err *e)
{
    bool fell_back;
    t->type = gguf_type_fitting(t->wanted, t->cols, &fell_back);
    if (fell_back)
        t->spec = quantize_gguf_spec(t->type, 0);
    t->coded = t->part && t->spec.type;
    if (t->coded || t->type->rounded)
        return true;
    err_set(e, ERR_USER, "%s cannot be stored as %s, a type only for linears of the blocks", t->module, t->type->name);
    return err_hint(e, "choose Q6_K, Q8_0, Q4_K, Q2_K or F16 for it, with --tensor '%s=Q6_K'", t->module);
}

static bool same_fallback(const struct matrix *a, const struct matrix *b)
{
    return a->type == b->type && a->wanted == b->wanted && a->cols == b->cols;
}

/* Whether one of the first n tensors fell back in the same way; kind NULL, or of this kind. */
static bool told_before(const struct plan *p, size_t n, const struct matrix *t, const char *kind)
{
    for (size_t i = 0; i < n; i++)
        if (same_fallback(&p->matrices[i], t) && (!kind || strcmp(matrix_kind(&p->matrices[i]), kind) == 0))
            return true;
    return false;
}

static bool learned(const struct gguf_type *t)
{
    return t->codes && t->codes->learned;
}

/* Once for each type and length of rows: "q_proj, k_proj: rows of ...". */
static void tell_fallbacks(const struct plan *p, const struct plan_listener *l)
{
    for (size_t i = 0; i < p->n_matrices; i++) {
        const struct matrix *t = &p->matrices[i];
        char line[400] = "";
        size_t n = 0;
        if (t->type == t->wanted || told_before(p, i, t, NULL))
            continue;
        for (size_t k = i; k < p->n_matrices && n < sizeof line; k++) {
            const char *kind = matrix_kind(&p->matrices[k]);
            if (same_fallback(&p->matrices[k], t) && !told_before(p, k, t, kind))
                n += (size_t)snprintf(line + n, sizeof line - n, "%s%s", n ? ", " : "", kind);
        }
        if (n < sizeof line)
            snprintf(line + n, sizeof line - n,
                     ": rows of %u weights are not a multiple of %u, the block size of %s: stored as %s%s",
                     (unsigned)t->cols, (unsigned)t->wanted->block, t->wanted->name, t->type->name,
                     learned(t->wanted) && !learned(t->type) ? ", rounded, not learned" : "");
        l->warn(l->ctx, line);
    }
}

/* A tied matrix has two names; it is stored in the model under one of them. */
static const struct tensor_rule *rule_of(const struct rules *rules, const struct checkpoint *ck, const char *module)
{
    static const char *const names[2] = {"model.embed_tokens", "lm_head"};
    const struct tensor_rule *rule = rules_find(rules, module), *other;
    const char *head = checkpoint_head_module(ck);
    if (strcmp(head, checkpoint_embedding_module(ck)) != 0 || strcmp(module, head) != 0)
        return rule;
    other = rules_find(rules, names[strcmp(module, names[0]) == 0]);
    return !rule || (other && other > rule) ? other : rule;
}

/* What rules are for: every 2-D weight, a tied one under both its names. Freed by the caller. */
static const char **weight_names(const struct plan *p, size_t *n, struct err *e)
{
    static const char *const ends[] = {"model.embed_tokens", "lm_head"};
    const char **names = calloc(p->n_matrices + 2, sizeof *names);
    *n = 0;
    if (!names) {
        err_nomem(e, "the plan", p->n_matrices * sizeof *names);
        return NULL;
    }
    for (size_t i = 0; i < p->n_matrices; i++)
        if (strcmp(p->matrices[i].module, ends[0]) != 0 && strcmp(p->matrices[i].module, ends[1]) != 0)
            names[(*n)++] = p->matrices[i].module;
    for (int i = 0; i < 2; i++)
        names[(*n)++] = ends[i];
    return names;
}

bool plan_gguf(struct plan *p, const struct model *m, const struct quantize_options *o, const struct plan_listener *l,
               struct err *e)
{
    struct rules rules = {0};
    struct rule_names known = {0};
    const char **names = weight_names(p, &known.n, e);
    known.modules = names;
    known.alias = checkpoint_config(m->ck)->tie_word_embeddings ? "lm_head" : NULL;
    bool ok = names && rules_compile(&rules, o, &known, e);
    for (size_t i = 0; ok && i < p->n_matrices; i++) {
        struct matrix *t = &p->matrices[i];
        want(t, m->ck, o, rule_of(&rules, m->ck, t->module));
        ok = decide(t, e);
    }
    if (ok)
        tell_fallbacks(p, l);
    rules_free(&rules);
    free(names);
    return ok;
}
