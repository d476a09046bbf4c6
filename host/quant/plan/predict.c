#include "host/quant/plan/predict.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/pool.h"
#include "host/gpu/gpu_gemm.h"
#include "host/quant/method/gumbel.h"
#include "host/quant/method/tune_expert.h"
#include "host/quant/method/tune_hessian.h"

/* Of the pieces that are measured. */
#define SLICE_ROWS       64u        /* of a linear that is rounded or trained, at least ... */
#define SLICE_LINEAR     (1u << 18) /* ... and as many as have that many weights */
#define SLICE_LINEAR_GPU (1u << 22)
#define SLICE_COLS       512u /* of its Hessian, for GPTQ */
#define SLICE_COLS_GPU   1024u
/* Rows are rounded for that long, for the speed of each type. */
#define ROUNDING_NS 5000000ull

static const struct quantize_options *options(const struct speed_bench *b)
{
    return b->options;
}

/* ---- linears ---- */

static float ordinary_weight(uint32_t *state)
{
    float w = 0;
    for (int k = 0; k < 4; k++) {
        *state = *state * 1664525u + 1013904223u;
        w += (float)(*state >> 8) * (0.02f / (1 << 24)) - 0.01f;
    }
    return w;
}

/* Weights like real ones, of which a search for scales stops early where it can. */
static void fill_weights(struct speed_bench *b, struct gpu_view w)
{
    float tile[1024];
    uint32_t state = 1;
    for (size_t i = 0; i < sizeof tile / sizeof *tile; i++)
        tile[i] = ordinary_weight(&state);
    for (uint64_t at = 0; at < w.size; at += sizeof tile)
        gpu_upload(b->cmd, gpu_slice(w, at, min_u64(sizeof tile, w.size - at)), tile,
                   min_u64(sizeof tile, w.size - at));
}

/* Codes, scales and weights. */
static bool make_linear(struct speed_bench *b, struct gpu_arena *arena, const struct speed_size *z, struct qmatrix *q,
                        struct gpu_view *w, struct err *e)
{
    if (!qmatrix_create(q, arena, z->rows, z->cols, z->item->spec, e) ||
        !gpu_alloc(arena, (uint64_t)z->rows * z->cols * 4, w, e))
        return false;
    gpu_fill(b->cmd, q->codes, 0);
    gpu_fill(b->cmd, q->scales, SPEED_FILL);
    if (arena == b->arena)
        fill_weights(b, *w);
    return true;
}

static bool rtn(struct speed_bench *b, struct gpu_arena *arena, const struct speed_size *z, struct err *e)
{
    struct qmatrix q;
    struct gpu_view w, rounded;
    bool ok = make_linear(b, arena, z, &q, &w, e) && gpu_alloc(arena, w.size, &rounded, e) && speed_ready(b, e);
    while (ok && speed_again(b, &ok, e)) {
        quantize_rtn(b->cmd, &q, w, &options(b)->scale_search);
        qmatrix_dequant(b->cmd, &q, rounded);
    }
    return ok;
}

/* Losses are taken of the weights, the start, GPTQ's result and the end. */
enum { LOSSES = 4 };

static bool gptq(struct speed_bench *b, struct gpu_arena *arena, const struct speed_size *z, struct err *e)
{
    struct qmatrix q;
    struct gpu_view w, square;
    struct hessian h;
    struct gptq_facts facts;
    double *loss = calloc(z->rows, sizeof *loss);
    if (!loss)
        return err_nomem(e, "row losses", z->rows * sizeof *loss);
    bool ok = make_linear(b, arena, z, &q, &w, e) && hessian_create(&h, b->cmd, arena, z->cols, false, e) &&
              hessian_square_create(&square, arena, z->cols, q.spec.group, e);
    if (ok)
        gpu_fill(b->cmd, h.train, SPEED_FILL); /* damped, it has a Cholesky factor */
    ok = ok && speed_ready(b, e);
    while (ok && speed_again(b, &ok, e)) {
        quantize_rtn(b->cmd, &q, w, &options(b)->scale_search);
        ok = quantize_gptq(b->cmd, &q, w, &h, square, arena, options(b)->damp, &options(b)->scale_search, &facts, e);
        for (int i = 0; ok && i < LOSSES; i++) {
            hessian_square(b->cmd, &h, HESSIAN_TRAIN, square);
            ok = hessian_loss(b->cmd, &q, w, z->rows, z->cols, square, (struct gpu_matrix){0}, arena, loss, e);
        }
    }
    free(loss);
    return ok;
}

