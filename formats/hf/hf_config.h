/* config.json of a Hugging Face model folder. */
#ifndef FORMATS_HF_CONFIG_H
#define FORMATS_HF_CONFIG_H

#include "arch/config.h"

/* Parses the text of a config.json (not NUL-terminated; any bytes; NaN and Infinity as Python writes them). path
 * names the file in messages. Every number is range-checked; a shape that is missing or of a wrong
 * type, in an architecture that gsq computes, is ERR_USER. What is not computed by gsq (a RoPE scaling, an activation, a way to
 * quantize), and any other value that cannot be right, is told by `unsupported`, for those who only look. Unknown architectures are NOT
 * refused here (arch/family.h does that). */
bool hf_config_parse(struct model_config *out, const char *text, size_t size, const char *path, struct err *e);
/* How it is quantized, by the text of a quantize_config.json beside a config.json that does not say: of GPTQ,
 * which older files do not name. Errors as above. */
bool hf_config_add_quant(struct model_config *c, const char *text, size_t size, const char *path, struct err *e);
/* A config.json that says the same (apart from how it is quantized), malloc'ed: for models that come without
 * one. */
bool hf_config_text(const struct model_config *c, char **text, size_t *size, struct err *e);

#endif
