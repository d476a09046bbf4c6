#include "host/quant/plan.h"

#include "formats/read/imatrix.h"

static bool learns(const struct quantize_options *o, const struct matrix *item)
{
    return o->method == METHOD_GSQ && item->coded && item->spec.type->learned;
}

bool plan_block_objective(const struct quantize_options *o)
{
    return o->method == METHOD_GSQ && o->block.epochs > 0;
}

bool plan_scales(const struct quantize_options *o)
{
    return o->method == METHOD_GSQ && o->scales.epochs > 0;
}

bool plan_output_hessian(const struct quantize_options *o)
{
    return o->method == METHOD_GSQ && !quantize_diagonal(o) &&
           (o->output_hessian == OUTPUT_HESSIAN_ON || (o->output_hessian == OUTPUT_HESSIAN_AUTO &&
                                                       !(plan_block_objective(o) && o->block.start != START_HESSIAN)));
}

bool plan_teacher(const struct quantize_options *o)
{
    return plan_block_objective(o) || plan_scales(o);
}

bool plan_joint(const struct quantize_options *o, const struct matrix *item)
{
    const bool back =
        item->part->half != HALF_ATTN || (!o->block.attn_alone && (!item->part->turned || o->block.train_qk));
    return learns(o, item) && plan_block_objective(o) && back;
}

bool plan_needs_hessian(const struct quantize_options *o, const struct matrix *item)
{
    return item->coded && o->method != METHOD_RTN && !(plan_joint(o, item) && o->block.start == START_RTN);
}

bool plan_alone(const struct quantize_options *o, const struct matrix *item)
{
    return learns(o, item) && (!plan_joint(o, item) || o->block.start == START_HESSIAN);
}

bool plan_gathers(const struct quantize_options *o, enum block_half half, struct block_items b)
{
    bool any = false;
    for (uint32_t i = 0; i < b.n; i++)
        any = any || (b.items[i].part->half == half && plan_needs_hessian(o, &b.items[i]));
    return any;
}

bool plan_targets(const struct plan *p, const struct quantize_options *o)
{
    return (plan_teacher(o) && !p->experts_alone) || (quantize_correction(o, false) > 0 && plan_chained(p));
}

bool plan_chained(const struct plan *p)
{
    return p->chained;
}

bool plan_corrects_input(enum input in)
{
    return in == INPUT_ATTN || in == INPUT_FFN || input_is_last(in);
}

bool plan_corrects(const struct plan *p, const struct quantize_options *o, enum block_half half, struct block_items b)
{
    bool all = quantize_correction(o, false) > 0 && plan_chained(p) && plan_gathers(o, half, b);
    for (uint32_t i = 0; i < b.n; i++) {
        if (b.items[i].part->half == half)
            all = all && plan_corrects_input(b.items[i].part->input);
    }
    return all;
}

bool plan_trains(const struct quantize_options *o, enum block_half half, struct block_items b)
{
    bool any = false;
    for (uint32_t i = 0; i < b.n && !any; i++)
        any = b.items[i].part->half == half && plan_joint(o, &b.items[i]);
    return any;
}

bool plan_has_importance(const struct matrix *item)
{
    return item->part->role != ROLE_KV_B && !block_part_is_split(item->part);
}

bool plan_trains_experts(const struct plan *p, const struct quantize_options *o)
{
    return plan_trains(o, HALF_EXPERTS, (struct block_items){p->items, (uint32_t)p->n_items});
}

struct block_items plan_common(struct block_items b)
{
    if (b.n && block_part_is_expert(b.items[b.n - 1].part))
        b.n -= (b.items[b.n - 1].expert + 1) * EXPERT_MATRICES;
    return b;
}

struct block_items plan_expert(struct block_items b, uint32_t expert)
{
    uint32_t common = plan_common(b).n;
    return (struct block_items){b.items + common + (size_t)expert * EXPERT_MATRICES, EXPERT_MATRICES};
}

struct block_items plan_block(const struct plan *p, uint32_t layer)
{
    return block_items_of(p->items, p->n_items, layer);
}

bool plan_typed(const struct plan *p)
{
    return p->n_matrices && p->matrices[0].type;
}

struct rounding plan_embedding(const struct plan *p)
{
    const struct matrix *x = p->matrices;
    if (p->refines || !plan_typed(p) || !x->embedding || x->coded || x->copied || x->type->block == 1)
        return (struct rounding){0};
    /* Of a tied one the importance of what the head reads is not known yet. */
    const struct imatrix_entry *sums = p->from.imatrix && !x->head ? imatrix_find(p->from.imatrix, x->module) : NULL;
    return (struct rounding){x->type, sums ? sums->sums : NULL};
}
