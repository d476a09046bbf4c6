/* The parts of os.h that are the same on every system. */
#include "host/base/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool os_path_join(char *out, size_t cap, const char *dir, const char *name, struct err *e)
{
    size_t n = strlen(dir);
    const char *slash = n == 0 || dir[n - 1] == '/' ? "" : "/";
    int len = snprintf(out, cap, "%s%s%s", dir, slash, name);
    if (len < 0 || (size_t)len >= cap)
        return err_set(e, ERR_USER, "the path is too long: %.200s/%.200s", dir, name);
    return true;
}

bool os_write_file(const char *path, const void *data, size_t size, struct err *e)
{
    char tmp[4096];
    int n = snprintf(tmp, sizeof tmp, "%s.tmp", path);
    if (n < 0 || (size_t)n >= sizeof tmp)
        return err_set(e, ERR_USER, "the path is too long: %.200s", path);
    FILE *f = os_fopen(tmp, "wb");
    if (!f) {
        err_set(e, ERR_USER, "cannot create %s: %s", tmp, strerror(errno));
        return err_hint(e, "check that the folder exists and is writable");
    }
    bool ok = fwrite(data, 1, size, f) == size;
    if (!ok) {
        err_set(e, ERR_ENV, "cannot write %s: %s", tmp, strerror(errno));
        err_hint(e, "free some space or choose another folder");
    }
    ok = ok && os_sync_file(f, tmp, e);
    if (fclose(f) != 0 && ok)
        ok = err_set(e, ERR_ENV, "cannot write %s: %s", tmp, strerror(errno));
    ok = ok && os_rename(tmp, path, e);
    if (!ok)
        os_remove(tmp);
    return ok;
}

bool os_read_file(const char *path, uint64_t max, char **data, size_t *size, struct err *e)
{
    struct os_map m;
    if (!os_map_file(&m, path, e))
        return false;
    bool ok = false;
    *data = NULL;
    if (m.size > max) {
        err_set(e, ERR_USER, "%s is too large: %llu bytes, at most %llu are expected", path,
                (unsigned long long)m.size, (unsigned long long)max);
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
