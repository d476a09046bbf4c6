/* The pass that finds Hessians of outputs: the gradient of labels that the model draws, against the reference; what is summed of it. */
#include "tests/device.h"
#include "tests/family_model.h"
#include "tests/ref/ref_backward.h"

#include <math.h>

#include "host/model/end_to_end.h"
#include "host/quant/method/hessian.h"
#include "host/quant/method/output_hessian.h"

#define DIR_ "tmp_output_hessian"
#include "tests/scratch_dir.h"

enum { CTX = 12, SAMPLES = 6, TRAIN = 5, MOST_ITEMS = 4 * REF_LINEARS, SEED = 21 };

/* A tiny model of which all linears are to be learned, but the last layer's first. */
struct rig {
    const struct shape *shape;
    struct raw_model raw;
    struct family_numbers f;
    struct checkpoint *ck;
    struct model *m;
    struct quantize_options o;
    struct matrix items[MOST_ITEMS];
    size_t n_items;
    uint32_t most; /* of a layer */
    struct windows windows;
    uint32_t ids[SAMPLES * CTX];
    struct gpu_arena *block, *hess, *scratch;
    /* What is collected, by item. */
    uint32_t layer; /* the one in work */
    struct block_weights w;
    struct gpu_view views[REF_LINEARS];
    float *grads[MOST_ITEMS]; /* [rows, cols] */
    float *sums[MOST_ITEMS];  /* of output gradients, as they are stored */
    float *saved[MOST_ITEMS];
    uint32_t not_wanted;
};

static uint64_t tile_floats(const struct matrix *item)
{
    return (uint64_t)item->rows * output_hessian_cols(item->rows);
}

static void rig_make(struct rig *r, const char *shape)
{
    struct err e = {0};
    uint32_t seed = 5;
    *r = (struct rig){.shape = shape_named(shape), .not_wanted = UINT32_MAX};
    OK(os_mkdirs(DIR_, &e), e);
    family_write(DIR_, r->shape, &r->raw);
    family_numbers(&r->f, &r->raw, r->shape);
    OK(checkpoint_open(&r->ck, DIR_, &e) && model_open(&r->m, cmd, r->ck, CTX, &e), e);
    OK(gpu_arena_create(&r->block, gpu, "block", &e) && gpu_arena_create(&r->hess, gpu, "hessian", &e) &&
           gpu_arena_create(&r->scratch, gpu, "scratch", &e),
       e);
    quantize_defaults(&r->o);
    quantize_set_effort(&r->o, EFFORT_FAST);
    r->o.seed = SEED;
    for (uint32_t i = 0; i < SAMPLES * CTX; i++)
        r->ids[i] = tiny_random(&seed) % r->shape->c.vocab;
    r->windows = (struct windows){.ids = r->ids, .n = SAMPLES, .ctx = CTX};
    for (uint32_t layer = 0; layer < r->shape->layers; layer++) {
        const struct block_shape b = model_block(r->m, layer);
        r->most = b.n;
        for (uint32_t i = 0; i < b.n; i++) {
            struct matrix *item = &r->items[r->n_items];
            assert_true(r->n_items < MOST_ITEMS);
            *item = (struct matrix){.layer = layer,
                                    .place = i,
                                    .part = b.matrices[i].part,
                                    .rows = b.matrices[i].rows,
                                    .cols = b.matrices[i].cols,
                                    .coded = layer + 1 < r->shape->layers || i > 0,
                                    .spec = {quant_type_find("2"), 16, SCALE_F16}};
            r->grads[r->n_items] = malloc((size_t)item->rows * item->cols * sizeof(float));
            r->sums[r->n_items] = calloc(tile_floats(item), sizeof(float));
            assert_true(r->grads[r->n_items] && r->sums[r->n_items]);
            r->n_items++;
        }
    }
}

