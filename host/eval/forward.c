#include "host/eval/forward.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/base/comm.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/model/batch.h"

/* Before anything is measured: seconds of a weight that goes to the device. */
#define SECONDS_PER_LOAD 1e-9
/* What should take longer than this is predicted by a measurement. */
#define MEASURE_FROM 2.0

/* ---- what it takes ---- */

/* Kinds of work. */
enum { WORK_LOAD, WORK_FORWARD, WORK_HEAD, WORK_KINDS };

static double per_load(const struct forward *f)
{
    return f->speed.measured ? f->speed.load : SECONDS_PER_LOAD;
}

/* Seconds, as predicted, of one block on all windows. */
static double block_work(const struct forward *f, const struct model *m, uint32_t layer)
{
    const struct speed_block *s = speed_block(&f->speed, m, layer);
    if (s)
        return f->w.n * (s->forward[HALF_ATTN] + s->forward[HALF_FFN] + s->experts);
    double attention = (double)m->ctx * m->cfg->num_heads * m->cfg->head_dim;
    return (double)f->w.n * f->w.ctx * (model_block_products(m, layer) + attention) * speed_guess(m->gpu);
}

static double load_work(const struct forward *f, const struct model *m, uint32_t layer)
{
    const struct block_shape b = model_block(m, layer);
    double weights = 0;
    for (uint32_t i = 0; i < b.n; i++)
        weights += (double)b.matrices[i].rows * b.matrices[i].cols;
    return weights * per_load(f);
}

static double head_work(const struct forward *f)
{
    double seconds = 0;
    for (int i = 0; f->alloc_head && i < f->sides; i++) {
        const struct model *m = f->side[i].m;
        double ops = (double)f->w.n * f->w.ctx * ((double)m->cfg->hidden_size + 16) * m->cfg->vocab_size;
        seconds += ops * (f->speed.measured ? f->speed.gemm : speed_guess(m->gpu)) +
                   (double)model_head_bytes(m) / 4 * per_load(f);
    }
    return seconds;
}

/* Seconds of each kind; returns those of all. */
static double whole_work(const struct forward *f, double by_kind[WORK_KINDS])
{
    by_kind[WORK_LOAD] = by_kind[WORK_FORWARD] = 0;
    by_kind[WORK_HEAD] = head_work(f);
    for (int i = 0; i < f->sides; i++) {
        const struct model *m = f->side[i].m;
        for (uint32_t layer = 0; layer < m->cfg->num_layers; layer++) {
            by_kind[WORK_LOAD] += load_work(f, m, layer);
            by_kind[WORK_FORWARD] += block_work(f, m, layer);
        }
    }
    return by_kind[WORK_LOAD] + by_kind[WORK_FORWARD] + by_kind[WORK_HEAD];
}

/* A measurement where it is worth it, and what is expected from now on. Both models have one shape. */
static bool expect(struct forward *f, struct err *e)
{
    double work[WORK_KINDS];
    if (whole_work(f, work) > MEASURE_FROM &&
        (!forward_tell(f, "measuring", e) || !speed_measure_forward(&f->speed, f->side[0].m, f->batch, e)))
        return false;
    whole_work(f, work);
    eta_start(&f->eta, os_now_ns(), speed_trust(&f->speed));
    f->eta.begin = f->start_ns;
    for (unsigned kind = 0; kind < WORK_KINDS; kind++)
        eta_expect(&f->eta, kind, work[kind]);
    return true;
}

/* ---- progress ---- */

static struct progress_event event(const struct forward *f, const char *detail)
{
    return (struct progress_event){.phase = f->phase, .detail = detail, .loss = NAN, .unit = "windows"};
}

bool forward_tell(struct forward *f, const char *detail, struct err *e)
{
    struct progress_event ev = event(f, detail);
    return progress_report(&f->watch, &ev, e);
}

struct walk forward_walk(struct forward *f, struct acts *acts, const char *detail)
{
    return (struct walk){.cmd = f->cmd,
                         .acts = acts,
                         .windows = f->w.n,
                         .batch = f->batch,
                         .staging = f->staging,
                         .deal = f->deal,
                         .watch = &f->watch,
                         .event = event(f, detail)};
}

static void begin(struct forward *f, unsigned kind, double seconds, double products)
{
    eta_begin(&f->eta, kind, seconds, os_now_ns());
    progress_meter(&f->watch, products);
}

void forward_head_begin(struct forward *f)
{
    begin(f, WORK_HEAD, head_work(f), 0);
}

void forward_head_end(struct forward *f)
{
    eta_end(&f->eta, os_now_ns());
}

/* ---- through the blocks ---- */

