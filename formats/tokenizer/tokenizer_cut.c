/* Where a text can be cut so that its parts, tokenized alone, have the ids that the whole has.
 *
 * A place is looked for where nothing can reach across (cut_find), in the order in which a text is tokenized:
 * - added tokens: none ends, begins or stretches over the place, and none that swallows spaces comes near;
 * - normal forms: the character after the place begins anew (ASCII, or no mark after a line feed). All
 * other normalizers that are allowed here change characters one by one;
 * - words: either no token has the two characters at the place side by side, so that nothing ever joins
 * across (CUT_IN_LETTERS), or a word ends there (CUT_AT_WORDS).
 *
 * The last is a matter of all that stands before: a pattern finds its words from the beginning on. So it is
 * only guessed from the neighbourhood, and proven when the chunk in front of the place is tokenized, which
 * begins at a cut already proven (cut_check). PCRE2 tells with PCRE2_PARTIAL_HARD whether a match looked
 * beyond the end of what it was given. The words found in the chunk before the first such match are those of
 * the whole text; those from there to the cut are found twice, with the chunk ending at the cut and with what
 * follows it, and must be the same and end there. */
#include "formats/tokenizer/tokenizer_step.h"

#include <string.h>

/* Bytes after a cut that are looked at, at least and at most, and in front of it for a guess. */
enum { TAIL = 64, TAIL_MOST = 4096, BEFORE = 512 };
/* Places of one kind that are tried for a cut. */
enum { TRIES = 32 };

/* ---- what a tokenizer allows ---- */

static bool by_character(const struct step *s)
{
    return s->kind == STEP_BYTES || s->kind == STEP_LOWERCASE || s->kind == STEP_STRIP_ACCENTS ||
           (s->kind == STEP_REPLACE && s->one_char);
}

static bool prepends(const struct step *s)
{
    return s->kind == STEP_PREPEND || s->kind == STEP_PREPEND_FIRST;
}

/* The first step that cuts; l->n: none. */
static size_t first_split(const struct step_list *l)
{
    size_t k = 0;
    while (k < l->n && l->steps[k].kind != STEP_SPLIT)
        k++;
    return k;
}

enum cut_rule cut_rule_of(const struct tokenizer *t)
{
    const struct step_list *l = &t->pretokenizers;
    size_t split = first_split(l);
    for (size_t i = 0; i < t->normalizers.n; i++) {
        const struct step *s = &t->normalizers.steps[i];
        if (!by_character(s) && s->kind != STEP_UNICODE && s->kind != STEP_PREPEND)
            return CUT_NEVER;
    }
    if (t->normal.longest > BEFORE / 4)
        return CUT_NEVER;
    for (size_t i = 0; i < split; i++)
        if (!by_character(&l->steps[i]) && !prepends(&l->steps[i]))
            return CUT_NEVER;
    if (split < l->n && !l->steps[split].one_char)
        return l->steps[split].apart ? CUT_AT_WORDS : CUT_NEVER;
    /* A cut within a word makes two of it, which is nothing to steps that look at characters only. */
    for (size_t i = split; i < l->n; i++)
        if (!by_character(&l->steps[i]) && !(l->steps[i].kind == STEP_SPLIT && l->steps[i].one_char))
            return CUT_NEVER;
    return CUT_IN_LETTERS;
}

/* ---- the proof ---- */

enum found { MATCH, NO_MATCH, OPEN, FAILED }; /* OPEN: it depends on what follows */

