/* A GGUF from a checkpoint (a Hugging Face folder or another GGUF), as it was planned. */
#ifndef FORMATS_WRITE_GGUF_H
#define FORMATS_WRITE_GGUF_H

#include "formats/write/export.h"

struct gguf_plan;
/* Rounds on all threads of pool.h, to the same bytes with any number of them. */
/* The codes of a matrix in the model, as x->type holds them: scales in f16; *rounded counts those that f16 does not hold exactly. */
bool gguf_model_codes(const struct checkpoint *ck, const struct matrix *x, struct qlinear *q, uint64_t *rounded,
                      struct err *e);
bool gguf_plan_write(struct gguf_plan *p, const char *path, const struct export_source *source, struct err *e);
bool gguf_check_out(const char *path, const struct checkpoint *src, bool force, struct err *e);

#endif
