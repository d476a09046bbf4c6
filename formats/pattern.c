#include "formats/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

/* Steps of one match: names are short. */
#define MATCH_LIMIT 1000000

struct pattern {
    const char *text;
    pcre2_code *code;
    pcre2_match_context *limits;
};

bool pattern_compile(struct pattern **out, const char *text, bool ignore_case, struct err *e)
{
    struct pattern *p = *out = calloc(1, sizeof *p);
    if (!p || !(p->limits = pcre2_match_context_create(NULL))) {
        pattern_free(out);
        return err_nomem(e, "a pattern", sizeof *p);
    }
    int why;
    PCRE2_SIZE at;
    PCRE2_UCHAR said[128] = "";
    p->text = text;
    pcre2_set_match_limit(p->limits, MATCH_LIMIT);
    p->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_UTF | (ignore_case ? PCRE2_CASELESS : 0),
                            &why, &at, NULL);
    if (p->code)
        return true;
    pcre2_get_error_message(why, said, sizeof said);
    pattern_free(out);
    err_set(e, ERR_USER, "the pattern '%.300s' is not a regular expression: %s at character %zu", text, (char *)said,
            (size_t)at);
    return err_hint(e, "patterns are Perl-style and searched in names such as model.layers.0.mlp.up_proj");
}

bool pattern_search(const struct pattern *p, const char *name, bool *found, struct err *e)
{
    pcre2_match_data *m = pcre2_match_data_create(1, NULL); /* threads search at once */
    if (!m)
        return err_nomem(e, "a pattern", 64);
    int rc = pcre2_match(p->code, (PCRE2_SPTR)name, strlen(name), 0, 0, m, p->limits);
    pcre2_match_data_free(m);
    *found = rc >= 0;
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH)
        return true;
    PCRE2_UCHAR said[128] = "";
    pcre2_get_error_message(rc, said, sizeof said);
    err_set(e, ERR_USER, "the pattern '%.300s' cannot be searched in %s: %s", p->text, name, (char *)said);
    return err_hint(e, "write it without nested repetitions such as (a+)+");
}

void pattern_free(struct pattern **p)
{
    if (!*p)
        return;
    pcre2_code_free((*p)->code);
    pcre2_match_context_free((*p)->limits);
    free(*p);
    *p = NULL;
}
