/* Bytes up to the first NUL as tokenizer.json, the rest as the text to encode (or one of ours). */
#include <stdlib.h>
#include <string.h>

#include "formats/tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char ours[] = "Hello  world's\n\n 123 \xC3\xA9\xE2\x96\x81<s> e\xCC\x81 aaaab";
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n_json = nul ? (size_t)(nul - data) : size;
    const char *text = nul ? (const char *)nul + 1 : ours;
    size_t n_text = nul ? size - n_json - 1 : sizeof ours - 1;
    struct tokenizer *t;
    struct err e;
    uint32_t *ids;
    size_t n;
    if (!tokenizer_parse(&t, (const char *)data, n_json, "fuzz", &e))
        return 0;
    if (tokenizer_encode(t, text, n_text, &ids, &n, &e)) {
        for (size_t i = 0; i < n; i++)
            if (ids[i] >= tokenizer_vocab_size(t))
                __builtin_trap();
        free(ids);
    }
    tokenizer_destroy(&t);
    return 0;
}
