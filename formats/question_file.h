/* Multiple-choice questions, for evaluation: JSON lines (text_file.h says how they may be packed), an object in each. */
#ifndef FORMATS_QUESTION_FILE_H
#define FORMATS_QUESTION_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "host/base/err.h"

struct question {
    char *text;
    char **choices;             /* [n_choices], two at least, none empty */
    uint32_t n_choices, answer; /* index of the right one */
    uint64_t line;              /* of the file, from 1 on */
};
struct questions {
    struct question *list;
    uint32_t n;
};

/* The first at_most of them; 0: all. The fields, each under the first name that there is:
 *   question, ctx (HellaSwag), goal (PIQA)         text
 *   choices, endings (HellaSwag)                   list of texts, or {"text": list, "label": list} (ARC); else sol1 and sol2 (PIQA)
 *   answer, label, answerKey (ARC)                 index from 0 on, as a number or digits; a label of the choices; the right
 *                                                  choice's text; or a letter, A being the first
 * ERR_USER naming the line and what a line should look like; for a file without a question too. */
bool questions_load(struct questions *out, const char *path, uint32_t at_most, struct err *e);
void questions_free(struct questions *q);

#endif
