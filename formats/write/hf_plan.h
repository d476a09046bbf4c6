/* A folder planned: its tensors, shards and JSON files. */
#ifndef FORMATS_HF_PLAN_H
#define FORMATS_HF_PLAN_H

#include "formats/hf/expert_stack.h"
#include "formats/write/export.h"
#include "host/base/str.h"

enum entry_kind {
    ENTRY_COPY,    /* a tensor as it is */
    ENTRY_CONVERT, /* an F32 tensor, in 16 bits */
    ENTRY_DENSE,   /* a packed module of the source that is no item: its values, in 16 bits */
    ENTRY_LINEAR,  /* an item */
    ENTRY_EXPERTS, /* items that are a part of each expert of a layer: each of their tensors has all of them */
    ENTRY_STACK,   /* what is no item of each expert of a layer: values of weights, or biases, in one tensor */
};
struct export_entry {
    enum entry_kind kind;
    const struct tensor *tensor;      /* COPY, CONVERT */
    char *module;                     /* DENSE; EXPERTS and STACK: name in the file */
    bool exact;                       /* DENSE, STACK: values of a float type that it keeps */
    size_t item;                      /* LINEAR */
    const struct expert_stack *stack; /* EXPERTS, STACK */
    uint32_t layer;
    bool biases;     /* STACK */
    size_t *items;   /* EXPERTS, by expert */
    size_t first, n; /* tensors of the plan */
    uint64_t bytes;
};
struct export_shard {
    size_t first, n; /* entries */
    char name[48];
    uint64_t bytes; /* of the file, header included */
};
struct hf_plan {
    const struct checkpoint *src;
    struct export_options options;
    struct matrix *items; /* those that are coded */
    size_t n_items;
    struct export_entry *entries;
    size_t n_entries, cap_entries;
    struct tensor_plan *tensors; /* names owned */
    size_t n_tensors, cap_tensors;
    struct export_shard *shards;
    size_t n_shards;
    char **dense; /* 2-D weights that stay in 16 bits, embeddings aside */
    size_t n_dense, cap_dense;
    enum dtype dtype;                 /* of the model: F16 or BF16 */
    bool exact;                       /* EXPORT_HF: floats keep their type */
    uint64_t data_bytes;              /* all tensors */
    const char *const (*metadata)[2]; /* of the safetensors files */
    size_t n_metadata;
    const char *(*metadata_own)[2];
    struct strbuf config, quantize_config, index; /* texts; empty: not written */
    uint64_t bytes;                               /* of the folder */
};
/* export.h's plan of a folder. Of the list the coded ones are stored quantized; every other tensor of the source is copied in
 * 16 bits. src may itself be quantized (convert): its codes are then re-packed. */
bool hf_plan_make(struct hf_plan **out, const struct checkpoint *src, const struct matrix *list, size_t n,
                  const struct export_options *o, struct err *e);
uint64_t hf_plan_bytes(const struct hf_plan *p);
void hf_plan_free(struct hf_plan **p);
/* The scale type a run should round to: fp16 for GPTQ; the model's 16-bit dtype elsewhere (F32 models: fp16). */
enum scale_type export_scale_type(enum export_format f, const struct checkpoint *src);

#endif
