/* config.json of the families gsq meets, the ways a folder says how it is quantized, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/hf/hf_config.h"

/* A small valid config up to a last comma-free member; `more` is added behind it. */
#define BASE                                                                                                           \
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":64,"                           \
    "\"intermediate_size\":172,\"num_hidden_layers\":5,\"num_attention_heads\":8,\"vocab_size\":512,"                  \
    "\"rms_norm_eps\":1e-05"

static bool parse(struct model_config *c, const char *more, struct err *e)
{
    char text[4096];
    int n = snprintf(text, sizeof text, "%s%s%s}", BASE, *more ? "," : "", more);
    assert_in_range(n, 1, sizeof text - 1);
    return hf_config_parse(c, text, (size_t)n, "config.json", e);
}

static void expect_ok(struct model_config *c, const char *more)
{
    struct err e = {0};
    if (!parse(c, more, &e))
        fail_msg("%s: %s", more, e.msg);
}

static void expect_error(const char *more, const char *says)
{
    struct model_config c;
    struct err e = {0};
    if (parse(&c, more, &e))
        fail_msg("%s was accepted", more);
    if (!strstr(e.msg, says) || !strstr(e.msg, "config.json") || !e.hint[0] || e.kind != ERR_USER)
        fail_msg("%s: expected \"%s\", got \"%s\" (%s)", more, says, e.msg, e.hint);
    assert_null(c.rules);
}

/* Read, shown, and refused by whoever wants to compute. */
static void expect_unsupported(const char *more, const char *says)
{
    struct model_config c;
    struct err e = {0};
    expect_ok(&c, more);
    assert_false(config_supported(&c, &e));
    if (!strstr(e.msg, says) || !strstr(e.msg, "config.json") || !e.hint[0] || e.kind != ERR_USER)
        fail_msg("%s: expected \"%s\", got \"%s\" (%s)", more, says, e.msg, e.hint);
    assert_null(c.rules);
    assert_int_equal(c.quant, QUANT_NONE);
    config_free(&c);
}

static void llama_defaults(void **state)
{
    (void)state;
    struct model_config c;
    expect_ok(&c, "");
    assert_string_equal(c.architecture, "LlamaForCausalLM");
    assert_string_equal(c.model_type, "llama");
    assert_string_equal(c.torch_dtype, "");
    assert_string_equal(c.hidden_act, "silu");
    assert_int_equal(c.hidden_size, 64);
    assert_int_equal(c.intermediate_size, 172);
    assert_int_equal(c.num_layers, 5);
    assert_int_equal(c.num_heads, 8);
    assert_int_equal(c.num_kv_heads, 8);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.vocab_size, 512);
    assert_int_equal(c.max_position, 0);
    assert_int_equal(c.sliding_window, 0);
    assert_true(c.rms_eps == 1e-5f);
    assert_true(c.rope_theta == 10000);
    assert_int_equal(c.rope_scaling, ROPE_UNSCALED);
    assert_false(c.tie_word_embeddings);
    assert_int_equal(c.bos_id, -1);
    assert_int_equal(c.eos_id, -1);
    assert_int_equal(c.quant, QUANT_NONE);
    assert_int_equal(c.n_rules, 0);
    config_free(&c);
}

static void llama3(void **state)
{
    (void)state;
    struct model_config c;
    expect_ok(&c, "\"num_key_value_heads\":2,\"torch_dtype\":\"bfloat16\",\"bos_token_id\":128000,"
                  "\"eos_token_id\":[128001,128008],\"tie_word_embeddings\":true,\"rope_theta\":500000.0,"
                  "\"max_position_embeddings\":131072,\"hidden_act\":\"silu\",\"rope_scaling\":{\"factor\":32.0,"
                  "\"high_freq_factor\":4.0,\"low_freq_factor\":1.0,\"original_max_position_embeddings\":8192,"
                  "\"rope_type\":\"llama3\"}");
    assert_int_equal(c.num_kv_heads, 2);
    assert_string_equal(c.torch_dtype, "bfloat16");
    assert_int_equal(c.bos_id, 128000);
    assert_int_equal(c.eos_id, 128001);
    assert_true(c.tie_word_embeddings);
    assert_int_equal(c.rope_scaling, ROPE_LLAMA3);
    assert_true(c.rope_theta == 500000);
    assert_true(c.rope_factor == 32 && c.rope_low_freq == 1 && c.rope_high_freq == 4);
    assert_int_equal(c.rope_original_context, 8192);
    assert_int_equal(c.max_position, 131072);
    config_free(&c);
}

