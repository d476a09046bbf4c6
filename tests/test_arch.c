/* arch/: the tables of families and parts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "host/model/model.h"

static void parts_are_listed_by_role(void **state)
{
    (void)state;
    const struct block_part *p;
    const struct model_config c = {.num_layers = 1};
    struct block_matrix m;
    uint32_t n = 0, matrices = 0, roles = 0;
    for (; (p = block_part_at(n)); n++) {
        assert_int_equal(block_part_of(p->role)->role, p->role);
        roles |= 1u << p->role;
        if (family_has(NULL, p) && p->kind == PART_MATRIX) {
            assert_true(block_matrix(&c, 0, matrices++, &m));
            assert_ptr_equal(m.part, p);
        }
    }
    assert_int_equal(roles, (1u << ROLE_COUNT) - 1);
    assert_int_equal(matrices, block_matrices(&c, 0));
    assert_false(block_matrix(&c, 0, matrices, &m));
    assert_null(block_part_named(NULL, "self_attn.q_projx", 17));
    assert_null(block_part_named(NULL, "self_attn.q_pro", 15));
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
    assert_string_equal(block_part_name(&(struct model_config){0}, block_part_of(ROLE_UP), 12, name, sizeof name),
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
        [ROLE_O] = {64, 96},
        [ROLE_FFN_NORM] = {1, 64},
        [ROLE_GATE] = {176, 64},
        [ROLE_UP] = {176, 64},
        [ROLE_DOWN] = {64, 176},
    };
    for (int r = 0; r < ROLE_COUNT; r++) {
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

static void families(void **state)
{
    (void)state;
    const struct family *f;
    char names[512], cut[12];
    for (size_t i = 0; (f = family_at(i)); i++) {
        struct model_config c = {0};
        strcpy(c.architecture, f->architecture);
        assert_ptr_equal(family_of(&c), f);
        assert_ptr_equal(family_of_gguf(f->gguf, f->sliding_window), f);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(family_at(k)->architecture, f->architecture);
        assert_true(family_has_role(f, ROLE_Q) != family_has_role(f, ROLE_QKV));
        /* A layer is made of what its family has, in the order of the table; its matrices are those of this list. */
        const struct block_part *p;
        struct block_matrix m;
        uint32_t n = 0, matrices = 0, roles = 0;
        for (size_t k = 0; (p = block_part_at(k)); k++) {
            if (!family_has(f, p))
                continue;
            assert_ptr_equal(block_part_in(&c, 5, n++), p);
            /* One part for a role, and for a name. */
            assert_ptr_equal(block_part_named(f, p->hf, strlen(p->hf)), p);
            assert_ptr_equal(block_part_named_gguf(f, p->gguf, strlen(p->gguf)), p);
            assert_int_equal(roles >> p->role & 1, 0);
            roles |= 1u << p->role;
            if (p->kind == PART_MATRIX) {
                assert_true(block_matrix(&c, 5, matrices++, &m));
                assert_ptr_equal(m.part, p);
            }
        }
        assert_null(block_part_in(&c, 5, n));
        assert_int_equal(block_matrices(&c, 5), matrices);
        assert_int_equal(family_has_role(f, ROLE_K_NORM), (f->parts & (PARTS_QK_NORM | PARTS_QK_NORM_WHOLE)) != 0);
        for (enum role r = 0; r < ROLE_COUNT; r++)
            assert_int_equal(roles >> r & 1, family_has_role(f, r));
    }
    assert_string_equal(family_of_gguf("llama", false)->name, "Llama");
    assert_string_equal(family_of_gguf("llama", true)->name, "Mistral");
    assert_string_equal(family_of_gguf("qwen2", false)->name, "Qwen2");
    assert_string_equal(family_of_gguf("olmo2", false)->name, "OLMo 2");
    assert_string_equal(family_of_gguf("olmo2", true)->name, "OLMo 3");
    assert_null(family_of_gguf("mamba", false));
    assert_false(family_has(NULL, block_part_of(ROLE_Q_NORM)));
    assert_int_equal(strncmp(family_names(names, sizeof names), "Llama, Mistral, Qwen2, Qwen3, SmolLM3", 37), 0);
    assert_non_null(strstr(names, " and "));
    assert_true(strlen(family_names(cut, sizeof cut)) < sizeof cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_listed_by_role),
        cmocka_unit_test(numbers_of_matrices),
        cmocka_unit_test(shapes),
        cmocka_unit_test(families),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
