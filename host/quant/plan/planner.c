#include "host/quant/plan/planner.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf.h"
#include "host/base/log.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/out_path.h"
#include "host/quant/method/gumbel.h"
#include "formats/read/imatrix.h"
#include "formats/write/export_plan.h"
#include "formats/write/gguf_mixture.h"
#include "formats/write/hf_linear.h"
#include "formats/write/hf_plan.h"
#include "host/quant/plan/refine.h"
#include "formats/write/fate.h"
#include "host/quant/store/store.h"
#include "host/quant/store/store_linear.h"
#include "host/quant/method/output_hessian.h"
#include "host/quant/method/tune_block.h"
#include "host/quant/method/tune_scales.h"

/* Smallest and largest group: below, scales cost more than the codes; columns are worked on in fours. */
#define GROUP_MIN 16u

/* ---- rules: what becomes of each linear ---- */

/* The first column of a group, or of the super-block that GPTQ works on as one, must be a place where a view
 * may start (GPTQ updates the columns after it). info NULL: of any device. */
bool plan_check_group(const struct matrix *item, const struct gpu_info *info, struct err *e)
{
    const struct quant_type *t = item->spec.type;
    uint32_t unit = (uint32_t)max_u64(GROUP_MIN, info ? info->min_align / sizeof(float) : 0);
    uint32_t group = t->super ? t->super : item->spec.group;
    if (t->super && item->cols % t->super) {
        err_set(e, ERR_USER, "%s has %u columns: %s needs a multiple of %u", item->module, (unsigned)item->cols,
                t->name, (unsigned)t->super);
        return err_hint(e, "--tensor gives such linears another type, Q4_0 for instance");
    }
    if (group >= unit && group % unit == 0)
        return true;
    err_set(e, ERR_USER, "a group of %u columns cannot be used: groups are multiples of %u on this device", group,
            unit);
    return err_hint(e, "--group 128 is the usual choice, 64 and 32 are more accurate and larger");
}

static bool list_matrices(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    if (!checkpoint_matrices(m->ck, &p->matrices, &p->n_matrices, e))
        return false;
    p->n_layers = m->cfg->num_layers;
    p->items = p->matrices + 1; /* behind the embedding */
    p->n_items = m->shape.first[m->shape.layers];
    for (size_t i = 0; i < p->n_items; i++) {
        const struct matrix *x = &p->items[i];
        if (!matrix_quantized(x) || o->requantize)
            continue;
        err_set(e, ERR_USER, "%s in %s is already quantized%s%s", x->module, checkpoint_dir(m->ck), x->type ? ": " : "",
                x->type ? x->type->name : "");
        return err_hint(e, "quantize the original 16-bit model; gsq convert changes the format of a quantized one; "
                           "--allow-requantize quantizes it anyway, as models want that were released so");
    }
    return true;
}

static bool check_groups(const struct plan *p, const struct model *m, struct err *e)
{
    for (size_t n = 0; n < p->n_items; n++)
        if (p->items[n].coded && !plan_check_group(&p->items[n], m->gpu ? gpu_info(m->gpu) : NULL, e))
            return false;
    return true;
}

static bool decide(struct plan *p, const struct model *m, const struct quantize_options *o,
                   const struct plan_listener *l, struct err *e)
{
    const struct fate_options f = {.policy = o->refine                  ? FATE_REFINE
                                             : o->format == EXPORT_GGUF ? FATE_GGUF
                                                                        : FATE_FOLDER,
                                   .family = family_of(checkpoint_config(m->ck)),
                                   .format = o->format,
                                   .container = o->container,
                                   .warn = l->warn,
                                   .ctx = l->ctx};
    return fates_decide(p->matrices, p->n_matrices, &f, e);
}

/* ---- sizes ---- */

/* Bytes and bits per weight, from what will be written. */
static bool plan_export(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    double file_bits = 0, file_weights = 0, bits = 0;
    for (size_t i = 0; i < p->n_matrices; i++) {
        const struct matrix *x = &p->matrices[i];
        double weights = (double)x->rows * x->cols,
               own = x->type    ? 8.0 * (double)(x->rows * gguf_row_bytes(x->type, x->cols))
                     : x->coded ? quant_spec_bpw(&x->spec, x->rows, x->cols) * weights
                                : 0;
        file_bits += own;
        file_weights += weights;
        if (matrix_is_linear(x) && matrix_quantized(x))
            bits += own;
    }
    p->bpw = p->weights_quantized ? bits / (double)p->weights_quantized : 16;
    p->file_bpw = plan_typed(p) ? file_bits / file_weights : 0;
    p->made_by[0][0] = "general.quantized_by";
    p->made_by[0][1] = "gsq " GSQ_VERSION;
    p->made_by[1][0] = GGUF_RUN;
    p->made_by[1][1] = p->run;
    struct export_options options = {.format = o->format, .force = o->force, .container = o->container, .run = p->run};
    if (o->format == EXPORT_GGUF) {
        options.file_type = gguf_mixture_file_type(o->mixture);
        options.metadata = p->made_by;
        options.n_metadata = sizeof p->made_by / sizeof *p->made_by;
        options.overrides = o->overrides;
        options.n_overrides = o->n_overrides;
    }
    return export_plan_make(&p->output, m->ck, p->matrices, p->n_matrices, &options, e) &&
           export_plan_size(p->output, &p->out_bytes, e);
}