static void other_families(void **state)
{
    (void)state;
    struct model_config c;
    /* Mistral: a window that counts; newer files write dtype. */
    expect_ok(&c, "\"sliding_window\":4096,\"dtype\":\"float16\",\"head_dim\":128,\"eos_token_id\":null");
    assert_int_equal(c.sliding_window, 4096);
    assert_string_equal(c.torch_dtype, "float16");
    assert_int_equal(c.head_dim, 128);
    config_free(&c);
    /* Qwen2: a window that does not. */
    expect_ok(&c, "\"sliding_window\":32768,\"use_sliding_window\":false,\"bos_token_id\":[7]");
    assert_int_equal(c.sliding_window, 0);
    assert_int_equal(c.bos_id, 7);
    config_free(&c);
    /* Qwen3 and transformers 5: rope_parameters holds theta. */
    expect_ok(&c, "\"rope_parameters\":{\"rope_theta\":1000000,\"rope_type\":\"default\"},\"rope_scaling\":null");
    assert_int_equal(c.rope_scaling, ROPE_UNSCALED);
    assert_true(c.rope_theta == 1000000);
    config_free(&c);
    expect_ok(&c, "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5},\"hidden_act\":\"swish\"");
    assert_int_equal(c.rope_scaling, ROPE_LINEAR);
    assert_true(c.rope_factor == 2.5);
    config_free(&c);
}

static void refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"\"hidden_size\":64", "occurs twice in the file"},
        {"\"num_key_value_heads\":3", "must divide num_attention_heads"},
        {"\"num_key_value_heads\":0", "whole number from 1"},
        {"\"num_key_value_heads\":\"8\"", "whole number from 1"},
        {"\"num_key_value_heads\":4294967297", "whole number from 1"},
        {"\"head_dim\":1.5", "whole number from 1"},
        {"\"head_dim\":7", "must be even"},
        {"\"architectures2\":nan", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_error(bad[i][0], bad[i][1]);
}

/* Nothing that gsq computes, or a value that cannot be right: whoever only looks is shown what there is. */
static void not_computed(void **state)
{
    (void)state;
    static const char *const odd[][2] = {
        {"\"sliding_window\":0", "whole number from 1"},
        {"\"hidden_act\":1", "must be a short string"},
        {"\"tie_word_embeddings\":1", "true or false"},
        {"\"bos_token_id\":\"a\"", "token id"},
        {"\"bos_token_id\":1.5", "token id"},
        {"\"rope_theta\":0", "positive number"},
        {"\"rope_theta\":\"1\"", "positive number"},
        {"\"rope_scaling\":1", "object or null"},
        {"\"rope_scaling\":{\"factor\":2}", "rope_scaling.rope_type\" is missing"},
        {"\"rope_scaling\":{\"type\":\"linear\"}", "rope_scaling.factor\" is missing"},
        {"\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":2}", "low_freq_factor\" is missing"},
        {"\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":2,\"low_freq_factor\":4,\"high_freq_factor\":"
         "4,"
         "\"original_max_position_embeddings\":8}",
         "above low_freq_factor"},
        {"\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2}", "original_max_position_embeddings\" is missing"},
        {"\"rope_scaling\":{\"type\":\"yarn\",\"original_max_position_embeddings\":64}", "factor\" is missing"},
        {"\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2,\"original_max_position_embeddings\":64,\"beta_fast\":0.5}",
         "beta_fast\" must not be below"},
        {"\"rope_theta\":NaN", "positive number"},
        {"\"rms_norm_epsilon\":NaN,\"rope_theta\":-Infinity", "positive number"},
        {"\"layer_types\":[\"full_attention\"],\"sliding_window\":8", "one kind for each layer"},
        {"\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}", "\"dynamic\""},
        {"\"rope_scaling\":{\"rope_type\":\"longrope\",\"short_factor\":[1,1,1,1],\"long_factor\":[1,2,3,4],"
         "\"original_max_position_embeddings\":64}",
         "longrope"},
        {"\"sliding_window\":8,\"layer_types\":[\"full_attention\",\"linear_attention\",\"full_attention\","
         "\"full_attention\",\"sliding_attention\"]",
         "\"linear_attention\""},
        {"\"hidden_act\":\"gelu\"", "activation \"gelu\""},
        {"\"rope_parameters\":{\"full_attention\":{}}", "per kind of layer"},
        {"\"partial_rotary_factor\":0.5", "whole heads"},
        {"\"torch_dtype\":5", "must be a short string"},
        {"\"quantization_config\":[]", "must be an object"},
        {"\"quantization_config\":{}", "\"quant_method\" is missing"},
        {"\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4}", "\"awq\" is not a method that gsq reads"},
        {"\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}", "\"bitsandbytes\""},
        {"\"quantization_config\":{\"quant_method\":\"gptq\"}", "\"bits\""},
        {"\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":16}", "\"bits\""},
        {"\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"sym\":false}", "asymmetric"},
        {"\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"desc_act\":true}", "activation order"},
        {"\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":-2}", "group size"},
        {"\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"checkpoint_format\":\"marlin\"}",
         "\"marlin\""},
        {"\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"pack_dtype\":\"int16\"}", "pack_dtype"},
        {"\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"dynamic\":{\"+:x\":{\"sym\":false}}"
         "}",
         "asymmetric"},
        {"\"quantization_config\":{\"quant_method\":\"humming\",\"b_dtype\":\"float4e2m1\"}", "b_dtype"},
        {"\"quantization_config\":{\"quant_method\":\"humming\",\"b_dtype\":\"uint4\",\"has_zero_point\":"
         "true}",
         "asymmetric"},
        {"\"quantization_config\":{\"quant_method\":\"humming\",\"b_dtype\":\"uint4\",\"a_dtype\":\"int8\"}",
         "quantized activations"},
        {"\"quantization\":{\"bits\":4,\"group_size\":64,\"mode\":\"mxfp4\"}", "must be affine"},
        {"\"quantization\":{\"group_size\":64}", "\"bits\""},
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        expect_unsupported(odd[i][0], odd[i][1]);
}

