/* The names that options take: which there are, and what a text stands for. */
#include <stdlib.h>
#include <string.h>

#include "formats/write/export.h"
#include "formats/write/gguf_mixture.h"
#include "host/eval/eval.h"
#include "lib/lib_internal.h"

/* ---- which there are ---- */

static bool copies(const char *mixture)
{
    return quantize_copies(&(struct quantize_options){.mixture = mixture});
}

static const char *bits_at(size_t i)
{
    const struct quant_type *t;
    for (size_t row = 0; (t = quant_type_at(row)); row++)
        if (!t->group && i-- == 0)
            return t->name;
    return NULL;
}

/* Folders, the file, and what conversions alone write. */
static const char *format_at(size_t i, bool convert)
{
    return i < EXPORT_HF || (i < EXPORT_NONE && convert) ? export_format_name((enum export_format)i) : NULL;
}

static const char *copy_type_at(size_t i)
{
    const char *name;
    for (size_t row = 0; (name = gguf_mixture_at(row)); row++)
        if (copies(name) && i-- == 0)
            return name;
    return i == 0 ? GGUF_COPY : NULL;
}

static const char *gguf_type_name_at(size_t i)
{
    const struct gguf_type *t;
    for (size_t row = 0; (t = gguf_type_at(row)); row++)
        if ((t->codes || t->rounded) && i-- == 0)
            return t->name;
    return NULL;
}

const char *gsq_name_at(enum gsq_name_kind kind, size_t i)
{
    switch (kind) {
    case GSQ_NAME_METHOD:
        return i <= METHOD_GSQ ? method_name((enum method)i) : NULL;
    case GSQ_NAME_EFFORT:
        return i < EFFORT_COUNT ? effort_name((enum effort)i) : NULL;
    case GSQ_NAME_START:
        return i <= START_HESSIAN ? start_name((enum start)i) : NULL;
    case GSQ_NAME_OUTPUT_HESSIAN:
        return i <= OUTPUT_HESSIAN_OFF ? output_hessian_name((enum output_hessian)i) : NULL;
    case GSQ_NAME_PROTOCOL:
        return i <= EVAL_LLAMA ? eval_protocol_name((enum eval_protocol)i) : NULL;
    case GSQ_NAME_BITS:
        return bits_at(i);
    case GSQ_NAME_FORMAT:
    case GSQ_NAME_CONVERT_FORMAT:
        return format_at(i, kind == GSQ_NAME_CONVERT_FORMAT);
    case GSQ_NAME_TYPE:
        return gguf_mixture_at(i);
    case GSQ_NAME_COPY_TYPE:
        return copy_type_at(i);
    case GSQ_NAME_TENSOR_TYPE:
    case GSQ_NAME_GGUF_TYPE:
        return gguf_type_name_at(i);
    case GSQ_NAME_LLAMA_TYPE:
        break;
    }
    return NULL;
}

/* ---- what a text stands for ---- */

/* What the names of a kind are called in a hint. */
static const char *plural(enum gsq_name_kind kind)
{
    switch (kind) {
    case GSQ_NAME_METHOD:
        return "methods";
    case GSQ_NAME_EFFORT:
        return "efforts";
    case GSQ_NAME_START:
        return "starts";
    case GSQ_NAME_OUTPUT_HESSIAN:
        return "choices";
    case GSQ_NAME_PROTOCOL:
        return "protocols";
    case GSQ_NAME_FORMAT:
    case GSQ_NAME_CONVERT_FORMAT:
        return "formats";
    case GSQ_NAME_BITS:
    case GSQ_NAME_TYPE:
    case GSQ_NAME_COPY_TYPE:
    case GSQ_NAME_TENSOR_TYPE:
    case GSQ_NAME_GGUF_TYPE:
    case GSQ_NAME_LLAMA_TYPE:
        break;
    }
    return "types";
}

static const char *unknown(enum gsq_name_kind kind, const char *text, const char *option, const char *more,
                           struct err *e)
{
    char names[400] = "";
    for (size_t i = 0; gsq_name_at(kind, i); i++) {
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", gsq_name_at(kind, i));
    }
    err_set(e, ERR_USER, "%s %s is unknown", option, text);
    err_hint(e, "%s: %s%s", plural(kind), names, more);
    return NULL;
}

/* A name as it is written. */
static const char *exact(enum gsq_name_kind kind, const char *text, const char *option, struct err *e)
{
    const char *name;
    for (size_t i = 0; (name = gsq_name_at(kind, i)); i++)
        if (strcmp(name, text) == 0)
            return name;
    return unknown(kind, text, option, "", e);
}

