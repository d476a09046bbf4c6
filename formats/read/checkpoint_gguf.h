/* A GGUF as a model: its metadata as a config, its tensors under Hugging Face names, rows in Hugging Face
 * order. */
#ifndef FORMATS_CHECKPOINT_GGUF_H
#define FORMATS_CHECKPOINT_GGUF_H

#include "formats/read/checkpoint_in.h"
#include "formats/gguf/gguf.h"

struct gguf_model;
/* Opens PATH and fills *config (freed by hf_config_free, also after a failure). Metadata that are missing,
 * out of range or of a kind that gsq does not compute (partial rotary embeddings, yarn) are ERR_USER naming
 * the key. An architecture that gsq does not know is not refused here: *config names it, and holds what there
 * is. */
bool gguf_model_open(struct gguf_model **out, const char *path, struct model_config *config, struct err *e);
void gguf_model_close(struct gguf_model **m);
const struct gguf *gguf_model_file(const struct gguf_model *m);

/* As checkpoint_in.h has them. */
size_t gguf_model_count(const struct gguf_model *m);
const struct tensor *gguf_model_at(const struct gguf_model *m, size_t i);
const struct tensor *gguf_model_find(const struct gguf_model *m, const char *name);
const char *gguf_model_path(const struct gguf_model *m, const struct tensor *t);
void gguf_model_drop(const struct gguf_model *m, const struct tensor *t);
/* MODULE + suffix; NULL if absent. */
const struct tensor *gguf_model_tensor(const struct gguf_model *m, const char *module, const char *suffix);
/* True if the tensor's bytes are floats in Hugging Face order. */
bool gguf_model_is_plain(const struct tensor *t);
/* The last four take MODULE.weight. */
bool gguf_model_weight(const struct tensor *t, const char *path, struct weight_info *out, struct err *e);
bool gguf_model_read(const struct tensor *t, uint32_t row0, uint32_t rows, float *dst, struct err *e);
bool gguf_model_codes(const struct tensor *t, const struct weight_info *w, struct qlinear *q, struct err *e);
/* Scales of blocks; true for plain tensors. */
bool gguf_model_finite(const struct tensor *t, const char *path, struct err *e);

/* Metadata to config (gguf_config.c). */
bool gguf_config_read(struct model_config *c, const struct gguf *g, const char *path, struct err *e);

#endif
