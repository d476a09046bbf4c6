#include "host/base/eta.h"

#include <math.h>
#include <string.h>

/* What a kind's prediction weighs against its measurement: as much as this share of the kind, done. */
#define PRIOR_SHARE 0.02
/* A piece that tells nothing counts as done this far at most, however long it takes. */
#define SILENT_MOST 0.95
/* One prediction is not believed to be further off than this. */
#define MOST_OFF 1e6

static double seconds_between(uint64_t from, uint64_t to)
{
    return to > from ? (double)(to - from) * 1e-9 : 0;
}

void eta_start(struct eta *t, uint64_t now, double trust)
{
    memset(t, 0, sizeof *t);
    t->trust = trust;
    t->begin = t->mark = now;
}

void eta_expect(struct eta *t, unsigned kind, double seconds)
{
    if (seconds > 0)
        t->kind[kind].total += seconds;
}

void eta_skip(struct eta *t, unsigned kind, double seconds)
{
    struct eta_kind *k = &t->kind[kind];
    if (seconds > 0)
        k->skipped = fmin(k->skipped + seconds, k->total - fmin(k->done, k->total));
}

void eta_close(struct eta *t, unsigned kind)
{
    eta_skip(t, kind, t->kind[kind].total);
}

/* ---- accounting ---- */

/* Books the time since the last booking, and what the piece has done in it. */
static void book(struct eta *t, double share, uint64_t now)
{
    struct eta_kind *k = &t->kind[t->piece_of];
    k->spent += seconds_between(t->mark, now);
    k->done = fmax(0, k->done + t->piece * (share - t->part));
    t->part = share;
    t->mark = now;
}

void eta_begin(struct eta *t, unsigned kind, double seconds, uint64_t now)
{
    if (t->open)
        book(t, t->part, now);
    t->open = true;
    t->piece_of = kind;
    t->piece = seconds > 0 ? seconds : 0;
    t->part = 0;
}

void eta_part(struct eta *t, double share, uint64_t now)
{
    /* Told again, it is silent still: what it has done since is guessed, where nothing would be wrong. */
    if (t->open && share != t->part)
        book(t, share, now);
}

void eta_end(struct eta *t, uint64_t now)
{
    if (t->open)
        book(t, 1, now);
    t->open = false;
}

/* ---- what is left ---- */

static double prior_weight(const struct eta_kind *k)
{
    return PRIOR_SHARE * fmax(0, k->total - k->skipped);
}

/* What measured kinds took of their predictions, as a factor; each counts by the time it took. */
static double common_factor(const struct eta *t)
{
    double sum = 0, weight = 0;
    for (unsigned i = 0; i < ETA_KINDS; i++) {
        const struct eta_kind *k = &t->kind[i];
        weight += prior_weight(k);
        if (!(k->spent > 0) || !(k->done > 0))
            continue;
        sum += k->spent * log(fmin(fmax(k->spent / k->done, 1 / MOST_OFF), MOST_OFF));
        weight += k->spent;
    }
    return weight > 0 ? exp(sum / weight * (1 - t->trust)) : 1;
}

/* Seconds that a predicted second of this kind takes. */
static double factor(const struct eta_kind *k, double common)
{
    double prior = prior_weight(k);
    return prior + k->done > 0 ? (prior * common + k->spent) / (prior + k->done) : common;
}

/* The kind as if the piece in work had told what it has done by now. */
static struct eta_kind in_work(const struct eta *t, double common, uint64_t now)
{
    struct eta_kind k = t->kind[t->piece_of];
    double since = seconds_between(t->mark, now), rest = fmax(0, t->piece * (1 - t->part));
    double likely = since / factor(&k, common);
    k.spent += since;
    k.done += fmin(likely, SILENT_MOST * rest);
    return k;
}

static void sum_up(const struct eta *t, uint64_t now, double *left, double *done)
{
    double common = common_factor(t);
    *left = *done = 0;
    for (unsigned i = 0; i < ETA_KINDS; i++) {
        struct eta_kind k = t->open && t->piece_of == i ? in_work(t, common, now) : t->kind[i];
        double each = factor(&k, common);
        *left += fmax(0, k.total - k.skipped - k.done) * each;
        *done += (k.skipped + k.done) * each;
    }
}

double eta_left(const struct eta *t, uint64_t now)
{
    double left, done;
    sum_up(t, now, &left, &done);
    return left + done > 0 ? left : NAN;
}

double eta_share(struct eta *t, uint64_t now)
{
    double left, done;
    sum_up(t, now, &left, &done);
    if (left + done > 0)
        t->most = fmax(t->most, done / (left + done));
    return t->most;
}

double eta_elapsed(const struct eta *t, uint64_t now)
{
    return seconds_between(t->begin, now);
}
