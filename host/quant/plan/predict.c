#include "host/quant/plan/predict.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/pool.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/kernels.h"
#include "host/model/block_bwd.h"
#include "host/quant/method/gumbel.h"

/* A forward slice grows until it takes this long, or is all that the run does at once: a GPU wants enough
 * rows to fill it. The passes backward and the linears then take slices to match. */
#define SLICE_NS 40000000ull
/* Where slices begin. A CPU needs some tens of milliseconds for these. */
#define SLICE_TOKENS 64u
#define SLICE_WIDTH  1024u /* of heads together, and of the feed-forward's middle */
#define SLICE_ROWS   64u   /* of a linear that is rounded or trained; more of narrow ones */
#define SLICE_LINEAR (1u << 18)
#define SLICE_COLS   512u /* of its Hessian, for GPTQ */
/* Rows are rounded for that long, for the speed of each type. */
#define ROUNDING_NS 5000000ull
/* Weights read from the model's files for the speed of loading. */
#define LOAD_WEIGHTS (1u << 21)
/* What a dispatch takes beside its kernel, at most: in a slice, the waiting for it is in there, too. */
#define DISPATCH_MOST 20e-6
/* 0.01. The speed of products and activations does not depend on values, as long as they are ordinary. */
#define FILL 0x3c23d70au

/* A multiply-add: of a GPU, and of a CPU that is one. */
#define GUESS_GPU 2e-11
#define GUESS_CPU 2e-10

double speed_guess(const struct gpu *g)
{
    return g && gpu_info(g)->caps & GPU_CAP_CPU ? GUESS_CPU : GUESS_GPU;
}

double speed_trust(const struct speed *s)
{
    return s->measured ? 0.4 : 0;
}

/* ---- what a slice takes, and what the whole would ---- */

/* Seconds per unit of each kernel's work, and for each dispatch beside that. */
struct rates {
    double kernel[KERNEL_COUNT], dispatch;
};

/* Something that is recorded, at any size. The arena is for it alone. */
struct bench;
struct size;
typedef bool (*piece)(struct bench *b, struct gpu_arena *arena, const struct size *z, struct err *e);

/* Sizes of a piece: of a block's, or of a linear's. */
struct size {
    struct model model; /* shapes and ctx; of a slice, a copy with a smaller ctx */
    struct model_config config;
    uint32_t layer; /* of a block */
    uint32_t windows;
    const struct matrix *item;
    uint32_t rows, cols; /* of the item */
    uint32_t inner;      /* columns of the Hessian that a step's product takes */
};

struct bench {
    struct gpu_cmd *cmd;
    struct gpu *gpu;
    const struct quantize_options *o; /* NULL: forward passes alone */
    struct gpu_arena *arena, *counting;
    struct gpu_count count;
    uint64_t begin; /* of the run that is timed: recorded pieces set it when their operands are ready */
};

/* Operands are ready: the clock begins. */
static bool ready(struct bench *b, struct err *e)
{
    if (!gpu_cmd_finish(b->cmd, e))
        return false;
    gpu_cmd_profile_clear(b->cmd);
    b->begin = os_now_ns();
    return true;
}

/* Runs a piece at a small size; *seconds: what it took. */
static bool measure(struct bench *b, piece run, const struct size *z, struct rates *r, double *seconds, struct err *e)
{
    struct gpu_cmd *cmd = b->cmd;
    *r = (struct rates){0};
    gpu_cmd_profile_enable(cmd, true);
    bool ok = run(b, b->arena, z, e);
    ok = gpu_cmd_finish(cmd, ok ? e : NULL) && ok;
    *seconds = (double)(os_now_ns() - b->begin) * 1e-9;
    gpu_cmd_profile_enable(cmd, false);
    gpu_arena_reset(b->arena, 0);
    gpu_arena_trim(b->arena); /* no piece is to take more than what it stands for */
    double in_kernels = 0, dispatches = 0, work = 0;
    for (unsigned k = 0; k < KERNEL_COUNT; k++) {
        struct gpu_profile p = gpu_cmd_profile(cmd, k);
        r->kernel[k] = p.work > 0 ? p.seconds / p.work : 0;
        in_kernels += p.seconds;
        dispatches += (double)p.dispatches;
        work += p.work;
    }
    if (in_kernels > 0 && dispatches > 0)
        r->dispatch = fmin(fmax(0, (*seconds - in_kernels) / dispatches), DISPATCH_MOST);
    else /* a device without timestamps: products are nearly all of it */
        r->kernel[KERNEL_ID_gemm] = *seconds / (work > 0 ? work : 1);
    return ok;
}

