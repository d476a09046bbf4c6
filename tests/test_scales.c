/* The last pass over scales: its gradient against the reference, what it learns, that it repeats and resumes.
 */
#include "tests/device.h"
#include "tests/family_model.h"

#include <math.h>

#include "host/model/block_fwd.h"
#include "host/model/head.h"
#include "host/quant/method/tune_scales.h"
#include "host/quant/plan.h"
#include "host/quant/store/store.h"

#define DIR_ "tmp_scales"
#include "tests/scratch_dir.h"

#define MODEL DIR_ "/model"
#define PLAIN DIR_ "/plain"
#define WORK  DIR_ "/work"

enum { CTX = 12, SAMPLES = 10, HOLDOUT = 4, GROUP = 16, MOST_ITEMS = 4 * REF_LINEARS };

/* A quantized tiny model in front of the pass. */
struct rig {
    const struct shape *shape;
    bool supers; /* o and down are Q3_K and Q2_K, of 256 columns each */
    struct shape wide;
    struct raw_model raw;
    struct checkpoint *ck, *plain; /* plain: without a wider last block, where it has one */
    struct model *m;
    struct quantize_options o;
    struct plan plan;
    struct matrix items[MOST_ITEMS];
    struct qlinear q[MOST_ITEMS];
    struct windows windows;
    uint32_t ids[SAMPLES * CTX];
    struct store *store;
    struct acts *targets;
    struct gpu_arena *block, *scratch;
};

/* 3 bits, q_proj of the last block kept in 16. */
static void make_items(struct rig *r)
{
    struct plan *p = &r->plan;
    *p = (struct plan){.items = r->items,
                       .n_items = r->shape->layers * (size_t)REF_LINEARS,
                       .n_layers = r->shape->layers,
                       .ctx = CTX,
                       .samples = SAMPLES,
                       .holdout = HOLDOUT,
                       .scale_micro = 2};
    for (size_t i = 0; i < p->n_items; i++) {
        struct matrix *item = &r->items[i];
        *item = (struct matrix){.layer = (uint32_t)(i / REF_LINEARS),
                                .place = (uint32_t)(i % REF_LINEARS),
                                .number = (uint32_t)i,
                                .part = r->m->shape.matrices[i].part,
                                .coded = i != p->n_items - REF_LINEARS,
                                .spec = {quant_type_find("3"), GROUP, SCALE_F16}};
        item->rows = r->m->shape.matrices[i].rows;
        item->cols = r->m->shape.matrices[i].cols;
        block_part_name(&(struct model_config){0}, item->part, item->layer, 0, item->module, sizeof item->module);
        if (r->supers && item->cols == 256) {
            const struct quant_type *type = quant_type_find(item->place == REF_DOWN ? "Q2_K" : "Q3_K");
            item->spec = (struct quant_spec){type, type->group, SCALE_F16};
        }
    }
}

/* A step of few bits: a share of it more or less is a half, too. */
static float short_step(float v)
{
    int exponent;
    float m = frexpf(v, &exponent);
    return ldexpf(roundf(m * 8) / 8, exponent);
}

/* One row of a type with super-blocks, as many columns as one has. Scales and offsets a quarter too small. */
static void quantize_super(struct qlinear *q, uint32_t row, const float *w)
{
    const struct quant_type *t = q->spec.type;
    uint32_t per = t->super / t->group, planes = quant_type_planes(t);
    float *scales = q->scales + (size_t)row * planes, s[16], o[16], most[2] = {0};
    int8_t *integers = q->integers + (size_t)row * planes * per;
    assert_int_equal(q->groups, per);
    for (uint32_t g = 0; g < per; g++) {
        float low = 0, high = 0;
        for (uint32_t c = g * t->group; c < (g + 1) * t->group; c++) {
            low = fminf(low, w[c]);
            high = fmaxf(high, w[c]);
        }
        s[g] = planes > 1 ? (high - low) / 3 : fmaxf(-low, high) / 4 * (g % 3 ? 1.0f : -1.0f);
        o[g] = planes > 1 ? -low : 0;
        most[0] = fmaxf(most[0], fabsf(s[g]));
        most[1] = fmaxf(most[1], o[g]);
    }
    float d = short_step(most[0] / (float)t->scale_hi), dmin = short_step(most[1] / 15);
    for (uint32_t g = 0; g < per; g++) {
        float k = fminf(fmaxf(roundf(s[g] / d), (float)t->scale_lo), (float)t->scale_hi);
        float m = dmin > 0 ? fminf(roundf(o[g] / dmin), 15) : 0;
        for (uint32_t c = g * t->group; c < (g + 1) * t->group; c++) {
            float code = k == 0 ? 0 : roundf((w[c] + m * dmin) / (k * d));
            q->codes[(size_t)row * q->cols + c] = (int8_t)fmaxf((float)t->lo, fminf((float)t->hi, code));
        }
        integers[g] = (int8_t)k;
        if (planes > 1)
            integers[per + g] = (int8_t)m;
    }
    scales[0] = d * 0.75f;
    if (planes > 1)
        scales[1] = -dmin * 0.75f;
}

