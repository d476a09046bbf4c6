#include "host/model/router.h"

#include <assert.h>
#include <math.h>

/* Probabilities of the experts, or for GATING_CHOSEN the logits themselves. */
static void probabilities(const struct expert_config *x, const float *z, const float *bias, double *p)
{
    double top = z[0], sum = 0;
    for (uint32_t i = 0; i < x->n; i++)
        top = fmax(top, (double)z[i]);
    for (uint32_t i = 0; i < x->n; i++) {
        p[i] = x->gating == GATING_SIGMOID   ? 1 / (1 + exp(-(double)z[i]))
               : x->gating == GATING_SOFTMAX ? exp((double)z[i] - top)
                                             : (double)z[i] + (bias ? (double)bias[i] : 0);
        sum += p[i];
    }
    for (uint32_t i = 0; x->gating == GATING_SOFTMAX && i < x->n; i++)
        p[i] /= sum;
}

/* Number of the largest; among equals the first. */
static uint32_t largest(const double *s, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (s[i] > s[best])
            best = i;
    return best;
}

/* A group by its best, or by its two best where scores are those of single experts. */
static double group_score(const struct expert_config *x, double *s, uint32_t n)
{
    uint32_t best = largest(s, n);
    double first = s[best], second = -INFINITY;
    if (x->gating != GATING_SIGMOID || n < 2)
        return first;
    for (uint32_t i = 0; i < n; i++)
        if (i != best && s[i] > second)
            second = s[i];
    return first + second;
}

/* Experts of all but the best groups get no score. */
static void keep_groups(const struct expert_config *x, double *s)
{
    uint32_t n = x->n / x->groups; /* the config's groups are of equal size */
    double score[CONFIG_EXPERTS_MAX];
    bool kept[CONFIG_EXPERTS_MAX] = {false};
    assert(n > 0);
    for (uint32_t g = 0; g < x->groups; g++)
        score[g] = group_score(x, s + g * n, n);
    for (uint32_t k = 0; k < x->groups_used; k++) {
        uint32_t g = largest(score, x->groups);
        kept[g] = true;
        score[g] = -INFINITY;
    }
    for (uint32_t i = 0; i < x->n; i++)
        if (!kept[i / n])
            s[i] = -INFINITY;
}

void route_token(const struct expert_config *x, const float *z, const float *bias, uint16_t *ids, float *weights,
                 double *room)
{
    double *p = room, *s = room + x->n, sum = 0, top = 0;
    const float *chosen = x->gating == GATING_CHOSEN ? NULL : bias;
    probabilities(x, z, bias, p);
    for (uint32_t i = 0; i < x->n; i++)
        s[i] = p[i] + (chosen ? (double)chosen[i] : 0);
    if (x->groups_used < x->groups)
        keep_groups(x, s);
    for (uint32_t k = 0; k < x->used; k++) {
        uint32_t i = largest(s, x->n);
        s[i] = -INFINITY;
        ids[k] = (uint16_t)i;
        top = k ? fmax(top, p[i]) : p[i];
    }
    for (uint32_t k = 0; k < x->used; k++) {
        if (x->gating == GATING_CHOSEN)
            p[ids[k]] = exp(p[ids[k]] - top);
        sum += p[ids[k]];
    }
    bool by_sum = x->renormalise || x->gating == GATING_CHOSEN;
    for (uint32_t k = 0; k < x->used; k++)
        weights[k] = (float)(p[ids[k]] / (by_sum ? sum + 1e-20 : 1) * (double)x->scale);
}
