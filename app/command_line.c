#include "app/command_line.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app/option_table.h"
#include "host/base/out_path.h"
#include "host/base/str.h"

const char *command_name(enum command_id c)
{
    return c < CMD_COUNT ? commands[c].name : "gsq";
}

/* ---- the nearest name ---- */

enum { NAME_MAX_LEN = STR_DISTANCE_MAX };

struct nearest {
    const char *wanted, *name;
    unsigned distance;
};

static void consider(struct nearest *s, const char *name)
{
    unsigned d = str_distance(s->wanted, name);
    size_t n = strlen(s->wanted);
    if (n >= 3 && d < s->distance && d <= (n < 6 ? 2 : n / 3)) {
        s->distance = d;
        s->name = name;
    }
}

static bool belongs_to(unsigned elsewhere, struct err *e)
{
    char list[128] = "";
    for (int c = 0; c < CMD_COUNT; c++) {
        size_t n = strlen(list);
        if (elsewhere >> c & 1)
            snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", commands[c].name);
    }
    return err_hint(e, "commands that have it: %s", list);
}

static bool unknown_option(const struct args *a, const char *arg, const char *name, struct err *e)
{
    struct nearest near = {.wanted = name, .distance = NAME_MAX_LEN};
    unsigned elsewhere = 0;
    for (const struct option *o = options; o->name; o++) {
        if (strcmp(o->name, name) == 0)
            elsewhere |= o->commands;
        if (o->help && (a->command == CMD_NONE || (o->commands & 1u << a->command)))
            consider(&near, o->name);
    }
    err_set(e, ERR_USER, "unknown option %s", arg);
    if (a->command == CMD_NONE)
        return err_hint(e, elsewhere ? "put a command's options after it: gsq COMMAND [options]"
                                     : "`gsq --help` lists the commands");
    if (elsewhere)
        return belongs_to(elsewhere, e);
    if (near.name)
        return err_hint(e, "did you mean --%s?", near.name);
    return err_hint(e, "`gsq %s --help` lists the options", commands[a->command].name);
}

static bool find_command(struct args *a, const char *name, struct err *e)
{
    struct nearest near = {.wanted = name, .distance = NAME_MAX_LEN};
    for (int c = 0; c < CMD_COUNT; c++) {
        if (strcmp(commands[c].name, name) == 0) {
            a->command = (enum command_id)c;
            return true;
        }
        consider(&near, commands[c].name);
    }
    err_set(e, ERR_USER, "unknown command %s", name);
    if (near.name)
        return err_hint(e, "did you mean `gsq %s`?", near.name);
    return err_hint(e, "`gsq --help` lists the commands");
}

/* ---- values ---- */

static bool read_number(const char *text, const char **end, double *out)
{
    char *stop;
    errno = 0;
    *out = strtod(text, &stop);
    *end = stop;
    return stop != text && isfinite(*out) && strpbrk(text, "xX") == NULL;
}

static bool out_of_range(const struct option *o, const char *value, struct err *e)
{
    return err_set(e, ERR_USER, "--%s %s is out of range: %.10g to %.10g", o->name, value, o->min, o->max);
}

static bool read_integer(const struct option *o, const char *value, uint64_t *out, struct err *e)
{
    size_t n = strspn(value, "0123456789");
    if (value[0] == '-' && strspn(value + 1, "0123456789.") == strlen(value + 1) && value[1])
        return out_of_range(o, value, e);
    if (n == 0 || value[n])
        return err_set(e, ERR_USER, "--%s %s: expected a whole number", o->name, value);
    errno = 0;
    unsigned long long v = strtoull(value, NULL, 10);
    if (errno == ERANGE || (double)v < o->min || (double)v > o->max)
        return out_of_range(o, value, e);
    *out = v;
    return true;
}

static bool read_float(const struct option *o, const char *value, struct err *e, double *out)
{
    const char *end;
    if (!read_number(value, &end, out) || *end)
        return err_set(e, ERR_USER, "--%s %s: expected a number", o->name, value);
    if (*out < o->min || *out > o->max)
        return out_of_range(o, value, e);
    return true;
}

static bool read_pair(struct args *a, const struct option *o, const char *value, struct err *e)
{
    double from, to;
    const char *end;
    if (!read_number(value, &end, &from) || *end != ':' || !read_number(end + 1, &end, &to) || *end)
        return err_set(e, ERR_USER, "--%s %s: expected two numbers A:B", o->name, value);
    if (from < o->min || from > o->max || to < o->min || to > o->max)
        return out_of_range(o, value, e);
    void *target = (char *)a + o->target, *target2 = (char *)a + o->target2;
    *(float *)target = (float)from;
    *(float *)target2 = (float)to;
    return true;
}