/* Rounded to the nearest code; scales a third too small, so that there is something to learn. */
static void quantize_item(const struct rig *r, const struct matrix *item, struct qlinear *q)
{
    struct err e = {0};
    char name[128];
    struct family_numbers f;
    snprintf(name, sizeof name, "%s.weight", item->module);
    family_numbers(&f, &r->raw, r->shape);
    const float *w = number_of(&f, &r->raw, name);
    OK(qlinear_init(q, item->rows, item->cols, item->spec, &e), e);
    for (uint32_t row = 0; q->spec.type->super && row < q->rows; row++)
        quantize_super(q, row, w + (size_t)row * q->cols);
    for (uint32_t row = 0; !q->spec.type->super && row < q->rows; row++)
        for (uint32_t g = 0; g < q->groups; g++) {
            float most = 0;
            uint32_t end = (uint32_t)min_u64((g + 1) * GROUP, q->cols);
            for (uint32_t c = g * GROUP; c < end; c++)
                most = fmaxf(most, fabsf(w[(size_t)row * q->cols + c]));
            float scale = scale_round(SCALE_F16, (g + row) % 5 ? most / 4 : -most / 4);
            for (uint32_t c = g * GROUP; c < end; c++) {
                float code = roundf(w[(size_t)row * q->cols + c] / scale);
                q->codes[(size_t)row * q->cols + c] = (int8_t)fmaxf(q->spec.type->lo, fminf(q->spec.type->hi, code));
            }
            q->scales[(size_t)row * q->groups + g] = scale_round(SCALE_F16, scale * 0.7f);
        }
    family_numbers_free(&f);
}

static void write_store(struct rig *r)
{
    struct err e = {0};
    const struct store_field field = {"test", "scales"};
    static const struct linear_report reports[REF_LINEARS];
    static const struct stage_report stages[2];
    os_remove_tree(WORK);
    OK(store_open(&r->store, WORK, &field, 1, NULL, &e), e);
    for (uint32_t l = 0; l < r->plan.n_layers; l++) {
        struct block_items b = plan_block(&r->plan, l);
        OK(store_write_block(r->store, l, b, r->q + b.items[0].number, reports, stages, &e), e);
    }
}

/* The 16-bit model's hidden states behind its last block. */
static void make_targets(struct rig *r)
{
    struct err e = {0};
    struct block_scratch s;
    struct gpu_view staging = {0};
    const struct acts_options room = {.device_bytes = 1 << 24};
    OK(block_scratch_create(&s, r->scratch, r->m, SAMPLES, SCRATCH_FORWARD, &e), e);
    OK(gpu_alloc(r->scratch, acts_bytes(r->m, SAMPLES), &staging, &e), e);
    OK(acts_create(&r->targets, r->m, SAMPLES, &room, &e), e);
    OK(acts_embed(r->targets, &r->windows, NULL, SAMPLES, staging, &e), e);
    for (uint32_t l = 0; l < r->plan.n_layers; l++) {
        struct block_weights w = {0};
        struct gpu_view x;
        OK(model_load_block(r->m, l, r->block, &w, &e), e);
        OK(acts_get(r->targets, 0, SAMPLES, staging, &x, &e), e);
        block_attn_fwd(r->m, &w, &s, x, x, SAMPLES);
        block_ffn_fwd(r->m, &w, &s, x, x, SAMPLES);
        OK(acts_put(r->targets, 0, SAMPLES, x, &e), e);
        OK(gpu_cmd_finish(cmd, &e), e);
        gpu_arena_reset(r->block, 0);
        block_weights_free(&w);
    }
    gpu_arena_reset(r->scratch, 0);
}