bool forward_block(struct forward *f, struct forward_side *s, uint32_t layer, struct walk *k, struct err *e)
{
    uint32_t blocks = s->m->cfg->num_layers;
    snprintf(f->detail, sizeof f->detail, "%sblock %" PRIu32 "/%" PRIu32, s->label, layer + 1, blocks);
    *k = forward_walk(f, s->acts, f->detail);
    k->keep = true;
    k->event.block = layer + 1;
    k->event.blocks = blocks;
    begin(f, WORK_LOAD, load_work(f, s->m, layer), 0);
    if (!progress_report(&f->watch, &k->event, e) || !model_load_block(s->m, layer, f->weights, &f->b, e))
        return false;
    eta_end(&f->eta, os_now_ns());
    begin(f, WORK_FORWARD, block_work(f, s->m, layer), model_block_products(s->m, layer) * f->w.n * f->w.ctx);
    return true;
}

void forward_second_half(struct forward *f, struct forward_side *s, uint32_t layer, const struct walk *k,
                         void (*seen)(void *ctx, const struct walk *k), void *ctx)
{
    if (config_has_experts(s->m->cfg, layer)) {
        if (k->at == 0)
            experts_begin(&f->experts, layer);
        experts_take(&f->experts, &f->b, &f->s, k->x, k->n);
    }
    if (!block_has_half(f->b.shape, HALF_FFN))
        return;
    block_ffn_fwd(s->m, &f->b, &f->s, k->x, k->x, k->n);
    if (seen)
        seen(ctx, k);
}

/* All of them, each once, then what they give is added to the hidden states. */
static bool run_experts(struct forward *f, const struct walk *of, struct err *e)
{
    struct walk k = {.cmd = f->cmd,
                     .acts = of->acts,
                     .windows = of->windows,
                     .batch = f->batch,
                     .staging = f->staging,
                     .keep = true};
    if (!experts_sort(&f->experts, e) || !experts_all(&f->experts, false, e))
        return false;
    while (walk_next(&k, e))
        experts_add(&f->experts, &f->s, k.x, k.at, k.n);
    return walk_end(&k, e);
}

bool forward_block_end(struct forward *f, const struct walk *k, struct err *e)
{
    bool ok = walk_end(k, e);
    if (ok && f->experts.tokens)
        ok = run_experts(f, k, e);
    f->experts.tokens = 0;
    eta_end(&f->eta, os_now_ns());
    gpu_arena_reset(f->weights, 0);
    return ok;
}

static bool alloc_blocks(struct forward *f, struct forward_side *s, struct err *e)
{
    return block_scratch_create(&f->s, f->scratch, s->m, f->batch, SCRATCH_FORWARD, e) &&
           gpu_alloc(f->scratch, acts_bytes(s->m, f->batch), &f->staging, e) &&
           (!s->m->cfg->experts.n ||
            experts_create(&f->experts, f->scratch, s->m, f->w.n, f->batch, f->experts_near, e));
}

static void free_blocks(struct forward *f)
{
    experts_free(&f->experts);
    gpu_arena_reset(f->weights, 0);
    gpu_arena_reset(f->scratch, 0);
    gpu_arena_trim(f->weights);
    gpu_arena_trim(f->scratch);
    f->staging = (struct gpu_view){0};
}

bool forward_blocks(struct forward *f, struct forward_side *s, forward_block_fn *block, void *ctx, struct err *e)
{
    uint64_t start = os_now_ns();
    if (!alloc_blocks(f, s, e) || !acts_embed(s->acts, &f->w, NULL, f->w.n, f->staging, e))
        return false;
    /* By the layer's name, as the tensors have it: what is counted from 1 is for progress. */
    for (uint32_t layer = 0; layer < s->m->cfg->num_layers; layer++)
        if (!block(ctx, f, s, layer, e))
            return e->kind != ERR_STOPPED && err_context(e, "%smodel.layers.%" PRIu32, s->label, layer);
    if (!gpu_cmd_finish(f->cmd, e))
        return false;
    free_blocks(f);
    s->seconds = (double)(os_now_ns() - start) * 1e-9;
    return true;
}

/* ---- set-up ---- */

/* One block after the other, layers that are alike once. */
static bool count_blocks(struct forward *f, struct model *m, struct err *e)
{
    bool ok = true;
    for (uint32_t layer = 0; ok && layer < m->cfg->num_layers; layer++)
        if (model_shape_is_new(&m->shape, layer)) {
            ok = model_load_block(m, layer, f->weights, &f->b, e);
            gpu_arena_reset(f->weights, 0);
        }
    return ok;
}

/* All that the measurement, the blocks and the head take, on arenas that count. */
static bool count_work(struct forward *f, struct err *e)
{
    bool ok = true;
    for (int i = 0; ok && i < f->sides; i++) {
        ok = (i > 0 || speed_count_forward(f->side[0].m, f->batch, f->scratch, e)) && alloc_blocks(f, &f->side[i], e) &&
             count_blocks(f, f->side[i].m, e);
        free_blocks(f);
    }
    return ok && (!f->alloc_head || f->alloc_head(f, e));
}

