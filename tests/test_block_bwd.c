/* The backward pass of a whole block, for every family: gradients of all weights and of the input against
 * central differences of the forward pass in double. L = sum of c * y with random c. */
#include "tests/device.h"
#include "tests/family_model.h"

#include <math.h>

#include "host/model/block_bwd.h"
#include "host/model/block_steps.h"

#define DIR_ "tmp_block_bwd"
#include "tests/scratch_dir.h"

enum { CTX = 13, WINDOWS = 3, SAMPLES = 10 };

static uint32_t seed = 11;

static float uniform(void)
{
    return (float)(tiny_random(&seed) % 20001) / 10000.0f - 1.0f;
}

/* What is differentiated: the block's output, or its attention half's. */
struct loss {
    struct ref_config c;
    struct ref_block *b;
    const double *x;
    const float *dy; /* [T, hidden] */
    bool attn_only;
};

static double loss_of(const struct loss *l)
{
    size_t n = (size_t)WINDOWS * CTX * l->c.hidden;
    double *h = malloc(n * sizeof *h), *y = malloc(n * sizeof *y), sum = 0;
    assert_true(h && y);
    assert_true(ref_block_forward(&l->c, l->b, WINDOWS, l->x, h, y));
    for (size_t i = 0; i < n; i++)
        sum += l->dy[i] * (l->attn_only ? h[i] : y[i]);
    free(h);
    free(y);
    return sum;
}

/* Central difference by the float at p. */
static double slope(const struct loss *l, float *p, double step)
{
    float was = *p, up = (float)(was + step), down = (float)(was - step);
    *p = up;
    double high = loss_of(l);
    *p = down;
    double low = loss_of(l);
    *p = was;
    return (high - low) / ((double)up - (double)down);
}

/* got[i] of a gradient of n elements whose root mean square is `rms`. */
static void check(const char *shape, const char *what, size_t i, double got, double want, double rms)
{
    if (!(fabs(got - want) <= 1e-3 * fabs(want) + 2e-5 * rms))
        fail_msg("%s, gradient of %s, element %zu: %.9g, differences give %.9g (rms %.3g)", shape, what, i, got, want,
                 rms);
}

static double rms_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sqrt(sum / (double)n);
}

/* The reference's number of a matrix, or of the first one in it. */
static int ref_number(const struct model *m, uint32_t place)
{
    static const int numbers[ROLE_COUNT] = {
        [ROLE_QKV] = REF_Q,        [ROLE_Q] = REF_Q,       [ROLE_K] = REF_K,   [ROLE_V] = REF_V,      [ROLE_O] = REF_O,
        [ROLE_GATE_UP] = REF_GATE, [ROLE_GATE] = REF_GATE, [ROLE_UP] = REF_UP, [ROLE_DOWN] = REF_DOWN};
    return numbers[m->shape.matrices[place].part->role];
}

/* A few weights of each linear in [first, end) that has a gradient. */
static void check_weights(const struct loss *l, const char *shape, struct model *m, const struct block_grads *g,
                          int first, int end)
{
    struct err e = {0};
    for (uint32_t id = 0; id < model_block(m, 0).n; id++) {
        int number = ref_number(m, id);
        if (number < first || number >= end || !g->w[id].size)
            continue;
        size_t n = (size_t)m->shape.matrices[id].rows * m->shape.matrices[id].cols;
        float *got = malloc(n * sizeof *got), *w = (float *)(uintptr_t)l->b->w[number];
        assert_non_null(got);
        OK(gpu_download(cmd, g->w[id], got, n * 4, &e), e);
        double rms = rms_of(got, n), step = rms_of(w, n) / 256;
        assert_true(rms > 0);
        for (int k = 0; k < SAMPLES; k++) {
            size_t i = tiny_random(&seed) % n;
            /* The views held 1 before. */
            check(shape, block_part_short_name(m->shape.matrices[id].part), i, got[i] - g->add, slope(l, &w[i], step),
                  rms);
        }
        free(got);
    }
}

