/* Names and row order of GGUF against docs/formats.md 7, there and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arch/family.h"
#include "formats/gguf/gguf_names.h"

static const struct model_config plain;

static void known_names(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"model.embed_tokens", "token_embd"},
        {"model.norm.weight", "output_norm.weight"},
        {"lm_head.weight", "output.weight"},
        {"model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"},
        {"model.layers.3.self_attn.q_proj", "blk.3.attn_q"},
        {"model.layers.31.self_attn.k_proj.bias", "blk.31.attn_k.bias"},
        {"model.layers.9.self_attn.v_proj.weight", "blk.9.attn_v.weight"},
        {"model.layers.10.self_attn.o_proj.weight", "blk.10.attn_output.weight"},
        {"model.layers.1.self_attn.q_norm.weight", "blk.1.attn_q_norm.weight"},
        {"model.layers.1.self_attn.k_norm.weight", "blk.1.attn_k_norm.weight"},
        {"model.layers.1.post_attention_layernorm.weight", "blk.1.ffn_norm.weight"},
        {"model.layers.1.mlp.gate_proj", "blk.1.ffn_gate"},
        {"model.layers.1.mlp.up_proj", "blk.1.ffn_up"},
        {"model.layers.999999.mlp.down_proj.weight", "blk.999999.ffn_down.weight"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        char name[64], hf[96];
        assert_true(gguf_name_of(&plain, pairs[i][0], name, sizeof name));
        assert_string_equal(name, pairs[i][1]);
        assert_true(gguf_name_to_hf(&plain, pairs[i][1], 0, hf, sizeof hf));
        assert_string_equal(hf, pairs[i][0]);
    }
}

/* Of models that read more than text. */
static void prefixed_names(void **state)
{
    (void)state;
    static const char *const pairs[][3] = {
        {"", "embed_tokens.weight", "token_embd.weight"},
        {"", "norm.weight", "output_norm.weight"},
        {"", "layers.3.self_attn.q_proj", "blk.3.attn_q"},
    };
    const struct config_names *n;
    for (size_t k = 0; (n = config_names_at(k)); k++) {
        struct model_config c = {.wrapper = "W"};
        char hf[96], name[96], out[96];
        snprintf(c.prefix, sizeof c.prefix, "%s", n->prefix);
        snprintf(c.head, sizeof c.head, "%s", n->head);
        for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
            snprintf(hf, sizeof hf, "%s%s", n->prefix, pairs[i][1]);
            assert_true(gguf_name_of(&c, hf, name, sizeof name));
            assert_string_equal(name, pairs[i][2]);
            assert_true(gguf_name_to_hf(&c, name, 0, out, sizeof out));
            assert_string_equal(out, hf);
            assert_true(config_is_text(&c, hf));
        }
        snprintf(hf, sizeof hf, "%s.weight", n->head);
        assert_true(gguf_name_of(&c, hf, name, sizeof name));
        assert_string_equal(name, "output.weight");
        assert_false(config_is_text(&c, "vision_tower.layers.0.self_attn.q_proj.weight"));
        assert_false(gguf_name_of(&c, "vision_tower.layers.0.self_attn.q_proj.weight", name, sizeof name));
        assert_int_equal(k == 0, gguf_name_of(&c, "model.layers.0.mlp.up_proj", name, sizeof name));
    }
}

