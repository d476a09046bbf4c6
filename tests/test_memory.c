/* Whatever creates something on the device takes of an arena that counts what it takes of a real one: of every family,
 * at sizes that fill chunks and buffers of their own. */
#include "tests/device.h"
#include "tests/family_model.h"

#include "host/model/block_bwd.h"
#include "host/model/acts.h"
#include "host/model/head.h"
#include "host/model/batch.h"
#include "host/quant/method/quant_linear.h"
#include "host/quant/method/tune_block.h"

#define DIR_ "tmp_memory"
#include "tests/scratch_dir.h"

enum { CTX = 19, WINDOWS = 90 };
/* Chunks are small then, and tell alignment from nothing. */
#define LIMIT (UINT64_C(96) << 20)

typedef bool (*creation)(struct gpu_arena *to, void *ctx, struct err *e);

static void check_counted(const char *family, const char *what, creation fn, void *ctx)
{
    struct gpu_count count = {.limit = LIMIT};
    struct gpu_arena *real = NULL, *counting = NULL;
    struct err e = {0};
    OK(gpu_arena_create(&real, gpu, "test", &e), e);
    OK(fn(real, ctx, &e) && gpu_cmd_finish(cmd, &e), e);
    uint64_t held = gpu_arena_bytes(real), used = gpu_memory_used(gpu);
    gpu_arena_destroy(&real);
    used -= gpu_memory_used(gpu);

    gpu_cmd_count(cmd, GPU_COUNT_MEMORY);
    OK(gpu_arena_create_counting(&counting, gpu, &count, &e) && fn(counting, ctx, &e), e);
    gpu_cmd_count(cmd, GPU_COUNT_NOTHING);
    if (count.peak != held || count.used != held || used != held)
        fail_msg("%s, %s: a real arena holds %llu bytes, %llu are counted", family, what, (unsigned long long)held,
                 (unsigned long long)count.peak);
    gpu_arena_destroy(&counting);
}

/* ---- of a model ---- */

struct model_size {
    struct model *m;
    uint32_t windows;
    unsigned how;
};

static bool load_block(struct gpu_arena *to, void *ctx, struct err *e)
{
    struct model_size *z = ctx;
    struct block_weights w = {0};
    bool ok = model_load_block(z->m, 1, to, &w, e);
    block_weights_free(&w);
    return ok;
}

static bool scratch(struct gpu_arena *to, void *ctx, struct err *e)
{
    struct model_size *z = ctx;
    struct block_scratch s;
    return block_scratch_create(&s, to, z->m, z->windows, (enum scratch_use)z->how, e);
}

static bool gradients(struct gpu_arena *to, void *ctx, struct err *e)
{
    struct model_size *z = ctx;
    struct bwd_scratch s;
    return bwd_scratch_create(&s, to, z->m, z->windows, z->how, e);
}

static bool head(struct gpu_arena *to, void *ctx, struct err *e)
{
    struct model_size *z = ctx;
    struct head h;
    return head_create(&h, to, z->m, z->windows & 1, e);
}

static bool batch(struct gpu_arena *to, void *ctx, struct err *e)
{
    struct model_size *z = ctx;
    struct batch b;
    return batch_create(&b, to, z->m, z->windows, false, e);
}

static bool norm_batch(struct gpu_arena *to, void *ctx, struct err *e)
{
    struct model_size *z = ctx;
    struct norm_batch b;
    return norm_batch_create(&b, to, z->m, z->windows, e);
}

