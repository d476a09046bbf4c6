#include "host/quant/method/output_hessian.h"

#include <math.h>
#include <stdlib.h>

#include "host/base/num.h"
#include "host/model/end_to_end.h"
#include "host/quant/method/hessian.h"
#include "host/quant/method/share.h"

/* Tokens: some thirty for each output of a tile. More gain nothing (bench/results/output-hessian-lavapipe.md). */
#define OUTPUT_TOKENS 16384u
/* Of a text with fewer each window is taken several times, with labels drawn anew: most tokens' gradients are small, and few drawn labels
 * make most of the sum. So often at most. */
#define OUTPUT_DRAWS 8u
/* Share of the unit matrix. */
#define OUTPUT_DAMP 0.2

struct pass {
    const struct output_task *t;
    struct end_to_end model;
    struct block_weights w;
    struct gpu_view *tiles; /* [most], by place; empty: none is wanted */
    float **host;           /* [most], by place */
    float *room;            /* shared: of the largest, share_room */
    uint8_t *known;         /* [most], by place: shared, whether rank 0 has tiles */
    bool summed;            /* host has this rank's rows of the sums */
    uint32_t most;          /* matrices of a layer */
    uint32_t loads;         /* of blocks so far: each layer's, then each once more on the way back */
};

uint32_t output_hessian_windows(uint32_t train, uint32_t ctx)
{
    return (uint32_t)min_u64((uint64_t)OUTPUT_DRAWS * train, div_up(OUTPUT_TOKENS, ctx));
}

uint64_t output_hessian_bytes(const struct quantize_options *o, const struct matrix *item)
{
    return plan_alone(o, item) ? (uint64_t)item->rows * output_hessian_cols(item->rows) * sizeof(float) : 0;
}

bool output_hessian_settle(float *tiles, uint32_t n, double factor)
{
    const uint32_t ld = output_hessian_cols(n);
    double mean = 0;
    for (uint32_t r = 0; r < n; r++)
        mean += tiles[(size_t)r * ld + r % HESSIAN_TILE] * factor / n;
    if (!(mean > 0) || !isfinite(mean))
        return false;
    double scale = (1 - OUTPUT_DAMP) * factor / mean;
    for (uint32_t r = 0; r < n; r++) {
        float *row = tiles + (size_t)r * ld;
        uint32_t width = (uint32_t)min_u64(HESSIAN_TILE, n - r / HESSIAN_TILE * HESSIAN_TILE);
        for (uint32_t c = 0; c < ld; c++)
            row[c] = c < width ? (float)(row[c] * scale + (c == r % HESSIAN_TILE ? OUTPUT_DAMP : 0)) : 0;
    }
    return true;
}

/* ---- the sums of a layer ---- */

static struct block_items layer_items(const struct output_task *t, uint32_t layer)
{
    return block_items_of(t->items, t->n_items, layer);
}

static bool create_sums(struct pass *p, uint32_t layer, struct err *e)
{
    const struct block_items b = layer_items(p->t, layer);
    bool wants = !p->t->store.wants || p->t->store.wants(p->t->store.ctx, layer);
    for (uint32_t i = 0; i < p->most; i++) {
        p->tiles[i] = (struct gpu_view){0};
        if (i < b.n && wants && output_hessian_bytes(p->t->o, &b.items[i]) &&
            !output_hessian_create(&p->tiles[i], p->t->m->cmd, p->t->hess, b.items[i].rows, e))
            return false;
    }
    return true;
}

/* block_grads' outputs. Of a matrix whose parts begin where no view can, nothing is known. */
static void on_outputs(void *ctx, uint32_t place, uint32_t row0, uint32_t rows, struct gpu_view dy, uint32_t tokens)
{
    struct pass *p = ctx;
    if (row0 % 64)
        p->tiles[place] = (struct gpu_view){0};
    if (p->tiles[place].size)
        output_hessian_add(p->t->m->cmd, p->tiles[place], p->w.shape.matrices[place].rows, row0, rows, dy, tokens, 1);
}

/* ---- the blocks of the model ---- */

