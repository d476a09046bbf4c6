/* What a command line says (command_line.h reads it). */
#ifndef APP_ARGS_H
#define APP_ARGS_H

#include <stdio.h>

#include "host/base/err.h"
#include "host/base/log.h"
#include "lib/gsq.h"

enum command_id {
    CMD_QUANTIZE,
    CMD_EVAL,
    CMD_COMPARE,
    CMD_INSPECT,
    CMD_CONVERT,
    CMD_IMATRIX,
    CMD_DEVICES,
    CMD_BENCH,
    CMD_COUNT,
    CMD_NONE = CMD_COUNT, /* help or version of the program itself */
};

/* Everything a command line can say. */
struct args {
    enum command_id command;
    char **argv; /* as it was given */
    int argc;
    bool help, help_all, version;
    const char *positional[4]; /* MODEL, REFERENCE; of quantize also OUT, TYPE, THREADS */

    /* every command */
    const char *device, *variant;
    const char *further; /* of a list of devices those that helpers take (helpers.h); NULL: none */
    uint64_t mem_limit;  /* bytes, 0: none given */
    uint32_t threads;
    bool json, quiet;
    enum log_level log_level;
    bool log_level_given;

    /* several commands */
    const char *out;
    bool rounds_like_llama; /* quantize: method rtn because the line is llama-quantize's, without a text */
    bool dry_run;           /* quantize */
    const char *text;       /* eval, compare */
    const char *tasks;      /* eval */
    uint32_t questions;     /* eval; 0: all */
    uint32_t ctx, windows;  /* 0: default */
    const char *protocol;   /* of eval and compare; NULL: gsq */
    const char *spill;
    bool all_tensors;                          /* inspect */
    const char *convert_format, *convert_type; /* convert; NULL: none given */
    const char *kernel, *counts;               /* bench */
    bool choose;                               /* bench */

    struct gsq_quantize_options q; /* quantize, less its out; container, calib and the like of other commands too */
    struct gsq_tensor_rule *rules; /* what q points at */
    const char **overrides, **importance_names, **more_calib;
    const char **inputs; /* files that options were read from: no result goes there */
    size_t n_inputs;
    char **owned; /* texts that had to be copied */
    size_t n_owned;
};

/* Values before any option is read. */
void args_defaults(struct args *a);
void args_free(struct args *a);
/* A text that args_free frees; returns it, NULL (and text is freed) when out of memory. text NULL: NULL. */
const char *args_own(struct args *a, char *text);
/* Adds a rule, or puts it first. pattern becomes the rule's, and is freed in any case. */
bool args_add_rule(struct args *a, char *pattern, struct gsq_tensor_rule rule, bool in_front, struct err *e);
/* The command line, quoted as a POSIX shell wants it. */
struct strbuf;
void args_command_line(const struct args *a, struct strbuf *out);

#endif
