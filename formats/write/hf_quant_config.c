/* quantization_config: which linear has how many bits, said in each format's own way and in few rules. */
#include "formats/write/hf_quant_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hf/expert_stack.h"
#include "formats/write/hf_linear.h"
#include "host/base/grow.h"
#include "host/base/num.h"

/* How a linear is stored. group 0: one group per row; bits 0: in 16 bits. */
struct storage {
    unsigned bits;
    uint32_t group;
};

struct module {
    const char *name;
    struct storage storage;
    uint32_t template_id, number; /* "model.layers.#.mlp.up_proj" and its 7; UINT32_MAX: no number */
};

/* All linears; those of one storage are described by patterns over their templates. */
struct rules {
    struct module *modules;
    size_t n_modules;
    char **templates; /* by id */
    uint32_t *totals; /* modules of each template, whatever their storage */
    size_t n_templates;
    struct storage base;
    struct storage *kinds; /* the others, in order of appearance; 16 bits among them */
    size_t n_kinds;
    bool failed; /* out of memory */
};

static bool same(struct storage a, struct storage b)
{
    return a.bits == b.bits && a.group == b.group;
}

/* ---- what is the base ---- */

/* Most frequent storage among the items; with `real`, only among those of several groups. The first of
 * equals. */
static bool most_frequent(const struct quant_config_facts *f, struct rules *r, bool real, struct storage *out)
{
    struct tally {
        struct storage storage;
        size_t n;
    } *tally = calloc(f->n_items + 1, sizeof *tally);
    size_t n_tally = 0, best = 0;
    r->failed |= !tally;
    for (size_t i = 0; i < f->n_items && tally; i++) {
        struct storage s = r->modules[i].storage;
        size_t t = 0;
        if (real && (s.group == 0 || s.group >= f->items[i].cols))
            continue;
        while (t < n_tally && !same(tally[t].storage, s))
            t++;
        n_tally += t == n_tally;
        tally[t].storage = s;
        tally[t].n++;
    }
    for (size_t t = 0; t < n_tally; t++) {
        if (tally[t].n > best) {
            best = tally[t].n;
            *out = tally[t].storage;
        }
    }
    free(tally);
    return best > 0;
}

/* A linear of one group per row fits any declared group that is no smaller than the row: it takes the base's.
 */
static void choose_base(const struct quant_config_facts *f, struct rules *r)
{
    bool mlx = f->options->format == EXPORT_MLX; /* knows real groups only */
    if (!most_frequent(f, r, true, &r->base) && most_frequent(f, r, false, &r->base) && !mlx) {
        for (size_t i = 0; i < f->n_items; i++) {
            if (r->modules[i].storage.group != r->base.group)
                r->base.group = 0;
        }
    }
    for (size_t i = 0; i < f->n_items && !mlx; i++) {
        struct storage *s = &r->modules[i].storage;
        bool one_group = s->group == 0 || s->group >= f->items[i].cols;
        if (one_group && (r->base.group == 0 || r->base.group >= f->items[i].cols))
            s->group = r->base.group;
    }
}

/* ---- templates ---- */

/* Where "model.layers.7.mlp.experts" ends in the name of an expert's matrix; NULL: it is none. */
static const char *experts_end(const char *name)
{
    static const char word[] = ".experts.";
    const char *at = strstr(name, word);
    return at && at[sizeof word - 1] >= '0' && at[sizeof word - 1] <= '9' ? at + sizeof word - 2 : NULL;
}

/* Whether all experts of each layer are stored alike, as inference servers want them: they are one module there. */
static bool experts_alike(struct rules *r)
{
    struct strmap map = {0};
    char **keys = calloc(r->n_modules + 1, sizeof *keys);
    bool alike = keys != NULL, added;
    for (size_t i = 0; i < r->n_modules && alike; i++) {
        const char *name = r->modules[i].name, *end = experts_end(name);
        uint32_t first = (uint32_t)i;
        if (!end)
            continue;
        if (!strmap_find(&map, name, (size_t)(end - name), &first)) {
            keys[i] = str_dup_n(name, (size_t)(end - name));
            alike = keys[i] && strmap_add(&map, keys[i], strlen(keys[i]), (uint32_t)i, &added);
        }
        alike = alike && same(r->modules[first].storage, r->modules[i].storage);
    }
    strmap_free(&map);
    for (size_t i = 0; keys && i < r->n_modules; i++)
        free(keys[i]);
    free(keys);
    return alike;
}

