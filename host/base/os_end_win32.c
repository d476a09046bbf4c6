/* How the process ends where main does not end it: console events, and memory of a file that is gone. */
#if defined(_WIN32)
#include "host/base/os_parts.h"

#include <io.h>
#include <stdio.h>
#include <string.h>

#include <windows.h>

static void open_null(FILE *f, const char *mode)
{
    if (_fileno(f) < 0 || _get_osfhandle(_fileno(f)) < 0)
        (void)!freopen("NUL", mode, f);
}

void os_open_std(void)
{
    open_null(stdin, "r");
    open_null(stdout, "w");
    open_null(stderr, "w");
}

void os_silence(void)
{
    (void)!freopen("NUL", "w", stdout);
    (void)!freopen("NUL", "w", stderr);
}

static void say(DWORD stream, const char *text)
{
    DWORD put;
    WriteFile(GetStdHandle(stream), text, (DWORD)strlen(text), &put, NULL);
}

/* ---- stopping ---- */

static volatile LONG stop_flag; /* the number of the signal that it is elsewhere */
static volatile LONG heard;

/* Runs on a thread of its own. False hands the event on, which ends the process. */
static BOOL WINAPI on_console_event(DWORD event)
{
    LONG number = event == CTRL_C_EVENT || event == CTRL_BREAK_EVENT ? 2 : event == CTRL_CLOSE_EVENT ? 1 : 15;
    if (InterlockedCompareExchange(&stop_flag, number, 0) != 0)
        return FALSE;
    Sleep(OS_STOP_MS);
    if (heard)
        return TRUE;
    say(STD_ERROR_HANDLE, "\r\n");
    say(STD_ERROR_HANDLE, os_words_stopped);
    say(STD_ERROR_HANDLE, "\r\n");
    if (os_words_json) {
        char exit_code[32];
        snprintf(exit_code, sizeof exit_code, "%ld}\n", 128 + number);
        say(STD_OUTPUT_HANDLE, "{\"event\":\"error\",\"kind\":\"stopped\",\"message\":\"");
        say(STD_OUTPUT_HANDLE, os_words_stopped);
        say(STD_OUTPUT_HANDLE, "\",\"hint\":\"\",\"exit\":");
        say(STD_OUTPUT_HANDLE, exit_code);
    }
    TerminateProcess(GetCurrentProcess(), (UINT)(128 + number));
    return TRUE;
}

bool os_stop_requested(void)
{
    return stop_flag != 0;
}

int os_stop_signal(void)
{
    return (int)stop_flag;
}

void os_request_stop(void)
{
    InterlockedCompareExchange(&stop_flag, 2, 0);
}

void os_kill_self(void)
{
    TerminateProcess(GetCurrentProcess(), 137); /* what a shell calls kill -9 */
}

void os_clear_stop(void)
{
    InterlockedExchange(&stop_flag, 0);
}

void os_stop_heard(void)
{
    InterlockedExchange(&heard, 1);
}

/* ---- faults ---- */

static LONG CALLBACK on_exception(EXCEPTION_POINTERS *x)
{
    const EXCEPTION_RECORD *what = x->ExceptionRecord;
    if (what->ExceptionCode != EXCEPTION_IN_PAGE_ERROR || what->NumberParameters < 2)
        return EXCEPTION_CONTINUE_SEARCH;
    const struct os_range *r = os_range_at((uintptr_t)what->ExceptionInformation[1]);
    if (!r)
        return EXCEPTION_CONTINUE_SEARCH;
    say(STD_ERROR_HANDLE, OS_FAULT_BEFORE);
    say(STD_ERROR_HANDLE, r->path);
    say(STD_ERROR_HANDLE, OS_FAULT_AFTER "\nhint: " OS_FAULT_HINT "\n");
    if (os_words_json) {
        DWORD put;
        size_t n = strlen(r->json);
        say(STD_OUTPUT_HANDLE, "{\"event\":\"error\",\"kind\":\"environment\",\"message\":");
        WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), r->json, (DWORD)(n ? n - 1 : 0), &put, NULL);
        say(STD_OUTPUT_HANDLE, OS_FAULT_AFTER "\",\"hint\":\"" OS_FAULT_HINT "\",\"exit\":3}\n");
    }
    TerminateProcess(GetCurrentProcess(), OS_FAULT_EXIT);
    return EXCEPTION_CONTINUE_SEARCH;
}

void os_catch_stop(void)
{
    SetConsoleCtrlHandler(on_console_event, TRUE);
    AddVectoredExceptionHandler(1, on_exception);
}
#else
typedef int os_end_win32_is_empty_here; /* ISO C forbids an empty translation unit */
#endif
