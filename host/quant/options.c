#include "host/quant/options.h"

#include <stdio.h>
#include <string.h>

#include "formats/write/export.h"
#include "formats/write/gguf_mixture.h"
#include "host/base/num.h"

static const char *const method_names[] = {"rtn", "gptq", "gsq"};
static const char *const effort_names[EFFORT_COUNT] = {"quick", "fast", "balanced", "best", "paper"};
static const char *const output_names[] = {"auto", "on", "off"};
static const char *const start_names[] = {"rtn", "gptq", "hessian"};

/* Number of a name; -1: none of n has it. */
static int find_name(const char *const *names, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return -1;
}

bool method_parse(const char *name, enum method *out)
{
    int i = find_name(method_names, METHOD_GSQ + 1, name);
    *out = i < 0 ? *out : (enum method)i;
    return i >= 0;
}

bool start_parse(const char *name, enum start *out)
{
    int i = find_name(start_names, START_HESSIAN + 1, name);
    *out = i < 0 ? *out : (enum start)i;
    return i >= 0;
}

bool output_hessian_parse(const char *name, enum output_hessian *out)
{
    int i = find_name(output_names, OUTPUT_HESSIAN_OFF + 1, name);
    *out = i < 0 ? *out : (enum output_hessian)i;
    return i >= 0;
}

const char *output_hessian_name(enum output_hessian x)
{
    return output_names[x];
}

const char *start_name(enum start x)
{
    return start_names[x];
}

const char *method_name(enum method m)
{
    return method_names[m];
}

bool effort_parse(const char *name, enum effort *out)
{
    int i = find_name(effort_names, EFFORT_COUNT, name);
    *out = i < 0 ? *out : (enum effort)i;
    return i >= 0;
}

const char *effort_name(enum effort x)
{
    return effort_names[x];
}

/* What the options rule out. */
static void drop_numbers(struct quantize_options *o)
{
    if (quantize_diagonal(o))
        o->samples = o->holdout = o->block.epochs = o->scales.epochs = 0;
    if (o->refine || o->block.attn_alone) /* scales stay those of the file; nothing goes back end to end */
        o->scales.epochs = 0;
}

void quantize_set_effort(struct quantize_options *o, enum effort effort)
{
    /* Chosen by bench/results/levels-lavapipe.md. */
    static const struct {
        uint32_t samples, tokens, steps, epochs, batch, scale_epochs;
    } levels[EFFORT_COUNT] = {
        [EFFORT_QUICK] = {64, 0, 125, 0, 4, 0},           [EFFORT_FAST] = {128, 1 << 16, 250, 0, 4, 0},
        [EFFORT_BALANCED] = {448, 1 << 16, 125, 2, 4, 1}, [EFFORT_BEST] = {896, 1 << 17, 125, 5, 4, 2},
        [EFFORT_PAPER] = {4096, 0, 500, 20, 0, 5}, /* batch 0: 1280 steps */
    };
    o->effort = effort;
    o->samples = levels[effort].samples;
    o->tokens = levels[effort].tokens;
    o->gumbel.steps = levels[effort].steps;
    o->block.epochs = levels[effort].epochs;
    o->block.batch = levels[effort].batch;
    o->scales.epochs = levels[effort].scale_epochs;
    if (o->settled)
        drop_numbers(o);
}

uint32_t quantize_lone_steps(const struct quantize_options *o)
{
    struct quantize_options own = *o, fast = *o;
    quantize_set_effort(&own, o->effort);
    quantize_set_effort(&fast, EFFORT_FAST);
    return o->gumbel.steps == own.gumbel.steps && fast.gumbel.steps > own.gumbel.steps ? fast.gumbel.steps
                                                                                       : o->gumbel.steps;
}

/* All of it is too much for linears that all tokens go through: at 2 bits the rest of the error hides it. Not so for experts, whose drifts
 * are pooled with their layer's (bench/results/correction-lavapipe.md). */
#define CORRECTION         0.5f
#define CORRECTION_EXPERTS 1.0f

float quantize_correction(const struct quantize_options *o, bool expert)
{
    if (o->method == METHOD_RTN || quantize_diagonal(o))
        return 0;
    return o->correction >= 0 ? o->correction : o->method != METHOD_GSQ ? 0 : expert ? CORRECTION_EXPERTS : CORRECTION;
}

