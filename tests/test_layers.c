/* Layers that differ: a model whose second block has two matrices more and whose last one has a wider feed-forward, as
 * families with experts or with first layers of their own have, through the plan, a whole walk over the blocks, the store,
 * and a walk that goes on behind an interruption. No configuration says so: the list of matrices is made here. */
#include "tests/device.h"
#include "tests/family_model.h"

#include "host/base/log.h"
#include "host/quant/plan/planner.h"
#include "host/quant/plan/rehearse.h"
#include "host/quant/run/job_internal.h"

#define DIR_ "tmp_layers"
#include "tests/scratch_dir.h"

#define MODEL DIR_ "/model"
#define PLAIN DIR_ "/plain"
#define WORK  DIR_ "/work"

enum { CTX = 32, SAMPLES = 8, HOLDOUT = 2, BLOCKS = 3, EXTRA = 2, ITEMS = BLOCKS * REF_LINEARS + EXTRA };

/* Nobody computes with these two; their inputs are those of their half, and they are quantized on them. */
static const struct block_part extra[EXTRA] = {
    {ROLE_UP, "mlp.experts.0.up_proj", "", PART_MATRIX, HALF_FFN, INPUT_FFN, WIDTH_MIDDLE, WIDTH_HIDDEN, false, 0, 0},
    {ROLE_DOWN, "mlp.experts.0.down_proj", "", PART_MATRIX, HALF_FFN, INPUT_MIDDLE, WIDTH_HIDDEN, WIDTH_MIDDLE, false,
     0, 0},
};
static const struct block_matrix extra_matrices[EXTRA] = {{&extra[0], 48, 256, 0, 1}, {&extra[1], 80, 384, 0, 1}};

struct bench {
    struct shape shape;
    struct raw_model raw, plain_raw;
    struct checkpoint *plain;
    struct quantize_options o;
    struct matrix items[ITEMS];
    struct job j;
    struct quantize_result out;
    uint32_t ids[SAMPLES * CTX];
};

static struct err e;

/* The list of the family, with the second block's two more. */
static void make_list(struct model_shape *s)
{
    struct model_shape with = {.layers = BLOCKS,
                               .first = calloc(BLOCKS + 1, sizeof *with.first),
                               .matrices = calloc(ITEMS, sizeof *with.matrices)};
    assert_true(with.first && with.matrices);
    for (uint32_t layer = 0, n = 0; layer < BLOCKS; layer++) {
        struct block_shape b = model_shape_of(s, layer);
        memcpy(with.matrices + n, b.matrices, b.n * sizeof *b.matrices);
        n += b.n;
        if (layer == 1) {
            memcpy(with.matrices + n, extra_matrices, sizeof extra_matrices);
            n += EXTRA;
        }
        with.first[layer + 1] = n;
    }
    model_shape_free(s);
    *s = with;
}

static void make_items(struct bench *b)
{
    const struct model_shape *s = &b->j.m->shape;
    for (uint32_t layer = 0, n = 0; layer < BLOCKS; layer++)
        for (uint32_t place = 0; place < model_shape_of(s, layer).n; place++, n++) {
            struct matrix *x = &b->items[n];
            const struct block_matrix *of = &s->matrices[n];
            *x = (struct matrix){.part = of->part,
                                 .layer = layer,
                                 .place = place,
                                 .number = n,
                                 .rows = of->rows,
                                 .cols = of->cols,
                                 .coded = n != 3, /* the first block's o stays in 16 bits */
                                 .spec = {quant_type_find(place == REF_DOWN ? "3" : "2"), 32, SCALE_F16}};
            block_part_name(&(struct model_config){0}, x->part, layer, 0, x->module, sizeof x->module);
        }
}

