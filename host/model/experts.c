#include "host/model/experts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "formats/read/tensor_values.h"
#include "host/base/num.h"
#include "host/base/pool.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/kernels.h"
#include "host/gpu/tiled.h"
#include "host/model/block_steps.h"
#include "host/model/router.h"

/* Tokens that go through an expert at a time: a CPU device wants them near its caches, a GPU wants to be full. */
#define TILE_CPU 2048u
#define TILE_GPU 8192u
/* Tokens that a thread routes at once. */
#define ROUTE_TOKENS 256u

enum { GATE, UP, DOWN };

/* ---- room ---- */

static uint32_t widest(const struct model *m)
{
    return (uint32_t)max_u64(m->cfg->hidden_size, max_u64(m->cfg->experts.width, m->cfg->experts.n));
}

/* The first tokens of a text say less than as many from all over it. */
#define SAMPLE_TOKENS 2048u

uint32_t experts_sample_tokens(const struct model *m)
{
    return (uint32_t)max_u64(SAMPLE_TOKENS, 2ull * m->cfg->experts.width);
}

/* Entries of all experts and of a sample of two parts. */
static uint64_t entries(const struct experts *x)
{
    return (uint64_t)x->most * x->m->cfg->experts.used + 2ull * experts_sample_tokens(x->m);
}

static bool create_lists(struct experts *x, struct err *e)
{
    uint64_t n = entries(x);
    x->start = calloc(x->m->cfg->experts.n + 2u, sizeof *x->start);
    x->rows = malloc((size_t)n * sizeof *x->rows);
    x->share = malloc((size_t)n * sizeof *x->share);
    x->ids = malloc((size_t)n * sizeof *x->ids);
    x->weights = malloc((size_t)n * sizeof *x->weights);
    return (x->start && x->rows && x->share && x->ids && x->weights) || err_nomem(e, "the routes of tokens", n * 14);
}

/* Chunks of rows that one binding holds, whole windows. */
static bool create_rows(struct experts *x, struct gpu_arena *arena, struct err *e)
{
    const struct gpu_info *info = gpu_info(x->m->gpu);
    uint64_t hidden = x->m->cfg->hidden_size * 4ull, n = x->m->cfg->experts.n * 4ull, ctx = x->m->ctx;
    uint64_t fit = min_u64(info->max_range, info->max_alloc) / hidden / ctx * ctx;
    if (!fit)
        return err_set(e, ERR_ENV, "a window of hidden states is larger than one buffer of this device");
    x->per_chunk = (uint32_t)min_u64(fit, x->most);
    x->n_chunks = (uint32_t)div_up(x->most, x->per_chunk);
    x->x = calloc(x->n_chunks, sizeof *x->x);
    x->y = calloc(x->n_chunks, sizeof *x->y);
    if (x->beside)
        x->lost = calloc(x->n_chunks, sizeof *x->lost);
    else
        x->z = calloc(x->n_chunks, sizeof *x->z);
    if (!x->x || !x->y || !x->z || (x->beside && !x->lost))
        return err_nomem(e, "the inputs of experts", x->n_chunks * sizeof *x->x);
    bool counts = gpu_cmd_counts(x->m->cmd); /* host memory is not counted */
    for (uint32_t i = 0; i < x->n_chunks; i++) {
        uint64_t rows = min_u64(x->per_chunk, x->most - (uint64_t)i * x->per_chunk);
        struct gpu_arena *to = x->near || counts ? arena : x->host;
        if ((x->near || !counts) &&
            (!gpu_alloc(to, rows * hidden, &x->x[i], e) || !gpu_alloc(to, rows * hidden, &x->y[i], e) ||
             (x->beside && !gpu_alloc(to, rows * hidden, &x->lost[i], e))))
            return false;
        if (!counts && !x->beside && !gpu_alloc(x->host, rows * n, &x->z[i], e))
            return false;
    }
    return true;
}

static bool create_biases(struct experts *x, struct gpu_arena *arena, struct err *e)
{
    const struct model_config *c = x->m->cfg;
    return !(x->m->family->parts & PARTS_GPT_OSS) || (gpu_alloc(arena, c->experts.width * 4ull, &x->bias[GATE], e) &&
                                                      gpu_alloc(arena, c->experts.width * 4ull, &x->bias[UP], e) &&
                                                      gpu_alloc(arena, c->hidden_size * 4ull, &x->bias[DOWN], e));
}

