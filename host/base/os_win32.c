#if defined(_WIN32)
#include "host/base/os_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <process.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include <windows.h>
/* after windows.h */
#include <psapi.h>
#include <shellapi.h>

#include "host/base/grow.h"
#include "host/base/str.h"

/* Longest path, in UTF-16 units. */
#define PATH_CAP 4096

/* ---- UTF-8 and UTF-16 ---- */

/* False (and ERROR_BAD_PATHNAME) if the text is not UTF-8 or too long. */
static bool widen(const char *s, wchar_t *out, int cap)
{
    if (MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, s, -1, out, cap) > 0)
        return true;
    SetLastError(ERROR_BAD_PATHNAME);
    return false;
}

/* malloc'ed; NULL when out of memory. */
static char *narrow(const wchar_t *w)
{
    int n = WideCharToMultiByte(CP_UTF8, 0, w, -1, NULL, 0, NULL, NULL);
    char *s = n > 0 ? malloc((size_t)n) : NULL;
    if (s)
        WideCharToMultiByte(CP_UTF8, 0, w, -1, s, n, NULL, NULL);
    return s;
}

static bool sys_error(struct err *e, const char *what, const char *path)
{
    DWORD code = GetLastError();
    wchar_t wide[256] = L"";
    char text[512] = "";
    FormatMessageW(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL, code, 0, wide, 256, NULL);
    WideCharToMultiByte(CP_UTF8, 0, wide, -1, text, sizeof text, NULL, NULL);
    for (size_t n = strlen(text); n && (unsigned char)text[n - 1] <= '.'; n--)
        text[n - 1] = 0; /* the full stop and the end of line */
    bool full = code == ERROR_DISK_FULL || code == ERROR_HANDLE_DISK_FULL;
    bool env = full || code == ERROR_NOT_ENOUGH_MEMORY || code == ERROR_OUTOFMEMORY || code == ERROR_IO_DEVICE ||
               code == ERROR_TOO_MANY_OPEN_FILES || code == ERROR_COMMITMENT_LIMIT;
    err_set(e, env ? ERR_ENV : ERR_USER, "cannot %s %s: %s (%lu)", what, path, text, (unsigned long)code);
    if (full)
        err_hint(e, "free some space or choose another folder; finished blocks are kept, a rerun resumes");
    else if (code == ERROR_ACCESS_DENIED || code == ERROR_SHARING_VIOLATION || code == ERROR_WRITE_PROTECT)
        err_hint(e, "check the permissions of that path, and that no other program has it open");
    else if (code == ERROR_FILE_NOT_FOUND || code == ERROR_PATH_NOT_FOUND || code == ERROR_INVALID_NAME ||
             code == ERROR_BAD_PATHNAME)
        err_hint(e, "check the spelling of the path");
    else if (code == ERROR_ALREADY_EXISTS || code == ERROR_DIRECTORY)
        err_hint(e, "a file is where a folder is needed: choose another path");
    return false;
}

/* ---- mapped files ---- */

static SRWLOCK ranges_lock = SRWLOCK_INIT;

void os_ranges_lock(void)
{
    AcquireSRWLockExclusive(&ranges_lock);
}

void os_ranges_unlock(void)
{
    ReleaseSRWLockExclusive(&ranges_lock);
}

static bool id_of(HANDLE file, struct os_file_id *out)
{
    BY_HANDLE_FILE_INFORMATION info;
    if (!GetFileInformationByHandle(file, &info))
        return false;
    *out = (struct os_file_id){info.dwVolumeSerialNumber, (uint64_t)info.nFileIndexHigh << 32 | info.nFileIndexLow};
    return true;
}

