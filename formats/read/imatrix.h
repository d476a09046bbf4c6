/* Importance matrices in llama.cpp's GGUF form: sums of squares of every linear's inputs over a text
 * (docs/formats.md 9). Modules carry Hugging Face names here, GGUF names in the file. */
#ifndef FORMATS_IMATRIX_H
#define FORMATS_IMATRIX_H

#include "formats/read/checkpoint_in.h"
#include "host/base/str.h"

/* The inputs of one weight [rows, cols]. */
struct imatrix_entry {
    char *module;
    uint32_t cols;
    double count; /* tokens summed over; 0 of an expert that no token chose, until it is read */
    float *sums;  /* [cols] of squares */
};
struct imatrix {
    const struct model_config *config; /* of the model, which outlives this */
    struct imatrix_entry *entries;     /* those of a layer's experts ascending, for each of gate, up and down */
    size_t n, cap;
    struct strmap by_module;
    uint32_t chunks, chunk_size; /* windows, and tokens in each; 0: the file does not say */
    char *dataset;               /* the text's name; NULL: unknown */
};

/* Room for one more entry, sums zeroed. */
bool imatrix_add(struct imatrix *m, const char *module, uint32_t cols, double count, float **sums, struct err *e);
void imatrix_free(struct imatrix *m);
/* NULL: it has nothing on that module. */
const struct imatrix_entry *imatrix_find(const struct imatrix *m, const char *module);

/* Reads PATH for this model. Strict: a GGUF of type "imatrix" whose tensors come in pairs, belong to weights
 * of this model and have their width; sums neither negative nor NaN, no mean above 1e30, counts above 0. What
 * the file lacks is the caller's to judge. The older .dat form and splits are refused. ERR_USER, naming file,
 * tensor and remedy. Experts lie in one tensor of a row for each; one that no token chose gets the sums of all of its layer's.
 * Sums of latent attention's kv_b, by heads, are passed over. A tied model's one matrix may be called output or token_embd; it is found by
 * checkpoint_head_module. */
bool imatrix_read(struct imatrix *m, const char *path, const struct checkpoint *ck, struct err *e);
/* The same for bytes in memory. */
bool imatrix_parse(struct imatrix *m, const uint8_t *bytes, size_t size, const char *path, const struct checkpoint *ck,
                   struct err *e);
/* Only weights whose name in a GGUF ("blk.0.attn_v.weight") holds one of n texts, or with skip all others, keep their
 * importance; elsewhere it is all 1. ERR_USER for a text that is in no name. */
bool imatrix_limit(struct imatrix *m, const char *const *names, size_t n, bool skip, struct err *e);
/* What llama-quantize --imatrix takes: NAME.in_sum2 f32 [cols, 1] and NAME.counts f32 [1, 1] per entry, by
 * name; of experts [cols, E] and [1, E]. */
bool imatrix_write(const struct imatrix *m, const char *path, struct err *e);

#endif
