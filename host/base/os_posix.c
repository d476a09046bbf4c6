#if !defined(_WIN32)
#define _GNU_SOURCE /* MAP_ANONYMOUS, madvise, sysconf extras; used here only */
#include "host/base/os_parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "host/base/grow.h"

static bool sys_error(struct err *e, const char *what, const char *path)
{
    int code = errno;
    bool env = code == ENOSPC || code == EIO || code == ENOMEM || code == EDQUOT || code == EMFILE || code == EFBIG;
    err_set(e, env ? ERR_ENV : ERR_USER, "cannot %s %s: %s", what, path, strerror(code));
    if (code == ENOSPC || code == EDQUOT)
        err_hint(e, "free some space or choose another folder; finished blocks are kept, a rerun resumes");
    else if (code == EFBIG)
        err_hint(e, "the file would grow past a limit of this session (ulimit -f) or of the file system");
    else if (code == EACCES || code == EPERM || code == EROFS)
        err_hint(e, "check the permissions of that path");
    else if (code == ENOENT)
        err_hint(e, "check the spelling of the path");
    else if (code == EEXIST || code == ENOTDIR)
        err_hint(e, "a file is where a folder is needed: choose another path");
    return false;
}

bool os_map_file(struct os_map *out, const char *path, struct err *e)
{
    *out = (struct os_map){0};
    /* Opening a pipe for reading waits for a writer, unless it is told not to. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return sys_error(e, "open", path);
    struct stat st;
    if (fstat(fd, &st) != 0) {
        sys_error(e, "read", path);
        close(fd);
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        err_set(e, ERR_USER, "%s is not a regular file", path);
        return err_hint(e, "give the path of a file");
    }
    if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            sys_error(e, "map", path);
            close(fd);
            return false;
        }
        out->data = p;
        out->size = (uint64_t)st.st_size;
        struct os_file_id id = {(uint64_t)st.st_dev, (uint64_t)st.st_ino};
        os_range_add(p, out->size, &id, path);
    }
    close(fd);
    return true;
}

void os_unmap(struct os_map *m)
{
    if (m->data) {
        os_range_remove(m->data);
        munmap((void *)m->data, (size_t)m->size);
    }
    *m = (struct os_map){0};
}

void os_map_drop(const struct os_map *m, uint64_t offset, uint64_t size)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t first = (offset + page - 1) / page * page, end = (offset + size) / page * page;
    if (m->data && end > first && end <= m->size)
        madvise((void *)(m->data + first), (size_t)(end - first), MADV_DONTNEED);
}

void os_map_fetch(const struct os_map *m, uint64_t offset, uint64_t size)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), first = offset / page * page;
    if (m->data && size && offset + size <= m->size)
        madvise((void *)(m->data + first), (size_t)(offset + size - first), MADV_WILLNEED);
}

bool os_map_scratch(struct os_map *out, const char *dir, uint64_t size, struct err *e)
{
    *out = (struct os_map){0};
    char path[4096];
    if (!os_path_join(path, sizeof path, dir, "gsq-scratch-XXXXXX", e))
        return false;
    int fd = mkstemp(path);
    if (fd < 0)
        return sys_error(e, "create a scratch file in", dir);
    unlink(path); /* gone with the last reference, also after a crash */
    /* Reserve the blocks now: a full disk must be an error here, not a SIGBUS later. */
    int rc = posix_fallocate(fd, 0, (off_t)size);
    if (rc != 0) {
        errno = rc;
        sys_error(e, "reserve scratch space in", dir);
        close(fd);
        return false;
    }
    struct stat st = {0};
    fstat(fd, &st);
    void *p = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return sys_error(e, "map a scratch file in", dir);
    out->data = p;
    out->size = size;
    struct os_file_id id = {(uint64_t)st.st_dev, (uint64_t)st.st_ino};
    os_range_add(p, size, &id, path);
    return true;
}

static pthread_mutex_t ranges_mutex = PTHREAD_MUTEX_INITIALIZER;

void os_ranges_lock(void)
{
    pthread_mutex_lock(&ranges_mutex);
}

void os_ranges_unlock(void)
{
    pthread_mutex_unlock(&ranges_mutex);
}

