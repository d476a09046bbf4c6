#include "host/quant/method/sensitivity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/gpu/tiled.h"
#include "host/model/end_to_end.h"
#include "host/quant/method/qmatrix.h"

/* Rows of an embedding or a head at a time: as many as take this. */
#define ROWS_BYTES (UINT64_C(64) << 20)

struct pass {
    const struct sensitivity_task *t;
    struct end_to_end model;
    struct block_weights w;
    struct hessian in[HALF_COUNT][INPUT_COUNT]; /* of the block that is loaded */
    struct gpu_view *tiles;                     /* [most], by place: of outputs */
    bool *cut;                                  /* [most], by place: parts of its rows begin where no view can */
    uint32_t most;                              /* matrices of a layer */
    struct hessian head, embedding;             /* of what the head reads; of gradients behind the embedding */
    struct gpu_view chances;                    /* [vocab]: sums of squares of the logits' gradients */
    uint32_t loads, steps;                      /* of blocks so far; told so far */
    double *costs;
};

static struct gpu_cmd *cmd_of(const struct pass *p)
{
    return p->t->m->cmd;
}

static uint32_t vocab_of(const struct pass *p)
{
    return p->t->m->cfg->vocab_size;
}

static double tokens_of(const struct pass *p)
{
    return (double)p->t->n_used * p->t->m->ctx;
}

static struct block_items layer_items(const struct pass *p, uint32_t layer)
{
    return block_items_of(p->t->matrices + 1, p->t->n - 1, layer);
}

static const bool *tries_of(const struct pass *p, const struct matrix *x)
{
    return p->t->tries + (size_t)(x - p->t->matrices) * p->t->n_specs;
}

static bool tries_any(const struct pass *p, const struct matrix *x)
{
    const bool *tries = tries_of(p, x);
    for (uint32_t i = 0; i < p->t->n_specs; i++)
        if (tries[i])
            return true;
    return false;
}

uint32_t sensitivity_steps(const struct sensitivity_task *t)
{
    return 2 * t->m->cfg->num_layers + (uint32_t)t->n;
}

static bool tell(struct pass *p, struct err *e)
{
    return tune_tell(p->t->hooks, cmd_of(p), p->steps++, sensitivity_steps(p->t), NAN, e);
}

/* ---- sums ---- */

static bool create_sums(struct pass *p, uint32_t layer, struct err *e)
{
    const struct block_items b = layer_items(p, layer);
    const struct block_shape shape = block_common(model_block(p->t->m, layer));
    for (int half = 0; half < HALF_COUNT; half++)
        if (!hessian_create_half(p->in[half], cmd_of(p), p->t->hess, shape, (enum block_half)half, false, e))
            return false;
    for (uint32_t i = 0; i < p->most; i++) {
        p->tiles[i] = (struct gpu_view){0};
        p->cut[i] = false;
        if (i < b.n && tries_any(p, &b.items[i]) &&
            !output_hessian_create(&p->tiles[i], cmd_of(p), p->t->hess, b.items[i].rows, e))
            return false;
    }
    return true;
}

static void on_inputs(void *ctx, enum block_half half, const struct block_scratch *s, uint32_t windows)
{
    struct pass *p = ctx;
    for (int in = 0; in < INPUT_COUNT; in++)
        if (p->in[half][in].n)
            hessian_add(cmd_of(p), &p->in[half][in], HESSIAN_TRAIN, block_input(s, (enum input)in),
                        windows * p->t->m->ctx, (float)(1 / tokens_of(p)));
}

/* block_grads' outputs. */
static void on_outputs(void *ctx, uint32_t place, uint32_t row0, uint32_t rows, struct gpu_view dy, uint32_t tokens)
{
    struct pass *p = ctx;
    if (row0 % 64)
        p->cut[place] = true;
    else if (p->tiles[place].size)
        output_hessian_add(cmd_of(p), p->tiles[place], p->w.shape.matrices[place].rows, row0, rows, dy, tokens,
                           (float)(1 / tokens_of(p)));
}

static void on_head(void *ctx, struct gpu_view x, struct gpu_view dlogits, uint32_t rows)
{
    struct pass *p = ctx;
    hessian_add(cmd_of(p), &p->head, HESSIAN_TRAIN, x, rows, (float)(1 / tokens_of(p)));
    tiled_col_sumsq(cmd_of(p),
                    &(struct col_sumsq_args){.x = dlogits, .sums = p->chances, .rows = rows, .cols = vocab_of(p)});
}