/* Ends a template that stands for all experts of a layer. */
#define ALL_EXPERTS "*"

/* "model.layers.7.mlp.up_proj" -> "model.layers.#.mlp.up_proj" and 7; together: "model.layers.7.mlp.experts.3.up_proj" ->
 * "model.layers.#.mlp.experts*". */
static char *template_of(const char *name, bool together, uint32_t *number)
{
    const char *cut = together ? experts_end(name) : NULL;
    struct strbuf b = {0};
    *number = UINT32_MAX;
    for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.')) {
        size_t digits = strspn(dot + 1, "0123456789");
        bool plain = digits && digits < 7 && (digits == 1 || dot[1] != '0');
        if (!plain || (dot[1 + digits] != '.' && dot[1 + digits] != 0))
            continue;
        *number = (uint32_t)strtoul(dot + 1, NULL, 10);
        strbuf_add(&b, name, (size_t)(dot + 1 - name));
        strbuf_puts(&b, "#");
        name = dot + 1 + digits;
        break;
    }
    strbuf_add(&b, name, cut ? (size_t)(cut - name) : strlen(name));
    strbuf_puts(&b, cut ? ALL_EXPERTS : "");
    if (b.failed)
        strbuf_free(&b);
    return b.data;
}

static void find_templates(struct rules *r)
{
    struct strmap map = {0};
    r->templates = calloc(r->n_modules + 1, sizeof *r->templates);
    r->totals = calloc(r->n_modules + 1, sizeof *r->totals);
    r->failed |= !r->templates || !r->totals;
    const bool together = experts_alike(r);
    for (size_t i = 0; i < r->n_modules && !r->failed; i++) {
        struct module *m = &r->modules[i];
        uint32_t next = (uint32_t)r->n_templates;
        bool added = false;
        char *t = template_of(m->name, together, &m->number);
        if (!t || !strmap_add(&map, t, strlen(t), next, &added)) {
            r->failed = true;
        } else if (added) {
            m->template_id = next;
            r->templates[r->n_templates++] = t;
            t = NULL;
        } else {
            strmap_find(&map, t, strlen(t), &m->template_id);
        }
        r->totals[m->template_id]++;
        free(t);
    }
    strmap_free(&map);
}

static void find_kinds(struct rules *r)
{
    size_t cap = 0;
    for (size_t i = 0; i < r->n_modules && !r->failed; i++) {
        struct storage s = r->modules[i].storage;
        bool known = same(s, r->base);
        for (size_t k = 0; k < r->n_kinds && !known; k++)
            known = same(s, r->kinds[k]);
        if (known)
            continue;
        struct storage *grown = grow(r->kinds, &cap, r->n_kinds, sizeof *grown, "kinds of storage", NULL);
        if (!grown) {
            r->failed = true;
            return;
        }
        r->kinds = grown;
        r->kinds[r->n_kinds++] = s;
    }
}

static void rules_make(struct rules *r, const struct quant_config_facts *f)
{
    *r = (struct rules){.n_modules = f->n_items + f->n_dense};
    r->modules = calloc(r->n_modules + 1, sizeof *r->modules);
    if (!r->modules) {
        r->failed = true;
        return;
    }
    for (size_t i = 0; i < f->n_items; i++) {
        const struct quant_spec *s = &f->items[i].spec;
        r->modules[i].name = f->items[i].module;
        r->modules[i].storage = (struct storage){storage_bits(f->options->format, f->options->container, s), s->group};
    }
    for (size_t i = 0; i < f->n_dense; i++)
        r->modules[f->n_items + i].name = f->dense[i];
    choose_base(f, r);
    find_templates(r);
    find_kinds(r);
}

static void rules_free(struct rules *r)
{
    for (size_t i = 0; i < r->n_templates; i++)
        free(r->templates[i]);
    free(r->templates);
    free(r->totals);
    free(r->modules);
    free(r->kinds);
}

/* ---- patterns ---- */