bool os_file_id(const char *path, struct os_file_id *out)
{
    wchar_t wide[PATH_CAP];
    if (!widen(path, wide, PATH_CAP))
        return false;
    HANDLE file = CreateFileW(wide, 0, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING,
                              FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return false;
    bool ok = id_of(file, out);
    CloseHandle(file);
    return ok;
}

bool os_map_file(struct os_map *out, const char *path, struct err *e)
{
    wchar_t wide[PATH_CAP];
    *out = (struct os_map){0};
    if (!widen(path, wide, PATH_CAP))
        return sys_error(e, "open", path);
    enum os_kind kind = os_stat(path, NULL);
    if (kind == OS_DIR || kind == OS_OTHER) {
        err_set(e, ERR_USER, "%s is not a regular file", path);
        return err_hint(e, "give the path of a file");
    }
    HANDLE file = CreateFileW(wide, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL, OPEN_EXISTING,
                              FILE_ATTRIBUTE_NORMAL, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return sys_error(e, "open", path);
    LARGE_INTEGER size;
    bool ok = GetFileSizeEx(file, &size) || sys_error(e, "read", path);
    if (ok && size.QuadPart > 0) {
        /* The view keeps the file open: both handles can go. */
        HANDLE mapping = CreateFileMappingW(file, NULL, PAGE_READONLY, 0, 0, NULL);
        out->data = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : NULL;
        ok = out->data || sys_error(e, "map", path);
        if (mapping)
            CloseHandle(mapping);
        out->size = ok ? (uint64_t)size.QuadPart : 0;
        struct os_file_id id = {0};
        if (ok && id_of(file, &id))
            os_range_add(out->data, out->size, &id, path);
    }
    CloseHandle(file);
    return ok;
}

void os_unmap(struct os_map *m)
{
    if (m->data) {
        os_range_remove(m->data);
        UnmapViewOfFile(m->data);
    }
    if (m->handle)
        CloseHandle(m->handle);
    *m = (struct os_map){0};
}

void os_map_drop(const struct os_map *m, uint64_t offset, uint64_t size)
{
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    uint64_t page = info.dwPageSize;
    uint64_t first = (offset + page - 1) / page * page, end = (offset + size) / page * page;
    /* Unlocking pages that were never locked takes them out of the working set. */
    if (m->data && end > first && end <= m->size)
        VirtualUnlock((void *)(uintptr_t)(m->data + first), (SIZE_T)(end - first));
}

void os_map_fetch(const struct os_map *m, uint64_t offset, uint64_t size)
{
    WIN32_MEMORY_RANGE_ENTRY range = {(void *)(uintptr_t)(m->data + offset), (SIZE_T)size};
    if (m->data && size && offset + size <= m->size)
        PrefetchVirtualMemory(GetCurrentProcess(), 1, &range, 0);
}

bool os_map_scratch(struct os_map *out, const char *dir, uint64_t size, struct err *e)
{
    static unsigned counter;
    char name[64], path[PATH_CAP];
    wchar_t wide[PATH_CAP];
    *out = (struct os_map){0};
    snprintf(name, sizeof name, "gsq-scratch-%lu-%u", (unsigned long)GetCurrentProcessId(), ++counter);
    if (!os_path_join(path, sizeof path, dir, name, e))
        return false;
    if (!widen(path, wide, PATH_CAP))
        return sys_error(e, "create a scratch file in", dir);
    HANDLE file = CreateFileW(wide, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_DELETE, NULL, CREATE_ALWAYS,
                              FILE_ATTRIBUTE_TEMPORARY | FILE_FLAG_DELETE_ON_CLOSE, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return sys_error(e, "create a scratch file in", dir);
    /* Reserves the clusters: a full disk is an error here, not a fault later. */
    LARGE_INTEGER end = {.QuadPart = (LONGLONG)size};
    if (!SetFilePointerEx(file, end, NULL, FILE_BEGIN) || !SetEndOfFile(file)) {
        sys_error(e, "reserve scratch space in", dir);
        CloseHandle(file);
        return false;
    }
    HANDLE mapping = CreateFileMappingW(file, NULL, PAGE_READWRITE, 0, 0, NULL);
    out->data = mapping ? MapViewOfFile(mapping, FILE_MAP_READ | FILE_MAP_WRITE, 0, 0, 0) : NULL;
    if (!out->data)
        sys_error(e, "map a scratch file in", dir);
    if (mapping)
        CloseHandle(mapping);
    if (!out->data) {
        CloseHandle(file);
        return false;
    }
    out->size = size;
    out->handle = file; /* closing it deletes the file */
    struct os_file_id id = {0};
    id_of(file, &id);
    os_range_add(out->data, size, &id, path);
    return true;
}

/* ---- files and folders ---- */

bool os_is_link(const char *path)
{
    wchar_t wide[PATH_CAP];
    WIN32_FIND_DATAW d;
    if (!widen(path, wide, PATH_CAP))
        return false;
    DWORD attributes = GetFileAttributesW(wide);
    if (attributes == INVALID_FILE_ATTRIBUTES || !(attributes & FILE_ATTRIBUTE_REPARSE_POINT))
        return false;
    HANDLE find = FindFirstFileW(wide, &d);
    if (find == INVALID_HANDLE_VALUE)
        return false;
    FindClose(find);
    return d.dwReserved0 == IO_REPARSE_TAG_SYMLINK || d.dwReserved0 == IO_REPARSE_TAG_MOUNT_POINT;
}

bool os_real_path(const char *path, char *out, size_t cap)
{
    wchar_t wide[PATH_CAP], real[PATH_CAP];
    if (!widen(path, wide, PATH_CAP))
        return false;
    HANDLE file = CreateFileW(wide, 0, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING,
                              FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return false;
    DWORD n = GetFinalPathNameByHandleW(file, real, PATH_CAP, FILE_NAME_NORMALIZED);
    CloseHandle(file);
    char *text = n && n < PATH_CAP ? narrow(real) : NULL;
    int len = text ? snprintf(out, cap, "%s", strncmp(text, "\\\\?\\", 4) == 0 ? text + 4 : text) : -1;
    free(text);
    return len >= 0 && (size_t)len < cap;
}

uint64_t os_process_id(void)
{
    return GetCurrentProcessId();
}

/* ---- files that one process has ---- */

static int errno_of(DWORD code)
{
    switch (code) {
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS:
        return EEXIST;
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_INVALID_NAME:
    case ERROR_BAD_PATHNAME:
        return ENOENT;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
        return ENOSPC;
    default:
        return EACCES;
    }
}

/* An open file that does not share deleting is all the guard there need be. */
FILE *os_create_new(const char *path, struct os_guard *g)
{
    wchar_t wide[PATH_CAP];
    (void)g;
    HANDLE file = widen(path, wide, PATH_CAP)
                      ? CreateFileW(wide, GENERIC_WRITE, FILE_SHARE_READ, NULL, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, NULL)
                      : INVALID_HANDLE_VALUE;
    if (file == INVALID_HANDLE_VALUE) {
        errno = errno_of(GetLastError());
        return NULL;
    }
    int fd = _open_osfhandle((intptr_t)file, _O_BINARY);
    FILE *f = fd >= 0 ? _fdopen(fd, "wb") : NULL;
    if (!f) {
        fd >= 0 ? (void)_close(fd) : (void)CloseHandle(file);
        DeleteFileW(wide);
        errno = EMFILE;
    }
    return f;
}

void os_unguard(struct os_guard *g)
{
    g->held = 0;
}

void os_remove_stale(const char *path)
{
    wchar_t wide[PATH_CAP];
    if (!os_is_link(path) && os_stat(path, NULL) == OS_FILE && widen(path, wide, PATH_CAP))
        DeleteFileW(wide);
}

enum os_locked os_lock(struct os_lock *l, const char *path, char holder[128], struct err *e)
{
    wchar_t wide[PATH_CAP];
    char host[64] = "";
    DWORD put;
    holder[0] = 0;
    HANDLE file = widen(path, wide, PATH_CAP) && !os_is_link(path)
                      ? CreateFileW(wide, GENERIC_READ | GENERIC_WRITE | DELETE, FILE_SHARE_READ, NULL, OPEN_ALWAYS,
                                    FILE_FLAG_DELETE_ON_CLOSE, NULL)
                      : INVALID_HANDLE_VALUE;
    if (file == INVALID_HANDLE_VALUE && GetLastError() == ERROR_SHARING_VIOLATION) {
        file = CreateFileW(wide, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                           OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, NULL);
        DWORD got = 0;
        if (file != INVALID_HANDLE_VALUE) {
            if (ReadFile(file, holder, 127, &got, NULL))
                holder[got] = 0;
            CloseHandle(file);
        }
        holder[strcspn(holder, "\n")] = 0;
        return OS_LOCK_BUSY;
    }
    if (file == INVALID_HANDLE_VALUE) {
        sys_error(e, "create", path);
        return OS_LOCK_FAILED;
    }
    os_host_name(host, sizeof host);
    char text[128];
    int n = snprintf(text, sizeof text, "%lu %s\n", (unsigned long)GetCurrentProcessId(), host);
    SetEndOfFile(file);
    WriteFile(file, text, (DWORD)n, &put, NULL);
    FlushFileBuffers(file);
    l->held = (intptr_t)file;
    return OS_LOCKED;
}

void os_unlock(struct os_lock *l)
{
    if (l->held)
        CloseHandle((HANDLE)l->held); /* deletes it */
    *l = (struct os_lock){0};
}

FILE *os_fopen(const char *path, const char *mode)
{
    wchar_t wide[PATH_CAP], wide_mode[16];
    if (!widen(path, wide, PATH_CAP) || !widen(mode, wide_mode, 16)) {
        errno = EINVAL;
        return NULL;
    }
    return _wfopen(wide, wide_mode);
}

bool os_seek(FILE *f, uint64_t at)
{
    return _fseeki64(f, (int64_t)at, SEEK_SET) == 0;
}

FILE *os_open_null(void)
{
    return fopen("NUL", "wb");
}

bool os_sync_file(FILE *f, const char *path, struct err *e)
{
    if (fflush(f) == 0) {
        HANDLE h = (HANDLE)_get_osfhandle(_fileno(f));
        if (FlushFileBuffers(h))
            return true;
    }
    return sys_error(e, "write", path);
}

bool os_rename(const char *from, const char *to, struct err *e)
{
    wchar_t a[PATH_CAP], b[PATH_CAP];
    if (widen(from, a, PATH_CAP) && widen(to, b, PATH_CAP) &&
        MoveFileExW(a, b, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH))
        return true;
    return sys_error(e, "rename a finished file to", to);
}

enum os_kind os_stat(const char *path, uint64_t *size_or_null)
{
    wchar_t wide[PATH_CAP];
    WIN32_FILE_ATTRIBUTE_DATA d;
    wchar_t full[PATH_CAP];
    if (!widen(path, wide, PATH_CAP))
        return OS_ABSENT;
    /* NUL, CON, COM1 in any folder. */
    DWORD n = GetFullPathNameW(wide, PATH_CAP, full, NULL);
    if (n && n < PATH_CAP && wcsncmp(full, L"\\\\.\\", 4) == 0)
        return OS_OTHER;
    if (!GetFileAttributesExW(wide, GetFileExInfoStandard, &d))
        return OS_ABSENT;
    if (size_or_null)
        *size_or_null = (uint64_t)d.nFileSizeHigh << 32 | d.nFileSizeLow;
    if (d.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY)
        return OS_DIR;
    return d.dwFileAttributes & FILE_ATTRIBUTE_DEVICE ? OS_OTHER : OS_FILE;
}

static bool is_slash(char c)
{
    return c == '/' || c == '\\';
}

bool os_mkdirs(const char *path, struct err *e)
{
    char part[PATH_CAP];
    wchar_t wide[PATH_CAP];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return err_set(e, ERR_USER, "the path is empty or too long: %.200s", path);
    for (size_t i = 1; i <= n; i++) {
        if ((!is_slash(path[i]) && path[i] != 0) || is_slash(path[i - 1]))
            continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (i == 2 && part[1] == ':')
            continue;
        if (!widen(part, wide, PATH_CAP))
            return sys_error(e, "create the folder", part);
        if (!CreateDirectoryW(wide, NULL)) {
            DWORD code = GetLastError();
            if (os_stat(part, NULL) == OS_DIR)
                continue;
            SetLastError(code);
            return sys_error(e, "create the folder", part);
        }
    }
    return true;
}

bool os_remove(const char *path)
{
    wchar_t wide[PATH_CAP];
    if (!widen(path, wide, PATH_CAP))
        return false;
    return DeleteFileW(wide) || GetLastError() == ERROR_FILE_NOT_FOUND || GetLastError() == ERROR_PATH_NOT_FOUND;
}

bool os_remove_dir(const char *path)
{
    wchar_t wide[PATH_CAP];
    return widen(path, wide, PATH_CAP) && RemoveDirectoryW(wide);
}

static bool remove_entry(void *ctx, const char *name, struct err *e)
{
    char path[PATH_CAP];
    wchar_t wide[PATH_CAP];
    if (!os_path_join(path, sizeof path, ctx, name, e) || !widen(path, wide, PATH_CAP))
        return false;
    DWORD attributes = GetFileAttributesW(wide);
    if (attributes == INVALID_FILE_ATTRIBUTES || !(attributes & FILE_ATTRIBUTE_DIRECTORY))
        return os_remove(path);
    /* A junction or link goes itself, not what it points at. */
    return attributes & FILE_ATTRIBUTE_REPARSE_POINT ? os_remove_dir(path) : os_remove_tree(path);
}

bool os_remove_tree(const char *path)
{
    if (os_stat(path, NULL) == OS_ABSENT)
        return true;
    return os_list(path, remove_entry, (void *)(uintptr_t)path, NULL) && os_remove_dir(path);
}

struct names {
    char **names;
    size_t n, cap;
};

static bool add_name(struct names *l, const wchar_t *name, struct err *e)
{
    char **names = grow(l->names, &l->cap, l->n, sizeof *names, "a folder listing", e);
    if (!names)
        return false;
    l->names = names;
    l->names[l->n] = narrow(name);
    return l->names[l->n++] != NULL || err_nomem(e, "a folder listing", 0);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

bool os_list(const char *path, bool (*fn)(void *ctx, const char *name, struct err *e), void *ctx, struct err *e)
{
    char pattern[PATH_CAP];
    wchar_t wide[PATH_CAP];
    WIN32_FIND_DATAW d;
    struct names l = {0};
    if (!os_path_join(pattern, sizeof pattern, path, "*", e))
        return false;
    HANDLE find = widen(pattern, wide, PATH_CAP) ? FindFirstFileW(wide, &d) : INVALID_HANDLE_VALUE;
    if (find == INVALID_HANDLE_VALUE)
        return sys_error(e, "list the folder", path);
    bool ok = true;
    do {
        if (wcscmp(d.cFileName, L".") != 0 && wcscmp(d.cFileName, L"..") != 0)
            ok = add_name(&l, d.cFileName, e);
    } while (ok && FindNextFileW(find, &d));
    if (ok && GetLastError() != ERROR_NO_MORE_FILES)
        ok = sys_error(e, "list the folder", path);
    FindClose(find);
    if (l.n)
        qsort(l.names, l.n, sizeof *l.names, by_name);
    for (size_t i = 0; i < l.n; i++) {
        ok = ok && fn(ctx, l.names[i], e);
        free(l.names[i]);
    }
    free(l.names);
    return ok;
}

bool os_disk_free(const char *path, uint64_t *bytes, uint64_t *device_or_null)
{
    char dir[PATH_CAP];
    wchar_t wide[PATH_CAP];
    ULARGE_INTEGER available;
    snprintf(dir, sizeof dir, "%s", path);
    while (os_stat(dir, NULL) != OS_DIR) {
        size_t n = strlen(dir);
        while (n && !is_slash(dir[n - 1]))
            n--;
        while (n && is_slash(dir[n - 1]))
            n--;
        if (n == 0) {
            snprintf(dir, sizeof dir, "%s", is_slash(path[0]) ? "/" : ".");
            break;
        }
        dir[n] = 0;
        if (dir[n - 1] == ':')
            break;
    }
    struct os_file_id id;
    if (device_or_null)
        *device_or_null = os_file_id(dir, &id) ? id.device : 0;
    bool known = widen(dir, wide, PATH_CAP) && GetDiskFreeSpaceExW(wide, &available, NULL, NULL);
    *bytes = known ? available.QuadPart : 0;
    return known;
}

/* ---- the machine ---- */

uint64_t os_now_ns(void)
{
    static LARGE_INTEGER per_second;
    LARGE_INTEGER t;
    if (!per_second.QuadPart)
        QueryPerformanceFrequency(&per_second);
    QueryPerformanceCounter(&t);
    uint64_t f = (uint64_t)per_second.QuadPart, n = (uint64_t)t.QuadPart;
    return n / f * 1000000000u + n % f * 1000000000u / f;
}

void os_sleep_ms(unsigned ms)
{
    Sleep(ms);
}

uint64_t os_peak_rss(void)
{
    PROCESS_MEMORY_COUNTERS c;
    return GetProcessMemoryInfo(GetCurrentProcess(), &c, sizeof c) ? c.PeakWorkingSetSize : 0;
}

uint64_t os_peak_anon(void)
{
    PROCESS_MEMORY_COUNTERS c;
    return GetProcessMemoryInfo(GetCurrentProcess(), &c, sizeof c) ? c.PeakPagefileUsage : 0;
}

static MEMORYSTATUSEX memory_status(void)
{
    MEMORYSTATUSEX m = {.dwLength = sizeof m};
    if (!GlobalMemoryStatusEx(&m))
        m.ullTotalPhys = m.ullAvailPhys = 0;
    return m;
}

uint64_t os_memory_total(void)
{
    return memory_status().ullTotalPhys;
}

uint64_t os_memory_available(void)
{
    return memory_status().ullAvailPhys;
}

unsigned os_cpu_count(void)
{
    DWORD n = GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
    return n ? n : 1;
}

void os_keep_awake(void)
{
    SetThreadExecutionState(ES_CONTINUOUS | ES_SYSTEM_REQUIRED); /* while the calling thread lives */
}

/* ---- threads ---- */

struct os_thread {
    HANDLE handle;
    void (*fn)(void *ctx);
    void *ctx;
};
struct os_mutex {
    SRWLOCK lock;
};
struct os_cond {
    CONDITION_VARIABLE cond;
};

static unsigned __stdcall run_thread(void *p)
{
    struct os_thread *t = p;
    t->fn(t->ctx);
    return 0;
}

bool os_thread_start(struct os_thread **out, void (*fn)(void *ctx), void *ctx, struct err *e)
{
    struct os_thread *t = *out = malloc(sizeof *t);
    if (!t)
        return err_nomem(e, "a thread", sizeof *t);
    *t = (struct os_thread){.fn = fn, .ctx = ctx};
    t->handle = (HANDLE)_beginthreadex(NULL, 0, run_thread, t, 0, NULL);
    if (t->handle)
        return true;
    free(t);
    *out = NULL;
    return err_set(e, ERR_ENV, "cannot start a thread: %s", strerror(errno));
}

void os_thread_join(struct os_thread **t)
{
    if (!*t)
        return;
    WaitForSingleObject((*t)->handle, INFINITE);
    CloseHandle((*t)->handle);
    free(*t);
    *t = NULL;
}

bool os_mutex_create(struct os_mutex **out, struct err *e)
{
    *out = malloc(sizeof **out);
    if (!*out)
        return err_nomem(e, "a lock", sizeof **out);
    InitializeSRWLock(&(*out)->lock);
    return true;
}

void os_mutex_destroy(struct os_mutex **m)
{
    free(*m);
    *m = NULL;
}

void os_mutex_lock(struct os_mutex *m)
{
    AcquireSRWLockExclusive(&m->lock);
}

void os_mutex_unlock(struct os_mutex *m)
{
    ReleaseSRWLockExclusive(&m->lock);
}

bool os_cond_create(struct os_cond **out, struct err *e)
{
    *out = malloc(sizeof **out);
    if (!*out)
        return err_nomem(e, "a lock", sizeof **out);
    InitializeConditionVariable(&(*out)->cond);
    return true;
}

void os_cond_destroy(struct os_cond **c)
{
    free(*c);
    *c = NULL;
}

void os_cond_signal(struct os_cond *c)
{
    WakeAllConditionVariable(&c->cond);
}

void os_cond_wait(struct os_cond *c, struct os_mutex *m, unsigned ms)
{
    SleepConditionVariableSRW(&c->cond, &m->lock, ms, 0);
}

/* ---- the terminal ---- */

bool os_is_terminal(FILE *f)
{
    HANDLE h = (HANDLE)_get_osfhandle(_fileno(f));
    DWORD mode;
    /* Without escape sequences it is no better than a pipe. */
    return GetConsoleMode(h, &mode) && SetConsoleMode(h, mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING);
}

unsigned os_terminal_columns(void)
{
    CONSOLE_SCREEN_BUFFER_INFO info;
    if (!GetConsoleScreenBufferInfo(GetStdHandle(STD_ERROR_HANDLE), &info))
        return 80;
    int columns = info.srWindow.Right - info.srWindow.Left + 1;
    return columns > 0 ? (unsigned)columns : 80;
}

/* ---- environment ---- */

/* Values handed out stay valid: one copy per name and value. */
struct variable {
    struct variable *next;
    char *name, *value;
};

const char *os_getenv(const char *name)
{
    static struct variable *known;
    wchar_t wide[256];
    const wchar_t *found = widen(name, wide, 256) ? _wgetenv(wide) : NULL;
    char *value = found ? narrow(found) : NULL;
    if (!value)
        return NULL;
    for (struct variable *v = known; v; v = v->next) {
        if (strcmp(v->name, name) == 0 && strcmp(v->value, value) == 0) {
            free(value);
            return v->value;
        }
    }
    struct variable *v = malloc(sizeof *v);
    char *copy = v ? str_dup(name) : NULL;
    if (!copy) {
        free(v);
        free(value);
        return NULL;
    }
    *v = (struct variable){known, copy, value};
    known = v;
    return value;
}

void os_setenv(const char *name, const char *value, bool overwrite)
{
    wchar_t wide[256], wide_value[PATH_CAP];
    if (widen(name, wide, 256) && widen(value, wide_value, PATH_CAP) && (overwrite || !_wgetenv(wide)))
        _wputenv_s(wide, wide_value);
}

bool os_cache_dir(char *out, size_t cap)
{
    const char *local = os_getenv("LOCALAPPDATA");
    int n = local && local[0] ? snprintf(out, cap, "%s/gsq", local) : -1;
    return n > 0 && (size_t)n < cap;
}

/* ---- the command line ---- */

static UINT console_before;

static void restore_console(void)
{
    SetConsoleOutputCP(console_before);
}

char **os_utf8_argv(int *argc, char **argv)
{
    console_before = GetConsoleOutputCP();
    if (console_before && console_before != CP_UTF8 && SetConsoleOutputCP(CP_UTF8))
        atexit(restore_console);
    int n = 0;
    wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), &n);
    char **out = wide && n > 0 ? calloc((size_t)n + 1, sizeof *out) : NULL;
    for (int i = 0; out && i < n; i++) {
        out[i] = narrow(wide[i]);
        if (!out[i])
            out = NULL; /* out of memory at the start: the plain argv is as good */
    }
    if (wide)
        LocalFree(wide);
    if (!out)
        return argv;
    *argc = n;
    return out;
}
#else
typedef int os_win32_is_empty_here; /* ISO C forbids an empty translation unit */
#endif
