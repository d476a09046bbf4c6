#include "host/model/sampling.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/num.h"
#include "host/gpu/kernels.h"
#include "host/model/experts.h"
#include "host/model/head.h"

/* Tokens of a segment: keys and values of all lanes grow with it, and so do the passes. */
#define SAMPLING_LENGTH 256u
/* A text's second token, the first that is drawn, is drawn from more even odds: this times the noise. Models are sure of how a text
 * begins, and the rest of a segment follows from it. */
#define FIRST_NOISE 6.0f
/* Of the device's memory, what logits may take beside a head that comes from the host. */
#define LOGITS_PART 32
/* Rows that fill a GPU; more at a time save passes, but no work. */
#define LANES_MOST 4096u

bool sampling_can(const struct model_config *c)
{
    return !c->delta.value_heads;
}

static uint32_t key_columns(const struct model *m)
{
    return m->cfg->num_kv_heads * m->cfg->head_dim;
}

/* Of one layer: keys, or values, of all lanes. */
static uint64_t past_bytes(const struct sampling *s, const struct model *m)
{
    return (uint64_t)s->lanes * s->length * key_columns(m) * 4;
}

/* ---- what a pass works with ---- */

enum { TABLE, TABLE_LOCAL, TABLE_GROWN, TABLES };

struct room {
    const struct sampling *s;
    struct model load,
        step; /* the model, of windows of a segment's length, and of one position; with tables of one row */
    struct gpu_view tables[TABLES], rows[TABLES];
    struct gpu_arena *work, *past, *stay, *block;
    struct block_scratch fwd;
    struct gpu_view x; /* [lanes, hidden] */
    struct gpu_view ids, logits;
    uint32_t logit_rows;
    struct head head;
    struct gpu_view *keys, *values; /* [layers] */
    struct block_weights *stays;    /* [s->stay] */
    struct block_weights loaded;
    struct experts experts;
};

/* A table of one row in place of each that the model has. */
static bool one_row_tables(struct room *r, const struct model *m, struct err *e)
{
    struct gpu_view *const of[2][TABLES] = {
        {&r->load.rope_table, &r->load.rope_local, &r->load.rope_grown},
        {&r->step.rope_table, &r->step.rope_local, &r->step.rope_grown},
    };
    for (int i = 0; i < TABLES; i++) {
        r->tables[i] = *of[0][i];
        if (r->tables[i].size && !gpu_alloc(r->work, r->tables[i].size / m->ctx, &r->rows[i], e))
            return false;
        *of[0][i] = *of[1][i] = r->rows[i];
    }
    return true;
}

static bool alloc_past(struct room *r, uint32_t layers, struct err *e)
{
    const uint64_t bytes = past_bytes(r->s, &r->step);
    r->keys = calloc(layers, sizeof *r->keys);
    r->values = calloc(layers, sizeof *r->values);
    if (!r->keys || !r->values)
        return err_nomem(e, "the list of keys and values", layers * 2 * sizeof *r->keys);
    for (uint32_t i = 0; r->past && i < layers; i++)
        if (!gpu_alloc(r->past, bytes, &r->keys[i], e) || !gpu_alloc(r->past, bytes, &r->values[i], e))
            return false;
    return true;
}

static bool alloc_blocks(struct room *r, uint32_t layers, struct err *e)
{
    r->stays = calloc(r->s->stay + 1u, sizeof *r->stays);
    if (!r->stays)
        return err_nomem(e, "the list of blocks", r->s->stay * sizeof *r->stays);
    for (uint32_t i = 0; i < r->s->stay; i++)
        if (!model_load_block(&r->load, i, r->stay, &r->stays[i], e))
            return false;
    /* While memory is counted: each of the others in turn. */
    for (uint32_t i = r->s->stay; gpu_cmd_counts(r->load.cmd) && i < layers; i++) {
        gpu_arena_reset(r->block, 0);
        if (!model_load_block(&r->load, i, r->block, &r->loaded, e))
            return false;
    }
    return true;
}

