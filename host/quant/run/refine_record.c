#include "host/quant/run/refine_record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/base/os.h"

enum { PATH_CAP = 4096, NAME_CAP = 64 };

static bool folder(char *out)
{
    char cache[PATH_CAP];
    return os_cache_dir(cache, sizeof cache) && os_path_join(out, PATH_CAP, cache, "refined", NULL);
}

/* "SIZE-HASH". */
static void name_of(uint64_t size, struct hash128 bytes, char out[NAME_CAP])
{
    char hex[33];
    hash_hex(bytes, hex);
    snprintf(out, NAME_CAP, "%llu-%s", (unsigned long long)size, hex);
}

void refine_record(uint64_t size, struct hash128 bytes, const char run[33])
{
    char dir[PATH_CAP], path[PATH_CAP], name[NAME_CAP];
    struct err e = {0};
    name_of(size, bytes, name);
    if (!folder(dir) || !os_mkdirs(dir, &e) || !os_path_join(path, sizeof path, dir, name, &e) ||
        !os_write_file(path, run, 32, &e))
        log_debug("not remembered as refined: %s", e.msg);
}

struct search {
    char begin[NAME_CAP];
    bool found;
};

static bool look(void *ctx, const char *name, struct err *e)
{
    struct search *s = ctx;
    (void)e;
    s->found |= strncmp(name, s->begin, strlen(s->begin)) == 0;
    return true;
}

static bool hash_of(const char *path, struct hash128 *out)
{
    struct hash_stream *s = hash_stream_create();
    struct os_map m = {0};
    bool ok = s && os_map_file(&m, path, NULL);
    const uint64_t step = 64u << 20;
    for (uint64_t at = 0; ok && at < m.size; at += step) {
        hash_stream_add(s, (const uint8_t *)m.data + at, (size_t)(m.size - at < step ? m.size - at : step));
        ok = !os_stop_requested();
    }
    if (ok)
        *out = hash_stream_end(s);
    os_unmap(&m);
    hash_stream_destroy(&s);
    return ok;
}

bool refine_recorded(const char *path, char run[33])
{
    char dir[PATH_CAP], record[PATH_CAP], name[NAME_CAP], *text = NULL;
    struct search s = {.found = false};
    struct hash128 h;
    uint64_t size;
    size_t n = 0;
    if (os_stat(path, &size) != OS_FILE || !folder(dir) || os_stat(dir, NULL) != OS_DIR)
        return false;
    snprintf(s.begin, sizeof s.begin, "%llu-", (unsigned long long)size);
    if (!os_list(dir, look, &s, NULL) || !s.found || !hash_of(path, &h))
        return false;
    name_of(size, h, name);
    bool ok = os_path_join(record, sizeof record, dir, name, NULL) && os_stat(record, NULL) == OS_FILE &&
              os_read_file(record, 64, &text, &n, NULL) && n == 32;
    if (ok)
        snprintf(run, 33, "%.32s", text);
    free(text);
    return ok;
}
