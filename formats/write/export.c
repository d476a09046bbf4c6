#include "formats/write/export.h"

#include <string.h>

static const char *const names[EXPORT_NONE + 1] = {"gptq", "gptq_v2", "compressed-tensors", "mlx", "humming", "gguf",
                                                   "hf",   "none"};

enum export_format export_format_parse(const char *name)
{
    int f = 0;
    while (f < EXPORT_NONE && strcmp(names[f], name) != 0)
        f++;
    return (enum export_format)f;
}

const char *export_format_name(enum export_format f)
{
    return names[f];
}

bool export_is_packed(enum export_format f)
{
    return f != EXPORT_GGUF && f != EXPORT_HF && f != EXPORT_NONE;
}