struct pattern {
    char *text;
    bool exact; /* one module, by its name: the text is no regular expression */
};
struct patterns {
    struct pattern *items;
    size_t n;
};

static void patterns_free(struct patterns *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->items[i].text);
    free(p->items);
    *p = (struct patterns){0};
}

static void escape(struct strbuf *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] && strchr(".^$*+?()[]{}|\\/-#&~ ", s[i]))
            strbuf_puts(b, "\\");
        strbuf_add(b, s + i, 1);
    }
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The modules of one template that have this storage: numbers, sorted, and n of them. */
static char *pattern_text(const char *stem, uint32_t *numbers, size_t n, bool all)
{
    struct strbuf b = {0};
    const char *hash = n && numbers[0] != UINT32_MAX ? strchr(stem, '#') : NULL;
    const bool experts = str_ends(stem, ALL_EXPERTS);
    const size_t end = strlen(stem) - (experts ? strlen(ALL_EXPERTS) : 0);
    strbuf_puts(&b, "^");
    escape(&b, stem, hash ? (size_t)(hash - stem) : end);
    if (hash) {
        size_t left = 1;
        qsort(numbers, n, sizeof *numbers, by_number);
        for (size_t i = 1; i < n; i++) /* a layer has many experts */
            if (numbers[i] != numbers[left - 1])
                numbers[left++] = numbers[i];
        n = left;
        strbuf_puts(&b, all ? "[0-9]+" : n > 1 ? "(?:" : "");
        for (size_t i = 0; i < n && !all; i++)
            strbuf_printf(&b, i ? "|%u" : "%u", (unsigned)numbers[i]);
        strbuf_puts(&b, !all && n > 1 ? ")" : "");
        escape(&b, hash + 1, end - (size_t)(hash + 1 - stem));
    }
    strbuf_puts(&b, experts ? "(?:\\.|$)" : "$");
    if (b.failed)
        strbuf_free(&b);
    return b.data;
}

/* Patterns that match the modules of this storage and no other linear; in order of first appearance. */
static struct patterns patterns_of(struct rules *r, struct storage s, bool names_for_one)
{
    struct patterns p = {0};
    uint32_t *count = calloc(r->n_templates + 1, sizeof *count), *start = calloc(r->n_templates + 1, sizeof *start);
    uint32_t *numbers = calloc(r->n_modules + 1, sizeof *numbers);
    const char **only = calloc(r->n_templates + 1, sizeof *only);
    p.items = calloc(r->n_templates + 1, sizeof *p.items);
    bool ok = count && start && numbers && only && p.items;
    for (size_t i = 0; i < r->n_modules && ok; i++) {
        if (same(r->modules[i].storage, s)) {
            count[r->modules[i].template_id]++;
            only[r->modules[i].template_id] = r->modules[i].name;
        }
    }
    for (size_t t = 1; t < r->n_templates && ok; t++)
        start[t] = start[t - 1] + count[t - 1];
    for (size_t i = 0; i < r->n_modules && ok; i++) {
        if (same(r->modules[i].storage, s))
            numbers[start[r->modules[i].template_id]++] = r->modules[i].number;
    }
    for (size_t t = 0; t < r->n_templates && ok; t++) {
        if (count[t] == 0)
            continue;
        struct pattern *x = &p.items[p.n++];
        x->exact = names_for_one && count[t] == 1 && !str_ends(r->templates[t], ALL_EXPERTS);
        x->text = x->exact ? str_dup(only[t])
                           : pattern_text(r->templates[t], numbers + start[t] - count[t], count[t],
                                          count[t] > 1 && count[t] == r->totals[t]);
        ok = x->text != NULL;
    }
    free(count);
    free(start);
    free(numbers);
    free(only);
    r->failed |= !ok;
    return p;
}

/* ---- JSON ---- */

/* Adds an object under a key; NULL-safe, so that failures surface once, at the end. */
static cJSON *add_object(cJSON *parent, const char *key)
{
    return parent ? cJSON_AddObjectToObject(parent, key) : NULL;
}

static bool add_number(cJSON *o, const char *key, double v)
{
    return o && cJSON_AddNumberToObject(o, key, v);
}

static bool add_string(cJSON *o, const char *key, const char *v)
{
    return o && cJSON_AddStringToObject(o, key, v);
}

