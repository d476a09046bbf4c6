/* Metadata of a GGUF that is asked for. */
#ifndef FORMATS_GGUF_OVERRIDE_H
#define FORMATS_GGUF_OVERRIDE_H

#include "formats/gguf/gguf.h"

/* A metadata key with another value than it would have. */
struct gguf_override {
    const char *key;
    enum gguf_value type; /* GGUF_U32, GGUF_F32, GGUF_BOOL (1 or 0 in u) or GGUF_STRING */
    uint32_t u;
    float f;
    const char *text;
};
/* "KEY=int:7", "KEY=float:0.5", "KEY=bool:true", "KEY=str:words", as llama-quantize's --override-kv has it. *key is
 * malloc'ed and becomes out->key; out->text points into spec. ERR_USER. */
bool gguf_override_parse(const char *spec, struct gguf_override *out, char **key, struct err *e);

/* The keys have the values of the list, at the end. */
bool gguf_keys_override(struct gguf_keys **k, const struct gguf_override *list, size_t n, struct err *e);

#endif
