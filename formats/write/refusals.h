/* Linears that a format cannot hold, gathered so that one message says all of them. */
#ifndef FORMATS_REFUSALS_H
#define FORMATS_REFUSALS_H

#include "arch/block.h"
#include "formats/write/write_hf.h"

/* Zero-initialise. */
struct refusals {
    unsigned linears, kinds;
    bool of[ROLE_COUNT];
    char first[512]; /* why, of the first */
    char names[160]; /* of the kinds: "q_proj|up_proj" */
};
void refusals_add(struct refusals *r, const struct block_part *part, const char *why);
/* True where there are none; else ERR_USER, to which the caller adds the hint. */
bool refusals_none(const struct refusals *r, enum export_format f, struct err *e);

#endif
