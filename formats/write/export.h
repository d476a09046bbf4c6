/* What a model is written as: a folder of Hugging Face's or a GGUF (export_plan.h). */
#ifndef FORMATS_EXPORT_H
#define FORMATS_EXPORT_H

#include "formats/read/matrix.h"
#include "formats/read/checkpoint_in.h"

/* Packed folders, then the file, then what only a conversion writes. */
enum export_format {
    EXPORT_GPTQ,
    EXPORT_GPTQ_V2,
    EXPORT_COMPRESSED_TENSORS,
    EXPORT_MLX,
    EXPORT_HUMMING,
    EXPORT_GGUF, /* a file */
    EXPORT_HF,   /* a folder of plain weights */
    EXPORT_NONE
};
/* "gptq" ... "gguf", "hf"; EXPORT_NONE if there is none of that name. */
enum export_format export_format_parse(const char *name);
const char *export_format_name(enum export_format f);
/* Whether it is a folder whose linears are packed codes. */
bool export_is_packed(enum export_format f);
/* Whether its scales may be bf16, as the model's own 16-bit tensors then are; whether it says what type they have, so that a
 * conversion cannot leave them as they are. */
bool export_has_bf16_scales(enum export_format f);
bool export_sets_scales(enum export_format f);
/* "gptq, gptq_v2, ... hf" into out; returns out. */
const char *export_format_names(char *out, size_t cap);

struct export_options {
    enum export_format format;
    const char *const (*metadata)[2]; /* extra facts, n pairs: quantization_config.meta, keys of a GGUF; may be NULL */
    size_t n_metadata;
    bool force; /* write over a model that gsq did not write */
    /* Of a folder. */
    unsigned container;   /* 0: native bits */
    uint64_t shard_bytes; /* 0: 5e9 less a margin (5 GB) */
    const char *run;      /* hash of what was asked for, 32 digits, into the safetensors' metadata; may be NULL */
    /* Of a GGUF. */
    int file_type;                         /* general.file_type; -1: found from the types (the commonest) */
    const struct gguf_override *overrides; /* may be NULL */
    size_t n_overrides;
};
/* Where the codes come from. */
struct export_source {
    void *ctx;
    /* Codes of a coded matrix, rows in Hugging Face order; called in file order, once for each, or once for each tensor where a GGUF
     * has two of it. The writer frees q. */
    bool (*linear)(void *ctx, const struct matrix *x, struct qlinear *q, struct err *e);
    /* Done of total; called several times a second, always on the calling thread. Units go with time: of a folder bytes, of a
     * GGUF weights, each times what its rounding costs (gguf_round_cost; 1 where codes are packed). False stops
     * (ERR_STOPPED). May be NULL. */
    bool (*progress)(void *ctx, uint64_t done, uint64_t total);
    /* Of a GGUF: importance[cols] for rounding a matrix (the Hessian's diagonal); NULL result or NULL function: all 1. */
    const float *(*importance)(void *ctx, const struct matrix *x);
};

#endif
