/* GGUF files: a strict reader over mapped files (versions 2 and 3, single or split), and a streaming writer
 * (version 3). docs/formats.md 7. Nothing here knows what a tensor is for. */
#ifndef FORMATS_GGUF_H
#define FORMATS_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"

/* Types of values, numbered as in the file. */
enum gguf_value {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_VALUE_COUNT
};

/* Not NUL-terminated, any bytes. */
struct gguf_string {
    const char *text;
    size_t size;
};

/* A key and its value, in place in the mapped file. */
struct gguf_kv {
    struct gguf_string key;
    enum gguf_value type;    /* GGUF_ARRAY: of `element` */
    enum gguf_value element; /* never GGUF_ARRAY */
    uint64_t n;              /* elements of an array; else 1 */
    const uint8_t *data;     /* the value as stored, little endian, any alignment; strings with their lengths */
    uint64_t bytes;          /* of data */
};

struct gguf_tensor {
    const char *name; /* NUL-terminated */
    uint32_t n_dims;
    uint64_t ne[4];      /* input dimension first; 1 beyond n_dims */
    uint32_t type;       /* ggml's number (gguf_type.h); unknown ones are refused only when read */
    const uint8_t *data; /* inside the mapped file */
    uint64_t bytes;      /* without padding; of an unknown type: up to the next tensor or the end of the file */
    uint32_t file;       /* which part of a split file */
};

struct gguf;
/* Opens PATH; of a split file (split.count above 1) any part may be named, the others lie beside it.
 * Everything is checked before it returns: magic, version, counts against the size of the file, keys (not
 * empty, unique), values, no nested arrays, tensor names (1..63 bytes, unique), dimensions (at most 4, none
 * 0, product below 2^63, ne[0] % block == 0), offsets (exactly cumulative, padded to the alignment, inside
 * the file; the last tensor may lack its padding, what follows it is ignored), alignment (a power of two from 8 to
  * 65536). Keys
 * and names are UTF-8 without control characters. ERR_USER, one sentence naming the file, the thing and the
 * remedy. */
bool gguf_open(struct gguf **out, const char *path, struct err *e);
/* The same for bytes in memory (fuzzing, tests), which stay the caller's. Splits are refused. */
bool gguf_parse(struct gguf **out, const uint8_t *bytes, size_t size, const char *path, struct err *e);
void gguf_close(struct gguf **g);

/* Keys of the first part, in file order; the split.* keys are among them. */
size_t gguf_kv_count(const struct gguf *g);
const struct gguf_kv *gguf_kv_at(const struct gguf *g, size_t i);
const struct gguf_kv *gguf_find(const struct gguf *g, const char *key); /* hashed; NULL: absent */
size_t gguf_tensor_count(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i); /* by part, then by offset */
const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name);
/* File of a tensor (messages; NULL: the first part), and a hint that its pages will not be needed soon. */
const char *gguf_path(const struct gguf *g, const struct gguf_tensor *t);
void gguf_drop(const struct gguf *g, const struct gguf_tensor *t);
/* The same for `bytes` of it from offset `at` on. */
void gguf_drop_part(const struct gguf *g, const struct gguf_tensor *t, uint64_t at, uint64_t bytes);
uint32_t gguf_version(const struct gguf *g);
uint32_t gguf_alignment(const struct gguf *g);
/* Where the data section of a tensor's part (NULL: the first) begins in its file: all before it is header. */
uint64_t gguf_data_offset(const struct gguf *g, const struct gguf_tensor *t);

/* Values with a check of type and range: GGUF_ABSENT sets no error, GGUF_BAD is ERR_USER naming file and key.
 * Any integer type will do for gguf_get_u64 (not negative), any finite float or integer for gguf_get_f64. */
