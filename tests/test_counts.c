/* Bytes and operations that are counted without running anything: of every kernel against what `gsq bench` takes them to be,
 * and of a run's pieces against arithmetic. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/device.h"

#include "host/base/os.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/gpu_traffic.h"
#include "host/quant/plan/counts.h"
#include "lib/kernel_cases.h"

enum { CTX = 128 };

/* What a GPU's kernels are. */
static void take_base(bool on)
{
    struct err e = {0};
    for (unsigned k = 0; k < KERNEL_COUNT; k++)
        OK(gpu_kernel_force(gpu, k, on ? "base" : NULL, &e), e);
}

static void test_kernels(void **state)
{
    struct gpu_count memory = {.limit = UINT64_MAX};
    struct gpu_arena *counting = NULL;
    struct err e = {0};
    const struct bench_sizes sizes = {.rows = 512, .cols = 2048, .cube = 512};
    struct gpu_traffic all[GPU_RECORD_KINDS];
    unsigned bytes_seen = 0, flop_seen = 0;
    (void)state;
    OK(gpu_arena_create_counting(&counting, gpu, &memory, &e), e);
    take_base(true);
    gpu_cmd_watch(cmd, gpu_traffic_watch, all);
    gpu_cmd_count(cmd, GPU_COUNT_TRAFFIC);
    for (size_t i = 0; i < n_bench_cases; i++) {
        struct bench_case c;
        struct kernel_buffer b[KERNEL_BUFFERS];
        struct gpu_view views[KERNEL_BUFFERS];
        union kernel_args args;
        bench_case(i, &sizes, &c);
        unsigned n = kernel_case_buffers(c.kernel, &c.s, b);
        for (unsigned k = 0; k < n; k++)
            if (b[k].fill != FILL_AS)
                OK(gpu_alloc(counting, b[k].n * 4, &views[k], &e), e);
        for (unsigned k = 0; k < n; k++)
            if (b[k].fill == FILL_AS)
                views[k] = views[b[k].as];
        memset(all, 0, sizeof all);
        kernel_case_call(cmd, c.kernel, &c.s, views, &args);
        const struct gpu_traffic *t = &all[c.kernel];
        assert_true(t->calls >= 1);
        /* The bench leaves out scales, tables and what a row gives one number for. */
        double bytes = t->read + t->written;
        if (c.bytes > 0 && c.kernel != KERNEL_ID_peak_fma) {
            bytes_seen++;
            if (!(bytes >= c.bytes * (1 - 1e-9) && bytes <= c.bytes * 1.15 + 4096))
                fail_msg("%s (%s): %.0f bytes are counted, %.0f move", kernel_decls[c.kernel].name, c.shape, bytes,
                         c.bytes);
        }
        bool attention = strncmp(kernel_decls[c.kernel].name, "attn", 4) == 0 && c.kernel != KERNEL_ID_attn_sinks;
        bool product = gpu_gemm_kernel(c.kernel, NULL, NULL) || attention;
        if (product) {
            flop_seen++;
            if (fabs(t->flop / c.flops - 1) > 1e-9)
                fail_msg("%s (%s): %.0f operations are counted, it has %.0f", kernel_decls[c.kernel].name, c.shape,
                         t->flop, c.flops);
        }
        gpu_arena_reset(counting, 0);
    }
    gpu_cmd_count(cmd, GPU_COUNT_NOTHING);
    take_base(false);
    gpu_arena_destroy(&counting);
    assert_true(bytes_seen > 20 && flop_seen > 10);
}

/* A view that holds more than is touched: rows far apart, a matrix that beta leaves out. */
static void test_partly(void **state)
{
    struct gpu_view v = {NULL, 0, 1000 * 1000 * 4};
    struct gpu_view views[4] = {v, v, v, v};
    struct gpu_traffic all[GPU_RECORD_KINDS] = {0}, *t = &all[KERNEL_ID_gemm];
    const struct gemm_args g = {.m = 10, .n = 20, .k = 30, .lda = 1000, .ldb = 1000, .ldc = 1000, .alpha = 1};
    (void)state;
    gpu_traffic_watch(all, KERNEL_ID_gemm, 7, 8, views, &g.m, 12000);
    assert_true(t->read == 4 * (10 * 30 + 20 * 30) && t->written == 4 * 10 * 20 && t->flop == 12000);
    struct gemm_args beta = g;
    beta.beta = 1;
    gpu_traffic_watch(all, KERNEL_ID_gemm, 7, 8, views, &beta.m, 12000);
    assert_true(t->read == 2 * 4 * (10 * 30 + 20 * 30) + 4 * 10 * 20);
    const struct diagonal_args d = {.n = 50, .ldh = 1000};
    t = &all[KERNEL_ID_diagonal];
    gpu_traffic_watch(all, KERNEL_ID_diagonal, 1, 2, (struct gpu_view[]){v, {NULL, 0, 200}}, &d.n, 50);
    assert_true(t->read == 200 && t->written == 200);
}

struct sum {
    struct gpu_traffic of[COUNT_PIECES][GPU_RECORD_KINDS];
};

static void on_count(void *ctx, enum count_piece piece, unsigned kind, const struct gpu_traffic *t)
{
    ((struct sum *)ctx)->of[piece][kind] = *t;
}

static double products(const struct gpu_traffic t[GPU_RECORD_KINDS])
{
    double sum = 0;
    for (unsigned k = 0; k < KERNEL_COUNT; k++)
        sum += gpu_gemm_kernel(k, NULL, NULL) ? t[k].flop : 0;
    return sum;
}

