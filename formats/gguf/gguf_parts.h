/* What the GGUF reader and writer share: a cursor over bytes, sets of keys, shapes. Not for others. */
#ifndef FORMATS_GGUF_PARTS_H
#define FORMATS_GGUF_PARTS_H

#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_type.h"
#include "host/base/str.h"

#define GGUF_MAX_NAME  63u        /* bytes of a tensor's name */
#define GGUF_MAX_COUNT (1u << 24) /* keys, tensors: ours; the largest models have a few thousand */
#define GGUF_BROKEN    "download the file again; if that does not help, the program that wrote it is at fault"

struct gguf_cursor {
    const uint8_t *bytes;
    uint64_t size, at; /* at <= size */
    const char *path;
};
/* Bytes of a number; 0 for strings and arrays. */
uint32_t gguf_value_size(enum gguf_value t);

/* `what` is what the bytes belong to: "PATH ends within WHAT". */
bool gguf_read_u32(struct gguf_cursor *c, uint32_t *out, const char *what, struct err *e);
bool gguf_read_u64(struct gguf_cursor *c, uint64_t *out, const char *what, struct err *e);
bool gguf_read_string(struct gguf_cursor *c, struct gguf_string *out, const char *what, struct err *e);

/* Whether a name can be shown and be a C string: UTF-8 without control characters. */
bool gguf_plain_name(struct gguf_string s);

struct gguf_keyset {
    struct gguf_kv *items;
    size_t n;
    struct strmap map;
};
/* n keys from the cursor on; n was checked against GGUF_MAX_COUNT and the size. To be freed in any case. */
bool gguf_keyset_read(struct gguf_keyset *s, struct gguf_cursor *c, uint64_t n, struct err *e);
void gguf_keyset_free(struct gguf_keyset *s);
const struct gguf_keyset *gguf_keyset_of(const struct gguf *g); /* of the first part */
const struct gguf_kv *gguf_keyset_find(const struct gguf_keyset *s, const char *key);
/* As gguf_get_u64. path: for messages. */
enum gguf_got gguf_keyset_u64(const struct gguf_keyset *s, const char *path, const char *key, uint64_t *out,
                              struct err *e);
/* general.alignment, or 32. */
bool gguf_keyset_alignment(const struct gguf_keyset *s, const char *path, uint32_t *out, struct err *e);

/* Bytes of a tensor without padding. NULL, or what is wrong with the shape. t NULL (unknown type): the
 * dimensions alone are checked and *bytes is 0. */
const char *gguf_shape_bytes(uint32_t n_dims, const uint64_t *ne, const struct gguf_type *t, uint64_t *bytes);

/* Keys as they will lie in the file. */
const struct strbuf *gguf_keys_bytes(const struct gguf_keys *k);

#endif
