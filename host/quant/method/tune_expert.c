#include "host/quant/method/tune_expert.h"

#include <string.h>

#include "host/base/num.h"
#include "host/model/block_steps.h"

/* Room for so many times the tokens of an expert that as many chose as any. */
#define ROOM_TIMES 2u

/* ---- room ---- */

/* It reads rows that are normed already, adds to them, and that is all. */
void tune_expert_model(struct expert_training *t, const struct model *m)
{
    t->m = *m;
    t->config = *m->cfg;
    t->config.residual_scale = 0; /* routes have what outputs are multiplied by */
    t->m.cfg = &t->config;
    t->m.ctx = EXPERT_WINDOW;
}

uint32_t tune_expert_room(const struct model *m, uint32_t samples)
{
    const struct expert_config *c = &m->cfg->experts;
    uint64_t tokens = (uint64_t)samples * m->ctx;
    uint64_t most = min_u64(tokens, max_u64(ROOM_TIMES * tokens * c->used / c->n, 64ull * EXPERT_WINDOW));
    return (uint32_t)max_u64(1, most / EXPERT_WINDOW);
}

uint64_t tune_expert_bytes(const struct model *m, uint32_t samples)
{
    return 2ull * tune_expert_room(m, samples) * EXPERT_WINDOW * m->cfg->hidden_size * 4;
}

bool tune_expert_open(struct expert_training *t, struct model *m, uint32_t samples, const struct acts_options *where,
                      struct err *e)
{
    tune_expert_model(t, m);
    t->room = tune_expert_room(m, samples);
    return acts_create(&t->inputs, &t->m, t->room, where, e) && acts_create(&t->targets, &t->m, t->room, where, e);
}

void tune_expert_close(struct expert_training *t)
{
    acts_destroy(&t->inputs);
    acts_destroy(&t->targets);
}

/* ---- inputs and targets ---- */

/* Entries at .. at + rows - 1 of the lists, whose inputs may lie in several chunks, to x->out from row `to` on. */
static void gather(struct experts *x, uint32_t at, uint32_t rows, uint32_t to)
{
    uint64_t bytes = x->m->cfg->hidden_size * 4ull;
    for (uint32_t n, end = at + rows; at < end; at += n, to += n) {
        n = experts_gather(x, at, end);
        gpu_copy(x->m->cmd, gpu_slice(x->out, to * bytes, n * bytes), x->in, n * bytes);
    }
}

/* Windows of the expert's entries first .. end - 1, at most `room`, as windows `at` .. of inputs and targets; returns how many in
 * *taken. */
static bool take(struct expert_training *t, struct experts *x, uint32_t first, uint32_t end, uint32_t at, uint32_t room,
                 uint32_t *taken, struct err *e)
{
    uint32_t all = (end - first) / EXPERT_WINDOW, n = (uint32_t)min_u64(all, room);
    uint32_t batch = (uint32_t)max_u64(1, x->tile / EXPERT_WINDOW), hidden = x->m->cfg->hidden_size;
    *taken = n;
    for (uint32_t i = 0, count; i < n; i += count) {
        count = (uint32_t)min_u64(batch, n - i);
        uint32_t rows = count * EXPERT_WINDOW;
        for (uint32_t k = 0; k < count; k++)
            gather(x, first + (uint32_t)((uint64_t)(i + k) * all / n) * EXPERT_WINDOW, EXPERT_WINDOW,
                   k * EXPERT_WINDOW);
        if (!acts_put(t->inputs, at + i, count, x->out, e))
            return false;
        gpu_copy(x->m->cmd, x->in, x->out, (uint64_t)rows * hidden * 4);
        experts_middle(x, x->w, rows, false);
        experts_down(x, x->w, rows, false);
        block_add(x->m, x->out, x->in, rows, hidden);
        if (!acts_put(t->targets, at + i, count, x->out, e))
            return false;
    }
    return true;
}

/* Whether so many windows of an expert suffice. */
static bool enough(uint32_t teaching, uint32_t judging)
{
    return teaching >= EXPERT_LEAST && judging;
}

bool tune_expert_take(struct expert_training *t, struct experts *x, uint32_t expert, uint32_t teach, struct err *e)
{
    uint32_t first = x->start[expert], end = x->start[expert + 1], split = first;
    while (split < end && x->rows[split] < teach)
        split++;
    uint32_t teaching = (split - first) / EXPERT_WINDOW, judging = (end - split) / EXPERT_WINDOW;
    t->train = t->held = 0;
    if (!enough(teaching, judging) || x->tile < EXPERT_WINDOW || t->room <= EXPERT_LEAST)
        return true;
    /* What judges has its share of the room, as of the tokens. */
    uint32_t most = (uint32_t)max_u64(1, (uint64_t)t->room * judging / ((uint64_t)teaching + judging));
    return take(t, x, first, split, 0, t->room - most, &t->train, e) &&
           take(t, x, split, end, t->train, most, &t->held, e);
}

