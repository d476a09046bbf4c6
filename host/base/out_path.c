#include "host/base/out_path.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/comm.h"
#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/str.h"

static bool is_slash(char c)
{
#if defined(_WIN32)
    return c == '/' || c == '\\';
#else
    return c == '/';
#endif
}

void out_trim(char *path)
{
    for (size_t n = strlen(path); n > 1; path[--n] = 0) {
        bool slash = is_slash(path[n - 1]) && path[n - 2] != ':';
        bool dot = path[n - 1] == '.' && is_slash(path[n - 2]);
        if (!slash && !dot)
            break;
    }
}

static bool same_id(const struct os_file_id *a, const struct os_file_id *b)
{
    return a->device == b->device && a->number == b->number;
}

bool out_same(const char *a, const char *b)
{
    struct os_file_id x, y;
    bool there = os_file_id(a, &x);
    if (os_file_id(b, &y) != there)
        return false;
    if (there)
        return same_id(&x, &y);
    char dir_a[4096], dir_b[4096], path_a[4096], path_b[4096];
    snprintf(path_a, sizeof path_a, "%s", a);
    snprintf(path_b, sizeof path_b, "%s", b);
    out_trim(path_a);
    out_trim(path_b);
    const char *name_a = os_path_split(path_a, dir_a, sizeof dir_a);
    const char *name_b = os_path_split(path_b, dir_b, sizeof dir_b);
    return strcmp(name_a, name_b) == 0 && os_file_id(dir_a, &x) && os_file_id(dir_b, &y) && same_id(&x, &y);
}

/* ---- inputs ---- */

struct hunt {
    const char *dir;
    struct os_file_id id;
    char found[4096];
};

static bool at(struct hunt *h, const char *path)
{
    struct os_file_id id;
    if (!h->found[0] && os_file_id(path, &id) && same_id(&id, &h->id))
        snprintf(h->found, sizeof h->found, "%s", path);
    return h->found[0] != 0;
}

static bool in_folder(void *ctx, const char *name, struct err *e)
{
    struct hunt *h = ctx;
    char path[4096];
    if (str_ends_nocase(name, ".gguf") || str_ends_nocase(name, ".html") ||
        !os_path_join(path, sizeof path, h->dir, name, e))
        return true;
    /* Another folder in it is none of the model: a result may lie there, and be written again. */
    bool folder = os_stat(path, NULL) == OS_DIR, templates = strcmp(name, "additional_chat_templates") == 0;
    if (!folder || templates)
        at(h, path);
    if (folder && templates && !h->found[0]) {
        struct hunt inner = {.dir = path, .id = h->id};
        os_list(path, in_folder, &inner, NULL);
        memcpy(h->found, inner.found, sizeof h->found);
    }
    return true;
}

/* "model-00002-of-00003.gguf": its number of parts, and where they are counted; 0: not a part. */
static unsigned count_parts(const char *path, size_t *digits)
{
    static const char shape[] = "-ddddd-of-ddddd.gguf";
    size_t n = strlen(path), len = sizeof shape - 1;
    if (n <= len)
        return 0;
    for (size_t i = 0; i < len; i++) {
        char c = path[n - len + i];
        if (shape[i] == 'd' ? c < '0' || c > '9' : c != shape[i])
            return 0;
    }
    *digits = n - len + 1;
    return (unsigned)strtoul(path + n - len + 10, NULL, 10);
}

static void in_parts(struct hunt *h, const char *path)
{
    char part[4096], number[8];
    size_t digits = 0;
    unsigned n = count_parts(path, &digits);
    if (!n || strlen(path) >= sizeof part)
        return;
    for (unsigned i = 1; i <= n && !h->found[0]; i++) {
        strcpy(part, path);
        snprintf(number, sizeof number, "%05u", i);
        memcpy(part + digits, number, 5);
        at(h, part);
    }
}

bool out_not_input(const char *what, const char *path, const char *const *inputs, size_t n, struct err *e)
{
    struct hunt h = {0};
    if (!os_file_id(path, &h.id))
        return true;
    for (size_t i = 0; i < n && !h.found[0]; i++) {
        if (!inputs[i] || at(&h, inputs[i]))
            continue;
        h.dir = inputs[i];
        if (os_stat(inputs[i], NULL) == OS_DIR)
            os_list(inputs[i], in_folder, &h, NULL);
        else
            in_parts(&h, inputs[i]);
    }
    if (!h.found[0])
        return true;
    if (strcmp(h.found, path) == 0)
        err_set(e, ERR_USER, "%s %s would overwrite an input", what, path);
    else
        err_set(e, ERR_USER, "%s %s would overwrite an input: %s", what, path, h.found);
    return err_hint(e, "inputs are never overwritten: choose another path");
}