static void open_model(struct bench *b)
{
    char name[128], module[96];
    uint32_t seed = 3;
    b->shape = *shape_named("llama3.1");
    b->shape.c.hidden = 256;
    b->shape.c.intermediate = 384;
    b->shape.c.heads = 4;
    b->shape.c.head_dim = 16;
    b->shape.shards = 1;
    family_write(PLAIN, &b->shape, &b->plain_raw);
    OK(checkpoint_open(&b->plain, PLAIN, &e), e);
    b->shape.wide = 640;
    family_write(MODEL, &b->shape, &b->raw);
    for (int i = 0; i < EXTRA; i++) {
        snprintf(name, sizeof name, "%s.weight",
                 block_part_name(&(struct model_config){0}, &extra[i], 1, 0, module, sizeof module));
        raw_weight(&b->raw, name, DTYPE_F16, extra_matrices[i].rows, extra_matrices[i].cols, &seed);
    }
    family_write_shards(&b->raw, MODEL, 1);
    OK(checkpoint_open(&b->j.ck, MODEL, &e), e);
    family_open_wide(&b->j.m, cmd, b->plain, b->j.ck, &b->shape, CTX);
    make_list(&b->j.m->shape);
}

/* Everything of a run but its export, on a device of so little memory that its chunks are small. */
static void open_bench(struct bench *b, enum method method, double gib)
{
    static const struct job_callbacks no_callbacks;
    struct gpu_options device = {.mem_limit = (uint64_t)(gib * (1 << 30))};
    uint32_t seed = 7;
    device_open(device);
    e = (struct err){0};
    *b = (struct bench){0};
    struct job *j = &b->j;
    open_model(b);
    j->ranks = 1;
    quantize_defaults(&b->o);
    b->o.method = method;
    b->o.samples = SAMPLES;
    b->o.gumbel.steps = 4;
    b->o.block.epochs = 1;
    b->o.scales.epochs = 1;
    j->cmd = cmd;
    j->o = &b->o;
    j->cb = &no_callbacks;
    j->out = &b->out;
    j->begin = os_now_ns();
    snprintf(j->work_dir, sizeof j->work_dir, "%s", WORK);
    for (uint32_t i = 0; i < SAMPLES * CTX; i++)
        b->ids[i] = tiny_random(&seed) % b->shape.c.vocab;
    j->windows = (struct windows){.ids = b->ids, .n = SAMPLES, .ctx = CTX};
    make_items(b);
    j->plan = (struct plan){.items = b->items,
                            .n_items = ITEMS,
                            .n_layers = BLOCKS,
                            .ctx = CTX,
                            .samples = SAMPLES,
                            .holdout = method == METHOD_RTN ? 0 : HOLDOUT};
    j->plan.block_steps = method == METHOD_GSQ;
    j->plan.scale_steps = method == METHOD_GSQ;
    OK(plan_memory(&j->plan, j->m, &b->o, &e), e);
    eta_start(&j->eta, j->begin, 0);
    progress_watch_begin(&j->watch, &no_callbacks.progress, &j->eta, cmd);
    OK(gpu_arena_create(&j->block, gpu, "block", &e) && gpu_arena_create(&j->hess, gpu, "hessian", &e) &&
           gpu_arena_create(&j->scratch, gpu, "scratch", &e),
       e);
}

static void close_bench(struct bench *b)
{
    struct job *j = &b->j;
    gpu_cmd_finish(cmd, NULL);
    progress_watch_end(&j->watch);
    acts_destroy(&j->targets);
    acts_destroy(&j->acts);
    gpu_arena_destroy(&j->scratch);
    gpu_arena_destroy(&j->hess);
    gpu_arena_destroy(&j->block);
    block_weights_free(&j->weights);
    store_close(&j->store);
    model_close(&j->m);
    checkpoint_close(&j->ck);
    checkpoint_close(&b->plain);
    raw_free(&b->raw);
    raw_free(&b->plain_raw);
    assert_int_equal(device_close(), 0);
}

static void open_work(struct job *j)
{
    const struct store_field field = {"test", "layers"};
    OK(store_open(&j->store, WORK, &field, 1, NULL, &e), e);
}

/* Hidden states in front of the first block. */
static void embed(struct job *j)
{
    struct gpu_view staging;
    struct acts **sets[2] = {&j->acts, plan_teacher(j->o) ? &j->targets : NULL};
    const enum acts_tier where[2] = {j->plan.student_acts, j->plan.teacher_acts};
    OK(gpu_alloc(j->scratch, acts_bytes(j->m, j->plan.batch_windows), &staging, &e), e);
    for (int i = 0; i < 2; i++) {
        struct acts_options o = acts_in(where[i], DIR_);
        if (sets[i])
            OK(acts_create(sets[i], j->m, SAMPLES, &o, &e) &&
                   acts_embed(*sets[i], &j->windows, NULL, SAMPLES, staging, &e) && gpu_cmd_finish(cmd, &e),
               e);
    }
    gpu_arena_reset(j->scratch, 0);
}

