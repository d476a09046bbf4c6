/* Importance matrices: sums against a reference in double, the file and back, and every way a file can be
 * wrong. */
#include "tests/device.h"
#include "tests/family_model.h"

#include <math.h>

#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_type.h"
#include "host/eval/imatrix.h"
#include "tests/byte_tokenizer.h"

#define DIR_ "tmp_imatrix"
#include "tests/scratch_dir.h"

#define MODEL DIR_ "/model"
#define TEXT  DIR_ "/text.txt"

static const char *const texts[] = {TEXT};
#define FILE_ DIR_ "/imatrix.gguf"

enum { CTX = 19, WINDOWS = 5, TEXT_BYTES = WINDOWS * CTX + 4 };

static struct checkpoint *write_model(const struct shape *s, struct raw_model *raw, uint32_t *ids)
{
    struct err e = {0};
    struct checkpoint *ck;
    os_remove_tree(DIR_);
    family_write(MODEL, s, raw);
    byte_tokenizer_write(MODEL);
    byte_text_write(DIR_, TEXT_BYTES, ids);
    OK(checkpoint_open(&ck, MODEL, &e), e);
    return ck;
}

/* ---- collecting ---- */

static void compare(const struct imatrix *m, const char *module, const double *want, uint32_t cols, double tokens)
{
    const struct imatrix_entry *x = imatrix_find(m, module);
    double size = 0;
    if (!x)
        fail_msg("no entry for %s", module);
    assert_int_equal(x->cols, cols);
    assert_true(x->count == tokens);
    for (uint32_t c = 0; c < cols; c++)
        size += want[c] / cols;
    for (uint32_t c = 0; c < cols; c++)
        if (!(fabs(x->sums[c] - want[c]) <= 1e-4 * want[c] + 1e-5 * size))
            fail_msg("%s, column %u: %.9g, should be %.9g", module, (unsigned)c, (double)x->sums[c], want[c]);
}

static void check_sums(const struct imatrix *m, const struct shape *s, const struct raw_model *raw, const uint32_t *ids,
                       uint32_t windows)
{
    static const int input[REF_LINEARS] = {REF_IN_ATTN, REF_IN_ATTN, REF_IN_ATTN, REF_IN_O,
                                           REF_IN_FFN,  REF_IN_FFN,  REF_IN_DOWN};
    struct family_numbers f;
    struct ref_config c = s->c;
    uint32_t rows[REF_LINEARS], cols[REF_LINEARS];
    size_t tokens = (size_t)windows * CTX;
    double *x = malloc(tokens * c.hidden * sizeof *x), *sums[REF_INPUTS];
    assert_non_null(x);
    c.ctx = CTX;
    shape_sizes(s, rows, cols);
    family_numbers(&f, raw, s);
    family_embed(&f, s, ids, tokens, x);
    for (uint32_t l = 0; l < s->layers; l++) {
        for (int i = 0; i < REF_INPUTS; i++) {
            sums[i] = calloc(512, sizeof **sums);
            assert_non_null(sums[i]);
        }
        assert_true(ref_block_inputs(&c, &f.blocks[l], windows, x, x, sums));
        for (int id = 0; id < REF_LINEARS; id++) {
            char module[96];
            family_module_name(s, l, id, module, sizeof module);
            compare(m, module, sums[input[id]], cols[id], (double)tokens);
        }
        for (int i = 0; i < REF_INPUTS; i++)
            free(sums[i]);
    }
    double *head = calloc(c.hidden, sizeof *head), *row = malloc(c.hidden * sizeof *row);
    assert_true(head && row);
    for (size_t t = 0; t < tokens; t++) {
        ref_norm(x + t * c.hidden, f.final_norm, row, c.hidden, c.eps);
        for (uint32_t k = 0; k < c.hidden; k++)
            head[k] += row[k] * row[k];
    }
    compare(m, s->tied ? "model.embed_tokens" : "lm_head", head, c.hidden, (double)tokens);
    family_numbers_free(&f);
    free(head);
    free(row);
    free(x);
}