static void near(const char *what, double counted, double want)
{
    if (!(fabs(counted / want - 1) < 1e-6))
        fail_msg("%s: %.6g is counted, it is %.6g", what, counted, want);
}

static void test_pieces(void **state)
{
    struct err e = {0};
    struct checkpoint *ck = NULL;
    struct model *m = NULL;
    struct quantize_options o;
    struct sum *s = calloc(1, sizeof *s);
    char demo[1024];
    (void)state;
    assert_non_null(s);
    snprintf(demo, sizeof demo, "%s/models/demo", os_getenv("GSQ_SOURCE"));
    OK(checkpoint_open(&ck, demo, &e) && model_open(&m, cmd, ck, CTX, &e), e);
    quantize_defaults(&o);
    OK(quantize_settle(&o, &e), e);
    uint64_t range = gpu_info(gpu)->max_range;
    OK(count_pieces(m, &o, on_count, s, &e), e);
    assert_int_equal(gpu_info(gpu)->max_range, range);

    const struct block_shape b = model_block(m, 0);
    double weights = 0, hessian = 0, half[HALF_COUNT] = {0}, vocab = m->cfg->vocab_size;
    for (uint32_t i = 0; i < b.n; i++) {
        double w = (double)b.matrices[i].rows * b.matrices[i].cols;
        weights += w;
        hessian += 2 * w * b.matrices[i].cols;
        half[b.matrices[i].part->half] += w;
    }
    near("products of a Hessian step", products(s->of[COUNT_HESSIAN_STEP]), hessian);
    near("products of a window", products(s->of[COUNT_FORWARD]), 2 * weights * CTX);
    near("products of a window that judges", products(s->of[COUNT_JUDGED]), 2 * weights * CTX);
    for (unsigned k = 0; k < KERNEL_COUNT; k++) /* exact where a loss decides, and nowhere else */
        if (gpu_gemm_kernel(k, NULL, NULL)) {
            bool exact = k == KERNEL_ID_gemm || k == KERNEL_ID_gemm_nn || k == KERNEL_ID_gemm_tn;
            assert_true(s->of[exact ? COUNT_SCALES_WINDOW : COUNT_JUDGED][k].calls == 0);
            assert_true(exact || s->of[COUNT_SCALES_JUDGED][k].calls == 0);
        }
    double pairs = CTX * (CTX + 1.0) / 2, width = (double)m->cfg->num_heads * m->cfg->head_dim;
    near("attention of a window", s->of[COUNT_FORWARD][KERNEL_ID_attn_fwd].flop, 4 * pairs * width);
    double keys = (double)m->cfg->num_kv_heads * m->cfg->head_dim;
    near("what RoPE turns in a window", s->of[COUNT_FORWARD][KERNEL_ID_rope_fwd].written, 4 * CTX * (width + keys));
    double last = (double)m->cfg->hidden_size * ((double)m->cfg->intermediate_size + width); /* of o and down */
    near("products for the linears' inputs", products(s->of[COUNT_INPUTS]), 2 * (weights - last) * CTX);
    /* Forward, by the input of down alone, and by the weights. */
    double down = (double)m->cfg->hidden_size * m->cfg->intermediate_size;
    near("products of the feed-forward half", products(s->of[COUNT_FFN_WINDOW]), 2 * CTX * (2 * half[HALF_FFN] + down));
    /* Both ways, with a forward pass more; down's own output is not wanted again. */
    near("products of the pass over scales", products(s->of[COUNT_SCALES_WINDOW]),
         2 * CTX * (m->cfg->num_layers * (4 * weights - down) + 3 * vocab * m->cfg->hidden_size));
    near("products of its judging", products(s->of[COUNT_SCALES_JUDGED]),
         2 * CTX * (m->cfg->num_layers * weights + 2 * vocab * m->cfg->hidden_size));
    /* Logits and momenta of three levels, both ways; the gradient, the difference, a code; alone the weights, too. */
    const struct gpu_traffic *alone = &s->of[COUNT_HESSIAN_STEP][KERNEL_ID_gumbel_step];
    double scales = 4 * 4.0 / o.group; /* scales and their momenta, both ways */
    near("bytes of an optimiser step", (alone->read + alone->written) / weights, 3 * 8 + 4 + 4 + 4 + 1 + scales);
    const struct gpu_traffic *together = &s->of[COUNT_FFN_STEP][KERNEL_ID_gumbel_step];
    near("of one together", (together->read + together->written) / half[HALF_FFN], 3 * 8 + 4 + 4 + 1 + scales);
    /* As many with five levels. */
    o.code_type = quant_type_find("3");
    assert_non_null(o.code_type);
    memset(s, 0, sizeof *s);
    OK(count_pieces(m, &o, on_count, s, &e), e);
    near("bytes of one with five levels", (alone->read + alone->written) / weights, 3 * 8 + 4 + 4 + 4 + 1 + scales);
    near("of one together", (together->read + together->written) / half[HALF_FFN], 3 * 8 + 4 + 4 + 1 + scales);
    for (int p = 0; p < COUNT_PIECES; p++)
        assert_non_null(count_piece_names[p]);
    model_close(&m);
    checkpoint_close(&ck);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_partly),
        cmocka_unit_test(test_pieces),
    };
    return device_done(cmocka_run_group_tests(tests, device_setup, NULL));
}
