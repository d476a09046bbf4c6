/* The ways a quantized folder describes itself, all turned into one list of rules. */
#include "formats/hf/hf_quant.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/str.h"

#define READS                                                                                                          \
    "gsq reads gptq, gptq_v2, compressed-tensors (pack-quantized, float-quantized, mxfp4-pack-quantized), fp8, "       \
    "humming and mlx"

struct reader {
    struct model_config *c;
    const char *path;
    struct err *e;
};

static bool bad(const struct reader *r, const char *key, const char *what)
{
    err_set(r->e, ERR_USER, "%s: quantization: \"%.200s\" %s", r->path, key, what);
    return err_hint(r->e, READS);
}

/* ---- rules ---- */

/* Takes the pattern over; rule.regex is it. */
static bool add_whole_rule(const struct reader *r, struct quant_rule rule)
{
    struct model_config *c = r->c;
    struct quant_rule *grown = realloc(c->rules, (c->n_rules + 1) * sizeof *grown);
    if (!grown) {
        free(rule.regex);
        return err_nomem(r->e, "the rules of config.json", (c->n_rules + 1) * sizeof *grown);
    }
    c->rules = grown;
    c->rules[c->n_rules++] = rule;
    return true;
}

static bool add_rule(const struct reader *r, char *regex, bool skip, unsigned bits, uint32_t group)
{
    return add_whole_rule(
        r, (struct quant_rule){.regex = regex, .skip = skip, .bits = skip ? 0 : bits, .group = skip ? 0 : group});
}

/* Python's re.match holds a pattern to the beginning of the name. */
static char *regex_at_start(const char *pattern)
{
    struct strbuf b = {0};
    strbuf_puts(&b, "^(?:");
    strbuf_puts(&b, pattern);
    strbuf_puts(&b, ")");
    if (!b.failed)
        return b.data;
    strbuf_free(&b);
    return NULL;
}

/* Matches this name and nothing else. */
static char *regex_exact(const char *name)
{
    struct strbuf b = {0};
    strbuf_puts(&b, "^");
    for (; *name; name++) {
        unsigned char c = (unsigned char)*name;
        bool plain =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
        strbuf_add(&b, "\\", plain ? 0 : 1);
        strbuf_add(&b, name, 1);
    }
    strbuf_puts(&b, "\\z");
    if (!b.failed)
        return b.data;
    strbuf_free(&b);
    return NULL;
}

/* "re:PATTERN" or an exact name, as compressed-tensors and Humming write them, gets the rule. */
static bool add_target(const struct reader *r, const char *target, struct quant_rule rule)
{
    rule.regex = strncmp(target, "re:", 3) == 0 ? regex_at_start(target + 3) : regex_exact(target);
    if (!rule.regex)
        return err_nomem(r->e, "a rule of config.json", strlen(target));
    return add_whole_rule(r, rule);
}

static bool add_named_rule(const struct reader *r, const char *target, bool skip, unsigned bits, uint32_t group)
{
    return add_target(r, target, (struct quant_rule){.skip = skip, .bits = skip ? 0 : bits, .group = skip ? 0 : group});
}

static bool add_ignored(const struct reader *r, const cJSON *o)
{
    const cJSON *list = json_get(o, "ignore"), *item;
    if (list && !cJSON_IsArray(list))
        return bad(r, "ignore", "must be a list of module names");
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsString(item))
            return bad(r, "ignore", "must be a list of module names");
        if (!add_named_rule(r, item->valuestring, true, 0, 0))
            return false;
    }
    return true;
}

/* ---- values ---- */

static bool read_bits(const struct reader *r, const cJSON *item, const char *key, unsigned *bits)
{
    uint64_t v;
    if (!json_u64(item, &v) || v < 2 || v > 8)
        return bad(r, key, "must be a number of bits from 2 to 8");
    *bits = (unsigned)v;
    return true;
}