/* ---- kinds ---- */

bool out_file_check(const char *path, struct err *e)
{
    char dir[4096];
    if (strlen(path) >= sizeof dir - 64)
        return err_set(e, ERR_USER, "the path %.100s... is too long", path);
    const char *name = os_path_split(path, dir, sizeof dir);
    if (!name[0]) {
        err_set(e, ERR_USER, "%s is a folder, but the result is a file", path);
        return err_hint(e, "give the name of a file in it");
    }
    if (!os_out_check(path, e))
        return false;
    if (os_stat(dir, NULL) == OS_DIR)
        return true;
    err_set(e, ERR_USER, "there is no folder %s to write into", dir);
    return err_hint(e, "create it, or give another path with -o");
}

bool out_folder_check(const char *path, struct err *e)
{
    char to[4096];
    if (os_is_link(path)) {
        err_set(e, ERR_USER, "%s is a link, but the result must be a folder of its own", path);
        return os_real_path(path, to, sizeof to) ? err_hint(e, "give the path it points to: %.400s", to)
                                                 : err_hint(e, "remove the link, or give another path");
    }
    switch (os_stat(path, NULL)) {
    case OS_FILE:
        err_set(e, ERR_USER, "the output %s is a file, not a folder", path);
        return err_hint(e, "give a new folder with -o");
    case OS_OTHER:
        err_set(e, ERR_USER, "the output %s is a device or a pipe, not a folder", path);
        return err_hint(e, "give a new folder with -o");
    case OS_DIR:
    case OS_ABSENT:
        break;
    }
    return true;
}

bool out_fits(const char *what, const char *path, uint64_t bytes, const char *option, struct err *e)
{
    char need[24], have[24];
    uint64_t left;
    if (!os_disk_free(path, &left, NULL) || bytes <= left)
        return true;
    err_set(e, ERR_ENV, "not enough disk space: %s are needed for %s %s, %s are free",
            format_bytes(bytes, need, sizeof need), what, path, format_bytes(left, have, sizeof have));
    return err_hint(e, "free some space, or choose another place with %s", option);
}

void out_tell_replaced(const char *path, bool learned)
{
    char config[4096];
    enum os_kind kind = os_stat(path, NULL);
    if (kind != OS_FILE && (kind != OS_DIR || !os_path_join(config, sizeof config, path, "config.json", NULL) ||
                            os_stat(config, NULL) != OS_FILE))
        return;
    if (learned)
        log_warn("%s holds the result of another run, which is replaced", path);
    else
        log_info("%s holds an earlier result, which is replaced", path);
}

bool out_foreign(const char *path, struct err *e)
{
    err_set(e, ERR_USER, "%s exists, and gsq did not write it", path);
    return err_hint(e, "choose another path, or overwrite it with --force");
}

/* ---- locks ---- */

bool out_lock_at(struct os_lock *l, const char *lock_path, const char *path, struct err *e)
{
    char holder[128];
    if (!comm_leads())
        return true; /* nothing is written by this rank */
    switch (os_lock(l, lock_path, holder, e)) {
    case OS_LOCKED:
        return true;
    case OS_LOCK_BUSY:
        break;
    case OS_LOCK_FAILED:
        return err_context(e, "%s cannot be written", path);
    }
    char *host = strchr(holder, ' ');
    if (host)
        *host++ = 0;
    err_set(e, ERR_ENV, "another gsq is writing %s%s%s%s%s", path, holder[0] ? ": process " : "", holder,
            host && host[0] ? " on " : "", host ? host : "");
    return err_hint(e, "wait until it is done, or give this run a path of its own");
}

bool out_lock_file(struct os_lock *l, const char *path, struct err *e)
{
    char name[4096];
    int n = snprintf(name, sizeof name, "%s%s", path, OUT_LOCK_NAME);
    if (n < 0 || (size_t)n >= sizeof name)
        return err_set(e, ERR_USER, "the path %.100s... is too long", path);
    return out_lock_at(l, name, path, e);
}

bool out_lock_folder(struct os_lock *l, const char *path, struct err *e)
{
    char name[4096];
    if (!os_mkdirs(path, e) || !os_path_join(name, sizeof name, path, OUT_LOCK_NAME, e) ||
        !out_lock_at(l, name, path, e))
        return false;
    os_out_clean(path);
    return true;
}
