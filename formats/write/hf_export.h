/* Inside write_hf: the layout of a linear in each format, the plan of a folder, and its JSON files. */
#ifndef FORMATS_HF_EXPORT_H
#define FORMATS_HF_EXPORT_H

#include <cjson/cJSON.h>

#include "formats/write/write_hf.h"
#include "host/base/str.h"

/* ---- one linear (hf_export_linear.c) ---- */

#define LINEAR_TENSORS 4 /* at most */
struct linear_tensor {
    const char *suffix; /* ".qweight" */
    enum dtype dtype;
    uint32_t n_dims;
    uint64_t shape[2], bytes;
};
/* The tensors that an item becomes, in file order; returns how many. */
unsigned linear_layout(enum export_format f, unsigned container, const struct matrix *item,
                       struct linear_tensor out[LINEAR_TENSORS]);
/* Tensor number `which` of the layout into dst (out[which].bytes, aligned to 8). `rounded` counts the scales
 * that the stored type does not hold exactly; one that overflows it is ERR_USER. */
bool linear_encode(enum export_format f, unsigned container, const struct matrix *item, const struct qlinear *q,
                   unsigned which, void *dst, uint64_t *rounded, struct err *e);
/* Bits of a stored code. */
unsigned storage_bits(enum export_format f, unsigned container, const struct quant_spec *spec);

/* ---- quantization_config (hf_quant_config.c) ---- */

struct quant_config_facts {
    const struct export_options *options;
    const struct matrix *items;
    size_t n_items;
    const char *const *dense; /* linears that stay in 16 bits, "lm_head" included where it is stored */
    size_t n_dense;
};
/* The quantization_config of config.json. NULL when out of memory. */
cJSON *quant_config_json(const struct quant_config_facts *facts);
/* Two spaces of indentation, a newline at the end. */
void json_print(struct strbuf *b, const cJSON *item);

/* ---- the folder (hf_export_plan.c) ---- */

enum entry_kind {
    ENTRY_COPY,    /* a tensor as it is */
    ENTRY_CONVERT, /* an F32 tensor, in 16 bits */
    ENTRY_DENSE,   /* a packed module of the source that is no item: its values, in 16 bits */
    ENTRY_LINEAR,  /* an item */
};
struct export_entry {
    enum entry_kind kind;
    const struct tensor *tensor; /* COPY, CONVERT */
    char *module;                /* DENSE */
    bool exact;                  /* DENSE: values of a float type that it keeps */
    size_t item;                 /* LINEAR */
    size_t first, n;             /* tensors of the plan */
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
/* Files carried over byte for byte: tokenizer, chat templates, generation settings. name: as it is from the folder. */
bool export_carries(const char *name);
/* Of these, what os_list does not come to: "additional_chat_templates/NAME.jinja", in sorted order. */
#define EXPORT_TEMPLATES "additional_chat_templates"
bool export_list_templates(const char *dir, bool (*fn)(void *ctx, const char *name, struct err *e), void *ctx,
                           struct err *e);
/* Before the work: whether each of these in DIR is a regular file (side_file_there). True where DIR is no folder. */
bool export_check_carried(const char *dir, struct err *e);

#endif
