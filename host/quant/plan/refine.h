/* A published GGUF whose codes alone are learned anew, against the activations of the model it was made from
 * (docs/method.md 4): metadata, scales, mins and everything else stay, byte for byte. */
#ifndef QUANT_REFINE_H
#define QUANT_REFINE_H

#include "host/quant/plan.h"

/* Whether `file` is one GGUF of the same architecture and shape as the model. ERR_USER naming what differs.
 */
bool refine_check(const struct checkpoint *file, const struct checkpoint *master, struct err *e);
/* Bytes and bits per weight: those of the file. */
bool refine_size(struct plan *p);

#endif
