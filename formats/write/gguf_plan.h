/* Inside write_gguf: the plan of a file's tensors and keys (gguf_plan.c). */
#ifndef FORMATS_GGUF_PLAN_H
#define FORMATS_GGUF_PLAN_H

#include "formats/write/write_gguf.h"
#include "host/base/str.h"

/* The largest number of that type. */
#define F16_MOST 65504.0f

struct gguf_entry {
    char name[64];   /* in the GGUF */
    char module[96]; /* Hugging Face, "" for rope_freqs */
    bool bias;
    uint32_t n_dims, rows, cols;
    const struct gguf_type *type;
    const struct matrix *item; /* 2-D weights */
    uint32_t heads;            /* whose rows are permuted; 0: none */
    uint64_t bytes;
};

struct gguf_plan {
    const struct checkpoint *src;
    struct export_options options;
    const struct matrix *items;
    size_t n_items, listed; /* of them are entries already */
    struct gguf_entry *entries;
    size_t n, cap;
    struct gguf_tensor_plan *tensors; /* [n] */
    struct gguf_keys *keys;
    uint64_t work; /* of all tensors, as export_source.progress counts it */
    struct err *e;
};

/* The keys, as the files beside the weights have them now. quiet: without a warning. */
bool gguf_plan_keys(struct gguf_plan *p, bool quiet, struct err *e);
/* ERR_USER: a value of that module that F16 cannot hold. */
bool gguf_too_large(const struct checkpoint *src, const char *module, float v, struct err *e);

#endif
