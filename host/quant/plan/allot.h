/* Which type each matrix gets where a size is asked for (--size, --bpw, --type auto:): candidates, the choice, and the rules that
 * say the same (--tensor).
 *
 *     a plan with any types -> what may be chosen, and its limits -> costs: guessed, then measured (sensitivity.h) -> knapsack -> rules
 *
 * What must be alike is a unit: in a GGUF the experts of a layer's matrix, which are one tensor; in a folder what kernels fuse (q, k and v;
 * gate and up) and all experts. Types that a rule or an option names stay. */
#ifndef QUANT_ALLOT_H
#define QUANT_ALLOT_H

#include "host/quant/plan.h"

enum { ALLOT_TYPES = 32 };
struct allotment {
    uint32_t n_types;
    const struct gguf_type *types[ALLOT_TYPES]; /* of a GGUF */
    struct quant_spec specs[ALLOT_TYPES];
    struct matrix *matrices; /* [n]: of the plan that it was made from */
    size_t n;
    bool *tries;    /* [n, n_types]: which may be taken */
    uint32_t *unit; /* [n]; ALLOT_FIXED: nothing is chosen */
    uint32_t n_units;
    double *costs;         /* [n, n_types]: nats per token */
    bool measured;         /* else guessed from the bits alone */
    uint64_t fixed;        /* bytes of the output beside what is chosen */
    uint64_t small, large; /* of the output */
    uint64_t asked;        /* what it may have */
    /* The choice. */
    uint32_t *picked; /* [n_units]: types */
    double cost;      /* of all, nats per token */
    struct tensor_rule *rules;
    size_t n_rules;
    char **patterns; /* [n_rules] */
    char *text;      /* a line for each: "REGEX=TYPE" */
};
#define ALLOT_FIXED UINT32_MAX

/* From a plan's fates. o's target is what is asked for. ERR_USER: it cannot be reached, nothing can be chosen. like: bytes of what
 * auto: names, else 0. Costs are guesses. allot_free in any case. */
bool allot_make(struct allotment *a, const struct plan *p, const struct model *m, const struct quantize_options *o,
                uint64_t like, struct err *e);
void allot_free(struct allotment *a);
/* The best choice of at most `most` bytes of output by the costs, less what learning takes off them, as rules. */
bool allot_choose(struct allotment *a, const struct quantize_options *o, uint64_t most, struct err *e);
/* Bytes by which the plan of such a choice is larger than what was asked for. */
uint64_t allot_excess(const struct allotment *a, const struct plan *p, const struct quantize_options *o);
/* o's rules and types become those of the choice, in front of `own`; *list is what they are kept in. */
bool allot_apply(const struct allotment *a, const struct tensor_rule *own, size_t n_own, struct quantize_options *o,
                 struct tensor_rule **list, struct err *e);

#endif
