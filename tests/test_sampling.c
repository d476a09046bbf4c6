/* The text that a model writes: every token is the one that the counter's noise draws from what the whole window predicts, in any
 * number of segments at a time, with blocks that stay or are loaded for each pass, and keys and values on the device or not. */
#include "tests/device.h"
#include "tests/family_model.h"

#include <math.h>

#include "host/gpu/kernels.h"
#include "host/gpu/tiled.h"
#include "host/model/experts.h"
#include "host/model/head.h"
#include "host/model/sampling.h"
#include "tests/ref/ref_backward.h"

#define DIR_ "tmp_sampling"
#include "tests/scratch_dir.h"

enum { CTX = 20, SEGMENTS = 7, SEED = 9 };

/* ---- DeepSeek's layout: latent attention, a dense layer, one of experts ---- */

enum { HEADS = 3, Q_RANK = 12, KV_RANK = 20, NOPE = 18, TURNED = 6, VALUES = 10, EXPERTS = 4, WIDTH = 16 };

static void write_deepseek(void)
{
    struct raw_model m = {0};
    char text[1024], name[96];
    uint32_t seed = 3;
    snprintf(
        text, sizeof text,
        "{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"model_type\":\"deepseek_v3\",\"hidden_size\":%d,"
        "\"intermediate_size\":32,\"moe_intermediate_size\":%d,\"num_hidden_layers\":2,\"num_attention_heads\":%d,"
        "\"num_key_value_heads\":%d,\"q_lora_rank\":%d,\"kv_lora_rank\":%d,\"qk_nope_head_dim\":%d,"
        "\"qk_rope_head_dim\":%d,\"v_head_dim\":%d,\"n_routed_experts\":%d,\"num_experts_per_tok\":2,\"n_group\":1,"
        "\"topk_group\":1,\"n_shared_experts\":1,\"first_k_dense_replace\":1,\"rms_norm_eps\":1e-6,"
        "\"scoring_func\":\"sigmoid\",\"topk_method\":\"noaux_tc\",\"norm_topk_prob\":true,"
        "\"rope_theta\":10000.0,\"vocab_size\":%d,\"max_position_embeddings\":64,\"tie_word_embeddings\":true,"
        "\"hidden_act\":\"silu\",\"torch_dtype\":\"float32\"}",
        HIDDEN, WIDTH, HEADS, HEADS, Q_RANK, KV_RANK, NOPE, TURNED, VALUES, EXPERTS, VOCAB);
    write_text_file(DIR_, "config.json", text);
    raw_weight(&m, "model.embed_tokens.weight", DTYPE_F32, VOCAB, HIDDEN, &seed);
    raw_weight(&m, "model.norm.weight", DTYPE_F32, 0, HIDDEN, &seed);
    const struct {
        const char *name;
        uint32_t rows, cols, layers; /* bit per layer */
    } parts[] = {
        {"input_layernorm", 0, HIDDEN, 3},
        {"post_attention_layernorm", 0, HIDDEN, 3},
        {"self_attn.q_a_proj", Q_RANK, HIDDEN, 3},
        {"self_attn.q_a_layernorm", 0, Q_RANK, 3},
        {"self_attn.q_b_proj", HEADS * (NOPE + TURNED), Q_RANK, 3},
        {"self_attn.kv_a_proj_with_mqa", KV_RANK + TURNED, HIDDEN, 3},
        {"self_attn.kv_a_layernorm", 0, KV_RANK, 3},
        {"self_attn.kv_b_proj", HEADS * (NOPE + VALUES), KV_RANK, 3},
        {"self_attn.o_proj", HIDDEN, HEADS * VALUES, 3},
        {"mlp.gate_proj", 32, HIDDEN, 1},
        {"mlp.up_proj", 32, HIDDEN, 1},
        {"mlp.down_proj", HIDDEN, 32, 1},
        {"mlp.gate", EXPERTS, HIDDEN, 2},
        {"mlp.shared_experts.gate_proj", WIDTH, HIDDEN, 2},
        {"mlp.shared_experts.up_proj", WIDTH, HIDDEN, 2},
        {"mlp.shared_experts.down_proj", HIDDEN, WIDTH, 2},
    };
    for (uint32_t layer = 0; layer < 2; layer++) {
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            snprintf(name, sizeof name, "model.layers.%u.%s.weight", (unsigned)layer, parts[i].name);
            if (parts[i].layers >> layer & 1)
                raw_weight(&m, name, DTYPE_F32, parts[i].rows, parts[i].cols, &seed);
        }
        for (unsigned x = 0; layer == 1 && x < EXPERTS; x++) {
            static const char *const of[] = {"gate", "up", "down"};
            for (int i = 0; i < 3; i++) {
                snprintf(name, sizeof name, "model.layers.1.mlp.experts.%u.%s_proj.weight", x, of[i]);
                raw_weight(&m, name, DTYPE_F32, i < 2 ? WIDTH : HIDDEN, i < 2 ? HIDDEN : WIDTH, &seed);
            }
        }
    }
    raw_weight(&m, "model.layers.1.mlp.gate.e_score_correction_bias", DTYPE_F32, 0, EXPERTS, &seed);
    raw_write(&m, DIR_, false);
    raw_free(&m);
}

