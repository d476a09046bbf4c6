/* Options of the library, whose names are texts, as the method takes them. */
#include <stdlib.h>
#include <string.h>

#include "formats/write_gguf.h"
#include "host/base/str.h"
#include "lib/lib_internal.h"

/* The public options that say the same as the internal ones. */
static void from_internal(struct gsq_quantize_options *o, const struct quantize_options *q)
{
    o->samples = q->samples;
    o->context = q->ctx;
    o->seed = q->seed;
    o->steps = q->gumbel.steps;
    o->epochs = q->block.epochs;
    o->batch = q->block.batch;
    o->scale_epochs = q->scales.epochs;
    o->damp = q->damp;
    o->scale_steps = q->scale_search.steps;
    o->scale_power = q->scale_search.power;
    o->tau[0] = q->gumbel.tau0;
    o->tau[1] = q->gumbel.tau1;
    o->kappa[0] = q->gumbel.kappa0;
    o->kappa[1] = q->gumbel.kappa1;
    o->lr_logits = q->gumbel.lr_logits;
    o->lr_scales = q->gumbel.lr_scales;
    o->reach = q->gumbel.reach;
    o->block_reach = q->block.reach;
    o->lr_end = q->gumbel.lr_end;
    o->beta1 = q->gumbel.beta1;
    o->beta2 = q->gumbel.beta2;
    o->decay = q->gumbel.decay;
    o->init_noise = q->gumbel.init_noise;
    o->init_gap = q->gumbel.init_gap;
    o->start = start_name(q->block.start);
    o->scale_lr = q->scales.lr;
    o->scale_batch = q->scales.batch;
}

static void numbers(struct quantize_options *q, const struct gsq_quantize_options *o)
{
    q->samples = o->samples;
    q->ctx = o->context;
    q->holdout = o->holdout;
    q->seed = o->seed;
    q->host_limit = o->host_limit;
    q->force = o->force;
    q->keep_work = o->keep_work;
    q->group = o->group;
    q->container = o->container;
    q->gumbel.steps = o->steps;
    q->block.epochs = o->epochs;
    q->block.batch = o->batch;
    q->scales.epochs = o->scale_epochs;
    q->damp = o->damp;
    q->scale_search = (struct scale_search_options){.steps = o->scale_steps, .power = o->scale_power};
    q->gumbel.tau0 = o->tau[0];
    q->gumbel.tau1 = o->tau[1];
    q->gumbel.kappa0 = o->kappa[0];
    q->gumbel.kappa1 = o->kappa[1];
    q->gumbel.lr_logits = o->lr_logits;
    q->gumbel.lr_scales = o->lr_scales;
    q->gumbel.reach = o->reach;
    q->block.reach = o->block_reach;
    q->gumbel.lr_end = o->lr_end;
    q->gumbel.beta1 = o->beta1;
    q->gumbel.beta2 = o->beta2;
    q->gumbel.decay = o->decay;
    q->gumbel.init_noise = o->init_noise;
    q->gumbel.init_gap = o->init_gap;
    q->scales.lr = o->scale_lr;
    q->scales.batch = o->scale_batch;
}

void gsq_quantize_options_init_sized(struct gsq_quantize_options *o, size_t size)
{
    struct quantize_options q;
    struct gsq_quantize_options defaults = {.method = "gsq", .bits = "2"};
    quantize_defaults(&q);
    from_internal(&defaults, &q);
    defaults.size = size;
    memcpy(o, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

bool gsq_quantize_options_set_effort(struct gsq_quantize_options *o, const char *effort)
{
    struct quantize_options q;
    enum effort x;
    if (!effort_parse(effort, &x))
        return false;
    quantize_defaults(&q);
    quantize_set_effort(&q, x);
    o->samples = q.samples;
    o->steps = q.gumbel.steps;
    o->epochs = q.block.epochs;
    o->batch = q.block.batch;
    o->scale_epochs = q.scales.epochs;
    return true;
}

static bool unknown(const char *what, const char *name, const char *names, struct err *e)
{
    err_set(e, ERR_USER, "%s \"%s\" is unknown", what, name);
    return err_hint(e, "known: %s", names);
}

/* "3", "3,g64", "Q4_K"; NULL: 16 bits. */
static bool rule_type(struct tensor_rule *r, const char *type, struct err *e)
{
    char name[16];
    if (!type)
        return true;
    size_t n = strcspn(type, ",");
    snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), type);
    r->type = quant_type_find(name);
    if (r->type && r->type->group)
        r->type = NULL;
    if (!r->type)
        r->gguf = gguf_type_named(name);
    if (!r->type && !r->gguf)
        return unknown("the rule's type", type, "2, 3, 4, 8, ternary, or a type of GGUF such as Q4_K", e);
    if (type[n] == 0)
        return true;
    char *end;
    unsigned long group = type[n + 1] == 'g' ? strtoul(type + n + 2, &end, 10) : 0;
    if (group < 1 || group > 65536 || *end)
        return unknown("the rule's type", type, "what follows the comma is g and a group size: 3,g64", e);
    r->group = (uint32_t)group;
    return true;
}

