/* A text as windows of tokens. */
#ifndef MODEL_WINDOWS_H
#define MODEL_WINDOWS_H

#include "formats/read/checkpoint_in.h"
#include "host/base/num.h"
#include "host/gpu/progress.h"

/* The beginning of a text, or all of it, as the ids of the whole text (one BOS in front where the tokenizer
 * has one), cut into n windows of ctx tokens; the remainder is dropped. */
struct windows {
    uint32_t *ids; /* [n, ctx] */
    uint32_t n, ctx;
    uint64_t tokens;     /* that were made: of all windows wanted, or of the whole text, BOS included */
    struct hash128 hash; /* of the ids of these windows; of all ids where all windows were wanted */
    int64_t bos;         /* the tokenizer's; -1: it has none */
};
/* By the model's own tokenizer. at_most 0: all windows; else no more of the text is read and tokenized than these take.
 * formats/text_file.h says which files can be read. watch is told several times a second how far it is, and can stop
  * (ERR_STOPPED); may be NULL. Unreadable file or tokenizer, no full window, an id outside the vocabulary: ERR_USER
   * with the
 * remedy. */
bool windows_load(struct windows *w, const struct checkpoint *ck, const char *text_path, uint32_t ctx, uint32_t at_most,
                  struct progress_watch *watch, struct err *e);
/* The same of calibration texts: of one as windows_load, of several (at most TEXTS_MOST) a window of each in turn, as long as it has any, until there
 * are at_most. Documents of JSON lines that came before, in whichever file, are left out, and a text that equals an earlier one. */
enum { TEXTS_MOST = 32 };
/* Their files, a first one and n_more: that of the text that comes with gsq, if it is one of them, in buf (shipped_text_path). first
 * NULL: none. ERR_USER: too many. */
bool windows_texts(const char *texts[TEXTS_MOST], size_t *n, const char *first, const char *const *more, size_t n_more,
                   char *buf, size_t cap, struct err *e);
bool windows_load_texts(struct windows *w, const struct checkpoint *ck, const char *const *texts, size_t n,
                        uint32_t ctx, uint32_t at_most, struct progress_watch *watch, struct err *e);
void windows_free(struct windows *w);
/* Whether all ids are of the model's vocabulary; else ERR_USER. */
bool windows_check_ids(const uint32_t *ids, size_t n, uint32_t vocab, struct err *e);
/* Tokens of a window: what was asked for; 0: the model's context, at most 2048. */
uint32_t windows_context(const struct checkpoint *ck, uint32_t asked);
/* Warns where the text has fewer windows than were asked for. */
void windows_tell_short(const struct windows *w, const char *text_path, uint32_t asked);

#endif