/* Seconds of a piece at any size, by counting. */
static bool predict(struct bench *b, piece run, const struct size *z, const struct rates *r, double *seconds,
                    struct err *e)
{
    gpu_cmd_count(b->cmd, GPU_COUNT_WORK);
    gpu_cmd_profile_clear(b->cmd);
    bool ok = run(b, b->counting, z, e);
    gpu_cmd_count(b->cmd, GPU_COUNT_NOTHING);
    gpu_arena_reset(b->counting, 0);
    *seconds = 0;
    for (unsigned k = 0; k < KERNEL_COUNT; k++) {
        struct gpu_profile p = gpu_cmd_profile(b->cmd, k);
        *seconds += p.work * r->kernel[k] + (double)p.dispatches * r->dispatch;
    }
    return ok;
}

/* ---- halves of a block ---- */

/* Without a sliding window: where blocks have one much shorter than ctx, attention is predicted as too slow.
 */
static bool make_block(struct bench *b, struct gpu_arena *arena, const struct model *m, struct block_weights *w,
                       struct err *e)
{
    bool ok = block_weights_create(w, m, model_block(m, 0), arena, e);
    for (uint32_t i = 0; ok && i < w->shape.n; i++)
        gpu_fill(b->cmd, w->w[i], FILL);
    for (int role = 0; ok && role < ROLE_COUNT; role++)
        if (w->norm[role].size)
            gpu_fill(b->cmd, w->norm[role], FILL);
    return ok;
}

/* The layer of a size as a model of one block: its matrices, cut. */
struct one_block {
    struct model m;
    uint32_t first[2];
    struct block_matrix *matrices;
};

/* A matrix's size, where the width that makes it is cut. */
static uint32_t cut_size(uint32_t own, uint32_t of_model, uint32_t of_slice)
{
    return of_slice < of_model ? (uint32_t)min_u64(own, of_slice) : own;
}

static bool one_block(struct one_block *o, const struct size *z, struct err *e)
{
    const struct block_shape b = model_block(&z->model, z->layer);
    *o = (struct one_block){.m = z->model, .first = {0, b.n}, .matrices = calloc(b.n + 1u, sizeof *o->matrices)};
    if (!o->matrices)
        return err_nomem(e, "a block's shape", b.n * sizeof *o->matrices);
    for (uint32_t i = 0; i < b.n; i++) {
        const struct block_matrix *of = &b.matrices[i];
        const struct block_part *p = of->part;
        o->matrices[i].part = p;
        o->matrices[i].rows = cut_size(of->rows, block_part_rows(p, z->model.cfg), block_part_rows(p, &z->config));
        o->matrices[i].cols = cut_size(of->cols, block_part_cols(p, z->model.cfg), block_part_cols(p, &z->config));
    }
    o->m.cfg = &z->config;
    o->m.shape = (struct model_shape){1, o->first, o->matrices};
    memset(o->m.has_bias, 0, sizeof o->m.has_bias);
    return true;
}

/* Gradients of what is trained of a half. */
static bool make_grads(struct bench *b, struct gpu_arena *arena, struct block_shape shape, enum block_half half,
                       struct block_grads *grads, struct err *e)
{
    grads->w = calloc(shape.n + 1u, sizeof *grads->w);
    if (!grads->w)
        return err_nomem(e, "the list of gradients", shape.n * sizeof *grads->w);
    for (uint32_t i = 0; i < shape.n; i++) {
        const struct block_matrix *of = &shape.matrices[i];
        if (of->part->half != half || (of->part->turned && !b->o->block.train_qk))
            continue;
        if (!gpu_alloc(arena, (uint64_t)of->rows * of->cols * 4, &grads->w[i], e))
            return false;
        gpu_fill(b->cmd, grads->w[i], 0);
    }
    return true;
}

