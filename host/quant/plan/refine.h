/* A published GGUF whose codes alone are learned anew, against the activations of the model it was made from
 * (docs/method.md 4): metadata, scales, mins and everything else stay, byte for byte. */
#ifndef QUANT_REFINE_H
#define QUANT_REFINE_H

#include "host/quant/plan.h"

/* Whether `file` is one GGUF of the same architecture and shape as the model. ERR_USER naming what differs.
 */
bool refine_check(const struct checkpoint *file, const struct checkpoint *master, struct err *e);
/* What a matrix of the model is called in that file, whose prefix may be another; returns out. */
const char *refine_module(const struct checkpoint *file, const struct checkpoint *master, const struct matrix *x,
                          char out[MODULE_CAP]);
/* Bytes and bits per weight: those of the file. */
bool refine_size(struct plan *p);

#endif
