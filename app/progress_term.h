/* Progress for people and programs: a bar on a terminal, a line now and then in a pipe, JSON lines, or
 * nothing. */
#ifndef APP_PROGRESS_TERM_H
#define APP_PROGRESS_TERM_H

#include "app/args.h"
#include "lib/gsq.h"

enum progress_mode { PROGRESS_NONE, PROGRESS_BAR, PROGRESS_LINES, PROGRESS_JSON };

struct progress_term {
    enum progress_mode mode;
    bool drawn; /* a bar is on the screen */
    uint64_t start_ns, last_ns;
    char last_phase[32];
    /* Of what is counted of a phase and detail: since when, from what on, how far. */
    char phase[32], detail[128];
    uint64_t count_ns;
    double count_from, count, speed; /* speed in units a second; NAN: not known */
};

/* Chooses the mode from the options and the terminal. p must stay where it is until progress_term_end. */
void progress_term_begin(struct progress_term *p, const struct args *a);
/* The callback, with p as its ctx: asks the operation to stop after Ctrl-C. */
bool progress_term_show(void *p, const struct gsq_progress *ev);
/* Clears the bar. */
void progress_term_end(struct progress_term *p);

/* The text of a bar in at most `columns` columns; speed in ev->unit a second, NAN: not known (for tests). */
void progress_bar_text(char *out, size_t cap, const struct gsq_progress *ev, double speed, unsigned columns);

#endif
