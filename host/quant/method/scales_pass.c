#include "host/quant/method/scales_pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/gpu/tiled.h"

/* What a backward pass finds. */
#define PARTS (BWD_ATTN | BWD_QK | BWD_FFN | BWD_INPUT)

/* ---- sizes ---- */

uint32_t tune_scales_batch(const struct quantize_options *o, uint32_t train)
{
    return (uint32_t)min_u64(o->scales.batch, train);
}

uint32_t tune_scales_steps(const struct quantize_options *o, uint32_t train)
{
    return (uint32_t)div_up(train, tune_scales_batch(o, train));
}

uint32_t tune_scales_windows(const struct model *m, const struct quantize_options *o, uint32_t train)
{
    return (m->cfg->num_layers + 1) * tune_scales_batch(o, train);
}

static uint64_t groups_of(const struct matrix *item)
{
    return item->coded ? (uint64_t)item->rows * quant_row_groups(&item->spec, item->cols) : 0;
}

static uint64_t code_bytes(const struct matrix *item)
{
    return item->coded ? round_up(item->rows * div_up(item->cols, 4) * 4, GPU_ALLOC_ALIGN) : 0;
}

/* Rows of logits at a time: what one binding holds. */
static uint32_t logit_rows(const struct model *m, uint32_t micro)
{
    uint64_t tokens = (uint64_t)micro * m->ctx;
    return gpu_tile_rows(m->gpu, m->cfg->vocab_size * 4ull, head_logit_rows(m, head_is_resident(m), 2, tokens));
}
bool pass_upload_codes(struct pass *p, size_t item, struct gpu_view codes, struct err *e)
{
    struct qlinear q = {0};
    struct qmatrix to = p->entries[item].q;
    to.codes = codes;
    bool ok = store_read_linear(p->t->store, &p->t->plan->items[item], &q, NULL, e) &&
              qmatrix_upload_codes(p->m->cmd, &to, &q, e);
    qlinear_free(&q);
    return ok;
}

/* As they will be stored; good until p->temp_stored is used again. */
static struct gpu_view rounded_scales(const struct pass *p, const struct entry *x)
{
    struct gpu_cmd *cmd = p->m->cmd;
    uint32_t type = (uint32_t)(x->per > 1 ? SCALE_F16 : x->q.spec.scale);
    struct gpu_view scales = gpu_slice(p->temp_stored, 0, x->n * 4ull);
    gpu_copy(cmd, scales, x->scales, x->n * 4ull);
    tiled_round_scales(cmd, &(struct round_scales_args){.scales = scales, .n = x->n, .scale_type = type});
    return scales;
}

struct gpu_view pass_scales(const struct pass *p, const struct entry *x, bool rounded)
{
    struct gpu_view stored = rounded ? rounded_scales(p, x) : x->scales;
    if (x->per == 1)
        return stored;
    struct gpu_view scales = gpu_slice(p->temp, 0, (uint64_t)x->n * x->per * 4);
    tiled_scale_rows(
        p->m->cmd, &(struct scale_rows_args){.x = x->integers, .w = stored, .y = scales, .rows = x->n, .cols = x->per});
    return scales;
}

/* ---- scales to and from the host ---- */

/* Of the rate, with super-blocks: d moves all their groups at once. */
#define SUPER_RATE 0.2f

/* The rate is that of 2 bits, whose largest code is 2. Where codes are larger a scale moves the weights
 * further. */
static float finest_step(const struct quant_type *t)
{
    int largest = -t->lo > t->hi ? -t->lo : t->hi;
    float step = largest > 2 ? 2.0f / (float)largest : 1.0f;
    return t->super ? SUPER_RATE * step : step;
}

/* One linear's start: scales of the store (the last ones, where a done pass is judged), no moments. */
static bool start_linear(struct pass *p, size_t item, struct err *e)
{
    struct gpu_cmd *cmd = p->m->cmd;
    struct entry *x = &p->entries[item];
    struct qlinear q = {0};
    if (!store_read_final(p->t->store, &p->t->plan->items[item], &q, e))
        return false;
    if (!p->state.report.best_epoch)
        memcpy(x->best, q.scales, x->n * sizeof *x->best);
    for (size_t k = 0; x->per > 1 && k < (size_t)x->n * x->per; k++)
        p->host[k] = q.integers[k];
    if (x->per > 1)
        gpu_upload(cmd, x->integers, p->host, (uint64_t)x->n * x->per * 4);
    float unit = finest_step(q.spec.type);
    gpu_upload(cmd, x->scales, q.scales, x->n * 4ull);
    for (uint32_t k = 0; k < x->n; k++)
        p->host[k] = unit * fabsf(q.scales[k]);
    gpu_upload(cmd, x->size, p->host, x->n * 4ull);
    gpu_fill(cmd, x->m, 0);
    gpu_fill(cmd, x->v, 0);
    qlinear_free(&q);
    return true;
}