const struct matrix *plan_metric(const struct plan *p, const struct model *m, const struct quantize_options *o,
                                 enum block_half half, struct block_items b)
{
    const bool attn = half == HALF_ATTN;
    /* Gradients are known before such a norm. */
    if (!p->output_windows || half > HALF_FFN ||
        family_has_role(m->family, attn ? ROLE_ATTN_POST_NORM : ROLE_FFN_POST_NORM))
        return NULL;
    for (const struct matrix *item = b.items; item < b.items + b.n; item++)
        if (item->part->half == half && item->part->role == (attn ? ROLE_O : ROLE_DOWN))
            return output_hessian_bytes(o, item) ? item : NULL;
    return NULL;
}

/* What is stored before the blocks are made. */
static void count_outputs(struct plan *p, const struct quantize_options *o)
{
    for (size_t i = 0; p->output_windows && i < p->n_items; i++)
        p->work_bytes += output_hessian_bytes(o, &p->items[i]);
}

static void count_weights(struct plan *p, const struct quantize_options *o)
{
    p->weights = p->weights_quantized = p->work_bytes = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct matrix *item = &p->items[i];
        uint64_t weights = (uint64_t)item->rows * item->cols;
        p->weights += weights;
        if (matrix_quantized(item))
            p->weights_quantized += weights;
        if (!item->coded)
            continue;
        p->work_bytes += linear_bytes(item);
        if (plan_scales(o))
            p->work_bytes += 2 * store_scales_bytes(item); /* the old file is there until the new one is whole */
    }
}

static bool count_bytes(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    count_weights(p, o);
    return o->refine ? refine_size(p) : plan_export(p, m, o, e);
}

/* In the pass over scales its own are where the student's were; those of passes before the blocks are gone before any other. */
static uint64_t acts_on_disk(const struct plan *p)
{
    uint64_t blocks =
        (p->teacher_acts == ACTS_FILE) * p->acts_bytes +
        max_u64((p->student_acts == ACTS_FILE) * p->acts_bytes, (p->kept_acts == ACTS_FILE) * p->scale_acts_bytes);
    uint64_t ahead = max_u64((p->output_windows && p->output_acts == ACTS_FILE) * p->output_acts_bytes,
                             (p->measure_windows && p->measure_acts == ACTS_FILE) * p->measure_acts_bytes);
    return max_u64(blocks, ahead);
}

/* The output, the finished blocks, or both. */
bool plan_fits_disk(struct plan *p, const struct quantize_options *o, struct err *e)
{
    const char *work = o->work_dir ? o->work_dir : o->out_dir;
    uint64_t disk_out, disk_work, work_need = p->work_bytes;
    uint64_t free_work;
    os_disk_free(o->out_dir, &p->disk_free, &disk_out);
    os_disk_free(work, &free_work, &disk_work);
    if (strcmp(p->acts_tier, "none") != 0)
        work_need += acts_on_disk(p);
    if (disk_out == disk_work)
        return out_fits("the output and the work folder,", o->out_dir, p->out_bytes + work_need, "-o and --work", e);
    return out_fits("the output", o->out_dir, p->out_bytes, "-o", e) &&
           out_fits("the work folder", work, work_need, "--work", e);
}

/* ---- what trains what ---- */

/* Without a text, every linear that takes a Hessian needs its importance. */
static bool check_imatrix(const struct plan *p, const struct quantize_options *o, struct err *e)
{
    for (size_t i = 0; quantize_diagonal(o) && i < p->n_items; i++) {
        const struct matrix *item = &p->items[i];
        if (!item->coded || !plan_has_importance(item) || imatrix_find(p->from.imatrix, item->module))
            continue;
        err_set(e, ERR_USER, "%s has no entry for %s", o->imatrix, item->module);
        return err_hint(e, "make one with gsq imatrix, give a text with --calib, or keep it with --keep '%s'",
                        item->module);
    }
    return true;
}

