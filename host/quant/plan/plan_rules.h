/* --tensor and --keep against the names of modules. */
#ifndef QUANT_PLAN_RULES_H
#define QUANT_PLAN_RULES_H

#include "formats/pattern.h"
#include "host/quant/options.h"

struct rules {
    const struct model_config *config;
    const struct tensor_rule *list;
    size_t n;
    struct pattern **compiled; /* [n] */
    const char *alias;
    bool *gguf; /* [n]: searched in llama.cpp's names ("blk.0.attn_q.weight"); else in Hugging Face's */
};
/* Names that the rules are for, and those that no rule of a type can be for: "lm_head" in a folder format. */
struct rule_names {
    const struct model_config *config; /* of their model */
    const char *const *modules, *const *fixed;
    size_t n, n_fixed;
    const char *alias; /* of the modules, a second name of one: llama.cpp does not have it; or NULL */
};

/* Compiles the patterns and finds for each in which names it is written. ERR_USER: one that is no regular
 * expression, that takes too many steps on some name, or that matches no module; the hint names the nearest.
 * rules_free in every case. */
bool rules_compile(struct rules *r, const struct quantize_options *o, const struct rule_names *names, struct err *e);
void rules_free(struct rules *r);
/* The last rule that matches; NULL: none does. `module` is one of those compiled for. */
const struct tensor_rule *rules_find(const struct rules *r, const char *module);

#endif
