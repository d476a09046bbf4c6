/* Options of the library, whose names are texts, as the method takes them. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "formats/write/export.h"
#include "formats/write/gguf_override.h"
#include "host/base/out_path.h"
#include "host/base/str.h"
#include "lib/lib_internal.h"

/* The public options that say the same as the internal ones. */
static void from_internal(struct gsq_quantize_options *o, const struct quantize_options *q)
{
    o->samples = q->samples;
    o->tokens = q->tokens;
    o->context = q->ctx;
    o->seed = q->seed;
    o->effort = effort_name(q->effort);
    o->steps = q->gumbel.steps;
    o->epochs = q->block.epochs;
    o->batch = q->block.batch;
    o->scale_epochs = q->scales.epochs;
    o->damp = q->damp;
    o->correction = q->correction;
    o->scale_steps = q->scale_search.candidates;
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
    o->output_hessian = output_hessian_name(q->output_hessian);
    o->scale_lr = q->scales.lr;
    o->scale_batch = q->scales.batch;
}

static void numbers(struct quantize_options *q, const struct gsq_quantize_options *o)
{
    q->samples = o->samples;
    q->tokens = o->tokens;
    q->ctx = o->context;
    q->holdout = o->holdout;
    q->seed = o->seed;
    q->host_limit = o->host_limit;
    q->ranks = o->ranks;
    q->link = o->link;
    q->force = o->force;
    q->keep_work = o->keep_work;
    q->join = o->join;
    q->keep_head = o->keep_head;
    q->pure = o->pure;
    q->requantize = o->requantize;
    q->group = o->group;
    q->container = o->container;
    q->gumbel.steps = o->steps;
    q->block.epochs = o->epochs;
    q->block.batch = o->batch;
    q->scales.epochs = o->scale_epochs;
    q->damp = o->damp;
    q->correction = o->correction;
    q->scale_search = (struct scale_search_options){.candidates = o->scale_steps, .power = o->scale_power};
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
    q->target.bytes = o->target_bytes;
    q->target.bpw = o->target_bpw;
}

void gsq_quantize_options_init_sized(struct gsq_quantize_options *o, size_t size)
{
    struct quantize_options q;
    struct gsq_quantize_options defaults = {.method = "gsq"};
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
    o->effort = effort_name(x);
    o->samples = q.samples;
    if (o->size >=
        offsetof(struct gsq_quantize_options, tokens) + sizeof o->tokens) /* an older caller has no such field */
        o->tokens = q.tokens;
    o->steps = q.gumbel.steps;
    o->epochs = q.block.epochs;
    o->batch = q.block.batch;
    o->scale_epochs = q.scales.epochs;
    return true;
}

/* ---- texts ---- */

/* "3", "3,g64", "Q4_K"; NULL: 16 bits. */
static bool rule_type(struct tensor_rule *r, const char *type, const char *option, struct err *e)
{
    char name[32], *end;
    size_t n = type ? strcspn(type, ",") : 0;
    if (!type)
        return true;
    snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), type);
    if (!lib_tensor_type(r, name, option, e))
        return false;
    if (type[n] == 0)
        return true;
    unsigned long group = type[n + 1] == 'g' ? strtoul(type + n + 2, &end, 10) : 0;
    if (group < 1 || group > 65536 || *end) {
        err_set(e, ERR_USER, "%s %s: expected g and a group size after the comma", option, type);
        return err_hint(e, "for example --tensor 'down_proj=3,g64'");
    }
    r->group = (uint32_t)group;
    return true;
}

static bool take_rules(struct lib_options *out, const struct gsq_quantize_options *o, struct err *e)
{
    out->rules = calloc(o->n_rules + 1, sizeof *out->rules);
    if (!out->rules)
        return err_nomem(e, "tensor rules", o->n_rules * sizeof *out->rules);
    for (size_t i = 0; i < o->n_rules; i++) {
        const struct gsq_tensor_rule *from = &o->rules[i];
        struct tensor_rule *r = &out->rules[i];
        r->regex = from->pattern;
        r->llama = from->llama;
        if (!from->pattern || !from->pattern[0])
            return err_set(e, ERR_USER, "rule %zu has no pattern", i);
        if (!rule_type(r, from->type, from->llama ? "--tensor-type" : "--tensor", e))
            return err_context(e, "rule '%s'", from->pattern);
    }
    out->q.rules = out->rules;
    out->q.n_rules = o->n_rules;
    return true;
}

static bool take_overrides(struct lib_options *out, const struct gsq_quantize_options *o, struct err *e)
{
    out->overrides = calloc(o->n_overrides + 1, sizeof *out->overrides);
    out->keys = calloc(o->n_overrides + 1, sizeof *out->keys);
    if (!out->overrides || !out->keys)
        return err_nomem(e, "metadata", o->n_overrides * sizeof *out->overrides);
    for (; out->q.n_overrides < o->n_overrides; out->q.n_overrides++) {
        size_t i = out->q.n_overrides;
        if (!gguf_override_parse(o->overrides[i] ? o->overrides[i] : "", &out->overrides[i], &out->keys[i], e))
            return false;
    }
    out->q.overrides = out->overrides;
    return true;
}

