#if !defined(_WIN32)
#define _GNU_SOURCE /* pipe2 */
#endif
#include "host/base/os_child.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/os.h"

#if defined(_WIN32)
#include <windows.h>

/* A pipe of which one end is the child's. */
static bool make_pipe(HANDLE *child, HANDLE *own, bool child_reads)
{
    SECURITY_ATTRIBUTES inherited = {.nLength = sizeof inherited, .bInheritHandle = TRUE};
    HANDLE from, to;
    if (!CreatePipe(&from, &to, &inherited, 0))
        return false;
    *child = child_reads ? from : to;
    *own = child_reads ? to : from;
    return SetHandleInformation(*own, HANDLE_FLAG_INHERIT, 0);
}

bool os_child_start(struct os_child *c, char **argv, struct err *e)
{
    enum { CAP = 32768 }; /* the longest command line there is */
    HANDLE in = NULL, out = NULL, own_in = NULL, own_out = NULL;
    PROCESS_INFORMATION made;
    wchar_t *line = calloc(CAP, sizeof *line);
    (void)argv;
    bool ok =
        line && wcslen(GetCommandLineW()) < CAP && make_pipe(&in, &own_in, true) && make_pipe(&out, &own_out, false);
    if (ok) {
        STARTUPINFOW how = {.cb = sizeof how, .dwFlags = STARTF_USESTDHANDLES, .hStdInput = in, .hStdOutput = out};
        wcscpy(line, GetCommandLineW());
        ok = CreateProcessW(NULL, line, NULL, NULL, TRUE, 0, NULL, NULL, &how, &made);
    }
    if (in)
        CloseHandle(in);
    if (out)
        CloseHandle(out);
    free(line);
    if (!ok) {
        if (own_in)
            CloseHandle(own_in);
        if (own_out)
            CloseHandle(own_out);
        return err_set(e, ERR_ENV, "cannot start another process: error %lu", GetLastError());
    }
    CloseHandle(made.hThread);
    *c = (struct os_child){(intptr_t)made.hProcess, (intptr_t)own_in, (intptr_t)own_out};
    return true;
}

size_t os_child_read(struct os_child *c, char *to, size_t cap)
{
    DWORD got = 0;
    return ReadFile((HANDLE)c->out, to, (DWORD)cap, &got, NULL) ? got : 0;
}

void os_child_end(struct os_child *c)
{
    if (c->in)
        CloseHandle((HANDLE)c->in);
    c->in = 0;
}

int os_child_wait(struct os_child *c)
{
    DWORD code = 0;
    WaitForSingleObject((HANDLE)c->process, INFINITE);
    GetExitCodeProcess((HANDLE)c->process, &code);
    CloseHandle((HANDLE)c->process);
    CloseHandle((HANDLE)c->out);
    c->process = c->out = 0;
    return (int)code;
}

static bool read_on(void)
{
    char byte;
    DWORD got = 0;
    return ReadFile(GetStdHandle(STD_INPUT_HANDLE), &byte, 1, &got, NULL) && got;
}
#else
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

bool os_child_start(struct os_child *c, char **argv, struct err *e)
{
    char self[4096];
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    pid_t pid = 0;
    posix_spawn_file_actions_t files;
    if (!os_self_path(self, sizeof self))
        return err_set(e, ERR_ENV, "cannot start another process: the program's own path is not known");
    if (posix_spawn_file_actions_init(&files) != 0)
        return err_nomem(e, "a process", sizeof files);
    int code = pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 ? errno : 0;
    if (!code) {
        posix_spawn_file_actions_adddup2(&files, in[0], 0);
        posix_spawn_file_actions_adddup2(&files, out[1], 1);
        posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
        code = posix_spawn(&pid, self, &files, NULL, argv, environ);
    }
    posix_spawn_file_actions_destroy(&files);
    const int ends[] = {in[0], out[1], code ? in[1] : -1, code ? out[0] : -1};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends[i] >= 0)
            close(ends[i]);
    if (code)
        return err_set(e, ERR_ENV, "cannot start another process: %s", strerror(code));
    *c = (struct os_child){pid, in[1] + 1, out[0] + 1};
    return true;
}

size_t os_child_read(struct os_child *c, char *to, size_t cap)
{
    ssize_t n;
    do
        n = read((int)c->out - 1, to, cap);
    while (n < 0 && errno == EINTR);
    return n > 0 ? (size_t)n : 0;
}

void os_child_end(struct os_child *c)
{
    if (c->in)
        close((int)c->in - 1);
    c->in = 0;
}

int os_child_wait(struct os_child *c)
{
    int status = 0;
    while (waitpid((pid_t)c->process, &status, 0) < 0 && errno == EINTR)
        ;
    close((int)c->out - 1);
    c->process = c->out = 0;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static bool read_on(void)
{
    char byte;
    ssize_t n = read(0, &byte, 1);
    return n > 0 || (n < 0 && errno == EINTR);
}
#endif

static void listen_to_end(void *ctx)
{
    (void)ctx;
    while (read_on())
        ;
    os_request_stop();
}

bool os_child_obey(struct err *e)
{
    static struct os_thread *thread; /* to the end of the process */
    return os_thread_start(&thread, listen_to_end, NULL, e);
}
