/* Reads the command line. One table of options (option_table.c) drives parsing, checking and the help texts. */
#ifndef APP_COMMAND_LINE_H
#define APP_COMMAND_LINE_H

#include "app/args.h"

/* Reads argv[1..]. Strings of argv are kept, not copied. On failure ERR_USER, with the nearest name as hint
 * where a name is unknown; a->json is right even then. args_free in every case. */
bool args_parse(struct args *a, int argc, char **argv, struct err *e);
/* How many of a->positional are models. */
unsigned args_models(const struct args *a);
/* Help of a command, or of the program (CMD_NONE). all: every option, not the usual ones alone. */
void args_help(FILE *f, enum command_id command, bool all);
/* "quantize". */
const char *command_name(enum command_id c);

#endif