static bool run_half(struct bench *b, struct gpu_arena *arena, const struct size *z, enum block_half half,
                     bool backward, struct err *e)
{
    bool attn = half == HALF_ATTN;
    struct one_block o = {0};
    struct model *m = &o.m;
    struct block_weights w = {0};
    struct block_scratch fwd;
    struct bwd_scratch bwd;
    struct block_grads grads = {0};
    struct gpu_view x, y;
    uint64_t bytes = (uint64_t)z->windows * z->model.ctx * z->config.hidden_size * 4;
    unsigned parts = attn ? BWD_ATTN | (backward && b->o->block.train_qk ? BWD_QK : 0) : BWD_FFN;
    bool ok = one_block(&o, z, e) && make_block(b, arena, m, &w, e) &&
              block_scratch_create(&fwd, arena, m, z->windows, backward ? SCRATCH_TRAIN : SCRATCH_FORWARD, e) &&
              gpu_alloc(arena, bytes, &x, e) && gpu_alloc(arena, bytes, &y, e) &&
              (!backward || (make_grads(b, arena, w.shape, half, &grads, e) &&
                             bwd_scratch_create(&bwd, arena, m, z->windows, parts, e)));
    if (ok) {
        gpu_fill(b->cmd, x, FILL);
        gpu_fill(b->cmd, y, FILL);
        if (backward) /* it reads what a forward pass leaves */
            (attn ? block_attn_fwd : block_ffn_fwd)(m, &w, &fwd, x, y, z->windows);
    }
    ok = ok && ready(b, e);
    if (ok && backward)
        (attn ? block_attn_bwd : block_ffn_bwd)(m, &w, &fwd, &bwd, x, y, false, &grads, z->windows);
    else if (ok)
        (attn ? block_attn_fwd : block_ffn_fwd)(m, &w, &fwd, x, y, z->windows);
    block_weights_free(&w);
    free(grads.w);
    free(o.matrices);
    return ok;
}

static bool attn_fwd(struct bench *b, struct gpu_arena *arena, const struct size *z, struct err *e)
{
    return run_half(b, arena, z, HALF_ATTN, false, e);
}

static bool ffn_fwd(struct bench *b, struct gpu_arena *arena, const struct size *z, struct err *e)
{
    return run_half(b, arena, z, HALF_FFN, false, e);
}

static bool attn_bwd(struct bench *b, struct gpu_arena *arena, const struct size *z, struct err *e)
{
    return run_half(b, arena, z, HALF_ATTN, true, e);
}

static bool ffn_bwd(struct bench *b, struct gpu_arena *arena, const struct size *z, struct err *e)
{
    return run_half(b, arena, z, HALF_FFN, true, e);
}

/* By half. */
static const piece half_forward[HALF_COUNT] = {attn_fwd, ffn_fwd}, half_backward[HALF_COUNT] = {attn_bwd, ffn_bwd};

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
static void fill_weights(struct bench *b, struct gpu_view w)
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
static bool make_linear(struct bench *b, struct gpu_arena *arena, const struct size *z, struct qmatrix *q,
                        struct gpu_view *w, struct err *e)
{
    if (!qmatrix_create(q, arena, z->rows, z->cols, z->item->spec, e) ||
        !gpu_alloc(arena, (uint64_t)z->rows * z->cols * 4, w, e))
        return false;
    gpu_fill(b->cmd, q->codes, 0);
    gpu_fill(b->cmd, q->scales, FILL);
    if (arena == b->arena)
        fill_weights(b, *w);
    return true;
}

static bool rtn(struct bench *b, struct gpu_arena *arena, const struct size *z, struct err *e)
{
    struct qmatrix q;
    struct gpu_view w;
    if (!make_linear(b, arena, z, &q, &w, e) || !ready(b, e))
        return false;
    quantize_rtn(b->cmd, &q, w, &b->o->scale_search);
    qmatrix_dequant(b->cmd, &q, w);
    return true;
}

/* Losses are taken of the weights, the start, GPTQ's result and the end. */
enum { LOSSES = 4 };