/* -1, 0 and null mean one group per row. */
static bool read_group(const struct reader *r, const cJSON *item, const char *key, uint32_t *group)
{
    uint64_t v;
    *group = 0;
    if (!item || cJSON_IsNull(item) || (cJSON_IsNumber(item) && item->valuedouble == -1))
        return true;
    if (!json_u64(item, &v) || v > 1u << 24)
        return bad(r, key, "must be a group size, or -1 for one group per row");
    *group = (uint32_t)v;
    return true;
}

/* "uint4"; "int4" is stored the same way. */
static bool read_b_dtype(const struct reader *r, const cJSON *item, unsigned *bits)
{
    const char *s = cJSON_IsString(item) ? item->valuestring : "";
    s += *s == 'u';
    if (strncmp(s, "int", 3) != 0 || s[3] < '2' || s[3] > '8' || s[4])
        return bad(r, "b_dtype", "must be uint2 ... uint8");
    *bits = (unsigned)(s[3] - '0');
    return true;
}

static bool is_set(const cJSON *o, const char *key)
{
    return cJSON_IsTrue(json_get(o, key));
}

/* Methods that store a zero point say so under various names. */
static bool refuse_asymmetric(const struct reader *r, const cJSON *o)
{
    const cJSON *sym = json_get(o, "sym");
    if (sym && !cJSON_IsTrue(sym))
        return bad(r, "sym", "is not true: asymmetric quantization is not read");
    if (is_set(o, "has_zero_point") || is_set(o, "is_fp_zero_point"))
        return bad(r, "has_zero_point", "is true: asymmetric quantization is not read");
    if (is_set(o, "desc_act"))
        return bad(r, "desc_act", "is true: columns in activation order are not read");
    return true;
}

/* ---- gptq, humming ---- */

/* `dynamic`: {"-:REGEX": {}, "+:REGEX" or "REGEX": {bits, group_size}}, first match wins. */
static bool add_dynamic(const struct reader *r, const cJSON *o, unsigned bits, uint32_t group)
{
    const cJSON *dynamic = json_get(o, "dynamic");
    if (!dynamic || cJSON_IsFalse(dynamic))
        return true;
    if (!cJSON_IsObject(dynamic))
        return bad(r, "dynamic", "must be an object");
    for (const cJSON *item = dynamic->child; item; item = item->next) {
        const char *key = item->string;
        bool skip = strncmp(key, "-:", 2) == 0;
        unsigned own_bits = bits;
        uint32_t own_group = group;
        if (!skip) {
            if (!cJSON_IsObject(item))
                return bad(r, key, "(in dynamic) must be an object");
            if (!refuse_asymmetric(r, item))
                return false;
            if (json_get(item, "bits") && !read_bits(r, json_get(item, "bits"), key, &own_bits))
                return false;
            if (json_get(item, "b_dtype") && !read_b_dtype(r, json_get(item, "b_dtype"), &own_bits))
                return false;
            if (json_get(item, "group_size") && !read_group(r, json_get(item, "group_size"), key, &own_group))
                return false;
        }
        char *regex = regex_at_start(skip || strncmp(key, "+:", 2) == 0 ? key + 2 : key);
        if (!regex)
            return err_nomem(r->e, "a rule of config.json", strlen(key));
        if (!add_rule(r, regex, skip, own_bits, own_group))
            return false;
    }
    return true;
}

static bool parse_gptq(const struct reader *r, const cJSON *o)
{
    const cJSON *format = json_get(o, "checkpoint_format");
    if (!format || (cJSON_IsString(format) && strcmp(format->valuestring, "gptq") == 0))
        r->c->quant = QUANT_GPTQ;
    else if (cJSON_IsString(format) && strcmp(format->valuestring, "gptq_v2") == 0)
        r->c->quant = QUANT_GPTQ_V2;
    else
        return bad(r, cJSON_IsString(format) ? format->valuestring : "checkpoint_format",
                   "is not a GPTQ checkpoint format that gsq reads");
    const cJSON *pack = json_get(o, "pack_dtype");
    if (pack && (!cJSON_IsString(pack) || strcmp(pack->valuestring, "int32") != 0))
        return bad(r, "pack_dtype", "must be int32");
    unsigned bits;
    uint32_t group;
    if (!refuse_asymmetric(r, o) || !read_bits(r, json_get(o, "bits"), "bits", &bits) ||
        !read_group(r, json_get(o, "group_size"), "group_size", &group))
        return false;
    /* Where its text part begins is seen from the tensors, later: every name that a head has. */
    const struct config_names *n;
    for (size_t i = 0; !is_set(o, "lm_head") && (i == 0 || r->c->wrapper[0]) && (n = config_names_at(i)); i++)
        if (!add_named_rule(r, n->head, true, 0, 0))
            return false;
    return add_dynamic(r, o, bits, group) && add_rule(r, NULL, false, bits, group);
}