bool pass_start(struct pass *p, struct err *e)
{
    p->loaded = NONE;
    for (size_t i = 0; i < p->t->plan->n_items; i++)
        if (p->entries[i].n && !start_linear(p, i, e))
            return false;
    return true;
}

static struct gpu_view part_of(const struct entry *x, enum scales_part part)
{
    return part == SCALES_NOW ? x->scales : part == SCALES_M ? x->m : x->v;
}

const float *pass_pull(void *ctx, size_t item, enum scales_part part, struct err *e)
{
    struct pass *p = ctx;
    const struct entry *x = &p->entries[item];
    if (part == SCALES_BEST)
        return x->best;
    return gpu_download(p->m->cmd, part_of(x, part), p->host, x->n * 4ull, e) ? p->host : NULL;
}

bool pass_take_up(struct pass *p, struct err *e)
{
    for (size_t i = 0; i < p->t->plan->n_items; i++) {
        struct entry *x = &p->entries[i];
        const struct matrix *item = &p->t->plan->items[i];
        if (!x->n)
            continue;
        if (!store_read_scales_part(p->t->store, item, SCALES_BEST, x->best, e))
            return false;
        for (int part = SCALES_NOW; part < SCALES_PARTS; part++) {
            if (!store_read_scales_part(p->t->store, item, (enum scales_part)part, p->host, e))
                return false;
            gpu_upload(p->m->cmd, part_of(x, (enum scales_part)part), p->host, x->n * 4ull);
        }
    }
    return true;
}

bool pass_keep_best(struct pass *p, struct err *e)
{
    for (size_t i = 0; i < p->t->plan->n_items; i++) {
        const struct entry *x = &p->entries[i];
        if (x->n && !gpu_download(p->m->cmd, rounded_scales(p, x), x->best, x->n * 4ull, e))
            return false;
    }
    return true;
}
/* ---- set-up ---- */

static void describe_entry(struct entry *x, const struct matrix *item)
{
    if (!item->coded)
        return;
    x->n = item->rows * quant_row_scales(&item->spec, item->cols);
    x->per = quant_super_groups(&item->spec);
    x->q = (struct qmatrix){.rows = item->rows,
                            .cols = item->cols,
                            .groups = (uint32_t)div_up(item->cols, item->spec.group),
                            .ldc = (uint32_t)div_up(item->cols, 4),
                            .spec = item->spec};
}

/* What an entry has on the device. */
static bool alloc_entry(struct entry *x, const struct matrix *item, bool codes, struct gpu_arena *arena, struct err *e)
{
    uint64_t bytes = x->n * 4ull;
    return !x->n || (gpu_alloc(arena, bytes, &x->scales, e) && gpu_alloc(arena, bytes, &x->m, e) &&
                     gpu_alloc(arena, bytes, &x->v, e) && gpu_alloc(arena, bytes, &x->size, e) &&
                     (x->per == 1 || gpu_alloc(arena, groups_of(item) * 4, &x->integers, e)) &&
                     (!codes || gpu_alloc(arena, code_bytes(item), &x->q.codes, e)));
}

static bool alloc_entries(struct pass *p, struct err *e)
{
    const struct plan *plan = p->t->plan;
    struct gpu_arena *arena = p->t->scratch;
    bool stay = p->t->codes_stay;
    for (size_t i = 0; i < plan->n_items; i++)
        p->most = (uint32_t)max_u64(p->most, plan->items[i].place + 1u);
    p->entries = calloc(plan->n_items + 1, sizeof *p->entries);
    p->places = calloc(p->most + 1u, sizeof *p->places);
    p->grads = calloc(p->most + 1u, sizeof *p->grads);
    if (!p->entries || !p->places || !p->grads)
        return err_nomem(e, "the scales", plan->n_items * sizeof *p->entries);
    p->widest = 4;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct matrix *item = &plan->items[i];
        struct place *at = &p->places[item->place];
        describe_entry(&p->entries[i], item);
        p->widest = max_u64(p->widest, groups_of(item) * 4);
        at->code_bytes = max_u64(at->code_bytes, code_bytes(item));
        if (item->coded)
            at->grad_bytes = max_u64(at->grad_bytes, (uint64_t)item->rows * item->cols * 4);
    }
    bool ok = gpu_alloc(arena, p->widest, &p->temp, e) && gpu_alloc(arena, p->widest, &p->temp_stored, e);
    for (uint32_t i = 0; ok && i < p->most; i++) {
        struct place *at = &p->places[i];
        ok = (!at->grad_bytes || gpu_alloc(arena, at->grad_bytes, &at->grad, e)) &&
             (stay || !at->code_bytes || gpu_alloc(arena, at->code_bytes, &at->room, e));
    }
    for (size_t i = 0; ok && i < plan->n_items; i++)
        ok = alloc_entry(&p->entries[i], &plan->items[i], stay, arena, e);
    return ok;
}