static bool gptq(struct bench *b, struct gpu_arena *arena, const struct size *z, struct err *e)
{
    struct qmatrix q;
    struct gpu_view w, h, work;
    struct gptq_facts facts;
    double *loss = calloc(z->rows, sizeof *loss);
    if (!loss)
        return err_nomem(e, "row losses", z->rows * sizeof *loss);
    bool ok = make_linear(b, arena, z, &q, &w, e) && gpu_alloc(arena, (uint64_t)z->cols * z->cols * 4, &h, e) &&
              gpu_alloc(arena, (uint64_t)z->rows * z->cols * 4, &work, e);
    if (ok)
        gpu_fill(b->cmd, h, 0); /* becomes the unit matrix */
    ok = ok && ready(b, e);
    if (ok)
        quantize_rtn(b->cmd, &q, w, &b->o->scale_search);
    ok = ok && quantize_gptq(b->cmd, &q, w, h, work, arena, b->o->damp, &b->o->scale_search, &facts, e);
    for (int i = 0; ok && i < LOSSES; i++)
        ok = hessian_loss(b->cmd, &q, w, z->rows, z->cols, h, arena, loss, e);
    free(loss);
    return ok;
}

static bool step(struct bench *b, struct gpu_arena *arena, const struct size *z, struct err *e)
{
    struct qmatrix q;
    struct gpu_view w, h;
    struct gumbel_state s;
    uint64_t bytes = (uint64_t)z->rows * z->cols * 4;
    if (!make_linear(b, arena, z, &q, &w, e) || !gumbel_create(&s, arena, &q, 0, z->rows, e) ||
        !gpu_alloc(arena, bytes, &s.soft, e) || !gpu_alloc(arena, bytes, &s.grad, e) ||
        !gpu_alloc(arena, (uint64_t)max_u64(z->inner, 1) * z->cols * 4, &h, e))
        return false;
    s.o = &b->o->gumbel;
    s.w = w;
    gpu_fill(b->cmd, s.grad, 0);
    gpu_fill(b->cmd, h, FILL);
    gumbel_start(b->cmd, &s);
    if (!ready(b, e))
        return false;
    if (z->inner)
        gpu_gemm(b->cmd, (struct gpu_matrix){s.soft, z->cols}, (struct gpu_matrix){h, z->cols},
                 (struct gpu_matrix){s.grad, z->cols}, z->rows, z->inner, z->cols, 1, 0);
    gumbel_step(b->cmd, &s, 0);
    return true;
}

/* x^T x of a slice's tokens; z->cols wide. */
static bool gram(struct bench *b, struct gpu_arena *arena, const struct size *z, struct err *e)
{
    struct hessian h;
    struct gpu_view x, transposed;
    uint32_t tokens = z->windows * z->model.ctx;
    uint64_t bytes = (uint64_t)tokens * z->cols * 4;
    if (!hessian_create(&h, b->cmd, arena, z->cols, false, e) || !gpu_alloc(arena, bytes, &x, e) ||
        !gpu_alloc(arena, bytes, &transposed, e))
        return false;
    gpu_fill(b->cmd, x, FILL);
    if (!ready(b, e))
        return false;
    hessian_add(b->cmd, h.train, x, tokens, z->cols, 1, transposed);
    return true;
}

/* ---- sizes of slices ---- */

static struct size whole(const struct model *m, uint32_t windows)
{
    return (struct size){.model = *m, .config = *m->cfg, .windows = windows};
}

/* A block of which heads and the feed-forward's middle are cut to about `width`, over windows of `tokens`. */
static struct size cut(const struct size *all, uint32_t tokens, uint32_t width, uint32_t windows)
{
    struct size z = *all;
    struct model_config *c = &z.config;
    uint32_t share = c->num_heads / c->num_kv_heads;
    uint32_t kv = (uint32_t)max_u64(1, width / ((uint64_t)share * c->head_dim));
    c->num_kv_heads = (uint32_t)min_u64(c->num_kv_heads, kv);
    c->num_heads = c->num_kv_heads * share;
    c->intermediate_size = (uint32_t)min_u64(c->intermediate_size, width);
    z.model.ctx = (uint32_t)min_u64(z.model.ctx, tokens);
    z.windows = (uint32_t)min_u64(all->windows, windows);
    return z;
}

