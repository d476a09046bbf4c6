/* The file of a folder that holds its tokenizer. Private to formats. */
#ifndef FORMATS_TOKENIZER_FILE_H
#define FORMATS_TOKENIZER_FILE_H

#include "host/base/err.h"
#include "host/base/str.h"

enum { TOKENIZER_PATH = 4096 };

/* The text of DIR/tokenizer.json or, where that is not there, of one made from DIR/tiktoken.model (Kimi's; ids as its own
 * code gives them, with all special tokens recognised). path: [TOKENIZER_PATH], the file that was read. *there false:
 * neither; path is then that of tokenizer.json, and json is untouched. The caller frees json, also after a failure. */
bool tokenizer_file_read(struct strbuf *json, const char *dir, char *path, bool *there, struct err *e);

#endif
