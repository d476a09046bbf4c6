/* Any bytes as a safetensors header: the first two bytes say how long the data behind it is. */
#include "formats/hf/safetensors.h"
#include "host/base/num.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct tensor_table *t;
    struct err e;
    if (!tensor_table_create(&t, &e))
        return 0;
    if (safetensors_parse_header(t, (const char *)data + 2, size - 2, NULL, load_u16le(data), 0, "fuzz", &e)) {
        uint64_t bytes = 0;
        for (size_t i = 0; i < tensor_table_count(t); i++) {
            const struct tensor *x = tensor_table_at(t, i);
            bytes += x->bytes;
            if (tensor_table_find(t, x->name) != x)
                __builtin_trap();
        }
        if (bytes != load_u16le(data))
            __builtin_trap();
    }
    tensor_table_destroy(&t);
    return 0;
}