static void test_model_sizes(void **state)
{
    (void)state;
    static const unsigned parts[] = {BWD_ATTN, BWD_ATTN | BWD_QK, BWD_FFN, BWD_FFN | BWD_INPUT,
                                     BWD_ATTN | BWD_QK | BWD_FFN | BWD_INPUT};
    for (int i = 0; i < N_SHAPES; i++) {
        const char *name = shapes[i].name;
        struct checkpoint *ck = NULL;
        struct model_size z = {NULL, 1, 0};
        struct raw_model raw;
        struct err e = {0};
        family_write(DIR_, &shapes[i], &raw);
        OK(checkpoint_open(&ck, DIR_, &e), e);
        OK(model_open(&z.m, cmd, ck, CTX, &e), e);
        check_counted(name, "a block", load_block, &z);
        for (z.windows = 1; z.windows <= WINDOWS; z.windows += WINDOWS - 1) {
            for (z.how = SCRATCH_FORWARD; z.how <= SCRATCH_TRAIN_FFN; z.how++)
                check_counted(name, "a block's scratch", scratch, &z);
            for (unsigned p = 0; p < sizeof parts / sizeof *parts; p++) {
                z.how = parts[p];
                check_counted(name, "scratch for gradients", gradients, &z);
            }
            check_counted(name, "the head", head, &z);
            check_counted(name, "a batch", batch, &z);
            check_counted(name, "a batch behind the norm", norm_batch, &z);

            /* Hidden states have an arena of their own. */
            struct gpu_count count = {.limit = LIMIT};
            struct gpu_arena *counting = NULL;
            struct acts *acts;
            struct acts_options device = acts_in(ACTS_DEVICE, NULL);
            uint64_t used = gpu_memory_used(gpu);
            OK(acts_create(&acts, z.m, z.windows, &device, &e), e);
            OK(gpu_arena_create_counting(&counting, gpu, &count, &e), e);
            OK(acts_count(z.m, z.windows, counting, &e), e);
            assert_int_equal(count.peak, gpu_memory_used(gpu) - used);
            gpu_arena_destroy(&counting);
            acts_destroy(&acts);
        }
        model_close(&z.m);
        checkpoint_close(&ck);
        raw_free(&raw);
    }
}

/* ---- of a linear ---- */

struct linear_size {
    struct matrix item;
    struct quantize_options o;
    uint64_t tune_bytes;
    bool held;
};

static bool diagonal(struct gpu_arena *to, void *ctx, struct err *e)
{
    const struct linear_size *z = ctx;
    struct hessian h;
    struct gpu_view diag;
    return hessian_create_diagonal(&h, &diag, cmd, to, z->item.cols, e);
}

/* Weights, Hessians, and all that the method does with them. */
static bool linear(struct gpu_arena *to, void *ctx, struct err *e)
{
    const struct linear_size *z = ctx;
    struct qlinear q = {0};
    struct linear_report report;
    struct hessian h;
    struct gpu_view w;
    struct linear_task t = {.cmd = cmd,
                            .options = &z->o,
                            .item = &z->item,
                            .hessian = z->o.method == METHOD_RTN ? NULL : &h,
                            .scratch = to,
                            .tune_bytes = z->tune_bytes};
    bool ok = gpu_alloc(to, (uint64_t)z->item.rows * z->item.cols * 4, &w, e) &&
              hessian_create(&h, cmd, to, z->item.cols, z->held, e);
    if (ok)
        gpu_fill(cmd, w, 0x3c23d70a);
    t.w = w;
    ok = ok && quantize_linear(&t, &q, &report, e);
    qlinear_free(&q);
    return ok;
}

static void test_linear_sizes(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{64, 64}, {200, 352}, {700, 256}};
    static const char *const types[] = {"2", "3", "ternary", "Q2_K", "Q4_0"};
    static const enum method methods[] = {METHOD_RTN, METHOD_GPTQ, METHOD_GSQ};
    for (unsigned i = 0; i < 3 * 5 * 3; i++) {
        const uint32_t *size = sizes[i % 3];
        const struct quant_type *type = quant_type_find(types[i / 3 % 5]);
        struct linear_size z = {.tune_bytes = i & 1 ? 3 << 20 : UINT64_C(1) << 40, .held = i & 2};
        if (type->super && size[1] % type->super)
            continue;
        quantize_defaults(&z.o);
        quantize_set_effort(&z.o, EFFORT_FAST);
        z.o.method = methods[i / 15];
        z.o.code_type = type;
        z.o.gumbel.steps = 1;
        z.item = (struct matrix){.part = block_part_of(ROLE_O),
                                 .rows = size[0],
                                 .cols = size[1],
                                 .coded = true,
                                 .spec = {type, type->group ? type->group : 32, SCALE_F16}};
        check_counted(method_name(z.o.method), types[i / 3 % 5], linear, &z);
        check_counted("a Hessian's", "diagonal", diagonal, &z);
    }
}

static int small_device(void **state)
{
    device_open((struct gpu_options){.mem_limit = LIMIT});
    return make_dir(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_model_sizes), cmocka_unit_test(test_linear_sizes)};
    return device_done(cmocka_run_group_tests(tests, small_device, remove_dir));
}
