/* The multiple-choice knapsack: of each unit one choice, so that all together fit and cost least.
 *
 * Exact, by lists of states (bytes, cost) that no other beats in both, cut off by a bound: with a price on bytes that makes the
 * cheapest choices just fit, each choice's distance from its unit's best is paid by whoever takes it, and a state that has paid
 * more than the best solution known lies above the bound leads nowhere (Lagrange; Dyer, Kayal and Walsh 1984). */
#ifndef QUANT_KNAPSACK_H
#define QUANT_KNAPSACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"

struct knapsack_choice {
    uint64_t bytes;
    double cost; /* finite, 0 or more */
};
struct knapsack_unit {
    const struct knapsack_choice *choices;
    uint32_t n; /* 1 or more */
};
/* picked[unit] is the number of its choice. False without an error: not even the smallest choices fit. Among equals the answer is
 * always the same. Where states are more than memory is worth, sizes are rounded up to a coarser unit: what comes then fits, and is the
 * best of those sizes. */
bool knapsack_solve(const struct knapsack_unit *units, size_t n, uint64_t room, uint32_t *picked, struct err *e);

#endif
