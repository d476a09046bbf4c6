/* What a Hugging Face folder says, as keys of a GGUF: shape, RoPE, tokenizer, chat template. */
#ifndef FORMATS_GGUF_EXPORT_H
#define FORMATS_GGUF_EXPORT_H

#include "formats/read/checkpoint_in.h"
#include "formats/gguf/gguf.h"

/* Keys being collected. What the folder carries replaces what would be derived, in its place. */
struct key_list {
    struct gguf_keys *keys;
    const struct gguf *carried; /* NULL: nothing is */
    bool *used;                 /* of carried */
    bool quiet;                 /* no warnings */
};
void key_u32(struct key_list *k, const char *key, uint32_t v);
void key_f32(struct key_list *k, const char *key, float v);
void key_bool(struct key_list *k, const char *key, bool v);
void key_string(struct key_list *k, const char *key, const char *text);
void key_array(struct key_list *k, const char *key, enum gguf_value element, const void *values, uint64_t n);
void key_strings(struct key_list *k, const char *key, const struct gguf_string *list, uint64_t n);

/* tokenizer.ggml.* and the chat template of DIR for a vocabulary of `rows` tokens; unused ids become
 * [PAD...]. No tokenizer.json: "no_vocab", with a warning. ERR_USER for a tokenizer that no GGUF can hold, or
 * that has more tokens. */
bool gguf_export_tokenizer(struct key_list *k, const char *dir, uint32_t rows, struct err *e);
struct gguf_facts {
    int file_type;                    /* general.file_type */
    bool quantized;                   /* then general.quantization_version */
    uint32_t vocab;                   /* rows of the embedding */
    const char *const (*metadata)[2]; /* extra string keys, n pairs; may be NULL */
    size_t n_metadata;
    bool quiet; /* no warnings: the keys are only counted */
};
/* All keys of a GGUF made from a Hugging Face folder. The caller destroys *out, also on failure. */
bool gguf_export_keys(struct gguf_keys **out, const char *dir, const struct model_config *c,
                      const struct gguf_facts *facts, struct err *e);
/* All keys of a GGUF made from another one: its own, but for what speaks of types, splits and alignment. */
bool gguf_export_copied_keys(struct gguf_keys **out, const struct gguf *src, const struct gguf_facts *facts,
                             struct err *e);
/* The other way: DIR holds a tokenizer made of the metadata of g; what config.json (c) and it cannot express
 * of them goes into GGUF_CARRIED (carried.h). vocab: rows of the embedding. */
bool gguf_write_carried(const struct gguf *g, const char *dir, const struct model_config *c, uint32_t vocab,
                        struct err *e);
/* True for keys that say how tensors are stored: they belong to one file and are never carried. */
bool gguf_key_of_storage(struct gguf_string key);
/* rope_freqs.weight: what the frequency of each pair is divided by, [head_dim / 2]. llama3 scaling, or a
 * factor for each pair. */
void gguf_rope_freqs(const struct model_config *c, float *out);

#endif
