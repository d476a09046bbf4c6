/* Writes a complete Hugging Face folder in one of the export formats, from codes and scales. */
#ifndef FORMATS_WRITE_HF_H
#define FORMATS_WRITE_HF_H

#include "formats/read/checkpoint_in.h"

/* Those below EXPORT_NONE are quantized folders, written here; EXPORT_GGUF is a file, written by write_gguf.h,
 * EXPORT_HF a folder of plain weights. */
enum export_format {
    EXPORT_GPTQ,
    EXPORT_GPTQ_V2,
    EXPORT_COMPRESSED_TENSORS,
    EXPORT_MLX,
    EXPORT_HUMMING,
    EXPORT_NONE,
    EXPORT_GGUF,
    EXPORT_HF
};
/* "gptq" ... "gguf", "hf"; EXPORT_NONE if there is none of that name. */
enum export_format export_format_parse(const char *name);
const char *export_format_name(enum export_format f);

/* One linear to be stored quantized; every other tensor of the source is copied in 16 bits. */
struct export_item {
    const char *module;
    uint32_t rows, cols;
    struct quant_spec spec;
};

enum export_verdict { EXPORT_OK, EXPORT_WARN, EXPORT_REFUSED };
/* Whether the format can hold such a linear, and in `why` a sentence (a refusal, "; " and the remedy of who quantizes; or a
 * warning that names who will not load it). container: 0, or the bits of the storage container (--container 4, compressed-tensors). */
enum export_verdict export_check(enum export_format f, const struct export_item *item, unsigned container, char *why,
                                 size_t cap);
/* The scale type a run should round to: fp16 for GPTQ; the model's 16-bit dtype elsewhere (F32 models: fp16). */
enum scale_type export_scale_type(enum export_format f, const struct checkpoint *src);

/* The largest number that is stored with a scale, as a multiple of it: MLX stores each group's lowest level too. */
float export_scale_levels(enum export_format f, const struct quant_spec *spec);

struct export_options {
    enum export_format format;
    unsigned container;               /* 0: native bits */
    uint64_t shard_bytes;             /* 0: 5e9 less a margin (5 GB) */
    const char *const (*metadata)[2]; /* extra facts for quantization_config.meta, n pairs; may be NULL */
    size_t n_metadata;
    bool force;      /* write over a model that gsq did not write */
    const char *run; /* hash of what was asked for, into the safetensors' metadata; may be NULL */
};
/* Where the codes come from: called once per item, in file order. The writer frees q. */
struct export_source {
    void *ctx;
    bool (*linear)(void *ctx, const struct export_item *item, struct qlinear *q, struct err *e);
    /* Progress in bytes written; false stops (ERR_STOPPED). May be NULL. */
    bool (*progress)(void *ctx, uint64_t done, uint64_t total);
};
/* Bytes that the folder will take (preflight); 0 if it cannot be written, and why: it asks all that write_hf asks before
 * its first byte. */
uint64_t export_size(const struct checkpoint *src, const struct export_item *items, size_t n,
                     const struct export_options *o, struct err *e);
/* Whether write_hf may write into this folder (preflight; it checks again itself): refuses the source's own folder under
 * any path, links, and one that holds a model which gsq did not write, unless `force`. Creates nothing. */
bool export_check_folder(const char *out_dir, const struct checkpoint *src, bool force, struct err *e);
/* Writes everything below out_dir (created; an earlier export of ours is replaced): shards with an index where needed, config.json with quantization_config
 * (quantize_config.json too for gptq), tokenizer and generation files carried over. Files appear under their final name
 * only when whole; config.json comes last. Same input, same bytes: nothing depends on time or addresses.
 * src may itself be quantized (convert): its items are then re-packed. */
bool write_hf(const char *out_dir, const struct checkpoint *src, const struct export_item *items, size_t n,
              const struct export_options *o, const struct export_source *source, struct err *e);
/* The run that a complete folder is of, by export_options.run; false: none, or not complete. */
bool export_run(const char *out_dir, char run[33]);

#endif
