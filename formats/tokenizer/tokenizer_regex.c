/* Regular expressions of tokenizer.json, which are written for Oniguruma, as PCRE2 spells the same. Character
 * classes, \w, \s, \h, \b and the like mean other characters there, and PCRE2 has neither classes inside
 * classes nor their intersection: all of them are written out. What is not known to mean the same is refused.
 */
#include <stdio.h>
#include <string.h>

#include "formats/tokenizer/tokenizer_parts.h"

/* As deep as groups and classes may nest, and the longest interval. */
enum { DEPTH_MAX = 50, REPEAT_MAX = 1000 };

struct translator {
    const char *s; /* valid UTF-8 */
    size_t n, at;
    struct strbuf *out;
    char *why; /* [REGEX_WHY] what is not followed */
    bool ignore_case, dot_all;
    unsigned depth;
    uint32_t before; /* the character that the atom before stood for, under ignore_case; 0: none */
};

static bool refuse(struct translator *t, const char *what)
{
    snprintf(t->why, REGEX_WHY, "%s at offset %zu", what, t->at);
    return false;
}

static bool more(const struct translator *t)
{
    return t->at < t->n;
}

/* True, and past it, if `text` stands here. */
static bool eat(struct translator *t, const char *text)
{
    size_t len = strlen(text);
    if (t->n - t->at < len || memcmp(t->s + t->at, text, len) != 0)
        return false;
    t->at += len;
    return true;
}

static bool looking_at(const struct translator *t, const char *text)
{
    size_t len = strlen(text);
    return t->n - t->at >= len && memcmp(t->s + t->at, text, len) == 0;
}

static uint32_t next_char(struct translator *t)
{
    uint32_t c;
    t->at += utf8_decode(t->s + t->at, &c);
    return c;
}

static bool is_letter_or_digit(uint32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static void put_char(struct strbuf *b, uint32_t c)
{
    if (is_letter_or_digit(c))
        strbuf_printf(b, "%c", (int)c);
    else
        strbuf_printf(b, "\\x{%x}", (unsigned)c);
}

/* ---- properties ---- */

static const struct {
    const char *name, *items; /* lower case, without spaces, - and _; what stands in a class of PCRE2 */
} properties[] = {
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"alpha", "\\p{Alphabetic}"},
    {"alphabetic", "\\p{Alphabetic}"},
    {"any", "\\x{0}-\\x{10FFFF}"},
    {"ascii", "\\x{0}-\\x{7F}"},
    {"blank", "\\p{Zs}\\x{9}"},
    {"cntrl", "\\p{Cc}"},
    {"digit", "\\p{Nd}"},
    {"lower", "\\p{Lowercase}"},
    {"lowercase", "\\p{Lowercase}"},
    {"punct", "\\p{P}"},
    {"space", REGEX_SPACE},
    {"upper", "\\p{Uppercase}"},
    {"uppercase", "\\p{Uppercase}"},
    {"whitespace", REGEX_SPACE},
    {"word", REGEX_WORD},
    {"xdigit", "0-9A-Fa-f"},
    /* general categories */
    {"letter", "\\p{L}"},
    {"uppercaseletter", "\\p{Lu}"},
    {"lowercaseletter", "\\p{Ll}"},
    {"titlecaseletter", "\\p{Lt}"},
    {"modifierletter", "\\p{Lm}"},
    {"otherletter", "\\p{Lo}"},
    {"mark", "\\p{M}"},
    {"combiningmark", "\\p{M}"},
    {"nonspacingmark", "\\p{Mn}"},
    {"spacingmark", "\\p{Mc}"},
    {"enclosingmark", "\\p{Me}"},
    {"number", "\\p{N}"},
    {"decimalnumber", "\\p{Nd}"},
    {"letternumber", "\\p{Nl}"},
    {"othernumber", "\\p{No}"},
    {"punctuation", "\\p{P}"},
    {"connectorpunctuation", "\\p{Pc}"},
    {"dashpunctuation", "\\p{Pd}"},
    {"openpunctuation", "\\p{Ps}"},
    {"closepunctuation", "\\p{Pe}"},
    {"initialpunctuation", "\\p{Pi}"},
    {"finalpunctuation", "\\p{Pf}"},
    {"otherpunctuation", "\\p{Po}"},
    {"symbol", "\\p{S}"},
    {"mathsymbol", "\\p{Sm}"},
    {"currencysymbol", "\\p{Sc}"},
    {"modifiersymbol", "\\p{Sk}"},
    {"othersymbol", "\\p{So}"},
    {"separator", "\\p{Z}"},
    {"spaceseparator", "\\p{Zs}"},
    {"lineseparator", "\\p{Zl}"},
    {"paragraphseparator", "\\p{Zp}"},
    {"control", "\\p{Cc}"},
    {"format", "\\p{Cf}"},
    {"unassigned", "\\p{Cn}"},
    {"privateuse", "\\p{Co}"},
};
static const char categories[] =
    " l lu ll lt lm lo m mn mc me n nd nl no p pc pd ps pe pi pf po s sm sc sk so z zs zl zp c cc cf cn co ";

