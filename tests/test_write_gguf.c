/* formats/write/write_gguf and gguf_export: header bytes, every family's tensors where they belong, codes, refusals.
 * Tokenizers are test_write_gguf_tokenizer.c's. */
#include "tests/family_model.h"

#include <math.h>

#include "formats/write/gguf_export.h"
#include "formats/gguf/gguf_names.h"
#include "formats/read/tensor_values.h"
#include "formats/write/carried.h"
#include "formats/write/export.h"
#include "formats/write/write_gguf.h"
#include "host/base/log.h"
#include "host/base/pool.h"
#include "host/convert/convert.h"

#define DIR_ "tmp_write_gguf"
#define BASE DIR_ "/base"
#define OUT  DIR_ "/out.gguf"
#include "tests/written_gguf.h"

/* ---- the header ---- */

static void header_bytes(void **state)
{
    (void)state;
    /* Magic, version 3, 21 tensors, 16 keys, and the first four of them. */
    static const char want[] = "GGUF\3\0\0\0"
                               "\x15\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0"
                               "\x14\0\0\0\0\0\0\0general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama"
                               "\x0c\0\0\0\0\0\0\0general.type\x08\0\0\0\x05\0\0\0\0\0\0\0model"
                               "\x0c\0\0\0\0\0\0\0general.name\x08\0\0\0\x04\0\0\0\0\0\0\0base"
                               "\x11\0\0\0\0\0\0\0general.file_type\x04\0\0\0\x01\0\0\0"
                               "\x10\0\0\0\0\0\0\0llama.vocab_size\x04\0\0\0\x60\0\0\0";
    /* The first tensor: name, 2 dimensions, 64 columns, 96 rows, F16, offset 0; and the norm behind it. */
    static const char tensors[] = "\x11\0\0\0\0\0\0\0token_embd.weight\2\0\0\0\x40\0\0\0\0\0\0\0\x60\0\0\0\0\0\0\0"
                                  "\1\0\0\0\0\0\0\0\0\0\0\0"
                                  "\x16\0\0\0\0\0\0\0blk.0.attn_norm.weight\1\0\0\0\x40\0\0\0\0\0\0\0"
                                  "\0\0\0\0\0\x30\0\0\0\0\0\0";
    struct err e = {0};
    char *bytes;
    size_t size, at = 0;
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16});
    struct gguf *g = written(GGML_F16);
    OK(os_read_file(OUT, 1 << 26, &bytes, &size, &e), e);
    assert_memory_equal(bytes, want, sizeof want - 1);
    while (at < size && memcmp(bytes + at, tensors, 24) != 0)
        at++;
    assert_memory_equal(bytes + at, tensors, sizeof tensors - 1);
    assert_int_equal(size % 32, 0);
    free(bytes);
    assert_text(g, "tokenizer.ggml.model", "no_vocab");
    assert_null(gguf_find(g, "general.quantization_version"));
    assert_null(gguf_find(g, "llama.attention.key_length"));
    gguf_close(&g);
}

/* ---- tensors of every family ---- */

/* docs/formats.md 7: new row h*D + 2j + p <- old row h*D + p*D/2 + j. */
static uint32_t permuted(uint32_t r, uint32_t dim, bool on)
{
    uint32_t in = r % dim, p = in / (dim / 2), j = in % (dim / 2);
    return on ? r - in + 2 * j + p : r;
}

