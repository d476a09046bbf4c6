/* What all training shares: progress hooks, rates, the order of windows. */
#ifndef QUANT_EPOCHS_H
#define QUANT_EPOCHS_H

#include "host/gpu/gpu_cmd.h"
#include "host/quant/record.h"

struct tune_hooks {
    /* Called every few steps; false stops. loss: relative soft loss, NAN when not measured. May be NULL. */
    bool (*step)(void *ctx, uint32_t step, uint32_t steps, double loss);
    void *ctx;
};
/* Calls the hook, if there is one. Where it stops: false (ERR_STOPPED), after the device has finished what was
 * recorded. */
bool tune_tell(const struct tune_hooks *hooks, struct gpu_cmd *cmd, uint32_t step, uint32_t steps, double loss,
               struct err *e);

/* A run that diverges starts again at half the rate, this often. */
#define EPOCH_RETRIES 3u
/* Diverged: hard loss above this multiple of the start's. */
#define EPOCH_DIVERGED 4.0

/* order[n] <- 0 .. n-1 in the order of this epoch. who: what is trained, so that stages do not share their
 * orders. */
void epoch_shuffle(uint32_t *order, uint32_t n, uint64_t seed, uint64_t who, uint32_t epoch);
/* Share of the rate at step t (from 0) of `steps`: a cosine from 1 to `end`. */
double cosine_rate(uint32_t t, uint32_t steps, float end);
/* Means of equal parts of x[n], at most CURVE_POINTS; returns how many. */
uint32_t epoch_curve(const float *x, uint32_t n, float out[CURVE_POINTS]);

#endif
