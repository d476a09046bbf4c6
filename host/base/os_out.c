/* The one place where files of results are opened: under a name of their own that nobody else has, to appear
 * under the right one when they are whole. Of several ranks the one that leads writes; the others' files go nowhere. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/comm.h"
#include "host/base/os.h"
#include "host/base/stop_point.h"
#include "host/base/str.h"

#define TMP_END ".gsq-tmp"

bool os_write_failed(const char *path, struct err *e)
{
    int code = errno;
    err_set(e, ERR_ENV, "cannot write %s: %s", path, strerror(code));
    if (code == EFBIG)
        return err_hint(e, "the file would grow past a limit of this session (ulimit -f) or of the file system");
    return err_hint(e, "free some space or choose another folder");
}

/* ---- names in between ---- */

struct family {
    const char *dir, *base; /* base NULL: every file of the folder */
};

/* "model.gguf.1234-1.gsq-tmp". */
static bool is_tmp(const char *name, const char *base)
{
    size_t n = strlen(name), end = strlen(TMP_END), front = base ? strlen(base) : 0;
    if (n <= front + end || strcmp(name + n - end, TMP_END) != 0)
        return false;
    if (!base)
        return true;
    return memcmp(name, base, front) == 0 && name[front] == '.' &&
           front + 1 + strspn(name + front + 1, "0123456789-") == n - end;
}

static bool remove_left(void *ctx, const char *name, struct err *e)
{
    const struct family *f = ctx;
    char path[4096];
    if (is_tmp(name, f->base) && os_path_join(path, sizeof path, f->dir, name, e))
        os_remove_stale(path);
    return true;
}

void os_out_clean(const char *dir)
{
    struct family f = {.dir = dir};
    if (!comm_leads())
        return;
    os_list(dir, remove_left, &f, NULL);
}

/* Of one output. */
static void clean_family(const char *path)
{
    char dir[4096];
    const char *base = os_path_split(path, dir, sizeof dir);
    struct family f = {.dir = dir, .base = base};
    os_list(dir, remove_left, &f, NULL);
}

/* ---- one file ---- */

bool os_out_check(const char *path, struct err *e)
{
    struct os_file_id id;
    if (os_is_link(path)) {
        char to[4096];
        err_set(e, ERR_USER, "%s is a link, but the result must be a file of its own", path);
        return os_real_path(path, to, sizeof to) ? err_hint(e, "give the path it points to: %.400s", to)
                                                 : err_hint(e, "remove the link, or give another path");
    }
    switch (os_stat(path, NULL)) {
    case OS_DIR:
        err_set(e, ERR_USER, "%s is a folder, but the result is a file", path);
        return err_hint(e, "give the name of a file in it");
    case OS_OTHER:
        err_set(e, ERR_USER, "%s is a device or a pipe, but the result is a file", path);
        return err_hint(e, "give the path of a new file: the result is written beside it and renamed when complete");
    case OS_FILE:
        if (!os_file_id(path, &id) || !os_is_mapped(&id))
            return true;
        err_set(e, ERR_USER, "%s is one of the input files", path);
        return err_hint(e, "choose another path for the result");
    case OS_ABSENT:
        break;
    }
    return true;
}

static bool open_new(struct os_out *o, struct err *e)
{
    static atomic_uint counter;
    struct strbuf tmp = {0};
    for (int tries = 0; tries < 100; tries++) {
        strbuf_puts(&tmp, o->path);
        strbuf_printf(&tmp, ".%llu-%u" TMP_END, (unsigned long long)os_process_id(), atomic_fetch_add(&counter, 1) + 1);
        if (tmp.failed)
            return err_nomem(e, "a path", strlen(o->path));
        o->tmp = tmp.data;
        o->file = os_create_new(o->tmp, &o->guard);
        if (o->file)
            return true;
        if (errno != EEXIST)
            break;
        tmp.size = 0;
    }
    err_set(e, ERR_USER, "cannot create %s: %s", o->path, strerror(errno));
    return err_hint(e, "check that the folder exists and is writable");
}

/* What is written there is gone. */
static bool open_nowhere(struct os_out *o, struct err *e)
{
    o->file = os_open_null();
    return o->file || err_set(e, ERR_ENV, "the null device cannot be opened: %s", strerror(errno));
}

bool os_out_open(struct os_out *o, const char *path, struct err *e)
{
    *o = (struct os_out){0};
    if (!os_out_check(path, e))
        return false;
    if (comm_leads())
        clean_family(path);
    o->path = str_dup(path);
    if (o->path ? (comm_leads() ? open_new(o, e) : open_nowhere(o, e)) : err_nomem(e, "a path", strlen(path)))
        return true;
    os_out_abort(o);
    return false;
}

bool os_out_put(struct os_out *o, const void *data, size_t size, struct err *e)
{
    if (size && fwrite(data, 1, size, o->file) != size)
        return os_write_failed(o->path, e);
    return true;
}

bool os_out_seek(struct os_out *o, uint64_t at, struct err *e)
{
    return os_seek(o->file, at) || os_write_failed(o->path, e);
}

bool os_out_close(struct os_out *o, struct err *e)
{
    bool ok = !o->tmp || os_sync_file(o->file, o->path, e);
    if (fclose(o->file) != 0 && ok)
        ok = os_write_failed(o->path, e);
    o->file = NULL;
    if (ok && o->tmp) {
        stop_point("rename", os_base_name(o->path));
        ok = os_rename(o->tmp, o->path, e);
    }
    if (!ok && o->tmp)
        os_remove(o->tmp);
    os_out_abort(o);
    return ok;
}

void os_out_abort(struct os_out *o)
{
    if (o->file) {
        fclose(o->file);
        if (o->tmp)
            os_remove(o->tmp);
    }
    os_unguard(&o->guard);
    free(o->path);
    free(o->tmp);
    *o = (struct os_out){0};
}

bool os_write_file(const char *path, const void *data, size_t size, struct err *e)
{
    struct os_out o;
    if (!os_out_open(&o, path, e))
        return false;
    if (os_out_put(&o, data, size, e))
        return os_out_close(&o, e);
    os_out_abort(&o);
    return false;
}