static bool is_whole(const struct size *z, const struct size *all)
{
    return z->model.ctx == all->model.ctx && z->windows == all->windows &&
           z->config.num_heads == all->config.num_heads && z->config.intermediate_size == all->config.intermediate_size;
}

/* Both halves, seconds together. */
static bool measure_halves(struct bench *b, const piece run[HALF_COUNT], const struct size *z,
                           struct rates r[HALF_COUNT], double *seconds, struct err *e)
{
    *seconds = 0;
    for (int half = 0; half < HALF_COUNT; half++) {
        double took;
        if (!measure(b, run[half], z, &r[half], &took, e))
            return false;
        *seconds += took;
    }
    return true;
}

/* A window of both halves at full size, of one layer. */
static bool predict_halves(struct bench *b, const piece run[HALF_COUNT], const struct size *all, uint32_t layer,
                           const struct rates r[HALF_COUNT], double seconds[HALF_COUNT], struct err *e)
{
    struct size z = *all;
    z.layer = layer;
    for (int half = 0; half < HALF_COUNT; half++) {
        if (!predict(b, run[half], &z, &r[half], &seconds[half], e))
            return false;
        seconds[half] /= all->windows;
    }
    return true;
}

const struct speed_block *speed_block(const struct speed *s, const struct model *m, uint32_t layer)
{
    for (unsigned i = 0; i < s->n_blocks; i++)
        if (block_shape_same(model_block(m, s->blocks[i].layer), model_block(m, layer)))
            return &s->blocks[i];
    return NULL;
}

/* Forward slices of the first layer, each twice as much work as the one before, until they are long enough; of other
 * layers only the counts are others. */
static bool measure_forward(struct bench *b, struct speed *s, const struct size *all, struct size *slice, struct err *e)
{
    enum { MOST = sizeof s->blocks / sizeof *s->blocks };
    const struct model *m = &all->model;
    struct rates rates[HALF_COUNT];
    double took;
    uint32_t tokens = SLICE_TOKENS, width = SLICE_WIDTH, windows = 1;
    *slice = cut(all, 16, SLICE_WIDTH / 4, 1); /* builds the pipelines */
    bool ok = measure_halves(b, half_forward, slice, rates, &took, e);
    while (ok) {
        *slice = cut(all, tokens, width, windows);
        ok = measure_halves(b, half_forward, slice, rates, &took, e);
        if (took * 1e9 >= 2.0 * SLICE_NS || is_whole(slice, all))
            break;
        if (tokens < m->ctx)
            tokens *= 2;
        else if (width < all->config.num_heads * all->config.head_dim || width < all->config.intermediate_size)
            width *= 2;
        else
            windows *= 2;
    }
    for (uint32_t layer = 0; ok && layer < m->shape.layers && s->n_blocks < MOST; layer++) {
        struct speed_block *of = &s->blocks[s->n_blocks];
        if (speed_block(s, m, layer))
            continue;
        *of = (struct speed_block){.layer = layer};
        ok = predict_halves(b, half_forward, all, layer, rates, of->forward, e);
        s->n_blocks++;
    }
    s->gemm = rates[HALF_FFN].kernel[KERNEL_ID_gemm];
    return ok;
}

static bool measure_backward(struct bench *b, struct speed *s, const struct size *all, const struct size *slice,
                             struct err *e)
{
    struct rates rates[HALF_COUNT];
    double took;
    struct size first = cut(all, 16, SLICE_WIDTH / 4, 1);
    bool ok = measure_halves(b, half_backward, &first, rates, &took, e) &&
              measure_halves(b, half_backward, slice, rates, &took, e);
    for (unsigned i = 0; ok && i < s->n_blocks; i++)
        ok = predict_halves(b, half_backward, all, s->blocks[i].layer, rates, s->blocks[i].backward, e);
    return ok;
}

