/* The names that a GGUF gives to pre-tokenizers (tokenizer.ggml.pre). Private to formats. */
#ifndef FORMATS_TOKENIZER_PRE_H
#define FORMATS_TOKENIZER_PRE_H

#include "formats/json.h"
#include "formats/tokenizer/tokenizer_parts.h"

struct tokenizer_pre {
    const char *names;      /* of the same meaning, a space between; the first is the one that is written */
    const char *normalizer; /* JSON as in tokenizer.json; NULL: nothing to do */
    const char *pretokenizer;
    bool ignore_merges, add_bos; /* what goes without saying under these names */
};
/* NULL: no such name, or (at) no more. */
const struct tokenizer_pre *tokenizer_pre_named(const char *name, size_t n);
const struct tokenizer_pre *tokenizer_pre_at(size_t i);
enum { TOKENIZER_PRE_NAME = 32 };
void tokenizer_pre_name(const struct tokenizer_pre *p, char out[TOKENIZER_PRE_NAME]);
/* The one that cuts words as the root of a tokenizer.json says; *out NULL: there is none. Among those that
 * cut alike, one that also treats merges and normal forms the same. */
bool tokenizer_pre_of(const struct tokenizer_pre **out, const cJSON *tokenizer, const char *path, struct err *e);
/* The type of the first step of a normalizer that GGUF cannot say for a byte-level tokenizer: any but NFC.
 * NULL: there is none. */
const char *tokenizer_lost_step(const cJSON *normalizer);

#endif
