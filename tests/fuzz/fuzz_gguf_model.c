/* Any bytes as the metadata of a model: its config, its tokenizer, and the files that are made of them. */
#include <stdlib.h>
#include <string.h>

#include "formats/hf/hf_config.h"
#include "formats/read/gguf_config.h"
#include "formats/tokenizer/tokenizer_parts.h"
#include "formats/tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char sample[] = "Once upon a time, 1234 \xC3\xA9\xE2\x96\x81 <s>";
    struct err e;
    struct gguf *g;
    struct model_config c;
    struct tokenizer *t;
    struct strbuf json = {0}, config = {0};
    if (!gguf_parse(&g, data, size, "fuzz.gguf", &e))
        return 0;
    char *text;
    size_t n;
    if (gguf_config_read(&c, g, "fuzz.gguf", &e) && hf_config_text(&c, &text, &n, &e))
        free(text);
    config_free(&c);
    if (tokenizer_from_gguf(&t, g, "fuzz.gguf", &e)) {
        uint32_t *ids;
        if (tokenizer_encode(t, sample, sizeof sample - 1, &ids, &n, &e))
            free(ids);
        tokenizer_destroy(&t);
    }
    tokenizer_json_from_gguf(&json, &config, g, "fuzz.gguf", &e);
    strbuf_free(&json);
    strbuf_free(&config);
    gguf_close(&g);
    return 0;
}
