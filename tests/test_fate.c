/* What becomes of matrices: by a run's wishes, and where codes are there already. */
#include "formats/write/fate.h"
#include "host/model/model.h"
#include "host/quant/plan/planner.h"
#include "tests/tiny_model.h"

#define DIR_ "tmp_fate"
#include "tests/scratch_dir.h"

#define BASE DIR_ "/base"

struct heard {
    char lines[8][512];
    unsigned n;
};

static void hear(void *ctx, const char *line)
{
    struct heard *h = ctx;
    assert_true(h->n < 8);
    snprintf(h->lines[h->n++], sizeof h->lines[0], "%s", line);
}

/* A tied matrix goes by both its names, whichever the model stores it under. */
static void test_tied(void **state)
{
    (void)state;
    static const enum tied kinds[] = {UNTIED, TIED_EMBED, TIED_HEAD, TIED_BOTH};
    const struct tensor_rule rules[] = {{.regex = "embed_tokens", .gguf = gguf_type_of(GGML_Q8_0)},
                                        {.regex = "lm_head", .gguf = gguf_type_of(GGML_BF16)}};
    for (int i = 0; i < 4; i++)
        for (int option = 0; option < 2; option++) {
            struct err e = {0};
            struct quantize_options o;
            struct plan p;
            struct model *m;
            struct heard heard = {0};
            const struct plan_listener listener = {hear, &heard};
            bool tied = kinds[i] != UNTIED;
            tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16, .tied = kinds[i]});
            struct checkpoint *c = open_ok(BASE);
            OK(model_describe(&m, c, 2, &e), e);
            quantize_defaults(&o);
            o.method = METHOD_RTN;
            o.format = EXPORT_GGUF;
            o.mixture = "Q4_0";
            o.rules = rules;
            o.n_rules = option ? 1 : 2;
            o.head_type = option ? gguf_type_of(GGML_BF16) : NULL;
            OK(quantize_settle(&o, &e), e);
            OK(plan_fates(&p, m, &o, (struct plan_sources){0}, &listener, &e), e);
            const struct matrix *first = p.matrices, *last = p.matrices + p.n_matrices - 1;
            assert_int_equal(p.n_matrices, p.n_items + (tied ? 1 : 2));
            assert_int_equal(first->head, tied);
            assert_int_equal(first->type->id, tied ? GGML_BF16 : GGML_Q8_0);
            assert_int_equal(last->type->id, tied ? GGML_Q4_0 : GGML_BF16);
            assert_false(first->coded);
            assert_int_equal(last->coded, tied); /* a linear */
            plan_free(&p);
            model_close(&m);
            checkpoint_close(&c);
        }
}

/* Where rows are no multiple of a block another type stands in, said once for all that fall alike. */
static void test_fallback(void **state)
{
    (void)state;
    struct err e = {0};
    struct heard heard = {0};
    const struct gguf_type *q4_k = gguf_type_of(GGML_Q4_K);
    struct matrix list[] = {{.module = "model.embed_tokens", .embedding = true, .cols = 256, .wanted = q4_k},
                            {.module = "a.q_proj", .part = block_part_of(ROLE_Q), .cols = 64, .wanted = q4_k},
                            {.module = "b.q_proj", .part = block_part_of(ROLE_Q), .cols = 64, .wanted = q4_k},
                            {.module = "a.up_proj", .part = block_part_of(ROLE_UP), .cols = 64, .wanted = q4_k}};
    const struct fate_options o = {.policy = FATE_GGUF, .warn = hear, .ctx = &heard};
    for (int i = 0; i < 4; i++)
        list[i].spec = gguf_type_spec(q4_k, 0);
    OK(fates_decide(list, 4, &o, &e), e);
    assert_ptr_equal(list[0].type, q4_k);
    assert_false(list[0].coded);
    for (int i = 1; i < 4; i++) {
        assert_int_equal(list[i].type->id, GGML_Q5_0);
        assert_true(list[i].coded && list[i].spec.type == list[i].type->codes);
    }
    assert_int_equal(heard.n, 1);
    assert_non_null(strstr(heard.lines[0], "q_proj, up_proj: rows of 64"));
    list[0].wanted = gguf_type_of(GGML_TQ2_0);
    FAILS(fates_decide(list, 4, &o, &e), e, ERR_USER, "model.embed_tokens cannot be stored as TQ2_0");
}

/* Codes that are there stay as they are, or are refused, all counted. */
static void test_exact(void **state)
{
    (void)state;
    struct err e = {0};
    const struct quant_spec two = {quant_type_find("2"), 64, SCALE_F16}, odd = {quant_type_find("3"), 32, SCALE_F16};
    const struct fate_options o = {.policy = FATE_GGUF, .exact = true};
    struct matrix list[] = {{.module = "model.embed_tokens", .cols = 256, .type = gguf_type_of(GGML_BF16)},
                            {.module = "q", .cols = 256, .coded = true, .spec = two},
                            {.module = "k", .cols = 256, .coded = true, .spec = odd},
                            {.module = "v", .cols = 256, .coded = true, .spec = odd}};
    struct matrix values = list[2];
    OK(fates_decide(list, 2, &o, &e), e);
    assert_int_equal(list[0].type->id, GGML_BF16);
    assert_int_equal(list[1].type->id, GGML_Q2_0);
    assert_true(list[1].coded);
    FAILS(fates_decide(list, 4, &o, &e), e, ERR_USER, "k: codes of type 3");
    assert_non_null(strstr(e.msg, "of 1 more"));
    values.wanted = gguf_type_of(GGML_F16);
    OK(fates_decide(&values, 1, &o, &e), e);
    assert_true(!values.coded && values.type == values.wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tied),
        cmocka_unit_test(test_fallback),
        cmocka_unit_test(test_exact),
    };
    return cmocka_run_group_tests_name("fate", tests, make_dir, remove_dir);
}
