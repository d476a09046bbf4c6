/* Leveled log lines for people, always on stderr (stdout belongs to results and --json), cleaned (clean.h). */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "host/base/err.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Lines above this level are dropped. Default LOG_INFO. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* Called before a line is written, so that a progress bar can clear itself. NULL: none. */
void log_set_before(void (*before)(void *ctx), void *ctx);
/* Lines go there, without their newline, in place of stderr. NULL: to stderr again. */
void log_set_sink(void (*sink)(void *ctx, enum log_level level, const char *line), void *ctx);
/* "error" | "warn" | "info" | "debug" -> level. False if it is none of them. */
bool log_level_parse(const char *name, enum log_level *out);

void log_error(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_debug(const char *fmt, ...) PRINTF_LIKE(1, 2);

#endif