bool experts_create(struct experts *x, struct gpu_arena *arena, struct model *m, uint32_t windows, uint32_t batch,
                    bool near, struct err *e)
{
    const struct model_config *c = m->cfg;
    const struct gpu_info *info = gpu_info(m->gpu);
    uint64_t tokens = (uint64_t)windows * m->ctx, wide = widest(m) * 4ull;
    *x = (struct experts){.m = m, .most = (uint32_t)tokens, .near = near};
    if (tokens * c->experts.used * 4 > info->max_range)
        return err_set(e, ERR_USER, "the routes of %llu tokens are more than one binding of this device holds",
                       (unsigned long long)tokens) &&
               err_hint(e, "use fewer windows: --samples or --windows");
    x->tile = (uint32_t)min_u64(tokens, info->caps & GPU_CAP_CPU ? TILE_CPU : TILE_GPU);
    x->tile = (uint32_t)min_u64(x->tile, max_u64(1, info->max_range / wide));
    uint64_t w = (uint64_t)c->hidden_size * c->experts.width * 4, routes = entries(x) * 4;
    return (gpu_cmd_counts(m->cmd) || gpu_arena_create_host(&x->host, m->gpu, "experts", e)) &&
           create_rows(x, arena, e) && create_lists(x, e) &&
           gpu_alloc(arena, (uint64_t)batch * m->ctx * c->experts.n * 4, &x->z_batch, e) &&
           gpu_alloc(arena, routes, &x->index, e) && gpu_alloc(arena, routes, &x->weight, e) &&
           gpu_alloc(arena, w, &x->w[GATE], e) && gpu_alloc(arena, w, &x->w[UP], e) &&
           gpu_alloc(arena, w, &x->w[DOWN], e) && create_biases(x, arena, e) &&
           gpu_alloc(arena, (uint64_t)x->tile * c->hidden_size * 4, &x->in, e) &&
           gpu_alloc(arena, (uint64_t)x->tile * c->experts.width * 4, &x->gate, e) &&
           gpu_alloc(arena, (uint64_t)x->tile * c->experts.width * 4, &x->up, e) &&
           gpu_alloc(arena, (uint64_t)x->tile * c->hidden_size * 4, &x->out, e);
}

bool experts_create_beside(struct experts *x, const struct experts *first, struct gpu_arena *arena, struct err *e)
{
    struct model *m = first->m;
    const uint64_t routes = entries(first) * 4;
    *x = (struct experts){.m = m,
                          .most = first->most,
                          .near = first->near,
                          .beside = true,
                          .z = first->z,
                          .z_batch = first->z_batch,
                          .tile = first->tile,
                          .in = first->in,
                          .gate = first->gate,
                          .up = first->up};
    memcpy(x->w, first->w, sizeof x->w);
    return (x->near || gpu_cmd_counts(m->cmd) || gpu_arena_create_host(&x->host, m->gpu, "experts", e)) &&
           create_rows(x, arena, e) && create_lists(x, e) && gpu_alloc(arena, routes, &x->index, e) &&
           gpu_alloc(arena, routes, &x->weight, e) && create_biases(x, arena, e) &&
           gpu_alloc(arena, (uint64_t)x->tile * m->cfg->hidden_size * 4, &x->out, e);
}

void experts_free(struct experts *x)
{
    gpu_arena_destroy(&x->host);
    free(x->x);
    free(x->y);
    free(x->lost);
    if (!x->beside)
        free(x->z);
    free(x->start);
    free(x->rows);
    free(x->share);
    free(x->ids);
    free(x->weights);
    *x = (struct experts){0};
}

static void product(struct experts *x, struct gpu_view in, struct gpu_view w, struct gpu_view out, uint32_t rows,
                    uint32_t cols, uint32_t k, bool steering)
{
    gpu_gemm(x->m->cmd, &(struct gpu_product){.a = {in, k},
                                              .b = {w, k},
                                              .c = {out, cols},
                                              .m = rows,
                                              .n = cols,
                                              .k = k,
                                              .alpha = 1,
                                              .use = steering ? GEMM_STEERING : GEMM_EXACT});
}

/* ---- inputs ---- */

