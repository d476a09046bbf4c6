/* arch/: the tables of families and parts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "host/model/model.h"

static void parts_are_found_by_name(void **state)
{
    (void)state;
    const struct block_part *p;
    const struct family *f;
    bool roles[ROLE_COUNT] = {false};
    for (uint32_t n = 0; (p = block_part_at(n)); n++) {
        char name[96];
        uint32_t expert = 7, number = strchr(p->hf, '*') ? 127 : 0;
        roles[p->role] = true;
        block_part_name(&(struct model_config){0}, p, 3, number, name, sizeof name);
        const char *rest = name + strlen("model.layers.3.");
        assert_string_equal(block_part_named(NULL, rest, strlen(rest), &expert)->hf, p->hf);
        assert_int_equal(expert, number);
        /* Within a family a name means one part. */
        for (size_t i = 0; (f = family_at(i)); i++)
            if (family_has(f, p))
                assert_ptr_equal(block_part_named_gguf(f, p->gguf, strlen(p->gguf)), p);
    }
    for (int r = 0; r < ROLE_COUNT; r++) {
        assert_true(roles[r]);
        assert_int_equal(block_part_of((enum role)r)->role, r);
    }
    static const char *const none[] = {
        "self_attn.q_projx",        "self_attn.q_pro",          "mlp.experts.gate_proj",  "mlp.experts..gate_proj",
        "mlp.experts.01.gate_proj", "mlp.experts.1.gate_projx", "mlp.experts.1.gate_pro", "mlp.experts.1",
        "mlp.experts.x.gate_proj",  "mlp.experts.1111111.w1"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_null(block_part_named(NULL, none[i], strlen(none[i]), NULL));
    assert_null(block_part_named_gguf(NULL, "attn_qk", 7));
}

/* The noise of a matrix is keyed by its number in the block, which must stay. */
static void numbers_of_matrices(void **state)
{
    (void)state;
    static const enum role roles[] = {ROLE_Q, ROLE_K, ROLE_V, ROLE_O, ROLE_GATE, ROLE_UP, ROLE_DOWN};
    const struct model_config c = {.num_layers = 3};
    struct model_shape s;
    struct err e = {0};
    assert_true(model_shape_make(&s, &c, &e));
    for (uint32_t layer = 0; layer < 3; layer++) {
        struct block_shape b = model_shape_of(&s, layer);
        assert_int_equal(b.n, sizeof roles / sizeof *roles);
        assert_int_equal(s.first[layer], layer * b.n);
        for (uint32_t i = 0; i < b.n; i++) {
            assert_int_equal(b.matrices[i].part->role, roles[i]);
            assert_int_equal(b.matrices[i].part->half, i < 4 ? HALF_ATTN : HALF_FFN);
            assert_int_equal(block_place(b, roles[i]), i);
        }
        assert_int_equal(block_place(b, ROLE_ATTN_NORM), b.n);
        assert_true(block_shape_same(b, model_shape_of(&s, 0)));
    }
    model_shape_free(&s);
    char name[96];
    assert_string_equal(block_part_name(&(struct model_config){0}, block_part_of(ROLE_UP), 12, 0, name, sizeof name),
                        "model.layers.12.mlp.up_proj");
    assert_string_equal(block_part_short_name(block_part_of(ROLE_DOWN)), "down_proj");
    assert_string_equal(block_part_short_name(block_part_of(ROLE_ATTN_NORM)), "input_layernorm");
}