/* Reading the first rows of a block's largest matrix: the files' speed, and what becomes of them on the way. */
static bool measure_load(struct bench *b, struct speed *s, struct model *m, struct err *e)
{
    const struct block_shape shape = model_block(m, 0);
    const struct block_matrix *of = shape.matrices;
    char module[96];
    struct gpu_view dst;
    for (uint32_t i = 1; i < shape.n; i++)
        if ((uint64_t)shape.matrices[i].rows * shape.matrices[i].cols > (uint64_t)of->rows * of->cols)
            of = &shape.matrices[i];
    block_part_name(of->part, 0, module, sizeof module);
    uint32_t rows = (uint32_t)min_u64(of->rows, max_u64(1, LOAD_WEIGHTS / of->cols));
    bool ok = gpu_alloc(b->arena, (uint64_t)rows * of->cols * 4, &dst, e) && ready(b, e) &&
              model_load_matrix(m, module, 0, rows, dst, e) && gpu_cmd_finish(b->cmd, e);
    s->load = (double)(os_now_ns() - b->begin) * 1e-9 / ((double)rows * of->cols);
    gpu_arena_reset(b->arena, 0);
    return ok;
}

/* ---- linears of a run ---- */

static bool same_linear(const struct speed_linear *l, const struct matrix *i)
{
    return l->rows == i->rows && l->cols == i->cols && l->spec.type == i->spec.type && l->spec.group == i->spec.group;
}

const struct speed_linear *speed_linear(const struct speed *s, const struct matrix *item)
{
    for (unsigned i = 0; i < s->n_linears; i++)
        if (same_linear(&s->linears[i], item))
            return &s->linears[i];
    return NULL;
}

/* Of kernels that work on one linear, rates depend on its type; of the shapes, counts do. */
struct type_rates {
    const struct quant_type *type;
    struct rates rtn, gptq, step;
};

static uint32_t hessian_columns(const struct matrix *i)
{
    uint32_t unit = i->spec.type->super ? i->spec.type->super : i->spec.group;
    return (uint32_t)min_u64(i->cols, max_u64(unit, SLICE_COLS / unit * unit));
}

/* The last time counts: the first builds pipelines. */
static bool measure_type(struct bench *b, const struct size *all, const struct matrix *item, struct type_rates *r,
                         struct err *e)
{
    struct size z = *all;
    double took;
    bool ok = true;
    r->type = item->spec.type;
    z.item = item;
    z.rows = (uint32_t)min_u64(item->rows, max_u64(SLICE_ROWS, SLICE_LINEAR / item->cols));
    for (int round = 0; ok && round < 3; round++) {
        z.cols = item->cols;
        z.inner = (uint32_t)min_u64(item->cols, 2 * SLICE_COLS);
        ok = measure(b, rtn, &z, &r->rtn, &took, e);
        if (ok && b->o->method == METHOD_GSQ)
            ok = measure(b, step, &z, &r->step, &took, e);
        z.cols = hessian_columns(item);
        if (ok && plan_needs_hessian(b->o, item))
            ok = measure(b, gptq, &z, &r->gptq, &took, e);
    }
    return ok;
}

static bool predict_linear(struct bench *b, const struct size *all, const struct matrix *item,
                           const struct type_rates *r, struct speed_linear *l, struct err *e)
{
    struct size z = *all;
    *l = (struct speed_linear){.rows = item->rows, .cols = item->cols, .spec = item->spec};
    z.item = item;
    z.rows = item->rows;
    z.cols = item->cols;
    bool ok = predict(b, rtn, &z, &r->rtn, &l->rtn, e);
    if (ok && plan_needs_hessian(b->o, item))
        ok = predict(b, gptq, &z, &r->gptq, &l->gptq, e);
    if (ok && b->o->method == METHOD_GSQ) {
        ok = predict(b, step, &z, &r->step, &l->joint, e);
        z.inner = z.cols;
        ok = ok && predict(b, step, &z, &r->step, &l->step, e);
    }
    return ok;
}

static bool measure_linears(struct bench *b, struct speed *s, const struct size *all, const struct plan *p,
                            struct err *e)
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
        if (t == n && !measure_type(b, all, item, &types[n++], e))
            return false;
        if (!predict_linear(b, all, item, &types[t], &s->linears[s->n_linears++], e))
            return false;
    }
    return true;
}

