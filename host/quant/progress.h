/* The one progress callback of every long operation. */
#ifndef QUANT_PROGRESS_H
#define QUANT_PROGRESS_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

struct progress_event {
    const char *phase;  /* "tokenize", "calibrate", "quantize", "export", "eval" */
    const char *detail; /* "block 3/32 down_proj", may be NULL */
    uint32_t block, blocks; /* 1-based; 0: not in a block */
    uint32_t step, steps;   /* inside the current linear; 0: none */
    double loss;        /* NAN: none */
    double done;        /* fraction of the whole operation, 0..1, by predicted time */
    double eta_seconds; /* NAN: not known yet */
};
/* False stops at the next safe point (the operation then fails with ERR_STOPPED). */
struct progress {
    bool (*fn)(void *ctx, const struct progress_event *ev);
    void *ctx;
};
/* Calls fn if there is one; true: go on. */
static inline bool progress_report(const struct progress *p, const struct progress_event *ev)
{
    return !p || !p->fn || p->fn(p->ctx, ev);
}

/* While a text is tokenized: for struct windows_progress (host/model/calib.h), with p as its ctx. */
static inline bool progress_tokenize(void *p, double done)
{
    const struct progress_event ev = {.phase = "tokenize", .loss = NAN, .done = done, .eta_seconds = NAN};
    return progress_report(p, &ev);
}

#endif
