/* Normalizers and pre-tokenizers. Each type of tokenizer.json becomes one or more of a few plain steps. */
#include "formats/tokenizer/tokenizer_step.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/grow.h"

/* Limits for patterns and rules that come with a model: steps of one match, KiB of its memory, and how far a
 * text may grow. Real ones stay far below. */
#define MATCH_LIMIT 5000000u
#define HEAP_LIMIT  (256u * 1024)
#define GROWTH      64u
#define GROWTH_BASE (1u << 20)

static const char *const behaviors[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};

static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* \w where the reference implementation does not ask Oniguruma. */
#define WORD REGEX_WORD "\\x{200C}\\x{200D}"

bool is_space_char(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_word_char(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    bool circled = (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
                   (c >= 0x1F170 && c <= 0x1F189); /* symbols that count as letters */
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC || circled ||
           c == 0x200C || c == 0x200D;
}

static bool is_mark(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME;
}

/* ---- parsing ---- */

struct reader {
    struct step_list *list;
    const char *path, *what; /* "normalizer" or "pre_tokenizer" */
    struct err *e;
    bool shape_only; /* patterns are not compiled */
};

static bool bad(const struct reader *r, const char *type, const char *what)
{
    err_set(r->e, ERR_USER, "%s: %s: %.100s %s", r->path, r->what, type, what);
    return err_hint(r->e, "gsq cannot reproduce this tokenizer exactly");
}

static struct step *add_step(const struct reader *r, enum step_kind kind)
{
    struct step *grown = realloc(r->list->steps, (r->list->n + 1) * sizeof *grown);
    if (!grown) {
        err_nomem(r->e, "the tokenizer", (r->list->n + 1) * sizeof *grown);
        return NULL;
    }
    r->list->steps = grown;
    grown[r->list->n] = (struct step){.kind = kind};
    return &grown[r->list->n++];
}

static bool set_text(const struct reader *r, struct step *s, const char *text)
{
    s->text = str_dup(text);
    return s->text ? true : err_nomem(r->e, "the tokenizer", strlen(text));
}

/* Beginnings of lines or of the text, look-behind: such patterns see what stands before a match. */
static void set_reach(struct step *s, const char *pattern, bool literal)
{
    uint32_t behind = 0, c;
    pcre2_pattern_info(s->re, PCRE2_INFO_MAXLOOKBEHIND, &behind);
    s->one_char = literal && pattern[0] && pattern[utf8_decode(pattern, &c)] == 0;
    s->apart = literal || behind == 0;
    bool opened = false; /* a class, whose ^ negates it */
    for (const char *p = pattern; !literal && *p; p++) {
        bool escaped = *p == '\\' && p[1];
        if (escaped)
            p++;
        if (escaped ? strchr("GAK", *p) != NULL : *p == '^' && !opened)
            s->apart = false;
        opened = !escaped && *p == '[';
    }
}

/* pattern: as PCRE2 spells it, or plain text. */
static bool compile(const struct reader *r, struct step *s, const char *pattern, bool literal)
{
    static const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    int code;
    size_t at;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        return err_nomem(r->e, "the tokenizer", 1024);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    s->re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, literal ? PCRE2_UTF | PCRE2_LITERAL : options,
                          &code, &at, context);
    pcre2_compile_context_free(context);
    if (!s->re) {
        char why[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        err_set(r->e, ERR_USER, "%s: %s: pattern \"%.200s\": %s at offset %zu", r->path, r->what, pattern, why, at);
        return err_hint(r->e, "gsq cannot reproduce this tokenizer exactly");
    }
    /* Where there is no JIT, the interpreter matches. Partial matches: tokenizer_cut.c. */
    pcre2_jit_compile(s->re, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
    set_reach(s, pattern, literal);
    return true;
}

/* The reference implementation matches with Oniguruma. */
static bool set_pattern(const struct reader *r, struct step *s, const char *pattern, bool literal)
{
    s->literal = literal;
    s->pattern = str_dup(pattern);
    if (!s->pattern)
        return err_nomem(r->e, "the tokenizer", strlen(pattern));
    if (r->shape_only)
        return true;
    if (literal)
        return compile(r, s, pattern, true);
    struct strbuf translated = {0};
    char why[REGEX_WHY];
    bool ok = regex_translate(&translated, pattern, why);
    if (translated.failed) {
        ok = err_nomem(r->e, "the tokenizer", translated.size);
    } else if (!ok) {
        err_set(r->e, ERR_USER, "%s: %s: pattern \"%.200s\": %s is not supported", r->path, r->what, pattern, why);
        err_hint(r->e, "gsq cannot reproduce this tokenizer exactly");
    }
    ok = ok && compile(r, s, translated.data, false);
    strbuf_free(&translated);
    return ok;
}

/* "pattern": {"Regex": "..."} or {"String": "..."}. */
static bool read_pattern(const struct reader *r, struct step *s, const cJSON *o, const char *type)
{
    const cJSON *pattern = json_get(o, "pattern");
    const cJSON *regex = json_get(pattern, "Regex"), *string = json_get(pattern, "String");
    if (cJSON_IsString(regex))
        return set_pattern(r, s, regex->valuestring, false);
    if (cJSON_IsString(string))
        return set_pattern(r, s, string->valuestring, true);
    return bad(r, type, "has no \"pattern\"");
}

static bool read_flag(const cJSON *o, const char *key, bool fallback)
{
    const cJSON *item = json_get(o, key);
    return cJSON_IsBool(item) ? cJSON_IsTrue(item) : fallback;
}

static bool read_behavior(const struct reader *r, struct step *s, const cJSON *o, const char *type)
{
    const cJSON *item = json_get(o, "behavior");
    if (!item)
        return true;
    for (int i = 0; i < 5 && cJSON_IsString(item); i++)
        if (strcmp(item->valuestring, behaviors[i]) == 0) {
            s->behavior = (enum behavior)i;
            return true;
        }
    return bad(r, type, "has an unknown \"behavior\"");
}

static bool add_split(const struct reader *r, const char *regex, enum behavior behavior, bool invert)
{
    struct step *s = add_step(r, STEP_SPLIT);
    if (!s)
        return false;
    s->behavior = behavior;
    s->invert = invert;
    return set_pattern(r, s, regex, false);
}

static bool add_prepend(const struct reader *r, enum step_kind kind, const char *text, bool once)
{
    struct step *s = add_step(r, kind);
    if (!s)
        return false;
    s->once = once;
    return set_text(r, s, text);
}

static bool is(const char *type, const char *name)
{
    return strcmp(type, name) == 0;
}

static bool add_normalizer(const struct reader *r, const cJSON *o, const char *type)
{
    static const struct {
        const char *name;
        utf8proc_option_t form;
    } forms[] = {
        {"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
        {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
        {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
        {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
    };
    struct step *s;
    for (int i = 0; i < 4; i++)
        if (is(type, forms[i].name)) {
            if ((s = add_step(r, STEP_UNICODE)))
                s->form = forms[i].form;
            return s != NULL;
        }
    if (is(type, "Lowercase"))
        return add_step(r, STEP_LOWERCASE) != NULL;
    if (is(type, "StripAccents"))
        return add_step(r, STEP_STRIP_ACCENTS) != NULL;
    if (is(type, "ByteLevel"))
        return add_step(r, STEP_BYTES) != NULL;
    if (is(type, "Strip")) {
        if ((s = add_step(r, STEP_STRIP))) {
            s->left = read_flag(o, "strip_left", true);
            s->right = read_flag(o, "strip_right", true);
        }
        return s != NULL;
    }
    if (is(type, "Prepend")) {
        const cJSON *text = json_get(o, "prepend");
        if (!cJSON_IsString(text))
            return bad(r, type, "has no \"prepend\"");
        return add_prepend(r, STEP_PREPEND, text->valuestring, false);
    }
    if (is(type, "Replace")) {
        const cJSON *content = json_get(o, "content");
        if (!cJSON_IsString(content))
            return bad(r, type, "has no \"content\"");
        return (s = add_step(r, STEP_REPLACE)) && set_text(r, s, content->valuestring) && read_pattern(r, s, o, type);
    }
    return bad(r, type, "is not known to gsq");
}

static bool add_metaspace(const struct reader *r, const cJSON *o)
{
    const cJSON *mark = json_get(o, "replacement"), *scheme = json_get(o, "prepend_scheme");
    const char *how = cJSON_IsString(scheme) ? scheme->valuestring : "always";
    if (!cJSON_IsString(mark) || !mark->valuestring[0])
        return bad(r, "Metaspace", "has no \"replacement\"");
    if (!read_flag(o, "add_prefix_space", true))
        how = "never";
    if (!is(how, "always") && !is(how, "never") && !is(how, "first"))
        return bad(r, "Metaspace", "has an unknown \"prepend_scheme\"");
    struct step *s = add_step(r, STEP_REPLACE);
    if (!s || !set_text(r, s, mark->valuestring) || !set_pattern(r, s, " ", true))
        return false;
    if (!is(how, "never") &&
        !add_prepend(r, is(how, "first") ? STEP_PREPEND_FIRST : STEP_PREPEND, mark->valuestring, true))
        return false;
    if (!read_flag(o, "split", true))
        return true;
    s = add_step(r, STEP_SPLIT);
    if (!s)
        return false;
    s->behavior = MERGED_WITH_NEXT;
    return set_pattern(r, s, mark->valuestring, true);
}

static bool add_pretokenizer(const struct reader *r, const cJSON *o, const char *type)
{
    if (is(type, "ByteLevel")) {
        if (read_flag(o, "add_prefix_space", true) && !add_prepend(r, STEP_PREPEND, " ", true))
            return false;
        if (read_flag(o, "use_regex", true) && !add_split(r, gpt2_pattern, ISOLATED, false))
            return false;
        return add_step(r, STEP_BYTES) != NULL;
    }
    if (is(type, "Split")) {
        struct step *s = add_step(r, STEP_SPLIT);
        if (!s)
            return false;
        s->invert = read_flag(o, "invert", false);
        return read_behavior(r, s, o, type) && read_pattern(r, s, o, type);
    }
    if (is(type, "Metaspace"))
        return add_metaspace(r, o);
    if (is(type, "Digits"))
        return add_split(r, read_flag(o, "individual_digits", false) ? "\\p{N}" : "\\p{N}+", ISOLATED, false);
    if (is(type, "Whitespace"))
        return add_split(r, "[" WORD "]+|[^" WORD REGEX_SPACE "]+", REMOVED, true);
    if (is(type, "WhitespaceSplit"))
        return add_split(r, "[" REGEX_SPACE "]", REMOVED, false);
    if (is(type, "Punctuation"))
        return add_split(r, "[!-/:-@\\[-`{-~\\p{P}]", ISOLATED, false) &&
               read_behavior(r, &r->list->steps[r->list->n - 1], o, type);
    return bad(r, type, "is not known to gsq");
}

static bool parse_one(const struct reader *r, const cJSON *o, bool normalizers)
{
    const cJSON *type = json_get(o, "type");
    if (!cJSON_IsString(type))
        return bad(r, "it", "has no \"type\"");
    if (!is(type->valuestring, "Sequence"))
        return normalizers ? add_normalizer(r, o, type->valuestring) : add_pretokenizer(r, o, type->valuestring);
    const cJSON *list = json_get(o, normalizers ? "normalizers" : "pretokenizers"), *item;
    if (!cJSON_IsArray(list))
        return bad(r, "Sequence", "has no list");
    cJSON_ArrayForEach(item, list)
    {
        if (!parse_one(r, item, normalizers))
            return false;
    }
    return true;
}

bool normalizers_parse(struct step_list *l, const cJSON *o, const char *path, struct err *e)
{
    const struct reader r = {l, path, "normalizer", e, false};
    return !o || parse_one(&r, o, true);
}

bool pretokenizers_parse(struct step_list *l, const cJSON *o, const char *path, struct err *e)
{
    const struct reader r = {l, path, "pre_tokenizer", e, false};
    return !o || parse_one(&r, o, false);
}

bool pretokenizers_shape(struct step_list *l, const cJSON *o, const char *path, struct err *e)
{
    const struct reader r = {l, path, "pre_tokenizer", e, true};
    return !o || parse_one(&r, o, false);
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Line breaks in a pattern may be spelled as themselves. */
static bool same_pattern(const char *a, const char *b)
{
    if (!a || !b)
        return a == b;
    for (; *a && *b; a++, b++) {
        char x = *a, y = *b;
        if (x == '\\' && y != x && (a[1] == 'n' || a[1] == 'r'))
            x = *++a == 'n' ? '\n' : '\r';
        else if (y == '\\' && x != y && (b[1] == 'n' || b[1] == 'r'))
            y = *++b == 'n' ? '\n' : '\r';
        if (x != y)
            return false;
    }
    return *a == *b;
}

/* Later expressions end so: every character is part of some match. */
static bool matches_all(const char *pattern)
{
    size_t n = pattern ? strlen(pattern) : 0;
    return n > 4 && strcmp(pattern + n - 4, "|\\s+") == 0;
}

static bool same_step(const struct step *a, const struct step *b)
{
    if (a->kind != b->kind || !same_text(a->text, b->text) || !same_pattern(a->pattern, b->pattern) ||
        a->literal != b->literal || a->left != b->left || a->right != b->right || a->once != b->once ||
        a->form != b->form)
        return false;
    if (a->behavior == b->behavior && a->invert == b->invert)
        return true;
    /* To keep what matches, and to cut it off from what does not, is the same where all matches. */
    bool kept = a->behavior == REMOVED && a->invert, cut = b->behavior == ISOLATED && !b->invert;
    return (kept && cut && matches_all(b->pattern));
}

bool steps_equal(const struct step_list *a, const struct step_list *b)
{
    bool same = a->n == b->n;
    for (size_t i = 0; same && i < a->n; i++)
        same = same_step(&a->steps[i], &b->steps[i]);
    return same;
}

void steps_free(struct step_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->steps[i].text);
        free(l->steps[i].pattern);
        pcre2_code_free(l->steps[i].re);
    }
    free(l->steps);
    *l = (struct step_list){0};
}

/* ---- matching ---- */

bool match_work_create(struct match_work *w, struct err *e)
{
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    w->context = context;
    w->data = pcre2_match_data_create(1, NULL);
    if (!w->context || !w->data) {
        match_work_free(w);
        return err_nomem(e, "matching", 1024);
    }
    pcre2_set_match_limit(context, MATCH_LIMIT);
    pcre2_set_heap_limit(context, HEAP_LIMIT);
    return true;
}

void match_work_free(struct match_work *w)
{
    pcre2_match_context_free(w->context);
    pcre2_match_data_free(w->data);
    *w = (struct match_work){0};
}

/* The first match at or after `at`. *found is false where there is none. s is valid UTF-8. */
static bool find(const struct step *step, const struct match_work *w, const char *s, size_t n, size_t at, size_t *begin,
                 size_t *end, bool *found, struct err *e)
{
    int rc = pcre2_match(step->re, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK, w->data, w->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its state on the heap */
        rc = pcre2_match(step->re, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, w->data, w->context);
    *found = rc >= 0;
    if (rc == PCRE2_ERROR_NOMATCH)
        return true;
    const size_t *span = pcre2_get_ovector_pointer(w->data);
    if (rc < 0 || span[0] < at || span[1] < span[0]) {
        char why[128] = "it moves backwards";
        if (rc < 0)
            pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
        err_set(e, ERR_USER, "a pattern of the tokenizer cannot be matched on this text: %s", why);
        return err_hint(e, "split the text into lines, or use another tokenizer");
    }
    *begin = span[0];
    *end = span[1];
    return true;
}

size_t step_next_start(const char *s, size_t n, size_t begin, size_t end)
{
    uint32_t c;
    return end > begin ? end : end < n ? end + utf8_decode(s + end, &c) : n + 1;
}

/* ---- steps that change the text ---- */

void byte_level_add(struct strbuf *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t b = (uint8_t)s[i];
        if (b < 33)
            b += 256;
        else if (b >= 127 && b <= 160)
            b += 256 - 127 + 33;
        else if (b == 173)
            b = 256 + 67;
        char text[4];
        strbuf_add(out, text, utf8_encode(b, text));
    }
}

static bool add_normal_form(const struct step *step, const char *s, size_t n, struct strbuf *out, struct err *e)
{
    size_t ascii = 0;
    while (ascii < n && (uint8_t)s[ascii] < 0x80)
        ascii++;
    if (ascii == n) {
        strbuf_add(out, s, n);
        return true;
    }
    utf8proc_uint8_t *normal = NULL;
    utf8proc_ssize_t len = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &normal, step->form);
    if (len < 0)
        return len == UTF8PROC_ERROR_NOMEM
                   ? err_nomem(e, "normalizing the text", n * 4)
                   : err_set(e, ERR_USER, "the text cannot be normalized: %s", utf8proc_errmsg(len));
    strbuf_add(out, (const char *)normal, (size_t)len);
    free(normal);
    return true;
}

static void add_lowercase(const char *s, size_t n, struct strbuf *out)
{
    for (size_t i = 0; i < n;) {
        uint32_t c;
        char text[4];
        i += utf8_decode(s + i, &c);
        if (c == 0x130) /* the one letter whose lower case is two characters */
            strbuf_puts(out, "i\xCC\x87");
        else
            strbuf_add(out, text, utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)c), text));
    }
}

static void add_without_accents(const char *s, size_t n, struct strbuf *out)
{
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t c;
        len = utf8_decode(s + i, &c);
        if (!is_mark(c))
            strbuf_add(out, s + i, len);
    }
}

static void add_stripped(const struct step *step, const char *s, size_t n, struct strbuf *out)
{
    size_t begin = n, end = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        unsigned len = utf8_decode(s + i, &c);
        if (!is_space_char(c)) {
            begin = begin < i ? begin : i;
            end = i + len;
        }
        i += len;
    }
    begin = step->left ? begin : 0;
    end = step->right ? end : n;
    if (begin < end)
        strbuf_add(out, s + begin, end - begin);
}

