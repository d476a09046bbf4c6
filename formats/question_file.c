#include "formats/question_file.h"

#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "formats/text_file.h"
#include "host/base/grow.h"
#include "host/base/str.h"

#define LOOKS "a line should look like {\"question\": \"...\", \"choices\": [\"...\", \"...\"], \"answer\": 0}"

struct reader {
    const char *path;
    uint64_t line;
};

static bool bad(const struct reader *r, const char *what, struct err *e)
{
    err_set(e, ERR_USER, "%s, line %llu: %s", r->path, (unsigned long long)r->line, what);
    return err_hint(e, LOOKS);
}

/* The first of these members that there is. */
static const cJSON *one_of(const cJSON *o, const char *const names[3])
{
    const cJSON *item = NULL;
    for (int i = 0; !item && i < 3 && names[i]; i++)
        item = json_get(o, names[i]);
    return item;
}

static bool add_choice(struct question *q, const cJSON *text, const struct reader *r, struct err *e)
{
    if (!cJSON_IsString(text) || !text->valuestring[0])
        return bad(r, "a choice is no text, or empty", e);
    q->choices[q->n_choices] = str_dup(text->valuestring);
    return q->choices[q->n_choices++] || err_nomem(e, "a question", strlen(text->valuestring));
}

/* *labels: those of the choices, NULL: they have none. */
static bool take_choices(struct question *q, const cJSON *o, const struct reader *r, const cJSON **labels,
                         struct err *e)
{
    static const char *const names[3] = {"choices", "endings"};
    const cJSON *list = one_of(o, names), *pair[2] = {json_get(o, "sol1"), json_get(o, "sol2")};
    *labels = NULL;
    if (cJSON_IsObject(list)) {
        *labels = json_get(list, "label");
        list = json_get(list, "text");
    }
    bool two = !list && pair[0] && pair[1];
    int n = two ? 2 : cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    if (n < 2)
        return bad(r, "there is no list of two choices or more", e);
    if (*labels && (!cJSON_IsArray(*labels) || cJSON_GetArraySize(*labels) != n))
        return bad(r, "there is not a label for each choice", e);
    q->choices = calloc((size_t)n, sizeof *q->choices);
    if (!q->choices)
        return err_nomem(e, "a question", (size_t)n * sizeof *q->choices);
    bool ok = true;
    for (const cJSON *c = two ? NULL : list->child; ok && c; c = c->next)
        ok = add_choice(q, c, r, e);
    for (int i = 0; ok && two && i < 2; i++)
        ok = add_choice(q, pair[i], r, e);
    return ok;
}

/* The choice that a text stands for; -1: none. */
static int64_t choice_named(const struct question *q, const cJSON *labels, const char *s)
{
    int64_t i = 0;
    for (const cJSON *l = labels ? labels->child : NULL; l; l = l->next, i++)
        if (cJSON_IsString(l) && strcmp(l->valuestring, s) == 0)
            return i;
    for (i = 0; i < q->n_choices; i++)
        if (strcmp(q->choices[i], s) == 0)
            return i;
    char *end;
    unsigned long long digits = strtoull(s, &end, 10);
    if (s[0] >= '0' && s[0] <= '9' && !*end)
        return digits < q->n_choices ? (int64_t)digits : -1;
    return s[0] >= 'A' && s[0] <= 'Z' && !s[1] && s[0] - 'A' < (int64_t)q->n_choices ? s[0] - 'A' : -1;
}

static bool take_answer(struct question *q, const cJSON *o, const cJSON *labels, const struct reader *r, struct err *e)
{
    static const char *const names[3] = {"answer", "label", "answerKey"};
    const cJSON *answer = one_of(o, names);
    uint64_t number = 0;
    if (!answer)
        return bad(r, "there is no field \"answer\"", e);
    int64_t at = -1;
    if (cJSON_IsString(answer))
        at = choice_named(q, labels, answer->valuestring);
    else if (json_u64(answer, &number) && number < q->n_choices)
        at = (int64_t)number;
    if (at < 0)
        return bad(r, "the answer is none of the choices", e);
    q->answer = (uint32_t)at;
    return true;
}

static bool take_question(struct question *q, const cJSON *o, const struct reader *r, struct err *e)
{
    static const char *const names[3] = {"question", "ctx", "goal"};
    const cJSON *text = one_of(o, names), *labels;
    q->line = r->line;
    if (!cJSON_IsString(text))
        return bad(r, "there is no text \"question\"", e);
    q->text = str_dup(text->valuestring);
    return (q->text || err_nomem(e, "a question", strlen(text->valuestring))) && take_choices(q, o, r, &labels, e) &&
           take_answer(q, o, labels, r, e);
}

static void question_free(struct question *q)
{
    for (uint32_t i = 0; i < q->n_choices; i++)
        free(q->choices[i]);
    free(q->choices);
    free(q->text);
}

static bool take_line(struct questions *out, size_t *cap, const char *line, size_t n, const struct reader *r,
                      struct err *e)
{
    if (strspn(line, " \t\r\n") >= n)
        return true;
    struct question q = {0};
    cJSON *o = json_parse(line, n, r->path, NULL);
    if (!o)
        return bad(r, "this is not JSON", e);
    struct question *list = take_question(&q, o, r, e) ? grow(out->list, cap, out->n, sizeof q, "questions", e) : NULL;
    cJSON_Delete(o);
    if (!list) {
        question_free(&q);
        return false;
    }
    out->list = list;
    list[out->n++] = q;
    return true;
}

bool questions_load(struct questions *out, const char *path, uint32_t at_most, struct err *e)
{
    struct text_file *f = NULL;
    struct reader r = {.path = path};
    const char *line;
    size_t n;
    size_t cap = 0;
    *out = (struct questions){0};
    bool ok = text_file_open(&f, path, e);
    while (ok && (!at_most || out->n < at_most)) {
        ok = text_file_line(f, &line, &n, &r.line, e);
        if (!ok || !line)
            break;
        ok = take_line(out, &cap, line, n, &r, e);
    }
    text_file_close(&f);
    if (ok && !out->n) {
        err_set(e, ERR_USER, "%s holds no question", path);
        ok = err_hint(e, LOOKS);
    }
    if (!ok)
        questions_free(out);
    return ok;
}

void questions_free(struct questions *q)
{
    for (uint32_t i = 0; i < q->n; i++)
        question_free(&q->list[i]);
    free(q->list);
    *q = (struct questions){0};
}