bool lib_types(struct quantize_options *q, const char *bits, const char *type, struct err *e)
{
    if (bits && (!(q->type = quant_type_find(bits)) || q->type->group))
        return unknown("the number of bits", bits, "2, 3, 4, 8, ternary", e);
    if (type && !gguf_mixture_read(type, &q->mixture, e))
        return e->kind == ERR_NONE &&
               unknown("the type", type, "Q2_K, Q3_K_M, Q4_0 and others, as llama-quantize names them", e);
    return true;
}

static bool names(struct quantize_options *q, const struct gsq_quantize_options *o, struct err *e)
{
    const char *format = o->format ? o->format : str_ends_nocase(o->out, ".gguf") ? "gguf" : "gptq";
    if (o->method && !method_parse(o->method, &q->method))
        return unknown("the method", o->method, "rtn, gptq, gsq", e);
    if (o->start && !start_parse(o->start, &q->block.start))
        return unknown("the start", o->start, "rtn, gptq, hessian", e);
    if (!lib_types(q, o->bits, o->type, e))
        return false;
    q->format = export_format_parse(format);
    if (q->format == EXPORT_NONE || q->format == EXPORT_HF)
        return unknown("the format", format, "gptq, gptq_v2, compressed-tensors, mlx, humming, gguf", e);
    if (str_ends_nocase(o->out, ".gguf") == (q->format == EXPORT_GGUF))
        return true;
    err_set(e, ERR_USER, "the format %s and the output %s do not go together", format, o->out);
    return err_hint(e, "a GGUF is one file whose name ends in .gguf, every other format is a folder");
}

bool lib_options(struct lib_options *out, const struct gsq_model *model, const struct gsq_quantize_options *o,
                 struct err *e)
{
    struct gsq_quantize_options all;
    *out = (struct lib_options){0};
    quantize_defaults(&out->q);
    gsq_quantize_options_init(&all);
    if (!lib_take(&all, sizeof all, o, "gsq_quantize_options", e))
        return false;
    if (!all.out || !all.out[0])
        return err_set(e, ERR_USER, "gsq_quantize_options.out is not set: where should the model go?");
    out->q.model_dir = model->path;
    out->q.out_dir = all.out;
    out->q.work_dir = all.work;
    out->q.calib = all.calib;
    out->q.imatrix = all.imatrix;
    out->q.refine = all.refine;
    numbers(&out->q, &all);
    if (!names(&out->q, &all, e))
        return false;
    out->rules = calloc(all.n_rules + 1, sizeof *out->rules);
    if (!out->rules)
        return err_nomem(e, "tensor rules", all.n_rules * sizeof *out->rules);
    for (size_t i = 0; i < all.n_rules; i++) {
        out->rules[i].regex = all.rules[i].pattern;
        if (!all.rules[i].pattern || !all.rules[i].pattern[0])
            return err_set(e, ERR_USER, "rule %zu has no pattern", i);
        if (!rule_type(&out->rules[i], all.rules[i].type, e))
            return err_context(e, "rule '%s'", all.rules[i].pattern);
    }
    out->q.rules = out->rules;
    out->q.n_rules = all.n_rules;
    return true;
}

void lib_options_free(struct lib_options *o)
{
    free(o->rules);
    *o = (struct lib_options){0};
}
