/* The parts that formats/tokenizer.c is put together from. Private to the tokenizer. */
#ifndef FORMATS_TOKENIZER_PARTS_H
#define FORMATS_TOKENIZER_PARTS_H

#include "formats/gguf.h"
#include "formats/json.h"
#include "host/base/str.h"

/* --- token ids, growing
 * ---------------------------------------------------------------------------------------- */
struct id_list {
    uint32_t *ids;
    size_t n, cap;
};
bool id_list_add(struct id_list *l, uint32_t id, struct err *e);

/* --- byte pair encoding of one word (tokenizer_bpe.c)
 * ------------------------------------------------------------ */
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

/* --- normalizers and pre-tokenizers (tokenizer_steps.c)
 * ------------------------------------------------------------ */
struct step;
struct step_list {
    struct step *steps;
    size_t n;
};
/* o may be NULL (nothing to do). An unknown type is ERR_USER and named. */
bool normalizers_parse(struct step_list *l, const cJSON *o, const char *path, struct err *e);
bool pretokenizers_parse(struct step_list *l, const cJSON *o, const char *path, struct err *e);
void steps_free(struct step_list *l);

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
/* text becomes its normal form. */
bool normalize(const struct step_list *l, struct match_work *w, struct strbuf *text, struct err *e);
/* p->text is set; the list becomes the words of it. first: the text stands at the beginning of the whole one.
 */
bool pretokenize(const struct step_list *l, struct match_work *w, struct pieces *p, bool first,
                 struct err *e);

/* --- put together (tokenizer.c, tokenizer_gguf.c)
 * ----------------------------------------------------------------------- */
struct tokenizer;
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
bool tokenizer_build(struct tokenizer **out, const struct tokenizer_parts *parts, const char *path,
                     struct err *e);
/* From the metadata of a GGUF. */
bool tokenizer_from_gguf(struct tokenizer **out, const struct gguf *g, const char *path, struct err *e);

/* Unicode White_Space, and what a regular expression calls \w. */
bool is_space_char(uint32_t c);
bool is_word_char(uint32_t c);

#endif
