#include "formats/write/export.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    bool bf16_scales, sets_scales; /* export_has_bf16_scales, export_sets_scales */
} formats[EXPORT_NONE + 1] = {
    [EXPORT_GPTQ] = {.name = "gptq", .sets_scales = true},
    [EXPORT_GPTQ_V2] = {.name = "gptq_v2", .sets_scales = true},
    [EXPORT_COMPRESSED_TENSORS] = {.name = "compressed-tensors", .bf16_scales = true, .sets_scales = true},
    [EXPORT_MLX] = {.name = "mlx", .bf16_scales = true},
    [EXPORT_HUMMING] = {.name = "humming", .bf16_scales = true},
    [EXPORT_GGUF] = {.name = "gguf"},
    [EXPORT_HF] = {.name = "hf"},
    [EXPORT_NONE] = {.name = "none"},
};

enum export_format export_format_parse(const char *name)
{
    int f = 0;
    while (f < EXPORT_NONE && strcmp(formats[f].name, name) != 0)
        f++;
    return (enum export_format)f;
}

const char *export_format_name(enum export_format f)
{
    return formats[f].name;
}

bool export_is_packed(enum export_format f)
{
    return f != EXPORT_GGUF && f != EXPORT_HF && f != EXPORT_NONE;
}

bool export_has_bf16_scales(enum export_format f)
{
    return formats[f].bf16_scales;
}

bool export_sets_scales(enum export_format f)
{
    return formats[f].sets_scales;
}

const char *export_format_names(char *out, size_t cap)
{
    size_t n = 0;
    for (int f = 0; f < EXPORT_NONE && n < cap; f++)
        n += (size_t)snprintf(out + n, cap - n, "%s%s", f ? ", " : "", formats[f].name);
    return out;
}