bool os_file_id(const char *path, struct os_file_id *out)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return false;
    *out = (struct os_file_id){(uint64_t)st.st_dev, (uint64_t)st.st_ino};
    return true;
}

bool os_is_link(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

bool os_real_path(const char *path, char *out, size_t cap)
{
    char *real = realpath(path, NULL);
    int n = real ? snprintf(out, cap, "%s", real) : -1;
    free(real);
    return n >= 0 && (size_t)n < cap;
}

uint64_t os_process_id(void)
{
    return (uint64_t)getpid();
}

/* ---- files that one process has ---- */

/* Whether the path is still that of the open file. */
static bool still_named(int fd, const char *path)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

FILE *os_create_new(const char *path, struct os_guard *g)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return NULL;
    /* Not locked yet, it may have been taken for one left behind. */
    flock(fd, LOCK_EX | LOCK_NB);
    FILE *f = still_named(fd, path) ? fdopen(fd, "wb") : NULL;
    if (!f) {
        int code = still_named(fd, path) ? errno : EEXIST;
        if (code != EEXIST)
            unlink(path);
        close(fd);
        errno = code;
        return NULL;
    }
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* of the same open file: the lock lasts as long as either */
    g->held = copy < 0 ? 0 : copy + 1;
    return f;
}

void os_unguard(struct os_guard *g)
{
    if (g->held)
        close((int)g->held - 1);
    g->held = 0;
}

void os_remove_stale(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && flock(fd, LOCK_EX | LOCK_NB) == 0 && still_named(fd, path))
        unlink(path);
    close(fd);
}

static void read_holder(int fd, char holder[128])
{
    ssize_t n = pread(fd, holder, 127, 0);
    holder[n > 0 ? n : 0] = 0;
    holder[strcspn(holder, "\n")] = 0;
}

static void write_holder(int fd)
{
    char host[64] = "", text[128];
    os_host_name(host, sizeof host);
    int n = snprintf(text, sizeof text, "%ld %s\n", (long)getpid(), host);
    /* Only for messages: a full disk is found elsewhere. */
    if (ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)n, 0) < 0)
        return;
}

enum os_locked os_lock(struct os_lock *l, const char *path, char holder[128], struct err *e)
{
    struct stat st;
    holder[0] = 0;
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0666);
        if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
            if (fd >= 0) {
                close(fd);
                errno = EEXIST;
            }
            sys_error(e, "create", path);
            return OS_LOCK_FAILED;
        }
        if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
            read_holder(fd, holder);
            close(fd);
            return OS_LOCK_BUSY;
        }
        if (still_named(fd, path)) {
            write_holder(fd);
            l->held = fd + 1;
            l->path = strdup(path);
            return OS_LOCKED;
        }
        close(fd); /* its holder removed it in between */
    }
}

void os_unlock(struct os_lock *l)
{
    if (!l->held)
        return;
    if (l->path && still_named((int)l->held - 1, l->path))
        unlink(l->path);
    close((int)l->held - 1);
    free(l->path);
    *l = (struct os_lock){0};
}

FILE *os_fopen(const char *path, const char *mode)
{
    return fopen(path, mode);
}

bool os_seek(FILE *f, uint64_t at)
{
    return fseeko(f, (off_t)at, SEEK_SET) == 0;
}

FILE *os_open_null(void)
{
    return fopen("/dev/null", "wb");
}

bool os_sync_file(FILE *f, const char *path, struct err *e)
{
    if (fflush(f) != 0 || fsync(fileno(f)) != 0)
        return sys_error(e, "write", path);
    return true;
}

bool os_rename(const char *from, const char *to, struct err *e)
{
    if (rename(from, to) != 0)
        return sys_error(e, "rename a finished file to", to);
    /* The new name is durable only once its folder is. */
    char dir[4096];
    snprintf(dir, sizeof dir, "%s", to);
    char *slash = strrchr(dir, '/');
    if (slash)
        *(slash == dir ? slash + 1 : slash) = 0;
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    return true;
}

enum os_kind os_stat(const char *path, uint64_t *size_or_null)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return OS_ABSENT;
    if (size_or_null)
        *size_or_null = (uint64_t)st.st_size;
    return S_ISREG(st.st_mode) ? OS_FILE : S_ISDIR(st.st_mode) ? OS_DIR : OS_OTHER;
}

