#include "host/quant/method/learned_scales.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/pack.h"
#include "host/base/num.h"
#include "host/gpu/tiled.h"
#include "host/quant/method/share.h"

/* No block is loaded. */
#define NONE UINT32_MAX
/* Added to the root of Adam's second moment: below any gradient that means something. */
#define EPS 1e-15f

static uint64_t groups_of(const struct matrix *item)
{
    return item->coded ? (uint64_t)item->rows * quant_row_groups(&item->spec, item->cols) : 0;
}

static uint64_t code_bytes(const struct matrix *item)
{
    return item->coded ? round_up(item->rows * div_up(item->cols, 4) * 4, GPU_ALLOC_ALIGN) : 0;
}

/* Bits that hold a code, and words of a row of them. */
static uint32_t code_bits(const struct quant_type *t)
{
    uint32_t bits = 1;
    while ((quant_type_levels(t) - 1) >> bits)
        bits++;
    return bits;
}

static uint32_t packed_words(const struct matrix *item)
{
    return item->coded ? (uint32_t)div_up((uint64_t)item->cols * code_bits(item->spec.type), 32) : 0;
}

/* Codes of an item from the store, as they are or packed. */
static bool upload_codes(struct learned_scales *s, size_t item, struct gpu_view codes, struct err *e)
{
    struct qlinear q = {0};
    struct qmatrix to = s->entries[item].q;
    to.codes = codes;
    bool ok = s->t->store.linear(s->t->store.ctx, &s->t->items[item], false, &q, e) &&
              qmatrix_upload_codes(s->t->m->cmd, &to, &q, e);
    qlinear_free(&q);
    return ok;
}

static bool upload_packed(struct learned_scales *s, size_t item, struct err *e)
{
    const struct matrix *m = &s->t->items[item];
    const uint32_t words = packed_words(m), bits = code_bits(m->spec.type);
    struct qlinear q = {0};
    uint32_t *packed = calloc((size_t)m->rows * words + 1u, sizeof *packed);
    uint32_t *row = calloc(m->cols + 1u, sizeof *row); /* codes from 0 on */
    bool ok = ((packed && row) || err_nomem(e, "packed codes", ((uint64_t)m->rows * words + m->cols) * 4)) &&
              s->t->store.linear(s->t->store.ctx, m, false, &q, e);
    for (size_t r = 0; ok && r < m->rows; r++) {
        for (uint32_t c = 0; c < m->cols; c++)
            row[c] = quant_type_number(m->spec.type, q.codes[r * m->cols + c]);
        pack_unsigned(row, m->cols, bits, packed + r * words);
    }
    if (ok)
        gpu_upload(s->t->m->cmd, s->entries[item].packed, packed, (uint64_t)m->rows * words * 4);
    qlinear_free(&q);
    free(row);
    free(packed);
    return ok;
}

static void unpack(const struct learned_scales *s, const struct scales_entry *x, const struct matrix *item,
                   struct gpu_view codes)
{
    uint32_t table[TABLE_LEVELS / 4];
    tiled_unpack_codes_levels(s->t->m->cmd,
                              &(struct unpack_codes_args){.packed = x->packed,
                                                          .codes = codes,
                                                          .rows = x->q.rows,
                                                          .cols = x->q.cols,
                                                          .ldp = packed_words(item),
                                                          .ldc = x->q.ldc,
                                                          .bits = code_bits(item->spec.type),
                                                          .lo = (uint32_t)item->spec.type->lo},
                              quant_table(item->spec.type, table));
}

/* As they will be stored; good until s->temp_stored is used again. */
static struct gpu_view rounded_scales(const struct learned_scales *s, const struct scales_entry *x)
{
    struct gpu_cmd *cmd = s->t->m->cmd;
    struct gpu_view scales = gpu_slice(s->temp_stored, 0, x->n * 4ull);
    gpu_copy(cmd, scales, x->scales, x->n * 4ull);
    tiled_round_scales(
        cmd, &(struct round_scales_args){.scales = scales, .n = x->n, .scale_type = (uint32_t)x->q.spec.scale});
    return scales;
}

