#include "host/model/family.h"

#include <stdio.h>
#include <string.h>

static const struct family families[] = {
    {.architecture = "LlamaForCausalLM", .model_type = "llama"},
    {.architecture = "MistralForCausalLM", .model_type = "mistral", .sliding_window = true},
    {.architecture = "Qwen2ForCausalLM", .model_type = "qwen2", .sliding_window = true},
    {.architecture = "Qwen3ForCausalLM", .model_type = "qwen3", .qk_norm = true, .sliding_window = true},
};

const struct family *family_at(size_t i)
{
    return i < sizeof families / sizeof families[0] ? &families[i] : NULL;
}

const struct family *family_find(const struct model_config *c, struct err *e)
{
    /* A config that names its architecture means exactly that one: its model_type may be shared with variants
     * that compute something else. */
    bool named = c->architecture[0] != 0;
    if (!hf_config_supported(c, e))
        return NULL;
    char known[512];
    size_t len = 0;
    for (size_t i = 0; family_at(i); i++) {
        const struct family *f = family_at(i);
        if (strcmp(named ? c->architecture : c->model_type, named ? f->architecture : f->model_type) == 0)
            return f;
        int n = snprintf(known + len, sizeof known - len, "%s%s", i ? ", " : "", f->architecture);
        if (n > 0 && (size_t)n < sizeof known - len)
            len += (size_t)n;
    }
    if (!named && !c->model_type[0])
        err_set(e, ERR_USER, "config.json names neither an architecture nor a model_type");
    else
        err_set(e, ERR_USER, "the architecture %s is not supported", named ? c->architecture : c->model_type);
    err_hint(e, "supported are %s", known);
    return NULL;
}