bool os_mkdirs(const char *path, struct err *e)
{
    char part[4096];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return err_set(e, ERR_USER, "the path is empty or too long: %.200s", path);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdir(part, 0777) == 0)
            continue;
        int code = errno;
        if (os_stat(part, NULL) == OS_DIR)
            continue;
        errno = code;
        return sys_error(e, "create the folder", part);
    }
    return true;
}

bool os_remove(const char *path)
{
    return unlink(path) == 0 || errno == ENOENT;
}

bool os_remove_dir(const char *path)
{
    return rmdir(path) == 0;
}

static bool remove_entry(void *ctx, const char *name, struct err *e)
{
    char path[4096];
    struct stat st;
    if (!os_path_join(path, sizeof path, ctx, name, e))
        return false;
    if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return os_remove_tree(path);
    return os_remove(path);
}

bool os_remove_tree(const char *path)
{
    if (os_stat(path, NULL) == OS_ABSENT)
        return true;
    return os_list(path, remove_entry, (void *)path, NULL) && rmdir(path) == 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

bool os_list(const char *path, bool (*fn)(void *ctx, const char *name, struct err *e), void *ctx, struct err *e)
{
    DIR *d = opendir(path);
    if (!d)
        return sys_error(e, "list the folder", path);
    char **names = NULL;
    size_t n = 0, cap = 0;
    bool ok = true;
    for (struct dirent *entry; (entry = readdir(d));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char **grown = grow(names, &cap, n, sizeof *names, "a folder listing", e);
        if (!(ok = grown != NULL))
            break;
        names = grown;
        names[n] = strdup(entry->d_name);
        if (!names[n]) {
            ok = err_nomem(e, "a folder listing", strlen(entry->d_name));
            break;
        }
        n++;
    }
    closedir(d);
    if (n)
        qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        ok = ok && fn(ctx, names[i], e);
        free(names[i]);
    }
    free(names);
    return ok;
}

bool os_disk_free(const char *path, uint64_t *bytes, uint64_t *device_or_null)
{
    char dir[4096];
    snprintf(dir, sizeof dir, "%s", path);
    while (os_stat(dir, NULL) == OS_ABSENT) {
        char *slash = strrchr(dir, '/');
        if (!slash || slash == dir) {
            snprintf(dir, sizeof dir, "%s", slash ? "/" : ".");
            break;
        }
        *slash = 0;
    }
    struct statvfs st;
    struct os_file_id id;
    if (device_or_null)
        *device_or_null = os_file_id(dir, &id) ? id.device : 0;
    bool known = statvfs(dir, &st) == 0;
    *bytes = known ? (uint64_t)st.f_bavail * st.f_frsize : 0;
    return known;
}

uint64_t os_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void os_sleep_ms(unsigned ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

/* A "Name:   123 kB" line of a /proc file, in bytes; 0 where it is missing. */
static uint64_t proc_kb(const char *file, const char *name)
{
    FILE *f = fopen(file, "r");
    if (!f)
        return 0;
    char line[256];
    size_t n = strlen(name);
    uint64_t bytes = 0;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, name, n) == 0 && line[n] == ':') {
            bytes = strtoull(line + n + 1, NULL, 10) * 1024;
            break;
        }
    }
    fclose(f);
    return bytes;
}

uint64_t os_peak_rss(void)
{
    uint64_t peak = proc_kb("/proc/self/status", "VmHWM");
    if (peak)
        return peak;
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (uint64_t)u.ru_maxrss * 1024 : 0;
}

uint64_t os_peak_anon(void)
{
    /* The system keeps no peak of this one: the current value is a lower bound, sampled by callers. */
    return proc_kb("/proc/self/status", "RssAnon");
}

uint64_t os_memory_total(void)
{
    uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE), limit, used;
    os_cgroup_memory("/proc/self/cgroup", "/sys/fs/cgroup", &limit, &used);
    return limit < all ? limit : all;
}

