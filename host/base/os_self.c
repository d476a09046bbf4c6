/* Where the program, or the library that it lies in, was loaded from; what the machine is called. */
#if !defined(_WIN32)
#define _GNU_SOURCE /* getline */
#endif
#include "host/base/os.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#include <windows.h>

void os_host_name(char *out, size_t cap)
{
    DWORD size = (DWORD)cap;
    if (!GetComputerNameA(out, &size))
        out[0] = 0;
}

bool os_self_path(char *out, size_t cap)
{
    static const char here = 0;
    enum { CAP = 32768 }; /* the longest path there is */
    HMODULE self = NULL;
    DWORD how = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
    wchar_t *wide = calloc(CAP, sizeof *wide);
    DWORD n =
        wide && GetModuleHandleExW(how, (LPCWSTR)(const void *)&here, &self) ? GetModuleFileNameW(self, wide, CAP) : 0;
    bool ok = n > 0 && n < CAP && WideCharToMultiByte(CP_UTF8, 0, wide, -1, out, (int)cap, NULL, NULL);
    free(wide);
    for (char *c = out; ok && *c; c++)
        *c = *c == '\\' ? '/' : *c;
    return ok;
}
#else
#include <unistd.h>

void os_host_name(char *out, size_t cap)
{
    out[0] = out[cap - 1] = 0;
    if (gethostname(out, cap - 1) != 0)
        out[0] = 0;
}

/* /proc/self/maps has a line for every range of memory that is a file's. */
bool os_self_path(char *out, size_t cap)
{
    static const char here = 0;
    const uintptr_t at = (uintptr_t)&here;
    char *line = NULL;
    size_t size = 0;
    bool found = false;
    FILE *f = os_fopen("/proc/self/maps", "r");
    if (!f)
        return false;
    while (!found && getline(&line, &size, f) > 0) {
        uintptr_t from, to;
        const char *path = strchr(line, '/');
        if (!path || sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &from, &to) != 2 || at < from || at >= to)
            continue;
        size_t n = strcspn(path, "\n");
        found = n < cap;
        if (found) {
            memcpy(out, path, n);
            out[n] = '\0';
        }
    }
    free(line);
    fclose(f);
    return found;
}
#endif