/* wide: intermediate size of the last block, 0: as the others. */
static void rig_make_of(struct rig *r, const char *shape, bool supers, uint32_t wide)
{
    struct err e = {0};
    uint32_t seed = 5;
    *r = (struct rig){.shape = shape_named(shape), .supers = supers};
    if (supers) {
        r->wide = *r->shape;
        r->wide.c.intermediate = 256;
        r->wide.c.heads = r->wide.c.kv_heads = 8;
        r->wide.c.head_dim = 32;
        r->shape = &r->wide;
    }
    OK(os_mkdirs(DIR_, &e), e);
    if (wide) {
        family_write(PLAIN, r->shape, &r->raw);
        raw_free(&r->raw);
        OK(checkpoint_open(&r->plain, PLAIN, &e), e);
        r->wide = *r->shape;
        r->wide.wide = wide;
        r->shape = &r->wide;
    }
    family_write(MODEL, r->shape, &r->raw);
    OK(checkpoint_open(&r->ck, MODEL, &e), e);
    if (wide)
        family_open_wide(&r->m, cmd, r->plain, r->ck, r->shape, CTX);
    else
        OK(model_open(&r->m, cmd, r->ck, CTX, &e), e);
    OK(gpu_arena_create(&r->block, gpu, "block", &e), e);
    OK(gpu_arena_create(&r->scratch, gpu, "scratch", &e), e);
    quantize_defaults(&r->o);
    r->o.scales =
        (struct scales_options){.epochs = 6, .batch = 3, .lr = 0.05f, .lr_end = 0.1f, .beta1 = 0.9f, .beta2 = 0.95f};
    for (uint32_t i = 0; i < SAMPLES * CTX; i++)
        r->ids[i] = tiny_random(&seed) % r->shape->c.vocab;
    r->windows = (struct windows){.ids = r->ids, .n = SAMPLES, .ctx = CTX};
    make_items(r);
    for (size_t i = 0; i < r->plan.n_items; i++)
        if (r->items[i].coded)
            quantize_item(r, &r->items[i], &r->q[i]);
    write_store(r);
    make_targets(r);
}

static void rig_make(struct rig *r, const char *shape)
{
    rig_make_of(r, shape, false, 0);
}

static void rig_free(struct rig *r)
{
    acts_destroy(&r->targets);
    gpu_arena_destroy(&r->block);
    gpu_arena_destroy(&r->scratch);
    store_close(&r->store);
    for (size_t i = 0; i < r->plan.n_items; i++)
        qlinear_free(&r->q[i]);
    model_close(&r->m);
    checkpoint_close(&r->ck);
    checkpoint_close(&r->plain);
    raw_free(&r->raw);
}

static struct scales_task task_of(struct rig *r, const struct tune_hooks *hooks)
{
    return (struct scales_task){.m = r->m,
                                .o = &r->o,
                                .items = r->items,
                                .n_items = r->plan.n_items,
                                .samples = SAMPLES,
                                .holdout = HOLDOUT,
                                .micro = r->plan.scale_micro,
                                .windows = &r->windows,
                                .targets = r->targets,
                                .store = store_for_scales(r->store, &r->plan),
                                .block = r->block,
                                .scratch = r->scratch,
                                .codes_stay = true,
                                .room = {.device_bytes = 1 << 24},
                                .hooks = hooks};
}

/* ---- the gradient ---- */

/* In double: log p of every position by the 16-bit model, and the student's weights. */
struct truth {
    struct ref_config c;
    struct family_numbers f;
    struct ref_block student[4];
    float *w[MOST_ITEMS]; /* codes * scales */
    uint32_t windows;
    uint32_t *ids;
    double *teacher, *x, *p;
};

static void run_reference(const struct truth *t, const struct shape *s, const struct ref_block *blocks, double *x)
{
    family_embed(&t->f, s, t->ids, (size_t)t->windows * CTX, x);
    for (uint32_t l = 0; l < s->layers; l++) {
        uint32_t rows[REF_LINEARS], cols[REF_LINEARS];
        struct ref_config c = t->c;
        block_sizes(s, l, rows, cols);
        c.intermediate = rows[REF_GATE];
        assert_true(ref_block_forward(&c, &blocks[l], t->windows, x, NULL, x));
    }
}