/* Epochs that a short text may bring an effort to. */
#define EPOCHS_MOST 20u

/* An effort's batch where its windows are more: as many times larger, whole windows, so steps are hardly more. */
static uint32_t batch_for(const struct quantize_options *own, uint32_t windows)
{
    return windows <= own->samples ? own->block.batch : (uint32_t)((uint64_t)own->block.batch * windows / own->samples);
}

void quantize_fit_context(struct quantize_options *o, uint32_t ctx)
{
    struct quantize_options own = *o;
    const uint32_t windows = (uint32_t)div_up(o->tokens, ctx);
    quantize_set_effort(&own, o->effort);
    if (windows <= o->samples || o->samples != own.samples || !o->samples)
        return;
    if (o->block.batch == own.block.batch)
        o->block.batch = batch_for(&own, windows);
    o->samples = windows;
}

bool quantize_fit_text(struct quantize_options *o, uint32_t ctx, uint32_t windows)
{
    struct quantize_options own = *o, whole;
    if (windows >= o->samples)
        return false;
    quantize_set_effort(&own, o->effort);
    whole = own;
    quantize_fit_context(&whole, ctx);
    const bool kept = whole.samples == o->samples && whole.gumbel.steps == o->gumbel.steps &&
                      whole.block.batch == o->block.batch && whole.block.epochs == o->block.epochs &&
                      whole.scales.epochs == o->scales.epochs;
    const uint32_t epochs = o->block.epochs;
    if (kept)
        o->block.batch = batch_for(&own, windows);
    if (kept && epochs && windows && windows < own.samples) {
        uint64_t as_long = ((uint64_t)epochs * own.samples + windows / 2) / windows;
        uint64_t most = max_u64(epochs, min_u64(4 * epochs, EPOCHS_MOST));
        o->block.epochs = (uint32_t)min_u64(as_long, most);
    }
    o->samples = windows;
    return kept;
}

void quantize_defaults(struct quantize_options *o)
{
    *o = (struct quantize_options){
        .method = METHOD_GSQ,
        .code_type = quant_type_find("2"),
        .group = GROUP_DEFAULT,
        .format = EXPORT_GPTQ,
        .damp = 0.01f,
        .correction = -1,
        .scale_search = {.candidates = 80, .power = 2.4f},
        .gumbel = {.tau0 = 2.0f,
                   .tau1 = 0.05f,
                   .kappa0 = 100.0f,
                   .kappa1 = 500.0f,
                   .lr_logits = 1e-4f,
                   .lr_scales = 5e-5f,
                   .reach = 2.0f,
                   .lr_end = 0.1f,
                   .beta1 = 0.9f,
                   .beta2 = 0.95f,
                   .decay = 1.0f,
                   .freeze = 0.7f,
                   .init_noise = 0.01f,
                   .init_gap = 6.0f},
        .block = {.reach = 1.0f, .init_noise = 0.001f, .init_gap = 60.0f, .train_qk = true, .start = START_HESSIAN},
        .scales = {.epochs = 0, .batch = 8, .lr = 0.01f, .lr_end = 0.1f, .beta1 = 0.9f, .beta2 = 0.95f},
        .seed = 1,
    };
    quantize_set_effort(o, EFFORT_BALANCED);
}

/* ---- GGUF ---- */

static bool no_home(const char *option, const struct quant_type *type, uint32_t group, struct err *e)
{
    char in_groups[32] = "", list[256] = "";
    struct quant_spec spec;
    if (group && gguf_type_home(type, 0, &spec))
        snprintf(in_groups, sizeof in_groups, " in groups of %u", (unsigned)group);
    for (size_t i = 0; gguf_mixture_at(i); i++) {
        const struct gguf_type *base = gguf_mixture_base(gguf_mixture_at(i));
        size_t n = strlen(list);
        if (base && base->codes)
            snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", gguf_mixture_at(i));
    }
    err_set(e, ERR_USER, "%s: no type of GGUF stores codes of type %s%s", option, type->name, in_groups);
    return err_hint(e, "choose one of its types with --type: %s", list);
}

