/* Tokenizers of Hugging Face folders (tokenizer.json, "fast") and of GGUF metadata: byte-level BPE and
 * SentencePiece-style BPE with byte fallback. */
#ifndef FORMATS_TOKENIZER_H
#define FORMATS_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"

struct tokenizer;

/* Parses the text of a tokenizer.json (any bytes). path names the file in messages. */
bool tokenizer_parse(struct tokenizer **out, const char *text, size_t size, const char *path, struct err *e);
/* Of a GGUF file, what its metadata say: the models "llama" and "gpt2". Of a folder, reads
 * DIR/tokenizer.json, else Kimi's DIR/tiktoken.model. The BOS is what Hugging Face puts in front: add_bos_token of tokenizer_config.json
 * decides, where that is absent the post-processor, else the tokenizer's class (Llama's, Gemma's and
 * Cohere's do, GPT2Tokenizer, Qwen's and PreTrainedTokenizerFast do not). Without tokenizer_config.json also
 * the bos_token_id of config.json, if it is a special token. */
bool tokenizer_load(struct tokenizer **out, const char *dir, struct err *e);
/* What a GGUF's metadata say, as the texts of a tokenizer.json and a tokenizer_config.json (which has the
 * chat template too). ERR_USER for a tokenizer that gsq does not know or tokenizer_load would refuse, tokens
 * that are no UTF-8 or longer than 4096 bytes. */
struct gguf;
struct strbuf;
bool tokenizer_json_from_gguf(struct strbuf *tokenizer, struct strbuf *config, const struct gguf *g, const char *path,
                              struct err *e);
void tokenizer_destroy(struct tokenizer **t);

/* Token ids of a whole text (UTF-8; invalid bytes are an ERR_USER that names the offset), added tokens
 * recognised, and exactly one BOS in front where the tokenizer has one (also if the text begins with its
 * own); nothing at the end. O(n log n) also when the text is one word. *ids is malloc'ed, the caller frees.
 * Thread-safe. Ids equal those of Hugging Face's tokenizers with add_special_tokens=False, apart from the
 * BOS. */
bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t size, uint32_t **ids, size_t *n,
                      struct err *e);
/* The same for a text that comes bit by bit, on all threads of pool.h. Only as much is read and tokenized as
 * the ids asked for take, and a few MiB of the text are in memory at a time, where the tokenizer's rules let
 * a text be cut at all (those of known models do). The ids are those of the whole text: it is cut only where
 * that is proven.
 */
struct text_source {
    /* Up to cap (> 0) further bytes into buf; *got 0: the text ends. */
    bool (*read)(void *ctx, char *buf, size_t cap, size_t *got, struct err *e);
    /* Several times a second: bytes of the text that are tokenized, and ids so far. False stops
     * (ERR_STOPPED). May be NULL. */
    bool (*progress)(void *ctx, uint64_t bytes, uint64_t ids);
    void *ctx;
    uint64_t at_most; /* ids wanted; 0: all */
    size_t chunk;     /* bytes of one thread's piece of work; 0: by default */
};
bool tokenizer_encode_text(const struct tokenizer *t, const struct text_source *source, uint32_t **ids, size_t *n,
                           struct err *e);
/* Number of ids (largest id + 1), and the BOS id or -1. */
uint32_t tokenizer_vocab_size(const struct tokenizer *t);
int64_t tokenizer_bos(const struct tokenizer *t);

#endif