static void test_sums(void **state)
{
    (void)state;
    for (int i = 0; i < N_ATTENTION; i++) {
        uint32_t ids[TEXT_BYTES + 1];
        struct raw_model raw;
        struct imatrix m;
        struct imatrix_result r;
        struct err e = {0};
        struct checkpoint *ck = write_model(&shapes[i], &raw, ids);
        struct imatrix_options o = {.texts = texts, .n_texts = 1, .ctx = CTX};
        OK(imatrix_collect(cmd, ck, &o, &m, &r, &e), e);
        assert_int_equal(r.windows, WINDOWS);
        assert_int_equal(r.tokens, TEXT_BYTES + 1);
        uint32_t each = REF_LINEARS - 2 * shapes[i].fused_qkv - shapes[i].fused_up;
        assert_int_equal(m.n, shapes[i].layers * each + 1);
        assert_int_equal(m.chunks, WINDOWS);
        assert_int_equal(m.chunk_size, CTX);
        assert_string_equal(m.dataset, os_base_name(TEXT)); /* no path of the machine */
        check_sums(&m, &shapes[i], &raw, ids, WINDOWS);
        imatrix_free(&m);
        /* Fewer windows: the first ones. */
        o.windows = 2;
        OK(imatrix_collect(cmd, ck, &o, &m, &r, &e), e);
        assert_int_equal(r.windows, 2);
        check_sums(&m, &shapes[i], &raw, ids, 2);
        imatrix_free(&m);
        checkpoint_close(&ck);
        raw_free(&raw);
    }
}

static bool stop_at_once(void *ctx, const struct progress_event *ev)
{
    (void)ctx;
    (void)ev;
    return false;
}

static void test_stop(void **state)
{
    (void)state;
    uint32_t ids[TEXT_BYTES + 1];
    struct raw_model raw;
    struct imatrix m;
    struct imatrix_result r;
    struct err e = {0};
    struct checkpoint *ck = write_model(shape_named("mistral"), &raw, ids);
    struct imatrix_options o = {.texts = texts, .n_texts = 1, .ctx = CTX, .progress = {stop_at_once, NULL}};
    assert_false(imatrix_collect(cmd, ck, &o, &m, &r, &e));
    assert_int_equal(e.kind, ERR_STOPPED);
    assert_null(m.entries);
    o = (struct imatrix_options){.texts = texts, .n_texts = 1, .ctx = 2 * TEXT_BYTES};
    FAILS(imatrix_collect(cmd, ck, &o, &m, &r, &e), e, ERR_USER, "window");
    checkpoint_close(&ck);
    raw_free(&raw);
}

/* A model that computes NaN: no file of them comes about. */
static void test_not_finite(void **state)
{
    (void)state;
    static const char *const weights[] = {"model.layers.1.mlp.up_proj.weight", "model.norm.weight"};
    static const char *const says[] = {"the inputs of model.layers.1.mlp.down_proj", "the inputs of lm_head"};
    for (size_t i = 0; i < 2; i++) {
        uint32_t ids[TEXT_BYTES + 1];
        struct raw_model raw;
        struct imatrix m;
        struct imatrix_result r;
        struct err e = {0};
        struct checkpoint *ck = write_model(shape_named("mistral"), &raw, ids);
        checkpoint_close(&ck);
        raw_set(raw_find(&raw, weights[i]), 3, NAN);
        family_write_shards(&raw, MODEL, shape_named("mistral")->shards);
        OK(checkpoint_open(&ck, MODEL, &e), e);
        struct imatrix_options o = {.texts = texts, .n_texts = 1, .ctx = CTX};
        FAILS(imatrix_collect(cmd, ck, &o, &m, &r, &e), e, ERR_USER, says[i]);
        assert_non_null(strstr(e.msg, MODEL));
        assert_true(e.hint[0]);
        assert_null(m.entries);
        checkpoint_close(&ck);
        raw_free(&raw);
    }
}

/* ---- the file ---- */

