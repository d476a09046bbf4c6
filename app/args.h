/* The command line. One table of options (option_table.c) drives parsing, checking and the help texts. */
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
    uint64_t mem_limit; /* bytes, 0: none given */
    uint32_t threads;
    bool json, quiet;
    enum log_level log_level;
    bool log_level_given;

    /* several commands */
    const char *out;
    bool rounds_like_llama; /* quantize: method rtn because the line is llama-quantize's, without a text */
    bool dry_run;           /* quantize */
    const char *text;       /* eval, compare */
    uint32_t ctx, windows;  /* 0: default */
    const char *protocol;   /* of eval and compare; NULL: gsq */
    const char *spill;
    bool all_tensors;                          /* inspect */
    const char *convert_format, *convert_type; /* convert; NULL: none given */
    const char *kernel;                        /* bench */

    struct gsq_quantize_options q; /* quantize, less its out; container, calib and the like of other commands too */
    struct gsq_tensor_rule *rules; /* what q points at */
    const char **overrides, **importance_names;
    const char **inputs; /* files that options were read from: no result goes there */
    size_t n_inputs;
    char **owned; /* texts that had to be copied */
    size_t n_owned;
};

/* The command line, quoted as a POSIX shell wants it. */
struct strbuf;
void args_command_line(const struct args *a, struct strbuf *out);
/* Reads argv[1..]. Strings of argv are kept, not copied. On failure ERR_USER, with the nearest name as hint
 * where a name is unknown; a->json is right even then. args_free in every case. */
bool args_parse(struct args *a, int argc, char **argv, struct err *e);
void args_free(struct args *a);
/* How many of a->positional are models. */
unsigned args_models(const struct args *a);
/* A text that args_free frees; returns it, NULL (and text is freed) when out of memory. text NULL: NULL. */
const char *args_own(struct args *a, char *text);
/* Help of a command, or of the program (CMD_NONE). all: every option, not the usual ones alone. */
void args_help(FILE *f, enum command_id command, bool all);
/* "quantize". */
const char *command_name(enum command_id c);

#endif
