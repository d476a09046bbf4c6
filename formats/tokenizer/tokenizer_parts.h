/* The parts that formats/tokenizer/tokenizer.c is put together from. Private to the tokenizer. */
#ifndef FORMATS_TOKENIZER_PARTS_H
#define FORMATS_TOKENIZER_PARTS_H

#include "formats/gguf/gguf.h"
#include "formats/json.h"
#include "host/base/str.h"

/* ---- token ids, growing ---- */
struct id_list {
    uint32_t *ids;
    size_t n, cap;
};
bool id_list_add(struct id_list *l, uint32_t id, struct err *e);
/* Its ids are the caller's from now on, who frees them, also where there are none. */
bool id_list_take(struct id_list *l, uint32_t **ids, size_t *n, struct err *e);

/* ---- byte pair encoding of one word (tokenizer_bpe.c) ---- */
struct bpe;
bool bpe_parse(struct bpe **out, const cJSON *model, const char *path, struct err *e);
/* The same from lists. */
struct bpe_lists {
    const struct gguf_string *tokens; /* [n], by id; empty ones are never found */
    size_t n;
    const struct gguf_string *merges; /* "left right", in order */
    size_t n_merges;
    const float *scores; /* [n]; SentencePiece: instead of merges, neighbours join whose text is a token, the
                            highest score first; what is no token in the end becomes bytes. NULL: merges */
    int64_t unk;         /* -1: none */
    bool ignore_merges;  /* a word that is a token is not merged together */
};
bool bpe_build(struct bpe **out, const struct bpe_lists *l, const char *path, struct err *e);
void bpe_destroy(struct bpe **b);
bool bpe_find(const struct bpe *b, const char *token, uint32_t *id);
/* Largest id + 1. */
uint32_t bpe_size(const struct bpe *b);

/* Buffers that grow with the longest word. Zero-initialise. */
struct bpe_work {
    const char *word;
    size_t word_size;
    struct bpe_symbol *symbols;
    struct bpe_merge *heap;
    size_t n_symbols, cap_symbols, n_heap, cap_heap;
};
void bpe_work_free(struct bpe_work *w);
/* Appends the ids of a word (valid UTF-8). O(n log n). */
bool bpe_encode(const struct bpe *b, struct bpe_work *w, const char *word, size_t n, struct id_list *out,
                struct err *e);

/* Far beyond what models have. Merges of longer tokens are not looked for, by cutting them at every byte. */
enum { TOKEN_BYTES_MAX = 4096 };

/* ---- regular expressions (tokenizer_regex.c) ---- */
/* What \s and \w are to Oniguruma, as items of a class of PCRE2: Unicode's White_Space; letters, marks,
 * digits and connectors. PCRE2's own take in other characters. */
#define REGEX_SPACE                                                                                                    \
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{"           \
    "3000}"
#define REGEX_WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
/* Appends a pattern of Oniguruma (its default syntax, UTF-8) as PCRE2 spells the same, for PCRE2_UTF,
 * PCRE2_UCP and PCRE2_MULTILINE with the newline LF. False for what is not known to mean the same; `why` then
 * names it. Out of memory shows in out->failed. */
enum { REGEX_WHY = 128 };
bool regex_translate(struct strbuf *out, const char *pattern, char why[REGEX_WHY]);

/* ---- normalizers and pre-tokenizers (tokenizer_steps.c) ---- */
struct step;
struct step_list {
    struct step *steps;
    size_t n;
};
/* o may be NULL (nothing to do). An unknown type is ERR_USER and named. */
bool normalizers_parse(struct step_list *l, const cJSON *o, const char *path, struct err *e);
bool pretokenizers_parse(struct step_list *l, const cJSON *o, const char *path, struct err *e);
/* The same without what it takes to match: for comparisons only. */
bool pretokenizers_shape(struct step_list *l, const cJSON *o, const char *path, struct err *e);
/* Whether a cuts every text as b does, as far as can be seen from how they are written. */
bool steps_equal(const struct step_list *a, const struct step_list *b);
void steps_free(struct step_list *l);
/* Appends n bytes as byte-level BPE shows them: printable ones as the character of that number, the others from U+0100 on. */
void byte_level_add(struct strbuf *out, const char *s, size_t n);

/* What matching needs besides the patterns; one per thread. Zero-initialise, then create. */
struct match_work {
    void *data, *context;
};
bool match_work_create(struct match_work *w, struct err *e);
void match_work_free(struct match_work *w);

/* A text cut into words: [begin, end) of `text`. */
struct piece {
    size_t begin, end;
    bool first; /* at the very beginning of the whole text */
};
struct pieces {
    struct strbuf text;
    struct piece *list;
    size_t n, cap;
};
void pieces_free(struct pieces *p);
/* Where a stretch of text stands, flags: at the very beginning of the whole text; after a cut, continuing
 * what was tokenized before (nothing is prepended); in front of a cut. */