static void test_round_trip(void **state)
{
    (void)state;
    /* Untied, tied with the embedding's name alone, the head's alone, and both. */
    static const char *const names[] = {"mistral", "llama2", "qwen2", "qwen3"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct shape *s = shape_named(names[i]);
        uint32_t ids[TEXT_BYTES + 1];
        struct raw_model raw;
        struct imatrix m, back;
        struct imatrix_result r;
        struct err e = {0};
        struct checkpoint *ck = write_model(s, &raw, ids);
        struct imatrix_options o = {.texts = texts, .n_texts = 1, .ctx = CTX};
        OK(imatrix_collect(cmd, ck, &o, &m, &r, &e), e);
        OK(imatrix_write(&m, FILE_, &e), e);
        OK(os_mkdirs(DIR_ "/again", &e), e);
        OK(imatrix_write(&m, DIR_ "/again/imatrix.gguf", &e), e);
        assert_same_file(DIR_, DIR_ "/again", "imatrix.gguf");

        struct gguf *g;
        OK(gguf_open(&g, FILE_, &e), e);
        assert_int_equal(gguf_tensor_count(g), 2 * m.n);
        const struct gguf_tensor *t = gguf_tensor_find(g, "blk.1.ffn_down.weight.in_sum2");
        const struct gguf_tensor *n = gguf_tensor_find(g, "blk.1.ffn_down.weight.counts");
        assert_true(t && n && t->type == GGML_F32 && n->type == GGML_F32);
        assert_int_equal(t->ne[0], s->c.intermediate);
        assert_int_equal(t->ne[1], 1);
        assert_int_equal(n->bytes, 4);
        assert_non_null(gguf_tensor_find(g, s->tied ? "token_embd.weight.in_sum2" : "output.weight.in_sum2"));
        gguf_close(&g);

        OK(imatrix_read(&back, FILE_, ck, &e), e);
        assert_int_equal(back.n, m.n);
        assert_int_equal(back.chunks, m.chunks);
        assert_int_equal(back.chunk_size, m.chunk_size);
        assert_string_equal(back.dataset, m.dataset);
        for (size_t k = 0; k < m.n; k++) {
            const struct imatrix_entry *a = &m.entries[k];
            bool head = k == m.n - 1;
            const struct imatrix_entry *b = imatrix_find(&back, head ? checkpoint_head_module(ck) : a->module);
            if (!b)
                fail_msg("%s is lost", a->module);
            assert_int_equal(a->cols, b->cols);
            assert_true(a->count == b->count);
            assert_memory_equal(a->sums, b->sums, a->cols * 4);
        }
        imatrix_free(&back);
        imatrix_free(&m);
        checkpoint_close(&ck);
        raw_free(&raw);
    }
}

/* A file of one entry, with one thing wrong. */
struct flaw {
    const char *says; /* NULL: nothing is wrong */
    const char *type, *name;
    uint32_t cols, mats, sums_type;
    float value, count; /* of the last column; of all matrices */
    const char *extra;  /* one tensor more */
    bool no_counts, empty;
};

static void write_flawed(const struct flaw *f)
{
    struct err e = {0};
    struct gguf_keys *k = gguf_keys_create();
    struct gguf_writer *w;
    struct gguf_tensor_plan plan[3] = {0};
    char names[2][96];
    float *x = calloc((size_t)f->cols * f->mats + 1, sizeof *x), counts[4];
    size_t n = 0;
    assert_non_null(x);
    x[f->cols - 1] = f->value;
    for (int i = 0; i < 4; i++)
        counts[i] = f->count;
    if (f->type)
        gguf_add_string(k, "general.type", f->type, strlen(f->type));
    snprintf(names[0], sizeof names[0], "%s.in_sum2", f->name);
    snprintf(names[1], sizeof names[1], "%s.counts", f->name);
    if (!f->empty)
        plan[n++] = (struct gguf_tensor_plan){names[0], 2, {f->cols, f->mats, 1, 1}, f->sums_type};
    if (!f->no_counts && !f->empty)
        plan[n++] = (struct gguf_tensor_plan){names[1], 2, {1, f->mats, 1, 1}, GGML_F32};
    if (f->extra)
        plan[n++] = (struct gguf_tensor_plan){f->extra, 1, {4, 1, 1, 1}, GGML_F32};
    OK(gguf_writer_open(&w, FILE_, k, plan, n, &e), e);
    if (!f->empty)
        OK(gguf_writer_put(w, x, (size_t)f->cols * f->mats * (f->sums_type == GGML_F16 ? 2 : 4), &e), e);
    if (!f->no_counts && !f->empty)
        OK(gguf_writer_put(w, counts, f->mats * 4, &e), e);
    if (f->extra)
        OK(gguf_writer_put(w, counts, 16, &e), e);
    OK(gguf_writer_close(&w, &e), e);
    gguf_keys_destroy(&k);
    free(x);
}

