/* Errors as values: a kind, a sentence for a person, and a hint what to do about it.
 *
 * A function that can fail returns bool and takes `struct err *e` last. On false, *e is filled.
 * Both are clean (clean.h) and one line each, whatever names they hold.
 * Callers on the way up may put context in front: "block 12: q_proj: ...". main() prints
 * `error: MESSAGE` and `hint: HINT`, and exits with os_exit_code(). */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdbool.h>

#include "host/base/printf_like.h"

enum err_kind {
    ERR_NONE,
    ERR_USER,    /* wrong option, bad input file: exit 2 */
    ERR_ENV,     /* disk full, no device, out of memory: exit 3 */
    ERR_BUG,     /* an invariant of ours broke: exit 4 */
    ERR_STOPPED, /* asked to stop: exit 130 (Ctrl-C), 143 (SIGTERM), 129 (SIGHUP) */
};

struct err {
    enum err_kind kind;
    bool told; /* by another process of the run, which has named where: err_context adds nothing */
    char msg[1024];
    char hint[512];
};

/* "user", "environment", "bug", "stopped", "none": as JSON has them. */
const char *err_kind_name(enum err_kind kind);
/* Sets kind and message, clears the hint. Always returns false, so `return err_set(...)` reads well.
 * e may be NULL (the failure is then only the return value). */
bool err_set(struct err *e, enum err_kind kind, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Adds the remedy. Always returns false. */
bool err_hint(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Puts "CONTEXT: " in front of the message, unless that names it already (a path, a tensor, a part of that module) or was told by another
 * process. Always returns false. */
bool err_context(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* "out of host memory (N bytes for WHAT)", kind ERR_ENV. Always returns false. */
bool err_nomem(struct err *e, const char *what, unsigned long long bytes);

#ifdef __clang_analyzer__ /* sees a declaration alone, and would go on where these returned true */
#define err_set(...)     (err_set(__VA_ARGS__), false)
#define err_hint(...)    (err_hint(__VA_ARGS__), false)
#define err_context(...) (err_context(__VA_ARGS__), false)
#define err_nomem(...)   (err_nomem(__VA_ARGS__), false)
#endif

#endif