bool lib_types(struct quantize_options *q, const char *bits, const char *type, struct err *e)
{
    const char *name = bits ? lib_name(GSQ_NAME_BITS, bits, "--bits", e) : NULL;
    if (name)
        q->code_type = quant_type_find(name);
    else if (bits)
        return false;
    if (type && strncmp(type, LIB_AUTO, sizeof LIB_AUTO - 1) == 0)
        return (q->target.like = lib_name(GSQ_NAME_TYPE, type + sizeof LIB_AUTO - 1, "--type " LIB_AUTO, e));
    return !type || (q->mixture = lib_name(GSQ_NAME_TYPE, type, "--type", e));
}

/* A name in .gguf asks for that format, and it alone is written under such a name. */
static bool take_format(struct quantize_options *q, const struct gsq_quantize_options *o, struct err *e)
{
    bool file = o->out && str_ends_nocase(o->out, ".gguf");
    const char *format = !o->format ? file ? "gguf" : "gptq" : lib_name(GSQ_NAME_FORMAT, o->format, "--format", e);
    if (!format)
        return false;
    q->format = export_format_parse(format);
    if (!o->out || file == (q->format == EXPORT_GGUF))
        return true;
    if (file) {
        err_set(e, ERR_USER, "--format %s writes a folder, and -o %s is the name of a GGUF file", format, o->out);
        return err_hint(e, "leave --format out, or give a folder's name");
    }
    err_set(e, ERR_USER, "--format gguf writes one file, whose name ends in .gguf; -o is %s", o->out);
    return err_hint(e, "for example -o %s.gguf", o->out);
}

static bool take_names(struct quantize_options *q, const struct gsq_quantize_options *o, struct err *e)
{
    return (!o->method ||
            (lib_name(GSQ_NAME_METHOD, o->method, "--method", e) && method_parse(o->method, &q->method))) &&
           (!o->effort ||
            (lib_name(GSQ_NAME_EFFORT, o->effort, "--effort", e) && effort_parse(o->effort, &q->effort))) &&
           (!o->start ||
            (lib_name(GSQ_NAME_START, o->start, "--start", e) && start_parse(o->start, &q->block.start))) &&
           (!o->output_hessian || (lib_name(GSQ_NAME_OUTPUT_HESSIAN, o->output_hessian, "--output-hessian", e) &&
                                   output_hessian_parse(o->output_hessian, &q->output_hessian))) &&
           lib_types(q, o->bits, o->type, e) &&
           (!o->embedding_type || lib_gguf_type(&q->embedding_type, o->embedding_type, "--token-embedding-type", e)) &&
           (!o->head_type || lib_gguf_type(&q->head_type, o->head_type, "--output-tensor-type", e)) &&
           take_format(q, o, e);
}

static bool take_paths(struct lib_options *out, const gsq_model *model, const struct gsq_quantize_options *o,
                       struct err *e)
{
    if (!o->out || !o->out[0])
        return err_set(e, ERR_USER, "gsq_quantize_options.out is not set: where should the model go?");
    if (!(out->out = str_dup(o->out)))
        return err_nomem(e, "a path", strlen(o->out));
    out_trim(out->out); /* "out/" is "out": the work folder lies beside it, not in it */
    out->q.model_dir = model ? model->path : NULL;
    out->q.out_dir = out->out;
    out->q.work_dir = o->work;
    out->q.calib = o->calib;
    out->q.more_calib = o->more_calib;
    out->q.n_more_calib = o->calib ? o->n_more_calib : 0;
    out->q.imatrix = o->imatrix;
    out->q.importance_names = o->importance_names;
    out->q.n_importance_names = o->n_importance_names;
    out->q.importance_skip = o->importance_skip;
    out->q.refine = o->refine;
    out->q.accept = o->accept;
    return true;
}

bool lib_options(struct lib_options *out, const gsq_model *model, const struct gsq_quantize_options *options,
                 struct err *e)
{
    struct gsq_quantize_options *o = &out->asked;
    *out = (struct lib_options){0};
    quantize_defaults(&out->q);
    gsq_quantize_options_init(o);
    if (!lib_take(o, sizeof *o, options, "gsq_quantize_options", e))
        return false;
    numbers(&out->q, o);
    return take_paths(out, model, o, e) && take_names(&out->q, o, e) && take_rules(out, o, e) &&
           take_overrides(out, o, e);
}

void lib_options_free(struct lib_options *o)
{
    for (size_t i = 0; o->keys && i < o->q.n_overrides; i++)
        free(o->keys[i]);
    free(o->keys);
    free(o->overrides);
    free(o->rules);
    free(o->out);
    *o = (struct lib_options){0};
}