enum gguf_got { GGUF_OK, GGUF_ABSENT, GGUF_BAD };
enum gguf_got gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct err *e);
enum gguf_got gguf_get_f64(const struct gguf *g, const char *key, double *out, struct err *e);
enum gguf_got gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *e);
enum gguf_got gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out, struct err *e);
/* A string that messages may show: UTF-8 without control characters, else GGUF_BAD. */
enum gguf_got gguf_get_name(const struct gguf *g, const char *key, struct gguf_string *out, struct err *e);
/* Arrays of strings are walked: *at starts as kv->data and moves on; call at most kv->n times. */
struct gguf_string gguf_next_string(const uint8_t **at);
/* Element i of an array of numbers (or of a plain number: i = 0), as double and as int64 (toward zero, held
 * at int64's ends). 0 past the end and for strings. */
double gguf_number(const struct gguf_kv *kv, uint64_t i);
int64_t gguf_integer(const struct gguf_kv *kv, uint64_t i);

/* ---- writing: keys and tensors are known first, then the data follows in the same order ---- */

/* A list of keys and values that grows; a failure (out of memory) is remembered and reported by
 * gguf_writer_open. */
struct gguf_keys;
struct gguf_keys *gguf_keys_create(void);
void gguf_keys_destroy(struct gguf_keys **k);
void gguf_add_u32(struct gguf_keys *k, const char *key, uint32_t v);
void gguf_add_u64(struct gguf_keys *k, const char *key, uint64_t v);
void gguf_add_f32(struct gguf_keys *k, const char *key, float v);
void gguf_add_bool(struct gguf_keys *k, const char *key, bool v);
void gguf_add_string(struct gguf_keys *k, const char *key, const char *text, size_t size);
/* n numbers of an element type as they lie in memory (little endian). */
void gguf_add_array(struct gguf_keys *k, const char *key, enum gguf_value element, const void *values, uint64_t n);
void gguf_add_strings(struct gguf_keys *k, const char *key, const struct gguf_string *list, uint64_t n);
/* A key as another file has it. */
void gguf_add_kv(struct gguf_keys *k, const struct gguf_kv *kv);
/* Takes a key out, where it is among them. */
bool gguf_keys_remove(struct gguf_keys **k, const char *key, struct err *e);

struct gguf_tensor_plan {
    const char *name;
    uint32_t n_dims;
    uint64_t ne[4];
    uint32_t type;
};
/* Adds the last key, by which gsq knows the file as its own as long as its header stays what it is. It belongs to
 * one file and is never copied. */
#define GGUF_SEAL "gsq.seal"
/* Which run made the file: a hash of what was asked for. A file converted to other types still names it. */
#define GGUF_RUN "gsq.run"
void gguf_keys_seal(struct gguf_keys *k, const struct gguf_tensor_plan *plan, size_t n);
bool gguf_sealed(const struct gguf *g);
/* Whether there is such a file. */
bool gguf_is_ours(const char *path);
/* The run that a file of ours is of; false: none. */
bool gguf_run(const char *path, char run[33]);
/* Bytes of the file. 0: gguf_writer_open will say why not. */
uint64_t gguf_file_bytes(const struct gguf_keys *k, const struct gguf_tensor_plan *plan, size_t n);
struct gguf_writer;
/* Writes beside PATH. Alignment 32, or general.alignment among the keys. What no reader takes (a key or name
 * twice, an unknown type, ne[0] % block) is ERR_BUG. */
bool gguf_writer_open(struct gguf_writer **out, const char *path, const struct gguf_keys *keys,
                      const struct gguf_tensor_plan *plan, size_t n, struct err *e);
/* The next bytes of tensor data, in plan order, without padding (the writer pads); many calls per tensor are
 * fine. */
bool gguf_writer_put(struct gguf_writer *w, const void *data, size_t size, struct err *e);
/* Checks that all bytes came, flushes, renames to PATH. Frees w in every case. */
bool gguf_writer_close(struct gguf_writer **w, struct err *e);
void gguf_writer_abort(struct gguf_writer **w);

#endif