static void on_embedding(void *ctx, struct gpu_view dx, uint32_t windows)
{
    struct pass *p = ctx;
    hessian_add(cmd_of(p), &p->embedding, HESSIAN_TRAIN, dx, windows * p->t->m->ctx, (float)(1 / tokens_of(p)));
}

/* ---- what a type costs ---- */

/* Of a linear that is on the device as w. */
static bool linear_cost(struct pass *p, const struct matrix *x, struct gpu_view w, const struct hessian *h,
                        struct gpu_view outputs, const struct quant_spec *spec, double *rows, double *cost,
                        struct err *e)
{
    const struct sensitivity_task *t = p->t;
    gpu_mark mark = gpu_arena_mark(t->scratch);
    struct gptq_facts facts;
    struct gpu_view square;
    struct qmatrix q;
    bool ok = hessian_square_create(&square, t->scratch, x->cols, spec->group, e) &&
              qmatrix_create(&q, t->scratch, x->rows, x->cols, *spec, e) &&
              quantize_gptq(cmd_of(p), &q, w, h, square, t->scratch, t->o->damp, &t->o->scale_search, &facts, e);
    if (ok) {
        hessian_square(cmd_of(p), h, HESSIAN_TRAIN, square);
        ok = hessian_loss(cmd_of(p), &q, w, x->rows, x->cols, square, output_hessian_rows(outputs, x->rows, 0, x->rows),
                          t->scratch, rows, e);
    }
    *cost = 0;
    for (uint32_t r = 0; ok && r < x->rows; r++)
        *cost += rows[r] / 2;
    gpu_arena_reset(t->scratch, mark);
    return ok;
}

/* A cost must be a number; rounding may leave a tiny one below 0. */
static bool take_cost(double cost, double *to, const struct matrix *x, struct err *e)
{
    *to = fmax(cost, 0);
    if (isfinite(cost))
        return true;
    err_set(e, ERR_USER, "what an error of %s costs cannot be measured: activations or gradients are no numbers",
            x->module);
    return err_hint(e, "give types by name: --type, --tensor");
}

static bool try_linear(struct pass *p, const struct matrix *x, uint32_t place, struct err *e)
{
    const bool *tries = tries_of(p, x);
    double *rows = calloc(x->rows, sizeof *rows), cost;
    bool ok = rows || err_nomem(e, "row losses", x->rows * sizeof *rows);
    if (ok && p->cut[place]) {
        err_set(e, ERR_USER, "what an error of %s costs cannot be measured: its parts begin within 64 rows", x->module);
        ok = err_hint(e, "give its type by name: --tensor '%s=Q4_K'", matrix_kind(x));
    }
    for (uint32_t i = 0; ok && i < p->t->n_specs; i++) {
        if (!tries[i])
            continue;
        ok = linear_cost(p, x, p->w.w[place], &p->in[x->part->half][x->part->input], p->tiles[place], &p->t->specs[i],
                         rows, &cost, e) &&
             (!p->costs || take_cost(cost, &p->costs[(size_t)(x - p->t->matrices) * p->t->n_specs + i], x, e));
    }
    free(rows);
    return ok;
}

/* Rows of an embedding or a head that are worked on at once. */
static uint32_t rows_at_once(const struct matrix *x)
{
    return (uint32_t)min_u64(x->rows, max_u64(64, ROWS_BYTES / (x->cols * 4ull) / 64 * 64));
}

