/* The one progress callback of every long operation. */
#ifndef BASE_PROGRESS_H
#define BASE_PROGRESS_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "host/base/err.h"
#include "host/base/eta.h"

struct progress_event {
    const char *phase;      /* "tokenize", "calibrate", "quantize", "export", "eval" ... */
    const char *detail;     /* "block 3/32 down_proj", may be NULL */
    uint32_t block, blocks; /* 1-based; 0: not in a block */
    uint32_t step, steps;   /* inside the current linear; 0: none */
    double loss;            /* NAN: none */
    const char *unit;       /* what is counted of the present phase and detail, for its speed: "windows"; NULL: none */
    double count;           /* of those, done so far */
    uint32_t processes;     /* at this operation, as far as they know of each other; 0: this one */
    /* progress_report fills them in. */
    double done;            /* fraction of the whole operation, 0..1, by time */
    double eta_seconds;     /* NAN: not known yet */
    double elapsed_seconds; /* since the operation began */
};
/* False stops at the next safe point (the operation then fails with ERR_STOPPED). */
struct progress {
    bool (*fn)(void *ctx, const struct progress_event *ev);
    void *ctx;
};

/* What an operation tells through: events, each with what its eta says. What keeps it waiting (host/gpu/progress.h)
 * ticks, and meters how far it is meanwhile. */
struct progress_watch {
    const struct progress *to;
    struct eta *eta;
    struct progress_event last; /* its texts are those below */
    char phase[32], detail[128];
    uint64_t told_ns;
    double (*meter)(const void *device); /* operations of matrix products so far; NULL: nothing waits for a device */
    void *device;
    double meter_from, meter_total; /* total 0: off */
    bool (*poll)(void *ctx);        /* the device's own, asked too */
    void *poll_ctx;
};
/* to and eta stay where they are. */
void progress_begin(struct progress_watch *w, const struct progress *to, struct eta *eta);
/* Tells the last event again, where a second has passed. False: as progress_report. */
bool progress_tick(struct progress_watch *w);
/* The piece that has just begun consists of that many multiply-adds of matrix products: how far it is shows while it
 * tells nothing. Until the next call; 0: it is not known. */
void progress_meter(struct progress_watch *w, double multiply_adds);
/* False (ERR_STOPPED): the hook wants to stop. */
bool progress_report(struct progress_watch *w, const struct progress_event *ev, struct err *e);

#endif