/* Models that read more than text keep the text's part apart; its family goes by its model_type. */
#define TEXT_PART                                                                                                      \
    "\"text_config\":{\"architectures\":[\"Other\"],\"model_type\":\"%s\",\"hidden_size\":64,"                         \
    "\"intermediate_size\":172,\"num_hidden_layers\":5,\"num_attention_heads\":8,\"vocab_size\":512,"                  \
    "\"rms_norm_eps\":1e-05,\"bos_token_id\":3%s}}"

static void parse_text_part(struct model_config *c, const char *type, const char *part)
{
    char text[1024];
    struct err e = {0};
    snprintf(
        text, sizeof text,
        "{\"architectures\":[\"Mistral3ForConditionalGeneration\"],\"model_type\":\"mistral3\",\"dtype\":\"bfloat16\","
        "\"eos_token_id\":4,\"tie_word_embeddings\":true," TEXT_PART,
        type, part);
    if (!hf_config_parse(c, text, strlen(text), "config.json", &e))
        fail_msg("%s: %s", text, e.msg);
}

static void text_part(void **state)
{
    (void)state;
    struct model_config c;
    struct err e = {0};
    parse_text_part(&c, "mistral", "");
    assert_true(config_supported(&c, &e));
    assert_string_equal(c.wrapper, "Mistral3ForConditionalGeneration");
    assert_string_equal(c.architecture, "");
    assert_string_equal(c.model_type, "mistral");
    assert_string_equal(c.torch_dtype, "bfloat16");
    assert_int_equal(c.hidden_size, 64);
    assert_int_equal(c.bos_id, 3);
    assert_int_equal(c.eos_id, 4); /* said outside */
    assert_true(c.tie_word_embeddings);
    config_free(&c);
    parse_text_part(&c, "mistral", ",\"tie_word_embeddings\":false");
    assert_false(c.tie_word_embeddings);
    config_free(&c);
    parse_text_part(&c, "mistral",
                    ",\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]}");
    assert_int_equal(c.quant, QUANT_FP8);
    config_free(&c);
    parse_text_part(&c, "mllama_text_model", "");
    assert_false(config_supported(&c, &e));
    assert_non_null(
        strstr(e.msg, "does not support the text part \"mllama_text_model\" of Mistral3ForConditionalGeneration"));
    config_free(&c);
    parse_text_part(&c, "llama", ",\"rope_scaling\":{\"rope_type\":\"odd\"}");
    assert_false(config_supported(&c, &e));
    assert_non_null(strstr(e.msg, "\"odd\""));
    config_free(&c);
}

