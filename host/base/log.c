#include "host/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "host/base/clean.h"

static const char *const names[] = {"error", "warn", "info", "debug"};
static enum log_level current = LOG_INFO;
static void (*before_line)(void *);
static void *before_ctx;
static void (*sink_line)(void *, enum log_level, const char *);
static void *sink_ctx;

void log_set_level(enum log_level level)
{
    current = level;
}

enum log_level log_get_level(void)
{
    return current;
}

void log_set_before(void (*before)(void *ctx), void *ctx)
{
    before_line = before;
    before_ctx = ctx;
}

void log_set_sink(void (*sink)(void *ctx, enum log_level level, const char *line), void *ctx)
{
    sink_line = sink;
    sink_ctx = ctx;
}

bool log_level_parse(const char *name, enum log_level *out)
{
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    }
    return false;
}

static void emit(enum log_level level, const char *fmt, va_list ap)
{
    if (level > current)
        return;
    char text[2048], line[sizeof text];
    vsnprintf(text, sizeof text, fmt, ap);
    clean_text(line, sizeof line, text, strlen(text), false);
    if (sink_line) {
        sink_line(sink_ctx, level, line);
        return;
    }
    if (before_line)
        before_line(before_ctx);
    if (level != LOG_INFO)
        fprintf(stderr, "%s: ", level == LOG_WARN ? "warning" : names[level]);
    fprintf(stderr, "%s\n", line);
    fflush(stderr);
}

#define LOG_FUNCTION(name, level)                                                                                      \
    void name(const char *fmt, ...)                                                                                    \
    {                                                                                                                  \
        va_list ap;                                                                                                    \
        va_start(ap, fmt);                                                                                             \
        emit(level, fmt, ap);                                                                                          \
        va_end(ap);                                                                                                    \
    }

LOG_FUNCTION(log_error, LOG_ERROR)
LOG_FUNCTION(log_warn, LOG_WARN)
LOG_FUNCTION(log_info, LOG_INFO)
LOG_FUNCTION(log_debug, LOG_DEBUG)
