/* The files of a folder that hold its tokenizer. Private to formats. */
#ifndef FORMATS_TOKENIZER_FILE_H
#define FORMATS_TOKENIZER_FILE_H

#include "formats/json.h"
#include "host/base/str.h"

enum { TOKENIZER_PATH = 4096 };

/* The text of DIR/tokenizer.json or, where that is not there, of one made from Kimi's DIR/tiktoken.model. path:
 * [TOKENIZER_PATH], the file that was read. *there false: neither; path is then that of tokenizer.json, and json is untouched.
 * The caller frees json, also after a failure. */
bool tokenizer_file_read(struct strbuf *json, const char *dir, char *path, bool *there, struct err *e);
/* DIR/NAME, and its path [TOKENIZER_PATH]; *root NULL: there is no such file. */
bool tokenizer_side_json(cJSON **root, const char *dir, const char *name, char *path, struct err *e);

#endif