static void check_tensor(const struct gguf *g, const struct shape *s, const struct raw_tensor *t)
{
    char name[64];
    struct err e = {0};
    bool llama = strcmp(s->model_type, "llama") == 0 || strcmp(s->model_type, "mistral") == 0;
    bool turned = llama && (strstr(t->name, "q_proj") || strstr(t->name, "k_proj"));
    assert_true(gguf_name_of(&(struct model_config){0}, t->name, name, sizeof name));
    if (s->tied == TIED_HEAD && strcmp(t->name, "lm_head.weight") == 0)
        snprintf(name, sizeof name, "token_embd.weight");
    const struct gguf_tensor *x = gguf_tensor_find(g, name);
    if (s->tied && strcmp(name, "output.weight") == 0) {
        assert_null(x);
        return;
    }
    if (!x)
        fail_msg("%s: no tensor %s", s->name, name);
    uint32_t rows = t->n_dims == 2 ? (uint32_t)t->shape[0] : 1, cols = (uint32_t)t->shape[t->n_dims - 1];
    assert_int_equal(x->n_dims, t->n_dims);
    assert_int_equal(x->ne[0], cols);
    assert_int_equal(x->ne[1], rows);
    assert_int_equal(x->type, GGML_F32);
    struct tensor view = {.name = t->name, .dtype = t->dtype, .data = t->data, .bytes = t->bytes};
    float *want = malloc((size_t)rows * cols * sizeof *want), got;
    assert_non_null(want);
    OK(tensor_read_f32(&view, 0, (uint64_t)rows * cols, want, &e), e);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t k = 0; k < cols; k++) {
            bool bias = t->n_dims == 1;
            uint32_t row = bias ? 0 : permuted(r, s->c.head_dim, turned);
            uint32_t col = bias ? permuted(k, s->c.head_dim, turned) : k;
            memcpy(&got, x->data + ((size_t)row * cols + col) * 4, 4);
            if (got != want[(size_t)r * cols + k])
                fail_msg("%s: %s: row %u, column %u is elsewhere", s->name, name, r, k);
        }
    free(want);
}

static void check_keys(const struct gguf *g, const struct shape *s)
{
    char key[96], arch[16];
    snprintf(arch, sizeof arch, "%s", strcmp(s->model_type, "mistral") == 0 ? "llama" : s->model_type);
    assert_text(g, "general.architecture", arch);
#define KEY(name) (snprintf(key, sizeof key, "%s." name, arch), key)
    assert_int_equal(number(g, KEY("block_count")), s->layers);
    assert_int_equal(number(g, KEY("embedding_length")), s->c.hidden);
    assert_int_equal(number(g, KEY("feed_forward_length")), s->c.intermediate);
    assert_int_equal(number(g, KEY("attention.head_count")), s->c.heads);
    assert_int_equal(number(g, KEY("attention.head_count_kv")), s->c.kv_heads);
    assert_int_equal(number(g, KEY("rope.dimension_count")), s->c.head_dim);
    assert_int_equal(number(g, KEY("vocab_size")), s->c.vocab);
    assert_int_equal(number(g, KEY("context_length")), 512);
    assert_true(real(g, KEY("attention.layer_norm_rms_epsilon")) == (double)(float)s->c.eps);
    assert_true(real(g, KEY("rope.freq_base")) == s->c.rope_theta);
    assert_int_equal(number(g, KEY("attention.key_length")), s->c.head_dim);
    assert_int_equal(number(g, KEY("attention.value_length")), s->c.head_dim);
    if (s->c.sliding)
        assert_int_equal(number(g, KEY("attention.sliding_window")), s->c.sliding);
    const struct gguf_kv *pattern = gguf_find(g, KEY("attention.sliding_window_pattern"));
    assert_int_equal(pattern != NULL, s->full > 0);
    for (uint32_t l = 0; pattern && l < s->layers; l++)
        assert_int_equal(gguf_integer(pattern, l), l >= s->full);
    if (s->c.rope_linear > 0) {
        assert_text(g, KEY("rope.scaling.type"), "linear");
        assert_true(real(g, KEY("rope.scaling.factor")) == (double)s->c.rope_linear);
    } else if (s->c.yarn.factor > 0) {
        double usual = 0.1 * log(s->c.yarn.factor) + 1;
        assert_text(g, KEY("rope.scaling.type"), "yarn");
        assert_true(real(g, KEY("rope.scaling.factor")) == s->c.yarn.factor);
        assert_int_equal(number(g, KEY("rope.scaling.original_context_length")), s->c.yarn.original);
        if (s->c.yarn.fast != 32)
            assert_true(real(g, KEY("rope.scaling.yarn_beta_fast")) == s->c.yarn.fast);
        if (s->c.yarn.slow != 1)
            assert_true(real(g, KEY("rope.scaling.yarn_beta_slow")) == s->c.yarn.slow);
        if (s->c.yarn.attention > 0)
            assert_true(fabs(real(g, KEY("rope.scaling.attn_factor")) * usual / s->c.yarn.attention - 1) < 1e-6);
        else
            assert_null(gguf_find(g, KEY("rope.scaling.attn_factor")));
    } else {
        assert_null(gguf_find(g, KEY("rope.scaling.factor")));
    }
#undef KEY
}

