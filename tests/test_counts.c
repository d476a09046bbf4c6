/* Bytes and operations that are counted without running anything: of every kernel against what `gsq bench` takes them to be,
 * and of a run's pieces against arithmetic. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hf/hf_config.h"
#include "tests/device.h"
#include "tests/tiny_model.h"

#include "host/base/os.h"
#include "host/gpu/gpu_gemm.h"
#include "host/gpu/gpu_pipeline.h"
#include "host/gpu/gpu_traffic.h"
#include "host/quant/method/drift.h"
#include "host/quant/method/hessian.h"
#include "host/quant/method/tune_expert.h"
#include "host/quant/plan/counts.h"
#include "lib/kernel_cases.h"

enum { CTX = 128 };
#define DIR_ "test_counts.tmp"

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
    gpu_cmd_watch(cmd, NULL, NULL);
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
    gpu_traffic_watch(all, GPU_PART_OWN, KERNEL_ID_gemm, 7, 8, views, &g.m, 12000);
    assert_true(t->read == 4 * (10 * 30 + 20 * 30) && t->written == 4 * 10 * 20 && t->flop == 12000);
    struct gemm_args beta = g;
    beta.beta = 1;
    gpu_traffic_watch(all, GPU_PART_OWN, KERNEL_ID_gemm, 7, 8, views, &beta.m, 12000);
    assert_true(t->read == 2 * 4 * (10 * 30 + 20 * 30) + 4 * 10 * 20);
    const struct diagonal_args d = {.n = 50, .ldh = 1000};
    t = &all[KERNEL_ID_diagonal];
    gpu_traffic_watch(all, GPU_PART_OWN, KERNEL_ID_diagonal, 1, 2, (struct gpu_view[]){v, {NULL, 0, 200}}, &d.n, 50);
    assert_true(t->read == 200 && t->written == 200);
}

enum { KINDS = 3 };

struct sum {
    struct gpu_traffic of[KINDS][COUNT_PIECES][GPU_RECORD_KINDS]; /* what is of the model as of the first kind */
    double stepped[KINDS][COUNT_PIECES];
    struct count_kind kinds[KINDS];
    unsigned n;
};

