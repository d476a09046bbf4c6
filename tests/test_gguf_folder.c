/* GGUF and Hugging Face folders of the same model: the same tokens, the same weights, there and back. */
#include "tests/gguf_model.h"

#include <math.h>

#include "formats/tokenizer/tokenizer.h"
#include "formats/tokenizer/tokenizer_pre.h"
#include "host/convert/convert.h"

#define DIR_ "tmp_gguf_folder"
#include "tests/scratch_dir.h"

#define FILE_ DIR_ "/model.gguf"

/* ---- tokenizers of metadata ---- */

struct toy {
    const char *model, *pre;
    const char *tokens[32];
    float scores[32];
    int32_t types[32];
    const char *merges[16];
    int bos;            /* -1: no key */
    int add_bos, space; /* -1: no key */
};

static void toy_keys(struct gguf_keys *k, const struct toy *t)
{
    struct gguf_string list[32];
    size_t n = 0, m = 0;
    for (; n < 32 && t->tokens[n]; n++)
        list[n] = (struct gguf_string){t->tokens[n], strlen(t->tokens[n])};
    gguf_add_string(k, "tokenizer.ggml.model", t->model, strlen(t->model));
    if (t->pre)
        gguf_add_string(k, "tokenizer.ggml.pre", t->pre, strlen(t->pre));
    gguf_add_strings(k, "tokenizer.ggml.tokens", list, n);
    gguf_add_array(k, "tokenizer.ggml.token_type", GGUF_I32, t->types, n);
    if (strcmp(t->model, "llama") == 0)
        gguf_add_array(k, "tokenizer.ggml.scores", GGUF_F32, t->scores, n);
    for (; m < 16 && t->merges[m]; m++)
        list[m] = (struct gguf_string){t->merges[m], strlen(t->merges[m])};
    if (m)
        gguf_add_strings(k, "tokenizer.ggml.merges", list, m);
    if (t->bos >= 0)
        gguf_add_u32(k, "tokenizer.ggml.bos_token_id", (uint32_t)t->bos);
    if (t->add_bos >= 0)
        gguf_add_bool(k, "tokenizer.ggml.add_bos_token", t->add_bos);
    if (t->space >= 0)
        gguf_add_bool(k, "tokenizer.ggml.add_space_prefix", t->space);
}

static void toy_write(const struct toy *t)
{
    struct gguf_keys *k = gguf_keys_create();
    struct gguf_writer *w;
    struct err e = {0};
    toy_keys(k, t);
    OK(gguf_writer_open(&w, FILE_, k, NULL, 0, &e), e);
    OK(gguf_writer_close(&w, &e), e);
    gguf_keys_destroy(&k);
}

static void expect(const struct tokenizer *t, const char *text, const uint32_t *want, size_t n_want)
{
    uint32_t *ids;
    size_t n;
    struct err e = {0};
    char line[512] = "";
    OK(tokenizer_encode(t, text, strlen(text), &ids, &n, &e), e);
    for (size_t i = 0; i < n && strlen(line) < 480; i++)
        snprintf(line + strlen(line), sizeof line - strlen(line), " %u", (unsigned)ids[i]);
    if (n != n_want || memcmp(ids, want, n * sizeof *ids) != 0)
        fail_msg("\"%s\" became%s", text, line);
    free(ids);
}

/* The metadata, and the tokenizer.json made of them, give these ids. */
static void expect_both(const char *text, const uint32_t *want, size_t n_want)
{
    struct tokenizer *t;
    struct gguf *g;
    struct strbuf json = {0}, config = {0};
    struct err e = {0};
    OK(tokenizer_load(&t, FILE_, &e), e);
    expect(t, text, want, n_want);
    tokenizer_destroy(&t);
    OK(gguf_open(&g, FILE_, &e), e);
    OK(tokenizer_json_from_gguf(&json, &config, g, FILE_, &e), e);
    gguf_close(&g);
    OK(os_write_file(DIR_ "/tokenizer.json", json.data, json.size, &e), e);
    OK(os_write_file(DIR_ "/tokenizer_config.json", config.data, config.size, &e), e);
    OK(tokenizer_load(&t, DIR_, &e), e);
    expect(t, text, want, n_want);
    tokenizer_destroy(&t);
    strbuf_free(&json);
    strbuf_free(&config);
    assert_true(os_remove(DIR_ "/tokenizer.json") && os_remove(DIR_ "/tokenizer_config.json"));
}

