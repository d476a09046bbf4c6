/* The parts of os.h that are the same on every system. */
#include "host/base/os_parts.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/str.h"

const char *os_base_name(const char *path)
{
#if defined(_WIN32)
    static const char separators[] = "/\\";
#else
    static const char separators[] = "/";
#endif
    const char *base = path;
    for (const char *p = path; *p; p++)
        if (strchr(separators, *p) && p[1] && !strchr(separators, p[1]))
            base = p + 1;
    return base;
}

bool os_path_join(char *out, size_t cap, const char *dir, const char *name, struct err *e)
{
    size_t n = strlen(dir);
    const char *slash = n == 0 || dir[n - 1] == '/' ? "" : "/";
    int len = snprintf(out, cap, "%s%s%s", dir, slash, name);
    if (len < 0 || (size_t)len >= cap)
        return err_set(e, ERR_USER, "the path is too long: %.200s/%.200s", dir, name);
    return true;
}

int os_exit_code(const struct err *e)
{
    switch (e->kind) {
    case ERR_NONE:
        return 0;
    case ERR_USER:
        return 2;
    case ERR_ENV:
        return 3;
    case ERR_STOPPED:
        return 128 + (os_stop_signal() ? os_stop_signal() : 2);
    case ERR_BUG:
        break;
    }
    return 4;
}

/* ---- which file lies where in memory ---- */

static struct os_range *volatile ranges;

const char *volatile os_words_stopped = "stopped";
volatile bool os_words_json;

void os_last_words(const char *stopped, bool json)
{
    os_words_stopped = stopped;
    os_words_json = json;
}

static struct os_range *free_range(void)
{
    struct os_range *r = ranges;
    while (r && r->start)
        r = r->next;
    if (!r && (r = calloc(1, sizeof *r))) {
        r->next = ranges;
        ranges = r;
    }
    return r;
}

void os_range_add(const void *start, uint64_t size, const struct os_file_id *id, const char *path)
{
    struct strbuf json = {0};
    strbuf_json(&json, path);
    char *copy = str_dup(path);
    os_ranges_lock();
    struct os_range *r = copy && !json.failed ? free_range() : NULL;
    if (r) {
        free(r->path);
        free(r->json);
        r->path = copy;
        r->json = json.data;
        r->id = *id;
        r->size = size;
        r->start = (uintptr_t)start;
    }
    os_ranges_unlock();
    if (!r) {
        free(copy);
        strbuf_free(&json);
    }
}

void os_range_remove(const void *start)
{
    os_ranges_lock();
    for (struct os_range *r = ranges; r; r = r->next)
        if (r->start == (uintptr_t)start)
            r->start = 0;
    os_ranges_unlock();
}

const struct os_range *os_range_at(uintptr_t address)
{
    for (const struct os_range *r = ranges; r; r = r->next)
        if (r->start && address >= r->start && address - r->start < r->size)
            return r;
    return NULL;
}

bool os_is_mapped(const struct os_file_id *id)
{
    bool found = false;
    os_ranges_lock();
    for (const struct os_range *r = ranges; r && !found; r = r->next)
        found = r->start && r->id.device == id->device && r->id.number == id->number;
    os_ranges_unlock();
    return found;
}

/* ---- whole files ---- */

const char *os_path_split(const char *path, char *dir, size_t cap)
{
    const char *name = path;
    for (const char *p = path; *p; p++)
        if (*p == '/' || *p == '\\')
            name = p + 1;
    snprintf(dir, cap, "%.*s", (int)(name - path), path);
    if (!dir[0])
        snprintf(dir, cap, ".");
    return name;
}

bool os_map_model(struct os_map *out, const char *path, struct err *e)
{
    static const char lfs[] = "version https://git-lfs";
    if (!os_map_file(out, path, e))
        return false;
    if (out->size < sizeof lfs || memcmp(out->data, lfs, sizeof lfs - 1) != 0)
        return true;
    os_unmap(out);
    err_set(e, ERR_USER, "%s is a Git LFS pointer, not the file itself", path);
    return err_hint(e, "run `git lfs pull` in the model's folder");
}

bool os_read_file(const char *path, uint64_t max, char **data, size_t *size, struct err *e)
{
    struct os_map m;
    if (!os_map_file(&m, path, e))
        return false;
    bool ok = false;
    *data = NULL;
    if (m.size > max) {
        err_set(e, ERR_USER, "%s is too large: %llu bytes, at most %llu are expected", path, (unsigned long long)m.size,
                (unsigned long long)max);
    } else if (!(*data = malloc((size_t)m.size + 1))) {
        err_nomem(e, path, m.size + 1);
    } else {
        if (m.size)
            memcpy(*data, m.data, (size_t)m.size);
        (*data)[m.size] = 0;
        *size = (size_t)m.size;
        ok = true;
    }
    os_unmap(&m);
    return ok;
}