/* Blocks that the store has are gone through, the others up to `end` are quantized and stored. */
static void walk(struct job *j, uint32_t end)
{
    for (uint32_t layer = 0; layer < end; layer++) {
        struct block_items b = plan_block(&j->plan, layer);
        struct block_result r;
        assert_int_equal(b.n, REF_LINEARS + (layer == 1 ? EXTRA : 0));
        assert_int_equal(b.items[0].number, j->m->shape.first[layer]);
        j->layer = layer;
        if (store_has_block(j->store, layer)) {
            if (j->acts)
                OK(job_block_resume(j, layer, &e), e);
            continue;
        }
        OK(block_result_make(&r, b.n, &e), e);
        OK(job_block(j, layer, &r, &e) && store_write_block(j->store, layer, b, r.q, r.report, r.stages, &e), e);
        for (uint32_t i = 0; i < b.n; i++)
            assert_true((r.q[i].codes != NULL) == b.items[i].coded);
        block_result_free(&r);
    }
    j->layer = BLOCKS;
}

/* What the store gives of all items, one hash. */
static struct hash128 stored(struct job *j)
{
    struct hash128 h = {0};
    for (size_t i = 0; i < ITEMS; i++) {
        const struct matrix *x = &j->plan.items[i];
        struct qlinear q;
        if (!x->coded)
            continue;
        OK(store_read_final(j->store, x, &q, &e), e);
        assert_true(q.rows == x->rows && q.cols == x->cols);
        h = hash_bytes(q.codes, (size_t)q.rows * q.cols, h);
        h = hash_bytes(q.scales, (size_t)q.rows * q.groups * sizeof *q.scales, h);
        qlinear_free(&q);
    }
    return h;
}

/* All blocks, and the pass over scales where there is one; then what is planned is what was measured. */
static struct hash128 whole_run(struct job *j, uint64_t *planned, uint64_t *peak)
{
    struct stage_report r = {0};
    open_work(j);
    if (j->o->method != METHOD_RTN)
        embed(j);
    walk(j, BLOCKS);
    OK(job_scales(j, &r, &e), e);
    assert_int_equal(r.trained.steps > 0, plan_scales(j->o));
    *planned = j->plan.device_bytes;
    *peak = gpu_memory_peak(gpu);
    return stored(j);
}

static void check_run(enum method method, double gib)
{
    static struct bench b;
    uint64_t planned, peak;
    os_remove_tree(WORK);
    open_bench(&b, method, gib);
    struct hash128 straight = whole_run(&b.j, &planned, &peak);
    if (planned != peak)
        fail_msg("%s: planned %llu bytes, measured %llu", method_name(method), (unsigned long long)planned,
                 (unsigned long long)peak);
    store_remove(&b.j.store);
    close_bench(&b);

    /* Interrupted behind the block that has more matrices than the others; its neighbour is damaged meanwhile. */
    open_bench(&b, method, gib);
    open_work(&b.j);
    if (method != METHOD_RTN)
        embed(&b.j);
    walk(&b.j, 2);
    close_bench(&b);
    OK(os_write_file(WORK "/block-0000.safetensors", "none", 4, &e), e);
    open_bench(&b, method, gib);
    open_work(&b.j);
    assert_int_equal(store_check(b.j.store, &b.j.plan), 1);
    assert_true(store_has_block(b.j.store, 1));
    store_close(&b.j.store);
    struct hash128 resumed = whole_run(&b.j, &planned, &peak);
    assert_memory_equal(&resumed, &straight, sizeof resumed);
    store_remove(&b.j.store);
    close_bench(&b);
}

static void test_rtn(void **state)
{
    (void)state;
    check_run(METHOD_RTN, 0.0625);
}

static void test_gptq(void **state)
{
    (void)state;
    check_run(METHOD_GPTQ, 0.0625);
}

static void test_gsq(void **state)
{
    (void)state;
    check_run(METHOD_GSQ, 0.05); /* codes and hidden states do not all stay on the device */
}