/* For the plan as it is shown: of the first linear that learns. */
static double reach_share(const struct plan *p)
{
    for (size_t i = 0; i < p->n_items; i++)
        if (p->items[i].coded)
            return (double)tune_block_share(p->items[i].spec.type);
    return 1;
}

/* ---- nothing to do ---- */

/* Of the linears that fell back, the first. */
static const struct matrix *fallen(const struct plan *p)
{
    for (size_t i = 0; plan_typed(p) && i < p->n_matrices; i++)
        if (matrix_is_linear(&p->matrices[i]) && p->matrices[i].type != p->matrices[i].wanted &&
            p->matrices[i].wanted->codes && p->matrices[i].wanted->codes->learned)
            return &p->matrices[i];
    return NULL;
}

/* Types that are learned and whose blocks divide these rows (0: of any length): "Q4_0, Q5_0". */
enum { LEARNED_TEXT = 256 };
static const char *learned_for(uint32_t cols, char *out, size_t cap)
{
    const struct gguf_type *t;
    out[0] = 0;
    for (size_t i = 0; (t = gguf_type_at(i)); i++) {
        size_t n = strlen(out);
        if (t->codes && t->codes->learned && cols % t->block == 0)
            snprintf(out + n, cap - n, "%s%s", n ? ", " : "", t->name);
    }
    return out;
}

static bool nothing_learned(const struct plan *p, struct err *e)
{
    const struct matrix *t = fallen(p);
    char list[LEARNED_TEXT];
    if (!t)
        return true;
    err_set(e, ERR_USER,
            "no linear is left to learn: rows of %u weights are not a multiple of %u, the block size of %s, and its "
            "substitute %s is rounded to, not learned",
            (unsigned)t->cols, (unsigned)t->wanted->block, t->wanted->name, t->type->name);
    learned_for(t->cols, list, sizeof list);
    return err_hint(e, "--method rtn rounds as llama-quantize does%s%s",
                    list[0] ? "; types learned with such rows: " : "", list);
}

/* A run that would change no linear, or learn none where learning was asked for. */
static bool check_work(const struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    bool coded = false;
    char list[LEARNED_TEXT];
    for (size_t i = 0; i < p->n_items; i++)
        coded = coded || p->items[i].coded;
    if (coded || (o->method == METHOD_RTN && p->weights_quantized))
        return true;
    if (o->refine) {
        err_set(e, ERR_USER, "%s has no linear of a type whose codes can be learned (%s is not)", o->refine,
                p->items[0].type->name);
        return err_hint(e, "types that can: %s", learned_for(0, list, sizeof list));
    }
    if (!nothing_learned(p, e))
        return false;
    err_set(e, ERR_USER, "every linear of %s is kept in 16 bits: nothing to quantize", checkpoint_dir(m->ck));
    return err_hint(e, "check the --keep patterns");
}

static bool check_learned(const struct quantize_options *o, struct err *e)
{
    if (o->method != METHOD_GSQ || o->code_type->learned)
        return true;
    err_set(e, ERR_USER, "%s%s not learned by gsq (rounding is already nearly exact there)", o->code_type->name,
            o->code_type->group ? " is" : " bits are");
    return err_hint(e, "use --method gptq or rtn for %s%s; --tensor gives it to single linears beside learned ones",
                    o->code_type->name, o->code_type->group ? "" : " bits");
}

bool plan_fates(struct plan *p, const struct model *m, const struct quantize_options *o, struct plan_sources from,
                const struct plan_listener *l, struct err *e)
{
    *p = (struct plan){
        .from = from, .refines = o->refine != NULL, .ctx = m->ctx, .samples = o->samples, .acts_tier = "none"};
    hash_hex((struct hash128){0}, p->run);
    bool folder = o->format != EXPORT_GGUF; /* a group that no device takes is refused before the format's reasons */
    return list_matrices(p, m, o, e) && plan_wishes(p, m, o, e) && (folder || decide(p, m, o, l, e)) &&
           check_groups(p, m, e) && check_imatrix(p, o, e) && (!folder || decide(p, m, o, l, e)) &&
           check_learned(o, e) && plan_range(p, m, o, l, e) && count_bytes(p, m, o, e) && check_work(p, m, o, e);
}

/* ---- the whole ---- */

static bool hold_out(struct plan *p, const struct quantize_options *o, struct err *e)
{
    if (o->method == METHOD_RTN || quantize_diagonal(o))
        return true;
    p->holdout = o->holdout ? o->holdout : (uint32_t)min_u64(HOLDOUT_MAX, o->samples / 8);
    if (p->holdout < o->samples)
        return true;
    err_set(e, ERR_USER, "--holdout %u leaves none of the %u windows to learn from", p->holdout, o->samples);
    return err_hint(e, "use fewer held-out windows, or more --samples");
}

