/* A GGUF from a checkpoint (a Hugging Face folder or another GGUF): metadata, tokenizer, tensors in their types; and which
 * types. */
#ifndef FORMATS_WRITE_GGUF_H
#define FORMATS_WRITE_GGUF_H

#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_type.h"
#include "formats/write/export.h"

/* A metadata key with another value than it would have. */
struct gguf_override {
    const char *key;
    enum gguf_value type; /* GGUF_U32, GGUF_F32, GGUF_BOOL (1 or 0 in u) or GGUF_STRING */
    uint32_t u;
    float f;
    const char *text;
};
/* "KEY=int:7", "KEY=float:0.5", "KEY=bool:true", "KEY=str:words", as llama-quantize's --override-kv has it. *key is
 * malloc'ed and becomes out->key; out->text points into spec. ERR_USER. */
bool gguf_override_parse(const char *spec, struct gguf_override *out, char **key, struct err *e);

/* export.h's plan of a GGUF. list: every 2-D weight of the model (checkpoint_matrices) with its type; norms, biases and other
 * vectors are F32. */
struct gguf_plan;
bool gguf_plan_make(struct gguf_plan **out, const struct checkpoint *src, const struct matrix *list, size_t n,
                    const struct export_options *o, struct err *e);
/* Makes the keys, without a warning, and looks for values that F16 cannot hold where that is a weight's type. */
bool gguf_plan_size(struct gguf_plan *p, uint64_t *bytes, struct err *e);
/* Rounds on all threads of pool.h, to the same bytes with any number of them. */
bool gguf_plan_write(struct gguf_plan *p, const char *path, const struct export_source *source, struct err *e);
void gguf_plan_free(struct gguf_plan **p);
bool gguf_check_out(const char *path, const struct checkpoint *src, bool force, struct err *e);

/* A mixture by the name users know ("Q2_K", "Q3_K_M", "Q2_0", "F16" ...): the type of one module by llama-quantize's
 * rules, with its fallback where cols % block != 0 (*fell_back is then true). NULL: no such mixture. */
const struct gguf_type *gguf_mixture_type(const char *mixture, const struct model_config *c, const char *module,
                                          uint32_t cols, bool *fell_back);
/* The type of most tensors of a mixture; NULL: no such mixture. */
const struct gguf_type *gguf_mixture_base(const char *mixture);
/* The type itself where rows of `cols` weights divide by its block, else the one that stands in for it
 * (*fell_back is then true). */
const struct gguf_type *gguf_type_fitting(const struct gguf_type *t, uint32_t cols, bool *fell_back);
/* A mixture's own name by any of its names; NULL: no such mixture. */
const char *gguf_mixture_named(const char *name);
/* What llama-quantize takes as a type: a name in any case, or its number ("10": Q2_K). *out is the mixture, or
 * GGUF_COPY: every tensor as it is. False: a type that only llama-quantize writes (ERR_USER naming the nearest that gsq
 * learns), or none at all (*e is untouched). */
#define GGUF_COPY "COPY"
bool gguf_mixture_read(const char *text, const char **out, struct err *e);
/* Whether that is a type of llama-quantize, gsq's or not. */
bool gguf_mixture_is_name(const char *text);
/* general.file_type of a mixture, -1: none; name of mixture i, NULL past the end. Names are found in any
 * case; "Q3_K", "Q4_K" and "Q5_K" stand for their _M. */
int gguf_mixture_file_type(const char *mixture);
const char *gguf_mixture_at(size_t i);

#endif
