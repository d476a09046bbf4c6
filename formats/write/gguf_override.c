/* Metadata with other values, as llama-quantize's --override-kv takes them. */
#include "formats/write/gguf_override.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/write/gguf_export.h"
#include "host/base/str.h"

static bool bad(const char *spec, const char *says, struct err *e)
{
    err_set(e, ERR_USER, "--override-kv %.200s: %s", spec, says);
    return err_hint(e, "KEY=int:N, KEY=float:X, KEY=bool:true or KEY=str:TEXT; for example "
                       "tokenizer.ggml.add_bos_token=bool:false");
}

static bool read_value(const char *type, size_t n, const char *value, struct gguf_override *out)
{
    char *end;
    errno = 0;
    if (n == 3 && memcmp(type, "int", 3) == 0) {
        unsigned long long v = strtoull(value, &end, 10);
        out->type = GGUF_U32;
        out->u = (uint32_t)v;
        return strspn(value, "0123456789") == strlen(value) && value[0] && errno == 0 && v <= UINT32_MAX;
    }
    if (n == 5 && memcmp(type, "float", 5) == 0) {
        double v = strtod(value, &end);
        out->type = GGUF_F32;
        out->f = (float)v;
        return value[0] && !*end && isfinite((float)v);
    }
    if (n == 4 && memcmp(type, "bool", 4) == 0) {
        out->type = GGUF_BOOL;
        out->u = strcmp(value, "true") == 0;
        return out->u || strcmp(value, "false") == 0;
    }
    out->type = GGUF_STRING;
    out->text = value;
    return n == 3 && memcmp(type, "str", 3) == 0;
}

bool gguf_override_parse(const char *spec, struct gguf_override *out, char **key, struct err *e)
{
    const char *eq = strchr(spec, '='), *colon = eq ? strchr(eq, ':') : NULL;
    *key = NULL;
    *out = (struct gguf_override){0};
    if (!colon || eq == spec)
        return bad(spec, "expected KEY=TYPE:VALUE", e);
    if (!read_value(eq + 1, (size_t)(colon - eq - 1), colon + 1, out))
        return bad(spec, "the value is not of that type", e);
    *key = str_dup_n(spec, (size_t)(eq - spec));
    if (!*key)
        return err_nomem(e, "a key", strlen(spec));
    if (gguf_key_of_storage((struct gguf_string){*key, strlen(*key)}) || strcmp(*key, "general.architecture") == 0) {
        free(*key);
        *key = NULL;
        return bad(spec, "this key says how the file's tensors are stored and named; it follows from them", e);
    }
    out->key = *key;
    return true;
}

bool gguf_keys_override(struct gguf_keys **k, const struct gguf_override *list, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        const struct gguf_override *o = &list[i];
        if (!gguf_keys_remove(k, o->key, e))
            return false;
        if (o->type == GGUF_U32)
            gguf_add_u32(*k, o->key, o->u);
        else if (o->type == GGUF_F32)
            gguf_add_f32(*k, o->key, o->f);
        else if (o->type == GGUF_BOOL)
            gguf_add_bool(*k, o->key, o->u != 0);
        else
            gguf_add_string(*k, o->key, o->text, strlen(o->text));
    }
    return true;
}
