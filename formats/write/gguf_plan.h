/* A GGUF planned: its tensors and keys. */
#ifndef FORMATS_GGUF_PLAN_H
#define FORMATS_GGUF_PLAN_H

#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_names.h"
#include "formats/write/export.h"
#include "host/base/str.h"

/* The largest number of that type. */
#define F16_MOST 65504.0f

struct gguf_entry {
    char name[64];   /* in the GGUF */
    char module[96]; /* Hugging Face, "" for rope_freqs */
    char holder[96]; /* the module that holds it in the model: itself, but of kv_b's two matrices */
    bool bias;
    bool whole; /* module is a tensor's whole name: a vector of the router's */
    uint32_t n_dims, rows, cols;
    uint32_t row0; /* of the module: not 0 where it is two tensors, and this the second */
    const struct gguf_type *type;
    const struct matrix *item; /* of a weight that has a type: of its first expert */
    uint32_t experts;          /* whose matrices lie one behind the other; 0: it is one matrix, or a vector */
    uint32_t apart; /* its rows are so many matrices, one behind the other: of latent attention's heads; 0: one */
    uint32_t heads; /* whose rows are permuted; 0: none */
    uint64_t bytes;
};

struct gguf_plan {
    const struct checkpoint *src;
    struct export_options options;
    const struct matrix *items;
    size_t n_items, listed; /* the next that is to be an entry */
    size_t left_out;        /* tensors that are not of the text part */
    struct gguf_entry *entries;
    size_t n, cap;
    struct gguf_tensor_plan *tensors; /* [n] */
    struct gguf_keys *keys;
    uint64_t work; /* of all tensors, as export_source.progress counts it */
    struct err *e;
};

/* The i-th matrix of an entry: its item, or that of its i-th expert. */
static inline const struct matrix *gguf_entry_item(const struct gguf_entry *x, uint32_t i)
{
    return x->item ? x->item + (size_t)i * EXPERT_MATRICES : NULL;
}
static inline uint32_t gguf_entry_matrices(const struct gguf_entry *x)
{
    return x->experts ? x->experts : 1;
}

/* export.h's plan of a GGUF. list: every 2-D weight of the model (checkpoint_matrices) with its type; norms, biases and other
 * vectors are F32. */
bool gguf_plan_make(struct gguf_plan **out, const struct checkpoint *src, const struct matrix *list, size_t n,
                    const struct export_options *o, struct err *e);
/* Makes the keys, without a warning, and looks for values that F16 cannot hold where that is a weight's type. */
bool gguf_plan_size(struct gguf_plan *p, uint64_t *bytes, struct err *e);
void gguf_plan_free(struct gguf_plan **p);
/* The keys, as the files beside the weights have them now. quiet: without a warning. */
bool gguf_plan_keys(struct gguf_plan *p, bool quiet, struct err *e);
/* ERR_USER: a value of that module that F16 cannot hold. */
bool gguf_too_large(const struct checkpoint *src, const char *module, float v, struct err *e);

#endif