/* What the frequency of each pair is divided by: model.c's blend, written down from Meta's description. */
static void check_rope_freqs(const struct gguf *g, const struct shape *s)
{
    const struct gguf_tensor *t = gguf_tensor_find(g, "rope_freqs.weight");
    if (s->c.llama3.factor <= 0) {
        assert_null(t);
        return;
    }
    assert_non_null(t);
    assert_int_equal(t->ne[0], s->c.head_dim / 2);
    unsigned kinds = 0;
    for (uint32_t i = 0; i < s->c.head_dim / 2; i++) {
        double f = pow(s->c.rope_theta, -2.0 * i / s->c.head_dim);
        double turns = s->c.llama3.original * f / 6.283185307179586, slow = f / s->c.llama3.factor;
        double mix = (turns - s->c.llama3.low) / (s->c.llama3.high - s->c.llama3.low);
        double want = turns < s->c.llama3.low ? slow : turns > s->c.llama3.high ? f : (1 - mix) * slow + mix * f;
        float got;
        memcpy(&got, t->data + (size_t)i * 4, 4);
        assert_true(fabs(f / (double)got / want - 1) < 1e-6);
        kinds |= turns < s->c.llama3.low ? 1 : turns > s->c.llama3.high ? 2 : 4;
    }
    assert_int_equal(kinds, 5); /* so short a context turns no pair often */
}

/* Llama 3.1 8B: the numbers that its converted files hold. */
static void llama3_numbers(void **state)
{
    (void)state;
    struct model_config c = {.head_dim = 128,
                             .rope_theta = 5e5,
                             .rope_scaling = ROPE_LLAMA3,
                             .rope_factor = 8,
                             .rope_low_freq = 1,
                             .rope_high_freq = 4,
                             .rope_original_context = 8192};
    float f[64];
    gguf_rope_freqs(&c, f);
    for (int i = 0; i < 64; i++)
        assert_true(i < 29 ? f[i] == 1 : i > 34 ? f[i] == 8 : f[i] > 1 && f[i] < 8);
}

static void every_family(void **state)
{
    (void)state;
    for (int i = 0; i < N_PLAIN; i++) {
        const struct shape *s = &shapes[i];
        struct raw_model m;
        family_write(BASE, s, &m);
        struct gguf *g = written(GGML_F32);
        size_t tied = s->tied == TIED_BOTH ? 1 : 0;
        assert_int_equal(gguf_tensor_count(g), m.n - tied + (s->c.llama3.factor > 0));
        for (size_t t = 0; t < m.n; t++)
            check_tensor(g, s, &m.items[t]);
        check_keys(g, s);
        check_rope_freqs(g, s);
        gguf_close(&g);
        raw_free(&m);
    }
}

/* Every family, as a GGUF, a folder and a GGUF again. */
static void there_and_back(void **state)
{
    (void)state;
    static const char *const types[] = {"F16", "BF16", "F32", NULL};
    struct err e = {0};
    log_set_level(LOG_ERROR);
    for (int i = 0; i < N_PLAIN; i++)
        for (int t = 0; t < 4; t++) {
            struct convert_options to = {.format = EXPORT_GGUF, .type = types[t]}, back = {.format = EXPORT_HF};
            struct raw_model m;
            char *first, *second;
            size_t n_first, n_second;
            family_write(BASE, &shapes[i], &m);
            raw_free(&m);
            OK(convert_run(BASE, OUT, &to, NULL, &e), e);
            OK(convert_run(OUT, DIR_ "/hf", &back, NULL, &e), e);
            to.type = NULL; /* nothing needs to be said: the folder holds what the file held */
            OK(convert_run(DIR_ "/hf", DIR_ "/again.gguf", &to, NULL, &e), e);
            OK(os_read_file(OUT, 1 << 26, &first, &n_first, &e), e);
            OK(os_read_file(DIR_ "/again.gguf", 1 << 26, &second, &n_second, &e), e);
            assert_int_equal(n_first, n_second);
            for (size_t k = 0; k < n_first; k++)
                if (first[k] != second[k])
                    fail_msg("%s, %s: byte %zu differs", shapes[i].name, types[t] ? types[t] : "as it is", k);
            /* From GGUF to GGUF. */
            free(second);
            OK(convert_run(OUT, DIR_ "/again.gguf", &to, NULL, &e), e);
            OK(os_read_file(DIR_ "/again.gguf", 1 << 26, &second, &n_second, &e), e);
            assert_int_equal(n_first, n_second);
            assert_memory_equal(first, second, n_first);
            free(first);
            free(second);
        }
    log_set_level(LOG_INFO);
}

