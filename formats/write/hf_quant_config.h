/* How a folder says that it is quantized. */
#ifndef FORMATS_HF_QUANT_CONFIG_H
#define FORMATS_HF_QUANT_CONFIG_H

#include <cjson/cJSON.h>

#include "formats/write/export.h"
#include "host/base/str.h"

struct quant_config_facts {
    const struct model_config *config;
    const char *head; /* what the head is called: "lm_head" */
    const struct export_options *options;
    const struct matrix *items;
    size_t n_items;
    const char *const *dense; /* linears that stay in 16 bits, "lm_head" included where it is stored */
    size_t n_dense;
};
/* The quantization_config of config.json. NULL when out of memory. */
cJSON *quant_config_json(const struct quant_config_facts *facts);
/* Two spaces of indentation, a newline at the end. */
void json_print(struct strbuf *b, const cJSON *item);

#endif