/* past NULL: keys and values are not allocated. r stays where it is until room_free. */
static bool room_make(struct room *r, const struct sampling *s, const struct model *m, struct err *e)
{
    const uint32_t lanes = s->lanes;
    const uint64_t row = m->cfg->vocab_size * 4ull;
    r->s = s;
    r->load = r->step = *m;
    r->load.ahead = r->step.ahead = NULL;
    r->load.ctx = s->length;
    r->step.ctx = 1;
    r->logit_rows =
        gpu_tile_rows(m->gpu, row, head_logit_rows(m, s->head_stays, gpu_info(m->gpu)->mem_limit / LOGITS_PART, lanes));
    bool ok = one_row_tables(r, m, e) && block_scratch_create(&r->fwd, r->work, &r->step, lanes, SCRATCH_FORWARD, e) &&
              gpu_alloc(r->work, (uint64_t)lanes * m->cfg->hidden_size * 4, &r->x, e) &&
              gpu_alloc(r->work, lanes * 4ull, &r->ids, e) && gpu_alloc(r->work, r->logit_rows * row, &r->logits, e) &&
              head_create(&r->head, r->work, &r->step, s->head_stays, e) &&
              (!m->cfg->experts.n || experts_create(&r->experts, r->work, &r->step, lanes, lanes, true, e));
    r->fwd.steering = true;
    return ok && alloc_past(r, m->cfg->num_layers, e) && alloc_blocks(r, m->cfg->num_layers, e);
}

static void room_free(struct room *r)
{
    experts_free(&r->experts);
    for (uint32_t i = 0; r->stays && i < r->s->stay; i++)
        block_weights_free(&r->stays[i]);
    block_weights_free(&r->loaded);
    free(r->stays);
    free(r->keys);
    free(r->values);
    gpu_arena_destroy(&r->block);
    gpu_arena_destroy(&r->stay);
    gpu_arena_destroy(&r->past);
    gpu_arena_destroy(&r->work);
}

/* ---- sizes ---- */

/* Whether the device has room for it; how much it takes. */
static bool fits(struct sampling *s, const struct model *m, uint64_t limit, struct err *e)
{
    struct gpu_count count = {.used = gpu_memory_used(m->gpu), .limit = limit};
    struct room r = {0};
    count.peak = count.used;
    gpu_cmd_count(m->cmd, GPU_COUNT_MEMORY);
    bool ok = gpu_arena_create_counting(&r.work, m->gpu, &count, e) &&
              (s->far || gpu_arena_create_counting(&r.past, m->gpu, &count, e)) &&
              gpu_arena_create_counting(&r.stay, m->gpu, &count, e) &&
              gpu_arena_create_counting(&r.block, m->gpu, &count, e) && room_make(&r, s, m, e);
    s->device_bytes = count.peak;
    if (ok) {
        s->past_bytes = r.past ? gpu_arena_bytes(r.past) : 0;
        s->weight_bytes = gpu_arena_bytes(r.stay) + gpu_arena_bytes(r.block);
    }
    room_free(&r);
    gpu_cmd_count(m->cmd, GPU_COUNT_NOTHING);
    gpu_cmd_profile_clear(m->cmd);
    return ok;
}

struct fitting {
    struct sampling *s;
    const struct model *m;
    uint64_t limit;
};

static bool stay_fits(void *ctx, uint32_t blocks)
{
    struct fitting *f = ctx;
    f->s->stay = blocks;
    return fits(f->s, f->m, f->limit, NULL);
}

static uint32_t groups(const struct sampling *s)
{
    return (uint32_t)div_up(s->segments, s->lanes);
}

/* What moves between host and device in all passes: blocks that do not stay, keys and values that are not on the device; and a
 * little for each pass. */
static double traffic(const struct sampling *s, const struct model *m)
{
    double bytes = 1e6;
    for (uint32_t layer = s->stay; layer < m->cfg->num_layers; layer++)
        bytes += 2 * (model_block_products(m, layer) + model_expert_products(m, layer));
    if (s->far)
        bytes += (double)past_bytes(s, m) * m->cfg->num_layers;
    return bytes * groups(s);
}

