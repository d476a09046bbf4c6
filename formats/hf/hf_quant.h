/* quantization_config (and MLX's `quantization`) of config.json, as rules. Called by hf_config_parse. */
#ifndef FORMATS_HF_QUANT_H
#define FORMATS_HF_QUANT_H

#include "arch/config.h"
#include "formats/json.h"

/* Fills c->quant, c->rules and c->n_rules (freed by config_free, also after a failure). */
bool hf_quant_parse(struct model_config *c, const cJSON *root, const char *path, struct err *e);
/* "none", "gptq" ... "humming": how a model's weights are stored, in the words of --format. */
const char *quant_method_name(enum quant_method q);

#endif