static bool add_replaced(const struct step *step, const struct match_work *w, const char *s, size_t n,
                         struct strbuf *out, struct err *e)
{
    size_t done = 0, begin, end;
    bool found;
    for (size_t at = 0; at <= n; at = step_next_start(s, n, begin, end)) {
        if (!find(step, w, s, n, at, &begin, &end, &found, e))
            return false;
        if (!found)
            break;
        strbuf_add(out, s + done, begin - done);
        strbuf_puts(out, step->text);
        done = end;
    }
    strbuf_add(out, s + done, n - done);
    return true;
}

bool step_change(const struct step *step, const struct match_work *w, const char *s, size_t n, bool first,
                 struct strbuf *out, struct err *e)
{
    switch (step->kind) {
    case STEP_UNICODE:
        return add_normal_form(step, s, n, out, e);
    case STEP_REPLACE:
        return add_replaced(step, w, s, n, out, e);
    case STEP_LOWERCASE:
        add_lowercase(s, n, out);
        return true;
    case STEP_STRIP:
        add_stripped(step, s, n, out);
        return true;
    case STEP_STRIP_ACCENTS:
        add_without_accents(s, n, out);
        return true;
    case STEP_BYTES:
        byte_level_add(out, s, n);
        return true;
    case STEP_PREPEND:
    case STEP_PREPEND_FIRST: {
        size_t len = strlen(step->text);
        bool there = step->once && n >= len && memcmp(s, step->text, len) == 0;
        if (n && !there && (first || step->kind == STEP_PREPEND))
            strbuf_add(out, step->text, len);
        strbuf_add(out, s, n);
        return true;
    }
    case STEP_SPLIT:
        break;
    }
    return err_set(e, ERR_BUG, "a tokenizer step that does not change text was asked to");
}

