/* What a model is written as: a folder of Hugging Face's or a GGUF. Planned once, before any work; written from that plan. */
#ifndef FORMATS_EXPORT_H
#define FORMATS_EXPORT_H

#include "formats/matrix.h"
#include "formats/read/checkpoint_in.h"

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
    /* Codes of a coded matrix, rows in Hugging Face order; called once for each, in file order. The writer frees q. */
    bool (*linear)(void *ctx, const struct matrix *x, struct qlinear *q, struct err *e);
    /* Done of total; called several times a second, always on the calling thread. Units go with time: of a folder bytes, of a
     * GGUF weights, each times what its rounding costs (gguf_round_cost; 1 where codes are packed). False stops
     * (ERR_STOPPED). May be NULL. */
    bool (*progress)(void *ctx, uint64_t done, uint64_t total);
    /* Of a GGUF: importance[cols] for rounding a matrix (the Hessian's diagonal); NULL result or NULL function: all 1. */
    const float *(*importance)(void *ctx, const struct matrix *x);
};

/* All that is found out about an output before its first byte: each tensor, its place, its type. What texts of the options
 * say is read again as it is written: the run is known later. */
struct export_plan;
/* list: every 2-D weight of the model, with what becomes of it (matrix.h); of a folder at least those that are coded. Every
 * refusal that waits neither for codes nor for values is made here. src, the list
 * and what the options point to outlive the plan. */
bool export_plan_make(struct export_plan **out, const struct checkpoint *src, const struct matrix *list, size_t n,
                      const struct export_options *o, struct err *e);
/* Before hours of work: bytes of the output, and what writing would find at the end of them (texts that cannot be read, values
 * that F16 cannot hold). */
bool export_plan_size(struct export_plan *p, uint64_t *bytes, struct err *e);
/* Whether it may be written there (preflight; export_plan_write checks again): refuses the source itself under any path, links,
 * and what gsq did not write, unless `force`. Creates nothing. */
bool export_check_out(enum export_format f, const char *out, const struct checkpoint *src, bool force, struct err *e);
/* Writes it. The place, the room on the disk and the files beside the weights are looked at again: they may be others by now.
 * Files appear under their final name only when whole. Same input, same bytes. */
bool export_plan_write(struct export_plan *p, const char *out, const struct export_source *source, struct err *e);
void export_plan_free(struct export_plan **p);

#endif