static bool find_bits(const char *text, const char *option, const struct quant_type **out, struct err *e)
{
    static const char known[] = "2, 3, 4 or ternary; with --method rtn or gptq also 5 to 8, where the format has them";
    *out = quant_type_find(text);
    if (*out && !(*out)->group)
        return true;
    if (gguf_type_named(text)) {
        err_set(e, ERR_USER, "%s %s is a GGUF type", option, text);
        return err_hint(e, "--type %s -o OUT.gguf; %s takes %s", text, option, known);
    }
    err_set(e, ERR_USER, "%s: there is no quantization type \"%s\"", option, text);
    return err_hint(e, "types: %s", known);
}

static const char *find_type(const char *text, const char *option, struct err *e)
{
    struct err why = {0};
    const char *name = NULL;
    if (gguf_mixture_read(text, &name, &why))
        return name;
    if (why.kind == ERR_NONE)
        return unknown(GSQ_NAME_TYPE, text, option, ", " GGUF_COPY, e);
    *e = why;
    err_context(e, "%s %s", option, text);
    return NULL;
}

static const char *find_copy_type(const char *text, const char *option, struct err *e)
{
    const char *name = find_type(text, option, e);
    return name && !copies(name) ? unknown(GSQ_NAME_COPY_TYPE, text, option, "", e) : name;
}

/* Always false. */
static bool hint_gguf_types(struct err *e)
{
    char names[256] = "";
    const char *name;
    for (size_t i = 0; (name = gguf_type_name_at(i)); i++) {
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", name);
    }
    return err_hint(e, "GGUF types that gsq writes: %s", names);
}

bool lib_tensor_type(struct tensor_rule *rule, const char *text, const char *option, struct err *e)
{
    const char *mixture;
    struct err why = {0};
    rule->type = quant_type_find(text);
    if (rule->type && !rule->type->group)
        return true;
    rule->type = NULL;
    rule->gguf = gguf_type_named(text);
    if (rule->gguf && (rule->gguf->codes || rule->gguf->rounded))
        return true;
    rule->gguf = NULL; /* one that is only read is among the mixtures that are refused */
    if (!gguf_mixture_read(text, &mixture, &why)) {
        if (why.kind == ERR_NONE)
            return find_bits(text, option, &rule->type, e);
        *e = why;
        return err_context(e, "%s", option);
    }
    err_set(e, ERR_USER, "%s: %s is a mixture of types, but a weight has one type", option, text);
    return hint_gguf_types(e);
}

bool lib_gguf_type(const struct gguf_type **out, const char *text, const char *option, struct err *e)
{
    struct tensor_rule rule = {0};
    if (!lib_tensor_type(&rule, text, option, e))
        return false;
    *out = rule.gguf ? rule.gguf : gguf_type_for(&(struct quant_spec){rule.type, 256, SCALE_F16});
    if (*out)
        return true;
    err_set(e, ERR_USER, "%s %s is not a GGUF type", option, text);
    return hint_gguf_types(e);
}

const char *lib_name(enum gsq_name_kind kind, const char *text, const char *option, struct err *e)
{
    const struct quant_type *bits = NULL;
    const struct gguf_type *type = NULL;
    struct tensor_rule rule = {0};
    switch (kind) {
    case GSQ_NAME_METHOD:
    case GSQ_NAME_EFFORT:
    case GSQ_NAME_START:
    case GSQ_NAME_OUTPUT_HESSIAN:
    case GSQ_NAME_PROTOCOL:
    case GSQ_NAME_FORMAT:
    case GSQ_NAME_CONVERT_FORMAT:
        return exact(kind, text, option, e);
    case GSQ_NAME_BITS:
        return find_bits(text, option, &bits, e) ? bits->name : NULL;
    case GSQ_NAME_TYPE:
        return find_type(text, option, e);
    case GSQ_NAME_COPY_TYPE:
        return find_copy_type(text, option, e);
    case GSQ_NAME_TENSOR_TYPE:
        if (!lib_tensor_type(&rule, text, option, e))
            return NULL;
        return rule.type ? rule.type->name : rule.gguf ? rule.gguf->name : NULL;
    case GSQ_NAME_GGUF_TYPE:
        return lib_gguf_type(&type, text, option, e) ? type->name : NULL;
    case GSQ_NAME_LLAMA_TYPE:
        return gguf_mixture_is_name(text) ? text : unknown(kind, text, option, "those of llama-quantize", e);
    }
    err_set(e, ERR_BUG, "there is no such kind of names");
    return NULL;
}

const char *gsq_name_find(enum gsq_name_kind kind, const char *text, const char *option, struct gsq_error *e)
{
    struct err why = {0};
    const char *name = lib_name(kind, text, option, &why);
    lib_result(name != NULL, &why, e);
    return name;
}
