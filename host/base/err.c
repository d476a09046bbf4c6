#include "host/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "host/base/clean.h"

/* Formats and cleans: names in it are those of files. */
static void format(char *out, size_t cap, const char *fmt, va_list ap)
{
    char text[sizeof((struct err *)0)->msg];
    vsnprintf(text, sizeof text, fmt, ap);
    clean_text(out, cap, text, strlen(text), false);
}

const char *err_kind_name(enum err_kind kind)
{
    static const char *const names[] = {[ERR_NONE] = "none",
                                        [ERR_USER] = "user",
                                        [ERR_ENV] = "environment",
                                        [ERR_BUG] = "bug",
                                        [ERR_STOPPED] = "stopped"};
    return names[kind];
}

bool(err_set)(struct err *e, enum err_kind kind, const char *fmt, ...)
{
    if (!e)
        return false;
    va_list ap;
    va_start(ap, fmt);
    e->kind = kind;
    e->told = false;
    e->hint[0] = 0;
    format(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    return false;
}

bool(err_hint)(struct err *e, const char *fmt, ...)
{
    if (!e)
        return false;
    va_list ap;
    va_start(ap, fmt);
    format(e->hint, sizeof e->hint, fmt, ap);
    va_end(ap);
    return false;
}

/* Whether a message names that path, or that module or a part of it, whole. A mere word ("model") may stand there for itself. */
static bool names(const char *msg, const char *text)
{
    static const char around[] = " :,;\"'()";
    const bool path = strpbrk(text, "/\\") != NULL;
    size_t n = strlen(text);
    if (!path && !strchr(text, '.'))
        return false;
    for (const char *at = strstr(msg, text); at; at = strstr(at + 1, text))
        if ((at == msg || strchr(around, at[-1])) && (!at[n] || strchr(around, at[n]) || (!path && at[n] == '.')))
            return true;
    return false;
}

bool(err_context)(struct err *e, const char *fmt, ...)
{
    if (!e || e->told)
        return false;
    char text[sizeof e->msg];
    va_list ap;
    va_start(ap, fmt);
    format(text, sizeof text - 2, fmt, ap);
    va_end(ap);
    if (names(e->msg, text))
        return false;
    size_t front = strlen(text);
    text[front++] = ':';
    text[front++] = ' ';
    size_t room = sizeof e->msg - 1 - front, keep = strlen(e->msg);
    if (keep > room)
        keep = room;
    memmove(e->msg + front, e->msg, keep);
    memcpy(e->msg, text, front);
    e->msg[front + keep] = 0;
    return false;
}

bool(err_nomem)(struct err *e, const char *what, unsigned long long bytes)
{
    err_set(e, ERR_ENV, "out of host memory (%llu bytes for %s)", bytes, what);
    return err_hint(e, "close other programs, or lower --samples or --ctx");
}