/* ---- training ---- */

/* Windows of its own that a step takes, so that an epoch has as many steps as that of a half. */
static uint32_t own_batch(const struct quantize_options *o, uint32_t teach, uint32_t train)
{
    uint64_t steps = div_up(teach, tune_block_batch(o, teach));
    return o->block.batch ? (uint32_t)max_u64(1, div_up(train, steps)) : 0;
}

/* Windows of its own in as many tokens as `micro` windows of the text have. */
static uint32_t own_micro(const struct model *m, uint32_t micro, uint32_t batch)
{
    uint64_t windows = (uint64_t)micro * m->ctx / EXPERT_WINDOW;
    uint64_t row = max_u64(m->cfg->hidden_size, m->cfg->experts.width) * 4;
    windows = min_u64(windows, gpu_info(m->gpu)->max_range / (row * EXPERT_WINDOW));
    return (uint32_t)max_u64(1, min_u64(windows, batch));
}

/* An expert as a block that has nothing else. */
struct expert_block {
    struct block_weights w;
    struct quantize_options o;
    struct tune_block_task t;
};

static void make_block(struct expert_block *b, struct model *m, const struct tune_expert_task *task, struct experts *x,
                       uint32_t layer, uint32_t expert, uint32_t train, uint32_t held)
{
    *b = (struct expert_block){.o = *task->o};
    b->w = (struct block_weights){.shape = block_expert(model_block(m, layer), expert), .w = x->w, .bias = x->bias};
    b->o.block.batch = own_batch(task->o, task->samples - task->holdout, train);
    b->t = (struct tune_block_task){.m = m,
                                    .o = &b->o,
                                    .half = HALF_EXPERTS,
                                    .block = task->items,
                                    .w = &b->w,
                                    .samples = train + held,
                                    .holdout = held,
                                    .micro = own_micro(x->m, task->micro, tune_block_batch(&b->o, train)),
                                    .arena = task->arena,
                                    .kept = task->kept,
                                    .hooks = task->hooks};
}

bool tune_expert(struct expert_training *t, const struct tune_expert_task *task, struct experts *x, uint32_t expert,
                 struct qlinear *q, struct stage_report *r, struct err *e)
{
    struct expert_block b;
    *r = (struct stage_report){.stage = STAGE_EXPERTS};
    if (!t->train)
        return true;
    make_block(&b, &t->m, task, x, x->layer, expert, t->train, t->held);
    b.t.inputs = t->inputs;
    b.t.targets = t->targets;
    return tune_block(&b.t, q, r, e);
}

struct expert_expected tune_expert_expect(const struct model *m, const struct quantize_options *o, uint32_t samples,
                                          uint32_t holdout, uint32_t micro)
{
    const struct expert_config *c = &m->cfg->experts;
    struct quantize_options own = *o;
    uint64_t each = (uint64_t)m->ctx * c->used;
    uint32_t teach = samples - holdout, train = (uint32_t)(teach * each / c->n / EXPERT_WINDOW),
             held = (uint32_t)(holdout * each / c->n / EXPERT_WINDOW);
    if (!enough(train, held))
        return (struct expert_expected){0};
    own.block.batch = own_batch(o, teach, train);
    uint32_t batch = tune_block_batch(&own, train);
    return (struct expert_expected){.train = train,
                                    .held = held,
                                    .steps = (uint32_t)div_up(train, batch),
                                    .calls = (uint32_t)div_up(batch, own_micro(m, micro, batch))};
}

bool tune_expert_count(const struct tune_expert_task *task, struct experts *x, struct gpu_arena *const rows[2],
                       struct err *e)
{
    struct expert_training t = {0};
    struct expert_block b;
    tune_expert_model(&t, x->m);
    uint32_t room = tune_expert_room(x->m, task->samples);
    uint32_t held = (uint32_t)((uint64_t)room * task->holdout / task->samples);
    make_block(&b, &t.m, task, x, task->items.items[0].layer, task->items.items[0].expert, room - held, held);
    return (!rows || (acts_count(&t.m, room, rows[0], e) && acts_count(&t.m, room, rows[1], e))) &&
           tune_block_count(&b.t, e);
}