/* Which layers slide, by the rules of transformers. */
static void windows(void **state)
{
    (void)state;
    static const struct {
        const char *architecture, *more;
        uint32_t window;    /* 0: no layer slides */
        const char *slides; /* of the five layers; NULL: all */
    } cases[] = {
        {"Qwen2", "\"sliding_window\":24", 0, NULL},
        {"Qwen2", "\"sliding_window\":24,\"use_sliding_window\":false,\"max_window_layers\":0", 0, NULL},
        {"Qwen2", "\"sliding_window\":24,\"use_sliding_window\":true", 0, NULL},
        {"Qwen2", "\"sliding_window\":24,\"use_sliding_window\":true,\"max_window_layers\":5", 0, NULL},
        {"Qwen2", "\"sliding_window\":24,\"use_sliding_window\":true,\"max_window_layers\":3", 24, "00011"},
        {"Qwen3", "\"sliding_window\":24,\"use_sliding_window\":true,\"max_window_layers\":0", 24, NULL},
        {"Qwen3", "\"use_sliding_window\":true,\"max_window_layers\":4", 4096, "00001"},
        {"Qwen3", "\"sliding_window\":null,\"use_sliding_window\":true,\"max_window_layers\":4", 0, NULL},
        {"Qwen3",
         "\"sliding_window\":24,\"use_sliding_window\":true,\"max_window_layers\":4,\"layer_types\":[\"sliding_"
         "attention\","
         "\"full_attention\",\"sliding_attention\",\"full_attention\",\"full_attention\"]",
         24, "10100"},
        {"Qwen2",
         "\"sliding_window\":24,\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\","
         "\"full_attention\",\"full_attention\"]",
         0, NULL},
        {"Mistral", "\"sliding_window\":24", 24, NULL},
        {"Mistral", "\"sliding_window\":null", 0, NULL},
        {"Mistral", "\"hidden_act\":\"silu\"", 4096, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct model_config c, again;
        struct err e = {0};
        char text[2048], *made;
        size_t size;
        int n =
            snprintf(text, sizeof text,
                     "{\"architectures\":[\"%sForCausalLM\"],\"model_type\":\"%c%s\",\"hidden_size\":64,"
                     "\"intermediate_size\":172,\"num_hidden_layers\":5,\"num_attention_heads\":8,"
                     "\"vocab_size\":512,\"rms_norm_eps\":1e-05,%s}",
                     cases[i].architecture, cases[i].architecture[0] | 0x20, cases[i].architecture + 1, cases[i].more);
        if (!hf_config_parse(&c, text, (size_t)n, "config.json", &e))
            fail_msg("%s: %s", text, e.msg);
        for (uint32_t l = 0; l < 5; l++) {
            uint32_t want = cases[i].slides && cases[i].slides[l] == '0' ? 0 : cases[i].window;
            if (config_window(&c, l) != want)
                fail_msg("%s: layer %u sees %u, not %u", text, l, config_window(&c, l), want);
        }
        /* And the same from the text that is made of it. */
        assert_true(hf_config_text(&c, &made, &size, &e));
        if (!hf_config_parse(&again, made, size, "config.json", &e))
            fail_msg("%s: %s", made, e.msg);
        for (uint32_t l = 0; l < 5; l++)
            if (config_window(&c, l) != config_window(&again, l))
                fail_msg("%s: layer %u slides otherwise in %s", text, l, made);
        free(made);
        config_free(&again);
        config_free(&c);
    }
}

/* The numbers of Qwen3's model card and of DeepSeek-V3, worked out by hand from yarn's formulas. */
#define LATENT                                                                                                         \
    "{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"model_type\":\"deepseek_v3\",\"hidden_size\":64,"                \
    "\"intermediate_size\":96,\"moe_intermediate_size\":32,\"num_hidden_layers\":3,\"num_attention_heads\":6,"         \
    "\"num_key_value_heads\":1,\"head_dim\":8,\"vocab_size\":512,\"rms_norm_eps\":1e-06,\"n_routed_experts\":8,"       \
    "\"num_experts_per_tok\":2,\"n_shared_experts\":2,\"first_k_dense_replace\":1,\"n_group\":4,\"topk_group\":2,"     \
    "\"scoring_func\":\"sigmoid\",\"topk_method\":\"noaux_tc\",\"routed_scaling_factor\":2.5,\"kv_lora_rank\":32,"     \
    "\"qk_nope_head_dim\":16,\"max_position_embeddings\":163840,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":40,"    \
    "\"original_max_position_embeddings\":4096,\"mscale\":1.0,\"mscale_all_dim\":1.0}"

static void latent(void **state)
{
    (void)state;
    static const struct {
        const char *more, *says;
    } refused[] = {
        {",\"q_lora_rank\":40,\"qk_rope_head_dim\":8,\"v_head_dim\":25}", "\"v_head_dim\" is more than"},
        {",\"q_lora_rank\":40,\"qk_rope_head_dim\":8,\"v_head_dim\":20,\"rope_interleave\":false}",
         "\"rope_interleave\""},
    };
    struct model_config c;
    struct err e = {0};
    const char text[] = LATENT ",\"q_lora_rank\":40,\"qk_rope_head_dim\":8,\"v_head_dim\":20}";
    assert_true(hf_config_parse(&c, text, sizeof text - 1, "config.json", &e));
    assert_true(config_supported(&c, &e));
    /* Heads of 16 + 8, whatever head_dim and num_key_value_heads say. */
    assert_int_equal(c.head_dim, 24);
    assert_int_equal(c.num_kv_heads, 6);
    assert_int_equal(config_rope_dim(&c), 8);
    assert_int_equal(c.mla.q_rank, 40);
    assert_int_equal(c.mla.kv_rank, 32);
    assert_int_equal(c.mla.values, 20);
    /* mscale: 1 for cos and sin, (0.1 ln 40 + 1)^2 for scores. */
    assert_true(rope_attention(&c) == 1);
    assert_true(fabs(config_attention_scale(&c) * sqrt(24) - 1.3688879454113936 * 1.3688879454113936) < 1e-12);
    assert_int_equal(c.experts.gating, GATING_SIGMOID);
    assert_int_equal(c.experts.shared_width, 64);
    assert_true(c.experts.renormalise && c.experts.groups == 4 && c.experts.groups_used == 2);
    config_free(&c);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char odd[2048];
        int n = snprintf(odd, sizeof odd, "%s%s", LATENT, refused[i].more);
        assert_true(hf_config_parse(&c, odd, (size_t)n, "config.json", &e));
        assert_false(config_supported(&c, &e));
        assert_non_null(strstr(e.msg, refused[i].says));
        config_free(&c);
    }
    const char bad[] = LATENT ",\"q_lora_rank\":40,\"qk_rope_head_dim\":7,\"v_head_dim\":20}";
    assert_false(hf_config_parse(&c, bad, sizeof bad - 1, "config.json", &e));
    assert_non_null(strstr(e.msg, "\"qk_rope_head_dim\" must be even"));
}