static bool parse_humming(const struct reader *r, const cJSON *o)
{
    const cJSON *a = json_get(o, "a_dtype");
    if (a &&
        (!cJSON_IsString(a) || (strcmp(a->valuestring, "float16") != 0 && strcmp(a->valuestring, "bfloat16") != 0)))
        return bad(r, "a_dtype", "asks for quantized activations, which gsq does not read");
    unsigned bits;
    uint32_t group;
    r->c->quant = QUANT_HUMMING;
    if (!refuse_asymmetric(r, o) || !read_b_dtype(r, json_get(o, "b_dtype"), &bits) ||
        !read_group(r, json_get(o, "group_size"), "group_size", &group))
        return false;
    return add_ignored(r, o) && add_dynamic(r, o, bits, group) && add_rule(r, NULL, false, bits, group);
}

/* ---- compressed-tensors ---- */

static const char *text_of(const cJSON *o, const char *key, const char *fallback)
{
    const cJSON *item = json_get(o, key);
    return cJSON_IsString(item) ? item->valuestring : item ? key : fallback;
}

/* *floats: weights are floating point, read for what they are. */
static bool check_format(const struct reader *r, const cJSON *o, bool *floats)
{
    static const char *const known[] = {"pack-quantized", "mixed-precision", "float-quantized", "mxfp4-pack-quantized"};
    const char *format = text_of(o, "format", known[0]);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(format, known[i]) == 0) {
            *floats = i > 1;
            return true;
        }
    return bad(r, format, "is not a compressed-tensors format that gsq reads");
}

/* [rows, columns] of a block. */
static bool read_block(const struct reader *r, const cJSON *o, const char *key, struct quant_rule *rule)
{
    const cJSON *list = json_get(o, key);
    uint64_t rows, cols;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != 2 || !json_u64(cJSON_GetArrayItem(list, 0), &rows) ||
        !json_u64(cJSON_GetArrayItem(list, 1), &cols) || !rows || !cols || rows > 1u << 24 || cols > 1u << 24)
        return bad(r, key, "must be two sizes, of rows and columns");
    rule->block_rows = (uint32_t)rows;
    rule->group = (uint32_t)cols;
    return true;
}

/* E4M3 with a scale for each block, row or matrix; E2M1 in groups of 32. The tensors tell which of these. */
static bool read_float_scheme(const struct reader *r, const cJSON *w, struct quant_rule *rule)
{
    if (strcmp(text_of(w, "type", "int"), "float") != 0 || (rule->bits != 8 && rule->bits != 4))
        return bad(r, "type", "must be float, in 8 or 4 bits, in this format");
    return strcmp(text_of(w, "strategy", "tensor"), "block") != 0 || read_block(r, w, "block_structure", rule);
}

static bool read_integer_scheme(const struct reader *r, const cJSON *w, struct quant_rule *rule)
{
    const cJSON *order = json_get(w, "actorder");
    if (strcmp(text_of(w, "type", "int"), "int") != 0)
        return bad(r, "type", "must be int: floating-point codes are not read in this format");
    if (json_get(w, "symmetric") && !is_set(w, "symmetric"))
        return bad(r, "symmetric", "is not true: asymmetric quantization is not read");
    /* "weight" and "static" reorder before rounding only; "group" stores columns in another order. */
    if (order && !cJSON_IsFalse(order) &&
        !(cJSON_IsString(order) &&
          (strcmp(order->valuestring, "weight") == 0 || strcmp(order->valuestring, "static") == 0)))
        return bad(r, "actorder", "asks for columns in activation order, which gsq does not read");
    const char *s = text_of(w, "strategy", rule->group ? "group" : "channel");
    if (strcmp(s, "channel") == 0)
        rule->group = 0;
    else if (strcmp(s, "group") != 0 || rule->group == 0)
        return bad(r, "strategy", "must be group (with a group_size) or channel");
    return true;
}