/* With as many lanes as mean the least traffic; false: not even one has room. */
static bool size_lanes(struct sampling *s, const struct model *m, uint64_t limit, uint64_t host, struct err *e)
{
    const uint32_t layers = m->cfg->num_layers;
    const uint64_t one = past_bytes(&(struct sampling){.lanes = 1, .length = s->length}, m),
                   range = min_u64(gpu_info(m->gpu)->max_range, gpu_info(m->gpu)->max_alloc);
    uint64_t most = min_u64(min_u64(s->segments, LANES_MOST), range / one);
    struct sampling best = {0};
    if (s->far)
        most = min_u64(most, host / (one * 2 * layers));
    for (uint32_t n = 1; most && n <= s->segments; n += n < 4 ? 1 : n / 2) {
        s->lanes = (uint32_t)div_up(s->segments, n);
        s->stay = 0;
        if (s->lanes > most || !fits(s, m, limit, e))
            continue;
        s->stay = most_that_fits(layers, stay_fits, &(struct fitting){s, m, limit});
        if (!best.lanes || traffic(s, m) < traffic(&best, m))
            best = *s;
        if (s->stay == layers)
            break;
    }
    *s = best;
    return best.lanes && fits(s, m, limit, e);
}

bool sampling_size(struct sampling *s, struct model *m, uint64_t tokens, uint64_t limit, uint64_t host, struct err *e)
{
    struct sampling way = {.length = (uint32_t)min_u64(m->ctx, SAMPLING_LENGTH)};
    *s = (struct sampling){0};
    way.segments = (uint32_t)div_up(tokens, way.length);
    for (int head = head_stays(m); !s->lanes && head >= 0; head--)
        for (int far = 0; far < 2; far++) {
            struct sampling x = way;
            x.head_stays = head;
            x.far = far;
            if (size_lanes(&x, m, limit, host, e) && (!s->lanes || traffic(&x, m) < traffic(s, m)))
                *s = x;
        }
    if (!s->lanes)
        return false;
    s->host_bytes = s->far ? past_bytes(s, m) * 2 * m->cfg->num_layers : 0;
    return true;
}

uint32_t sampling_passes(const struct sampling *s)
{
    return groups(s) * (s->length - 1);
}

/* ---- the passes ---- */

static bool layer_step(struct room *r, uint32_t layer, uint32_t n, uint32_t at, struct err *e)
{
    struct model *m = &r->step;
    struct block_weights *b = layer < r->s->stay ? &r->stays[layer] : &r->loaded;
    if (layer >= r->s->stay) { /* in the memory of the one before, when the device has ended with that */
        if (!gpu_cmd_finish(m->cmd, e))
            return false;
        gpu_arena_reset(r->block, 0);
        if (!model_load_block(&r->load, layer, r->block, b, e))
            return false;
    }
    r->fwd.past = (struct attn_past){r->keys[layer], r->values[layer], at};
    block_attn_fwd(m, b, &r->fwd, r->x, r->x, n);
    bool experts = config_has_experts(m->cfg, layer);
    if (experts) {
        experts_begin(&r->experts, layer);
        experts_take(&r->experts, b, &r->fwd, r->x, n);
    }
    if (block_has_half(b->shape, HALF_FFN))
        block_ffn_fwd(m, b, &r->fwd, r->x, r->x, n);
    if (experts) {
        if (!experts_sort(&r->experts, e) || !experts_all(&r->experts, true, e))
            return false;
        experts_add(&r->experts, &r->fwd, r->x, 0, n);
    }
    return true;
}

/* The next token of segments first .. first + n - 1, whose tokens at position `at` are in ids. */
static bool pass(struct room *r, uint32_t first, uint32_t n, uint32_t at, uint32_t seed, uint32_t *ids, struct err *e)
{
    struct model *m = &r->step;
    const uint32_t hidden = m->cfg->hidden_size, vocab = m->cfg->vocab_size;
    if (!model_embed(m, ids, n, NULL, r->x, e))
        return false;
    for (int i = 0; i < TABLES; i++)
        if (r->rows[i].size)
            gpu_copy(m->cmd, r->rows[i], gpu_slice(r->tables[i], at * r->rows[i].size, r->rows[i].size),
                     r->rows[i].size);
    for (uint32_t layer = 0; layer < m->cfg->num_layers; layer++)
        if (!layer_step(r, layer, n, at, e))
            return false;
    block_rmsnorm(m, r->x, m->final_norm, r->fwd.norm, n, hidden);
    for (uint32_t row = 0; row < n; row += r->logit_rows) {
        uint32_t rows = (uint32_t)min_u64(r->logit_rows, n - row);
        struct gpu_grid grid = gpu_rows(rows);
        grid.work = (double)rows * vocab;
        if (!head_logits(&r->head, gpu_slice(r->fwd.norm, (uint64_t)row * hidden * 4, (uint64_t)rows * hidden * 4),
                         rows, true, r->logits, e))
            return false;
        run_draw(m->cmd, grid,
                 &(struct draw_args){.logits = r->logits,
                                     .ids = gpu_slice(r->ids, row * 4ull, rows * 4ull),
                                     .rows = rows,
                                     .cols = vocab,
                                     .factor = at ? 1 : FIRST_NOISE,
                                     .row0 = first + row,
                                     .step = at,
                                     .seed = seed});
    }
    return gpu_download(m->cmd, gpu_slice(r->ids, 0, n * 4ull), ids, n * 4ull, e);
}