uint64_t os_memory_available(void)
{
    uint64_t all = proc_kb("/proc/meminfo", "MemAvailable"), limit, used;
    os_cgroup_memory("/proc/self/cgroup", "/sys/fs/cgroup", &limit, &used);
    if (limit == UINT64_MAX)
        return all;
    uint64_t left = limit > used ? limit - used : 1; /* 0 would mean that nothing is known */
    return all && all < left ? all : left;
}

unsigned os_cpu_count(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (unsigned)n : 1;
}

void os_keep_awake(void) {}

/* ---- threads ---- */

struct os_thread {
    pthread_t thread;
    void (*fn)(void *ctx);
    void *ctx;
};
struct os_mutex {
    pthread_mutex_t mutex;
};
struct os_cond {
    pthread_cond_t cond;
};

static void *run_thread(void *p)
{
    struct os_thread *t = p;
    t->fn(t->ctx);
    return NULL;
}

bool os_thread_start(struct os_thread **out, void (*fn)(void *ctx), void *ctx, struct err *e)
{
    struct os_thread *t = *out = malloc(sizeof *t);
    if (!t)
        return err_nomem(e, "a thread", sizeof *t);
    *t = (struct os_thread){.fn = fn, .ctx = ctx};
    int code = pthread_create(&t->thread, NULL, run_thread, t);
    if (code == 0)
        return true;
    free(t);
    *out = NULL;
    return err_set(e, ERR_ENV, "cannot start a thread: %s", strerror(code));
}

void os_thread_join(struct os_thread **t)
{
    if (!*t)
        return;
    pthread_join((*t)->thread, NULL);
    free(*t);
    *t = NULL;
}

bool os_mutex_create(struct os_mutex **out, struct err *e)
{
    *out = malloc(sizeof **out);
    if (*out && pthread_mutex_init(&(*out)->mutex, NULL) == 0)
        return true;
    free(*out);
    *out = NULL;
    return err_nomem(e, "a lock", sizeof **out);
}

void os_mutex_destroy(struct os_mutex **m)
{
    if (*m)
        pthread_mutex_destroy(&(*m)->mutex);
    free(*m);
    *m = NULL;
}

void os_mutex_lock(struct os_mutex *m)
{
    pthread_mutex_lock(&m->mutex);
}

void os_mutex_unlock(struct os_mutex *m)
{
    pthread_mutex_unlock(&m->mutex);
}

bool os_cond_create(struct os_cond **out, struct err *e)
{
    pthread_condattr_t monotonic; /* a clock that is set must not stretch a wait */
    *out = malloc(sizeof **out);
    bool ok = *out && pthread_condattr_init(&monotonic) == 0;
    if (ok) {
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        ok = pthread_cond_init(&(*out)->cond, &monotonic) == 0;
        pthread_condattr_destroy(&monotonic);
    }
    if (ok)
        return true;
    free(*out);
    *out = NULL;
    return err_nomem(e, "a lock", sizeof **out);
}

void os_cond_destroy(struct os_cond **c)
{
    if (*c)
        pthread_cond_destroy(&(*c)->cond);
    free(*c);
    *c = NULL;
}

void os_cond_signal(struct os_cond *c)
{
    pthread_cond_broadcast(&c->cond);
}

void os_cond_wait(struct os_cond *c, struct os_mutex *m, unsigned ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += (time_t)(ms / 1000);
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&c->cond, &m->mutex, &t);
}

/* ---- the terminal ---- */

bool os_is_terminal(FILE *f)
{
    return isatty(fileno(f)) == 1;
}

unsigned os_terminal_columns(void)
{
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80;
}

const char *os_getenv(const char *name)
{
    return getenv(name);
}

void os_setenv(const char *name, const char *value, bool overwrite)
{
    setenv(name, value, overwrite);
}

bool os_cache_dir(char *out, size_t cap)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (xdg && xdg[0] == '/')
        n = snprintf(out, cap, "%s/gsq", xdg);
    else if (home && home[0])
        n = snprintf(out, cap, "%s/.cache/gsq", home);
    return n > 0 && (size_t)n < cap;
}

char **os_utf8_argv(int *argc, char **argv)
{
    (void)argc;
    return argv;
}
#else
typedef int os_posix_is_empty_here; /* ISO C forbids an empty translation unit */
#endif