/* What the weights of a group are; regex is left NULL. */
static bool read_scheme(const struct reader *r, const cJSON *group, bool floats, struct quant_rule *rule)
{
    *rule = (struct quant_rule){0};
    if (!cJSON_IsObject(group))
        return bad(r, "config_groups", "names a preset scheme; gsq reads groups that are written out");
    const cJSON *w = json_get(group, "weights");
    if (!cJSON_IsObject(w))
        return bad(r, "weights", "is missing in a group of config_groups");
    if (json_get(group, "format") && !check_format(r, group, &floats))
        return false;
    /* Such models round activations as they run; their weights are no other for it. */
    if (!floats && (json_get(group, "input_activations") || json_get(group, "output_activations")))
        return bad(r, "input_activations", "asks for quantized activations, which gsq does not read");
    if (!read_bits(r, json_get(w, "num_bits"), "num_bits", &rule->bits) ||
        !read_group(r, json_get(w, "group_size"), "group_size", &rule->group))
        return false;
    if (is_set(w, "dynamic"))
        return bad(r, "dynamic", "is true for weights, which have to be stored");
    rule->floats = floats;
    return floats ? read_float_scheme(r, w, rule) : read_integer_scheme(r, w, rule);
}

/* Exact names go before patterns, patterns before the class "Linear", whatever the order of the groups. */
enum target_kind { TARGET_EXACT, TARGET_REGEX, TARGET_LINEAR };

static enum target_kind target_kind(const char *target)
{
    return strncmp(target, "re:", 3) == 0 ? TARGET_REGEX : strcmp(target, "Linear") == 0 ? TARGET_LINEAR : TARGET_EXACT;
}

static bool add_targets(const struct reader *r, const cJSON *groups, bool floats, enum target_kind kind, bool *linear)
{
    for (const cJSON *group = groups->child; group; group = group->next) {
        struct quant_rule rule;
        if (!read_scheme(r, group, floats, &rule))
            return false;
        const cJSON *targets = json_get(group, "targets"), *item;
        if (!cJSON_IsArray(targets))
            return bad(r, "targets", "must be a list in every group of config_groups");
        cJSON_ArrayForEach(item, targets)
        {
            if (!cJSON_IsString(item))
                return bad(r, "targets", "must be a list of strings");
            if (target_kind(item->valuestring) != kind)
                continue;
            if (kind != TARGET_LINEAR) {
                if (!add_target(r, item->valuestring, rule))
                    return false;
            } else if (*linear) {
                return bad(r, "config_groups", "holds two groups for the target Linear");
            } else {
                *linear = true;
                if (!add_whole_rule(r, rule))
                    return false;
            }
        }
    }
    return true;
}

static bool parse_compressed_tensors(const struct reader *r, const cJSON *o)
{
    const cJSON *groups = json_get(o, "config_groups");
    const cJSON *sparsity = json_get(json_get(o, "sparsity_config"), "format");
    const cJSON *transform = json_get(o, "transform_config");
    bool floats = false;
    r->c->quant = QUANT_COMPRESSED_TENSORS;
    if (!check_format(r, o, &floats))
        return false;
    if (json_get(o, "kv_cache_scheme"))
        return bad(r, "kv_cache_scheme", "asks for quantized activations, which gsq does not read");
    if (sparsity && (!cJSON_IsString(sparsity) || strcmp(sparsity->valuestring, "dense") != 0))
        return bad(r, "sparsity_config", "asks for sparse weights, which gsq does not read");
    if (transform && (!cJSON_IsObject(transform) || transform->child))
        return bad(r, "transform_config", "asks for transformed weights, which gsq does not read");
    if (!cJSON_IsObject(groups) || !groups->child)
        return bad(r, "config_groups", "is missing or empty");
    bool linear = false;
    if (!add_ignored(r, o) || !add_targets(r, groups, floats, TARGET_EXACT, &linear) ||
        !add_targets(r, groups, floats, TARGET_REGEX, &linear) ||
        !add_targets(r, groups, floats, TARGET_LINEAR, &linear))
        return false;
    return linear || add_rule(r, NULL, true, 0, 0);
}

