#include "arch/config.h"

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