static bool check_growth(const struct strbuf *b, size_t before, size_t limit, struct err *e)
{
    if (b->failed)
        return err_nomem(e, "the text to tokenize", b->size);
    if (b->size > limit && b->size > before) {
        err_set(e, ERR_USER, "the tokenizer's rules make a text too long: %zu bytes", b->size);
        return err_hint(e, "tokenizer.json is broken: download it again");
    }
    return true;
}

bool normalize(const struct step_list *l, struct match_work *w, struct strbuf *text, unsigned where, struct err *e)
{
    size_t limit = GROWTH_BASE + text->size * GROWTH;
    struct strbuf out = {0};
    bool ok = true;
    for (size_t i = 0; i < l->n && ok; i++) {
        if ((where & AT_INSIDE) && l->steps[i].kind == STEP_PREPEND)
            continue;
        out.size = 0;
        strbuf_add(&out, "", 0); /* data must be there */
        ok = step_change(&l->steps[i], w, text->data, text->size, true, &out, e) &&
             check_growth(&out, text->size, limit, e);
        struct strbuf swap = *text;
        *text = out;
        out = swap;
    }
    strbuf_free(&out);
    return ok;
}

/* ---- pieces ---- */

void pieces_free(struct pieces *p)
{
    strbuf_free(&p->text);
    free(p->list);
    *p = (struct pieces){0};
}