static void on_count(void *ctx, const struct count_row *r)
{
    struct sum *s = ctx;
    unsigned k = 0;
    while (r->of && k < s->n && s->kinds[k].first != r->of->first)
        k++;
    assert_true(k < KINDS);
    if (r->of && k == s->n)
        s->kinds[s->n++] = *r->of;
    struct gpu_traffic *t = &s->of[k][r->piece][r->record];
    assert_true(t->calls == 0 && (r->of != NULL) == (r->piece < COUNT_SCALES_WINDOW));
    *t = r->traffic;
    s->stepped[k][r->piece] = r->stepped;
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
    near("products of a Hessian step", products(s->of[0][COUNT_HESSIAN_STEP]), hessian);
    near("products of a window", products(s->of[0][COUNT_FORWARD]), 2 * weights * CTX);
    near("products of a window that judges", products(s->of[0][COUNT_JUDGED]), 2 * weights * CTX);
    for (unsigned k = 0; k < KERNEL_COUNT; k++) /* exact where a loss decides, and nowhere else */
        if (gpu_gemm_kernel(k, NULL, NULL)) {
            bool exact = k == KERNEL_ID_gemm || k == KERNEL_ID_gemm_nn || k == KERNEL_ID_gemm_tn;
            assert_true(s->of[0][exact ? COUNT_SCALES_WINDOW : COUNT_JUDGED][k].calls == 0);
            assert_true(exact || s->of[0][COUNT_SCALES_JUDGED][k].calls == 0);
        }
    double pairs = CTX * (CTX + 1.0) / 2, width = (double)m->cfg->num_heads * m->cfg->head_dim;
    near("attention of a window", s->of[0][COUNT_FORWARD][KERNEL_ID_attn_fwd].flop, 4 * pairs * width);
    double keys = (double)m->cfg->num_kv_heads * m->cfg->head_dim;
    near("what RoPE turns in a window", s->of[0][COUNT_FORWARD][KERNEL_ID_rope_fwd].written, 4 * CTX * (width + keys));
    double last = (double)m->cfg->hidden_size * ((double)m->cfg->intermediate_size + width); /* of o and down */
    near("products for the linears' inputs", products(s->of[0][COUNT_INPUTS]), 2 * (weights - last) * CTX);
    near("products of drift", products(s->of[0][COUNT_DRIFT]),
         2 * CTX *
             (drift_products(b, HALF_ATTN, m->cfg->hidden_size) + drift_products(b, HALF_FFN, m->cfg->hidden_size)));
    double good = 0,
           factors = 0; /* inputs within one tile: their drift, and R R^T; and at most so much for the factor */
    for (uint32_t i = 0; i < b.n; i++) {
        const double n = b.matrices[i].cols;
        assert_true(n <= HESSIAN_TILE);
        good += 2 * b.matrices[i].rows * n * n * (input_is_last(b.matrices[i].part->input) ? 2 : 3);
        factors += 2 * n * n * n;
    }
    const double made = products(s->of[0][COUNT_GOOD]);
    if (!(made >= good && made <= good + factors))
        fail_msg("products of a correction: %g are counted, it is %g and the factors", made, good);
    /* Forward, by the input of down alone, and by the weights. */
    double down = (double)m->cfg->hidden_size * m->cfg->intermediate_size;
    near("products of the feed-forward half", products(s->of[0][COUNT_FFN_WINDOW]),
         2 * CTX * (2 * half[HALF_FFN] + down));
    /* Both ways, with a forward pass more; down's own output is not wanted again. */
    near("products of the pass over scales", products(s->of[0][COUNT_SCALES_WINDOW]),
         2 * CTX * (m->cfg->num_layers * (4 * weights - down) + 3 * vocab * m->cfg->hidden_size));
    near("products of its judging", products(s->of[0][COUNT_SCALES_JUDGED]),
         2 * CTX * (m->cfg->num_layers * weights + 2 * vocab * m->cfg->hidden_size));
    /* Logits and momenta of three levels, both ways; the gradient, the difference, a code; alone the weights, too. */
    const struct gpu_traffic *alone = &s->of[0][COUNT_HESSIAN_STEP][KERNEL_ID_gumbel_step];
    double scales = 4 * 4.0 / o.group; /* scales and their momenta, both ways */
    near("bytes of an optimiser step", (alone->read + alone->written) / weights, 3 * 8 + 4 + 4 + 4 + 1 + scales);
    const struct gpu_traffic *together = &s->of[0][COUNT_FFN_STEP][KERNEL_ID_gumbel_step];
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

/* ---- layers of several kinds, experts ---- */

/* A model that config.json describes: each tensor of it, small numbers. */
static void write_model(const char *dir, const char *config)
{
    struct raw_model *raw = calloc(1, sizeof *raw);
    struct model_config c;
    struct model_shape shape;
    struct err e = {0};
    const struct block_part *p;
    uint32_t seed = 5;
    char module[96], name[128];
    assert_non_null(raw);
    OK(hf_config_parse(&c, config, strlen(config), "config.json", &e) && model_shape_make(&shape, &c, &e), e);
    raw_weight(raw, "model.embed_tokens.weight", DTYPE_F16, c.vocab_size, c.hidden_size, &seed);
    raw_weight(raw, "lm_head.weight", DTYPE_F16, c.vocab_size, c.hidden_size, &seed);
    raw_weight(raw, "model.norm.weight", DTYPE_F16, 0, c.hidden_size, &seed);
    for (uint32_t layer = 0; layer < c.num_layers; layer++) {
        const struct block_shape b = model_shape_of(&shape, layer);
        for (uint32_t i = 0; (p = block_part_in(&c, layer, i)); i++) {
            bool vector = p->kind == PART_VECTOR;
            if (p->kind == PART_MATRIX)
                continue;
            block_part_name(&c, p, layer, 0, module, sizeof module);
            snprintf(name, sizeof name, "%s%s", module, vector ? "" : ".weight");
            raw_weight(raw, name, DTYPE_F16, p->kind == PART_NORM || vector ? 0 : block_part_rows(p, &c),
                       block_part_cols(p, &c), &seed);
            struct raw_tensor *t = &raw->items[raw->n - 1];
            if (p->role != ROLE_DELTA_CONV)
                continue;
            t->n_dims = 3; /* [channels, 1, taps] */
            t->shape[2] = t->shape[1];
            t->shape[1] = 1;
        }
        for (uint32_t i = 0; i < b.n; i++) {
            snprintf(name, sizeof name, "%s.weight",
                     block_matrix_name(&c, &b.matrices[i], layer, module, sizeof module));
            raw_weight(raw, name, DTYPE_F16, b.matrices[i].rows, b.matrices[i].cols, &seed);
        }
    }
    os_remove_tree(dir);
    assert_true(os_mkdirs(dir, NULL));
    write_text_file(dir, "config.json", config);
    raw_write(raw, dir, false);
    model_shape_free(&shape);
    config_free(&c);
    raw_free(raw);
    free(raw);
}

static bool none(const struct gpu_traffic t[GPU_RECORD_KINDS])
{
    double calls = 0;
    for (unsigned k = 0; k < GPU_RECORD_KINDS; k++)
        calls += t[k].calls;
    return !(calls > 0);
}

/* What is counted of a kind of layer is what the plan takes it to be. */
static void check_kind(const struct model *m, const struct sum *s, unsigned k)
{
    const struct expert_config *x = &m->cfg->experts;
    const struct gpu_traffic(*of)[GPU_RECORD_KINDS] = s->of[k];
    const uint32_t layer = s->kinds[k].first;
    const struct block_shape b = block_common(model_block(m, layer));
    const bool experts = config_has_experts(m->cfg, layer), delta = config_has_delta(m->cfg, layer);
    double hidden = m->cfg->hidden_size, width = x->width, weights = 3 * hidden * width, hessian = 0, small = 0;
    const struct block_part *p;
    for (uint32_t i = 0; i < b.n; i++)
        hessian += 2.0 * b.matrices[i].rows * b.matrices[i].cols * b.matrices[i].cols;
    for (uint32_t i = 0; (p = block_part_in(m->cfg, layer, i)); i++) /* products that are no linears */
        small += (p->role == ROLE_DELTA_BETA || p->role == ROLE_DELTA_ALPHA)
                     ? (double)block_part_rows(p, m->cfg) * block_part_cols(p, m->cfg)
                     : 0;
    near("products of a Hessian step", products(of[COUNT_HESSIAN_STEP]), hessian);
    double common = model_block_products(m, layer) - model_expert_products(m, layer) + small;
    near("products of a window", products(of[COUNT_FORWARD]), 2 * common * CTX);
    near("products of a window that judges", products(of[COUNT_JUDGED]), 2 * common * CTX);
    assert_int_equal(none(of[COUNT_ATTN_WINDOW]), config_forward_only(m->cfg));
    assert_int_equal(none(of[COUNT_FFN_WINDOW]), !block_has_half(b, HALF_FFN));
    for (int piece = COUNT_EXPERTS_FORWARD; piece <= COUNT_EXPERT_STEP; piece++)
        assert_int_equal(none(of[piece]), !experts);
    if (delta)
        assert_true(of[COUNT_FORWARD][KERNEL_ID_delta_rule].calls > 0 &&
                    !(of[COUNT_FORWARD][KERNEL_ID_attn_fwd].calls > 0));
    if (!experts)
        return;
    near("products of experts and router", products(of[COUNT_EXPERTS_FORWARD]),
         2 * CTX * (model_expert_products(m, layer) + x->n * hidden));
    near("products of their Hessians", products(of[COUNT_EXPERTS_SUMS]),
         2 * CTX *
             (hessian_products((uint32_t)hidden) +
              x->used * (hessian_products((uint32_t)hidden) + hessian_products((uint32_t)width) + 2 * hidden * width)));
    near("products of what they have lost", products(of[COUNT_EXPERTS_DRIFT]),
         2 * CTX * (hidden * hidden + x->used * (hidden * hidden + hidden * width + 4 * hidden * width)));
    near("products of a step of an expert", products(of[COUNT_EXPERT_HESSIAN_STEP]),
         2 * hidden * width * (2 * hidden + width));
    near("products of an expert both ways", products(of[COUNT_EXPERT_WINDOW]),
         2.0 * EXPERT_WINDOW * (2 * weights + hidden * width));
    assert_false(of[COUNT_EXPERT_WINDOW][KERNEL_ID_rmsnorm_fwd].calls > 0); /* what it reads is normed */
    near("of one that judges", products(of[COUNT_EXPERT_JUDGED]), 2.0 * EXPERT_WINDOW * weights);
    near("weights of a step", s->stepped[k][COUNT_EXPERT_STEP], weights);
    const struct gpu_traffic *step = &of[COUNT_EXPERT_STEP][KERNEL_ID_gumbel_step];
    assert_true((step->read + step->written) / weights > 3 * 8 + 4 + 4 + 1);
}

static void test_kinds(void **state)
{
#define SIZES                                                                                                          \
    "\"hidden_size\": 64, \"vocab_size\": 64, \"rms_norm_eps\": 1e-5, \"hidden_act\": \"silu\", "                      \
    "\"max_position_embeddings\": 512, \"tie_word_embeddings\": false, \"torch_dtype\": \"float16\", "
    static const struct {
        const char *config, *names[KINDS];
        unsigned layers[KINDS];
    } models[] = {
        {"{" SIZES
         "\"architectures\": [\"Qwen3MoeForCausalLM\"], \"model_type\": \"qwen3_moe\", \"num_hidden_layers\": 3, "
         "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 16, \"intermediate_size\": 96, "
         "\"num_experts\": 4, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 32, \"norm_topk_prob\": true, "
         "\"mlp_only_layers\": [1], \"rope_theta\": 10000.0}",
         {"attention, 4 experts of which 2 are used", "attention, feed-forward"},
         {2, 1}},
        {"{" SIZES "\"architectures\": [\"DeepseekV2ForCausalLM\"], \"model_type\": \"deepseek_v2\", "
         "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 4, \"intermediate_size\": 96, "
         "\"n_routed_experts\": 4, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 32, \"n_shared_experts\": 2, "
         "\"first_k_dense_replace\": 1, \"norm_topk_prob\": false, \"q_lora_rank\": null, \"kv_lora_rank\": 32, "
         "\"qk_nope_head_dim\": 16, \"qk_rope_head_dim\": 8, \"v_head_dim\": 16, \"routed_scaling_factor\": 1.0, "
         "\"topk_method\": \"greedy\", \"scoring_func\": \"softmax\", \"rope_theta\": 10000.0}",
         {"latent attention, feed-forward", "latent attention, 4 experts of which 2 are used, a shared one"},
         {1, 1}},
        {"{" SIZES "\"architectures\": [\"Qwen3_5ForCausalLM\"], \"model_type\": \"qwen3_5_text\", "
         "\"num_hidden_layers\": 4, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 16, "
         "\"intermediate_size\": 96, \"linear_num_key_heads\": 4, \"linear_num_value_heads\": 4, "
         "\"linear_key_head_dim\": 16, \"linear_value_head_dim\": 16, \"linear_conv_kernel_dim\": 4, "
         "\"attn_output_gate\": true, \"layer_types\": [\"linear_attention\", \"linear_attention\", "
         "\"linear_attention\", "
         "\"full_attention\"], \"rope_parameters\": {\"rope_theta\": 10000.0, \"partial_rotary_factor\": 0.5, "
         "\"rope_type\": \"default\"}}",
         {"gated delta rule, feed-forward", "attention, feed-forward"},
         {3, 1}},
    };
    struct err e = {0};
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct checkpoint *ck = NULL;
        struct model *m = NULL;
        struct quantize_options o;
        struct sum *s = calloc(1, sizeof *s);
        uint32_t layers = 0;
        assert_non_null(s);
        write_model(DIR_, models[i].config);
        OK(checkpoint_open(&ck, DIR_, &e) && model_open(&m, cmd, ck, CTX, &e), e);
        quantize_defaults(&o);
        o.group = 32;
        OK(quantize_settle(&o, &e) && count_pieces(m, &o, on_count, s, &e), e);
        for (unsigned k = 0; k < s->n; k++) {
            assert_string_equal(s->kinds[k].name, models[i].names[k]);
            assert_int_equal(s->kinds[k].layers, models[i].layers[k]);
            layers += s->kinds[k].layers;
            check_kind(m, s, k);
        }
        assert_int_equal(layers, m->cfg->num_layers);
        /* There is no pass over scales. */
        assert_true(none(s->of[0][COUNT_SCALES_WINDOW]) && none(s->of[0][COUNT_SCALES_STEP]));
        model_close(&m);
        checkpoint_close(&ck);
        free(s);
    }
    os_remove_tree(DIR_);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_partly),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_kinds),
    };
    return device_done(cmocka_run_group_tests(tests, device_setup, NULL));
}
