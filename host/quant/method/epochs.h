/* What training over shuffled windows shares: the block objective and the last pass over scales. */
#ifndef QUANT_EPOCHS_H
#define QUANT_EPOCHS_H

#include "host/quant/record.h"

/* A run that diverges starts again at half the rate, this often. */
#define EPOCH_RETRIES 3u
/* Diverged: hard loss above this multiple of the start's. */
#define EPOCH_DIVERGED 4.0

/* order[n] <- 0 .. n-1 in the order of this epoch. who: what is trained, so that stages do not share their
 * orders. */
void epoch_shuffle(uint32_t *order, uint32_t n, uint64_t seed, uint64_t who, uint32_t epoch);
/* Means of equal parts of x[n], at most CURVE_POINTS; returns how many. */
uint32_t epoch_curve(const float *x, uint32_t n, float out[CURVE_POINTS]);

#endif