static bool add_piece(struct pieces *p, size_t begin, size_t end, bool first, struct err *e)
{
    struct piece *list = grow(p->list, &p->cap, p->n, sizeof *list, "the words of the text", e);
    if (!list)
        return false;
    p->list = list;
    p->list[p->n++] = (struct piece){begin, end, first};
    return true;
}

/* Joins or appends one stretch of a piece, walking forwards (or backwards for MERGED_WITH_NEXT). start: index
 * in out where this piece's stretches begin; *before: whether the stretch before was a match. */
static bool add_stretch(enum behavior behavior, struct pieces *out, size_t start, size_t begin, size_t end, bool match,
                        bool *before, struct err *e)
{
    bool join = false;
    if (behavior == REMOVED && match)
        return true;
    if (behavior == CONTIGUOUS)
        join = match == *before;
    else if (behavior == MERGED_WITH_PREVIOUS || behavior == MERGED_WITH_NEXT)
        join = match && !*before;
    *before = match;
    if (join && out->n > start) {
        struct piece *last = &out->list[out->n - 1];
        last->begin = last->begin < begin ? last->begin : begin;
        last->end = last->end > end ? last->end : end;
        return true;
    }
    return add_piece(out, begin, end, false, e);
}

/* The stretches of s, alternately unmatched and matched, into `all` (first: matched). Empty ones too: they
 * are cuts. */