static const struct block_weights *load(void *ctx, uint32_t layer, struct err *e)
{
    struct pass *p = ctx;
    const struct output_task *t = p->t;
    const uint32_t layers = t->m->cfg->num_layers;
    if (!tune_tell(t->hooks, t->m->cmd, p->loads, 2 * layers, NAN, e) || !gpu_cmd_finish(t->m->cmd, e))
        return NULL;
    gpu_arena_reset(t->block, 0);
    gpu_arena_reset(t->hess, 0);
    bool ok = model_load_block(t->m, layer, t->block, &p->w, e) && (p->loads < layers || create_sums(p, layer, e));
    p->loads++;
    return ok ? &p->w : NULL;
}

static struct block_grads grads(void *ctx, uint32_t layer)
{
    (void)layer;
    return (struct block_grads){.outputs = on_outputs, .ctx = ctx};
}

/* Shared: tiles of one piece each. */
static bool sum_pieces(void *ctx, uint32_t layer, unsigned have, bool first, struct err *e)
{
    struct pass *p = ctx;
    const struct block_items b = layer_items(p->t, layer);
    for (uint32_t i = 0; i < p->most; i++)
        p->known[i] = p->tiles[i].size > 0;
    /* A rank without a piece has not heard of what is not known. */
    if (first && !comm_broadcast(COMM_SETTINGS, p->known, p->most, 0, e))
        return false;
    p->summed = true;
    for (uint32_t i = 0; i < p->most; i++) {
        const uint32_t rows = i < b.n ? b.items[i].rows : 0, cols = output_hessian_cols(rows);
        const uint64_t bytes = (uint64_t)rows * cols * sizeof(float);
        if (!p->known[i])
            p->tiles[i] = (struct gpu_view){0};
        if (!p->tiles[i].size)
            continue;
        const struct comm_part own = share_rows(rows);
        p->host[i] = p->host[i] ? p->host[i] : malloc((size_t)bytes);
        if (!p->host[i])
            return err_nomem(e, "a Hessian of outputs", bytes);
        if (!share_sum(COMM_HESSIANS, p->t->m->cmd, p->tiles[i], rows, cols, have, first, p->room,
                       p->host[i] + (size_t)own.first * cols, e))
            return false;
        gpu_fill(p->t->m->cmd, p->tiles[i], 0);
    }
    return true;
}

/* A linear's sums to the host. */
static bool take_sums(struct pass *p, uint32_t i, uint32_t rows, uint64_t bytes, struct err *e)
{
    if (p->summed)
        return comm_gather(COMM_HESSIANS, p->host[i], rows, SHARE_ROWS, bytes / rows, e);
    p->host[i] = malloc((size_t)bytes);
    return p->host[i] ? gpu_download(p->t->m->cmd, p->tiles[i], p->host[i], bytes, e)
                      : err_nomem(e, "a Hessian of outputs", bytes);
}

static bool learn(void *ctx, uint32_t layer, struct err *e)
{
    struct pass *p = ctx;
    const struct block_items b = layer_items(p->t, layer);
    const double tokens = (double)p->t->n * p->t->m->ctx;
    bool ok = true, any = false;
    for (uint32_t i = 0; ok && i < p->most; i++) {
        if (!p->tiles[i].size)
            continue;
        uint64_t bytes = output_hessian_bytes(p->t->o, &b.items[i]);
        ok = take_sums(p, i, b.items[i].rows, bytes, e);
        if (ok && !output_hessian_settle(p->host[i], b.items[i].rows, 1 / tokens)) {
            free(p->host[i]);
            p->host[i] = NULL;
        }
        any = true;
    }
    ok = ok && (!any || p->t->store.save(p->t->store.ctx, layer, (const float *const *)p->host, e));
    for (uint32_t i = 0; i < p->most; i++) {
        free(p->host[i]);
        p->host[i] = NULL;
    }
    p->summed = false;
    return ok;
}

/* ---- the whole ---- */