static void check_input(const struct loss *l, const char *shape, const char *what, const float *got, double *x)
{
    size_t n = (size_t)WINDOWS * CTX * l->c.hidden;
    double rms = rms_of(got, n);
    for (int k = 0; k < SAMPLES; k++) {
        size_t i = tiny_random(&seed) % n;
        double was = x[i], step = 1e-4;
        x[i] = was + step;
        double high = loss_of(l);
        x[i] = was - step;
        double low = loss_of(l);
        x[i] = was;
        check(shape, what, i, got[i], (high - low) / (2 * step), rms);
    }
}

static void ones(const struct block_grads *g)
{
    for (int id = 0; id < REF_LINEARS; id++)
        if (g->w[id].size)
            gpu_fill(cmd, g->w[id], 0x3f800000u);
}

/* What a block's outputs get, as it is told: times the inputs it is the gradient of the weights. */
struct outputs_seen {
    struct model *m;
    const struct block_weights *w;
    const struct block_scratch *fwd;
    double *grad[REF_LINEARS]; /* [rows, cols] by place */
};

static void on_outputs(void *ctx, uint32_t place, uint32_t row0, uint32_t rows, struct gpu_view dy, uint32_t tokens)
{
    struct outputs_seen *o = ctx;
    struct err e = {0};
    const struct block_matrix *of = &o->w->shape.matrices[place];
    const float alpha = block_alpha(o->m, of->part->role);
    float *g = malloc((size_t)tokens * rows * 4), *x = malloc((size_t)tokens * of->cols * 4);
    assert_true(g && x && tokens == WINDOWS * CTX && row0 + rows <= of->rows);
    OK(gpu_download(cmd, dy, g, (uint64_t)tokens * rows * 4, &e) &&
           gpu_download(cmd, block_input(o->fwd, of->part->input), x, (uint64_t)tokens * of->cols * 4, &e),
       e);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < of->cols; c++)
            for (uint32_t t = 0; t < tokens; t++)
                o->grad[place][(size_t)(row0 + r) * of->cols + c] +=
                    (double)alpha * g[(size_t)t * rows + r] * x[(size_t)t * of->cols + c];
    free(g);
    free(x);
}

/* The weights' gradients that they make, against those that the pass found, which held 1 before. */
static void check_outputs(const char *shape, struct outputs_seen *o, const struct block_grads *g)
{
    struct err e = {0};
    for (uint32_t id = 0; id < o->w->shape.n; id++) {
        const struct block_matrix *of = &o->w->shape.matrices[id];
        size_t n = (size_t)of->rows * of->cols;
        float *got = malloc(n * sizeof *got);
        assert_non_null(got);
        OK(gpu_download(cmd, g->w[id], got, n * 4, &e), e);
        double rms = rms_of(got, n);
        for (size_t i = 0; i < n; i++)
            if (!(fabs(o->grad[id][i] + 1 - got[i]) <= 1e-4 * rms + 1e-4 * fabs(got[i])))
                fail_msg("%s, %s, element %zu: outputs and inputs make %g, the gradient is %g", shape,
                         block_part_short_name(of->part), i, o->grad[id][i], (double)got[i] - 1);
        free(got);
        free(o->grad[id]);
    }
}

/* A model of the shape with random weights, and its numbers. */
static void open_shape(const struct shape *s, struct raw_model *raw, struct family_numbers *f, struct checkpoint **ck,
                       struct model **m)
{
    struct err e = {0};
    family_write(DIR_, s, raw);
    OK(checkpoint_open(ck, DIR_, &e), e);
    OK(model_open(m, cmd, *ck, CTX, &e), e);
    family_numbers(f, raw, s);
}

