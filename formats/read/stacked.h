/* Inside checkpoint_folder: all experts of a layer that a folder holds as one tensor [experts, rows, columns] (formats/hf/expert_stack.h:
 * Granite-MoE, gpt-oss, what transformers saves since its version 5, MLX), shown as the matrices that other folders hold one by one. */
#ifndef FORMATS_STACKED_H
#define FORMATS_STACKED_H

#include "arch/config.h"
#include "formats/read/model_source.h"

struct stacked;
/* *out NULL: there are none, and the tensors are those of s. Else s finds the parts by their names (safetensors_add_view), and both
 * end together: s is closed, then this freed. ERR_USER: one does not hold what config.json says. */
bool stacked_make(struct stacked **out, struct safetensors *s, const struct model_config *c, struct err *e);
void stacked_free(struct stacked **x);
/* As of safetensors.h: parts stand where their tensor stood. */
size_t stacked_count(const struct stacked *x);
const struct tensor *stacked_at(const struct stacked *x, size_t i);
void stacked_drop(const struct stacked *x, const struct tensor *t);

/* What config.json calls a module: the stack that it is part of, where that has a name of its own (into out), or itself. */
const char *stacked_module(const struct stacked *x, const char *module, char *out, size_t cap);

/* Whether a module's weight is no tensor by itself: its rows are columns, or lie between another's, or it is MXFP4. Those are read by
 * these alone; suffix NULL: any. */
bool stacked_is_packed(const struct stacked *x, const char *module, const char *suffix);
bool stacked_weight(const struct stacked *x, const char *module, struct weight_info *out, struct err *e);
bool stacked_read(const struct stacked *x, const char *module, uint32_t row0, uint32_t rows, float *dst, struct err *e);
bool stacked_blocks(const struct stacked *x, const char *module, uint32_t row0, uint32_t rows, uint8_t *dst,
                    struct err *e);
bool stacked_check_finite(const struct stacked *x, const char *module, struct err *e);

#endif