static bool measure_hessian(struct bench *b, struct speed *s, const struct size *slice, struct err *e)
{
    struct rates r;
    double took;
    struct size z = *slice;
    bool ok = true;
    z.cols = (uint32_t)min_u64(z.config.hidden_size, 2 * SLICE_COLS);
    for (int round = 0; ok && round < 2; round++)
        ok = measure(b, gram, &z, &r, &took, e);
    double ops = (double)z.windows * z.model.ctx * z.cols * z.cols;
    ok = ok && predict(b, gram, &z, &r, &s->hessian, e);
    s->hessian /= ops;
    return ok;
}

/* ---- rounding of a GGUF's other tensors, on the host ---- */

double speed_rounding(const struct speed *s, const struct gguf_type *type)
{
    for (unsigned i = 0; i < s->n_roundings; i++)
        if (s->roundings[i].type == type)
            return s->roundings[i].seconds;
    return 0;
}

/* Rows of a tensor's width, one after the other, for a few milliseconds. */
static bool measure_rounding(struct speed *s, const struct matrix *t, struct err *e)
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

static bool measure_roundings(struct speed *s, const struct plan *p, struct err *e)
{
    for (size_t i = 0; plan_typed(p) && i < p->n_matrices; i++) {
        const struct matrix *t = &p->matrices[i];
        if (!t->coded && !(speed_rounding(s, t->type) > 0) &&
            s->n_roundings < sizeof s->roundings / sizeof *s->roundings && !measure_rounding(s, t, e))
            return false;
    }
    return true;
}

/* ---- the whole ---- */

static bool begin(struct bench *b, struct model *m, struct err *e)
{
    b->cmd = m->cmd;
    b->gpu = m->gpu;
    b->count = (struct gpu_count){.limit = UINT64_MAX};
    return gpu_arena_create(&b->arena, m->gpu, "measurement", e) &&
           gpu_arena_create_counting(&b->counting, m->gpu, &b->count, e);
}

static bool end(struct bench *b, struct speed *s, bool ok, uint64_t since, struct err *e)
{
    gpu_cmd_profile_enable(b->cmd, false);
    gpu_cmd_finish(b->cmd, NULL);
    gpu_cmd_profile_clear(b->cmd);
    gpu_arena_destroy(&b->arena);
    gpu_arena_destroy(&b->counting);
    s->measured = ok;
    s->seconds = (double)(os_now_ns() - since) * 1e-9;
    if (!ok && e && e->kind == ERR_STOPPED)
        return false;
    return ok || err_context(e, "measuring the device's speed");
}

bool speed_measure_forward(struct speed *s, struct model *m, uint32_t windows, struct err *e)
{
    struct bench b = {0};
    struct size all = whole(m, windows), slice;
    uint64_t since = os_now_ns();
    *s = (struct speed){0};
    bool ok = begin(&b, m, e) && measure_forward(&b, s, &all, &slice, e) && measure_load(&b, s, m, e);
    return end(&b, s, ok, since, e);
}

bool speed_measure(struct speed *s, struct model *m, const struct plan *p, const struct quantize_options *o,
                   struct err *e)
{
    struct bench b = {.o = o};
    bool windows = o->method != METHOD_RTN && !quantize_diagonal(o), block = plan_block_objective(o);
    struct size all = whole(m, (uint32_t)max_u64(1, block ? p->micro_windows : p->batch_windows)), slice = all;
    uint64_t since = os_now_ns();
    *s = (struct speed){0};
    bool ok = begin(&b, m, e) && measure_load(&b, s, m, e) && measure_linears(&b, s, &all, p, e) &&
              measure_roundings(s, p, e);
    if (ok && windows)
        ok = measure_forward(&b, s, &all, &slice, e) && measure_hessian(&b, s, &slice, e) &&
             (!block || measure_backward(&b, s, &all, &slice, e));
    return end(&b, s, ok, since, e);
}

bool speed_count_forward(struct model *m, uint32_t windows, struct gpu_arena *counting, struct err *e)
{
    struct bench b = {.cmd = m->cmd};
    struct size all = whole(m, windows);
    bool ok = true;
    for (int half = 0; ok && half < HALF_COUNT; half++) {
        ok = half_forward[half](&b, counting, &all, e);
        gpu_arena_reset(counting, 0);
    }
    return ok;
}