static void count_steps(struct plan *p, const struct quantize_options *o)
{
    if (o->method == METHOD_GSQ)
        p->reach = gumbel_reach(&o->gumbel);
    if (plan_block_objective(o)) {
        struct gumbel_options g = tune_block_gumbel(o, o->samples - p->holdout);
        p->block_steps = g.steps;
        p->block_reach = gumbel_reach(&g) * reach_share(p);
    }
    if (plan_scales(o))
        p->scale_steps = o->scales.epochs * tune_scales_steps(o, o->samples - p->holdout);
}

/* Why gsq cannot go back through a model from its predictions to each linear; NULL: it can. */
static const char *model_ends_ways(const struct model *m)
{
    return m->cfg->experts.n             ? "the model has experts"
           : config_forward_only(m->cfg) ? "gsq computes this model's attention forward alone"
                                         : NULL;
}

static const char *no_way_back(const struct model *m, const struct quantize_options *o)
{
    return model_ends_ways(m)        ? model_ends_ways(m)
           : quantize_diagonal(o)    ? "there is no text"
           : o->method != METHOD_GSQ ? "only --method gsq learns by them"
                                     : NULL;
}

static bool find_outputs(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    const char *why = no_way_back(m, o);
    p->output_windows = 0;
    if (!why && plan_output_hessian(o))
        p->output_windows = output_hessian_windows(o->samples - p->holdout, m->ctx);
    if (!why || o->output_hessian != OUTPUT_HESSIAN_ON)
        return true;
    err_set(e, ERR_USER, "--output-hessian on: %s", why);
    return err_hint(e, "leave the option out");
}

bool plan_can_choose(const struct model *m, struct err *e)
{
    const char *why = model_ends_ways(m);
    if (!why)
        return true;
    err_set(e, ERR_USER,
            "types cannot be chosen for a size, which needs the way back from predictions to each linear: %s", why);
    return err_hint(e, "name a type: --type Q3_K_M, or --bits, and --tensor for single weights");
}

/* Of the pass that measures what types cost. */
static void find_measuring(struct plan *p, const struct model *m, const struct quantize_options *o)
{
    p->measure_windows = o->allotment ? output_hessian_windows(o->samples - p->holdout, m->ctx) : 0;
}

static bool count_run(struct plan *p, const struct model *m, const struct quantize_options *o, struct err *e)
{
    count_steps(p, o);
    p->experts = p->experts_alone = m->cfg->experts.n > 0;
    p->chained = !p->experts || (quantize_correction(o, false) > 0 && !plan_block_objective(o));
    p->attn_alone = false;
    for (size_t i = 0; o->block.attn_alone && i < p->n_items; i++)
        p->attn_alone = p->attn_alone || (p->items[i].part->half == HALF_ATTN && plan_alone(o, &p->items[i]));
    for (uint32_t layer = 0; p->experts_alone && layer < p->n_layers; layer++)
        p->experts_alone = !plan_trains(o, HALF_ATTN, plan_common(plan_block(p, layer))) &&
                           !plan_trains(o, HALF_FFN, plan_common(plan_block(p, layer)));
    find_measuring(p, m, o);
    if (!find_outputs(p, m, o, e) || (m->gpu && !plan_memory(p, m, o, e)))
        return false;
    count_outputs(p, o);
    return true;
}

bool plan_vary(struct plan *p, const struct plan *like, const struct model *m, const struct quantize_options *o,
               struct err *e)
{
    *p = *like;
    p->samples = o->samples;
    p->holdout = p->batch_windows = p->micro_windows = p->scale_micro = p->block_steps = p->scale_steps = 0;
    p->acts_bytes = p->scale_acts_bytes = p->output_acts_bytes = p->output_windows = p->output_micro = 0;
    p->measure_windows = p->measure_micro = 0;
    count_weights(p, o);
    return hold_out(p, o, e) && count_run(p, m, o, e) && plan_fits_disk(p, o, e);
}

static void warn(void *ctx, const char *line)
{
    (void)ctx;
    log_warn("%s", line);
}

bool plan_make(struct plan *p, const struct model *m, const struct quantize_options *o, struct plan_sources from,
               struct err *e)
{
    const struct plan_listener log = {.warn = warn};
    bool ok = plan_fates(p, m, o, from, &log, e) && hold_out(p, o, e) && count_run(p, m, o, e);
    if (!ok)
        plan_free(p);
    return ok;
}

void plan_free(struct plan *p)
{
    export_plan_free(&p->output);
    free(p->choice.rules);
    free(p->matrices);
    *p = (struct plan){0};
}