/* All experts of a layer are one tensor; back it is one of them that is named, as its family names it. */
static void experts(void **state)
{
    (void)state;
    static const struct {
        const char *architecture, *hf, *gguf;
        uint32_t expert;
    } list[] = {
        {"Qwen3MoeForCausalLM", "model.layers.3.mlp.experts.17.gate_proj.weight", "blk.3.ffn_gate_exps.weight", 17},
        {"Qwen2MoeForCausalLM", "model.layers.3.mlp.experts.0.down_proj", "blk.3.ffn_down_exps", 0},
        {"Qwen2MoeForCausalLM", "model.layers.3.mlp.shared_expert.up_proj.weight", "blk.3.ffn_up_shexp.weight", 0},
        {"Qwen2MoeForCausalLM", "model.layers.3.mlp.shared_expert_gate.weight", "blk.3.ffn_gate_inp_shexp.weight", 0},
        {"Qwen3MoeForCausalLM", "model.layers.0.mlp.gate.weight", "blk.0.ffn_gate_inp.weight", 0},
        {"MixtralForCausalLM", "model.layers.0.block_sparse_moe.gate.weight", "blk.0.ffn_gate_inp.weight", 0},
        {"MixtralForCausalLM", "model.layers.31.block_sparse_moe.experts.7.w3.weight", "blk.31.ffn_up_exps.weight", 7},
        {"Qwen3_5ForCausalLM", "model.layers.2.linear_attn.A_log", "blk.2.ssm_a", 0},
        {"Qwen3_5ForCausalLM", "model.layers.2.linear_attn.dt_bias", "blk.2.ssm_dt.bias", 0},
        {"Qwen3_5ForCausalLM", "model.layers.2.linear_attn.conv1d.weight", "blk.2.ssm_conv1d.weight", 0},
        {"Qwen3_5ForCausalLM", "model.layers.2.linear_attn.norm.weight", "blk.2.ssm_norm.weight", 0},
        {"Qwen3_5ForCausalLM", "model.layers.2.linear_attn.in_proj_qkv.weight", "blk.2.attn_qkv.weight", 0},
        {"Qwen3_5ForCausalLM", "model.layers.2.linear_attn.in_proj_z.weight", "blk.2.attn_gate.weight", 0},
        {"Qwen3_5ForCausalLM", "model.layers.2.post_attention_layernorm.weight", "blk.2.post_attention_norm.weight", 0},
        {"Qwen3NextForCausalLM", "model.layers.2.linear_attn.in_proj_qkvz.weight", "blk.2.ssm_in.weight", 0},
        {"Qwen3NextForCausalLM", "model.layers.2.linear_attn.in_proj_ba.weight", "blk.2.ssm_ba.weight", 0},
        {"Qwen3NextForCausalLM", "model.layers.3.self_attn.q_proj.weight", "blk.3.attn_q.weight", 0},
        {"GptOssForCausalLM", "model.layers.2.mlp.experts.7.down_proj.weight", "blk.2.ffn_down_exps.weight", 7},
        {"GptOssForCausalLM", "model.layers.2.mlp.router.bias", "blk.2.ffn_gate_inp.bias", 0},
        {"GptOssForCausalLM", "model.layers.2.self_attn.sinks", "blk.2.attn_sinks.weight", 0},
        {"Glm4MoeForCausalLM", "model.layers.2.post_attention_layernorm.weight", "blk.2.post_attention_norm.weight", 0},
        {"GraniteMoeForCausalLM", "model.layers.2.block_sparse_moe.router.layer.weight", "blk.2.ffn_gate_inp.weight",
         0},
    };
    char name[64], hf[96];
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct model_config c = {0};
        snprintf(c.architecture, sizeof c.architecture, "%s", list[i].architecture);
        assert_true(gguf_name_of(&c, list[i].hf, name, sizeof name));
        assert_string_equal(name, list[i].gguf);
        assert_true(gguf_name_to_hf(&c, name, list[i].expert, hf, sizeof hf));
        assert_string_equal(hf, list[i].hf);
        assert_int_equal(gguf_name_of_experts(name), strstr(name, "_exps") && strchr(strstr(name, "_exps"), '.'));
    }
    /* A vector that is called so, whole. */
    assert_true(gguf_name_of(&plain, "model.layers.2.mlp.gate.e_score_correction_bias", name, sizeof name));
    assert_string_equal(name, "blk.2.exp_probs_b.bias");
    assert_true(gguf_name_to_hf(&plain, "blk.2.exp_probs_b.bias", 0, hf, sizeof hf));
    assert_string_equal(hf, "model.layers.2.mlp.gate.e_score_correction_bias");
    assert_false(gguf_name_of(&plain, "model.layers.2.mlp.gate.e_score_correction_bias.weight", name, sizeof name));
    assert_false(gguf_name_to_hf(&plain, "blk.2.exp_probs_b.weight", 0, hf, sizeof hf));
}

