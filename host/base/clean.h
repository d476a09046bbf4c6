/* The one place where text from files and folders becomes text for people or programs. A downloaded model's names and
 * strings may hold escape sequences, and characters that turn the line around: whoever reads a terminal, a log or a page
 * must see that they are there, and nothing else may come of them. */
#ifndef BASE_CLEAN_H
#define BASE_CLEAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "host/base/printf_like.h"

/* Copies n bytes of s into out, NUL-terminated, as much as fits of whole characters; returns the length. What is no UTF-8,
 * control characters (C0, DEL, C1) and those that reorder or hide text (U+061C, U+200B, U+200E-200F, U+2028-202E, U+2060-206F,
 * U+FEFF, U+FFF9-FFFB, tags) are spelled out: \x1b, \u202e. lines: \n and \t stay as they are. A character that is cut off
 * at the end of s is dropped. At most CLEAN_GROWTH bytes come of one. */
enum { CLEAN_GROWTH = 6 };
size_t clean_text(char *out, size_t cap, const char *s, size_t n, bool lines);
/* The same of JSON text that is valid but for its bytes: what is no UTF-8 becomes U+FFFD, and the characters above their
 * \u escapes, which mean the same to a parser. malloc'ed; NULL: out of memory. */
char *clean_json(const char *text);
/* printf for people: cleaned, with its lines. */
void say(FILE *f, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* fputs for people: the same. */
void say_text(FILE *f, const char *text);

#endif