static void yarn(void **state)
{
    (void)state;
    struct model_config c;
    expect_ok(&c, "\"head_dim\":128,\"rope_theta\":1000000.0,\"max_position_embeddings\":131072,\"rope_scaling\":{"
                  "\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":32768}");
    assert_int_equal(c.rope_scaling, ROPE_YARN);
    assert_true(c.rope_beta_fast == 32 && c.rope_beta_slow == 1);
    assert_true(fabs(rope_attention(&c) - 1.138629436111989) < 1e-12);
    /* 32 turns: pair 23.59, so 23 and less are kept; one turn: pair 39.65, so from 40 on a quarter. */
    assert_true(rope_frequency(&c, 23) == pow(1e6, -46.0 / 128));
    assert_true(fabs(rope_frequency(&c, 40) / (pow(1e6, -80.0 / 128) / 4) - 1) < 1e-12);
    double f = pow(1e6, -64.0 / 128), ramp = 9.0 / 17;
    assert_true(fabs(rope_frequency(&c, 32) / (f * (1 - ramp) + f / 4 * ramp) - 1) < 1e-12);
    config_free(&c);
    /* One mscale for both: cos and sin stay as they are. Its factor is the ratio where none is said. */
    expect_ok(&c,
              "\"head_dim\":64,\"max_position_embeddings\":163840,\"rope_scaling\":{\"type\":\"yarn\",\"mscale\":1.0,"
              "\"mscale_all_dim\":1.0,\"beta_fast\":1,\"beta_slow\":1,\"original_max_position_embeddings\":4096}");
    assert_true(rope_attention(&c) == 1 && c.rope_factor == 40);
    /* Both bounds lie around pair 22.5: 22 is kept, 23 and all behind are stretched. */
    assert_true(rope_frequency(&c, 22) == pow(1e4, -44.0 / 64));
    assert_true(fabs(rope_frequency(&c, 23) * 40 / pow(1e4, -46.0 / 64) - 1) < 1e-12);
    config_free(&c);
    /* gpt-oss's: no rounding of the bounds. */
    expect_ok(&c, "\"head_dim\":64,\"rope_theta\":150000,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":32.0,"
                  "\"beta_fast\":32.0,\"beta_slow\":1.0,\"truncate\":false,\"original_max_position_embeddings\":4096}");
    assert_true(c.rope_unrounded);
    double low = 64 * log(4096 / (32 * 6.283185307179586)) / (2 * log(150000.0));
    double high = 64 * log(4096 / 6.283185307179586) / (2 * log(150000.0));
    f = pow(150000.0, -24.0 / 64);
    ramp = (12 - low) / (high - low);
    assert_true(low < 12 && high > 12);
    assert_true(fabs(rope_frequency(&c, 12) / (f * (1 - ramp) + f / 32 * ramp) - 1) < 1e-12);
    config_free(&c);
    /* longrope with one list is a factor for each pair: what gsq writes of a GGUF's rope_freqs. */
    expect_ok(&c,
              "\"max_position_embeddings\":128,\"rope_scaling\":{\"rope_type\":\"longrope\",\"attention_factor\":1.5,"
              "\"original_max_position_embeddings\":128,\"short_factor\":[1,1.5,2,4],\"long_factor\":[1,1.5,2,4]}");
    assert_int_equal(c.rope_scaling, ROPE_FACTORS);
    assert_true(rope_attention(&c) == 1.5 && rope_frequency(&c, 3) == pow(1e4, -6.0 / 8) / 4);
    config_free(&c);
}