static bool find_stretches(const struct step *step, const struct match_work *w, const char *s, size_t n,
                           struct pieces *all, struct err *e)
{
    size_t done = 0, begin, end;
    bool found;
    all->n = 0;
    for (size_t at = 0; at <= n; at = step_next_start(s, n, begin, end)) {
        if (!find(step, w, s, n, at, &begin, &end, &found, e))
            return false;
        if (!found)
            break;
        if ((begin > done && !add_piece(all, done, begin, step->invert, e)) || !tokenizer_go_on(all->n, e))
            return false;
        if (!add_piece(all, begin, end, !step->invert, e))
            return false;
        done = end;
    }
    return done == n || add_piece(all, done, n, step->invert, e);
}

static bool split_piece(const struct step *step, const struct match_work *w, const char *text, struct piece piece,
                        struct pieces *stretches, struct pieces *out, struct err *e)
{
    if (!find_stretches(step, w, text + piece.begin, piece.end - piece.begin, stretches, e))
        return false;
    size_t start = out->n, n = stretches->n;
    bool before = false, backwards = step->behavior == MERGED_WITH_NEXT;
    for (size_t i = 0; i < n; i++) {
        const struct piece *s = &stretches->list[backwards ? n - 1 - i : i];
        if (!add_stretch(step->behavior, out, start, piece.begin + s->begin, piece.begin + s->end, s->first, &before,
                         e))
            return false;
    }
    for (size_t i = start, k = out->n; backwards && i + 1 < k; i++) {
        struct piece swap = out->list[i];
        out->list[i] = out->list[--k];
        out->list[k] = swap;
    }
    size_t kept = start;
    for (size_t i = start; i < out->n; i++)
        if (out->list[i].end > out->list[i].begin) {
            out->list[kept] = out->list[i];
            out->list[kept].first = piece.first && out->list[i].begin == piece.begin;
            kept++;
        }
    out->n = kept;
    return true;
}