/* For what ranks exchange. */
static bool alloc_shared(struct pass *p, struct err *e)
{
    uint64_t room = 1;
    for (size_t i = 0; i < p->t->n_items; i++) {
        const struct matrix *item = &p->t->items[i];
        if (output_hessian_bytes(p->t->o, item))
            room = max_u64(room, share_room(item->rows, output_hessian_cols(item->rows)));
    }
    p->room = malloc(room * sizeof *p->room);
    p->known = calloc(p->most + 1u, sizeof *p->known);
    return (p->room && p->known) || err_nomem(e, "Hessians of outputs between ranks", room * sizeof *p->room);
}

static bool pass_create(struct pass *p, const struct output_task *t, struct err *e)
{
    *p = (struct pass){.t = t};
    for (uint32_t layer = 0; layer < t->m->cfg->num_layers; layer++)
        p->most = (uint32_t)max_u64(p->most, layer_items(t, layer).n);
    p->tiles = calloc(p->most + 1u, sizeof *p->tiles);
    p->host = calloc(p->most + 1u, sizeof *p->host);
    return ((p->tiles && p->host) || err_nomem(e, "the list of outputs", p->most * sizeof *p->tiles)) &&
           end_to_end_alloc(&p->model, t->scratch, t->m, t->micro, t->head_stays, e);
}

/* True with ok, unless the device failed late. */
static bool pass_destroy(struct pass *p, bool ok, struct err *e)
{
    ok = gpu_cmd_finish(p->t->m->cmd, ok ? e : NULL) && ok;
    end_to_end_free(&p->model);
    for (uint32_t i = 0; p->host && i < p->most; i++)
        free(p->host[i]);
    free(p->room);
    free(p->known);
    block_weights_free(&p->w);
    gpu_arena_reset(p->t->block, 0);
    gpu_arena_reset(p->t->hess, 0);
    gpu_arena_reset(p->t->scratch, 0);
    free(p->tiles);
    free(p->host);
    return ok;
}

bool output_hessians_count(const struct output_task *t, uint32_t layer, struct err *e)
{
    struct pass p;
    bool ok = pass_create(&p, t, e) && create_sums(&p, layer, e);
    gpu_arena_reset(t->hess, 0);
    gpu_arena_reset(t->scratch, 0);
    free(p.tiles);
    free(p.host);
    return ok;
}

bool output_hessians(const struct output_task *t, struct err *e)
{
    struct pass p;
    bool ok = pass_create(&p, t, e) && (!t->shared || comm_size() == 1 || alloc_shared(&p, e));
    p.model.blocks =
        (struct end_to_end_blocks){.ctx = &p, .load = load, .grads = grads, .sum = sum_pieces, .learn = learn};
    p.model.shared = t->shared;
    p.model.windows = t->windows;
    ok = ok && end_to_end_sampled(&p.model, t->n, t->train, t->o->seed, &t->room, e);
    return pass_destroy(&p, ok, e);
}

void output_hessians_expect(struct comm_expected *x, const struct output_task *t)
{
    unsigned last;
    const uint32_t layers = t->m->cfg->num_layers, rounds = end_to_end_rounds(t->micro, t->n, x->ranks, &last);
    uint32_t most = 0;
    if (!end_to_end_parts(t->m, t->micro, t->n))
        return;
    for (uint32_t layer = 0; layer < layers; layer++)
        most = (uint32_t)max_u64(most, layer_items(t, layer).n);
    for (uint32_t layer = 0; layer < layers; layer++) {
        const struct block_items b = layer_items(t, layer);
        comm_expect_broadcast(x, COMM_SETTINGS, most, 0, 1); /* of which there are sums */
        for (uint32_t i = 0; i < b.n; i++) {
            const uint32_t rows = b.items[i].rows, cols = output_hessian_cols(rows);
            if (!output_hessian_bytes(t->o, &b.items[i]))
                continue;
            share_sum_expect(x, COMM_HESSIANS, rows, cols, x->ranks, rounds - 1);
            share_sum_expect(x, COMM_HESSIANS, rows, cols, last, 1);
            comm_expect_gather(x, COMM_HESSIANS, rows, SHARE_ROWS, cols * sizeof(float), 1);
        }
    }
}