static double divergence(const struct truth *t, const struct shape *s)
{
    size_t tokens = (size_t)t->windows * CTX;
    double sum = 0;
    run_reference(t, s, t->student, t->x);
    for (size_t i = 0; i < tokens; i++) {
        const double *p = t->teacher + i * t->c.vocab;
        ref_log_probs(&t->c, t->f.final_norm, t->f.head, t->x + i * t->c.hidden, t->p);
        for (uint32_t v = 0; v < t->c.vocab; v++)
            sum += exp(p[v]) * (p[v] - t->p[v]);
    }
    return sum / (double)tokens;
}

static void set_weights(const struct rig *r, struct truth *t, size_t item)
{
    const struct qlinear *q = &r->q[item];
    for (size_t i = 0; i < (size_t)q->rows * q->cols; i++)
        t->w[item][i] = (float)q->codes[i] * q->scales[i / q->cols * q->groups + i % q->cols / GROUP];
}

static void truth_make(struct truth *t, const struct rig *r, const uint32_t *list, uint32_t n)
{
    const struct shape *s = r->shape;
    size_t tokens = (size_t)n * CTX;
    *t = (struct truth){.c = s->c, .windows = n};
    t->c.ctx = CTX;
    family_numbers(&t->f, &r->raw, s);
    t->ids = malloc(tokens * sizeof *t->ids);
    t->x = malloc(tokens * s->c.hidden * sizeof *t->x);
    t->teacher = malloc(tokens * s->c.vocab * sizeof *t->teacher);
    t->p = malloc(s->c.vocab * sizeof *t->p);
    assert_true(t->ids && t->x && t->teacher && t->p);
    for (uint32_t i = 0; i < n; i++)
        memcpy(t->ids + (size_t)i * CTX, r->ids + (size_t)list[i] * CTX, CTX * sizeof *t->ids);
    run_reference(t, s, t->f.blocks, t->x);
    for (size_t i = 0; i < tokens; i++)
        ref_log_probs(&t->c, t->f.final_norm, t->f.head, t->x + i * s->c.hidden, t->teacher + i * s->c.vocab);
    memcpy(t->student, t->f.blocks, sizeof t->student);
    for (size_t i = 0; i < r->plan.n_items; i++) {
        if (!r->items[i].coded)
            continue;
        t->w[i] = malloc((size_t)r->items[i].rows * r->items[i].cols * sizeof(float));
        assert_non_null(t->w[i]);
        set_weights(r, t, i);
        t->student[i / REF_LINEARS].w[i % REF_LINEARS] = t->w[i];
    }
}

static void truth_free(struct truth *t)
{
    for (size_t i = 0; i < MOST_ITEMS; i++)
        free(t->w[i]);
    family_numbers_free(&t->f);
    free(t->ids);
    free(t->x);
    free(t->teacher);
    free(t->p);
}

/* A few scales of every linear, by central differences. */
static void check_item(struct rig *r, struct truth *t, size_t item, const float *grad)
{
    struct qlinear *q = &r->q[item];
    uint32_t n = q->rows * q->groups;
    double most = 0;
    for (uint32_t i = 0; i < n; i++)
        most = fmax(most, fabs(grad[i]));
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t at = i == 0 ? 0 : i == 3 ? n - 1 : (uint32_t)((i * 7919u + item * 104729u) % n);
        /* Powers of two: codes times scales stay as exact as they can be in single precision. */
        float was = q->scales[at], step = ldexpf(1, -9) * fabsf(was);
        double loss[2];
        for (int side = 0; side < 2; side++) {
            q->scales[at] = was + (side ? step : -step);
            set_weights(r, t, item);
            loss[side] = divergence(t, r->shape);
        }
        q->scales[at] = was;
        set_weights(r, t, item);
        double expected = (loss[1] - loss[0]) / (2.0 * (double)step);
        if (!(fabs(grad[at] - expected) <= 1e-3 * fmax(fabs(expected), 0.1 * most)))
            fail_msg("%s, scale %u: gradient %g, by differences %g (largest %g)", r->items[item].module, at,
                     (double)grad[at], expected, most);
    }
}