/* Any token of the vocabulary: the upper half of a product with a hash of the segment's number. */
static uint32_t any_token(uint32_t segment, uint32_t seed, uint32_t vocab)
{
    uint32_t h = segment * 0x9e3779b9u ^ seed;
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return (uint32_t)(((uint64_t)(h ^ h >> 16) * vocab) >> 32);
}

struct writing {
    struct room room;
    uint32_t *ids, *column;
    int64_t start;
    uint32_t seed;
    const struct sampling_hooks *hooks;
};

/* Segments first .. first + n - 1. What follows an end of text begins anew. */
static bool write_group(struct writing *w, uint32_t first, uint32_t n, struct err *e)
{
    const struct sampling *s = w->room.s;
    const struct model_config *c = w->room.step.cfg;
    const uint32_t passes = sampling_passes(s), before = first / s->lanes * (s->length - 1);
    uint32_t *ids = w->ids + (size_t)first * s->length;
    for (uint32_t i = 0; i < n; i++)
        w->column[i] = ids[(size_t)i * s->length] =
            w->start >= 0 ? (uint32_t)w->start : any_token(first + i, w->seed, c->vocab_size);
    for (uint32_t at = 0; at + 1 < s->length; at++) {
        if (!pass(&w->room, first, n, at, w->seed, w->column, e))
            return false;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t *to = ids + (size_t)i * s->length + at;
            bool ended = at && c->eos_id >= 0 && to[0] == (uint32_t)c->eos_id && w->start >= 0;
            to[1] = w->column[i] = ended ? (uint32_t)w->start : w->column[i];
        }
        if (w->hooks->passed && !w->hooks->passed(w->hooks->ctx, before + at + 1, passes))
            return err_set(e, ERR_STOPPED, "stopped");
    }
    return true;
}

bool sampling_run(const struct sampling *s, struct model *m, int64_t start, uint32_t seed, uint32_t *ids, uint32_t done,
                  const struct sampling_hooks *hooks, struct err *e)
{
    static const struct sampling_hooks none;
    struct writing *w = calloc(1, sizeof *w);
    uint32_t *column = malloc(s->lanes * sizeof *column);
    bool ok = (w && column) || err_nomem(e, "tokens", s->lanes * sizeof *column);
    if (ok) {
        struct room *r = &w->room;
        *w = (struct writing){
            .ids = ids, .column = column, .start = start, .seed = seed, .hooks = hooks ? hooks : &none};
        r->s = s;
        ok = gpu_arena_create(&r->work, m->gpu, "sampling", e) &&
             (s->far ? gpu_arena_create_host(&r->past, m->gpu, "keys and values", e)
                     : gpu_arena_create(&r->past, m->gpu, "keys and values", e)) &&
             gpu_arena_create(&r->stay, m->gpu, "blocks", e) && gpu_arena_create(&r->block, m->gpu, "block", e) &&
             room_make(r, s, m, e);
        for (uint32_t at = done; ok && at < s->segments; at += s->lanes) {
            uint32_t n = (uint32_t)min_u64(s->lanes, s->segments - at);
            ok = write_group(w, at, n, e) && (!w->hooks->save || w->hooks->save(w->hooks->ctx, ids, at + n, e));
        }
        ok = gpu_cmd_finish(m->cmd, ok ? e : NULL) && ok;
        room_free(r);
    }
    free(column);
    free(w);
    return ok;
}