/* The items of a property; anything else is taken for a script, which PCRE2 knows or refuses. */
static void property_items(const char *name, struct strbuf *items)
{
    char small[64], spaced[68];
    size_t n = 0;
    for (const char *c = name; *c && n + 1 < sizeof small; c++)
        if (*c != ' ' && *c != '_' && *c != '-')
            small[n++] = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
    small[n] = 0;
    for (size_t i = 0; i < sizeof properties / sizeof properties[0]; i++)
        if (strcmp(properties[i].name, small) == 0) {
            strbuf_puts(items, properties[i].items);
            return;
        }
    snprintf(spaced, sizeof spaced, " %s ", small);
    if (n <= 2 && strstr(categories, spaced))
        strbuf_printf(items, "\\p{%c%.1s}", small[0] - 32, small + 1);
    else
        strbuf_printf(items, "\\p{sc:%s}", name);
}

/* "{Name}" or "{^Name}" after \p or \P; *negate is turned over by the latter. */
static bool read_property(struct translator *t, struct strbuf *items, bool *negate)
{
    char name[64];
    size_t n = 0;
    if (!eat(t, "{"))
        return refuse(t, "a property without braces");
    if (eat(t, "^"))
        *negate = !*negate;
    while (more(t) && t->s[t->at] != '}') {
        char c = t->s[t->at];
        if (n + 1 == sizeof name || !(is_letter_or_digit((uint8_t)c) || c == '_' || c == '-' || c == ' '))
            return refuse(t, "an odd name of a property");
        name[n++] = c;
        t->at++;
    }
    name[n] = 0;
    if (!eat(t, "}") || n == 0)
        return refuse(t, "a property without its name");
    property_items(name, items);
    return true;
}

/* ---- escapes ---- */

static bool read_hex(struct translator *t, unsigned least, unsigned most, uint32_t *out)
{
    unsigned n = 0;
    for (*out = 0; n < most && more(t); n++, t->at++) {
        char c = t->s[t->at];
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16)
            break;
        *out = *out * 16 + digit;
    }
    return n >= least && *out <= 0x10FFFF && !(*out >= 0xD800 && *out <= 0xDFFF);
}