/* ---- codes ---- */

static bool some_codes(void *ctx, const struct matrix *item, struct qlinear *q, struct err *e)
{
    uint32_t seed = 5;
    (void)ctx;
    uint32_t rows = HIDDEN, cols = HIDDEN;
    if (!qlinear_init(q, rows, cols, item->spec, e))
        return false;
    for (size_t i = 0; i < (size_t)rows * cols; i++)
        q->codes[i] = (int8_t)((int)(tiny_random(&seed) % 4) - 2);
    for (size_t i = 0; i < (size_t)rows * q->groups; i++)
        q->scales[i] = (float)((int)(tiny_random(&seed) % 64) - 31) / 256.0f;
    return true;
}

static void coded_rows_are_permuted(void **state)
{
    (void)state;
    static const char *const modules[] = {"model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"};
    static const char *const names[] = {"blk.0.attn_q.weight", "blk.1.attn_v.weight"};
    struct err e = {0};
    struct all a;
    struct gguf *g;
    struct qlinear q;
    float want[HIDDEN], got[HIDDEN];
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_BF16, .bias = true});
    struct checkpoint *c = open_ok(BASE);
    all_items(&a, c, GGML_BF16);
    for (size_t i = 0; i < a.n; i++)
        for (int m = 0; m < 2; m++)
            if (strcmp(a.items[i].module, modules[m]) == 0) {
                a.items[i].coded = true;
                a.items[i].type = gguf_type_of(GGML_Q2_0);
                a.items[i].spec = (struct quant_spec){quant_type_find("2"), 64, SCALE_F16};
            }
    static const char *const pair[][2] = {{"gsq.made", "by a test"}};
    struct export_options o = {.format = EXPORT_GGUF, .file_type = -1, .metadata = pair, .n_metadata = 1};
    OK(write_out(OUT, c, a.items, a.n, &o, &(struct export_source){.linear = some_codes}, &e), e);
    OK(gguf_open(&g, OUT, &e), e);
    assert_text(g, "gsq.made", "by a test");
    assert_int_equal(number(g, "general.file_type"), 32); /* most weights are BF16 */
    assert_int_equal(number(g, "general.quantization_version"), 2);
    OK(some_codes(NULL, &(struct matrix){.spec = {quant_type_find("2"), 64, SCALE_F16}}, &q, &e), e);
    for (int m = 0; m < 2; m++) {
        const struct gguf_tensor *t = gguf_tensor_find(g, names[m]);
        assert_non_null(t);
        assert_int_equal(t->type, GGML_Q2_0);
        for (uint32_t r = 0; r < HIDDEN; r++) {
            uint32_t row = permuted(r, HIDDEN / 4, m == 0);
            qlinear_dequant(&q, r, 1, want);
            gguf_dequant(gguf_type_of(GGML_Q2_0), t->data + (size_t)row * 18, HIDDEN, got);
            for (int k = 0; k < HIDDEN; k++)
                assert_true(got[k] == want[k]);
        }
    }
    qlinear_free(&q);
    gguf_close(&g);
    free(a.items);
    checkpoint_close(&c);
}

/* ---- what lies beside ---- */

static void carried_keys(void **state)
{
    (void)state;
    struct err e = {0};
    struct gguf_writer *w;
    struct gguf_keys *k = gguf_keys_create();
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16, .tied = TIED_EMBED});
    assert_non_null(k);
    gguf_add_string(k, "general.name", "Oak", 3);
    gguf_add_u32(k, "general.file_type", 7); /* speaks of another file */
    gguf_add_u32(k, "my.key", 42);
    OK(gguf_writer_open(&w, BASE "/" GGUF_CARRIED, k, NULL, 0, &e), e);
    OK(gguf_writer_close(&w, &e), e);
    gguf_keys_destroy(&k);
    struct gguf *g = written(GGML_F16);
    assert_text(g, "general.name", "Oak");
    assert_int_equal(number(g, "general.file_type"), 1);
    assert_int_equal(number(g, "my.key"), 42);
    const struct gguf_kv *third = gguf_kv_at(g, 2), *last = gguf_kv_at(g, gguf_kv_count(g) - 2);
    assert_memory_equal(third->key.text, "general.name", third->key.size);
    assert_memory_equal(last->key.text, "my.key", last->key.size); /* behind it the seal */
    assert_true(gguf_sealed(g));
    gguf_close(&g);
}