/* Kinds of layers, not the first one's numbers. */
static void test_kinds(void **state)
{
    (void)state;
    static struct bench b;
    struct run_speed s;
    open_bench(&b, METHOD_GSQ, 0.0625);
    const struct model *m = b.j.m;
    for (uint32_t layer = 0; layer < BLOCKS; layer++)
        assert_true(model_shape_is_new(&m->shape, layer));
    OK(speed_measure(&s, b.j.m, &b.j.plan, &b.o, &e), e);
    assert_int_equal(s.model.n_blocks, BLOCKS);
    const struct speed_block *first = speed_block(&s.model, m, 0), *wide = speed_block(&s.model, m, 2);
    assert_true(first && wide && first != wide);
    assert_true(wide->forward[HALF_FFN] > 1.2 * first->forward[HALF_FFN]);
    assert_true(wide->forward[HALF_ATTN] == first->forward[HALF_ATTN]);
    assert_true(wide->backward[HALF_FFN] > 1.2 * first->backward[HALF_FFN]);
    assert_true(model_block_products(m, 2) == model_block_products(m, 0) + 3.0 * 256 * (640 - 384));

    /* A run over layers that are all alike takes less; where they are, they are gone through once. */
    struct rehearsal all, alike;
    struct plan narrow = b.j.plan;
    narrow.n_layers = 1;
    narrow.n_items = REF_LINEARS;
    OK(rehearse_part(&all, &b.j.plan, m, &b.o, PART_FIXED, UINT64_MAX, &e), e);
    OK(rehearse_part(&alike, &narrow, m, &b.o, PART_FIXED, UINT64_MAX, &e), e);
    assert_true(all.peak > alike.peak);
    close_bench(&b);
}

/* What a plan says of another effort is what that effort's own plan says. */
static void test_efforts(void **state)
{
    (void)state;
    static struct bench b;
    open_bench(&b, METHOD_GSQ, 0.25);
    struct job *j = &b.j;
    b.o.out_dir = b.o.work_dir = WORK;
    OK(speed_measure(&j->speed, j->m, &j->plan, &b.o, &e), e);
    quantize_set_effort(&b.o, EFFORT_BALANCED);
    quantize_fit_context(&b.o, j->plan.ctx);
    OK(plan_vary(&j->plan, &j->plan, j->m, &b.o, &e), e);
    job_predict(j, UINT32_MAX);
    struct plan balanced = j->plan;
    assert_int_equal(balanced.n_efforts, EFFORT_COUNT);
    for (int i = 0; i < EFFORT_COUNT; i++) {
        assert_int_equal(balanced.efforts[i].chosen, i == EFFORT_BALANCED);
        quantize_set_effort(&b.o, (enum effort)i);
        quantize_fit_context(&b.o, j->plan.ctx);
        assert_int_equal(balanced.efforts[i].samples, b.o.samples);
        assert_true(plan_vary(&j->plan, &balanced, j->m, &b.o, &e));
        job_predict(j, UINT32_MAX);
        assert_true(j->plan.predicted_seconds > 0);
        assert_true(fabs(j->plan.predicted_seconds - balanced.efforts[i].seconds) <=
                    1e-9 * balanced.efforts[i].seconds);
        assert_true(j->plan.efforts[i].chosen);
    }
    /* A text of 100 windows. */
    assert_true(quantize_fit_text(&b.o, j->plan.ctx, 100));
    job_predict(j, 100);
    assert_int_equal(j->plan.efforts[EFFORT_QUICK].samples, 64);
    assert_int_equal(j->plan.efforts[EFFORT_BEST].samples, 100);
    assert_true(j->plan.efforts[EFFORT_PAPER].chosen);
    b.o.gumbel.steps++;
    job_predict(j, 100);
    assert_false(j->plan.efforts[EFFORT_PAPER].chosen);
    b.o.method = METHOD_GPTQ;
    job_predict(j, 100);
    assert_int_equal(j->plan.n_efforts, 0);
    close_bench(&b);
}

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rtn),   cmocka_unit_test(test_gptq),    cmocka_unit_test(test_gsq),
        cmocka_unit_test(test_kinds), cmocka_unit_test(test_efforts),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