#define IDS(...) (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t)

#define S "\xE2\x96\x81"
static const struct toy pieces = {
    .model = "llama",
    .tokens = {"<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", S, "a", "b", "c", "ab", "bc", S "a", "abc", "<tool>", "d"},
    .scores = {0, 0, 0, 0, 0, -9, -10, -11, -12, -3, -2, -4, -5, 0, -13},
    .types = {2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1, 4, 1},
    .bos = 1,
    .add_bos = -1,
    .space = -1,
};

static void test_scores(void **state)
{
    (void)state;
    struct toy t = pieces;
    toy_write(&t);
    /* bc has the best score; then the mark takes a, and "abc" cannot come about. */
    expect_both("abc", IDS(1, 11, 10));
    expect_both("babc", IDS(1, 5, 7, 12));    /* bc, then abc, before the mark could take b */
    expect_both("ab ab", IDS(1, 5, 9, 5, 9)); /* ab before the mark with a */
    expect_both("\xC3\xA9", IDS(1, 5, 3, 4)); /* bytes */
    expect_both("ee", IDS(1, 5, 0));          /* no token for its byte: unknown, once for a run */
    expect_both("a<tool>d</s>", IDS(1, 11, 13, 5, 14, 2));
    expect_both("<s>a", IDS(1, 11)); /* one BOS */
    expect_both("", IDS(1));
    t.space = 0;
    toy_write(&t);
    expect_both("abc", IDS(1, 12));
    t.add_bos = 0;
    toy_write(&t);
    expect_both("abc", IDS(12));
    /* Equal scores: the leftmost first. */
    t.scores[9] = t.scores[10];
    toy_write(&t);
    struct tokenizer *k;
    struct err e = {0};
    OK(tokenizer_load(&k, FILE_, &e), e);
    expect(k, "ababc", IDS(9, 12));
    expect(k, "abcabc", IDS(12, 12));
    assert_int_equal(tokenizer_vocab_size(k), 15);
    tokenizer_destroy(&k);
}

/* Characters without a token of their own still join into one. */
static void test_joined_characters(void **state)
{
    (void)state;
    struct toy t = {.model = "llama",
                    .tokens = {"<unk>", "xy", "xyz", "<0x78>"},
                    .scores = {0, -1, -2, 0},
                    .types = {2, 1, 1, 6},
                    .bos = -1,
                    .add_bos = 0,
                    .space = 0};
    struct tokenizer *k;
    struct err e = {0};
    toy_write(&t);
    OK(tokenizer_load(&k, FILE_, &e), e);
    expect(k, "xyzxyx", IDS(2, 1, 3));
    tokenizer_destroy(&k);
}

static struct toy bytes_toy(const char *pre)
{
    return (struct toy){.model = "gpt2",
                        .pre = pre,
                        .tokens = {"a", "b", "1", "2", "\xC4\xA0", "ab",
                                   "\xC4\xA0"
                                   "a",
                                   "12", "<|end|>", "!", "122", "e", "\xCC\x81", "\xC3\x83", "\xC2\xA9", "\xC3\x8C",
                                   "\xC4\xA3"},
                        .types = {1, 1, 1, 1, 1, 1, 1, 1, 3, 1, 1, 1, 1, 1, 1, 1, 1},
                        .merges = {"a b", "\xC4\xA0 a", "1 2", "12 2"},
                        .bos = 8,
                        .add_bos = -1,
                        .space = -1};
}