void experts_begin(struct experts *x, uint32_t layer)
{
    x->layer = layer;
    x->tokens = 0;
}

/* Tokens first .. first + n - 1 between a dense matrix and chunks. */
static void copy_rows(struct experts *x, const struct gpu_view *chunks, struct gpu_view dense, uint32_t first,
                      uint32_t n, uint64_t row_bytes, bool to_chunks)
{
    for (uint32_t i = 0, count; i < n; i += count) {
        uint32_t chunk = (first + i) / x->per_chunk, at = (first + i) % x->per_chunk;
        count = (uint32_t)min_u64(n - i, x->per_chunk - at);
        struct gpu_view mine = gpu_slice(chunks[chunk], at * row_bytes, count * row_bytes);
        struct gpu_view theirs = gpu_slice(dense, i * row_bytes, count * row_bytes);
        if (to_chunks)
            gpu_copy(x->m->cmd, mine, theirs, mine.size);
        else
            gpu_copy(x->m->cmd, theirs, mine, mine.size);
    }
}

void experts_take(struct experts *x, const struct block_weights *b, const struct block_scratch *s, struct gpu_view h,
                  uint32_t windows)
{
    struct model *m = x->m;
    uint32_t rows = windows * m->ctx, hidden = m->cfg->hidden_size, n = m->cfg->experts.n;
    assert(x->tokens + rows <= x->most);
    block_rmsnorm(m, h, b->fixed[ROLE_FFN_NORM], s->norm, rows, hidden);
    product(x, s->norm, b->fixed[ROLE_ROUTER], x->z_batch, rows, n, hidden, false);
    if (!gpu_cmd_counts(m->cmd)) {
        copy_rows(x, x->x, s->norm, x->tokens, rows, hidden * 4ull, true);
        copy_rows(x, x->z, x->z_batch, x->tokens, rows, n * 4ull, true);
    }
    x->tokens += rows;
}

/* ---- routes ---- */

struct routing {
    struct experts *x;
    const float *bias;
};

static bool route_piece(void *ctx, uint64_t piece, unsigned thread, struct err *e)
{
    const struct routing *r = ctx;
    struct experts *x = r->x;
    const struct expert_config *c = &x->m->cfg->experts;
    uint64_t first = piece * ROUTE_TOKENS, end = min_u64(x->tokens, first + ROUTE_TOKENS);
    double *room = malloc((size_t)c->n * 2 * sizeof *room);
    (void)thread;
    if (!room)
        return err_nomem(e, "the routes of tokens", c->n * 16ull);
    for (uint64_t t = first; t < end; t++) {
        const float *z = (const float *)gpu_host(x->z[t / x->per_chunk]) + t % x->per_chunk * c->n;
        route_token(c, z, r->bias, x->ids + t * c->used, x->weights + t * c->used, room);
    }
    free(room);
    return true;
}

/* NULL where the family's router has none. */
static bool read_bias(const struct experts *x, float **out, struct err *e)
{
    const struct block_part *p;
    char name[96];
    *out = NULL;
    for (uint32_t i = 0; (p = block_part_in(x->m->cfg, x->layer, i)); i++) {
        if (p->role != ROLE_ROUTER_BIAS)
            continue;
        uint32_t n = x->m->cfg->experts.n;
        *out = malloc(n * sizeof **out);
        block_part_name(x->m->cfg, p, x->layer, 0, name, sizeof name);
        return *out ? tensor_read_f32(checkpoint_tensor_find(x->m->ck, name), 0, n, *out, e)
                    : err_nomem(e, "a router's bias", n * sizeof **out);
    }
    return true;
}

/* By expert, tokens ascending within each. */
static void sort(struct experts *x)
{
    const struct expert_config *c = &x->m->cfg->experts;
    const float residual = (float)config_factor(x->m->cfg->residual_scale);
    uint64_t n = (uint64_t)x->tokens * c->used;
    memset(x->start, 0, (c->n + 2u) * sizeof *x->start);
    for (uint64_t i = 0; i < n; i++)
        x->start[x->ids[i] + 2]++;
    for (uint32_t i = 2; i < c->n + 2; i++)
        x->start[i] += x->start[i - 1];
    for (uint64_t i = 0; i < n; i++) {
        uint32_t at = x->start[x->ids[i] + 1]++;
        x->rows[at] = (uint32_t)(i / c->used);
        x->share[at] = x->weights[i] * residual;
    }
}

