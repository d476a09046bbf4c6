/* How the process ends where main does not end it: signals, and memory of a file that is gone. What runs in a
 * handler here calls only what POSIX allows there. */
#if !defined(_WIN32)
#define _GNU_SOURCE /* timer_create */
#include "host/base/os_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void os_open_std(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) == -1 && errno == EBADF && open("/dev/null", O_RDWR | O_NOCTTY) != fd)
            _exit(3); /* no null device: better nothing than a file in a stream's place */
}

void os_silence(void)
{
    int null = open("/dev/null", O_WRONLY | O_NOCTTY);
    fflush(stdout);
    for (int fd = STDOUT_FILENO; null >= 0 && fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
    if (null > STDERR_FILENO)
        close(null);
}

/* ---- words from a handler ---- */

static void say(int fd, const char *text)
{
    size_t n = strlen(text);
    while (n) {
        ssize_t put = write(fd, text, n);
        if (put <= 0)
            return;
        text += put;
        n -= (size_t)put;
    }
}

static void say_number(int fd, int n)
{
    char digits[4] = {(char)('0' + n / 100 % 10), (char)('0' + n / 10 % 10), (char)('0' + n % 10), 0};
    say(fd, n >= 100 ? digits : n >= 10 ? digits + 1 : digits + 2);
}

/* Over a progress bar, where there may be one. */
static void begin_line(void)
{
    if (isatty(STDERR_FILENO) == 1)
        say(STDERR_FILENO, "\r\033[K");
}

/* ---- stopping ---- */

static atomic_int stop_flag; /* the signal's number; a task sets it too (stop_point.h) */
static timer_t deadline;
static volatile sig_atomic_t have_deadline;

static void on_deadline(int sig)
{
    (void)sig;
    begin_line();
    say(STDERR_FILENO, os_words_stopped);
    say(STDERR_FILENO, "\n");
    if (os_words_json) {
        say(STDOUT_FILENO, "{\"event\":\"error\",\"kind\":\"stopped\",\"message\":\"");
        say(STDOUT_FILENO, os_words_stopped);
        say(STDOUT_FILENO, "\",\"hint\":\"\",\"exit\":");
        say_number(STDOUT_FILENO, 128 + stop_flag);
        say(STDOUT_FILENO, "}\n");
    }
    _exit(128 + stop_flag);
}

static void on_stop(int sig)
{
    int code = errno;
    if (stop_flag) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
    stop_flag = sig;
    struct itimerspec when = {.it_value = {OS_STOP_MS / 1000, OS_STOP_MS % 1000 * 1000000L}};
    if (have_deadline)
        timer_settime(deadline, 0, &when, NULL);
    errno = code;
}

bool os_stop_requested(void)
{
    return stop_flag != 0;
}

int os_stop_signal(void)
{
    return stop_flag;
}

void os_request_stop(void)
{
    if (!stop_flag)
        stop_flag = SIGINT;
}

void os_kill_self(void)
{
    raise(SIGKILL);
}

void os_clear_stop(void)
{
    stop_flag = 0;
}

void os_stop_heard(void)
{
    struct itimerspec never = {0};
    if (have_deadline)
        timer_settime(deadline, 0, &never, NULL);
    have_deadline = 0;
}

/* ---- faults ---- */

static void on_fault(int sig, siginfo_t *info, void *context)
{
    (void)context;
    const struct os_range *r = os_range_at((uintptr_t)info->si_addr);
    if (!r) { /* none of ours: the instruction is repeated, and the system does what it does */
        signal(sig, SIG_DFL);
        return;
    }
    begin_line();
    say(STDERR_FILENO, OS_FAULT_BEFORE);
    say(STDERR_FILENO, r->path);
    say(STDERR_FILENO, OS_FAULT_AFTER "\nhint: " OS_FAULT_HINT "\n");
    if (os_words_json) { /* the path's JSON without its closing quote, then the rest of the sentence */
        size_t n = strlen(r->json);
        say(STDOUT_FILENO, "{\"event\":\"error\",\"kind\":\"environment\",\"message\":");
        if (n > 1 && write(STDOUT_FILENO, r->json, n - 1) > 0)
            say(STDOUT_FILENO, OS_FAULT_AFTER "\",\"hint\":\"" OS_FAULT_HINT "\",\"exit\":");
        say_number(STDOUT_FILENO, OS_FAULT_EXIT);
        say(STDOUT_FILENO, "}\n");
    }
    _exit(OS_FAULT_EXIT);
}

void os_catch_stop(void)
{
    struct sigaction before, stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    struct sigaction late = {.sa_handler = on_deadline}, fault = {.sa_flags = SA_SIGINFO};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    fault.sa_sigaction = on_fault;
    sigemptyset(&stop.sa_mask);
    sigemptyset(&late.sa_mask);
    sigemptyset(&fault.sa_mask);
    have_deadline = sigaction(SIGALRM, &late, NULL) == 0 && timer_create(CLOCK_MONOTONIC, &event, &deadline) == 0;
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
        sigaction(SIGHUP, &stop, NULL);
    sigaction(SIGBUS, &fault, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a write error with a sentence, not a death */
}
#else
typedef int os_end_posix_is_empty_here; /* ISO C forbids an empty translation unit */
#endif