static bool add_bool(cJSON *o, const char *key, bool v)
{
    return o && cJSON_AddBoolToObject(o, key, v);
}

static bool push_string(cJSON *array, const char *prefix, const char *s)
{
    struct strbuf b = {0};
    strbuf_puts(&b, prefix);
    strbuf_puts(&b, s);
    cJSON *item = array && !b.failed ? cJSON_CreateString(b.data) : NULL;
    bool ok = item && cJSON_AddItemToArray(array, item);
    strbuf_free(&b);
    return ok;
}

static bool has_item(const struct quant_config_facts *f, const char *module)
{
    for (size_t i = 0; i < f->n_items; i++) {
        if (strcmp(f->items[i].module, module) == 0)
            return true;
    }
    return false;
}

/* gptq: bits and group_size (-1: whole row); humming: b_dtype and group_size (0: whole row). */
static bool add_storage(cJSON *o, enum export_format f, struct storage s)
{
    if (f == EXPORT_HUMMING) {
        char type[16];
        snprintf(type, sizeof type, "uint%u", s.bits);
        return add_string(o, "b_dtype", type) && add_number(o, "group_size", s.group);
    }
    return add_number(o, "bits", s.bits) && add_number(o, "group_size", s.group ? (double)s.group : -1.0);
}

static bool add_dynamic_rule(cJSON *dynamic, enum export_format f, struct storage s, const char *pattern)
{
    struct strbuf key = {0};
    strbuf_puts(&key, s.bits ? "+:" : "-:");
    strbuf_puts(&key, pattern);
    cJSON *rule = key.failed ? NULL : add_object(dynamic, key.data);
    strbuf_free(&key);
    return rule && (s.bits == 0 || add_storage(rule, f, s));
}

/* text with `from` at the end of its name replaced by `to`. NULL if it does not end so. */
static char *other_tail(const char *text, const char *from, const char *to)
{
    size_t n = strlen(text), m = strlen(from);
    struct strbuf b = {0};
    if (n < m + 1 || text[n - 1] != '$' || strncmp(text + n - 1 - m, from, m) != 0)
        return NULL;
    strbuf_add(&b, text, n - 1 - m);
    strbuf_puts(&b, to);
    strbuf_puts(&b, "$");
    if (b.failed)
        strbuf_free(&b);
    return b.data;
}

static bool has_pattern(const struct patterns *p, const char *text)
{
    for (size_t i = 0; i < p->n; i++) {
        if (text && strcmp(p->items[i].text, text) == 0)
            return true;
    }
    return false;
}

/* Inference servers join q,k,v, gate,up and the first matrices of latent attention, and then look for the joint name: where all parts are stored
 * alike, it gets the same rule. Names that a model does not have harm nobody. */
static bool add_fused(cJSON *dynamic, enum export_format f, struct storage s, const struct patterns *p, size_t i)
{
    const char *text = p->items[i].text;
    char *k = other_tail(text, "q_proj", "k_proj"), *v = other_tail(text, "q_proj", "v_proj");
    char *up = other_tail(text, "gate_proj", "up_proj"), *fused = NULL;
    char *kv_a = other_tail(text, "q_a_proj", "kv_a_proj_with_mqa");
    if (has_pattern(p, k) && has_pattern(p, v))
        fused = other_tail(text, "q_proj", "qkv_proj");
    else if (has_pattern(p, up))
        fused = other_tail(text, "gate_proj", "gate_up_proj");
    else if (has_pattern(p, kv_a))
        fused = other_tail(text, "q_a_proj", "fused_qkv_a_proj");
    bool ok = !fused || add_dynamic_rule(dynamic, f, s, fused);
    free(k);
    free(v);
    free(up);
    free(kv_a);
    free(fused);
    return ok;
}