/* NaN and Infinity as Python writes them, and the same words inside strings. */
static void python_numbers(void **state)
{
    (void)state;
    struct model_config c;
    expect_ok(
        &c,
        "\"a\":[0.0,Infinity,-Infinity,NaN],\"b\":\"NaN, \\\" Infinity\",\"hidden_act\":\"silu\",\"c\":{\"NaN\":NaN},"
        "\"rope_theta\":5e5");
    assert_true(c.rope_theta == 5e5);
    config_free(&c);
}

/* Values of kinds that gsq does not expect: of a family it does not compute all, of one that it does all but the shape. */
static void odd_kinds(void **state)
{
    (void)state;
    static const char unknown[] = "{\"architectures\":[\"OpenELMForCausalLM\"],\"hidden_size\":64,"
                                  "\"num_attention_heads\":[3,4],\"vocab_size\":9,\"rope_theta\":\"high\"}",
                      known[] = "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":{},\"hidden_size\":64,"
                                "\"intermediate_size\":172,\"num_hidden_layers\":5,\"num_attention_heads\":8,"
                                "\"vocab_size\":512,\"rms_norm_eps\":1e-05}";
    struct model_config c;
    struct err e = {0};
    assert_true(hf_config_parse(&c, unknown, sizeof unknown - 1, "config.json", &e));
    assert_int_equal(c.hidden_size, 64);
    assert_false(config_supported(&c, &e));
    assert_non_null(strstr(e.msg, "\"num_attention_heads\" must be a whole number"));
    config_free(&c);
    assert_true(hf_config_parse(&c, known, sizeof known - 1, "config.json", &e));
    assert_int_equal(c.num_layers, 5);
    assert_false(config_supported(&c, &e));
    assert_non_null(strstr(e.msg, "\"model_type\" must be a short string"));
    config_free(&c);
}