/* ---- refusals ---- */

static void spoil(const char *tensor, float v)
{
    struct raw_model m;
    tiny_config(BASE, &(struct tiny_options){.dtype = DTYPE_F32});
    tiny_tensors(&m, &(struct tiny_options){.dtype = DTYPE_F32});
    raw_set(raw_find(&m, tensor), 5, v);
    raw_write(&m, BASE, false);
    raw_free(&m);
}

static void refusals(void **state)
{
    (void)state;
    struct err e = {0};
    struct raw_model m;
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F32});
    spoil("model.layers.1.mlp.up_proj.weight", 1e5f);
    FAILS(write_all(GGML_F16, &e), e, ERR_USER, "model.layers.1.mlp.up_proj holds 100000, which F16 cannot hold");
    assert_non_null(strstr(e.msg, OUT ": blk.1.ffn_up.weight"));
    assert_non_null(strstr(e.msg, BASE));
    OK(write_all(GGML_BF16, &e), e);
    spoil("model.norm.weight", NAN);
    FAILS(write_all(GGML_F32, &e), e, ERR_USER, "model.norm holds NaN in " BASE);
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F32});
    FAILS(write_all(GGML_Q2_K, &e), e, ERR_USER, "64 columns are not a multiple of 256, the block size of Q2_K");
    FAILS(write_all(GGML_Q2_0, &e), e, ERR_USER, "cannot be rounded to Q2_0");

    raw_read(&m, BASE);
    raw_weight(&m, "model.layers.0.mlp.router.weight", DTYPE_F32, 4, HIDDEN, &(uint32_t){1});
    raw_write(&m, BASE, false);
    raw_free(&m);
    FAILS(write_all(GGML_F32, &e), e, ERR_USER, "model.layers.0.mlp.router.weight in " BASE);

    /* Such a bias was left out, or made a file that llama.cpp refuses. */
    static const char *const biases[] = {"lm_head.bias", "model.norm.bias", "model.layers.1.input_layernorm.bias"};
    for (int i = 0; i < 3; i++) {
        char says[128];
        tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F32, .bias = true});
        raw_read(&m, BASE);
        raw_weight(&m, biases[i], DTYPE_F32, 0, i ? HIDDEN : VOCAB, &(uint32_t){1});
        raw_write(&m, BASE, false);
        raw_free(&m);
        snprintf(says, sizeof says, "%s in " BASE, biases[i]);
        FAILS(write_all(GGML_F32, &e), e, ERR_USER, says);
        assert_int_not_equal(e.hint[0], 0);
    }
    /* Norms of q and k are of Qwen3, and of all its blocks. */
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F32});
    raw_read(&m, BASE);
    raw_weight(&m, "model.layers.1.self_attn.q_norm.weight", DTYPE_F32, 0, 16, &(uint32_t){1});
    raw_write(&m, BASE, false);
    raw_free(&m);
    FAILS(write_all(GGML_F32, &e), e, ERR_USER, "model.layers.1.self_attn.q_norm.weight in " BASE);
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F32});
    write_text_file(BASE, "config.json",
                    "{\"architectures\": [\"Qwen3ForCausalLM\"], \"hidden_size\": 64, \"intermediate_size\": "
                    "128, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"vocab_size\": 96, "
                    "\"rms_norm_eps\": 1e-05}");
    FAILS(write_all(GGML_F32, &e), e, ERR_USER, "model.layers.0.self_attn.q_norm.weight is missing");
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F32});
    raw_read(&m, BASE);
    raw_drop(&m, "model.norm.weight");
    raw_weight(&m, "model.norm.weight", DTYPE_F32, 2, HIDDEN, &(uint32_t){1});
    raw_write(&m, BASE, false);
    raw_free(&m);
    FAILS(write_all(GGML_F32, &e), e, ERR_USER, "model.norm.weight of " BASE " is a matrix");
    assert_int_not_equal(e.hint[0], 0);

    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F32});
    struct checkpoint *c = open_ok(BASE);
    FAILS(gguf_check_out(DIR_, c, false, &e), e, ERR_USER, "is a folder");
    FAILS(gguf_check_out(DIR_ "/nowhere/x.gguf", c, false, &e), e, ERR_USER, "there is no folder " DIR_ "/nowhere/");
    OK(gguf_check_out(DIR_ "/new.gguf", c, false, &e), e);
    OK(gguf_check_out(DIR_ "/model.safetensors", c, false, &e), e);
    FAILS(gguf_check_out(BASE "/model.safetensors", c, true, &e), e, ERR_USER, "is the model itself");
    OK(os_write_file(DIR_ "/new.gguf", "GGUF", 4, &e), e);
    FAILS(gguf_check_out(DIR_ "/new.gguf", c, false, &e), e, ERR_USER, "gsq did not write it");
    OK(gguf_check_out(DIR_ "/new.gguf", c, true, &e), e);
    FAILS(write_out(DIR_, c, NULL, 0, &(struct export_options){.format = EXPORT_GGUF, .file_type = -1},
                    &(struct export_source){0}, &e),
          e, ERR_USER, "is a folder");
    checkpoint_close(&c);
}