/* Of the groups, as they are or rounded; good until the next call, or until s->temp is used. */
static struct gpu_view group_scales(const struct learned_scales *s, const struct scales_entry *x, bool rounded)
{
    struct gpu_view stored = rounded ? rounded_scales(s, x) : x->scales;
    if (x->per == 1)
        return stored;
    struct gpu_view scales = gpu_slice(s->temp, 0, (uint64_t)x->n * x->per * 4);
    tiled_scale_rows(s->t->m->cmd, &(struct scale_rows_args){
                                       .x = x->integers, .w = stored, .y = scales, .rows = x->n, .cols = x->per});
    return scales;
}

/* ---- set-up ---- */

static void describe_entry(struct scales_entry *x, const struct matrix *item)
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
static bool alloc_entry(struct scales_entry *x, const struct matrix *item, bool codes, struct gpu_arena *arena,
                        struct err *e)
{
    uint64_t bytes = x->n * 4ull;
    return !x->n || (gpu_alloc(arena, bytes, &x->scales, e) && gpu_alloc(arena, bytes, &x->m, e) &&
                     gpu_alloc(arena, bytes, &x->v, e) && gpu_alloc(arena, bytes, &x->size, e) &&
                     (x->per == 1 || gpu_alloc(arena, groups_of(item) * 4, &x->integers, e)) &&
                     (!codes || gpu_alloc(arena, (uint64_t)item->rows * packed_words(item) * 4, &x->packed, e)));
}

bool learned_scales_alloc(struct learned_scales *s, const struct scales_task *t, struct err *e)
{
    *s = (struct learned_scales){.t = t, .loaded = NONE};
    for (size_t i = 0; i < t->n_items; i++)
        s->most = (uint32_t)max_u64(s->most, t->items[i].place + 1u);
    s->entries = calloc(t->n_items + 1, sizeof *s->entries);
    s->places = calloc(s->most + 1u, sizeof *s->places);
    s->grads = calloc(s->most + 1u, sizeof *s->grads);
    if (!s->entries || !s->places || !s->grads)
        return err_nomem(e, "the scales", t->n_items * sizeof *s->entries);
    s->widest = 4;
    for (size_t i = 0; i < t->n_items; i++) {
        const struct matrix *item = &t->items[i];
        struct scales_place *at = &s->places[item->place];
        describe_entry(&s->entries[i], item);
        s->widest = max_u64(s->widest, groups_of(item) * 4);
        at->code_bytes = max_u64(at->code_bytes, code_bytes(item));
        if (item->coded)
            at->grad_bytes = max_u64(at->grad_bytes, (uint64_t)item->rows * item->cols * 4);
    }
    bool ok = gpu_alloc(t->scratch, s->widest, &s->temp, e) && gpu_alloc(t->scratch, s->widest, &s->temp_stored, e);
    for (uint32_t i = 0; ok && i < s->most; i++) {
        struct scales_place *at = &s->places[i];
        ok = (!at->grad_bytes || gpu_alloc(t->scratch, at->grad_bytes, &at->grad, e)) &&
             (!at->code_bytes || gpu_alloc(t->scratch, at->code_bytes, &at->room, e));
    }
    for (size_t i = 0; ok && i < t->n_items; i++)
        ok = alloc_entry(&s->entries[i], &t->items[i], t->codes_stay, t->scratch, e);
    return ok;
}

/* For what ranks exchange. */
static bool alloc_shared(struct learned_scales *s, struct err *e)
{
    uint64_t room = 1, *sums = calloc(s->most + 1u, sizeof *sums); /* floats */
    bool ok = sums;
    for (size_t i = 0; ok && i < s->t->n_items; i++) {
        const struct matrix *item = &s->t->items[i];
        const struct comm_part own = share_rows(item->rows);
        room = max_u64(room, item->coded ? share_room(item->rows, item->cols) : 0);
        if (item->coded)
            sums[item->place] = max_u64(sums[item->place], (uint64_t)(own.end - own.first) * item->cols);
    }
    s->room = ok ? malloc(room * sizeof *s->room) : NULL;
    ok = s->room;
    for (uint32_t i = 0; ok && i < s->most; i++) {
        s->places[i].sum = malloc((sums[i] + 1) * sizeof *s->places[i].sum);
        ok = s->places[i].sum;
    }
    free(sums);
    return ok || err_nomem(e, "gradients between ranks", room * sizeof *s->room);
}

