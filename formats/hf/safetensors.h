/* safetensors files: a strict reader over a mapped file, single or sharded, and a streaming writer. */
#ifndef FORMATS_SAFETENSORS_H
#define FORMATS_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"
#include "host/base/num.h"
#include "host/base/os.h"

enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_F64,
    DTYPE_I8,
    DTYPE_U8,
    DTYPE_I16,
    DTYPE_U16,
    DTYPE_I32,
    DTYPE_U32,
    DTYPE_I64,
    DTYPE_U64,
    DTYPE_BOOL,
    DTYPE_F8_E4M3, /* these four are carried along, never computed with */
    DTYPE_F8_E5M2,
    DTYPE_F8_E8M0,
    DTYPE_C64,
    DTYPE_OTHER /* known to exist, unreadable here: F4, whose elements are no whole bytes ... */
};
const char *dtype_name(enum dtype t); /* "F32" */
size_t dtype_size(enum dtype t);      /* bytes; 0 for DTYPE_OTHER */

#define TENSOR_MAX_DIMS 8
struct tensor {
    const char *name;
    enum dtype dtype;
    uint32_t n_dims;
    uint64_t shape[TENSOR_MAX_DIMS];
    const uint8_t *data; /* inside the mapped file, any alignment */
    uint64_t bytes;
    uint32_t file;         /* index of the shard */
    char stored_dtype[16]; /* as the file spells it, "F4": for messages about DTYPE_OTHER */
};

/* A growing table of tensors, hashed by name. Opaque here so that the fuzz target can drive it. */
struct tensor_table;
bool tensor_table_create(struct tensor_table **out, struct err *e);
void tensor_table_destroy(struct tensor_table **t);
size_t tensor_table_count(const struct tensor_table *t);
const struct tensor *tensor_table_at(const struct tensor_table *t, size_t i);
const struct tensor *tensor_table_find(const struct tensor_table *t, const char *name);

/* Header of one file. `header` is the JSON text alone, data_size the bytes that follow it in the file, data
 * their address (may be NULL when fuzzing). Checks everything docs/formats.md 6 asks: offsets inside, no overlap,
 * no holes, shape product * size == length, no duplicate names (within the file or with files before). Appends
 * to the table, by offset; after a failure the table is only good for tensor_table_destroy. */
bool safetensors_parse_header(struct tensor_table *t, const char *header, size_t size, const uint8_t *data,
                              uint64_t data_size, uint32_t file, const char *path, struct err *e);

/* model.safetensors.index.json: which file holds which tensor. File names are plain names: no folders. */
struct safetensors_index {
    char **files; /* sorted, each once */
    size_t n_files;
    struct safetensors_index_entry {
        char *name;
        uint32_t file;
    } * entries; /* in the order of the file */
    size_t n_entries;
};
bool safetensors_index_parse(struct safetensors_index *out, const char *text, size_t size, const char *path,
                             struct err *e);
void safetensors_index_free(struct safetensors_index *x);

/* All tensors of a model folder: model.safetensors.index.json with its shards, else model.safetensors, else all of
 * model-00001-of-0000N.safetensors. Files stay mapped. */
struct safetensors;
bool safetensors_open_dir(struct safetensors **out, const char *dir, struct err *e);
/* One file. */
bool safetensors_open_file(struct safetensors **out, const char *path, struct err *e);
void safetensors_close(struct safetensors **s);
/* A part of a tensor under a name of its own, for safetensors_find: in no list, and in use until s is closed. ERR_BUG: the name is taken. */
bool safetensors_add_view(struct safetensors *s, const struct tensor *view, struct err *e);
/* NULL if there is none. Hashed: O(1). */
const struct tensor *safetensors_find(const struct safetensors *s, const char *name);
size_t safetensors_count(const struct safetensors *s);
const struct tensor *safetensors_at(const struct safetensors *s, size_t i); /* by file, then by offset */
/* Value of a __metadata__ key of the first file; NULL if absent. */
const char *safetensors_metadata(const struct safetensors *s, const char *key);
/* Path of the file a tensor lives in (messages), and a hint that its pages will not be needed soon. */
const char *safetensors_path(const struct safetensors *s, const struct tensor *t);
void safetensors_drop(const struct safetensors *s, const struct tensor *t);
/* Reads the first file whole and compares it with the checksum that it holds of itself; every bit counts. False: it is
 * damaged, or holds none (ERR_ENV). *data (may be NULL): hash of the tensors' bytes alone. */
bool safetensors_verify(const struct safetensors *s, struct hash128 *data, struct err *e);

/* ---- writing: the header is known first, then the data follows tensor by tensor in the same order ---- */
struct tensor_plan {
    const char *name;
    enum dtype dtype;
    uint32_t n_dims;
    uint64_t shape[TENSOR_MAX_DIMS];
};
struct safetensors_writer;
/* As metadata[0], this pair makes the file hold a checksum of itself (safetensors_verify): XXH3 of the header, with this
 * value in the checksum's place, seeded with the hash of the data. */
#define SAFETENSORS_CHECKSUM   "xxh3"
#define SAFETENSORS_NO_SUM_YET "00000000000000000000000000000000"
/* Writes PATH.tmp; metadata: n pairs key, value. Header padded with spaces so that data starts 8-aligned. */
bool safetensors_writer_open(struct safetensors_writer **out, const char *path, const struct tensor_plan *plan,
                             size_t n, const char *const (*metadata)[2], size_t n_metadata, struct err *e);
/* The next bytes of the data section, in plan order; may be called many times per tensor. A full disk is
 * ERR_ENV. */
bool safetensors_writer_put(struct safetensors_writer *w, const void *data, size_t size, struct err *e);
/* The next `size` bytes are left to safetensors_writer_put_at, which puts each of them once, in any order: *at is where they begin.
 * Not in files with a checksum. */
bool safetensors_writer_leave(struct safetensors_writer *w, uint64_t size, uint64_t *at, struct err *e);
bool safetensors_writer_put_at(struct safetensors_writer *w, uint64_t at, const void *data, size_t size, struct err *e);
/* Checks that all planned bytes came, flushes, renames to PATH. Frees w in every case. */
bool safetensors_writer_close(struct safetensors_writer **w, struct err *e);
/* Drops the temporary file. */
void safetensors_writer_abort(struct safetensors_writer **w);

#endif