/* weights[rows of x]: what an error there counts, with H in square. Adds up in costs. */
static bool ends_costs(struct pass *p, const struct matrix *x, const struct hessian *h, const double *weights,
                       double *costs, struct err *e)
{
    const struct sensitivity_task *t = p->t;
    const bool *tries = tries_of(p, x);
    const uint32_t most = rows_at_once(x);
    gpu_mark mark = gpu_arena_mark(t->scratch);
    struct gpu_view square, w;
    double *loss = calloc(most, sizeof *loss);
    bool ok = (loss || err_nomem(e, "row losses", most * sizeof *loss)) &&
              gpu_alloc(t->scratch, (uint64_t)x->cols * x->cols * 4, &square, e) &&
              gpu_alloc(t->scratch, (uint64_t)most * x->cols * 4, &w, e);
    if (ok)
        hessian_square(cmd_of(p), h, HESSIAN_TRAIN, square);
    for (uint32_t row = 0, n; ok && row < x->rows; row += n) {
        n = (uint32_t)min_u64(most, x->rows - row);
        ok = model_load_matrix(t->m, x->module, row, n, w, e);
        for (uint32_t i = 0; ok && i < t->n_specs; i++) {
            gpu_mark one = gpu_arena_mark(t->scratch);
            struct qmatrix q;
            if (!tries[i])
                continue;
            ok = qmatrix_create(&q, t->scratch, n, x->cols, t->specs[i], e);
            if (ok) {
                quantize_rtn(cmd_of(p), &q, w, &t->o->scale_search);
                ok = hessian_loss(cmd_of(p), &q, w, n, x->cols, square, (struct gpu_matrix){0}, t->scratch, loss, e);
            }
            for (uint32_t r = 0; ok && costs && r < n; r++)
                costs[i] += loss[r] * weights[row + r] / 2;
            gpu_arena_reset(t->scratch, one);
        }
    }
    ok = gpu_cmd_finish(cmd_of(p), ok ? e : NULL) && ok;
    gpu_arena_reset(t->scratch, mark);
    free(loss);
    return ok;
}

/* How often each token comes, of all. */
static void frequencies(const struct pass *p, double *out)
{
    const struct sensitivity_task *t = p->t;
    const double scale = config_factor(t->m->cfg->embedding_scale);
    for (uint32_t i = 0; i < vocab_of(p); i++)
        out[i] = 0;
    for (uint32_t i = 0; i < t->n_used; i++) {
        const uint32_t *ids = t->windows->ids + (uint64_t)end_to_end_spread(i, t->n_used, t->train) * t->m->ctx;
        for (uint32_t k = 0; k < t->m->ctx; k++)
            out[ids[k]] += scale * scale / tokens_of(p);
    }
}

/* E[p (1 - p)] of each token. */
static bool chances(const struct pass *p, double *out, struct err *e)
{
    const double divisor = config_factor(p->t->m->cfg->logit_divisor);
    float *sums = calloc(vocab_of(p), sizeof *sums);
    bool ok = sums ? gpu_download(cmd_of(p), p->chances, sums, vocab_of(p) * sizeof *sums, e)
                   : err_nomem(e, "chances of tokens", vocab_of(p) * sizeof *sums);
    for (uint32_t i = 0; ok && i < vocab_of(p); i++)
        out[i] = (double)sums[i] / (tokens_of(p) * divisor * divisor);
    free(sums);
    return ok;
}

/* Embedding and head; a tied one is both. */
static bool try_ends(struct pass *p, struct err *e)
{
    const struct sensitivity_task *t = p->t;
    double *weights = calloc(vocab_of(p), sizeof *weights);
    bool ok = weights || err_nomem(e, "chances of tokens", vocab_of(p) * sizeof *weights);
    for (const struct matrix *x = t->matrices; ok && x < t->matrices + t->n; x++) {
        double *costs = p->costs ? p->costs + (size_t)(x - t->matrices) * t->n_specs : NULL;
        if (matrix_is_linear(x) || !tries_any(p, x))
            continue;
        for (uint32_t i = 0; costs && i < t->n_specs; i++)
            costs[i] = tries_of(p, x)[i] ? 0 : costs[i];
        if (x->embedding && p->costs)
            frequencies(p, weights);
        ok = !x->embedding || ends_costs(p, x, &p->embedding, weights, costs, e);
        if (ok && x->head)
            ok = (!p->costs || chances(p, weights, e)) && ends_costs(p, x, &p->head, weights, costs, e);
        for (uint32_t i = 0; ok && costs && i < t->n_specs; i++)
            ok = !tries_of(p, x)[i] || take_cost(costs[i], &costs[i], x, e);
        ok = ok && tell(p, e);
    }
    free(weights);
    return ok;
}

/* ---- the blocks of the model ---- */