enum { AT_FIRST = 1, AT_INSIDE = 2, AT_CUT = 4 };
/* text becomes its normal form. */
bool normalize(const struct step_list *l, struct match_work *w, struct strbuf *text, unsigned where, struct err *e);
/* p->text is set; the list becomes the words of it. */
bool pretokenize(const struct step_list *l, struct match_work *w, struct pieces *p, unsigned where, struct err *e);
/* Between small pieces of work, numbered i: false (ERR_STOPPED) once the user wants to stop. */
bool tokenizer_go_on(size_t i, struct err *e);

/* ---- put together (tokenizer.c, tokenizer_gguf.c) ---- */
/* A token that is recognised in the text itself, before any word is cut. */
struct added {
    char *content;
    uint32_t id;
    bool special, single_word, lstrip, rstrip, normalized;
};
/* Finds added tokens: for each first byte the tokens that begin so, longest first. */
struct matcher {
    struct match_token {
        char *text;
        size_t len;
        uint32_t added; /* index */
    } * tokens;
    size_t n, longest;
    uint32_t start[257];
};
/* The longest added token at s, or NULL. */
const struct match_token *match_at(const struct matcher *m, const char *s, size_t n);

struct tokenizer {
    struct bpe *bpe;
    struct step_list normalizers, pretokenizers;
    struct added *added;
    size_t n_added;
    struct matcher raw, normal; /* in the raw text; in normalized text */
    int64_t bos;
    uint32_t size;
};
struct tokenizer_parts {
    struct bpe *bpe;
    const char *normalizer, *pretokenizer; /* JSON as in tokenizer.json; NULL: nothing to do */
    const struct gguf_string *added;       /* recognised in the text before any word is cut */
    const uint32_t *added_ids;
    size_t n_added;
    uint32_t size; /* of the vocabulary */
    int64_t bos;   /* -1: none */
};
/* Takes parts->bpe over, also after a failure. */
bool tokenizer_build(struct tokenizer **out, const struct tokenizer_parts *parts, const char *path, struct err *e);
/* From the metadata of a GGUF. */
bool tokenizer_from_gguf(struct tokenizer **out, const struct gguf *g, const char *path, struct err *e);

/* ---- encoding (tokenizer.c, tokenizer_cut.c, tokenizer_text.c) ---- */
/* What follows a chunk that is tokenized alone, in normal form: enough to see whether the cut is right.
 */
struct cut_tail {
    const char *text;
    size_t n;
    bool ends; /* the whole text ends with it */
};
struct encoder {
    const struct tokenizer *t;
    struct id_list out;
    struct bpe_work bpe;
    struct match_work match;
    struct pieces pieces;
    struct cut_tail tail; /* for AT_CUT */
    bool cut_holds;       /* after a chunk with AT_CUT: its ids are those in the whole text */
    struct err *e;
};
/* Appends the ids of a chunk (valid UTF-8) that stands `where`. */
bool encode_chunk(struct encoder *x, const char *s, size_t n, unsigned where);
void encoder_free(struct encoder *x);

/* Cuts: places where a text can be taken apart so that the parts' ids together are those of the whole. */
enum cut_rule {
    CUT_NEVER,      /* not with these steps */
    CUT_AT_WORDS,   /* between words that a pattern finds: known for sure once the chunk before is scanned */
    CUT_IN_LETTERS, /* between characters that no token has side by side */
};
enum cut_rule cut_rule_of(const struct tokenizer *t);
struct cut_finder {
    const struct tokenizer *t;
    enum cut_rule rule;
    struct match_work match;
    struct strbuf left, tail; /* tail: of the place found, in normal form */
    bool tail_ends;
    unsigned kind; /* of place that was right last time */
    struct {
        char text[9];
        bool apart;
    } seen[64];
    size_t n_seen;
};
/* The first place at or after `from` (> 0) that looks right: *at, or 0 if there is none. ends: the text ends
 * at n. */
bool cut_find(struct cut_finder *f, const char *s, size_t n, bool ends, size_t from, size_t *at, struct err *e);
void cut_finder_free(struct cut_finder *f);
/* Whether words of a chunk that ends in s (normal form, after the last added token; `where` it stands) are
 * those of the whole text, of which tail follows. */
bool cut_check(const struct tokenizer *t, struct match_work *w, const char *s, size_t n, unsigned where,
               const struct cut_tail *tail, bool *holds, struct err *e);
/* Whether symbols on both sides of a place between these characters (of one word) can never join. */
bool bpe_apart(const struct bpe *b, const char *left, size_t n_left, const char *right, size_t n_right);

/* The last character before `at` (at > 0), and its first byte's place. */
size_t char_before(const char *s, size_t at, uint32_t *c);

/* Unicode White_Space, and what a regular expression calls \w. */
bool is_space_char(uint32_t c);
bool is_word_char(uint32_t c);

#endif