/* What entries have on the host; codes that stay on the device go there. */
bool learned_scales_create(struct learned_scales *s, struct err *e)
{
    bool ok = true;
    s->host = malloc((size_t)s->widest);
    if (!s->host)
        return err_nomem(e, "the scales of one linear", s->widest);
    if (s->t->shared && comm_size() > 1 && !alloc_shared(s, e))
        return false;
    for (size_t i = 0; ok && i < s->t->n_items; i++) {
        struct scales_entry *x = &s->entries[i];
        uint64_t bytes = x->n * 4ull;
        if (!x->n)
            continue;
        x->best = malloc((size_t)bytes);
        ok = (x->best || err_nomem(e, "scales", bytes)) && (!s->t->codes_stay || upload_packed(s, i, e));
    }
    return ok;
}

void learned_scales_free(struct learned_scales *s)
{
    for (size_t i = 0; s->entries && i < s->t->n_items; i++)
        free(s->entries[i].best);
    for (uint32_t i = 0; s->places && i < s->most; i++)
        free(s->places[i].sum);
    free(s->room);
    free(s->entries);
    free(s->places);
    free(s->grads);
    free(s->host);
    block_weights_free(&s->w);
}

/* ---- scales to and from the host ---- */

/* Of the rate, with super-blocks: d moves all their groups at once. */
#define SUPER_RATE 0.2f

/* The rate is that of 2 bits, whose largest code is 2. Where codes are larger a scale moves the weights
 * further; of a table what counts is how many levels there are. */
static float finest_step(const struct quant_type *t)
{
    int n = (int)quant_type_levels(t), largest = t->levels ? n / 2 : -t->lo > t->hi ? -t->lo : t->hi;
    if (t->scale)
        return 0; /* the next number that a byte holds is further than this pass goes */
    float step = largest > 2 ? 2.0f / (float)largest : 1.0f;
    return t->super ? SUPER_RATE * step : step;
}

/* One linear's start: scales of the store (the last ones, where a done pass is judged), no moments. */
static bool start_linear(struct learned_scales *s, size_t item, bool best, struct err *e)
{
    struct gpu_cmd *cmd = s->t->m->cmd;
    struct scales_entry *x = &s->entries[item];
    struct qlinear q = {0};
    if (!s->t->store.linear(s->t->store.ctx, &s->t->items[item], true, &q, e))
        return false;
    if (best)
        memcpy(x->best, q.scales, x->n * sizeof *x->best);
    for (size_t k = 0; x->per > 1 && k < (size_t)x->n * x->per; k++)
        s->host[k] = q.integers[k];
    if (x->per > 1)
        gpu_upload(cmd, x->integers, s->host, (uint64_t)x->n * x->per * 4);
    float unit = finest_step(q.spec.type);
    gpu_upload(cmd, x->scales, q.scales, x->n * 4ull);
    for (uint32_t k = 0; k < x->n; k++)
        s->host[k] = unit * fabsf(q.scales[k]);
    gpu_upload(cmd, x->size, s->host, x->n * 4ull);
    gpu_fill(cmd, x->m, 0);
    gpu_fill(cmd, x->v, 0);
    qlinear_free(&q);
    return true;
}

bool learned_scales_start(struct learned_scales *s, bool best, struct err *e)
{
    s->loaded = NONE;
    for (size_t i = 0; i < s->t->n_items; i++)
        if (s->entries[i].n && !start_linear(s, i, best, e))
            return false;
    return true;
}

static struct gpu_view part_of(const struct scales_entry *x, enum scales_part part)
{
    return part == SCALES_NOW ? x->scales : part == SCALES_M ? x->m : x->v;
}