/* Whether the device has room for what all blocks and the head take, beside all hidden states where resident says so. */
static bool fits(const struct forward *f, bool resident, bool experts_near)
{
    struct gpu *gpu = gpu_cmd_gpu(f->cmd);
    struct gpu_count count = {.used = gpu_memory_used(gpu), .limit = gpu_info(gpu)->mem_limit};
    struct forward as_if = *f;
    struct gpu_arena *acts[2] = {NULL, NULL};
    bool ok = true;
    gpu_cmd_count(f->cmd, GPU_COUNT_MEMORY);
    as_if.experts_near = experts_near;
    for (int i = 0; ok && resident && i < f->sides; i++)
        ok = gpu_arena_create_counting(&acts[i], gpu, &count, NULL) && acts_count(f->side[i].m, f->w.n, acts[i], NULL);
    as_if.scratch = as_if.weights = NULL;
    ok = ok && gpu_arena_create_counting(&as_if.scratch, gpu, &count, NULL) &&
         gpu_arena_create_counting(&as_if.weights, gpu, &count, NULL) && count_work(&as_if, NULL);
    gpu_cmd_count(f->cmd, GPU_COUNT_NOTHING);
    gpu_arena_destroy(&as_if.scratch);
    gpu_arena_destroy(&as_if.weights);
    block_weights_free(&as_if.b);
    for (int i = 0; i < f->sides; i++)
        gpu_arena_destroy(&acts[i]);
    return ok;
}

/* Batches that are dealt are the same on all ranks: what all have room for. */
static bool agree_batch(struct forward *f, struct err *e)
{
    uint32_t *all = calloc(comm_size(), sizeof *all);
    bool ok = all || err_nomem(e, "the ranks' batches", comm_size() * sizeof *all);
    if (ok)
        all[comm_rank()] = f->batch;
    ok = ok && comm_gather(COMM_SETTINGS, all, comm_size(), 1, sizeof *all, e);
    for (unsigned r = 0; ok && r < comm_size(); r++)
        f->batch = (uint32_t)min_u64(f->batch, all[r]);
    free(all);
    return ok;
}

/* Batch size and the place of the hidden states, from what the device has left. */
static bool make_room(struct forward *f, struct err *e)
{
    f->batch = f->w.n;
    for (int i = 0; i < f->sides; i++)
        f->batch = batch_windows_forward(f->side[i].m, f->batch);
    if (f->deal && !agree_batch(f, e))
        return false;
    bool resident = fits(f, true, true);
    f->experts_near = resident || fits(f, false, true);
    if (!resident && fits(f, true, false)) {
        resident = true;
        f->experts_near = false;
    }
    const struct acts_options o = {
        .device_bytes = resident ? UINT64_MAX : 0,
        .host_bytes = comm_memory_available() / 2 / (unsigned)f->sides,
        .spill_dir = f->spill_dir,
    };
    for (int i = 0; i < f->sides; i++)
        if (!acts_create(&f->side[i].acts, f->side[i].m, f->w.n, &o, e))
            return false;
    return true;
}

bool forward_begin(struct forward *f, struct err *e)
{
    f->start_ns = os_now_ns();
    eta_start(&f->eta, f->start_ns, 0);
    progress_watch_begin(&f->watch, f->progress, &f->eta, f->cmd);
    if (f->given)
        f->w = *f->given;
    if (f->n_texts)
        return windows_load_texts(&f->w, f->side[0].ck, f->texts, f->n_texts, f->ctx, f->at_most, &f->watch, e);
    return f->given || windows_load(&f->w, f->side[0].ck, f->text, f->ctx, f->at_most, &f->watch, e);
}

bool forward_models(struct forward *f, struct err *e)
{
    for (int i = 0; i < f->sides; i++) {
        struct forward_side *s = &f->side[i];
        if (!model_open(&s->m, f->cmd, s->ck, f->ctx, e))
            return err_context(e, "%s", checkpoint_dir(s->ck));
    }
    return true;
}

bool forward_open(struct forward *f, struct err *e)
{
    struct gpu *gpu = gpu_cmd_gpu(f->cmd);
    return gpu_arena_create(&f->scratch, gpu, "scratch", e) && gpu_arena_create(&f->weights, gpu, "block", e) &&
           make_room(f, e) && expect(f, e);
}

void forward_close(struct forward *f)
{
    gpu_cmd_finish(f->cmd, NULL); /* after a failure, work may still use the arenas */
    experts_free(&f->experts);
    progress_watch_end(&f->watch);
    for (int i = 0; i < f->sides; i++) {
        acts_destroy(&f->side[i].acts);
        model_close(&f->side[i].m);
    }
    gpu_arena_destroy(&f->scratch);
    gpu_arena_destroy(&f->weights);
    block_weights_free(&f->b);
    if (!f->given)
        windows_free(&f->w);
}
