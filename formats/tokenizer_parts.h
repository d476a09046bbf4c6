/* The parts that formats/tokenizer.c is put together from. Private to the tokenizer. */
#ifndef FORMATS_TOKENIZER_PARTS_H
#define FORMATS_TOKENIZER_PARTS_H

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
void bpe_destroy(struct bpe **b);
bool bpe_find(const struct bpe *b, const char *token, uint32_t *id);
/* Largest id + 1. */
uint32_t bpe_size(const struct bpe *b);

/* Buffers that grow with the longest word. Zero-initialise. */
struct bpe_work {
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

/* Unicode White_Space, and what a regular expression calls \w. */
bool is_space_char(uint32_t c);
bool is_word_char(uint32_t c);

#endif