bool experts_sort(struct experts *x, struct err *e)
{
    struct gpu_cmd *cmd = x->m->cmd;
    float *bias = NULL;
    if (gpu_cmd_counts(cmd))
        return true;
    struct routing r = {.x = x};
    const struct pool_work work = {.n = div_up(x->tokens, ROUTE_TOKENS), .piece = route_piece, .ctx = &r};
    bool ok = gpu_cmd_finish(cmd, e) && read_bias(x, &bias, e);
    r.bias = bias;
    ok = ok && pool_run(&work, e);
    free(bias);
    if (!ok)
        return false;
    sort(x);
    uint64_t bytes = (uint64_t)x->tokens * x->m->cfg->experts.used * 4;
    gpu_upload(cmd, gpu_slice(x->index, 0, bytes), x->rows, bytes);
    gpu_upload(cmd, gpu_slice(x->weight, 0, bytes), x->share, bytes);
    for (uint32_t i = 0; i < x->n_chunks; i++)
        gpu_fill(cmd, x->y[i], 0);
    return true;
}

/* n tokens of first .. end - 1, evenly spaced, as entries from `at` on. */
static void spread(struct experts *x, uint32_t at, uint32_t first, uint32_t end, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        x->rows[at + i] = first + (uint32_t)((uint64_t)i * (end - first) / n);
}

uint32_t experts_sample(struct experts *x, uint32_t end, uint32_t *split)
{
    uint32_t at = x->tokens * x->m->cfg->experts.used, most = experts_sample_tokens(x->m);
    uint32_t first = (uint32_t)min_u64(end, most), second = (uint32_t)min_u64(x->tokens - end, most);
    spread(x, at, 0, end, first);
    spread(x, at + first, end, x->tokens, second);
    x->sample = first + second;
    *split = at + first;
    if (x->sample)
        gpu_upload(x->m->cmd, gpu_slice(x->index, at * 4ull, x->sample * 4ull), x->rows + at, x->sample * 4ull);
    return at;
}

uint32_t experts_inputs(struct experts *x, uint32_t first, uint32_t end, struct gpu_view to)
{
    uint32_t n = (uint32_t)min_u64(x->tile, end - first);
    copy_rows(x, x->x, to, first, n, x->m->cfg->hidden_size * 4ull, false);
    return n;
}

uint32_t experts_tokens(const struct experts *x, uint32_t expert)
{
    return x->start[expert + 1] - x->start[expert];
}

/* ---- one expert ---- */

bool experts_load(struct experts *x, uint32_t expert, struct err *e)
{
    const struct block_shape b = block_expert(model_block(x->m, x->layer), expert);
    bool ok = true;
    for (uint32_t i = 0; ok && i < EXPERT_MATRICES; i++) {
        char name[96];
        block_matrix_name(x->m->cfg, &b.matrices[i], x->layer, name, sizeof name);
        ok = model_load_matrix(x->m, name, 0, b.matrices[i].rows, x->w[i], e);
    }
    return ok && experts_load_biases(x, x->m, expert, e);
}

bool experts_load_biases(struct experts *x, struct model *from, uint32_t expert, struct err *e)
{
    const struct block_shape b = block_expert(model_block(from, x->layer), expert);
    bool ok = true;
    for (uint32_t i = 0; ok && i < EXPERT_MATRICES; i++) {
        char name[96];
        block_matrix_name(from->cfg, &b.matrices[i], x->layer, name, sizeof name);
        ok = !x->bias[i].size || model_load_bias(from, name, b.matrices[i].rows, x->bias[i], e);
    }
    return ok;
}

/* How many entries from `at` on are of one chunk, at most a tile. */
static uint32_t span(const struct experts *x, uint32_t at, uint32_t end)
{
    uint32_t chunk = x->rows[at] / x->per_chunk, n = 1;
    while (n < x->tile && at + n < end && x->rows[at + n] / x->per_chunk == chunk)
        n++;
    return n;
}

static uint32_t chunk_rows(const struct experts *x, uint32_t chunk)
{
    return (uint32_t)min_u64(x->per_chunk, x->most - (uint64_t)chunk * x->per_chunk);
}

