/* A linear of codes in each of the folders' formats: what can be held, as which tensors, as which bytes. */
#ifndef FORMATS_HF_LINEAR_H
#define FORMATS_HF_LINEAR_H

#include "formats/write/export.h"

enum export_verdict { EXPORT_OK, EXPORT_WARN, EXPORT_REFUSED };
/* Whether the format can hold such a linear of that family (NULL: an unknown one), and in `why` a sentence (a refusal, "; " and the remedy of who quantizes; or a
 * warning that names who will not load it). container: 0, or the bits of the storage container (--container 4, compressed-tensors). */
enum export_verdict export_check(enum export_format f, const struct family *family, const struct matrix *x,
                                 unsigned container, char *why, size_t cap);
/* The largest number that is stored with a scale, as a multiple of it: MLX stores each group's lowest level too. */
float export_scale_levels(enum export_format f, const struct quant_spec *spec);

#define LINEAR_TENSORS 4 /* at most */
struct linear_tensor {
    const char *suffix; /* ".qweight" */
    enum dtype dtype;
    uint32_t n_dims;
    uint64_t shape[2], bytes;
};
/* The tensors that an item becomes, in file order; returns how many. */
unsigned linear_layout(enum export_format f, unsigned container, const struct matrix *item,
                       struct linear_tensor out[LINEAR_TENSORS]);
/* Tensor number `which` of the layout into dst (out[which].bytes, aligned to 8). `rounded` counts the scales
 * that the stored type does not hold exactly; one that overflows it is ERR_USER. */
bool linear_encode(enum export_format f, unsigned container, const struct matrix *item, const struct qlinear *q,
                   unsigned which, void *dst, uint64_t *rounded, struct err *e);
/* Bits of a stored code. */
unsigned storage_bits(enum export_format f, unsigned container, const struct quant_spec *spec);

#endif