static bool stop(void *ctx, uint64_t done, uint64_t total)
{
    uint64_t *calls = ctx;
    assert_true(done <= total);
    return ++*calls < 3;
}

static void stops(void **state)
{
    (void)state;
    struct err e = {0};
    struct all a;
    uint64_t calls = 0;
    os_remove(OUT);
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F32});
    struct checkpoint *c = open_ok(BASE);
    all_items(&a, c, GGML_F32);
    assert_false(write_out(OUT, c, a.items, a.n, &(struct export_options){.format = EXPORT_GGUF, .file_type = -1},
                           &(struct export_source){.ctx = &calls, .progress = stop}, &e));
    assert_int_equal(e.kind, ERR_STOPPED);
    assert_int_equal(calls, 3);
    assert_int_equal(os_stat(OUT, NULL), OS_ABSENT);
    assert_true(os_list(DIR_, is_whole, NULL, NULL));
    free(a.items);
    checkpoint_close(&c);
}

/* Matrices here are of several parts that threads share; heads stay whole. */
static void any_number_of_threads(void **state)
{
    (void)state;
    static const int types[] = {GGML_Q4_0, GGML_Q8_0, GGML_F16};
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F32});
    for (int i = 0; i < 3; i++) {
        struct err e = {0};
        char *one, *many;
        size_t size, again;
        pool_set_threads(1);
        OK(write_all(types[i], &e), e);
        OK(os_read_file(OUT, 1 << 26, &one, &size, &e), e);
        for (unsigned threads = 2; threads <= 5; threads += 3) {
            pool_set_threads(threads);
            OK(write_all(types[i], &e), e);
            OK(os_read_file(OUT, 1 << 26, &many, &again, &e), e);
            assert_int_equal(again, size);
            assert_memory_equal(many, one, size);
            free(many);
        }
        free(one);
    }
    pool_set_threads(0);
}

/* Work is counted, not bytes: it ends at the total, and rounding counts for more than copying. */
static bool count_work(void *ctx, uint64_t done, uint64_t total)
{
    uint64_t *seen = ctx;
    assert_true(done >= seen[0] && done <= total);
    seen[0] = done;
    seen[1] = total;
    return true;
}

static void progress_is_work(void **state)
{
    (void)state;
    struct err e = {0};
    struct all a;
    uint64_t plain[2] = {0}, rounded[2] = {0};
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F32});
    struct checkpoint *c = open_ok(BASE);
    struct export_options o = {.format = EXPORT_GGUF, .file_type = -1};
    all_items(&a, c, GGML_F32);
    OK(write_out(OUT, c, a.items, a.n, &o, &(struct export_source){.ctx = plain, .progress = count_work}, &e), e);
    free(a.items);
    all_items(&a, c, GGML_Q4_0);
    OK(write_out(OUT, c, a.items, a.n, &o, &(struct export_source){.ctx = rounded, .progress = count_work}, &e), e);
    assert_int_equal(plain[0], plain[1]);
    assert_int_equal(rounded[0], rounded[1]);
    assert_true(rounded[1] > 10 * plain[1]);
    free(a.items);
    checkpoint_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_bytes),
        cmocka_unit_test(every_family),
        cmocka_unit_test(llama3_numbers),
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(coded_rows_are_permuted),
        cmocka_unit_test(carried_keys),
        cmocka_unit_test(refusals),
        cmocka_unit_test(stops),
        cmocka_unit_test(any_number_of_threads),
        cmocka_unit_test(progress_is_work),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    os_remove_tree(DIR_);
    return rc;
}