static void shapes(void **state)
{
    (void)state;
    /* Heads of 24 numbers, which are wider together than the model. */
    const struct model_config c = {.num_layers = 1,
                                   .hidden_size = 64,
                                   .intermediate_size = 176,
                                   .num_heads = 4,
                                   .num_kv_heads = 2,
                                   .head_dim = 24};
    static const uint32_t shape[ROLE_COUNT][2] = {
        [ROLE_QKV] = {192, 64},
        [ROLE_GATE_UP] = {352, 64},
        [ROLE_ATTN_POST_NORM] = {1, 64},
        [ROLE_FFN_POST_NORM] = {1, 64},
        [ROLE_ATTN_NORM] = {1, 64},
        [ROLE_Q] = {96, 64},
        [ROLE_K] = {48, 64},
        [ROLE_V] = {48, 64},
        [ROLE_Q_NORM] = {1, 24},
        [ROLE_K_NORM] = {1, 24},
        [ROLE_SINKS] = {1, 4},
        [ROLE_O] = {64, 96},
        [ROLE_FFN_NORM] = {1, 64},
        [ROLE_GATE] = {176, 64},
        [ROLE_UP] = {176, 64},
        [ROLE_DOWN] = {64, 176},
    };
    for (int r = 0; r <= ROLE_DOWN; r++) {
        assert_int_equal(block_part_rows(block_part_of((enum role)r), &c), shape[r][0]);
        assert_int_equal(block_part_cols(block_part_of((enum role)r), &c), shape[r][1]);
    }
    /* Who reads an input agrees on its width. */
    struct model_shape s;
    struct err e = {0};
    assert_true(model_shape_make(&s, &c, &e));
    struct block_shape b = model_shape_of(&s, 0);
    for (uint32_t i = 0; i < b.n; i++) {
        const struct block_part *p = b.matrices[i].part;
        assert_int_equal(block_input_cols(b, p->half, p->input), b.matrices[i].cols);
        assert_int_equal(model_shape_input(&s, p->input), b.matrices[i].cols);
        assert_int_equal(model_shape_rows(&s, &c, p->role), shape[p->role][0]);
    }
    assert_int_equal(block_input_cols(b, HALF_FFN, INPUT_HEADS), 0);
    model_shape_free(&s);
}

/* A layer of a family: its parts in the order of the table, its matrices without experts in that of the parts. */
static void check_layer(const struct model_config *c, const struct family *f, const struct model_shape *s,
                        uint32_t layer)
{
    const struct block_shape b = model_shape_of(s, layer);
    const struct block_part *p;
    uint32_t n = 0, matrices = 0;
    for (size_t k = 0; (p = block_part_at(k)); k++) {
        if (!block_has(c, f, layer, p))
            continue;
        assert_true(family_has(f, p));
        assert_ptr_equal(block_part_in(c, layer, n++), p);
        if (p->kind == PART_MATRIX && !block_part_is_expert(p))
            assert_ptr_equal(b.matrices[matrices++].part, p);
    }
    assert_null(block_part_in(c, layer, n));
    assert_int_equal(block_common(b).n, matrices);
    assert_int_equal(block_matrices(c, layer), b.n);
    assert_int_equal(block_experts(b), config_has_experts(c, layer) ? c->experts.n : 0);
    assert_int_equal(b.n, matrices + block_experts(b) * EXPERT_MATRICES);
}

static void families(void **state)
{
    (void)state;
    const struct family *f;
    struct err e = {0};
    char names[512], cut[12];
    for (size_t i = 0; (f = family_at(i)); i++) {
        bool experts = f->gating != 0;
        struct model_config c = {.num_layers = 6};
        struct model_shape s;
        strcpy(c.architecture, f->architecture);
        if (experts)
            c.experts =
                (struct expert_config){.n = 5, .used = 2, .width = 8, .shared_width = 16, .first_dense = 1, .step = 1};
        assert_ptr_equal(family_of(&c), f);
        assert_ptr_equal(
            family_of_gguf(f->gguf, f->sliding_window, experts, f->gating, (f->parts & PARTS_SHARED_FUSED) != 0), f);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(family_at(k)->architecture, f->architecture);
        assert_int_equal(family_has_role(f, ROLE_Q) + family_has_role(f, ROLE_QKV) + family_has_role(f, ROLE_Q_A) +
                             family_has_role(f, ROLE_Q_GATE),
                         1);
        assert_true(model_shape_make(&s, &c, &e));
        for (uint32_t layer = 0; layer < c.num_layers; layer++)
            check_layer(&c, f, &s, layer);
        model_shape_free(&s);
        assert_int_equal(family_has(f, block_part_of(ROLE_K_NORM)), (f->parts & PARTS_QK_NORM) != 0);
    }
    assert_string_equal(family_of_gguf("llama", false, false, 0, false)->name, "Llama");
    assert_string_equal(family_of_gguf("llama", true, false, 0, false)->name, "Mistral");
    assert_string_equal(family_of_gguf("llama", false, true, 0, false)->name, "Mixtral");
    assert_string_equal(family_of_gguf("qwen2", false, false, 0, false)->name, "Qwen2");
    assert_string_equal(family_of_gguf("olmo2", false, false, 0, false)->name, "OLMo 2");
    assert_string_equal(family_of_gguf("olmo2", true, false, 0, false)->name, "OLMo 3");
    assert_string_equal(family_of_gguf("deepseek2", false, true, 0, false)->name, "DeepSeek-V2");
    assert_string_equal(family_of_gguf("deepseek2", false, true, GATING_SIGMOID, false)->name, "DeepSeek-V3");
    assert_null(family_of_gguf("qwen2", false, true, 0, false));
    assert_null(family_of_gguf("mamba", false, false, 0, false));
    assert_false(family_has(NULL, block_part_of(ROLE_Q_NORM)));
    assert_false(family_has(NULL, block_part_of(ROLE_ROUTER)));
    assert_non_null(strstr(family_names(names, sizeof names), "Llama, Mistral, Qwen2, Qwen3, "));
    assert_true(strlen(family_names(cut, sizeof cut)) < sizeof cut);
}