/* What is counted is what the pass takes of an arena of its own. */
static void check_count(const struct scales_task *task)
{
    static const uint32_t list[1] = {1};
    struct err e = {0};
    struct gpu_count count = {.limit = gpu_info(gpu)->mem_limit};
    struct scales_task t = *task;
    float *grads[MOST_ITEMS] = {0};
    double loss;
    t.scratch = NULL;
    gpu_cmd_count(cmd, GPU_COUNT_MEMORY);
    OK(gpu_arena_create_counting(&t.scratch, gpu, &count, &e) && tune_scales_count(&t, &e), e);
    gpu_cmd_count(cmd, GPU_COUNT_NOTHING);
    gpu_arena_destroy(&t.scratch);
    for (size_t i = 0; i < t.n_items; i++)
        if (t.items[i].coded)
            grads[i] = calloc((size_t)t.items[i].rows * t.items[i].cols, sizeof(float));
    OK(gpu_arena_create(&t.scratch, gpu, "own", &e), e);
    OK(tune_scales_gradient(&t, list, 1, &loss, (float *const *)grads, &e), e);
    assert_int_equal(count.peak, gpu_arena_bytes(t.scratch));
    gpu_arena_destroy(&t.scratch);
    for (size_t i = 0; i < t.n_items; i++)
        free(grads[i]);
}

static void check_gradient(const char *shape, uint32_t wide, uint64_t device_bytes)
{
    static const uint32_t list[3] = {4, 1, 2};
    struct err e = {0};
    struct rig r;
    struct truth t;
    float *grads[MOST_ITEMS] = {0};
    double loss;
    rig_make_of(&r, shape, false, wide);
    struct scales_task task = task_of(&r, NULL);
    task.codes_stay = device_bytes > 0;
    task.room = (struct acts_options){.device_bytes = device_bytes, .host_bytes = 1 << 24};
    check_count(&task);
    for (size_t i = 0; i < r.plan.n_items; i++)
        if (r.items[i].coded)
            grads[i] = calloc((size_t)r.q[i].rows * r.q[i].groups, sizeof(float));
    OK(tune_scales_gradient(&task, list, 3, &loss, (float *const *)grads, &e), e);
    truth_make(&t, &r, list, 3);
    double expected = divergence(&t, r.shape);
    if (!(fabs(loss - expected) <= 1e-4 * expected))
        fail_msg("loss %g, the reference's %g", loss, expected);
    for (size_t i = 0; i < r.plan.n_items; i++)
        if (r.items[i].coded)
            check_item(&r, &t, i, grads[i]);
    for (size_t i = 0; i < MOST_ITEMS; i++)
        free(grads[i]);
    truth_free(&t);
    rig_free(&r);
}

/* q/k norms; the codes of a block at a time, its inputs on the host. */
static void test_gradient_norms(void **state)
{
    (void)state;
    check_gradient("qwen3", 0, 0);
}

static void test_gradient_tied(void **state)
{
    (void)state;
    check_gradient("llama2", 0, 1 << 24);
}

static void test_gradient_untied(void **state)
{
    (void)state;
    check_gradient("llama3.1", 0, 1 << 20);
}

/* Blocks that differ: the last one's feed-forward is wider, or narrower; with all codes on the device and without. */
static void test_gradient_layers(void **state)
{
    (void)state;
    check_gradient("llama3.1", 112, 0);
    check_gradient("qwen3", 48, 1 << 24);
}

/* Norms of what the halves add, of all heads, multipliers, caps of scores and logits. */
static void test_gradient_families(void **state)
{
    (void)state;
    check_gradient("gemma2", 0, 0);
    check_gradient("olmo3", 0, 1 << 24);
    check_gradient("granite", 0, 0);
}