/* Behind a backslash: a single character, or a set of them (*c is NO_CHAR then). */
enum { NO_CHAR = 0x7FFFFFFF };
/* Outside of classes \w and \b take superscripts and fractions of Latin-1 in. */
#define WORD_OUTSIDE REGEX_WORD "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"
static bool read_escape(struct translator *t, bool in_class, uint32_t *c, struct strbuf *items, bool *negate)
{
    static const char controls[][2] = {{'t', 9}, {'n', 10}, {'v', 11}, {'f', 12}, {'r', 13}, {'a', 7}, {'e', 27}};
    static const struct {
        char letter;
        const char *items;
    } sets[] = {{'d', "\\p{Nd}"}, {'s', REGEX_SPACE}, {'w', REGEX_WORD}, {'h', "0-9A-Fa-f"}};
    static const char word_outside[] = WORD_OUTSIDE;
    if (!more(t))
        return refuse(t, "a backslash at the end");
    uint32_t letter = *c = next_char(t);
    *negate = letter >= 'A' && letter <= 'Z';
    for (size_t i = 0; i < sizeof controls / sizeof controls[0]; i++)
        if (letter == (uint32_t)controls[i][0]) {
            *c = (uint32_t)controls[i][1];
            return true;
        }
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        if ((letter | 32) == (uint32_t)sets[i].letter) {
            *c = NO_CHAR;
            strbuf_puts(items, sets[i].letter == 'w' && !in_class ? word_outside : sets[i].items);
            return true;
        }
    if (letter == 'p' || letter == 'P') {
        *c = NO_CHAR;
        return read_property(t, items, negate);
    }
    if (letter == 'x' && eat(t, "{"))
        return (read_hex(t, 1, 8, c) && eat(t, "}")) || refuse(t, "an odd \\x{}");
    if (letter == 'x')
        return (read_hex(t, 1, 2, c) && *c < 0x80) || refuse(t, "an odd \\x");
    if (letter == 'u')
        return read_hex(t, 4, 4, c) || refuse(t, "an odd \\u");
    if (letter == 'b' && in_class) {
        *c = 8;
        return true;
    }
    if (!is_letter_or_digit(letter))
        return true;
    t->at--;
    char what[32];
    snprintf(what, sizeof what, "\\%c", (int)letter);
    return refuse(t, what);
}

/* ---- character classes ---- */

/* One class: items that PCRE2 takes side by side, and expressions for one character that it does not. */
struct set {
    struct strbuf items, others; /* others: "|A|B" */
};

static void set_free(struct set *s)
{
    strbuf_free(&s->items);
    strbuf_free(&s->others);
}

static void add_other(struct set *s, const char *expression)
{
    strbuf_puts(&s->others, "|");
    strbuf_puts(&s->others, expression);
}

/* Items, or everything but them. */
static void add_items(struct set *s, const char *items, bool negate)
{
    if (!negate) {
        strbuf_puts(&s->items, items);
        return;
    }
    strbuf_puts(&s->others, "|[^");
    strbuf_puts(&s->others, items);
    strbuf_puts(&s->others, "]");
}

/* The expression of a union. */
static void put_union(struct strbuf *out, const struct set *s)
{
    bool both = s->items.size && s->others.size;
    if (s->others.size)
        strbuf_puts(out, "(?:");
    if (s->items.size) {
        strbuf_puts(out, "[");
        strbuf_add(out, s->items.data, s->items.size);
        strbuf_puts(out, "]");
    }
    if (s->others.size) {
        strbuf_puts(out, s->others.data + (both ? 0 : 1));
        strbuf_puts(out, ")");
    }
}

static bool parse_class(struct translator *t, struct set *into);

/* "[:alpha:]", with t->at after "[:". */
static bool parse_posix(struct translator *t, struct set *s)
{
    static const char names[] = " alnum alpha ascii blank cntrl digit lower punct space upper word xdigit ";
    char name[16], spaced[20];
    size_t n = 0;
    bool negate = eat(t, "^");
    while (more(t) && t->s[t->at] >= 'a' && t->s[t->at] <= 'z' && n + 1 < sizeof name)
        name[n++] = t->s[t->at++];
    name[n] = 0;
    snprintf(spaced, sizeof spaced, " %s ", name);
    if (!eat(t, ":]") || !strstr(names, spaced))
        return refuse(t, "an odd [: in a class");
    if (t->ignore_case)
        return refuse(t, "a class of letters without regard to case");
    struct strbuf items = {0};
    property_items(name, &items);
    if (strcmp(name, "punct") == 0) /* more than \p{Punct} */
        strbuf_puts(&items, "\\p{S}");
    add_items(s, items.data ? items.data : "", negate);
    strbuf_free(&items);
    return true;
}