void experts_gather_from(struct experts *x, const struct gpu_view *chunks, uint32_t at, uint32_t rows,
                         struct gpu_view to)
{
    const uint32_t chunk = x->rows[at] / x->per_chunk, hidden = x->m->cfg->hidden_size;
    run_gather_rows(x->m->cmd, gpu_items(x->m->cmd, KERNEL_ID_gather_rows, (uint64_t)rows * hidden),
                    &(struct gather_rows_args){.src = chunks[chunk],
                                               .index = x->index,
                                               .dst = to,
                                               .rows = rows,
                                               .cols = hidden,
                                               .at = at,
                                               .row0 = chunk * x->per_chunk,
                                               .src_rows = chunk_rows(x, chunk)});
}

uint32_t experts_gather(struct experts *x, uint32_t at, uint32_t end)
{
    const uint32_t n = span(x, at, end);
    experts_gather_from(x, x->x, at, n, x->in);
    return n;
}

double experts_mean_weight(const struct experts *x)
{
    const uint64_t n = (uint64_t)x->tokens * x->m->cfg->experts.used;
    double sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += x->share[i];
    return x->tokens ? sum / x->tokens : 0;
}

void experts_middle(struct experts *x, const struct gpu_view w[EXPERT_MATRICES], uint32_t rows, bool steering)
{
    uint32_t hidden = x->m->cfg->hidden_size, width = x->m->cfg->experts.width;
    product(x, x->in, w[GATE], x->gate, rows, width, hidden, steering);
    block_add_bias(x->m, x->gate, x->bias[GATE], rows, width);
    product(x, x->in, w[UP], x->up, rows, width, hidden, steering);
    block_add_bias(x->m, x->up, x->bias[UP], rows, width);
    block_glu(x->m, x->gate, x->up, x->gate, rows, width);
}

void experts_down(struct experts *x, const struct gpu_view w[EXPERT_MATRICES], uint32_t rows, bool steering)
{
    product(x, x->gate, w[DOWN], x->out, rows, x->m->cfg->hidden_size, x->m->cfg->experts.width, steering);
    block_add_bias(x->m, x->out, x->bias[DOWN], rows, x->m->cfg->hidden_size);
}

void experts_run(struct experts *x, uint32_t expert, const struct gpu_view w[EXPERT_MATRICES], bool steering)
{
    uint32_t hidden = x->m->cfg->hidden_size, end = x->start[expert + 1];
    for (uint32_t at = x->start[expert], n; at < end; at += n) {
        uint32_t chunk = x->rows[at] / x->per_chunk;
        n = experts_gather(x, at, end);
        experts_middle(x, w, n, steering);
        if (x->seen)
            x->seen(x->seen_ctx, x, expert, n);
        experts_down(x, w, n, steering);
        run_scatter_rows(x->m->cmd, gpu_items(x->m->cmd, KERNEL_ID_scatter_rows, (uint64_t)n * hidden),
                         &(struct scatter_rows_args){.x = x->out,
                                                     .index = x->index,
                                                     .weight = x->weight,
                                                     .y = x->y[chunk],
                                                     .rows = n,
                                                     .cols = hidden,
                                                     .at = at,
                                                     .row0 = chunk * x->per_chunk,
                                                     .src_rows = chunk_rows(x, chunk)});
    }
}

bool experts_all(struct experts *x, bool steering, struct err *e)
{
    bool ok = true;
    for (uint32_t i = 0; ok && i < x->m->cfg->experts.n; i++)
        if (experts_tokens(x, i)) {
            ok = experts_load(x, i, e);
            if (ok)
                experts_run(x, i, x->w, steering);
        }
    return ok;
}

/* ---- outputs ---- */

void experts_put_lost(struct experts *x, struct gpu_view lost, uint32_t first, uint32_t windows)
{
    copy_rows(x, x->lost, lost, first * x->m->ctx, windows * x->m->ctx, x->m->cfg->hidden_size * 4ull, true);
}

void experts_add(struct experts *x, const struct block_scratch *s, struct gpu_view h, uint32_t first, uint32_t windows)
{
    struct model *m = x->m;
    uint32_t rows = windows * m->ctx, hidden = m->cfg->hidden_size;
    copy_rows(x, x->y, s->norm, first * m->ctx, rows, hidden * 4ull, false);
    block_add(m, h, s->norm, rows, hidden);
}