const float *learned_scales_pull(void *ctx, size_t item, enum scales_part part, struct err *e)
{
    struct learned_scales *s = ctx;
    const struct scales_entry *x = &s->entries[item];
    if (part == SCALES_BEST)
        return x->best;
    return gpu_download(s->t->m->cmd, part_of(x, part), s->host, x->n * 4ull, e) ? s->host : NULL;
}

bool learned_scales_take_up(struct learned_scales *s, struct err *e)
{
    const struct scales_store *store = &s->t->store;
    for (size_t i = 0; i < s->t->n_items; i++) {
        struct scales_entry *x = &s->entries[i];
        const struct matrix *item = &s->t->items[i];
        if (!x->n)
            continue;
        if (!store->part(store->ctx, item, SCALES_BEST, x->best, e))
            return false;
        for (int part = SCALES_NOW; part < SCALES_PARTS; part++) {
            if (!store->part(store->ctx, item, (enum scales_part)part, s->host, e))
                return false;
            gpu_upload(s->t->m->cmd, part_of(x, (enum scales_part)part), s->host, x->n * 4ull);
        }
    }
    return true;
}

bool learned_scales_keep_best(struct learned_scales *s, struct err *e)
{
    for (size_t i = 0; i < s->t->n_items; i++) {
        const struct scales_entry *x = &s->entries[i];
        if (x->n && !gpu_download(s->t->m->cmd, rounded_scales(s, x), x->best, x->n * 4ull, e))
            return false;
    }
    return true;
}
/* ---- a block ---- */

const struct block_weights *learned_scales_block(struct learned_scales *s, uint32_t layer, bool rounded, struct err *e)
{
    struct gpu_cmd *cmd = s->t->m->cmd;
    const struct block_items b = block_items_of(s->t->items, s->t->n_items, layer);
    if (s->loaded == layer && !rounded)
        return &s->w;
    s->loaded = NONE;
    if (!gpu_cmd_finish(cmd, e)) /* it takes the same memory */
        return NULL;
    gpu_arena_reset(s->t->block, 0);
    if (!model_load_block_frame(s->t->m, layer, s->t->block, &s->w, e))
        return NULL;
    for (uint32_t i = 0; i < b.n; i++) {
        const struct scales_entry *x = &s->entries[b.items[i].number];
        struct scales_place *at = &s->places[i];
        struct qmatrix q = x->q;
        if (!x->n) {
            if (!model_load_matrix(s->t->m, b.items[i].module, 0, b.items[i].rows, s->w.w[i], e))
                return NULL;
            continue;
        }
        q.codes = gpu_slice(at->room, 0, (uint64_t)q.rows * q.ldc * 4);
        if (x->packed.size)
            unpack(s, x, &b.items[i], q.codes);
        else if (!upload_codes(s, b.items[i].number, q.codes, e))
            return NULL;
        at->codes = q.codes;
        q.scales = group_scales(s, x, rounded);
        qmatrix_dequant(cmd, &q, s->w.w[i]);
    }
    s->loaded = rounded ? NONE : layer;
    return &s->w;
}

struct block_grads learned_scales_grads(struct learned_scales *s, uint32_t layer)
{
    const struct block_items b = block_items_of(s->t->items, s->t->n_items, layer);
    for (uint32_t i = 0; i < b.n; i++) {
        bool learns = s->entries[b.items[i].number].n > 0;
        s->grads[i] = learns ? s->places[i].grad : (struct gpu_view){0};
    }
    return (struct block_grads){.w = s->grads};
}

bool learned_scales_sum(struct learned_scales *s, uint32_t layer, unsigned have, bool first, struct err *e)
{
    const struct block_items b = block_items_of(s->t->items, s->t->n_items, layer);
    bool ok = true;
    for (uint32_t i = 0; ok && i < b.n; i++)
        if (s->entries[b.items[i].number].n)
            ok = share_sum(COMM_GRADIENTS, s->t->m->cmd, s->places[i].grad, b.items[i].rows, b.items[i].cols, have,
                           first, s->room, s->places[i].sum, e);
    s->summed = true;
    return ok;
}