static void test_byte_level(void **state)
{
    (void)state;
    struct toy t = bytes_toy("gpt-2");
    toy_write(&t);
    expect_both("ab a", IDS(5, 6));
    expect_both("122122<|end|>ab", IDS(10, 10, 8, 5));
    t = bytes_toy("llama-bpe"); /* up to three digits a word, and a BOS unless said otherwise */
    toy_write(&t);
    expect_both("1221 ab", IDS(8, 10, 2, 4, 5));
    t.add_bos = 0;
    toy_write(&t);
    expect_both("ab a", IDS(5, 6));
    t = bytes_toy("qwen2"); /* single digits; normal form C: e and its accent are one character, of two bytes */
    toy_write(&t);
    expect_both("122", IDS(2, 3, 3));
    expect_both("e\xCC\x81", IDS(13, 14));
    t = bytes_toy("default"); /* three digits, cut off from what stands around; punctuation by itself */
    toy_write(&t);
    expect_both("ab!122122", IDS(5, 9, 10, 10));
    t = bytes_toy(NULL);
    toy_write(&t);
    expect_both("!ab", IDS(9, 5));
}

/* Of every name, the words of its table and of the tokenizer.json that comes of it; which leads back to it.
 */
static void test_every_name(void **state)
{
    (void)state;
    char name[TOKENIZER_PRE_NAME];
    struct err e = {0};
    size_t n = 0;
    for (const struct tokenizer_pre *pre; (pre = tokenizer_pre_at(n)); n++) {
        tokenizer_pre_name(pre, name);
        assert_ptr_equal(tokenizer_pre_named(name, strlen(name)), pre);
        struct toy t = bytes_toy(name);
        t.add_bos = 0;
        toy_write(&t);
        /* Digits: all in one, three or each. */
        bool three = strstr("llama-bpe dbrx gpt-4o kimi-k2 deepseek-v3 falcon minicpm5 default", name);
        bool all = strstr("gpt-2 olmo bloom", name);
        if (all || three)
            expect_both("122 ab", IDS(10, 4, 5));
        else
            expect_both("122 ab", IDS(2, 3, 3, 4, 5));
        struct gguf *g;
        struct strbuf json = {0}, config = {0};
        OK(gguf_open(&g, FILE_, &e), e);
        OK(tokenizer_json_from_gguf(&json, &config, g, FILE_, &e), e);
        gguf_close(&g);
        cJSON *root = json_parse(json.data, json.size, name, &e);
        const struct tokenizer_pre *found;
        assert_non_null(root);
        OK(tokenizer_pre_of(&found, root, name, &e), e);
        assert_ptr_equal(found, pre);
        cJSON_Delete(root);
        strbuf_free(&json);
        strbuf_free(&config);
    }
    assert_true(n > 20);
    static const char *const others[] = {"llama3",    "llama-v3", "pixtral", "glm4", "chatglm-bpe", "smaug-bpe",
                                         "starcoder", "refact",   "llama4",  "mpt",  "poro-chat"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_non_null(tokenizer_pre_named(others[i], strlen(others[i])));
    assert_null(tokenizer_pre_named("llama", 5));
    assert_null(tokenizer_pre_named("gpt-2 phi-2", 11));
    assert_null(tokenizer_pre_named("", 0));
}

/* What a GGUF cannot say is named. */
static void test_lost_step(void **state)
{
    (void)state;
    static const struct {
        const char *json, *lost;
    } cases[] = {
        {"null", NULL},
        {"{\"type\": \"NFC\"}", NULL},
        {"{\"type\": \"Lowercase\"}", "Lowercase"},
        {"{\"type\": \"Sequence\", \"normalizers\": []}", NULL},
        {"{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": \"Strip\"}]}", "Strip"},
    };
    struct err e = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cJSON *o = json_parse(cases[i].json, strlen(cases[i].json), "normalizer", &e);
        assert_non_null(o);
        const char *lost = tokenizer_lost_step(o);
        assert_true(cases[i].lost ? lost && strcmp(lost, cases[i].lost) == 0 : !lost);
        cJSON_Delete(o);
    }
}

