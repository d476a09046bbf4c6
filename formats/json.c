#include "formats/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/foreign.h"
#include "host/base/str.h"

cJSON *json_parse(const char *text, size_t size, const char *path, struct err *e)
{
    size_t bad;
    if (!utf8_valid(text, size, &bad)) {
        if (foreign_file(path, text, size, e))
            return NULL;
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
    if (foreign_file(path, text, size, e))
        return NULL;
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

size_t json_next_number(const char *at, const char *end, const char **begin)
{
    const char *p = at;
    while (p < end && *p != '-' && (*p < '0' || *p > '9') && *p != 'N' && *p != 'I') {
        if (*p++ != '"')
            continue;
        while (p < end && *p != '"')
            p += p[0] == '\\' && p + 1 < end ? 2 : 1;
        p += p < end;
    }
    *begin = p;
    const char *q = p + (p < end && *p == '-');
    if (q < end && (*q == 'N' || *q == 'I')) {
        while (q < end && ((*q >= 'a' && *q <= 'z') || *q == 'N' || *q == 'I'))
            q++;
    } else {
        while (q < end && *q && strchr("+-.0123456789eE", *q))
            q++;
    }
    return (size_t)(q - p);
}

/* Gives every number of the tree, in the order of the text, the value that its own piece of the text has. */
static void restore_nan(cJSON *item, const char **at, const char *end)
{
    const char *begin;
    for (cJSON *child = item->child; child; child = child->next)
        restore_nan(child, at, end);
    if (!cJSON_IsNumber(item))
        return;
    size_t n = json_next_number(*at, end, &begin);
    if (n && *begin == 'N')
        item->valuedouble = (double)NAN;
    *at = begin + n;
}

cJSON *json_parse_python(const char *text, size_t size, const char *path, struct err *e)
{
    /* What Python writes, and numbers of the same length that say it to a JSON parser. NaN has none. */
    static const struct {
        const char *word, *number;
    } words[] = {{"NaN", "0  "}, {"Infinity", "1e999   "}, {"-Infinity", "-1e999   "}};
    const char *begin, *at = text, *end = text + size;
    char *copy = NULL;
    for (size_t n; (n = json_next_number(at, end, &begin)) > 0; at = begin + n) {
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
            if (n != strlen(words[i].word) || memcmp(begin, words[i].word, n) != 0)
                continue;
            if (!copy && !(copy = str_dup_n(text, size))) {
                err_nomem(e, path, size);
                return NULL;
            }
            memcpy(copy + (begin - text), words[i].number, n);
        }
    }
    cJSON *root = json_parse(copy ? copy : text, size, path, e);
    free(copy);
    at = text;
    if (root && copy)
        restore_nan(root, &at, end);
    return root;
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
