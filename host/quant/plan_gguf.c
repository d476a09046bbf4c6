/* Types of a GGUF's tensors: the mixture's, other ones by --tensor and --keep, and what stands in where rows
 * do not divide. */
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/quant/plan.h"
#include "host/quant/plan_rules.h"

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

static struct plan_item *linear_of(const struct plan *p, const char *module)
{
    for (size_t i = 0; i < p->n_items; i++)
        if (strcmp(p->items[i].module, module) == 0)
            return &p->items[i];
    return NULL;
}

/* Type and spec as the options want them; of the mixture's own type those of the run. */
static void want(struct plan_tensor *t, const struct model_config *c, const struct quantize_options *o,
                 const struct tensor_rule *rule)
{
    bool fell_back;
    if (!rule) {
        t->wanted = gguf_mixture_type(o->mixture, c, t->module, 0, &fell_back);
        t->spec = t->wanted == gguf_mixture_base(o->mixture) && o->type->group != o->group
                      ? (struct quant_spec){o->type, o->group, SCALE_F16}
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
    struct plan_item *item = linear_of(p, t->module);
    bool fell_back;
    t->type = gguf_type_fitting(t->wanted, t->cols, &fell_back);
    if (fell_back)
        t->spec = quantize_gguf_spec(t->type, 0);
    t->coded = item && t->spec.type;
    if (item) {
        item->keep = !t->coded;
        item->spec = t->spec;
    }
    if (t->coded || t->type->rounded)
        return true;
    err_set(e, ERR_USER, "%s cannot be stored as %s, which linears of the blocks alone are learned in",
            t->module, t->type->name);
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
    return a->type == b->type && a->wanted == b->wanted && a->cols == b->cols &&
           strcmp(kind_of(a->module), kind_of(b->module)) == 0;
}

/* Once for each kind of tensor. */
static void tell_fallbacks(const struct plan *p)
{
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct plan_tensor *t = &p->tensors[i];
        unsigned count = 0;
        size_t first = i;
        for (size_t k = 0; k < p->n_tensors; k++) {
            if (!same_fallback(t, &p->tensors[k]))
                continue;
            if (k < first)
                first = k;
            count++;
        }
        if (t->type != t->wanted && first == i)
            log_warn("%s (%u of them) is stored as %s: its rows of %u weights are no multiple of %s's %u",
                     kind_of(t->module), count, t->type->name, (unsigned)t->cols, t->wanted->name,
                     (unsigned)t->wanted->block);
    }
}

/* A tied matrix has two names; it is stored in the model under one of them. */
static const struct tensor_rule *rule_of(struct rules *rules, const struct checkpoint *ck, const char *module)
{
    static const char *const names[2] = {"model.embed_tokens", "lm_head"};
    const struct tensor_rule *rule = rules_find(rules, module), *other;
    const char *head = checkpoint_head_module(ck);
    if (strcmp(head, checkpoint_embedding_module(ck)) != 0 || strcmp(module, head) != 0)
        return rule;
    other = rules_find(rules, names[strcmp(module, names[0]) == 0]);
    return !rule || (other && other > rule) ? other : rule;
}

bool plan_gguf(struct plan *p, const struct model *m, const struct quantize_options *o, struct rules *rules,
               struct err *e)
{
    if (!list_tensors(p, m, e))
        return false;
    for (size_t i = 0; i < p->n_tensors; i++) {
        struct plan_tensor *t = &p->tensors[i];
        want(t, m->cfg, o, rule_of(rules, m->ck, t->module));
        if (!decide(p, t, e))
            return false;
    }
    rules_warn_unused(rules, "2-D weight");
    tell_fallbacks(p);
    return true;
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

struct gguf_options plan_gguf_options(const struct quantize_options *o)
{
    static const char *const made_by[][2] = {{"general.quantized_by", "gsq " GSQ_VERSION}};
    return (struct gguf_options){.file_type = gguf_mixture_file_type(o->mixture),
                                 .metadata = made_by,
                                 .n_metadata = sizeof made_by / sizeof *made_by};
}

bool plan_gguf_size(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    uint64_t weights = 0, bytes = 0, coded = 0;
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct plan_tensor *t = &p->tensors[i];
        uint64_t own = t->rows * gguf_row_bytes(t->type, t->cols);
        weights += (uint64_t)t->rows * t->cols;
        bytes += own;
        if (t->coded)
            coded += own;
    }
    p->file_bpw = weights ? 8.0 * (double)bytes / (double)weights : 0;
    p->bpw = p->weights_quantized ? 8.0 * (double)coded / (double)p->weights_quantized : 16;
    struct gguf_item *x = plan_gguf_items(p);
    if (!x)
        return err_nomem(e, "the plan", p->n_tensors * sizeof *x);
    struct gguf_options options = plan_gguf_options(o);
    p->out_bytes = write_gguf_size(m->ck, x, p->n_tensors, &options, e);
    free(x);
    return p->out_bytes > 0;
}