/* A head in tiles, the last of them short, gives what a whole one gives: tiles from the host, and of one that is kept. */
static void test_head_tiles(void **state)
{
    (void)state;
    enum { ROWS = 70, TILE = 64 };
    struct err e = {0};
    struct rig r;
    struct family_numbers f;
    struct head head;
    struct gpu_view x = {0}, logits = {0}, dx = {0};
    rig_make(&r, "llama3.1");
    family_numbers(&f, &r.raw, r.shape);
    uint32_t hidden = r.shape->c.hidden, vocab = r.shape->c.vocab, seed = 17;
    float *in = malloc(ROWS * hidden * sizeof *in), *out[3], *back = malloc(ROWS * hidden * sizeof *back);
    out[0] = malloc(ROWS * vocab * sizeof **out);
    out[1] = malloc(ROWS * vocab * sizeof **out);
    out[2] = malloc(ROWS * vocab * sizeof **out);
    assert_true(in && back && out[0] && out[1] && out[2]);
    for (uint32_t i = 0; i < ROWS * hidden; i++)
        in[i] = (float)(tiny_random(&seed) % 2001) / 1000 - 1;
    OK(head_create(&head, r.scratch, r.m, true, &e), e);
    OK(gpu_alloc(r.scratch, ROWS * hidden * 4, &x, &e) && gpu_alloc(r.scratch, ROWS * hidden * 4, &dx, &e) &&
           gpu_alloc(r.scratch, ROWS * vocab * 4, &logits, &e),
       e);
    assert_int_equal(head.rows, vocab);
    gpu_upload(cmd, x, in, ROWS * hidden * 4);
    for (int tiles = 0; tiles < 3; tiles++) {
        head.rows = tiles ? TILE : vocab;
        if (tiles == 2) {
            const char *module = checkpoint_head_module(r.m->ck);
            head.halves = true;
            assert_true(model_halves(r.m, module, &head.kind));
            OK(gpu_alloc(r.scratch, vocab * hidden * 2ull, &head.kept, &e), e);
            OK(model_load_halves(r.m, module, head.kept, &e), e);
        }
        OK(head_logits(&head, x, ROWS, false, logits, &e), e);
        OK(gpu_download(cmd, logits, out[tiles], ROWS * vocab * 4, &e), e);
        OK(head_bwd(&head, logits, ROWS, dx, &e), e);
        OK(gpu_download(cmd, dx, back, ROWS * hidden * 4, &e), e);
        for (uint32_t row = 0; row < ROWS; row++)
            for (uint32_t c = 0; c < hidden; c++) {
                double sum = 0, size = 0;
                for (uint32_t v = 0; v < vocab; v++) {
                    double part = (double)out[tiles][row * vocab + v] * f.head[v * hidden + c];
                    sum += part;
                    size += fabs(part);
                }
                assert_true(fabs(back[row * hidden + c] - sum) <= 1e-5 * size);
            }
    }
    assert_memory_equal(out[0], out[1], ROWS * vocab * sizeof **out);
    assert_memory_equal(out[0], out[2], ROWS * vocab * sizeof **out);
    free(in);
    free(back);
    free(out[0]);
    free(out[1]);
    free(out[2]);
    family_numbers_free(&f);
    rig_free(&r);
}

/* ---- the pass ---- */

/* All scales that the export would get. */
static float *final_scales(struct rig *r, size_t *n)
{
    struct err e = {0};
    float *all = NULL;
    *n = 0;
    for (size_t i = 0; i < r->plan.n_items; i++) {
        struct qlinear q;
        if (!r->items[i].coded)
            continue;
        OK(store_read_final(r->store, &r->items[i], &q, &e), e);
        assert_memory_equal(q.codes, r->q[i].codes, (size_t)q.rows * q.cols);
        if (q.integers)
            assert_memory_equal(q.integers, r->q[i].integers, q.rows * quant_row_groups(&q.spec, q.cols));
        size_t count = (size_t)q.rows * quant_row_scales(&q.spec, q.cols);
        all = realloc(all, (*n + count) * sizeof *all);
        assert_non_null(all);
        memcpy(all + *n, q.scales, count * sizeof *all);
        *n += count;
        qlinear_free(&q);
    }
    return all;
}

static struct stage_report run_ok(struct rig *r)
{
    struct err e = {0};
    struct stage_report report;
    struct scales_task t = task_of(r, NULL);
    OK(tune_scales(&t, &report, &e), e);
    return report;
}