static bool read_value(struct args *a, const struct option *o, const char *value, struct err *e)
{
    void *target = (char *)a + o->target;
    uint64_t integer;
    double number;
    switch (o->type) {
    case OPT_FLAG:
        *(bool *)target = true;
        return true;
    case OPT_TEXT:
        if (!value[0])
            return err_set(e, ERR_USER, "--%s: the value is empty", o->name);
        *(const char **)target = value;
        return true;
    case OPT_U32:
        if (!read_integer(o, value, &integer, e))
            return false;
        *(uint32_t *)target = (uint32_t)integer;
        return true;
    case OPT_U64:
        return read_integer(o, value, target, e);
    case OPT_F32:
        if (!read_float(o, value, e, &number))
            return false;
        *(float *)target = (float)number;
        return true;
    case OPT_GIB:
        if (!read_float(o, value, e, &number))
            return false;
        *(uint64_t *)target = (uint64_t)(number * 1073741824.0);
        return true;
    case OPT_PAIR:
        return read_pair(a, o, value, e);
    case OPT_NAME:
        return o->call ? o->call(a, o, value, e) : args_read_name(a, o, value, e);
    case OPT_CALL:
        return o->call(a, o, value, e);
    }
    return err_set(e, ERR_BUG, "option --%s has no type", o->name);
}

/* ---- the line ---- */

static const struct option *find_option(const struct args *a, const char *name, size_t len, char letter)
{
    for (const struct option *o = options; o->name; o++) {
        bool same = name ? strlen(o->name) == len && memcmp(o->name, name, len) == 0 : o->letter == letter;
        if (same && (a->command == CMD_NONE ? o->section == SECTION_COMMON : o->commands >> a->command & 1))
            return o;
    }
    return NULL;
}

/* One option at argv[*i], its value attached by '=' or in the next argument. seen: one flag per row of the
 * table. */
static bool read_option(struct args *a, int argc, char **argv, int *i, bool *seen, struct err *e)
{
    const char *arg = argv[*i], *eq = strchr(arg, '=');
    const struct option *o = NULL;
    if (arg[1] != '-') {
        eq = NULL;
        if (arg[2] == 0)
            o = find_option(a, NULL, 0, arg[1]);
    } else {
        o = find_option(a, arg + 2, eq ? (size_t)(eq - arg - 2) : strlen(arg + 2), 0);
    }
    if (!o) {
        char name[NAME_MAX_LEN + 1];
        snprintf(name, sizeof name, "%.*s", eq ? (int)(eq - arg) - 2 : NAME_MAX_LEN, arg + (arg[1] == '-' ? 2 : 1));
        return unknown_option(a, arg, name, e);
    }
    seen[o - options] = true;
    if (!o->arg) {
        if (eq)
            return err_set(e, ERR_USER, "--%s takes no value", o->name);
        return read_value(a, o, "", e);
    }
    const char *value = eq ? eq + 1 : *i + 1 < argc ? argv[++*i] : NULL;
    if (!value) {
        err_set(e, ERR_USER, "--%s needs a value", o->name);
        return err_hint(e, "--%s %s%s%s", o->name, o->arg, o->help ? ": " : "", o->help ? o->help : "");
    }
    return read_value(a, o, value, e);
}

static bool check_complete(const struct args *a, unsigned n_positional, const bool *seen, struct err *e)
{
    const struct command *c = &commands[a->command];
    if (n_positional < c->positionals) {
        err_set(e, ERR_USER, "gsq %s needs %s", c->name, c->positional_names[n_positional]);
        return err_hint(e, "usage: gsq %s %s", c->name, c->synopsis);
    }
    for (int i = 0; i < 2 && c->required[i]; i++) {
        const struct option *o = find_option(a, c->required[i], strlen(c->required[i]), 0);
        const struct option *other = i == 0 && c->instead ? find_option(a, c->instead, strlen(c->instead), 0) : NULL;
        bool stands_for = other && seen[other - options];
        if (o && stands_for && seen[o - options])
            return err_set(e, ERR_USER, "gsq %s takes --%s or --%s, not both", c->name, o->name, other->name);
        if (o && !stands_for && !seen[o - options]) {
            err_set(e, ERR_USER, "gsq %s needs --%s %s%s%s", c->name, o->name, o->arg, other ? ", or --" : "",
                    other ? other->name : "");
            if (other)
                return err_hint(e, "--%s: %s; --%s: %s", o->name, o->help, other->name, other->help);
            return err_hint(e, "--%s: %s; usage: gsq %s %s", o->name, o->help, c->name, c->synopsis);
        }
    }
    return true;
}