static enum found look(const struct step *step, const struct match_work *w, const char *s, size_t n, size_t at,
                       bool ends, size_t *begin, size_t *end)
{
    if (at > n)
        return NO_MATCH;
    uint32_t options = PCRE2_NO_UTF_CHECK | (ends ? 0 : PCRE2_PARTIAL_HARD);
    int rc = pcre2_match(step->re, (PCRE2_SPTR)s, n, at, options, w->data, w->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(step->re, (PCRE2_SPTR)s, n, at, options | PCRE2_NO_JIT, w->data, w->context);
    if (rc == PCRE2_ERROR_NOMATCH || rc == PCRE2_ERROR_PARTIAL)
        return rc == PCRE2_ERROR_NOMATCH ? NO_MATCH : OPEN;
    const size_t *span = pcre2_get_ovector_pointer(w->data);
    if (rc < 0 || span[0] < at || span[1] < span[0])
        return FAILED;
    *begin = span[0];
    *end = span[1];
    return MATCH;
}

/* Whether stretches of these kinds (matched or not) never become one word. */
static bool kept_apart(const struct step *step, bool before, bool behind)
{
    switch (step->behavior) {
    case ISOLATED:
    case REMOVED:
        return true;
    case MERGED_WITH_PREVIOUS:
        return before != step->invert;
    case MERGED_WITH_NEXT:
        return behind != step->invert;
    case CONTIGUOUS:
        return before != behind;
    }
    return false;
}

/* s[0, cut) follows a proven cut, s[cut, n) is the tail. */
static bool words_hold(const struct step *step, const struct match_work *w, const char *s, size_t cut, size_t n,
                       bool ends, struct err *e)
{
    size_t at = 0, done = 0, begin = 0, end = 0, b, f;
    for (size_t i = 0; look(step, w, s, cut, at, false, &begin, &end) == MATCH; i++) {
        if (!tokenizer_go_on(i, e))
            return false;
        done = end;
        at = step_next_start(s, cut, begin, end);
    }
    bool matched = done > 0 && at == done;
    while (done < cut) {
        enum found alone = look(step, w, s, cut, at, true, &begin, &end);
        enum found real = look(step, w, s, n, at, ends, &b, &f);
        if (alone == NO_MATCH) /* the rest is no match: one must begin at the cut */
            return real == MATCH && b == cut && kept_apart(step, false, true);
        if (alone != MATCH || real != MATCH || b != begin || f != end)
            return false;
        matched = end > begin;
        done = end;
        at = step_next_start(s, cut, begin, end);
    }
    if (!matched)
        return false;
    if (kept_apart(step, true, true) && kept_apart(step, true, false))
        return true;
    enum found next = look(step, w, s, n, cut, ends, &b, &f);
    return (next == MATCH || next == NO_MATCH) && kept_apart(step, true, next == MATCH && b == cut);
}

/* Appends what the steps in front of the first cut make of s. */
static bool change(const struct step_list *l, size_t split, const struct match_work *w, const char *s, size_t n,
                   unsigned where, struct strbuf *out, struct err *e)
{
    struct strbuf from = {0}, to = {0};
    bool ok = true;
    strbuf_add(&from, s, n);
    for (size_t i = 0; ok && i < split; i++) {
        if ((where & AT_INSIDE) && prepends(&l->steps[i]))
            continue;
        to.size = 0;
        strbuf_add(&to, "", 0);
        ok = step_change(&l->steps[i], w, from.data, from.size, where & AT_FIRST, &to, e);
        struct strbuf swap = from;
        from = to;
        to = swap;
    }
    strbuf_add(out, from.data, from.size);
    out->failed = out->failed || from.failed || to.failed;
    strbuf_free(&from);
    strbuf_free(&to);
    return ok;
}

bool cut_check(const struct tokenizer *t, struct match_work *w, const char *s, size_t n, unsigned where,
               const struct cut_tail *tail, bool *holds, struct err *e)
{
    const struct step_list *l = &t->pretokenizers;
    size_t split = first_split(l);
    *holds = cut_rule_of(t) == CUT_IN_LETTERS; /* those are proven when found */
    if (cut_rule_of(t) != CUT_AT_WORDS)
        return true;
    struct strbuf text = {0};
    bool ok = change(l, split, w, s, n, where, &text, e);
    size_t cut = text.size;
    ok = ok && change(l, split, w, tail->text, tail->n, AT_INSIDE, &text, e);
    if (ok && text.failed)
        ok = err_nomem(e, "the text to tokenize", n);
    if (ok) {
        struct err stopped = {0};
        *holds = words_hold(&l->steps[split], w, text.data, cut, text.size, tail->ends, &stopped);
        if (stopped.kind != ERR_NONE) {
            ok = false;
            if (e)
                *e = stopped;
        }
    }
    strbuf_free(&text);
    return ok;
}

/* ---- looking for a place ---- */

static bool is_boundary(char c)
{
    return ((uint8_t)c & 0xC0) != 0x80;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* What places look like, the likeliest first. */
enum { KINDS = 5 };
static bool has_kind(unsigned kind, const char *s, size_t at)
{
    char a = s[at - 1], b = s[at];
    bool space = b == ' ' || b == '\n' || b == '\r' || b == '\t';
    switch (kind) {
    case 0:
        return a == '\n' && !space;
    case 1:
        return b == ' ' && a != ' ' && a != '\n';
    case 2:
        return is_digit(b) && !is_digit(a) && a != ' ';
    case 3:
        return is_digit(a) && !is_digit(b) && !space;
    default:
        return is_boundary(b) && !space;
    }
}

/* Ends of the tail of a cut at `at`; false: too near to the end of what is known of the text. */
static bool find_tail(const struct tokenizer *t, const char *s, size_t n, bool ends, size_t at, size_t *end)
{
    uint32_t c;
    size_t most = at + TAIL_MOST < n ? at + TAIL_MOST : n, reach = t->raw.longest + 4;
    for (size_t k = at + TAIL; k < most; k++) {
        if (t->normalizers.n ? (uint8_t)s[k] >= 0x80 : !is_boundary(s[k]))
            continue;
        char_before(s, k, &c);
        if (is_space_char(c))
            continue;
        *end = k;
        return ends || k + reach <= n;
    }
    *end = n;
    return ends && most == n && at < n;
}

/* No added token ends, begins or lies at `at`, or begins in the tail. */
static bool free_of_tokens(const struct matcher *m, const char *s, size_t n, size_t at, size_t end)
{
    for (size_t k = at > m->longest ? at - m->longest : 0; k < end && m->n; k++) {
        const struct match_token *token = match_at(m, s + k, n - k);
        if (token && k + token->len >= at)
            return false;
    }
    return true;
}

/* In normal form, s[begin, end) into out. */
static bool normal_form(struct cut_finder *f, const char *s, size_t n, struct strbuf *out, struct err *e)
{
    out->size = 0;
    strbuf_add(out, s, n);
    if (out->failed)
        return err_nomem(e, "the text to tokenize", n);
    return normalize(&f->t->normalizers, &f->match, out, AT_INSIDE, e);
}

/* The same for those that are looked for in normal form: they may go on after the tail, s[at, end). */
static bool free_of_normal_tokens(struct cut_finder *f, const char *s, size_t n, bool ends, size_t at, size_t end,
                                  bool *is_free, struct err *e)
{
    const struct matcher *m = &f->t->normal;
    struct strbuf more = {0};
    size_t far = end + 4 * m->longest + 16;
    *is_free = m->n == 0;
    if (m->n == 0)
        return true;
    while (far < n && !is_boundary(s[far]))
        far++;
    if (far > n && !ends)
        return true;
    if (!normal_form(f, s + at, (far < n ? far : n) - at, &more, e))
        return false;
    size_t left = f->left.size, tail = left + f->tail.size;
    strbuf_add(&f->left, more.data, more.size);
    *is_free = !f->left.failed && free_of_tokens(m, f->left.data, f->left.size, left, tail);
    f->left.size = left;
    strbuf_free(&more);
    return true;
}

/* The characters on both sides, as they are in words. */
static bool letters_hold(struct cut_finder *f, bool *holds, struct err *e)
{
    const struct step_list *l = &f->t->pretokenizers;
    struct strbuf left = {0}, right = {0};
    uint32_t c;
    bool ok = true;
    size_t split = first_split(l), begin = 0, k;
    *holds = false;
    strbuf_add(&left, f->left.data, f->left.size);
    strbuf_add(&right, f->tail.data, f->tail.size);
    /* All steps, one after the other: those that cut leave the characters as they are. */
    for (size_t i = 0; ok && i < l->n; i++) {
        struct strbuf a = {0}, b = {0};
        if (l->steps[i].kind == STEP_SPLIT || (i < split && prepends(&l->steps[i])))
            continue;
        ok = step_change(&l->steps[i], &f->match, left.data, left.size, false, &a, e) &&
             step_change(&l->steps[i], &f->match, right.data, right.size, false, &b, e);
        strbuf_free(&left);
        strbuf_free(&right);
        left = a;
        right = b;
    }
    if (ok && !left.failed && !right.failed && left.size && right.size) {
        begin = char_before(left.data, left.size, &c);
        size_t n_left = left.size - begin, n_right = utf8_decode(right.data, &c);
        char pair[9] = {0};
        memcpy(pair, left.data + begin, n_left);
        memcpy(pair + n_left, right.data, n_right);
        size_t known = f->n_seen < 64 ? f->n_seen : 64;
        for (k = 0; k < known && memcmp(f->seen[k].text, pair, sizeof pair) != 0; k++)
            ;
        if (k == known) {
            k = f->n_seen++ % 64;
            memcpy(f->seen[k].text, pair, sizeof pair);
            f->seen[k].apart = bpe_apart(f->t->bpe, left.data + begin, n_left, right.data, n_right);
        }
        *holds = f->seen[k].apart;
    }
    strbuf_free(&left);
    strbuf_free(&right);
    return ok;
}

static bool begins_anew(const struct tokenizer *t, const char *s, size_t at)
{
    uint32_t c;
    if (t->normalizers.n == 0 || (uint8_t)s[at] < 0x80)
        return true;
    utf8_decode(s + at, &c);
    return s[at - 1] == '\n' && utf8proc_get_property((utf8proc_int32_t)c)->combining_class == 0;
}

/* One place; f->tail is set where it is right. */
static bool try_place(struct cut_finder *f, const char *s, size_t n, bool ends, size_t at, bool *right, struct err *e)
{
    const struct tokenizer *t = f->t;
    uint32_t before, behind;
    size_t end, from = at > BEFORE ? at - BEFORE : 0;
    *right = false;
    char_before(s, at, &before);
    utf8_decode(s + at, &behind);
    if (!is_boundary(s[at]) || (is_space_char(before) && is_space_char(behind)) || !begins_anew(t, s, at) ||
        !find_tail(t, s, n, ends, at, &end) || !free_of_tokens(&t->raw, s, n, at, end))
        return true;
    while (from > 0 && !is_boundary(s[from]))
        from--;
    f->tail_ends = ends && end == n;
    if (!normal_form(f, s + from, at - from, &f->left, e) || !normal_form(f, s + at, end - at, &f->tail, e) ||
        !free_of_normal_tokens(f, s, n, ends, at, end, right, e))
        return false;
    if (!*right)
        return true;
    *right = false;
    if (f->rule == CUT_IN_LETTERS)
        return letters_hold(f, right, e);
    const struct cut_tail tail = {f->tail.data, f->tail.size, f->tail_ends};
    return cut_check(t, &f->match, f->left.data, f->left.size, AT_INSIDE, &tail, right, e);
}

bool cut_find(struct cut_finder *f, const char *s, size_t n, bool ends, size_t from, size_t *at, struct err *e)
{
    *at = 0;
    if (f->rule == CUT_NEVER)
        return true;
    if (!f->match.data && !match_work_create(&f->match, e))
        return false;
    for (unsigned i = 0; i < KINDS; i++) {
        unsigned kind = (f->kind + i) % KINDS, tries = 0;
        for (size_t k = from; k < n && tries < TRIES; k++) {
            bool right;
            if (!has_kind(kind, s, k))
                continue;
            tries++;
            if (!try_place(f, s, n, ends, k, &right, e))
                return false;
            if (!right)
                continue;
            f->kind = kind;
            *at = k;
            return true;
        }
    }
    return true;
}

void cut_finder_free(struct cut_finder *f)
{
    match_work_free(&f->match);
    strbuf_free(&f->left);
    strbuf_free(&f->tail);
}