static void rig_free(struct rig *r)
{
    for (size_t i = 0; i < r->n_items; i++) {
        free(r->grads[i]);
        free(r->sums[i]);
        free(r->saved[i]);
    }
    block_weights_free(&r->w);
    gpu_arena_destroy(&r->block);
    gpu_arena_destroy(&r->hess);
    gpu_arena_destroy(&r->scratch);
    family_numbers_free(&r->f);
    model_close(&r->m);
    checkpoint_close(&r->ck);
    raw_free(&r->raw);
}

/* ---- a step of end_to_end.h ---- */

static size_t item_at(const struct rig *r, uint32_t layer, uint32_t place)
{
    return (size_t)layer * r->most + place;
}

static const struct block_weights *load(void *ctx, uint32_t layer, struct err *e)
{
    struct rig *r = ctx;
    r->layer = layer;
    OK(gpu_cmd_finish(cmd, e), *e);
    gpu_arena_reset(r->block, 0);
    OK(model_load_block(r->m, layer, r->block, &r->w, e), *e);
    for (uint32_t i = 0; i < r->w.shape.n; i++)
        OK(gpu_alloc(r->block, r->w.w[i].size, &r->views[i], e), *e);
    return &r->w;
}

static void on_outputs(void *ctx, uint32_t place, uint32_t row0, uint32_t rows, struct gpu_view dy, uint32_t tokens)
{
    struct rig *r = ctx;
    struct err e = {0};
    size_t at = item_at(r, r->layer, place), ld = output_hessian_cols(r->items[at].rows);
    float *g = malloc((size_t)tokens * rows * 4);
    assert_non_null(g);
    OK(gpu_download(cmd, dy, g, (uint64_t)tokens * rows * 4, &e), e);
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t a = 0; a < rows; a++)
            for (uint32_t b = 0; b < rows; b++)
                r->sums[at][(row0 + a) * ld + row0 + b] += g[(size_t)t * rows + a] * g[(size_t)t * rows + b];
    free(g);
}

static struct block_grads grads(void *ctx, uint32_t layer)
{
    struct rig *r = ctx;
    (void)layer;
    return (struct block_grads){.w = r->views, .outputs = on_outputs, .ctx = r};
}

static bool learn(void *ctx, uint32_t layer, struct err *e)
{
    struct rig *r = ctx;
    for (uint32_t i = 0; i < r->w.shape.n; i++)
        OK(gpu_download(cmd, r->views[i], r->grads[item_at(r, layer, i)], r->w.w[i].size, e), *e);
    return true;
}

static void step(struct rig *r, const uint32_t *list, uint32_t n)
{
    struct err e = {0};
    struct end_to_end w;
    const struct acts_options room = {.device_bytes = 1 << 24};
    OK(end_to_end_alloc(&w, r->scratch, r->m, 2, true, &e) && end_to_end_create(&w, n, &room, &e), e);
    w.blocks = (struct end_to_end_blocks){.ctx = r, .load = load, .grads = grads, .learn = learn};
    w.windows = &r->windows;
    w.seed = SEED;
    OK(end_to_end_step(&w, list, n, &(struct end_to_end_loss){.factor = 1}, &e) && gpu_cmd_finish(cmd, &e), e);
    end_to_end_free(&w);
    gpu_arena_reset(r->scratch, 0);
}

/* ---- the gradient ---- */

