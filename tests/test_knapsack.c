/* The choice of types: against all choices there are, and at the size of a large model. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/quant/plan/knapsack.h"
#include "tests/check.h"

enum { UNITS = 7, CHOICES = 5 };

static uint64_t next(uint64_t *x)
{
    *x = *x * 6364136223846793005u + 1442695040888963407u;
    return *x >> 33;
}

static void totals(const struct knapsack_unit *u, size_t n, const uint32_t *picked, uint64_t *bytes, double *cost)
{
    *bytes = 0;
    *cost = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(picked[i] < u[i].n);
        *bytes += u[i].choices[picked[i]].bytes;
        *cost += u[i].choices[picked[i]].cost;
    }
}

/* The least cost by trying everything; INFINITY: nothing fits. */
static double brute(const struct knapsack_unit *u, size_t n, uint64_t room)
{
    uint32_t picked[UNITS] = {0};
    double best = INFINITY;
    for (;;) {
        uint64_t bytes;
        double cost;
        totals(u, n, picked, &bytes, &cost);
        if (bytes <= room)
            best = fmin(best, cost);
        size_t i = 0;
        while (i < n && ++picked[i] == u[i].n)
            picked[i++] = 0;
        if (i == n)
            return best;
    }
}

/* Costs that do not fall with bytes, equal ones, units with one choice, all are among these. */
static void test_small(void **state)
{
    (void)state;
    uint64_t seed = 7;
    unsigned fitted = 0, refused = 0;
    for (int turn = 0; turn < 3000; turn++) {
        struct knapsack_choice choices[UNITS][CHOICES];
        struct knapsack_unit units[UNITS];
        size_t n = 1 + next(&seed) % UNITS;
        uint64_t largest = 0;
        for (size_t i = 0; i < n; i++) {
            units[i] = (struct knapsack_unit){choices[i], 1 + (uint32_t)(next(&seed) % CHOICES)};
            uint64_t most = 0;
            for (uint32_t c = 0; c < units[i].n; c++) {
                uint64_t step = turn % 3 ? 1 : 16;
                choices[i][c].bytes = next(&seed) % (turn % 2 ? 40 : 100000) * step;
                choices[i][c].cost = turn % 5 ? (double)(next(&seed) % 1000) * 1e-4 : (double)(next(&seed) % 4);
                if (choices[i][c].bytes > most)
                    most = choices[i][c].bytes;
            }
            largest += most;
        }
        uint64_t room = largest ? next(&seed) % (largest + 1) : 0;
        uint32_t picked[UNITS];
        struct err e = {0};
        double best = brute(units, n, room);
        bool ok = knapsack_solve(units, n, room, picked, &e);
        assert_int_equal(e.kind, ERR_NONE);
        assert_int_equal(ok, isfinite(best));
        fitted += ok;
        refused += !ok;
        if (!ok)
            continue;
        uint64_t bytes;
        double cost;
        totals(units, n, picked, &bytes, &cost);
        assert_true(bytes <= room);
        assert_true(fabs(cost - best) <= 1e-9 * (1 + best));
    }
    assert_true(fitted > 1000 && refused > 100);
}

/* 32 blocks of seven linears and a head, eleven types: like a model of 8 billion weights. The answer is within what the bound says, uses up the
 * room, and another try gives the same. */
static void test_large(void **state)
{
    (void)state;
    static const unsigned bytes_of[] = {54, 66, 72, 84, 110, 144, 144, 176, 176, 210, 272}; /* of 256 weights */
    static const double bits_of[] = {1.5, 1.9, 2.1, 2.4, 3.1, 4.2, 4, 5.2, 5, 6.3, 8};
    enum { N = 225, TYPES = 11 };
    static struct knapsack_choice choices[N][TYPES];
    static struct knapsack_unit units[N];
    static uint32_t picked[N], again[N];
    uint64_t seed = 3, weights = 0, room, bytes;
    double cost, price = 0, lower;
    for (size_t i = 0; i < N; i++) {
        static const uint64_t sizes[] = {4096 * 4096,  1024 * 4096,  1024 * 4096, 4096 * 4096,
                                         14336 * 4096, 14336 * 4096, 14336 * 4096};
        uint64_t size = i == N - 1 ? 128256ull * 4096 : sizes[i % 7];
        double sensitivity = exp((double)(next(&seed) % 1000) / 250.0);
        units[i] = (struct knapsack_unit){choices[i], TYPES};
        for (uint32_t c = 0; c < TYPES; c++)
            choices[i][c] = (struct knapsack_choice){size / 256 * bytes_of[c], sensitivity * pow(4, -bits_of[c])};
        weights += size;
    }
    room = (uint64_t)((double)weights * 3.3 / 8);
    struct err e = {0};
    assert_true(knapsack_solve(units, N, room, picked, &e));
    totals(units, N, picked, &bytes, &cost);
    assert_true(bytes <= room && (double)bytes > 0.9995 * (double)room);
    /* The best of all prices bounds every solution from below. */
    lower = -INFINITY;
    for (price = 1e-14; price < 1; price *= 1.05) {
        double sum = -price * (double)room;
        for (size_t i = 0; i < N; i++) {
            double least = INFINITY;
            for (uint32_t c = 0; c < TYPES; c++)
                least = fmin(least, choices[i][c].cost + price * (double)choices[i][c].bytes);
            sum += least;
        }
        lower = fmax(lower, sum);
    }
    assert_true(cost >= lower && cost <= lower * 1.002);
    assert_true(knapsack_solve(units, N, room, again, &e));
    assert_memory_equal(picked, again, sizeof picked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_small), cmocka_unit_test(test_large)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
