/* Any bytes as model.safetensors.index.json: no shard may lie outside the model's folder. */
#include <string.h>

#include "formats/hf/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors_index x;
    struct err e;
    if (!safetensors_index_parse(&x, (const char *)data, size, "fuzz", &e))
        return 0;
    for (size_t i = 0; i < x.n_files; i++)
        if (strpbrk(x.files[i], "/\\") || !x.files[i][0])
            __builtin_trap();
    for (size_t i = 0; i < x.n_entries; i++)
        if (x.entries[i].file >= x.n_files)
            __builtin_trap();
    safetensors_index_free(&x);
    return 0;
}