/* Multi-head latent attention: shapes by its own widths, and what each matrix reads; kv_b is one in a folder and two in a GGUF. */
static void latent(void **state)
{
    (void)state;
    struct model_config c = {.architecture = "DeepseekV3ForCausalLM",
                             .num_layers = 1,
                             .hidden_size = 64,
                             .intermediate_size = 96,
                             .num_heads = 3,
                             .num_kv_heads = 3,
                             .head_dim = 24,
                             .mla = {.q_rank = 40, .kv_rank = 32, .nope = 16, .turned = 8, .values = 20}};
    static const struct {
        enum role role;
        uint32_t rows, cols;
    } want[] = {{ROLE_Q_A, 40, 64},      {ROLE_Q_A_NORM, 1, 40}, {ROLE_Q_B, 72, 40},     {ROLE_KV_A, 40, 64},
                {ROLE_KV_A_NORM, 1, 32}, {ROLE_KV_B, 108, 32},   {ROLE_VALUES_O, 64, 60}};
    const struct family *f = family_of(&c);
    struct model_shape s;
    struct err e = {0};
    assert_string_equal(f->name, "DeepSeek-V3");
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const struct block_part *p = block_part_of(want[i].role);
        assert_true(block_has(&c, f, 0, p));
        assert_int_equal(block_part_rows(p, &c), want[i].rows);
        assert_int_equal(block_part_cols(p, &c), want[i].cols);
        assert_ptr_equal(block_part_named(f, p->hf, strlen(p->hf), NULL), p);
    }
    assert_false(family_has_role(f, ROLE_Q) || family_has_role(f, ROLE_K) || family_has_role(f, ROLE_O));
    assert_true(model_shape_make(&s, &c, &e));
    struct block_shape b = model_shape_of(&s, 0);
    static const enum role whole[] = {ROLE_Q_A,      ROLE_Q_B,  ROLE_KV_A, ROLE_KV_B,
                                      ROLE_VALUES_O, ROLE_GATE, ROLE_UP,   ROLE_DOWN};
    assert_int_equal(b.n, sizeof whole / sizeof *whole);
    for (uint32_t i = 0; i < b.n; i++) {
        assert_int_equal(b.matrices[i].part->role, whole[i]);
        assert_int_equal(b.matrices[i].pieces, 1);
    }
    assert_int_equal(block_input_cols(b, HALF_ATTN, INPUT_ATTN), 64);
    assert_int_equal(block_input_cols(b, HALF_ATTN, INPUT_Q_LATENT), 40);
    assert_int_equal(block_input_cols(b, HALF_ATTN, INPUT_KV_LATENT), 32);
    assert_int_equal(block_input_cols(b, HALF_ATTN, INPUT_HEADS), 60);
    assert_int_equal(block_input_cols(b, HALF_ATTN, INPUT_QUERIES), 0);
    model_shape_free(&s);
    /* As a GGUF has it: of each head k's part transposed, which reads q, and v's. */
    c.mla.split = true;
    assert_true(model_shape_make(&s, &c, &e));
    b = model_shape_of(&s, 0);
    assert_int_equal(b.n, sizeof whole / sizeof *whole + 1);
    uint32_t k = block_place(b, ROLE_K_B), v = block_place(b, ROLE_V_B);
    assert_int_equal(block_place(b, ROLE_KV_B), b.n);
    assert_int_equal(b.matrices[k].rows, 96);
    assert_int_equal(b.matrices[k].cols, 16);
    assert_int_equal(b.matrices[k].pieces, 3);
    assert_int_equal(b.matrices[v].rows, 60);
    assert_int_equal(b.matrices[v].cols, 32);
    assert_int_equal(b.matrices[v].pieces, 1);
    assert_int_equal(block_input_cols(b, HALF_ATTN, INPUT_QUERIES), 16);
    assert_int_equal(block_input_pieces(b, HALF_ATTN, INPUT_QUERIES), 3);
    assert_int_equal(block_input_cols(b, HALF_ATTN, INPUT_KV_LATENT), 32);
    model_shape_free(&s);
    /* q as one matrix. */
    c.mla.q_rank = 0;
    c.mla.split = false;
    assert_true(model_shape_make(&s, &c, &e));
    b = model_shape_of(&s, 0);
    assert_int_equal(b.matrices[0].part->role, ROLE_Q_WHOLE);
    assert_int_equal(block_input_cols(b, HALF_ATTN, INPUT_Q_LATENT), 0);
    model_shape_free(&s);
    /* The same by another model_type, of the text part of models that read more. */
    assert_ptr_equal(family_of(&(struct model_config){.model_type = "kimi_k2"}), f);
}