/* ---- whole windows ---- */

/* logits[SEGMENTS * CTX, vocab] of windows of these ids; the caller frees them. */
static float *whole_logits(struct model *m, const uint32_t *ids)
{
    struct err e = {0};
    const struct model_config *c = m->cfg;
    const uint32_t rows = SEGMENTS * CTX;
    struct gpu_arena *blocks = NULL, *scratch = NULL;
    struct block_weights b = {0};
    struct block_scratch s;
    struct experts x = {0};
    struct head head;
    struct gpu_view h, out;
    float *logits = malloc((size_t)rows * c->vocab_size * sizeof *logits);
    assert_non_null(logits);
    OK(gpu_arena_create(&blocks, gpu, "block", &e) && gpu_arena_create(&scratch, gpu, "scratch", &e) &&
           block_scratch_create(&s, scratch, m, SEGMENTS, SCRATCH_FORWARD, &e) &&
           gpu_alloc(scratch, (uint64_t)rows * c->hidden_size * 4, &h, &e) &&
           gpu_alloc(scratch, (uint64_t)rows * c->vocab_size * 4, &out, &e) &&
           head_create(&head, scratch, m, true, &e) &&
           (!c->experts.n || experts_create(&x, scratch, m, SEGMENTS, SEGMENTS, true, &e)) &&
           model_embed(m, ids, rows, NULL, h, &e),
       e);
    for (uint32_t layer = 0; layer < c->num_layers; layer++) {
        OK(gpu_cmd_finish(cmd, &e), e);
        gpu_arena_reset(blocks, 0);
        OK(model_load_block(m, layer, blocks, &b, &e), e);
        block_attn_fwd(m, &b, &s, h, h, SEGMENTS);
        if (config_has_experts(c, layer)) {
            experts_begin(&x, layer);
            experts_take(&x, &b, &s, h, SEGMENTS);
        }
        if (block_has_half(b.shape, HALF_FFN))
            block_ffn_fwd(m, &b, &s, h, h, SEGMENTS);
        if (config_has_experts(c, layer)) {
            OK(experts_sort(&x, &e) && experts_all(&x, false, &e), e);
            experts_add(&x, &s, h, 0, SEGMENTS);
        }
    }
    block_rmsnorm(m, h, m->final_norm, s.norm, rows, c->hidden_size);
    OK(head_logits(&head, s.norm, rows, false, out, &e) &&
           gpu_download(cmd, out, logits, (uint64_t)rows * c->vocab_size * 4, &e),
       e);
    experts_free(&x);
    block_weights_free(&b);
    gpu_arena_destroy(&blocks);
    gpu_arena_destroy(&scratch);
    return logits;
}