/* `dynamic` of gptq and humming: every storage but the base. lm_head has its own key in both. */
static bool add_dynamic(cJSON *root, const struct quant_config_facts *f, struct rules *r)
{
    enum export_format format = f->options->format;
    cJSON *dynamic = cJSON_CreateObject();
    bool ok = dynamic != NULL;
    for (size_t k = 0; k < r->n_kinds && ok; k++) {
        struct patterns p = patterns_of(r, r->kinds[k], false);
        for (size_t i = 0; i < p.n && ok && !r->failed; i++) {
            if (r->kinds[k].bits == 0 && strcmp(p.items[i].text, "^lm_head$") == 0)
                continue;
            ok = add_dynamic_rule(dynamic, format, r->kinds[k], p.items[i].text) &&
                 add_fused(dynamic, format, r->kinds[k], &p, i);
        }
        patterns_free(&p);
    }
    if (ok && cJSON_GetArraySize(dynamic) == 0) {
        cJSON_Delete(dynamic);
        return true;
    }
    if (ok && cJSON_AddItemToObject(root, "dynamic", dynamic))
        return true;
    cJSON_Delete(dynamic);
    return false;
}

static bool gptq_json(cJSON *o, const struct quant_config_facts *f, struct rules *r)
{
    bool v2 = f->options->format == EXPORT_GPTQ_V2;
    bool ok = add_storage(o, f->options->format, r->base) && add_bool(o, "desc_act", false) &&
              add_bool(o, "sym", true) && add_bool(o, "lm_head", has_item(f, f->head)) &&
              add_string(o, "quant_method", "gptq") && add_string(o, "checkpoint_format", v2 ? "gptq_v2" : "gptq") &&
              add_string(o, "pack_dtype", "int32") && add_dynamic(o, f, r);
    cJSON *meta = ok ? add_object(o, "meta") : NULL;
    cJSON *quantizer = meta ? cJSON_AddArrayToObject(meta, "quantizer") : NULL;
    ok = push_string(quantizer, "", "gsq:" GSQ_VERSION);
    for (size_t i = 0; i < f->options->n_metadata && ok; i++)
        ok = add_string(meta, f->options->metadata[i][0], f->options->metadata[i][1]);
    return ok;
}

/* Names and "re:" patterns of one storage, appended to an array. */
static bool push_targets(cJSON *array, struct rules *r, struct storage s)
{
    struct patterns p = patterns_of(r, s, true);
    bool ok = array && !r->failed;
    for (size_t i = 0; i < p.n && ok; i++)
        ok = push_string(array, p.items[i].exact ? "" : "re:", p.items[i].text);
    patterns_free(&p);
    return ok;
}

static bool add_group(cJSON *groups, unsigned id, struct rules *r, struct storage s)
{
    char key[24];
    snprintf(key, sizeof key, "group_%u", id);
    cJSON *group = add_object(groups, key), *targets = group ? cJSON_AddArrayToObject(group, "targets") : NULL;
    bool ok = id == 0 ? push_string(targets, "", "Linear") : push_targets(targets, r, s);
    cJSON *w = ok ? add_object(group, "weights") : NULL;
    ok = add_number(w, "num_bits", s.bits) && add_string(w, "type", "int") && add_bool(w, "symmetric", true) &&
         add_string(w, "strategy", s.group ? "group" : "channel") &&
         (s.group ? add_number(w, "group_size", s.group) : cJSON_AddNullToObject(w, "group_size") != NULL) &&
         add_bool(w, "dynamic", false);
    return ok && cJSON_AddNullToObject(w, "actorder") && cJSON_AddNullToObject(group, "input_activations");
}

static bool compressed_json(cJSON *o, const struct quant_config_facts *f, struct rules *r)
{
    bool ok = add_string(o, "quant_method", "compressed-tensors") && add_string(o, "format", "pack-quantized") &&
              add_string(o, "quantization_status", "compressed");
    cJSON *groups = ok ? add_object(o, "config_groups") : NULL;
    unsigned id = 0;
    ok = groups && add_group(groups, id++, r, r->base);
    for (size_t k = 0; k < r->n_kinds && ok; k++)
        ok = r->kinds[k].bits == 0 || add_group(groups, id++, r, r->kinds[k]);
    cJSON *ignore = ok ? cJSON_AddArrayToObject(o, "ignore") : NULL;
    bool stored_head = false;
    for (size_t i = 0; i < f->n_dense; i++)
        stored_head |= strcmp(f->dense[i], f->head) == 0;
    /* A tied head is a Linear too, though no tensor of its own is stored. */
    if (!stored_head && !has_item(f, f->head))
        ok = push_string(ignore, "", f->head);
    return ok && ignore && push_targets(ignore, r, (struct storage){0, 0});
}

