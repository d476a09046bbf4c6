/* How long a long operation still takes. It is a few kinds of work, each predicted in seconds; while it runs,
 * each kind's prediction gives way to what its work is measured to take.
 *
 *     eta_start(&t, now, 0.7);
 *     eta_expect(&t, FORWARD, 120);     // all that will be done of a kind
 *     eta_expect(&t, EXPORT, 30);
 *     eta_begin(&t, FORWARD, 10, now);  // a piece of it, predicted at 10 s
 *     eta_part(&t, 0.5, now);           // half of the piece is done
 *     eta_end(&t, now);
 *     seconds = eta_left(&t, now);      // at any time, also within a piece that tells nothing
 *
 * Times are os_now_ns(). No clock is read here, so that tests make their own. */
#ifndef BASE_ETA_H
#define BASE_ETA_H

#include <stdbool.h>
#include <stdint.h>

enum { ETA_KINDS = 13 };

struct eta_kind {
    double total;   /* all of it, in seconds as predicted */
    double skipped; /* of these, what was done before or is not done at all: it takes no time */
    double done;    /* of these, what is done */
    double spent;   /* the seconds that took */
};
struct eta {
    struct eta_kind kind[ETA_KINDS];
    double trust;
    bool open;            /* a piece is in work */
    unsigned piece_of;    /* its kind */
    double piece, part;   /* its predicted seconds, and the share that is done */
    uint64_t begin, mark; /* the clock at the start, and when work was last accounted */
    double most;          /* the largest share told */
};

/* trust: how far kinds that were not measured yet stand by their predictions where measured ones differ from
 * theirs. 1: altogether; 0: predictions are counts of operations on a machine of unknown speed, and only
 * their ratios count. */
void eta_start(struct eta *t, uint64_t now, double trust);
/* Adds to a kind, before or while it is worked on. */
void eta_expect(struct eta *t, unsigned kind, double seconds);
/* That much of a kind is done already, or will not be done. */
void eta_skip(struct eta *t, unsigned kind, double seconds);
/* Nothing more of this kind comes. */
void eta_close(struct eta *t, unsigned kind);
/* Begins a piece; one that is still open ends first, as far as it was told. The time since the last piece is
 * this kind's. */
void eta_begin(struct eta *t, unsigned kind, double seconds, uint64_t now);
/* The piece is this far, 0..1; less than before: that much is done again. */
void eta_part(struct eta *t, double share, uint64_t now);
void eta_end(struct eta *t, uint64_t now);
/* Seconds left; NAN where nothing is expected. */
double eta_left(const struct eta *t, uint64_t now);
/* Share done of all, by time, what was skipped included; never less than it was before. 1 only when nothing
 * is left. */
double eta_share(struct eta *t, uint64_t now);
double eta_elapsed(const struct eta *t, uint64_t now);

#endif