/* What entries have on the host; codes that stay on the device go there. */
static bool fill_entries(struct pass *p, struct err *e)
{
    bool ok = true;
    p->host = malloc((size_t)p->widest);
    if (!p->host)
        return err_nomem(e, "the scales of one linear", p->widest);
    for (size_t i = 0; ok && i < p->t->plan->n_items; i++) {
        struct entry *x = &p->entries[i];
        uint64_t bytes = x->n * 4ull;
        if (!x->n)
            continue;
        x->best = malloc((size_t)bytes);
        ok =
            (x->best || err_nomem(e, "scales", bytes)) && (!p->t->codes_stay || pass_upload_codes(p, i, x->q.codes, e));
    }
    return ok;
}

/* All that lies on the device but the blocks' inputs and the block that is loaded. */
static bool create_device(struct pass *p, const struct scales_task *t, struct err *e)
{
    struct model *m = t->m;
    const struct plan *plan = t->plan;
    uint64_t window = acts_bytes(m, 1), tokens = (uint64_t)plan->scale_micro * m->ctx;
    *p = (struct pass){.t = t, .m = m, .layers = plan->n_layers, .micro = plan->scale_micro, .loaded = NONE};
    p->train = plan->samples - plan->holdout;
    p->per_epoch = tune_scales_steps(t->o, p->train);
    p->logit_rows = logit_rows(m, p->micro);
    uint64_t logits = (uint64_t)p->logit_rows * m->cfg->vocab_size * 4;
    return alloc_entries(p, e) && block_scratch_create(&p->fwd, t->scratch, m, p->micro, SCRATCH_TRAIN, e) &&
           bwd_scratch_create(&p->bwd, t->scratch, m, p->micro, PARTS, e) &&
           head_create(&p->head, t->scratch, m, HEAD_TRAIN, e) && gpu_alloc(t->scratch, p->micro * window, &p->x, e) &&
           gpu_alloc(t->scratch, p->micro * window, &p->h, e) && gpu_alloc(t->scratch, p->micro * window, &p->dy, e) &&
           gpu_alloc(t->scratch, logits, &p->logits[0], e) && gpu_alloc(t->scratch, logits, &p->logits[1], e) &&
           gpu_alloc(t->scratch, tokens * 4, &p->kl, e) && gpu_alloc(t->scratch, tokens * 4, &p->top1, e) &&
           gpu_alloc(t->scratch, (p->per_epoch + 1) * 4ull, &p->sums, e);
}

bool pass_create(struct pass *p, const struct scales_task *t, struct err *e)
{
    const struct plan *plan = t->plan;
    uint64_t tokens = (uint64_t)plan->scale_micro * t->m->ctx;
    if (!create_device(p, t, e))
        return false;
    p->judge0 = plan->holdout ? p->train : 0;
    p->judges = plan->holdout ? plan->holdout : p->train;
    p->batch = tune_scales_batch(t->o, p->train);
    p->steps = p->per_epoch * t->o->scales.epochs;
    p->slots = tune_scales_windows(t->m, t->o, p->train);
    p->state.rate = 1;
    p->state.report = (struct stage_report){
        .stage = STAGE_SCALES, .loss_start = NAN, .loss_final = NAN, .steps = p->steps, .epochs = t->o->scales.epochs};
    p->order = malloc(p->train * sizeof *p->order);
    p->ids = malloc(tokens * sizeof *p->ids);
    p->losses = malloc((p->steps + 1ull) * sizeof *p->losses);
    if (!p->order || !p->ids || !p->losses)
        return err_nomem(e, "the order of windows", (p->train + tokens + p->steps) * 4);
    return fill_entries(p, e) && acts_create(&p->kept, p->m, p->slots, &t->room, e);
}

bool tune_scales_count(const struct scales_task *t, struct err *e)
{
    struct pass p;
    bool ok = create_device(&p, t, e);
    gpu_arena_reset(t->scratch, 0);
    free(p.entries);
    free(p.places);
    free(p.grads);
    return ok;
}

bool pass_destroy(struct pass *p, bool ok, struct err *e)
{
    /* Nothing of the arenas may be in use when they are given back. */
    ok = gpu_cmd_finish(p->m->cmd, ok ? e : NULL) && ok;
    acts_destroy(&p->kept);
    gpu_arena_reset(p->t->block, 0);
    gpu_arena_reset(p->t->scratch, 0);
    for (size_t i = 0; p->entries && i < p->t->plan->n_items; i++)
        free(p->entries[i].best);
    free(p->entries);
    free(p->places);
    free(p->grads);
    block_weights_free(&p->w);
    free(p->host);
    free(p->losses);
    free(p->order);
    free(p->ids);
    return ok;
}