static void unknown_names(void **state)
{
    (void)state;
    static const char *const hf[] = {
        "",
        ".weight",
        "model.embed_tokens.weight.weight",
        "model.layers..mlp.up_proj",
        "blk.0.attn_q",
        "model.layers.0",
        "model.layers.01.mlp.up_proj",
        "model.layers.0.mlp.up_projx",
        "lm_headx",
        "model.layers.0.",
        "model.layers.99999999999999.mlp.up_proj",
        "model.layers.-1.mlp.up_proj",
    };
    char out[96];
    for (size_t i = 0; i < sizeof hf / sizeof hf[0]; i++)
        assert_false(gguf_name_of(&plain, hf[i], out, sizeof out));
    static const char *const gguf[] = {"rope_freqs.weight", "blk.0.attn_sinks.bias", "output.scale", "blk.x.attn_q",
                                       "model.norm.weight"};
    for (size_t i = 0; i < sizeof gguf / sizeof gguf[0]; i++)
        assert_false(gguf_name_to_hf(&plain, gguf[i], 0, out, sizeof out));
    assert_false(gguf_name_of(&plain, "model.layers.3.self_attn.q_proj", out, 12)); /* "blk.3.attn_q" and its NUL */
    assert_true(gguf_name_of(&plain, "model.layers.3.self_attn.q_proj", out, 13));
}

static void permuted_modules(void **state)
{
    (void)state;
    struct model_config c = {.model_type = "llama", .num_heads = 8, .num_kv_heads = 2, .head_dim = 4};
    assert_string_equal(family_of(&c)->gguf, "llama");
    assert_int_equal(gguf_permuted_heads(&c, "model.layers.3.self_attn.q_proj"), 8);
    assert_int_equal(gguf_permuted_heads(&c, "model.layers.3.self_attn.k_proj"), 2);
    assert_int_equal(gguf_permuted_heads(&c, "model.layers.3.self_attn.k_proj.bias"), 2);
    assert_int_equal(gguf_permuted_heads(&c, "model.layers.3.self_attn.v_proj"), 0);
    assert_int_equal(gguf_permuted_heads(&c, "model.embed_tokens"), 0);
    strcpy(c.architecture, "MistralForCausalLM");
    assert_string_equal(family_of(&c)->gguf, "llama");
    assert_int_equal(gguf_permuted_heads(&c, "model.layers.0.self_attn.q_proj"), 8);
    strcpy(c.architecture, "Qwen2ForCausalLM"); /* the architecture counts, not the model_type */
    assert_string_equal(family_of(&c)->gguf, "qwen2");
    assert_int_equal(gguf_permuted_heads(&c, "model.layers.0.self_attn.q_proj"), 0);
    strcpy(c.architecture, "Qwen3ForCausalLM");
    assert_string_equal(family_of(&c)->gguf, "qwen3");
    strcpy(c.architecture, "LlamaForClassification");
    assert_null(family_of(&c));
    assert_int_equal(gguf_permuted_heads(&c, "model.layers.0.self_attn.q_proj"), 0);
}

static void row_order(void **state)
{
    (void)state;
    /* Two heads of 6 rows: the halves of each head are interleaved. */
    static const uint32_t lies_at[12] = {0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11};
    for (uint32_t r = 0; r < 12; r++) {
        assert_int_equal(gguf_row_of(r, 6), lies_at[r]);
        assert_int_equal(gguf_row_to_hf(lies_at[r], 6), r);
    }
    for (uint32_t r = 0; r < 512; r++)
        assert_int_equal(gguf_row_to_hf(gguf_row_of(r, 128), 128), r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_names),   cmocka_unit_test(prefixed_names),   cmocka_unit_test(experts),
        cmocka_unit_test(unknown_names), cmocka_unit_test(permuted_modules), cmocka_unit_test(row_order),
    };
    return cmocka_run_group_tests_name("gguf_names", tests, NULL, NULL);
}