/* "out/" is "out": the work folder lies beside it, not in it. */
static bool settle_out(struct args *a, struct err *e)
{
    char *out = a->out ? str_dup(a->out) : NULL;
    if (!a->out)
        return true;
    if (out)
        out_trim(out);
    a->out = args_own(a, out);
    return a->out != NULL || err_nomem(e, "a path", 0);
}

/* An effort sets other options, which the rest of the line may set otherwise, wherever --effort stands. A
 * wrong one is told when its turn comes. */
static void set_effort(struct args *a, int argc, char **argv)
{
    static const char name[] = "--effort";
    const size_t n = sizeof name - 1;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *value = NULL;
        if (strcmp(argv[i], name) == 0)
            value = i + 1 < argc ? argv[i + 1] : NULL;
        else if (strncmp(argv[i], name, n) == 0 && argv[i][n] == '=')
            value = argv[i] + n + 1;
        if (value)
            gsq_quantize_options_set_effort(&a->q, value);
    }
}

/* Options in front of the command are of most commands, not of all: --device is not of convert. */
static bool check_early(const struct args *a, const bool *seen, struct err *e)
{
    for (const struct option *o = options; o->name; o++) {
        if (!seen[o - options] || o->commands >> a->command & 1)
            continue;
        err_set(e, ERR_USER, "gsq %s has no option --%s", commands[a->command].name, o->name);
        return belongs_to(o->commands, e);
    }
    return true;
}

/* Arguments without a name that a command takes at most. */
static unsigned most_positional(enum command_id c)
{
    return c == CMD_QUANTIZE ? 4 : commands[c].positionals;
}

bool args_parse(struct args *a, int argc, char **argv, struct err *e)
{
    bool seen[128] = {false}, only_positional = false;
    unsigned n_positional = 0;
    args_defaults(a);
    a->argv = argv;
    a->argc = argc;
    for (int i = 1; i < argc; i++)
        a->json |= strcmp(argv[i], "--json") == 0; /* known early: it decides how errors are told */

    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) { /* options of every command may come first */
        if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-V") == 0)
            return a->version = true;
        if (!read_option(a, argc, argv, &i, seen, e))
            return false;
    }
    if (i < argc && strcmp(argv[i], "version") == 0)
        return a->version = true;
    if (i < argc && strcmp(argv[i], "help") == 0) {
        a->help = true;
        a->help_all = i + 1 < argc && strcmp(argv[argc - 1], "all") == 0;
        return i + 1 >= argc || find_command(a, argv[i + 1], e);
    }
    if (i < argc && (!find_command(a, argv[i++], e) || !check_early(a, seen, e)))
        return false;
    set_effort(a, argc, argv);
    for (; i < argc; i++) {
        const char *arg = argv[i];
        if (!only_positional && strcmp(arg, "--") == 0) {
            only_positional = true;
        } else if (!only_positional && arg[0] == '-' && arg[1]) {
            bool asked = a->help;
            if (!read_option(a, argc, argv, &i, seen, e))
                return false;
            if (a->help && !asked && i + 1 < argc && strcmp(argv[i + 1], "all") == 0)
                a->help_all = ++i;
        } else {
            unsigned want = a->command == CMD_NONE ? 0 : most_positional(a->command);
            if (n_positional >= want) {
                err_set(e, ERR_USER, "unexpected argument %s", arg);
                return a->command == CMD_NONE
                           ? err_hint(e, "the command comes first: gsq COMMAND [options]")
                           : err_hint(e, "usage: gsq %s %s", commands[a->command].name, commands[a->command].synopsis);
            }
            a->positional[n_positional++] = arg;
        }
    }
    const struct option *samples = find_option(a, "samples", sizeof "samples" - 1, 0);
    if (samples && seen[samples - options])
        a->q.tokens = 0; /* so many, whatever their length */
    if (a->help)
        return true;
    if (a->command == CMD_NONE) {
        err_set(e, ERR_USER, "no command given");
        return err_hint(e, "`gsq --help` lists the commands");
    }
    return (a->command != CMD_QUANTIZE || llama_arguments(a, n_positional, seen, e)) &&
           check_complete(a, n_positional, seen, e) && settle_out(a, e);
}

unsigned args_models(const struct args *a)
{
    return a->command < CMD_COUNT ? commands[a->command].positionals : 0;
}
