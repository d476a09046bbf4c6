/* One step of a normalizer or pre-tokenizer. Private to formats/tokenizer/tokenizer_steps.c and tokenizer_cut.c, which
 * match. */
#ifndef FORMATS_TOKENIZER_STEP_H
#define FORMATS_TOKENIZER_STEP_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>

#include "formats/tokenizer/tokenizer_parts.h"

enum step_kind {
    STEP_UNICODE,       /* normal form `form` */
    STEP_LOWERCASE,     /* */
    STEP_STRIP,         /* white space at the `left` and/or right */
    STEP_STRIP_ACCENTS, /* drop combining marks */
    STEP_PREPEND,       /* `text` in front, unless there is nothing or (`once`) it stands there already */
    STEP_PREPEND_FIRST, /* the same with `once`, only at the beginning of the whole text */
    STEP_REPLACE,       /* what matches becomes `text` */
    STEP_BYTES,         /* every byte becomes its printable character (byte-level BPE) */
    STEP_SPLIT,         /* cut where it matches: `behavior`, `invert`; pre-tokenizers only */
};

enum behavior { ISOLATED, REMOVED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };

struct step {
    enum step_kind kind;
    utf8proc_option_t form;
    bool left, right, once, invert;
    enum behavior behavior;
    char *text;
    char *pattern; /* as the model spells it; `literal`: no expression but text */
    bool literal;
    pcre2_code *re;
    bool apart;    /* what it matches does not depend on what stands before */
    bool one_char; /* it matches one character, and nothing else */
};

/* Appends what the step makes of s. first: s stands at the very beginning of the whole text. */
bool step_change(const struct step *step, const struct match_work *w, const char *s, size_t n, bool first,
                 struct strbuf *out, struct err *e);
/* Where to look for the match after one that ends at `end`: one character further after an empty match. */
size_t step_next_start(const char *s, size_t n, size_t begin, size_t end);

#endif
