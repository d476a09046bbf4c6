#include "arch/config.h"

#include <stdlib.h>

bool config_supported(const struct model_config *c, struct err *e)
{
    if (!c->unsupported[0])
        return true;
    err_set(e, ERR_USER, "%s", c->unsupported);
    return err_hint(e, "%s", c->unsupported_hint);
}

uint32_t config_window(const struct model_config *c, uint32_t layer)
{
    return c->slides && !c->slides[layer] ? 0 : c->sliding_window;
}

void config_free(struct model_config *c)
{
    free(c->rope_factors);
    free(c->slides);
    for (size_t i = 0; i < c->n_rules; i++)
        free(c->rules[i].regex);
    free(c->rules);
    *c = (struct model_config){0};
}