/* A character of a class, or a set that an escape stands for (*c is NO_CHAR then). */
static bool class_char(struct translator *t, struct set *s, uint32_t *c)
{
    struct strbuf items = {0};
    bool negate, ok = true;
    if (!eat(t, "\\")) {
        *c = next_char(t);
    } else if ((ok = read_escape(t, true, c, &items, &negate)) && *c == NO_CHAR) {
        /* Without regard to case a property takes in what differs from its own by case alone. */
        if (t->ignore_case && items.data && strncmp(items.data, "\\p{N", 4) != 0 &&
            strcmp(items.data, REGEX_SPACE) != 0)
            ok = refuse(t, "a property without regard to case");
        add_items(s, items.data ? items.data : "", negate);
    }
    strbuf_free(&items);
    if (ok && t->ignore_case && *c != NO_CHAR && *c >= 0x80)
        return refuse(t, "a character beyond ASCII without regard to case");
    return ok;
}

/* Members up to "]" or "&&". */
static bool parse_members(struct translator *t, struct set *s)
{
    bool first = true, after_range = false;
    for (; more(t) && !looking_at(t, "]") && !looking_at(t, "&&"); first = false) {
        uint32_t from, to;
        if (eat(t, "[:")) {
            if (!parse_posix(t, s))
                return false;
            after_range = true;
            continue;
        }
        if (eat(t, "[")) {
            if (!parse_class(t, s))
                return false;
            after_range = true;
            continue;
        }
        bool dash = looking_at(t, "-");
        if (dash && !first && t->at + 1 < t->n && t->s[t->at + 1] != ']')
            return refuse(t, after_range ? "a - after a range" : "a - that could begin a range");
        if (!class_char(t, s, &from))
            return false;
        after_range = from == NO_CHAR;
        if (from == NO_CHAR)
            continue;
        put_char(&s->items, from);
        if (!looking_at(t, "-") || t->at + 1 >= t->n || t->s[t->at + 1] == ']')
            continue;
        t->at++;
        if (looking_at(t, "[") || looking_at(t, "&&") || !class_char(t, s, &to))
            return t->why[0] ? false : refuse(t, "a range without its end");
        if (to == NO_CHAR || to < from)
            return refuse(t, "a range without its end");
        strbuf_puts(&s->items, "-");
        put_char(&s->items, to);
        after_range = true;
    }
    return more(t) || refuse(t, "a class without its ]");
}

/* Behind "[": what the class stands for is added to `into`. */
static bool parse_class(struct translator *t, struct set *into)
{
    if (++t->depth > DEPTH_MAX)
        return refuse(t, "too deep a class");
    bool negate = eat(t, "^"), ok = true;
    if (looking_at(t, "]"))
        return refuse(t, "a class that begins with ]");
    struct set last = {0};
    struct strbuf all = {0}; /* (?=A)(?=B), all but the last of an intersection */
    while ((ok = parse_members(t, &last)) &&
           (ok = last.items.size || last.others.size ? true : refuse(t, "an empty class")) && eat(t, "&&")) {
        strbuf_puts(&all, "(?=");
        put_union(&all, &last);
        strbuf_puts(&all, ")");
        set_free(&last);
        last = (struct set){0};
    }
    ok = ok && (eat(t, "]") || refuse(t, "a class without its ]"));
    if (ok && !all.size && !last.others.size) {
        add_items(into, last.items.data ? last.items.data : "", negate);
    } else if (ok && !all.size && !negate) {
        if (last.items.size)
            strbuf_add(&into->items, last.items.data, last.items.size);
        add_other(into, last.others.data + 1);
    } else if (ok) {
        struct strbuf one = {0};
        strbuf_puts(&one, negate ? "(?!" : "(?:");
        if (all.size)
            strbuf_add(&one, all.data, all.size);
        put_union(&one, &last);
        strbuf_puts(&one, negate ? ")(?s:.)" : ")");
        add_other(into, one.data ? one.data : "");
        into->others.failed |= one.failed;
        strbuf_free(&one);
    }
    into->items.failed |= last.items.failed || all.failed;
    into->others.failed |= last.others.failed;
    set_free(&last);
    strbuf_free(&all);
    t->depth--;
    return ok;
}