static bool step(struct speed_bench *b, struct gpu_arena *arena, const struct speed_size *z, struct err *e)
{
    struct qmatrix q;
    struct gpu_view w, h;
    struct gumbel_state s;
    uint64_t bytes = (uint64_t)z->rows * z->cols * 4;
    if (!make_linear(b, arena, z, &q, &w, e) || !gumbel_create(&s, arena, &q, 0, z->rows, e) ||
        !gpu_alloc(arena, bytes, &s.soft, e) || !gpu_alloc(arena, bytes, &s.grad, e) ||
        !gpu_alloc(arena, (uint64_t)max_u64(z->inner, 1) * z->cols * 4, &h, e))
        return false;
    s.o = &options(b)->gumbel;
    s.w = w;
    gpu_fill(b->cmd, s.grad, 0);
    gpu_fill(b->cmd, h, SPEED_FILL);
    gumbel_start(b->cmd, &s);
    bool ok = speed_ready(b, e);
    while (ok && speed_again(b, &ok, e)) {
        if (z->inner)
            gpu_gemm(b->cmd, &(struct gpu_product){.a = {s.soft, z->cols},
                                                   .b = {h, z->cols},
                                                   .c = {s.grad, z->cols},
                                                   .m = z->rows,
                                                   .n = z->inner,
                                                   .k = z->cols,
                                                   .alpha = 1,
                                                   .use = GEMM_STEERING});
        gumbel_step(b->cmd, &s, 0);
    }
    return ok;
}

/* x^T x of a slice's tokens; z->cols wide. */
static bool gram(struct speed_bench *b, struct gpu_arena *arena, const struct speed_size *z, struct err *e)
{
    struct hessian h;
    struct gpu_view x;
    uint32_t tokens = z->windows * z->model.ctx;
    uint64_t bytes = (uint64_t)tokens * z->cols * 4;
    if (!hessian_create(&h, b->cmd, arena, z->cols, false, e) || !gpu_alloc(arena, bytes, &x, e))
        return false;
    gpu_fill(b->cmd, x, SPEED_FILL);
    bool ok = speed_ready(b, e);
    while (ok && speed_again(b, &ok, e))
        hessian_add(b->cmd, &h, HESSIAN_TRAIN, x, tokens, 1);
    return ok;
}

/* ---- linears of a run ---- */

static bool same_linear(const struct speed_linear *l, const struct matrix *i)
{
    return l->rows == i->rows && l->cols == i->cols && l->spec.type == i->spec.type && l->spec.group == i->spec.group;
}

const struct speed_linear *speed_linear(const struct run_speed *s, const struct matrix *item)
{
    for (unsigned i = 0; i < s->n_linears; i++)
        if (same_linear(&s->linears[i], item))
            return &s->linears[i];
    return NULL;
}

/* Of kernels that work on one linear, rates depend on its type; of the shapes, counts do. */
struct type_rates {
    const struct quant_type *type;
    struct speed_rates rtn, gptq, step;
};

static uint32_t slice_columns(const struct speed_size *all)
{
    return gpu_info(all->model.gpu)->caps & GPU_CAP_CPU ? SLICE_COLS : SLICE_COLS_GPU;
}

static uint32_t hessian_columns(const struct speed_size *all, const struct matrix *i)
{
    uint32_t unit = i->spec.type->super ? i->spec.type->super : i->spec.group;
    return (uint32_t)min_u64(i->cols, max_u64(unit, slice_columns(all) / unit * unit));
}

/* As many rows as fill a GPU, where the run trains so many at a time; a CPU is as fast with few. */
static uint32_t slice_rows(struct speed_bench *b, const struct speed_size *all, const struct plan *p,
                           const struct matrix *item)
{
    struct gpu *g = all->model.gpu;
    struct qmatrix q;
    uint64_t linear = gpu_info(g)->caps & GPU_CAP_CPU ? SLICE_LINEAR : SLICE_LINEAR_GPU;
    uint32_t rows = (uint32_t)min_u64(item->rows, max_u64(SLICE_ROWS, linear / item->cols));
    if (options(b)->method == METHOD_GSQ && qmatrix_create(&q, b->counting, item->rows, item->cols, item->spec, NULL))
        while (rows > SLICE_ROWS && tune_hessian_bytes(g, &q, rows, p->output_windows > 0) > p->tune_bytes)
            rows = (uint32_t)max_u64(SLICE_ROWS, rows / 2);
    gpu_arena_reset(b->counting, 0);
    return rows;
}