/* The gated delta rule: layers of two kinds, by their own widths; which of its matrices are listed. */
static void delta(void **state)
{
    (void)state;
    bool layers[2] = {true, false};
    struct model_config c = {
        .architecture = "Qwen3NextForCausalLM",
        .num_layers = 2,
        .hidden_size = 64,
        .intermediate_size = 96,
        .num_heads = 4,
        .num_kv_heads = 2,
        .head_dim = 24,
        .delta = {.key_heads = 3, .value_heads = 6, .key_dim = 10, .value_dim = 14, .taps = 4, .layers = layers}};
    static const struct {
        const char *name;
        uint32_t rows, cols;
        enum part_kind kind;
    } grouped[] = {{"linear_attn.in_proj_qkvz", 228, 64, PART_MATRIX}, {"linear_attn.in_proj_ba", 12, 64, PART_ROUTER},
                   {"linear_attn.conv1d", 144, 4, PART_ROUTER},        {"linear_attn.A_log", 1, 6, PART_VECTOR},
                   {"linear_attn.dt_bias", 1, 6, PART_VECTOR},         {"linear_attn.norm", 1, 14, PART_NORM},
                   {"linear_attn.out_proj", 64, 84, PART_MATRIX}},
      split[] = {{"linear_attn.in_proj_qkv", 144, 64, PART_MATRIX},
                 {"linear_attn.in_proj_z", 84, 64, PART_MATRIX},
                 {"linear_attn.in_proj_b", 6, 64, PART_ROUTER},
                 {"linear_attn.in_proj_a", 6, 64, PART_ROUTER},
                 {"linear_attn.out_proj", 64, 84, PART_MATRIX}};
    for (int k = 0; k < 2; k++) {
        size_t n = k ? sizeof split / sizeof *split : sizeof grouped / sizeof *grouped;
        if (k)
            strcpy(c.architecture, "Qwen3_5ForCausalLM");
        const struct family *f = family_of(&c);
        for (size_t i = 0; i < n; i++) {
            const struct block_part *p =
                block_part_named(f, (k ? split : grouped)[i].name, strlen((k ? split : grouped)[i].name), NULL);
            assert_non_null(p);
            assert_int_equal(p->kind, (k ? split : grouped)[i].kind);
            assert_int_equal(block_part_rows(p, &c), (k ? split : grouped)[i].rows);
            assert_int_equal(block_part_cols(p, &c), (k ? split : grouped)[i].cols);
            assert_true(block_has(&c, f, 0, p));
            assert_false(block_has(&c, f, 1, p));
        }
        struct model_shape s;
        struct err e = {0};
        assert_true(model_shape_make(&s, &c, &e));
        assert_int_equal(model_shape_of(&s, 0).n, k ? 6 : 5);
        assert_int_equal(model_shape_of(&s, 1).n, 7);
        assert_int_equal(model_shape_of(&s, 1).matrices[0].part->role, ROLE_Q_GATE);
        assert_int_equal(model_shape_of(&s, 1).matrices[0].rows, 192);
        assert_int_equal(block_input_cols(model_shape_of(&s, 0), HALF_ATTN, INPUT_HEADS), 84);
        assert_int_equal(block_input_cols(model_shape_of(&s, 1), HALF_ATTN, INPUT_HEADS), 96);
        model_shape_free(&s);
        assert_true(config_forward_only(&c));
    }
    assert_true(family_adds_one(family_of(&c), "model.layers.0.input_layernorm.weight"));
    assert_true(family_adds_one(family_of(&c), "model.norm"));
    assert_false(family_adds_one(family_of(&c), "model.layers.0.linear_attn.norm"));
    assert_false(family_adds_one(family_of(&c), "model.layers.0.mlp.shared_expert_gate"));
}