static void test_bad_files(void **state)
{
    (void)state;
#define Q "blk.0.attn_q.weight"
    static const struct flaw flaws[] = {
        {NULL, "imatrix", Q, 40, 1, GGML_F32, 1, 5, NULL, false, false},
        {"not an importance matrix", "model", Q, 40, 1, GGML_F32, 1, 5, NULL, false, false},
        {"not an importance matrix", NULL, Q, 40, 1, GGML_F32, 1, 5, NULL, false, false},
        {"has 39 columns", "imatrix", Q, 39, 1, GGML_F32, 1, 5, NULL, false, false},
        {"belongs to no weight", "imatrix", "blk.7.attn_q.weight", 40, 1, GGML_F32, 1, 5, NULL, false, false},
        {"belongs to no weight", "imatrix", "blk.0.attn_x.weight", 40, 1, GGML_F32, 1, 5, NULL, false, false},
        {"belongs to no weight", "imatrix", "blk.0.attn_q.bias", 40, 1, GGML_F32, 1, 5, NULL, false, false},
        {"several matrices", "imatrix", Q, 40, 4, GGML_F32, 1, 5, NULL, false, false},
        {"F32", "imatrix", Q, 40, 1, GGML_F16, 1, 5, NULL, false, false},
        {"negative", "imatrix", Q, 40, 1, GGML_F32, -1, 5, NULL, false, false},
        {"NaN", "imatrix", Q, 40, 1, GGML_F32, NAN, 5, NULL, false, false},
        {"NaN", "imatrix", Q, 40, 1, GGML_F32, INFINITY, 5, NULL, false, false},
        {"0 tokens", "imatrix", Q, 40, 1, GGML_F32, 1, 0, NULL, false, false},
        {"0 tokens", "imatrix", Q, 40, 1, GGML_F32, 1, NAN, NULL, false, false},
        {"no counts", "imatrix", Q, 40, 1, GGML_F32, 1, 5, NULL, true, false},
        {NULL, "imatrix", Q, 40, 1, GGML_F32, 0, 5, NULL, false, false},
        {"impossibly large numbers", "imatrix", Q, 40, 1, GGML_F32, 3e38f, 5, NULL, false, false},
        {"impossibly large numbers", "imatrix", Q, 40, 1, GGML_F32, 1e10f, 1e-30f, NULL, false, false},
        {"no sums", "imatrix", Q, 40, 1, GGML_F32, 1, 5, "blk.0.attn_k.weight.counts", false, false},
        {"neither", "imatrix", Q, 40, 1, GGML_F32, 1, 5, Q, false, false},
        {"is an empty importance matrix", "imatrix", Q, 40, 1, GGML_F32, 1, 5, NULL, false, true},
    };
    uint32_t ids[TEXT_BYTES + 1];
    struct raw_model raw;
    struct imatrix m;
    struct err e = {0};
    struct checkpoint *ck = write_model(shape_named("mistral"), &raw, ids);
    for (size_t i = 0; i < sizeof flaws / sizeof *flaws; i++) {
        write_flawed(&flaws[i]);
        if (!flaws[i].says) {
            OK(imatrix_read(&m, FILE_, ck, &e), e);
            imatrix_free(&m);
            continue;
        }
        FAILS(imatrix_read(&m, FILE_, ck, &e), e, ERR_USER, flaws[i].says);
        assert_true(e.hint[0]);
        assert_null(m.entries);
    }
    /* The older form, and what is no GGUF at all. */
    static const char dat[] = "\x01\0\0\0\x13\0\0\0" Q "\x01\0\0\0\x01\0\0\0\0\0\x80\x3f";
    OK(os_write_file(FILE_, dat, sizeof dat - 1, &e), e);
    FAILS(imatrix_read(&m, FILE_, ck, &e), e, ERR_USER, ".dat");
    assert_non_null(strstr(e.hint, "llama-imatrix"));
    for (size_t n = 0; n < sizeof dat - 1; n += 3) {
        OK(os_write_file(FILE_, dat, n, &e), e);
        FAILS(imatrix_read(&m, FILE_, ck, &e), e, ERR_USER, FILE_);
    }
    FAILS(imatrix_read(&m, DIR_ "/none.gguf", ck, &e), e, ERR_USER, "none.gguf");
    checkpoint_close(&ck);
    raw_free(&raw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),       cmocka_unit_test(test_stop),      cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_bad_files),
    };
    return device_done(cmocka_run_group_tests(tests, device_setup, remove_dir));
}
