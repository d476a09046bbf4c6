/* Which experts a token goes to: a table of logits, biases and groups, and an independent sum over many random ones. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "host/model/router.h"

enum { MOST = 16 };
struct row {
    struct expert_config x;
    float z[MOST], bias[MOST];
    uint16_t ids[4];
    double weights[4];
};

/* softmax of ln 1, ln 2, .. is 1, 2, .. over their sum; sigmoid of ln n is n / (n + 1). */
#define LN1 0.0f
#define LN2 0.69314718f
#define LN3 1.09861229f
#define LN4 1.38629436f
#define LN9 2.19722458f
static const struct row rows[] = {
    /* softmax: as they are, and over their sum */
    {{.n = 4, .used = 2, .gating = GATING_SOFTMAX, .scale = 1, .groups = 1, .groups_used = 1},
     {LN1, LN4, LN2, LN3},
     {0},
     {1, 3},
     {0.4, 0.3}},
    {{.n = 4, .used = 2, .gating = GATING_SOFTMAX, .renormalise = true, .scale = 1, .groups = 1, .groups_used = 1},
     {LN1, LN4, LN2, LN3},
     {0},
     {1, 3},
     {4.0 / 7, 3.0 / 7}},
    /* among equals the lower number */
    {{.n = 4, .used = 3, .gating = GATING_SOFTMAX, .renormalise = true, .scale = 1, .groups = 1, .groups_used = 1},
     {LN2, LN2, LN2, LN2},
     {0},
     {0, 1, 2},
     {1.0 / 3, 1.0 / 3, 1.0 / 3}},
    /* the softmax over those chosen, whatever the others are */
    {{.n = 5, .used = 2, .gating = GATING_CHOSEN, .scale = 1, .groups = 1, .groups_used = 1},
     {LN1, LN9, LN2, LN3, -90},
     {0},
     {1, 3},
     {0.75, 0.25}},
    /* a bias of those is of the logits: it chooses and weighs */
    {{.n = 4, .used = 2, .gating = GATING_CHOSEN, .scale = 1, .groups = 1, .groups_used = 1},
     {LN1, LN3, LN2, LN3},
     {0, LN3, 0, 0},
     {1, 3},
     {0.75, 0.25}},
    /* sigmoid: the bias chooses and does not weigh; all times a factor */
    {{.n = 4, .used = 2, .gating = GATING_SIGMOID, .renormalise = true, .scale = 2.5f, .groups = 1, .groups_used = 1},
     {LN1, LN4, LN3, LN9},
     {0.9f, -0.5f, 0, 0},
     {0, 3},
     {2.5 * 0.5 / 1.4, 2.5 * 0.9 / 1.4}},
    {{.n = 4, .used = 1, .gating = GATING_SIGMOID, .scale = 1, .groups = 1, .groups_used = 1},
     {LN1, LN4, LN3, LN9},
     {0, 0, 0, -1},
     {1},
     {0.8}},
    /* groups: by their two best together, so the group of the single best is left out */
    {{.n = 6, .used = 2, .gating = GATING_SIGMOID, .scale = 1, .groups = 2, .groups_used = 1},
     {LN9, -60, -60, LN4, LN3, LN1},
     {0},
     {3, 4},
     {0.8, 0.75}},
    /* by their best where probabilities are shared */
    {{.n = 6, .used = 2, .gating = GATING_SOFTMAX, .scale = 1, .groups = 2, .groups_used = 1},
     {LN9, LN1, LN1, LN4, LN4, LN1},
     {0},
     {0, 1},
     {9.0 / 20, 1.0 / 20}},
    /* what is not kept is never chosen, even where all that is kept has negative scores */
    {{.n = 4, .used = 2, .gating = GATING_SIGMOID, .scale = 1, .groups = 2, .groups_used = 1},
     {LN1, LN1, LN1, LN1},
     {-2, -2, -3, -3},
     {0, 1},
     {0.5, 0.5}},
};

static void table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        uint16_t ids[MOST];
        float weights[MOST];
        double room[2 * MOST];
        route_token(&r->x, r->z, r->bias, ids, weights, room);
        for (uint32_t k = 0; k < r->x.used; k++) {
            uint32_t at = 0;
            while (at < r->x.used && ids[at] != r->ids[k])
                at++;
            assert_true(at < r->x.used);
            assert_true(fabs((double)weights[at] - r->weights[k]) < 1e-6);
        }
    }
}

/* Every expert that is not chosen scores no better than any that is, and weights are what they should be. */
static void random_logits(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{1, 1}, {3, 3}, {7, 2}, {64, 6}, {384, 8}};
    srand(3);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int gating = GATING_SOFTMAX; gating <= GATING_CHOSEN; gating++) {
            const struct expert_config x = {.n = sizes[i][0],
                                            .used = sizes[i][1],
                                            .gating = (enum gating)gating,
                                            .renormalise = true,
                                            .scale = 1.5f,
                                            .groups = 1,
                                            .groups_used = 1};
            float z[384], weights[8];
            double room[768], sum = 0, least = INFINITY;
            uint16_t ids[8];
            bool chosen[384] = {false};
            for (uint32_t k = 0; k < x.n; k++)
                z[k] = (float)(rand() % 4001 - 2000) / 400;
            route_token(&x, z, NULL, ids, weights, room);
            for (uint32_t k = 0; k < x.used; k++) {
                assert_true(ids[k] < x.n && !chosen[ids[k]]);
                chosen[ids[k]] = true;
                least = fmin(least, (double)z[ids[k]]);
                sum += (double)weights[k];
            }
            for (uint32_t k = 0; k < x.n; k++)
                assert_true(chosen[k] || (double)z[k] <= least);
            assert_true(fabs(sum - 1.5) < 1e-5);
            for (uint32_t k = 1; k < x.used; k++) {
                double ratio = gating == GATING_SIGMOID ? (1 + exp(-(double)z[ids[0]])) / (1 + exp(-(double)z[ids[k]]))
                                                        : exp((double)z[ids[k]] - (double)z[ids[0]]);
                assert_true(fabs((double)weights[k] / (double)weights[0] / ratio - 1) < 1e-5);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(table), cmocka_unit_test(random_logits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
