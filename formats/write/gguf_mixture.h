/* Which type each weight of a GGUF gets, by llama-quantize's rules. */
#ifndef FORMATS_GGUF_MIXTURE_H
#define FORMATS_GGUF_MIXTURE_H

#include "arch/config.h"
#include "formats/read/matrix.h"

/* A mixture by the name users know ("Q2_K", "Q3_K_M", "Q2_0", "F16" ...): the type of one matrix by llama-quantize's
 * rules, whatever its rows. NULL: no such mixture. */
const struct gguf_type *gguf_mixture_type(const char *mixture, const struct model_config *c, const struct matrix *x);
/* The type of most tensors of a mixture; NULL: no such mixture. */
const struct gguf_type *gguf_mixture_base(const char *mixture);
/* The type itself where rows of `cols` weights divide by its block, else the one that stands in for it. */
const struct gguf_type *gguf_type_fitting(const struct gguf_type *t, uint32_t cols);
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
 * case; "Q3_K", "Q4_K" and "Q5_K" stand for their _M, so that every type that is written has a number by its own name. */
int gguf_mixture_file_type(const char *mixture);
const char *gguf_mixture_at(size_t i);

#endif