/* Loss of the stored scales on the windows that judge. */
static double judged(struct rig *r)
{
    struct err e = {0};
    double sum = 0, loss;
    float *grads[MOST_ITEMS] = {0};
    struct scales_task t = task_of(r, NULL);
    for (size_t i = 0; i < r->plan.n_items; i++)
        if (r->items[i].coded)
            grads[i] = calloc((size_t)r->q[i].rows * r->q[i].groups, sizeof(float));
    for (uint32_t i = SAMPLES - HOLDOUT; i < SAMPLES; i += 2) {
        uint32_t list[2] = {i, i + 1};
        OK(tune_scales_gradient(&t, list, 2, &loss, (float *const *)grads, &e), e);
        sum += loss * 2 / HOLDOUT;
    }
    for (size_t i = 0; i < MOST_ITEMS; i++)
        free(grads[i]);
    return sum;
}

static void same_scales(struct rig *r, const float *expected, size_t n)
{
    size_t count;
    float *mine = final_scales(r, &count);
    assert_int_equal(count, n);
    assert_memory_equal(mine, expected, n * sizeof *mine);
    free(mine);
}

/* Stops at a step. */
struct stop {
    uint32_t at, last; /* the step heard last */
};

static bool stop_at(void *ctx, uint32_t step, uint32_t steps, double loss)
{
    struct stop *s = ctx;
    (void)steps;
    (void)loss;
    s->last = step;
    return step < s->at;
}

/* Something of what is stored of super-blocks has moved. */
static void check_moved(struct rig *r)
{
    struct err e = {0};
    unsigned moved = 0, all = 0;
    for (size_t i = 0; i < r->plan.n_items; i++) {
        struct qlinear q;
        if (!r->items[i].coded || !r->items[i].spec.type->super)
            continue;
        OK(store_read_final(r->store, &r->items[i], &q, &e), e);
        for (size_t k = 0; k < q.rows * quant_row_scales(&q.spec, q.cols); k++, all++)
            moved += q.scales[k] != r->q[i].scales[k];
        qlinear_free(&q);
    }
    assert_true(all > 0 && moved > all / 2);
}

static void check_pass(bool supers, uint32_t wide)
{
    struct rig r;
    struct err e = {0};
    struct stage_report stopped;
    size_t n;
    rig_make_of(&r, "llama2", supers, wide);
    double start = judged(&r);
    struct stage_report report = run_ok(&r);
    if (!(report.trained.loss_final < 0.95 * report.trained.loss_start))
        fail_msg("from %g to %g", report.trained.loss_start, report.trained.loss_final);
    assert_int_equal(report.trained.steps, 12);
    assert_int_equal(report.n_soft, 12);
    assert_int_equal(report.n_hard, 7);
    assert_true(report.trained.best_epoch > 0);
    /* The reported losses are those of what is stored. */
    assert_true(fabs(report.trained.loss_start - start) <= 1e-5 * start);
    assert_true(fabs(report.trained.loss_final - judged(&r)) <= 1e-5 * report.trained.loss_final);
    float *first = final_scales(&r, &n);
    for (size_t i = 0; i < n; i++)
        assert_true(first[i] == scale_round(SCALE_F16, first[i]));
    if (supers)
        check_moved(&r);

    /* Again, with codes and hidden states elsewhere. */
    store_remove(&r.store);
    write_store(&r);
    struct scales_task t = task_of(&r, NULL);
    t.room = (struct acts_options){.host_bytes = 1 << 24};
    OK(tune_scales(&t, &report, &e), e);
    same_scales(&r, first, n);

    /* Stopped in the second epoch, taken up behind the first one. */
    store_remove(&r.store);
    write_store(&r);
    struct stop stop = {.at = 3};
    struct tune_hooks hooks = {stop_at, &stop};
    t = task_of(&r, &hooks);
    assert_false(tune_scales(&t, &stopped, &e));
    assert_int_equal(e.kind, ERR_STOPPED);
    const struct store_field field = {"test", "scales"};
    store_close(&r.store);
    e = (struct err){0};
    OK(store_open(&r.store, WORK, &field, 1, NULL, &e), e);
    stop = (struct stop){.at = 2};
    t = task_of(&r, &hooks);
    assert_false(tune_scales(&t, &stopped, &e)); /* not before step 2 */
    assert_int_equal(stop.last, 2);
    struct stage_report again = run_ok(&r);
    same_scales(&r, first, n);
    again.trained.seconds = report.trained.seconds;
    again.trained.ran = report.trained.ran; /* of this process alone */
    assert_memory_equal(&again, &report, sizeof again);
    free(first);
    rig_free(&r);
}

