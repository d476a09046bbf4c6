#include "formats/side_file.h"

#include <string.h>

#include "host/base/log.h"
#include "host/base/out_path.h"

#define CAP 4096

/* "PATH/models--ORG--NAME/blobs/HASH": where a hub's cache keeps what its folders link to. */
static bool is_blob(const char *real)
{
    char dir[CAP], above[CAP], top[CAP];
    os_path_split(real, dir, sizeof dir);
    for (size_t n = strlen(dir); n > 1 && (dir[n - 1] == '/' || dir[n - 1] == '\\'); n--)
        dir[n - 1] = 0;
    if (strcmp(os_path_split(dir, above, sizeof above), "blobs") != 0)
        return false;
    for (size_t n = strlen(above); n > 1 && (above[n - 1] == '/' || above[n - 1] == '\\'); n--)
        above[n - 1] = 0;
    return strncmp(os_path_split(above, top, sizeof top), "models--", 8) == 0;
}

/* Whether a path ends in that name, which has / between its parts. */
static bool ends_in(const char *path, const char *name)
{
    size_t n = strlen(path), k = strlen(name);
    if (n <= k || (path[n - k - 1] != '/' && path[n - k - 1] != '\\'))
        return false;
    for (size_t i = 0; i < k; i++)
        if (path[n - k + i] != name[i] && !(name[i] == '/' && path[n - k + i] == '\\'))
            return false;
    return true;
}

static bool belongs(const char *dir, const char *name, const char *path, char real[CAP])
{
    char root[CAP];
    if (!os_real_path(path, real, CAP) || !os_real_path(dir, root, sizeof root))
        return false;
    size_t n = strlen(root);
    bool inside = strncmp(real, root, n) == 0 && (real[n] == '/' || real[n] == '\\');
    return inside || is_blob(real) || ends_in(real, name);
}

bool side_file_there(const char *path, bool *there, struct err *e)
{
    enum os_kind kind = os_stat(path, NULL);
    *there = kind == OS_FILE;
    if (kind == OS_ABSENT && os_is_link(path)) {
        err_set(e, ERR_USER, "%s is a broken link", path);
        return err_hint(e, "download the file again, or remove the link if the model has no such file");
    }
    if (kind == OS_ABSENT || kind == OS_FILE)
        return true;
    err_set(e, ERR_USER, "%s is not a regular file", path);
    return err_hint(e, "put the model's file there, or remove this if the model has no such file");
}

bool side_file(const char *dir, const char *name, bool warn, char *path, uint64_t *size_or_null)
{
    char real[CAP] = "", above[CAP];
    if (!os_path_join(path, CAP, dir, name, NULL) || os_stat(path, size_or_null) != OS_FILE)
        return false;
    os_path_split(path, above, sizeof above);
    out_trim(above);
    if (!(os_is_link(path) || (strchr(name, '/') && os_is_link(above))) || belongs(dir, name, path, real))
        return true;
    if (warn)
        log_warn("%s is left out: it is a link to %s, which is not one of the model's files", path, real);
    return false;
}