/* Nor does a tokenizer.json come of the file, which would be as bad. */
static void refuse_json(const char *says)
{
    struct gguf *g;
    struct strbuf json = {0}, config = {0};
    struct err e = {0};
    OK(gguf_open(&g, FILE_, &e), e);
    FAILS(tokenizer_json_from_gguf(&json, &config, g, FILE_, &e), e, ERR_USER, says);
    if (!strstr(e.msg, FILE_) || !e.hint[0])
        fail_msg("\"%s\" (%s) names no file or no remedy", e.msg, e.hint);
    gguf_close(&g);
    strbuf_free(&json);
    strbuf_free(&config);
}

static void refuse(const struct toy *t, const char *says)
{
    struct tokenizer *k;
    struct err e = {0};
    toy_write(t);
    FAILS(tokenizer_load(&k, FILE_, &e), e, ERR_USER, says);
    if (!strstr(e.msg, FILE_) || !e.hint[0])
        fail_msg("\"%s\" (%s) names no file or no remedy", e.msg, e.hint);
    assert_null(k);
    refuse_json(says);
}

static void test_refused(void **state)
{
    (void)state;
    struct toy t = bytes_toy("nobody-s");
    refuse(&t, "the pre-tokenizer \"nobody-s\"");
    t = bytes_toy("\033[2J"); /* would clear the terminal that shows it */
    refuse(&t, "tokenizer.ggml.pre is not plain UTF-8 text");
    t = bytes_toy("gpt-2");
    t.model = "bert";
    refuse(&t, "the tokenizer \"bert\"");
    t.model = "no_vocab";
    refuse(&t, "holds no tokenizer");
    t.model = "gpt2";
    t.merges[0] = "ab";
    refuse(&t, "not a pair");
    t.merges[0] = "a 1";
    refuse(&t, "not all in the vocabulary");
    t.merges[0] = NULL;
    refuse(&t, "\"tokenizer.ggml.merges\" is missing");
    t = pieces;
    t.tokens[6] = "b";
    refuse(&t, "twice");
    t = pieces;
    t.scores[6] = NAN;
    refuse(&t, "a score is NaN");
    /* A token that no text holds would take hours to be cut in two at every byte. */
    t = pieces;
    static char endless[(1 << 20) + 1];
    memset(endless, 'a', sizeof endless - 1);
    t.tokens[6] = endless;
    toy_write(&t);
    refuse_json("too long");
    struct gguf_keys *k = gguf_keys_create();
    struct gguf_writer *w;
    struct tokenizer *out;
    struct err e = {0};
    static const float few[2] = {0, 0};
    const struct gguf_string list[3] = {{"a", 1}, {"b", 1}, {"c", 1}};
    gguf_add_string(k, "tokenizer.ggml.model", "llama", 5);
    gguf_add_strings(k, "tokenizer.ggml.tokens", list, 3);
    gguf_add_array(k, "tokenizer.ggml.scores", GGUF_F32, few, 2);
    OK(gguf_writer_open(&w, FILE_, k, NULL, 0, &e), e);
    OK(gguf_writer_close(&w, &e), e);
    gguf_keys_destroy(&k);
    FAILS(tokenizer_load(&out, FILE_, &e), e, ERR_USER, "is not as long as the list");
}

/* Before any weight is written. */
static void test_unknown_architecture(void **state)
{
    (void)state;
    struct made_gguf m;
    struct err e = {0};
    const struct convert_options o = {.format = EXPORT_HF};
    const struct progress none = {0};
    made_model(&m, "gemma", GGML_F16, GGML_F16);
    made_write(&m, FILE_);
    made_free(&m);
    FAILS(convert_run(FILE_, DIR_ "/gemma", &o, &none, &e), e, ERR_USER,
          FILE_ ": the architecture gemma is not supported");
    assert_int_not_equal(e.hint[0], 0);
    assert_int_equal(os_stat(DIR_ "/gemma", NULL), OS_ABSENT);
}