/* The gradient of a linear's scales as they are stored, in s->temp or s->temp_stored. */
static bool stored_grad(struct learned_scales *s, const struct scales_entry *x, const struct scales_place *at,
                        struct gpu_view *out, struct err *e)
{
    struct gpu_cmd *cmd = s->t->m->cmd;
    const struct comm_part own = s->summed ? share_rows(x->q.rows) : (struct comm_part){0, x->q.rows};
    const uint32_t rows = own.end - own.first, stored = x->n / x->q.rows; /* scales of a row */
    const uint64_t row = x->q.cols * 4ull, row_stored = stored * 4ull, row_groups = row_stored * x->per,
                   row_codes = x->q.ldc * 4ull;
    struct gpu_view dscales = gpu_slice(s->temp, 0, (uint64_t)x->n * x->per * 4);
    *out = x->per > 1 ? gpu_slice(s->temp_stored, 0, x->n * 4ull) : dscales;
    const enum gpu_part before = gpu_part_begin(cmd, s->parted ? GPU_PART_ROWS : GPU_PART_OWN);
    if (rows) {
        const struct gpu_view grad = gpu_slice(at->grad, own.first * row, rows * row),
                              mine = gpu_slice(dscales, own.first * row_groups, rows * row_groups);
        if (s->summed)
            gpu_upload(cmd, grad, at->sum, rows * row);
        gpu_fill(cmd, mine, 0);
        tiled_scale_grad(
            cmd, &(struct scale_grad_args){.grad = grad,
                                           .codes = gpu_slice(at->codes, own.first * row_codes, rows * row_codes),
                                           .dscales = mine,
                                           .rows = rows,
                                           .cols = x->q.cols,
                                           .group = x->q.spec.group,
                                           .groups = x->q.groups,
                                           .ldc = x->q.ldc,
                                           .offsets = quant_offsets(&x->q.spec)});
        if (x->per > 1)
            tiled_row_dot(cmd,
                          &(struct row_dot_args){.a = mine,
                                                 .b = gpu_slice(x->integers, own.first * row_groups, rows * row_groups),
                                                 .out = gpu_slice(*out, own.first * row_stored, rows * row_stored),
                                                 .rows = rows * stored,
                                                 .cols = x->per});
    }
    gpu_part_end(cmd, before);
    if (!s->summed)
        return true;
    if ((rows && !gpu_download(cmd, gpu_slice(*out, own.first * row_stored, rows * row_stored),
                               s->host + (size_t)own.first * stored, rows * row_stored, e)) ||
        !comm_gather(COMM_GRADIENTS, s->host, x->q.rows, SHARE_ROWS, row_stored, e))
        return false;
    gpu_upload(cmd, *out, s->host, x->n * 4ull);
    return true;
}

bool learned_scales_learn(struct learned_scales *s, uint32_t layer, uint32_t t, float rate, float *const *out,
                          struct err *e)
{
    const struct scales_options *o = &s->t->o->scales;
    struct gpu_cmd *cmd = s->t->m->cmd;
    const struct block_items b = block_items_of(s->t->items, s->t->n_items, layer);
    for (uint32_t i = 0; i < b.n; i++) {
        size_t item = b.items[i].number;
        const struct scales_entry *x = &s->entries[item];
        if (!x->n)
            continue;
        struct gpu_view dstored;
        if (!stored_grad(s, x, &s->places[i], &dstored, e))
            return false;
        if (out) {
            if (!gpu_download(cmd, dstored, out[item], x->n * 4ull, e))
                return false;
            continue;
        }
        tiled_adam_step(cmd, &(struct adam_step_args){.param = x->scales,
                                                      .m = x->m,
                                                      .v = x->v,
                                                      .grad = dstored,
                                                      .size = x->size,
                                                      .n = x->n,
                                                      .lr = rate,
                                                      .beta1 = o->beta1,
                                                      .beta2 = o->beta2,
                                                      .correct1 = (float)(1 / (1 - pow(o->beta1, t + 1.0))),
                                                      .correct2 = (float)(1 / (1 - pow(o->beta2, t + 1.0))),
                                                      .eps = EPS,
                                                      .decay = 0});
        s->loaded = NONE;
    }
    s->summed = false;
    return true;
}
