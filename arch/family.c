#include "arch/family.h"

#include <stdio.h>
#include <string.h>

static const struct family families[] = {
    {
        .name = "Llama",
        .architecture = "LlamaForCausalLM",
        .model_type = "llama",
        .gguf = "llama",
        .parts = PARTS_PRE_NORMS,
        .permuted_rows = true,
    },
    {
        .name = "Mistral",
        .architecture = "MistralForCausalLM",
        .model_type = "mistral",
        .gguf = "llama",
        .parts = PARTS_PRE_NORMS,
        .permuted_rows = true,
        .sliding_window = true,
        .usual_window = 4096,
    },
    {
        .name = "Qwen2",
        .architecture = "Qwen2ForCausalLM",
        .model_type = "qwen2",
        .gguf = "qwen2",
        .parts = PARTS_PRE_NORMS,
        .sliding_window = true,
        .usual_window = 4096,
        .usual_full_layers = 28,
    },
    {
        .name = "Qwen3",
        .architecture = "Qwen3ForCausalLM",
        .model_type = "qwen3",
        .gguf = "qwen3",
        .parts = PARTS_PRE_NORMS | PARTS_QK_NORM,
        .sliding_window = true,
        .usual_window = 4096,
        .usual_full_layers = 28,
    },
    {
        .name = "SmolLM3",
        .architecture = "SmolLM3ForCausalLM",
        .model_type = "smollm3",
        .gguf = "smollm3",
        .parts = PARTS_PRE_NORMS,
        .permuted_rows = true,
        .usual_rope_step = 4,
        .sliding_window = true,
        .usual_full_layers = 28,
    },
    {
        .name = "Granite",
        .architecture = "GraniteForCausalLM",
        .model_type = "granite",
        .gguf = "granite",
        .parts = PARTS_PRE_NORMS,
        .permuted_rows = true,
        .multipliers = true,
    },
    {
        .name = "OLMo 2",
        .architecture = "Olmo2ForCausalLM",
        .model_type = "olmo2",
        .gguf = "olmo2",
        .parts = PARTS_POST_NORMS | PARTS_QK_NORM_WHOLE,
    },
    {
        .name = "OLMo 3",
        .architecture = "Olmo3ForCausalLM",
        .model_type = "olmo3",
        .gguf = "olmo2",
        .parts = PARTS_POST_NORMS | PARTS_QK_NORM_WHOLE,
        .local_rope = true,
        .sliding_window = true,
        .usual_window = 4096,
        .usual_full_step = 4,
        .llama_slides = true,
    },
};
#define N (sizeof families / sizeof families[0])

const struct family *family_at(size_t i)
{
    return i < N ? &families[i] : NULL;
}

const struct family *family_of(const struct model_config *c)
{
    /* A config that names its architecture means exactly that one: its model_type may be shared with variants
     * that compute something else. */
    bool named = c->architecture[0] != 0;
    for (size_t i = 0; i < N; i++)
        if (named ? strcmp(c->architecture, families[i].architecture) == 0
                  : strcmp(c->model_type, families[i].model_type) == 0)
            return &families[i];
    return NULL;
}

const struct family *family_of_gguf(const char *architecture, bool sliding)
{
    const struct family *found = NULL;
    for (size_t i = 0; i < N; i++)
        if (strcmp(families[i].gguf, architecture) == 0 && (!found || (sliding && !found->sliding_window)))
            found = &families[i];
    return found;
}

/* Adds to a text that may be cut; *len stays below cap. */
static void append(char *out, size_t cap, size_t *len, const char *before, const char *text)
{
    int n = snprintf(out + *len, cap - *len, "%s%s", before, text);
    if (n > 0 && (size_t)n < cap - *len)
        *len += (size_t)n;
}

const struct family *family_find(const struct model_config *c, struct err *e)
{
    char known[512] = "";
    size_t len = 0;
    const char *name = c->architecture[0] ? c->architecture : c->model_type;
    const struct family *f = family_of(c);
    if (!config_supported(c, e))
        return NULL;
    if (f)
        return f;
    for (size_t i = 0; i < N; i++)
        append(known, sizeof known, &len, i ? ", " : "", families[i].architecture);
    if (!name[0])
        err_set(e, ERR_USER, "config.json names neither an architecture nor a model_type");
    else
        err_set(e, ERR_USER, "the architecture %s is not supported", name);
    err_hint(e, "supported are %s", known);
    return NULL;
}

const char *family_names(char *out, size_t cap)
{
    size_t len = 0;
    out[0] = 0;
    for (size_t i = 0; i < N; i++)
        append(out, cap, &len, i == 0 ? "" : i + 1 < N ? ", " : " and ", families[i].name);
    return out;
}
