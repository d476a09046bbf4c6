/* Text files for calibration and evaluation: plain UTF-8, JSON lines, either of them packed by gzip or zstd.
 */
#ifndef FORMATS_TEXT_FILE_H
#define FORMATS_TEXT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"

/* Of PATH.jsonl and PATH.ndjson the text is that of the field "text" of every line, an empty line ("\n\n")
 * between two; or of its "messages", a conversation (chat.h). gzip and zstd are known by their first bytes; ".gz" and ".zst" are not part of the name then.
 * PATH.json that begins as an object or an array is refused: nobody calibrates on its braces unawares.
 * Other kinds of files (Parquet, ZIP, PDF, UTF-16 ...) are refused by name, ERR_USER with the remedy. */
struct text_file;
bool text_file_open(struct text_file **out, const char *path, struct err *e);
void text_file_close(struct text_file **f);
/* Up to cap further bytes of the text; *got 0: its end. file is a struct text_file: for text_source. Damaged
 * or cut-off data, and lines that are no object with such a field: ERR_USER. */
bool text_file_read(void *file, char *buf, size_t cap, size_t *got, struct err *e);
/* Conversations become what this makes of them; without, or NULL, their contents alone, an empty line between two. */
struct chat_format;
void text_file_set_chat(struct text_file *f, const struct chat_format *chat);
/* Lines so far that were conversations. */
uint64_t text_file_chats(const struct text_file *f);
/* From now on a line of JSON lines whose text came before, in this file or in another one with the same `seen`, is left out: repeated
 * documents teach nothing new, and outweigh others. seen outlives the file. */
struct text_seen;
struct text_seen *text_seen_create(void); /* NULL: no memory */
void text_seen_destroy(struct text_seen **s);
void text_file_skip_repeats(struct text_file *f, struct text_seen *seen);
/* How many were. */
uint64_t text_file_repeats(const struct text_file *f);
/* In place of text_file_read, for files whose lines are JSON whatever their name: the next line as it is, without its end, until
 * the next call, and its number, from 1 on. *line NULL: there is none. */
bool text_file_line(struct text_file *f, const char **line, size_t *n, uint64_t *number, struct err *e);
/* Share of the file's bytes that have been read, 0 to 1. */
double text_file_share(const struct text_file *f);

#endif
