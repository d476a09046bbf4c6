#include "host/quant/plan/knapsack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"

/* States kept for the way back: 24 bytes each. */
#define STATES_MOST (1u << 23)
/* Halvings of the interval of prices: as fine as a double. */
#define PRICE_STEPS 200
/* Of the bound: sums of doubles in another order. */
#define ROUNDING 1e-9

struct state {
    uint64_t bytes;
    double cost;
    uint32_t from, choice; /* its state of the unit before */
};

struct solver {
    const struct knapsack_unit *units;
    size_t n;
    uint64_t room, unit; /* sizes are rounded up to multiples of unit */
    double price;
    uint32_t *best;   /* [n]: the best solution known */
    double best_cost; /* its cost */
    double *least;    /* [n + 1]: least cost + price * bytes of the units from here on */
    uint64_t *small;  /* [n + 1]: their least bytes */
};

static uint64_t size_of(const struct solver *s, size_t unit, uint32_t choice)
{
    return round_up(s->units[unit].choices[choice].bytes, s->unit);
}

static double cost_of(const struct solver *s, size_t unit, uint32_t choice)
{
    return s->units[unit].choices[choice].cost;
}

/* ---- the bound ---- */

/* Each unit's choice at a price; of equals the smaller. Returns bytes of all. */
static uint64_t choose(const struct solver *s, double price, uint32_t *picked)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < s->n; i++) {
        double best = INFINITY;
        picked[i] = 0;
        for (uint32_t c = 0; c < s->units[i].n; c++) {
            double value = cost_of(s, i, c) + price * (double)size_of(s, i, c);
            if (value < best || (value == best && size_of(s, i, c) < size_of(s, i, picked[i]))) {
                best = value;
                picked[i] = c;
            }
        }
        bytes += size_of(s, i, picked[i]);
    }
    return bytes;
}

static double total_cost(const struct solver *s, const uint32_t *picked)
{
    double sum = 0;
    for (size_t i = 0; i < s->n; i++)
        sum += cost_of(s, i, picked[i]);
    return sum;
}

/* What is left over buys, again and again, the change that saves most. */
static void fill_up(const struct solver *s, uint32_t *picked, uint64_t bytes)
{
    for (;;) {
        double most = 0;
        size_t unit = 0;
        uint32_t choice = 0;
        for (size_t i = 0; i < s->n; i++)
            for (uint32_t c = 0; c < s->units[i].n; c++) {
                double saved = cost_of(s, i, picked[i]) - cost_of(s, i, c);
                if (saved > most && bytes - size_of(s, i, picked[i]) + size_of(s, i, c) <= s->room) {
                    most = saved;
                    unit = i;
                    choice = c;
                }
            }
        if (most <= 0)
            return;
        bytes = bytes - size_of(s, unit, picked[unit]) + size_of(s, unit, choice);
        picked[unit] = choice;
    }
}

/* The lowest price at which the choices fit, and a solution from there. False: they fit at none. */
static bool find_price(struct solver *s)
{
    double low = 0, high = 0;
    if (s->small[0] > s->room)
        return false;
    if (choose(s, 0, s->best) > s->room) {
        /* From where on each unit takes its smallest choice. */
        for (high = 1; choose(s, high, s->best) > s->room; high *= 2)
            if (!isfinite(high * 2 * (double)s->room)) {
                s->price = 0;
                return false;
            }
        for (int i = 0; i < PRICE_STEPS; i++) {
            double middle = low + (high - low) / 2;
            if (choose(s, middle, s->best) > s->room)
                low = middle;
            else
                high = middle;
        }
    }
    s->price = high;
    fill_up(s, s->best, choose(s, high, s->best));
    s->best_cost = total_cost(s, s->best);
    return true;
}

static void find_bounds(struct solver *s)
{
    s->least[s->n] = 0;
    for (size_t i = s->n; i-- > 0;) {
        double least = INFINITY;
        for (uint32_t c = 0; c < s->units[i].n; c++)
            least = fmin(least, cost_of(s, i, c) + s->price * (double)size_of(s, i, c));
        s->least[i] = s->least[i + 1] + least;
    }
}

static void find_small(struct solver *s)
{
    s->small[s->n] = 0;
    for (size_t i = s->n; i-- > 0;) {
        uint64_t small = UINT64_MAX;
        for (uint32_t c = 0; c < s->units[i].n; c++)
            small = min_u64(small, size_of(s, i, c));
        s->small[i] = s->small[i + 1] + small;
    }
}

/* ---- states ---- */

static int by_bytes(const void *a, const void *b)
{
    const struct state *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    if (x->cost != y->cost)
        return x->cost < y->cost ? -1 : 1;
    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    return x->choice < y->choice ? -1 : x->choice > y->choice;
}