/* NLL of the labels, summed, in double; draw: finds them first. */
static double loss_of(const struct rig *r, const uint32_t *list, uint32_t n, uint32_t *labels, bool draw)
{
    const struct shape *s = r->shape;
    const size_t tokens = (size_t)n * CTX;
    struct ref_config c = s->c;
    uint32_t *ids = malloc(tokens * sizeof *ids);
    double *x = malloc(tokens * c.hidden * sizeof *x), *p = malloc(c.vocab * sizeof *p), sum = 0;
    float *logits = malloc(c.vocab * sizeof *logits);
    assert_true(ids && x && p && logits);
    c.ctx = CTX;
    for (uint32_t i = 0; i < n; i++)
        memcpy(ids + (size_t)i * CTX, r->ids + (size_t)list[i] * CTX, CTX * sizeof *ids);
    family_embed(&r->f, s, ids, tokens, x);
    for (uint32_t l = 0; l < s->layers; l++)
        assert_true(ref_block_forward(&c, &r->f.blocks[l], n, x, NULL, x));
    for (uint32_t t = 0; t < tokens; t++) {
        double lead;
        ref_log_probs(&c, r->f.final_norm, r->f.head, x + (size_t)t * c.hidden, p);
        for (uint32_t v = 0; v < c.vocab; v++)
            logits[v] = (float)p[v];
        if (draw) {
            labels[t] = ref_sampled_label(logits, c.vocab, t, 0, SEED, &lead);
            assert_true(lead > 1e-4); /* else another seed: rounding decides */
        }
        sum -= p[labels[t]];
    }
    free(ids);
    free(x);
    free(p);
    free(logits);
    return sum;
}

static void check_gradient(const char *shape)
{
    static const uint32_t list[3] = {4, 1, 2};
    static const int numbers[ROLE_COUNT] = {
        [ROLE_QKV] = REF_Q,        [ROLE_Q] = REF_Q,       [ROLE_K] = REF_K,   [ROLE_V] = REF_V,      [ROLE_O] = REF_O,
        [ROLE_GATE_UP] = REF_GATE, [ROLE_GATE] = REF_GATE, [ROLE_UP] = REF_UP, [ROLE_DOWN] = REF_DOWN};
    struct rig r;
    uint32_t labels[3 * CTX], seed = 3;
    rig_make(&r, shape);
    step(&r, list, 3);
    loss_of(&r, list, 3, labels, true);
    for (size_t i = 0; i < r.n_items; i++) {
        const struct matrix *item = &r.items[i];
        const size_t n = (size_t)item->rows * item->cols;
        float *w = (float *)(uintptr_t)r.f.blocks[item->layer].w[numbers[item->part->role]];
        double rms = 0, size = 0;
        for (size_t k = 0; k < n; k++) {
            rms += (double)r.grads[i][k] * r.grads[i][k] / (double)n;
            size += (double)w[k] * w[k] / (double)n;
        }
        rms = sqrt(rms);
        assert_true(rms > 0);
        for (int k = 0; k < 4; k++) {
            size_t at = tiny_random(&seed) % n;
            float was = w[at], up = was + (float)sqrt(size) / 256, down = was - (float)sqrt(size) / 256;
            w[at] = up;
            double high = loss_of(&r, list, 3, labels, false);
            w[at] = down;
            double low = loss_of(&r, list, 3, labels, false), want = (high - low) / ((double)up - (double)down);
            w[at] = was;
            if (!(fabs(r.grads[i][at] - want) <= 2e-3 * fmax(fabs(want), 0.2 * rms)))
                fail_msg("%s, layer %u, %s, weight %zu: gradient %g, by differences %g (rms %g)", shape, item->layer,
                         block_part_short_name(item->part), at, (double)r.grads[i][at], want, rms);
        }
    }
    rig_free(&r);
}

static void test_gradient(void **state)
{
    (void)state;
    check_gradient("llama2");
    for (int i = 0; i < N_ATTENTION; i++) /* one whose logits are capped, one of fused matrices */
        if (shapes[i].c.logit_cap > 0 || shapes[i].fused_qkv)
            check_gradient(shapes[i].name);
}

/* ---- the sums ---- */

static bool wants(void *ctx, uint32_t layer)
{
    const struct rig *r = ctx;
    return layer != r->not_wanted;
}

static bool save(void *ctx, uint32_t layer, const float *const *tiles, struct err *e)
{
    struct rig *r = ctx;
    (void)e;
    for (uint32_t i = 0; i < r->most; i++) {
        size_t at = item_at(r, layer, i);
        assert_null(r->saved[at]);
        if (!tiles[i])
            continue;
        r->saved[at] = malloc(tile_floats(&r->items[at]) * sizeof(float));
        assert_non_null(r->saved[at]);
        memcpy(r->saved[at], tiles[i], tile_floats(&r->items[at]) * sizeof(float));
    }
    return true;
}