static void put_set(struct translator *t, const struct set *s)
{
    /* A single negated class stays one. */
    if (!s->items.size && s->others.size > 3 && memcmp(s->others.data, "|[^", 3) == 0 &&
        !memchr(s->others.data + 1, '|', s->others.size - 1))
        strbuf_puts(t->out, s->others.data + 1);
    else
        put_union(t->out, s);
    t->out->failed |= s->items.failed || s->others.failed;
}

/* ---- expressions ---- */

/* Strings that one letter can stand for without regard to case: German sharp s, ligatures. */
static bool is_letter_pair(uint32_t a, uint32_t b)
{
    a |= 32;
    b |= 32;
    return (a == 's' && (b == 's' || b == 't')) || (a == 'f' && (b == 'f' || b == 'i' || b == 'l'));
}

static bool put_literal(struct translator *t, uint32_t c)
{
    if (t->ignore_case && c >= 0x80)
        return refuse(t, "a character beyond ASCII without regard to case");
    if (t->ignore_case && is_letter_pair(t->before, c))
        return refuse(t, "letters that a ligature can stand for, without regard to case");
    t->before = t->ignore_case ? c : 0;
    put_char(t->out, c);
    return true;
}

static bool parse_escape(struct translator *t, bool *anchor)
{
#define BETWEEN(a, b) "(?:(?<" a "[" WORD_OUTSIDE "])(?" b "[" WORD_OUTSIDE "])|"
    static const struct {
        char letter;
        bool anchor;
        const char *text;
    } known[] = {
        {'b', true, BETWEEN("=", "!") "(?<![" WORD_OUTSIDE "])(?=[" WORD_OUTSIDE "]))"},
        {'B', true, BETWEEN("=", "=") "(?<![" WORD_OUTSIDE "])(?![" WORD_OUTSIDE "]))"},
        {'A', true, "\\A"},
        {'z', true, "\\z"},
        {'Z', true, "\\Z"},
        {'R', false, "(?>\\r\\n|[\\n-\\r\\x{85}\\x{2028}\\x{2029}])"},
        {'N', false, "[^\\n]"},
        {'O', false, "(?s:.)"},
    };
#undef BETWEEN
    for (size_t i = 0; i < sizeof known / sizeof known[0] && more(t); i++)
        if (t->s[t->at] == known[i].letter) {
            t->at++;
            *anchor = known[i].anchor;
            strbuf_puts(t->out, known[i].text);
            return true;
        }
    struct set s = {0};
    struct strbuf items = {0};
    bool negate;
    uint32_t c;
    bool ok = read_escape(t, false, &c, &items, &negate);
    if (ok && c != NO_CHAR) {
        ok = put_literal(t, c);
    } else if (ok && t->ignore_case && strncmp(items.data ? items.data : "", "\\p{N", 4) != 0 &&
               strcmp(items.data ? items.data : "", REGEX_SPACE) != 0) {
        ok = refuse(t, "a property without regard to case");
    } else if (ok) {
        t->before = 0;
        add_items(&s, items.data ? items.data : "", negate);
        put_set(t, &s);
    }
    strbuf_free(&items);
    set_free(&s);
    return ok;
}