static bool change_pieces(const struct step *step, const struct match_work *w, struct pieces *p, struct pieces *out,
                          size_t limit, struct err *e)
{
    out->text.size = 0;
    for (size_t i = 0; i < p->n; i++) {
        struct piece piece = p->list[i];
        size_t begin = out->text.size;
        if (!step_change(step, w, p->text.data + piece.begin, piece.end - piece.begin, piece.first, &out->text, e) ||
            !check_growth(&out->text, p->text.size, limit, e))
            return false;
        if (out->text.size > begin && !add_piece(out, begin, out->text.size, piece.first, e))
            return false;
    }
    struct strbuf swap = p->text;
    p->text = out->text;
    out->text = swap;
    return true;
}

bool pretokenize(const struct step_list *l, struct match_work *w, struct pieces *p, unsigned where, struct err *e)
{
    size_t limit = GROWTH_BASE + p->text.size * GROWTH;
    struct pieces out = {0}, stretches = {0};
    p->n = 0;
    bool ok = p->text.size == 0 || add_piece(p, 0, p->text.size, where & AT_FIRST, e), whole = true;
    for (size_t i = 0; i < l->n && ok && p->n; i++) {
        const struct step *step = &l->steps[i];
        whole = whole && step->kind != STEP_SPLIT;
        if (whole && (where & AT_INSIDE) && step->kind == STEP_PREPEND)
            continue;
        out.n = 0;
        if (step->kind != STEP_SPLIT)
            ok = change_pieces(step, w, p, &out, limit, e);
        for (size_t k = 0; step->kind == STEP_SPLIT && k < p->n && ok; k++)
            ok = split_piece(step, w, p->text.data, p->list[k], &stretches, &out, e);
        struct piece *list = p->list;
        size_t cap = p->cap;
        p->list = out.list;
        p->cap = out.cap;
        p->n = out.n;
        out.list = list;
        out.cap = cap;
    }
    pieces_free(&out);
    pieces_free(&stretches);
    return ok;
}