static struct output_task task_of(struct rig *r, uint32_t micro)
{
    return (struct output_task){.m = r->m,
                                .o = &r->o,
                                .items = r->items,
                                .n_items = r->n_items,
                                .windows = &r->windows,
                                .train = TRAIN,
                                .n = output_hessian_windows(TRAIN, CTX),
                                .micro = micro,
                                .head_stays = true,
                                .block = r->block,
                                .hess = r->hess,
                                .scratch = r->scratch,
                                .room = {.device_bytes = 1 << 24},
                                .store = {r, wants, save}};
}

/* Of all windows that teach, each with several draws, in any batches; of no layer that is there already, nor of a linear that is kept. */
static void test_sums(void **state)
{
    (void)state;
    enum { DRAWS = 8 };
    uint32_t list[DRAWS * TRAIN];
    struct err e = {0};
    struct rig r;
    for (uint32_t i = 0; i < DRAWS * TRAIN; i++)
        list[i] = i / DRAWS;
    rig_make(&r, "llama2");
    step(&r, list, DRAWS * TRAIN);
    for (size_t i = 0; i < r.n_items; i++)
        assert_true(output_hessian_settle(r.sums[i], r.items[i].rows, 1.0 / (DRAWS * TRAIN * CTX)));
    for (uint32_t micro = 1; micro <= TRAIN; micro += 2) {
        struct output_task t = task_of(&r, micro);
        r.not_wanted = micro == 3 ? 0 : UINT32_MAX;
        assert_int_equal(t.n, DRAWS * TRAIN);
        OK(output_hessians(&t, &e), e);
        for (size_t i = 0; i < r.n_items; i++) {
            const struct matrix *item = &r.items[i];
            bool there = item->coded && item->layer != r.not_wanted;
            assert_int_equal(there, r.saved[i] != NULL);
            for (uint64_t k = 0; there && k < tile_floats(item); k++)
                if (!(fabs(r.saved[i][k] - r.sums[i][k]) <= 1e-4 * (1 + fabs(r.sums[i][k]))))
                    fail_msg("%s of layer %u, element %llu: %g, not %g", block_part_short_name(item->part), item->layer,
                             (unsigned long long)k, (double)r.saved[i][k], (double)r.sums[i][k]);
            free(r.saved[i]);
            r.saved[i] = NULL;
        }
    }
    /* With enough tokens a window is taken once, and of a long text not all. */
    assert_int_equal(output_hessian_windows(128, 2048), 8);
    assert_int_equal(output_hessian_windows(100, 128), 128);
    assert_int_equal(output_hessian_windows(7, 64), 56);
    /* What is counted for the plan is what the pass takes. */
    struct gpu_count count = {.limit = UINT64_MAX};
    struct output_task t = task_of(&r, 2);
    gpu_arena_destroy(&r.hess);
    gpu_arena_destroy(&r.scratch);
    gpu_cmd_count(cmd, GPU_COUNT_MEMORY);
    OK(gpu_arena_create_counting(&t.hess, gpu, &count, &e) && gpu_arena_create_counting(&t.scratch, gpu, &count, &e) &&
           output_hessians_count(&t, 0, &e),
       e);
    gpu_cmd_count(cmd, GPU_COUNT_NOTHING);
    gpu_arena_destroy(&t.hess);
    gpu_arena_destroy(&t.scratch);
    OK(gpu_arena_create(&r.hess, gpu, "hessian", &e) && gpu_arena_create(&r.scratch, gpu, "scratch", &e), e);
    t.hess = r.hess;
    t.scratch = r.scratch;
    OK(output_hessians(&t, &e), e);
    assert_int_equal(count.peak, gpu_arena_bytes(r.hess) + gpu_arena_bytes(r.scratch));
    rig_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradient), cmocka_unit_test(test_sums)};
    return device_done(cmocka_run_group_tests_name("output hessian", tests, device_setup, remove_dir));
}