/* How many tokens, of those that rounding does not decide, are not what the windows' own predictions draw; *of: how many there are. */
static uint32_t differ(struct model *m, const uint32_t *ids, const uint32_t *windows, uint32_t *of)
{
    float *logits = whole_logits(m, windows);
    uint32_t vocab = m->cfg->vocab_size, n = 0;
    *of = 0;
    for (uint32_t i = 0; i < SEGMENTS; i++)
        for (uint32_t at = 0; at + 1 < CTX; at++) {
            double lead;
            float *row = logits + ((size_t)i * CTX + at) * vocab;
            for (uint32_t v = 0; at == 0 && v < vocab; v++)
                row[v] /= 6; /* the first is drawn from more even odds */
            uint32_t want = ref_sampled_label(row, vocab, i, at, SEED, &lead);
            if (lead < 1e-3)
                continue;
            n += ids[i * CTX + at + 1] != want;
            ++*of;
        }
    free(logits);
    return n;
}

/* ---- tests ---- */

static struct sampling sizes(const struct model *m, uint32_t lanes, uint32_t stay, bool far)
{
    (void)m;
    return (struct sampling){
        .length = CTX, .segments = SEGMENTS, .lanes = lanes, .stay = stay, .far = far, .head_stays = true};
}

static void write_text(const struct sampling *s, struct model *m, uint32_t *ids, uint32_t done)
{
    struct err e = {0};
    OK(sampling_run(s, m, 5, SEED, ids, done, NULL, &e), e);
}

static void check_model(const char *what)
{
    struct err e = {0};
    struct checkpoint *ck = NULL;
    struct model *m = NULL;
    uint32_t ids[SEGMENTS * CTX] = {0}, again[SEGMENTS * CTX] = {0}, other[SEGMENTS * CTX], of;
    OK(checkpoint_open(&ck, DIR_, &e) && model_open(&m, cmd, ck, CTX, &e), e);
    struct sampling s = sizes(m, SEGMENTS, m->cfg->num_layers, false);
    write_text(&s, m, ids, 0);
    for (uint32_t i = 0; i < SEGMENTS; i++)
        assert_int_equal(ids[i * CTX], 5);
    uint32_t wrong = differ(m, ids, ids, &of);
    if (wrong || of < SEGMENTS * (CTX - 1) * 9 / 10)
        fail_msg("%s: %u of %u tokens are not what the window predicts", what, wrong, of);
    /* With another past other tokens follow: the comparison sees what attention reads. */
    memcpy(other, ids, sizeof other);
    for (uint32_t i = 0; i < SEGMENTS; i++)
        for (uint32_t at = 0; at < 3; at++)
            other[i * CTX + at] = (other[i * CTX + at] + 7) % m->cfg->vocab_size;
    if (differ(m, ids, other, &of) < 3)
        fail_msg("%s: the past does not matter", what);
    /* Any sizes, and from any segment on: the same text. */
    const struct sampling ways[] = {sizes(m, 3, 0, false), sizes(m, 2, 1, true), sizes(m, 1, 0, true)};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        uint32_t done = i == 1 ? 2 : 0;
        memset(again + (size_t)done * CTX, 0, sizeof again - (size_t)done * CTX * sizeof *again);
        write_text(&ways[i], m, again, done);
        if (memcmp(ids, again, sizeof ids) != 0)
            fail_msg("%s: another text with sizes %zu", what, i);
    }
    model_close(&m);
    checkpoint_close(&ck);
}

static void test_families(void **state)
{
    (void)state;
    /* With windows, without RoPE in places, of a part of a head; fused, biased, capped, normed otherwise. */
    static const char *const names[] = {"llama3.1", "qwen2", "qwen3-windows", "smollm3",
                                        "glm4",     "phi3",  "gemma2",        "gemma3"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct shape *shape = shape_named(names[i]);
        struct raw_model raw;
        struct err e = {0};
        OK(os_remove_tree(DIR_) ? os_mkdirs(DIR_, &e) : false, e);
        family_write(DIR_, shape, &raw);
        check_model(names[i]);
        raw_free(&raw);
    }
}

