/* The two tables behind the command line: commands, and options. */
#ifndef APP_OPTION_TABLE_H
#define APP_OPTION_TABLE_H

#include "app/args.h"
#include "host/base/str.h"

enum option_type {
    OPT_FLAG, /* bool: present or not */
    OPT_TEXT, /* const char * */
    OPT_U32,
    OPT_U64,
    OPT_F32,
    OPT_GIB,  /* GiB with a fraction, kept as uint64_t bytes */
    OPT_PAIR, /* A:B, two floats */
    OPT_NAME, /* const char *: a name that gsq.h knows */
    OPT_CALL, /* read by a function */
};

/* Sections of a help text, in this order. */
enum option_section {
    SECTION_MAIN,
    SECTION_CALIB,
    SECTION_RUN,
    SECTION_LLAMA,
    SECTION_METHOD,
    SECTION_COMMON,
    SECTION_COUNT
};

struct option {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    const char *arg;  /* "N"; NULL for flags */
    enum option_type type;
    size_t target, target2; /* offsets in struct args; target2: B of a pair, of a name its enum gsq_name_kind */
    double min, max;        /* of numbers, inclusive */
    bool (*call)(struct args *a, const struct option *o, const char *value, struct err *e);
    void (*show)(const struct args *a, struct strbuf *out); /* the value in words; NULL: as it was given */
    const char *fallback; /* default in words; NULL: the value in a fresh struct args, "": do not mention */
    unsigned commands;    /* bits 1 << CMD_x */
    enum option_section section;
    const char *help; /* NULL: not shown (something this version refuses) */
};
/* Ends with a row whose name is NULL. */
extern const struct option options[];

struct command {
    const char *name, *synopsis, *summary;
    unsigned positionals; /* how many are required: exactly that many */
    const char *positional_names[2];
    const char *required[2]; /* options that must be given */
    const char *instead;     /* option that stands for the first of these; NULL: none */
    const char *text;        /* what it does, and examples */
};
extern const struct command commands[CMD_COUNT];

/* ---- what the files of the command line share ---- */
/* The value of an OPT_NAME. */
bool args_read_name(struct args *a, const struct option *o, const char *value, struct err *e);
/* The name of such a kind that a text stands for; NULL: there is none. option: "--type", for messages. */
const char *args_find_name(enum gsq_name_kind kind, const char *text, const char *option, struct err *e);

/* ---- llama_options.c: as llama-quantize has them ---- */
/* MODEL [OUT] TYPE [THREADS]: n of them are in a->positional. seen: one flag per row of the table. */
bool llama_arguments(struct args *a, unsigned n, bool *seen, struct err *e);
bool read_llama_tensor(struct args *a, const struct option *o, const char *value, struct err *e);
bool read_llama_tensor_file(struct args *a, const struct option *o, const char *value, struct err *e);
bool read_importance_name(struct args *a, const struct option *o, const char *value, struct err *e);
bool read_override(struct args *a, const struct option *o, const char *value, struct err *e);
bool refuse_llama_option(struct args *a, const struct option *o, const char *value, struct err *e);
void show_llama_tensor(const struct args *a, struct strbuf *out);

const char *option_section_title(enum option_section s);
/* What it is and its default, on one line. defaults: of args_defaults. */
void option_help(const struct option *o, const struct args *defaults, struct strbuf *out);
/* Lines, the last one ended. */
const char *command_examples(enum command_id c);
const char *program_exit_codes(void);
/* The option of that name in a command; NULL if it has none. */
const struct option *option_find(enum command_id c, const char *name);
/* The value an option has now, as one would write it on the command line; adds nothing where there is none to tell
 * (a flag that is not set, a text not given). What stands for a default is given in words. */
void option_value(const struct option *o, const struct args *a, struct strbuf *out);
/* False: the value is not used by the chosen method. */
bool option_used(const struct option *o, const struct args *a);

#endif