static bool measure_type(struct speed_bench *b, const struct speed_size *all, const struct plan *p,
                         const struct matrix *item, struct type_rates *r, struct err *e)
{
    struct speed_size z = *all;
    double took;
    r->type = item->spec.type;
    z.item = item;
    z.rows = slice_rows(b, all, p, item);
    z.cols = item->cols;
    z.inner = (uint32_t)min_u64(item->cols, 2 * slice_columns(all));
    uint64_t in_buffer = gpu_info(all->model.gpu)->max_alloc / 2 / (item->cols * 4ull);
    z.inner = (uint32_t)max_u64(1, min_u64(z.inner, in_buffer));
    bool ok = speed_time(b, rtn, &z, &r->rtn, &took, e);
    if (ok && options(b)->method == METHOD_GSQ)
        ok = speed_time(b, step, &z, &r->step, &took, e);
    z.cols = hessian_columns(all, item);
    if (ok && plan_needs_hessian(options(b), item))
        ok = speed_time(b, gptq, &z, &r->gptq, &took, e);
    return ok;
}

static bool predict_linear(struct speed_bench *b, const struct speed_size *all, const struct matrix *item,
                           const struct type_rates *r, struct speed_linear *l, struct err *e)
{
    struct speed_size z = *all;
    *l = (struct speed_linear){.rows = item->rows, .cols = item->cols, .spec = item->spec};
    z.item = item;
    z.rows = item->rows;
    z.cols = item->cols;
    bool ok = speed_predict(b, rtn, &z, &r->rtn, &l->rtn, e);
    if (ok && plan_needs_hessian(options(b), item))
        ok = speed_predict(b, gptq, &z, &r->gptq, &l->gptq, e);
    if (ok && options(b)->method == METHOD_GSQ) {
        ok = speed_predict(b, step, &z, &r->step, &l->joint, e);
        z.inner = z.cols;
        ok = ok && speed_predict(b, step, &z, &r->step, &l->step, e);
    }
    return ok;
}

/* Small matrices take longer for each multiply-add: rates are those of the linear that takes longest. */
static const struct matrix *largest_linear(const struct plan *p, const struct quant_type *type)
{
    const struct matrix *most = NULL;
    double most_work = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct matrix *item = &p->items[i];
        double work = (double)item->rows * item->cols * item->cols;
        if (item->coded && item->spec.type == type && work > most_work) {
            most = item;
            most_work = work;
        }
    }
    return most;
}

static bool measure_linears(struct speed_bench *b, struct run_speed *s, const struct speed_size *all,
                            const struct plan *p, struct err *e)
{
    enum { TYPES = 6, MOST = sizeof s->linears / sizeof *s->linears };
    struct type_rates types[TYPES];
    unsigned n = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct matrix *item = &p->items[i];
        if (!item->coded || s->n_linears == MOST || speed_linear(s, item))
            continue;
        unsigned t = 0;
        while (t < n && types[t].type != item->spec.type)
            t++;
        if (t == TYPES)
            continue;
        if (t == n && !measure_type(b, all, p, largest_linear(p, item->spec.type), &types[n++], e))
            return false;
        if (!predict_linear(b, all, item, &types[t], &s->linears[s->n_linears++], e))
            return false;
    }
    return true;
}

static bool measure_hessian(struct speed_bench *b, struct run_speed *s, const struct speed_size *slice, struct err *e)
{
    struct speed_rates r;
    double took;
    struct speed_size z = *slice;
    bool ok;
    z.cols = (uint32_t)min_u64(z.config.hidden_size, 2 * slice_columns(slice));
    ok = speed_time(b, gram, &z, &r, &took, e);
    double ops = (double)z.windows * z.model.ctx * hessian_products(z.cols);
    ok = ok && speed_predict(b, gram, &z, &r, &s->hessian, e);
    s->hessian /= ops;
    return ok;
}

/* ---- rounding of a GGUF's other tensors, on the host ---- */

double speed_rounding(const struct run_speed *s, const struct gguf_type *type)
{
    for (unsigned i = 0; i < s->n_roundings; i++)
        if (s->roundings[i].type == type)
            return s->roundings[i].seconds;
    return 0;
}