/* with: one with attention sinks in place of the shape's own family; NULL: that. */
static void check_block(const struct shape *s, uint32_t layer, const struct family *with)
{
    static const float sinks[8] = {0.5f, -1.25f, 2, 0, -0.5f, 1.5f, 3, -2};
    struct checkpoint *ck;
    struct model *m;
    struct raw_model raw;
    struct family_numbers f;
    struct err e = {0};
    open_shape(s, &raw, &f, &ck, &m);
    m->family = with ? with : m->family;
    f.blocks[layer].sinks = with ? sinks : NULL;

    struct loss l = {.c = s->c, .b = &f.blocks[layer]};
    l.c.ctx = CTX;
    size_t n = (size_t)WINDOWS * CTX * s->c.hidden;
    double *x = malloc(n * sizeof *x);
    float *x32 = malloc(n * sizeof *x32), *dy = malloc(n * sizeof *dy), *got = malloc(n * sizeof *got);
    assert_true(x && x32 && dy && got);
    for (size_t i = 0; i < n; i++) {
        x32[i] = uniform();
        x[i] = x32[i];
        dy[i] = uniform();
    }
    l.x = x;
    l.dy = dy;

    struct gpu_view gx, gh, gy;
    struct block_weights w = {0};
    struct block_scratch fwd;
    struct bwd_scratch bwd, joint;
    struct gpu_view all_grads[REF_LINEARS] = {0}, two_grads[REF_LINEARS] = {0};
    struct block_grads g = {.w = all_grads, .add = true}, only_vo = {.w = two_grads};
    unsigned all = BWD_ATTN | BWD_QK | BWD_FFN | BWD_INPUT;
    OK(gpu_alloc(arena, n * 4, &gx, &e) && gpu_alloc(arena, n * 4, &gh, &e) && gpu_alloc(arena, n * 4, &gy, &e), e);
    OK(model_load_block(m, layer, arena, &w, &e), e);
    assert_true(s->c.heads <= sizeof sinks / sizeof *sinks);
    if (with) {
        OK(gpu_alloc(arena, s->c.heads * sizeof *sinks, &w.fixed[ROLE_SINKS], &e), e);
        gpu_upload(cmd, w.fixed[ROLE_SINKS], sinks, s->c.heads * sizeof *sinks);
    }
    OK(block_scratch_create(&fwd, arena, m, WINDOWS, SCRATCH_TRAIN, &e), e);
    OK(bwd_scratch_create(&bwd, arena, m, WINDOWS, all, &e), e);
    OK(bwd_scratch_create(&joint, arena, m, WINDOWS, BWD_ATTN, &e), e);
    const struct block_shape shape = model_block(m, layer);
    for (uint32_t id = 0; id < shape.n; id++)
        OK(gpu_alloc(arena, (uint64_t)m->shape.matrices[id].rows * m->shape.matrices[id].cols * 4, &g.w[id], &e), e);

    /* The whole block. */
    gpu_upload(cmd, gx, x32, n * 4);
    gpu_upload(cmd, gy, dy, n * 4);
    ones(&g);
    block_attn_fwd(m, &w, &fwd, gx, gh, WINDOWS);
    struct gpu_view out;
    OK(gpu_alloc(arena, n * 4, &out, &e), e);
    block_ffn_fwd(m, &w, &fwd, gh, out, WINDOWS);
    struct outputs_seen seen = {.m = m, .w = &w, .fwd = &fwd};
    for (uint32_t id = 0; id < shape.n; id++)
        seen.grad[id] = calloc((size_t)shape.matrices[id].rows * shape.matrices[id].cols, sizeof(double));
    g.outputs = on_outputs;
    g.ctx = &seen;
    block_ffn_bwd(m, &w, &fwd, &bwd, gh, gy, true, &g, WINDOWS);
    block_half_norm(m, HALF_ATTN, &w, &fwd, gx, WINDOWS);
    block_attn_bwd(m, &w, &fwd, &bwd, gx, gy, true, &g, WINDOWS);
    g.outputs = NULL;
    check_outputs(s->name, &seen, &g);
    OK(gpu_download(cmd, gy, got, n * 4, &e), e);
    check_input(&l, s->name, "the block's input", got, x);
    check_weights(&l, s->name, m, &g, REF_Q, REF_LINEARS);

    /* The attention half with q and k frozen: the path without scores, and nothing but v and o. */
    l.attn_only = true;
    uint32_t v = block_place(shape, ROLE_V), o = block_place(shape, ROLE_O);
    if (v < shape.n) /* beside q and k it is frozen with them */
        only_vo.w[v] = g.w[v];
    only_vo.w[o] = g.w[o];
    ones(&only_vo);
    gpu_upload(cmd, gy, dy, n * 4);
    block_attn_fwd(m, &w, &fwd, gx, gh, WINDOWS);
    block_attn_bwd(m, &w, &fwd, &joint, gx, gy, false, &only_vo, WINDOWS);
    check_weights(&l, s->name, m, &only_vo, REF_V, REF_GATE);

    /* And with all four. */
    ones(&g);
    gpu_upload(cmd, gy, dy, n * 4);
    block_attn_fwd(m, &w, &fwd, gx, gh, WINDOWS);
    block_attn_bwd(m, &w, &fwd, &bwd, gx, gy, false, &g, WINDOWS);
    check_weights(&l, s->name, m, &g, REF_Q, REF_GATE);

    OK(gpu_cmd_finish(cmd, &e), e);
    gpu_arena_reset(arena, 0);
    block_weights_free(&w);
    family_numbers_free(&f);
    model_close(&m);
    checkpoint_close(&ck);
    raw_free(&raw);
    free(x);
    free(x32);
    free(dy);
    free(got);
}

