#include "host/quant/plan/plan_rules.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf_names.h"
#include "host/base/str.h"

/* A module is found by its name with and without ".weight": the one is what Hugging Face's modules are
 * called, the other what tensors are. */
static bool matches(const struct rules *r, size_t i, const char *module, bool gguf, bool *hit, struct err *e)
{
    char name[128], weight[160];
    *hit = false;
    if (r->list[i].llama && r->alias && strcmp(module, r->alias) == 0)
        return true;
    if (!gguf)
        snprintf(name, sizeof name, "%s", module);
    else if (!gguf_name_of(r->config, module, name, sizeof name))
        return true;
    snprintf(weight, sizeof weight, "%s.weight", name);
    return pattern_search(r->compiled[i], name, hit, e) && (*hit || pattern_search(r->compiled[i], weight, hit, e));
}

/* ---- in which names a pattern is written ---- */

/* Parts of llama.cpp's names that are in none of Hugging Face's. Decided by the text alone, because a pattern
 * such as ^(?!.*ffn_down) matches every name that it does not mean. */
static bool speaks_gguf(const struct tensor_rule *rule)
{
    static const char *const parts[] = {"blk", "ffn", "attn_", "embd", "output"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(rule->regex, parts[i]))
            return true;
    return rule->llama;
}

static bool matches_any(const struct rules *r, size_t i, const char *const *modules, size_t n, bool gguf, bool *hit,
                        struct err *e)
{
    *hit = false;
    for (size_t k = 0; k < n; k++) { /* all of them: a name that takes too many steps is an error */
        bool one;
        if (!matches(r, i, modules[k], gguf, &one, e))
            return false;
        *hit = *hit || one;
    }
    return true;
}

/* ---- a pattern that matches nothing ---- */

/* The longest word of a pattern: what the user most likely misspelt. */
static void longest_word(const char *regex, char *out, size_t cap)
{
    size_t best = 0, best_at = 0;
    for (size_t i = 0; regex[i];) {
        size_t n = 0;
        if (regex[i] == '\\' && regex[i + 1]) {
            i += 2;
            continue;
        }
        while (isalpha((unsigned char)regex[i + n]) || regex[i + n] == '_')
            n++;
        if (n > best) {
            best = n;
            best_at = i;
        }
        i += n ? n : 1;
    }
    snprintf(out, cap, "%.*s", (int)(best < cap ? best : cap - 1), regex + best_at);
}

struct nearest {
    char name[64];
    unsigned distance;
};

/* Parts between dots: "self_attn", "q_proj"; numbers are none. */
static void consider_parts(struct nearest *best, const char *name, const char *word)
{
    while (*name) {
        size_t n = strcspn(name, ".");
        char part[64];
        snprintf(part, sizeof part, "%.*s", (int)(n < sizeof part ? n : sizeof part - 1), name);
        unsigned d = str_distance(part, word);
        if (isalpha((unsigned char)part[0]) && d < best->distance) {
            best->distance = d;
            memcpy(best->name, part, sizeof part);
        }
        name += n + (name[n] == '.');
    }
}

static bool matches_nothing(const struct rules *r, size_t i, const struct rule_names *names, struct err *e)
{
    char word[64], gguf[128];
    longest_word(r->list[i].regex, word, sizeof word);
    struct nearest best = {.distance = (unsigned)strlen(word) / 2 + 1};
    for (size_t k = 0; k < names->n + names->n_fixed; k++) {
        const char *module = k < names->n ? names->modules[k] : names->fixed[k - names->n];
        consider_parts(&best, module, word);
        if (gguf_name_of(r->config, module, gguf, sizeof gguf))
            consider_parts(&best, gguf, word);
    }
    if (best.distance == 0) /* it is spelt well; what is around it matches nothing */
        best.name[0] = 0;
    const char *example = names->n ? names->modules[names->n / 2] : "model.layers.0.mlp.up_proj";
    if (!gguf_name_of(r->config, example, gguf, sizeof gguf))
        snprintf(gguf, sizeof gguf, "blk.0.ffn_up");
    err_set(e, ERR_USER, "the pattern '%s' matches no weight that can be quantized", r->list[i].regex);
    return err_hint(e, "%s%s%sweights are named like %s, or %s.weight as in llama.cpp",
                    best.name[0] ? "did you mean " : "", best.name, best.name[0] ? "? " : "", example, gguf);
}

static bool matches_fixed(const struct rules *r, size_t i, struct err *e)
{
    err_set(e, ERR_USER,
            "the pattern '%s' matches the embedding or the head alone, which stay in 16 bits in this format",
            r->list[i].regex);
    return err_hint(e, "a GGUF can hold them in fewer bits: -o OUT.gguf --tensor '%s=Q6_K'", r->list[i].regex);
}

/* ---- all patterns ---- */

static bool place(struct rules *r, size_t i, const struct rule_names *names, struct err *e)
{
    bool keep = !r->list[i].type && !r->list[i].gguf, first = speaks_gguf(&r->list[i]), hit, fixed = false;
    for (int turn = 0; turn < 2; turn++) {
        bool gguf = first != (turn == 1);
        if (!matches_any(r, i, names->modules, names->n, gguf, &hit, e))
            return false;
        r->gguf[i] = gguf;
        if (hit)
            return true;
        if (!matches_any(r, i, names->fixed, names->n_fixed, gguf, &hit, e))
            return false;
        fixed = fixed || hit;
    }
    if (fixed && keep)
        return true;
    return fixed ? matches_fixed(r, i, e) : matches_nothing(r, i, names, e);
}

bool rules_compile(struct rules *r, const struct quantize_options *o, const struct rule_names *names, struct err *e)
{
    *r = (struct rules){.config = names->config, .list = o->rules, .n = o->n_rules, .alias = names->alias};
    r->compiled = calloc(r->n ? r->n : 1, sizeof *r->compiled);
    r->gguf = calloc(r->n ? r->n : 1, sizeof *r->gguf);
    if (!r->compiled || !r->gguf)
        return err_nomem(e, "patterns", r->n);
    for (size_t i = 0; i < r->n; i++)
        if (!pattern_compile(&r->compiled[i], r->list[i].regex, r->list[i].llama, e) || !place(r, i, names, e))
            return false;
    return true;
}

void rules_free(struct rules *r)
{
    for (size_t i = 0; r->compiled && i < r->n; i++)
        pattern_free(&r->compiled[i]);
    free(r->compiled);
    free(r->gguf);
    *r = (struct rules){0};
}

const struct tensor_rule *rules_find(const struct rules *r, const char *module)
{
    const struct tensor_rule *last = NULL;
    for (size_t i = 0; i < r->n; i++) {
        bool hit;
        /* An error was told when the same name was tried before. */
        if (matches(r, i, module, r->gguf[i], &hit, NULL) && hit)
            last = &r->list[i];
    }
    return last;
}