static bool wrong_group(const char *option, const struct gguf_type *t, uint32_t group, struct err *e)
{
    const struct quant_type *q = t->codes;
    if (!q)
        err_set(e, ERR_USER, "%s: %s has no groups", option, t->name);
    else
        err_set(e, ERR_USER, "%s: a group of %u does not go with %s, whose groups are %s%u", option, (unsigned)group,
                t->name, gguf_type_spec(t, 2 * q->group).type ? "multiples of " : "", (unsigned)q->group);
    return err_hint(e, "leave the group out");
}

/* Where types of GGUF are named and none is written. */
static bool settle_folder(struct quantize_options *o, struct err *e)
{
    const char *format = export_format_name(o->format);
    if (!o->group)
        o->group = GROUP_DEFAULT;
    const char *of_gguf = o->embedding_type ? "token-embedding-type"
                          : o->head_type    ? "output-tensor-type"
                          : o->keep_head    ? "leave-output-tensor"
                          : o->pure         ? "pure"
                          : o->n_overrides  ? "override-kv"
                                            : NULL;
    if (of_gguf) {
        err_set(e, ERR_USER, "--%s needs --format gguf, but the format is %s", of_gguf, format);
        return err_hint(e, "give a file with -o OUT.gguf");
    }
    if (o->mixture) {
        err_set(e, ERR_USER, "--type %s needs --format gguf, but the format is %s", o->mixture, format);
        return err_hint(e, "give a file with -o OUT.gguf, or choose --bits and --group");
    }
    for (size_t i = 0; i < o->n_rules; i++) {
        if (!o->rules[i].gguf)
            continue;
        err_set(e, ERR_USER, "--%s '%s=%s': %s is a GGUF type, but the format is %s",
                o->rules[i].llama ? "tensor-type" : "tensor", o->rules[i].regex, o->rules[i].gguf->name,
                o->rules[i].gguf->name, format);
        return err_hint(e, "give a file with -o OUT.gguf, or bits such as '%s=4'", o->rules[i].regex);
    }
    return true;
}

static bool settle_rules(const struct quantize_options *o, struct err *e)
{
    for (size_t i = 0; i < o->n_rules; i++) {
        const struct tensor_rule *r = &o->rules[i];
        struct quant_spec spec;
        char option[160];
        snprintf(option, sizeof option, "--tensor '%.100s=%s'", r->regex,
                 r->type   ? r->type->name
                 : r->gguf ? r->gguf->name
                           : "");
        if (r->type && !gguf_type_home(r->type, r->group, &spec))
            return no_home(option, r->type, r->group, e);
        if (r->gguf && r->group && !gguf_type_spec(r->gguf, r->group).type)
            return wrong_group(option, r->gguf, r->group, e);
    }
    return true;
}

bool quantize_copies(const struct quantize_options *o)
{
    const struct gguf_type *base = o->mixture ? gguf_mixture_base(o->mixture) : NULL;
    return o->mixture && (!base || base->block == 1);
}

/* Types of blocks whose codes have no place in gsq's tables: what is stored of a weight is found by rounding it. */
static bool settle_rounded(struct quantize_options *o, const struct gguf_type *base, struct err *e)
{
    if (o->group)
        return wrong_group("--group", base, o->group, e);
    if (o->method == METHOD_RTN)
        return settle_rules(o, e);
    err_set(e, ERR_USER, "--type %s: gsq can round to %s, but not learn it", o->mixture, base->name);
    return err_hint(
        e, "--method rtn rounds as llama-quantize does; the nearest type that gsq learns is %s (%s bits per weight)",
        base->id == GGML_Q4_1 ? "Q4_K_S" : "Q5_K_S", base->id == GGML_Q4_1 ? "4.5" : "5.5");
}

