#include "host/quant/store/store_costs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "host/base/os.h"
#include "host/base/str.h"

/* Of a number with its comma. */
#define NUMBER_BYTES 32u

bool store_read_costs(const char *dir, const char *run, double *costs, size_t n)
{
    char path[4096], *text;
    size_t size;
    struct err e = {0};
    if (!os_path_join(path, sizeof path, dir, STORE_COSTS, &e) || os_stat(path, NULL) != OS_FILE ||
        !os_read_file(path, 1024 + n * NUMBER_BYTES, &text, &size, &e))
        return false;
    cJSON *root = json_parse(text, size, path, &e);
    const cJSON *of = json_get(root, "run"), *list = json_get(root, "costs"), *item;
    bool ok = cJSON_IsString(of) && strcmp(of->valuestring, run) == 0 && cJSON_IsArray(list) &&
              (size_t)cJSON_GetArraySize(list) == n;
    size_t i = 0;
    if (ok)
        cJSON_ArrayForEach(item, list) ok = ok && cJSON_IsNumber(item) && isfinite(item->valuedouble);
    if (ok)
        cJSON_ArrayForEach(item, list) costs[i++] = item->valuedouble;
    cJSON_Delete(root);
    free(text);
    return ok;
}

bool store_write_costs(const char *dir, const char *run, const double *costs, size_t n, struct err *e)
{
    struct strbuf text = {0};
    char path[4096];
    strbuf_printf(&text, "{\"run\": \"%s\",\n\"costs\": [", run);
    for (size_t i = 0; i < n; i++)
        strbuf_printf(&text, "%s%.17g", i ? ",\n" : "", costs[i]);
    strbuf_puts(&text, "]}\n");
    bool ok = (!text.failed || err_nomem(e, "what types cost", n * NUMBER_BYTES)) &&
              os_path_join(path, sizeof path, dir, STORE_COSTS, e) &&
              os_write_file(path, text.data, strlen(text.data), e);
    strbuf_free(&text);
    return ok;
}
