#include "app/args.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/str.h"

void args_defaults(struct args *a)
{
    memset(a, 0, sizeof *a);
    a->command = CMD_NONE;
    a->log_level = LOG_INFO;
    gsq_quantize_options_init(&a->q);
}

void args_free(struct args *a)
{
    for (size_t i = 0; i < a->n_owned; i++)
        free(a->owned[i]);
    free(a->owned);
    free(a->rules);
    free(a->overrides);
    free(a->importance_names);
    free(a->more_calib);
    free(a->inputs);
    a->inputs = NULL;
    a->n_inputs = 0;
    a->overrides = NULL;
    a->importance_names = NULL;
    a->more_calib = NULL;
    a->q.more_calib = NULL;
    a->q.n_more_calib = 0;
    a->owned = NULL;
    a->rules = NULL;
    a->n_owned = 0;
    a->q.rules = NULL;
    a->q.overrides = a->q.importance_names = NULL;
    a->q.n_rules = a->q.n_overrides = a->q.n_importance_names = 0;
}

const char *args_own(struct args *a, char *text)
{
    char **owned = text ? realloc(a->owned, (a->n_owned + 1) * sizeof *owned) : NULL;
    if (!owned) {
        free(text);
        return NULL;
    }
    a->owned = owned;
    return owned[a->n_owned++] = text;
}

bool args_add_rule(struct args *a, char *pattern, struct gsq_tensor_rule rule, bool in_front, struct err *e)
{
    struct gsq_tensor_rule *rules = realloc(a->rules, (a->q.n_rules + 1) * sizeof *rules);
    rule.pattern = args_own(a, pattern);
    if (rules)
        a->q.rules = a->rules = rules;
    if (!rules || !rule.pattern)
        return err_nomem(e, "a tensor rule", sizeof *rules);
    size_t at = in_front ? 0 : a->q.n_rules;
    memmove(rules + at + 1, rules + at, (a->q.n_rules - at) * sizeof *rules);
    rules[at] = rule;
    a->q.n_rules++;
    return true;
}

/* A word that a shell changes nothing of. */
static bool plain_word(const char *s)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+@%";
    return *s && s[strspn(s, plain)] == 0;
}

void args_command_line(const struct args *a, struct strbuf *out)
{
    for (int i = 0; i < a->argc; i++) {
        if (i)
            strbuf_puts(out, " ");
        if (plain_word(a->argv[i])) {
            strbuf_puts(out, a->argv[i]);
            continue;
        }
        strbuf_puts(out, "'");
        for (const char *p = a->argv[i]; *p; p++)
            if (*p == '\'')
                strbuf_puts(out, "'\\''");
            else
                strbuf_printf(out, "%c", *p);
        strbuf_puts(out, "'");
    }
}
