/* The block objective for one expert: gate, up and down together, on the squared error of its output for tokens that chose it, by
 * the machinery of tune_block.h. Its target is what its 16-bit weights make of the same inputs, the student's: nothing of the
 * router, of other experts or of other layers is in it, so experts learn one after the other, each with its weights alone.
 *
 * A window is EXPERT_WINDOW of its tokens, in the order of the text; tokens that fill none are left out, and of an expert that
 * more than twice the mean chose, as many windows as there is room for are taken, evenly spaced. An expert whose held-out tokens
 * fill none, or the others fewer than EXPERT_LEAST, is not trained: nothing could judge it. */
#ifndef QUANT_TUNE_EXPERT_H
#define QUANT_TUNE_EXPERT_H

#include "host/model/experts.h"
#include "host/quant/method/tune_block.h"

#define EXPERT_WINDOW 32u
#define EXPERT_LEAST  4u

/* Lasts as long as a run; it is not moved once it is open. */
struct expert_training {
    struct model m;             /* the run's, with windows of EXPERT_WINDOW tokens */
    struct model_config config; /* and outputs that are not scaled */
    uint32_t room;              /* windows */
    struct acts *inputs, *targets;
    uint32_t train, held; /* windows of the expert in work; train 0: it is not trained */
};

/* t->m and t->config: the run's model as an expert sees it. */
void tune_expert_model(struct expert_training *t, const struct model *m);
/* How many windows there is room for, where `samples` windows of text are read. */
uint32_t tune_expert_room(const struct model *m, uint32_t samples);
/* Bytes of inputs and targets. */
uint64_t tune_expert_bytes(const struct model *m, uint32_t samples);
/* *t is zeroed before; tune_expert_close in any case. */
bool tune_expert_open(struct expert_training *t, struct model *m, uint32_t samples, const struct acts_options *where,
                      struct err *e);
void tune_expert_close(struct expert_training *t);

/* Inputs of the expert that is loaded, and what x->w, its 16-bit weights, make of them; x->in, x->gate, x->up, x->out are used.
 * Of its tokens those before number `teach` teach, the others judge. t->train 0: there are too few. */
bool tune_expert_take(struct expert_training *t, struct experts *x, uint32_t expert, uint32_t teach, struct err *e);

struct tune_expert_task {
    const struct quantize_options *o;
    struct block_items items; /* gate, up, down */
    uint32_t samples,
        holdout; /* windows of the text: an epoch has as many steps as that of half a block, where there are tokens */
    uint32_t micro;                 /* windows of the text whose tokens go at a time */
    struct gpu_arena *arena, *kept; /* as of tune_block_task */
    const struct tune_hooks *hooks;
};
/* What was taken, learned: x->w are the weights that q[items.n] gives, and become those of the result, as q does (never one that is
 * judged worse). r->steps 0: it was not trained. */
bool tune_expert(struct expert_training *t, const struct tune_expert_task *task, struct experts *x, uint32_t expert,
                 struct qlinear *q, struct stage_report *r, struct err *e);
/* What that will be for an expert that as many tokens choose as any other. train 0: it is not trained. */
struct expert_expected {
    uint32_t train, held;  /* windows */
    uint32_t steps, calls; /* of an epoch; passes forward and backward in a step */
};
struct expert_expected tune_expert_expect(const struct model *m, const struct quantize_options *o, uint32_t samples,
                                          uint32_t holdout, uint32_t micro);
/* Allocates on arenas that count what an expert takes: inputs and targets on two of their own, unless `rows` is NULL, and training. */
bool tune_expert_count(const struct tune_expert_task *task, struct experts *x, struct gpu_arena *const rows[2],
                       struct err *e);

#endif