static const struct block_weights *load(void *ctx, uint32_t layer, struct err *e)
{
    struct pass *p = ctx;
    const struct sensitivity_task *t = p->t;
    const uint32_t layers = t->m->cfg->num_layers;
    if (!tell(p, e) || !gpu_cmd_finish(cmd_of(p), e))
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

static bool learn(void *ctx, uint32_t layer, struct err *e)
{
    struct pass *p = ctx;
    const struct block_items b = layer_items(p, layer);
    bool ok = gpu_cmd_finish(cmd_of(p), e);
    for (uint32_t i = 0; ok && i < b.n; i++)
        ok = (!p->tiles[i].size || try_linear(p, &b.items[i], i, e)) && tell(p, e);
    return ok;
}

/* ---- the whole ---- */

static bool create_ends(struct pass *p, struct err *e)
{
    const struct sensitivity_task *t = p->t;
    const uint32_t hidden = t->m->cfg->hidden_size;
    if (!hessian_create(&p->head, cmd_of(p), t->scratch, hidden, false, e) ||
        !hessian_create(&p->embedding, cmd_of(p), t->scratch, hidden, false, e) ||
        !gpu_alloc(t->scratch, vocab_of(p) * sizeof(float), &p->chances, e))
        return false;
    gpu_fill(cmd_of(p), p->chances, 0);
    return true;
}

static bool pass_create(struct pass *p, const struct sensitivity_task *t, struct err *e)
{
    *p = (struct pass){.t = t};
    for (uint32_t layer = 0; layer < t->m->cfg->num_layers; layer++)
        p->most = (uint32_t)max_u64(p->most, layer_items(p, layer).n);
    p->tiles = calloc(p->most + 1u, sizeof *p->tiles);
    p->cut = calloc(p->most + 1u, sizeof *p->cut);
    return ((p->tiles && p->cut) || err_nomem(e, "the list of outputs", p->most * sizeof *p->tiles)) &&
           end_to_end_alloc(&p->model, t->scratch, t->m, t->micro, t->head_stays, e) && create_ends(p, e);
}

/* True with ok, unless the device failed late. */
static bool pass_destroy(struct pass *p, bool ok, struct err *e)
{
    ok = gpu_cmd_finish(cmd_of(p), ok ? e : NULL) && ok;
    end_to_end_free(&p->model);
    block_weights_free(&p->w);
    gpu_arena_reset(p->t->block, 0);
    gpu_arena_reset(p->t->hess, 0);
    gpu_arena_reset(p->t->scratch, 0);
    free(p->tiles);
    free(p->cut);
    return ok;
}

/* Whether no earlier layer has the same matrices, with the same types to try. */
static bool layer_is_new(const struct pass *p, uint32_t layer)
{
    const struct block_items b = layer_items(p, layer);
    bool known = false;
    for (uint32_t i = 0; i < layer && !known; i++) {
        const struct block_items a = layer_items(p, i);
        known = block_shape_same(model_block(p->t->m, i), model_block(p->t->m, layer)) &&
                memcmp(tries_of(p, a.items), tries_of(p, b.items), (size_t)b.n * p->t->n_specs) == 0;
    }
    return !known;
}

bool sensitivity_count(const struct sensitivity_task *t, struct err *e)
{
    const uint32_t layers = t->m->cfg->num_layers;
    struct pass p;
    bool ok = pass_create(&p, t, e);
    for (uint32_t turn = 0; turn < 2; turn++)
        for (uint32_t i = 0; ok && i < layers; i++) {
            const uint32_t layer = turn ? layers - 1 - i : i;
            if (!layer_is_new(&p, layer))
                continue;
            p.loads = turn * layers;
            ok = load(&p, layer, e) && (!turn || learn(&p, layer, e));
        }
    ok = ok && try_ends(&p, e);
    return pass_destroy(&p, ok, e);
}

bool sensitivity_measure(const struct sensitivity_task *t, double *costs, struct err *e)
{
    struct pass p;
    bool ok = pass_create(&p, t, e);
    p.costs = costs;
    p.model.blocks = (struct end_to_end_blocks){.ctx = &p,
                                                .load = load,
                                                .grads = grads,
                                                .learn = learn,
                                                .inputs = on_inputs,
                                                .head = on_head,
                                                .embedding = on_embedding};
    p.model.windows = t->windows;
    ok = ok && end_to_end_sampled(&p.model, t->n_used, t->train, t->o->seed, &t->room, e) && try_ends(&p, e);
    return pass_destroy(&p, ok, e);
}