/* Which layers have experts, and how these are listed: one after the other, gate, up and down. */
static void experts(void **state)
{
    (void)state;
    bool dense[8] = {[5] = true};
    struct model_config c = {
        .architecture = "Qwen2MoeForCausalLM",
        .num_layers = 8,
        .hidden_size = 24,
        .intermediate_size = 40,
        .num_heads = 2,
        .num_kv_heads = 1,
        .head_dim = 12,
        .experts = {.n = 3, .used = 1, .width = 16, .shared_width = 20, .step = 2, .dense = dense}};
    static const bool has[8] = {[1] = true, [3] = true, [7] = true};
    static const enum role roles[] = {ROLE_GATE, ROLE_UP, ROLE_DOWN};
    struct model_shape s;
    struct err e = {0};
    char name[96];
    assert_true(model_shape_make(&s, &c, &e));
    for (uint32_t layer = 0; layer < 8; layer++) {
        const struct block_shape b = model_shape_of(&s, layer);
        assert_int_equal(config_has_experts(&c, layer), has[layer]);
        assert_int_equal(b.n, has[layer] ? 7 + 9 : 7);
        assert_true(block_has_half(block_common(b), HALF_FFN));
        assert_int_equal(b.matrices[block_place(b, ROLE_UP)].rows, has[layer] ? 20 : 40);
        for (uint32_t i = 0; i < 9 && has[layer]; i++) {
            const struct block_matrix *m = &b.matrices[7 + i];
            assert_int_equal(m->expert, i / 3);
            assert_int_equal(m->part->role, roles[i % 3]);
            assert_int_equal(m->rows, i % 3 == 2 ? 24 : 16);
            assert_int_equal(m->cols, i % 3 == 2 ? 16 : 24);
            assert_ptr_equal(block_expert(b, i / 3).matrices + i % 3, m);
        }
    }
    block_matrix_name(&(struct model_config){0}, &model_shape_of(&s, 3).matrices[7 + 7], 3, name, sizeof name);
    assert_string_equal(name, "model.layers.3.mlp.experts.2.up_proj");
    assert_true(block_shape_same(model_shape_of(&s, 1), model_shape_of(&s, 7)));
    assert_false(block_shape_same(model_shape_of(&s, 0), model_shape_of(&s, 1)));
    model_shape_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_found_by_name),
        cmocka_unit_test(numbers_of_matrices),
        cmocka_unit_test(shapes),
        cmocka_unit_test(families),
        cmocka_unit_test(latent),
        cmocka_unit_test(delta),
        cmocka_unit_test(experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
