#include "formats/json.h"

#include <string.h>

#include "host/base/str.h"

cJSON *json_parse(const char *text, size_t size, const char *path, struct err *e)
{
    size_t bad;
    if (!utf8_valid(text, size, &bad)) {
        err_set(e, ERR_USER, "%s is not valid JSON: the byte at offset %zu is not UTF-8", path, bad);
        err_hint(e, "download the file again");
        return NULL;
    }
    const char *end = NULL;
    cJSON *root = size ? cJSON_ParseWithLengthOpts(text, size, &end, 0) : NULL;
    size_t at = root || end ? (size_t)(end - text) : 0;
    if (root) {
        while (at < size && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t'))
            at++;
        if (at == size)
            return root;
        cJSON_Delete(root);
    }
    size_t line = 1;
    for (size_t i = 0; i < at && i < size; i++)
        line += text[i] == '\n';
    err_set(e, ERR_USER, "%s is not valid JSON: line %zu, offset %zu%s", path, line, at,
            size == 0        ? " (the text is empty)"
            : at + 1 >= size ? " (the text ends too early)"
                             : "");
    err_hint(e, "download the file again");
    return NULL;
}

const cJSON *json_get(const cJSON *o, const char *key)
{
    const cJSON *item = cJSON_IsObject(o) ? cJSON_GetObjectItemCaseSensitive(o, key) : NULL;
    return item && !cJSON_IsNull(item) ? item : NULL;
}

bool json_duplicate(const cJSON *o, const char **key)
{
    struct strmap seen = {0};
    bool found = false;
    for (const cJSON *item = o ? o->child : NULL; item && !found; item = item->next) {
        bool added = true;
        if (!item->string || !strmap_add(&seen, item->string, strlen(item->string), 0, &added))
            break;
        if (!added) {
            *key = item->string;
            found = true;
        }
    }
    strmap_free(&seen);
    return found;
}

bool json_u64(const cJSON *item, uint64_t *out)
{
    if (!cJSON_IsNumber(item))
        return false;
    double v = item->valuedouble;
    if (!(v >= 0 && v < 9007199254740992.0) || v != (double)(uint64_t)v)
        return false;
    *out = (uint64_t)v;
    return true;
}

const char *json_type_name(const cJSON *item)
{
    if (!item || cJSON_IsInvalid(item))
        return "missing";
    return cJSON_IsNumber(item)   ? "a number"
           : cJSON_IsString(item) ? "a string"
           : cJSON_IsArray(item)  ? "an array"
           : cJSON_IsObject(item) ? "an object"
           : cJSON_IsBool(item)   ? "a truth value"
                                  : "null";
}