static bool humming_json(cJSON *o, const struct quant_config_facts *f, struct rules *r)
{
    bool ok = add_string(o, "quant_method", "humming") && add_storage(o, EXPORT_HUMMING, r->base) &&
              add_bool(o, "has_zero_point", false) && add_bool(o, "is_fp_zero_point", false) && add_dynamic(o, f, r);
    cJSON *ignore = ok ? cJSON_AddArrayToObject(o, "ignore") : NULL;
    return push_string(ignore, "", f->head);
}

/* What mlx-lm calls a module: of experts, that which has all of a layer. NULL: it is said of the first of them. */
static const char *mlx_name(const struct model_config *c, const char *module, char *out, size_t cap)
{
    uint32_t layer, expert = 0;
    const struct block_part *part = expert_part_named(c, module, &layer, &expert);
    const struct expert_stack *s = part ? expert_stack_write(family_of(c), STACK_MLX, part, ".weight") : NULL;
    if (!s)
        return module;
    return expert ? NULL : expert_stack_name(s, c, layer, out, cap);
}

/* Modules of other bits by their full name, and false for those in 16 bits. The loader sees from the missing
 * .scales that embeddings and the head are dense: old ones choke on any entry, so they get none. */
static bool mlx_json(cJSON *o, const struct quant_config_facts *f, const struct rules *r)
{
    bool ok = add_number(o, "group_size", r->base.group) && add_number(o, "bits", r->base.bits);
    for (size_t i = 0; i < r->n_modules && ok; i++) {
        const struct module *m = &r->modules[i];
        char stack[160];
        const char *name = mlx_name(f->config, m->name, stack, sizeof stack);
        if (same(m->storage, r->base) || !name)
            continue;
        if (m->storage.bits == 0) {
            ok = strcmp(name, f->head) == 0 || add_bool(o, name, false);
            continue;
        }
        cJSON *entry = add_object(o, name);
        ok = add_number(entry, "group_size", m->storage.group) && add_number(entry, "bits", m->storage.bits);
    }
    return ok;
}

cJSON *quant_config_json(const struct quant_config_facts *f)
{
    struct rules r;
    rules_make(&r, f);
    cJSON *o = r.failed ? NULL : cJSON_CreateObject();
    bool ok = false;
    if (o) {
        switch (f->options->format) {
        case EXPORT_GPTQ:
        case EXPORT_GPTQ_V2:
            ok = gptq_json(o, f, &r);
            break;
        case EXPORT_COMPRESSED_TENSORS:
            ok = compressed_json(o, f, &r);
            break;
        case EXPORT_HUMMING:
            ok = humming_json(o, f, &r);
            break;
        case EXPORT_MLX:
            ok = mlx_json(o, f, &r);
            break;
        case EXPORT_GGUF:
        case EXPORT_HF:
        case EXPORT_NONE:
            break;
        }
    }
    if (!ok || r.failed) {
        cJSON_Delete(o);
        o = NULL;
    }
    rules_free(&r);
    return o;
}

static void print_value(struct strbuf *b, const cJSON *item, unsigned depth)
{
    bool object = cJSON_IsObject(item);
    if (!object && !cJSON_IsArray(item)) {
        char *text = cJSON_PrintUnformatted(item);
        strbuf_puts(b, text ? text : "");
        b->failed |= !text;
        cJSON_free(text);
        return;
    }
    strbuf_puts(b, object ? "{" : "[");
    for (const cJSON *child = item->child; child; child = child->next) {
        strbuf_printf(b, "%s\n%*s", child == item->child ? "" : ",", (int)(2 * depth + 2), "");
        if (object) {
            strbuf_json(b, child->string);
            strbuf_puts(b, ": ");
        }
        print_value(b, child, depth + 1);
    }
    if (item->child)
        strbuf_printf(b, "\n%*s", (int)(2 * depth), "");
    strbuf_puts(b, object ? "}" : "]");
}

void json_print(struct strbuf *b, const cJSON *item)
{
    print_value(b, item, 0);
    strbuf_puts(b, "\n");
}