static void test_experts(void **state)
{
    (void)state;
    struct err e = {0};
    OK(os_remove_tree(DIR_) ? os_mkdirs(DIR_, &e) : false, e);
    write_deepseek();
    check_model("deepseek");
}

/* What is planned is what is taken, within any limit, and passes are fewer where there is more room. */
static void test_sizes(void **state)
{
    (void)state;
    struct err e = {0};
    struct checkpoint *ck = NULL;
    struct model *m = NULL;
    struct raw_model raw;
    struct sampling s, least = {0};
    uint32_t ids[SEGMENTS * CTX];
    OK(os_remove_tree(DIR_) ? os_mkdirs(DIR_, &e) : false, e);
    family_write(DIR_, shape_named("llama3.1"), &raw);
    OK(checkpoint_open(&ck, DIR_, &e) && model_open(&m, cmd, ck, CTX, &e), e);
    assert_true(sampling_can(m->cfg));
    OK(sampling_size(&s, m, SEGMENTS * CTX - 3, UINT64_MAX, 0, &e), e);
    assert_int_equal(s.length, CTX);
    assert_int_equal(s.segments, SEGMENTS);
    assert_int_equal(s.lanes, SEGMENTS);
    assert_int_equal(s.stay, m->cfg->num_layers);
    assert_int_equal(sampling_passes(&s), CTX - 1);
    assert_false(sampling_size(&least, m, SEGMENTS * CTX, gpu_memory_used(gpu) + 4096, UINT64_MAX, &e));
    assert_int_equal(e.kind, ERR_ENV);
    gpu_memory_peak_again(gpu);
    write_text(&s, m, ids, 0);
    assert_int_equal(gpu_memory_peak(gpu), s.device_bytes);
    model_close(&m);
    checkpoint_close(&ck);
    raw_free(&raw);
}

static bool stop_at(void *ctx, uint32_t pass, uint32_t passes)
{
    (void)passes;
    return pass < *(uint32_t *)ctx;
}

/* Segments that were saved before a stop are not written again. */
static bool keep(void *ctx, const uint32_t *ids, uint32_t segments, struct err *e)
{
    (void)ids;
    (void)e;
    ((uint32_t *)ctx)[1] = segments;
    return true;
}

static void test_stop(void **state)
{
    (void)state;
    struct err e = {0};
    struct checkpoint *ck = NULL;
    struct model *m = NULL;
    struct raw_model raw;
    uint32_t ids[SEGMENTS * CTX] = {0}, whole[SEGMENTS * CTX], at[2] = {2 * (CTX - 1) + 4, 0};
    OK(os_remove_tree(DIR_) ? os_mkdirs(DIR_, &e) : false, e);
    family_write(DIR_, shape_named("llama2"), &raw);
    OK(checkpoint_open(&ck, DIR_, &e) && model_open(&m, cmd, ck, CTX, &e), e);
    const struct sampling s = sizes(m, 2, 1, false);
    const struct sampling_hooks hooks = {at, stop_at, keep};
    assert_false(sampling_run(&s, m, 5, SEED, ids, 0, &hooks, &e));
    assert_int_equal(e.kind, ERR_STOPPED);
    assert_int_equal(at[1], 4);
    write_text(&s, m, ids, 4);
    write_text(&s, m, whole, 0);
    assert_memory_equal(ids, whole, sizeof ids);
    /* Where no token begins a text, any does. */
    OK(sampling_run(&s, m, -1, SEED, ids, 0, NULL, &e), e);
    for (uint32_t i = 0; i < SEGMENTS; i++)
        assert_true(ids[i * CTX] < m->cfg->vocab_size && (i == 0 || ids[i * CTX] != ids[0]));
    model_close(&m);
    checkpoint_close(&ck);
    raw_free(&raw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_families, make_dir),
        cmocka_unit_test_setup(test_experts, make_dir),
        cmocka_unit_test_setup(test_sizes, make_dir),
        cmocka_unit_test_setup(test_stop, make_dir),
    };
    return device_done(cmocka_run_group_tests_name("sampling", tests, device_setup, remove_dir));
}