/* {n}, {n,}, {n,m}, {,m}: false where the brace is one of text. */
static bool read_interval(struct translator *t, uint32_t *least, uint32_t *most)
{
    size_t at = t->at + 1, digits = 0;
    uint32_t numbers[2] = {0, UINT32_MAX};
    bool comma = false, given[2] = {false, false};
    for (; at < t->n && t->s[at] != '}' && digits < 12; at++) {
        if (t->s[at] == ',' && !comma) {
            comma = true;
            continue;
        }
        if (t->s[at] < '0' || t->s[at] > '9')
            return false;
        uint32_t *number = &numbers[comma];
        *number = (given[comma] ? *number * 10 : 0) + (uint32_t)(t->s[at] - '0');
        given[comma] = true;
        if (++digits > 8)
            return false;
    }
    if (at >= t->n || t->s[at] != '}' || !(given[0] || given[1]))
        return false;
    *least = numbers[0];
    *most = comma ? numbers[1] : numbers[0];
    t->at = at + 1;
    return true;
}

/* What stood at `start` of the output becomes one group. */
static void group(struct translator *t, size_t start)
{
    struct strbuf tail = {0};
    strbuf_add(&tail, t->out->data + start, t->out->size - start);
    t->out->size = start;
    strbuf_puts(t->out, "(?:");
    if (tail.size)
        strbuf_add(t->out, tail.data, tail.size);
    strbuf_puts(t->out, ")");
    t->out->failed |= tail.failed;
    strbuf_free(&tail);
}

/* The quantifier of the atom that stands at `start` of the output, if there is one. */
static bool parse_quantifier(struct translator *t, size_t start, bool anchor)
{
    uint32_t least, most;
    char c = more(t) ? t->s[t->at] : 0;
    bool simple = c == '*' || c == '+' || c == '?';
    if (!simple && !(c == '{' && read_interval(t, &least, &most)))
        return true;
    if (anchor || t->out->failed)
        return refuse(t, "a repeated anchor");
    t->before = 0;
    if (simple) {
        t->at++;
        strbuf_printf(t->out, "%c", c);
        if (looking_at(t, "?") || looking_at(t, "+"))
            strbuf_printf(t->out, "%c", t->s[t->at++]);
    } else {
        if (least > REPEAT_MAX || (most != UINT32_MAX && (most > REPEAT_MAX || most < least)))
            return refuse(t, "an interval of odd numbers");
        if (most == UINT32_MAX)
            strbuf_printf(t->out, "{%u,}", (unsigned)least);
        else
            strbuf_printf(t->out, "{%u,%u}", (unsigned)least, (unsigned)most);
        if (eat(t, "?")) { /* after {n} it makes the whole optional */
            if (most == least)
                group(t, start);
            strbuf_puts(t->out, "?");
        } else if (eat(t, "+")) { /* a quantifier of its own there */
            group(t, start);
            strbuf_puts(t->out, "+");
        }
    }
    c = more(t) ? t->s[t->at] : 0;
    if (c == '*' || c == '+' || c == '?' || (c == '{' && read_interval(t, &least, &most)))
        return refuse(t, "a quantifier of a quantifier");
    return true;
}

static bool parse_choices(struct translator *t);

/* Behind "(?": flags, then ":" (a group) or ")" (up to the end of the group it begins). */
static bool parse_flags(struct translator *t, bool at_start, bool *closed)
{
    bool on = true;
    for (; more(t) && !looking_at(t, ":") && !looking_at(t, ")"); t->at++) {
        char c = t->s[t->at];
        if (c == '-')
            on = false;
        else if (c == 'i')
            t->ignore_case = on;
        else if (c == 'm')
            t->dot_all = on;
        else
            return refuse(t, "a group or an option");
    }
    *closed = eat(t, ")");
    if (*closed && !at_start)
        return refuse(t, "options in the middle of a group");
    if (!*closed && !eat(t, ":"))
        return refuse(t, "a group without its )");
    strbuf_puts(t->out, t->ignore_case ? "(?i" : "(?-i");
    strbuf_puts(t->out, *closed ? ")" : ":");
    return true;
}

