/* The manual page and the shells' completions, made from the tables of commands and options: they cannot go stale. */
#ifndef APP_MANUAL_H
#define APP_MANUAL_H

#include <stdio.h>

/* gsq(1), in man(7) macros. */
void manual_page(FILE *f);
/* A file for bash-completion's folder, zsh's site-functions and fish's vendor_completions.d. */
void completion_bash(FILE *f);
void completion_zsh(FILE *f);
void completion_fish(FILE *f);

#endif
