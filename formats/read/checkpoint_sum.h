/* Sums (XXH3) of a model's tensors, all bytes of them: that the model is today what it was when a run began.
 * They are taken while the tensors are read anyway (model_check_finite looks at every weight of every run),
 * so that they cost what hashing costs, a second for 10 GB, and no second reading. Size and time of the files
 * would cost nothing, but a copy or a checkout changes the time and not the bytes, and a flipped bit neither.
 */
#ifndef FORMATS_CHECKPOINT_SUM_H
#define FORMATS_CHECKPOINT_SUM_H

#include "formats/read/checkpoint_in.h"

struct checkpoint_sums {
    const struct checkpoint *ck;
    struct hash128 *tensor; /* [n], in the order of checkpoint_tensor_at */
    bool *known;            /* [n] */
    size_t n;
    size_t *by_name; /* [n] in the order of their names: what is below a module lies together */
};
/* Room for them; none is known yet. */
bool checkpoint_sums_create(struct checkpoint_sums *out, const struct checkpoint *ck, struct err *e);
void checkpoint_sums_free(struct checkpoint_sums *s);
/* Takes the sums of MODULE.weight and whatever else is directly below this name. */
void checkpoint_sum_module(struct checkpoint_sums *s, const char *module);
/* Takes those that are not known yet, and gives back their pages. */
void checkpoint_sum_rest(struct checkpoint_sums *s);
/* Of names, types, shapes and bytes of all tensors; all must be known. */
struct hash128 checkpoint_sum_total(const struct checkpoint_sums *s);
/* Reads all tensors whose names begin with PREFIX again. ERR_USER naming the tensor and its file if one has
 * changed. */
bool checkpoint_sum_same(const struct checkpoint_sums *s, const char *prefix, struct err *e);

#endif