/* Behind "(". at_start: nothing stands in front of it in its group. */
static bool parse_group(struct translator *t, bool at_start, bool *anchor)
{
    static const char *const plain[] = {"?:", "?=", "?!", "?<=", "?<!", "?>"};
    bool ignore_case = t->ignore_case, dot_all = t->dot_all, opened = false, closed = false;
    if (++t->depth > DEPTH_MAX)
        return refuse(t, "too deep a group");
    if (eat(t, "?#")) {
        while (more(t) && t->s[t->at] != ')')
            t->at += t->s[t->at] == '\\' ? 2 : 1;
        t->depth--;
        *anchor = true;
        return eat(t, ")") || refuse(t, "a comment without its )");
    }
    for (size_t i = 0; i < sizeof plain / sizeof plain[0] && !opened; i++)
        if (eat(t, plain[i])) {
            strbuf_printf(t->out, "(%s", plain[i]);
            *anchor = i >= 1 && i <= 4;
            opened = true;
        }
    if (!opened && looking_at(t, "?<")) {
        while (more(t) && !looking_at(t, ">"))
            t->at++;
        eat(t, ">"); /* where there is none, the group has no end either */
        strbuf_puts(t->out, "(?:");
    } else if (!opened && eat(t, "?")) {
        if (!parse_flags(t, at_start, &closed))
            return false;
    } else if (!opened) {
        strbuf_puts(t->out, "(?:"); /* what it would remember is not asked for */
    }
    t->before = 0;
    t->depth -= closed;
    if (closed) {
        *anchor = true;
        return true;
    }
    if (!parse_choices(t))
        return false;
    if (!eat(t, ")"))
        return refuse(t, "a group without its )");
    strbuf_puts(t->out, ")");
    t->ignore_case = ignore_case;
    t->dot_all = dot_all;
    t->before = 0;
    t->depth--;
    return true;
}

/* One atom with its quantifier. */
static bool parse_atom(struct translator *t, bool at_start)
{
    size_t start = t->out->size;
    bool anchor = false, ok = true;
    uint32_t least, most;
    char c = t->s[t->at];
    if (c == '*' || c == '+' || c == '?')
        return refuse(t, "a quantifier of nothing");
    if (c == '(') {
        t->at++;
        ok = parse_group(t, at_start, &anchor);
    } else if (c == '[') {
        struct set s = {0};
        t->at++;
        t->before = 0;
        ok = parse_class(t, &s);
        if (ok)
            put_set(t, &s);
        set_free(&s);
    } else if (c == '\\') {
        t->at++;
        ok = parse_escape(t, &anchor);
    } else if (c == '.') {
        t->at++;
        t->before = 0;
        strbuf_puts(t->out, t->dot_all ? "(?s:.)" : "[^\\n]");
    } else if (c == '^' || c == '$') {
        t->at++;
        anchor = true;
        strbuf_printf(t->out, "%c", c);
    } else if (c == '{' && read_interval(t, &least, &most)) {
        return refuse(t, "a quantifier of nothing");
    } else {
        ok = put_literal(t, next_char(t));
    }
    return ok && parse_quantifier(t, start, anchor);
}

static bool parse_choices(struct translator *t)
{
    bool at_start = true;
    for (; more(t) && !looking_at(t, ")"); at_start = false) {
        if (eat(t, "|")) {
            t->before = 0;
            strbuf_puts(t->out, "|");
        } else if (!parse_atom(t, at_start)) {
            return false;
        }
    }
    return true;
}

bool regex_translate(struct strbuf *out, const char *pattern, char why[REGEX_WHY])
{
    struct translator t = {.s = pattern, .n = strlen(pattern), .out = out, .why = why};
    size_t bad;
    why[0] = 0;
    strbuf_add(out, "", 0);
    if (!utf8_valid(t.s, t.n, &bad))
        return refuse(&t, "no UTF-8");
    return parse_choices(&t) && (!more(&t) || refuse(&t, "a ) too many"));
}
