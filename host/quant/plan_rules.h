/* --tensor and --keep against the names of modules. */
#ifndef QUANT_PLAN_RULES_H
#define QUANT_PLAN_RULES_H

#include "host/quant/options.h"

struct rules {
    const struct tensor_rule *list;
    size_t n;
    void **compiled; /* [n] */
    bool *used;      /* [n]: it matched a module */
};
/* A pattern that is none is ERR_USER. rules_free in every case. */
bool rules_compile(struct rules *r, const struct quantize_options *o, struct err *e);
void rules_free(struct rules *r);
/* The last rule that matches; NULL: none does. */
const struct tensor_rule *rules_find(struct rules *r, const char *module);
/* A warning for each that matched nothing; what: "linear". */
void rules_warn_unused(const struct rules *r, const char *what);

#endif