static void required_keys(void **state)
{
    (void)state;
    static const char *const texts[][2] = {
        {"", "not valid JSON"},
        {"[]", "does not hold an object"},
        {"{}", "\"hidden_size\" is missing"},
        {"{\"hidden_size\":64,\"intermediate_size\":1,\"num_hidden_layers\":1,\"num_attention_heads\":7,"
         "\"vocab_size\":9,\"rms_norm_eps\":1e-5}",
         "does not divide hidden_size"},
        {"{\"hidden_size\":64,\"intermediate_size\":1,\"num_hidden_layers\":1,\"num_attention_heads\":8,"
         "\"vocab_size\":9}",
         "\"rms_norm_eps\" is missing"},
        {"{\"architectures\":[1]}", "list of names"},
        {"{\"HIDDEN_SIZE\":64}", "\"hidden_size\" is missing"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct model_config c;
        struct err e = {0};
        bool read = hf_config_parse(&c, texts[i][0], strlen(texts[i][0]), "c.json", &e);
        assert_false(read && config_supported(&c, &e));
        config_free(&c);
        if (!strstr(e.msg, texts[i][1]) || !strstr(e.msg, "c.json"))
            fail_msg("%s: expected \"%s\", got \"%s\"", texts[i][0], texts[i][1], e.msg);
    }
}

static void expect_rule(const struct model_config *c, size_t i, const char *regex, bool skip, unsigned bits,
                        uint32_t group)
{
    assert_true(i < c->n_rules);
    const struct quant_rule *r = &c->rules[i];
    if (regex) {
        assert_non_null(r->regex);
        assert_string_equal(r->regex, regex);
    } else {
        assert_null(r->regex);
    }
    assert_int_equal(r->skip, skip);
    assert_int_equal(r->bits, bits);
    assert_int_equal(r->group, group);
}

static void gptq(void **state)
{
    (void)state;
    struct model_config c;
    expect_ok(&c, "\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":2,\"group_size\":128,\"sym\":true,"
                  "\"desc_act\":false,\"lm_head\":false,\"checkpoint_format\":\"gptq\",\"pack_dtype\":\"int32\","
                  "\"dynamic\":{\"-:.*\\\\.0\\\\.\":{},\"+:.*down_proj$\":{\"bits\":4},"
                  "\".*v_proj\":{\"bits\":3,\"group_size\":-1}}}");
    assert_int_equal(c.quant, QUANT_GPTQ);
    assert_int_equal(c.n_rules, 5);
    expect_rule(&c, 0, "^lm_head\\z", true, 0, 0);
    expect_rule(&c, 1, "^(?:.*\\.0\\.)", true, 0, 0);
    expect_rule(&c, 2, "^(?:.*down_proj$)", false, 4, 128);
    expect_rule(&c, 3, "^(?:.*v_proj)", false, 3, 0);
    expect_rule(&c, 4, NULL, false, 2, 128);
    config_free(&c);
    expect_ok(&c, "\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":-1,"
                  "\"checkpoint_format\":\"gptq_v2\",\"lm_head\":true,\"dynamic\":null}");
    assert_int_equal(c.quant, QUANT_GPTQ_V2);
    assert_int_equal(c.n_rules, 1);
    expect_rule(&c, 0, NULL, false, 4, 0);
    config_free(&c);
}

#define CT(groups, more)                                                                                               \
    "\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\","                  \
    "\"config_groups\":{" groups "}" more "}"
#define CT_GROUP(targets, bits, more)                                                                                  \
    "{\"targets\":[" targets "],\"weights\":{\"num_bits\":" bits ",\"type\":\"int\",\"symmetric\":true,"               \
    "\"strategy\":\"group\",\"group_size\":64,\"dynamic\":false" more "},\"input_activations\":null}"

static void compressed_tensors(void **state)
{
    (void)state;
    struct model_config c;
    expect_ok(&c, CT("\"group_0\":" CT_GROUP("\"Linear\"", "2", ",\"actorder\":null"),
                     ",\"ignore\":[\"lm_head\",\"re:.*gate$\"],\"kv_cache_scheme\":null"));
    assert_int_equal(c.quant, QUANT_COMPRESSED_TENSORS);
    assert_int_equal(c.n_rules, 3);
    expect_rule(&c, 0, "^lm_head\\z", true, 0, 0);
    expect_rule(&c, 1, "^(?:.*gate$)", true, 0, 0);
    expect_rule(&c, 2, NULL, false, 2, 64);
    config_free(&c);

    /* Exact names before patterns before the class, in whatever order the groups stand. */
    expect_ok(&c, CT("\"a\":" CT_GROUP("\"Linear\"", "2", "") ",\"b\":" CT_GROUP(
                         "\"re:.*v_proj\",\"model.layers.0.mlp.up_proj\"", "4", ""),
                     ""));
    assert_int_equal(c.n_rules, 3);
    expect_rule(&c, 0, "^model\\.layers\\.0\\.mlp\\.up_proj\\z", false, 4, 64);
    expect_rule(&c, 1, "^(?:.*v_proj)", false, 4, 64);
    expect_rule(&c, 2, NULL, false, 2, 64);
    config_free(&c);

    /* Without the class, everything else stays in 16 bits; per channel. */
    expect_ok(&c, CT("\"a\":{\"targets\":[\"re:x\"],\"weights\":{\"num_bits\":8,\"strategy\":\"channel\"}}", ""));
    assert_int_equal(c.n_rules, 2);
    expect_rule(&c, 0, "^(?:x)", false, 8, 0);
    expect_rule(&c, 1, NULL, true, 0, 0);
    config_free(&c);

    expect_ok(&c, CT("\"a\":" CT_GROUP("\"Linear\"", "4", ",\"actorder\":\"static\""), ""));
    config_free(&c);

    expect_unsupported(CT("", ""), "config_groups");
    expect_unsupported(CT("\"W4A16\":[\"Linear\"]", ""), "preset scheme");
    expect_unsupported(CT("\"a\":" CT_GROUP("\"Linear\"", "4", ",\"actorder\":\"group\""), ""), "activation order");
    expect_unsupported(CT("\"a\":" CT_GROUP("\"Linear\"", "9", ""), ""), "num_bits");
    expect_unsupported(CT("\"a\":" CT_GROUP("\"Linear\"", "4", "") ",\"b\":" CT_GROUP("\"Linear\"", "2", ""), ""),
                       "two groups");
    expect_unsupported(CT("\"a\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":4,\"type\":\"float\"}}", ""),
                       "floating-point");
    expect_unsupported(CT("\"a\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":4,\"symmetric\":false}}", ""),
                       "asymmetric");
    expect_unsupported(CT("\"a\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":4,\"strategy\":\"block\"}}", ""),
                       "strategy");
    expect_unsupported(CT("\"a\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":4},\"input_activations\":{}}", ""),
                       "quantized activations");
    expect_unsupported(CT("\"a\":" CT_GROUP("\"Linear\"", "4", ""), ",\"kv_cache_scheme\":{}"),
                       "quantized activations");
    expect_unsupported(CT("\"a\":" CT_GROUP("\"Linear\"", "4", ""), ",\"transform_config\":{\"x\":1}"), "transformed");
    expect_unsupported(CT("\"a\":" CT_GROUP("\"Linear\"", "4", ""), ",\"ignore\":\"lm_head\""), "ignore");
    expect_unsupported(
        "\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"nvfp4-pack-quantized\"}",
        "\"nvfp4-pack-quantized\"");
}

#define FP8(more) "\"quantization_config\":{\"quant_method\":\"fp8\"" more "}"
#define FLOATS(format, weights)                                                                                        \
    "\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"" format                            \
    "\",\"config_groups\":{\"a\":{\"targets\":[\"re:.*experts.*\"],\"input_activations\":{\"dynamic\":true},"          \
    "\"weights\":{" weights "}}}}"

