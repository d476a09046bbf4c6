/* What becomes of each matrix in an output: decided in one place, for who quantizes, converts or only wants to know. */
#ifndef FORMATS_FATE_H
#define FORMATS_FATE_H

#include "formats/write/export.h"

/* The type of a GGUF that holds such codes exactly, in rows of cols; NULL: none does. */
const struct gguf_type *fate_home(const struct quant_spec *spec, uint32_t cols);

enum fate_policy {
    FATE_FOLDER, /* a packed folder: codes, where the format holds them */
    FATE_GGUF,   /* a type for each; another one stands in where rows are no multiple of its block */
    FATE_REFINE  /* a GGUF whose types stay: codes of those that are learned; all else is copied */
};
struct fate_options {
    enum fate_policy policy;
    bool exact; /* the codes are there and stay as they are: what does not hold them is refused. Else they are made */
    /* Of a folder. */
    const struct family *family; /* of the model; NULL: unknown */
    enum export_format format;
    unsigned container;
    void (*warn)(void *ctx, const char *line); /* hears what is not as it was asked for */
    void *ctx;
};
/* Each matrix comes as it is wished: coded, spec, and of a GGUF the type that is wanted; exact: wanted NULL is any that holds its
 * codes, or the values where there are none, and type what it is stored as. It goes as it will be. ERR_USER says all that a
 * folder refuses at once, of a GGUF the first. */
bool fates_decide(struct matrix *list, size_t n, const struct fate_options *o, struct err *e);

#endif