/* ---- folders ---- */

static void convert(const char *in, const char *out, enum export_format format, const char *type)
{
    const struct convert_options o = {.format = format, .type = type, .force = true};
    const struct progress none = {0};
    struct err e = {0};
    OK(convert_run(in, out, &o, &none, &e), e);
}

static void same_file(const char *a, const char *b)
{
    struct os_map x, y;
    struct err e = {0};
    OK(os_map_file(&x, a, &e), e);
    OK(os_map_file(&y, b, &e), e);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, (size_t)x.size);
    os_unmap(&x);
    os_unmap(&y);
}

static void same_weights(const char *one, const char *other)
{
    static const char *const modules[] = {"model.embed_tokens",
                                          "model.norm",
                                          "model.layers.0.self_attn.q_proj",
                                          "model.layers.0.self_attn.k_proj",
                                          "model.layers.0.mlp.down_proj",
                                          "model.layers.0.input_layernorm"};
    struct checkpoint *a, *b;
    struct err e = {0};
    OK(checkpoint_open(&a, one, &e), e);
    OK(checkpoint_open(&b, other, &e), e);
    for (size_t i = 0; i < sizeof modules / sizeof modules[0]; i++) {
        struct weight_info w, u;
        OK(checkpoint_weight(a, modules[i], &w, &e), e);
        OK(checkpoint_weight(b, modules[i], &u, &e), e);
        assert_int_equal(w.rows, u.rows);
        assert_int_equal(w.cols, u.cols);
        size_t bytes = (size_t)w.rows * w.cols * sizeof(float);
        float *x = malloc(bytes), *y = malloc(bytes);
        assert_true(x && y);
        OK(checkpoint_read_f32(a, modules[i], 0, w.rows, x, &e), e);
        OK(checkpoint_read_f32(b, modules[i], 0, w.rows, y, &e), e);
        for (size_t k = 0; k < bytes / sizeof *x; k++) /* zeros may differ in their sign */
            if (x[k] != y[k])
                fail_msg("%s differs in %s and %s: %g, %g", modules[i], one, other, (double)x[k], (double)y[k]);
        free(x);
        free(y);
    }
    checkpoint_close(&a);
    checkpoint_close(&b);
}

static void test_export(void **state)
{
    (void)state;
    static const uint32_t types[] = {GGML_F32, GGML_F16, GGML_BF16};
    for (size_t i = 0; i < 3; i++) {
        struct made_gguf m;
        made_model(&m, i == 1 ? "qwen2" : "llama", types[i], types[i]);
        toy_keys(m.keys, &pieces);
        made_write(&m, FILE_);
        made_free(&m);
        convert(FILE_, DIR_ "/hf", EXPORT_HF, NULL);
        same_weights(FILE_, DIR_ "/hf");
        struct tokenizer *t;
        struct err e = {0};
        OK(tokenizer_load(&t, DIR_ "/hf", &e), e);
        expect(t, "abc", IDS(1, 11, 10));
        tokenizer_destroy(&t);
        assert_int_equal(os_stat(DIR_ "/hf/metadata.gguf", NULL), OS_FILE);
    }
}

