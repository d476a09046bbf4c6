/* Types of a GGUF's tensors: the mixture's, other ones by --tensor and --keep, and what stands in where rows
 * do not divide. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/quant/plan/plan.h"
#include "host/quant/plan/plan_rules.h"

struct listing {
    struct plan *p;
    size_t room;
    struct err *e;
};

static bool list_tensor(void *ctx, const char *module, uint32_t rows, uint32_t cols)
{
    struct listing *l = ctx;
    struct plan_tensor *t = &l->p->tensors[l->p->n_tensors];
    if (l->p->n_tensors == l->room || strlen(module) >= sizeof t->module)
        return err_set(l->e, ERR_BUG, "%s has no place in the plan", module);
    *t = (struct plan_tensor){.rows = rows, .cols = cols};
    strcpy(t->module, module);
    l->p->n_tensors++;
    return true;
}

static bool list_tensors(struct plan *p, const struct model *m, struct err *e)
{
    struct listing l = {.p = p, .room = p->n_items + 2, .e = e};
    p->tensors = calloc(l.room, sizeof *p->tensors);
    if (!p->tensors)
        return err_nomem(e, "the plan", l.room * sizeof *p->tensors);
    return gguf_weights_each(m->ck, list_tensor, &l);
}

static struct matrix *linear_of(const struct plan *p, const char *module)
{
    for (size_t i = 0; i < p->n_items; i++)
        if (strcmp(p->items[i].module, module) == 0)
            return &p->items[i];
    return NULL;
}

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
static void want(struct plan_tensor *t, const struct checkpoint *ck, const struct quantize_options *o,
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
static bool decide(struct plan *p, struct plan_tensor *t, struct err *e)
{
    struct matrix *item = linear_of(p, t->module);
    bool fell_back;
    t->type = gguf_type_fitting(t->wanted, t->cols, &fell_back);
    if (fell_back)
        t->spec = quantize_gguf_spec(t->type, 0);
    t->coded = item && t->spec.type;
    if (item) {
        item->coded = t->coded;
        item->rounded = !t->coded && t->type->block > 1;
        item->spec = t->spec;
    }
    if (t->coded || t->type->rounded)
        return true;
    err_set(e, ERR_USER, "%s cannot be stored as %s, which linears of the blocks alone are learned in", t->module,
            t->type->name);
    return err_hint(e, "choose Q6_K, Q8_0, Q4_K, Q2_K or F16 for it, with --tensor '%s=Q6_K'", t->module);
}

/* "mlp.down_proj" of "model.layers.3.mlp.down_proj". */
static const char *kind_of(const char *module)
{
    const char *dot = strrchr(module, '.');
    return dot ? dot + 1 : module;
}

static bool same_fallback(const struct plan_tensor *a, const struct plan_tensor *b)
{
    return a->type == b->type && a->wanted == b->wanted && a->cols == b->cols;
}

/* Whether one of the first n tensors fell back in the same way; kind NULL, or of this kind. */
static bool told_before(const struct plan *p, size_t n, const struct plan_tensor *t, const char *kind)
{
    for (size_t i = 0; i < n; i++)
        if (same_fallback(&p->tensors[i], t) && (!kind || strcmp(kind_of(p->tensors[i].module), kind) == 0))
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
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct plan_tensor *t = &p->tensors[i];
        char line[400] = "";
        size_t n = 0;
        if (t->type == t->wanted || told_before(p, i, t, NULL))
            continue;
        for (size_t k = i; k < p->n_tensors && n < sizeof line; k++) {
            const char *kind = kind_of(p->tensors[k].module);
            if (same_fallback(&p->tensors[k], t) && !told_before(p, k, t, kind))
                n += (size_t)snprintf(line + n, sizeof line - n, "%s%s", n ? ", " : "", kind);
        }
        if (n < sizeof line)
            snprintf(line + n, sizeof line - n,
                     ": rows of %u weights are not a multiple of %u, the block of %s: stored as %s%s",
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
    const char **names = calloc(p->n_tensors + 2, sizeof *names);
    *n = 0;
    if (!names) {
        err_nomem(e, "the plan", p->n_tensors * sizeof *names);
        return NULL;
    }
    for (size_t i = 0; i < p->n_tensors; i++)
        if (strcmp(p->tensors[i].module, ends[0]) != 0 && strcmp(p->tensors[i].module, ends[1]) != 0)
            names[(*n)++] = p->tensors[i].module;
    for (int i = 0; i < 2; i++)
        names[(*n)++] = ends[i];
    return names;
}

bool plan_gguf(struct plan *p, const struct model *m, const struct quantize_options *o, const struct plan_listener *l,
               struct err *e)
{
    struct rules rules = {0};
    struct rule_names known = {0};
    if (!list_tensors(p, m, e))
        return false;
    const char **names = weight_names(p, &known.n, e);
    known.modules = names;
    known.alias = checkpoint_config(m->ck)->tie_word_embeddings ? "lm_head" : NULL;
    bool ok = names && rules_compile(&rules, o, &known, e);
    for (size_t i = 0; ok && i < p->n_tensors; i++) {
        struct plan_tensor *t = &p->tensors[i];
        want(t, m->ck, o, rule_of(&rules, m->ck, t->module));
        ok = decide(p, t, e);
    }
    if (ok)
        tell_fallbacks(p, l);
    rules_free(&rules);
    free(names);
    return ok;
}

struct gguf_item *plan_gguf_items(const struct plan *p)
{
    struct gguf_item *x = calloc(p->n_tensors ? p->n_tensors : 1, sizeof *x);
    for (size_t i = 0; x && i < p->n_tensors; i++) {
        const struct plan_tensor *t = &p->tensors[i];
        x[i] = (struct gguf_item){t->module, t->type, t->coded, t->spec};
    }
    return x;
}

struct gguf_options plan_gguf_options(struct plan *p, const struct quantize_options *o)
{
    p->made_by[0][0] = "general.quantized_by";
    p->made_by[0][1] = "gsq " GSQ_VERSION;
    p->made_by[1][0] = GGUF_RUN;
    p->made_by[1][1] = p->run;
    return (struct gguf_options){.file_type = gguf_mixture_file_type(o->mixture),
                                 .metadata = p->made_by,
                                 .n_metadata = sizeof p->made_by / sizeof *p->made_by,
                                 .overrides = o->overrides,
                                 .n_overrides = o->n_overrides};
}

bool plan_gguf_size(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    uint64_t weights = 0, bytes = 0, coded = 0;
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct plan_tensor *t = &p->tensors[i];
        uint64_t own = t->rows * gguf_row_bytes(t->type, t->cols);
        weights += (uint64_t)t->rows * t->cols;
        bytes += own;
        struct matrix *item = linear_of(p, t->module);
        if (item && (item->coded || item->rounded))
            coded += own;
    }
    p->file_bpw = weights ? 8.0 * (double)bytes / (double)weights : 0;
    p->bpw = p->weights_quantized ? 8.0 * (double)coded / (double)p->weights_quantized : 16;
    struct gguf_item *x = plan_gguf_items(p);
    if (!x)
        return err_nomem(e, "the plan", p->n_tensors * sizeof *x);
    struct gguf_options options = plan_gguf_options(p, o);
    p->out_bytes = write_gguf_size(m->ck, x, p->n_tensors, &options, e);
    free(x);
    return p->out_bytes > 0;
}