static void test_gradients(void **state)
{
    (void)state;
    for (int i = 0; i < N_ATTENTION; i++)
        for (uint32_t layer = 0; layer < 1 + shapes[i].full; layer++)
            check_block(&shapes[i], layer, NULL);
}

/* Attention with sinks, of models that have none otherwise: shared keys, a window, biases. */
static void test_sinks(void **state)
{
    (void)state;
    for (int i = 1; i <= 3; i++) {
        struct model_config c = {0};
        snprintf(c.architecture, sizeof c.architecture, "%s", shapes[i].architecture);
        struct family with = *family_of(&c);
        with.parts |= PARTS_GPT_OSS;
        check_block(&shapes[i], 0, &with);
    }
}

/* An expert, as tune_expert.c trains one: y = x + down(act(gate x) * up x), nothing normed. shared: what it adds is times
 * sigmoid(g x), as in a weighted shared expert, whose pass back is that of the same loss with so much of each token. */
static void check_expert(const struct shape *s, bool shared)
{
    static const char *const names[] = {"mlp.experts.0.gate_proj", "mlp.experts.0.up_proj", "mlp.experts.0.down_proj"};
    static const int numbers[] = {REF_GATE, REF_UP, REF_DOWN};
    struct checkpoint *ck;
    struct model *m;
    struct raw_model raw;
    struct family_numbers f;
    struct err e = {0};
    open_shape(s, &raw, &f, &ck, &m);
    struct model_config config = *m->cfg;
    struct family family = *m->family;
    struct model expert = *m;
    config.residual_scale = 0;
    config.experts.width = config.experts.shared_width = s->c.intermediate;
    family.parts |= shared ? PARTS_SHARED_GATED : 0;
    expert.cfg = &config;
    expert.family = &family;

    struct loss l = {.c = s->c, .b = &f.blocks[0]};
    const uint32_t hidden = s->c.hidden, rows = WINDOWS * CTX;
    const size_t n = (size_t)rows * hidden;
    double *x = malloc(n * sizeof *x);
    float *x32 = malloc(n * sizeof *x32), *dy = malloc(n * sizeof *dy), *weighted = malloc(n * sizeof *weighted);
    float *g = malloc(hidden * sizeof *g), *none = calloc((size_t)hidden * hidden * 64, sizeof *none);
    assert_true(x && x32 && dy && weighted && g && none);
    for (uint32_t c = 0; c < hidden; c++)
        g[c] = 0.3f * uniform();
    for (uint32_t t = 0; t < rows; t++) {
        double z = 0;
        for (uint32_t c = 0; c < hidden; c++) {
            size_t i = (size_t)t * hidden + c;
            x[i] = x32[i] = uniform();
            dy[i] = uniform();
            z += x[i] * g[c];
        }
        for (uint32_t c = 0; c < hidden; c++)
            weighted[(size_t)t * hidden + c] = (float)(dy[(size_t)t * hidden + c] * (shared ? 1 / (1 + exp(-z)) : 1));
    }
    l.c.ctx = CTX;
    l.c.residual_scale = 0;
    l.x = x;
    l.dy = weighted;
    l.b->w[REF_O] = none; /* attention adds nothing */
    l.b->bias[REF_O] = NULL;
    l.b->attn_post_norm = l.b->ffn_norm = l.b->ffn_post_norm = NULL;

    struct block_matrix matrices[EXPERT_MATRICES];
    struct gpu_view views[EXPERT_MATRICES], bias[EXPERT_MATRICES] = {0}, grads[EXPERT_MATRICES], gx = {0}, gy = {0},
                                            gdy = {0};
    for (int i = 0; i < EXPERT_MATRICES; i++) {
        uint32_t out = i == 2 ? hidden : s->c.intermediate, in = i == 2 ? s->c.intermediate : hidden;
        matrices[i] = (struct block_matrix){
            .part = block_part_named(NULL, names[i], strlen(names[i]), NULL), .rows = out, .cols = in};
        assert_true(block_part_is_expert(matrices[i].part));
        OK(gpu_alloc(arena, (uint64_t)out * in * 4, &views[i], &e) &&
               gpu_alloc(arena, (uint64_t)out * in * 4, &grads[i], &e),
           e);
        gpu_upload(cmd, views[i], l.b->w[numbers[i]], (uint64_t)out * in * 4);
    }
    struct block_weights w = {.shape = {matrices, EXPERT_MATRICES}, .w = views, .bias = bias};
    struct block_grads found = {.w = grads};
    struct block_scratch fwd;
    struct bwd_scratch bwd;
    OK(gpu_alloc(arena, n * 4, &gx, &e) && gpu_alloc(arena, n * 4, &gy, &e) && gpu_alloc(arena, n * 4, &gdy, &e), e);
    OK(block_scratch_create(&fwd, arena, &expert, WINDOWS, SCRATCH_TRAIN_EXPERT, &e), e);
    OK(bwd_scratch_create(&bwd, arena, &expert, WINDOWS, BWD_FFN, &e), e);
    if (shared) {
        OK(gpu_alloc(arena, hidden * 4ull, &w.fixed[ROLE_SHARED_GATE], &e) &&
               gpu_alloc(arena, rows * 4ull, &fwd.share, &e) && gpu_alloc(arena, n * 4, &fwd.shared, &e),
           e);
        gpu_upload(cmd, w.fixed[ROLE_SHARED_GATE], g, hidden * 4ull);
    }
    gpu_upload(cmd, gx, x32, n * 4);
    gpu_upload(cmd, gdy, dy, n * 4);
    block_half_fwd(&expert, HALF_FFN, &w, &fwd, gx, gy, WINDOWS);
    block_half_bwd(&expert, HALF_FFN, &w, &fwd, &bwd, gx, gdy, false, &found, WINDOWS);
    for (int i = 0; i < EXPERT_MATRICES; i++) {
        size_t count = (size_t)matrices[i].rows * matrices[i].cols;
        float *got = malloc(count * sizeof *got), *at = (float *)(uintptr_t)l.b->w[numbers[i]];
        assert_non_null(got);
        OK(gpu_download(cmd, grads[i], got, count * 4, &e), e);
        double rms = rms_of(got, count), step = rms_of(at, count) / 256;
        assert_true(rms > 0);
        for (int k = 0; k < SAMPLES; k++) {
            size_t pick = tiny_random(&seed) % count;
            check(s->name, names[i], pick, got[pick], slope(&l, &at[pick], step), rms);
        }
        free(got);
    }
    gpu_arena_reset(arena, 0);
    family_numbers_free(&f);
    model_close(&m);
    checkpoint_close(&ck);
    raw_free(&raw);
    free(x);
    free(x32);
    free(dy);
    free(weighted);
    free(g);
    free(none);
}

static void test_experts(void **state)
{
    (void)state;
    unsigned tested = 0;
    for (int i = 0; i < N_ATTENTION; i++) {
        if (shapes[i].fused_up || shapes[i].bias >> REF_GATE)
            continue;
        check_expert(&shapes[i], tested++ % 2);
    }
    assert_true(tested >= 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradients), cmocka_unit_test(test_sinks),
                                       cmocka_unit_test(test_experts)};
    return device_done(cmocka_run_group_tests(tests, device_setup, remove_dir));
}