/* Symmetric grids keep their codes; K-quants have none that these formats hold. */
static void test_codes(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        const char *name;
    } types[] = {{GGML_Q4_0, "4"}, {GGML_Q2_0, "2"}};
    for (size_t i = 0; i < 2; i++) {
        struct made_gguf m;
        struct err e = {0};
        struct checkpoint *c;
        struct weight_info w;
        made_model(&m, "llama", types[i].type, GGML_F16);
        made_write(&m, FILE_);
        made_free(&m);
        convert(FILE_, DIR_ "/gptq", EXPORT_GPTQ, NULL);
        same_weights(FILE_, DIR_ "/gptq");
        OK(checkpoint_open(&c, DIR_ "/gptq", &e), e);
        OK(checkpoint_weight(c, "model.layers.0.self_attn.q_proj", &w, &e), e);
        assert_true(w.quantized);
        assert_string_equal(w.spec.type->name, types[i].name);
        checkpoint_close(&c);
    }
    struct made_gguf m;
    struct err e = {0};
    const struct progress none = {0};
    made_model(&m, "llama", GGML_Q4_K, GGML_Q6_K);
    made_write(&m, FILE_);
    made_free(&m);
    const struct convert_options o = {.format = EXPORT_GPTQ};
    FAILS(convert_run(FILE_, DIR_ "/gptq", &o, &none, &e), e, ERR_USER, "gptq cannot hold the codes");
    convert(FILE_, DIR_ "/hf", EXPORT_HF, NULL); /* the values, in 16 bits */
    struct checkpoint *c;
    OK(checkpoint_open(&c, DIR_ "/hf", &e), e);
    assert_int_equal(checkpoint_dense(c, "model.embed_tokens")->dtype, DTYPE_F16);
    checkpoint_close(&c);
}

static void shared_path(char *out, size_t cap, const char *name)
{
    const char *source = os_getenv("GSQ_SOURCE");
    snprintf(out, cap, "%s/../shared/%s", source ? source : ".", name);
}

static void same_ids(const char *one, const char *other, const char *text)
{
    struct tokenizer *a, *b;
    struct err e = {0};
    char *s;
    size_t size, n, m;
    uint32_t *x, *y;
    OK(tokenizer_load(&a, one, &e), e);
    OK(tokenizer_load(&b, other, &e), e);
    assert_int_equal(tokenizer_bos(a), tokenizer_bos(b));
    OK(os_read_file(text, 1u << 30, &s, &size, &e), e);
    OK(tokenizer_encode(a, s, size, &x, &n, &e), e);
    OK(tokenizer_encode(b, s, size, &y, &m, &e), e);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n * sizeof *x);
    free(s);
    free(x);
    free(y);
    tokenizer_destroy(&a);
    tokenizer_destroy(&b);
}

/* Folder to GGUF, to a folder, to a GGUF: byte for byte the same; and the tokens of tokenizer.json (which
 * test_tokenizer checks against their hashes) everywhere. */
static void test_real_models(void **state)
{
    (void)state;
    static const char *const models[][2] = {{"stories260K", "tinystories-eval.txt"},
                                            {"TinyStories-656K", "tinystories-eval.txt"},
                                            {"oak-2.9M", "wikitext2-test-eval.txt"}};
    char dir[4096], text[4096], name[128];
    shared_path(dir, sizeof dir, "models/oak-2.9M/config.json");
    if (os_stat(dir, NULL) != OS_FILE) {
        print_message("skipped: ../shared is absent\n");
        skip();
    }
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        snprintf(name, sizeof name, "models/%s", models[i][0]);
        shared_path(dir, sizeof dir, name);
        snprintf(name, sizeof name, "text/%s", models[i][1]);
        shared_path(text, sizeof text, name);
        static const char *const types[] = {"F32", "F16"};
        for (int k = 0; k < 2; k++) {
            convert(dir, FILE_, EXPORT_GGUF, types[k]);
            convert(FILE_, DIR_ "/hf", EXPORT_HF, NULL);
            convert(DIR_ "/hf", DIR_ "/again.gguf", EXPORT_GGUF, NULL);
            same_file(FILE_, DIR_ "/again.gguf");
        }
        same_ids(dir, FILE_, text);
        same_ids(dir, DIR_ "/hf", text);
        if (i == 2) /* F16, as the original is */
            same_weights(dir, DIR_ "/hf");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_joined_characters),
        cmocka_unit_test(test_byte_level),
        cmocka_unit_test(test_every_name),
        cmocka_unit_test(test_lost_step),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_unknown_architecture),
        cmocka_unit_test(test_export),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_real_models),
    };
    return cmocka_run_group_tests_name("gguf_folder", tests, make_dir, remove_dir);
}
