#include "host/quant/plan_rules.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"

static bool compile(const struct tensor_rule *rule, void **out, struct err *e)
{
    int code;
    PCRE2_SIZE at;
    *out = pcre2_compile((PCRE2_SPTR)rule->regex, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &at, NULL);
    if (*out)
        return true;
    PCRE2_UCHAR text[128];
    pcre2_get_error_message(code, text, sizeof text);
    err_set(e, ERR_USER, "the pattern '%s' is not a regular expression: %s at character %zu", rule->regex,
            (char *)text, (size_t)at);
    return err_hint(e, "patterns are Perl-style and searched in names such as model.layers.0.mlp.up_proj");
}

bool rules_compile(struct rules *r, const struct quantize_options *o, struct err *e)
{
    *r = (struct rules){.list = o->rules, .n = o->n_rules};
    r->compiled = calloc(r->n ? r->n : 1, sizeof *r->compiled);
    r->used = calloc(r->n ? r->n : 1, sizeof *r->used);
    if (!r->compiled || !r->used)
        return err_nomem(e, "patterns", r->n);
    for (size_t i = 0; i < r->n; i++)
        if (!compile(&r->list[i], &r->compiled[i], e))
            return false;
    return true;
}

void rules_free(struct rules *r)
{
    for (size_t i = 0; r->compiled && i < r->n; i++)
        pcre2_code_free(r->compiled[i]);
    free(r->compiled);
    free(r->used);
    *r = (struct rules){0};
}

static bool matches(const pcre2_code *code, const char *module)
{
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    bool hit = m && pcre2_match(code, (PCRE2_SPTR)module, strlen(module), 0, 0, m, NULL) >= 0;
    pcre2_match_data_free(m);
    return hit;
}

const struct tensor_rule *rules_find(struct rules *r, const char *module)
{
    const struct tensor_rule *last = NULL;
    for (size_t i = 0; i < r->n; i++) {
        if (!matches(r->compiled[i], module))
            continue;
        r->used[i] = true;
        last = &r->list[i];
    }
    return last;
}

void rules_warn_unused(const struct rules *r, const char *what)
{
    for (size_t i = 0; i < r->n; i++)
        if (!r->used[i])
            log_warn("the pattern '%s' matches no %s of this model", r->list[i].regex, what);
}
