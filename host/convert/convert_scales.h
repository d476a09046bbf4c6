/* Whether the scales of a conversion reach as far as those it comes from (plan_range.c asks the same of a run). */
#ifndef QUANT_CONVERT_SCALES_H
#define QUANT_CONVERT_SCALES_H

#include "formats/read/checkpoint_in.h"
#include "formats/write/export.h"

/* Of linears whose scales would become f16 and were not: reads their codes and sums what is lost. Where that is more than
 * rounding, scales of all items become bf16 if the format has it, which is said; else it is warned of, by the relative
 * error of the weights. ERR_USER where a scale would become infinite. */
bool convert_scales(const struct checkpoint *ck, struct matrix *items, size_t n, enum export_format f, struct err *e);

/* The same of one linear after the other, for a format whose scales are f16: sums up what is to be warned of. */
struct scale_losses {
    unsigned found;
};
bool convert_scales_one(struct scale_losses *s, const struct checkpoint *ck, const char *module, struct err *e);
void convert_scales_end(const struct scale_losses *s);

#endif