static void test_pass(void **state)
{
    (void)state;
    check_pass(false, 0);
}

static void test_pass_layers(void **state)
{
    (void)state;
    check_pass(false, 96);
}

static void test_pass_supers(void **state)
{
    (void)state;
    check_pass(true, 0);
}

/* d and dmin against central differences: all of one plane of a linear moved together, by as much as a half
 * resolves. */
static void test_gradient_supers(void **state)
{
    (void)state;
    struct rig r;
    struct err e = {0};
    const float share = 1.0f / 32;
    const uint32_t list[2] = {0, 1};
    float *grads[MOST_ITEMS] = {0};
    rig_make_of(&r, "llama2", true, 0);
    for (size_t i = 0; i < r.plan.n_items; i++)
        if (r.items[i].coded)
            grads[i] = calloc((size_t)r.q[i].rows * r.q[i].groups, sizeof(float));
    unsigned checked = 0;
    for (size_t i = 0; i < r.plan.n_items; i++) {
        struct qlinear *q = &r.q[i];
        uint32_t planes = r.items[i].coded ? quant_type_planes(q->spec.type) : 0;
        for (uint32_t plane = 0; plane < planes && q->spec.type->super; plane++, checked++) {
            double loss[3], along = 0;
            size_t n = (size_t)q->rows * planes; /* one super-block a row */
            float *was = malloc(n * sizeof *was);
            assert_non_null(was);
            memcpy(was, q->scales, n * sizeof *was);
            for (int way = -1; way <= 1; way++) {
                for (size_t k = 0; k < n; k++)
                    if (k % planes == plane)
                        q->scales[k] = was[k] * (1 + (float)way * share);
                store_close(&r.store);
                write_store(&r);
                struct scales_task t = task_of(&r, NULL);
                OK(tune_scales_gradient(&t, list, 2, &loss[way + 1], (float *const *)grads, &e), e);
                for (uint32_t row = 0; way == 0 && row < q->rows; row++)
                    along += (double)grads[i][row * planes + plane] * q->scales[row * planes + plane];
            }
            memcpy(q->scales, was, n * sizeof *was);
            free(was);
            double difference = (loss[2] - loss[0]) / (2 * share);
            if (!(fabs(along - difference) <= 0.03 * fabs(difference) + 2e-5 * loss[1]))
                fail_msg("%s, plane %u: %.6g, by differences %.6g of %.6g", r.items[i].module, plane, along, difference,
                         loss[1]);
        }
    }
    assert_true(checked >= 4);
    for (size_t i = 0; i < MOST_ITEMS; i++)
        free(grads[i]);
    rig_free(&r);
}

/* A rate that ruins the model: start scales, or what an attempt at a lower rate found, never anything worse.
 */
static void test_divergence(void **state)
{
    (void)state;
    struct rig r;
    rig_make(&r, "llama2");
    r.o.scales.lr = 1e6f;
    struct stage_report report = run_ok(&r);
    assert_int_equal(report.trained.retries, 3);
    assert_int_equal(report.trained.best_epoch, 0);
    assert_true(report.trained.loss_final == report.trained.loss_start);
    for (size_t i = 0; i < r.plan.n_items; i++) {
        struct err e = {0};
        struct qlinear q;
        if (!r.items[i].coded)
            continue;
        OK(store_read_final(r.store, &r.items[i], &q, &e), e);
        assert_memory_equal(q.scales, r.q[i].scales, (size_t)q.rows * q.groups * sizeof(float));
        qlinear_free(&q);
    }
    rig_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradient_norms),
        cmocka_unit_test(test_gradient_families),
        cmocka_unit_test(test_gradient_tied),
        cmocka_unit_test(test_gradient_untied),
        cmocka_unit_test(test_gradient_layers),
        cmocka_unit_test(test_head_tiles),
        cmocka_unit_test(test_pass_supers),
        cmocka_unit_test(test_gradient_supers),
        cmocka_unit_test(test_pass),
        cmocka_unit_test(test_pass_layers),
        cmocka_unit_test(test_divergence),
    };
    return device_done(cmocka_run_group_tests_name("scales", tests, device_setup, remove_dir));
}