static bool settle_gguf(struct quantize_options *o, struct err *e)
{
    struct quant_spec spec;
    if (!o->mixture) {
        const struct gguf_type *home = gguf_type_home(o->code_type, o->group, &spec);
        if (!home)
            return no_home("--bits", o->code_type, o->group, e);
        o->mixture = home->name;
        o->code_type = spec.type;
        o->group = spec.group;
        return settle_rules(o, e);
    }
    const struct gguf_type *base = gguf_mixture_base(o->mixture);
    if (quantize_copies(o)) {
        err_set(e, ERR_USER, "--type %s quantizes nothing", o->mixture);
        return err_hint(e, "gsq convert MODEL -o OUT.gguf --format gguf --type %s writes such a file", o->mixture);
    }
    if (!base)
        return err_set(e, ERR_BUG, "there is no mixture %s", o->mixture);
    if (!base->codes)
        return settle_rounded(o, base, e);
    spec = gguf_type_spec(base, o->group);
    if (!spec.type)
        return wrong_group("--group", base, o->group, e);
    o->code_type = spec.type;
    o->group = spec.group;
    return settle_rules(o, e);
}

static bool settle_refine(struct quantize_options *o, struct err *e)
{
    if (o->format != EXPORT_GGUF) {
        err_set(e, ERR_USER, "--refine writes a GGUF, but the format is %s", export_format_name(o->format));
        return err_hint(e, "give a file with -o OUT.gguf");
    }
    if (o->method == METHOD_RTN || !o->calib) {
        err_set(e, ERR_USER, "--refine learns from activations: it needs a text, and --method gsq or gptq");
        return err_hint(e, "add --calib FILE (text like what the model will read), or --calib default");
    }
    o->gumbel.lr_scales = 0; /* scales stay those of the file */
    return true;
}

bool quantize_diagonal(const struct quantize_options *o)
{
    return o->imatrix && !o->calib && o->method != METHOD_RTN;
}

bool quantize_samples(const struct quantize_options *o)
{
    return o->method != METHOD_RTN && o->calib && strcmp(o->calib, CALIB_SELF) == 0;
}

/* Types are chosen by what is measured on a text. */
static bool settle_target(const struct quantize_options *o, struct err *e)
{
    const struct size_target *t = &o->target;
    const char *option = t->bytes ? "--size" : t->bpw > 0 ? "--bpw" : "--type auto:", *with = NULL;
    if (!size_target_set(t))
        return true;
    if ((t->bytes > 0) + (t->bpw > 0) + (t->like != NULL) > 1) {
        err_set(e, ERR_USER, "--size, --bpw and --type auto: each say how large the output is to be");
        return err_hint(e, "give one of them");
    }
    if (t->like && o->format != EXPORT_GGUF) {
        err_set(e, ERR_USER, "--type auto:%s needs --format gguf, but the format is %s", t->like,
                export_format_name(o->format));
        return err_hint(e, "give a file with -o OUT.gguf, or --bpw");
    }
    if (o->mixture)
        with = "--type";
    else if (o->pure)
        with = "--pure";
    else if (o->refine)
        with = "--refine";
    else if (o->container)
        with = "--container";
    else if (o->group && o->format == EXPORT_GGUF)
        with = "--group";
    else if (o->method == METHOD_RTN)
        with = "--method rtn";
    if (with) {
        err_set(e, ERR_USER, "%s chooses types by what is measured on a text: %s cannot be used with it", option, with);
        return err_hint(e, "leave one of them out; --tensor and --keep name types that are to stay as they say");
    }
    if ((o->calib && !quantize_samples(o)) || o->dry_run)
        return true;
    err_set(e, ERR_USER, "%s chooses types by what is measured on a text before the run begins: it needs one", option);
    return err_hint(
        e,
        "--calib default is the text that comes with gsq; --calib FILE, text like what the model will read, is better");
}

bool quantize_settle(struct quantize_options *o, struct err *e)
{
    if (o->settled)
        return true;
    if (o->method != METHOD_RTN && !o->calib && !o->imatrix) {
        o->calib = CALIB_SELF;
        o->no_text = true;
    }
    if (quantize_samples(o) && o->n_more_calib) {
        err_set(e, ERR_USER, "--calib self is in place of a text, and %s is one", o->more_calib[0]);
        return err_hint(e, "leave --calib self out, or the others");
    }
    if (!settle_target(o, e))
        return false;
    drop_numbers(o);
    if (o->refine)
        return o->settled = settle_refine(o, e);
    o->settled = o->format == EXPORT_GGUF ? settle_gguf(o, e) : settle_folder(o, e);
    return o->settled;
}