/* Rows of a tensor's width, one after the other, for a few milliseconds. */
static bool measure_rounding(struct run_speed *s, const struct matrix *t, struct err *e)
{
    float *row = malloc(t->cols * sizeof *row);
    uint8_t *packed = malloc((size_t)gguf_row_bytes(t->type, t->cols));
    bool ok = (row && packed) || err_nomem(e, "a row", t->cols * sizeof *row);
    uint64_t begin = os_now_ns(), took = 0, rows = 0;
    uint32_t state = 1;
    for (uint32_t c = 0; ok && c < t->cols; c++)
        row[c] = ordinary_weight(&state);
    while (ok && took < ROUNDING_NS) {
        gguf_round_row(t->type, row, NULL, t->cols, packed);
        rows++;
        took = os_now_ns() - begin;
    }
    if (ok)
        s->roundings[s->n_roundings++] =
            (struct speed_rounding){t->type, (double)took * 1e-9 / ((double)rows * t->cols) / pool_threads()};
    free(row);
    free(packed);
    return ok;
}

static bool measure_roundings(struct run_speed *s, const struct plan *p, struct err *e)
{
    for (size_t i = 0; plan_typed(p) && i < p->n_matrices; i++) {
        const struct matrix *t = &p->matrices[i];
        if (!t->coded && !t->copied && !(speed_rounding(s, t->type) > 0) &&
            s->n_roundings < sizeof s->roundings / sizeof *s->roundings && !measure_rounding(s, t, e))
            return false;
    }
    return true;
}

/* ---- the whole ---- */

/* Backward passes are measured for whatever learns, so that efforts can be compared; a run without them has memory only for
 * slices that its own work leaves room for. */
static bool measure_backward(struct speed_bench *b, struct run_speed *s, const struct speed_size *all,
                             const struct speed_size *slice, const struct plan *p, struct err *e)
{
    uint64_t need;
    if (!plan_block_objective(options(b)) &&
        (!speed_backward_bytes(b, slice, &need, e) || gpu_memory_used(all->model.gpu) + need > p->device_bytes))
        return !gpu_cmd_failed(b->cmd);
    return speed_backward(b, &s->model, all, slice, e);
}

/* An expert, over as many tokens as it will see at a time; its training where it is trained and there is room. */
static bool measure_experts(struct speed_bench *b, struct run_speed *s, const struct speed_size *all,
                            const struct plan *p, struct err *e)
{
    const struct model *m = &all->model;
    const struct expert_config *c = &m->cfg->experts;
    uint64_t need, tokens = (uint64_t)p->samples * m->ctx * c->used / (c->n ? c->n : 1);
    struct expert_expected x = {0};
    if (!c->n)
        return true;
    if (plan_trains_experts(p, options(b)))
        x = tune_expert_expect(m, options(b), p->samples, p->holdout, p->micro_windows);
    if (x.train)
        tokens = (uint64_t)x.train / x.steps / x.calls * EXPERT_WINDOW;
    tokens = max_u64(1, min_u64(tokens, UINT32_MAX));
    if (!speed_experts_bytes(b, all, (uint32_t)tokens, &need, e))
        return false;
    return gpu_memory_used(m->gpu) + need > p->device_bytes ||
           speed_experts(b, &s->model, all, (uint32_t)tokens, x.train > 0, e);
}

bool speed_measure(struct run_speed *s, struct model *m, const struct plan *p, const struct quantize_options *o,
                   struct err *e)
{
    struct speed_bench b = {.options = o, .train_qk = o->block.train_qk, .steering = true};
    bool windows = o->method != METHOD_RTN && !quantize_diagonal(o), block = plan_block_objective(o);
    struct speed_size all = speed_size_whole(m, (uint32_t)max_u64(1, block ? p->micro_windows : p->batch_windows)),
                      slice = all;
    *s = (struct run_speed){0};
    bool ok = speed_begin(&b, m, e) && speed_load(&b, &s->model, m, e) && measure_linears(&b, s, &all, p, e) &&
              measure_roundings(s, p, e);
    if (ok && windows)
        ok = speed_forward(&b, &s->model, &all, &slice, e) && measure_hessian(&b, s, &slice, e) &&
             (o->method != METHOD_GSQ || measure_backward(&b, s, &all, &slice, p, e)) &&
             measure_experts(&b, s, &all, p, e);
    s->model.measured = ok;
    return speed_end(&b, ok, &s->model.seconds, e);
}