/* ---- MLX ---- */

/* {"group_size": g, "bits": b, "model.layers.0.mlp.down_proj": {...} or false, ...} */
static bool parse_mlx(const struct reader *r, const cJSON *o)
{
    unsigned bits;
    uint32_t group;
    r->c->quant = QUANT_MLX;
    if (!cJSON_IsObject(o))
        return bad(r, "quantization", "must be an object");
    if (!read_bits(r, json_get(o, "bits"), "bits", &bits) ||
        !read_group(r, json_get(o, "group_size"), "group_size", &group))
        return false;
    for (const cJSON *item = o->child; item; item = item->next) {
        const cJSON *mode = strcmp(item->string, "mode") == 0 ? item : json_get(item, "mode");
        if (mode && !cJSON_IsNull(mode) && (!cJSON_IsString(mode) || strcmp(mode->valuestring, "affine") != 0))
            return bad(r, "mode", "must be affine");
        unsigned own_bits = bits;
        uint32_t own_group = group;
        if (cJSON_IsObject(item)) {
            if (json_get(item, "bits") && !read_bits(r, json_get(item, "bits"), item->string, &own_bits))
                return false;
            if (json_get(item, "group_size") && !read_group(r, json_get(item, "group_size"), item->string, &own_group))
                return false;
        } else if (!cJSON_IsFalse(item)) {
            continue;
        }
        if (!add_named_rule(r, item->string, cJSON_IsFalse(item), own_bits, own_group))
            return false;
    }
    return add_rule(r, NULL, false, bits, group);
}

/* ---- FP8 ---- */

/* Which modules are in E4M3 their tensors say; the list of those that are not says nothing more. */
static bool parse_fp8(const struct reader *r, const cJSON *o)
{
    struct quant_rule rule = {.floats = true, .bits = 8};
    r->c->quant = QUANT_FP8;
    if (strcmp(text_of(o, "fmt", "e4m3"), "e4m3") != 0)
        return bad(r, text_of(o, "fmt", ""), "is not a format of 8-bit floats that gsq reads (e4m3 is)");
    if (json_get(o, "weight_block_size") && !read_block(r, o, "weight_block_size", &rule))
        return false;
    return add_whole_rule(r, rule);
}

bool hf_quant_parse(struct model_config *c, const cJSON *root, const char *path, struct err *e)
{
    const struct reader r = {c, path, e};
    const cJSON *mlx = json_get(root, "quantization");
    const cJSON *o = json_get(root, "quantization_config");
    if (o && !cJSON_IsObject(o))
        return bad(&r, "quantization_config", "must be an object");
    const cJSON *method = json_get(o, "quant_method");
    if (mlx && !method)
        return parse_mlx(&r, mlx);
    if (!o)
        return true;
    if (!cJSON_IsString(method))
        return bad(&r, "quant_method", "is missing");
    if (strcmp(method->valuestring, "gptq") == 0)
        return parse_gptq(&r, o);
    if (strcmp(method->valuestring, "compressed-tensors") == 0)
        return parse_compressed_tensors(&r, o);
    if (strcmp(method->valuestring, "humming") == 0)
        return parse_humming(&r, o);
    if (strcmp(method->valuestring, "mxfp4") == 0) /* of tensors that say so themselves (formats/read/stacked.h) */
        return true;
    if (strcmp(method->valuestring, "fp8") == 0)
        return parse_fp8(&r, o);
    return bad(&r, method->valuestring, "is not a method that gsq reads");
}

const char *quant_method_name(enum quant_method q)
{
    static const char *const names[] = {"none", "gptq", "gptq_v2", "compressed-tensors", "mlx", "humming", "fp8"};
    return names[q];
}