/* Whether it may lead to something better than the best known. */
static bool may_win(const struct solver *s, size_t next, uint64_t bytes, double cost)
{
    if (bytes > s->room || s->small[next] > s->room - bytes)
        return false;
    double bound = cost + s->least[next] - s->price * (double)(s->room - bytes);
    return bound <= s->best_cost + ROUNDING * fabs(s->best_cost);
}

/* Sorted, and those that another beats are gone. Returns how many stay. */
static size_t undominated(struct state *list, size_t n)
{
    size_t kept = 0;
    qsort(list, n, sizeof *list, by_bytes);
    for (size_t i = 0; i < n; i++)
        if (!kept || list[i].cost < list[kept - 1].cost)
            list[kept++] = list[i];
    return kept;
}

struct states {
    struct state *list;
    size_t n, cap;
    size_t *first; /* [n units + 2]: where each unit's begin */
};

static bool room_for(struct states *x, size_t more, struct err *e)
{
    if (x->n + more <= x->cap)
        return true;
    size_t cap = max_u64(2 * x->cap, x->n + more + 1024);
    struct state *grown = realloc(x->list, cap * sizeof *grown);
    if (!grown)
        return err_nomem(e, "a choice of types", cap * sizeof *grown);
    x->list = grown;
    x->cap = cap;
    return true;
}

/* All units. *many: they were more than are kept. */
static bool expand(const struct solver *s, struct states *x, bool *many, struct err *e)
{
    *many = false;
    if (!room_for(x, 1, e))
        return false;
    x->list[0] = (struct state){0};
    x->n = 1;
    x->first[0] = 0;
    x->first[1] = 1;
    for (size_t i = 0; i < s->n; i++) {
        size_t from = x->first[i], to = x->first[i + 1];
        const struct knapsack_unit *u = &s->units[i];
        if (to - from > STATES_MOST / u->n || x->n > STATES_MOST) {
            *many = true;
            return true;
        }
        if (!room_for(x, (to - from) * u->n, e))
            return false;
        for (size_t k = from; k < to; k++)
            for (uint32_t c = 0; c < u->n; c++) {
                struct state y = {x->list[k].bytes + size_of(s, i, c), x->list[k].cost + cost_of(s, i, c),
                                  (uint32_t)(k - from), c};
                if (may_win(s, i + 1, y.bytes, y.cost))
                    x->list[x->n++] = y;
            }
        x->n = to + undominated(x->list + to, x->n - to);
        x->first[i + 2] = x->n;
    }
    return true;
}

/* The last list's cheapest, if it is better than what is known: it is, or equals it. */
static void walk_back(struct solver *s, const struct states *x)
{
    size_t from = x->first[s->n], to = x->first[s->n + 1];
    if (from == to || !(x->list[to - 1].cost < s->best_cost))
        return;
    size_t at = to - 1;
    s->best_cost = x->list[at].cost;
    for (size_t i = s->n; i-- > 0;) {
        s->best[i] = x->list[at].choice;
        at = x->first[i] + x->list[at].from;
    }
}

static bool solve(struct solver *s, bool *fits, bool *many, struct err *e)
{
    struct states x = {.first = calloc(s->n + 2, sizeof *x.first)};
    bool ok = x.first || err_nomem(e, "a choice of types", s->n * sizeof *x.first);
    *fits = *many = false;
    if (ok) {
        find_small(s);
        *fits = find_price(s);
    }
    if (ok && *fits) {
        find_bounds(s);
        ok = expand(s, &x, many, e);
        if (ok && !*many)
            walk_back(s, &x);
    }
    free(x.list);
    free(x.first);
    return ok;
}

bool knapsack_solve(const struct knapsack_unit *units, size_t n, uint64_t room, uint32_t *picked, struct err *e)
{
    struct solver s = {.units = units, .n = n, .room = room, .unit = 1};
    uint32_t *coarse = calloc(n + 1, sizeof *coarse);
    s.least = calloc(n + 1, sizeof *s.least);
    s.small = calloc(n + 1, sizeof *s.small);
    s.best = coarse;
    bool ok = (s.best && s.least && s.small) || err_nomem(e, "a choice of types", n * sizeof *s.least);
    bool fits = ok, many = ok, found = false;
    /* A solution of any unit fits; where the exact one is out of reach, the greedy one is there to compare with. */
    double best = INFINITY;
    while (ok && fits && many) {
        ok = solve(&s, &fits, &many, e);
        if (ok && fits && s.best_cost < best) {
            best = s.best_cost;
            memcpy(picked, s.best, n * sizeof *picked);
            found = true;
        }
        s.unit *= 2;
    }
    free(coarse);
    free(s.least);
    free(s.small);
    return ok && found;
}