static void narrow_floats(void **state)
{
    (void)state;
    struct model_config c;
    expect_ok(&c, FP8(",\"fmt\":\"e4m3\",\"activation_scheme\":\"dynamic\",\"weight_block_size\":[128,64],"
                      "\"modules_to_not_convert\":[\"lm_head\"]"));
    assert_int_equal(c.quant, QUANT_FP8);
    assert_int_equal(c.n_rules, 1);
    expect_rule(&c, 0, NULL, false, 8, 64);
    assert_int_equal(c.rules[0].block_rows, 128);
    assert_true(c.rules[0].floats);
    config_free(&c);
    expect_ok(&c, FP8(",\"weight_block_size\":null"));
    assert_int_equal(c.rules[0].block_rows, 0);
    config_free(&c);
    expect_ok(&c, FLOATS("float-quantized", "\"num_bits\":8,\"type\":\"float\",\"strategy\":\"channel\""));
    assert_int_equal(c.quant, QUANT_COMPRESSED_TENSORS);
    expect_rule(&c, 0, "^(?:.*experts.*)", false, 8, 0);
    assert_true(c.rules[0].floats);
    config_free(&c);
    expect_ok(&c, FLOATS("mxfp4-pack-quantized", "\"num_bits\":4,\"type\":\"float\",\"group_size\":32"));
    expect_rule(&c, 0, "^(?:.*experts.*)", false, 4, 32);
    config_free(&c);

    expect_unsupported(FP8(",\"fmt\":\"e5m2\""), "e5m2");
    expect_unsupported(FP8(",\"weight_block_size\":[128]"), "weight_block_size");
    expect_unsupported(FP8(",\"weight_block_size\":[128,0]"), "weight_block_size");
    expect_unsupported(FLOATS("float-quantized", "\"num_bits\":8,\"type\":\"int\""), "must be float");
    expect_unsupported(FLOATS("float-quantized", "\"num_bits\":6,\"type\":\"float\""), "must be float");
    expect_unsupported(FLOATS("float-quantized", "\"num_bits\":8,\"type\":\"float\",\"strategy\":\"block\""),
                       "block_structure");
    expect_unsupported(FLOATS("pack-quantized", "\"num_bits\":4,\"group_size\":32"), "quantized activations");
}

static void humming_and_mlx(void **state)
{
    (void)state;
    struct model_config c;
    expect_ok(&c, "\"quantization_config\":{\"quant_method\":\"humming\",\"b_dtype\":\"uint3\",\"group_size\":128,"
                  "\"has_zero_point\":false,\"is_fp_zero_point\":false,\"ignore\":[\"lm_head\"],"
                  "\"dynamic\":{\"+:.*q_proj\":{\"b_dtype\":\"int4\",\"group_size\":64},\"-:.*k_proj\":{}}}");
    assert_int_equal(c.quant, QUANT_HUMMING);
    assert_int_equal(c.n_rules, 4);
    expect_rule(&c, 0, "^lm_head\\z", true, 0, 0);
    expect_rule(&c, 1, "^(?:.*q_proj)", false, 4, 64);
    expect_rule(&c, 2, "^(?:.*k_proj)", true, 0, 0);
    expect_rule(&c, 3, NULL, false, 3, 128);
    config_free(&c);

    /* MLX writes its object twice. */
    expect_ok(&c, "\"quantization\":{\"group_size\":64,\"bits\":2,\"mode\":\"affine\",\"lm_head\":false,"
                  "\"model.embed_tokens\":{\"group_size\":32,\"bits\":6},\"model.layers.0.mlp.up_proj\":true},"
                  "\"quantization_config\":{\"group_size\":64,\"bits\":2}");
    assert_int_equal(c.quant, QUANT_MLX);
    assert_int_equal(c.n_rules, 3);
    expect_rule(&c, 0, "^lm_head\\z", true, 0, 0);
    expect_rule(&c, 1, "^model\\.embed_tokens\\z", false, 6, 32);
    expect_rule(&c, 2, NULL, false, 2, 64);
    config_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_defaults),
        cmocka_unit_test(llama3),
        cmocka_unit_test(other_families),
        cmocka_unit_test(refused),
        cmocka_unit_test(not_computed),
        cmocka_unit_test(windows),
        cmocka_unit_test(text_part),
        cmocka_unit_test(yarn),
        cmocka_unit_test(latent),
        cmocka_unit_test(python_numbers),
        cmocka_unit_test(required_keys),
        cmocka_unit_test(odd_kinds),
        cmocka_unit_test(gptq),
        cmocka_unit_test(compressed_tensors),
        cmocka_unit_test(humming_and_mlx),
        cmocka_unit_test(narrow_floats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
